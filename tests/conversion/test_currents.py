"""The dense simulation that corrections are made by: the spikes of evsnn's own simulators where sums are
exact, and corrections that only ever help.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from generate import networks
from hypothesis import HealthCheck, assume, given, settings

import evsnn
from evsnn import IF, Add, AvgPool2d, Concat, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout
from evsnn.arguments import RECORDS
from evsnn.circuit.build import build_circuit
from evsnn.conversion.balance import correction
from evsnn.conversion.balance.correction import Correction, correct, samples_that_fit
from evsnn.conversion.lowering.ann import Ann, forward

SETTINGS = settings(
    deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), max_examples=100
)


def powers_of_two(values):
    """The nearest powers of two, by the exponent."""
    return 2.0 ** np.round(np.log2(values))


def in_eighths(values):
    return np.round(8 * np.asarray(values)) / 8


def exact(network):
    """The network with parameters near its own whose sums are exact in float32, in any order."""
    layers = []
    for layer in network.layers:
        if isinstance(layer, (Conv2d, Linear)):
            weight = layer.weight * np.sqrt(layer.weight[0].size)
            few = np.sign(weight) * (np.abs(weight) > min(2.0, 0.4 * layer.weight[0].size ** 0.25)) / 2
            layer = dataclasses.replace(
                layer, weight=few, bias=None if layer.bias is None else in_eighths(layer.bias)
            )
        elif isinstance(layer, IF):
            layer = dataclasses.replace(
                layer,
                v_threshold=powers_of_two(layer.v_threshold),
                v_init=in_eighths(layer.v_init),
                leak=1.0 if layer.leak == 1 else 0.5,
            )
        layers.append(layer)
    return network.replace(layers=layers)


def dense(network, images, monkeypatch, targets=None):
    """Spikes (n, n_steps, ...) of all populations and pools as `correct` simulates them, and corrections."""
    circuit, spikes = build_circuit(network), {}
    fire, pooled = correction.fire, correction.pooled

    def kept(population, trains):
        spikes[population.name] = np.array(trains).reshape(
            len(images), circuit.n_steps, *population.output_shape
        )
        return trains

    def firing(population, currents, bias, trains, per_send):
        counts = fire(population, currents, bias, trains, per_send)
        assert np.array_equal(counts, trains.sum(axis=1))
        kept(population, trains)
        return counts

    monkeypatch.setattr(correction, "fire", firing)
    monkeypatch.setattr(
        correction, "pooled", lambda pool, trains, n_steps: kept(pool, pooled(pool, trains, n_steps))
    )
    corrections = correct(circuit, images.reshape(len(images), *circuit.input_shape), targets or {})
    monkeypatch.undo()
    return spikes, corrections


def assert_dense_equals(network, images, monkeypatch, **options):
    """Spikes, and the readout's mean output."""
    result = evsnn.simulate(network, images, record=RECORDS, **options)
    last = network.layers[-1].name
    targets = (
        {last: np.zeros((len(images), network.n_classes, 1, 1), np.float32)}
        if network.readout == "membrane"
        else {}
    )
    spikes, corrections = dense(network, images, monkeypatch, targets)
    for layer in result.layers:
        if layer.fires:
            assert np.array_equal(spikes.pop(layer.name), layer.spikes), layer.name
    assert not spikes
    if targets:
        np.testing.assert_allclose(
            corrections[last].bias, -result.outputs.mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-6
        )
    return result


@pytest.mark.slow
@given(networks(encodings=("constant",), small=True, max_layers=4))
@SETTINGS
def test_spikes_of_random_networks(case):
    network, images = case
    areas = [
        s.pool.area
        for p in build_circuit(network).populations
        if hasattr(p, "projections")
        for projection in p.projections
        for s in projection.sources
        if s.pool
    ]
    assume(network.n_steps != 5 and all(area & (area - 1) == 0 for area in areas))
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert_dense_equals(
            exact(network), in_eighths(images).astype(np.float32), monkeypatch, backend="reference"
        )


