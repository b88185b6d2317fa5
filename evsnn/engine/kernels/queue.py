"""Spike masks -> event queues, and counts of spikes and events.

A queue serves one projection. Its columns may be in another order than the map's (`COLUMNS`), so that the
columns of a dilated kernel are neighbours. Its channels may be split into parts that overlap, one per tile of
output channels, so that a grouped convolution reads its own inputs only. Sources are side by side along the
channels. A pooled source sends one event for each position and channel of its pooled map, with the count of
spikes in the window.
"""

from __future__ import annotations

from numba import types

from . import vector
from .descriptors.queue import (
    COLUMNS,
    EVENTS,
    HEIGHT,
    N_PARTS,
    N_PLANES,
    N_SOURCES,
    N_STEPS,
    PART_CHANNELS,
    PARTS,
    PLANES,
    POINTERS,
    POSITIONS,
    Q_CHANNELS,
    Q_HEIGHT,
    Q_KERNEL_X,
    Q_KERNEL_Y,
    Q_MASKS,
    Q_OFFSET,
    Q_PAD_LEFT,
    Q_PAD_TOP,
    Q_ROW_BYTES,
    Q_STEP_BYTES,
    Q_STRIDE_X,
    Q_STRIDE_Y,
    Q_WIDTH,
    Q_WORD_BYTES,
    REACH_X,
    REACH_Y,
    SOURCE_BYTES,
    SOURCES,
    TOTAL,
    WIDTH,
)
from .jit import inner, kernel
from .layout import LEAST_PLANES
from .memory import load_i32, load_i64, load_u64, pop_count, store_i32, store_i64, store_u64, trailing_zeros

__all__ = ["build", "build_simple", "count_events", "count_spikes"]

_ONE = types.uint64(1)
_BYTE = types.uint64(255)


@inner
def window_sum(source, step, y, x, word, planes, n_planes):
    """Add the masks of a pooling window bit by bit into `planes`; return the channels that are not 0.

    Plane j holds bit j of 64 counters, one per channel.
    """
    for j in range(max(n_planes, LEAST_PLANES)):
        store_u64(planes + 8 * j, types.uint64(0))
    top = y * load_i64(source + Q_STRIDE_Y) - load_i64(source + Q_PAD_TOP)
    left = x * load_i64(source + Q_STRIDE_X) - load_i64(source + Q_PAD_LEFT)
    masks = load_i64(source + Q_MASKS) + step * load_i64(source + Q_STEP_BYTES) + 8 * word
    some = types.uint64(0)
    for wy in range(max(top, 0), min(top + load_i64(source + Q_KERNEL_Y), load_i64(source + Q_HEIGHT))):
        line = masks + wy * load_i64(source + Q_ROW_BYTES)
        for wx in range(max(left, 0), min(left + load_i64(source + Q_KERNEL_X), load_i64(source + Q_WIDTH))):
            carry = load_u64(line + wx * load_i64(source + Q_WORD_BYTES))
            some |= carry
            plane = planes
            while carry != 0:
                bits = load_u64(plane)
                store_u64(plane, bits ^ carry)
                carry &= bits
                plane += 8
    return some


@inner
def window_any(source, step, y, x, word):
    """The channels in which any mask of a pooling window has a bit."""
    top = y * load_i64(source + Q_STRIDE_Y) - load_i64(source + Q_PAD_TOP)
    left = x * load_i64(source + Q_STRIDE_X) - load_i64(source + Q_PAD_LEFT)
    masks = load_i64(source + Q_MASKS) + step * load_i64(source + Q_STEP_BYTES) + 8 * word
    some = types.uint64(0)
    for wy in range(max(top, 0), min(top + load_i64(source + Q_KERNEL_Y), load_i64(source + Q_HEIGHT))):
        line = masks + wy * load_i64(source + Q_ROW_BYTES)
        for wx in range(max(left, 0), min(left + load_i64(source + Q_KERNEL_X), load_i64(source + Q_WIDTH))):
            some |= load_u64(line + wx * load_i64(source + Q_WORD_BYTES))
    return some


@inner
def counter(planes, n_planes, bit):
    """The value of one of the bit-sliced counters; there are always at least four planes."""
    shift = types.uint64(bit)
    value = (load_u64(planes) >> shift) & _ONE
    value |= ((load_u64(planes + 8) >> shift) & _ONE) << types.uint64(1)
    value |= ((load_u64(planes + 16) >> shift) & _ONE) << types.uint64(2)
    value |= ((load_u64(planes + 24) >> shift) & _ONE) << types.uint64(3)
    for j in range(4, n_planes):
        value |= ((load_u64(planes + 8 * j) >> shift) & _ONE) << types.uint64(j)
    return types.int64(value)


@inner
def put_plain(events, event, bits, n_bytes, base, positions):
    """Write an event for each set bit of `n_bytes` bytes, without branches; return where the events end."""
    for _ in range(n_bytes):
        byte = types.int64(bits & _BYTE)
        vector.put_ids(events, event, load_u64(positions + 8 * byte), base)
        event += vector.event_bytes(events) * pop_count(types.uint64(byte))
        base += 8
        bits >>= types.uint64(8)
    return event


