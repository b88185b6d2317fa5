"""Balancing: what becomes of thresholds, shift and corrections in the network, for one T and for several."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import evsnn
from evsnn import (
    IF,
    Add,
    AvgPool2d,
    Conv2d,
    Flatten,
    Input,
    Linear,
    ModelError,
    Network,
    Readout,
    StepParameters,
)
from evsnn.circuit.build import build_circuit
from evsnn.conversion.balance.balance import Balanced, assemble, balance, with_readout, without_data
from evsnn.conversion.balance.options import Recipe
from evsnn.conversion.balance.statistics import measure
from evsnn.conversion.balance.thresholds import thresholds
from evsnn.conversion.lowering.ann import Ann, forward

PAPER = Recipe("max", "layer", "bias")
FITTED = Recipe("mse", "channel", "initial", correction=True)
IMAGES = np.random.default_rng(0).random((24, 2, 6, 6), dtype=np.float32)


def normal(seed, *shape, scale=1.0):
    return np.random.default_rng(seed).normal(size=shape) * scale / np.sqrt(np.prod(shape[1:]))


def residual(**fields):
    """Two convolutions into one sum with a shortcut, and one that two branches read."""
    layers = [
        Input((2, 6, 6)),
        Conv2d(normal(1, 4, 2, 3, 3, scale=2), normal(2, 4, 1)[:, 0] / 4, padding=1, name="first"),
        IF(name="a"),
        Conv2d(normal(3, 4, 4, 3, 3, scale=2), [0.25, -0.5, 0, 1], padding=1, name="main"),
        Conv2d(normal(4, 4, 4, 1, 1, scale=2), [0.5, 0.5, 1, -1], inputs="a", name="side"),
        Add(inputs=("main", "side", "a"), name="sum"),
        IF(name="b"),
        Conv2d(normal(5, 4, 4, 1, 1, scale=2), name="shared"),
        IF(name="c"),
        Conv2d(normal(6, 4, 4, 1, 1, scale=2), inputs="c", name="last"),
        Add(inputs=("last", "shared")),
        IF(name="d"),
        AvgPool2d(2),
        Flatten(),
        Linear(normal(7, 3, 36), name="head"),
        Readout(name="out"),
    ]
    return Ann(Network(layers), **fields)


@pytest.fixture(scope="module")
def known():
    """An ann and its activations."""
    ann = residual()
    return ann, measure(ann, lambda: [IMAGES])


def activations(ann, images=IMAGES):
    """Every layer's, by name."""
    found = {}
    forward(ann, images, len(images), lambda name, current, activation: found.update({name: activation}))
    return found


def parameters(network):
    """All numbers that a table could change, by layer; no bias is one of zeros."""
    fields = ("v_threshold", "v_init", "negative_threshold", "warm_up_steps", "bias")
    found = {
        layer.name: {name: getattr(layer, name) for name in fields if hasattr(layer, name)}
        for layer in network.layers
    }
    return {
        layer: {
            name: np.zeros(network.shapes[layer][0]).tolist() if value is None else np.array(value).tolist()
            for name, value in own.items()
        }
        for layer, own in found.items()
    }


# The paper's own recipe


@pytest.mark.parametrize("n_steps", [4, 32])
def test_the_paper_s_recipe(known, n_steps):
    """Algorithm 1 of Deng & Gu 2021: V_th is the layer's largest activation, and V_th / 2T is added to every
    bias, at residual sums too.
    """
    ann, statistics = known
    largest = {name: float(a.max()) for name, a in activations(ann).items()}
    made = balance(ann, ann.network, statistics, PAPER, n_steps, IMAGES)
    network = assemble(ann.network, PAPER.shift, [made])
    assert not made.corrections and (network.shift, network.n_steps, dict(network.step_parameters)) == (
        "bias",
        n_steps,
        {},
    )
    biases = {
        "a": ann.network.by_name["first"].bias,
        "b": np.array([0.75, 0, 1, 0]),
        "c": np.zeros(4),
        "d": np.zeros(4),
        "out": np.zeros(3),
    }
    for population in build_circuit(network).populations:
        v, bias = largest[population.name], biases[population.name]
        if population.name == "out":
            assert population.neuron.v_threshold is None and not population.bias.any()
            continue
        assert (
            (population.neuron.v_threshold == np.float32(v)).all()
            and not population.neuron.v_init.any()
            and not population.has_negative_spikes
            and not population.neuron.warm_up_steps
        )
        np.testing.assert_allclose(population.bias, bias + v / (2 * n_steps), rtol=1e-6)


