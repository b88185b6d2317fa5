"""Train a network that converts well on CIFAR-10, and export it to ONNX (PyTorch; one GPU, or a patient CPU).

usage: train_cifar10.py {vgg16,resnet20,depthwise} DATA -o MODEL.onnx [--epochs N] [--seed S] [--checkpoint F]

DATA is an .npz with train_images, test_images (n, 32, 32, 3) uint8 and train_labels, test_labels.
The recipe: SGD with momentum, plain ReLU for the first fifteenth of the epochs, then activations
limited to 1, average pools, no batch norm (VGG-16 and ResNet-20 as in Deng & Gu 2021, appendix A.1,
and their published code). "depthwise" is the counterexample: batch norm, plain ReLU, depthwise
convolutions, trained without any thought of spikes.

The model reads images scaled to mean 0 and deviation 1 a channel; `scaled` does it. With --calibration
F.npz and --validation F.npz images in that scale are written for `python -m evsnn.convert`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from threshold_relu import ThresholdReLU, set_limit
from torch import nn
from torch.nn import functional as F

MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
DEVIATION = np.array([0.2470, 0.2435, 0.2616], np.float32)


def scaled(images: np.ndarray) -> np.ndarray:
    """(n, 32, 32, 3) uint8 -> (n, 3, 32, 32) float32, as the networks read it."""
    return ((images / np.float32(255) - MEAN) / DEVIATION).transpose(0, 3, 1, 2).astype(np.float32)


def convolution(n_in: int, n_out: int, kernel: int = 3, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    layer = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def vgg16(n_classes: int = 10, dropout: float = 0.1) -> nn.Module:
    """VGG-16 of the paper: average pools, and 1x1 convolutions third in the wide stages."""
    layers: list[nn.Module] = []
    n_in = 3
    for stage in ((64, 64), (128, 128), (256, 256, -256), (512, 512, -512), (512, 512, -512)):
        for width in stage:
            layers += [convolution(n_in, abs(width), 3 if width > 0 else 1), ThresholdReLU(), nn.Dropout(dropout)]
            n_in = abs(width)
        layers[-1] = nn.AvgPool2d(2)
    layers[-1] = nn.Flatten()
    layers += [nn.Linear(2048, 4096), ThresholdReLU(), nn.Dropout(dropout), nn.Linear(4096, 4096), ThresholdReLU(), nn.Dropout(dropout), nn.Linear(4096, n_classes)]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """act(conv(act(conv(x))) + shortcut(x)): both branches charge one membrane once converted."""

    def __init__(self, n_in: int, n_out: int, stride: int, dropout: float):
        super().__init__()
        self.first, self.second = convolution(n_in, n_out, 3, stride, bias=False), convolution(n_out, n_out, bias=False)
        self.shortcut = convolution(n_in, n_out, 1, stride, bias=False) if stride > 1 or n_in != n_out else nn.Identity()
        self.inner, self.outer, self.dropout = ThresholdReLU(), ThresholdReLU(), nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.second(self.dropout(self.inner(self.first(x)))) + self.shortcut(x))


def resnet20(n_classes: int = 10, dropout: float = 0.1) -> nn.Module:
    """ResNet-20 of the paper's authors: three convolutions, eight blocks, no bias anywhere."""
    layers: list[nn.Module] = []
    for n_in in (3, 64, 64):
        layers += [convolution(n_in, 64, bias=False), ThresholdReLU(), nn.Dropout(dropout)]
    layers[-1] = nn.AvgPool2d(2)
    n_in = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            layers.append(Residual(n_in, width, 2 if block == 0 and width > 64 else 1, dropout))
            n_in = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, n_classes, bias=False))


