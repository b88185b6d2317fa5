"""What each ONNX operator that can be imported computes, in float32 NumPy.

Every function is one operator of the default domain in its newest form (`upgrade` rewrites older ones).
Tensors are given by position, None if an optional one is absent; attributes by their ONNX names. The batch is
the first axis of every array. Maps are (n, channels, height, width), channels-last in memory behind a
convolution. Results equal onnxruntime's up to the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...errors import ModelError
from .dense import conv2d
from .windows import Windows, transposed_windows, windows

__all__ = ["OPERATORS", "PRODUCTS", "turned_kernel"]


def _conv(
    x,
    weight,
    bias=None,
    /,
    *,
    auto_pad="NOTSET",
    dilations=None,
    group=1,
    kernel_shape=None,
    pads=None,
    strides=None,
):
    at = _conv_windows(x, weight, bias, auto_pad, dilations, group, kernel_shape, pads, strides)
    return conv2d(x, weight, bias, at.window.stride, at.window.padding, at.window.dilation, group)


def _conv_windows(x, weight, bias, auto_pad, dilations, group, kernel_shape, pads, strides) -> Windows:
    """The windows of a convolution whose operands fit."""
    if x.ndim != 4 or weight.ndim != 4:
        raise ModelError(
            "only 2-D convolutions are converted",
            got=f"an input of {x.ndim} axes, weights {weight.shape}",
            expected="4 axes each",
        )
    if (
        group < 1
        or x.shape[1] != weight.shape[1] * group
        or weight.shape[0] % group
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        raise ModelError(
            "input, weights, bias and group do not fit",
            got=f"{x.shape[1]} channels, weights {weight.shape}, group {group}",
        )
    if kernel_shape is not None and tuple(kernel_shape) != weight.shape[2:]:
        raise ModelError(
            "kernel_shape differs from the weights'", got=kernel_shape, expected=weight.shape[2:]
        )
    return windows(
        x.shape[2:], weight.shape[2:], strides=strides, pads=pads, dilations=dilations, auto_pad=auto_pad
    )


def _conv_products(
    x,
    weight,
    bias=None,
    /,
    *,
    auto_pad="NOTSET",
    dilations=None,
    group=1,
    kernel_shape=None,
    pads=None,
    strides=None,
) -> tuple[tuple[int, ...], int]:
    at = _conv_windows(x, weight, bias, auto_pad, dilations, group, kernel_shape, pads, strides)
    return (x.shape[0], weight.shape[0], *at.shape), weight[0].size


def _gemm(a, b, c=None, /, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    product = (a.T if transA else a) @ (b.T if transB else b)
    if alpha != 1:
        product *= np.float32(alpha)
    return product if c is None else product + (c if beta == 1 else c * np.float32(beta))


def _conv_transpose_products(x, weight, bias=None, /, *, group=1, kernel_shape=None, **sliding):
    at = transposed_windows(x.shape[2:], weight.shape[2:], **sliding)
    shape = (len(x), weight.shape[1] * group, *at.shape)
    return shape, -(-weight.size * int(np.prod(x.shape[2:])) // int(np.prod(shape[1:])))


def _gemm_products(
    a, b, c=None, /, *, alpha=1.0, beta=1.0, transA=0, transB=0
) -> tuple[tuple[int, ...], int]:
    shape, n = _matmul_products(a.T if transA else a, b.T if transB else b)
    if a.ndim != 2 or b.ndim != 2 or (c is not None and np.broadcast_shapes(shape, c.shape) != shape):
        raise ModelError(
            "its operands do not fit", got=f"shapes {a.shape}, {b.shape}, {None if c is None else c.shape}"
        )
    return shape, n


def _matmul_products(a, b, /) -> tuple[tuple[int, ...], int]:
    first = a.shape if a.ndim > 1 else (1, *a.shape)
    second = b.shape if b.ndim > 1 else (*b.shape, 1)
    if first[-1] != second[-2]:
        raise ModelError("its operands do not fit", got=f"shapes {a.shape} and {b.shape}")
    rest = (first[-2:-1] if a.ndim > 1 else ()) + (second[-1:] if b.ndim > 1 else ())
    return np.broadcast_shapes(first[:-2], second[:-2]) + rest, first[-1]


def _batch_normalization(
    x, scale, bias, mean, variance, /, *, epsilon=1e-5, momentum=0.9, training_mode=0, spatial=1
):
    if training_mode or not spatial:
        raise ModelError(
            "only inference is computed, one channel at a time",
            got=f"training_mode = {training_mode}, spatial = {spatial}",
        )
    k = scale / np.sqrt(variance.astype(np.float64) + epsilon)
    return (x - per_channel(mean, x.ndim)) * per_channel(k.astype(np.float32), x.ndim) + per_channel(
        bias, x.ndim
    )


def per_channel(values: np.ndarray, ndim: int) -> np.ndarray:
    """(channels,) values in a shape that broadcasts to `ndim` axes, of which the second is the channels."""
    return values.reshape(-1, *(1,) * (ndim - 2))


def _clip(x, low=None, high=None, /):
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _leaky_relu(x, *, alpha=0.01):
    return _p_relu(x, np.float32(alpha))


def _p_relu(x, slope, /):
    return np.multiply(x, slope, where=x < 0, out=x.copy(order="K"))


def _average_pool(x, *, kernel_shape, count_include_pad=0, **sliding):
    at = windows(x.shape[2:], kernel_shape, **sliding)
    places = np.pad(
        np.ones(x.shape[2:], np.float32),
        (at.window.padding[::2], at.window.padding[1::2]),
        constant_values=float(bool(count_include_pad)),
    )
    count = _over_windows(np.add, places[None, None], at, (0, 0, 0, 0), 0)
    if not count.all():
        raise ModelError(
            "a window lies in the padding alone", got=f"kernel {at.window.kernel}, pads {at.window.padding}"
        )
    return _over_windows(np.add, x, at, at.window.padding, 0) / count


def _max_pool(x, *, kernel_shape, storage_order=0, **sliding):
    at = windows(x.shape[2:], kernel_shape, **sliding)
    if any(
        p >= (k - 1) * d + 1
        for p, k, d in zip(at.window.padding, at.window.kernel * 2, at.window.dilation * 2)
    ):
        raise ModelError(
            "a window lies in the padding alone", got=f"kernel {at.window.kernel}, pads {at.window.padding}"
        )
    return _over_windows(np.maximum, x, at, at.window.padding, -np.inf)


def _over_windows(
    combine: np.ufunc, x: np.ndarray, at: Windows, pads: Sequence[int], border: float
) -> np.ndarray:
    """Apply `combine` to the positions of each window, axis by axis; the padding is `border`."""
    top, left, bottom, right = pads
    if any(pads) or any(at.overhang):
        shape = (
            *x.shape[:2],
            top + x.shape[2] + bottom + at.overhang[0],
            left + x.shape[3] + right + at.overhang[1],
        )
        padded = np.full_like(x, border, shape=shape)
        padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
        x = padded
    for axis, (n, kernel, stride, dilation) in enumerate(
        zip(at.shape, at.window.kernel, at.window.stride, at.window.dilation), start=2
    ):
        taps = [
            x[(slice(None),) * axis + (slice(k * dilation, k * dilation + (n - 1) * stride + 1, stride),)]
            for k in range(kernel)
        ]
        x = taps[0].copy(order="K")
        for tap in taps[1:]:
            combine(x, tap, out=x)
    return x


def _reduce_mean(x, axes=None, /, *, keepdims=1, noop_with_empty_axes=0):
    if axes is None or axes.size == 0:
        return (
            x
            if noop_with_empty_axes
            else np.asarray(np.mean(x, dtype=np.float64, keepdims=bool(keepdims)), np.float32)
        )
    return np.mean(x, tuple(axes.tolist()), dtype=np.float64, keepdims=bool(keepdims)).astype(np.float32)


def _space(x) -> tuple[int, ...]:
    if x.ndim < 3:
        raise ModelError(
            "pooling over space needs a map", got=f"{x.ndim} axes with the batch's", expected="at least 3"
        )
    return tuple(range(2, x.ndim))


def _global_average_pool(x):
    return np.mean(x, _space(x), dtype=np.float64, keepdims=True).astype(np.float32)


def _global_max_pool(x):
    return np.max(x, _space(x), keepdims=True)


def _flatten(x, *, axis=1):
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _reshape(x, shape, /, *, allowzero=0):
    return x.reshape(
        tuple(x.shape[i] if size == 0 and not allowzero else size for i, size in enumerate(shape.tolist()))
    )


def _squeeze(x, axes=None, /):
    return np.squeeze(x, None if axes is None else tuple(axes.tolist()))


def _unsqueeze(x, axes, /):
    return np.expand_dims(x, tuple(axes.tolist()))


def _transpose(x, *, perm=None):
    return x.transpose(perm)


def _pad(x, pads, value=None, axes=None, /, *, mode="constant"):
    if mode != "constant":
        raise ModelError(
            "only constant padding is converted",
            got=repr(mode)[:40],
            expected="'constant'",
            hint="pad with zeros, and train again",
        )
    axes = list(range(x.ndim)) if axes is None else axes.tolist()
    if pads.shape != (2 * len(axes),):
        raise ModelError("pads do not fit the axes", got=pads.shape, expected=(2 * len(axes),))
    around = np.zeros((x.ndim, 2), np.int64)
    around[axes] = pads.reshape(2, -1).T
    x = x[
        tuple(slice(max(0, -a), size - max(0, -b)) for (a, b), size in zip(around.tolist(), x.shape))
    ]  # a negative pad crops
    return np.pad(x, np.maximum(around, 0), constant_values=0 if value is None else value.item())


def _slice(x, starts, ends, axes=None, steps=None, /):
    at = [slice(None)] * x.ndim
    for i, axis in enumerate(range(len(starts)) if axes is None else axes.tolist()):
        step = 1 if steps is None else int(steps[i])
        start, end = int(starts[i]), int(ends[i])
        at[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return x[tuple(at)]


def _gather(x, indices, /, *, axis=0):
    return np.take(x, indices, axis)


def _depth_to_space(x, *, blocksize, mode="DCR"):
    n, channels, height, width = x.shape
    blocks, rest = (blocksize, blocksize), channels // blocksize**2
    if mode == "DCR":
        x = x.reshape(n, *blocks, rest, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(n, rest, *blocks, height, width).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(n, rest, height * blocksize, width * blocksize)


def _space_to_depth(x, *, blocksize, mode="DCR"):
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // blocksize, blocksize, width // blocksize, blocksize)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.transpose(order).reshape(n, -1, height // blocksize, width // blocksize)


def _conv_transpose(x, weight, bias=None, /, *, group=1, kernel_shape=None, **sliding):
    """The convolution of the map with zeros between its elements, by the turned kernel."""
    if x.ndim != 4 or weight.ndim != 4:
        raise ModelError(
            "only 1-D and 2-D transposed convolutions are converted",
            got=f"an input of {x.ndim} axes, weights {weight.shape}",
        )
    at = transposed_windows(x.shape[2:], weight.shape[2:], **sliding)
    (n, channels, height, width), (down, right) = x.shape, at.stride
    spread = np.zeros((n, channels, (height - 1) * down + 1, (width - 1) * right + 1), x.dtype)
    spread[:, :, ::down, ::right] = x
    kernel, around = turned_kernel(weight, at.pads, at.dilation, at.output_padding, group)
    rows, columns = (
        slice(max(0, -before), size - max(0, -after))
        for before, after, size in zip(around, around[2:], spread.shape[2:])
    )
    padding = tuple(max(0, amount) for amount in around)
    return conv2d(spread[:, :, rows, columns], kernel, bias, (1, 1), padding, at.dilation, group)


def turned_kernel(
    weight: np.ndarray,
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    group: int,
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The kernel (n_out, n_in / groups, height, width) of a transposed convolution, and its padding.

    A negative padding cuts the map.
    """
    n_in, per_out, height, width = weight.shape
    kernel = weight.reshape(group, n_in // group, per_out, height, width)[..., ::-1, ::-1]
    kernel = np.ascontiguousarray(kernel.swapaxes(1, 2)).reshape(group * per_out, -1, height, width)
    reach = (height - 1) * dilations[0], (width - 1) * dilations[1]
    around = (
        reach[0] - pads[0],
        reach[1] - pads[1],
        reach[0] - pads[2] + output_padding[0],
        reach[1] - pads[3] + output_padding[1],
    )
    return kernel, around


def _softmax(x, *, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _log_softmax(x, *, axis=-1):
    x = x - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def _all_of(combine: np.ufunc) -> Callable:
    def operator(first, *others):
        for other in others:
            first = combine(first, other)
        return first

    return operator


OPERATORS: Mapping[str, Callable[..., np.ndarray]] = {
    "Add": _all_of(np.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Clip": _clip,
    "Concat": lambda *tensors, axis: np.concatenate(tensors, axis),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": _all_of(np.divide),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _log_softmax,
    "MatMul": _all_of(np.matmul),
    "Max": _all_of(np.maximum),
    "MaxPool": _max_pool,
    "Min": _all_of(np.minimum),
    "Mul": _all_of(np.multiply),
    "PRelu": _p_relu,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": lambda x: np.maximum(x, np.float32(0)),
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _softmax,
    "SpaceToDepth": _space_to_depth,
    "Squeeze": _squeeze,
    "Sub": _all_of(np.subtract),
    "Sum": _all_of(np.add),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

PRODUCTS: Mapping[str, Callable[..., tuple[tuple[int, ...], int]]] = {
    "Conv": _conv_products,
    "ConvTranspose": _conv_transpose_products,
    "Gemm": _gemm_products,
    "MatMul": _matmul_products,
}
"""Operators that multiply many numbers: the shape of their result, and how many products each of its numbers
is a sum of. Nothing is computed.
"""
