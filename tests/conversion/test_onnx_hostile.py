"""Models that are refused: each with one line that says what, where and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import model, node

from evsnn.conversion.onnx import constants as folding
from evsnn.conversion.onnx.evaluate import evaluate
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.errors import ModelError

W = {"w": np.ones((4, 3), np.float32)}


def good() -> onnx.ModelProto:
    return model([node("MatMul", "x w", "h"), node("Relu", "h")], (4,), W)


def refused(source, match: str, **options) -> ModelError:
    with pytest.raises(ModelError, match=match) as caught:
        import_onnx(source, **options)
    text = str(caught.value)
    assert "\n" not in text and caught.value.where
    assert len(text) < 700
    return caught.value


def test_what_is_good_is_read():
    assert evaluate(import_onnx(good()), np.ones((2, 4))).tolist() == [[4, 4, 4]] * 2


# Files


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 50, b"not a model", b"\x89HDF\r\n\x1a\n" + bytes(99), b"PK\3\4" + bytes(40), b"\x08\x08"],
)
def test_not_onnx(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refused(path, "not an ONNX model")


def test_not_a_file(tmp_path):
    refused(tmp_path, "cannot be opened: got not an ordinary file")
    refused(tmp_path / "none.onnx", "cannot be opened: got No such file")
    refused("a\0b", "cannot be opened")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refused(tmp_path / "pipe", "not an ordinary file")


def test_truncated_anywhere():
    """A model cut short is refused, or was not needed to its end; nothing else happens."""
    data = good().SerializeToString()
    read = 0
    for n in range(len(data)):
        try:
            import_onnx(data[:n])
            read += 1
        except ModelError:
            pass
    assert read < 20


def test_damaged_anywhere():
    """Any one byte may be anything: the model is read, or refused in one line."""
    rng = np.random.default_rng(5)
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1], strides=[1, 1]),
        node("Clip", "c low high", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2]),
        node("Shape", "p", "s"),
        node("Gather", "s zero", "n"),
        node("Concat", "n rest", "t", axis=0),
        node("Reshape", "p t", "f"),
        node("Gemm", "f v", transB=1),
    ]
    stored = {
        "w": np.ones((2, 1, 3, 3), np.float32),
        "v": np.ones((3, 18), np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "zero": np.array([0]),
        "rest": np.array([-1]),
    }
    data = model(nodes, (1, 4, 4), stored).SerializeToString()
    import_onnx(data)
    refusals = 0
    for _ in range(1500):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        try:
            import_onnx(bytes(damaged))
        except ModelError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals > 300


@pytest.mark.parametrize(
    "versions, match",
    [
        ([29], "opset that is not read: got 29"),
        ([6], "got 6"),
        ([10**9], "not read"),
        ([], "does not say which opset"),
        ([13, 17], "does not say which"),
    ],
)
def test_opsets(versions, match):
    proto = good()
    del proto.opset_import[:]
    proto.opset_import.extend(helper.make_opsetid("", v) for v in versions)
    refused(proto, match)


def test_ir_versions():
    for version in (2, 15, 1 << 40):
        proto = good()
        proto.ir_version = version
        refused(proto, "ONNX version that is not read")


# Data outside the file


def external(folder, location, offset=None, length=None, n_bytes=48):
    proto = good()
    tensor = proto.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path, data[:n_bytes]


def test_data_beside_the_model(tmp_path):
    (tmp_path / "parts").mkdir()
    for location, options in (("weights.bin", {}), ("parts/weights.bin", {"offset": 16, "length": 48})):
        path, data = external(tmp_path, location, **options)
        (tmp_path / location).write_bytes(bytes(options.get("offset", 0)) + data)
        assert import_onnx(path).constants["w"].tolist() == W["w"].tolist()
        refused(path.read_bytes(), "whose folder is not known")
        (tmp_path / location).write_bytes(bytes(options.get("offset", 0)) + data[:-1])
        refused(path, "too short: got .* bytes, expected at least")
    refused(external(tmp_path, "missing.bin")[0], "cannot be opened")
    refused(external(tmp_path, "parts")[0], "cannot be opened: got 'parts': not an ordinary file")


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "/etc/passwd",
        "parts/../../secret.bin",
        "..",
        "",
        "a\\b",
        "link.bin",
        "folder/secret.bin",
        "x\0y",
    ],
)
def test_data_outside_the_folder(tmp_path, location):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    (inside / "link.bin").symlink_to("../secret.bin")
    (inside / "folder").symlink_to("..")
    refused(external(inside, location)[0], "lies outside the model's folder")


@pytest.mark.parametrize(
    "place",
    [
        {"offset": -1},
        {"offset": "1e3"},
        {"length": 47},
        {"length": "9" * 30},
        {"offset": "9" * 18},
        {"offset": "²"},
    ],
)
def test_data_in_impossible_places(tmp_path, place):
    path, data = external(tmp_path, "weights.bin", **place)
    (tmp_path / "weights.bin").write_bytes(data)
    refused(path, "impossible place|too short")


# Tensors


def with_weight(**fields):
    proto = good()
    for name, value in fields.items():
        if name == "dims":
            del proto.graph.initializer[0].dims[:]
            proto.graph.initializer[0].dims.extend(value)
        else:
            setattr(proto.graph.initializer[0], name, value)
    return proto


@pytest.mark.parametrize(
    "fields, match",
    [
        ({"dims": [4, 4]}, "does not hold what it declares: got 48 bytes, expected 64"),
        ({"dims": [1 << 40, 1 << 40]}, "does not hold what it declares"),
        ({"dims": [-4, -3]}, "impossible shape"),
        ({"dims": [1] * 9}, "impossible shape"),
        ({"data_type": TensorProto.COMPLEX64}, "type that is not read: got COMPLEX64"),
        ({"data_type": TensorProto.STRING}, "STRING"),
        ({"data_type": 0}, "UNDEFINED"),
        ({"data_type": 999}, "type 999"),
        ({"data_type": TensorProto.INT32}, "mixes the samples of a batch or types|cannot be computed"),
    ],
)
def test_tensors(fields, match):
    refused(with_weight(**fields), match)


def test_nan_and_infinity():
    for value in (np.nan, np.inf, -np.inf):
        weight = np.ones((4, 3), np.float32)
        weight[1, 2] = value
        refused(model([node("MatMul", "x w")], (4,), {"w": weight}), "NaN or infinity: got 1 in 'w'")
    refused(model([node("MatMul", "x w")], (4,), {"w": np.full((4, 3), 1e300)}), "NaN or infinity: got 12")
    refused(model([node("Clip", "x - w")], (4,), {"w": np.float32(np.nan)}), "NaN")


def test_quantised_models():
    """Those that compute with integers; what a QDQ model means is read (test_quantised_models.py)."""
    scale = {"s": np.float32(0.1)}
    refused(
        model([helper.make_node("QLinearAdd", ["x", "s"], ["y"], domain="com.microsoft")], (4,), scale),
        "a quantised model that computes with integers",
    )


# Inputs, outputs and shapes


def value(name, dims, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, dims)


def test_inputs():
    add = [node("Add", "x z")]
    refused(
        model(add, (4,), inputs=[value("x", ["N", 4]), value("z", ["N", 4])]),
        "needs one input: got 2: 'x', 'z'",
    )
    refused(model([node("Relu", "w")], (4,), W, inputs=[]), "needs one input: got none")
    for dims, match in (
        (["N", "C"], "dynamic axis beside the batch's: got axis 1 named 'C'"),
        (["N", 3, None], "got axis 2. Export"),
        (["N"], "no axes but the batch's"),
        ([], "no axes"),
        (["N", 0], "without elements: got size 0 of axis 1"),
    ):
        refused(model([node("Relu", "x")], (4,), inputs=[value("x", dims)]), match)
    refused(model([node("Relu", "x")], (4,), inputs=[value("x", ["N", 1 << 20, 1 << 20])]), "too large")
    refused(
        model([node("Relu", "x")], (4,), inputs=[value("x", ["N", 4], TensorProto.INT64)]),
        "must be a tensor of floats",
    )
    refused(
        model(
            [node("Relu", "x")],
            (4,),
            inputs=[helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [4])],
        ),
        "must be a tensor of floats: got sequence_type",
    )


def test_initializers_listed_as_inputs_are_none():
    graph = import_onnx(
        model([node("MatMul", "x w")], (4,), W, inputs=[value("x", [None, 4]), value("w", [4, 3])])
    )
    assert graph.input == "x"


def test_outputs():
    two = [node("Relu", "x", "a"), node("Relu", "a", "b")]
    both = model(two, (4,), outputs=[value("a", None), value("b", None)])
    assert import_onnx(both).outputs == {"a": "a", "b": "b"} and len(import_onnx(both).nodes) == 2
    assert len(import_onnx(both, output="a").nodes) == 1
    assert list(import_onnx(both, output=("b", "a")).outputs) == ["b", "a"]
    refused(both, "named twice", output=("a", "a"))
    refused(both, "or none is", output=())
    refused(both, "are not names: got 3, expected str", output=3)
    refused(both, "are not names: got 'a', 3", output=["a", 3])
    refused(model(two, (4,), outputs=[value("b", None, TensorProto.INT64)]), "no output of floats")
    refused(model(two, (4,), outputs=[value("nothing", None)]), "no node makes its output")
    refused(good(), "no such tensor: got 'z', expected the output of a node: 'y'", output="z")
    refused(model([node("Identity", "x")], (4,)), "no operator that does anything")
    refused(model([node("Relu", "w", "y")], (4,), W, inputs=[value("x", ["N", 4])]), "needs one input")


BATCH = {
    "Reshape [1, -1]": ("Reshape", {"t": np.array([1, -1])}, {}),
    "Reshape [-1]": ("Reshape", {"t": np.array([-1])}, {}),
    "Reshape [-1, 4]": ("Reshape", {"t": np.array([-1, 4])}, {}),
    "Reshape wrong": ("Reshape", {"t": np.array([-1, 7])}, {}),
    "Reshape -2": ("Reshape", {"t": np.array([-2, -3])}, {}),
    "Transpose": ("Transpose", {}, {"perm": [1, 0, 2, 3]}),
    "Transpose without perm": ("Transpose", {}, {}),
    "Flatten 0": ("Flatten", {}, {"axis": 0}),
    "Flatten 2": ("Flatten", {}, {"axis": 2}),
    "Squeeze": ("Squeeze", {"t": np.array([0])}, {}),
    "Unsqueeze": ("Unsqueeze", {"t": np.array([0])}, {}),
    "ReduceMean": ("ReduceMean", {}, {"axes": [0]}),
    "ReduceMean all": ("ReduceMean", {}, {}),
    "Concat": ("Concat", {}, {"axis": 0}),
    "Softmax": ("Softmax", {}, {"axis": 0}),
    "Pad": ("Pad", {"t": np.array([1, 0, 0, 0, 0, 0, 0, 0])}, {}),
    "Add": ("Add", {"t": np.ones((2, 2, 4, 4), np.float32)}, {}),
    "Add rank": ("Add", {"t": np.ones((1, 1, 1, 1, 1), np.float32)}, {}),
}


@pytest.mark.parametrize("case", BATCH, ids=str)
def test_what_mixes_the_samples_of_a_batch(case):
    op, constants, attributes = BATCH[case]
    refused(
        model(
            [node("Relu", "x", "r"), node(op, f"r {'t' if constants else ''}", **attributes)],
            (2, 4, 4),
            constants,
        ),
        "batch",
    )


def test_batch_sizes_do_not_become_weights():
    nodes = [
        node("Relu", "x", "r"),
        node("Shape", "r", "s"),
        node("Cast", "s", "f", to=1),
        node("Gather", "f zero", "n"),
        node("Div", "r n"),
    ]
    refused(model(nodes, (4,), {"zero": np.array(0)}), "depends on the batch's size")
    assert import_onnx(model(nodes, (4,), {"zero": np.array(1)})).constants


# Operators


def test_operators_that_are_not_converted():
    for op, hint in (
        ("Sigmoid", "Use Relu"),
        ("Tanh", "Use Relu"),
        ("Gelu", "Use Relu"),
        ("Erf", "Use Relu"),
        ("LSTM", "Recurrent"),
        ("GridSample", "strided"),
        ("LayerNormalization", "use BatchNormalization"),
        ("Attention", "Attention is not"),
        ("Sqrt", "part of a norm"),
        ("Det", "Build that part"),
    ):
        error = refused(
            model([helper.make_node(op, ["x"], ["y"], name="blocks/3/act")], (4,), opset=20),
            f"net:/blocks/3/act .{op}.: the operator is not converted",
        )
        assert hint in str(error)
    refused(model([helper.make_node("LSTM", ["x"], ["y"])], (4,)), "net:/LSTM_0 .LSTM.: the operator")
    several = [node("Elu", "x", "s"), node("LSTM", "s", "r"), node("Tanh", "r", "t"), node("LRN", "t", "n")]
    error = refused(
        model([*several, node("TopK", "n")], (4,)), "LSTM_1 .LSTM.: the operator is not converted"
    )
    assert "got 'LSTM', and Elu, Tanh, LRN, TopK" in str(error)
    assert "Recurrent layers" in str(error)
    refused(model([node("LRN", "x", size=3)], (4, 5, 5)), "Local response normalization")
    refused(
        model([helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft")], (4,)),
        "no operator of the ONNX standard: got 'FusedConv' of domain 'com.microsoft'",
    )


@pytest.mark.parametrize(
    "op, hint",
    [
        ("TreeEnsembleClassifier", "have no neurons: train a network"),
        ("TreeEnsembleRegressor", "have no neurons: train a network"),
        ("SVMClassifier", "have no neurons: train a network"),
        ("LinearRegressor", "nothing to convert"),
        ("Normalizer", "Do it to the samples"),
        ("OneHotEncoder", "Do it to the samples"),
    ],
)
def test_classical_models(op, hint):
    """They are of the ONNX standard, so that another export does not help."""
    stated = helper.make_node(op, ["x"], ["y"], domain="ai.onnx.ml")
    error = refused(model([stated], (4,)), f"{op}. *: the operator of classical models is not converted")
    assert hint in str(error) and "custom" not in str(error)


def test_names_in_hints_are_short_and_printable():
    name = "a long name, number {}\n"
    nodes = [helper.make_node("MatMul", ["x", "w"], [name.format(i)]) for i in range(40)]
    nodes += [helper.make_node("Exp", [name.format(i)], [f"y{i}"]) for i in range(40)]
    outputs = [value(f"y{i}", None) for i in range(40)]
    refused(
        model(nodes, (4,), W, outputs=outputs), r"--scores with the 40 tensors .* 'a long name, number 0\\n'"
    )
    refused(model(nodes[:41], (4,), W, outputs=outputs[:1]), r"--scores 'a long name, number 0\\n' ")


def test_batch_norms_without_statistics():
    """PyTorch writes track_running_stats=False as means over the batch, and a batch norm that reads them."""
    stored = dict.fromkeys("ab", np.ones(4, np.float32)) | {"w": np.ones((4, 4), np.float32)}
    nodes = [
        node("MatMul", "x w", "h"),
        node("ReduceMean", "h", "m", axes=[0], keepdims=0),
        node("Sub", "h m", "d"),
        node("Mul", "d d", "s"),
        node("ReduceMean", "s", "v", axes=[0], keepdims=0),
        node("BatchNormalization", "h a b m v"),
    ]
    error = refused(model(nodes, (4,), stored, opset=17), "BatchNormalization. *: is a batch norm without")
    assert "track_running_stats=True, and call model.eval" in str(error)


@pytest.mark.parametrize(
    "attributes, message",
    [
        (
            {"strides": [1 << 24, 1]},
            "strides is not usable: got .16777216, 1., expected 2 integers from 1 to 16777215$",
        ),
        (
            {"strides": [1, 1, 1]},
            "strides is not usable: got .1, 1, 1., expected 2 integers .*: maps are 2-D",
        ),
        ({"pads": [0, 0, -1, 0]}, "pads is not usable: got .0, 0, -1, 0., expected 4 integers from 0"),
    ],
)
def test_the_range_of_a_window_is_named(attributes, message):
    stored = {"w": np.ones((2, 3, 1, 1), np.float32)}
    refused(model([node("Conv", "x w", **attributes)], (3, 4, 4), stored), message)


@pytest.mark.parametrize(
    "nodes, stored, message",
    [
        ([node("Add", "x b")], {"b": np.ones(5, np.float32)}, "do not fit each other: .N, 2, 4, 4., .5."),
        ([node("PRelu", "x b")], {"b": np.ones(5, np.float32)}, "do not fit each other: .N, 2, 4, 4., .5."),
        (
            [node("Conv", "x b", "c"), node("Concat", "x c", axis=1)],
            {"b": np.ones((2, 2, 3, 3), np.float32)},
            "do not fit each other: .N, 2, 4, 4., .N, 2, 2, 2.",
        ),
        ([node("Concat", "x x")], {}, "no attribute 'axis'"),
        (
            [node("Pad", "x b")],
            {"b": np.array([0, 0, -2, 0, 0, 0, -2, 0])},
            "empty: got .*expected sizes from 1",
        ),
        ([node("Reshape", "x b")], {"b": np.array([-1, 31])}, r"into \[-1, 31\], expected .* 32 numbers"),
        ([node("Reshape", "x b")], {"b": np.array([0, -1, -1])}, "expected .*at most one of them -1"),
        ([node("Reshape", "x b")], {"b": np.array([-1])}, "mixes the samples.*Keep the first axis"),
    ],
)
def test_shapes_that_do_not_fit_are_named(nodes, stored, message):
    assert "ValueError" not in str(refused(model(nodes, (2, 4, 4), stored), message))


@pytest.mark.parametrize(
    "output, message",
    [
        ("x", "is not computed: got 'x', which is an input, expected the output of a node: 'y'"),
        ("w", "is not computed: got 'w', which is a weight"),
        ("HID", "no such tensor: got 'HID', expected the output of a node: 'hidden'$"),
        ("z", "no such tensor: got 'z', expected the output of a node: 'y'$"),
    ],
)
def test_names_of_no_tensor(output, message):
    refused(model([node("MatMul", "x w", "hidden"), node("Relu", "hidden")], (4,), W), message, output=output)


def test_an_output_that_no_node_makes():
    given = model([node("Relu", "x")], (4,))
    given.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, None))
    refused(given, "no node makes its output: got 'x'. Name the others: --scores y ")
    assert import_onnx(given, output="y")


@pytest.mark.parametrize(
    "stated",
    [
        node("LeakyRelu", "x", alpha=float("nan")),
        node("Clip", "x", min=0.0, max=float("nan")),
        helper.make_node(
            "Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0, float("nan")], scale=[1.0]
        ),
    ],
)
def test_attributes_that_are_no_numbers(stated):
    refused(model([stated], (4,), opset=10), "attribute '(alpha|max|offset)' is NaN: expected numbers")


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "Softmax"])
def test_gates_are_no_activations(op):
    """A ReLU in place of the sigmoid of a gate would be refused next."""
    stored = {"w": np.ones((4, 4), np.float32)}
    gate = [node("Relu", "x", "r"), node("MatMul", "r w", "h"), node(op, "h", "s"), node("Mul", "r s", "g")]
    error = refused(
        model([*gate, node("MatMul", "g w")], (4,), stored), f"operator is not converted: got '{op}'"
    )
    assert "squeeze-and-excitation" in str(error) and "Relu" not in str(error)
    own = [node("MatMul", "x w", "h"), node("Sigmoid", "h", "s"), node("Mul", "h s", "g")]
    assert "Use Relu" in str(refused(model([*own, node("MatMul", "g w")], (4,), stored), "got 'Sigmoid'"))


def test_control_flow():
    inner = helper.make_graph([node("Relu", "x", "z")], "inner", [], [value("z", None)])
    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)]
    refused(model(nodes, (4,), {"yes": np.bool_(True)}), "Control flow is not converted")


def test_what_is_not_linear():
    own = [node("ReduceMean", "x", "m", axes=[1], keepdims=1), node("Div", "x m", "d"), node("Relu", "d")]
    refused(model(own, (4,)), "not linear.*Norms of each sample.*BatchNormalization in its place")
    refused(model([node("Relu", "x", "r"), node("Mul", "r x")], (4,)), "not linear.*squeeze-and-excitation")
    refused(model([node("Div", "w x")], (4,), {"w": np.ones(4, np.float32)}), "divides by a tensor")
    refused(model([node("Relu", "x", "r"), node("MatMul", "r x")], (4, 4)), "Attention is not converted")
    refused(
        model(
            [node("Relu", "x", "r"), node("Concat", "r w", axis=1)], (4,), {"w": np.ones((1, 4), np.float32)}
        ),
        "joins a constant.*Give it as channels of the samples",
    )
    refused(model([node("Softmax", "x", axis=1)], (4, 4), opset=11), "several axes at once")
    refused(
        model(
            [node("BatchNormalization", "x a b c d", spatial=0)],
            (4,),
            dict.fromkeys("abcd", np.ones(4, np.float32)),
            opset=8,
        ),
        "batch norm per element",
    )
    refused(
        model([node("MatMul", "w x")], (4, 4), {"w": np.ones((1, 4, 4), np.float32)}),
        "first input must depend",
    )
    refused(
        model([node("Conv", "w x")], (2, 3, 3), {"w": np.ones((1, 2, 5, 5), np.float32)}),
        "first input must depend",
    )


@pytest.mark.parametrize(
    "op, shape, attributes, weights, match",
    [
        ("Conv", (2, 5, 5, 5), {}, {"w": np.ones((3, 2, 3, 3, 3), np.float32)}, "only 1-D and 2-D conv"),
        ("Conv", (2, 5, 5), {}, {"w": np.ones((3, 4, 3, 3), np.float32)}, "do not fit: got 2 channels"),
        ("Conv", (2, 5, 5), {}, {}, "lacks an input: got .*'x'.*, expected at least 2"),
        ("Conv", (2, 5, 5), {"group": 0}, {"w": np.ones((3, 2, 3, 3), np.float32)}, "do not fit"),
        ("Conv", (2, 5, 5), {"group": -1}, {"w": np.ones((3, 2, 3, 3), np.float32)}, "do not fit"),
        (
            "Conv",
            (2, 5, 5),
            {"strides": [0, 1]},
            {"w": np.ones((3, 2, 3, 3), np.float32)},
            "strides is not usable",
        ),
        (
            "Conv",
            (2, 5, 5),
            {"pads": [-1, 0, 0, 0]},
            {"w": np.ones((3, 2, 3, 3), np.float32)},
            "pads is not usable",
        ),
        ("Conv", (2, 5, 5), {"pads": [1 << 20] * 4}, {"w": np.ones((3, 2, 3, 3), np.float32)}, "too large"),
        (
            "Conv",
            (2, 5, 5),
            {"auto_pad": "NEAREST"},
            {"w": np.ones((3, 2, 3, 3), np.float32)},
            "auto_pad is unknown",
        ),
        (
            "Conv",
            (2, 5, 5),
            {"kernel_shape": [5, 5]},
            {"w": np.ones((3, 2, 3, 3), np.float32)},
            "kernel_shape differs",
        ),
        (
            "Conv",
            (2, 5, 5),
            {"dilations": [3, 3]},
            {"w": np.ones((3, 2, 3, 3), np.float32)},
            "kernel is larger than the padded map",
        ),
        ("Conv", (2, 5, 5), {"colour": 3}, {"w": np.ones((3, 2, 3, 3), np.float32)}, "cannot be computed"),
        ("MaxPool", (2, 5, 5), {}, {}, "kernel_shape is not usable"),
        ("MaxPool", (2, 5, 5), {"kernel_shape": [2, 2], "pads": [2, 2, 2, 2]}, {}, "padding alone"),
        ("AveragePool", (2, 5, 5), {"kernel_shape": [1, 1], "pads": [2, 2, 2, 2]}, {}, "padding alone"),
        ("AveragePool", (2, 5, 5), {"kernel_shape": [1 << 20, 1 << 20]}, {}, "kernel is too large"),
        ("AveragePool", (5,), {"kernel_shape": [1]}, {}, "only 1-D and 2-D pools"),
        ("Gemm", (4,), {"transA": 1}, W, "across the samples"),
        ("Gemm", (5,), {}, W, r"do not fit its input: got weights \(4, 3\), expected a matrix for 5 inputs"),
        ("Gemm", (4,), {"transB": 1}, W, "do not fit its input"),
        ("MatMul", (2, 3), {}, W, "do not fit its input"),
        ("MatMul", (4,), {}, {"w": np.ones(4, np.float32)}, "do not fit its input"),
        (
            "BatchNormalization",
            (4,),
            {},
            dict.fromkeys("abcd", np.ones(3, np.float32)),
            "do not fit its input",
        ),
        ("PRelu", (4,), {}, {"w": np.ones((5, 4), np.float32)}, "batch|slopes"),
        ("Pad", (4,), {"mode": "reflect"}, {"w": np.array([0, 1, 0, 1])}, "only constant padding"),
        ("Pad", (4,), {}, {"w": np.array([0, 1 << 40, 0, 0])}, "too large"),
        ("Clip", (4,), {}, {"w": np.ones(4, np.float32)}, "single numbers"),
        ("GlobalAveragePool", (4,), {}, {}, "over space"),
        (
            "ReduceMean",
            (4,),
            {"keepdims": 1, "noop_with_empty_axes": 0},
            {"w": np.array([2])},
            "axis that is not there|cannot be computed",
        ),
        ("Flatten", (4,), {"axis": 5}, {}, "axis that is not there"),
        ("Transpose", (4,), {"perm": [0, 0]}, {}, "no permutation"),
        ("Pad", (4,), {}, {"w": np.array([0, 1])}, "do not fit its axes"),
        ("BatchNormalization", (4,), {}, dict.fromkeys("ab", np.ones(4, np.float32)), "lacks an input"),
        ("Cast", (4,), {"to": TensorProto.INT8}, {}, "casts to a type that is not a float"),
    ],
)
def test_operators_that_cannot_be(op, shape, attributes, weights, match):
    refused(model([node(op, " ".join(["x", *weights]), **attributes)], shape, weights), match)


def test_training_mode():
    stored = dict.fromkeys("abcd", np.ones(4, np.float32))
    refused(
        model([node("BatchNormalization", "x a b c d", training_mode=1)], (4,), stored), "Call model.eval"
    )
    refused(
        model([node("Dropout", "x - t", "d"), node("Relu", "d")], (4,), {"t": np.bool_(True)}),
        "Call model.eval",
    )


def test_graphs_that_cannot_be():
    refused(model([node("Relu", "nothing")], (4,)), "needs one input|no earlier operator makes")
    refused(
        model([node("Add", "x later"), node("Relu", "y", "later")], (4,)),
        "a tensor depends on itself: got 'y'",
    )
    refused(model([node("Relu", "x"), node("Relu", "x")], (4,)), "made twice: got 'y'")
    refused(model([node("Relu", "x", "x")], (4,), out="x"), "made twice")
    refused(
        model([node("MaxPool", "x", "p i", kernel_shape=[2, 2]), node("Add", "p i")], (1, 4, 4)),
        "not the first output of an earlier operator",
    )
    proto = good()
    proto.graph.initializer.append(numpy_helper.from_array(W["w"], "w"))
    refused(proto, "two tensors have one name")
    proto = good()
    proto.graph.sparse_initializer.add()
    refused(proto, "sparse")


# Little files that ask for much


def test_constants_that_are_too_large(monkeypatch):
    monkeypatch.setattr(folding, "MAX_CONSTANT_BYTES", 1 << 20)
    size = {"n": np.array([1 << 20, 1 << 20])}
    refused(
        model([node("ConstantOfShape", "n", "c"), node("Add", "x c")], (4,), size), "constant is too large"
    )
    refused(
        model([node("Expand", "w n", "c"), node("Add", "x c")], (4,), size | {"w": np.float32(1)}),
        "constant is too large",
    )
    refused(
        model(
            [node("Tile", "w n", "c"), node("Add", "x c")], (4,), size | {"w": np.ones((2, 2), np.float32)}
        ),
        "constant is too large",
    )
    refused(
        model(
            [node("Range", "a b c", "d"), node("Add", "x d")],
            (4,),
            {"a": np.array(0), "b": np.array(1 << 60), "c": np.array(1)},
        ),
        "constant is too large",
    )
    doubling = [node("Concat", f"c{i} c{i}", f"c{i + 1}", axis=0) for i in range(60)]
    refused(
        model([*doubling, node("Add", "x c60")], (4,), {"c0": np.ones(4, np.float32)}),
        "constant is too large",
    )
    outer = {"a": np.ones((1 << 10, 1), np.float32), "b": np.ones((1, 1 << 10), np.float32)}
    for op in ("Add", "MatMul", "Gemm"):
        refused(model([node(op, "a b", "c"), node("Add", "x c")], (4,), outer), "constant is too large")


def test_tensors_that_are_too_large():
    wide = {"w": np.ones((1, 1 << 13), np.float32), "v": np.ones((1 << 13, 1), np.float32)}
    refused(
        model(
            [
                node("Add", "x w", "a"),
                node("Unsqueeze", "a i", "b"),
                node("Unsqueeze", "b i", "c"),
                node("Add", "c v"),
            ],
            (1 << 14,),
            {"v": np.ones((1 << 13, 1), np.float32), "w": np.float32(1), "i": np.array([1])},
        ),
        "too large",
    )
    refused(model([node("MatMul", "x w")], (1 << 14, 1), wide), "too large")
    refused(model([node("Concat", " ".join(["x"] * 300), axis=1)], (1 << 20,)), "too large")
    refused(
        model([node("Conv", "x w")], (1, 2048, 2048), {"w": np.ones((64, 1, 1, 1), np.float32)}), "too large"
    )


def test_functions_that_call_each_other():
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]

    def function(name, *calls):
        names = ["a", *(f"t{i}" for i in range(len(calls) - 1)), "b"]
        body = [
            helper.make_node(call, [names[i]], [names[i + 1]], domain="" if call == "Relu" else "mine")
            for i, call in enumerate(calls)
        ]
        return helper.make_function("mine", name, ["a"], ["b"], body, opsets)

    call = [helper.make_node("f0", ["x"], ["y"], domain="mine")]
    bomb = [function(f"f{i}", *[f"f{i + 1}"] * 10) for i in range(12)] + [function("f12", "Relu")]
    refused(model(call, (4,), functions=bomb, opset_imports=opsets[1:]), "too many nodes")
    refused(model(call, (4,), functions=[function("f0", "f0")], opset_imports=opsets[1:]), "too deeply")
    refused(
        model(call, (4,), functions=[function("f0", "g")], opset_imports=opsets[1:]),
        "no operator of the ONNX standard: got 'g'",
    )


def test_without_onnx(tmp_path):
    """One line that says what to install."""
    code = """
        import sys
        sys.modules["onnx"] = None
        from evsnn.errors import MissingExtraError
        from evsnn.conversion.onnx.importer import import_onnx
        try:
            import_onnx("model.onnx")
        except MissingExtraError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300
    )
    assert (
        done.stdout
        == 'reading ONNX models needs the onnx package. Install it with: pip install "evsnn[onnx]"\n'
    ), done.stderr
