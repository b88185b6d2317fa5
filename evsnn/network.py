"""The network: frozen layers in ANN units, joined into a graph without loops.

A `Network` says what is computed and nothing about how. Layers are listed in an order in which each
comes after its inputs; shapes follow from the input's, and whatever does not fit is refused here,
so that everything below works on networks that are right.

Between two `IF` layers stands a linear expression: `Conv2d` and `Linear` (one on each path at most),
`AvgPool2d`, `Flatten`, `Concat` and `Add`. An `IF` charges its membranes with that expression and
sends spikes of amplitude ``v_threshold``. Shapes are without the batch: ``(channels, height, width)``
for maps, ``(features,)`` for vectors.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .errors import NetworkError

__all__ = [
    "Add", "AvgPool2d", "Concat", "Conv2d", "ENCODINGS", "Flatten", "IF", "Input", "KINDS", "Layer", "Linear",
    "MAX_STEPS", "Network", "READOUTS", "Readout", "SHIFTS", "Samples",
]  # fmt: skip

ENCODINGS = ("constant", "poisson", "events")
SHIFTS = ("bias", "initial", "none")
READOUTS = ("membrane", "spikes")
MAX_STEPS = 65_536
MAX_LAYERS = 4_096
MAX_NEURONS = 1 << 31
_NAME = re.compile(r"[!-~]{1,128}")

Shape = tuple[int, ...]


def _pair(value, where: str, what: str, least: int) -> tuple[int, int]:
    """One positive integer or two of them, as a (vertical, horizontal) pair."""
    values = value if isinstance(value, (tuple, list, np.ndarray)) else (value, value)
    return _integers(values, 2, where, what, least)


def _integers(values, count: int, where: str, what: str, least: int) -> tuple[int, ...]:
    try:
        integers = tuple(int(v) for v in values)
        right = len(integers) == count and all(i == v and least <= i < 1 << 24 for i, v in zip(integers, values))
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        raise NetworkError(f"{what} is not usable", where=where, got=values, expected=f"{count} integers >= {least}")
    return integers


def _padding(value, where: str) -> tuple[int, int, int, int]:
    """An integer, (vertical, horizontal) or (top, left, bottom, right), as the last."""
    values = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value, value)
    return _integers(values * 2 if len(values) == 2 else values, 4, where, "padding", 0)


def _array(value, where: str, what: str, ranks: Sequence[int]) -> np.ndarray:
    """A finite, read-only, C-ordered float32 copy of `value`."""
    try:
        array = np.array(value, dtype=np.float32, order="C")
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{what} is not an array of numbers", where=where, got=type(value).__name__) from error
    if array.ndim not in ranks:
        raise NetworkError(f"{what} has the wrong rank", where=where, got=f"shape {array.shape}", expected=f"{' or '.join(map(str, ranks))} dimensions")
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

    def __post_init__(self):
        inputs = (self.inputs,) if isinstance(self.inputs, str) else tuple(self.inputs)
        object.__setattr__(self, "inputs", inputs)
        for name in (*inputs, *([self.name] if self.name else [])):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise NetworkError("a layer's name is not usable", where=self._where, got=repr(name)[:80], expected="1 to 128 printable ASCII characters, no spaces")
        self._check()

    @property
    def _where(self) -> str:
        return f"layer {self.name!r}"[:140] if self.name else f"a {self.kind} layer"

    def _check(self) -> None:
        """Bring the fields into their one form, or refuse them."""

    def _set(self, **fields) -> None:
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
            raise NetworkError(f"{self.kind} reads a map", where=self._where, got=f"shape {shape}", expected="(channels, height, width)")
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

    def _check(self):
        shape = tuple(self.shape) if isinstance(self.shape, (tuple, list, np.ndarray)) else (self.shape,)
        if len(shape) not in (1, 3):
            raise NetworkError("an input is a map or a vector", where=self._where, got=f"shape {shape}", expected="(channels, height, width) or (features,)")
        self._set(shape=_integers(shape, len(shape), self._where, "shape", 1))
        if self.encoding not in ENCODINGS:
            raise NetworkError("unknown input encoding", where=self._where, got=repr(self.encoding), expected=" or ".join(ENCODINGS))

    def output_shape(self, shapes):
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

    weight: np.ndarray = field(default=None, repr=False)
    bias: np.ndarray | None = field(default=None, repr=False)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    kind = "conv2d"

    def _check(self):
        where = self._where
        weight = _array(self.weight, where, "weight", (4,))
        bias = None if self.bias is None else _array(self.bias, where, "bias", (1,))
        (groups,) = _integers((self.groups,), 1, where, "groups", 1)
        if weight.shape[0] % groups:
            raise NetworkError("groups do not divide the output channels", where=where, got=f"{groups} groups, {weight.shape[0]} channels")
        _check_bias(bias, weight, where)
        self._set(
            weight=weight, bias=bias, groups=groups, stride=_pair(self.stride, where, "stride", 1),
            padding=_padding(self.padding, where), dilation=_pair(self.dilation, where, "dilation", 1),
        )  # fmt: skip

    def output_shape(self, shapes):
        channels, *size = self._map(shapes[0])
        n_out, n_in, *kernel = self.weight.shape
        if n_in * self.groups != channels:
            raise NetworkError(
                "weight and input do not fit", where=self._where, got=f"weight {self.weight.shape} with groups={self.groups} on {channels} channels",
                expected=f"a weight of ({n_out}, {channels // self.groups if channels % self.groups == 0 else f'{channels}/{self.groups}'}, ...)",
            )  # fmt: skip
        return (n_out, *_windows(size, kernel, self.stride, self.padding, self.dilation, self._where))


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

    weight: np.ndarray = field(default=None, repr=False)
    bias: np.ndarray | None = field(default=None, repr=False)

    kind = "linear"

    def _check(self):
        weight = _array(self.weight, self._where, "weight", (2,))
        bias = None if self.bias is None else _array(self.bias, self._where, "bias", (1,))
        _check_bias(bias, weight, self._where)
        self._set(weight=weight, bias=bias)

    def output_shape(self, shapes):
        (shape,) = shapes
        if len(shape) != 1:
            raise NetworkError("linear reads a vector", where=self._where, got=f"shape {shape}", expected="(features,)", hint="put a Flatten before it")
        if shape[0] != self.weight.shape[1]:
            raise NetworkError("weight and input do not fit", where=self._where, got=f"{shape[0]} features", expected=f"{self.weight.shape[1]}")
        return (self.weight.shape[0],)


@dataclass(frozen=True, eq=False)
class AvgPool2d(Layer):
    """Average pooling: linear, without neurons, folded into the synapse behind it.

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

    def _check(self):
        where = self._where
        kernel = None if self.kernel is None else _pair(self.kernel, where, "kernel", 1)
        stride = kernel if self.stride is None else _pair(self.stride, where, "stride", 1)
        padding = _padding(self.padding, where)
        if kernel is None and (self.stride is not None or any(padding)):
            raise NetworkError("global pooling takes neither stride nor padding", where=where, hint="name a kernel")
        if kernel and kernel[0] * kernel[1] > 65_535:
            raise NetworkError("the pooling window is too large", where=where, got=kernel, expected="an area <= 65535")
        if kernel and any(p >= k for p, k in zip(padding, kernel * 2)):
            raise NetworkError("padding reaches the kernel", where=where, got=f"padding {padding}, kernel {kernel}")
        self._set(kernel=kernel, stride=stride, padding=padding)

    def window(self, shape: Shape) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
        """Kernel, stride and padding on a map of `shape`."""
        if self.kernel is None:
            return shape[1:], shape[1:], (0, 0, 0, 0)
        return self.kernel, self.stride, self.padding

    def output_shape(self, shapes):
        shape = self._map(shapes[0])
        kernel, stride, padding = self.window(shape)
        if kernel[0] * kernel[1] > 65_535:
            raise NetworkError("the pooling window is too large", where=self._where, got=kernel, expected="an area <= 65535")
        return (shape[0], *_windows(shape[1:], kernel, stride, padding, (1, 1), self._where))


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """A map (channels, height, width) as a vector, in that order."""

    kind = "flatten"

    def output_shape(self, shapes):
        return (int(np.prod(shapes[0], dtype=np.int64)),)


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """Sum of any number of branches of one shape: a residual connection.

    Branches are currents (behind a Conv2d or Linear) or spikes (an identity shortcut); all of them
    charge the one membrane behind it.
    """

    kind = "add"
    arity = (1, 256)

    def output_shape(self, shapes):
        if len(set(shapes)) != 1:
            raise NetworkError("branches of a sum differ in shape", where=self._where, got=", ".join(map(str, shapes)), expected="one shape")
        return shapes[0]


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """Spike sources side by side: along the channels for maps, along the features for vectors."""

    kind = "concat"
    arity = (1, 256)

    def output_shape(self, shapes):
        if len({(len(s), s[1:]) for s in shapes}) != 1:
            raise NetworkError("concatenated inputs differ in size", where=self._where, got=", ".join(map(str, shapes)), expected="one height and width")
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
    """

    v_threshold: np.ndarray = field(default=1.0, repr=False)
    v_init: np.ndarray = field(default=0.0, repr=False)
    leak: float = 1.0
    shift: bool = True

    kind = "if"

    def _check(self):
        threshold = _array(self.v_threshold, self._where, "v_threshold", (0, 1))
        if not (threshold >= np.finfo(np.float32).tiny).all():
            raise NetworkError("v_threshold is not positive", where=self._where, got=f"minimum {threshold.min()}", expected="> 0 for every neuron")
        try:
            leak = float(np.float32(self.leak))
        except (TypeError, ValueError):
            leak = -1.0
        if not 0 <= leak <= 1:
            raise NetworkError("leak is out of range", where=self._where, got=self.leak, expected="0 to 1")
        self._set(v_threshold=threshold, v_init=_array(self.v_init, self._where, "v_init", (0, 1)), leak=leak, shift=bool(self.shift))

    def output_shape(self, shapes):
        for what in ("v_threshold", "v_init"):
            values = getattr(self, what)
            if values.ndim and values.shape[0] != shapes[0][0]:
                raise NetworkError(f"{what} and input do not fit", where=self._where, got=f"{values.shape[0]} values", expected=f"1 or {shapes[0][0]}, one a channel")
        return shapes[0]


@dataclass(frozen=True, eq=False)
class Readout(Layer):
    """The network's output, one score a class.

    Behind currents it integrates and never fires (readout "membrane"); behind an `IF` it sums the
    emitted amplitudes (readout "spikes", as the paper's authors do).
    """

    kind = "readout"

    def output_shape(self, shapes):
        if len(shapes[0]) != 1 and shapes[0][1:] != (1, 1):
            raise NetworkError("the readout is not a vector", where=self._where, got=f"shape {shapes[0]}", expected="(classes,)", hint="put a Flatten or a global AvgPool2d before it")
        return (shapes[0][0],)


KINDS: Mapping[str, type[Layer]] = {c.kind: c for c in (Input, Conv2d, Linear, AvgPool2d, Flatten, Add, Concat, IF, Readout)}


@dataclass(frozen=True, eq=False)
class Samples:
    """A few inputs that travel with a network.

    Parameters
    ----------
    images : (n, *input_shape) float32
    labels : (n,) int64, optional
    """

    images: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """A spiking network: layers in order, and how it is meant to be run.

    Parameters
    ----------
    layers : sequence of Layer
        One `Input` first, one `Readout` last, each layer after its inputs.
    n_steps : int
        The number of time steps T the network is meant for, 1 to 65536.
    shift : {"bias", "initial", "none"}
        The charge of V_th/2 that centres the quantisation error (Deng & Gu 2021, section 3.2): V_th/2T
        at each step, V_th/2 before the first, or none. Never at the readout.
    readout : {"membrane", "spikes"}
        See `Readout`.
    input_range : (float, float), optional
        Smallest and largest input value; integer arithmetic scales inputs by it.
    classes : tuple of str
        Names of the classes, for people.
    metadata : mapping of str to str, int or float
        Provenance: where it came from, how accurate it is.
    samples : Samples, optional

    Raises
    ------
    NetworkError
        If the layers do not form a network that can run; the message names the layer.
    """

    layers: tuple[Layer, ...]
    n_steps: int = 32
    shift: str = "bias"
    readout: str = "membrane"
    input_range: tuple[float, float] | None = None
    classes: tuple[str, ...] = ()
    metadata: Mapping[str, str | int | float] = field(default_factory=dict)
    samples: Samples | None = field(default=None, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "layers", _named(self.layers))
        object.__setattr__(self, "classes", tuple(str(c) for c in self.classes))
        for what, allowed in (("shift", SHIFTS), ("readout", READOUTS)):
            if getattr(self, what) not in allowed:
                raise NetworkError(f"unknown {what}", got=repr(getattr(self, what)), expected=" or ".join(allowed))
        check_steps(self.n_steps, NetworkError)
        if self.input_range is not None:
            low, high = (float(v) for v in self.input_range)
            if not (np.isfinite([low, high]).all() and low < high):
                raise NetworkError("input_range is not a range", got=self.input_range, expected="(smallest, largest), finite")
            object.__setattr__(self, "input_range", (low, high))
        self._check_graph()
        if self.classes and len(self.classes) != self.shapes[self.layers[-1].name][0]:
            raise NetworkError("classes and readout do not fit", got=f"{len(self.classes)} names", expected=self.shapes[self.layers[-1].name][0])

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Output shape of every layer, by name."""
        shapes: dict[str, Shape] = {}
        for layer in self.layers:
            shape = layer.output_shape([shapes[name] for name in layer.inputs])
            if np.prod(shape, dtype=object) > MAX_NEURONS:
                raise NetworkError("the layer is too large", where=layer._where, got=f"shape {shape}", expected=f"at most {MAX_NEURONS} elements")
            shapes[layer.name] = shape
        return shapes

    @cached_property
    def by_name(self) -> Mapping[str, Layer]:
        """Layers by name."""
        return {layer.name: layer for layer in self.layers}

    @property
    def input(self) -> Input:
        return self.layers[0]

    @property
    def input_shape(self) -> Shape:
        return self.layers[0].shape

    @property
    def n_classes(self) -> int:
        return self.shapes[self.layers[-1].name][0]

    def replace(self, **changes) -> Network:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def _check_graph(self) -> None:
        """Who may feed whom: see the module's docstring."""
        self.shapes  # noqa: B018 - computing them checks that they fit
        carries: dict[str, str] = {}  # what a layer's output is: "spikes", "input" (analog), "current"
        used: set[str] = set()
        for layer in self.layers:
            fed = [carries[name] for name in layer.inputs]
            used.update(layer.inputs)
            if isinstance(layer, (Conv2d, Linear)) and "current" in fed:
                raise NetworkError("two weighted layers with no IF between them", where=layer._where, got=f"input from {layer.inputs[0]!r}", hint="put an IF between them, or multiply their weights")
            if isinstance(layer, Concat) and "current" in fed:
                raise NetworkError("concat joins spikes, not currents", where=layer._where, hint="put an IF on each branch")
            if isinstance(layer, Concat) and len(set(fed)) > 1:
                raise NetworkError("concat joins spikes with the analog input", where=layer._where, hint="put an IF on the input's branch")
            if isinstance(layer, AvgPool2d) and "current" in fed:
                raise NetworkError("a pool reads spikes, not currents", where=layer._where, got=f"input from {layer.inputs[0]!r}", hint="put an IF before it, or the pool before the weighted layer")
            if isinstance(layer, Input):
                carries[layer.name] = "input" if layer.encoding == "constant" else "spikes"
            elif isinstance(layer, IF):
                carries[layer.name] = "spikes"
            elif isinstance(layer, (Conv2d, Linear, Add)):
                carries[layer.name] = "current"
            else:
                carries[layer.name] = fed[0]
        readout = self.layers[-1]
        if self.readout == "spikes" and not isinstance(self.by_name[readout.inputs[0]], IF):
            raise NetworkError("readout 'spikes' needs an IF before it", where=readout._where, got=f"input from {readout.inputs[0]!r}")
        if self.readout == "membrane" and carries[readout.inputs[0]] != "current":
            raise NetworkError("readout 'membrane' needs a weighted layer before it", where=readout._where, got=f"input from {readout.inputs[0]!r}", hint="remove the last IF, or use readout='spikes'")
        unused = [layer.name for layer in self.layers[:-1] if layer.name not in used]
        if unused:
            raise NetworkError("a layer leads nowhere", where=f"layer {unused[0]!r}", hint="remove it, or connect it")


def check_steps(n_steps: int, error: type[Exception]) -> int:
    """`n_steps` as an int from 1 to `MAX_STEPS`, else `error`."""
    if isinstance(n_steps, bool) or not isinstance(n_steps, (int, np.integer)) or not 1 <= n_steps <= MAX_STEPS:
        raise error("n_steps is out of range", got=n_steps, expected=f"an integer from 1 to {MAX_STEPS}")
    return int(n_steps)


def _check_bias(bias: np.ndarray | None, weight: np.ndarray, where: str) -> None:
    if bias is not None and bias.shape[0] != weight.shape[0]:
        raise NetworkError("bias and weight do not fit", where=where, got=f"{bias.shape[0]} biases", expected=f"{weight.shape[0]}, one an output channel")


def _windows(size, kernel, stride, padding, dilation, where) -> tuple[int, int]:
    """Output height and width of a sliding window."""
    out = []
    for n, k, s, d, before, after in zip(size, kernel, stride, dilation, padding[:2], padding[2:]):
        reach = (k - 1) * d + 1
        if n + before + after < reach:
            raise NetworkError("the kernel is larger than its padded input", where=where, got=f"kernel reach {reach} on {n} + {before} + {after}")
        out.append((n + before + after - reach) // s + 1)
    return tuple(out)


def _named(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Layers with every name and input filled in, checked for order and arity."""
    layers = tuple(layers)
    if not all(isinstance(layer, Layer) for layer in layers):
        raise NetworkError("layers are not all layers", got=", ".join(type(x).__name__ for x in layers)[:120])
    if not 2 <= len(layers) <= MAX_LAYERS:
        raise NetworkError("a network has an input and a readout", got=f"{len(layers)} layers", expected=f"2 to {MAX_LAYERS}")
    if not isinstance(layers[0], Input) or not isinstance(layers[-1], Readout):
        raise NetworkError("a network starts with an input and ends with a readout", got=f"{layers[0].kind} ... {layers[-1].kind}")
    taken = {layer.name for layer in layers}
    counts: dict[str, int] = {}
    named: list[Layer] = []
    seen: set[str] = set()
    for layer in layers:
        name, inputs = layer.name, layer.inputs
        while not name or (not layer.name and name in taken):
            counts[layer.kind] = counts.get(layer.kind, 0) + 1
            name = f"{layer.kind}{counts[layer.kind]}"
        if name in seen:
            raise NetworkError("two layers have one name", where=f"layer {name!r}")
        if not inputs and not isinstance(layer, Input):
            inputs = (named[-1].name,)
        if (name, inputs) != (layer.name, layer.inputs):
            layer = dataclasses.replace(layer, name=name, inputs=inputs)
        least, most = layer.arity
        if not least <= len(inputs) <= most:
            raise NetworkError("the layer has the wrong number of inputs", where=layer._where, got=len(inputs), expected=least if least == most else f"{least} to {most}")
        for source in inputs:
            if source not in seen:
                known = "itself or a later layer" if source in taken or source == name else "no layer of that name"
                raise NetworkError("an input is not an earlier layer", where=layer._where, got=f"{source!r}, {known}", expected="the name of a layer listed before it")
        if named and isinstance(layer, Input):
            raise NetworkError("a network has one input", where=layer._where)
        if any(isinstance(n, Readout) for n in named):
            raise NetworkError("a network has one readout, its last layer", where=layer._where)
        seen.add(name)
        named.append(layer)
    return tuple(named)
