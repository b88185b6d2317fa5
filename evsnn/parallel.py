"""Work on several threads: NumPy lets other threads run while it computes on large arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .limits import usable_cores

__all__ = ["in_parallel", "usable_cores"]

Item = TypeVar("Item")
Value = TypeVar("Value")


def in_parallel(
    function: Callable[[Item], Value], items: Iterable[Item], threads: int | None = None
) -> list[Value]:
    """The values of a function for all items, in their order.

    Parameters
    ----------
    function : callable
        It is called on several threads at once, and may change only what belongs to its item.
    items : iterable
    threads : int, optional
        None: `usable_cores`.

    Raises
    ------
    Exception
        That of the first call that failed, after the calls that had begun have ended. No other call begins.
    """
    listed = list(items)
    threads = min(usable_cores() if threads is None else threads, len(listed))
    if threads < 2:
        return [function(item) for item in listed]
    with ThreadPoolExecutor(threads, thread_name_prefix="evsnn") as executor:
        return list(executor.map(function, listed))
