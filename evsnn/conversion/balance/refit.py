"""Weights refitted in closed form: each layer learns to live with the counts that it gets.

Layer by layer, in the network's order, the converted network and the ANN compute the same samples. Where the
currents of a layer of neurons differ, the weighted layer before it is changed by ridge regression::

    dW, db = argmin |R - X dW - db|^2 + strength |dW|^2

X is what the converted network sends to the layer, R how far its currents are from the ANN's. Differences
that the ReLU (or its limit) hides on both sides count as 0. The strength is the one with the least error on
rows that were held out; if none makes it smaller, the layer stays. Then the mean of what is sent is brought
to the ANN's, and the next layer follows. No gradients are needed, and no labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...network.layers import IF, Conv2d, Input, Layer, Linear, Readout
from ...network.network import Network
from ..lowering.ann import Ann, computed
from .balance import charging

__all__ = ["Refit", "refit", "refit_bytes", "samples_for"]

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge strengths that are tried, as shares of the mean square of a feature."""
ROWS = 20_000
ROWS_PER_FEATURE = 8
"""Rows (positions of samples) of a regression: `ROWS`, or so many for each feature, if there are."""
HELD_OUT = 0.25
WORTH = 0.995
"""A layer is changed if that makes its held-out error smaller than this share of what it was."""
AT_ONCE = 4_096
MAX_FEATURES = 6_000
"""Most inputs of a neuron: the regression takes as many squared numbers; a wider layer stays as it is."""
MEAN_ROUNDS = 2
MOST_SAMPLES = 512
MAX_BYTES = 1 << 30
"""Most memory for the activations of both networks."""


@dataclass(frozen=True)
class Refit:
    """What became of one layer.

    Parameters
    ----------
    name : str
        The layer of neurons, or the readout, behind the weighted layer.
    strength : float, optional
        None: the layer stayed as it was.
    error_before, error_after : float
        The mean square of the held-out differences of currents.
    """

    name: str
    strength: float | None
    error_before: float
    error_after: float


