"""Which code computes a stage, and why: kinds of fast code, each with the conditions under which it is right.

A stage takes the first kind of `FAST` whose conditions all hold. If none does, it takes the code for any
layer, and the conditions that do not hold are the reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from evsnn.circuit.neuron import NEGATIVE_SPIKES, WARM_UP
from evsnn.circuit.populations import ANALOG_INPUT, GROUPS, POOLED_SOURCES, Population
from evsnn.circuit.quantized import membrane_bounds

from .incoming import Incoming, apart, at_once, incoming_of, reads_own_channel
from .program import Program
from .stages import Stage

__all__ = ["FAST", "Code", "Condition", "FastKind", "code_of", "fast_kind"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A population for which fast code is looked for.

    Parameters
    ----------
    stage : Stage
    program : Program
    """

    stage: Stage
    program: Program

    @cached_property
    def population(self) -> Population:
        return self.program.population(self.stage)

    @cached_property
    def above(self) -> int:
        """The least that a membrane can be above its threshold when it is compared; below 0."""
        p, network = self.population, self.program.network
        least, _ = membrane_bounds(p, self.program.n_steps, (network.input_low, network.input_high))
        return int((least - p.neuron.threshold).min())

    @cached_property
    def incoming(self) -> list[Incoming] | None:
        return incoming_of(self.population, self.program)

    @cached_property
    def gathers(self) -> list[Incoming]:
        """Incoming spikes with weights from every channel."""
        return apart(self.incoming or ())[0]

    @cached_property
    def same(self) -> list[Incoming]:
        """Incoming spikes of one weight per channel."""
        return apart(self.incoming or ())[1]


@dataclass(frozen=True)
class Condition:
    """Something that fast code needs.

    Parameters
    ----------
    reason : str
        For people: why there is no fast code if it does not hold.
    holds : callable
        Of a `Candidate`.
    """

    reason: str
    holds: Callable[[Candidate], bool]


@dataclass(frozen=True, kw_only=True)
class FastKind:
    """A kind of fast code.

    Parameters
    ----------
    name : str
    supports : frozenset of str
        Features of populations that it computes.
    conditions : tuple of Condition
        Beside the features, and those that all kinds share.
    """

    name: str
    supports: frozenset[str]
    conditions: tuple[Condition, ...]

    def reasons(self, candidate: Candidate) -> tuple[str, ...]:
        """Why it does not compute a population; none: it does."""
        missing = sorted(candidate.population.features - self.supports)
        failed = [c.reason for c in (*COMMON, *self.conditions) if not c.holds(candidate)]
        return (*missing, *failed)


COMMON = (
    Condition(
        "it is read out",
        lambda c: (
            bool(c.stage.readout)
            or (bool(c.stage.writes) and c.stage.population not in c.program.network.circuit.readouts)
        ),
    ),
    Condition(
        "its spikes and its negative spikes are kept in different forms",
        lambda c: len({replace(c.program.views[key], key=c.stage.writes[0]) for key in c.stage.writes}) <= 1,
    ),
    # The runtime compares v - v_threshold with 0.
    Condition("v - V_th could leave 32 bits", lambda c: not c.population.fires or c.above >= -(2**31)),
)
"""What all kinds need."""

ANALOG = (
    Condition("its currents are kept from step to step", lambda c: not c.program.by_step),
    Condition("it has spikes as input, too", lambda c: not c.population.projections),
    Condition("several projections from the input", lambda c: len(c.population.analog_projections) == 1),
    Condition(
        "the input is concatenated with itself",
        lambda c: all(len(s.sources) == 1 for s in c.population.analog_projections),
    ),
    Condition(
        "a dilated kernel over the input",
        lambda c: all(s.dilation == (1, 1) for s in c.population.analog_projections),
    ),
)
CHANNELWISE = (
    Condition("negative spikes have weights of their own", lambda c: c.incoming is not None),
    Condition("one or two sources are supported", lambda c: 1 <= len(c.incoming or ()) <= 2),
    Condition(
        "weights from more than a neuron's own channel, or columns apart",
        lambda c: all(reads_own_channel(one.projection, c.population) for one in c.incoming or ()),
    ),
)
GATHER = (
    Condition("negative spikes have weights of their own", lambda c: c.incoming is not None),
    Condition("one or two sources are supported", lambda c: 1 <= len(c.gathers) <= 2),
    Condition("several shortcuts with one weight per channel", lambda c: len(c.same) <= 1),
    Condition("weights in groups", lambda c: all(one.projection.groups == 1 for one in c.gathers)),
    Condition(
        "a kernel whose columns are apart (dilation)",
        lambda c: all(one.projection.dilation[1] == 1 for one in c.gathers),
    ),
    Condition(
        "a shortcut with one weight per channel that is no identity",
        lambda c: all(one.projection.window.plain for one in c.same),
    ),
)
PAIRS = (
    Condition(
        "membranes need 32 bits",
        lambda c: c.program.network.widths[c.stage.population] == "int16" and c.above >= -(2**15),
    ),
    Condition(
        "totals of spikes need more than 16 bits",
        lambda c: c.program.n_steps * c.stage.window[0] * c.stage.window[1] < 2**16,
    ),
    Condition("its neurons have negative spikes", lambda c: not c.population.has_negative_spikes),
)
WIDE = (
    Condition("weights of 1 byte are asked for", lambda c: not c.program.compact),
    Condition("a row of a kernel can leave 16 bits", lambda c: all(map(at_once, c.gathers))),
)

FAST = (
    FastKind(name="analog", supports=frozenset({ANALOG_INPUT, WARM_UP}), conditions=ANALOG),
    FastKind(
        name="channelwise",
        supports=frozenset({GROUPS, NEGATIVE_SPIKES, POOLED_SOURCES, WARM_UP}),
        conditions=CHANNELWISE,
    ),
    FastKind(
        name="pairs",
        supports=frozenset({GROUPS, NEGATIVE_SPIKES, POOLED_SOURCES}),
        conditions=GATHER + PAIRS,
    ),
    FastKind(
        name="wide",
        supports=frozenset({GROUPS, NEGATIVE_SPIKES, POOLED_SOURCES, WARM_UP}),
        conditions=GATHER + WIDE,
    ),
    FastKind(
        name="singles",
        supports=frozenset({GROUPS, NEGATIVE_SPIKES, POOLED_SOURCES, WARM_UP}),
        conditions=GATHER,
    ),
)
"""Kinds of fast code, in the order in which they are tried."""


@dataclass(frozen=True)
class Code:
    """What computes a stage.

    Parameters
    ----------
    kind : str, optional
        The name of a `FastKind`; None: the code for any layer, or for pools.
    reasons : tuple of str
        Why it is none: of the kind that lacks least.
    """

    kind: str | None
    reasons: tuple[str, ...] = ()


def code_of(stage: Stage, program: Program) -> Code:
    """Which code computes a stage, and why.

    Parameters
    ----------
    stage : Stage
    program : Program
        The stage's own.

    Returns
    -------
    Code
    """
    if stage.kind != "population":
        return Code(None)
    candidate = Candidate(stage, program)
    if not candidate.population.fires:
        return Code(None, ("its neurons never fire",))
    found: list[tuple[str, ...]] = []
    for kind in FAST:
        reasons = kind.reasons(candidate)
        if not reasons:
            return Code(kind.name)
        found.append(reasons)
    return Code(None, min(reversed(found), key=len))


def fast_kind(stage: Stage, program: Program) -> str | None:
    """The kind of fast code that computes a stage; None: the code for any layer, or for pools."""
    return code_of(stage, program).kind
