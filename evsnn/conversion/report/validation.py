"""What a conversion loses: the spiking network and its ANN on samples that the conversion has not used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...network.inventory import layer_facts
from ...output.memory import announce
from ...simulation import Simulator
from ..balance.calibration import CalibrationSet
from ..balance.targets import Targets
from ..conversion import Conversion

__all__ = ["Validation", "targets_of", "validate"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Validation:
    """The result of one T.

    Parameters
    ----------
    n_steps, n_samples : int
    ann_accuracy, accuracy : float or None
        Share of right predictions of the given model and of the spiking network; None without labels.
    agreement : float or None
        Share of the given model's predictions that the spiking network makes, too; None if the task is not to
        classify.
    rms_error : float
        Root mean square of the difference of the first output from the model's, in its unit.
    error : float
        The largest of the outputs' errors, as a share of the output's spread.
    mean_rate : float
        Spikes per neuron and step.
    spikes_per_sample, sops_per_sample : float
    macs : int
        Multiply-adds of the source model per sample.
    """

    n_steps: int
    n_samples: int
    ann_accuracy: float | None
    accuracy: float | None
    agreement: float | None
    rms_error: float
    error: float
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


def targets_of(conversion: Conversion, samples: CalibrationSet, progress: Progress | None = None) -> Targets:
    """What the given model makes of samples.

    Parameters
    ----------
    conversion : Conversion
    samples : CalibrationSet
        As the source model reads them; `fitted`.
    progress : callable (done, total), optional

    Returns
    -------
    Targets
    """
    parts: list[Targets] = []
    done = 0
    for images in samples.batches():
        parts.append(conversion.targets_of(images))
        done += len(images)
        if progress:
            progress(done, samples.n)
    names = parts[0].outputs
    return Targets(
        parts[0].task, {name: np.concatenate([part.outputs[name] for part in parts]) for name in names}
    )


def validate(
    conversion: Conversion,
    samples: CalibrationSet,
    targets: Targets,
    n_steps: int,
    progress: Progress | None = None,
) -> Validation:
    """Run the spiking network on all samples, with as many threads as there are cores.

    Parameters
    ----------
    conversion : Conversion
    samples : CalibrationSet
        As the source model reads them; `fitted`.
    targets : Targets
        From `targets_of`.
    n_steps : int
    progress : callable (done, total), optional

    Raises
    ------
    RunError
        If the run does not fit into memory.
    """
    network = conversion.network
    simulator = Simulator(network, n_steps)
    announce(simulator.memory_bytes)
    parts: dict[str, list[np.ndarray]] = {}
    spikes = sops = rate = 0.0
    done = 0
    for images in samples.batches():

        def tell(n: int, _: int, before: int = done) -> None:
            if progress:
                progress(before + n, samples.n)

        result = simulator.run(conversion.ann.arranged(images), first=done, progress=tell)
        for name, values in result.named_outputs.items():
            parts.setdefault(name, []).append(values)
        share = len(images) / samples.n
        spikes, sops, rate = (
            spikes + share * result.spikes_per_sample,
            sops + share * result.sops_per_sample,
            rate + share * result.mean_rate,
        )
        done += len(images)
    outputs = {name: np.concatenate(values) for name, values in parts.items()}
    errors = targets.errors(outputs)
    return Validation(
        n_steps=n_steps,
        n_samples=samples.n,
        ann_accuracy=_accuracy(targets.predictions, samples.labels),
        accuracy=_accuracy(targets.predicted(outputs), samples.labels),
        agreement=targets.agreement(outputs),
        rms_error=next(iter(errors.values())).rms,
        error=max(error.relative for error in errors.values()),
        mean_rate=rate,
        spikes_per_sample=spikes,
        sops_per_sample=sops,
        macs=sum(conversion.ann.macs.values()) or sum(facts.macs for facts in layer_facts(network)),
    )


def _accuracy(predictions: np.ndarray | None, labels: np.ndarray | None) -> float | None:
    return None if predictions is None or labels is None else float((predictions == labels).mean())
