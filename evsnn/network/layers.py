"""The layers of a network: frozen, checked, in ANN units.

Shapes are without the batch: ``(channels, height, width)`` for maps, ``(features,)`` for vectors.
Arrays become read-only float32 copies. A layer that is not valid is refused when it is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import NetworkError
from .geometry import Window

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

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
    "settled",
    "sized",
]

_LARGEST = (1 << 24) - 1
"""Largest size, stride or padding."""
MAX_POOL_AREA = 65_535
"""Most positions of a pooling window: the count of its spikes has 16 bits."""

_BLOCK = 1 << 18  # numbers of which a temporary array may be made
_MINUS_ZERO = np.float32(-0.0).view(np.uint32)

ENCODINGS = ("constant", "poisson", "events")
_NAME = re.compile(r"[!-~]{1,128}")

Shape = tuple[int, ...]

# Fields have the type of their one form. What a layer may be made of is wider, and `_check` brings it there:
# type checkers read it from the `__init__` below each list of fields, which dataclasses make otherwise.
_Names = str | Sequence[str]
_Pair = int | Sequence[int]
_Padding = int | Sequence[int]


def _check_pool(kernel: tuple[int, int], padding: tuple[int, int, int, int], where: str) -> None:
    """Refuse a pool whose window is too large, or lies in the padding alone."""
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


def _pair(value: object, where: str, what: str, least: int) -> tuple[int, int]:
    """One positive integer or two of them, as a (vertical, horizontal) pair."""
    values = value if isinstance(value, (tuple, list, np.ndarray)) else (value, value)
    vertical, horizontal = _integers(values, 2, where, what, least)
    return vertical, horizontal


def _integers(values: Iterable[Any], count: int, where: str, what: str, least: int) -> tuple[int, ...]:
    try:
        integers = tuple(int(v) for v in values)
        right = len(integers) == count and all(
            i == v and least <= i <= _LARGEST for i, v in zip(integers, values)
        )
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        raise NetworkError(
            f"{what} is not usable",
            where=where,
            got=values,
            expected=f"{count} integer{'s' * (count != 1)} from {least} to {_LARGEST}",
        )
    return integers


def _padding(value: object, where: str) -> tuple[int, int, int, int]:
    """An integer, (vertical, horizontal) or (top, left, bottom, right), as the last."""
    values = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value, value)
    values = values * 2 if len(values) == 2 else values
    top, left, bottom, right = _integers(values, 4, where, "padding", 0)
    return top, left, bottom, right


def _array(value: object, where: str, what: str, ranks: Sequence[int]) -> np.ndarray:
    """A finite, read-only, C-ordered float32 copy of `value`.

    An array that is one already, with memory of its own, is taken as it is: networks are made of a file's
    arrays, and of other networks', without a second copy.
    """
    taken = isinstance(value, np.ndarray) and _is_settled(value)
    try:
        array = np.asarray(value) if taken else np.array(value, dtype=np.float32, order="C")
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
    if not np.isfinite([array.min(), array.max()]).all():  # both are NaN if a value is NaN
        raise NetworkError(f"{what} holds NaN or infinity", where=where, expected="finite float32 values")
    return array if taken else settled(array)


def settled(array: np.ndarray) -> np.ndarray:
    """A float32 array that layers take without a copy: it is changed in place, and read-only afterwards."""
    array += np.float32(0)  # -0.0 becomes 0.0: no membrane is ever -0.0 (docs/arithmetic.md)
    array.setflags(write=False)
    return array


def _is_settled(value: np.ndarray) -> bool:
    """Whether a copy of an array would be the same, and the array is read-only as that would be."""
    if value.dtype != np.float32 or not value.flags.c_contiguous:
        return False
    if value.flags.writeable or not value.flags.owndata:
        return False
    bits = value.reshape(-1).view(np.uint32)
    return not any((bits[i : i + _BLOCK] == _MINUS_ZERO).any() for i in range(0, bits.size, _BLOCK))


@dataclass(frozen=True, eq=False)
class Layer:
    """A node of the graph: the base of all layers.

    Parameters
    ----------
    name : str, optional
        1 to 128 printable ASCII characters without spaces; unique in the network. Empty: the network names
        the layer after its kind.
    inputs : tuple of str, optional
        Names of the layers that this layer reads. Empty: the layer listed before it.

    Raises
    ------
    NetworkError
        If a field is not usable. All layers raise it when they are made.

    Examples
    --------
    >>> evsnn.IF(v_threshold=1.5, name="a").name
    'a'
    """

    name: str = field(default="", kw_only=True)
    inputs: tuple[str, ...] = field(default=(), kw_only=True)

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str = "",
            inputs: _Names = (),
        ) -> None: ...

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
        """The shape of the output, from the inputs' shapes.

        Parameters
        ----------
        shapes : sequence of tuple of int
            The shapes of the inputs, without the batch, in the order of `inputs`.

        Returns
        -------
        tuple of int
            ``(channels, height, width)`` or ``(features,)``.

        Raises
        ------
        NetworkError
            If the shapes do not fit.
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
        "constant": the value is a current, the same at every step (Deng & Gu 2021, section 5).
        "poisson": values in [0, 1] are firing probabilities per step; a seeded generator draws the spikes.
        "events": samples are spike trains ``(n_steps, *shape)`` of 0 and 1.
    source_shape : tuple of int, optional
        The shape of a sample as the trained model reads it, if that is another, such as
        ``(height, width, channels)``. Runs take samples of both shapes.
    source_axes : tuple of int, optional
        The axes of `source_shape` in the order of `shape`, ``(2, 0, 1)`` in this case. None: they are in
        order, and only the shape differs.
    name, inputs
        As for `Layer`.

    Examples
    --------
    >>> evsnn.Input((1, 28, 28)).encoding
    'constant'
    >>> last = evsnn.Input((3, 8, 9), source_shape=(8, 9, 3), source_axes=(2, 0, 1))
    >>> last.arranged(np.zeros((5, 8, 9, 3))).shape
    (5, 3, 8, 9)
    """

    shape: Shape = ()
    encoding: str = "constant"
    source_shape: Shape | None = None
    source_axes: tuple[int, ...] | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            shape: int | Sequence[int] = (),
            encoding: str = "constant",
            source_shape: Sequence[int] | None = None,
            source_axes: Sequence[int] | None = None,
            *,
            name: str = "",
            inputs: _Names = (),
        ) -> None: ...

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
        if self.source_shape is not None:
            self._check_source(tuple(self.source_shape), self.source_axes)
        elif self.source_axes is not None:
            raise NetworkError("source_axes are those of a source_shape", where=self._where, got="none")

    def _check_source(self, shape: Sequence[int], axes: Sequence[int] | None) -> None:
        shape = _integers(shape, len(shape), self._where, "source_shape", 1)
        if axes is not None:
            axes = _integers(tuple(axes), len(shape), self._where, "source_axes", 0)
            if sorted(axes) != list(range(len(shape))):
                raise NetworkError(
                    "source_axes are no order of the axes",
                    where=self._where,
                    got=axes,
                    expected=f"0 to {len(shape) - 1}, each once",
                )
        if prod(shape) != prod(self.shape):
            raise NetworkError(
                "source_shape has another number of values",
                where=self._where,
                got=f"{shape}: {prod(shape)}",
                expected=f"{self.shape}: {prod(self.shape)}",
            )
        self._set(source_shape=shape, source_axes=axes)

    def arranged(self, samples: np.ndarray) -> np.ndarray:
        """Samples of the trained model in the network's own shape and order.

        Parameters
        ----------
        samples : (n, *source_shape) array

        Returns
        -------
        (n, *shape) array
            A view if that is possible.
        """
        if self.source_axes is not None:
            samples = samples.transpose(0, *(1 + axis for axis in self.source_axes))
        return samples.reshape(len(samples), *self.shape)

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        return self.shape


class _Weighted:
    """What layers with weights share."""

    weight: np.ndarray

    @cached_property
    def largest_weight(self) -> float:
        """The largest magnitude of a weight."""
        return max(float(self.weight.max()), -float(self.weight.min()))


@dataclass(frozen=True, eq=False)
class Conv2d(_Weighted, Layer):
    """2-D cross-correlation, as in every deep-learning library.

    Parameters
    ----------
    weight : (n_out, n_in / groups, kernel_height, kernel_width) float32
        The ANN's weights, finite.
    bias : (n_out,) float32, optional
        A current that is added at every step, in units of the ANN's activations.
    stride : int or (vertical, horizontal)
        The distance between neighbouring outputs, at least 1.
    padding : int, (vertical, horizontal) or (top, left, bottom, right)
        Zeros around the map, at least 0.
    dilation : int or (vertical, horizontal)
        The distance between neighbouring kernel positions, at least 1.
    groups : int
        Output group g reads input group g alone; ``groups == n_in`` is a depthwise convolution.
    name, inputs
        As for `Layer`.

    Examples
    --------
    >>> evsnn.Conv2d(np.ones((8, 1, 3, 3)), padding=1).output_shape([(1, 28, 28)])
    (8, 28, 28)
    """

    weight: np.ndarray = field(default=None, repr=False)  # type: ignore[arg-type]  # refused by `_check`
    bias: np.ndarray | None = field(default=None, repr=False)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    if TYPE_CHECKING:

        def __init__(
            self,
            weight: ArrayLike,
            bias: ArrayLike | None = None,
            stride: _Pair = 1,
            padding: _Padding = 0,
            dilation: _Pair = 1,
            groups: int = 1,
            *,
            name: str = "",
            inputs: _Names = (),
        ) -> None: ...

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
        """The `Window` that slides over the map."""
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
class Linear(_Weighted, Layer):
    """A fully connected layer.

    Parameters
    ----------
    weight : (n_out, n_in) float32
        The ANN's weights, finite. Behind a `Flatten` of a map, columns are in (channel, y, x) order.
    bias : (n_out,) float32, optional
        A current that is added at every step, in units of the ANN's activations.
    name, inputs
        As for `Layer`.

    Examples
    --------
    >>> evsnn.Linear(np.ones((10, 64)), bias=np.zeros(10)).output_shape([(64,)])
    (10,)
    """

    weight: np.ndarray = field(default=None, repr=False)  # type: ignore[arg-type]  # refused by `_check`
    bias: np.ndarray | None = field(default=None, repr=False)

    if TYPE_CHECKING:

        def __init__(
            self,
            weight: ArrayLike,
            bias: ArrayLike | None = None,
            *,
            name: str = "",
            inputs: _Names = (),
        ) -> None: ...

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
    name, inputs
        As for `Layer`.

    Examples
    --------
    >>> evsnn.AvgPool2d(2).output_shape([(8, 28, 28)])
    (8, 14, 14)
    >>> evsnn.AvgPool2d().output_shape([(8, 28, 28)])
    (8, 1, 1)
    """

    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    if TYPE_CHECKING:

        def __init__(
            self,
            kernel: _Pair | None = None,
            stride: _Pair | None = None,
            padding: _Padding = 0,
            *,
            name: str = "",
            inputs: _Names = (),
        ) -> None: ...

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
        if kernel:
            _check_pool(kernel, padding, where)
        self._set(kernel=kernel, stride=stride, padding=padding)

    def window(self, shape: Shape) -> Window:
        """The `Window` that slides over a map.

        Parameters
        ----------
        shape : (channels, height, width)
            Of the map; it decides the kernel of a global pool.

        Returns
        -------
        Window
        """
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

    So at every step its count is the largest count of the window, and its amplitude is that of the inputs.
    It has counters, but no membrane, threshold or weights.

    Parameters
    ----------
    kernel : int or (vertical, horizontal)
    stride : int or pair, optional
        None: the kernel's.
    padding : int, (vertical, horizontal) or (top, left, bottom, right)
        Padded positions never send a spike. Smaller than the kernel.
    name, inputs
        As for `Layer`.

    Examples
    --------
    >>> evsnn.MaxPool2d(3, stride=2, padding=1).output_shape([(8, 28, 28)])
    (8, 14, 14)
    """

    kernel: tuple[int, int] = (2, 2)
    stride: tuple[int, int] | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    if TYPE_CHECKING:

        def __init__(
            self,
            kernel: _Pair = 2,
            stride: _Pair | None = None,
            padding: _Padding = 0,
            *,
            name: str = "",
            inputs: _Names = (),
        ) -> None: ...

    kind = "maxpool2d"

    def _check(self) -> None:
        where = self._where
        kernel = _pair(self.kernel, where, "kernel", 1)
        stride = kernel if self.stride is None else _pair(self.stride, where, "stride", 1)
        padding = _padding(self.padding, where)
        _check_pool(kernel, padding, where)
        self._set(kernel=kernel, stride=stride, padding=padding)

    @property
    def window(self) -> Window:
        """The `Window` of spikes whose counts are compared."""
        return Window(self.kernel, self.stride or self.kernel, self.padding)

    def output_shape(self, shapes: Sequence[Shape]) -> tuple[int, int, int]:
        shape = self._map(shapes[0])
        return (shape[0], *sized(self.window, shape[1:], self._where))


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """A map (channels, height, width) as a vector, in that order.

    Parameters
    ----------
    name, inputs
        As for `Layer`.

    Examples
    --------
    >>> evsnn.Flatten().output_shape([(8, 14, 14)])
    (1568,)
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str = "",
            inputs: _Names = (),
        ) -> None: ...

    kind = "flatten"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        return (int(np.prod(shapes[0], dtype=np.int64)),)


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """Sum of any number of branches of one shape: a residual connection.

    A branch is a current (behind a `Conv2d` or `Linear`) or spikes (an identity shortcut). The neurons behind
    the sum integrate all branches.

    Parameters
    ----------
    name, inputs
        As for `Layer`.

    Examples
    --------
    >>> evsnn.Add(inputs=("b", "a")).output_shape([(8, 28, 28), (8, 28, 28)])
    (8, 28, 28)
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str = "",
            inputs: _Names = (),
        ) -> None: ...

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
    """Spike sources side by side: along the channels for maps, along the features for vectors.

    Parameters
    ----------
    name, inputs
        As for `Layer`.

    Examples
    --------
    >>> evsnn.Concat(inputs=("a", "b")).output_shape([(8, 14, 14), (4, 14, 14)])
    (12, 14, 14)
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str = "",
            inputs: _Names = (),
        ) -> None: ...

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
    """Integrate-and-fire neurons with soft reset (Deng & Gu 2021, eq. 3-4)::

        v += I + shift;    s = 1 if v >= v_threshold else 0;    v -= v_threshold * s

    Parameters
    ----------
    v_threshold : float, (channels,) or (2, channels) float32
        Firing threshold and spike amplitude, above 0, in units of the ANN's activations. (2, channels) is for
        pairs (`negative_slope`): of the neurons for values above 0, then of those below.
    v_init : float, (channels,) or (2, channels) float32
        The membrane before the first step.
    leak : float in [0, 1]
        The share of the membrane that is kept from step to step; 1 is no leak.
    shift : bool
        Whether the network's shift applies here.
    negative_threshold : float in [0, 65536]
        theta of negative (correction) spikes; 0: there are none. n is the neuron's net count: its spikes so
        far less its negative ones. A neuron that does not fire in a step, with v < -theta v_threshold and
        n > 0, sends a spike of amplitude -v_threshold, and v += v_threshold.
    warm_up_steps : int in [0, 65536]
        d, the steps of input that a neuron integrates before it first may fire. Output step t is what the
        neuron fires after input step t + d. When the T steps of input are over, the last d output steps
        follow without input. If d is above T, it is T.
    negative_slope : float or (channels,) float32, optional
        Values of both signs, as of a LeakyReLU of this slope (1: of no ReLU at all). There are two neurons
        for each value: one integrates the current I, the other -I; each has the shift, and a threshold and a
        first membrane of its own. Layers behind read the output of the first less the slope times that of
        the second. None: one neuron for each value, which is never below 0.
    levels : int in [1, 255], optional
        The largest count of a graded spike. None: T. Steps have no use for it.
    name, inputs
        As for `Layer`.

    Examples
    --------
    >>> evsnn.IF(v_threshold=[1.0, 1.5], negative_threshold=0.25).output_shape([(2, 14, 14)])
    (2, 14, 14)
    """

    v_threshold: np.ndarray = field(default=1.0, repr=False)  # type: ignore[arg-type]  # `_check` makes
    v_init: np.ndarray = field(default=0.0, repr=False)  # type: ignore[arg-type]  # an array of it
    leak: float = 1.0
    shift: bool = True
    negative_threshold: float = 0.0
    warm_up_steps: int = 0
    negative_slope: np.ndarray | None = field(default=None, repr=False)
    levels: int | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            v_threshold: ArrayLike = 1.0,
            v_init: ArrayLike = 0.0,
            leak: float = 1.0,
            shift: bool = True,
            negative_threshold: float = 0.0,
            warm_up_steps: int = 0,
            negative_slope: ArrayLike | None = None,
            levels: int | None = None,
            *,
            name: str = "",
            inputs: _Names = (),
        ) -> None: ...

    kind = "if"

    @property
    def paired(self) -> bool:
        """Whether there are two neurons for each value."""
        return self.negative_slope is not None

    def _check(self) -> None:
        threshold = _array(self.v_threshold, self._where, "v_threshold", (0, 1, 2))
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
        if self.levels is not None:
            (levels,) = _integers((self.levels,), 1, self._where, "levels", 1)
            if levels > 255:
                raise NetworkError(
                    "levels is out of range", where=self._where, got=levels, expected="1 to 255"
                )
            self._set(levels=levels)
        self._set(
            v_threshold=threshold,
            v_init=_array(self.v_init, self._where, "v_init", (0, 1, 2)),
            leak=leak,
            shift=bool(self.shift),
            negative_threshold=negative_threshold,
            warm_up_steps=warm_up_steps,
            negative_slope=(
                None
                if self.negative_slope is None
                else _array(self.negative_slope, self._where, "negative_slope", (0, 1))
            ),
        )

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        channels = shapes[0][0]
        for what in ("v_threshold", "v_init", "negative_slope"):
            values = getattr(self, what)
            if values is None or values.shape in ((), (channels,)):
                continue
            if values.ndim == 2 and not self.paired:
                raise NetworkError(
                    f"{what} is for pairs of neurons",
                    where=self._where,
                    got=f"shape {values.shape}, but no negative_slope",
                    expected=f"1 value or {channels}, one per channel",
                )
            if values.shape != (2, channels):
                pairs = f", or (2, {channels}), one per neuron" if values.ndim == 2 else ""
                raise NetworkError(
                    f"{what} and input do not fit",
                    where=self._where,
                    got=f"shape {values.shape}" if values.ndim == 2 else f"{values.shape[0]} values",
                    expected=f"1 or {channels}, one per channel{pairs}",
                )
        return shapes[0]

    def per_neuron(self, values: np.ndarray, channels: int) -> np.ndarray:
        """Thresholds or first membranes as one value for each neuron of a position.

        Parameters
        ----------
        values : (), (channels,) or (2, channels)
        channels : int
            Of the layer.

        Returns
        -------
        (channels,), or of pairs (2 channels,) with the two of a channel side by side
        """
        if not self.paired:
            return np.broadcast_to(values, (channels,))
        return np.ascontiguousarray(np.broadcast_to(values, (2, channels)).T).reshape(-1)


