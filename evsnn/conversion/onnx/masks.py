"""ReLUs that are written with a mask: x * (x > 0), Where(x > 0, x, 0), and what exporters make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import ModelError

__all__ = ["COMPARISONS", "Mask", "masked"]

COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_KEPT = ("Cast", "Identity", "Not")


@dataclass(frozen=True)
class Mask:
    """Where a tensor is above 0.

    Parameters
    ----------
    tensor : str
    above : bool
        False: where it is below. It does not matter what the mask is where the tensor is 0.
    """

    tensor: str
    above: bool


def masked(op: str, given: Sequence[Mask | str | np.ndarray]) -> Mask | str:
    """What an operator makes of tensors, masks and constants.

    Parameters
    ----------
    op : str
        A comparison, or an operator that reads a mask.
    given : sequence of Mask, str or array
        Its inputs; a str is the name of a tensor.

    Returns
    -------
    Mask, or the name of the tensor of which it is the ReLU

    Raises
    ------
    ModelError
        If it is neither.
    """
    if op in COMPARISONS and len(given) == 2:
        first, second = given
        greater = op.startswith("Greater")
        if isinstance(first, str) and isinstance(second, np.ndarray) and not second.any():
            return Mask(first, greater)
        if isinstance(second, str) and isinstance(first, np.ndarray) and not first.any():
            return Mask(second, not greater)
    masks = [mask for mask in given if isinstance(mask, Mask)]
    if op in _KEPT and len(given) == len(masks) == 1:
        return replace(masks[0], above=not masks[0].above) if op == "Not" else masks[0]
    if len(masks) == 1:
        (mask,) = masks
        others = [other for other in given if other is not mask]
        if op == "Mul" and others == [mask.tensor] and mask.above:
            return mask.tensor
        if op == "Where" and given[0] is mask and len(others) == 2:
            here, there = others if mask.above else others[::-1]
            if here == mask.tensor and isinstance(there, np.ndarray) and not there.any():
                return mask.tensor
    raise ModelError(
        "compares tensors in a way that is no ReLU",
        expected="x * (x > 0), or Where(x > 0, x, 0)",
        hint="use Relu; gates and choices that depend on the input are not converted",
    )
