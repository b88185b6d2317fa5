"""What the generated code does: views of spikes, stages that fill them row by row, and the order of the rows.

A stage is a population, a max pool, or the sums of a pooling window that no population can make on its way.
It computes all steps of a row before the next, and a row of the next stage as soon as the rows that it reads
are there; so a view keeps few rows, and membranes live only while their neuron is in hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from evsnn.circuit.neuron import LEAK
from evsnn.circuit.populations import INPUT, MaxPool, Population, Projection, Source
from evsnn.circuit.quantized import QuantizedNetwork
from evsnn.errors import RunError
from evsnn.network.geometry import Window

__all__ = [
    "TILE",
    "Key",
    "Program",
    "Read",
    "Stage",
    "View",
    "groups_of",
    "key_of",
    "live_sources",
    "padded_to_tiles",
    "program_of",
]

FIELD_BITS = (1, 4, 8, 16)
TILE = 8
"""Neurons of 32 bits that the runtime computes together."""


@dataclass(frozen=True)
class Key:
    """What a projection sees: which spikes of which population, through which pool."""

    population: int
    negative: bool = False
    pool: Window | None = None

    @property
    def spikes(self) -> Key:
        """The same without the pool."""
        return replace(self, pool=None)


def key_of(source: Source) -> Key:
    return Key(source.population, source.negative, source.pool)


@dataclass(frozen=True)
class Read:
    """A window that slides over a view.

    Parameters
    ----------
    key : Key
    kernel, stride, dilation : (vertical, horizontal)
    padding : (top, left)
    """

    key: Key
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def span(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """The first and last position that outputs `first` to `last` read along an axis, inside the map or
        not.
        """
        low = first * self.stride[axis] - self.padding[axis]
        return (
            low,
            last * self.stride[axis] - self.padding[axis] + (self.kernel[axis] - 1) * self.dilation[axis],
        )


@dataclass(frozen=True)
class View:
    """Counts of a population's spikes as they are kept: rows of [step][column][word].

    Parameters
    ----------
    key : Key
    shape : (channels, height, width)
    field_bits : int
        Bits of a count.
    left, right : int
        Columns of zeros beside the map.
    ring : int
        Rows kept.
    """

    key: Key
    shape: tuple[int, int, int]
    field_bits: int
    left: int = 0
    right: int = 0
    ring: int = 1

    @property
    def word_bits(self) -> int:
        """8 or 16 where a position has no more bits, else 32."""
        return next((bits for bits in (8, 16) if self.shape[0] * self.field_bits <= bits), 32)

    @property
    def words(self) -> int:
        return -(-self.shape[0] * self.field_bits // self.word_bits)

    @property
    def step_bytes(self) -> int:
        return (self.left + self.shape[2] + self.right) * self.words * self.word_bits // 8

    def row_bytes(self, n_steps: int) -> int:
        """Of a row, filled up to whole words of 32 bits."""
        return -(-self.step_bytes * n_steps // 4) * 4

    def n_bytes(self, n_steps: int) -> int:
        return self.ring * self.row_bytes(n_steps)


@dataclass(frozen=True)
class Stage:
    """Something that computes rows.

    Parameters
    ----------
    kind : {"population", "maxpool", "pool"}
    population : int
    rows : int
        Of windows.
    width : int
        Windows in a row.
    window : (vertical, horizontal)
        Neurons whose spikes are counted together.
    reads : tuple of Read
        Each window slides over neurons, not over windows of neurons.
    writes : tuple of Key
    tally : Projection, optional
        The readout's projection that this population charges with its spike counts; nothing is kept.
    """

    kind: str
    population: int
    rows: int
    width: int
    window: tuple[int, int]
    reads: tuple[Read, ...]
    writes: tuple[Key, ...]
    tally: Projection | None = None


@dataclass(frozen=True, eq=False)
class Program:
    """A network as rows of stages.

    Parameters
    ----------
    network : QuantizedNetwork
    stages : tuple of Stage
        Each behind those that it reads.
    views : dict of Key to View
    schedule : tuple of int
        Which stage computes its next row.
    counts : bool
        Whether the readout is charged by spike counts, and is no stage.
    by_step : bool
        Whether all rows are computed once a step, and membranes kept, instead of all steps of a row at once.
    compact : bool
        Whether weights of 32-bit layers take 1 byte, not 2.
    """

    network: QuantizedNetwork
    stages: tuple[Stage, ...]
    views: dict[Key, View] = field(repr=False)
    schedule: tuple[int, ...] = field(repr=False)
    counts: bool
    by_step: bool
    compact: bool = False

    @property
    def n_steps(self) -> int:
        return self.network.n_steps

    @property
    def view_steps(self) -> int:
        """Steps that a row of a view holds."""
        return 1 if self.by_step else self.n_steps

    def view_lives(self) -> dict[Key, tuple[int, int]]:
        """From which to which place in the schedule each view is needed."""
        made, used = _lives(self.stages, self.views, self.schedule)
        end = len(self.schedule)
        return {key: (min(made[key]), max(used[key])) if made[key] else (0, end) for key in self.views}


def program_of(network: QuantizedNetwork, by_step: bool = False, compact: bool = False) -> Program:
    """The stages, views and order of a network.

    Raises
    ------
    RunError
        If it is to run step by step, and a layer's step needs later steps of the layer before it.
    """
    if by_step and network.circuit.has_warm_up:
        raise RunError("a network with delays cannot run step by step", hint="export it layer by layer")
    populations = network.circuit.populations
    counts = _counts(populations)
    readers = populations[:-1] if counts else populations
    needed: dict[Key, None] = {}  # a set in order
    for population in readers:
        needed |= dict.fromkeys(read.key for read in _reads(population, populations))
    stages = [
        stage
        for key in needed
        if key.population == INPUT and key.pool
        for stage in _pool_stages(INPUT, (False,), network.circuit.input_shape, [key.pool])
    ]
    needed |= {key.spikes: None for key in needed if key.population == INPUT}
    for i, population in enumerate(readers):
        stages += _stages(i, population, [key for key in needed if key.population == i], populations, counts)
    schedule = _schedule(stages)
    views = _views(stages, needed, network, schedule)
    return Program(network, tuple(stages), views, tuple(schedule), counts, by_step, compact)


def _counts(populations: Sequence[Population | MaxPool]) -> bool:
    """Whether the readout needs nothing but how many spikes each neuron sends: it integrates, and nobody else
    reads its sources.
    """
    last = populations[-1]
    if last.fires or LEAK in last.features or last.analog_projections or not last.projections:
        return False
    sources = [key_of(source) for projection in last.projections for source in projection.sources]
    others = {
        read.key.population for population in populations[:-1] for read in _reads(population, populations)
    }
    for projection in last.projections:
        covers = (
            projection.kernel == projection.shape[1:]
            and not any(projection.padding)
            and projection.groups == 1
            and len(projection.sources) == 1
        )
        source, *_ = projection.sources
        alone = (
            source.population not in others
            and source.population != INPUT
            and not isinstance(populations[source.population], MaxPool)
        )
        if not (covers and alone and _direct(source.pool)):
            return False
    return len({(key.population, key.negative) for key in sources}) == len(sources)


def _direct(pool: Window | None) -> bool:
    """Whether a population can count spikes in the pool's windows as it makes them."""
    return pool is None or (pool.stride == pool.kernel and not any(pool.padding))


