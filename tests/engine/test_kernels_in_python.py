"""The kernels' text, run line by line by Python: the same bits, and lines that coverage can count.

With numba's compiler off (``NUMBA_DISABLE_JIT=1``) these tests run in this process; else one of them runs the
others there. They are all that has to run there: other tests ask for the backend "auto", which then is the
reference, and so would compare it with itself.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from generate import networks
from hypothesis import HealthCheck, given, settings
from networks import every_path, input_beside_spikes
from numba import config

import evsnn
from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, Network, Readout, run
from evsnn.arguments import RECORDS
from evsnn.engine.plan import plan
from evsnn.simulation import Simulator

python_only = pytest.mark.skipif(not config.DISABLE_JIT, reason="numba's compiler is on")


def assert_same_in_python(network, images, arithmetic, block_steps=None):
    simulator = Simulator(network, arithmetic=arithmetic, backend="numba", threads=1)
    simulator.plan = plan(
        simulator.circuit, simulator.quantized.widths if simulator.quantized else None, block_steps
    )
    fast = simulator.run(images, record=RECORDS)
    slow = evsnn.simulate(network, images, arithmetic=arithmetic, backend="reference", record=RECORDS)
    assert np.array_equal(fast.outputs, slow.outputs)
    for one, other in zip(fast.layers, slow.layers):
        assert np.array_equal(one.spikes, other.spikes), one.name
        assert np.array_equal(one.v_mem, other.v_mem), one.name
        assert (one.n_events, one.sops) == (other.n_events, other.sops)


@python_only
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_an_analog_input_beside_spikes(arithmetic):
    images = np.random.default_rng(1).random((1, 2, 6, 5), dtype=np.float32)
    assert_same_in_python(input_beside_spikes(0.3, 3), images, arithmetic)


@python_only
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize(
    "block_steps, negative_threshold, warm_up_steps",
    [(None, 0.0, 0), (3, 0.0, 0), (3, 0.1, 0), (None, 0.1, 1)],
)
def test_every_path(arithmetic, block_steps, negative_threshold, warm_up_steps):
    network = every_path(negative_threshold, warm_up_steps)
    assert_same_in_python(
        network, np.random.default_rng(1).random((2, 2, 5, 4), dtype=np.float32), arithmetic, block_steps
    )


@python_only
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_long_lists_and_wide_counts(arithmetic):
    """Budgets run out, a run is longer than one copy, counts pass 256."""
    rng = np.random.default_rng(0)
    network = Network(
        [
            Input((1, 17, 17)),
            Conv2d(np.ones((5, 1, 1, 1)), np.ones(5)),
            IF(0.5),
            AvgPool2d(name="p"),
            Flatten(name="f"),
            Linear(rng.normal(size=(300, 5)), np.ones(300)),
            IF(0.1),
            Linear(np.ones((4, 300))),
            Readout(),
        ],
        n_steps=2,
        input_range=(0, 1),
    )
    assert_same_in_python(network, rng.random((1, 1, 17, 17), dtype=np.float32), arithmetic)


@python_only
@given(networks(small=True, max_layers=2))
@settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), max_examples=40)
def test_random_networks(case):
    for arithmetic in ("float32", "int8"):
        assert_same_in_python(case[0], case[1][:1], arithmetic)


@python_only
def test_the_reference_stands_in(tmp_path, capsys):
    network = every_path(0.1, 1)
    image = np.random.default_rng(1).random((1, 2, 5, 4), dtype=np.float32)
    assert Simulator(network).backend == "reference"
    assert evsnn.simulate(network, image).backend == "reference"
    evsnn.save(tmp_path / "net.h5", network)
    np.save(tmp_path / "image.npy", image)
    assert run.main([str(tmp_path / "net.h5"), "--input", str(tmp_path / "image.npy")]) == 0
    assert (
        "backend: numba's compiler is switched off; the NumPy reference runs instead"
        in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="already there")
def test_with_the_compiler_off():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        command,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 passed, 1 skipped" in done.stdout
