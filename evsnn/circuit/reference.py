"""The reference: a slow, obvious simulator, docs/arithmetic.md in NumPy, layer by layer, step by step.

Every spike and every membrane of the event-driven engine equals the reference's, bit for bit. It runs where
numba does not, and tests compare with it. The same code computes float32 and integers: in float32, products
are added to the membrane one at a time, in the specified order; sums of integers are exact in int64.

A run is `start` and then `advance`, once or block by block, in the engine's order: a block of steps of one
population, then of the next. Graded spikes are one block that cannot be divided: each population takes in
all of its input, and then sends its counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RunError
from ..network.geometry import Window
from .neuron import GRADED, LEAK, NEGATIVE_SPIKES, WARM_UP, Membranes
from .populations import (
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
    Source,
    check_supported,
    shifted,
)

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = [
    "SUPPORTS",
    "State",
    "Trace",
    "advance",
    "needed_bytes",
    "pooled_input",
    "run",
    "seen",
    "start",
]

SUPPORTS = frozenset(
    {ANALOG_INPUT, ANALOG_SHIFT, GRADED, GROUPS, LEAK, MAX_POOL, NEGATIVE_SPIKES, POOLED_SOURCES, WARM_UP}
)
"""The features of populations that the reference computes."""


@dataclass(frozen=True, eq=False)
class Trace:
    """What one population did in a block of steps.

    Parameters
    ----------
    spikes : (n_samples, n_steps, channels, height, width) bool
        int8 of -1, 0 and 1 if the population has negative spikes; of graded spikes the counts of all steps,
        (n_samples, 1, ...) uint8.
    v_mem : (n_samples, channels, height, width) float32 or int64, optional
        After the last step. None: a max pool, which has no membranes.
    n_events, sops : int
        As in `evsnn.result.LayerResult`.
    v_mem_at : dict of int to (n_samples, channels, height, width)
        Membranes after the recorded steps; only of the last population, if it never fires.
    """

    spikes: np.ndarray
    v_mem: np.ndarray | None
    n_events: int
    sops: int
    v_mem_at: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass(eq=False)
class PoolCounts:
    """The counts of a max pool: the spikes of its inputs, and the largest count of each window."""

    received: np.ndarray
    largest: np.ndarray


@dataclass(eq=False)
class State:
    """Where a run is: what one block of steps leaves to the next.

    Parameters
    ----------
    populations : list of Membranes or PoolCounts
        In the circuit's order.
    currents : mapping of int to (n_samples or 1, channels, height, width)
        The constant current of each population of neurons.
    step : int
        The number of steps that are done.
    """

    populations: list[Membranes | PoolCounts]
    currents: Mapping[int, np.ndarray]
    step: int = 0

    def membranes(self, i: int) -> Membranes:
        """Those of population i, which has neurons."""
        own = self.populations[i]
        if not isinstance(own, Membranes):
            raise RunError("the state belongs to another circuit", where=f"population {i}")
        return own

    def counts(self, i: int) -> PoolCounts:
        """Those of population i, which is a max pool."""
        own = self.populations[i]
        if not isinstance(own, PoolCounts):
            raise RunError("the state belongs to another circuit", where=f"population {i}")
        return own


def run(circuit: Circuit, inputs: np.ndarray, record_steps: Collection[int] = ()) -> list[Trace]:
    """Simulate all steps.

    Parameters
    ----------
    circuit : Circuit
        In floats or in integers.
    inputs : (n, channels, height, width) float32 or integer
        A constant current. Spikes are (n, n_steps, channels, height, width) bool.
    record_steps : collection of int
        Steps after which to keep the membranes of a readout that never fires.

    Returns
    -------
    list of Trace
        One per population.
    """
    state = start(circuit, len(inputs), inputs if circuit.analog else None)
    return advance(circuit, state, circuit.n_steps, None if circuit.analog else inputs, record_steps)


def needed_bytes(circuit: Circuit) -> int:
    """Bytes that `run` takes for one sample: what it holds to the end, and the most work of a population.

    Parameters
    ----------
    circuit : Circuit
    """
    size = 4 if circuit.readout.bias.dtype == np.float32 else 8
    held, most = size * math.prod(circuit.input_shape), 0
    for p in circuit.populations:
        held += p.n_neurons * (
            circuit.n_steps if circuit.coding == "steps" else 9
        )  # spikes; or counts, twice
        if isinstance(p, MaxPool):
            held += 8 * (p.n_inputs + p.n_neurons)
            most = max(
                most, 8 * (_padded_size(p.source.shape[0], p.source.shape[1:], p.window) + p.n_neurons)
            )
        else:
            held += p.n_neurons * (4 * size + 9)  # v, n and what fires; the current; v of the trace
            work = [_working_bytes(s, size, 8) for s in p.projections]
            work += [_working_bytes(s, size, size) for s in p.analog_projections]
            most = max(most, *work, 0)
    return held + most


def _working_bytes(projection: Projection, size: int, value: int) -> int:
    """Bytes of the work on a projection, if its inputs have `value` bytes and membranes `size`."""
    sources = [source.shape[0] * math.prod(source.seen_size) for source in projection.sources]
    pools = [
        value * (math.prod(s.shape) + _padded_size(s.shape[0], s.shape[1:], s.pool))
        for s in projection.sources
        if s.pool is not None
    ]
    n_out = projection.weight.shape[0] // projection.groups
    products = size * (n_out + 1) * math.prod(projection.window.output_size(projection.size))
    inputs = value * sum(sources)
    tap = size * n_out * projection.weight.shape[1]  # the weights of one position of the kernel
    work = max(projection.effective_bytes(n_out), tap + products)
    return inputs + max(inputs, max(pools, default=0), work)


def _padded_size(channels: int, size: tuple[int, int], window: Window) -> int:
    return channels * window.padded(0, size[0]) * window.padded(1, size[1])


def start(circuit: Circuit, n_samples: int, inputs: np.ndarray | None = None) -> State:
    """The state before the first step.

    Parameters
    ----------
    circuit : Circuit
    n_samples : int
    inputs : (n_samples, channels, height, width) float32 or integer, optional
        The constant current; None if the input is spikes.

    Raises
    ------
    RunError
        If the circuit has a feature that is not in `SUPPORTS`.
    """
    check_supported(circuit, SUPPORTS, "the reference")
    dtype = np.float32 if circuit.readout.bias.dtype == np.float32 else np.int64
    if inputs is None:
        if circuit.analog:
            raise RunError("a network of constant currents needs its inputs from the start")
        inputs = np.zeros((1, *circuit.input_shape))  # which no population reads
    inputs = inputs.astype(dtype)
    populations: list[Membranes | PoolCounts] = []
    currents = {}
    for i, p in enumerate(circuit.populations):
        if isinstance(p, MaxPool):
            shapes = (n_samples, *p.source.shape), (n_samples, *p.shape)
            populations.append(PoolCounts(*(np.zeros(shape, np.int64) for shape in shapes)))
        else:
            populations.append(Membranes(p.neuron, (n_samples, *p.shape), 1, dtype))
            currents[i] = _constant_current(p, inputs, dtype)
    return State(populations, currents)


def advance(
    circuit: Circuit,
    state: State,
    n_steps: int,
    inputs: np.ndarray | None = None,
    record_steps: Collection[int] = (),
) -> list[Trace]:
    """Simulate a block of steps, population after population, and move the state on.

    Parameters
    ----------
    circuit : Circuit
    state : State
        Of this circuit. It is changed in place.
    n_steps : int
    inputs : (n_samples, n_steps, channels, height, width) bool, optional
        The spikes of the input in these steps; None for a constant current.
    record_steps : collection of int
        Steps, counted from the start of the run, after which to keep the membranes of a readout that never
        fires.

    Returns
    -------
    list of Trace
        One per population, of these steps.

    Raises
    ------
    RunError
        If the circuit has a warm-up or graded spikes, and these are not all of its steps.
    """
    undivided = circuit.has_warm_up or circuit.coding == "graded"
    if undivided and (state.step or n_steps != circuit.n_steps):
        raise RunError(
            "a network with a warm-up or graded spikes runs all its steps at once",
            got=n_steps,
            expected=circuit.n_steps,
        )
    if circuit.coding == "graded":
        return _advance_graded(circuit, state, inputs)
    traces: list[Trace] = []
    trains = {} if inputs is None else {INPUT: inputs}
    first = state.populations[0]
    n_samples = len(first.v if isinstance(first, Membranes) else first.received)
    for i, p in enumerate(circuit.populations):
        spikes = np.zeros((n_samples, n_steps, *p.shape), np.int8 if p.has_negative_spikes else bool)
        trains[i] = spikes
        if isinstance(p, MaxPool):
            train = trains[p.source.population]
            _pool(p, state.counts(i), train, spikes)
            traces.append(Trace(spikes, None, int(np.count_nonzero(train)), 0))
            continue
        own, events, kept = state.membranes(i), np.zeros(2, np.int64), {}
        reads = {source.population for projection in p.projections for source in projection.sources}
        warm_up = p.neuron.warm_up_steps
        for u in range(n_steps + warm_up):
            if u < n_steps:
                own.leak()
                events += _add_spikes(p, own.v, {j: trains[j][:, u] for j in reads})
                own.v += state.currents[i]
            if u >= warm_up and p.fires:
                own.fire(spikes[:, u - warm_up])
            elif not p.fires and i in circuit.readouts and state.step + u + 1 in record_steps:
                kept[state.step + u + 1] = own.v.copy()
        traces.append(Trace(spikes, own.v.copy(), int(events[0]), int(events[1]), kept))
    state.step += n_steps
    return traces


def _advance_graded(circuit: Circuit, state: State, inputs: np.ndarray | None) -> list[Trace]:
    """All steps at once: what `advance` does with graded spikes."""
    traces: list[Trace] = []
    counts = {} if inputs is None else {INPUT: inputs.sum(axis=1, dtype=np.int64)}
    for i, p in enumerate(circuit.populations):
        if isinstance(p, MaxPool):
            own = state.counts(i)
            own.received += counts[p.source.population]
            own.largest = _windows(own.received, p.window).max(axis=(-2, -1))
            counts[i] = own.largest
            n_events, sops = int(np.count_nonzero(own.received)), 0
            v = None
        else:
            membranes = state.membranes(i)
            n_events, sops = _add_spikes(p, membranes.v, counts)
            membranes.v += membranes.v.dtype.type(circuit.n_steps) * state.currents[i]
            counts[i] = membranes.fire_graded() if p.fires else membranes.n
            v = membranes.v.copy()
        kept = {circuit.n_steps: v} if v is not None and not p.fires and i in circuit.readouts else {}
        traces.append(Trace(counts[i][:, None].astype(np.uint8), v, int(n_events), int(sops), kept))
    state.step += circuit.n_steps
    return traces


def _add_spikes(population: Population, v: np.ndarray, spikes: dict[int, np.ndarray]) -> tuple[int, int]:
    """Add a step's spikes, or graded counts, (n, channels, y, x), by population, to the membranes.

    It returns the numbers of events and of additions: a graded spike is one event, and adds a weight times
    its count to each target once.
    """
    n_events = sops = 0
    for projection in population.projections:
        counts = np.concatenate(
            [seen(source, spikes[source.population]) for source in projection.sources], axis=1
        )
        for target, ky, kx, channels, at in _products(projection):
            weight = projection.effective(target[1])[:, :, ky, kx].astype(v.dtype)
            _add_products(v[target], counts, channels, at, weight)
        n = (counts != 0).sum(axis=(0, 1))
        reach = np.outer(*(projection.window.reach(axis, projection.size[axis]) for axis in (0, 1)))
        n_events += n.sum()
        sops += (n * reach).sum() * (population.shape[0] // projection.groups)
    return n_events, sops


def _pool(pool: MaxPool, counts: PoolCounts, train: np.ndarray, spikes: np.ndarray) -> None:
    """Compute a block of steps of a max pool: from its source's spikes `train` to its own `spikes`."""
    for t in range(train.shape[1]):
        before = counts.largest
        counts.received += train[:, t]
        counts.largest = _windows(counts.received, pool.window).max(axis=(-2, -1))
        spikes[:, t] = counts.largest - before


