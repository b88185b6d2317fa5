"""At the limits of C's types: what fits is computed as in Python, the rest is refused by name."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout, RunError
from evsnn.circuit.quantized import quantize
from firmware_export.checks.check import run_on
from firmware_export.checks.machines import Machine
from firmware_export.program.program import MAX_READS, program_of
from firmware_export.program.schedule import lives_of, ring_of
from firmware_export.program.views import Key
from firmware_export.text.header import export_header

SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-ftrapv")
ONE = np.ones((1, 1, 1, 1), np.float32)
compiled = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")


def check(network: Network, inputs: np.ndarray, **options) -> None:
    """The C, under sanitizers, equals Python."""
    machine = Machine("host", "gcc", (), "host.c")
    run_on(machine, export_header(quantize(network), "net", **options), inputs, SANITIZED, trace=True)


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("encoding", ["constant", "events"])
@pytest.mark.parametrize("leak", [1.0, 0.5])
def test_a_bound_of_negative_spikes_that_32_bits_do_not_hold(by_step, encoding, leak):
    v_threshold, theta = 43_750.0, 437.0  # theta V_th is -2.4e9 units, 1.9e9 in 32 bits
    network = Network(
        [
            Input((2,), encoding),
            Linear([[1.0, -0.6]], [0.4 * v_threshold]),
            IF(v_threshold, v_init=1.2 * v_threshold, leak=leak, negative_threshold=theta, shift=False),
            Linear([[1.0]]),
            Readout(),
        ],
        n_steps=16,
        input_range=(0, 1),
    )
    quantized = quantize(network)
    neuron = quantized.circuit.populations[0].neuron
    assert neuron.v_negative is None or neuron.v_negative.min() < -(2**31)
    rng = np.random.default_rng(0)
    inputs = (
        quantized.encode(rng.random((3, 2, 1, 1), np.float32))
        if encoding == "constant"
        else rng.random((3, 16, 2, 1, 1)) < 0.5
    )
    check(network, inputs, by_step=by_step)


def tall(height: int, encoding: str = "constant") -> Network:
    """A map of one column, as high as is asked for."""
    return Network(
        [
            Input((1, height, 1), encoding),
            Conv2d(ONE),
            IF(1.0, shift=False),
            Conv2d(ONE),
            IF(1.0, shift=False),
            AvgPool2d((height // 8, 1)),
            Flatten(),
            Linear(np.arange(16).reshape(2, 8) - 7),
            Readout(),
        ],
        n_steps=2,
        input_range=(0, 1),
    )


@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("encoding", ["constant", "events"])
@pytest.mark.parametrize("height", [65_536, 66_000])
def test_more_rows_than_16_bits_count_are_refused_in_every_order(height, encoding, by_step):
    with pytest.raises(
        RunError, match=f"layer .*: it has too many rows .* got {height}, expected at most 65535"
    ):
        export_header(quantize(tall(height, encoding)), "net", by_step=by_step)


def test_totals_keep_no_view_and_their_rows_are_counted_too():
    network = Network(
        [Input((1, 66_000, 1)), Conv2d(ONE), IF(), Flatten(), Linear(np.ones((1, 66_000))), Readout()],
        n_steps=2,
        input_range=(0, 1),
    )
    with pytest.raises(RunError, match="too many rows"):
        export_header(quantize(network), "net")


def test_rows_of_all_layers_are_limited_together():
    layers = [layer for _ in range(40) for layer in (Conv2d(ONE), IF())]
    network = Network(
        [Input((1, 60_000, 1)), *layers, AvgPool2d((30_000, 1)), Flatten(), Linear([[1.0, 1.0]]), Readout()],
        n_steps=1,
        input_range=(0, 1),
    )
    with pytest.raises(RunError, match=f"too many for firmware: .* expected at most {MAX_READS}"):
        export_header(quantize(network), "net")


def test_columns_beyond_16_bits_are_refused_by_layer_and_field():
    network = Network(
        [
            Input((1, 1, 70_000), "events"),
            Conv2d(ONE),
            IF(),
            AvgPool2d((1, 35_000)),
            Flatten(),
            Linear([[1.0, 1.0]]),
            Readout(),
        ],
        n_steps=1,
    )
    for by_step in (False, True):
        with pytest.raises(
            RunError, match=r"layer 'if1?', evsnn_view_t\.width: .* got 70000, expected 0 to 65535"
        ):
            export_header(quantize(network), "net", by_step=by_step)


@compiled
def test_events_of_more_channels_than_16_bits_count():
    channels = 66_000
    weight = np.random.default_rng(0).normal(size=(2, channels))
    network = Network(
        [Input((channels,), "events"), Linear(weight), IF(), Linear(np.eye(2)), Readout()], n_steps=1
    )
    inputs = np.zeros((1, 1, channels, 1, 1), bool)
    inputs[0, 0, [1, 65_535, 65_536, 65_999]] = True
    check(network, inputs)


@compiled
def test_a_max_pool_that_padding_alone_reads():
    network = Network(
        [
            Input((1, 2, 2)),
            Conv2d(ONE),
            IF(0.5),
            MaxPool2d(2),
            Conv2d(ONE, [0.3], padding=(1, 0, 0, 0), stride=3),
            IF(0.5),
            Flatten(),
            Linear(np.ones((2, 1))),
            Readout(),
        ],
        n_steps=3,
        input_range=(0, 1),
    )
    check(network, np.full((1, 1, 2, 2), 255))
    check(network, np.full((1, 1, 2, 2), 255), by_step=True)


def lives_row_by_row(stages, views, schedule):
    """What `lives_of` computes, as it is meant."""
    made = {key: [] for key in views}
    used = {key: [] for key in views}
    row = [0] * len(stages)
    for at, i in enumerate(schedule):
        for key in stages[i].writes:
            made[key].append(at)
            used[key].append(at)
        for read in stages[i].reads:
            low, high = read.window.span(
                0, row[i] * stages[i].window[0], (row[i] + 1) * stages[i].window[0] - 1
            )
            for y in range(max(0, low), min(views[read.key].shape[1] - 1, high) + 1):
                if made[read.key]:
                    used[read.key][y] = at
        row[i] += 1
    return made, used


@pytest.mark.parametrize("seed", range(20))
def test_lives_and_rings_are_those_of_a_walk_through_the_schedule(seed):
    rng = np.random.default_rng(seed)
    layers, height = [Input((1, 40, 2), rng.choice(["constant", "events"]))], 40
    for _ in range(4):
        kernel = int(rng.integers(1, min(5, height) + 1))
        stride, padding, dilation = (int(v) for v in rng.integers((1, 0, 1), (4, 3, 3)))
        window = {"stride": (stride, 1), "padding": (padding, 0), "dilation": (dilation, 1)}
        conv = Conv2d(np.ones((1, 1, kernel, 1)), **window)
        grown = (height + 2 * padding - (kernel - 1) * dilation - 1) // stride + 1
        if grown < 1:
            continue
        layers += [conv, IF()]
        height = grown
        if height >= 4 and rng.random() < 0.5:
            layers.append(
                (AvgPool2d if rng.random() < 0.5 else MaxPool2d)((2, 1), (int(rng.integers(1, 3)), 1))
            )
            height = (height - 2) // layers[-1].stride[0] + 1
    layers += [Flatten(), Linear(np.ones((2, height * 2))), Readout()]
    program = program_of(quantize(Network(layers, n_steps=1, input_range=(0, 1))))
    found = lives_of(program.stages, program.views, program.schedule)
    expected = lives_row_by_row(program.stages, program.views, program.schedule)
    for one, other in zip(found, expected):
        assert {key: list(rows) for key, rows in one.items()} == other
    for key, made in expected[0].items():
        if made:
            used, rows = expected[1][key], len(made)
            ring = next(r for r in range(1, rows + 1) if all(used[y] < made[y + r] for y in range(rows - r)))
            assert ring_of(*(np.array(values) for values in (made, used))) == ring
    assert Key(-1) in program.views or not any(
        read.key == Key(-1) for s in program.stages for read in s.reads
    )
