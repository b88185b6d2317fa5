"""A network in integers: int8 weights, and exact membranes of a proven width.

Each output channel has a scale of its own, and needs no multiplication at run time, because spikes are
binary: if a channel's weights, threshold, bias and first membrane are divided by one scale, the neuron fires
at the same steps. Only the rounding of the quotients changes results. This module is the specification; the
engine and the generated C equal it bit for bit.

For each channel of a population, with ``w`` its effective weights:

- ``scale = max |w| / q_max``, where ``q_max`` is 127, or less if that lets 16 bits hold the membrane;
- ``weight = rint(w / scale)``, ``v_threshold = max(1, rint(V_th / scale))``;
- a neuron with negative spikes sends a negative spike below ``v_negative = -rint(theta V_th / scale)``,
  and its targets add ``-weight``;
- ``bias = rint(b / scale)``; what the rounding changes in the sum ``T b`` over all steps is added to
  ``v_init = rint(v(0) / scale) + rint(T b / scale) - T bias``;
- an identity shortcut's amplitude is divided by the scale and rounded, without the limit of 127;
- if a population gathers spikes besides the analog input, the scale is that of the spikes' weights, and the
  weights of the analog input are ``rint(2^k w / scale)`` with the largest k for which they are at most 127;
  the sum of their products is shifted back by k bits, with rounding, per sample (`Population.analog_shift`);
- the analog input is ``x_q = clip(rint(x / input_scale), low, high)``, and ``input_scale`` is a factor of its
  weights.

A readout has one scale for all its channels, so that the largest membrane is the largest output.

The width of a membrane is proven, not assumed (`membrane_bounds`): the weights, the largest counts of events
and T decide the smallest and largest value that a membrane can have when it is compared. Sums within a step
may wrap modulo 2^16: the compared value is right nevertheless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..errors import RunError
from ..network.layers import Conv2d, Linear
from ..network.network import Network, checked_range
from .build import build_circuit, drop_silent_negatives
from .neuron import GRADED, LEAK, NEGATIVE_SPIKES, WARM_UP, leak_shift, rounded
from .populations import (
    ANALOG_INPUT,
    ANALOG_SHIFT,
    GROUPS,
    MAX_POOL,
    POOLED_SOURCES,
    Circuit,
    MaxPool,
    Population,
    Projection,
    check_supported,
    shifted,
)

__all__ = [
    "SUPPORTS",
    "LEAST_Q_MAX",
    "QuantizedNetwork",
    "integer_bytes",
    "membrane_bounds",
    "quantize",
]

SUPPORTS = frozenset(
    {ANALOG_INPUT, ANALOG_SHIFT, GRADED, GROUPS, LEAK, MAX_POOL, NEGATIVE_SPIKES, POOLED_SOURCES, WARM_UP}
)
"""The features of populations that can be brought to integers."""

MAX_SHIFT = 15
"""Most bits by which the scale of the analog input is finer or coarser than that of the spikes beside it."""

MAX_LEAKING_STEPS = 1 << 17
"""Steps of all layers with a leak together; a leak of 1 - 2^-k counts 2^(k + 4) at most."""

LEAST_Q_MAX = 16
"""The smallest `q_max` with which a population has membranes of 16 bits; below it, they have 32 bits."""

_Fitted = tuple[Population, str, np.ndarray, np.ndarray, tuple[int, int]]

_SLAB = 1 << 18  # weights of which copies of 64 bits are made at once


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """A network in integers, for one number of steps.

    Parameters
    ----------
    network : Network
        The network that it was made from, with all its step parameters.
    circuit : Circuit
        Its populations in integers.
    widths : tuple of {"int16", "int32", None}
        The type of each population's membranes. Here and below, the entry of a max pool is None.
    scales : tuple of (channels,) float64
        What the integer 1 stands for in each channel of each population, in units of the ANN.
    q_max : tuple of (channels,) int64
        The integer that each channel's largest weight becomes, at most 127.
    bounds : tuple of (low, high)
        The proven smallest and largest membrane of each population when it is compared, or after a reset.
    input_scale : float
        What the integer 1 stands for in the input.
    input_low, input_high : int
        The range of the integer input.

    Examples
    --------
    >>> integers = evsnn.quantize(net, 8)
    >>> integers.widths
    ('int32', 'int32')
    >>> evsnn.Simulator(integers).run(images).arithmetic
    'int8'
    """

    network: Network
    circuit: Circuit
    widths: tuple[str | None, ...]
    scales: tuple[np.ndarray | None, ...]
    q_max: tuple[np.ndarray | None, ...]
    bounds: tuple[tuple[int, int] | None, ...]
    input_scale: float
    input_low: int
    input_high: int

    @property
    def n_steps(self) -> int:
        """The number of steps T that it was made for."""
        return self.circuit.n_steps

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Analog inputs as integers. Values outside the input range saturate.

        Parameters
        ----------
        images : array of float32
            Of any shape, in the network's own scale.

        Returns
        -------
        array of int32
            Of the same shape, from `input_low` to `input_high`.
        """
        scaled = np.rint(images.astype(np.float64) / self.input_scale)
        return np.clip(scaled, self.input_low, self.input_high).astype(np.int32)


