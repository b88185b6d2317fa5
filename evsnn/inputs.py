"""What a network is run on: a file of images, the samples stored with the network, or noise.

Values are taken as they are: no scaling, no shuffling, no layout change. Images of integers (uint8
included) are the same numbers in float32, so a model made for 0 to 1 needs them divided by 255
before; `range_warning` says when that seems to have been forgotten.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from .arrayfile import BLOCK_BYTES, UnreadArray, open_file, read_npy, read_npz
from .console import printable
from .encoding import sample_forms
from .errors import InputError, WeightsError
from .network import Network, Samples

__all__ = ["MAX_INPUT_BYTES", "Inputs", "open_inputs", "range_of", "range_warning"]

MAX_INPUT_BYTES = 2 << 30
N_NOISE = 16
NOISE_RATE = 0.1


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs that have been looked at and not yet been read.

    Parameters
    ----------
    source : str
        "samples", "noise", or the file's name.
    n_samples : int
    n_steps : int, optional
        Steps of recorded spike trains.
    n_bytes : int
        Memory that `read` takes at most.
    read : callable
        Gives the images, (n_samples, *input_shape) float32, or (n_samples, n_steps, *input_shape) bool
        where the network reads events, and the labels.
    """

    source: str
    n_samples: int
    n_steps: int | None
    n_bytes: int
    read: Callable[[], Samples]

    def require_steps(self, n_steps: int) -> None:
        """Refuse a run that is longer than its recordings.

        Raises
        ------
        InputError
        """
        if self.n_steps is not None and n_steps > self.n_steps:
            raise InputError("recordings are shorter than the run", where=self.source, got=f"{self.n_steps} steps", expected=f"at least {n_steps}", hint="lower --steps")

    def cut(self, images: np.ndarray, n_steps: int) -> np.ndarray:
        """Images for a run of `n_steps`: recorded spike trains lose their later steps."""
        return images if self.n_steps is None else images[:, :n_steps]


@contextmanager
def open_inputs(network: Network, path: str | os.PathLike | None = None, *, limit: int | None = None, seed: int = 0, n_steps: int | None = None) -> Iterator[Inputs]:
    """Find the inputs of a run and check what can be checked without reading them; a context.

    Parameters
    ----------
    network : Network
    path : path, optional
        A .npz file (`images`, optional `labels`), a .npy file (images) or a .h5 file (as .npz). One sample
        may come without its batch dimension. None: the network's samples, else noise.
    limit : int, optional
        Use the first `limit` samples; the rest of a file is not read.
    seed : int
        Of the noise.
    n_steps : int, optional
        Steps of noise for a network that reads events; None: the network's.

    Raises
    ------
    InputError
        If there is no such file, or what is in it does not fit the network.
    """
    if path is not None:
        with open_file(path) as file:
            yield _from_file(network, file, os.fspath(path), limit)
    elif network.samples is not None:
        yield _from_samples(network, network.samples, limit)
    else:
        yield _noise(network, min(limit or N_NOISE, N_NOISE), seed, n_steps or network.n_steps)


