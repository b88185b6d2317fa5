"""C as text: arrays and initialisers, the same bytes for the same values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["array", "c_type", "initialiser"]

_TYPES = {np.dtype(t): f"{t}_t" for t in ("int8", "uint8", "int16", "uint16", "int32", "uint32")}
_COLUMNS = 150
_INDENT = "    "
LONGEST_LINE = 4
"""Fields of a structure that stand on one line."""


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


def initialiser(value: Any, depth: int = 0) -> str:
    """A structure, an array or a scalar as it stands in a definition.

    C++11 has no designated initialisers, so the name of each field stands in a comment before it.

    Parameters
    ----------
    value : mapping, sequence, str or integer
        A structure: names of fields, in C's order, to their values. A str is text of C.
    depth : int
        How far the line is indented on which it begins.
    """
    if isinstance(value, Mapping):
        if len(value) <= LONGEST_LINE and not any(isinstance(v, Mapping) for v in value.values()):
            return "{" + ", ".join(f"/* {name} */ {initialiser(v)}" for name, v in value.items()) + "}"
        inner = _INDENT * (depth + 1)
        lines = [f"{inner}/* {name} */ {initialiser(v, depth + 1)}" for name, v in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{_INDENT * depth}}}"
    if isinstance(value, (tuple, list)):
        return "{" + ", ".join(initialiser(v, depth) for v in value) + "}"
    return value if isinstance(value, str) else str(int(value))
