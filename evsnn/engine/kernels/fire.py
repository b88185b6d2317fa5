"""Neurons that integrate only a constant current: the first layer of most networks.

They take the same steps as in `integrate`, without events. The membranes of one position are one chain of
dependent instructions, so four positions are computed at once to keep the processor busy.
"""

from __future__ import annotations

from . import vector
from .descriptors.integrate import (
    COUNTS,
    CURRENT,
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
from .jit import kernel
from .layout import PARAMETER_ROWS
from .memory import load_i64

__all__ = ["fire"]


@kernel
def fire(vectors, descriptor, tile_from, tile_to, y_from, y_to):
    """Run a block of steps for tiles and rows of a population without projections.

    The descriptor is that of `integrate`.
    """
    n_steps, width = load_i64(descriptor + N_STEPS), load_i64(descriptor + WIDTH)
    n_tiles, word_bytes, leaky = (
        load_i64(descriptor + N_TILES),
        load_i64(descriptor + WORD_BYTES),
        load_i64(descriptor + LEAKY),
    )
    membranes, resume, counts = (
        load_i64(descriptor + MEMBRANES),
        load_i64(descriptor + RESUME),
        load_i64(descriptor + COUNTS),
    )
    plane_bytes = load_i64(descriptor + NEGATIVES) - load_i64(descriptor + SPIKES)
    vector_bytes = vector.membrane_bytes(vectors)
    step_bytes, position_bytes = load_i64(descriptor + HEIGHT) * width * word_bytes, n_tiles * vector_bytes
    last = y_to * width - 1
    for tile in range(tile_from, tile_to):
        parameters = load_i64(descriptor + PARAMETERS) + PARAMETER_ROWS * tile * vector_bytes
        threshold = vector.load(vectors, parameters + vector_bytes)
        kept, bound = (
            vector.load(vectors, parameters + 3 * vector_bytes),
            vector.load(vectors, parameters + 4 * vector_bytes),
        )
        spikes, current = (
            load_i64(descriptor + SPIKES) + tile * vector.mask_bytes(vectors),
            load_i64(descriptor + CURRENT) + tile * vector_bytes,
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
            )  # at the end a position may be computed twice, with the same result
            va = vector.load(vectors, held + a * position_bytes if resume else first)
            vb = vector.load(vectors, held + b * position_bytes if resume else first)
            vc = vector.load(vectors, held + c * position_bytes if resume else first)
            vd = vector.load(vectors, held + d * position_bytes if resume else first)
            na = nb = nc = nd = vector.zero(vectors)
            if resume and vector.has_negative_spikes(vectors):
                na, nb = (
                    vector.load(vectors, counted + a * position_bytes),
                    vector.load(vectors, counted + b * position_bytes),
                )
                nc, nd = (
                    vector.load(vectors, counted + c * position_bytes),
                    vector.load(vectors, counted + d * position_bytes),
                )
            ia, ib = (
                vector.load(vectors, current + a * position_bytes),
                vector.load(vectors, current + b * position_bytes),
            )
            ic, id_ = (
                vector.load(vectors, current + c * position_bytes),
                vector.load(vectors, current + d * position_bytes),
            )
            out = spikes
            for _ in range(n_steps):
                if leaky:
                    va, vb, vc, vd = (
                        vector.leak(vectors, va, kept),
                        vector.leak(vectors, vb, kept),
                        vector.leak(vectors, vc, kept),
                        vector.leak(vectors, vd, kept),
                    )
                va, vb, vc, vd = (
                    vector.add(vectors, va, ia),
                    vector.add(vectors, vb, ib),
                    vector.add(vectors, vc, ic),
                    vector.add(vectors, vd, id_),
                )
                fa, fb, fc, fd = (
                    vector.mask(vectors, va, threshold),
                    vector.mask(vectors, vb, threshold),
                    vector.mask(vectors, vc, threshold),
                    vector.mask(vectors, vd, threshold),
                )
                vector.store_mask(vectors, out + a * word_bytes, fa)
                vector.store_mask(vectors, out + b * word_bytes, fb)
                vector.store_mask(vectors, out + c * word_bytes, fc)
                vector.store_mask(vectors, out + d * word_bytes, fd)
                if vector.has_negative_spikes(vectors):
                    ba, bb = (
                        vector.negative_mask(vectors, va, bound, na),
                        vector.negative_mask(vectors, vb, bound, nb),
                    )
                    bc, bd = (
                        vector.negative_mask(vectors, vc, bound, nc),
                        vector.negative_mask(vectors, vd, bound, nd),
                    )
                    vector.store_mask(vectors, out + plane_bytes + a * word_bytes, ba)
                    vector.store_mask(vectors, out + plane_bytes + b * word_bytes, bb)
                    vector.store_mask(vectors, out + plane_bytes + c * word_bytes, bc)
                    vector.store_mask(vectors, out + plane_bytes + d * word_bytes, bd)
                    na, nb, nc, nd = (
                        vector.net_count(vectors, na, fa, ba),
                        vector.net_count(vectors, nb, fb, bb),
                        vector.net_count(vectors, nc, fc, bc),
                        vector.net_count(vectors, nd, fd, bd),
                    )
                    va, vb = (
                        vector.undo_reset(vectors, va, threshold, ba),
                        vector.undo_reset(vectors, vb, threshold, bb),
                    )
                    vc, vd = (
                        vector.undo_reset(vectors, vc, threshold, bc),
                        vector.undo_reset(vectors, vd, threshold, bd),
                    )
                va, vb = vector.reset(vectors, va, threshold, fa), vector.reset(vectors, vb, threshold, fb)
                vc, vd = vector.reset(vectors, vc, threshold, fc), vector.reset(vectors, vd, threshold, fd)
                out += step_bytes
            if membranes:
                vector.store(vectors, held + a * position_bytes, va)
                vector.store(vectors, held + b * position_bytes, vb)
                vector.store(vectors, held + c * position_bytes, vc)
                vector.store(vectors, held + d * position_bytes, vd)
            if counts and vector.has_negative_spikes(vectors):
                vector.store(vectors, counted + a * position_bytes, na)
                vector.store(vectors, counted + b * position_bytes, nb)
                vector.store(vectors, counted + c * position_bytes, nc)
                vector.store(vectors, counted + d * position_bytes, nd)