def seen(source: Source, spikes: np.ndarray) -> np.ndarray:
    """The spikes that a source reads, or their count in each pooling window.

    Parameters
    ----------
    source : Source
    spikes : (n, channels, y, x) bool, int8 or int64
        Those of the population that it reads; of graded spikes the counts.

    Returns
    -------
    (n, channels, y, x) int64
        Behind the pool, if there is one.
    """
    spikes = np.maximum(-spikes.astype(np.int64) if source.negative else spikes, 0).astype(np.int64)
    return spikes if source.pool is None else _windows(spikes, source.pool).sum(axis=(-2, -1))


def _windows(values: np.ndarray, window: Window) -> np.ndarray:
    """Every pooling window of a map that is padded with zeros.

    From (n, channels, y, x) to (n, channels, out y, out x, window y, window x).
    """
    top, left, bottom, right = window.padding
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    return np.lib.stride_tricks.sliding_window_view(padded, window.kernel, axis=(2, 3))[
        :, :, :: window.stride[0], :: window.stride[1]
    ]


def _products(
    projection: Projection,
) -> Iterator[tuple[tuple[slice, ...], int, int, slice, tuple[slice, slice]]]:
    """The terms of a projection's sum, (ky, kx) ascending, group by group.

    Yields
    ------
    target : index into (n, channels, y, x) membranes
    ky, kx : int
    channels : slice of the inputs'
    at : index into the inputs' (y, x)
    """
    n_out, n_in = projection.weight.shape[0] // projection.groups, projection.weight.shape[1]
    window, (height, width) = projection.window, projection.size
    for ky in range(window.kernel[0]):
        out_y, in_y = window.overlap(0, ky, height)
        for kx in range(window.kernel[1]):
            out_x, in_x = window.overlap(1, kx, width)
            for g in range(projection.groups):
                outputs, inputs = slice(g * n_out, (g + 1) * n_out), slice(g * n_in, (g + 1) * n_in)
                yield (slice(None), outputs, out_y, out_x), ky, kx, inputs, (in_y, in_x)


