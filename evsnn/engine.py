"""The event-driven engine: a plan's arrays and addresses, handed to the kernels layer by layer.

An `Engine` holds what threads share: packed weights and compiled kernels. A `Workspace` holds what
one sample in flight needs: masks, queues, currents, membranes, and the kernels' jobs that point to
them. Samples run on threads of their own; a single sample is split over tiles and rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import types

from . import reference
from .circuit import INPUT, Source, Synapse
from .kernels import current, integrate, queue, vector
from .kernels.layout import COPY_BYTES, LEAST_PLANES
from .plan import GatherPlan, Packed, Plan, PopulationPlan, TapPlan, aligned, pack, words_of

__all__ = ["Engine", "Workspace"]

_POSITIONS = queue.bit_positions()
_SPLIT_WORK = 8_192  # tiles x positions x steps below which a layer is not worth splitting


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
        self.packed: list[Packed] = []
        self.kernels: list[_Kernels] = []
        for done, population in enumerate(plan.populations):
            if progress:
                progress(done, len(plan.populations))
            started = time.perf_counter()
            self.packed.append(pack(population))
            packed = time.perf_counter()
            self.kernels.append(_Kernels(population))
            self.times_ms["plan"] += (packed - started) * 1e3
            self.times_ms["compile"] += (time.perf_counter() - packed) * 1e3


class _Kernels:
    """The compiled kernels of one population."""

    def __init__(self, p: PopulationPlan):
        fmt = vector.Vectors(p.membrane, p.partial, p.weight_type, p.lanes)
        events = vector.Events(p.id_bits, p.graded)
        self.integrate = integrate.specialise(fmt, events)
        self.build = [queue.specialise(events, g.plain) for g in p.gathers]
        self.current = current.specialise(vector.Vectors(p.membrane, p.membrane, p.weight_type, p.lanes)) if p.population.drives else None
        self.count_spikes = queue.count_spikes.compile((types.int64,) * 2)
        self.count_reaching = queue.count_reaching.compile((types.int64,) * 7) if p.gathers else None
        self.count_events = queue.count_events.compile((types.int64,) * 5) if p.taps or p.gathers else None


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

    def __init__(self, engine: Engine, keep_membranes: bool = False, pool: ThreadPoolExecutor | None = None, threads: int = 1):
        plan = engine.plan
        circuit = plan.circuit
        self.plan = plan
        steps = plan.block_steps
        self.masks: dict[int, np.ndarray] = {}
        if not circuit.analog:
            self.masks[INPUT] = _masks(steps, *circuit.input_shape[1:], words_of(circuit.input_shape[0]))
        self.planes = aligned(8 * max(LEAST_PLANES, plan.widest_planes))
        self.queues = aligned(max(p.queue_bytes(steps) for p in plan.populations))
        self.stages: list[_Stage] = []
        for i, p in enumerate(plan.populations):
            if p.population.v_threshold is not None:
                self.masks[i] = _masks(steps, *p.population.shape[1:], p.words)
            keep = keep_membranes or plan.keep_membranes or p.population.v_threshold is None
            self.stages.append(_Stage(p, engine.packed[i], engine.kernels[i], self.masks, self.masks.get(i), self.queues, self.planes, keep, pool, threads))

    def run(self, sample: np.ndarray, watch: Callable[[int, int], None] | None = None) -> None:
        """Run all steps of one sample.

        Parameters
        ----------
        sample : (channels, height, width) float32 or integer, or (n_steps, channels, height, width) bool
            The constant current, or the input's spikes.
        watch : callable (first step, number of steps), optional
            Called after each block, while its masks stand.
        """
        n_steps, block = self.plan.circuit.n_steps, self.plan.block_steps
        analog = self.plan.circuit.analog
        for stage in self.stages:
            stage.start(sample if analog else None)
        for first in range(0, n_steps, block):
            steps = min(block, n_steps - first)
            if not analog:
                self.masks[INPUT][:steps] = pack_masks(sample[first : first + steps])
            for stage in self.stages:
                stage.run(steps, resume=first > 0)
            if watch:
                watch(first, steps)


    def spikes(self, population: int, n_steps: int) -> np.ndarray:
        """The last block's spikes (n_steps, channels, height, width) bool of a population; none of a readout."""
        shape = self.plan.circuit.populations[population].shape
        if population not in self.masks:
            return np.zeros((n_steps, *shape), bool)
        return unpack_masks(self.masks[population][:n_steps], shape[0])


