"""Pools and means over space."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np

from ...network.geometry import Window
from ..onnx.graph import Node
from ..onnx.windows import Windows
from .borders import average
from .convolution import Convolution, both_paddings
from .expression import Expression, Pending
from .scope import Scope, refusal, windows_of
from .value import LayoutError, Value

__all__ = ["RULES"]


def _windows(node: Node, value: Value) -> Windows:
    """The windows of a pool on a map with the zeros of a Pad around it."""
    _, height, width = value.shape if len(value.shape) == 3 else value.map_shape()
    top, left, bottom, right = value.padding
    at = windows_of(node, (height + top + bottom, width + left + right), node.integers("kernel_shape"))
    if at.window.dilation != (1, 1):
        raise refusal(node, "the pool is dilated", got=at.window.dilation, expected="(1, 1)")
    return at


def _channelwise(scope: Scope, node: Node, value: Value) -> Value:
    """A map of whole channels of its parts, in any order."""
    value = scope.compacted(value)
    return value if value.is_map() or value.sources() is not None else scope.mapped(value, node.name)


def _placed(value: Value, parts: list[Expression | Pending]) -> Value:
    if value.is_map():
        return Value(tuple(parts), (sum(p.shape[0] for p in parts), *parts[0].shape[1:]))
    return value.by_channel(parts)


def _max_pool(scope: Scope, node: Node) -> Value:
    value = _channelwise(scope, node, scope.value(node))
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
    return _placed(value, [scope.assembly.max_pool(p, window, node.name) for p in value.parts])


def _note_average(scope: Scope, node: Node) -> None:
    if scope.assembly.average:
        scope.assembly.note(
            f"{node.name}: an average pool in place of the max pool, which CHANGES the ANN: expect a loss of"
            " accuracy, or train with average pools"
        )


def _avg_pool(scope: Scope, node: Node) -> Value:
    value = _channelwise(scope, node, scope.value(node))
    at = _windows(node, value)
    excluded = any(at.window.padding) and not node.attributes.get("count_include_pad", 0)
    if excluded and not any(value.padding):
        return _placed(
            value,
            [average(scope.assembly, e, at, node.name) for e in scope.expressions(value, node.name)],
        )
    if excluded or any(at.overhang):
        raise LayoutError("its divisor is smaller at the border, by zeros of a Pad or of ceil_mode")
    window = Window(at.window.kernel, at.window.stride, both_paddings(at.window.padding, value.padding))
    return _placed(value, [scope.assembly.avg_pool(p, window, node.name) for p in value.parts])


def _global_avg(scope: Scope, node: Node) -> Value:
    value = scope.value(node).explicit()
    sizes = {(p.shape[1] * p.shape[2],) for p in value.parts}
    if value.index is None and sizes == {(int(np.prod(value.shape[1:])),)}:
        return _mean(scope, node, value, (1, 1))
    return replace(_mean_of_places(scope, node, value), shape=scope.shape(node))


def _mean_of_places(scope: Scope, node: Node, value: Value) -> Value:
    """The mean of each channel of a map that sees each channel of a part everywhere, or equally often."""
    channels, places = len(value.positions), value.positions[0].size
    if value.sources() is not None:
        windows = [Window(p.shape[1:], p.shape[1:]) for p in value.parts]
        pooled = [scope.assembly.avg_pool(p, w, node.name) for p, w in zip(value.parts, windows)]
        return value.by_channel(pooled)
    seen = np.stack(
        [np.bincount(index.ravel() + 1, minlength=value.size + 1)[1:] for index in value.positions]
    )
    terms = []
    for part, start, stop in zip(value.parts, value.starts, value.starts[1:]):
        counts = seen[:, start:stop].reshape(channels, part.shape[0], -1)
        if (counts != counts[:, :, :1]).any():
            raise LayoutError("it takes the mean over places that are seen a different number of times")
        window = Window(part.shape[1:], part.shape[1:])
        pooled_part = scope.assembly.avg_pool(part, window, node.name)
        factors = counts[:, :, 0] * (window.area / places)
        chosen = Convolution(factors[:, :, None, None])
        terms.append(scope.assembly.convolved(pooled_part, chosen, name=node.name))
    total = reduce(lambda a, b: scope.assembly.sum(a, b, node.name), terms)
    return Value((total,), total.shape)


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
    value = _channelwise(scope, node, scope.value(node).explicit())
    size = value.shape[1], value.shape[2]
    _note_average(scope, node)
    return _placed(value, [scope.assembly.max_pool(p, Window(size, size), node.name) for p in value.parts])


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
    value = value.explicit()
    if len(value.shape) == 3 and sorted(axes) == [2, 3]:
        try:
            value.axes()
        except LayoutError:
            return replace(_mean_of_places(scope, node, value), shape=scope.shape(node))
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
