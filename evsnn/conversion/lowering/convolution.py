"""Convolutions as values: scaled and composed in float64 before a layer is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd

import numpy as np

from ...network.geometry import Window
from ...network.layers import sized

__all__ = ["Convolution", "both_paddings", "pooled_shape"]

_BLOCK = 1 << 20


def pooled_shape(window: Window, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape of a map of `shape` behind a pool."""
    return (shape[0], *sized(window, shape[1:], "a pool"))


def both_paddings(
    first: tuple[int, int, int, int], second: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """One padding around another, (top, left, bottom, right)."""
    top, left, bottom, right = (a + b for a, b in zip(first, second))
    return top, left, bottom, right


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution without its input and bias. A linear layer is one whose kernel covers the map.

    Parameters
    ----------
    weight : (n_out, n_in / groups, height, width) float32 or float64
    gain : (n_out,) float64, optional
        It multiplies the rows of `weight`. It is kept apart so that scaling large weights costs nothing.
    stride, padding, dilation, groups
        As in `evsnn.network.layers.Conv2d`.
    product : bool
        Whether it is a matrix product: its layer is a `Linear`.
    """

    weight: np.ndarray
    gain: np.ndarray | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    product: bool = False

    @classmethod
    def diagonal(cls, values: np.ndarray) -> Convolution:
        """One factor per channel: (channels,), or (channels, k) to add k neighbours to one channel."""
        values = np.asarray(values, np.float64)
        return cls(values.reshape(len(values), -1, 1, 1), groups=len(values))

    @classmethod
    def average(cls, channels: int, window: Window) -> Convolution:
        """An average pool as a depthwise convolution."""
        weight = np.full((channels, 1, *window.kernel), 1 / window.area)
        return cls(weight, stride=window.stride, padding=window.padding, groups=channels)

    @classmethod
    def selection(cls, n_in: int, sources: np.ndarray, channels: np.ndarray, n_out: int) -> Convolution:
        """Channels moved: output `channels` are the input's `sources`, the others are 0."""
        weight = np.zeros((n_out, n_in, 1, 1))
        weight[channels, sources] = 1
        return cls(weight)

    @classmethod
    def cropping(
        cls,
        channels: int,
        size: tuple[int, int],
        window: tuple[slice, slice],
        least: tuple[int, int] = (1, 1),
    ) -> Convolution:
        """The rows and columns of a map of `size` that a window has, as a depthwise convolution.

        Parameters
        ----------
        least : (int, int)
            The least size of its kernel, if that is possible.
        """
        kernel = []
        for n, seen, at_least in zip(size, window, least):
            count = len(range(*seen.indices(n)))
            most = n - (count - 1) * seen.step
            kernel.append(min(most, max(seen.start + 1, n - count * seen.step + 1, at_least)))
        weight = np.zeros((channels, 1, *kernel))
        weight[:, 0, window[0].start, window[1].start] = 1
        return cls(weight, stride=(window[0].step, window[1].step), groups=channels)

    @property
    def n_out(self) -> int:
        return self.weight.shape[0]

    @property
    def n_in(self) -> int:
        return self.weight.shape[1] * self.groups

    @property
    def size(self) -> tuple[int, int]:
        return self.weight.shape[2:]

    @cached_property
    def moves(self) -> bool:
        """Whether each of its outputs is one of its inputs, or 0."""
        rows = self.weight.reshape(self.n_out, -1)
        if self.gain is not None or rows.min() < 0 or rows.max() > 1:
            return False
        return bool((np.count_nonzero(rows, axis=1) <= 1).all() and np.isin(rows.max(axis=1), (0, 1)).all())

    @cached_property
    def never_negative(self) -> bool:
        """Whether no weight is negative."""
        rows = self.weight.reshape(self.n_out, -1)
        least, most = rows.min(axis=1), rows.max(axis=1)
        gain = np.ones(self.n_out) if self.gain is None else self.gain
        return bool((np.where(gain >= 0, least * gain, most * gain) >= 0).all())

    @property
    def pointwise(self) -> bool:
        """Whether it reads single positions and never a padded one."""
        return self.size == (1, 1) and not any(self.padding)

    @property
    def everywhere(self) -> bool:
        """Whether it reads each position alone, so that pooling may come before or after it."""
        return self.pointwise and self.stride == (1, 1)

    @property
    def diagonal_like(self) -> bool:
        """Whether each output channel has inputs of its own, at its own position."""
        return self.everywhere and self.groups == self.n_out

    def output_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        window = Window(self.size, self.stride, self.padding, self.dilation)
        return (self.n_out, *sized(window, shape[1:], "a convolution"))

    def scaled(self, factors: np.ndarray) -> Convolution:
        """Rows times `factors` (n_out,)."""
        return replace(self, gain=factors if self.gain is None else self.gain * factors)

    def exact(self) -> np.ndarray:
        """The weights in float64."""
        weight = self.weight.astype(np.float64)
        return weight if self.gain is None else weight * self.gain[:, None, None, None]

    def rounded(self) -> np.ndarray:
        """The weights in float32, rounded once; a few rows at a time, because a linear layer may be large."""
        if self.gain is None:
            return self.weight.astype(np.float32)
        out = np.empty(self.weight.shape, np.float32)
        step = max(1, _BLOCK // max(1, self.weight[0].size))
        for start in range(0, self.n_out, step):
            rows = slice(start, start + step)
            out[rows] = self.weight[rows].astype(np.float64) * self.gain[rows, None, None, None]
        return out

    def dense(self) -> Convolution:
        """The same convolution without groups."""
        if self.groups == 1:
            return self
        per_out, per_in = self.n_out // self.groups, self.weight.shape[1]
        weight = np.zeros((self.n_out, self.n_in, *self.size))
        for g in range(self.groups):
            rows = slice(g * per_out, (g + 1) * per_out)
            weight[rows, g * per_in : (g + 1) * per_in] = self.weight[rows]
        return replace(self, weight=weight, groups=1)

    def rows(self, chosen: np.ndarray) -> Convolution:
        """Some of its output channels."""
        dense = self.dense()
        gain = None if dense.gain is None else dense.gain[chosen]
        return replace(dense, weight=dense.weight[chosen], gain=gain)

    def part(self, start: int, stop: int) -> Convolution:
        """The part of it that reads the input channels from `start` to `stop`."""
        dense = self.dense()
        return replace(dense, weight=dense.weight[:, start:stop])

    def of_constant(self, values: np.ndarray) -> np.ndarray:
        """What each kernel position adds for a map of constants `values` (n_in,): (n_out, height, width)."""
        per_group = np.repeat(values.reshape(self.groups, -1), self.n_out // self.groups, axis=0)
        return np.einsum("ocyx,oc->oyx", self.exact(), per_group)

    def matrix(self, shape: tuple[int, int, int]) -> np.ndarray:
        """Weights (n_out, n_in * height * width) float32 of the one output position on a map of `shape`."""
        if self.size == shape[1:] and self.groups == 1 and not any(self.padding):
            return self.rounded().reshape(self.n_out, -1)
        dense = self.dense()
        rounded, out = dense.rounded(), np.zeros((self.n_out, *shape), np.float32)
        for ky in range(self.size[0]):
            for kx in range(self.size[1]):
                y, x = ky * self.dilation[0] - self.padding[0], kx * self.dilation[1] - self.padding[1]
                if 0 <= y < shape[1] and 0 <= x < shape[2]:
                    out[:, :, y, x] = rounded[:, :, ky, kx]
        return out.reshape(self.n_out, -1)

    def composable(self, second: Convolution) -> bool:
        """Whether this convolution and then `second` are a single convolution.

        Padding of `second` is the same as padding before this one only if this one reads single positions.
        """
        return self.pointwise or not any(second.padding)

    def then_shape(self, second: Convolution) -> tuple[int, int, int, int]:
        """Shape of the weights of `then`."""
        groups = _joint_groups(self, second)
        (reach_y, step_y), (reach_x, step_x) = (_joint_taps(self, second, axis) for axis in (0, 1))
        return second.n_out, self.n_in // groups, reach_y // step_y + 1, reach_x // step_x + 1

    def then(self, second: Convolution) -> Convolution:
        """The convolution that equals this one and then `second`; they are `composable`."""
        groups = _joint_groups(self, second)
        steps = _joint_taps(self, second, 0)[1], _joint_taps(self, second, 1)[1]
        a, b = (self, second) if _grouped(self, second) else (self.dense(), second.dense())
        first, weights = a.exact(), b.exact()
        out = np.zeros(self.then_shape(second))
        for y2, x2, y1, x1 in np.ndindex(*second.size, *self.size):
            at = [
                k1 * d1 + s1 * d2 * k2
                for k1, d1, s1, d2, k2 in zip((y1, x1), self.dilation, self.stride, second.dilation, (y2, x2))
            ]
            out[:, :, at[0] // steps[0], at[1] // steps[1]] += _mixed(
                first[:, :, y1, x1], a.groups, weights[:, :, y2, x2], b.groups
            )
        (down, right), (top, left, *ends) = self.stride, second.padding
        stride = down * second.stride[0], right * second.stride[1]
        padding = both_paddings(self.padding, (down * top, right * left, down * ends[0], right * ends[1]))
        return Convolution(out, None, stride, padding, steps, groups, self.product or second.product)


def _grouped(first: Convolution, second: Convolution) -> bool:
    """Whether two kernels compose without losing their groups."""
    middle = first.n_out
    return first.groups == middle or second.groups == middle or first.groups == second.groups


def _joint_groups(first: Convolution, second: Convolution) -> int:
    if not _grouped(first, second):
        return 1
    return second.groups if first.groups == first.n_out else first.groups


def _joint_taps(first: Convolution, second: Convolution, axis: int) -> tuple[int, int]:
    """The extent of two kernels in a row, and the distance between their positions."""
    inner, outer = first.dilation[axis], first.stride[axis] * second.dilation[axis]
    reach = (first.size[axis] - 1) * inner + (second.size[axis] - 1) * outer
    if first.size[axis] == 1 or second.size[axis] == 1:
        step = outer if first.size[axis] == 1 else inner
        return reach, step if reach else 1
    return reach, gcd(inner, outer)


def _mixed(a: np.ndarray, a_groups: int, b: np.ndarray, b_groups: int) -> np.ndarray:
    """The product of the weights of two kernel positions.

    `a` is (middle, n_in / a_groups), `b` is (n_out, middle / b_groups).
    """
    middle, n_out = a.shape[0], b.shape[0]
    if a_groups == middle:  # each middle channel has inputs of its own
        mine = np.repeat(a.reshape(b_groups, middle // b_groups, -1), n_out // b_groups, axis=0)
        return (b[:, :, None] * mine).reshape(n_out, -1)
    if b_groups == middle:  # each output has one middle channel
        return b * np.repeat(a, n_out // middle, axis=0)
    return (b.reshape(b_groups, n_out // b_groups, -1) @ a.reshape(a_groups, middle // a_groups, -1)).reshape(
        n_out, -1
    )
