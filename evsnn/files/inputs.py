"""What a network is run on: a file of images, the samples that are stored with the network, or noise.

Values are taken as they are: they are not scaled, shuffled or rearranged. Images of integers (uint8 included)
are the same numbers in float32. So a model that was made for 0 to 1 needs them divided by 255 before;
`range_warning` warns if that seems to be forgotten.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..circuit.encoding import poisson, sample_forms
from ..errors import InputError
from ..network.network import Network, Samples
from .arrayfile import UnreadArray
from .imagefile import check_labels, check_numbers, in_memory, open_images, read_floats, read_labels

__all__ = ["MAX_INPUT_BYTES", "Inputs", "open_inputs", "range_of", "range_warning"]

MAX_INPUT_BYTES = 2 << 30
N_NOISE = 16
NOISE_RATE = 0.1


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs that are checked, but not yet read.

    Parameters
    ----------
    source : str
        "samples", "noise", or the file's name.
    n_samples : int
    n_steps : int, optional
        Steps of recorded spike trains.
    n_bytes : int
        The most memory that `read` takes.
    read : callable
        It returns the images, (n_samples, *input_shape) float32, or (n_samples, n_steps, *input_shape) bool
        if the network reads events, and the labels.
    """

    source: str
    n_samples: int
    n_steps: int | None
    n_bytes: int
    read: Callable[[], Samples]

    def require_steps(self, n_steps: int) -> None:
        """Refuse a run that is longer than the recorded spike trains.

        Raises
        ------
        InputError
            If `n_steps` is above the steps of the recordings.
        """
        if self.n_steps is not None and n_steps > self.n_steps:
            raise InputError(
                "recordings are shorter than the run",
                where=self.source,
                got=f"{self.n_steps} steps",
                expected=f"at least {n_steps}",
                hint="lower --steps",
            )

    def cut(self, images: np.ndarray, n_steps: int) -> np.ndarray:
        """Images for a run of `n_steps`: recorded spike trains lose their later steps."""
        return images if self.n_steps is None else images[:, :n_steps]


@contextmanager
def open_inputs(
    network: Network,
    path: str | os.PathLike | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    n_steps: int | None = None,
) -> Iterator[Inputs]:
    """Find the inputs of a run, and check what can be checked before they are read; a context manager.

    Parameters
    ----------
    network : Network
    path : path, optional
        A .npz file (`images`, optional `labels`), a .npy file (images) or a .h5 file (as .npz). One sample
        may come without its batch dimension. None: the network's samples, else noise.
    limit : int, optional
        Use the first `limit` samples; the rest of a file is not read.
    seed : int
        The seed of the noise.
    n_steps : int, optional
        Steps of noise for a network that reads events; None: the network's.

    Raises
    ------
    InputError
        If there is no such file, or what is in it does not fit the network.
    """
    if path is not None:
        with open_images(path) as (images, labels):
            yield _checked(network, os.fspath(path), images, labels, limit)
    elif network.samples is not None:
        yield _from_samples(network, network.samples, limit)
    else:
        yield _noise(network, min(limit or N_NOISE, N_NOISE), seed, n_steps or network.n_steps)


