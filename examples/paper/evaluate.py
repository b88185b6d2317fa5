"""Convert the paper's systems with evsnn, and run them by its engine on the test images.

usage: python -m examples.paper.evaluate MODELS -o RUNS --cifar10 DATA --cifar100 DATA [--systems S,...]
                                         [--methods M,...] [--steps 16,32,...,400-600] [--limit-long N]
                                         [--threads N] [--only-convert]

MODELS holds what train.py wrote, <system>_{regular,threshold}.onnx. Into RUNS go the converted networks
(.h5), the source ANNs' predictions, and a record (records.py) for each system and method. What is in RUNS
already is not done again, and a run that was cut short goes on where it was: start the same command once
more. Several processes may work on different --systems in one RUNS.

Thresholds come from 4,096 training images, drawn with a fixed seed ("auto": 512, for thresholds and choice).
Test sets are run whole up to T = 32, their first images (--limit-long) for more steps. A network without a
shift is the same for every T: it is run once to the longest and read on the way. "auto" is made for and run
at T = 4, 8, 16 and 32, whatever --steps
says.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import evsnn
from evsnn.conversion.balance.options import AUTO
from evsnn.network.inventory import layer_facts
from evsnn.output.console import integer, print_message
from evsnn.output.memory import announce
from evsnn.simulation import Simulator
from examples.paper.data import Data, load, scaled
from examples.paper.progress import Estimate
from examples.paper.records import (
    AUTO_STEPS,
    AVERAGE,
    AVERAGE_SHIFT_STEPS,
    METHODS,
    SYSTEMS,
    Method,
    Record,
    key_of,
    replace_npz,
)
from examples.paper.sources import Source, describe, network_of, source_of

__all__ = ["Run", "main", "runs_of"]

STEPS = (16, 32, 64, 128, 256, 512, AVERAGE)
WHOLE_SET_UP_TO = 32
READ = tuple(range(400, 601, 10))
"""Where the engine reads for `AVERAGE`."""


@dataclass(frozen=True)
class Run:
    """A run of the engine, and the rows that come of it.

    Parameters
    ----------
    n_steps : int
    n_samples : int
        The first so many test images.
    rows : tuple of int or str
        Their "T".
    shift_steps : int, optional
        The T whose shift is added, if not that of the run.
    """

    n_steps: int
    n_samples: int
    rows: tuple[int | str, ...]
    shift_steps: int | None = None

    @property
    def record_steps(self) -> tuple[int, ...]:
        """The steps after which the readout is read."""
        times = {t for row in self.rows for t in (READ if row == AVERAGE else (row,))}
        return tuple(sorted(times | {self.n_steps}))


def runs_of(method: Method, steps: Sequence[int | str], n_test: int, limit_long: int) -> Iterator[Run]:
    """The runs that give the rows `steps`, the shortest first."""
    short = [row for row in steps if row != AVERAGE and row <= WHOLE_SET_UP_TO]
    long = [row for row in steps if row not in short]
    for rows, n_samples in ((short, n_test), (long, min(n_test, limit_long))):
        if method.shift == "none" and rows:
            yield Run(max(last_step(row) for row in rows), n_samples, tuple(rows))
        elif method.shift != "none":
            for row in rows:
                yield Run(last_step(row), n_samples, (row,), AVERAGE_SHIFT_STEPS if row == AVERAGE else None)


def data_of(system: str) -> str:
    """The data set in a system's name."""
    return system.rpartition("_")[2]


def last_step(row: int | str) -> int:
    return READ[-1] if row == AVERAGE else row


