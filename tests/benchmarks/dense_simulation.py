"""The paper's Figure 3 by another road: a dense, synchronous simulation in PyTorch of the networks of train_cifar10.py.

usage: dense_simulation.py {vgg16,resnet20,depthwise} CHECKPOINT DATA.npz -o OUT.json [--steps 4,8,...] [--limit N]

Thresholds are each layer's largest activation on 384 training images (algorithm 1 of Deng & Gu 2021); the
shift is V_th/2T a step ("bias"), V_th/2 at once ("initial") or none. Nothing of evsnn is used: the accuracies can be
held against `python -m evsnn.run` of a file converted with --threshold max. Products are float32, not TF32.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from threshold_relu import ThresholdReLU
from train_cifar10 import NETWORKS, scaled


class Neurons(nn.Module):
    """Integrate-and-fire with soft reset in place of a ReLU; sends amplitudes."""

    def __init__(self, relu: nn.Module):
        super().__init__()
        self.relu, self.largest, self.mode = relu, 0.0, "measure"
        self.v: torch.Tensor | None = None
        self.each_step = self.first = 0.0

    def begin(self, shift: str, n_steps: int) -> None:
        self.mode, self.v = "spike", None
        self.each_step = self.largest / (2 * n_steps) if shift == "bias" else 0.0
        self.first = self.largest / 2 if shift == "initial" else 0.0

    def forward(self, current: torch.Tensor) -> torch.Tensor:
        if self.mode == "measure":
            activation = self.relu(current)
            self.largest = max(self.largest, activation.max().item())
            return activation
        self.v = (self.first if self.v is None else self.v) + current + self.each_step
        sent = (self.v >= self.largest) * self.largest
        self.v = self.v - sent
        return sent


def spiking(module: nn.Module) -> list[Neurons]:
    """Put neurons in the place of every ReLU."""
    neurons = []
    for name, child in module.named_children():
        if isinstance(child, (nn.ReLU, ThresholdReLU)):
            neurons.append(Neurons(child))
            setattr(module, name, neurons[-1])
        else:
            neurons += spiking(child)
    return neurons


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", default="4,8,16,32,64,128")
    parser.add_argument("--limit", type=int, default=10_000)
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with np.load(arguments.data) as data:
        calibration = torch.from_numpy(scaled(data["train_images"][:384])).to(device)
        images = torch.from_numpy(scaled(data["test_images"][: arguments.limit])).to(device)
        labels = torch.from_numpy(data["test_labels"][: arguments.limit].astype(np.int64)).to(device)
    model = NETWORKS[arguments.network]().to(device)
    model.load_state_dict(torch.load(arguments.checkpoint, map_location=device))
    model.eval()
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500)))
    neurons = spiking(model)
    model(calibration)
    wanted = sorted({int(t) for t in arguments.steps.split(",")})
    curves: dict[str, dict[int, float]] = {"none": {}, "initial": {}, "bias": {}}
    for shift, runs in (("none", [wanted]), ("initial", [wanted]), ("bias", [[t] for t in wanted])):  # V_th/2T belongs to one T
        for read in runs:
            counts = dict.fromkeys(read, 0)
            for x, y in zip(images.split(500), labels.split(500)):
                for layer in neurons:
                    layer.begin(shift, read[-1])
                total = 0
                for t in range(1, read[-1] + 1):
                    total = total + model(x)
                    if t in counts:
                        counts[t] += (total.argmax(1) == y).sum().item()
            curves[shift] |= {t: n / len(images) for t, n in counts.items()}
            print(arguments.network, shift, {t: f"{a:.4f}" for t, a in curves[shift].items()}, flush=True)
    record = {"network": arguments.network, "n_samples": len(images), "ann": right / len(images), "threshold": "max", "accuracy": curves}
    arguments.output.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
