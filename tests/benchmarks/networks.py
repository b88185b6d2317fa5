"""The networks of the benchmarks, drawn from a fixed seed.

A MNIST CNN, a CIFAR VGG-16, a CIFAR ResNet-20 and, on request, ImageNet's VGG-16 with random weights and
plausible firing rates. What a network costs depends on its shape and its rates and not on what it has learnt,
so nothing is trained or downloaded: weights are drawn layer by layer and scaled to the statistics that folded
batch normalisation leaves, and thresholds are the 99.9th percentile of each layer's activations (Rueckauer et
al. 2017, doi:10.3389/fnins.2017.00682, section 2.2.2).

Everything that is compared comes from one `Model`: its ANN runs in onnxruntime, its folded form (threshold 1
everywhere, no shift, membranes start at 0) in evsnn and in the spiking libraries. Building needs torch, onnx
and onnxruntime, once; afterwards the cache directory holds, a network,

- ``NAME.npz``: weights, images and calibration images;
- ``NAME.h5``: the folded network for evsnn, one image inside;
- ``NAME.onnx``, ``NAME-int8.onnx``: the ANN, and its static per-channel quantization.

::

    python tests/benchmarks/networks.py [--cache DIR] [NAME ...]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = [
    "ALL",
    "INPUT",
    "NAMES",
    "Model",
    "Population",
    "Projection",
    "build",
    "cache_directory",
    "images",
    "load",
    "path",
    "populations",
    "to_evsnn",
    "topology",
]

NAMES = ("mnist_cnn", "vgg16", "resnet20")
ALL = (*NAMES, "vgg16_imagenet")
"""With those that are built and measured only where they are named."""
INPUT = -1  # as a source: the image
SEED = 20240
N_CALIBRATION, N_IMAGES = 32, 16
THRESHOLD_PERCENTILE = 99.9
MEAN, MEAN_SPREAD, SHORTCUT_OFFSET = -0.15, 0.3, 0.10  # of the pre-activations, in standard deviations
BRANCH_GAIN = 0.7  # standard deviation of each of two branches that share a membrane


@dataclass(frozen=True)
class Projection:
    """What charges one population, and from where.

    Parameters
    ----------
    kind : {"conv", "linear"}
    n_in, n_out : int
    source : int
        Index of the population it reads; `INPUT` is the image.
    kernel, stride : int
        Square; padding is ``kernel // 2``.
    pool : int
        Average pooling over ``pool x pool`` before the weights; 1 is none.
    shortcut : int, optional
        Index of the population whose spikes are added.
    shortcut_pool : int
        Average pooling of the shortcut.
    shortcut_conv : bool
        Whether the shortcut has 1x1 weights of its own.
    """

    kind: str
    n_in: int
    n_out: int
    source: int
    kernel: int = 3
    stride: int = 1
    pool: int = 1
    shortcut: int | None = None
    shortcut_pool: int = 1
    shortcut_conv: bool = False

    @property
    def padding(self) -> int:
        return self.kernel // 2


@dataclass(frozen=True, eq=False)
class Population:
    """One population and what charges it, with every threshold, and so every spike, brought to 1.

    Weights and shortcuts are multiplied by the source's threshold, and all by 1 / the own one.
    """

    projection: Projection
    weight: np.ndarray
    bias: np.ndarray
    shortcut_scale: np.float32
    shortcut_weight: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Model:
    """A network in ANN units: ``a = clip(W a[source] + b + shortcut, 0, theta)``; the last is not clipped.

    Parameters
    ----------
    name : str
    projections : tuple of Projection
        The last is the readout's.
    weights, biases, shortcut_weights : tuple of ndarray
        One a projection; shortcut weights are None where there are none.
    thresholds : tuple of float
        One a projection; unused for the readout.
    images, calibration : (n, channels, height, width) float32
    """

    name: str
    projections: tuple[Projection, ...]
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    shortcut_weights: tuple[np.ndarray | None, ...]
    thresholds: tuple[float, ...]
    images: np.ndarray
    calibration: np.ndarray


def topology(name: str) -> tuple[tuple[Projection, ...], tuple[int, int, int]]:
    """Projections and input shape of the network `name`."""
    if name == "mnist_cnn":
        return (
            Projection("conv", 1, 16, INPUT),
            Projection("conv", 16, 32, 0, pool=2),
            Projection("linear", 32 * 7 * 7, 128, 1, pool=2),
            Projection("linear", 128, 10, 2),
        ), (1, 28, 28)
    projections: list[Projection] = []
    if name in ("vgg16", "vgg16_imagenet"):
        n_in, pool = 3, 1
        for widths in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
            for n_out in widths:
                projections.append(Projection("conv", n_in, n_out, len(projections) - 1, pool=pool))
                n_in, pool = n_out, 1
            pool = 2
        side, widths = (224, (4096, 4096, 1000)) if name == "vgg16_imagenet" else (32, (512, 512, 10))
        n_in = 512 * (side // 32) ** 2
        for n_out in widths:
            projections.append(Projection("linear", n_in, n_out, len(projections) - 1, pool=pool))
            n_in, pool = n_out, 1
        return tuple(projections), (3, side, side)
    if name == "resnet20":
        projections = [
            Projection("conv", 3, 64, INPUT),
            Projection("conv", 64, 64, 0),
            Projection("conv", 64, 64, 1),
        ]
        n_in = 64
        for stage, width in enumerate((64, 128, 256, 512)):
            for block in range(2):
                stride, source = 2 if stage and not block else 1, len(projections) - 1
                projections.append(Projection("conv", n_in, width, source, stride=stride))
                projections.append(
                    Projection(
                        "conv",
                        width,
                        width,
                        source + 1,
                        shortcut=source,
                        shortcut_pool=stride,
                        shortcut_conv=n_in != width,
                    )
                )
                n_in = width
        projections.append(Projection("linear", 512, 10, len(projections) - 1, pool=4))
        return tuple(projections), (3, 32, 32)
    raise ValueError(f"no network {name!r}: one of {', '.join(ALL)}")


def cache_directory(argument: str | None = None) -> Path:
    """Where built networks lie: the argument, else EVSNN_BENCHMARK_CACHE, else .cache beside this file."""
    return Path(
        argument or os.environ.get("EVSNN_BENCHMARK_CACHE") or Path(__file__).resolve().parent / ".cache"
    )


def path(cache: Path, name: str, kind: str = ".npz") -> Path:
    """Where a network's file lies in the cache; kinds are ".npz", ".h5", ".onnx" and "-int8.onnx"."""
    return cache / f"{name}{kind}"


