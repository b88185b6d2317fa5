"""Stages: what computes rows of spikes, and what they read and write.

A stage is a population, a max pool, or the sums of a pooling window that no population can make on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from evsnn.circuit.neuron import LEAK
from evsnn.circuit.populations import INPUT, Circuit, MaxPool, Population, Projection, Source
from evsnn.network.geometry import Window

from .views import Key, Read, key_of

__all__ = ["Stage", "live_sources", "readout_counts", "stages_of"]


@dataclass(frozen=True, kw_only=True)
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
    readout : Projection, optional
        The projection through which the readout integrates this population's totals; no spike is kept.
    """

    kind: str
    population: int
    rows: int
    width: int
    window: tuple[int, int] = (1, 1)
    reads: tuple[Read, ...]
    writes: tuple[Key, ...]
    readout: Projection | None = None


def stages_of(circuit: Circuit) -> tuple[list[Stage], list[Key]]:
    """The stages of a circuit, each behind those that it reads, and all that they read.

    Parameters
    ----------
    circuit : Circuit

    Returns
    -------
    stages : list of Stage
    needed : list of Key
    """
    populations, counts = circuit.populations, readout_counts(circuit)
    readers = populations[:-1] if counts else populations
    counted = circuit.readout.projections if counts else ()
    needed: dict[Key, None] = {}  # a set in order
    for population in readers:
        needed |= dict.fromkeys(read.key for read in _reads(population, populations))
    stages = [
        stage
        for key in needed
        if key.population == INPUT and key.pool
        for stage in _pool_stages(INPUT, (False,), circuit.input_shape, [key.pool])
    ]
    needed |= {key.spikes: None for key in needed if key.population == INPUT}
    for i, population in enumerate(readers):
        own = [key for key in needed if key.population == i]
        if isinstance(population, MaxPool):
            stages += _max_pool_stages(i, population, own, populations)
        else:
            stages += _population_stages(i, population, own, circuit, counted)
    return stages, list(needed)


def readout_counts(circuit: Circuit) -> bool:
    """Whether the readout needs nothing but how many spikes each neuron sends: it is the only one, it
    integrates, and nobody else reads its sources.
    """
    populations = circuit.populations
    if len(circuit.readouts) > 1:
        return False
    last = circuit.readout
    if last.fires or LEAK in last.features or last.analog_projections or not last.projections:
        return False
    sources = [key_of(source) for projection in last.projections for source in projection.sources]
    others = {
        read.key.population for population in populations[:-1] for read in _reads(population, populations)
    }
    for projection in last.projections:
        covers = (
            projection.kernel == projection.size
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
        if not (covers and alone and _counted_on_the_way(source.pool)):
            return False
    return len({(key.population, key.negative) for key in sources}) == len(sources)


def live_sources(projection: Projection, populations: Sequence[Population | MaxPool]) -> list[Source]:
    """The sources of a projection that ever send anything: not the negative spikes of neurons that send
    none.
    """
    return [
        s
        for s in projection.sources
        if not s.negative or (s.population != INPUT and populations[s.population].has_negative_spikes)
    ]


def _counted_on_the_way(pool: Window | None) -> bool:
    """Whether a population can count spikes in the pool's windows as it makes them."""
    return pool is None or pool.tiles


def _reads(population: Population | MaxPool, populations: Sequence[Population | MaxPool]) -> Iterator[Read]:
    if isinstance(population, MaxPool):
        for negative in (False, True) if population.has_negative_spikes else (False,):
            yield Read(Key(population.source.population, negative), population.window)
        return
    for projection in population.projections:
        for source in live_sources(projection, populations):
            yield Read(key_of(source), projection.window)


def _signs(population: Population | MaxPool) -> tuple[bool, ...]:
    """Which spikes it sends: negative ones as well?"""
    return (False, True) if population.has_negative_spikes else (False,)


def _max_pool_stages(
    i: int, pool: MaxPool, needed: Sequence[Key], populations: Sequence[Population | MaxPool]
) -> Iterator[Stage]:
    yield Stage(
        kind="maxpool",
        population=i,
        rows=pool.shape[1],
        width=pool.shape[2],
        reads=tuple(_reads(pool, populations)),
        writes=tuple(Key(i, sign) for sign in _signs(pool)),
    )
    yield from _pool_stages(
        i, _signs(pool), pool.shape, dict.fromkeys(key.pool for key in needed if key.pool)
    )


def _population_stages(
    i: int,
    population: Population,
    needed: Sequence[Key],
    circuit: Circuit,
    counted: Sequence[Projection],
) -> Iterator[Stage]:
    """The stages that make what is needed of a population; `counted` are the projections of a readout that
    integrates totals.
    """
    populations = circuit.populations
    readout = next((s for s in counted if s.sources[0].population == i), None)
    pools = list(dict.fromkeys(key.pool for key in needed))
    own = None  # the pool whose windows it counts itself
    if readout:
        own = readout.sources[0].pool
    elif len(pools) == 1 and _counted_on_the_way(pools[0]) and i not in circuit.readouts:
        own = pools[0]
    rows, width = own.output_size(population.shape[1:]) if own else population.shape[1:]
    yield Stage(
        kind="population",
        population=i,
        rows=rows,
        width=width,
        window=own.kernel if own else (1, 1),
        reads=tuple(_reads(population, populations)),
        writes=tuple(Key(i, sign, own) for sign in _signs(population))
        if population.fires and not readout and needed
        else (),
        readout=readout,
    )
    rest = [pool for pool in pools if pool and pool != own]
    yield from _pool_stages(i, _signs(population), population.shape, rest)


def _pool_stages(
    i: int, signs: Sequence[bool], shape: tuple[int, int, int], pools: Iterable[Window]
) -> Iterator[Stage]:
    """The sums of windows that overlap, or that only some of a population's targets see."""
    for pool in pools:
        rows, width = pool.output_size(shape[1:])
        for sign in signs:
            key = Key(i, sign, pool)
            yield Stage(
                kind="pool",
                population=i,
                rows=rows,
                width=width,
                reads=(Read(key.spikes, pool),),
                writes=(key,),
            )
