"""The layers of a network: frozen, checked, in ANN units.

Shapes are without the batch: ``(channels, height, width)`` for maps, ``(features,)`` for vectors.
Arrays become read-only float32 copies. What a layer cannot be is refused when it is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import NetworkError
from .geometry import Window

__all__ = [
    "ENCODINGS",
    "IF",
    "KINDS",
    "Add",
    "AvgPool2d",
    "Concat",
    "Conv2d",
    "Flatten",
    "Input",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Readout",
    "Shape",
    "checked_bias",
    "sized",
]

MAX_POOL_AREA = 65_535
"""Most positions of a pooling window: counts of spikes in it have 16 bits."""

ENCODINGS = ("constant", "poisson", "events")
_NAME = re.compile(r"[!-~]{1,128}")

Shape = tuple[int, ...]


def _pair(value: object, where: str, what: str, least: int) -> tuple[int, int]:
    """One positive integer or two of them, as a (vertical, horizontal) pair."""
    values = value if isinstance(value, (tuple, list, np.ndarray)) else (value, value)
    vertical, horizontal = _integers(values, 2, where, what, least)
    return vertical, horizontal


def _integers(values: Iterable[Any], count: int, where: str, what: str, least: int) -> tuple[int, ...]:
    try:
        integers = tuple(int(v) for v in values)
        right = len(integers) == count and all(
            i == v and least <= i < 1 << 24 for i, v in zip(integers, values)
        )
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        raise NetworkError(
            f"{what} is not usable", where=where, got=values, expected=f"{count} integers >= {least}"
        )
    return integers


def _padding(value: object, where: str) -> tuple[int, int, int, int]:
    """An integer, (vertical, horizontal) or (top, left, bottom, right), as the last."""
    values = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value, value)
    values = values * 2 if len(values) == 2 else values
    top, left, bottom, right = _integers(values, 4, where, "padding", 0)
    return top, left, bottom, right


def _array(value: object, where: str, what: str, ranks: Sequence[int]) -> np.ndarray:
    """A finite, read-only, C-ordered float32 copy of `value`."""
    try:
        array = np.array(value, dtype=np.float32, order="C")
    except (TypeError, ValueError) as error:
        raise NetworkError(
            f"{what} is not an array of numbers", where=where, got=type(value).__name__
        ) from error
    if array.ndim not in ranks:
        raise NetworkError(
            f"{what} has the wrong rank",
            where=where,
            got=f"shape {array.shape}",
            expected=f"{' or '.join(map(str, ranks))} dimensions",
        )
    if array.size == 0:
        raise NetworkError(f"{what} is empty", where=where, got=f"shape {array.shape}")
    if not np.isfinite(array).all():
        raise NetworkError(f"{what} holds NaN or infinity", where=where, expected="finite float32 values")
    array += np.float32(0)  # -0.0 becomes 0.0: the arithmetic promises that no membrane is ever -0.0
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Layer:
    """A node of the graph.

    Parameters
    ----------
    name : str
        1 to 128 printable ASCII characters without spaces; unique. Empty: named after its kind.
    inputs : tuple of str
        Names of the layers it reads. Empty: the layer listed before it.
    """

    name: str = field(default="", kw_only=True)
    inputs: tuple[str, ...] = field(default=(), kw_only=True)

    kind = "layer"
    arity = (1, 1)

    def __post_init__(self) -> None:
        inputs = (self.inputs,) if isinstance(self.inputs, str) else tuple(self.inputs)
        object.__setattr__(self, "inputs", inputs)
        for name in (*inputs, *([self.name] if self.name else [])):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise NetworkError(
                    "a layer's name is not usable",
                    where=self._where,
                    got=repr(name)[:80],
                    expected="1 to 128 printable ASCII characters, no spaces",
                )
        self._check()

    @property
    def _where(self) -> str:
        return f"layer {self.name!r}"[:140] if self.name else f"a {self.kind} layer"

    def _check(self) -> None:
        """Bring the fields into their one form, or refuse them."""

    def _set(self, **fields: object) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Shape of the output, from the inputs' shapes.

        Raises
        ------
        NetworkError
            If they do not fit.
        """
        raise NotImplementedError

    def _map(self, shape: Shape) -> tuple[int, int, int]:
        if len(shape) != 3:
            raise NetworkError(
                f"{self.kind} reads a map",
                where=self._where,
                got=f"shape {shape}",
                expected="(channels, height, width)",
            )
        return shape


