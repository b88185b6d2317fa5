"""The C that all networks share: written in parts, joined into the one `evsnn_rt.h` that users get."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["PARTS", "RUNTIME", "runtime"]

RUNTIME = Path(__file__).parents[1] / "runtime"
"""The folder of the parts."""

PARTS = (
    "core.h",
    "views.h",
    "pools.h",
    "any_projections.h",
    "any_population.h",
    "runs.h",
    "pairs.h",
    "fire.h",
    "wide.h",
    "singles.h",
    "channelwise.h",
    "readout.h",
    "analog.h",
)
"""Its parts in the order in which they are joined: each behind those that it needs."""


def joined(parts: tuple[str, ...] = PARTS) -> str:
    """Parts of the runtime as one header, still without its version.

    Parameters
    ----------
    parts : tuple of str
        Some of `PARTS`, in their order.
    """
    texts = [(RUNTIME / part).read_text(encoding="ascii") for part in parts]
    return "\n".join(["#ifndef EVSNN_RT_H\n#define EVSNN_RT_H\n", *texts, "#endif\n"])


def runtime() -> tuple[str, str]:
    """The runtime.

    Returns
    -------
    text : str
        `evsnn_rt.h`, with its version in it.
    version : str
        A digest of its text, as a number of 32 bits in C.
    """
    text = joined()
    version = f"0x{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return text.replace("EVSNN_RT_VERSION 0 ", f"EVSNN_RT_VERSION {version} ", 1), version
