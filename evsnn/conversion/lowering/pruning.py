"""Channels that are constant whatever the input leave the network.

Their values go into the biases behind them. A channel of ReLUs is constant if the weights before it are 0, or
so small beside its bias that no activation below 10^12 changes a float32 sum. Batch norms whose scale has
decayed in training leave many of them. Most are never above 0. A constant above 0 behind which a convolution
pads with zeros stays, because there it is no longer constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ...network.layers import IF, Add, AvgPool2d, Concat, Conv2d, Flatten, Layer, Linear, MaxPool2d, Readout
from ...network.network import Network
from .ann import Ann

__all__ = ["without_constants"]

NEGLIGIBLE = 1e-20
"""The sum of the magnitudes of a channel's weights over that of its bias, up to which they count as 0."""


def without_constants(ann: Ann) -> Ann:
    """The same ANN without channels that are constant.

    Parameters
    ----------
    ann : Ann

    Returns
    -------
    Ann
        The same one if there are none, else with a note.
    """
    found = _Constants(ann)
    gone = found.removable()
    if not any(mask.any() for mask in gone.values()):
        return ann
    network = found.without(gone)

    def kept(values: np.ndarray, name: str) -> np.ndarray:
        return values[~gone[name]] if name in gone and np.ndim(values) == 1 else values

    n_gone, n_all = (sum(int(f(mask)) for mask in gone.values()) for f in (np.count_nonzero, len))
    note = (
        f"{n_gone} of {n_all} channels of neurons are left out: they have one value whatever the input, which"
        " is in the biases behind them"
    )
    return dataclasses.replace(
        ann,
        network=network,
        clips={name: kept(np.asarray(clip), name) for name, clip in ann.clips.items()},
        moments={name: (kept(m, name), kept(d, name)) for name, (m, d) in ann.moments.items()},
        notes=(*ann.notes, note),
    )