def carry_out(
    run: Run,
    network: evsnn.Network,
    images: np.ndarray,
    part: Path,
    threads: int | None,
    tell: Callable[[int, int, float], None],
) -> dict[str, np.ndarray]:
    """Run the engine, a few images a thread at a time; what is done is kept in `part`.

    Parameters
    ----------
    run : Run
    network : Network
    images : (n, 32, 32, 3) uint8
    part : Path
        The caller removes it, once the rows are written.
    threads : int, optional
    tell : callable (images so far, images, seconds)
        Called after each piece, with how many were done in it and how long it took.

    Returns
    -------
    dict
        ``t16``, ...: predictions (n,) uint8 after so many steps; ``sops`` and ``rate``, means over the
        images; ``seconds``.
    """
    names = [f"t{t}" for t in run.record_steps]
    kept: dict[str, np.ndarray] = {name: np.zeros(0, np.uint8) for name in names} | {
        name: np.zeros(()) for name in ("sops", "rate", "seconds")
    }
    if part.exists():
        with np.load(part) as file:
            kept = dict(file) if set(names) <= set(file) else kept  # else it was to be read at other steps
    simulator = Simulator(network, run.n_steps, threads=threads, shift_steps=run.shift_steps)
    announce(simulator.memory_bytes)
    at_once = max(64, 8 * simulator.threads)
    while (done := len(kept[names[0]])) < run.n_samples:
        started = time.perf_counter()
        batch = scaled(images[done : min(done + at_once, run.n_samples)])
        result = simulator.run(batch, record_steps=run.record_steps)
        seconds = time.perf_counter() - started
        old, new = done / (done + len(batch)), len(batch) / (done + len(batch))
        kept |= {
            f"t{t}": np.concatenate([kept[f"t{t}"], result.outputs_at[t].argmax(axis=1).astype(np.uint8)])
            for t in run.record_steps
        }
        kept |= {
            "sops": old * kept["sops"] + new * result.sops_per_sample,
            "rate": old * kept["rate"] + new * result.mean_rate,
            "seconds": kept["seconds"] + seconds,
        }
        replace_npz(part, kept)
        tell(done + len(batch), len(batch), seconds)
    return kept


def rows_from(
    run: Run, found: dict[str, np.ndarray], labels: np.ndarray, ann: np.ndarray, threads: int
) -> Iterator[tuple[dict, dict[str, np.ndarray]]]:
    """Each row of a run, and its predictions. Operations and rates are known of the whole run alone."""
    labels, ann = labels[: run.n_samples], ann[: run.n_samples]
    for T in run.rows:
        if T == AVERAGE:
            predictions = np.stack([found[f"t{t}"] for t in READ])
            arrays = {key_of(T): predictions, "times": np.array(READ)}
        else:
            predictions = found[f"t{T}"]
            arrays = {key_of(T): predictions}
        row = {
            "T": T,
            "n_samples": run.n_samples,
            "accuracy": float((predictions == labels).mean()),
            "ann_accuracy": float((ann == labels).mean()),
            "agreement": float((predictions == ann).mean()),
            "sops": float(found["sops"]) if run.n_steps == T else None,
            "rate": float(found["rate"]) if run.n_steps == T else None,
            "seconds": round(float(found["seconds"]), 1),
            "threads": threads,
        }
        yield row, arrays


