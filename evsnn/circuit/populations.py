"""A circuit: what is simulated. Populations of neurons, the projections between them, and max pools.

`build_circuit` makes one of a network, `quantize` makes one in integers of that. Nothing here says how it is
computed; the reference, the engine and firmware all read these.
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

INPUT = -1
"""Index of the input where a population's is meant."""

ANALOG_INPUT = "analog input"
ANALOG_SHIFT = "an analog input on a grid of its own"
GROUPS = "groups"
MAX_POOL = "max pool"
POOLED_SOURCES = "average-pooled sources"
RECURRENT = "recurrent connections"
UPSAMPLING = "upsampling"

# What a population may need beside plain convolutions of spikes, soft reset and average pools that are folded
# (`Population.features`), and what its neurons may (`evsnn.circuit.neuron`). Each back end lists those
# that it computes in a set of its own, `SUPPORTS`.


@dataclass(frozen=True)
class Source:
    """A population (or `INPUT`) as a projection or a max pool sees it.

    Parameters
    ----------
    population : int
    shape : (channels, height, width)
        Of the population itself.
    pool : Window, optional
        An average pool, whose division is in the weights.
    negative : bool
        Whether its negative spikes are meant; a population without them sends none.
    """

    population: int
    shape: tuple[int, int, int]
    pool: Window | None = None
    negative: bool = False

    @property
    def plane(self) -> tuple[int, bool]:
        """The population, and which of its spikes."""
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
        For people: "conv2d 3x3", "linear", "identity".
    sources : tuple of Source
        Side by side along the channels.
    shape : (channels, height, width)
        Of what the kernel slides over, after pools and concatenation.
    weight : (n_out, n_in / groups, kernel_height, kernel_width) float32 or integer
        The ANN's weights; integers are effective already.
    scale : (n_in,) float64, optional
        Spike amplitude over pooling area, per input channel; below 0 for negative spikes, 0 where
        there are none. None: weights are effective.
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
        scale = self.scale.reshape(self.groups, n_in)[group][:, :, None, None]
        return (weight * scale).astype(np.float32)

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
        """The largest count an event can bring."""
        return max(source.pool.area if source.pool else 1 for source in self.sources)

    @property
    def channelwise(self) -> bool:
        """One weight a channel and tap, from one unpooled population: no gathering needed."""
        return (
            self.groups == self.shape[0] == self.weight.shape[0]
            and len(self.sources) == 1
            and not self.pooled
        )

    @cached_property
    def window(self) -> Window:
        """How the kernel slides over `shape`."""
        return Window(self.kernel, self.stride, self.padding, self.dilation)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the kernel slides over."""
        return self.shape[1:]

    @cached_property
    def fan_out(self) -> int:
        """Targets of one input channel, summed over all positions."""
        return self.window.fan_out(self.size) * (self.weight.shape[0] // self.groups)

    @property
    def features(self) -> frozenset[str]:
        """What a back end must know beside a plain convolution."""
        found = {
            GROUPS: self.groups > 1,
            POOLED_SOURCES: self.pooled,
            NEGATIVE_SPIKES: self.negative,
            UPSAMPLING: self.window.upsample != (1, 1),
        }
        return frozenset(name for name, used in found.items() if used)


@dataclass(frozen=True, eq=False, kw_only=True)
class Population:
    """Neurons of one layer, and what projects to them.

    Parameters
    ----------
    name : str
    shape : (channels, height, width)
        A vector is a map of one position.
    output_shape : tuple of int
        The shape the network gives it.
    projections : tuple of Projection
        From spikes, in the order of their sums.
    analog_projections : tuple of Projection
        From the analog input: a current that is the same at every step.
    bias : (channels,) float32 or int64
        The current of a step without input: biases and shift.
    neuron : Neuron
    analog_shift : (channels,) int64, optional
        Of integers: bits by which the sum of the analog input's products is shifted before the bias is
        added, to the right and rounded if above 0, to the left if below; see `shifted`. None: not at all.
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
        """What projects to it, for people."""
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
    shape, output_shape
        As a population's.
    source : Source
        Without an average pool.
    window : Window
    has_negative_spikes : bool
        Whether the source is, and then its own spikes are.
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
        """Outputs; they count as neurons wherever spikes are counted."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def n_inputs(self) -> int:
        return self.source.shape[0] * self.source.shape[1] * self.source.shape[2]


@dataclass(frozen=True, eq=False, kw_only=True)
class Circuit:
    """Populations, and max pools among them, each behind those that it reads; the last is read out.

    Parameters
    ----------
    network : Network
        As it is at `n_steps`: the step parameters for them are applied.
    n_steps : int
    input_shape : (channels, height, width)
    populations : tuple of Population or MaxPool
    depends_on_steps : tuple of str
        What T has decided: "shift", "step parameters", "warm-up", "integers". Nothing: it is the same
        circuit at any T, and may be run on without end.
    """

    network: Network
    n_steps: int
    input_shape: tuple[int, int, int]
    populations: tuple[Population | MaxPool, ...]
    depends_on_steps: tuple[str, ...] = ()

    @property
    def analog(self) -> bool:
        """Whether the input is a constant current."""
        return self.network.input.encoding == "constant"

    @cached_property
    def readout(self) -> Population:
        """The population that is read out, the last."""
        last = self.populations[-1]
        if isinstance(last, MaxPool):
            raise NetworkError("a max pool cannot be read out", where=f"layer {last.name!r}")
        return last

    @property
    def has_warm_up(self) -> bool:
        """Whether a population's output step needs later steps of its input: then no step can be computed of
        all populations in turn.
        """
        return any(WARM_UP in p.features for p in self.populations)


def shifted(values: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Integers shifted to the right, half a unit rounded up, or to the left if `shift` is below 0."""
    right, left = np.maximum(shift, 0), np.maximum(-shift, 0)
    return ((values + ((np.int64(1) << right) >> 1)) >> right) << left


def sources_of(population: Population | MaxPool) -> set[int]:
    """The populations that one reads, by index; `INPUT` too."""
    if isinstance(population, MaxPool):
        return {population.source.population}
    return {source.population for projection in population.projections for source in projection.sources}


def check_supported(circuit: Circuit, supports: frozenset[str], backend: str) -> None:
    """Refuse a circuit of which a back end does not compute everything.

    Raises
    ------
    RunError
        It names the layer and the feature.
    """
    for i, population in enumerate(circuit.populations):
        recurrent = {RECURRENT} if max(sources_of(population), default=INPUT) >= i else set()
        require(population.features | recurrent, supports, backend, f"layer {population.name!r}")


def as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A vector as a map of one position."""
    return shape if len(shape) == 3 else (shape[0], 1, 1)
