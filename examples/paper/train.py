"""Train a network of the paper on CIFAR-10 or CIFAR-100, and export it to ONNX, with PyTorch on one GPU.

usage: python -m examples.paper.train NETWORK DATA -o MODELS/vgg16_cifar10_threshold [--limit 1]
                                      [--epochs N] [--seed S] [--start WEIGHTS] [--no-onnx]

Without --limit the activations stay plain ReLU ("regular"); with it they are limited from a fifteenth of the
epochs on ("threshold"; the paper: 1 on CIFAR-10, 2 on CIFAR-100). Written are OUTPUT.pt (weights),
OUTPUT.onnx and OUTPUT.json (what was trained, how, and how well). Weights are rounded to float16: half the
space, and exact in TF32 where they meet spikes. The accuracy is that of the rounded network.

The recipe: SGD with momentum 0.9, weight decay 5e-4, batches of 128, one cosine from 0.03 behind a short
rise, random crops, mirror images and erased squares, gradients limited to norm 2, bfloat16 products. A run
that was cut short goes on from OUTPUT.state. The same command gives the same weights to the bit on the same
kind of device with the same PyTorch. WEIGHTS is what a training left (.pt) or a published model (.h5, its
int8 weights times their scales).
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import evsnn
from examples.paper.data import DEVIATION, MEAN, Data, load, scaled
from examples.paper.networks import NETWORKS
from examples.threshold_relu import set_limit

__all__ = ["Recipe", "Trainer", "accuracy", "digest_of", "export", "repeatable"]

KEEP_EVERY_S = 60.0
DIGITS = 12
"""Of a SHA-256, in records."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    epochs : int
    limit : float, optional
        y_th of every activation; None: plain ReLU.
    seed : int
    rate : float
        The largest learning rate.
    erase : int
        Side in pixels of the square that is erased from each picture; 0: none.
    """

    epochs: int
    limit: float | None = None
    seed: int = 0
    rate: float = 0.03
    erase: int = 8
    mix: float = 0.0
    smoothing: float = 0.0
    batch: int = 128
    rise: float = 0.03
    weight_decay: float = 5e-4

    def rate_at(self, step: int, n_steps: int) -> float:
        """A straight rise over the first steps, then half a cosine down to 0."""
        rise = max(1, int(self.rise * n_steps))
        return self.rate * (
            (step + 1) / rise
            if step < rise
            else 0.5 * (1 + math.cos(math.pi * (step - rise) / (n_steps - rise)))
        )

    def limit_at(self, epoch: int) -> float:
        """The first fifteenth of the epochs goes without a limit."""
        return math.inf if self.limit is None or epoch < self.epochs // 15 else self.limit


class Trainer:
    """A network in training; the whole data set lies on the device.

    On a GPU a step is captured once as a CUDA graph and replayed: these networks are small, and launching
    their kernels one by one takes longer than running them.
    """

    def __init__(self, model: nn.Module, data: Data, recipe: Recipe, device: torch.device):
        if len(data.train_labels) < recipe.batch:
            raise SystemExit(
                f"got {len(data.train_labels)} training images, expected at least a batch of {recipe.batch}"
            )
        self.model, self.recipe, self.device = (
            model.to(device, memory_format=torch.channels_last),
            recipe,
            device,
        )
        pad = ((0, 0), (4, 4), (4, 4), (0, 0))
        self.padded = torch.from_numpy(np.pad(data.train_images, pad)).to(device)
        self.labels = torch.from_numpy(data.train_labels).to(device)
        self.mean, self.deviation = (torch.from_numpy(255 * x).to(device) for x in (MEAN, DEVIATION))
        self.picked = torch.zeros(recipe.batch, dtype=torch.int64, device=device)
        self.loss = torch.zeros((), device=device)
        self.epoch = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.captured_limit = math.nan
        on_gpu = device.type == "cuda"
        rate = torch.tensor(0.0, device=device) if on_gpu else 0.0
        self.optimiser = torch.optim.SGD(
            model.parameters(), rate, momentum=0.9, weight_decay=recipe.weight_decay, fused=on_gpu
        )
        torch.manual_seed(recipe.seed)

    def batch(self) -> torch.Tensor:
        """The chosen pictures, cropped at random and scaled, (batch, 3, 32, 32) float32.

        Half of them are mirrored, and a square is erased.
        """
        n, device, erase = self.recipe.batch, self.device, self.recipe.erase
        dy, dx = torch.randint(0, 9, (2, n, 1, 1), device=device)
        mirrored = torch.rand((n, 1, 1), device=device) < 0.5
        side = torch.arange(32, device=device)
        rows, columns = side[:, None] + dy, torch.where(mirrored, 31 - side, side) + dx
        pictures = (
            self.padded[self.picked[:, None, None], rows, columns].float() - self.mean
        ) / self.deviation
        if erase:
            y, x = torch.randint(0, 32, (2, n, 1, 1), device=device)
            inside = ((side[:, None] - y).abs() < erase / 2) & ((side - x).abs() < erase / 2)
            pictures = pictures * ~inside[..., None]
        return pictures.permute(0, 3, 1, 2)

    def mixed(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Some pictures with a rectangle of the picture before; and which share of each (batch,) that is."""
        n, side = len(pictures), torch.arange(32, device=self.device)
        y, x = torch.randint(0, 32, (2, n, 1, 1), device=self.device)
        half = (
            16
            * torch.rand((n, 1, 1), device=self.device).sqrt()
            * (torch.rand((n, 1, 1), device=self.device) < self.recipe.mix)
        )
        inside = ((side[:, None] - y).abs() < half) & ((side - x).abs() < half)
        return torch.where(inside[:, None], pictures.roll(1, 0), pictures), inside.float().mean((1, 2))

    def loss_of_batch(self) -> torch.Tensor:
        pictures, labels, smoothing = self.batch(), self.labels[self.picked], self.recipe.smoothing
        if not self.recipe.mix:
            return F.cross_entropy(self.model(pictures), labels, label_smoothing=smoothing)
        pictures, share = self.mixed(pictures)
        logits = self.model(pictures)
        own, other = (
            F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="none")
            for target in (labels, labels.roll(1))
        )
        return torch.lerp(own, other, share).mean()

    def step(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
            loss = self.loss_of_batch()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimiser.step()
        self.loss += loss.detach()

    def capture(self) -> None:
        """Record a step as a CUDA graph; weights and momenta are as before afterwards."""
        before = {
            name: tensor.clone()
            for name, tensor in self.model.state_dict().items()
            if isinstance(tensor, torch.Tensor)
        }
        momenta = {
            p: s["momentum_buffer"].clone()
            for p, s in self.optimiser.state.items()
            if s.get("momentum_buffer") is not None
        }
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.optimiser.zero_grad(set_to_none=True)
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        self.optimiser.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step()
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                if name in before:
                    tensor.copy_(before[name])
            for parameter, state in self.optimiser.state.items():
                (
                    state["momentum_buffer"].copy_(momenta[parameter])
                    if parameter in momenta
                    else state["momentum_buffer"].zero_()
                )

    def run_epoch(self) -> float:
        """Train for an epoch; gives the mean loss."""
        recipe, n_batches = self.recipe, len(self.labels) // self.recipe.batch
        limit = recipe.limit_at(self.epoch)
        set_limit(self.model, limit)
        self.model.train()
        if self.device.type == "cuda" and limit != self.captured_limit:
            self.capture()
            self.captured_limit = limit
        self.loss.zero_()
        order = torch.randperm(len(self.labels), device=self.device)
        for i in range(n_batches):
            self.picked.copy_(order[i * recipe.batch : (i + 1) * recipe.batch])
            rate = recipe.rate_at(self.epoch * n_batches + i, recipe.epochs * n_batches)
            for group in self.optimiser.param_groups:
                group["lr"].fill_(rate) if isinstance(group["lr"], torch.Tensor) else group.update(lr=rate)
            if self.graph is not None:
                self.graph.replay()
            else:
                self.optimiser.zero_grad(set_to_none=True)
                self.step()
        self.epoch += 1
        return self.loss.item() / n_batches

    def save(self, path: Path, seconds: float) -> None:
        """Keep what goes on needs; all or nothing."""
        generator = (
            torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else torch.get_rng_state()
        )
        part = path.with_suffix(".part")
        kept = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": generator,
        }
        kept |= {"epoch": self.epoch, "recipe": asdict(self.recipe), "seconds": seconds}
        torch.save(kept, part)
        os.replace(part, path)

    def resume(self, path: Path) -> float:
        """Go on from what `save` kept, if it is of the same recipe; gives the seconds that were spent."""
        kept = torch.load(path, map_location=self.device)
        if kept["recipe"] != asdict(self.recipe):
            raise SystemExit(
                f"{path}: got a run of {kept['recipe']}, expected {asdict(self.recipe)}; remove the file to"
                " start anew"
            )
        self.model.load_state_dict(kept["model"])
        self.optimiser.load_state_dict(kept["optimiser"])
        self.epoch = kept["epoch"]
        (torch.cuda.set_rng_state if self.device.type == "cuda" else torch.set_rng_state)(
            kept["generator"].cpu()
        )
        return kept["seconds"]


