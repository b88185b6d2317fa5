"""The report of a conversion: numbers against a slow, obvious counterpart, and totals against sums."""

import dataclasses
import json
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest

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
    MissingExtraError,
    ModelError,
    Network,
    Readout,
    RunError,
    StepParameters,
    simulate,
)
from evsnn.conversion import needs
from evsnn.conversion.balance.correction import Correction
from evsnn.conversion.balance.options import Recipe
from evsnn.conversion.balance.selection import Choice
from evsnn.conversion.balance.statistics import BINS, Activations
from evsnn.conversion.balance.targets import Targets
from evsnn.conversion.balance.thresholds import rate
from evsnn.conversion.lowering.ann import Ann, forward, forward_all
from evsnn.conversion.report import picture
from evsnn.conversion.report.comparison import RESPONSE_EDGES, LayerExplanation
from evsnn.conversion.report.diagnosis import diagnose
from evsnn.conversion.report.explanation import Explanation, explain
from evsnn.conversion.report.sweep import SweepPoint, about_more_steps, standard_error
from evsnn.network.inventory import layer_facts
from evsnn.output.table import draw

JSON_KEYS = {
    "task",
    "errors",
    "schema_version",
    "n_samples",
    "n_steps",
    "ann_accuracy",
    "accuracy",
    "agreement",
    "loss",
    "loss_error",
    "readout_error",
    "n_neurons",
    "mean_rate",
    "sops_per_sample",
    "macs",
    "analog_macs",
    "sops_per_mac",
    "worth_n_steps",
    "advice",
    "layers",
    "sweep",
}
LAYER_KEYS = {
    "name",
    "projection",
    "sources",
    "shape",
    "n_neurons",
    "fires",
    "v_threshold",
    "ann_mean",
    "ann_rms",
    "snn_mean",
    "error",
    "correlation",
    "rate",
    "saturated",
    "dead",
    "clipping",
    "quantization",
    "unevenness",
    "response",
    "correction",
    "n_spikes",
    "sops",
    "macs",
    "analog_macs",
    "diagnosis",
}
SWEEP_KEYS = {
    "n_steps",
    "nearest_steps",
    "agreement",
    "accuracy",
    "error",
    "rms_error",
    "largest_error",
    "sops_per_sample",
    "sops_per_mac",
    "mean_rate",
}


def make_conversion(network, images, labels=None, activations=None, choices=None):
    """A conversion as the converter returns it: an ANN in the network's layers, and held-out samples."""
    ann = Ann(
        network.replace(readout="membrane", step_parameters={})
        if network.readout == "membrane"
        else without_last_neurons(network)
    )
    return SimpleNamespace(
        network=network,
        ann=ann,
        choices=choices or {},
        activations=activations or {},
        held_out=np.asarray(images, np.float32),
        held_out_labels=labels,
        targets=Targets("classify", forward_all(ann, images)),
        source=None,
    )


def without_last_neurons(network):
    *layers, neurons, readout = network.layers
    return network.replace(
        layers=(*layers, dataclasses.replace(readout, inputs=neurons.inputs)),
        readout="membrane",
        step_parameters={},
    )


def chain(n_steps=4, v_threshold=1.0, n=4, **options):
    """Neurons that see the input itself, and a readout that sees them."""
    layers = (Input((n,)), Linear(np.eye(n)), IF(v_threshold, name="neurons"), Linear(np.eye(n)), Readout())
    return Network(layers, n_steps=n_steps, shift="initial", **options)


