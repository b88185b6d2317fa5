"""The same networks as int8 ANNs on the same emulated cores: what a spiking network has to be compared with.

    python tests/benchmarks/firmware_ann.py [--cmsis-nn FOLDER] [--cores cortex-m4,...]
                                            [--samples N] [--write]

Two ANNs of each network, int8 as TensorFlow Lite has it (a scale a channel of the weights, ReLUs limited at
V_th): plain C of ours that skips zeros, built of the inner loops of a first layer in firmware,
and CMSIS-NN, if FOLDER is a checkout of it (github.com/ARM-software/CMSIS-NN). Both are compared output by
output with one specification in NumPy; a difference ends the run. --write puts the table between the marks in
docs/firmware.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]

from firmware import CORES, page_with, random_networks, trained_networks  # noqa: E402

from evsnn import IF, Add, AvgPool2d, Conv2d, Flatten, Input, Linear, Network, Readout  # noqa: E402
from firmware_export import Settings, export_network  # noqa: E402
from firmware_export.checks.check import inputs_for  # noqa: E402
from firmware_export.checks.machines import EMULATOR, MACHINES, Machine, build, measure  # noqa: E402
from firmware_export.checks.report import dense_macs, on_cores  # noqa: E402
from firmware_export.text.ctext import array  # noqa: E402
from firmware_export.text.fast_layer import tiled_currents  # noqa: E402
from firmware_export.text.runtime import runtime  # noqa: E402

ZERO = -128
"""The zero point of what a ReLU sends: int8 from -128 to 127 stands for 0 to V_th."""
ADD_SHIFT = 20
PARTS = (
    "TransposeFunctions",
    "ConvolutionFunctions",
    "FullyConnectedFunctions",
    "PoolingFunctions",
    "BasicMathFunctions",
    "NNSupportFunctions",
)


@dataclass(frozen=True, eq=False)
class Op:
    """One operation of an int8 ANN.

    Parameters
    ----------
    kind : {"conv", "depthwise", "dense", "pool", "add"}
    sources : tuple of int
        Which maps it reads: 0 is the input, i + 1 what operation i makes.
    shape : (channels, height, width)
        Of what it makes.
    zero, low : int
        Zero point and least value of that.
    kernel, stride, padding : (int, int)
        Padding at the top and at the left.
    weight : int8, optional
        (out, in, ky, kx).
    bias : int32, optional
    multiplier, shift : (out,) int32
        To the scale of what it makes; of an "add", those of the two sources and of the sum.
    """

    kind: str
    sources: tuple[int, ...]
    shape: tuple[int, int, int]
    zero: int = ZERO
    low: int = ZERO
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    multiplier: np.ndarray | None = None
    shift: np.ndarray | None = None


# ------------------------------------------------------------------ specification


def multiplier_of(scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A scale as a fraction of 31 bits and a shift."""
    fraction, shift = np.frexp(np.asarray(scale, np.float64))
    return np.minimum(np.rint(fraction * 2**31), 2**31 - 1).astype(np.int32), shift.astype(np.int32)


def requantized(v: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """v * multiplier * 2^(shift - 31), rounded twice, as TensorFlow Lite does."""
    right = np.maximum(-shift, 0).astype(np.int64)
    high = ((v << np.maximum(shift, 0).astype(np.int64)) * multiplier.astype(np.int64) + 2**30) >> 31
    mask = (np.int64(1) << right) - 1
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))


def fields(op: Op, x: np.ndarray, fill: int) -> np.ndarray:
    """What each place of a map's kernel covers: (n, channels, height, width, ky, kx)."""
    (ky, kx), (sy, sx) = op.kernel, op.stride
    bottom = (op.shape[1] - 1) * sy + ky - x.shape[2] - op.padding[0]
    right = (op.shape[2] - 1) * sx + kx - x.shape[3] - op.padding[1]
    x = np.pad(
        x,
        ((0, 0), (0, 0), (op.padding[0], max(0, bottom)), (op.padding[1], max(0, right))),
        constant_values=fill,
    )
    return np.lib.stride_tricks.sliding_window_view(x, op.kernel, axis=(2, 3))[:, :, ::sy, ::sx][
        :, :, : op.shape[1], : op.shape[2]
    ]


