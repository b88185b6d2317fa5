"""Text for people: what is safe to print, and how quantities are written."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["as_bytes", "as_count", "as_shape", "has_extra", "printable", "shown"]


def as_bytes(n_bytes: int) -> str:
    """A number of bytes in decimal units."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} B"


def as_count(count: int, noun: str) -> str:
    """A number with its noun: ``1 thread``, ``2 threads``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def as_shape(shape: Sequence[int]) -> str:
    """``64x32x32``."""
    return "x".join(map(str, shape))


def has_extra(package: str) -> bool:
    """Whether an optional package is installed; it is not imported."""
    from importlib.util import find_spec

    return find_spec(package) is not None


def printable(text: str) -> str:
    """`text` with all characters escaped that are not printable, so that no name steers a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(text: object, limit: int = 160) -> str:
    """`text` on one line, without control characters, and no longer than `limit`."""
    line = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in str(text)
    )
    return line if len(line) <= limit else line[: limit - 3] + "..."
