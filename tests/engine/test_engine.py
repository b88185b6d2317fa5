"""The event-driven engine equals the reference, and the reference equals a naive one, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from generate import networks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive import Naive
from networks import IMAGES, small_network
from running import ALLOCATING, DISABLE_JIT, assert_same, run_both

import evsnn
from evsnn import IF, Add, AvgPool2d, Concat, Conv2d, Flatten, Input, Linear, Network, Readout
from evsnn.arguments import RECORDS
from evsnn.circuit.build import build_circuit
from evsnn.circuit.encoding import check_images, encode
from evsnn.engine.plan import plan
from evsnn.simulation import Simulator

SETTINGS = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@given(networks(small=True, max_layers=3))
@settings(SETTINGS, max_examples=40)
def test_reference_equals_naive(case):
    network, images = case
    result = evsnn.simulate(network, images[:1], record=RECORDS, backend="reference")
    image = check_images(network, images, network.n_steps)[0]
    if network.input.encoding == "poisson":
        image = encode(network, image, network.n_steps, 0, 0).reshape(network.n_steps, *network.input_shape)
    trains, membranes = Naive(network, image, network.n_steps).run()
    rows = {}
    for layer in result.layers:
        if layer.v_mem is not None:
            assert np.array_equal(layer.v_mem[0], membranes[layer.name]), layer.name
        if layer.fires:
            rows.setdefault(layer.name.split("[")[0], []).append(
                layer.spikes[0]
            )  # a max pool of several sources has several rows
    assert rows.keys() == trains.keys()
    for name, spikes in rows.items():
        assert np.array_equal(np.concatenate(spikes, axis=1), trains[name]), name


@pytest.mark.slow
@given(networks())
@settings(SETTINGS, max_examples=120)
def test_engine_equals_reference_float32(case):
    run_both(*case)


@pytest.mark.slow
@given(networks())
@settings(SETTINGS, max_examples=120)
def test_engine_equals_reference_int8(case):
    run_both(*case, arithmetic="int8")


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize("n_steps", [1, 7, 64, 65, 150])
def test_any_number_of_steps(n_steps, arithmetic):
    run_both(small_network(), IMAGES[:1], n_steps, arithmetic)


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize(
    "drive, low, high", [(0.0, 0.0, 0.0), (0.1, 0.001, 0.1), (1.0, 0.1, 0.5), (100.0, 0.4, 1.0)]
)
def test_any_rate(drive, low, high, arithmetic):
    result = run_both(small_network(rate=drive or 1e-3), IMAGES[:2], arithmetic=arithmetic)
    assert low <= result.mean_rate <= high


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("n_samples", [1, 2, 5])
def test_any_threads_and_batch(threads, n_samples, arithmetic):
    network = small_network(130)
    alone = [
        evsnn.simulate(network, IMAGES[i], arithmetic=arithmetic, threads=1, record=RECORDS)
        for i in range(n_samples)
    ]
    together = evsnn.simulate(
        network, IMAGES[:n_samples], arithmetic=arithmetic, threads=threads, record=RECORDS
    )
    assert np.array_equal(together.outputs, np.concatenate([r.outputs for r in alone]))
    for j, layer in enumerate(together.layers):
        assert np.array_equal(layer.v_mem, np.concatenate([r.layers[j].v_mem for r in alone]))
        assert layer.sops == sum(r.layers[j].sops for r in alone)


@pytest.mark.parametrize("block_steps", [1, 3, 8])
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_blocks_change_nothing(block_steps, arithmetic):
    network = small_network()
    simulator = Simulator(network, 8, arithmetic=arithmetic, threads=2)
    whole = simulator.run(IMAGES, record=RECORDS)
    pieces = Simulator(network, 8, arithmetic=arithmetic, threads=2)
    pieces.plan = plan(pieces.circuit, pieces.quantized.widths if pieces.quantized else None, block_steps)
    assert_same(pieces.run(IMAGES, record=RECORDS), whole)


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize("channels", [1, 31, 32, 33, 64, 65, 127, 128, 129, 200, 257])
def test_channels_at_tile_edges(channels, arithmetic):
    run_both(small_network(channels), IMAGES[:1], 4, arithmetic)


def wide_network():
    """Rows of 1,027 positions x 65 channels: ids beyond 65,535, plain and pooled."""
    rng = np.random.default_rng(2)
    return Network(
        [
            Input((1, 1, 1027)),
            Conv2d(rng.normal(size=(65, 1, 1, 1)), rng.normal(size=65)),
            IF(0.7, name="a"),
            Conv2d(rng.normal(size=(5, 65, 1, 3)), stride=(1, 4)),
            IF(0.9, name="b"),
            AvgPool2d((1, 2), (1, 1), inputs="a"),
            Conv2d(rng.normal(size=(5, 65, 1, 2)), stride=(1, 4)),
            Add(inputs=("b", "conv2d3")),
            IF(0.5),
            AvgPool2d(),
            Flatten(),
            Linear(rng.normal(size=(3, 5))),
            Readout(),
        ],
        n_steps=3,
        input_range=(0, 1),
    )


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_rows_too_wide_for_16_bit_ids(arithmetic):
    network = wide_network()
    images = np.random.default_rng(0).random((1, *network.input_shape), dtype=np.float32)
    simulator = Simulator(network, arithmetic=arithmetic)
    assert [p.id_bits for p in simulator.plan.populations[1:3]] == [32, 32]
    run_both(network, images, arithmetic=arithmetic)


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_pools_with_counts_beyond_a_byte(arithmetic):
    rng = np.random.default_rng(3)
    network = Network(
        [
            Input((1, 20, 20)),
            Conv2d(rng.normal(size=(9, 1, 1, 1)), np.full(9, 0.5)),
            IF(0.4),
            AvgPool2d(),
            Conv2d(rng.normal(size=(70, 9, 1, 1))),
            IF(0.3),
            Flatten(),
            Linear(rng.normal(size=(10, 70))),
            Readout(),
        ],
        n_steps=6,
        input_range=(0, 1),
    )
    images = rng.random((2, 1, 20, 20), dtype=np.float32)
    result = run_both(network, images, arithmetic=arithmetic)
    assert result.layers[1].n_events <= 9 * 6 * 2  # a pooled position counts once


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_partial_sums_are_brought_home_in_time(arithmetic):
    """2,000 inputs of weight 127 at every step: a 16-bit sum would wrap many times within one step."""
    n = 2000
    network = Network(
        [
            Input((n,)),
            Linear(np.eye(n), np.zeros(n)),
            IF(0.5),
            Linear(np.ones((40, n)) * np.linspace(0.1, 1, 40)[:, None]),
            IF(50.0),
            Linear(np.ones((10, 40))),
            Readout(),
        ],
        n_steps=3,
        input_range=(0, 1),
    )
    result = run_both(network, np.ones((1, n), np.float32), arithmetic=arithmetic)
    assert result.layers[0].n_spikes == 3 * n
    assert result.layers[2].v_mem.max() > 0


def test_spike_readout_sums_amplitudes():
    network = Network(
        [Input((2,)), Linear(np.eye(2)), IF(np.array([0.25, 0.5])), Readout()],
        n_steps=4,
        shift="none",
        readout="spikes",
    )
    result = run_both(network, np.array([[0.25, 0.25]], np.float32))
    assert result.outputs.tolist() == [[0.25, 0.25]]
    assert result.layers[0].n_spikes == 4 + 2


def test_sops_count_true_fan_out():
    """Corner, edge and centre spikes of a 3x3 kernel with padding reach 4, 6 and 9 outputs."""
    image = np.zeros((1, 3, 3), np.float32)
    for at, reached in (((0, 0, 0), 4), ((0, 0, 1), 6), ((0, 1, 1), 9)):
        picture = image.copy()
        picture[at] = 1
        network = Network(
            [
                Input((1, 3, 3)),
                Conv2d(np.ones((1, 1, 1, 1))),
                IF(1.0),
                Conv2d(np.ones((7, 1, 3, 3)), padding=1),
                IF(1e9),
                AvgPool2d(),
                Flatten(),
                Linear(np.ones((2, 7))),
                Readout(),
            ],
            n_steps=5,
            shift="none",
        )
        result = run_both(network, picture[None])
        assert result.layers[1].sops == 5 * 7 * reached
        assert result.layers[1].n_events == 5


def test_poisson_input_is_seeded_and_the_same_in_any_batch():
    network = small_network(encoding="poisson")
    one = evsnn.simulate(network, IMAGES, seed=7, record=RECORDS)
    assert_same(one, evsnn.simulate(network, IMAGES, seed=7, record=RECORDS, backend="reference"))
    assert np.array_equal(one.outputs[:2], evsnn.simulate(network, IMAGES[:2], seed=7, threads=1).outputs)
    assert not np.array_equal(one.outputs, evsnn.simulate(network, IMAGES, seed=8).outputs)


def test_concatenated_groups_cross_parts():
    """Groups whose channels straddle tiles and concatenated sources."""
    rng = np.random.default_rng(4)
    network = Network(
        [
            Input((2, 6, 5)),
            Conv2d(rng.normal(size=(30, 2, 3, 3)), padding=1),
            IF(0.8, name="a"),
            Conv2d(rng.normal(size=(45, 30, 1, 1)) / 5, inputs="a"),
            IF(0.6, name="b"),
            AvgPool2d(3, 1, 1, name="p", inputs="a"),
            Concat(inputs=("a", "p", "b")),
            Conv2d(
                rng.normal(size=(150, 35, 3, 2)) / 10, groups=3, dilation=(1, 2), stride=(2, 1), padding=1
            ),
            IF(0.7),
            Flatten(),
            Linear(rng.normal(size=(10, 150 * 3 * 5))),
            Readout(),
        ],
        n_steps=6,
        input_range=(0, 1),
    )
    images = rng.random((2, 2, 6, 5), dtype=np.float32)
    for arithmetic in ("float32", "int8"):
        run_both(network, images, arithmetic=arithmetic)


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_large_and_small_pools_share_a_workspace(arithmetic):
    """Counters of a large window must not be left over for the next sample's small one."""
    rng = np.random.default_rng(6)
    network = Network(
        [
            Input((2, 8, 8)),
            Conv2d(rng.normal(size=(20, 2, 3, 3)), np.full(20, 0.5), padding=1),
            IF(0.3),
            AvgPool2d(2),
            Conv2d(rng.normal(size=(20, 20, 3, 3)) / 5, padding=1),
            IF(0.2),
            AvgPool2d(4),
            Flatten(),
            Linear(rng.normal(size=(10, 20))),
            Readout(),
        ],
        n_steps=8,
        input_range=(0, 1),
    )
    run_both(network, rng.random((4, 2, 8, 8), dtype=np.float32), arithmetic=arithmetic, threads=1)


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_more_weight_rows_than_16_bits_count(arithmetic):
    """A linear layer over 65 channels of 33 x 33: ids of a row fit 16 bits, rows of the weights do not."""
    rng = np.random.default_rng(7)
    network = Network(
        [
            Input((65, 33, 33), "events"),
            Flatten(),
            Linear(rng.normal(size=(20, 65 * 33 * 33)) / 100),
            IF(0.5),
            Linear(rng.normal(size=(3, 20))),
            Readout(),
        ],
        n_steps=2,
    )
    images = rng.random((1, 2, 65, 33, 33)) < 0.02
    images[..., -1, -1] = True
    run_both(network, images, arithmetic=arithmetic)


