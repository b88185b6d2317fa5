"""A circuit: what is simulated. Populations of neurons, the projections between them, and max pools.

`build_circuit` makes a circuit of a network, `quantize` makes one in integers. Nothing here says how a
circuit is computed; the reference, the engine and firmware all read these classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import NetworkError
from ..network.geometry import Window
from ..network.network import Network
from .neuron import NEGATIVE_SPIKES, WARM_UP, Neuron, require

__all__ = [
    "ANALOG_INPUT",
    "ANALOG_SHIFT",
    "GROUPS",
    "MAX_POOL",
    "POOLED_SOURCES",
    "RECURRENT",
    "UPSAMPLING",
    "INPUT",
    "Circuit",
    "MaxPool",
    "Population",
    "Projection",
    "Source",
    "as_map",
    "check_supported",
    "shifted",
    "sources_of",
]

_FORMED = 1 << 18  # effective weights that are formed in float64 at once

INPUT = -1
"""The index that stands for the input, in place of a population's index."""

ANALOG_INPUT = "analog input"
ANALOG_SHIFT = "an analog input on a grid of its own"
GROUPS = "groups"
MAX_POOL = "max pool"
POOLED_SOURCES = "average-pooled sources"
RECURRENT = "recurrent connections"
UPSAMPLING = "upsampling"

# What a population may need besides plain convolutions of spikes, soft reset and folded average pools
# (`Population.features`); what its neurons may need is in `evsnn.circuit.neuron`. Each back end lists the
# features that it computes in a set of its own, `SUPPORTS`.


@dataclass(frozen=True)
class Source:
    """A population (or `INPUT`) as a projection or a max pool sees it.

    Parameters
    ----------
    population : int
    shape : (channels, height, width)
        The shape of the population itself.
    pool : Window, optional
        An average pool between both; its division is in the weights.
    negative : bool
        Whether the negative spikes are read; a population without them sends none.
    levels : int
        The largest count that is sent at once: 1, or that of a graded spike.
    """

    population: int
    shape: tuple[int, int, int]
    pool: Window | None = None
    negative: bool = False
    levels: int = 1

    @property
    def plane(self) -> tuple[int, bool]:
        """The population, and whether its negative spikes are read."""
        return self.population, self.negative

    @property
    def seen_size(self) -> tuple[int, int]:
        """Height and width behind the pool."""
        return self.shape[1:] if self.pool is None else self.pool.output_size(self.shape[1:])


