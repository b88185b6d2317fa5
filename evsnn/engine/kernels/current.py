"""The current of the analog input, computed once per sample.

Sums run over branches in order, within a branch over (ky, kx, channel) ascending, then the bias is added.
Products and sums are rounded one by one. Inputs that are 0 are skipped, which changes no bit: the sum starts
at +0.0 and so is never -0.0.
"""

from __future__ import annotations

from . import vector
from .descriptors.current import (
    B_CHANNELS,
    B_DILATION_X,
    B_DILATION_Y,
    B_HEIGHT,
    B_KERNEL_HEIGHT,
    B_KERNEL_WIDTH,
    B_PAD_LEFT,
    B_PAD_TOP,
    B_STRIDE_X,
    B_STRIDE_Y,
    B_TILE_BYTES,
    B_VALUES,
    B_WEIGHTS,
    B_WIDTH,
    BIAS,
    BIAS_STRIDE,
    BRANCH_BYTES,
    BRANCHES,
    N_BRANCHES,
    N_TILES,
    OUT,
    SHIFTS,
    SHIFTS_STRIDE,
    WIDTH,
)
from .jit import kernel
from .memory import load_i32, load_i64

__all__ = ["current"]


@kernel
def current(vectors, descriptor, tile_from, tile_to, y_from, y_to):
    """Write the current of the given tiles and rows."""
    width, n_tiles = load_i64(descriptor + WIDTH), load_i64(descriptor + N_TILES)
    vector_bytes, row_bytes = vector.membrane_bytes(vectors), vector.row_bytes(vectors)
    value_bytes = 8 * vector_bytes // (8 * 8 * vector.mask_bytes(vectors))
    for tile in range(tile_from, tile_to):
        for y in range(y_from, y_to):
            for x in range(width):
                v = vector.zero(vectors)
                branch = load_i64(descriptor + BRANCHES)
                for _ in range(load_i64(descriptor + N_BRANCHES)):
                    kernel_height, kernel_width = (
                        load_i64(branch + B_KERNEL_HEIGHT),
                        load_i64(branch + B_KERNEL_WIDTH),
                    )
                    channels, source_width = load_i64(branch + B_CHANNELS), load_i64(branch + B_WIDTH)
                    weights = load_i64(branch + B_WEIGHTS) + tile * load_i64(branch + B_TILE_BYTES)
                    for ky in range(kernel_height):
                        source_y = (
                            y * load_i64(branch + B_STRIDE_Y)
                            - load_i64(branch + B_PAD_TOP)
                            + ky * load_i64(branch + B_DILATION_Y)
                        )
                        if source_y < 0 or source_y >= load_i64(branch + B_HEIGHT):
                            continue
                        for kx in range(kernel_width):
                            source_x = (
                                x * load_i64(branch + B_STRIDE_X)
                                - load_i64(branch + B_PAD_LEFT)
                                + kx * load_i64(branch + B_DILATION_X)
                            )
                            if source_x < 0 or source_x >= source_width:
                                continue
                            value = (
                                load_i64(branch + B_VALUES)
                                + (source_y * source_width + source_x) * channels * value_bytes
                            )
                            row = weights + (ky * kernel_width + kx) * channels * row_bytes
                            for _ in range(channels):
                                if (
                                    value_bytes == 2 or load_i32(value) & 0x7FFFFFFF
                                ):  # 0.0, -0.0 and 0 add nothing
                                    v = vector.add_product(vectors, v, value, row)
                                value += value_bytes
                                row += row_bytes
                    branch += BRANCH_BYTES
                if vector.has_shifts(vectors):
                    shifts = load_i64(descriptor + SHIFTS) + tile * load_i64(descriptor + SHIFTS_STRIDE)
                    v = vector.add(vectors, v, vector.load(vectors, shifts))
                    right = vector.load(vectors, shifts + vector_bytes)
                    v = vector.shift(vectors, v, right, vector.load(vectors, shifts + 2 * vector_bytes))
                v = vector.add(
                    vectors,
                    v,
                    vector.load(
                        vectors, load_i64(descriptor + BIAS) + tile * load_i64(descriptor + BIAS_STRIDE)
                    ),
                )
                vector.store(
                    vectors, load_i64(descriptor + OUT) + ((y * width + x) * n_tiles + tile) * vector_bytes, v
                )
