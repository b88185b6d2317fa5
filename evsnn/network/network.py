"""The network: layers joined into a graph without loops.

A `Network` says what is computed and nothing about how. Layers are listed in an order in which each
comes after its inputs. Shapes follow from the shape of the input. What does not fit is refused here, so that
all other modules work on networks that are valid.

Between two `IF` layers stands a linear expression: `Conv2d` and `Linear` (one on each path at most),
`AvgPool2d`, `Flatten`, `Concat` and `Add`. The neurons of an `IF` integrate that expression and send spikes
of amplitude ``v_threshold``. A `MaxPool2d` reads spikes, and sends some of them on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import EvsnnError, NetworkError, RunError
from .layers import IF, Add, AvgPool2d, Concat, Conv2d, Input, Layer, Linear, MaxPool2d, Readout, Shape
from .ranges import largest_input
from .reading import TASKS, n_classes_of
from .step_parameters import ReadOnly, StepParameters, with_step_parameters

__all__ = [
    "MAX_STEPS",
    "Network",
    "READOUTS",
    "SHIFTS",
    "Samples",
    "check_steps",
    "checked_range",
    "step_parameters_where",
]

SHIFTS = ("bias", "initial", "none")
READOUTS = ("membrane", "spikes")
MAX_STEPS = 65_536
CODINGS = ("steps", "graded")
MAX_GRADED_STEPS = 255
"""Most levels T of graded spikes: a count is a byte."""
_PARAMETERS = {"steps": "step_parameters", "graded": "graded_parameters"}
_MOST_STEPS = {"steps": MAX_STEPS, "graded": MAX_GRADED_STEPS}
MAX_LAYERS = 4_096
MAX_NEURONS = 1 << 31

_UNSIGNED = frozenset({False})


@dataclass(frozen=True, eq=False)
class Samples:
    """A few inputs that travel with a network.

    Parameters
    ----------
    images : (n, *input_shape) float32
        In the network's own scale; if the input reads events, (n, n_steps, *input_shape).
    labels : (n,) int64, optional
        Classes, from 0 to n_classes - 1.

    Examples
    --------
    >>> net.replace(samples=evsnn.Samples(images[:2])).samples.images.shape == images[:2].shape
    True
    """

    images: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """A spiking network: layers in order, and how it is meant to be run.

    Parameters
    ----------
    layers : sequence of Layer
        One `Input` first, each layer after its inputs, and last the `Readout` of each output.
    n_steps : int
        The number of time steps T the network is meant for, 1 to 65536.
    shift : {"bias", "initial", "none"}
        The current of V_th/2 per run that centres the quantization error (Deng & Gu 2021, section 3.2):
        V_th/2T at each step, V_th/2 before the first step, or none. It applies to each `IF` with
        ``shift=True``; readouts have none. A conversion sets it; a network made by hand starts without.
    readout : {"membrane", "spikes"}
        See `Readout`.
    input_range : (float, float), optional
        Smallest and largest input value; integer arithmetic scales inputs by it.
    classes : tuple of str
        Names of the classes, for people; if outputs are values, names of the values.
    metadata : mapping of str to str, int or float
        Provenance: where the network came from, how accurate it is.
    samples : Samples, optional
        A few inputs, for runs without a file of inputs.
    step_parameters : mapping of int to mapping of str to StepParameters
        T -> layer's name -> what stands in for the layer's own parameters in runs of T steps. It is kept
        read-only and in order; see `at`.
    task : {"classify", "regress", "none"}
        How the first output is read: as scores of classes, of which the largest is the prediction (one score
        alone is that of class 1 against class 0, with its boundary at 0); as values; or not at all. A map is
        never scores of classes.
    coding : {"steps", "graded"}
        How it is run if a run says nothing: see `evsnn.simulate`.
    graded_parameters : mapping of int to mapping of str to StepParameters
        As `step_parameters`, for runs of graded spikes with T levels, at most 255.

    Raises
    ------
    NetworkError
        If the layers do not form a network that can run; the message names the layer.

    Examples
    --------
    >>> small = evsnn.Network(
    ...     [
    ...         evsnn.Input((4,)),
    ...         evsnn.Linear(np.eye(4)),
    ...         evsnn.IF(v_threshold=1.0),
    ...         evsnn.Linear(np.ones((2, 4))),
    ...         evsnn.Readout(),
    ...     ],
    ...     n_steps=8,
    ... )
    >>> small.n_classes, small.by_name["if1"].inputs, [layer.name for layer in small.outputs]
    (2, ('linear1',), ['readout1'])
    """

    layers: Sequence[Layer]
    n_steps: int = 32
    shift: str = "none"
    readout: str = "membrane"
    input_range: tuple[float, float] | None = None
    classes: Sequence[str] = ()
    metadata: Mapping[str, str | int | float] = field(default_factory=dict)
    samples: Samples | None = field(default=None, repr=False)
    step_parameters: Mapping[int, Mapping[str, StepParameters]] = field(default_factory=dict, repr=False)
    task: str = "classify"
    coding: str = "steps"
    graded_parameters: Mapping[int, Mapping[str, StepParameters]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", _named(self.layers))
        object.__setattr__(self, "classes", tuple(str(c) for c in self.classes))
        for what, allowed in (
            ("shift", SHIFTS),
            ("readout", READOUTS),
            ("task", TASKS),
            ("coding", CODINGS),
        ):
            if getattr(self, what) not in allowed:
                raise NetworkError(
                    f"unknown {what}", got=repr(getattr(self, what)), expected=" or ".join(allowed)
                )
        object.__setattr__(self, "n_steps", check_steps(self.n_steps, NetworkError))
        if self.input_range is not None:
            object.__setattr__(self, "input_range", checked_range(self.input_range, NetworkError))
        self._check_graph()
        if self.task == "classify" and len(self.output_shape) != 1:
            raise NetworkError(
                "a map is not scores of classes",
                where="task",
                got=f"task 'classify', output {self.output_shape}",
                expected="task 'regress' or 'none'",
                hint="put a Flatten or a global AvgPool2d before the readout, or take one of these tasks",
            )
        n_names = self.n_classes or self.output_shape[0]
        if self.classes and len(self.classes) != n_names:
            raise NetworkError(
                "classes and readout do not fit", got=f"{len(self.classes)} names", expected=n_names
            )
        for coding, name in _PARAMETERS.items():
            object.__setattr__(self, name, self._checked_parameters(coding))
        self.largest_input  # noqa: B018 - computing it checks that all sums stay in float32's range

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The output shape of every layer, by the layer's name."""
        shapes: dict[str, Shape] = {}
        for layer in self.layers:
            shape = layer.output_shape([shapes[name] for name in layer.inputs])
            if np.prod(shape, dtype=object) > MAX_NEURONS:
                raise NetworkError(
                    "the layer is too large",
                    where=layer._where,
                    got=f"shape {shape}",
                    expected=f"at most {MAX_NEURONS} elements",
                )
            shapes[layer.name] = shape
        return shapes

    @cached_property
    def largest_input(self) -> float:
        """The largest magnitude of an input with which all sums stay in float32's range, at every T."""
        given = max(map(abs, self.input_range)) if self.input_range else 1.0
        tables = [*self.step_parameters.values(), *self.graded_parameters.values()]
        return largest_input(self.layers, tables, given)

    @cached_property
    def by_name(self) -> Mapping[str, Layer]:
        """The layers, by name."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def input(self) -> Input:
        """The first layer."""
        first = self.layers[0]
        if not isinstance(first, Input):
            raise NetworkError("a network starts with an input", where=first._where, got=first.kind)
        return first

    @property
    def input_shape(self) -> Shape:
        """The shape of one sample: (channels, height, width) or (features,)."""
        return self.input.shape

    @cached_property
    def outputs(self) -> tuple[Readout, ...]:
        """The readouts, in order. The first is that which the task reads."""
        return tuple(layer for layer in self.layers if isinstance(layer, Readout))

    @property
    def output_shape(self) -> Shape:
        """The shape of one sample's first output: (n_scores,), (n_values,) or (channels, height, width)."""
        return self.shapes[self.outputs[0].name]

    @property
    def n_classes(self) -> int:
        """The number of classes that the first output tells apart; one score tells 2 apart.

        0 if the task is not to classify.
        """
        return n_classes_of(self.output_shape) if self.task == "classify" else 0

    def replace(self, **changes: Any) -> Network:
        """A copy with some fields changed; it is checked again.

        Parameters
        ----------
        **changes
            Fields of the network by name, with their new values.

        Returns
        -------
        Network

        Raises
        ------
        NetworkError
            If the changed network is not valid; or if a layer changes in a field for which the network's step
            or graded parameters stand in, so that the change would have no effect.

        Examples
        --------
        >>> net.replace(shift="initial").shift
        'initial'
        """
        changed = dataclasses.replace(self, **changes)
        for coding, name in _PARAMETERS.items():
            if "layers" in changes and name not in changes:
                self._check_no_change_is_lost(changed, coding)
        return changed

    def parameters_of(self, coding: str) -> Mapping[int, Mapping[str, StepParameters]]:
        """The step parameters, or the graded ones, by T.

        Parameters
        ----------
        coding : {"steps", "graded"}
        """
        return self.graded_parameters if coding == "graded" else self.step_parameters

    def nearest_steps(self, n_steps: int, coding: str = "steps") -> int | None:
        """The T whose step parameters a run of `n_steps` uses.

        Parameters
        ----------
        n_steps : int
            T of the run, 1 to 65536.
        coding : {"steps", "graded"}
            With "graded", graded parameters are meant; without any, the step parameters stand in.

        Returns
        -------
        int or None
            `n_steps` itself if it has step parameters; else the nearest T in log2, the smaller of two that
            are equally near; None if the network has no step parameters.

        Raises
        ------
        RunError
            If `n_steps` is out of range.

        Examples
        --------
        >>> both = net.replace(step_parameters={4: {}, 64: {"a": evsnn.StepParameters(v_threshold=2.0)}})
        >>> both.nearest_steps(20), both.at(20).by_name["a"].v_threshold
        (64, array(2., dtype=float32))
        """
        n_steps = check_steps(n_steps, RunError)
        # Different quotients of integers up to 65536 also differ in float64; of equal ones, the smaller T
        # comes first.
        return min(self._used(coding), key=lambda T: max(T, n_steps) / min(T, n_steps), default=None)

    def _used(self, coding: str) -> Mapping[int, Mapping[str, StepParameters]]:
        return self.parameters_of(coding) or self.step_parameters

    def at(self, n_steps: int, coding: str = "steps") -> Network:
        """The network that a run of `n_steps` computes: its step parameters are applied, and none are left.

        Weights are shared. A network without step parameters returns itself.

        Parameters
        ----------
        n_steps : int
            T of the run, 1 to 65536.
        coding : {"steps", "graded"}
            As for `nearest_steps`.

        Returns
        -------
        Network

        Raises
        ------
        RunError
            If `n_steps` is out of range.
        """
        chosen = self.nearest_steps(n_steps, coding)
        table = {} if chosen is None else self._used(coding)[chosen]
        if chosen is None and not self.graded_parameters:
            return self
        return self.replace(
            layers=[
                with_step_parameters(layer, table[layer.name]) if layer.name in table else layer
                for layer in self.layers
            ],
            step_parameters={},
            graded_parameters={},
        )

    def _check_no_change_is_lost(self, changed: Network, coding: str) -> None:
        """Refuse changes of layers that the parameters of some T hide."""
        what = _PARAMETERS[coding]
        at = "net.at({})" if coding == "steps" else "net.at({}, 'graded')"
        for n_steps, table in self.parameters_of(coding).items():
            for name, own in table.items():
                before, after = self.by_name[name], changed.by_name.get(name)
                for field_name in own.given if after is not None else ():
                    values: list[Any] = [getattr(layer, field_name, None) for layer in (before, after)]
                    if not np.array_equal(*values):
                        raise NetworkError(
                            f"its {field_name} is changed, but the {what.replace('_', ' ')} of T = {n_steps}"
                            " stand in for it",
                            where=before._where,
                            hint=f"change {at.format(n_steps)}, which has none, or give {what} as well"
                            " ({} for none)",
                        )

    def _checked_parameters(self, coding: str) -> ReadOnly[int, ReadOnly[str, StepParameters]]:
        """The step or graded parameters in their one form: ordered by T and layer, with read-only arrays.

        Layers that stay as they are are left out.
        """
        given, what = self.parameters_of(coding), _PARAMETERS[coding]
        if not isinstance(given, Mapping) or not all(isinstance(table, Mapping) for table in given.values()):
            raise NetworkError(
                f"{what.replace('_', ' ')} are not a mapping for each T",
                where=what,
                got=repr(given)[:80],
                expected="{T: {name of a layer: StepParameters}}",
            )
        checked: dict[int, ReadOnly[str, StepParameters]] = {}
        places = {layer.name: i for i, layer in enumerate(self.layers)}
        for n_steps, table in sorted(
            (check_steps(T, NetworkError, what, most=_MOST_STEPS[coding]), table)
            for T, table in given.items()
        ):
            for name in table:
                if name not in self.by_name:
                    raise NetworkError(
                        "there is no such layer",
                        where=f"the {what.replace('_', ' ')} of T = {n_steps}",
                        got=repr(name)[:80],
                        expected="the name of a layer",
                    )
            fitted = {
                name: self._fitted(table[name], self.by_name[name], n_steps, coding)
                for name in sorted(table, key=places.__getitem__)
            }
            checked[n_steps] = ReadOnly({name: own for name, own in fitted.items() if own.given})
        return ReadOnly(checked)

    def _fitted(self, given: StepParameters, layer: Layer, n_steps: int, coding: str) -> StepParameters:
        where = step_parameters_where(n_steps, layer, coding)
        if not isinstance(given, StepParameters):
            raise NetworkError("these are not StepParameters", where=where, got=type(given).__name__)
        if coding == "graded" and (given.negative_threshold or given.warm_up_steps):
            raise NetworkError(
                "graded spikes have no negative spikes and no warm-up",
                where=where,
                got="negative_threshold" if given.negative_threshold else "warm_up_steps",
                expected="thresholds, first membranes and biases",
            )
        try:
            return given.fitted(layer, self.shapes[layer.name])
        except NetworkError as error:
            raise NetworkError(
                error.what, where=where, got=error.got, expected=error.expected, hint=error.hint
            ) from error

    def _check_graph(self) -> None:
        """Check which layer may read which: see the module's docstring."""
        self.shapes  # noqa: B018 - computing them checks that they fit
        carries: dict[str, str] = {}  # what a layer sends: "spikes", "input" (analog) or "current"
        signed: dict[str, frozenset[bool]] = {}  # whether what it sends may be below 0, source by source
        used: set[str] = set()
        for layer in self.layers:
            fed = [carries[name] for name in layer.inputs]
            used.update(layer.inputs)
            source = f"input from {', '.join(map(repr, layer.inputs))}"
            if isinstance(layer, (Conv2d, Linear)) and "current" in fed:
                read = self.by_name[layer.inputs[0]]
                if isinstance(read, Add) and "current" not in [carries[name] for name in read.inputs]:
                    raise NetworkError(
                        "a weighted layer reads a sum of spikes",
                        where=layer._where,
                        got=source,
                        hint="give each branch a weighted layer with these weights, one with the bias, and"
                        " add behind them",
                    )
                raise NetworkError(
                    "two weighted layers with no IF between them",
                    where=layer._where,
                    got=source,
                    hint="put an IF between them, or multiply their weights",
                )
            signs = frozenset().union(*(signed[name] for name in layer.inputs))
            signed[layer.name] = frozenset({layer.paired}) if isinstance(layer, IF) else signs or _UNSIGNED
            if isinstance(layer, (Conv2d, Linear, Add)):
                signed[layer.name] = _UNSIGNED  # of currents: the neurons behind decide
            if isinstance(layer, MaxPool2d) and True in signs:
                raise NetworkError(
                    "a max pool reads values that are never below 0",
                    where=layer._where,
                    got=f"{source}, pairs of neurons",
                    hint="put an IF without negative_slope before it",
                )
            if isinstance(layer, Conv2d) and layer.groups > 1 and len(signs) > 1:
                raise NetworkError(
                    "groups read pairs of neurons beside single ones",
                    where=layer._where,
                    got=source,
                    expected="groups=1, or a concatenation of one kind",
                )
            if isinstance(layer, Concat) and "current" in fed:
                raise NetworkError(
                    "concat joins spikes, not currents", where=layer._where, hint="put an IF on each branch"
                )
            if isinstance(layer, Concat) and len(set(fed)) > 1:
                raise NetworkError(
                    "concat joins spikes with the analog input",
                    where=layer._where,
                    hint="put an IF on the input's branch",
                )
            if isinstance(layer, AvgPool2d) and "current" in fed:
                raise NetworkError(
                    "a pool reads spikes, not currents",
                    where=layer._where,
                    got=source,
                    hint="put an IF before it, or the pool before the weighted layer",
                )
            if isinstance(layer, MaxPool2d) and fed[0] != "spikes":
                raise NetworkError(
                    "a max pool reads spikes", where=layer._where, got=source, hint="put an IF before it"
                )
            if isinstance(layer, Input):
                carries[layer.name] = "input" if layer.encoding == "constant" else "spikes"
            elif isinstance(layer, IF):
                carries[layer.name] = "spikes"
            elif isinstance(layer, (Conv2d, Linear, Add)):
                carries[layer.name] = "current"
            else:
                carries[layer.name] = fed[0]
        for readout in self.outputs:
            source = f"input from {readout.inputs[0]!r}"
            if self.readout == "spikes" and not isinstance(self.by_name[readout.inputs[0]], IF):
                raise NetworkError("readout 'spikes' needs an IF before it", where=readout._where, got=source)
            if self.readout == "spikes" and True in signed[readout.inputs[0]]:
                raise NetworkError(
                    "readout 'spikes' counts single neurons",
                    where=readout._where,
                    got=f"{source}, pairs of neurons",
                    hint="use an IF without negative_slope, or readout='membrane'",
                )
            if self.readout == "membrane" and carries[readout.inputs[0]] != "current":
                raise NetworkError(
                    "readout 'membrane' needs a weighted layer before it",
                    where=readout._where,
                    got=source,
                    hint="remove the last IF, or use readout='spikes'",
                )
        unused = [
            layer.name for layer in self.layers if layer.name not in used and not isinstance(layer, Readout)
        ]
        if unused:
            raise NetworkError(
                "a layer leads nowhere", where=f"layer {unused[0]!r}", hint="remove it, or connect it"
            )