def samples_for(ann: Ann, n_samples: int) -> int:
    """How many samples `refit` takes: at most `MOST_SAMPLES`, and as many as fit `MAX_BYTES`."""
    return max(1, min(n_samples, MOST_SAMPLES, MAX_BYTES // (3 * ann.sample_bytes)))


def refit_bytes(ann: Ann, n_samples: int) -> int:
    """Bytes that `refit` takes for so many samples: the activations of both networks, and a regression.

    Parameters
    ----------
    ann : Ann
    n_samples : int
        As `samples_for` says.
    """
    most = 0
    for layer in ann.network.layers:
        if isinstance(layer, (Conv2d, Linear)) and layer.weight[0].size <= MAX_FEATURES:
            groups = layer.groups if isinstance(layer, Conv2d) else 1
            features, outputs = layer.weight[0].size + 1, len(layer.weight) // groups
            system = 8 * groups * features * (features + outputs)
            most = max(most, 5 * system + 12 * AT_ONCE * groups * (features + outputs))
    return 3 * n_samples * ann.sample_bytes + most


def refit(
    ann: Ann,
    network: Network,
    n_steps: int,
    samples: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
    seed: int = 0,
) -> tuple[dict[str, Conv2d | Linear], tuple[Refit, ...]]:
    """Refit the weighted layers of a graded network.

    Parameters
    ----------
    ann : Ann
    network : Network
        Balanced for graded spikes of `n_steps` levels, its parameters in its layers.
    n_steps : int
        T.
    samples : (n, *network.input_shape) float32
    progress : callable (done, total), optional
        It is called after each layer.
    seed : int
        Which rows are taken.

    Returns
    -------
    layers : dict of str to Conv2d or Linear
        The weighted layers that are changed, by name.
    refits : tuple of Refit
        One per layer of neurons or readout whose weighted layer reaches nothing else.
    """
    rng = np.random.default_rng(seed)
    source = ann.network.by_name
    changed: dict[str, Conv2d | Linear] = {}
    done: list[Refit] = []
    feeds: dict[str, Conv2d | Linear | None] = {}
    last: dict[str, int] = {}
    for i, layer in enumerate(network.layers):
        if isinstance(layer, (IF, Readout)):
            feeds[layer.name] = feed = None if layer.name in ann.fixed else charging(network, layer.name)
            if feed is not None:
                last[feed.inputs[0]] = i
        last.update({name: max(i, last.get(name, 0)) for name in layer.inputs})
    theirs: dict[str, np.ndarray] = {}  # what the layers of the ANN compute
    ours: dict[str, np.ndarray] = {}
    for i, layer in enumerate(network.layers):
        wanted = [theirs[name] for name in layer.inputs]
        got = [ours[name] for name in layer.inputs]
        if isinstance(layer, Input):
            theirs[layer.name] = ours[layer.name] = np.asarray(samples, np.float32)
        elif isinstance(layer, (IF, Readout)):
            feed, clip = feeds[layer.name], ann.clips.get(layer.name)
            theirs[layer.name] = computed(source[layer.name], wanted, clip)
            current = got[0]
            if feed is not None:
                seen = ours[feed.inputs[0]]
                error = _error(layer, wanted[0], current, clip)
                step, found = _regression(feed, seen, error, rng)
                done.append(dataclasses.replace(found, name=layer.name))
                if step is not None:
                    current = current + computed(step, [seen]).reshape(current.shape)
                    feed = _plus(feed, step.weight, step.bias)
            if isinstance(layer, IF):
                ours[layer.name], offset = _sent(layer, network.shift, n_steps, current, theirs[layer.name])
                if feed is not None:
                    feed = _plus(feed, None, offset)
            else:
                ours[layer.name] = current
            if feed is not None:
                changed[feed.name] = feed
        else:
            theirs[layer.name], ours[layer.name] = computed(source[layer.name], wanted), computed(layer, got)
        for name in [name for name in ours if last.get(name, -1) == i]:
            del ours[name], theirs[name]
        if progress:
            progress(i + 1, len(network.layers))
    return changed, tuple(done)


def _plus(layer: Conv2d | Linear, weight: np.ndarray | None, bias: np.ndarray | None) -> Conv2d | Linear:
    """The layer with something added to its weights and biases."""
    own = np.zeros(len(layer.weight)) if layer.bias is None else layer.bias
    return dataclasses.replace(
        layer,
        weight=layer.weight if weight is None else layer.weight + weight,
        bias=own if bias is None else own + bias,
    )


def _error(layer: Layer, wanted: np.ndarray, got: np.ndarray, clip: np.ndarray | None) -> np.ndarray:
    """How far currents are from the ANN's, 0 where the ReLU or its limit hides it on both sides."""
    error = wanted.reshape(got.shape) - got
    if not isinstance(layer, IF) or layer.paired:
        return error
    wanted = wanted.reshape(got.shape)
    hidden = (wanted <= 0) & (got <= 0)
    if clip is not None:
        limit = np.asarray(clip, np.float32).reshape(-1, *(1,) * (got.ndim - 2))
        hidden |= (wanted >= limit) & (got >= limit)
    return np.where(hidden, np.float32(0), error)


def _sent(
    layer: IF, shift: str, n_steps: int, current: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The values that graded neurons send, and the bias that brings their means to the ANN's."""
    axes, row = (0, *range(2, current.ndim)), (-1, *(1,) * (current.ndim - 2))

    def values(offset: np.ndarray) -> np.ndarray:
        return _values(layer, shift, n_steps, current + offset.reshape(row).astype(np.float32))

    offset = np.zeros(current.shape[1])
    difference = wanted - values(offset)
    step = difference.mean(axis=axes, dtype=np.float64)
    least = np.square(difference).mean(axis=axes, dtype=np.float64)
    for _ in range(MEAN_ROUNDS):
        difference = wanted - values(offset + step)
        squared = np.square(difference).mean(axis=axes, dtype=np.float64)
        better = squared < least
        offset, least = np.where(better, offset + step, offset), np.where(better, squared, least)
        step = np.where(better, difference.mean(axis=axes, dtype=np.float64), step / 2)
    return values(offset), offset


def _values(layer: IF, shift: str, n_steps: int, current: np.ndarray) -> np.ndarray:
    """What graded neurons send for currents (n, channels, ...), in units of the ANN."""
    channels, sides = current.shape[1], 2 if layer.paired else 1
    row = (-1, *(1,) * (current.ndim - 2))
    thresholds, first_membranes = (
        layer.per_neuron(own, channels).reshape(channels, sides).T.astype(np.float32)
        for own in (layer.v_threshold, layer.v_init)
    )
    if layer.shift and shift != "none":
        first_membranes = first_membranes + thresholds / 2
    factors = [np.float32(1)] if layer.negative_slope is None else [np.float32(1), -layer.negative_slope]
    total = np.zeros(current.shape, np.float32)
    for sign, v, first, factor in zip((1, -1), thresholds, first_membranes, factors):
        counts = np.float32(sign * n_steps) * current
        counts += first.reshape(row)
        counts /= v.reshape(row)
        np.clip(np.floor(counts, out=counts), 0, layer.levels or n_steps, out=counts)
        total += counts * (factor * v / np.float32(n_steps)).reshape(row)
    return total


class _Moments:
    """Sums over rows of a regression: of products of features, of features with errors, of squared errors.

    The last feature is 1. Groups of a convolution have sums of their own: (groups, features, features).
    """

    def __init__(self, groups: int, features: int, outputs: int):
        self.n = 0
        self.squares = np.zeros((groups, features + 1, features + 1))
        self.products = np.zeros((groups, features + 1, outputs))
        self.error = 0.0

    def add(self, x: np.ndarray, error: np.ndarray) -> None:
        """x : (groups, rows, features), error : (groups, rows, outputs), both float32."""
        x = np.concatenate([x, np.ones((*x.shape[:2], 1), np.float32)], axis=2)
        turned = x.transpose(0, 2, 1)
        self.squares += turned @ x
        self.products += turned @ error
        self.error += float(np.square(error, dtype=np.float64).sum())
        self.n += x.shape[1]

    def plus(self, other: _Moments) -> _Moments:
        """The sums over the rows of both."""
        both = _Moments.__new__(_Moments)
        both.n, both.error = self.n + other.n, self.error + other.error
        both.squares, both.products = self.squares + other.squares, self.products + other.products
        return both

    def solved(self, strength: float) -> np.ndarray:
        """The ridge regression (groups, features + 1, outputs); the constant is not held back."""
        system = self.squares.copy()
        diagonal = np.einsum("gii->gi", system)
        scale = diagonal[:, :-1].mean(axis=1, keepdims=True)
        diagonal[:, :-1] += strength * np.maximum(scale, 1e-12)
        diagonal[:, -1] += 1e-9 * self.n
        return np.linalg.solve(system, self.products)

    def error_of(self, step: np.ndarray) -> float:
        """The mean square of what is left of the errors."""
        left = self.error - 2 * float((step * self.products).sum())
        left += float((step * (self.squares @ step)).sum())
        return max(0.0, left) / max(1, self.n * self.products.shape[0] * self.products.shape[2])


def _regression(
    layer: Conv2d | Linear, seen: np.ndarray, error: np.ndarray, rng: np.random.Generator
) -> tuple[Conv2d | Linear | None, Refit]:
    """What to add to a layer (as a layer), and what that does to held-out rows."""
    groups = layer.groups if isinstance(layer, Conv2d) else 1
    features = layer.weight[0].size
    if features > MAX_FEATURES:
        return None, Refit("", None, 0.0, 0.0)
    places = int(np.prod(error.shape[2:], dtype=np.int64))
    taken = min(len(error) * places, max(ROWS, ROWS_PER_FEATURE * features))
    first_held_out = len(error) - int(HELD_OUT * len(error))  # whole samples: their rows are alike
    parts = []
    for start, stop in ((0, first_held_out), (first_held_out, len(error))):
        n_rows = (stop - start) * places
        rows = start * places + rng.permutation(n_rows)[: -(-taken * (stop - start) // len(error))]
        moments = _Moments(groups, features, len(layer.weight) // groups)
        for first in range(0, len(rows), AT_ONCE):
            moments.add(*_rows(layer, seen, error, rows[first : first + AT_ONCE]))
        parts.append(moments)
    used, held_out = parts
    none = np.zeros_like(used.products)
    before = held_out.error_of(none)
    tried = [(held_out.error_of(used.solved(strength)), strength) for strength in STRENGTHS]
    least, strength = min(tried)
    if not least < WORTH * before:
        return None, Refit("", None, before, before)
    step = used.plus(held_out).solved(strength)
    return _as_layer(layer, step), Refit("", strength, before, least)


def _rows(
    layer: Conv2d | Linear, seen: np.ndarray, error: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Features (groups, rows, features) and errors (groups, rows, outputs) at some positions of samples."""
    if isinstance(layer, Linear):
        return seen[rows][None], error[rows].reshape(1, len(rows), -1)
    groups, (top, left, *_) = layer.groups, layer.padding
    height, width = error.shape[2:]
    n, y, x = np.unravel_index(rows, (len(error), height, width))
    channels = seen.shape[1]
    ky, kx = layer.weight.shape[2:]
    found = np.zeros((len(rows), ky * kx, channels), np.float32)
    for tap in range(ky * kx):
        at_y = y * layer.stride[0] - top + tap // kx * layer.dilation[0]
        at_x = x * layer.stride[1] - left + tap % kx * layer.dilation[1]
        inside = (at_y >= 0) & (at_y < seen.shape[2]) & (at_x >= 0) & (at_x < seen.shape[3])
        found[inside, tap] = seen[n[inside], :, at_y[inside], at_x[inside]]
    features = found.reshape(len(rows), ky * kx, groups, -1).transpose(2, 0, 3, 1)
    errors = error[n, :, y, x].reshape(len(rows), groups, -1).transpose(1, 0, 2)
    return features.reshape(groups, len(rows), -1), np.ascontiguousarray(errors)


def _as_layer(layer: Conv2d | Linear, step: np.ndarray) -> Conv2d | Linear:
    """A solution (groups, features + 1, outputs) as a layer like the given one."""
    weight = step[:, :-1].transpose(0, 2, 1).reshape(layer.weight.shape)
    return dataclasses.replace(layer, weight=weight, bias=step[:, -1].reshape(-1))
