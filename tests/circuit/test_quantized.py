"""Integers: the rounding rules, the proof of the width, and what it costs."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest
from generate import networks
from hypothesis import HealthCheck, given, settings
from networks import input_beside_spikes
from running import run_both

import evsnn
from evsnn import IF, Add, AvgPool2d, Conv2d, Flatten, Input, Linear, Network, Readout, RunError
from evsnn.circuit import reference
from evsnn.circuit.build import build_circuit
from evsnn.circuit.populations import shifted
from evsnn.circuit.quantized import LEAST_Q_MAX, membrane_bounds, quantize

SETTINGS = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def mlp(n_in=12, hidden=20, n_steps=16, scale=1.0, **options):
    rng = np.random.default_rng(0)
    options = {"input_range": (0, 1)} | options
    return Network(
        [
            Input((n_in,)),
            Linear(rng.normal(size=(hidden, n_in)) * scale, rng.normal(size=hidden) * 0.1),
            IF(rng.uniform(0.5, 2, hidden) * scale),
            Linear(rng.normal(size=(hidden, hidden)) * scale),
            IF(2.0 * scale),
            Linear(rng.normal(size=(5, hidden)), rng.normal(size=5)),
            Readout(),
        ],
        n_steps=n_steps,
        **options,
    )


def test_integers_are_rounded_quotients_of_the_unit():
    network = mlp()
    floats, quantized = build_circuit(network), quantize(network)
    for i, (p, q, unit) in enumerate(
        zip(floats.populations, quantized.circuit.populations, quantized.scales)
    ):
        for projection, integers in zip(
            (*p.analog_projections, *p.projections), (*q.analog_projections, *q.projections)
        ):
            weight = projection.effective().astype(np.float64) * (
                quantized.input_scale if projection in p.analog_projections else 1
            )
            assert np.array_equal(integers.weight, np.rint(weight / unit[:, None, None, None]))
            assert integers.weight.dtype == np.int8
            assert np.abs(integers.weight).max() <= 127
        if p.neuron.v_threshold is not None:
            assert np.array_equal(q.neuron.v_threshold, np.rint(p.neuron.v_threshold / unit))
        total = np.rint(16 * (p.bias.astype(np.float64) / unit))
        assert np.array_equal(16 * q.bias + q.neuron.v_init, np.rint(p.neuron.v_init / unit) + total), (
            "the charge of all steps is exact"
        )
        assert i < 2 or len(set(unit)) == 1, "a readout has one unit"


@pytest.mark.parametrize("seed", range(8))
def test_integers_of_a_file_are_the_integers_that_run(tmp_path, seed):
    """Weights stored as int8 and read behind thresholds that a layer shares, whatever these are, and pools:
    nothing is rounded again.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape) * 10 ** rng.uniform(-1, 1, (shape[0], *[1] * (len(shape) - 1)))

    dead = normal(6, 5, 1, 1)
    dead[2] = 0
    network = Network(
        [
            Input((2, 6, 6)),
            Conv2d(normal(5, 2, 3, 3), rng.normal(size=5), padding=1),
            IF(rng.uniform(0.1, 9)),
            AvgPool2d(3, 3),
            Conv2d(dead),
            IF(rng.uniform(0.1, 9)),
            Conv2d(normal(6, 1, 1, 1), groups=6),
            IF(rng.uniform(0.1, 9)),
            Flatten(),
            Linear(normal(7, 24)),
            IF(rng.uniform(0.1, 9, 7)),
            Linear(normal(3, 7)),
            Readout(),
        ],
        n_steps=8,
        input_range=(-2, 2.5),
    )
    evsnn.save(tmp_path / "f.h5", network, storage="int8")
    with h5py.File(tmp_path / "f.h5") as f:
        stored = [layer["weight"][()] for layer in f["layers"].values() if "weight" in layer]
    populations = quantize(evsnn.load(tmp_path / "f.h5"), membrane="int32").circuit.populations
    for population, integers in zip(populations[:-1], stored[:-1]):
        (projection,) = (*population.analog_projections, *population.projections)
        assert np.array_equal(projection.weight.reshape(integers.shape), integers)


