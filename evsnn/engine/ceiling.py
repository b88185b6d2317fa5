"""The ceilings of a core: how fast it can add weight rows to a vector, and how fast it can read weights.

An event costs at least the load of its id, the load of its row and the additions. `Gather` does only these,
for random rows of a block as large as a layer's tile, so that the block lies in the same cache, with the same
vector type and event format as evsnn's kernels. A layer must also fetch its weights once per sample, from
wherever they are after all other layers have run. `Stream` reads a block as large as all weights of a network
from end to end. Layers are compared with both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from .kernels.code import Kernel, specialise, store
from .kernels.selectors import Events, Vectors
from .plan import aligned

__all__ = ["BEST", "Gather", "Stream", "measured_ceiling"]

BEST = {
    "float32": Vectors("float32", "float32", "float32", 64),
    "int8": Vectors("int16", "int16", "int8", 128),
}
"""The vectors with which an arithmetic is fastest. Ceilings are measured with them."""

LEAST_EVENTS = 4_096
CALL_MS = 2.0
CALLS = 5
_LEAST_BLOCK, _LARGEST_BLOCK = 1 << 13, 1 << 24


def measured_ceiling(arithmetic: str, block_bytes: int) -> float:
    """The additions per nanosecond (GSOP/s) that this core can reach, for weight blocks of about that size.

    Sizes are rounded up to powers of 2. The number is measured once, and kept beside the kernels' machine
    code for the same CPU and versions.

    Parameters
    ----------
    arithmetic : {"float32", "int8"}
    block_bytes : int
        The bytes of a layer's tile.

    Returns
    -------
    float
        10^9 additions per second.
    """
    size = min(max(_LEAST_BLOCK, 1 << (block_bytes - 1).bit_length()), _LARGEST_BLOCK)
    name = f"{arithmetic} {size}"
    known = store().notes("ceilings")
    if name not in known:
        measured = Gather(arithmetic, size)
        known = known | {name: max(measured.gsops() for _ in range(CALLS))}
        store().note("ceilings", known)
    return known[name]


@dataclass(frozen=True)
class _Arrays:
    weights: np.ndarray
    queue: np.ndarray
    out: np.ndarray


class Gather:
    """The ceiling of one arithmetic for weight blocks of one size.

    Parameters
    ----------
    arithmetic : {"float32", "int8"}
    block_bytes : int
        The bytes of a layer's tile: kernel positions times input channels times lanes.
    seed : int
    """

    def __init__(self, arithmetic: str, block_bytes: int, seed: int = 0):
        vectors, events = BEST[arithmetic], Events(16)
        rows = min(max(1, block_bytes // vectors.row_bytes), 1 << 16)
        n_events = max(rows, LEAST_EVENTS)
        rng = np.random.default_rng(seed)
        queue = aligned(2 * n_events).view(np.uint16)
        queue[:] = np.concatenate([rng.permutation(rows) for _ in range(-(-n_events // rows))])[:n_events]
        self._arrays = _Arrays(aligned(rows * vectors.row_bytes), queue, aligned(vectors.membrane_bytes))
        self._arrays.weights[:] = 1  # else all its pages are the one page of zeros
        self._addresses = tuple(
            array.ctypes.data for array in (self._arrays.queue, self._arrays.weights, self._arrays.out)
        )
        self._gather = specialise(Kernel("ceiling.gather", (vectors, events), 5))
        self._additions = n_events * vectors.lanes
        self._n_events, self._repeats = n_events, 1
        self._call()
        self._repeats = max(1, int(np.ceil(CALL_MS / self._call())))

    def gsops(self) -> float:
        """Additions per nanosecond, measured now."""
        self._call()
        return self._additions * self._repeats / self._call() / 1e6

    def _call(self) -> float:
        queue, weights, out = self._addresses
        start = time.perf_counter_ns()
        self._gather(queue, self._n_events, weights, self._repeats, out)
        return (time.perf_counter_ns() - start) / 1e6


class Stream:
    """The fastest that this core reads a block of `n_bytes` again and again."""

    def __init__(self, arithmetic: str, n_bytes: int):
        vectors = BEST[arithmetic]
        self._vectors = max(1, n_bytes // vectors.membrane_bytes)
        self._n_bytes = self._vectors * vectors.membrane_bytes
        self._block, self._out = aligned(self._n_bytes), aligned(vectors.membrane_bytes)
        self._block[:] = 1  # else all its pages are the one page of zeros
        self._stream = specialise(Kernel("ceiling.stream", (vectors,), 3))
        self.gigabytes_a_second()

    def gigabytes_a_second(self) -> float:
        """Measured now."""
        start = time.perf_counter_ns()
        self._stream(self._block.ctypes.data, self._vectors, self._out.ctypes.data)
        return self._n_bytes / (time.perf_counter_ns() - start)
