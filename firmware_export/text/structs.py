"""The structures of the runtime, as its C declares them: what each of their fields can hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from .runtime import joined

__all__ = ["INTEGERS", "POINTER", "Field", "layout", "limits", "structs"]

INTEGERS = MappingProxyType(
    {"int": 4} | {f"{sign}int{bits}_t": bits // 8 for sign in ("", "u") for bits in (8, 16, 32)}
)
"""C's integer types, and their bytes."""

POINTER = "pointer"


@dataclass(frozen=True)
class Field:
    """A field of a structure.

    Parameters
    ----------
    name : str
    type : str
        An integer type, a structure or `POINTER`.
    length : int, optional
        Of an array.
    """

    name: str
    type: str
    length: int | None = None


@cache
def structs() -> Mapping[str, tuple[Field, ...]]:
    """Every structure of the runtime, by name: its fields in their order."""
    text = re.sub(r"/\*.*?\*/", "", joined(), flags=re.DOTALL)
    found = {}
    for body, struct in re.findall(r"typedef struct \{([^}]*)\} (evsnn_\w+_t);", text):
        fields = []
        for declared, names in re.findall(r"(?:const )?(\w+) ([^;]*);", body):
            for star, name, length in re.findall(r"(\*?)(\w+)(?:\[(\d+)\])?", names):
                fields.append(Field(name, POINTER if star else declared, int(length) if length else None))
        found[struct] = tuple(fields)
    return MappingProxyType(found)


def limits(c_type: str) -> tuple[int, int]:
    """The smallest and the largest value of an integer type."""
    bits = 8 * INTEGERS[c_type]
    return (0, 2**bits - 1) if c_type.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def layout(struct: str, pointer: int = 4) -> tuple[int, int, dict[str, int]]:
    """How a structure lies in memory.

    Parameters
    ----------
    struct : str
    pointer : int
        Bytes of a pointer.

    Returns
    -------
    n_bytes, alignment : int
    offsets : dict of str to int
    """
    at, widest, offsets = 0, 1, {}
    for field in structs()[struct]:
        if field.type in INTEGERS or field.type == POINTER:
            size = alignment = INTEGERS.get(field.type, pointer)
        else:
            size, alignment, _ = layout(field.type, pointer)
        at = -(-at // alignment) * alignment
        offsets[field.name] = at
        at += size * (field.length or 1)
        widest = max(widest, alignment)
    return -(-at // widest) * widest, widest, offsets
