"""Graded spikes: naive simulator, reference and integers agree; integers are steps with a warm-up of T."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from generate import Seeded, made
from naive import Naive

import evsnn
from evsnn import (
    IF,
    Conv2d,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    Network,
    NetworkError,
    Readout,
    RunError,
)
from evsnn.circuit import reference
from evsnn.circuit.build import build_circuit
from evsnn.circuit.encoding import check_images, encode
from evsnn.circuit.quantized import quantize

SIZES = np.array([[1.0, -0.5], [0.25, 2.0], [-1.0, 1.0]])


def random_network(seed, **options):
    """A network without leaks, its images encoded, and the same network with warm-ups of T."""
    network, images = made(Seeded(seed), small=True, max_layers=4, pairs=True)
    network = changed(network, leak=1.0, negative_threshold=0.0, warm_up_steps=0)
    T = network.n_steps
    checked = check_images(network, images, T)
    inputs = np.stack([encode(network, image, T, 0, i) for i, image in enumerate(checked)])
    return network, inputs, changed(network, warm_up_steps=T)


def changed(network, **fields):
    layers = [
        dataclasses.replace(layer, **fields) if isinstance(layer, IF) else layer for layer in network.layers
    ]
    return network.replace(layers=layers)


@pytest.mark.parametrize("first", range(0, 2000, 500))
@pytest.mark.slow
def test_integers_are_those_of_a_warm_up(first):
    for seed in range(first, first + 500):
        check_integers(seed)


def test_a_few_integers_are_those_of_a_warm_up():
    for seed in range(40):
        check_integers(seed)


def check_integers(seed):
    """Count for count, membrane for membrane, in integers of the same width and with the same bounds."""
    network, inputs, warmed = random_network(seed)
    T = network.n_steps
    graded, steps = quantize(network, T, coding="graded"), quantize(warmed, T)
    assert graded.widths == steps.widths and graded.bounds == steps.bounds
    inputs = graded.encode(inputs) if graded.circuit.analog else inputs
    for p, a, b in zip(
        graded.circuit.populations,
        reference.run(graded.circuit, inputs),
        reference.run(steps.circuit, inputs),
    ):
        assert np.array_equal(a.spikes[:, 0], b.spikes.sum(axis=1, dtype=int)), (seed, p.name)
        assert a.v_mem is None or np.array_equal(a.v_mem, b.v_mem), (seed, p.name)


@pytest.mark.parametrize("seed", range(30))
def test_reference_equals_naive(seed):
    network, inputs, _ = random_network(seed)
    if seed % 2:
        network = with_levels(network, seed)
    circuit = build_circuit(network, network.n_steps, coding="graded")
    traces = reference.run(circuit, inputs[:1])
    naive = Naive(network, inputs[0].reshape(-1, *network.input_shape)[..., :], network.n_steps, graded=True)
    if network.input.encoding == "constant":
        naive.image = inputs[0].reshape(network.input_shape)
    sent, membranes = naive.run()
    found = {}
    for p, trace in zip(circuit.populations, traces):
        if p.fires:
            found.setdefault(p.name.split("[")[0], []).append(trace.spikes[0, 0].reshape(p.shape))
        if trace.v_mem is not None:
            assert np.array_equal(trace.v_mem[0].ravel(), membranes[p.name].ravel()), p.name
    for name, parts in found.items():
        assert np.array_equal(np.concatenate(parts).ravel(), sent[name][0].ravel()), name


def with_levels(network, seed):
    """The network with other levels than T in some layers."""
    rng = np.random.default_rng(seed)
    return network.replace(
        layers=[
            dataclasses.replace(layer, levels=int(rng.integers(1, 40)))
            if isinstance(layer, IF) and rng.random() < 0.7
            else layer
            for layer in network.layers
        ]
    )


@pytest.mark.parametrize("seed", range(1, 60, 2))
def test_bounds_hold_for_any_levels(seed):
    """Membranes before and behind the reset, of inputs at the ends of their range."""
    network, inputs, _ = random_network(seed)
    integers = quantize(with_levels(network, seed), coding="graded")
    if integers.circuit.analog:
        inputs = np.where(inputs > inputs.mean(), integers.input_high, integers.input_low)
    traces = reference.run(integers.circuit, inputs)
    for p, trace, bounds in zip(integers.circuit.populations, traces, integers.bounds):
        if trace.v_mem is None:
            continue
        before = trace.v_mem
        if p.fires:
            before = before + trace.spikes[:, 0].astype(np.int64) * p.neuron.threshold[:, None, None]
            assert trace.spikes.max() <= p.neuron.levels
        for v in (before, trace.v_mem):
            assert bounds[0] <= v.min() and v.max() <= bounds[1]


def small(**options):
    return Network(
        [
            Input((2,)),
            Linear(SIZES),
            IF(v_threshold=1.0, v_init=0.5, **options),
            Linear(np.eye(3)),
            Readout(),
        ],
        shift="none",
        input_range=(-1, 1),
    )


def test_counts_are_those_of_equation_7():
    """clip(floor(v / V), 0, T) of the whole input, and outputs are V n / T."""
    x = np.array([[0.3, 0.1], [-0.5, 1.0], [0.9, -0.7]], np.float32)
    result = evsnn.simulate(small(), x, n_steps=8, coding="graded", record=("spike_counts",))
    counts = np.clip(np.floor(8 * (x @ SIZES.T) + 0.5), 0, 8)
    assert np.array_equal(result.layers[0].spike_counts, counts)
    assert np.array_equal(result.outputs, counts / 8)
    assert result.layers[0].n_spikes == np.count_nonzero(counts) == result.layers[1].n_events
    assert result.layers[1].sops == 3 * np.count_nonzero(counts)
    assert (result.coding, result.mean_rate) == ("graded", np.count_nonzero(counts) / counts.size)


def test_max_pools_pool_counts_and_events_are_counted():
    network = Network(
        [
            Input((1, 2, 2), "events"),
            Conv2d(np.ones((1, 1, 1, 1))),
            IF(v_threshold=1.0),
            MaxPool2d(2),
            Flatten(),
            Linear([[1.0]]),
            Readout(),
        ],
        shift="none",
    )
    events = np.zeros((1, 5, 1, 2, 2), bool)
    events[0, :3, 0, 0, 0] = events[0, 1:, 0, 1, 1] = True  # 3 and 4 spikes
    result = evsnn.simulate(network, events, n_steps=5, coding="graded", record=("spike_counts",))
    assert result.layers[0].spike_counts.ravel().tolist() == [3, 0, 0, 4]
    assert result.layers[1].spike_counts.ravel().tolist() == [4]
    assert result.outputs.ravel().tolist() == [4 / 5]


def test_negative_spikes_and_warm_ups_have_no_part():
    x = np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32)
    plain, signed = (
        evsnn.simulate(small(**options), x, n_steps=7, coding="graded").outputs
        for options in ({}, {"negative_threshold": 0.1, "warm_up_steps": 3})
    )
    assert np.array_equal(plain, signed)


@pytest.mark.parametrize(
    "options, run, message",
    [
        ({}, {"coding": "rate"}, "unknown coding: got 'rate', expected steps or graded"),
        ({}, {"n_steps": 256}, "too many levels for graded spikes: got 256, expected T from 1 to 255"),
        ({"levels": 256}, {}, "levels is out of range: got 256, expected 1 to 255"),
        (
            {"leak": 0.5},
            {},
            "layer 'if1': graded spikes have no times, so a leak has no meaning: got leak 0.5",
        ),
        ({}, {"record_steps": (2,)}, "outputs of a graded network can be recorded after its last step alone"),
        ({}, {"backend": "numba"}, "the engine does not support graded spikes"),
    ],
)
def test_what_has_no_meaning_is_refused(options, run, message):
    with pytest.raises((RunError, NetworkError), match=message):
        evsnn.simulate(small(**options), np.ones((1, 2)), **{"n_steps": 8, "coding": "graded"} | run)


def test_a_graded_run_has_no_steps():
    simulator = evsnn.Simulator(small(), 8, coding="graded")
    assert simulator.backend == "reference" and "graded" in simulator.backend_note
    with pytest.raises(RunError, match="no steps to stop at"):
        simulator.start(np.ones(2))
    with pytest.raises(RunError, match="belongs to one coding"):
        evsnn.Simulator(quantize(small(), 8), coding="graded")
    assert evsnn.Simulator(quantize(small(), 8, coding="graded")).coding == "graded"
