"""Operators of the source ANN: against ONNX's own test data, and against onnxruntime on random ones."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_models import assert_close, model, node, run

from evsnn.conversion.onnx import dense
from evsnn.conversion.onnx.admission import RULES
from evsnn.conversion.onnx.constants import FOLDERS, fold
from evsnn.conversion.onnx.evaluate import evaluate
from evsnn.conversion.onnx.expansion import EXPANSIONS
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.conversion.onnx.model_file import attributes_of, plain
from evsnn.conversion.onnx.operators import OPERATORS
from evsnn.conversion.onnx.upgrade import upgrade
from evsnn.errors import ModelError

ROUNDED = {
    "test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-3
}  # ONNX gives four digits of its results
_FLOATS = (np.float16, np.float32, np.float64)


@cache
def single_nodes():
    """ONNX's node tests of one operator whose tensors are numbers."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    found = {}
    for case in cases:
        nodes, tensors = case.model.graph.node, [t for data in case.data_sets[0] for t in data]
        if (
            len(nodes) == 1
            and not nodes[0].domain
            and all(isinstance(t, (np.ndarray, np.generic)) and t.dtype.kind in "fiub" for t in tensors)
        ):
            found[case.name] = case
    return found


def node_tests():
    """Those of an importable operator whose first tensor is of floats."""
    importable = {*RULES, *EXPANSIONS, "Identity", "Dropout"}
    return {
        name: c
        for name, c in single_nodes().items()
        if c.model.graph.node[0].op_type in importable and c.data_sets[0][0][0].dtype in _FLOATS
    }


def as_constant(case) -> np.ndarray:
    """What folding makes of a node test's tensors."""
    return as_operator(case, lambda op, operands, attributes: fold(op, operands, attributes))


def as_operator(
    case, compute=lambda op, operands, attributes: OPERATORS[op](*operands, **attributes)
) -> np.ndarray:
    """What the operator alone makes of a node test's tensors, whichever axis is the batch's."""
    (proto,), opset = case.model.graph.node, case.model.opset_import[0].version
    given = dict(zip((v.name for v in case.model.graph.input), map(np.asarray, case.data_sets[0][0])))
    operands = [plain(given[n]) if n else None for n in proto.input]
    attributes, constants = upgrade(
        proto.op_type, attributes_of(proto, None, "node"), opset, operands[0].ndim, operands[0].shape
    )
    for position, value in constants.items():
        operands += [None] * (position + 1 - len(operands))
        operands[position] = value
    return compute(proto.op_type, operands, attributes)


def as_network(case) -> np.ndarray:
    """What a network of one operator computes; the first tensor is its input, the others are weights."""
    proto = type(case.model)()
    proto.CopyFrom(case.model)
    for value, array in zip(list(proto.graph.input)[1:], case.data_sets[0][0][1:]):
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
    graph, x = import_onnx(proto, output=proto.graph.output[0].name), np.asarray(case.data_sets[0][0][0])
    return evaluate(graph, x) if x.shape != graph.shapes[graph.input] else evaluate(graph, x[None])[0]


def outcomes(compute, cases) -> dict[str, str]:
    """ "" for each node test that is passed, and the message of each that is refused."""
    results = {}
    for name, case in cases.items():
        expected = np.asarray(case.data_sets[0][1][0])
        try:
            ours = compute(case)
        except ModelError as error:
            results[name] = str(error)
            continue
        assert_close(ours, plain(expected), 1e-2 if expected.dtype == np.float16 else ROUNDED.get(name, 1e-4))
        results[name] = ""
    return results


