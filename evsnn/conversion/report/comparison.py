"""Where a spiking network differs from its ANN: both run on the same inputs, and are compared layer by layer.

A neuron's mean output is ``s = V_th n / T`` (n: its net count), and the ANN's activation at the same place is
a. With V = V_th, the error s - a is the sum of three parts (Bu et al. 2022):

``clipping``       min(a, V) - a: a neuron sends at most one spike per step
``quantization``   q(a) - min(a, V): outputs are multiples of V/T, see `thresholds.rate`; with the shift of
                   V/2 the nearest one, without it the one below
``unevenness``     s - q(a): input that comes unevenly (graded spikes have none of that), and the errors of
                   the layers before

The share of a part is its scalar product with the error over that of the error with itself. So shares sum to
1. A share below 0 means that the part reduces the error of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ...circuit.populations import INPUT, Circuit, MaxPool, Population, Source
from ...errors import ModelError
from ...network.geometry import Window
from ...network.layers import IF
from ...result import Result
from ...simulation import Simulator
from ..balance.thresholds import rate
from ..lowering.ann import Ann, forward_all
from ..needs import samples_at_once
from ..onnx.operators import OPERATORS

__all__ = ["RESPONSE_EDGES", "Comparison", "LayerExplanation", "ann_macs", "compare"]

RESPONSE_EDGES = np.linspace(0, 1.5, 25)
"""The edges of the ranges of a/V_th for which a layer's mean output is kept."""

_EXCESS = 1 + 1e-5  # an activation this much above V_th differs from it by more than the order of a sum
_LEAST_SEEN = 8  # activations from which on a mean output is given
_LEAST_VARIANCE = 1e-10  # of the mean square: below it, sums in float64 give no correlation


@dataclass(frozen=True, eq=False)
class LayerExplanation:
    """One layer of neurons, a max pool or the readout: the SNN's output against the ANN's.

    Parameters
    ----------
    name : str
    projection : str
        Its projections in a few words.
    sources : tuple of str
        The layers (rows of the report) that it reads; empty if it reads the input alone.
    shape : tuple of int
        Without the batch: (channels, height, width) or (features,).
    v_threshold : (channels,) float64, optional
        The amplitudes of spikes; a max pool has those of its source. None: a readout that integrates.
    n_samples, n_steps : int
        What was compared.
    ann_mean, ann_rms : float
        Mean and root mean square of the ANN's activations.
    snn_mean : float
        Mean of the SNN's outputs.
    error : float
        Root mean square of the difference between outputs, divided by `ann_rms` unless that is 0.
    correlation : float, optional
        Pearson's correlation of both, over neurons and samples; None if one of them does not vary.
    saturated : float, optional
        Share of activations above V_th.
    clipping, quantization, unevenness : float, optional
        Shares of the squared error, which sum to 1; None if there is no error, or no threshold.
    response : (24,) float64, optional
        Mean of s/V_th over the activations with a/V_th in each range of `RESPONSE_EDGES`; NaN if there are
        fewer than 8.
    n_spikes, sops : int
        Counts over all samples.
    macs : int
        Multiply-adds of the source model per sample, without those that a border cuts off. Those of layers
        that were made one count where the first neurons behind them are.
    analog_macs : int
        Multiply-adds that the spiking network does, too: for the current of the analog input.
    dead : int
        Channels that are never active.
    correction : float, optional
        Root mean square of the bias correction over `ann_rms`; None if there was none.
    diagnosis : str
        What is wrong and what to do about it; empty if nothing is wrong.
    coding : {"steps", "graded"}
    """

    name: str
    projection: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    v_threshold: np.ndarray | None
    n_samples: int
    n_steps: int
    ann_mean: float
    ann_rms: float
    snn_mean: float
    error: float
    correlation: float | None
    saturated: float | None
    clipping: float | None
    quantization: float | None
    unevenness: float | None
    response: np.ndarray | None
    n_spikes: int
    sops: int
    macs: int
    analog_macs: int
    dead: int
    correction: float | None = None
    diagnosis: str = ""
    coding: str = "steps"

    @property
    def n_neurons(self) -> int:
        """Neurons, or outputs of a max pool."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def fires(self) -> bool:
        return self.v_threshold is not None

    @property
    def rate(self) -> float | None:
        """Spikes per neuron and step; of graded spikes, per neuron. None if it never fires."""
        n_sends = self.n_steps if self.coding == "steps" else 1
        return self.n_spikes / (self.n_neurons * n_sends * self.n_samples) if self.fires else None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Both networks on the same inputs.

    Parameters
    ----------
    outputs : mapping of str to (n, ...) float64
        The SNN's outputs, by the name of the readout.
    layers : tuple of LayerExplanation
        In the circuit's order, readouts that integrate last.
    """

    outputs: Mapping[str, np.ndarray]
    layers: tuple[LayerExplanation, ...]


