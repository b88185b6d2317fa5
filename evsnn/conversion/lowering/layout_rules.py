"""Operators that only move elements, and operators at the end that keep the order of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from ...errors import ModelError
from ...text import printable
from ..onnx.graph import Graph, Node
from ..onnx.operators import OPERATORS
from ..onnx.signals import SLIDING
from .convolution import both_paddings
from .scope import Scope, refusal
from .value import LayoutError, Value

__all__ = ["RULES", "axes_order", "input_layout"]

_RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_POINTWISE = ("Add", "Sub", "Mul", "Div", "Sum", "Relu", "Clip", "Min", "Max", "LeakyRelu", "PRelu")
_SCORES = ("Softmax", "LogSoftmax")


def input_layout(graph: Graph) -> tuple[tuple[int, ...], np.ndarray]:
    """The shape in which the first layer reads the input, and its elements' places in the model's own input.

    Returns
    -------
    shape : (channels, height, width) or (features,)
    positions : array of `shape`
    """
    own = graph.shapes[graph.input]
    start = np.arange(math.prod(own)).reshape(own)
    seen = {graph.input: start}
    for node in graph.nodes:
        name = next((name for name in node.inputs if name in seen), None)
        if name is None:
            continue
        source, shape = seen[name], graph.shapes[node.outputs[0]]
        if node.op == "Transpose":
            seen[node.outputs[0]] = source.transpose(_axes(node, source.ndim))
        elif node.op in _RESHAPES and math.prod(shape) == source.size:
            seen[node.outputs[0]] = source.reshape(shape)
        elif node.op == "Pad" or (
            node.op in (_POINTWISE if source.ndim == 3 else (*_POINTWISE, "BatchNormalization"))
            and shape == graph.shapes[name]
        ):
            seen[node.outputs[0]] = source
        elif node.op == "MatMul" and source.ndim == 3 and source.shape[:2] != (1, 1):
            source = source.transpose(2, 0, 1)  # channels last
            return source.shape, source
        elif source.ndim == 3 and node.op not in ("Gemm", "MatMul"):
            return source.shape, source
    if len(own) == 3:
        return own, start
    if len(own) == 2 and any(node.op in SLIDING for node in graph.nodes):  # parts of a signal
        return (own[0], 1, own[1]), start.reshape(own[0], 1, own[1])
    return (start.size,), start.ravel()


def axes_order(own: tuple[int, ...], positions: np.ndarray) -> tuple[int, ...]:
    """Axes of the model's input, without the batch, in the network's order; () if none has to move."""
    flat = positions.ravel()
    natural = np.arange(flat.size).reshape(own)
    for axes in permutations(range(len(own))):  # the first is the natural order
        if np.array_equal(natural.transpose(axes).ravel(), flat):
            return () if axes == tuple(range(len(own))) else axes
    hint = "let the model read (N, height, width, channels) or (N, channels, height, width)"
    raise ModelError(
        "the model's input is a permuted vector",
        where="input",
        got=f"shape {own}, read as {positions.shape} in another order",
        hint=hint,
    )


def _axes(node: Node, rank: int) -> tuple[int, ...]:
    """Axes of a Transpose, without the batch."""
    order = node.integers("perm", range(rank, -1, -1))
    if order[0] != 0:
        raise refusal(node, "it moves the batch axis", got=f"perm {order}", expected="perm[0] == 0")
    return tuple(a - 1 for a in order[1:])


def _reshape(scope: Scope, node: Node) -> Value:
    value, shape = scope.value(node).explicit(), scope.shape(node)
    if math.prod(shape) != math.prod(value.shape):
        raise refusal(node, "it mixes the batch with other axes", got=f"{value.shape} to {shape} a sample")
    return value.reshaped(shape)


def _transpose(scope: Scope, node: Node) -> Value:
    value = scope.value(node).explicit()
    return value.transposed(_axes(node, len(value.shape)))


def _moved(scope: Scope, node: Node) -> Value:
    """An operator that takes, leaves out, copies or moves elements: it is computed on their numbers."""
    constants = [scope.needed(node, i, f"input {i + 1}") for i in range(1, len(node.inputs))]
    value = scope.value(node).explicit()
    return value.moved(lambda x: OPERATORS[node.op](x, *constants, **node.attributes))


def _concat(scope: Scope, node: Node) -> Value:
    values = [scope.value(node, i).explicit() for i in range(len(node.inputs))]
    axis = node.integer("axis")
    axis += len(values[0].shape) + 1 if axis < 0 else 0
    if axis == 0:
        raise refusal(node, "it joins samples of a batch")
    return Value.concatenated(values, axis - 1)


def _pad(scope: Scope, node: Node) -> Value:
    value = scope.value(node)
    rank = len(value.shape) + 1
    amounts, fill = scope.needed(node, 1, "pads"), scope.constant(node, 2, "value")
    chosen = scope.constant(node, 3, "axes")
    axes = list(range(rank)) if chosen is None else [int(a) % rank for a in chosen]
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = int(amounts[i]), int(amounts[len(axes) + i])
    if not any(before) and not any(after):
        return value
    mode = node.attributes.get("mode", "constant")
    filled = 0.0 if fill is None or not np.any(fill) else float(np.ravel(fill)[0])
    if mode != "constant" or (fill is not None and np.any(fill)):
        raise refusal(
            node,
            "it pads with values that are not 0",
            got=mode if mode != "constant" else filled,
            hint="pad with zeros",
        )
    sides = _space(value) if min(*before, *after) >= 0 else {}
    other = [axis for axis in range(rank) if axis not in sides and (before[axis] or after[axis])]
    if other:  # along other axes, or some of it cut off
        value = _padded(value, before, after, other)
        sides = _space(value) if sides else {}
    around = [0, 0, 0, 0]
    for axis, side in sides.items():
        around[side], around[side + 2] = before[axis], after[axis]
    rest = [axis for axis in range(rank) if axis not in sides and axis not in other]
    if any(before[axis] or after[axis] for axis in rest):  # what was moved is no map of whole channels
        value = _padded(value, before, after, rest)
    top, left, bottom, right = around
    return replace(value, padding=both_paddings((top, left, bottom, right), value.padding))


def _padded(value: Value, before: Sequence[int], after: Sequence[int], axes: Sequence[int]) -> Value:
    """A tensor with zeros along some of its axes, the batch's counted; negative numbers cut."""
    pads = np.zeros((2, len(before)), np.int64)
    pads[:, axes] = [[before[axis] for axis in axes], [after[axis] for axis in axes]]
    return value.explicit().moved(lambda x: OPERATORS["Pad"](x, pads.ravel()))