@dataclass(frozen=True, eq=False)
class Input(Layer):
    """Where samples come in.

    Parameters
    ----------
    shape : tuple of int
        ``(channels, height, width)`` or ``(features,)``.
    encoding : {"constant", "poisson", "events"}
        "constant": the value is a current, the same at every step (Deng & Gu 2021, section 3).
        "poisson": values in [0, 1] are firing probabilities a step, drawn from a seeded generator.
        "events": samples are spike trains ``(n_steps, *shape)`` of 0 and 1.
    """

    shape: Shape = ()
    encoding: str = "constant"

    kind = "input"
    arity = (0, 0)

    def _check(self) -> None:
        shape = tuple(self.shape) if isinstance(self.shape, (tuple, list, np.ndarray)) else (self.shape,)
        if len(shape) not in (1, 3):
            raise NetworkError(
                "an input is a map or a vector",
                where=self._where,
                got=f"shape {shape}",
                expected="(channels, height, width) or (features,)",
            )
        self._set(shape=_integers(shape, len(shape), self._where, "shape", 1))
        if self.encoding not in ENCODINGS:
            raise NetworkError(
                "unknown input encoding",
                where=self._where,
                got=repr(self.encoding),
                expected=" or ".join(ENCODINGS),
            )

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        return self.shape


@dataclass(frozen=True, eq=False)
class Conv2d(Layer):
    """2-D cross-correlation, as in every deep-learning library.

    Parameters
    ----------
    weight : (n_out, n_in / groups, kernel_height, kernel_width) float32
    bias : (n_out,) float32, optional
        A current added at every step.
    stride, dilation : int or (vertical, horizontal)
    padding : int, (vertical, horizontal) or (top, left, bottom, right)
    groups : int
        Output group g reads input group g alone; ``groups == n_in`` is depthwise.
    """

    weight: np.ndarray = field(default=None, repr=False)  # type: ignore[arg-type]  # refused by `_check`
    bias: np.ndarray | None = field(default=None, repr=False)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    kind = "conv2d"

    def _check(self) -> None:
        where = self._where
        weight = _array(self.weight, where, "weight", (4,))
        (groups,) = _integers((self.groups,), 1, where, "groups", 1)
        if weight.shape[0] % groups:
            raise NetworkError(
                "groups do not divide the output channels",
                where=where,
                got=f"{groups} groups, {weight.shape[0]} channels",
            )
        bias = checked_bias(self.bias, weight.shape[0], where)
        self._set(
            weight=weight,
            bias=bias,
            groups=groups,
            stride=_pair(self.stride, where, "stride", 1),
            padding=_padding(self.padding, where),
            dilation=_pair(self.dilation, where, "dilation", 1),
        )

    @property
    def window(self) -> Window:
        """How the kernel slides over a map."""
        return Window(self.weight.shape[2:], self.stride, self.padding, self.dilation)

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        channels, *size = self._map(shapes[0])
        n_out, n_in = self.weight.shape[:2]
        if n_in * self.groups != channels:
            per_group = (
                channels // self.groups if channels % self.groups == 0 else f"{channels}/{self.groups}"
            )
            raise NetworkError(
                "weight and input do not fit",
                where=self._where,
                got=f"weight {self.weight.shape} with groups={self.groups} on {channels} channels",
                expected=f"a weight of ({n_out}, {per_group}, ...)",
            )
        return (n_out, *sized(self.window, size, self._where))


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """Fully connected.

    Parameters
    ----------
    weight : (n_out, n_in) float32
        Behind a `Flatten` of a map, columns are in (channel, y, x) order.
    bias : (n_out,) float32, optional
        A current added at every step.
    """

    weight: np.ndarray = field(default=None, repr=False)  # type: ignore[arg-type]  # refused by `_check`
    bias: np.ndarray | None = field(default=None, repr=False)

    kind = "linear"

    def _check(self) -> None:
        weight = _array(self.weight, self._where, "weight", (2,))
        self._set(weight=weight, bias=checked_bias(self.bias, weight.shape[0], self._where))

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        (shape,) = shapes
        if len(shape) != 1:
            raise NetworkError(
                "linear reads a vector",
                where=self._where,
                got=f"shape {shape}",
                expected="(features,)",
                hint="put a Flatten before it",
            )
        if shape[0] != self.weight.shape[1]:
            raise NetworkError(
                "weight and input do not fit",
                where=self._where,
                got=f"{shape[0]} features",
                expected=f"{self.weight.shape[1]}",
            )
        return (self.weight.shape[0],)