def test_effective_weights_are_rounded_once():
    """Weight times amplitude over area, in float64, then to float32: not the same as rounding on the way."""
    rng = np.random.default_rng(8)
    weight, threshold = (
        rng.normal(size=(30, 7, 1, 1)).astype(np.float32),
        rng.uniform(0.1, 3, 7).astype(np.float32),
    )
    network = Network(
        [
            Input((7, 6, 6)),
            Conv2d(rng.normal(size=(7, 7, 1, 1))),
            IF(threshold),
            AvgPool2d(3),
            Conv2d(weight),
            IF(),
            AvgPool2d(),
            Flatten(),
            Linear(np.ones((2, 30))),
            Readout(),
        ],
        n_steps=2,
    )
    effective = build_circuit(network).populations[1].projections[0].effective()
    exact = (weight.astype(np.float64) * (threshold.astype(np.float64) / 9)[:, None, None]).astype(np.float32)
    early = weight * (threshold / np.float32(9))[:, None, None]
    assert np.array_equal(effective, exact)
    assert not np.array_equal(exact, early)


@pytest.mark.skipif(DISABLE_JIT, reason="the engine allocates")
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize("n_steps", [8, 100])
@pytest.mark.parametrize("threads", [1, 3])
def test_memory_is_announced(monkeypatch, arithmetic, n_steps, threads):
    """What `aligned` hands out is what was announced, to a few kilobytes of tables."""
    import evsnn.engine.plan
    import evsnn.engine.runner
    import evsnn.engine.workspace

    taken = []

    def counted(n_bytes):
        taken.append(n_bytes)
        return original(n_bytes)

    original = evsnn.engine.plan.aligned
    for module in ALLOCATING:
        monkeypatch.setattr(module, "aligned", counted)
    simulator = Simulator(small_network(200), n_steps, arithmetic=arithmetic, threads=threads)
    announced = simulator.memory_bytes
    simulator.run(IMAGES)
    assert sum(announced.values()) * 0.97 - 4096 <= sum(taken) <= sum(announced.values()) + 4096