def integer_bytes(network: Network) -> int:
    """Bytes that `quantize` takes: weights of 1 byte, those of the layer in hand once more, and a slab."""
    sizes = [layer.weight.size for layer in network.layers if isinstance(layer, (Conv2d, Linear))]
    largest = max(sizes, default=0)
    return sum(sizes) + largest + 80 * min(_SLAB, largest)


def quantize(
    network: Network,
    n_steps: int | None = None,
    *,
    shift_steps: int | None = None,
    input_range: tuple[float, float] | None = None,
    membrane: str = "auto",
    coding: str | None = None,
) -> QuantizedNetwork:
    """Bring a network to integers, for one number of steps. docs/arithmetic.md specifies them.

    Parameters
    ----------
    network : Network
        Its leaks are 1 - 2^-k.
    n_steps : int, optional
        T, 1 to 65536. None: the network's own.
    shift_steps : int, optional
        T of the shift V_th/2T. None: `n_steps`.
    input_range : (float, float), optional
        Smallest and largest input. None: the network's, else that of its samples.
    membrane : {"auto", "int16", "int32"}
        "auto": a population has membranes of 16 bits if they can be proven to suffice with a `q_max` of at
        least `LEAST_Q_MAX` in every channel, else of 32 bits.
    coding : {"steps", "graded"}, optional
        See `simulate`. None: the network's own. Graded counts are those of steps with a warm-up of T, neuron
        by neuron.

    Returns
    -------
    QuantizedNetwork

    Raises
    ------
    RunError
        If 32 bits cannot hold a membrane at this T, a leak is not 1 - 2^-k, or no input range is known.

    Examples
    --------
    >>> integers = evsnn.quantize(net, 8)
    >>> all(low <= high for low, high in integers.bounds)
    True
    """
    if membrane not in ("auto", "int16", "int32"):
        raise RunError("unknown membrane", got=repr(membrane), expected="auto, int16 or int32")
    circuit = build_circuit(network, n_steps, shift_steps, coding=coding, keep_silent_negatives=True)
    check_supported(circuit, SUPPORTS, "integer arithmetic")
    _check_leaks(circuit)
    scale, low, high = _input_grid(circuit, input_range)
    fitted = [
        (
            (p, None, None, None, None)
            if isinstance(p, MaxPool)
            else _fit(p, circuit, (scale, low, high), membrane, last=i in circuit.readouts)
        )
        for i, p in enumerate(circuit.populations)
    ]
    populations, widths, scales, q_max, bounds = zip(*fitted)
    return QuantizedNetwork(
        network,
        drop_silent_negatives(
            replace(
                circuit, populations=populations, depends_on_steps=(*circuit.depends_on_steps, "integers")
            )
        ),
        widths,
        scales,
        q_max,
        bounds,
        scale,
        low,
        high,
    )


