"""The networks of Deng & Gu (ICLR 2021), as their published code has them, for PyTorch.

Convolutions are 3x3 of stride 1 with zeros around unless said; pools are 2x2 averages; no batch norm
anywhere. Each activation is a `ThresholdReLU`, a plain ReLU until it is given a limit. `depthwise` is
no network of the paper but its counterexample, with batch norm and without a thought of spikes.
"""

from __future__ import annotations

import torch
from torch import nn

from examples.threshold_relu import ThresholdReLU

__all__ = ["NETWORKS", "Residual", "cifarnet", "depthwise", "resnet20", "vgg16"]


def convolution(n_in: int, n_out: int, kernel: int = 3, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    layer = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def dense(widths: tuple[int, ...], n_classes: int, dropout: float) -> list[nn.Module]:
    """Fully connected layers behind each other; the last one gives the classes."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths, widths[1:]):
        layers += [nn.Linear(n_in, n_out), ThresholdReLU(), nn.Dropout(dropout)]
    return [*layers, nn.Linear(widths[-1], n_classes)]


def cifarnet(n_classes: int, dropout: tuple[float, float] = (0.1, 0.4)) -> nn.Module:
    """Five convolutions and three dense layers, 45 M parameters.

    Parameters
    ----------
    n_classes : int
    dropout : (float, float)
        Behind convolutions, and behind dense layers.
    """
    layers: list[nn.Module] = []
    n_in = 3
    for width, pool in ((128, False), (256, True), (512, True), (1024, False), (512, False)):
        layers += [
            convolution(n_in, width),
            ThresholdReLU(),
            nn.AvgPool2d(2) if pool else nn.Dropout(dropout[0]),
        ]
        n_in = width
    return nn.Sequential(*layers, nn.Flatten(), *dense((512 * 8 * 8, 1024, 512), n_classes, dropout[1]))


def vgg16(n_classes: int, dropout: tuple[float, float] = (0.1, 0.4)) -> nn.Module:
    """13 convolutions, four pools and three dense layers, with 35 M parameters.

    The third convolution of each wide part is 1x1.
    """
    layers: list[nn.Module] = []
    n_in = 3
    for stage in ((64, 64), (128, 128), (256, 256, -256), (512, 512, -512), (512, 512, -512)):
        for width in stage:
            layers += [
                convolution(n_in, abs(width), 3 if width > 0 else 1),
                ThresholdReLU(),
                nn.Dropout(dropout[0]),
            ]
            n_in = abs(width)
        layers[-1] = nn.AvgPool2d(2)
    layers[-1] = nn.Flatten()  # there is no fifth pool
    return nn.Sequential(*layers, *dense((512 * 2 * 2, 4096, 4096), n_classes, dropout[1]))


class Residual(nn.Module):
    """act(conv(act(conv(x))) + shortcut(x)): one layer of neurons integrates both branches once converted."""

    def __init__(self, n_in: int, n_out: int, stride: int, dropout: float):
        super().__init__()
        self.first, self.second = (
            convolution(n_in, n_out, 3, stride, bias=False),
            convolution(n_out, n_out, bias=False),
        )
        self.shortcut = (
            convolution(n_in, n_out, 1, stride, bias=False) if stride > 1 or n_in != n_out else nn.Identity()
        )
        self.inner, self.outer, self.dropout = ThresholdReLU(), ThresholdReLU(), nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.second(self.dropout(self.inner(self.first(x)))) + self.shortcut(x))


def resnet20(n_classes: int, dropout: tuple[float, float] = (0.1, 0.0)) -> nn.Module:
    """Three convolutions, eight residual blocks and a dense layer, with 11 M parameters.

    There is no bias and no global pool.
    """
    layers: list[nn.Module] = []
    for n_in in (3, 64, 64):
        layers += [convolution(n_in, 64, bias=False), ThresholdReLU(), nn.Dropout(dropout[0])]
    layers[-1] = nn.AvgPool2d(2)
    n_in = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            layers.append(Residual(n_in, width, 2 if block == 0 and width > 64 else 1, dropout[0]))
            n_in = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, n_classes, bias=False))


def depthwise(n_classes: int) -> nn.Module:
    """MobileNet-like: depthwise and 1x1 convolutions, batch norm, plain ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    n_in = 32
    for width, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)):
        layers += [
            nn.Conv2d(n_in, n_in, 3, stride, 1, groups=n_in, bias=False),
            nn.BatchNorm2d(n_in),
            nn.ReLU(),
        ]
        layers += [nn.Conv2d(n_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        n_in = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n_classes))


NETWORKS = {"cifarnet": cifarnet, "vgg16": vgg16, "resnet20": resnet20, "depthwise": depthwise}
