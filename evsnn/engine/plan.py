"""How a circuit is simulated: sizes and index arrays for kernels, and the bytes that a run will take.

A `Plan` belongs to a circuit and a block of steps. Sizes follow from shapes alone, before anything is
allocated (`Plan.n_bytes`, `Plan.workspace_bytes`, `Plan.state_bytes`). Every index that a kernel follows is
made here, from shapes that the network has checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..circuit.neuron import LEAK, NEGATIVE_SPIKES, WARM_UP
from ..circuit.populations import (
    ANALOG_INPUT,
    ANALOG_SHIFT,
    GROUPS,
    INPUT,
    MAX_POOL,
    POOLED_SOURCES,
    Circuit,
    MaxPool,
    Population,
    Projection,
    check_supported,
    sources_of,
)
from ..errors import RunError
from ..network.geometry import Window
from .kernels.layout import COPY_BYTES, COUNTS_PER_MASK, PARAMETER_ROWS, UNROLL, scratch_bytes

__all__ = [
    "BLOCK_STEPS",
    "SUPPORTS",
    "ChannelwisePlan",
    "Component",
    "GatherPlan",
    "MaxPoolPlan",
    "Plan",
    "PopulationPlan",
    "aligned",
    "mask_words",
    "plan",
]

SUPPORTS = frozenset(
    {ANALOG_INPUT, ANALOG_SHIFT, GROUPS, LEAK, MAX_POOL, NEGATIVE_SPIKES, POOLED_SOURCES, WARM_UP}
)
"""The features of populations that the engine computes."""

BLOCK_STEPS = 64
"""Most steps that are run layer by layer at once."""

_WORKSPACE_GOAL = 128 << 20
_LANES = {"float32": (16, 32, 64), "int16": (32, 64, 128), "int32": (32, 64, 128)}
_ROW_OVERHEAD = {"float32": 24, "int16": 48, "int32": 48}  # what an event costs besides its lanes, in lanes
_WEIGHT = {"float32": "float32", "int16": "int8", "int32": "int8"}
_REPEATED = 4  # largest pooling window of which integers send every spike: two additions beat a product
_LEAST_MAX_EVENTS = 16  # events that a 16-bit accumulator must hold; else sums have 32 bits


def aligned(n_bytes: int) -> np.ndarray:
    """Zeroed bytes that start on a cache line."""
    raw = np.zeros(n_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n_bytes]


def mask_words(channels: int) -> int:
    """How many uint64 words hold the spike mask of a position."""
    return -(-channels // 64)


@dataclass(frozen=True, eq=False)
class GatherPlan:
    """How one projection's events are gathered.

    Parameters
    ----------
    projection : Projection
    parts : (n_parts, 2) int64
        Input channels [first, last) of each part of the queue: one part, or one per tile.
    part_channels : int
        Channels of the widest part; ids are ``column * part_channels + channel``.
    columns : (width,) int32
        The map's column of each queue column: equal residues modulo the dilation are neighbours.
    column_table : (out_width, 3) int32
        By output column: the first and last + 1 queue column that the kernel covers, and the queue column of
        kernel column 0 times `part_channels` (before it is cut off at the border).
    row_table : (out_height, 3) int32
        By output row: the first and last + 1 kernel row inside the map, and the map row of kernel row 0.
    """

    projection: Projection
    parts: np.ndarray
    part_channels: int
    columns: np.ndarray
    column_table: np.ndarray
    row_table: np.ndarray

    @property
    def rows(self) -> int:
        """The number of weight rows in a tile."""
        return self.projection.kernel[0] * self.projection.kernel[1] * self.part_channels

    @cached_property
    def simple(self) -> bool:
        """Whether the kernel `build_simple` can build the queue.

        It can for one source, in one part, with columns in order, without a pool or with pools of 2x2 that do
        not overlap.
        """
        s = self.projection
        pool = s.sources[0].pool
        plain = pool is None or (pool.kernel == pool.stride == (2, 2) and not any(pool.padding))
        return len(s.sources) == len(self.parts) == 1 and plain and s.dilation[1] == 1

    def n_pointers(self, n_steps: int) -> int:
        return len(self.parts) * (n_steps * self.projection.shape[1] * self.projection.shape[2] + 1)

    def n_events(self, n_steps: int, graded: bool) -> int:
        """The number of events if every neuron fires at every step."""
        channels = int((self.parts[:, 1] - self.parts[:, 0]).sum())
        return (
            channels
            * n_steps
            * self.projection.shape[1]
            * self.projection.shape[2]
            * (1 if graded else self.projection.max_count)
        )


@dataclass(frozen=True, eq=False)
class ChannelwisePlan:
    """A projection with one weight per channel."""

    projection: Projection


@dataclass(frozen=True, eq=False)
class PopulationPlan:
    """How one population is computed.

    Parameters
    ----------
    population : Population
    membrane : {"float32", "int16", "int32"}
        The type of the membranes.
    lanes, n_tiles : int
        Output channels per tile, and the number of tiles.
    gathers : tuple of GatherPlan
    channelwise : tuple of ChannelwisePlan
    graded : bool
        Whether its events carry counts. If not, small pools of integers send one event per spike.
    id_bits : {16, 32}
    accumulator : {"float32", "int16", "int32"}
        The type of the sums within a step.
    max_events : int
        How many events an accumulator can take; 2^31 if there is no limit.
    """

    population: Population
    membrane: str
    lanes: int
    n_tiles: int
    gathers: tuple[GatherPlan, ...]
    channelwise: tuple[ChannelwisePlan, ...]
    graded: bool
    id_bits: int
    accumulator: str
    max_events: int

    @property
    def element_bytes(self) -> int:
        return 2 if self.membrane == "int16" else 4

    @property
    def weight_type(self) -> str:
        return _WEIGHT[self.membrane]

    @property
    def words(self) -> int:
        """How many uint64 words hold the spike mask of a position."""
        return mask_words(self.n_tiles * self.lanes)

    @cached_property
    def tile_rows(self) -> int:
        return sum(gather.rows for gather in self.gathers)

    @cached_property
    def positions(self) -> int:
        return self.population.shape[1] * self.population.shape[2]

    @property
    def padded(self) -> int:
        """The number of membranes, with the lanes that have no neuron."""
        return self.positions * self.n_tiles * self.lanes

    @property
    def event_bytes(self) -> int:
        return self.id_bits // 8 * (2 if self.graded else 1)

    @property
    def runs(self) -> int:
        """The most runs and channelwise weights of one output position."""
        return sum(g.projection.kernel[0] for g in self.gathers) + sum(
            t.projection.kernel[0] * t.projection.kernel[1] for t in self.channelwise
        )

    @property
    def scratch_bytes(self) -> int:
        """Bytes of `integrate`'s scratch memory: every input at every step, and room for the runs."""
        repeats = 1 if self.graded else max((g.projection.max_count for g in self.gathers), default=1)
        return scratch_bytes(self.runs, self.tile_rows * repeats, self.event_bytes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all packed weights and parameters."""
        size = 1 if self.weight_type == "int8" else 4
        channels = self.n_tiles * self.lanes
        gathered = (self.tile_rows + 1) * channels * size
        channelwise = (
            sum(t.projection.kernel[0] * t.projection.kernel[1] for t in self.channelwise)
            * channels
            * self.element_bytes
        )
        driven = (
            sum(d.kernel[0] * d.kernel[1] * d.shape[0] for d in self.population.analog_projections)
            * channels
            * size
        )
        rows = PARAMETER_ROWS + (0 if self.population.analog_shift is None else 3)
        return gathered + channelwise + driven + rows * channels * self.element_bytes

    def queue_bytes(self, n_steps: int) -> int:
        """The bytes of its event queues in the worst case."""
        tables = sum(COPY_BYTES + 16 + g.n_pointers(n_steps) * 4 for g in self.gathers)
        return self.queued_bytes(n_steps) + tables

    def queued_bytes(self, n_steps: int) -> int:
        """The bytes of the events in its queues if every neuron fires at every step."""
        return sum(g.n_events(n_steps, self.graded) * self.event_bytes for g in self.gathers)

    def mask_bytes(self, n_steps: int) -> int:
        """Bytes of one plane of its masks."""
        return n_steps * self.positions * self.words * 8

    def workspace_bytes(self, n_steps: int) -> int:
        """The bytes of its masks, of the input's values and of scratch memory."""
        planes = self.population.fires + self.population.has_negative_spikes
        inputs = sum(int(np.prod(projection.shape)) for projection in self.population.analog_projections)
        return self.mask_bytes(n_steps) * planes + self.scratch_bytes + inputs * self.element_bytes

    def state_bytes(self, carries: bool, keep_membranes: bool = False) -> int:
        """The bytes of its current, and of membranes and net counts if they are carried on or kept."""
        p = self.population
        kept = carries or keep_membranes or not p.fires
        arrays = bool(p.analog_projections) + kept + (carries and p.has_negative_spikes)
        return self.padded * self.element_bytes * arrays


@dataclass(frozen=True, eq=False)
class MaxPoolPlan:
    """How one max pool is computed.

    Parameters
    ----------
    population : MaxPool
    words : int
        How many uint64 words hold the spike mask of a position of the source.
    """

    population: MaxPool
    words: int

    @property
    def n_tiles(self) -> int:
        """The number of words that hold channels."""
        return mask_words(self.population.shape[0])

    @cached_property
    def positions(self) -> int:
        return self.population.shape[1] * self.population.shape[2]

    @property
    def in_positions(self) -> int:
        return self.population.source.shape[1] * self.population.source.shape[2]

    def counter(self, n_steps: int) -> str:
        """The narrowest type that holds counts relative to a window's largest within a block of steps."""
        reach = n_steps * (3 if self.population.has_negative_spikes else 1)
        return next(name for name in ("int8", "int16", "int32") if reach <= np.iinfo(name).max)

    def scratch_bytes(self, n_steps: int) -> int:
        """Bytes of a vector of counters per step."""
        return n_steps * 64 * np.dtype(self.counter(n_steps)).itemsize

    def mask_bytes(self, n_steps: int) -> int:
        """Bytes of one plane of its masks."""
        return n_steps * self.positions * self.words * 8

    def workspace_bytes(self, n_steps: int) -> int:
        """Bytes of its masks and scratch memory."""
        return self.mask_bytes(n_steps) * (1 + self.population.has_negative_spikes) + self.scratch_bytes(
            n_steps
        )

    def state_bytes(self, carries: bool, keep_membranes: bool = False) -> int:
        """Bytes of its counts, if they are carried on."""
        return (self.positions + self.in_positions) * self.words * COUNTS_PER_MASK * 8 if carries else 0


@dataclass(frozen=True)
class Component:
    """Populations that must be computed together, and how many steps at once.

    Without recurrent connections each population is a component of its own.

    Parameters
    ----------
    populations : tuple of int
        Their indices, ascending.
    block_steps : int
        How many steps are computed before the next component.
    """

    populations: tuple[int, ...]
    block_steps: int


@dataclass(frozen=True, eq=False)
class Plan:
    """How a circuit is simulated.

    Parameters
    ----------
    circuit : Circuit
    populations : tuple of PopulationPlan or MaxPoolPlan
    block_steps : int
        How many steps each layer computes before the next; membranes and counts are carried on from block to
        block.
    components : tuple of Component
        In the order in which they are computed.
    """

    circuit: Circuit
    populations: tuple[PopulationPlan | MaxPoolPlan, ...]
    block_steps: int
    components: tuple[Component, ...]

    @cached_property
    def neurons(self) -> tuple[PopulationPlan, ...]:
        """The populations without the max pools."""
        return tuple(p for p in self.populations if isinstance(p, PopulationPlan))

    @property
    def n_bytes(self) -> int:
        """The bytes of packed weights and parameters, which all threads share."""
        return sum(p.weight_bytes for p in self.neurons)

    @property
    def workspace_bytes(self) -> int:
        """The bytes of one thread's masks, queues, currents and membranes, in the worst case."""
        working = _workspace_bytes(self.circuit, self.populations, self.block_steps)
        return working + self.state_bytes(self.carries)

    @property
    def event_bytes(self) -> int:
        """The bytes of `workspace_bytes` that events fill: with fewer spikes, fewer of them are used."""
        return max(p.queued_bytes(self.block_steps) for p in self.neurons)

    @property
    def carries(self) -> bool:
        """Whether a run has several blocks."""
        return self.block_steps < self.circuit.n_steps

    def state_bytes(self, carries: bool = True) -> int:
        """The bytes of what a run carries from block to block."""
        return sum(p.state_bytes(carries) for p in self.populations)

    @cached_property
    def widest_planes(self) -> int:
        """How many bit planes count the spikes of the largest pooling window."""
        return max(
            (s.max_count for p in self.neurons for s in p.population.projections), default=1
        ).bit_length()


def _workspace_bytes(
    circuit: Circuit, populations: Sequence[PopulationPlan | MaxPoolPlan], block_steps: int
) -> int:
    channels, height, width = circuit.input_shape
    total = 0 if circuit.analog else 8 * block_steps * height * width * mask_words(channels)
    total += sum(p.workspace_bytes(block_steps) for p in populations)
    return total + max(p.queue_bytes(block_steps) for p in populations if isinstance(p, PopulationPlan))


def components(circuit: Circuit) -> list[tuple[int, ...]]:
    """The strongly connected components of a circuit's populations, each after those that it reads.

    A population reads those before it, and later ones only through recurrent connections; so components
    stand in the order of their first populations.
    """
    reads = [sorted(sources_of(p) - {INPUT}) for p in circuit.populations]
    if all(source < i for i, sources in enumerate(reads) for source in sources):
        return [(i,) for i in range(len(reads))]
    from scipy.sparse import csr_matrix  # here: it takes a while to import, and most circuits do without
    from scipy.sparse.csgraph import connected_components

    indptr = np.cumsum([0, *map(len, reads)])
    indices = np.concatenate(reads).astype(np.int64)
    graph = csr_matrix((np.ones(len(indices)), indices, indptr), shape=(len(reads), len(reads)))
    _, labels = connected_components(graph, directed=True, connection="strong")
    found: dict[int, list[int]] = {}
    for i, label in enumerate(labels.tolist()):
        found.setdefault(label, []).append(i)
    return [tuple(part) for part in found.values()]


def plan(
    circuit: Circuit, membranes: tuple[str | None, ...] | None = None, block_steps: int | None = None
) -> Plan:
    """Plan a circuit.

    Parameters
    ----------
    circuit : Circuit
    membranes : tuple of {"int16", "int32", None}, optional
        For circuits in integers: the type of each population's membranes, None for max pools. None: float32.
    block_steps : int, optional
        None: as many as fit into a workspace of 128 MB, at most 64. If there is a warm-up, all steps, because
        a layer's first output step then needs later steps of its input.

    Returns
    -------
    Plan

    Raises
    ------
    RunError
        If a network with a warm-up is given smaller blocks, or so many steps that a queue could have 2^31
        events; or if the circuit has a feature that is not in `SUPPORTS`.
    """
    check_supported(circuit, SUPPORTS, "the engine")
    kinds = membranes or ("float32",) * len(circuit.populations)
    words = {INPUT: mask_words(circuit.input_shape[0])}
    populations: list[PopulationPlan | MaxPoolPlan] = []
    for i, (p, kind) in enumerate(zip(circuit.populations, kinds)):
        populations.append(
            MaxPoolPlan(p, words[p.source.population])
            if isinstance(p, MaxPool)
            else _population(p, kind or "float32")
        )
        words[i] = populations[-1].words
    if circuit.has_warm_up:
        _check_one_block(circuit, populations, block_steps)
        block_steps = circuit.n_steps
    elif block_steps is None:
        block_steps = min(BLOCK_STEPS, circuit.n_steps)
        carried = sum(p.state_bytes(True) for p in populations)
        while (
            block_steps > 1
            and _workspace_bytes(circuit, populations, block_steps) + carried > _WORKSPACE_GOAL
        ):
            block_steps = (block_steps + 1) // 2
    block_steps = min(block_steps, circuit.n_steps)
    parts = tuple(Component(part, block_steps if len(part) == 1 else 1) for part in components(circuit))
    return Plan(circuit, tuple(populations), block_steps, parts)


def _check_one_block(
    circuit: Circuit, populations: Sequence[PopulationPlan | MaxPoolPlan], block_steps: int | None
) -> None:
    """Refuse a warm-up that does not fit into one block of steps."""
    if block_steps is not None and block_steps < circuit.n_steps:
        raise RunError(
            "warm-up needs all steps in one block",
            got=f"blocks of {block_steps} steps",
            expected=f"{circuit.n_steps}",
        )
    for p in populations:
        n_events = (
            max((g.n_events(circuit.n_steps, p.graded) for g in p.gathers), default=0)
            if isinstance(p, PopulationPlan)
            else 0
        )
        if n_events >= 1 << 31:
            expected = "fewer than 2^31 in all steps, if a layer has a warm-up"
            raise RunError(
                "too many events for one block",
                where=f"layer {p.population.name!r}",
                got=f"up to {n_events}",
                expected=expected,
                hint="use fewer steps, or no warm-up",
            )


def _population(population: Population, membrane: str) -> PopulationPlan:
    largest = max((s.max_count for s in population.projections), default=1)
    graded = largest > (1 if membrane == "float32" else _REPEATED)
    accumulator, max_events = membrane, 1 << 31
    largest_term = 127 * (largest if graded else 1)
    if membrane == "int32" and 32767 // largest_term >= _LEAST_MAX_EVENTS:
        accumulator, max_events = "int16", 32767 // largest_term // UNROLL * UNROLL
    channels = population.shape[0]
    choices = [
        n for n in _LANES[membrane] if accumulator != "int32" or n <= 64
    ]  # 128 sums of 32 bits would fill all registers of NEON
    if membrane != "float32" and not population.projections and WARM_UP not in population.features:
        choices = [16, *choices]  # no weights are added, so no rows of int8 would be too short
    lanes = min(choices, key=lambda n: (-(-channels // n) * (n + _ROW_OVERHEAD[membrane]), n))
    n_tiles = -(-channels // lanes)
    gathers = tuple(_gather(s, lanes, n_tiles) for s in population.projections if not s.channelwise)
    channelwise = tuple(ChannelwisePlan(s) for s in population.projections if s.channelwise)
    ids = max(
        sum(g.rows for g in gathers) + 1,
        max((g.part_channels * g.projection.shape[2] for g in gathers), default=0),
    )
    id_bits = (
        16 if ids <= 1 << 16 and (not graded or largest <= (256 if membrane == "float32" else 65535)) else 32
    )
    return PopulationPlan(
        population, membrane, lanes, n_tiles, gathers, channelwise, graded, id_bits, accumulator, max_events
    )


def _gather(projection: Projection, lanes: int, n_tiles: int) -> GatherPlan:
    channels, height, width = projection.shape
    n_out, n_in = projection.weight.shape[0] // projection.groups, projection.weight.shape[1]
    if projection.groups == 1:
        parts = np.array([[0, channels]], np.int64)
    else:  # the groups that a tile's output channels fall into
        first = np.arange(n_tiles) * lanes
        last = np.minimum(first + lanes, projection.weight.shape[0]) - 1
        parts = np.stack([first // n_out * n_in, (last // n_out + 1) * n_in], axis=1).astype(np.int64)
    part_channels = int((parts[:, 1] - parts[:, 0]).max())
    window, dilation = projection.window, projection.dilation[1]
    residues = [np.arange(r, width, dilation) for r in range(min(dilation, width))]
    columns = np.concatenate(residues).astype(np.int32)
    column_table = _column_table(window, width, part_channels)
    first, last = window.inside(0, height)
    row_table = np.stack([first, last, window.origins(0, len(first))], axis=1)
    if max(np.abs(column_table).max(), np.abs(row_table).max()) >= 1 << 31:
        raise RunError(
            "a map is too wide",
            got=f"{width} columns of {channels} channels",
            expected="fewer than 2^31 elements per row",
        )
    return GatherPlan(
        projection, parts, part_channels, columns, column_table.astype(np.int32), row_table.astype(np.int32)
    )


def _column_table(window: Window, width: int, part_channels: int) -> np.ndarray:
    """By output column: its queue columns, and that of kernel column 0 times the channels."""
    first, last = window.inside(1, width)
    start, dilation = window.origins(1, len(first)), window.dilation[1]
    residue = start % dilation
    residues = np.arange(min(dilation, width))
    before = np.concatenate(
        [[0], np.cumsum((width - 1 - residues) // dilation + 1)]
    )  # columns of smaller residues
    origin = before[np.minimum(residue, len(residues))] + (start - residue) // dilation
    table = np.stack([origin + first, origin + last, origin * part_channels], axis=1)
    table[first >= last] = 0
    return table
