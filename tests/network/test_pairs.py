"""Pairs of neurons (`IF.negative_slope`): what a network may be made of, and what it computes."""

from __future__ import annotations

import numpy as np
import pytest

import evsnn
from evsnn import IF, AvgPool2d, Concat, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout
from evsnn.circuit.build import build_circuit, pair_bytes
from evsnn.errors import NetworkError
from evsnn.network.inventory import layer_facts

RNG = np.random.default_rng(5)
WIDE, DEEP = RNG.normal(size=(6, 4)), RNG.normal(size=(3, 6))


def network(**options):
    return Network(
        [Input((4,)), Linear(WIDE, RNG.normal(size=6)), IF(name="a", **options), Linear(DEEP), Readout()]
    )


def test_outputs_are_those_of_a_leaky_relu():
    slope = np.array([1, 0.1, 0.25, -1, 0, 2])
    net = network(v_threshold=16, negative_slope=slope).replace(shift="bias")
    x = RNG.normal(size=(20, 4)).astype(np.float32)
    current = x @ WIDE.T + net.layers[1].bias
    assert (current > 0).any() and (current < 0).any() and np.abs(current).max() < 16
    expected = np.where(current > 0, current, slope * current) @ DEEP.T
    got = evsnn.simulate(net, x, n_steps=2048).outputs
    step = 16 / 2048 * np.maximum(1, np.abs(slope))  # a spike more or less of each value
    assert (np.abs(got - expected) < np.abs(DEEP) @ step).all()


def test_pairs_equal_twice_the_channels():
    """The circuit is the one of a network that has a channel for each sign, to the bit."""
    slope, bias = RNG.uniform(0.1, 1, 6).astype(np.float32), RNG.normal(size=6).astype(np.float32)
    v, v_init = RNG.uniform(0.5, 1, (2, 6)), RNG.normal(size=(2, 6)) / 9
    weight = RNG.normal(size=(6, 2, 3, 3)).astype(np.float32)
    head = RNG.normal(size=(3, 6)).astype(np.float32)
    options = {"v_threshold": v, "v_init": v_init, "negative_threshold": 0.1}
    pairs = Network(
        [
            Input((2, 5, 5)),
            Conv2d(weight, bias),
            IF(negative_slope=slope, **options),
            AvgPool2d(),
            Flatten(),
            Linear(head),
            Readout(),
        ],
        shift="bias",
        input_range=(0, 1),
    )
    ones = np.array([1, -1], np.float32)
    twice = Network(
        [
            Input((2, 5, 5)),
            Conv2d(
                (weight[:, None] * ones[:, None, None, None]).reshape(12, 2, 3, 3),
                np.outer(bias, ones).ravel(),
            ),
            IF(**options | {"v_threshold": v.T.ravel(), "v_init": v_init.T.ravel()}),
            AvgPool2d(),
            Flatten(),
            Linear(np.stack([head, -slope * head], 2).reshape(3, 12)),
            Readout(),
        ],
        shift="bias",
        input_range=(0, 1),
    )
    images = RNG.random((3, 2, 5, 5), np.float32)
    for arithmetic in ("float32", "int8"):
        a, b = (
            evsnn.simulate(net, images, n_steps=16, arithmetic=arithmetic, record=("spikes", "v_mem"))
            for net in (pairs, twice)
        )
        assert np.array_equal(a.layers[0].spikes, b.layers[0].spikes)
        assert np.array_equal(a.layers[0].v_mem, b.layers[0].v_mem)
        # the slope meets the amplitude before the weight: the readout's weights may differ in the last bit
        assert np.allclose(a.outputs, b.outputs, rtol=1e-5, atol=1e-6)


