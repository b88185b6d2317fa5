"""``python -m evsnn.profile``: where time, memory and energy of a network go, layer by layer."""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports below
    from .interrupts import end_quietly

    end_quietly()

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from . import __version__, text
from .errors import RunError
from .output import console

if TYPE_CHECKING:
    from .profiling.measure import Profile
    from .profiling.report import Report
    from .session import Session
    from .simulation import Simulator

__all__ = ["main"]

_BORN = time.time()
"""The time since which this process is busy."""

_JUMP_S = 0.2
_OF_LOGS = ("power_column", "meter_voltage", "idle_w", "power_offset", "power_start")

_EPILOG = """\
without WEIGHTS, the packaged demo model (handwritten digits) runs
without --input, the samples stored with the model run, else seeded noise
with several T the last is profiled; the others are run once, for accuracy and latency against T
"""


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected seconds above 0, at most 86400")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e12:
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected a number")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected a number above 0")
    return value


def parser(prog: str) -> console.Parser:
    """The command line."""
    p = console.Parser(
        prog=prog,
        description="Measure where time, memory and energy of a network go, layer by layer.",
        epilog=_EPILOG,
    )
    console.add_run_options(p, "number of time steps; the last is profiled (default: the model's)")
    p.add_argument(
        "--threads",
        metavar="N",
        type=console.integer(1, 1024),
        default=1,
        help="default: 1, so that layers' times are wall times",
    )
    p.add_argument(
        "--seconds",
        metavar="S",
        type=_seconds,
        default=1.0,
        help="run the samples over and over for so long, three times at least (default: 1)",
    )
    p.add_argument("--cpu", metavar="N", type=console.integer(0, 4095), help="keep this process on one CPU")
    p.add_argument(
        "--sort", choices=("run", "time"), default="run", help="order of the layers (default: as they run)"
    )
    p.add_argument("--deadline-ms", metavar="MS", type=_positive, help="count the samples that took longer")
    p.add_argument(
        "--power-csv", metavar="F", help="the log of a power meter that ran along: joules beside the estimate"
    )
    p.add_argument(
        "--power-column",
        metavar="NAME[=UNIT]",
        help="the log's column to read, and its unit, if the header leaves them open: 'Total Power=W'",
    )
    p.add_argument(
        "--meter-voltage",
        metavar="V",
        type=_positive,
        help="the supply's voltage, for logs of a current alone",
    )
    p.add_argument(
        "--idle-w",
        metavar="W",
        type=_number,
        help="power of the idle board (default: from the log, outside the run)",
    )
    p.add_argument(
        "--power-offset",
        metavar="S",
        type=_number,
        default=0.0,
        help="seconds to add to the log's times: this clock less the meter's",
    )
    p.add_argument(
        "--power-start",
        metavar="S",
        type=_number,
        help="seconds since the epoch at which the log's times are 0, if they do not count from the epoch",
    )
    p.add_argument(
        "--compare", metavar="OLD.json", help="beside an earlier profile of the same model on the same host"
    )
    p.add_argument("--json", action="store_true", help="print one JSON object (docs/profile.md)")
    p.add_argument(
        "--html",
        metavar="F.html",
        type=console.name_with(".html", ".htm"),
        help="write a page with interactive charts, all in one file",
    )
    p.add_argument(
        "--speedscope",
        metavar="F.json",
        type=console.name_with(".json"),
        help="write a profile for speedscope.app",
    )
    p.add_argument("--version", action="version", version=f"evsnn {__version__}")
    return p


def main(argv: Sequence[str] | None = None, prog: str = "python -m evsnn.profile") -> int:
    """Run the command and return its exit status."""
    return console.run(lambda arguments: _profile(_options(parser(prog), arguments)), argv)


