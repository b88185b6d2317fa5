"""The converted networks in a dense, synchronous simulation in PyTorch, for long T and as a check.

usage: python -m examples.paper.dense MODELS/vgg16_cifar10 DATA -o RUNS
                                      [--methods S,T,TS,RMP,percentile] [--steps 16,32,...,400-600]

All layers in order within a step, as the paper has it. From evsnn come only the thresholds, read from the
files that `examples.paper.evaluate` left in RUNS; weights come from MODELS/*.pt. Products are TF32 where that
is exact (weights have float16's mantissa, spikes and 2x2 means of them are multiples of 1/4) and float32 for
the input; sums are float32, in the order the GPU likes. RUNS/SYSTEM_METHOD_dense.json gets the accuracies,
the .npz beside it each prediction; rows that are there are not simulated again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import evsnn
from evsnn.network.layers import IF
from examples.paper.data import load, scaled
from examples.paper.networks import NETWORKS, Residual
from examples.paper.records import AVERAGE, AVERAGE_SHIFT_STEPS, METHODS, Record, key_of
from examples.threshold_relu import ThresholdReLU

try:
    import triton
    import triton.language as tl
except ImportError:  # without a GPU
    triton = None

__all__ = ["Spiking", "simulate"]

MEAN_OVER = range(400, 601)

if triton is not None:

    @triton.jit
    def _fire_kernel(current, v, spikes, bias, threshold, n, channels, block: tl.constexpr):
        i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
        inside = i < n
        charged = tl.load(v + i, inside) + (
            tl.load(current + i, inside) + tl.load(bias + i % channels, inside)
        )
        spike = charged >= threshold
        tl.store(v + i, tl.where(spike, charged - threshold, charged), inside)
        tl.store(spikes + i, spike.to(tl.float32), inside)


def fire(current: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, threshold: float) -> torch.Tensor:
    """One step of integrate-and-fire neurons with soft reset.

    Parameters
    ----------
    current : (n, channels, ...)
        Dense in memory, channels last.
    v : like current
        Membranes; changed in place.
    bias : (channels,)
        Added at each step: the ANN's bias and the shift.
    threshold : float

    Returns
    -------
    like current
        1 where a neuron fired, else 0.
    """
    if current.device.type == "cpu":
        v += current + bias.reshape(-1, *[1] * (current.ndim - 2))
        spikes = (v >= threshold).float()
        v -= threshold * spikes
        return spikes
    spikes = torch.empty_like(current)
    n, block = current.numel(), 1024
    _fire_kernel[(triton.cdiv(n, block),)](current, v, spikes, bias, threshold, n, len(bias), block)
    return spikes


class Population:
    """Neurons and the branches that they integrate.

    Parameters
    ----------
    branches : list of (module or None, float)
        A convolution or linear layer (None: straight through), and the amplitude of the spikes it receives.
    threshold : float
    """

    def __init__(self, branches: list[tuple[nn.Module | None, float]], threshold: float):
        self.branches, self.threshold = branches, threshold
        biases = [module.bias for module, _ in branches if module is not None and module.bias is not None]
        width = next(len(module.weight) for module, _ in branches if module is not None)
        device = next(module.weight.device for module, _ in branches if module is not None)
        self.own_bias = sum(biases) if biases else torch.zeros(width, device=device)

    def begin(self, shift_steps: int | None) -> None:
        """Empty membranes; the shift V_th/2T of `shift_steps` = T, or none."""
        self.v: torch.Tensor | None = None
        self.bias = self.own_bias + (self.threshold / (2 * shift_steps) if shift_steps else 0.0)

    def charge(self, *sent: torch.Tensor) -> torch.Tensor:
        """What arrives in a step from spikes (or from the input), without the bias."""
        total = None
        for x, (module, amplitude) in zip(sent, self.branches):
            part = x if module is None else product(module, x)
            part = part if amplitude == 1 else part * amplitude
            total = part if total is None else total + part
        return total

    def __call__(self, current: torch.Tensor) -> torch.Tensor:
        if self.v is None:
            self.v = torch.zeros_like(current)
        return fire(current, self.v, self.bias, self.threshold)


def product(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The module's linear map without its bias."""
    if isinstance(module, nn.Linear):
        return F.linear(x, module.weight)
    return F.conv2d(x, module.weight, None, module.stride, module.padding, module.dilation, module.groups)


