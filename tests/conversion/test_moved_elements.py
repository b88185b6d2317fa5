"""Elements that only move: shuffles, slices, splits, zeros between and beside channels, larger maps.

Each network computes what onnxruntime does. What the layout costs is compared with the layers it was made of.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx_builder import OnnxModel
from onnx_models import model, node
from test_lowering import kinds, lowered

from evsnn import Conv2d, Linear, ModelError
from evsnn.conversion.onnx.importer import import_onnx

RNG = np.random.default_rng(5)


def weights(ann) -> int:
    return sum(layer.weight.size for layer in ann.network.layers if isinstance(layer, (Conv2d, Linear)))


def neurons(ann) -> int:
    network = ann.network
    return sum(
        int(np.prod(network.shapes[x.name])) * (2 if x.paired else 1)
        for x in network.layers
        if x.kind == "if"
    )


def finished(m, x, n_out=4):
    """The network with a linear layer behind what it has made."""
    shape = import_onnx(m.model(x), output=x).shapes[x]
    return lowered(m.model(m.head(x, int(np.prod(shape)), n_out)))


def relu_conv(m, x, n_in, n_out, kernel=3, **attributes):
    return m.op("Relu", m.conv(x, n_in, n_out, kernel, **attributes))


def shuffled(m, x, channels, groups, size):
    x = m.op("Reshape", x, np.array([-1, groups, channels // groups, *size]))
    x = m.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    return m.op("Reshape", x, np.array([-1, channels, *size]))


# Channels


def test_a_shuffle_before_a_convolution_costs_nothing():
    m = OnnxModel((3, 6, 6))
    x = shuffled(m, relu_conv(m, "x", 3, 6), 6, 2, (4, 4))
    ann = finished(m, relu_conv(m, x, 6, 5))
    assert kinds(ann) == ["input", "conv2d", "if", "conv2d", "if", "flatten", "linear", "readout"]
    assert weights(ann) == 6 * 27 + 5 * 54 + 80


def test_a_shuffle_before_depthwise_layers_costs_nothing():
    m = OnnxModel((3, 8, 8))
    x = shuffled(m, relu_conv(m, "x", 3, 6), 6, 3, (6, 6))
    x = m.norm(m.conv(x, 6, 6, group=6, pads=[1, 1, 1, 1]), 6)
    x = m.op("Relu", m.op("Add", x, m.floats(6, 1, 1)))
    x = m.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = m.op("Relu", m.conv(x, 6, 12, group=6))
    ann = finished(m, relu_conv(m, x, 12, 5, 1))
    assert [layer.groups for layer in ann.network.layers if isinstance(layer, Conv2d)] == [1, 6, 6, 1]


def test_a_shuffle_between_grouped_layers():
    m = OnnxModel((4, 6, 6))
    x = m.op("Relu", m.conv("x", 4, 8, group=4))
    x = m.op("Relu", m.conv(shuffled(m, x, 8, 4, (4, 4)), 8, 8, 1, group=4))
    ann = finished(m, relu_conv(m, shuffled(m, x, 8, 2, (4, 4)), 8, 4, 1))
    assert any("from other groups" in note for note in ann.notes)


def test_channels_that_move_within_their_groups():
    m = OnnxModel((4, 5, 5))
    x = m.op("Relu", m.conv("x", 4, 8, group=2))
    x = m.op("Gather", x, np.array([3, 1, 0, 2, 5, 4, 7, 6]), axis=1)
    ann = finished(m, m.op("Relu", m.conv(x, 8, 6, 1, group=2)))
    assert [layer.groups for layer in ann.network.layers if isinstance(layer, Conv2d)] == [2, 2]


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split_branches(opset):
    """One half goes on as it is, the other one through a block, as in ShuffleNetV2."""
    m = OnnxModel((3, 6, 6), opset=opset)
    x = relu_conv(m, "x", 3, 8)
    ends = ["left", "right"]
    given = [m.constant(np.array([4, 4]))] if opset == 13 else []
    options = {"split": [4, 4]} if opset < 13 else {} if opset == 13 else {"num_outputs": 2}
    m.nodes.append(node("Split", " ".join([x, *given]), " ".join(ends), axis=1, **options))
    y = relu_conv(m, "right", 4, 4, 1)
    y = m.op("Relu", m.norm(m.conv(y, 4, 4, group=4, pads=[1, 1, 1, 1]), 4))
    y = shuffled(m, m.op("Concat", "left", y, axis=1), 8, 2, (4, 4))
    ann = finished(m, relu_conv(m, y, 8, 5, 1))
    assert kinds(ann).count("if") == 4


def test_halves_of_a_current_have_neurons_of_their_own():
    m = OnnxModel((3, 6, 6))
    x = m.conv("x", 3, 8)
    m.nodes.append(node("Split", x, "a b", axis=1))
    y = m.op("Concat", m.op("Relu", "a"), m.op("LeakyRelu", "b"), axis=1)
    ann = finished(m, y)
    assert neurons(ann) == 4 * 16 + 8 * 16


def test_zeros_beside_the_channels_of_a_shortcut_cost_nothing():
    """BlazeFace's blocks."""
    m = OnnxModel((3, 8, 8))
    x = relu_conv(m, "x", 3, 4, pads=[1, 1, 1, 1])
    y = m.conv(x, 4, 6, pads=[1, 1, 1, 1])
    x = m.op("Relu", m.op("Add", y, m.op("Pad", x, np.array([0, 0, 0, 0, 0, 2, 0, 0]))))
    y = m.conv(x, 6, 8, 3, pads=[1, 1, 1, 1], strides=[2, 2])
    pooled = m.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = m.op("Relu", m.op("Add", m.op("Pad", pooled, np.array([0, 1, 0, 0, 0, 1, 0, 0])), y))
    ann = finished(m, x)
    shapes = [ann.network.shapes[layer.name] for layer in ann.network.layers if layer.kind == "if"]
    assert sum(shape[0] for shape in shapes) == 4 + 6 + 8


