"""Channels that are constant whatever the input leave the network, and nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_builder import OnnxModel

import evsnn
from evsnn.conversion.balance.options import Options
from evsnn.conversion.conversion import convert_model
from evsnn.conversion.lowering.ann import forward_all
from evsnn.conversion.lowering.lowering import lower_graph
from evsnn.conversion.onnx.evaluate import evaluate
from evsnn.conversion.onnx.importer import import_onnx


def decayed(model, share=0.5, tiny=1e-30, seed=0):
    """The model with a share of the rows of its weights, but not of the last, next to 0."""
    rng = np.random.default_rng(seed)
    tensors = [t for t in model.graph.initializer if len(t.dims) in (2, 4)][:-1]
    for tensor in tensors:
        array = numpy_helper.to_array(tensor).copy()
        rows = rng.random(len(array)) < share
        array[rows] *= tiny
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def separable(seed=0):
    """A convolution, depthwise and pointwise ones, a pool, a branch that is concatenated, a sum."""
    m = OnnxModel((3, 9, 8), seed=seed)
    x = m.op("Relu", m.conv("x", 3, 16, pads=[1, 1, 1, 1]))
    x = m.op("Relu", m.op("Conv", x, m.floats(16, 1, 3, 3), m.floats(16), group=16, pads=[1, 1, 1, 1]))
    x = m.op("Relu", m.conv(x, 16, 24, 1))
    x = m.op("Clip", m.op("Conv", x, m.floats(24, 1, 3, 3), m.floats(24), group=24), *map(np.float32, (0, 6)))
    y = m.op("MaxPool", m.op("Relu", m.conv(x, 24, 12, 1)), kernel_shape=[2, 2], strides=[2, 2])
    z = m.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = m.op("Relu", m.conv(m.op("Concat", y, z, axis=1), 36, 20, 1))
    x = m.op("Relu", m.op("Add", m.conv(x, 20, 20, 1), x))
    x = m.op("Relu", m.gemm(m.op("Flatten", x), 20 * 3 * 3, 14))
    return m.model(m.gemm(x, 14, 5))


def weights_of(network) -> int:
    return sum(layer.weight.size for layer in network.layers if layer.kind in ("conv2d", "linear"))


@pytest.mark.parametrize("tiny", [0.0, 1e-30])
@pytest.mark.parametrize("seed", range(4))
def test_the_outputs_stay(seed, tiny):
    model = decayed(separable(seed), 0.6, tiny, seed)
    graph = import_onnx(model)
    ann = lower_graph(graph)
    assert any("channels of neurons are left out" in note for note in ann.notes)
    assert weights_of(ann.network) < 0.6 * weights_of(lower_graph(import_onnx(separable(seed))).network)
    images = np.random.default_rng(1).normal(size=(20, 3, 9, 8)).astype(np.float32)
    wanted = evaluate(graph, images)
    for scale in (1.0, 1e3):
        wanted = evaluate(graph, scale * images)
        got = forward_all(ann, scale * images)["readout"]
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_models_without_such_channels_stay_as_they_are():
    ann = lower_graph(import_onnx(separable()))
    assert not any("left out: they" in note for note in ann.notes)
    shapes = [ann.network.shapes[layer.name][0] for layer in ann.network.layers if layer.kind == "if"]
    assert shapes == [16, 16, 24, 24, 12, 20, 20, 14]


def test_a_layer_keeps_a_channel():
    """Even if all of them are dead: then the model's output is constant."""
    m = OnnxModel((2, 6, 6), seed=0)
    x = m.op("Relu", m.op("Conv", "x", np.zeros((4, 2, 3, 3), np.float32), -np.ones(4, np.float32)))
    x = m.op("Relu", m.conv(x, 4, 3, 1))
    model = m.model(m.head(x, 48, 3))
    ann = lower_graph(import_onnx(model))
    assert [ann.network.shapes[layer.name][0] for layer in ann.network.layers if layer.kind == "if"] == [1, 1]
    images = np.random.default_rng(0).normal(size=(3, 2, 6, 6)).astype(np.float32)
    wanted = evaluate(import_onnx(model), images)
    np.testing.assert_allclose(forward_all(ann, images)["readout"], wanted, rtol=1e-5, atol=1e-6)


