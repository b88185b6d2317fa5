"""A part of the frozen results; `frozen.py` compares all of them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import frozen

FROZEN = json.loads(frozen.FILE.read_text())


@pytest.mark.parametrize("name", ["demo", "firmware/digits_cnn", "firmware/digits_mlp"])
def test_models(name):
    assert frozen.of_model(frozen.MODELS[name]) == FROZEN[name]


def test_every_digest_is_there():
    assert set(FROZEN) == {
        *frozen.MODELS,
        *(f"network {seed}" for seed in range(500)),
        *(f"C {seed}" for seed in frozen.seeds_of_c()),
        *(f"conversion {i}" for i in range(frozen.N_CONVERSIONS)),
    }


def test_conversions():
    pytest.importorskip("onnx")
    import frozen_conversions

    assert frozen_conversions.N_CONVERSIONS == frozen.N_CONVERSIONS
    found = {f"conversion {i}": frozen.of_conversion(i) for i in range(frozen.N_CONVERSIONS)}
    assert found == {name: FROZEN[name] for name in found}
    assert len(set(found.values())) == len(found)


@pytest.mark.slow
def test_random_networks_by_the_reference():
    wrong = [
        seed
        for seed in range(frozen.N_NETWORKS)
        if seed % 3 and frozen.of_random_network(seed, "reference") != FROZEN[f"network {seed}"]
    ]
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_random_networks_by_the_engine(seed):
    assert frozen.of_random_network(seed) == FROZEN[f"network {seed}"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
@pytest.mark.parametrize("seed", frozen.seeds_of_c()[:8])
def test_random_networks_in_c(seed):
    assert frozen.of_c(seed) == FROZEN[f"C {seed}"]
