"""What this process may use: processors and memory, as the machine, its affinity and its control groups say.

A container has the machine's processors and memory before it, and a share of them in its control groups
(cgroups, version 1 or 2). A group's limits hold for all groups below it.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_bytes", "usable_cores"]

_ROOT = Path("/")


def usable_cores() -> int:
    """The number of processors that this process may use, at least 1.

    It is that of its affinity, or a control group's quota of processor time if that is less.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(_ROOT)
    return own if quota is None else max(1, min(own, math.ceil(quota)))


def free_bytes() -> int | None:
    """The memory that is still free, swap included; None if the system does not say it.

    It is that of the machine, or what a control group leaves if that is less.
    """
    machine, group = _machine_free_bytes(_ROOT), _group_free_bytes(_ROOT)
    return min((size for size in (machine, group) if size is not None), default=None)


def _machine_free_bytes(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        sizes = {name: int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
        return 1024 * (sizes["MemAvailable"] + sizes["SwapFree"])
    except (OSError, ValueError, IndexError, KeyError):
        return None


@functools.cache
def _quota(root: Path) -> float | None:
    """The least quota of processor time, in processors; None if there is none."""
    quotas = []
    for group in _groups(root, "cpu"):
        allowed, period = (
            _words(group / "cpu.max")
            or (
                *_words(group / "cpu.cfs_quota_us"),
                *_words(group / "cpu.cfs_period_us"),
            )
            or ("max", "1")
        )
        if allowed.isdigit() and period.isdigit() and int(allowed) and int(period):
            quotas.append(int(allowed) / int(period))
    return min(quotas, default=None)


def _group_free_bytes(root: Path) -> int | None:
    """The least memory that a control group leaves; None if none has a limit.

    Files that the system keeps in memory and could drop at once count as free.
    """
    free = []
    for group in _groups(root, "memory"):
        new = (group / "memory.max").exists()
        limit = _words(group / ("memory.max" if new else "memory.limit_in_bytes"))
        used = _words(group / ("memory.current" if new else "memory.usage_in_bytes"))
        if limit and used and limit[0].isdigit() and used[0].isdigit():
            kept = _statistic(group / "memory.stat", "inactive_file" if new else "total_inactive_file")
            free.append(max(0, int(limit[0]) - max(0, int(used[0]) - kept)))
    return min(free, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process' control groups for a controller, each group and those above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        group = mount / path.strip("/")
        # A container sees its own group as the root of the mount, under whatever path the machine has it.
        for folder in (group, *group.parents) if group.is_dir() else (mount,):
            yield folder
            if folder == mount:
                break


def _words(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text().split()[:2])
    except (OSError, ValueError):
        return ()


def _statistic(path: Path, name: str) -> int:
    try:
        values = dict(line.split() for line in path.read_text().splitlines())
        return int(values.get(name, 0))
    except (OSError, ValueError):
        return 0
