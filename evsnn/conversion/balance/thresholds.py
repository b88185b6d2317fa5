"""Firing thresholds from activations.

``max``            the largest activation (Deng & Gu 2021, algorithm 1)
``percentile:p``   the value that p % of a layer's (or channel's) activations, zeros too, do not exceed
                   (Rueckauer et al. 2017, section 2.2.2, there 99.9)
``mse``            the value for which T-step rates are nearest to the activations
``error:p``        the same with another power of the error (2 is "mse"): with 3, fewer large activations are
                   clipped, and neurons fire less

A neuron with threshold V and first membrane V/2 that integrates the current a in each of T steps sends
``q(a) = V/T clip(floor(a T / V + 1/2), 0, T)`` (Deng & Gu 2021, eq. 7, with the shift of eq. 15). "mse"
minimises ``sum |q(a) - a|^2`` over the histogram: it balances the clipping error against the quantization
error, and so it belongs to one T.
"""

from __future__ import annotations

import numpy as np

from ...errors import ModelError
from .statistics import BINS, Activations

__all__ = ["GRANULARITIES", "RULES", "parse_rule", "rate", "thresholds"]

RULES = ("max", "percentile", "mse", "error")
GRANULARITIES = ("layer", "channel")

_CANDIDATES = np.linspace(0.08, 1.0, 47)  # shares of the maximum that are tried: 2 % apart
_FLOOR = (
    1e-3  # of the layer's largest maximum: channels that hardly ever fire get no threshold of next to nothing
)


def parse_rule(rule: str) -> tuple[str, float]:
    """A rule's name and its number: the percentile (default: 99.9) or the power (default: 2).

    Raises
    ------
    ModelError
        If the rule is unknown.
    """
    name, colon, number = str(rule).partition(":")
    least, most, default = {"percentile": (0.0, 100.0, 99.9), "error": (0.5, 16.0, 2.0)}.get(
        name, (0.0, 0.0, 2.0)
    )
    try:
        value = float(number) if colon else default
    except ValueError:
        value = -1.0
    if name not in RULES or (colon and not least < value <= most):
        raise ModelError(
            "unknown threshold rule",
            got=repr(rule)[:40],
            expected="max, percentile:p with 0 < p <= 100, mse, or error:p with 0.5 < p <= 16",
        )
    return name, value


def rate(
    activation: np.ndarray, v_threshold: np.ndarray | float, n_steps: int, shift: float = 0.5
) -> np.ndarray:
    """q(a): the mean output of a neuron that integrates `activation` and a shift `n_steps` times.

    Deng & Gu 2021, eq. 7, with the shift of eq. 15.

    Parameters
    ----------
    activation : array
        a, the input current of every step, in units of the ANN's activations.
    v_threshold : float or array
        V, above 0; it broadcasts to `activation`.
    n_steps : int
        T.
    shift : float
        The shift of a run as a share of V: 1/2, or 0 for neurons without it.

    Returns
    -------
    array
        A multiple of V/T, from 0 to V.
    """
    return v_threshold / n_steps * np.clip(np.floor(activation * (n_steps / v_threshold) + shift), 0, n_steps)


def thresholds(
    activations: Activations,
    rule: str,
    n_steps: int,
    granularity: str = "channel",
    limit: np.ndarray | float | None = None,
) -> np.ndarray:
    """Firing thresholds of one layer of neurons.

    Parameters
    ----------
    activations : Activations
    rule : str
        "max", "percentile:p", "mse" or "error:p".
    n_steps : int
        T, for "mse" and "error:p".
    granularity : {"layer", "channel"}
        One threshold for all channels, or one for each.
    limit : float or (channels,), optional
        The upper limit y_th of the ReLU, which no threshold exceeds. If channels have limits of their own,
        they get thresholds of their own.

    Returns
    -------
    () or (channels,) float64
        Above 0; 1 for a layer that is never active.
    """
    name, number = parse_rule(rule)
    if granularity not in GRANULARITIES:
        raise ModelError("unknown granularity", got=repr(granularity), expected=" or ".join(GRANULARITIES))
    largest = activations.maximum.max()
    if largest <= 0:
        return np.ones(()) if granularity == "layer" else np.ones(len(activations.maximum))
    if granularity == "layer":
        activations = _joined(activations)
    if name == "max":
        found = activations.maximum
    elif name == "percentile":
        found = _percentile(activations, number)
    else:
        found = _least_error(activations, n_steps, number)
    found = np.maximum(found, _FLOOR * largest)
    if limit is not None:
        found = np.minimum(found, limit)
    return found[0] if len(found) == 1 and granularity == "layer" else found


def _joined(activations: Activations) -> Activations:
    """All channels as one, with one histogram up to the largest maximum."""
    largest = activations.maximum.max()
    position = np.minimum((activations.centres * (BINS / largest)).astype(np.int64), BINS - 1)
    histogram = np.bincount(position.ravel(), weights=activations.histogram.ravel(), minlength=BINS)
    return Activations(np.array([largest]), histogram[None], activations.count * len(activations.maximum))


def _percentile(activations: Activations, percentile: float) -> np.ndarray:
    """The upper edge of the first part up to which `percentile` % of all activations lie."""
    zeros = activations.count - activations.histogram.sum(axis=1)
    below = zeros[:, None] + np.cumsum(activations.histogram, axis=1)
    part = (below < percentile / 100 * activations.count - 1e-9 * activations.count).sum(axis=1)
    return activations.maximum * (np.minimum(part, BINS - 1) + 1) / BINS


def _least_error(activations: Activations, n_steps: int, power: float) -> np.ndarray:
    """The thresholds of least error; candidates and activations are shares of each channel's maximum."""
    shares = (np.arange(BINS) + 0.5) / BINS
    errors = np.array(
        [np.abs(rate(shares, candidate, n_steps) - shares) ** power for candidate in _CANDIDATES]
    )
    return np.maximum(
        _CANDIDATES[(activations.histogram @ errors.T).argmin(axis=1)] * activations.maximum, 1e-30
    )
