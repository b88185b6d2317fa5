"""Where a sliding window looks: the geometry of convolutions, pools, and all that reads a map by a kernel.

Along each axis, output position o and kernel position k read the input at::

    o * stride - padding_before + k * dilation

Neighbours of the map are `upsample` positions apart, with zeros between them (1: the map as it is; more: a
transposed convolution). Every size, list of positions and count that depends on this formula is made here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Window"]


@dataclass(frozen=True)
class Window:
    """A window that slides over a map; axis 0 is vertical, axis 1 horizontal.

    Parameters
    ----------
    kernel : (int, int)
        Positions of the window, at least 1.
    stride : (int, int)
        Distance between neighbouring outputs, at least 1.
    padding : (top, left, bottom, right)
        Zeros around the map, at least 0.
    dilation : (int, int)
        Distance between neighbouring kernel positions, at least 1.
    upsample : (int, int)
        Distance between neighbouring input positions, at least 1.

    Examples
    --------
    >>> Window((3, 3), stride=(2, 2), padding=(1, 1, 1, 1)).output_size((32, 32))
    (16, 16)
    >>> Window((3, 3)).reach(0, 5)
    array([1, 2, 3, 2, 1])
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    upsample: tuple[int, int] = (1, 1)

    @property
    def area(self) -> int:
        """Positions of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def plain(self) -> bool:
        """Whether each output is the input at its own place: one position, no stride, no padding."""
        return self == Window((1, 1), dilation=self.dilation)

    @property
    def tiles(self) -> bool:
        """Whether windows lie side by side: without overlap, gaps or padding."""
        return (
            self.stride == self.kernel and not any(self.padding) and self.dilation == self.upsample == (1, 1)
        )

    def extent(self, axis: int) -> int:
        """Input positions from the first to the last that one output looks at."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def padded(self, axis: int, size: int) -> int:
        """The size of the map along an axis, with the zeros between and around its positions."""
        return (size - 1) * self.upsample[axis] + 1 + self.padding[axis] + self.padding[2 + axis]

    def output_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Output positions along each axis; 0 or less if the window is larger than its padded map."""
        height, width = size
        return self._outputs(0, height), self._outputs(1, width)

    def _outputs(self, axis: int, size: int) -> int:
        return (self.padded(axis, size) - self.extent(axis)) // self.stride[axis] + 1

    def origins(self, axis: int, n_out: int) -> np.ndarray:
        """(n_out,) int64: where kernel position 0 of each output lies, on the map or before it."""
        return np.arange(n_out) * self.stride[axis] - self.padding[axis]

    def taps(self, axis: int, size: int) -> np.ndarray:
        """The input positions that each output looks at.

        Returns
        -------
        (n_out, kernel) int64
            -1 for a position that is not on the map.
        """
        at = self.origins(axis, self._outputs(axis, size))[:, None]
        at = at + np.arange(self.kernel[axis]) * self.dilation[axis]
        index, rest = np.divmod(at, self.upsample[axis])
        return np.where((rest == 0) & (index >= 0) & (index < size), index, -1)

    def inside(self, axis: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The first and last + 1 kernel position of each output that lies on the map, if `upsample` is 1.

        Returns
        -------
        first, last : (n_out,) int64
            Equal if no kernel position of the output does.
        """
        start, dilation = self.origins(axis, self._outputs(axis, size)), self.dilation[axis]
        first = np.maximum(0, -(start // dilation))
        return first, np.maximum(first, np.minimum(self.kernel[axis], (size - 1 - start) // dilation + 1))

    def reach(self, axis: int, size: int) -> np.ndarray:
        """(size,) int64: how many outputs each input position reaches.

        Position x, counted with the padding, is read by output o at kernel position k if x is
        ``o * stride + k * dilation``. So k is one of every `period`, and leaves an o from 0 to the last.
        """
        stride, dilation, n_out = self.stride[axis], self.dilation[axis], self._outputs(axis, size)
        x = np.arange(size, dtype=np.int64) * self.upsample[axis] + self.padding[axis]
        common = math.gcd(stride, dilation)
        period = stride // common
        first = x // common * (pow(dilation // common, -1, period) if period > 1 else 0) % period
        low = np.maximum(0, -(((n_out - 1) * stride - x) // dilation))
        high = np.minimum(self.kernel[axis] - 1, x // dilation)
        count = (high - first) // period - (low - 1 - first) // period
        return np.where(x % common, 0, np.maximum(count, 0))

    def fan_out(self, size: Sequence[int]) -> int:
        """How many outputs all positions of a map reach together, over both axes."""
        return int(self.reach(0, size[0]).sum() * self.reach(1, size[1]).sum())

    def span(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """The first and last position that outputs `first` to `last` look at, on the map or not."""
        low = first * self.stride[axis] - self.padding[axis]
        return low, last * self.stride[axis] - self.padding[axis] + self.extent(axis) - 1

    def overlap(self, axis: int, k: int, size: int) -> tuple[slice, slice]:
        """The outputs that read the map at kernel position `k`, and the inputs that they read.

        Only if `upsample` is 1.
        """
        offset = k * self.dilation[axis] - self.padding[axis]
        stride = self.stride[axis]
        first = max(0, -(offset // stride))
        last = min(self._outputs(axis, size), (size - 1 - offset) // stride + 1)
        if last <= first:
            return slice(0, 0), slice(0, 0)
        return slice(first, last), slice(first * stride + offset, (last - 1) * stride + offset + 1, stride)
