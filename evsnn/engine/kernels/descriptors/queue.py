"""Fields of the descriptors of `evsnn.engine.kernels.queue`: byte offsets of int64, without numba."""

from __future__ import annotations

import numpy as np

# Fields of a queue's descriptor, int64 each.
(
    N_STEPS,
    HEIGHT,
    WIDTH,  # of the block; of the map the projection reads
    EVENTS,
    POINTERS,  # what is written
    COLUMNS,  # [width] int32: the map's column of each queue column
    PARTS,
    N_PARTS,  # [part][first channel, last + 1] int64
    PART_CHANNELS,  # ids are column * PART_CHANNELS + channel - first channel
    SOURCES,
    N_SOURCES,
    PLANES,  # scratch: N_PLANES words of bit-sliced counters, at least `LEAST_PLANES`
    N_PLANES,
    POSITIONS,  # [256] uint64: the positions of a byte's set bits, a byte each, lowest first
    REACH_Y,
    REACH_X,  # [height], [width] int64: output rows and columns that a position of the map reaches
    TOTAL,  # [2] int64: events, a pooled position counting once, and the same times their reach
) = range(0, 8 * 17, 8)
DESCRIPTOR_BYTES = 8 * 17

# A source: masks of a population, perhaps seen through a pooling window.
(
    Q_MASKS,
    Q_STEP_BYTES,
    Q_ROW_BYTES,
    Q_WORD_BYTES,
    Q_HEIGHT,
    Q_WIDTH,  # of the source's own map
    Q_CHANNELS,
    Q_OFFSET,  # its channels, and where they stand in the projection's
    Q_KERNEL_Y,
    Q_KERNEL_X,  # 0: not pooled
    Q_STRIDE_Y,
    Q_STRIDE_X,
    Q_PAD_TOP,
    Q_PAD_LEFT,
) = range(0, 8 * 14, 8)
SOURCE_BYTES = 8 * 14


def bit_positions() -> np.ndarray:
    """(256,) uint64: by byte, the positions of its set bits, to which `POSITIONS` points."""
    table = np.zeros((256, 8), np.uint8)
    for byte in range(256):
        set_bits = [bit for bit in range(8) if byte >> bit & 1]
        table[byte, : len(set_bits)] = set_bits
    return table.view(np.uint64).ravel()
