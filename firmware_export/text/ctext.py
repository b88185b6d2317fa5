"""C as text: arrays, initialisers and numbers, the same bytes for the same values.

Every number of the generated C becomes text here, and is first compared with what its type can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evsnn.errors import RunError

from .structs import POINTER, limits, structs

__all__ = ["array", "c_type", "fitted", "initialiser", "literal"]

_TYPES = {np.dtype(t): f"{t}_t" for t in ("int8", "uint8", "int16", "uint16", "int32", "uint32")}
_COLUMNS = 150
_INDENT = "    "
_AT_ONCE = 1 << 16  # a number of Python takes 40 bytes
LONGEST_LINE = 4
"""Fields of a structure that stand on one line."""


def c_type(dtype: np.dtype) -> str:
    """The C99 name of an integer type."""
    return _TYPES[np.dtype(dtype)]


def fitted(values: np.ndarray, dtype: np.dtype | type, where: str) -> np.ndarray:
    """Whole numbers as an array of C's type, in memory order.

    Raises
    ------
    RunError
        If one does not fit the type.
    """
    dtype = np.dtype(dtype)
    if values.size:
        for end in (values.min(), values.max()):
            _check(int(end), c_type(dtype), where)
    return np.ascontiguousarray(values, dtype)


def array(name: str, values: np.ndarray) -> str:
    """A constant array of integers as a definition; elements in memory order."""
    suffix = "u" if values.dtype == np.uint32 else ""
    lines, line = [], "   "
    flat = values.ravel()
    for first in range(0, len(flat), _AT_ONCE):
        for value in flat[first : first + _AT_ONCE].tolist():
            item = f" {_number(value)}{suffix},"
            if len(line) + len(item) > _COLUMNS:
                lines.append(line)
                line = "   "
            line += item
    lines.append(line.rstrip(","))
    body = "\n".join(lines)
    return f"static const {c_type(values.dtype)} {name}[{values.size}] EVSNN_CONST = {{\n{body}\n}};\n"


def initialiser(struct: str, value: Mapping, depth: int = 0) -> str:
    """A structure of the runtime as it stands in a definition.

    C++11 has no designated initialisers, so the name of each field stands in a comment before it.

    Parameters
    ----------
    struct : str
        Its name in C.
    value : mapping
        Names of its fields, in C's order, to integers, tuples of them, structures, or text of C.
    depth : int
        How far the line is indented on which it begins.

    Raises
    ------
    RunError
        If a number does not fit the type of its field.
    """
    fields = structs()[struct]
    if list(value) != [field.name for field in fields]:
        raise KeyError(f"{struct} has the fields {', '.join(field.name for field in fields)}")
    items = {}
    for field in fields:
        where, inner = f"{struct}.{field.name}", depth + 1
        if field.length is None:
            items[field.name] = _item(field.type, value[field.name], inner, where)
            continue
        if len(value[field.name]) != field.length:
            raise KeyError(f"{where} has {field.length} values")
        parts = [_item(field.type, one, inner, where) for one in value[field.name]]
        items[field.name] = "{" + ", ".join(parts) + "}"
    if len(items) <= LONGEST_LINE and not any(isinstance(v, Mapping) for v in value.values()):
        return "{" + ", ".join(f"/* {name} */ {text}" for name, text in items.items()) + "}"
    lines = [f"{_INDENT * (depth + 1)}/* {name} */ {text}" for name, text in items.items()]
    return "{\n" + ",\n".join(lines) + f"\n{_INDENT * depth}}}"


def literal(value: Any) -> Any:
    """What a template prints: a number is one that 32 bits of C hold, with or without a sign.

    Raises
    ------
    RunError
        If it is none.
    """
    if isinstance(value, (int, np.integer)) and not -(2**31) <= value < 2**32:
        raise _too_large(int(value), "the generated code", "32 bits")
    return value


def _item(kind: str, value: Any, depth: int, where: str) -> str:
    """A field's value, or one of an array's."""
    if isinstance(value, Mapping):
        return initialiser(kind, value, depth)
    if isinstance(value, str):  # a constant's name
        if kind != POINTER and kind != "int":
            raise TypeError(f"{where} holds numbers")
        return value
    return _number(_check(int(value), kind, where))


def _number(value: int) -> str:
    """C has no negative literals: -2147483648 is made of one that is too large."""
    return "(-2147483647 - 1)" if value == -(2**31) else str(value)


def _check(value: int, kind: str, where: str) -> int:
    """The value, if it fits C's type."""
    low, high = limits(kind)
    if not low <= value <= high:
        raise _too_large(value, where, f"{low} to {high}, the range of {kind}")
    return value


def _too_large(value: int, where: str, expected: str) -> RunError:
    return RunError(
        "a number does not fit the generated C",
        where=where,
        got=value,
        expected=expected,
        hint="the network is too large for firmware: use smaller maps, fewer channels or fewer steps",
    )