def compare(
    ann: Ann, simulator: Simulator, images: np.ndarray, progress: Callable[[int, int], None] | None = None
) -> Comparison:
    """Run the ANN and its spiking network on `images`.

    The ANN's activations are freed layer by layer; spike counts are held for as many samples at a time as fit
    into 256 MiB.

    Parameters
    ----------
    ann : Ann
        Its `IF` layers have the names of those of the spiking network.
    simulator : Simulator
    images : (n, *input_shape)
        At least one.
    progress : callable (done, total), optional
        It is called after each sample of the SNN.

    Returns
    -------
    Comparison

    Raises
    ------
    ModelError
        If the ANN does not belong to the network.
    """
    circuit = simulator.circuit
    unknown = [
        p.name
        for i, p in enumerate(circuit.populations)
        if isinstance(p, Population) and i not in circuit.readouts and p.name not in ann.network.by_name
    ]
    if unknown:
        raise ModelError(
            "the spiking network has neurons that its ANN lacks",
            got=repr(unknown[0]),
            expected="the names of the ANN's layers",
        )
    batch = samples_at_once(circuit, len(images))
    tallies = [
        _Tally(amplitudes(circuit, i), simulator.n_steps, _shift(circuit, i), _levels(circuit, i))
        for i in range(len(circuit.populations))
    ]
    totals = np.zeros((len(tallies), 2), np.int64)
    outputs: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(images), batch):

        def tell(done: int, _: int, start: int = start) -> None:
            if progress:
                progress(start + done, len(images))

        part = images[start : start + batch]
        result = simulator.run(part, record="spike_counts", progress=tell)
        totals += [(layer.n_spikes, layer.sops) for layer in result.layers]
        for name, values in result.named_outputs.items():
            outputs.setdefault(name, []).append(values)
        _follow(ann, part, circuit, result, tallies)
    layers = tuple(
        _explanation(ann, circuit, i, tally, len(images), int(n_spikes), int(sops))
        for i, (tally, (n_spikes, sops)) in enumerate(zip(tallies, totals))
    )
    return Comparison({name: np.concatenate(parts) for name, parts in outputs.items()}, layers)


def ann_macs(population: Population | MaxPool) -> int:
    """A population's multiply-adds in the ANN, per sample, without those that a border cuts off."""
    if isinstance(population, MaxPool):
        return 0
    projections = [
        s
        for s in (*population.analog_projections, *population.projections)
        if not s.negative and s.label != "identity"
    ]  # an identity shortcut has no multiplications
    return sum(projection.fan_out * projection.shape[0] for projection in projections)


def amplitudes(circuit: Circuit, i: int) -> np.ndarray | None:
    """The amplitude of a spike of population `i`, (channels,) float64; None if it never fires."""
    population = circuit.populations[i]
    if isinstance(population, MaxPool):
        return amplitudes(circuit, population.source.population)
    v_threshold = population.neuron.v_threshold
    return None if v_threshold is None else v_threshold.astype(np.float64)


def _shift(circuit: Circuit, i: int) -> float:
    """The shift of a run that the neurons of population `i` have, as a share of their threshold."""
    population = circuit.populations[i]
    if isinstance(population, MaxPool):
        return _shift(circuit, population.source.population)
    layer = circuit.network.by_name[population.name]
    return 0.5 if isinstance(layer, IF) and layer.shift and circuit.network.shift != "none" else 0.0


def _levels(circuit: Circuit, i: int) -> int:
    """The largest count of a neuron of population `i`, or of what a max pool reads."""
    population = circuit.populations[i]
    if isinstance(population, MaxPool):
        return _levels(circuit, population.source.population)
    return population.neuron.levels or circuit.n_steps


def _follow(ann: Ann, images: np.ndarray, circuit: Circuit, result: Result, tallies: list[_Tally]) -> None:
    """Compute the ANN's activations, and compare them with what the SNN sent."""
    populations = circuit.populations
    index = {population.name: i for i, population in enumerate(populations)}
    pools: dict[int, list[tuple[int, Window]]] = {}
    for i, population in enumerate(populations):
        if isinstance(population, MaxPool):
            pools.setdefault(population.source.population, []).append((i, population.window))

    def take(i: int, activation: np.ndarray) -> None:
        counts = result.layers[i].spike_counts
        if counts is not None:
            tallies[i].add(activation, counts)
        for j, window in pools.get(i, ()):
            take(
                j,
                OPERATORS["MaxPool"](
                    activation, kernel_shape=window.kernel, strides=window.stride, pads=window.padding
                ),
            )

    def observe(name: str, current: np.ndarray, activation: np.ndarray) -> None:
        if name in index and populations[index[name]].fires:
            take(index[name], activation)

    outputs = forward_all(ann, images, batch=len(images), observe=observe)
    for j, (name, values) in zip(circuit.readouts, outputs.items()):
        if not populations[j].fires:
            tallies[j].add(values, result.named_outputs[name])
        elif populations[j].name not in ann.network.by_name:
            take(j, np.maximum(values, 0))  # neurons of a readout of spikes, which the ANN does not have


