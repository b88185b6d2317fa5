"""Where the windows of a convolution or a pool lie: ONNX's padding rules, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import ModelError

__all__ = ["AUTO_PADS", "MAX_PLACES", "Windows", "windows"]

MAX_PLACES = 1 << 20
"""Of a kernel."""
AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Windows:
    """Windows over a map, (vertical, horizontal).

    Parameters
    ----------
    kernel, stride, dilation : (int, int)
    pads : (int, int, int, int)
        Top, left, bottom, right: the operator's padding.
    overhang : (int, int)
        Rows and columns beyond `pads` that the last windows reach because their number was rounded up.
    shape : (int, int)
        How many windows there are.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]
    overhang: tuple[int, int]
    shape: tuple[int, int]


def windows(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    strides=None,
    pads=None,
    dilations=None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Windows:
    """The windows of an ONNX operator over a map of `size` (height, width).

    Parameters
    ----------
    kernel : (int, int)
    strides, pads, dilations, auto_pad, ceil_mode
        ONNX's attributes; None where absent.

    Raises
    ------
    ModelError
        If an attribute is no number of places, or no window fits.
    """
    kernel, strides, dilations = (
        _integers(name, value, 2, 1)
        for name, value in (
            ("kernel_shape", kernel),
            ("strides", strides or (1, 1)),
            ("dilations", dilations or (1, 1)),
        )
    )
    if kernel[0] * kernel[1] > MAX_PLACES:
        raise ModelError("the kernel is too large", got=kernel, expected=f"at most {MAX_PLACES} places")
    pads = _integers("pads", pads or (0, 0, 0, 0), 4, 0)
    if auto_pad not in AUTO_PADS:
        raise ModelError("auto_pad is unknown", got=repr(auto_pad)[:40], expected=" or ".join(AUTO_PADS))
    if auto_pad != "NOTSET" and any(pads):
        raise ModelError(
            "pads and auto_pad are both given", got=f"pads {pads} and {auto_pad}", expected="one of them"
        )
    axes = [
        _axis(*one, auto_pad, ceil_mode) for one in zip(size, kernel, strides, dilations, pads[:2], pads[2:])
    ]
    (begin_y, end_y, over_y, n_y), (begin_x, end_x, over_x, n_x) = axes
    if n_y < 1 or n_x < 1:
        raise ModelError(
            "the kernel is larger than the padded map",
            got=f"a map of {tuple(size)}, kernel {kernel}, dilations {dilations}, pads {pads}",
        )
    return Windows(kernel, strides, dilations, (begin_y, begin_x, end_y, end_x), (over_y, over_x), (n_y, n_x))


def _axis(
    size: int, kernel: int, stride: int, dilation: int, begin: int, end: int, auto_pad: str, ceil_mode: int
) -> tuple[int, int, int, int]:
    """Padding before and after, overhang and number of windows along one axis."""
    reach = (kernel - 1) * dilation + 1
    if auto_pad.startswith("SAME"):
        n = -(-size // stride)
        total = max(0, (n - 1) * stride + reach - size)
        begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        return begin, total - begin, 0, n
    padded = size + begin + end
    n = (padded - reach) // stride + 1
    if ceil_mode and padded >= reach:
        n = -(-(padded - reach) // stride) + 1
        n -= (n - 1) * stride >= size + begin  # a window that starts behind the map is none
    return begin, end, max(0, (n - 1) * stride + reach - padded), n


def _integers(name: str, values: Sequence[int], count: int, least: int) -> tuple[int, ...]:
    if len(values) != count or not all(least <= v < 1 << 24 for v in values):
        raise ModelError(
            f"{name} is not usable",
            got=tuple(values)[:8],
            expected=f"{count} integers from {least}: maps are 2-D",
        )
    return tuple(values)
