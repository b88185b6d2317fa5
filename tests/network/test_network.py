"""What a network refuses, and the shapes it infers."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import tracemalloc

import numpy as np
import pytest

from evsnn import (
    IF,
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    Flatten,
    Input,
    Linear,
    Network,
    NetworkError,
    Readout,
    RunError,
    StepParameters,
)
from evsnn.circuit.build import build_circuit

ONES = np.ones


def classifier(*layers, shape=(3, 8, 8), **options):
    return Network([Input(shape), *layers, Readout()], **options)


def test_shapes_follow_torch_rules():
    network = classifier(
        Conv2d(ONES((6, 3, 3, 2)), stride=(2, 1), padding=(1, 2, 0, 1), dilation=(1, 2), name="c"),
        IF(),
        AvgPool2d((2, 3), name="p"),
        Conv2d(ONES((9, 2, 1, 1)), groups=3, name="g"),
        IF(),
        AvgPool2d(name="all"),
        Flatten(),
        Linear(ONES((10, 9))),
    )
    assert network.shapes["c"] == (6, 4, 9)
    assert network.shapes["p"] == (6, 2, 3)
    assert network.shapes["g"] == (9, 2, 3)
    assert network.shapes["all"] == (9, 1, 1)
    assert network.n_classes == 10


def test_names_and_inputs_are_filled_in():
    network = classifier(
        Conv2d(ONES((2, 3, 1, 1)), name="conv2d2"),
        IF(),
        Conv2d(ONES((2, 2, 1, 1))),
        IF(),
        Flatten(),
        Linear(ONES((2, 128))),
    )
    assert [layer.name for layer in network.layers[:4]] == ["input1", "conv2d2", "if1", "conv2d1"]
    assert network.by_name["conv2d1"].inputs == ("if1",)


def test_arrays_are_copied_and_read_only():
    weight = ONES((2, 192), np.float64)
    network = classifier(Flatten(), Linear(weight))
    weight[:] = 5
    assert network.layers[2].weight.max() == 1
    with pytest.raises(ValueError, match="read-only"):
        network.layers[2].weight[0, 0] = 2
    negative_zero = Linear(np.full((2, 192), -0.0))
    assert not np.signbit(negative_zero.weight).any()


def tuned(tables):
    layers = (
        Conv2d(ONES((2, 3, 1, 1)), ONES(2), name="conv"),
        IF(3.0, 0.5, name="fire"),
        Flatten(name="flat"),
        Linear(ONES((4, 128)), name="linear"),
    )
    return classifier(*layers, shift="bias", step_parameters=tables)


TAIL = (Flatten(), Linear(ONES((10, 128))))

BAD = {
    "no weight": (lambda: Conv2d(), "weight"),
    "weight of rank 3": (lambda: Conv2d(ONES((2, 3, 3))), "wrong rank"),
    "empty weight": (lambda: Linear(ONES((0, 3))), "empty"),
    "weight of text": (lambda: Linear([["a", "b"]]), "not an array of numbers"),
    "NaN weight": (lambda: Linear([[np.nan]]), "NaN"),
    "infinite bias": (lambda: Linear([[1.0]], [np.inf]), "infinity"),
    "overflowing weight": (lambda: Linear([[1e300]]), "infinity"),
    "bias of another length": (lambda: Linear(ONES((2, 2)), ONES(3)), "bias and weight do not fit"),
    "stride 0": (lambda: Conv2d(ONES((2, 3, 3, 3)), stride=0), "stride is not usable"),
    "stride 1.5": (lambda: Conv2d(ONES((2, 3, 3, 3)), stride=1.5), "stride is not usable"),
    "negative padding": (lambda: Conv2d(ONES((2, 3, 3, 3)), padding=-1), "padding is not usable"),
    "three paddings": (lambda: Conv2d(ONES((2, 3, 3, 3)), padding=(1, 2, 3)), "padding is not usable"),
    "huge dilation": (lambda: Conv2d(ONES((2, 3, 3, 3)), dilation=1 << 40), "dilation is not usable"),
    "groups 0": (lambda: Conv2d(ONES((2, 3, 3, 3)), groups=0), "groups is not usable"),
    "groups do not divide": (lambda: Conv2d(ONES((4, 1, 3, 3)), groups=3), "groups do not divide"),
    "zero threshold": (lambda: IF(0.0), "not positive"),
    "negative threshold": (lambda: IF(ONES(3) * -1), "not positive"),
    "threshold NaN": (lambda: IF(np.nan), "NaN"),
    "subnormal threshold": (lambda: IF(1e-42), "not positive"),
    "leak 2": (lambda: IF(1.0, leak=2), "leak is out of range"),
    "a negative warm-up": (lambda: IF(1.0, warm_up_steps=-1), "warm_up_steps is not usable"),
    "half a step of warm-up": (lambda: IF(1.0, warm_up_steps=0.5), "warm_up_steps is not usable"),
    "too long a warm-up": (lambda: IF(1.0, warm_up_steps=65_537), "warm_up_steps is out of range"),
    "leak NaN": (lambda: IF(1.0, leak=float("nan")), "leak is out of range"),
    "pool padding": (lambda: AvgPool2d(2, padding=2), "padding reaches the kernel"),
    "global pool with stride": (lambda: AvgPool2d(stride=2), "global pooling"),
    "pool too large": (lambda: AvgPool2d(1000), "too large"),
    "name with a space": (lambda: IF(name="a b"), "name is not usable"),
    "name with a newline": (lambda: IF(name="a\n"), "name is not usable"),
    "long name": (lambda: IF(name="a" * 129), "name is not usable"),
    "scalar shape": (lambda: Input(()), "a map or a vector"),
    "shape with 0": (lambda: Input((3, 0, 3)), "shape is not usable"),
    "five dimensions": (lambda: Input((1, 2, 3, 4, 5)), "a map or a vector"),
    "encoding": (lambda: Input((3,), "rate"), "unknown input encoding"),
    "channels": (lambda: classifier(Conv2d(ONES((2, 4, 3, 3))), IF(), *TAIL), "weight and input do not fit"),
    "kernel too large": (
        lambda: classifier(Conv2d(ONES((2, 3, 9, 9))), IF(), *TAIL),
        "larger than its padded input",
    ),
    "conv of a vector": (lambda: classifier(Conv2d(ONES((2, 3, 1, 1))), shape=(3,)), "reads a map"),
    "linear of a map": (lambda: classifier(Linear(ONES((2, 3)))), "reads a vector"),
    "features": (lambda: classifier(Flatten(), Linear(ONES((2, 5)))), "weight and input do not fit"),
    "thresholds": (
        lambda: classifier(Conv2d(ONES((2, 3, 1, 1))), IF(ONES(3)), *TAIL),
        "v_threshold and input do not fit",
    ),
    "v_init": (
        lambda: classifier(Conv2d(ONES((2, 3, 1, 1))), IF(1.0, ONES(3)), *TAIL),
        "v_init and input do not fit",
    ),
    "unequal branches": (
        lambda: classifier(
            Conv2d(ONES((2, 3, 1, 1)), name="a"),
            Conv2d(ONES((2, 3, 3, 3)), name="b", inputs="input1"),
            Add(inputs=("a", "b")),
            IF(),
            *TAIL,
        ),
        "differ in shape",
    ),
    "unequal maps": (
        lambda: classifier(
            Conv2d(ONES((2, 3, 1, 1))), IF(name="a"), AvgPool2d(2, name="b"), Concat(inputs=("a", "b")), *TAIL
        ),
        "differ in size",
    ),
    "two weights in a row": (
        lambda: classifier(Conv2d(ONES((2, 3, 1, 1))), Conv2d(ONES((2, 2, 1, 1))), IF(), *TAIL),
        "no IF between them",
    ),
    "weights on a sum of spikes": (
        lambda: classifier(
            Conv2d(ONES((3, 3, 1, 1))),
            IF(name="a"),
            Conv2d(ONES((3, 3, 1, 1))),
            IF(name="b"),
            Add(inputs=("a", "b")),
            Conv2d(ONES((2, 3, 1, 1))),
            IF(),
            *TAIL,
        ),
        "reads a sum of spikes: got input from 'add1'. Give each branch a weighted layer",
    ),
    "a stride that is too large": (
        lambda: classifier(Conv2d(ONES((2, 3, 1, 1)), stride=(1 << 24, 1)), IF(), *TAIL),
        r"stride is not usable: got \(16777216, 1\), expected 2 integers from 1 to 16777215",
    ),
    "pool of currents": (
        lambda: classifier(Conv2d(ONES((2, 3, 1, 1))), AvgPool2d(1), IF(), *TAIL),
        "not currents",
    ),
    "concat of currents": (
        lambda: classifier(Conv2d(ONES((1, 3, 1, 1)), name="a"), Concat(inputs=("a", "a")), IF(), *TAIL),
        "not currents",
    ),
    "concat with the input": (
        lambda: classifier(
            Conv2d(ONES((2, 3, 1, 1))),
            IF(name="a"),
            Concat(inputs=("a", "input1")),
            Flatten(),
            Linear(ONES((2, 320))),
        ),
        "analog input",
    ),
    "readout of a map": (lambda: classifier(Conv2d(ONES((2, 3, 1, 1)))), "a map is not scores of classes"),
    "readout of spikes": (
        lambda: classifier(Flatten(), Linear(ONES((2, 192))), IF()),
        "needs a weighted layer",
    ),
    "readout of currents": (
        lambda: classifier(Flatten(), Linear(ONES((2, 192))), readout="spikes"),
        "needs an IF",
    ),
    "no readout": (lambda: Network([Input((3,)), Linear(ONES((2, 3)))]), "ends with a readout"),
    "no layers": (lambda: Network([]), "an input and a readout"),
    "not a layer": (lambda: Network([Input((3,)), "linear", Readout()]), "not all layers"),
    "two inputs": (lambda: Network([Input((3,)), Input((3,)), Linear(ONES((2, 3))), Readout()]), "one input"),
    "two readouts of nothing": (
        lambda: Network([Input((3,)), Linear(ONES((2, 3))), IF(), Readout(), Readout(inputs="if1")]),
        "readout 'membrane' needs a weighted layer",
    ),
    "a layer after a readout": (
        lambda: Network(
            [Input((3,)), Linear(ONES((2, 3))), Readout(), Linear(ONES((2, 3)), inputs="input1")]
        ),
        "starts with an input and ends with a readout",
    ),
    "a layer between readouts": (
        lambda: Network(
            [Input((3,)), Linear(ONES((2, 3))), Readout(), Linear(ONES((2, 3)), inputs="input1"), Readout()]
        ),
        "a layer comes after a readout",
    ),
    "same name": (lambda: classifier(Flatten(name="a"), Linear(ONES((2, 192)), name="a")), "one name"),
    "later input": (
        lambda: classifier(Flatten(inputs="b"), Linear(ONES((2, 192)), name="b")),
        "not an earlier layer",
    ),
    "itself": (
        lambda: classifier(Flatten(inputs="a", name="a"), Linear(ONES((2, 192)))),
        "not an earlier layer",
    ),
    "unknown input": (
        lambda: classifier(Flatten(inputs="x"), Linear(ONES((2, 192)))),
        "no layer of that name",
    ),
    "too many inputs": (
        lambda: classifier(Flatten(inputs=("input1", "input1")), Linear(ONES((2, 192)))),
        "wrong number of inputs",
    ),
    "dead end": (
        lambda: classifier(
            Conv2d(ONES((2, 3, 1, 1))),
            IF(),
            Flatten(name="f"),
            Linear(ONES((2, 128)), inputs="f", name="x"),
            Linear(ONES((2, 128)), inputs="f"),
        ),
        "leads nowhere",
    ),
    "0 steps": (lambda: classifier(Flatten(), Linear(ONES((2, 192))), n_steps=0), "n_steps is out of range"),
    "a billion steps": (
        lambda: classifier(Flatten(), Linear(ONES((2, 192))), n_steps=10**9),
        "n_steps is out of range",
    ),
    "True steps": (
        lambda: classifier(Flatten(), Linear(ONES((2, 192))), n_steps=True),
        "n_steps is out of range",
    ),
    "shift": (lambda: classifier(Flatten(), Linear(ONES((2, 192))), shift="half"), "unknown shift"),
    "input range": (lambda: classifier(Flatten(), Linear(ONES((2, 192))), input_range=(1, 0)), "not a range"),
    "classes": (lambda: classifier(Flatten(), Linear(ONES((2, 192))), classes=("a",)), "classes and readout"),
    "tables that are a list": (lambda: tuned([1]), "step parameters are not a mapping for each T"),
    "a table that is a list": (
        lambda: tuned({4: [StepParameters()]}),
        "step parameters are not a mapping for each T",
    ),
    "a table of 0 steps": (lambda: tuned({0: {}}), "step_parameters: n_steps is out of range"),
    "a table of half a step": (lambda: tuned({0.5: {}}), "step_parameters: n_steps is out of range"),
    "a table of text": (lambda: tuned({"4": {}}), "step_parameters: n_steps is out of range"),
    "a table of no layer": (
        lambda: tuned({4: {"x": StepParameters()}}),
        "the step parameters of T = 4: there is no such layer: got 'x'",
    ),
    "a table of numbers": (
        lambda: tuned({4: {"fire": 1.0}}),
        "the step parameters of T = 4, layer 'fire': these are not StepParameters: got float",
    ),
    "the bias of an IF": (
        lambda: tuned({4: {"fire": StepParameters(bias=[1])}}),
        "bias does not belong to this kind of layer: got if, expected conv2d or linear",
    ),
    "the threshold of a conv": (
        lambda: tuned({4: {"conv": StepParameters(v_threshold=1)}}),
        "v_threshold does not belong to this kind of layer: got conv2d, expected if",
    ),
    "the bias of a flatten": (lambda: tuned({4: {"flat": StepParameters(bias=[1])}}), "bias does not belong"),
    "the signs of a linear layer": (
        lambda: tuned({4: {"linear": StepParameters(negative_threshold=1)}}),
        "negative_threshold does not belong",
    ),
    "tuned thresholds": (
        lambda: tuned({4: {"fire": StepParameters(v_threshold=ONES(3))}}),
        "the step parameters of T = 4, layer 'fire': v_threshold and input do not fit",
    ),
    "tuned thresholds of 0": (
        lambda: tuned({4: {"fire": StepParameters(v_threshold=0)}}),
        "v_threshold is not positive",
    ),
    "tuned first membranes": (
        lambda: tuned({4: {"fire": StepParameters(v_init=[1, np.nan])}}),
        "v_init holds NaN",
    ),
    "a warm-up for one T": (
        lambda: tuned({4: {"fire": StepParameters(warm_up_steps=1.5)}}),
        "warm_up_steps is not usable",
    ),
    "the warm-up of a linear layer": (
        lambda: tuned({4: {"linear": StepParameters(warm_up_steps=1)}}),
        "warm_up_steps does not belong",
    ),
    "tuned signs": (
        lambda: tuned({4: {"fire": StepParameters(negative_threshold=-1)}}),
        "negative_threshold is out of range",
    ),
    "tuned bias": (
        lambda: tuned({4: {"conv": StepParameters(bias=ONES(3))}}),
        "the step parameters of T = 4, layer 'conv': bias and weight do not fit: got 3 biases, expected 2",
    ),
    "tuned bias of rank 2": (
        lambda: tuned({4: {"linear": StepParameters(bias=ONES((3, 1)))}}),
        "bias has the wrong rank",
    ),
    "layer too large": (
        lambda: classifier(
            Conv2d(ONES((2, 1, 1, 1)), padding=(1 << 23)), IF(), AvgPool2d(), *TAIL, shape=(1, 1, 1)
        ),
        "too large",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused(case):
    make, message = BAD[case]
    with np.errstate(over="ignore"), pytest.raises(NetworkError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


UNFOLDABLE = {
    "pools that overlap": (
        lambda: classifier(
            Conv2d(ONES((2, 3, 1, 1))), IF(), AvgPool2d(3, 1), AvgPool2d(2), Flatten(), Linear(ONES((2, 18)))
        ),
        "cannot be folded",
    ),
    "flattened shortcut": (
        lambda: classifier(Conv2d(ONES((2, 3, 1, 1))), IF(), Flatten(name="f"), IF(), Linear(ONES((2, 128)))),
        "without weights",
    ),
    "flattened currents": (
        lambda: classifier(Conv2d(ONES((2, 3, 1, 1))), Flatten(), IF(), Linear(ONES((2, 128)))),
        "flattened map of currents",
    ),
}


def doubled(kind, levels):
    """A sum (or concatenation) of itself, over and over: 2 ** levels parts."""
    layers = [Input((1,)), Linear(ONES((1, 1))), IF(name="d0")]
    layers += [kind(name=f"d{i + 1}", inputs=(f"d{i}", f"d{i}")) for i in range(levels)]
    tail = [IF(), Linear(ONES((2, 1)))] if kind is Add else [Linear(ONES((2, 2**levels)))]
    return Network([*layers, *tail, Readout()])


UNFOLDABLE["a sum of sums"] = (lambda: doubled(Add, 40), "too many parts")
UNFOLDABLE["a concatenation of concatenations"] = (lambda: doubled(Concat, 14), "too many parts")


@pytest.mark.parametrize("case", UNFOLDABLE)
def test_what_cannot_be_folded_is_refused(case):
    make, message = UNFOLDABLE[case]
    with pytest.raises(NetworkError, match=message):
        build_circuit(make())


def test_pools_in_a_row_are_one():
    network = classifier(
        Conv2d(ONES((2, 3, 1, 1))),
        IF(v_threshold=3.0),
        AvgPool2d(2),
        AvgPool2d((2, 1)),
        Flatten(),
        Linear(ONES((2, 16))),
    )
    projection = build_circuit(network).populations[1].projections[0]
    assert projection.sources[0].pool.kernel == (4, 2)
    assert np.allclose(projection.effective(), 3 / 8)


def test_shift_is_where_the_paper_puts_it():
    """V_th/2T on every IF, residual sums included, and none on the readout."""
    rng = np.random.default_rng(0)
    layers = [
        Conv2d(rng.normal(size=(3, 3, 1, 1)), ONES(3), name="a"),
        IF(2.0, name="x"),
        Conv2d(rng.normal(size=(3, 3, 1, 1)), name="b"),
        Add(inputs=("b", "x")),
        IF(ONES(3) * 4),
        Flatten(),
        Linear(ONES((2, 192)), ONES(2)),
    ]
    bias = {
        shift: [p.bias.tolist() for p in build_circuit(classifier(*layers, shift=shift), 10).populations]
        for shift in ("bias", "initial", "none")
    }
    assert np.allclose(bias["bias"][0], 1 + 2 / 20)
    assert np.allclose(bias["bias"][1], 4 / 20)
    assert bias["bias"][2] == [1, 1]
    assert bias["initial"] == bias["none"]
    assert [
        p.neuron.v_init.tolist()[0]
        for p in build_circuit(classifier(*layers, shift="initial"), 10).populations
    ] == [
        1,
        2,
        0,
    ]


def test_a_table_stands_in_for_what_it_names():
    network = tuned(
        {
            8: {"fire": StepParameters(v_threshold=[1, 2]), "linear": StepParameters(bias=[1, 2, 3, 4])},
            2: {
                "fire": StepParameters(v_init=-0.0, negative_threshold=1),
                "conv": StepParameters(bias=[5, 6]),
            },
        }
    )
    few, many = network.at(2), network.at(8)
    assert (
        few.by_name["fire"].v_threshold,
        few.by_name["fire"].v_init,
        few.by_name["fire"].negative_threshold,
        few.by_name["linear"].bias,
    ) == (3, 0, 1, None)
    assert few.by_name["conv"].bias.tolist() == [5, 6] and not np.signbit(few.by_name["fire"].v_init)
    assert many.by_name["fire"].v_threshold.tolist() == [1, 2] and (
        many.by_name["fire"].v_init,
        many.by_name["fire"].negative_threshold,
    ) == (0.5, 0)
    assert many.by_name["linear"].bias.tolist() == [1, 2, 3, 4] and many.by_name["conv"].bias.tolist() == [
        1,
        1,
    ]
    assert network.by_name["fire"].v_threshold == 3 and network.by_name["linear"].bias is None
    assert few.by_name["conv"].weight is network.by_name["conv"].weight
    assert not few.step_parameters and few.at(8) is few
    assert build_circuit(network, 8).populations[0].neuron.v_threshold.tolist() == [1, 2]
    assert build_circuit(network, 2).populations[0].bias.tolist() == [5.75, 6.75]


def test_the_nearest_table_is_used():
    network = tuned({T: {} for T in (64, 4, 16)})
    assert list(network.step_parameters) == [4, 16, 64]
    used = {1: 4, 4: 4, 7: 4, 8: 4, 9: 16, 16: 16, 31: 16, 32: 16, 33: 64, 65_536: 64}
    assert {T: network.nearest_steps(T) for T in used} == used
    assert (
        tuned({3: {}, 65_535: {}}).nearest_steps(443) == 3
        and tuned({3: {}, 65_535: {}}).nearest_steps(444) == 65_535
    )  # 3 * 65535 = 443.4 ** 2
    plain = tuned({})
    assert plain.nearest_steps(8) is None and plain.at(8) is plain
    for n_steps in (0, 65_537, 2.0, True):
        with pytest.raises(RunError, match="n_steps is out of range"):
            network.at(n_steps)


def test_tables_cost_what_is_in_them():
    """A thousand step parameters of one number do not make us copy, or read, a thousand weights."""
    network = classifier(
        Flatten(), Linear(ONES((1000, 192)), name="linear"), IF(ONES(1000)), Linear(ONES((2, 1000)))
    )
    tracemalloc.start()
    try:
        tuned = network.replace(step_parameters={T: {"if1": StepParameters(v_init=T)} for T in range(1, 301)})
        assert tuned.at(7).by_name["if1"].v_init == 7
        assert tracemalloc.get_traced_memory()[1] < network.by_name["linear"].weight.nbytes
    finally:
        tracemalloc.stop()


def test_tables_have_one_form():
    bias = ONES(2)
    network = tuned(
        {
            np.int64(8): {
                "linear": StepParameters(),
                "fire": StepParameters(v_init=1),
                "conv": StepParameters(bias=bias),
            }
        }
    )
    bias[:] = 7
    assert [type(T) for T in network.step_parameters] == [int] and list(network.step_parameters[8]) == [
        "conv",
        "fire",
    ]
    assert (
        network.step_parameters[8]["conv"].bias.tolist() == [1, 1]
        and network.step_parameters[8]["conv"].bias.dtype == np.float32
    )
    with pytest.raises(ValueError, match="read-only"):
        network.step_parameters[8]["conv"].bias[0] = 2
    with pytest.raises(TypeError):
        network.step_parameters[4] = {}
    with pytest.raises(TypeError):
        del network.step_parameters[8]["conv"]
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), network.replace(n_steps=5)):
        assert repr(copied.step_parameters) == repr(network.step_parameters)
    with pytest.raises(NetworkError, match="there is no such layer: got 'conv'"):
        network.replace(layers=[Input((3,)), Linear(ONES((2, 3)), name="linear"), Readout()])


def test_a_change_that_step_parameters_hide_is_refused():
    network = tuned({8: {"fire": StepParameters(v_threshold=2.0), "conv": StepParameters(bias=[5, 6])}})

    def with_(source, name, **fields):
        return [
            dataclasses.replace(layer, **fields) if layer.name == name else layer for layer in source.layers
        ]

    for name, fields in (
        ("fire", {"v_threshold": 9.0}),
        ("conv", {"bias": ONES(2) * 3}),
        ("conv", {"bias": None}),
    ):
        where = f"layer '{name}': its {next(iter(fields))} is changed, but the step parameters of T = 8"
        with pytest.raises(NetworkError, match=where) as caught:
            network.replace(layers=with_(network, name, **fields))
        assert "net.at(8)" in str(caught.value)
        assert (
            network.replace(layers=with_(network, name, **fields), step_parameters={}).step_parameters == {}
        )
        network.at(8).replace(layers=with_(network.at(8), name, **fields))
    other = network.replace(layers=with_(network, "fire", v_init=0.25))  # the T of no table changes it
    assert other.at(8).by_name["fire"].v_init == 0.25
