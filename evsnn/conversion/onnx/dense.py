"""Dense convolution: the ANN's arithmetic, as matrix products.

Arrays have the shape (n, channels, height, width) and are channels-last in memory. Windows are then runs of
``kernel width * channels`` numbers, and a result is the next convolution's input without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["SCRATCH_BYTES", "conv2d", "scratch_bytes"]

SCRATCH_BYTES = 16 << 20
"""Memory for padded maps and gathered windows; one padded sample and the windows of one row may take more."""


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride=(1, 1),
    padding=(0, 0, 0, 0),
    dilation=(1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Two-dimensional convolution (cross-correlation).

    Parameters
    ----------
    x : (n, c_in, height, width) float32, or integers that become float32 a few samples at a time
        Any memory layout; channels-last is fastest.
    weight : (c_out, c_in / groups, ky, kx) float32
    bias : (c_out,) float32, optional
    stride, dilation : (vertical, horizontal)
    padding : (top, left, bottom, right)

    Returns
    -------
    (n, c_out, y, x) float32
        Channels-last in memory.
    """
    work = _Work.of(x.shape, weight.shape, stride, padding, dilation, groups)
    n, n_samples, n_rows = len(x), work.n_samples, work.n_rows
    x = x.transpose(0, 2, 3, 1)
    out = np.empty((n, *work.size, len(weight)), np.float32)

    taps = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))  # (ky, kx, c_in / groups, c_out)
    product = _depthwise if work.depthwise else _matrix
    scratch = np.empty(n_samples * n_rows * work.row_bytes // 4, np.float32)
    for i in range(0, n, n_samples):
        padded = _padded(x[i : i + n_samples].astype(np.float32, copy=False), padding)
        for y in range(0, work.size[0], n_rows):
            part = out[i : i + n_samples, y : y + n_rows]  # contiguous: whole samples, or rows of one
            product(padded[:, y * stride[0] :], taps, groups, stride, dilation, part, scratch)
            if bias is not None:
                part += bias
        del padded  # it goes before the next comes
    return out.transpose(0, 3, 1, 2)


def scratch_bytes(
    shape: Sequence[int],
    weight_shape: Sequence[int],
    stride=(1, 1),
    padding=(0, 0, 0, 0),
    dilation=(1, 1),
    groups: int = 1,
) -> int:
    """Bytes of padded maps and gathered windows that `conv2d` takes beside its output and a copy of weights.

    Parameters
    ----------
    shape : (n, c_in, height, width)
    weight_shape : (c_out, c_in / groups, ky, kx)
    stride, padding, dilation, groups
        As for `conv2d`.
    """
    work = _Work.of(shape, weight_shape, stride, padding, dilation, groups)
    return work.n_samples * (work.padded_bytes + work.n_rows * work.row_bytes)


@dataclass(frozen=True)
class _Work:
    """How a convolution is divided: how many samples, and how many output rows of them, at a time.

    `size` is that of the output, `row_bytes` those of the windows of an output row, `padded_bytes` those of a
    sample with its border.
    """

    size: tuple[int, int]
    depthwise: bool
    row_bytes: int
    padded_bytes: int
    n_samples: int
    n_rows: int

    @classmethod
    def of(cls, shape, weight_shape, stride, padding, dilation, groups: int) -> _Work:
        (top, left, bottom, right), (sy, sx), (dy, dx) = padding, stride, dilation
        n, c_in, height, width = shape
        c_out, per_group, ky, kx = weight_shape
        height, width = height + top + bottom, width + left + right
        n_y, n_x = (height - (ky - 1) * dy - 1) // sy + 1, (width - (kx - 1) * dx - 1) // sx + 1
        depthwise = per_group == 1 and groups > 1
        most = SCRATCH_BYTES // 4 if depthwise else SCRATCH_BYTES
        row_bytes = 4 * n_x * (c_out if depthwise else ky * kx * per_group)
        padded_bytes = 4 * height * width * c_in
        sample_bytes = padded_bytes + n_y * row_bytes
        n_rows = n_y if sample_bytes <= most else min(n_y, max(1, most // row_bytes))
        return cls(
            (n_y, n_x), depthwise, row_bytes, padded_bytes, min(n, max(1, most // sample_bytes)), n_rows
        )


def _padded(x: np.ndarray, padding: tuple[int, int, int, int]) -> np.ndarray:
    """(n, height, width, c) with its border of zeros."""
    top, left, bottom, right = padding
    if not any(padding):
        return x
    n, height, width, c = x.shape
    padded = np.zeros((n, top + height + bottom, left + width + right, c), np.float32)
    padded[:, top : top + height, left : left + width] = x
    return padded


def _matrix(
    x: np.ndarray, taps: np.ndarray, groups: int, stride, dilation, out: np.ndarray, scratch: np.ndarray
) -> None:
    """Gather windows into rows and multiply them by the weights; `out` is (n, y, x, c_out)."""
    ky, kx, per_group, c_out = taps.shape
    (n, n_y, n_x, _), per_out = out.shape, c_out // groups
    s_n, s_y, s_x, s_c = x.strides
    shape = (n, n_y, n_x, ky, kx, per_group)
    strides = (s_n, s_y * stride[0], s_x * stride[1], s_y * dilation[0], s_x * dilation[1], s_c)
    rows, columns = n * n_y * n_x, ky * kx * per_group
    for g in range(groups):
        seen = np.lib.stride_tricks.as_strided(x[..., g * per_group :], shape, strides, writeable=False)
        if columns > per_group:  # the windows of one position are gathered already
            gathered = scratch[: rows * columns].reshape(shape)
            gathered[...] = seen
            seen = gathered
        weight = taps[..., g * per_out : (g + 1) * per_out].reshape(columns, per_out)
        np.matmul(
            seen.reshape(rows, columns),
            weight,
            out=out.reshape(rows, c_out)[:, g * per_out : (g + 1) * per_out],
        )


def _depthwise(
    x: np.ndarray, taps: np.ndarray, groups: int, stride, dilation, out: np.ndarray, scratch: np.ndarray
) -> None:
    """One input channel per group: the sum over kernel positions; `out` is (n, y, x, c_out)."""
    ky, kx, _, c_out = taps.shape
    n, n_y, n_x, _ = out.shape
    out = out.reshape(n, n_y, n_x, groups, c_out // groups)
    term = scratch[: out.size].reshape(out.shape)
    for k in range(ky * kx):
        y, x_ = k // kx * dilation[0], k % kx * dilation[1]
        seen = x[
            :,
            y : y + (n_y - 1) * stride[0] + 1 : stride[0],
            x_ : x_ + (n_x - 1) * stride[1] + 1 : stride[1],
            :,
            None,
        ]
        weight = taps[k // kx, k % kx, 0].reshape(groups, -1)
        if k == 0:
            np.multiply(seen, weight, out=out)
        else:
            out += np.multiply(seen, weight, out=term)
