"""Opening regular files, and nothing that could block for ever: no directory, device, socket or pipe."""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["NotRegularError", "open_regular"]

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class NotRegularError(OSError):
    """The path does not name a regular file."""


def open_regular(path: str | bytes | os.PathLike, flags: int = 0) -> int:
    """Open a regular file to read it, and return its descriptor; a pipe in its place does not block.

    Parameters
    ----------
    path : str, bytes or os.PathLike
    flags : int
        More flags of `os.open`, such as ``os.O_NOFOLLOW``.

    Raises
    ------
    NotRegularError
        If it is a directory, a device, a socket or a pipe.
    OSError
        If it cannot be opened, or if no file can have the name.
    """
    try:
        descriptor = os.open(path, _FLAGS | flags)
    except ValueError as error:  # a name with a null character
        raise OSError(errno.EINVAL, str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(errno.EINVAL, "not an ordinary file")
    return descriptor