def repeatable() -> None:
    """Let this process compute the same bits each time; before anything ran on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads what it has not written


@torch.no_grad()
def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray, device: torch.device) -> float:
    """Share of (n, 32, 32, 3) uint8 pictures that a network classes right, in float32."""
    model.eval()
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    right = 0
    for first in range(0, len(images), 500):
        logits = model(torch.from_numpy(scaled(images[first : first + 500])).to(device))
        right += int((logits.argmax(1).cpu().numpy() == labels[first : first + 500]).sum())
    torch.backends.cudnn.allow_tf32 = allowed
    return right / len(images)


def export(model: nn.Module, path: Path) -> None:
    """Write a network as ONNX, its batch size open."""
    model = model.float().cpu().to(memory_format=torch.contiguous_format).eval()
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, 32, 32),),
        str(path),
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "n"}},
        dynamo=False,
    )


def rounded(model: nn.Module) -> nn.Module:
    """The network with weights that float16 holds."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    return model


def digest_of(model: nn.Module) -> str:
    """Which weights these are: the start of a SHA-256 over float32 values, by name."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            found.update(name.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()[:DIGITS]


def start_from(model: nn.Module, path: Path) -> None:
    """Take over weights of another training, also of another data set.

    A classifier of another width starts with new weights.
    """
    kept, own = (
        published(path) if path.suffix == ".h5" else torch.load(path, map_location="cpu"),
        model.state_dict(),
    )
    model.load_state_dict(
        {
            k: v
            for k, v in kept.items()
            if not isinstance(v, torch.Tensor) or (k in own and v.shape == own[k].shape)
        },
        strict=False,
    )


def published(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a published model under the names of a network of networks.py.

    Biases are those of the longest T, which no conversion corrected.
    """
    network = evsnn.load(path)
    layers = network.at(max(network.step_parameters, default=network.n_steps)).layers
    named = {
        layer.name.strip("/").rpartition("/")[0].replace("/", "."): layer
        for layer in layers
        if hasattr(layer, "weight")
    }
    arrays = {
        f"{name}.{what}": getattr(layer, what) for name, layer in named.items() for what in ("weight", "bias")
    }
    return {
        name: torch.from_numpy(np.array(array, np.float32))
        for name, array in arrays.items()
        if array is not None
    }