@dataclass(frozen=True, eq=False)
class Projection:
    """A convolution from spike sources (or the analog input) to a population.

    Parameters
    ----------
    label : str
        A name for people: "conv2d 3x3", "linear", "identity".
    sources : tuple of Source
        They stand side by side along the channels.
    shape : (channels, height, width)
        The shape of what the kernel slides over, after pools and concatenation.
    weight : (n_out, n_in / groups, kernel_height, kernel_width) float32 or integer
        The ANN's weights; integers are effective weights already.
    scale : (n_in,) float64, optional
        The spike amplitude divided by the pool's area, per input channel; below 0 for negative spikes, 0 for
        channels of sources that have none. None: weights are effective already.
    """

    label: str
    sources: tuple[Source, ...]
    shape: tuple[int, int, int]
    weight: np.ndarray
    scale: np.ndarray | None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def effective(self, channels: slice = slice(None)) -> np.ndarray:
        """Effective weights of some output channels, in the shape of `weight`."""
        weight = self.weight[channels]
        if self.scale is None:
            return weight
        n_out, n_in = self.weight.shape[:2]
        group = np.arange(n_out)[channels] // (n_out // self.groups)
        scale = self.scale.reshape(self.groups, n_in)
        effective = np.empty(weight.shape, np.float32)
        at_once = max(1, _FORMED // max(1, self.weight[0].size))  # formed in float64, a few channels at once
        for first in range(0, len(weight), at_once):
            rows = slice(first, first + at_once)
            effective[rows] = weight[rows] * scale[group[rows]][:, :, None, None]
        return effective

    def effective_bytes(self, n_out: int) -> int:
        """The bytes that `effective` takes for so many output channels, with those of its work."""
        if self.scale is None:
            return 0
        each = self.weight[0].size
        at_once = min(n_out, max(1, _FORMED // max(1, each)))
        return each * (4 * n_out + 16 * at_once)  # products, and the scale of each

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2:]

    @property
    def negative(self) -> bool:
        """Whether it reads negative spikes."""
        return self.sources[0].negative

    @property
    def pooled(self) -> bool:
        return any(source.pool is not None for source in self.sources)

    @property
    def max_count(self) -> int:
        """The largest count that an event can have."""
        return max(source.levels * (source.pool.area if source.pool else 1) for source in self.sources)

    @property
    def channelwise(self) -> bool:
        """Whether it has one weight per channel and kernel position, from one population without a pool."""
        return (
            self.groups == self.shape[0] == self.weight.shape[0]
            and len(self.sources) == 1
            and not self.pooled
        )

    @cached_property
    def window(self) -> Window:
        """The `Window` of the kernel on `shape`."""
        return Window(self.kernel, self.stride, self.padding, self.dilation)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the kernel slides over."""
        return self.shape[1:]

    @cached_property
    def fan_out(self) -> int:
        """How many neurons one input channel reaches, summed over all positions."""
        return self.window.fan_out(self.size) * (self.weight.shape[0] // self.groups)

    @property
    def features(self) -> frozenset[str]:
        """What a back end must compute besides a plain convolution."""
        found = {
            GROUPS: self.groups > 1,
            POOLED_SOURCES: self.pooled,
            NEGATIVE_SPIKES: self.negative,
            UPSAMPLING: self.window.upsample != (1, 1),
        }
        return frozenset(name for name, used in found.items() if used)


@dataclass(frozen=True, eq=False, kw_only=True)
class Population:
    """The neurons of one layer, and the projections to them.

    Parameters
    ----------
    name : str
        The layer's name.
    shape : (channels, height, width)
        A vector is a map of one position.
    output_shape : tuple of int
        The shape of the layer in the network.
    projections : tuple of Projection
        From spikes, in the order in which they are summed.
    analog_projections : tuple of Projection
        From the analog input: their current is the same at every step.
    bias : (channels,) float32 or int64
        The current of a step without input: biases and shift.
    neuron : Neuron
        The parameters of the neurons.
    analog_shift : (channels,) int64, optional
        In integers: the bits by which the sum of the analog input's products is shifted before the bias is
        added; above 0 to the right, with rounding, below 0 to the left; see `shifted`. None: no shift.
    """

    name: str
    shape: tuple[int, int, int]
    output_shape: tuple[int, ...]
    projections: tuple[Projection, ...]
    analog_projections: tuple[Projection, ...]
    bias: np.ndarray
    neuron: Neuron
    analog_shift: np.ndarray | None = None

    @cached_property
    def fires(self) -> bool:
        """Whether it sends spikes."""
        return self.neuron.fires

    @cached_property
    def has_negative_spikes(self) -> bool:
        """Whether it may send negative spikes."""
        return self.neuron.has_negative_spikes

    @property
    def graded(self) -> bool:
        """Whether it sends or reads graded spikes of more than one level."""
        reads = any(source.levels > 1 for projection in self.projections for source in projection.sources)
        return reads or self.neuron.levels is not None

    @property
    def features(self) -> frozenset[str]:
        """All that a back end must support to compute it."""
        parts = [projection.features for projection in (*self.projections, *self.analog_projections)]
        own = {
            ANALOG_INPUT: bool(self.analog_projections),
            ANALOG_SHIFT: self.analog_shift is not None,
        }
        return self.neuron.features.union(*parts, {name for name, used in own.items() if used})

    @cached_property
    def label(self) -> str:
        """The names of its projections, for people."""
        listed = (*self.analog_projections, *self.projections)
        return " + ".join(projection.label for projection in listed if not projection.negative) or "bias"

    @property
    def n_neurons(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of the analog current, borders exact."""
        return sum(projection.fan_out * projection.shape[0] for projection in self.analog_projections)


@dataclass(frozen=True, eq=False)
class MaxPool:
    """The spikes of one population, pooled by `MaxPool2d`: a population without neurons.

    Parameters
    ----------
    name : str
        The layer's name, with a number if the layer reads several populations.
    shape, output_shape
        As for `Population`.
    source : Source
        What it reads, without an average pool.
    window : Window
    has_negative_spikes : bool
        Whether the source may send negative spikes; then the max pool may, too.
    """

    name: str
    shape: tuple[int, int, int]
    output_shape: tuple[int, ...]
    source: Source
    window: Window
    has_negative_spikes: bool = False

    fires = True
    macs = 0

    @property
    def features(self) -> frozenset[str]:
        """All that a back end must support to compute it."""
        return frozenset({MAX_POOL, NEGATIVE_SPIKES} if self.has_negative_spikes else {MAX_POOL})

    @property
    def label(self) -> str:
        return "maxpool2d {}x{}".format(*self.window.kernel)

    @property
    def n_neurons(self) -> int:
        """The number of outputs; they count as neurons wherever spikes are counted."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def n_inputs(self) -> int:
        return self.source.shape[0] * self.source.shape[1] * self.source.shape[2]


@dataclass(frozen=True, eq=False, kw_only=True)
class Circuit:
    """Populations and max pools, each after those that it reads.

    Parameters
    ----------
    network : Network
        The network at `n_steps`: the step parameters for this T are applied.
    n_steps : int
    input_shape : (channels, height, width)
    populations : tuple of Population or MaxPool
    depends_on_steps : tuple of str
        What depends on T: "shift", "step parameters", "warm-up", "integers", "graded spikes". Empty: the
        circuit is the same at every T, and may run on without end.
    coding : {"steps", "graded"}
        Whether neurons send a spike per step, or one count after all input.
    """

    network: Network
    n_steps: int
    input_shape: tuple[int, int, int]
    populations: tuple[Population | MaxPool, ...]
    depends_on_steps: tuple[str, ...] = ()
    coding: str = "steps"

    @property
    def analog(self) -> bool:
        """Whether the input is a constant current."""
        return self.network.input.encoding == "constant"

    @cached_property
    def readouts(self) -> tuple[int, ...]:
        """The indices of the populations that are read out: one per output of the network, in their order."""
        place = {p.name: i for i, p in enumerate(self.populations)}
        fires = self.network.readout == "spikes"
        return tuple(place[layer.inputs[0] if fires else layer.name] for layer in self.network.outputs)

    @cached_property
    def readout(self) -> Population:
        """The population of the first output."""
        return self.population(self.readouts[0])

    def population(self, i: int) -> Population:
        """Population i, which is no max pool."""
        found = self.populations[i]
        if isinstance(found, MaxPool):
            raise NetworkError("a max pool has no membranes", where=f"layer {found.name!r}")
        return found

    @property
    def has_warm_up(self) -> bool:
        """Whether a population needs later steps of its input for an output step.

        Then one block of steps has to hold all steps.
        """
        return any(WARM_UP in p.features for p in self.populations)

    @property
    def n_sends(self) -> int:
        """How often a neuron may send: at every step, or a graded spike once."""
        return self.n_steps if self.coding == "steps" else 1


def shifted(values: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Integers shifted to the right with rounding (a half goes up), or to the left if `shift` is below 0."""
    right, left = np.maximum(shift, 0), np.maximum(-shift, 0)
    return ((values + ((np.int64(1) << right) >> 1)) >> right) << left


def sources_of(population: Population | MaxPool) -> set[int]:
    """The indices of the populations that a population reads, and `INPUT` if it reads the input."""
    if isinstance(population, MaxPool):
        return {population.source.population}
    return {source.population for projection in population.projections for source in projection.sources}


def check_supported(circuit: Circuit, supports: frozenset[str], backend: str) -> None:
    """Refuse a circuit if the back end does not compute all of its features.

    Parameters
    ----------
    circuit : Circuit
    supports : frozenset of str
        The features that the back end computes.
    backend : str
        Its name for people: "the engine".

    Raises
    ------
    RunError
        If a feature is missing; the message names the layer and the feature.
    """
    for i, population in enumerate(circuit.populations):
        recurrent = {RECURRENT} if max(sources_of(population), default=INPUT) >= i else set()
        require(population.features | recurrent, supports, backend, f"layer {population.name!r}")


def as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A shape as that of a map; a vector is a map of one position."""
    return shape if len(shape) == 3 else (shape[0], 1, 1)
