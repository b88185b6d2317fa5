"""What a conversion loses: the spiking network and its ANN on samples that the conversion has not used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...network.inventory import layer_facts
from ...network.network import Network
from ...output.memory import announce
from ...simulation import Simulator
from ..balance.calibration import CalibrationSet
from ..lowering.ann import Ann, forward

__all__ = ["Validation", "ann_predictions", "validate"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Validation:
    """The result of one T.

    Parameters
    ----------
    n_steps, n_samples : int
    ann_accuracy, accuracy : float or None
        Share of right predictions of the ANN and of the spiking network; None without labels.
    agreement : float
        Share of the ANN's predictions that the spiking network makes, too.
    mean_rate : float
        Spikes per neuron and step.
    spikes_per_sample, sops_per_sample : float
    macs : int
        Multiply-adds of the ANN per sample.
    """

    n_steps: int
    n_samples: int
    ann_accuracy: float | None
    accuracy: float | None
    agreement: float
    mean_rate: float
    spikes_per_sample: float
    sops_per_sample: float
    macs: int

    @property
    def loss_points(self) -> float | None:
        """Percentage points of accuracy that are lost, compared with the ANN; None without labels."""
        if self.accuracy is None or self.ann_accuracy is None:
            return None
        return 100 * (self.ann_accuracy - self.accuracy)


def ann_predictions(ann: Ann, samples: CalibrationSet, progress: Progress | None = None) -> np.ndarray:
    """The ANN's predictions.

    Parameters
    ----------
    ann : Ann
    samples : CalibrationSet
        As the source model reads them; `fitted`.
    progress : callable (done, total), optional

    Returns
    -------
    (n,) int64
    """
    predictions = np.empty(samples.n, np.int64)
    done = 0
    for images in samples.batches():
        predictions[done : done + len(images)] = forward(ann, ann.arranged(images)).argmax(axis=1)
        done += len(images)
        if progress:
            progress(done, samples.n)
    return predictions


def validate(
    network: Network,
    ann: Ann,
    samples: CalibrationSet,
    predictions: np.ndarray,
    n_steps: int,
    progress: Progress | None = None,
) -> Validation:
    """Run the spiking network on all samples, with as many threads as there are cores.

    Parameters
    ----------
    network : Network
    ann : Ann
    samples : CalibrationSet
        As the source model reads them; `fitted`.
    predictions : (n,) int64
        From `ann_predictions`.
    n_steps : int
    progress : callable (done, total), optional

    Raises
    ------
    RunError
        If the run does not fit into memory.
    """
    simulator = Simulator(network, n_steps)
    announce(simulator.memory_bytes)
    ours = np.empty(samples.n, np.int64)
    spikes = sops = rate = 0.0
    done = 0
    for images in samples.batches():

        def tell(n: int, _: int, before: int = done) -> None:
            if progress:
                progress(before + n, samples.n)

        result = simulator.run(ann.arranged(images), progress=tell)
        ours[done : done + len(images)] = result.outputs.argmax(axis=1)
        share = len(images) / samples.n
        spikes, sops, rate = (
            spikes + share * result.spikes_per_sample,
            sops + share * result.sops_per_sample,
            rate + share * result.mean_rate,
        )
        done += len(images)
    labels = samples.labels
    right, ann_right = (
        (None, None) if labels is None else (float((p == labels).mean()) for p in (ours, predictions))
    )
    macs = sum(facts.macs for facts in layer_facts(network))
    return Validation(
        n_steps, samples.n, ann_right, right, float((ours == predictions).mean()), rate, spikes, sops, macs
    )
