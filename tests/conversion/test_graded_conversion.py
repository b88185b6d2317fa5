"""Conversions for graded spikes: what they compute, what they keep, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from generate import Seeded, made
from onnx_builder import OnnxModel

import evsnn
from evsnn import IF, Linear, ModelError, Network, NetworkError, Readout, StepParameters
from evsnn.circuit.build import build_circuit
from evsnn.conversion.balance.options import Options
from evsnn.conversion.balance.trial import graded_trial, trial
from evsnn.conversion.conversion import convert_model
from evsnn.conversion.report.explanation import explain

pytestmark = pytest.mark.filterwarnings("ignore:the ANN predicts class")

IMAGES = np.random.default_rng(3).random((80, 3, 8, 8), np.float32)


def model():
    m = OnnxModel((3, 8, 8))
    x = m.op("Relu", m.conv("x", 3, 8, pads=[1, 1, 1, 1]))
    x = m.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = m.op("Relu", m.conv(m.conv(x, 8, 3, 1), 3, 12, pads=[1, 1, 1, 1]))
    return m.model(m.head(m.op("GlobalAveragePool", x), 12))


@pytest.fixture(scope="module")
def conversion():
    return convert_model(model(), IMAGES, Options(n_steps=(15, 4), coding="graded"))


def test_a_conversion_is_near_the_ann(conversion):
    network = conversion.network
    assert (network.coding, network.n_steps, list(network.graded_parameters)) == ("graded", 15, [4, 15])
    assert not network.step_parameters
    targets = conversion.targets.first
    errors = {
        T: np.square(evsnn.simulate(network, conversion.held_out, n_steps=T).outputs - targets).mean()
        for T in (4, 15)
    }
    assert errors[15] < errors[4] / 4 < np.square(targets - targets.mean(0)).mean() / 4


def test_a_run_uses_the_files_coding(conversion, tmp_path):
    evsnn.save(tmp_path / "net.h5", conversion.network)
    network = evsnn.load(tmp_path / "net.h5")
    assert network.coding == "graded" and list(network.graded_parameters) == [4, 15]
    for T in (4, 15):
        for name, own in conversion.network.graded_parameters[T].items():
            for what, value in own.given.items():
                assert np.array_equal(value, getattr(network.graded_parameters[T][name], what))
    result = evsnn.simulate(network, IMAGES[:4])
    assert result.coding == "graded" and result.n_steps == 15
    assert evsnn.simulate(network, IMAGES[:4], coding="steps").coding == "steps"


def test_batches_through_blas_are_the_runs(conversion):
    for T in (4, 15):
        found = trial(conversion.network, T, conversion.held_out)
        run = evsnn.simulate(conversion.network, conversion.held_out, n_steps=T)
        # a count differs where a membrane is within rounding of a level
        assert np.abs(found.outputs["readout"] - run.outputs).max() < 0.02 * np.abs(run.outputs).max()
        assert found.sops_per_sample == pytest.approx(run.sops_per_sample, rel=0.01)
        assert found.mean_rate == pytest.approx(run.mean_rate, rel=0.01)


@pytest.mark.parametrize("seed", range(12))
def test_batches_of_random_networks(seed):
    """Every kind of layer that can be graded."""
    network, images = made(Seeded(seed), encodings=("constant",), small=True, warm_ups=False, pairs=True)
    layers = [evsnn.IF(**fields(x) | {"leak": 1.0}) if isinstance(x, IF) else x for x in network.layers]
    network = network.replace(layers=layers)
    run = evsnn.simulate(network, images, n_steps=7, coding="graded")
    found = graded_trial(build_circuit(network, 7, coding="graded"), images)
    assert np.allclose(next(iter(found.outputs.values())), run.outputs, rtol=1e-4, atol=1e-4)
    assert found.sops_per_sample == run.sops_per_sample
    assert found.mean_rate == pytest.approx(run.mean_rate)


def fields(layer):
    return {name: getattr(layer, name) for name in layer.__dataclass_fields__}


def test_counts_that_depthwise_layers_read_are_finer(tmp_path):
    m = OnnxModel((3, 8, 8))
    x = m.op("Relu", m.conv("x", 3, 8, pads=[1, 1, 1, 1]))
    x = m.op("Relu", m.conv(x, 8, 8, group=8, pads=[1, 1, 1, 1]))
    x = m.op("Relu", m.conv(x, 8, 12, 1))
    proto = m.model(m.head(m.op("GlobalAveragePool", x), 12))
    found = convert_model(proto, IMAGES, Options(n_steps=(15, 4, 127), coding="graded"))
    neurons = [layer.name for layer in found.network.layers if isinstance(layer, IF)]
    levels = {
        T: [found.network.at(T, "graded").by_name[name].levels for name in neurons] for T in (4, 15, 127)
    }
    assert levels == {4: [19, None, None], 15: [63, None, None], 127: [255, None, None]}
    evsnn.save(tmp_path / "net.h5", found.network)
    assert evsnn.load(tmp_path / "net.h5").graded_parameters[4][neurons[0]].levels == 19
    result = evsnn.simulate(found.network, found.held_out, n_steps=4, record=("spike_counts",))
    assert 4 < result.layers[0].spike_counts.max() <= 19 and result.layers[1].spike_counts.max() <= 4
    rows = {layer.name: layer for layer in explain(found, sweep=(), samples=8).layers}
    assert rows[neurons[0]].error < 0.05 and rows[neurons[0]].clipping + rows[neurons[0]].quantization > 0.99


def test_the_report_knows_no_uneven_spikes(conversion):
    found = explain(conversion, sweep=(), samples=8)
    assert {layer.coding for layer in found.layers} == {"graded"}
    assert not any("unevenly" in layer.diagnosis for layer in found.layers)
    assert all(0 < layer.rate <= 1 for layer in found.layers if layer.rate)


def test_without_steps_there_are_15_levels():
    assert evsnn.convert(model(), IMAGES, coding="graded").n_steps == 15


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"negative_threshold": 0.25},
            "negative_threshold: graded spikes have no negative spikes and no warm-up",
        ),
        ({"warm_up_steps": 2}, "warm_up_steps: graded spikes have no negative spikes and no warm-up"),
        (
            {"n_steps": 256},
            "n_steps: there are too many levels for graded spikes: got 256, expected at most 255",
        ),
        ({"coding": "rate"}, "unknown coding: got 'rate', expected steps or graded"),
    ],
)
def test_options_that_have_no_meaning_are_refused(options, message):
    with pytest.raises(ModelError, match=message):
        evsnn.convert(model(), IMAGES, **{"coding": "graded"} | options)


def small(**options):
    return Network(
        [evsnn.Input((2,)), Linear(np.eye(2)), IF(name="a"), Linear(np.eye(2)), Readout()], **options
    )


@pytest.mark.parametrize(
    "tables, message",
    [
        ({256: {}}, "graded_parameters: n_steps is out of range: got 256, expected an integer from 1 to 255"),
        ({4: {"b": StepParameters(v_init=1.0)}}, "the graded parameters of T = 4: there is no such layer"),
        (
            {4: {"a": StepParameters(warm_up_steps=1)}},
            "the graded parameters of T = 4, layer 'a': graded spikes have no negative spikes and no warm-up",
        ),
        ([], "graded_parameters: graded parameters are not a mapping for each T"),
    ],
)
def test_graded_parameters_are_checked(tables, message):
    with pytest.raises(NetworkError, match=message):
        small(graded_parameters=tables)


def test_each_coding_has_parameters_of_its_own():
    net = small(
        step_parameters={4: {"a": StepParameters(v_threshold=2.0)}},
        graded_parameters={8: {"a": StepParameters(v_threshold=3.0)}},
    )
    thresholds = {
        (T, coding): float(net.at(T, coding).by_name["a"].v_threshold)
        for T in (4, 8)
        for coding in ("steps", "graded")
    }
    assert thresholds == {(4, "steps"): 2, (8, "steps"): 2, (4, "graded"): 3, (8, "graded"): 3}
    assert net.replace(graded_parameters={}).at(8, "graded").by_name["a"].v_threshold == 2
    with pytest.raises(NetworkError, match=r"graded parameters of T = 8 stand in.*net.at\(8, 'graded'\)"):
        layers = [x if x.name != "a" else IF(0.5, name="a", inputs=x.inputs) for x in net.layers]
        net.replace(layers=layers, step_parameters={})
