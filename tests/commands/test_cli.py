"""The commands: what they print and where, how they end, and that nothing bad ends in a traceback."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import evsnn
from evsnn import (
    IF,
    AvgPool2d,
    Conv2d,
    Flatten,
    Input,
    Linear,
    Network,
    Readout,
    Samples,
    StepParameters,
    convert,
    inspect,
    run,
)
from evsnn.__main__ import main as evsnn_main
from evsnn.output import console

ROOT = Path(evsnn.__file__).parents[1]
RANDOM = np.random.default_rng(11)
WEIGHTS = RANDOM.normal(0, 0.5, (6, 1, 3, 3)), RANDOM.normal(0, 0.5, (3, 96))
LABELS = np.arange(12) % 3
HEAVY = {"h5py", "llvmlite", "matplotlib", "numba", "numpy", "rich", "scipy"}


def make_network(encoding="constant", samples=True, **options):
    images = RANDOM.random((12, 1, 8, 8)).astype(np.float32)
    if encoding == "events":
        images = (RANDOM.random((12, 6, 1, 8, 8)) < 0.2).astype(np.float32)
    layers = (
        Input((1, 8, 8), encoding=encoding),
        Conv2d(WEIGHTS[0], padding=1),
        IF(1.0, name="hidden"),
        AvgPool2d(2),
        Flatten(),
        Linear(WEIGHTS[1]),
        Readout(),
    )
    settings = {"n_steps": 4, "input_range": (0, 1), "classes": ("ant", "bee", "wasp")} | options
    return Network(layers, shift="bias", samples=Samples(images, LABELS) if samples else None, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    evsnn.save(folder / "net.h5", make_network())
    evsnn.save(folder / "bare.h5", make_network(samples=False))
    evsnn.save(folder / "rangeless.h5", make_network(samples=False, input_range=None))
    evsnn.save(folder / "events.h5", make_network("events"))
    tables = {T: {"hidden": StepParameters(v_threshold=threshold)} for T, threshold in ((2, 0.5), (16, 2.0))}
    evsnn.save(folder / "tables.h5", make_network(step_parameters=tables))
    return folder


@pytest.fixture
def weights(folder):
    return str(folder / "net.h5")


@pytest.fixture
def call(capsys):
    """Run a command in this process, on the reference: (status, stdout, stderr)."""

    def call(*arguments, main=run.main, backend="reference"):
        extra = ["--backend", backend] if main is run.main else []
        status = main([*map(str, arguments), *extra])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def refused(call):
    """Run a command that has to fail with one line; the line."""

    def refused(status, *arguments, main=run.main):
        got, out, err = call(*arguments, main=main)
        lines = [
            line for line in err.splitlines() if not line.startswith(("memory: ", "input: ", "warning: "))
        ]
        assert got == status and out == "" and len(lines) == 1 and lines[0].startswith("evsnn: error: "), (
            got,
            out,
            err,
        )
        return lines[0]

    return refused


def spawn(*arguments, module="evsnn.run", **options):
    streams = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "timeout": 120,
        "cwd": ROOT,
    } | options
    return subprocess.run([sys.executable, "-m", module, *map(str, arguments)], **streams)


def without_times(report):
    return {
        k: v for k, v in report.items() if k not in ("latency_ms", "start_up_ms", "memory_bytes", "layers")
    } | {"layers": [{k: v for k, v in layer.items() if k != "ms"} for layer in report["layers"]]}


# Results


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_json_is_what_simulate_says(folder, weights, arithmetic):
    done = spawn(weights, "--json", "--steps", 8, "--arithmetic", arithmetic, "--threads", 1)
    said = [line for line in done.stderr.splitlines() if not line.startswith(("backend: ", "compiler: "))]
    assert done.returncode == 0 and len(said) == 1 and said[0].startswith("memory: ")
    report = json.loads(done.stdout)
    network = evsnn.load(weights)
    result = evsnn.simulate(
        network,
        network.samples.images,
        labels=network.samples.labels,
        n_steps=8,
        arithmetic=arithmetic,
        backend="reference",
    )
    assert report["predictions"] == result.predictions.tolist() and report["accuracy"] == result.accuracy
    assert report["sops_per_sample"] == result.sops_per_sample and report["mean_rate"] == result.mean_rate
    assert (
        report["n_steps"],
        report["n_samples"],
        report["arithmetic"],
        report["threads"],
        report["input"],
    ) == (8, 12, arithmetic, 1, "samples")
    assert report["memory_bytes"] > 1_000_000 and all(value >= 0 for value in report["start_up_ms"].values())


def test_table_and_summary(call, weights):
    status, out, err = call(weights)
    assert status == 0 and "\x1b" not in out and err.startswith("memory: ")
    assert "hidden" in out and "conv2d 3x3" in out and "6x8x8" in out and "total" in out
    for words in (
        "12 samples",
        "T = 4",
        "% (",
        " ms per sample",
        "float32, 1 thread, reference",
        "predicted before allocation",
        "ant",
    ):
        assert words in out
    assert max(map(len, out.splitlines())) <= 160


def test_text_without_rich(call, weights, monkeypatch):
    monkeypatch.setattr("evsnn.text.has_extra", lambda package: False)
    status, out, _ = call(weights)
    header, first, *_ = out.splitlines()
    assert status == 0 and header.split("\t") == [
        "layer",
        "projection",
        "shape",
        "rate",
        "spikes/sample",
        "SOPs/sample",
        "ms/sample",
    ]
    assert first.split("\t")[:3] == ["hidden", "conv2d 3x3", "6x8x8"]


def test_sweep(call, weights):
    status, out, err = call(weights, "--steps", "2,16,4", "--json")
    report = json.loads(out)
    assert (
        status == 0
        and [entry["n_steps"] for entry in report["sweep"]] == [2, 16, 4]
        and report["n_steps"] == 16
    )
    assert err.count("memory: ") == 3
    network = evsnn.load(weights)
    for entry in report["sweep"]:
        result = evsnn.simulate(
            network, network.samples.images, n_steps=entry["n_steps"], backend="reference"
        )
        assert (
            entry["predictions"] == result.predictions.tolist()
            and entry["sops_per_sample"] == result.sops_per_sample
        )
    status, out, _ = call(weights, "--steps", "2,16,4")
    assert status == 0 and "agreement" in out and "T = 16" in out


def test_tables(call, folder, weights):
    """Each run uses the parameters of its T, or of the nearest, and says so where it is not its own."""
    path = folder / "tables.h5"
    for arithmetic in ("float32", "int8"):
        status, out, _ = call(path, "--steps", "2,4,9,16", "--json", "--arithmetic", arithmetic)
        report = json.loads(out)
        assert status == 0 and [(entry["n_steps"], entry["nearest_steps"]) for entry in report["sweep"]] == [
            (2, 2),
            (4, 2),
            (9, 16),
            (16, 16),
        ]
        assert report["nearest_steps"] == 16
        for entry in report["sweep"]:
            network = make_by_hand(evsnn.load(path), 0.5 if entry["n_steps"] < 8 else 2.0)
            result = evsnn.simulate(
                network,
                network.samples.images,
                n_steps=entry["n_steps"],
                arithmetic=arithmetic,
                backend="reference",
            )
            assert (
                entry["predictions"] == result.predictions.tolist()
                and entry["sops_per_sample"] == result.sops_per_sample
            )
    _, out, _ = call(path, "--steps", "2,4,16")
    assert "parameters of T" in out and "thresholds of T" not in out
    _, out, _ = call(path, "--steps", "2,16")
    assert "parameters of T" not in out
    _, out, _ = call(path)  # T = 4
    assert "T = 4, shift bias, step parameters of T = 2" in out
    _, out, _ = call(path, "--steps", 16)
    assert "T = 16, shift bias" in out and "step parameters of" not in out
    _, out, _ = call(weights, "--json")
    assert json.loads(out)["nearest_steps"] is None


def make_by_hand(network, v_threshold):
    """The network with one threshold, and no tables."""
    layers = [
        dataclasses.replace(layer, v_threshold=v_threshold) if isinstance(layer, IF) else layer
        for layer in network.layers
    ]
    return network.replace(layers=layers, step_parameters={})


def test_input_files_and_limit(call, folder, weights):
    network = evsnn.load(weights)
    np.savez(folder / "some.npz", images=network.samples.images[::-1], labels=LABELS[::-1])
    np.save(folder / "one.npy", network.samples.images[4])
    everything = json.loads(call(weights, "--json")[1])
    reversed_ = json.loads(call(weights, "--json", "--input", folder / "some.npz")[1])
    assert (
        reversed_["predictions"] == everything["predictions"][::-1]
        and reversed_["accuracy"] == everything["accuracy"]
    )
    assert reversed_["input"] == str(folder / "some.npz")
    three = json.loads(call(weights, "--json", "--limit", 3)[1])
    assert three["predictions"] == everything["predictions"][:3] and three["n_samples"] == 3
    one = json.loads(call(weights, "--json", "--input", folder / "one.npy")[1])
    assert one["predictions"] == everything["predictions"][4:5] and one["accuracy"] is None


def test_a_wrong_scale_is_said(call, folder, weights):
    np.save(folder / "bytes.npy", np.full((2, 1, 8, 8), 255, np.uint8))
    status, _, err = call(weights, "--input", folder / "bytes.npy")
    assert status == 0 and "warning: inputs run from 255 to 255, the model was made for 0 to 1" in err


def test_noise(call, folder):
    status, out, err = call(folder / "bare.h5", "--json", "--seed", 5)
    report = json.loads(out)
    assert (
        status == 0
        and report["input"] == "noise"
        and report["seed"] == 5
        and report["accuracy"] is None
        and "noise of seed 5" in err
    )
    again, other = (json.loads(call(folder / "bare.h5", "--json", "--seed", seed)[1]) for seed in (5, 6))
    assert without_times(again) == without_times(report) != without_times(other) | {"seed": 5}


def test_integers_take_the_range_of_the_inputs_where_the_file_names_none(call, folder):
    status, out, err = call(folder / "rangeless.h5", "--arithmetic", "int8", "--json")
    assert (
        status == 0
        and "integers are scaled to the values found" in err
        and json.loads(out)["arithmetic"] == "int8"
    )


def test_recorded_events(call, refused, folder):
    report = json.loads(call(folder / "events.h5", "--json")[1])
    assert report["n_steps"] == 6  # the recording's, where the model's is 4
    report = json.loads(call(folder / "events.h5", "--json", "--steps", "3,5")[1])
    assert [entry["n_steps"] for entry in report["sweep"]] == [3, 5]
    assert "recordings are shorter" in refused(1, folder / "events.h5", "--steps", "7")


def test_the_packaged_model(call, refused):
    if not (ROOT / "evsnn" / "models" / "mnist.h5").is_file():
        assert "the packaged demo model is not there" in refused(1, "--json")
        return
    status, out, _ = call("--json", "--limit", 10)
    report = json.loads(out)
    assert (
        status == 0 and report["model"] == "demo" and report["n_samples"] == 10 and report["accuracy"] >= 0.9
    )


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_without_numba(arithmetic):
    """As on 32-bit ARM, for which there is no numba: NumPy does the same."""
    blocked = (
        "import runpy, sys; sys.modules['numba'] = sys.modules['llvmlite'] = None;"
        " runpy.run_module('evsnn.run', run_name='__main__', alter_sys=True)"
    )
    arguments = ["--json", "--limit", "1", "--arithmetic", arithmetic]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocked, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["backend"] == "reference" and report["threads"] == 1
    assert (
        "numba cannot be imported" in done.stderr
        and "the NumPy reference runs instead, slowly, with the same bits" in done.stderr
        and "Traceback" not in done.stderr
    )
    with_numba = json.loads(spawn(*arguments, "--threads", "1").stdout)
    assert without_times(report) | {"backend": "numba"} == without_times(with_numba)


def test_a_plot(call, folder, weights):
    pytest.importorskip("matplotlib")
    status, out, err = call(weights, "--steps", "2,4", "--plot", folder / "a.png")
    assert (
        status == 0
        and "a.png" in err
        and "a.png" not in out
        and (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    )


def test_the_console_script_is_the_modules(call, weights):
    by_module = json.loads(call(weights, "--json")[1])
    status, out, _ = call("run", weights, "--json", "--backend", "reference", main=evsnn_main)
    assert status == 0 and without_times(json.loads(out)) == without_times(by_module)
    assert (
        call("inspect", weights, "--json", main=evsnn_main)[1]
        == call(weights, "--json", main=inspect.main)[1]
    )
    assert spawn("run", weights, "--json", "--backend", "reference", module="evsnn").returncode == 0


def test_help_says_what_there_is(capsys):
    for main, words in (
        (evsnn_main, "commands:"),
        (run.main, "--arithmetic"),
        (inspect.main, "--verify"),
        (convert.main, "--calibration"),
    ):
        assert main(["--help"]) == 0 and words in capsys.readouterr().out
        assert main(["--version"]) == 0 and capsys.readouterr().out == f"evsnn {evsnn.__version__}\n"


def imported_by(code):
    """Which heavy packages a new process has imported after `code`."""
    script = (
        "import sys, io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()):\n   "
        f" {code}\nprint(*sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_help_imports_nothing_heavy():
    code = (
        "import evsnn.__main__ as m; m.main(['--help']); m.main(['run', '--help']); m.main(['inspect',"
        " '--help']); m.main(['convert', '--help']); m.main(['run', '--threads', '0'])"
    )
    assert imported_by(code) == set()


def test_inspect_imports_no_compiler(weights):
    assert not imported_by(f"import evsnn.inspect as m; m.main([{weights!r}])") & {
        "numba",
        "llvmlite",
        "scipy",
    }


# Inspect


def test_inspect(call, weights):
    status, out, err = call(weights, "--json", main=inspect.main)
    report = json.loads(out)
    assert status == 0 and err == "" and "verify" not in report
    assert report["n_parameters"] == 54 + 288 == sum(layer["n_parameters"] for layer in report["layers"])
    assert report["n_neurons"] == 384 and report["macs"] == 6 * (3 * 8 - 2) ** 2 + 288 == sum(
        layer["macs"] for layer in report["layers"]
    )
    assert report["n_samples"] == 12 and report["labelled"] and report["classes"] == ["ant", "bee", "wasp"]
    populations = report["int8"]["populations"]
    quantized = evsnn.quantize(evsnn.load(weights))
    assert [row["membrane"] for row in populations] == list(quantized.widths)
    assert [row["largest_weight"][0] for row in populations] == [
        int(largest.min()) for largest in quantized.q_max
    ]
    status, out, _ = call(weights, main=inspect.main)
    assert status == 0 and "conv2d 3x3" in out and "1x8x8" in out and "int8" in out and "total" in out


def test_inspect_tables(call, folder, weights):
    path = folder / "tables.h5"
    for arguments, used, v_threshold in (([], 2, 0.5), (["--steps", 9], 16, 2.0)):
        status, out, _ = call(path, "--json", *arguments, main=inspect.main)
        report = json.loads(out)
        assert (
            status == 0
            and report["step_parameters"] == [2, 16]
            and report["nearest_steps"] == used
            and report["n_steps"] == 4
        )
        assert [layer["v_threshold"] for layer in report["layers"] if layer["name"] == "hidden"] == [
            [v_threshold, v_threshold]
        ]
    status, out, _ = call(path, "--verify", "--threads", 1, main=inspect.main)
    assert status == 0 and "thresholds below are those of" in out and "intact" in out
    report = json.loads(call(weights, "--json", main=inspect.main)[1])
    assert report["step_parameters"] == [] and report["nearest_steps"] is None


def test_inspect_verify(call, weights):
    status, out, err = call(weights, "--verify", "--json", "--steps", 8, "--threads", 1, main=inspect.main)
    checks = json.loads(out)["verify"]
    network = evsnn.load(weights)
    results = [
        evsnn.simulate(
            network, network.samples.images, labels=LABELS, n_steps=8, arithmetic=a, backend="reference"
        )
        for a in ("float32", "int8")
    ]
    assert status == 0 and err.count("memory: ") == 2
    assert [checks[a]["accuracy"] for a in ("float32", "int8")] == [result.accuracy for result in results]
    assert (
        checks["agreement"] == (results[0].predictions == results[1].predictions).mean()
        and checks["checksums"] >= 6
    )
    status, out, _ = call(weights, "--verify", main=inspect.main)
    assert status == 0 and "no overflow" in out and "intact" in out and "of predictions agree" in out


def test_inspect_where_integers_cannot_be(call, folder):
    status, out, _ = call(folder / "rangeless.h5", main=inspect.main)
    assert status == 0 and "not possible" in out


def test_inspect_finds_damage(refused, folder, weights):
    data = bytearray(Path(weights).read_bytes())
    at = data.find(np.float32(WEIGHTS[0][0, 0, 0, :2]).tobytes())
    data[at] ^= 1
    (folder / "damaged.h5").write_bytes(data)
    assert (
        "1 of" in (line := refused(1, folder / "damaged.h5", "--verify", main=inspect.main))
        and "001_conv2d/weight" in line
    )
    assert "001_conv2d/weight" in refused(1, folder / "damaged.h5", main=inspect.main)
    assert "001_conv2d/weight" in refused(1, folder / "damaged.h5")


# Refusals


@pytest.mark.parametrize(
    "arguments",
    [
        "--steps 0",
        "--steps -1",
        "--steps 1000000000",
        "--steps abc",
        "--steps 4,4",
        "--steps 4,,8",
        "--steps 1.5",
        "--steps ''",
        "--steps ٣",
        "--steps",
        "--threads 0",
        "--threads -1",
        "--threads 1e3",
        "--threads 100000",
        "--limit 0",
        "--limit -1",
        "--limit x",
        "--seed -1",
        "--arithmetic float16",
        "--backend cuda",
        "--bogus",
        "--step 4",
        "--json=1",
        "extra words",
        "--plot a.txt",
        "--plot",
        "--input",
    ],
)
def test_bad_command_lines(refused, arguments, weights):
    words = ["" if word == "''" else word for word in arguments.split()]
    assert "--help" in refused(
        2, *words, *([weights] if words[-1] != words[0] or words[0] in ("--bogus",) else [])
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["--bogus"],
        ["inspect"],
        ["inspect", "a.h5", "--steps", "1,2"],
        ["inspect", "a.h5", "b.h5"],
        ["run", "--steps", "0"],
    ],
)
def test_bad_command_lines_of_the_script(refused, arguments):
    assert "--help" in refused(2, *arguments, main=evsnn_main)


@pytest.mark.parametrize("main", [run.main, inspect.main])
@pytest.mark.parametrize(
    "kind", ["missing", "empty", "text", "folder", "fifo", "truncated", "npz", "odd name"]
)
def test_bad_weights(refused, folder, weights, tmp_path, main, kind):
    path = tmp_path / ("w\x1b[31m\n.h5" if kind == "odd name" else "w.h5")
    whole = Path(weights).read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "npz":
        np.savez(tmp_path / "w.npz", a=np.ones(3))
        path = tmp_path / "w.npz"
    elif kind != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "text": b"hello\n" * 50,
                "truncated": whole[: len(whole) // 2],
                "odd name": b"x" * 99,
            }[kind]
        )
    assert "\x1b" not in refused(1, path, main=main)


def test_flipped_bits_end_well(call, folder, weights):
    whole = Path(weights).read_bytes()
    for at in range(0, len(whole), 211):
        flipped = bytearray(whole)
        flipped[at] ^= 0x20
        (folder / "flipped.h5").write_bytes(flipped)
        status, out, err = call(folder / "flipped.h5", "--json", "--limit", 1)
        assert status in (0, 1) and "Traceback" not in err and (status == 0) == bool(out)


@pytest.mark.parametrize("kind", ["missing", "folder", "shape", "nan", "labels", "object", "text", "huge"])
def test_bad_inputs(refused, weights, tmp_path, kind):
    path = tmp_path / "f.npz"
    images = np.zeros((2, 1, 8, 8), np.float32)
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("hello")
    elif kind == "huge":
        path = tmp_path / "f.npy"
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 34, 1, 8, 8)}
            )
    elif kind != "missing":
        arrays = {
            "shape": {"images": images[..., :7]},
            "nan": {"images": images * np.nan},
            "labels": {"images": images, "labels": [0, 3]},
            "object": {"images": np.array([{}, None])},
        }
        np.savez(path, **arrays[kind])
    assert str(path) in refused(1, weights, "--input", path)


def test_plots_that_cannot_be(refused, weights, tmp_path, monkeypatch):
    assert "cannot be written" in refused(1, weights, "--plot", tmp_path / "no" / "a.png")
    monkeypatch.setattr(console, "has_extra", lambda package: package != "matplotlib")
    assert 'pip install "evsnn[plot]"' in refused(1, weights, "--plot", tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_no_more_memory_than_there_is(refused, weights, monkeypatch):
    monkeypatch.setattr("evsnn.output.memory.free_bytes", lambda: 1000)
    assert "does not fit into memory" in refused(1, weights)


# Ends


def test_ends_that_are_not_errors_of_the_user(call, refused, weights, monkeypatch):
    def fail(error):
        def failing(*_, **__):
            raise error

        monkeypatch.setattr("evsnn.simulation.Simulator.run", failing)

    fail(MemoryError())
    assert "not enough memory" in refused(1, weights)
    fail(KeyboardInterrupt())
    status, out, err = call(weights)
    assert (status, out) == (130, "") and "error" not in err
    fail(OSError(28, "No space left on device", "/tmp/x"))
    assert "No space left on device: '/tmp/x'" in refused(1, weights)
    fail(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        call(weights)


def test_warnings_stay_inside(call, weights, monkeypatch):
    load = evsnn.load

    def loud(path):
        warnings.warn("psst", RuntimeWarning, stacklevel=1)
        return load(path)

    monkeypatch.setattr("evsnn.files.weights.load", loud)
    status, _, err = call(weights)
    assert status == 0 and "psst" not in err


def test_a_reader_that_leaves(weights):
    with subprocess.Popen(
        [sys.executable, "-m", "evsnn.run", weights, "--json", "--backend", "reference"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        process.stdout.close()
        assert process.stderr.read().count("\n") == 1 and process.wait(60) == console.UNREAD


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--json"], []])
def test_a_full_disk(weights, arguments):
    with open("/dev/full", "w") as full:
        done = spawn(weights, "--backend", "reference", *arguments, stdout=full)
    assert (
        done.returncode == 1
        and "evsnn: error: standard output" in done.stderr
        and "Traceback" not in done.stderr
    )


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("closing, status", [(">&-", 1), ("2>&-", 0), ("<&-", 0), (">&- 2>&-", 1)])
def test_closed_streams(weights, closing, status):
    command = f'"{sys.executable}" -m evsnn.run "{weights}" --json --backend reference {closing}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == status and "Traceback" not in done.stderr + done.stdout
    assert status == 1 or json.loads(done.stdout)["n_samples"] == 12


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c(weights):
    ours = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job ignores it, and so would its children
    process = subprocess.Popen(
        [sys.executable, "-m", "evsnn.run", weights, "--backend", "reference", "--steps", "60000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    signal.signal(signal.SIGINT, ours)
    with process:
        assert process.stderr.readline().startswith("memory: ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (console.INTERRUPTED, "", "")


@pytest.mark.parametrize(
    "command", ["evsnn", "evsnn.convert", "evsnn.inspect", "evsnn.profile", "evsnn.run", "firmware_export"]
)
def test_ctrl_c_while_a_command_is_imported(tmp_path, command):
    (tmp_path / "interrupted.py").write_text(
        "import runpy, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'evsnn.output':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "runpy.run_module(sys.argv[1], run_name='__main__', alter_sys=True)\n"
    )
    words = [sys.executable, str(tmp_path / "interrupted.py"), command]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (console.INTERRUPTED, "", "")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_colours_are_for_terminals(weights):
    pytest.importorskip("rich")
    import pty

    parent, child = pty.openpty()
    environment = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")
    } | {"TERM": "xterm"}
    done = spawn(weights, "--backend", "reference", stdout=child, env=environment)
    os.close(child)
    text = b""
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal
        while part := os.read(parent, 65_536):
            text += part
    os.close(parent)
    assert done.returncode == 0 and b"\x1b[1m" in text and "\x1b" not in done.stderr
    forced = spawn(weights, "--backend", "reference", env=environment | {"FORCE_COLOR": "1"})
    assert "\x1b" not in forced.stdout
