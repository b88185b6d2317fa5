"""Descriptions of stages for the templates of the runtime's fast code: analog.h.j2 and gather.h.j2."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evsnn.circuit.populations import Population

from ..memory.arena import Arena
from ..program.blank import Blank, blank_of, blank_totals
from ..program.incoming import Incoming, apart, at_once, incoming_of
from ..program.packing import channelwise_tiles, pair_words, pairs_of, tile_pairs, view_words
from ..program.program import padded_to_tiles
from ..program.stages import Stage
from ..program.views import TILE, Key, View, key_of
from .any_layer import NEVER, reached, readout_table, tiled
from .ctext import initialiser
from .tables import Tables

__all__ = ["describe_fast", "tiled_currents"]

NO_SOURCE = {
    "word_bits": 8,
    "field_bits": 1,
    "positions": 0,
    "words": 1,
    "rows": 0,
    "step_bytes": 0,
    "at_once": 1,
    "negative": 0,
}
"""An evsnn_source_t for a second source that there is not."""


def describe_fast(
    stage: Stage, i: int, kind: str, arena: Arena, tables: Tables, blanks: dict[Key, Blank]
) -> dict:
    """What the templates say of a stage.

    Parameters
    ----------
    stage : Stage
    i : int
        Its number.
    kind : {"analog", "channelwise", "pairs", "wide", "singles"}
    arena : Arena
    tables : Tables
        Gets the definitions of constants.
    blanks : dict
        Patterns of blank places, by view; a stage with analog input adds its own.
    """
    common = _common(stage, i, arena, tables) | {"kind": kind}
    if kind == "analog":
        return common | {"template": "analog.h.j2"} | _analog(stage, i, arena, tables, blanks)
    return common | {"template": "gather.h.j2"} | _gather(stage, i, kind, arena, tables, blanks)


def _common(stage: Stage, i: int, arena: Arena, tables: Tables) -> dict:
    """What both templates need."""
    program = arena.program
    key = stage.writes[0] if stage.writes else None
    values: dict = {
        "i": i,
        "window": stage.window,
        "width": stage.width,
        "totals": stage.readout is not None,
        "n_channels": program.network.circuit.populations[stage.population].shape[0],
        "blank": None,
        "out": program.views[key] if key else None,
        "out_view": initialiser("evsnn_view_t", arena.view(key), 1),
        "state": arena.state("membranes", stage.population),
    }
    if stage.readout is not None:
        values["readout"], values["outputs"] = readout_table(stage.readout, i, tables)
    return values


def tiled_currents(weight: np.ndarray) -> np.ndarray:
    """Weights (n_out, n_in, ky, kx) of the analog input, as [tile][channel][ky][kx][8]."""
    return tiled(weight)[0].transpose(0, 3, 1, 2, 4)


def _bits(columns: int) -> int:
    """Of a word that has one for each column."""
    return 16 if columns <= 16 else 32


def _analog(stage: Stage, i: int, arena: Arena, tables: Tables, blanks: dict[Key, Blank]) -> dict:
    program = arena.program
    p = program.population(stage)
    (projection,), n_steps = p.analog_projections, program.n_steps
    to_threshold = (p.neuron.threshold - p.neuron.v_init).astype(np.int64)
    least = np.minimum(to_threshold, -(-to_threshold // n_steps))  # a smaller current never reaches it
    low, high = projection.window.span(1, 0, stage.width * stage.window[1] - 1)

    def padded(what: str, values: np.ndarray, fill: int = 0) -> str:
        return tables.array(
            f"s{i}_{what}", padded_to_tiles(np.asarray(values, np.int64), 1, TILE, fill), np.int32
        )

    values: dict = {
        "channels": projection.weight.shape[1],
        "height": projection.shape[1],
        "in_width": projection.shape[2],
        "kernel": projection.kernel,
        "stride": projection.stride,
        "padding": projection.padding,
        "sides": (-low, max(0, high + 1 - projection.shape[2])),
        "tiles": -(-p.shape[0] // TILE),
        "last_channels": (p.shape[0] - 1) % TILE + 1,
        "weight": tables.array(f"s{i}_w", tiled_currents(projection.weight), np.int8),
        "tile_weights": int(np.prod(projection.weight.shape[1:])) * TILE,
        "warm_up": min(p.neuron.warm_up_steps, n_steps),
        "bias": padded("bias", p.bias),
        "least": padded("least", np.clip(least, -(2**31), NEVER), NEVER),
        "u_init": padded("init", -to_threshold, -1),
        "threshold": padded("th", p.neuron.threshold, NEVER),
    }
    blank = blank_of(stage, p, program)
    if blank is not None:
        (key,) = stage.writes
        blanks[key] = blank
        values["blank"] = _blank_places(blank, program.views[key], i, tables)
    return values


def _blank_places(blank: Blank, out: View, i: int, tables: Tables) -> dict:
    """What a layer with analog input writes, and notes, for blank places."""
    words = view_words(blank.spikes, out)
    return {
        "bits": _bits(out.columns),
        "field": blank.field,
        "mask": (1 << blank.field[1]) - 1,
        "sides": sum(1 << x for x in range(out.columns) if not out.left <= x < out.left + out.shape[2]),
        "word_type": {8: "uint8_t", 16: "evsnn_half_t", 32: "uint32_t"}[out.word_bits],
        "pattern": tables.array(f"s{i}_blank", words, words.dtype),
        "ring": out.ring,
    }


def _gather(stage: Stage, i: int, kind: str, arena: Arena, tables: Tables, blanks: dict[Key, Blank]) -> dict:
    program = arena.program
    p = program.population(stage)
    incoming = incoming_of(p, program) or []
    gathers, same = (incoming, []) if kind == "channelwise" else apart(incoming)
    pairs = kind == "pairs"  # membranes, not weights alone
    row = tile_pairs(p.shape[0]) if kind in ("pairs", "wide") else TILE
    tile = 2 * row if kind in ("pairs", "wide") else TILE

    def constants(what: str, values: np.ndarray, fill: int = 0) -> str:
        words = (
            pair_words(values, row, min(fill, 2**15 - 1))
            if pairs
            else padded_to_tiles(np.asarray(values, np.int64), 1, tile, fill)
        )
        return tables.array(f"s{i}_{what}", words, np.uint32 if pairs else np.int32)

    sources = _sources(gathers, i, kind, row, arena, tables)
    tiles = -(-p.shape[0] // tile)
    u_init = p.neuron.v_init.astype(np.int64) - p.neuron.threshold
    values: dict = {
        "row": row,
        "lanes": "8" if kind == "channelwise" else "4" if row == 4 else "EVSNN_LANES",
        "sources": sources,
        "tiles": tiles,
        "last_channels": (p.shape[0] - 1) % tile + 1,
        "same": None,
        "state_words": tiles * (row if pairs else tile),
        "state_length": p.shape[1] * p.shape[2] * tiles * (row if pairs else tile),
        "neurons_width": p.shape[2],
        "u_init": constants(
            "init", u_init + 2**15 if pairs else u_init, 0 if pairs else -1
        ),  # a pair has fired if its highest bit is set
        "bias": constants("bias", p.bias),
        "threshold": constants("th", p.neuron.threshold, NEVER),
        "has_negative": p.has_negative_spikes,
        "u_negative": constants("negative", reached(p.neuron.v_negative - p.neuron.threshold))
        if p.neuron.v_negative is not None
        else None,
        "net": arena.state("net counts", stage.population),
    }
    for one in same:
        view = program.views[key_of(one.source)]
        values["same"] = {
            "view": view,
            "c_view": initialiser("evsnn_view_t", arena.view(view.key), 1),
            "weight": constants("same", one.projection.weight.reshape(-1)),
            "negative": _negative(one, arena),
        }
    values["fast"] = _layer(stage, p, values, arena)
    values["fast_init"] = initialiser("evsnn_fast_t", values["fast"], 1)
    if (
        pairs
        and stage.readout
        and len(gathers) == 1
        and not gathers[0].has_negative
        and not same
        and sources[0]["view"].key in blanks
        and not program.by_step
    ):
        (read,), view = stage.reads, sources[0]["view"]
        found = blank_totals(stage, p, read, blanks[read.key], view)
        if found is not None:
            totals, rows, columns = found
            values["blank"] = {
                "bits": _bits(view.columns),
                "mask": (1 << read.window.kernel[1]) - 1,
                "totals": tables.array(f"s{i}_blank", pair_words(totals, row), np.uint32),
                "rows": tables.array(f"s{i}_rows", rows, np.uint8),
                "columns": tables.array(f"s{i}_columns", columns, np.uint8),
            }
    return values


def _sources(
    gathers: list[Incoming], i: int, kind: str, row: int, arena: Arena, tables: Tables
) -> list[dict]:
    """What the template says of each source; its evsnn_source_t is under "descriptor"."""
    projections = dict.fromkeys(one.projection for one in gathers)
    packed = {
        s: pairs_of(s, row)
        if kind in ("pairs", "wide")
        else channelwise_tiles(s)
        if kind == "channelwise"
        else tiled(s.weight)[0]
        for s in projections
    }
    types = {"singles": np.int8, "channelwise": np.int32}
    names = {
        s: tables.array(f"s{i}_w{j}", weight, types.get(kind, np.uint32))
        for j, (s, weight) in enumerate(packed.items())
    }
    sources = []
    for one in gathers:
        projection, view = one.projection, arena.program.views[key_of(one.source)]
        shape = packed[projection].shape  # behind the first axis: of a tile, or of a row of positions
        sources.append(
            {
                "view": view,
                "c_view": initialiser("evsnn_view_t", arena.view(view.key), 1),
                "kernel": projection.kernel,
                "stride": projection.stride,
                "dilation": projection.dilation,
                "padding": projection.padding,
                "weight": names[projection],
                "first": one.first * row,
                "tile_weights": TILE if kind == "channelwise" else int(np.prod(shape[1:])),
                "row_weights": int(np.prod(shape[1:] if kind == "channelwise" else shape[2:])),
                "descriptor": {
                    "word_bits": view.word_bits,
                    "field_bits": view.field_bits,
                    "positions": projection.kernel[1],
                    "words": view.words,
                    "rows": shape[2] if kind == "channelwise" else projection.weight.shape[1],
                    "step_bytes": view.step_bytes,
                    "at_once": at_once(one) if kind == "wide" else 1,
                    "negative": _negative(one, arena),
                },
            }
        )
    return sources


def _layer(stage: Stage, p: Population, values: dict, arena: Arena) -> dict:
    """A stage as an evsnn_fast_t."""
    program, same = arena.program, values["same"]
    out = None if stage.readout else program.views[stage.writes[0]]
    spikes, negative = (
        (arena.view(key)["offset"] for key in stage.writes) if len(stage.writes) == 2 else (0, 0)
    )
    keeps_net = p.has_negative_spikes and program.by_step
    sources = [source["descriptor"] for source in values["sources"]]
    return {
        "source": [*sources, NO_SOURCE][:2],
        "same": same is not None,
        "same_word_bits": same["view"].word_bits if same else 8,
        "same_step_bytes": same["view"].step_bytes if same else 0,
        "same_negative": same["negative"] if same else 0,
        "row": values["row"],
        "lanes": values["lanes"],
        "n_steps": program.view_steps,
        "emit": "EVSNN_TOTALS" if out is None else "EVSNN_SPIKES" if out.field_bits == 1 else "EVSNN_COUNTS",
        "out_word_bits": out.word_bits if out else 8,
        "out_field_bits": out.field_bits if out else 1,
        "out_step_bytes": out.step_bytes if out else 0,
        "warm_up": p.neuron.warm_up_steps,
        "has_negative": p.has_negative_spikes,
        "negative": negative - spikes,
        "net": (values["net"] - arena.state("membranes", stage.population)) // 4 if keeps_net else 0,
    }


def _negative(one: Incoming, arena: Arena) -> int:
    """Bytes from a source's spikes to its negative ones; 0: it sends none."""
    key = key_of(one.source)
    return (
        arena.view(replace(key, negative=True))["offset"] - arena.view(key)["offset"]
        if one.has_negative
        else 0
    )