def test_scaling_a_channel_changes_nothing():
    """Thresholds, weights and bias of a neuron times any factor: the same integers."""
    network = mlp()
    factor = np.array([0.25, 8.0, 1.0, 0.5] * 5, np.float32)
    layers = list(network.layers)
    old = layers[3]
    layers[3] = Linear(old.weight * factor[:, None], name=old.name, inputs=old.inputs)
    layers[4] = IF(2.0 * factor, name=layers[4].name, inputs=layers[4].inputs)
    layers[5] = Linear(
        layers[5].weight / factor, layers[5].bias, name=layers[5].name, inputs=layers[5].inputs
    )
    scaled = Network(layers, n_steps=16, input_range=(0, 1))
    for a, b in zip(quantize(network).circuit.populations, quantize(scaled).circuit.populations):
        assert np.array_equal(a.bias, b.bias)
        for one, other in zip(a.projections, b.projections):
            assert np.array_equal(one.weight, other.weight)


@given(networks(encodings=("constant", "events")))
@settings(SETTINGS, max_examples=60)
def test_membranes_stay_within_their_proof(case):
    """Under random input and under the worst: every input at its ends, every step."""
    network, images = case
    quantized = quantize(network)
    ends = [np.zeros_like(images[:1]), np.ones_like(images[:1]), images[:1]]
    inputs = np.concatenate(ends).reshape(
        3, *((quantized.n_steps,) if not quantized.circuit.analog else ()), *quantized.circuit.input_shape
    )
    inputs = quantized.encode(inputs) if quantized.circuit.analog else inputs
    for steps_seen in (
        {quantized.n_steps} if quantized.circuit.has_warm_up else {1, quantized.n_steps}
    ):  # half a delayed run has other phases
        traces = reference.run(
            _first_steps(quantized.circuit, steps_seen),
            inputs[:, :steps_seen] if not quantized.circuit.analog else inputs,
        )
        for trace, bounds, width in zip(traces, quantized.bounds, quantized.widths):
            if trace.v_mem is None:
                assert bounds is None and width is None
                continue
            low, high = bounds
            assert low <= trace.v_mem.min() and trace.v_mem.max() <= high
            limit = 1 << (15 if width == "int16" else 31)
            assert -limit <= low and high < limit


def _first_steps(circuit, n_steps):
    return dataclasses.replace(circuit, n_steps=n_steps)


def test_bounds_are_tight():
    """A neuron with the worst input at every step reaches the lower bound, and nearly the upper one."""
    network = Network(
        [
            Input((4,), "events"),
            Linear(np.array([[1.0, 1.0, -1.0, 0.5]])),
            IF(1.5),
            Linear(np.ones((2, 1))),
            Readout(),
        ],
        n_steps=6,
        shift="none",
    )
    quantized = quantize(network)
    population = quantized.circuit.populations[0]
    low, high = membrane_bounds(population, 6, (0, 1))
    up, down = np.array([1, 1, 0, 1], bool), np.array([0, 0, 1, 0], bool)
    worst = reference.run(quantized.circuit, np.broadcast_to(down, (1, 6, 4))[..., None, None])[0].v_mem.min()
    assert low[0] == worst == -6 * 127
    v, highest = 0, 0
    for _ in range(6):
        v += int(population.projections[0].weight.ravel()[up].sum())
        highest = max(highest, v)
        v -= int(population.neuron.v_threshold[0]) * (v >= population.neuron.v_threshold[0])
    assert highest <= high[0] < highest + population.neuron.v_threshold[0]


def test_weights_are_fitted_until_16_bits_are_proven():
    network = mlp(hidden=60, n_steps=32)
    fitted, full = quantize(network), quantize(network, membrane="int32")
    assert fitted.widths[1] == "int16"
    assert LEAST_Q_MAX <= fitted.q_max[1].min() < 127
    assert full.widths == ("int32",) * 3
    assert full.q_max[1].min() == 127
    tight = fitted.circuit.populations[1]
    low, high = membrane_bounds(tight, 32, (0, 255))
    assert low.min() >= -(1 << 15) and high.max() < 1 << 15
    one_more = quantize(network.replace(n_steps=1000))
    assert one_more.widths[1] == "int32", "where fitting would cost too much"
    with pytest.raises(RunError, match="no weights fit"):
        quantize(network.replace(n_steps=65_536), membrane="int16")


