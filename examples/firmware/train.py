"""Train two small networks on MNIST for microcontrollers, and convert them: a CNN and an MLP.

    python examples/firmware/train.py DIGITS -o examples/firmware

DIGITS is an .h5 or .npz file with ``train_images`` (60000, 28, 28) uint8, ``train_labels``, ``test_images``
and ``test_labels``. Written are `digits_cnn.h5` (8 convolutions of 3x3, average pool, 16 convolutions of 3x3,
average pool, 10 outputs) and `digits_mlp.h5` (784-128-10), with 100 test digits each. Activations are kept
small by a penalty on their mean, because every spike costs instructions. Needs PyTorch (``pip install
"evsnn[torch]"``) and about two minutes on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from train_mnist import read_digits

import evsnn
from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, Network, Readout
from evsnn.network.network import Samples

N_TRAIN, N_MEASURED, N_SAMPLES = 24_000, 1_000, 100
RATES = (2e-3, 2e-3, 1e-3, 4e-4)
PENALTY = 1e-2
PERCENTILE = 99.9


class Cnn(nn.Module):
    """Gives scores and the activations behind each ReLU."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = (
            nn.Conv2d(1, 8, 3, padding=1),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.Linear(784, 10),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        a = torch.relu(self.first(x))
        b = torch.relu(self.second(functional.avg_pool2d(a, 2)))
        return self.last(functional.avg_pool2d(b, 2).flatten(1)), [a, b]


class Mlp(nn.Module):
    """The same for one hidden layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(784, 128), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        a = torch.relu(self.first(x.flatten(1)))
        return self.last(a), [a]


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    optimiser = torch.optim.Adam(model.parameters(), RATES[0])
    for rate in RATES:
        for group in optimiser.param_groups:
            group["lr"] = rate
        for picked in torch.randperm(len(images)).split(64):
            scores, activations = model(images[picked])
            loss = functional.cross_entropy(scores, labels[picked]) + PENALTY * sum(
                a.abs().mean() for a in activations
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def convert(
    model: nn.Module, images: torch.Tensor, samples: Samples, n_steps: int, metadata: dict
) -> Network:
    """A spiking network whose thresholds are the 99.9th percentile of the layer's activations."""
    with torch.no_grad():
        limits = [float(np.percentile(a.numpy(), PERCENTILE)) for a in model(images)[1]]
    weight = {name: p.detach().numpy() for name, p in model.named_parameters()}
    last = [Linear(weight["last.weight"], weight["last.bias"]), Readout()]
    if isinstance(model, Cnn):
        layers = [Input((1, 28, 28))]
        for name, limit in zip(("first", "second"), limits):
            layers += [
                Conv2d(weight[f"{name}.weight"], weight[f"{name}.bias"], padding=1),
                IF(limit),
                AvgPool2d(2),
            ]
        layers += [Flatten(), *last]
    else:
        layers = [
            Input((1, 28, 28)),
            Flatten(),
            Linear(weight["first.weight"], weight["first.bias"]),
            IF(limits[0]),
            *last,
        ]
    return Network(
        layers,
        n_steps=n_steps,
        shift="initial",
        input_range=(0.0, 1.0),
        classes=tuple("0123456789"),
        samples=samples,
        metadata=metadata,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("digits", type=Path, metavar="DIGITS")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train_images, train_labels, test_images, test_labels = read_digits(arguments.digits)
    pixels = torch.from_numpy(train_images[:N_TRAIN].astype(np.float32) / 255)[:, None]
    labels = torch.from_numpy(train_labels[:N_TRAIN].astype(np.int64))
    test = test_images.astype(np.float32)[:, None] / 255
    samples = Samples(test[:N_SAMPLES], test_labels[:N_SAMPLES].astype(np.int64))
    for name, make, n_steps in (("digits_cnn", Cnn, 8), ("digits_mlp", Mlp, 16)):
        torch.manual_seed(0)
        model = make()
        train(model, pixels, labels)
        with torch.no_grad():
            ann = float((model(torch.from_numpy(test))[0].argmax(1).numpy() == test_labels).mean())
        metadata = {
            "name": name,
            "accuracy_ann": ann,
            "seed": 0,
            "threshold": f"percentile {PERCENTILE}",
            "penalty": PENALTY,
            "torch": torch.__version__,
            "digits": (
                "MNIST, Y. LeCun, C. Cortes, C. J. C. Burges; the stored samples are the first 100 digits of"
                " its test set"
            ),
            "digits_sha256": hashlib.sha256(test_images.tobytes()).hexdigest(),
            "command": "python examples/firmware/train.py DIGITS -o FOLDER",
        }
        network = convert(model, pixels[:N_MEASURED], samples, n_steps, metadata)
        for steps in (4, 8, 16):
            result = evsnn.simulate(network, test, n_steps=steps, arithmetic="int8")
            metadata |= {
                f"accuracy_int8_T{steps:02}": float((result.predictions == test_labels).mean()),
                f"sops_per_sample_T{steps:02}": round(result.sops_per_sample),
            }
        evsnn.save(arguments.output / f"{name}.h5", network.replace(metadata=metadata), storage="int8")
        print(
            f"{name}: ANN {ann:.2%}, int8 "
            + ", ".join(f"{metadata[f'accuracy_int8_T{T:02}']:.2%} at T = {T}" for T in (4, 8, 16)),
            flush=True,
        )


if __name__ == "__main__":
    main()
