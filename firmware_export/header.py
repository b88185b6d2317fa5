"""The header of a network: tables, sizes and functions, as text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evsnn import __version__, reference
from evsnn.circuit import INPUT, MaxPool, Population, Synapse
from evsnn.errors import MissingExtraError
from evsnn.network import Network
from evsnn.quantized import QuantizedNetwork
from evsnn.reference import leak_shift

from .ctext import array
from .memory import Buffer, Placed, place
from .fast import Blank, blank_of, blank_totals, fast_kind, pair_words, pairs_of, tile_pairs, tiled_currents, view_words
from .program import Key, Program, Stage, View, live_sources, padded_to_tiles, program_of

__all__ = ["Export", "export_header"]

RT_VERSION = 1
TILE = 8
STACK_BYTES_FAST = 448
STACK_BYTES_ANY = 768
NO_LEAK = 255
NEVER = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Export:
    """A network as a header.

    Parameters
    ----------
    name : str
        The prefix of all its symbols.
    program : Program
    placed : Placed
        Its arena.
    text : str
    constant_bytes : int
        Of its tables.
    context_bytes : int
        On a core whose pointers have 32 bits.
    """

    name: str
    program: Program
    placed: Placed
    text: str
    constant_bytes: int
    context_bytes: int


_STRUCT_BYTES = {"evsnn_part_t": 52, "evsnn_channelwise_t": 40, "evsnn_drive_t": 36, "evsnn_population_t": 128, "evsnn_pool_t": 56, "evsnn_maxpool_t": 108}
"""On a core whose pointers have 32 bits."""


class _Tables:
    """Definitions of constants, in the order in which they are needed."""

    def __init__(self, name: str):
        self.name, self.texts, self.n_bytes = name, [], 0
        self._known: dict[tuple, str] = {}

    def array(self, what: str, values: np.ndarray, dtype) -> str:
        """Define an array, or find an equal one; gives its name."""
        values = np.ascontiguousarray(values, dtype)
        key = (values.dtype.str, values.tobytes())
        if key not in self._known:
            self._known[key] = f"{self.name}_{what}"
            self.texts.append(array(self._known[key], values))
            self.n_bytes += values.nbytes
        return self._known[key]

    def structs(self, what: str, c_type: str, items: Sequence[str]) -> str:
        """Define an array of structures; gives its name, or NULL where there are none."""
        if not items:
            return "NULL"
        name = f"{self.name}_{what}"
        self.n_bytes += _STRUCT_BYTES[c_type] * len(items)
        body = ",\n    ".join(items)
        self.texts.append(f"static const {c_type} {name}[{len(items)}] EVSNN_CONST = {{\n    {body}\n}};\n")
        return name


def export_header(network: QuantizedNetwork, name: str, *, by_step: bool = False, n_vectors: int = 0) -> Export:
    """The header of a network in integers.

    Parameters
    ----------
    network : QuantizedNetwork
    name : str
        See `firmware_export.names.check_name`.
    by_step : bool
        Keep membranes and compute one step a call, instead of all steps layer by layer.
    n_vectors : int
        How many of the network's samples to put in for a self-test.

    Raises
    ------
    RunError
        If the network cannot be exported so.
    """
    program = program_of(network, by_step)
    placed = _placed(program)
    offsets = dict(zip((b.name for b in placed.buffers), placed.offsets))
    tables = _Tables(name)
    blanks: dict[Key, Blank] = {}
    stages = [_stage(stage, i, program, offsets, tables, blanks) for i, stage in enumerate(program.stages)]
    last = network.circuit.populations[-1]
    amplitudes = _amplitudes(network.circuit.network, last)
    values = {
        "name": name, "NAME": name.upper(), "program": program, "network": network, "stages": stages, "tables": tables,
        "blanks": [s["blank"] for s in stages if s["kind"] == "drive" and s["blank"]], "schedule": tables.array("schedule", np.array(program.schedule), np.uint8 if len(program.stages) < 256 else np.uint16),
        "start": tables.array("start", _start(program), np.int32),
        "amplitude": None if amplitudes is None else tables.array("amplitude", amplitudes, np.uint32),
        "placed": placed, "version": __version__, "rt_version": RT_VERSION, "by_step": by_step, "view_steps": program.view_steps,
        "stack_bytes": STACK_BYTES_ANY if any(s["kind"] in ("population", "pool", "maxpool") for s in stages) else STACK_BYTES_FAST, "sops_max": _sops_max(program),
        "out_bias": tables.array("out_bias", last.bias, np.int32) if by_step and program.counts else None,
        "event_offset": offsets.get(_buffer(Key(INPUT)), 0), "event_bytes": program.views[Key(INPUT)].n_bytes(1) if Key(INPUT) in program.views else 0,
        "vectors": _vectors(network, name, n_vectors), "arena_words": max(1, placed.n_bytes // 4), "digest": _digest(network), "input_events": not network.circuit.analog,
        "event_view": _view(program.views[Key(INPUT)], offsets, program.view_steps) if Key(INPUT) in program.views else None,
        "input_type": "uint8_t" if network.input_low >= 0 else "int16_t", "input_suffix": "u8" if network.input_low >= 0 else "i16", "n_steps": network.n_steps,
        "input_length": int(np.prod(network.circuit.input_shape)), "classes": last.shape[0], "fires": last.fires,
    }  # fmt: skip
    blank_bytes = sum(b["bits"] // 8 * b["ring"] for b in values["blanks"])
    context = 4 * values["arena_words"] + 4 * values["classes"] + (4 if network.circuit.analog else 0) + blank_bytes + 2 * len(stages) + 2 + 1
    return Export(name, program, placed, _template("network.h.j2").render(values), tables.n_bytes, -(-context // 4) * 4)


def _template(file: str):
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("firmware_export needs jinja2", hint='install it with: pip install "evsnn[firmware]"') from error
    loader = jinja2.PackageLoader("firmware_export", "templates")
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)
    return environment.get_template(file)


def _digest(network: QuantizedNetwork) -> str:
    """SHA-256 of everything that decides a spike."""
    digest = hashlib.sha256()
    digest.update(repr((network.n_steps, network.input_low, network.input_high, network.input_scale)).encode())
    for p in network.circuit.populations:
        digest.update(repr((type(p).__name__, p.shape)).encode())
        for values in (p.bias, p.v_threshold, p.v_init, *(s.weight for s in (*p.drives, *p.synapses))) if isinstance(p, Population) else ():
            digest.update(b"-" if values is None else np.ascontiguousarray(values, "<i8").tobytes())
    return digest.hexdigest()


def _placed(program: Program) -> Placed:
    lives, end = program.view_lives(), len(program.schedule)
    buffers = [Buffer(_buffer(key), view.n_bytes(program.view_steps), lives[key]) for key, view in program.views.items()]
    for i, stage in enumerate(program.stages):
        population = None if stage.population == INPUT else program.network.circuit.populations[stage.population]
        if program.by_step and stage.kind == "population":
            buffers += [Buffer(f"{what} {stage.population}", n_bytes, (0, end)) for what, n_bytes in _state_bytes(stage, population, program).items()]
        elif program.by_step and stage.kind == "maxpool":
            buffers.append(Buffer(f"counts {stage.population}", 4 * population.n_inputs, (0, end)))
        elif stage.kind == "maxpool":
            at = [j for j, s in enumerate(program.schedule) if s == i]
            buffers.append(Buffer(f"counts {stage.population}", 4 * population.window.area, (min(at), max(at))))
    return place(buffers)


def _state_bytes(stage: Stage, p: Population, program: Program) -> dict[str, int]:
    """What neurons keep from step to step."""
    kind, places = fast_kind(stage, program), p.shape[1] * p.shape[2]
    if kind == "pairs":
        return {"membranes": 4 * places * -(-p.shape[0] // (2 * tile_pairs(p.shape[0]))) * tile_pairs(p.shape[0])}
    groups = 1 if kind else _groups(p)
    n_bytes = 4 * places * groups * -(-p.shape[0] // groups // TILE) * TILE
    return {"membranes": n_bytes} | ({"net counts": n_bytes} if p.signed else {}) | ({"currents": n_bytes} if p.drives else {})


def _groups(p: Population) -> int:
    """Into how many groups the outputs fall, each with inputs of its own."""
    return int(np.lcm.reduce([s.groups for s in (*(s for s in p.synapses if not s.channelwise), *p.drives)] or [1]))


def _sops_max(program: Program) -> int:
    synapses = [s for p in program.network.circuit.populations if isinstance(p, Population) for s in p.synapses if not s.negative]
    return program.n_steps * sum(s.shape[0] // s.groups * s.weight.shape[0] * int(s.reach(0).sum() * s.reach(1).sum()) for s in synapses)


def _vectors(network: QuantizedNetwork, name: str, n: int) -> dict | None:
    """Inputs and outputs for a self-test: the network's samples."""
    samples = network.network.samples
    if not n or samples is None or not network.circuit.analog:
        return None
    images = network.encode(samples.images[:n].reshape(-1, *network.circuit.input_shape))
    tables = _Tables(name)
    inputs = tables.array("test_inputs", images, np.uint8 if network.input_low >= 0 else np.int16)
    outputs = tables.array("test_outputs", expected_outputs(network, images), np.int32)
    return {"n": len(images), "texts": tables.texts, "inputs": inputs, "outputs": outputs}


