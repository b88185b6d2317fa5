"""Stages for which the runtime has fast code, and the tables in the order in which it walks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evsnn.circuit.neuron import LEAK, WARM_UP, Membranes
from evsnn.circuit.populations import Population, Projection, Source
from evsnn.circuit.quantized import membrane_bounds

from .program import TILE, Program, Read, Stage, View, key_of, live_sources

__all__ = [
    "Blank",
    "Charge",
    "apart",
    "at_once",
    "blank_of",
    "charges_of",
    "fast_kind",
    "pair_words",
    "pairs_of",
    "tapped",
    "tile_pairs",
]

COLUMNS = 32
"""Columns of a row, padding included, up to which blank places are tracked: a word's bits."""


def fast_kind(stage: Stage, program: Program) -> str | None:
    """ "drive", "pairs", "wide", "singles" or "taps"; None: the code for any layer."""
    if stage.kind != "population":
        return None
    p: Population = program.network.circuit.populations[stage.population]
    if (
        not p.fires
        or LEAK in p.features
        or not (stage.writes or stage.tally)
        or len({replace(program.views[key], key=stage.writes[0]) for key in stage.writes}) > 1
    ):
        return None
    least, _ = membrane_bounds(p, program.n_steps, (program.network.input_low, program.network.input_high))
    if p.has_negative_spikes:
        least = np.minimum(least, p.neuron.v_negative)
    above = least - p.neuron.v_threshold  # the runtime compares v - v_threshold with 0
    if above.min() < -(2**31):
        return None
    if p.analog_projections:
        projection, *others = p.analog_projections
        plain = (
            not others
            and not p.projections
            and not p.has_negative_spikes
            and projection.groups == 1
            and len(projection.sources) == 1
            and not projection.pooled
            and projection.dilation == (1, 1)
        )
        return "drive" if plain and not program.by_step else None
    charges = charges_of(p, program)
    if charges is None:
        return None
    if 1 <= len(charges) <= 2 and all(is_depthwise(c.projection, p) for c in charges):
        return "taps"
    gathers, same = apart(charges)
    if (
        not 1 <= len(gathers) <= 2
        or len(same) > 1
        or any(c.projection.groups != 1 or c.projection.dilation[1] != 1 for c in gathers)
        or any(not is_identity(c.projection) for c in same)
    ):
        return None
    area = stage.window[0] * stage.window[1]
    if (
        program.network.widths[stage.population] == "int16"
        and above.min() >= -(2**15)
        and program.n_steps * area < 2**16
        and not p.has_negative_spikes
        and WARM_UP not in p.features
    ):
        return "pairs"
    return "singles" if program.compact or not all(map(at_once, gathers)) else "wide"


@dataclass(frozen=True, eq=False)
class Charge:
    """What charges a population: spikes of a source, and those that take one back.

    Parameters
    ----------
    projection : Projection
    source : Source
        One of the projection's.
    first : int
        Its first channel in the weights.
    takes_back : bool
        Whether it sends negative spikes, too; they take the same weights away.
    """

    projection: Projection
    source: Source
    first: int = 0
    takes_back: bool = False

    @property
    def weight(self) -> np.ndarray:
        """Of the source's channels."""
        return self.projection.weight[:, self.first : self.first + self.source.shape[0]]

    def is_negated_by(self, other: Charge, program: Program) -> bool:
        """Whether the other's spikes take away what these add, and lie like them."""
        a, b = self.projection, other.projection
        views = [
            replace(program.views[key_of(source)], key=key_of(self.source))
            for source in (self.source, other.source)
        ]
        same = (a.stride, a.padding, a.dilation, a.groups) == (
            b.stride,
            b.padding,
            b.dilation,
            b.groups,
        ) and self.source == replace(other.source, negative=False)
        return same and views[0] == views[1] and np.array_equal(self.weight, -other.weight)


def charges_of(p: Population, program: Program) -> list[Charge] | None:
    """What charges a population, without sources that never send anything; None: negative spikes have weights
    of their own.
    """
    found: list[Charge] = []
    for projection in p.projections:
        live, first = live_sources(projection, program.network.circuit.populations), 0
        for source in projection.sources:
            charge = Charge(projection, source, first)
            first += source.shape[0]
            if source not in live:
                continue
            if not source.negative:
                found.append(charge)
                continue
            at = next(
                (
                    i
                    for i, other in enumerate(found)
                    if not other.takes_back and other.is_negated_by(charge, program)
                ),
                None,
            )
            if at is None:
                return None
            found[at] = replace(found[at], takes_back=True)
    return found


def apart(charges: Sequence[Charge]) -> tuple[list[Charge], list[Charge]]:
    """Those that are gathered, and those of one weight a channel."""
    return [c for c in charges if not c.projection.channelwise], [
        c for c in charges if c.projection.channelwise
    ]


