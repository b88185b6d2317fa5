"""The dense simulation of examples/paper against the engine: weights and inputs are such that no sum is
rounded, so every bit counts.
"""

from __future__ import annotations

import numpy as np
import pytest

import evsnn

torch = pytest.importorskip("torch")

from examples.paper import dense  # noqa: E402
from examples.paper.networks import NETWORKS, Residual  # noqa: E402
from examples.threshold_relu import ThresholdReLU, set_limit  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:there are only")

PARAMETERS = {
    "cifarnet": 45_003_018,
    "vgg16": 35_211_082,
    "resnet20": 11_253_440,
}  # of the paper's code, for 10 classes


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = [
        torch.nn.Conv2d(3, 8, 3, padding=1),
        ThresholdReLU(),
        torch.nn.AvgPool2d(2),
        Residual(8, 8, 1, 0.0),
        Residual(8, 16, 2, 0.0),
        torch.nn.Flatten(),
    ]
    net = torch.nn.Sequential(
        *layers, torch.nn.Linear(16 * 4 * 4, 24), ThresholdReLU(), torch.nn.Dropout(), torch.nn.Linear(24, 10)
    ).eval()
    set_limit(net, 1.0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.round(parameter * 64) / 64)
        net[6].bias[0] = 2.0  # one neuron at the limit
    return net


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(-16, 17, (6, 3, 16, 16)).astype(np.float32) / 8


@pytest.fixture(scope="module")
def network(model, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("dense") / "net.onnx"
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, 16, 16),),
        str(path),
        input_names=["images"],
        dynamic_axes={"images": {0: "n"}},
        dynamo=False,
    )
    converted = evsnn.convert(
        str(path), calibration=images, n_steps=8, threshold="max", granularity="layer", shift="bias"
    )
    file = path.with_suffix(".h5")
    evsnn.save(file, converted)
    assert dense.thresholds_of(file) == [1.0] * 6
    return converted


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("shift", ["bias", "none"])
def test_same_membranes_as_the_engine(model, network, images, shift):
    spiking = dense.Spiking(model, iter([1.0] * 6))
    with torch.no_grad():
        *_, membranes = spiking.run(torch.from_numpy(images), 8, 8 if shift == "bias" else None)
    result = evsnn.simulate(network.replace(shift=shift), images, n_steps=8)
    assert np.array_equal(membranes.numpy() / 8, result.outputs)
    assert len(np.unique(result.outputs)) > 10


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_predictions_are_read_at_each_time(model, network, images):
    spiking = dense.Spiking(model, iter([1.0] * 6))
    found = dense.simulate(spiking, torch.from_numpy(images), 8, None, [3, 8], batch=4)
    expected = [evsnn.simulate(network.replace(shift="none"), images, n_steps=t).predictions for t in (3, 8)]
    assert np.array_equal(found, expected)


def test_a_shift_belongs_to_one_run():
    assert dense.runs(True, [16, "400-600"]) == [
        (16, 16, {16: [16]}),
        (600, 800, {"400-600": list(range(400, 601))}),
    ]
    assert dense.runs(False, [16, 32]) == [(32, None, {16: [16], 32: [32]})]


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_the_networks_have_the_size_of_the_papers_code(name):
    with torch.device("meta"):
        net = NETWORKS[name](10)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]