def expected_outputs(network: QuantizedNetwork, inputs: np.ndarray) -> np.ndarray:
    """What Python's specification of the integers reads out: membranes, or spike counts, (n, classes)."""
    last = reference.run(network.circuit, inputs)[-1]
    fires = network.circuit.populations[-1].fires
    return (last.spikes.sum(axis=1, dtype=np.int64) if fires else last.v_mem).reshape(len(inputs), -1)


def _buffer(key: Key) -> str:
    pool = "" if key.pool is None else " pooled {}x{}".format(*key.pool.kernel) + ("" if key.pool.stride == key.pool.kernel else " by {}x{}".format(*key.pool.stride))
    pool += " padded {},{},{},{}".format(*key.pool.padding) if key.pool and any(key.pool.padding) else ""
    return f"{'input' if key.population == INPUT else f'layer {key.population}'}{' negative' if key.negative else ''}{pool}"


def _view(view: View, offsets: dict[str, int], n_steps: int) -> str:
    channels, height, width = view.shape
    del channels
    fields = (offsets[_buffer(view.key)], view.row_bytes(n_steps), view.step_bytes, view.ring, height, width, view.left, view.words, view.word_bits, view.field_bits)
    return "{" + ", ".join(map(str, fields)) + "}"


_NO_VIEW = "{0, 0, 0, 1, 0, 0, 0, 0, 32, 1}"