def build(name: str, cache: Path) -> None:
    """Write the files of a network that are not in the cache yet."""
    cache.mkdir(parents=True, exist_ok=True)
    if not path(cache, name).exists():
        _say(f"{name}: drawing weights")
        _store(_draw(name), path(cache, name))
    model = load(name, cache)
    if not path(cache, name, ".onnx").exists():
        _export_onnx(model, path(cache, name, ".onnx"))
    if not path(cache, name, "-int8.onnx").exists():
        _say(f"{name}: quantizing the ANN")
        _quantize_onnx(model, path(cache, name, ".onnx"), path(cache, name, "-int8.onnx"))
    if not path(cache, name, ".h5").exists():
        import evsnn

        evsnn.save(path(cache, name, ".h5"), to_evsnn(name, cache, n_samples=1))


def load(name: str, cache: Path) -> Model:
    """A built network, in ANN units."""
    projections, _ = topology(name)
    with np.load(path(cache, name)) as arrays:
        columns = [
            [arrays.get(f"{i}/{what}") for i in range(len(projections))]
            for what in ("weight", "bias", "shortcut_weight")
        ]
        thresholds = tuple(float(v) for v in arrays["thresholds"])
        return Model(
            name,
            projections,
            *(tuple(column) for column in columns),
            thresholds,
            arrays["images"],
            arrays["calibration"],
        )