def test_a_constant_above_0_stays_before_a_padded_convolution():
    """Zeros around the map are not that constant, so the border would change."""
    m = OnnxModel((2, 6, 6), seed=0)
    weight = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    weight[:2] = 0
    x = m.op("Relu", m.op("Conv", "x", weight, np.array([0.5, -0.5, 0.1, 0.1], np.float32)))
    for pads, kept in (([1, 1, 1, 1], 3), ([0, 0, 0, 0], 2)):
        size = 4 if any(pads) else 2
        y = m.op("Relu", m.conv(x, 4, 3, 3, pads=pads))
        model = m.model(m.head(y, 3 * size * size, 3))
        ann = lower_graph(import_onnx(model))
        first = next(layer for layer in ann.network.layers if layer.kind == "if")
        assert ann.network.shapes[first.name][0] == kept
        images = np.random.default_rng(1).normal(size=(4, 2, 6, 6)).astype(np.float32)
        wanted = evaluate(import_onnx(model), images)
        np.testing.assert_allclose(forward_all(ann, images)["readout"], wanted, rtol=1e-4, atol=1e-5)


def test_limits_and_batch_norms_follow_their_channels():
    """Thresholds without data are those of the channels that are left."""
    m = OnnxModel((3, 8, 8), seed=2)
    x = m.op("Relu", m.norm(m.conv("x", 3, 10), 10))
    x = m.op("Relu", m.norm(m.conv(x, 10, 8), 8))
    model = decayed(m.model(m.head(x, 8 * 16, 4)), 0.5, 0.0, 1)
    found = convert_model(model, None, Options((16,), granularity="channel", threshold="max"))
    for layer in found.network.layers:
        if layer.kind == "if":
            assert layer.v_threshold.shape == found.network.shapes[layer.name][:1]
            mean, deviation = found.ann.moments[layer.name]
            assert len(mean) == len(deviation) == len(layer.v_threshold)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_spikes_and_integers_follow(tmp_path):
    model = decayed(separable(), 0.5)
    images = np.random.default_rng(3).random((80, 3, 9, 8), np.float32)
    onnx.save(model, tmp_path / "m.onnx")
    network = evsnn.convert(tmp_path / "m.onnx", images, n_steps=128, threshold="max", task="regress")
    wanted = evaluate(import_onnx(model), images[:8])
    for arithmetic in ("float32", "int8"):
        outputs = [
            evsnn.simulate(network, images[:8], arithmetic=arithmetic, backend=backend).outputs
            for backend in ("numba", "reference")
        ]
        np.testing.assert_array_equal(*outputs)
        assert np.abs(outputs[0] - wanted).max() < 0.2 * np.abs(wanted).max()


def test_groups_keep_their_channels():
    """Of two outputs for each input, one may be constant: the groups would no longer be equally large."""
    m = OnnxModel((3, 6, 6), seed=4)
    weight = np.random.default_rng(1).normal(size=(6, 1, 3, 3)).astype(np.float32)
    weight[[0, 3]] = 0
    x = m.op("Relu", m.op("Conv", "x", weight, -np.ones(6, np.float32), group=3))
    model = m.model(m.head(x, 6 * 16, 3))
    ann = lower_graph(import_onnx(model))
    images = np.random.default_rng(0).normal(size=(3, 3, 6, 6)).astype(np.float32)
    wanted = evaluate(import_onnx(model), images)
    np.testing.assert_allclose(forward_all(ann, images)["readout"], wanted, rtol=1e-4, atol=1e-5)
