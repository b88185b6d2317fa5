"""What takes memory takes it in blocks, and is announced: counted by tracemalloc, the same on every machine.

tests/benchmarks/announced_memory.py compares announcements with whole processes.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

import evsnn
from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout
from evsnn.circuit.build import build_circuit
from evsnn.circuit.encoding import check_images, poisson
from evsnn.circuit.populations import INPUT, Projection, Source
from evsnn.circuit.quantized import integer_bytes, quantize
from evsnn.conversion.balance.correction import correct, correct_bytes
from evsnn.conversion.onnx.dense import SCRATCH_BYTES, conv2d, scratch_bytes
from evsnn.engine.workspace import pack_masks, unpack_masks
from evsnn.files import weights
from evsnn.network.layers import settled
from evsnn.output.memory import announce


def peak(call) -> int:
    """The most bytes that a call allocates."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def dense():
    weight = np.random.default_rng(0).normal(size=(2000, 2000)).astype(np.float32)
    return Network(
        [Input((2000,)), Linear(weight), IF(), Linear(weight[:3]), Readout()], n_steps=4, input_range=(0, 1)
    )


@pytest.mark.parametrize("steps", [1, 7, 100, 4000])
def test_spikes_drawn_in_blocks_are_those_of_one_draw(steps):
    rates = np.random.default_rng(1).random((3, 11, 5), np.float32)
    whole = np.random.default_rng(2).random((steps, *rates.shape), np.float32) < rates
    assert np.array_equal(poisson(np.random.default_rng(2), rates, steps), whole)
    assert peak(lambda: poisson(np.random.default_rng(2), rates, steps)) < whole.nbytes + (3 << 20)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_events_of_any_type_are_looked_at_in_blocks(dtype):
    network = Network(
        [Input((2, 30, 30), "events"), Flatten(), Linear(np.ones((1, 1800))), Readout()], n_steps=500
    )
    events = np.random.default_rng(0).integers(0, 2, (2, 500, 2, 30, 30)).astype(dtype)
    assert peak(lambda: check_images(network, events, 500)) < events.size + (3 << 20)
    events[-1, -1, -1, -1, -1] = 0
    assert check_images(network, events, 500).dtype == bool
    if dtype is not bool:
        events[-1, -1, -1, -1, -1] = 2
        with pytest.raises(evsnn.InputError, match="events are not 0 and 1"):
            check_images(network, events, 500)


