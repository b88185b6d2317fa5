"""Descriptions of stages for the templates of the runtime's fast code: drive.h.j2 and gather.h.j2."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evsnn.circuit.populations import Population

from ..memory.arena import Arena
from ..program.fast import (
    Blank,
    Charge,
    apart,
    at_once,
    blank_of,
    blank_totals,
    charges_of,
    pair_words,
    pairs_of,
    tapped,
    tile_pairs,
    view_words,
)
from ..program.program import TILE, Key, Stage, key_of, padded_to_tiles
from .any_layer import NEVER, tiled
from .ctext import initialiser
from .tables import Tables

__all__ = ["describe_fast", "tiled_currents"]


def describe_fast(
    stage: Stage, i: int, kind: str, arena: Arena, tables: Tables, blanks: dict[Key, Blank]
) -> dict:
    """What the templates say of a stage.

    Parameters
    ----------
    stage : Stage
    i : int
        Its number.
    kind : {"drive", "pairs", "wide", "singles", "taps"}
    arena : Arena
    tables : Tables
        Where constants are defined.
    blanks : dict
        Patterns of blank places, by view; a drive adds its own.
    """
    common = _common(stage, i, arena, tables) | {"kind": kind}
    return common | (
        _analog(stage, i, arena, tables, blanks)
        if kind == "drive"
        else _gather(stage, i, kind, arena, tables, blanks)
    )


def _common(stage: Stage, i: int, arena: Arena, tables: Tables) -> dict:
    """What both templates need."""
    program = arena.program
    key = stage.writes[0] if stage.writes else None
    values = {
        "i": i,
        "window": stage.window,
        "width": stage.width,
        "tally": stage.tally is not None,
        "n_channels": program.network.circuit.populations[stage.population].shape[0],
        "blank": None,
        "out": program.views[key] if key else None,
        "out_view": initialiser(arena.view(key)),
        "state": arena.state("membranes", stage.population),
    }
    if stage.tally is not None:
        values |= {
            "readout": tables.array(f"s{i}_out", stage.tally.weight.transpose(2, 3, 1, 0), np.int8),
            "classes": stage.tally.weight.shape[0],
        }
    return values


def tiled_currents(weight: np.ndarray) -> np.ndarray:
    """Weights (n_out, n_in, ky, kx) that the input drives, as [tile][channel][ky][kx][8]."""
    return tiled(weight)[0].transpose(0, 3, 1, 2, 4)


def _sides_bits(columns: int) -> int:
    return 16 if columns <= 16 else 32


def _analog(stage: Stage, i: int, arena: Arena, tables: Tables, blanks: dict[Key, Blank]) -> dict:
    program = arena.program
    p: Population = program.network.circuit.populations[stage.population]
    (projection,), n_steps = p.analog_projections, program.n_steps
    to_threshold = (p.neuron.v_threshold - p.neuron.v_init).astype(np.int64)
    least = np.minimum(
        to_threshold, -(-to_threshold // n_steps)
    )  # a smaller current never reaches the threshold
    columns = stage.width * stage.window[1]

    def padded(what: str, values: np.ndarray, fill: int = 0) -> str:
        return tables.array(
            f"s{i}_{what}", padded_to_tiles(np.asarray(values, np.int64), 1, TILE, fill), np.int32
        )

    values = {
        "channels": projection.weight.shape[1],
        "height": projection.shape[1],
        "in_width": projection.shape[2],
        "kernel": projection.kernel,
        "stride": projection.stride,
        "padding": projection.padding,
        "sides": (
            projection.padding[1],
            max(
                0,
                (columns - 1) * projection.stride[1]
                - projection.padding[1]
                + projection.kernel[1]
                - projection.shape[2],
            ),
        ),
        "tiles": -(-p.shape[0] // TILE),
        "last_channels": (p.shape[0] - 1) % TILE + 1,
        "weight": tables.array(f"s{i}_w", tiled_currents(projection.weight), np.int8),
        "tile_weights": int(np.prod(projection.weight.shape[1:])) * TILE,
        "delay": min(p.neuron.warm_up_steps, n_steps),
        "bias": padded("bias", p.bias),
        "least": padded("least", np.clip(least, -(2**31), NEVER), NEVER),
        "u_init": padded("init", -to_threshold, -1),
        "threshold": padded("th", p.neuron.v_threshold, NEVER),
    }
    blank = blank_of(stage, p, program)
    if blank is not None:
        (key,) = stage.writes
        out = program.views[key]
        blanks[key] = blank
        field = [(w - 1) * s + k for w, s, k in zip(stage.window, projection.stride, projection.kernel)]
        stored = out.left + out.shape[2] + out.right
        words = view_words(blank.spikes, out)
        values["blank"] = {
            "bits": _sides_bits(stored),
            "field": field,
            "mask": (1 << field[1]) - 1,
            "sides": sum(1 << x for x in range(stored) if not out.left <= x < out.left + out.shape[2]),
            "word_type": {8: "uint8_t", 16: "evsnn_half_t", 32: "uint32_t"}[out.word_bits],
            "pattern": tables.array(f"s{i}_blank", words, words.dtype),
            "ring": out.ring,
        }
    return values


def _gather(stage: Stage, i: int, kind: str, arena: Arena, tables: Tables, blanks: dict[Key, Blank]) -> dict:
    program = arena.program
    p: Population = program.network.circuit.populations[stage.population]
    charges = charges_of(p, program)
    gathers, same = (charges, []) if kind == "taps" else apart(charges)
    pairs, packed = kind == "pairs", kind in ("pairs", "wide")  # membranes, and weights
    row = tile_pairs(p.shape[0]) if packed else TILE
    tile = 2 * row if packed else TILE

    def constants(what: str, values: np.ndarray, fill: int = 0) -> str:
        words = (
            pair_words(values, row, min(fill, 2**15 - 1))
            if pairs
            else padded_to_tiles(np.asarray(values, np.int64), 1, tile, fill)
        )
        return tables.array(f"s{i}_{what}", words, np.uint32 if pairs else np.int32)

    projections = dict.fromkeys(charge.projection for charge in gathers)
    weights = {
        s: pairs_of(s, row) if packed else tapped(s) if kind == "taps" else tiled(s.weight)[0]
        for s in projections
    }
    types = {"singles": np.int8, "taps": np.int32}
    names = {
        s: tables.array(f"s{i}_w{j}", weight, types.get(kind, np.uint32))
        for j, (s, weight) in enumerate(weights.items())
    }
    sources = []
    for charge in gathers:
        projection, view, weight = (
            charge.projection,
            program.views[key_of(charge.source)],
            weights[charge.projection],
        )
        layout = (
            {"rows": weight.shape[2], "tile_weights": TILE}
            if kind == "taps"
            else {"rows": projection.weight.shape[1], "tile_weights": int(np.prod(weight.shape[1:]))}
        )
        sources.append(
            layout
            | {
                "view": view,
                "c_view": initialiser(arena.view(view.key)),
                "kernel": projection.kernel,
                "stride": projection.stride,
                "dilation": projection.dilation,
                "padding": projection.padding,
                "weight": names[projection],
                "first": charge.first * row,
                "row_weights": int(np.prod(weight.shape[1:] if kind == "taps" else weight.shape[2:])),
                "position_bytes": view.words * view.word_bits // 8,
                "at_once": at_once(charge) if kind == "wide" else 1,
                "negative": _negative(charge, arena),
            }
        )
    tiles = -(-p.shape[0] // tile)
    u_init = p.neuron.v_init.astype(np.int64) - p.neuron.v_threshold
    state, net = (arena.state(what, stage.population) for what in ("membranes", "net counts"))
    spike, negative = (
        (arena.view(key)["offset"] for key in stage.writes) if len(stage.writes) == 2 else (0, 0)
    )
    values = {
        "row": row,
        "lanes": "8" if kind == "taps" else "4" if row == 4 else "EVSNN_LANES",
        "sources": sources,
        "tiles": tiles,
        "last_channels": (p.shape[0] - 1) % tile + 1,
        "emit": "EVSNN_TALLY"
        if stage.tally
        else "EVSNN_SPIKES"
        if program.views[stage.writes[0]].field_bits == 1
        else "EVSNN_COUNTS",
        "same": None,
        "state_words": tiles * (row if pairs else tile),
        "state_length": p.shape[1] * p.shape[2] * tiles * (row if pairs else tile),
        "neurons_width": p.shape[2],
        "u_init": constants(
            "init", u_init + 2**15 if pairs else u_init, 0 if pairs else -1
        ),  # a pair has fired where its highest bit is set
        "bias": constants("bias", p.bias),
        "threshold": constants("th", p.neuron.v_threshold, NEVER),
        "delay": p.neuron.warm_up_steps,
        "signed": p.has_negative_spikes,
        "bottom": constants("bottom", p.neuron.v_negative.astype(np.int64) - p.neuron.v_threshold)
        if p.has_negative_spikes
        else None,
        "negative": negative - spike,
        "net": net,
        "net_words": (net - state) // 4 if p.has_negative_spikes and program.by_step else 0,
    }
    for charge in same:
        view = program.views[key_of(charge.source)]
        values["same"] = {
            "view": view,
            "c_view": initialiser(arena.view(view.key)),
            "weight": constants("same", charge.projection.weight.reshape(-1)),
            "position_bytes": view.words * view.word_bits // 8,
            "negative": _negative(charge, arena),
        }
    if (
        pairs
        and stage.tally
        and len(gathers) == 1
        and not gathers[0].takes_back
        and not same
        and sources[0]["view"].key in blanks
        and not program.by_step
    ):
        (read,), view = stage.reads, sources[0]["view"]
        totals, rows, columns = blank_totals(stage, p, read, blanks[read.key], view, program.n_steps)
        if len(totals) < 256:
            values["blank"] = {
                "bits": _sides_bits(view.left + view.shape[2] + view.right),
                "mask": (1 << read.kernel[1]) - 1,
                "totals": tables.array(f"s{i}_blank", pair_words(totals, row), np.uint32),
                "rows": tables.array(f"s{i}_rows", rows, np.uint8),
                "columns": tables.array(f"s{i}_columns", columns, np.uint8),
            }
    return values


def _negative(charge: Charge, arena: Arena) -> int:
    """Bytes from a source's spikes to those that take one back; 0: it sends none."""
    key = key_of(charge.source)
    return (
        arena.view(replace(key, negative=True))["offset"] - arena.view(key)["offset"]
        if charge.takes_back
        else 0
    )
