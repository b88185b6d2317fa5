"""What the generated code does: views of spikes, stages that fill them row by row, and the order of the rows.

A stage computes all steps of a row before the next, and a row of the next stage as soon as the rows that it
reads are there; so a view keeps few rows, and membranes live only while their neuron is in hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from evsnn.circuit.neuron import LEAK, NEGATIVE_SPIKES, WARM_UP
from evsnn.circuit.populations import (
    ANALOG_INPUT,
    ANALOG_SHIFT,
    GROUPS,
    INPUT,
    MAX_POOL,
    POOLED_SOURCES,
    Circuit,
    MaxPool,
    Population,
    check_supported,
)
from evsnn.circuit.quantized import QuantizedNetwork
from evsnn.errors import RunError

from .schedule import lives_of, ring_of, schedule_of
from .stages import Stage, readout_counts, stages_of
from .views import Key, View

__all__ = ["SUPPORTS", "Program", "groups_of", "label", "padded_to_tiles", "program_of"]

SUPPORTS = frozenset(
    {ANALOG_INPUT, ANALOG_SHIFT, GROUPS, LEAK, MAX_POOL, NEGATIVE_SPIKES, POOLED_SOURCES, WARM_UP}
)
"""Features of populations that the C computes, with the code for any layer if not with fast code."""

MAX_ROWS = (1 << 16) - 1
"""Rows of a stage: the C counts them in 16 bits."""

MAX_READS = 1 << 20
"""Rows of all stages, each as often as it reads something: what finding their order takes time for. The
order of the rows is a table in flash, so that no microcontroller has room for more.
"""


@dataclass(frozen=True)
class Output:
    """An output of the network among the values that the C gives.

    Parameters
    ----------
    population : int
        Which is read out.
    start : int
        The place of its first value.
    shape : (channels, height, width)
    """

    population: int
    start: int
    shape: tuple[int, int, int]

    @property
    def n_positions(self) -> int:
        return self.shape[1] * self.shape[2]

    @property
    def length(self) -> int:
        """The number of its values."""
        return self.shape[0] * self.n_positions


@dataclass(frozen=True, eq=False, kw_only=True)
class Program:
    """A network as rows of stages.

    Parameters
    ----------
    network : QuantizedNetwork
    stages : tuple of Stage
        Each behind those that it reads.
    views : dict of Key to View
    schedule : tuple of int
        Which stage computes its next row.
    counts : bool
        Whether the readout integrates totals of spikes, and is no stage.
    by_step : bool
        Whether all rows are computed once per step, and membranes kept, instead of all steps of a row at
        once.
    compact : bool
        Whether weights of 32-bit layers take 1 byte, not 2.
    """

    network: QuantizedNetwork
    stages: tuple[Stage, ...]
    views: dict[Key, View] = field(repr=False)
    schedule: tuple[int, ...] = field(repr=False)
    counts: bool
    by_step: bool = False
    compact: bool = False

    @property
    def n_steps(self) -> int:
        """Time steps of a run."""
        return self.network.n_steps

    @property
    def view_steps(self) -> int:
        """Steps that a row of a view holds."""
        return 1 if self.by_step else self.n_steps

    @property
    def n_outputs(self) -> int:
        """Values that all readouts give: channels times positions."""
        return sum(
            output.length for output in {output.population: output for output in self.outputs}.values()
        )

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs, in the network's order, and where their values are."""
        circuit, end = self.network.circuit, 0
        starts: dict[int, int] = {}
        for j in circuit.readouts:
            if j not in starts:
                starts[j] = end
                end += circuit.population(j).n_neurons
        return tuple(Output(j, starts[j], circuit.population(j).shape) for j in circuit.readouts)

    @property
    def classifies(self) -> bool:
        """Whether the outputs are scores, of which the largest is the predicted class."""
        return self.network.network.task == "classify"

    def population(self, stage: Stage) -> Population:
        """The population that a stage of this kind computes."""
        found = self.network.circuit.populations[stage.population]
        if not isinstance(found, Population):
            raise TypeError(f"stage {stage.kind!r} has no neurons")
        return found

    def max_pool(self, stage: Stage) -> MaxPool:
        """The max pool that a stage of this kind computes."""
        found = self.network.circuit.populations[stage.population]
        if not isinstance(found, MaxPool):
            raise TypeError(f"stage {stage.kind!r} is no max pool")
        return found

    def view_lives(self) -> dict[Key, tuple[int, int]]:
        """From which to which place in the schedule each view is needed."""
        made, used = lives_of(self.stages, self.views, self.schedule)
        end = len(self.schedule)
        return {
            key: (int(made[key].min()), int(used[key].max())) if made[key].size else (0, end)
            for key in self.views
        }


