"""``python -m firmware_export``: files, names, budgets, bundles, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from firmware_networks import cnn

import evsnn
from evsnn import IF, Flatten, Input, Linear, Network, Readout, RunError
from firmware_export import Settings, export_files, export_network
from firmware_export.__main__ import main
from firmware_export.bundles import BUNDLES, bundle
from firmware_export.files import MARK, write_files
from firmware_export.memory.placement import Buffer, place
from firmware_export.text.names import check_name, name_from
from firmware_export.text.runtime import PARTS, RUNTIME, joined

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def weights(tmp_path):
    evsnn.save(tmp_path / "digits net.h5", cnn())
    return str(tmp_path / "digits net.h5")


def test_writes_two_files_and_says_what_they_need(weights, tmp_path, capsys):
    assert main([weights, "-o", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["digits_net.h", "evsnn_rt.h"]
    out = capsys.readouterr().out
    assert "bytes of arena" in out and "layer 0 pooled 2x2" in out and "digits_net.h" in out
    assert "any layer" not in out and "why no fast code" in out
    assert len((tmp_path / "out" / "evsnn_rt.h").read_text().splitlines()) == len(joined().splitlines())


def test_json_says_the_same(weights, tmp_path, capsys):
    assert (
        main(
            [
                weights,
                "-o",
                str(tmp_path / "out"),
                "--json",
                "--steps",
                "3",
                "--order",
                "step",
                "--name",
                "x1",
            ]
        )
        == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert (
        facts["name"] == "x1"
        and facts["n_steps"] == 3
        and facts["order"] == "step"
        and facts["files"] == ["evsnn_rt.h", "x1.h"]
    )
    assert facts["arena_bytes"] >= max(row["bytes"] for row in facts["memory"])


def test_a_second_run_elsewhere_writes_the_same_bytes(weights, tmp_path):
    texts = []
    for i, (seed, locale) in enumerate((("0", "C"), ("123", "C.UTF-8"))):
        folder = tmp_path / f"cwd{i}"
        folder.mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": locale, "PYTHONPATH": str(ROOT)}
        command = [
            sys.executable,
            "-m",
            "firmware_export",
            weights,
            "-o",
            "out",
            "--bundle",
            ",".join(BUNDLES),
            "--self-test",
            "2",
        ]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        texts.append(
            {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        )
    assert texts[0] == texts[1] and len(texts[0]) > 12


def test_one_file_compiles_alone(tmp_path):
    settings = Settings(name="net", single_file=True)
    files = export_files(export_network(cnn(), settings), settings)
    assert list(files) == ["net.h"]
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    (tmp_path / "net.h").write_text(files["net.h"])
    (tmp_path / "m.c").write_text(
        '#include "net.h"\nstatic net_ctx_t c;\nint main(void) { return net_init(&c); }\n'
    )
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", str(tmp_path / "m.c"), "-o", str(tmp_path / "m")], check=True
    )


def test_the_header_refuses_another_runtime(tmp_path, monkeypatch):
    """Its version follows from its text: two runtimes that differ anywhere never go together, nor does one
    that was not exported.
    """
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    raw, export = joined(), export_network(cnn(), Settings(name="net"))
    files = export_files(export)
    for part in PARTS:
        text = (RUNTIME / part).read_text()
        (tmp_path / part).write_text(text.replace("uint16_t ring;", "uint16_t other;\n    uint16_t ring;"))
    monkeypatch.setattr("firmware_export.text.runtime.RUNTIME", tmp_path)
    other = export_files(export_network(cnn(), Settings(name="net")))
    for i, (header, runtime, fits) in enumerate(
        [
            (files, files["evsnn_rt.h"], True),
            (other, other["evsnn_rt.h"], True),
            (files, other["evsnn_rt.h"], False),
            (other, files["evsnn_rt.h"], False),
            (files, raw, False),
        ]
    ):
        write_files(
            tmp_path / str(i), {"net.h": header["net.h"], "evsnn_rt.h": runtime, "m.c": '#include "net.h"\n'}
        )
        done = subprocess.run(
            ["gcc", "-fsyntax-only", str(tmp_path / str(i) / "m.c")], capture_output=True, text=True
        )
        assert (done.returncode == 0) == fits and ("take both files from one export" in done.stderr) != fits


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1x",
        "Net",
        "a b",
        "a\n",
        "net\n",
        "*/",
        '"',
        "a/b",
        "é",
        "int",
        "class",
        "setup",
        "loop",
        "word",
        "uint8_t",
        "a__b",
        "evsnn",
        "evsnn_x",
        "string",
        "stdint",
        "arduino",
        "wire",
        "a_",
        "mnist_s1",
        "a_s12",
        "x" * 300,
        "x\x00",
        None,
        3,
    ],
)
def test_names_that_are_refused(name):
    with pytest.raises(RunError, match="name") as refused:
        check_name(name)
    if suggestion := re.search(r"[Tt]ry --name (\S+)", str(refused.value)):
        assert check_name(suggestion[1])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Mnist.h5", "mnist"),
        ("/a b/My Net-2.weights.h5", "my_net_2_weights"),
        ("3d.h5", "net_3d"),
        ("int.h5", "int_net"),
        ("SPI.h5", "spi_net"),
        ("mnist_s1.h5", "mnist_s_net"),
        ("é*/x.h5", "x"),
        ("A" * 300, "a" * 32),
        ("evsnn.h5", "my_net"),
        ("evsnn_rt.h5", "rt_net"),
        ("evsnn_2.h5", "my_net"),
        ("a_t.h5", "a_t_net"),
    ],
)
def test_names_made_of_files(path, name):
    assert name_from(path) == name == check_name(name)


def test_no_name_follows_from_nothing():
    with pytest.raises(RunError, match="--name"):
        name_from("***.h5")


def test_names_in_the_model_never_reach_c(tmp_path):
    network = cnn()
    layers = [
        type(layer)(
            **{f: getattr(layer, f) for f in layer.__dataclass_fields__}
            | {"name": f"{i}*/#error", "inputs": ()}
        )
        for i, layer in enumerate(network.layers)
    ]
    hostile = network.replace(
        layers=layers,
        classes=tuple(f'"*/{i}\n#error' for i in range(10)),
        metadata={"name": "*/ int main;", "command": "\n#error"},
    )
    assert (
        export_network(hostile, Settings(name="net")).text
        == export_network(network, Settings(name="net")).text
    )


@pytest.mark.parametrize(("option", "what"), [("--ram", "layer 0 pooled 2x2 768"), ("--flash", "flash")])
def test_budgets_refuse_before_anything_is_written(weights, tmp_path, capsys, option, what):
    assert main([weights, "-o", str(tmp_path / "out"), option, "500"]) == 1
    assert what in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([weights, "-o", str(tmp_path / "out"), option, "1M"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--ram", "0"],
        ["--ram", "x"],
        ["--bundle", "arduino,nothing"],
        ["--report", "cortex-m99"],
        ["--steps", "3,4"],
        ["--order", "both"],
        ["--samples", "0"],
    ],
)
def test_command_lines_that_are_bad(weights, tmp_path, capsys, words):
    assert main([weights, "-o", str(tmp_path / "out"), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_an_export_replaces_an_export_and_nothing_else(tmp_path):
    folder = tmp_path / "out"
    write_files(folder, {"net.h": "/* evsnn (firmware_export) 1 */\n"})
    write_files(folder, {"net.h": "/* evsnn (firmware_export) 2 */\n"})
    assert "2" in (folder / "net.h").read_text()
    (folder / "mine.h").write_text("int mine;\n")
    (folder / "there").mkdir()
    (tmp_path / "elsewhere").write_text("/* evsnn (firmware_export) */")
    (folder / "link.h").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "pipe.h")
    for name in ("mine.h", "there", "link.h", "net.h/deeper.h", "pipe.h"):
        with pytest.raises(RunError):
            write_files(folder, {"first.h": "x", name: "y"})
    assert sorted(p.name for p in folder.iterdir()) == ["link.h", "mine.h", "net.h", "pipe.h", "there"]
    assert (folder / "mine.h").read_text() == "int mine;\n" and "deeper" not in (
        tmp_path / "elsewhere"
    ).read_text()


def test_what_an_earlier_export_left_is_removed_and_nothing_else(tmp_path):
    def header(version):
        return f'{mark}#include "evsnn_rt.h"\n#if EVSNN_RT_VERSION != {version}\n'

    def runtime(version):
        return f"{mark}#define EVSNN_RT_VERSION {version} /* a digest */\n"

    folder, mark = tmp_path / "out", "/* evsnn (firmware_export) */\n"
    old = {"old.h": header(1), "other.h": header(2), "alone.h": mark + runtime(1)}
    assert write_files(folder, old | {"evsnn_rt.h": runtime(1), "lib/net.h": header(1)}) == []
    (folder / "mine.h").write_text("/* mine */\n")
    (folder / "late.h").write_text("int mine;\n" * 5 + header(1))
    (folder / "notes.txt").write_text(header(1))
    (folder / "folder.h").mkdir()
    (tmp_path / "elsewhere.h").write_text(header(1))
    (folder / "link.h").symlink_to(tmp_path / "elsewhere.h")
    os.mkfifo(folder / "pipe.h")
    new = {"net.h": header(2), "evsnn_rt.h": runtime(2)}
    with pytest.raises(RunError):  # nothing is removed if nothing is written
        write_files(folder, new | {"mine.h": mark})
    assert (folder / "old.h").exists()
    assert write_files(folder, new) == ["old.h"]
    assert sorted(path.name for path in folder.iterdir()) == [
        *("alone.h", "evsnn_rt.h", "folder.h", "late.h", "lib", "link.h", "mine.h", "net.h"),
        *("notes.txt", "other.h", "pipe.h"),
    ]
    assert (folder / "lib" / "net.h").exists() and (tmp_path / "elsewhere.h").exists()
    assert write_files(folder, {"single.h": mark + runtime(3)}) == []  # others still need the runtime
    (folder / "net.h").unlink()
    (folder / "other.h").unlink()
    assert write_files(folder, {"single.h": mark + runtime(3)}) == ["evsnn_rt.h"]


def test_networks_share_a_folder_and_the_command_says_what_it_removed(weights, tmp_path, capsys):
    out, folder = ["-o", str(tmp_path / "out"), "--json"], tmp_path / "out"

    def removed(*options):
        assert main([weights, *out, *options]) == 0
        captured = capsys.readouterr()
        found = json.loads(captured.out)["removed"]
        assert not found or f"removed, of an earlier export: {', '.join(found)}" in captured.err
        return found

    assert removed() == [] and removed("--name", "second") == []
    assert removed("--name", "third", "--single-file") == []
    names = {path.name for path in folder.iterdir()}
    assert names == {"digits_net.h", "second.h", "third.h", "evsnn_rt.h"}
    for name in ("digits_net.h", "third.h"):  # as if another evsnn had written them
        text = (folder / name).read_text()
        (folder / name).write_text(re.sub(r"(EVSNN_RT_VERSION (?:!= )?)0x\w+", r"\g<1>0x1", text))
    assert removed("--name", "second") == ["digits_net.h"]
    (folder / "second.h").unlink()
    assert removed("--name", "third", "--single-file") == ["evsnn_rt.h"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError, match="nothing was changed"):
            write_files(tmp_path / "out", {"net.h": "x"})
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_export_leaves_no_folder(tmp_path, monkeypatch, error):
    (tmp_path / "there").mkdir()

    def fail(*_):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    for folder in (tmp_path / "new" / "deep", tmp_path / "there"):
        with pytest.raises((RunError, KeyboardInterrupt)):
            write_files(folder, {"net.h": "x", "zephyr/src/net.h": "x"})
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["there"]


def test_modes_of_files_that_are_replaced_stay(tmp_path):
    write_files(tmp_path, {"net.h": f"/* {MARK} */"})
    (tmp_path / "net.h").chmod(0o600)
    write_files(tmp_path, {"net.h": f"/* {MARK} */ new"})
    assert (tmp_path / "net.h").stat().st_mode & 0o777 == 0o600


def test_a_pipe_in_the_folder_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "net.h")
    with pytest.raises(RunError, match="cannot be read: got not an ordinary file"):
        write_files(tmp_path, {"net.h": "x"})
    (tmp_path / "net.h").unlink()
    os.mkfifo(tmp_path / "other.h")
    assert write_files(tmp_path, {"net.h": "x"}) == []


def test_the_command_is_ready_for_ctrl_c_before_it_imports_much():
    code = "import sys, firmware_export.__main__; print({'numpy', 'argparse'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "{'argparse'}\n", done.stderr


def test_a_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(RunError):
        write_files(tmp_path / "out", {"net.h": "x"})


def test_buffers_that_meet_do_not_overlap_and_others_share():
    buffers = [
        Buffer("a", 100, (0, 3)),
        Buffer("b", 50, (2, 5)),
        Buffer("c", 99, (4, 9)),
        Buffer("d", 7, (6, 6)),
    ]
    placed = place(buffers)
    for i, one in enumerate(buffers):
        for j in range(i):
            if one.meets(buffers[j]):
                assert (
                    placed.offsets[i] >= placed.offsets[j] + buffers[j].n_bytes
                    or placed.offsets[j] >= placed.offsets[i] + one.n_bytes
                )
    assert (
        placed.n_bytes == 152
        and placed.offsets[0] == placed.offsets[2] == 0
        and all(o % 4 == 0 for o in placed.offsets)
    )


ARDUINO = """#include <cstddef>
#include <cstdint>
#define A0 14
#define constrain(x, low, high) ((x) < (low) ? (low) : ((x) > (high) ? (high) : (x)))
inline long map(long x, long a, long b, long c, long d) { return (x - a) * (d - c) / (b - a) + c; }
static int sensor = 512;
inline int analogRead(int) { return sensor; }
inline int digitalRead(int) { return 1; }
struct Port { void begin(long) {} void println(int) {} };
static Port Serial;
"""


SKETCH_MAIN = """
int main() {
    setup();
    loop();
    if (input[0] != 127) { return 1; }
    sensor = 4095;
    loop();
    return input[0] != NET_INPUT_MAX;
}
"""


def test_a_flash_budget_takes_the_smaller_tables(tmp_path):
    network = cnn(n_steps=60)
    sizes = {
        compact: export_network(network, Settings(name="net", compact=compact)).constant_bytes
        for compact in (False, True)
    }
    assert sizes[True] < sizes[False]
    assert (
        export_network(network, Settings(name="net", flash_bytes=sizes[False])).constant_bytes == sizes[False]
    )
    assert (
        export_network(network, Settings(name="net", flash_bytes=sizes[False] - 1)).constant_bytes
        == sizes[True]
    )
    with pytest.raises(RunError, match="more flash"):
        export_network(network, Settings(name="net", flash_bytes=sizes[True] - 1))


@pytest.mark.parametrize("order", ["layer", "step"])
def test_the_arduino_sketch_compiles_with_the_exported_header_alone(tmp_path, order):
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    settings = Settings(name="net", order=order)
    write_files(tmp_path, bundle("arduino", export_network(cnn(), settings), settings))
    library = tmp_path / "arduino" / "net"
    sketch = library / "examples" / "classify_net" / "classify_net.ino"
    (tmp_path / "sketch.cpp").write_text(ARDUINO + sketch.read_text() + SKETCH_MAIN)
    subprocess.run(
        [
            "g++",
            "-std=c++11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-I",
            str(library / "src"),
            str(tmp_path / "sketch.cpp"),
            "-o",
            str(tmp_path / "sketch"),
        ],
        check=True,
    )
    assert subprocess.run([str(tmp_path / "sketch")]).returncode == 0
    properties = dict(
        line.split("=", 1) for line in (library / "library.properties").read_text().splitlines()
    )
    assert {
        "name",
        "version",
        "author",
        "maintainer",
        "sentence",
        "paragraph",
        "category",
        "url",
        "architectures",
    } <= set(properties)


def test_the_cmake_bundle_builds_a_program(tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    settings = Settings(name="net")
    write_files(tmp_path, bundle("cmake", export_network(cnn(), settings), settings))
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(app"
        " C)\nadd_subdirectory(cmake/net)\nadd_executable(app m.c)\ntarget_link_libraries(app net::net)\n"
    )
    (tmp_path / "m.c").write_text(
        "#include <net.h>\nstatic net_ctx_t c;\nint main(void) { return net_init(&c); }\n"
    )
    subprocess.run(["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "b")], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path / "b")], check=True, capture_output=True)
    assert subprocess.run([str(tmp_path / "b" / "app")]).returncode == 0


ARDUINO_CORE = Path("/usr/share/arduino/hardware")
CTAGS = (
    '"{cmd.path}" -u --language-force=c++ -f - --c++-kinds=svpf --fields=KSTtzns --line-directives'
    ' "{source_file}"'
)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("arduino-builder") is None or not ARDUINO_CORE.exists(),
    reason="Debian's arduino-builder and arduino-core-avr are not installed",
)
@pytest.mark.parametrize("order", ["layer", "step"])
def test_arduinos_own_builder_compiles_the_library_and_its_sketch(tmp_path, order):
    settings = Settings(name="net", order=order)
    write_files(tmp_path, bundle("arduino", export_network(cnn(channels=(4, 6), size=8), settings), settings))
    for folder in ("tools", "build"):
        (tmp_path / folder).mkdir()
    preferences = {  # what the IDE would say; DECIMAL_DIG is missing where this core meets Debian's compiler
        "runtime.tools.avr-gcc.path": "/usr",
        "tools.ctags.cmd.path": shutil.which("arduino-ctags"),
        "tools.ctags.pattern": CTAGS,
        "compiler.cpp.extra_flags": "-DDECIMAL_DIG=17",
    }
    command = [
        "arduino-builder",
        "-compile",
        "-warnings",
        "all",
        "-fqbn",
        "arduino:avr:mega:cpu=atmega2560",
        "-hardware",
        ARDUINO_CORE,
        "-tools",
        ARDUINO_CORE / "arduino",
    ]
    command += [
        "-tools",
        tmp_path / "tools",
        "-libraries",
        tmp_path / "arduino",
        "-build-path",
        tmp_path / "build",
        *(f"-prefs={k}={v}" for k, v in preferences.items()),
    ]
    done = subprocess.run(
        [*map(str, command), str(tmp_path / "arduino/net/examples/classify_net/classify_net.ino")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Sketch uses" in done.stdout, done.stderr[-2000:]
    assert not [line for line in done.stderr.splitlines() if "warning" in line and str(tmp_path) in line]


@pytest.mark.parametrize(
    ("kind", "command"),
    [("platformio", ["pio", "pkg", "pack"]), ("esp-idf", ["compote", "component", "pack", "--name", "net"])],
)
def test_the_tools_of_other_bundles_pack_them(tmp_path, kind, command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    settings = Settings(name="net")
    write_files(tmp_path, bundle(kind, export_network(cnn(), settings), settings))
    environment = os.environ | {
        "PLATFORMIO_CORE_DIR": str(tmp_path / "core"),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "IDF_COMPONENT_CHECK_NEW_VERSION": "0",
    }
    done = subprocess.run(
        command, cwd=tmp_path / kind / "net", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [path for path in (tmp_path / kind / "net").rglob("*gz") if "net" in path.name]


def test_an_avr_refuses_tables_that_its_pointers_do_not_reach(tmp_path):
    if shutil.which("avr-gcc") is None:
        pytest.skip("no compiler for AVR")
    rng = np.random.default_rng(0)
    large = Network(
        [
            Input((40, 10, 10)),
            Flatten(),
            Linear(rng.normal(size=(9, 4000))),
            IF(1.0),
            Linear(rng.normal(size=(2, 9))),
            Readout(),
        ],
        n_steps=4,
        input_range=(0, 1),
    )
    for network, refused in ((cnn(), False), (large, True)):
        write_files(
            tmp_path, export_files(export_network(network, Settings(name="net")), Settings(name="net"))
        )
        (tmp_path / "m.c").write_text(
            '#include "net.h"\nnet_ctx_t c;\nint main(void) { return net_init(&c); }\n'
        )
        done = subprocess.run(
            [
                "avr-gcc",
                "-mmcu=atmega2560",
                "-std=c99",
                "-c",
                str(tmp_path / "m.c"),
                "-o",
                str(tmp_path / "m.o"),
            ],
            capture_output=True,
            text=True,
        )
        assert ("an AVR reaches" in done.stderr) == refused and (done.returncode != 0) == refused


def test_bundles_hold_the_headers_and_their_manifests():
    settings = Settings(name="net")
    export = export_network(cnn(), settings)
    for kind in BUNDLES:
        files = bundle(kind, export, settings)
        assert (
            sum(path.endswith("/net.h") for path in files) == 1
            and sum(path.endswith("/evsnn_rt.h") for path in files) == 1
        )
    manifest = json.loads(bundle("platformio", export, settings)["platformio/net/library.json"])
    assert manifest["name"] == "net" and manifest["version"].count(".") == 2
    assert "idf_component_register" in bundle("esp-idf", export, settings)["esp-idf/net/CMakeLists.txt"]
    zephyr = bundle("zephyr", export, settings)
    assert (
        "name: net\n" in zephyr["zephyr/net/zephyr/module.yml"]
        and "config EVSNN_NET\n" in zephyr["zephyr/net/Kconfig"]
    )
    assert "if(CONFIG_EVSNN_NET)" in zephyr["zephyr/net/CMakeLists.txt"]


def test_check_compares_with_python(weights, tmp_path, capsys):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    assert main([weights, "-o", str(tmp_path / "out"), "--check", "--samples", "3", "--json"]) == 0
    captured = capsys.readouterr()
    assert (
        json.loads(captured.out)["check"] == {"equal": True, "input": "3 stored samples"}
        and "as in Python" in captured.err
    )


def test_the_digest_tells_networks_apart():
    def digest(network) -> str:
        return export_network(network, Settings(name="net")).text.split("NET_SHA256 ")[1].split()[0]

    def changed(i: int, **fields):
        layers = list(cnn().layers)
        layers[i] = type(layers[i])(
            **{f: getattr(layers[i], f) for f in layers[i].__dataclass_fields__} | fields
        )
        return cnn().replace(layers=layers)

    networks = [
        cnn(),
        cnn(seed=1),
        cnn(n_steps=7),
        changed(2, leak=0.5),
        changed(5, negative_threshold=0.5),
        changed(2, warm_up_steps=1),
        changed(3, kernel=(3, 3), stride=(2, 2), padding=(1, 1)),
    ]
    digests = [digest(network) for network in networks]
    assert len(set(digests)) == len(digests) and digest(cnn()) == digests[0]


def test_poisson_spikes_are_events_to_firmware():
    network = Network(
        [
            Input((1, 4, 4), "poisson"),
            Flatten(),
            Linear(np.ones((3, 16))),
            IF(2.0),
            Linear(np.ones((2, 3))),
            Readout(),
        ],
        n_steps=4,
    )
    text = export_network(network, Settings(name="net")).text
    assert "net_push_event(" in text and "net_step(" in text
    with pytest.raises(RunError, match="self-test"):
        export_network(network, Settings(name="net", n_vectors=1))


@pytest.mark.slow
def test_too_many_steps_are_refused():
    network = Network(
        [Input((2,)), Linear(np.ones((1, 2)) * 1e-3), IF(1.0), Linear(np.ones((2, 1))), Readout()],
        n_steps=65_536,
        input_range=(0, 1),
    )
    with pytest.raises(RunError, match="too many steps"):
        export_network(network, Settings(name="net"))


def test_a_core_that_cannot_be_emulated_here_is_said(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda tool, *a, **k: None)
    assert main([weights, "-o", str(tmp_path / "out"), "--report", "cortex-m4,rv32"]) == 0
    out = capsys.readouterr().out
    assert "arm-none-eabi-gcc is not installed" in out and "riscv64-unknown-elf-gcc is not installed" in out
