"""Networks for tests of firmware_export: those for which the runtime has fast code."""

from __future__ import annotations

import numpy as np

from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, Network, Readout
from evsnn.network import Samples


def digits(n: int = 4, size: int = 12, seed: int = 3) -> np.ndarray:
    """Pictures that are empty at their borders: (n, 1, size, size) float32."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, 1, size, size), np.float32)
    images[:, :, 3:-3, 4:-4] = rng.random((n, 1, size - 6, size - 8)) * (rng.random((n, 1, size - 6, size - 8)) < 0.6)
    return images


def cnn(channels: tuple[int, ...] = (8, 16), pool: int = 2, classes: int = 10, size: int = 12, n_steps: int = 6, shift: str = "bias", scale: float = 1.0, seed: int = 0) -> Network:
    """Convolutions of 3x3 with average pools, then one linear layer."""
    rng = np.random.default_rng(seed)
    images = digits(4, size)
    layers, n_in = [Input((1, size, size))], 1
    for n_out in channels:
        weight = rng.normal(size=(n_out, n_in, 3, 3)) * scale * np.sqrt(2 / (9 * n_in))
        layers += [Conv2d(weight, rng.normal(size=n_out) * 0.05, padding=1), IF(rng.uniform(0.4, 1.0, n_out) * scale), AvgPool2d(pool)]
        n_in, size = n_out, size // pool
    layers += [Flatten(), Linear(rng.normal(size=(classes, n_in * size * size)), rng.normal(size=classes) * 0.1), Readout()]
    return Network(layers, n_steps=n_steps, shift=shift, input_range=(0, 1), samples=Samples(images, np.arange(len(images))))
