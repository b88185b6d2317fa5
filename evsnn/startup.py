"""The start of the engine: what happens once a process, before memory is measured and samples run."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .console import say

if TYPE_CHECKING:
    from .simulation import Simulator

__all__ = ["import_compiler", "wake"]


def import_compiler(backend: str) -> float:
    """Import numba, unless `backend` has no use for it or it is not there; the milliseconds it took."""
    started = time.perf_counter()
    if backend != "reference":
        with contextlib.suppress(ImportError):  # the simulator says what that means
            import numba  # noqa: F401
    return 1e3 * (time.perf_counter() - started)


def wake(simulator: Simulator) -> dict[str, float]:
    """Import the engine and start its compiler, so that the memory both take counts as in use.

    Says on stderr if the engine does not run, or cannot keep what it compiles.

    Returns
    -------
    dict of str to float
        Milliseconds: "import" and "compile".
    """
    if simulator.backend_note:
        say(f"backend: {simulator.backend_note}")
    if simulator.backend != "numba":
        return {"import": 0.0, "compile": 0.0}
    started = time.perf_counter()
    from . import engine  # noqa: F401
    from .kernels import queue
    from .kernels.jit import specialise

    imported = time.perf_counter()
    with _without("scipy.linalg"):
        specialise(queue.count_spikes, n_arguments=2)  # the smallest kernel
    stats = getattr(queue.count_spikes, "stats", None)
    if stats and stats.cache_path is None:
        say("compiler: no folder for compiled code can be written to, so every start compiles anew; set NUMBA_CACHE_DIR to one that can")
    return {"import": 1e3 * (imported - started), "compile": 1e3 * (time.perf_counter() - imported)}


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Keep a module that is not imported yet from being imported.

    numba looks for scipy's BLAS when its compiler starts, which costs 0.2 s and serves matrix products
    alone; kernels have none. For a command's own process only: a library must not decide this.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment] # an import of it fails at once
    try:
        yield
    finally:
        del sys.modules[module]
