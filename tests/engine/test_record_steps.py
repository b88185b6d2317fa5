"""One run read at several steps: each output is that of a run that ends there."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from generate import networks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import evsnn
from evsnn import IF, Add, AvgPool2d, Conv2d, Flatten, Input, Linear, Network, Readout, RunError
from evsnn.circuit.build import build_circuit
from evsnn.circuit.quantized import quantize
from evsnn.engine.plan import plan
from evsnn.simulation import Simulator

SETTINGS = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
IMAGES = np.random.default_rng(3).random((3, 2, 6, 5), dtype=np.float32)


def classifier(shift="bias", readout="membrane", channels=5, warm_up_steps=0):
    rng = np.random.default_rng(8)
    last = [IF(0.3 + rng.random(6), name="out")] if readout == "spikes" else []
    return Network(
        [
            Input((2, 6, 5)),
            Conv2d(rng.normal(size=(channels, 2, 3, 3)), rng.normal(size=channels) * 0.1, padding=1),
            IF(2.0, name="a", warm_up_steps=warm_up_steps),
            Conv2d(rng.normal(size=(channels, channels, 3, 3)) / 20, padding=1, name="c"),
            Add(inputs=("c", "a")),
            IF(1.5, name="b"),
            AvgPool2d(2),
            Flatten(),
            Linear(rng.normal(size=(6, channels * 6)) / 10),
            *last,
            Readout(),
        ],
        n_steps=16,
        shift=shift,
        readout=readout,
        input_range=(0, 1),
    )


def ended_at(network, images, step, n_steps, arithmetic, shift_steps=None, backend="reference"):
    """The outputs of a run that ends at a step, with biases, shift and integers of a run of `n_steps`."""
    images = images[:, :step] if network.input.encoding == "events" else images
    if arithmetic == "int8":
        quantized = quantize(network, n_steps, shift_steps=shift_steps)
        simulator = Simulator(
            replace(quantized, circuit=replace(quantized.circuit, n_steps=step)), backend=backend
        )
    else:
        simulator = Simulator(
            network,
            step,
            shift_steps=(shift_steps or n_steps) if network.shift == "bias" else None,
            backend=backend,
        )
    return simulator.run(images).outputs


@pytest.mark.slow
@given(networks(warm_ups=False), st.sampled_from(("float32", "int8")), st.data())
@settings(SETTINGS, max_examples=60)
def test_readings_are_runs_that_end_there(case, arithmetic, data):
    network, images = case
    T = network.n_steps
    steps = data.draw(st.lists(st.integers(1, T), min_size=1, unique=True))
    simulator = Simulator(network, arithmetic=arithmetic, threads=2)
    simulator.plan = plan(
        simulator.circuit,
        simulator.quantized.widths if simulator.quantized else None,
        data.draw(st.integers(1, T)),
    )
    result = simulator.run(images, record_steps=steps)
    slow = Simulator(network, arithmetic=arithmetic, backend="reference").run(images, record_steps=steps)
    assert list(result.outputs_at) == list(slow.outputs_at) == sorted({*steps, T})
    for step, outputs in result.outputs_at.items():
        assert outputs.dtype == np.float64
        assert np.array_equal(outputs, slow.outputs_at[step])
        assert np.array_equal(outputs, ended_at(network, images, step, T, arithmetic))
    plain = simulator.run(images)
    assert np.array_equal(plain.outputs, result.outputs)
    assert [(p.n_spikes, p.n_events, p.sops) for p in plain.layers] == [
        (p.n_spikes, p.n_events, p.sops) for p in result.layers
    ]


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize("readout", ["membrane", "spikes"])
@pytest.mark.parametrize("shift", ["bias", "initial", "none"])
@pytest.mark.parametrize("threads, n_samples", [(1, 1), (2, 3), (3, 1)])
def test_across_blocks_and_threads(shift, readout, arithmetic, threads, n_samples):
    """130 steps are three blocks; the first and last steps of a block are read."""
    network, steps = classifier(shift, readout), (1, 64, 65, 128)
    result = evsnn.simulate(
        network, IMAGES[:n_samples], n_steps=130, record_steps=steps, arithmetic=arithmetic, threads=threads
    )
    assert np.array_equal(result.outputs_at[130], result.outputs)
    for step in (*steps, 130):
        assert np.array_equal(
            result.outputs_at[step],
            ended_at(network, IMAGES[:n_samples], step, 130, arithmetic, backend="auto"),
        ), step
    assert len({outputs.tobytes() for outputs in result.outputs_at.values()}) == 5


@pytest.mark.parametrize("shift", ["bias", "initial", "none"])
def test_readings_of_a_split_layer_equal_the_engines_own_runs(shift):
    """A readout so large that threads share it, and weights enough to be fetched ahead."""
    rng = np.random.default_rng(0)
    network = Network(
        [
            Input((40,)),
            Linear(rng.normal(size=(900, 40))),
            IF(3.0),
            Linear(rng.normal(size=(900, 900)) / 30),
            IF(1.0),
            Linear(rng.normal(size=(700, 900))),
            Readout(),
        ],
        n_steps=90,
        shift=shift,
    )
    images = rng.random((1, 40), dtype=np.float32)
    result = evsnn.simulate(network, images, record_steps=(7, 64, 71), threads=2)
    for step in (7, 64, 71, 90):
        alone = evsnn.simulate(
            network, images, n_steps=step, shift_steps=90 if shift == "bias" else None, threads=1
        )
        assert np.array_equal(result.outputs_at[step], alone.outputs)


@pytest.mark.parametrize("readout", ["conv", "identity"])
def test_a_readout_charged_channel_by_channel(readout):
    """Depthwise weights and identity shortcuts read masks themselves, without a queue."""
    rng = np.random.default_rng(0)
    last = (
        [Conv2d(rng.normal(size=(6, 1, 1, 1)), groups=6, name="last")]
        if readout == "conv"
        else [Conv2d(rng.normal(size=(6, 6, 1, 1)), name="w"), Add(inputs=("w", "a"))]
    )
    network = Network(
        [
            Input((6, 1, 1)),
            Conv2d(rng.normal(size=(6, 6, 1, 1))),
            IF(1.0, name="a"),
            *last,
            Flatten(),
            Readout(),
        ],
        n_steps=9,
        input_range=(0, 1),
    )
    images = rng.random((2, 6, 1, 1), dtype=np.float32)
    for arithmetic in ("float32", "int8"):
        result = evsnn.simulate(network, images, record_steps=range(1, 10), arithmetic=arithmetic)
        for step in range(1, 10):
            assert np.array_equal(result.outputs_at[step], ended_at(network, images, step, 9, arithmetic))


def test_predictions_and_accuracy_at_a_step():
    labels = np.array([0, 1, 2])
    result = evsnn.simulate(classifier(), IMAGES, record_steps=(3, 1), labels=labels)
    assert list(result.outputs_at) == [1, 3, 16]
    for step in result.outputs_at:
        assert np.array_equal(result.predictions_at(step), result.outputs_at[step].argmax(axis=1))
        assert result.accuracy_at(step) == (result.predictions_at(step) == labels).mean()
    assert result.accuracy_at(16) == result.accuracy
    assert list(evsnn.simulate(classifier(), IMAGES).outputs_at) == [16]
    assert evsnn.simulate(classifier(), IMAGES).accuracy_at(16) is None
    assert np.array_equal(pickle.loads(pickle.dumps(result)).outputs_at[3], result.outputs_at[3])
    with pytest.raises(
        RunError, match=r"not read after this step: got 2, expected 1, 3, 16\. Name it in record_steps"
    ):
        result.predictions_at(2)


def test_record_steps_takes_any_iterable_of_integers():
    network = classifier()
    wanted = evsnn.simulate(network, IMAGES, record_steps=(2, 5, 16)).outputs_at
    for steps in ([5, 2], np.array([16, 2, 5]), {2, 5}, (t for t in (2, 5)), (np.int64(5), 2)):
        outputs_at = evsnn.simulate(network, IMAGES, record_steps=steps).outputs_at
        assert list(outputs_at) == [2, 5, 16] and all(type(step) is int for step in outputs_at)
        assert all(np.array_equal(outputs_at[step], wanted[step]) for step in wanted)


@pytest.mark.parametrize(
    "record_steps, message",
    [
        ((), "record_steps is empty: expected integers from 1 to 16, each once"),
        ((0,), "record_steps is out of range: got 0, expected integers from 1 to 16"),
        ((4, 17), "record_steps is out of range: got 17"),
        ((-1,), "record_steps is out of range: got -1"),
        ((4.0,), "record_steps is out of range: got 4.0"),
        ((True,), "record_steps is out of range: got True"),
        (np.array([True]), "record_steps is out of range"),
        (("4",), "record_steps is out of range: got '4'"),
        (np.array([[4]]), "record_steps is out of range"),
        ((4, 8, 4), "record_steps names a step twice: got 4"),
        (iter(lambda: 4, 5), "record_steps names a step twice: got 4"),
        (4, "record_steps is not a list of steps: got 4"),
        ("48", "record_steps is not a list of steps: got '48'"),
    ],
)
def test_bad_steps_are_refused(record_steps, message):
    with pytest.raises(RunError, match=message):
        evsnn.simulate(classifier(), IMAGES, record_steps=record_steps, backend="reference")


def test_networks_with_a_warm_up_are_recorded_at_their_end_alone():
    network = classifier(warm_up_steps=2)
    with pytest.raises(
        RunError,
        match="with a warm-up can be recorded after its last step alone: got step 4, expected step 16",
    ):
        evsnn.simulate(network, IMAGES, record_steps=(4, 16))
    result = evsnn.simulate(network, IMAGES, record_steps=(16,))
    assert np.array_equal(result.outputs_at[16], evsnn.simulate(network, IMAGES).outputs)


def test_the_shift_of_another_number_of_steps():
    network = classifier()
    shifted = build_circuit(network, 6, shift_steps=8).populations
    for population, own, none in zip(
        shifted,
        build_circuit(network, 6).populations,
        build_circuit(network.replace(shift="none"), 6).populations,
    ):
        extra = 0 if population.neuron.v_threshold is None else population.neuron.v_threshold / 16
        assert np.allclose(population.bias, none.bias + extra, rtol=0, atol=1e-6)
        assert np.array_equal(population.bias, own.bias) == (population.neuron.v_threshold is None)
    assert np.array_equal(
        evsnn.simulate(network, IMAGES, shift_steps=16).outputs, evsnn.simulate(network, IMAGES).outputs
    )
    integers = evsnn.simulate(network, IMAGES, n_steps=6, shift_steps=8, arithmetic="int8")
    assert np.array_equal(
        integers.outputs, Simulator(quantize(network, 6, shift_steps=8)).run(IMAGES).outputs
    )
    assert np.array_equal(integers.outputs, ended_at(network, IMAGES, 6, 6, "int8", shift_steps=8))


@pytest.mark.parametrize("shift_steps", [0, -1, 2.0, True, "8", 65_537])
def test_bad_shift_steps_are_refused(shift_steps):
    with pytest.raises(RunError, match="shift_steps: n_steps is out of range"):
        Simulator(classifier(), shift_steps=shift_steps)


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_shift_steps_need_a_shift_that_has_steps(arithmetic):
    for shift in ("initial", "none"):
        with pytest.raises(
            RunError,
            match=(
                f"shift_steps: the network's shift has no number of steps: got shift '{shift}', expected"
                " shift 'bias'"
            ),
        ):
            Simulator(classifier(shift), shift_steps=8, arithmetic=arithmetic)
    with pytest.raises(RunError, match="shift_steps: a quantized network has its shift already"):
        Simulator(quantize(classifier()), shift_steps=8)
