"""Train the packaged demo model: a small CNN on MNIST with threshold ReLU, converted into a spiking network.

    python examples/train_mnist.py DIGITS -o mnist_snn.h5

DIGITS is an .h5 or .npz file with ``train_images`` (60000, 28, 28) uint8, ``train_labels``, ``test_images``
and ``test_labels``. The method is Deng & Gu, "Optimal conversion of conventional artificial neural networks
to spiking neural networks", ICLR 2021: train with the ReLU clipped at a threshold y_th, take each layer's
largest activation as its firing threshold, shift by V_th/2T, reset by subtraction, read the output's
membrane.

Progress goes to stderr, the accuracy table to stdout. One machine, one PyTorch and one command give one file,
to the byte. Needs PyTorch (``pip install "evsnn[torch]"``) and, on one core, three to four minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from threshold_relu import ThresholdReLU, set_limit
from torch import nn
from torch.nn import functional

import evsnn

CLASSES = tuple("0123456789")
STEPS = (4, 8, 16, 32)
N_STEPS = 16
N_SAMPLES = 100
KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def build(width: int, y_th: float) -> nn.Sequential:
    """Two 5x5 convolutions, each averaged by 2, and two linear layers; He initialisation by fan-out."""
    model = nn.Sequential(
        nn.Conv2d(1, width, 5),
        ThresholdReLU(y_th),
        nn.AvgPool2d(2),
        nn.Conv2d(width, 2 * width, 5),
        ThresholdReLU(y_th),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * 16, 4 * width),
        ThresholdReLU(y_th),
        nn.Linear(4 * width, len(CLASSES)),
    )
    for module in model:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            nn.init.zeros_(module.bias)
    return model


def read_digits(path: Path) -> list[np.ndarray]:
    """The four arrays of `KEYS`, checked for shape and type."""
    if not path.is_file():
        raise SystemExit(f"{path}: no such file. Give an .h5 or .npz file with {', '.join(KEYS)}")
    with np.load(path) if path.suffix == ".npz" else h5py.File(path, "r") as file:
        missing = [key for key in KEYS if key not in file]
        if missing:
            raise SystemExit(f"{path}: no {missing[0]!r}: expected the arrays {', '.join(KEYS)}")
        arrays = [np.asarray(file[key][()]) for key in KEYS]
    for images, labels in (arrays[:2], arrays[2:]):
        if images.shape[1:] != (28, 28) or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise SystemExit(
                f"{path}: got images {images.dtype} {images.shape} with labels {labels.shape}: expected uint8"
                " (n, 28, 28) and (n,)"
            )
    return arrays


def scaled(images: np.ndarray) -> np.ndarray:
    """Pixels as float32 (n, 1, 28, 28) in [0, 1].

    No mean is subtracted, so that the background stays zero.
    """
    return (images[:, None] / np.float32(255)).astype(np.float32)


def shifted(images: torch.Tensor, reach: int, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by up to `reach` pixels along both axes, with zeros moved in."""
    n, _, height, width = images.shape
    offsets = torch.randint(0, 2 * reach + 1, (2, n, 1), generator=generator)
    rows, columns = offsets[0] + torch.arange(height), offsets[1] + torch.arange(width)
    padded = functional.pad(images, (reach,) * 4)
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def train(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor, args: argparse.Namespace) -> None:
    """SGD with momentum under a cosine schedule (Deng & Gu 2021, appendix A.1).

    The first epochs have a plain ReLU.

    The loss has a second term, not in the paper: `args.sparsity` times the sum of activations in units of
    y_th, which is the number of spikes a digit will cost at each step.
    """
    generator = torch.Generator().manual_seed(args.seed)
    n_batches = len(images) // args.batch_size
    optimizer = torch.optim.SGD(
        model.parameters(), lr=args.learning_rate, momentum=0.9, weight_decay=args.weight_decay, nesterov=True
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * n_batches)
    for epoch in range(args.epochs):
        started, total, activity = time.perf_counter(), 0.0, 0.0
        set_limit(model, math.inf if epoch < args.relu_epochs else args.y_th)
        order = torch.randperm(len(images), generator=generator)
        for batch in order[: n_batches * args.batch_size].split(args.batch_size):
            logits, activations = forward(model, shifted(images[batch], args.shift, generator))
            spikes = sum(activation.sum() for activation in activations) / (args.y_th * len(batch))
            loss = functional.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            (loss + args.sparsity * spikes).backward()
            optimizer.step()
            scheduler.step()
            total, activity = total + loss.item(), activity + spikes.item()
        seconds = time.perf_counter() - started
        print_message(
            f"epoch {epoch + 1:2d}/{args.epochs}  loss {total / n_batches:.4f}  spikes per step"
            f" {activity / n_batches:.0f}  {seconds:.0f} s"
        )


