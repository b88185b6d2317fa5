"""Commands on networks whose outputs are not scores of classes: maps and vectors, of currents or spikes."""

import json

import numpy as np
import pytest

import evsnn
from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, InputError, Linear, Network, Readout, WeightsError
from evsnn import inspect as inspect_command
from evsnn import profile as profile_command
from evsnn import run as run_command
from evsnn.network.network import Samples

SHAPES = {"map": (2, 8, 8), "spikes": (2, 8, 8), "vector": (3,)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    random = np.random.default_rng(0)
    images = random.random((4, 1, 8, 8), dtype=np.float32)
    stem = (Input((1, 8, 8)), Conv2d(random.normal(size=(4, 1, 3, 3)), padding=1), IF(1.0))
    head = Conv2d(random.normal(size=(2, 4, 1, 1)))
    layers = {
        "map": (*stem, head, Readout()),
        "spikes": (*stem, head, IF(0.5), Readout()),
        "vector": (*stem, AvgPool2d(8), Flatten(), Linear(random.normal(size=(3, 4))), Readout()),
    }
    folder = tmp_path_factory.mktemp("tasks")
    paths = {}
    for name in layers:
        network = Network(
            layers[name],
            n_steps=8,
            task="regress",
            readout="spikes" if name == "spikes" else "membrane",
            input_range=(0, 1),
            samples=Samples(images),
        )
        paths[name] = folder / f"{name}.h5"
        evsnn.save(paths[name], network)
    return paths


@pytest.mark.parametrize("name", SHAPES)
def test_run(files, name, capsys):
    assert run_command.main([str(files[name])]) == 0
    text = capsys.readouterr().out
    assert "values per sample" in text and "predictions" not in text and "accuracy" not in text
    assert run_command.main([str(files[name]), "--json", "--steps", "2,8"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["task"], tuple(report["output_shape"])) == ("regress", SHAPES[name])
    assert report["predictions"] is None and report["accuracy"] is None
    few, many = report["sweep"]
    assert many["deviation"] == 0 and few["agreement"] is None
    network = evsnn.load(files[name])
    outputs = {T: evsnn.simulate(network, network.samples.images, n_steps=T).outputs for T in (2, 8)}
    assert few["deviation"] == pytest.approx(np.sqrt(np.mean((outputs[2] - outputs[8]) ** 2)))


def test_sweep_has_a_picture(files, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "sweep.png"
    assert run_command.main([str(files["map"]), "--steps", "2,8", "--plot", str(picture)]) == 0
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize("name", SHAPES)
def test_inspect(files, name, capsys):
    assert inspect_command.main([str(files[name]), "--verify"]) == 0
    text = capsys.readouterr().out
    assert "root mean square" in text and "classes" not in text
    assert inspect_command.main([str(files[name]), "--verify", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["task"], tuple(report["output_shape"])) == ("regress", SHAPES[name])


def test_profile(files, capsys):
    for form in ((), ("--json",)):
        assert profile_command.main([str(files["map"]), "--seconds", "0.01", *form]) == 0
        text = capsys.readouterr().out
    assert json.loads(text)["predictions"] is None


def test_labels_belong_to_networks_that_classify(files, tmp_path, capsys):
    network = evsnn.load(files["vector"])
    images, labels = network.samples.images, np.zeros(4, np.int64)
    with pytest.raises(InputError, match="labels are for networks that classify"):
        evsnn.simulate(network, images, labels=labels)
    with pytest.raises(WeightsError, match="labels are for networks that classify"):
        evsnn.save(tmp_path / "labelled.h5", network.replace(samples=Samples(images, labels)))
    np.savez(tmp_path / "set.npz", images=images, labels=labels)  # a set that other networks classify
    assert run_command.main([str(files["vector"]), "--input", str(tmp_path / "set.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] is None


@pytest.mark.parametrize(
    "labels, message",
    [
        (["a", "b", "c", "a"], "got dtype <U1, .*Number the classes in the order of the scores"),
        (np.array([0, 1, 2, 0], object), "got dtype object, .*Number the classes"),
        ([0.0, 1.0, 2.0, 0.0], "got dtype float64, expected integers from 0 to 2. Give labels.astype"),
        ([True, False, True, False], "Give labels.astype"),
        (np.eye(4, 3), r"got shape \(4, 3\), expected \(4,\). Give labels.argmax"),
        ([[0], [1], [2], [0]], r"got shape \(4, 1\), expected \(4,\). Give labels.ravel"),
        ([0, 1, 2], r"got shape \(3,\), expected \(4,\)$"),
        ([1, 2, 3, 1], "got 1 to 3, expected integers from 0 to 2. Number the classes from 0 on"),
    ],
)
def test_labels_that_are_no_classes(files, labels, message):
    network = evsnn.load(files["vector"]).replace(task="classify")
    with pytest.raises(InputError, match=message):
        evsnn.simulate(network, network.samples.images, labels=labels, backend="reference")


@pytest.mark.parametrize(
    "words", [("power-column", "P=W"), ("meter-voltage", "5"), ("idle-w", "1"), ("power-offset", "2")]
)
def test_options_about_a_log_need_one(files, words, capsys):
    name, value = words
    assert profile_command.main([str(files["map"]), "--seconds", "0.01", f"--{name}", value]) == 2
    assert f"--{name} is about a power meter's log: it needs --power-csv" in capsys.readouterr().err
