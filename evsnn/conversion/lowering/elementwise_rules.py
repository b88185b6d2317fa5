"""Batch norms, arithmetic, and ReLUs of every kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import TypeAlias

import numpy as np

from ..onnx.graph import Node
from .expression import Expression, Pending
from .scope import Scope, refusal
from .sums import added
from .value import LayoutError, Value

__all__ = ["RULES"]

Part: TypeAlias = "Expression | Pending"

MAX_FEATURES = 4_096
"""Most features of a flattened map with a constant for each feature, which needs a square matrix."""


def _batch_norm(scope: Scope, node: Node) -> Value:
    """Ioffe & Szegedy 2015: gamma (x - mean) / sqrt(var + epsilon) + beta, as it is after training."""
    if node.attributes.get("training_mode", 0):
        raise refusal(node, "the batch norm is in training mode", hint="call model.eval() before the export")
    value = scope.value(node)
    names = ("scale", "bias", "mean", "variance")
    gamma, beta, mean, variance = (
        scope.needed(node, i + 1, what).astype(np.float64) for i, what in enumerate(names)
    )
    variance = variance + node.number("epsilon", 1e-5)
    if not (variance > 0).all():
        raise refusal(
            node,
            "a variance with its epsilon is not above 0",
            got=float(np.min(variance)),
            hint="train the model, or export it with its own statistics",
        )
    factor = gamma / np.sqrt(variance)

    along = (1, -1, *(1,) * (len(value.shape) - 1))
    scales, shifts = (factor, np.abs(gamma)), (beta - mean * factor, beta)
    value, multiplied, added = _per_channel(
        scope, node, value, [v.reshape(along) for v in scales], [v.reshape(along) for v in shifts]
    )
    out = []
    for part, scale, spread, shift, centre in zip(value.parts, *multiplied, *added):
        part = _affine(scope, node, part, scale, shift)
        out.append(
            replace(part, moments=(centre, spread)) if isinstance(part, Expression) else part
        )  # there is a pool between the ReLU of a Pending and this norm
    return value.with_parts(out)


def _per_channel(
    scope: Scope,
    node: Node,
    value: Value,
    scales: Sequence[np.ndarray],
    shifts: Sequence[np.ndarray],
) -> tuple[Value, list[list[np.ndarray]], list[list[np.ndarray]]]:
    """A tensor, and constants as one number per channel of each part: first those that multiply it.

    If necessary, the features of a flattened map become channels.
    """

    def constants(value: Value) -> tuple[Value, list[list[np.ndarray]], list[list[np.ndarray]]]:
        return (
            value,
            [value.per_channel(constant) for constant in scales],
            [value.per_channel(constant, moves_zero=True) for constant in shifts],
        )

    try:
        return constants(value)
    except LayoutError:
        if value.shape[-1] == math.prod(value.shape) and value.shape[-1] <= MAX_FEATURES:
            vector = scope.vector(value, node.name, MAX_FEATURES * MAX_FEATURES)
            return constants(replace(vector, shape=value.shape))
        if value.sources() is not None and any(isinstance(part, Pending) for part in value.parts):
            return constants(scope.separated(value))
        if value.blocks() is None:
            raise
        return constants(scope.mapped(value, node.name))


def _affine(scope: Scope, node: Node, part: Part, scale: np.ndarray, shift: np.ndarray) -> Part:
    """scale * x + shift per channel."""
    if isinstance(part, Pending) and (scale > 0).all():
        return Pending(
            part.inner.affine(scale, shift, node.name),
            part.pools,
            None if part.cap is None else part.cap * scale + shift,
        )
    return scope.assembly.expression(part, node.name).affine(scale, shift, node.name)


def _arithmetic(scope: Scope, node: Node) -> Value:
    """Add, Sub, Mul and Div with constants; sums and differences of tensors."""
    moving = [i for i, name in enumerate(node.inputs) if name not in scope.graph.constants]
    if len(moving) > 1 and node.op in ("Mul", "Div"):
        raise refusal(
            node,
            "two tensors that both depend on the input are multiplied",
            hint="gates and attention cannot be converted",
        )
    fixed = [
        scope.graph.constants[name].astype(np.float64)
        for name in node.inputs
        if name in scope.graph.constants
    ]
    value = reduce(lambda a, b: added(scope, node, a, b), (_signed(scope, node, i) for i in moving))
    if not fixed:
        return value
    constant = reduce(np.add, fixed)
    if node.op == "Div" and (moving == [1] or not constant.all()):
        raise refusal(node, "it divides by the input, or by zero")
    if node.op in ("Mul", "Div"):
        scale, shift = (constant if node.op == "Mul" else 1 / constant), np.zeros(())
    else:
        scale, shift = np.ones(()), -constant if node.op == "Sub" and moving == [0] else constant
    value, (scales,), (shifts,) = _per_channel(scope, node, value, [scale], [shift])
    return value.with_parts([_affine(scope, node, *part) for part in zip(value.parts, scales, shifts)])


def _signed(scope: Scope, node: Node, at: int) -> Value:
    """An operand with the sign that the operator gives it."""
    value = scope.value(node, at)
    if node.op == "Sub" and at == 1:
        return value.with_parts(
            [_affine(scope, node, p, -np.ones(p.shape[0]), np.zeros(p.shape[0])) for p in value.parts]
        )
    return value


def _fired(scope: Scope, node: Node, value: Value, clips: Sequence[np.ndarray | None]) -> Value:
    names = (
        [node.name] if len(value.parts) == 1 else [f"{node.name}.{i + 1}" for i in range(len(value.parts))]
    )
    return value.with_parts(
        [scope.assembly.relu(p, name, clip) for p, name, clip in zip(value.parts, names, clips)]
    )


def _relu(scope: Scope, node: Node) -> Value:
    value = scope.compacted(scope.value(node).explicit())
    return _fired(scope, node, value, [None] * len(value.parts))


def _clip(scope: Scope, node: Node) -> Value:
    value = scope.compacted(scope.value(node).explicit())
    low, high = (_limit(scope, node, *at) for at in ((1, "min"), (2, "max")))
    if low is None:
        return value if high is None else _capped(scope, node, value, high)
    if high is not None and high <= low:
        raise refusal(
            node,
            f"its upper limit is not above {'0' if not low else 'its lower one'}",
            got=f"{low:g} to {high:g}",
            expected="low < high",
        )
    return _floored(scope, node, value, low, high)


def _floored(scope: Scope, node: Node, value: Value, low: np.ndarray, high: np.ndarray | None) -> Value:
    """min(max(x, low), high) = low + min(max(x - low, 0), high - low): a ReLU between two constants."""
    if (low < 0).all() and all(isinstance(p, Expression) and p.spikes for p in value.parts):
        low = np.zeros(())  # spikes are never below 0
    if not low.any():
        clips = [None] * len(value.parts) if high is None else _upper(node, value, high)
        return _fired(scope, node, value, clips)
    if high is None and all(isinstance(p, Expression) and p.spikes for p in value.parts) and (low <= 0).all():
        return value
    value, _, (lows,) = _per_channel(scope, node, value, [], [low])
    parts = [_affine(scope, node, p, np.ones(len(b)), -b) for p, b in zip(value.parts, lows)]
    moved = value.with_parts(parts)
    limits: Sequence[np.ndarray | None] = [None] * len(parts)
    if high is not None:
        limits = [top - b for top, b in zip(value.per_channel(high), lows)]
    fired = _fired(scope, node, moved, limits)
    return fired.with_parts([_affine(scope, node, p, np.ones(len(b)), b) for p, b in zip(fired.parts, lows)])


def _limit(scope: Scope, node: Node, at: int, key: str) -> np.ndarray | None:
    """A limit of a Clip; None if it limits nothing."""
    value = scope.constant(node, at, key)
    return None if value is None or abs(float(value)) >= np.finfo(np.float32).max else np.float64(value)


def _upper(node: Node, value: Value, limit: np.ndarray) -> list[np.ndarray]:
    """Upper limits per channel, of each part."""
    limits = value.per_channel(limit)
    if min(clip.min() for clip in limits) <= 0:
        raise refusal(node, "its upper limit is not above 0", got=np.min(limit))
    return limits


def _capped(scope: Scope, node: Node, value: Value, limit: np.ndarray) -> Value:
    """min(x, limit), of spikes at once, and of a current when its ReLU follows."""
    limits = _upper(node, value, limit)
    parts: list[Part] = []
    for part, clip in zip(value.parts, limits):
        if isinstance(part, Expression) and part.spikes is not None:
            parts.append(scope.assembly.relu(part, node.name, clip))
        elif isinstance(part, Pending):
            parts.append(replace(part, cap=clip if part.cap is None else np.minimum(part.cap, clip)))
        else:
            parts.append(Pending(part, (), clip))
    return value.with_parts(parts)


def _extreme(scope: Scope, node: Node) -> Value:
    """Min or Max with one constant."""
    moving = [i for i, name in enumerate(node.inputs) if name not in scope.graph.constants]
    if len(moving) != 1:
        raise refusal(
            node, "it compares tensors that depend on the input", expected="one such tensor and constants"
        )
    value = scope.compacted(scope.value(node, moving[0]).explicit())
    fixed = [
        scope.graph.constants[name].astype(np.float64)
        for name in node.inputs
        if name in scope.graph.constants
    ]
    if not fixed:
        return value
    limit = reduce(np.minimum if node.op == "Min" else np.maximum, fixed)
    if node.op == "Min":
        return _capped(scope, node, value, limit)
    return _floored(scope, node, value, limit, None)


def _leaky(scope: Scope, node: Node) -> Value:
    """LeakyRelu and PRelu: relu(x) - slope * relu(-x), neurons for both signs."""
    value = scope.compacted(scope.value(node).explicit())
    slope = (
        scope.needed(node, 1, "slope")
        if node.op == "PRelu"
        else np.array(node.number("alpha", 0.01), np.float64)
    )
    parts = []
    for part, factors in zip(value.parts, value.per_channel(slope)):
        part = scope.assembly.expression(part, node.name)
        parts.append(part if part.spikes is not None else scope.assembly.split(part, factors, node.name))
    scope.assembly.note(
        f"{node.name}: {node.op} as neurons for both signs of its input, relu(x) - slope * relu(-x)"
    )
    return value.with_parts(parts)


RULES = {
    "BatchNormalization": _batch_norm,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Sum"), _arithmetic),
    "Relu": _relu,
    "Clip": _clip,
    "Min": _extreme,
    "Max": _extreme,
    "LeakyRelu": _leaky,
    "PRelu": _leaky,
}
