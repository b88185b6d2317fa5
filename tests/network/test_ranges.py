"""Networks whose numbers could leave float32's range are refused, by layer and quantity; others never do."""

from __future__ import annotations

import hashlib

import h5py
import numpy as np
import pytest

import evsnn
from evsnn import (
    IF,
    Add,
    AvgPool2d,
    Conv2d,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    Network,
    NetworkError,
    Readout,
    StepParameters,
    WeightsError,
)
from evsnn.network.ranges import LARGEST

ONE = np.ones((1, 1, 1, 1))


def chain(*layers, encoding="events", **options):
    """Layers between a map of 2x2 and a readout."""
    readout = [Flatten(), Linear(np.full((1, 4), 1e-30)), Readout()]
    return Network([Input((1, 2, 2), encoding), *layers, *readout], **options)


TOO_LARGE = {
    "a threshold": (lambda: chain(Conv2d(ONE), IF(2e33, name="a")), "layer 'a': v_threshold could"),
    "a first membrane": (lambda: chain(Conv2d(ONE), IF(v_init=-2e33, name="a")), "layer 'a': v_init could"),
    "a bias": (lambda: chain(Conv2d(ONE, [-2e33], name="c"), IF()), "layer 'c': the bias could"),
    "a weight": (lambda: chain(Conv2d(-2e33 * ONE, name="c"), IF()), "layer 'c': effective weights could"),
    "an effective weight": (
        lambda: chain(Conv2d(ONE), IF(1e20), Conv2d(1e14 * ONE, name="c"), IF()),
        "layer 'c': effective weights could leave float32's range: got up to 1e[+]34, expected at most 1",
    ),
    "behind pools": (
        lambda: chain(Conv2d(ONE), IF(1e20), MaxPool2d(1), AvgPool2d(1), Conv2d(1e14 * ONE, name="c"), IF()),
        "layer 'c': effective weights could",
    ),
    "a sum of weights": (
        lambda: chain(Conv2d(np.full((1, 1, 2, 2), 1e33), padding=(0, 0, 1, 1)), IF(name="a")),
        "layer 'a': the sum of a step could",
    ),
    "a sum of branches": (
        lambda: chain(Conv2d(1e33 * ONE, name="b"), Add(inputs=("b", "b")), IF(name="a")),
        "layer 'a': the sum of a step could",
    ),
    "a readout": (
        lambda: Network([Input((2,), "events"), Linear([[1e33, 1e33]]), Readout(name="r")]),
        "layer 'r': the sum of a step could",
    ),
    "an analog input": (
        lambda: chain(Conv2d(1e30 * ONE, name="c"), IF(), encoding="constant", input_range=(-1e6, 1)),
        "layer 'c': effective weights could",
    ),
    "step parameters": (
        lambda: chain(
            Conv2d(ONE),
            IF(name="a"),
            Conv2d(1e14 * ONE, name="c"),
            IF(),
            step_parameters={4: {"a": StepParameters(v_threshold=1e20)}},
        ),
        "layer 'c': effective weights could",
    ),
    "step parameters of a bias": (
        lambda: chain(Conv2d(ONE, name="c"), IF(), step_parameters={4: {"c": StepParameters(bias=[2e33])}}),
        "layer 'c': the bias could",
    ),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_numbers_that_could_leave_the_range_are_refused(case):
    make, message = TOO_LARGE[case]
    with pytest.raises(NetworkError, match=message):
        make()


def test_a_file_of_such_numbers_is_refused(tmp_path):
    network = chain(Conv2d(ONE), IF(1.0), Conv2d(1e10 * ONE), IF(1.0))
    evsnn.save(tmp_path / "f.h5", network)
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        data = file["layers/002_if/v_threshold"]
        data[...] = 3e38
        data.attrs["sha256"] = np.bytes_(hashlib.sha256(data[()].tobytes()).hexdigest())
    with pytest.raises(WeightsError, match=r"layer 'if1'.*: v_threshold could leave float32's range"):
        evsnn.load(tmp_path / "f.h5")


@pytest.mark.parametrize("ends", [(0, 1e39), (-1e308, 1), (0, 1e-320), (1e-46, 1), (0, 1e-40), (0, np.nan)])
def test_a_range_of_inputs_lies_in_float32(ends):
    with pytest.raises(NetworkError, match=r"input_range is not a range: .* finite in float32"):
        Network([Input((1,)), Linear([[1.0]]), Readout()], input_range=ends)


@pytest.mark.parametrize("ends", [(0, 1e39), (-1e308, 1), (0, 1e-320), (0, -1), (np.nan, 1)])
def test_a_range_for_integers_lies_in_float32(ends):
    with pytest.raises(evsnn.RunError, match="input_range is not a range"):
        evsnn.quantize(Network([Input((1,)), Linear([[1.0]]), Readout()]), 4, input_range=ends)


@pytest.mark.parametrize("seed", range(6))
def test_numbers_close_to_the_limit_give_the_same_finite_spikes(seed):
    """Weights and thresholds as large as they may be: the engine equals the reference, all is finite."""
    rng = np.random.default_rng(seed)

    def scaled(factor: float) -> Network:
        draws = np.random.default_rng(seed + 100)
        weight = draws.normal(size=(2, 1, 2, 2))
        return Network(
            [
                Input((1, 3, 3), "events"),
                Conv2d(factor * weight, factor * draws.normal(size=2)),
                IF(factor * draws.uniform(0.3, 1, 2), negative_threshold=0.2),
                AvgPool2d(2, 1) if seed % 2 else MaxPool2d(2, 1),
                Conv2d(draws.normal(size=(2, 2, 1, 1))),
                IF(factor * draws.uniform(0.3, 1, 2), leak=0.5 if seed % 3 else 1.0),
                Flatten(),
                Linear(draws.normal(size=(3, 2))),
                Readout(),
            ],
            n_steps=300,
        )

    factor = LARGEST
    while True:
        try:
            network = scaled(factor)
            break
        except NetworkError:
            factor /= 1.1
    events = rng.random((3, 300, 1, 3, 3)) < 0.5
    first, second = (
        evsnn.simulate(network, events, backend=backend, record=("spikes", "v_mem"))
        for backend in ("numba", "reference")
    )
    assert np.array_equal(first.outputs, second.outputs)
    for one, other in zip(first.layers, second.layers):
        if one.v_mem is not None:
            assert np.isfinite(one.v_mem).all() and np.array_equal(one.v_mem, other.v_mem)
        assert np.array_equal(one.spikes, other.spikes)