def mixed(negative_threshold=0.0, n_steps=6, seed=0, with_step_parameters=False):
    """All kinds of layers: padding, stride, groups, pools, a shortcut, concatenation, several thresholds."""
    random = np.random.default_rng(seed)

    def weight(*shape):
        return (random.standard_normal(shape) * 1.4 / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    layers = (
        Input((2, 9, 8), name="x"),
        Conv2d(weight(4, 2, 3, 3), weight(4, 1)[:, 0], padding=(1, 1, 1, 1), name="c1"),
        IF(random.uniform(0.5, 1.5, 4), negative_threshold=negative_threshold, name="a"),
        MaxPool2d((2, 2), name="pool"),
        Conv2d(weight(4, 1, 3, 3), groups=4, padding=(1, 1, 1, 1), name="c2", inputs=("pool",)),
        Add(name="sum", inputs=("c2", "pool")),
        IF(0.8, negative_threshold=negative_threshold, name="b"),
        Conv2d(weight(6, 4, 2, 3), stride=(2, 1), name="c3", inputs=("b",)),
        IF(random.uniform(0.3, 0.9, 6), negative_threshold=negative_threshold, name="c"),
        AvgPool2d((2, 2), name="mean", inputs=("b",)),
        Concat(name="both", inputs=("mean", "c")),
        Flatten(name="flat"),
        Linear(weight(5, 4 * 2 * 2 + 6 * 2 * 2), name="last"),
        Readout(name="out"),
    )
    network = Network(layers, n_steps=n_steps, shift="initial")
    return (
        network.replace(
            step_parameters={
                6: {"b": StepParameters(v_threshold=0.7)},
                20: {"b": StepParameters(v_threshold=1.1)},
            }
        )
        if with_step_parameters
        else network
    )


def images_for(network, n, seed=1):
    return np.random.default_rng(seed).standard_normal((n, *network.input_shape)).astype(np.float32)


def by_name(explanation):
    return {layer.name: layer for layer in explanation.layers}


# Numbers that are known


def test_multiples_of_a_spike_are_sent_exactly():
    images = np.random.default_rng(0).integers(0, 5, (32, 4)) / 4
    found = explain(make_conversion(chain(), images), sweep=())
    for layer in found.layers:
        assert layer.error == 0 and layer.correlation == pytest.approx(1)
    neurons = by_name(found)["neurons"]
    assert neurons.saturated == 0 and (neurons.clipping, neurons.quantization, neurons.unevenness) == (
        None,
        None,
        None,
    )
    assert neurons.ann_mean == neurons.snn_mean == pytest.approx(
        images.mean()
    ) and neurons.rate == pytest.approx(images.mean())
    assert found.agreement == 1 and found.readout_error == 0 and not neurons.diagnosis


def test_what_passes_the_threshold_is_clipped_and_nothing_else():
    images = np.tile([0, 0.5, 1.5, 2.0], (8, 1)).astype(np.float32)
    neurons = by_name(explain(make_conversion(chain(), images), sweep=()))["neurons"]
    assert neurons.saturated == 0.5
    assert (neurons.clipping, neurons.quantization, neurons.unevenness) == pytest.approx((1, 0, 0))
    assert neurons.error == pytest.approx(np.sqrt((0.25 + 1) / (0.25 + 2.25 + 4)))
    assert "50 % of activations pass the threshold" in neurons.diagnosis


def test_what_lies_between_two_counts_is_rounded_and_nothing_else():
    images = np.tile([0.1, 0.3, 0.55, 0.8], (8, 1)).astype(np.float32)
    neurons = by_name(explain(make_conversion(chain(), images), sweep=()))["neurons"]
    assert neurons.saturated == 0 and (
        neurons.clipping,
        neurons.quantization,
        neurons.unevenness,
    ) == pytest.approx((0, 1, 0))
    assert neurons.error == pytest.approx(
        np.sqrt(np.mean(np.square([0.1, 0.05, 0.05, 0.05])) / np.mean(np.square([0.1, 0.3, 0.55, 0.8])))
    )


def test_an_activation_at_the_threshold_does_not_pass_it():
    images = np.full((8, 4), 1 + 2e-7, np.float32)
    assert by_name(explain(make_conversion(chain(), images), sweep=()))["neurons"].saturated == 0


def test_spikes_at_the_readout_are_compared_with_positive_scores():
    layers = (
        Input((3,)),
        Linear(np.eye(3)),
        IF(1.0, name="neurons"),
        Linear(np.eye(3) - [0.5, 0, 0]),
        IF(1.0, name="scores"),
        Readout(),
    )
    network = Network(layers, n_steps=4, shift="initial", readout="spikes")
    images = np.random.default_rng(0).integers(0, 5, (16, 3)) / 4
    conversion = make_conversion(network, images)
    found = explain(conversion, sweep=())
    assert [layer.name for layer in found.layers] == [
        "neurons",
        "scores",
    ] and conversion.targets.first.min() < 0
    assert found.layers[-1].ann_mean == pytest.approx(np.maximum(conversion.targets.first, 0).mean())


# Against the slow, obvious counterpart


def counterpart(conversion):
    """Activations, outputs and thresholds of every row, from whole arrays."""
    network, images = conversion.network, conversion.held_out
    result = simulate(network, images, record=["spike_counts"])
    activations = {}
    forward(
        conversion.ann,
        images,
        observe=lambda name, current, activation: activations.setdefault(name, activation.astype(np.float64)),
    )
    pooled = activations["a"][:, :, :8, :8].reshape(len(images), 4, 4, 2, 4, 2).max(axis=(3, 5))
    network = network.at(network.n_steps)
    for layer in result.layers:
        a = pooled if layer.name == "pool" else activations[layer.name]
        if not layer.fires:
            yield layer.name, a, result.outputs, None
            continue
        v = np.broadcast_to(
            network.by_name["a" if layer.name == "pool" else layer.name].v_threshold, a.shape[1]
        ).astype(np.float64)[:, None, None]
        yield layer.name, a, v * layer.spike_counts / network.n_steps, v


@pytest.mark.parametrize("negative_threshold", [0.0, 0.25])
@pytest.mark.parametrize("batch", [64, 5])
def test_every_number_equals_the_twins(negative_threshold, batch, monkeypatch):
    monkeypatch.setattr(needs, "_MAX_BATCH", batch)
    network = mixed(negative_threshold, with_step_parameters=True)
    conversion = make_conversion(network, images_for(network, 12))
    found = by_name(explain(conversion, sweep=()))
    T = network.n_steps
    assert list(found) == ["a", "pool", "b", "c", "out"]
    for name, a, s, v in counterpart(conversion):
        layer, error, rms = found[name], s - a, np.sqrt(np.mean(a**2))
        assert (
            layer.ann_mean == pytest.approx(a.mean())
            and layer.ann_rms == pytest.approx(rms)
            and layer.snn_mean == pytest.approx(s.mean())
        )
        assert layer.error == pytest.approx(np.sqrt(np.mean(error**2)) / rms)
        assert layer.correlation == pytest.approx(np.corrcoef(a.ravel(), s.ravel())[0, 1])
        if v is None:
            assert (layer.clipping, layer.saturated, layer.response, layer.rate, layer.v_threshold) == (
                None,
            ) * 5
            continue
        assert np.array_equal(layer.v_threshold, v.ravel()) and layer.saturated == np.mean(a > v * 1.00001)
        clipped, rounded = np.minimum(a, v), rate(a, v, T)
        shares = [
            np.mean(error * part) / np.mean(error**2)
            for part in (clipped - a, rounded - clipped, s - rounded)
        ]
        assert (layer.clipping, layer.quantization, layer.unevenness) == pytest.approx(shares, abs=1e-9)
        assert layer.clipping + layer.quantization + layer.unevenness == pytest.approx(1)
        assert layer.dead == np.count_nonzero(a.max(axis=(0, 2, 3)) <= 0)
        for low, high, mean in zip(RESPONSE_EDGES, RESPONSE_EDGES[1:], layer.response):
            inside = (a / v >= low) & (a / v < high) & (a > 0)
            assert mean == pytest.approx((s / v)[inside].mean()) if inside.sum() >= 8 else np.isnan(mean)


def test_a_max_pool_of_two_layers_has_two_rows():
    random = np.random.default_rng(0)
    layers = (
        Input((2, 6, 6), name="x"),
        Conv2d(random.standard_normal((3, 2, 3, 3)), name="c1"),
        IF(2.0, name="a"),
        Conv2d(random.standard_normal((2, 2, 3, 3)), name="c2", inputs=("x",)),
        IF(1.5, name="b"),
        Concat(name="both", inputs=("a", "b")),
        MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1), name="pool"),
        Flatten(),
        Linear(random.standard_normal((3, 80))),
        Readout(name="out"),
    )
    network = Network(layers, n_steps=8, shift="initial")
    conversion = make_conversion(network, images_for(network, 5))
    found = by_name(explain(conversion, sweep=()))
    assert list(found) == ["a", "b", "pool[0]", "pool[1]", "out"] and found["pool[1]"].sources == ("b",)
    activations = {}
    forward(
        conversion.ann,
        conversion.held_out,
        observe=lambda name, current, activation: activations.setdefault(name, activation),
    )
    for source, pool in (("a", "pool[0]"), ("b", "pool[1]")):
        padded = np.pad(activations[source], ((0, 0), (0, 0), (1, 1), (1, 1)))
        largest = np.max([padded[:, :, y : y + 4, x : x + 4] for y in range(3) for x in range(3)], axis=0)
        assert found[pool].ann_mean == pytest.approx(largest.mean()) and found[pool].macs == 0
        assert np.array_equal(found[pool].v_threshold, found[source].v_threshold)


