"""Constants of a header: arrays and structures as definitions, each once, and the bytes that they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evsnn.errors import RunError

from .ctext import array, initialiser

__all__ = ["STRUCT_BYTES", "WIDE_FIELDS", "Tables"]

STRUCT_BYTES = {
    "evsnn_part_t": 60,
    "evsnn_channelwise_t": 48,
    "evsnn_analog_t": 48,
    "evsnn_population_t": 128,
    "evsnn_pool_t": 60,
    "evsnn_maxpool_t": 112,
}
"""Sizes of structures on a core whose pointers have 32 bits."""

WIDE_FIELDS = frozenset(
    ("offset", "row_bytes", "step_bytes", "tile_stride", "state", "state_net", "state_current")
)
"""Fields of 32 bits; the others have 16, or 8 and values that always fit them."""


def _check(item: Mapping, what: str) -> None:
    for field, value in item.items():
        values = (
            value.values()
            if isinstance(value, Mapping)
            else value
            if isinstance(value, (tuple, list))
            else (value,)
        )
        if isinstance(value, Mapping):
            _check(value, what)
        elif any(
            not isinstance(v, str) and int(v) >= (1 << 32 if field in WIDE_FIELDS else 1 << 16)
            for v in values
        ):
            raise RunError(
                "the network is too large for firmware",
                where=f"{field} of stage {what}",
                got=value,
                expected="at most 65535",
            )


class Tables:
    """Definitions in the order in which they are needed.

    Parameters
    ----------
    prefix : str
        Of all names.
    """

    def __init__(self, prefix: str):
        self.prefix, self.n_bytes, self.largest = prefix, 0, 0
        self.texts: list[str] = []
        self._known: dict[tuple, str] = {}

    def array(self, what: str, values: np.ndarray, dtype) -> str:
        """Define an array, or find an equal one; gives its name."""
        values = np.ascontiguousarray(values, dtype)
        key = (values.dtype.str, values.tobytes())
        if key not in self._known:
            self._known[key] = f"{self.prefix}_{what}"
            self.texts.append(array(self._known[key], values))
            self.n_bytes += values.nbytes
            self.largest = max(self.largest, values.nbytes)
        return self._known[key]

    def structs(self, what: str, c_type: str, items: Sequence[Mapping]) -> str:
        """Define an array of structures, whose fields are in C's order; gives its name, or NULL if there
        are none.

        Raises
        ------
        RunError
            If a size does not fit the 16 bits that the runtime has for it.
        """
        if not items:
            return "NULL"
        for item in items:
            _check(item, what)
        name = f"{self.prefix}_{what}"
        self.n_bytes += STRUCT_BYTES[c_type] * len(items)
        body = ",\n    ".join(initialiser(item, 1) for item in items)
        self.texts.append(f"static const {c_type} {name}[{len(items)}] EVSNN_CONST = {{\n    {body}\n}};\n")
        return name
