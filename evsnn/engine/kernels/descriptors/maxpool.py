"""Fields of the descriptors of `evsnn.engine.kernels.maxpool`: byte offsets of int64, without numba."""

from __future__ import annotations

# Fields of a descriptor, int64 each.
(
    N_STEPS,
    HEIGHT,
    WIDTH,
    WORD_BYTES,  # of the block; of the output map; bytes of a position's masks, in and out
    MASKS,
    NEGATIVES,  # of the inputs; of their negative spikes, if they have them
    IN_HEIGHT,
    IN_WIDTH,
    KERNEL_Y,
    KERNEL_X,
    STRIDE_Y,
    STRIDE_X,
    PAD_TOP,
    PAD_LEFT,
    OUT,
    OUT_NEGATIVES,  # likewise of the output
    ONES,  # [64] counters of 1, then [64] of -1
    COUNTS,
    LARGEST,  # [in y][in x][channel] and [y][x][channel] uint16 that outlast a block, or 0
) = range(0, 8 * 19, 8)
DESCRIPTOR_BYTES = 8 * 19
