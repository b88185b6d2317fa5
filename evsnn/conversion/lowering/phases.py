"""Maps that are larger than the layers they come from, by their phases: each second row and column, say.

A map that is upsampled, or made by a transposed convolution, has no layer of its size. But V[:, a::s, b::s],
its phase (a, b), is an ordinary map, and a convolution of V is a few small convolutions of its phases::

    out[r Y + q] = sum_k w[k] V[t (r Y + q) + d k - p]
    t (r Y + q) + d k - p = s (t r / s) Y + (t q + d k - p)

with stride t, dilation d, padding p, and r = s / gcd(s, t) phases of the output. The tap k reads the phase
(t q + d k - p) mod s of V with the offset (t q + d k - p) // s. No product with an inserted zero is left, and
products with copies of one element become one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd

import numpy as np

from .convolution import Convolution
from .expression import Expression, Pending
from .value import ZERO, Value

__all__ = ["MAX_PHASES", "Phase", "in_phases", "interleaved", "phases_of", "regular_phases"]

MAX_PHASES = 8
"""Most phases along an axis."""


@dataclass(frozen=True, eq=False)
class Phase:
    """A part of an output's phase: one convolution of one phase of the input.

    Parameters
    ----------
    at : (int, int)
        Which phase of the output it belongs to.
    source : (int, int)
        Which phase of the input it reads.
    kernel : Convolution
    """

    at: tuple[int, int]
    source: tuple[int, int]
    kernel: Convolution


def regular_phases(value: Value) -> tuple[tuple[int, int], dict[tuple[int, int], Value]] | None:
    """The fewest phases of a map that are maps of regular windows each; phases of zeros are left out."""
    _, height, width = value.shape
    if all(part.shape[1:] == (1, 1) for part in value.parts):
        return None  # a vector that is read as a map
    most = min(MAX_PHASES, max(height, width))
    steps = [at for s in range(2, most + 1) for at in ((1, s), (s, 1), (s, s))]
    for down, right in (at for at in steps if at[0] <= height and at[1] <= width):
        found = in_phases(value, (down, right))
        if found is not None:
            return (down, right), {at: phase for at, phase in found.items() if phase.blocks()}
    return None


def in_phases(value: Value, steps: tuple[int, int]) -> dict[tuple[int, int], Value] | None:
    """The phases of a map, if each is one of regular windows."""
    found = {}
    for y, x in np.ndindex(*steps):
        index = np.ascontiguousarray(value.positions[:, y :: steps[0], x :: steps[1]])
        found[y, x] = Value(value.parts, index.shape, index)
        if found[y, x].blocks() is None:
            return None
    return found


def phases_of(
    kernel: Convolution, steps: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[int, int], list[Phase]]:
    """A convolution of a map of `size` as convolutions of its phases.

    Returns
    -------
    steps : (int, int)
        The phases of the output along both axes.
    phases : list of Phase
        Ordered by the phase of the output.
    """
    _, *out = kernel.output_shape((kernel.n_in, *size))
    rows, columns = (list(_along(kernel, axis, steps[axis], size[axis], out[axis])) for axis in (0, 1))
    found = []
    for down in rows:
        for right in columns:
            weight = np.zeros((*kernel.weight.shape[:2], down.length, right.length), kernel.weight.dtype)
            weight[:, :, down.places[:, None], right.places] = kernel.weight[
                :, :, down.taps[:, None], right.taps
            ]
            padding = (down.padding[0], right.padding[0], down.padding[1], right.padding[1])
            stride = (down.stride, right.stride)
            part = replace(kernel, weight=weight, stride=stride, padding=padding, dilation=(1, 1))
            found.append(Phase((down.at, right.at), (down.source, right.source), part))
    made = [s // gcd(s, stride) for s, stride in zip(steps, kernel.stride)]
    return (min(made[0], out[0]), min(made[1], out[1])), sorted(found, key=lambda phase: phase.at)


@dataclass(frozen=True, eq=False)
class _Taps:
    """What one phase of the output reads of one phase of the input, along one axis."""

    at: int
    source: int
    taps: np.ndarray
    places: np.ndarray
    length: int
    padding: tuple[int, int]
    stride: int


def _along(kernel: Convolution, axis: int, s: int, n: int, n_out: int) -> Iterator[_Taps]:
    """The taps of each phase of the output along an axis of n elements, by the phase that they read."""
    t, d, p = kernel.stride[axis], kernel.dilation[axis], kernel.padding[axis]
    r = s // gcd(s, t)
    stride = t * r // s
    taps = np.arange(kernel.size[axis])
    for q in range(min(r, n_out)):
        reached = t * q + d * taps - p
        offsets = reached // s
        count = len(range(q, n_out, r))
        first = min(0, int(offsets.min()))  # a kernel of one extent for all phases, so that equal ones join
        length = int(offsets.max()) - first + 1
        for phase in np.unique(reached % s).tolist():
            mine = reached % s == phase
            seen = len(range(phase, n, s))
            if not seen:
                continue
            missing = (count - 1) * stride + length - (seen - first)
            surplus = 0 if missing >= 0 else (seen - first - length) // stride + 1 - count
            ends = max(0, missing)
            yield _Taps(
                q, phase, taps[mine], offsets[mine] - first, length + surplus * stride, (-first, ends), stride
            )


def interleaved(values: dict[tuple[int, int], Value], steps: tuple[int, int]) -> Value:
    """The map whose phases are `values`, which all have one number of channels."""
    shapes = [value.shape for value in values.values()]
    height = sum(values[y, 0].shape[1] for y in range(steps[0]))
    width = sum(values[0, x].shape[2] for x in range(steps[1]))
    index = np.full((shapes[0][0], height, width), ZERO)
    parts: list[Expression | Pending] = []
    start = 0
    for (y, x), value in values.items():
        positions = value.positions
        index[:, y :: steps[0], x :: steps[1]] = np.where(positions == ZERO, ZERO, positions + start)
        start += value.size
        parts.extend(value.parts)
    return Value(tuple(parts), index.shape, index)
