"""Balancing: thresholds, shift and corrections turn an `Ann` into a spiking `Network` for one T.

Everything that belongs to one T is in step parameters, a `StepParameters` per layer; `assemble` puts those of
one or several T into a network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ...circuit.build import build_circuit
from ...circuit.populations import Population, as_map
from ...errors import ModelError
from ...network.layers import IF, Add, Conv2d, Flatten, Linear, Readout
from ...network.network import MAX_GRADED_STEPS, Network
from ...network.step_parameters import StepParameters
from ..lowering.ann import Ann, forward
from .correction import Correction, correct, samples_that_fit
from .options import Recipe
from .statistics import Activations, from_moments
from .thresholds import thresholds

__all__ = ["Balanced", "assemble", "balance", "charging", "with_readout", "without_data"]

DEPTHWISE_LEVELS = 4
"""How many times finer counts are that only depthwise layers read."""

LEAST_SAMPLES = 4
"""Fewest samples for a correction: with fewer, a channel's mean is too uncertain."""

Table = Mapping[str, StepParameters]


@dataclass(frozen=True, eq=False)
class Balanced:
    """An ANN balanced for one T.

    Parameters
    ----------
    n_steps : int
    recipe : Recipe
    table : mapping of str to StepParameters
        Step parameters for layers of the network that `with_readout` made.
    corrections : mapping of str to Correction
        By the name of the `IF` or readout whose bias was corrected.
    """

    n_steps: int
    recipe: Recipe
    table: Table
    corrections: Mapping[str, Correction] = field(default_factory=dict)


def with_readout(ann: Ann, readout: str) -> Network:
    """The ANN's network with the given readout; for "spikes", neurons are put before it.

    Parameters
    ----------
    ann : Ann
    readout : {"membrane", "spikes"}

    Returns
    -------
    Network
        Its thresholds have no meaning yet.
    """
    network = ann.network
    if readout == "membrane":
        return network.replace(readout="membrane")
    layers = [layer for layer in network.layers if not isinstance(layer, Readout)]
    readouts, taken = [], set(network.by_name)
    for last in network.outputs:
        name = "scores" if len(network.outputs) == 1 else f"{last.name}.neurons"
        while name in taken:
            name += "_"
        taken.add(name)
        layers.append(IF(shift=False, name=name, inputs=last.inputs))
        readouts.append(dataclasses.replace(last, inputs=(name,)))
    return network.replace(layers=(*layers, *readouts), readout="spikes")


def without_data(ann: Ann) -> dict[str, Activations]:
    """The activations of every layer as far as they are known without samples.

    Limits of the ReLUs, or batch norms, tell them.

    Raises
    ------
    ModelError
        If a layer has neither a limit nor a batch norm.
    """
    found = {}
    for layer in ann.network.layers:
        if not isinstance(layer, IF):
            continue
        channels = ann.network.shapes[layer.name][0]
        limit = np.broadcast_to(np.asarray(ann.clips.get(layer.name, np.inf), np.float64), (channels,))
        if layer.name in ann.moments and layer.paired:
            mean, deviation = ann.moments[layer.name]
            found[layer.name] = from_moments(
                layer.per_neuron(np.stack([mean, -mean]), channels), np.repeat(deviation, 2)
            )
        elif layer.name in ann.moments:
            found[layer.name] = from_moments(*ann.moments[layer.name], limit)
        elif np.isfinite(limit).all():
            found[layer.name] = from_moments(np.zeros(channels), limit / 2, limit)
        else:
            hint = (
                "give calibration samples; thresholds without data need Clip(0, y) or a BatchNormalization"
                " before each ReLU"
            )
            raise ModelError(
                "nothing is known of this layer's activations", where=f"layer {layer.name!r}", hint=hint
            )
    return found


