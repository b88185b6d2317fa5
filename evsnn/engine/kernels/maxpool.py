"""Max pools: spike masks -> a spike whenever the largest count of a window grows.

The loop is output-stationary, as in `integrate`: for 64 channels of an output position, the inputs of the
window are taken one after another, each with a vector of counters that runs through all steps of the block.
Scratch memory holds the largest count so far for each step. When it grows, the output sends a spike.

Counters are narrow because they are relative. At the start of a block the largest count of a window is 0, and
an input that lies k spikes behind starts at -k. An input that is too far behind to overtake within the block
starts at a value from which it can just draw level, which does not change the largest. From block to block,
the counts of all inputs and the largest of all windows are kept, 16 bits each, modulo 2^16: a difference of
two counts is exact until it reaches 65536, at the end of the longest run.

A negative spike lowers a count. When the largest count falls, the output sends a negative spike. In a step a
count changes by one at most, and so does the largest.
"""

from __future__ import annotations

from . import vector
from .descriptors.maxpool import (
    COUNTS,
    HEIGHT,
    IN_HEIGHT,
    IN_WIDTH,
    KERNEL_X,
    KERNEL_Y,
    LARGEST,
    MASKS,
    N_STEPS,
    NEGATIVES,
    ONES,
    OUT,
    OUT_NEGATIVES,
    PAD_LEFT,
    PAD_TOP,
    STRIDE_X,
    STRIDE_Y,
    WIDTH,
    WORD_BYTES,
)
from .jit import inner, kernel
from .layout import COUNTS_PER_MASK
from .memory import load_i64

__all__ = ["count", "maxpool"]


@inner
def start(vectors, counts, largest, n_steps):
    """An input's counters at the start of a block, relative to the window's largest; 0 in the first."""
    farthest = (
        2 * n_steps if vector.has_negative_spikes(vectors) else n_steps
    )  # an input may rise by a block while the largest falls by one
    return vector.behind(vectors, counts, largest, farthest) if counts else vector.zero(vectors)


@inner
def counted(vectors, n, mask, to_negative, ones):
    """Counters after a step's spikes; `to_negative` is the distance to the mask of negative spikes."""
    n = vector.add_masked(vectors, n, mask, ones)
    return (
        vector.add_masked(vectors, n, mask + to_negative, ones + vector.membrane_bytes(vectors))
        if vector.has_negative_spikes(vectors)
        else n
    )


@kernel
def maxpool(vectors, descriptor, word_from, word_to, y_from, y_to, scratch):
    """Pool a block of steps for words of 64 channels and rows of the output.

    `scratch` has room for a vector of counters per step. Three inputs of a row are computed side by side; if
    fewer are left, one is taken twice, which does not change the largest.
    """
    n_steps, width, word_bytes = (
        load_i64(descriptor + N_STEPS),
        load_i64(descriptor + WIDTH),
        load_i64(descriptor + WORD_BYTES),
    )
    in_height, in_width = load_i64(descriptor + IN_HEIGHT), load_i64(descriptor + IN_WIDTH)
    counts, ones, vector_bytes = (
        load_i64(descriptor + COUNTS),
        load_i64(descriptor + ONES),
        vector.membrane_bytes(vectors),
    )
    step_bytes, in_step_bytes = (
        load_i64(descriptor + HEIGHT) * width * word_bytes,
        in_height * in_width * word_bytes,
    )
    to_negative, out_to_negative = (
        load_i64(descriptor + NEGATIVES) - load_i64(descriptor + MASKS),
        load_i64(descriptor + OUT_NEGATIVES) - load_i64(descriptor + OUT),
    )
    one = vector.load(vectors, ones)
    for y in range(y_from, y_to):
        top = y * load_i64(descriptor + STRIDE_Y) - load_i64(descriptor + PAD_TOP)
        bottom = min(top + load_i64(descriptor + KERNEL_Y), in_height)
        top = max(top, 0)
        for x in range(width):
            left = x * load_i64(descriptor + STRIDE_X) - load_i64(descriptor + PAD_LEFT)
            last = min(left + load_i64(descriptor + KERNEL_X), in_width) - 1
            left = max(left, 0)
            for word in range(word_from, word_to):
                here = (y * width + x) * word_bytes + 8 * word
                largest = load_i64(descriptor + LARGEST) + COUNTS_PER_MASK * here
                first = True
                for wy in range(top, bottom):
                    line = wy * in_width * word_bytes + 8 * word
                    for wx in range(left, last + 1, 3):
                        a, b, c = (
                            line + wx * word_bytes,
                            line + min(wx + 1, last) * word_bytes,
                            line + min(wx + 2, last) * word_bytes,
                        )
                        n_a = start(vectors, counts and counts + COUNTS_PER_MASK * a, largest, n_steps)
                        n_b = start(vectors, counts and counts + COUNTS_PER_MASK * b, largest, n_steps)
                        n_c = start(vectors, counts and counts + COUNTS_PER_MASK * c, largest, n_steps)
                        masks, at = load_i64(descriptor + MASKS), scratch
                        for _ in range(n_steps):
                            n_a, n_b = (
                                counted(vectors, n_a, masks + a, to_negative, ones),
                                counted(vectors, n_b, masks + b, to_negative, ones),
                            )
                            n_c = counted(vectors, n_c, masks + c, to_negative, ones)
                            most = vector.maximum(vectors, vector.maximum(vectors, n_a, n_b), n_c)
                            vector.store(
                                vectors,
                                at,
                                most if first else vector.maximum(vectors, vector.load(vectors, at), most),
                            )
                            masks += in_step_bytes
                            at += vector_bytes
                        first = False
                before, at, out = vector.zero(vectors), scratch, load_i64(descriptor + OUT) + here
                for _ in range(n_steps):
                    most = vector.load(vectors, at)
                    vector.store_mask(
                        vectors, out, vector.mask(vectors, most, vector.add(vectors, before, one))
                    )
                    if vector.has_negative_spikes(vectors):
                        vector.store_mask(
                            vectors,
                            out + out_to_negative,
                            vector.mask(vectors, before, vector.add(vectors, most, one)),
                        )
                    before = most
                    at += vector_bytes
                    out += step_bytes
                if counts:
                    vector.add_counts(vectors, largest, before)


@kernel
def count(vectors, descriptor, word_from, word_to, y_from, y_to):
    """Add a block's spikes to the counts that are kept, for words of 64 channels and rows of the inputs."""
    n_steps, in_width, word_bytes = (
        load_i64(descriptor + N_STEPS),
        load_i64(descriptor + IN_WIDTH),
        load_i64(descriptor + WORD_BYTES),
    )
    step_bytes, to_negative = (
        load_i64(descriptor + IN_HEIGHT) * in_width * word_bytes,
        load_i64(descriptor + NEGATIVES) - load_i64(descriptor + MASKS),
    )
    for position in range(y_from * in_width, y_to * in_width):
        for word in range(word_from, word_to):
            here = position * word_bytes + 8 * word
            n, mask = vector.zero(vectors), load_i64(descriptor + MASKS) + here
            for _ in range(n_steps):
                n = counted(vectors, n, mask, to_negative, load_i64(descriptor + ONES))
                mask += step_bytes
            vector.add_counts(vectors, load_i64(descriptor + COUNTS) + COUNTS_PER_MASK * here, n)