class _Stage:
    """One population in one workspace: its jobs, its counts."""

    def __init__(self, p: PopulationPlan, packed: Packed, kernels: _Kernels, masks: dict, out: np.ndarray | None, queues: np.ndarray,
                 planes: np.ndarray, keep: bool, pool: ThreadPoolExecutor | None, threads: int):  # fmt: skip
        self.plan, self.packed, self.kernels = p, packed, kernels
        self.masks = out
        element = np.dtype(p.membrane)
        shape = (p.population.shape[1], p.population.shape[2], p.n_tiles * p.lanes)
        self.membranes = aligned(p.padded * element.itemsize).view(element).reshape(shape) if keep else None
        self.drive = aligned(p.padded * element.itemsize).view(element).reshape(shape) if p.population.drives else None
        self.values = [np.zeros((*d.shape[1:], d.shape[0]), element) for d in p.population.drives]
        self.pool = pool if p.n_tiles * p.positions >= threads else None
        self.threads = threads
        self.scratch = [aligned(p.scratch_bytes) for _ in range(threads)]
        self.total = np.zeros(2, np.int64)
        self.n_spikes = self.n_events = self.sops = 0
        self.seconds = 0.0
        self.steps = 0
        self.stream = int(__import__('os').environ.get('STREAM', '1')) and self.packed.weights.nbytes > (1 << 18)
        self._kept: list[np.ndarray] = []  # arrays whose addresses stand in jobs
        self.queues = self._queues(masks, queues, planes)
        self.taps = [_TapSource(t, masks, self._keep) for t in p.taps]
        self.current_job = self._current_job() if p.population.drives else None
        self.job = self._job()

    @property
    def v_mem(self) -> np.ndarray | None:
        """(channels, height, width) membranes, where they are kept."""
        return None if self.membranes is None else self.membranes[..., : self.plan.population.shape[0]].transpose(2, 0, 1)

    def _keep(self, array: np.ndarray) -> int:
        """Hold on to an array; its address."""
        self._kept.append(array)
        return array.ctypes.data

    def _queues(self, masks: dict, memory: np.ndarray, planes: np.ndarray) -> list[_Queue]:
        queues, start = [], 0
        for gather in self.plan.gathers:
            queues.append(_Queue(gather, self.plan, masks, memory, start, planes, self._keep))
            start = queues[-1].end
        return queues

    def _job(self) -> np.ndarray:
        p, k = self.plan, integrate
        synapses = np.zeros(max(1, len(self.queues)) * k.SYNAPSE_BYTES // 8, np.int64)
        row = 0
        for i, q in enumerate(self.queues):
            g = q.gather
            _fill(synapses[i * k.SYNAPSE_BYTES // 8 :], {
                k.S_EVENTS: q.events, k.S_POINTERS: q.pointers, k.S_ROW_BYTES: 4 * g.synapse.shape[2],
                k.S_STEP_BYTES: 4 * g.synapse.shape[1] * g.synapse.shape[2],
                k.S_COLUMNS: self._keep(g.column_table), k.S_ROWS: self._keep(g.row_table), k.S_DILATION: g.synapse.dilation[0],
                k.S_KERNEL_ROW: g.synapse.kernel[1] * g.part_channels, k.S_FIRST_ROW: row,
            })  # fmt: skip
            row += g.rows
        taps = np.zeros(max(1, len(self.taps)) * k.TAP_BYTES // 8, np.int64)
        for i, (t, weights) in enumerate(zip(self.taps, self.packed.taps)):
            s = t.synapse
            _fill(taps[i * k.TAP_BYTES // 8 :], {
                k.P_MASKS: t.masks.ctypes.data, k.P_STEP_BYTES: t.masks.strides[0], k.P_ROW_BYTES: t.masks.strides[1], k.P_WORD_BYTES: t.masks.strides[2],
                k.P_WEIGHTS: self._keep(weights), k.P_KERNEL_HEIGHT: s.kernel[0], k.P_KERNEL_WIDTH: s.kernel[1],
                k.P_STRIDE_Y: s.stride[0], k.P_STRIDE_X: s.stride[1], k.P_PAD_TOP: s.padding[0], k.P_PAD_LEFT: s.padding[1],
                k.P_DILATION_Y: s.dilation[0], k.P_DILATION_X: s.dilation[1], k.P_HEIGHT: s.shape[1], k.P_WIDTH: s.shape[2],
            })  # fmt: skip
        job = np.zeros(k.JOB_BYTES // 8, np.int64)
        _fill(job, {
            k.HEIGHT: p.population.shape[1], k.WIDTH: p.population.shape[2], k.N_TILES: p.n_tiles,
            k.WEIGHTS: self.packed.weights.ctypes.data, k.TILE_BYTES: self.packed.weights.strides[0], k.TILE_ROWS: p.tile_rows, k.PARAMETERS: self.packed.parameters.ctypes.data,
            k.DRIVE: 0 if self.drive is None else self.drive.ctypes.data,
            k.MEMBRANES: 0 if self.membranes is None else self.membranes.ctypes.data,
            k.SPIKES: 0 if self.masks is None else self.masks.ctypes.data, k.WORD_BYTES: 0 if self.masks is None else self.masks.strides[2],
            k.LEAKY: p.population.leak < 1, k.BUDGET: p.budget,
            k.SYNAPSES: self._keep(synapses), k.N_SYNAPSES: len(self.queues), k.TAPS: self._keep(taps), k.N_TAPS: len(self.taps),
        })  # fmt: skip
        self.synapses = synapses
        return job

    def _current_job(self) -> np.ndarray:
        p, k = self.plan, current
        branches = np.zeros(len(self.values) * k.BRANCH_BYTES // 8, np.int64)
        for i, (d, values, weights) in enumerate(zip(p.population.drives, self.values, self.packed.drives)):
            _fill(branches[i * k.BRANCH_BYTES // 8 :], {
                k.B_VALUES: values.ctypes.data, k.B_HEIGHT: d.shape[1], k.B_WIDTH: d.shape[2], k.B_CHANNELS: d.shape[0],
                k.B_WEIGHTS: weights.ctypes.data, k.B_TILE_BYTES: weights.strides[0], k.B_KERNEL_HEIGHT: d.kernel[0], k.B_KERNEL_WIDTH: d.kernel[1],
                k.B_STRIDE_Y: d.stride[0], k.B_STRIDE_X: d.stride[1], k.B_PAD_TOP: d.padding[0], k.B_PAD_LEFT: d.padding[1],
                k.B_DILATION_Y: d.dilation[0], k.B_DILATION_X: d.dilation[1],
            })  # fmt: skip
        job = np.zeros(k.JOB_BYTES // 8, np.int64)
        _fill(job, {
            k.HEIGHT: p.population.shape[1], k.WIDTH: p.population.shape[2], k.N_TILES: p.n_tiles,
            k.BIAS: self.packed.parameters.ctypes.data, k.BIAS_STRIDE: self.packed.parameters.strides[0],
            k.OUT: self.drive.ctypes.data, k.BRANCHES: self._keep(branches), k.N_BRANCHES: len(self.values),
        })  # fmt: skip
        return job

    def start(self, sample: np.ndarray | None) -> None:
        """Begin a sample: compute the current it brings here."""
        started = time.perf_counter()
        self.n_spikes = self.n_events = self.sops = 0
        if self.drive is not None:
            for d, values in zip(self.plan.population.drives, self.values):
                seen = [reference.pooled_input(source, sample[None])[0] for source in d.sources]
                values[...] = np.concatenate(seen).transpose(1, 2, 0) if len(seen) > 1 else seen[0].transpose(1, 2, 0)
            self._split(self.kernels.current, self.current_job.ctypes.data, False)
        self.seconds = time.perf_counter() - started

    def run(self, n_steps: int, resume: bool) -> None:
        """A block of steps."""
        started = time.perf_counter()
        if n_steps != self.steps:
            self._set_steps(n_steps)
        self.job[integrate.RESUME // 8] = resume
        total = self.total.ctypes.data
        rows_read = 0
        for q, build in zip(self.queues, self.kernels.build):
            build(q.job_address)
            if q.countable:
                self.kernels.count_reaching(q.pointers, n_steps, q.height, q.width, q.reach_y, q.reach_x, total)
                rows_read += self._count(q.gather.synapse)
            else:
                for source in q.source_addresses:
                    self.kernels.count_events(q.job_address, source, q.reach_y, q.map_reach_x, total)
                    rows_read += self._count(q.gather.synapse)
        for t in self.taps:
            self.kernels.count_events(t.job_address, t.source_address, t.reach_y, t.reach_x, total)
            self._count(t.synapse)
        busy = self.stream and rows_read > self.plan.tile_rows // 2  # most of a tile's weights will be read: fetch them in order
        self.job[integrate.LINES_AHEAD // 8] = -(-self.packed.weights.strides[0] // (64 * self.plan.positions * n_steps)) if busy else 0
        self._split(self.kernels.integrate, self.job.ctypes.data, True)
        if self.masks is not None:
            self.n_spikes += self.kernels.count_spikes(self.masks.ctypes.data, self.masks[:n_steps].size)
        self.seconds += time.perf_counter() - started

    def _count(self, synapse: Synapse) -> int:
        """Add the events just counted; the number of output positions that they reached."""
        n_events, n_reached = int(self.total[0]), int(self.total[1])
        self.n_events += n_events
        self.sops += n_reached * (synapse.weight.shape[0] // synapse.groups)
        return n_reached

    def _set_steps(self, n_steps: int) -> None:
        self.steps = n_steps
        self.job[integrate.N_STEPS // 8] = n_steps
        for i, q in enumerate(self.queues):
            part_bytes = 4 * q.gather.n_pointers(n_steps) // len(q.gather.parts)
            self.synapses[(i * integrate.SYNAPSE_BYTES + integrate.S_PART_BYTES) // 8] = part_bytes if len(q.gather.parts) > 1 else 0
            q.job[queue.N_STEPS // 8] = n_steps
        for t in self.taps:
            t.job[queue.N_STEPS // 8] = n_steps

    def _split(self, function: Callable, job: int, scratch: bool) -> None:
        """Call a kernel for all tiles and rows, on several threads where that pays."""
        tiles, height = self.plan.n_tiles, self.plan.population.shape[1]
        own = [(s.ctypes.data,) if scratch else () for s in self.scratch]
        if self.pool is None or tiles * self.plan.positions * max(1, self.steps) < _SPLIT_WORK:
            function(job, 0, tiles, 0, height, *own[0])
            return
        if tiles >= self.threads:
            edges = [tiles * i // self.threads for i in range(self.threads + 1)]
            calls = [(job, a, b, 0, height) for a, b in zip(edges, edges[1:])]
        else:
            edges = [height * i // self.threads for i in range(self.threads + 1)]
            calls = [(job, 0, tiles, a, b) for a, b in zip(edges, edges[1:])]
        futures = [self.pool.submit(function, *call, *mine) for call, mine in zip(calls[1:], own[1:])]
        function(*calls[0], *own[0])
        for future in futures:
            future.result()


class _Queue:
    """One synapse's event queue: where it lies, and the job that builds it."""

    def __init__(self, gather: GatherPlan, p: PopulationPlan, masks: dict, memory: np.ndarray, start: int, planes: np.ndarray, keep: Callable):
        synapse, k = gather.synapse, queue
        self.gather = gather
        self.height, self.width = synapse.shape[1:]
        self.countable = len(gather.parts) == 1 and (p.graded or not synapse.pooled)  # pointers count each position once
        steps = next(iter(masks.values())).shape[0]
        n_events = gather.n_events(steps, p.graded) * p.event_bytes
        pointer_bytes = 4 * gather.n_pointers(steps)
        self.pointers = memory.ctypes.data + start
        self.events = memory.ctypes.data + start + -(-pointer_bytes // 8) * 8
        self.end = start + -(-pointer_bytes // 8) * 8 + -(-(n_events + COPY_BYTES) // 8) * 8
        sources = np.zeros(len(synapse.sources) * k.SOURCE_BYTES // 8, np.int64)
        offset = 0
        for i, source in enumerate(synapse.sources):
            _fill(sources[i * k.SOURCE_BYTES // 8 :], _source_slots(source, masks[source.population], offset))
            offset += source.shape[0]
        self.job = np.zeros(k.JOB_BYTES // 8, np.int64)
        _fill(self.job, {
            k.HEIGHT: self.height, k.WIDTH: self.width, k.EVENTS: self.events, k.POINTERS: self.pointers, k.COLUMNS: keep(gather.columns),
            k.PARTS: keep(gather.parts), k.N_PARTS: len(gather.parts), k.PART_CHANNELS: gather.part_channels,
            k.SOURCES: keep(sources), k.N_SOURCES: len(synapse.sources), k.PLANES: planes.ctypes.data, k.N_PLANES: synapse.max_count.bit_length(),
            k.POSITIONS: keep(_POSITIONS),
        })  # fmt: skip
        self.job_address = keep(self.job)
        self.source_addresses = [sources.ctypes.data + i * k.SOURCE_BYTES for i in range(len(synapse.sources))]
        self.reach_y = keep(synapse.reach(0))
        self.reach_x = keep(synapse.reach(1)[gather.columns])
        self.map_reach_x = keep(synapse.reach(1))


class _TapSource:
    """A tap's source, for counting its events."""

    def __init__(self, tap: TapPlan, masks: dict, keep: Callable):
        self.synapse = tap.synapse
        source = tap.synapse.sources[0]
        self.masks = masks[source.population]
        slots = np.zeros(queue.SOURCE_BYTES // 8, np.int64)
        _fill(slots, _source_slots(source, self.masks, 0))
        self.source_address = keep(slots)
        self.job = np.zeros(queue.JOB_BYTES // 8, np.int64)
        _fill(self.job, {queue.HEIGHT: self.synapse.shape[1], queue.WIDTH: self.synapse.shape[2]})
        self.job_address = keep(self.job)
        self.reach_y, self.reach_x = keep(self.synapse.reach(0)), keep(self.synapse.reach(1))


def _source_slots(source: Source, masks: np.ndarray, offset: int) -> dict[int, int]:
    k = queue
    slots = {
        k.Q_MASKS: masks.ctypes.data, k.Q_STEP_BYTES: masks.strides[0], k.Q_ROW_BYTES: masks.strides[1], k.Q_WORD_BYTES: masks.strides[2],
        k.Q_HEIGHT: source.shape[1], k.Q_WIDTH: source.shape[2], k.Q_CHANNELS: source.shape[0], k.Q_OFFSET: offset,
    }  # fmt: skip
    if source.pool:
        slots |= dict(zip((k.Q_KERNEL_Y, k.Q_KERNEL_X, k.Q_STRIDE_Y, k.Q_STRIDE_X, k.Q_PAD_TOP, k.Q_PAD_LEFT),
                          (*source.pool.kernel, *source.pool.stride, *source.pool.padding[:2])))  # fmt: skip
    return slots


def _fill(job: np.ndarray, slots: dict[int, int]) -> None:
    """Write the slots of a job; keys are byte offsets."""
    for offset, value in slots.items():
        job[offset // 8] = value


def _masks(n_steps: int, height: int, width: int, words: int) -> np.ndarray:
    return aligned(n_steps * height * width * words * 8).view(np.uint64).reshape(n_steps, height, width, words)


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


