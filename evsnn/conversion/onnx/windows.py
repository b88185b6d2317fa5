"""Where the windows of a convolution or a pool lie: ONNX's rules of padding, in one module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...errors import ModelError
from ...network.geometry import Window

__all__ = ["AUTO_PADS", "MAX_PLACES", "Transposed", "Windows", "transposed_windows", "windows"]

MAX_PLACES = 1 << 20
"""Most positions of a kernel."""
AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Windows:
    """Windows over a map, (vertical, horizontal).

    Parameters
    ----------
    window : Window
        With the operator's padding.
    overhang : (int, int)
        Rows and columns beyond the padding that the last windows reach because their number was rounded up.
    shape : (int, int)
        The numbers of windows.
    """

    window: Window
    overhang: tuple[int, int]
    shape: tuple[int, int]


def windows(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Windows:
    """The windows of an ONNX operator over a map of `size` (height, width).

    Parameters
    ----------
    kernel : (int, int)
    strides, pads, dilations, auto_pad, ceil_mode
        ONNX's attributes; None if absent.

    Raises
    ------
    ModelError
        If an attribute is not a list of integers in range, or no window fits.
    """
    kernel = _pair("kernel_shape", kernel)
    strides, dilations = _pair("strides", strides or (1, 1)), _pair("dilations", dilations or (1, 1))
    if kernel[0] * kernel[1] > MAX_PLACES:
        raise ModelError("the kernel is too large", got=kernel, expected=f"at most {MAX_PLACES} places")
    top, left, bottom, right = _integers("pads", pads or (0, 0, 0, 0), 4, 0)
    pads = top, left, bottom, right
    if auto_pad not in AUTO_PADS:
        raise ModelError("auto_pad is unknown", got=repr(auto_pad)[:40], expected=" or ".join(AUTO_PADS))
    if auto_pad != "NOTSET" and any(pads):
        raise ModelError(
            "pads and auto_pad are both given", got=f"pads {pads} and {auto_pad}", expected="one of them"
        )
    window = Window(kernel, strides, pads, dilations)
    if auto_pad.startswith("SAME"):
        n = -(-size[0] // strides[0]), -(-size[1] // strides[1])
        window = replace(window, padding=_same_padding(window, size, n, auto_pad))
    else:
        n = window.output_size(size)
        if ceil_mode:
            n = _rounded_up(window, 0, size[0]), _rounded_up(window, 1, size[1])
    if min(n) < 1:
        raise ModelError(
            "the kernel is larger than the padded map",
            got=f"a map of {tuple(size)}, kernel {kernel}, dilations {dilations}, pads {pads}",
        )
    reached = [(n[axis] - 1) * strides[axis] + window.extent(axis) for axis in (0, 1)]
    down, right = (max(0, reached[axis] - window.padded(axis, size[axis])) for axis in (0, 1))
    return Windows(window, (down, right), n)


@dataclass(frozen=True)
class Transposed:
    """Where a transposed convolution puts its windows, (vertical, horizontal).

    Parameters
    ----------
    stride, dilation, output_padding : (int, int)
    pads : (top, left, bottom, right)
        What is cut off; a negative number adds zeros.
    shape : (int, int)
        Of the output.
    """

    stride: tuple[int, int]
    dilation: tuple[int, int]
    output_padding: tuple[int, int]
    pads: tuple[int, int, int, int]
    shape: tuple[int, int]


def transposed_windows(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
) -> Transposed:
    """The windows of a ConvTranspose over a map of `size`, as `windows` for a convolution.

    Raises
    ------
    ModelError
        If an attribute is not usable, or the output is empty.
    """
    kernel, stride = _pair("kernel_shape", kernel), _pair("strides", strides or (1, 1))
    dilation = _pair("dilations", dilations or (1, 1))
    more = _integers("output_padding", output_padding or (0, 0), 2, 0)
    around = _integers("pads", pads or (0, 0, 0, 0), 4, -(1 << 24))
    if kernel[0] * kernel[1] > MAX_PLACES:
        raise ModelError("the kernel is too large", got=kernel, expected=f"at most {MAX_PLACES} places")
    if auto_pad not in AUTO_PADS:
        raise ModelError("auto_pad is unknown", got=repr(auto_pad)[:40], expected=" or ".join(AUTO_PADS))
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation)):
        raise ModelError("output_padding reaches the stride", got=more, expected=f"below {stride}")
    full = [s * (n - 1) + m + (k - 1) * d + 1 for s, n, m, k, d in zip(stride, size, more, kernel, dilation)]
    if output_shape or auto_pad.startswith("SAME"):
        # onnxruntime reads an output_shape of all axes, too
        wanted = (
            _pair("output_shape", tuple(output_shape)[-2:])
            if output_shape
            else (size[0] * stride[0], size[1] * stride[1])
        )
        totals = [f - w for f, w in zip(full, wanted)]
        first = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in totals]
        around = (first[0], first[1], totals[0] - first[0], totals[1] - first[1])
    shape = full[0] - around[0] - around[2], full[1] - around[1] - around[3]
    if min(shape) < 1:
        raise ModelError("its pads cut everything off", got=f"pads {around} of {tuple(full)}")
    return Transposed(
        stride, dilation, (more[0], more[1]), (around[0], around[1], around[2], around[3]), shape
    )


def _same_padding(
    window: Window, size: Sequence[int], n: tuple[int, int], auto_pad: str
) -> tuple[int, int, int, int]:
    """The padding that gives `n` windows; an odd rest is after the map (SAME_UPPER) or before it."""
    totals = [
        max(0, (n[axis] - 1) * window.stride[axis] + window.extent(axis) - size[axis]) for axis in (0, 1)
    ]
    before = [total // 2 if auto_pad == "SAME_UPPER" else total - total // 2 for total in totals]
    return before[0], before[1], totals[0] - before[0], totals[1] - before[1]


def _rounded_up(window: Window, axis: int, size: int) -> int:
    """The number of windows along an axis, rounded up; a window that starts after the map does not count."""
    room = window.padded(axis, size) - window.extent(axis)
    if room < 0:
        return room // window.stride[axis] + 1
    n = -(-room // window.stride[axis]) + 1
    return n - ((n - 1) * window.stride[axis] >= size + window.padding[axis])


def _pair(name: str, values: Sequence[int]) -> tuple[int, int]:
    vertical, horizontal = _integers(name, values, 2, 1)
    return vertical, horizontal


def _integers(name: str, values: Sequence[int], count: int, least: int) -> tuple[int, ...]:
    if len(values) != count or not all(least <= v < 1 << 24 for v in values):
        raise ModelError(
            f"{name} is not usable",
            got=tuple(values)[:8],
            expected=f"{count} integers from {least} to {(1 << 24) - 1}"
            + (": maps are 2-D" if len(values) != count else ""),
        )
    return tuple(values)
