"""What the messages of an object header mean: shapes, types, storage, filters, attributes, links.

Each function takes a `Cursor` at the start of a message's data. What is not plain numbers and strings in
this very file is refused, by its name where it has one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from .source import NOWHERE, Cursor, FormatError

__all__ = [
    "Chunked",
    "Compact",
    "Contiguous",
    "DEFLATE",
    "FLETCHER32",
    "Filter",
    "SHUFFLE",
    "attribute",
    "dataspace",
    "datatype",
    "filters",
    "heap_and_index",
    "layout",
    "link",
    "refuse_link",
]

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
MAX_RANK = 5
MAX_ATTRIBUTE_BYTES = 64_000  # HDF5 itself stops at 64 KiB
_FILTER_NAMES = {
    DEFLATE: "gzip twice",
    SHUFFLE: "shuffle twice",
    FLETCHER32: "fletcher32 twice",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32015: "zstd",
}
_CLASS_NAMES = {
    0: "integer in an unusual format",
    1: "float in an unusual format",
    2: "time",
    4: "bit field",
    5: "opaque",
    6: "compound",
    7: "reference",
    8: "enumeration or boolean",
    9: "variable-length",
    10: "array",
    11: "complex",
}


def _number_types() -> dict[bytes, np.dtype]:
    """NumPy's type for each datatype message of a plain number: class, bit field, size and properties."""
    types = {}
    for order, letter in enumerate("<>"):
        for size in (1, 2, 4, 8):
            for signed, kind in enumerate("ui"):
                types[struct.pack("<BBBBIHH", 0, order | signed << 3, 0, 0, size, 0, 8 * size)] = np.dtype(
                    f"{letter}{kind}{size}"
                )
        for size, exponent_bits in ((2, 5), (4, 8), (8, 11)):
            fraction_bits = 8 * size - 1 - exponent_bits
            properties = (
                0,
                8 * size,
                fraction_bits,
                exponent_bits,
                0,
                fraction_bits,
                (1 << exponent_bits - 1) - 1,
            )
            types[struct.pack("<BBBBIHHBBBBI", 1, order | 0x20, 8 * size - 1, 0, size, *properties)] = (
                np.dtype(f"{letter}f{size}")
            )
    return types


_NUMBER_TYPES = _number_types()


def dataspace(cursor: Cursor) -> tuple[int, ...]:
    """The shape; a scalar's is ()."""
    version = cursor.expect(1, 2, what="a shape")
    rank, flags, kind = cursor.number(), cursor.number(), cursor.number()
    if version == 1:
        cursor.take(4)
        kind = 1 if rank else 0
    if kind not in (0, 1) or (kind == 0 and rank) or flags & ~1:
        raise FormatError("it has no shape")
    if rank > MAX_RANK:
        raise FormatError("it has too many dimensions", got=rank, expected=f"at most {MAX_RANK}")
    shape = tuple(cursor.number(8) for _ in range(rank))
    if not all(shape):
        raise FormatError("it is empty", got=f"shape {shape}")
    return shape


def datatype(cursor: Cursor) -> np.dtype:
    """NumPy's type of a number, or of a string of fixed length (``S``)."""
    head = cursor.take(8)
    version, code = head[0] >> 4, head[0] & 15
    size = int.from_bytes(head[4:], "little")
    if not 1 <= version <= 5:
        raise FormatError("a type is of an unknown version", got=version)
    if code == 3 and head[1] & 15 in (0, 1) and size:
        if size > MAX_ATTRIBUTE_BYTES:
            raise FormatError(
                "the string is too long", got=f"{size} bytes", expected=f"at most {MAX_ATTRIBUTE_BYTES}"
            )
        return np.dtype(f"S{size}")
    properties = cursor.take({0: 4, 1: 12}[code]) if code in (0, 1) else b""
    dtype = _NUMBER_TYPES.get(bytes([code]) + head[1:] + properties)
    if dtype is None:
        name = (
            "variable-length string"
            if code == 9 and head[1] & 15 == 1
            else _CLASS_NAMES.get(code, f"unknown class {code}")
        )
        raise FormatError(
            "the type is not allowed",
            got=name,
            expected="an integer, float16, float32, float64, or a string of fixed length (numpy.bytes_)",
        )
    return dtype


@dataclass(frozen=True)
class Compact:
    """Data inside the object header."""

    data: bytes


@dataclass(frozen=True)
class Contiguous:
    """Data in one piece."""

    address: int
    n_bytes: int


@dataclass(frozen=True)
class Chunked:
    """Data in pieces of one shape, found through an index.

    Parameters
    ----------
    shape : tuple of int
        Of a chunk; `item_bytes` is the size of an element.
    index : {"single", "fixed", "tree"}
        One chunk alone, a fixed array, or a B-tree of version 1.
    address : int
        Of the index, or of the single chunk.
    n_bytes, mask : int
        Size and filter mask of a single chunk that has filters; 0 otherwise.
    """

    shape: tuple[int, ...]
    item_bytes: int
    index: str
    address: int
    n_bytes: int = 0
    mask: int = 0


