"""Networks for tests of firmware_export: those for which the runtime has fast code."""

from __future__ import annotations

import numpy as np

from evsnn import IF, Add, AvgPool2d, Concat, Conv2d, Flatten, Input, Linear, Network, Readout
from evsnn.network.network import Samples


def digits(n: int = 4, size: int = 12, seed: int = 3) -> np.ndarray:
    """Pictures that are empty at their borders: (n, 1, size, size) float32."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, 1, size, size), np.float32)
    images[:, :, 3:-3, 4:-4] = rng.random((n, 1, size - 6, size - 8)) * (
        rng.random((n, 1, size - 6, size - 8)) < 0.6
    )
    return images


def cnn(
    channels: tuple[int, ...] = (8, 16),
    pool: int = 2,
    classes: int = 10,
    size: int = 12,
    n_steps: int = 6,
    shift: str = "bias",
    scale: float = 1.0,
    seed: int = 0,
    **neurons,
) -> Network:
    """Convolutions of 3x3 with average pools, then one linear layer; `neurons` are options of their IF."""
    rng = np.random.default_rng(seed)
    images = digits(4, size)
    layers, n_in = [Input((1, size, size))], 1
    for n_out in channels:
        weight = rng.normal(size=(n_out, n_in, 3, 3)) * scale * np.sqrt(2 / (9 * n_in))
        layers += [
            Conv2d(weight, rng.normal(size=n_out) * 0.05, padding=1),
            IF(rng.uniform(0.4, 1.0, n_out) * scale, **neurons),
            AvgPool2d(pool),
        ]
        n_in, size = n_out, size // pool
    layers += [
        Flatten(),
        Linear(rng.normal(size=(classes, n_in * size * size)), rng.normal(size=classes) * 0.1),
        Readout(),
    ]
    return Network(
        layers,
        n_steps=n_steps,
        shift=shift,
        input_range=(0, 1),
        samples=Samples(images, np.arange(len(images))),
    )


def hidden(size: int = 28, **neurons) -> Network:
    """A convolution and a linear layer of neurons behind it, whose kernel is as high as the map; `neurons`
    are options of their IF.
    """
    rng = np.random.default_rng(size)
    layers = [
        Input((1, size, size)),
        Conv2d(rng.normal(size=(8, 1, 3, 3)), padding=1),
        IF(1.0, **neurons),
        Flatten(),
    ]
    layers += [
        Linear(rng.normal(size=(16, 8 * size * size)) / size),
        IF(1.0, **neurons),
        Linear(rng.normal(size=(10, 16))),
        Readout(),
    ]
    return Network(layers, n_steps=6, shift="bias", input_range=(0, 1))


def residual(n_steps: int = 5, scale: float = 1.0, seed: int = 2, **neurons) -> Network:
    """A stem, a block with an identity shortcut, one with a convolution on its shortcut, and a
    concatenation.
    """
    rng = np.random.default_rng(seed)

    def conv(n_out: int, n_in: int, kernel: int, name: str, source: str, **options) -> Conv2d:
        weight = (
            rng.normal(size=(n_out, n_in, kernel, kernel)) * np.sqrt(2 / (kernel * kernel * n_in)) * scale
        )
        return Conv2d(
            weight, rng.normal(size=n_out) * 0.05, padding=kernel // 2, name=name, inputs=(source,), **options
        )

    layers = [
        Input((2, 9, 9), name="x"),
        conv(20, 2, 3, "c0", "x"),
        IF(0.6 * scale, name="s0", **neurons),
        conv(20, 20, 3, "c1", "s0"),
        IF(0.5 * scale, name="s1", **neurons),
        conv(20, 20, 3, "c2", "s1"),
        Add(name="a2", inputs=("c2", "s0")),
        IF(0.7 * scale, name="s2", **neurons),
        conv(9, 20, 3, "c3", "s2", stride=2),
        IF(0.5 * scale, name="s3", **neurons),
        conv(9, 9, 3, "c4", "s3"),
        conv(9, 20, 1, "c5", "s2", stride=2),
        Add(name="a3", inputs=("c4", "c5")),
        IF(0.6 * scale, name="s4", **neurons),
        Concat(name="j", inputs=("s4", "s3")),
        conv(7, 18, 3, "c6", "j"),
        IF(0.5 * scale, name="s5", **neurons),
        AvgPool2d(name="p"),
        Flatten(name="f"),
        Linear(rng.normal(size=(4, 7)), name="l"),
        Readout(),
    ]
    return Network(layers, n_steps=n_steps, shift="bias", input_range=(0, 1))
