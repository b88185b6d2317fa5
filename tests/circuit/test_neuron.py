"""The neuron against a loop that shares nothing with it, and what every back end does with a feature it
does not know.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from networks import strange

from evsnn import IF, Conv2d, Flatten, Input, Linear, Network, Readout, RunError
from evsnn.circuit import neuron as neurons
from evsnn.circuit import quantized, reference
from evsnn.circuit.build import build_circuit
from evsnn.circuit.neuron import (
    GRADED,
    LEAK,
    NEGATIVE_SPIKES,
    NEURON_FEATURES,
    WARM_UP,
    Membranes,
    Neuron,
    require,
)
from evsnn.circuit.populations import Population
from evsnn.circuit.quantized import quantize
from evsnn.digest import digest
from evsnn.engine import plan as planning
from evsnn.engine.plan import components, plan

STEP_FEATURES = NEURON_FEATURES - {GRADED}
COMBINATIONS = [
    frozenset(names) for n in range(4) for names in itertools.combinations(sorted(STEP_FEATURES), n)
]


def made(features, dtype, channels=5, seed=0) -> Neuron:
    """Neurons with exactly these features."""
    rng = np.random.default_rng(seed)
    whole = (
        (lambda v: v.astype(np.float32))
        if dtype == np.float32
        else (lambda v: np.rint(8 * v).astype(np.int64))
    )
    return Neuron(
        v_threshold=whole(rng.uniform(0.5, 2, channels)),
        v_init=whole(rng.uniform(-1, 3, channels)),
        leak=0.75 if LEAK in features else 1.0,
        v_negative=whole(-rng.uniform(0, 0.5, channels)) if NEGATIVE_SPIKES in features else None,
        warm_up_steps=3 if WARM_UP in features else 0,
    )


def by_hand(neuron: Neuron, currents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spikes (n_steps, channels) and last membranes under such currents, one neuron at a time."""
    n_steps, channels = currents.shape
    spikes, last = np.zeros((n_steps, channels), int), []
    floats = currents.dtype == np.float32
    for c in range(channels):
        v, n, th = neuron.v_init[c], 0, neuron.v_threshold[c]
        for u in range(n_steps + neuron.warm_up_steps):
            if u < n_steps:
                if neuron.leak != 1:
                    v = np.float32(v * np.float32(neuron.leak)) if floats else v - (int(v) >> 2)
                v = v + currents[u, c]
            if u < neuron.warm_up_steps:
                continue
            s = 0
            if v >= th:
                s = 1
            elif neuron.v_negative is not None and n > 0 and v < neuron.v_negative[c]:
                s = -1
            v, n = v - th * s, n + s
            spikes[u - neuron.warm_up_steps, c] = s
        last.append(v)
    return spikes, np.array(last)


