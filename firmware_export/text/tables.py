"""Constants of a header: arrays and structures as definitions, each once, and the bytes that they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .ctext import array, fitted, initialiser
from .structs import layout

__all__ = ["Tables"]


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
        """Define an array of a C type, or find an equal one; gives its name."""
        name = f"{self.prefix}_{what}"
        values = fitted(np.asarray(values), dtype, name)
        key = (values.dtype.str, values.tobytes())
        if key not in self._known:
            self._known[key] = name
            self.texts.append(array(name, values))
            self.n_bytes += values.nbytes
            self.largest = max(self.largest, values.nbytes)
        return self._known[key]

    def structs(self, what: str, c_type: str, items: Sequence[Mapping]) -> str:
        """Define an array of structures, whose fields are in C's order; gives its name, or NULL if there
        are none.

        Raises
        ------
        RunError
            If a number does not fit the type of its field.
        """
        if not items:
            return "NULL"
        name = f"{self.prefix}_{what}"
        self.n_bytes += layout(c_type)[0] * len(items)
        body = ",\n    ".join(initialiser(c_type, item, 1) for item in items)
        self.texts.append(f"static const {c_type} {name}[{len(items)}] EVSNN_CONST = {{\n    {body}\n}};\n")
        return name