def range_of(images: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value; if they are equal, the range is widened."""
    least, most = float(images.min()), float(images.max())
    return (least, most) if least < most else (min(least, 0.0), max(most, 1.0))


def range_warning(network: Network, images: np.ndarray) -> str | None:
    """A warning if the images seem to have another scale than the network's input, else None.

    Parameters
    ----------
    network : Network
    images : (n, ...) array

    Returns
    -------
    str or None
        One line.
    """
    if network.input_range is None or network.input.encoding != "constant" or not images.size:
        return None
    low, high = network.input_range
    least, most = float(images.min()), float(images.max())
    slack = 0.05 * (high - low)
    largest, usual = max(abs(least), abs(most)), max(abs(low), abs(high))
    if low - slack <= least and most <= high + slack and not 0 < largest < usual / 50:
        return None
    return (
        f"inputs run from {least:g} to {most:g}, the model was made for {low:g} to {high:g}; values are taken"
        " as they are, scale them if they should be"
    )


def _from_samples(network: Network, samples: Samples, limit: int | None) -> Inputs:
    labels = None if samples.labels is None else in_memory(np.asarray(samples.labels), "samples:/labels")
    return _checked(
        network, "samples", in_memory(np.asarray(samples.images), "samples:/images"), labels, limit
    )


def _noise(network: Network, n: int, seed: int, n_steps: int) -> Inputs:
    """Uniform values in the input's range, or spikes at `NOISE_RATE`."""
    events = network.input.encoding == "events"
    shape = (n, n_steps, *network.input_shape) if events else (n, *network.input_shape)

    def read() -> Samples:
        random = np.random.default_rng(seed)
        if events:
            images = np.empty(shape, bool)
            rates = np.full(network.input_shape, NOISE_RATE, np.float32)
            for image in images:
                image[...] = poisson(random, rates, n_steps)
            return Samples(images)
        low, high = (
            (0, 1)
            if network.input_range is None or network.input.encoding == "poisson"
            else network.input_range
        )
        images = random.random(shape, np.float32)
        images *= np.float32(high - low)
        images += np.float32(low)
        return Samples(images)

    n_bytes = math.prod(shape) * (1 if events else 4)
    return Inputs("noise", n, n_steps if events else None, _bounded(n_bytes, "noise"), read)


def _checked(
    network: Network, source: str, images: UnreadArray, labels: UnreadArray | None, limit: int | None
) -> Inputs:
    """Inputs from stored arrays, once their shapes and types fit the network."""
    events = network.input.encoding == "events"
    rank = len(network.input_shape) + events
    single = len(images.shape) == rank
    shape = (1, *images.shape) if single else images.shape
    source_shape = None
    if not events:
        forms = sample_forms(network.input_shape)
        if images.shape not in forms and images.shape[1:] not in forms and network.input.source_shape:
            source_shape = network.input.source_shape
            forms = (source_shape,)
        if images.shape in forms or images.shape[1:] in forms:
            single = images.shape in forms
            shape = (1 if single else images.shape[0], *network.input_shape)
    if len(shape) != rank + 1 or shape[1 + events :] != network.input_shape:
        expected = ("n", "n_steps", *network.input_shape) if events else ("n", *network.input_shape)
        hint = "put channels first" if sorted(shape[1 + events :]) == sorted(network.input_shape) else None
        raise InputError(
            "images do not fit the network",
            where=images.where,
            got=f"shape {images.shape}",
            expected=f"({', '.join(map(str, expected))})",
            hint=hint,
        )
    if math.prod(shape) == 0:
        raise InputError("there are no images", where=images.where, got=f"shape {images.shape}")
    if not events:
        check_numbers(images)
    if network.task != "classify":
        labels = None  # a file may serve other networks, too
    if labels is not None:
        check_labels(labels, shape[0], single)
    n = shape[0] if limit is None else min(limit, shape[0])
    n_bytes = n * (math.prod(shape[1:]) * (1 if events else 4) + (8 if labels else 0)) + images.overhead_bytes

    def read() -> Samples:
        return Samples(
            _read_images(network, images, (n, *shape[1:]), source_shape),
            None if labels is None else read_labels(labels, n, network.n_classes),
        )

    return Inputs(source, n, shape[1] if events else None, _bounded(n_bytes, images.where), read)


def _bounded(n_bytes: int, where: str) -> int:
    if n_bytes > MAX_INPUT_BYTES:
        hint = "use --limit, or split the file"
        raise InputError(
            "there are too many images to hold at once",
            where=where,
            got=f"{n_bytes} bytes",
            expected=f"at most {MAX_INPUT_BYTES}",
            hint=hint,
        )
    return n_bytes


def _read_images(
    network: Network, stored: UnreadArray, shape: tuple[int, ...], source_shape: tuple[int, ...] | None
) -> np.ndarray:
    """The first images as float32, or bool if the network reads events; every value is checked.

    They are stored in the network's own shape, or in that of the trained model.
    """
    if network.input.encoding == "events":
        images, at = np.empty(shape, bool), 0
        for block in stored.blocks(shape[0], shape[1:]):
            if not ((block == 0) | (block == 1)).all():
                raise InputError(
                    "images are not spike trains",
                    where=stored.where,
                    got=f"values from {block.min()} to {block.max()}",
                    expected="0 and 1",
                )
            images[at : at + len(block)] = block
            at += len(block)
        return images
    images = read_floats(stored, shape[0], shape[1:] if source_shape is None else source_shape)
    if source_shape is not None:
        images = np.ascontiguousarray(network.input.arranged(images))
    least, most = float(images.min()), float(images.max())
    if network.input.encoding == "poisson" and not 0 <= least <= most <= 1:
        raise InputError(
            "images are not firing probabilities",
            where=stored.where,
            got=f"values from {least:g} to {most:g}",
            expected="0 to 1",
        )
    return images
