"""The files that `python -m evsnn.profile` reads and writes: an earlier profile, and pages."""

from __future__ import annotations

import json

from ..errors import RunError
from ..files.atomic import replace_file
from ..files.regular import NotRegularError, open_regular

__all__ = ["SCHEMA_VERSION", "old_profile", "write_text"]

SCHEMA_VERSION = 1
_LARGEST = 64 << 20
_LONGEST_MS = 1e15  # milliseconds: no profile took 30,000 years


def write_text(path: str, text: str) -> None:
    """Write a file, all or nothing."""
    replace_file(path, text.encode())


def old_profile(path: str) -> dict:
    """An earlier profile, as `--json` printed it.

    Raises
    ------
    RunError
        If it is not a profile, or has another schema.
    """
    try:
        with open(open_regular(path), "rb") as file:
            found = json.loads(file.read(_LARGEST))
    except NotRegularError as error:
        raise RunError("this is not a regular file", where=path) from error
    except OSError as error:
        raise RunError("the earlier profile cannot be read", where=path, got=error.strerror) from error
    except (ValueError, RecursionError) as error:
        told = isinstance(error, json.JSONDecodeError)
        raise RunError(
            "this is not a profile",
            where=path,
            got=str(error)[:120] if told else "what is not JSON, or is nested too deep",
            expected="what evsnn.profile --json prints",
        ) from error
    if not isinstance(found, dict) or found.get("kind") != "evsnn.profile":
        raise RunError(
            "this is not a profile", where=path, expected='an object whose "kind" is "evsnn.profile"'
        )
    if found.get("schema_version") != SCHEMA_VERSION:
        raise RunError(
            "the earlier profile is of another schema",
            where=path,
            got=found.get("schema_version"),
            expected=SCHEMA_VERSION,
            hint="measure it again",
        )
    layers = found.get("layers")
    times = (
        [found.get("total_ms"), *(layer.get("ms") if isinstance(layer, dict) else None for layer in layers)]
        if isinstance(layers, list)
        else [None]
    )
    if not all(
        isinstance(time, (int, float)) and not isinstance(time, bool) and 0 <= time < _LONGEST_MS
        for time in times
    ):
        raise RunError(
            "the earlier profile is damaged: layers or their times are missing",
            where=path,
            hint="measure it again",
        )
    return found
