"""Machine code that is kept on disk: the same bits as numba's own, no numba where it is there, and what is
not trusted is not run.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from networks import IMAGES, small_network
from running import DISABLE_JIT

import evsnn
from evsnn.engine.kernels import code
from evsnn.engine.kernels.code import Kernel, Store
from evsnn.engine.workspace import needed
from evsnn.simulation import Simulator

pytestmark = pytest.mark.skipif(DISABLE_JIT, reason="nothing is compiled")

SCRIPT = """
import sys, evsnn
from evsnn.files.demo import demo
net = demo()
r = evsnn.simulate(net, net.samples.images[:2], threads=1)
print(r.outputs.tobytes().hex(), r.backend, "numba" in sys.modules, "scipy" in sys.modules)
"""
KERNEL = Kernel("queue.count_spikes", (), 2, counts=True)


def run(folder: Path, **more: str) -> subprocess.CompletedProcess:
    environment = (
        os.environ | {"EVSNN_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)} | more
    )
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300
    )


def answer(done: subprocess.CompletedProcess) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with all kernels of the demo model, and what the first run said."""
    folder = tmp_path_factory.mktemp("code")
    return folder, answer(run(folder))


@pytest.fixture
def copy(filled, tmp_path):
    """The same folder, to be damaged."""
    import shutil

    shutil.copytree(filled[0], tmp_path / "code")
    (tmp_path / "code").chmod(0o700)
    return tmp_path / "code"


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.o"))


@pytest.mark.slow
def test_a_second_process_needs_no_numba_and_gives_the_same_bits(filled):
    folder, first = filled
    again = answer(run(folder))
    assert first[1:3] == ["numba", "True"] and again == [first[0], "numba", "False", "False"]
    assert len(files(folder)) >= 5 and not list(folder.rglob("*.part"))


def test_kept_code_is_numbas(tmp_path):
    """Code from an object file, and the same function called where numba has put it."""
    import ctypes

    from evsnn.engine.kernels import queue
    from evsnn.engine.kernels.jit import compiled

    object_file, symbol, alone = compiled(KERNEL.name, KERNEL.selectors, KERNEL.n_arguments)
    assert alone
    (made,) = queue.count_spikes.overloads.values()
    direct = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)(
        made.library.get_pointer_to_function(symbol)
    )
    kept = code.native(object_file, symbol, KERNEL)
    rng = np.random.default_rng(0)
    for n in (0, 1, 7, 1000):
        words = rng.integers(0, 2**63, n, np.uint64)
        value = ctypes.c_int64()
        assert direct(ctypes.byref(value), None, words.ctypes.data, n) == 0
        assert kept(words.ctypes.data, n) == value.value == sum(int(w).bit_count() for w in words)


@pytest.mark.slow
def test_damaged_files_are_said_and_made_anew(filled, copy):
    """A folder after a power cut, each file damaged in its own way."""
    damages = [
        lambda b: b"",
        lambda b: b"\x00" * 64,
        lambda b: b[:-1],
        lambda b: b[:-1] + bytes([b[-1] ^ 1]),
        lambda b: b"{}\n" + b.partition(b"\n")[2],
        lambda b: b"[1]\n",
        lambda b: b"\xff" * 99,
    ]
    for path, damage in zip(files(copy), itertools.cycle(damages)):
        path.write_bytes(damage(path.read_bytes()))
    again = run(copy)
    assert answer(again)[:3] == [filled[1][0], "numba", "True"]
    assert again.stderr.count("is damaged") == len(files(copy))
    once_more = run(copy)
    assert answer(once_more)[2] == "False" and once_more.stderr == ""


@pytest.mark.slow
def test_code_of_another_kernel_or_environment_is_not_run(copy):
    first, second, *_ = files(copy)
    content = first.read_bytes()
    second.write_bytes(content)
    header, _, rest = content.partition(b"\n")
    first.write_bytes(json.dumps(json.loads(header) | {"environment": "another CPU"}).encode() + b"\n" + rest)
    assert run(copy).stderr.count("is damaged") == 2


