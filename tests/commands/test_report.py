"""Reports: layers sum to their total, tables and JSON say the same, nothing in a name is obeyed."""

import io
import json
import sys
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evsnn import IF, Conv2d, Flatten, Input, LayerResult, Linear, Network, Readout, Result, RunError
from evsnn.output.memory import announce
from evsnn.output.plot import save
from evsnn.output.report import Report, Run, layer_table
from evsnn.output.table import Column, Table, apportion, draw
from evsnn.text import as_bytes

KEYS = {
    "schema_version",
    "model",
    "n_steps",
    "n_samples",
    "accuracy",
    "predictions",
    "latency_ms",
    "start_up_ms",
    "sops_per_sample",
    "spikes_per_sample",
    "mean_rate",
    "arithmetic",
    "threads",
}


def make_network(classes=()):
    layers = (
        Input((1, 4, 4)),
        Conv2d(np.ones((2, 1, 3, 3))),
        IF(1.0),
        Flatten(),
        Linear(np.ones((3, 8))),
        Readout(),
    )
    return Network(layers, n_steps=4, classes=classes)


def layer(name, projection, shape, n_spikes, n_events, sops, macs, time_ms, fires=True):
    return LayerResult(
        name=name,
        projection=projection,
        shape=shape,
        n_spikes=n_spikes,
        n_events=n_events,
        sops=sops,
        macs=macs,
        time_ms=time_ms,
        fires=fires,
    )


def make_result(n_steps=4, labels=(0, 1, 2), seed=0):
    random = np.random.default_rng(seed)
    n = 3
    layers = (
        layer("if1", "conv2d 3x3", (2, 2, 2), 17, 0, 0, n * 72, 0.1),
        layer("if2", "linear + identity", (5,), 22, 31, 12_345_679, 0, 7.00049),
        layer("out", "linear", (3,), 0, 22, 66, 0, 0.20051, fires=False),
    )
    outputs = random.random((n, 3))
    return Result(
        outputs=outputs,
        n_steps=n_steps,
        arithmetic="float32",
        backend="numba",
        threads=2,
        latency_ms=random.random(n),
        layers=layers,
        labels=None if labels is None else np.array(labels),
    )


def make_report(steps=(4,), labels=(0, 1, 2), classes=(), **options):
    runs = [
        Run(
            make_result(T, labels, seed=T),
            10**8,
            {"import": 1.0, "load": 2.0, "plan": 3.0, "compile": 4.0, "first": 5.0},
        )
        for T in steps
    ]
    return Report(
        **{"model": "net.h5", "network": make_network(classes), "inputs": "samples", "seed": 0, "runs": runs}
        | options
    )


@pytest.fixture(params=["rich", "plain"])
def style(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr("evsnn.text.has_extra", lambda package: False)
    return request.param


def rows_of(text):
    """Cells of each line, numbers without grouping."""
    return [
        [
            cell.replace(",", "")
            for cell in (line.split("\t") if "\t" in line else line.split("  "))
            if cell.strip()
        ]
        for line in text.split("\n")
    ]


# Sums


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=40), st.integers(0, 3))
def test_rounded_parts_sum_to_the_rounded_sum(values, digits):
    parts, total = apportion(values, digits)
    assert sum(Decimal(f"{part:.{digits}f}") for part in parts) == Decimal(f"{total:.{digits}f}")
    unit = Decimal(1).scaleb(-digits)
    assert all(abs(part - Decimal(value)) <= unit for part, value in zip(parts, values))
    assert abs(total - sum(map(Decimal, values))) <= unit / 2


def test_the_last_row_is_the_sum_of_the_rows(style):
    lines = [[cell.strip() for cell in row] for row in rows_of(draw([layer_table(make_result())]))]
    rows = {row[0]: row for row in lines if row}
    for column in (-1, -2, -3):
        assert sum(Decimal(rows[name][column]) for name in ("if1", "if2", "out")) == Decimal(
            rows["total"][column]
        )
    assert Decimal(rows["total"][-2]) == round(Decimal(12_345_745) / 3)
    assert Decimal(rows["total"][-1]) == Decimal("2.434")


def test_layers_of_the_json_sum_to_its_totals():
    report = json.loads(make_report().json())
    assert sum(layer["sops"] for layer in report["layers"]) == report["sops_per_sample"] * report["n_samples"]
    assert sum(layer["n_spikes"] for layer in report["layers"]) == pytest.approx(
        report["spikes_per_sample"] * report["n_samples"]
    )
    assert report["mean_rate"] == pytest.approx((17 + 22) / (13 * 4 * 3))
    assert [layer["rate"] for layer in report["layers"]] == [
        pytest.approx(17 / (8 * 4 * 3)),
        pytest.approx(22 / (5 * 4 * 3)),
        None,
    ]


# JSON


def test_json_has_the_promised_keys():
    text = make_report().json()
    report = json.loads(text)
    assert "\n" not in text and set(report) >= KEYS and "sweep" not in report
    assert (
        report["schema_version"] == 1
        and report["n_steps"] == 4
        and report["n_samples"] == 3
        and len(report["predictions"]) == 3
    )
    assert set(report["latency_ms"]) == {"p50", "p90", "p99"} and set(report["start_up_ms"]) == {
        "import",
        "load",
        "plan",
        "compile",
        "first",
    }
    assert {"name", "projection", "shape", "n_spikes", "n_events", "sops", "rate", "ms"} <= set(
        report["layers"][0]
    )
    result = make_result(seed=4)
    assert report["accuracy"] == result.accuracy and report["predictions"] == result.predictions.tolist()


