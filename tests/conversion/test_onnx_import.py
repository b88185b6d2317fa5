"""Networks as exporters write them: the graph that is read, and its forward pass against onnxruntime."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import assert_close, model, node, run

from evsnn.conversion.onnx.evaluate import batches, evaluate, sample_bytes
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.errors import InputError, ModelError

RNG = np.random.default_rng(3)


def weights(**shapes):
    return {name: RNG.standard_normal(shape).astype(np.float32) / 3 for name, shape in shapes.items()}


def ints(**values):
    return {name: np.array(value, np.int64) for name, value in values.items()}


def check(proto, shape, ops: str | None = None, n: int = 3):
    """The graph of a model whose forward pass equals onnxruntime's, and whose operators are `ops`."""
    images = RNG.standard_normal((n, *shape)).astype(np.float32)
    graph = import_onnx(proto)
    fixed = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    theirs = (
        np.concatenate([run(proto, images[i : i + fixed]) for i in range(0, n, fixed)])
        if fixed
        else run(proto, images)
    )
    assert_close(evaluate(graph, images), theirs)
    assert graph.shapes[graph.output] == theirs.shape[1:]
    assert set(graph.shapes) == {graph.input, *(n.outputs[0] for n in graph.nodes)}
    assert {i for n in graph.nodes for i in n.inputs if i} == set(graph.constants) | (
        set(graph.shapes) - {graph.output}
    )
    if ops is not None:
        assert " ".join(n.op for n in graph.nodes) == ops
    return graph


def residual(opset: int):
    """What torch's first exporter writes: Shape -> Gather -> Unsqueeze -> Concat -> Reshape."""
    return model(
        [
            node(
                "Conv",
                "x w1 b1",
                "c1",
                pads=[1, 1, 1, 1],
                strides=[2, 2],
                kernel_shape=[3, 3],
                dilations=[1, 1],
                group=1,
            ),
            node("BatchNormalization", "c1 s o m v", "n1"),
            node("Relu", "n1", "r1"),
            node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1], group=8, kernel_shape=[3, 3]),
            node("Add", "c2 r1", "a"),
            node("Clip", "a low high", "r2"),
            node("AveragePool", "r2", "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("Shape", "p", "shape"),
            node("Constant", "", "zero", value=helper.make_tensor("", TensorProto.INT64, [], [0])),
            node("Gather", "shape zero", "batch", axis=0),
            node("Unsqueeze", "batch axis0", "batch1"),
            node("Concat", "batch1 rest", "target", axis=0),
            node("Reshape", "p target", "flat"),
            node("Dropout", "flat", "dropped"),
            node("Gemm", "dropped w3 b3", "scores", alpha=1.0, beta=1.0, transB=1),
            node("Identity", "scores"),
        ],
        (3, 12, 12),
        weights(w1=(8, 3, 3, 3), b1=(8,), w2=(8, 1, 3, 3), s=(8,), o=(8,), m=(8,), w3=(10, 72), b3=(10,))
        | {"v": np.full(8, 2, np.float32), "low": np.float32(0), "high": np.float32(1.5)}
        | ints(axis0=[0], rest=[-1]),
        opset=opset,
    )


RESIDUAL = "Conv BatchNormalization Relu Conv Add Clip AveragePool Reshape Gemm"


def test_torch_style():
    graph = check(residual(17), (3, 12, 12), RESIDUAL)
    reshape = next(n for n in graph.nodes if n.op == "Reshape")
    assert graph.constants[reshape.inputs[1]].tolist() == [-1, 72]
    assert graph.shapes[reshape.outputs[0]] == (72,)
    assert (graph.input, graph.output, graph.name, graph.opset) == ("x", "scores", "net", 17)


