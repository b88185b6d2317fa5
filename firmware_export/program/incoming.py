"""Spikes that come in at a population: what the inner loops of fast code add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evsnn.circuit.populations import Population, Projection, Source

from .program import Program
from .stages import live_sources
from .views import key_of

__all__ = ["Incoming", "apart", "at_once", "incoming_of", "reads_own_channel"]


@dataclass(frozen=True, eq=False)
class Incoming:
    """Spikes of one source that a population integrates, and its negative spikes.

    Parameters
    ----------
    projection : Projection
    source : Source
        One of the projection's.
    first : int
        Its first channel in the weights.
    has_negative : bool
        Whether it sends negative spikes, too; they subtract the same weights.
    """

    projection: Projection
    source: Source
    first: int = 0
    has_negative: bool = False

    @property
    def weight(self) -> np.ndarray:
        """The weights of the source's channels."""
        return self.projection.weight[:, self.first : self.first + self.source.shape[0]]

    def is_negated_by(self, other: Incoming, program: Program) -> bool:
        """Whether the other's spikes subtract what these add, and lie like them."""
        a, b = self.projection, other.projection
        views = [
            replace(program.views[key_of(source)], key=key_of(self.source))
            for source in (self.source, other.source)
        ]
        same = (a.window, a.groups, self.source) == (
            b.window,
            b.groups,
            replace(other.source, negative=False),
        )
        return same and views[0] == views[1] and np.array_equal(self.weight, -other.weight)


def incoming_of(p: Population, program: Program) -> list[Incoming] | None:
    """What a population integrates, without sources that never send anything; None: negative spikes have
    weights of their own.
    """
    found: list[Incoming] = []
    for projection in p.projections:
        live, first = live_sources(projection, program.network.circuit.populations), 0
        for source in projection.sources:
            one = Incoming(projection, source, first)
            first += source.shape[0]
            if source not in live:
                continue
            if not source.negative:
                found.append(one)
                continue
            at = next(
                (
                    i
                    for i, other in enumerate(found)
                    if not other.has_negative and other.is_negated_by(one, program)
                ),
                None,
            )
            if at is None:
                return None
            found[at] = replace(found[at], has_negative=True)
    return found


def apart(incoming: Sequence[Incoming]) -> tuple[list[Incoming], list[Incoming]]:
    """Those that are gathered, and those of one weight per channel."""
    return (
        [one for one in incoming if not one.projection.channelwise],
        [one for one in incoming if one.projection.channelwise],
    )


def reads_own_channel(projection: Projection, p: Population) -> bool:
    """Whether each neuron reads its own channel alone; pools may lie between."""
    return (
        projection.groups == projection.shape[0] == p.shape[0]
        and len(projection.sources) == 1
        and projection.dilation[1] == 1
    )


def at_once(incoming: Incoming) -> int:
    """Rows of a kernel next to each other whose sum in a step stays in 16 bits for any spikes; 0: a single
    row can leave them.
    """
    weight = incoming.weight.astype(np.int64) * (incoming.source.pool.area if incoming.source.pool else 1)
    parts = (
        (np.abs(weight), -np.abs(weight))
        if incoming.has_negative
        else (np.maximum(weight, 0), np.minimum(weight, 0))
    )
    for n in range(weight.shape[2], 0, -1):
        most, least = (
            np.lib.stride_tricks.sliding_window_view(part.sum(axis=(1, 3)), n, axis=1).sum(axis=2)
            for part in parts
        )
        if most.max() < 2**15 and least.min() >= -(2**15):
            return n
    return 0
