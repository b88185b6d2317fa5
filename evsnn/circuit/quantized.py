"""A network in integers: int8 weights, exact membranes of a proven width.

Spikes are binary, so a weight scale of its own for each output channel needs no multiplication at
run time: divide a channel's weights, threshold, bias and first membrane by one unit, and the neuron
fires at the same steps. Rounding the quotients is all that is lost. This module is the
specification; the engine and generated C equal it bit for bit.

For each channel of a population, with ``w`` its effective weights:

- ``unit = max |w| / largest``, where ``largest`` is 127, or less where that lets 16 bits hold the membrane;
- ``weight = rint(w / unit)``, ``v_threshold = max(1, rint(V_th / unit))``;
- a signed neuron sends a negative spike below ``v_negative = -rint(theta V_th / unit)``, and its targets add
  ``-weight``;
- ``bias = rint(b / unit)``; what rounding takes from the charge ``T b`` over all steps is given back to
  ``v_init = rint(v(0) / unit) + rint(T b / unit) - T bias``;
- an identity shortcut's amplitude is divided by the unit and rounded, without the limit of 127;
- the analog input is ``x_q = clip(rint(x / input_scale), low, high)``, and ``input_scale`` is a factor of its
  weights.

A readout uses one unit for all its channels, so that the largest membrane is the answer.

The width of a membrane is proven, not assumed (`membrane_bounds`): from the weights, the counts an
event can bring and T follow the smallest and largest value a membrane can have when it is compared.
Sums on the way may wrap: arithmetic modulo 2^16 brings them home.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..errors import RunError
from ..network.network import Network
from .populations import Circuit, MaxPool, Population, Synapse, settled, unfolded
from .reference import leak_shift

__all__ = ["LEAST_LARGEST", "QuantizedNetwork", "membrane_bounds", "quantize"]

LEAST_LARGEST = 16
"""Smallest largest weight for which a population is fitted into 16 bits; below it, 32 bits are taken."""

_SLAB = 1 << 18  # weights of which copies of 64 bits are made at once


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """A network in integers, for one number of steps.

    Parameters
    ----------
    network : Network
        What it was made from, with all its tables.
    circuit : Circuit
        Its populations in integers.
    widths : tuple of {"int16", "int32", None}
        Membrane of each population; here and below None for a max pool, which has spikes and nothing else.
    units : tuple of (channels,) float64
        What 1 means in each channel of each population, in the ANN's units.
    largest : tuple of (channels,) int64
        The limit each channel's weights were fitted to, 127 or less.
    bounds : tuple of (low, high)
        Proven smallest and largest membrane of each population when compared, or after a reset.
    input_scale : float
        What 1 means in the input.
    input_low, input_high : int
        Range of the integer input.
    """

    network: Network
    circuit: Circuit
    widths: tuple[str | None, ...]
    units: tuple[np.ndarray | None, ...]
    largest: tuple[np.ndarray | None, ...]
    bounds: tuple[tuple[int, int] | None, ...]
    input_scale: float
    input_low: int
    input_high: int

    @property
    def n_steps(self) -> int:
        return self.circuit.n_steps

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Analog inputs as integers: int32 of the same shape.

        Values outside the input range saturate.
        """
        scaled = np.rint(images.astype(np.float64) / self.input_scale)
        return np.clip(scaled, self.input_low, self.input_high).astype(np.int32)


def quantize(
    network: Network,
    n_steps: int | None = None,
    *,
    shift_steps: int | None = None,
    input_range: tuple[float, float] | None = None,
    membrane: str = "auto",
) -> QuantizedNetwork:
    """Bring a network to integers.

    Parameters
    ----------
    network : Network
    n_steps : int, optional
        None: the network's own.
    shift_steps : int, optional
        T of the shift V_th/2T. None: `n_steps`.
    input_range : (float, float), optional
        Smallest and largest input. None: the network's, else that of its samples.
    membrane : {"auto", "int16", "int32"}
        "auto": 16 bits for a population where fitting its weights leaves each channel's largest at
        least `LEAST_LARGEST`, else 32.

    Raises
    ------
    RunError
        If 32 bits cannot hold a membrane at this T, a leak is not 1 - 2^-k, or no input range is known.
    """
    if membrane not in ("auto", "int16", "int32"):
        raise RunError("unknown membrane", got=repr(membrane), expected="auto, int16 or int32")
    circuit = unfolded(network, n_steps, shift_steps)
    scale, low, high = _input_grid(circuit, input_range)
    fitted = [
        (
            (p, None, None, None, None)
            if isinstance(p, MaxPool)
            else _fit(p, circuit, (scale, low, high), membrane, last=i == len(circuit.populations) - 1)
        )
        for i, p in enumerate(circuit.populations)
    ]
    populations, widths, units, largest, bounds = zip(*fitted)
    return QuantizedNetwork(
        network,
        settled(replace(circuit, populations=populations)),
        widths,
        units,
        largest,
        bounds,
        scale,
        low,
        high,
    )


