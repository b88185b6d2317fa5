"""Max pools: spike masks -> the spikes by which the largest count of each window grows.

Output-stationary as `integrate`: for 64 channels of an output position the inputs of the window are
taken one after another, each with a vector of counters that runs through all steps of the block; in
scratch memory stands, for each step, the largest count met. Where that grows, the output spikes.

Counters are narrow because they are relative. At the start of a block the largest count of a window
is 0 and an input that lies k spikes behind starts from -k; one that lies too far behind to overtake
within the block starts from where it could just draw level, which does not change the largest. What
lasts from block to block are the counts of all inputs and the largest of all windows, 16 bits each,
modulo 2^16: a difference of two is exact until it reaches 65536, at the end of the longest run.

A negative spike lowers a count; where the largest falls, the output sends a negative spike. In a step
a count moves by one at most, and so does the largest.
"""

from __future__ import annotations

from . import vector
from .jit import inner, kernel
from .jobs.maxpool import (
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
from .layout import COUNTS_PER_MASK
from .memory import load_i64

__all__ = ["count", "maxpool"]


@inner
def start(fmt, counts, largest, n_steps):
    """An input's counters at the start of a block, relative to the window's largest; there may be none to
    start from.
    """
    farthest = (
        2 * n_steps if vector.signed(fmt) else n_steps
    )  # an input may rise by a block while the largest falls by one
    return vector.behind(fmt, counts, largest, farthest) if counts else vector.zero(fmt)


@inner
def counted(fmt, n, mask, to_negative, ones):
    """Counters after a step's spikes, given the mask's address and the way to that of negative ones."""
    n = vector.add_masked(fmt, n, mask, ones)
    return (
        vector.add_masked(fmt, n, mask + to_negative, ones + vector.membrane_bytes(fmt))
        if vector.signed(fmt)
        else n
    )


@kernel
def maxpool(fmt, job, word_from, word_to, y_from, y_to, scratch):
    """Pool a block of steps for words of 64 channels and rows of the output.

    `scratch` has room for a vector of counters a step. Three inputs of a row run side by side: where
    fewer are left, one is taken twice, which does not change the largest.
    """
    n_steps, width, word_bytes = load_i64(job + N_STEPS), load_i64(job + WIDTH), load_i64(job + WORD_BYTES)
    in_height, in_width = load_i64(job + IN_HEIGHT), load_i64(job + IN_WIDTH)
    counts, ones, vector_bytes = load_i64(job + COUNTS), load_i64(job + ONES), vector.membrane_bytes(fmt)
    step_bytes, in_step_bytes = load_i64(job + HEIGHT) * width * word_bytes, in_height * in_width * word_bytes
    to_negative, out_to_negative = (
        load_i64(job + NEGATIVES) - load_i64(job + MASKS),
        load_i64(job + OUT_NEGATIVES) - load_i64(job + OUT),
    )
    one = vector.load(fmt, ones)
    for y in range(y_from, y_to):
        top = y * load_i64(job + STRIDE_Y) - load_i64(job + PAD_TOP)
        bottom = min(top + load_i64(job + KERNEL_Y), in_height)
        top = max(top, 0)
        for x in range(width):
            left = x * load_i64(job + STRIDE_X) - load_i64(job + PAD_LEFT)
            last = min(left + load_i64(job + KERNEL_X), in_width) - 1
            left = max(left, 0)
            for word in range(word_from, word_to):
                here = (y * width + x) * word_bytes + 8 * word
                largest = load_i64(job + LARGEST) + COUNTS_PER_MASK * here
                first = True
                for wy in range(top, bottom):
                    line = wy * in_width * word_bytes + 8 * word
                    for wx in range(left, last + 1, 3):
                        a, b, c = (
                            line + wx * word_bytes,
                            line + min(wx + 1, last) * word_bytes,
                            line + min(wx + 2, last) * word_bytes,
                        )
                        n_a = start(fmt, counts and counts + COUNTS_PER_MASK * a, largest, n_steps)
                        n_b = start(fmt, counts and counts + COUNTS_PER_MASK * b, largest, n_steps)
                        n_c = start(fmt, counts and counts + COUNTS_PER_MASK * c, largest, n_steps)
                        masks, at = load_i64(job + MASKS), scratch
                        for _ in range(n_steps):
                            n_a, n_b = (
                                counted(fmt, n_a, masks + a, to_negative, ones),
                                counted(fmt, n_b, masks + b, to_negative, ones),
                            )
                            n_c = counted(fmt, n_c, masks + c, to_negative, ones)
                            most = vector.maximum(fmt, vector.maximum(fmt, n_a, n_b), n_c)
                            vector.store(
                                fmt, at, most if first else vector.maximum(fmt, vector.load(fmt, at), most)
                            )
                            masks += in_step_bytes
                            at += vector_bytes
                        first = False
                before, at, out = vector.zero(fmt), scratch, load_i64(job + OUT) + here
                for _ in range(n_steps):
                    most = vector.load(fmt, at)
                    vector.store_mask(fmt, out, vector.mask(fmt, most, vector.add(fmt, before, one)))
                    if vector.signed(fmt):
                        vector.store_mask(
                            fmt, out + out_to_negative, vector.mask(fmt, before, vector.add(fmt, most, one))
                        )
                    before = most
                    at += vector_bytes
                    out += step_bytes
                if counts:
                    vector.add_counts(fmt, largest, before)


@kernel
def count(fmt, job, word_from, word_to, y_from, y_to):
    """Add a block's spikes to the counts that last, for words of 64 channels and rows of the inputs."""
    n_steps, in_width, word_bytes = (
        load_i64(job + N_STEPS),
        load_i64(job + IN_WIDTH),
        load_i64(job + WORD_BYTES),
    )
    step_bytes, to_negative = (
        load_i64(job + IN_HEIGHT) * in_width * word_bytes,
        load_i64(job + NEGATIVES) - load_i64(job + MASKS),
    )
    for position in range(y_from * in_width, y_to * in_width):
        for word in range(word_from, word_to):
            here = position * word_bytes + 8 * word
            n, mask = vector.zero(fmt), load_i64(job + MASKS) + here
            for _ in range(n_steps):
                n = counted(fmt, n, mask, to_negative, load_i64(job + ONES))
                mask += step_bytes
            vector.add_counts(fmt, load_i64(job + COUNTS) + COUNTS_PER_MASK * here, n)
