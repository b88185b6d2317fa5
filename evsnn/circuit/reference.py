"""The slow, obvious simulator: the specification of DESIGN §3 in NumPy, layer by layer, step by step.

Every spike and every membrane of the event-driven engine equals this one's, bit for bit. It runs
where numba does not, and tests compare with it. One text serves float32 and integers: float32 sums
go onto the membrane one product at a time, in the specified order; integer sums are exact in int64.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np

from .populations import INPUT, Circuit, MaxPool, Pool, Population, Source, Synapse

__all__ = ["Trace", "leak_shift", "pooled_input", "run", "seen"]


@dataclass(frozen=True, eq=False)
class Trace:
    """What one population did.

    Parameters
    ----------
    spikes : (n_samples, n_steps, channels, height, width) bool
        int8 of -1, 0 and 1 where neurons are signed.
    v_mem : (n_samples, channels, height, width) float32 or int64, optional
        After the last step. None: a max pool, which has no membranes.
    n_events, sops : int
        As in `evsnn.result.LayerResult`.
    v_mem_at : dict of int to (n_samples, channels, height, width)
        Membranes after the steps asked for, of the last population where it never fires.
    """

    spikes: np.ndarray
    v_mem: np.ndarray | None
    n_events: int
    sops: int
    v_mem_at: dict[int, np.ndarray] = field(default_factory=dict)


def run(circuit: Circuit, inputs: np.ndarray, read_at: Collection[int] = ()) -> list[Trace]:
    """Simulate all steps.

    Parameters
    ----------
    circuit : Circuit
        Of floats or of integers.
    inputs : (n, channels, height, width) float32 or integer
        A constant current; for spiking inputs (n, n_steps, channels, height, width) bool.
    read_at : collection of int
        Steps after which to keep the membranes of a readout that never fires.

    Returns
    -------
    list of Trace
        One a population.
    """
    n_samples = inputs.shape[0]
    dtype = np.float32 if circuit.populations[-1].bias.dtype == np.float32 else np.int64
    inputs = inputs.astype(dtype) if circuit.analog else inputs
    neurons = {i: p for i, p in enumerate(circuit.populations) if isinstance(p, Population)}
    drives = {i: _drive(p, inputs, dtype) for i, p in neurons.items()}
    membranes = {
        i: np.broadcast_to(_per_channel(p.v_init, dtype), (n_samples, *p.shape)).copy()
        for i, p in neurons.items()
    }
    spikes = {
        i: np.zeros((n_samples, circuit.n_steps, *p.shape), np.int8 if p.signed else bool)
        for i, p in enumerate(circuit.populations)
    }
    trains = spikes | {INPUT: inputs}
    events = np.zeros((len(circuit.populations), 2), np.int64)
    readout: dict[int, np.ndarray] = {}
    for i, population in enumerate(circuit.populations):
        if isinstance(population, MaxPool):
            events[i, 0] = np.count_nonzero(trains[population.source.population])
            _pool(population, trains[population.source.population], spikes[i])
            continue
        v, n = membranes[i], np.zeros((n_samples, *population.shape), np.int64)
        for u in range(circuit.n_steps + population.delay):
            if u < circuit.n_steps:
                events[i] += _charge(
                    population,
                    v,
                    {
                        source.population: trains[source.population][:, u]
                        for s in population.synapses
                        for source in s.sources
                    },
                )
                v += drives[i]
            if u >= population.delay and population.fires:
                spikes[i][:, u - population.delay] = _fire(population, v, n)
            elif not population.fires and u + 1 in read_at:
                readout[u + 1] = v.copy()
    last = len(circuit.populations) - 1
    return [
        Trace(spikes[i], membranes.get(i), int(n), int(sops), readout if i == last else {})
        for i, (n, sops) in enumerate(events)
    ]


def _charge(population: Population, v: np.ndarray, spikes: dict[int, np.ndarray]) -> tuple[int, int]:
    """Leak, and add a step's `spikes` (n, channels, y, x), by population, to the membranes; the events and
    the additions.
    """
    if population.leak != 1:
        v[...] = _leaked(v, population.leak)
    n_events = sops = 0
    for synapse in population.synapses:
        counts = np.concatenate(
            [seen(source, spikes[source.population]) for source in synapse.sources], axis=1
        )
        for target, ky, kx, channels, at in _products(synapse, population.shape):
            _add_products(
                v[target], counts, channels, at, synapse.effective(target[1])[:, :, ky, kx].astype(v.dtype)
            )
        n = (counts != 0).sum(axis=(0, 1))
        n_events += n.sum()
        sops += (n * np.outer(synapse.reach(0), synapse.reach(1))).sum() * (
            population.shape[0] // synapse.groups
        )
    return n_events, sops


def _fire(population: Population, v: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Compare and reset; the step's spikes, which the net counts `n` take in."""
    threshold = _per_channel(population.v_threshold, v.dtype)
    fired = v >= threshold
    if population.signed:
        fired = fired.astype(np.int8) - ((v < _per_channel(population.v_negative, v.dtype)) & (n > 0))
        n += fired
    v -= threshold * fired
    return fired