@dataclass(frozen=True, eq=False)
class Readout(Layer):
    """The network's output: a vector (one score per class if the task is to classify), or a map.

    Behind currents it integrates and never fires: the output is the membrane divided by T (the network's
    readout is "membrane"). Behind an `IF` the output is the sum of emitted amplitudes divided by T (readout
    "spikes", as the authors of Deng & Gu 2021 do). A map of one position is a vector of its channels.

    Parameters
    ----------
    name, inputs
        As for `Layer`.

    Examples
    --------
    >>> evsnn.Readout().output_shape([(10, 1, 1)]), evsnn.Readout().output_shape([(3, 28, 28)])
    ((10,), (3, 28, 28))
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str = "",
            inputs: _Names = (),
        ) -> None: ...

    kind = "readout"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        (shape,) = shapes
        return (shape[0],) if tuple(shape[1:]) in ((), (1, 1)) else tuple(shape)


KINDS: Mapping[str, type[Layer]] = {
    c.kind: c for c in (Input, Conv2d, Linear, AvgPool2d, MaxPool2d, Flatten, Add, Concat, IF, Readout)
}


def checked_bias(bias: object, n_out: int, where: str) -> np.ndarray | None:
    """The bias of a layer in its one form, (n_out,) read-only float32; None if there is none."""
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
    """Output height and width of a window on a map of `size`; an error if no window fits."""
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