@pytest.mark.slow
@pytest.mark.parametrize("what", ["home", "folder", "file"])
def test_what_others_can_write_to_is_not_run(filled, copy, what):
    path = {"home": copy, "folder": files(copy)[0].parent, "file": files(copy)[0]}[what]
    path.chmod(0o777)
    done = run(copy)
    assert answer(done)[0] == filled[1][0] and answer(done)[2] == "True"
    assert "can be written to by others" in done.stderr and str(path) in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_somebody_else_is_not_run(filled, copy):
    os.chown(files(copy)[0], 12345, 12345)
    done = run(copy)
    assert answer(done)[0] == filled[1][0] and "belongs to another user" in done.stderr


def test_links_are_not_followed(filled, copy, tmp_path):
    path = files(copy)[0]
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    done = run(copy)
    assert answer(done)[0] == filled[1][0] and "cannot be read" in done.stderr


def test_folders_that_others_could_exchange_are_not_trusted(tmp_path):
    """Links, and folders above that anybody may rename things in; /tmp keeps its own by the sticky bit."""
    real = tmp_path / "real"
    assert Store(real, "e").trouble is None
    (tmp_path / "link").symlink_to(real)
    assert "link is a link" in Store(tmp_path / "link", "e").trouble
    folder = Store(real, "e").folder
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert f"{folder} is a link" in Store(real, "e").trouble
    above = tmp_path / "above"
    for mode, trusted in ((0o777, False), (0o1777, True), (0o775, True), (0o755, True)):
        above.mkdir(exist_ok=True)
        above.chmod(mode)
        trouble = Store(above / "below" / "home", "e").trouble
        assert (trouble is None) == trusted and (trusted or "can be written to by others" in trouble)
    above.chmod(0o777)
    (tmp_path / "way").symlink_to(above / "below")
    assert "above can be written to by others" in Store(tmp_path / "way" / "home", "e").trouble


@pytest.mark.parametrize("content", [b"[" * 10**6, b'{"a": ' * 10**6, b'{"a": 1' + b"0" * 400 + b"}", b"[1]"])
def test_kept_text_that_is_no_header_or_numbers_is_damaged(tmp_path, content):
    stored = Store(tmp_path / "code", "e")
    stored.save(KERNEL, b"code", "symbol")
    stored.path(KERNEL).write_bytes(content + b"\ncode")
    (stored.folder / "ceilings.json").write_bytes(content)
    (stored.folder / "ceilings.json").chmod(0o600)
    again = Store(tmp_path / "code", "e")
    assert again.load(KERNEL) is None and again.notes("ceilings") == {}


@pytest.mark.slow
def test_other_settings_and_sources_find_nothing(filled):
    folder = filled[0]
    assert answer(run(folder, NUMBA_OPT="1"))[2] == "True"
    assert code.environment() != code.environment().replace(code.source_digest(), "0")
    assert Store(folder, "a").folder != Store(folder, "b").folder


def test_a_folder_that_cannot_be_made_or_written_to(tmp_path, caplog, monkeypatch):
    (tmp_path / "file").write_text("")
    stored = Store(tmp_path / "file" / "below", "e")
    with caplog.at_level(logging.WARNING, "evsnn"):
        stored.save(KERNEL, b"code", "symbol")
        stored.save(KERNEL, b"code", "symbol")
    assert (
        len(caplog.records) == 1
        and "EVSNN_CACHE_DIR" in caplog.text
        and stored.load(KERNEL) == (b"code", "symbol")
    )
    caplog.clear()

    def full(*_):
        raise OSError(28, "No space left on device")

    stored = Store(tmp_path / "full", "e")
    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING, "evsnn"):
        stored.save(KERNEL, b"code", "symbol")
    assert "No space left" in caplog.text and not list(stored.folder.iterdir())


def test_what_is_kept_is_private_and_found_by_a_new_store(tmp_path):
    Store(tmp_path / "code", "e").save(KERNEL, b"\x7fELF", "symbol")
    stored = Store(tmp_path / "code", "e")
    assert stored.load(KERNEL) == (b"\x7fELF", "symbol") and stored.path(KERNEL).stat().st_mode & 0o077 == 0
    assert Store(tmp_path / "code", "f").load(KERNEL) is None


