"""Kernels that measure the fastest that a core can add weight rows and read memory."""

from __future__ import annotations

from . import vector
from .jit import kernel

__all__ = ["gather", "stream"]


@kernel
def gather(vectors, events, queue, n_events, weights, repeats, out):
    """Add the rows of all events, `repeats` times over; store the sum at `out`."""
    event_bytes = vector.event_bytes(events)
    v = vector.load(vectors, out)
    s = vector.begin(vectors, events, v)
    for _ in range(repeats):
        event = queue
        end = queue + n_events * event_bytes
        while event < end:
            s = vector.add_event(vectors, events, s, weights, event)
            event += event_bytes
    vector.store(vectors, out, vector.merge(vectors, v, s))


@kernel
def stream(vectors, block, n_vectors, out):
    """Add a block's vectors in order; store the sum at `out`."""
    vector_bytes = vector.membrane_bytes(vectors)
    v = vector.load(vectors, out)
    for i in range(n_vectors):
        v = vector.add(vectors, v, vector.load(vectors, block + i * vector_bytes))
    vector.store(vectors, out, v)
