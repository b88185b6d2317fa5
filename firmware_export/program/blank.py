"""Blank places: what neurons do if the input is 0 all around is the same everywhere, and is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evsnn.circuit.neuron import Membranes
from evsnn.circuit.populations import Population
from evsnn.network.geometry import Window

from .program import Program
from .stages import Stage
from .views import Read, View

__all__ = ["Blank", "blank_of", "blank_totals"]

COLUMNS = 32
"""Columns of a row, padding included, up to which blank places are tracked: a word's bits."""

MOST_CLASSES = 255
"""Kinds of neurons that 8 bits tell apart."""

MOST_SEEN = 0.9
"""The largest share of places that are not blank for which it is worth to look."""


@dataclass(frozen=True, eq=False)
class Blank:
    """What neurons do if the input is 0 all around.

    Parameters
    ----------
    spikes : (n_steps, channels) int64
        Of the neurons of a window, together.
    field : (int, int)
        Positions of the input that a window of neurons looks at.
    """

    spikes: np.ndarray
    field: tuple[int, int]


def blank_of(stage: Stage, p: Population, program: Program) -> Blank | None:
    """The blank pattern of a stage with analog input.

    Parameters
    ----------
    stage : Stage
    p : Population
    program : Program

    Returns
    -------
    Blank, optional
        None: too little of the stored samples is blank, or there are none, or a row is too wide.
    """
    network = program.network
    samples = network.network.samples
    (projection,) = p.analog_projections
    window, size = projection.window, projection.size
    view = program.views.get(stage.writes[0]) if stage.writes else None
    if (
        view is None
        or samples is None
        or samples.images.size == 0
        or window.padded(1, size[1]) > COLUMNS
        or view.columns > COLUMNS
        or any(pad >= extent for pad, extent in zip(window.padding, window.kernel * 2))
    ):
        return None
    spans = [window.span(axis, 0, stage.window[axis] - 1) for axis in (0, 1)]
    (top, bottom), (left, right) = spans
    field = (bottom - top + 1, right - left + 1)
    steps = (stage.window[0] * window.stride[0], stage.window[1] * window.stride[1])
    images = network.encode(samples.images.reshape(-1, *network.circuit.input_shape))
    if _share_seen((images != 0).any(axis=1), Window(field, steps, window.padding)) > MOST_SEEN:
        return None
    spikes = constant_spikes(p.bias, p, network.n_steps)
    return Blank(stage.window[0] * stage.window[1] * spikes, field)


def _share_seen(seen: np.ndarray, window: Window) -> float:
    """How many windows over maps (n, height, width) hold anything."""
    for axis in (0, 1):
        size = seen.shape[1 + axis]
        first = window.origins(axis, window.output_size((size, size))[axis])
        before = np.pad(seen.cumsum(axis=1 + axis), [(int(i == 1 + axis), 0) for i in range(3)])
        ends = [np.clip(at, 0, size) for at in (first + window.kernel[axis], first)]
        seen = np.greater(*(before.take(at, axis=1 + axis) for at in ends))
    return float(seen.mean())


def constant_spikes(current: np.ndarray, p: Population, n_steps: int) -> np.ndarray:
    """Spikes (n_steps, channels) of neurons under a constant current."""
    membranes = Membranes(p.neuron, current.shape, -1, np.int64)
    spikes = np.zeros((n_steps, *current.shape), np.int64)
    for u in range(n_steps + p.neuron.warm_up_steps):
        if u < n_steps:
            membranes.leak()
            membranes.v += current
        if u >= p.neuron.warm_up_steps:
            membranes.fire(spikes[u - p.neuron.warm_up_steps])
    return spikes


def blank_totals(
    stage: Stage, p: Population, read: Read, source: Blank, view: View
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Totals of spikes of neurons all of whose inputs are blank: which kernel positions lie on the map
    decides.

    Returns
    -------
    totals : (classes, channels) int64
    row_class : (neurons' rows,) uint8
        The part of a neuron's class that its row decides, times the number of parts that its column does.
    column_class : (neurons' columns,) uint8

    None if there are more classes than 8 bits count.
    """

    def classes(axis: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The class of each row or column, and which kernel positions lie on the map in each class."""
        inside = np.stack(read.window.inside(axis, view.shape[1 + axis]), axis=1)[:n]
        spans, found = np.unique(inside, axis=0, return_inverse=True)
        if len(spans) > MOST_CLASSES:
            return found, np.zeros((len(spans), 0), bool)
        places = np.arange(read.window.kernel[axis])
        on_map = (places >= spans[:, :1]) & (places < spans[:, 1:])
        kinds, number = np.unique(on_map, axis=0, return_inverse=True)
        return number.ravel()[found.ravel()], kinds

    rows, row_kinds = classes(0, stage.rows * stage.window[0])
    columns, column_kinds = classes(1, stage.width * stage.window[1])
    if len(row_kinds) * len(column_kinds) > MOST_CLASSES:
        return None
    weight = p.projections[0].weight.astype(np.int64)
    reached = np.stack(
        [weight[:, :, row][..., column].sum(axis=(2, 3)) for row in row_kinds for column in column_kinds]
    )
    membranes = Membranes(p.neuron, reached.shape[:2], -1, np.int64)
    fired = np.empty(reached.shape[:2], np.int8)
    for spikes in source.spikes:
        membranes.leak()
        membranes.v += reached @ spikes + p.bias
        membranes.fire(fired)
    return membranes.n, (rows * len(column_kinds)).astype(np.uint8), columns.astype(np.uint8)
