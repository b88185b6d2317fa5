"""``python -m evsnn.inspect``: what is in a weights file, and with ``--verify`` whether it is intact."""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports below
    from .interrupts import end_quietly

    end_quietly()

import json
import math
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from . import __version__
from .errors import EvsnnError, RunError, WeightsError
from .output import console

if TYPE_CHECKING:
    from .circuit.quantized import QuantizedNetwork
    from .network.network import Network
    from .output.table import Table
    from .result import Result

__all__ = ["main"]

SCHEMA_VERSION = 1
_EPILOG = """\
--verify compares every array with its sha256, proves that no integer membrane can
overflow, and runs the stored samples (else noise) in float32 and in int8
"""


def parser(prog: str) -> console.Parser:
    """The command line."""
    p = console.Parser(prog=prog, description="Say what is in a weights file.", epilog=_EPILOG)
    p.add_argument("weights", metavar="WEIGHTS.h5")
    p.add_argument(
        "--verify", action="store_true", help="compare checksums, prove integer ranges, run int8 and float32"
    )
    p.add_argument(
        "--steps",
        metavar="T",
        type=console.steps,
        help="for the thresholds and the facts about int8 (default: the model's)",
    )
    p.add_argument(
        "--threads",
        metavar="N",
        type=console.integer(1, 1024),
        help="for --verify (default: as many as there are cores)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.add_argument("--version", action="version", version=f"evsnn {__version__}")
    return p


def main(argv: Sequence[str] | None = None, prog: str = "python -m evsnn.inspect") -> int:
    """Run the command and return its exit status."""
    return console.run(lambda arguments: _run(parser(prog), arguments), argv)


def _run(p: console.Parser, arguments: Sequence[str]) -> int:
    options = p.parse_args(arguments)
    if options.steps and len(options.steps) > 1:
        p.error("argument --steps: expected one number of steps")
    from .files.weights import load
    from .output.memory import announce_early

    checksums = _checksums(options.weights) if options.verify else None
    network = load(options.weights, before=partial(announce_early, "network"))
    n_steps = options.steps[0] if options.steps else network.n_steps
    file = {
        "schema_version": SCHEMA_VERSION,
        "model": options.weights,
        "file_bytes": os.path.getsize(options.weights),
    }
    inventory = file | _describe(network, n_steps) | {"int8": _int8(network, n_steps)}
    if options.verify:
        inventory["verify"] = {"checksums": checksums} | _compare(network, n_steps, options.threads)
    if options.json:
        console.print_result(json.dumps(inventory, allow_nan=False))
    else:
        from .output.table import draw

        console.print_result(draw(_tables(inventory)))
    return console.DONE


def _describe(network: Network, n_steps: int) -> dict:
    """What the file says, and what follows from it. Layers are as they are in runs of `n_steps`."""
    from .network.inventory import layer_facts

    coding = network.coding
    facts = layer_facts(network.at(n_steps, coding))
    samples = network.samples
    return {
        "input_shape": list(network.input_shape),
        "encoding": network.input.encoding,
        "input_range": network.input_range and list(network.input_range),
        "n_steps": network.n_steps,
        "coding": coding,
        "step_parameters": list(network.step_parameters),
        "graded_parameters": list(network.graded_parameters),
        "nearest_steps": network.nearest_steps(n_steps, coding),
        "shift": network.shift,
        "readout": network.readout,
        "task": network.task,
        "output_shape": list(network.output_shape),
        "n_classes": network.n_classes,
        "classes": list(network.classes),
        "n_parameters": sum(layer.n_parameters for layer in facts),
        "n_neurons": sum(layer.n_neurons for layer in facts),
        "macs": sum(layer.macs for layer in facts),
        "n_samples": len(samples.images) if samples else 0,
        "labelled": bool(samples and samples.labels is not None),
        "metadata": {
            name: value if not isinstance(value, float) or math.isfinite(value) else str(value)
            for name, value in network.metadata.items()
        },
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "label": layer.label,
                "inputs": list(layer.inputs),
                "shape": list(layer.shape),
                "n_parameters": layer.n_parameters,
                "n_neurons": layer.n_neurons,
                "macs": layer.macs,
                "v_threshold": layer.v_threshold and list(layer.v_threshold),
            }
            for layer in facts
        ],
    }