def origin_of(path: Path) -> str:
    """What a record says of the first weights: the training's name, or the published file and its digest."""
    return (
        f"{path.name} (SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]})"
        if path.suffix == ".h5"
        else path.stem
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="MODELS/NETWORK_DATA_regular or MODELS/NETWORK_DATA_threshold, without a suffix",
    )
    parser.add_argument("--limit", type=float, help="y_th of the threshold ReLU")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.03)
    parser.add_argument("--erase", type=int, default=8)
    parser.add_argument("--mix", type=float, default=0.0)
    parser.add_argument("--smoothing", type=float, default=0.0)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--dropout", type=float, nargs=2, metavar=("CONVOLUTIONS", "DENSE"))
    parser.add_argument("--start", type=Path, help="weights of the same network: .pt, or a published .h5")
    parser.add_argument("--no-onnx", action="store_true")
    arguments = parser.parse_args()
    output: Path = arguments.output
    repeatable()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load(arguments.data)
    recipe = Recipe(
        arguments.epochs,
        arguments.limit,
        arguments.seed,
        arguments.rate,
        arguments.erase,
        arguments.mix,
        arguments.smoothing,
        weight_decay=arguments.weight_decay,
    )
    torch.manual_seed(recipe.seed)
    network = NETWORKS[arguments.network]
    defaults = {
        name: p.default for name, p in inspect.signature(network).parameters.items() if name == "dropout"
    }
    dropout = {
        name: tuple(arguments.dropout or default) for name, default in defaults.items()
    }  # "depthwise" has none
    model = network(data.n_classes, **dropout)
    if arguments.start:
        start_from(model, arguments.start)
    trainer = Trainer(model, data, recipe, device)
    state = output.with_suffix(".state")
    seconds = trainer.resume(state) if state.exists() else 0.0
    started, kept = time.perf_counter() - seconds, seconds
    while trainer.epoch < recipe.epochs:
        loss = trainer.run_epoch()
        if trainer.epoch % 10 == 0 or trainer.epoch == recipe.epochs:
            seconds = time.perf_counter() - started
            if seconds > kept + KEEP_EVERY_S:
                trainer.save(state, seconds)
                kept = seconds
            right = accuracy(trainer.model, data.test_images[:2000], data.test_labels[:2000], device)
            print(
                f"{output.name}: epoch {trainer.epoch}/{recipe.epochs}, loss {loss:.3f}, {right:.2%} of the"
                f" first test images, {seconds:.0f} s",
                flush=True,
            )
    set_limit(model, recipe.limit_at(recipe.epochs))
    rounded(model)
    system, _, activation = output.name.rpartition("_")
    record = {
        "system": system,
        "network": arguments.network,
        "data": system.rpartition("_")[2],
        "activation": activation,
        "limit": recipe.limit,
        "accuracy": accuracy(model, data.test_images, data.test_labels, device),
        "n_test": len(data.test_labels),
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "rate": recipe.rate,
        "erase": recipe.erase,
        "mix": recipe.mix,
        "smoothing": recipe.smoothing,
        "weight_decay": recipe.weight_decay,
        "dropout": dropout.get("dropout"),
        "started_from": arguments.start and origin_of(arguments.start),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "minutes": round(seconds / 60, 2),
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "weights_sha256": digest_of(model),
    }
    torch.save(model.cpu().state_dict(), output.with_suffix(".pt"))
    if not arguments.no_onnx:
        export(model, output.with_suffix(".onnx"))
    output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    state.unlink(missing_ok=True)
    print(f"{output.name}: {record['accuracy']:.2%} of {record['n_test']} test images", flush=True)


if __name__ == "__main__":
    main()