def step_parameters_where(n_steps: int, layer: Layer, coding: str = "steps") -> str:
    """What an error in a layer's step or graded parameters is about."""
    return f"the {_PARAMETERS[coding].replace('_', ' ')} of T = {n_steps}, {layer._where}"


def checked_range(
    ends: Sequence[float], error: type[EvsnnError], least: float = float(np.finfo(np.float32).tiny)
) -> tuple[float, float]:
    """A range of inputs as two floats, else `error`: both in float32's range, and `least` apart or more."""
    low, high = (float(value) for value in ends)
    with np.errstate(over="ignore"):
        held = [np.isfinite(np.float32(end)) and bool(np.float32(end)) == bool(end) for end in (low, high)]
    if not (all(held) and high - low >= least):
        raise error(
            "input_range is not a range",
            got=tuple(ends),
            expected=f"(smallest, largest), finite in float32 and {least:.2g} apart or more",
        )
    return low, high


def check_steps(
    n_steps: int, error: type[EvsnnError], where: str | None = None, most: int = MAX_STEPS
) -> int:
    """`n_steps` as an int from 1 to `most`, else `error`."""
    if isinstance(n_steps, bool) or not isinstance(n_steps, (int, np.integer)) or not 1 <= n_steps <= most:
        raise error(
            "n_steps is out of range", where=where, got=n_steps, expected=f"an integer from 1 to {most}"
        )
    return int(n_steps)


