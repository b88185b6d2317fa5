"""The memory of a run: it is announced before it is allocated, and compared with the memory that is free."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

from ..errors import RunError
from ..limits import free_bytes
from ..text import as_bytes
from .console import print_message

__all__ = ["PROCESS_BYTES", "announce", "announce_early", "require"]

_LITTLE = 10_000_000
_AT_MOST = ("queues",)
"""Parts that spikes fill: allocated for as many as there can be, used as far as there are any."""

PROCESS_BYTES: Mapping[str, int] = MappingProxyType({"numba": 16 << 20, "reference": 5 << 20})
"""What a command takes beside arrays once it has announced its memory: machine code, threads and a report, by
back end; measured.
"""


def announce(parts: Mapping[str, int]) -> int:
    """Say on stderr how many bytes will be allocated.

    Parameters
    ----------
    parts : mapping of str to int
        Bytes by what they are for. Of "queues" it is said that they may take less.

    Returns
    -------
    int
        The most memory of the process after that, in bytes: the parts, and what it holds already, if the
        system says how much that is.

    Raises
    ------
    RunError
        If the machine does not have that much left.
    """
    wanted, resident = sum(parts.values()), _resident_bytes()
    listed = ", ".join(
        f"{name} {'up to ' * (name in _AT_MOST)}{as_bytes(size)}" for name, size in parts.items() if size
    )
    total = f", {as_bytes(wanted + resident)} with the {as_bytes(resident)} in use" if resident else ""
    print_message(f"memory: {as_bytes(wanted)} to allocate ({listed}){total}")
    require(parts)
    return wanted + (resident or 0)


def announce_early(what: str, n_bytes: int) -> None:
    """Announce memory that a command needs before it can tell what all of it needs, unless that is little.

    Parameters
    ----------
    what : str
        What it is for.
    n_bytes : int

    Raises
    ------
    RunError
        If the machine does not have that much left.
    """
    if n_bytes >= _LITTLE:
        announce({what: n_bytes})


def require(parts: Mapping[str, int]) -> None:
    """Refuse a run for which the machine has not enough memory left.

    Parameters
    ----------
    parts : mapping of str to int
        Bytes by what they are for.

    Raises
    ------
    RunError
        If there is not enough memory left.
    """
    wanted, available = sum(parts.values()), free_bytes()
    if available is not None and wanted > available:
        hint = "use fewer samples (--limit), steps or threads"
        raise RunError(
            "the run does not fit into memory",
            got=as_bytes(wanted),
            expected=f"at most the {as_bytes(available)} that are free",
            hint=hint,
        )


def _resident_bytes() -> int | None:
    """The memory that the process holds, if the system says it."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
