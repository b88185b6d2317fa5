"""Announced memory against what a process takes: networks of odd shapes, each command in a fresh process.

    python tests/benchmarks/announced_memory.py [--only NAME,...] [--check]

For each case it prints the largest total that the command announced on stderr before it allocated, the peak
of its resident memory (ru_maxrss of the process), and their ratio. An announcement has two ends if there are
queues: spikes fill them, and how many there will be is not known before, so "up to" is with the queues full,
and "announced" without them. The ratio is that of the peak to the nearest number between both. With
``--check`` the exit status is 1 if a peak is more than 10 % and 10 MB above the one or below the other.
Networks and models are made from seeds, in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import evsnn
from evsnn import IF, Add, AvgPool2d, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout

SHARE, SLACK_MB = 0.10, 10.0
_UNITS = {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
_SIZE = r"([0-9.]+) (B|kB|MB|GB)"
_SAID = re.compile(
    rf"memory: .*?(?:queues up to {_SIZE}.*?)?, {_SIZE} with the [0-9.]+ \w+ in use$", re.MULTILINE
)


@dataclass(frozen=True)
class Case:
    """A command on a network.

    Parameters
    ----------
    name : str
    make : callable (folder)
        Writes what the command reads.
    words : str
        The command, without ``python -m``; it runs in the folder.
    """

    name: str
    make: Callable[[Path], None]
    words: str


def normal(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(len(shape))
    return (rng.standard_normal(shape, np.float32) * np.float32(np.prod(shape[1:]) ** -0.5)).astype(
        np.float32
    )


def network(*layers, **options) -> Callable[[Path], None]:
    """Saves a network; layers are made when it is called."""

    def make(folder: Path) -> None:
        options.setdefault("n_steps", 8)
        made = [layer() if callable(layer) else layer for layer in layers]
        evsnn.save(folder / "net.h5", Network([*made, Readout()], input_range=(0, 1), **options))

    return make


def with_samples(make: Callable[[Path], None], *shape: int, events: bool = False, dtype="float32"):
    """The same, and a file of samples."""

    def both(folder: Path) -> None:
        make(folder)
        rng = np.random.default_rng(0)
        images = rng.random(shape, np.float32)
        np.savez(folder / "x.npz", images=(images < 0.05).astype(dtype) if events else images.astype(dtype))

    return both


def dense(n_in: int, n_out: int):
    return lambda: Linear(normal(n_out, n_in))


def conv(n_in: int, n_out: int, *kernel: int, **options):
    return lambda: Conv2d(normal(n_out, n_in, *kernel), **options)


def sums(n_layers: int, n_parts: int) -> Callable[[Path], None]:
    layers: list = [Input((1,), "events", name="i0")]
    for i in range(n_layers):
        layers += [Add(name=f"a{i}", inputs=(f"i{i}",) * 32), Add(name=f"b{i}", inputs=(f"a{i}",) * n_parts)]
        layers.append(IF(name=f"i{i + 1}"))
    return network(*layers, Linear([[1.0], [1.0]]))


def onnx_model(*shape: int, channels: int = 64, classes: int = 10, depth: int = 3) -> Callable[[Path], None]:
    """Convolutions of 3x3 and a linear layer, and samples to calibrate with."""

    def make(folder: Path) -> None:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        nodes, weights, last, n_in = [], [], "x", shape[0]
        for i in range(depth):
            weights.append(numpy_helper.from_array(normal(channels, n_in, 3, 3), f"w{i}"))
            nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
            nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
            last, n_in = f"r{i}", channels
        nodes.append(helper.make_node("Flatten", [last], ["f"]))
        weights.append(numpy_helper.from_array(normal(n_in * shape[1] * shape[2], classes), "v"))
        nodes.append(helper.make_node("Gemm", ["f", "v"], ["y"]))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "m", [x], [y], weights)
        onnx.save(
            helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]),
            folder / "m.onnx",
        )
        np.savez(folder / "x.npz", images=np.random.default_rng(0).random((64, *shape), np.float32))

    return make


def cases() -> Iterator[Case]:
    small = network(Input((4,)), dense(4, 8), IF(), dense(8, 3))
    wide = network(
        Input((1, 1, 20_000)), conv(1, 1, 1, 3000), IF(), AvgPool2d((1, 1000)), Flatten(), dense(17, 4)
    )
    big = network(Input((4000,)), dense(4000, 4000), IF(), dense(4000, 10))
    vgg = network(
        Input((3, 32, 32)),
        conv(3, 64, 3, 3, padding=1), IF(), conv(64, 64, 3, 3, padding=1), IF(), AvgPool2d(2),
        conv(64, 128, 3, 3, padding=1), IF(), AvgPool2d(4), Flatten(), dense(2048, 10),
    )  # fmt: skip
    poisson = network(
        Input((1, 28, 28), "poisson"), Flatten(), dense(784, 64), IF(), dense(64, 10), n_steps=65_536
    )
    yield Case("run tiny", small, "evsnn.run net.h5")
    yield Case("run tiny, reference", small, "evsnn.run net.h5 --backend reference")
    yield Case(
        "run many samples", with_samples(small, 300_000, 4), "evsnn.run net.h5 --input x.npz --threads 1"
    )
    yield Case(
        "run many samples, 2 threads",
        with_samples(small, 100_000, 4),
        "evsnn.run net.h5 --input x.npz --threads 2",
    )
    many = network(Input((4,)), dense(4, 8), IF(), dense(8, 50_000))
    yield Case("run many classes", with_samples(many, 1000, 4), "evsnn.run net.h5 --input x.npz --threads 1")
    yield Case("run wide kernel", wide, "evsnn.run net.h5 --limit 2 --threads 1")
    yield Case("run dense", big, "evsnn.run net.h5 --limit 2 --threads 1")
    yield Case("run dense, int8", big, "evsnn.run net.h5 --limit 2 --threads 1 --arithmetic int8")
    inputs = network(Input((200_000,)), dense(200_000, 32), IF(), dense(32, 10))
    yield Case("run 200,000 inputs", inputs, "evsnn.run net.h5 --limit 2 --threads 1")
    fewer = network(Input((20_000,)), dense(20_000, 256), IF(), dense(256, 10), n_steps=2)
    yield Case("run 20,000 inputs, int8", fewer, "evsnn.run net.h5 --limit 2 --threads 1 --arithmetic int8")
    yield Case("run convolutions", vgg, "evsnn.run net.h5 --threads 1")
    yield Case("run convolutions, 2 threads", vgg, "evsnn.run net.h5 --threads 2")
    yield Case("run convolutions, int8", vgg, "evsnn.run net.h5 --threads 1 --arithmetic int8")
    yield Case("run Poisson, T = 65536", poisson, "evsnn.run net.h5 --limit 1 --threads 1")
    wide_poisson = network(
        Input((3, 250, 250), "poisson"),
        conv(3, 4, 5, 5, stride=5),
        IF(),
        AvgPool2d(50),
        Flatten(),
        dense(4, 2),
        n_steps=200,
    )
    yield Case("run Poisson, large map", wide_poisson, "evsnn.run net.h5 --limit 2 --threads 2")
    events = network(
        Input((2, 64, 64), "events"),
        conv(2, 8, 3, 3),
        IF(),
        MaxPool2d(2),
        conv(8, 8, 3, 3),
        IF(),
        AvgPool2d(29),
        Flatten(),
        dense(8, 5),
        n_steps=200,
    )
    yield Case("run events of noise", events, "evsnn.run net.h5 --limit 8 --threads 1")
    yield Case(
        "run events of uint8",
        with_samples(events, 30, 200, 2, 64, 64, events=True, dtype="uint8"),
        "evsnn.run net.h5 --input x.npz --threads 1",
    )
    yield Case("run sums", sums(12, 32), "evsnn.run net.h5 --limit 1 --threads 1")
    large = network(
        Input((8, 128, 128)),
        conv(8, 16, 3, 3, padding=1),
        IF(),
        conv(16, 16, 3, 3, padding=1),
        IF(),
        AvgPool2d(128),
        Flatten(),
        dense(16, 4),
        n_steps=64,
    )
    yield Case("run large maps", large, "evsnn.run net.h5 --limit 2 --threads 1")
    yield Case("run large maps, reference", large, "evsnn.run net.h5 --limit 1 --backend reference")
    outputs = network(
        Input((1, 256, 256)), conv(1, 4, 3, 3, padding=1), IF(), conv(4, 4, 3, 3, padding=1), task="none"
    )
    yield Case("run maps as outputs", outputs, "evsnn.run net.h5 --limit 16 --threads 1")
    yield Case("inspect dense", big, "evsnn.inspect net.h5")
    yield Case("profile convolutions", vgg, "evsnn.profile net.h5 --seconds 0.2")
    yield Case(
        "profile many classes", with_samples(many, 200, 4), "evsnn.profile net.h5 --input x.npz --seconds 0.2"
    )
    yield Case("profile with a page", large, "evsnn.profile net.h5 --limit 2 --seconds 0.1 --html page.html")
    long = network(
        Input((1, 16, 16)), conv(1, 8, 3, 3), IF(), AvgPool2d(14), Flatten(), dense(8, 3), n_steps=16_384
    )
    yield Case(
        "profile with a page, long", long, "evsnn.profile net.h5 --limit 1 --seconds 0.1 --html page.html"
    )
    convert = "evsnn.convert m.onnx -o net.h5 --calibration x.npz --steps 16"
    yield Case("convert small", onnx_model(1, 12, 12, channels=8), convert)
    yield Case("convert wide", onnx_model(3, 32, 32, channels=64), convert)
    yield Case("convert dense", onnx_model(3, 32, 32, channels=16, classes=1000), convert)
    yield Case(
        "convert large maps", onnx_model(3, 96, 96, channels=16, depth=2), convert + " --threshold max"
    )
    export = "firmware_export net.h5 -o out"
    yield Case("firmware dense", network(Input((3000,)), dense(3000, 2000), IF(), dense(2000, 10)), export)
    yield Case(
        "firmware convolutions, one file",
        network(
            Input((3, 16, 16)), conv(3, 256, 3, 3, padding=1), IF(), conv(256, 512, 3, 3, padding=1), IF(),
            conv(512, 512, 3, 3, padding=1), IF(), AvgPool2d(16), Flatten(), dense(512, 10), n_steps=4,
        ),
        export + " --single-file",
    )  # fmt: skip


def measured(case: Case) -> tuple[float, float, float, str]:
    """Announced without and with queues and true peak in MB, and the last line of stderr if it failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--make", case.name, "--into", name], check=True)
        with open(folder / "err", "w+") as err:
            child = subprocess.Popen(
                [sys.executable, "-m", *case.words.split()], cwd=folder, stdout=subprocess.DEVNULL, stderr=err
            )
            _, status, usage = os.wait4(child.pid, 0)
            err.seek(0)
            said = err.read()
    least = most = 0.0
    for queues, queues_unit, total, unit in _SAID.findall(said):
        up_to = float(total) * _UNITS[unit]
        most = max(most, up_to)
        least = max(least, up_to - (float(queues) * _UNITS[queues_unit] if queues else 0.0))
    failed = said.strip().splitlines()[-1] if status else ""
    return least, most, usage.ru_maxrss * 1024 / 1e6, failed