def every_path(shift="initial", negative_threshold=0.25, readout="membrane", leak=1.0, c=6):
    """Both kinds of pools, all kinds of convolutions, shortcuts and concatenation, around analog currents."""
    rng = np.random.default_rng(4)

    def normal(*shape):
        return 2 * rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))

    return exact(
        Network(
            [
                Input((2, 8, 4), name="x"),
                Conv2d(normal(c, 2, 3, 3), normal(c, 1)[:, 0], padding=1),
                IF(rng.uniform(0.3, 1.2, c), rng.uniform(0, 0.5, c), name="a"),
                Conv2d(normal(c, c, 1, 1)),
                IF(0.5, warm_up_steps=1, name="u"),
                MaxPool2d(3, 1, 1, inputs="a", name="m"),
                Conv2d(normal(c, 2, 1, 1), inputs="x", name="analog"),
                Conv2d(normal(c, 1, 3, 3), padding=1, groups=c, inputs="a", name="b"),
                Conv2d(
                    normal(c, c // 2, 3, 3), padding=(1, 2), dilation=(1, 2), groups=2, inputs="u", name="g"
                ),
                Add(inputs=("b", "g", "a", "analog")),
                IF(
                    rng.uniform(0.3, 1.2, c),
                    1.0,
                    leak,
                    negative_threshold=negative_threshold,
                    warm_up_steps=2,
                    name="d",
                ),
                AvgPool2d(2, name="p"),
                AvgPool2d((2, 4), 1, (1, 0), inputs="d", name="r"),
                Concat(inputs=("u", "m", "d"), name="j"),
                Conv2d(normal(5, 3 * c, 2, 2), stride=2),
                IF(0.5, 2.0, negative_threshold=negative_threshold, name="e"),
                Flatten(name="s"),
                MaxPool2d((2, 3), 2, (1, 0, 0, 1), inputs="d"),
                Flatten(name="t"),
                Flatten(inputs="p", name="q"),
                Flatten(inputs="r", name="v"),
                Concat(inputs=("s", "t", "q", "v"), name="w"),
                Linear(normal(33, 5 * 8 + c * (4 * 2 + 4 * 2 + 9))),
                IF(0.5, name="f"),
                AvgPool2d(inputs="e", name="whole"),
                Conv2d(normal(33, 5, 1, 1)),
                Flatten(name="y"),
                Linear(normal(33, 33), inputs="f", name="z"),
                Add(inputs=("y", "z", "f")),
                IF(1.0, shift=False, name="h"),
                Linear(normal(3, 33), [0.5, -1, -2]),
                *(
                    [IF(0.5, 3.0, negative_threshold=negative_threshold, name="o")]
                    if readout == "spikes"
                    else []
                ),
                Readout(),
            ],
            n_steps=8,
            shift=shift,
            readout=readout,
        )
    )


IMAGES = in_eighths(np.random.default_rng(5).random((3, 2, 8, 4))).astype(np.float32)


@pytest.mark.parametrize(
    "shift, negative_threshold, readout, leak",
    [
        ("initial", 0.25, "membrane", 1.0),
        ("bias", 0.25, "spikes", 1.0),
        ("none", 0.0, "membrane", 0.5),
        ("bias", 0.0, "membrane", 1.0),
    ],
)
def test_spikes_on_every_path(shift, negative_threshold, readout, leak, monkeypatch):
    network = every_path(shift, negative_threshold, readout, leak)
    result = assert_dense_equals(network, IMAGES, monkeypatch)
    for layer in result.layers:
        assert not layer.fires or 0.02 < (layer.spikes != 0).mean() < 0.95, layer.name
    if negative_threshold:
        assert {layer.name for layer in result.layers if layer.fires and (layer.spikes < 0).any()} >= {
            "d",
            "e",
            "maxpool2d1",
        }


def test_spikes_without_sums(monkeypatch):
    """One step, one sample, one neuron."""
    network = Network(
        [Input((1,)), Linear([[1.0]]), IF(0.5), Linear([[1.0]]), Readout()], n_steps=1, shift="none"
    )
    for value, spike in ((0.5, 1), (0.375, 0), (-9.0, 0)):
        assert dense(network, np.array([[value]], np.float32), monkeypatch)[0]["if1"].tolist() == [[[spike]]]


# Corrections


def plain(n_steps=8, shift="none", rng_seed=6):
    """A chain whose first layer has no shift: its rates are too low by half a spike."""
    rng = np.random.default_rng(rng_seed)
    return Network(
        [
            Input((2, 6, 6)),
            Conv2d(rng.normal(size=(5, 2, 3, 3)) / 3, rng.normal(size=5) / 4, padding=1),
            IF(1.0, name="a"),
            Conv2d(rng.normal(size=(4, 5, 3, 3)) / 4, rng.normal(size=4) / 4),
            IF(0.7, name="b"),
            Flatten(),
            Linear(rng.normal(size=(3, 64)) / 8),
            Readout(name="out"),
        ],
        n_steps=n_steps,
        shift=shift,
    )


SAMPLES = np.random.default_rng(7).random((12, 2, 6, 6), dtype=np.float32)


def activations(network, images):
    """The ANN's, by name, as maps."""
    found = {}
    forward(
        Ann(network),
        images,
        observe=lambda name, current, a: found.update({name: a.reshape(*a.shape, *(1,) * (4 - a.ndim))}),
    )
    return found


def with_bias(network, biases):
    """The network with more bias in the layers before those named."""
    layers = {layer.name: layer for layer in network.layers}
    for name, bias in biases.items():
        source = layers[layers[name].inputs[0]]
        layers[source.name] = dataclasses.replace(
            source, bias=(0 if source.bias is None else source.bias.astype(np.float64)) + bias
        )
    return network.replace(layers=list(layers.values()))


def squared_errors(network, name, targets):
    """Of every channel of a layer of neurons, by evsnn's own engine."""
    counts = next(
        layer for layer in evsnn.simulate(network, SAMPLES, record=RECORDS).layers if layer.name == name
    ).spike_counts
    difference = targets[name] - network.by_name[name].v_threshold / network.n_steps * counts
    return np.square(difference).mean(axis=(0, 2, 3))


@pytest.mark.parametrize("n_steps", [1, 4, 16])
@pytest.mark.parametrize("shift", ["none", "bias"])
def test_corrections_lower_every_channel_s_error(n_steps, shift):
    network = plain(n_steps, shift)
    targets = activations(network, SAMPLES)
    corrections = correct(build_circuit(network), SAMPLES, targets)
    assert list(corrections) == ["a", "b", "out"]
    corrected = network
    for name in ("a", "b"):  # each is corrected behind the corrected layers before it
        before, bias = squared_errors(corrected, name, targets), corrections[name].bias
        corrected = with_bias(corrected, {name: bias})
        after = squared_errors(corrected, name, targets)
        assert (after[bias != 0] < before[bias != 0]).all() and np.array_equal(
            after[bias == 0], before[bias == 0]
        )
        np.testing.assert_allclose(
            [corrections[name].error_before, corrections[name].error_after],
            [np.sqrt(before.mean()), np.sqrt(after.mean())],
            rtol=1e-4,
        )
        assert shift == "bias" or n_steps == 1 or (after < 0.9 * before).any()


def test_the_readout_s_mean_error_becomes_zero():
    network = plain()
    targets = activations(network, SAMPLES)
    corrections = correct(build_circuit(network), SAMPLES, targets)
    outputs = evsnn.simulate(
        with_bias(network, {"a": corrections["a"].bias, "b": corrections["b"].bias}), SAMPLES
    ).outputs
    difference = targets["out"][:, :, 0, 0] - outputs
    assert np.abs(difference.mean(axis=0)).max() > 0.01
    np.testing.assert_allclose(corrections["out"].bias, difference.mean(axis=0), rtol=1e-4, atol=1e-6)
    assert corrections["out"].error_before == pytest.approx(np.sqrt(np.square(difference).mean()), rel=1e-4)
    assert corrections["out"].error_after == pytest.approx(np.sqrt(difference.var(axis=0).mean()), rel=1e-4)
    outputs = evsnn.simulate(
        with_bias(network, {name: c.bias for name, c in corrections.items()}), SAMPLES
    ).outputs
    np.testing.assert_allclose(outputs.mean(axis=0), targets["out"][:, :, 0, 0].mean(axis=0), atol=1e-5)


def test_nothing_is_corrected_where_nothing_is_wrong(monkeypatch):
    network = every_path()
    result = evsnn.simulate(network, IMAGES, record=RECORDS)
    targets = {}
    for layer in result.layers:
        if layer.name in network.by_name and isinstance(network.by_name[layer.name], IF):
            v = np.asarray(network.by_name[layer.name].v_threshold)
            counts = layer.spike_counts.reshape(
                len(IMAGES), layer.spike_counts.shape[1], *(layer.spike_counts.shape[2:] or (1, 1))
            )
            targets[layer.name] = (v.reshape(-1, 1, 1) / 8 * counts).astype(np.float32)
    targets["readout1"] = result.outputs[:, :, None, None]
    spikes, corrections = dense(network, IMAGES, monkeypatch, targets)
    assert corrections.keys() == targets.keys() and len(targets) == 7
    for name, found in corrections.items():
        np.testing.assert_allclose(found.bias, 0, atol=1e-6, err_msg=name)
        assert name == "readout1" or (not found.bias.any() and found.error_before == found.error_after == 0)
    for layer in result.layers:
        assert not layer.fires or np.array_equal(spikes[layer.name], layer.spikes), layer.name


def test_a_constant_offset_is_found_exactly():
    """Rates that are a multiple of one spike too low, and neurons that may follow."""
    network = Network(
        [Input((3,)), Linear(np.eye(3)), IF(1.0, name="n"), Linear(np.eye(3)), Readout()],
        n_steps=8,
        shift="none",
    )
    images = (np.array([[1, 2, 3], [2, 3, 4], [3, 4, 5]]) / 8).astype(np.float32)
    targets = {"n": images[:, :, None, None] + np.array([0.0, 0.25, -0.125], np.float32)[:, None, None]}
    found = correct(build_circuit(network), images[:, :, None, None], targets)["n"]
    assert found.bias.tolist() == [0, 0.25, -0.125] and found.error_after == 0
    assert found.error_before == pytest.approx(np.sqrt((0.25**2 + 0.125**2) / 3))


def test_half_of_the_mean_error_where_the_whole_is_too_much():
    """Three samples at 0.2 send nothing of four steps' quarters, one is saturated. The mean error is 0.35: it
    would make 0.5 of 0.2, its half makes 0.25.
    """
    network = Network(
        [Input((1,)), Linear([[1.0]]), IF(1.0, name="n"), Linear([[1.0]]), Readout()], n_steps=4, shift="none"
    )
    images, targets = (
        np.array(values, np.float32).reshape(4, 1, 1, 1)
        for values in ([0.2, 0.2, 0.2, 2.0], [0.2, 0.2, 0.2, 1.8])
    )
    found = correct(build_circuit(network), images, {"n": targets})["n"]
    assert found.bias == pytest.approx(0.175)
    assert (found.error_before, found.error_after) == pytest.approx(
        (np.sqrt((3 * 0.2**2 + 0.8**2) / 4), np.sqrt((3 * 0.05**2 + 0.8**2) / 4))
    )


def test_layers_without_a_target_are_left():
    network = plain()
    targets = activations(network, SAMPLES)
    told = []
    corrections = correct(
        build_circuit(network), SAMPLES, {"b": targets["b"]}, lambda *progress: told.append(progress)
    )
    assert (
        list(corrections) == ["b"]
        and isinstance(corrections["b"], Correction)
        and told == [(1, 3), (2, 3), (3, 3)]
    )
    assert (
        corrections["b"].bias.tolist() != correct(build_circuit(network), SAMPLES, targets)["b"].bias.tolist()
    )


def test_samples_that_fit():
    """The largest population decides: 5 bytes per neuron and step if it reads spikes, else 1."""
    circuit = build_circuit(plain())
    of_one = 5 * 4 * 4 * 4 * 8  # layer "b"; "a" has 180 neurons, but a constant current
    assert [
        samples_that_fit(circuit, 100, n)
        for n in (0, of_one - 1, of_one, 7 * of_one, 8 * of_one - 1, 1 << 40)
    ] == [0, 0, 1, 7, 7, 100]
    assert (
        samples_that_fit(circuit, 1, 1 << 40) == 1
        and samples_that_fit(build_circuit(plain(), 16), 100, 8 * of_one) == 4
    )
    pooled = Network(
        [
            Input((1, 4, 4)),
            Conv2d(np.ones((1, 1, 1, 1))),
            IF(),
            MaxPool2d((2, 2), 1, 1),
            Flatten(),
            Linear(np.ones((3, 25))),
            Readout(),
        ],
        n_steps=2,
    )
    assert samples_that_fit(build_circuit(pooled), 100, 16 * 2 * 6) == 6
