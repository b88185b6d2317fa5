"""Lowered networks compute what their graphs do: against onnxruntime, and against evsnn's own operators."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from evsnn import Conv2d, ModelError, simulate
from evsnn.circuit.build import build_circuit
from evsnn.circuit.reference import run as run_reference
from evsnn.conversion.balance.options import Options
from evsnn.conversion.conversion import convert_model
from evsnn.conversion.lowering import lowering
from evsnn.conversion.lowering.ann import forward, forward_all
from evsnn.conversion.lowering.lowering import lower_graph
from evsnn.conversion.onnx import operators
from evsnn.conversion.onnx.evaluate import evaluate

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_builder import OnnxModel  # noqa: E402
from onnx_models import run  # noqa: E402

from evsnn.conversion.onnx.importer import import_onnx  # noqa: E402


def lowered(model, n=3, **options):
    """The Ann of a model, after comparing it with the model."""
    graph = import_onnx(model)
    ann = lower_graph(graph, **options)
    images = np.random.default_rng(1).normal(size=(n, *graph.shapes[graph.input])).astype(np.float32)
    if "maxpool2d" not in kinds(ann):
        build_circuit(ann.network)
    got = forward(ann, ann.arranged(images), batch=2)
    want = evaluate(graph, images, outputs=ann.outputs)[ann.outputs[0]].reshape(n, -1)
    assert close(got, want), np.abs(got - want).max()
    if ann.outputs[0] == graph.output:
        want = run(model, images).reshape(n, -1)
        assert close(got, want), np.abs(got - want).max()
    else:
        assert (got.argmax(1) == run(model, images).reshape(n, -1).argmax(1)).all()
    return ann


def close(got, want):
    """Within 1e-4 of the largest score."""
    return got.shape == want.shape and np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def kinds(ann):
    return [layer.kind for layer in ann.network.layers]


def test_every_operator_that_can_be_read_has_a_rule():
    assert set(lowering.OPERATORS) == set(operators.OPERATORS)


# Weighted layers


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 2, 0, 1]},
        {"strides": [2, 1]},
        {"dilations": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
        {"group": 2},
        {"group": 4, "pads": [1, 1, 1, 1]},
    ],
    ids=str,
)
def test_convolutions(attributes):
    m = OnnxModel((4, 9, 8))
    x = m.op("Relu", m.conv("x", 4, 4, (3, 2), **attributes))
    x = m.op("Relu", m.conv(x, 4, 8, (2, 2), bias=False, **attributes))
    m_shape = import_onnx(m.model(x)).shapes[x]
    ann = lowered(m.model(m.head(x, int(np.prod(m_shape)))))
    assert kinds(ann) == ["input", "conv2d", "if", "conv2d", "if", "flatten", "linear", "readout"]


def test_linear_layers():
    m = OnnxModel((20,))
    x = m.op("Relu", m.op("Gemm", "x", m.floats(20, 16), m.floats(1, 16), alpha=0.5, beta=2.0))
    x = m.op("Add", m.op("MatMul", x, m.floats(16, 12)), m.floats(12))
    x = m.op("Relu", x)
    ann = lowered(m.model(m.op("MatMul", x, m.floats(12, 5))))
    assert kinds(ann) == ["input", "linear", "if", "linear", "if", "linear", "readout"]


# Batch norms and constants


def test_a_norm_behind_a_convolution_leaves_its_moments():
    m = OnnxModel((3, 6, 6))
    x = m.norm(m.conv("x", 3, 5, pads=[1, 1, 1, 1]), 5)
    ann = lowered(m.model(m.head(m.op("Relu", x), 180)))
    gamma, beta = (onnx.numpy_helper.to_array(m.initializers[i]) for i in (2, 3))
    ((name, (mean, deviation)),) = ann.moments.items()
    assert name == "/relu2"
    np.testing.assert_allclose(mean, beta)
    np.testing.assert_allclose(deviation, np.abs(gamma))


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 0, 1, 3]], ids=str)
def test_a_norm_between_a_relu_and_a_convolution(pads):
    m = OnnxModel((3, 7, 6))
    x = m.norm(m.op("Relu", m.conv("x", 3, 5)), 5)
    x = m.op("Relu", m.conv(x, 5, 4, pads=pads, strides=[2, 1]))
    shape = import_onnx(m.model(x)).shapes[x]
    ann = lowered(m.model(m.head(x, int(np.prod(shape)))))
    assert kinds(ann).count("if") == (4 if any(pads) else 2)  # padded: neurons of the border


def test_a_norm_between_relus_is_a_depthwise_layer():
    m = OnnxModel((3, 6, 6))
    x = m.op("Relu", m.norm(m.op("Relu", m.conv("x", 3, 5)), 5))
    ann = lowered(m.model(m.head(x, 80)))
    assert [layer.groups for layer in ann.network.layers if isinstance(layer, Conv2d)] == [1, 5]


def test_constants_are_folded():
    m = OnnxModel((3, 6, 6))
    x = m.op("Div", m.op("Sub", "x", m.floats(1, 3, 1, 1)), np.abs(m.floats(3, 1, 1)) + np.float32(0.5))
    x = m.conv(x, 3, 4)
    x = m.op("Add", m.op("Mul", x, m.floats(4, 1, 1)), np.float32(0.3))
    x = m.op("Relu", m.op("Sub", np.float32(0.2), m.op("Mul", x, np.float32(-1))))
    x = m.op("Mul", x, np.float32(-0.5))
    x = m.op("GlobalAveragePool", x)
    x = m.op("Add", x, m.floats(1, 4, 1, 1))
    ann = lowered(m.model(m.head(x, 4)))
    assert kinds(ann) == ["input", "conv2d", "if", "avgpool2d", "flatten", "linear", "readout"]


def test_normalisation_before_a_padded_convolution():
    m = OnnxModel((3, 6, 6))
    x = m.op("Div", m.op("Sub", "x", m.floats(1, 3, 1, 1)), np.abs(m.floats(3, 1, 1)) + np.float32(0.5))
    x = m.op("Relu", m.conv(x, 3, 4, pads=[1, 1, 1, 1]))
    lowered(m.model(m.head(x, 144)))


# ReLUs


@pytest.mark.parametrize("form", ["clip", "relu6", "min_max", "max_min", "relu_min"])
def test_clipped_relus(form):
    m = OnnxModel((3, 6, 6))
    x = m.conv("x", 3, 5)
    zero, six = np.float32(0), np.float32(0.6)
    if form == "clip":
        x = m.op("Clip", x, zero, six)
    elif form == "relu6":
        x = m.op("Relu", m.op("Clip", m.op("Relu", x), zero, six))
    elif form == "min_max":
        x = m.op("Min", m.op("Max", x, zero), six)
    elif form == "max_min":
        x = m.op("Max", m.op("Min", x, six), zero)
    else:
        x = m.op("Min", m.op("Relu", x), six)
    ann = lowered(m.model(m.head(x, 80)))
    assert kinds(ann).count("if") == 1
    assert list(ann.clips.values()) == [np.float32(0.6)]


@pytest.mark.parametrize("op", ["LeakyRelu", "PRelu"])
@pytest.mark.parametrize("behind", ["conv", "padded", "depthwise", "pool", "gap", "concat", "add", "relu"])
def test_leaky_relus(op, behind):
    m = OnnxModel((3, 8, 8))

    def leaky(x, channels):
        return m.op(op, x, alpha=0.2) if op == "LeakyRelu" else m.op(op, x, m.floats(channels, 1, 1))

    x = leaky(m.norm(m.conv("x", 3, 6), 6), 6)
    if behind == "conv":
        x, n = m.op("Relu", m.conv(x, 6, 4)), 64
    elif behind == "padded":
        x, n = leaky(m.conv(x, 6, 4, pads=[1, 1, 1, 1]), 4), 144
    elif behind == "depthwise":
        x, n = m.op("Relu", m.conv(x, 6, 12, group=6)), 192
    elif behind == "pool":
        x, n = m.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), 54
    elif behind == "gap":
        x, n = m.op("GlobalAveragePool", x), 6
    elif behind == "concat":
        x, n = m.op("Concat", x, m.op("Relu", m.conv("x", 3, 2)), axis=1), 288
    elif behind == "add":
        x, n = leaky(m.op("Add", x, m.conv(x, 6, 6, pads=[1, 1, 1, 1])), 6), 216
    else:
        x, n = m.op("Relu", x), 216
    lowered(m.model(m.head(x, n)))


# Pools


@pytest.mark.parametrize("order", ["relu_pool", "pool_relu", "pool_norm_relu"])
def test_max_pools(order):
    m = OnnxModel((3, 9, 9))
    x = m.conv("x", 3, 5, pads=[1, 1, 1, 1])
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [0, 0, 1, 0]}
    if order == "relu_pool":
        x = m.op("MaxPool", m.op("Relu", x), **pool)
    elif order == "pool_relu":
        x = m.op("Relu", m.op("MaxPool", x, **pool))
    else:
        x = m.op("Relu", m.norm(m.op("MaxPool", x, **pool), 5, positive=True))
    shape = import_onnx(m.model(x)).shapes[x]
    ann = lowered(m.model(m.head(x, int(np.prod(shape)))))
    assert kinds(ann) == ["input", "conv2d", "if", "maxpool2d", "flatten", "linear", "readout"]


def test_global_max_pool_and_norm_before_a_max_pool():
    m = OnnxModel((3, 8, 8))
    x = m.norm(m.op("Relu", m.conv("x", 3, 5)), 5, positive=True)
    x = m.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1])
    x = m.op("GlobalMaxPool", m.op("Relu", m.conv(x, 5, 6)))
    lowered(m.model(m.head(x, 6)))


def test_max_pools_in_a_row():
    m = OnnxModel((3, 14, 14))
    x = m.op("MaxPool", m.conv("x", 3, 4), kernel_shape=[1, 1])
    x = m.op("MaxPool", m.op("MaxPool", x, kernel_shape=[2, 2]), kernel_shape=[2, 1], strides=[2, 1])
    x = m.op("AveragePool", m.op("Min", m.op("Relu", x), np.float32(0.9)), kernel_shape=[2, 2])
    x = m.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    ann = lowered(m.model(m.head(x, 40)))
    assert kinds(ann)[1:9] == ["conv2d", "if", "maxpool2d", "maxpool2d", "if", "avgpool2d", "if", "maxpool2d"]


def test_an_upper_limit_around_a_max_pool():
    m = OnnxModel((3, 8, 8))
    x = m.op(
        "Min",
        m.op("MaxPool", m.op("Min", m.conv("x", 3, 4), np.float32(0.8)), kernel_shape=[2, 2]),
        np.float32(0.5),
    )
    ann = lowered(m.model(m.head(m.op("Max", x, np.float32(0)), 100)))
    assert list(ann.clips.values()) == [0.5]


@pytest.mark.parametrize("max_pool", ["spiking", "average"])
@pytest.mark.parametrize("shifts", [[0.0, -1.0, 0.25, -0.5], [-0.5, -1.0, -0.5, -3.0]])
def test_an_upper_limit_that_a_constant_brings_to_0_or_below(shifts, max_pool):
    """relu(min(x, 0.5) + shift): a channel whose limit is not above 0 is always 0."""
    m = OnnxModel((3, 6, 6))
    x = m.op(
        "Add",
        m.op("Min", m.conv("x", 3, 4), np.float32(0.5)),
        np.array(shifts, np.float32).reshape(1, 4, 1, 1),
    )
    ann = lowered(m.model(m.head(m.op("Relu", x), 64)), max_pool=max_pool)
    assert all((clip > 0).all() for clip in ann.clips.values())


@pytest.mark.parametrize("behind", ["conv", "LeakyRelu", "negative", "depth"])
def test_linear_max_pools_become_averages(behind):
    m = OnnxModel((3, 8, 8))
    x = m.op("MaxPool", m.conv("x", 3, 4), kernel_shape=[2, 2], strides=[2, 2])
    y = m.op(
        "AveragePool",
        m.op("Relu", m.conv("x", 3, 4)) if behind == "depth" else m.conv("x", 3, 4),
        kernel_shape=[2, 2],
        strides=[2, 2],
    )
    if behind == "conv":
        x, y = m.conv(x, 4, 4, 1), m.conv(y, 4, 4, 1)
    elif behind == "LeakyRelu":
        x, y = (m.op("LeakyRelu", name) for name in (x, y))
    elif behind == "negative":
        x, y = (m.op("Mul", name, np.float32(-2)) for name in (x, y))
    else:
        x, y = m.op("GlobalMaxPool", m.op("Relu", x)), m.op("GlobalAveragePool", y)
    n = 4 if behind == "depth" else 36
    one, other = (import_onnx(m.model(m.head(name, n))) for name in (x, y))
    constants = dict(zip(other.constants, one.constants.values()))  # the same weights under the other's names
    assert [v.shape for v in constants.values()] == [v.shape for v in other.constants.values()]
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    got = forward(lower_graph(one, max_pool="average"), images)
    assert close(got, evaluate(dataclasses.replace(other, constants=constants), images))


def test_max_pool_as_average_pool():
    m = OnnxModel((3, 8, 8))
    x = m.op(
        "Relu", m.op("MaxPool", m.conv("x", 3, 5, pads=[1, 1, 1, 1]), kernel_shape=[2, 2], strides=[2, 2])
    )
    ann = lower_graph(import_onnx(m.model(m.head(x, 80))), max_pool="average")
    assert kinds(ann) == ["input", "conv2d", "if", "avgpool2d", "flatten", "linear", "readout"]
    assert any("CHANGES" in note for note in ann.notes)


@pytest.mark.parametrize("before", ["relu", "conv", "two_pools", "norm", "input"])
@pytest.mark.parametrize("pads", [0, 1])
def test_average_pools(before, pads):
    m = OnnxModel((3, 9, 9))
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [pads] * 4, "count_include_pad": 1}
    x = "x" if before == "input" else m.conv("x", 3, 5, pads=[1, 1, 1, 1])
    if before in ("relu", "two_pools", "norm"):
        x = m.op("Relu", x)
    if before == "norm":
        x = m.norm(x, 5)
    x = m.op("AveragePool", x, **pool)
    if before == "two_pools":
        x = m.op("AveragePool", x, **pool)
    if before != "input":
        x = m.op("Relu", x)
    shape = import_onnx(m.model(x)).shapes[x]
    lowered(m.model(m.head(x, int(np.prod(shape)))))


def test_pads_are_folded():
    m = OnnxModel((3, 6, 6))
    pads = np.array([0, 0, 1, 2, 0, 0, 0, 1])
    x = m.op("Relu", m.conv(m.op("Pad", "x", pads), 3, 5, pads=[1, 0, 0, 0]))
    x = m.op("MaxPool", m.op("Pad", x, pads), kernel_shape=[3, 3], strides=[1, 1])
    x = m.op("AveragePool", m.op("Pad", x, pads), kernel_shape=[3, 3], strides=[2, 2])
    shape = import_onnx(m.model(x)).shapes[x]
    ann = lowered(m.model(m.head(x, int(np.prod(shape)))))
    assert kinds(ann) == ["input", "conv2d", "if", "maxpool2d", "avgpool2d", "flatten", "linear", "readout"]


@pytest.mark.parametrize("axes", [[2, 3], [-1], [2]], ids=str)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_means_over_space(axes, keepdims):
    m = OnnxModel((3, 6, 5), opset=18)
    x = m.op("ReduceMean", m.op("Relu", m.conv("x", 3, 5)), np.array(axes), keepdims=keepdims)
    shape = import_onnx(m.model(x)).shapes[x]
    lowered(m.model(m.head(x, int(np.prod(shape)))))


# Graphs


def test_residual_blocks():
    m = OnnxModel((3, 8, 8))
    a = m.op("Relu", m.norm(m.conv("x", 3, 4, pads=[1, 1, 1, 1]), 4))
    b = m.op("Relu", m.norm(m.conv(a, 4, 4, pads=[1, 1, 1, 1]), 4))
    c = m.op("Relu", m.op("Add", m.norm(m.conv(b, 4, 4, pads=[1, 1, 1, 1]), 4), a))
    d = m.op(
        "Relu",
        m.op(
            "Sub",
            m.norm(m.conv(c, 4, 6, strides=[2, 2], pads=[1, 1, 1, 1]), 6),
            m.norm(m.conv(c, 4, 6, 1, strides=[2, 2]), 6),
        ),
    )
    ann = lowered(m.model(m.head(m.op("GlobalAveragePool", d), 6)))
    assert kinds(ann).count("if") == 4 and kinds(ann).count("add") == 2


def test_pre_activation_blocks():
    m = OnnxModel((3, 8, 8))
    x = m.conv("x", 3, 4, pads=[1, 1, 1, 1])
    for _ in range(3):
        y = m.conv(m.op("Relu", m.norm(x, 4)), 4, 4, pads=[1, 1, 1, 1])
        y = m.conv(m.op("Relu", m.norm(y, 4)), 4, 4, pads=[1, 1, 1, 1])
        x = m.op("Add", x, y)
    x = m.op("GlobalAveragePool", m.op("Relu", m.norm(x, 4)))
    ann = lowered(m.model(m.head(x, 4)))
    assert kinds(ann).count("if") == 8  # three norms read the first block's current: neurons carry it on


def test_a_long_sum_gets_neurons():
    m = OnnxModel((3, 4, 4))
    x = m.conv("x", 3, 4)
    for _ in range(10):
        x = m.op("Add", x, m.conv(m.op("Relu", x), 4, 4, pads=[1, 1, 1, 1]))
    ann = lowered(m.model(m.head(m.op("GlobalAveragePool", x), 4)))
    assert any("no ReLU" in note for note in ann.notes)


def test_inverted_bottlenecks():
    m = OnnxModel((3, 8, 8))
    x = m.op("Clip", m.conv("x", 3, 4, pads=[1, 1, 1, 1]), np.float32(0), np.float32(6))
    x = m.conv(x, 4, 4, 1)
    for stride in (1, 2):
        y = m.op("Clip", m.norm(m.conv(x, 4, 16, 1), 16), np.float32(0), np.float32(6))
        y = m.op(
            "Clip",
            m.norm(m.conv(y, 16, 16, group=16, pads=[1, 1, 1, 1], strides=[stride] * 2), 16),
            np.float32(0),
            np.float32(6),
        )
        y = m.norm(m.conv(y, 16, 4, 1), 4)
        x = m.op("Add", x, y) if stride == 1 else y
    ann = lowered(m.model(m.head(m.op("GlobalAveragePool", x), 4)))
    assert kinds(ann).count("if") == 6  # at the end none: such short 1x1 convolutions cost less as one


def test_separable_convolutions_without_a_relu_between():
    m = OnnxModel((8, 8, 8))
    x = m.op("Relu", m.conv("x", 8, 32, pads=[1, 1, 1, 1]))
    x = m.op("Relu", m.conv(m.conv(x, 32, 32, group=32, pads=[1, 1, 1, 1]), 32, 32, 1))
    x = m.op("Relu", m.conv(m.conv(x, 32, 4, pads=[1, 1, 1, 1]), 4, 4, pads=[1, 1, 1, 1]))
    ann = lowered(m.model(m.head(x, 256)))
    assert kinds(ann).count("if") == 5


def test_concatenation_of_everything():
    m = OnnxModel((3, 6, 6))
    a, b = m.op("Relu", m.conv("x", 3, 4)), m.conv("x", 3, 5)
    x = m.op("Concat", a, b, m.op("Relu", b), axis=1)
    x = m.op("Relu", m.norm(x, 14))
    y = m.op("Concat", m.conv(x, 14, 3, 1), a, axis=-3)
    z = m.op("Relu", m.conv(y, 7, 14, group=7))
    w = m.op("Concat", m.op("Flatten", z), m.op("Flatten", m.op("GlobalAveragePool", x)), axis=1)
    lowered(m.model(m.gemm(w, 56 + 14, 10)))


def test_sums_of_concatenations():
    m = OnnxModel((3, 6, 6))
    a, b = m.op("Relu", m.conv("x", 3, 4)), m.op("LeakyRelu", m.conv("x", 3, 2))
    x = m.op("Add", m.op("Concat", a, b, axis=1), m.conv("x", 3, 6))
    y = m.op("Add", m.op("Concat", b, a, axis=1), m.op("Concat", b, a, axis=1))
    x = m.op("Relu", m.op("Sum", x, y, m.op("Min", m.op("Relu", m.conv("x", 3, 6)), np.float32(0.5))))
    x = m.op("Clip", x, np.float32(-1), np.float32(2))
    lowered(m.model(m.head(x, 96)))


def test_neurons_for_both_signs_are_shared():
    m = OnnxModel((3, 6, 6))
    x = m.conv("x", 3, 4, pads=[1, 1, 1, 1])
    a, b = (m.op("Relu", m.conv(x, 4, 5, pads=[1, 1, 1, 1])) for _ in range(2))
    ann = lowered(m.model(m.head(m.op("Add", m.op("Add", a, b), m.conv(x, 4, 5, 1)), 180)))
    assert kinds(ann).count("if") == 3


def test_scores_of_spikes_and_of_several_branches():
    m = OnnxModel((3, 6, 6))
    a = m.op("GlobalAveragePool", m.op("Relu", m.conv("x", 3, 4)))
    ann = lowered(m.model(m.op("Softmax", m.op("Flatten", a), axis=1)))
    assert ann.outputs[0].startswith("flatten") and kinds(ann)[-2:] == ["add", "readout"]
    build_circuit(ann.network)
    b = m.gemm(m.op("Flatten", a), 4, 3)
    lowered(m.model(m.op("Concat", m.op("Flatten", a), b, axis=1)))


# Layouts


def test_channels_last_input_and_flatten():
    m = OnnxModel((6, 7, 3))
    x = m.op("Sub", "x", m.floats(3))
    x = m.op("Transpose", x, perm=[0, 3, 1, 2])
    x = m.op("Relu", m.conv(x, 3, 5))
    x = m.op("Transpose", x, perm=[0, 2, 3, 1])
    x = m.op("Relu", m.op("Mul", x, m.floats(5)))
    x = m.op("Relu", m.op("Add", m.op("MatMul", x, m.floats(5, 4)), m.floats(4)))
    ann = lowered(m.model(m.gemm(m.op("Reshape", x, np.array([0, -1])), 80, 10)))
    assert (
        ann.network.input.source_axes == (2, 0, 1)
        and ann.input_shape == (6, 7, 3)
        and ann.network.input_shape == (3, 6, 7)
    )


def test_means_of_flattened_and_of_channels_last_maps():
    m = OnnxModel((3, 6, 6))
    x = m.op("Relu", m.conv("x", 3, 5))
    a = m.op("ReduceMean", m.op("Reshape", x, np.array([0, 5, -1])), axes=[2], keepdims=0)
    b = m.op("ReduceMean", m.op("Transpose", x, perm=[0, 2, 3, 1]), axes=[1, 2], keepdims=0)
    lowered(m.model(m.op("Gemm", m.op("Concat", a, b, axis=1), m.floats(10, 4))))


def test_products_with_the_pixels_of_the_input():
    m = OnnxModel((4, 5, 3))
    x = m.op("Pad", m.op("Relu", m.op("MatMul", "x", m.floats(3, 6))), np.zeros(8, np.int64))
    assert lowered(m.model(m.head(x, 120))).network.input_shape == (3, 4, 5)


def test_an_input_read_twice():
    m = OnnxModel((5, 6, 3))
    a = m.op("Relu", m.gemm(m.op("Flatten", "x"), 90, 8))
    b = m.op("Relu", m.conv(m.op("Transpose", "x", perm=[0, 3, 1, 2]), 3, 2))
    y = m.op("Concat", a, m.op("Flatten", b), axis=1)
    assert lowered(m.model(m.gemm(y, 8 + 24, 4))).network.input.source_axes == (2, 0, 1)


def test_a_vector_read_as_an_image():
    m = OnnxModel((48,))
    x = m.op("Reshape", "x", np.array([-1, 3, 4, 4]))
    ann = lowered(m.model(m.head(m.op("Relu", m.conv(x, 3, 5)), 20)))
    assert (
        ann.network.input_shape == (3, 4, 4)
        and ann.input_shape == (48,)
        and ann.network.input.source_axes is None
    )


@pytest.mark.parametrize("leading", [(), (1,)])
def test_constants_of_features_behind_a_flatten(leading):
    m = OnnxModel((3, 6, 6))
    x = m.op("Reshape", m.op("Relu", m.conv("x", 3, 5)), np.array([0, *leading, 80]))
    x = m.op("Mul", m.op("Add", x, m.floats(80)), m.floats(1, 80))
    if not leading:
        x = m.norm(x, 80)
    x = m.op("MatMul", x, m.floats(80, 10))
    ann = lowered(m.model(x))
    assert kinds(ann) == ["input", "conv2d", "if", "flatten", "linear", "readout"]


def keras_block(m, x, n_in, n_out, pads):
    """Channels last: transposed for the convolution and back, with a bias and norms behind it."""
    x = m.op("Pad", x, np.array([0, pads, pads, 0, 0, pads + 1, pads, 0]))
    x = m.op("Transpose", x, perm=[0, 3, 1, 2])
    x = m.op("Transpose", m.conv(x, n_in, n_out, bias=False), perm=[0, 2, 3, 1])
    x = m.op("Relu", m.op("Add", x, m.floats(n_out)))
    return m.op("Add", m.op("Mul", x, m.floats(n_out)), m.floats(1, 1, 1, n_out))


def test_a_channels_last_network():
    m = OnnxModel((8, 9, 3), opset=18)
    x = keras_block(m, "x", 3, 6, 0)
    x = keras_block(m, x, 6, 4, 1)
    a = m.op(
        "Transpose",
        m.op("AveragePool", m.op("Transpose", x, perm=[0, 3, 1, 2]), kernel_shape=[2, 2], strides=[2, 2]),
        perm=[0, 2, 3, 1],
    )
    b = m.op("ReduceMean", a, np.array([1, 2]), keepdims=0)
    c = m.op("Reshape", a, np.array([-1, int(np.prod(import_onnx(m.model(a), output=a).shapes[a]))]))
    y = m.op("Concat", b, c, axis=-1)
    ann = lowered(m.model(m.gemm(y, import_onnx(m.model(y), output=y).shapes[y][0], 10)))
    assert ann.network.input.source_axes == (2, 0, 1)


# The spiking counterpart


def spiking(ann, images):
    """The network with thresholds that are the largest activations, which `forward` shows."""
    peaks = {}

    def observe(name, current, activation):
        peaks[name] = max(peaks.get(name, 0), activation.max())

    scores = forward(ann, images, observe=observe)
    layers = [
        dataclasses.replace(layer, v_threshold=max(peaks[layer.name], 1e-3)) if layer.kind == "if" else layer
        for layer in ann.network.layers
    ]
    return ann.network.replace(layers=tuple(layers), shift="bias"), scores


def test_the_border_of_a_constant_is_exact_in_spikes():
    """The only currents are the constant's, so even a few steps lose nothing."""
    m = OnnxModel((2, 5, 4))
    x = m.op("Add", "x", np.array([0.5, -1.5], np.float32)[:, None, None])
    x = m.op("GlobalAveragePool", m.op("Relu", m.conv(x, 2, 3, pads=[1, 0, 2, 1])))
    ann = lowered(m.model(m.head(x, 3)))
    fired = []
    forward(
        ann,
        np.zeros((1, 2, 5, 4)),
        observe=lambda name, current, activation: fired.append((name, activation[0, 0])),
    )
    inside = np.pad(np.ones((5, 4)), ((1, 2), (0, 1)))
    np.testing.assert_array_equal(fired[0][1], 1)
    np.testing.assert_array_equal(fired[1][1], 1 - inside)
    assert [ann.clips[name] for name, _ in fired[:2]] == [1, 1]
    network, _ = spiking(ann, np.zeros((1, 2, 5, 4), np.float32))
    circuit = build_circuit(network.replace(shift="none"), 4)
    border = run_reference(circuit, np.zeros((1, 2, 5, 4), np.float32))
    np.testing.assert_array_equal(border[0].spikes[0], np.ones((4, 1, 5, 4)))
    np.testing.assert_array_equal(border[1].spikes[0, :, 0], np.broadcast_to(1 - inside, (4, 8, 5)))


