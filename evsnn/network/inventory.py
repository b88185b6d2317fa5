"""What a network consists of, layer by layer: parameters, neurons, operations, thresholds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .layers import IF, AvgPool2d, Conv2d, Layer, Linear, MaxPool2d, Shape
from .network import Network

__all__ = ["LayerFacts", "layer_facts"]


@dataclass(frozen=True)
class LayerFacts:
    """One layer, counted.

    Parameters
    ----------
    name, kind : str
    label : str
        The kind and its details: "conv2d 3x3, stride 2", "if, negative threshold 0.25, warm-up 2".
    inputs : tuple of str
    shape : tuple of int
        The shape of its output.
    n_parameters : int
        Weights and biases.
    n_neurons : int
        Neurons that fire, and outputs of max pools.
    macs : int
        Multiply-adds of the ANN per sample; products with padding are left out.
    v_threshold : (float, float), optional
        The lowest and the highest.
    """

    name: str
    kind: str
    label: str
    inputs: tuple[str, ...]
    shape: Shape
    n_parameters: int
    n_neurons: int
    macs: int
    v_threshold: tuple[float, float] | None


def layer_facts(network: Network) -> tuple[LayerFacts, ...]:
    """The facts of every layer, in order."""
    return tuple(
        _facts(layer, [network.shapes[name] for name in layer.inputs], network.shapes[layer.name])
        for layer in network.layers
    )


def _facts(layer: Layer, shapes: list[Shape], shape: Shape) -> LayerFacts:
    label, n_parameters, n_neurons, macs, v_threshold = layer.kind, 0, 0, 0, None
    if isinstance(layer, (Conv2d, Linear)):
        n_parameters = layer.weight.size + (0 if layer.bias is None else layer.bias.size)
    if isinstance(layer, Conv2d):
        label, macs = _conv_label(layer, shapes[0]), _conv_macs(layer, shapes[0])
    elif isinstance(layer, Linear):
        macs = layer.weight.size
    elif isinstance(layer, AvgPool2d):
        label = f"avgpool2d {'x'.join(map(str, layer.window(shapes[0]).kernel))}"
    elif isinstance(layer, MaxPool2d):
        label, n_neurons = _maxpool_label(layer), math.prod(shape)
    elif isinstance(layer, IF):
        label = ", ".join(
            [
                "if",
                *([f"negative threshold {layer.negative_threshold:g}"] if layer.negative_threshold else []),
                *([f"warm-up {layer.warm_up_steps}"] if layer.warm_up_steps else []),
                *([_slope_label(layer.negative_slope)] if layer.negative_slope is not None else []),
            ]
        )
        n_neurons, v_threshold = (
            math.prod(shape) * (2 if layer.paired else 1),
            (float(layer.v_threshold.min()), float(layer.v_threshold.max())),
        )
    return LayerFacts(
        layer.name, layer.kind, label, layer.inputs, shape, n_parameters, n_neurons, macs, v_threshold
    )


def _conv_label(layer: Conv2d, shape: Shape) -> str:
    label = f"conv2d {layer.weight.shape[2]}x{layer.weight.shape[3]}"
    if layer.groups > 1:
        label += ", depthwise" if layer.groups == shape[0] else f", {layer.groups} groups"
    for what in ("stride", "dilation"):
        value = getattr(layer, what)
        if value != (1, 1):
            label += f", {what} {_pair(value)}"
    return label


def _slope_label(slope: np.ndarray) -> str:
    """``both signs``, or with another slope than 1 below 0: ``negative slope 0.25``."""
    least, most = float(slope.min()), float(slope.max())
    if least == most == 1:
        return "both signs"
    return f"negative slope {least:g}" + (f" to {most:g}" if most > least else "")


def _maxpool_label(layer: MaxPool2d) -> str:
    label = f"maxpool2d {layer.kernel[0]}x{layer.kernel[1]}"
    stride = layer.stride or layer.kernel
    return label if stride == layer.kernel else f"{label}, stride {_pair(stride)}"


def _pair(value: tuple[int, int]) -> str:
    """``2``, or ``2x1``."""
    return str(value[0]) if value[0] == value[1] else f"{value[0]}x{value[1]}"


def _conv_macs(layer: Conv2d, shape: Shape) -> int:
    n_out, n_in = layer.weight.shape[:2]
    return n_out * n_in * layer.window.fan_out(shape[1:])