def naive_macs(network):
    """Products whose input is not padding, counted one by one."""
    macs = {}
    for layer in network.layers:
        if isinstance(layer, Linear):
            macs[layer.name] = layer.weight.size
        if isinstance(layer, Conv2d):
            (_, height, width), (n_out, n_in, ky, kx) = network.shapes[layer.inputs[0]], layer.weight.shape
            _, n_y, n_x = network.shapes[layer.name]
            inside = 0
            for y in range(n_y):
                for x in range(n_x):
                    for j in range(ky):
                        for i in range(kx):
                            at_y, at_x = (
                                y * layer.stride[0] - layer.padding[0] + j,
                                x * layer.stride[1] - layer.padding[1] + i,
                            )
                            inside += 0 <= at_y < height and 0 <= at_x < width
            macs[layer.name] = inside * n_out * n_in
    return macs


def test_macs_are_counted_exactly():
    network = mixed()
    found = explain(make_conversion(network, images_for(network, 2)), sweep=())
    macs = naive_macs(network)
    assert {layer.name: layer.macs for layer in found.layers} == {
        "a": macs["c1"],
        "pool": 0,
        "b": macs["c2"],
        "c": macs["c3"],
        "out": macs["last"],
    }
    assert {layer.name: layer.analog_macs for layer in found.layers} == {
        "a": macs["c1"],
        "pool": 0,
        "b": 0,
        "c": 0,
        "out": 0,
    }
    assert (
        found.macs == sum(macs.values()) == sum(layer.macs for layer in layer_facts(network))
        and found.analog_macs == macs["c1"]
    )


