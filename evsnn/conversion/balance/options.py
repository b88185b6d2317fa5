"""What a user asks of a conversion, and the recipe that follows from it for one T."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from ...errors import ModelError, NetworkError
from ...files.schema import STORAGES
from ...network.layers import IF
from ...network.network import CODINGS, MAX_GRADED_STEPS, READOUTS, SHIFTS, check_steps
from ...network.reading import TASKS
from .thresholds import GRANULARITIES, parse_rule

__all__ = ["AUTO", "DEFAULT_STEPS", "MAX_POOLS", "Options", "Recipe", "checked_steps"]

AUTO = "auto"
NEGATIVE_THRESHOLD = 0.25
"""The theta that "auto" tries: a negative spike if the membrane is a quarter of the threshold below 0."""

MAX_POOLS = ("spiking", "average")
DEFAULT_STEPS = {"steps": 32, "graded": 15}
"""T by coding, if none is asked for: 15 levels are activations of 4 bits."""


@dataclass(frozen=True)
class Recipe:
    """How a network is balanced for one T.

    Parameters
    ----------
    rule : str
        "max", "percentile:p", "mse" or "error:p", see `thresholds`.
    granularity : {"layer", "channel"}
    shift : {"bias", "initial", "none"}
    correction : bool
        Whether biases are corrected layer by layer, see `correction`.
    negative_threshold : float
        theta of negative (correction) spikes; 0: there are none.
    warm_up_steps : int
        Steps of input that every layer behind the first integrates before it first may fire.
    """

    rule: str
    granularity: str
    shift: str
    correction: bool = False
    negative_threshold: float = 0.0
    warm_up_steps: int = 0

    def __str__(self) -> str:
        parts = [f"{self.rule} per {self.granularity}", f"shift {self.shift}"]
        parts += ["bias correction"] * self.correction
        parts += [f"negative threshold {self.negative_threshold:g}"] * bool(self.negative_threshold) + [
            f"warm-up {self.warm_up_steps}"
        ] * bool(self.warm_up_steps)
        return ", ".join(parts)


@dataclass(frozen=True)
class Options:
    """What to do with a model. None leaves a choice to the threshold rule, or to "auto".

    Parameters
    ----------
    n_steps : tuple of int
        T, one or several; the first is the network's own. With several, each T has step parameters of its
        own.
    threshold : str
        "auto" tries recipes on held-out calibration inputs; "max" is the paper's; "percentile:p"; "mse";
        "error:p".
    granularity : {"layer", "channel"}, optional
        None: "channel" for "mse" and "error", else "layer".
    shift : {"bias", "initial", "none"}, optional
        None: "initial" for "mse", "error" and "auto", else "bias" (the paper's).
    readout : {"membrane", "spikes"}
    correction : bool, optional
        Whether biases are corrected. None: with "mse" and "error".
    negative_threshold : float, optional
        None: 0, unless "auto" finds that theta = 0.25 pays.
    warm_up_steps : int, optional
        None: 0, unless "auto" finds that a warm-up pays.
    max_pool : {"spiking", "average"}
    coding : {"steps", "graded"}
        What the network is balanced for, and runs with if a run says nothing; see `evsnn.simulate`. "graded"
        has neither negative spikes nor a warm-up.
    refit : bool
        Whether weights are refitted to the counts of graded spikes, in closed form, for the first T: see
        `evsnn.conversion.balance.refit`. It needs samples; it gains most with few levels.
    task : {"classify", "regress", "none"}, optional
        How the first output is read. None: as scores of classes if there are labels, or if it is the only
        output, a vector, and neither one value (without a Sigmoid) nor of the input's shape; else as values.
    storage : {"float32", "float16", "int8"}
        How weights will be stored. They are rounded before the network is balanced, so that its corrections
        are made for what is stored, and `evsnn.save` with the same storage changes nothing.

    Raises
    ------
    ModelError
        If an option is unknown or out of range.
    """

    n_steps: tuple[int, ...] = (32,)
    threshold: str = AUTO
    granularity: str | None = None
    shift: str | None = None
    readout: str = "membrane"
    correction: bool | None = None
    negative_threshold: float | None = None
    warm_up_steps: int | None = None
    max_pool: str = "spiking"
    coding: str = "steps"
    refit: bool = False
    task: str | None = None
    storage: str = "float32"

    def __post_init__(self):
        steps = checked_steps(self.n_steps)
        object.__setattr__(self, "n_steps", steps)
        if self.threshold != AUTO:
            parse_rule(self.threshold)
        choices = (
            ("granularity", GRANULARITIES, True),
            ("shift", SHIFTS, True),
            ("readout", READOUTS, False),
            ("max_pool", MAX_POOLS, False),
            ("coding", CODINGS, False),
            ("task", TASKS, True),
            ("storage", STORAGES, False),
        )
        for name, allowed, may_be_open in choices:
            value = getattr(self, name)
            if value not in allowed and not (may_be_open and value is None):
                raise ModelError(f"unknown {name}", got=repr(value)[:40], expected=" or ".join(allowed))
        if self.refit and self.coding != "graded":
            raise ModelError(
                "weights are refitted to graded spikes alone",
                where="refit",
                got=f"coding {self.coding!r}",
                expected="coding 'graded'",
            )
        if self.coding == "graded":
            for name in ("negative_threshold", "warm_up_steps"):
                if getattr(self, name):
                    raise ModelError(
                        "graded spikes have no negative spikes and no warm-up",
                        where=name,
                        got=getattr(self, name),
                        hint="leave it out, or use coding 'steps'",
                    )
            if max(steps) > MAX_GRADED_STEPS:
                raise ModelError(
                    "there are too many levels for graded spikes",
                    where="n_steps",
                    got=max(steps),
                    expected=f"at most {MAX_GRADED_STEPS}",
                )
        if self.correction is not None and not isinstance(self.correction, bool):
            raise ModelError(
                "unknown correction", got=repr(self.correction)[:40], expected="True, False or None"
            )
        try:
            IF(negative_threshold=self.negative_threshold or 0.0)
        except NetworkError as error:  # an option that neurons refuse
            raise ModelError(error.what, got=error.got, expected=error.expected) from error
        if self.warm_up_steps is not None and (
            isinstance(self.warm_up_steps, bool)
            or not isinstance(self.warm_up_steps, Integral)
            or not 0 <= self.warm_up_steps <= max(steps)
        ):
            raise ModelError(
                "warm_up_steps is out of range", got=self.warm_up_steps, expected=f"0 to {max(steps)} steps"
            )

    def recipe(self, rule: str, *, negative_threshold: float = 0.0, warm_up_steps: int = 0) -> Recipe:
        """The recipe with a rule; options that were given take precedence."""
        fitted = rule.startswith(("mse", "error"))
        initial = fitted or self.threshold == AUTO  # a file has one shift, whatever is chosen for each T
        return Recipe(
            rule=rule,
            granularity=self.granularity or ("channel" if fitted else "layer"),
            shift=self.shift or ("initial" if initial else "bias"),
            correction=fitted if self.correction is None else self.correction,
            negative_threshold=negative_threshold
            if self.negative_threshold is None
            else float(self.negative_threshold),
            warm_up_steps=warm_up_steps if self.warm_up_steps is None else int(self.warm_up_steps),
        )

    def recipes(self, n_steps: int) -> tuple[Recipe, ...]:
        """The recipes to try for a T: one, or those among which "auto" chooses, the plainest first."""
        if self.threshold != AUTO:
            return (self.recipe(self.threshold),)
        if self.coding == "graded":
            return tuple(dict.fromkeys(self.recipe(rule) for rule in ("max", "mse", "error:3")))
        tried = [
            self.recipe("max"),
            self.recipe("mse"),
            self.recipe("mse", negative_threshold=NEGATIVE_THRESHOLD),
            self.recipe("error:3", negative_threshold=NEGATIVE_THRESHOLD),
        ]
        if n_steps > 1:
            warm_up_steps = max(1, n_steps // 4)
            tried += [
                self.recipe("mse", negative_threshold=NEGATIVE_THRESHOLD, warm_up_steps=warm_up_steps),
                self.recipe("error:3", negative_threshold=NEGATIVE_THRESHOLD, warm_up_steps=warm_up_steps),
            ]
        return tuple(dict.fromkeys(tried))

    def unseen(self, normal: bool) -> Recipe:
        """The recipe for a conversion that cannot try any.

        Parameters
        ----------
        normal : bool
            Whether activations are measured or known from batch norms, so that thresholds can be fitted to
            them. Otherwise only the limits of the ReLUs are known, and these are the thresholds.
        """
        return self.recipe(("mse" if normal else "max") if self.threshold == AUTO else self.threshold)


def checked_steps(n_steps: int | Sequence[int]) -> tuple[int, ...]:
    """One or several T, each once, in their order.

    Parameters
    ----------
    n_steps : int or sequence of int

    Raises
    ------
    ModelError
        If there is none, or one is out of range.
    """
    listed = n_steps if isinstance(n_steps, Sequence) else (n_steps,)
    steps = tuple(dict.fromkeys(check_steps(t, ModelError) for t in listed))
    if not steps:
        raise ModelError("no number of steps is given", expected="at least one T")
    return steps