def test_attributes_of_old_opsets_become_inputs():
    proto = residual(13)
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("", 9))
    for n in proto.graph.node:
        if n.op_type == "Clip":
            del n.input[1:]
            n.attribute.extend([helper.make_attribute("min", 0.0), helper.make_attribute("max", 1.5)])
        if n.op_type == "Unsqueeze":
            del n.input[1:]
            n.attribute.append(helper.make_attribute("axes", [0]))
    graph = check(proto, (3, 12, 12), RESIDUAL)
    clip = next(n for n in graph.nodes if n.op == "Clip")
    assert [graph.constants[n] for n in clip.inputs[1:]] == [0, 1.5]
    assert not clip.attributes


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 18, 20])
def test_one_form_for_every_opset(opset):
    """Padding, means, squeezes and softmax as each opset writes them."""

    def moved(op, x, y, since, name, value, **others):
        return (
            (node(op, x, y, **{name: value}, **others), {})
            if opset < since
            else (node(op, f"{x} {y}_{name}", y, **others), {f"{y}_{name}": np.array(value, np.int64)})
        )

    pad, c1 = moved("Pad", "x", "p", 11, "pads", [0, 0, 1, 2, 0, 0, 0, 1])
    mean, c2 = moved("ReduceMean", "c", "m", 18, "axes", [2, 3], keepdims=1)
    squeeze, c3 = moved("Squeeze", "m", "s", 13, "axes", [2, 3])
    unsqueeze, c4 = moved("Unsqueeze", "s", "u", 13, "axes", [1])
    flatten = node("Flatten", "u", "f")
    proto = model(
        [pad, node("Conv", "p w", "c"), mean, squeeze, unsqueeze, flatten, node("Softmax", "f", axis=1)],
        (2, 5, 6),
        weights(w=(4, 2, 3, 3)) | c1 | c2 | c3 | c4,
        opset=opset,
    )
    graph = check(proto, (2, 5, 6), "Pad Conv ReduceMean Squeeze Unsqueeze Flatten Softmax")
    assert {n.op: dict(n.attributes) for n in graph.nodes}["Squeeze"] == {}
    assert {n.op: [graph.constants[i].tolist() for i in n.inputs[1:]] for n in graph.nodes}["ReduceMean"] == [
        [2, 3]
    ]


def test_keras_style():
    """What tf2onnx writes: NHWC in, transposes around the convolutions, padding by name, MatMul and Add."""
    proto = model(
        [
            node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
            node("Conv", "t w1 b1", "c1", auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3]),
            node("Relu", "c1", "r1"),
            node("Conv", "r1 w2", "c2", auto_pad="SAME_UPPER", group=6, kernel_shape=[3, 3]),
            node("BatchNormalization", "c2 s o m v", "n", epsilon=0.001),
            node("Min", "n six", "m6"),
            node("Max", "m6 zero", "r6"),
            node("MaxPool", "r6", "p", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
            node("Transpose", "p", "back", perm=[0, 2, 3, 1]),
            node("Reshape", "back target", "flat"),
            node("MatMul", "flat w3", "mm"),
            node("Add", "mm b3", "scores"),
            node("Softmax", "scores"),
        ],
        (11, 9, 3),
        weights(w1=(6, 3, 3, 3), b1=(6,), w2=(6, 1, 3, 3), s=(6,), o=(6,), m=(6,), w3=(54, 4), b3=(4,))
        | {"v": np.full(6, 0.5, np.float32), "six": np.float32(6), "zero": np.float32(0)}
        | ints(target=[-1, 54]),
    )
    graph = check(
        proto,
        (11, 9, 3),
        "Transpose Conv Relu Conv BatchNormalization Min Max MaxPool Transpose Reshape MatMul Add Softmax",
    )
    first = graph.nodes[1].attributes
    assert first["pads"] == (1, 1, 1, 1) and "auto_pad" not in first
    assert graph.nodes[7].attributes["pads"] == (0, 1, 0, 0)


@pytest.mark.parametrize("target", [[0, -1], [-1, 32], [4, 32], [0, 32], [-1, 2, 16], [0, 0, -1]])
def test_reshapes_that_keep_a_fixed_batch(target):
    proto = model([node("Relu", "x", "r"), node("Reshape", "r t")], (2, 4, 4), ints(t=target), batch=4)
    graph = check(proto, (2, 4, 4), "Relu Reshape", n=8)
    assert graph.constants[graph.nodes[1].inputs[1]].tolist()[0] == -1
    assert "fixes the batch to 4" in graph.notes[0]
    assert evaluate(graph, np.ones((3, 2, 4, 4))).shape[0] == 3


