"""Spike masks -> event queues, and counts of spikes and events.

A queue serves one synapse. Its columns may stand in another order than the map's (`COLUMNS`), so
that the taps of a dilated kernel are neighbours; its channels may be split into parts that overlap,
one a tile of output channels, so that a grouped convolution reads its own inputs only. Sources stand
side by side along the channels; a pooled source sends, for each position and channel of its pooled
map, one event that counts the spikes in the window.
"""

from __future__ import annotations

from functools import partial

from numba import types

from . import vector
from .jit import inner, kernel
from .memory import load_i32, load_i64, load_u64, pop_count, store_i32, store_i64, store_u64, trailing_zeros

__all__ = ["count_events", "count_reaching", "count_spikes", "specialise"]

# Slots of a queue's job, int64 each.
(
    N_STEPS, HEIGHT, WIDTH,  # of the block; of the map the synapse reads
    EVENTS, POINTERS,        # what is written
    COLUMNS,                 # [width] int32: the map's column of each queue column
    PARTS, N_PARTS,          # [part][first channel, last + 1] int64
    PART_CHANNELS,           # ids are column * PART_CHANNELS + channel - first channel
    SOURCES, N_SOURCES,
    PLANES,                  # scratch: N_PLANES words of bit-sliced counters
    N_PLANES,                # 0 when no source is pooled
) = range(0, 8 * 13, 8)  # fmt: skip
JOB_BYTES = 8 * 13

# A source: masks of a population, perhaps seen through a pooling window.
(
    Q_MASKS, Q_STEP_BYTES, Q_ROW_BYTES, Q_WORD_BYTES,
    Q_HEIGHT, Q_WIDTH,       # of the source's own map
    Q_CHANNELS, Q_OFFSET,    # its channels, and where they stand in the synapse's
    Q_KERNEL_Y, Q_KERNEL_X,  # 0: not pooled
    Q_STRIDE_Y, Q_STRIDE_X, Q_PAD_TOP, Q_PAD_LEFT,
) = range(0, 8 * 14, 8)  # fmt: skip
SOURCE_BYTES = 8 * 14

_ONE = types.uint64(1)
_FULL = 64


@inner
def window_sum(source, step, y, x, word, planes, n_planes):
    """Add the masks of a pooling window bit by bit into `planes`; return the lanes that are not 0.

    Plane j holds bit j of 64 counters, one a channel.
    """
    for j in range(n_planes):
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
def counter(planes, n_planes, bit):
    """The value of one of the bit-sliced counters."""
    value = 0
    for j in range(n_planes):
        value |= types.int64((load_u64(planes + 8 * j) >> types.uint64(bit)) & _ONE) << j
    return value


@kernel
def build(events, job):
    """Write the queue and its pointers; return the number of events, parts included."""
    n_steps, height, width = load_i64(job + N_STEPS), load_i64(job + HEIGHT), load_i64(job + WIDTH)
    planes, n_planes = load_i64(job + PLANES), load_i64(job + N_PLANES)
    n_sources, channels, n_parts = load_i64(job + N_SOURCES), load_i64(job + PART_CHANNELS), load_i64(job + N_PARTS)
    pointer, queue, columns = load_i64(job + POINTERS), load_i64(job + EVENTS), load_i64(job + COLUMNS)
    event_bytes = vector.event_bytes(events)
    event = queue
    for part in range(n_parts):
        part_first = load_i64(load_i64(job + PARTS) + 16 * part)
        part_last = load_i64(load_i64(job + PARTS) + 16 * part + 8)
        for t in range(n_steps):
            for y in range(height):
                for column in range(width):
                    store_i32(pointer, (event - queue) // event_bytes)
                    pointer += 4
                    x = load_i32(columns + 4 * column)
                    source = load_i64(job + SOURCES)
                    for _ in range(n_sources):
                        offset = load_i64(source + Q_OFFSET)
                        first = max(part_first - offset, 0)
                        last = min(part_last - offset, load_i64(source + Q_CHANNELS))
                        if first < last:
                            pooled = load_i64(source + Q_KERNEL_Y) > 0
                            line = load_i64(source + Q_MASKS) + t * load_i64(source + Q_STEP_BYTES) + y * load_i64(source + Q_ROW_BYTES)
                            line += x * load_i64(source + Q_WORD_BYTES)
                            number = column * channels + offset - part_first
                            for word in range(first // 64, (last + 63) // 64):
                                bits = window_sum(source, t, y, x, word, planes, n_planes) if pooled else load_u64(line + 8 * word)
                                if bits == 0:
                                    continue
                                if n_parts > 1:  # cut off what belongs to other parts
                                    low, high = first - 64 * word, last - 64 * word
                                    if low > 0:
                                        bits = (bits >> types.uint64(low)) << types.uint64(low)
                                    if high < 64:
                                        bits &= (_ONE << types.uint64(high)) - _ONE
                                base = number + 64 * word
                                while bits != 0:
                                    bit = trailing_zeros(bits)
                                    count = counter(planes, n_planes, bit) if pooled else 1
                                    vector.put_event(events, event, base + bit, count)
                                    event += event_bytes
                                    bits &= bits - _ONE
                        source += SOURCE_BYTES
        store_i32(pointer, (event - queue) // event_bytes)
        pointer += 4
    return (event - queue) // event_bytes


@kernel
def count_reaching(pointers, n_steps, height, width, reach_y, reach_x, total):
    """Events of a queue of one part: their number into total[0], times their reach into total[1].

    ``reach_y[y] * reach_x[column]`` (int64) is the number of output positions that position reaches.
    """
    n_events, n_reached = 0, 0
    for y in range(height):
        for column in range(width):
            at = pointers + 4 * (y * width + column)
            n = 0
            for t in range(n_steps):
                n += load_i32(at + 4) - load_i32(at)
                at += 4 * height * width
            n_events += n
            n_reached += n * load_i64(reach_y + 8 * y) * load_i64(reach_x + 8 * column)
    store_i64(total, n_events)
    store_i64(total + 8, n_reached)


@kernel
def count_events(job, source, reach_y, reach_x, total):
    """The same for one source of a queue's job, from its masks: for queues of several parts, and taps.

    ``reach_x`` is in the map's own order of columns.
    """
    n_steps, height, width = load_i64(job + N_STEPS), load_i64(job + HEIGHT), load_i64(job + WIDTH)
    pooled = load_i64(source + Q_KERNEL_Y) > 0
    n_events, n_reached = 0, 0
    for y in range(height):
        for x in range(width):
            n = 0
            for t in range(n_steps):
                line = load_i64(source + Q_MASKS) + t * load_i64(source + Q_STEP_BYTES) + y * load_i64(source + Q_ROW_BYTES)
                line += x * load_i64(source + Q_WORD_BYTES)
                for word in range(load_i64(source + Q_WORD_BYTES) // 8):
                    if pooled:
                        n += pop_count(window_sum(source, t, y, x, word, load_i64(job + PLANES), load_i64(job + N_PLANES)))
                    else:
                        n += pop_count(load_u64(line + 8 * word))
            n_events += n
            n_reached += n * load_i64(reach_y + 8 * y) * load_i64(reach_x + 8 * x)
    store_i64(total, n_events)
    store_i64(total + 8, n_reached)


@kernel
def count_spikes(masks, n_words):
    """Number of set bits."""
    n = 0
    for word in range(n_words):
        n += pop_count(load_u64(masks + 8 * word))
    return n


def specialise(events: vector.Events):
    """The compiled `build` for these events: a function of the job's address."""
    compiled = build.compile((events.numba_type, types.int64))
    return partial(compiled, None)
