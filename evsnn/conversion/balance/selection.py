"""The choice of a recipe by held-out calibration inputs, which neither thresholds nor corrections have seen.

Recipes are tried from the plainest to the most elaborate; `trial` runs each. They are
compared by how far the network's class probabilities are from the ANN's: the Kullback-Leibler divergence of
the softmax of the scores, a finer measure than the number of changed predictions. Values are compared by the
square of their relative error (see `Targets.divergence`). A recipe
is left out if its run does not fit into memory or into a block of steps (a warm-up needs all steps in one
block). Of the recipes that are nearly as good as the best, the plainest is taken, unless a more elaborate one
saves synaptic operations. No further recipe is tried when nothing is left to gain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ...errors import RunError
from ...network.network import Network
from .balance import Balanced
from .correction import Correction
from .options import Recipe
from .targets import Targets
from .trial import trial

__all__ = ["Candidate", "Choice", "choose"]

LOSSLESS = 0.002
"""Divergence below which no further recipe is tried, if predictions agree, too."""
AGREEING = 0.99
NEARLY = 1.15
"""A plainer or cheaper recipe is taken if its divergence is at most this many times the least."""
SAVING = 0.05
"""Share of the synaptic operations that a more elaborate recipe must save to be taken for them."""


@dataclass(frozen=True)
class Candidate:
    """A recipe that was tried.

    Parameters
    ----------
    recipe : Recipe
    agreement : float, optional
        Share of held-out inputs with the ANN's prediction; None if the task is not to classify.
    divergence : float
        Mean divergence of the class probabilities from the ANN's, in nats; of values, the square of the error
        as a share of their spread.
    sops_per_sample, mean_rate : float
        As for `evsnn.Result`.
    """

    recipe: Recipe
    agreement: float | None
    divergence: float
    sops_per_sample: float
    mean_rate: float


@dataclass(frozen=True, eq=False)
class Choice:
    """What was taken for one T.

    Parameters
    ----------
    n_steps : int
    recipe : Recipe
    reason : str
        Why, for people.
    candidates : tuple of Candidate
        The recipes in the order in which they were tried; empty if nothing was held out.
    corrections : mapping of str to Correction
    """

    n_steps: int
    recipe: Recipe
    reason: str
    candidates: tuple[Candidate, ...] = ()
    corrections: Mapping[str, Correction] = field(default_factory=dict)

    @property
    def taken(self) -> Candidate | None:
        """The candidate that was taken; None if none was run."""
        return next((c for c in self.candidates if c.recipe == self.recipe), None)


def choose(
    recipes: tuple[Recipe, ...],
    n_steps: int,
    make: Callable[[Recipe], tuple[Balanced, Network]],
    held_out: np.ndarray,
    targets: Targets,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Choice, Balanced]:
    """Try recipes for one T, and choose one.

    Parameters
    ----------
    recipes : tuple of Recipe
        The plainest first.
    n_steps : int
    make : callable
        It balances with a recipe, and returns a `Balanced` and a network that runs.
    held_out : (n, *input_shape) float32
        If n is 0, the first recipe is taken without a trial.
    targets : Targets
        The ANN's outputs for them.
    progress : callable (done, total), optional

    Raises
    ------
    RunError
        If the plainest recipe cannot be run.
    """
    if not len(held_out):
        balanced, _ = make(recipes[0])
        return (
            Choice(n_steps, recipes[0], "nothing was held out to try it on", (), balanced.corrections),
            balanced,
        )
    tried: list[Candidate] = []
    made: list[Balanced] = []
    ended = ""
    for i, recipe in enumerate(recipes):
        balanced, network = make(recipe)
        try:
            found = trial(network, n_steps, held_out)
        except RunError as error:
            if not tried:
                raise
            ended = f"; {recipe} and what follows it left out: {error.what}"
            break
        agreement = targets.agreement(found.outputs)
        tried.append(
            Candidate(
                recipe,
                agreement,
                targets.divergence(found.outputs),
                found.sops_per_sample,
                found.mean_rate,
            )
        )
        made.append(balanced)
        if progress:
            progress(i + 1, len(recipes))
        agreeing = agreement is None or agreement >= AGREEING
        if tried[-1].divergence <= LOSSLESS and agreeing and i + 1 < len(recipes):
            ended = "; nothing is left to gain by more elaborate ones"
            break
    least = min(c.divergence for c in tried)
    near = [i for i, c in enumerate(tried) if c.divergence <= max(NEARLY * least, LOSSLESS)]
    taken = near[0]
    for i in near[1:]:
        if tried[i].sops_per_sample <= (1 - SAVING) * tried[taken].sops_per_sample:
            taken = i
    return (
        Choice(
            n_steps, tried[taken].recipe, _reason(tried, taken) + ended, tuple(tried), made[taken].corrections
        ),
        made[taken],
    )


def _reason(tried: list[Candidate], taken: int) -> str:
    mine = tried[taken]
    if mine.agreement is None:
        said = f"outputs within {mine.divergence**0.5:.2%} of their spread of the ANN's, on held-out inputs"
    else:
        said = (
            f"divergence {mine.divergence:.3g} from the ANN, {mine.agreement:.1%} of its predictions, on"
            " held-out inputs"
        )
    if len(tried) == 1:
        return said
    if mine.divergence == min(c.divergence for c in tried):
        return f"the least of {len(tried)} recipes tried: {said}"
    why = "plainer" if any(c.divergence < mine.divergence for c in tried[taken + 1 :]) else "cheaper"
    return f"within {NEARLY - 1:.0%} of the least of {len(tried)} recipes tried, and {why}: {said}"