@pytest.mark.parametrize("size", ["Size", "Shape ReduceProd", "Shape Slice ReduceProd Div"])
def test_shapes_are_computed_in_any_way(size):
    """The rest of a shape from products and quotients of what depends on the batch."""
    nodes = [node("Relu", "x", "r"), node("Shape", "r", "s"), node("Slice", "s i0 i1", "n")]
    if size == "Size":
        nodes += [node("Size", "r", "all"), node("Div", "all n", "rest")]
    elif size == "Shape ReduceProd":
        nodes += [node("ReduceProd", "s", "all", keepdims=1), node("Div", "all n", "rest")]
    else:
        nodes += [node("Slice", "s i1 i9", "tail"), node("ReduceProd", "tail", "rest", keepdims=1)]
    proto = model(
        [*nodes, node("Concat", "n rest", "t", axis=0), node("Reshape", "r t")],
        (2, 3, 4),
        ints(i0=[0], i1=[1], i9=[9]),
    )
    check(proto, (2, 3, 4), "Relu Reshape")


def test_constants_are_folded():
    """Weights that are computed: normalised, cast, sliced, expanded."""
    nodes = [
        node("ReduceMean", "w", "mean", axes=[1, 2, 3], keepdims=1),
        node("Sub", "w mean", "centred"),
        node("Mul", "centred centred", "square"),
        node("ReduceMean", "square", "variance", axes=[1, 2, 3], keepdims=1),
        node("Add", "variance eps", "v1"),
        node("Sqrt", "v1", "deviation"),
        node("Div", "centred deviation", "scaled"),
        node("Cast", "scaled", "half", to=TensorProto.FLOAT16),
        node("Cast", "half", "weight", to=TensorProto.FLOAT),
        node("ConstantOfShape", "two", "ones", value=helper.make_tensor("", TensorProto.FLOAT, [1], [0.5])),
        node("Expand", "ones four", "bias"),
        node("Conv", "x weight bias"),
    ]
    proto = model(
        nodes, (2, 5, 5), weights(w=(4, 2, 3, 3)) | {"eps": np.float32(1e-5)} | ints(two=[1], four=[4])
    )
    graph = import_onnx(proto)
    assert [n.op for n in graph.nodes] == ["Conv"]
    assert set(graph.constants) == {"weight", "bias"}
    images = RNG.standard_normal((2, 2, 5, 5)).astype(np.float32)
    assert_close(evaluate(graph, images), run(proto, images), 2e-3)  # half precision in the file


def test_local_functions_are_inlined():
    body = [node("Conv", "a k", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "b")]
    function = helper.make_function(
        "mine", "ConvRelu", ["a", "k"], ["b"], body, [helper.make_opsetid("", 17)]
    )
    calls = [
        helper.make_node("ConvRelu", ["x", "w1"], ["h"], domain="mine"),
        helper.make_node("ConvRelu", ["h", "w2"], ["y"], domain="mine"),
    ]
    proto = model(
        calls,
        (2, 5, 5),
        weights(w1=(3, 2, 3, 3), w2=(4, 3, 3, 3)),
        functions=[function],
        opset_imports=[helper.make_opsetid("mine", 1)],
    )
    check(proto, (2, 5, 5), "Conv Relu Conv Relu")


def test_only_what_leads_to_the_output_is_read():
    """A second output, its operators and a wild weight are no concern of ours."""
    label = helper.make_tensor_value_info("label", TensorProto.INT64, None)
    scores = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        node("MatMul", "x w", "h"),
        node("Relu", "h"),
        node("ArgMax", "y", "label", axis=1),
        node("Sigmoid", "nan", "s"),
    ]
    proto = model(nodes, (4,), weights(w=(4, 3)) | {"nan": np.float32(np.nan)}, outputs=[label, scores])
    graph = import_onnx(proto)
    assert [n.op for n in graph.nodes] == ["MatMul", "Relu"]
    assert "'label'" in graph.notes[0]
    assert import_onnx(proto, output="h").output == "h"


def test_clips_that_limit_nothing_have_no_limits():
    limits = {
        "low": np.float32(0),
        "high": np.float32(np.finfo(np.float32).max),
        "inf": np.float32(np.inf),
        "minus": np.float32(-np.inf),
    }
    graph = check(
        model(
            [node("Clip", "x low high", "a"), node("Clip", "a minus inf", "b"), node("Clip", "b - high")],
            (4,),
            limits,
        ),
        (4,),
        "Clip Clip Clip",
    )
    assert [n.inputs for n in graph.nodes] == [("x", "low"), ("a",), ("b",)]


