"""The networks of Deng & Gu (ICLR 2021), as their published code has them, for PyTorch.

Convolutions are 3x3 of stride 1 with zeros around unless said; pools are 2x2 averages; no batch norm
anywhere. Each activation is a `ThresholdReLU`, a plain ReLU until it is given a limit.

`depthwise`, `vggbn`, `resnet18` and `mobilenetv2` are no networks of the paper: batch norms, max pools, plain
ReLUs and linear bottlenecks, as people train them without a thought of spikes.
"""

from __future__ import annotations

import torch
from torch import nn

from examples.threshold_relu import ThresholdReLU

__all__ = [
    "NETWORKS",
    "Residual",
    "cifarnet",
    "depthwise",
    "mobilenetv2",
    "resnet18",
    "resnet20",
    "vgg16",
    "vggbn",
]


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


def normed(n_in: int, n_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias, and its batch norm."""
    layer = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(n_out)]


def vggbn(n_classes: int, width: float = 0.5) -> nn.Module:
    """VGG-16 with batch norm and max pools, for pictures of 32 x 32 (Simonyan & Zisserman 2015).

    Parameters
    ----------
    n_classes : int
    width : float
        The share of the published channels.
    """
    layers: list[nn.Module] = []
    n_in = 3
    for stage in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
        for published in stage:
            n_out = int(published * width)
            layers += [*normed(n_in, n_out), nn.ReLU()]
            n_in = n_out
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(n_in, n_classes))


class Block(nn.Module):
    """relu(body(x) + shortcut(x)), or without a ReLU, as in linear bottlenecks."""

    def __init__(self, body: list[nn.Module], shortcut: list[nn.Module], relu: bool):
        super().__init__()
        self.body, self.shortcut = nn.Sequential(*body), nn.Sequential(*shortcut)
        self.outer = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.body(x) + self.shortcut(x))


def resnet18(n_classes: int, width: float = 0.5) -> nn.Module:
    """ResNet-18 with batch norm, its first layer for pictures of 32 x 32 (He et al. 2016).

    Parameters
    ----------
    n_classes : int
    width : float
        The share of the published channels.
    """
    n_in = int(64 * width)
    layers: list[nn.Module] = [*normed(3, n_in), nn.ReLU()]
    for number, published in enumerate((64, 128, 256, 512)):
        n_out = int(published * width)
        for stride in (2 if number else 1, 1):
            shortcut = normed(n_in, n_out, 1, stride) if stride > 1 or n_in != n_out else []
            body = [*normed(n_in, n_out, 3, stride), nn.ReLU(), *normed(n_out, n_out)]
            layers.append(Block(body, shortcut, relu=True))
            n_in = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n_classes))


def mobilenetv2(n_classes: int) -> nn.Module:
    """MobileNetV2 with ReLU6, its first layers for pictures of 32 x 32 (Sandler et al. 2018)."""
    n_in = 32
    layers: list[nn.Module] = [*normed(3, n_in), nn.ReLU6()]
    for widening, n_out, blocks, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for stride in (first_stride, *(1,) * (blocks - 1)):
            n_mid = n_in * widening
            body = [*normed(n_in, n_mid, 1), nn.ReLU6()] if widening > 1 else []
            body += [*normed(n_mid, n_mid, 3, stride, groups=n_mid), nn.ReLU6(), *normed(n_mid, n_out, 1)]
            layers.append(
                Block(body, [], relu=False) if stride == 1 and n_in == n_out else nn.Sequential(*body)
            )
            n_in = n_out
    layers += [*normed(n_in, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, n_classes))


NETWORKS = {
    "cifarnet": cifarnet,
    "vgg16": vgg16,
    "resnet20": resnet20,
    "depthwise": depthwise,
    "vggbn": vggbn,
    "resnet18": resnet18,
    "mobilenetv2": mobilenetv2,
}
