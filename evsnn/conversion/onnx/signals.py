"""1-D networks: an operator that slides over (channels, length) becomes one over (channels, 1, length).

Electrocardiograms, sound and vibrations are signals. Beyond this module and the importer, which puts an
`Unsqueeze` before such an operator and a `Squeeze` behind it, there are only maps. Both compute nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import ModelError

__all__ = ["SLIDING", "on_map"]

SLIDING = ("AveragePool", "Conv", "ConvTranspose", "GlobalMaxPool", "MaxPool", "Pad")
"""Operators that know height and width as such; the others take signals as they are."""

_PER_AXIS = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 0, "output_shape": 1}


def on_map(
    op: str, attributes: Mapping, constants: Sequence[np.ndarray | None]
) -> tuple[dict, dict[int, np.ndarray | None]]:
    """An operator on a signal as one on a map of height 1.

    Parameters
    ----------
    op : str
        One of `SLIDING`, in its newest form.
    attributes : mapping
    constants : sequence of array or None
        Its inputs, as far as they are constants.

    Returns
    -------
    attributes : dict
    constants : dict of int to array or None
        Inputs that change, by position; None makes one absent.

    Raises
    ------
    ModelError
        If an attribute or the weights are not those of a signal.
    """
    changed: dict[int, np.ndarray | None] = {}
    written = dict(attributes)
    for name, above in _PER_AXIS.items():
        if name in written:
            (value,) = _numbers(name, written[name], 1)
            written[name] = (above, value)
    if "pads" in written:
        before, after = _numbers("pads", written["pads"], 2)
        written["pads"] = (0, before, 0, after)
    if op.startswith("Conv") and len(constants) > 1 and constants[1] is not None:
        weight = constants[1]
        if weight.ndim != 3:
            raise ModelError(
                "its weights do not fit its input",
                got=f"weights {weight.shape} on a signal",
                expected="(n_out, n_in / groups, length)",
            )
        changed[1] = weight[:, :, None]
    if op == "Pad":
        changed |= _padded(constants)
    return written, changed


def _padded(constants: Sequence[np.ndarray | None]) -> dict[int, np.ndarray | None]:
    """The pads of (N, channels, length) for (N, channels, 1, length); axes become all axes."""
    pads = constants[1]
    axes = constants[3] if len(constants) > 3 and constants[3] is not None else np.arange(3)
    if pads is None or pads.shape != (2 * axes.size,) or not ((axes >= -3) & (axes < 3)).all():
        got = "one that is not constant" if pads is None else f"{pads.size} numbers for axes {axes.tolist()}"
        raise ModelError("its pads do not fit its axes", got=got, expected="two for each axis of a signal")
    around = np.zeros((2, 4), np.int64)
    around[:, [(0, 1, 3)[axis] for axis in axes.tolist()]] = pads.reshape(2, -1)
    return {1: around.ravel(), **({3: None} if len(constants) > 3 else {})}


def _numbers(name: str, values: object, count: int) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) != count:
        raise ModelError(
            f"{name} does not fit its input",
            got=str(values)[:80],
            expected=f"{count} integer{'s' if count > 1 else ''}, for a signal (channels, length)",
        )
    return values