def test_layers_sum_to_the_networks_numbers():
    network = mixed()
    conversion = make_conversion(network, images_for(network, 7))
    found, result = explain(conversion, sweep=()), simulate(network, conversion.held_out)
    assert [(layer.n_spikes, layer.sops, layer.analog_macs * 7) for layer in found.layers] == [
        (layer.n_spikes, layer.sops, layer.macs) for layer in result.layers
    ]
    assert found.sops_per_sample == result.sops_per_sample and found.mean_rate == pytest.approx(
        result.mean_rate
    )
    report = found.as_json()
    for total, part in (("n_neurons", "n_neurons"), ("macs", "macs"), ("analog_macs", "analog_macs")):
        assert report[total] == sum(layer[part] for layer in report["layers"])
    assert report["sops_per_sample"] * 7 == pytest.approx(sum(layer["sops"] for layer in report["layers"]))


@pytest.mark.parametrize("n", [1, 7])
def test_the_last_rows_are_the_sums_of_the_rows(n):
    network = mixed()
    truth, causes, *_ = explain(make_conversion(network, images_for(network, n)), sweep=()).tables()
    for table, titles in ((truth, ["neurons", "dead"]), (causes, ["SOPs/sample", "ANN MACs", "analog MACs"])):
        *rows, total = table.cells(grouped=False)
        for title in titles:
            at = [column.title for column in table.columns].index(title)
            assert sum(Decimal(row[at]) for row in rows if row[at] != "-") == Decimal(total[at])


# What calibration knows


