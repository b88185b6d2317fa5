"""The demo model, which comes with the package: a network for handwritten digits, for a first run."""

from __future__ import annotations

from importlib import resources

from ..errors import WeightsError
from ..network.network import Network
from .weights import load

__all__ = ["demo"]


def demo() -> Network:
    """The packaged demo model.

    Raises
    ------
    WeightsError
        If the file is missing.
    """
    path = resources.files("evsnn") / "models" / "mnist.h5"
    if not path.is_file():
        raise WeightsError(
            "the packaged demo model is not there",
            where=str(path),
            hint="name a weights file, or reinstall evsnn",
        )
    with resources.as_file(path) as file:
        return load(file)