def _pair(values: Sequence[int]) -> str:
    return "{" + ", ".join(str(int(v)) for v in values[:2]) + "}"


def _stage(stage: Stage, i: int, program: Program, offsets: dict[str, int], tables: _Tables, blanks: dict[Key, Blank]) -> dict:
    population = None if stage.population == INPUT else program.network.circuit.populations[stage.population]

    def view(key: Key) -> str:
        return _view(program.views[key], offsets, program.view_steps) if key in program.views else _NO_VIEW

    if stage.kind == "pool":
        (read,), (key,) = stage.reads, stage.writes
        shape = program.views[read.key].shape
        item = f"{{{view(read.key)}, {view(key)}, {shape[0]}, {_pair(read.kernel)}, {_pair(read.stride)}, {_pair(read.padding)}}}"
        return {"kind": "pool", "layer": stage.population, "descriptor": tables.structs(f"s{i}", "evsnn_pool_t", [item])}
    if stage.kind == "maxpool":
        read, keys = stage.reads[0], stage.writes
        signed = len(keys) == 2
        views = [view(stage.reads[0].key), view(stage.reads[-1].key) if signed else _NO_VIEW, view(keys[0]), view(keys[1]) if signed else _NO_VIEW]
        item = f"{{{', '.join(views)}, {population.shape[0]}, {_pair(read.kernel)}, {_pair(read.stride)}, {_pair(read.padding)}, {int(signed)}, {int(program.by_step)}}}"
        return {"kind": "maxpool", "layer": stage.population, "descriptor": tables.structs(f"s{i}", "evsnn_maxpool_t", [item]), "counts": offsets[f"counts {stage.population}"], "counts_bytes": 4 * population.n_inputs}
    kind = fast_kind(stage, program)
    if kind is not None:
        made = (_drive_stage if kind == "drive" else _gather_stage)(stage, i, population, program, view, tables, blanks)
        return made | {"kind": kind, "layer": stage.population, "state": offsets.get(f"membranes {stage.population}", 0)}
    return _neurons(stage, i, population, program, view, tables, offsets)


