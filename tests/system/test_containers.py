"""What a process may use in a container: processors by a quota, memory by a limit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evsnn import limits

GB = 1 << 30


def system(root: Path, cgroup: str, **files: str) -> Path:
    """A machine with 8 GB free, and files of its control groups by their path with '__' for '/'."""
    contents = {
        "proc/self/cgroup": cgroup,
        "proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nSwapFree: 0 kB\n",
        **{f"sys/fs/cgroup/{name.replace('__', '/')}": text for name, text in files.items()},
    }
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


QUOTAS = {
    "none": ("0::/\n", {}, None),
    "version 2": ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
    "version 2, half a core more": ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
    "version 2, without": ("0::/\n", {"cpu.max": "max 100000\n"}, None),
    "version 2, of a group above": (
        "0::/a/b\n",
        {"a__cpu.max": "100000 100000", "a__b__cpu.max": "max 100000"},
        1,
    ),
    "version 2, another's path": ("0::/machine/docker-1\n", {"cpu.max": "50000 100000"}, 1),
    "version 1": (
        "3:cpu,cpuacct:/\n2:memory:/\n",
        {"cpu__cpu.cfs_quota_us": "200000\n", "cpu__cpu.cfs_period_us": "100000\n"},
        2,
    ),
    "version 1, without": (
        "3:cpu,cpuacct:/\n",
        {"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "nonsense": ("zero\n::\n0::/\n", {"cpu.max": "many of them"}, None),
    "nothing": ("", {"cpu.max": "100000 100000"}, None),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_a_quota_of_processor_time_limits_the_cores(case, tmp_path, monkeypatch):
    cgroup, files, expected = QUOTAS[case]
    monkeypatch.setattr(limits, "_ROOT", system(tmp_path, cgroup, **files))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert limits.usable_cores() == (64 if expected is None else expected)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert limits.usable_cores() == 1


MEMORY = {
    "none": ("0::/\n", {}, 8 * GB),
    "version 2": ("0::/\n", {"memory.max": str(2 * GB), "memory.current": str(GB // 2)}, 2 * GB - GB // 2),
    "version 2, files that could be dropped": (
        "0::/\n",
        {
            "memory.max": str(2 * GB),
            "memory.current": str(GB),
            "memory.stat": f"anon 5\ninactive_file {GB // 4}\n",
        },
        GB + GB // 4,
    ),
    "version 2, a wide limit": ("0::/\n", {"memory.max": str(90 * GB), "memory.current": "0"}, 8 * GB),
    "version 2, without": ("0::/\n", {"memory.max": "max\n", "memory.current": "1"}, 8 * GB),
    "version 2, of a group above": (
        "0::/a/b\n",
        {"a__memory.max": str(GB), "a__memory.current": "0", "a__b__memory.max": "max"},
        GB,
    ),
    "version 1": (
        "2:memory:/\n",
        {"memory__memory.limit_in_bytes": str(3 * GB), "memory__memory.usage_in_bytes": str(GB)},
        2 * GB,
    ),
    "more than there is": ("0::/\n", {"memory.max": str(GB), "memory.current": str(2 * GB)}, 0),
}


@pytest.mark.parametrize("case", MEMORY)
def test_a_limit_of_memory_is_what_is_free(case, tmp_path, monkeypatch):
    cgroup, files, expected = MEMORY[case]
    monkeypatch.setattr(limits, "_ROOT", system(tmp_path, cgroup, **files))
    assert limits.free_bytes() == expected


def test_a_system_that_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_ROOT", tmp_path)
    assert limits.free_bytes() is None and limits.usable_cores() >= 1


def run(folder: Path, code: str = "", **environment: str | None) -> subprocess.CompletedProcess:
    """`python -m evsnn.run --json --limit 1`, in `folder`."""
    variables = {
        k: v for k, v in os.environ.items() if k not in ("HOME", "EVSNN_CACHE_DIR", "XDG_CACHE_HOME")
    }
    variables |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for name, value in environment.items():
        variables[name] = value
    code = code + "import sys; from evsnn.run import main; sys.exit(main(['--json', '--limit', '1']))"
    words = [sys.executable, "-c", code]
    return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)


NOBODY = """
import os, pwd
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
"""


@pytest.mark.slow
def test_without_a_home_nothing_is_kept_and_one_line_says_so(tmp_path):
    found = run(tmp_path, NOBODY)
    assert found.returncode == 0 and not list(tmp_path.iterdir())
    assert found.stderr.count("there is no home folder to keep it in") == 1, found.stderr


@pytest.mark.slow
def test_the_folder_of_code_is_private_whatever_the_umask(tmp_path):
    filled = []
    for _ in range(2):
        found = run(tmp_path, "import os; os.umask(0o002)\n", HOME=str(tmp_path / "home"))
        assert found.returncode == 0 and "not used" not in found.stderr, found.stderr
        folder = tmp_path / "home/.cache/evsnn"
        assert folder.stat().st_mode & 0o777 == 0o700
        filled.append({path: path.stat().st_mtime_ns for path in folder.glob("*/*.o")})
    assert filled[0] and filled[0] == filled[1]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HOME": "/h"}, "/h/.cache/evsnn"),
        ({"HOME": "/h", "EVSNN_CACHE_DIR": ""}, "/h/.cache/evsnn"),
        ({"HOME": "/h", "EVSNN_CACHE_DIR": "~/x"}, "/h/x"),
        ({"HOME": "/h", "EVSNN_CACHE_DIR": "/y"}, "/y"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/c"}, "/c/evsnn"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "c"}, "/h/.cache/evsnn"),
        ({"HOME": "/h", "XDG_CACHE_HOME": ""}, "/h/.cache/evsnn"),
    ],
)
def test_where_code_is_kept(variables, expected, monkeypatch):
    from evsnn.engine.kernels import code

    for name in ("HOME", "EVSNN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(code._home()) == expected


@pytest.mark.slow
@pytest.mark.parametrize("package", ["llvmlite", "numba"])
@pytest.mark.parametrize("error", ["OSError", "RuntimeError", "AttributeError", "ImportError"])
def test_a_compiler_that_is_broken_leaves_the_reference(tmp_path, package, error):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(f"raise {error}('x')\n")
    found = run(tmp_path, f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n", HOME=str(tmp_path / "home"))
    assert found.returncode == 0 and '"backend": "reference"' in found.stdout, found.stderr
    assert f"numba cannot be imported ({error}: x)" in found.stderr
    assert "Traceback" not in found.stderr