def at_once(charge: Charge) -> int:
    """Rows of a kernel next to each other whose charge in a step stays in 16 bits for any spikes; 0: a single
    row can leave them.
    """
    weight = charge.weight.astype(np.int64) * (charge.source.pool.area if charge.source.pool else 1)
    parts = (
        (np.abs(weight), -np.abs(weight))
        if charge.takes_back
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


def is_depthwise(projection: Projection, p: Population) -> bool:
    """Whether each neuron reads its own channel alone."""
    return (
        projection.groups == projection.shape[0] == p.shape[0]
        and len(projection.sources) == 1
        and projection.dilation[1] == 1
    )


def is_identity(projection: Projection) -> bool:
    """Whether each neuron gets the spikes of its own channel and place."""
    return projection.kernel == (1, 1) and projection.stride == (1, 1) and not any(projection.padding)


def tile_pairs(channels: int) -> int:
    """Pairs of a tile: 8, or 4 for a layer of at most 8 channels."""
    return 4 if channels <= 8 else 8


def pair_words(values: np.ndarray, row: int, fill: int = 0) -> np.ndarray:
    """Values of channels (last axis) as words: tiles of `row` pairs, pair j of channels j and row + j.

    A word is low + high * 2^16 modulo 2^32, so that multiples of it add to both halves exactly.
    """
    channels = values.shape[-1]
    tiles = -(-channels // (2 * row))
    padded = np.full((*values.shape[:-1], tiles * 2 * row), fill, np.int64)
    padded[..., :channels] = values
    halves = padded.reshape(*values.shape[:-1], tiles, 2, row)
    return ((halves[..., 0, :] + halves[..., 1, :] * 2**16) % 2**32).astype(np.uint32)


def pairs_of(projection: Projection, row: int) -> np.ndarray:
    """Weights as [tile][ky][kx][channel][row] words."""
    return np.moveaxis(pair_words(projection.weight.astype(np.int64).transpose(2, 3, 1, 0), row), -2, 0)


def tapped(projection: Projection) -> np.ndarray:
    """Weights of single channels as [ky][kx][channel], filled up to whole tiles."""
    taps = projection.weight[:, 0].astype(np.int64).transpose(1, 2, 0)
    return np.pad(taps, ((0, 0), (0, 0), (0, -taps.shape[2] % TILE)))


@dataclass(frozen=True, eq=False)
class Blank:
    """What neurons do where the input is 0 all around: the same everywhere.

    Parameters
    ----------
    spikes : (n_steps, channels) int64
        Of the neurons of a window, together.
    """

    spikes: np.ndarray


def blank_of(stage: Stage, p: Population, program: Program) -> Blank | None:
    """The blank pattern of a stage with a current, if enough of the stored samples is blank to look for
    it.
    """
    network = program.network
    samples = network.network.samples
    (projection,) = p.analog_projections
    view = program.views.get(stage.writes[0]) if stage.writes else None
    (_, left, _, right), width = projection.padding, projection.shape[2]
    if (
        view is None
        or samples is None
        or samples.images.size == 0
        or left + width + right > COLUMNS
        or view.left + view.shape[2] + view.right > COLUMNS
    ):
        return None
    if not all(0 <= pad < k for pad, k in zip(projection.padding, projection.kernel * 2)):
        return None
    images = network.encode(samples.images.reshape(-1, *network.circuit.input_shape))
    seen = np.pad(
        (images != 0).any(axis=1), ((0, 0), (projection.padding[0], projection.padding[2]), (left, right))
    )
    field = tuple((w - 1) * s + k for w, s, k in zip(stage.window, projection.stride, projection.kernel))
    windows = np.lib.stride_tricks.sliding_window_view(seen, field, axis=(1, 2))
    windows = windows[:, :: stage.window[0] * projection.stride[0], :: stage.window[1] * projection.stride[1]]
    if windows.any(axis=(3, 4)).mean() > 0.9:
        return None
    return Blank(stage.window[0] * stage.window[1] * constant_spikes(p.bias, p, network.n_steps))


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


def view_words(counts: np.ndarray, view: View) -> np.ndarray:
    """Counts (..., channels) as the words of a position."""
    per_word = view.word_bits // view.field_bits
    padded = np.zeros((*counts.shape[:-1], view.words * per_word), np.int64)
    padded[..., : counts.shape[-1]] = counts
    shifts = view.word_bits - view.field_bits * (1 + np.arange(per_word))
    return (
        (padded.reshape(*counts.shape[:-1], view.words, per_word) << shifts)
        .sum(axis=-1)
        .astype({8: np.uint8, 16: np.uint16, 32: np.uint32}[view.word_bits])
    )


def blank_totals(
    stage: Stage, p: Population, read: Read, source: Blank, view: View, n_steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spike counts of neurons all of whose inputs are blank: which taps lie on the map decides.

    Returns
    -------
    totals : (classes, channels) int64
    row_class : (neurons' rows,) uint8
        The part of a neuron's class that its row decides, times the number of parts that its column does.
    column_class : (neurons' columns,) uint8
    """
    weight = p.projections[0].weight.astype(np.int64)

    def classes(axis: int, n: int) -> tuple[np.ndarray, list[tuple[bool, ...]]]:
        at = (
            np.arange(n)[:, None] * read.stride[axis]
            - read.padding[axis]
            + np.arange(read.kernel[axis]) * read.dilation[axis]
        )
        on_map = [tuple(row) for row in ((at >= 0) & (at < view.shape[1 + axis])).tolist()]
        kinds = sorted(set(on_map))
        return np.array([kinds.index(row) for row in on_map]), kinds

    rows, row_kinds = classes(0, stage.rows * stage.window[0])
    columns, column_kinds = classes(1, stage.width * stage.window[1])
    totals = []
    for row in row_kinds:
        for column in column_kinds:
            reached = weight[:, :, np.array(row)][..., np.array(column)].sum(axis=(2, 3))
            membranes = Membranes(p.neuron, (p.shape[0],), -1, np.int64)
            for spikes in source.spikes:
                membranes.leak()
                membranes.v += reached @ spikes + p.bias
                membranes.fire(np.empty(p.shape[0], np.int8))
            totals.append(membranes.n)
    return np.array(totals), (rows * len(column_kinds)).astype(np.uint8), columns.astype(np.uint8)
