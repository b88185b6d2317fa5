"""What the trained network gives, for the spiking network to be compared with.

If the task is to classify, the first output is compared by its predictions and by the divergence of class
probabilities. All other outputs are values: they are compared by their error, in their own unit and as a
share of their spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...network.reading import predicted_classes

__all__ = ["OutputError", "Targets", "divergence"]

SPREAD = 4.0
"""The least spread (root mean square) of the scores about their mean; flatter scores are stretched to it."""

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class OutputError:
    """How far an output is from the trained network's.

    Parameters
    ----------
    rms, largest : float
        Root mean square and largest magnitude of the difference, in the output's own unit.
    relative : float
        `rms` over the root mean square of the trained network's output about the mean of each channel.
    """

    rms: float
    largest: float
    relative: float


@dataclass(frozen=True, eq=False)
class Targets:
    """The trained network's outputs on some inputs.

    Parameters
    ----------
    task : {"classify", "regress", "none"}
        How the first output is read.
    outputs : mapping of str to (n, ...) float32
        By the name of the readout, in the network's order.
    """

    task: str
    outputs: Outputs

    @property
    def first(self) -> np.ndarray:
        """(n, *output_shape): the first output, which the task reads."""
        return next(iter(self.outputs.values()))

    @cached_property
    def predictions(self) -> np.ndarray | None:
        """(n,) int64; None if the task is not to classify."""
        return predicted_classes(self.first) if self.task == "classify" else None

    def some(self, n: int) -> Targets:
        """Those of the first `n` inputs."""
        return Targets(self.task, {name: values[:n] for name, values in self.outputs.items()})

    def predicted(self, outputs: Outputs) -> np.ndarray | None:
        """The classes that outputs of the spiking network predict; None if the task is not to classify."""
        return predicted_classes(next(iter(outputs.values()))) if self.task == "classify" else None

    def agreement(self, outputs: Outputs) -> float | None:
        """The share of equal predictions; None if the task is not to classify."""
        predicted = self.predicted(outputs)
        return None if predicted is None else float((predicted == self.predictions).mean())

    def errors(self, outputs: Outputs) -> dict[str, OutputError]:
        """How far each output is from the trained network's."""
        return {name: _error(outputs[name], wanted) for name, wanted in self.outputs.items()}

    def relative_error(self, outputs: Outputs) -> float:
        """The largest of the outputs' errors, as a share of the output's spread."""
        return max(error.relative for error in self.errors(outputs).values())

    def divergence(self, outputs: Outputs) -> float:
        """One number for how far outputs are from the trained network's, at least 0.

        The mean divergence of class probabilities, if the first output is scores of classes, plus the mean of
        the squared relative errors of the other outputs.
        """
        total, squares = 0.0, []
        for i, (name, wanted) in enumerate(self.outputs.items()):
            if i == 0 and self.task == "classify":
                total += float(divergence(outputs[name], wanted).mean())
            else:
                squares.append(_error(outputs[name], wanted).relative ** 2)
        return total + (float(np.mean(squares)) if squares else 0.0)


def divergence(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """KL(softmax(reference) || softmax(scores)) of every sample, in nats.

    The softmax of scores that hardly differ between classes would tell nothing (scores of an untrained
    network, or quantities instead of classes). Both are then stretched alike, to a spread of `SPREAD`. One
    score is the logit of class 1: the other class has the score 0.

    Parameters
    ----------
    scores, reference : (n, classes)
        The network's scores, and the ANN's.

    Returns
    -------
    (n,) float64
        At least 0.
    """
    scores, reference = scores.astype(np.float64), reference.astype(np.float64)
    if reference.shape[1] == 1:
        scores, reference = (np.concatenate([np.zeros_like(x), x], axis=1) for x in (scores, reference))
    spread = np.sqrt(np.square(reference - reference.mean(axis=1, keepdims=True)).mean())
    factor = SPREAD / spread if 0 < spread < SPREAD else 1.0

    def log_softmax(x: np.ndarray) -> np.ndarray:
        x = factor * (x - x.max(axis=1, keepdims=True))
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    wanted = log_softmax(reference)
    return (np.exp(wanted) * (wanted - log_softmax(scores))).sum(axis=1)


def _error(output: np.ndarray, wanted: np.ndarray) -> OutputError:
    wanted = wanted.astype(np.float64)
    difference = output.reshape(wanted.shape) - wanted
    rms = float(np.sqrt(np.square(difference).mean()))
    channels = wanted.mean(axis=(0, *range(2, wanted.ndim)), keepdims=True)
    spread = float(np.sqrt(np.square(wanted - channels).mean())) or float(np.sqrt(np.square(wanted).mean()))
    return OutputError(rms, float(np.abs(difference).max(initial=0.0)), rms / (spread or 1.0))
