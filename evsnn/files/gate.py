"""The gate for HDF5 files that may come from anyone: it returns what is in one, or raises a `WeightsError`.

A file is read in three steps. Each step relies only on what the step before has shown to be harmless:

1. Its kind, size and first bytes: a regular file that is HDF5, and whole.
2. Its metadata, by `evsnn.files.hdf5`: every link, object, type, shape and filter must be on an allow-list,
   and all that is declared is added up before anything of size is allocated.
3. Its data: from addresses that lie inside the file, into arrays whose size is known; a chunk is inflated no
   further than declared.

The HDF5 library takes no part in this, and no file but the one named is ever opened.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import re
import stat
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import EvsnnError, WeightsError
from ..text import shown
from .hdf5 import indexes, messages, objects
from .hdf5.source import NOWHERE, FormatError, Source, Stream
from .kinds import HEAD_BYTES, kind_of

__all__ = ["Dataset", "File", "Group", "MAX_BYTES", "MAX_TEXT_BYTES", "open_file", "open_stream"]

MAX_BYTES = 2 << 30  # of the file, and of all it holds once decoded
FREE_BYTES = 256 << 20  # that a file of any size may hold once decoded, see `File.expanding`
MAX_DEPTH = 3  # groups below the root
MAX_OBJECTS = 32_768
MAX_TEXT_BYTES = 1_024  # an element of a dataset of strings
MAX_CHUNK_BYTES = 64 << 20
MAX_DEFLATE_RATIO = 1_040  # deflate cannot do better than 1032

_SLACK = 64  # bytes of a chunk beyond its data: the checksum, and room to see the end of the stream
_TRUSTED = "if you trust it, load it with a larger max_bytes"
_OBJECT_NAME = re.compile(rb"[A-Za-z0-9_.-]{1,64}")


@contextmanager
def _refusals(where: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into one `WeightsError`."""
    try:
        yield
    except EvsnnError:
        raise
    except FormatError as error:
        got = None if error.got is None else shown(error.got)
        raise WeightsError(
            error.what, where=where, got=got, expected=error.expected, hint=error.hint
        ) from error
    except MemoryError as error:
        raise WeightsError("it does not fit into memory", where=where) from error
    except Exception as error:  # nothing is known to come here; but a file must not end in a traceback
        raise WeightsError(
            "the file is damaged",
            where=where,
            got=f"{type(error).__name__}: {shown(error)}",
            hint="copy or download it again",
        ) from error


