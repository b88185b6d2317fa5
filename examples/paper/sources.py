"""Source ANNs: their predictions, and the networks converted from them, each made once and kept in RUNS."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import evsnn
from evsnn.conversion.balance.options import AUTO, Options
from evsnn.conversion.conversion import HELD_OUT, convert_model
from evsnn.conversion.lowering.ann import forward
from evsnn.conversion.lowering.lowering import lower_graph
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.network.inventory import layer_facts
from evsnn.output.console import print_message
from examples.paper.data import Data, scaled
from examples.paper.progress import News
from examples.paper.records import AUTO_STEPS, Method, replace_file, replace_npz

try:
    from threadpoolctl import threadpool_limits
except ImportError:  # then threads of evsnn and of BLAS multiply: no harm on a few cores, slow on many
    threadpool_limits = nullcontext

__all__ = ["Source", "describe", "network_of", "source_of"]

MEASURED = 4096
"""Training images from which thresholds are made; conversion holds `HELD_OUT` more out."""
AUTO_MEASURED = 512
MADE_FOR = 16
"""T for which other networks are converted: their thresholds belong to none, and the shift is that of the
run.
"""
ANN_BATCH = 16


@dataclass(frozen=True)
class Source:
    """A trained ANN, and what is known of it.

    Parameters
    ----------
    name : str
        ``<system>_<activation>``.
    model : Path
    digest : str
        SHA-256 of the model.
    predictions : (n_test,) uint8
    """

    name: str
    model: Path
    digest: str
    predictions: np.ndarray


def source_of(name: str, models: Path, runs: Path, data: Data, threads: int | None) -> Source:
    """A source ANN with its predictions of all test images, from RUNS or computed."""
    model, kept = models / f"{name}.onnx", runs / f"{name}_ann.npz"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    if kept.exists():
        with np.load(kept) as file:
            check_source(kept, model, str(file["source_sha256"]), digest)
            predictions = file["predictions"]
    else:
        predictions = predicted(model, data.test_images, name, threads)
        replace_npz(kept, {"predictions": predictions, "source_sha256": np.array(digest)})
    if len(predictions) != len(data.test_labels):
        sys.exit(
            f"{kept}: got predictions of {len(predictions)} images, expected {len(data.test_labels)}, the"
            " test images of the data; name another folder for the runs"
        )
    return Source(name, model, digest, predictions)


def check_source(made: Path, model: Path, got: str, expected: str) -> None:
    if got != expected:
        sys.exit(
            f"{made}: was made from a model of SHA-256 {got[:12]}..., but {model} has {expected[:12]}...;"
            " name another folder for the runs"
        )


def predicted(model: Path, images: np.ndarray, name: str, threads: int | None) -> np.ndarray:
    """The ANN's classes, by evsnn's own forward pass: (n,) uint8."""
    ann, news = lower_graph(import_onnx(str(model))), News()

    def classes(first: int) -> np.ndarray:
        return (
            forward(ann, ann.arranged(scaled(images[first : first + ANN_BATCH])))
            .argmax(axis=1)
            .astype(np.uint8)
        )

    found: list[np.ndarray] = []
    with threadpool_limits(1), ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        for part in pool.map(classes, range(0, len(images), ANN_BATCH)):
            found.append(part)
            news(f"{name}: the ANN's predictions, {len(found) * ANN_BATCH}/{len(images)}")
    return np.concatenate(found)


def network_of(system: str, source: Source, method: Method, runs: Path, data: Data) -> evsnn.Network:
    """The source as a spiking network, from RUNS or converted."""
    path = runs / method.network(system)
    if path.exists():
        network = evsnn.load(path)
        check_source(path, source.model, str(network.metadata.get("source_sha256")), source.digest)
    else:
        if method.threshold == AUTO:
            n, options = AUTO_MEASURED, Options(n_steps=AUTO_STEPS)
        else:
            n, options = (
                MEASURED + HELD_OUT,
                Options(n_steps=(MADE_FOR,), threshold=method.threshold, granularity="layer", shift="bias"),
            )
        drawn = np.random.default_rng(0).permutation(len(data.train_images))[
            :n
        ]  # a file may be sorted by class
        news = News()
        conversion = convert_model(
            str(source.model),
            scaled(data.train_images[drawn]),
            options,
            lambda what, done, total: news(f"{path.name}: {what}, {done}/{total}"),
        )
        for warning in conversion.warnings:
            print_message(f"{path.name}: warning: {warning}")
        recipes = {f"recipe_T{T}": str(choice.recipe) for T, choice in conversion.choices.items()}
        network = conversion.network.replace(
            metadata={"source": source.model.name, "source_sha256": source.digest} | recipes
        )
        part = path.with_suffix(f".{os.getpid()}.part")
        evsnn.save(part, network)
        os.replace(part, path)
    return network if method.shift is None else network.replace(shift=method.shift)


def describe(
    system: str, activation: str, source: Source, network: evsnn.Network, runs: Path, data: Data
) -> int:
    """Keep what the tables say of a source ANN; gives its multiply-adds per sample."""
    facts = layer_facts(network)
    macs = sum(layer.macs for layer in facts)
    record = {
        "system": system,
        "activation": activation,
        "accuracy": float((source.predictions == data.test_labels).mean()),
        "n_test": len(data.test_labels),
        "macs": macs,
        "n_neurons": sum(layer.n_neurons for layer in facts),
        "largest_activations": [layer.v_threshold[1] for layer in facts if layer.v_threshold],
    }
    replace_file(runs / f"{source.name}_ann.json", f"{json.dumps(record, indent=1)}\n".encode())
    return macs