def layout(cursor: Cursor) -> Compact | Contiguous | Chunked:
    """How a dataset's data is stored."""
    version = cursor.expect(3, 4, 5, what="the storage of a dataset")
    kind = cursor.number()
    if kind == 0:
        return Compact(cursor.take(cursor.number(2)))
    if kind == 1:
        return Contiguous(cursor.number(8), cursor.number(8))
    if kind == 3:
        raise FormatError("a virtual dataset is not followed", expected="the data itself")
    if kind != 2:
        raise FormatError("the storage of the dataset is unknown", got=kind)
    if version == 3:
        rank = cursor.number()
        address = cursor.number(8)
        return Chunked(*_chunk_shape(cursor, rank, 4), "tree", address)
    flags, rank, width = cursor.number(), cursor.number(), cursor.number()
    shape, item_bytes = _chunk_shape(cursor, rank, width)
    index, n_bytes, mask = cursor.number(), 0, 0
    if index == 1 and flags & 2:
        n_bytes, mask = cursor.number(8), cursor.number(4)
    elif index == 3:
        cursor.take(1)
    elif index != 1:
        word = {2: "implicit", 4: "extensible array", 5: "B-tree 2"}.get(index, index)
        raise FormatError(
            "the index of the chunks is not read", got=word, hint="write the dataset with a fixed shape"
        )
    if flags & ~2:
        raise FormatError("the storage of the dataset is unknown", got=f"flags {flags}")
    return Chunked(shape, item_bytes, "single" if index == 1 else "fixed", cursor.number(8), n_bytes, mask)


def _chunk_shape(cursor: Cursor, rank: int, width: int) -> tuple[tuple[int, ...], int]:
    """A chunk's dimensions and the bytes of an element, stored as `rank` numbers of `width` bytes."""
    if not rank:
        raise FormatError("the file is damaged: chunks have no shape", hint="copy or download it again")
    *shape, item_bytes = (cursor.number(width) for _ in range(rank))
    return tuple(shape), item_bytes


@dataclass(frozen=True)
class Filter:
    """A step of a chunk's way to the disk: `code`, and the element size that shuffle has been told."""

    code: int
    item_bytes: int


def filters(cursor: Cursor) -> tuple[Filter, ...]:
    """The filter pipeline, in the order of writing; each filter is known and stands there once."""
    version = cursor.expect(1, 2, what="the filter pipeline")
    count = cursor.number()
    cursor.take(6 if version == 1 else 0)
    pipeline: list[Filter] = []
    for _ in range(count):
        code = cursor.number(2)
        name_bytes = cursor.number(2) if version == 1 or code >= 256 else 0
        cursor.take(2)  # flags
        n_values = cursor.number(2)
        cursor.take(_padded(name_bytes) if version == 1 else name_bytes)
        values = [cursor.number(4) for _ in range(n_values)]
        if version == 1 and n_values % 2:
            cursor.take(4)
        if code not in (DEFLATE, SHUFFLE, FLETCHER32) or code in [f.code for f in pipeline]:
            raise FormatError(
                "the filter is not allowed",
                got=_FILTER_NAMES.get(code, code),
                expected="gzip, shuffle, fletcher32, each at most once",
            )
        pipeline.append(Filter(code, values[0] if values else 0))
    return tuple(pipeline)


def attribute(cursor: Cursor, only: Collection[str] | None = None) -> tuple[str, object] | None:
    """Name and value: a str, int or float, or a tuple of them. None if it is not among those asked for."""
    version = cursor.expect(1, 2, 3, what="an attribute")
    shared = cursor.number() and version > 1
    sizes = [cursor.number(2) for _ in range(3)]
    if version == 3:
        cursor.take(1)
    parts = []
    for size in sizes:
        parts.append(cursor.take(_padded(size) if version == 1 else size)[:size])
    name = text(parts[0])
    if only is not None and name not in only:
        return None
    try:
        if shared:
            raise FormatError("a named datatype is not followed", expected="a plain type")
        dtype, shape = datatype(Cursor(parts[1])), dataspace(Cursor(parts[2]))
        n_bytes = math.prod(shape) * dtype.itemsize
        if len(shape) > 1 or n_bytes > MAX_ATTRIBUTE_BYTES:
            raise FormatError(
                "it is too large",
                got=f"shape {shape} of {dtype.itemsize} bytes",
                expected=f"a value or a list, at most {MAX_ATTRIBUTE_BYTES} bytes",
            )
        values = np.frombuffer(cursor.take(n_bytes), dtype).tolist()
        plain = tuple(map(text, values)) if dtype.kind == "S" else tuple(values)
    except FormatError as error:
        raise FormatError(
            f"attribute {name!r:.80}: {error.what}", got=error.got, expected=error.expected, hint=error.hint
        ) from error
    return name, plain if shape else plain[0]


def link(cursor: Cursor) -> tuple[bytes, int]:
    """Name and address of an object; a link to anything else is refused."""
    cursor.expect(1, what="a link")
    flags = cursor.number()
    kind = cursor.number() if flags & 8 else 0
    cursor.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = cursor.take(cursor.number(1 << (flags & 3)))
    if kind:
        refuse_link(name, {1: "a soft link", 64: "a link to another file"}.get(kind, "a user-defined link"))
    return name, cursor.number(8)


def refuse_link(name: bytes, word: str) -> None:
    raise FormatError(
        "links are not followed",
        got=f"{word} named {name.decode('utf-8', 'replace')!r:.80}",
        expected="the object itself",
    )


def heap_and_index(cursor: Cursor, order_bytes: int) -> tuple[int, int] | None:
    """Fractal heap and name index of densely stored links (8 bytes of order) or attributes (2), if any."""
    cursor.expect(0, what="the list of links or attributes")
    cursor.take(order_bytes if cursor.number() & 1 else 0)
    heap, index = cursor.number(8), cursor.number(8)
    return None if heap == NOWHERE else (heap, index)


def text(data: bytes) -> str:
    """UTF-8 up to the first NUL."""
    try:
        return data.split(b"\0", 1)[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("a text is not UTF-8", got=repr(data[:40])) from error


def _padded(n: int) -> int:
    return -(-n // 8) * 8