@dataclass(frozen=True, eq=False)
class AvgPool2d(Layer):
    """Average pooling: linear, without neurons, folded into the projection behind it.

    Parameters
    ----------
    kernel : int or (vertical, horizontal), optional
        None: the whole map (global average pooling).
    stride : int or pair, optional
        None: the kernel's.
    padding : int, (vertical, horizontal) or (top, left, bottom, right)
        Padded zeros count: the divisor is the kernel's area everywhere. Smaller than the kernel.
    """

    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    kind = "avgpool2d"

    def _check(self) -> None:
        where = self._where
        kernel = None if self.kernel is None else _pair(self.kernel, where, "kernel", 1)
        stride = kernel if self.stride is None else _pair(self.stride, where, "stride", 1)
        padding = _padding(self.padding, where)
        if kernel is None and (self.stride is not None or any(padding)):
            raise NetworkError(
                "global pooling takes neither stride nor padding", where=where, hint="name a kernel"
            )
        if kernel and kernel[0] * kernel[1] > MAX_POOL_AREA:
            raise NetworkError(
                "the pooling window is too large",
                where=where,
                got=kernel,
                expected=f"an area <= {MAX_POOL_AREA}",
            )
        if kernel and any(p >= k for p, k in zip(padding, kernel * 2)):
            raise NetworkError(
                "padding reaches the kernel", where=where, got=f"padding {padding}, kernel {kernel}"
            )
        self._set(kernel=kernel, stride=stride, padding=padding)

    def window(self, shape: Shape) -> Window:
        """The window on a map of `shape`."""
        if self.kernel is None:
            height, width = shape[1:]
            return Window((height, width), (height, width))
        return Window(self.kernel, self.stride or self.kernel, self.padding)

    def output_shape(self, shapes: Sequence[Shape]) -> tuple[int, int, int]:
        shape = self._map(shapes[0])
        window = self.window(shape)
        if window.area > MAX_POOL_AREA:
            raise NetworkError(
                "the pooling window is too large",
                where=self._where,
                got=window.kernel,
                expected=f"an area <= {MAX_POOL_AREA}",
            )
        return (shape[0], *sized(window, shape[1:], self._where))


@dataclass(frozen=True, eq=False)
class MaxPool2d(Layer):
    """Maximum pooling of spikes by accumulated evidence: exact for their counts.

    With N_i(t) the net number of spikes that input i of a window has sent up to step t, the output sends::

        s(t) = max_i N_i(t) - max_i N_i(t - 1)

    so that at every step its count is the largest of the window's, and its amplitude is the inputs'.
    It has counters, but no membrane, threshold or weights.

    Parameters
    ----------
    kernel : int or (vertical, horizontal)
    stride : int or pair, optional
        None: the kernel's.
    padding : int, (vertical, horizontal) or (top, left, bottom, right)
        Padded positions never send a spike. Smaller than the kernel.
    """

    kernel: tuple[int, int] = (2, 2)
    stride: tuple[int, int] | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    kind = "maxpool2d"

    def _check(self) -> None:
        where = self._where
        kernel = _pair(self.kernel, where, "kernel", 1)
        stride = kernel if self.stride is None else _pair(self.stride, where, "stride", 1)
        padding = _padding(self.padding, where)
        if kernel[0] * kernel[1] > MAX_POOL_AREA:
            raise NetworkError(
                "the pooling window is too large",
                where=where,
                got=kernel,
                expected=f"an area <= {MAX_POOL_AREA}",
            )
        if any(p >= k for p, k in zip(padding, kernel * 2)):
            raise NetworkError(
                "padding reaches the kernel", where=where, got=f"padding {padding}, kernel {kernel}"
            )
        self._set(kernel=kernel, stride=stride, padding=padding)

    @property
    def window(self) -> Window:
        """How the window slides over a map."""
        return Window(self.kernel, self.stride or self.kernel, self.padding)

    def output_shape(self, shapes: Sequence[Shape]) -> tuple[int, int, int]:
        shape = self._map(shapes[0])
        return (shape[0], *sized(self.window, shape[1:], self._where))


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """A map (channels, height, width) as a vector, in that order."""

    kind = "flatten"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        return (int(np.prod(shapes[0], dtype=np.int64)),)


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """Sum of any number of branches of one shape: a residual connection.

    Branches are currents (behind a Conv2d or Linear) or spikes (an identity shortcut); all of them
    charge the one membrane behind it.
    """

    kind = "add"
    arity = (1, 256)

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        if len(set(shapes)) != 1:
            raise NetworkError(
                "branches of a sum differ in shape",
                where=self._where,
                got=", ".join(map(str, shapes)),
                expected="one shape",
            )
        return shapes[0]


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """Spike sources side by side: along the channels for maps, along the features for vectors."""

    kind = "concat"
    arity = (1, 256)

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        if len({(len(s), s[1:]) for s in shapes}) != 1:
            raise NetworkError(
                "concatenated inputs differ in size",
                where=self._where,
                got=", ".join(map(str, shapes)),
                expected="one height and width",
            )
        return (sum(s[0] for s in shapes), *shapes[0][1:])


