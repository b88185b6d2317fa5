"""C as text: arrays and initialisers, the same bytes for the same values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["array", "c_type", "initialiser"]

_TYPES = {np.dtype(t): f"{t}_t" for t in ("int8", "uint8", "int16", "uint16", "int32", "uint32")}
_COLUMNS = 150


def c_type(dtype: np.dtype) -> str:
    """The C99 name of an integer type."""
    return _TYPES[np.dtype(dtype)]


def array(name: str, values: np.ndarray) -> str:
    """A constant array of integers as a definition; elements in memory order."""
    suffix = "u" if values.dtype.kind == "u" and values.dtype.itemsize == 4 else ""
    lines, line = [], "   "
    for value in values.ravel().tolist():
        item = " (-2147483647 - 1)," if value == -(2**31) else f" {value}{suffix},"
        if len(line) + len(item) > _COLUMNS:
            lines.append(line)
            line = "   "
        line += item
    lines.append(line.rstrip(","))
    body = "\n".join(lines)
    return f"static const {c_type(values.dtype)} {name}[{values.size}] EVSNN_CONST = {{\n{body}\n}};\n"


def initialiser(value: object) -> str:
    """A structure (mapping, in C's order), an array (sequence) or a scalar as it stands in a definition."""
    if isinstance(value, Mapping):
        return initialiser(tuple(value.values()))
    if isinstance(value, (tuple, list)):
        return "{" + ", ".join(initialiser(v) for v in value) + "}"
    return value if isinstance(value, str) else str(int(value))