def _check_leaks(circuit: Circuit) -> None:
    """Refuse leaks that integers have not, and such slow ones that the proof of their widths takes minutes:
    it goes step by step, until nothing changes.
    """
    steps = 0
    for p in circuit.populations:
        if isinstance(p, MaxPool) or LEAK not in p.neuron.features:
            continue
        leak = p.neuron.leak
        if 1 - 2.0 ** -leak_shift(leak) != leak:
            raise RunError(
                "a leak is not 1 - 2^-k",
                where=f"layer {p.name!r}",
                got=leak,
                expected="1/2, 3/4, 7/8, ...",
                hint="use float32 arithmetic",
            )
        steps += min(circuit.n_steps, 16 << leak_shift(leak))
        if steps > MAX_LEAKING_STEPS:
            raise RunError(
                "leaks up to this layer are too slow for so many steps",
                where=f"layer {p.name!r}",
                got=f"{circuit.n_steps} steps",
                expected=f"at most {MAX_LEAKING_STEPS} over all layers whose leak is near 1",
                hint="use fewer steps, or float32 arithmetic",
            )


def _input_grid(circuit: Circuit, input_range: tuple[float, float] | None) -> tuple[float, int, int]:
    """Scale, lowest and highest integer of the analog input: 8 bits without negative values, else 12."""
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
    smallest, greatest = checked_range(input_range, RunError, least=0.0)
    reach = max(-smallest, greatest) or 1.0
    return (reach / 255, 0, 255) if smallest >= 0 else (reach / 2047, -2047, 2047)


def _wide(projection: Projection, p: Population) -> bool:
    """Whether the weights of a projection of `p` are as wide as membranes.

    They are for identity shortcuts, and for projections with one weight per channel beside the analog input,
    whose own weights are on another scale (the input's grid).
    """
    return (
        projection.channelwise
        and projection in p.projections
        and (projection.label == "identity" or bool(p.analog_projections))
    )


def _fit(p: Population, circuit: Circuit, grid: tuple[float, int, int], membrane: str, last: bool) -> _Fitted:
    """The integers of one population, the width of its membranes, its scales, limits and bounds."""
    th = p.neuron.v_threshold
    channels = p.shape[0]
    analog = dict.fromkeys(p.analog_projections, grid[0])
    spiking = dict.fromkeys(p.projections, 1.0)
    gathered = {s: 1.0 for s in p.projections if not _wide(s, p)}
    apart = bool(analog and gathered)  # the analog input has a grid of its own, by powers of two
    narrow = gathered if apart else analog | gathered or analog | spiking
    reach = _reach(narrow, channels)
    if apart:
        reach = np.where(reach > 0, reach, _reach(analog, channels))
    if last and th is None:
        reach = np.full(channels, reach.max())
    none = reach <= (0.0 if th is None else th.astype(np.float64) / 2**25)  # its weights would be 0
    reach = np.where(none, 127 / 1024 * (1.0 if th is None else th), reach)
    if th is not None:  # tiny weights of a dead channel must not make its threshold too large
        reach = np.maximum(reach, 127 * th.astype(np.float64) / 2**24)

    def at(q_max: np.ndarray) -> Population:
        scale = reach / q_max
        shift = _shift(_reach(analog, channels), scale) if apart else None
        return _rounded(p, analog | spiking, scale, circuit.n_steps, shift)

    full = np.full(channels, 127, np.int64)
    if apart and membrane == "int16":
        raise RunError(
            "membranes of 16 bits cannot hold an analog input beside gathered spikes",
            where=f"layer {p.name!r}",
            hint="use membrane='auto'",
        )
    if membrane != "int32" and th is not None and not apart:
        narrow_q = _largest_q_max(
            lambda q: _fits(at(q), circuit.n_steps, grid, 16),
            np.full(channels, LEAST_Q_MAX if membrane == "auto" else 1, np.int64),
        )
        if narrow_q is not None:
            return _result(at(narrow_q), "int16", reach / narrow_q, narrow_q, circuit.n_steps, grid)
        if membrane == "int16":
            raise RunError(
                "no weights fit membranes of 16 bits",
                where=f"layer {p.name!r}",
                hint="use membrane='auto', or fewer steps",
            )
    population = at(full)
    fits = _fits(population, circuit.n_steps, grid, 32)
    if not fits.all():  # a bias that is large beside tiny weights must not make the membrane too large
        charge = np.maximum(circuit.n_steps * np.abs(p.bias), np.abs(p.neuron.v_init)).astype(np.float64)
        reach = np.where(fits, reach, np.maximum(reach, 127 * charge / 2**30))
        population = at(full)
        fits = _fits(population, circuit.n_steps, grid, 32)
    q_max: np.ndarray | None = full
    if not fits.all():  # many analog inputs of 12 bits
        q_max = _largest_q_max(
            lambda q: _fits(at(q), circuit.n_steps, grid, 32), np.full(channels, LEAST_Q_MAX, np.int64)
        )
        if q_max is not None and last and th is None:  # one scale for all channels
            q_max = np.full(channels, q_max.min())
    if q_max is None:
        raise RunError(
            "membranes could pass 32 bits",
            where=f"layer {p.name!r}",
            got=f"{circuit.n_steps} steps",
            hint="use fewer steps, or float32 arithmetic",
        )
    return _result(at(q_max), "int32", reach / q_max, q_max, circuit.n_steps, grid)


