"""Files that a command is to write: what they must not take the place of."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

from ..errors import RunError
from ..text import shown

__all__ = ["check_targets"]


def check_targets(written: Mapping[str, str | None], read: Sequence[str | None] = ()) -> None:
    """Refuse, before any work is done, a file that could not be written or must not be.

    Parameters
    ----------
    written : mapping of str to str or None
        Paths by the options that name them; None: the option is not given.
    read : sequence of str or None
        Files that the command reads.

    Raises
    ------
    RunError
        If there is no folder for a file, something that is no file has its name, it is one of those in
        `read`, or two are one. Links are followed, as they are when the file is written.
    """
    taken: dict[str, str] = {}
    for option, path in written.items():
        if path is None:
            continue
        target, where = os.path.realpath(path), shown(path, 400)
        folder = os.path.dirname(target)
        try:
            mode = os.stat(target).st_mode
        except OSError:
            mode = None
        if not os.path.isdir(folder) or not os.access(folder, os.W_OK) or (mode and stat.S_ISDIR(mode)):
            raise RunError(
                "the file cannot be written",
                where=where,
                hint="name a file in a folder that can be written to",
            )
        if mode and not stat.S_ISREG(mode):
            raise RunError(
                "something else has that name",
                where=where,
                got="a pipe, socket or device",
                expected="a file, or nothing",
            )
        if mode and any(
            other and os.path.exists(other) and os.path.samefile(target, other) for other in read
        ):
            raise RunError(
                "the file to write is one that is read", where=where, hint=f"give {option} another name"
            )
        if target in taken:
            raise RunError(
                f"{taken[target]} and {option} are one file", where=where, hint=f"give {option} another name"
            )
        taken[target] = option