def label(stage: Stage, circuit: Circuit) -> str:
    """What a stage computes, for messages."""
    return (
        "the input" if stage.population == INPUT else f"layer {circuit.populations[stage.population].name!r}"
    )


def program_of(network: QuantizedNetwork, by_step: bool = False, compact: bool = False) -> Program:
    """The stages, views and order of a network.

    Parameters
    ----------
    network : QuantizedNetwork
    by_step, compact : bool
        See `Program`.

    Raises
    ------
    RunError
        If the network has a feature that is not in `SUPPORTS` or too many rows; or if it is to run step by
        step, and a layer's step needs later steps of the layer before it.
    """
    circuit = network.circuit
    check_supported(circuit, SUPPORTS, "firmware")
    if by_step and circuit.has_warm_up:
        raise RunError(
            "a network with warm-up steps cannot run step by step", hint="export it layer by layer"
        )
    stages, needed = stages_of(circuit)
    _check_rows(stages, circuit)
    schedule = schedule_of(stages)
    return Program(
        network=network,
        stages=tuple(stages),
        views=_views(stages, needed, circuit, schedule),
        schedule=tuple(schedule),
        counts=readout_counts(circuit),
        by_step=by_step,
        compact=compact,
    )


def _check_rows(stages: Sequence[Stage], circuit: Circuit) -> None:
    """Refuse more rows than the C counts, and more than an order is worth to be found for."""
    total = 0
    for stage in stages:
        total += stage.rows * max(1, len(stage.reads))
        for got, most, what in (
            (stage.rows, MAX_ROWS, "it has too many rows for firmware"),
            (
                total,
                MAX_READS,
                "up to here, the layers' rows times what each reads are too many for firmware",
            ),
        ):
            if got > most:
                raise RunError(
                    what,
                    where=label(stage, circuit),
                    got=got,
                    expected=f"at most {most}",
                    hint="use smaller maps; a map that is wide and low has few rows",
                )


def _views(
    stages: Sequence[Stage], needed: Iterable[Key], circuit: Circuit, schedule: Sequence[int]
) -> dict[Key, View]:
    """A view for all that stages write, and for the input's spikes."""
    keys = dict.fromkeys(
        [*(key for key in needed if key == Key(INPUT)), *(key for stage in stages for key in stage.writes)]
    )
    views = {}
    for key in keys:
        shape = key.seen_shape(
            circuit.input_shape if key.population == INPUT else circuit.populations[key.population].shape
        )
        left = right = 0
        for stage in stages:
            for read in stage.reads:
                if read.key == key:
                    low, high = read.window.span(1, 0, stage.width * stage.window[1] - 1)
                    left, right = max(left, -low), max(right, high - shape[2] + 1)
        views[key] = View.of(key, shape, left, right)
    made, used = lives_of(stages, views, schedule)
    return {  # the input's spikes are all there before the first row
        key: replace(view, ring=ring_of(made[key], used[key])) if made[key].size else view
        for key, view in views.items()
    }


def padded_to_tiles(values: np.ndarray, groups: int, tile: int, fill: int = 0) -> np.ndarray:
    """Channels' values with each group filled up to whole tiles."""
    per_group = len(values) // groups
    tiles = -(-per_group // tile)
    padded = np.full((groups, tiles * tile), fill, np.int64)
    padded[:, :per_group] = values.reshape(groups, per_group)
    return padded.ravel()


def groups_of(p: Population) -> int:
    """Into how many groups a population's outputs fall, each with inputs of its own."""
    groups = [s.groups for s in (*(s for s in p.projections if not s.channelwise), *p.analog_projections)]
    return int(np.lcm.reduce(groups or [1]))