def test_sizes_count_both_neurons():
    facts = {f.name: f for f in layer_facts(network(negative_slope=1.0))}
    assert (facts["a"].n_neurons, facts["a"].shape, facts["a"].label) == (12, (6,), "if, both signs")
    assert build_circuit(network(negative_slope=1.0)).populations[0].shape == (12, 1, 1)
    assert layer_facts(network(negative_slope=[0.5, 1] * 3))[2].label == "if, negative slope 0.5 to 1"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"v_threshold": np.ones((2, 6))}, "v_threshold is for pairs of neurons"),
        ({"v_init": np.ones((2, 6))}, "v_init is for pairs of neurons"),
        ({"negative_slope": [1.0, 2.0]}, "negative_slope and input do not fit: got 2 values"),
        ({"negative_slope": np.ones((2, 6))}, "negative_slope has the wrong rank"),
        ({"negative_slope": np.nan}, "negative_slope holds NaN or infinity"),
        ({"negative_slope": "steep"}, "negative_slope is not an array of numbers"),
        ({"negative_slope": 1e30, "v_threshold": 1e10}, "negative_slope times v_threshold could leave"),
        (
            {"negative_slope": 1, "v_threshold": np.ones((3, 6))},
            r"v_threshold and input do not fit.*\(2, 6\)",
        ),
        ({"negative_slope": 1, "v_threshold": [[1.0] * 6, [0.0] * 6]}, "v_threshold is not positive"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(NetworkError, match=message):
        network(**options)


@pytest.mark.parametrize(
    "behind, message",
    [
        ([MaxPool2d(2), Conv2d(np.ones((2, 2, 1, 1)))], "a max pool reads values that are never below 0"),
        (
            [Concat(inputs=("pairs", "single")), Conv2d(np.ones((4, 1, 1, 1)), groups=4)],
            "groups read pairs of neurons beside single ones",
        ),
    ],
)
def test_layers_that_cannot_read_pairs_say_so(behind, message):
    layers = [
        Input((2, 4, 4), name="x"),
        Conv2d(np.ones((2, 2, 1, 1)), name="c"),
        IF(name="single", inputs=("c",)),
        Conv2d(np.ones((2, 2, 1, 1)), name="d", inputs=("x",)),
        IF(name="pairs", negative_slope=1, inputs=("d",)),
    ]
    with pytest.raises(NetworkError, match=message):
        Network([*layers, *behind, AvgPool2d(), Flatten(), Readout()])


def test_a_readout_of_spikes_reads_single_neurons():
    layers = [Input((4,)), Linear(WIDE), IF(negative_slope=1), Readout()]
    with pytest.raises(NetworkError, match="readout 'spikes' counts single neurons"):
        Network(layers, readout="spikes")
    with pytest.raises(NetworkError, match="readout 'membrane' needs a weighted layer"):
        Network(layers)


def test_files_and_step_parameters_hold_pairs(tmp_path):
    slope = RNG.uniform(0.1, 1, 6)
    net = network(v_threshold=RNG.uniform(0.5, 1, (2, 6)), negative_slope=slope).replace(
        step_parameters={
            4: {"a": evsnn.StepParameters(v_threshold=RNG.uniform(0.5, 1, (2, 6)))},
            8: {"a": evsnn.StepParameters(v_init=0.25)},
        }
    )
    evsnn.save(tmp_path / "net.h5", net)
    again = evsnn.load(tmp_path / "net.h5")
    for T in (4, 8):
        for what in ("v_threshold", "v_init", "negative_slope"):
            assert np.array_equal(
                getattr(again.at(T).by_name["a"], what), getattr(net.at(T).by_name["a"], what)
            )
    x = RNG.random((5, 4), np.float32)
    assert np.array_equal(
        evsnn.simulate(net, x, n_steps=4).outputs, evsnn.simulate(again, x, n_steps=4).outputs
    )
    with pytest.raises(NetworkError, match=r"step parameters of T = 4.*v_threshold and input do not fit"):
        net.replace(step_parameters={4: {"a": evsnn.StepParameters(v_threshold=np.ones((2, 5)))}})


def test_weights_that_are_made_for_pairs_are_foreseen():
    """Rows before them and columns behind them, also through sums."""
    layers = [
        Input((4,), name="x"),
        Linear(WIDE, name="a"),
        IF(negative_slope=1, name="p"),
        Linear(np.ones((6, 6)), name="b"),
        evsnn.Add(inputs=("b", "p"), name="s"),
        IF(negative_slope=1, name="q", inputs=("s",)),
        Linear(DEEP),
        Readout(),
    ]
    network = Network(layers)
    made = sum(
        s.weight.nbytes
        for p in build_circuit(network).populations
        for s in (*p.projections, *p.analog_projections)
        if s.label == "linear"
    )
    both = 2 * 36 * 4 * 2  # columns of "b" twice, and then once more with its rows
    assert pair_bytes(network) == 2 * 24 * 4 + both + 2 * 36 * 4 + 2 * 18 * 4
    assert made == 2 * 24 * 4 + both + 2 * 18 * 4
    assert pair_bytes(network.replace(layers=[layers[0], Linear(WIDE), Readout()])) == 0
