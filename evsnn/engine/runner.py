"""One population in one workspace: its arrays, the descriptors that point to them, and its counts.

A descriptor is a block of int64 fields that a kernel reads. It holds a reference to every array whose address
is in it. Addresses are taken in this module only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np

from ..circuit.neuron import LEAK, WARM_UP
from ..circuit.populations import Projection, Source
from ..circuit.reference import pooled_input
from .kernels.code import Kernel, specialise
from .kernels.descriptors import current, integrate, queue
from .kernels.layout import COPY_BYTES
from .kernels.selectors import Events, Vectors
from .pack import Packed
from .plan import ChannelwisePlan, GatherPlan, MaxPoolPlan, PopulationPlan, aligned
from .state import LayerState

__all__ = ["COUNT_SPIKES", "Descriptor", "Kernels", "Masks", "Runner", "LayerRunner"]

_SPLIT_WORK = 8_192  # tiles x positions x steps: a layer with less work is not split
_STREAMED_BYTES = 1 << 18  # a layer with more packed weights fetches its tiles ahead
_POSITIONS = queue.bit_positions()

Fields = dict[int, "int | np.ndarray | Descriptor"]

Masks = dict[tuple[int, bool], np.ndarray]
"""(n_steps, height, width, words) uint64 by `Source.plane`; negative spikes only if there are any."""


class Kernels:
    """The compiled kernels of one population."""

    def __init__(self, p: PopulationPlan):
        self.integrate, self.count_spikes, self.count_events, *rest = map(specialise, self.needed(p))
        self.build, analog = rest[: len(p.gathers)], rest[len(p.gathers) :]
        self.current = analog[0] if analog else None

    @staticmethod
    def needed(p: PopulationPlan) -> list[Kernel]:
        """The kernels that a population needs.

        They integrate, count spikes, count events, build the queue of each gather and, if the population
        reads the analog input, compute its current.
        """
        events = Events(p.id_bits, ("float32" if p.membrane == "float32" else "integer") if p.graded else "")
        vectors, in_membrane = (
            Vectors(
                p.membrane,
                accumulator,
                p.weight_type,
                p.lanes,
                p.population.has_negative_spikes,
                WARM_UP in p.population.features,
            )
            for accumulator in (p.accumulator, p.membrane)
        )
        return [
            (
                Kernel("fire.fire", (in_membrane,), 5)
                if fires_only(p)
                else Kernel("integrate.integrate", (vectors, events), 6)
            ),
            COUNT_SPIKES,
            Kernel("queue.count_events", (), 2),
            *(Kernel("queue.build_simple" if g.simple else "queue.build", (events,), 1) for g in p.gathers),
            *([_current_kernel(p, in_membrane)] if p.population.analog_projections else []),
        ]


def _current_kernel(p: PopulationPlan, in_membrane: Vectors) -> Kernel:
    vectors = replace(
        in_membrane,
        has_negative_spikes=False,
        has_warm_up=False,
        has_shifts=p.population.analog_shift is not None,
    )
    return Kernel("current.current", (vectors,), 5)


COUNT_SPIKES = Kernel("queue.count_spikes", (), 2, counts=True)


def fires_only(p: PopulationPlan) -> bool:
    """Whether a population has no input but a constant current."""
    return (
        bool(p.population.analog_projections)
        and not p.population.projections
        and p.population.fires
        and WARM_UP not in p.population.features
    )


class Descriptor:
    """Records of int64 fields, named by the byte offsets that kernels define.

    Parameters
    ----------
    record_bytes : int
    records : dict of offset to int, array or descriptor
        Of arrays and descriptors the address is written, and a reference is kept.
    """

    def __init__(self, record_bytes: int, *records: Fields):
        self._words = record_bytes // 8
        self._fields = np.zeros(max(1, len(records)) * self._words, np.int64)
        self.address = self._fields.ctypes.data
        self._held: dict[tuple[int, int], np.ndarray | Descriptor] = {}
        for i, fields in enumerate(records):
            self.set(fields, i)

    def set(self, fields: Fields, record: int = 0) -> None:
        for offset, value in fields.items():
            if isinstance(value, (np.ndarray, Descriptor)):
                self._held[record, offset] = value
                value = value.address if isinstance(value, Descriptor) else value.ctypes.data
            self._fields[record * self._words + offset // 8] = value

    def put(self, offset: int, value: int, record: int = 0) -> None:
        """Change a field that is a number, not an address: no reference is kept."""
        self._fields[record * self._words + offset // 8] = value


_Plan = TypeVar("_Plan", PopulationPlan, MaxPoolPlan)


class Runner(Generic[_Plan]):
    """What computes one population or max pool; threads may share its work.

    Parameters
    ----------
    p : PopulationPlan or MaxPoolPlan
    scratch_bytes : int
        The memory that each thread has for itself.
    executor : ThreadPoolExecutor, optional
        The threads that share the work.
    threads : int
        Their number.

    Attributes
    ----------
    n_spikes, n_events, sops : int
        Counts of the sample so far; spikes are of both signs.
    seconds : float
        The time spent on the sample so far.
    """

    def __init__(
        self,
        p: _Plan,
        scratch_bytes: int,
        executor: ThreadPoolExecutor | None,
        threads: int,
    ):
        self.plan: _Plan = p
        self.steps = 0
        self.executor, self.threads = executor if p.n_tiles * p.positions >= threads else None, threads
        self.scratch = [aligned(scratch_bytes) for _ in range(threads if self.executor else 1)]
        self.scratch_addresses = [(scratch.ctypes.data,) for scratch in self.scratch]
        self.begin()

    def begin(self) -> None:
        """Set all counts to 0."""
        self.n_spikes = self.n_events = self.sops = 0
        self.seconds = 0.0

    def _split(self, kernel: Callable, descriptor: int, height: int, scratch: bool) -> None:
        """Call a kernel for all tiles and `height` rows, on several threads if that pays."""
        tiles = self.plan.n_tiles
        own = self.scratch_addresses if scratch else [()] * self.threads
        if self.executor is None or tiles * self.plan.positions * max(1, self.steps) < _SPLIT_WORK:
            kernel(descriptor, 0, tiles, 0, height, *own[0])
            return
        over_tiles = tiles >= self.threads
        edges = [(tiles if over_tiles else height) * i // self.threads for i in range(self.threads + 1)]
        calls = [
            (descriptor, a, b, 0, height) if over_tiles else (descriptor, 0, tiles, a, b)
            for a, b in zip(edges, edges[1:])
        ]
        futures: list[Future[None]] = []
        try:
            for call, mine in zip(calls[1:], own[1:]):
                futures.append(self.executor.submit(self._call, kernel, *call, *mine))
            kernel(*calls[0], *own[0])
        finally:  # after Ctrl-C, too: no thread may be in a kernel when its arrays are freed
            wait(futures)
        for future in futures:
            future.result()

    def _call(self, kernel: Callable, *arguments: int) -> None:
        """Call a kernel on another thread; as a method it keeps the arrays behind its addresses alive."""
        kernel(*arguments)


class LayerRunner(Runner[PopulationPlan]):
    """One population of neurons in one workspace.

    Parameters
    ----------
    p : PopulationPlan
    packed : Packed
    kernels : Kernels
    masks : Masks
    own : int
        Its index among the populations.
    queues, planes : array
        Memory for event queues and for counters, which all runners of a workspace share.
    state : LayerState
        The first one that it is bound to; see `bind`.
    executor, threads
        As for `Runner`.
    """

    def __init__(
        self,
        p: PopulationPlan,
        packed: Packed,
        kernels: Kernels,
        masks: Masks,
        own: int,
        queues: np.ndarray,
        planes: np.ndarray,
        state: LayerState,
        executor: ThreadPoolExecutor | None,
        threads: int,
    ):
        super().__init__(p, p.scratch_bytes, executor, threads)
        self.packed, self.kernels, self.fires_only = packed, kernels, fires_only(p)
        self.masks, self.negatives = masks.get((own, False)), masks.get((own, True))
        element = np.dtype(p.membrane)
        self.values = [np.zeros((*d.shape[1:], d.shape[0]), element) for d in p.population.analog_projections]
        self.masks_addresses = [
            plane.ctypes.data for plane in (self.masks, self.negatives) if plane is not None
        ]
        self.total = np.zeros(2, np.int64)
        self.lines_ahead = self.first = 0
        self.streamed = self.fetch_first = packed.weights.nbytes > _STREAMED_BYTES
        self.queues: list[_Queue] = []
        for gather in p.gathers:
            self.queues.append(
                _Queue(
                    gather, p, masks, queues, self.queues[-1].end if self.queues else 0, planes, self.total
                )
            )
        self.channelwise = [_Channelwise(t, masks, self.total) for t in p.channelwise]
        self.projections = self._projections()
        self.channelwise_descriptors = Descriptor(
            integrate.CHANNELWISE_BYTES,
            *(t.fields(weights) for t, weights in zip(self.channelwise, packed.channelwise)),
        )
        self.descriptor = self._descriptor()
        self.current_descriptor = self._current_descriptor() if p.population.analog_projections else None
        self.bind(state)

    def bind(self, state: LayerState) -> None:
        """Read and write the arrays of this state from now on."""
        self.state = state
        k = integrate
        arrays = ((k.CURRENT, state.current), (k.MEMBRANES, state.membranes), (k.COUNTS, state.net_counts))
        self.descriptor.set({offset: 0 if array is None else array for offset, array in arrays})
        if self.current_descriptor is not None and state.current is not None:
            self.current_descriptor.set({current.OUT: state.current})

    def start(self, sample: np.ndarray | None) -> None:
        """Begin a sample: compute the constant current that it brings."""
        started = time.perf_counter()
        self.begin()
        if self.current_descriptor is not None and self.kernels.current is not None and sample is not None:
            for d, values in zip(self.plan.population.analog_projections, self.values):
                seen = [pooled_input(source, sample[None])[0] for source in d.sources]
                values[...] = (np.concatenate(seen) if len(seen) > 1 else seen[0]).transpose(1, 2, 0)
            self._split(
                self.kernels.current,
                self.current_descriptor.address,
                self.plan.population.shape[1],
                scratch=False,
            )
        self.seconds = time.perf_counter() - started

    def run(self, n_steps: int, resume: bool, first: int = 0) -> None:
        """Compute a block of steps, or the steps of a block from `first` on.

        The latter is only for neurons that never fire, because they write no masks.
        """
        started = time.perf_counter()
        if n_steps != self.steps:
            self._set_steps(n_steps)
        if first != self.first:
            self._set_first(first)
        rows_read = 0
        for q, build in zip(self.queues, self.kernels.build):
            build(q.descriptor.address)
            if q.gather.simple:
                rows_read += self._count(q.gather.projection)
            else:
                rows_read += self._count_sources(q.descriptor, q.sources, q.n_sources, q.gather.projection)
        for t in self.channelwise:
            self._count_sources(t.descriptor, t.source, 1, t.projection)
        fetch = rows_read > self.plan.tile_rows // 2  # most of a tile will be read
        self.descriptor.put(integrate.LINES_AHEAD, self.lines_ahead if fetch else 0)
        self.descriptor.put(integrate.FETCH_FIRST, fetch and self.fetch_first)
        self.descriptor.put(integrate.RESUME, resume)
        self._split(
            self.kernels.integrate,
            self.descriptor.address,
            self.plan.population.shape[1],
            scratch=not self.fires_only,
        )
        for address in self.masks_addresses:
            self.n_spikes += self.kernels.count_spikes(
                address, n_steps * self.plan.positions * self.plan.words
            )
        self.seconds += time.perf_counter() - started

    def _count_sources(
        self, descriptor: Descriptor, sources: Descriptor, n_sources: int, projection: Projection
    ) -> int:
        """Count the events of a projection from its sources' masks."""
        n_reached = 0
        for i in range(n_sources):
            self.kernels.count_events(descriptor.address, sources.address + i * queue.SOURCE_BYTES)
            n_reached += self._count(projection)
        return n_reached

    def _count(self, projection: Projection) -> int:
        """Add the events that were just counted, and return how many output positions they reached."""
        n_events, n_reached = self.total.tolist()
        self.n_events += n_events
        self.sops += n_reached * (projection.weight.shape[0] // projection.groups)
        return n_reached

    def precede(self, following: LayerRunner) -> None:
        """Fetch the first weights of the next runner while the last tile of this one is computed."""
        if self.streamed and following.streamed:
            weights = following.packed.weights
            self.descriptor.set({integrate.NEXT: weights, integrate.NEXT_BYTES: weights.strides[0]})
            following.fetch_first = False

    def _set_steps(self, n_steps: int) -> None:
        self.steps = n_steps
        self.descriptor.put(integrate.N_STEPS, n_steps)
        self.lines_ahead = (
            -(-self.packed.weights.strides[0] // (64 * self.plan.positions * n_steps)) if self.streamed else 0
        )
        for i, q in enumerate(self.queues):
            n_parts = len(q.gather.parts)
            self.projections.put(
                integrate.S_PART_BYTES, 4 * q.gather.n_pointers(n_steps) // n_parts if n_parts > 1 else 0, i
            )
            q.descriptor.put(queue.N_STEPS, n_steps)
        for t in self.channelwise:
            t.descriptor.put(queue.N_STEPS, n_steps)

    def _set_first(self, first: int) -> None:
        """Make the sources' masks begin at a step of the block."""
        self.first = first
        for q in self.queues:
            for i, masks in enumerate(q.masks):
                q.sources.put(queue.Q_MASKS, masks[first:].ctypes.data, i)
        for i, t in enumerate(self.channelwise):
            address = t.masks[first:].ctypes.data
            t.source.put(queue.Q_MASKS, address)
            self.channelwise_descriptors.put(integrate.P_MASKS, address, i)

    def _projections(self) -> Descriptor:
        k, row = integrate, 0
        records: list[Fields] = []
        for q in self.queues:
            g, (_, height, width) = q.gather, q.gather.projection.shape
            records.append(
                {
                    k.S_EVENTS: q.events,
                    k.S_POINTERS: q.pointers,
                    k.S_ROW_BYTES: 4 * width,
                    k.S_STEP_BYTES: 4 * height * width,
                    k.S_COLUMNS: g.column_table,
                    k.S_ROWS: g.row_table,
                    k.S_DILATION: g.projection.dilation[0],
                    k.S_KERNEL_ROW: g.projection.kernel[1] * g.part_channels,
                    k.S_FIRST_ROW: row,
                }
            )
            row += g.rows
        return Descriptor(k.PROJECTION_BYTES, *records)

    def _descriptor(self) -> Descriptor:
        p, k = self.plan, integrate
        planes = {k.SPIKES: self.masks, k.NEGATIVES: self.negatives}
        fields: Fields = {
            k.HEIGHT: p.population.shape[1],
            k.WIDTH: p.population.shape[2],
            k.N_TILES: p.n_tiles,
            k.WEIGHTS: self.packed.weights,
            k.TILE_BYTES: self.packed.weights.strides[0],
            k.TILE_ROWS: p.tile_rows,
            k.PARAMETERS: self.packed.parameters,
            k.WORD_BYTES: 8 * p.words,
            k.LEAKY: LEAK in p.population.features,
            k.WARM_UP_STEPS: p.population.neuron.warm_up_steps,
            k.MAX_EVENTS: p.max_events,
            k.PROJECTIONS: self.projections,
            k.N_PROJECTIONS: len(self.queues),
            k.CHANNELWISE: self.channelwise_descriptors,
            k.N_CHANNELWISE: len(self.channelwise),
        }
        fields |= {offset: plane for offset, plane in planes.items() if plane is not None}
        return Descriptor(k.DESCRIPTOR_BYTES, fields)

    def _current_descriptor(self) -> Descriptor:
        p, k = self.plan, current
        records: list[Fields] = [
            {
                k.B_VALUES: values,
                k.B_HEIGHT: d.shape[1],
                k.B_WIDTH: d.shape[2],
                k.B_CHANNELS: d.shape[0],
                k.B_WEIGHTS: weights,
                k.B_TILE_BYTES: weights.strides[0],
                k.B_KERNEL_HEIGHT: d.kernel[0],
                k.B_KERNEL_WIDTH: d.kernel[1],
                k.B_STRIDE_Y: d.stride[0],
                k.B_STRIDE_X: d.stride[1],
                k.B_PAD_TOP: d.padding[0],
                k.B_PAD_LEFT: d.padding[1],
                k.B_DILATION_Y: d.dilation[0],
                k.B_DILATION_X: d.dilation[1],
            }
            for d, values, weights in zip(
                p.population.analog_projections, self.values, self.packed.analog_projections
            )
        ]
        branches = Descriptor(k.BRANCH_BYTES, *records)
        fields: Fields = {
            k.HEIGHT: p.population.shape[1],
            k.WIDTH: p.population.shape[2],
            k.N_TILES: p.n_tiles,
            k.BIAS: self.packed.parameters,
            k.BIAS_STRIDE: self.packed.parameters.strides[0],
            k.BRANCHES: branches,
            k.N_BRANCHES: len(self.values),
        }
        shifts = self.packed.analog_shifts
        if shifts is not None:
            fields |= {k.SHIFTS: shifts, k.SHIFTS_STRIDE: shifts.strides[0]}
        return Descriptor(k.DESCRIPTOR_BYTES, fields)


class _Queue:
    """The event queue of one projection: its place in the workspace's memory, and its descriptor."""

    def __init__(
        self,
        gather: GatherPlan,
        p: PopulationPlan,
        masks: Masks,
        memory: np.ndarray,
        start: int,
        planes: np.ndarray,
        total: np.ndarray,
    ):
        projection, k = gather.projection, queue
        self.gather, self.memory = gather, memory
        steps = masks[projection.sources[0].population, False].shape[0]
        pointer_bytes = -(-4 * gather.n_pointers(steps) // 8) * 8
        self.pointers = memory.ctypes.data + start
        self.events = self.pointers + pointer_bytes
        self.end = (
            start
            + pointer_bytes
            + -(-(gather.n_events(steps, p.graded) * p.event_bytes + COPY_BYTES) // 8) * 8
        )
        offsets = np.cumsum([0, *(source.shape[0] for source in projection.sources)])
        present = [(s, int(offset)) for s, offset in zip(projection.sources, offsets) if s.plane in masks]
        self.masks = [masks[s.plane] for s, _ in present]
        sources = [_source(s, masks[s.plane], offset) for s, offset in present]
        self.sources, self.n_sources = Descriptor(k.SOURCE_BYTES, *sources), len(sources)
        self.descriptor = Descriptor(
            k.DESCRIPTOR_BYTES,
            {
                k.HEIGHT: projection.shape[1],
                k.WIDTH: projection.shape[2],
                k.EVENTS: self.events,
                k.POINTERS: self.pointers,
                k.COLUMNS: gather.columns,
                k.PARTS: gather.parts,
                k.N_PARTS: len(gather.parts),
                k.PART_CHANNELS: gather.part_channels,
                k.SOURCES: self.sources,
                k.N_SOURCES: len(sources),
                k.PLANES: planes,
                k.N_PLANES: projection.max_count.bit_length(),
                k.POSITIONS: _POSITIONS,
                k.REACH_Y: projection.window.reach(0, projection.shape[1]),
                k.REACH_X: projection.window.reach(1, projection.shape[2]),
                k.TOTAL: total,
            },
        )


class _Channelwise:
    """A projection with one weight per channel: its source's masks, and the descriptor that counts events."""

    def __init__(self, item: ChannelwisePlan, masks: Masks, total: np.ndarray):
        self.projection = item.projection
        source = item.projection.sources[0]
        self.masks = masks[source.plane]
        self.source = Descriptor(queue.SOURCE_BYTES, _source(source, self.masks, 0))
        s, k = self.projection, queue
        self.descriptor = Descriptor(
            k.DESCRIPTOR_BYTES,
            {
                k.HEIGHT: s.shape[1],
                k.WIDTH: s.shape[2],
                k.REACH_Y: s.window.reach(0, s.shape[1]),
                k.REACH_X: s.window.reach(1, s.shape[2]),
                k.TOTAL: total,
            },
        )

    def fields(self, weights: np.ndarray) -> Fields:
        s, k = self.projection, integrate
        return {
            k.P_MASKS: self.masks,
            k.P_STEP_BYTES: self.masks.strides[0],
            k.P_ROW_BYTES: self.masks.strides[1],
            k.P_WORD_BYTES: self.masks.strides[2],
            k.P_WEIGHTS: weights,
            k.P_KERNEL_HEIGHT: s.kernel[0],
            k.P_KERNEL_WIDTH: s.kernel[1],
            k.P_STRIDE_Y: s.stride[0],
            k.P_STRIDE_X: s.stride[1],
            k.P_PAD_TOP: s.padding[0],
            k.P_PAD_LEFT: s.padding[1],
            k.P_DILATION_Y: s.dilation[0],
            k.P_DILATION_X: s.dilation[1],
            k.P_HEIGHT: s.shape[1],
            k.P_WIDTH: s.shape[2],
        }


def _source(source: Source, masks: np.ndarray, offset: int) -> Fields:
    k = queue
    fields: Fields = {
        k.Q_MASKS: masks,
        k.Q_STEP_BYTES: masks.strides[0],
        k.Q_ROW_BYTES: masks.strides[1],
        k.Q_WORD_BYTES: masks.strides[2],
        k.Q_HEIGHT: source.shape[1],
        k.Q_WIDTH: source.shape[2],
        k.Q_CHANNELS: source.shape[0],
        k.Q_OFFSET: offset,
    }
    if source.pool:
        window = (*source.pool.kernel, *source.pool.stride, *source.pool.padding[:2])
        fields |= dict(
            zip((k.Q_KERNEL_Y, k.Q_KERNEL_X, k.Q_STRIDE_Y, k.Q_STRIDE_X, k.Q_PAD_TOP, k.Q_PAD_LEFT), window)
        )
    return fields