@dataclass(frozen=True, eq=False)
class Dataset:
    """An array in a file that is described and checked, but not yet read.

    Parameters
    ----------
    where : str
        ``file:/path/inside``.
    shape : tuple of int
    dtype : numpy.dtype
        As stored: a number of either byte order, or bytes of fixed length.
    attributes : mapping of str to value
    stored_bytes : int
        The bytes that it takes in the file.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype
    attributes: Mapping[str, object]
    stored_bytes: int
    _source: Source = field(repr=False)
    _layout: messages.Compact | messages.Contiguous | messages.Chunked = field(repr=False)
    _chunks: tuple[indexes.Chunk, ...] = field(default=(), repr=False)  # sorted
    _filters: tuple[messages.Filter, ...] = field(default=(), repr=False)

    @property
    def n_bytes(self) -> int:
        """The bytes that it takes in memory, as stored."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """The bytes that one chunk takes in memory; 0 without chunks."""
        return (
            math.prod(self._layout.shape) * self.dtype.itemsize
            if isinstance(self._layout, messages.Chunked)
            else 0
        )

    @property
    def chunk_rows(self) -> int:
        """Rows (entries of the first axis) that are decoded together."""
        return self._layout.shape[0] if isinstance(self._layout, messages.Chunked) else 1

    def read(self) -> np.ndarray:
        """The values, C-ordered and little-endian."""
        return self._part(self.shape, 0)

    def rows(self, first: int, stop: int) -> np.ndarray:
        """The values `first` to `stop` along the first axis; only the chunks that hold them are decoded."""
        return self._part((stop - first, *self.shape[1:]), first)

    def _part(self, shape: tuple[int, ...], first: int) -> np.ndarray:
        with _refusals(self.where):
            array = np.empty(shape, self.dtype)
            flat = array.reshape(-1).view(np.uint8)
            start = first * math.prod(shape[1:]) * self.dtype.itemsize
            if isinstance(self._layout, messages.Compact):
                flat[:] = np.frombuffer(self._layout.data, np.uint8)[start : start + flat.size]
            elif isinstance(self._layout, messages.Contiguous):
                self._source.read_into(flat.data, self._layout.address + start)
            else:
                self._read_chunks(self._layout.shape, array, first)
            return array.astype(self.dtype.newbyteorder("<"), copy=False)

    def _read_chunks(self, shape: tuple[int, ...], array: np.ndarray, first: int) -> None:
        """Fill `array` with the rows from `first` on, from chunks of `shape`."""
        reached = bisect_right(self._chunks, first - shape[0], key=lambda chunk: chunk.first[0])
        for chunk in itertools.takewhile(
            lambda chunk: chunk.first[0] < first + len(array), self._chunks[reached:]
        ):
            data = bytearray(chunk.n_bytes)
            self._source.read_into(memoryview(data), chunk.address)
            block = np.frombuffer(
                _decoded(data, self._filters, chunk.mask, math.prod(shape) * array.itemsize), array.dtype
            ).reshape(shape)
            starts = (chunk.first[0] - first, *chunk.first[1:])
            wanted = [
                (max(i, 0), min(i + c, n)) for i, c, n in zip(starts, shape, array.shape)
            ]  # at the border a chunk reaches beyond
            array[tuple(slice(i, j) for i, j in wanted)] = block[
                tuple(slice(i - s, j - s) for s, (i, j) in zip(starts, wanted))
            ]


def _decoded(
    data: bytes | bytearray, filters: tuple[messages.Filter, ...], mask: int, n_bytes: int
) -> bytes | bytearray:
    """A chunk of `n_bytes` without its filters; no more than that, with its checksum, is ever inflated."""
    for index, step in reversed(tuple(enumerate(filters))):
        if mask >> index & 1:
            continue
        if step.code == messages.DEFLATE:
            inflater = zlib.decompressobj()
            try:
                data = inflater.decompress(data, n_bytes + _SLACK)
            except zlib.error as error:
                raise FormatError(
                    "the file is damaged: a chunk cannot be inflated",
                    got=error,
                    hint="copy or download it again",
                ) from error
            if not inflater.eof:
                raise FormatError(
                    "a chunk inflates to more than it should, or is cut short", expected=f"{n_bytes} bytes"
                )
        elif step.code == messages.FLETCHER32:
            data = data[:-4]  # the sha256 of the whole says more
        else:
            n, rest = divmod(len(data), step.item_bytes)
            data = np.frombuffer(data, np.uint8, n * step.item_bytes).reshape(
                step.item_bytes, n
            ).T.tobytes() + bytes(data[len(data) - rest :])
    if len(data) != n_bytes:
        raise FormatError("a chunk has the wrong size", got=f"{len(data)} bytes", expected=n_bytes)
    return data


@dataclass(frozen=True, eq=False)
class Group:
    """A group in a file: its attributes, and its members by name."""

    where: str
    attributes: Mapping[str, object]
    members: Mapping[str, Group | Dataset]


@dataclass(frozen=True, eq=False)
class File:
    """An open file whose first bytes are right; see `open_file`."""

    where: str
    size: int
    max_bytes: int
    _stream: Stream = field(repr=False)
    _root: int = field(repr=False)

    def attributes(self, only: Collection[str]) -> dict[str, object]:
        """The attributes of the root that are asked for; nothing else is read."""
        with _refusals(f"{self.where}:/"):
            return objects.read_object(Source(self._stream, self.size), self._root).attributes(only)

    def expanding(self, factor: int) -> File:
        """The same file, which may hold at most `FREE_BYTES` and `factor` times its size once decoded."""
        return replace(self, max_bytes=min(self.max_bytes, FREE_BYTES + factor * self.size))

    def tree(self, only: Collection[str] | None = None) -> Group:
        """All that is in the file, checked; data is not read yet.

        Parameters
        ----------
        only : collection of str, optional
            Read these members of the root alone, and no attributes. This is for files of which nothing is
            known but the name of an array.
        """
        root = _Walk(self, Source(self._stream, self.size), only).object(self._root, "/", 0)
        if not isinstance(root, Group):
            raise WeightsError("the root is not a group", where=root.where, got="a dataset")
        return root


@contextmanager
def open_file(path, *, max_bytes: int = MAX_BYTES) -> Iterator[File]:
    """Open a file that is regular, HDF5, whole, and of at most `max_bytes`.

    Parameters
    ----------
    path : str, bytes or os.PathLike
    max_bytes : int
        Limit on the size of the file, and on the size of all that it holds, in float32.

    Yields
    ------
    File

    Raises
    ------
    WeightsError
        If it is anything else. Opening never blocks and never has an effect, whatever `path` names. Every
        exception inside the ``with`` that is not an `EvsnnError` becomes one, too.
    """
    try:
        name = os.fspath(path)
        where = shown(os.fsdecode(name), 400)
    except TypeError as error:
        raise WeightsError("a path is expected", got=type(path).__name__) from error
    with _refusals(where):
        try:
            _check_regular(os.stat(name), where)
            stream = open(name, "rb", opener=_open_without_waiting)
        except (OSError, ValueError) as error:
            if isinstance(error, EvsnnError):
                raise
            raise WeightsError(
                "the file cannot be opened", where=where, got=shown(getattr(error, "strerror", None) or error)
            ) from error
        with stream:
            status = os.fstat(stream.fileno())
            _check_regular(status, where)
            if status.st_size > max_bytes:
                raise WeightsError(
                    "the file is too large",
                    where=where,
                    got=f"{status.st_size} bytes",
                    expected=f"at most {max_bytes}",
                    hint=_TRUSTED,
                )
            yield _file(stream, status.st_size, max_bytes, where)


def open_stream(stream: io.BytesIO, where: str) -> File:
    """A file in memory, of any size."""
    with _refusals(where):
        stream.seek(0)
        return _file(stream, stream.getbuffer().nbytes, 1 << 62, where)


def _file(stream: Stream, size: int, max_bytes: int, where: str) -> File:
    head = stream.read(96)
    if head and not head.startswith(objects.SIGNATURE):
        kind = kind_of(head + stream.read(HEAD_BYTES - len(head)))
        if kind is not None:
            raise WeightsError(f"this is {kind.what}, not a weights file", where=where, hint=kind.as_weights)
    return File(where, size, max_bytes, stream, objects.root_address(head, size))


def _open_without_waiting(name, flags: int) -> int:
    """Open a file so that a FIFO, which may have taken its place, does not block."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _check_regular(status: os.stat_result, where: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise WeightsError("this is a folder", where=where, expected="a file")
    if not stat.S_ISREG(status.st_mode):
        raise WeightsError(
            "this is not a regular file", where=where, got="a pipe, socket or device", expected="a file"
        )


