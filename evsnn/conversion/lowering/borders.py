"""Average pools whose divisor is smaller at the border, where padded positions do not count.

With the divisor of a whole window everywhere, a pool is a layer. At the border its means are too small, by
the same factors in each row and each column, so that what is missing is a few small maps: border rows, border
columns, and corners. Each is a convolution that reads the border alone, and padding puts it in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..onnx.windows import Windows
from .assembly import Assembly
from .convolution import Convolution
from .expression import Expression

__all__ = ["average"]


@dataclass(frozen=True, eq=False)
class _Line:
    """Some of a pool's windows along one axis: all of them, or one at the border.

    Parameters
    ----------
    factor : float
        What their means are multiplied by.
    weight : (length,) array
    stride, before, after : int
        Of the convolution that computes them.
    at, end : int
        The zeros before and behind them in the pool's output.
    """

    factor: float
    weight: np.ndarray
    stride: int
    before: int
    after: int
    at: int
    end: int


def average(assembly: Assembly, part: Expression, at: Windows, name: str) -> Expression:
    """An average pool with the number of positions inside the map as its divisor."""
    size = part.shape[1:]
    constant, part = part.bias, replace(part, bias=np.zeros_like(part.bias))  # a constant is its own mean
    top, left, bottom, right = at.window.padding
    padding = (top, left, bottom + at.overhang[0], right + at.overhang[1])
    terms = list(assembly.avg_pool(part, replace(at.window, padding=padding), name).terms)
    rows, columns = ([*_lines(at, axis, size[axis], padding[axis], padding[2 + axis])] for axis in (0, 1))
    for down in rows:
        for across in columns:
            if down is rows[0] and across is columns[0]:
                continue  # the pool itself
            weight = np.outer(down.weight, across.weight) * (down.factor * across.factor)
            kernel = Convolution(
                np.broadcast_to(weight, (part.shape[0], 1, *weight.shape)),
                stride=(down.stride, across.stride),
                padding=(down.before, across.before, down.after, across.after),
                groups=part.shape[0],
            )
            piece = assembly.convolved(part, kernel, name=f"{name}.border")
            place = Convolution.diagonal(np.ones(part.shape[0]))
            place = replace(place, padding=(down.at, across.at, down.end, across.end))
            terms += assembly.convolved(piece, place, name=name).terms
    return Expression(tuple(terms), constant, name)


def _lines(at: Windows, axis: int, n: int, before: int, after: int) -> Iterator[_Line]:
    """All windows along an axis, and then those at its borders with what their means lack."""
    kernel, stride, count = at.window.kernel[axis], at.window.stride[axis], at.shape[axis]
    each = np.full(kernel, 1 / kernel)
    yield _Line(1.0, each, stride, before, after, 0, 0)
    for window in range(count):
        start, stop = window * stride - before, window * stride - before + kernel
        first, last = max(0, start), min(n, stop)
        inside = last - first
        if inside == kernel:
            continue
        factor = kernel / inside - 1
        if first == 0:  # one window at the beginning, and no room for a second
            yield _Line(factor, each[:inside], n, 0, 0, window, count - 1 - window)
        elif last == n and window:  # a first one in the padding, and this one
            yield _Line(factor, each[:inside], n, inside, 0, window - 1, count - 1 - window)