@pytest.mark.parametrize(
    "cut",
    [
        lambda m, x: m.op("Slice", x, np.array([1]), np.array([4]), np.array([1])),
        lambda m, x: m.op("Slice", x, np.array([-1]), np.array([-9]), np.array([1]), np.array([-2])),
        lambda m, x: m.op("Gather", x, np.array([4, 0, 0, -1]), axis=1),
        lambda m, x: m.op("Slice", x, np.array([1, 0]), np.array([99, -1]), np.array([2, -1])),
        lambda m, x: m.op("Slice", x, np.array([0, 1]), np.array([9, 9]), np.array([2, 3]), np.array([2, 2])),
        lambda m, x: m.op("Pad", x, np.array([0, 1, -1, 0, 0, 0, 1, 2])),
        lambda m, x: m.op("SpaceToDepth", x, blocksize=2),
        lambda m, x: m.op("Transpose", x, perm=[0, 1, 3, 2]),
        lambda m, x: m.op("Reshape", x, np.array([0, 20, 4, -1])),
    ],
    ids=["slice", "backwards", "gather", "crop", "every second", "pad", "blocks", "turned", "reshaped"],
)  # fmt: skip
@pytest.mark.parametrize("then", ["conv", "depthwise", "relu", "max", "average", "norm", "nothing"])
def test_what_is_taken(cut, then):
    m = OnnxModel((3, 8, 6))
    x = cut(m, relu_conv(m, "x", 3, 5, pads=[1, 1, 1, 1]))
    channels = import_onnx(m.model(x), output=x).shapes[x][0]
    after = {
        "conv": lambda: relu_conv(m, x, channels, 3, 2, pads=[1, 0, 1, 1]),
        "depthwise": lambda: m.op("Relu", m.conv(x, channels, 2 * channels, 2, group=channels)),
        "relu": lambda: m.op("Relu", m.op("Mul", x, np.float32(-1))),
        "max": lambda: m.op("MaxPool", x, kernel_shape=[2, 2]),
        "average": lambda: m.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]),
        "norm": lambda: m.op("Relu", m.norm(x, channels)),
        "nothing": lambda: x,
    }[then]
    try:
        finished(m, after())
    except ModelError as error:  # counts have no maximum over places that are in no map
        assert then == "max"
        assert "elements are not those of maps" in str(error) or "negative" in str(error)


