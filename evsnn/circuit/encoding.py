"""From images to the input of a circuit: currents as they are, or spike trains."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..network.network import Network
from .populations import as_map

__all__ = ["check_images", "encode", "poisson", "sample_forms"]

_DRAWN = 1 << 18  # numbers that are drawn or looked at at once


def sample_forms(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The shapes that one image may have: `shape`; a map of one channel also without it, or flat.

    A map of height 1 is a signal: (channels, length) will do.
    """
    if len(shape) != 3:
        return (shape,)
    if shape[0] == 1:
        return shape, shape[1:], (shape[1] * shape[2],)
    return (shape, (shape[0], shape[2])) if shape[1] == 1 else (shape,)


def check_images(network: Network, images: np.ndarray, n_steps: int) -> np.ndarray:
    """Images as a C-ordered array of the network's input, once they are checked.

    Parameters
    ----------
    network : Network
    images : (n, *input_shape) real, or one image without the batch axis
        If the network reads events, (n, n_steps, *input_shape) of 0 and 1.
    n_steps : int
        Steps of the events.

    Returns
    -------
    (n, *input_shape) float32
        If the network reads events, (n, n_steps, *input_shape) bool.

    Raises
    ------
    InputError
        If type or shape are wrong, or a value is NaN, infinite, a probability outside [0, 1], or an event
        that is neither 0 nor 1.
    """
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise InputError(
            "images are not an array",
            where="images",
            got=type(images).__name__,
            hint="all images have one shape",
        ) from error
    if array.dtype.kind not in "fiub":
        raise InputError(
            "images are not numbers",
            where="images",
            got=f"dtype {array.dtype}",
            expected="a real or integer array",
        )
    encoding = network.input.encoding
    shape = network.input_shape if encoding != "events" else (n_steps, *network.input_shape)
    if encoding != "events":
        forms, source = sample_forms(network.input_shape), network.input.source_shape
        if array.shape in forms:
            array = array.reshape(1, *shape)
        elif array.ndim and array.shape[1:] in forms and array.size:
            array = array.reshape(-1, *shape)
        elif source is not None and (array.shape == source or array.shape[1:] == source):
            array = network.input.arranged(array.reshape(-1, *source))
    elif array.shape == shape:
        array = array[None]
    if array.shape[1:] != shape:
        raise InputError(
            "images have the wrong shape",
            where="images",
            got=array.shape,
            expected=f"(n, {', '.join(map(str, shape))})",
        )
    if array.shape[0] == 0:
        raise InputError("there are no images", where="images", got=array.shape)
    if encoding == "events":
        if array.dtype != bool and not _are_events(array):
            raise InputError("events are not 0 and 1", where="images", got=f"{array.min()} to {array.max()}")
        if array.itemsize == 1:  # 0 and 1 are the bytes of bool: no copy
            return np.ascontiguousarray(array).view(bool)
        return np.ascontiguousarray(array, bool)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    low, high = array.min(), array.max()  # both are NaN if a value is NaN
    if not np.isfinite([low, high]).all():
        worst = next(i for i, image in enumerate(array) if not np.isfinite(image).all())
        raise InputError(
            "images hold NaN or infinity", where=f"image {worst}", expected="finite float32 values"
        )
    if encoding == "constant" and max(-low, high) > network.largest_input:
        raise InputError(
            "images are too large: sums of the network could leave float32's range",
            where="images",
            got=f"{low} to {high}",
            expected=f"magnitudes up to {network.largest_input:.3g}",
            hint="scale the images",
        )
    if encoding == "poisson" and (low < 0 or high > 1):
        raise InputError(
            "probabilities are out of range",
            where="images",
            got=f"{low} to {high}",
            expected="0 to 1",
            hint="scale the images",
        )
    return array


def _are_events(array: np.ndarray) -> bool:
    """Whether all numbers are 0 or 1; they are looked at a block at a time."""
    flat = array.reshape(-1)
    blocks = (flat[i : i + _DRAWN] for i in range(0, flat.size, _DRAWN))
    return all(((block == 0) | (block == 1)).all() for block in blocks)


def encode(network: Network, image: np.ndarray, n_steps: int, seed: int, index: int) -> np.ndarray:
    """One checked image in the form that simulators take.

    Parameters
    ----------
    network : Network
    image : array
        One of `check_images`.
    n_steps : int
        Steps of Poisson spikes.
    seed, index : int
        The Poisson spikes of a sample come from a generator of its own, which is seeded by both. So they are
        the same for every batch, thread and back end.

    Returns
    -------
    (channels, height, width) float32, or (n_steps, channels, height, width) bool
        A constant current, or spikes.
    """
    shape = as_map(network.input_shape)
    encoding = network.input.encoding
    if encoding == "constant":
        return image.reshape(shape)
    if encoding == "events":
        return image.reshape(n_steps, *shape)
    return poisson(np.random.default_rng((seed, index)), image.reshape(shape), n_steps)


def poisson(generator: np.random.Generator, rates: np.ndarray, n_steps: int) -> np.ndarray:
    """Spikes of independent neurons, (n_steps, *rates.shape) bool.

    Random numbers are drawn in blocks of steps, which gives what one draw gives, in less memory.

    Parameters
    ----------
    generator : numpy.random.Generator
    rates : array of float32
        The probability of a spike in a step.
    n_steps : int
    """
    spikes = np.empty((n_steps, *rates.shape), bool)
    at_once = max(1, _DRAWN // max(1, rates.size))
    for first in range(0, n_steps, at_once):
        block = spikes[first : first + at_once]
        np.less(generator.random(block.shape, dtype=np.float32), rates, out=block)
    return spikes
