"""What an operator means depends on the opset: attributes became inputs, outputs told the mode.

Each form is read as onnxruntime computes it, or refused by name.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import assert_close, model, node, run

from evsnn.conversion.onnx.evaluate import evaluate
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.errors import ModelError

RNG = np.random.default_rng(8)
NORM = {name: RNG.uniform(0.5, 2, 3).astype(np.float32) for name in "sbmv"}
LIMITS = {"low": np.float32(-0.5), "high": np.float32(0.5)}


def norm(opset: int, outputs: str = "y", **attributes):
    return model(
        [node("BatchNormalization", "x s b m v", outputs, **attributes)], (3, 4, 4), NORM, opset=opset
    )


def agrees(proto, shape=(3, 4, 4)) -> None:
    images = np.random.default_rng(3).standard_normal((4, *shape), np.float32)
    assert_close(evaluate(import_onnx(proto), images), run(proto, images))


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 17])
def test_a_batch_norm_in_inference(opset):
    agrees(norm(opset))
    agrees(norm(opset, **({"spatial": 1} if opset < 9 else {}), epsilon=0.1, momentum=0.5))


@pytest.mark.parametrize("opset", [7, 8, 9, 13])
@pytest.mark.parametrize("outputs", ["y a c d e", "y a"])
def test_a_batch_norm_of_several_outputs_normalises_by_the_batch(opset, outputs):
    """Before opset 14 nothing else says that it is in training mode; onnxruntime obeys, too."""
    proto = norm(opset, outputs)
    with pytest.raises(ModelError, match=r"training mode: got \d outputs.*model\.eval") as error:
        import_onnx(proto)
    assert "BatchNormalization" in str(error.value.where)
    if outputs == "y a c d e":
        images = np.random.default_rng(3).standard_normal((4, 3, 4, 4), np.float32)
        by_the_batch = images - images.mean((0, 2, 3), keepdims=True)
        np.testing.assert_allclose(
            run(proto, images),
            by_the_batch / np.sqrt(images.var((0, 2, 3), keepdims=True) + 1e-5) * NORM["s"].reshape(-1, 1, 1)
            + NORM["b"].reshape(-1, 1, 1),
            rtol=1e-4,
            atol=1e-5,
        )


def test_a_batch_norm_per_element():
    with pytest.raises(ModelError, match="per element"):
        import_onnx(norm(8, spatial=0))


@pytest.mark.parametrize("opset", [7, 10])
def test_old_dropouts_have_no_training_mode(opset):
    agrees(model([node("Dropout", "x", "d mask", ratio=0.3), node("Relu", "d")], (5,), opset=opset), (5,))


def test_dropouts_that_drop():
    def dropout(ratio, training):
        stored = {"r": np.float32(ratio), "t": np.bool_(training)}
        return model([node("Dropout", "x r t", "d"), node("Relu", "d")], (5,), stored)

    agrees(dropout(0.5, False), (5,))
    agrees(dropout(0.0, True), (5,))
    with pytest.raises(ModelError, match="dropout in training mode"):
        import_onnx(dropout(0.5, True))
    stored = {"r": np.float32(0.5), "t": np.bool_(True), "w": np.ones((5, 2), np.float32)}
    with pytest.raises(ModelError, match="dropout in training mode"):  # of weights
        import_onnx(model([node("Dropout", "w r t", "d"), node("MatMul", "x d")], (5,), stored))


@pytest.mark.parametrize("opset", [7, 11, 12, 13, 17])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_over_what_was_one_axis(opset, op):
    agrees(model([node(op, "x")], (6,), opset=opset), (6,))
    agrees(model([node(op, "x", axis=1)], (6, 1, 1), opset=opset), (6, 1, 1))
    agrees(model([node(op, "x", axis=2)], (1, 6), opset=opset), (1, 6))
    if opset < 13:
        with pytest.raises(ModelError, match="several axes at once"):
            import_onnx(model([node(op, "x")], (2, 3), opset=opset))
    else:
        agrees(model([node(op, "x")], (2, 3), opset=opset), (2, 3))


@pytest.mark.parametrize("opset", [11, 13])
def test_softmax_of_a_constant(opset):
    """Its default axis was 1; then it became the last."""
    stored = {"c": RNG.standard_normal((1, 3, 1)).astype(np.float32)}
    agrees(model([node("Softmax", "c", "s"), node("Mul", "x s")], (3, 4), stored, opset=opset), (3, 4))


def test_attributes_became_inputs():
    axes = {"a": np.array([2, 3]), "two": np.array([2])}
    for opset in (7, 10):
        agrees(model([node("Clip", "x", min=-0.5, max=0.5)], (3, 4, 4), opset=opset))
        agrees(model([node("Clip", "x")], (3, 4, 4), opset=opset))
        agrees(model([node("Pad", "x", pads=[0, 0, 1, 0, 0, 0, 2, 1])], (3, 4, 4), opset=opset))
    for opset in (11, 12, 13, 18):
        agrees(model([node("Clip", "x low high")], (3, 4, 4), LIMITS, opset=opset))
        agrees(model([node("Clip", "x - high")], (3, 4, 4), LIMITS, opset=opset))
        pads = {"p": np.array([0, 0, 1, 0, 0, 0, 2, 1])}
        agrees(model([node("Pad", "x p")], (3, 4, 4), pads, opset=opset))
    for opset in (7, 11, 13, 17):
        agrees(model([node("ReduceMean", "x", axes=[2, 3], keepdims=0)], (3, 4, 4), opset=opset))
    agrees(model([node("ReduceMean", "x a", keepdims=0)], (3, 4, 4), axes, opset=18))
    for opset in (7, 11):
        around = [
            node("Unsqueeze", "x", "u", axes=[2]),
            node("Relu", "u", "r"),
            node("Squeeze", "r", axes=[2]),
        ]
        agrees(model(around, (3, 4, 4), opset=opset))
    around = [node("Unsqueeze", "x two", "u"), node("Relu", "u", "r"), node("Squeeze", "r two")]
    agrees(model(around, (3, 4, 4), axes, opset=13))


@pytest.mark.parametrize("opset", [7, 10, 11, 19])
@pytest.mark.parametrize("include", [0, 1])
def test_average_pools_and_the_padding(opset, include):
    """`count_include_pad` is as old as opset 7, `ceil_mode` came with 10, dilations with 19."""
    options = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "count_include_pad": include}
    agrees(model([node("AveragePool", "x", **options)], (3, 5, 6), opset=opset), (3, 5, 6))
    if opset == 19:
        dilated = model([node("AveragePool", "x", **options, dilations=[2, 2])], (3, 7, 6), opset=opset)
        agrees(dilated, (3, 7, 6))


@pytest.mark.parametrize(
    "op, attributes",
    [("Add", {"broadcast": 1, "axis": 1}), ("Gemm", {"broadcast": 1}), ("Clip", {"low": 0.0})],
)
def test_attributes_that_are_gone(op, attributes):
    """Opsets from 7 on know no `broadcast`: such a file is not valid, and nothing is guessed."""
    stored = {"w": np.ones((4, 4) if op == "Gemm" else (1, 4), np.float32)}
    with pytest.raises(ModelError, match="cannot be computed: got TypeError"):
        import_onnx(model([node(op, "x" if op == "Clip" else "x w", **attributes)], (4,), stored, opset=7))
