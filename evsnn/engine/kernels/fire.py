"""Neurons that only a constant current charges: the first layer of most networks.

The same steps as `integrate` without events. One position's membranes form one chain of dependent
instructions a step; four positions at once keep the processor busy.
"""

from __future__ import annotations

from . import vector
from .jit import kernel
from .jobs.integrate import (
    COUNTS,
    DRIVE,
    HEIGHT,
    LEAKY,
    MEMBRANES,
    N_STEPS,
    N_TILES,
    NEGATIVES,
    PARAMETERS,
    RESUME,
    SPIKES,
    WIDTH,
    WORD_BYTES,
)
from .layout import PARAMETER_ROWS
from .memory import load_i64

__all__ = ["fire"]


@kernel
def fire(fmt, job, tile_from, tile_to, y_from, y_to):
    """Run a block of steps for the tiles and rows of a population without synapses; jobs are
    `integrate`'s.
    """
    n_steps, width = load_i64(job + N_STEPS), load_i64(job + WIDTH)
    n_tiles, word_bytes, leaky = load_i64(job + N_TILES), load_i64(job + WORD_BYTES), load_i64(job + LEAKY)
    membranes, resume, counts = load_i64(job + MEMBRANES), load_i64(job + RESUME), load_i64(job + COUNTS)
    plane_bytes = load_i64(job + NEGATIVES) - load_i64(job + SPIKES)
    vector_bytes = vector.membrane_bytes(fmt)
    step_bytes, position_bytes = load_i64(job + HEIGHT) * width * word_bytes, n_tiles * vector_bytes
    last = y_to * width - 1
    for tile in range(tile_from, tile_to):
        parameters = load_i64(job + PARAMETERS) + PARAMETER_ROWS * tile * vector_bytes
        threshold = vector.load(fmt, parameters + vector_bytes)
        kept, bound = (
            vector.load(fmt, parameters + 3 * vector_bytes),
            vector.load(fmt, parameters + 4 * vector_bytes),
        )
        spikes, drive = (
            load_i64(job + SPIKES) + tile * vector.mask_bytes(fmt),
            load_i64(job + DRIVE) + tile * vector_bytes,
        )
        held, counted, first = (
            membranes + tile * vector_bytes,
            counts + tile * vector_bytes,
            parameters + 2 * vector_bytes,
        )
        for a in range(y_from * width, y_to * width, 4):
            b, c, d = (
                min(a + 1, last),
                min(a + 2, last),
                min(a + 3, last),
            )  # at the end a position may be computed twice, alike
            va = vector.load(fmt, held + a * position_bytes if resume else first)
            vb = vector.load(fmt, held + b * position_bytes if resume else first)
            vc = vector.load(fmt, held + c * position_bytes if resume else first)
            vd = vector.load(fmt, held + d * position_bytes if resume else first)
            na = nb = nc = nd = vector.zero(fmt)
            if resume and vector.signed(fmt):
                na, nb = (
                    vector.load(fmt, counted + a * position_bytes),
                    vector.load(fmt, counted + b * position_bytes),
                )
                nc, nd = (
                    vector.load(fmt, counted + c * position_bytes),
                    vector.load(fmt, counted + d * position_bytes),
                )
            ia, ib = (
                vector.load(fmt, drive + a * position_bytes),
                vector.load(fmt, drive + b * position_bytes),
            )
            ic, id_ = (
                vector.load(fmt, drive + c * position_bytes),
                vector.load(fmt, drive + d * position_bytes),
            )
            out = spikes
            for _ in range(n_steps):
                if leaky:
                    va, vb, vc, vd = (
                        vector.leak(fmt, va, kept),
                        vector.leak(fmt, vb, kept),
                        vector.leak(fmt, vc, kept),
                        vector.leak(fmt, vd, kept),
                    )
                va, vb, vc, vd = (
                    vector.add(fmt, va, ia),
                    vector.add(fmt, vb, ib),
                    vector.add(fmt, vc, ic),
                    vector.add(fmt, vd, id_),
                )
                fa, fb, fc, fd = (
                    vector.mask(fmt, va, threshold),
                    vector.mask(fmt, vb, threshold),
                    vector.mask(fmt, vc, threshold),
                    vector.mask(fmt, vd, threshold),
                )
                vector.store_mask(fmt, out + a * word_bytes, fa)
                vector.store_mask(fmt, out + b * word_bytes, fb)
                vector.store_mask(fmt, out + c * word_bytes, fc)
                vector.store_mask(fmt, out + d * word_bytes, fd)
                if vector.signed(fmt):
                    ba, bb = vector.below(fmt, va, bound, na), vector.below(fmt, vb, bound, nb)
                    bc, bd = vector.below(fmt, vc, bound, nc), vector.below(fmt, vd, bound, nd)
                    vector.store_mask(fmt, out + plane_bytes + a * word_bytes, ba)
                    vector.store_mask(fmt, out + plane_bytes + b * word_bytes, bb)
                    vector.store_mask(fmt, out + plane_bytes + c * word_bytes, bc)
                    vector.store_mask(fmt, out + plane_bytes + d * word_bytes, bd)
                    na, nb, nc, nd = (
                        vector.tally(fmt, na, fa, ba),
                        vector.tally(fmt, nb, fb, bb),
                        vector.tally(fmt, nc, fc, bc),
                        vector.tally(fmt, nd, fd, bd),
                    )
                    va, vb = vector.lift(fmt, va, threshold, ba), vector.lift(fmt, vb, threshold, bb)
                    vc, vd = vector.lift(fmt, vc, threshold, bc), vector.lift(fmt, vd, threshold, bd)
                va, vb = vector.reset(fmt, va, threshold, fa), vector.reset(fmt, vb, threshold, fb)
                vc, vd = vector.reset(fmt, vc, threshold, fc), vector.reset(fmt, vd, threshold, fd)
                out += step_bytes
            if membranes:
                vector.store(fmt, held + a * position_bytes, va)
                vector.store(fmt, held + b * position_bytes, vb)
                vector.store(fmt, held + c * position_bytes, vc)
                vector.store(fmt, held + d * position_bytes, vd)
            if counts and vector.signed(fmt):
                vector.store(fmt, counted + a * position_bytes, na)
                vector.store(fmt, counted + b * position_bytes, nb)
                vector.store(fmt, counted + c * position_bytes, nc)
                vector.store(fmt, counted + d * position_bytes, nd)
