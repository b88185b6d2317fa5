"""``python -m evsnn`` and the console script ``evsnn``: they run one of the commands."""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports below
    from .interrupts import end_quietly

    end_quietly()

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from . import __version__
from .output import console

__all__ = ["main"]

_COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "convert": "make a weights file of a trained ReLU network in ONNX",
        "run": "run a network: accuracy, rates, operations and time",
        "profile": "where time, memory and energy go, layer by layer",
        "inspect": "what is in a weights file",
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the command line names, and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in _COMMANDS:
        try:
            command = importlib.import_module(f".{arguments[0]}", __package__)
        except KeyboardInterrupt:
            return console.INTERRUPTED
        return command.main(arguments[1:], prog=f"evsnn {arguments[0]}")
    return console.run(_refuse, arguments)


def _refuse(arguments: Sequence[str]) -> int:
    """Answer --help, --version, and a command line that names no command."""
    lines = [f"  {name:10}{what}" for name, what in _COMMANDS.items()]
    parser = console.Parser(
        prog="evsnn",
        usage="evsnn COMMAND ...",
        description="Spiking networks from trained ReLU networks, event-driven on a CPU.",
        epilog="commands:\n" + "\n".join(lines) + "\n\n'evsnn COMMAND --help' says more about one.",
    )
    parser.add_argument("--version", action="version", version=f"evsnn {__version__}")
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND", help="one of those below")
    parser.parse_args(arguments)
    return console.BAD_USAGE


if __name__ == "__main__":
    sys.exit(main())