def forward(model: nn.Sequential, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The logits, and the output of every `ThresholdReLU`."""
    activations = []
    for module in model:
        x = module(x)
        if isinstance(module, ThresholdReLU):
            activations.append(x)
    return x, activations


@torch.no_grad()
def largest_activations(model: nn.Sequential, images: torch.Tensor) -> list[float]:
    """The maximum of each `ThresholdReLU` over `images`: y_th where one neuron saturates once."""
    largest = [0.0] * sum(isinstance(module, ThresholdReLU) for module in model)
    for batch in images.split(1000):
        largest = [max(a, b.max().item()) for a, b in zip(largest, forward(model, batch)[1])]
    return largest


@torch.no_grad()
def ann_accuracy(model: nn.Sequential, images: torch.Tensor, labels: np.ndarray) -> float:
    predictions = torch.cat([model(batch).argmax(dim=1) for batch in images.split(1000)])
    return float((predictions.numpy() == labels).mean())


def convert(model: nn.Sequential, thresholds: list[float]) -> evsnn.Network:
    """The spiking network (Deng & Gu 2021, algorithm 1), with the ANN's weights and the shift V_th/2T.

    There is one threshold per layer.
    """
    rest = iter(thresholds)
    layers: list[evsnn.Layer] = [evsnn.Input((1, 28, 28))]
    for module in model:
        if isinstance(module, ThresholdReLU):
            layers.append(evsnn.IF(next(rest)))
        elif isinstance(module, nn.AvgPool2d):
            layers.append(evsnn.AvgPool2d(module.kernel_size))
        elif isinstance(module, nn.Flatten):
            layers.append(evsnn.Flatten())
        else:
            kind = evsnn.Conv2d if isinstance(module, nn.Conv2d) else evsnn.Linear
            layers.append(kind(module.weight.detach().numpy(), module.bias.detach().numpy()))
    return evsnn.Network(
        (*layers, evsnn.Readout()),
        n_steps=N_STEPS,
        shift="bias",
        readout="membrane",
        input_range=(0, 1),
        classes=CLASSES,
    )


def snn_results(
    network: evsnn.Network, images: np.ndarray, labels: np.ndarray, threads: int
) -> dict[tuple[str, int], evsnn.Result]:
    """Runs over all test digits, by arithmetic and T."""
    results = {}
    for arithmetic in ("float32", "int8"):
        for n_steps in STEPS:
            results[arithmetic, n_steps] = result = evsnn.simulate(
                network, images, n_steps=n_steps, arithmetic=arithmetic, threads=threads, labels=labels
            )
            print_message(f"{arithmetic}, T = {n_steps}: {result.accuracy:.2%}")
    return results


def provenance(
    args: argparse.Namespace,
    digits: list[np.ndarray],
    accuracy: float,
    results: dict[tuple[str, int], evsnn.Result],
) -> dict[str, str | int | float]:
    """What the file says about itself. No paths and no times: they would differ from run to run."""
    sha256 = hashlib.sha256()
    for array in digits:
        sha256.update(np.ascontiguousarray(array, dtype=np.uint8))
    options = {name: value for name, value in sorted(vars(args).items()) if name not in ("digits", "output")}
    return {
        "name": "mnist",
        "method": "threshold ReLU, shift V_th/2T, soft reset (Deng & Gu, ICLR 2021)",
        "command": " ".join(
            [
                "python examples/train_mnist.py DIGITS -o WEIGHTS.h5",
                *(f"--{name.replace('_', '-')} {value}" for name, value in options.items()),
            ]
        ),
        "torch": str(torch.__version__),
        "seed": args.seed,
        "epochs": args.epochs,
        "digits": (
            "MNIST, Y. LeCun, C. Cortes, C. J. C. Burges; the stored samples are the first 100 digits of its"
            " test set"
        ),
        "digits_licence": "none stated by the original site; commonly cited as CC BY-SA 3.0",
        "digits_sha256": sha256.hexdigest(),
        "test_digits": len(digits[2]),
        "accuracy_ann": accuracy,
        **{
            f"accuracy_{arithmetic}_T{n_steps:02d}": result.accuracy
            for (arithmetic, n_steps), result in results.items()
        },
        **{
            f"sops_per_sample_T{n_steps:02d}": round(result.sops_per_sample)
            for (arithmetic, n_steps), result in results.items()
            if arithmetic == "float32"
        },
        **{
            f"spikes_per_sample_T{n_steps:02d}": round(result.spikes_per_sample)
            for (arithmetic, n_steps), result in results.items()
            if arithmetic == "float32"
        },
    }


def print_result(accuracy: float, results: dict[tuple[str, int], evsnn.Result]) -> None:
    print(f"ANN: {accuracy:.2%}")
    print(" T  float32     int8  spikes per digit  SOPs per digit")
    for n_steps in STEPS:
        result = results["float32", n_steps]
        print(
            f"{n_steps:2d}  {result.accuracy:7.2%}  {results['int8', n_steps].accuracy:7.2%} "
            f" {result.spikes_per_sample:14,.0f}  {result.sops_per_sample:12,.0f}"
        )


def print_message(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    what = "Train a small threshold-ReLU CNN on MNIST and write it as a spiking network."
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("digits", type=Path, metavar="DIGITS", help=".h5 or .npz with " + ", ".join(KEYS))
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="WEIGHTS.h5", help="the file to write"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the initial weights, the order of digits and their shifts"
    )
    parser.add_argument("--epochs", type=int, default=16, help="in all")
    parser.add_argument("--relu-epochs", type=int, default=2, help="first epochs, with plain ReLU")
    parser.add_argument("--y-th", type=float, default=1.0, help="threshold of the ReLU")
    parser.add_argument("--width", type=int, default=16, help="channels of the first convolution")
    parser.add_argument("--batch-size", type=int, default=100, help="digits a step of SGD")
    parser.add_argument("--learning-rate", type=float, default=0.05, help="the largest; it falls to zero")
    parser.add_argument("--weight-decay", type=float, default=2e-4, help="of SGD")
    parser.add_argument("--sparsity", type=float, default=1e-5, help="loss per spike and step")
    parser.add_argument("--shift", type=int, default=2, help="largest random move of a digit, in pixels")
    parser.add_argument(
        "--threads", type=int, default=1, help="of PyTorch and evsnn; another number may give other last bits"
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if not args.output.parent.is_dir():  # found out now, not after the training
        raise SystemExit(f"{args.output.parent}: no such folder")
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    digits = read_digits(args.digits)
    train_images, test_images = scaled(digits[0]), scaled(digits[2])
    train_labels, test_labels = (labels.astype(np.int64) for labels in digits[1::2])
    model = build(args.width, args.y_th)
    train(model, torch.from_numpy(train_images), torch.from_numpy(train_labels), args)
    thresholds = largest_activations(model, torch.from_numpy(train_images))
    print_message("thresholds: " + ", ".join(f"{threshold:g}" for threshold in thresholds))
    accuracy = ann_accuracy(model, torch.from_numpy(test_images), test_labels)
    print_message(f"ANN: {accuracy:.2%}")
    network = convert(model, thresholds)
    results = snn_results(network, test_images, test_labels, args.threads)
    samples = evsnn.Samples(test_images[:N_SAMPLES], test_labels[:N_SAMPLES])
    evsnn.save(
        args.output, network.replace(samples=samples, metadata=provenance(args, digits, accuracy, results))
    )
    print_result(accuracy, results)
    print_message(f"wrote {args.output}")


if __name__ == "__main__":
    main()