class _Walk:
    """One walk through a file's metadata; it remembers which objects it has met, and their sizes."""

    def __init__(self, file: File, source: Source, only: Collection[str] | None):
        self.file = file
        self.source = source
        self.only = only
        self.addresses = {file._root}
        self.decoded_bytes = 0
        self.stored_bytes = 0

    def object(self, address: int, inside: str, depth: int) -> Group | Dataset:
        where = f"{self.file.where}:{inside}"
        with _refusals(where):
            header = objects.read_object(self.source, address)
            if header.kind == "named datatype" or (depth == 0 and header.kind != "group"):
                raise WeightsError(
                    "neither a group nor a dataset" if depth else "the root is not a group",
                    where=where,
                    got=f"a {header.kind}",
                )
            if header.kind == "dataset":
                return self.dataset(header, where)
            if depth > MAX_DEPTH:
                raise WeightsError(
                    "groups are nested too deep", where=where, expected=f"at most {MAX_DEPTH} levels"
                )
            attributes = header.attributes() if self.only is None else {}
            links: dict[bytes, int] = {}
            for name, target in header.links():
                if self.only is not None and depth == 0 and name.decode("ascii", "replace") not in self.only:
                    continue
                if not _OBJECT_NAME.fullmatch(name):
                    raise WeightsError(
                        "the name of an object is not usable",
                        where=where,
                        got=shown(repr(name), 80),
                        expected="1 to 64 letters, digits, _, - or .",
                    )
                if name in links:
                    raise WeightsError("two objects have one name", where=where, got=name.decode())
                if target in self.addresses:
                    raise WeightsError(
                        "the object is reached by two paths",
                        where=f"{where.rstrip('/')}/{name.decode()}",
                        hint="store it once",
                    )
                self.addresses.add(target)
                if len(self.addresses) > MAX_OBJECTS:
                    raise WeightsError(
                        "the file holds too many objects", where=where, expected=f"at most {MAX_OBJECTS}"
                    )
                links[name] = target
            members = {
                name.decode(): self.object(target, f"{inside.rstrip('/')}/{name.decode()}", depth + 1)
                for name, target in sorted(links.items())
            }
            return Group(where, attributes, members)

    def dataset(self, header: objects.Object, where: str) -> Dataset:
        stored_as = header.message(objects.LAYOUT)
        space, kind = header.message(objects.DATASPACE), header.message(objects.DATATYPE)
        if stored_as is None or space is None or kind is None:
            raise WeightsError(
                "the file is damaged: a dataset has no shape or no type",
                where=where,
                hint="copy or download it again",
            )
        layout = messages.layout(stored_as)
        shape, dtype = messages.dataspace(space), messages.datatype(kind)
        if dtype.kind == "S" and dtype.itemsize > MAX_TEXT_BYTES:
            raise WeightsError(
                "the strings are too long",
                where=where,
                got=f"{dtype.itemsize} bytes",
                expected=f"at most {MAX_TEXT_BYTES}",
            )
        n_bytes = math.prod(shape) * dtype.itemsize
        self.decode(
            math.prod(shape) * max(dtype.itemsize, 4), shape, where
        )  # integers and half floats become float32
        pipeline = header.message(objects.FILTERS)
        filters = messages.filters(pipeline) if pipeline else ()
        chunks: tuple[indexes.Chunk, ...] = ()
        if isinstance(layout, messages.Chunked):
            chunks = tuple(sorted(self.chunks(layout, shape, dtype, filters)))
            beyond = len(chunks) * math.prod(layout.shape) * dtype.itemsize - n_bytes
            self.decode(max(0, beyond), shape, where)  # whole chunks are inflated
            stored = sum(chunk.n_bytes for chunk in chunks)
        else:
            stored = len(layout.data) if isinstance(layout, messages.Compact) else layout.n_bytes
            if stored != n_bytes or filters:
                raise FormatError(
                    "stored and declared sizes differ",
                    got=f"{stored} bytes",
                    expected=f"{n_bytes} for shape {shape}",
                )
            if isinstance(layout, messages.Contiguous):
                if layout.address == NOWHERE:
                    raise FormatError("the data was never written")
                self.check_inside(layout.address, n_bytes)
        self.stored_bytes += stored
        if self.stored_bytes > self.file.size:
            raise WeightsError(
                "the datasets are larger than the file",
                where=where,
                got=f"{self.stored_bytes} bytes up to here",
                expected=f"at most {self.file.size}",
            )
        return Dataset(
            where,
            shape,
            dtype,
            header.attributes() if self.only is None else {},
            stored,
            self.source,
            layout,
            chunks,
            filters,
        )

    def decode(self, n_bytes: int, shape: tuple[int, ...], where: str) -> None:
        """Add up what will be decoded, before anything is."""
        self.decoded_bytes += n_bytes
        if self.decoded_bytes > self.file.max_bytes:
            raise WeightsError(
                "the file holds too much",
                where=where,
                got=f"shape {shape}, {self.decoded_bytes} bytes up to here once decoded",
                expected=f"at most {self.file.max_bytes}",
                hint=_TRUSTED,
            )

    def chunks(
        self,
        layout: messages.Chunked,
        shape: tuple[int, ...],
        dtype: np.dtype,
        filters: tuple[messages.Filter, ...],
    ) -> tuple[indexes.Chunk, ...]:
        if len(layout.shape) != len(shape) or not all(layout.shape) or layout.item_bytes != dtype.itemsize:
            expected = f"as many dimensions as {shape}, of {dtype.itemsize} bytes"
            raise FormatError(
                "chunks and dataset do not fit",
                got=f"chunks {layout.shape} of {layout.item_bytes} bytes",
                expected=expected,
            )
        n_bytes = math.prod(layout.shape) * dtype.itemsize
        if n_bytes > MAX_CHUNK_BYTES:
            raise FormatError(
                "the chunks are too large", got=f"{n_bytes} bytes", expected=f"at most {MAX_CHUNK_BYTES}"
            )
        if any(step.code == messages.SHUFFLE and step.item_bytes != dtype.itemsize for step in filters):
            raise FormatError("the shuffle filter does not fit the type", expected=f"{dtype.itemsize} bytes")
        chunks = indexes.chunks(self.source, layout, shape, n_bytes)
        for chunk in chunks:
            self.check_inside(chunk.address, chunk.n_bytes)
            if n_bytes > chunk.n_bytes * (MAX_DEFLATE_RATIO if filters else 1):
                raise FormatError(
                    "a chunk is smaller than it can be",
                    got=f"{chunk.n_bytes} bytes",
                    expected=f"{n_bytes} once decoded",
                )
        return chunks

    def check_inside(self, address: int, n_bytes: int) -> None:
        if not 0 <= address <= self.file.size - n_bytes:
            raise FormatError(
                "the data lies outside the file",
                got=f"{n_bytes} bytes at {address}",
                expected=f"within {self.file.size}",
            )