@pytest.mark.parametrize(("arithmetic", "n_steps", "error"), [("float32", 128, 0.01), ("int8", 64, 0.1)])
def test_spikes_come_to_the_same_scores(arithmetic, n_steps, error):
    """A LeakyRelu, a norm before a padded convolution, a sum without a ReLU, scores of spikes."""
    m = OnnxModel((3, 6, 6))
    x = m.norm(m.op("LeakyRelu", m.conv("x", 3, 6), alpha=0.3), 6)
    x = m.op("Relu", m.conv(x, 6, 6, pads=[1, 1, 1, 1]))
    x = m.op("Add", m.conv(x, 6, 6, pads=[1, 1, 1, 1]), x)
    x = m.op("Add", m.conv(m.op("Relu", m.norm(x, 6)), 6, 6, 1), x)
    x = m.op("Flatten", m.op("GlobalAveragePool", m.op("Relu", m.conv(x, 6, 8, pads=[0, 1, 0, 1]))))
    ann = lowered(m.model(x))
    images = np.random.default_rng(2).normal(size=(4, 3, 6, 6)).astype(np.float32)
    network, scores = spiking(ann, images)
    outputs = simulate(
        network.replace(input_range=(-5, 5)), images, n_steps=n_steps, arithmetic=arithmetic
    ).outputs
    assert np.abs(outputs - scores).max() < error * np.abs(scores).max()


