"""Random graphs of everything that can be lowered: each computes what onnxruntime computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_builder import OnnxModel
from test_lowering import lowered

from evsnn import ModelError
from evsnn.conversion.onnx.importer import import_onnx

MOVES = ("shuffle", "slice", "crop", "zeros", "larger", "transposed", "turned") * 2


class Grower:
    """Random graphs of what can be lowered; `draw` makes every choice."""

    def __init__(self, draw, moves=False):
        self.draw, self.moves = draw, moves
        size = self.one_of(range(1, 8)), self.one_of(range(1, 8))
        self.m = OnnxModel((self.one_of((1, 2, 4)), *size), seed=draw(st.integers(0, 2**32 - 1)))
        self.tensors = [("x", self.m.shape, False)]  # name, shape, whether it is a ReLU's, perhaps pooled
        self.loose = {"x"}

    def one_of(self, values):
        return self.draw(st.sampled_from(list(values)))

    def add(self, name, *sources, fired=False):
        if name not in {t[0] for t in self.tensors}:
            self.tensors.append((name, import_onnx(self.m.model(name), output=name).shapes[name], fired))
        self.loose -= set(sources)
        self.loose.add(name)
        return name

    def grow(self):
        m, (x, (n, height, width), fired) = self.m, self.one_of(self.tensors)
        window = {
            "strides": [self.one_of((1, 2)), self.one_of((1, 2, 3))],
            "pads": [self.one_of((0, 0, 1)) for _ in range(4)],
        }
        kernel = [
            self.one_of(range(1, 1 + min(3, size + window["pads"][i] + window["pads"][i + 2])))
            for i, size in enumerate((height, width))
        ]
        inside = all(p < kernel[i % 2] for i, p in enumerate(window["pads"]))
        what = self.one_of(
            (
                "conv",
                "conv",
                "depthwise",
                "norm",
                "relu",
                "relu",
                "clip",
                "leaky",
                "average",
                "max",
                "max_relu",
                "add",
                "concat",
                "constant",
                "last",
                *(MOVES if self.moves else ()),
            )
        )
        if what == "conv":
            group = self.one_of([g for g in (1, 2) if n % g == 0])
            self.add(
                m.conv(x, n, group * self.one_of((1, 3)), kernel, self.draw(st.booleans()), group, **window),
                x,
            )
        elif what == "depthwise":
            self.add(m.conv(x, n, n * self.one_of((1, 2)), kernel, group=n, **window), x)
        elif what == "norm":
            self.add(m.norm(x, n), x)
        elif what == "relu":
            self.add(m.op("Relu", x), x, fired=True)
        elif what == "clip":
            self.add(m.op("Clip", x, np.float32(0), np.float32(0.7)), x, fired=True)
        elif what == "leaky":
            self.add(m.op("PRelu", x, m.floats(n, 1, 1)), x)
        elif what == "average" and inside:
            counted = self.one_of((0, 1)) if self.moves else 1
            pooled = m.op("AveragePool", x, kernel_shape=kernel, count_include_pad=counted, **window)
            self.add(pooled, x, fired=fired and counted)
        elif what == "max" and inside and fired:
            covered = not any(window["pads"]) and all(
                k >= s for k, s in zip(kernel, window["strides"])
            )  # else onnxruntime's shapes differ from ONNX's
            self.add(
                m.op(
                    "MaxPool",
                    x,
                    kernel_shape=kernel,
                    ceil_mode=self.one_of((0, 1)) if covered else 0,
                    **window,
                ),
                x,
                fired=True,
            )
        elif what == "max_relu" and inside:
            pooled = m.op("MaxPool", x, kernel_shape=kernel, **window)
            pooled = m.norm(pooled, n, positive=True) if self.draw(st.booleans()) else pooled
            self.add(m.op("Relu", pooled), x, fired=True)
        elif what == "add":
            y = self.one_of([name for name, shape, _ in self.tensors if shape == (n, height, width)])
            self.add(m.op(self.one_of(("Add", "Sub")), x, y), x, y)
        elif what == "concat":
            y = self.one_of([name for name, shape, _ in self.tensors if shape[1:] == (height, width)])
            self.add(m.op("Concat", x, y, axis=1), x, y)
        elif what == "constant":
            self.add(m.op(self.one_of(("Add", "Mul", "Sub")), x, m.floats(n, 1, 1)), x)
        elif what == "last":
            last = m.op("Mul", m.op("Transpose", x, perm=[0, 2, 3, 1]), m.floats(n))
            self.add(m.op("Transpose", last, perm=[0, 3, 1, 2]), x)

        elif what == "shuffle":
            order = self.draw(st.permutations(range(n)))
            self.add(m.op("Gather", x, np.array(order), axis=1), x)
        elif what == "slice":
            start, step = self.one_of(range(n)), self.one_of((1, 1, 2, -1))
            self.add(
                m.op(
                    "Slice",
                    x,
                    np.array([start]),
                    np.array([-99 if step < 0 else 99]),
                    np.array([1]),
                    np.array([step]),
                ),
                x,
            )
        elif what == "crop":
            at = self.one_of(range(height)), self.one_of(range(width))
            steps = self.one_of((1, 2)), self.one_of((1, 3))
            self.add(m.op("Slice", x, np.array(at), np.array([99, 99]), np.array([2, 3]), np.array(steps)), x)
        elif what == "zeros":
            around = [self.one_of((0, 0, 1, 2)) for _ in range(6)]
            self.add(m.op("Pad", x, np.array([0, *around[:3], 0, *around[3:]])), x)
        elif what == "larger" and height * width <= 64:
            scales = np.array([1, 1, self.one_of((1, 2, 3)), self.one_of((1, 2))], np.float32)
            self.add(m.op("Resize", x, "", scales, mode="nearest"), x)
        elif what == "transposed" and height * width <= 64:
            group = self.one_of([g for g in (1, 2) if n % g == 0])
            weight = m.floats(n, self.one_of((1, 2)), *kernel, scale=0.5)
            pads = [min(p, 1) if height > 1 and width > 1 else 0 for p in window["pads"]]
            weight = weight if all(k > 1 for k in kernel) or not any(pads) else m.floats(n, 1, 2, 2)
            strides = window["strides"]
            self.add(m.op("ConvTranspose", x, weight, group=group, strides=strides, pads=pads), x)
        elif what == "turned":
            self.add(m.op("Transpose", x, perm=[0, 1, 3, 2]), x)

    def finish(self):
        shapes = {name: shape for name, shape, _ in self.tensors}
        ends = sorted(self.loose)
        joined = self.m.op("Concat", *(self.m.op("Flatten", name) for name in ends), axis=1)
        return self.m.model(self.m.gemm(joined, sum(int(np.prod(shapes[name])) for name in ends), 5))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_graphs(data):
    grower = Grower(data.draw)
    for _ in range(data.draw(st.integers(1, 14))):
        grower.grow()
    lowered(grower.finish())


@pytest.mark.slow
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_graphs_with_moved_elements(data):
    """Maxima of places that are in no map have no counterpart; all else has."""
    grower = Grower(data.draw, moves=True)
    for _ in range(data.draw(st.integers(1, 9))):
        grower.grow()
    try:
        lowered(grower.finish())
    except ModelError as error:
        assert "MaxPool" in str(error) or "weights" in str(error) or "negative" in str(error)