@pytest.mark.parametrize("channels", [1, 8, 9, 63, 64, 65, 130])
def test_masks_of_events_are_made_in_blocks(channels):
    rng = np.random.default_rng(channels)
    spikes = rng.random((40, channels, 6, 5)) < 0.3
    masks = np.full((50, 6, 5, -(-channels // 64)), 2**64 - 1, np.uint64)
    pack_masks(spikes, masks)
    assert np.array_equal(unpack_masks(masks[:40], channels), spikes)
    assert (masks[40:] == 2**64 - 1).all()
    used = np.bitwise_count(masks[:40]).sum() if hasattr(np, "bitwise_count") else spikes.sum()
    assert used == spikes.sum(), "bits beside the channels are 0"
    large = np.zeros((100, 1, 100, 100), bool)
    into = np.zeros((100, 100, 100, 1), np.uint64)
    assert peak(lambda: pack_masks(large, into)) < 6 << 20


def test_effective_weights_are_formed_in_blocks():
    weight = np.random.default_rng(0).normal(size=(64, 40_000, 1, 1)).astype(np.float32)
    scale = np.random.default_rng(1).random(40_000)
    projection = Projection("", (Source(INPUT, (40_000, 1, 1)),), (40_000, 1, 1), weight, scale)
    expected = (weight * scale[None, :, None, None]).astype(np.float32)
    assert np.array_equal(projection.effective(), expected)
    assert peak(projection.effective) < weight.nbytes + (8 << 20)


def test_integers_take_little_beside_themselves(dense):
    assert peak(lambda: quantize(dense)) < integer_bytes(dense) + (4 << 20)


def test_a_network_takes_the_arrays_of_its_file(tmp_path, dense):
    path = tmp_path / "f.h5"
    for storage in ("float32", "float16", "int8"):
        weights.save(path, dense, storage=storage)
        said: list[int] = []
        n_bytes = peak(partial(weights.load, path, before=said.append))
        stored = 0 if storage == "float32" else dense.layers[1].weight.size * 2
        assert said[0] <= n_bytes < said[0] + stored + (4 << 20)
        assert dense.layers[1].weight.nbytes <= said[0]


def reference_cases() -> Iterator[Network]:
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape) / np.prod(shape[1:]) ** 0.5

    maps = [Input((4, 40, 40)), Conv2d(normal(12, 4, 3, 3), padding=1), IF(negative_threshold=0.1)]
    yield Network([*maps, MaxPool2d(2), Conv2d(normal(20, 12, 3, 3)), IF(), Flatten(),
                   Linear(normal(5, 6480)), Readout()], n_steps=10, input_range=(0, 1))  # fmt: skip
    yield Network([*maps, AvgPool2d(4), Conv2d(normal(2, 12, 3, 3)), IF(), Flatten(),
                   Linear(normal(5, 128)), Readout()], n_steps=40, input_range=(0, 1))  # fmt: skip
    yield Network([Input((2000,)), Linear(normal(300, 2000)), IF(), Linear(normal(9, 300)), Readout()],
                  n_steps=6, input_range=(0, 1))  # fmt: skip
    yield Network([Input((2, 40, 40), "events"), AvgPool2d(2), Conv2d(normal(4, 2, 3, 3)), IF(), Flatten(),
                   Linear(normal(5, 1296)), Readout()], n_steps=30)  # fmt: skip


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize("case", range(4))
def test_the_reference_takes_what_is_said_of_it(case, arithmetic):
    net = list(reference_cases())[case]
    simulator = evsnn.Simulator(net, backend="reference", arithmetic=arithmetic, threads=2)
    shape = net.input_shape if simulator.circuit.analog else (net.n_steps, *net.input_shape)
    images = (np.random.default_rng(0).random((3, *shape)) < 0.5).astype(np.float32)
    announced = simulator.memory_for(3)
    simulator.run(images[:1])
    taken = peak(partial(simulator.run, images)) - (0 if simulator.circuit.analog else images.size)
    assert 0.9 * taken - 100_000 < sum(announced.values()) < 1.1 * taken + 100_000


def test_fewer_samples_than_threads_take_one_workspace(dense):
    simulator = evsnn.Simulator(dense, threads=4)
    one, all_of_them = simulator.memory_for(1), simulator.memory_bytes
    assert one["weights"] == all_of_them["weights"]
    for part in ("workspaces", "queues"):
        assert all_of_them[part] == simulator.memory_for(4)[part] == 4 * one[part] > 0
    assert simulator.memory_for(3) == one


def test_of_queues_it_is_said_that_they_may_take_less(capsys):
    announce({"weights": 1_000, "queues": 2_000, "spikes": 0})
    said = capsys.readouterr().err
    assert "3.0 kB to allocate (weights 1.0 kB, queues up to 2.0 kB)" in said


def test_arrays_that_could_change_are_copied():
    mine = np.full((2, 2), 2, np.float32)
    assert not np.shares_memory(Linear(mine).weight, mine)
    taken = settled(mine.copy())
    assert np.shares_memory(Linear(taken).weight, taken)
    for other in (
        taken.T,
        taken[:1],
        taken.astype(np.float64),
        np.asfortranarray(np.eye(3, dtype=np.float32)),
    ):
        other.setflags(write=False)
        assert not np.shares_memory(Linear(other).weight, other)
    minus = np.array([[-0.0]], np.float32)
    minus.setflags(write=False)
    assert not np.signbit(Linear(minus).weight).any()
    net = Network([Input((2,)), Linear(taken), IF(), Linear(taken), Readout()])
    assert np.shares_memory(net.replace(n_steps=3).layers[1].weight, taken)


def test_corrections_take_what_is_said_of_them():
    rng = np.random.default_rng(0)
    layers = [Input((2, 16, 16)), Conv2d(rng.normal(size=(16, 2, 3, 3)), padding=1), IF()]
    layers += [
        Conv2d(rng.normal(size=(16, 16, 3, 3)) / 8, padding=1),
        IF(negative_threshold=0.1),
        AvgPool2d(2),
    ]
    layers += [Conv2d(rng.normal(size=(16, 16, 3, 3)) / 8, padding=1), IF(), Flatten()]
    circuit = build_circuit(Network([*layers, Linear(rng.normal(size=(4, 1024))), Readout()], n_steps=16))
    images = rng.random((40, 2, 16, 16), np.float32)
    targets = {p.name: rng.random((40, *p.shape), np.float32) for p in circuit.populations}
    taken = peak(lambda: correct(circuit, images, targets))
    own = taken - SCRATCH_BYTES + 8 * sum(target.size for target in targets.values())  # targets are there
    assert own < correct_bytes(circuit, 40) < 1.5 * own


def test_before_a_network_is_read_it_can_be_refused(tmp_path, dense, monkeypatch):
    weights.save(tmp_path / "f.h5", dense)
    monkeypatch.setattr(weights, "_network", None)

    def refuse(n_bytes):
        raise evsnn.RunError("too large", got=n_bytes)

    with pytest.raises(evsnn.RunError, match="too large: got 16024008"):
        weights.load(tmp_path / "f.h5", before=refuse)


def test_results_are_counted_before_they_are_made():
    net = Network(
        [
            Input((1, 8, 8)),
            Conv2d(np.ones((4, 1, 3, 3)) / 9),
            IF(),
            Flatten(),
            Linear(np.ones((500, 144))),
            Readout(),
        ],
        n_steps=6,
        input_range=(0, 1),
    )
    simulator = evsnn.Simulator(net, threads=1)
    images = np.random.default_rng(0).random((50, 1, 8, 8), np.float32)
    simulator.run(images[:1])
    for options in ({}, {"record": ("spikes", "spike_counts", "v_mem")}, {"record_steps": (1, 2, 6)}):
        simulator.run(images[:1], **options)
        announced = simulator.result_bytes(50, **options)
        taken = peak(partial(simulator.run, images, **options))
        assert 0.8 * taken - 100_000 < announced < 1.3 * taken + 100_000


@pytest.mark.parametrize("n", [1, 7, 40])
@pytest.mark.parametrize("groups, padding", [(1, (0, 0, 0, 0)), (1, (1, 2, 3, 0)), (8, (1, 1, 1, 1))])
def test_convolutions_take_what_is_said_of_them(n, groups, padding):
    rng = np.random.default_rng(0)
    x = rng.random((n, 8, 60, 50), np.float32).transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    weight = rng.random((16, 8 // groups, 3, 3), np.float32)
    options = {"padding": padding, "groups": groups}
    out = conv2d(x[:1], weight, **options)
    taken = peak(lambda: conv2d(x, weight, **options)) - n * out.nbytes - weight.nbytes
    announced = scratch_bytes(x.shape, weight.shape, **options)
    assert 0.8 * announced - 20_000 < taken < announced + 100_000


def test_the_text_of_a_header_is_announced():
    pytest.importorskip("jinja2")
    from firmware_export.export import Settings, export_network
    from firmware_export.text import header as text

    rng = np.random.default_rng(0)
    weight = rng.normal(size=(300, 600)).astype(np.float32)
    net = Network(
        [Input((600,)), Linear(weight), IF(), Linear(weight[:9, :300]), Readout()], input_range=(0, 1)
    )
    said: list[int] = []
    export = export_network(net, Settings(name="net"), before=said.append)
    own = said[0] - text._PROCESS_BYTES
    assert 3 * len(export.text) < 1.1 * own + 100_000
    assert own < 5 * len(export.text)
