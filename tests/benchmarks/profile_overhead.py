"""What the engine's own timing of layers costs: runs with it and without, in turns.

    python tests/benchmarks/profile_overhead.py [WEIGHTS.h5 ...] [--rounds N] [--steps T]

Without: the clock that stages read is one that stands still. `evsnn.profile` reads nothing else while it
measures.
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace

import numpy as np

import evsnn
from evsnn.engine import pool_runner, runner
from evsnn.files.demo import demo
from evsnn.simulation import Simulator

STANDING = SimpleNamespace(perf_counter=lambda: 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="*")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--steps", type=int, default=16)
    arguments = parser.parse_args()
    for path in [None, *arguments.weights]:
        network = demo() if path is None else evsnn.load(path)
        simulator = Simulator(network, arguments.steps, threads=1)
        images = network.samples.images[:16]
        simulator.run(images)
        ms: dict[bool, list[float]] = {True: [], False: []}
        for i in range(2 * arguments.rounds):
            timed = bool(i % 2)
            for module in (runner, pool_runner):
                module.time = time if timed else STANDING
            started = time.perf_counter()
            simulator.run(images)
            ms[timed].append(1e3 * (time.perf_counter() - started) / len(images))
        for module in (runner, pool_runner):
            module.time = time
        with_, without = (float(np.median(ms[timed])) for timed in (True, False))
        print(
            f"{path or 'demo'}: {with_:.4f} ms a sample with, {without:.4f} without:"
            f" {100 * (with_ / without - 1):+.2f} %"
        )


if __name__ == "__main__":
    main()
