"""What is compared: evsnn, onnxruntime on the ANN, and spiking libraries on the same folded network.

An engine is opened in a process of its own (`workers`), on one image. The spiking libraries need torch and
stand in `torch_peers`; a library that is not installed is left out of a comparison and named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import networks
import numpy as np

__all__ = ["ALL", "DEFAULT", "PACKAGES", "SPIKING", "Engine", "open_engine"]

DEFAULT = ("evsnn-float32", "evsnn-int8", "onnxruntime-fp32", "onnxruntime-int8", "spikingjelly")
ALL = (*DEFAULT, "spikingjelly-channels-last", "sinabs", "snntorch")
SPIKING = tuple(name for name in ALL if not name.startswith("onnxruntime"))
PACKAGES = ("numpy", "numba", "llvmlite", "onnxruntime", "torch", "spikingjelly", "sinabs", "snntorch")


@dataclass(frozen=True)
class Engine:
    """Something that classifies one image.

    Parameters
    ----------
    run : callable
        One inference; returns (classes,) outputs.
    spike_counts : callable, optional
        One inference; returns the spikes of each neuron, an array (channels, height, width) or (features,)
        for each population that fires, in order.
    facts : dict
        What is known without measuring: ``planned_bytes``, ``sops``, ``layers``.
    """

    run: Callable[[], np.ndarray]
    spike_counts: Callable[[], list[np.ndarray]] | None = None
    facts: dict = field(default_factory=dict)


def open_engine(name: str, network: str, cache: Path, n_steps: int) -> Engine:
    """The engine `name`, ready to run the first image of a built network.

    Raises
    ------
    ImportError
        If its library is not installed.
    ValueError
        If there is no such engine.
    """
    library, _, variant = name.partition("-")
    if name not in ALL:
        raise ValueError(f"no engine {name!r}: one of {', '.join(ALL)}")
    if library == "evsnn":
        return _evsnn(network, cache, n_steps, variant)
    if library == "onnxruntime":
        return _onnxruntime(network, cache, variant)
    import torch_peers

    return torch_peers.open_peer(library, variant == "channels-last", network, cache, n_steps)


def _evsnn(network: str, cache: Path, n_steps: int, arithmetic: str) -> Engine:
    import evsnn

    image = networks.images(network, cache)[:1]
    simulator = evsnn.Simulator(
        evsnn.load(networks.path(cache, network, ".h5")), n_steps, arithmetic=arithmetic, threads=1
    )
    planned = dict(simulator.memory_bytes)
    simulator.prepare()
    result = simulator.run(image)
    layers = [
        {
            "name": layer.name,
            "projection": layer.projection,
            "shape": layer.shape,
            "sops": layer.sops,
            "macs": layer.macs,
            "time_ms": layer.time_ms,
            "rate": result.rate(layer) if layer.fires else None,
        }
        for layer in result.layers
    ]

    def spike_counts() -> list[np.ndarray]:
        after_another = np.concatenate(
            [networks.images(network, cache)[1:2], image]
        )  # nothing may be left of a sample
        return [
            layer.spike_counts[1]
            for layer in simulator.run(after_another, record=("spike_counts",)).layers
            if layer.fires
        ]

    facts = {
        "planned_bytes": planned,
        "sops": result.sops_per_sample,
        "mean_rate": result.mean_rate,
        "backend": result.backend,
        "layers": layers,
    }
    return Engine(lambda: simulator.run(image).outputs[0], spike_counts, facts)


def _onnxruntime(network: str, cache: Path, precision: str) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    file = networks.path(cache, network, "-int8.onnx" if precision == "int8" else ".onnx")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feed = {"image": networks.images(network, cache)[:1]}
    return Engine(lambda: session.run(None, feed)[0][0])
