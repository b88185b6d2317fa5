"""Signed correction spikes: worked by hand, on every path of the engine, in the integers' proof."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from naive import Naive
from numba import config
from running import ALLOCATING, assert_same, run_both

import evsnn
from evsnn import IF, Add, AvgPool2d, Concat, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout
from evsnn.arguments import RECORDS
from evsnn.circuit import reference
from evsnn.circuit.build import build_circuit
from evsnn.circuit.quantized import membrane_bounds, quantize
from evsnn.engine.plan import plan
from evsnn.simulation import Simulator

ARITHMETICS = pytest.mark.parametrize("arithmetic", ["float32", "int8"])


def one_neuron(theta, v_threshold=1.0, readout="spikes", n_steps=8, **options):
    """Inputs that add 1 and take 1 away."""
    layers = [
        Input((2,), "events"),
        Linear([[1.0, -1.0]], name="c"),
        IF(v_threshold, negative_threshold=theta, name="n", **options),
    ]
    layers += [Readout()] if readout == "spikes" else [Linear([[1.0]]), Readout()]
    return Network(layers, n_steps=n_steps, shift="none", readout=readout)


def trains(up, down):
    return np.array([[up, down]], bool).transpose(0, 2, 1)


@pytest.mark.slow
@ARITHMETICS
def test_a_neuron_worked_by_hand(arithmetic):
    """With theta 1/2 and threshold 1, v is 1, -1, -1, 0, 1, 0, 0, -1.

    It fires at 1, and corrects at -1 only if n = 1.
    """
    up, down = [1, 0, 0, 1, 1, 0, 1, 0], [0, 1, 1, 0, 0, 0, 1, 1]
    result = run_both(one_neuron(0.5), trains(up, down), arithmetic=arithmetic)
    (layer,) = result.layers
    assert layer.spikes.dtype == np.int8
    assert layer.spikes[0, :, 0].tolist() == [1, -1, 0, 0, 1, 0, 0, -1]
    assert layer.spike_counts.tolist() == [[0]]
    assert layer.v_mem.tolist() == [[0]]
    assert layer.n_spikes == 4, "spikes of both signs"
    assert result.rate(layer) == 4 / 8
    assert result.outputs.tolist() == [[0.0]]


@pytest.mark.slow
@ARITHMETICS
def test_the_bound_itself_does_not_correct(arithmetic):
    """v < -theta V is strict: at -1 = -theta V nothing happens, at -2 it does."""
    result = run_both(
        one_neuron(1.0), trains([1, 0, 0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0, 0]), arithmetic=arithmetic
    )
    assert result.layers[0].spikes[0, :, 0].tolist() == [1, 0, -1, 0, 0, 0, 0, 0]


@pytest.mark.slow
@ARITHMETICS
def test_a_negative_spike_takes_its_row_away(arithmetic):
    result = run_both(
        one_neuron(0.5, readout="membrane"),
        trains([1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]),
        arithmetic=arithmetic,
    )
    neuron, readout = result.layers
    assert neuron.spikes[0, :, 0].tolist() == [1, 1, -1, 0, 0, 0, 0, 0]
    assert (readout.n_events, readout.sops) == (3, 3)
    assert result.outputs[0, 0] == pytest.approx(1 / 8)


@ARITHMETICS
def test_amplitudes_of_a_spike_readout_are_subtracted(arithmetic):
    network = Network(
        [
            Input((2,), "events"),
            Linear(np.eye(2)),
            IF([0.25, 0.5], v_init=[0.5, 0], negative_threshold=0.5),
            Linear(-np.eye(2)),
            IF(0.25, v_init=0.5, negative_threshold=0.1),
            Readout(),
        ],
        n_steps=4,
        shift="none",
        readout="spikes",
    )
    result = run_both(network, np.ones((1, 4, 2), bool), arithmetic=arithmetic)
    assert (result.layers[1].spikes < 0).any()
    assert np.array_equal(result.outputs, result.layers[1].spikes.sum(axis=1) * 0.25 / 4)


@ARITHMETICS
def test_a_large_theta_is_never_reached(arithmetic):
    up, down = [1, 0, 0, 1, 1, 0, 1, 0], [0, 1, 1, 0, 0, 0, 1, 1]
    negative_threshold, unsigned = (
        run_both(one_neuron(theta, v_threshold=1e33 if theta else 1.0, v_init=0.0), trains(up, down))
        for theta in (65_536, 0)
    )
    assert not negative_threshold.layers[0].spikes.any(), "no membrane is below theta V"
    assert unsigned.layers[0].spikes.dtype == bool
    negative_threshold, unsigned = (
        run_both(one_neuron(theta), trains(up, down), arithmetic=arithmetic) for theta in (65_536, 0)
    )
    assert np.array_equal(negative_threshold.layers[0].spikes, unsigned.layers[0].spikes)


def normal(rng, *shape):
    return rng.normal(size=shape) * 3 / np.sqrt(np.prod(shape[1:]))


def every_path(encoding="constant", channels=6, leak=1.0, n_steps=12, readout="membrane"):
    """Neurons with negative spikes behind an analog current.

    They feed convolutions (plain, grouped, depthwise), pools and shortcuts, and stand beside neurons without.
    """
    rng = np.random.default_rng(0)
    c = channels

    def negative_threshold(n, **options):
        return IF(rng.uniform(0.3, 0.6, n), rng.uniform(-0.2, 2, n), leak, negative_threshold=0.1, **options)

    return Network(
        [
            Input((2, 5, 4), encoding),
            Conv2d(normal(rng, c, 2, 3, 3), padding=1),
            negative_threshold(c, name="a"),
            Conv2d(normal(rng, c, c, 1, 1)),
            IF(0.5, 1.0, leak, name="u"),
            Conv2d(normal(rng, c, 1, 3, 3), padding=1, groups=c, inputs="a", name="b"),
            Conv2d(
                normal(rng, c, c // 2, 3, 3), padding=(1, 2), dilation=(1, 2), groups=2, inputs="u", name="c"
            ),
            Add(inputs=("b", "c", "a")),
            negative_threshold(c, name="d"),
            AvgPool2d(2, name="p"),
            AvgPool2d(3, 1, 1, inputs="a", name="q"),
            AvgPool2d((5, 4), inputs="d", name="r"),
            Concat(inputs=("u", "q", "d"), name="j"),
            Conv2d(normal(rng, 5, 3 * c, 2, 2), stride=2),
            negative_threshold(5),
            Flatten(name="s"),
            Conv2d(normal(rng, 6, 3 * c // 2, 1, 1), groups=2, inputs="j"),
            negative_threshold(6, name="g"),
            AvgPool2d((5, 4)),
            Flatten(name="h"),
            Flatten(inputs="p", name="t"),
            Flatten(inputs="r", name="v"),
            Concat(inputs=("s", "t", "v", "h")),
            Linear(normal(rng, 33, 20 + 4 * c + c + 6)),
            negative_threshold(33),
            Linear(normal(rng, 3, 33)),
            *([negative_threshold(3)] if readout == "spikes" else []),
            Readout(),
        ],
        n_steps=n_steps,
        shift="bias",
        input_range=(0, 1),
        readout=readout,
    )


IMAGES = np.random.default_rng(1).random((3, 2, 5, 4), dtype=np.float32)


@pytest.mark.slow
def test_every_path_has_negative_spikes():
    """What the tests below run is what they mean to."""
    circuit = build_circuit(every_path(channels=70))
    negative = [s for p in circuit.populations for s in p.projections if s.negative]
    assert {"channelwise", "pooled", "grouped", "mixed", "linear", "identity"} <= {
        kind
        for s in negative
        for kind, has in {
            "channelwise": s.channelwise,
            "pooled": s.pooled,
            "grouped": s.groups > 1 and not s.channelwise,
            "mixed": (s.scale == 0).any() and (s.scale < 0).any(),
            s.label.split()[0]: True,
        }.items()
        if has
    }
    result = evsnn.simulate(every_path(readout="spikes"), IMAGES, record=RECORDS)
    for layer in result.layers:
        negative_threshold = layer.name != "u"
        assert layer.spikes.dtype == (np.int8 if negative_threshold else bool)
        assert not negative_threshold or 0.01 < (layer.spikes < 0).mean() < (layer.spikes > 0).mean(), (
            layer.name
        )
        assert layer.spike_counts.min() >= 0, "a net count never falls below 0"
        assert layer.n_spikes == np.count_nonzero(layer.spikes)


@pytest.mark.slow
@ARITHMETICS
@pytest.mark.parametrize("readout", ["membrane", "spikes"])
@pytest.mark.parametrize("encoding", ["constant", "poisson"])
def test_engine_equals_reference(encoding, readout, arithmetic):
    for channels, leak in ((6, 1.0), (70, 0.5)):
        run_both(every_path(encoding, channels, leak, readout=readout), IMAGES, arithmetic=arithmetic)


@pytest.mark.slow
@ARITHMETICS
@pytest.mark.parametrize("n_steps", [1, 65, 150])
def test_any_number_of_steps(n_steps, arithmetic):
    run_both(every_path(), IMAGES[:1], n_steps, arithmetic)


@pytest.mark.slow
@ARITHMETICS
@pytest.mark.parametrize("block_steps, threads", [(1, 1), (5, 3), (12, 2)])
def test_blocks_and_threads(block_steps, threads, arithmetic):
    """Net counts are carried from block to block; samples and tiles may be split."""
    network = every_path("poisson", 130)
    whole = evsnn.simulate(network, IMAGES[:2], arithmetic=arithmetic, record=RECORDS, backend="reference")
    simulator = Simulator(network, arithmetic=arithmetic, threads=threads)
    simulator.plan = plan(
        simulator.circuit, simulator.quantized.widths if simulator.quantized else None, block_steps
    )
    for _ in range(2):  # nothing is left over from a run before
        assert_same(simulator.run(IMAGES[:2], record=RECORDS), whole)


def test_reference_equals_naive():
    network = every_path(n_steps=6)
    result = evsnn.simulate(network, IMAGES[:1], record=RECORDS, backend="reference")
    spikes, membranes = Naive(network, IMAGES[0], 6).run()
    for layer in result.layers:
        assert np.array_equal(layer.v_mem[0], membranes[layer.name]), layer.name
        assert not layer.fires or np.array_equal(layer.spikes[0], spikes[layer.name]), layer.name


def test_both_signs_share_the_weights():
    positive, negative = build_circuit(one_neuron(0.5, readout="membrane")).populations[1].projections
    assert negative.weight is positive.weight
    assert np.array_equal(negative.effective(), -positive.effective())
    assert build_circuit(one_neuron(0.5, readout="membrane")).populations[1].label == "linear"


def test_the_bound_is_rounded_once():
    theta, threshold = np.float32(0.3), np.float32(0.7)
    population = build_circuit(one_neuron(0.3, v_threshold=threshold)).populations[0]
    assert population.neuron.v_negative[0] == np.float32(-(float(theta) * float(threshold)))
    assert population.neuron.v_negative.dtype == np.float32
    quantized = quantize(one_neuron(0.3, v_threshold=threshold))
    assert quantized.circuit.populations[0].neuron.v_negative[0] == -np.rint(
        -float(population.neuron.v_negative[0]) / quantized.scales[0][0]
    )


@pytest.mark.parametrize("theta", [0.01, 0.25, 1.0, 1.4])
@pytest.mark.parametrize("leak", [1.0, 0.5])
@pytest.mark.parametrize("second", [IF(0.6, v_init=0.2, negative_threshold=0.1), IF(0.6)])
def test_bounds_hold_for_every_input(theta, leak, second):
    """All spike trains of two inputs over five steps, and each of them stopped early: what a proof by
    interval must cover.
    """
    network = Network(
        [
            Input((2,), "events"),
            Linear([[1.0, -1.0], [-1.0, 0.3]], [0.1, -0.9]),
            IF([1.0, 0.7], v_init=[0.5, 3.5], leak=leak, negative_threshold=theta),
            Linear([[1.0, 0.9], [-0.4, -1.0]]),
            second,
            Linear([[1.0, -1.0]]),
            Readout(),
        ],
        n_steps=5,
        shift="none",
    )
    everything = np.array(list(itertools.product([0, 1], repeat=10)), bool).reshape(-1, 5, 2, 1, 1)
    quantized = quantize(network)
    for n_steps in range(1, 6):
        traces = reference.run(
            dataclasses.replace(quantized.circuit, n_steps=n_steps), everything[:, :n_steps]
        )
        for population, trace in zip(quantized.circuit.populations, traces):
            low, high = membrane_bounds(population, 5, (0, 1))
            assert (low[:, None, None] <= trace.v_mem).all() and (trace.v_mem <= high[:, None, None]).all()
    assert (traces[0].spikes < 0).any()


def test_signed_events_gain_and_lose_the_whole_weight():
    weight = np.array([[1.0, -0.5, 0.25], [-1.0, -1.0, 0.5]])
    for negative_threshold in (0.0, 0.5):
        network = Network(
            [
                Input((3,), "events"),
                Linear(np.eye(3)),
                IF(0.5, negative_threshold=negative_threshold),
                Linear(weight),
                IF(),
                Linear(np.eye(2)),
                Readout(),
            ],
            n_steps=1,
            shift="none",
        )
        population = quantize(network).circuit.populations[1]
        w = population.projections[0].weight.reshape(2, 3).astype(int)
        low, high = membrane_bounds(population, 1, (0, 1))
        assert np.array_equal(high, (np.abs(w) if negative_threshold else np.maximum(w, 0)).sum(1))
        assert np.array_equal(low, (-np.abs(w) if negative_threshold else np.minimum(w, 0)).sum(1))


@pytest.mark.slow
def test_net_counts_fit_the_membranes_width():
    """Beyond 32,767 steps a net count needs more than 16 bits."""
    for n_steps, negative_threshold, width in (
        (32_767, 0.5, "int16"),
        (32_768, 0.5, "int32"),
        (32_768, 0.0, "int16"),
    ):
        network = Network(
            [
                Input((2,), "events"),
                Linear(np.zeros((1, 2))),
                IF(negative_threshold=negative_threshold),
                Linear([[1.0]]),
                Readout(),
            ],
            n_steps=n_steps,
            shift="none",
        )
        assert quantize(network).widths[0] == width


@pytest.mark.slow
@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="the engine allocates")
@pytest.mark.parametrize("n_steps", [8, 100])
def test_memory_is_announced(monkeypatch, n_steps):
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


def test_signed_neurons_are_kept_in_files(tmp_path):
    network = every_path()
    evsnn.save(tmp_path / "net.h5", network)
    loaded = evsnn.load(tmp_path / "net.h5")
    assert [layer.negative_threshold for layer in loaded.layers if isinstance(layer, IF)] == [
        layer.negative_threshold for layer in network.layers if isinstance(layer, IF)
    ]
    assert_same(*(evsnn.simulate(net, IMAGES, record=RECORDS) for net in (network, loaded)))


def test_inspect_names_theta():
    from evsnn.network.inventory import layer_facts

    assert {facts.label for facts in layer_facts(every_path()) if facts.kind == "if"} == {
        "if",
        "if, negative threshold 0.1",
    }


def test_vectors_side_by_side_are_one_projection():
    """All positive events of the vectors come before all negative ones, not one map after another."""
    rng = np.random.default_rng(0)
    layers = [
        Input((7,)),
        Linear(rng.normal(0, 0.6, (5, 7))),
        IF(0.5, v_init=rng.normal(1.5, 0.6, 5), negative_threshold=0.1, name="signed"),
        Concat(inputs=("signed", "signed")),
        Linear(rng.normal(0, 0.6, (10, 10))),
        Readout(),
    ]
    network = Network(layers, n_steps=6, input_range=(0, 1))
    images = rng.random((8, 7)).astype(np.float32)
    result = evsnn.simulate(network, images, record=("v_mem", "spikes"), backend="reference")
    assert (result.layers[0].spikes < 0).any()
    for i, image in enumerate(images):
        assert np.array_equal(result.layers[1].v_mem[i], Naive(network, image, 6).run()[1]["readout1"])


@pytest.mark.slow
@ARITHMETICS
@pytest.mark.parametrize("warm_up_steps", [0, 3])
def test_a_constant_current_leaves_nothing_to_take_back(arithmetic, warm_up_steps):
    """Such neurons are not signed in the circuit; if they were, they would do the same."""
    rng = np.random.default_rng(warm_up_steps)
    thresholds = rng.choice([1e-3, 0.3, 1.0, 40.0], 64).astype(np.float32)
    weights = np.concatenate(
        [rng.normal(0, 1, 48), 10.0 ** rng.uniform(-9, 3, 14) * rng.choice([-1, 1], 14), [0.0, 0.0]]
    )
    neurons = IF(
        thresholds,
        v_init=thresholds * rng.choice([-3, 0, 0.5, 0.75], 64),
        negative_threshold=0.01,
        warm_up_steps=warm_up_steps,
    )
    layers = [
        Input((1,)),
        Linear(weights[:, None] * thresholds[:, None], rng.normal(0, 0.1, 64) * thresholds),
        neurons,
        Linear(rng.normal(0, 1, (2, 64))),
        Readout(),
    ]
    network = Network(layers, n_steps=24, shift="none", input_range=(0, 1))
    images = rng.random((5, 1)).astype(np.float32)
    circuit = build_circuit(network) if arithmetic == "float32" else quantize(network).circuit
    first = circuit.populations[0]
    assert not first.has_negative_spikes and not any(
        projection.negative for projection in circuit.populations[1].projections
    )
    values = (
        images.reshape(5, 1, 1, 1) if arithmetic == "float32" else np.arange(0, 256, 51).reshape(-1, 1, 1, 1)
    )
    negative_threshold = dataclasses.replace(
        first, neuron=dataclasses.replace(first.neuron, v_negative=0 * first.neuron.v_threshold)
    )
    plain, corrected = (
        reference.run(dataclasses.replace(circuit, populations=(p, *circuit.populations[1:])), values)[0]
        for p in (first, negative_threshold)
    )
    assert 0 < plain.spikes.mean() < 1
    assert np.array_equal(plain.spikes, corrected.spikes)
    assert np.array_equal(plain.v_mem, corrected.v_mem)
    run_both(network, images, arithmetic=arithmetic)


@pytest.mark.parametrize(
    ("why", "options"),
    [("a leak", {"leak": 0.5}), ("a membrane at its threshold", {"v_init": 1.0}), ("spikes", {})],
)
def test_what_may_take_back_stays_signed(why, options):
    layers = [
        Input((1,), "events" if why == "spikes" else "constant"),
        Linear([[1.0]]),
        IF(1.0, negative_threshold=0.5, **options),
        Linear([[1.0]]),
        Readout(),
    ]
    circuit = build_circuit(Network(layers, n_steps=4, shift="none"))
    assert circuit.populations[0].has_negative_spikes
    assert [projection.negative for projection in circuit.populations[1].projections] == [False, True]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_integers_that_rounding_lifts_to_their_threshold_stay_signed():
    """The first membrane holds what the rounding of the bias leaves over all T steps."""
    layers = [
        Input((1,)),
        Linear([[1.0]], [0.3 / 127]),
        IF(0.25, v_init=0.2, negative_threshold=0.5),
        Linear([[1.0]]),
        Readout(),
    ]
    network = Network(layers, n_steps=64, shift="none", input_range=(0, 255))
    assert not build_circuit(network).populations[0].has_negative_spikes
    population = quantize(network).circuit.populations[0]
    assert population.neuron.v_init >= population.neuron.v_threshold and population.has_negative_spikes
    run_both(network, np.array([[0.0], [3.0]], np.float32), arithmetic="int8")


def test_a_max_pool_of_neurons_that_take_nothing_back_is_plain():
    layers = [
        Input((1, 4, 4)),
        IF(0.5, negative_threshold=0.5),
        MaxPool2d(2),
        Flatten(),
        Linear(np.ones((1, 4))),
        Readout(),
    ]
    network = Network(layers, n_steps=6, input_range=(0, 1))
    assert not any(population.has_negative_spikes for population in build_circuit(network).populations[:2])
    result = run_both(network, np.linspace(0, 1, 32, dtype=np.float32).reshape(2, 1, 4, 4))
    assert result.layers[1].spikes.dtype == bool
