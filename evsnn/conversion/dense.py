"""Dense convolution: the ANN's arithmetic, as matrix products.

Arrays are (n, channels, height, width) by shape and channels-last in memory: windows are then runs of
``kernel width * channels`` numbers, and a result is the next convolution's input without a copy.
"""

from __future__ import annotations

import numpy as np

__all__ = ["SCRATCH_BYTES", "conv2d"]

SCRATCH_BYTES = 16 << 20
"""Memory for padded maps and gathered windows, unless those of one row of one sample take more."""


def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups: int = 1) -> np.ndarray:
    """Two-dimensional convolution (cross-correlation).

    Parameters
    ----------
    x : (n, c_in, height, width) float32
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
    (top, left, bottom, right), (sy, sx), (dy, dx) = padding, stride, dilation
    n, c_in, height, width = x.shape
    c_out, per_group, ky, kx = weight.shape
    height, width = height + top + bottom, width + left + right
    reach_y, reach_x = (ky - 1) * dy + 1, (kx - 1) * dx + 1
    n_y, n_x = (height - reach_y) // sy + 1, (width - reach_x) // sx + 1
    x = x.transpose(0, 2, 3, 1)
    out = np.empty((n, n_y, n_x, c_out), np.float32)

    taps = weight.transpose(2, 3, 1, 0)  # (ky, kx, c_in / groups, c_out)
    product = _depthwise if per_group == 1 and groups > 1 else _matrix
    row_bytes = 4 * n_x * (c_out if product is _depthwise else ky * kx * per_group)
    sample_bytes = 4 * height * width * c_in + n_y * row_bytes
    n_samples = max(1, SCRATCH_BYTES // sample_bytes)
    n_rows = n_y if sample_bytes <= SCRATCH_BYTES else max(1, SCRATCH_BYTES // row_bytes)
    for i in range(0, n, n_samples):
        padded = _padded(x[i : i + n_samples], padding)
        for y in range(0, n_y, n_rows):
            rows = padded[:, y * sy : (min(y + n_rows, n_y) - 1) * sy + reach_y]
            part = out[i : i + n_samples, y : y + n_rows]
            product(rows, taps, groups, stride, dilation, part)
            if bias is not None:
                part += bias
    return out.transpose(0, 3, 1, 2)


def _padded(x: np.ndarray, padding: tuple[int, int, int, int]) -> np.ndarray:
    """(n, height, width, c) with its border of zeros."""
    top, left, bottom, right = padding
    if not any(padding):
        return x
    n, height, width, c = x.shape
    padded = np.zeros((n, top + height + bottom, left + width + right, c), np.float32)
    padded[:, top : top + height, left : left + width] = x
    return padded


def _matrix(x: np.ndarray, taps: np.ndarray, groups: int, stride, dilation, out: np.ndarray) -> None:
    """Windows gathered into rows, times the weights; `out` is (n, y, x, c_out)."""
    ky, kx, per_group, c_out = taps.shape
    (n, n_y, n_x, _), per_out = out.shape, c_out // groups
    s_n, s_y, s_x, s_c = x.strides
    shape = (n, n_y, n_x, ky, kx, per_group)
    strides = (s_n, s_y * stride[0], s_x * stride[1], s_y * dilation[0], s_x * dilation[1], s_c)
    for g in range(groups):
        first = x[:, :, :, g * per_group :]
        seen = np.lib.stride_tricks.as_strided(first, shape, strides, writeable=False).reshape(n * n_y * n_x, ky * kx * per_group)
        weight = taps[..., g * per_out : (g + 1) * per_out].reshape(ky * kx * per_group, per_out)
        out[..., g * per_out : (g + 1) * per_out] = (seen @ weight).reshape(n, n_y, n_x, per_out)


def _depthwise(x: np.ndarray, taps: np.ndarray, groups: int, stride, dilation, out: np.ndarray) -> None:
    """One input channel a group: a product with each tap, summed; `out` is (n, y, x, c_out)."""
    ky, kx, _, c_out = taps.shape
    n, n_y, n_x, _ = out.shape
    out = out.reshape(n, n_y, n_x, groups, c_out // groups)
    term = np.empty_like(out)
    out[...] = 0
    for y in range(ky):
        for x_ in range(kx):
            at_y = slice(y * dilation[0], y * dilation[0] + (n_y - 1) * stride[0] + 1, stride[0])
            at_x = slice(x_ * dilation[1], x_ * dilation[1] + (n_x - 1) * stride[1] + 1, stride[1])
            np.multiply(x[:, at_y, at_x, :, None], taps[y, x_, 0].reshape(groups, -1), out=term)
            out += term