def test_dead_channels_are_those_of_calibration():
    network = mixed()
    maximum = np.array([1.0, 0, 2, 0])
    activations = {
        "a": Activations(maximum, np.zeros((4, BINS)), 1.0),
        "out": Activations(np.zeros(5), np.zeros((5, BINS)), 1.0),
    }
    found = by_name(
        explain(make_conversion(network, images_for(network, 3), activations=activations), sweep=())
    )
    assert found["a"].dead == found["pool"].dead == 2 and found["out"].dead == 0


def test_the_size_of_a_bias_correction():
    network = mixed()
    recipe = Recipe("mse", "channel", "initial", correction=True)
    corrections = {"b": Correction(np.array([3.0, -4.0, 0, 0]), 0.2, 0.1)}
    choices = {T: Choice(T, recipe, "asked for", (), corrections if T == 6 else {}) for T in (6, 20)}
    found = by_name(explain(make_conversion(network, images_for(network, 3), choices=choices), sweep=()))
    assert found["b"].correction == pytest.approx(2.5 / found["b"].ann_rms) and found["a"].correction is None


# Steps


def test_a_sweep_equals_single_runs():
    network = mixed(with_step_parameters=True)
    conversion = make_conversion(network, images_for(network, 9), labels=np.arange(9) % 5)
    found = explain(conversion, sweep=(16, 2))
    assert [point.n_steps for point in found.sweep] == [2, 6, 16] and [
        point.nearest_steps for point in found.sweep
    ] == [6, 6, 20]
    ann = conversion.targets.first.argmax(axis=1)
    for point in found.sweep:
        result = simulate(
            network, conversion.held_out, n_steps=point.n_steps, labels=conversion.held_out_labels
        )
        assert point.accuracy == result.accuracy and point.agreement == (result.predictions == ann).mean()
        assert (
            point.sops_per_sample == result.sops_per_sample
            and point.sops_per_mac == result.sops_per_sample / found.macs
        )
        assert point.mean_rate == pytest.approx(result.mean_rate)
    assert (
        found.accuracy == found.sweep[1].accuracy
        and found.ann_accuracy == (ann == conversion.held_out_labels).mean()
    )
    assert found.loss == found.ann_accuracy - found.accuracy


def graded(n):
    """Samples whose largest and second inputs differ by a quarter: four steps tell them apart."""
    images = np.full((n, 4), 0.5)
    images[np.arange(n), np.arange(n) % 4] = 0.75
    return images


@pytest.mark.parametrize("labelled", [True, False])
def test_the_t_that_is_worth_it(labelled):
    images = graded(64)
    found = explain(
        make_conversion(chain(n_steps=16), images, labels=np.arange(64) % 4 if labelled else None),
        sweep=(1, 4),
    )
    assert [point.quality for point in found.sweep] == [0.25, 1, 1] and found.worth_n_steps == 4
    assert (
        "T = 4 is worth it" in found.advice[1]
        and ("accuracy" if labelled else "agreement") in found.advice[1]
    )
    assert found.loss == 0 and "nothing is lost" in found.advice[0]


def test_a_loss_within_one_standard_error_of_the_best_is_worth_fewer_steps():
    images = graded(64)
    images[7] = (0.3, 0.4, 0.45, 0.3)  # four steps cannot tell 0.4 from 0.45
    found = explain(make_conversion(chain(n_steps=32), images), sweep=(4,))
    assert [point.agreement for point in found.sweep] == [63 / 64, 1] and found.worth_n_steps == 4
    assert (
        "T = 4 is worth it" in found.advice[1]
        and "within one standard error (2.1 points) of the best, 100.0 % at T = 32" in found.advice[1]
    )


def test_the_smallest_that_was_tried_is_said_to_be_that():
    """Nothing smaller was compared with it. If the ANN is reached, a lucky smaller T is no reason to warn."""
    found = explain(make_conversion(chain(n_steps=4), graded(64)), sweep=())
    assert found.worth_n_steps == 4 and found.advice[1].startswith(
        "T = 4 is worth it, the smallest that was tried: its agreement with the ANN is 100.0 %"
    )
    points = [
        SweepPoint(T, T, quality, quality, 0.1, 0.1, 0.1, 1.0, 1.0, 0.1)
        for T, quality in ((4, 0.75), (64, 0.6875))
    ]
    right = [np.arange(64) < n for n in (48, 44)]
    assert not about_more_steps(points, right, np.arange(64) < 44, 4)
    assert about_more_steps(points, right, np.arange(64) < 60, 4)