def sums(op: Op, x: np.ndarray) -> np.ndarray:
    """Sums of products (n, out, height, width) int64 of an operation with weights; x int8 with zero point
    `ZERO`.
    """
    if op.kind == "dense":
        x = x.reshape(len(x), -1, 1, 1)
    windows = fields(op, x.astype(np.int64) - ZERO, 0)
    weight = op.weight.astype(np.int64)
    if op.kind == "depthwise":
        total = np.einsum("nchwyx,cyx->nchw", windows, weight[:, 0])
    else:
        total = np.einsum("nchwyx,ocyx->nohw", windows, weight, optimize=True)
    return total + op.bias[:, None, None]


def made(op: Op, maps: list[np.ndarray]) -> np.ndarray:
    """What an operation makes of int8 maps."""
    x = maps[op.sources[0]].astype(np.int64)
    if op.kind == "pool":
        total, n = fields(op, x, 0).sum(axis=(4, 5)), op.kernel[0] * op.kernel[1]
        return np.sign(total) * ((np.abs(total) + n // 2) // n)
    if op.kind == "add":
        zeros = (ZERO, 0)
        parts = [
            requantized((maps[s].astype(np.int64) - z) << ADD_SHIFT, op.multiplier[i], op.shift[i])
            for i, (s, z) in enumerate(zip(op.sources, zeros))
        ]
        v = requantized(sum(parts), op.multiplier[2], op.shift[2])
    else:
        v = requantized(sums(op, x), op.multiplier[:, None, None], op.shift[:, None, None])
    return np.clip(v + op.zero, op.low, 127)


def run(ops: list[Op], images: np.ndarray) -> np.ndarray:
    """The scores (n, classes) of images (n, channels, height, width), integers 0 to 255."""
    maps = [images + ZERO]
    for op in ops:
        maps.append(made(op, maps))
    return maps[-1].reshape(len(images), -1)


def quantised(network: Network, images: np.ndarray, input_scale: float) -> list[Op]:
    """A network as an int8 ANN: its ReLUs limited at V_th, the scales of what has no ReLU from the images.

    Raises
    ------
    ValueError
        For a network that this comparison does not know.
    """
    by_name, scale = {}, {}  # map of a layer's name, and its scale a channel
    ops: list[Op] = []
    maps = [images + ZERO]
    shape = {}
    waiting: dict[str, tuple] = {}  # layers with weights, until it is known what follows

    def emit(op: Op, name: str, own: np.ndarray) -> None:
        ops.append(op)
        maps.append(made(op, maps))
        by_name[name], scale[name], shape[name] = len(ops), own, op.shape

    def weighted(
        layer: Conv2d | Linear, source: str, own: np.ndarray | None, zero: int, low: int, name: str
    ) -> None:
        dense = isinstance(layer, Linear)
        weight = np.asarray(layer.weight, np.float64)
        in_scale = scale[source] if not dense else np.repeat(scale[source], np.prod(shape[source][1:]))
        if dense:
            weight = weight[:, :, None, None]
            geometry = {"kind": "dense", "shape": (len(weight), 1, 1)}
        else:
            kernel, (top, left, bottom, right) = weight.shape[2:], layer.padding
            size = [
                (n + a + b - k) // s + 1
                for n, a, b, k, s in zip(
                    shape[source][1:], (top, left), (bottom, right), kernel, layer.stride
                )
            ]
            if layer.dilation != (1, 1) or layer.groups not in (1, weight.shape[0]):
                raise ValueError("a dilated or grouped convolution")
            kind = "depthwise" if layer.groups > 1 else "conv"
            geometry = {
                "kind": kind,
                "shape": (len(weight), *size),
                "kernel": kernel,
                "stride": layer.stride,
                "padding": (top, left),
            }
        weight = weight * (
            in_scale[:, None, None, None]
            if geometry["kind"] == "depthwise"
            else in_scale[None, :, None, None]
        )
        largest = (
            np.abs(weight).max(axis=(1, 2, 3)) if not dense else np.full(len(weight), np.abs(weight).max())
        )
        w_scale = np.maximum(largest, 1e-9) / 127
        bias = np.zeros(len(weight)) if layer.bias is None else np.asarray(layer.bias, np.float64)
        values = {
            "weight": np.rint(weight / w_scale[:, None, None, None]).astype(np.int8),
            "bias": np.rint(bias / w_scale).astype(np.int32),
        }
        op = Op(sources=(by_name[source],), zero=zero, low=low, **geometry, **values)
        if own is None:  # no ReLU: what the images show
            own = np.full(
                len(weight), np.abs(sums(op, maps[op.sources[0]]) * w_scale[:, None, None]).max() / 127
            )
        multiplier, shift = multiplier_of(w_scale / own)
        emit(replace(op, multiplier=multiplier, shift=shift), name, own)

    for layer in network.layers:
        source = layer.inputs[0] if layer.inputs else None
        if isinstance(layer, Input):
            by_name[layer.name], shape[layer.name], scale[layer.name] = (
                0,
                layer.shape,
                np.full(layer.shape[0], 1 / input_scale),
            )
        elif isinstance(layer, (Conv2d, Linear)):
            waiting[layer.name] = (layer, source)
        elif isinstance(layer, IF):
            above = next(other for other in network.layers if other.name == source)
            if isinstance(above, Add):
                v_threshold = float(np.max(layer.v_threshold))
                (first,), (second,) = (
                    [n for n in above.inputs if (n in waiting) == kind] for kind in (False, True)
                )
                weighted(*waiting.pop(second), None, 0, -127, second)
                a, b = float(scale[first][0]), float(scale[second][0])
                pairs = [
                    multiplier_of(s)
                    for s in (
                        a / (2 * max(a, b)),
                        b / (2 * max(a, b)),
                        2 * max(a, b) / (2**ADD_SHIFT * v_threshold / 255),
                    )
                ]
                op = Op(
                    "add",
                    (by_name[first], by_name[second]),
                    shape[second],
                    multiplier=np.array([m for m, _ in pairs]),
                    shift=np.array([s for _, s in pairs]),
                )
                emit(op, layer.name, np.full(op.shape[0], v_threshold / 255))
            else:
                convolution, below = waiting.pop(source)
                own = (
                    np.broadcast_to(np.asarray(layer.v_threshold, np.float64), convolution.weight.shape[:1])
                    / 255
                )
                weighted(convolution, below, own, ZERO, ZERO, layer.name)
        elif isinstance(layer, AvgPool2d):
            if any(layer.padding) or layer.kernel != layer.stride:
                raise ValueError("a padded or overlapping pool")
            c, h, w = shape[source]
            emit(
                Op(
                    "pool",
                    (by_name[source],),
                    (c, h // layer.kernel[0], w // layer.kernel[1]),
                    kernel=layer.kernel,
                    stride=layer.stride,
                ),
                layer.name,
                scale[source],
            )
        elif isinstance(layer, Flatten):
            by_name[layer.name], shape[layer.name], scale[layer.name] = (
                by_name[source],
                shape[source],
                scale[source],
            )
        elif isinstance(layer, Readout):
            weighted(*waiting.pop(source), None, 0, -128, source)
        elif not isinstance(layer, Add):
            raise ValueError(f"a {type(layer).__name__}")
    return ops


# ------------------------------------------------------------------ C

PROGRAM = """#include "machine.h"
#include "evsnn_rt.h"
{includes}
{tables}
{maps}
static void write_number(int value) {{
    char text[6];
    int i = 5, rest = value < 0 ? -value : value;
    text[i] = 0;
    do {{ text[--i] = (char)('0' + rest % 10); rest /= 10; }} while (rest);
    if (value < 0) {{ text[--i] = '-'; }}
    machine_write(text + i);
}}
int main(void) {{
    int sample, i;
{before}
    for (sample = 0; sample < {n}; sample++) {{
        for (i = 0; i < {length}; i++) {{ map0[i] = samples[sample * {length} + i]; }}
        machine_begin();
{run}
        machine_end();
        for (i = 0; i < {classes}; i++) {{ machine_write(i ? " " : "scores "); write_number({score}); }}
        machine_write("\\n");
    }}
    machine_write("bytes ");
    write_number((int)(({ram}) / 4));
    machine_write("\\n");
    machine_exit(0);
    return 0;
}}
"""

PLAIN = """
static int32_t scaled(int32_t v, int32_t multiplier, int32_t shift) {
    int32_t left = shift > 0 ? shift : 0, right = shift > 0 ? 0 : -shift, mask = (int32_t)((1u << right) - 1u);
    int32_t high = (int32_t)(((int64_t)(int32_t)((uint32_t)v << left) * multiplier + 0x40000000) >> 31);
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0));
}
static uint8_t stored(int32_t v, int32_t zero, int32_t low) {
    v += zero;
    v = v < low ? low : v > 127 ? 127 : v;
    return (uint8_t)(v + 128);
}
"""
CONV = """    {{ int y, x, tile, j;
        for (y = 0; y < {h}; y++) {{ for (x = 0; x < {w}; x++) {{ for (tile = 0; tile < {tiles}; tile++) {{
            int32_t a[8];
            for (j = 0; j < 8; j++) {{ a[j] = bias{i}[tile * 8 + j]; }}
            evsnn_currents_u8(a, {x}, weight{i} + tile * {step}, 8, {c}, {ih}, {iw}, {ky}, {kx}, {pad_x}, {right}, y * {sy} - {pad_y}, x * {sx} - {pad_x});
            for (j = 0; j < 8 && tile * 8 + j < {o}; j++) {{
                {out}[((tile * 8 + j) * {h} + y) * {w} + x] = stored(scaled(a[j], multiplier{i}[tile * 8 + j], shift{i}[tile * 8 + j]), {zero}, {low});
            }}
        }} }} }} }}"""
DEPTHWISE = """    {{ int c, y, x, ky, kx;
        for (c = 0; c < {o}; c++) {{ for (y = 0; y < {h}; y++) {{ for (x = 0; x < {w}; x++) {{
            int32_t a = bias{i}[c];
            for (ky = 0; ky < {ky}; ky++) {{ int row = y * {sy} + ky - {pad_y};
                if (row >= 0 && row < {ih}) {{ for (kx = 0; kx < {kx}; kx++) {{ int column = x * {sx} + kx - {pad_x};
                    if (column >= 0 && column < {iw}) {{ a += {x}[(c * {ih} + row) * {iw} + column] * weight{i}[(c * {ky} + ky) * {kx} + kx]; }} }} }} }}
            {out}[(c * {h} + y) * {w} + x] = stored(scaled(a, multiplier{i}[c], shift{i}[c]), {zero}, {low});
        }} }} }} }}"""
POOL = """    {{ int c, y, x, ky, kx;
        for (c = 0; c < {o}; c++) {{ for (y = 0; y < {h}; y++) {{ for (x = 0; x < {w}; x++) {{
            int32_t sum = -128 * {area};
            for (ky = 0; ky < {ky}; ky++) {{ for (kx = 0; kx < {kx}; kx++) {{ sum += {x}[(c * {ih} + y * {sy} + ky) * {iw} + x * {sx} + kx]; }} }}
            {out}[(c * {h} + y) * {w} + x] = (uint8_t)((sum > 0 ? (sum + {area} / 2) / {area} : (sum - {area} / 2) / {area}) + 128);
        }} }} }} }}"""
ADD = """    {{ int j;
        for (j = 0; j < {length}; j++) {{
            int32_t a = scaled((int32_t){x}[j] << 20, multiplier{i}[0], shift{i}[0]), b = scaled((int32_t)((uint32_t)({x2}[j] - 128) << 20), multiplier{i}[1], shift{i}[1]);
            {out}[j] = stored(scaled(a + b, multiplier{i}[2], shift{i}[2]), {zero}, {low});
        }} }}"""


def length_of(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def geometry(op: Op, i: int, shapes: list[tuple[int, ...]]) -> dict:
    c, ih, iw = shapes[op.sources[0]] if op.kind != "dense" else (op.weight.shape[1], 1, 1)
    o, h, w = op.shape
    right = max(0, (w - 1) * op.stride[1] - op.padding[1] + op.kernel[1] - iw)
    return {
        "i": i,
        "c": c,
        "ih": ih,
        "iw": iw,
        "o": o,
        "h": h,
        "w": w,
        "ky": op.kernel[0],
        "kx": op.kernel[1],
        "sy": op.stride[0],
        "sx": op.stride[1],
        "pad_y": op.padding[0],
        "pad_x": op.padding[1],
        "right": right,
        "zero": op.zero,
        "low": op.low,
        "area": op.kernel[0] * op.kernel[1],
        "x": f"map{op.sources[0]}",
        "out": f"map{i + 1}",
        "x2": f"map{op.sources[-1]}",
        "length": length_of(op.shape),
        "tiles": -(-o // 8),
        "step": 0 if op.weight is None else op.weight[0].size * 8,
    }


def constants(op: Op, i: int, weight: np.ndarray | None, tile: int = 1) -> str:
    """Tables of an operation, padded to tiles of outputs."""
    text = "" if weight is None else array(f"weight{i}", weight)
    for what in ("bias", "multiplier", "shift"):
        values = getattr(op, what)
        if values is not None:
            padded = np.zeros(-(-len(values) // tile) * tile, np.int32)
            padded[: len(values)] = values
            text += array(f"{what}{i}", padded)
    return text


def plain_program(ops: list[Op], images: np.ndarray) -> str:
    """The ANN in plain C that skips zeros; maps are (channel, y, x) of uint8, 128 more than int8."""
    shapes, tables, lines = [images.shape[1:]], "", []
    for i, op in enumerate(ops):
        values = geometry(op, i, shapes)
        if op.kind in ("conv", "dense"):
            tables += constants(op, i, tiled_currents(op.weight), 8)
            lines.append(CONV.format(**values))
        else:
            tables += constants(op, i, op.weight)
            lines.append({"depthwise": DEPTHWISE, "pool": POOL, "add": ADD}[op.kind].format(**values))
        shapes.append(op.shape)
    maps = "".join(f"static uint8_t map{i}[{length_of(shape)}];\n" for i, shape in enumerate(shapes))
    samples = array("samples", images.astype(np.uint8).reshape(-1))
    ram = " + ".join(f"sizeof map{i}" for i in range(1, len(shapes)))
    return PROGRAM.format(
        includes="",
        tables=samples + tables + PLAIN,
        maps=maps,
        before="",
        n=len(images),
        length=images[0].size,
        run="\n".join(lines),
        classes=ops[-1].shape[0],
        score=f"(int)map{len(ops)}[i] - 128",
        ram=ram,
    )


def cmsis_program(ops: list[Op], images: np.ndarray) -> str:
    """The ANN as calls of CMSIS-NN; maps are (y, x, channel) of int8."""
    shapes, tables, before, lines, buffers = [images.shape[1:]], "", [], [], []
    for i, op in enumerate(ops):
        g = geometry(op, i, shapes)
        dims = (
            f"static const cmsis_nn_dims in{i} = {{1, {g['ih']}, {g['iw']}, {g['c']}}}, out{i} = {{1,"
            f" {g['h']}, {g['w']}, {g['o']}}};\n"
        )
        clamp = f"{{{op.low}, 127}}"
        stride, padding = (f"{{{x}, {y}}}" for y, x in (op.stride[:2], op.padding[:2]))
        if op.kind in ("conv", "depthwise"):
            order = (
                op.weight.transpose(1, 2, 3, 0) if op.kind == "depthwise" else op.weight.transpose(0, 2, 3, 1)
            )
            tables += constants(op, i, order) + dims
            tables += (
                f"static const cmsis_nn_dims filter{i} = {{{g['o'] if op.kind == 'conv' else 1}, {g['ky']},"
                f" {g['kx']}, {g['c']}}}, biases{i} = {{1, 1, 1, {g['o']}}};\n"
            )
            kind, multiple = ("conv", "") if op.kind == "conv" else ("dw_conv", "1, ")
            tables += (
                f"static const cmsis_nn_{kind}_params params{i} = {{128, {op.zero}, {multiple}{stride},"
                f" {padding}, {{1, 1}}, {clamp}}};\n"
            )
            tables += (
                f"static const cmsis_nn_per_channel_quant_params quant{i} = {{(int32_t *)multiplier{i},"
                f" (int32_t *)shift{i}}};\n"
            )
            call = "arm_convolve_wrapper_s8" if op.kind == "conv" else "arm_depthwise_conv_wrapper_s8"
            before.append(
                f"    context{i}.size = {call}_get_buffer_size(&params{i}, &in{i}, &filter{i}, &out{i});"
            )
            lines.append(
                f"        failed |= {call}(&context{i}, &params{i}, &quant{i}, &in{i}, {g['x']}, &filter{i},"
                f" weight{i}, &biases{i}, bias{i}, &out{i}, {g['out']});"
            )
            buffers.append(i)
        elif op.kind == "dense":
            c, h, w = shapes[op.sources[0]]
            tables += (
                constants(
                    replace(op, multiplier=op.multiplier[:1], shift=op.shift[:1]),
                    i,
                    op.weight.reshape(-1, c, h, w).transpose(0, 2, 3, 1),
                )
                + dims
            )
            n = op.weight.shape[1]
            tables += (
                f"static const cmsis_nn_dims filter{i} = {{{n}, 1, 1, {g['o']}}}, biases{i} = {{1, 1, 1,"
                f" {g['o']}}};\n"
            )
            tables += f"static const cmsis_nn_fc_params params{i} = {{128, 0, {op.zero}, {clamp}}};\n"
            tables += (
                f"static const cmsis_nn_per_tensor_quant_params quant{i} = {{{int(op.multiplier[0])},"
                f" {int(op.shift[0])}}};\n"
            )
            before.append(f"    context{i}.size = arm_fully_connected_s8_get_buffer_size(&out{i});")
            before.append(
                f"    if (context{i}.size) {{ arm_vector_sum_s8(sums{i}, {n}, {g['o']}, weight{i}, 128, 0,"
                f" bias{i}); context{i}.buf = sums{i}; }}"
            )
            tables += f"static int32_t sums{i}[{g['o']}];\n"
            lines.append(
                f"        failed |= arm_fully_connected_s8(&context{i}, &params{i}, &quant{i}, &in{i},"
                f" {g['x']}, &filter{i}, weight{i}, &biases{i}, bias{i}, &out{i}, {g['out']});"
            )
        elif op.kind == "pool":
            tables += dims + f"static const cmsis_nn_dims filter{i} = {{1, {g['ky']}, {g['kx']}, 1}};\n"
            tables += (
                f"static const cmsis_nn_pool_params params{i} = {{{stride}, {padding}, {{-128, 127}}}};\n"
            )
            before.append(f"    context{i}.size = arm_avgpool_s8_get_buffer_size({g['w']}, {g['c']});")
            lines.append(
                f"        failed |= arm_avgpool_s8(&context{i}, &params{i}, &in{i}, {g['x']}, &filter{i},"
                f" &out{i}, {g['out']});"
            )
            buffers.append(i)
        else:
            m, s = op.multiplier.tolist(), op.shift.tolist()
            lines.append(
                f"        failed |= arm_elementwise_add_s8({g['x']}, {g['x2']}, 128, {m[0]}, {s[0]}, 0,"
                f" {m[1]}, {s[1]}, {ADD_SHIFT}, {g['out']}, {op.zero}, {m[2]}, {s[2]}, {op.low}, 127,"
                f" {g['length']});"
            )
        tables += f"static cmsis_nn_context context{i};\n"
        shapes.append(op.shape)
    maps = (
        "".join(f"static int8_t map{i}[{length_of(shape)}];\n" for i, shape in enumerate(shapes))
        + "static int32_t scratch[16384];\nstatic int failed, most;\n"
    )
    before += [
        f"    context{i}.buf = scratch; if (context{i}.size > most) {{ most = context{i}.size; }}"
        for i in buffers
    ]
    images = (images.astype(np.int64) + ZERO).astype(np.int8).transpose(0, 2, 3, 1)
    ram = " + ".join([f"sizeof map{i}" for i in range(1, len(shapes))] + ["(unsigned)most"])
    return PROGRAM.format(
        includes='#include "arm_nnfunctions.h"\n#include "arm_nnsupportfunctions.h"',
        tables=array("samples", np.ascontiguousarray(images).reshape(-1)) + tables,
        maps=maps,
        before="\n".join(before),
        n=len(images),
        length=images[0].size,
        run="\n".join(lines),
        classes=ops[-1].shape[0],
        score=f"failed ? 999 : (int)map{len(ops)}[i]",
        ram=ram,
    )


# ------------------------------------------------------------------ measuring


def library(machine: Machine, cmsis: Path, folder: Path) -> list[str]:
    """CMSIS-NN's functions for int8 as object files."""
    sources = sorted(
        str(path)
        for part in PARTS
        for path in (cmsis / "Source" / part).glob("*.c")
        if not path.stem.endswith(("_f16", "_f32", "_s4"))
    )
    objects = folder / machine.name
    objects.mkdir()
    flags = [
        "-O2",
        "-std=gnu11",
        "-w",
        "-ffunction-sections",
        "-fdata-sections",
        f"-I{cmsis / 'Include'}",
        "-c",
    ]
    specs = ["--specs=picolibc.specs"] if machine.compiler.startswith("riscv") else []
    subprocess.run([machine.compiler, *machine.flags, *flags, *specs, *sources], check=True, cwd=objects)
    return sorted(str(path) for path in objects.glob("*.o"))


def measured(
    machine: Machine, text: str, expected: np.ndarray, folder: Path, flags: tuple[str, ...], samples: int
) -> tuple[float, int, int]:
    """Instructions a sample, RAM and flash of a program; ends if its scores are not those expected."""
    (folder / "program.c").write_text(text)
    (folder / "evsnn_rt.h").write_text(runtime()[0])
    found = measure(machine, build(machine, folder / "program.c", folder, (folder, EMULATOR), flags), folder)
    scores = np.array(
        [[int(v) for v in line.split()[1:]] for line in found.text.splitlines() if line.startswith("scores ")]
    )
    if not np.array_equal(scores, expected):
        sys.exit(f"{machine.name}: got scores {scores[:1].tolist()}, expected {expected[:1].tolist()}")
    ram = next(4 * int(line.split()[1]) for line in found.text.splitlines() if line.startswith("bytes "))
    return fmean(found.counted), ram, found.flash_bytes - samples


def rows_of(
    title: str,
    network: Network,
    n_steps: tuple[int, ...],
    arguments: argparse.Namespace,
    libraries: dict[str, list[str]],
    folder: Path,
) -> list[str]:
    """A row a core: the two ANNs and the spiking network at each T."""
    exports = [export_network(network, Settings(name="net", n_steps=T)) for T in n_steps]
    quantized = exports[0].program.network
    images, _ = inputs_for(quantized, arguments.samples)
    images = np.asarray(images, np.int64)
    ops = quantised(network, images, quantized.input_scale)
    expected = run(ops, images)
    spiking = [{row["core"]: row for row in on_cores(export, images, arguments.cores)} for export in exports]
    rows = []
    for core in arguments.cores:
        machine = MACHINES[core]
        if machine.missing():
            continue
        print(f"{title} on {core}", file=sys.stderr)
        plain = measured(machine, plain_program(ops, images), expected, folder, ("-O2", "-w"), images.size)
        cmsis = None
        if core in libraries:
            cmsis = measured(
                machine,
                cmsis_program(ops, images),
                expected,
                folder,
                ("-O2", "-w", f"-I{arguments.cmsis_nn / 'Include'}", *libraries[core]),
                images.size,
            )
        cells = [
            f"{plain[0] / 1000:,.0f}",
            f"{cmsis[0] / 1000:,.0f}" if cmsis else "",
            *(f"T = {T}: {s[core]['per_sample'] / 1000:,.0f}" for T, s in zip(n_steps, spiking)),
        ]
        best = min(found[0] for found in (plain, cmsis) if found)
        cells = [
            *cells[:2],
            "; ".join(cells[2:]),
            ", ".join(f"{s[core]['per_sample'] / best:.2f}" for s in spiking),
        ]
        cells.append(
            " / ".join(
                f"{n:,}"
                for n in (
                    plain[1],
                    *([cmsis[1]] if cmsis else []),
                    max(s[core]["context_bytes"] for s in spiking),
                )
            )
        )
        rows.append(f"| {title} | {dense_macs(quantized) / 1000:,.0f} | {core} | " + " | ".join(cells) + " |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cmsis-nn", type=Path, metavar="FOLDER", help="a checkout of CMSIS-NN")
    parser.add_argument(
        "--cores",
        type=lambda text: text.split(","),
        default=["cortex-m0plus", "cortex-m4", "cortex-m55", "rv32"],
        help=f"some of {', '.join(CORES)}",
    )
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="into docs/firmware.md")
    arguments = parser.parse_args()
    networks: dict[str, tuple[Network, tuple[int, ...]]] = {}
    for title, network, T in trained_networks():
        networks[title] = (network, (*networks.get(title, (None, ()))[1], T))
    networks |= {title: (network, (8,)) for title, network in random_networks()}
    head = (
        "| network | kMAC | core | plain C ANN | CMSIS-NN | spiking | spiking / the better ANN | RAM: plain,"
        " CMSIS-NN, spiking |\n|---|---|---|---|---|---|---|---|"
    )
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        libraries = {
            core: library(MACHINES[core], arguments.cmsis_nn, folder)
            for core in arguments.cores
            if arguments.cmsis_nn and not MACHINES[core].missing()
        }
        for title, (network, steps) in networks.items():
            rows += rows_of(title, network, steps, arguments, libraries, folder)
    text = "\n".join([head, *rows])
    if arguments.write:
        page_with("ann", text)
    else:
        print(text)


if __name__ == "__main__":
    main()