def _input_grid(circuit: Circuit, input_range: tuple[float, float] | None) -> tuple[float, int, int]:
    """Scale, lowest and highest integer of the analog input: 8 bits where it has no sign, else 12."""
    if not circuit.analog:
        return 1.0, 0, 1
    network = circuit.network
    if input_range is None:
        input_range = network.input_range
    if input_range is None and network.samples is not None:
        input_range = float(network.samples.images.min()), float(network.samples.images.max())
    if input_range is None:
        raise RunError(
            "integers need the input's range",
            hint="convert with samples or --input-range, or give input_range=(smallest, largest)",
        )
    smallest, greatest = (float(v) for v in input_range)
    reach = max(-smallest, greatest)
    if not np.isfinite(reach) or smallest > greatest:
        raise RunError(
            "input_range is not a range", got=(smallest, greatest), expected="(smallest, largest), finite"
        )
    reach = reach or 1.0
    return (reach / 255, 0, 255) if smallest >= 0 else (reach / 2047, -2047, 2047)


def _wide(synapse: Synapse, p: Population) -> bool:
    """Whether the weights of a synapse of `p` are kept as wide as membranes: those of identity shortcuts, and
    one weight a channel beside the analog input, whose weights are on a scale of their own (the input's
    grid)."""
    return synapse.channelwise and synapse in p.synapses and (synapse.label == "identity" or bool(p.drives))


def _fit(p: Population, circuit: Circuit, grid: tuple[float, int, int], membrane: str, last: bool):
    """The integers of one population, the width of its membranes, its units, limits and bounds."""
    if p.leak < 1 and 1 - 2.0 ** -leak_shift(p.leak) != p.leak:
        raise RunError(
            "a leak is not 1 - 2^-k",
            where=f"layer {p.name!r}",
            got=p.leak,
            expected="1/2, 3/4, 7/8, ...",
            hint="use float32 arithmetic",
        )
    channels = p.shape[0]
    scales = {s: grid[0] if s in p.drives else 1.0 for s in (*p.drives, *p.synapses)}
    narrow = [s for s in scales if not _wide(s, p)] or list(scales)
    reach = (
        np.max(
            [
                _largest(s.weight, lambda rows, s=s: s.effective(rows).astype(np.float64)) * scales[s]
                for s in narrow
            ],
            axis=0,
        )
        if narrow
        else np.zeros(channels)
    )
    if last and p.v_threshold is None:
        reach = np.full(channels, reach.max())
    reach = np.where(reach > 0, reach, 127 / 1024 * (1.0 if p.v_threshold is None else p.v_threshold))
    if p.v_threshold is not None:  # a dead channel's weights must not push its threshold out of range
        reach = np.maximum(reach, 127 * p.v_threshold.astype(np.float64) / 2**24)

    def at(largest: np.ndarray) -> Population:
        return _rounded(p, scales, reach / largest, circuit.n_steps)

    full = np.full(channels, 127, np.int64)
    if membrane != "int32" and p.v_threshold is not None:
        least = np.full(channels, LEAST_LARGEST if membrane == "auto" else 1, np.int64)
        if _fits(at(least), circuit.n_steps, grid, 16).all():
            low, high = least, full + 1  # channel by channel: fits at low, at high unknown or not
            while (high - low > 1).any():
                middle = (low + high) // 2
                good = _fits(at(middle), circuit.n_steps, grid, 16)
                low, high = np.where(good, middle, low), np.where(good, high, middle)
            return _result(at(low), "int16", reach / low, low, circuit.n_steps, grid)
        if membrane == "int16":
            raise RunError(
                "no weights fit membranes of 16 bits",
                where=f"layer {p.name!r}",
                hint="use membrane='auto', or fewer steps",
            )
    population = at(full)
    if not _fits(population, circuit.n_steps, grid, 32).all():
        raise RunError(
            "membranes could pass 32 bits",
            where=f"layer {p.name!r}",
            got=f"{circuit.n_steps} steps",
            hint="use fewer steps, or float32 arithmetic",
        )
    return _result(population, "int32", reach / full, full, circuit.n_steps, grid)


def _result(
    p: Population,
    width: str,
    unit: np.ndarray,
    largest: np.ndarray,
    n_steps: int,
    grid: tuple[float, int, int],
):
    low, high = membrane_bounds(p, n_steps, grid[1:])
    return p, width, unit, largest, (int(low.min()), int(high.max()))


