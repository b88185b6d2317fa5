"""Spiking libraries on the folded networks: SpikingJelly, sinabs, snnTorch.

Each uses its own soft-reset integrate-and-fire neuron (threshold 1, one spike a step at most, membranes from
0) between torch's convolutions, in the fastest order the library offers: a layer for all steps at once
("multi-step") in SpikingJelly and sinabs, step by step in snnTorch. The first layer's current is the same at
every step and computed once, as evsnn does.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import networks
import numpy as np
import torch
from networks import INPUT, Population
from peers import Engine
from torch import nn
from torch.nn.functional import avg_pool2d

__all__ = ["open_peer"]


class Current(nn.Module):
    """What charges one population: pool, weights, shortcut."""

    def __init__(self, population: Population):
        super().__init__()
        projection = self.projection = population.projection
        self.weighted = _weighted(
            projection.kind, population.weight, population.bias, projection.stride, projection.padding
        )
        self.scale = float(population.shortcut_scale)
        self.shortcut = (
            None
            if population.shortcut_weight is None
            else _weighted("conv", population.shortcut_weight, None, 1, 0)
        )

    def forward(self, spikes: dict[int, torch.Tensor]) -> torch.Tensor:
        projection = self.projection
        source = spikes[projection.source]
        if projection.pool > 1:
            source = avg_pool2d(source, projection.pool)
        current = self.weighted(source.flatten(1) if projection.kind == "linear" else source)
        if projection.shortcut is None:
            return current
        shortcut = spikes[projection.shortcut]
        if projection.shortcut_pool > 1:
            shortcut = avg_pool2d(shortcut, projection.shortcut_pool)
        if self.shortcut is None:
            return torch.add(current, shortcut, alpha=self.scale)
        return current + self.shortcut(shortcut)


def _weighted(kind: str, weight: np.ndarray, bias: np.ndarray | None, stride: int, padding: int) -> nn.Module:
    n_out, n_in, *kernel = weight.shape
    with torch.device("meta"):  # nothing is allocated or drawn that is thrown away at once
        module = (
            nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=bias is not None)
            if kind == "conv"
            else nn.Linear(n_in, n_out)
        )
    module.weight = nn.Parameter(torch.from_numpy(weight), requires_grad=False)
    if bias is not None:
        module.bias = nn.Parameter(torch.from_numpy(bias), requires_grad=False)
    return module


def open_peer(library: str, channels_last: bool, network: str, cache: Path, n_steps: int) -> Engine:
    """An engine for "spikingjelly", "sinabs" or "snntorch".

    Raises
    ------
    ImportError
        If the library is not installed.
    """
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    currents = nn.ModuleList(
        Current(population) for population in networks.populations(network, cache)
    ).eval()
    image = torch.from_numpy(networks.images(network, cache)[:1])
    if channels_last:
        currents, image = (
            currents.to(memory_format=torch.channels_last),
            image.to(memory_format=torch.channels_last),
        )
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # it misses Triton, which no CPU needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, at import
        neurons, reset = {"spikingjelly": _spikingjelly, "sinabs": _sinabs, "snntorch": _snntorch}[library](
            len(currents) - 1
        )
    forward = _step_by_step if library == "snntorch" else _layer_by_layer
    flat = library == "sinabs"  # its neurons take (batch * steps, ...), SpikingJelly's (steps, batch, ...)

    def run(counts: list[torch.Tensor] | None = None) -> np.ndarray:
        with torch.inference_mode():
            reset()
            return forward(currents, neurons, image, n_steps, flat, counts)[0].numpy()

    def spike_counts() -> list[np.ndarray]:
        counts: list[torch.Tensor] = []
        run(counts)
        return [count.contiguous().numpy().astype(np.int32) for count in counts]

    return Engine(run, spike_counts)


def _layer_by_layer(currents, neurons, image, n_steps, flat, counts):
    """All steps of a layer before the next; with a batch of 1, both orders of batch and steps are one."""
    spikes: dict[int, torch.Tensor] = {}
    for i, neuron in enumerate(neurons):
        if i == 0:
            once = currents[0]({INPUT: image})
            charge = once.expand(n_steps, *once.shape[1:])
        else:
            charge = currents[i](spikes)
        spikes[i] = neuron(charge) if flat else neuron(charge.unsqueeze(1)).squeeze(1)
        if counts is not None:
            counts.append(spikes[i].sum(0))
    return currents[len(neurons)](spikes).sum(0, keepdim=True)


def _step_by_step(currents, neurons, image, n_steps, flat, counts):
    once = currents[0]({INPUT: image})
    output = 0.0
    for _ in range(n_steps):
        spikes: dict[int, torch.Tensor] = {}
        for i, neuron in enumerate(neurons):
            spikes[i] = neuron(once if i == 0 else currents[i](spikes))
            if counts is not None:
                if len(counts) <= i:
                    counts.append(torch.zeros_like(spikes[i][0]))
                counts[i] += spikes[i][0]
        output = output + currents[-1](spikes)
    return output


def _spikingjelly(count: int) -> tuple[list[nn.Module], Callable[[], None]]:
    from spikingjelly.activation_based import functional, neuron

    nodes = [
        neuron.IFNode(v_threshold=1.0, v_reset=None, step_mode="m", detach_reset=True).eval()
        for _ in range(count)
    ]

    def reset() -> None:
        for node in nodes:
            functional.reset_net(node)

    return nodes, reset


def _sinabs(count: int) -> tuple[list[nn.Module], Callable[[], None]]:
    from sinabs.activation import MembraneSubtract, SingleSpike
    from sinabs.layers import IAFSqueeze

    nodes = [
        IAFSqueeze(
            batch_size=1, spike_threshold=torch.tensor(1.0), spike_fn=SingleSpike, reset_fn=MembraneSubtract()
        ).eval()
        for _ in range(count)
    ]

    def reset() -> None:
        for node in nodes:
            node.reset_states()

    return nodes, reset


def _snntorch(count: int) -> tuple[list[nn.Module], Callable[[], None]]:
    import snntorch

    nodes = [
        snntorch.Leaky(beta=1.0, threshold=1.0, reset_mechanism="subtract", init_hidden=True).eval()
        for _ in range(count)
    ]

    def reset() -> None:
        for node in nodes:
            node.mem = torch.zeros(0)  # takes its input's shape at the next call

    return nodes, reset
