"""The operations of `memory` and `vector` in plain Python, which replace them when numba's compiler is off.

With ``NUMBA_DISABLE_JIT=1`` kernels are interpreted line by line, so that a debugger can follow them and
coverage can count them; tests then compare them with the reference on small networks. Vectors are NumPy
arrays, masks are arrays of bool, and addresses are the same addresses.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from .layout import COPY_BYTES

if TYPE_CHECKING:
    from .selectors import Events, Vectors

Array = np.ndarray


def _at(address: int, dtype, count: int) -> Array:
    """The memory at an address, as an array."""
    dtype = np.dtype(dtype)
    return np.frombuffer((ctypes.c_char * (dtype.itemsize * count)).from_address(int(address)), dtype)


def load_i32(address: int) -> int:
    return int(_at(address, np.int32, 1)[0])


def load_i64(address: int) -> int:
    return int(_at(address, np.int64, 1)[0])


def load_u64(address: int) -> np.uint64:
    return _at(address, np.uint64, 1)[0]


def store_i32(address: int, value: int) -> None:
    _at(address, np.int32, 1)[0] = value


def store_i64(address: int, value: int) -> None:
    _at(address, np.int64, 1)[0] = value


def store_u64(address: int, value: int) -> None:
    _at(address, np.uint64, 1)[0] = value


def prefetch(address: int) -> None:
    """Do nothing: fetching changes no result."""


def trailing_zeros(word: int) -> int:
    return (int(word) & -int(word)).bit_length() - 1


def pop_count(word: int) -> int:
    return int(word).bit_count()


def membrane_bytes(vectors: Vectors) -> int:
    return vectors.membrane_bytes


def row_bytes(vectors: Vectors) -> int:
    return vectors.row_bytes


def mask_bytes(vectors: Vectors) -> int:
    return vectors.lanes // 8


def has_negative_spikes(vectors: Vectors) -> int:
    return int(vectors.has_negative_spikes)


def has_shifts(vectors: Vectors) -> int:
    return int(vectors.has_shifts)


def has_warm_up(vectors: Vectors) -> int:
    return int(vectors.has_warm_up)


def event_bytes(events: Events) -> int:
    return events.bytes


def graded(events: Events) -> int:
    return int(events.graded)


def zero(vectors: Vectors) -> Array:
    return np.zeros(vectors.lanes, vectors.membrane)


def load(vectors: Vectors, address: int) -> Array:
    return _at(address, vectors.membrane, vectors.lanes).copy()


def store(vectors: Vectors, address: int, v: Array) -> None:
    _at(address, vectors.membrane, vectors.lanes)[:] = v


def add(vectors: Vectors, v: Array, u: Array) -> Array:
    return v + u


def maximum(vectors: Vectors, v: Array, u: Array) -> Array:
    return np.maximum(v, u)


def behind(vectors: Vectors, counts_address: int, largest_address: int, limit: int) -> Array:
    gap = _at(largest_address, np.uint16, vectors.lanes) - _at(counts_address, np.uint16, vectors.lanes)
    return (-np.minimum(gap, limit).astype(np.int64)).astype(vectors.membrane)


def add_counts(vectors: Vectors, address: int, v: Array) -> None:
    _at(address, np.uint16, vectors.lanes)[:] += v.astype(np.uint16)


def begin(vectors: Vectors, events: Events, v: Array) -> Array:
    return v if vectors.in_membrane else np.zeros(vectors.lanes, vectors.accumulator)


def merge(vectors: Vectors, v: Array, s: Array) -> Array:
    return s if vectors.in_membrane else v + s.astype(vectors.membrane)


def add_event(vectors: Vectors, events: Events, s: Array, weights: int, address: int) -> Array:
    number = int(_at(address, f"u{events.id_bits // 8}", 1)[0])
    row = _at(weights + number * vectors.row_bytes, vectors.weight, vectors.lanes).astype(vectors.accumulator)
    if not events.graded:
        return s + row
    above = address + events.id_bits // 8
    if events.count == "integer":
        count = _at(above, f"u{events.id_bits // 8}", 1)[0].astype(vectors.accumulator)
    elif events.id_bits == 32:
        count = _at(above, np.float32, 1)[0]
    else:
        count = (_at(above, np.uint16, 1).astype(np.uint32) << 16).view(np.float32)[0]
    return s + count * row


def add_product(vectors: Vectors, v: Array, value_address: int, row_address: int) -> Array:
    value = _at(value_address, vectors.membrane, 1)[0]
    return v + value * _at(row_address, vectors.weight, vectors.lanes).astype(vectors.membrane)


def add_masked(vectors: Vectors, v: Array, mask_address: int, weight_address: int) -> Array:
    lanes = np.unpackbits(_at(mask_address, np.uint8, vectors.lanes // 8), bitorder="little").astype(bool)
    return np.where(lanes, v + _at(weight_address, vectors.membrane, vectors.lanes), v)


def mask(vectors: Vectors, v: Array, threshold: Array) -> Array:
    return v >= threshold


def store_mask(vectors: Vectors, address: int, fired: Array) -> None:
    _at(address, np.uint8, vectors.lanes // 8)[:] = np.packbits(fired, bitorder="little")


def reset(vectors: Vectors, v: Array, threshold: Array, fired: Array) -> Array:
    return np.where(fired, v - threshold, v)


def negative_mask(vectors: Vectors, v: Array, bound: Array, n: Array) -> Array:
    return (v < bound) & (n > 0)


def net_count(vectors: Vectors, n: Array, fired: Array, below: Array) -> Array:
    return n + fired.astype(n.dtype) - below.astype(n.dtype)


def undo_reset(vectors: Vectors, v: Array, threshold: Array, below: Array) -> Array:
    return np.where(below, v + threshold, v)


def leak(vectors: Vectors, v: Array, factor: Array) -> Array:
    return v * factor + np.float32(0) if vectors.membrane == "float32" else v - (v >> factor)


def shift(vectors: Vectors, v: Array, right: Array, left: Array) -> Array:
    return v if vectors.membrane == "float32" else v >> right << left


def _ids(events: Events, address: int, count: int) -> Array:
    """Ids and, if the events are graded, counts: (count, 1 or 2)."""
    columns = 2 if events.graded else 1
    return _at(address, f"u{events.id_bits // 8}", count * columns).reshape(count, columns)


def copy_events(events: Events, source: int, target: int, offset: int) -> None:
    count = COPY_BYTES // events.bytes
    copied = _ids(events, source, count).copy()
    copied[:, 0] += np.array(offset).astype(copied.dtype)
    _ids(events, target, count)[:] = copied


def pad_events(events: Events, target: int, number: int) -> None:
    padding = _ids(events, target, COPY_BYTES // events.bytes)
    padding[:] = 0
    padding[:, 0] = number


def put_ids(events: Events, target: int, positions: int, number: int) -> None:
    offsets = np.array([positions], np.uint64).view(np.uint8)
    _ids(events, target, 8)[:, 0] = number + offsets.astype(np.int64)


def put_event(events: Events, address: int, number: int, count: int) -> None:
    event = _ids(events, address, 1)[0]
    event[0] = number
    if events.count == "integer":
        event[1] = count
    elif events.count == "float32":
        event[1] = np.array([count], np.float32).view(np.uint32)[0] >> (32 - events.id_bits)
