"""What the kernels are given: frozen, aligned, checked arrays, and the bytes they will need.

A `Plan` belongs to a circuit and a block of steps. Its sizes are known from shapes alone, before
anything is allocated (`Plan.n_bytes`, `Plan.workspace_bytes`); `Plan.pack` then lays the weights out
as the kernels read them, ``[tile][synapse][ky][kx][channel][lane]``. Every index a kernel will
follow is made here, from shapes that the network has checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..circuit.populations import INPUT, Circuit, MaxPool, Population, Synapse
from ..circuit.reference import leak_shift
from ..errors import RunError
from .kernels.layout import COPY_BYTES, COUNTS_PER_MASK, PARAMETER_ROWS, UNROLL, scratch_bytes

__all__ = [
    "BLOCK_STEPS",
    "GatherPlan",
    "MaxPoolPlan",
    "Packed",
    "Plan",
    "PopulationPlan",
    "TapPlan",
    "aligned",
    "pack",
    "plan",
    "words_of",
]

BLOCK_STEPS = 64
"""Most steps that are run layer by layer at once."""

_WORKSPACE_GOAL = 128 << 20
_LANES = {"float32": (16, 32, 64), "int16": (32, 64, 128), "int32": (32, 64, 128)}
_ROW_OVERHEAD = {"float32": 24, "int16": 48, "int32": 48}  # what an event costs besides its lanes, in lanes
_WEIGHT = {"float32": "float32", "int16": "int8", "int32": "int8"}
_REPEATED = 4  # largest pooling window of which integers send every spike: adding twice beats multiplying
_LEAST_BUDGET = 16  # events a 16-bit partial sum must take, or sums are of 32 bits


def aligned(n_bytes: int) -> np.ndarray:
    """Zeroed bytes that start on a cache line."""
    raw = np.zeros(n_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n_bytes]


def words_of(channels: int) -> int:
    """uint64 words that hold a position's spike mask."""
    return -(-channels // 64)


@dataclass(frozen=True, eq=False)
class GatherPlan:
    """How one synapse's events are gathered.

    Parameters
    ----------
    synapse : Synapse
    parts : (n_parts, 2) int64
        Input channels [first, last) of each part of the queue: one part, or one a tile.
    part_channels : int
        Channels of the widest part; ids are ``column * part_channels + channel``.
    columns : (width,) int32
        The map's column of each queue column: residues modulo the dilation stand together.
    column_table : (out_width, 3) int32
        First and last + 1 queue column of an output column's taps, and the queue column of tap 0 times
        `part_channels` (before it is cut off at the border).
    row_table : (out_height, 3) int32
        First and last + 1 kernel row inside the map, and the map row of kernel row 0.
    """

    synapse: Synapse
    parts: np.ndarray
    part_channels: int
    columns: np.ndarray
    column_table: np.ndarray
    row_table: np.ndarray

    @property
    def rows(self) -> int:
        """Weight rows in a tile."""
        return self.synapse.kernel[0] * self.synapse.kernel[1] * self.part_channels

    @cached_property
    def simple(self) -> bool:
        """One source, in one part, columns in order, no pool or pools of 2x2 side by side: what
        `build_simple` takes.
        """
        s = self.synapse
        pool = s.sources[0].pool
        plain = pool is None or (pool.kernel == pool.stride == (2, 2) and not any(pool.padding))
        return len(s.sources) == len(self.parts) == 1 and plain and s.dilation[1] == 1

    def n_pointers(self, n_steps: int) -> int:
        return len(self.parts) * (n_steps * self.synapse.shape[1] * self.synapse.shape[2] + 1)

    def n_events(self, n_steps: int, graded: bool) -> int:
        """Events if every neuron fires at every step."""
        channels = int((self.parts[:, 1] - self.parts[:, 0]).sum())
        return (
            channels
            * n_steps
            * self.synapse.shape[1]
            * self.synapse.shape[2]
            * (1 if graded else self.synapse.max_count)
        )


@dataclass(frozen=True, eq=False)
class TapPlan:
    """A synapse with one weight a channel."""

    synapse: Synapse


@dataclass(frozen=True, eq=False)
class PopulationPlan:
    """How one population is computed.

    Parameters
    ----------
    population : Population
    membrane : {"float32", "int16", "int32"}
    lanes, n_tiles : int
    gathers : tuple of GatherPlan
    taps : tuple of TapPlan
    graded : bool
        Whether its events carry counts; if not, small pools of integers send one event a spike.
    id_bits : {16, 32}
    partial : {"float32", "int16", "int32"}
        Elements of the sums within a step.
    budget : int
        Events that a partial sum can take; 2^31 where it has no limit.
    """

    population: Population
    membrane: str
    lanes: int
    n_tiles: int
    gathers: tuple[GatherPlan, ...]
    taps: tuple[TapPlan, ...]
    graded: bool
    id_bits: int
    partial: str
    budget: int

    @property
    def element_bytes(self) -> int:
        return 2 if self.membrane == "int16" else 4

    @property
    def weight_type(self) -> str:
        return _WEIGHT[self.membrane]

    @property
    def words(self) -> int:
        """uint64 words of a position's spike mask."""
        return words_of(self.n_tiles * self.lanes)

    @cached_property
    def tile_rows(self) -> int:
        return sum(gather.rows for gather in self.gathers)

    @cached_property
    def positions(self) -> int:
        return self.population.shape[1] * self.population.shape[2]

    @property
    def padded(self) -> int:
        """Membranes, padding lanes included."""
        return self.positions * self.n_tiles * self.lanes

    @property
    def event_bytes(self) -> int:
        return self.id_bits // 8 * (2 if self.graded else 1)

    @property
    def runs(self) -> int:
        """Most runs and taps of one output position."""
        return sum(g.synapse.kernel[0] for g in self.gathers) + sum(
            t.synapse.kernel[0] * t.synapse.kernel[1] for t in self.taps
        )

    @property
    def scratch_bytes(self) -> int:
        """Bytes of `integrate`'s scratch memory: every input at every step, and room for the runs."""
        repeats = 1 if self.graded else max((g.synapse.max_count for g in self.gathers), default=1)
        return scratch_bytes(self.runs, self.tile_rows * repeats, self.event_bytes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all packed weights and parameters."""
        size = 1 if self.weight_type == "int8" else 4
        channels = self.n_tiles * self.lanes
        gathered = (self.tile_rows + 1) * channels * size
        tapped = (
            sum(t.synapse.kernel[0] * t.synapse.kernel[1] for t in self.taps) * channels * self.element_bytes
        )
        driven = sum(d.kernel[0] * d.kernel[1] * d.shape[0] for d in self.population.drives) * channels * size
        return gathered + tapped + driven + PARAMETER_ROWS * channels * self.element_bytes

    def queue_bytes(self, n_steps: int) -> int:
        """Bytes of its event queues in the worst case."""
        return sum(
            g.n_events(n_steps, self.graded) * self.event_bytes + COPY_BYTES + 16 + g.n_pointers(n_steps) * 4
            for g in self.gathers
        )

    def mask_bytes(self, n_steps: int) -> int:
        """Bytes of one plane of its masks."""
        return n_steps * self.positions * self.words * 8

    def workspace_bytes(self, n_steps: int, keep: bool) -> int:
        """Bytes of its masks, currents, membranes and scratch memory; `keep`: blocks follow each other."""
        fires, signed = self.population.fires, self.population.signed
        total = self.mask_bytes(n_steps) * (fires + signed) + self.scratch_bytes
        total += (
            self.padded
            * self.element_bytes
            * (bool(self.population.drives) + (keep or not fires) + (keep and signed))
        )
        return total + sum(int(np.prod(drive.shape)) for drive in self.population.drives) * self.element_bytes


@dataclass(frozen=True, eq=False)
class MaxPoolPlan:
    """How one max pool is computed.

    Parameters
    ----------
    population : MaxPool
    words : int
        uint64 words of a position's spike mask: the source's.
    """

    population: MaxPool
    words: int

    @property
    def n_tiles(self) -> int:
        """Words that hold channels."""
        return words_of(self.population.shape[0])

    @cached_property
    def positions(self) -> int:
        return self.population.shape[1] * self.population.shape[2]

    @property
    def in_positions(self) -> int:
        return self.population.source.shape[1] * self.population.source.shape[2]

    def counter(self, n_steps: int) -> str:
        """The narrowest integer that holds counts relative to a window's largest in a block of steps."""
        reach = n_steps * (3 if self.population.signed else 1)
        return next(name for name in ("int8", "int16", "int32") if reach <= np.iinfo(name).max)

    def scratch_bytes(self, n_steps: int) -> int:
        """Bytes of a vector of counters a step."""
        return n_steps * 64 * np.dtype(self.counter(n_steps)).itemsize

    def mask_bytes(self, n_steps: int) -> int:
        """Bytes of one plane of its masks."""
        return n_steps * self.positions * self.words * 8

    def workspace_bytes(self, n_steps: int, keep: bool) -> int:
        """Bytes of its masks, scratch memory and counts; `keep`: blocks follow each other."""
        counts = (self.positions + self.in_positions) * self.words * COUNTS_PER_MASK * 8 if keep else 0
        return self.mask_bytes(n_steps) * (1 + self.population.signed) + self.scratch_bytes(n_steps) + counts


@dataclass(frozen=True, eq=False)
class Plan:
    """How a circuit is simulated.

    Parameters
    ----------
    circuit : Circuit
    populations : tuple of PopulationPlan or MaxPoolPlan
    block_steps : int
        Steps that are run layer by layer at once; membranes and counts are kept from block to block.
    """

    circuit: Circuit
    populations: tuple[PopulationPlan | MaxPoolPlan, ...]
    block_steps: int

    @cached_property
    def neurons(self) -> tuple[PopulationPlan, ...]:
        """Without the max pools."""
        return tuple(p for p in self.populations if isinstance(p, PopulationPlan))

    @property
    def n_bytes(self) -> int:
        """Bytes of packed weights and parameters, shared by all threads."""
        return sum(p.weight_bytes for p in self.neurons)

    @property
    def workspace_bytes(self) -> int:
        """Bytes of one thread's masks, queues, currents and membranes, in the worst case."""
        return _workspace_bytes(self.circuit, self.populations, self.block_steps, self.keep_membranes)

    @property
    def keep_membranes(self) -> bool:
        """Whether blocks follow each other."""
        return self.block_steps < self.circuit.n_steps

    @cached_property
    def widest_planes(self) -> int:
        """Bit planes that count the spikes in any pooling window."""
        return max((s.max_count for p in self.neurons for s in p.population.synapses), default=1).bit_length()


def _workspace_bytes(
    circuit: Circuit, populations: Sequence[PopulationPlan | MaxPoolPlan], block_steps: int, keep: bool
) -> int:
    total = (
        0
        if circuit.analog
        else block_steps
        * circuit.input_shape[1]
        * circuit.input_shape[2]
        * words_of(circuit.input_shape[0])
        * 8
    )
    total += sum(p.workspace_bytes(block_steps, keep) for p in populations)
    return total + max(p.queue_bytes(block_steps) for p in populations if isinstance(p, PopulationPlan))


def plan(circuit: Circuit, membranes: tuple[str, ...] | None = None, block_steps: int | None = None) -> Plan:
    """Plan a circuit.

    Parameters
    ----------
    circuit : Circuit
    membranes : tuple of {"int16", "int32", None}, optional
        One a population, None for max pools, for circuits of integers. None: float32.
    block_steps : int, optional
        None: as many as fit the workspace goal of 128 MB, at most 64. Where neurons fire with a delay, all
        of them: a layer's first output step then needs later steps of its input.

    Raises
    ------
    RunError
        If a delay meets smaller blocks, or so many steps that a queue could pass 2^31 events.
    """
    kinds = membranes or ("float32",) * len(circuit.populations)
    words = {INPUT: words_of(circuit.input_shape[0])}
    populations: list[PopulationPlan | MaxPoolPlan] = []
    for i, (p, kind) in enumerate(zip(circuit.populations, kinds)):
        populations.append(
            MaxPoolPlan(p, words[p.source.population]) if isinstance(p, MaxPool) else _population(p, kind)
        )
        words[i] = populations[-1].words
    if circuit.delayed:
        _check_one_block(circuit, populations, block_steps)
        block_steps = circuit.n_steps
    elif block_steps is None:
        block_steps = min(BLOCK_STEPS, circuit.n_steps)
        while block_steps > 1 and _workspace_bytes(circuit, populations, block_steps, True) > _WORKSPACE_GOAL:
            block_steps = (block_steps + 1) // 2
    return Plan(circuit, tuple(populations), min(block_steps, circuit.n_steps))


def _check_one_block(
    circuit: Circuit, populations: Sequence[PopulationPlan | MaxPoolPlan], block_steps: int | None
) -> None:
    """Refuse what one block of all steps cannot be."""
    if block_steps is not None and block_steps < circuit.n_steps:
        raise RunError(
            "delayed firing needs all steps in one block",
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
            expected = "fewer than 2^31 in all steps, where a layer fires with a delay"
            raise RunError(
                "too many events for one block",
                where=f"layer {p.population.name!r}",
                got=f"up to {n_events}",
                expected=expected,
                hint="use fewer steps, or no delays",
            )


def _population(population: Population, membrane: str) -> PopulationPlan:
    largest = max((s.max_count for s in population.synapses), default=1)
    graded = largest > (1 if membrane == "float32" else _REPEATED)
    partial, budget = membrane, 1 << 31
    largest_term = 127 * (largest if graded else 1)
    if membrane == "int32" and 32767 // largest_term >= _LEAST_BUDGET:
        partial, budget = "int16", 32767 // largest_term // UNROLL * UNROLL
    channels = population.shape[0]
    choices = [
        n for n in _LANES[membrane] if partial != "int32" or n <= 64
    ]  # 128 sums of 32 bits fill all registers of NEON
    if membrane != "float32" and not population.synapses and not population.delay:
        choices = [16, *choices]  # nothing is added: no rows of int8 that would be too short
    lanes = min(choices, key=lambda n: (-(-channels // n) * (n + _ROW_OVERHEAD[membrane]), n))
    n_tiles = -(-channels // lanes)
    gathers = tuple(_gather(s, lanes, n_tiles) for s in population.synapses if not s.channelwise)
    taps = tuple(TapPlan(s) for s in population.synapses if s.channelwise)
    ids = max(
        sum(g.rows for g in gathers) + 1,
        max((g.part_channels * g.synapse.shape[2] for g in gathers), default=0),
    )
    id_bits = (
        16 if ids <= 1 << 16 and (not graded or largest <= (256 if membrane == "float32" else 65535)) else 32
    )
    return PopulationPlan(
        population, membrane, lanes, n_tiles, gathers, taps, graded, id_bits, partial, budget
    )


def _gather(synapse: Synapse, lanes: int, n_tiles: int) -> GatherPlan:
    channels, height, width = synapse.shape
    n_out, n_in = synapse.weight.shape[0] // synapse.groups, synapse.weight.shape[1]
    if synapse.groups == 1:
        parts = np.array([[0, channels]], np.int64)
    else:  # the groups that a tile's output channels fall into
        first = np.arange(n_tiles) * lanes
        last = np.minimum(first + lanes, synapse.weight.shape[0]) - 1
        parts = np.stack([first // n_out * n_in, (last // n_out + 1) * n_in], axis=1).astype(np.int64)
    part_channels = int((parts[:, 1] - parts[:, 0]).max())
    dilation = synapse.dilation[1]
    columns = np.concatenate([np.arange(r, width, dilation) for r in range(min(dilation, width))]).astype(
        np.int32
    )
    kernel, stride, pad = synapse.kernel, synapse.stride, synapse.padding
    out_width = (width + pad[1] + pad[3] - (kernel[1] - 1) * dilation - 1) // stride[1] + 1
    out_height = (height + pad[0] + pad[2] - (kernel[0] - 1) * synapse.dilation[0] - 1) // stride[0] + 1
    column_table = _column_table(
        np.arange(out_width) * stride[1] - pad[1], kernel[1], dilation, width, part_channels
    )
    row_table = _row_table(np.arange(out_height) * stride[0] - pad[0], kernel[0], synapse.dilation[0], height)
    if max(np.abs(column_table).max(), np.abs(row_table).max()) >= 1 << 31:
        raise RunError(
            "a map is too wide",
            got=f"{width} columns of {channels} channels",
            expected="fewer than 2^31 elements a row",
        )
    return GatherPlan(
        synapse, parts, part_channels, columns, column_table.astype(np.int32), row_table.astype(np.int32)
    )


def _column_table(
    start: np.ndarray, kernel: int, dilation: int, width: int, part_channels: int
) -> np.ndarray:
    """Queue columns of the taps at ``start + j * dilation``, and where tap 0 would be, times the channels."""
    residue = start % dilation
    residues = np.arange(min(dilation, width))
    before = np.concatenate(
        [[0], np.cumsum((width - 1 - residues) // dilation + 1)]
    )  # columns of smaller residues
    origin = before[np.minimum(residue, len(residues))] + (start - residue) // dilation
    first = np.maximum(0, -(start // dilation))
    last = np.minimum(kernel, (width - 1 - start) // dilation + 1)
    table = np.stack([origin + first, origin + last, origin * part_channels], axis=1)
    table[first >= last] = 0
    return table


def _row_table(start: np.ndarray, kernel: int, dilation: int, height: int) -> np.ndarray:
    """Kernel rows that fall inside the map, and the map row of kernel row 0."""
    first = np.maximum(0, -(start // dilation))
    return np.stack(
        [first, np.maximum(first, np.minimum(kernel, (height - 1 - start) // dilation + 1)), start], axis=1
    )


@dataclass(frozen=True, eq=False)
class Packed:
    """A population's weights and parameters as the kernels read them: bytes that start on a cache line.

    Parameters
    ----------
    weights : [tile][synapse][ky][kx][channel][lane], and a row of zeros behind each tile
    taps : tuple of [tile][ky][kx][lane], membranes' element
    drives : tuple of [tile][ky][kx][channel][lane]
    parameters : [tile][bias, threshold, v_init, leak, v_negative][lane], membranes' element
    """

    weights: np.ndarray
    taps: tuple[np.ndarray, ...]
    drives: tuple[np.ndarray, ...]
    parameters: np.ndarray


def pack(p: PopulationPlan) -> Packed:
    """Lay a population's weights out for the kernels."""
    weight_type = np.dtype(p.weight_type)
    weights = (
        aligned(p.n_tiles * (p.tile_rows + 1) * p.lanes * weight_type.itemsize)
        .view(weight_type)
        .reshape(p.n_tiles, p.tile_rows + 1, p.lanes)
    )
    taps = tuple(_lanes_of(t.synapse, p, np.dtype(p.membrane)) for t in p.taps)
    drives = tuple(_lanes_of(d, p, weight_type, dense=True) for d in p.population.drives)
    for tile in range(p.n_tiles):
        row = 0
        for gather in p.gathers:
            block = weights[tile, row : row + gather.rows].reshape(
                *gather.synapse.kernel, gather.part_channels, p.lanes
            )
            first, last = gather.parts[tile if len(gather.parts) > 1 else 0]
            _fill(block, gather.synapse, tile * p.lanes, int(first), int(last))
            row += gather.rows
    return Packed(weights, taps, drives, _parameters(p))


def _fill(block: np.ndarray, synapse: Synapse, first_out: int, first_in: int, last_in: int) -> None:
    """Effective weights of a tile into ``block`` (ky, kx, channel, lane); other groups' stay 0."""
    n_out, n_in = synapse.weight.shape[0] // synapse.groups, synapse.weight.shape[1]
    last_out = min(first_out + block.shape[3], synapse.weight.shape[0])
    if synapse.groups == 1:
        block[:, :, : last_in - first_in, : last_out - first_out] = synapse.effective(
            slice(first_out, last_out)
        ).transpose(2, 3, 1, 0)
        return
    for group in range(first_out // n_out, (last_out - 1) // n_out + 1):
        low, high = max(first_out, group * n_out), min(last_out, (group + 1) * n_out)
        inputs = slice(group * n_in - first_in, (group + 1) * n_in - first_in)
        block[:, :, inputs, low - first_out : high - first_out] = synapse.effective(
            slice(low, high)
        ).transpose(2, 3, 1, 0)


def _lanes_of(synapse: Synapse, p: PopulationPlan, dtype: np.dtype, dense: bool = False) -> np.ndarray:
    """Weights as (tile, ky, kx, lane), or (tile, ky, kx, channel, lane) with every group's zeros."""
    channels = synapse.shape[0] if dense else 1
    shape = (p.n_tiles, *synapse.kernel, channels, p.lanes)
    block = aligned(int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
    for tile in range(p.n_tiles):
        if dense:
            _fill(block[tile], synapse, tile * p.lanes, 0, channels)
        else:
            part = synapse.effective(slice(tile * p.lanes, (tile + 1) * p.lanes))
            block[tile, ..., : part.shape[0]] = part.transpose(2, 3, 1, 0)
    return block


def _parameters(p: PopulationPlan) -> np.ndarray:
    """Bias, threshold, v_init, leak and v_negative of every lane; lanes without a neuron never fire."""
    dtype = np.dtype(p.membrane)
    never, least = (
        (np.inf, -np.inf) if p.membrane == "float32" else (np.iinfo(dtype).max, np.iinfo(dtype).min)
    )
    out = (
        aligned(p.n_tiles * PARAMETER_ROWS * p.lanes * dtype.itemsize)
        .view(dtype)
        .reshape(p.n_tiles, PARAMETER_ROWS, p.lanes)
    )
    population, channels = p.population, p.population.shape[0]
    if p.membrane == "float32":
        leak = population.leak
    else:
        leak = (
            min(leak_shift(population.leak), 8 * dtype.itemsize - 1) if population.leak < 1 else 0
        )  # a wider shift has no meaning
    threshold = never if population.v_threshold is None else population.v_threshold
    v_negative = (
        np.maximum(population.v_negative, least) if population.signed else least
    )  # no membrane is below its type's least
    for row, (values, rest) in enumerate(
        ((population.bias, 0), (threshold, never), (population.v_init, 0), (leak, 0), (v_negative, least))
    ):
        flat = np.full(p.n_tiles * p.lanes, rest, dtype)
        flat[:channels] = values
        out[:, row] = flat.reshape(p.n_tiles, p.lanes)
    return out
