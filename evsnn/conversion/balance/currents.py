"""What charges a population, densely: the linear expression of its projections over whole batches.

The ANN and the spiking network differ in what is sent, not in what is summed. So one piece of code
serves both: fed with activations it is the ANN's forward pass, fed with spikes it is the membranes'
current, for many samples and steps at once through BLAS. Sums are BLAS's, not the specified order:
this is for measuring and balancing, never for results.

Arrays are (n, channels, height, width) by shape and channels-last in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...circuit.populations import INPUT, Circuit, MaxPool, Population, Projection, Source
from ...circuit.reference import pooled_input
from ..onnx.dense import conv2d

__all__ = ["Sent", "analog_current", "last_uses", "spiking_current"]

Sent = Mapping[int, np.ndarray]
"""What populations have sent: index -> (n, channels, height, width) activations or net spikes; `INPUT` too.
"""


def analog_current(population: Population, images: np.ndarray) -> np.ndarray | None:
    """The current of the analog input (n, channels, height, width), without the bias; None where there is
    none.
    """
    return _sum(population.analog_projections, {INPUT: images}) if population.analog_projections else None


def spiking_current(population: Population, sent: Sent) -> np.ndarray | None:
    """The current of what other populations sent, without the bias; None where nothing does.

    Positive and negative spikes go through one convolution: what counts is their difference.
    """
    projections = [s for s in population.projections if not s.negative]
    return _sum(projections, sent) if projections else None


def last_uses(circuit: Circuit) -> dict[int, int]:
    """The last population that reads each population's output; outputs are let go after it."""
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
    parts = [_seen(source, sent[source.population]) for source in projection.sources]
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


def _seen(source: Source, values: np.ndarray) -> np.ndarray:
    """As float32, and summed over the pooling windows: the division is in the weights."""
    values = values.astype(np.float32, copy=False)
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
