"""What a network gives: its outputs in Python's integers, and how the C reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evsnn.circuit import reference
from evsnn.circuit.quantized import QuantizedNetwork
from evsnn.network.layers import IF
from evsnn.network.reading import predicted_classes

from ..program.program import Program

__all__ = [
    "amplitude_of",
    "expected_classes",
    "expected_outputs",
    "in_32_bits",
    "output_scale",
    "outputs_of",
    "start_of",
]


def expected_outputs(network: QuantizedNetwork, inputs: np.ndarray) -> np.ndarray:
    """What Python's specification of the integers reads out.

    Parameters
    ----------
    network : QuantizedNetwork
    inputs : (n, channels, height, width) integer, or (n, n_steps, channels, height, width) bool for events

    Returns
    -------
    (n, n_outputs) int64
        Membranes, or spike counts if readouts fire, output after output; of a map as (channel, y, x).
    """
    return outputs_of(network, reference.run(network.circuit, inputs))


def outputs_of(network: QuantizedNetwork, traces: Sequence[reference.Trace]) -> np.ndarray:
    """The same of a run that is there: one trace per population."""
    parts = []
    for i in dict.fromkeys(network.circuit.readouts):
        trace = traces[i]
        values = trace.v_mem
        if network.circuit.populations[i].fires or values is None:
            values = trace.spikes.sum(axis=1, dtype=np.int64)
        parts.append(values.reshape(len(values), -1))
    return np.concatenate(parts, axis=1)


def expected_classes(network: QuantizedNetwork, outputs: np.ndarray) -> np.ndarray | None:
    """The classes that Python predicts from outputs, if the network's task is to classify.

    Parameters
    ----------
    network : QuantizedNetwork
    outputs : (n, n_outputs) int64

    Returns
    -------
    (n,) int64, optional
        The first of the largest, spikes weighted with their amplitudes; if there is one output, 1 where it is
        above 0.
    """
    if network.network.task != "classify":
        return None
    amplitude, scores = amplitude_of(network), outputs[:, : network.circuit.readout.n_neurons]
    return predicted_classes(scores if amplitude is None else scores * amplitude)


def amplitude_of(network: QuantizedNetwork) -> np.ndarray | None:
    """What a spike of each class counts, (classes,) float64.

    None if all count the same, or membranes are read out, or there are no classes.
    """
    last = network.circuit.readout
    if not last.fires or network.network.task != "classify":
        return None
    layer = network.circuit.network.by_name[last.name]
    if not isinstance(layer, IF):
        raise TypeError(f"layer {last.name!r} has no neurons")
    amplitude = np.broadcast_to(layer.v_threshold, last.shape[:1]).astype(np.float64)
    return None if np.ptp(amplitude) == 0 else amplitude


def output_scale(network: QuantizedNetwork, i: int) -> float | None:
    """What 1 in an output of C stands for after all steps; None if that differs from value to value.

    Parameters
    ----------
    network : QuantizedNetwork
    i : int
        The population that is read out.
    """
    layer = network.circuit.network.by_name[network.circuit.populations[i].name]
    unit = layer.v_threshold if isinstance(layer, IF) else network.scales[i]
    if unit is None or np.ptp(unit):
        return None
    return float(np.max(unit)) / network.n_steps


def in_32_bits(amplitude: np.ndarray) -> np.ndarray:
    """Amplitudes times a power of two: exact for all that are float32 and at least 1/256 of the largest, and
    so ties stay ties.
    """
    _, exponent = np.frexp(amplitude.max())
    return np.rint(np.ldexp(amplitude, 32 - exponent))


def start_of(program: Program) -> np.ndarray:
    """The readout's membranes before the first spike, (n_outputs,); if the order in which it integrates does
    not matter, with all its bias.
    """
    last = program.network.circuit.readout
    steps = 0 if program.by_step else program.n_steps
    return last.neuron.v_init + steps * last.bias if program.counts else np.zeros(program.n_outputs)