def test_slices_of_vectors():
    m = OnnxModel((12,))
    x = m.op("Relu", m.gemm("x", 12, 8))
    a = m.op("Slice", x, np.array([2]), np.array([7]), np.array([1]))
    b = m.op("Gather", x, np.array([7, 1]), axis=1)
    y = m.op("Relu", m.gemm(m.op("Concat", b, a, axis=1), 7, 6))
    ann = lowered(m.model(m.op("Gemm", m.op("Gather", y, np.array([5, 0, 3]), axis=1), m.floats(3, 4))))
    assert weights(ann) == 12 * 8 + 8 * 6 + 6 * 4


def test_parts_of_the_input():
    """Two branches that read different features."""
    m = OnnxModel((10,))
    a = m.op("Slice", "x", np.array([0]), np.array([4]), np.array([1]))
    b = m.op("Gather", "x", np.array([9, 4, 5]), axis=1)
    a, b = (m.op("Relu", m.gemm(x, n, 5)) for x, n in ((a, 4), (b, 3)))
    finished(m, m.op("Concat", a, b, axis=1))
    m = OnnxModel((4, 12))
    w = m.floats(3, 2, 3)
    m.nodes.append(node("Split", "x", "a b", axis=1))
    ends = [m.op("Flatten", m.op("Relu", m.op("Conv", x, w))) for x in ("a", "b")]
    ann = finished(m, m.op("Concat", *ends, axis=1))
    assert ann.network.input_shape == (4, 1, 12)


# Larger maps


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("stride, kernel", [(1, 3), (1, 1), (2, 3), (1, 4)])
def test_upsampling_before_a_convolution(scale, stride, kernel):
    """Its phases have small kernels: less work than the large map would be."""
    m = OnnxModel((2, 6, 5))
    x = relu_conv(m, "x", 2, 4, pads=[1, 1, 1, 1])
    x = m.op("Resize", x, "", np.array([1, 1, scale, scale], np.float32), mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    ann = finished(m, relu_conv(m, x, 4, 3, kernel, pads=[1, 1, 1, 1], strides=[stride, stride]))
    convolutions = [layer for layer in ann.network.layers if isinstance(layer, Conv2d)][1:]
    assert all(layer.weight.size <= 12 * max(4, kernel * kernel) for layer in convolutions)


def test_an_encoder_and_a_decoder():
    """Upsampled maps beside maps of that size, as in U-Net."""
    m = OnnxModel((2, 8, 8))
    around = {"pads": [1, 1, 1, 1]}
    wide = relu_conv(m, "x", 2, 4, **around)
    deep = relu_conv(m, m.op("MaxPool", wide, kernel_shape=[2, 2], strides=[2, 2]), 4, 6, **around)
    up = m.op("Resize", deep, "", np.array([1, 1, 2, 2], np.float32), mode="nearest",
              coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    x = relu_conv(m, m.op("Concat", wide, up, axis=1), 10, 4, **around)
    x = m.op("Relu", m.op("Add", m.conv(x, 4, 4, **around), wide))
    ann = finished(m, m.op("GlobalAveragePool", x))
    assert not any("matrix" in note for note in ann.notes)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"strides": [2, 1], "pads": [0, 1, 2, 1], "output_padding": [1, 0]},
        {"strides": [3, 3]},
        {"strides": [4, 4]},
        {"dilations": [2, 2]},
        {"strides": [2, 2], "dilations": [2, 1], "pads": [1, 0, 0, 0]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [2, 2], "output_shape": [9, 8]},
        {"strides": [2, 2], "group": 2},
        {"strides": [2, 2], "group": 4, "pads": [1, 1, 0, 0]},
    ],
    ids=str,
)
def test_transposed_convolutions(attributes):
    m = OnnxModel((3, 6, 6))
    x = relu_conv(m, "x", 3, 4)
    group = attributes.get("group", 1)
    weight = m.floats(4, 8 // group, 3, 3, scale=0.2)
    x = m.op("Relu", m.norm(m.op("ConvTranspose", x, weight, m.floats(8), **attributes), 8))
    ann = finished(m, relu_conv(m, x, 8, 3, 3, pads=[1, 1, 1, 1]))
    assert not any("matrix" in note for note in ann.notes)


def test_transposed_convolutions_of_signals():
    m = OnnxModel((3, 12))
    x = m.op("Relu", m.op("Conv", "x", m.floats(4, 3, 3)))
    x = m.op("Relu", m.op("ConvTranspose", x, m.floats(4, 5, 4), strides=[2], pads=[1, 1]))
    finished(m, m.op("Relu", m.op("Conv", x, m.floats(3, 5, 3))))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode):
    m = OnnxModel((2, 5, 5))
    x = m.op("DepthToSpace", relu_conv(m, "x", 2, 8), blocksize=2, mode=mode)
    ann = finished(m, relu_conv(m, x, 2, 3))
    assert not any("matrix" in note for note in ann.notes)