def test_where_nothing_is_worth_it():
    broken = explain(make_conversion(chain(n_steps=4, v_threshold=0.1), graded(64)), sweep=(8,))
    assert (
        broken.worth_n_steps is None and broken.loss == 0.75 and "more steps do not help" in broken.advice[1]
    )
    assert "75.0 % of predictions differ" in broken.advice[0] and "'neurons' first" in broken.advice[0]
    short = explain(make_conversion(chain(n_steps=2), graded(64)[1:] / 2), sweep=())
    assert short.worth_n_steps is None and "raise --steps" in short.advice[1]


def test_accuracy_that_falls_with_more_steps_is_explained():
    """Thresholds that are right for four steps, in a table, and too low for more."""
    good, bad = {"neurons": StepParameters(v_threshold=1.0)}, {"neurons": StepParameters(v_threshold=0.1)}
    network = chain(n_steps=4, step_parameters={4: good, 64: bad})
    found = explain(make_conversion(network, graded(64)), sweep=(4, 32))
    assert [point.agreement for point in found.sweep] == [1, 0.25] and found.worth_n_steps == 4
    assert (
        "falls to 25.0 % at T = 32, whose thresholds are made for T = 64" in found.advice[2]
        and "--steps 4,32" in found.advice[2]
    )


def test_the_standard_error_of_a_loss():
    random = np.random.default_rng(0)
    a, b = random.random(50) < 0.9, random.random(50) < 0.7
    difference = np.concatenate(
        [a.astype(float) - b, [1, -1]]
    )  # half a sample in each cell: of four, two differ
    cells = np.concatenate([np.ones(50), [0.5, 0.5]])
    mean = (difference * cells).sum() / 52
    squared = (difference**2 * cells).sum() / 52
    assert standard_error(a, b) == pytest.approx(np.sqrt((squared - mean**2) / 52))
    assert 0 < standard_error(a, a) < standard_error(a, b)


# Words


def layer_with(**changes):
    known = LayerExplanation(
        name="x",
        projection="conv2d 3x3",
        sources=(),
        shape=(4, 2, 2),
        v_threshold=np.ones(4),
        n_samples=8,
        n_steps=4,
        ann_mean=0.2,
        ann_rms=0.4,
        snn_mean=0.2,
        error=0.5,
        correlation=0.9,
        saturated=0.12,
        clipping=0.1,
        quantization=0.1,
        unevenness=0.8,
        response=None,
        n_spikes=100,
        sops=0,
        macs=0,
        analog_macs=0,
        dead=0,
    )
    return dataclasses.replace(known, **changes)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"clipping": 0.8, "unevenness": 0.1}, "12 % of activations pass the threshold"),
        (
            {"clipping": 0.8, "unevenness": 0.1, "saturated": 0.0042},
            "0.42 % of activations pass the threshold",
        ),
        ({"quantization": 0.8, "unevenness": 0.1}, "multiples of V_th/T (at least 0.25)"),
        ({}, "unevenly"),
        ({"snn_mean": 0.1}, "50 % too low in the mean"),
        ({"clipping": None, "quantization": None, "unevenness": None, "v_threshold": None}, "unevenly"),
        ({"dead": 4}, "no channel is ever active"),
        ({"dead": 3, "error": 0.1}, "3 of 4 channels are never active"),
        ({"n_spikes": 0}, "never fires"),
        ({"error": 0.1}, ""),
    ],
)
def test_a_diagnosis_names_the_cause(changes, words):
    (line,) = diagnose([layer_with(**changes)])
    assert words in line and bool(line) == bool(words)


def test_an_error_that_was_there_before_is_called_so():
    first, second = diagnose([layer_with(name="first", error=0.45), layer_with(sources=("first",))])
    assert "unevenly" in first and "'first' before it is off by 45 %" in second
    first, second = diagnose(
        [layer_with(name="first", error=0.34), layer_with(sources=("first",), error=0.4)]
    )
    assert not first and "unevenly" in second