def _pool(pool: MaxPool, train: np.ndarray, spikes: np.ndarray) -> None:
    """All steps of a max pool, from its source's spikes (n, n_steps, channels, y, x) into its own."""
    received = np.zeros((train.shape[0], *pool.source.shape), np.int64)
    largest = np.zeros((train.shape[0], *pool.shape), np.int64)
    for t in range(train.shape[1]):
        before = largest
        received += train[:, t]
        largest = _windows(received, pool.window).max(axis=(-2, -1))
        spikes[:, t] = largest - before


def _per_channel(values: np.ndarray, dtype) -> np.ndarray:
    return values.astype(dtype)[:, None, None]


def _leaked(v: np.ndarray, leak: float) -> np.ndarray:
    """tau * v for floats (+ 0.0: a membrane is never -0.0); v - (v >> k) with tau = 1 - 2^-k for integers."""
    if v.dtype == np.float32:
        return v * np.float32(leak) + np.float32(0)
    return v - (v >> leak_shift(leak))


def leak_shift(leak: float) -> int:
    """k of a leak of 1 - 2^-k."""
    return int(round(-np.log2(1 - leak)))


def seen(source: Source, spikes: np.ndarray) -> np.ndarray:
    """Spikes of a source's sign, or their counts in each pooling window, as int64 (n, channels, y, x)."""
    spikes = (spikes < 0 if source.negative else spikes > 0).astype(np.int64)
    return spikes if source.pool is None else _windows(spikes, source.pool).sum(axis=(-2, -1))


def _windows(values: np.ndarray, pool: Pool) -> np.ndarray:
    """Every pooling window of (n, channels, y, x), padded with zeros, as (n, channels, out y, out x, window
    y, window x).
    """
    top, left, bottom, right = pool.padding
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    return np.lib.stride_tricks.sliding_window_view(padded, pool.kernel, axis=(2, 3))[
        :, :, :: pool.stride[0], :: pool.stride[1]
    ]


def _products(synapse: Synapse, shape: tuple[int, int, int]) -> Iterator[tuple]:
    """The terms of a synapse's sum, (ky, kx) ascending, group by group.

    Yields
    ------
    target : index into (n, channels, y, x) membranes
    ky, kx : int
    channels : slice of the inputs'
    at : index into the inputs' (y, x)
    """
    n_out, n_in = synapse.weight.shape[0] // synapse.groups, synapse.weight.shape[1]
    for ky in range(synapse.kernel[0]):
        out_y, in_y = _overlap(synapse, 0, ky, shape[1])
        for kx in range(synapse.kernel[1]):
            out_x, in_x = _overlap(synapse, 1, kx, shape[2])
            for g in range(synapse.groups):
                yield (
                    (slice(None), slice(g * n_out, (g + 1) * n_out), out_y, out_x),
                    ky,
                    kx,
                    slice(g * n_in, (g + 1) * n_in),
                    (in_y, in_x),
                )


def _overlap(synapse: Synapse, axis: int, k: int, n_out: int) -> tuple[slice, slice]:
    """Output positions that tap k of a kernel serves, and the input positions it reads."""
    offset = k * synapse.dilation[axis] - synapse.padding[axis]
    stride, size = synapse.stride[axis], synapse.shape[1 + axis]
    first = max(0, -(offset // stride))
    last = min(n_out, (size - 1 - offset) // stride + 1)
    return slice(first, max(first, last)), (
        slice(first * stride + offset, max(0, (max(first, last) - 1) * stride + offset + 1), stride)
        if last > first
        else slice(0, 0)
    )


def _add_products(
    v: np.ndarray, values: np.ndarray, channels: slice, at: tuple[slice, slice], weight: np.ndarray
) -> None:
    """v += values[c] * weight[:, c], channel after channel, each product and each sum rounded."""
    values = values[:, channels, at[0], at[1]]
    for c in np.flatnonzero(values.any(axis=(0, 2, 3))):
        v += values[:, c, None].astype(v.dtype) * weight[:, c, None, None]


def _drive(population: Population, inputs: np.ndarray, dtype) -> np.ndarray:
    """The constant current: the analog input's, then the bias."""
    current = np.zeros((inputs.shape[0] if population.drives else 1, *population.shape), dtype)
    for drive in population.drives:
        values = np.concatenate([pooled_input(source, inputs) for source in drive.sources], axis=1)
        for target, ky, kx, channels, at in _products(drive, population.shape):
            _add_products(
                current[target], values, channels, at, drive.effective(target[1])[:, :, ky, kx].astype(dtype)
            )
    current += _per_channel(population.bias, dtype)
    return current


def pooled_input(source: Source, inputs: np.ndarray) -> np.ndarray:
    """The analog input as a source shows it: window sums, (y, x) ascending; the division is in the
    weights.
    """
    if source.pool is None:
        return inputs
    windows = _windows(inputs, source.pool)
    total = np.zeros(windows.shape[:4], inputs.dtype)
    for y in range(source.pool.kernel[0]):
        for x in range(source.pool.kernel[1]):
            total += windows[..., y, x]
    return total
