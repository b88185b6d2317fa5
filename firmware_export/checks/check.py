"""Does the C compute what Python computes? Compile, run, compare."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evsnn.circuit import reference
from evsnn.circuit.populations import INPUT, Source
from evsnn.circuit.quantized import QuantizedNetwork
from evsnn.errors import RunError

from ..export import export_files
from ..text.header import Export
from ..text.outputs import expected_classes, outputs_of
from .harness import harness, outputs_in, traced_keys
from .machines import Machine, Measured, build, host_compiler, measure

__all__ = ["HOST", "inputs_for", "run_on"]

N_SAMPLES = 10


def HOST() -> Machine:
    """This computer."""
    return Machine("host", host_compiler(), (), "host.c")


def inputs_for(network: QuantizedNetwork, n: int = N_SAMPLES) -> tuple[np.ndarray, bool]:
    """Inputs to compare on, as integers or events, and whether they are the network's own samples; else
    seeded noise.
    """
    circuit, samples = network.circuit, network.network.samples
    if circuit.analog and samples is not None:
        return network.encode(samples.images[:n].reshape(-1, *circuit.input_shape)), True
    rng = np.random.default_rng(0)
    if circuit.analog:
        return (
            rng.integers(network.input_low, network.input_high, (n, *circuit.input_shape), endpoint=True),
            False,
        )
    return rng.random((n, network.n_steps, *circuit.input_shape)) < 0.1, False


def run_on(
    machine: Machine,
    export: Export,
    inputs: np.ndarray,
    flags: tuple[str, ...] = ("-O2",),
    trace: bool = False,
) -> Measured:
    """Run an exported network on a machine, and compare every output, and with `trace` every spike that is
    kept, with Python's integers.

    Raises
    ------
    RunError
        If they differ; it names the first sample.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in (export_files(export) | {"program.c": harness(export, inputs, trace)}).items():
            (folder / file).write_text(text, encoding="ascii")
        measured = measure(machine, build(machine, folder / "program.c", folder, (folder,), flags), folder)
    try:
        classes, outputs = outputs_in(measured.text)
    except ValueError as error:
        raise RunError(str(error), where=machine.name) from error
    traces = reference.run(export.program.network.circuit, inputs)
    expected = outputs_of(export.program.network, traces)
    predicted = expected_classes(export.program.network, expected)
    i = _first_difference((classes, outputs), (predicted, expected))
    if i is not None:
        got, wanted = (
            f"{'' if c is None else f'class {c[i]} of '}{values[i].tolist()}"
            for c, values in ((classes, outputs), (predicted, expected))
        )
        raise RunError(
            "C and Python differ, which must never be",
            where=f"{machine.name}, sample {i}",
            got=got,
            expected=wanted,
            hint="please report it",
        )
    if trace:
        sums = [int(line.split()[1]) for line in measured.text.splitlines() if line.startswith("trace ")]
        wanted_sums = expected_trace(export, inputs, traces)
        if sums != wanted_sums:
            raise RunError(
                "spikes in C and Python differ, which must never be",
                where=machine.name,
                got=sums,
                expected=wanted_sums,
                hint="please report it",
            )
    return measured


def _first_difference(found: tuple, expected: tuple) -> int | None:
    """The first sample of which (classes, outputs) differ; classes are None if none are predicted."""
    if found[1].shape != expected[1].shape or (found[0] is None) != (expected[0] is None):
        return 0
    differs = (found[1] != expected[1]).any(axis=1)
    if found[0] is not None:
        differs |= found[0] != expected[0]
    return int(differs.argmax()) if differs.any() else None


def expected_trace(export: Export, inputs: np.ndarray, traces: Sequence[reference.Trace]) -> list[int]:
    """What a program with a trace prints if all spikes are Python's, those of `traces`."""
    sums = []
    for i, key in traced_keys(export):
        rows = export.program.schedule.count(i)  # those that nobody reads are not computed
        train = traces[key.population].spikes if key.population != INPUT else inputs
        source = Source(key.population, train.shape[2:], key.pool, key.negative)
        counts = np.stack([reference.seen(source, train[:, t]) for t in range(train.shape[1])], axis=1)[
            :, :, :, :rows
        ]  # sample, step, channel, y, x
        t, c, y, x = np.ogrid[tuple(slice(n) for n in counts.shape[1:])]
        factors = zip((t, y, x, c), (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F))
        place = functools.reduce(
            np.bitwise_xor,
            [axis.astype(np.uint64) * np.uint64(factor) % np.uint64(2**32) for axis, factor in factors],
        ) | np.uint64(1)
        sums.append(int((counts.astype(np.uint64) * place).sum() % np.uint64(2**32)) >> 1)
    return sums
