"""What a run gives back: plain numbers and arrays, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .errors import RunError
from .network.step_parameters import ReadOnly

__all__ = ["LayerResult", "Result"]


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerResult:
    """One population (an `IF` layer, a max pool, or the readout), summed over a run.

    Parameters
    ----------
    name : str
        The layer's name; a max pool of several concatenated layers has a row for each: ``pool[0]``,
        ``pool[1]``.
    projection : str
        What charges it, in a few words: ``"conv2d 3x3"``, ``"conv2d 3x3 + identity"``, ``"linear"``,
        ``"maxpool2d 3x3"``.
    shape : tuple of int
        Without the batch: ``(channels, height, width)`` or ``(features,)``.
    n_spikes : int
        Spikes emitted, negative ones too, over all samples and steps; 0 for a readout that never fires.
    n_events : int
        Events that reached it (an average-pooled position counts once), over all samples and steps.
    sops : int
        Synaptic operations: weight additions done, borders exact, over all samples and steps; 0 for a max
        pool.
    macs : int
        Multiply-adds of the current that the analog input brings, computed once a sample, over all samples.
    time_ms : float
        Time in this layer, summed over samples (and threads).
    fires : bool
        False for a readout that only integrates.
    spike_counts : (n_samples, *shape) int32, optional
        Spikes of each neuron, less its negative ones; only when asked for.
    v_mem : (n_samples, *shape), optional
        Membranes after the last step, float32 or integer; only when asked for, and never of a max pool.
    spikes : (n_samples, n_steps, *shape) bool, optional
        The spike trains, int8 of -1, 0 and 1 if neurons have negative spikes; only when asked for.
    """

    name: str
    projection: str
    shape: tuple[int, ...]
    n_spikes: int
    n_events: int
    sops: int
    macs: int
    time_ms: float
    fires: bool = True
    spike_counts: np.ndarray | None = None
    v_mem: np.ndarray | None = None
    spikes: np.ndarray | None = None

    @property
    def n_neurons(self) -> int:
        """Neurons, or outputs of a max pool."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """The outcome of a run.

    Parameters
    ----------
    outputs : (n_samples, *output_shape) float64
        The readout's mean current (or mean emitted amplitude) per step: what the ANN gives, scores of classes
        or values.
    n_steps : int
    arithmetic : {"float32", "int8"}
    backend : {"numba", "reference"}
        The event-driven engine, or the NumPy reference.
    threads : int
    latency_ms : (n_samples,) float64
        Wall time from a sample's arrival to its outputs.
    layers : tuple of LayerResult
        In order: each `IF` and max pool, and last the readout if it integrates. Their sums are the run's
        totals.
    labels : (n_samples,) int64, optional
    outputs_at : mapping of int to (n_samples, *output_shape) float64
        By step t, ascending: the mean over the first t steps, with the biases and the shift of the whole run;
        at the steps asked for, and after the last one, where it is `outputs`.
    task : {"classify", "regress", "none"}
        The network's: how outputs are read.
    """

    outputs: np.ndarray
    n_steps: int
    arithmetic: str
    backend: str
    threads: int
    latency_ms: np.ndarray
    layers: tuple[LayerResult, ...] = field(repr=False)
    labels: np.ndarray | None = field(default=None, repr=False)
    outputs_at: Mapping[int, np.ndarray] = field(default_factory=lambda: ReadOnly({}), repr=False)
    task: str = "classify"

    @property
    def n_samples(self) -> int:
        return self.outputs.shape[0]

    @property
    def predictions(self) -> np.ndarray | None:
        """(n_samples,) int64: the class with the largest output, the first of equals; None if the
        network's task is not to classify.
        """
        return self.outputs.argmax(axis=1) if self.task == "classify" else None

    @property
    def accuracy(self) -> float | None:
        """Share of predictions that equal the labels; None without labels."""
        if self.labels is None or self.predictions is None:
            return None
        return float((self.predictions == self.labels).mean())

    def agreement(self, other: Result) -> float | None:
        """Share of predictions that are another result's, too; None if the task is not to classify."""
        mine, others = self.predictions, other.predictions
        return None if mine is None or others is None else float((mine == others).mean())

    def deviation(self, other: Result) -> float:
        """Root mean square of the difference from another result's outputs, in their unit."""
        return float(np.sqrt(np.square(self.outputs - other.outputs).mean()))

    def predictions_at(self, n_steps: int) -> np.ndarray | None:
        """(n_samples,) int64: `predictions` after the first `n_steps`, one of the steps in `outputs_at`."""
        if n_steps not in self.outputs_at:
            raise RunError(
                "the run was not read after this step",
                got=n_steps,
                expected=", ".join(map(str, self.outputs_at))[:80],
                hint="name it in record_steps",
            )
        return self.outputs_at[n_steps].argmax(axis=1) if self.task == "classify" else None

    def accuracy_at(self, n_steps: int) -> float | None:
        """`accuracy` after the first `n_steps`, one of the steps in `outputs_at`."""
        predictions = self.predictions_at(n_steps)
        if self.labels is None or predictions is None:
            return None
        return float((predictions == self.labels).mean())

    @property
    def sops_per_sample(self) -> float:
        return sum(layer.sops for layer in self.layers) / self.n_samples

    @property
    def spikes_per_sample(self) -> float:
        return sum(layer.n_spikes for layer in self.layers) / self.n_samples

    @property
    def mean_rate(self) -> float:
        """Spikes per neuron and step, over the layers that fire; 0 without any."""
        neurons = sum(layer.n_neurons for layer in self._firing)
        return self.spikes_per_sample / (neurons * self.n_steps) if neurons else 0.0

    def rate(self, layer: LayerResult) -> float:
        """Spikes per neuron and step in one layer."""
        return layer.n_spikes / (layer.n_neurons * self.n_steps * self.n_samples)

    @property
    def _firing(self) -> tuple[LayerResult, ...]:
        return tuple(layer for layer in self.layers if layer.fires)