def test_averages_whose_padding_reaches_the_kernel():
    m = OnnxModel((3, 6, 6))
    x = m.op("Pad", relu_conv(m, "x", 3, 4), np.array([0, 0, 3, 3, 0, 0, 0, 3]))
    ann = finished(m, m.op("AveragePool", x, kernel_shape=[2, 2]))
    assert not any("matrix" in note for note in ann.notes)


def test_a_focus_layer_is_one_convolution():
    """Four slices of every second pixel, side by side."""
    m = OnnxModel((3, 8, 8))
    ones = np.array([2, 3])
    slices = [
        m.op("Slice", "x", np.array([y, x]), np.array([99, 99]), ones, np.array([2, 2]))
        for x in (0, 1)
        for y in (0, 1)
    ]
    x = m.op("Concat", *slices, axis=1)
    ann = finished(m, relu_conv(m, x, 12, 5, pads=[0, 0, 0, 0]))
    assert kinds(ann)[:3] == ["input", "conv2d", "if"]
    assert weights(ann) == 5 * 12 * 9 + 20 * 4


@pytest.mark.parametrize("size", [(7, 7), (6, 9), (3, 3), (2, 5)], ids=str)
@pytest.mark.parametrize("source", ["relu", "current", "input"])
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
        {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"kernel_shape": [3, 2], "pads": [2, 0, 1, 1], "strides": [2, 1]},
        {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]},
    ],
    ids=str,
)
def test_averages_of_what_is_inside_the_map(size, source, window):
    """Keras' padding "same", Inception's and ShuffleNet's pools: borders are small maps of their own."""
    m = OnnxModel((3, *size))
    x = m.conv("x", 3, 3, pads=[1, 1, 1, 1]) if source != "input" else "x"
    x = m.op("AveragePool", m.op("Relu", x) if source == "relu" else x, **window)
    ann = finished(m, relu_conv(m, x, 3, 5, 1))
    assert not any("matrix" in note for note in ann.notes)


