"""Little models that ask for much work or memory: it is counted before it is done, over the whole file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import model, node

from evsnn.conversion.onnx import importer
from evsnn.conversion.onnx.constants import FOLDERS
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.conversion.onnx.operators import OPERATORS, PRODUCTS
from evsnn.errors import ModelError


def refused(source, match):
    with pytest.raises(ModelError, match=match) as caught:
        import_onnx(source)
    assert len(str(caught.value)) < 700 and caught.value.where


@pytest.mark.parametrize(
    ("op", "shapes", "attributes"),
    [
        ("MatMul", [(3, 4), (4, 5)], {}),
        ("MatMul", [(2, 1, 3, 4), (6, 4, 5)], {}),
        ("MatMul", [(4,), (2, 4, 5)], {}),
        ("MatMul", [(2, 3, 4), (4,)], {}),
        ("Gemm", [(3, 4), (4, 5)], {}),
        ("Gemm", [(4, 3), (5, 4), (5,)], {"transA": 1, "transB": 1}),
        ("Gemm", [(3, 4), (4, 5), (3, 1)], {"alpha": 0.5}),
        ("Conv", [(2, 4, 9, 7), (6, 2, 3, 3), (6,)], {"group": 2, "pads": (1, 0, 2, 1), "strides": (2, 1)}),
        ("Conv", [(1, 1, 9, 7), (3, 1, 3, 2)], {"auto_pad": "SAME_UPPER", "dilations": (2, 1)}),
    ],
)
def test_shapes_of_products_are_those_of_the_operators(op, shapes, attributes):
    operands = [np.ones(shape, np.float32) for shape in shapes]
    shape, _ = PRODUCTS[op](*operands, **attributes)
    assert shape == OPERATORS[op](*operands, **attributes).shape


@pytest.mark.parametrize(
    ("op", "shapes", "attributes"),
    [
        ("Tile", [(), (1,)], {}),
        ("Tile", [(1,), (2,)], {}),
        ("Gemm", [(4, 1), (1, 1), (1, 8)], {}),
        ("Gemm", [(4, 1), (1, 1), (2, 4, 1)], {}),
        ("Gemm", [(4, 1), (2, 1)], {}),
        ("MatMul", [(4, 1), (2, 1)], {}),
    ],
)
def test_operands_that_could_make_more_than_their_sizes_say(op, shapes, attributes):
    constants = {f"c{i}": np.ones(shape, np.float32) for i, shape in enumerate(shapes)}
    if op == "Tile":
        constants["c1"] = np.full(shapes[1], 1 << 40, np.int64)
    nodes = [
        node(op, " ".join(constants), "k", **attributes),
        node("ReduceMax", "k", "m"),
        node("Add", "x m"),
    ]
    refused(model(nodes, (4,), constants), "do not fit")


def test_products_are_counted_over_all_operators(monkeypatch):
    """Each is below the limit, and none is computed."""
    monkeypatch.setattr(importer, "MAX_PRODUCTS", 1000)
    monkeypatch.setitem(OPERATORS, "MatMul", None)
    weight = {"w": np.ones((20, 20), np.float32)}
    import_onnx(model([node("MatMul", "x w", "a"), node("MatMul", "a w")], (20,), weight))
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a w", "b"), node("MatMul", "b w")]
    refused(model(nodes, (20,), weight), "too many operations, with those before it: got 1200 products")


@pytest.fixture
def little_work(monkeypatch):
    monkeypatch.setattr(importer, "MAX_WORK", 50_000)
    monkeypatch.setattr(importer, "WORK_PER_BYTE", 0)


WORK = {
    "operators on the sample": [
        node("Relu", "x", "a0"),
        *(node("Relu", f"a{i}", f"a{i + 1}") for i in range(80)),
        node("Relu", "a80"),
    ],
    "a wide pool": [node("MaxPool", "x", kernel_shape=[1, 1000], pads=[0, 500, 0, 500])],
    "constants that are reduced": [
        node("ConstantOfShape", "n", "c"),
        *(node("ReduceMax", "c", f"m{i}", keepdims=0) for i in range(20)),
        node("Sum", "x " + " ".join(f"m{i}" for i in range(20))),
    ],
    "constants that are checked": [
        node("ConstantOfShape", "n", "c"),
        node("Add", "x c", "a0"),
        *(node("Add", f"a{i} c", f"a{i + 1}") for i in range(80)),
        node("Relu", "a80"),
    ],
    "products of constants": [
        node("ConstantOfShape", "square", "c"),
        node("MatMul", "c c", "d"),
        node("ReduceMax", "d", "m", keepdims=0),
        node("Add", "x m"),
    ],
}


@pytest.mark.parametrize("case", WORK)
def test_work_is_counted_over_all_operators(little_work, case):
    constants = {"n": np.array([1, 1, 1, 300]), "square": np.array([40, 40])}
    read = {name for one in WORK[case] for name in one.input}
    constants = {name: value for name, value in constants.items() if name in read}
    refused(model(WORK[case], (1, 1, 300), constants), "takes too much work")


def test_what_a_model_stores_may_be_read_often(little_work, monkeypatch):
    monkeypatch.setattr(importer, "WORK_PER_BYTE", 256)
    weight = {"w": np.ones((100, 100), np.float32)}
    nodes = [node("Transpose", "w", "v"), node("Transpose", "v", "u"), node("MatMul", "x u")]
    assert import_onnx(model(nodes, (100,), weight)).nodes


def test_data_beside_a_model_is_not_read_before_its_size_is_known(tmp_path, monkeypatch):
    tensor = TensorProto(name="w", data_type=1, dims=[4, 1 << 28], data_location=1)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "sparse.bin"
    with open(tmp_path / "sparse.bin", "wb") as file:
        file.truncate(4 << 30)
    proto = model([node("MatMul", "x w")], (4,), {})
    proto.graph.initializer.append(tensor)
    onnx.save(proto, tmp_path / "m.onnx")
    monkeypatch.setattr(importer, "MAX_WEIGHT_BYTES", 1 << 20)
    monkeypatch.setattr("evsnn.conversion.onnx.model_file._external", None)
    refused(
        tmp_path / "m.onnx", "has too many weights: got 4294967296 bytes more, expected at most 1048576 more"
    )


@pytest.mark.parametrize(
    ("op", "attributes", "operands"),
    [
        ("Unsqueeze", {}, [np.array([0.126], np.float32)]),
        ("Squeeze", {}, [np.array([1.5], np.float32)]),
        ("ReduceMean", {}, [np.array([1.5], np.float32)]),
        ("Reshape", {}, [np.array([-1.0, 4.0], np.float32)]),
        ("Pad", {}, [np.array([0, 0.5] * 3, np.float32)]),
        ("Pad", {}, [np.zeros(2, np.int64), np.float32(0), np.array([1.5], np.float32)]),
        ("Unsqueeze", {}, [np.array([True])]),
    ],
)
def test_axes_and_sizes_that_are_no_integers(op, attributes, operands):
    constants = {f"c{i}": value for i, value in enumerate(operands)}
    proto = model([node(op, " ".join(["x", *constants]), **attributes)], (1, 4), constants, opset=18)
    refused(proto, r"its input \d must be integers: got (float32|bool), expected int64")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_limits_of_a_clip_may_have_axes(shape):
    limits = {"low": np.zeros(shape, np.float32), "high": np.full(shape, 6, np.float32)}
    weight = {"w": np.eye(4, dtype=np.float32)}
    nodes = [node("MatMul", "x w", "a"), node("Clip", "a low high", "b"), node("MatMul", "b w")]
    graph = import_onnx(model(nodes, (4,), limits | weight))
    assert all(graph.constants[name].shape == () for name in graph.nodes[1].inputs[1:])


def test_every_folded_product_is_sized():
    assert set(PRODUCTS) & set(FOLDERS) == {"Gemm", "MatMul"}
