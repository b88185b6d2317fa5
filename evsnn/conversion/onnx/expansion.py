"""Operators that are others in disguise, written as these: a Split as Slices, a nearest Resize as Gathers.

After this, and `upgrade` before it, rules and lowering know fewer operators, and each of them once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ModelError

__all__ = ["EXPANSIONS", "Expanded", "Step"]


@dataclass(frozen=True)
class Step:
    """One operator that stands for a part of another one.

    Parameters
    ----------
    op : str
    inputs : tuple of str
    output : str
    attributes : mapping
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Expanded:
    """An operator that depends on the network's input, and how new tensors are named.

    Parameters
    ----------
    op : str
    attributes : mapping
        In the newest form, as are the inputs.
    inputs, outputs : sequence of str
        Names; "" if absent.
    shape : tuple of int
        Of the first input, without the batch axis.
    constants : sequence of array or None
        The inputs that are constants.
    opset : int
    keep : callable
        Stores a constant and returns its name.
    free : callable
        Returns the name of a new tensor.
    """

    op: str
    attributes: Mapping
    inputs: Sequence[str]
    outputs: Sequence[str]
    shape: tuple[int, ...]
    constants: Sequence[np.ndarray | None]
    opset: int
    keep: Callable[[np.ndarray], str]
    free: Callable[[], str]

    @property
    def rank(self) -> int:
        """The number of axes of the first input, with the batch's."""
        return 1 + len(self.shape)

    def constant(self, position: int) -> np.ndarray | None:
        """An input that is a constant; None if it is absent."""
        if position >= len(self.inputs) or not self.inputs[position]:
            return None
        value = self.constants[position]
        if value is None:
            raise ModelError(
                f"its input {position + 1} must be a constant", got="one that depends on the network's input"
            )
        return value

    def axis(self, axis: int) -> int:
        """`axis` as a number from 0."""
        if not -self.rank <= axis < self.rank:
            raise ModelError(
                "names an axis that is not there", got=axis, expected=f"-{self.rank} to {self.rank - 1}"
            )
        return axis % self.rank

    def size(self, axis: int) -> int:
        """The length of an axis, which must not be the batch's."""
        if not axis:
            raise ModelError(
                "works across the samples of a batch",
                got="axis 0",
                hint="the first axis must stay the batch's",
            )
        return self.shape[axis - 1]

    def integers(self, values: Sequence[int]) -> str:
        """The name of a new constant of integers."""
        return self.keep(np.array(values, np.int64))


def _split(node: Expanded) -> list[Step]:
    axis = node.axis(node.attributes.get("axis", 0))
    size, given, n = node.size(axis), node.constant(1), len(node.outputs)
    sizes = _equal(node, size, n) if given is None else given.ravel().tolist()
    if len(sizes) != n or sum(sizes) != size or min(sizes) < 0:
        raise ModelError(
            "its sizes do not fit its input",
            got=f"{sizes[:8]} for {n} outputs",
            expected=f"{n} sizes whose sum is {size}",
        )
    ends = np.cumsum(sizes).tolist()
    return [
        Step(
            "Slice",
            (node.inputs[0], *map(node.integers, ([end - length], [end], [axis]))),
            output,
            {},
        )
        for output, end, length in zip(node.outputs, ends, sizes)
        if output
    ]