def cpu_name() -> str:
    """The CPU, as the kernel calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )


@dataclass(frozen=True)
class Task:
    """One system by one method: its record, and what is still to run."""

    system: str
    method: str
    source: Source
    macs: int
    record: Record
    runs: tuple[Run, ...]

    @property
    def work(self) -> float:
        return sum(self.macs * run.n_steps * run.n_samples for run in self.runs)


def prepare(system: str, method: str, data: Data, arguments: argparse.Namespace) -> Task:
    """Convert a system, if need be, and see what is still to run."""
    how, folder = METHODS[method], arguments.output
    record = Record.open(folder, system, method, "engine", cpu_name())
    source = source_of(f"{system}_{how.activation}", arguments.models, folder, data, arguments.threads)
    if "ann" in record.predictions and not np.array_equal(record.predictions["ann"], source.predictions):
        sys.exit(
            f"{record.path('.npz')}: is of another source ANN than {source.model}; name another folder for"
            " the runs"
        )
    record.predictions["ann"] = source.predictions
    network = network_of(system, source, how, folder, data)
    macs = (
        describe(system, how.activation, source, network, folder, data)
        if how.threshold == "max"
        else sum(layer.macs for layer in layer_facts(network))
    )
    wanted = AUTO_STEPS if how.threshold == AUTO else arguments.steps
    runs = runs_of(how, [T for T in wanted if not record.has(T)], len(data.test_labels), arguments.limit_long)
    return Task(system, method, source, macs, record, tuple(runs))


def perform(task: Task, data: Data, arguments: argparse.Namespace, estimate: Estimate) -> None:
    """Do what is still to run, and keep each row as soon as it is there."""
    network = network_of(task.system, task.source, METHODS[task.method], arguments.output, data)
    for run in task.runs:
        what = f"{task.system} {task.method}, {run.n_steps} steps"
        part = task.record.path(f"_{run.n_steps}x{run.n_samples}.part.npz")

        def tell(done: int, n: int, seconds: float, run: Run = run, what: str = what) -> None:
            estimate.add(n * task.macs * run.n_steps, seconds)
            estimate.news(f"{what}: {done} of {run.n_samples} images, {estimate}")

        found = carry_out(run, network, data.test_images, part, arguments.threads, tell)
        for row, predictions in rows_from(
            run,
            found,
            data.test_labels,
            task.source.predictions,
            arguments.threads or len(os.sched_getaffinity(0)),
        ):
            recipe = {"recipe": network.metadata[f"recipe_T{row['T']}"]} if task.method == "auto" else {}
            task.record.add(row | recipe, predictions)
            print_message(
                f"{task.system} {task.method}, T = {row['T']}: {row['accuracy']:.2%} of {row['n_samples']}"
                f" images, the ANN {row['ann_accuracy']:.2%}; {estimate}"
            )
        part.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parsed(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    sets = {name: load(getattr(arguments, name)) for name in dict.fromkeys(map(data_of, arguments.systems))}
    tasks = [
        prepare(system, method, sets[data_of(system)], arguments)
        for system in arguments.systems
        for method in arguments.methods
    ]
    for name, data in sets.items():
        n_seen = len(np.unique(data.test_labels[: arguments.limit_long]))
        if n_seen < data.n_classes:
            what = f"the first {arguments.limit_long} test images show {n_seen} of {data.n_classes} classes"
            print_message(
                f"{name}: warning: {what}; a file in another order would tell more of T > {WHOLE_SET_UP_TO}"
            )
    estimate = Estimate(sum(task.work for task in tasks))
    for task in tasks:
        if task.runs and not arguments.only_convert:
            perform(task, sets[data_of(task.system)], arguments, estimate)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.paper.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RUNS")
    parser.add_argument(
        "--cifar10", type=Path, metavar="DATA", help="an .npz or torchvision's folder, see data.py"
    )
    parser.add_argument("--cifar100", type=Path, metavar="DATA")
    parser.add_argument(
        "--systems", help=f"default: of {', '.join(SYSTEMS)} those in MODELS whose data is given"
    )
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--steps", default=",".join(map(str, STEPS)))
    parser.add_argument(
        "--limit-long",
        type=integer(1, 1 << 24),
        default=2000,
        help=f"test images for T > {WHOLE_SET_UP_TO} (default: 2000)",
    )
    parser.add_argument(
        "--threads", type=integer(1, 1024), help="default: the processors this process may use"
    )
    parser.add_argument(
        "--only-convert", action="store_true", help="run nothing: networks and the ANNs' predictions only"
    )
    arguments = parser.parse_args(argv)
    given = [system for system in SYSTEMS if getattr(arguments, data_of(system))]
    arguments.systems = (
        arguments.systems.split(",")
        if arguments.systems
        else [system for system in given if any(arguments.models.glob(f"{system}_*.onnx"))]
    )
    arguments.methods = arguments.methods.split(",")
    for what, known in (("systems", SYSTEMS), ("methods", METHODS)):
        unknown = [name for name in getattr(arguments, what) if name not in known]
        if unknown:
            parser.error(f"--{what}: got {unknown[0]!r}, expected {', '.join(known)}")
    missing = [system for system in arguments.systems if system not in given]
    if missing or not given:
        parser.error(
            f"{missing[0]} needs --{data_of(missing[0])}"
            if missing
            else "no data is given: --cifar10, --cifar100 or both"
        )
    for model in dict.fromkeys(
        arguments.models / f"{system}_{METHODS[method].activation}.onnx"
        for system in arguments.systems
        for method in arguments.methods
    ):
        if not model.exists():
            parser.error(f"{model}: there is no such file; python -m examples.paper.train writes it")
    try:
        arguments.steps = tuple(
            AVERAGE if T == AVERAGE else integer(1, 65_536)(T) for T in arguments.steps.split(",")
        )
    except argparse.ArgumentTypeError as error:
        parser.error(f"--steps: {error}")
    return arguments


if __name__ == "__main__":
    main()