class _Tally:
    """Sums over one layer, which are made sample by sample so that arrays stay in the cache."""

    def __init__(self, v_threshold: np.ndarray | None, n_steps: int, shift: float, levels: int):
        self.v_threshold, self.n_steps, self.shift, self.levels = v_threshold, n_steps, shift, levels
        self.count = 0
        self.sums = np.zeros(6)  # of a, s, a a, s s, a s, (s - a)^2
        self.parts = np.zeros(3)  # scalar products of the error with clipping, quantization, unevenness
        self.n_saturated = 0
        self.maximum: np.ndarray | float = 0.0
        self.response = np.zeros((2, len(RESPONSE_EDGES) - 1))  # how many activations, and the sum of s/V

    def add(self, activations: np.ndarray, sent: np.ndarray) -> None:
        """Add the ANN's activations and the net counts (of a readout that integrates: the outputs).

        Both are (n, channels, ...).
        """
        for activation, counts in zip(activations, sent):
            a = np.ascontiguousarray(activation, np.float64).reshape(len(activation), -1)
            s = counts.reshape(a.shape).astype(np.float64)
            if self.v_threshold is not None:
                v = self.v_threshold[:, None]
                s *= v / self.n_steps
                self._add_parts(a, s, v * (self.levels / self.n_steps))
            error = s - a
            self.count += a.size
            self.sums += a.sum(), s.sum(), _dot(a, a), _dot(s, s), _dot(a, s), _dot(error, error)
            self.maximum = np.maximum(self.maximum, a.max(axis=1))

    def _add_parts(self, a: np.ndarray, s: np.ndarray, v: np.ndarray) -> None:
        clipped, rounded, error = np.minimum(a, v), rate(a, v, self.levels, self.shift), s - a
        self.parts += _dot(error, clipped - a), _dot(error, rounded - clipped), _dot(error, s - rounded)
        self.n_saturated += np.count_nonzero(a > v * _EXCESS)
        active = np.flatnonzero(a > 0)
        relative = (a / v).reshape(-1)[active]
        part = (relative * (self.response.shape[1] / RESPONSE_EDGES[-1])).astype(np.int64)
        inside = part < self.response.shape[1]
        part, values = part[inside], (s / v).reshape(-1)[active][inside]
        self.response += (
            np.bincount(part, minlength=self.response.shape[1]),
            np.bincount(part, values, self.response.shape[1]),
        )

    @property
    def correlation(self) -> float | None:
        a, s, aa, ss, product, _ = self.sums / self.count
        variances = aa - a * a, ss - s * s
        if variances[0] <= _LEAST_VARIANCE * aa or variances[1] <= _LEAST_VARIANCE * ss:
            return None
        return float(min(1.0, (product - a * s) / np.sqrt(variances[0] * variances[1])))

    @property
    def shares(self) -> tuple[float | None, float | None, float | None]:
        """The shares of clipping, quantization and unevenness in the squared error."""
        total = self.sums[5]
        if self.v_threshold is None or total <= _LEAST_VARIANCE * self.sums[2] or not total:
            return None, None, None
        clipping, rounding, unevenness = (float(part / total) for part in self.parts)
        return clipping, rounding, unevenness


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return np.einsum("ij,ij", a, b)  # BLAS would start its threads for each product


def _explanation(
    ann: Ann, circuit: Circuit, i: int, tally: _Tally, n_samples: int, n_spikes: int, sops: int
) -> LayerExplanation:
    population, count = circuit.populations[i], tally.count
    ann_rms, error = float(np.sqrt(tally.sums[2] / count)), float(np.sqrt(tally.sums[5] / count))
    clipping, quantization, unevenness = tally.shares
    fires = tally.v_threshold is not None
    seen, summed = tally.response
    response = np.divide(summed, seen, out=np.full_like(summed, np.nan), where=seen >= _LEAST_SEEN)
    return LayerExplanation(
        population.name,
        population.label,
        tuple(circuit.populations[s.population].name for s in _sources(population)),
        population.output_shape,
        tally.v_threshold,
        n_samples,
        circuit.n_steps,
        float(tally.sums[0] / count),
        ann_rms,
        float(tally.sums[1] / count),
        error / (ann_rms or 1.0),
        tally.correlation,
        tally.n_saturated / count if fires else None,
        clipping,
        quantization,
        unevenness,
        response if fires else None,
        n_spikes,
        sops,
        ann.macs.get(population.name, 0) if ann.macs else ann_macs(population),
        population.macs,
        int(np.count_nonzero(np.broadcast_to(tally.maximum, population.shape[:1]) <= 0)) if fires else 0,
        coding=circuit.coding,
    )


def _sources(population: Population | MaxPool) -> list[Source]:
    """The populations that a population reads, each once."""
    if isinstance(population, MaxPool):
        return [population.source]
    sources = {
        s.population: s
        for projection in population.projections
        for s in projection.sources
        if s.population != INPUT
    }
    return list(sources.values())