PASSED_AS_NETWORKS = """
    add_bcast averagepool_2d_ceil averagepool_2d_default averagepool_2d_dilations averagepool_2d_pads
    averagepool_2d_pads_count_include_pad averagepool_2d_precomputed_pads averagepool_2d_precomputed_pads_count_include_pad
    averagepool_2d_precomputed_same_upper averagepool_2d_precomputed_strides averagepool_2d_same_lower averagepool_2d_same_upper averagepool_2d_strides
    basic_conv_with_padding basic_conv_without_padding batchnorm_epsilon batchnorm_example clip clip_default_max clip_default_min constant_pad
    constant_pad_axes conv_with_autopad_same conv_with_strides_and_asymmetric_padding conv_with_strides_no_padding conv_with_strides_padding div_bcast
    flatten_axis1 flatten_default_axis flatten_negative_axis3 gemm_alpha gemm_beta gemm_default_no_bias gemm_default_scalar_bias
    gemm_default_single_elem_vector_bias gemm_default_vector_bias gemm_default_zero_bias gemm_transposeB leakyrelu
    leakyrelu_default logsoftmax_axis_1 logsoftmax_default_axis logsoftmax_large_number matmul_2d maxpool_2d_ceil maxpool_2d_default maxpool_2d_dilations
    maxpool_2d_pads maxpool_2d_same_lower maxpool_2d_same_upper maxpool_2d_strides mul_bcast prelu_broadcast reduce_mean_do_not_keepdims_example
    reduce_mean_keepdims_random reduce_mean_negative_axes_keepdims_random relu reshape_extended_dims reshape_negative_dim reshape_reduced_dims
    reshape_reordered_last_dims reshape_zero_and_negative_dim reshape_zero_dim softmax_axis_1 softmax_axis_2 softmax_default_axis softmax_large_number
    averagepool_1d_default basic_conv_with_padding convtranspose convtranspose_1d convtranspose_autopad_same convtranspose_dilations convtranspose_group_2
    convtranspose_group_2_image_3 convtranspose_kernel_shape convtranspose_output_shape convtranspose_pad convtranspose_pads maxpool_1d_default
    abs depthtospace_crd_mode_example depthtospace_example gather_1 gather_2d_indices hardsigmoid neg reduce_sum_keepdims_random
    resize_downsample_scales_nearest resize_downsample_sizes_nearest resize_upsample_scales_nearest resize_upsample_scales_nearest_axes_2_3
    resize_upsample_sizes_nearest resize_upsample_sizes_nearest_ceil_half_pixel resize_upsample_sizes_nearest_floor_align_corners
    resize_upsample_sizes_nearest_round_prefer_ceil_asymmetric slice_default_axes slice_negative_axes spacetodepth spacetodepth_crd_mode_example
    split_equal_parts_2d_opset13 split_variable_parts_2d_opset18 split_2d_uneven_split_opset18 upsample_nearest
    squeeze_negative_axes sub_bcast transpose_all_permutations_0 transpose_all_permutations_1 unsqueeze_axis_1 unsqueeze_three_axes
"""


@pytest.mark.slow
def test_operators_pass_onnx_own_tests():
    """Every test of every importable operator, apart from what is refused with a reason."""
    cases = {
        name: case for name, case in node_tests().items() if case.model.graph.node[0].op_type in OPERATORS
    }
    results = outcomes(as_operator, cases)
    passed = Counter(cases[name].model.graph.node[0].op_type for name, error in results.items() if not error)
    assert set(passed) == set(OPERATORS)
    assert sum(passed.values()) >= 150
    refused = {name: error for name, error in results.items() if error}
    no_maps = {name for name, error in refused.items() if ("_1d" in name or "_3d" in name) and "2-D" in error}
    assert set(refused) - no_maps <= {
        "test_batchnorm_epsilon_training_mode",
        "test_batchnorm_example_training_mode",
    }


@pytest.mark.slow
def test_folding_passes_onnx_own_tests():
    """Every test of every operator that is computed on constants, in the types that constants have."""
    types = ("float16", "float32", "float64", "int32", "int64", "bool")
    cases = {}
    for name, case in single_nodes().items():
        (given, expected), op = case.data_sets[0], case.model.graph.node[0].op_type
        if (
            op in FOLDERS
            and given
            and all(t.dtype.name in types for t in (*given, *expected))
            and "empty_set" not in name
        ):
            cases[name] = case
    with np.errstate(all="ignore"):
        results = outcomes(as_constant, cases)
    passed = Counter(cases[name].model.graph.node[0].op_type for name, error in results.items() if not error)
    assert set(passed) | {"Cast", "CastLike", "QuantizeLinear", "DequantizeLinear"} == set(
        FOLDERS
    )  # the first two may be tested with strings only, see below; the others with integers of 8 bits
    assert sum(passed.values()) >= 200
    assert {name for name, error in results.items() if error} <= {
        "test_edge_pad",
        "test_reflect_pad",
        "test_wrap_pad",
    }


