"""Models for the repository: converted, with int8 weights, measured on the whole test set, with a card.

usage: python -m examples.paper.publish MODELS -o examples/models --cifar10 DATA --cifar100 DATA
                                        [--systems S,...]

MODELS holds what train.py wrote, <system>_threshold.onnx and .json. For each system three files are written:
<system>.h5, which runs by itself on the 16 test images in it; <system>.json, what was measured; <system>.md,
the card, which says the same to people (cards.py). README.md lists all models in the folder.

The figures are those that `python -m evsnn.run` prints for the file, run as anybody would run it. A file that
came from the same ONNX model is not made again, and a row that is in its record is not measured again: start
the same command once more where a run was cut short. Without a system left to do, cards and list are written
anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import evsnn
from evsnn.conversion.balance.calibration import CalibrationSet, open_calibration
from evsnn.conversion.balance.options import Options
from evsnn.conversion.conversion import Conversion, convert_model
from evsnn.conversion.lowering.ann import Ann, forward
from evsnn.conversion.lowering.lowering import lower_graph
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.conversion.report.summary import Summary
from evsnn.files.weights import verify
from evsnn.network.inventory import layer_facts
from evsnn.network.reading import predicted_classes
from evsnn.output.console import integer, print_message
from examples.paper.cards import DATA_SETS, card, index
from examples.paper.data import Data, load, scaled

__all__ = ["Task", "convert", "main", "measure", "picked"]

SYSTEMS = ("vgg16_cifar10", "resnet20_cifar10", "resnet20_cifar100")
STEPS = (16, 4, 8, 32)
"""The first is the file's own."""
STORAGE = "int8"
N_CALIBRATION = 1024
N_SAMPLES = 16