def balance(
    ann: Ann,
    network: Network,
    activations: Mapping[str, Activations],
    recipe: Recipe,
    n_steps: int,
    samples: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Balanced:
    """Balance for one T.

    Parameters
    ----------
    ann : Ann
    network : Network
        From `with_readout`, with the coding that it is balanced for.
    activations : mapping of str to Activations
        Those of every `IF`; if the readout is "spikes", also those of the readout.
    recipe : Recipe
    n_steps : int
        T, for which it is balanced.
    samples : (n, *network.input_shape), optional
        Samples for the bias correction; without them there is none.
    progress : callable (done, total), optional

    Returns
    -------
    Balanced
    """
    table = _thresholds(ann, network, activations, recipe, n_steps)
    corrections: dict[str, Correction] = {}
    if recipe.correction and samples is not None and len(samples):
        tuned = assemble(network, recipe.shift, [Balanced(n_steps, recipe, table)])
        corrections = _corrections(ann, tuned, samples, progress)
        for name, correction in corrections.items():
            layer = charging(network, name)
            if layer is not None:
                table[layer.name] = StepParameters(bias=_bias(layer) + correction.bias)
    return Balanced(n_steps, recipe, table, corrections)


def assemble(network: Network, shift: str, balanced: list[Balanced]) -> Network:
    """A network for one or several T of its coding.

    The parameters of the first T are in the layers; if there are several T, each has step (or graded)
    parameters, too.

    Parameters
    ----------
    network : Network
        From `with_readout`.
    shift : {"bias", "initial", "none"}
    balanced : list of Balanced
        One per T, the network's own first.

    Returns
    -------
    Network
    """
    first, coding = balanced[0], network.coding
    parameters = "graded_parameters" if coding == "graded" else "step_parameters"
    base = network.replace(
        shift=shift, n_steps=first.n_steps, **{parameters: {first.n_steps: first.table}}
    ).at(first.n_steps, coding)
    if len(balanced) == 1:
        return base
    own = {
        name: StepParameters(bias=_bias(layer))
        for name, step_parameters in first.table.items()
        if step_parameters.bias is not None and isinstance(layer := network.by_name[name], (Conv2d, Linear))
    }
    return base.replace(
        **{parameters: {b.n_steps: {**own, **b.table} for b in balanced}}
    )  # for a T without corrected biases, if those of the first T are corrected


def _bias(layer: Conv2d | Linear) -> np.ndarray:
    """A layer's own bias, (n_out,); zeros if it has none."""
    return np.zeros(len(layer.weight)) if layer.bias is None else layer.bias.astype(np.float64)


def _thresholds(
    ann: Ann, network: Network, activations: Mapping[str, Activations], recipe: Recipe, n_steps: int
) -> dict[str, StepParameters]:
    table = {}
    circuit = build_circuit(network, n_steps)
    charged_by_spikes = {p.name for p in circuit.populations if isinstance(p, Population) and p.projections}
    readouts = {source: readout.name for readout in network.outputs for source in readout.inputs}
    for layer in network.layers:
        if not isinstance(layer, IF) or layer.name in ann.fixed:
            continue
        if layer.name in readouts:  # its amplitudes are scores: it has one threshold, the largest
            if readouts[layer.name] not in activations:
                raise ModelError(
                    "readout 'spikes' needs the scores' range",
                    hint="give calibration samples, or use readout='membrane'",
                )
            table[layer.name] = StepParameters(
                v_threshold=thresholds(activations[readouts[layer.name]], "max", n_steps, "layer"),
                negative_threshold=0.0,
                warm_up_steps=0,
            )
            continue
        levels = _levels(network, layer, n_steps)
        v = thresholds(
            activations[layer.name],
            recipe.rule,
            levels or n_steps,
            recipe.granularity,
            ann.clips.get(layer.name),
        )
        if levels is not None:
            v = v * (n_steps / levels)  # a level is V / T of the run
        if layer.paired and v.ndim:
            v = v.reshape(-1, 2).T
        # a constant current alone comes evenly, so a warm-up would gain nothing
        table[layer.name] = StepParameters(
            v_threshold=v,
            negative_threshold=recipe.negative_threshold,
            warm_up_steps=recipe.warm_up_steps if layer.name in charged_by_spikes else 0,
            levels=levels,
        )
    return table


def _levels(network: Network, layer: IF, n_steps: int) -> int | None:
    """The levels of graded spikes that only depthwise layers read: 4 T + 3, at most 255; None: T.

    Such an event reaches few neurons whatever it carries, so finer counts cost nothing there, and each neuron
    behind adds up few of them, so that their errors do not cancel.
    """
    if network.coding != "graded":
        return None
    levels = min(DEPTHWISE_LEVELS * (n_steps + 1) - 1, MAX_GRADED_STEPS)
    readers = [other for other in network.layers if layer.name in other.inputs]
    channels = network.shapes[layer.name][0]
    narrow = all(isinstance(x, Conv2d) and x.groups == channels > 1 for x in readers)
    return levels if readers and narrow else None


def _corrections(
    ann: Ann, network: Network, samples: np.ndarray, progress: Callable[[int, int], None] | None
) -> dict[str, Correction]:
    circuit = build_circuit(network)
    n_samples = samples_that_fit(circuit, len(samples))
    if n_samples < min(LEAST_SAMPLES, len(samples)):
        return {}
    samples = np.ascontiguousarray(samples[:n_samples], np.float32)
    parts: dict[str, list[np.ndarray]] = {}
    wanted = {
        layer.name
        for layer in network.layers
        if isinstance(layer, (IF, Readout))
        and layer.name not in ann.fixed
        and charging(network, layer.name) is not None
    }

    def observe(name: str, current: np.ndarray, activation: np.ndarray) -> None:
        if name in wanted:
            parts.setdefault(name, []).append(activation)

    forward(ann, samples, observe=observe)
    targets = {
        name: np.concatenate(values).reshape(-1, *as_map(parts[name][0].shape[1:]))
        for name, values in parts.items()
    }
    return correct(circuit, samples.reshape(-1, *circuit.input_shape), targets, progress)


def charging(network: Network, name: str) -> Conv2d | Linear | None:
    """A weighted layer whose bias reaches only the neurons (or readout) `name`; None if there is none."""
    readers: dict[str, int] = {}
    for layer in network.layers:
        for source in layer.inputs:
            readers[source] = readers.get(source, 0) + 1
    open_ = list(network.by_name[name].inputs)
    while open_:
        layer = network.by_name[open_.pop(0)]
        if readers[layer.name] > 1:
            continue
        if isinstance(layer, (Conv2d, Linear)):
            return layer
        if isinstance(layer, (Add, Flatten)):
            open_ += layer.inputs
    return None
