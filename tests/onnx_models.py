"""Small ONNX models for tests, and what onnxruntime makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def model(
    nodes: Sequence[onnx.NodeProto],
    shape,
    weights=(),
    *,
    out: str = "y",
    opset: int = 17,
    batch="N",
    **fields,
) -> onnx.ModelProto:
    """A model from "x" (batch, *shape) to `out`.

    Parameters
    ----------
    nodes : sequence of NodeProto
    shape : sequence of int or str
        Of "x", without the batch.
    weights : mapping of str to array
    batch : str or int
    fields
        More of the graph: `inputs`, `outputs` (sequences of ValueInfoProto), `functions`, `opset_imports`.
    """
    inputs = fields.get("inputs", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])])
    outputs = fields.get("outputs", [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)])
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(weights).items()]
    graph = helper.make_graph(list(nodes), "net", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", opset), *fields.get("opset_imports", ())]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets, functions=fields.get("functions", ()))


def node(op: str, inputs: str, outputs: str = "y", **attributes) -> onnx.NodeProto:
    """A node; `inputs` and `outputs` are names with spaces between, "-" an absent one."""
    return helper.make_node(
        op, [n.replace("-", "") if n == "-" else n for n in inputs.split()], outputs.split(), **attributes
    )


def run(proto: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """The first output, by onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def assert_close(ours: np.ndarray, theirs: np.ndarray, rtol: float = 1e-4) -> None:
    """Equal within `rtol` of the largest number there is; to the bit where they are no floats."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    if ours.dtype.kind != "f":
        assert np.array_equal(ours, theirs)
        return
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * float(np.abs(theirs).max(initial=1e-30)))
