"""``python -m evsnn.convert`` and ``evsnn.convert``: from a model file to a weights file that runs, or to one
error and no file.
"""

import functools
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx_builder import OnnxModel

import evsnn
from evsnn import convert, run
from evsnn.__main__ import main as evsnn_main
from evsnn.conversion import conversion
from evsnn.conversion.balance.calibration import open_calibration
from evsnn.conversion.balance.options import Options
from evsnn.conversion.lowering.ann import forward
from evsnn.conversion.onnx.evaluate import evaluate
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.conversion.report.validation import targets_of, validate

ROOT = Path(evsnn.__file__).parents[1]
RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.normal(size=(64, 2, 6, 6)).astype(np.float32)


def make_model(limit=None, average=True):
    m = OnnxModel((2, 6, 6), seed=1)

    def relu(x):
        return m.op("Relu", x) if limit is None else m.op("Clip", x, np.float32(0), np.float32(limit))

    x = relu(m.conv("x", 2, 6, pads=[1, 1, 1, 1]))
    x = m.op("AveragePool" if average else "MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = relu(m.conv(x, 6, 8, pads=[1, 1, 1, 1]))
    return m.model(m.head(x, 72, 4))


@pytest.fixture(scope="module")
def labels():
    """What the model itself says."""
    found = conversion.convert_model(make_model(), IMAGES, Options((4,), threshold="max"))
    return forward(found.ann, IMAGES).argmax(axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("convert")
    onnx.save(make_model(), folder / "net.onnx")
    onnx.save(make_model(limit=2.0), folder / "clipped.onnx")
    onnx.save(make_model(average=False), folder / "maxpool.onnx")
    np.savez(folder / "cal.npz", images=IMAGES, labels=labels)
    np.savez(folder / "val.npz", images=IMAGES[:20], labels=labels[:20])
    return folder


@pytest.fixture
def call(folder, tmp_path, capsys):
    """Run the command on the folder's model: (status, stdout, stderr)."""

    def call(*arguments, model="net.onnx", calibration="cal.npz", main=convert.main):
        words = [
            folder / model,
            "-o",
            tmp_path / "w.h5",
            *(["--calibration", folder / calibration] if calibration else []),
            *arguments,
        ]
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def refused(call, tmp_path):
    """Run a command that has to fail with one line, and write nothing; the line."""

    def refused(status, *arguments, **options):
        before = sorted(tmp_path.iterdir())
        got, out, err = call(*arguments, **options)
        lines = [line for line in err.splitlines() if not line.startswith(("warning: ", "memory: "))]
        assert got == status and out == "" and len(lines) == 1 and lines[0].startswith("evsnn: error: "), (
            got,
            out,
            err,
        )
        assert sorted(tmp_path.iterdir()) == before
        return lines[0]

    return refused


# What comes out


def test_a_file_that_runs(call, tmp_path, labels, capsys):
    status, out, err = call("--steps", "8", "--json")
    assert status == 0, err
    report = json.loads(out)
    assert set(report) == {
        "schema_version",
        "model",
        "output",
        "task",
        "outputs",
        "n_steps",
        "shift",
        "readout",
        "storage",
        "calibration",
        "n_samples",
        "choices",
        "mismatch",
        "notes",
        "warnings",
        "held_out",
        "layers",
        "sweep",
        "validation",
    }
    assert (report["n_steps"], report["n_samples"], report["validation"]) == (8, 64, None) and 0 <= report[
        "mismatch"
    ] < 1e-4
    (choice,) = report["choices"]
    assert (
        choice["n_steps"] == 8
        and choice["reason"]
        and choice["recipe"] in [c["recipe"] for c in choice["candidates"]]
    )
    assert len(report["layers"]) == 3 and {
        "name",
        "error",
        "correlation",
        "rate",
        "saturated",
        "dead",
    } <= set(report["layers"][0])
    assert [point["n_steps"] for point in report["sweep"]] == [4, 8, 16, 32, 64]
    network = evsnn.load(tmp_path / "w.h5")
    assert (
        network.n_steps == 8
        and np.array_equal(network.samples.images, IMAGES[:16])
        and np.array_equal(network.samples.labels, labels[:16])
    )
    assert network.input_range == (IMAGES.min(), IMAGES.max())
    assert (
        network.metadata["source"] == "net.onnx"
        and len(network.metadata["source_sha256"]) == 64
        and network.metadata["evsnn"] == evsnn.__version__
    )
    assert network.metadata["calibration_samples"] == 64 and network.metadata["recipe_T08"]
    assert run.main([str(tmp_path / "w.h5"), "--json", "--backend", "reference"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] >= 0.75


def test_the_same_file_again(call, tmp_path):
    """No time, no folder and no chance is in a file."""
    call("--steps", "4")
    first = (tmp_path / "w.h5").read_bytes()
    call("--steps", "4")
    assert (tmp_path / "w.h5").read_bytes() == first


def test_text_says_what_was_picked(call, monkeypatch):
    monkeypatch.setattr("evsnn.conversion.balance.selection.LOSSLESS", 0.0)  # try all
    status, out, _ = call("--steps", "4")
    assert status == 0 and "\x1b" not in out
    for words in (
        "net.onnx",
        "w.h5",
        "T = 4",
        "64 samples",
        "within",
        "error %",
        "worth it",
        "recipe",
        "taken",
    ):
        assert words in out, words
    assert max(map(len, out.splitlines())) <= 160


@pytest.mark.slow
def test_several_steps_and_validation(call, folder, tmp_path, labels):
    """A row a T, and they are what anybody would count."""
    status, out, err = call("--steps", "16,4", "--validate", folder / "val.npz", "--json", "--samples", "3")
    report = json.loads(out)
    assert (
        status == 0
        and err.count("memory: ") == 3
        and [row["n_steps"] for row in report["validation"]] == [16, 4]
    )
    network = evsnn.load(tmp_path / "w.h5")
    assert (
        network.n_steps == 16
        and list(network.step_parameters) == [4, 16]
        and len(network.samples.images) == 3
    )
    for row in report["validation"]:
        result = evsnn.simulate(
            network, IMAGES[:20], n_steps=row["n_steps"], labels=labels[:20], backend="reference"
        )
        assert (
            row["accuracy"] == result.accuracy == row["agreement"]
            and row["ann_accuracy"] == 1
            and row["n_samples"] == 20
        )
        assert row["loss_points"] == pytest.approx(100 * (1 - result.accuracy))
        assert row["sops_per_sample"] == pytest.approx(result.sops_per_sample) and row[
            "mean_rate"
        ] == pytest.approx(result.mean_rate)
        assert row["macs"] == 6 * 2 * 16**2 + 8 * 6 * 7**2 + 288
        assert network.metadata[f"accuracy_T{row['n_steps']:02d}"] == row["accuracy"]
    status, out, _ = call("--steps", "16,4", "--validate", folder / "val.npz")
    assert status == 0 and "loss" in out and "ANN MACs" in out


def test_validation_in_batches(labels, monkeypatch):
    """Samples that do not fit into one batch are counted like those that do, and need no labels."""
    found = conversion.convert_model(make_model(), IMAGES, Options((4,), threshold="max"))
    whole = open_calibration((IMAGES, labels)).fitted((2, 6, 6), 4)
    once = validate(found, whole, targets_of(found, whole), 4)
    monkeypatch.setattr("evsnn.conversion.balance.calibration.BATCH_BYTES", 7 * IMAGES[0].nbytes)
    seen = []
    parts = validate(
        found,
        whole,
        targets_of(found, whole),
        4,
        lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (64, 64) and seen == sorted(seen)
    assert (parts.accuracy, parts.agreement) == (
        once.accuracy,
        once.agreement,
    ) and parts.sops_per_sample == pytest.approx(once.sops_per_sample)
    bare = open_calibration(IMAGES).fitted((2, 6, 6), 4)
    without = validate(found, bare, targets_of(found, bare), 4)
    assert (without.accuracy, without.ann_accuracy, without.loss_points) == (
        None,
        None,
        None,
    ) and without.agreement == once.agreement


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_what_is_validated_is_what_is_stored(call, folder, tmp_path, storage):
    status, out, _ = call("--steps", "8", "--storage", storage, "--validate", folder / "val.npz", "--json")
    network = evsnn.load(tmp_path / "w.h5")
    assert status == 0 and not np.array_equal(
        network.layers[1].weight, conversion.convert(make_model(), IMAGES, n_steps=8).layers[1].weight
    )
    result = evsnn.simulate(network, IMAGES[:20], n_steps=8, backend="reference")
    (row,) = json.loads(out)["validation"]
    assert row["sops_per_sample"] == pytest.approx(result.sops_per_sample, rel=1e-12)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (
            "--threshold max",
            {
                "rule": "max",
                "granularity": "layer",
                "shift": "bias",
                "correction": False,
                "negative_threshold": 0.0,
                "warm_up_steps": 0,
            },
        ),
        (
            "--threshold percentile:99 --granularity channel --shift none",
            {"rule": "percentile:99", "granularity": "channel", "shift": "none"},
        ),
        (
            "--threshold mse",
            {"rule": "mse", "granularity": "channel", "shift": "initial", "correction": True},
        ),
        (
            "--threshold mse --correction off --negative-threshold 0.5 --warm-up 2",
            {"correction": False, "negative_threshold": 0.5, "warm_up_steps": 2},
        ),
        ("--threshold max --correction on --limit 40", {"correction": True}),
    ],
)
def test_options_reach_the_recipe(call, tmp_path, arguments, expected):
    status, out, _ = call("--steps", "4", "--json", *arguments.split())
    report = json.loads(out)
    assert status == 0 and expected.items() <= report["choices"][0]["recipe"].items()
    assert report["n_samples"] == (40 if "--limit" in arguments else 64)
    assert evsnn.load(tmp_path / "w.h5").shift == report["choices"][0]["recipe"]["shift"]


def test_readout_and_max_pools(call, tmp_path):
    assert call("--steps", "4", "--readout", "spikes")[0] == 0
    assert evsnn.load(tmp_path / "w.h5").readout == "spikes"
    for treatment, kind in (("spiking", "maxpool2d"), ("average", "avgpool2d")):
        assert call("--steps", "4", "--max-pool", treatment, model="maxpool.onnx")[0] == 0
        assert kind in [layer.kind for layer in evsnn.load(tmp_path / "w.h5").layers]


def test_channels_last(call, folder, tmp_path):
    """A Keras model's samples are as it reads them; those in the file are as the network does."""
    m = OnnxModel((6, 6, 2), seed=1)
    x = m.op("Relu", m.conv(m.op("Transpose", "x", perm=[0, 3, 1, 2]), 2, 6, pads=[1, 1, 1, 1]))
    onnx.save(m.model(m.head(m.op("GlobalAveragePool", x), 6, 4)), folder / "last.onnx")
    np.savez(folder / "last.npz", images=IMAGES.transpose(0, 2, 3, 1))
    status, out, _ = call(
        "--steps", "4", "--validate", folder / "last.npz", "--json", model="last.onnx", calibration="last.npz"
    )
    network = evsnn.load(tmp_path / "w.h5")
    assert status == 0 and np.array_equal(network.samples.images, IMAGES[:16])
    result = evsnn.simulate(network, IMAGES, n_steps=4, backend="reference")
    assert json.loads(out)["validation"][0]["sops_per_sample"] == pytest.approx(result.sops_per_sample)


def test_scores_by_name(call, refused, folder):
    """Of two outputs, the one that is named; else both, as values."""
    model = make_model()
    hidden = next(node.output[0] for node in model.graph.node if node.op_type == "Conv")
    model.graph.output.append(onnx.helper.make_tensor_value_info(hidden, onnx.TensorProto.FLOAT, None))
    onnx.save(model, folder / "two.onnx")
    assert "first output is not read as scores" not in call("--steps", "4", model="two.onnx")[1]
    status, out, _ = call("--scores", model.graph.output[0].name, "--steps", "4", "--json", model="two.onnx")
    assert status == 0 and len(json.loads(out)["layers"]) == 3
    assert "no such tensor" in refused(1, "--scores", "none", model="two.onnx")


def test_data_free(call, refused, tmp_path):
    """Thresholds from limits; without them the first layer that has none is named."""
    status, out, _ = call(
        "--data-free", "--steps", "8", "--json", "--threshold", "max", calibration=None, model="clipped.onnx"
    )
    report = json.loads(out)
    assert (
        status == 0
        and report["calibration"] is None
        and report["layers"] is None
        and report["sweep"] is None
        and report["held_out"] is None
    )
    network = evsnn.load(tmp_path / "w.h5")
    assert network.samples is None and [
        layer.v_threshold.max() for layer in network.layers if layer.kind == "if"
    ] == [2, 2]
    assert "none: thresholds from limits" in call("--data-free", calibration=None, model="clipped.onnx")[1]
    assert "calibration samples" in refused(1, "--data-free", calibration=None)


def test_an_input_range_makes_integers_possible(call, tmp_path):
    status, _, _ = call("--data-free", "--input-range=-3,3", calibration=None, model="clipped.onnx")
    network = evsnn.load(tmp_path / "w.h5")
    assert status == 0 and network.input_range == (-3, 3) and evsnn.quantize(network).input_low == -2047
    assert call("--input-range", "0,9", "--steps", "4")[0] == 0 and evsnn.load(
        tmp_path / "w.h5"
    ).input_range == (0, 9)


def test_few_samples_are_enough_to_run(call):
    """With fewer than four nothing can be held out; the file is made, and it is said."""
    status, out, err = call("--steps", "4", "--limit", "2", "--json")
    assert status == 0 and json.loads(out)["layers"] is None and "only 2 calibration samples" in err


@pytest.mark.parametrize("kind", ["one.npz", "one.npy", "one.h5"])
@pytest.mark.parametrize("batch_axis", [False, True])
def test_one_sample_with_or_without_its_batch_axis(call, folder, tmp_path, kind, batch_axis):
    image = IMAGES[:1] if batch_axis else IMAGES[0]
    if kind == "one.h5":
        with h5py.File(folder / kind, "w") as file:
            file["images"] = image
    else:
        np.savez(folder / kind, images=image) if kind == "one.npz" else np.save(folder / kind, image)
    status, out, err = call("--steps", "4", "--json", calibration=kind)
    assert status == 0 and json.loads(out)["n_samples"] == 1 and "only 1 calibration sample;" in err
    assert np.array_equal(evsnn.load(tmp_path / "w.h5").samples.images, IMAGES[:1])


def test_many_small_chunks(call, folder):
    """As h5py makes them by itself: more of them than images."""
    with h5py.File(folder / "chunks.h5", "w") as file:
        file.create_dataset("images", data=IMAGES, chunks=(1, 1, 6, 1), compression="gzip")
    assert call("--steps", "4", "--threshold", "max", calibration="chunks.h5")[0] == 0


def test_suspicions_are_said(call, folder):
    np.savez(folder / "pixels.npz", images=(40 * np.abs(IMAGES)).clip(0, 255).astype(np.uint8))
    status, out, err = call("--steps", "4", "--json", calibration="pixels.npz")
    assert (
        status == 0
        and "warning: the calibration samples are whole numbers" in err
        and len(json.loads(out)["warnings"]) >= 1
    )


def test_constant_activations(call, folder, tmp_path):
    """Layers that never fire on any sample get a threshold all the same."""
    np.savez(folder / "zeros.npz", images=0 * IMAGES)
    status, _, err = call("--steps", "4", calibration="zeros.npz")
    assert status == 0 and "same value throughout" in err
    assert all(
        (layer.v_threshold > 0).all() for layer in evsnn.load(tmp_path / "w.h5").layers if layer.kind == "if"
    )


def test_a_plot(call, tmp_path):
    pytest.importorskip("matplotlib")
    status, out, err = call("--steps", "4", "--plot", tmp_path / "a.png")
    assert (
        status == 0
        and "a.png" in err
        and "a.png" not in out
        and (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    )


def test_without_rich(call, monkeypatch):
    monkeypatch.setattr("evsnn.text.has_extra", lambda package: package != "rich")
    monkeypatch.setattr("evsnn.conversion.balance.selection.LOSSLESS", 0.0)
    status, out, _ = call("--steps", "4")
    assert status == 0 and any(line.startswith("T\trecipe\t") for line in out.splitlines())


# What is refused, with nothing written


@pytest.mark.parametrize(
    "arguments",
    [
        "--steps 0",
        "--steps 4,4",
        "--steps x",
        "--threshold best",
        "--threshold percentile:101",
        "--threshold percentile:x",
        "--threshold max:3",
        "--granularity neuron",
        "--shift late",
        "--readout argmax",
        "--max-pool none",
        "--correction maybe",
        "--negative-threshold -1",
        "--negative-threshold nan",
        "--negative-threshold x",
        "--warm-up -1",
        "--warm-up 33",
        "--storage float64",
        "--input-range 1",
        "--input-range 1,0",
        "--input-range 0,inf",
        "--input-range a,b",
        "--limit 0",
        "--samples -1",
        "--plot a.txt",
        "--bogus",
        "--calib f",
        "--data-free",
        "more words",
    ],
)
def test_bad_command_lines(refused, arguments):
    assert "--help" in refused(2, *arguments.split())


def test_bad_command_lines_without_data(refused):
    assert "--help" in refused(2, calibration=None)
    assert "--help" in refused(2, "--data-free", "--plot", "a.png", calibration=None)


CALIBRATIONS = {
    "shape": ({"images": IMAGES[..., :5]}, "expected (n, 2, 6, 6)"),
    "channels last": ({"images": IMAGES.transpose(0, 2, 3, 1)}, "images.transpose(0, 3, 1, 2)"),
    "zero": ({"images": IMAGES[:0]}, "no calibration samples"),
    "nan": (
        {"images": np.where(np.arange(64)[:, None, None, None] == 63, np.nan, IMAGES)},
        "images[63]: images hold NaN",
    ),
    "labels": ({"images": IMAGES, "labels": np.full(64, 4)}, "out of range: got 4, expected 0 to 3"),
    "too few labels": ({"images": IMAGES, "labels": np.zeros(3, int)}, "labels do not fit"),
    "negative labels": (
        {"images": IMAGES, "labels": np.full(64, -1)},
        "out of range: got -1, expected 0 or more",
    ),
    "one-hot labels": ({"images": IMAGES, "labels": np.zeros((64, 4), int)}, "labels.argmax(axis=1)"),
    "labels in a column": ({"images": IMAGES, "labels": np.zeros((64, 1), int)}, "labels.ravel()"),
    "labels of floats": ({"images": IMAGES, "labels": np.zeros(64)}, "labels.astype(int)"),
    "other names": ({"x": IMAGES}, "no array named 'images'"),
    "scale": ({"images": np.sign(IMAGES) * np.float32(3e38)}, "not finite"),
}


def test_flags_that_need_samples(refused, tmp_path):
    for flags in ("--correction on", "--limit 5"):
        assert "needs calibration samples" in refused(2, "--data-free", *flags.split(), calibration=None)
    assert "are one file" in refused(1, "--plot", tmp_path / "a.svg", "-o", tmp_path / "a.svg")


def test_validation_samples_are_looked_at_too(call, folder):
    np.savez(folder / "pixels.npz", images=(40 * np.abs(IMAGES)).clip(0, 255).astype(np.uint8))
    status, _, err = call("--steps", "4", "--validate", folder / "pixels.npz")
    assert status == 0 and "warning: inputs run from 0 to" in err and err.count("scale them") == 1


def test_what_is_no_model_is_refused():
    for thing in (None, object(), 5):
        with pytest.raises(
            evsnn.ModelError,
            match=(
                r"this is not an ONNX model: got .*, expected a path, bytes or onnx.ModelProto. Export it"
                r" first"
            ),
        ):
            convert(thing, IMAGES)


def test_too_few_samples_to_draw(refused):
    assert "got 3, expected at least 4" in refused(1, "--limit", "3", "--plot", "a.png")


@pytest.mark.slow
@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_bad_samples(refused, folder, kind):
    arrays, words = CALIBRATIONS[kind]
    np.savez(folder / "bad.npz", **arrays)
    assert words in refused(1, calibration="bad.npz")
    if kind != "scale":
        assert words.replace("no calibration samples", "samples") in refused(
            1, "--validate", folder / "bad.npz", "--steps", "4"
        )


def test_files_that_are_not_there(refused, folder):
    assert "cannot be opened" in refused(1, model="none.onnx")
    assert "cannot be opened" in refused(1, calibration="none.npz")
    assert "cannot be opened" in refused(1, "--validate", folder / "none.npz")
    (folder / "text.onnx").write_text("hello")
    assert "not an ONNX model" in refused(1, model="text.onnx")


def test_outputs_that_cannot_be(call, refused, folder, tmp_path, monkeypatch):
    for output in (tmp_path, tmp_path / "no" / "w.h5"):
        assert "cannot be written" in refused(1, "-o", output)
    for name in ("net.onnx", "cal.npz"):
        assert "one that is read" in refused(1, "-o", folder / name)
    monkeypatch.setattr("evsnn.output.console.has_extra", lambda package: package != "matplotlib")
    assert 'pip install "evsnn[plot]"' in refused(1, "--plot", tmp_path / "a.png")
    monkeypatch.setattr("evsnn.text.has_extra", lambda package: package != "onnx")
    assert 'pip install "evsnn[onnx]"' in refused(1)


def test_an_old_file_stays(call, tmp_path, folder):
    """A conversion that fails at its very end leaves what was there."""
    (tmp_path / "w.h5").write_bytes(b"old")
    np.savez(folder / "late.npz", images=np.where(np.arange(64)[:, None, None, None] == 63, np.inf, IMAGES))
    assert call("--steps", "4", "--validate", folder / "late.npz")[0] == 1
    assert (tmp_path / "w.h5").read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["w.h5"]
    assert call("--steps", "4")[0] == 0
    assert (tmp_path / "w.h5").read_bytes() != b"old"


# One name for the command and the function


def python(code, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import evsnn",
        "import evsnn, evsnn.convert",
        "import evsnn.convert",
        "import evsnn; evsnn.convert; import evsnn.convert",
        "import evsnn; from evsnn import convert; import evsnn.convert; assert convert is evsnn.convert",
        "import evsnn; from evsnn.convert import main; assert callable(main)",
        "import evsnn; import importlib; importlib.reload(importlib.import_module('evsnn.convert'))",
    ],
)
def test_the_module_is_the_function(imports):
    code = (
        f"{imports}\nassert callable(evsnn.convert) and callable(evsnn.convert.main)\ntry:\n   "
        " evsnn.convert(b'', None)\nexcept evsnn.ModelError as error:\n    print(error)"
    )
    done = python(code, "-W", "error")
    assert done.returncode == 0 and "ONNX" in done.stdout, done.stderr


def test_calling_it(labels):
    network = evsnn.convert(make_model(), calibration=(IMAGES, labels), n_steps=4, threshold="max")
    assert isinstance(network, evsnn.Network) and network.n_steps == 4
    seen = []
    again = evsnn.convert(
        make_model(),
        IMAGES,
        n_steps=(4, 8),
        threshold="mse",
        progress=lambda what, done, total: seen.append(what),
    )
    assert list(again.step_parameters) == [4, 8] and len(set(seen)) >= 3
    with pytest.raises(TypeError, match="steps"):
        evsnn.convert(make_model(), IMAGES, steps=4)
    with pytest.raises(evsnn.InputError, match="expected"):
        evsnn.convert(make_model(), IMAGES[:, :1])


def test_as_a_module_and_as_a_script(call, folder, tmp_path):
    """Neither runs anything twice; runpy would warn."""
    words = [
        str(folder / "net.onnx"),
        "-o",
        str(tmp_path / "m.h5"),
        "--calibration",
        str(folder / "cal.npz"),
        "--steps",
        "4",
        "--threshold",
        "max",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "evsnn.convert", *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert (
        done.returncode == 0
        and "RuntimeWarning" not in done.stderr
        and json.loads(done.stdout)["n_steps"] == 4
    ), done.stderr
    assert evsnn_main(["convert", *words[:2], str(tmp_path / "s.h5"), *words[3:]]) == 0
    assert (tmp_path / "m.h5").read_bytes() == (tmp_path / "s.h5").read_bytes()


# From Python


def test_warnings_samples_and_metadata_are_those_of_the_command(folder, labels, tmp_path):
    """What the command says on stderr is a warning, and the network saves to the command's file."""
    pixels = (40 * np.abs(IMAGES)).clip(0, 255).astype(np.uint8)
    with pytest.warns(UserWarning, match="whole numbers from 0 to .*, like pixels before scaling"):
        network = evsnn.convert(folder / "net.onnx", pixels, n_steps=4, threshold="max")
    assert len(network.samples.images) == 16 and network.samples.labels is None
    with pytest.raises(evsnn.RunError, match="samples is out of range: got -1, expected an integer >= 0"):
        evsnn.convert(folder / "net.onnx", pixels, n_steps=4, threshold="max", samples=-1)
    with pytest.warns(UserWarning):
        again = evsnn.convert(folder / "net.onnx", (pixels, labels), n_steps=4, threshold="max", samples=3)
    np.testing.assert_array_equal(again.samples.labels, labels[:3])
    with pytest.warns(UserWarning):
        assert (
            evsnn.convert(folder / "net.onnx", pixels, n_steps=4, threshold="max", samples=0).samples is None
        )

    np.savez(folder / "pixels.npz", images=pixels)
    words = [str(folder / "net.onnx"), "-o", str(tmp_path / "w.h5"), "--steps", "4", "--threshold", "max"]
    assert evsnn.convert.main([*words, "--calibration", str(folder / "pixels.npz")]) == 0
    by_command = evsnn.load(tmp_path / "w.h5")
    evsnn.save(tmp_path / "p.h5", network)
    by_python = evsnn.load(tmp_path / "p.h5")
    assert by_command.metadata == by_python.metadata and by_python.metadata["source"] == "net.onnx"
    assert by_python.metadata["calibration_samples"] == 64
    np.testing.assert_array_equal(by_command.samples.images, by_python.samples.images)


def test_the_source_of_a_model_in_memory():
    model = make_model()
    with pytest.warns(UserWarning):
        found = [
            evsnn.convert(m, IMAGES[:20], n_steps=4, threshold="max").metadata["source_sha256"]
            for m in (model, model.SerializeToString())
        ]
    assert found[0] == found[1] and len(found[0]) == 64


def test_a_model_that_scales_its_input_reads_any_scale(labels):
    """Neither it, nor samples that labels prove to be right, is told to scale."""
    m = OnnxModel((2, 6, 6), seed=1)
    scaled = m.op("Mul", "x", np.float32(1 / 255))
    x = m.op("Relu", m.conv(scaled, 2, 6, pads=[1, 1, 1, 1]))
    model = m.model(m.head(x, 216, 4))
    pixels = np.random.default_rng(1).integers(0, 256, (64, 2, 6, 6)).astype(np.float32)

    def told(calibration, model=model):
        found = conversion.convert_model(model, calibration, Options((4,), threshold="max"))
        return [line for line in found.warnings if "before scaling" in line]

    assert not told(pixels)
    plain = make_model()
    assert told(pixels, plain)
    graph = import_onnx(plain)
    right = evaluate(graph, pixels).argmax(axis=1)
    assert not told((pixels, right), plain) or (np.bincount(right[48:]).max() > 13)


def test_the_function_shows_its_options_and_can_be_pickled():
    assert pickle.loads(pickle.dumps(evsnn.convert)) is evsnn.convert
    held = pickle.loads(pickle.dumps(functools.partial(evsnn.convert, "m.onnx", n_steps=4)))
    assert held.func is evsnn.convert
    shown = inspect.signature(evsnn.convert).parameters
    assert set(Options.__dataclass_fields__) < set(shown) and shown["threshold"].default == "auto"


def test_simulate_warns_of_a_scale_that_looks_wrong():
    network = evsnn.convert(make_model(), IMAGES, n_steps=4, threshold="max")
    with pytest.warns(UserWarning, match="inputs run from .* scale them if they should be"):
        evsnn.simulate(network, 100 * IMAGES[:2])
    evsnn.simulate(network, IMAGES[:2])
