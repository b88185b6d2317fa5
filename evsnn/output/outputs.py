"""A file of outputs: what a network gave for every sample, for programs that go on from there."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..errors import RunError
from ..files.atomic import replace_file
from ..result import Result

__all__ = ["save"]


def save(path: str, result: Result) -> None:
    """Write the outputs of a run to a .npz file, all or nothing.

    Its arrays have the names of the network's readouts, and are (n_samples, ...) float64; if the network
    classifies, `predictions` are the classes, (n_samples,) int64.

    Parameters
    ----------
    path : str
    result : Result

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    arrays: dict[str, Any] = dict(result.named_outputs)
    if result.predictions is not None:
        arrays.setdefault("predictions", result.predictions)
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name.replace("/", "_"): values for name, values in arrays.items()})
    try:
        replace_file(path, stream.getbuffer())
    except OSError as error:
        raise RunError(
            "the outputs cannot be written",
            where=path,
            got=error.strerror,
            hint="name a file in a folder that can be written to",
        ) from error
