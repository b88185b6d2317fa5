"""Held-out samples through a balanced network: what `choose` compares recipes by.

Networks of steps run on the engine. Graded ones are computed for whole batches through BLAS, which has an
order of sums of its own; a count may differ from a run's where a membrane is within rounding of a level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...circuit.build import build_circuit
from ...circuit.populations import INPUT, Circuit, MaxPool, Population
from ...network.network import Network
from ...output.memory import require
from ...simulation import Simulator
from .correction import fire, pooled, samples_that_fit, sent_type, total_currents
from .currents import last_uses, seen_by

__all__ = ["Trial", "graded_trial", "trial"]


@dataclass(frozen=True, eq=False)
class Trial:
    """What a run of samples gave.

    Parameters
    ----------
    outputs : mapping of str to (n, ...)
        By the name of the readout.
    sops_per_sample, mean_rate : float
        As for `evsnn.Result`.
    """

    outputs: Mapping[str, np.ndarray]
    sops_per_sample: float
    mean_rate: float


def trial(network: Network, n_steps: int, samples: np.ndarray) -> Trial:
    """Run samples (n, *input_shape) in the network's own coding.

    Raises
    ------
    RunError
        If it does not fit into memory, or cannot be run.
    """
    if network.coding == "graded" and network.input.encoding == "constant":
        return graded_trial(build_circuit(network, n_steps), samples)
    simulator = Simulator(network, n_steps)
    require(simulator.memory_bytes)
    result = simulator.run(samples)
    return Trial(result.named_outputs, result.sops_per_sample, result.mean_rate)


def graded_trial(circuit: Circuit, samples: np.ndarray) -> Trial:
    """Run samples (n, *input_shape) of constant currents through a graded circuit in floats."""
    samples = np.ascontiguousarray(samples, np.float32).reshape(-1, *circuit.input_shape)
    at_once = max(1, samples_that_fit(circuit, len(samples)))
    outputs: dict[str, list[np.ndarray]] = {layer.name: [] for layer in circuit.network.outputs}
    sops = events = 0.0
    for first in range(0, len(samples), at_once):
        found, added, sent = _batch(circuit, samples[first : first + at_once])
        sops, events = sops + added, events + sent
        for name, values in found.items():
            outputs[name].append(values)
    neurons = sum(p.n_neurons for p in circuit.populations if p.fires)
    return Trial(
        {
            name: np.concatenate(parts).reshape(len(samples), *circuit.network.shapes[name])
            for name, parts in outputs.items()
        },
        sops / len(samples),
        events / (len(samples) * neurons) if neurons else 0.0,
    )


def _batch(circuit: Circuit, images: np.ndarray) -> tuple[dict[str, np.ndarray], float, float]:
    """The outputs of some samples, their additions, and the counts above 0 that were sent."""
    last, T = last_uses(circuit), circuit.n_steps
    sent: dict[int, np.ndarray] = {INPUT: images}
    names = {j: layer.name for j, layer in zip(circuit.readouts, circuit.network.outputs)}
    outputs: dict[str, np.ndarray] = {}
    sops = events = 0.0
    for i, p in enumerate(circuit.populations):
        if isinstance(p, MaxPool):
            sent[i] = pooled(p, sent[p.source.population], 1)
        else:
            currents = total_currents(p, images, sent, 1, T)
            sops += _additions(p, sent)
            if p.fires:
                counts = np.empty((len(images), 1, *p.shape[1:], p.shape[0]), sent_type(circuit))
                fire(p, currents, np.zeros(p.shape[0]), counts.transpose(0, 1, 4, 2, 3), T)
                sent[i] = counts.transpose(0, 1, 4, 2, 3)[:, 0]
            if i in names:
                values = currents[:, 0] + p.neuron.v_init.reshape(-1, 1, 1)
                if p.fires:
                    values = sent[i] * p.neuron.threshold.reshape(-1, 1, 1)
                outputs[names[i]] = values.astype(np.float64) / T
        if i in sent:
            events += np.count_nonzero(sent[i])
        for done in [j for j in sent if j != INPUT and last.get(j, -1) <= i and j != i]:
            del sent[done]
    return outputs, sops, events


def _additions(population: Population, sent: Mapping[int, np.ndarray]) -> float:
    """Additions of a weight: each count above 0 once for every neuron that it reaches."""
    total = 0.0
    for projection in population.projections:
        window, size = projection.window, projection.size
        reach = np.outer(*(window.reach(axis, size[axis]) for axis in (0, 1)))
        n_out = projection.weight.shape[0] // projection.groups
        for source in projection.sources:
            active = seen_by(source, sent[source.population]) != 0
            total += float((active.sum(axis=(0, 1)) * reach).sum()) * n_out
    return total
