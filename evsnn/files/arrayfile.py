"""Arrays in .npy and .npz files, which are checked before they are read, and read in blocks.

Files may come from anyone: nothing is unpickled or evaluated, what a header declares is compared with what is
stored before memory is taken, and no more than `BLOCK_BYTES` is read or inflated at once.
"""

from __future__ import annotations

import io
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..errors import InputError
from .regular import NotRegularError, open_regular

__all__ = ["BLOCK_BYTES", "LABELS_HINT", "UnreadArray", "check_dtype", "open_file", "read_npy", "read_npz"]

LABELS_HINT = (
    "number the classes: give integers from 0 on, such as numpy.unique(labels, return_inverse=True)[1]"
)
BLOCK_BYTES = 1 << 20
_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"\{\s*'descr':\s*'([^']{1,16})',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([0-9\s,L]{0,512})\),?\s*\}\s*"
)
_READABLE = {"b1", "f2", "f4", "f8", *(kind + size for kind in "iu" for size in "1248")}


@dataclass(frozen=True, eq=False)
class UnreadArray:
    """An array in a file that is checked, but not yet read.

    Parameters
    ----------
    where : str
        File and name, for messages.
    shape : tuple of int
    dtype : numpy.dtype
        Boolean, integer or float, of the machine's byte order.
    blocks : callable
        ``blocks(n, row_shape, first=0)`` yields `n` rows of `row_shape` from row `first` on, some at a time.
        Only one such iteration may run at a time.
    overhead_bytes : int
        Memory that is needed while the array is read, beside what is kept, if it is more than a block.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Callable[..., Iterator[np.ndarray]]
    overhead_bytes: int = 0


def open_file(path: str | os.PathLike) -> BinaryIO:
    """Open a regular file; a directory, or a device or pipe that could block for ever, is refused.

    Raises
    ------
    InputError
        If it cannot be opened, or is empty.
    """
    where = os.fspath(path)
    try:
        descriptor = open_regular(path)
    except NotRegularError as error:
        raise InputError("is not a file", where=where, expected=".npz, .npy or .h5") from error
    except OSError as error:
        raise InputError("cannot be opened", where=where, got=error.strerror) from error
    if os.fstat(descriptor).st_size == 0:
        os.close(descriptor)
        raise InputError("is empty", where=where, expected=".npz, .npy or .h5")
    return _Narrow(io.FileIO(descriptor, "rb"))


class _Narrow(io.BufferedReader):
    """A file that gives at most `BLOCK_BYTES` per read: `zipfile` believes the length of a directory."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(BLOCK_BYTES + 1 if size is None or size < 0 else min(size, BLOCK_BYTES + 1))
        if len(data) > BLOCK_BYTES:
            raise zipfile.BadZipFile("a directory that is too long")
        return data


def read_npy(file: BinaryIO, where: str) -> UnreadArray:
    """The array in an open .npy file."""
    return _stored(file, os.fstat(file.fileno()).st_size, where)


def read_npz(file: BinaryIO, where: str) -> tuple[Callable[[str], UnreadArray], list[str]]:
    """A function that finds an array of an open .npz file by its name, and the names in the file."""
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        raise InputError(
            "is not a readable .npz file", where=where, got=_reason(error), hint="write it with numpy.savez"
        ) from error

    def get(name: str) -> UnreadArray:
        inside = f"{where}:/{name}"
        try:
            entry = archive.getinfo(f"{name}.npy")
            if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile("an encrypted or unusually compressed array")
            member = _Member(archive, entry, inside)
        except _ZIP_ERRORS as error:
            raise InputError(
                "cannot be read", where=inside, got=_reason(error), hint="write it with numpy.savez"
            ) from error
        return _stored(member, entry.file_size, inside)

    return get, [name.removesuffix(".npy") for name in archive.namelist()]


_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
)


def _reason(error: Exception) -> str:
    return str(error)[:120] or type(error).__name__


class _Member:
    """A file in an archive that can be read from any position; to go back, it is read again from its start.

    `zipfile`'s own seek would inflate 16 MiB at a time.
    """

    def __init__(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str):
        self._archive, self._entry, self._where = archive, entry, where
        self._stream, self._at = archive.open(entry), 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        return data

    def seek(self, offset: int) -> None:
        if offset < self._at:
            self._stream.close()
            try:
                self._stream, self._at = self._archive.open(self._entry), 0
            except _ZIP_ERRORS as error:
                raise InputError(
                    "cannot be read again",
                    where=self._where,
                    got=_reason(error),
                    hint="leave the file alone while it is used",
                ) from error
        while self._at < offset:
            _exactly(self.read, min(offset - self._at, BLOCK_BYTES), self._where)


