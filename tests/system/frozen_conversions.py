"""Conversions whose parameters are the same on every computer, and their digests.

Libraries of linear algebra add in orders of their own, so that a conversion's last bits may differ from
computer to computer. Here weights are multiples of 1/4, inputs of 1/8, and layers few, so that every sum of
the ANN is exact in float32 in any order. Thresholds are maxima and percentiles of such sums, made by single
operations that IEEE 754 rounds in one way. What needs means of rounded numbers is left out: bias correction,
the thresholds "mse" and "error", and the choice by "auto".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from onnx_builder import OnnxModel

import evsnn

N_SAMPLES = 24


class Dyadic(OnnxModel):
    """A model whose constants are multiples of 1/4."""

    def floats(self, *shape, scale=1.0):
        return (self.rng.integers(-4, 5, shape) / 4).astype(np.float32)

    def norm(self, x, channels, positive=False):
        """A batch norm that divides by 1 or 2: its variance is 0 or 3, and its epsilon 1."""
        gamma = self.rng.choice([0.5, 1.0] if positive else [-1.0, -0.5, 0.5, 1.0], channels)
        variance = self.rng.choice([0.0, 3.0], channels)
        others = self.floats(channels), self.floats(channels), variance.astype(np.float32)
        return self.op("BatchNormalization", x, gamma.astype(np.float32), *others, epsilon=1.0)


def _plain(m: Dyadic) -> str:
    x = m.op("Relu", m.conv("x", 2, 4, pads=[1, 1, 1, 1]))
    return m.head(m.op("Relu", m.conv(x, 4, 6, strides=[2, 2])), 6 * 3 * 3, 5)


def _normalised(m: Dyadic) -> str:
    x = m.op("Relu", m.norm(m.conv("x", 2, 4, bias=False), 4))
    x = m.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return m.head(m.op("Relu", m.norm(m.conv(x, 4, 8, 1), 8)), 8 * 3 * 3, 4)


def _residual(m: Dyadic) -> str:
    x = m.op("Relu", m.conv("x", 2, 4, pads=[1, 1, 1, 1]))
    y = m.op("Add", m.conv(x, 4, 4, pads=[1, 1, 1, 1], group=2), x)
    return m.head(m.op("MaxPool", m.op("Relu", y), kernel_shape=[2, 2], strides=[2, 2]), 4 * 4 * 4, 5)


def _joined(m: Dyadic) -> str:
    x = m.op("Relu", m.conv("x", 2, 4, bias=False))
    limited = m.op("Clip", m.conv("x", 2, 4), np.float32(0), np.float32(3))
    both = m.op("Concat", x, limited, axis=1)
    return m.head(m.op("Relu", m.conv(both, 8, 4, group=8 // 2)), 4 * 4 * 4, 3)


def _vectors(m: Dyadic) -> str:
    x = m.op("Flatten", "x")
    x = m.op("Relu", m.op("Mul", m.gemm(x, 128, 12), np.float32(0.5)))
    return m.gemm(m.op("Relu", m.op("Sub", x, m.floats(12))), 12, 3)


def _signed(m: Dyadic) -> str:
    x = m.op("LeakyRelu", m.conv("x", 2, 4), alpha=0.25)
    return m.head(m.op("Relu", m.conv(x, 4, 4, [1, 3])), 4 * 6 * 4, 3)


MODELS: tuple[Callable[[Dyadic], str], ...] = (_plain, _normalised, _residual, _joined, _vectors, _signed)
OPTIONS: tuple[dict, ...] = (
    {"n_steps": 8, "threshold": "max"},
    {"n_steps": 16, "threshold": "percentile:90", "granularity": "channel", "negative_threshold": 0.25},
    {"n_steps": (4, 32), "threshold": "max", "shift": "initial", "task": "regress", "storage": "int8"},
    {"n_steps": 6, "threshold": "percentile:99", "readout": "spikes", "warm_up_steps": 3, "shift": "none",
     "storage": "float16", "max_pool": "average"},
)  # fmt: skip
N_CONVERSIONS = len(MODELS) * len(OPTIONS)


def converted(i: int) -> evsnn.Network:
    """Conversion number `i`: each model with each set of options."""
    which, options = MODELS[i % len(MODELS)], OPTIONS[i // len(MODELS)]
    m = Dyadic((2, 8, 8), seed=i)
    model = m.model(which(m)).SerializeToString()
    samples = m.rng.integers(0, 9, (N_SAMPLES, 2, 8, 8)) / np.float32(8)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of layers that are silent, and of scores that say little
        return evsnn.convert(model, samples.astype(np.float32), correction=False, **options)


PARAMETERS = (
    "shape", "encoding", "weight", "bias", "stride", "padding", "dilation", "groups", "kernel", "v_threshold",
    "v_init", "leak", "shift", "negative_threshold", "warm_up_steps",
)  # fmt: skip


def add_network(digest, network: evsnn.Network) -> None:
    """Add a network's graph and parameters to a digest.

    Names, metadata and samples are left out, and numbers are Python's own: NumPy's print differs.
    """
    number = {name: i for i, name in enumerate(network.by_name)}
    for layer in network.layers:
        digest.add(type(layer).__name__, tuple(number[name] for name in layer.inputs))
        digest.add(*(item for name in PARAMETERS if hasattr(layer, name) for item in _named(layer, name)))
    low, high = network.input_range
    digest.add(network.n_steps, network.shift, network.readout, network.task, float(low), float(high))
    for n_steps, layers in sorted(network.step_parameters.items()):
        for name, own in sorted(layers.items(), key=lambda item: number[item[0]]):
            digest.add(n_steps, number[name])
            digest.add(*(item for name in PARAMETERS if hasattr(own, name) for item in _named(own, name)))


def _named(owner, name: str) -> tuple:
    value = getattr(owner, name)
    return name, value.item() if isinstance(value, np.generic) else value
