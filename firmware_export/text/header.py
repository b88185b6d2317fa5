"""The header of a network: tables, sizes and functions, as text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evsnn import __version__
from evsnn.circuit.populations import INPUT, Population
from evsnn.circuit.quantized import QuantizedNetwork
from evsnn.digest import digest
from evsnn.errors import MissingExtraError, RunError

from ..memory.arena import Arena
from ..memory.placement import Placed
from ..program.blank import Blank
from ..program.fast import fast_kind
from ..program.program import Program, label, program_of
from ..program.views import Key
from .any_layer import check_analog, describe
from .ctext import initialiser, literal
from .fast_layer import describe_fast
from .outputs import amplitude_of, expected_outputs, in_32_bits, output_scale, start_of
from .runtime import runtime
from .tables import Tables

__all__ = ["Export", "export_header", "products", "text_bytes"]

_DRIVEN_BYTES, _PAIRED_BYTES = 17, 34
"""What a weight of the analog input, and one of spikes, takes while its table is made; measured."""
_PROCESS_BYTES = 8 << 20  # the templates' engine, and all other text; measured
_PAIR_CHARACTERS = 12  # of a word that holds two weights, with a blank, a suffix and a comma
_STACK_BYTES = {"fast": 480, "wide": 576, "any": 704}


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


def text_bytes(network: QuantizedNetwork) -> int:
    """Bytes that the text of a network's weights takes until it is written, with the work on it.

    The text of a layer stays until the end. While it is made, its weights are there in 64 bits, more than
    once if spikes reach them: they are packed in pairs. At the end the header is there three times: with its
    runtime, without it, and encoded for the file.
    """
    text = most = 0
    for p in network.circuit.populations:
        if not isinstance(p, Population):
            continue
        read = sum(s.weight.size for s in p.projections)
        driven = sum(s.weight.size for s in p.analog_projections)
        most = max(most, text + _PAIRED_BYTES * read + _DRIVEN_BYTES * driven)
        text += (_PAIR_CHARACTERS // 2 + 2) * read  # and the table in binary, which equal ones are found by
        text += sum(_characters(weight) for s in p.analog_projections for weight in s.weight)
    return _PROCESS_BYTES + max(most, 3 * text)


def _characters(values: np.ndarray) -> int:
    """How many characters of C whole numbers take, each with a blank and a comma."""
    size = np.abs(values.astype(np.int64))
    digits = sum(int(np.count_nonzero(size >= 10**n)) for n in range(1, 10))
    return 3 * values.size + digits + int(np.count_nonzero(values < 0))


def export_header(
    network: QuantizedNetwork, name: str, *, by_step: bool = False, compact: bool = False, n_vectors: int = 0
) -> Export:
    """The header of a network in integers.

    Parameters
    ----------
    network : QuantizedNetwork
    name : str
        See `firmware_export.text.names.check_name`.
    by_step : bool
        Keep membranes and compute one step per call, instead of all steps layer by layer.
    compact : bool
        Weights of 1 byte in layers whose membranes have 32 bits: less flash, slower.
    n_vectors : int
        How many of the network's samples to put in for a self-test.

    Raises
    ------
    RunError
        If the network cannot be exported so.
    """
    unusual = check_analog(network.circuit.populations)
    if unusual:
        raise RunError(
            "grouped weights on a concatenation of the input with itself are not for firmware",
            where=f"layer {unusual!r}",
            hint="put an IF between them",
        )
    if network.n_steps >= 1 << 16:
        raise RunError("there are too many steps for firmware", got=network.n_steps, expected="at most 65535")
    program = program_of(network, by_step, compact)
    arena, tables = Arena(program), Tables(name)
    stages = _stages(arena, tables)
    circuit, last = network.circuit, network.circuit.readout
    macs_input, macs_spikes = products(network)
    events, amplitude = program.views.get(Key(INPUT)), amplitude_of(network)
    schedule = np.array(program.schedule)
    values = {
        "name": name,
        "NAME": name.upper(),
        "version": __version__,
        "rt_version": runtime()[1],
        "digest": _digest(network),
        "program": program,
        "network": network,
        "stages": stages,
        "placed": arena.placed,
        "arena_words": max(1, arena.placed.n_bytes // 4),
        "by_step": by_step,
        "n_steps": network.n_steps,
        "view_steps": program.view_steps,
        "blanks": [s["blank"] for s in stages if s["kind"] == "analog" and s["blank"]],
        "schedule": tables.array("schedule", schedule, np.uint8 if len(stages) < 256 else np.uint16),
        "start": tables.array("start", start_of(program), np.int32),
        "out_bias": tables.array("out_bias", last.bias, np.int32) if by_step and program.counts else None,
        "amplitude": (
            None if amplitude is None else tables.array("amplitude", in_32_bits(amplitude), np.uint32)
        ),
        "stack_bytes": _stack_bytes(stages),
        "macs_input": str(macs_input),
        "sops_max": str(network.n_steps * macs_spikes),
        "input_events": not circuit.analog,
        "event_view": initialiser("evsnn_view_t", arena.view(Key(INPUT)), 1),
        "event_offset": arena.view(Key(INPUT))["offset"],
        "event_bytes": events.n_bytes(1) if events else 0,
        "input_type": "uint8_t" if network.input_low >= 0 else "int16_t",
        "input_suffix": "u8" if network.input_low >= 0 else "i16",
        "input_length": int(np.prod(circuit.input_shape)),
        "n_outputs": program.n_outputs,
        "outputs": program.outputs,
        "output_scales": [output_scale(network, output.population) for output in program.outputs],
        "n_classes": network.network.n_classes,
        "output_shape": last.output_shape,
        "n_scores": last.n_neurons,
        "maps": any(output.n_positions > 1 for output in program.outputs),
        "classifies": program.classifies,
        "fires": last.fires,
        "vectors": _vectors(network, name, n_vectors),
        "tables": tables,
    }
    text = _template("network.h.j2").render(values)
    return Export(name, program, arena.placed, text, tables.n_bytes, _context_bytes(values))


def _stages(arena: Arena, tables: Tables) -> list[dict]:
    blanks: dict[Key, Blank] = {}
    stages = []
    for i, stage in enumerate(arena.program.stages):
        kind = fast_kind(stage, arena.program)
        try:
            made = (
                describe(stage, i, arena, tables)
                if kind is None
                else describe_fast(stage, i, kind, arena, tables, blanks)
            )
        except RunError as error:
            raise error.at(f"{label(stage, arena.program.network.circuit)}, {error.where}") from None
        stages.append(made | {"layer": stage.population})
    return stages


def _stack_bytes(stages: list[dict]) -> int:
    """A bound on what calls take on 32-bit cores: measured for each kind of code, and what gather.h.j2
    declares for each row of a kernel.
    """
    kinds = {"negative spikes" if stage.get("has_negative") else stage["kind"] for stage in stages} - {
        "analog",
        "channelwise",
        "pairs",
        "singles",
    }
    code = _STACK_BYTES["fast" if not kinds else "wide" if kinds == {"wide"} else "any"]
    gathers = [stage for stage in stages if "sources" in stage]
    return code + max(
        (
            8 * (stage["window"][0] + 1) * sum(source["kernel"][0] for source in stage["sources"])
            for stage in gathers
        ),
        default=0,
    )


def _context_bytes(values: dict) -> int:
    """Of the context on a core whose pointers have 32 bits: arena, outputs, input, blank places, rows, step
    and state.
    """
    blank = sum(b["bits"] // 8 * b["ring"] for b in values["blanks"])
    n_bytes = (
        4 * values["arena_words"]
        + 4 * values["n_outputs"]
        + (0 if values["input_events"] else 4)
        + blank
        + 2 * len(values["stages"])
        + 2
        + 1
    )
    return -(-n_bytes // 4) * 4


def _template(file: str):
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError(
            "firmware_export needs jinja2", hint='install it with: pip install "evsnn[firmware]"'
        ) from error
    loader = jinja2.PackageLoader("firmware_export", "templates")
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=literal,
        autoescape=False,
    )
    return environment.get_template(file)


def _digest(network: QuantizedNetwork) -> str:
    """SHA-256 of everything that decides a spike: all fields of the circuit, names apart."""
    facts = (network.input_low, network.input_high, float(network.input_scale), network.circuit)
    return digest(facts, without=frozenset({"network", "name", "label"}))


def products(network: QuantizedNetwork) -> tuple[int, int]:
    """How often a weight is used in one pass over the network: by the analog input, and by spikes, if every
    neuron sent one.
    """
    populations = [p for p in network.circuit.populations if isinstance(p, Population)]
    return sum(p.macs for p in populations), sum(
        s.fan_out * s.shape[0] for p in populations for s in p.projections if not s.negative
    )


def _vectors(network: QuantizedNetwork, name: str, n: int) -> dict | None:
    """Inputs and outputs for a self-test: the network's samples."""
    samples = network.network.samples
    if not n or samples is None or not network.circuit.analog:
        return None
    images = network.encode(samples.images[:n].reshape(-1, *network.circuit.input_shape))
    tables = Tables(name)
    inputs = tables.array("test_inputs", images, np.uint8 if network.input_low >= 0 else np.int16)
    outputs = tables.array("test_outputs", expected_outputs(network, images), np.int32)
    return {"n": len(images), "texts": tables.texts, "inputs": inputs, "outputs": outputs}
