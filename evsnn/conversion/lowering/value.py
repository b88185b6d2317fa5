"""A tensor of the graph while it is lowered: expressions side by side, and the places of their elements.

Reshapes, transposes, slices, concatenations and the like compute nothing: they only change an index. Layers
are channels first; changes of the layout around them cost nothing as long as the index describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TypeAlias

import numpy as np

from .expression import Expression, Pending

__all__ = ["ZERO", "Block", "LayoutError", "PositionError", "Value"]

Range: TypeAlias = tuple[int, int, int]
"""Start, stop and step."""

ZERO = -1
"""The index of an element that is 0."""


class LayoutError(ValueError):
    """A tensor whose elements are not in the order that an operator needs; the message says which it is."""


class PositionError(LayoutError):
    """A constant that differs between positions of one channel."""


@dataclass(frozen=True, eq=False)
class Block:
    """Channels of a map that see one part in one way.

    Parameters
    ----------
    channels : (n,) array of int
        Which channels of the map they are.
    part : int
        The number of the part that they see.
    sources : (n,) array of int
        For each of them, the channel of the part.
    window : (slice, slice)
        The rows and columns of the part that are seen.
    """

    channels: np.ndarray
    part: int
    sources: np.ndarray
    window: tuple[slice, slice]


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
        (channel, y, x) order; `ZERO`: it is 0. Elements may come several times, or not at all. None: each
        comes once, and they are in that order.
    padding : (top, left, bottom, right)
        The zeros that a Pad has added around the maps.
    """

    parts: tuple[Expression | Pending, ...]
    shape: tuple[int, ...]
    index: np.ndarray | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self):
        if (
            self.index is not None
            and self.index.size == self.size
            and np.array_equal(self.index.ravel(), np.arange(self.size))
        ):
            object.__setattr__(self, "index", None)

    @property
    def size(self) -> int:
        """The number of elements of all parts."""
        return sum(int(np.prod(part.shape)) for part in self.parts)

    @property
    def positions(self) -> np.ndarray:
        """`index` as an array, even if it is None."""
        return np.arange(self.size).reshape(self.shape) if self.index is None else self.index

    @property
    def channels(self) -> list[int]:
        """The first channel of each part, and the number of all channels."""
        return [0, *np.cumsum([p.shape[0] for p in self.parts]).tolist()]

    @property
    def starts(self) -> list[int]:
        """The first element of each part, and the number of all elements."""
        return [0, *np.cumsum([int(np.prod(p.shape)) for p in self.parts]).tolist()]

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

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Value:
        """The tensor after an operator that moves elements, drops some, copies some, or adds zeros.

        `move` computes the operator on an array (1, *shape).
        """
        self.unpadded()
        index = move(self.positions[None] + 1)[0] - 1  # 0 is what is not there
        return replace(self, shape=index.shape, index=np.ascontiguousarray(index))

    @staticmethod
    def concatenated(values: Sequence[Value], axis: int) -> Value:
        """Tensors side by side along one of their axes."""
        parts: dict[int, tuple[int, Expression | Pending]] = {}  # by id: the first element, and the part
        size, indices = 0, []
        for value in values:
            value.unpadded()
            moved = np.full(value.size + 1, ZERO)  # the last is for ZERO itself
            for part, start, stop in zip(value.parts, value.starts, value.starts[1:]):
                key = id(part) if value.index is not None else -len(parts) - 1  # slices share their parts
                if key not in parts:
                    parts[key] = size, part
                    size += stop - start
                moved[start:stop] = parts[key][0] + np.arange(stop - start)
            indices.append(moved[value.positions])
        index = np.concatenate(indices, axis)
        return Value(tuple(part for _, part in parts.values()), index.shape, index)

    def unpadded(self) -> None:
        if any(self.padding):
            raise LayoutError("it reads the output of a Pad, which only a convolution or a pool can take in")

    def is_map(self) -> bool:
        """Whether it is a map whose channels are those of the parts, in their order, without padding."""
        return self.index is None and {(*p.shape[1:],) for p in self.parts} == {self.shape[1:]}

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

    def sources(self) -> np.ndarray | None:
        """The channel among those of the parts that each channel of a map is, or `ZERO`.

        None if it is no map (channels, height, width) of whole channels.
        """
        if len(self.shape) != 3 or any(p.shape[1:] != self.shape[1:] for p in self.parts):
            return None
        size = self.shape[1] * self.shape[2]
        index = self.positions.reshape(len(self.positions), size)
        first = index[:, :1]
        zero = first == ZERO
        whole = np.where(zero, ZERO, first + np.arange(size))
        if not np.array_equal(index, whole) or (first[~zero] % size).any():
            return None
        return np.where(zero, ZERO, first // size)[:, 0]

    def blocks(self) -> list[Block] | None:
        """What a map (channels, height, width) sees of the parts; None if it is no map of regular windows.

        Channels that see a window of one part in one way are a block. Channels of zeros are in none.
        """
        if len(self.shape) != 3:
            return None
        found: dict[tuple[int, Range, Range], tuple[list[int], list[int]]] = {}
        starts = self.starts
        for channel, index in enumerate(self.positions):
            if (index == ZERO).all():
                continue
            if index[0, 0] == ZERO:
                return None
            number = int(np.searchsorted(starts, index[0, 0], "right")) - 1
            _, height, width = self.parts[number].shape
            source, corner = divmod(int(index[0, 0]) - starts[number], height * width)
            window = _window(index, divmod(corner, width), (height, width))
            if window is None:
                return None
            natural = np.arange(height * width).reshape(height, width)[slice(*window[0]), slice(*window[1])]
            if not np.array_equal(index, starts[number] + source * height * width + natural):
                return None
            channels, sources = found.setdefault((number, *window), ([], []))
            channels.append(channel)
            sources.append(source)
        return [
            Block(np.array(channels), number, np.array(sources), (slice(*rows), slice(*columns)))
            for (number, rows, columns), (channels, sources) in found.items()
        ]

    def by_channel(self, parts: Sequence[Expression | Pending]) -> Value:
        """A map of whole channels after an operator on each of them, which made `parts` of the parts."""
        size = parts[0].shape[1:]
        sources = self.sources()
        if sources is None:
            raise LayoutError(f"it reads a tensor of shape {self.shape} that is no map of whole channels")
        natural = np.arange(size[0] * size[1])
        whole = sources[:, None] * natural.size + natural
        index = np.where(sources[:, None] == ZERO, ZERO, whole).reshape(-1, *size)
        return Value(tuple(parts), index.shape, index)

    def explicit(self) -> Value:
        """The same tensor, with the zeros of a Pad among its elements."""
        if not any(self.padding):
            return self
        top, left, bottom, right = self.padding
        around = [(0, 0)] * len(self.shape)
        for axis, of in enumerate(range(3) if self.sources() is not None else self.axes()):
            around[axis] = ((0, 0), (top, bottom), (left, right))[of]
        index = np.pad(self.positions, around, constant_values=ZERO)
        return Value(self.parts, index.shape, index)

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

    def per_channel(self, constant: np.ndarray, *, moves_zero: bool = False) -> list[np.ndarray]:
        """A constant that is broadcast to this tensor with its batch, as one value per channel of each part.

        Parameters
        ----------
        moves_zero : bool
            Whether an element that is 0 would become another number: the constant is added.

        Raises
        ------
        LayoutError
            If it differs between positions of a channel, or does not fit.
        """
        self.unpadded()
        constant = np.asarray(constant, np.float64)
        seen = self.index is None or not (self.index == ZERO).any()
        if constant.size == 1 and (seen or not moves_zero or not constant.any()):
            return [np.full(p.shape[0], constant.ravel()[0]) for p in self.parts]
        try:
            whole = np.broadcast_to(constant, (1, *self.shape))
        except ValueError:
            raise LayoutError(
                f"its constant of shape {constant.shape} does not fit the tensor {('N', *self.shape)}"
            ) from None
        flat, known = whole.ravel(), np.ones(self.size, bool)
        if self.index is not None:
            index, given = self.index.ravel(), flat
            if moves_zero and given[index == ZERO].any():
                raise LayoutError("it adds a constant to zeros that were put into the tensor")
            index, given = index[index != ZERO], given[index != ZERO]
            flat, known = np.zeros(self.size), np.zeros(self.size, bool)
            flat[index], known[index] = given, True
            if not np.array_equal(flat[index], given):
                raise LayoutError("its constant differs between copies of one element")
        values = []
        for part, start, stop in zip(self.parts, self.starts, self.starts[1:]):
            rows, told = (a[start:stop].reshape(part.shape[0], -1) for a in (flat, known))
            low = np.where(told, rows, np.inf).min(axis=1)
            high = np.where(told, rows, -np.inf).max(axis=1)
            alone = ~told.any(axis=1)  # nobody sees these channels
            if not (alone | (low == high)).all():
                raise PositionError("its constant differs between positions of one channel")
            other = high[~alone].max() if not alone.all() else 0.0
            values.append(np.where(alone, 0.0 if moves_zero else other, high))
        return values

    def columns(self, weight: np.ndarray) -> list[np.ndarray]:
        """The columns of a matrix on this vector as kernels, one per part.

        From (n_out, n_in) to (n_out, channels, height, width).
        """
        self.unpadded()
        if self.index is not None:
            index = self.index.ravel()
            seen = index != ZERO
            if seen.all() and index.size == self.size and len(np.unique(index)) == index.size:
                order = np.empty(index.size, np.int64)
                order[index] = np.arange(index.size)
                weight = weight[:, order]
            else:
                spread = np.zeros((self.size, len(weight)), np.result_type(weight, np.float32))
                np.add.at(spread, index[seen], weight.T[seen])
                weight = spread.T
        return [
            weight[:, start:stop].reshape(-1, *part.shape)
            for part, start, stop in zip(self.parts, self.starts, self.starts[1:])
        ]


def _window(index: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> tuple[Range, Range] | None:
    """The rows and columns of a map of `size` that a channel may see, from its corner and its first steps."""
    steps = (
        int(index[1, 0] - index[0, 0]) // size[1] if index.shape[0] > 1 else 1,
        int(index[0, 1] - index[0, 0]) if index.shape[1] > 1 else 1,
    )
    stops = [at + (n - 1) * step + 1 for at, n, step in zip(corner, index.shape, steps)]
    if min(steps) < 1 or any(stop > most for stop, most in zip(stops, size)):
        return None
    rows, columns = zip(corner, stops, steps)
    return rows, columns
