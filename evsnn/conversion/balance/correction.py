"""Bias correction, layer by layer: a layer's mean output is brought to the ANN's.

With few steps, the mean rates of a spiking layer differ from the ANN's activations, channel by channel. The
causes are quantization, clipping, and the times at which spikes arrive (the unevenness error of Bu et al.
2022). A bias corrects it (Li et al. 2021). Each layer is simulated on calibration inputs after the layers
before it are corrected. The mean difference becomes a bias, which is kept if it lowers the channel's squared
error.

A population is simulated over all steps and samples at once, with the currents of `currents`: the sums are
the same, but their order is not the specified one. Graded spikes need no steps: what is sent is a count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ...circuit.neuron import Membranes
from ...circuit.populations import INPUT, Circuit, MaxPool, Population
from ...network.layers import IF
from ...parallel import in_parallel
from ..onnx.operators import OPERATORS
from .currents import Sent, analog_current, last_uses, spiking_current

__all__ = [
    "MAX_BYTES",
    "Correction",
    "correct",
    "correct_bytes",
    "fire",
    "pooled",
    "samples_that_fit",
    "sent_type",
    "total_currents",
]

ROUNDS = 3
MAX_BYTES = 512 << 20
"""Most memory for the currents of one population."""
AT_ONCE = 65_536
"""How many neurons are computed through all steps together, so that their membranes stay in a cache."""


@dataclass(frozen=True, eq=False)
class Correction:
    """The correction of one population.

    Parameters
    ----------
    bias : (channels,) float64
        It is added to the current of every step; of pairs, with the other sign to that of each second neuron.
    error_before, error_after : float
        The root mean square difference between rates (of a readout: outputs) and the ANN's activations.
    """

    bias: np.ndarray
    error_before: float
    error_after: float


def samples_that_fit(circuit: Circuit, n_samples: int, max_bytes: int = MAX_BYTES) -> int:
    """How many samples `correct` can take at once, 0 to `n_samples`.

    Currents take 4 bytes per neuron and step, spikes take one, and graded ones 4.

    Parameters
    ----------
    circuit : Circuit
    n_samples : int
        The samples that there are.
    max_bytes : int

    Returns
    -------
    int
    """
    charged = (p for p in circuit.populations if not isinstance(p, MaxPool))
    sent = sent_type(circuit).itemsize
    largest = max(p.n_neurons * (4 + sent if p.projections else sent) for p in charged)
    return min(n_samples, max_bytes // (largest * circuit.n_sends))


def sent_type(circuit: Circuit) -> np.dtype:
    """What is sent in a step, or in all of them as a count."""
    return np.dtype(np.float32 if circuit.coding == "graded" else np.int8)


def correct_bytes(circuit: Circuit, n_samples: int) -> int:
    """Bytes that `correct` takes for so many samples, with those of its targets while they are made.

    Parameters
    ----------
    circuit : Circuit
    n_samples : int
    """
    last, n_steps, most = last_uses(circuit), circuit.n_sends, 0
    alive: dict[int, int] = {}
    for i, p in enumerate(circuit.populations):
        own, work = n_steps * p.n_neurons * p.fires * sent_type(circuit).itemsize, 0
        if not isinstance(p, MaxPool):
            work = p.n_neurons * (4 * (n_steps if p.projections else 1) + 16)
            pooled = (s for projection in p.projections for s in projection.sources if s.pool is not None)
            work += sum(4 * n_steps * s.shape[0] * math.prod(s.seen_size) for s in pooled)
        most = max(most, sum(alive.values()) + own + work)
        alive[i] = own
        for done in [j for j in alive if last.get(j, -1) <= i and j != i]:
            del alive[done]
    targets = sum(p.n_neurons for p in circuit.populations if not isinstance(p, MaxPool))
    return n_samples * (most + 8 * targets)


def correct(
    circuit: Circuit,
    images: np.ndarray,
    targets: Mapping[str, np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Correction]:
    """Correct every population of a circuit, in the circuit's order.

    Parameters
    ----------
    circuit : Circuit
        In floats.
    images : (n, channels, height, width) float32
    targets : mapping of str to (n, channels, height, width)
        The ANN's activations at each `IF` and its scores at the readout, on these images. Populations without
        a target stay as they are.
    progress : callable (done, total), optional

    Returns
    -------
    dict of str to Correction
        By the name of the population.
    """
    n_samples, n_steps = len(images), circuit.n_sends
    per_send = circuit.n_steps // n_steps  # steps whose input is in what is sent once
    last = last_uses(circuit)
    sent: dict[int, np.ndarray] = {INPUT: images}
    corrections: dict[str, Correction] = {}
    for i, population in enumerate(circuit.populations):
        target = targets.get(population.name)
        if isinstance(population, MaxPool):
            sent[i] = pooled(population, sent[population.source.population], n_steps)
        elif population.fires:
            currents = total_currents(population, images, sent, n_steps, per_send)
            spikes = np.empty(
                (n_samples, n_steps, *population.shape[1:], population.shape[0]), sent_type(circuit)
            ).transpose(0, 1, 4, 2, 3)
            if target is None:
                fire(population, currents, np.zeros(population.shape[0]), spikes, per_send)
            else:
                layer = circuit.network.by_name[population.name]
                slope = layer.negative_slope if isinstance(layer, IF) else None
                corrections[population.name] = _corrected(
                    population, currents, target, spikes, slope, circuit.n_steps
                )
            sent[i] = spikes.reshape(n_samples * n_steps, *population.shape)
            del currents, spikes  # else they would be there while the next are made
        elif target is not None:
            currents = total_currents(population, images, sent, n_steps, per_send)
            difference = target - currents.mean(axis=1) / np.float32(per_send)
            del currents
            mean = difference.mean(axis=(0, 2, 3), dtype=np.float64)
            corrections[population.name] = Correction(
                mean, _root(difference), _root(difference - mean[:, None, None])
            )
        for done in [j for j in sent if j != INPUT and last.get(j, -1) <= i and j != i]:
            del sent[done]
        if progress:
            progress(i + 1, len(circuit.populations))
    return corrections


def total_currents(
    population: Population, images: np.ndarray, sent: Sent, n_sends: int, per_send: int
) -> np.ndarray:
    """The currents with the population's own bias, channels-last in memory.

    Parameters
    ----------
    population : Population
    images : (n, channels, height, width) float32
    sent : mapping of int to (n n_sends, channels, height, width)
        What the populations before have sent.
    n_sends, per_send : int
        T and 1; of graded spikes 1 and T.

    Returns
    -------
    (n, n_sends, channels, height, width) float32
        Of each step; of graded spikes, of all steps together.
    """
    n_samples, n_steps = len(images), n_sends
    constant = analog_current(population, images)
    constant = (
        population.bias[:, None, None] if constant is None else constant + population.bias[:, None, None]
    )
    constant = np.broadcast_to(constant, (n_samples, *population.shape))
    if per_send > 1:
        constant = constant * np.float32(per_send)
    spiking = spiking_current(population, sent)
    if spiking is None:
        return np.broadcast_to(constant[:, None], (n_samples, n_steps, *population.shape))
    currents = spiking.reshape(n_samples, n_steps, *population.shape)
    currents += constant[:, None]
    return currents


def _corrected(
    population: Population,
    currents: np.ndarray,
    target: np.ndarray,
    spikes: np.ndarray,
    negative_slope: np.ndarray | None,
    n_steps: int,
) -> Correction:
    """Add the mean error, or half of it, to the bias of each channel whose squared error it lowers.

    `spikes` are those of the bias that is kept. The error of a pair is that of its value.
    """
    amplitude = (population.neuron.threshold / n_steps)[:, None, None]

    def errors(bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean error and the mean squared error of every channel."""
        if negative_slope is not None:
            bias = np.stack([bias, -bias], axis=1).reshape(-1)
        per_send = n_steps // currents.shape[1]
        difference = target - amplitude * fire(population, currents, bias, spikes, per_send)
        if negative_slope is not None:
            slope = negative_slope.reshape(-1, 1, 1)
            difference = difference[:, 0::2] - slope * difference[:, 1::2]
        return difference.mean(axis=(0, 2, 3), dtype=np.float64), np.square(difference).mean(
            axis=(0, 2, 3), dtype=np.float64
        )

    bias = np.zeros(population.shape[0] // (1 if negative_slope is None else 2))
    step, least = errors(bias)
    before = least
    for _ in range(ROUNDS):
        mean, squared = errors(bias + step)
        better = squared < least
        bias = np.where(better, bias + step, bias)
        least = np.where(better, squared, least)
        step = np.where(better, mean, step / 2)
    errors(bias)  # fills `spikes`
    return Correction(bias, float(np.sqrt(before.mean())), float(np.sqrt(least.mean())))


def fire(
    population: Population, currents: np.ndarray, bias: np.ndarray, spikes: np.ndarray, per_send: int = 1
) -> np.ndarray:
    """Compute the neurons of `evsnn.circuit.neuron` over all steps.

    Parameters
    ----------
    population : Population
    currents : (n, n_steps, channels, height, width) float32
    bias : (channels,)
        It is added to the current of every step.
    spikes : (n, n_steps, channels, height, width) int8
        It is filled with -1, 0 or 1; of graded spikes (n, 1, ...) float32, with counts.
    per_send : int
        The steps in which the bias is added before neurons send: T for graded spikes.

    Returns
    -------
    (n, channels, height, width) float32
        The net counts.
    """
    neuron, bias = population.neuron, np.ascontiguousarray(bias, np.float32)
    n, n_steps, channels, height, width = currents.shape
    if neuron.levels is not None:
        return _fire_graded(population, currents, bias, spikes, per_send)
    counts = np.empty((n, height, width, channels), np.float32)
    at_once = max(1, AT_ONCE // (height * width * channels))

    def run(start: int) -> None:
        some = slice(start, start + at_once)
        membranes = Membranes(neuron, counts[some].shape, -1, np.float32, np.float32)
        for t in range(n_steps + neuron.warm_up_steps):
            if t < n_steps:
                membranes.leak()
                membranes.v += currents[some, t].transpose(0, 2, 3, 1)
                membranes.v += bias
            if t >= neuron.warm_up_steps:
                membranes.fire(spikes[some, t - neuron.warm_up_steps].transpose(0, 2, 3, 1))
        counts[some] = membranes.n

    in_parallel(run, range(0, n, at_once))
    return counts.transpose(0, 3, 1, 2)


def _fire_graded(
    population: Population, currents: np.ndarray, bias: np.ndarray, spikes: np.ndarray, n_steps: int
) -> np.ndarray:
    """What `fire` does, for graded spikes: one count each, by a division in float32."""
    neuron, levels = population.neuron, population.neuron.levels or 0
    first = (neuron.v_init + np.float32(n_steps) * bias).reshape(-1, 1, 1)
    step = np.float32(1) / neuron.threshold.reshape(-1, 1, 1)
    at_once = max(1, AT_ONCE // population.n_neurons)

    def run(start: int) -> None:
        some = slice(start, start + at_once)
        counts = (currents[some, 0] + first) * step
        np.floor(counts, out=counts)
        np.clip(counts, 0, levels, out=spikes[some, 0])

    in_parallel(run, range(0, len(currents), at_once))
    return spikes[:, 0]


def pooled(pool: MaxPool, spikes: np.ndarray, n_steps: int) -> np.ndarray:
    """The net spikes of a max pool: the largest count of each window, step by step, or the count itself."""
    if spikes.dtype == np.float32:
        return OPERATORS["MaxPool"](
            spikes, kernel_shape=pool.window.kernel, strides=pool.window.stride, pads=pool.window.padding
        )
    pooled = np.empty((len(spikes), *pool.shape[1:], pool.shape[0]), np.int8).transpose(0, 3, 1, 2)
    for first in range(0, len(spikes), n_steps):  # sample by sample: counts are wider than spikes
        counts = np.cumsum(spikes[first : first + n_steps], axis=0, dtype=np.float32)
        largest = OPERATORS["MaxPool"](
            counts, kernel_shape=pool.window.kernel, strides=pool.window.stride, pads=pool.window.padding
        )
        pooled[first : first + n_steps] = np.diff(largest, axis=0, prepend=0)
    return pooled


def _root(difference: np.ndarray) -> float:
    return float(np.sqrt(np.square(difference).mean()))