@pytest.mark.slow
def test_processes_may_fill_a_folder_at_once(tmp_path):
    environment = os.environ | {
        "EVSNN_CACHE_DIR": str(tmp_path / "code"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "evsnn.run", "--json", "--limit", "2", "--threads", "1"]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    done = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], done
    assert len({tuple(json.loads(out)["predictions"]) for out, _ in done}) == 1
    assert not list((tmp_path / "code").rglob("*.part"))


@pytest.mark.slow
def test_warm_fills_a_folder_that_is_then_read_only(tmp_path):
    environment = os.environ | {
        "EVSNN_CACHE_DIR": str(tmp_path / "code"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    def command(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "evsnn.run", *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    warmed = command("warm", "--steps", "4")
    assert warmed.returncode == 0 and "kernels in" in warmed.stdout, warmed.stderr
    for path in (tmp_path / "code").rglob("*"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    for arithmetic in ("float32", "int8"):
        done = command("--limit", "1", "--arithmetic", arithmetic)
        assert done.returncode == 0 and "| numba\n" not in done.stderr and "not used" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "environment", "status", "what"),
    [
        (["warm", "nothing.h5"], {}, 1, "cannot be opened"),
        (["warm", "--steps", "0"], {}, 2, "--steps"),
        (["warm"], {"NUMBA_DISABLE_JIT": "1"}, 1, "switched off"),
        (["warm"], {"EVSNN_CACHE_DIR": "/dev/null/x"}, 1, "cannot be kept"),
    ],
)
def test_warm_says_what_is_wrong(tmp_path, words, environment, status, what):
    environment = (
        os.environ | {"EVSNN_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)} | environment
    )
    done = subprocess.run(
        [sys.executable, "-m", "evsnn.run", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status and what in done.stderr and "Traceback" not in done.stderr


def test_a_plan_names_all_the_kernels_that_it_runs():
    simulator = Simulator(small_network(5), threads=1)
    simulator.run(IMAGES[:1])
    kernels = needed(simulator.plan)
    assert len(set(kernels)) == len(kernels) and all(
        code.store().load(kernel) is not None for kernel in kernels
    )
    assert not code.missing(kernels) and code.missing([Kernel("queue.none", (), 1)])


def test_threads_share_kernels():
    """A value comes back through memory that is the call's own."""
    from concurrent.futures import ThreadPoolExecutor

    count = code.specialise(KERNEL)
    words = [np.full(5000, (1 << i) - 1, np.uint64) for i in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: count(words[i % 8].ctypes.data, 5000), range(400)))
    assert got == [5000 * (i % 8 + 1) for i in range(400)]
    assert evsnn.simulate(small_network(5), IMAGES, threads=1).n_samples == len(IMAGES)


def aged(folder: Path, days: float, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"x")
    then = time.time() - days * 86_400
    os.utime(folder, (then, then))
    return folder


def test_code_that_no_version_has_used_for_long_is_removed(tmp_path):
    old = aged(tmp_path / ("0" * 16), 31, "queue.build-0123.o", "ceilings.json", ".evsnn-0.part")
    used = aged(tmp_path / ("1" * 16), 29, "queue.build-0123.o")
    foreign = aged(tmp_path / ("2" * 16), 400, "queue.build-0123.o", "thesis.tex")
    other = aged(tmp_path / "somebody", 400, "queue.build-0123.o")
    elsewhere = aged(tmp_path / "elsewhere", 400, "queue.build-0123.o")
    (tmp_path / ("3" * 16)).symlink_to(elsewhere)
    (tmp_path / ("4" * 16)).write_bytes(b"a file")
    stored = Store(tmp_path, "an environment")
    stored.save(KERNEL, b"code", "symbol")
    assert not old.exists() and used.exists()
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]
    assert list(other.iterdir()) and list(elsewhere.iterdir()) and (tmp_path / ("4" * 16)).exists()
    assert Store(tmp_path, "an environment").load(KERNEL) == (b"code", "symbol")


def test_code_that_is_used_stays(tmp_path):
    stored = Store(tmp_path, "an environment")
    stored.save(KERNEL, b"code", "symbol")
    then = time.time() - 100 * 86_400
    os.utime(stored.folder, (then, then))
    assert Store(tmp_path, "an environment").load(KERNEL)  # a start that compiles nothing
    Store(tmp_path, "another environment").save(KERNEL, b"code", "symbol")
    assert stored.folder.exists()