class _Constants:
    """What is constant in an ANN, and where it is read.

    Attributes
    ----------
    values : dict of str to (channels,) float64
        By layer: the value of each channel (of a vector, each element), NaN if it is not constant.
    sources : dict of str to (names, channels)
        By layer that carries activations: the `IF` that each channel comes from (its number, -1: none), and
        the channel there.
    """

    def __init__(self, ann: Ann):
        self.ann, self.network = ann, ann.network
        self.readers: dict[str, list[Layer]] = {layer.name: [] for layer in self.network.layers}
        for layer in self.network.layers:
            for name in layer.inputs:
                self.readers[name].append(layer)
        self.neurons = [layer for layer in self.network.layers if isinstance(layer, IF)]
        self.values: dict[str, np.ndarray] = {}
        self.sources: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for layer in self.network.layers:
            self.values[layer.name] = self._value(layer)
            self.sources[layer.name] = self._source(layer)

    def _value(self, layer: Layer) -> np.ndarray:
        shape = self.network.shapes[layer.name]
        inputs = [self.values[name] for name in layer.inputs]
        if isinstance(layer, (Conv2d, Linear)):
            return _current(layer, inputs[0])
        if isinstance(layer, IF) and layer.name not in self.ann.fixed:
            clip = self.ann.clips.get(layer.name)
            if layer.negative_slope is not None:
                return np.where(inputs[0] > 0, inputs[0], inputs[0] * layer.negative_slope)
            return np.clip(inputs[0], 0, None if clip is None else np.asarray(clip, np.float64))
        if isinstance(layer, AvgPool2d):
            padded = any(layer.window(self.network.shapes[layer.inputs[0]]).padding)
            return np.where(inputs[0] == 0, 0.0, np.nan) if padded else inputs[0]
        if isinstance(layer, MaxPool2d):
            return inputs[0]
        if isinstance(layer, Flatten):
            return np.repeat(inputs[0], shape[0] // len(inputs[0]))
        if isinstance(layer, Concat):
            return np.concatenate(inputs)
        return np.full(shape[0], np.nan)

    def _source(self, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
        channels = self.network.shapes[layer.name][0]
        inputs = [self.sources[name] for name in layer.inputs]
        if isinstance(layer, IF):
            return np.full(channels, self.neurons.index(layer)), np.arange(channels)
        if isinstance(layer, (AvgPool2d, MaxPool2d)):
            return inputs[0]
        if isinstance(layer, Flatten):
            times = channels // len(inputs[0][0])
            return np.repeat(inputs[0][0], times), np.repeat(inputs[0][1], times)
        if isinstance(layer, Concat):
            return np.concatenate([i for i, _ in inputs]), np.concatenate([c for _, c in inputs])
        return np.full(channels, -1), np.zeros(channels, int)

    def removable(self) -> dict[str, np.ndarray]:
        """The channels of each `IF` that can leave, (channels,) bool."""
        gone = {layer.name: self._alone(layer) & ~np.isnan(self.values[layer.name]) for layer in self.neurons}
        before = -1
        while before != (before := sum(int(mask.sum()) for mask in gone.values())):
            for mask in gone.values():
                if mask.all():
                    mask[0] = False  # a layer keeps a channel
            for layer in self.network.layers:
                if isinstance(layer, (Conv2d, Linear)):
                    self._keep_for(layer, gone)
                elif isinstance(layer, (Add, Readout)):
                    for name in layer.inputs:
                        self._stay(name, np.full(len(self.values[name]), True), gone)
        return gone

    def _alone(self, layer: IF) -> np.ndarray:
        """Whether a layer of neurons reads a weighted layer that nobody else reads, per channel."""
        feed = self.network.by_name[layer.inputs[0]]
        alone = isinstance(feed, (Conv2d, Linear)) and len(self.readers[feed.name]) == 1
        alone = alone and layer.name not in self.ann.fixed and len(self.readers[layer.name]) > 0
        return np.full(self.network.shapes[layer.name][0], alone)

    def _stay(self, name: str, which: np.ndarray, gone: Mapping[str, np.ndarray]) -> None:
        """Keep some of the channels of a layer in the neurons that they come from."""
        numbers, channels = self.sources[name]
        for number, channel in zip(numbers[which], channels[which]):
            if number >= 0:
                gone[self.neurons[number].name][channel] = False

    def _leaving(self, name: str, gone: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which channels of a layer leave."""
        numbers, channels = self.sources[name]
        leaving = np.full(len(numbers), False)
        for number in set(numbers.tolist()) - {-1}:
            here = numbers == number
            leaving[here] = gone[self.neurons[number].name][channels[here]]
        return leaving

    def _keep_for(self, layer: Conv2d | Linear, gone: Mapping[str, np.ndarray]) -> None:
        """Keep what a weighted layer cannot do without."""
        name = layer.inputs[0]
        leaving, values = self._leaving(name, gone), self.values[name]
        if isinstance(layer, Linear) or layer.groups == 1:
            if isinstance(layer, Conv2d) and any(layer.padding):
                self._stay(name, leaving & (values != 0), gone)
            return
        reader = self.readers[layer.name][0] if len(self.readers[layer.name]) == 1 else None
        if layer.groups != len(layer.weight) or layer.groups != len(values) or not isinstance(reader, IF):
            self._stay(name, leaving, gone)
            if isinstance(reader, IF):  # groups have as many outputs each
                gone[reader.name][:] = False
            return
        both = leaving & gone[reader.name]  # a channel of a depthwise layer leaves with the one behind it
        self._stay(name, ~both, gone)
        gone[reader.name] &= both

    def without(self, gone: Mapping[str, np.ndarray]) -> Network:
        """The network without these channels."""
        layers: list[Layer] = []
        for layer in self.network.layers:
            if isinstance(layer, (Conv2d, Linear)):
                (reader, *_) = self.readers[layer.name]
                rows = ~gone[reader.name] if isinstance(reader, IF) else np.full(len(layer.weight), True)
                columns = ~self._leaving(layer.inputs[0], gone)
                layers.append(_cut(layer, rows, columns, self.values[layer.inputs[0]]))
            elif isinstance(layer, IF) and gone[layer.name].any():
                kept = ~gone[layer.name]
                arrays = {
                    name: value[kept]
                    for name in ("v_threshold", "v_init", "negative_slope")
                    if np.ndim(value := getattr(layer, name)) == 1
                }
                layers.append(dataclasses.replace(layer, **arrays))
            else:
                layers.append(layer)
        return self.network.replace(layers=layers)


def _current(layer: Conv2d | Linear, x: np.ndarray) -> np.ndarray:
    """The constant current of each output channel, NaN if it is not constant."""
    weight = layer.weight.astype(np.float64)
    groups = layer.groups if isinstance(layer, Conv2d) else 1
    padded = isinstance(layer, Conv2d) and any(layer.padding)
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.astype(np.float64)
    weight = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    x = x.reshape(groups, 1, -1)
    known = ~np.isnan(x) & ~(padded & (np.nan_to_num(x) != 0))
    open_ = np.where(known, 0.0, np.abs(weight).sum(axis=3)).sum(axis=2).ravel()
    sent = np.where(known, weight.sum(axis=3) * np.nan_to_num(x), 0.0).sum(axis=2).ravel()
    value = bias + sent
    return np.where(open_ <= NEGLIGIBLE * np.abs(value), value, np.nan)


def _cut(layer: Conv2d | Linear, rows: np.ndarray, columns: np.ndarray, x: np.ndarray) -> Conv2d | Linear:
    """A weighted layer of some of its outputs and inputs; the constants of the others are in its bias."""
    if rows.all() and columns.all():
        return layer
    bias = None if layer.bias is None else layer.bias.astype(np.float64)[rows]
    if isinstance(layer, Conv2d) and layer.groups > 1:
        return dataclasses.replace(layer, weight=layer.weight[rows], bias=bias, groups=int(rows.sum()))
    sums = layer.weight.astype(np.float64).reshape(*layer.weight.shape[:2], -1).sum(axis=2)
    constant = sums[rows][:, ~columns] @ np.nan_to_num(x[~columns])
    if constant.any():
        bias = constant if bias is None else bias + constant
    return dataclasses.replace(layer, weight=layer.weight[rows][:, columns], bias=bias)
