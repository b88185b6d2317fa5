"""Fields of the descriptors of `evsnn.engine.kernels.current`: byte offsets of int64, without numba."""

from __future__ import annotations

# Fields of a descriptor, int64 each.
(
    HEIGHT,
    WIDTH,  # of the output map
    N_TILES,
    BIAS,
    BIAS_STRIDE,  # [tile] rows of lanes, and the bytes from tile to tile
    OUT,  # [y][x][tile][lane]
    BRANCHES,
    N_BRANCHES,
    SHIFTS,
    SHIFTS_STRIDE,  # [tile][half a unit, right, left][lane], or 0; the bytes from tile to tile
) = range(0, 8 * 10, 8)
DESCRIPTOR_BYTES = 8 * 10

# A branch: a dense convolution of the analog input.
(
    B_VALUES,  # [y][x][channel], elements as wide as membranes
    B_HEIGHT,
    B_WIDTH,
    B_CHANNELS,
    B_WEIGHTS,
    B_TILE_BYTES,  # [tile][ky][kx][channel][lane]
    B_KERNEL_HEIGHT,
    B_KERNEL_WIDTH,
    B_STRIDE_Y,
    B_STRIDE_X,
    B_PAD_TOP,
    B_PAD_LEFT,
    B_DILATION_Y,
    B_DILATION_X,
) = range(0, 8 * 14, 8)
BRANCH_BYTES = 8 * 14
