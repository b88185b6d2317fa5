"""The event-driven engine: a plan made ready, and samples run through it.

An `Engine` holds what threads share: packed weights and compiled kernels. A `Workspace` holds what
one sample in flight needs: masks, queues, currents and membranes. Samples run on threads of their
own; a single sample is split over tiles and rows.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np

from ..circuit.populations import INPUT
from .kernels.code import Kernel
from .kernels.layout import LEAST_PLANES
from .plan import MaxPoolPlan, Packed, Plan, aligned, pack, words_of
from .pool_stage import MaxPoolKernels, MaxPoolStage
from .stage import Kernels, Masks, Stage

__all__ = ["Engine", "Workspace", "needed", "pack_masks", "unpack_masks"]


def needed(plan: Plan) -> list[Kernel]:
    """The kernels that a plan runs, each once."""
    of_each = (
        MaxPoolKernels.needed(p, plan.block_steps) if isinstance(p, MaxPoolPlan) else Kernels.needed(p)
        for p in plan.populations
    )
    return [kernel for kernel in dict.fromkeys(itertools.chain.from_iterable(of_each)) if kernel]


class Engine:
    """A plan made ready: weights packed, kernels compiled.

    Parameters
    ----------
    plan : Plan
    progress : callable (done, total), optional
        Called while weights are packed and kernels compiled.
    """

    def __init__(self, plan: Plan, progress: Callable[[int, int], None] | None = None):
        self.plan = plan
        self.times_ms = {"plan": 0.0, "compile": 0.0}
        self.packed: list[Packed | None] = []
        self.kernels: list[Kernels | MaxPoolKernels] = []
        for done, population in enumerate(plan.populations):
            if progress:
                progress(done, len(plan.populations))
            started = time.perf_counter()
            pools = isinstance(population, MaxPoolPlan)
            self.packed.append(None if pools else pack(population))
            packed = time.perf_counter()
            self.kernels.append(
                MaxPoolKernels(population, plan.block_steps) if pools else Kernels(population)
            )
            self.times_ms["plan"] += (packed - started) * 1e3
            self.times_ms["compile"] += (time.perf_counter() - packed) * 1e3


class Workspace:
    """What one sample in flight needs.

    Parameters
    ----------
    engine : Engine
    keep_membranes : bool
        Keep every population's membranes, not only those the plan needs.
    pool : ThreadPoolExecutor, optional
        Threads that share the work of this one sample.
    threads : int
        Of the pool.
    """

    def __init__(
        self,
        engine: Engine,
        keep_membranes: bool = False,
        pool: ThreadPoolExecutor | None = None,
        threads: int = 1,
    ):
        plan = self.plan = engine.plan
        steps = plan.block_steps
        self.masks: Masks = {}
        if not plan.circuit.analog:
            channels, height, width = plan.circuit.input_shape
            self.masks[INPUT, False] = _masks(steps, height, width, words_of(channels))
        queues = aligned(max(p.queue_bytes(steps) for p in plan.neurons))
        planes = aligned(8 * max(LEAST_PLANES, plan.widest_planes))
        self.stages: list[Stage | MaxPoolStage] = []
        for i, p in enumerate(plan.populations):
            fires = p.population.fires
            for negative in [False] * fires + [True] * p.population.signed:
                self.masks[i, negative] = _masks(steps, *p.population.shape[1:], p.words)
            if isinstance(p, MaxPoolPlan):
                self.stages.append(
                    MaxPoolStage(
                        p, engine.kernels[i], self.masks, i, steps, plan.keep_membranes, pool, threads
                    )
                )
                continue
            keep = keep_membranes or plan.keep_membranes or not fires
            self.stages.append(
                Stage(
                    p,
                    engine.packed[i],
                    engine.kernels[i],
                    self.masks,
                    i,
                    queues,
                    planes,
                    keep,
                    plan.keep_membranes,
                    pool,
                    threads,
                )
            )
        neurons = [stage for stage in self.stages if isinstance(stage, Stage)]
        for stage, following in zip(neurons, neurons[1:]):
            stage.precede(following)

    def run(
        self,
        sample: np.ndarray,
        watch: Callable[[int, int], None] | None = None,
        stop: Event | None = None,
        read_at: Collection[int] = (),
        read: Callable[[int, np.ndarray], None] | None = None,
    ) -> None:
        """Run all steps of one sample.

        Parameters
        ----------
        sample : (channels, height, width) float32 or integer, or (n_steps, channels, height, width) bool
            The constant current, or the input's spikes.
        watch : callable (first step, number of steps), optional
            Called after each block, while its masks stand.
        stop : threading.Event, optional
            Set by another thread to end the run early; the results are then worthless.
        read_at : collection of int
            Steps after which to read the membranes of a readout that never fires.
        read : callable (step, (channels, height, width) membranes), optional
            Called after each of them; the membranes are the workspace's own.
        """
        n_steps, block = self.plan.circuit.n_steps, self.plan.block_steps
        analog = self.plan.circuit.analog
        for stage in self.stages:
            stage.start(sample if analog else None)
        for first in range(0, n_steps, block):
            steps = min(block, n_steps - first)
            if not analog:
                self.masks[INPUT, False][:steps] = pack_masks(sample[first : first + steps])
            for stage in self.stages[:-1]:
                if stop and stop.is_set():
                    return
                stage.run(steps, resume=first > 0)
            if stop and stop.is_set():
                return
            self._run_last(first, steps, read_at, read)
            if watch:
                watch(first, steps)

    def _run_last(
        self,
        first: int,
        n_steps: int,
        read_at: Collection[int],
        read: Callable[[int, np.ndarray], None] | None,
    ) -> None:
        """A block of the last population: in pieces that end where its membranes are read, so that layers
        before it keep their whole blocks.
        """
        stage = self.stages[-1]
        cuts = [0, *(step - first for step in sorted(read_at) if first < step < first + n_steps), n_steps]
        for begin, end in zip(cuts, cuts[1:]):
            stage.run(end - begin, resume=first + begin > 0, first=begin)
            if read and first + end in read_at:
                read(first + end, stage.v_mem)

    def spikes(self, population: int, n_steps: int) -> np.ndarray:
        """The last block's spikes (n_steps, channels, height, width) bool of a population, int8 where it is
        signed; none of a readout.
        """
        shape = self.plan.circuit.populations[population].shape
        if (population, False) not in self.masks:
            return np.zeros((n_steps, *shape), bool)
        planes = [
            unpack_masks(self.masks[population, negative][:n_steps], shape[0])
            for negative in (False, True)
            if (population, negative) in self.masks
        ]
        return planes[0] if len(planes) == 1 else planes[0].astype(np.int8) - planes[1]


def _masks(n_steps: int, height: int, width: int, words: int) -> np.ndarray:
    return (
        aligned(n_steps * height * width * words * 8).view(np.uint64).reshape(n_steps, height, width, words)
    )


def pack_masks(spikes: np.ndarray) -> np.ndarray:
    """Spikes (n_steps, channels, height, width) bool as masks (n_steps, height, width, words) uint64."""
    n_steps, channels, height, width = spikes.shape
    padded = np.zeros((n_steps, height, width, 64 * words_of(channels)), bool)
    padded[..., :channels] = spikes.transpose(0, 2, 3, 1)
    return np.packbits(padded, axis=-1, bitorder="little").view(np.uint64)


def unpack_masks(masks: np.ndarray, channels: int) -> np.ndarray:
    """Masks (n_steps, height, width, words) as spikes (n_steps, channels, height, width) bool."""
    bits = np.unpackbits(np.ascontiguousarray(masks).view(np.uint8), axis=-1, bitorder="little")
    return bits[..., :channels].astype(bool).transpose(0, 3, 1, 2)