@dataclass(frozen=True)
class Task:
    """One model, from the files of its source to its own.

    Parameters
    ----------
    system : str
    models, output : Path
        Folders.
    """

    system: str
    models: Path
    output: Path

    @property
    def onnx(self) -> Path:
        return self.models / f"{self.system}_threshold.onnx"

    @property
    def data_name(self) -> str:
        return self.system.rpartition("_")[2]

    def path(self, suffix: str) -> Path:
        return self.output / f"{self.system}{suffix}"

    def record(self) -> dict | None:
        """What is known of a model that is there and came from the same ONNX file."""
        if not (self.path(".h5").exists() and self.path(".json").exists()):
            return None
        record = json.loads(self.path(".json").read_text())
        return record if record["source"]["sha256"] == digest_of(self.onnx) else None

    def keep(self, record: dict) -> None:
        """Write the record, all or nothing."""
        part = self.path(".json.part")
        part.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(part, self.path(".json"))


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def picked(images: np.ndarray, labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n pictures (n, 3, 32, 32) in the networks' scale, and their labels.

    They are drawn evenly at random, because a data set may be sorted by class.
    """
    chosen = np.random.default_rng(0).choice(len(images), min(n, len(images)), replace=False)
    return scaled(images[chosen]), labels[chosen]


# Making the file


def convert(task: Task, data: Data, n_calibration: int, note: str = "") -> dict:
    """Convert the source ANN, write the weights file; gives its record, nothing measured yet."""
    news = News(task.system)
    conversion = convert_model(
        str(task.onnx),
        picked(data.train_images, data.train_labels, n_calibration),
        Options(n_steps=STEPS, storage=STORAGE),
        news,
    )
    for warning in conversion.warnings:
        print_message(f"{task.system}: warning: {warning}")
    record = described(task, conversion, data, min(n_calibration, len(data.train_images)), note)
    notes = Summary(
        str(task.onnx), str(task.path(".h5")), None, record["n_calibration"], STORAGE, conversion, None, ()
    ).metadata()
    about = {
        "network": record["source"]["network"],
        "seed": record["source"]["seed"],
        "epochs": record["source"]["epochs"],
        "accuracy_source": record["source"]["accuracy"],
    }
    network = conversion.network.replace(
        samples=evsnn.Samples(*picked(data.test_images, data.test_labels, N_SAMPLES)),
        classes=DATA_SETS[task.data_name].classes,
        metadata=notes | about | {"data": DATA_SETS[task.data_name].origin, "command": record["command"]},
    )
    evsnn.save(task.path(".h5"), network, storage=STORAGE)
    task.keep(record)
    return record


def described(task: Task, conversion: Conversion, data: Data, n_calibration: int, note: str) -> dict:
    """The record of a model that was just converted."""
    facts = layer_facts(conversion.network)
    source = json.loads(task.onnx.with_suffix(".json").read_text())
    command = (
        f"python -m examples.paper.publish MODELS -o examples/models --{task.data_name} DATA --systems"
        f" {task.system}"
    )
    command += f" --calibration {n_calibration}" * (
        n_calibration != N_CALIBRATION
    ) + f" --note {shlex.quote(note)}" * bool(note)
    return {
        "system": task.system,
        "data": task.data_name,
        "source": source | {"file": task.onnx.name, "sha256": digest_of(task.onnx)},
        "n_neurons": sum(layer.n_neurons for layer in facts),
        "macs": sum(layer.macs for layer in facts),
        "n_steps": conversion.network.n_steps,
        "shift": conversion.network.shift,
        "readout": conversion.network.readout,
        "storage": STORAGE,
        "n_calibration": n_calibration,
        "n_test": len(data.test_labels),
        "evsnn": evsnn.__version__,
        "recipes": {str(T): str(choice.recipe) for T, choice in sorted(conversion.choices.items())},
        "command": command,
        "note": note,
        "ann_accuracy": None,
        "rows": [],
    }


# Measuring it


def measure(task: Task, record: dict, inputs: Path) -> None:
    """Run the file on the test images, and write the results into record and file.

    It is run for each T in float32, and for its own T in int8.

    Parameters
    ----------
    task : Task
    record : dict
        From `convert`, or kept from an earlier run.
    inputs : Path
        The .npz with all test images.
    """
    runs = [(T, "float32") for T in sorted(STEPS)] + [(record["n_steps"], "int8")]
    left = [run for run in runs if run not in [(row["T"], row["arithmetic"]) for row in record["rows"]]]
    if left:
        ann, labels = predictions_of(task, inputs)
        record["ann_accuracy"] = float((ann == labels).mean())
    for T, arithmetic in left:
        row, predictions = run_of(task.path(".h5"), inputs, T, arithmetic)
        record["rows"].append(
            row
            | {
                "agreement": float((predictions == ann).mean()),
                "sops_per_mac": row["sops"] / record["macs"],
            }
        )
        task.keep(record)
        print_message(
            f"{task.system}, T = {T}, {arithmetic}: {row['accuracy']:.2%} of {row['n_samples']} images, the"
            f" ANN {record['ann_accuracy']:.2%}, {row['seconds']:.0f} s"
        )
    noted(task, record)
    path = task.path(".h5")
    own = run_of(path, None, record["n_steps"], "float32")[1]
    task.keep(
        record
        | {
            "file": path.name,
            "n_bytes": path.stat().st_size,
            "sha256": digest_of(path),
            "sample_predictions": own.tolist(),
        }
    )


def predictions_of(task: Task, inputs: Path) -> tuple[np.ndarray, np.ndarray]:
    """The ANN's predictions and the labels, (n_test,) each."""
    ann: Ann = lower_graph(import_onnx(str(task.onnx)))
    news = News(task.system)
    with open_calibration(str(inputs)) as opened:
        samples: CalibrationSet = opened.fitted(ann.input_shape, ann.network.n_classes)
        predictions, done = [], 0
        for images in samples.batches():
            predictions.append(predicted_classes(forward(ann, ann.arranged(images))))
            done += len(images)
            news("the ANN's predictions", done, samples.n)
        return np.concatenate(predictions), np.asarray(samples.labels)


def run_of(path: Path, inputs: Path | None, n_steps: int, arithmetic: str) -> tuple[dict, np.ndarray]:
    """`python -m evsnn.run` of a file: a row of its record, and the predictions.

    Without `inputs`, it is run on the samples in the file.
    """
    words = [
        sys.executable,
        "-m",
        "evsnn.run",
        str(path),
        "--steps",
        str(n_steps),
        "--arithmetic",
        arithmetic,
        "--json",
    ]
    started = time.perf_counter()
    done = subprocess.run(
        [*words, "--input", str(inputs)] if inputs else words, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"{path}: python -m evsnn.run failed, see above")
    seconds, report = time.perf_counter() - started, json.loads(done.stdout)
    row = {
        "T": n_steps,
        "arithmetic": arithmetic,
        "n_samples": report["n_samples"],
        "accuracy": report["accuracy"],
        "sops": report["sops_per_sample"],
        "rate": report["mean_rate"],
        "seconds": round(seconds, 1),
        "threads": report["threads"],
    }
    return row, np.array(report["predictions"])


def noted(task: Task, record: dict) -> None:
    """Put what was measured into the file's metadata; nothing else changes.

    The names are those that `python -m evsnn.convert --validate` uses.
    """
    path = task.path(".h5")
    network, arrays = evsnn.load(path), verify(path)
    notes = dict(network.metadata) | {
        "validation_samples": record["n_test"],
        "accuracy_ann": record["ann_accuracy"],
    }
    for row in record["rows"]:
        name = f"T{row['T']:02d}" + "_int8" * (row["arithmetic"] == "int8")
        notes |= {
            f"accuracy_{name}": row["accuracy"],
            f"agreement_{name}": row["agreement"],
            f"sops_per_sample_{name}": round(row["sops"]),
        }
    evsnn.save(path, network.replace(metadata=notes), storage=STORAGE)
    if [array.sha256 for array in verify(path)] != [array.sha256 for array in arrays]:
        sys.exit(
            f"{path}: the arrays differ from those that were measured; remove the file, and publish it again"
        )


class News:
    """Lines on stderr, not more often than every ten seconds."""

    def __init__(self, system: str):
        self.system, self.next = system, time.monotonic() + 10

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() >= self.next:
            print_message(f"{self.system}: {what}, {done}/{total}")
            self.next = time.monotonic() + 10


def write_cards(folder: Path) -> None:
    """A card for each measured model of a folder, and the list of them."""
    records = [
        record
        for path in sorted(folder.glob("*.json"))
        if "sha256" in (record := json.loads(path.read_text()))
    ]
    for record in records:
        (folder / f"{record['system']}.md").write_text(card(record))
    if records:
        (folder / "README.md").write_text(index(records))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.paper.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", type=Path, metavar="MODELS")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--cifar10", type=Path, metavar="DATA", help="an .npz or torchvision's folder, see data.py"
    )
    parser.add_argument("--cifar100", type=Path, metavar="DATA")
    parser.add_argument(
        "--systems", default=",".join(SYSTEMS), help="default: %(default)s; empty: cards and list only"
    )
    parser.add_argument(
        "--calibration",
        type=integer(1, 1 << 16),
        default=N_CALIBRATION,
        metavar="N",
        help="training images (default: %(default)s)",
    )
    parser.add_argument(
        "--note",
        default="",
        metavar="TEXT",
        help="what else the cards have to say of the data, such as copies that are not exact",
    )
    arguments = parser.parse_args(argv)
    tasks = [
        Task(system, arguments.models, arguments.output)
        for system in filter(None, arguments.systems.split(","))
    ]
    for task in tasks:
        if task.data_name not in DATA_SETS or not getattr(arguments, task.data_name):
            parser.error(
                f"{task.system}: no data; give " + " or ".join(f"--{name} DATA" for name in DATA_SETS)
            )
        for path in (task.onnx, task.onnx.with_suffix(".json")):
            if not path.exists():
                parser.error(f"{path}: there is no such file; python -m examples.paper.train writes it")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        data = load(getattr(arguments, task.data_name))
        record = task.record() or convert(task, data, arguments.calibration, arguments.note)
        with tempfile.TemporaryDirectory() as folder:
            inputs = Path(folder) / "test.npz"
            np.savez(inputs, images=scaled(data.test_images), labels=data.test_labels)
            measure(task, record, inputs)
        write_cards(arguments.output)
    if not tasks:
        write_cards(arguments.output)


if __name__ == "__main__":
    main()
