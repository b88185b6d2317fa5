"""HDF5's indexes: from a group to its objects, from a dataset to its chunks.

Trees are walked down only, each level one below the last, so that no file can send a walk in circles;
what is read on the way counts against the source's limit.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from .messages import Chunked, refuse_link
from .source import NOWHERE, Cursor, FormatError, Source, check

__all__ = ["Chunk", "chunks", "dense_objects", "symbol_table"]

MAX_LEVELS = 8
MAX_NAME_BYTES = 1_024
MAX_HEAP_BLOCKS = 512
MAX_CHUNKS = 65_536  # per dataset
_AGAIN = "copy or download it again"


class Chunk(NamedTuple):
    """A chunk as stored: its first index, its address, its size, and the filters that were not applied."""

    first: tuple[int, ...]
    address: int
    n_bytes: int
    mask: int


# Groups of old files: a B-tree of version 1 over symbol table nodes, names in a local heap


def symbol_table(source: Source, tree: int, heap: int) -> Iterator[tuple[bytes, int]]:
    """Names and addresses of a group's objects."""
    head = _opened(source, heap, 32, b"HEAP")
    head.take(4)
    n_bytes, _, address = head.number(8), head.number(8), head.number(8)
    names = source.metadata(address, n_bytes)
    for _, node in _leaves(source, tree, 0, 8):
        head = _opened(source, node, 8, b"SNOD")
        head.take(2)
        count = head.number(2)
        entries = Cursor(source.metadata(node + 8, 40 * count))
        for _ in range(count):
            start, target, kind = entries.number(8), entries.number(8), entries.number(4)
            entries.take(20)
            end = names.find(b"\0", start, start + MAX_NAME_BYTES)
            if end < 0:
                raise FormatError("the file is damaged: a name lies outside its heap", hint=_AGAIN)
            if kind == 2:
                refuse_link(names[start:end], "a soft link")
            yield names[start:end], target


def _opened(source: Source, address: int, n: int, signature: bytes) -> Cursor:
    """A block without checksum, behind its signature."""
    cursor = Cursor(source.metadata(address, n))
    if cursor.take(len(signature)) != signature:
        raise FormatError(
            "the file is damaged: a block has the wrong signature", expected=signature, hint=_AGAIN
        )
    return cursor


def _leaves(
    source: Source, address: int, kind: int, key_bytes: int, level: int | None = None
) -> Iterator[tuple[Cursor, int]]:
    """Keys and addresses in the lowest nodes of a B-tree of version 1, in order."""
    head = _opened(source, address, 24, b"TREE")
    found, height, count = head.number(), head.number(), head.number(2)
    if found != kind or height > MAX_LEVELS or level not in (None, height):
        raise FormatError(
            "the file is damaged: a tree has the wrong kind or height", got=(found, height), hint=_AGAIN
        )
    entries = Cursor(source.metadata(address + 24, count * (key_bytes + 8)))
    for _ in range(count):
        key, child = Cursor(entries.take(key_bytes)), entries.number(8)
        if height:
            yield from _leaves(source, child, kind, key_bytes, height - 1)
        else:
            yield key, child


# Groups and attributes of new files, if there are many: a B-tree of version 2 over a fractal heap


def dense_objects(source: Source, heap: int, index: int, kind: int) -> Iterator[bytes]:
    """The messages in a fractal heap, in the order of their names' hashes.

    Records of kind 5 index links, those of kind 8 attributes.
    """
    read = _fractal_heap(source, heap)
    head = source.block(index, 38, b"BTHD")
    head.expect(0, what="a tree")
    head.expect(kind, what="a tree")
    node_bytes, record_bytes, depth = head.number(4), head.number(2), head.number(2)
    head.take(2)
    root, count = head.number(8), head.number(2)
    start, n_id = (4, 7) if kind == 5 else (0, 8)
    if record_bytes != (11 if kind == 5 else 17) or depth > MAX_LEVELS or not 64 <= node_bytes <= 65_536:
        raise FormatError("the file is damaged: a tree has the wrong dimensions", hint=_AGAIN)
    if count:
        for record in _records(
            source, root, count, depth, _node_sizes(node_bytes, record_bytes, depth), kind, record_bytes
        ):
            yield read(record[start : start + n_id])


