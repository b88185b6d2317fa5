"""Convolutions and matrix products of a graph."""

from __future__ import annotations

import math

import numpy as np

from ..onnx.graph import Node
from ..onnx.operators import OPERATORS, turned_kernel
from .convolution import Convolution, both_paddings
from .linear import convolution, product
from .scope import Scope, refusal, windows_of
from .value import LayoutError, Value

__all__ = ["RULES"]


def _conv(scope: Scope, node: Node) -> Value:
    value, weight, groups = scope.value(node), scope.needed(node, 1, "weight"), node.integer("group", 1)
    if len(value.shape) != 3:
        value.map_shape()
    channels, height, width = value.shape
    if weight.ndim != 4 or weight.shape[1] * groups != channels or weight.shape[0] % groups:
        raise refusal(
            node,
            "weight and input do not fit",
            got=f"weight {weight.shape} in {groups} groups on {channels} channels",
        )
    top, left, bottom, right = value.padding
    at = windows_of(node, (height + top + bottom, width + left + right), weight.shape[2:])
    kernel = Convolution(
        weight,
        None,
        at.window.stride,
        both_paddings(at.window.padding, value.padding),
        at.window.dilation,
        groups,
    )
    return convolution(scope, node, value, kernel, scope.constant(node, 2, "bias"))


def _conv_transpose(scope: Scope, node: Node) -> Value:
    """A convolution, by the turned kernel, of the map with zeros between its elements."""
    value, weight = scope.value(node).explicit(), scope.needed(node, 1, "weight")
    if len(value.shape) != 3:
        value.map_shape()
    (down, right), group = node.integers("strides"), node.integer("group", 1)
    dilations = node.integers("dilations")
    kernel, around = turned_kernel(
        weight, node.integers("pads"), dilations, node.integers("output_padding"), group
    )
    pads = np.array([0, 0, *around[:2], 0, 0, *around[2:]], np.int64)
    channels, height, width = value.shape

    def spread(x: np.ndarray) -> np.ndarray:
        size = (height - 1) * down + 1, (width - 1) * right + 1
        out = np.zeros((1, channels, *size), x.dtype)
        out[:, :, ::down, ::right] = x
        return OPERATORS["Pad"](out, np.minimum(pads, 0))  # negative ones cut

    top, left, bottom, side = (max(0, a) for a in around)
    dilation = (dilations[0], dilations[1])
    turned = Convolution(kernel, padding=(top, left, bottom, side), dilation=dilation, groups=group)
    return convolution(scope, node, value.moved(spread), turned, scope.constant(node, 2, "bias"))


def _gemm(scope: Scope, node: Node) -> Value:
    weight = scope.needed(node, 1, "weight")
    if node.attributes.get("transA", 0):
        raise refusal(node, "transA mixes the samples of a batch", hint="leave transA at 0")
    weight = weight if node.attributes.get("transB", 0) else weight.T
    alpha, beta = (float(node.number(key, 1.0)) for key in ("alpha", "beta"))
    bias = scope.constant(node, 2, "bias")
    if bias is not None:
        bias = np.broadcast_to(bias, (1, len(weight)))[0].astype(np.float64) * beta
    return _product(scope, node, weight, np.full(len(weight), alpha) if alpha != 1 else None, bias)


def _matmul(scope: Scope, node: Node) -> Value:
    if node.inputs[0] in scope.graph.constants:
        raise refusal(node, "the constant stands on the left", hint="write x @ W")
    weight = scope.needed(node, 1, "weight")
    if weight.ndim != 2:
        raise refusal(node, "the constant is not a matrix", got=f"shape {weight.shape}")
    value = scope.value(node)
    if len(value.shape) in (2, 3) and math.prod(value.shape[:-1]) > 1:  # channels last: a 1x1 convolution
        channels_first = value.transposed((len(value.shape) - 1, *range(len(value.shape) - 1)))
        rows = channels_first.shape if len(value.shape) == 3 else (weight.shape[0], 1, value.shape[0])
        if channels_first.reshaped(rows).blocks():
            kernel = Convolution(np.ascontiguousarray(weight.T)[:, :, None, None])
            out = convolution(scope, node, channels_first.reshaped(rows), kernel, None)
            shape = (out.shape[0], *value.shape[:-1])
            return out.reshaped(shape).transposed((*range(1, len(shape)), 0))
    return _product(scope, node, weight.T, None, None)


def _product(
    scope: Scope, node: Node, weight: np.ndarray, gain: np.ndarray | None, bias: np.ndarray | None
) -> Value:
    """A matrix (n_out, n_in) times a vector, as kernels that cover each part."""
    value = scope.value(node)
    if value.shape != (*(1,) * (len(value.shape) - 1), weight.shape[1]):
        raise LayoutError(f"it multiplies more than one vector per sample: a tensor of shape {value.shape}")
    out = product(scope, node, value, weight, gain, bias)
    return Value((out,), (*value.shape[:-1], len(weight)))


RULES = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": _matmul}
