"""The compiler: the decorators of kernels, and machine code from them."""

from __future__ import annotations

import importlib
import re
from types import FunctionType

from numba import config, njit, types

__all__ = ["compiled", "function_of", "inner", "kernel"]

_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": False, "boundscheck": False}
_EVERYWHERE = {"memcpy", "memmove", "memset"}
"""Functions that machine code may call: those that every process has."""


def kernel(function):
    """Compile on demand: without the GIL, without checks, without reordering; arguments are integers."""
    return njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)


def inner(function):
    """A part of a kernel: LLVM may inline it."""
    return njit(**_OPTIONS)(function)


def function_of(name: str) -> FunctionType:
    """The Python function of a kernel, named "module.function"; it runs if numba's compiler is off."""
    module, _, function = name.partition(".")
    found = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    return found if config.DISABLE_JIT else found.py_func


def compiled(dispatcher, selectors: tuple, n_arguments: int) -> tuple[bytes, str, bool]:
    """The machine code of a kernel for the given selectors; all other arguments are int64.

    Parameters
    ----------
    dispatcher : str or dispatcher
        "module.function" of this package, or a function that `kernel` decorates.
    selectors : tuple of Vectors or Events
        The first arguments.
    n_arguments : int
        How many int64 arguments follow.

    Returns
    -------
    code : bytes
        An object file.
    symbol : str
        The name of the function in it.
    alone : bool
        Whether another process can run it: it calls nothing that only numba provides.
    """
    from .vector import type_of

    if isinstance(dispatcher, str):
        module, _, function = dispatcher.partition(".")
        dispatcher = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    signature = (*map(type_of, selectors), *[types.int64] * n_arguments)
    dispatcher.compile(signature)
    made = dispatcher.overloads[signature]
    outside = set(re.findall(r"^declare [^@]*@([^(]+)", made.library.get_llvm_str(), re.MULTILINE))
    return (
        made.library._get_compiled_object(),
        made.fndesc.llvm_func_name,
        all(name.startswith("llvm.") or name in _EVERYWHERE for name in outside),
    )