def _int8(network: Network, n_steps: int) -> dict:
    """The network in integers: widths and bounds, or why it cannot be brought to integers."""
    from .circuit.quantized import integer_bytes, quantize
    from .output.memory import announce_early

    announce_early("integers", integer_bytes(network))
    try:
        quantized = quantize(network, n_steps)
    except EvsnnError as error:
        return {"n_steps": n_steps, "possible": False, "reason": str(error), "populations": []}
    return {"n_steps": n_steps, "possible": True, "reason": None, "populations": _populations(quantized)}


def _populations(quantized: QuantizedNetwork) -> list[dict]:
    rows = zip(quantized.circuit.populations, quantized.widths, quantized.q_max, quantized.bounds)
    return [
        {
            "name": p.name,
            "projection": p.label,
            "membrane": width,
            "largest_weight": [int(largest.min()), int(largest.max())],
            "membrane_bounds": list(bounds),
        }
        for p, width, largest, bounds in rows
        if width is not None and largest is not None and bounds is not None
    ]


def _checksums(path: str) -> int:
    """The number of arrays, if all are intact.

    Raises
    ------
    WeightsError
        If one is damaged.
    """
    from .files.weights import verify

    arrays = verify(path)
    damaged = [array.path for array in arrays if not array.intact]
    if damaged:
        raise WeightsError(
            f"{len(damaged)} of {len(arrays)} arrays are damaged: their sha256 differs",
            where=path,
            got=", ".join(damaged[:8]),
            hint="copy or download the file again",
        )
    return len(arrays)


def _compare(network: Network, n_steps: int, threads: int | None) -> dict:
    """Run the samples (or noise) in float32 and in int8."""
    from .files.inputs import open_inputs
    from .output.memory import announce
    from .simulation import Simulator
    from .startup import import_compiler

    with open_inputs(network, n_steps=n_steps) as inputs:
        inputs.require_steps(n_steps)
        samples = inputs.read()
    images = inputs.cut(samples.images, n_steps)
    report: dict = {
        "input": inputs.source,
        "n_samples": inputs.n_samples,
        "float32": None,
        "int8": None,
        "agreement": None,
        "deviation": None,
    }
    results: dict[str, Result] = {}
    for arithmetic in ("float32", "int8"):
        with console.Progress(arithmetic) as progress:
            try:
                simulator = Simulator(network, n_steps, arithmetic=arithmetic, threads=threads)
            except RunError as error:
                if arithmetic == "float32":
                    raise
                report[arithmetic] = {"accuracy": None, "reason": str(error)}
                continue
            if not results:
                import_compiler(simulator)
            announce(simulator.memory_bytes)
            simulator.prepare()
            results[arithmetic] = simulator.run(images, samples.labels, progress=progress)
            report[arithmetic] = {"accuracy": results[arithmetic].accuracy, "reason": None}
    if len(results) == 2:
        report["agreement"] = results["float32"].agreement(results["int8"])
        report["deviation"] = results["float32"].deviation(results["int8"])
    return report


def _tables(inventory: dict) -> list[Table]:
    """The facts, the layers, the integers, the verdicts."""
    from .output.table import Column, Table
    from .text import as_shape

    layers = inventory["layers"]
    rows = [
        (
            row["name"],
            row["label"],
            as_shape(row["shape"]),
            row["n_parameters"] or None,
            row["n_neurons"] or None,
            row["macs"] or None,
            _range(row["v_threshold"]),
        )
        for row in layers
    ]
    columns = (
        Column("layer"),
        Column("kind"),
        Column("shape"),
        Column("parameters", "d"),
        Column("neurons", "d"),
        Column("MACs", "d"),
        Column("threshold"),
    )
    totals = ("total", "", "", inventory["n_parameters"], inventory["n_neurons"], inventory["macs"], "")
    tables = [Table.of_facts(_facts(inventory)), Table(columns, tuple(rows), totals)]
    populations = inventory["int8"]["populations"]
    if populations:
        of_int8 = (
            Column("int8"),
            Column("projection"),
            Column("membrane"),
            Column("largest weight"),
            Column("membrane from", "d"),
            Column("to", "d"),
        )
        tables.append(
            Table(
                of_int8,
                tuple(
                    (
                        row["name"],
                        row["projection"],
                        row["membrane"],
                        _range(row["largest_weight"]),
                        *row["membrane_bounds"],
                    )
                    for row in populations
                ),
            )
        )
    if "verify" in inventory:
        tables.append(
            Table((Column("verify"), Column("found"), Column("verdict")), tuple(_verdicts(inventory)))
        )
    return tables


