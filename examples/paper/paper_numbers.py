"""What the paper reports: Deng & Gu, ICLR 2021, Tables 1 to 6, in percent, as far as it is known to us.

Its tables give the accuracy of a spiking network and a loss against the ANN with plain ReLU; the regular
ANN's accuracy is their sum. Rounding in them leaves about 0.1 points of noise.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ANN", "NOISE", "TS", "T_MEAN"]

NOISE = 0.2
"""Points by which a loss may pass the paper's and still count as the same."""

ANN: Mapping[str, Mapping[str, float]] = {
    "cifarnet_cifar10": {"regular": 90.28},
    "vgg16_cifar10": {"regular": 92.09, "threshold": 92.34},
    "resnet20_cifar10": {"regular": 92.32, "threshold": 93.61},
    "vgg16_cifar100": {"regular": 70.62, "threshold": 70.49},
    "resnet20_cifar100": {"regular": 67.08, "threshold": 69.8},
}
"""Accuracy of the source ANNs, by activation."""

TS: Mapping[str, Mapping[int, float]] = {
    "cifarnet_cifar10": {16: 90.22, 32: 90.46, 64: 90.58, 128: 90.58},
    "vgg16_cifar10": {16: 92.29, 32: 92.29, 64: 92.22, 128: 92.24},
    "resnet20_cifar10": {16: 92.41, 32: 93.30, 64: 93.55, 128: 93.56},
    "vgg16_cifar100": {16: 65.94, 32: 69.80, 64: 70.35, 128: 70.47},
    "resnet20_cifar100": {16: 63.73, 32: 68.40, 64: 69.27, 128: 69.49},
}
"""Threshold ReLU and shift, by T."""

T_MEAN: Mapping[str, float] = {
    "cifarnet_cifar10": 90.61,
    "vgg16_cifar10": 92.26,
    "resnet20_cifar10": 93.58,
    "vgg16_cifar100": 70.55,
    "resnet20_cifar100": 69.82,
}
"""Threshold ReLU without shift, the mean over t = 400 to 600."""
