"""Running a network in two ways, which must agree to the bit."""

from __future__ import annotations

import numpy as np
from numba import config

import evsnn
from evsnn.arguments import RECORDS
from evsnn.engine import pack, plan, runner, state, workspace

ALLOCATING = (pack, plan, runner, state, workspace)
"""Modules that take memory from `evsnn.engine.plan.aligned`."""

DISABLE_JIT = bool(config.DISABLE_JIT)


def assert_same(a, b):
    """Two results are equal to the bit: spikes, membranes, counts, operations, outputs."""
    assert [layer.name for layer in a.layers] == [layer.name for layer in b.layers]
    for one, other in zip(a.layers, b.layers):
        assert np.array_equal(one.spikes, other.spikes), one.name
        assert (one.v_mem is None) == (other.v_mem is None) == one.projection.startswith("maxpool2d"), (
            one.name
        )
        if one.v_mem is not None:
            assert np.array_equal(one.v_mem, other.v_mem), one.name
            assert one.v_mem.dtype == other.v_mem.dtype
            assert not np.signbit(one.v_mem[one.v_mem == 0]).any(), "a membrane is -0.0"
        assert np.array_equal(one.spike_counts, other.spike_counts), one.name
        assert (one.n_spikes, one.n_events, one.sops, one.macs) == (
            other.n_spikes,
            other.n_events,
            other.sops,
            other.macs,
        ), one.name
    assert np.array_equal(a.outputs, b.outputs)


def run_both(network, images, n_steps=None, arithmetic="float32", **options):
    fast = evsnn.simulate(network, images, n_steps=n_steps, arithmetic=arithmetic, record=RECORDS, **options)
    slow = evsnn.simulate(
        network, images, n_steps=n_steps, arithmetic=arithmetic, record=RECORDS, backend="reference"
    )
    assert_same(fast, slow)
    return fast