def _facts(inventory: dict) -> list[tuple[str, str]]:
    from .text import as_shape

    encoding, input_range = inventory["encoding"], inventory["input_range"]
    where = f", {input_range[0]:g} to {input_range[1]:g}" if input_range else ""
    samples = (
        f"{inventory['n_samples']:,}, {'with' if inventory['labelled'] else 'without'} labels"
        if inventory["n_samples"]
        else "none"
    )
    classes = inventory["classes"]
    named = f": {', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''}" if classes else ""
    facts = [
        ("file", f"{inventory['model']}, {inventory['file_bytes']:,} bytes"),
        ("input", f"{as_shape(inventory['input_shape'])}, {encoding}{where}"),
        ("steps", f"T = {inventory['n_steps']}, shift {inventory['shift']}, readout {inventory['readout']}"),
        *([("coding", inventory["coding"])] if inventory["coding"] != "steps" else []),
        *_parameter_facts(inventory),
        ("classes", f"{inventory['n_classes']}{named}")
        if inventory["task"] == "classify"
        else ("outputs", f"{as_shape(inventory['output_shape'])} values, task {inventory['task']}"),
        ("samples", samples),
    ]
    facts += [
        (name, f"{value:g}" if isinstance(value, float) else str(value))
        for name, value in sorted(inventory["metadata"].items())
    ]
    if not inventory["int8"]["possible"]:
        facts.append(("int8", f"not possible: {inventory['int8']['reason']}"))
    return facts


def _range(values: Sequence[float] | None) -> str:
    """A range as text, ``0.5 to 2``; a dash if there is none."""
    if values is None:
        return "-"
    return f"{values[0]:g}" if values[0] == values[1] else f"{values[0]:g} to {values[1]:g}"


def _verdicts(inventory: dict) -> list[tuple[str, str, str]]:
    from .text import as_count

    checks, int8 = inventory["verify"], inventory["int8"]
    widths = [row["membrane"] for row in int8["populations"]]
    counted = ", ".join(f"{widths.count(width)} in {width}" for width in sorted(set(widths)))
    on = as_count(checks["n_samples"], "sample") + ("" if checks["input"] == "samples" else " of noise")

    def accuracy(arithmetic: str) -> str:
        value = checks[arithmetic]["accuracy"]
        return f"ran {on}" if value is None else f"{100 * value:.2f} % right of {on}"

    rows = [
        ("checksums", f"{checks['checksums']} arrays", "intact"),
        (
            "int8 range proof",
            f"T = {int8['n_steps']}, membranes {counted}" if int8["possible"] else int8["reason"],
            "no overflow" if int8["possible"] else "not possible",
        ),
        ("float32", accuracy("float32"), "runs"),
    ]
    if checks["int8"]["reason"]:
        return [*rows, ("int8", checks["int8"]["reason"], "not possible")]
    if checks["agreement"] is None:
        agreement = f"outputs differ by {checks['deviation']:.3g} (root mean square)"
    else:
        agreement = f"{100 * checks['agreement']:.2f} % of predictions agree"
    if checks["float32"]["accuracy"] is not None:
        agreement += (
            f", accuracy {100 * (checks['int8']['accuracy'] - checks['float32']['accuracy']):+.2f} points"
        )
    return [
        *rows,
        ("int8", accuracy("int8"), "runs"),
        (
            "int8 against float32",
            agreement,
            "same" if checks["agreement"] == 1 or checks["deviation"] == 0 else "differs",
        ),
    ]


def _parameter_facts(inventory: dict) -> list[tuple[str, str]]:
    """For which T there are step and graded parameters; thresholds are shown for the file's own coding."""
    found = []
    for coding, name in (("steps", "step_parameters"), ("graded", "graded_parameters")):
        if not inventory[name]:
            continue
        text = f"T = {', '.join(map(str, inventory[name]))}"
        if coding == inventory["coding"]:
            text += f"; thresholds below are those of T = {inventory['nearest_steps']}"
        found.append((name.replace("_", " "), text))
    return found


if __name__ == "__main__":
    sys.exit(main())
