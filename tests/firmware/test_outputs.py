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


def test_several_outputs_are_refused():
    trunk = [Input((4,)), Linear(np.eye(4)), IF(name="trunk")]
    heads = [Linear(np.eye(4), inputs="trunk", name=n) for n in ("a", "b")]
    ends = [Readout(inputs="a", name="first"), Readout(inputs="b", name="second")]
    net = Network([*trunk, *heads, *ends], input_range=(0, 1))
    with pytest.raises(evsnn.RunError, match="firmware gives one output: got first, second"):
        export_header(quantize(net), "net")
