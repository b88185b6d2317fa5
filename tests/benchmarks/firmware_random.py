"""Random networks without end: exported C against Python's integers, every output and every spike that is
kept.

    python tests/benchmarks/firmware_random.py --networks 3000 [--first SEED] [--core cortex-m4]
                                               [--processes 2]

The suite runs a few dozen of them; this is the long run. Each network is of the kinds that tests/generate.py
draws (every layer that integers can have, neurons with negative spikes, warm-up and leaks, events and
pictures) or one for which there is fast code, is exported in both orders if both exist, compiled with UBSan
(or for an emulated core), and run. Ends with the first difference and its seed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from firmware_networks import cnn, residual  # noqa: E402
from generate import networks  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402

from evsnn import RunError  # noqa: E402
from evsnn.circuit.quantized import quantize  # noqa: E402
from evsnn.output.console import print_message  # noqa: E402
from firmware_export.checks.check import HOST, run_on  # noqa: E402
from firmware_export.checks.machines import MACHINES  # noqa: E402
from firmware_export.program.fast import fast_kind  # noqa: E402
from firmware_export.text.header import export_header  # noqa: E402

FLAGS = ("-O1", "-fsanitize=undefined", "-fno-sanitize-recover", "-ftrapv")
A_BATCH = 20


def drawn(number: int) -> list[tuple]:
    """Networks and inputs of one seed: `A_BATCH` of any kind, and four with fast code, two of them of neurons
    with negative spikes.
    """
    found: list[tuple] = []

    @seed(number)
    @settings(
        max_examples=A_BATCH,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(networks(encodings=("constant", "constant", "events"), small=True))
    def collect(case):
        found.append(case)

    collect()
    rng = np.random.default_rng(number)
    channels, steps = (
        tuple(int(n) for n in rng.integers(1, 40, rng.integers(1, 4))),
        int(rng.choice([1, 3, 8, 17, 60, 200])),
    )
    size = int(rng.choice([8, 12, 20]))
    pool, classes, shift = (
        int(rng.integers(1, 3)),
        int(rng.integers(2, 12)),
        str(rng.choice(["bias", "initial", "none"])),
    )
    for neurons in (
        {},
        {
            "negative_threshold": float(rng.choice([0.02, 0.25])),
            "warm_up_steps": int(rng.integers(0, steps + 1)) * int(rng.integers(2)),
        },
    ):
        found.append(
            (
                cnn(channels, pool, classes, size, steps, shift, 1.0, number, **neurons),
                rng.random((2, 1, size, size), np.float32),
            )
        )
        found.append((residual(steps, 1.0, number, **neurons), rng.random((2, 2, 9, 9), np.float32)))
    return found


def checked(number: int, core: str | None) -> Counter:
    """Compare the networks of a seed; gives how many of which kind of code there were."""
    counts: Counter = Counter()
    machine = MACHINES[core] if core else HOST()
    for index, (network, images) in enumerate(drawn(number)):
        quantized = quantize(network)
        circuit = quantized.circuit
        shape = circuit.input_shape if circuit.analog else (quantized.n_steps, *circuit.input_shape)
        inputs = images.reshape(len(images), *shape)
        inputs = quantized.encode(inputs) if circuit.analog else inputs
        for by_step in (False,) if circuit.has_warm_up else (False, True):
            export = export_header(quantized, "net", by_step=by_step, compact=bool((number + index) % 3 == 0))
            try:
                run_on(machine, export, inputs, ("-O2",) if core else FLAGS, trace=True)
            except RunError as error:
                raise SystemExit(
                    f"seed {number}, network {index}, {'step by step' if by_step else 'layer by layer'}:"
                    f" {error}"
                ) from error
            counts.update(
                fast_kind(stage, export.program) or "any layer"
                for stage in export.program.stages
                if stage.kind == "population"
            )
            counts["exports"] += 1
        counts["networks"] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--core", choices=MACHINES, help="default: this computer")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + -(-arguments.networks // (A_BATCH + 2)))
    total: Counter = Counter()
    with ProcessPoolExecutor(arguments.processes) as pool:
        for number, counts in zip(seeds, pool.map(checked, seeds, [arguments.core] * len(seeds))):
            total += counts
            print_message(
                f"seed {number}: {total['networks']} networks, {total['exports']} exports without a"
                " difference"
            )
    print(
        f"{total.pop('networks')} networks, {total.pop('exports')} exports without a difference; layers by"
        " code: " + ", ".join(f"{kind} {n}" for kind, n in total.most_common())
    )


if __name__ == "__main__":
    main()