def stepped(
    neuron: Neuron, currents: np.ndarray, axis=-1, dtype=None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = currents.shape[1:]
    membranes = Membranes(neuron, shape, axis, dtype or currents.dtype)
    spikes = np.zeros(currents.shape, np.int8 if neuron.has_negative_spikes else bool)
    for u in range(len(currents) + neuron.warm_up_steps):
        if u < len(currents):
            membranes.leak()
            membranes.v += currents[u]
        if u >= neuron.warm_up_steps:
            membranes.fire(spikes[u - neuron.warm_up_steps])
    return spikes, membranes.v, membranes.n


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("features", COMBINATIONS, ids=lambda f: " + ".join(sorted(f)) or "plain")
def test_a_step_is_that_of_the_loop(features, dtype):
    neuron = made(features, dtype)
    assert neuron.features == features
    rng = np.random.default_rng(1)
    currents = rng.normal(0.1, 1, (40, 5)).astype(np.float32)
    currents = currents if dtype == np.float32 else np.rint(8 * currents).astype(np.int64)
    spikes, v = by_hand(neuron, currents)
    found, v_mem, n = stepped(neuron, currents)
    assert (
        np.array_equal(found, spikes) and np.array_equal(v_mem, v) and np.array_equal(n, spikes.sum(axis=0))
    )
    assert spikes.any() and ((spikes < 0).any() == (NEGATIVE_SPIKES in features))


def test_channels_lie_along_any_axis():
    neuron = made(STEP_FEATURES, np.float32)
    currents = np.random.default_rng(2).normal(0.1, 1, (20, 3, 5, 2)).astype(np.float32)
    along, v, _ = stepped(neuron, currents, axis=1)
    for i, j in np.ndindex(3, 2):
        one, membranes, _ = stepped(neuron, np.ascontiguousarray(currents[:, i, :, j]))
        assert np.array_equal(along[:, i, :, j], one) and np.array_equal(v[i, :, j], membranes)


@pytest.mark.parametrize("features", COMBINATIONS, ids=lambda f: " + ".join(sorted(f)) or "plain")
def test_bounds_hold_whatever_the_current(features):
    neuron = made(features, np.int64)
    rng = np.random.default_rng(3)
    least, most = np.array([-9, -3, 0, 2, -20]), np.array([4, 9, 5, 30, 1])
    low, high = neuron.bounds_after(12, least, most)
    for _ in range(60):
        currents = (
            np.where(rng.random((12, 5)) < 0.5, least, most)
            if _ % 2
            else rng.integers(least, most + 1, (12, 5))
        )
        membranes = Membranes(neuron, (5,), -1, np.int64)
        for u in range(12 + neuron.warm_up_steps):
            if u < 12:
                membranes.leak()
                membranes.v += currents[u]
            assert (low <= membranes.v).all() and (membranes.v <= high).all()
            if u >= neuron.warm_up_steps:
                membranes.fire(np.zeros(5, np.int8))


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_graded_counts_are_levels_reached(dtype):
    neuron = dataclasses.replace(made((), dtype), levels=6)
    assert neuron.features == {GRADED}
    membranes = Membranes(neuron, (400, 5), -1, dtype)
    membranes.v += np.random.default_rng(4).normal(2, 40, (400, 5)).astype(dtype)
    before = membranes.v.copy()
    counts = membranes.fire_graded()
    for (i, c), v in np.ndenumerate(before):
        levels = [dtype(k * float(neuron.v_threshold[c])) for k in range(1, 7)]
        assert counts[i, c] == sum(v >= level for level in levels)
        assert membranes.v[i, c] == v - dtype(counts[i, c] * float(neuron.v_threshold[c]))
    assert counts.min() == 0 and counts.max() == 6 and np.unique(counts).size > 2


def test_bounds_hold_for_graded_counts():
    neuron = dataclasses.replace(made((), np.int64), levels=6)
    least, most = np.array([-9, -3, 0, 2, -20]), np.array([4, 9, 5, 30, 1])
    low, high = neuron.bounds_of_run(6 * least, 6 * most)
    ends = neuron.v_init + 6 * least, neuron.v_init + 6 * most
    assert (low <= ends[0]).all() and (high == np.maximum(ends[1], neuron.v_init)).all()
    rng = np.random.default_rng(3)
    for _ in range(60):
        membranes = Membranes(neuron, (5,), -1, np.int64)
        membranes.v += rng.integers(6 * least, 6 * most + 1)
        membranes.fire_graded()
        assert (low <= membranes.v).all() and (membranes.v <= high).all()
    with pytest.raises(RunError, match="no graded spikes"):
        Membranes(made((), np.int64), (5,), -1, np.int64).fire_graded()


def test_a_float_membrane_is_never_minus_zero_behind_a_leak():
    membranes = Membranes(dataclasses.replace(made({LEAK}, np.float32), leak=0.0), (5,), -1, np.float32)
    membranes.v[...] = -1
    membranes.leak()
    assert not np.signbit(membranes.v).any()


# Features


def network(encoding="constant") -> Network:
    layers = [
        Input((1, 4, 4), encoding),
        Conv2d(np.ones((2, 1, 3, 3)), padding=1),
        IF(1.0, name="first"),
        Flatten(),
    ]
    return Network([*layers, Linear(np.ones((3, 32))), Readout()], n_steps=4, input_range=(0, 1))


MATCH = "layer 'first': .* does not support made-up feature"


def test_the_reference_refuses_what_it_does_not_know():
    circuit = strange(build_circuit(network()))
    with pytest.raises(RunError, match=MATCH):
        reference.run(circuit, np.zeros((1, 1, 4, 4), np.float32))


def test_the_engine_refuses_what_it_does_not_know():
    with pytest.raises(RunError, match=MATCH):
        plan(strange(build_circuit(network())))


def test_integers_refuse_what_they_do_not_know(monkeypatch):
    monkeypatch.setattr(quantized, "build_circuit", lambda *a, **k: strange(build_circuit(*a, **k)))
    with pytest.raises(RunError, match=MATCH):
        quantize(network())


@pytest.mark.parametrize("backend", [reference, planning, quantized])
def test_no_back_end_supports_a_feature_by_accident(backend):
    """Each lists what it computes itself: a constant that all share would let a new feature slip through."""
    assert STEP_FEATURES <= backend.SUPPORTS
    source = backend.__loader__.get_source(backend.__name__)
    assert "SUPPORTS = frozenset(" in source


def test_a_refusal_says_what_is_missing_and_what_there_is():
    with pytest.raises(RunError, match="x does not support b: got b, c, expected a"):
        require({"a", "b", "c"}, {"a"}, "x")


def test_recurrent_connections_are_a_component_and_are_refused_by_name():
    circuit = build_circuit(network("events"))
    first, last = circuit.populations
    (projection,) = first.projections
    loop = dataclasses.replace(
        projection, sources=(dataclasses.replace(projection.sources[0], population=0),)
    )
    cyclic = dataclasses.replace(
        circuit, populations=(dataclasses.replace(first, projections=(projection, loop)), last)
    )
    assert components(cyclic) == [(0,), (1,)]
    with pytest.raises(RunError, match="layer 'first': the engine does not support recurrent connections"):
        plan(cyclic)


def test_components_are_those_that_reach_each_other():
    circuit = build_circuit(network("events"))
    first = circuit.populations[0]
    (projection,) = first.projections

    def reading(*sources: int) -> Population:
        made = tuple(dataclasses.replace(projection.sources[0], population=i) for i in sources)
        return dataclasses.replace(first, projections=(dataclasses.replace(projection, sources=made),))

    populations = (reading(-1), reading(0, 3), reading(1), reading(2), reading(3, 5), reading(4), reading(0))
    found = components(dataclasses.replace(circuit, populations=populations))
    assert found == [(0,), (1, 2, 3), (4, 5), (6,)]


def test_a_digest_is_over_all_fields():
    neuron = made(set(), np.float32)
    assert digest(neuron) == digest(dataclasses.replace(neuron))
    for field in dataclasses.fields(Neuron):
        value = getattr(neuron, field.name)
        other = value + 1 if value is not None else neuron.v_init
        assert digest(dataclasses.replace(neuron, **{field.name: other})) != digest(neuron), field.name


def test_a_layer_becomes_neurons_and_its_shift_a_current():
    layer = IF([1.0, 2.0], v_init=0.5, leak=0.5, negative_threshold=0.25, warm_up_steps=9)
    neuron = Neuron.of_layer(layer, 2, "initial", 4)
    assert neuron.v_init.tolist() == [1.0, 1.5] and neuron.v_negative.tolist() == [-0.25, -0.5]
    assert neuron.warm_up_steps == 4 and neuron.leak == 0.5
    assert neurons.shift_current(layer, 2, "bias", 4).tolist() == [0.125, 0.25]
    assert not neurons.shift_current(layer, 2, "initial", 4).any()
