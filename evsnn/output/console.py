"""The console: options, what goes to stdout and stderr, and the exit status.

stdout carries the result and nothing else; messages, warnings and progress go to stderr. A command ends with
status 0 (done), 1 (the model or the data is bad), 2 (the command line is bad), 130 (Ctrl-C) or 141 (nobody
reads stdout any more). An error is one line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import EvsnnError, MissingExtraError, RunError
from ..text import has_extra, printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = [
    "DONE",
    "BAD_DATA",
    "BAD_USAGE",
    "INTERRUPTED",
    "UNREAD",
    "Parser",
    "Progress",
    "add_run_options",
    "check_picture",
    "integer",
    "is_terminal",
    "picture",
    "run",
    "print_message",
    "print_result",
    "steps",
]

DONE, BAD_DATA, BAD_USAGE, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141


class _UsageError(Exception):
    """A command line that cannot be understood."""


class Parser(argparse.ArgumentParser):
    """An argument parser with errors of one line and without abbreviated flags."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str):
        raise _UsageError(f"{message}. Try '{self.prog} --help'")

    def _print_message(
        self, message: str, file=None
    ) -> None:  # argparse would ignore that stdout cannot be written to
        print_result(message.rstrip("\n"))


def integer(least: int, most: int) -> Callable[[str], int]:
    """The type of an option that is an integer from `least` to `most`."""

    def parse(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else -1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected an integer from {least} to {most}")
        return value

    return parse


def steps(text: str) -> tuple[int, ...]:
    """The type of ``--steps T[,T2,...]``: different numbers of time steps, in the order given."""
    from ..network.network import MAX_STEPS

    values = tuple(integer(1, MAX_STEPS)(part.strip()) for part in text.split(","))
    if len(set(values)) != len(values):
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected each number of steps once")
    return values


def name_with(*endings: str) -> Callable[[str], str]:
    """The type of a file to write: a name with one of these endings.

    So a file of another kind is not replaced by mistake.
    """

    def name(text: str) -> str:
        if os.path.splitext(text)[1].lower() not in endings:
            raise argparse.ArgumentTypeError(
                f"got {text[:80]!r}, expected a name that ends in"
                f" {' or '.join([', '.join(endings[:-1])] * (len(endings) > 1) + [endings[-1]])}"
            )
        return text

    return name


picture = name_with(".png", ".svg", ".pdf")
"""The type of ``--plot F.png``; matplotlib chooses the format by the ending."""


def check_picture() -> None:
    """Refuse a picture that could not be drawn, before the work is done.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    if not has_extra("matplotlib"):
        raise MissingExtraError("--plot needs matplotlib", hint='install it with: pip install "evsnn[plot]"')


def print_message(line: str) -> None:
    """Print a line on stderr; if that is not possible, the work goes on."""
    with contextlib.suppress(OSError):
        print(printable(line), file=sys.stderr, flush=True)


def print_result(text: str) -> None:
    """Print a text on stdout.

    Raises
    ------
    RunError
        If it cannot be written.
    BrokenPipeError
        If nobody reads stdout any more.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _abandon_stdout()
        raise RunError("the result cannot be written", where="standard output", got=error.strerror) from error


def add_run_options(p: argparse.ArgumentParser, steps_help: str) -> None:
    """Add the options that are the same in all commands that run a network."""
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
        type=steps,
        help=steps_help,
    )
    p.add_argument("--arithmetic", choices=("float32", "int8"), default="float32", help="default: float32")
    p.add_argument(
        "--coding",
        choices=("steps", "graded"),
        help="a spike per step, or each neuron's count of 0 to T once (default: the model's)",
    )
    p.add_argument("--limit", metavar="N", type=integer(1, 1 << 31), help="use the first N samples")
    p.add_argument(
        "--seed",
        metavar="N",
        type=integer(0, (1 << 32) - 1),
        default=0,
        help="of noise and Poisson inputs (default: 0)",
    )


class Progress:
    """A bar on stderr, if that is a terminal, rich is installed and the work takes some time.

    It is a context manager. ``progress(done, total)`` may be called at any time; a total of 0 is unknown.
    """

    every_s = 0.1

    def __init__(self, what: str):
        self.what = what
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._next = (
            time.monotonic() + 4 * self.every_s
            if is_terminal(sys.stderr) and has_extra("rich")
            else float("inf")
        )

    def __enter__(self) -> Progress:
        return self

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() < self._next:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(
                *columns, console=Console(file=sys.stderr), transient=True, auto_refresh=False
            )
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=total or None)
        self._bar.update(self._task, completed=done, total=total or None, refresh=True)
        self._next = time.monotonic() + self.every_s

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()


def run(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run `command` on the arguments `argv` (None: those of the process) and return its exit status.

    Every command ends here. An exception that is not the user's fault is a bug, and is not caught.
    """
    _settle_streams()
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        try:
            if sys.stdout is None:
                raise RunError("standard output is closed", hint="redirect it to a file or a pipe")
            try:
                return command(sys.argv[1:] if argv is None else argv)
            except SystemExit as leave:  # argparse, after --help or --version
                return DONE if leave.code is None else int(leave.code)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            _abandon_stdout()
            return UNREAD
        except KeyboardInterrupt:
            return INTERRUPTED
        except _UsageError as error:
            return _fail(BAD_USAGE, str(error))
        except EvsnnError as error:
            return _fail(BAD_DATA, str(error))
        except OSError as error:  # a full disk, a limit on open files
            return _fail(BAD_DATA, f"the system refused: {error}")
        except MemoryError as error:
            return _fail(
                BAD_DATA,
                f"not enough memory{f': {error}' if str(error) else ''}. Use fewer samples (--limit), steps"
                " or threads",
            )


def _fail(status: int, message: str) -> int:
    print_message(f"evsnn: error: {message}")
    return status


def is_terminal(stream) -> bool:
    """Whether the stream is a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def _settle_streams() -> None:
    """Make the standard streams usable, whatever the shell and the locale are."""
    for descriptor in (0, 1, 2):  # else the next file that is opened would become stdout
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _abandon_stdout() -> None:
    """Discard what stdout still buffers, so that Python's last flush cannot fail."""
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
    except (OSError, ValueError):  # stdout is not a file
        pass