def test_large_workspaces_take_fewer_steps_at_once():
    rng = np.random.default_rng(9)
    network = Network(
        [
            Input((1, 512, 512)),
            Conv2d(rng.normal(size=(64, 1, 3, 3)), padding=1),
            IF(),
            AvgPool2d(16),
            AvgPool2d(8),
            Flatten(),
            Linear(np.ones((2, 1024))),
            Readout(),
        ],
        n_steps=64,
    )
    plan_of_it = Simulator(network, threads=1).plan
    assert plan_of_it.block_steps < 64
    assert plan_of_it.carries
    assert plan_of_it.workspace_bytes < 400 << 20


def test_one_simulator_in_many_threads():
    """Runs take turns; each gets its own answer."""
    from concurrent.futures import ThreadPoolExecutor

    simulator = Simulator(small_network(), threads=2)
    expected = [simulator.run(IMAGES[i]).outputs for i in range(5)]
    with ThreadPoolExecutor(5) as pool:
        got = list(pool.map(lambda i: simulator.run(IMAGES[i % 5]).outputs, range(40)))
    assert all(np.array_equal(outputs, expected[i % 5]) for i, outputs in enumerate(got))


@pytest.mark.slow
@given(networks(warm_ups=False), st.integers(1, 7), st.integers(1, 3), st.sampled_from(["float32", "int8"]))
@settings(SETTINGS, max_examples=60)
def test_blocks_and_threads_change_nothing_anywhere(case, block_steps, threads, arithmetic):
    """Short last blocks, membranes carried over, samples split over threads: on any network and input."""
    network, images = case
    slow = evsnn.simulate(network, images, arithmetic=arithmetic, record=RECORDS, backend="reference")
    simulator = Simulator(network, arithmetic=arithmetic, threads=threads)
    simulator.plan = plan(
        simulator.circuit, simulator.quantized.widths if simulator.quantized else None, block_steps
    )
    assert_same(simulator.run(images, record=RECORDS), slow)