def test_wide_networks_take_few_samples_at_a_time(monkeypatch):
    m = OnnxModel((3, 8, 8))
    ann = lower_graph(import_onnx(m.model(m.head(m.op("Relu", m.conv("x", 3, 4)), 144))))
    assert ann.batch == 64
    widest = 4 * (3 * 64 + 2 * 4 * 36)  # the input, the convolution's result, and as much again
    for n in (1, 5, 64, 100):
        monkeypatch.setattr("evsnn.conversion.lowering.ann.BATCH_BYTES", n * widest)
        fresh = dataclasses.replace(ann)
        assert fresh.batch == min(n, 64)
        seen = set()
        forward(
            fresh,
            np.zeros((70, 3, 8, 8), np.float32),
            observe=lambda name, current, activation, seen=seen: seen.add(len(current)),
        )
        assert max(seen) == fresh.batch


def test_what_is_observed():
    m = OnnxModel((3, 6, 6))
    x = m.op("Relu", m.conv("x", 3, 4))
    x = m.op("Clip", m.op("Add", m.conv(x, 4, 4, 1), x), np.float32(0), np.float32(0.4))
    ann = lowered(m.model(m.head(x, 64)))
    images = np.random.default_rng(3).normal(size=(5, 3, 6, 6)).astype(np.float32)
    seen = []
    scores = forward(ann, images, batch=2, observe=lambda *what: seen.append(what))
    assert [name for name, _, _ in seen] == ["/relu1", "/clip4", "readout"] * 3
    for name, current, activation in seen:
        limit = {"/relu1": np.inf, "/clip4": np.float32(0.4)}.get(name)
        np.testing.assert_array_equal(activation, current if limit is None else np.clip(current, 0, limit))
    np.testing.assert_array_equal(
        np.concatenate([activation for name, _, activation in seen if name == "readout"]), scores
    )
    first, second = seen[0][2], seen[1][1]
    want = (
        np.einsum("oc,ncyx->noyx", ann.network.layers[3].weight[:, :, 0, 0], first)
        + ann.network.layers[3].bias[:, None, None]
        + first
    )
    np.testing.assert_allclose(second, want, rtol=1e-4, atol=1e-5)


