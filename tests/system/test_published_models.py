"""The models of examples/models, and the script that makes them, on a little network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_builder import OnnxModel

import evsnn
from evsnn.files.weights import verify

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from examples.paper import cards, publish  # noqa: E402
from examples.paper.data import scaled  # noqa: E402


@pytest.fixture
def sources(tmp_path):
    """A folder with a little network, its record, and pictures."""
    m = OnnxModel((3, 32, 32), seed=2)
    x = m.op("Clip", m.conv("x", 3, 4, kernel=4, strides=[4, 4]), np.float32(0), np.float32(1))
    onnx.save(m.model(m.head(x, 4 * 64)), tmp_path / "resnet20_cifar10_threshold.onnx")
    source = {
        "system": "resnet20_cifar10",
        "network": "resnet20",
        "data": "cifar10",
        "limit": 1.0,
        "accuracy": 0.5,
        "n_test": 20,
        "seed": 3,
        "epochs": 7,
        "device": "a device",
        "minutes": 1.5,
        "n_parameters": 2766,
        "started_from": None,
    }
    (tmp_path / "resnet20_cifar10_threshold.json").write_text(json.dumps(source))
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 60), ("test", 20)):
        arrays |= {
            f"{split}_images": rng.integers(0, 256, (n, 32, 32, 3), np.uint8),
            f"{split}_labels": rng.integers(0, 10, n, np.uint8),
        }
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path


@pytest.mark.slow
def test_publishing(sources, tmp_path, monkeypatch, capfd):
    """A file, its record, its card and the list; what was cut short goes on; nothing is done twice."""
    monkeypatch.setattr(publish, "STEPS", (2, 1))
    words = [
        str(sources),
        "-o",
        str(tmp_path / "out"),
        "--cifar10",
        str(sources / "data.npz"),
        "--calibration",
        "40",
        "--note",
        "Noise.",
        "--systems",
        "resnet20_cifar10",
    ]
    publish.main(words)
    path = tmp_path / "out" / "resnet20_cifar10.h5"
    record = json.loads(path.with_suffix(".json").read_text())
    assert [(row["T"], row["arithmetic"]) for row in record["rows"]] == [
        (1, "float32"),
        (2, "float32"),
        (2, "int8"),
    ]
    network = evsnn.load(path)
    with np.load(sources / "data.npz") as data:
        images, labels = scaled(data["test_images"]), data["test_labels"].astype(np.int64)
    for row in record["rows"]:
        result = evsnn.simulate(
            network,
            images,
            n_steps=row["T"],
            labels=labels,
            arithmetic=row["arithmetic"],
            backend="reference",
        )
        assert (
            row["accuracy"] == result.accuracy
            and row["sops"] == result.sops_per_sample
            and row["rate"] == result.mean_rate
            and row["n_samples"] == 20
        )
        assert row["sops_per_mac"] == result.sops_per_sample / (48 * 256 + 2560)
    own = evsnn.simulate(network, network.samples.images, backend="reference").predictions
    assert (
        record["sample_predictions"] == own.tolist()
        and len(own) == 16
        and network.metadata["accuracy_T02_int8"] == record["rows"][2]["accuracy"]
    )
    assert (
        publish.digest_of(path)
        == record["sha256"]
        in path.with_suffix(".md").read_text()
        == cards.card(record)
    )
    assert record["command"].endswith("--systems resnet20_cifar10 --calibration 40 --note Noise.")
    assert "Noise." in cards.card(record) and (tmp_path / "out" / "README.md").read_text() == cards.index(
        [record]
    )
    assert {str(array.dtype) for array in verify(path) if array.path.endswith("/weight")} == {"int8"}

    before = path.read_bytes()
    path.with_suffix(".json").write_text(json.dumps(record | {"rows": record["rows"][:1]}))
    capfd.readouterr()
    publish.main(words)
    said = capfd.readouterr().err
    assert path.read_bytes() == before and "T = 2, int8" in said and "T = 1" not in said


def test_publishing_needs_the_data_of_each_system(sources, tmp_path, capsys):
    for systems, message in (
        ("vgg16_cifar100", "give --cifar10 DATA or --cifar100 DATA"),
        ("vgg16_cifar10", "there is no such file"),
    ):
        with pytest.raises(SystemExit):
            publish.main(
                [
                    str(sources),
                    "-o",
                    str(tmp_path / "out"),
                    "--cifar10",
                    str(sources / "data.npz"),
                    "--systems",
                    systems,
                ]
            )
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_pictures_are_picked_from_all_over_a_sorted_set():
    images, labels = publish.picked(np.zeros((500, 32, 32, 3), np.uint8), np.repeat(np.arange(100), 5), 200)
    assert images.shape == (200, 3, 32, 32) and len(set(labels.tolist())) > 80


MODELS = sorted((ROOT / "examples" / "models").glob("*.h5"))


@pytest.mark.slow
@pytest.mark.parametrize("path", MODELS, ids=[path.stem for path in MODELS])
def test_a_published_model_is_what_its_card_says(path):
    record = json.loads(path.with_suffix(".json").read_text())
    assert publish.digest_of(path) == record["sha256"] and path.stat().st_size == record["n_bytes"] < 48e6
    assert path.with_suffix(".md").read_text() == cards.card(record)
    network = evsnn.load(path)
    result = evsnn.simulate(network, network.samples.images[:4])
    assert result.predictions.tolist() == record["sample_predictions"][:4]
    assert {"float32": {4, 8, 16, 32}, "int8": {16}} == {
        how: {row["T"] for row in record["rows"] if row["arithmetic"] == how} for how in ("float32", "int8")
    }
    assert {str(array.dtype) for array in verify(path) if array.path.endswith("/weight")} == {"int8"}


def test_published_models_are_listed_and_small_together():
    records = [json.loads(path.with_suffix(".json").read_text()) for path in MODELS]
    assert records and (ROOT / "examples" / "models" / "README.md").read_text() == cards.index(records)
    assert sum(path.stat().st_size for path in MODELS) <= 64e6