def test_a_simulator_refuses_to_run_inside_itself():
    simulator = Simulator(small_network(), threads=1)
    with pytest.raises(evsnn.RunError, match="inside its own run"):
        simulator.run(IMAGES, progress=lambda done, total: simulator.run(IMAGES))
    assert simulator.run(IMAGES).n_samples == 5


def test_inputs_whose_sums_could_leave_float32_are_refused():
    network = Network([Input((2,)), Linear(np.full((3, 2), 1e20)), Readout()], n_steps=4)
    largest = network.largest_input
    for backend in ("numba", "reference"):
        result = evsnn.simulate(network, np.full((1, 2), 0.99 * largest), n_steps=65_536, backend=backend)
        assert np.isfinite(result.outputs).all()
        with pytest.raises(evsnn.InputError, match="images are too large: sums of the network could leave"):
            evsnn.simulate(network, np.full((1, 2), 1.01 * largest), backend=backend)


def test_a_run_without_end_stops_at_infinity():
    """A network without a T of its own runs on, beyond the steps that its sums are proven for."""
    network = Network([Input((1,)), Linear([[1.0]]), Readout()], n_steps=65_536, shift="none")
    simulator = evsnn.Simulator(network)
    state = simulator.start(np.array([0.99 * network.largest_input]))
    with pytest.raises(evsnn.RunError, match="outputs are not finite"):
        for _ in range(8):
            simulator.advance(state, 65_536)


