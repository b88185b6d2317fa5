"""The input currents of a population, computed densely: its projections for whole batches.

The ANN and the spiking network differ in what is sent, not in what is summed. So the same code serves both:
with activations it is the ANN's forward pass, with spikes it is the input current, for many samples and steps
at once, through BLAS. BLAS has an order of sums of its own, so this is for measurements and balancing, never
for results.

Arrays have the shape (n, channels, height, width) and are channels-last in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...circuit.populations import INPUT, Circuit, MaxPool, Population, Projection, Source
from ...circuit.reference import pooled_input
from ..onnx.dense import conv2d

__all__ = ["Sent", "analog_current", "last_uses", "seen_by", "spiking_current"]

_POOLED = 1 << 20  # values that are pooled at once

Sent = Mapping[int, np.ndarray]
"""What populations have sent, by index: (n, channels, height, width) activations or net counts."""


def analog_current(population: Population, images: np.ndarray) -> np.ndarray | None:
    """The current (n, channels, height, width) of the analog input without the bias, if there is one."""
    return _sum(population.analog_projections, {INPUT: images}) if population.analog_projections else None


def spiking_current(population: Population, sent: Sent) -> np.ndarray | None:
    """The current of what other populations sent, without the bias; None if there are none.

    Positive and negative spikes go through one convolution, because only their difference counts.

    Parameters
    ----------
    population : Population
    sent : mapping of int to (n, channels, height, width)
        See `Sent`.

    Returns
    -------
    (n, channels, height, width) float32 or None
    """
    projections = [s for s in population.projections if not s.negative]
    return _sum(projections, sent) if projections else None


def last_uses(circuit: Circuit) -> dict[int, int]:
    """The last population that reads each population's output; outputs are freed after it."""
    last: dict[int, int] = {}
    for i, population in enumerate(circuit.populations):
        sources = (
            [population.source]
            if isinstance(population, MaxPool)
            else [source for projection in population.projections for source in projection.sources]
        )
        last.update((source.population, i) for source in sources)
    return last


def _sum(projections: Sequence[Projection], sent: Sent) -> np.ndarray:
    total = _convolved(projections[0], sent)
    for projection in projections[1:]:
        total += _convolved(projection, sent)
    return total


def _convolved(projection: Projection, sent: Sent) -> np.ndarray:
    parts = [seen_by(source, sent[source.population]) for source in projection.sources]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    if (
        projection.channelwise
        and projection.kernel == (1, 1)
        and projection.stride == (1, 1)
        and not any(projection.padding)
    ):
        return values * projection.effective()[:, 0]
    return conv2d(
        values,
        projection.effective(),
        None,
        projection.stride,
        projection.padding,
        projection.dilation,
        projection.groups,
    )


def seen_by(source: Source, values: np.ndarray) -> np.ndarray:
    """Values as they are; or as float32, summed over the pooling windows. The division is in the weights.

    Spikes are brought to float32 some samples at a time: their sums are exact in any order.
    """
    if source.pool is None:
        return values
    if values.dtype == np.float32:
        return _pooled(source, values)
    n_out = source.shape[0], *source.seen_size
    pooled = np.empty((len(values), *n_out[1:], n_out[0]), np.float32).transpose(0, 3, 1, 2)
    at_once = max(1, _POOLED // max(1, values[0].size))
    for first in range(0, len(values), at_once):
        some = slice(first, first + at_once)
        pooled[some] = _pooled(source, values[some].astype(np.float32, copy=False))
    return pooled


def _pooled(source: Source, values: np.ndarray) -> np.ndarray:
    if source.pool is None:
        return values
    kernel, stride = source.pool.kernel, source.pool.stride
    if kernel == stride and not any(source.pool.padding):
        n, channels, height, width = values.shape
        rows, columns = height // kernel[0], width // kernel[1]
        whole = values.transpose(0, 2, 3, 1)[:, : rows * kernel[0], : columns * kernel[1]]
        return (
            whole.reshape(n, rows, kernel[0], columns, kernel[1], channels)
            .sum(axis=(2, 4))
            .transpose(0, 3, 1, 2)
        )
    return pooled_input(source, values)