def test_borders_of_averages_cost_little():
    m = OnnxModel((3, 28, 28))
    x = relu_conv(m, "x", 3, 16, pads=[1, 1, 1, 1])
    x = m.op("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    ann = finished(m, m.op("GlobalAveragePool", relu_conv(m, x, 16, 8, 1)))
    whole = 16 * 28 * 28 * 2 + 8 * 28 * 28  # before, behind and after the pool
    assert neurons(ann) < 1.2 * whole


# Matrices


def test_a_vector_becomes_a_map():
    m = OnnxModel((5,))
    x = m.op("Reshape", m.op("Relu", m.gemm("x", 5, 32)), np.array([-1, 2, 4, 4]))
    x = m.op("Relu", m.norm(m.conv(x, 2, 3, pads=[1, 1, 1, 1]), 3))
    ann = finished(m, x)
    assert any("Conv as a matrix of 32 x 48 weights" in note for note in ann.notes)


MATRICES = {
    "mean image": lambda m: relu_conv(m, m.op("Sub", "x", m.floats(3, 6, 6)), 3, 4, pads=[1, 1, 1, 1]),
    "mean over channels": lambda m: m.op("ReduceMean", relu_conv(m, "x", 3, 5), axes=[1]),
    "mean over height": lambda m: m.op(
        "ReduceMean", m.op("Transpose", relu_conv(m, "x", 3, 5), perm=[0, 2, 3, 1]), axes=[1]
    ),
    "turned": lambda m: m.conv(m.op("Transpose", relu_conv(m, "x", 3, 5), perm=[0, 1, 3, 2]), 5, 4),
    "reshaped": lambda m: m.conv(m.op("Reshape", relu_conv(m, "x", 3, 5), np.array([0, 20, 2, 2])), 20, 4, 1),
    "each row": lambda m: m.op("MatMul", relu_conv(m, "x", 3, 5), m.floats(4, 7)),
    "two layouts": lambda m: m.op("Add", m.op("Transpose", "x", perm=[0, 1, 3, 2]), "x"),
    "broadcast": lambda m: m.op("Sub", m.op("GlobalAveragePool", "x"), "x"),
    "broadcast constant": lambda m: m.op(
        "Add", m.op("GlobalAveragePool", relu_conv(m, "x", 3, 5)), m.floats(1, 5, 2, 2)
    ),
    "cut": lambda m: m.conv(m.op("Pad", "x", np.array([0, 0, -1, 0, 0, 0, 0, 0])), 3, 4),
    "average beyond the border": lambda m: m.op(
        "AveragePool", relu_conv(m, "x", 3, 5), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1,
        count_include_pad=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MATRICES)
def test_what_no_convolution_computes_is_a_matrix(case):
    m = OnnxModel((3, 6, 6))
    finished(m, m.op("Relu", MATRICES[case](m)))


def test_matrices_have_a_limit():
    m = OnnxModel((3, 64, 64))
    x = m.op("Transpose", relu_conv(m, "x", 3, 3), perm=[0, 1, 3, 2])
    with pytest.raises(ModelError, match=r"elements are not those of maps.*4194304 weights"):
        finished(m, m.conv(x, 3, 4))


# Values


def test_limits_other_than_0():
    m = OnnxModel((3, 6, 6))
    x = m.op("Clip", m.conv("x", 3, 5), np.float32(-1), np.float32(0.5))
    x = m.op("Max", m.conv(x, 5, 5, pads=[1, 1, 1, 1]), np.float32(0.1))
    x = m.op("Clip", m.conv(x, 5, 5, 1), np.float32(-0.2), "")
    x = m.op("Clip", m.op("Relu", m.conv(x, 5, 4, 1)), np.float32(-3), np.float32(0.7))
    x = m.op("Max", m.conv(x, 4, 4, 1), m.floats(4, 1, 1))
    finished(m, m.op("HardSigmoid", m.op("Neg", m.op("Abs", m.conv(x, 4, 4, 1))), alpha=0.3))


@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [2, 1]},
        {"kernel_shape": [1, 3]},
    ],
    ids=str,
)
def test_max_pools_of_values_of_both_signs(window):
    """max(a, b) = b + relu(a - b), also of the input, and before factors and leaky ReLUs."""
    m = OnnxModel((3, 8, 9))
    x = m.op("MaxPool", m.conv("x", 3, 4), **window)
    finished(m, m.conv(m.norm(x, 4), 4, 3, 2))
    m = OnnxModel((3, 8, 9))
    x = m.op("LeakyRelu", m.op("MaxPool", m.op("MaxPool", "x", **window), **window))
    finished(m, x)


def test_upper_limits_alone_and_extremes_of_tensors():
    m = OnnxModel((3, 6, 6))
    x = m.conv(m.op("Min", m.conv("x", 3, 5), np.float32(0.5)), 5, 4)
    y = m.conv("x", 3, 4, 5)
    x = m.op("Max", x, y)  # maxout
    x = m.op("Min", np.float32(0.7), x, m.conv("x", 3, 4, 5))
    finished(m, m.op("MaxPool", m.op("Clip", m.conv(x, 4, 4, 1), "", np.float32(1)), kernel_shape=[2, 2]))


