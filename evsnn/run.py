"""``python -m evsnn.run``: run a network and say what came out, how fast, and with how many operations."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import __version__
from .output import console

if TYPE_CHECKING:
    from .files.inputs import Inputs
    from .network.network import Network, Samples
    from .output.report import Run

__all__ = ["main"]

_EPILOG = """\
without WEIGHTS, the packaged demo model (handwritten digits) runs
without --input, the samples stored with the model run, else seeded noise
with several T, one row a T; agreement is with the predictions at the largest T
`warm [WEIGHTS.h5 ...]` instead compiles what networks need, and keeps it
"""


def parser(prog: str) -> console.Parser:
    """The command line."""
    p = console.Parser(
        prog=prog,
        description="Run a spiking network and report accuracy, rates, operations and time.",
        epilog=_EPILOG,
    )
    p.add_argument(
        "weights", metavar="WEIGHTS.h5", nargs="?", help="the network (default: the packaged demo model)"
    )
    p.add_argument(
        "--input",
        metavar="F",
        help=".npz (images, optional labels), .npy or .h5, in the model's own shape and scale",
    )
    p.add_argument(
        "--steps",
        metavar="T[,T2,...]",
        type=console.steps,
        help="number of time steps, or several to compare (default: the model's)",
    )
    p.add_argument("--arithmetic", choices=("float32", "int8"), default="float32", help="default: float32")
    p.add_argument(
        "--threads", metavar="N", type=console.integer(1, 1024), help="default: as many as there are cores"
    )
    p.add_argument("--limit", metavar="N", type=console.integer(1, 1 << 31), help="use the first N samples")
    p.add_argument(
        "--seed",
        metavar="N",
        type=console.integer(0, (1 << 32) - 1),
        default=0,
        help="of noise and Poisson inputs (default: 0)",
    )
    p.add_argument(
        "--backend",
        choices=("auto", "numba", "reference"),
        default="auto",
        help="the event-driven engine, or the slow NumPy reference",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.add_argument(
        "--plot", metavar="F.png", type=console.picture, help="draw rates and operations (.png, .svg or .pdf)"
    )
    p.add_argument("--version", action="version", version=f"evsnn {__version__}")
    return p


def main(argv: Sequence[str] | None = None, prog: str = "python -m evsnn.run") -> int:
    """Run the command and return its exit status."""
    return console.run(
        lambda arguments: (
            _warm(arguments[1:], prog)
            if arguments[:1] == ["warm"]
            else _run(parser(prog).parse_args(arguments))
        ),
        argv,
    )


def _warm(arguments: Sequence[str], prog: str) -> int:
    from .warm import main as warm

    return warm(arguments, f"{prog} warm")


def _run(options) -> int:
    started = time.perf_counter()
    if options.plot:
        console.check_picture(options.plot)
    from .files.demo import demo
    from .files.inputs import open_inputs
    from .files.weights import load
    from .output.report import Report

    start_up_ms = {"import": _ms_since(started)}
    started = time.perf_counter()
    network = load(options.weights) if options.weights is not None else demo()
    start_up_ms["load"] = _ms_since(started)
    with open_inputs(
        network,
        options.input,
        limit=options.limit,
        seed=options.seed,
        n_steps=max(options.steps or (0,)) or None,
    ) as inputs:
        if inputs.source == "noise":
            console.print_message(
                f"input: the model's file holds no samples, running on noise of seed {options.seed}"
            )
        n_steps = options.steps or (inputs.n_steps or network.n_steps,)
        inputs.require_steps(max(n_steps))
        runs = _run_all(network, n_steps, inputs, options, start_up_ms)
    report = Report(options.weights or "demo", network, inputs.source, options.seed, runs)
    if options.json:
        console.print_result(report.json())
    else:
        from .output.table import draw

        console.print_result(draw(report.tables()))
    if options.plot:
        from .output.plot import save

        save(options.plot, report)
        console.print_message(f"plot: {options.plot}")
    return console.DONE


def _run_all(
    network: Network, n_steps: tuple[int, ...], inputs: Inputs, options, start_up_ms: dict[str, float]
) -> list[Run]:
    """One run a T on the same samples, which are read when memory for them has been announced.

    `start_up_ms` has the times until here, and gets what is imported on the way.
    """
    from .files.inputs import range_of
    from .output.memory import announce
    from .output.report import Run
    from .simulation import Simulator
    from .startup import import_compiler

    runs: list[Run] = []
    samples: Samples | None = None
    if (
        options.arithmetic == "int8"
        and network.input_range is None
        and network.samples is None
        and network.input.encoding == "constant"
    ):
        announce({"inputs": inputs.n_bytes})
        samples = _read(inputs, network)
        network = network.replace(input_range=range_of(samples.images))
        console.print_message(
            "input: the model's file names no range for it, integers are scaled to the values found, {:g} to"
            " {:g}".format(*network.input_range)
        )
    for T in n_steps:
        simulator = Simulator(
            network, T, arithmetic=options.arithmetic, threads=options.threads, backend=options.backend
        )
        imported = {"import": 0.0, "compile": 0.0} if runs else import_compiler(simulator)
        start_up_ms["import"] += imported["import"] + simulator.start_up_ms["import"]
        memory_bytes = announce(({} if samples else {"inputs": inputs.n_bytes}) | simulator.memory_bytes)
        samples = samples or _read(inputs, network)
        with console.Progress(f"T = {T}: preparing layers") as progress:
            times = simulator.prepare(progress=progress)
        with console.Progress(f"T = {T}: running samples") as progress:
            result = simulator.run(
                inputs.cut(samples.images, T), samples.labels, seed=options.seed, progress=progress
            )
        times = {
            "plan": times["plan"],
            "compile": times["compile"] + imported["compile"],
            "first": float(result.latency_ms[0]),
        }
        runs.append(Run(result, memory_bytes, start_up_ms | times))
        del simulator  # its arrays go before the next one's come
    return runs


def _read(inputs: Inputs, network: Network) -> Samples:
    """The samples, and a word if their scale looks wrong."""
    from .files.inputs import range_warning

    samples = inputs.read()
    warning = range_warning(network, samples.images)
    if warning:
        console.print_message(f"warning: {warning}")
    return samples


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