@pytest.mark.slow
def test_wrapping_sums_come_home():
    """Sums of one step pass 16 bits on the way, membranes do not: int16 equals int32."""
    n = 600
    weight = np.where(np.arange(n) < n // 2, 1.0, -1.0)[None].repeat(40, 0)
    network = Network(
        [
            Input((n,), "events"),
            Linear(weight),
            IF(50.0),
            Linear(np.ones((3, 40))),
            Readout(),
        ],
        n_steps=1,
        shift="none",
    )
    images = np.ones((1, 1, n), bool)
    narrow, wide = (
        evsnn.Simulator(quantize(network, membrane=m)).run(images, record=("v_mem",))
        for m in ("auto", "int32")
    )
    assert quantize(network).widths[0] in ("int16", "int32")
    assert narrow.layers[0].v_mem.any() == wide.layers[0].v_mem.any() == False  # noqa: E712 - the halves cancel
    assert np.array_equal(narrow.outputs, wide.outputs)


def test_close_to_float32_and_closer_with_more_steps():
    network = mlp(n_in=30, hidden=50)
    images = np.random.default_rng(1).random((40, 30), dtype=np.float32)
    for n_steps in (8, 32, 128):
        exact = evsnn.simulate(network, images, n_steps=n_steps).outputs
        rounded = evsnn.simulate(network, images, n_steps=n_steps, arithmetic="int8").outputs
        assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.99


def test_identity_shortcuts_keep_their_amplitude():
    """A shortcut much larger than the weights beside it is not squeezed into 8 bits."""
    network = Network(
        [
            Input((3, 4, 4)),
            Conv2d(np.full((3, 3, 1, 1), 0.3)),
            IF(100.0, name="a"),
            Conv2d(np.full((3, 3, 3, 3), 0.001), padding=1, name="b"),
            Add(inputs=("b", "a")),
            IF(100.0),
            Flatten(),
            Linear(np.ones((2, 48))),
            Readout(),
        ],
        n_steps=4,
        input_range=(0, 1),
    )
    population = quantize(network).circuit.populations[1]
    gather, identity = population.projections
    assert identity.weight.max() == population.neuron.v_threshold.max() > 127
    assert gather.weight.max() == 127


def test_input_grids():
    unsigned, negative_threshold = quantize(mlp(input_range=(0, 2))), quantize(mlp(input_range=(-1, 0.5)))
    assert (unsigned.input_scale, unsigned.input_low, unsigned.input_high) == (2 / 255, 0, 255)
    assert (negative_threshold.input_scale, negative_threshold.input_low, negative_threshold.input_high) == (
        1 / 2047,
        -2047,
        2047,
    )
    assert unsigned.encode(np.array([-1.0, 0, 1, 2, 9])).tolist() == [0, 0, 128, 255, 255]


def test_pooled_counts_are_part_of_the_proof():
    rng = np.random.default_rng(0)
    network = Network(
        [
            Input((2, 6, 6)),
            Conv2d(rng.normal(size=(4, 2, 1, 1))),
            IF(0.2),
            AvgPool2d(3),
            Conv2d(rng.normal(size=(5, 4, 1, 1))),
            IF(0.5),
            Flatten(),
            Linear(np.ones((2, 20))),
            Readout(),
        ],
        n_steps=1,
        shift="none",
        input_range=(0, 1),
    )
    population = quantize(network).circuit.populations[1]
    low, high = membrane_bounds(population, 1, (0, 255))
    weight = population.projections[0].weight.reshape(5, -1).astype(int) * 9
    assert np.array_equal(high, np.maximum(weight, 0).sum(1))
    assert np.array_equal(low, np.minimum(weight, 0).sum(1))


def test_a_leaky_neuron_gets_no_remainder():
    """What rounding takes from the bias would leak away, so it is not given back at the start."""
    rng = np.random.default_rng(0)
    network = Network(
        [
            Input((4,)),
            Linear(rng.normal(size=(6, 4)), rng.normal(size=6)),
            IF(1.0, v_init=0.3, leak=0.5),
            Linear(rng.normal(size=(2, 6))),
            Readout(),
        ],
        n_steps=50,
        shift="none",
        input_range=(0, 1),
    )
    quantized = quantize(network)
    assert np.array_equal(
        quantized.circuit.populations[0].neuron.v_init, np.rint(np.float32(0.3) / quantized.scales[0])
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: quantize(mlp(input_range=None)), "need the input's range"),
        (lambda: quantize(mlp(), input_range=(1, np.inf)), "not a range"),
        (lambda: quantize(mlp(), membrane="int8"), "unknown membrane"),
        (lambda: quantize(mlp(), 0), "n_steps is out of range"),
        (lambda: quantize(mlp(n_in=9000), 65536), "could pass 32 bits"),
        (
            lambda: quantize(
                Network(
                    [Input((2,)), Linear(np.eye(2)), IF(1.0, leak=0.7), Linear(np.eye(2)), Readout()],
                    input_range=(0, 1),
                )
            ),
            "leak is not 1 - 2",
        ),
    ],
)
def test_what_integers_cannot_do_is_refused(make, message):
    with pytest.raises(RunError, match=message):
        make()


