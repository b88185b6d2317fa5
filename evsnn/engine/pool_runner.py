"""One max pool in one workspace: its arrays, the descriptors that point to them, and its counts of spikes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .kernels.code import Kernel, specialise
from .kernels.descriptors import maxpool
from .kernels.selectors import Vectors
from .plan import MaxPoolPlan
from .runner import COUNT_SPIKES, Descriptor, Masks, Runner
from .state import PoolState

__all__ = ["MaxPoolKernels", "MaxPoolRunner"]


class MaxPoolKernels:
    """The compiled kernels of one max pool."""

    def __init__(self, p: MaxPoolPlan, block_steps: int):
        self.maxpool, self.count, self.count_spikes = map(specialise, self.needed(p, block_steps))

    @staticmethod
    def needed(p: MaxPoolPlan, block_steps: int) -> list[Kernel]:
        """The kernels that pool, that keep counts for the next block, and that count spikes."""
        element = p.counter(block_steps)
        counters = Vectors(element, element, "int8", 64, p.population.has_negative_spikes)
        return [
            Kernel("maxpool.maxpool", (counters,), 6),
            Kernel("maxpool.count", (counters,), 5),
            COUNT_SPIKES,
        ]


class MaxPoolRunner(Runner[MaxPoolPlan]):
    """One max pool in one workspace.

    Parameters
    ----------
    p : MaxPoolPlan
    kernels : MaxPoolKernels
    masks : Masks
    own : int
        Its index among the populations.
    block_steps : int
    state : PoolState
        The first one that it is bound to; see `bind`.
    executor, threads
        As for `Runner`.
    """

    def __init__(
        self,
        p: MaxPoolPlan,
        kernels: MaxPoolKernels,
        masks: Masks,
        own: int,
        block_steps: int,
        state: PoolState,
        executor: ThreadPoolExecutor | None,
        threads: int,
    ):
        super().__init__(p, p.scratch_bytes(block_steps), executor, threads)
        self.kernels = kernels
        source, window = p.population.source, p.population.window
        signs = (False, True) if p.population.has_negative_spikes else (False,)
        inputs, outputs = (
            [masks[source.population, sign] for sign in signs],
            [masks[own, sign] for sign in signs],
        )
        self.in_addresses, self.out_addresses = (
            [plane.ctypes.data for plane in planes] for planes in (inputs, outputs)
        )
        k = maxpool
        ones = np.repeat(np.array([1, -1], p.counter(block_steps)), 64)
        self.descriptor = Descriptor(
            k.DESCRIPTOR_BYTES,
            {
                k.HEIGHT: p.population.shape[1],
                k.WIDTH: p.population.shape[2],
                k.WORD_BYTES: 8 * p.words,
                k.IN_HEIGHT: source.shape[1],
                k.IN_WIDTH: source.shape[2],
                k.KERNEL_Y: window.kernel[0],
                k.KERNEL_X: window.kernel[1],
                k.STRIDE_Y: window.stride[0],
                k.STRIDE_X: window.stride[1],
                k.PAD_TOP: window.padding[0],
                k.PAD_LEFT: window.padding[1],
                k.ONES: ones,
                k.MASKS: inputs[0],
                k.NEGATIVES: inputs[-1],
                k.OUT: outputs[0],
                k.OUT_NEGATIVES: outputs[-1],
            },
        )
        self.bind(state)

    def bind(self, state: PoolState) -> None:
        """Read and write the counts of this state from now on."""
        self.state = state
        arrays = ((maxpool.COUNTS, state.received), (maxpool.LARGEST, state.largest))
        self.descriptor.set({offset: 0 if array is None else array for offset, array in arrays})

    def start(self, sample: np.ndarray | None) -> None:
        """Begin a sample."""
        self.begin()

    def run(self, n_steps: int, resume: bool, first: int = 0) -> None:
        """Compute a block of steps, always from its first step."""
        started = time.perf_counter()
        self.steps = n_steps
        self.descriptor.put(maxpool.N_STEPS, n_steps)
        self._split(
            self.kernels.maxpool, self.descriptor.address, self.plan.population.shape[1], scratch=True
        )
        if self.state.received is not None:
            self._split(
                self.kernels.count,
                self.descriptor.address,
                self.plan.population.source.shape[1],
                scratch=False,
            )
        for address in self.in_addresses:
            self.n_events += self.kernels.count_spikes(
                address, n_steps * self.plan.in_positions * self.plan.words
            )
        for address in self.out_addresses:
            self.n_spikes += self.kernels.count_spikes(
                address, n_steps * self.plan.positions * self.plan.words
            )
        self.seconds += time.perf_counter() - started
