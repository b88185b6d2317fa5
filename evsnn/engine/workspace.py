"""The event-driven engine: packed weights, compiled kernels, and workspaces that run samples.

An `Engine` holds what threads share: packed weights and compiled kernels. A `Workspace` holds what computes
one sample: masks, queues and runners. A `State` is where a run is: a workspace starts it, advances it by
blocks of steps, and may then be bound to another state. Each sample runs on a thread of its own; a single
sample is split over tiles and rows.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np

from ..circuit.populations import INPUT
from ..parallel import in_parallel
from .kernels.code import Kernel
from .kernels.layout import LEAST_PLANES
from .pack import Packed, pack
from .plan import Component, MaxPoolPlan, Plan, PopulationPlan, aligned, mask_words
from .pool_runner import MaxPoolKernels, MaxPoolRunner
from .runner import Kernels, LayerRunner, Masks
from .state import State

__all__ = ["Engine", "Workspace", "needed", "pack_masks", "unpack_masks"]

_PACKED = 1 << 20  # spikes that are brought to masks at once


def needed(plan: Plan) -> list[Kernel]:
    """The kernels that a plan needs, each once."""
    of_each = (
        MaxPoolKernels.needed(p, plan.block_steps) if isinstance(p, MaxPoolPlan) else Kernels.needed(p)
        for p in plan.populations
    )
    return list(dict.fromkeys(itertools.chain.from_iterable(of_each)))


class Engine:
    """What a plan needs to run: packed weights and compiled kernels.

    Parameters
    ----------
    plan : Plan
    progress : callable (done, total), optional
        It is called while weights are packed and kernels are compiled.
    """

    def __init__(self, plan: Plan, progress: Callable[[int, int], None] | None = None):
        self.plan = plan
        self.times_ms = {"plan": 0.0, "compile": 0.0}
        started = time.perf_counter()
        neurons = {i: p for i, p in enumerate(plan.populations) if isinstance(p, PopulationPlan)}
        packed = dict(zip(neurons, in_parallel(pack, list(neurons.values()))))
        self.times_ms["plan"] += (time.perf_counter() - started) * 1e3
        self.layers: dict[int, tuple[Packed, Kernels]] = {}
        self.pools: dict[int, MaxPoolKernels] = {}
        for done, population in enumerate(plan.populations):
            if progress:
                progress(done, len(plan.populations))
            started = time.perf_counter()
            if isinstance(population, MaxPoolPlan):
                self.pools[done] = MaxPoolKernels(population, plan.block_steps)
            else:
                self.layers[done] = packed[done], Kernels(population)
            self.times_ms["compile"] += (time.perf_counter() - started) * 1e3


class Workspace:
    """What computes one sample at a time: masks, queues, and runners that are bound to a state.

    Parameters
    ----------
    engine : Engine
    keep_membranes : bool
        Whether its own state holds the membranes of every population, not only those that the plan needs.
    executor : ThreadPoolExecutor, optional
        The threads that share the work of this one sample.
    threads : int
        Their number.

    Attributes
    ----------
    state : State
        The state that it is bound to; at first its own.
    runners : list of LayerRunner or MaxPoolRunner
        One per population; they count spikes, events, operations and seconds since the last `start` or
        `resume`.
    """

    def __init__(
        self,
        engine: Engine,
        keep_membranes: bool = False,
        executor: ThreadPoolExecutor | None = None,
        threads: int = 1,
    ):
        plan = self.plan = engine.plan
        steps = plan.block_steps
        self.masks: Masks = {}
        if not plan.circuit.analog:
            channels, height, width = plan.circuit.input_shape
            self.masks[INPUT, False] = _masks(steps, height, width, mask_words(channels))
        queues = aligned(max(p.queue_bytes(steps) for p in plan.neurons))
        planes = aligned(8 * max(LEAST_PLANES, plan.widest_planes))
        self.own_state = self.state = State(plan, plan.carries, keep_membranes)
        self.runners: list[LayerRunner | MaxPoolRunner] = []
        for i, p in enumerate(plan.populations):
            for negative in [False] * p.population.fires + [True] * p.population.has_negative_spikes:
                self.masks[i, negative] = _masks(steps, *p.population.shape[1:], p.words)
            if isinstance(p, MaxPoolPlan):
                counts = self.state.pool(i)
                self.runners.append(
                    MaxPoolRunner(p, engine.pools[i], self.masks, i, steps, counts, executor, threads)
                )
            else:
                own, ready = self.state.layer(i), engine.layers[i]
                self.runners.append(
                    LayerRunner(p, *ready, self.masks, i, queues, planes, own, executor, threads)
                )
        neurons = [runner for runner in self.runners if isinstance(runner, LayerRunner)]
        for runner, following in zip(neurons, neurons[1:]):
            runner.precede(following)

    def bind(self, state: State) -> None:
        """Read and write this state from now on; it belongs to a plan of the same circuit."""
        if state is not self.state:
            self.state = state
            for i, runner in enumerate(self.runners):
                if isinstance(runner, LayerRunner):
                    runner.bind(state.layer(i))
                else:
                    runner.bind(state.pool(i))

    def start(self, sample: np.ndarray | None) -> None:
        """Begin a sample in the state that the workspace is bound to.

        Parameters
        ----------
        sample : (channels, height, width) float32 or integer, optional
            The constant current; None if the input is spikes.
        """
        self.state.reset()
        for runner in self.runners:
            runner.start(sample)

    def resume(self) -> None:
        """Go on with the state that the workspace is bound to; counts of spikes and events begin at 0."""
        for runner in self.runners:
            runner.begin()

    def advance(
        self,
        n_steps: int,
        spikes: np.ndarray | None = None,
        watch: Callable[[int, int], None] | None = None,
        stop: Event | None = None,
        record_steps: Collection[int] = (),
        read: Callable[[int, int, np.ndarray], None] | None = None,
    ) -> None:
        """Run steps, block by block, and within a block component by component.

        Parameters
        ----------
        n_steps : int
        spikes : (n_steps, channels, height, width) bool, optional
            The spikes of the input; None for a constant current.
        watch : callable (first step, number of steps), optional
            It is called after each block, while its masks are valid. Steps count from the start of the run.
        stop : threading.Event, optional
            Another thread sets it to end the run early; results are then incomplete.
        record_steps : collection of int
            Steps, counted from the start of the run, after which `read` is called, if readouts never fire.
        read : callable (population, step, (channels, height, width) membranes), optional
            It is called with each readout's membranes, which are the state's own array.
        """
        state, begin = self.state, self.state.step
        end, readouts = begin + n_steps, self.plan.circuit.readouts
        while state.step < end:
            first, steps = state.step, min(self.plan.block_steps, end - state.step)
            if spikes is not None:
                pack_masks(spikes[first - begin : first - begin + steps], self.masks[INPUT, False])
            for component in self.plan.components:
                if stop and stop.is_set():
                    return
                if record_steps and component.populations[-1] in readouts:
                    self._run_in_pieces(component, first, steps, record_steps, read)
                else:
                    for i in component.populations:
                        self.runners[i].run(steps, resume=first > 0)
            state.step += steps
            if watch:
                watch(first, steps)

    def run(self, sample: np.ndarray, **options) -> None:
        """Run all steps of one sample, in the workspace's own state: `start`, then `advance`.

        Parameters
        ----------
        sample : (channels, height, width) float32 or integer, or (n_steps, channels, height, width) bool
            The constant current, or the input's spikes.
        **options
            Those of `advance`.
        """
        analog = self.plan.circuit.analog
        self.bind(self.own_state)
        self.start(sample if analog else None)
        self.advance(self.plan.circuit.n_steps, None if analog else sample, **options)

    def _run_in_pieces(
        self,
        component: Component,
        first: int,
        n_steps: int,
        record_steps: Collection[int],
        read: Callable[[int, int, np.ndarray], None] | None,
    ) -> None:
        """Run a block of steps of a readout's component, in pieces that end at recorded steps."""
        inside = (step - first for step in sorted(record_steps) if first < step < first + n_steps)
        cuts = [0, *inside, n_steps]
        for begin, end in zip(cuts, cuts[1:]):
            for i in component.populations:
                self.runners[i].run(end - begin, resume=first + begin > 0, first=begin)
            if read and first + end in record_steps:
                readout = component.populations[-1]
                v_mem = self.state.v_mem(readout)
                if v_mem is not None:
                    read(readout, first + end, v_mem)

    def spikes(self, population: int, n_steps: int) -> np.ndarray:
        """The spikes (n_steps, channels, height, width) of a population in the last block.

        They are bool, or int8 if it has negative spikes. A readout that never fires has none.
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


def pack_masks(spikes: np.ndarray, masks: np.ndarray) -> None:
    """Write spikes (n_steps, channels, height, width) bool into masks (n_steps or more, height, width, words)
    uint64, some steps at once.
    """
    used = -(-spikes.shape[1] // 8)
    masks = masks[: len(spikes)].view(np.uint8)
    masks[..., used:] = 0
    at_once = max(1, _PACKED // max(1, spikes[0].size))
    for first in range(0, len(spikes), at_once):
        block = spikes[first : first + at_once].transpose(0, 2, 3, 1)
        masks[first : first + at_once, ..., :used] = np.packbits(block, axis=-1, bitorder="little")


def unpack_masks(masks: np.ndarray, channels: int) -> np.ndarray:
    """Masks (n_steps, height, width, words) as spikes (n_steps, channels, height, width) bool."""
    used = masks.view(np.uint8)[..., : -(-channels // 8)]
    bits = np.unpackbits(used, axis=-1, count=channels, bitorder="little")
    return bits.view(bool).transpose(0, 3, 1, 2)