# What is refused


def refused(build, shape=(3, 6, 6)):
    m = OnnxModel(shape)
    x = build(m)
    size = int(np.prod(import_onnx(m.model(x)).shapes[x]))
    with pytest.raises(ModelError) as error:
        lower_graph(import_onnx(m.model(m.head(x, size))))
    return str(error.value)


REFUSED = {
    "a variance below 0": (
        lambda m: m.op(
            "Relu",
            m.op(
                "BatchNormalization", m.conv("x", 3, 5), *(np.full(5, v, np.float32) for v in (1, 0, 0, -1))
            ),
        ),
        "a variance with its epsilon is not above 0",
    ),
    "padding with ones": (
        lambda m: m.conv(m.op("Pad", "x", np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(1)), 3, 4),
        "values that are not 0",
    ),
    "padding before a max pool of currents": (
        lambda m: m.op("MaxPool", m.op("Pad", "x", np.array([0, 0, 1, 1, 0, 0, 1, 1])), kernel_shape=[2, 2]),
        "zeros are padded to values that may be negative",
    ),
    "upper limit below 0": (
        lambda m: m.op("Clip", m.conv("x", 3, 5), np.float32(0), np.float32(0)),
        "upper limit is not above 0",
    ),
    "division by zero": (
        lambda m: m.op("Div", m.conv("x", 3, 5), np.zeros(1, np.float32)),
        "divides by the input, or by zero",
    ),
    "a vector as a map": (
        lambda m: m.op(
            "Relu",
            m.conv(
                m.op("Reshape", m.op("Relu", m.head("x", 108, 8)), np.array([0, 8, 1, 1])),
                8,
                4,
                pads=[2, 2, 2, 2],
            ),
        ),
        "a vector becomes a map",
    ),
    "dilated max pool": (
        lambda m: m.op("MaxPool", m.op("Relu", m.conv("x", 3, 5)), kernel_shape=[2, 2], dilations=[2, 2]),
        "the pool is dilated",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart_is_refused(case):
    build, message = REFUSED[case]
    assert message in refused(build)


@pytest.mark.parametrize("at_input", [True, False])
def test_the_hint_names_a_constant_for_each_position(at_input, monkeypatch):
    """Small mean images become matrices; what is too large for that stands better outside the model."""
    monkeypatch.setattr("evsnn.conversion.lowering.linear.MAX_MATRIX", 100)
    m = OnnxModel((3, 6, 6))
    image = m.constant(np.arange(108, dtype=np.float32).reshape(3, 6, 6))
    x = m.op("Sub", "x" if at_input else m.op("Relu", m.conv("x", 3, 3, pads=[1, 1, 1, 1])), image)
    with pytest.raises(ModelError, match="differs between positions") as error:
        lower_graph(import_onnx(m.model(m.head(m.op("Relu", m.conv(x, 3, 4, pads=[1, 1, 1, 1])), 144))))
    assert f"the constant '{image}' of shape (3, 6, 6)" in str(error.value)
    assert "Keep maps" not in str(error.value)
    assert ("do it to the samples" in str(error.value)) == at_input


def test_the_hint_names_the_values_before_they_are_moved():
    m = OnnxModel((3, 6, 6))
    head = m.conv(m.op("Relu", m.conv("x", 3, 4)), 4, 2)
    moved = m.op("Transpose", head, perm=[0, 2, 3, 1])
    model = m.model(moved)
    with pytest.raises(ModelError, match=f"moved after they are computed.*--scores {head}$"):
        lower_graph(import_onnx(model, output=moved))
    assert lower_graph(import_onnx(model, output=head))
    resized = m.op("Resize", head, "", np.array([1, 1, 1.5, 1.5], np.float32), mode="nearest")
    with pytest.raises(ModelError, match="moved after they are computed") as error:
        lower_graph(import_onnx(m.model(resized)))
    assert f"--scores {resized}" not in str(error.value)


@pytest.mark.parametrize("end", ["DepthToSpace", "ConvTranspose", "Resize", "both"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_maps_that_end_larger_than_their_layers_are_given_by_phases(end):
    """Segmentation and detection heads: each phase is a map of its own, with every second row and column."""
    m = OnnxModel((3, 6, 6))
    x = m.op("Relu", m.conv("x", 3, 8, pads=[1, 1, 1, 1]))
    if end == "DepthToSpace":
        x = m.op("DepthToSpace", m.conv(x, 8, 8), blocksize=2)
    elif end == "ConvTranspose":
        x = m.op("ConvTranspose", x, m.floats(8, 2, 3, 2), m.floats(2), strides=[2, 1], pads=[1, 0, 1, 0])
    else:
        x = m.op("Resize", x, "", np.array([1, 1, 2, 2], np.float32), mode="nearest")
        x = m.op("Sigmoid", m.conv(x, 8, 2, pads=[1, 1, 1, 1])) if end == "both" else x
    proto = m.model(x)
    images = np.random.default_rng(0).normal(size=(12, 3, 6, 6)).astype(np.float32)
    conversion = convert_model(proto, images, Options(n_steps=(64,)))
    assert any("is larger than the layers it comes from" in note for note in conversion.notes)
    tensor = conversion.ann.outputs[0]
    wanted = evaluate(import_onnx(proto), images, outputs=(tensor,))[tensor]
    whole = np.full(wanted.shape, np.nan, np.float32)
    outputs = forward_all(conversion.ann, images)
    for name, values in outputs.items():
        a, b = (int(number) for number in name.split(".")[-2:])
        down, right = 2, 1 if end == "ConvTranspose" else 2
        whole[:, :, a::down, b::right] = values
    np.testing.assert_allclose(whole, wanted, rtol=1e-4, atol=1e-4)
    result = simulate(conversion.network, images)
    assert result.named_outputs.keys() == outputs.keys()
    assert conversion.targets.outputs.keys() == outputs.keys()


def test_outputs_that_are_no_scores():
    m = OnnxModel((3, 6, 6))
    x = m.op("Relu", m.conv("x", 3, 5))
    moved = m.op("Flatten", m.op("Transpose", x, perm=[0, 2, 3, 1]))
    for output in (x, m.op("Flatten", x), moved):  # the last one as it is before it is moved, which is noted
        ann = lower_graph(import_onnx(m.model(output)))
        assert ann.network.output_shape == (5, 4, 4) and ann.network.task == "regress"
    assert any("Transpose, Flatten at the end are left to its reader" in note for note in ann.notes)
    assert lower_graph(import_onnx(m.model(moved), output=moved)).network.output_shape == (80,)  # a matrix
    with pytest.raises(ModelError, match="treatment of max pools"):
        lower_graph(import_onnx(m.model(x)), max_pool="none")


@pytest.mark.parametrize(
    ("op", "changes", "message"),
    [
        ("Gemm", {"attributes": {"transA": 1}}, "transA"),
        ("BatchNormalization", {"attributes": {"training_mode": 1}}, "training mode"),
        ("Mul", {"inputs": ("x", "x")}, "both depend on the input"),
        ("Mul", {"op": "Max", "inputs": ("x", "x")}, "compares tensors"),
        ("Mul", {"op": "Sigmoid"}, "no spiking counterpart"),
        ("Relu", {"inputs": ("c0",)}, "is constant"),
        ("Relu", {"op": "Transpose", "attributes": {"perm": (1, 0, 2, 3)}}, "moves the batch axis"),
        ("Relu", {"op": "Concat", "attributes": {"axis": 0}}, "joins samples"),
        ("Relu", {"op": "AveragePool", "attributes": {"kernel_shape": (2, 2)}}, "not of the shape"),
        ("Relu", {"op": "GlobalAveragePool"}, "not of the shape"),
        ("Relu", {"op": "MatMul", "inputs": ("c0", "batchnormalization2")}, "stands on the left"),
        ("Relu", {"op": "MatMul", "inputs": ("batchnormalization2", "c0")}, "not a matrix"),
        ("Gemm", {"inputs": ("flatten4", "flatten4")}, "its weight depends"),
        ("Gemm", {"inputs": ("flatten4", "c1")}, "more than one vector"),
        ("Conv", {"attributes": {"group": 2}}, "weight and input do not fit"),
        ("Flatten", {"op": "Reshape", "outputs": ("x",)}, "mixes the batch"),
    ],
    ids=str,
)
def test_graphs_that_did_not_come_from_a_file_are_checked(op, changes, message):
    m = OnnxModel((3, 6, 6))
    x = m.op("Relu", m.norm(m.conv(m.op("Mul", "x", np.float32(2)), 3, 4), 4))
    graph = import_onnx(m.model(m.head(x, 64)))
    nodes = [node if node.op != op else dataclasses.replace(node, **changes) for node in graph.nodes]
    with pytest.raises(ModelError, match=message):
        lower_graph(dataclasses.replace(graph, nodes=tuple(nodes)))


def test_a_permuted_vector_is_refused():
    m = OnnxModel((48,))
    x = m.op("Transpose", m.op("Reshape", "x", np.array([-1, 4, 4, 3])), perm=[0, 3, 1, 2])
    with pytest.raises(ModelError, match="permuted vector"):
        lower_graph(import_onnx(m.model(m.head(m.conv(x, 3, 5), 20))))


def test_weights_that_overflow_are_refused():
    m = OnnxModel((3, 6, 6))
    x = m.conv("x", 3, 4)
    for _ in range(2):
        x = m.op("Mul", x, np.float32(1e30))
    with pytest.raises(ModelError, match=r"/relu\d.*NaN or infinity"):
        lower_graph(import_onnx(m.model(m.head(m.op("Relu", x), 64))))