def test_a_neuron_so_balanced_quantises_its_activation(known):
    """Deng & Gu 2021, eq. 8, for the layer whose current does not change."""
    ann, statistics = known
    network = assemble(ann.network, "bias", [balance(ann, ann.network, statistics, PAPER, 8)])
    counts = (
        evsnn.simulate(network, IMAGES, record=("spike_counts",), backend="reference").layers[0].spike_counts
    )
    a, v = activations(ann)["a"].astype(np.float64), float(statistics["a"].maximum.max())
    ideal = np.clip(np.floor(a * 8 / v + 0.5), 0, 8)
    assert (counts == ideal).mean() > 0.999 and len(np.unique(counts)) == 9


# Recipes


@pytest.mark.parametrize(
    "rule, granularity", [("percentile:99", "layer"), ("mse", "channel"), ("error:3", "layer")]
)
def test_thresholds_are_the_rule_s(known, rule, granularity):
    ann, statistics = known
    limited = dataclasses.replace(ann, clips={"b": np.array([0.5, 9, 9, 9], np.float32)})
    made = balance(limited, ann.network, statistics, Recipe(rule, granularity, "initial"), 8, IMAGES)
    assert made.table.keys() == {"a", "b", "c", "d"}
    for name, step_parameters in made.table.items():
        assert np.array_equal(
            step_parameters.v_threshold,
            thresholds(statistics[name], rule, 8, granularity, limited.clips.get(name)),
        )
    assert granularity == "layer" or made.table["b"].v_threshold[0] == 0.5


def test_every_layer_but_the_first_is_delayed_and_signed(known):
    ann, statistics = known
    network = assemble(
        ann.network,
        "initial",
        [
            balance(
                ann,
                ann.network,
                statistics,
                Recipe("max", "layer", "initial", negative_threshold=0.25, warm_up_steps=3),
                8,
            )
        ],
    )
    neurons = [layer for layer in network.layers if isinstance(layer, IF)]
    assert [layer.warm_up_steps for layer in neurons] == [0, 3, 3, 3] and {
        layer.negative_threshold for layer in neurons
    } == {0.25}


def test_corrections_are_added_to_biases(known):
    ann, statistics = known
    made = balance(ann, ann.network, statistics, FITTED, 4, IMAGES)
    changed = {"a": "first", "b": "main", "c": None, "d": "last", "out": "head"}
    assert made.corrections.keys() == {name for name, layer in changed.items() if layer}
    assert made.table.keys() == {"a", "b", "c", "d", "first", "main", "last", "head"}
    for name, correction in made.corrections.items():
        layer = ann.network.by_name[changed[name]]
        assert np.array_equal(
            made.table[layer.name].bias,
            (0 if layer.bias is None else layer.bias.astype(np.float64)) + correction.bias,
        )
        assert (
            correction.error_after < correction.error_before
            if correction.bias.any()
            else correction.error_after == correction.error_before
        )
    assert all(made.corrections[name].bias.any() for name in ("b", "d", "out"))


def test_a_layer_that_two_branches_read_is_never_changed(known):
    """Its bias would reach both; a shortcut's neurons have none."""
    ann, statistics = known
    for rule in ("max", "mse", "error:3"):
        for n_steps in (2, 16):
            made = balance(
                ann, ann.network, statistics, dataclasses.replace(FITTED, rule=rule), n_steps, IMAGES
            )
            assert not {"shared", "side"} & made.table.keys() and "c" not in made.corrections


def test_neurons_charged_by_a_shared_layer_alone_keep_their_error():
    layers = [
        Input((2, 6, 6)),
        Conv2d(normal(1, 4, 2, 3, 3), name="shared"),
        IF(name="a"),
        Add(inputs=("a", "shared")),
        IF(name="b"),
        Flatten(),
        Linear(normal(2, 3, 64), name="head"),
        Readout(name="out"),
    ]
    ann = Ann(Network(layers))
    made = balance(ann, ann.network, measure(ann, lambda: [IMAGES]), FITTED, 4, IMAGES)
    assert made.corrections.keys() == {"out"} and made.table.keys() == {"a", "b", "head"}


@pytest.mark.parametrize("samples", [None, IMAGES[:0]])
def test_nothing_is_corrected_without_samples(known, samples):
    ann, statistics = known
    made = balance(ann, ann.network, statistics, FITTED, 4, samples)
    assert not made.corrections and made.table.keys() == {"a", "b", "c", "d"}


