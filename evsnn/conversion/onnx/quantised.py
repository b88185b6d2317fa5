"""Quantised models, read as the float models that they stand for.

Weights behind a DequantizeLinear are the floats that it makes of them. A QuantizeLinear of activations rounds
them, which is left out, and limits them to what its type can hold: from 0 on, that is a ReLU with a limit,
and tools leave out the ReLU before it.
"""

from __future__ import annotations

import numpy as np

from ...errors import ModelError

__all__ = ["DEQUANTIZE", "QUANTIZE", "activation_limits", "dequantized", "quantized", "stored_limits"]

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"

_LIMITS = {2: (0, 255), 3: (-128, 127), 4: (0, 65_535), 5: (-32_768, 32_767), 6: (-(2**31), 2**31 - 1)}
"""The smallest and the largest integer of an onnx.TensorProto.DataType."""


def stored_limits(data_type: int) -> tuple[int, int]:
    """The smallest and the largest integer of a type; 0 is the default, unsigned 8 bits."""
    if data_type and data_type not in _LIMITS:
        raise ModelError(
            "quantises to a type that is not read",
            got=f"type {data_type}",
            expected="integers of 8 or 16 bits",
            hint="export the float model",
        )
    return _LIMITS[data_type or 2]


def _placed(x: np.ndarray, scale: np.ndarray, axis: int, block_size: int) -> np.ndarray:
    """A scale or zero point as it is broadcast to `x`: one, one along an axis, or one for each block."""
    if scale.size == 1:
        return scale.reshape(())
    if not -x.ndim <= axis < x.ndim:
        raise ModelError("names an axis that is not there", got=axis, expected=f"-{x.ndim} to {x.ndim - 1}")
    axis %= x.ndim
    if block_size:
        scale = np.repeat(scale, block_size, axis) if scale.ndim == x.ndim else scale
        return scale[(slice(None),) * axis + (slice(x.shape[axis]),)]
    if scale.shape != (x.shape[axis],):
        raise ModelError(
            "its scales do not fit its input", got=f"{scale.shape} for {x.shape} along axis {axis}"
        )
    return scale.reshape(-1, *(1,) * (x.ndim - 1 - axis))


def dequantized(x, scale, zero=None, /, *, axis=1, block_size=0, **_):
    """(x - zero) scale, in float32."""
    zero = np.zeros((), np.int64) if zero is None else zero
    x = np.subtract(x, _placed(x, zero, axis, block_size), dtype=np.float64)
    return (x * _placed(x, scale, axis, block_size)).astype(np.float32)


def quantized(x, scale, zero=None, /, *, limits=(0, 255), axis=1, block_size=0, **_):
    """The integers of floats: rounded to the nearest, halves to even ones, and kept in the type's range."""
    zero = np.zeros((), np.int64) if zero is None else zero
    steps = np.rint(x / _placed(x, scale, axis, block_size)) + _placed(x, zero, axis, block_size)
    return np.clip(steps, *limits).astype(np.int64)


def activation_limits(
    scale: np.ndarray | None, zero: np.ndarray | None, limits: tuple[int, int]
) -> tuple[float, float] | None:
    """The limits of activations that are quantised, if the lower one is 0; None if both signs are held."""
    if scale is None or scale.size != 1 or (zero is not None and zero.size != 1):
        raise ModelError(
            "quantises activations by more than one scale",
            got="none" if scale is None else f"{scale.size} scales",
            expected="one scale and one zero point, which are constants",
            hint="export the float model",
        )
    at = 0 if zero is None else int(zero.ravel()[0])
    return (0.0, (limits[1] - at) * float(scale.ravel()[0])) if at == limits[0] else None
