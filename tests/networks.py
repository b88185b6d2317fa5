"""Networks that several test modules run."""

from __future__ import annotations

import dataclasses

import numpy as np

from evsnn import IF, Add, AvgPool2d, Concat, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout
from evsnn.circuit.neuron import Neuron
from evsnn.circuit.populations import Circuit

IMAGES = np.random.default_rng(1).random((5, 3, 9, 8), dtype=np.float32)
"""For `small_network`."""


def small_network(channels=70, encoding="constant", rate=1.0, kernel=3):
    """Conv, pool, depthwise and a shortcut, linear: every path of the engine in one network."""
    rng = np.random.default_rng(5)

    def normal(*shape):
        return rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])) * 2

    return Network(
        [
            Input((3, 9, 8), encoding),
            Conv2d(normal(channels, 3, kernel, kernel), rng.normal(size=channels) * 0.1, padding=kernel // 2),
            IF(1 / rate, name="a"),
            Conv2d(normal(channels, channels, 3, 3), padding=1),
            IF(0.5 / rate, name="b"),
            Conv2d(normal(channels, 1, 3, 3), padding=1, groups=channels, name="c"),
            Add(inputs=("c", "a")),
            IF(1 / rate),
            AvgPool2d(2),
            Flatten(),
            Linear(normal(10, channels * 16)),
            Readout(),
        ],
        n_steps=8,
        shift="bias",
        input_range=(0, 1),
    )


def every_path(negative_threshold, warm_up_steps):
    """Convolutions (plain, grouped, dilated, strided, depthwise), pools (2x2, others), a shortcut, a
    concatenation, leak, neurons with negative spikes, max pools, warm-ups.
    """
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape) * 2 / np.sqrt(np.prod(shape[1:]))

    return Network(
        [
            Input((2, 5, 4)),
            Conv2d(normal(6, 2, 3, 3), rng.normal(size=6), padding=1),
            IF(
                0.5,
                leak=0.5,
                negative_threshold=negative_threshold,
                v_init=negative_threshold * 9,
                warm_up_steps=warm_up_steps,
                name="a",
            ),
            Conv2d(normal(6, 1, 3, 3), padding=1, groups=6, name="b"),
            Conv2d(normal(6, 3, 3, 3), padding=(1, 2), dilation=(1, 2), groups=2, inputs="a", name="c"),
            Add(inputs=("b", "c", "a")),
            IF(
                0.6,
                leak=0.5,
                negative_threshold=negative_threshold,
                v_init=negative_threshold * 9,
                warm_up_steps=2 * warm_up_steps,
                name="d",
            ),
            AvgPool2d(2, name="p"),
            AvgPool2d(3, 1, 1, inputs="a", name="q"),
            AvgPool2d((5, 4), inputs="d", name="r"),
            MaxPool2d(3, 1, 1, inputs="a", name="m"),
            Concat(inputs=("m", "q")),
            Conv2d(normal(5, 12, 2, 2), stride=2),
            IF(0.4),
            Flatten(name="s"),
            Flatten(inputs="p", name="t"),
            Flatten(inputs="r", name="u"),
            Concat(inputs=("s", "t", "u")),
            Linear(normal(33, 20 + 24 + 6)),
            IF(0.3),
            Linear(normal(3, 33)),
            Readout(),
        ],
        n_steps=4,
        shift="bias",
        input_range=(0, 1),
    )


def input_beside_spikes(gain=1.0, kernel=1, channels=6, readout="membrane", leak=1.0) -> Network:
    """A convolution of spikes and one of the analog input, `gain` times as large, into one layer."""
    rng = np.random.default_rng(7)

    def normal(*shape):
        return rng.normal(size=shape) * 1.5 / np.sqrt(np.prod(shape[1:]))

    last = [IF(0.3)] if readout == "spikes" else []
    return Network(
        [
            Input((2, 6, 5), name="x"),
            Conv2d(normal(channels, 2, 3, 3), rng.normal(size=channels) * 0.1, padding=1, inputs="x"),
            IF(1.0, name="a"),
            Conv2d(normal(channels, channels, 3, 3), rng.normal(size=channels) * 0.1, padding=1, name="c"),
            Conv2d(normal(channels, 2, kernel, kernel) * gain, padding=kernel // 2, name="d", inputs="x"),
            Add(inputs=("c", "d")),
            IF(max(1.0, gain), leak=leak),
            AvgPool2d(),
            Flatten(),
            Linear(normal(3, channels)),
            *last,
            Readout(),
        ],
        n_steps=16,
        shift="bias",
        readout=readout,
        input_range=(0, 1),
    )


class Strange(Neuron):
    """Neurons with a feature that nobody has heard of."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"made-up feature"})


def strange(circuit: Circuit, at: int = 0) -> Circuit:
    """The circuit with such neurons in one population."""
    populations = list(circuit.populations)
    neuron = populations[at].neuron
    fields = {field.name: getattr(neuron, field.name) for field in dataclasses.fields(Neuron)}
    populations[at] = dataclasses.replace(populations[at], neuron=Strange(**fields))
    return dataclasses.replace(circuit, populations=tuple(populations))