def _reads(population: Population | MaxPool, populations: Sequence[Population | MaxPool]) -> Iterator[Read]:
    if isinstance(population, MaxPool):
        for negative in (False, True) if population.has_negative_spikes else (False,):
            yield Read(
                Key(population.source.population, negative),
                population.window.kernel,
                population.window.stride,
                population.window.padding[:2],
            )
        return
    for projection in population.projections:
        for source in live_sources(projection, populations):
            yield Read(
                key_of(source),
                projection.kernel,
                projection.stride,
                projection.padding[:2],
                projection.dilation,
            )


def live_sources(projection: Projection, populations: Sequence[Population | MaxPool]) -> list[Source]:
    """The sources of a projection that ever send anything: not the negative spikes of neurons that send
    none.
    """
    return [
        s
        for s in projection.sources
        if not s.negative or (s.population != INPUT and populations[s.population].has_negative_spikes)
    ]


def _stages(
    i: int,
    population: Population | MaxPool,
    needed: Sequence[Key],
    populations: Sequence[Population | MaxPool],
    counts: bool,
) -> Iterator[Stage]:
    """The stages that make what is needed of a population."""
    reads = tuple(_reads(population, populations))
    signs = (False, True) if population.has_negative_spikes else (False,)
    if isinstance(population, MaxPool):
        yield Stage(
            "maxpool",
            i,
            population.shape[1],
            population.shape[2],
            (1, 1),
            reads,
            tuple(Key(i, sign) for sign in signs),
        )
        pools = dict.fromkeys(key.pool for key in needed if key.pool)
    else:
        tally = (
            next((s for s in populations[-1].projections if s.sources[0].population == i), None)
            if counts
            else None
        )
        pools = dict.fromkeys(key.pool for key in needed)
        own = (
            tally.sources[0].pool
            if tally
            else next(iter(pools))
            if len(pools) == 1 and _direct(next(iter(pools)))
            else None
        )
        window = own.kernel if own else (1, 1)
        rows, width = population.shape[1] // window[0], population.shape[2] // window[1]
        keeps = population.fires and not tally and bool(needed)
        yield Stage(
            "population",
            i,
            rows,
            width,
            window,
            reads,
            tuple(Key(i, sign, own) for sign in signs) if keeps else (),
            tally,
        )
        pools = [pool for pool in pools if pool and pool != own]
    yield from _pool_stages(i, signs, population.shape, pools)


