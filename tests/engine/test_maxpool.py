"""Max pools: their counts are exact, from any source, to any reader, over any blocks and threads."""

from __future__ import annotations

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
    NetworkError,
    Readout,
)
from evsnn.arguments import RECORDS
from evsnn.circuit.build import build_circuit
from evsnn.circuit.quantized import quantize
from evsnn.engine.plan import plan
from evsnn.network.inventory import layer_facts
from evsnn.output.report import layer_table
from evsnn.simulation import Simulator

ARITHMETICS = pytest.mark.parametrize("arithmetic", ["float32", "int8"])
POOLS = {
    "2x2": MaxPool2d(2),
    "3x3 stride 2": MaxPool2d(3, 2),
    "3x3 stride 1, padded": MaxPool2d(3, 1, 1),
    "1x1": MaxPool2d(1),
    "1x5 stride 3, padded on one side": MaxPool2d((1, 5), 3, (0, 3, 0, 0)),
    "whole map": MaxPool2d((7, 9), padding=(2, 1, 1, 0)),
    "with gaps": MaxPool2d(2, 3),
}


def normal(rng, *shape):
    return rng.normal(size=shape) * 2 / np.sqrt(np.prod(shape[1:]))


def one_pool(pool, channels=6, theta=0.0, n_steps=12, encoding="constant", readers=1):
    """A convolution whose neurons a max pool reads, and a convolution that reads the pool."""
    rng = np.random.default_rng(3)
    layers = [Input((2, 7, 9), encoding), Conv2d(normal(rng, channels, 2, 3, 3), padding=1)]
    layers += [
        IF(
            rng.uniform(0.3, 2, channels),
            rng.uniform(0, 3 if theta else 1, channels),
            negative_threshold=theta,
            name="a",
        ),
        MaxPool2d(pool.kernel, pool.stride, pool.padding, name="m"),
    ]
    layers += [
        Conv2d(normal(rng, 5, channels, 1, 1)),
        IF(0.5),
        AvgPool2d(),
        Flatten(),
        Linear(normal(rng, 3, 5)),
        Readout(),
    ]
    return Network(layers, n_steps=n_steps, input_range=(0, 1))


def every_way(encoding="poisson", theta=0.1, channels=6):
    """Pools of neurons, the input, a pool and concatenations; a convolution, a linear layer, an average pool,
    a concatenation and a shortcut read them.
    """
    rng = np.random.default_rng(4)
    c = channels
    return Network(
        [
            Input((2, 7, 6), encoding),
            Conv2d(normal(rng, c, 2, 3, 3), padding=1),
            IF(0.4, rng.uniform(0, 2, c), negative_threshold=theta, name="a"),
            Conv2d(normal(rng, c, c, 1, 1)),
            IF(0.5, 0.4, name="u"),
            MaxPool2d(3, 2, 1, inputs="a", name="m"),
            MaxPool2d(2, 2, (0, 0, 1, 0), inputs="u", name="n"),
            MaxPool2d(2, 1, 1, inputs="m", name="k"),
            Concat(inputs=("a", "u", "a"), name="j"),
            MaxPool2d(3, 2, 1, inputs="j", name="p"),
            Conv2d(normal(rng, c, c, 1, 1), inputs="n", name="c"),
            Conv2d(normal(rng, c, 1, 3, 3), padding=1, groups=c, inputs="m", name="d"),
            Add(inputs=("c", "m", "d", "n")),
            IF(0.7, negative_threshold=theta, name="e"),
            Conv2d(normal(rng, 3, 3 * c, 1, 1), inputs="p"),
            IF(0.3),
            AvgPool2d(2, name="q"),
            AvgPool2d((4, 3), inputs="m", name="r"),
            *(
                [MaxPool2d(3, 2, inputs="input1", name="i"), Flatten(inputs="i", name="fi")]
                if encoding != "constant"
                else []
            ),
            *(Flatten(inputs=name, name=f"f{name}") for name in "keqr"),
            Concat(inputs=["fk", "fe", "fq", "fr", *(["fi"] if encoding != "constant" else [])]),
            Linear(
                normal(
                    rng, 3, c * 5 * 4 + c * 4 * 3 + 3 * 2 + c + (2 * 3 * 2 if encoding != "constant" else 0)
                )
            ),
            Readout(),
        ],
        n_steps=12,
        input_range=(0, 1),
    )


IMAGES = np.random.default_rng(1).random((3, 2, 7, 9), dtype=np.float32)


def largest(spikes, pool):
    """The largest count of each window after each step, of spikes (n_steps, channels, height, width)."""
    counts = spikes.astype(int).cumsum(axis=0)
    top, left, bottom, right = pool.padding
    padded = np.pad(counts, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=counts.min() - 1)
    return np.lib.stride_tricks.sliding_window_view(padded, pool.kernel, axis=(2, 3))[
        :, :, :: pool.stride[0], :: pool.stride[1]
    ].max(axis=(-2, -1))


