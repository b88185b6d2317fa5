"""Calibration inputs: samples in the source model's own shape and scale, which may be more than memory holds.

Files are those that `evsnn.run` takes as inputs, with the same rules (`evsnn.files.imagefile`). They are read
a slice at a time: a .npy and an uncompressed .npz or .h5 directly, a compressed .npz from its start.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from itertools import permutations

import numpy as np

from ...circuit.encoding import sample_forms
from ...errors import InputError
from ...files.arrayfile import UnreadArray
from ...files.imagefile import check_labels, check_numbers, in_memory, open_images, read_floats, read_labels

__all__ = ["CalibrationSet", "open_calibration", "suspicions"]

BATCH_BYTES = 32 << 20
FEW = 32
_COLOURS = 4  # channels of images
_WHOLE = float(1 << 24)  # from here on all numbers of float32 are whole
LARGE = 2000.0  # decibels and cepstral coefficients are below it
LOOKED_AT = 256
MAX_FILE_BYTES = 1 << 42  # of a .h5 file, whose slices alone are read
MAX_SAMPLES = 1 << 24  # whose labels are held


class CalibrationSet:
    """Samples that are read when they are needed. It is a context manager, which closes the file.

    Parameters
    ----------
    source : str
        The file, or "calibration"; for messages.
    images : UnreadArray
        (n, *shape) numbers; or one sample, which `fitted` finds out.
    labels : UnreadArray, optional
    limit : int, optional
        Use the first `limit` samples.
    files : ExitStack, optional
        The files to close.

    Attributes
    ----------
    n : int
    shape : tuple of int
        The shape of one sample.

    Raises
    ------
    InputError
        If there are no samples, or they are not numbers.
    """

    def __init__(
        self,
        source: str,
        images: UnreadArray,
        labels: UnreadArray | None = None,
        limit: int | None = None,
        files: ExitStack | None = None,
    ):
        check_numbers(images)
        if math.prod(images.shape) == 0:
            raise InputError(
                "there are no calibration samples",
                where=images.where,
                got=f"shape {images.shape}",
                hint="give a few hundred",
            )
        if not images.shape:
            raise InputError(
                "the calibration samples are one number", where=images.where, expected="an array (n, ...)"
            )
        if limit is not None and limit < 1:
            raise InputError(
                "no calibration sample is to be used",
                where=source,
                got=f"limit {limit}",
                expected="at least 1",
            )
        self.source = source
        self._images, self._labels, self._limit, self._single = images, labels, limit, False
        self.shape = images.shape[1:]
        self.n = self._limited(images.shape[0])
        self._close = weakref.finalize(self, (files or ExitStack()).close)
        self._owner: CalibrationSet | None = None

    def __enter__(self) -> CalibrationSet:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._close()

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self._labels is not None

    @cached_property
    def labels(self) -> np.ndarray | None:
        """(n,) int64, or None.

        Raises
        ------
        InputError
            If they do not fit the samples.
        """
        if self._labels is None:
            return None
        check_labels(self._labels, 1 if self._single else self._images.shape[0], self._single)
        return read_labels(self._labels, self.n, np.iinfo(np.int64).max)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop`, (stop - start, *shape) float32.

        Raises
        ------
        InputError
            If they hold NaN or infinity, or the file is damaged.
        """
        return read_floats(self._images, stop - start, self.shape, start)

    def batches(self, n: int | None = None, multiple_of: int = 1) -> Iterator[np.ndarray]:
        """The first `n` samples (None: all), in batches that fit into `BATCH_BYTES`.

        A batch has at least `multiple_of` samples.
        """
        n = self.n if n is None else n
        at_once = multiple_of * max(1, BATCH_BYTES // (4 * multiple_of * max(1, math.prod(self.shape))))
        for start in range(0, n, at_once):
            yield self.read(start, min(n, start + at_once))

    def fitted(self, shape: tuple[int, ...], n_classes: int) -> CalibrationSet:
        """This set as samples of `shape`, if they and their labels fit. This set still closes the file.

        One sample may come without its batch axis, and maps of one channel without that axis, or flat.

        Parameters
        ----------
        shape : tuple of int
            The source model's input, without the batch.
        n_classes : int
            0: the network does not classify, so that labels do not fit.

        Raises
        ------
        InputError
            If they do not fit.
        """
        if self._labels is not None and not n_classes:
            raise InputError(
                "labels are given, but the first output is not read as scores of classes",
                where=self._labels.where,
                got=f"shape {self._labels.shape}",
                expected="no labels",
                hint="leave the labels out; or name a tensor of scores (--scores NAME), with --task classify",
            )
        stored, forms = (
            self._images.shape,
            (*sample_forms(shape), *((shape[:-1],) if len(shape) == 3 and shape[-1] == 1 else ())),
        )
        if stored[1:] not in forms and stored not in forms:
            expected = f"(n, {', '.join(map(str, shape))})"
            raise InputError(
                "the samples do not fit the model",
                where=self._images.where,
                got=f"shape {stored}",
                expected=expected,
                hint=_shape_hint(stored[1:], shape),
            )
        found = CalibrationSet(self.source, self._images, self._labels, self._limit)
        found._owner = self  # it closes the file when it is no longer used
        found._single = stored[1:] not in forms
        found.shape, found.n = shape, self._limited(1 if found._single else stored[0])
        if self._labels is not None and found.labels is not None and (found.labels >= n_classes).any():
            at = int((found.labels >= n_classes).argmax())
            raise InputError(
                "a label is out of range",
                where=f"{self._labels.where}[{at}]",
                got=int(found.labels[at]),
                expected=f"0 to {n_classes - 1}",
                hint="number the classes from 0 on, in the order of the scores",
            )
        return found

    def _limited(self, n: int) -> int:
        n = n if self._limit is None else min(n, self._limit)
        if n > MAX_SAMPLES:
            raise InputError(
                "there are too many samples",
                where=self.source,
                got=n,
                expected=f"at most {MAX_SAMPLES}",
                hint="use the first few thousand (--limit)",
            )
        return n


def open_calibration(source, *, limit: int | None = None) -> CalibrationSet:
    """Calibration inputs from whatever holds them.

    Parameters
    ----------
    source : path, array, or (images, labels)
        A file is .npz or .h5 with ``images`` and, optionally, ``labels``, or .npy. An array may be a
        `numpy.memmap`.
    limit : int, optional
        Use the first `limit` samples.

    Returns
    -------
    CalibrationSet

    Raises
    ------
    InputError
        If there is no such file, or it does not hold samples.
    """
    if isinstance(source, (str, bytes, os.PathLike)):
        with ExitStack() as files:
            images, labels = files.enter_context(open_images(os.fsdecode(source), max_bytes=MAX_FILE_BYTES))
            return CalibrationSet(os.fsdecode(source), images, labels, limit, files.pop_all())
    pair = isinstance(source, tuple)
    if pair and len(source) != 2:
        raise InputError(
            "is not a pair of images and labels", where="calibration", got=f"{len(source)} values"
        )
    images, labels = source if pair else (source, None)
    return CalibrationSet(
        "calibration", _array(images, "images"), None if labels is None else _array(labels, "labels"), limit
    )


def suspicions(
    samples: CalibrationSet, role: str = "calibration", own_scale: bool = False
) -> tuple[str, ...]:
    """Warnings about samples that seem to be wrong; one line each.

    The first `LOOKED_AT` samples are checked, as far as `BATCH_BYTES` holds them.

    Parameters
    ----------
    samples : CalibrationSet
    role : str
        What they are for, for the messages.
    own_scale : bool
        Whether it is known that the model reads samples of this scale.

    Returns
    -------
    tuple of str
    """
    n = max(1, min(samples.n, LOOKED_AT, BATCH_BYTES // (4 * max(1, math.prod(samples.shape)))))
    rows = samples.read(0, n).reshape(n, -1)
    least, most = float(rows.min()), float(rows.max())
    found = []
    if samples.n < FEW and role == "calibration":
        found.append(
            f"there {'is' if samples.n == 1 else 'are'} only {samples.n} calibration"
            f" sample{'s' * (samples.n != 1)}; thresholds come from them, give a few hundred"
        )
    largest = max(-least, most)
    whole = largest < _WHOLE and np.array_equal(rows, np.round(rows))
    if not own_scale and whole and largest >= 64 and ((least >= 0 and most <= 255) or largest > 1000):
        like = "pixels" if most <= 255 else "readings of a converter"
        found.append(
            f"the {role} samples are whole numbers from {least:g} to {most:g}, like {like} before scaling;"
            " give them as the model reads them"
        )
    elif not own_scale and largest > LARGE:
        found.append(
            f"the {role} samples run from {least:g} to {most:g}, which few models read; give them in the"
            " model's own scale"
        )
    constant = int((rows == rows[:, :1]).all(axis=1).sum()) if rows.shape[1] > 1 else 0
    if constant:
        found.append(f"{constant} of the first {n} {role} samples are the same value throughout")
    copies = n - len({row.tobytes() for row in rows})
    if 2 * copies > n > 1:
        found.append(f"{copies} of the first {n} {role} samples are copies of others")
    return tuple(found)


def _array(values, name: str) -> UnreadArray:
    """`values` as an array that is in memory already."""
    try:
        array = np.asanyarray(values)
    except ValueError as error:
        raise InputError(
            "are not an array",
            where=f"calibration: {name}",
            got=type(values).__name__,
            hint="all samples have one shape",
        ) from error
    return in_memory(array, f"calibration: {name}")


def _shape_hint(got: tuple[int, ...], expected: tuple[int, ...]) -> str | None:
    """What to do about samples of another shape than the model's."""
    if sorted(got) == sorted(expected):
        axes = next(axes for axes in permutations(range(len(got))) if tuple(got[i] for i in axes) == expected)
        return f"the axes are in another order: images.transpose(0, {', '.join(str(1 + i) for i in axes)})"
    if math.prod(got) == math.prod(expected):
        return f"reshape them: images.reshape(-1, {', '.join(map(str, expected))})"
    channels = [
        size for size, rest in ((expected[0], expected[1:]), (expected[-1], expected[:-1])) if rest == got
    ]
    if len(expected) == 3 and channels and min(channels) <= _COLOURS:
        return "the channel axis is missing: the model reads colours"
    return None
