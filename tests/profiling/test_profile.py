"""`python -m evsnn.profile`: sums are totals, what is compared is alike, and what is written can be read."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from numba import config

import evsnn
from evsnn import IF, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout, RunError
from evsnn.files.demo import demo
from evsnn.network.network import Samples
from evsnn.profile import main
from evsnn.profiling.measure import hints_of, measure
from evsnn.profiling.profile_files import old_profile
from evsnn.profiling.report import Report, Sweep, digest_of, seen_of
from evsnn.simulation import Simulator

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="times of plain Python say nothing")


def network(n_steps: int = 8) -> Network:
    rng = np.random.default_rng(0)
    layers = [
        Input((2, 10, 10)),
        Conv2d(rng.normal(size=(6, 2, 3, 3)), padding=1),
        IF(1.0, name="first"),
        MaxPool2d(2),
        Conv2d(rng.normal(size=(9, 6, 3, 3)), padding=1),
        IF(1.0),
    ]
    images = rng.random((6, 2, 10, 10), np.float32)
    return Network(
        [*layers, Flatten(), Linear(rng.normal(size=(4, 225))), Readout()],
        n_steps=n_steps,
        shift="bias",
        input_range=(0, 1),
        samples=Samples(images, np.arange(6) % 4),
    )


@pytest.fixture(scope="module", params=["float32", "int8"])
def report(request):
    net = network()
    simulator = Simulator(net, arithmetic=request.param, threads=1)
    profile = measure(simulator, net.samples.images, net.samples.labels, 0, 0.02)
    times = {"import": 1.0, "load": 2.0, "plan": 3.0, "compile": 4.0, "first": 5.0}
    seen = seen_of(simulator, net.samples.images, 0)
    return Report(
        "model.h5",
        net,
        "samples",
        0,
        profile,
        times,
        10**6,
        hints_of(profile),
        1e-6,
        None,
        (Sweep(4, 0.5, 1.0, 10.0), Sweep.of(profile.result)),
        seen,
    )


def test_rows_sum_to_the_wall_time_to_the_digit(report):
    for order in ("run", "time"):
        table = report.layer_table(order)
        titles = [column.title for column in table.columns]
        for title in ("ms/sample", "%", "events/sample", "SOPs/sample", "MB moved/sample"):
            i = titles.index(title)
            assert (
                sum((Decimal(str(row[i])) for row in table.rows if row[i] is not None), Decimal(0))
                == table.total[i]
            ), title
        assert table.total[titles.index("%")] == 100 and table.rows[-1][0] == "outside layers"
        shares = [row[titles.index("sum %")] for row in table.rows]
        assert shares == sorted(shares) and shares[-1] == 100
    times = [row[titles.index("ms/sample")] for row in table.rows[:-1]]
    assert times == sorted(times, reverse=True)
    profile = report.profile
    assert sum(layer.time_ms for layer in profile.layers) + profile.outside_ms == pytest.approx(
        profile.wall_ms / 6
    )
    assert (
        profile.outside_ms > 0
        and sorted(profile.round_ms)[(len(profile.round_ms) - 1) // 2] == profile.wall_ms
    )


def test_counts_are_those_of_a_run(report):
    net = report.network
    plain = evsnn.simulate(net, net.samples.images, arithmetic=report.profile.result.arithmetic, threads=1)
    assert np.array_equal(plain.outputs, report.profile.result.outputs)
    for layer, counted in zip(report.profile.layers, plain.layers):
        assert (layer.events, layer.sops, layer.spikes) == (
            counted.n_events / 6,
            counted.sops / 6,
            counted.n_spikes / 6,
        )
    facts = report.facts()
    assert sum(layer["sops"] for layer in facts["layers"]) == pytest.approx(facts["sops_per_sample"])
    conv = next(layer for layer in report.profile.layers if layer.ceiling_gsops)
    assert (
        conv.gsops * conv.ns_per_sop == pytest.approx(1)
        and conv.of_ceiling == pytest.approx(conv.gsops / conv.ceiling_gsops)
        and conv.bytes_moved > conv.weight_bytes > 0
    )


def test_json_says_what_is_computed_and_is_json(report):
    facts = json.loads(report.json())
    work = facts["workload"]
    assert set(work) == {
        "weight_bytes",
        "zero_weights",
        "accuracy",
        "mean_rate",
        "macs_per_sample",
        "sops_per_sample",
        "dense_operations_per_sample",
    }
    assert work["sops_per_sample"] == facts["sops_per_sample"] and 0 < work["mean_rate"] < 1
    assert work["macs_per_sample"] > 0 and work["weight_bytes"] == report.profile.weight_bytes
    assert "neurobench" not in facts  # whose metrics are other quantities
    assert (
        facts["deadline_misses"] == report.profile.latency_ms.size
        and facts["latency_ms"]["p50"] <= facts["latency_ms"]["p99"]
    )
    assert facts["energy_estimate"]["is_estimate"] and facts["energy_estimate"][
        "spiking_total"
    ] == pytest.approx(sum(facts["energy_estimate"]["spiking"].values()))


def test_speedscopes_weights_are_the_layers(report):
    scope = json.loads(report.speedscope())
    (profile,) = scope["profiles"]
    assert (
        len(profile["samples"]) == len(profile["weights"]) == len(report.profile.layers) + 1
        and len(scope["shared"]["frames"]) == len(profile["weights"]) + 1
    )
    assert profile["endValue"] == pytest.approx(report.profile.total_ms)
    assert all(0 <= i < len(scope["shared"]["frames"]) for stack in profile["samples"] for i in stack)


def test_what_a_page_shows_of_spikes_is_what_was_sent(report):
    net = report.network
    spikes = (
        evsnn.simulate(
            net, net.samples.images[:1], arithmetic=report.profile.result.arithmetic, record=("spikes",)
        )
        .layers[0]
        .spikes[0]
        .reshape(8, -1)
    )
    seen = report.seen[0]
    drawn = np.unique(np.linspace(0, spikes.shape[1] - 1, 48).astype(int))
    assert seen.raster == [(int(t) + 1, int(i)) for t, i in zip(*np.nonzero(spikes[:, drawn]))] and sum(
        seen.rates
    ) == pytest.approx(1)


def test_a_page_is_alone_and_names_cannot_leave_their_place(report):
    pytest.importorskip("plotly")
    from evsnn.profiling.page import page

    text = page(replace(report, model="</script><script>alert(1)//\u2028.h5"))
    own = text[: text.index("<script>")] + text[text.rindex("<script>") :]
    assert "alert(1)" not in re.sub(
        r"&lt;/script&gt;&lt;script&gt;alert\(1\)|\\u003c/script\\u003e\\u003cscript\\u003ealert\(1\)",
        "",
        own,
    )
    assert (
        not re.search(r"""(src|href)\s*=\s*["']?http""", own)
        and "$" + "data" not in own
        and "outside layers" in own
    )
    data = json.loads(re.search(r"^const data = (.*);$", own, re.MULTILINE)[1])
    assert (
        len(data["bars"]) == len(report.profile.layers) + 1
        and len(data["seen"]) == 3
        and [entry["n_steps"] for entry in data["sweep"]] == [4, 8]
    )