def _equal(node: Expanded, size: int, n: int) -> list[int]:
    """The sizes of a Split that names none; since opset 18 the last may be smaller."""
    if node.attributes.get("num_outputs", n) != n:
        raise ModelError(
            "num_outputs is not the number of outputs", got=node.attributes["num_outputs"], expected=n
        )
    if size % n and node.opset < 18:
        raise ModelError("its input cannot be divided", got=f"{size} by {n}", hint="name the sizes")
    length = -(-size // n)
    return [min(length, size - length * i) for i in range(n)]


def _resize(node: Expanded) -> list[Step]:
    """Nearest neighbours: the elements that are taken along each axis are known."""
    mode = node.attributes.get("mode", "nearest")
    if mode != "nearest":
        raise ModelError(
            "only nearest neighbours are converted",
            got=f"mode {mode!r:.40}",
            expected="'nearest'",
            hint="use upsampling by nearest neighbours, or a transposed convolution, and train again",
        )
    scales, sizes = _scales(node)
    steps, source = [], node.inputs[0]
    changed = [axis for axis in range(1, node.rank) if (sizes[axis], scales[axis]) != (node.size(axis), 1)]
    for axis in changed:
        output = node.outputs[0] if axis == changed[-1] else node.free()
        taken = _nearest(node, node.size(axis), sizes[axis], scales[axis])
        steps.append(Step("Gather", (source, node.integers(taken)), output, {"axis": axis}))
        source = output
    return steps or [Step("Reshape", (source, node.integers([-1, *node.shape])), node.outputs[0], {})]


def _scales(node: Expanded) -> tuple[list[float], list[int]]:
    """The scale and the new length of each axis, the batch's included."""
    whole = [0, *node.shape]
    scales = node.constant(1 if node.op == "Upsample" or node.opset < 11 else 2)
    sizes = None if node.op == "Upsample" or node.opset < 11 else node.constant(3)
    chosen = node.attributes.get("axes", tuple(range(node.rank)))
    axes = [node.axis(axis) for axis in chosen]
    policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise ModelError("keeps the aspect ratio", got=repr(policy)[:40], expected="'stretch'")
    given = sizes if sizes is not None and sizes.size else scales
    if given is None or given.size != len(axes):
        raise ModelError(
            "its scales or sizes do not fit its input",
            got="none" if given is None else f"{given.size} numbers",
            expected=f"one for each of {len(axes)} axes",
        )
    all_scales, all_sizes = [1.0] * node.rank, list(whole)
    for axis, value in zip(axes, given.ravel().tolist()):
        if axis == 0:
            if given is scales and value != 1:
                raise ModelError("resizes the batch", got=f"scale {value:g}", expected="1")
            continue
        if given is sizes:
            all_sizes[axis], all_scales[axis] = int(value), value / whole[axis]
        else:
            all_sizes[axis], all_scales[axis] = math.floor(whole[axis] * value), value
        if all_sizes[axis] < 1 or not math.isfinite(value) or all_sizes[axis] > 1 << 24:
            raise ModelError(
                "resizes an axis to nothing, or beyond all bounds", got=f"{value:g} of axis {axis}"
            )
    return all_scales, all_sizes


def _nearest(node: Expanded, old: int, new: int, scale: float) -> list[int]:
    """Which elements of an axis a resize takes, computed in float32 as onnxruntime does."""
    at, by = np.arange(new, dtype=np.float32), np.float32(scale)
    form = "asymmetric" if node.op == "Upsample" or node.opset < 11 else "half_pixel"
    form = node.attributes.get("coordinate_transformation_mode", form)
    if form == "asymmetric":
        at = at / by
    elif form == "tf_half_pixel_for_nn":
        at = (at + np.float32(0.5)) / by
    elif form == "align_corners":
        at = at * np.float32(0 if new == 1 else (old - 1) / (new - 1))
    elif form == "pytorch_half_pixel" and new == 1:
        at = at * np.float32(0)
    elif form in ("half_pixel", "pytorch_half_pixel"):
        at = (at + np.float32(0.5)) / by - np.float32(0.5)
    elif form == "half_pixel_symmetric":
        centre = old / 2 * (1 - new / (scale * old))
        at = np.float32(centre) + (at + np.float32(0.5)) / by - np.float32(0.5)
    else:
        raise ModelError("its coordinate_transformation_mode is not converted", got=repr(form)[:40])
    rounding = "floor" if node.op == "Upsample" or node.opset < 11 else "round_prefer_floor"
    rounding = node.attributes.get("nearest_mode", rounding)
    if rounding not in _ROUNDED:
        raise ModelError(
            "its nearest_mode is unknown", got=repr(rounding)[:40], expected=" or ".join(_ROUNDED)
        )
    return np.clip(_ROUNDED[rounding](at), 0, old - 1).astype(np.int64).tolist()


_ROUNDED: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
}


def _negative(node: Expanded) -> list[Step]:
    return [Step("Mul", (node.inputs[0], node.keep(np.float32(-1))), node.outputs[0], {})]


def _absolute(node: Expanded) -> list[Step]:
    """|x| is a leaky ReLU of slope -1."""
    return [Step("LeakyRelu", (node.inputs[0],), node.outputs[0], {"alpha": -1.0})]


