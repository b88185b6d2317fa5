"""Arguments of a run, checked: each comes back in its one form, or an error says what is expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice

import numpy as np

from .circuit.populations import Circuit
from .errors import InputError, RunError
from .network.network import Network
from .parallel import usable_cores

__all__ = [
    "RECORDS",
    "checked_labels",
    "checked_record",
    "checked_record_steps",
    "checked_seed",
    "checked_threads",
]

RECORDS = ("spike_counts", "v_mem", "spikes")
"""What a run can record besides outputs."""

MAX_THREADS = 1024
"""The most threads that a run may be given."""


def checked_record(record: Iterable[str]) -> frozenset[str]:
    """The names of what is to be recorded, checked."""
    if record == ():
        return frozenset()
    given: tuple[object, ...] = (
        tuple(record) if isinstance(record, (tuple, list, set, frozenset)) else (record,)
    )
    names = [name for name in given if isinstance(name, str) and name in RECORDS]
    if len(names) < len(given):
        raise RunError("unknown record", got=repr(given)[:80], expected=", ".join(RECORDS))
    return frozenset(names)


def checked_seed(seed: int, what: str = "seed") -> int:
    """A seed or the number of a sample, checked."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise RunError(f"{what} is out of range", got=repr(seed)[:40], expected="an integer >= 0")
    return int(seed)


def checked_record_steps(record_steps: Iterable[int] | None, circuit: Circuit) -> tuple[int, ...]:
    """The steps after which outputs are recorded, ascending; the last step is always among them."""
    n_steps = circuit.n_steps
    if record_steps is None:
        return (n_steps,)
    expected = f"integers from 1 to {n_steps}, each once"
    if not isinstance(record_steps, Iterable) or isinstance(record_steps, (str, bytes)):
        raise RunError("record_steps is not a list of steps", got=repr(record_steps)[:80], expected=expected)
    steps = tuple(islice(record_steps, n_steps + 1))  # if there are more, one comes twice or is out of range
    if not steps:
        raise RunError(
            "record_steps is empty", expected=expected, hint="leave it out to record the last step alone"
        )
    for step in steps:
        if (
            isinstance(step, (bool, np.bool_))
            or not isinstance(step, (int, np.integer))
            or not 1 <= step <= n_steps
        ):
            raise RunError("record_steps is out of range", got=repr(step)[:80], expected=expected)
    if len(set(steps)) < len(steps):
        raise RunError(
            "record_steps names a step twice", got=Counter(steps).most_common(1)[0][0], expected=expected
        )
    if (circuit.has_warm_up or circuit.coding == "graded") and min(steps) < n_steps:
        graded = circuit.coding == "graded"
        hint = f"run each number of steps on its own, or use {'coding steps' if graded else 'no warm-up'}"
        raise RunError(
            f"outputs of {'a graded network' if graded else 'a network with a warm-up'} can be recorded after"
            " its last step alone",
            got=f"step {min(steps)}",
            expected=f"step {n_steps}",
            hint=hint,
        )
    return tuple(sorted({int(step) for step in steps} | {n_steps}))


def checked_threads(threads: int | None) -> int:
    """A number of threads, checked; None: one per core that this process may use."""
    if threads is None:
        return usable_cores()
    if (
        isinstance(threads, bool)
        or not isinstance(threads, (int, np.integer))
        or not 1 <= threads <= MAX_THREADS
    ):
        raise RunError("threads is out of range", got=threads, expected=f"an integer from 1 to {MAX_THREADS}")
    return int(threads)


def checked_labels(labels: np.ndarray | None, n_samples: int, network: Network) -> np.ndarray | None:
    """The class of each sample, (n_samples,) int64, checked; None without labels."""
    if labels is None:
        return None
    if network.task != "classify":
        raise InputError(
            "labels are for networks that classify",
            where="labels",
            got=f"task '{network.task}'",
            expected="no labels",
            hint="compare `Result.outputs` with what they should be",
        )
    n_classes = network.n_classes
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise InputError("labels are not an array", where="labels", got=type(labels).__name__) from error
    if array.shape != (n_samples,):
        rows = array.shape[1:] if array.ndim == 2 and len(array) == n_samples else ()
        one_hot = "give labels.argmax(axis=1), if they are one-hot rows"
        raise InputError(
            "labels and images do not fit",
            where="labels",
            got=f"shape {array.shape}",
            expected=f"({n_samples},)",
            hint="give labels.ravel()" if rows == (1,) else one_hot if rows else None,
        )
    if array.dtype.kind not in "iu":
        raise InputError(
            "labels are not classes",
            where="labels",
            got=f"dtype {array.dtype}",
            expected=f"integers from 0 to {n_classes - 1}",
            hint="give labels.astype(int), if they are whole numbers"
            if array.dtype.kind in "fb"
            else "number the classes in the order of the scores",
        )
    if array.min() < 0 or array.max() >= n_classes:
        raise InputError(
            "labels are not classes",
            where="labels",
            got=f"{array.min()} to {array.max()}",
            expected=f"integers from 0 to {n_classes - 1}",
            hint="number the classes from 0 on, in the order of the scores",
        )
    return array.astype(np.int64)
