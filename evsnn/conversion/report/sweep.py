"""A network at several numbers of steps: what more steps bring and cost, and which T is worth it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "SweepPoint",
    "about_more_error",
    "about_more_steps",
    "ratio",
    "standard_error",
    "worth_by_error",
    "worth_it",
]

TOLERABLE = 0.05
"""The error of values, as a share of their spread, up to which a T is called worth it."""

_TOO_MUCH = 0.1  # a loss above which no T is called worth it
_TOO_FAR = 0.2  # an error of values, as a share of their spread, above which no T is called worth it
_NEARLY = 1.1  # times the least error


@dataclass(frozen=True)
class SweepPoint:
    """The network at one number of steps.

    Parameters
    ----------
    n_steps : int
    nearest_steps : int, optional
        The T whose step parameters were used; None if the network has none.
    agreement : float, optional
        Share of predictions that equal the ANN's; None if the task is not to classify.
    accuracy : float, optional
        Share of predictions that equal the labels; None without labels.
    error : float
        The largest of the outputs' errors, as a share of the output's spread: see `OutputError.relative`.
    rms_error, largest_error : float
        Of the first output, in its own unit.
    sops_per_sample, sops_per_mac : float
        Weight additions per sample, and per multiply-add of the ANN.
    mean_rate : float
        Spikes per neuron and step.
    """

    n_steps: int
    nearest_steps: int | None
    agreement: float | None
    accuracy: float | None
    error: float
    rms_error: float
    largest_error: float
    sops_per_sample: float
    sops_per_mac: float | None
    mean_rate: float

    @property
    def quality(self) -> float:
        """Accuracy; without labels, agreement; of values, the error below 0."""
        return next((x for x in (self.accuracy, self.agreement) if x is not None), -self.error)


def standard_error(right: np.ndarray, other: np.ndarray) -> float:
    """The standard error of the difference of two accuracies on the same samples.

    Half a sample is added to each of the four cells (Agresti & Min 2005, doi:10.1002/sim.1781). So the error
    is not 0 if both are right or wrong on the same samples: a few samples never prove that nothing is lost.

    Parameters
    ----------
    right, other : (n,) bool
        Whether each prediction is right.

    Returns
    -------
    float
        As a share, 0 to 1.
    """
    n = len(right) + 2
    one, two = np.count_nonzero(right & ~other) + 0.5, np.count_nonzero(other & ~right) + 0.5
    return float(np.sqrt(one + two - (one - two) ** 2 / n) / n)


def worth_it(
    points: Sequence[SweepPoint], right: Sequence[np.ndarray], of_ann: float
) -> tuple[int | None, str]:
    """The T that is worth it, if there is one, and why.

    `of_ann` is the ANN's accuracy, or 1 if agreement is compared.
    """
    at = max(range(len(points)), key=lambda i: (points[i].quality, -i))
    best, what = points[at], "agreement with the ANN" if points[at].accuracy is None else "accuracy"
    if of_ann - best.quality > _TOO_MUCH:
        do = (
            "raise --steps"
            if at == len(points) - 1
            else "more steps do not help: see what is said of the layers"
        )
        return (
            None,
            (
                f"no T of the sweep is worth it: even the best, T = {best.n_steps}, loses"
                f" {100 * (of_ann - best.quality):.1f} points of {what}; {do}"
            ),
        )
    chosen = next(
        i
        for i in range(len(points))
        if best.quality - points[i].quality <= standard_error(right[at], right[i]) or i == at
    )
    worth = points[chosen]
    if worth is best is points[0]:
        line = (
            f"T = {best.n_steps} is worth it, the smallest that was tried: its {what} is"
            f" {100 * best.quality:.1f} %"
        )
    elif worth is best:
        line = (
            f"T = {best.n_steps} is worth it: no smaller T comes within one standard error of its {what},"
            f" {100 * best.quality:.1f} %"
        )
    else:
        error = standard_error(right[at], right[chosen])
        line = (
            f"T = {worth.n_steps} is worth it: its {what}, {100 * worth.quality:.1f} %, is within one"
            f" standard error ({100 * error:.1f} points)"
        )
        line += f" of the best, {100 * best.quality:.1f} % at T = {best.n_steps}"
        if best.n_steps > worth.n_steps and best.sops_per_sample:
            line += f", for {100 * worth.sops_per_sample / best.sops_per_sample:.0f} % of its operations"
    return worth.n_steps, line


def worth_by_error(points: Sequence[SweepPoint]) -> tuple[int | None, str]:
    """The T that is worth it for a network whose outputs are values, if there is one, and why.

    It is the smallest T with a tolerable error; if there is none, the smallest that comes near the least.
    """
    best = min(points, key=lambda point: point.error)
    if best.error > _TOO_FAR:
        do = (
            "raise --steps"
            if best is points[-1]
            else "more steps do not help: see what is said of the layers"
        )
        return (
            None,
            f"no T of the sweep is worth it: even the best, T = {best.n_steps}, is off by"
            f" {100 * best.error:.1f} % of the outputs' spread; {do}",
        )
    good = next((point for point in points if point.error <= TOLERABLE), None)
    if good is not None:
        return (
            good.n_steps,
            f"T = {good.n_steps} is worth it, the smallest that was tried with an error of at most"
            f" {100 * TOLERABLE:.0f} % of the outputs' spread: {100 * good.error:.1f} %",
        )
    near = next(point for point in points if point.error <= _NEARLY * best.error)
    return (
        near.n_steps,
        f"T = {near.n_steps} is worth it: no T brings the error to {100 * TOLERABLE:.0f} % of the outputs'"
        f" spread, and its {100 * near.error:.1f} % is near the least, {100 * best.error:.1f} % at T ="
        f" {best.n_steps}",
    )


def about_more_error(points: Sequence[SweepPoint], n_steps: int) -> list[str]:
    """A warning if the outputs' error is clearly larger at the largest T than at a smaller one."""
    best, last = min(points, key=lambda point: point.error), points[-1]
    if last.error <= max(TOLERABLE, _NEARLY * best.error):
        return []
    grows = (
        f"the error grows to {100 * last.error:.1f} % at T = {last.n_steps}, whose thresholds are made for"
        f" T = {last.nearest_steps or n_steps}"
    )
    return [f"{grows}: convert for the T that you run (--steps {best.n_steps},{last.n_steps})"]


def about_more_steps(
    points: Sequence[SweepPoint], right: Sequence[np.ndarray], of_ann: np.ndarray, n_steps: int
) -> list[str]:
    """A warning if the largest T is neither the best of the sweep nor as good as the ANN."""
    at = max(range(len(points)), key=lambda i: points[i].quality)
    best, last = points[at], points[-1]
    if best.quality - last.quality <= standard_error(right[at], right[-1]) or last.quality >= of_ann.mean():
        return []
    falls = (
        f"it falls to {100 * last.quality:.1f} % at T = {last.n_steps}, whose thresholds are made for T ="
        f" {last.nearest_steps or n_steps}"
    )
    return [f"{falls}: convert for the T that you run (--steps {best.n_steps},{last.n_steps})"]


def ratio(part: float, whole: float) -> float | None:
    """`part` over `whole`; None if `whole` is 0."""
    return part / whole if whole else None
