"""How large activations are. Thresholds are made from this.

There are two passes over the calibration inputs: for each channel's maximum, and for a histogram of its
positive activations on (0, maximum].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import erf, sqrt

import numpy as np

from ...errors import InputError
from ...parallel import in_parallel, usable_cores
from ..lowering.ann import Ann, forward

__all__ = ["BINS", "Activations", "from_moments", "histogram_bytes", "measure"]

BINS = 512
_ROWS = 4096
_VALUE_BYTES = 48  # of an activation that is sorted into the histogram: its index, channel, scale and place
_SILENT = 1e-30  # activations below are 0: thresholds and their reciprocals stay normal numbers
_DEVIATIONS = 6.0  # how far a normal distribution is taken into account


@dataclass(frozen=True, eq=False)
class Activations:
    """The activations in front of one layer of neurons.

    Parameters
    ----------
    maximum : (channels,) float64
        Largest activation, after the ReLU and its limit.
    histogram : (channels, BINS) float64
        How many (or what share) of the positive activations fall into each of `BINS` equal parts of (0,
        maximum].
    count : float
        The number of all activations of a channel, zeros too, in the unit of the histogram.
    """

    maximum: np.ndarray
    histogram: np.ndarray
    count: float

    @property
    def dead(self) -> np.ndarray:
        """(channels,) bool: whether a channel is never above 0."""
        return self.maximum <= 0

    @property
    def centres(self) -> np.ndarray:
        """(channels, BINS): the centre of each part of the histogram."""
        return self.maximum[:, None] * ((np.arange(BINS) + 0.5) / BINS)


def histogram_bytes(n_rows: int, channels: int) -> int:
    """Bytes of the work on a histogram of so many activations per channel, if all of them are positive."""
    threads = min(usable_cores(), -(-n_rows // _ROWS))
    at_once = min(n_rows, _ROWS) * channels
    return threads * (_VALUE_BYTES * at_once + 2 * 8 * BINS * channels)


def measure(
    ann: Ann, batches: Callable[[], Iterable[np.ndarray]], progress: Callable[[int, int], None] | None = None
) -> dict[str, Activations]:
    """Measure the activations of every `IF`, and the scores of the readout, on the calibration inputs.

    Parameters
    ----------
    ann : Ann
    batches : callable
        It returns the inputs (n, *input_shape) batch by batch, and is called twice.
    progress : callable (done, total), optional
        It is called after each batch; the total is unknown (0) in the first pass.

    Raises
    ------
    InputError
        If there are no inputs, or activations are not finite.
    """
    maxima: dict[str, np.ndarray] = {}
    n_batches = 0

    def take_maximum(name: str, current: np.ndarray, activation: np.ndarray) -> None:
        largest = activation.max(axis=(0, *range(2, activation.ndim))).astype(np.float64)
        if not np.isfinite(largest).all():
            raise InputError(
                "the ANN's activations are not finite",
                where=f"layer {name!r}",
                hint="check the calibration inputs' scale",
            )
        maxima[name] = np.maximum(maxima.get(name, 0.0), np.where(largest < _SILENT, 0.0, largest))

    for batch in batches():
        forward(ann, batch, observe=take_maximum)
        n_batches += 1
        if progress:
            progress(n_batches, 0)
    if not n_batches:
        raise InputError("there are no calibration inputs", expected="at least one")
    histograms = {name: np.zeros((len(m), BINS)) for name, m in maxima.items()}
    counts = dict.fromkeys(maxima, 0)

    def take_histogram(name: str, current: np.ndarray, activation: np.ndarray) -> None:
        maximum = maxima[name]
        scale = np.divide(BINS, maximum, out=np.zeros_like(maximum), where=maximum > 0).astype(np.float32)
        rows = np.ascontiguousarray(np.moveaxis(activation, 1, -1)).reshape(-1, len(maximum))

        def histogram(share: np.ndarray) -> np.ndarray:
            total = np.zeros(len(maximum) * BINS, np.int64)
            for first in range(0, len(share), _ROWS):  # few rows at a time: their copies stay in the cache
                part = share[first : first + _ROWS]
                positive = np.flatnonzero((part > 0) & (maximum > 0))
                channel = positive % len(maximum)
                position = np.minimum(
                    (part.reshape(-1)[positive] * scale[channel]).astype(np.int64), BINS - 1
                )
                total += np.bincount(channel * BINS + position, minlength=total.size)
            return total

        step = max(_ROWS, -(-len(rows) // usable_cores()))
        shares = (rows[first : first + step] for first in range(0, len(rows), step))
        none = np.zeros(len(maximum) * BINS, np.int64)
        histograms[name] += sum(in_parallel(histogram, shares), none).reshape(-1, BINS)
        counts[name] += len(rows)

    for done, batch in enumerate(batches(), 1):
        forward(ann, batch, observe=take_histogram)
        if progress:
            progress(n_batches + done, 2 * n_batches)
    return {name: Activations(maxima[name], histograms[name], float(counts[name])) for name in maxima}


def from_moments(mean: np.ndarray, deviation: np.ndarray, limit: np.ndarray | float = np.inf) -> Activations:
    """The activations of channels with normally distributed currents, which batch norms describe.

    Parameters
    ----------
    mean, deviation : (channels,)
        Of the current in front of the ReLU: the batch norm's beta and |gamma|.
    limit : float or (channels,)
        The upper limit y_th of the ReLU.
    """
    mean, deviation = np.asarray(mean, np.float64), np.maximum(np.asarray(deviation, np.float64), 1e-12)
    unlimited = mean + _DEVIATIONS * deviation
    maximum = np.clip(unlimited, 0, limit)
    edges = maximum[:, None] * (np.arange(BINS + 1) / BINS)
    below = (
        np.vectorize(erf, otypes=[float])((edges - mean[:, None]) / (sqrt(2) * deviation[:, None])) / 2 + 0.5
    )
    histogram = np.diff(below, axis=1)
    histogram[:, -1] += 1 - below[:, -1]  # activations above the limit count as the limit
    histogram[maximum <= 0] = 0
    return Activations(maximum, histogram, 1.0)