def _stored(stream: BinaryIO | _Member, size: int, where: str) -> UnreadArray:
    """The array in a .npy stream of `size` bytes, of which nothing has been read."""
    read = stream.read
    start = _exactly(read, 8, where)
    if start[:6] != _MAGIC or start[6] not in (1, 2, 3):
        raise InputError("is not in numpy's .npy format", where=where, hint="write it with numpy.save")
    length = 2 if start[6] == 1 else 4
    n_header = int.from_bytes(_exactly(read, length, where), "little")
    if n_header > 10_000:
        raise InputError(
            "has a header that is too long", where=where, got=f"{n_header} bytes", expected="at most 10000"
        )
    header = _exactly(read, n_header, where)
    match = _HEADER.fullmatch(header.decode("latin-1"))
    shape = _shape(match[3]) if match else None
    if match is None or shape is None:
        got = re.sub(r"\s+", " ", header.decode("latin-1"))[:80]
        raise InputError(
            "does not hold a plain array of numbers",
            where=where,
            got=got,
            hint="write it with numpy.save from an array of floats or integers",
        )
    dtype = check_dtype(match[1], where)
    if match[2] == "True" and len(shape) > 1:
        raise InputError(
            "is in Fortran order",
            where=where,
            expected="C order",
            hint="write it with numpy.save(F, numpy.ascontiguousarray(images))",
        )
    stored = size - 8 - length - n_header
    declared = math.prod(shape) * dtype.itemsize
    if declared != stored:
        raise InputError(
            "is damaged: it does not hold what its header says",
            where=where,
            got=f"{stored} bytes",
            expected=f"{declared} for {dtype.name} {shape}",
        )

    number = np.dtype(np.uint8) if dtype.kind == "b" else dtype  # a byte of a boolean may be anything

    def blocks(n: int, row_shape: tuple[int, ...], first: int = 0) -> Iterator[np.ndarray]:
        row_bytes = math.prod(row_shape) * dtype.itemsize
        at_once = max(1, BLOCK_BYTES // row_bytes)
        stream.seek(8 + length + n_header + first * row_bytes)
        for start in range(0, n, at_once):
            rows = min(at_once, n - start)
            yield np.frombuffer(_exactly(read, rows * row_bytes, where), number).reshape(rows, *row_shape)

    return UnreadArray(where, shape, dtype, blocks)


def _shape(text: str) -> tuple[int, ...] | None:
    """The inside of a shape's brackets; Python 2 wrote ``3L``."""
    sizes = [size.strip().removesuffix("L") for size in text.split(",")]
    if not sizes[-1]:
        del sizes[-1]
    return tuple(map(int, sizes)) if all(size.isdigit() and len(size) < 20 for size in sizes) else None


def check_dtype(dtype: str | np.dtype, where: str) -> np.dtype:
    """`dtype`, if such arrays are read: boolean, integer or float, at most 64 bits, little-endian."""
    name = dtype if isinstance(dtype, str) else dtype.str
    if not (name[:1] in "<|=" and name[1:] in _READABLE):
        big = name[:1] == ">" and name[1:] in _READABLE
        hint = (
            "write it in little-endian order: images.astype(images.dtype.newbyteorder('<'))"
            if big
            else LABELS_HINT
            if "labels" in where.rpartition(":")[2]
            else "write an array of float32"
        )
        raise InputError(
            "holds data of a type that is not read",
            where=where,
            got=repr(name)[:40],
            expected="bool, int, uint or float, little-endian",
            hint=hint,
        )
    return np.dtype(name)


def _exactly(read: Callable[[int], bytes], size: int, where: str) -> bytes:
    """`size` bytes, block by block."""
    parts, missing = [], size
    while missing:
        try:
            part = read(min(missing, BLOCK_BYTES))
        except _ZIP_ERRORS as error:
            raise InputError("is damaged", where=where, got=_reason(error)) from error
        if not part:
            raise InputError(
                "is damaged: it ends too early",
                where=where,
                got=f"{size - missing} bytes",
                expected=f"{size}",
            )
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