def test_json_without_labels_has_no_accuracy():
    assert json.loads(make_report(labels=None).json())["accuracy"] is None


@pytest.mark.parametrize("task", ["regress", "none"])
def test_outputs_that_are_no_classes_have_no_predictions(task, tmp_path):
    report = make_report((2, 4), labels=None)
    runs = [replace(run, result=replace(run.result, task=task)) for run in report.runs]
    report = replace(report, runs=runs)
    said = json.loads(report.json())
    assert said["predictions"] is said["accuracy"] is said["sweep"][0]["agreement"] is None
    assert "predictions" not in dict(report.summary()) and "4" in draw(report.tables())
    save(tmp_path / "sweep.svg", report)


def test_json_of_a_sweep():
    report = json.loads(make_report(steps=(8, 2, 16)).json())
    assert report["n_steps"] == 16 and [entry["n_steps"] for entry in report["sweep"]] == [8, 2, 16]
    assert all(set(entry) >= KEYS for entry in report["sweep"])
    last, of_all = report["sweep"][2], {key: report[key] for key in report if key != "sweep"}
    assert last == of_all | {"agreement": 1, "deviation": 0}
    agreement = (make_result(2, seed=2).predictions == make_result(16, seed=16).predictions).mean()
    assert report["sweep"][1]["agreement"] == agreement


# Text


def test_rich_and_plain_say_the_same(monkeypatch):
    tables = make_report().tables() + make_report(steps=(2, 4)).tables()
    rich = draw(tables)
    monkeypatch.setattr("evsnn.text.has_extra", lambda package: False)
    plain = draw(tables)
    assert "\x1b" not in rich + plain and "─" in rich and "\t" in plain
    words = lambda text: [word for word in text.replace(",", "").replace("─", "").split() if "/" not in word]  # noqa: E731
    assert sorted(
        words(
            plain.replace("spikes/sample", "spikes").replace("SOPs/sample", "SOPs").replace("ms/sample", "ms")
        )
    ) == sorted(words(rich))


def test_summary_names_the_first_predictions():
    facts = dict(make_report(classes=("cat", "dog", "bird")).summary())
    names = ("cat", "dog", "bird")
    expected = [
        names[p] if p == label else f"{names[p]} (labelled {names[label]})"
        for p, label in zip(make_result(seed=4).predictions, (0, 1, 2))
    ]
    assert facts["predictions"] == ", ".join(expected)
    assert "accuracy" not in dict(make_report(labels=None).summary())
    assert "noise, seed 5" in dict(make_report(inputs="noise", seed=5).summary())["input"]


def test_names_do_not_steer_a_terminal(style):
    report = make_report(classes=("[red]\x1b[2J", "b\n", "c\u202e"), labels=None, model="\x1b]0;x\x07.h5")
    text = draw(report.tables())
    assert not any(c in text for c in "\x1b\x07\u202e")
    assert "\\x1b]0;x\\x07.h5" in text


def test_no_box_characters_where_they_cannot_be_shown(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert draw([layer_table(make_result())]).isascii()


def test_none_is_a_dash():
    assert (
        Column("a", ".3f").cell(None, True) == "-"
        and Column("a", ".1f").cell(12345.67, True) == "12,345.7"
        and Column("a", ".1f").cell(12345.67, False) == "12345.7"
    )
    assert draw([Table((Column("a"), Column("b", "d")), (("x", None),))]).split()[-1] == "-"


@pytest.mark.parametrize(
    "n, text", [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (2_345_678, "2.3 MB"), (5 * 10**9, "5.0 GB")]
)
def test_bytes_in_words(n, text):
    assert as_bytes(n) == text


def test_memory_is_announced_and_bounded(capsys):
    total = announce({"inputs": 2_000_000, "weights": 3_000_000, "nothing": 0})
    said = capsys.readouterr().err
    assert (
        total >= 5_000_000
        and said.startswith("memory: 5.0 MB to allocate (inputs 2.0 MB, weights 3.0 MB)")
        and said.count("\n") == 1
    )
    with pytest.raises(RunError, match="does not fit into memory"):
        announce({"weights": 1 << 60})


# Pictures


@pytest.mark.slow
@pytest.mark.parametrize("suffix, start", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_pictures_are_the_same_each_time(tmp_path, suffix, start):
    pytest.importorskip("matplotlib")
    paths = [str(tmp_path / f"{i}.{suffix}") for i in range(2)]
    for path in paths:
        save(path, make_report(steps=(2, 4), model="$bad^{"))
    first, second = map(_bytes, paths)
    assert first == second and first.startswith(start)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"0.{suffix}", f"1.{suffix}"]


def _bytes(path):
    with open(path, "rb") as file:
        return file.read()


def test_a_picture_without_a_place(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(RunError, match="cannot be written"):
        save(str(tmp_path / "no" / "a.png"), make_report())
    (tmp_path / "b.png").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        save(str(tmp_path / "b.png"), make_report())
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]


def test_a_picture_of_many_layers(tmp_path):
    pytest.importorskip("matplotlib")
    layers = tuple(layer(f"l{i}", "linear", (4,), 3, 3, i, 0, 0.1) for i in range(300))
    result = Result(
        outputs=np.eye(3),
        n_steps=4,
        arithmetic="int8",
        backend="numba",
        threads=1,
        latency_ms=np.ones(3),
        layers=layers,
    )
    save(str(tmp_path / "a.png"), make_report(runs=[Run(result, 1, {})]))
    assert (tmp_path / "a.png").stat().st_size < 1_000_000
