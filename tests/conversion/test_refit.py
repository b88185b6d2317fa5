"""Weights refitted in closed form: the regression, what the layers see, and what a network gains."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from onnx_builder import OnnxModel

import evsnn
from evsnn import IF, Conv2d, InputError, Linear, ModelError
from evsnn.conversion.balance import refit as module
from evsnn.conversion.balance.options import Options
from evsnn.conversion.conversion import convert_model
from evsnn.conversion.lowering.ann import computed

RNG = np.random.default_rng(8)
IMAGES = RNG.random((160, 3, 8, 8), np.float32)

LAYERS = {
    "linear": (Linear(RNG.normal(size=(5, 7))), (40, 7)),
    "1x1": (Conv2d(RNG.normal(size=(5, 4, 1, 1))), (12, 4, 6, 5)),
    "3x2": (
        Conv2d(RNG.normal(size=(6, 4, 3, 2)), stride=(2, 1), padding=(1, 0, 2, 1), dilation=(1, 2)),
        (12, 4, 9, 8),
    ),
    "groups": (Conv2d(RNG.normal(size=(6, 2, 3, 3)), padding=1, groups=2), (12, 4, 6, 5)),
    "depthwise": (Conv2d(RNG.normal(size=(4, 1, 3, 3)), padding=1, groups=4), (12, 4, 6, 5)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_rows_are_what_a_layer_sees(kind):
    """Features times the layer's own weights are its outputs, at any rows."""
    layer, shape = LAYERS[kind]
    x = RNG.normal(size=shape).astype(np.float32)
    out = computed(layer, [x])
    rows = RNG.permutation(out.size // out.shape[1])[:50]
    features, errors = module._rows(layer, x, out, rows)
    groups = len(features)
    weight = layer.weight.reshape(groups, -1, *layer.weight.shape[1:])
    weight = weight.reshape(groups, weight.shape[1], -1).transpose(0, 2, 1)
    np.testing.assert_allclose(features @ weight, errors, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_linear_error_is_found(kind):
    """Errors that another layer of the same form makes are taken away by that layer."""
    layer, shape = LAYERS[kind]
    x = RNG.normal(size=(30, *shape[1:])).astype(np.float32)
    hidden = module._plus(layer, RNG.normal(size=layer.weight.shape), RNG.normal(size=len(layer.weight)))
    error = computed(hidden, [x]) - computed(layer, [x])
    step, found = module._regression(layer, x, error, np.random.default_rng(0))
    assert found.strength == min(module.STRENGTHS) and found.error_after < 1e-4 * found.error_before
    repaired = module._plus(layer, step.weight, step.bias)
    np.testing.assert_allclose(repaired.weight, hidden.weight, atol=0.02)
    np.testing.assert_allclose(repaired.bias, hidden.bias, atol=0.02)


def test_noise_changes_nothing():
    layer, shape = LAYERS["linear"]
    x = RNG.normal(size=(60, *shape[1:])).astype(np.float32)
    noise = RNG.normal(size=(60, 5)).astype(np.float32)
    noise -= noise[:45].mean(axis=0)
    step, found = module._regression(layer, x, noise, np.random.default_rng(0))
    assert step is None and found.strength is None and found.error_after == found.error_before


def test_a_layer_with_too_many_inputs_stays(monkeypatch):
    monkeypatch.setattr(module, "MAX_FEATURES", 6)
    layer, shape = LAYERS["linear"]
    step, found = module._regression(layer, np.ones(shape), np.ones((40, 5)), np.random.default_rng(0))
    assert step is None and found.strength is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"levels": 11},
        {"negative_slope": np.float32(1)},
        {"negative_slope": RNG.uniform(0, 1, 6), "v_threshold": RNG.uniform(0.5, 1, (2, 6))},
    ],
    ids=["plain", "levels", "pairs", "slopes"],
)
@pytest.mark.parametrize("shift", ["none", "bias", "initial"])
def test_values_are_those_of_counts(options, shift):
    """What `refit` thinks that neurons send is what a graded run sends on to a readout."""
    neurons = IF(**{"v_threshold": RNG.uniform(0.5, 1, 6), "v_init": RNG.normal(size=6) / 9} | options)
    weight = RNG.normal(size=(6, 4)).astype(np.float32)
    network = evsnn.Network(
        [evsnn.Input((4,)), Linear(weight), neurons, Linear(np.eye(6)), evsnn.Readout()], shift=shift
    )
    x = RNG.normal(size=(30, 4)).astype(np.float32)
    run = evsnn.simulate(network.replace(input_range=(-9, 9)), x, n_steps=7, coding="graded")
    values = module._values(neurons, shift, 7, x @ weight.T)
    assert np.isclose(run.outputs, values, atol=1e-5).mean() > 0.98  # else within rounding of a level
    assert len(np.unique(values)) > 20


def test_means_are_brought_to_those_wanted():
    neurons = IF(v_threshold=2.0)
    current = RNG.uniform(-1, 2, (400, 3, 4, 4)).astype(np.float32)
    wanted = module._values(neurons, "initial", 7, current + np.float32([0.3, 0, -0.2])[:, None, None])
    sent, offset = module._sent(neurons, "initial", 7, current, wanted)
    before = np.abs((wanted - module._values(neurons, "initial", 7, current)).mean(axis=(0, 2, 3)))
    assert (np.abs((wanted - sent).mean(axis=(0, 2, 3))) < 0.2 * before + 1e-9).all()
    assert offset[0] > 0.1 and offset[1] == 0 and offset[2] < -0.1


def model():
    m = OnnxModel((3, 8, 8))
    x = m.op("Relu", m.norm(m.conv("x", 3, 12, pads=[1, 1, 1, 1]), 12))
    x = m.op("Relu", m.norm(m.conv(x, 12, 12, pads=[1, 1, 1, 1], group=12), 12))
    y = m.op("Relu", m.norm(m.conv(x, 12, 16, 1), 16))
    y = m.op("Relu", m.op("Add", m.conv(y, 16, 12, pads=[1, 1, 1, 1]), x))
    return m.model(m.head(m.op("GlobalAveragePool", y), 12))


def test_a_network_gains():
    proto, seen, fresh = model(), IMAGES[:128], RNG.random((200, 3, 8, 8), np.float32)
    errors = {}
    for refit in (False, True):
        found = convert_model(proto, seen, Options(n_steps=(3,), coding="graded", refit=refit))
        wanted = found.targets_of(fresh).first
        errors[refit] = np.square(evsnn.simulate(found.network, fresh).outputs - wanted).mean()
        assert any("refitted" in note for note in found.notes) == refit
    assert errors[True] < 0.8 * errors[False]


def test_memory_is_announced():
    """What is allocated stays below what `refit_bytes` says."""
    found = convert_model(model(), IMAGES, Options(n_steps=(3,), coding="graded"))
    images = RNG.random((400, 3, 8, 8), np.float32)
    module.refit(found.ann, found.network, 3, images[:8])
    tracemalloc.start()
    module.refit(found.ann, found.network, 3, images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    announced = module.refit_bytes(found.ann, 400)
    assert 0.3 * announced < peak < 1.1 * announced


def test_what_cannot_be_refitted():
    with pytest.raises(
        ModelError, match="refit: weights are refitted to graded spikes alone: got coding 'steps'"
    ):
        evsnn.convert(model(), IMAGES, refit=True)
    with pytest.raises(InputError, match="refit: weights are refitted to samples"):
        evsnn.convert(model(), coding="graded", refit=True)
