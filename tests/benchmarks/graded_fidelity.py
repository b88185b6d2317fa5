"""What graded spikes lose on a whole test set, and what they add, level by level.

    python tests/benchmarks/graded_fidelity.py MODEL.onnx [MODEL.onnx ...] --calibration F --test F
        [--steps 4,8,15,31] [--samples 512]

Both files are .npz with images as the model reads them, and labels. For each T the network is converted for
graded spikes with the first samples of the calibration file, and all test images are computed for whole
batches through BLAS, whose order of sums is not the specified one: a count may differ where a membrane is
within rounding of a level. SOPs are additions of a weight times a count; MACs are the model's own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evsnn.circuit.build import build_circuit
from evsnn.conversion.balance.options import Options
from evsnn.conversion.balance.trial import graded_trial
from evsnn.conversion.conversion import convert_model
from evsnn.conversion.lowering.ann import forward
from evsnn.output.table import Column, Table, draw

COLUMNS = (
    Column("model"),
    Column("T", "d"),
    Column("ANN %", ".2f"),
    Column("graded %", ".2f"),
    Column("loss", ".2f"),
    Column("SOPs/MAC", ".3f"),
    Column("rate", ".3f"),
    Column("convert s", ".1f"),
)


def rows(
    model: Path, calibration: np.ndarray, images: np.ndarray, labels: np.ndarray, steps: tuple[int, ...]
):
    """A row for each T."""
    conversions: Iterator = (
        (
            T,
            time.perf_counter(),
            convert_model(str(model), calibration, Options(n_steps=(T,), coding="graded")),
        )
        for T in steps
    )
    right: float | None = None
    for T, started, conversion in conversions:
        seconds = time.perf_counter() - started
        ann, inputs = conversion.ann, conversion.ann.arranged(images)
        if right is None:
            right = float((forward(ann, inputs).argmax(1) == labels).mean())
        found = graded_trial(build_circuit(conversion.network, T), inputs)
        accuracy = float((found.outputs[conversion.network.outputs[0].name].argmax(1) == labels).mean())
        macs = sum(ann.macs.values())
        yield (
            model.stem,
            T,
            100 * right,
            100 * accuracy,
            100 * (right - accuracy),
            found.sops_per_sample / macs,
            found.mean_rate,
            seconds,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--steps", default="4,8,15,31")
    parser.add_argument("--samples", type=int, default=512)
    arguments = parser.parse_args()
    calibration = np.load(arguments.calibration)["images"][: arguments.samples]
    with np.load(arguments.test) as test:
        images, labels = test["images"], test["labels"]
    steps = tuple(int(T) for T in arguments.steps.split(","))
    found = []
    for model in arguments.models:
        for row in rows(model, calibration, images, labels, steps):
            found.append(row)
            print(*row, flush=True)
    print(draw([Table(COLUMNS, tuple(found))]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