def _largest_q_max(fits: Callable[[np.ndarray], np.ndarray], least: np.ndarray) -> np.ndarray | None:
    """The largest `q_max` of each channel up to 127 that fits; None if one does not fit at its least."""
    if not fits(least).all():
        return None
    low, high = least, np.full_like(least, 128)  # channel by channel: fits at low, at high unknown or not
    while (high - low > 1).any():
        middle = (low + high) // 2
        good = fits(middle)
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    return low


def _reach(grids: dict[Projection, float], channels: int) -> np.ndarray:
    """The largest effective weight of each output channel, (channels,), times the scale of the projection."""
    largest = [_largest(s.weight, partial(_effective, s)) * grid for s, grid in grids.items()]
    return np.max(largest, axis=0) if largest else np.zeros(channels)


def _shift(reach: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The bits, (channels,), by which the scale of the analog input is finer than `scale`.

    With them its largest weight has 7 bits, too.
    """
    room = 127 * scale / np.where(reach > 0, reach, 127 * scale)
    return np.clip(np.floor(np.log2(room)), -MAX_SHIFT, MAX_SHIFT).astype(np.int64)


def _result(
    p: Population,
    width: str,
    scale: np.ndarray,
    q_max: np.ndarray,
    n_steps: int,
    grid: tuple[float, int, int],
) -> _Fitted:
    low, high = membrane_bounds(p, n_steps, grid[1:])
    return p, width, scale, q_max, (int(low.min()), int(high.max()))


def _fits(p: Population, n_steps: int, grid: tuple[float, int, int], bits: int) -> np.ndarray:
    """Which channels' membranes, thresholds, net counts and weights fit `bits` bits."""
    low, high = membrane_bounds(p, n_steps, grid[1:])
    limit = 1 << (bits - 1)
    fits = (low >= -limit) & (high < limit)
    if p.fires:
        fits &= (
            p.neuron.threshold < limit - 1
        )  # the largest integer is the threshold of lanes that have no neuron
        fits &= low - p.neuron.threshold >= -limit  # firmware keeps v - V_th and tests its sign
    if p.analog_shift is not None:  # the sum before it is shifted, and what rounds it
        most, least = _analog_bounds(p, grid[1:])
        fits &= np.maximum(most, -least) < limit - (1 << MAX_SHIFT)
    if p.has_negative_spikes:
        fits &= n_steps < limit  # a net count is as wide as a membrane
    for projection in p.projections:
        fits &= _largest(projection.weight, partial(_whole, projection)) < limit
    return fits


def _effective(projection: Projection, rows: slice) -> np.ndarray:
    return projection.effective(rows).astype(np.float64)


def _whole(projection: Projection, rows: slice) -> np.ndarray:
    return projection.weight[rows].astype(np.int64)


def _slabs(weight: np.ndarray) -> Iterator[slice]:
    """Slices of a weight array's output channels; a 64-bit copy of each slice stays small."""
    step = max(1, _SLAB // max(1, weight[0].size))
    return (slice(first, first + step) for first in range(0, len(weight), step))


def _largest(weight: np.ndarray, values: Callable[[slice], np.ndarray]) -> np.ndarray:
    """The largest magnitude of each output channel of a weight array; `values` makes a slice of it."""
    return np.concatenate(
        [np.abs(values(rows)).reshape(len(weight[rows]), -1).max(axis=1) for rows in _slabs(weight)]
    )


def _rounded(
    p: Population,
    grids: dict[Projection, float],
    scale: np.ndarray,
    n_steps: int,
    analog_shift: np.ndarray | None,
) -> Population:
    """The population in integers, in the given scales."""

    def integers(s: Projection) -> Projection:
        wide = _wide(s, p)
        weight = np.empty(s.weight.shape, np.int64 if wide else np.int8)
        for rows in _slabs(s.weight):
            finer = (
                1.0 if analog_shift is None or s not in p.analog_projections else 2.0 ** analog_shift[rows]
            )
            values = s.effective(rows).astype(np.float64) * grids[s] / scale[rows, None, None, None]
            values *= np.reshape(finer, (-1, 1, 1, 1))
            weight[rows] = rounded(values) if wide else np.rint(values)
        return replace(s, weight=weight, scale=None)

    bias = rounded(p.bias / scale)
    total = rounded(n_steps * (p.bias.astype(np.float64) / scale))
    rest = 0 if LEAK in p.neuron.features else total - n_steps * bias
    return replace(
        p,
        projections=tuple(integers(s) for s in p.projections),
        analog_projections=tuple(integers(s) for s in p.analog_projections),
        bias=bias,
        neuron=p.neuron.in_integers(scale, rest),
        analog_shift=analog_shift,
    )


def membrane_bounds(
    p: Population, n_steps: int, input_range: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and largest membrane of each channel at any comparison or end of a step, for every input.

    An event of a source with negative spikes adds ``w`` or ``-w``: its two projections together can add and
    subtract ``|w|``. `Neuron.bounds_after` says what the neuron does with these currents.

    Parameters
    ----------
    p : Population
        In integers.
    n_steps : int
    input_range : (low, high)
        The range of the integer analog input.

    Returns
    -------
    low, high : (channels,) int64
    """
    channels = p.shape[0]
    gain, loss = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for projection in p.projections:
        for rows in _slabs(projection.weight):
            w = (
                projection.weight[rows].reshape(len(projection.weight[rows]), -1).astype(np.int64)
                * projection.max_count
            )
            gain[rows] += np.maximum(w, 0).sum(axis=1)
            loss[rows] += np.minimum(w, 0).sum(axis=1)
    most, least = _analog_bounds(p, input_range)
    if p.analog_shift is not None:
        most, least = shifted(most, p.analog_shift), shifted(least, p.analog_shift)
    if p.graded:  # what is sent at once is sent once
        constant = n_steps * p.bias
        return p.neuron.bounds_of_run(loss + n_steps * least + constant, gain + n_steps * most + constant)
    gain, loss = gain + most, loss + least
    return p.neuron.bounds_after(n_steps, loss + p.bias, gain + p.bias)


def _analog_bounds(p: Population, input_range: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The largest and the smallest sum of the analog input's products, (channels,) int64 each."""
    most, least = np.zeros(p.shape[0], np.int64), np.zeros(p.shape[0], np.int64)
    for projection in p.analog_projections:
        for rows in _slabs(projection.weight):
            w = projection.weight[rows].astype(np.int64) * projection.max_count
            w = w.reshape(len(w), -1)
            ends = np.stack([w * input_range[0], w * input_range[1], np.zeros_like(w)])  # padding is 0
            most[rows] += ends.max(axis=0).sum(axis=1)
            least[rows] += ends.min(axis=0).sum(axis=1)
    return most, least
