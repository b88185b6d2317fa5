"""Facts about the host, from trees of files laid out as Linux lays them, and from trees of nonsense."""

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evsnn.errors import RunError
from evsnn.profiling import host
from evsnn.profiling.host import Host, HostState, changes, pin

PI4 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd08

processor\t: 1
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

Revision\t: c03114
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""
LAPTOP = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: 11th Gen Intel(R)  Core(TM) i7
cpu MHz\t\t: 2800.500
flags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni fma

processor\t: 1
model name\t: 11th Gen Intel(R)  Core(TM) i7
cpu MHz\t\t: 3000.500
flags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni fma
"""
CPU = "sys/devices/system/cpu"
EMPTY = HostState(None, None, (), None)


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch):
    monkeypatch.setattr(host, "_affinity", lambda: (0, 1))


def lay(root, files):
    """Files by their paths below `root`; a number is its digits, as the kernel writes it."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
    return root


def tool(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return [path]


def state(root, vcgencmd=()):
    return HostState.read(root, vcgencmd)


# Facts


def test_a_raspberry_pi(tmp_path):
    files = {
        "proc/cpuinfo": PI4,
        "proc/device-tree/model": b"Raspberry Pi 4 Model B Rev 1.5\0",
        "proc/meminfo": "MemTotal:        3884264 kB\nMemFree: 1 kB",
        f"{CPU}/online": "0-3",
        "proc/sys/kernel/osrelease": "6.12.34+rpt-rpi-v8",
        f"{CPU}/cpu0/cpufreq/scaling_governor": "ondemand",
        f"{CPU}/cpu1/cpufreq/scaling_governor": "ondemand",
        "proc/1/cgroup": "0::/init.scope",
    }
    found = Host.read(lay(tmp_path, files))
    assert (found.cpu, found.features, found.n_cpus, found.cpus) == (
        "Raspberry Pi 4 Model B Rev 1.5 (Cortex-A72)",
        ("asimd",),
        4,
        (0, 1),
    )
    assert (found.governor, found.kernel, found.memory_bytes, found.in_container) == (
        "ondemand",
        "6.12.34+rpt-rpi-v8",
        3884264 * 1024,
        False,
    )


def test_a_board_without_a_device_tree_is_named_by_cpuinfo(tmp_path):
    assert (
        Host.read(lay(tmp_path, {"proc/cpuinfo": PI4})).cpu == "Raspberry Pi 4 Model B Rev 1.4 (Cortex-A72)"
    )


def test_unlike_cores_are_all_named(tmp_path):
    text = (
        "CPU implementer : 0x41\nCPU part : 0xd05\nCPU implementer : 0x41\nCPU part : 0xd0b\nCPU implementer"
        " : 0x41\nCPU part : 0xfff\nCPU implementer : 0x61\nCPU part : 0x022\n"
    )
    assert (
        Host.read(lay(tmp_path, {"proc/cpuinfo": text})).cpu
        == "Cortex-A55 + Cortex-A76 + part 0xfff + implementer 0x61, part 0x022"
    )


def test_a_laptop(tmp_path):
    files = {
        "proc/cpuinfo": LAPTOP,
        f"{CPU}/online": "0-1,4",
        f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave",
        f"{CPU}/cpu1/cpufreq/scaling_governor": "performance",
    }
    found = Host.read(lay(tmp_path, files))
    assert (found.cpu, found.n_cpus, found.governor) == (
        "11th Gen Intel(R) Core(TM) i7",
        3,
        "mixed (performance, powersave)",
    )
    assert found.features == ("avx2", "avx512_vnni", "avx512f", "fma", "sse4_2")


@pytest.mark.parametrize(
    "files",
    [
        {".dockerenv": ""},
        {"run/.containerenv": ""},
        {"proc/1/cgroup": "0::/"},
        {"proc/1/cgroup": "3:cpu:/kubepods/burstable/x"},
    ],
)
def test_containers_are_guessed(tmp_path, files):
    assert Host.read(lay(tmp_path, files)).in_container


def test_nothing_at_all(tmp_path):
    found = Host.read(tmp_path)
    assert (
        found.cpu
        and found.kernel
        and found.n_cpus
        and (found.features, found.governor, found.memory_bytes, found.in_container)
        == ((), None, None, False)
    )
    assert state(tmp_path) == EMPTY


def test_this_host():
    found, now = Host.read(), HostState.read()
    assert found == Host.read() and found.cpu.isprintable() and found.machine and found.python.count(".") == 2
    assert changes(now, now) == () or now.throttled or now.temperature_c >= host.HOT_C


def test_affinity_is_of_this_process(monkeypatch):
    monkeypatch.undo()
    assert host._affinity() == tuple(sorted(os.sched_getaffinity(0)))


# State


def test_frequency_is_the_mean_of_our_cpus(tmp_path):
    lay(
        tmp_path,
        {
            f"{CPU}/cpu{i}/cpufreq/scaling_cur_freq": khz
            for i, khz in enumerate((1_500_000, 1_800_000, 600_000))
        },
    )
    assert state(tmp_path).mhz == pytest.approx(1650)


def test_frequency_by_cpuinfo(tmp_path):
    assert state(lay(tmp_path, {"proc/cpuinfo": LAPTOP})).mhz == pytest.approx(2900.5)


def test_temperature_is_the_cpus_hottest(tmp_path):
    zones = (
        ("gpu-thermal", 99_000),
        ("cpu-thermal", 61_200),
        ("x86_pkg_temp", 63_000),
        ("cpu-thermal", 900_000),
        ("acpitz", 120_000),
    )
    for i, (kind, degrees) in enumerate(zones):
        lay(
            tmp_path,
            {
                f"sys/class/thermal/thermal_zone{i}/type": kind,
                f"sys/class/thermal/thermal_zone{i}/temp": degrees,
            },
        )
    assert state(tmp_path).temperature_c == 63.0
    lay(
        tmp_path,
        {
            "sys/class/hwmon/hwmon0/name": "k10temp",
            "sys/class/hwmon/hwmon0/temp1_input": 71_500,
            "sys/class/hwmon/hwmon0/temp1_max": 100_000,
        },
    )
    lay(tmp_path, {"sys/class/hwmon/hwmon1/name": "nvme", "sys/class/hwmon/hwmon1/temp1_input": 85_000})
    assert state(tmp_path).temperature_c == 71.5


@pytest.mark.parametrize(
    "printed, throttled",
    [
        ("throttled=0x0", ()),
        (
            "throttled=0x50005",
            ("under-voltage", "throttled", "under-voltage since boot", "throttled since boot"),
        ),
        (
            "throttled=0xA000A",
            (
                "frequency capped",
                "soft temperature limit",
                "frequency capped since boot",
                "soft temperature limit since boot",
            ),
        ),
        ("throttled=0xe0000000", ()),
        ("throttled=0x1ffffffff", ()),
        ("throttled=0x", ()),
        ("throttled=5", ()),
        ("VCHI initialization failed", ()),
        ("", ()),
        ("throttled=0x1\nthrottled=0x1", ()),
    ],
)
def test_the_firmware_is_asked(tmp_path, monkeypatch, printed, throttled):
    monkeypatch.setenv("SECRET", "ours")
    assert (
        state(
            tmp_path,
            tool(tmp_path / "vcgencmd", f'[ "$*" = get_throttled ] && [ -z "$SECRET" ] && echo "{printed}"'),
        ).throttled
        == throttled
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "exec sleep 30",
        "exec yes throttled=0x1",
        "echo throttled=0x1; exit 3",
        "sleep 3 & echo nothing",
        "cat; exit 1",
    ],
)
def test_a_tool_that_misbehaves_is_left(tmp_path, script):
    started = time.monotonic()
    assert state(tmp_path, tool(tmp_path / "vcgencmd", script)) == EMPTY
    assert time.monotonic() - started < 2.5