def _hard_sigmoid(node: Expanded) -> list[Step]:
    """max(0, min(1, alpha x + beta)), which is piecewise linear."""
    scaled, moved = node.free(), node.free()
    alpha, beta = (
        node.keep(np.float32(node.attributes.get(name, default)))
        for name, default in (("alpha", 0.2), ("beta", 0.5))
    )
    low, high = node.keep(np.float32(0)), node.keep(np.float32(1))
    return [
        Step("Mul", (node.inputs[0], alpha), scaled, {}),
        Step("Add", (scaled, beta), moved, {}),
        Step("Clip", (moved, low, high), node.outputs[0], {}),
    ]


def _reduce_sum(node: Expanded) -> list[Step]:
    """The mean, times the number of elements."""
    axes, mean = node.constant(1), node.free()
    if axes is None or axes.size == 0:
        if node.attributes.get("noop_with_empty_axes", 0):
            return [Step("Reshape", (node.inputs[0], node.integers([-1, *node.shape])), node.outputs[0], {})]
        raise ModelError("sums over all axes, the batch's too", hint="name the axes to sum over")
    count = math.prod(node.size(node.axis(axis)) for axis in axes.ravel().tolist())
    return [
        Step("ReduceMean", tuple(node.inputs[:2]), mean, node.attributes),
        Step("Mul", (mean, node.keep(np.float32(count))), node.outputs[0], {}),
    ]


def _reduce_max(node: Expanded) -> list[Step]:
    """The largest value of each channel, over all of its positions."""
    axes = node.constant(1)
    over = sorted(node.axis(axis) for axis in axes.ravel().tolist()) if axes is not None else []
    if node.rank < 3 or over != list(range(2, node.rank)):
        raise ModelError(
            "only the largest value of each channel is converted",
            got=f"axes {over or 'of all'}",
            expected=f"{list(range(2, max(3, node.rank)))}: all behind the channels",
            hint="use a GlobalMaxPool, or a MaxPool, on (N, channels, height, width)",
        )
    if node.attributes.get("keepdims", 1):
        return [Step("GlobalMaxPool", (node.inputs[0],), node.outputs[0], {})]
    pooled = node.free()
    return [
        Step("GlobalMaxPool", (node.inputs[0],), pooled, {}),
        Step("Squeeze", (pooled, node.integers(over)), node.outputs[0], {}),
    ]


def _extreme(node: Expanded) -> list[Step]:
    """The larger of two tensors is b + relu(a - b), the smaller one b - relu(b - a)."""
    largest, steps, first = node.op == "Max", [], node.inputs[0]
    for number, other in enumerate(node.inputs[1:], start=2):
        output = node.outputs[0] if number == len(node.inputs) else node.free()
        difference, above = node.free(), node.free()
        steps += [
            Step("Sub", (first, other) if largest else (other, first), difference, {}),
            Step("Relu", (difference,), above, {}),
            Step("Add" if largest else "Sub", (other, above), output, {}),
        ]
        first = output
    return steps


def _scaler(node: Expanded) -> list[Step]:
    """``ai.onnx.ml``: (x - offset) scale, one number for each feature; scikit-learn's StandardScaler."""
    features, moved = node.shape[-1] if node.shape else 0, node.free()
    given = [np.array(node.attributes.get(name, ()), np.float32) for name in ("offset", "scale")]
    for name, values in zip(("offset", "scale"), given):
        if values.size not in (1, features) or not np.isfinite(values).all():
            raise ModelError(
                f"its {name} does not fit its input",
                got=f"{values.size} numbers",
                expected=f"1 or {features} that are finite",
            )
    offset, scale = map(node.keep, given)
    return [
        Step("Sub", (node.inputs[0], offset), moved, {}),
        Step("Mul", (moved, scale), node.outputs[0], {}),
    ]


EXPANSIONS: Mapping[str, Callable[[Expanded], list[Step]]] = {
    "Abs": _absolute,
    "HardSigmoid": _hard_sigmoid,
    "Max": _extreme,
    "Min": _extreme,
    "Neg": _negative,
    "ReduceMax": _reduce_max,
    "ReduceSum": _reduce_sum,
    "Resize": _resize,
    "Scaler": _scaler,
    "Split": _split,
    "Upsample": _resize,
}
"""What stands for each of these operators; Scaler is of the domain ``ai.onnx.ml``.

Max and Min are so if they compare tensors; with one tensor and constants they have rules.
"""