def test_nothing_is_corrected_where_memory_allows_hardly_a_sample(known, monkeypatch):
    ann, statistics = known
    for allowed, given, corrected in ((3, 24, False), (4, 24, True), (3, 3, True), (0, 24, False)):
        monkeypatch.setattr(
            "evsnn.conversion.balance.balance.samples_that_fit",
            lambda circuit, n_samples, allowed=allowed: min(allowed, n_samples),
        )
        assert bool(balance(ann, ann.network, statistics, FITTED, 4, IMAGES[:given]).corrections) == corrected


def test_corrections_bring_the_network_nearer_to_its_ann(known):
    ann, statistics = known
    scores = forward(ann, IMAGES)
    errors = []
    for correction in (False, True):
        made = balance(
            ann, ann.network, statistics, dataclasses.replace(FITTED, correction=correction), 4, IMAGES
        )
        outputs = evsnn.simulate(
            assemble(ann.network, "initial", [made]), IMAGES, backend="reference"
        ).outputs
        errors.append(np.abs((outputs - scores).mean(axis=0)).max())
    assert errors[1] < 1e-4 < errors[0]


def test_neurons_that_fire_by_the_clock_keep_their_threshold(known):
    """Of a border: they fire at every step or never; a threshold, theta or delay would break the clock."""
    ann, statistics = known
    fixed = dataclasses.replace(ann, fixed=frozenset({"c"}))
    recipe = Recipe("max", "channel", "initial", correction=True, negative_threshold=0.25, warm_up_steps=2)
    made = balance(fixed, ann.network, statistics, recipe, 8, IMAGES)
    network = assemble(ann.network, "initial", [made])
    assert "c" not in made.table and "c" not in made.corrections and made.table.keys() >= {"a", "b", "d"}
    neurons = network.by_name["c"]
    assert (neurons.v_threshold.tolist(), neurons.negative_threshold, neurons.warm_up_steps) == (
        1,
        0,
        0,
    ) and network.by_name["d"].warm_up_steps == 2


# Networks


def test_one_number_of_steps_has_no_tables(known):
    ann, _ = known
    table = {
        "a": StepParameters(
            v_threshold=np.array([0.1, 0.2, 0.3, 0.4]), negative_threshold=0.5, warm_up_steps=0
        ),
        "main": StepParameters(bias=[1.0, 2.0, 3.0, 4.0]),
    }
    network = assemble(ann.network, "initial", [Balanced(6, FITTED, table)])
    assert (network.shift, network.n_steps, dict(network.step_parameters)) == ("initial", 6, {})
    expected = parameters(ann.network)
    expected["a"] |= {
        "v_threshold": np.array([0.1, 0.2, 0.3, 0.4], np.float32).tolist(),
        "negative_threshold": 0.5,
    }
    expected["main"]["bias"] = [1, 2, 3, 4]
    assert parameters(network) == expected
    assert all(
        np.shares_memory(layer.weight, ann.network.by_name[layer.name].weight)
        for layer in network.layers
        if hasattr(layer, "weight")
    )


def test_several_numbers_of_steps_are_each_as_if_alone(known):
    """Also where one recipe corrects biases and another does not: none may leak from the first."""
    ann, statistics = known
    recipes = {
        8: FITTED,
        2: dataclasses.replace(FITTED, negative_threshold=0.25, warm_up_steps=1),
        32: Recipe("max", "layer", "initial"),
        64: dataclasses.replace(FITTED, rule="error:3"),
    }
    made = {
        n_steps: balance(ann, ann.network, statistics, recipe, n_steps, IMAGES)
        for n_steps, recipe in recipes.items()
    }
    for order in ([8, 2, 32, 64], [32, 64, 8, 2]):
        network = assemble(ann.network, "initial", [made[n_steps] for n_steps in order])
        assert network.n_steps == order[0] and list(network.step_parameters) == [2, 8, 32, 64]
        assert parameters(network) == parameters(network.at(order[0]))
        for n_steps in order:
            alone = assemble(ann.network, "initial", [made[n_steps]])
            assert parameters(network.at(n_steps)) == parameters(alone), n_steps
            outputs = [
                evsnn.simulate(net, IMAGES[:2], n_steps=n_steps, backend="reference").outputs
                for net in (network, alone)
            ]
            assert np.array_equal(*outputs), n_steps


def test_membranes_are_read_as_they_are(known):
    ann, _ = known
    assert with_readout(ann, "membrane").layers == ann.network.layers


