"""What a model's outputs are: one score, values, maps, several of them; and what is left to their reader."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx_builder import OnnxModel

import evsnn
from evsnn import InputError, ModelError
from evsnn.conversion.balance.calibration import open_calibration
from evsnn.conversion.balance.options import Options
from evsnn.conversion.conversion import convert_model
from evsnn.conversion.lowering.ann import forward_all
from evsnn.conversion.lowering.lowering import lower_graph
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.conversion.report.explanation import explain
from evsnn.conversion.report.validation import targets_of, validate
from evsnn.convert import main as convert_command
from evsnn.run import main as run_command

RNG = np.random.default_rng(11)
VECTORS = RNG.random((200, 6), np.float32)
MAPS = RNG.random((40, 2, 8, 8), np.float32)


def mlp(n_out, *ends, **attributes):
    """6 features, 24 hidden neurons, `n_out` values, and operators behind them."""
    m = OnnxModel((6,), seed=2)
    x = m.gemm(m.op("Relu", m.gemm("x", 6, 24)), 24, n_out)
    for op in ends:
        x = m.op(op, x, **attributes)
    return m.model(x)


def detector(post):
    """A trunk, and two heads on maps; `post` brings them to a list of anchors, as detectors do."""
    m = OnnxModel((2, 8, 8), seed=3)
    trunk = m.op("Relu", m.conv("x", 2, 8, pads=[1, 1, 1, 1]))
    small = m.op("Relu", m.conv(trunk, 8, 8, pads=[1, 1, 1, 1], strides=[2, 2]))
    ends = []
    for size in (2, 4):
        heads = [m.conv(x, 8, size * 3, pads=[1, 1, 1, 1]) for x in (trunk, small)]
        if post:
            rows = []
            for head in heads:
                last = m.op("Transpose", head, perm=[0, 2, 3, 1])
                rows.append(m.op("Reshape", last, np.array([0, -1, size])))
            joined = m.op("Concat", *rows, axis=1)
            ends.append(m.op("Softmax", joined, axis=2) if size == 2 else joined)
        else:
            ends += heads
    return several(m, ends)


def several(m, ends):
    model = m.model(ends[0])
    for name in ends[1:]:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return model


def theirs(model, images):
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(None, {session.get_inputs()[0].name: images})
    return dict(zip([output.name for output in session.get_outputs()], values))


# One score


@pytest.mark.parametrize("ends", [("Sigmoid",), ()])
def test_one_score_classifies_at_0(ends, tmp_path):
    model = mlp(1, *ends)
    score = next(iter(theirs(model, VECTORS).values()))[:, 0]
    boundary = 0.5 if ends else 0.0
    labels = (score > boundary).astype(np.int64)
    assert 0 < labels.mean() < 1
    found = convert_model(model, (VECTORS, labels), Options((32,)))
    assert found.network.task == "classify" and found.network.n_classes == 2
    explained = explain(found, sweep=())
    assert explained.ann_accuracy == 1 and explained.accuracy >= 0.9 and explained.agreement >= 0.9
    result = evsnn.simulate(found.network, VECTORS, labels=labels)
    assert result.accuracy > 0.95 and set(result.predictions) == {0, 1}
    with pytest.raises(InputError, match="got 2, expected 0 to 1"):
        convert_model(model, (VECTORS, labels + 1), Options((4,)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_value_without_labels_is_a_value_unless_a_sigmoid_says_otherwise():
    assert evsnn.convert(mlp(1), VECTORS, n_steps=4).task == "regress"
    assert evsnn.convert(mlp(1, "Sigmoid"), VECTORS, n_steps=4).task == "classify"
    assert evsnn.convert(mlp(1), VECTORS, n_steps=4, task="classify").task == "classify"
    assert evsnn.convert(mlp(3), VECTORS, n_steps=4).task == "classify"
    assert evsnn.convert(mlp(6), VECTORS, n_steps=4).task == "regress"  # as many as inputs: an autoencoder
    assert evsnn.convert(mlp(6), (VECTORS, np.arange(200) % 6), n_steps=4).task == "classify"
    with pytest.raises(InputError, match="labels are given, but the first output is not read as scores"):
        evsnn.convert(mlp(3), (VECTORS, np.arange(200) % 3), n_steps=4, task="regress")
    with pytest.raises(ModelError, match="unknown task"):
        evsnn.convert(mlp(3), VECTORS, task="segment")


# Values


@pytest.mark.slow
def test_values_are_judged_by_their_error(tmp_path, capsys):
    """Argmax of a regression says nothing, neither in the choice of a recipe nor in the report."""
    model = mlp(2)
    onnx.save(model, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", VECTORS)
    wanted = next(iter(theirs(model, VECTORS).values()))
    found = convert_model(model, VECTORS, Options((4, 32), task="regress"))
    explained = explain(found, sweep=(8, 128))
    assert explained.agreement is None and explained.loss is None and explained.accuracy is None
    errors = [point.error for point in explained.sweep]
    assert errors[-1] < errors[0] and all(point.agreement is None for point in explained.sweep)
    for point in explained.sweep:
        held_out = slice(150, 200)
        outputs = evsnn.simulate(found.network, VECTORS[held_out], n_steps=point.n_steps).outputs
        difference = outputs - wanted[held_out]
        assert point.rms_error == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-4)
        assert point.largest_error == pytest.approx(np.abs(difference).max(), rel=1e-4)
    good = [point.n_steps for point in explained.sweep if point.error <= 0.05]
    assert explained.worth_n_steps == min(good)
    told = explained.text()
    assert "of the output's spread" in told and "agreement" not in told and "nothing is lost" not in told
    for choice in found.choices.values():
        assert all(c.agreement is None for c in choice.candidates) and "of their spread" in choice.reason

    samples = open_calibration(VECTORS).fitted((6,), 0)
    row = validate(found, samples, targets_of(found, samples), 32)
    assert row.agreement is None and row.accuracy is None and 0 < row.error < 0.1

    words = [str(tmp_path / "m.onnx"), "-o", str(tmp_path / "w.h5"), "--calibration", str(tmp_path / "x.npy")]
    words += ["--task", "regress", "--validate", str(tmp_path / "x.npy"), "--plot", str(tmp_path / "p.png")]
    assert convert_command([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["task"] == "regress" and report["held_out"]["agreement"] is None
    assert report["validation"][0]["agreement"] is None and report["validation"][0]["rms_error"] > 0
    assert convert_command(words) == 0
    assert "regress: 2 values" in capsys.readouterr().out
    assert run_command([str(tmp_path / "w.h5")]) == 0
    assert "2 values per sample" in capsys.readouterr().out


def test_no_t_is_worth_it_where_values_are_far_off():
    found = convert_model(mlp(2), VECTORS, Options((1,), threshold="percentile:50", task="regress"))
    explained = explain(found, sweep=(1, 2))
    assert explained.worth_n_steps is None
    assert "no T of the sweep is worth it" in explained.advice[1]


# Several outputs


def test_heads_on_maps_are_read_out_by_name(tmp_path, capsys):
    model = detector(post=False)
    found = convert_model(model, MAPS, Options((64,), threshold="max"))
    names = [output.name for output in model.graph.output]
    assert [layer.name for layer in found.network.outputs] == names and found.network.task == "regress"
    wanted = theirs(model, MAPS)
    ours = forward_all(found.ann, MAPS)
    result = evsnn.simulate(found.network, MAPS)
    for name in names:
        largest = np.abs(wanted[name]).max()
        assert np.abs(ours[name] - wanted[name]).max() <= 1e-5 * largest
        assert np.abs(result.named_outputs[name] - wanted[name]).max() < 0.2 * largest
    explained = explain(found, sweep=())
    assert set(explained.errors) == set(names) and max(e.relative for e in explained.errors.values()) < 0.2
    assert all(name in explained.text() for name in names)

    onnx.save(model, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", MAPS)
    words = [str(tmp_path / "m.onnx"), "-o", str(tmp_path / "w.h5"), "--calibration", str(tmp_path / "x.npy")]
    assert convert_command([*words, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["outputs"]) == names
    assert run_command([str(tmp_path / "w.h5"), "--outputs", str(tmp_path / "o.npz")]) == 0
    with np.load(tmp_path / "o.npz") as stored:
        assert sorted(stored) == sorted(names)


def test_anchors_are_left_to_their_reader():
    """Transpose, Reshape, Concat and Softmax behind heads: the maps before them, from which they follow."""
    model = detector(post=True)
    found = convert_model(model, MAPS, Options((8,), threshold="max"))
    classes, boxes = (output.name for output in model.graph.output)
    names = [f"{classes}.0", f"{classes}.1", f"{boxes}.0", f"{boxes}.1"]
    assert [layer.name for layer in found.network.outputs] == names
    notes = " ".join(found.notes)
    assert (
        f"output '{classes}': Transpose, Reshape, Concat, Softmax at the end are left to its reader" in notes
    )
    ours = forward_all(found.ann, MAPS)
    for end, size in ((classes, 2), (boxes, 4)):
        rows = [ours[f"{end}.{i}"].transpose(0, 2, 3, 1).reshape(40, -1, size) for i in range(2)]
        joined = np.concatenate(rows, axis=1)
        if end == classes:
            joined = np.exp(joined) / np.exp(joined).sum(axis=2, keepdims=True)
        np.testing.assert_allclose(joined, theirs(model, MAPS)[end], atol=1e-5)


def test_the_scores_are_named_first():
    """Of several outputs, the one that classifies; the others come with it."""
    m = OnnxModel((6,), seed=4)
    hidden = m.op("Relu", m.gemm("x", 6, 24))
    value, scores = m.gemm(hidden, 24, 1), m.gemm(hidden, 24, 3)
    model = several(m, [value, scores])
    labels = np.arange(200) % 3
    both = convert_model(model, (VECTORS, labels), Options((8,)), output=(scores, value))
    assert both.network.task == "classify" and both.network.n_classes == 3
    assert [layer.name for layer in both.network.outputs] == [scores, value]
    explained = explain(both, sweep=())
    assert explained.agreement is not None and set(explained.errors) == {scores, value}
    only = convert_model(model, VECTORS, Options((8,)), output=scores)
    assert [layer.name for layer in only.network.outputs] == ["readout"]
    with pytest.raises(InputError, match="a label is out of range"):  # the first output is one score
        convert_model(model, (VECTORS, labels), Options((8,)))


def test_spikes_are_read_out_of_several_outputs():
    model = detector(post=False)
    found = convert_model(model, MAPS, Options((32,), threshold="max", readout="spikes"))
    result = evsnn.simulate(found.network, MAPS[:4])
    wanted = forward_all(found.ann, MAPS[:4])
    for name, values in result.named_outputs.items():
        positive = np.maximum(wanted[name], 0)
        assert np.abs(values - positive).max() < 0.25 * positive.max()


# What is computed from the scores


def embedding(m):
    hidden = m.op("Relu", m.gemm("x", 6, 24))
    weight = (np.arange(72) % 7 - 3).reshape(24, 3).astype(np.float32)
    return m.op("Add", m.op("MatMul", hidden, weight), np.ones(3, np.float32))


def boxes_of_anchors(m):
    """Softmax for each anchor, and boxes from centres and sizes: as single shot detectors export them."""
    hidden = m.op("Relu", m.conv("x", 1, 8, pads=[1, 1, 1, 1]))
    rows = []
    for size in (2, 4):
        head = m.conv(hidden, 8, size * 3, pads=[1, 1, 1, 1])
        rows.append(m.op("Reshape", m.op("Transpose", head, perm=[0, 2, 3, 1]), np.array([0, -1, size])))
    scores = m.op("Mul", m.op("Softmax", rows[0], axis=2), np.float32(2))
    centre, size = (
        m.op("Slice", rows[1], np.array([low]), np.array([low + 2]), np.array([2])) for low in (0, 2)
    )
    size = m.op("Div", m.op("Exp", size), np.float32(2))
    return [scores, m.op("Concat", m.op("Sub", centre, size), m.op("Add", centre, size), axis=2)]


def shares(m):
    values = embedding(m)
    return m.op("Div", values, m.op("ReduceSum", values, np.array([1]), keepdims=1))


def normalised(m):
    values = embedding(m)
    return m.op("Div", values, m.op("ReduceL2", values, axes=[1], keepdims=1))


POST = {
    "of anchors": (boxes_of_anchors, (1, 4, 4), 2),
    "exponents": (lambda m: m.op("Exp", embedding(m)), (6,), 1),
    "a length of 1": (normalised, (6,), 1),
    "a share": (shares, (6,), 1),
    "a softmax that is scaled": (
        lambda m: m.op("Mul", m.op("Softmax", embedding(m), axis=1), np.float32(3)),
        (6,),
        1,
    ),
    "beside other scores": (lambda m: [m.gemm("x", 6, 2), m.op("Sqrt", m.gemm("x", 6, 2))], (6,), 2),
}


@pytest.mark.parametrize("case", POST)
def test_the_hint_names_the_tensors_before_post_processing(case):
    """And these tensors are converted: a hint that is refused next is none."""
    build, shape, count = POST[case]
    m = OnnxModel(shape, seed=5)
    ends = build(m)
    model = several(m, ends if isinstance(ends, list) else [ends])
    with pytest.raises(ModelError, match=r"End before it, --scores (\S+) \(output=") as error:
        import_onnx(model)
    names = str(error.value).partition("--scores ")[2].partition(" ")[0].split(",")
    assert len(names) == count and "train again" not in str(error.value)
    ann = lower_graph(import_onnx(model, output=names))
    assert len(ann.network.outputs) == count
    sums = {name: node.op_type for node in model.graph.node for name in node.output}
    assert case not in ("exponents", "a length of 1") or [sums[name] for name in names] == ["Add"]


def test_what_stands_before_layers_is_not_post_processing():
    m = OnnxModel((6,), seed=5)
    for op in ("Exp", "Softmax", "Tanh"):
        x = m.op(op, m.gemm("x", 6, 8))
        with pytest.raises(ModelError, match="not converted") as error:
            import_onnx(m.model(m.op("Sqrt", m.gemm(m.op("Relu", x), 8, 3))))
        assert "--scores" not in str(error.value) and f"({op})" in str(error.value)


def test_softmaxes_that_are_not_over_all_scores():
    m = OnnxModel((1, 4, 4), seed=5)
    rows = m.op("Reshape", m.conv("x", 1, 4), np.array([0, -1, 2]))
    with pytest.raises(ModelError, match=f"does not run over all scores.*--scores {rows} "):
        lower_graph(import_onnx(m.model(m.op("Softmax", rows, axis=2)), output=None))


# What is left out at the end


@pytest.mark.parametrize("ends", [("Sigmoid",), ("Tanh",), ("HardSigmoid",), ("Sigmoid", "Identity")])
def test_operators_that_bring_values_to_a_range_are_left_to_the_reader(ends):
    graph = import_onnx(mlp(3, *ends))
    assert ends[0] in graph.left and any(f"{ends[0]}" in note for note in graph.notes)
    assert "Sigmoid" not in {node.op for node in graph.nodes}


def test_sigmoids_inside_stay_refused():
    m = OnnxModel((6,))
    with pytest.raises(ModelError, match="Sigmoid"):
        import_onnx(m.model(m.gemm(m.op("Sigmoid", m.gemm("x", 6, 4)), 4, 2)))


def test_the_choice_of_a_class_is_left_out():
    model = mlp(3, "ArgMax", axis=1)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    graph = import_onnx(model)
    assert graph.shapes[graph.output] == (3,)
    assert any("the choice of a class is left out" in note for note in graph.notes)


def test_an_output_that_is_another_once_more_is_left_out():
    m = OnnxModel((6,))
    logits = m.gemm(m.op("Relu", m.gemm("x", 6, 8)), 8, 2)
    model = several(m, [logits, m.op("Sigmoid", logits)])
    graph = import_onnx(model)
    assert list(graph.outputs) == [logits]
    assert any("it is read from the same values as" in note for note in graph.notes)


# A changed model


def test_the_report_is_against_the_model_that_was_given():
    """With average pools in place of max pools the ANN is another one, and that is in the loss."""
    m = OnnxModel((2, 8, 8), seed=5)
    x = m.op("Relu", m.conv("x", 2, 8, pads=[1, 1, 1, 1]))
    x = m.op("MaxPool", x, kernel_shape=[4, 4], strides=[4, 4])
    x = m.op("Relu", m.conv(x, 8, 8, pads=[1, 1, 1, 1]))
    model = m.model(m.head(x, 32, 4))
    images = RNG.normal(size=(256, 2, 8, 8)).astype(np.float32)
    wanted = next(iter(theirs(model, images).values())).argmax(axis=1)
    found = convert_model(model, images, Options((64,), threshold="max", max_pool="average"))
    assert found.source is not None
    np.testing.assert_array_equal(found.targets.predictions, wanted[192:])
    kept = (forward_all(found.ann, images[192:])["readout"].argmax(axis=1) == wanted[192:]).mean()
    assert kept < 0.95
    explained = explain(found, samples=64, sweep=())
    predicted = evsnn.simulate(found.network, images[192:]).predictions
    assert explained.agreement == (predicted == wanted[192:]).mean() < 0.95
    assert f"keeps {100 * kept:.2f} % of the given model's predictions" in explained.text()
    samples = open_calibration((images, wanted)).fitted((2, 8, 8), 4)
    row = validate(found, samples, targets_of(found, samples), 64)
    assert row.ann_accuracy == 1 and row.accuracy < 0.95
