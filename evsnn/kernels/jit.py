"""The decorator that all kernels share."""

from __future__ import annotations

import functools
import hashlib
import logging
from pathlib import Path

from numba import config, njit, types

__all__ = ["inner", "kernel", "source_digest", "specialise"]

_LOG = logging.getLogger("evsnn")
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": False, "boundscheck": False}


def kernel(function):
    """Compile on demand, without the GIL, checks or reordering, and keep the machine code on disk.

    Where no directory can be written the code is compiled in each process anew.
    """
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba found no directory to keep code in
        return njit(**_OPTIONS)(function)


def inner(function):
    """A part of a kernel: LLVM may inline it."""
    return njit(**_OPTIONS)(function)


def specialise(kernel, *selectors, n_arguments: int):
    """A kernel compiled for the given elements: a function of its other arguments, all of them int64.

    Parameters
    ----------
    kernel : dispatcher
    selectors : Vectors or Events
        Its first arguments.
    n_arguments : int
        How many more it takes.
    """
    if config.DISABLE_JIT:
        return functools.partial(kernel, *selectors)
    signature = (*(selector.numba_type for selector in selectors), *[types.int64] * n_arguments)
    return functools.partial(_compiled(kernel, signature), *[None] * len(selectors))


def _compiled(kernel, signature):
    """The machine code for a signature, kept or new.

    Kept code can be damaged, a disk full, and an index written by two processes at once can name
    another signature's code: then the kernel is compiled for this process alone.
    """
    trouble = "it holds code of another kernel"
    try:
        code = kernel.compile(signature)
        if signature in kernel.overloads:
            return code
    except Exception as error:  # whatever unpickling damaged files raises; an error of the kernel's own comes again below
        trouble = f"{type(error).__name__}: {error}"
    folder = getattr(getattr(kernel, "stats", None), "cache_path", None)
    _LOG.warning("evsnn: compiled code in %s cannot be used (%s); compiling anew, remove the folder to keep code again", folder, trouble)
    return njit(**_OPTIONS)(kernel.py_func).compile(signature)


@functools.cache
def source_digest() -> str:
    """A digest of this package's sources.

    numba's cache looks at the file a kernel stands in, not at what it calls; types that carry this
    digest in their name make kept code stale as soon as any of these files changes.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
