"""The scripts of examples/paper that need no PyTorch: evaluation by the engine."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import evsnn
from evsnn.conversion.lowering.ann import forward
from evsnn.conversion.lowering.lowering import lower_graph
from evsnn.conversion.onnx.importer import import_onnx

onnx = pytest.importorskip("onnx")
from onnx_builder import OnnxModel  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.paper import evaluate  # noqa: E402
from examples.paper.data import scaled  # noqa: E402
from examples.paper.records import AVERAGE, METHODS, Record  # noqa: E402

N_TEST, LONG = 70, 20
SYSTEM = "resnet20_cifar10"


def tiny(limit):
    """A residual network of a few channels; a Clip at `limit` instead of its ReLUs, if there is one."""
    m = OnnxModel((3, 32, 32), seed=3)

    def relu(x):
        return m.op("Relu", x) if limit is None else m.op("Clip", x, np.float32(0), np.float32(limit))

    x = m.op(
        "AveragePool",
        relu(m.conv("x", 3, 4, pads=[1, 1, 1, 1], strides=[4, 4])),
        kernel_shape=[2, 2],
        strides=[2, 2],
    )
    y = m.conv(relu(m.conv(x, 4, 4, pads=[1, 1, 1, 1], bias=False)), 4, 4, pads=[1, 1, 1, 1], bias=False)
    return m.model(m.head(relu(m.op("Add", y, x)), 4 * 4 * 4))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """MODELS, DATA.npz, and the arrays in it."""
    folder = tmp_path_factory.mktemp("paper")
    rng = np.random.default_rng(5)
    for activation, limit in (("regular", None), ("threshold", 1.0)):
        onnx.save(tiny(limit), folder / f"{SYSTEM}_{activation}.onnx")
    data = {
        f"{split}_images": rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        for split, n in (("train", 48), ("test", N_TEST))
    }
    data |= {f"{split}_labels": rng.integers(0, 10, n) for split, n in (("train", 48), ("test", N_TEST))}
    np.savez(folder / "data.npz", **data)
    return folder, data


def run(folder, runs, *more):
    evaluate.main(
        [
            str(folder),
            "-o",
            str(runs),
            "--cifar10",
            str(folder / "data.npz"),
            "--limit-long",
            str(LONG),
            "--threads",
            "1",
            *more,
        ]
    )


@pytest.fixture(scope="module")
def measured(inputs, tmp_path_factory):
    """RUNS of the shifted and the unshifted threshold network, and of "auto"."""
    runs = tmp_path_factory.mktemp("runs")
    run(inputs[0], runs, "--methods", "TS,T,auto", "--steps", "8,16,64")
    return runs


@pytest.mark.slow
def test_rows_are_what_simulate_gives(inputs, measured):
    data = inputs[1]
    images, labels = scaled(data["test_images"]), data["test_labels"]
    network = evsnn.load(measured / f"{SYSTEM}_threshold_max.h5")
    ann = lower_graph(import_onnx(str(inputs[0] / f"{SYSTEM}_threshold.onnx")))
    wanted_ann = forward(ann, images).argmax(axis=1)
    for method in ("T", "TS"):
        record = Record.open(measured, SYSTEM, method, "engine", "here")
        assert [row["T"] for row in record.rows] == [8, 16, 64]
        assert np.array_equal(record.predictions["ann"], wanted_ann)
        for row in record.rows:
            n = LONG if row["T"] > 32 else N_TEST
            result = evsnn.simulate(
                network.replace(shift=METHODS[method].shift), images[:n], n_steps=row["T"]
            )
            assert np.array_equal(record.predictions[f"T{row['T']}"], result.predictions)
            assert (row["n_samples"], row["accuracy"], row["ann_accuracy"]) == (
                n,
                (result.predictions == labels[:n]).mean(),
                (wanted_ann == labels)[:n].mean(),
            )
            assert row["agreement"] == (result.predictions == wanted_ann[:n]).mean()
            if method == "TS" or row["T"] in (16, 64):  # the end of a run
                assert row["sops"] == pytest.approx(result.sops_per_sample, rel=1e-12)
                assert row["rate"] == pytest.approx(result.mean_rate, rel=1e-12)
            else:
                assert row["sops"] is row["rate"] is None


def test_thresholds_are_the_largest_activations_of_the_training_images(inputs, measured):
    ann, largest = lower_graph(import_onnx(str(inputs[0] / f"{SYSTEM}_threshold.onnx"))), {}

    def observe(name, current, activation):
        largest[name] = max(largest.get(name, 0.0), float(activation.max()))

    drawn = np.random.default_rng(0).permutation(48)[:36]  # a quarter is held out
    forward(ann, scaled(inputs[1]["train_images"][drawn]), observe=observe)
    described = json.loads((measured / f"{SYSTEM}_threshold_ann.json").read_text())
    assert described["largest_activations"] == pytest.approx(
        [largest[layer.name] for layer in ann.network.layers if layer.kind == "if"]
    )
    assert described["macs"] == sum(
        layer.weight.size * positions for layer, positions in zip(_weighted(ann), (64, 16, 16, 1))
    ) - _outside(ann)


def _weighted(ann):
    return [layer for layer in ann.network.layers if layer.kind in ("conv2d", "linear")]


def _outside(ann):
    """Products with padding, counted one by one."""
    outside = 0
    for layer, n_in, stride in zip(_weighted(ann), (32, 4, 4), (4, 1, 1)):
        n_out = n_in // stride
        inside = sum(0 <= stride * y + k - 1 < n_in for y in range(n_out) for k in range(3))
        outside += layer.weight.shape[0] * layer.weight.shape[1] * ((3 * n_out) ** 2 - inside**2)
    return outside


def test_auto_runs_at_its_own_steps_and_says_what_was_chosen(measured):
    record = Record.open(measured, SYSTEM, "auto", "engine", "here")
    assert [row["T"] for row in record.rows] == [4, 8, 16, 32]
    network = evsnn.load(measured / f"{SYSTEM}_threshold_auto.h5")
    assert [row["recipe"] for row in record.rows] == [
        network.metadata[f"recipe_T{T}"] for T in (4, 8, 16, 32)
    ]


def test_the_average_is_one_run_with_the_shift_of_800_steps(inputs, measured, tmp_path):
    run(inputs[0], tmp_path, "--methods", "TS", "--steps", AVERAGE, "--limit-long", "4")
    (row,) = json.loads((tmp_path / f"{SYSTEM}_TS_engine.json").read_text())["rows"]
    found = np.load(tmp_path / f"{SYSTEM}_TS_engine.npz")
    assert found["times"].tolist() == list(range(400, 601, 10))
    network = evsnn.load(measured / f"{SYSTEM}_threshold_max.h5")
    images, labels = scaled(inputs[1]["test_images"][:4]), inputs[1]["test_labels"][:4]
    for i, t in enumerate((400, 600)):
        result = evsnn.simulate(network, images, n_steps=t, shift_steps=800)
        assert np.array_equal(found["T400-600"][-i], result.predictions)
    assert row["T"] == AVERAGE
    assert row["accuracy"] == pytest.approx(np.mean([(p == labels).mean() for p in found["T400-600"]]))


def test_what_is_there_is_not_run_again(inputs, measured, tmp_path, monkeypatch):
    stem = f"{SYSTEM}_TS_engine"
    for path in measured.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(evaluate, "Simulator", None)
    run(inputs[0], tmp_path, "--methods", "TS,T,auto", "--steps", "8,16,64")
    assert (tmp_path / f"{stem}.json").read_bytes() == (measured / f"{stem}.json").read_bytes()


@pytest.fixture
def stopped(monkeypatch):
    """An engine whose second run is interrupted; it counts its runs."""

    class Stopped(evaluate.Simulator):
        runs = 0

        def run(self, *arguments, **options):
            Stopped.runs += 1
            if Stopped.runs == 2:
                raise KeyboardInterrupt
            return super().run(*arguments, **options)

    monkeypatch.setattr(evaluate, "Simulator", Stopped)
    return Stopped


def same_but_for_time(row, other):
    exact = set(row) - {"seconds", "sops", "rate"}
    assert {k: row[k] for k in exact} == {k: other[k] for k in exact}
    for mean in ("sops", "rate"):
        assert row[mean] is other[mean] is None or row[mean] == pytest.approx(other[mean])


def test_a_run_cut_short_goes_on_where_it_was(inputs, measured, tmp_path, stopped):
    with pytest.raises(KeyboardInterrupt):
        run(inputs[0], tmp_path, "--methods", "TS", "--steps", "8")
    assert not (tmp_path / f"{SYSTEM}_TS_engine.json").exists()
    assert len(list(tmp_path.glob("*.part.npz"))) == 1
    run(inputs[0], tmp_path, "--methods", "TS", "--steps", "8")
    assert stopped.runs == 3  # 64 images, nothing, 6 images
    assert not list(tmp_path.glob("*.part*"))
    resumed, straight = (
        Record.open(folder, SYSTEM, "TS", "engine", "here") for folder in (tmp_path, measured)
    )
    assert np.array_equal(resumed.predictions["T8"], straight.predictions["T8"])
    same_but_for_time(resumed.rows[0], straight.rows[0])


def test_a_run_cut_short_starts_anew_where_it_is_to_be_read_at_other_steps(
    inputs, measured, tmp_path, stopped
):
    with pytest.raises(KeyboardInterrupt):
        run(inputs[0], tmp_path, "--methods", "T", "--steps", "16")
    run(inputs[0], tmp_path, "--methods", "T", "--steps", "8,16")
    assert stopped.runs == 4
    resumed, straight = (
        Record.open(folder, SYSTEM, "T", "engine", "here") for folder in (tmp_path, measured)
    )
    for row, other in zip(resumed.rows, straight.rows):
        same_but_for_time(row, other)
        assert np.array_equal(resumed.predictions[f"T{row['T']}"], straight.predictions[f"T{row['T']}"])


def test_another_model_is_not_taken_for_the_one_that_was_run(inputs, measured, tmp_path):
    for path in (*measured.iterdir(), *inputs[0].iterdir()):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    onnx.save(tiny(2.0), tmp_path / f"{SYSTEM}_threshold.onnx")
    with pytest.raises(SystemExit, match="was made from a model of SHA-256"):
        run(tmp_path, tmp_path, "--methods", "TS", "--steps", "8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--systems", "alexnet_cifar10"], "got 'alexnet_cifar10'"),
        (["--systems", "vgg16_cifar100"], "vgg16_cifar100 needs --cifar100"),
        (["--systems", "vgg16_cifar10"], "vgg16_cifar10_regular.onnx: there is no such file"),
        (["--methods", "TS,X"], "got 'X'"),
        (["--steps", "16,0"], "got '0'"),
    ],
)
def test_bad_words_are_named(inputs, tmp_path, capsys, words, said):
    with pytest.raises(SystemExit):
        run(inputs[0], tmp_path, *words)
    assert said in capsys.readouterr().err
