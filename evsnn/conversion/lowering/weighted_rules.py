"""Convolutions and matrix products of a graph."""

from __future__ import annotations

import numpy as np

from ..onnx.graph import Node
from .convolution import Convolution, both_paddings
from .scope import Scope, refusal, windows_of
from .value import Value

__all__ = ["RULES"]


def _conv(scope: Scope, node: Node) -> Value:
    value, weight = scope.value(node), scope.needed(node, 1, "weight")
    shape, groups = value.map_shape(), node.integer("group", 1)
    if weight.ndim != 4 or weight.shape[1] * groups != shape[0] or weight.shape[0] % groups:
        raise refusal(
            node,
            "weight and input do not fit",
            got=f"weight {weight.shape} in {groups} groups on {shape[0]} channels",
        )
    top, left, bottom, right = value.padding
    at = windows_of(node, (shape[1] + top + bottom, shape[2] + left + right), weight.shape[2:])
    kernel = Convolution(
        weight,
        None,
        at.window.stride,
        both_paddings(at.window.padding, value.padding),
        at.window.dilation,
        groups,
    )
    out = _applied(scope, value, kernel, scope.constant(node, 2, "bias"), node.name)
    return Value((out,), out.shape)


def _applied(scope: Scope, value: Value, kernel: Convolution, bias: np.ndarray | None, name: str):
    """A convolution of all parts: of one signal if they are spikes side by side, else part by part."""
    joined = scope.assembly.joined(scope.expressions(value, name))
    if joined is not None:
        return scope.assembly.convolved(joined, kernel, bias, name)
    starts = value.channels
    return scope.convolved(value, [kernel.part(a, b) for a, b in zip(starts, starts[1:])], bias, name)


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
    if (
        len(value.shape) == 3 and value.shape[:2] != (1, 1) and value.axes() == (1, 2, 0)
    ):  # channels last: a 1x1 convolution
        out = _applied(
            scope, value, Convolution(np.ascontiguousarray(weight.T)[:, :, None, None]), None, node.name
        )
        channels, height, width = out.shape
        return Value(
            (out,),
            (height, width, channels),
            np.arange(channels * height * width).reshape(out.shape).transpose(1, 2, 0),
        )
    return _product(scope, node, weight.T, None, None)


def _product(
    scope: Scope, node: Node, weight: np.ndarray, gain: np.ndarray | None, bias: np.ndarray | None
) -> Value:
    """A matrix (n_out, n_in) times a vector, as kernels that cover each part."""
    value = scope.value(node)
    if value.shape != (*(1,) * (len(value.shape) - 1), weight.shape[1]):
        raise refusal(
            node,
            "it multiplies more than one vector per sample",
            got=f"a tensor of shape {value.shape}",
            expected=f"({weight.shape[1]},)",
            hint="flatten before it",
        )
    kernels = [Convolution(k, gain, product=True) for k in value.columns(weight)]
    joined = scope.assembly.joined(scope.expressions(value, node.name))
    if joined is not None:
        whole = (
            kernels[0].weight if len(kernels) == 1 else np.concatenate([k.weight for k in kernels], axis=1)
        )
        out = scope.assembly.convolved(joined, Convolution(whole, gain, product=True), bias, node.name)
    else:
        out = scope.convolved(value, kernels, bias, node.name)
    return Value((out,), (*value.shape[:-1], len(weight)))


RULES = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}