@pytest.mark.parametrize(
    "call",
    [
        lambda net: evsnn.simulate("weights.h5", IMAGES),
        lambda net: evsnn.simulate(net, [[1, 2], [3]]),
        lambda net: evsnn.simulate(net, np.array(["a"])),
        lambda net: evsnn.simulate(net, IMAGES + np.nan),
        lambda net: evsnn.simulate(net, IMAGES[:0]),
        lambda net: evsnn.simulate(net, IMAGES[:, :2]),
        lambda net: evsnn.simulate(net, IMAGES, labels=["a"] * 5),
        lambda net: evsnn.simulate(net, IMAGES, labels=[1, 2]),
        lambda net: evsnn.simulate(net, IMAGES, labels=[0.5] * 5),
        lambda net: evsnn.simulate(net, IMAGES, labels=[10] * 5),
        lambda net: evsnn.simulate(net, IMAGES, labels=[[1], [2, 3]]),
        lambda net: evsnn.simulate(net, IMAGES, record=5),
        lambda net: evsnn.simulate(net, IMAGES, record="all"),
        lambda net: evsnn.simulate(net, IMAGES, seed=-1),
        lambda net: evsnn.simulate(net, IMAGES, seed="a"),
        lambda net: evsnn.simulate(net, IMAGES, n_steps=0),
        lambda net: evsnn.simulate(net, IMAGES, n_steps=10**9),
        lambda net: evsnn.simulate(net, IMAGES, n_steps=2.0),
        lambda net: evsnn.simulate(net, IMAGES, threads=0),
        lambda net: evsnn.simulate(net, IMAGES, arithmetic="int4"),
        lambda net: evsnn.simulate(net, IMAGES, backend="gpu"),
    ],
)
def test_bad_arguments_are_one_error(call):
    with pytest.raises(evsnn.EvsnnError) as caught:
        call(small_network(5))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_the_analog_input_as_a_shortcut(arithmetic):
    """Beside weights much smaller than 1: its integers must fit, too."""
    network = Network(
        [
            Input((1,), name="i"),
            Linear([[0.01]], name="c"),
            Add(inputs=("c", "i")),
            IF(1.0),
            Linear([[1.0]]),
            Readout(),
        ],
        n_steps=4,
        input_range=(0, 1),
        shift="none",
    )
    assert abs(run_both(network, np.array([[0.9]]), arithmetic=arithmetic).outputs[0, 0] - 0.75) < 0.01


def test_spike_readout_over_blocks():
    thresholds = np.random.default_rng(0).uniform(0.1, 1, 10)
    run_both(
        Network([Input((10,)), IF(thresholds), Readout()], n_steps=200, readout="spikes"),
        np.random.default_rng(1).random((5, 10)),
    )


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize("readout", ["membrane", "spikes"])
def test_tables_are_the_parameters_set_by_hand(arithmetic, readout):
    """At each T of a sweep: the same bits as of a network that was made with that T's parameters."""
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(17, 3, 3, 3)) / 5, rng.normal(size=(5, 17 * 72)) / 30

    def make(
        bias=None,
        threshold=1.0,
        v_init=0.25,
        negative_threshold=0.0,
        last_bias=None,
        last=0.5,
        step_parameters=None,
    ):
        fire = IF(threshold, v_init, negative_threshold=negative_threshold, name="fire")
        layers = [
            Input((3, 9, 8)),
            Conv2d(weights[0], bias, padding=1, name="conv"),
            fire,
            Flatten(),
            Linear(weights[1], last_bias, name="linear"),
        ]
        layers += [IF(last, name="last")] * (readout == "spikes")
        return evsnn.Network(
            [*layers, Readout()],
            n_steps=16,
            readout=readout,
            input_range=(0, 1),
            step_parameters=tables or {},
        )

    by_hand = {
        2: {"bias": rng.normal(size=17), "threshold": rng.uniform(0.5, 1, 17)},
        8: {
            "threshold": 0.7,
            "v_init": rng.normal(size=17),
            "negative_threshold": 0.5,
            "last_bias": rng.normal(size=5),
        },
        20: {},
    }
    if readout == "spikes":
        by_hand[2]["last"], by_hand[8]["last"] = 0.25, rng.uniform(0.1, 0.4, 5)
    homes = {
        "bias": ("conv", "bias"),
        "threshold": ("fire", "v_threshold"),
        "v_init": ("fire", "v_init"),
        "negative_threshold": ("fire", "negative_threshold"),
        "last_bias": ("linear", "bias"),
        "last": ("last", "v_threshold"),
    }
    tables = {}
    for n_steps, values in by_hand.items():
        fields = {}
        for name, value in values.items():
            layer, field = homes[name]
            fields.setdefault(layer, {})[field] = value
        tables[n_steps] = {layer: evsnn.StepParameters(**given) for layer, given in fields.items()}
    network = make(step_parameters=tables)
    predicted = []
    for n_steps, used in ((2, 2), (3, 2), (8, 8), (None, 20)):
        got = run_both(network, IMAGES[:2], n_steps, arithmetic)
        assert_same(
            got,
            evsnn.simulate(
                make(**by_hand[used]),
                IMAGES[:2],
                n_steps=n_steps,
                arithmetic=arithmetic,
                record=RECORDS,
                backend="reference",
            ),
        )
        assert (got.layers[0].spike_counts.sum() < got.layers[0].n_spikes) == (
            used == 8
        )  # net counts: only there are spikes negative
        predicted.append(got.outputs)
    assert not np.allclose(predicted[1], predicted[2])
    assert evsnn.quantize(network, 2).network is network
