"""What networks give, as digests: the same on every CPU.

    python tests/arm/results.py make FOLDER
        write networks and images: every operator by hand, and random ones
    python tests/arm/results.py fill FOLDER ARMPY CPU STORE
        compile all kernels that they need for a core, into a store of object files
    python tests/arm/results.py same STORE OTHER ...
        check that the emulated Python makes the same machine code
    python tests/arm/results.py run FOLDER [--engine]
        print one JSON object: a digest of everything that each of them gives

`run` compares each small network with the NumPy reference, too (not with --engine), and adds what `evsnn.run
--json` says of the demo model and the models of examples/models, times aside.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import evsnn  # noqa: E402
from evsnn.arguments import RECORDS  # noqa: E402
from evsnn.files.demo import demo  # noqa: E402
from evsnn.simulation import ARITHMETICS, Simulator  # noqa: E402

MODELS = sorted((ROOT / "examples" / "models").glob("*.h5"))
MODEL_STEPS = 4
N_RANDOM = 18
TIMES = ("latency_ms", "start_up_ms", "memory_bytes", "ms")
"""Keys of the JSON object that are this machine's and this run's."""


def cases() -> dict[str, tuple]:
    """Networks and images by name: layers of every kind, tile edges, blocks of steps, encodings; then random
    ones, always the same.
    """
    from generate import networks
    from hypothesis import HealthCheck, Phase, given, settings
    from networks import IMAGES, every_path, small_network

    rng = np.random.default_rng(1)
    found = {}
    for negative_threshold, warm_up_steps in ((0.0, 0), (0.1, 0), (0.0, 1), (0.1, 1)):
        found[f"every path, theta {negative_threshold}, warm-up {warm_up_steps}"] = (
            every_path(negative_threshold, warm_up_steps),
            rng.random((2, 2, 5, 4), dtype=np.float32),
        )
    for channels in (16, 33, 70, 130):
        found[f"{channels} channels"] = small_network(channels), IMAGES[:1]
    for encoding in ("poisson", "events"):
        images = IMAGES[:1] if encoding == "poisson" else rng.random((1, 8, 3, 9, 8)) < 0.3
        found[encoding] = small_network(70, encoding), images

    random = []

    @given(networks())
    @settings(
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        max_examples=8 * N_RANDOM,
    )
    def draw(case):
        random.append(case)

    draw()
    return found | {f"random {i}": case for i, case in enumerate(random[:: len(random) // N_RANDOM])}


def make(folder: Path) -> None:
    """Write every case."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for i, (name, (network, images)) in enumerate(cases().items()):
        names[f"{i:03}"] = name
        evsnn.save(folder / f"{i:03}.h5", network)
        np.save(folder / f"{i:03}.npy", images)
    (folder / "names.json").write_text(json.dumps(names))


def kernels(folder: Path) -> list:
    """All kernels that the cases and the models need."""
    from evsnn.engine.workspace import needed

    networks = [
        (demo(), None),
        *((evsnn.load(path), None) for path in sorted(folder.glob("*.h5"))),
        *((evsnn.load(path), MODEL_STEPS) for path in MODELS),
    ]
    plans = (
        Simulator(network, steps, arithmetic=arithmetic, threads=1, backend="numba").plan
        for network, steps in networks
        for arithmetic in ARITHMETICS
    )
    return [kernel for plan in plans for kernel in needed(plan)]


def same(home: Path, others: list[Path]) -> None:
    """Compare kernels of the same key byte for byte."""
    from cross import section

    def codes(folder: Path) -> dict[str, bytes]:
        parts = (path.read_bytes().partition(b"\n") for path in folder.rglob("*.o"))
        return {json.loads(header)["key"]: section(code) for header, _, code in parts}

    ours, theirs = codes(home), [codes(other) for other in others]
    for found in theirs:
        different = [key for key in found.keys() & ours.keys() if found[key] != ours[key]]
        if different or not found.keys() & ours.keys():
            raise SystemExit(f"other machine code: {different or 'nothing to compare'}")
    print(
        f"{len(set().union(*theirs) & ours.keys())} kernels are what the emulated numba makes, byte for byte"
    )


def digest(result: evsnn.Result) -> str:
    """Outputs, spikes, membranes, counts and operations of every layer."""
    said = hashlib.sha256(np.ascontiguousarray(result.outputs).tobytes())
    for layer in result.layers:
        for array in (layer.spikes, layer.v_mem, layer.spike_counts):
            said.update(
                b"none"
                if array is None
                else f"{array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()
            )
        said.update(f"{layer.name} {layer.n_spikes} {layer.n_events} {layer.sops} {layer.macs}; ".encode())
    return said.hexdigest()


def without_times(value):
    """A JSON value without the keys in `TIMES`."""
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if key not in TIMES}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


def said_of(*arguments: str) -> object:
    """What the command says, times aside, and the digest of the result that it says it of."""
    from evsnn import run

    out, kept = io.StringIO(), []
    simulate = Simulator.run

    def keeping(*args, **options) -> evsnn.Result:
        kept.append(simulate(*args, **options))
        return kept[-1]

    with contextlib.redirect_stdout(out), mock.patch.object(Simulator, "run", keeping):
        status = run.main([*arguments, "--json", "--threads", "1"])
    if status:
        raise SystemExit(f"evsnn.run {' '.join(arguments)}: status {status}")
    return {"said": without_times(json.loads(out.getvalue())), "digests": [digest(result) for result in kept]}


def results(folder: Path, backends: tuple[str, ...]) -> dict[str, object]:
    """All digests by name; those of the small networks are the same by every backend."""
    found = {}
    for number, name in json.loads((folder / "names.json").read_text()).items():
        network, images = evsnn.load(folder / f"{number}.h5"), np.load(folder / f"{number}.npy")
        for arithmetic in ARITHMETICS:
            fast, *slow = (
                digest(
                    evsnn.simulate(
                        network, images, arithmetic=arithmetic, record=RECORDS, threads=1, backend=backend
                    )
                )
                for backend in backends
            )
            if any(other != fast for other in slow):
                raise SystemExit(f"{name}, {arithmetic}: the engine's results are not the reference's")
            found[f"{name}, {arithmetic}"] = fast
    for arithmetic in ARITHMETICS:
        found[f"evsnn.run, {arithmetic}"] = said_of("--limit", "3", "--arithmetic", arithmetic)
    for path in MODELS:
        for arithmetic in ARITHMETICS:
            found[f"evsnn.run {path.stem}, {arithmetic}"] = said_of(
                str(path.relative_to(ROOT)),
                "--limit",
                "1",
                "--steps",
                str(MODEL_STEPS),
                "--arithmetic",
                arithmetic,
            )
    return found


def main(arguments: list[str]) -> int:
    match arguments:
        case ["make", folder]:
            make(Path(folder))
        case ["fill", folder, armpy, cpu, home]:
            from cross import fill

            print(
                f"{fill(Path(armpy).resolve(), cpu, Path(home), kernels(Path(folder)))} kernels compiled for"
                f" {cpu}"
            )
        case ["same", home, *others] if others:
            same(Path(home), [Path(other) for other in others])
        case ["run", folder]:
            print(json.dumps(results(Path(folder), ("numba", "reference")), indent=1))
        case ["run", folder, "--engine"]:
            print(json.dumps(results(Path(folder), ("numba",)), indent=1))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
