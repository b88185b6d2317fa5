"""Descriptors of stages for the runtime's code that any layer can use: names and order of their fields are
those of the C structures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evsnn.circuit.neuron import leak_shift
from evsnn.circuit.populations import MaxPool, Population, Projection

from ..memory.arena import Arena
from ..program.program import groups_of, padded_to_tiles
from ..program.stages import Stage, live_sources
from ..program.views import TILE, Key, Read, key_of
from .tables import Tables

__all__ = ["NEVER", "check_analog", "describe", "reached", "tiled"]

NO_LEAK = 255
NEVER = 2**31 - 1
"""A threshold or a current that is never reached: for lanes without a neuron."""


def describe(stage: Stage, i: int, arena: Arena, tables: Tables) -> dict:
    """What the header's template says of a stage: its kind and the name of its descriptor.

    Parameters
    ----------
    stage : Stage
    i : int
        Its number.
    arena : Arena
    tables : Tables
        Gets the definition.
    """
    make = {"pool": _pool, "maxpool": _max_pool, "population": _population}[stage.kind]
    return {"kind": stage.kind, "template": None} | make(stage, i, arena, tables)


def reached(v_negative: np.ndarray) -> np.ndarray:
    """Bounds of negative spikes in 32 bits. Membranes are proven to have no more, so that none is below a
    bound that is cut to the smallest value.
    """
    return np.maximum(v_negative, -(2**31))


def _pool(stage: Stage, i: int, arena: Arena, tables: Tables) -> dict:
    (read,), (key,) = stage.reads, stage.writes
    fields = {
        "from": arena.view(read.key),
        "to": arena.view(key),
    } | _sliding(read)
    return {"descriptor": tables.structs(f"s{i}", "evsnn_pool_t", [fields])}


def _max_pool(stage: Stage, i: int, arena: Arena, tables: Tables) -> dict:
    pool = arena.program.max_pool(stage)
    read, keys = stage.reads[0], [read.key for read in stage.reads]
    fields: dict = {
        "from": arena.view(keys[0]),
        "from_negative": arena.view(keys[1] if pool.has_negative_spikes else None),
        "to": arena.view(stage.writes[0]),
        "to_negative": arena.view(stage.writes[1] if pool.has_negative_spikes else None),
        "channels": pool.shape[0],
    }
    fields |= _sliding(read)
    fields |= {"has_negative": pool.has_negative_spikes, "by_step": arena.program.by_step}
    return {
        "descriptor": tables.structs(f"s{i}", "evsnn_maxpool_t", [fields]),
        "counts": arena.state("counts", stage.population),
        "counts_bytes": 4 * pool.n_inputs,
    }


def _population(stage: Stage, i: int, arena: Arena, tables: Tables) -> dict:
    network = arena.program.network
    p = arena.program.population(stage)
    groups, keys = groups_of(p), stage.writes
    gathers, channelwise = (
        [s for s in p.projections if not s.channelwise],
        [s for s in p.projections if s.channelwise],
    )
    parts = [part for j, s in enumerate(gathers) for part in _parts(s, f"s{i}_w{j}", groups, arena, tables)]
    singles = [
        item for j, s in enumerate(channelwise) for item in _channelwise(s, f"s{i}_c{j}", arena, tables)
    ]
    analog = [
        item for j, s in enumerate(p.analog_projections) for item in _analog(s, f"s{i}_a{j}", groups, tables)
    ]
    readout, outputs = "NULL", 0
    if stage.readout is not None:
        readout, outputs = readout_table(stage.readout, i, tables)
    elif stage.population in network.circuit.readouts:
        outputs = p.shape[0]

    def padded(what: str, values: np.ndarray | None, fill: int = 0, dtype=np.int32) -> str:
        return (
            "NULL"
            if values is None
            else tables.array(f"s{i}_{what}", padded_to_tiles(values, groups, TILE, fill), dtype)
        )

    fields = {
        "parts": tables.structs(f"s{i}_parts", "evsnn_part_t", parts),
        "channelwise": tables.structs(f"s{i}_channelwise", "evsnn_channelwise_t", singles),
        "analog": tables.structs(f"s{i}_analog", "evsnn_analog_t", analog),
        "bias": padded("bias", p.bias),
        "analog_shift": padded("shift", p.analog_shift, dtype=np.int8),
        "v_init": padded("init", p.neuron.v_init),
        "v_threshold": padded("th", p.neuron.v_threshold, NEVER),
        "v_negative": padded("neg", None if p.neuron.v_negative is None else reached(p.neuron.v_negative)),
        "readout": readout,
        "view": arena.view(keys[0] if keys else None),
        "view_negative": arena.view(keys[1] if len(keys) == 2 else None),
        "state": arena.state("membranes", stage.population),
        "state_net": arena.state("net counts", stage.population),
        "state_current": arena.state("currents", stage.population),
        "n_parts": len(parts),
        "n_channelwise": len(singles),
        "n_analog": len(analog),
        "channels": p.shape[0],
        "groups": groups,
        "width": stage.width,
        "window": stage.window,
        "warm_up": p.neuron.warm_up_steps,
        "outputs": outputs,
        "leak": NO_LEAK if p.neuron.leak == 1 else leak_shift(p.neuron.leak),
        "input_bits": 8 if network.input_low >= 0 else 16,
        "kept": bool(keys),
        "fires": p.fires,
        "by_step": arena.program.by_step,
        "neurons": p.shape[1:],
    }
    output = next((o for o in arena.program.outputs if o.population == stage.population), None)
    return {
        "descriptor": tables.structs(f"s{i}", "evsnn_population_t", [fields]),
        "row_outputs": stage.width * p.shape[0] if output is not None and stage.rows > 1 else 0,
        "out_start": 0 if output is None else output.start,
    }


def readout_table(readout: Projection, i: int, tables: Tables) -> tuple[str, int]:
    """The weights with which the readout integrates totals of stage i, as [y][x][channel][output]: the
    table's name, and the number of outputs.
    """
    weight = readout.weight
    return tables.array(f"s{i}_out", weight.transpose(2, 3, 1, 0), np.int8), weight.shape[0]


def tiled(weight: np.ndarray, split: int = 1) -> np.ndarray:
    """Weights (n_out, n_in, ky, kx) as [group][tile][ky][kx][channel][8].

    Parameters
    ----------
    weight : (n_out, n_in, ky, kx) integer
    split : int
        Groups into which the outputs are divided.
    """
    n_out = weight.shape[0] // split
    tiles = -(-n_out // TILE)
    padded = np.zeros((split, tiles * TILE, *weight.shape[1:]), weight.dtype)
    padded[:, :n_out] = weight.reshape(split, n_out, *weight.shape[1:])
    return padded.reshape(split, tiles, TILE, *weight.shape[1:]).transpose(0, 1, 4, 5, 3, 2)


def _sliding(read: Read) -> dict:
    """The window of a pool."""
    return {
        "kernel": read.window.kernel,
        "stride": read.window.stride,
        "padding": read.window.padding[:2],
    }


def _geometry(projection: Projection) -> dict:
    """The window of a projection."""
    return {
        "kernel": projection.kernel,
        "stride": projection.stride,
        "dilation": projection.dilation,
        "padding": projection.padding[:2],
    }


def _parts(projection: Projection, what: str, groups: int, arena: Arena, tables: Tables) -> list[dict]:
    """A part for each source that a group of outputs reads."""
    weight = tiled(projection.weight, groups)
    table = tables.array(what, weight, np.int8)
    n_in, per_group, tile = (
        projection.weight.shape[1],
        int(np.prod(weight.shape[1:])),
        int(np.prod(weight.shape[2:])),
    )
    live, items = live_sources(projection, arena.program.network.circuit.populations), []
    for group in range(groups):
        low = group * projection.groups // groups * n_in  # it reads the channels low .. low + n_in
        start = 0
        for source in projection.sources:
            first, last = max(low, start), min(low + n_in, start + source.shape[0])
            if first < last and source in live:
                items.append(
                    {
                        "view": arena.view(key_of(source)),
                        "weight": f"{table} + {group * per_group}" if group else table,
                        "tile_stride": tile,
                        "rows": n_in,
                        "row": first - low,
                        "first": first - start,
                        "count": last - first,
                        "group": group,
                    }
                    | _geometry(projection)
                )
            start += source.shape[0]
    return items


def _channelwise(projection: Projection, what: str, arena: Arena, tables: Tables) -> list[dict]:
    channels = projection.weight.shape[0]
    weight = tables.array(what, projection.weight.reshape(channels, -1).T, np.int32)
    sources = live_sources(projection, arena.program.network.circuit.populations)
    return [
        {"view": arena.view(Key(s.population, s.negative)), "weight": weight, "channels": channels}
        | _geometry(projection)
        for s in sources
    ]


def _analog(projection: Projection, what: str, groups: int, tables: Tables) -> list[dict]:
    items, start = [], 0
    for j, source in enumerate(projection.sources):
        channels = projection.weight.shape[1] if len(projection.sources) == 1 else source.shape[0]
        weight, pool = tiled(projection.weight[:, start : start + channels], groups), source.pool
        start += channels
        windows = (
            {"pool": pool.kernel, "pool_stride": pool.stride, "pool_padding": pool.padding[:2]}
            if pool
            else {"pool": (1, 1), "pool_stride": (1, 1), "pool_padding": (0, 0)}
        )
        items.append(
            {
                "weight": tables.array(f"{what}_{j}", weight, np.int8),
                "tile_stride": int(np.prod(weight.shape[2:])),
                "channels": channels,
                "height": projection.shape[1],
                "width": projection.shape[2],
                "input_height": source.shape[1],
                "input_width": source.shape[2],
            }
            | _geometry(projection)
            | windows
        )
    return items


def check_analog(populations: Sequence[Population | MaxPool]) -> str | None:
    """The name of a population whose analog projections cannot be exported: groups that cut through a
    concatenation of the input with itself.
    """
    for p in populations:
        for projection in () if isinstance(p, MaxPool) else p.analog_projections:
            if len(projection.sources) > 1 and projection.groups > 1:
                return p.name
    return None