def range_of(images: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value, widened to be a range where they are one."""
    least, most = float(images.min()), float(images.max())
    return (least, most) if least < most else (min(least, 0.0), max(most, 1.0))


def range_warning(network: Network, images: np.ndarray) -> str | None:
    """One line if the images' values look like another scale than the network's, else None."""
    if network.input_range is None or network.input.encoding != "constant" or not images.size:
        return None
    low, high = network.input_range
    least, most = float(images.min()), float(images.max())
    slack = 0.05 * (high - low)
    largest, usual = max(abs(least), abs(most)), max(abs(low), abs(high))
    if low - slack <= least and most <= high + slack and not 0 < largest < usual / 50:
        return None
    return f"inputs run from {least:g} to {most:g}, the model was made for {low:g} to {high:g}; values are taken as they are, scale them if they should be"


def _from_file(network: Network, file: BinaryIO, path: str, limit: int | None) -> Inputs:
    """Whatever a file's first bytes say it is, whatever its name."""
    start = file.read(8)
    file.seek(0)
    labels = None
    if start[:6] == b"\x93NUMPY":
        images = read_npy(file, path)
    elif start[:2] == b"PK" or start == b"\x89HDF\r\n\x1a\n":
        get, names = (read_npz if start[:2] == b"PK" else _read_h5)(file, path)
        if "images" not in names:
            found = printable(", ".join(sorted(names)[:8]))[:200] or None
            raise InputError("there is no array named 'images'", where=path, got=found, hint="write it with numpy.savez(F, images=..., labels=...)")
        images = get("images")
        labels = get("labels") if "labels" in names else None
    else:
        raise InputError("is not a file of images", where=path, got=f"it starts with {start!r}", expected=".npz, .npy or .h5")
    return _checked(network, path, images, labels, limit)


def _from_samples(network: Network, samples: Samples, limit: int | None) -> Inputs:
    labels = None if samples.labels is None else _in_memory(np.asarray(samples.labels), "samples:/labels")
    return _checked(network, "samples", _in_memory(np.asarray(samples.images), "samples:/images"), labels, limit)


def _noise(network: Network, n: int, seed: int, n_steps: int) -> Inputs:
    """Uniform values in the input's range, or spikes at `NOISE_RATE`."""
    events = network.input.encoding == "events"
    shape = (n, n_steps, *network.input_shape) if events else (n, *network.input_shape)

    def read() -> Samples:
        random = np.random.default_rng(seed)
        if events:
            return Samples(np.stack([random.random(shape[1:], np.float32) < NOISE_RATE for _ in range(n)]))
        low, high = (0, 1) if network.input_range is None or network.input.encoding == "poisson" else network.input_range
        images = random.random(shape, np.float32)
        images *= np.float32(high - low)
        images += np.float32(low)
        return Samples(images)

    n_bytes = math.prod(shape) * (1 if events else 4)
    return Inputs("noise", n, n_steps if events else None, _bounded(n_bytes, "noise"), read)


def _checked(network: Network, source: str, images: UnreadArray, labels: UnreadArray | None, limit: int | None) -> Inputs:
    """Inputs from stored arrays, once their shapes and types fit the network."""
    events = network.input.encoding == "events"
    rank = len(network.input_shape) + events
    single = len(images.shape) == rank
    shape = (1, *images.shape) if single else images.shape
    if not events:
        forms = sample_forms(network)
        if images.shape in forms or images.shape[1:] in forms:
            single = images.shape in forms
            shape = (1 if single else images.shape[0], *network.input_shape)
    if len(shape) != rank + 1 or shape[1 + events :] != network.input_shape:
        expected = ("n", "n_steps", *network.input_shape) if events else ("n", *network.input_shape)
        hint = "put channels first" if sorted(shape[1 + events :]) == sorted(network.input_shape) else None
        raise InputError("images do not fit the network", where=images.where, got=f"shape {images.shape}", expected=f"({', '.join(map(str, expected))})", hint=hint)
    if math.prod(shape) == 0:
        raise InputError("there are no images", where=images.where, got=f"shape {images.shape}")
    if images.dtype.kind == "b" and not events:
        raise InputError("images are boolean", where=images.where, expected="floats or integers", hint="only a network that reads events takes boolean images")
    if labels is not None:
        if labels.shape != ((1,) if single and labels.shape else () if single else shape[:1]):
            raise InputError("labels do not fit the images", where=labels.where, got=f"shape {labels.shape}", expected=f"({shape[0]},), one an image")
        if labels.dtype.kind not in "iu":
            raise InputError("labels are not integers", where=labels.where, got=labels.dtype.name, expected=f"class indices from 0 to {network.n_classes - 1}")
    n = shape[0] if limit is None else min(limit, shape[0])
    n_bytes = n * (math.prod(shape[1:]) * (1 if events else 4) + (8 if labels else 0)) + images.overhead_bytes

    def read() -> Samples:
        return Samples(_read_images(network, images, (n, *shape[1:])), None if labels is None else _read_labels(network, labels, n))

    return Inputs(source, n, shape[1] if events else None, _bounded(n_bytes, images.where), read)


def _bounded(n_bytes: int, where: str) -> int:
    if n_bytes > MAX_INPUT_BYTES:
        hint = "use --limit, or split the file"
        raise InputError("there are too many images to hold at once", where=where, got=f"{n_bytes} bytes", expected=f"at most {MAX_INPUT_BYTES}", hint=hint)
    return n_bytes


def _read_images(network: Network, stored: UnreadArray, shape: tuple[int, ...]) -> np.ndarray:
    """The first images as float32, or bool where the network reads events; every value is looked at."""
    encoding = network.input.encoding
    images = np.empty(shape, bool if encoding == "events" else np.float32)
    at = 0
    for block in stored.blocks(shape[0], shape[1:]):
        rows = images[at : at + len(block)]
        if encoding == "events" and not ((block == 0) | (block == 1)).all():
            raise InputError("images are no spike trains", where=stored.where, got=f"values from {block.min()} to {block.max()}", expected="0 and 1")
        with np.errstate(over="ignore", invalid="ignore"):
            rows[...] = block
        if encoding != "events":
            least, most = float(rows.min()), float(rows.max())
            if not (math.isfinite(least) and math.isfinite(most)):
                bad = at + int(np.argmin(np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)))
                raise InputError("images hold NaN or infinity", where=f"{stored.where}[{bad}]", expected="finite float32 values")
            if encoding == "poisson" and not 0 <= least <= most <= 1:
                raise InputError("images are no firing probabilities", where=stored.where, got=f"values from {least:g} to {most:g}", expected="0 to 1")
        at += len(block)
    return images