@pytest.mark.parametrize("op", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
@pytest.mark.parametrize("turned", [False, True])
def test_relus_that_are_masks(op, turned):
    m = OnnxModel((6,))
    x, zero = m.gemm("x", 6, 8), np.float32(0)
    above = m.op(op, *((zero, x) if turned else (x, zero)))
    if op.startswith("Greater") == turned:
        above = m.op("Not", above)
    x = m.op("Mul", x, m.op("Cast", above, to=1))
    x = m.gemm(x, 8, 5)
    below = m.op(op, *((zero, x) if turned else (x, zero)))
    positive = op.startswith("Greater") != turned
    x = m.op("Where", below, *((x, zero) if positive else (zero, x)))
    ann = lowered(m.model(m.gemm(x, 5, 3)))
    assert kinds(ann).count("if") == 2


def test_sums_over_space():
    m = OnnxModel((2, 6, 6))
    x = relu_conv(m, "x", 2, 4)
    x = m.op("ReduceSum", x, np.array([2, 3]), keepdims=0)
    ann = lowered(m.model(m.gemm(x, 4, 3)))
    assert "avgpool2d" in kinds(ann)
    m = OnnxModel((2, 6, 6))
    x = m.op("ReduceMax", relu_conv(m, "x", 2, 4), axes=[2, 3], keepdims=0)
    assert "maxpool2d" in kinds(lowered(m.model(m.gemm(x, 4, 3))))


@pytest.mark.parametrize(
    "operator, match",
    [
        (node("Slice", "x four nine one"), "cuts everything off: got 4:9:1 of 4"),
        (node("Slice", "x one nine zero"), "works across the samples"),
        (node("Slice", "x one nine far"), "names an axis that is not there"),
        (node("Slice", "x one nine one zero"), "a step of 0"),
        (node("Slice", "x two_ones nine one"), "do not fit"),
        (node("Slice", "x two_ones nines two_ones"), "names an axis twice"),
        (node("Slice", "x one x"), "must be a constant"),
        (node("Gather", "x four", axis=1), "takes elements that are not there: got 4 to 4"),
        (node("Gather", "x one"), "works across the samples"),
        (node("Gather", "four x"), "first input must depend"),
        (node("Split", "x two_ones", "y b", axis=1), r"sizes do not fit its input: got \[1, 1\] for 2"),
        (node("Split", "x", "y b c", axis=1), "cannot be divided: got 4 by 3"),
        (node("Split", "x", "y b", axis=0), "works across the samples"),
        (node("Resize", "x - scales", mode="linear"), "only nearest neighbours.*transposed conv"),
        (node("Resize", "x - scales", mode="cubic"), "only nearest"),
        (node("Resize", "x"), "scales or sizes do not fit"),
        (node("Resize", "x - one"), "scales or sizes do not fit"),
        (node("Resize", "x - none"), "resizes an axis to nothing"),
        (node("Resize", "x - batch"), "resizes the batch"),
        (node("Resize", "x - scales", coordinate_transformation_mode="tf_crop_and_resize"), "coordinate"),
        (node("Resize", "x - scales", nearest_mode="up"), "nearest_mode is unknown"),
        (node("DepthToSpace", "x", blocksize=3), "blocks do not divide"),
        (node("DepthToSpace", "x", blocksize=0), "moves no blocks"),
        (node("SpaceToDepth", "x", blocksize=4), "blocks do not divide"),
        (node("ConvTranspose", "x few"), "weights do not fit its input"),
        (node("ConvTranspose", "x w", pads=[-1, 0, 0, 0]), "pads is not usable"),
        (node("ConvTranspose", "x w", pads=[9, 9, 9, 9]), "cut everything off"),
        (node("ConvTranspose", "x w", output_padding=[1, 1]), "output_padding reaches the stride"),
        (node("ConvTranspose", "x w", strides=[0, 1]), "strides is not usable"),
        (node("ConvTranspose", "x w one"), "bias does not fit"),
        (node("ReduceSum", "x"), "sums over all axes"),
        (node("ReduceMax", "x", axes=[1]), "only the largest value of each channel"),
        (node("Greater", "x one"), "in a way that is no ReLU"),
        (node("MaxPool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "may be negative has padding"),
        (node("Greater", "x x"), "in a way that is no ReLU"),
        (node("Clip", "x high high"), "upper limit is not above its lower one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_refused(operator, match):
    numbers = {
        "zero": [0], "one": [1], "four": [4], "nine": [9], "far": [5], "two_ones": [1, 1], "nines": [9, 9],
    }  # fmt: skip
    stored = {
        **{name: np.array(values) for name, values in numbers.items()},
        "scales": np.array([1, 1, 2, 2], np.float32),
        "none": np.array([1, 1, 0.1, 2], np.float32),
        "batch": np.array([2, 1, 2, 2], np.float32),
        "w": np.ones((4, 3, 3, 3), np.float32),
        "few": np.ones((3, 3, 3, 3), np.float32),
        "high": np.float32(0.5),
    }
    with pytest.raises(ModelError, match=match) as error:
        lowered(model([operator], (4, 6, 6), stored))
    assert operator.op_type in str(error.value.where)
