"""Where a run of one sample is, apart from the plan and from the workspace that computes it.

A `State` holds what one block of steps leaves to the next: membranes, net counts, counts of max pools, the
constant currents of the sample, and the number of steps that are done. A workspace is bound to one state at a
time. A state can be bound again, to any workspace of the same plan, and goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import RunError
from .kernels.layout import COUNTS_PER_MASK
from .plan import MaxPoolPlan, Plan, PopulationPlan, aligned

__all__ = ["LayerState", "PoolState", "State"]


@dataclass(eq=False)
class LayerState:
    """Arrays of one population of neurons, [y][x][tile][lane]; None for arrays that a run does not need.

    Parameters
    ----------
    membranes, net_counts : array, optional
        As they are after the last block.
    current : array, optional
        The current of the analog input and the bias, the same at every step.
    """

    membranes: np.ndarray | None
    net_counts: np.ndarray | None
    current: np.ndarray | None


@dataclass(eq=False)
class PoolState:
    """Counts of one max pool, [y][x][channel] uint16 modulo 2^16; None if nothing is carried on.

    Parameters
    ----------
    received : array, optional
        The net counts of its inputs.
    largest : array, optional
        The largest count of each window.
    """

    received: np.ndarray | None
    largest: np.ndarray | None


class State:
    """Where a run of one sample is.

    Parameters
    ----------
    plan : Plan
    carries : bool
        Whether the run can be carried on after a block.
    keep_membranes : bool
        Whether it holds the last membranes of every population, even if the run is not carried on.

    Attributes
    ----------
    populations : tuple of LayerState or PoolState
    step : int
        The number of steps that are done.
    """

    def __init__(self, plan: Plan, carries: bool, keep_membranes: bool = False):
        self.plan, self.carries, self.step = plan, carries, 0
        self.populations = tuple(
            _pool_state(p, carries)
            if isinstance(p, MaxPoolPlan)
            else _layer_state(p, carries, keep_membranes)
            for p in plan.populations
        )

    def reset(self) -> None:
        """Go back to before the first step: counts are 0, and kernels begin with the first membranes."""
        self.step = 0
        for own in self.populations:
            if isinstance(own, PoolState):
                for counts in (own.received, own.largest):
                    if counts is not None:
                        counts[...] = 0

    def layer(self, population: int) -> LayerState:
        """That of a population of neurons."""
        own = self.populations[population]
        if not isinstance(own, LayerState):
            raise RunError("the state belongs to another circuit", where=f"population {population}")
        return own

    def pool(self, population: int) -> PoolState:
        """That of a max pool."""
        own = self.populations[population]
        if not isinstance(own, PoolState):
            raise RunError("the state belongs to another circuit", where=f"population {population}")
        return own

    def v_mem(self, population: int) -> np.ndarray | None:
        """The membranes (channels, height, width) of a population after the last step, if they are held."""
        return self._seen(population, "membranes")

    def net_counts(self, population: int) -> np.ndarray | None:
        """The net counts (channels, height, width) of a population so far, if they are carried on."""
        return self._seen(population, "net_counts")

    def _seen(self, population: int, what: str) -> np.ndarray | None:
        array = getattr(self.populations[population], what, None)
        channels = self.plan.circuit.populations[population].shape[0]
        return None if array is None else array[..., :channels].transpose(2, 0, 1)


def _layer_state(p: PopulationPlan, carries: bool, keep_membranes: bool) -> LayerState:
    def array(needed: bool) -> np.ndarray | None:
        if not needed:
            return None
        element = np.dtype(p.membrane)
        flat = aligned(p.padded * element.itemsize).view(element)
        return flat.reshape(*p.population.shape[1:], p.n_tiles * p.lanes)

    population = p.population
    return LayerState(
        membranes=array(carries or keep_membranes or not population.fires),
        net_counts=array(carries and population.has_negative_spikes),
        current=array(bool(population.analog_projections)),
    )


def _pool_state(p: MaxPoolPlan, carries: bool) -> PoolState:
    def array(positions: int) -> np.ndarray | None:
        return aligned(positions * p.words * COUNTS_PER_MASK * 8).view(np.uint16) if carries else None

    return PoolState(received=array(p.in_positions), largest=array(p.positions))
