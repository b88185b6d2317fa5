"""Does the C compute what Python computes? Compile, run, compare."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from evsnn.errors import RunError
from evsnn.quantized import QuantizedNetwork

from .harness import harness, outputs_in
from .header import Export, expected_outputs
from .machines import Machine, Measured, build, host_compiler, measure

__all__ = ["HOST", "inputs_for", "run_on"]

N_SAMPLES = 10


def HOST() -> Machine:
    """This computer."""
    return Machine("host", host_compiler(), (), "host.c")


def inputs_for(network: QuantizedNetwork, n: int = N_SAMPLES) -> tuple[np.ndarray, bool]:
    """Inputs to compare on, as integers or events, and whether they are the network's own samples; else seeded noise."""
    circuit, samples = network.circuit, network.network.samples
    if circuit.analog and samples is not None:
        return network.encode(samples.images[:n].reshape(-1, *circuit.input_shape)), True
    rng = np.random.default_rng(0)
    if circuit.analog:
        return rng.integers(network.input_low, network.input_high, (n, *circuit.input_shape), endpoint=True), False
    return rng.random((n, network.n_steps, *circuit.input_shape)) < 0.1, False


def run_on(machine: Machine, export: Export, inputs: np.ndarray, flags: tuple[str, ...] = ("-O2",)) -> Measured:
    """Run an exported network on a machine, and compare every output with Python's integers.

    Raises
    ------
    RunError
        If they differ; it names the first sample.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / f"{export.name}.h").write_text(export.text, encoding="ascii")
        (folder / "program.c").write_text(harness(export, inputs), encoding="ascii")
        measured = measure(machine, build(machine, folder / "program.c", folder, (folder,), flags), folder)
    try:
        _, outputs = outputs_in(measured.text)
    except ValueError as error:
        raise RunError(str(error), where=machine.name) from error
    expected = expected_outputs(export.program.network, inputs)
    wrong = np.flatnonzero((outputs != expected).any(axis=1)) if outputs.shape == expected.shape else np.arange(1)
    if wrong.size:
        i = int(wrong[0])
        raise RunError(
            "C and Python differ, which must never be", where=f"{machine.name}, sample {i}", got=outputs[i].tolist(), expected=expected[i].tolist(), hint="please report it"
        )
    return measured