def _options(p: console.Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """The options, of which some need another: alone they would do nothing."""
    options = p.parse_args(arguments)
    if not options.power_csv:
        for name in _OF_LOGS:
            if getattr(options, name) != p.get_default(name):
                p.error(f"--{name.replace('_', '-')} is about a power meter's log: it needs --power-csv")
    return options


def _profile(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    if options.html and not text.has_extra("plotly"):
        from .errors import MissingExtraError

        raise MissingExtraError("--html needs plotly", hint='install it with: pip install "evsnn[html]"')
    from .files.targets import check_targets
    from .profiling.host import pin
    from .profiling.profile_files import old_profile, write_text
    from .session import Session

    check_targets(
        {"--html": options.html, "--speedscope": options.speedscope},
        (options.weights, options.input, options.compare, options.power_csv),
    )
    if options.power_csv and not os.path.isfile(options.power_csv):
        raise RunError(
            "there is no log of a meter",
            where=options.power_csv,
            hint="let the meter write while this command runs",
        )
    if options.cpu is not None:
        if options.threads > 1:
            raise RunError(
                "several threads cannot share one CPU's time and be measured",
                got=f"--threads {options.threads} --cpu {options.cpu}",
                hint="leave one of them out",
            )
        pin(options.cpu)
    old = old_profile(options.compare) if options.compare else None
    import_ms = 1e3 * (time.perf_counter() - started)
    with Session(options) as session:
        if old is not None:
            from .profiling.report import digest_of, require_same

            require_same(
                old,
                {
                    "model_sha256": digest_of(session.network),
                    "n_steps": session.n_steps[-1],
                    "arithmetic": options.arithmetic,
                    "threads": options.threads,
                },
                options.compare,
            )
        report = _measured(session, options, import_ms)
    if old is not None:
        report = report.compared_with(old, options.compare)
    if options.json:
        console.print_result(report.json())
    else:
        from .output.table import draw

        console.print_result(draw(report.tables(options.sort)))
    if options.html:
        from .profiling.page import page

        write_text(options.html, page(report))
        console.print_message(f"page: {options.html}")
    if options.speedscope:
        write_text(options.speedscope, report.speedscope())
        console.print_message(f"speedscope: {options.speedscope}")
    return console.DONE


def _measured(session: Session, options: argparse.Namespace, import_ms: float) -> Report:
    """Measure the last T, run the others, and collect spikes if a page shows them."""
    from .profiling.measure import hints_of, measure
    from .profiling.report import Report, Sweep, seen_of

    *others, T = session.n_steps
    ready = session.prepared(T, partial(_kept_bytes, options, session.inputs.n_samples))
    simulator, images = ready.simulator, ready.images
    started = time.perf_counter()
    simulator.run(images[:1], seed=options.seed)
    first_ms = 1e3 * (time.perf_counter() - started)
    times = ready.times_ms
    start_up_ms = {
        "import": import_ms + times["import"],
        "load": session.load_ms,
        "plan": times["plan"],
        "compile": times["compile"],
        "first": first_ms,
    }
    memory_bytes = ready.memory_bytes
    with console.Progress(f"T = {T}: measuring") as progress:
        profile: Profile = measure(simulator, images, ready.labels, options.seed, options.seconds, progress)
    energy = _metered(options, profile)
    seen = seen_of(simulator, images, options.seed) if options.html else None
    del simulator, ready
    sweep = [Sweep.of(profile.result)]
    if options.html and not others and not session.inputs.n_steps:
        others = [steps for steps in (T // 4, T // 2, 2 * T) if steps]
    for steps in others:
        ready = session.prepared(steps)
        with console.Progress(f"T = {steps}: running samples") as progress:
            result = ready.simulator.run(ready.images, ready.labels, seed=options.seed, progress=progress)
        sweep.append(Sweep.of(result))
        del ready
    return Report(
        session.model,
        session.network,
        session.inputs.source,
        options.seed,
        profile,
        start_up_ms,
        memory_bytes,
        hints_of(profile),
        options.deadline_ms,
        energy,
        tuple(sorted(sweep, key=lambda entry: entry.n_steps)),
        seen,
    )


def _kept_bytes(options: argparse.Namespace, n_samples: int, simulator: Simulator) -> int:
    """Bytes of results beside those of one run: of the first of several rounds, and of a page."""
    from .profiling.report import seen_bytes

    page = seen_bytes(simulator, n_samples) if options.html else 0
    return simulator.result_bytes(n_samples) + page


def _metered(options: argparse.Namespace, profile: Profile):
    """The energy of the run from the meter's log, if there is a log."""
    if not options.power_csv:
        return None
    from .profiling.energy import PowerLog

    jump = profile.ended - profile.started - profile.seconds
    if abs(jump) > max(_JUMP_S, 0.02 * profile.seconds):
        raise RunError(
            "the clock was set while samples ran, so the log cannot be laid beside them",
            got=f"a jump of {jump:+.1f} s",
            hint="measure again",
        )
    log = PowerLog.read(
        options.power_csv,
        starts_at=options.power_start,
        power_column=options.power_column,
        supply_v=options.meter_voltage,
    )
    return log.energy(
        profile.started, profile.ended, idle_w=options.idle_w, offset_s=options.power_offset, busy_since=_BORN
    )


if __name__ == "__main__":
    sys.exit(main())
