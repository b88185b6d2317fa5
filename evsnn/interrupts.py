"""Ctrl-C while a command imports what it needs, before `evsnn.output.console.run` takes care of it."""

from __future__ import annotations

import os
import sys

__all__ = ["end_quietly"]

_INTERRUPTED = 130


def end_quietly() -> None:
    """Let an interrupt that nobody catches end the process without a traceback, with status 130.

    Commands call it before their other imports, if they are run as ``python -m``.
    """
    others = sys.excepthook

    def hook(kind, error, traceback) -> None:
        if issubclass(kind, KeyboardInterrupt):
            os._exit(_INTERRUPTED)  # nothing is open, and nothing is written yet
        others(kind, error, traceback)

    sys.excepthook = hook