def test_text_is_drawn_with_and_without_rich(monkeypatch):
    network = mixed()
    found = explain(
        make_conversion(network, images_for(network, 6), labels=np.zeros(6, np.int64)), sweep=(2,)
    )
    assert "advice" in found.text()
    monkeypatch.setattr("evsnn.text.has_extra", lambda package: False)
    text = found.text()
    assert text == draw(found.tables()) and "\t" in text and all(layer.name in text for layer in found.layers)


def test_json_has_plain_types():
    network = mixed()
    for labels in (None, np.zeros(6, np.int64)):
        found = explain(make_conversion(network, images_for(network, 6), labels=labels), sweep=(2,))
        report = json.loads(json.dumps(found.as_json(), allow_nan=False))
        assert report == found.as_json() and set(report) == JSON_KEYS and report["schema_version"] == 1
        assert all(set(layer) == LAYER_KEYS for layer in report["layers"]) and all(
            set(point) == SWEEP_KEYS for point in report["sweep"]
        )
        assert report["layers"] == found.rows() and (report["accuracy"] is None) == (labels is None)


def test_a_layer_that_never_varies_has_no_correlation():
    found = explain(make_conversion(chain(), np.zeros((4, 4), np.float32)), sweep=())
    neurons = by_name(found)["neurons"]
    assert (neurons.error, neurons.correlation, neurons.rate, neurons.dead) == (0, None, 0, 4)
    json.dumps(found.as_json(), allow_nan=False)


# The picture


@pytest.mark.slow
@pytest.mark.parametrize("suffix, start", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_it_is_drawn(tmp_path, suffix, start):
    pytest.importorskip("matplotlib")
    network = mixed()
    found = explain(
        make_conversion(network, images_for(network, 6), labels=np.zeros(6, np.int64)), sweep=(2, 16)
    )
    found = dataclasses.replace(
        found,
        layers=tuple(
            dataclasses.replace(layer, name=f"$\\frac{layer.name}$\x1b[2J") for layer in found.layers
        ),
    )
    for name in ("one", "two"):
        picture.save(str(tmp_path / f"{name}.{suffix}"), found)
    picture_bytes = (tmp_path / f"one.{suffix}").read_bytes()
    assert picture_bytes.startswith(start) and picture_bytes == (tmp_path / f"two.{suffix}").read_bytes()


def test_it_is_drawn_where_there_is_little_to_draw(tmp_path):
    pytest.importorskip("matplotlib")
    found = explain(make_conversion(chain(), np.zeros((1, 4), np.float32)), sweep=())
    picture.save(str(tmp_path / "picture.png"), found)
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_without_matplotlib_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(picture, "has_extra", lambda package: False)
    found = explain(make_conversion(chain(), graded(4)), sweep=())
    with pytest.raises(MissingExtraError, match=r"evsnn\[plot\]"):
        picture.save(str(tmp_path / "picture.png"), found)


# The door


def test_without_samples_there_is_nothing_to_explain():
    conversion = make_conversion(chain(), graded(4))
    for samples in (0, -1):
        with pytest.raises(ModelError, match="no samples"):
            explain(conversion, samples=samples)


def test_samples_are_limited():
    conversion = make_conversion(chain(), graded(9), labels=np.zeros(9, np.int64))
    assert explain(conversion, sweep=(), samples=5).n_samples == 5


def test_a_bad_number_of_steps_is_told_before_the_work():
    called = []
    with pytest.raises(RunError, match="n_steps"):
        explain(make_conversion(chain(), graded(4)), sweep=(4, 0), progress=lambda *args: called.append(args))
    assert not called


def test_another_networks_ann_is_refused():
    conversion = make_conversion(chain(), graded(4))
    conversion.ann = Ann(mixed())
    with pytest.raises(ModelError, match="'neurons'"):
        explain(conversion)


def test_progress_says_what_and_how_much():
    calls = []
    found = explain(
        make_conversion(chain(), graded(4)), sweep=(2,), threads=1, progress=lambda *call: calls.append(call)
    )
    assert isinstance(found, Explanation)
    assert calls == [("comparing layers", i, 4) for i in (1, 2, 3, 4)] + [
        ("running T = 2", i, 4) for i in (1, 2, 3, 4)
    ]
