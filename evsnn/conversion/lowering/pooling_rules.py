"""Pools and means over space."""

from __future__ import annotations

from ...network.geometry import Window
from ..onnx.graph import Node
from ..onnx.windows import Windows
from .convolution import both_paddings
from .expression import Expression, Pending
from .scope import Scope, refusal, windows_of
from .value import LayoutError, Value

__all__ = ["RULES"]


def _windows(node: Node, value: Value) -> Windows:
    """The windows of a pool on a map with the zeros of a Pad around it."""
    _, height, width = value.map_shape()
    top, left, bottom, right = value.padding
    at = windows_of(node, (height + top + bottom, width + left + right), node.integers("kernel_shape"))
    if at.window.dilation != (1, 1):
        raise refusal(node, "the pool is dilated", got=at.window.dilation, expected="(1, 1)")
    return at


def _placed(parts: list[Expression | Pending]) -> Value:
    return Value(tuple(parts), (sum(p.shape[0] for p in parts), *parts[0].shape[1:]))


def _max_pool(scope: Scope, node: Node) -> Value:
    value = scope.value(node)
    at = _windows(node, value)
    if any(value.padding) and not all(isinstance(p, Expression) and p.spikes for p in value.parts):
        raise refusal(
            node,
            "zeros are padded to values that may be negative before the max pool",
            hint="put the ReLU before the Pad",
        )
    around = both_paddings(at.window.padding, value.padding)
    padding = both_paddings(around, (0, 0, *at.overhang))
    window = Window(at.window.kernel, at.window.stride, padding)
    _note_average(scope, node)
    return _placed([scope.assembly.max_pool(p, window, node.name) for p in value.parts])


def _note_average(scope: Scope, node: Node) -> None:
    if scope.assembly.average:
        scope.assembly.note(
            f"{node.name}: an average pool in place of the max pool, which CHANGES the ANN: expect a loss of"
            " accuracy, or train with average pools"
        )


def _avg_pool(scope: Scope, node: Node) -> Value:
    value = scope.value(node)
    at = _windows(node, value)
    if any(at.window.padding) and not node.attributes.get("count_include_pad", 0):
        what = (
            "its divisor is smaller at the border: padded positions, and those that ceil_mode adds, do not"
            " count"
        )
        raise refusal(
            node,
            what,
            got=f"pads {at.window.padding}",
            hint="use ceil_mode=0, and count_include_pad=1 or no padding",
        )
    if any(at.overhang):
        raise refusal(
            node,
            "its last windows reach beyond the map (ceil_mode), where the divisor is smaller",
            hint="use ceil_mode=0, or a size that the stride divides",
        )
    window = Window(at.window.kernel, at.window.stride, both_paddings(at.window.padding, value.padding))
    return _placed([scope.assembly.avg_pool(p, window, node.name) for p in value.parts])


def _global_avg(scope: Scope, node: Node) -> Value:
    return _mean(scope, node, scope.value(node), (1, 1))


def _mean(scope: Scope, node: Node, value: Value, over: tuple[int, int]) -> Value:
    """The mean over height, width or both."""
    value.unpadded()
    parts = []
    for part in value.parts:
        height, width = (n if whole else 1 for n, whole in zip(part.shape[1:], over))
        kernel = height, width
        parts.append(scope.assembly.avg_pool(part, Window(kernel, kernel), node.name))
    return Value(tuple(parts), scope.shape(node))


def _global_max(scope: Scope, node: Node) -> Value:
    value = scope.value(node)
    size = value.map_shape()[1:]
    value.unpadded()
    _note_average(scope, node)
    return Value(
        tuple(scope.assembly.max_pool(p, Window(size, size), node.name) for p in value.parts),
        scope.shape(node),
    )


def _reduce_mean(scope: Scope, node: Node) -> Value:
    value = scope.value(node)
    axes = [int(axis) for axis in scope.needed(node, 1, "axes")]
    sizes = {p.shape[1:] for p in value.parts}
    if (
        axes == [2] and value.index is None and len(sizes) == 1 and len(value.shape) == 2
    ):  # (channels, height * width)
        (size,) = sizes
        if value.shape == (value.channels[-1], size[0] * size[1]):
            return _mean(scope, node, value, (1, 1))
    order = value.axes()
    over = {order[a - 1] for a in axes}
    if 0 in over:
        raise LayoutError(
            "it takes the mean over channels; only means over height and width can be converted"
        )
    if value.index is not None and len(over) == 1:
        raise LayoutError("it takes the mean over one axis of a map that is not channels first")
    return _mean(scope, node, value, (1 in over, 2 in over))


RULES = {
    "MaxPool": _max_pool,
    "AveragePool": _avg_pool,
    "GlobalAveragePool": _global_avg,
    "GlobalMaxPool": _global_max,
    "ReduceMean": _reduce_mean,
}
