"""Operators on constants: the shape computations that exporters leave in a file, done once.

The values are float32, int64 or bool arrays. Besides these operators, every operator of `operators` that does
not need a map is folded, too. No result may be larger than `MAX_CONSTANT_BYTES`, and that is checked before
it is made: a file of a few bytes can ask for terabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ...errors import ModelError
from .model_file import FLOATS, plain
from .operators import OPERATORS, PRODUCTS
from .quantised import dequantized, quantized

__all__ = ["FOLDERS", "MAX_CONSTANT_BYTES", "fold"]

MAX_CONSTANT_BYTES = 1 << 30
_INTEGERS, _BOOL = (2, 3, 4, 5, 6, 7, 12, 13), 9  # onnx.TensorProto.DataType


def fold(op: str, values: list[np.ndarray | None], attributes: Mapping) -> np.ndarray:
    """The result of an operator on constants.

    Raises
    ------
    ModelError
        If it would be too large.
    """
    if op not in FOLDERS:
        raise ModelError(
            "the operator is not computed on constants",
            hint="simplify the model before, for example with onnxsim",
        )
    if attributes and isinstance(FOLDERS[op], np.ufunc):
        raise ModelError("has attributes that it does not know", got=", ".join(attributes)[:80])
    if op in PRODUCTS:
        _check_size(PRODUCTS[op](*values, **attributes)[0])
    elif op not in _OWN_SIZE:
        _check_size(_broadcast(op, values))
    return plain(np.asarray(FOLDERS[op](*values, **attributes)))


def _broadcast(op: str, values: list[np.ndarray | None]) -> tuple[int, ...]:
    """A shape that is at least as large as the result of most operators."""
    shapes = [v.shape for v in values if v is not None]
    if op == "Concat":
        return (sum(map(math.prod, shapes)),)
    if op in _ELEMENTWISE:
        return np.broadcast_shapes(*shapes)
    return max(shapes, key=math.prod)


def _check_size(shape) -> None:
    n_bytes = 8 * math.prod(map(int, shape))
    if n_bytes > MAX_CONSTANT_BYTES or any(size < 0 for size in shape):
        raise ModelError(
            "a constant is too large",
            got=f"shape {tuple(map(int, shape))[:8]}",
            expected=f"at most {MAX_CONSTANT_BYTES >> 20} MiB",
        )


def _constant_of_shape(shape, *, value=None):
    _check_size(shape)
    return np.full(tuple(shape.tolist()), np.float32(0) if value is None else value.reshape(()))


def _expand(x, shape):
    shape = np.broadcast_shapes(x.shape, tuple(shape.tolist()))
    _check_size(shape)
    return np.broadcast_to(x, shape).copy()


def _tile(x, repeats):
    if repeats.shape != (x.ndim,):
        raise ModelError("its repeats do not fit", got=repeats.size, expected=f"{x.ndim}, one for each axis")
    _check_size([size * n for size, n in zip(x.shape, repeats.tolist())])
    return np.tile(x, repeats)


def _range(start, limit, delta, *, stash_type=1):
    _check_size([max(0, math.ceil((limit - start) / delta))])
    return np.arange(start, limit, delta)


def _pad(x, pads, value=None, axes=None, *, mode="constant"):
    _check_size([size + 2 * int(np.abs(pads).max(initial=0)) for size in x.shape])
    return OPERATORS["Pad"](x, pads, value, axes, mode=mode)


def _gather(x, indices, *, axis=0):
    _check_size([x.size // max(1, x.shape[axis]), indices.size])
    return OPERATORS["Gather"](x, indices, axis=axis)


def _cast(x, *, to, saturate=1, round_mode="up"):
    if to in FLOATS:
        return x.astype(np.float32)
    if to == _BOOL:
        return x.astype(bool)
    if to not in _INTEGERS or not np.isfinite(x).all():
        raise ModelError(
            "a constant cannot be cast", got=f"type {to}", expected="a float, an integer or bool"
        )
    return x.astype(np.int64)


def _div(a, b):
    if a.dtype.kind == "f":
        return a / b
    if not b.all():
        raise ModelError("a constant is divided by zero")
    return np.trunc(a / b).astype(np.int64) if np.abs(a).max(initial=0) < 1 << 52 else a // b


def _pow(x, exponent):
    return np.power(x, exponent).astype(x.dtype)


def _reduce(reduce: Callable) -> Callable:
    def operator(x, axes=None, *, keepdims=1, noop_with_empty_axes=0):
        if noop_with_empty_axes and (axes is None or axes.size == 0):
            return x
        return reduce(
            x, axis=tuple(axes.tolist()) if axes is not None and axes.size else None, keepdims=bool(keepdims)
        )

    return operator


_ELEMENTWISE = (
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Mod",
    "Equal",
    "Less",
    "Greater",
    "LessOrEqual",
    "GreaterOrEqual",
    "And",
    "Or",
    "Where",
    "Min",
    "Max",
    "Sum",
    "PRelu",
    "Clip",
)
_OWN_SIZE = ("ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Gather", "Shape", "Size")
_IMPORTABLE = (
    "Add",
    "Clip",
    "Concat",
    "Flatten",
    "Gemm",
    "LeakyRelu",
    "MatMul",
    "Max",
    "Min",
    "Mul",
    "PRelu",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Slice",
    "Softmax",
    "Squeeze",
    "Sub",
    "Sum",
    "Transpose",
    "Unsqueeze",
)

FOLDERS: Mapping[str, Callable[..., np.ndarray]] = {
    **{op: OPERATORS[op] for op in _IMPORTABLE},
    "Abs": np.abs,
    "And": np.logical_and,
    "Cast": _cast,
    "CastLike": lambda x, like, **_: x.astype(like.dtype),
    "Ceil": np.ceil,
    "ConstantOfShape": _constant_of_shape,
    "DequantizeLinear": dequantized,
    "Div": _div,
    "Equal": np.equal,
    "Exp": np.exp,
    "Expand": _expand,
    "Floor": np.floor,
    "Gather": _gather,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Identity": lambda x: x,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Log": np.log,
    "Mod": lambda a, b, *, fmod=0: np.fmod(a, b) if fmod else np.mod(a, b),
    "Neg": np.negative,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Pad": _pad,
    "Pow": _pow,
    "QuantizeLinear": quantized,
    "Range": _range,
    "Reciprocal": np.reciprocal,
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Shape": lambda x, *, start=0, end=None: np.array(x.shape[start:end], np.int64),
    "Size": lambda x: np.int64(x.size),
    "Sqrt": np.sqrt,
    "Tile": _tile,
    "Where": np.where,
}
