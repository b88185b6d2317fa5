"""Linear operators on tensors of any layout: as convolutions if that is possible, else as matrices."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce

import numpy as np

from ..onnx.graph import Node
from ..onnx.operators import OPERATORS
from .convolution import Convolution
from .expression import Expression
from .phases import interleaved, phases_of, regular_phases
from .scope import MAX_MATRIX, Scope
from .sums import added
from .value import ZERO, LayoutError, Value

__all__ = ["AFFINE", "as_matrix", "convolution", "product"]

AFFINE = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "Div",
        "GlobalAveragePool",
        "MatMul",
        "Mul",
        "Pad",
        "ReduceMean",
        "Sub",
        "Sum",
    }
)
"""Operators that are matrices with a bias, if their other inputs are constants."""


def convolution(
    scope: Scope, node: Node, value: Value, kernel: Convolution, bias: np.ndarray | None
) -> Value:
    """A convolution of a map, whose channels may be moved, chosen or cropped; the kernel has all padding."""
    value = replace(value, padding=(0, 0, 0, 0))
    if value.is_map():
        out = _applied(scope, value, kernel, bias, node.name)
        return Value((out,), out.shape)
    sources = value.sources()
    if sources is not None and kernel.groups > 1:
        if kernel.groups == len(sources):
            return _depthwise(scope, node, value, sources, kernel, bias)
        grouped = _regrouped(sources, value.channels[-1], kernel)
        if grouped is not None:
            out = _applied(scope, value, grouped, bias, node.name)
            return Value((out,), out.shape)
    blocks = value.blocks()
    if not blocks:
        return _by_phases(scope, node, value, kernel, bias)
    dense = kernel.dense()
    if kernel.groups > 1:
        scope.assembly.note(
            f"{node.name}: channels from other groups of the layer before it; its {kernel.groups} groups"
            " become one, with weights of 0"
        )
    parts, kernels = scope.cropped(value, blocks, node.name), []
    for block, part in zip(blocks, parts):
        weight = np.zeros((part.shape[0], dense.n_out, *dense.size), dense.weight.dtype)
        np.add.at(weight, block.sources, dense.weight[:, block.channels].swapaxes(0, 1))
        kernels.append(replace(dense, weight=weight.swapaxes(0, 1)))
    joined = scope.assembly.joined(parts)
    if joined is not None:
        whole = replace(dense, weight=np.concatenate([k.weight for k in kernels], axis=1))
        out = scope.assembly.convolved(joined, whole, bias, node.name)
    else:
        out = scope.summed(parts, kernels, bias, node.name).merged()
    return Value((out,), out.shape)


def _depthwise(
    scope: Scope,
    node: Node,
    value: Value,
    sources: np.ndarray,
    kernel: Convolution,
    bias: np.ndarray | None,
) -> Value:
    """A convolution of each channel on its own: channels stay where they are, and the index stays."""
    many, unseen = kernel.n_out // len(sources), bias is not None and (sources == ZERO).any()
    if unseen or len(np.unique(sources[sources != ZERO])) < (sources != ZERO).sum():
        out = _applied(scope, scope.mapped(value, node.name), kernel, bias, node.name)
        return Value((out,), out.shape)
    seen = sources != ZERO
    weights = np.zeros((value.channels[-1], many, *kernel.weight.shape[1:]), kernel.weight.dtype)
    weights[sources[seen]] = kernel.weight.reshape(len(sources), many, *kernel.weight.shape[1:])[seen]
    biases = np.zeros((value.channels[-1], many))
    if bias is not None:
        biases[sources[seen]] = bias.reshape(len(sources), many)[seen]
    parts = []
    for part, start, stop in zip(scope.expressions(value, node.name), value.channels, value.channels[1:]):
        own = replace(
            kernel, weight=weights[start:stop].reshape(-1, *kernel.weight.shape[1:]), groups=stop - start
        )
        own_bias = None if bias is None else biases[start:stop].ravel()
        parts.append(scope.assembly.convolved(part, own, own_bias, node.name))
    size = parts[0].shape[1:]
    channels = np.where(seen[:, None], sources[:, None] * many + np.arange(many), ZERO).ravel()
    natural = np.arange(size[0] * size[1])
    index = np.where(channels[:, None] == ZERO, ZERO, channels[:, None] * natural.size + natural)
    return Value(tuple(parts), (len(channels), *size), index.reshape(-1, *size))


def _regrouped(sources: np.ndarray, n_in: int, kernel: Convolution) -> Convolution | None:
    """The same convolution of channels that have only moved within their groups; None if they have not."""
    if len(sources) != n_in:
        return None
    moved = sources.reshape(kernel.groups, -1) - np.arange(n_in).reshape(kernel.groups, -1)[:, :1]
    if not np.array_equal(np.sort(moved, axis=1), np.tile(np.arange(moved.shape[1]), (kernel.groups, 1))):
        return None
    order = np.argsort(moved, axis=1).repeat(kernel.n_out // kernel.groups, axis=0)
    return replace(kernel, weight=np.take_along_axis(kernel.weight, order[:, :, None, None], axis=1))


def _applied(scope: Scope, value: Value, kernel: Convolution, bias: np.ndarray | None, name: str):
    """A convolution of all parts: of one signal if they are spikes side by side, else part by part."""
    joined = scope.assembly.joined(scope.expressions(value, name))
    if joined is not None:
        return scope.assembly.convolved(joined, kernel, bias, name)
    starts = value.channels
    return scope.convolved(value, [kernel.part(a, b) for a, b in zip(starts, starts[1:])], bias, name)


def _by_phases(scope: Scope, node: Node, value: Value, kernel: Convolution, bias: np.ndarray | None) -> Value:
    """A convolution of a map that is larger than the layers it comes from."""
    regular = regular_phases(value)
    if regular is None:
        raise LayoutError(f"it reads a tensor of shape {value.shape} whose elements are not those of maps")
    steps, inputs = regular
    made, phases = phases_of(kernel, steps, (value.shape[1], value.shape[2]))
    _, *size = kernel.output_shape((kernel.n_in, value.shape[1], value.shape[2]))
    outputs: dict[tuple[int, int], Value] = {}
    for phase in phases:
        if phase.source not in inputs:
            continue
        seen, own = inputs[phase.source], None if phase.at in outputs else bias
        term = convolution(scope, node, seen, phase.kernel, own)
        outputs[phase.at] = added(scope, node, outputs[phase.at], term) if phase.at in outputs else term
    for y, x in np.ndindex(*made):
        shape = (kernel.n_out, len(range(y, size[0], made[0])), len(range(x, size[1], made[1])))
        if (y, x) not in outputs:
            outputs[y, x] = _constant(scope, node, value, shape, bias)
    ordered = {at: _merged(outputs[at]) for at in np.ndindex(*made)}
    return interleaved(ordered, made)


def _merged(value: Value) -> Value:
    return value.with_parts([p.merged() if isinstance(p, Expression) else p for p in value.parts])


def _constant(
    scope: Scope, node: Node, value: Value, shape: tuple[int, int, int], bias: np.ndarray | None
) -> Value:
    """A map that does not depend on the input, as a convolution with weights of 0."""
    part = scope.expressions(value, node.name)[0]
    channels, *size = part.shape
    kernel = [max(1, n - count + 1) for n, count in zip(size, shape[1:])]
    down, right = (max(0, count - n) for n, count in zip(size, shape[1:]))
    zero = Convolution(np.zeros((shape[0], channels, *kernel)), padding=(0, 0, down, right))
    return Value((scope.assembly.convolved(part, zero, bias, node.name),), shape)


def product(
    scope: Scope,
    node: Node,
    value: Value,
    weight: np.ndarray,
    gain: np.ndarray | None,
    bias: np.ndarray | None,
) -> Expression:
    """A matrix (n_out, n_in) times all elements of a tensor."""
    kernels = [Convolution(k, gain, product=True) for k in value.columns(weight)]
    joined = scope.assembly.joined(scope.expressions(value, node.name))
    if joined is not None:
        whole = (
            kernels[0].weight if len(kernels) == 1 else np.concatenate([k.weight for k in kernels], axis=1)
        )
        return scope.assembly.convolved(joined, Convolution(whole, gain, product=True), bias, node.name)
    return scope.convolved(value, kernels, bias, node.name)


def as_matrix(scope: Scope, node: Node, reason: str) -> Value | None:
    """Any linear operator as a matrix with a bias for each element: exact for every layout, and large.

    None if it would have more than `MAX_MATRIX` weights.
    """
    shape = scope.shape(node)
    terms: list[Expression] = []
    moving = [i for i, name in enumerate(node.inputs) if name in scope.values]
    values = {i: scope.value(node, i).explicit() for i in moving}
    n_out, n_in = math.prod(shape), sum(math.prod(v.shape) for v in values.values())
    if n_in * n_out > MAX_MATRIX:
        return None

    def computed(i: int, x: np.ndarray) -> np.ndarray:
        """The operator on samples of one input; the others are 0."""
        operands = [
            x
            if at == i
            else np.zeros((len(x), *values[at].shape), np.float32)
            if at in values
            else scope.graph.constants[name]
            if name
            else None
            for at, name in enumerate(node.inputs)
        ]
        return np.asarray(OPERATORS[node.op](*operands, **node.attributes)).reshape(len(x), -1)

    for i, value in values.items():
        n = math.prod(value.shape)
        zero = computed(i, np.zeros((1, *value.shape), np.float32))[0].astype(np.float64)
        weight = computed(i, np.eye(n, dtype=np.float32).reshape(n, *value.shape)) - zero
        bias = zero if not terms and zero.any() else None
        term = product(scope, node, value.reshaped((n,)), weight.T.astype(np.float32), None, bias)
        terms.append(term)
    total = reduce(lambda a, b: scope.assembly.sum(a, b, node.name), terms)
    scope.assembly.note(f"{node.name}: {node.op} as a matrix of {n_in} x {n_out} weights, because {reason}")
    return Value((total,), shape)