def off(least: float, most: float, peak: float) -> str:
    """In which direction a peak is beyond both tolerances of what was announced; "" if it is not."""
    if peak > most + max(SLACK_MB, SHARE * most):
        return "above"
    return "below" if peak < least - max(SLACK_MB, SHARE * least) else ""


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", default="")
    p.add_argument("--check", action="store_true")
    p.add_argument("--make", help=argparse.SUPPRESS)
    p.add_argument("--into", help=argparse.SUPPRESS)
    options = p.parse_args()
    if options.make:
        next(case for case in cases() if case.name == options.make).make(Path(options.into))
        return 0
    wrong = 0
    print(f"{'case':32} {'announced':>10} {'up to':>8} {'peak':>8} {'ratio':>6}   MB")
    for case in cases():
        if options.only and not any(part in case.name for part in options.only.split(",")):
            continue
        least, most, peak, failed = measured(case)
        direction = off(least, most, peak)
        wrong += bool(direction or failed)
        nearest = min(max(peak, least), most)
        ratio = peak / nearest if nearest else float("inf")
        line = f"{case.name:32} {least:10.1f} {most:8.1f} {peak:8.1f} {ratio:6.2f}   {direction} {failed}"
        print(line.rstrip(), flush=True)
    print(f"{wrong} of them above, below, or failed")
    return int(options.check and wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
