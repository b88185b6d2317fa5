"""Writing a file, all or nothing."""

from __future__ import annotations

import contextlib
import os
import stat

__all__ = ["replace_file"]


def replace_file(
    path: str | os.PathLike,
    data: bytes | memoryview,
    *,
    mode: int | None = None,
    flush: bool = False,
    follow: bool = True,
) -> None:
    """Make `path` a file that holds `data`, or leave it as it is.

    The file is written beside `path` under another name, and renamed. After any failure, also Ctrl-C, the
    other name is removed.

    Parameters
    ----------
    path : str or os.PathLike
    data : bytes or memoryview
    mode : int, optional
        Permissions. None: those of the file that is replaced; a new file gets those that the umask allows.
    flush : bool
        Whether the file must survive a power cut.
    follow : bool
        Whether the file that a link names is replaced, not the link.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = os.path.realpath(path) if follow else os.path.abspath(path)
    folder = os.path.dirname(path)
    sibling = os.path.join(folder, f".evsnn-{os.urandom(8).hex()}.part")
    if mode is None:
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(os.stat(path).st_mode)

    def create(name: str, flags: int) -> int:
        return os.open(name, flags, 0o666 if mode is None else 0o600)

    try:
        with open(sibling, "xb", opener=create) as stream:
            if mode is not None:
                os.fchmod(stream.fileno(), mode)
            stream.write(data)
            if flush:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(sibling, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(sibling)
        raise
    if flush:  # the new file is whole and in place; this makes the renaming outlast a power cut, too
        with contextlib.suppress(OSError):
            _flush_folder(folder)


def _flush_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
