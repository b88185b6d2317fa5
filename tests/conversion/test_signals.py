"""1-D networks: signals (channels, length) are maps of height 1, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_builder import OnnxModel
from onnx_models import model, node
from test_lowering import kinds, lowered

import evsnn
from evsnn import ModelError
from evsnn.conversion.onnx.importer import import_onnx


def conv(m, x, n_in, n_out, kernel=3, group=1, **attributes):
    """A convolution of a signal."""
    weight = m.floats(n_out, n_in // group, kernel, scale=(n_in // group * kernel) ** -0.5)
    return m.op("Conv", x, weight, m.floats(n_out, scale=0.3), group=group, **attributes)


def electrocardiogram(seed=0):
    """Norm, convolutions, pools and a residual sum, as in networks for electrocardiograms."""
    m = OnnxModel((2, 40), seed)
    x = m.op("Relu", m.norm(conv(m, m.norm("x", 2), 2, 6, 7, pads=[3, 3], strides=[2]), 6))
    x = m.op("MaxPool", x, kernel_shape=[3], strides=[2], pads=[1, 1])
    y = m.op("Relu", m.norm(conv(m, x, 6, 6, 3, pads=[1, 1], group=2), 6))
    y = m.norm(conv(m, y, 6, 6, 3, pads=[2, 2], dilations=[2]), 6)
    x = m.op("Relu", m.op("Add", x, y))
    x = m.op("AveragePool", x, kernel_shape=[2], strides=[2])
    x = m.op("Relu", conv(m, x, 6, 6, 3, group=6, auto_pad="SAME_UPPER"))
    x = m.op("Flatten", m.op("GlobalAveragePool", x))
    return m.model(m.gemm(x, 6, 4))


def test_an_electrocardiogram():
    ann = lowered(electrocardiogram())
    assert ann.input_shape == (2, 40)
    assert ann.network.input_shape == (2, 1, 40)
    assert "maxpool2d" in kinds(ann)


@pytest.mark.parametrize(
    "attributes",
    [{}, {"pads": [2, 1]}, {"strides": [2]}, {"dilations": [3]}, {"auto_pad": "SAME_LOWER"}, {"group": 2}],
    ids=str,
)
def test_convolutions(attributes):
    m = OnnxModel((4, 17))
    x = m.op("Relu", conv(m, "x", 4, 6, 3, **attributes))
    length = import_onnx(m.model(x), output=x).shapes[x][1]
    assert kinds(lowered(m.model(m.head(x, 6 * length)))) == [
        "input", "conv2d", "if", "flatten", "linear", "readout",
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["GlobalMaxPool", "GlobalAveragePool", "ReduceMean", "Flatten"])
def test_ends(end):
    m = OnnxModel((3, 12))
    x = m.op("Relu", conv(m, "x", 3, 5))
    x = m.op("ReduceMean", x, axes=[2], keepdims=0) if end == "ReduceMean" else m.op(end, x)
    x = x if end == "ReduceMean" else m.op("Flatten", x)
    lowered(m.model(m.gemm(x, 50 if end == "Flatten" else 5, 3)))


@pytest.mark.parametrize("opset", [10, 13, 18])
def test_zeros_before_a_causal_convolution(opset):
    m = OnnxModel((2, 12), opset=opset)
    x, n_in = "x", 2
    for _ in range(2):
        pads = [0, 0, 4, 0, 0, 0]
        padded = (
            m.op("Pad", x, pads=pads)
            if opset == 10
            else m.op("Pad", x, np.array(pads))
            if opset == 13
            else m.op("Pad", x, np.array([4, 0]), "", np.array([-1]))
        )
        x, n_in = m.op("Relu", conv(m, padded, n_in, 4, 3, dilations=[2])), 4
    ann = lowered(m.model(m.head(x, 48)))
    assert kinds(ann).count("if") == 2


def test_constants_of_signals():
    m = OnnxModel((3, 10))
    x = m.op("Sub", "x", m.floats(3, 1))
    x = m.op("Mul", x, m.floats(1, 3, 1))
    x = m.op("Relu", m.op("Add", conv(m, x, 3, 4), m.floats(4, 1)))
    x = m.op("PRelu", conv(m, m.op("Mul", x, np.float32(0.5)), 4, 4, pads=[1, 1]), m.floats(4, 1))
    lowered(m.model(m.head(x, 32)))


def test_signals_as_keras_writes_them():
    """(N, length, channels), and a 2-D convolution over a map of height 1 that the file makes itself."""
    m = OnnxModel((12, 3))
    x = m.op("Transpose", "x", perm=[0, 2, 1])
    x = m.op("Unsqueeze", x, np.array([2]))
    x = m.op("Relu", m.conv(x, 3, 4, (1, 3), pads=[0, 1, 0, 1]))
    x = m.op("Squeeze", m.op("MaxPool", x, kernel_shape=[1, 2], strides=[1, 2]), np.array([2]))
    x = m.op("Transpose", x, perm=[0, 2, 1])
    ann = lowered(m.model(m.gemm(m.op("Flatten", x), 24, 5)))
    assert ann.network.input_shape == (3, 1, 12)


def test_two_kinds_of_signals_in_one_network():
    m = OnnxModel((3, 12))
    x = m.op("Relu", conv(m, "x", 3, 4))
    a = m.op("Flatten", m.op("Relu", conv(m, x, 4, 2, strides=[2])))
    b = m.op("Flatten", m.op("MaxPool", x, kernel_shape=[5], strides=[5]))
    lowered(m.model(m.gemm(m.op("Concat", a, b, axis=1), 16, 3)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_samples_are_signals():
    """Converted and run, with samples (n, channels, length)."""
    images = np.random.default_rng(0).random((40, 2, 40), np.float32)
    network = evsnn.convert(electrocardiogram(), calibration=images, n_steps=8)
    assert network.input_shape == (2, 1, 40)
    whole = evsnn.simulate(network, images[:, :, None])
    assert np.array_equal(evsnn.simulate(network, images).outputs, whole.outputs)
    assert np.array_equal(evsnn.simulate(network, images[3]).outputs, whole.outputs[3:4])
    reference = evsnn.simulate(network, images[:2], backend="reference")
    assert np.array_equal(reference.outputs, whole.outputs[:2])


@pytest.mark.parametrize(
    "operator, match",
    [
        (node("Conv", "x w", kernel_shape=[3, 3]), r"kernel_shape does not fit.*got \(3, 3\), expected 1"),
        (node("Conv", "x w", strides=[1, 1]), "strides does not fit"),
        (node("Conv", "x w", pads=[1, 1, 1, 1]), "pads does not fit its input.*expected 2 integers"),
        (node("Conv", "x w", pads=[-1, 1]), "pads is not usable"),
        (node("Conv", "x w", strides=[0]), "strides is not usable"),
        (node("Conv", "x square"), "weights do not fit its input"),
        (node("Conv", "x long"), "kernel is larger"),
        (node("MaxPool", "x", kernel_shape=[2, 2]), "kernel_shape does not fit"),
        (node("MaxPool", "x", kernel_shape=[11]), "kernel is larger"),
        (node("Pad", "x few"), "pads do not fit its axes"),
        (node("Pad", "x two - far"), "pads do not fit its axes"),
    ],
)
def test_what_is_refused(operator, match):
    stored = {
        "w": np.ones((2, 3, 3), np.float32),
        "square": np.ones((2, 3, 3, 3), np.float32),
        "long": np.ones((2, 3, 11), np.float32),
        "few": np.array([0, 0, 1, 0]),
        "two": np.array([1, 1]),
        "far": np.array([3]),
    }
    with pytest.raises(ModelError, match=match) as error:
        import_onnx(model([operator], (3, 10), stored))
    assert operator.op_type in str(error.value.where)


def test_volumes_are_refused():
    stored = {"w": np.ones((2, 3, 3, 3, 3), np.float32)}
    with pytest.raises(ModelError, match=r"only 1-D and 2-D convolutions.*channels, and train again"):
        import_onnx(model([node("Conv", "x w")], (3, 5, 5, 5), stored))
    with pytest.raises(ModelError, match=r"only 1-D and 2-D pools.*axis of channels"):
        import_onnx(model([node("MaxPool", "x", kernel_shape=[2])], (9,)))
