"""The start of the engine: what happens once per process, before memory is measured and samples run."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .output.console import print_message

if TYPE_CHECKING:
    from .simulation import Simulator

__all__ = ["import_compiler"]


def import_compiler(simulator: Simulator) -> dict[str, float]:
    """Start the compiler if the engine needs it, so that its memory counts as in use.

    It says on stderr if the engine does not run.

    Returns
    -------
    dict of str to float
        Milliseconds: "import" and "compile".
    """
    if simulator.backend_note:
        print_message(f"backend: {simulator.backend_note}")
    if simulator.backend != "numba":
        return {"import": 0.0, "compile": 0.0}
    from .engine.kernels.code import missing, specialise
    from .engine.workspace import needed

    started = imported = time.perf_counter()
    kernels = needed(simulator.plan)
    if missing(kernels):
        import numba  # noqa: F401

        imported = time.perf_counter()
        with _without("scipy.linalg"):
            # A kept kernel would leave the compiler asleep. The readout's is one of the smallest.
            specialise(next(kernel for kernel in reversed(kernels) if missing([kernel])))
    return {"import": 1e3 * (imported - started), "compile": 1e3 * (time.perf_counter() - imported)}


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Keep a module from being imported, if it is not imported yet.

    numba looks for scipy's BLAS when its compiler starts. That costs 0.2 s and serves matrix products alone,
    of which kernels have none. This is for a command's own process only: a library must not decide it.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment] # an import of it fails at once
    try:
        yield
    finally:
        del sys.modules[module]