@ARITHMETICS
@pytest.mark.parametrize("theta", [0.0, 0.1])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())
@pytest.mark.parametrize("n_steps", [12, 65])
def test_at_every_step_the_count_is_the_largest(pool, theta, n_steps, arithmetic):
    result = run_both(one_pool(pool, theta=theta, n_steps=n_steps), IMAGES, arithmetic=arithmetic)
    source, pooled = result.layers[:2]
    assert pooled.spikes.dtype == source.spikes.dtype
    for one, other in zip(source.spikes, pooled.spikes):
        assert np.array_equal(other.astype(int).cumsum(axis=0), largest(one, pool))
    if theta:
        assert (pooled.spikes < 0).any() or pool.kernel == (7, 9)
    assert pooled.n_events == np.count_nonzero(source.spikes)
    assert pooled.n_spikes == np.count_nonzero(pooled.spikes)
    assert (pooled.sops, pooled.macs, pooled.v_mem) == (0, 0, None)


@ARITHMETICS
@pytest.mark.parametrize("channels", [1, 63, 64, 65, 130, 200])
def test_channels_at_word_edges(channels, arithmetic):
    run_both(one_pool(POOLS["3x3 stride 2"], channels), IMAGES[:1], 5, arithmetic)


@ARITHMETICS
@pytest.mark.parametrize("theta", [0.0, 0.1])
@pytest.mark.parametrize("encoding", ["constant", "poisson"])
def test_any_source_and_any_reader(encoding, theta, arithmetic):
    result = run_both(every_way(encoding, theta), IMAGES[:2, :, :, :6], arithmetic=arithmetic)
    rows = {layer.name: layer for layer in result.layers}
    assert [name for name in rows if name.startswith("p")] == ["p[0]", "p[1]", "p[2]"]
    assert np.array_equal(rows["p[0]"].spikes, rows["m"].spikes)
    assert all(layer.n_spikes for layer in result.layers[:-1])
    assert np.array_equal(rows["k"].spike_counts.max(axis=(2, 3)), rows["a"].spike_counts.max(axis=(2, 3)))


@pytest.mark.parametrize("theta", [0.0, 0.1])
def test_reference_equals_naive(theta):
    network = every_way("events", theta, channels=3)
    trains = np.random.default_rng(2).random((1, network.n_steps, 2, 7, 6)) < 0.4
    result = evsnn.simulate(network, trains, record=RECORDS, backend="reference")
    spikes, membranes = Naive(network, trains[0], network.n_steps).run()
    for layer in result.layers:
        if layer.v_mem is not None:
            assert np.array_equal(layer.v_mem[0], membranes[layer.name])
        if layer.fires and "[" not in layer.name:
            assert np.array_equal(layer.spikes[0], spikes[layer.name])
    parts = [layer.spikes[0] for layer in result.layers if layer.name.startswith("p[")]
    assert np.array_equal(np.concatenate(parts, axis=1), spikes["p"])


@pytest.mark.slow
@ARITHMETICS
@pytest.mark.parametrize("theta", [0.0, 0.1])
@pytest.mark.parametrize("block_steps, threads", [(1, 1), (5, 3), (64, 2), (70, 1), (130, 1)])
def test_blocks_and_threads_change_nothing(block_steps, threads, theta, arithmetic):
    """Counts are kept from block to block; blocks longer than the engine's take wider counters."""
    network = one_pool(POOLS["3x3 stride 2"], channels=130, theta=theta, n_steps=150)
    expected = evsnn.simulate(network, IMAGES[:1], arithmetic=arithmetic, record=RECORDS, backend="reference")
    simulator = Simulator(network, arithmetic=arithmetic, threads=threads)
    simulator.plan = plan(
        simulator.circuit, simulator.quantized.widths if simulator.quantized else None, block_steps
    )
    assert_same(simulator.run(IMAGES[:1], record=RECORDS), expected)
    assert_same(simulator.run(IMAGES[:1], record=RECORDS), expected)  # a second sample starts from nothing


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="a long run")
def test_the_longest_run():
    """A count of 65536; inputs that overtake after 30000 steps behind, or never."""
    n_steps = 65_536
    trains = np.zeros((n_steps, 3, 1, 2), bool)
    trains[:30_000, 0, 0, 0] = trains[30_000:, 0, 0, 1] = True
    trains[:, 1, 0, 0] = True
    trains[:40_000, 2, 0, 0] = trains[40_000:, 2, 0, 1] = True
    network = Network(
        [Input((3, 1, 2), "events"), MaxPool2d((1, 2), name="m"), Flatten(), Linear(np.eye(3)), Readout()],
        n_steps=n_steps,
    )
    result = evsnn.simulate(network, trains[None], record="spikes", threads=1)
    spikes = result.layers[0].spikes[0, :, :, 0, 0]
    assert np.array_equal(spikes.sum(axis=0), [35_536, 65_536, 40_000])
    assert np.array_equal(np.flatnonzero(~spikes[:, 0]), np.arange(30_000, 60_000))
    assert np.array_equal(
        spikes.astype(int).cumsum(axis=0)[:, :, None, None], largest(trains, MaxPool2d((1, 2)))
    )