def _space(value: Value) -> dict[int, int]:
    """Which axis of a tensor with its batch is height, 0, and which is width, 1, if it is a map."""
    if value.sources() is not None:
        return {2: 0, 3: 1}
    try:
        return {at + 1: axis - 1 for at, axis in enumerate(value.axes()) if axis}
    except LayoutError:
        return {}


def _scores(scope: Scope, node: Node) -> Value:
    """Leave out a softmax at the end, because the largest score stays the largest."""
    shape = scope.shape(node)
    if shape[node.integer("axis", -1) % (len(shape) + 1) - 1] != math.prod(shape):
        raise refusal(
            node,
            "it does not run over all scores",
            got=f"axis {node.attributes.get('axis', -1)} of {('N', *shape)}",
            expected="the axis of the classes",
            hint=f"end before it, --scores {printable(node.inputs[0][:200])} (output= in Python)",
        )
    name = node.outputs[0]
    while name not in scope.ends:
        followers = [n for n in scope.graph.nodes if name in n.inputs]
        if len(followers) != 1 or followers[0].op not in (*_RESHAPES, *_SCORES):
            raise refusal(
                node,
                "it stands before other operators",
                hint="only at the end of a model can it be left out; spiking neurons compute ReLUs",
            )
        name = followers[0].outputs[0]
    if scope.ends[name] == name:
        scope.ends[name] = node.inputs[0]
    scope.assembly.note(f"{node.name}: {node.op} at the end left out; the largest score stays the largest")
    return scope.value(node)


RULES = {
    **dict.fromkeys(_RESHAPES, _reshape),
    **dict.fromkeys(_SCORES, _scores),
    **dict.fromkeys(("DepthToSpace", "Gather", "Slice", "SpaceToDepth"), _moved),
    "Transpose": _transpose,
    "Concat": _concat,
    "Pad": _pad,
}
