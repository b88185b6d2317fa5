"""``python tests/benchmarks/strangers.py MODEL.onnx [MODEL.onnx ...]``: models of others, converted and run.

One row for each model: how far the converted ANN is from onnxruntime (or why the model is refused), how far
the spiking network is from that, what it costs beside the model's own multiply-adds, and the RAM and flash of
its firmware. Samples are noise unless ``--samples`` names a folder with NAME.npz (images) for NAME.onnx, so
agreement says how well spikes follow the model, not how good it is. Needs onnx, onnxruntime and jinja2.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import evsnn
from evsnn.conversion.balance.options import Options
from evsnn.conversion.conversion import convert_model
from evsnn.conversion.lowering.ann import forward_all
from evsnn.conversion.lowering.lowering import lower_graph
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.output.table import Column, Table, draw

COLUMNS = (
    Column("model"),
    Column("ANN error", ".1e"),
    Column("SNN"),
    Column("engine"),
    Column("neurons", "d"),
    Column("MACs", "d"),
    Column("SOPs", ".0f"),
    Column("RAM KiB", ".0f"),
    Column("flash KiB", ".0f"),
    Column("s", ".1f"),
    Column(""),
)


def theirs(path: str, tensors: Sequence[str], images: np.ndarray) -> dict[str, np.ndarray]:
    """What onnxruntime computes at some tensors of a model; a batch that the file fixes is filled up."""
    import onnx
    import onnxruntime

    proto = onnx.load(path)
    made = {name for node in proto.graph.node for name in node.output}
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name in made)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.graph_optimization_level = (
        3,
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    )
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    batch = given.shape[0] if len(given.shape) > 1 and isinstance(given.shape[0], int) else len(images)
    if batch > len(images):
        images = np.concatenate([images, np.repeat(images[:1], batch - len(images), 0)])
    found = session.run(None, {given.name: images[:batch]})
    return {output.name: values for output, values in zip(session.get_outputs(), found)}


def row(path: str, samples: Path | None, n_steps: int, n: int) -> tuple:
    """One model."""
    began, name = time.perf_counter(), Path(path).stem
    try:
        graph = import_onnx(path)
        ann = lower_graph(graph)
        given = samples / f"{name}.npz" if samples else None
        images = (
            np.load(given)["images"][:n].astype(np.float32)
            if given and given.exists()
            else np.random.default_rng(0).random((n, *graph.shapes[graph.input]), np.float32)
        )
        ours = forward_all(ann, ann.arranged(images[:4]))
        wanted = theirs(path, ann.outputs, images[:4])
        compared = [
            relative(values, wanted[tensor])
            for values, tensor in zip(ours.values(), ann.outputs)
            if tensor in wanted
        ]
        conversion = convert_model(path, images, Options(n_steps=(n_steps,)))
        network = conversion.network
        result = evsnn.simulate(network, conversion.held_out)
        again = evsnn.simulate(network, conversion.held_out[:1], backend="reference")
        equal = all(
            np.array_equal(result.named_outputs[key][:1], values)
            for key, values in again.named_outputs.items()
        )
        agreement = conversion.targets.agreement(result.named_outputs)
        errors = conversion.targets.errors(result.named_outputs)
        said = (
            f"{agreement:.1%} agree"
            if agreement is not None
            else f"{max(error.relative for error in errors.values()):.1%} error"
        )
        ram, flash, why = firmware(network)
        neurons = sum(layer.n_neurons for layer in result.layers)
        taken = time.perf_counter() - began
        return (
            name, max(compared, default=None), said, "equal" if equal else "DIFFERS", neurons,
            sum(ann.macs.values()), result.sops_per_sample, ram, flash, taken, why,
        )  # fmt: skip
    except evsnn.EvsnnError as error:
        return (name, *[None] * 8, time.perf_counter() - began, str(error)[:160])


def relative(ours: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, as a share of the largest value."""
    n = min(len(ours), len(wanted))
    ours, wanted = (values[:n].reshape(n, -1) for values in (ours, wanted))
    return float(np.abs(ours - wanted).max() / (np.abs(wanted).max() or 1.0))


def firmware(network: evsnn.Network) -> tuple[float | None, float | None, str]:
    """KiB of RAM and of constants of the firmware, or why there is none."""
    from firmware_export.export import export_network

    try:
        export = export_network(network)
    except evsnn.EvsnnError as error:
        return None, None, f"no firmware: {str(error)[:100]}"
    return export.placed.n_bytes / 1024, export.constant_bytes / 1024, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--samples", type=Path, help="a folder with NAME.npz for NAME.onnx")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("-n", type=int, default=64, help="samples (64)")
    options = parser.parse_args()
    rows = []
    for path in options.models:
        rows.append(row(path, options.samples, options.steps, options.n))
        print(rows[-1], file=sys.stderr, flush=True)
    print(draw([Table(COLUMNS, tuple(rows))]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