def test_new_constants_take_no_names():
    """An attribute becomes an input, whose name may be taken by a weight."""
    proto = model(
        [
            node("Clip", "x", "c", min=0.0, max=1.0),
            node("Add", "c Clip_0/1", "a"),
            node("Mul", "a Clip_0/1'"),
        ],
        (4,),
        {"Clip_0/1": np.float32(7), "Clip_0/1'": np.float32(3)},
        opset=9,
    )
    check(proto, (4,), "Clip Add Mul")


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_rounding_up_becomes_padding(op):
    graph = check(
        model([node(op, "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], (2, 8, 7)), (2, 8, 7), op
    )
    assert graph.nodes[0].attributes["pads"] == (0, 0, 1, 0)
    assert "ceil_mode" not in graph.nodes[0].attributes


def test_evaluation_in_batches(tmp_path):
    proto, rng = residual(17), np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.standard_normal((7, 3, 12, 12)))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    graph = import_onnx(proto)
    whole = evaluate(graph, images)
    for options in ({"batch": 1}, {"batch": 3}, {"max_bytes": 1}, {"max_bytes": 3 * sample_bytes(graph)}):
        assert_close(evaluate(graph, images, **options), whole, 1e-5)
    some = evaluate(graph, images, outputs=["r1", "scores", "x"], batch=2)
    assert list(some) == ["r1", "scores", "x"]
    assert np.array_equal(some["x"], images.astype(np.float32)) and (some["r1"] >= 0).all()
    assert [start for start, _ in batches(graph, images, ["p"], batch=3)] == [0, 3, 6]
    assert evaluate(graph, images[:0]).shape == (0, 10)


def test_evaluation_frees_what_nobody_reads():
    """A chain of tensors never needs more memory than announced."""
    import tracemalloc

    nodes = [
        node("Relu", "x", "t0"),
        *(node("LeakyRelu", f"t{i}", f"t{i + 1}") for i in range(30)),
        node("Relu", "t30"),
    ]
    graph = import_onnx(model(nodes, (1, 100, 100)))
    assert sample_bytes(graph) == 3 * 40_000
    assert sample_bytes(graph, ["t0", "t1"]) == 7 * 40_000
    images = np.zeros((50, 1, 100, 100), np.float32)
    tracemalloc.start()
    evaluate(graph, images, max_bytes=10 * sample_bytes(graph, ["y"]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes + 10 * sample_bytes(graph, ["y"]) + 50_000


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 12, 11)),
        np.zeros((3, 12, 12)),
        np.zeros((2, 3, 12, 12), complex),
        np.zeros((2, 12, 12, 3)),
    ],
)
def test_images_that_do_not_fit(images):
    with pytest.raises(
        InputError,
        match=r"images: do not fit the network: got .*, expected numbers of shape \(n, 3, 12, 12\)",
    ):
        evaluate(import_onnx(residual(17)), images)


def test_outputs_that_are_not_there():
    with pytest.raises(ModelError, match="no such tensor"):
        evaluate(import_onnx(residual(17)), np.zeros((1, 3, 12, 12)), outputs=["nothing"])


# Exporters themselves, where they are installed.


def torch_export(net, images, **options):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net, (images,), **({"f": file} if not options.get("dynamo") else {"verbose": False}), **options
        )
    return program.model_proto if options.get("dynamo") else onnx.load_from_string(file.getvalue())


def torch_net():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem = nn.Sequential(
                nn.Conv2d(3, 8, 3, 2, 1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            )
            self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding="same", groups=8), nn.ReLU6())
            self.squeeze = nn.Conv2d(16, 6, 1)
            self.pool = nn.AdaptiveAvgPool2d(2)
            self.head = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(24, 10))

        def forward(self, x):
            x = self.stem(x)
            x = torch.cat([x, self.depthwise(x) + x], 1)
            x = self.squeeze(x).clamp(0.0, 1.25)
            return self.head(self.pool(x).view(x.shape[0], 6, 4))

    net = Net()
    net(torch.randn(16, 3, 20, 20))  # statistics of the batch norm
    return net.eval()


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("dynamo", [True, False])
def test_torch_exports(dynamo, dynamic):
    torch = pytest.importorskip("torch")
    net, images = torch_net(), torch.randn(4, 3, 20, 20)
    if dynamo:
        proto = torch_export(
            net, images[:2], dynamo=True, dynamic_shapes=({0: torch.export.Dim("n")},) if dynamic else None
        )
    else:
        proto = torch_export(
            net,
            images[:2],
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}} if dynamic else None,
        )
    graph = check(proto, (3, 20, 20), n=4)
    with torch.no_grad():
        assert_close(evaluate(graph, images.numpy()), net(images).numpy())