def test_amplitude_is_the_inputs():
    network = one_pool(POOLS["2x2"])
    circuit = build_circuit(network)
    (projection,) = circuit.populations[2].projections
    assert circuit.populations[1].label == "maxpool2d 2x2"
    assert np.array_equal(projection.scale, network.by_name["a"].v_threshold.astype(float))


def test_a_pool_of_one_neuron_is_a_shortcut():
    """What reads it reads one population: one weight a channel, masks read directly."""
    network = every_way()
    (population,) = (p for p in build_circuit(network).populations if p.name == "e")
    assert [s.label for s in population.projections if s.channelwise and not s.negative] == [
        "identity",
        "depthwise 3x3",
        "identity",
    ]


@pytest.mark.parametrize(
    "between",
    [
        [AvgPool2d(2)],
        [
            AvgPool2d(2, name="p"),
            Conv2d(np.ones((1, 2, 2, 2)), stride=2, inputs="a"),
            IF(name="b"),
            Concat(inputs=("b", "p")),
        ],
    ],
)
def test_average_pooled_spikes_are_refused(between):
    layers = [
        Input((2, 8, 8)),
        IF(name="a"),
        *between,
        MaxPool2d(2, name="m"),
        Flatten(),
        Linear(np.ones((2, 4 * (2 + (len(between) > 1))))),
        Readout(),
    ]
    with pytest.raises(
        NetworkError,
        match=r"layer 'm': a max pool cannot read average-pooled spikes\. Put an IF between the pools",
    ):
        build_circuit(Network(layers))


def test_pools_of_many_concatenations_are_bounded():
    layers = [Input((1, 1, 1)), IF(name="s0")]
    for i in range(1, 11):
        layers.append(Concat(inputs=(f"s{i - 1}",) * 2, name=f"s{i}"))
    layers += [MaxPool2d(1) for _ in range(5)]
    layers += [Flatten(), Linear(np.ones((2, 1024))), Readout()]
    with pytest.raises(NetworkError, match="too many max pools"):
        build_circuit(Network(layers))


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="the engine allocates")
@pytest.mark.parametrize("theta", [0.0, 0.1])
@pytest.mark.parametrize("n_steps", [8, 100])
def test_memory_is_announced(monkeypatch, n_steps, theta):
    import evsnn.engine.pool_runner
    import evsnn.engine.runner
    import evsnn.engine.workspace

    taken = []

    def counted(n_bytes, aligned=evsnn.engine.plan.aligned):
        taken.append(n_bytes)
        return aligned(n_bytes)

    for module in ALLOCATING:
        monkeypatch.setattr(module, "aligned", counted)
    simulator = Simulator(one_pool(POOLS["3x3 stride 1, padded"], 130, theta), n_steps, threads=2)
    announced = sum(simulator.memory_bytes.values())
    simulator.run(IMAGES)
    assert announced * 0.97 - 4096 <= sum(taken) <= announced + 4096


def test_reports_list_max_pools():
    network = one_pool(POOLS["3x3 stride 2"])
    result = evsnn.simulate(network, IMAGES)
    table = layer_table(result)
    row = table.rows[1]
    assert row[:3] == ("m", "maxpool2d 3x3", "6x3x4")
    assert row[3] == result.rate(result.layers[1]) > 0
    assert result.spikes_per_sample == sum(layer.n_spikes for layer in result.layers) / 3
    (facts,) = (f for f in layer_facts(network) if f.kind == "maxpool2d")
    assert (facts.label, facts.n_neurons, facts.n_parameters, facts.macs, facts.v_threshold) == (
        "maxpool2d 3x3, stride 2",
        72,
        0,
        0,
        None,
    )
    quantized = quantize(network)
    assert quantized.widths[1] is quantized.scales[1] is quantized.bounds[1] is None


def test_max_pools_are_kept_in_files(tmp_path):
    network = every_way()
    evsnn.save(tmp_path / "net.h5", network)
    loaded = evsnn.load(tmp_path / "net.h5")
    images = IMAGES[:, :, :, :6]
    assert_same(*(evsnn.simulate(net, images, record=RECORDS) for net in (network, loaded)))