@dataclass(frozen=True, eq=False)
class IF(Layer):
    """Integrate-and-fire neurons with soft reset (Deng & Gu 2021, eq. 1-2)::

        v += I + shift;    s = 1 if v >= v_threshold else 0;    v -= v_threshold * s

    Parameters
    ----------
    v_threshold : float or (channels,) float32
        Firing threshold and spike amplitude, > 0, in units of the ANN's activation.
    v_init : float or (channels,) float32
        Membrane before the first step.
    leak : float in [0, 1]
        Share of the membrane kept from step to step; 1 is no leak.
    shift : bool
        Whether the network's shift applies here.
    negative_threshold : float in [0, 65536]
        theta of negative correction spikes; 0: none. With n the neuron's spikes so far, negative ones
        taken off, a neuron that did not fire and has v < -theta v_threshold and n > 0 sends a spike of
        amplitude -v_threshold, and v += v_threshold.
    warm_up_steps : int in [0, 65536]
        d of warm-up: input of steps 1..d charges the membrane only, output step t is what the neuron
        fires after input step t + d, and once the T input steps are over the last d output steps follow
        without input. A warm-up beyond T is T.
    """

    v_threshold: np.ndarray = field(default=1.0, repr=False)  # type: ignore[arg-type]  # `_check` makes
    v_init: np.ndarray = field(default=0.0, repr=False)  # type: ignore[arg-type]  # an array of it
    leak: float = 1.0
    shift: bool = True
    negative_threshold: float = 0.0
    warm_up_steps: int = 0

    kind = "if"

    def _check(self) -> None:
        threshold = _array(self.v_threshold, self._where, "v_threshold", (0, 1))
        if not (threshold >= np.finfo(np.float32).tiny).all():
            raise NetworkError(
                "v_threshold is not positive",
                where=self._where,
                got=f"minimum {threshold.min()}",
                expected="> 0 for every neuron",
            )
        try:
            leak = float(np.float32(self.leak))
        except (TypeError, ValueError):
            leak = -1.0
        if not 0 <= leak <= 1:
            raise NetworkError("leak is out of range", where=self._where, got=self.leak, expected="0 to 1")
        try:
            negative_threshold = float(np.float32(self.negative_threshold))
        except (TypeError, ValueError):
            negative_threshold = -1.0
        if not 0 <= negative_threshold <= 65_536:
            raise NetworkError(
                "negative_threshold is out of range",
                where=self._where,
                got=self.negative_threshold,
                expected="0 (no negative spikes) to 65536",
            )
        (warm_up_steps,) = _integers((self.warm_up_steps,), 1, self._where, "warm_up_steps", 0)
        if warm_up_steps > 65_536:
            raise NetworkError(
                "warm_up_steps is out of range",
                where=self._where,
                got=warm_up_steps,
                expected="0 (no warm-up) to 65536",
            )
        self._set(
            v_threshold=threshold,
            v_init=_array(self.v_init, self._where, "v_init", (0, 1)),
            leak=leak,
            shift=bool(self.shift),
            negative_threshold=negative_threshold,
            warm_up_steps=warm_up_steps,
        )

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        for what in ("v_threshold", "v_init"):
            values = getattr(self, what)
            if values.ndim and values.shape[0] != shapes[0][0]:
                raise NetworkError(
                    f"{what} and input do not fit",
                    where=self._where,
                    got=f"{values.shape[0]} values",
                    expected=f"1 or {shapes[0][0]}, one per channel",
                )
        return shapes[0]


@dataclass(frozen=True, eq=False)
class Readout(Layer):
    """The network's output: a vector, one score per class if its task is to classify, or a map.

    Behind currents it integrates and never fires (readout "membrane"); behind an `IF` it sums the
    emitted amplitudes (readout "spikes", as the paper's authors do).
    """

    kind = "readout"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        (shape,) = shapes
        return (shape[0],) if tuple(shape[1:]) in ((), (1, 1)) else tuple(shape)


KINDS: Mapping[str, type[Layer]] = {
    c.kind: c for c in (Input, Conv2d, Linear, AvgPool2d, MaxPool2d, Flatten, Add, Concat, IF, Readout)
}


def checked_bias(bias: object, n_out: int, where: str) -> np.ndarray | None:
    """The bias of a layer of `n_out` channels in its one form, (n_out,) read-only float32; None if there is
    none.
    """
    if bias is None:
        return None
    array = _array(bias, where, "bias", (1,))
    if array.shape[0] != n_out:
        raise NetworkError(
            "bias and weight do not fit",
            where=where,
            got=f"{array.shape[0]} biases",
            expected=f"{n_out}, one per output channel",
        )
    return array


def sized(window: Window, size: Sequence[int], where: str) -> tuple[int, int]:
    """Output height and width of a window on a map of `size`; refused if none fits."""
    out = window.output_size(size)
    for axis, n in enumerate(out):
        if n < 1:
            before, after = window.padding[axis], window.padding[2 + axis]
            raise NetworkError(
                "the kernel is larger than its padded input",
                where=where,
                got=f"kernel reach {window.extent(axis)} on {size[axis]} + {before} + {after}",
            )
    return out
