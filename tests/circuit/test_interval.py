"""Many steps of an interval at once give what its steps give one by one."""

from __future__ import annotations

import numpy as np
import pytest

from evsnn.circuit import interval
from evsnn.circuit.neuron import Neuron, leak_shift


def step_by_step(neuron, n_steps, least, most):
    """The bounds as docs/arithmetic.md has them: one step after the other."""
    low = high = neuron.v_init.astype(np.int64)
    lowest, highest = low, high
    for u in range(n_steps + neuron.warm_up_steps):
        if u < n_steps:
            if neuron.leak < 1:
                low, high = (v - (v >> leak_shift(neuron.leak)) for v in (low, high))
            low, high = low + least, high + most
            lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
        if u >= neuron.warm_up_steps and neuron.v_threshold is not None:
            th = neuron.v_threshold
            low = np.where(low >= th, low - th, np.where(high >= th, np.minimum(low, 0), low))
            high = np.maximum(high - th, np.minimum(high, th - 1))
        lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
    return lowest, highest


@pytest.mark.parametrize("scale", [3, 40, 1000])
@pytest.mark.parametrize("leak", [1.0, 0.0, 0.5, 0.96875])
@pytest.mark.parametrize("fires", [True, False])
def test_bounds_are_those_of_single_steps(scale, leak, fires):
    rng = np.random.default_rng(scale)
    channels = 4000
    for n_steps in (1, 2, 7, 60):
        for warm_up in (0, 1, 5, n_steps):
            ends = rng.integers(-scale, scale + 1, (2, channels))
            neuron = Neuron(
                v_threshold=rng.integers(1, scale + 1, channels) if fires else None,
                v_init=rng.integers(-3 * scale, 3 * scale + 1, channels),
                leak=leak,
                warm_up_steps=min(warm_up, n_steps) if fires else 0,
            )
            found = neuron.bounds_after(n_steps, ends.min(axis=0), ends.max(axis=0))
            expected = step_by_step(neuron, n_steps, ends.min(axis=0), ends.max(axis=0))
            for one, other in zip(found, expected):
                assert np.array_equal(one, other)


def test_steps_are_few_however_long_the_run(monkeypatch):
    """The slow part of a proof is counted, not timed."""
    rng = np.random.default_rng(0)
    resets = []
    reset = interval.Interval._reset
    monkeypatch.setattr(
        interval.Interval, "_reset", staticmethod(lambda *args: resets.append(1) or reset(*args))
    )
    for leak in (1.0, 0.5):
        for n_steps in (64, 65_536):
            resets.clear()
            ends = rng.integers(-1000, 1001, (2, 500))
            neuron = Neuron(
                v_threshold=rng.integers(1, 1000, 500), v_init=rng.integers(-3000, 3000, 500), leak=leak
            )
            neuron.bounds_after(n_steps, ends.min(axis=0), ends.max(axis=0))
            assert len(resets) < 40