def depthwise(n_classes: int = 10) -> nn.Module:
    """MobileNet-like: depthwise and 1x1 convolutions, batch norm, plain ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    n_in = 32
    for width, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)):
        layers += [nn.Conv2d(n_in, n_in, 3, stride, 1, groups=n_in, bias=False), nn.BatchNorm2d(n_in), nn.ReLU()]
        layers += [nn.Conv2d(n_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        n_in = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n_classes))


NETWORKS = {"vgg16": vgg16, "resnet20": resnet20, "depthwise": depthwise}


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random crops of the images padded by 4, half of them mirrored: an offset a sample, all on the device."""
    n, device = len(images), images.device
    padded = F.pad(images, (4, 4, 4, 4))
    dy, dx = (torch.randint(0, 9, (n, 1, 1, 1), device=device, generator=generator) for _ in range(2))
    mirrored = torch.rand((n, 1, 1, 1), device=device, generator=generator) < 0.5
    rows = torch.arange(32, device=device)
    columns = torch.where(mirrored, 31 - rows, rows) + dx
    rows = rows[:, None] + dy
    sample, channel = torch.arange(n, device=device)[:, None, None, None], torch.arange(3, device=device)[:, None, None]
    return padded[sample, channel, rows, columns]


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, epochs: int, seed: int, rate: float = 0.03, batch: int = 128, limit: float = 1.0) -> None:
    """SGD, momentum 0.9, weight decay 5e-4, cosine; the limit comes after a fifteenth of the epochs."""
    device = images.device
    generator = torch.Generator(device).manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    steps = len(images) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * steps, pct_start=0.03, anneal_strategy="cos", cycle_momentum=False, final_div_factor=1e4)
    started = time.perf_counter()
    for epoch in range(epochs):
        if epoch == max(1, epochs // 15):
            set_limit(model, limit)
        model.train()
        total = torch.zeros((), device=device)
        order = torch.randperm(len(images), device=device, generator=generator)
        for i in range(steps):
            pick = order[i * batch : (i + 1) * batch]
            with torch.autocast(device.type, torch.bfloat16):
                loss = F.cross_entropy(model(augmented(images[pick], generator).contiguous(memory_format=torch.channels_last)), labels[pick])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            total += loss.detach()
        if epoch % 5 == 4 or epoch == epochs - 1:
            print(f"epoch {epoch + 1}/{epochs}: loss {total.item() / steps:.3f}, {time.perf_counter() - started:.0f} s", flush=True)


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500)))
    return right / len(images)


def export(model: nn.Module, path: Path) -> None:
    model = model.float().cpu().to(memory_format=torch.contiguous_format).eval()
    torch.onnx.export(model, (torch.zeros(1, 3, 32, 32),), str(path), input_names=["images"], output_names=["logits"], dynamic_axes={"images": {0: "n"}}, dynamo=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="MODEL.onnx")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="weights; read and not trained again where it exists")
    parser.add_argument("--calibration", type=Path, help="write 1,024 training images, scaled")
    parser.add_argument("--validation", type=Path, help="write the test images and labels, scaled")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with np.load(arguments.data) as data:
        images, labels, test_images, test_labels = (data[name] for name in ("train_images", "train_labels", "test_images", "test_labels"))
    if arguments.calibration:
        np.savez(arguments.calibration, images=scaled(images[:1024]), labels=labels[:1024].astype(np.int64))
    if arguments.validation:
        np.savez(arguments.validation, images=scaled(test_images), labels=test_labels.astype(np.int64))
    model = NETWORKS[arguments.network]().to(device, memory_format=torch.channels_last)
    if arguments.checkpoint and arguments.checkpoint.exists():
        model.load_state_dict(torch.load(arguments.checkpoint, map_location=device))
    else:
        train(model, torch.from_numpy(scaled(images)).to(device), torch.from_numpy(labels.astype(np.int64)).to(device), epochs=arguments.epochs, seed=arguments.seed)
        if arguments.checkpoint:
            torch.save(model.state_dict(), arguments.checkpoint)
    right = accuracy(model, torch.from_numpy(scaled(test_images)).to(device), torch.from_numpy(test_labels.astype(np.int64)).to(device))
    print(f"{arguments.network}: {right:.2%} of {len(test_images)} test images")
    if arguments.output:
        export(model, arguments.output)


if __name__ == "__main__":
    main()
