"""Writing an export: all of its files, or none."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from evsnn.errors import RunError
from evsnn.files.regular import open_regular

__all__ = ["MARK", "write_files"]

MARK = "evsnn (firmware_export)"
"""Stands in the first lines of every file that an export writes, so that the next may replace it."""

HEAD = 4096
"""Characters at the beginning of a file in which the mark stands."""

FIRST_LINES = 4
"""Lines at the beginning of a header in which the mark stands."""

RUNTIME_NAME = "evsnn_rt.h"
"""The header of the runtime, which the networks of a folder share."""

INCLUDE = f'#include "{RUNTIME_NAME}"'
"""How a network's header takes the runtime, unless it holds it."""

_DEFINED = re.compile(r"^#define EVSNN_RT_VERSION (\w+)", re.MULTILINE)
_NEEDED = re.compile(r"^#if EVSNN_RT_VERSION != (\w+)", re.MULTILINE)


def write_files(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Write texts into a folder, which is made if need be.

    Files of an earlier export are replaced. Its headers in the folder itself that cannot be compiled beside
    the new files, because they need another version of the runtime, are removed, and so is a runtime that no
    header includes any more. Other files, other networks that still compile, and links stay as they are.

    Parameters
    ----------
    folder : Path
    files : mapping of str to str
        Paths below the folder, with ``/``, to ASCII text.

    Returns
    -------
    list of str
        Names of the files that were removed.

    Raises
    ------
    RunError
        If something is in the way or cannot be written; then no file of the folder is changed.
    """
    for name in files:
        _check(folder, folder / name)
    leftovers = _leftovers(folder, files)
    written: list[tuple[str, Path]] = []
    made: list[Path] = []
    whole = False
    try:
        for name, text in files.items():
            path = folder / name
            missing = [at for at in path.parents if not at.exists()]
            made += reversed(missing)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            written.append((part, path))
            with os.fdopen(handle, "w", encoding="ascii", newline="\n") as file:
                file.write(text)
            os.chmod(part, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        for part, path in written:
            os.replace(part, path)
        whole = True
    except OSError as error:
        raise RunError(
            "the export cannot be written",
            where=str(folder),
            got=error.strerror,
            hint="nothing was changed; name a folder that can be written to",
        ) from error
    finally:
        for part, _ in written:
            with contextlib.suppress(OSError):
                os.unlink(part)
        for at in () if whole else reversed(made):  # also after Ctrl-C
            with contextlib.suppress(OSError):
                at.rmdir()
    return [path.name for path in leftovers if _removed(path)]


def _leftovers(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Headers of earlier exports that are of no use beside the files to be written."""
    try:
        found = sorted(folder.iterdir())
    except OSError:  # not there yet, or not to be read
        return []
    old = {  # names are in lower case, and some disks take upper case for it
        path: text
        for path in found
        if path.suffix == ".h" and path.name.lower() not in files and (text := _export_in(path)) is not None
    }
    runtime = next((path for path in old if path.name == RUNTIME_NAME), None)
    defined = _DEFINED.search(files.get(RUNTIME_NAME) or (old.pop(runtime) if runtime else ""))
    of_others = {path: _NEEDED.search(text) for path, text in old.items() if INCLUDE in text}
    leftovers = [
        path
        for path, needed in of_others.items()
        if defined is None or needed is None or needed[1] != defined[1]
    ]
    if runtime and len(leftovers) == len(of_others):
        leftovers.append(runtime)
    return sorted(leftovers)


def _export_in(path: Path) -> str | None:
    """The text of a header that is an export's own, and does not merely speak of one; else None."""
    try:
        text = _text(path, flags=os.O_NOFOLLOW)
    except OSError:  # what cannot be read is none
        return None
    return text if any(MARK in line for line in text.splitlines()[:FIRST_LINES]) else None


def _text(path: Path, length: int = -1, flags: int = 0) -> str:
    """The first characters of an ordinary file, or all."""
    with open(open_regular(path, flags), encoding="utf-8", errors="replace") as file:
        return file.read(length)


def _removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        os.unlink(path)
        return True
    return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _check(folder: Path, path: Path) -> None:
    """Refuse what must not be overwritten."""
    for at in (path, *path.parents):
        if at == folder.parent:
            break
        if at.is_symlink() and at != folder:
            raise RunError(
                "a link stands where a file is to be written",
                where=str(at),
                hint="remove it, or name another folder",
            )
        if at.exists() and (at.is_dir() if at == path else not at.is_dir()):
            raise RunError(
                "something else has the name of a file or folder to be written",
                where=str(at),
                hint="remove it, or name another folder",
            )
    if path.exists():
        try:
            head = _text(path, HEAD)
        except OSError as error:
            raise RunError(
                "the file that is to be replaced cannot be read", where=str(path), got=error.strerror
            ) from error
        if MARK not in head:
            raise RunError(
                "a file is in the way that no export wrote",
                where=str(path),
                hint="remove it, or name another folder",
            )
