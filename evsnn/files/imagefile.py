"""Files of images and labels, which are checked before they are read: .npz, .npy and .h5.

They hold an array `images` and, optionally, an array `labels`. The first bytes of a file say what it is; its
name does not matter. Values are taken as they are. Only what is asked for is held, so a file may be larger
than memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, WeightsError
from ..text import printable
from .arrayfile import BLOCK_BYTES, LABELS_HINT, UnreadArray, open_file, read_npy, read_npz
from .kinds import HEAD_BYTES, kind_of

if TYPE_CHECKING:
    from .gate import Dataset

__all__ = ["check_labels", "check_numbers", "in_memory", "open_images", "read_floats", "read_labels"]

_BAND_BYTES = 64 << 20  # most that is decoded at once if chunks hold many rows


@contextmanager
def open_images(
    path: str | os.PathLike, *, max_bytes: int | None = None
) -> Iterator[tuple[UnreadArray, UnreadArray | None]]:
    """The arrays `images` and `labels` of a file, which can be read inside the ``with``.

    Parameters
    ----------
    path : path
    max_bytes : int, optional
        Of a .h5 file; None: the gate's limit.

    Raises
    ------
    InputError
        If there is no such file, or it holds no such arrays.
    """
    with ExitStack() as stack:
        yield _found(path, stack, max_bytes)


def _found(
    path: str | os.PathLike, stack: ExitStack, max_bytes: int | None
) -> tuple[UnreadArray, UnreadArray | None]:
    """The arrays of a file that `stack` closes."""
    file, where = stack.enter_context(open_file(path)), os.fspath(path)
    start = file.read(8)
    if start[:6] == b"\x93NUMPY":
        file.seek(0)
        return read_npy(file, where), None
    if start[:2] == b"PK":
        file.seek(0)
        get, names = read_npz(file, where)
    elif start == b"\x89HDF\r\n\x1a\n":
        get, names = _read_h5(where, stack, max_bytes)
    else:
        kind = kind_of(start + file.read(HEAD_BYTES - len(start)))
        raise InputError(
            f"is {kind.what}, not a file of samples" if kind else "is not a file of images",
            where=where,
            got=None if kind else f"it starts with {start!r}",
            expected=".npz, .npy or .h5",
            hint=kind.as_inputs if kind else None,
        )
    if "images" not in names:
        found = printable(", ".join(sorted(names)[:8]))[:200] or None
        raise InputError(
            "there is no array named 'images'",
            where=where,
            got=found,
            hint="write it with numpy.savez(F, images=..., labels=...)",
        )
    return get("images"), get("labels") if "labels" in names else None


def in_memory(array: np.ndarray, where: str) -> UnreadArray:
    """An array that is in memory already, or mapped from a file."""

    def blocks(n: int, row_shape: tuple[int, ...], first: int = 0) -> Iterator[np.ndarray]:
        rows = array.reshape(-1, *row_shape)
        at_once = max(1, BLOCK_BYTES // max(1, math.prod(row_shape) * array.itemsize))
        for start in range(first, first + n, at_once):
            yield rows[start : min(first + n, start + at_once)]

    return UnreadArray(where, array.shape, array.dtype, blocks)


def read_floats(stored: UnreadArray, n: int, row_shape: tuple[int, ...], first: int = 0) -> np.ndarray:
    """Images as float32; every value is checked.

    Parameters
    ----------
    stored : UnreadArray
    n : int
        How many images.
    row_shape : tuple of int
        The shape of one image.
    first : int
        The index of the first image.

    Returns
    -------
    (n, *row_shape) float32

    Raises
    ------
    InputError
        If a value is not finite.
    """
    images, at = np.empty((n, *row_shape), np.float32), 0
    for block in stored.blocks(n, row_shape, first):
        rows = images[at : at + len(block)]
        with np.errstate(over="ignore", invalid="ignore"):
            rows[...] = block
        if not (math.isfinite(rows.min()) and math.isfinite(rows.max())):
            bad = first + at + int(np.argmin(np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)))
            raise InputError(
                "images hold NaN or infinity",
                where=f"{stored.where}[{bad}]",
                expected="finite float32 values",
            )
        at += len(block)
    if at != n:
        raise InputError(
            "there are fewer images than were asked for",
            where=stored.where,
            got=first + at,
            expected=f"at least {first + n}",
        )
    return images


def read_labels(stored: UnreadArray, n: int, n_classes: int) -> np.ndarray:
    """The first `n` labels as int64.

    Parameters
    ----------
    stored : UnreadArray
    n : int
    n_classes : int
        Labels are from 0 to `n_classes` - 1.

    Returns
    -------
    (n,) int64

    Raises
    ------
    InputError
        If a label is not a class.
    """
    labels = np.concatenate([np.array(block) for block in stored.blocks(n, ())])
    bad = (labels < 0) | (labels >= n_classes)
    if bad.any():
        at = int(bad.argmax())
        expected = "0 or more" if n_classes == np.iinfo(np.int64).max else f"0 to {n_classes - 1}"
        raise InputError(
            "a label is out of range",
            where=f"{stored.where}[{at}]",
            got=int(labels[at]),
            expected=expected,
            hint="number the classes from 0 on, in the order of the scores",
        )
    return labels.astype(np.int64)


def check_numbers(images: UnreadArray) -> None:
    """Refuse images that are neither floats nor integers.

    Raises
    ------
    InputError
        If they are booleans, or not numbers.
    """
    if images.dtype.kind == "b":
        raise InputError(
            "images are boolean",
            where=images.where,
            expected="floats or integers",
            hint="only a network that reads events takes boolean images",
        )
    if images.dtype.kind not in "fiu":
        raise InputError(
            "images are not numbers", where=images.where, got=images.dtype.name, expected="floats or integers"
        )


def check_labels(labels: UnreadArray, n: int, single: bool) -> None:
    """Refuse labels that are not one integer per image.

    Parameters
    ----------
    labels : UnreadArray
    n : int
        The number of images.
    single : bool
        Whether there is one image without its batch axis; its label may have none, too.

    Raises
    ------
    InputError
        If they do not fit the images.
    """
    if labels.shape != ((1,) if single and labels.shape else () if single else (n,)):
        rows = labels.shape[1:] if labels.shape[:1] == (n,) and len(labels.shape) == 2 else None
        hint = rows and (
            "give labels.ravel()" if rows == (1,) else "give labels.argmax(axis=1), if they are one-hot rows"
        )
        raise InputError(
            "labels do not fit the images",
            where=labels.where,
            got=f"shape {labels.shape}",
            expected=f"({n},), one per image",
            hint=hint,
        )
    if labels.dtype.kind not in "iu":
        whole = labels.dtype.kind in "fb"
        hint = (
            "give labels.astype(int), if they are whole numbers; leave out values of a regression"
            if whole
            else LABELS_HINT
        )
        raise InputError(
            "labels are not integers",
            where=labels.where,
            got=labels.dtype.name,
            expected="class indices, from 0 on",
            hint=hint,
        )


def _read_h5(
    path: str, stack: ExitStack, max_bytes: int | None
) -> tuple[Callable[[str], UnreadArray], list[str]]:
    """A function that finds a dataset of a .h5 file by its name, and the names in the file.

    The rules of the gate hold.
    """
    from . import gate

    with _as_input_errors():
        opened = gate.open_file(path, max_bytes=max_bytes or gate.MAX_BYTES)
        file = opened.__enter__()
        stack.callback(
            opened.__exit__, None, None, None
        )  # the gate must not take exceptions of other code for damage
        members = file.tree(only=("images", "labels")).members

    def get(name: str) -> UnreadArray:
        dataset = members[name]
        if not isinstance(dataset, gate.Dataset) or dataset.dtype.kind not in "iuf":
            raise InputError(
                "is not a plain array of numbers",
                where=f"{path}:/{name}",
                expected="a dataset of floats or integers",
            )
        return _h5_array(dataset)

    return get, list(members)


def _h5_array(dataset: Dataset) -> UnreadArray:
    """A dataset, read in bands of whole chunks."""
    row_bytes = max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize)
    whole_chunks = dataset.chunk_rows * max(1, BLOCK_BYTES // (dataset.chunk_rows * row_bytes))
    at_once = max(1, min(whole_chunks, _BAND_BYTES // row_bytes))

    def blocks(n: int, row_shape: tuple[int, ...], first: int = 0) -> Iterator[np.ndarray]:
        if not n:
            return
        if math.prod(dataset.shape) == math.prod(row_shape):  # one image, with or without its batch axis
            with _as_input_errors():
                whole = dataset.read()
            yield whole.reshape(1, *row_shape)
            return
        start, end = first, first + n
        while start < end:
            stop = min(end, (start // at_once + 1) * at_once)
            with _as_input_errors():
                rows = dataset.rows(start, stop)
            yield rows.reshape(-1, *row_shape)
            start = stop

    return UnreadArray(
        dataset.where,
        dataset.shape,
        dataset.dtype,
        blocks,
        min(dataset.n_bytes, at_once * row_bytes) + 2 * dataset.chunk_bytes,
    )


@contextmanager
def _as_input_errors() -> Iterator[None]:
    """Turn the gate's errors into errors of inputs."""
    try:
        yield
    except WeightsError as error:
        hint = "write it as .npz, or as plain numbers with h5py's default layout and filters"
        raise InputError(
            error.what, where=error.where, got=error.got, expected=error.expected, hint=hint
        ) from error
