"""Sums of sums are limited over the whole network: some bytes of a file can ask for a thousand parts."""

from __future__ import annotations

import numpy as np
import pytest

from evsnn import IF, Add, Input, Linear, Network, NetworkError, Readout
from evsnn.circuit import build
from evsnn.circuit.build import build_circuit


def doubled(n_layers: int, n_inputs: int = 8, size: int = 1) -> Network:
    """Layers of neurons, each behind the sum of a linear layer with itself."""
    layers = [Input((size,), "events", name="i0")]
    for i in range(n_layers):
        layers += [
            Linear(np.eye(size), name=f"l{i}", inputs=(f"i{i}",)),
            Add(name=f"a{i}", inputs=(f"l{i}",) * n_inputs),
            IF(name=f"i{i + 1}"),
        ]
    return Network([*layers, Linear(np.ones((2, size))), Readout()])


def test_parts_are_counted_over_all_layers(monkeypatch):
    monkeypatch.setattr(build, "MAX_ALL_PARTS", 40)  # 5 sums of 8
    assert len(build_circuit(doubled(4)).populations) == 5
    with pytest.raises(NetworkError, match="layer 'readout1': sums and concatenations have too many parts"):
        build_circuit(doubled(5))


def test_weights_are_counted_as_often_as_they_are_used(monkeypatch):
    monkeypatch.setattr(build, "FREE_WEIGHTS", 0)
    build_circuit(doubled(1, 32, 10))
    with pytest.raises(NetworkError, match=r"layer 'i1': .* each weight 64 times"):
        build_circuit(doubled(1, 100, 10))
