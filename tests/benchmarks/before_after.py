"""This checkout beside another one: the same networks, one core, turns taken in one sitting.

::

    python tests/benchmarks/before_after.py OTHER [--other-python PYTHON] [--networks vgg16,...] [--steps 16]
                                                  [--arithmetics float32,int8] [--starts N] [--rounds N]
                                                  [--core N]

OTHER is the root of another checkout, older or newer; each side runs its own code on networks that its own
`networks.py` draws of the same seed. Two processes on one core take turns: A B, B A, A B. They are started
anew several times, because where their memory lies moves a time by up to 5 %. A turn is one untimed sample
and then timed ones; the ratio is the median over all rounds of this checkout's CPU time over the other's,
with the quartiles beside it. Nothing is asserted here: see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

SIDE = """
import json, os, sys, time
root, network, cache, n_steps, arithmetic, core = sys.argv[1:7]
sys.path[:0] = [root, os.path.join(root, "tests", "benchmarks")]
os.sched_setaffinity(0, {int(core)})
from pathlib import Path
import networks, peers
networks.build(network, Path(cache))
engine = peers.open_engine(f"evsnn-{arithmetic}", network, Path(cache), int(n_steps))
engine.run()
print("ready", flush=True)
for line in sys.stdin:
    times = []
    engine.run()
    for _ in range(int(line)):
        before = time.process_time_ns()
        engine.run()
        times.append(time.process_time_ns() - before)
    print(json.dumps(sorted(times)[len(times) // 2] / 1e6), flush=True)
"""


class Side:
    """A process that runs one checkout's engine on one network."""

    def __init__(
        self, python: str, root: Path, network: str, cache: Path, n_steps: int, arithmetic: str, core: int
    ):
        words = [python, "-c", SIDE, str(root), network, str(cache), str(n_steps), arithmetic, str(core)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=os.environ | threads | {"EVSNN_CACHE_DIR": str(cache / "code")},
        )
        self._answer()

    def turn(self, count: int) -> float:
        """The median CPU time of `count` samples, in milliseconds."""
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return float(json.loads(self._answer()))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a side stopped with exit status {self._process.wait()}")
        return line


def turns(ours: Side, other: Side, rounds: int, count: int) -> list[tuple[float, float]]:
    """The milliseconds of both sides in each round."""
    times = []
    for i in range(rounds):
        first, second = (ours, other) if i % 2 else (other, ours)
        a, b = first.turn(count), second.turn(count)
        times.append((a, b) if i % 2 else (b, a))
    return times


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("other", type=Path, help="the root of another checkout")
    p.add_argument("--other-python", default=sys.executable, help="its Python (default: this one)")
    p.add_argument("--networks", default="mnist_cnn,vgg16,resnet20", help="of networks.py")
    p.add_argument("--steps", default="16")
    p.add_argument("--arithmetics", default="float32,int8")
    p.add_argument("--starts", type=int, default=5, help="how often both processes are started anew")
    p.add_argument("--rounds", type=int, default=5, help="per start")
    p.add_argument("--core", type=int, default=0)
    options = p.parse_args(arguments)
    print(f"{'network':14}{'T':>4} {'arithmetic':10}{'here ms':>10}{'other ms':>10}{'ratio':>8}  quartiles")
    with tempfile.TemporaryDirectory() as folder:
        for network in options.networks.split(","):
            for n_steps in map(int, options.steps.split(",")):
                for arithmetic in options.arithmetics.split(","):
                    times = []
                    for _ in range(options.starts):
                        sides = [
                            Side(
                                python, root, network, Path(folder) / name, n_steps, arithmetic, options.core
                            )
                            for python, root, name in (
                                (sys.executable, ROOT, "here"),
                                (options.other_python, options.other.resolve(), "other"),
                            )
                        ]
                        count = max(3, min(200, int(60 / sides[1].turn(3))))
                        times += turns(*sides, options.rounds, count)
                        for side in sides:
                            side.close()
                    here, there = np.array(times).T
                    low, middle, high = np.percentile(here / there, (25, 50, 75))
                    print(
                        f"{network:14}{n_steps:4} {arithmetic:10}{np.median(here):10.3f}"
                        f"{np.median(there):10.3f}{middle:8.3f}  {low:.3f} to {high:.3f}",
                        flush=True,
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