def _node_sizes(node_bytes: int, record_bytes: int, depth: int) -> list[tuple[int, int]]:
    """For each level from the leaves up: bytes of the number of records of a node, and of all below it."""
    most = total = (node_bytes - 10) // record_bytes
    count_bytes = _bytes_for(most)
    sizes = [(count_bytes, 0)]
    for _ in range(depth):
        pointer = 8 + count_bytes + sizes[-1][1]
        most = (node_bytes - 10 - pointer) // (record_bytes + pointer)
        total = (most + 1) * total + most
        sizes.append((count_bytes, _bytes_for(total)))
    return sizes


def _bytes_for(n: int) -> int:
    return max(1, -(-n.bit_length() // 8))


def _records(
    source: Source,
    address: int,
    count: int,
    depth: int,
    sizes: list[tuple[int, int]],
    kind: int,
    record_bytes: int,
) -> Iterator[bytes]:
    if depth == 0:
        node = source.block(address, 10 + count * record_bytes, b"BTLF")
    else:
        count_bytes, total_bytes = sizes[depth - 1]
        node = source.block(
            address, 10 + count * record_bytes + (count + 1) * (8 + count_bytes + total_bytes), b"BTIN"
        )
    node.expect(0, what="a tree")
    node.expect(kind, what="a tree")
    records = [node.take(record_bytes) for _ in range(count)]
    if depth == 0:
        yield from records
        return
    for record in (*records, None):
        child, n_records = node.number(8), node.number(count_bytes)
        node.take(total_bytes)
        yield from _records(source, child, n_records, depth - 1, sizes, kind, record_bytes)
        if record is not None:
            yield record


def _fractal_heap(source: Source, address: int):
    """A function from heap IDs to the bytes they name."""
    head = source.block(address, 146, b"FRHP")
    head.expect(0, what="a heap")
    head.take(2)
    if head.number(2):
        raise FormatError("a heap with filters is not read", hint="write the file with h5py's defaults")
    checked = bool(head.number() & 2)
    largest_object = head.number(4)
    head.take(12 * 8)
    width, start, largest, bits = head.number(2), head.number(8), head.number(8), head.number(2)
    head.take(2)
    root, rows = head.number(8), head.number(2)
    offset_bytes = -(-bits // 8)
    length_bytes = min(_bytes_for(largest), _bytes_for(largest_object))
    if not (
        0 < start <= largest <= 1 << 24 and width > 0 and 0 < bits <= 64 and rows * width <= MAX_HEAP_BLOCKS
    ):
        raise FormatError("the file is damaged: a heap has the wrong dimensions", hint=_AGAIN)
    places = []  # (size, address) of each block of the heap
    offsets = [0]  # where each block starts
    if rows == 0:
        places.append((start, root))
    else:
        block = source.block(root, 13 + offset_bytes + 8 * rows * width + 4, b"FHIB")
        block.take(9 + offset_bytes)
        for row in range(rows):
            size = start << max(0, row - 1)
            for _ in range(width):
                child = block.number(8)
                if child != NOWHERE and size > largest:
                    raise FormatError("there are too many links or attributes")
                places.append((size, child))
                offsets.append(offsets[-1] + size)
    blocks: dict[int, bytes] = {}

    def read(heap_id: bytes) -> bytes:
        cursor = Cursor(heap_id)
        if cursor.number():
            raise FormatError(
                "a link or attribute is too large, or the file is damaged", expected="at most 4096 bytes"
            )
        offset, length = cursor.number(offset_bytes), cursor.number(length_bytes)
        at = bisect.bisect_right(offsets, offset) - 1
        size, child = places[at] if at < len(places) else (0, NOWHERE)
        within = offset - offsets[at]
        if child == NOWHERE or within + length > size:
            raise FormatError("the file is damaged: a heap does not hold what its index says", hint=_AGAIN)
        if child not in blocks:
            blocks[child] = _direct_block(source, child, size, 13 + offset_bytes if checked else None)
        return blocks[child][within : within + length]

    return read


def _direct_block(source: Source, address: int, size: int, checksum_at: int | None) -> bytes:
    data = source.metadata(address, size)
    if data[:4] != b"FHDB":
        raise FormatError(
            "the file is damaged: a block has the wrong signature", expected=b"FHDB", hint=_AGAIN
        )
    if checksum_at is not None:
        end = checksum_at + 4
        check(data[:checksum_at] + bytes(4) + data[end:], data[checksum_at:end])
    return data


# Datasets: the chunks


def chunks(source: Source, layout: Chunked, shape: tuple[int, ...], n_bytes: int) -> tuple[Chunk, ...]:
    """Every chunk of a dataset of `shape`, each of `n_bytes` before its filters; none may be missing."""
    counts = [-(-n // c) for n, c in zip(shape, layout.shape)]
    total = math.prod(counts)
    if total > MAX_CHUNKS:
        raise FormatError("the dataset has too many chunks", got=total, expected=f"at most {MAX_CHUNKS}")
    if layout.address == NOWHERE:
        found = []
    elif layout.index == "single":
        found = [Chunk((0,) * len(shape), layout.address, layout.n_bytes or n_bytes, layout.mask)]
    elif layout.index == "fixed":
        places = itertools.product(*(range(0, n, c) for n, c in zip(shape, layout.shape)))
        found = [
            Chunk(first, *entry)
            for first, entry in zip(places, _fixed_array(source, layout.address, total, n_bytes))
        ]
    else:
        found = []
        for key, address in _leaves(source, layout.address, 1, 8 + 8 * (len(shape) + 1)):
            stored, mask = key.number(4), key.number(4)
            found.append(Chunk(tuple(key.number(8) for _ in shape), address, stored, mask))
            if len(found) > total:
                break
    grid = set(itertools.product(*(range(0, n, c) for n, c in zip(shape, layout.shape))))
    if (
        len(found) != total
        or {chunk.first for chunk in found} != grid
        or any(chunk.address == NOWHERE for chunk in found)
    ):
        raise FormatError(
            "chunks of the dataset are missing or misplaced",
            got=f"{len(found)} chunks",
            expected=f"the {total} that cover it",
        )
    return tuple(found)


def _fixed_array(
    source: Source, address: int, total: int, chunk_bytes: int
) -> Iterator[tuple[int, int, int]]:
    """Address, size and filter mask of each chunk, in the order of the array."""
    head = source.block(address, 28, b"FAHD")
    head.expect(0, what="an index of chunks")
    filtered = head.expect(0, 1, what="an index of chunks")
    entry_bytes, page_bits, count, data = head.number(), head.number(), head.number(8), head.number(8)
    if count != total or not (13 <= entry_bytes <= 20 if filtered else entry_bytes == 8) or page_bits > 16:
        raise FormatError("the file is damaged: an index of chunks has the wrong dimensions", hint=_AGAIN)
    page = 1 << page_bits
    n_pages = -(-count // page) if count > page else 0
    bitmap_bytes = -(-n_pages // 8)
    block = source.block(data, 18 + bitmap_bytes + (0 if n_pages else count * entry_bytes), b"FADB")
    block.expect(0, what="an index of chunks")
    block.take(9 + bitmap_bytes)
    position = data + 18 + bitmap_bytes
    while count:
        n = min(count, page) if n_pages else count
        if n_pages:
            block = source.block(position, n * entry_bytes + 4, b"")
        for _ in range(n):
            place = block.number(8)
            yield (
                (place, block.number(entry_bytes - 12), block.number(4))
                if filtered
                else (place, chunk_bytes, 0)
            )
        position += n * entry_bytes + 4
        count -= n
