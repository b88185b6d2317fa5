"""From process start to printed result: the demo model, beside onnxruntime with the same network as an ANN.

    python tests/benchmarks/start.py [--rounds N] [--python PYTHON]

Whole processes, in turns, medians: `python -m evsnn.run` with kept machine code, the same with code that
numba compiles anew (once), and a script that loads the network with onnxruntime, classifies the same 100
digits and prints. PYTHON is an environment with evsnn and onnxruntime; an editable install starts slower.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from evsnn import IF, AvgPool2d, Conv2d, Flatten, Linear
from evsnn.files.demo import demo

OTHER = """
import numpy, onnxruntime
session = onnxruntime.InferenceSession({model!r}, providers=["CPUExecutionProvider"])
print(session.run(None, {{"x": numpy.load({images!r})}})[0].argmax(1))
"""


def write_onnx(path: Path) -> None:
    """The demo model as an ANN."""
    nodes, weights, at = [], [], "x"
    for i, layer in enumerate(demo().layers[1:-1]):
        inputs, to = [at], f"y{i}"
        if isinstance(layer, (Conv2d, Linear)):
            for what in ("weight", "bias"):
                weights.append(
                    numpy_helper.from_array(np.array(getattr(layer, what), np.float32), f"{what}{i}")
                )
                inputs.append(f"{what}{i}")
        if isinstance(layer, Conv2d):
            nodes.append(
                helper.make_node(
                    "Conv",
                    inputs,
                    [to],
                    pads=[layer.padding[j] for j in (0, 1, 2, 3)],
                    strides=list(layer.stride),
                )
            )
        elif isinstance(layer, Linear):
            nodes.append(helper.make_node("Gemm", inputs, [to], transB=1))
        elif isinstance(layer, IF):
            nodes.append(helper.make_node("Relu", inputs, [to]))
        elif isinstance(layer, AvgPool2d):
            nodes.append(
                helper.make_node(
                    "AveragePool", inputs, [to], kernel_shape=list(layer.kernel), strides=list(layer.stride)
                )
            )
        elif isinstance(layer, Flatten):
            nodes.append(helper.make_node("Flatten", inputs, [to]))
        at = to
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 1, 28, 28]), (at, ["n", 10]))
    )
    save(
        helper.make_model(
            helper.make_graph(nodes, "demo", [x], [y], weights),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=9,
        ),
        str(path),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--python", default=sys.executable)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_onnx(folder / "demo.onnx")
        np.save(folder / "images.npy", demo().samples.images.astype(np.float32).reshape(-1, 1, 28, 28))
        commands = {
            "evsnn.run": [arguments.python, "-m", "evsnn.run"],
            "onnxruntime": [
                arguments.python,
                "-c",
                OTHER.format(model=str(folder / "demo.onnx"), images=str(folder / "images.npy")),
            ],
        }
        environment = os.environ | {"EVSNN_CACHE_DIR": str(folder / "code")}

        def seconds(what: str) -> float:
            started = time.perf_counter()
            subprocess.run(commands[what], env=environment, cwd=folder, check=True, capture_output=True)
            return time.perf_counter() - started

        print(f"evsnn.run, first start, which compiles: {seconds('evsnn.run'):.2f} s")
        seconds("onnxruntime")
        found = {what: [] for what in commands}
        for _ in range(arguments.rounds):
            for what in commands:
                found[what].append(seconds(what))
        for what, times in found.items():
            print(
                f"{what}: median {np.median(times):.3f} s, {min(times):.3f} to {max(times):.3f} ({len(times)}"
                " starts)"
            )


if __name__ == "__main__":
    main()