def _named(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Layers with every name and input filled in, checked for order and arity."""
    layers = tuple(layers)
    if not all(isinstance(layer, Layer) for layer in layers):
        raise NetworkError("layers are not all layers", got=", ".join(type(x).__name__ for x in layers)[:120])
    if not 2 <= len(layers) <= MAX_LAYERS:
        raise NetworkError(
            "a network has an input and a readout", got=f"{len(layers)} layers", expected=f"2 to {MAX_LAYERS}"
        )
    if not isinstance(layers[0], Input) or not isinstance(layers[-1], Readout):
        raise NetworkError(
            "a network starts with an input and ends with a readout",
            got=f"{layers[0].kind} ... {layers[-1].kind}",
        )
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
            raise NetworkError(
                "the layer has the wrong number of inputs",
                where=layer._where,
                got=len(inputs),
                expected=least if least == most else f"{least} to {most}",
            )
        for source in inputs:
            if source not in seen:
                known = (
                    "itself or a later layer"
                    if source in taken or source == name
                    else "no layer of that name"
                )
                raise NetworkError(
                    "an input is not an earlier layer",
                    where=layer._where,
                    got=f"{source!r}, {known}",
                    expected="the name of a layer listed before it",
                )
        if named and isinstance(layer, Input):
            raise NetworkError("a network has one input", where=layer._where)
        if named and isinstance(named[-1], Readout) and not isinstance(layer, Readout):
            raise NetworkError(
                "a layer comes after a readout",
                where=layer._where,
                expected="the readouts of all outputs last",
            )
        seen.add(name)
        named.append(layer)
    return tuple(named)
