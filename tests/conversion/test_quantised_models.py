"""Quantised models: weights are the floats that they stand for, activations keep their limits."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import assert_close, model, node, run
from test_lowering import kinds

from evsnn import ModelError
from evsnn.conversion.lowering.ann import forward
from evsnn.conversion.lowering.lowering import lower_graph
from evsnn.conversion.onnx.evaluate import evaluate
from evsnn.conversion.onnx.importer import import_onnx

RNG = np.random.default_rng(2)
LINEAR = {
    "w": RNG.integers(-127, 128, (6, 8)).astype(np.int8),
    "s": np.float32(0.01),
    "z": np.int8(3),
    "v": RNG.standard_normal((8, 3)).astype(np.float32),
}


@pytest.mark.parametrize("kind", ["tensor", "axis", "blocks", "int32", "uint8"])
def test_weights(kind):
    stored, given, options = dict(LINEAR), "w s z", {}
    if kind == "axis":
        stored |= {"s": RNG.uniform(0.01, 0.02, 8).astype(np.float32), "z": np.arange(8, dtype=np.int8)}
        options = {"axis": 1}
    if kind == "blocks":
        stored |= {"s": RNG.uniform(0.01, 0.02, (3, 8)).astype(np.float32)}
        given, options = "w s", {"axis": 0, "block_size": 2}
    if kind == "int32":
        stored |= {"w": LINEAR["w"].astype(np.int32)}
        given = "w s"
    if kind == "uint8":
        stored |= {"w": LINEAR["w"].view(np.uint8), "z": np.uint8(128)}
    nodes = [
        node("DequantizeLinear", given, "f", **options),
        node("MatMul", "x f", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r v"),
    ]
    proto = model(nodes, (6,), stored, opset=21)
    proto.ir_version = 10
    images = RNG.standard_normal((5, 6)).astype(np.float32)
    graph = import_onnx(proto)
    assert_close(evaluate(graph, images), run(proto, images))
    assert any("quantised weights are read as the float32 numbers" in note for note in graph.notes)
    ann = lower_graph(graph)
    assert_close(forward(ann, images), run(proto, images))


def fake_quantised(zero, relu: bool, opset: int = 17):
    """Weights and activations with a QuantizeLinear and a DequantizeLinear each."""
    stored = {
        **LINEAR,
        "b": np.float32(0.5) * np.ones(8, np.float32),
        "xs": np.float32(0.02),
        "xz": np.int8(-5),
        "hs": np.float32(0.015),
        "hz": zero,
        "vs": np.float32(0.02),
        "vz": np.int8(0),
    }
    return model(
        [
            node("QuantizeLinear", "x xs xz", "xq"),
            node("DequantizeLinear", "xq xs xz", "xf"),
            node("DequantizeLinear", "w s z", "f"),
            node("Gemm", "xf f b", "h"),
            *([node("Relu", "h", "r")] if relu else []),
            node("QuantizeLinear", f"{'r' if relu else 'h'} hs hz", "hq"),
            node("DequantizeLinear", "hq hs hz", "hf"),
            node("QuantizeLinear", "v vs vz", "vq"),
            node("DequantizeLinear", "vq vs vz", "vf"),
            node("MatMul", "hf vf"),
        ],
        (6,),
        stored,
        opset=opset,
    )


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("zero", [np.uint8(0), np.int8(-128)])
def test_activations_from_0_on_are_relus_with_a_limit(relu, zero):
    """Tools leave out the ReLU before such a QuantizeLinear, because its limits are one."""
    proto = fake_quantised(zero, relu)
    images = (RNG.standard_normal((200, 6)) * 0.5).astype(np.float32)
    graph = import_onnx(proto)
    ann = lower_graph(graph)
    assert kinds(ann) == ["input", "linear", "if", "linear", "readout"]
    ((_, limit),) = ann.clips.items()
    np.testing.assert_allclose(limit, 255 * 0.015, rtol=1e-6)
    theirs = run(proto, images)
    ours = forward(ann, images)
    assert np.abs(ours - evaluate(graph, images)).max() <= 1e-5 * np.abs(ours).max()
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()  # their rounding to 8 bits
    assert any("keep their limits and are not rounded" in note for note in graph.notes)


def test_activations_of_both_signs_are_passed_on():
    graph = import_onnx(fake_quantised(np.int8(7), True))
    assert [n.op for n in graph.nodes] == ["Gemm", "Relu", "MatMul"]


@pytest.mark.parametrize(
    "nodes, match",
    [
        ([node("QuantizeLinear", "x xs xz", "q"), node("Relu", "q")], "computes with quantised integers"),
        ([node("QuantizeLinear", "x many xz", "q"), node("DequantizeLinear", "q xs xz")], "more than one"),
        ([node("DequantizeLinear", "w many z", "f"), node("MatMul", "x f")], "scales do not fit"),
        ([node("QLinearMatMul", "x xs xz w s z xs xz")], "a quantised model that computes"),
        ([node("ConvInteger", "x w")], "a quantised model that computes"),
    ],
    ids=["integers", "scales", "weights", "QLinearMatMul", "ConvInteger"],
)  # fmt: skip
def test_what_is_refused(nodes, match):
    stored = {
        **LINEAR,
        "xs": np.float32(0.02),
        "xz": np.int8(0),
        "many": np.full(5, 0.1, np.float32),
    }
    with pytest.raises(ModelError, match=match):
        import_onnx(model(nodes, (6,), stored))