def _pool_stages(
    i: int, signs: Sequence[bool], shape: tuple[int, int, int], pools: Iterable[Window]
) -> Iterator[Stage]:
    """The sums of windows that overlap, or that only some of a population's targets see."""
    for pool in pools:
        for sign in signs:
            _, height, width = _pooled(shape, pool)
            key = Key(i, sign, pool)
            yield Stage(
                "pool",
                i,
                height,
                width,
                (1, 1),
                (Read(key.spikes, pool.kernel, pool.stride, pool.padding[:2]),),
                (key,),
            )


def _pooled(shape: tuple[int, int, int], pool: Window | None) -> tuple[int, int, int]:
    if pool is None:
        return shape
    return (
        shape[0],
        *(
            (n + pool.padding[a] + pool.padding[2 + a] - pool.kernel[a]) // pool.stride[a] + 1
            for a, n in enumerate(shape[1:])
        ),
    )


def _rows_read(stage: Stage, read: Read, row: int, height: int) -> tuple[int, int]:
    """Rows of a view, first and last, that a row of a stage reads; last < first: none."""
    low, high = read.span(0, row * stage.window[0], (row + 1) * stage.window[0] - 1)
    return max(0, low), min(height - 1, high)


def _schedule(stages: Sequence[Stage]) -> list[int]:
    """The order of the rows: as late as possible, so that few are kept."""
    maker = {key: i for i, stage in enumerate(stages) for key in stage.writes}
    done, order = [0] * len(stages), []
    todo = [
        (i, stage.rows)
        for i, stage in enumerate(stages)
        if not any(key in {read.key for s in stages for read in s.reads} for key in stage.writes)
    ]
    for last, rows in todo:
        for row in range(rows):
            pending = [(last, row)]
            while pending:
                i, wanted = pending[-1]
                if done[i] > wanted:
                    pending.pop()
                    continue
                missing = []
                for read in stages[i].reads:
                    if (source := maker.get(read.key)) is not None:
                        _, high = _rows_read(stages[i], read, done[i], stages[source].rows)
                        if high >= done[source]:
                            missing.append((source, high))
                if missing:
                    pending += missing
                else:
                    order.append(i)
                    done[i] += 1
    return order


def _lives(
    stages: Sequence[Stage], views: dict[Key, View], schedule: Sequence[int]
) -> tuple[dict[Key, list[int]], dict[Key, list[int]]]:
    """For each view, where in the schedule its rows are made, and used last."""
    made: dict[Key, list[int]] = {key: [] for key in views}
    used: dict[Key, list[int]] = {key: [] for key in views}
    row = [0] * len(stages)
    for at, i in enumerate(schedule):
        for key in stages[i].writes:
            made[key].append(at)
            used[key].append(at)
        for read in stages[i].reads:
            low, high = _rows_read(stages[i], read, row[i], views[read.key].shape[1])
            for y in range(low, high + 1):
                if made[read.key]:
                    used[read.key][y] = at
        row[i] += 1
    return made, used


def _views(
    stages: Sequence[Stage], needed: dict[Key, None], network: QuantizedNetwork, schedule: Sequence[int]
) -> dict[Key, View]:
    populations = network.circuit.populations
    keys = dict.fromkeys(
        [*(key for key in needed if key == Key(INPUT)), *(key for stage in stages for key in stage.writes)]
    )
    views = {}
    for key in keys:
        shape = _pooled(
            network.circuit.input_shape if key.population == INPUT else populations[key.population].shape,
            key.pool,
        )
        left = right = 0
        for stage in stages:
            for read in stage.reads:
                if read.key == key:
                    low, high = read.span(1, 0, stage.width * stage.window[1] - 1)
                    left, right = max(left, -low), max(right, high - shape[2] + 1)
        area = key.pool.area if key.pool else 1
        bits = next(bits for bits in FIELD_BITS if area < 1 << bits)
        views[key] = View(key, shape, bits, left, right, shape[1])
    made, used = _lives(stages, views, schedule)
    for key, view in views.items():
        if made[key]:  # the input's spikes are all there before the first row
            at, last, rows = made[key], used[key], len(made[key])
            ring = next(r for r in range(1, rows + 1) if all(last[y] < at[y + r] for y in range(rows - r)))
            views[key] = replace(view, ring=ring)
    return views


def padded_to_tiles(values: np.ndarray, groups: int, tile: int, fill: int = 0) -> np.ndarray:
    """Channels' values with each group filled up to whole tiles."""
    per_group = len(values) // groups
    tiles = -(-per_group // tile)
    padded = np.full((groups, tiles * tile), fill, np.int64)
    padded[:, :per_group] = values.reshape(groups, per_group)
    return padded.ravel()


def groups_of(p: Population) -> int:
    """Into how many groups a population's outputs fall, each with inputs of its own."""
    return int(
        np.lcm.reduce(
            [s.groups for s in (*(s for s in p.projections if not s.channelwise), *p.analog_projections)]
            or [1]
        )
    )
