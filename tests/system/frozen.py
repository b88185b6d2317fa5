"""What networks compute, as digests that were written down once: no change of the code may change a bit of
them.

    python tests/system/frozen.py --write     # anew, where results are meant to change
    python tests/system/frozen.py             # compare everything; `test_frozen.py` compares a part

A digest is over outputs, spikes, membranes, spike counts, events and SOPs: of the demo model, of the models
in `examples/`, of 500 random networks with every kind of layer (float32 and int8, several T, by the engine,
the smaller ones by the reference too), and of what the exported C prints on this computer. Of 24 conversions
it is over the parameters of the networks; frozen_conversions.py says which can be the same everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]

import evsnn  # noqa: E402

FILE = HERE / "frozen.json"
N_NETWORKS = 500
N_CONVERSIONS = 24
RECORD = ("spike_counts", "v_mem", "spikes")
MODELS = {"demo": "evsnn/models/mnist.h5"} | {
    name: f"examples/{name}.h5"
    for name in (
        "firmware/digits_cnn",
        "firmware/digits_mlp",
        "models/resnet20_cifar10",
        "models/resnet20_cifar100",
        "models/vgg16_cifar10",
    )
}


class Digest:
    """A digest of arrays and numbers, in the order in which they come."""

    def __init__(self):
        self._sha = hashlib.sha256()

    def add(self, *values) -> None:
        for value in values:
            if isinstance(value, np.ndarray):
                self._sha.update(f"{value.dtype.str}{value.shape}".encode())
                self._sha.update(np.ascontiguousarray(value).tobytes())
            else:
                self._sha.update(repr(value).encode())

    def add_result(self, result) -> None:
        self.add(
            result.outputs,
            *(item for step in sorted(result.outputs_at) for item in (step, result.outputs_at[step])),
        )
        for layer in result.layers:
            self.add(
                layer.n_spikes,
                layer.n_events,
                layer.sops,
                layer.macs,
                layer.spike_counts,
                layer.v_mem,
                layer.spikes,
            )

    def __str__(self) -> str:
        return self._sha.hexdigest()[:16]


def random_network(seed: int):
    """Network `seed` of the frozen ones, and two images: every third one is large, the others fit the
    reference and firmware.
    """
    from generate import Seeded, made

    return made(Seeded(seed), small=seed % 3 != 0)


def of_network(network, images, backend: str, steps: tuple[int, ...], seed: int = 0) -> str:
    """The digest of runs in both arithmetics at several T."""
    digest = Digest()
    for arithmetic in ("float32", "int8"):
        for n_steps in steps:
            try:
                result = evsnn.simulate(
                    network,
                    images,
                    n_steps=n_steps,
                    arithmetic=arithmetic,
                    seed=seed,
                    record=RECORD,
                    backend=backend,
                    threads=1,
                )
            except evsnn.RunError as error:
                digest.add(type(error).__name__)
            else:
                digest.add_result(result)
    return str(digest)


def of_random_network(seed: int, backend: str = "numba") -> str:
    network, images = random_network(seed)
    own = network.n_steps
    return of_network(
        network,
        images,
        backend,
        (own,) if network.input.encoding == "events" else (own, (1, 3, 7, 80)[seed % 4]),
        seed,
    )


def of_model(path: str) -> str:
    network = evsnn.load(ROOT / path)
    n_images = 2 if "vgg" in path or "resnet" in path else 10
    return of_network(network, network.samples.images[:n_images], "numba", (network.n_steps, 3))


def of_c(seed: int) -> str:
    """The digest of what the C of a random network prints: classes, outputs, and sums of the kept spikes."""
    from evsnn.circuit.quantized import quantize
    from firmware_export.checks.check import HOST, run_on
    from firmware_export.text.header import export_header

    network, images = random_network(seed)
    digest = Digest()
    if network.input.encoding == "poisson":
        return ""
    quantized = quantize(network)
    images = (
        quantized.encode(images.reshape(len(images), *quantized.circuit.input_shape))
        if quantized.circuit.analog
        else images.reshape(len(images), quantized.n_steps, *quantized.circuit.input_shape)
    )
    for by_step in (False, True):
        try:
            export = export_header(quantized, "net", by_step=by_step)
        except evsnn.RunError as error:
            digest.add(type(error).__name__)
        else:
            text = run_on(HOST(), export, images, flags=("-O1",), trace=True).text
            digest.add(*(line for line in text.splitlines() if line.startswith(("status", "trace"))))
    return str(digest)


def seeds_of_c() -> list[int]:
    return [seed for seed in range(1, 120) if seed % 3]


def of_conversion(i: int) -> str:
    """The digest of the parameters that a conversion of exact numbers gives."""
    import frozen_conversions

    digest = Digest()
    frozen_conversions.add_network(digest, frozen_conversions.converted(i))
    return str(digest)


def measured() -> Iterator[tuple[str, str]]:
    """Every digest by its name."""
    for name, path in MODELS.items():
        yield name, of_model(path)
    for seed in range(N_NETWORKS):
        yield f"network {seed}", of_random_network(seed)
    for seed in seeds_of_c() if shutil.which("gcc") else ():
        yield f"C {seed}", of_c(seed)
    for i in range(N_CONVERSIONS) if importlib.util.find_spec("onnx") else ():
        yield f"conversion {i}", of_conversion(i)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--write", action="store_true", help="write the digests down instead of comparing them")
    p.add_argument("--into", type=Path, default=FILE, help="the file of the digests")
    options = p.parse_args()
    known = {} if options.write else json.loads(options.into.read_text())
    found: dict[str, str] = {}
    wrong = 0
    for name, digest in measured():
        found[name] = digest
        if not options.write and known.get(name) != digest:
            wrong += 1
            print(f"{name}: got {digest}, frozen {known.get(name)}")
        if len(found) % 20 == 0:
            print(f"{len(found)} done", file=sys.stderr)
    if options.write:
        options.into.write_text(json.dumps(found, indent=0) + "\n")
    print(f"{len(found)} digests {'written' if options.write else 'compared'}, {wrong} differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
