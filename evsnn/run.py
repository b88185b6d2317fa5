"""``python -m evsnn.run``: run a network and report outputs, time and operations."""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports below
    from .interrupts import end_quietly

    end_quietly()

import sys
import time
from collections.abc import Sequence

from . import __version__
from .output import console

__all__ = ["main"]

_EPILOG = """\
without WEIGHTS, the packaged demo model (handwritten digits) runs
without --input, the samples stored with the model run, else seeded noise
with several T, one row per T; agreement is with the predictions at the largest T
`warm [WEIGHTS.h5 ...]` instead of options compiles what networks need, and keeps it
"""


def parser(prog: str) -> console.Parser:
    """The command line."""
    p = console.Parser(
        prog=prog,
        description="Run a spiking network and report accuracy, rates, operations and time.",
        epilog=_EPILOG,
    )
    console.add_run_options(p, "number of time steps, or several to compare (default: the model's)")
    p.add_argument(
        "--threads", metavar="N", type=console.integer(1, 1024), help="default: as many as there are cores"
    )
    p.add_argument(
        "--backend",
        choices=("auto", "numba", "reference"),
        default="auto",
        help="the event-driven engine, or the slow NumPy reference",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.add_argument(
        "--outputs",
        metavar="F.npz",
        type=console.name_with(".npz"),
        help="write the outputs of all samples at the largest T, each under its name",
    )
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
        console.check_picture()
    from .files.targets import check_targets
    from .output.report import Report, Run
    from .session import Session

    check_targets({"--plot": options.plot, "--outputs": options.outputs}, (options.weights, options.input))
    start_up_ms = {"import": 1e3 * (time.perf_counter() - started), "load": 0.0}
    runs = []
    with Session(options, options.backend) as session:
        start_up_ms["load"] = session.load_ms
        for T in session.n_steps:
            ready = session.prepared(T)
            with console.Progress(f"T = {T}: running samples") as progress:
                result = ready.simulator.run(ready.images, ready.labels, seed=options.seed, progress=progress)
            start_up_ms["import"] += ready.times_ms["import"]
            times = ready.times_ms | {"import": start_up_ms["import"], "first": float(result.latency_ms[0])}
            runs.append(Run(result, ready.memory_bytes, start_up_ms | times))
            del ready  # its arrays go before the next one's come
    report = Report(session.model, session.network, session.inputs.source, options.seed, runs)
    if options.json:
        console.print_result(report.json())
    else:
        from .output.table import draw

        console.print_result(draw(report.tables()))
    if options.plot:
        from .output.plot import save

        save(options.plot, report)
        console.print_message(f"plot: {options.plot}")
    if options.outputs:
        from .output.outputs import save as save_outputs

        save_outputs(options.outputs, report.main.result)
        console.print_message(f"outputs: {options.outputs}")
    return console.DONE


if __name__ == "__main__":
    sys.exit(main())
