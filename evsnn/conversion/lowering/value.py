"""A tensor of the graph while it is lowered: expressions side by side, and the places of their elements.

Reshapes and transposes compute nothing: they only change an index. Layers are channels first; changes of the
layout before or after them cost nothing as long as the index describes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from .expression import Expression, Pending

__all__ = ["LayoutError", "Value"]


class LayoutError(ValueError):
    """A tensor whose elements are not in the order that an operator needs; the message says which it is."""


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor that depends on the input.

    Parameters
    ----------
    parts : tuple of Expression or Pending
        Maps (channels, height, width), side by side along the channels.
    shape : tuple of int
        The tensor's own shape, without the batch and without the zeros of a Pad.
    index : array of `shape`, optional
        For each element of the tensor, its number among the elements of the parts, each part in
        (channel, y, x) order. None: they are in that order.
    padding : (top, left, bottom, right)
        The zeros that a Pad has added around the maps.
    """

    parts: tuple[Expression | Pending, ...]
    shape: tuple[int, ...]
    index: np.ndarray | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self):
        if self.index is not None and np.array_equal(self.index.ravel(), np.arange(self.index.size)):
            object.__setattr__(self, "index", None)

    @property
    def positions(self) -> np.ndarray:
        """`index` as an array, even if it is None."""
        return (
            np.arange(np.prod(self.shape, dtype=np.int64)).reshape(self.shape)
            if self.index is None
            else self.index
        )

    @property
    def channels(self) -> list[int]:
        """The first channel of each part, and the number of all channels."""
        return [0, *np.cumsum([p.shape[0] for p in self.parts]).tolist()]

    def with_parts(self, parts: Sequence[Expression | Pending]) -> Value:
        """The same layout with other expressions."""
        return replace(self, parts=tuple(parts))

    def reshaped(self, shape: tuple[int, ...]) -> Value:
        """The tensor in another shape with as many elements; it has no padding."""
        return replace(self, shape=shape, index=None if self.index is None else self.index.reshape(shape))

    def transposed(self, axes: tuple[int, ...]) -> Value:
        """The tensor with its axes permuted; `axes` are without the batch axis."""
        index = self.positions.transpose(axes)
        return replace(self, shape=index.shape, index=np.ascontiguousarray(index))

    @staticmethod
    def concatenated(values: Sequence[Value], axis: int) -> Value:
        """Tensors side by side along one of their axes."""
        starts = np.cumsum([0, *(np.prod(v.shape, dtype=np.int64) for v in values)])
        for value in values:
            value.unpadded()
        index = np.concatenate([value.positions + start for value, start in zip(values, starts)], axis)
        return Value(tuple(p for v in values for p in v.parts), index.shape, index)

    def unpadded(self) -> None:
        if any(self.padding):
            raise LayoutError("it reads the output of a Pad, which only a convolution or a pool can take in")

    def map_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of a tensor that is a map, channels first, without padding.

        Raises
        ------
        LayoutError
            If it is anything else.
        """
        sizes = {p.shape[1:] for p in self.parts}
        if len(sizes) > 1:
            raise LayoutError("it reads maps of different sizes as one")
        shape = (self.channels[-1], *sizes.pop())
        if self.index is not None or self.shape != shape:
            raise LayoutError(
                f"it reads a tensor of shape {self.shape} whose elements are not in (channel, y, x) order"
            )
        return shape

    def axes(self) -> tuple[int, ...]:
        """Which of (channel, y, x) each axis of the tensor is: (1, 2, 0) for channels last.

        Raises
        ------
        LayoutError
            If its axes are not these three.
        """
        sizes = {p.shape[1:] for p in self.parts}
        shape = (self.channels[-1], *sizes.pop())
        if not sizes and len(self.shape) == 3:
            natural = np.arange(np.prod(shape)).reshape(shape)
            for axes in permutations(range(3)):
                if tuple(shape[a] for a in axes) == self.shape and np.array_equal(
                    self.positions, natural.transpose(axes)
                ):
                    return axes
        raise LayoutError(
            f"it reads a tensor of shape {self.shape} whose axes are not channels, height and width"
        )

    def per_channel(self, constant: np.ndarray) -> list[np.ndarray]:
        """A constant that is broadcast to this tensor with its batch, as one value per channel of each part.

        Raises
        ------
        LayoutError
            If it differs between positions of a channel, or does not fit.
        """
        self.unpadded()
        constant = np.asarray(constant, np.float64)
        if constant.size == 1:
            return [np.full(p.shape[0], constant.ravel()[0]) for p in self.parts]
        try:
            whole = np.broadcast_to(constant, (1, *self.shape))
        except ValueError:
            raise LayoutError(
                f"its constant of shape {constant.shape} does not fit the tensor {('N', *self.shape)}"
            ) from None
        if self.index is None:
            flat = whole.ravel()
        else:
            flat = np.empty(self.index.size)
            flat[self.index.ravel()] = whole.ravel()
        values, start = [], 0
        for part in self.parts:
            size = int(np.prod(part.shape))
            rows = flat[start : start + size].reshape(part.shape[0], -1)
            if not (rows == rows[:, :1]).all():
                raise LayoutError("its constant differs between positions of one channel")
            values.append(rows[:, 0].copy())
            start += size
        return values

    def columns(self, weight: np.ndarray) -> list[np.ndarray]:
        """The columns of a matrix on this vector as kernels, one per part.

        From (n_out, n_in) to (n_out, channels, height, width).
        """
        self.unpadded()
        if self.index is not None:
            order = np.empty(self.index.size, np.int64)
            order[self.index.ravel()] = np.arange(self.index.size)
            weight = weight[:, order]
        kernels, start = [], 0
        for part in self.parts:
            size = int(np.prod(part.shape))
            kernels.append(weight[:, start : start + size].reshape(-1, *part.shape))
            start += size
        return kernels
