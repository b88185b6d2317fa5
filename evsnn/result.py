"""What a run returns: plain numbers and arrays, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .errors import RunError
from .network.reading import predicted_classes
from .network.step_parameters import ReadOnly

__all__ = ["LayerResult", "Result"]


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerResult:
    """What one population (an `IF` layer, a max pool, or the readout) did in a run.

    Parameters
    ----------
    name : str
        The layer's name; a max pool of several concatenated layers has a row for each: ``pool[0]``,
        ``pool[1]``.
    projection : str
        Its projections in a few words: ``"conv2d 3x3"``, ``"conv2d 3x3 + identity"``, ``"linear"``,
        ``"maxpool2d 3x3"``.
    shape : tuple of int
        Without the batch: ``(channels, height, width)`` or ``(features,)``.
    n_spikes : int
        Spikes that it sent, negative ones too, over all samples and steps; 0 for a readout that never fires.
        Graded spikes count once each, whatever they carry.
    n_events : int
        Events that reached it (an average-pooled position counts once), over all samples and steps.
    sops : int
        Synaptic operations: additions of a weight, without those that a border cuts off, over all samples and
        steps; 0 for a max pool.
    macs : int
        Multiply-adds of the current of the analog input, which is computed once per sample, over all samples.
    time_ms : float
        Time in this layer in milliseconds, summed over samples (and threads).
    fires : bool
        False for a readout that only integrates.
    spike_counts : (n_samples, *shape) int32, optional
        The net count of each neuron: its spikes less its negative ones, or what its graded spike carries.
        None unless it is recorded.
    v_mem : (n_samples, *shape) float32 or int64, optional
        Membranes after the last step. None unless they are recorded; a max pool has none.
    spikes : (n_samples, n_steps, *shape) bool, optional
        The spike trains; int8 of -1, 0 and 1 if neurons have negative spikes. Of graded spikes what they
        carry, (n_samples, 1, *shape) uint8. None unless they are recorded.

    Examples
    --------
    >>> first = evsnn.simulate(net, images, record=("spike_counts",)).layers[0]
    >>> first.name, first.projection, first.spike_counts.shape == (len(images), *first.shape)
    ('a', 'conv2d 3x3', True)
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
        """The number of neurons, or of outputs of a max pool."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """What a run found.

    Parameters
    ----------
    outputs : (n_samples, *output_shape) float64
        The readout's mean current per step, or its mean emitted amplitude per step, in units of the ANN's
        outputs: scores of classes, values, or a map.
    n_steps : int
        Steps of the run, or of the block of steps that `Simulator.advance` ran.
    arithmetic : {"float32", "int8"}
        What membranes and weights are.
    backend : {"numba", "reference"}
        The event-driven engine, or the NumPy reference.
    threads : int
        Threads that shared the work.
    latency_ms : (n_samples,) float64
        Wall time of each sample in milliseconds, from its arrival to its outputs.
    layers : tuple of LayerResult
        In order: each `IF` and max pool, and last the readout if it integrates. Their sums are the run's
        totals.
    labels : (n_samples,) int64, optional
        The right classes.
    outputs_at : mapping of int to (n_samples, *output_shape) float64
        By step t, ascending: the mean over the first t steps, with the biases and the shift of the whole run.
        It has the steps that were recorded and the last one, whose entry equals `outputs`.
    named_outputs : mapping of str to (n_samples, ...) float64
        The mean over all steps of every output, by the name of its `Readout`; the first one is `outputs`.
    task : {"classify", "regress", "none"}
        The network's task: how outputs are read.
    coding : {"steps", "graded"}
        Whether neurons send a spike per step, or their count once.

    Examples
    --------
    >>> result = evsnn.simulate(net, images, labels=labels, record_steps=(4,))
    >>> result.n_samples == len(images), sorted(result.outputs_at)
    (True, [4, 16])
    >>> result.accuracy == float((result.predictions == labels).mean())
    True
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
    named_outputs: Mapping[str, np.ndarray] = field(default_factory=lambda: ReadOnly({}), repr=False)
    task: str = "classify"
    coding: str = "steps"

    @property
    def n_samples(self) -> int:
        """The number of samples."""
        return self.outputs.shape[0]

    @property
    def predictions(self) -> np.ndarray | None:
        """(n_samples,) int64: the class with the largest output, of equal ones the first.

        If there is one output, class 1 where it is above 0, else class 0. None if the network's task is not
        to classify.
        """
        return predicted_classes(self.outputs) if self.task == "classify" else None

    @property
    def accuracy(self) -> float | None:
        """The share of predictions that equal the labels, 0 to 1; None without labels or predictions."""
        if self.labels is None or self.predictions is None:
            return None
        return float((self.predictions == self.labels).mean())

    def agreement(self, other: Result) -> float | None:
        """The share of predictions that equal those of another result.

        Parameters
        ----------
        other : Result
            Of the same samples.

        Returns
        -------
        float or None
            0 to 1; None if one of both has no predictions.
        """
        mine, others = self.predictions, other.predictions
        return None if mine is None or others is None else float((mine == others).mean())

    def deviation(self, other: Result) -> float:
        """The root mean square of the difference from the (first) outputs of another result.

        Parameters
        ----------
        other : Result
            Of the same samples.

        Returns
        -------
        float
            In units of the outputs.
        """
        return float(np.sqrt(np.square(self.outputs - other.outputs).mean()))

    def predictions_at(self, n_steps: int) -> np.ndarray | None:
        """The `predictions` after the first `n_steps` steps.

        Parameters
        ----------
        n_steps : int
            One of the steps in `outputs_at`.

        Returns
        -------
        (n_samples,) int64 or None
            None if the network's task is not to classify.

        Raises
        ------
        RunError
            If the outputs after this step were not recorded.
        """
        if n_steps not in self.outputs_at:
            raise RunError(
                "the run was not read after this step",
                got=n_steps,
                expected=", ".join(map(str, self.outputs_at))[:80],
                hint="name it in record_steps",
            )
        return predicted_classes(self.outputs_at[n_steps]) if self.task == "classify" else None

    def accuracy_at(self, n_steps: int) -> float | None:
        """The `accuracy` after the first `n_steps` steps.

        Parameters
        ----------
        n_steps : int
            One of the steps in `outputs_at`.

        Returns
        -------
        float or None
            0 to 1; None without labels or predictions.

        Raises
        ------
        RunError
            If the outputs after this step were not recorded.
        """
        predictions = self.predictions_at(n_steps)
        if self.labels is None or predictions is None:
            return None
        return float((predictions == self.labels).mean())

    @property
    def sops_per_sample(self) -> float:
        """Synaptic operations per sample: additions of a weight, over all layers and steps."""
        return sum(layer.sops for layer in self.layers) / self.n_samples

    @property
    def spikes_per_sample(self) -> float:
        """Spikes per sample, negative ones too, over all layers and steps."""
        return sum(layer.n_spikes for layer in self.layers) / self.n_samples

    @property
    def mean_rate(self) -> float:
        """Spikes per neuron and step, over the layers that fire; 0 if no layer fires.

        Of graded spikes: the share of neurons that send one.
        """
        neurons = sum(layer.n_neurons for layer in self._firing)
        return self.spikes_per_sample / (neurons * self._n_sends) if neurons else 0.0

    def rate(self, layer: LayerResult) -> float:
        """Spikes per neuron and step in one layer; of graded spikes, the share of neurons that send one.

        Parameters
        ----------
        layer : LayerResult
            One of `layers`.

        Returns
        -------
        float
            0 to 1.
        """
        return layer.n_spikes / (layer.n_neurons * self._n_sends * self.n_samples)

    @property
    def _n_sends(self) -> int:
        """How often a neuron may send."""
        return self.n_steps if self.coding == "steps" else 1

    @property
    def _firing(self) -> tuple[LayerResult, ...]:
        return tuple(layer for layer in self.layers if layer.fires)