def images(name: str, cache: Path) -> np.ndarray:
    """(n, channels, height, width) float32: what a built network is timed on."""
    with np.load(path(cache, name)) as arrays:
        return arrays["images"]


def populations(name: str, cache: Path) -> Iterator[Population]:
    """A built network's folded populations in order, read one at a time to keep the peak memory low."""
    projections, _ = topology(name)
    last = len(projections) - 1
    with np.load(path(cache, name)) as arrays:
        thresholds = [float(v) for v in arrays["thresholds"]]
        for i, projection in enumerate(projections):
            theta = thresholds[i] if i < last else 1.0
            amplitude = thresholds[projection.source] if projection.source != INPUT else 1.0
            scale = np.float32(
                (thresholds[projection.shortcut] if projection.shortcut is not None else 0.0) / theta
            )
            shortcut = arrays[f"{i}/shortcut_weight"] * scale if projection.shortcut_conv else None
            yield Population(
                projection,
                arrays[f"{i}/weight"] * np.float32(amplitude / theta),
                arrays[f"{i}/bias"] * np.float32(1 / theta),
                scale,
                shortcut,
            )


def to_evsnn(name: str, cache: Path, n_samples: int = 0):
    """The folded network as an `evsnn.Network`; populations are named ``if0``, ``if1``, ...

    A shortcut scaled by other than 1 is a depthwise 1x1 convolution, since an identity keeps amplitudes.
    """
    from evsnn import IF, Add, AvgPool2d, Conv2d, Flatten, Input, Linear, Network, Readout, Samples

    pictures = images(name, cache)
    layers = [Input(pictures.shape[1:], name="image")]
    names = {INPUT: "image"}
    last = len(topology(name)[0]) - 1
    for i, population in enumerate(populations(name, cache)):
        projection = population.projection
        feed = names[projection.source]
        if projection.pool > 1:
            layers.append(AvgPool2d(projection.pool, name=f"pool{i}", inputs=feed))
            feed = f"pool{i}"
        if projection.kind == "conv":
            layers.append(
                Conv2d(
                    population.weight,
                    population.bias,
                    projection.stride,
                    projection.padding,
                    name=f"conv{i}",
                    inputs=feed,
                )
            )
        else:
            if projection.pool > 1:
                layers.append(Flatten(name=f"flatten{i}", inputs=feed))
                feed = f"flatten{i}"
            layers.append(Linear(population.weight, population.bias, name=f"linear{i}", inputs=feed))
        if projection.shortcut is not None:
            main, feed = layers[-1].name, names[projection.shortcut]
            if projection.shortcut_pool > 1:
                layers.append(AvgPool2d(projection.shortcut_pool, name=f"shortcut_pool{i}", inputs=feed))
                feed = f"shortcut_pool{i}"
            weight, groups = population.shortcut_weight, 1
            if weight is None:
                weight, groups = (
                    np.full((projection.n_out, 1, 1, 1), population.shortcut_scale),
                    projection.n_out,
                )
            layers.append(Conv2d(weight, groups=groups, name=f"shortcut{i}", inputs=feed))
            layers.append(Add(name=f"add{i}", inputs=(main, f"shortcut{i}")))
        layers.append(
            IF(v_threshold=1.0, shift=False, name=f"if{i}") if i < last else Readout(name="readout")
        )
        names[i] = layers[-1].name
    samples = Samples(pictures[:n_samples]) if n_samples else None
    span = (float(pictures.min()), float(pictures.max()))
    return Network(
        tuple(layers), n_steps=16, shift="none", readout="membrane", input_range=span, samples=samples
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _draw_images(rng: np.random.Generator, count: int, shape: tuple[int, int, int]):
    """Smooth noise at the scale of a normalised data set; for one channel, mostly background zeros."""
    import torch

    channels, height, width = shape
    coarse = torch.from_numpy(rng.standard_normal((count, channels, 7, 7)).astype(np.float32))
    fine = torch.from_numpy(rng.standard_normal((count, channels, height, width)).astype(np.float32))
    images = (
        torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
        + 0.15 * fine
    )
    if channels == 1:
        return (images - 0.3).clamp(0, 1)
    return (0.5 + 0.25 * images).clamp(0, 1).sub(0.5).div(0.25)


def _draw(name: str) -> Model:
    """Weights, biases and thresholds, layer by layer, from the activations of the layers before."""
    import torch
    from torch.nn.functional import avg_pool2d, conv2d, linear

    def normal(*shape: int, gain: float = 1.0):
        return torch.from_numpy((rng.standard_normal(shape) * gain).astype(np.float32))

    def by_channel(values, rank: int):
        return values.reshape((-1,) + (1,) * (rank - 1))

    def current(projection: Projection, source, weight, bias=None):
        if projection.kind == "conv":
            return conv2d(source, weight, bias, projection.stride, projection.padding)
        return linear(source.flatten(1), weight, bias)

    rng = np.random.default_rng(SEED)
    projections, shape = topology(name)
    calibration, images = _draw_images(rng, N_CALIBRATION, shape), _draw_images(rng, N_IMAGES, shape)
    activations = {INPUT: calibration}
    weights, biases, shortcuts, thresholds = [], [], [], []
    with torch.inference_mode():
        for i, projection in enumerate(projections):
            last = i == len(projections) - 1
            conv, joint = projection.kind == "conv", projection.shortcut is not None
            axes = (0, 2, 3) if conv else (0,)
            source = activations[projection.source]
            if projection.pool > 1:
                source = avg_pool2d(source, projection.pool)
            size = (
                (projection.n_out, projection.n_in, projection.kernel, projection.kernel)
                if conv
                else (projection.n_out, projection.n_in)
            )
            weight = normal(*size, gain=np.sqrt(2.0 / np.prod(size[1:])))
            z = current(projection, source, weight)
            deviation, mean = z.std(dim=axes).clamp_min(1e-3), z.mean(dim=axes)
            centre = (
                torch.zeros(projection.n_out)
                if last
                else torch.from_numpy(
                    (MEAN + MEAN_SPREAD * rng.standard_normal(projection.n_out)).astype(np.float32)
                )
            )
            if joint:  # a shortcut is never negative: without an offset the sums would grow
                centre = centre - SHORTCUT_OFFSET
            gain = BRANCH_GAIN if joint else 1.0
            weight = weight * by_channel(gain / deviation, weight.ndim)
            bias = -mean * gain / deviation + centre
            z = current(projection, source, weight, bias)
            shortcut_weight = None
            if joint:
                shortcut = activations[projection.shortcut]
                if projection.shortcut_pool > 1:
                    shortcut = avg_pool2d(shortcut, projection.shortcut_pool)
                if projection.shortcut_conv:
                    shortcut_weight = normal(
                        projection.n_out, shortcut.shape[1], 1, 1, gain=np.sqrt(1.0 / shortcut.shape[1])
                    )
                    deviation = conv2d(shortcut, shortcut_weight).std(dim=axes).clamp_min(1e-3)
                    shortcut_weight = shortcut_weight * by_channel(BRANCH_GAIN / deviation, 4)
                    shortcut = conv2d(shortcut, shortcut_weight)
                    offset = shortcut.mean(dim=axes)
                    bias, z = bias - offset, z - by_channel(offset, 3)
                z = z + shortcut
            threshold = 0.0 if last else float(np.percentile(z.clamp_min(0).numpy(), THRESHOLD_PERCENTILE))
            activations[i] = z if last else z.clamp(0, threshold)
            weights.append(weight.numpy())
            biases.append(bias.numpy())
            shortcuts.append(None if shortcut_weight is None else shortcut_weight.numpy())
            thresholds.append(float(np.float32(threshold)))
    return Model(
        name,
        projections,
        tuple(weights),
        tuple(biases),
        tuple(shortcuts),
        tuple(thresholds),
        images.numpy(),
        calibration.numpy(),
    )


def _store(model: Model, where: Path) -> None:
    arrays = {
        "images": model.images,
        "calibration": model.calibration,
        "thresholds": np.array(model.thresholds, np.float32),
    }
    for i, columns in enumerate(zip(model.weights, model.biases, model.shortcut_weights)):
        arrays.update(
            {
                f"{i}/{what}": array
                for what, array in zip(("weight", "bias", "shortcut_weight"), columns)
                if array is not None
            }
        )
    np.savez(where, **arrays)


def _export_onnx(model: Model, where: Path) -> None:
    """The ANN with threshold ReLUs as clips, any batch size."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []
    tensors = {INPUT: "image"}

    def constant(name: str, array) -> str:
        constants.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def node(kind: str, inputs: Sequence[str], name: str, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def pooled(tensor: str, size: int, name: str) -> str:
        return (
            tensor
            if size == 1
            else node("AveragePool", [tensor], name, kernel_shape=[size] * 2, strides=[size] * 2)
        )

    last = len(model.projections) - 1
    for i, projection in enumerate(model.projections):
        z = "output" if i == last else f"z{i}"
        source = pooled(tensors[projection.source], projection.pool, f"pool{i}")
        weight, bias = constant(f"weight{i}", model.weights[i]), constant(f"bias{i}", model.biases[i])
        if projection.kind == "conv":
            node(
                "Conv",
                [source, weight, bias],
                z,
                kernel_shape=[projection.kernel] * 2,
                strides=[projection.stride] * 2,
                pads=[projection.padding] * 4,
            )
        else:
            source = node("Flatten", [source], f"flat{i}", axis=1) if projection.pool > 1 else source
            node("Gemm", [source, weight, bias], z, transB=1)
        if projection.shortcut is not None:
            shortcut = pooled(tensors[projection.shortcut], projection.shortcut_pool, f"shortcut_pool{i}")
            if projection.shortcut_conv:
                shortcut = node(
                    "Conv",
                    [shortcut, constant(f"shortcut_weight{i}", model.shortcut_weights[i])],
                    f"shortcut{i}",
                    kernel_shape=[1, 1],
                )
            z = node("Add", [z, shortcut], f"sum{i}")
        if i < last:
            tensors[i] = node(
                "Clip", [z, constant(f"low{i}", 0.0), constant(f"high{i}", model.thresholds[i])], f"a{i}"
            )
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *model.images.shape[1:]])
    output = helper.make_tensor_value_info(
        "output", TensorProto.FLOAT, ["batch", model.projections[last].n_out]
    )
    graph = helper.make_graph(nodes, model.name, [image], [output], constants)
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(onnx_model)
    onnx.save(onnx_model, str(where))


def _quantize_onnx(model: Model, source: Path, where: Path) -> None:
    """onnxruntime's own recipe: static, QDQ, int8 weights per channel, uint8 activations."""
    import logging

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.feeds = iter([{"image": model.calibration[i : i + 1]} for i in range(N_IMAGES)])

        def get_next(self):
            return next(self.feeds, None)

    logging.getLogger().setLevel(logging.ERROR)  # it recommends its preprocessing even where that was done
    prepared = where.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    quantize_static(
        str(prepared),
        str(where),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the networks of the benchmarks.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default: {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="where they lie (default: EVSNN_BENCHMARK_CACHE, else .cache beside this file)",
    )
    options = parser.parse_args(arguments)
    unknown = sorted({*options.names} - {*ALL})
    if unknown:
        parser.error(f"no network {unknown[0]!r}: one of {', '.join(ALL)}")
    cache = cache_directory(options.cache)
    for name in options.names or NAMES:
        build(name, cache)
        sizes = {
            kind: path(cache, name, kind).stat().st_size for kind in (".npz", ".h5", ".onnx", "-int8.onnx")
        }
        print(
            name,
            *(f"{path(cache, name, kind)} {size / 1e6:.1f} MB" for kind, size in sizes.items()),
            sep="\n  ",
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