def _common(stage: Stage, i: int, program: Program, view, tables: _Tables) -> dict:
    """What the templates of fast stages share."""
    p = program.network.circuit.populations[stage.population]
    values = {
        "i": i, "index": stage.population, "window": stage.window, "width": stage.width, "tally": stage.tally is not None, "n_channels": p.shape[0], "blank": None,
        "out": program.views[stage.writes[0]] if stage.writes else None, "out_view": view(stage.writes[0]) if stage.writes else None,
    }  # fmt: skip
    if stage.tally is not None:
        values |= {"readout": tables.array(f"s{i}_out", stage.tally.weight.transpose(2, 3, 1, 0), np.int8), "classes": stage.tally.weight.shape[0]}
    return values


def _drive_stage(stage: Stage, i: int, p: Population, program: Program, view, tables: _Tables, blanks: dict[Key, Blank]) -> dict:
    (drive,) = p.drives
    n_steps = program.n_steps
    to_threshold = (p.v_threshold - p.v_init).astype(np.int64)
    least = np.minimum(to_threshold, -(-to_threshold // n_steps))  # a smaller current never reaches the threshold

    def padded(values: np.ndarray, fill: int = 0) -> np.ndarray:
        return padded_to_tiles(np.asarray(values, np.int64), 1, TILE, fill)

    columns = stage.width * stage.window[1]
    sides = drive.padding[1], max(0, (columns - 1) * drive.stride[1] - drive.padding[1] + drive.kernel[1] - drive.shape[2])
    values = _common(stage, i, program, view, tables) | {
        "channels": drive.weight.shape[1], "height": drive.shape[1], "in_width": drive.shape[2], "kernel": drive.kernel, "stride": drive.stride, "padding": drive.padding, "sides": sides,
        "tiles": -(-p.shape[0] // TILE), "last_channels": (p.shape[0] - 1) % TILE + 1, "weight": tables.array(f"s{i}_w", tiled_currents(drive), np.int8),
        "tile_weights": int(np.prod(drive.weight.shape[1:])) * TILE, "bias": tables.array(f"s{i}_bias", padded(p.bias), np.int32),
        "least": tables.array(f"s{i}_least", padded(np.clip(least, -(2**31), NEVER), NEVER), np.int32), "u_init": tables.array(f"s{i}_init", padded(-to_threshold, -1), np.int32),
        "threshold": tables.array(f"s{i}_th", padded(p.v_threshold, NEVER), np.int32),
    }  # fmt: skip
    blank = blank_of(stage, p, program)
    if blank is not None:
        (key,) = stage.writes
        blanks[key] = blank
        out = program.views[key]
        span = [(w - 1) * s + k for w, s, k in zip(stage.window, drive.stride, drive.kernel)]
        words = view_words(blank.spikes, out)
        sides = sum(1 << x for x in range(out.left + out.shape[2] + out.right) if not out.left <= x < out.left + out.shape[2])
        values["blank"] = {
            "bits": 16 if out.left + out.shape[2] + out.right <= 16 else 32, "field": span, "mask": (1 << span[1]) - 1, "sides": sides, "word_type": f"uint{out.word_bits}_t",
            "pattern": tables.array(f"s{i}_blank", words, words.dtype), "ring": out.ring, "key": key,
        }  # fmt: skip
    return values


def _gather_stage(stage: Stage, i: int, p: Population, program: Program, view, tables: _Tables, blanks: dict[Key, Blank]) -> dict:
    (synapse,), (read,) = p.synapses, stage.reads
    pairs = fast_kind(stage, program) == "pairs"
    row = tile_pairs(p.shape[0])
    tile = 2 * row if pairs else TILE
    source = program.views[read.key]
    u_init = p.v_init.astype(np.int64) - p.v_threshold
    if pairs:
        weight = pairs_of(synapse, row)
        constants = {"u_init": pair_words(u_init + 2**15, row), "bias": pair_words(p.bias, row), "threshold": pair_words(p.v_threshold, row, 2**15 - 1)}
    else:
        weight = _tiled(synapse.weight, 1, 1)[0]
        constants = {name: padded_to_tiles(np.asarray(v, np.int64), 1, TILE, fill) for name, v, fill in (("u_init", u_init, -1), ("bias", p.bias, 0), ("threshold", p.v_threshold, NEVER))}
    kind = np.uint32 if pairs else np.int32
    values = _common(stage, i, program, view, tables) | {
        "pairs": pairs, "row": row, "lanes": "EVSNN_LANES" if row == 8 else "4", "run_type": "evsnn_run_t" if pairs else "evsnn_run8_t", "view": source, "in_view": view(read.key),
        "kernel": read.kernel, "stride": read.stride, "dilation": read.dilation, "padding": read.padding, "tiles": -(-p.shape[0] // tile), "last_channels": (p.shape[0] - 1) % tile + 1,
        "weight": tables.array(f"s{i}_w", weight, np.uint32 if pairs else np.int8), "tile_weights": int(np.prod(weight.shape[1:])), "row_weights": int(np.prod(weight.shape[2:])),
        "emit": "EVSNN_TALLY" if stage.tally else "EVSNN_SPIKES" if program.views[stage.writes[0]].field_bits == 1 else "EVSNN_COUNTS",
    }  # fmt: skip
    tile_state = row if pairs else TILE
    values |= {"tile_state": tile_state, "state_words": values["tiles"] * tile_state, "state_length": p.shape[1] * p.shape[2] * values["tiles"] * tile_state, "neurons_width": p.shape[2]}
    values |= {name: tables.array(f"s{i}_{short}", constants[name], kind) for name, short in (("u_init", "init"), ("bias", "bias"), ("threshold", "th"))}
    if pairs and stage.tally and read.key in blanks and not program.by_step:
        totals, rows, columns = blank_totals(stage, p, read, blanks[read.key], source, program.n_steps)
        if len(totals) < 256:
            values["blank"] = {
                "bits": 16 if source.left + source.shape[2] + source.right <= 16 else 32, "mask": (1 << read.kernel[1]) - 1, "key": read.key,
                "totals": tables.array(f"s{i}_blank", pair_words(totals, row), np.uint32), "rows": tables.array(f"s{i}_rows", rows, np.uint8), "columns": tables.array(f"s{i}_columns", columns, np.uint8),
            }  # fmt: skip
    return values


def _neurons(stage: Stage, i: int, p: Population, program: Program, view, tables: _Tables, offsets: dict[str, int]) -> dict:
    circuit = program.network.circuit
    gathers = [s for s in p.synapses if not s.channelwise]
    channelwise = [s for s in p.synapses if s.channelwise]
    groups = _groups(p)
    parts, wise, drives = [], [], []
    for j, synapse in enumerate(gathers):
        parts += _parts(synapse, f"s{i}_w{j}", groups, circuit.populations, view, tables)
    for j, synapse in enumerate(channelwise):
        for source in live_sources(synapse, circuit.populations):
            weight = tables.array(f"s{i}_c{j}", synapse.weight.reshape(p.shape[0], -1).T, np.int32)
            key = Key(source.population, source.negative)
            wise.append(f"{{{view(key)}, {weight}, {p.shape[0]}, {_pair(synapse.kernel)}, {_pair(synapse.stride)}, {_pair(synapse.dilation)}, {_pair(synapse.padding)}, 0}}")
    for j, drive in enumerate(p.drives):
        drives += _drives(drive, f"s{i}_d{j}", groups, tables)
    values = {name: padded_to_tiles(v, groups, TILE, fill) for name, v, fill in (("bias", p.bias, 0), ("init", p.v_init, 0))}
    threshold = tables.array(f"s{i}_th", padded_to_tiles(p.v_threshold, groups, TILE, NEVER), np.int32) if p.fires else "NULL"
    negative = tables.array(f"s{i}_neg", padded_to_tiles(p.v_negative, groups, TILE), np.int32) if p.signed else "NULL"
    readout, classes = "NULL", 0
    if stage.tally is not None:
        weight = stage.tally.weight
        readout, classes = tables.array(f"s{i}_out", weight.transpose(2, 3, 1, 0), np.int8), weight.shape[0]
    elif stage.population == len(circuit.populations) - 1:
        classes = p.shape[0]
    keys = stage.writes
    fields = [
        tables.structs(f"s{i}_parts", "evsnn_part_t", parts), tables.structs(f"s{i}_wise", "evsnn_channelwise_t", wise), tables.structs(f"s{i}_drives", "evsnn_drive_t", drives),
        tables.array(f"s{i}_bias", values["bias"], np.int32), tables.array(f"s{i}_init", values["init"], np.int32), threshold, negative, readout,
        view(keys[0]) if keys else _NO_VIEW, view(keys[1]) if len(keys) == 2 else _NO_VIEW, *(offsets.get(f"{what} {stage.population}", 0) for what in ("membranes", "net counts", "currents")), len(parts), len(wise), len(drives), p.shape[0], groups, stage.width,
        _pair(stage.window), p.delay, classes, NO_LEAK if p.leak == 1 else leak_shift(p.leak), 8 if program.network.input_low >= 0 else 16, int(bool(keys)), int(p.fires), int(program.by_step), _pair(p.shape[1:]),
    ]  # fmt: skip
    return {"kind": "population", "layer": stage.population, "descriptor": tables.structs(f"s{i}", "evsnn_population_t", ["{" + ", ".join(map(str, fields)) + "}"])}


def _tiled(weight: np.ndarray, groups: int, split: int) -> np.ndarray:
    """Weights (n_out, n_in, ky, kx) as [group][tile][ky][kx][channel][8].

    `groups` is what they are convolved with, `split` a multiple of it: into so many groups the outputs are divided.
    """
    n_out = weight.shape[0] // split
    tiles = -(-n_out // TILE)
    padded = np.zeros((split, tiles * TILE, *weight.shape[1:]), np.int8)
    padded[:, :n_out] = weight.reshape(split, n_out, *weight.shape[1:])
    return padded.reshape(split, tiles, TILE, *weight.shape[1:]).transpose(0, 1, 4, 5, 3, 2)


def _parts(synapse: Synapse, what: str, groups: int, populations, view, tables: _Tables) -> list[str]:
    tiled = _tiled(synapse.weight, synapse.groups, groups)
    table = tables.array(what, tiled, np.int8)
    n_in, per_group = synapse.weight.shape[1], int(np.prod(tiled.shape[1:]))
    live, items = live_sources(synapse, populations), []
    for g in range(groups):
        low = g * synapse.groups // groups * n_in  # channels that this group reads: low .. low + n_in
        start = 0
        for source in synapse.sources:
            first, last = max(low, start), min(low + n_in, start + source.shape[0])
            if first < last and source in live:
                fields = (
                    view(Key(source.population, source.negative, source.pool)), f"{table} + {g * per_group}" if g else table, int(np.prod(tiled.shape[2:])), n_in, first - low,
                    first - start, last - first, g, _pair(synapse.kernel), _pair(synapse.stride), _pair(synapse.dilation), _pair(synapse.padding), 0,
                )  # fmt: skip
                items.append("{" + ", ".join(map(str, fields)) + "}")
            start += source.shape[0]
    return items


def _drives(drive: Synapse, what: str, groups: int, tables: _Tables) -> list[str]:
    items, start = [], 0
    for j, source in enumerate(drive.sources):
        channels = drive.weight.shape[1] if len(drive.sources) == 1 else source.shape[0]
        weight = drive.weight[:, start : start + channels]
        start += channels
        tiled = _tiled(weight, drive.groups, groups)
        pool = source.pool
        fields = (
            tables.array(f"{what}_{j}", tiled, np.int8), int(np.prod(tiled.shape[2:])), channels, drive.weight.shape[0] // drive.groups, *drive.shape[1:], *source.shape[1:],
            _pair(drive.kernel), _pair(drive.stride), _pair(drive.dilation), _pair(drive.padding), *(map(_pair, (pool.kernel, pool.stride, pool.padding)) if pool else ("{1, 1}", "{1, 1}", "{0, 0}")),
        )  # fmt: skip
        items.append("{" + ", ".join(map(str, fields)) + "}")
    return items


def _start(program: Program) -> np.ndarray:
    """The readout's membranes before the first spike; where the order of its charges does not matter, with all its bias."""
    last = program.network.circuit.populations[-1]
    steps = 0 if program.by_step else program.n_steps
    return last.v_init + steps * last.bias if program.counts else np.zeros(last.shape[0])


def _amplitudes(network: Network, last: Population | MaxPool) -> np.ndarray | None:
    """What a spike of each class counts, where spikes are read out and their amplitudes differ."""
    if not last.fires:
        return None
    amplitude = np.broadcast_to(network.by_name[last.name].v_threshold, last.shape[:1]).astype(np.float64)
    return None if np.ptp(amplitude) == 0 else np.rint(amplitude / amplitude.max() * (2**32 - 1))