@inner
def put_graded(events, event, bits, base, planes, n_planes):
    """Write an event for each set bit, with the window's count (1 without planes); return where they end."""
    while bits != 0:
        bit = trailing_zeros(bits)
        vector.put_event(events, event, base + bit, counter(planes, n_planes, bit) if n_planes else 1)
        event += vector.event_bytes(events)
        bits &= bits - _ONE
    return event


@inner
def cut(bits, first, last):
    """The bits from `first` on and before `last`."""
    if first > 0:
        bits = (bits >> types.uint64(first)) << types.uint64(first)
    if last < 64:
        bits &= (_ONE << types.uint64(last)) - _ONE
    return bits


@kernel
def build(events, descriptor):
    """Write a queue of any sources, pools and parts, and its pointers.

    If events carry no counts, a pooled position sends one event for each spike of its window. That is exact
    for integers, because the order of their sums does not matter.
    """
    n_steps, height, width = (
        load_i64(descriptor + N_STEPS),
        load_i64(descriptor + HEIGHT),
        load_i64(descriptor + WIDTH),
    )
    planes, positions, columns = (
        load_i64(descriptor + PLANES),
        load_i64(descriptor + POSITIONS),
        load_i64(descriptor + COLUMNS),
    )
    n_sources, channels, n_parts = (
        load_i64(descriptor + N_SOURCES),
        load_i64(descriptor + PART_CHANNELS),
        load_i64(descriptor + N_PARTS),
    )
    pointer, queue = load_i64(descriptor + POINTERS), load_i64(descriptor + EVENTS)
    event_bytes = vector.event_bytes(events)
    event = queue
    for part in range(n_parts):
        part_first = load_i64(load_i64(descriptor + PARTS) + 16 * part)
        part_last = load_i64(load_i64(descriptor + PARTS) + 16 * part + 8)
        for t in range(n_steps):
            for y in range(height):
                for column in range(width):
                    store_i32(pointer, (event - queue) // event_bytes)
                    pointer += 4
                    x = load_i32(columns + 4 * column)
                    source = load_i64(descriptor + SOURCES)
                    for _ in range(n_sources):
                        offset = load_i64(source + Q_OFFSET)
                        first, last = (
                            max(part_first - offset, 0),
                            min(part_last - offset, load_i64(source + Q_CHANNELS)),
                        )
                        base = column * channels + offset - part_first
                        pooled = load_i64(source + Q_KERNEL_Y) > 0
                        masks = load_i64(source + Q_MASKS) + t * load_i64(source + Q_STEP_BYTES)
                        top = (
                            y * load_i64(source + Q_STRIDE_Y) - load_i64(source + Q_PAD_TOP) if pooled else y
                        )
                        left = (
                            x * load_i64(source + Q_STRIDE_X) - load_i64(source + Q_PAD_LEFT) if pooled else x
                        )
                        bottom = (
                            min(top + load_i64(source + Q_KERNEL_Y), load_i64(source + Q_HEIGHT))
                            if pooled
                            else y + 1
                        )
                        right = (
                            min(left + load_i64(source + Q_KERNEL_X), load_i64(source + Q_WIDTH))
                            if pooled
                            else x + 1
                        )
                        for word in range(first // 64, (last + 63) // 64 if first < last else 0):
                            if vector.graded(events) and pooled:
                                bits = cut(
                                    window_sum(
                                        source, t, y, x, word, planes, load_i64(descriptor + N_PLANES)
                                    ),
                                    first - 64 * word,
                                    last - 64 * word,
                                )
                                event = put_graded(
                                    events,
                                    event,
                                    bits,
                                    base + 64 * word,
                                    planes,
                                    load_i64(descriptor + N_PLANES),
                                )
                                continue
                            for wy in range(max(top, 0), bottom):
                                for wx in range(max(left, 0), right):
                                    bits = load_u64(
                                        masks
                                        + wy * load_i64(source + Q_ROW_BYTES)
                                        + wx * load_i64(source + Q_WORD_BYTES)
                                        + 8 * word
                                    )
                                    bits = cut(bits, first - 64 * word, last - 64 * word)
                                    if vector.graded(events):
                                        event = put_graded(events, event, bits, base + 64 * word, planes, 0)
                                    elif bits != 0:
                                        event = put_plain(events, event, bits, 8, base + 64 * word, positions)
                        source += SOURCE_BYTES
        store_i32(pointer, (event - queue) // event_bytes)
        pointer += 4


@inner
def put_quads(events, event, a, b, c, d, base):
    """Write a graded event for each bit set in any of four masks; return where they end."""
    ones, twos = (
        (a ^ b) ^ (c ^ d),
        (a & b) ^ (c & d) ^ ((a ^ b) & (c ^ d)),
    )  # two bits of a sum of four
    fours = a & b & c & d
    bits = a | b | c | d
    while bits != 0:
        bit = trailing_zeros(bits)
        shift = types.uint64(bit)
        count = (
            ((ones >> shift) & _ONE)
            | (((twos >> shift) & _ONE) << _ONE)
            | (((fours >> shift) & _ONE) << types.uint64(2))
        )
        vector.put_event(events, event, base + bit, types.int64(count))
        event += vector.event_bytes(events)
        bits &= bits - _ONE
    return event


@kernel
def build_simple(events, descriptor):
    """Write the queue of one source, in one part, with columns in order, and count the events.

    There is no pool, or pools of 2x2 that do not overlap. Most queues are like that.
    """
    n_steps, height, width = (
        load_i64(descriptor + N_STEPS),
        load_i64(descriptor + HEIGHT),
        load_i64(descriptor + WIDTH),
    )
    channels, positions = load_i64(descriptor + PART_CHANNELS), load_i64(descriptor + POSITIONS)
    pointer, queue = load_i64(descriptor + POINTERS), load_i64(descriptor + EVENTS)
    source = load_i64(descriptor + SOURCES)
    pooled = load_i64(source + Q_KERNEL_Y) > 0
    word_bytes, row_bytes, step_bytes = (
        load_i64(source + Q_WORD_BYTES),
        load_i64(source + Q_ROW_BYTES),
        load_i64(source + Q_STEP_BYTES),
    )
    n_words = (channels + 63) // 64
    last_bytes = (channels - 64 * (n_words - 1) + 7) // 8
    event_bytes = vector.event_bytes(events)
    event = queue
    n_events, n_reached = 0, 0
    for t in range(n_steps):
        for y in range(height):
            line = load_i64(source + Q_MASKS) + t * step_bytes + (2 * y if pooled else y) * row_bytes
            reached_in_row = 0
            for x in range(width):
                store_i32(pointer, (event - queue) // event_bytes)
                pointer += 4
                n = 0
                mask = line + (2 * x if pooled else x) * word_bytes
                base = x * channels
                for word in range(n_words):
                    n_bytes = 8 if word + 1 < n_words else last_bytes
                    bits = load_u64(mask)
                    if pooled:
                        right, below, diagonal = (
                            load_u64(mask + word_bytes),
                            load_u64(mask + row_bytes),
                            load_u64(mask + row_bytes + word_bytes),
                        )
                        n += pop_count(bits | right | below | diagonal)
                        if vector.graded(events):
                            event = put_quads(events, event, bits, right, below, diagonal, base)
                        elif (bits | right | below | diagonal) != 0:
                            event = put_plain(events, event, bits, n_bytes, base, positions)
                            event = put_plain(events, event, right, n_bytes, base, positions)
                            event = put_plain(events, event, below, n_bytes, base, positions)
                            event = put_plain(events, event, diagonal, n_bytes, base, positions)
                    else:
                        n += pop_count(bits)
                        if vector.graded(events):
                            event = put_graded(events, event, bits, base, 0, 0)
                        elif bits != 0:
                            event = put_plain(events, event, bits, n_bytes, base, positions)
                    mask += 8
                    base += 64
                n_events += n
                reached_in_row += n * load_i64(load_i64(descriptor + REACH_X) + 8 * x)
            n_reached += reached_in_row * load_i64(load_i64(descriptor + REACH_Y) + 8 * y)
    store_i32(pointer, (event - queue) // event_bytes)
    store_i64(load_i64(descriptor + TOTAL), n_events)
    store_i64(load_i64(descriptor + TOTAL) + 8, n_reached)


@kernel
def count_events(descriptor, source):
    """Count the events that one source of a descriptor sends.

    This is for channelwise weights, and for queues that `build_simple` does not build.
    """
    n_steps, height, width = (
        load_i64(descriptor + N_STEPS),
        load_i64(descriptor + HEIGHT),
        load_i64(descriptor + WIDTH),
    )
    pooled = load_i64(source + Q_KERNEL_Y) > 0
    n_events, n_reached = 0, 0
    for y in range(height):
        for x in range(width):
            n = 0
            for t in range(n_steps):
                line = (
                    load_i64(source + Q_MASKS)
                    + t * load_i64(source + Q_STEP_BYTES)
                    + y * load_i64(source + Q_ROW_BYTES)
                )
                line += x * load_i64(source + Q_WORD_BYTES)
                for word in range(load_i64(source + Q_WORD_BYTES) // 8):
                    if pooled:
                        n += pop_count(window_any(source, t, y, x, word))
                    else:
                        n += pop_count(load_u64(line + 8 * word))
            n_events += n
            n_reached += (
                n
                * load_i64(load_i64(descriptor + REACH_Y) + 8 * y)
                * load_i64(load_i64(descriptor + REACH_X) + 8 * x)
            )
    store_i64(load_i64(descriptor + TOTAL), n_events)
    store_i64(load_i64(descriptor + TOTAL) + 8, n_reached)


@kernel
def count_spikes(masks, n_words):
    """The number of set bits in masks."""
    n = 0
    for word in range(n_words):
        n += pop_count(load_u64(masks + 8 * word))
    return n