def test_a_tool_is_run_by_its_absolute_path_alone(tmp_path, monkeypatch):
    (found,) = tool(tmp_path / "vcgencmd", "echo throttled=0x1")
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert state(tmp_path, ["vcgencmd", "./vcgencmd", tmp_path, tmp_path / "none"]) == EMPTY
    found.chmod(0o644)
    assert state(tmp_path, [found]) == EMPTY
    found.chmod(0o755)
    found.write_bytes(b"\x7fELF nonsense")
    assert state(tmp_path, [found]) == EMPTY
    assert all(os.path.isabs(path) for path in host._VCGENCMD)


@pytest.mark.parametrize(
    "files, throttled",
    [
        (
            {"sys/devices/platform/soc/soc:firmware/get_throttled": "10001"},
            ("under-voltage", "under-voltage since boot"),
        ),
        ({"sys/devices/platform/soc/soc:firmware/get_throttled": "nonsense"}, ()),
        (
            {"sys/class/hwmon/hwmon1/name": "rpi_volt", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": 1},
            ("under-voltage",),
        ),
        ({"sys/class/hwmon/hwmon1/name": "rpi_volt", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": 0}, ()),
    ],
)
def test_drivers_are_asked_without_the_tool(tmp_path, files, throttled):
    assert state(lay(tmp_path, files)).throttled == throttled


def test_x86_counts_of_our_cpus(tmp_path):
    assert (
        state(
            lay(tmp_path, {f"{CPU}/cpu{i}/thermal_throttle/core_throttle_count": 10 + i for i in range(3)})
        ).throttle_count
        == 21
    )


# What slowed the run down


@pytest.mark.parametrize(
    "before, after, found",
    [
        (EMPTY, EMPTY, ()),
        (
            HostState(1500, 50, ("under-voltage since boot",), 4),
            HostState(1360, 79.9, ("under-voltage since boot",), 4),
            (),
        ),
        (HostState(1500, 50, (), 4), HostState(1340, 50, (), 4), ("frequency fell from 1500 to 1340 MHz",)),
        (
            HostState(600, 50, (), 4),
            HostState(1500, 85, (), 7),
            ("cores throttled by heat 3 times during the run", "CPU at 85.0 °C, 80 or more"),
        ),
        (HostState(None, 80.0, (), None), HostState(None, None, (), 7), ("CPU at 80.0 °C, 80 or more",)),
        (
            EMPTY,
            HostState(None, None, ("throttled since boot", "frequency capped"), None),
            ("frequency capped during the run", "throttled during the run"),
        ),
        (
            HostState(None, None, ("throttled", "throttled since boot"), None),
            HostState(None, None, ("throttled since boot",), None),
            ("throttled during the run",),
        ),
        (HostState(None, None, (), 9), HostState(None, None, (), 2), ()),
    ],
)
def test_changes(before, after, found):
    assert changes(before, after) == found


# Nonsense

FILES = [
    "proc/cpuinfo",
    "proc/meminfo",
    "proc/device-tree/model",
    "proc/sys/kernel/osrelease",
    "proc/1/cgroup",
    f"{CPU}/online",
    f"{CPU}/cpu0/cpufreq/scaling_governor",
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq",
    f"{CPU}/cpu1/thermal_throttle/core_throttle_count",
    "sys/class/thermal/thermal_zone0/type",
    "sys/class/thermal/thermal_zone0/temp",
    "sys/class/hwmon/hwmon0/name",
    "sys/class/hwmon/hwmon0/temp1_input",
    "sys/class/hwmon/hwmon0/in0_lcrit_alarm",
    "sys/devices/platform/soc/a/get_throttled",
]
LIKELY = st.sampled_from(
    [
        b"",
        b"\0",
        b"-1\n",
        b"9" * 30,
        b"0-99999999999",
        b"3-1",
        b"cpu\n",
        b"rpi_volt",
        b"k10temp\n",
        b"nan",
        b"flags : avx2 \x1b[2J\nmodel name : \x1b[31mx\n",
        PI4.encode(),
        LAPTOP.encode(),
        "٣".encode(),
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.dictionaries(st.sampled_from(FILES), st.one_of(LIKELY, st.binary(max_size=60))))
def test_nonsense_is_none_and_never_an_error(tmp_path_factory, contents):
    root = lay(tmp_path_factory.mktemp("root"), contents)
    found, now = Host.read(root), state(root)
    assert (
        found.cpu.isprintable()
        and found.kernel.isprintable()
        and found.n_cpus > 0
        and (found.governor is None or found.governor.isprintable())
    )
    assert now.mhz is None or 1 <= now.mhz <= 20_000
    assert now.temperature_c is None or -50 <= now.temperature_c <= 150
    assert isinstance(changes(now, now), tuple)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: os.mkfifo(p),
        lambda p: p.mkdir(),
        lambda p: p.symlink_to("/dev/zero"),
        lambda p: p.symlink_to(p),
        lambda p: p.write_bytes(b"1" * (1 << 20)),
        lambda p: p.touch(0),
    ],
)
def test_files_that_are_no_files(tmp_path, make):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        make(tmp_path / name)
    assert state(tmp_path) == EMPTY
    assert Host.read(tmp_path).memory_bytes is None


def test_a_long_cpuinfo_is_read_in_part(tmp_path):
    lay(
        tmp_path,
        {"proc/cpuinfo": LAPTOP + "\n".join(f"processor : {i}\nflags : {'x ' * 700}" for i in range(2, 300))},
    )
    assert Host.read(tmp_path).features and state(tmp_path).mhz == pytest.approx(2900.5)
    assert len(host._text(tmp_path / "proc/cpuinfo")) <= 1 << 16


# Pinning


@pytest.fixture
def affinity(monkeypatch):
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    yield before
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # a thread that has ended
            os.sched_setaffinity(int(thread), before)


def test_pin_holds_all_threads(affinity):
    seen, go, done = [], threading.Event(), threading.Event()

    def work():
        seen.append(os.sched_getaffinity(0))
        done.set()
        go.wait(10)
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=work)
    thread.start()
    done.wait(10)
    pin(max(affinity))
    go.set()
    thread.join()
    assert os.sched_getaffinity(0) == seen[1] == {max(affinity)} and seen[0] == affinity


@pytest.mark.parametrize("cpu", [-1, 4095, 1 << 20, 1 << 70])
def test_pin_refuses(affinity, cpu):
    with pytest.raises(RunError, match=rf"CPU {cpu}: .* got .*, expected one of .* --cpu") as caught:
        pin(cpu)
    assert "\n" not in str(caught.value) and os.sched_getaffinity(0) == affinity


def test_pin_where_there_is_no_such_thing(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(RunError, match="cannot be pinned on this system"):
        pin(0)


def test_what_is_read_is_read_only():
    """No file is opened to be written to, and no other program is named than the firmware's tool."""
    text = Path(host.__file__).read_text()
    assert "O_WRONLY" not in text and "O_RDWR" not in text and ".write" not in text and "shell" not in text
