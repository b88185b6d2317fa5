"""The ANN in evsnn's own layers: what is left of a graph after everything linear is folded.

It is a `Network` whose `IF` layers are in the places of the ANN's ReLUs. Its thresholds have no meaning yet;
balancing sets them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np

from ...network.layers import IF, Add, AvgPool2d, Concat, Conv2d, Input, Layer, Linear, MaxPool2d, Readout
from ...network.network import Network
from ..onnx.dense import conv2d
from ..onnx.operators import OPERATORS

__all__ = ["Ann", "computed", "forward", "forward_all"]

Observer = Callable[[str, np.ndarray, np.ndarray], None]

MAX_BATCH = 64
BATCH_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Ann:
    """A ReLU network that is ready to be balanced.

    Parameters
    ----------
    network : Network
        With folded batch norms, an `IF` for each ReLU of the ANN, and readout "membrane".
    clips : mapping of str to array
        The upper limit y_th of the ReLU at each `IF` that has one (threshold ReLU), (channels,) or ().
    moments : mapping of str to (mean, deviation)
        Mean and standard deviation (channels,) of the current at an `IF` over the training data, if a batch
        norm was before the ReLU. They give thresholds without data.
    fixed : frozenset of str
        Names of `IF` layers whose neurons fire at every step or never, with a threshold of 1. Balancing does
        not change them.
    macs : mapping of str to int
        Multiply-adds of the source model for one sample, by the `IF` layer that integrates them first, or by
        the readout; without products with padding.
    notes : tuple of str
        What importing and folding did, for people.
    outputs : tuple of str
        The graph's tensor that each readout equals; not the graph's output if a Softmax was left out.
    windows : tuple of (slice, slice) or None
        The rows and columns of that tensor that each readout has; None: all of it.
    """

    network: Network
    clips: Mapping[str, np.ndarray] = field(default_factory=dict)
    moments: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    macs: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    windows: tuple[tuple[slice, slice] | None, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the source model's own input, without the batch."""
        return self.network.input.source_shape or self.network.input_shape

    @cached_property
    def batch(self) -> int:
        """How many samples are computed at a time: at most `MAX_BATCH`, and as many as fit `BATCH_BYTES`."""
        return max(1, min(MAX_BATCH, BATCH_BYTES // self.sample_bytes))

    @cached_property
    def sample_bytes(self) -> int:
        """The most memory that one sample's tensors take."""
        layers, last = self.network.layers, _last_readers(self.network)
        size = {layer.name: 4 * prod(self.network.shapes[layer.name]) for layer in layers}
        alive = most = 0
        for i, layer in enumerate(layers):
            alive += size[layer.name]
            most = max(most, alive + size[layer.name])  # as much again for an operator's own work
            alive -= sum(size[name] for name in set(layer.inputs) if last[name] == i)
        return most

    def arranged(self, images: np.ndarray) -> np.ndarray:
        """Samples of the source model in the order in which the network reads them.

        From (n, *input_shape) to (n, *network.input_shape).
        """
        return self.network.input.arranged(images)


def forward(
    ann: Ann, images: np.ndarray, batch: int | None = None, observe: Observer | None = None
) -> np.ndarray:
    """The ANN's first output; see `forward_all`.

    Returns
    -------
    (n, *output_shape) float32
    """
    return forward_all(ann, images, batch, observe)[ann.network.outputs[0].name]


def forward_all(
    ann: Ann, images: np.ndarray, batch: int | None = None, observe: Observer | None = None
) -> dict[str, np.ndarray]:
    """The ANN's outputs.

    Parameters
    ----------
    ann : Ann
    images : (n, *network.input_shape)
        See `Ann.arranged`.
    batch : int, optional
        Samples at a time. None: `Ann.batch`. Their activations are held, each until the last layer has read
        it.
    observe : callable, optional
        ``observe(name, current, activation)`` is called for each `IF` and batch, with float32 arrays
        (batch, *shape) before and after the ReLU, which it must not change: of pairs, the activations of both
        neurons, (batch, 2 channels, ...) with the two of a channel side by side. For each readout it is
        called with its output twice.

    Returns
    -------
    dict of str to (n, ...) float32
        By the name of the readout.
    """
    network = ann.network
    outputs = {
        layer.name: np.empty((len(images), *network.shapes[layer.name]), np.float32)
        for layer in network.outputs
    }
    batch = batch or ann.batch
    for start in range(0, len(images), batch):
        part = np.asarray(images[start : start + batch], np.float32)
        for name, values in _batch(ann, part, observe).items():
            outputs[name][start : start + batch] = values
    return outputs


def _batch(ann: Ann, images: np.ndarray, observe: Observer | None) -> dict[str, np.ndarray]:
    layers, last = ann.network.layers, _last_readers(ann.network)
    values: dict[str, np.ndarray] = {}
    for i, layer in enumerate(layers):
        inputs = [values[name] for name in layer.inputs]
        value = images if isinstance(layer, Input) else computed(layer, inputs, ann.clips.get(layer.name))
        if observe is not None and isinstance(layer, (IF, Readout)):
            paired = isinstance(layer, IF) and layer.paired
            observe(layer.name, inputs[0], _of_pairs(inputs[0]) if paired else value)
        values[layer.name] = value
        for name in layer.inputs:
            if last[name] == i:
                values.pop(name, None)
    return {layer.name: values[layer.name] for layer in ann.network.outputs}


def _last_readers(network: Network) -> dict[str, int]:
    """The number of the last layer that reads each layer."""
    return {name: i for i, layer in enumerate(network.layers) for name in layer.inputs}


def computed(layer: Layer, inputs: list[np.ndarray], clip: np.ndarray | None = None) -> np.ndarray:
    """What a layer of the ANN makes of its inputs, (batch, ...) each."""
    x = inputs[0]
    if isinstance(layer, Conv2d):
        return conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    if isinstance(layer, Linear):
        return x @ layer.weight.T if layer.bias is None else x @ layer.weight.T + layer.bias
    if isinstance(layer, IF) and layer.negative_slope is not None:
        slope = layer.negative_slope.reshape(-1, *(1,) * (x.ndim - 2))
        return np.where(x > 0, x, x * slope)
    if isinstance(layer, IF):
        limit = None if clip is None else np.asarray(clip, np.float32).reshape(-1, *(1,) * (x.ndim - 2))
        return np.clip(x, np.float32(0), limit)
    if isinstance(layer, AvgPool2d):
        window = layer.window(x.shape[1:])
        return OPERATORS["AveragePool"](
            x, kernel_shape=window.kernel, strides=window.stride, pads=window.padding, count_include_pad=1
        )
    if isinstance(layer, MaxPool2d):
        return OPERATORS["MaxPool"](x, kernel_shape=layer.kernel, strides=layer.stride, pads=layer.padding)
    if isinstance(layer, Concat):
        return np.concatenate(inputs, axis=1)
    if isinstance(layer, Add):
        total = x.copy() if len(inputs) > 1 else x
        for other in inputs[1:]:
            total += other
        return total
    if isinstance(layer, Readout):
        return x.reshape(len(x), *layer.output_shape([x.shape[1:]]))
    return x.reshape(len(x), -1)  # Flatten


def _of_pairs(current: np.ndarray) -> np.ndarray:
    """The activations of the two neurons of each channel: of x and of -x, side by side."""
    activations = np.empty((len(current), current.shape[1], 2, *current.shape[2:]), np.float32)
    np.maximum(current, 0, out=activations[:, :, 0])
    np.maximum(0 - current, 0, out=activations[:, :, 1])
    return activations.reshape(len(current), -1, *current.shape[2:])