@pytest.mark.slow
def test_spikes_are_read_from_neurons_of_their_own(known):
    ann, statistics = known
    network = with_readout(ann, "spikes")
    *before, scores, readout = network.layers
    assert tuple(before) == ann.network.layers[:-1] and network.readout == "spikes"
    assert (scores.kind, scores.name, scores.inputs, scores.shift, readout.inputs, readout.name) == (
        "if",
        "scores",
        ("head",),
        False,
        ("scores",),
        "out",
    )
    made = balance(
        ann,
        network,
        statistics,
        Recipe("mse", "channel", "initial", correction=True, negative_threshold=0.25, warm_up_steps=2),
        64,
        IMAGES,
    )
    step_parameters = made.table["scores"]
    assert (
        step_parameters.v_threshold,
        step_parameters.negative_threshold,
        step_parameters.warm_up_steps,
    ) == (
        forward(ann, IMAGES).max(),
        0,
        0,
    ) and "head" not in made.table
    result = evsnn.simulate(assemble(network, "initial", [made]), IMAGES, backend="reference")
    scores = np.maximum(forward(ann, IMAGES), 0)
    assert np.abs(result.outputs - scores).max() < 0.1 * scores.max()


def test_a_name_that_is_taken():
    layers = [Input((2,)), Linear(np.eye(2), name="scores"), IF(name="scores_"), Linear(np.eye(2)), Readout()]
    assert [layer.name for layer in with_readout(Ann(Network(layers)), "spikes").layers][-2:] == [
        "scores__",
        "readout1",
    ]


def test_spikes_need_the_scores_range(known):
    ann, statistics = known
    with pytest.raises(
        ModelError, match=r"readout 'spikes' needs the scores' range\. Give calibration samples"
    ):
        balance(
            ann,
            with_readout(ann, "spikes"),
            {name: a for name, a in statistics.items() if name != "out"},
            PAPER,
            8,
        )


# Without data


MOMENTS = {name: (np.array([0.5, -0.5, 0.0, 1.0]), np.array([1.0, 0.5, 2.0, 0.25])) for name in "abcd"}


def test_limits_are_thresholds_without_data():
    ann = residual(
        clips={name: np.array(1.5, np.float32) for name in "abc"} | {"d": np.array([1, 2, 3, 4], np.float32)}
    )
    found = without_data(ann)
    assert found.keys() == {"a", "b", "c", "d"} and all(len(a.maximum) == 4 for a in found.values())
    made = balance(ann, ann.network, found, Recipe("max", "channel", "bias"), 8)
    assert all((made.table[name].v_threshold == 1.5).all() for name in "abc") and made.table[
        "d"
    ].v_threshold.tolist() == [1, 2, 3, 4]
    assert balance(ann, ann.network, found, PAPER, 8).table["d"].v_threshold.tolist() == [1, 2, 3, 4]


def test_batch_norms_are_statistics_without_data():
    ann = residual(moments=MOMENTS, clips={"d": np.array(0.75, np.float32)})
    found = without_data(ann)
    assert found["a"].maximum.tolist() == [6.5, 2.5, 12, 2.5] and found["d"].maximum.tolist() == [0.75] * 4
    sample = np.maximum(
        np.array([0.5, -0.5, 0.0, 1.0])
        + np.array([1.0, 0.5, 2.0, 0.25]) * np.random.default_rng(1).normal(size=(50_000, 4)),
        0,
    )
    for n_steps in (4, 16):
        v = (
            balance(ann, ann.network, found, Recipe("mse", "channel", "initial"), n_steps)
            .table["a"]
            .v_threshold
        )

        def error(v, n_steps=n_steps):
            return np.square(
                v / n_steps * np.clip(np.floor(sample * n_steps / v + 0.5), 0, n_steps) - sample
            ).sum(axis=0)

        assert (
            error(v)
            <= 1.05 * np.min([error(share * sample.max(axis=0)) for share in np.linspace(0.1, 1, 46)], axis=0)
        ).all()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"moments": {"a": MOMENTS["a"], "c": MOMENTS["c"], "d": MOMENTS["d"]}},
        {"moments": {n: MOMENTS[n] for n in "acd"}, "clips": {"b": np.array([1, 1, np.inf, 1])}},
    ],
)
def test_layers_of_which_nothing_is_known_are_refused(fields):
    name = "b" if fields else "a"
    with pytest.raises(
        ModelError,
        match=(
            rf"layer '{name}': nothing is known of this layer's activations\. Give calibration samples;"
            r" thresholds without data need Clip\(0, y\) or"
        ),
    ):
        without_data(residual(**fields))