def test_hints_name_layer_evidence_and_gain(report):
    profile = report.profile
    hot = replace(
        profile,
        layers=tuple(
            replace(layer, time_ms=profile.total_ms * 0.3, rate=0.5) if layer.rate is not None else layer
            for layer in profile.layers
        ),
    )
    found = hints_of(hot)
    assert any(hint.layer == "first" and "rate 0.50" in hint.evidence and 0 < hint.gain < 1 for hint in found)
    assert [hint.gain for hint in found] == sorted((hint.gain for hint in found), reverse=True)
    slow = replace(profile, wall_ms=profile.wall_ms * 100, throttling=("under-voltage",))
    assert any("outside layers" in hint.evidence for hint in hints_of(slow)) and any(
        "under-voltage" in hint.evidence for hint in hints_of(slow)
    )
    assert ("THROTTLED", "under-voltage") in replace(report, profile=slow).summary()


def test_a_comparison_is_of_like_with_like(report, tmp_path):
    def kept(**changed) -> str:
        path = tmp_path / "old.json"
        path.write_text(json.dumps(report.facts() | changed))
        return str(path)

    same = report.compared_with(old_profile(kept()), "old.json")
    table = same.comparison()
    assert all(row[3] == 1 for row in table.rows[:-1] if row[3] is not None) and table.total[3] == 1
    assert any("now / then" in [column.title for column in t.columns] for t in same.tables())
    host = report.facts()["host"]
    for changed, what in (
        ({"n_steps": 9}, "n_steps"),
        ({"model_sha256": "0"}, "model_sha256"),
        ({"arithmetic": "int16"}, "arithmetic"),
        ({"host": host | {"cpu": "another"}}, "cpu"),
        ({"host": host | {"governor": "powersave"}}, "governor"),
        ({"host": 5}, "host's"),
        ({"throttling": ["under-voltage"]}, "throttled"),
        ({"throttling": None}, "throttled"),
        ({"layers": []}, "other layers"),
        ({"layers": [{"ms": 1.0}] * 4}, "other layers"),
        ({"layers": [5] * 4}, "damaged"),
        ({"layers": None}, "damaged"),
        ({"total_ms": None}, "damaged"),
        ({"total_ms": float("nan")}, "damaged"),
        ({"total_ms": 10**400}, "damaged"),
        ({"layers": [{"ms": 10**400}] * 4}, "damaged"),
        ({"arithmetic": "a" * 10**6}, "arithmetic"),
        ({"layers": [{"ms": "1"}] * 4}, "damaged"),
    ):
        with pytest.raises(RunError, match=what) as caught:
            report.compared_with(old_profile(kept(**changed)), "old.json")
        assert len(str(caught.value)) < 2500
    for text, what in (
        ("{}", "not a profile"),
        ("[1]", "not a profile"),
        ("x", "not a profile: got Expecting value"),
        (json.dumps({"kind": "evsnn.profile", "schema_version": 99}), "another schema"),
        ("[" * 10**5, "not a profile: got what is not JSON, or is nested too deep"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(RunError, match=what):
            old_profile(str(tmp_path / "bad.json"))
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RunError, match=r"cannot be read|not a regular file"):
            old_profile(str(path))


def test_a_digest_is_of_what_is_computed():
    net = network()
    others = [
        network(9),
        net.replace(shift="none"),
        net.replace(layers=[*net.layers[:-2], Linear(np.asarray(net.layers[-2].weight) * 2), net.layers[-1]]),
    ]
    assert len({digest_of(net), *map(digest_of, others)}) == 4
    assert digest_of(net) == digest_of(net.replace(samples=None)) == digest_of(network())


@pytest.mark.slow
def test_the_command_end_to_end(tmp_path, capsys):
    pytest.importorskip("plotly")
    page, scope, kept = tmp_path / "p.html", tmp_path / "s.json", tmp_path / "k.json"
    words = ["--limit", "5", "--seconds", "0.05", "--steps", "4,8"]
    assert main([*words, "--json", "--html", str(page), "--speedscope", str(scope)]) == 0
    out = capsys.readouterr().out
    facts = json.loads(out)
    kept.write_text(out)
    assert (
        facts["kind"] == "evsnn.profile"
        and facts["n_steps"] == 8
        and [entry["n_steps"] for entry in facts["sweep"]] == [4, 8]
        and facts["n_rounds"] >= 3
    )
    assert set(facts["start_up_ms"]) == {"import", "load", "plan", "compile", "first"} and facts[
        "model_sha256"
    ] == digest_of(demo())
    assert (
        page.read_text().startswith("<!doctype html>")
        and json.loads(scope.read_text())["exporter"] == "evsnn"
    )
    assert main([*words, "--compare", str(kept), "--sort", "time", "--deadline-ms", "1000"]) == 0
    out = capsys.readouterr().out
    assert "outside layers" in out and "now" in out and "0 of" in out


@pytest.mark.parametrize(
    ("words", "status", "what"),
    [
        (["--seconds", "0"], 2, "--seconds"),
        (["--seconds", "x"], 2, "--seconds"),
        (["--limit", "0"], 2, "--limit"),
        (["--deadline-ms", "-1"], 2, "--deadline-ms"),
        (["--sort", "x"], 2, "--sort"),
        (["--cpu", "0", "--threads", "2"], 1, "several threads"),
        (["--cpu", "4000"], 1, "4000"),
        (["--html", "/nowhere/p.html"], 1, "cannot be written"),
        (["--speedscope", "/nowhere/p.json"], 1, "cannot be written"),
        (["--speedscope", "/"], 2, "ends in .json"),
        (["--html", "weights.h5"], 2, "ends in .html or .htm"),
        (["--compare", "/nowhere.json"], 1, "cannot be read"),
        (["--power-csv", "/nowhere.csv", "--limit", "1", "--seconds", "0.01"], 1, "nowhere.csv"),
        (["nothing.h5"], 1, "cannot be opened"),
    ],
)
def test_bad_command_lines_are_one_line(words, status, what, capsys):
    before = os.sched_getaffinity(0)
    assert main(words) == status
    err = capsys.readouterr().err
    assert what in err and "Traceback" not in err
    assert os.sched_getaffinity(0) == before


def test_what_is_read_is_not_written_over(report, tmp_path, capsys):
    """And an earlier profile of another T is refused before anything is measured."""
    old = tmp_path / "old.json"
    old.write_text(text := json.dumps(report.facts()))
    assert main(["--compare", str(old), "--speedscope", str(tmp_path / "." / "old.json")]) == 1
    assert "is one that is read" in capsys.readouterr().err and old.read_text() == text
    assert main(["--compare", str(old), "--seconds", "3600"]) == 1
    assert "its model_sha256 differs" in capsys.readouterr().err


@pytest.mark.slow
def test_a_meters_log_is_read_when_the_run_is_over(tmp_path, capsys, monkeypatch):
    """2 W at idle and 5 W from now on, for as long as the run can last."""
    import time

    now = time.time()
    rows = [f"{now + t / 10:.3f},{5.0 if t >= -5 else 2.0}" for t in range(-100, 600)]
    (tmp_path / "log.csv").write_text("time_s,power_W\n" + "\n".join(rows) + "\n")
    words = ["--limit", "2", "--seconds", "0.5", "--json", "--power-csv", str(tmp_path / "log.csv")]
    assert main([*words, "--idle-w", "2"]) == 0
    measured = json.loads(capsys.readouterr().out)["energy_measured"]
    assert (
        measured["mean_w"] == pytest.approx(5)
        and measured["joules"] == pytest.approx(3 * measured["seconds"])
        and measured["seconds"] >= 0.5
    )
    assert main([*words, "--power-offset", "86400"]) == 1
    assert "no reading is from the time of the run" in capsys.readouterr().err
    ticks = iter(range(10**9, 10**9 + 10**8, 10**5))
    monkeypatch.setattr(time, "time", lambda: next(ticks))
    assert main([*words, "--idle-w", "2"]) == 1
    assert "the clock was set" in capsys.readouterr().err


def test_events_are_profiled_too(tmp_path, capsys):
    rng = np.random.default_rng(0)
    net = Network(
        [
            Input((2, 4, 4), "events"),
            Flatten(),
            Linear(rng.normal(size=(5, 32))),
            IF(1.0),
            Linear(rng.normal(size=(3, 5))),
            Readout(),
        ],
        n_steps=6,
        shift="bias",
    )
    evsnn.save(tmp_path / "e.h5", net)
    assert main([str(tmp_path / "e.h5"), "--seconds", "0.01", "--limit", "3", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (
        facts["accuracy"] is None and facts["input"] == "noise" and facts["workload"]["macs_per_sample"] == 0
    )


def test_samples_of_another_scale_are_warned_of(tmp_path, capsys):
    """As `run` does: a profile of pixels that were never scaled is one of another load."""
    model, images = str(tmp_path / "net.h5"), str(tmp_path / "images.npy")
    evsnn.save(model, network().replace(input_range=(0, 1)))
    np.save(images, np.full((2, *network().input_shape), 255, np.float32))
    assert main([model, "--input", images, "--seconds", "0.01"]) == 0
    assert "warning: inputs run from 255 to 255, the model was made for 0 to 1" in capsys.readouterr().err