def _add_products(
    v: np.ndarray, values: np.ndarray, channels: slice, at: tuple[slice, slice], weight: np.ndarray
) -> None:
    """v += values[c] * weight[:, c], channel after channel; each product and each sum is rounded."""
    values = values[:, channels, at[0], at[1]]
    for c in np.flatnonzero(values.any(axis=(0, 2, 3))):
        v += values[:, c, None].astype(v.dtype) * weight[:, c, None, None]


def _constant_current(population: Population, inputs: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """The current that is the same at every step: that of the analog input, then the bias."""
    n = len(inputs) if population.analog_projections else 1
    current = np.zeros((n, *population.shape), dtype)
    for projection in population.analog_projections:
        values = np.concatenate([pooled_input(source, inputs) for source in projection.sources], axis=1)
        for target, ky, kx, channels, at in _products(projection):
            weight = projection.effective(target[1])[:, :, ky, kx].astype(dtype)
            _add_products(current[target], values, channels, at, weight)
    if population.analog_shift is not None:
        current = shifted(current, population.analog_shift[:, None, None])
    current += population.bias.astype(dtype)[:, None, None]
    return current


def pooled_input(source: Source, inputs: np.ndarray) -> np.ndarray:
    """The analog input behind a source's pool: sums of windows, (y, x) ascending.

    The division is in the weights.
    """
    if source.pool is None:
        return inputs
    windows = _windows(inputs, source.pool)
    total = np.zeros(windows.shape[:4], inputs.dtype)
    for y in range(source.pool.kernel[0]):
        for x in range(source.pool.kernel[1]):
            total += windows[..., y, x]
    return total
