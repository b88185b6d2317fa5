"""What a user asks of a conversion, and the recipe that comes of it for one T."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from ...errors import ModelError, NetworkError
from ...files.schema import STORAGES
from ...network.layers import IF
from ...network.network import READOUTS, SHIFTS, check_steps
from .thresholds import GRANULARITIES, parse_rule

__all__ = ["AUTO", "MAX_POOLS", "Options", "Recipe"]

AUTO = "auto"
SIGNED = 0.25
"""theta that "auto" tries: a correction spike where the membrane is a quarter of the threshold below zero."""

MAX_POOLS = ("spiking", "average")


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
        Layer-by-layer bias correction, see `correction`.
    signed : float
        theta of signed correction spikes; 0: none.
    delay : int
        Steps by which every layer behind the first fires later than its input comes.
    """

    rule: str
    granularity: str
    shift: str
    correction: bool = False
    signed: float = 0.0
    delay: int = 0

    def __str__(self) -> str:
        parts = [f"{self.rule} per {self.granularity}", f"shift {self.shift}"]
        parts += ["bias correction"] * self.correction
        parts += [f"signed {self.signed:g}"] * bool(self.signed) + [f"delay {self.delay}"] * bool(self.delay)
        return ", ".join(parts)


@dataclass(frozen=True)
class Options:
    """What to do with a model. None leaves a choice to the threshold rule, or to "auto".

    Parameters
    ----------
    n_steps : tuple of int
        T, one or several; the first is the network's own. With several, each has its table in the file.
    threshold : str
        "auto" tries recipes on held-out calibration inputs; "max" is the paper's; "percentile:p"; "mse";
        "error:p".
    granularity : {"layer", "channel"}, optional
        None: "channel" for "mse" and "error", else "layer".
    shift : {"bias", "initial", "none"}, optional
        None: "initial" for "mse", "error" and "auto", else "bias" (the paper's).
    readout : {"membrane", "spikes"}
    correction : bool, optional
        None: with "mse" and "error".
    signed : float, optional
        None: 0, unless "auto" finds that theta = 0.25 pays.
    delay : int, optional
        None: 0, unless "auto" finds that waiting pays.
    max_pool : {"spiking", "average"}
    storage : {"float32", "float16", "int8"}
        How weights will be stored. They are rounded so before the network is balanced: its corrections are
        for what is stored, and `evsnn.save` with the same storage changes nothing.

    Raises
    ------
    ModelError
    """

    n_steps: tuple[int, ...] = (32,)
    threshold: str = AUTO
    granularity: str | None = None
    shift: str | None = None
    readout: str = "membrane"
    correction: bool | None = None
    signed: float | None = None
    delay: int | None = None
    max_pool: str = "spiking"
    storage: str = "float32"

    def __post_init__(self):
        steps = self.n_steps if isinstance(self.n_steps, (tuple, list)) else (self.n_steps,)
        steps = tuple(dict.fromkeys(check_steps(t, ModelError) for t in steps))
        if not steps:
            raise ModelError("no number of steps is given", expected="at least one T")
        object.__setattr__(self, "n_steps", steps)
        if self.threshold != AUTO:
            parse_rule(self.threshold)
        choices = (
            ("granularity", GRANULARITIES, True),
            ("shift", SHIFTS, True),
            ("readout", READOUTS, False),
            ("max_pool", MAX_POOLS, False),
            ("storage", STORAGES, False),
        )
        for name, allowed, may_be_open in choices:
            value = getattr(self, name)
            if value not in allowed and not (may_be_open and value is None):
                raise ModelError(f"unknown {name}", got=repr(value)[:40], expected=" or ".join(allowed))
        if self.correction is not None and not isinstance(self.correction, bool):
            raise ModelError(
                "unknown correction", got=repr(self.correction)[:40], expected="True, False or None"
            )
        try:
            IF(signed=self.signed or 0.0)
        except NetworkError as error:  # what neurons refuse
            raise ModelError(error.what, got=error.got, expected=error.expected) from error
        if self.delay is not None and (
            isinstance(self.delay, bool)
            or not isinstance(self.delay, Integral)
            or not 0 <= self.delay <= max(steps)
        ):
            raise ModelError("delay is out of range", got=self.delay, expected=f"0 to {max(steps)} steps")

    def recipe(self, rule: str, *, signed: float = 0.0, delay: int = 0) -> Recipe:
        """The recipe with a rule, where nothing else was asked for."""
        fitted = rule.startswith(("mse", "error"))
        initial = fitted or self.threshold == AUTO  # a file has one shift, whatever is chosen for each T
        return Recipe(
            rule=rule,
            granularity=self.granularity or ("channel" if fitted else "layer"),
            shift=self.shift or ("initial" if initial else "bias"),
            correction=fitted if self.correction is None else self.correction,
            signed=signed if self.signed is None else float(self.signed),
            delay=delay if self.delay is None else int(self.delay),
        )

    def recipes(self, n_steps: int) -> tuple[Recipe, ...]:
        """What to try for a T: one recipe, or those among which "auto" chooses, the plainest first."""
        if self.threshold != AUTO:
            return (self.recipe(self.threshold),)
        tried = [
            self.recipe("max"),
            self.recipe("mse"),
            self.recipe("mse", signed=SIGNED),
            self.recipe("error:3", signed=SIGNED),
        ]
        if n_steps > 1:
            delay = max(1, n_steps // 4)
            tried += [
                self.recipe("mse", signed=SIGNED, delay=delay),
                self.recipe("error:3", signed=SIGNED, delay=delay),
            ]
        return tuple(dict.fromkeys(tried))

    def unseen(self, normal: bool) -> Recipe:
        """The recipe for a conversion in which nothing can be tried.

        Parameters
        ----------
        normal : bool
            Whether activations are known well enough to fit thresholds to them: measured, or from batch
            norms. Otherwise only the limits of the ReLUs are, and they are the thresholds.
        """
        return self.recipe(("mse" if normal else "max") if self.threshold == AUTO else self.threshold)
