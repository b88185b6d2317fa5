"""The ANN in evsnn's own layers: what is left of a graph once everything linear is folded.

It is a `Network` whose `IF` layers stand where the ANN has its ReLUs. The thresholds in it mean
nothing yet; balancing sets them.
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

__all__ = ["Ann", "forward"]

Observer = Callable[[str, np.ndarray, np.ndarray], None]

MAX_BATCH = 64
BATCH_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Ann:
    """A ReLU network ready to be balanced.

    Parameters
    ----------
    network : Network
        Batch norms folded; `IF` where the ANN has a ReLU; readout "membrane".
    clips : mapping of str to array
        Upper limit y_th of the ReLU at each `IF`, (channels,) or (), where it has one (threshold ReLU).
    moments : mapping of str to (mean, deviation)
        Each (channels,): mean and standard deviation of the current at an `IF` over the training data,
        where a batch norm stood before the ReLU. For thresholds without data.
    fixed : frozenset of str
        Names of `IF` layers that fire by the clock, at every step or never, with a threshold of 1: balancing
        leaves them.
    notes : tuple of str
        What importing and folding did, for people.
    input_shape : tuple of int
        The source model's own input, without the batch; (): the network's.
    input_layout : tuple of int
        Axes of `input_shape` in the order the network reads them, (2, 0, 1) for channels last; (): as they
        are.
    output : str
        The graph's tensor that the readout equals; not the graph's output where a Softmax was left out.
    """

    network: Network
    clips: Mapping[str, np.ndarray] = field(default_factory=dict)
    moments: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    input_shape: tuple[int, ...] = ()
    input_layout: tuple[int, ...] = ()
    output: str = ""

    @cached_property
    def batch(self) -> int:
        """Samples that go through at a time: `MAX_BATCH`, or as many as take `BATCH_BYTES` where the network
        is widest; at least one.
        """
        layers, last = self.network.layers, _last_readers(self.network)
        size = {layer.name: 4 * prod(self.network.shapes[layer.name]) for layer in layers}
        alive = most = 0
        for i, layer in enumerate(layers):
            alive += size[layer.name]
            most = max(most, alive + size[layer.name])  # as much again for an operator's own work
            alive -= sum(size[name] for name in set(layer.inputs) if last[name] == i)
        return max(1, min(MAX_BATCH, BATCH_BYTES // most))

    def arranged(self, images: np.ndarray) -> np.ndarray:
        """Samples (n, *input_shape) of the source model as the network reads them, (n,
        *network.input_shape).
        """
        if self.input_layout:
            images = images.transpose(0, *(1 + axis for axis in self.input_layout))
        return images.reshape(len(images), *self.network.input_shape)


def forward(
    ann: Ann, images: np.ndarray, batch: int | None = None, observe: Observer | None = None
) -> np.ndarray:
    """The ANN's scores.

    Parameters
    ----------
    ann : Ann
    images : (n, *network.input_shape)
        See `Ann.arranged`.
    batch : int, optional
        Samples at a time, by default `Ann.batch`; activations of that many are held, each until its last
        reader is done.
    observe : callable, optional
        ``observe(name, current, activation)`` for each `IF` and batch: float32 arrays (batch, *shape)
        before and after the ReLU, read-only by agreement; for the readout, its scores twice.

    Returns
    -------
    (n, n_classes) float32
    """
    scores = np.empty((len(images), ann.network.n_classes), np.float32)
    batch = batch or ann.batch
    for start in range(0, len(images), batch):
        scores[start : start + batch] = _batch(
            ann, np.asarray(images[start : start + batch], np.float32), observe
        )
    return scores


def _batch(ann: Ann, images: np.ndarray, observe: Observer | None) -> np.ndarray:
    layers, last = ann.network.layers, _last_readers(ann.network)
    values: dict[str, np.ndarray] = {}
    for i, layer in enumerate(layers):
        inputs = [values[name] for name in layer.inputs]
        value = images if isinstance(layer, Input) else _computed(layer, inputs, ann.clips.get(layer.name))
        if observe is not None and isinstance(layer, (IF, Readout)):
            observe(layer.name, inputs[0], value)
        values[layer.name] = value
        for name in layer.inputs:
            if last[name] == i:
                values.pop(name, None)
    return value


def _last_readers(network: Network) -> dict[str, int]:
    """The number of the last layer that reads each layer."""
    return {name: i for i, layer in enumerate(network.layers) for name in layer.inputs}


def _computed(layer: Layer, inputs: list[np.ndarray], clip: np.ndarray | None) -> np.ndarray:
    """What a layer of the ANN makes of its inputs, (batch, ...) each."""
    x = inputs[0]
    if isinstance(layer, Conv2d):
        return conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    if isinstance(layer, Linear):
        return x @ layer.weight.T if layer.bias is None else x @ layer.weight.T + layer.bias
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
    return x.reshape(len(x), -1)  # Flatten, Readout
