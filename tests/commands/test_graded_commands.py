"""The commands and graded spikes: what they print, and what a file of graded spikes is to each of them."""

from __future__ import annotations

import json

import pytest

import evsnn
from evsnn import inspect, run
from evsnn.files.demo import demo


@pytest.fixture
def graded(tmp_path):
    """The demo as a file of graded spikes with parameters for T = 4 and 15."""
    network = demo()
    tables = {T: {"if1": evsnn.StepParameters(v_threshold=1.0, levels=T + 1)} for T in (4, 15)}
    network = network.replace(coding="graded", n_steps=15, graded_parameters=tables)
    evsnn.save(tmp_path / "graded.h5", network)
    return str(tmp_path / "graded.h5")


def printed(capsys, main, *words) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_a_run_says_its_coding(capsys):
    entry = json.loads(
        printed(capsys, run.main, "--coding", "graded", "--steps", "4", "--limit", "3", "--json")
    )
    assert entry["coding"] == "graded" and entry["backend"] == "reference" and 0 < entry["mean_rate"] < 1
    text = printed(capsys, run.main, "--coding", "graded", "--steps", "4", "--limit", "3")
    assert "counts of 0 to 4: an ANN with activations of 3 bits" in text
    assert "thresholds made for steps" in text and "graded per sample, from" in text
    entry = json.loads(printed(capsys, run.main, "--limit", "1", "--json"))
    assert entry["coding"] == "steps"


def test_a_file_runs_with_its_own_coding(capsys, graded):
    text = printed(capsys, run.main, graded, "--limit", "2")
    assert "counts of 0 to 15" in text and "made for steps" not in text
    assert "graded parameters of T = 4" in printed(capsys, run.main, graded, "--limit", "2", "--steps", "5")
    entry = json.loads(printed(capsys, run.main, graded, "--limit", "2", "--coding", "steps", "--json"))
    assert entry["coding"] == "steps"


def test_inspect_shows_the_parameters_of_the_files_coding(capsys, graded):
    text = printed(capsys, inspect.main, graded)
    assert "coding" in text and "T = 4, 15; thresholds below are those of T = 15" in text
    entry = json.loads(printed(capsys, inspect.main, graded, "--json"))
    assert (entry["coding"], entry["graded_parameters"]) == ("graded", [4, 15])


def test_kernels_of_steps_are_made_for_a_graded_file(capsys, graded):
    assert "kernels in" in printed(capsys, run.main, "warm", graded)


def test_what_does_not_compute_graded_spikes_says_so(capsys, graded, tmp_path):
    from evsnn import profile
    from firmware_export.__main__ import main as firmware

    for main, words in (
        (profile.main, [graded]),
        (firmware, [graded, "-o", str(tmp_path / "out")]),
        (run.main, [graded, "--backend", "numba"]),
    ):
        assert main(words) == 1
        assert "does not support graded spikes" in capsys.readouterr().err
