"""A digest of everything that a value holds. No list of fields is kept by hand, so none can be forgotten."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

__all__ = ["digest"]


def digest(value: object, without: frozenset[str] = frozenset()) -> str:
    """SHA-256 in hexadecimal of all that a value holds.

    A field that is added to a dataclass changes the digest of each value that has it. Equal values have equal
    digests in every process and on every machine.

    Parameters
    ----------
    value : object
        Dataclasses (by all their fields), mappings, sequences, arrays and scalars, at any depth.
    without : frozenset of str
        Names of fields that do not count, at any depth.

    Returns
    -------
    str

    Raises
    ------
    TypeError
        If something in it has no digest.

    Examples
    --------
    >>> digest((1, "a")) == digest((1, "a")), digest((1, "a")) == digest((1, "b"))
    (True, False)
    """
    sha = hashlib.sha256()
    _add(sha, value, without)
    return sha.hexdigest()


def _add(sha: hashlib._Hash, value: object, without: frozenset[str]) -> None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.name not in without]
        sha.update(f"<{type(value).__name__} {' '.join(names)}>".encode())
        for name in names:
            _add(sha, getattr(value, name), without)
    elif isinstance(value, np.ndarray):
        sha.update(f"<array {value.dtype.newbyteorder('<').str} {value.shape}>".encode())
        sha.update(np.ascontiguousarray(value, value.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)
    elif isinstance(value, Mapping):
        sha.update(f"<mapping {len(value)}>".encode())
        for key, item in value.items():
            _add(sha, key, without)
            _add(sha, item, without)
    elif isinstance(value, (tuple, list)):
        sha.update(f"<sequence {len(value)}>".encode())
        for item in value:
            _add(sha, item, without)
    elif isinstance(value, (bool, np.bool_)):
        sha.update(f"<bool {bool(value)}>".encode())
    elif isinstance(value, (int, np.integer)):
        sha.update(f"<int {int(value)}>".encode())
    elif isinstance(value, (float, np.floating)):
        sha.update(f"<float {float(value).hex()}>".encode())
    elif isinstance(value, (str, type(None))):
        sha.update(f"<{value!r}>".encode())
    else:
        raise TypeError(f"a {type(value).__name__} has no digest")