def _read_labels(network: Network, stored: UnreadArray, n: int) -> np.ndarray:
    labels = np.concatenate([np.array(block) for block in stored.blocks(n, ())])
    bad = (labels < 0) | (labels >= network.n_classes)
    if bad.any():
        at = int(bad.argmax())
        raise InputError("a label is out of range", where=f"{stored.where}[{at}]", got=int(labels[at]), expected=f"0 to {network.n_classes - 1}")
    return labels.astype(np.int64)


def _in_memory(array: np.ndarray, where: str) -> UnreadArray:
    def blocks(n: int, row_shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        at_once = max(1, BLOCK_BYTES // max(1, math.prod(row_shape) * array.itemsize))
        for start in range(0, n, at_once):
            yield array.reshape(-1, *row_shape)[start : min(n, start + at_once)]

    return UnreadArray(where, array.shape, array.dtype, blocks)


def _read_h5(_: BinaryIO, path: str) -> tuple[Callable[[str], UnreadArray], list[str]]:
    """A way to look at a dataset of a .h5 file by its name, and the names there are; the gate's rules hold."""
    from . import gate

    def get(name: str) -> UnreadArray:
        dataset = members[name]
        if not isinstance(dataset, gate.Dataset) or dataset.dtype.kind not in "iuf":
            raise InputError("is not a plain array of numbers", where=f"{path}:/{name}", expected="a dataset of floats or integers")

        def blocks(n: int, row_shape: tuple[int, ...]) -> Iterator[np.ndarray]:
            with _as_input_errors(), gate.open_file(path) as file:
                whole = file.tree(only=(name,)).members[name].read()
            yield from _in_memory(whole, dataset.where).blocks(n, row_shape)

        return UnreadArray(dataset.where, dataset.shape, dataset.dtype, blocks, dataset.n_bytes)

    with _as_input_errors(), gate.open_file(path) as file:
        members = file.tree(only=("images", "labels")).members
    return get, list(members)


@contextmanager
def _as_input_errors() -> Iterator[None]:
    """The gate's refusals, in terms of inputs."""
    try:
        yield
    except WeightsError as error:
        raise InputError(error.what, where=error.where, got=error.got, expected=error.expected, hint="write it as .npz, or keep to h5py's defaults and plain numbers") from error
