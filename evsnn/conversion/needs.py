"""The memory that a conversion will take, before most of it is allocated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from ..circuit.build import build_circuit
from ..circuit.populations import Circuit, MaxPool, Projection
from ..errors import EvsnnError
from ..network.layers import IF, AvgPool2d, Conv2d, Layer, Linear, MaxPool2d, Readout
from ..network.network import Network
from ..simulation import Simulator
from .balance.correction import correct_bytes, samples_that_fit
from .balance.statistics import histogram_bytes
from .lowering.ann import Ann
from .onnx.dense import scratch_bytes
from .onnx.evaluate import MAX_BYTES, sample_bytes
from .onnx.graph import Graph

__all__ = ["needed_bytes", "samples_at_once"]

_MAX_BYTES = 256 << 20  # of spike counts
_MAX_BATCH = 64
_IDLE = frozenset({"Clip", "Conv", "Flatten", "Identity", "Relu", "Reshape"})
"""Operators of the source model that need no memory beside their result; convolutions have scratch memory."""

_Phase = tuple[int, int]
"""The bytes of a phase that are used whatever the spikes are, and those that spikes fill."""


def needed_bytes(
    ann: Ann,
    graph: Graph,
    network: Network,
    n_corrected: Mapping[int, int],
    n_compared: int,
    n_held_out: int,
    n_used: int,
    sweep: Sequence[int] = (),
) -> dict[str, int]:
    """Bytes that a conversion takes, at most.

    Its phases follow one another, and each frees what it took: the largest one counts.

    Parameters
    ----------
    ann : Ann
    graph : Graph
        The source model, which the ANN is compared with.
    network : Network
        The network to be balanced.
    n_corrected : mapping of int to int
        By T, every one, how many samples corrections are made with.
    n_compared, n_held_out, n_used : int
        Samples that the ANN is compared with its source on, that recipes are chosen on, and others.
    sweep : sequence of int
        Further T that the network runs with on its held-out samples.

    Returns
    -------
    dict of str to int
        "samples", "tensors and runs" (the phase that takes most), and "queues": what it takes more if every
        neuron fires at every step.
    """
    sample = 4 * prod(network.input_shape)
    at_once = min(n_compared, max(1, MAX_BYTES // sample_bytes(graph, ann.outputs)))
    source = at_once * sample_bytes(graph, ann.outputs, _IDLE) + _scratch_bytes(ann.network, n_compared)
    compared = 2 * sample * n_compared  # as they are read, and arranged
    batch = min(ann.batch, n_used)
    measured = _forward_bytes(ann, batch) + max(
        histogram_bytes(batch * prod(shape[1:]), shape[0])
        for shape in (
            network.shapes[layer.name] for layer in network.layers if isinstance(layer, (IF, Readout))
        )
    )
    phases: list[_Phase] = [
        (compared + max(source, _forward_bytes(ann, min(ann.batch, n_compared))), 0),
        (measured + 2 * sample * batch, 0),
        (_forward_bytes(ann, min(ann.batch, n_held_out)), 0),
    ]
    for T in sorted({*n_corrected, *sweep}):
        try:
            circuit, simulator = build_circuit(network, T), Simulator(network, T)
        except EvsnnError:  # it is refused later, by name
            continue
        own = n_corrected.get(T, 0)
        if own:
            phases.append((_corrected_bytes(circuit, samples_that_fit(circuit, own)), 0))
        if n_held_out:
            results = simulator.result_bytes(n_held_out)
            parts = simulator.memory_for(n_held_out)
            queues = parts.pop("queues", 0)
            run = sum(parts.values())
            phases.append((run + results, queues))
            if sweep and T in n_corrected:
                n = samples_at_once(circuit, n_held_out)
                counted = results + simulator.result_bytes(n, record=("spike_counts",))
                phases.append((run + counted + _forward_bytes(ann, n), queues))
    most, certain = max(map(sum, phases)), max(phase[0] for phase in phases)
    held = max(n_corrected.values(), default=0) + 2 * n_held_out
    return {"samples": sample * held, "tensors and runs": certain, "queues": most - certain}


def samples_at_once(circuit: Circuit, n_samples: int) -> int:
    """How many of so many samples a network is compared with its ANN on at a time.

    Spike counts are held of them, and activations.
    """
    neurons = sum(p.n_neurons for p in circuit.populations)
    return max(1, min(n_samples, _MAX_BATCH, _MAX_BYTES // (4 * neurons)))


def _forward_bytes(ann: Ann, n_samples: int) -> int:
    """The most that a batch of the ANN's activations takes, with the work of its layers."""
    network, most, alive = ann.network, 0, 0
    last = {name: i for i, layer in enumerate(network.layers) for name in layer.inputs}
    size = {layer.name: 4 * n_samples * prod(network.shapes[layer.name]) for layer in network.layers}
    for i, layer in enumerate(network.layers):
        alive += size[layer.name]
        most = max(most, alive + _work_bytes(layer, network, n_samples))
        alive -= sum(size[name] for name in set(layer.inputs) if last[name] == i)
    return most


def _work_bytes(layer: Layer, network: Network, n_samples: int) -> int:
    """What a layer of the ANN takes beside its inputs and its output."""
    out = 4 * n_samples * prod(network.shapes[layer.name])
    if isinstance(layer, Conv2d):
        return _convolution_bytes(layer, network, n_samples) + layer.weight.nbytes
    if isinstance(layer, Linear):
        return 0 if layer.bias is None else out
    if isinstance(layer, (AvgPool2d, MaxPool2d)):  # axis after axis, and a division
        shape = network.shapes[layer.inputs[0]]
        window = layer.window if isinstance(layer, MaxPool2d) else layer.window(shape[1:])
        padded = 4 * n_samples * shape[0] * window.padded(0, shape[1]) * window.padded(1, shape[2])
        return (padded if any(window.padding) else 0) + padded // min(window.stride) + out
    return 0


def _scratch_bytes(network: Network, n_samples: int) -> int:
    """The most scratch memory and weights of a convolution of the ANN."""
    layers = [layer for layer in network.layers if isinstance(layer, Conv2d)]
    return max(
        (_convolution_bytes(layer, network, n_samples) + layer.weight.nbytes for layer in layers), default=0
    )


def _convolution_bytes(layer: Conv2d, network: Network, n_samples: int) -> int:
    shape = network.shapes[layer.inputs[0]]
    return scratch_bytes(
        (n_samples, *shape),
        layer.weight.shape,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )


def _corrected_bytes(circuit: Circuit, n_samples: int) -> int:
    """What a correction takes, with the work on the largest of its projections."""
    work = (
        _projected_bytes(projection, n_samples * (1 if analog else circuit.n_steps))
        for p in circuit.populations
        if not isinstance(p, MaxPool)
        for analog, projections in ((True, p.analog_projections), (False, p.projections))
        for projection in projections
    )
    return correct_bytes(circuit, n_samples) + max(work, default=0)


def _projected_bytes(projection: Projection, n_samples: int) -> int:
    weight, s = projection.weight, projection
    formed = 4 * weight.size + max(4 * weight.size, s.effective_bytes(len(weight)) - 4 * weight.size)
    return formed + scratch_bytes(
        (n_samples, *s.shape), weight.shape, s.stride, s.padding, s.dilation, s.groups
    )
