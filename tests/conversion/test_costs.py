"""What a conversion costs beside the model that was given: multiply-adds, weights and neurons."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_builder import OnnxModel
from test_lowering import kinds, lowered

from evsnn import Conv2d, Linear
from evsnn.conversion.conversion import convert_model
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.conversion.onnx.macs import macs
from evsnn.conversion.report.explanation import explain


def separable(size=10):
    m = OnnxModel((16, size, size))
    x = m.conv(m.conv("x", 16, 16, group=16), 16, 32, 1)
    x = m.op("Flatten", m.op("GlobalAveragePool", m.op("Relu", x)))
    return m.model(m.gemm(x, 32, 4))


def leaky():
    m = OnnxModel((16,))
    x = m.op("LeakyRelu", m.gemm("x", 16, 64), alpha=0.1)
    x = m.op("LeakyRelu", m.gemm(x, 64, 64), alpha=0.1)
    return m.model(m.gemm(x, 64, 4))


@pytest.mark.parametrize(
    "proto, expected",
    [(separable(), 16 * 9 * 64 + 32 * 16 * 64 + 128), (leaky(), 64 * 16 + 64 * 64 + 256)],
    ids=["separable", "leaky"],
)
def test_multiply_adds_are_those_of_the_model(proto, expected):
    """Not those of layers that were made one, or of neurons for both signs; rows sum to the total."""
    graph = import_onnx(proto)
    assert sum(macs(graph).values()) == expected
    images = np.random.default_rng(0).random((64, *graph.shapes[graph.input]), np.float32)
    conversion = convert_model(proto, images)
    found = explain(conversion, sweep=(), samples=8)
    assert found.macs == expected == sum(layer.macs for layer in found.layers)
    assert set(conversion.ann.macs) == {
        layer.name for layer in conversion.ann.network.layers if layer.kind in ("if", "readout")
    }


def test_multiply_adds_of_every_kind_of_layer():
    m = OnnxModel((3, 6, 6))
    x = m.op("Relu", m.conv("x", 3, 4, pads=[1, 0, 1, 0], strides=[2, 1]))  # 3 x 4
    x = m.op("Relu", m.op("ConvTranspose", x, m.floats(4, 5, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]))
    shape = import_onnx(m.model(x)).shapes[x]
    x = m.op("Relu", m.op("MatMul", m.op("Transpose", x, perm=[0, 2, 3, 1]), m.floats(5, 6)))
    graph = import_onnx(m.model(m.gemm(m.op("Flatten", x), 6 * shape[1] * shape[2], 2)))
    first, second, third, last = macs(graph).values()
    assert first == 4 * 3 * (2 + 3 + 3) * 3 * 4  # rows inside the map, columns
    taps = [
        sum(0 <= y * 2 + k - 1 < n for y in range(size) for k in range(3))
        for size, n in zip((3, 4), shape[1:])
    ]
    assert second == 20 * taps[0] * taps[1]
    assert third == 30 * shape[1] * shape[2]
    assert last == 12 * shape[1] * shape[2]


def mobilenet(size: int):
    """MobileNetV2 with random weights, and the number of its weights."""
    m = OnnxModel((3, size, size))
    weights = []

    def conv(x, n_in, n_out, kernel, stride=1, group=1):
        weights.append(n_in // group * n_out * kernel * kernel)
        options = {"pads": [kernel // 2] * 4, "strides": [stride] * 2}
        return m.norm(m.conv(x, n_in, n_out, kernel, bias=False, group=group, **options), n_out)

    def relu6(x):
        return m.op("Clip", x, np.float32(0), np.float32(6))

    x, n = relu6(conv("x", 3, 32, 3, 2)), 32
    blocks = [  # widening, channels, repeats, stride
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    for widening, channels, repeats, first_stride in blocks:
        for i in range(repeats):
            stride = first_stride if i == 0 else 1
            y = x if widening == 1 else relu6(conv(x, n, n * widening, 1))
            y = relu6(conv(y, n * widening, n * widening, 3, stride, n * widening))
            y = conv(y, n * widening, channels, 1)
            x = m.op("Add", x, y) if stride == 1 and n == channels else y
            n = channels
    x = relu6(conv(x, n, 1280, 1))
    return m.model(m.head(m.op("GlobalAveragePool", x), 1280, 10)), sum(weights) + 12_800


@pytest.mark.slow
def test_linear_bottlenecks_keep_their_width():
    """24 -> 144 behind 144 -> 24 does not become 144 -> 144: there are neurons of both signs between them."""
    proto, own = mobilenet(64)
    ann = lowered(proto, n=2)
    layers = ann.network.layers
    stored = sum(layer.weight.size for layer in layers if isinstance(layer, (Conv2d, Linear)))
    assert stored < 1.02 * own
    splits = [layer for layer in layers if layer.name.endswith(".split")]
    assert len(splits) == 17 and all(layer.paired for layer in splits)
    shapes = ann.network.shapes
    assert sorted({shapes[layer.name][0] for layer in splits}) == [16, 24, 32, 64, 96, 160, 320]


def test_short_linear_layers_become_one():
    m = OnnxModel((20,))
    x = m.op("Relu", m.gemm("x", 20, 30))
    x = m.op("Relu", m.gemm(m.gemm(x, 30, 40), 40, 5))
    assert kinds(lowered(m.model(m.gemm(x, 5, 3)))).count("if") == 2


def test_what_is_never_negative_needs_neurons_of_one_sign():
    m = OnnxModel((3, 12, 12))
    x = m.op("Relu", m.conv("x", 3, 8, pads=[1, 1, 1, 1]))
    x = m.op("AveragePool", x, kernel_shape=[5, 5], pads=[2, 2, 2, 2], count_include_pad=1)
    x = m.op("AveragePool", x, kernel_shape=[5, 5], pads=[2, 2, 2, 2], count_include_pad=1)
    ann = lowered(m.model(m.head(m.op("Relu", m.conv(x, 8, 4)), 400)))
    carried = [layer.name for layer in ann.network.layers if layer.name.endswith(".carried")]
    assert [ann.network.shapes[name] for name in carried] == [(8, 12, 12)]


def test_currents_that_many_layers_read_are_carried_on():
    """DenseNet: each layer reads all before it through a norm and a ReLU of its own."""
    m = OnnxModel((3, 8, 8))
    x, n, own = m.op("Relu", m.conv("x", 3, 8, pads=[1, 1, 1, 1])), 8, 216
    for _ in range(6):
        y = m.conv(m.op("Relu", m.norm(x, n)), n, 16, 1)
        y = m.conv(m.op("Relu", m.norm(y, 16)), 16, 4, pads=[1, 1, 1, 1])
        own += 16 * n + 4 * 16 * 9
        x, n = m.op("Concat", x, y, axis=1), n + 4
    x = m.op("GlobalAveragePool", m.op("Relu", m.norm(x, n)))
    ann = lowered(m.model(m.head(x, n, 4)))
    stored = sum(x.weight.size for x in ann.network.layers if isinstance(x, (Conv2d, Linear)))
    assert stored < 2.2 * own  # each of the 3x3 layers would be computed up to six times
