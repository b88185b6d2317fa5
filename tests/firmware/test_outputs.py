"""What the C gives if a network's task is not to classify: values of a vector or a map, and no class."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

import evsnn
from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, Network, Readout
from evsnn.circuit.quantized import quantize
from firmware_export import Settings
from firmware_export.bundles import sketch
from firmware_export.checks.check import run_on
from firmware_export.checks.harness import outputs_in
from firmware_export.checks.machines import MACHINES, Machine
from firmware_export.export import export_network
from firmware_export.text.header import export_header
from firmware_export.text.outputs import expected_outputs

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")

GCC = Machine("host", "gcc", (), "host.c")
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-ftrapv")
RNG = np.random.default_rng(4)


def network(*tail, **options) -> Network:
    first = Conv2d(RNG.normal(size=(5, 2, 3, 3)), RNG.normal(size=5) * 0.1, padding=1)
    layers = [Input((2, 6, 7)), first, IF(0.8), *tail, Readout()]
    return Network(layers, n_steps=5, input_range=(0, 1), task="regress", **options)


CASES = {
    "a map": network(Conv2d(RNG.normal(size=(3, 5, 3, 3)), RNG.normal(size=3), padding=1)),
    "a map of groups": network(Conv2d(RNG.normal(size=(10, 1, 3, 3)), stride=2, groups=5)),
    "a map behind a pool": network(AvgPool2d(2), Conv2d(RNG.normal(size=(9, 5, 1, 1)))),
    "a map of spikes": network(
        Conv2d(RNG.normal(size=(11, 5, 3, 3))), IF(RNG.uniform(0.3, 1, 11)), readout="spikes"
    ),
    "a vector": network(Flatten(), Linear(RNG.normal(size=(4, 210)), RNG.normal(size=4))),
    "a vector of spikes": network(Flatten(), Linear(RNG.normal(size=(4, 210))), IF(0.9), readout="spikes"),
}


@pytest.mark.slow
@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_outputs_of_any_shape_are_those_of_python(case, by_step):
    net = CASES[case]
    quantized = quantize(net)
    inputs = quantized.encode(np.random.default_rng(0).random((3, 2, 6, 7), np.float32))
    outputs = expected_outputs(quantized, inputs)
    assert outputs.shape == (3, np.prod(net.output_shape)) and len(np.unique(outputs)) > 3
    export = export_header(quantized, "net", by_step=by_step)
    assert f"#define NET_N_OUTPUTS {outputs.shape[1]}" in export.text
    for absent in ("net_predict", "net_margin", "net_run_until", "N_CLASSES"):
        assert absent not in export.text
    run_on(GCC, export, inputs, SANITIZED, trace=True)
    if not MACHINES["cortex-m4"].missing():
        run_on(MACHINES["cortex-m4"], export, inputs[:2])


def test_outputs_are_counted_as_channel_y_x():
    """The reference reads out a map as Result does: output i is [channel][y][x]."""
    net = CASES["a map"]
    quantized = quantize(net)
    images = np.random.default_rng(1).random((2, 2, 6, 7), np.float32)
    result = evsnn.simulate(net, images, arithmetic="int8")
    outputs = expected_outputs(quantized, quantized.encode(images)).reshape(result.outputs.shape)
    scale = quantized.scales[-1][:, None, None] / quantized.n_steps
    assert result.predictions is None and np.allclose(outputs * scale, result.outputs)


def test_an_example_reads_an_output():
    text = sketch(export_network(CASES["a map"], Settings(name="net")))
    assert "Serial.println(net_output(&ctx, 0));" in text


@pytest.mark.parametrize("by_step", [False, True])
def test_one_score_tells_two_classes_apart(by_step):
    layers = [Input((4,)), Linear(np.eye(4)), IF(), Linear([[1.0, 1.0, -1.0, -1.0]], [-0.1]), Readout()]
    quantized = quantize(Network(layers, n_steps=6, input_range=(0, 1)))
    inputs = quantized.encode(np.random.default_rng(2).random((8, 4, 1, 1), np.float32))
    export = export_header(quantized, "net", by_step=by_step)
    assert "#define NET_N_CLASSES 2" in export.text and "net_margin" not in export.text
    measured = run_on(GCC, export, inputs, SANITIZED)
    classes, outputs = outputs_in(measured.text)
    np.testing.assert_array_equal(outputs, expected_outputs(quantized, inputs))
    np.testing.assert_array_equal(classes, outputs[:, 0] > 0)
    assert set(classes) == {0, 1}


def test_an_output_times_its_scale_is_the_value_of_python():
    for case in ("a vector", "a map behind a pool", "a vector of spikes"):
        net = CASES[case]
        quantized, images = quantize(net), np.random.default_rng(0).random((3, 2, 6, 7), np.float32)
        found = re.search(r"#define NET_OUTPUT_SCALE (\S+)", export_header(quantized, "net").text)
        values = expected_outputs(quantized, quantized.encode(images)) * float(found[1])
        outputs = evsnn.simulate(quantized, images).outputs.reshape(3, -1)
        np.testing.assert_allclose(values, outputs, rtol=1e-12)
    uneven = export_header(quantize(CASES["a map of spikes"]), "net").text
    assert "NET_OUTPUT_SCALE" not in uneven


def several(spikes: bool, task: str = "regress") -> Network:
    """A vector, a map behind a pool and a map, of one trunk; the last two are read by others as well."""
    rng = np.random.default_rng(9)
    trunk = [
        Input((2, 6, 8)),
        Conv2d(rng.normal(size=(9, 2, 3, 3)), rng.normal(size=9) * 0.1, padding=1),
        IF(0.8, name="trunk"),
    ]
    heads = [
        Conv2d(rng.normal(size=(5, 9, 3, 3)), padding=1, inputs="trunk", name="map"),
        AvgPool2d(2, inputs="trunk", name="half"),
        Conv2d(rng.normal(size=(3, 9, 1, 1)), rng.normal(size=3), name="small"),
        Flatten(inputs="half"),
        Linear(rng.normal(size=(4, 108)), rng.normal(size=4), name="scores"),
    ]
    names = ["scores", "small", "map"]
    if spikes:
        heads += [IF(0.4 + 0.1 * i, name=f"{name}.neurons", inputs=name) for i, name in enumerate(names)]
    ends = [Readout(inputs=f"{name}.neurons" if spikes else name, name=f"out.{name}") for name in names]
    options = {"readout": "spikes" if spikes else "membrane", "task": task}
    return Network([*trunk, *heads, *ends], n_steps=5, input_range=(0, 1), **options)


@pytest.mark.slow
@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("spikes", [False, True])
@pytest.mark.parametrize("task", ["classify", "regress"])
def test_several_outputs_stand_one_after_another(spikes, by_step, task):
    net = several(spikes, task)
    quantized = quantize(net)
    images = np.random.default_rng(0).random((3, 2, 6, 8), np.float32)
    inputs = quantized.encode(images)
    export = export_header(quantized, "net", by_step=by_step)
    run_on(GCC, export, inputs, SANITIZED, trace=True)  # compares with Python
    outputs = expected_outputs(quantized, inputs)
    found = evsnn.simulate(quantized, images)
    assert outputs.shape == (3, 4 + 3 * 12 + 5 * 48) and len(np.unique(outputs)) > 5
    for k, values in enumerate(found.named_outputs.values()):
        start, length, scale = (
            re.search(rf"#define NET_OUTPUT{k}_{what} (\S+)", export.text)[1]
            for what in ("START", "LENGTH", "SCALE")
        )
        part = outputs[:, int(start) : int(start) + int(length)]
        np.testing.assert_allclose(part * float(scale), values.reshape(3, -1), rtol=1e-12)
    measured = run_on(GCC, export, inputs, SANITIZED)
    classes, given = outputs_in(measured.text)
    np.testing.assert_array_equal(given, outputs)
    if task == "classify":
        np.testing.assert_array_equal(classes, found.predictions)
        assert "#define NET_N_CLASSES 4" in export.text
    for name in ("out.scores", "out.small", "out.map"):
        assert name not in export.text  # names of a file never reach C


def test_one_layer_may_be_read_out_twice_and_go_on():
    """Neurons that are an output and are read by a layer behind them, through a pool."""
    rng = np.random.default_rng(3)
    layers = [
        Input((2, 6, 8)),
        Conv2d(rng.normal(size=(9, 2, 3, 3)), padding=1),
        IF(0.8, name="trunk"),
        AvgPool2d(2),
        Conv2d(rng.normal(size=(3, 9, 1, 1))),
        IF(0.5, name="end"),
        Readout(inputs="end", name="a"),
        Readout(inputs="trunk", name="b"),
        Readout(inputs="end", name="c"),
    ]
    net = Network(layers, n_steps=4, input_range=(0, 1), readout="spikes", task="none")
    quantized = quantize(net)
    images = np.random.default_rng(0).random((2, 2, 6, 8), np.float32)
    inputs = quantized.encode(images)
    export = export_header(quantized, "net")
    _, given = outputs_in(run_on(GCC, export, inputs, SANITIZED).text)
    np.testing.assert_array_equal(given, expected_outputs(quantized, inputs))
    assert given.shape == (2, 3 * 12 + 9 * 48)
    assert "#define NET_OUTPUT2_START 0 " in export.text and "#define NET_OUTPUT1_START 36 " in export.text
