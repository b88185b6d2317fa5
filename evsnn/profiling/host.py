"""The host of a run: its CPU, its settings, and whether it slowed down.

The facts come from ``/proc`` and ``/sys``, and on a Raspberry Pi from its firmware. Each of these may be
missing, unreadable, empty or invalid, above all in containers: what cannot be read is None or empty, never an
error. Only `pin` changes anything: the CPUs of this process.

References
----------
.. [1] Linux, Documentation/ABI/testing/sysfs-devices-system-cpu, sysfs-class-thermal and
hwmon/sysfs-interface.rst.
.. [2] Raspberry Pi, "OS: vcgencmd", the bits of get_throttled,
   https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunError
from ..files.regular import open_regular

__all__ = ["HOT_C", "Host", "HostState", "changes", "pin"]

HOT_C = 80.0  # a Raspberry Pi lowers its clock from here on, at 85 at the latest
_SLOWER = 0.9  # of the frequency before
_LONGEST = 1 << 16  # bytes of a file that are read
_MOST = 256  # files of a folder that are looked at
_VCGENCMD = ("/usr/bin/vcgencmd", "/opt/vc/bin/vcgencmd")
_FLAGS = (
    "under-voltage",
    "frequency capped",
    "throttled",
    "soft temperature limit",
)  # bits 0 to 3; bits 16 to 19: since boot
_SINCE_BOOT = " since boot"
_FEATURES = {
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "bmi2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",  # x86
    "neon",
    "vfpv4",
    "asimd",
    "asimdhp",
    "asimddp",
    "asimdfhm",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",  # ARM
}
_ARM_CORES = {
    "0xb76": "ARM1176",
    "0xc07": "Cortex-A7",
    "0xc08": "Cortex-A8",
    "0xc09": "Cortex-A9",
    "0xc0f": "Cortex-A15",
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd49": "Neoverse-N2",
    "0xd4d": "Cortex-A715",
    "0xd4f": "Neoverse-V2",
    "0xd80": "Cortex-A520",
    "0xd81": "Cortex-A720",
}
_CPU_ZONE = re.compile(r"cpu|pkg|package|core|soc|cluster", re.IGNORECASE)
_CPU_SENSORS = {"coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal"}
_CONTAINERS = re.compile(r"docker|kubepods|containerd|libpod|podman|lxc|garden")


@dataclass(frozen=True)
class Host:
    """What does not change while a run lasts.

    Parameters
    ----------
    cpu : str
        The model as people know it: "AMD Ryzen 7 7840U", "Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76)".
    machine : str
        "x86_64", "aarch64".
    features : tuple of str
        Those of the instruction set that matter to kernels, sorted.
    n_cpus : int
        CPUs that the system has switched on.
    cpus : tuple of int
        Those of them that this process may run on.
    governor : str, optional
        What sets their frequency: "performance"; "mixed (ondemand, performance)" if they differ.
    kernel, python : str
        Versions.
    in_container : bool
        A guess from typical traces of containers.
    memory_bytes : int, optional
        The memory of the machine.
    """

    cpu: str
    machine: str
    features: tuple[str, ...]
    n_cpus: int
    cpus: tuple[int, ...]
    governor: str | None
    kernel: str
    python: str
    in_container: bool
    memory_bytes: int | None

    @classmethod
    def read(cls, root: Path = Path("/")) -> Host:
        """This host; `root` is the folder that holds ``proc`` and ``sys``."""
        facts, cpus = _cpuinfo(root), _affinity()
        flags = f"{facts.get('flags', [''])[0]} {facts.get('Features', [''])[0]}".split()
        return cls(
            _cpu_name(root, facts),
            platform.machine(),
            tuple(sorted(_FEATURES.intersection(flags))),
            _n_online(root) or os.cpu_count() or len(cpus),
            cpus,
            _governor(root, cpus),
            _line(root / "proc/sys/kernel/osrelease") or platform.release(),
            platform.python_version(),
            _in_container(root),
            _memory_bytes(root),
        )


@dataclass(frozen=True)
class HostState:
    """What changes while a run lasts. It is read before a run and right after it.

    Parameters
    ----------
    mhz : float, optional
        Mean current frequency of the CPUs that this process may run on.
    temperature_c : float, optional
        The temperature at the CPU's hottest sensor, in degrees Celsius.
    throttled : tuple of str
        "under-voltage", "frequency capped", "throttled", "soft temperature limit"; followed by " since boot"
        if it has happened since boot and may be over.
    throttle_count : int, optional
        How often x86 cores of this process were throttled by heat since boot, summed.
    """

    mhz: float | None
    temperature_c: float | None
    throttled: tuple[str, ...]
    throttle_count: int | None

    @classmethod
    def read(cls, root: Path = Path("/"), vcgencmd: Sequence[str | os.PathLike] = _VCGENCMD) -> HostState:
        """The state now.

        Parameters
        ----------
        root : Path
            The folder that holds ``proc`` and ``sys``.
        vcgencmd : sequence of path
            Absolute paths of the Raspberry Pi's tool; the first that exists is run, for at most a second.
        """
        cpus = _affinity()
        return cls(
            _mhz(root, cpus), _temperature_c(root), _throttled(root, vcgencmd), _throttle_count(root, cpus)
        )


def changes(before: HostState, after: HostState) -> tuple[str, ...]:
    """The signs that the host was slowed down between two states, one phrase per cause.

    A flag that was set since boot already says nothing about the run: only a flag that is set now, or is new,
    counts.
    """
    found = []
    for flag in _FLAGS:
        new = flag + _SINCE_BOOT in after.throttled and flag + _SINCE_BOOT not in before.throttled
        if new or flag in before.throttled or flag in after.throttled:
            found.append(f"{flag} during the run")
    if (
        before.throttle_count is not None
        and after.throttle_count is not None
        and after.throttle_count > before.throttle_count
    ):
        found.append(
            f"cores throttled by heat {after.throttle_count - before.throttle_count} times during the run"
        )
    if before.mhz is not None and after.mhz is not None and after.mhz < _SLOWER * before.mhz:
        found.append(f"frequency fell from {before.mhz:.0f} to {after.mhz:.0f} MHz")
    hottest = max(
        (state.temperature_c for state in (before, after) if state.temperature_c is not None), default=0.0
    )
    if hottest >= HOT_C:
        found.append(f"CPU at {hottest:.1f} °C, {HOT_C:.0f} or more")
    return tuple(found)


def pin(cpu: int) -> None:
    """Keep this process, and the threads it has and will have, on one CPU.

    Raises
    ------
    RunError
        If the system cannot, or does not let the process run there.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise RunError(
            "a process cannot be pinned on this system",
            where=f"CPU {cpu}",
            got=sys.platform,
            expected="Linux",
            hint="leave --cpu out",
        )
    try:
        os.sched_setaffinity(0, {cpu})
    except (OSError, ValueError, OverflowError) as error:
        got, expected = (
            getattr(error, "strerror", None) or error,
            "one of " + ", ".join(map(str, _affinity()))[:80],
        )
        raise RunError(
            "the process cannot be pinned to this CPU",
            where=f"CPU {cpu}",
            got=got,
            expected=expected,
            hint="name another with --cpu",
        ) from error
    for thread in _names(Path("/proc/self/task")):
        with contextlib.suppress(OSError, ValueError):  # a thread that has ended
            os.sched_setaffinity(int(thread), {cpu})