def test_thresholds_beyond_all_integers_are_refused():
    network = Network(
        [Input((2,)), Linear(np.eye(2)), IF(1e30, shift=False), Linear(np.eye(2)), Readout()],
        n_steps=4,
        shift="none",
        input_range=(0, 1),
    )
    assert evsnn.simulate(network, np.ones((1, 2))).layers[0].n_spikes == 0
    result = evsnn.simulate(network, np.ones((1, 2)), arithmetic="int8")
    assert result.layers[0].n_spikes == 0, "a neuron that cannot fire in float32 must not fire in integers"


@pytest.mark.slow
@pytest.mark.parametrize("op", ["affine", "batch norm"])
def test_inputs_that_the_model_itself_normalises(op):
    """Border neurons beside the analog input have another scale, and take no bits from its weights."""
    onnx = pytest.importorskip("onnx")
    assert onnx
    from onnx_builder import OnnxModel

    from evsnn.conversion.balance.options import Options
    from evsnn.conversion.conversion import convert_model

    m = OnnxModel((2, 8, 8), seed=4)
    if op == "affine":
        x = m.op("Div", m.op("Sub", "x", np.float32(0.5)), np.float32(0.25))
    else:
        x = m.op("BatchNormalization", "x", *(np.full(2, v, np.float32) for v in (1, 0, 0.5, 0.0625)))
    model = m.model(m.head(m.op("Relu", m.conv(x, 2, 12, pads=[1, 1, 1, 1])), 768, 6))
    images = np.random.default_rng(0).random((64, 2, 8, 8), np.float32)
    network = convert_model(model, images, Options((64,), threshold="max")).network
    quantized = quantize(network)
    (mixed,) = (p for p in quantized.circuit.populations if p.analog_projections and p.projections)
    assert all(
        np.abs(projection.weight).max(axis=(1, 2, 3)).min() == 127 for projection in mixed.analog_projections
    )
    exact, rounded = (
        evsnn.simulate(network, images, arithmetic=arithmetic, backend="reference").outputs
        for arithmetic in ("float32", "int8")
    )
    assert np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


def test_dead_channels_do_not_stop_the_others():
    weight = np.array([[1.0, 0.5], [1e-12, 1e-13]])
    network = Network(
        [Input((2,)), Linear(weight), IF(1.0), Linear(np.eye(2)), Readout()], n_steps=8, input_range=(0, 1)
    )
    assert quantize(network).circuit.populations[0].neuron.v_threshold.max() <= 1 << 24


@pytest.mark.parametrize("n_steps", [1, 8, 32])
@pytest.mark.parametrize("tiny", [0.0, 1e-30, 1e-12, 1e-8, 1e-7, 1e-6, 1e-4])
def test_dead_channels_with_a_large_bias(tiny, n_steps):
    """Behind batch norms that decayed: the bias is many thresholds of a channel that never fires."""
    network = Network(
        [
            Input((2,)),
            Linear(np.eye(2)),
            IF(1.0),
            Linear(np.array([[tiny, tiny], [1, 0.5]]), np.array([-0.26, 0])),
            IF(np.array([0.0101, 1]), name="b"),
            Linear(np.eye(2)),
            Readout(),
        ],
        n_steps=n_steps,
        input_range=(0, 1),
    )
    images = np.random.default_rng(0).random((8, 2), dtype=np.float32)
    result = run_both(network, images, arithmetic="int8")
    exact = evsnn.simulate(network, images)
    assert (result.outputs[:, 0] == 0).all()
    assert np.abs(result.outputs - exact.outputs).max() <= 0.05 + 2 / n_steps
    if tiny <= 1e-12 and n_steps <= 8:
        assert quantize(network).widths[1] == "int16"  # as without weights


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("gain", [1.0, 40.0, 0.02])
def test_an_analog_input_beside_gathered_spikes_keeps_its_bits(gain, kernel):
    """Its weights have a grid of their own: on that of the spikes they were 0, or took the spikes' bits."""
    network = input_beside_spikes(gain, kernel)
    images = np.random.default_rng(1).random((32, 2, 6, 5), dtype=np.float32)
    exact = evsnn.simulate(network, images).outputs
    integers = run_both(network, images, arithmetic="int8").outputs
    assert np.sqrt(np.square(integers - exact).mean()) < 0.1 * exact.std()
    mixed = quantize(network).circuit.populations[1]
    assert (mixed.analog_shift > 0).all() if gain <= 1 else (mixed.analog_shift < 8).all()
    assert all(63 < np.abs(s.weight).max() <= 127 for s in (*mixed.projections, *mixed.analog_projections))
    assert quantize(network).widths[1] == "int32"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("readout", ["membrane", "spikes"])