def test_casts_of_constants():
    """To what stands for a type here: float32, int64 or bool, cut towards zero."""
    x = np.array([-1.75, 0, 2.5], np.float32)
    for to, expected in (
        (TensorProto.FLOAT16, x),
        (TensorProto.DOUBLE, x),
        (TensorProto.INT32, np.array([-1, 0, 2])),
        (TensorProto.BOOL, np.array([True, False, True])),
    ):
        assert_close(fold("Cast", [x], {"to": to}), expected)
    assert_close(fold("CastLike", [x, np.array([1])], {}), np.array([-1, 0, 2]))
    for to in (TensorProto.STRING, TensorProto.COMPLEX64, 99):
        with pytest.raises(ModelError, match="cannot be cast"):
            fold("Cast", [x], {"to": to})
    with pytest.raises(ModelError, match="cannot be cast"):
        fold("Cast", [np.array([np.nan], np.float32)], {"to": TensorProto.INT64})
    with pytest.raises(ModelError, match="divided by zero"):
        fold("Div", [np.array([3]), np.array([0])], {})


@pytest.mark.slow
def test_networks_pass_onnx_own_tests():
    """Through the importer, which also refuses what mixes the samples of a batch."""
    results = outcomes(as_network, node_tests())
    assert {f"test_{name}" for name in PASSED_AS_NETWORKS.split()} <= {
        name for name, error in results.items() if not error
    }
    for name, error in results.items():
        assert not error or "\n" not in error, name


sizes, small = st.integers(6, 12), st.integers(1, 3)
pairs = st.tuples(small, small)
paddings = st.one_of(
    st.fixed_dictionaries({"pads": st.tuples(*[st.integers(0, 2)] * 4)}),
    st.fixed_dictionaries({"auto_pad": st.sampled_from(["VALID", "SAME_UPPER", "SAME_LOWER"])}),
)
cheap = settings(max_examples=60, deadline=None, derandomize=True)


def compare(proto, shape, rng, n: int = 3) -> None:
    images = rng.standard_normal((n, *shape), np.float32)
    assert_close(evaluate(import_onnx(proto), images, batch=2), run(proto, images))


@cheap
@given(
    st.tuples(sizes, sizes),
    small,
    small,
    small,
    pairs,
    pairs,
    pairs,
    paddings,
    st.booleans(),
    st.integers(0, 99),
)
def test_convolutions(
    size, groups, per_group, out_per_group, kernel, strides, dilations, padding, biased, seed
):
    rng = np.random.default_rng(seed)
    if padding.get("auto_pad", "").startswith("SAME"):
        dilations = (1, 1)  # onnxruntime takes no others
    weights = {
        "w": rng.standard_normal((groups * out_per_group, per_group, *kernel), np.float32),
        "b": rng.standard_normal(groups * out_per_group, np.float32),
    }
    conv = node(
        "Conv", "x w b" if biased else "x w", group=groups, strides=strides, dilations=dilations, **padding
    )
    compare(model([conv], (groups * per_group, *size), weights), (groups * per_group, *size), rng)