# Files


def _text(path: Path) -> str | None:
    """The first 64 kB of a file, without white space around them; None if nothing can be read."""
    try:
        descriptor = open_regular(path)
    except OSError:
        return None
    try:
        return os.read(descriptor, _LONGEST).decode("utf-8", "replace").strip("\0 \t\r\n") or None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _line(path: Path) -> str | None:
    """The text of a file of one short line, as most files in ``/sys`` are."""
    text = _text(path)
    return text if text is not None and len(text) <= 200 and text.isprintable() else None


def _number(path: Path) -> int | None:
    """The number in a file that holds one integer."""
    text = _line(path)
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) else None


def _names(folder: Path) -> list[str]:
    """The names in a folder, sorted; none if it cannot be read."""
    try:
        return sorted(os.listdir(folder))[:_MOST]
    except OSError:
        return []


def _folders(folder: Path, prefix: str) -> Iterator[Path]:
    """The entries of a folder whose names begin with `prefix`."""
    return (folder / name for name in _names(folder) if name.startswith(prefix))


# Facts


def _affinity() -> tuple[int, ...]:
    """The CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _cpuinfo(root: Path) -> dict[str, list[str]]:
    """The values of each key in ``/proc/cpuinfo``, as far as it is read."""
    facts: dict[str, list[str]] = {}
    for line in (_text(root / "proc/cpuinfo") or "").split("\n"):
        key, colon, value = line.partition(":")
        if colon and len(line) <= 4096 and value.strip():
            facts.setdefault(key.strip(), []).append(value.strip())
    return facts


def _cpu_name(root: Path, facts: dict[str, list[str]]) -> str:
    cores = [
        (
            _ARM_CORES.get(part.lower(), f"part {part}")
            if implementer.lower() == "0x41"
            else f"implementer {implementer}, part {part}"
        )
        for implementer, part in zip(facts.get("CPU implementer", []), facts.get("CPU part", []))
    ]
    names = []
    if cores:
        board = (
            _line(root / "proc/device-tree/model")
            or _line(root / "sys/firmware/devicetree/base/model")
            or facts.get("Model", [""])[0]
        )
        kinds = " + ".join(dict.fromkeys(cores))
        names.append(f"{board} ({kinds})" if board else kinds)
    names += facts.get("model name", [])[:1]
    if not sys.platform.startswith("linux"):  # there it would start a process
        names.append(platform.processor())
    for name in names:
        name = " ".join("".join(c if c.isprintable() else " " for c in name).split())[:200]
        if name:
            return name
    return platform.machine() or "unknown"


def _n_online(root: Path) -> int | None:
    """CPUs in a list of ranges: ``0-3,8``."""
    text = _line(root / "sys/devices/system/cpu/online")
    if text is None or not re.fullmatch(
        r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*", text, re.ASCII
    ):
        return None
    ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    return sum(max(end[-1] - end[0] + 1, 0) for end in ends) or None


def _governor(root: Path, cpus: Sequence[int]) -> str | None:
    found = {
        _line(root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor") for cpu in cpus[:_MOST]
    }
    names = sorted(name for name in found if name is not None and re.fullmatch(r"\w{1,32}", name, re.ASCII))
    return f"mixed ({', '.join(names)})" if len(names) > 1 else names[0] if names else None


def _in_container(root: Path) -> bool:
    if any((root / name).exists() for name in (".dockerenv", "run/.containerenv", "run/systemd/container")):
        return True
    if root == Path("/") and ("container" in os.environ or "KUBERNETES_SERVICE_HOST" in os.environ):
        return True
    groups = _text(root / "proc/1/cgroup") or ""
    return (
        groups == "0::/" or _CONTAINERS.search(groups) is not None
    )  # the first process of a system is in a group of its own


def _memory_bytes(root: Path) -> int | None:
    found = re.search(
        r"^MemTotal:\s*([0-9]{1,15}) kB$", _text(root / "proc/meminfo") or "", re.MULTILINE | re.ASCII
    )
    return 1024 * int(found[1]) if found else None


# State


def _mhz(root: Path, cpus: Sequence[int]) -> float | None:
    found = [
        _number(root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in cpus[:_MOST]
    ]
    frequencies = [kilohertz / 1e3 for kilohertz in found if kilohertz is not None]
    if not frequencies:
        facts = _cpuinfo(root)
        by_cpu = dict(zip(facts.get("processor", []), facts.get("cpu MHz", [])))
        texts = [by_cpu.get(str(cpu), "") for cpu in cpus]
        frequencies = [
            float(text) for text in texts if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text, re.ASCII)
        ]
    frequencies = [mhz for mhz in frequencies if 1 <= mhz <= 20_000]
    return sum(frequencies) / len(frequencies) if frequencies else None


def _temperature_c(root: Path) -> float | None:
    paths = [
        zone / "temp"
        for zone in _folders(root / "sys/class/thermal", "thermal_zone")
        if _CPU_ZONE.search(_line(zone / "type") or "")
    ]
    for sensor in _folders(root / "sys/class/hwmon", "hwmon"):
        if _line(sensor / "name") in _CPU_SENSORS:
            paths += [
                sensor / name
                for name in _names(sensor)
                if re.fullmatch(r"temp[0-9]{1,3}_input", name, re.ASCII)
            ]
    found = [thousandths / 1e3 for thousandths in map(_number, paths) if thousandths is not None]
    return max((degrees for degrees in found if -50 <= degrees <= 150), default=None)


def _throttled(root: Path, vcgencmd: Sequence[str | os.PathLike]) -> tuple[str, ...]:
    bits = _ask_firmware(vcgencmd)
    if bits is None:
        bits = _bits_from_files(root)
    now = [flag for i, flag in enumerate(_FLAGS) if bits >> i & 1]
    return (*now, *(flag + _SINCE_BOOT for i, flag in enumerate(_FLAGS) if bits >> (16 + i) & 1))


def _ask_firmware(paths: Sequence[str | os.PathLike]) -> int | None:
    """The bits that the Raspberry Pi's own tool prints."""
    path = next(
        (path for path in paths if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK)),
        None,
    )
    if path is None:
        return None
    try:
        process = subprocess.Popen(
            [path, "get_throttled"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"LC_ALL": "C"},
        )
    except (OSError, ValueError):
        return None
    if process.stdout is None:
        return None
    with process.stdout as pipe:
        try:
            if process.wait(timeout=1) != 0:
                return None
            os.set_blocking(pipe.fileno(), False)  # a child that the tool has left behind must not block us
            found = re.fullmatch(rb"throttled=0x([0-9a-fA-F]{1,8})\s*", os.read(pipe.fileno(), 64))
        except subprocess.TimeoutExpired:  # also of a tool that prints more than the pipe takes
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            return None
        except OSError:
            return None
    return int(found[1], 16) if found else None


def _bits_from_files(root: Path) -> int:
    """The same bits, or as many of them as drivers report."""
    soc = root / "sys/devices/platform/soc"
    for name in _names(soc):
        text = _line(soc / name / "get_throttled")
        if text is not None and re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", text, re.ASCII):
            return int(text, 16)
    supplies = (
        sensor
        for sensor in _folders(root / "sys/class/hwmon", "hwmon")
        if _line(sensor / "name") == "rpi_volt"
    )
    return int(any(_number(supply / "in0_lcrit_alarm") == 1 for supply in supplies))


def _throttle_count(root: Path, cpus: Sequence[int]) -> int | None:
    found = [
        _number(root / f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/core_throttle_count")
        for cpu in cpus[:_MOST]
    ]
    counts = [count for count in found if count is not None and count >= 0]
    return sum(counts) if counts else None
