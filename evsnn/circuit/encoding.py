"""From images to what a circuit is fed: currents as they are, or spike trains."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..network.network import Network
from .populations import as_map

__all__ = ["check_images", "encode", "sample_forms"]


def sample_forms(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Shapes in which one image of `shape` may come: for maps of one channel also without the channel, and
    flat.
    """
    if len(shape) != 3 or shape[0] != 1:
        return (shape,)
    return shape, shape[1:], (shape[1] * shape[2],)


def check_images(network: Network, images: np.ndarray, n_steps: int) -> np.ndarray:
    """`images` as a C-ordered array (n, ...) of the network's input, or refused.

    Returns
    -------
    (n, *input_shape) float32, or for networks of events (n, n_steps, *input_shape) bool.

    Raises
    ------
    InputError
        Wrong type, shape, NaN or infinity, probabilities outside [0, 1], events other than 0 and 1.
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
        forms = sample_forms(network.input_shape)
        if array.shape in forms:
            array = array.reshape(1, *shape)
        elif array.ndim and array.shape[1:] in forms and array.size:
            array = array.reshape(-1, *shape)
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
        if array.dtype != bool and not np.isin(array, (0, 1)).all():
            raise InputError("events are not 0 and 1", where="images", got=f"{array.min()} to {array.max()}")
        return np.ascontiguousarray(array, bool)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    low, high = array.min(), array.max()  # NaN comes through both
    if not np.isfinite([low, high]).all():
        worst = next(i for i, image in enumerate(array) if not np.isfinite(image).all())
        raise InputError(
            "images hold NaN or infinity", where=f"image {worst}", expected="finite float32 values"
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


def encode(network: Network, image: np.ndarray, n_steps: int, seed: int, index: int) -> np.ndarray:
    """One checked image as the simulators take it.

    Returns
    -------
    (channels, height, width) float32 for a constant current, else (n_steps, channels, height, width)
    bool. Poisson spikes of sample `index` come from a generator of its own, seeded by (seed, index):
    the same for any batch, thread and backend.
    """
    shape = as_map(network.input_shape)
    encoding = network.input.encoding
    if encoding == "constant":
        return image.reshape(shape)
    if encoding == "events":
        return image.reshape(n_steps, *shape)
    generator = np.random.default_rng((seed, index))
    return generator.random((n_steps, *shape), dtype=np.float32) < image.reshape(shape)
