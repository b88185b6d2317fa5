"""Objects of an HDF5 file: what a header says about a group or a dataset."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from . import indexes, messages
from .source import NOWHERE, Cursor, FormatError, Source, check

__all__ = ["Object", "read_object", "root_address"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_ATTRIBUTES = 512
MAX_CONTINUATIONS = 1_024
DATASPACE, LINK_INFO, DATATYPE, EXTERNAL, LINK, LAYOUT, FILTERS, ATTRIBUTE = (
    0x01,
    0x02,
    0x03,
    0x07,
    0x06,
    0x08,
    0x0B,
    0x0C,
)
CONTINUATION, SYMBOL_TABLE, ATTRIBUTE_INFO = 0x10, 0x11, 0x15
_READ = (DATASPACE, LINK_INFO, DATATYPE, LINK, LAYOUT, FILTERS, ATTRIBUTE, SYMBOL_TABLE, ATTRIBUTE_INFO)
_PASSED_OVER = (
    0x00,
    0x04,
    0x05,
    0x0A,
    0x0D,
    0x0E,
    0x12,
    0x16,
)  # nothing, fill values, group info, comments, times, reference counts


def root_address(head: bytes, size: int) -> int:
    """Where the root group is, from the first 96 bytes of a file of `size` bytes.

    Files with a user block, an extension of the superblock or a driver's information are refused: a
    weights file has no need of them, and some of them point elsewhere.
    """
    if not head:
        raise FormatError("the file is empty")
    if not head.startswith(SIGNATURE):
        raise FormatError(
            "this is not an HDF5 file", got=f"{head[:8]!r} at its start", expected=repr(SIGNATURE)
        )
    cursor = Cursor(head)
    cursor.take(8)
    version = cursor.expect(0, 1, 2, 3, what="the file")
    if version < 2:
        cursor.take(4)
        widths = cursor.take(2)
        cursor.take(9 if version == 0 else 13)
        base, extra, end, driver = (cursor.number(8) for _ in range(4))
        cursor.take(8)
        root = cursor.number(8)
    else:
        widths = cursor.take(2)
        cursor.take(1)
        base, extra, end, root = (cursor.number(8) for _ in range(4))
        driver = extra
        check(head[:44], cursor.take(4))
    if widths != b"\x08\x08" or base or extra != NOWHERE or driver != NOWHERE:
        raise FormatError(
            "the file uses features of HDF5 that are not read", hint="write it with h5py's defaults"
        )
    if size != end:
        what = "the file is cut short" if size < end else "the file goes on behind its end"
        raise FormatError(what, got=f"{size} bytes", expected=end, hint="copy or download it again")
    return root


@dataclass(frozen=True)
class Object:
    """A group or a dataset: its header's messages."""

    source: Source
    messages: tuple[tuple[int, int, bytes], ...]  # kind, flags, data

    @property
    def kind(self) -> str:
        """What it is: group, dataset or named datatype."""
        kinds = {kind for kind, _, _ in self.messages}
        return (
            "dataset"
            if LAYOUT in kinds
            else "group"
            if kinds & {LINK_INFO, LINK, SYMBOL_TABLE}
            else "named datatype"
        )

    def message(self, kind: int) -> Cursor | None:
        """The data of the one message of a kind."""
        found = list(self._all(kind))
        if len(found) > 1:
            raise FormatError("the file is damaged: an object says the same thing twice")
        return found[0] if found else None

    def _all(self, wanted: int) -> Iterator[Cursor]:
        for kind, flags, data in self.messages:
            if kind == wanted:
                if flags & 2:
                    raise FormatError("a named datatype is not followed", expected="a plain type")
                yield Cursor(data)

    def attributes(self, only: Collection[str] | None = None) -> dict[str, object]:
        """All attributes, or those asked for, sorted by name."""
        found: dict[str, object] = {}
        info = self.message(ATTRIBUTE_INFO)
        dense = messages.heap_and_index(info, 2) if info else None
        stored = map(Cursor, indexes.dense_objects(self.source, *dense, 8)) if dense else ()
        for source in (self._all(ATTRIBUTE), stored):
            for cursor in source:
                named = messages.attribute(cursor, only)
                if named is None:
                    continue
                name, value = named
                if name in found:
                    raise FormatError("two attributes have one name", got=repr(name)[:80])
                found[name] = value
                if len(found) > MAX_ATTRIBUTES:
                    raise FormatError("there are too many attributes", expected=f"at most {MAX_ATTRIBUTES}")
        return dict(sorted(found.items()))

    def links(self) -> Iterator[tuple[bytes, int]]:
        """Names and addresses of a group's objects."""
        table, info = self.message(SYMBOL_TABLE), self.message(LINK_INFO)
        if table:
            yield from indexes.symbol_table(self.source, table.number(8), table.number(8))
        for cursor in self._all(LINK):
            yield messages.link(cursor)
        dense = messages.heap_and_index(info, 8) if info else None
        if dense:
            for data in indexes.dense_objects(self.source, *dense, 5):
                yield messages.link(Cursor(data))


def read_object(source: Source, address: int) -> Object:
    """The object whose header is at `address`."""
    start = source.metadata(address, 16)
    if start[:4] == b"OHDR":
        found = _new_header(source, address)
    elif start[0] == 1:
        found = _old_header(source, address, Cursor(start))
    else:
        raise FormatError(
            "the file is damaged: there is no object where one should be",
            got=start[:4],
            hint="copy or download it again",
        )
    kept = []
    for kind, flags, data in found:
        if kind == EXTERNAL:
            raise FormatError("data in another file is not followed", expected="the data itself")
        if kind in _READ:
            kept.append((kind, flags, data))
        elif kind not in _PASSED_OVER:
            raise FormatError(
                "the file uses features of HDF5 that are not read",
                got=f"header message {kind}",
                hint="write it with h5py's defaults",
            )
    return Object(source, tuple(kept))


def _new_header(source: Source, address: int) -> Iterator[tuple[int, int, bytes]]:
    head = Cursor(source.metadata(address, 6))
    head.take(4)
    head.expect(2, what="an object")
    flags = head.number()
    before = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    size = Cursor(source.metadata(address + before, width)).number(width)
    block = source.block(address, before + width + size + 4, b"OHDR")
    block.take(before + width - 4)
    pending = [block]
    for _ in range(MAX_CONTINUATIONS):
        if not pending:
            return
        block = pending.pop()
        while block.left >= (6 if flags & 4 else 4):
            kind, n_bytes, bits = block.number(), block.number(2), block.number()
            block.take(2 if flags & 4 else 0)
            data = block.take(n_bytes)
            if kind == CONTINUATION:
                place = Cursor(data)
                pending.append(source.block(place.number(8), place.number(8), b"OCHK"))
            else:
                yield kind, bits, data
    raise FormatError("the file is damaged: an object has no end")


def _old_header(source: Source, address: int, head: Cursor) -> Iterator[tuple[int, int, bytes]]:
    head.take(2)
    count = head.number(2)
    head.take(4)
    pending = [(address + 16, head.number(4))]
    for _ in range(MAX_CONTINUATIONS):
        if not pending:
            return
        block = Cursor(source.metadata(*pending.pop()))
        while block.left >= 8 and count:
            count -= 1
            kind, n_bytes, bits = block.number(2), block.number(2), block.number()
            block.take(3)
            data = block.take(n_bytes)
            if kind == CONTINUATION:
                place = Cursor(data)
                pending.append((place.number(8), place.number(8)))
            else:
                yield kind, bits, data
    raise FormatError("the file is damaged: an object has no end")
