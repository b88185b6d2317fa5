"""Random networks for tests: every kind of layer, shapes that cross tile and word edges, no loose ends."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import strategies as st

from evsnn import IF, Add, AvgPool2d, Concat, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout

CHANNELS = (1, 2, 3, 5, 16, 17, 33, 64, 65, 130)


class Drawn:
    """Choices that hypothesis makes, so that it can shrink a network."""

    def __init__(self, draw):
        self._draw = draw

    def one_of(self, values):
        return self._draw(st.sampled_from(list(values)))

    def boolean(self) -> bool:
        return self._draw(st.booleans())

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def shuffled(self, values: list) -> list:
        return self._draw(st.permutations(values))


class Seeded:
    """Choices that follow from a seed alone, whatever the version of a library."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def one_of(self, values):
        values = list(values)
        return values[self.integer(0, len(values) - 1)]

    def boolean(self) -> bool:
        return self.integer(0, 1) == 1

    def integer(self, low: int, high: int) -> int:
        return low + self._random.getrandbits(64) % (high - low + 1)

    def shuffled(self, values: list) -> list:
        return sorted(values, key=lambda _: self._random.getrandbits(64))


class Builder:
    """Layers in the making; `choose` makes every choice."""

    def __init__(
        self, choose: Drawn | Seeded, encoding: str, small: bool, warm_ups: bool, pairs: bool = False
    ):
        self.pairs = pairs
        self.paired = {}  # by name of a layer: whether its parts are pairs of neurons
        self.choose, self.small, self.warm_ups = choose, small, warm_ups and choose.boolean()
        self.one_of = choose.one_of
        self.rng = np.random.default_rng(choose.integer(0, 2**32 - 1))
        self.layers = []
        self.spiking = []  # names and shapes of layers that carry spikes
        self.loose = set()
        vector = choose.boolean() and choose.boolean()
        size = self.one_of(range(1, 6 if small else 10))
        shape = (
            (self.one_of((1, 7, 70)),)
            if vector
            else (self.one_of((1, 2, 3)), size, self.one_of(range(1, 6 if small else 10)))
        )
        self.input = self.add(Input(shape, encoding), shape)
        if encoding != "constant":
            self.spiking.append(self.input)

    def add(self, layer, shape, *inputs):
        name = f"{layer.kind}_{len(self.layers)}"
        fields = {f: getattr(layer, f) for f in layer.__dataclass_fields__}
        self.layers.append(type(layer)(**fields | {"name": name, "inputs": tuple(n for n, _ in inputs)}))
        self.paired[name] = (
            {layer.paired} if layer.kind == "if" else set().union(*(self.paired[n] for n, _ in inputs))
        ) or {False}
        if layer.kind in ("conv2d", "linear", "add"):
            self.paired[name] = {False}
        self.loose -= {n for n, _ in inputs}
        self.loose.add(name)
        return name, shape

    def shape(self, layer, *inputs):
        return layer.output_shape([s for _, s in inputs])

    def normal(self, *shape):
        return self.rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))

    def weighted(self, source, n_out=None):
        """A conv or linear layer on `source`."""
        shape = source[1]
        n_out = n_out or self.one_of(CHANNELS[:6] if self.small else CHANNELS)
        bias = self.rng.normal(size=n_out) * 0.2 if self.choose.boolean() else None
        if len(shape) == 1:
            layer = Linear(self.normal(n_out, shape[0]), bias)
            return self.add(layer, (n_out,), source)
        kernel = self.one_of(range(1, 4)), self.one_of(range(1, 4))
        groups = self.one_of([g for g in range(1, shape[0] + 1) if shape[0] % g == 0 and n_out % g == 0])
        if len(self.paired[source[0]]) > 1:
            groups = 1
        for _ in range(20):  # until the kernel fits the map
            stride, dilation = (
                (self.one_of((1, 2, 3)), self.one_of((1, 2))),
                (self.one_of((1, 2)), self.one_of((1, 2, 3))),
            )
            padding = tuple(self.one_of(range(3)) for _ in range(4))
            layer = Conv2d(
                self.normal(n_out, shape[0] // groups, *kernel), bias, stride, padding, dilation, groups
            )
            if all(
                n + padding[i] + padding[i + 2] > (kernel[i] - 1) * dilation[i]
                for i, n in enumerate(shape[1:])
            ):
                break
        else:
            layer = Conv2d(self.normal(n_out, shape[0] // groups, 1, 1), bias, groups=groups)
        return self.add(layer, self.shape(layer, source), source)

    def slope(self, channels: int):
        """The slope below 0 of pairs of neurons; None: single neurons."""
        if not self.pairs:
            return None
        return (None, 1.0, 0.25, self.rng.uniform(-1, 2, channels))[self.choose.integer(0, 3)]

    def fire(self, source, single=False):
        channels = source[1][0]
        slope = None if single else self.slope(channels)
        per_channel = self.choose.boolean()
        threshold = self.rng.uniform(0.3, 1.2, channels if per_channel else None)
        negative_threshold = self.one_of((0.0, 0.0, 0.1, 0.25, 1.5))
        v_init = (
            self.rng.uniform(-0.5, 2.5 if negative_threshold else 0.5, channels)
            if negative_threshold or self.choose.boolean()
            else 0.0
        )  # high ones fire early and have to correct
        leak = self.one_of((1.0, 1.0, 1.0, 0.5, 0.875))
        warm_up_steps = self.one_of((0, 1, 3, 100)) if self.warm_ups else 0
        layer = IF(
            threshold,
            v_init,
            leak,
            shift=self.choose.boolean(),
            negative_threshold=negative_threshold,
            warm_up_steps=warm_up_steps,
            negative_slope=slope,
        )
        if slope is not None and self.choose.boolean():  # thresholds of single neurons
            both = {f: getattr(layer, f) for f in layer.__dataclass_fields__}
            layer = IF(**both | {"v_threshold": self.rng.uniform(0.3, 1.2, (2, channels))})
        self.spiking.append(self.add(layer, source[1], source))
        return self.spiking[-1]

    def grow(self):
        """One more layer, or a few."""
        source = self.one_of(self.spiking)
        what = self.one_of(("weighted", "depthwise", "pool", "maxpool", "concat", "add", "flatten"))
        maps = [s for s in self.spiking if len(s[1]) == 3]
        if what == "depthwise" and len(source[1]) == 3 and len(self.paired[source[0]]) == 1:
            channels = source[1][0]
            layer = Conv2d(
                self.normal(channels, 1, 3, 2), padding=1, stride=self.one_of((1, 2)), groups=channels
            )
            self.fire(self.add(layer, self.shape(layer, source), source))
        elif what == "pool" and len(source[1]) == 3:
            kernel = tuple(self.one_of(range(1, 1 + min(3, n))) for n in source[1][1:])
            padding = tuple(self.one_of(range(k)) for k in kernel)
            layer = (
                AvgPool2d(kernel, (self.one_of((1, 2, 3)), self.one_of((1, 2))), padding)
                if self.choose.boolean()
                else AvgPool2d()
            )
            if not _pooled(self.layers, source[0]):
                self.spiking.append(self.add(layer, self.shape(layer, source), source))
        elif (
            what == "maxpool"
            and len(source[1]) == 3
            and not _pooled(self.layers, source[0])
            and True not in self.paired[source[0]]
        ):
            kernel = tuple(self.one_of(range(1, 1 + min(4, n))) for n in source[1][1:])
            layer = MaxPool2d(
                kernel,
                (self.one_of((1, 2, 3)), self.one_of((1, 2))),
                tuple(self.one_of(range(k)) for k in kernel * 2),
            )
            self.spiking.append(self.add(layer, self.shape(layer, source), source))
        elif what == "concat":
            other = self.one_of(
                [s for s in self.spiking if s[1][1:] == source[1][1:] and len(s[1]) == len(source[1])]
            )
            shape = (source[1][0] + other[1][0], *source[1][1:])
            self.spiking.append(self.add(Concat(), shape, source, other))
        elif what == "add":
            main = self.weighted(source)
            branches = [main]
            for s in self.spiking:
                flat = any(layer.name == s[0] and _flat(self.layers, s[0]) for layer in self.layers)
                if s[1] == main[1] and len(branches) < 4 and not flat:
                    branches.append(s)
            for s in maps:
                if len(main[1]) == 3 and s[1][1:] == main[1][1:] and len(branches) < 4:
                    layer = Conv2d(
                        self.normal(main[1][0], s[1][0], 1, 1), self.rng.normal(size=main[1][0]) * 0.1
                    )
                    branches.append(self.add(layer, main[1], s))
            order = self.choose.shuffled(branches)
            self.fire(self.add(Add(), main[1], *order))
        elif what == "flatten" and len(source[1]) == 3:
            self.spiking.append(self.add(Flatten(), (int(np.prod(source[1])),), source))
        else:
            self.fire(self.weighted(source))

    def finish(self, shift: str, readout: str, n_steps: int) -> Network:
        """Join all loose ends into one readout."""
        ends = []
        for name, shape in list(self.spiking):
            if name in self.loose:
                ends.append(
                    (name, shape)
                    if len(shape) == 1
                    else self.add(Flatten(), (int(np.prod(shape)),), (name, shape))
                )
        if not ends:
            ends = (
                [self.spiking[-1]]
                if len(self.spiking[-1][1]) == 1
                else [self.add(Flatten(), (int(np.prod(self.spiking[-1][1])),), self.spiking[-1])]
            )
        joined = ends[0] if len(ends) == 1 else self.add(Concat(), (sum(s[0] for _, s in ends),), *ends)
        last = self.add(Linear(self.normal(10, joined[1][0]), self.rng.normal(size=10)), (10,), joined)
        if readout == "spikes":
            last = self.fire(last, single=True)
        self.add(Readout(), (10,), last)
        return Network(tuple(self.layers), n_steps=n_steps, shift=shift, readout=readout, input_range=(0, 1))


def _behind(layers, name: str) -> list:
    """Layers between `name` and the spikes it shows, nearest first."""
    by_name = {layer.name: layer for layer in layers}
    chain, todo = [], [name]
    while todo:
        layer = by_name[todo.pop(0)]
        if layer.kind in ("flatten", "concat", "avgpool2d", "maxpool2d"):
            chain.append(layer)
            todo.extend(layer.inputs)
    return chain


def _flat(layers, name: str) -> bool:
    return any(layer.kind == "flatten" for layer in _behind(layers, name))


def _pooled(layers, name: str) -> bool:
    return any(layer.kind == "avgpool2d" for layer in _behind(layers, name))


ENCODINGS = ("constant", "constant", "constant", "poisson", "events")


@st.composite
def networks(draw, encodings=ENCODINGS, small=False, max_layers=5, warm_ups=True, pairs=True):
    """A random network and images for it; without `warm_ups`, one that may be run in blocks of steps."""
    return made(Drawn(draw), encodings, small, max_layers, warm_ups, pairs)


def made(
    choose: Drawn | Seeded, encodings=ENCODINGS, small=False, max_layers=5, warm_ups=True, pairs=False
) -> tuple[Network, np.ndarray]:
    """The network and the two images that follow from the choices.

    Without `pairs`, a seed gives the network that it gave before there were pairs of neurons.
    """
    encoding = choose.one_of(encodings)
    builder = Builder(choose, encoding, small, warm_ups, pairs)
    builder.fire(builder.weighted(builder.input))
    for _ in range(choose.integer(0, max_layers)):
        builder.grow()
    n_steps = choose.one_of((1, 2, 5, 8))
    network = builder.finish(
        choose.one_of(("bias", "initial", "none")), choose.one_of(("membrane", "membrane", "spikes")), n_steps
    )
    shape = (2, n_steps, *network.input_shape) if encoding == "events" else (2, *network.input_shape)
    images = builder.rng.random(shape, dtype=np.float32)
    return network, images < 0.3 if encoding == "events" else images * (images > 0.3)