class Spiking:
    """The spiking counterpart of a network of `examples.paper.networks`.

    Parameters
    ----------
    model : Sequential
        Of convolutions, linear layers, `ThresholdReLU`, average pools, flattens, dropouts and `Residual`.
    thresholds : iterator of float
        One a `ThresholdReLU`, in the order in which they act.
    """

    def __init__(self, model: nn.Sequential, thresholds: Iterator[float]):
        self.stages: list[Population | tuple[Population, Population] | nn.Module] = []
        amplitude, waiting = 1.0, None
        for module in model:
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                waiting = module
            elif isinstance(module, ThresholdReLU):
                self.stages.append(Population([(waiting, amplitude)], next(thresholds)))
                amplitude, waiting = self.stages[-1].threshold, None
            elif isinstance(module, Residual):
                inner = Population([(module.first, amplitude)], next(thresholds))
                shortcut = None if isinstance(module.shortcut, nn.Identity) else module.shortcut
                outer = Population(
                    [(module.second, inner.threshold), (shortcut, amplitude)], next(thresholds)
                )
                self.stages.append((inner, outer))
                amplitude = outer.threshold
            elif isinstance(module, (nn.AvgPool2d, nn.Flatten)):
                self.stages.append(module)
        self.readout, self.last_amplitude = waiting, amplitude

    def run(self, images: torch.Tensor, n_steps: int, shift_steps: int | None) -> Iterator[torch.Tensor]:
        """Simulate; gives the readout's membranes (n, classes) after each step."""
        for stage in self.stages:
            for population in (
                (stage,) if isinstance(stage, Population) else stage if isinstance(stage, tuple) else ()
            ):
                population.begin(shift_steps)
        with exact_products():
            first = self.stages[0].charge(
                images.contiguous(memory_format=torch.channels_last)
            )  # the same at each step
        membranes = 0.0
        for _ in range(n_steps):
            x = self.stages[0](first)
            for stage in self.stages[1:]:
                if isinstance(stage, Population):
                    x = stage(stage.charge(x))
                elif isinstance(stage, tuple):
                    inner, outer = stage
                    x = outer(outer.charge(inner(inner.charge(x)), x))
                else:
                    x = stage(x)
            membranes = membranes + product(self.readout, x) * self.last_amplitude
            if self.readout.bias is not None:
                membranes = membranes + self.readout.bias
            yield membranes


class exact_products:
    """float32 products within, TF32 outside."""

    def __enter__(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True


@torch.no_grad()
def simulate(
    network: Spiking,
    images: torch.Tensor,
    n_steps: int,
    shift_steps: int | None,
    times: list[int],
    batch: int,
) -> np.ndarray:
    """Predictions (len(times), n) uint8 of images (n, 3, 32, 32) after each of `times`."""
    found = []
    for part in images.split(batch):
        wanted, at = set(times), []
        for t, membranes in enumerate(network.run(part, n_steps, shift_steps), 1):
            if t in wanted:
                at.append(membranes.argmax(1).to(torch.uint8))
        found.append(torch.stack(at).cpu().numpy())
    return np.concatenate(found, axis=1)


def runs(shifted: bool, steps: list[int | str]) -> list[tuple[int, int | None, dict[int | str, list[int]]]]:
    """The runs that `steps` need: (number of steps, the shift's T, {name: times at which it is read}).

    A shift belongs to one T. Without a shift all T are read from one run.
    """
    outputs_at = {T: list(MEAN_OVER) if T == AVERAGE else [T] for T in steps}
    if shifted:
        return [
            (read[-1], AVERAGE_SHIFT_STEPS if T == AVERAGE else T, {T: read})
            for T, read in outputs_at.items()
        ]
    return [(max(read[-1] for read in outputs_at.values()), None, outputs_at)]


def thresholds_of(path: Path) -> list[float]:
    """The thresholds of a converted file, one per layer, in graph order."""
    return [float(np.max(layer.v_threshold)) for layer in evsnn.load(path).layers if isinstance(layer, IF)]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, help="MODELS/SYSTEM, the common start of the names of its .pt files"
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="RUNS")
    parser.add_argument("--methods", default="S,T,TS,RMP,percentile")
    parser.add_argument("--steps", default=f"16,32,64,128,256,512,{AVERAGE}")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch", type=int, default=1000)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    system = arguments.source.name
    data = load(arguments.data)
    images, labels = (
        torch.from_numpy(scaled(data.test_images[: arguments.limit])).to(device),
        data.test_labels[: arguments.limit],
    )
    steps = [int(t) if t.isdigit() else t for t in arguments.steps.split(",")]
    for method in arguments.methods.split(","):
        how = METHODS[method]
        record = Record.open(
            arguments.output,
            system,
            method,
            "dense",
            torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        )
        steps_left = [T for T in steps if not record.has(T)]
        if not steps_left:
            continue
        model = NETWORKS[system.partition("_")[0]](data.n_classes)
        model.load_state_dict(
            torch.load(arguments.source.with_name(f"{system}_{how.activation}.pt"), map_location="cpu")
        )
        model.to(device, memory_format=torch.channels_last).eval()
        with exact_products():
            ann = (
                torch.cat([model(part).argmax(1) for part in images.split(arguments.batch)])
                .cpu()
                .numpy()
                .astype(np.uint8)
            )
        record.predictions["ann"] = ann
        network = Spiking(model, iter(thresholds_of(arguments.output / how.network(system))))
        for n_steps, shift_steps, outputs_at in runs(how.shift == "bias", steps_left):
            started = time.perf_counter()
            times = sorted({t for read in outputs_at.values() for t in read})
            at = dict(zip(times, simulate(network, images, n_steps, shift_steps, times, arguments.batch)))
            seconds = time.perf_counter() - started
            for T, read in outputs_at.items():
                found = np.stack([at[t] for t in read])
                row = {
                    "T": T,
                    "n_samples": len(labels),
                    "accuracy": float((found == labels).mean()),
                    "ann_accuracy": float((ann == labels).mean()),
                    "agreement": float((found == ann).mean()),
                    "seconds": round(seconds, 2),
                }
                record.add(
                    row,
                    {key_of(T): found, "times": np.array(read)} if T == AVERAGE else {key_of(T): found[0]},
                )
                print(
                    f"{system} {method} T={T}: {row['accuracy']:.2%}, ANN {row['ann_accuracy']:.2%},"
                    f" {seconds:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