@pytest.mark.parametrize("leak", [1.0, 0.5])
@pytest.mark.parametrize("channels", [3, 70])
def test_shifted_currents_of_engine_and_reference_are_the_same(channels, leak, readout):
    network = input_beside_spikes(0.3, 3, channels, readout, leak)
    low = network.replace(input_range=(-1, 1))
    images = np.random.default_rng(2).uniform(-1, 1, (2, 2, 6, 5)).astype(np.float32)
    for one in (network, low):
        run_both(one, images, arithmetic="int8")


def test_bounds_of_shifted_currents_hold():
    quantized = quantize(input_beside_spikes(40.0, 3))
    images = np.stack([np.zeros((2, 6, 5)), np.ones((2, 6, 5))]).astype(np.float32)
    for image in images:
        traces = reference.run(quantized.circuit, quantized.encode(image[None]))
        for trace, bounds in zip(traces, quantized.bounds):
            assert bounds[0] <= trace.v_mem.min() and trace.v_mem.max() <= bounds[1]


def test_shifts_round_to_the_nearest_and_half_up():
    values, shift = np.array([5, 6, 7, -5, -6, -7, 3]), np.array([2, 2, 2, 2, 2, 2, -3])
    assert shifted(values, shift).tolist() == [1, 2, 2, -1, -1, -2, 24]


def test_16_bits_cannot_hold_an_analog_input_beside_gathered_spikes():
    with pytest.raises(RunError, match="membranes of 16 bits cannot hold an analog input beside gathered"):
        quantize(input_beside_spikes(), membrane="int16")


@pytest.mark.parametrize("readout", ["membrane", "spikes"])
def test_many_inputs_of_12_bits_take_coarser_weights(readout):
    """Sums that could pass 32 bits with 7-bit weights fit with fewer; before, such a network was refused."""
    rng = np.random.default_rng(0)
    weights = rng.choice([-1.0, 1.0], (24, 640)) * rng.uniform(0.8, 1, (24, 640)) / 640
    layers = [Input((640,)), Linear(weights), IF(0.02)]
    if readout == "membrane":
        layers += [Linear(rng.normal(size=(5, 24)))]
    net = Network([*layers, Readout()], n_steps=64, shift="bias", readout=readout, input_range=(-1, 1))
    integers = quantize(net)
    assert integers.widths[0] == "int32" and 16 <= integers.q_max[0].min() <= integers.q_max[0].max() < 127
    low, high = integers.bounds[0]
    assert low >= -(2**31) and high < 2**31
    images = rng.choice([-1.0, 1.0], (6, 640)).astype(np.float32)
    images[0] = np.sign(weights[3])
    runs = [evsnn.simulate(integers, images, backend=backend) for backend in ("numba", "reference")]
    np.testing.assert_array_equal(runs[0].outputs, runs[1].outputs)
    floats = evsnn.simulate(net, images)
    assert np.abs(runs[0].outputs - floats.outputs).max() < 0.1 * np.abs(floats.outputs).max()


def test_one_analog_readout_keeps_one_scale():
    """An integrating readout of many inputs has one q_max for all channels."""
    weights = np.random.default_rng(1).normal(size=(3, 9000))
    integers = quantize(Network([Input((9000,)), Linear(weights), Readout()], n_steps=8, input_range=(-1, 1)))
    assert len(set(integers.q_max[0].tolist())) == 1 and np.ptp(integers.scales[0]) == 0