@cheap
@given(
    st.sampled_from(["AveragePool", "MaxPool"]),
    st.tuples(sizes, sizes),
    pairs,
    pairs,
    paddings,
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_pools(op, size, kernel, strides, padding, ceil, include, seed):
    rng = np.random.default_rng(seed)
    if "pads" in padding:
        pads = tuple(min(p, k - 1) for p, k in zip(padding["pads"], kernel * 2))
        padding = {"pads": pads, "ceil_mode": int(ceil)}
        last = [-(-(n + a + b - k) // s) * s for n, a, b, k, s in zip(size, pads, pads[2:], kernel, strides)]
        assume(
            not ceil or all(at < n + a for at, n, a in zip(last, size, pads))
        )  # older onnxruntimes count windows behind the map
    else:
        strides = tuple(map(min, strides, kernel))  # onnxruntime fails on wider ones
    options = {"count_include_pad": int(include)} if op == "AveragePool" else {}
    compare(
        model(
            [node(op, "x", kernel_shape=kernel, strides=strides, **padding, **options)], (2, *size), opset=19
        ),
        (2, *size),
        rng,
    )


@cheap
@given(
    small,
    sizes,
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([0.0, 1.0, -3.0]),
    st.booleans(),
    st.sampled_from([None, (), (1,), (5,), (1, 5)]),
    st.integers(0, 99),
)
def test_linear_layers(n, n_in, alpha, beta, transposed, bias, seed):
    rng = np.random.default_rng(seed)
    weights = {"w": rng.standard_normal((5, n_in) if transposed else (n_in, 5), np.float32)} | (
        {} if bias is None else {"b": rng.standard_normal(bias).astype(np.float32)}
    )
    gemm = node("Gemm", "x w" if bias is None else "x w b", alpha=alpha, beta=beta, transB=int(transposed))
    compare(model([gemm], (n_in,), weights), (n_in,), rng, n)


@cheap
@given(st.integers(1, 8), st.lists(sizes, max_size=2), st.sampled_from([1e-5, 1e-3, 0.1]), st.integers(0, 99))
def test_batch_norms(channels, size, epsilon, seed):
    rng = np.random.default_rng(seed)
    weights = {name: rng.standard_normal(channels, np.float32) for name in "sbm"} | {
        "v": rng.uniform(0.01, 4, channels).astype(np.float32)
    }
    compare(
        model([node("BatchNormalization", "x s b m v", epsilon=epsilon)], (channels, *size), weights),
        (channels, *size),
        rng,
    )


def plain_conv2d(x, weight, bias, stride, padding, dilation, groups):
    """The definition: one window after the other, in float64."""
    top, left, bottom, right = padding
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    (c_out, per_group, ky, kx), per_out = weight.shape, len(weight) // groups
    n_y, n_x = (
        ((x.shape[2 + i] - (k - 1) * dilation[i] - 1) // stride[i] + 1) for i, k in enumerate((ky, kx))
    )
    out = np.empty((len(x), c_out, n_y, n_x))
    for o in range(c_out):
        seen = x[:, o // per_out * per_group :][:, :per_group]
        for y in range(n_y):
            for x_ in range(n_x):
                window = seen[:, :, y * stride[0] :: dilation[0], x_ * stride[1] :: dilation[1]][
                    :, :, :ky, :kx
                ]
                out[:, o, y, x_] = (window * weight[o]).sum((1, 2, 3)) + (0 if bias is None else bias[o])
    return out


@pytest.mark.parametrize("scratch", [1, 3000, 1 << 24])
@pytest.mark.parametrize("groups, per_group, c_out", [(1, 4, 5), (2, 3, 6), (5, 1, 5), (3, 1, 6)])
@pytest.mark.parametrize(
    "stride, dilation, padding",
    [((1, 1), (1, 1), (1, 1, 1, 1)), ((2, 1), (1, 2), (0, 2, 1, 0)), ((2, 3), (2, 1), (0, 0, 0, 0))],
)
def test_dense_convolution_is_exact_on_integers(
    monkeypatch, scratch, groups, per_group, c_out, stride, dilation, padding
):
    """Small integers have exact sums in any order, however the scratch memory divides the work."""
    monkeypatch.setattr(dense, "SCRATCH_BYTES", scratch)
    rng = np.random.default_rng(groups)
    x, weight, bias = (
        rng.integers(-9, 10, shape).astype(np.float32)
        for shape in ((3, groups * per_group, 9, 8), (c_out, per_group, 3, 2), (c_out,))
    )
    for some in (bias, None):
        ours = dense.conv2d(x, weight, some, stride, padding, dilation, groups)
        assert np.array_equal(ours, plain_conv2d(x, weight, some, stride, padding, dilation, groups))
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert np.array_equal(dense.conv2d(channels_last, weight, None, stride, padding, dilation, groups), ours)


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16", "DOUBLE"])
def test_other_floats_become_float32(kind):
    """A model whose tensors are all of another float type, with casts around it."""
    kind, numbers = getattr(TensorProto, kind), [1, 2, 3, 0.5, -1, 0]
    proto = model(
        [
            node("Cast", "x", "h", to=kind),
            node("MatMul", "h w", "m"),
            node("Cast", "m", to=TensorProto.FLOAT),
        ],
        (2,),
        {"w": np.zeros((2, 3), np.float32)},
    )
    proto.graph.initializer[0].CopyFrom(helper.make_tensor("w", kind, (2, 3), numbers))
    proto.graph.input[0].type.tensor_type.elem_type = proto.graph.output[0].type.tensor_type.elem_type = kind
    graph = import_onnx(proto)
    assert [n.op for n in graph.nodes] == ["MatMul"]
    assert graph.constants["w"].dtype == np.float32
    assert graph.constants["w"].ravel().tolist() == numbers
    assert sorted(note.split(" are ")[0].split(" is ")[0].split(" of ")[0] for note in graph.notes) == [
        "the input",
        "weights",
    ]