def _fits(p: Population, n_steps: int, grid: tuple[float, int, int], bits: int) -> np.ndarray:
    """Which channels' membranes, thresholds, net counts and weights fit `bits` bits."""
    low, high = membrane_bounds(p, n_steps, grid[1:])
    limit = 1 << (bits - 1)
    fits = (low >= -limit) & (high < limit)
    if p.v_threshold is not None:
        fits &= p.v_threshold < limit - 1  # the largest integer is the threshold of lanes without a neuron
        fits &= (
            low - p.v_threshold >= -limit
        )  # firmware keeps v - V_th, and so does not compare but looks at a sign
    if p.signed:
        fits &= n_steps < limit  # a net count is as wide as a membrane
    for synapse in p.synapses:
        fits &= _largest(synapse.weight, lambda rows, w=synapse.weight: w[rows].astype(np.int64)) < limit
    return fits


def _slabs(weight: np.ndarray) -> Iterator[slice]:
    """Output channels of a weight array, so many at once that a wide copy of them stays small."""
    step = max(1, _SLAB // max(1, weight[0].size))
    return (slice(first, first + step) for first in range(0, len(weight), step))


def _largest(weight: np.ndarray, values: Callable[[slice], np.ndarray]) -> np.ndarray:
    """The largest magnitude of each output channel of a weight array, whose `values` are made slab by
    slab.
    """
    return np.concatenate(
        [np.abs(values(rows)).reshape(len(weight[rows]), -1).max(axis=1) for rows in _slabs(weight)]
    )


def _rounded(p: Population, scales: dict[Synapse, float], unit: np.ndarray, n_steps: int) -> Population:
    """The population in integers of the given units."""

    def integers(s: Synapse) -> Synapse:
        wide = _wide(s, p)
        weight = np.empty(s.weight.shape, np.int64 if wide else np.int8)
        for rows in _slabs(s.weight):
            values = s.effective(rows).astype(np.float64) * scales[s] / unit[rows, None, None, None]
            weight[rows] = _integer(values) if wide else np.rint(values)
        return replace(s, weight=weight, scale=None)

    bias = _integer(p.bias / unit)
    total = _integer(n_steps * (p.bias.astype(np.float64) / unit))
    rest = total - n_steps * bias if p.leak == 1 else 0
    return replace(
        p,
        synapses=tuple(integers(s) for s in p.synapses),
        drives=tuple(integers(s) for s in p.drives),
        bias=bias,
        v_threshold=None if p.v_threshold is None else np.maximum(1, _integer(p.v_threshold / unit)),
        v_init=_integer(p.v_init / unit) + rest,
        v_negative=_integer(p.v_negative / unit) if p.signed else None,
    )


def _integer(values: np.ndarray) -> np.ndarray:
    """Rounded to int64; what is far beyond 32 bits stays far beyond them, and is refused."""
    return np.rint(np.clip(values, -(2.0**40), 2.0**40)).astype(np.int64)


def membrane_bounds(
    p: Population, n_steps: int, input_range: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest membrane of each channel at any comparison or step's end, whatever the input.

    An event of a signed source adds ``w`` or ``-w``: its two synapses together gain and lose ``|w|``.
    A neuron's own negative spike needs no term: it lifts the membrane to less than the threshold, and
    the spike that went before may have left as much, with more steps to come. With a delay d the first
    d steps charge without a reset and the last d reset without a charge.

    Parameters
    ----------
    p : Population
        Of integers.
    n_steps : int
    input_range : (low, high)
        Of the integer analog input.

    Returns
    -------
    low, high : (channels,) int64
    """
    channels = p.shape[0]
    gain, loss = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for synapse in p.synapses:
        for rows in _slabs(synapse.weight):
            w = (
                synapse.weight[rows].reshape(len(synapse.weight[rows]), -1).astype(np.int64)
                * synapse.max_count
            )
            gain[rows] += np.maximum(w, 0).sum(axis=1)
            loss[rows] += np.minimum(w, 0).sum(axis=1)
    for drive in p.drives:
        w = drive.weight.reshape(channels, -1).astype(np.int64) * drive.max_count
        ends = np.stack([w * input_range[0], w * input_range[1], np.zeros_like(w)])  # padding is 0
        gain += ends.max(axis=0).sum(axis=1)
        loss += ends.min(axis=0).sum(axis=1)
    low = high = p.v_init.astype(np.int64)
    lowest, highest = low, high
    shift = leak_shift(p.leak) if p.leak < 1 else None
    for u in range(n_steps + p.delay):
        if u < n_steps:
            if shift is not None:
                low, high = low - (low >> shift), high - (high >> shift)
            low, high = low + loss + p.bias, high + gain + p.bias
            lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
        if u >= p.delay and p.v_threshold is not None:
            th = p.v_threshold
            low = np.where(low >= th, low - th, np.where(high >= th, np.minimum(low, 0), low))
            high = np.maximum(high - th, np.minimum(high, th - 1))
        lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
    return lowest, highest