def test_sklearn_exports():
    neural = pytest.importorskip("sklearn.neural_network")
    skl2onnx = pytest.importorskip("skl2onnx")
    types = pytest.importorskip("skl2onnx.common.data_types")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((90, 6)).astype(np.float32), np.arange(90) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = neural.MLPClassifier((12, 8), max_iter=20, random_state=0).fit(x, y)
        regressor = neural.MLPRegressor(hidden_layer_sizes=(12,), max_iter=20, random_state=0).fit(x, x[:, 0])
        float_input = [("input", types.FloatTensorType([None, 6]))]
        proto = skl2onnx.convert_sklearn(
            classifier, initial_types=float_input, options={"zipmap": False}, target_opset=17
        )
        zipped = skl2onnx.convert_sklearn(classifier, initial_types=float_input, target_opset=17)
        other = skl2onnx.convert_sklearn(regressor, initial_types=float_input, target_opset=17)
    graph = import_onnx(proto)
    assert_close(evaluate(graph, x), classifier.predict_proba(x).astype(np.float32))
    assert "label" in graph.notes[0]
    assert_close(evaluate(import_onnx(other), x), regressor.predict(x).astype(np.float32)[:, None])
    with pytest.raises(ModelError, match="zipmap"):
        import_onnx(zipped)


def test_nodes_out_of_order():
    """keras2onnx writes them so, and onnxruntime reads them."""
    stored = {"a": np.ones((6, 8), np.float32), "c": np.ones((8, 3), np.float32)}
    backwards = [node("Gemm", "u c"), node("Relu", "t", "u"), node("Gemm", "x a", "t")]
    proto = model(backwards, (6,), stored)
    images = np.random.default_rng(0).standard_normal((4, 6), np.float32)
    graph = import_onnx(proto)
    assert [n.op for n in graph.nodes] == ["Gemm", "Relu", "Gemm"]
    assert_close(evaluate(graph, images), run(proto, images))


@pytest.mark.parametrize("form", ["x W", "W x", "unsqueezed", "reshaped"])
def test_inputs_without_a_batch(form):
    """One vector: the network takes a batch before it."""
    a, c = (
        np.random.default_rng(i).standard_normal(s).astype(np.float32) for i, s in ((1, (5, 6)), (2, (6, 3)))
    )
    stored = {
        "a": a,
        "b": np.arange(6, dtype=np.float32) - 2,
        "c": c,
        "at": np.ascontiguousarray(a.T),
        "ct": np.ascontiguousarray(c.T),
        "axis": np.array([0]),
        "shape": np.array([1, 5]),
    }
    relu, ends = node("Relu", "s", "u"), [node("Gemm", "t a b", "s"), node("Relu", "s")]
    nodes = {
        "x W": [node("MatMul", "x a", "t"), node("Add", "t b", "s"), relu, node("MatMul", "u c")],
        "W x": [node("MatMul", "at x", "s"), relu, node("MatMul", "ct u")],
        "unsqueezed": [node("Unsqueeze", "x axis", "t"), *ends],
        "reshaped": [node("Reshape", "x shape", "t"), *ends],
    }[form]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [5])
    proto = model(nodes, (), stored, inputs=[x])
    graph = import_onnx(proto)
    assert graph.shapes["x"] == (5,)
    assert any("no axis for a batch" in note for note in graph.notes)
    images = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    theirs = np.stack([run(proto, image).ravel() for image in images])
    assert_close(evaluate(graph, images), theirs)


def test_inputs_without_a_batch_that_need_one():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [5])
    proto = model([node("Relu", "x", "r"), node("LogSoftmax", "r")], (), inputs=[x])
    with pytest.raises(ModelError, match=r"without an axis for the batch.*xport the model with a batch"):
        import_onnx(proto)
