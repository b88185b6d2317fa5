"""ONNX models in the making, for tests: one method call a node, weights from a seeded generator."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


class OnnxModel:
    """A graph that grows; methods return the name of what they make."""

    def __init__(self, shape, seed=0, opset=17):
        self.shape, self.opset = tuple(shape), opset
        self.rng = np.random.default_rng(seed)
        self.nodes, self.initializers = [], []

    def constant(self, array):
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind, *inputs, **attributes):
        """A node; arrays among its inputs become constants."""
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        out = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [out], name=f"/{out}", **attributes))
        return out

    def floats(self, *shape, scale=1.0):
        return (scale * self.rng.normal(size=shape)).astype(np.float32)

    def conv(self, x, n_in, n_out, kernel=3, bias=True, group=1, **attributes):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        weight = self.floats(
            n_out, n_in // group, *kernel, scale=(n_in // group * kernel[0] * kernel[1]) ** -0.5
        )
        extra = [self.floats(n_out, scale=0.3)] if bias else []
        return self.op("Conv", x, weight, *extra, group=group, **attributes)

    def gemm(self, x, n_in, n_out, **attributes):
        return self.op(
            "Gemm",
            x,
            self.floats(n_out, n_in, scale=n_in**-0.5),
            self.floats(n_out, scale=0.3),
            transB=1,
            **attributes,
        )

    def norm(self, x, channels, positive=False):
        gamma = self.floats(channels)
        gamma = np.abs(gamma) + np.float32(0.1) if positive else gamma
        return self.op(
            "BatchNormalization",
            x,
            gamma,
            self.floats(channels, scale=0.5),
            self.floats(channels, scale=0.3),
            np.abs(self.floats(channels)) + np.float32(0.2),
        )

    def head(self, x, n_in, n_out=10):
        """Flatten and a linear layer."""
        return self.gemm(self.op("Flatten", x), n_in, n_out)

    def model(self, output):
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *self.shape])]
        graph = helper.make_graph(
            self.nodes,
            "test",
            inputs,
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
