"""Warm-up: by hand, against a closed form, on every path of the engine, and in the proof for integers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from naive import Naive
from numba import config
from running import ALLOCATING, assert_same, run_both

import evsnn
from evsnn import (
    IF,
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    Network,
    Readout,
    RunError,
)
from evsnn.arguments import RECORDS
from evsnn.circuit.build import build_circuit
from evsnn.circuit.quantized import membrane_bounds, quantize
from evsnn.engine.plan import plan
from evsnn.network.inventory import layer_facts
from evsnn.simulation import Simulator

ARITHMETICS = pytest.mark.parametrize("arithmetic", ["float32", "int8"])


def one_neuron(warm_up_steps, n_steps=6, **options):
    """Inputs that add 1 and take 1 away."""
    layers = [
        Input((2,), "events"),
        Linear([[1.0, -1.0]], name="c"),
        IF(1.0, warm_up_steps=warm_up_steps, name="n", **options),
        Linear([[1.0]]),
        Readout(),
    ]
    return Network(layers, n_steps=n_steps, shift="none")


def trains(up, down):
    return np.array([[up, down]], bool).transpose(0, 2, 1)


@pytest.mark.slow
@ARITHMETICS
@pytest.mark.parametrize(
    "warm_up_steps, spikes, v",
    [
        (
            0,
            [1, 1, 0, 0, 0, 0],
            -1,
        ),  # v at the comparisons: 1, 1, -1, -2, -2, -1; what falls later comes too late
        (1, [1, 0, 0, 0, 0, 0], 0),  # 2, 0, -1, -1, 0 | 0
        (3, [0, 0, 1, 0, 0, 0], 0),  # 0, 0, 1 | 0, 0, 0
        (6, [1, 0, 0, 0, 0, 0], 0),  # | 1, 0, 0, 0, 0, 0
        (9, [1, 0, 0, 0, 0, 0], 0),  # beyond T it is T
    ],
)
def test_a_neuron_worked_by_hand(warm_up_steps, spikes, v, arithmetic):
    result = run_both(
        one_neuron(warm_up_steps), trains([1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0]), arithmetic=arithmetic
    )
    neuron, readout = result.layers
    assert neuron.spikes[0, :, 0].tolist() == spikes
    assert np.sign(neuron.v_mem).tolist() == [[v]]
    assert (neuron.n_events, neuron.sops, readout.n_events) == (5, 5, sum(spikes))
    assert result.outputs[0, 0] == pytest.approx(sum(spikes) / 6)


@pytest.mark.slow
@ARITHMETICS
@pytest.mark.parametrize(
    "warm_up_steps, spikes", [(0, [1, 1, -1, -1, 0, 1]), (1, [1, 0, -1, 0, 1, 0]), (2, [1, -1, 0, 1, 0, 0])]
)
def test_a_signed_neuron_worked_by_hand(warm_up_steps, spikes, arithmetic):
    """theta 1/2; with a warm-up of 1, v is 2, 0, -1 (n = 1: corrects), -0, 1 and, without input, 0."""
    result = run_both(
        one_neuron(warm_up_steps, negative_threshold=0.5),
        trains([1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0]),
        arithmetic=arithmetic,
    )
    assert result.layers[0].spikes[0, :, 0].tolist() == spikes
    assert result.layers[0].v_mem.tolist() == [[0]]


def test_membranes_leak_while_there_is_input():
    result = run_both(one_neuron(2, leak=0.5), trains([1, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]))
    assert result.layers[0].spikes.sum() == 1
    assert result.layers[0].v_mem.tolist() == [[1 + 1.5 / 16 - 1]]


@pytest.mark.slow
@pytest.mark.parametrize("shift", ["bias", "initial"])
@pytest.mark.parametrize("n_steps", [1, 4, 16])
def test_a_delay_of_all_steps_is_the_quantised_activation(n_steps, shift):
    """Integrate everything, then fire: clip(floor((sum + V/2) / V), 0, T), whatever the order of the spikes.
    Numbers are exact in float32.
    """
    rng = np.random.default_rng(0)
    threshold = 2.0 ** rng.integers(0, 4, 20)
    weight, bias = rng.integers(-8, 9, (20, 30)) / 4, rng.integers(-8, 9, 20) / 8
    network = Network(
        [
            Input((30,), "events"),
            Linear(weight, bias),
            IF(threshold, warm_up_steps=n_steps),
            Linear(np.eye(20)),
            Readout(),
        ],
        n_steps=n_steps,
        shift=shift,
    )
    images = rng.random((6, n_steps, 30)) < rng.random((6, 1, 1))
    counts = run_both(network, images).layers[0].spike_counts
    charge = images.sum(axis=1) @ weight.T + n_steps * bias
    assert np.array_equal(counts, np.clip(np.floor((charge + threshold / 2) / threshold), 0, n_steps))
    assert n_steps == 1 or len(np.unique(counts)) > 2


@pytest.mark.parametrize("n_steps", [1, 4, 16])
def test_a_delay_of_all_steps_in_integers(n_steps):
    rng = np.random.default_rng(1)
    network = Network(
        [
            Input((30,), "events"),
            Linear(rng.normal(size=(20, 30)), rng.normal(size=20)),
            IF(rng.uniform(1, 4, 20), warm_up_steps=n_steps),
            Linear(np.eye(20)),
            Readout(),
        ],
        n_steps=n_steps,
    )
    images = rng.random((6, n_steps, 30)) < rng.random((6, 1, 1))
    counts = run_both(network, images, arithmetic="int8").layers[0].spike_counts
    p = quantize(network).circuit.populations[0]
    charge = (
        images.sum(axis=1) @ p.projections[0].weight.reshape(20, 30).T.astype(int)
        + n_steps * p.bias
        + p.neuron.v_init
    )
    assert np.array_equal(counts, np.clip(charge // p.neuron.v_threshold, 0, n_steps))


def normal(rng, *shape):
    return rng.normal(size=shape) * 2 / np.sqrt(np.prod(shape[1:]))


def every_path(encoding="constant", channels=6, n_steps=8, readout="membrane", negative_threshold=0.1):
    """Warm-ups behind an analog current, in front of convolutions (plain, grouped, depthwise), pools of both
    kinds and shortcuts, and beside neurons without.
    """
    rng = np.random.default_rng(0)
    c = channels
    return Network(
        [
            Input((2, 5, 4), encoding),
            Conv2d(normal(rng, c, 2, 3, 3), normal(rng, c, 1)[:, 0] / 4, padding=1),
            IF(rng.uniform(0.3, 0.6, c), rng.uniform(0, 0.5, c), warm_up_steps=2, name="a"),
            Conv2d(normal(rng, c, c, 1, 1)),
            IF(0.5, name="u"),
            MaxPool2d(3, 1, 1, inputs="a", name="m"),
            Conv2d(normal(rng, c, 1, 3, 3), padding=1, groups=c, inputs="a", name="b"),
            Conv2d(
                normal(rng, c, c // 2, 3, 3), padding=(1, 2), dilation=(1, 2), groups=2, inputs="u", name="c"
            ),
            Add(inputs=("b", "c", "a")),
            IF(
                rng.uniform(0.3, 0.6, c),
                2.0,
                0.5,
                negative_threshold=negative_threshold,
                warm_up_steps=1,
                name="d",
            ),
            AvgPool2d(2, name="p"),
            AvgPool2d((5, 4), inputs="d", name="r"),
            Concat(inputs=("u", "m", "d"), name="j"),
            Conv2d(normal(rng, 5, 3 * c, 2, 2), stride=2),
            IF(0.3, negative_threshold=negative_threshold, warm_up_steps=100, name="e"),
            Flatten(name="s"),
            MaxPool2d(2, inputs="d"),
            Flatten(name="t"),
            Flatten(inputs="p", name="q"),
            Flatten(inputs="r", name="v"),
            Concat(inputs=("s", "t", "q", "v")),
            Linear(normal(rng, 33, 20 + 8 * c + c)),
            IF(0.3, warm_up_steps=3, name="f"),
            Linear(normal(rng, 3, 33), [0.5, -1, -2]),
            *(
                [IF(0.4, 3.0, negative_threshold=negative_threshold, warm_up_steps=2, name="g")]
                if readout == "spikes"
                else []
            ),
            Readout(),
        ],
        n_steps=n_steps,
        input_range=(0, 1),
        readout=readout,
    )


IMAGES = np.random.default_rng(1).random((3, 2, 5, 4), dtype=np.float32)


@pytest.mark.slow
def test_every_path_is_awake():
    result = evsnn.simulate(every_path(readout="spikes"), IMAGES, record=RECORDS)
    without_warm_up = evsnn.simulate(
        every_path(readout="spikes").replace(
            layers=[_without_delay(layer) for layer in every_path(readout="spikes").layers]
        ),
        IMAGES,
        record=RECORDS,
    )
    for layer, other in zip(result.layers, without_warm_up.layers):
        assert 0.02 < (layer.spikes > 0).mean() < 0.9, layer.name
        assert not np.array_equal(layer.spikes, other.spikes), layer.name
    assert {layer.name for layer in result.layers if (layer.spikes < 0).any()} >= {"d", "g"}


def _without_delay(layer):
    return (
        IF(
            layer.v_threshold,
            layer.v_init,
            layer.leak,
            layer.shift,
            layer.negative_threshold,
            name=layer.name,
            inputs=layer.inputs,
        )
        if isinstance(layer, IF)
        else layer
    )


@pytest.mark.slow
@ARITHMETICS
@pytest.mark.parametrize("readout", ["membrane", "spikes"])
@pytest.mark.parametrize("encoding", ["constant", "poisson"])
def test_engine_equals_reference(encoding, readout, arithmetic):
    for channels in (6, 70):
        run_both(every_path(encoding, channels, readout=readout), IMAGES, arithmetic=arithmetic)


@pytest.mark.slow
@ARITHMETICS
@pytest.mark.parametrize("n_steps", [1, 2, 100])
def test_any_number_of_steps(n_steps, arithmetic):
    """Also more than the engine otherwise runs layer by layer at once."""
    run_both(every_path(), IMAGES[:1], n_steps, arithmetic)


@pytest.mark.slow
@ARITHMETICS
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("n_samples", [1, 3])
def test_threads_change_nothing(n_samples, threads, arithmetic):
    network = every_path(channels=130)
    whole = evsnn.simulate(
        network, IMAGES[:n_samples], arithmetic=arithmetic, record=RECORDS, backend="reference"
    )
    simulator = Simulator(network, arithmetic=arithmetic, threads=threads)
    for _ in range(2):  # nothing is left over from a run before
        assert_same(simulator.run(IMAGES[:n_samples], record=RECORDS), whole)


def test_reference_equals_naive():
    network = every_path(channels=4, n_steps=5)
    result = evsnn.simulate(network, IMAGES[:1], record=RECORDS, backend="reference")
    spikes, membranes = Naive(network, IMAGES[0], 5).run()
    for layer in result.layers:
        assert layer.v_mem is None or np.array_equal(layer.v_mem[0], membranes[layer.name]), layer.name
        assert not layer.fires or np.array_equal(layer.spikes[0], spikes[layer.name]), layer.name


def test_all_steps_are_one_block():
    circuit = build_circuit(every_path(), 100)
    assert (
        circuit.has_warm_up and plan(circuit).block_steps == plan(circuit, block_steps=100).block_steps == 100
    )
    assert not plan(circuit).carries
    with pytest.raises(
        RunError, match="warm-up needs all steps in one block: got blocks of 64 steps, expected 100"
    ):
        plan(circuit, block_steps=64)
    assert (
        not build_circuit(one_neuron(0), 100).has_warm_up
        and plan(build_circuit(one_neuron(0), 100)).block_steps == 64
    )


def test_queues_that_would_pass_their_pointers_are_refused():
    def planned(n_steps, warm_up_steps):
        layers = [
            Input((8, 64, 64), "events"),
            Conv2d(np.ones((1, 8, 1, 1))),
            IF(warm_up_steps=warm_up_steps, name="n"),
            AvgPool2d(),
            Flatten(),
            Linear(np.ones((2, 1))),
            Readout(),
        ]
        return plan(build_circuit(Network(layers), n_steps))

    assert planned(65_535, 1).workspace_bytes > 1 << 32
    assert planned(65_536, 0).block_steps < 65_536
    with pytest.raises(
        RunError,
        match=(
            r"layer 'n': too many events for one block: got up to 2147483648, expected fewer than 2\^31.*Use"
            r" fewer steps, or no warm-up"
        ),
    ):
        planned(65_536, 1)


@pytest.mark.parametrize("theta", [0.0, 0.25, 1.4])
@pytest.mark.parametrize("leak", [1.0, 0.5])
@pytest.mark.parametrize(
    "warm_up_steps, second",
    [
        (1, IF(0.6, warm_up_steps=2)),
        (2, IF(0.6, v_init=0.2, negative_threshold=0.1, warm_up_steps=4)),
        (5, IF(0.6, negative_threshold=0.1, warm_up_steps=1)),
    ],
)
def test_bounds_hold_for_every_input(warm_up_steps, second, leak, theta):
    """All spike trains of two inputs over five steps, at each addition and each reset.

    A proof by intervals must cover them.
    """
    network = Network(
        [
            Input((2,), "events"),
            Linear([[1.0, -1.0], [-1.0, 0.3], [0.5, 0.4]], [0.1, -0.9, 0.2]),
            IF(
                [1.0, 0.7, 1.0],
                v_init=[0.5, 3.5, 0.9],
                leak=leak,
                negative_threshold=theta,
                warm_up_steps=warm_up_steps,
            ),
            Linear([[1.0, 0.9, 0.2], [-0.4, -1.0, -0.3]]),
            second,
            Linear([[1.0, -1.0]]),
            Readout(),
        ],
        n_steps=5,
        shift="none",
    )
    spikes = np.array(list(itertools.product([0, 1], repeat=10))).reshape(-1, 5, 2)
    for population in quantize(network).circuit.populations:
        low, high = membrane_bounds(population, 5, (0, 1))
        spikes, membranes = _membranes(population, spikes)
        assert len(membranes) == 5 + (5 if population.fires else 0)
        assert all((low <= v).all() and (v <= high).all() for v in membranes)
        if (
            warm_up_steps == 5
            and population.neuron.v_threshold is not None
            and population.neuron.warm_up_steps == 5
            and leak == 1
        ):
            assert np.array_equal(
                np.maximum(population.neuron.v_init, np.max(membranes, axis=(0, 1))), high
            ), "the bound of a neuron that waits for all of its input is met"


def _membranes(population, spikes):
    """The spikes (trains, steps, neurons) that a population of integers sends, and its membranes after each
    addition and each reset.
    """
    weight = population.projections[0].weight[:, :, 0, 0].astype(int)
    v = np.broadcast_to(population.neuron.v_init, (len(spikes), len(weight)))
    n = np.zeros_like(v)
    membranes, sent = [], []
    for u in range(5 + population.neuron.warm_up_steps):
        if u < 5:
            v = (
                (v - (v >> 1) if population.neuron.leak == 0.5 else v)
                + spikes[:, u] @ weight.T
                + population.bias
            )
            membranes.append(v)
        if u >= population.neuron.warm_up_steps and population.fires:
            s = (v >= population.neuron.v_threshold).astype(int)
            if population.has_negative_spikes:
                s -= (v < population.neuron.v_negative) & (n > 0)
            n, v = n + s, v - s * population.neuron.v_threshold
            membranes.append(v)
            sent.append(s)
    return np.stack(sent, axis=1) if sent else None, membranes


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="the engine allocates")
@pytest.mark.parametrize("n_steps", [8, 100])
def test_memory_is_announced(monkeypatch, n_steps):
    import evsnn.engine.pool_runner
    import evsnn.engine.runner
    import evsnn.engine.workspace

    taken = []

    def counted(n_bytes, aligned=evsnn.engine.plan.aligned):
        taken.append(n_bytes)
        return aligned(n_bytes)

    for module in ALLOCATING:
        monkeypatch.setattr(module, "aligned", counted)
    simulator = Simulator(every_path(channels=130), n_steps, threads=2)
    announced = sum(simulator.memory_bytes.values())
    simulator.run(IMAGES)
    assert announced * 0.97 - 4096 <= sum(taken) <= announced + 4096


@ARITHMETICS
def test_tables_have_delays(arithmetic):
    network = one_neuron(3)
    tuned = network.replace(
        step_parameters={
            4: {"n": evsnn.StepParameters(warm_up_steps=1)},
            32: {"n": evsnn.StepParameters(warm_up_steps=0)},
        }
    )
    images = np.random.default_rng(0).random((4, 6, 2)) < 0.6
    for n_steps, warm_up_steps in ((4, 1), (6, 1), (30, 0)):
        assert (
            tuned.at(n_steps).by_name["n"].warm_up_steps
            == build_circuit(tuned, n_steps).populations[0].neuron.warm_up_steps
            == warm_up_steps
        )
    assert_same(
        evsnn.simulate(tuned, images, arithmetic=arithmetic, record=RECORDS),
        evsnn.simulate(one_neuron(1), images, arithmetic=arithmetic, record=RECORDS, backend="reference"),
    )


def test_delays_are_kept_in_files(tmp_path):
    network = every_path().replace(
        step_parameters={
            4: {
                "a": evsnn.StepParameters(warm_up_steps=0),
                "u": evsnn.StepParameters(warm_up_steps=7, negative_threshold=0.5),
            }
        }
    )
    evsnn.save(tmp_path / "net.h5", network)
    loaded = evsnn.load(tmp_path / "net.h5")
    assert [layer.warm_up_steps for layer in loaded.layers if isinstance(layer, IF)] == [2, 0, 1, 100, 3]
    assert dict(loaded.step_parameters[4]["u"].given) == {
        "warm_up_steps": 7,
        "negative_threshold": 0.5,
    } and dict(loaded.step_parameters[4]["a"].given) == {"warm_up_steps": 0}
    assert_same(*(evsnn.simulate(net, IMAGES, record=RECORDS) for net in (network, loaded)))


def test_inspect_names_the_delay():
    assert [facts.label for facts in layer_facts(every_path()) if facts.kind == "if"] == [
        "if, warm-up 2",
        "if",
        "if, negative threshold 0.1, warm-up 1",
        "if, negative threshold 0.1, warm-up 100",
        "if, warm-up 3",
    ]
