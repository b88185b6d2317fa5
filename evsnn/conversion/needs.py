"""The memory that a conversion will take, before most of it is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ..circuit.build import build_circuit
from ..errors import EvsnnError
from ..network.layers import Conv2d, Linear
from ..network.network import Network
from ..simulation import Simulator
from .balance.correction import correct_bytes, samples_that_fit
from .lowering.ann import Ann
from .onnx.dense import SCRATCH_BYTES

__all__ = ["needed_bytes"]


def needed_bytes(
    ann: Ann, network: Network, n_corrected: Mapping[int, int], n_held_out: int, n_used: int
) -> dict[str, int]:
    """Bytes that the parts of a conversion take together, at most.

    Parameters
    ----------
    ann : Ann
    network : Network
        The network to be balanced.
    n_corrected : mapping of int to int
        By T, every one, how many samples corrections are made with.
    n_held_out, n_used : int
        Samples that recipes are chosen on, and others.

    Returns
    -------
    dict of str to int
        "samples", "tensors" (the most that measuring, a correction or a comparison take) and "runs".
    """
    sample = 4 * prod(network.input_shape)
    weights = [layer.weight.size for layer in network.layers if isinstance(layer, (Conv2d, Linear))]
    scratch = SCRATCH_BYTES + 2 * 4 * max(weights, default=0)  # effective weights, and as a product has them
    batch = ann.sample_bytes * min(ann.batch, max(n_used, n_held_out, 1)) + scratch
    tensors, runs = [batch], [0]
    for T in n_corrected:
        try:
            circuit, simulator = build_circuit(network, T), Simulator(network, T)
        except EvsnnError:  # it is refused later, by name
            continue
        n = samples_that_fit(circuit, n_corrected[T])
        tensors.append(correct_bytes(circuit, n) + scratch)
        neurons = sum(p.n_neurons for p in circuit.populations)
        tensors.append(12 * neurons * n_held_out + batch)
        runs.append(sum(simulator.memory_bytes.values()) + simulator.result_bytes(n_held_out))
    return {
        "samples": sample * (max(n_corrected.values(), default=0) + 2 * n_held_out),
        "tensors": max(tensors),
        "runs": max(runs),
    }
