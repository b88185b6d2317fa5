"""A network brought down to what is simulated: populations of neurons and the synapses that charge them.

Average pools, flattening, concatenation and sums have no neurons; here they disappear. Each `IF` (and an
integrating `Readout`) becomes one `Population`; the linear expression before it becomes a list of
`Synapse`, each a convolution of spike sources with effective weights: the ANN's weight times the
source's spike amplitude, divided by the pooling window's area, formed in float64 and rounded to
float32 once. A circuit belongs to one number of steps, because the shift V_th/2T does.

A `MaxPool2d` has no neurons either, but counters; it becomes one `MaxPool` for each population that
it reads, and stands among the populations: it sends spikes as they do.

A synapse that reads signed neurons is followed by its twin, which reads their negative spikes with
the same weights and amplitudes of the other sign. Signed neurons that never have a spike to take back,
most often those of the first layer, are not signed in the end (`settled`).

Order of the sums (part of the specification, DESIGN §3): synapses that gather (convolutions and
linear layers) as their branches are listed, then those with one weight a channel (depthwise
convolutions and identity shortcuts of an unpooled population), then the bias with the shift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..errors import NetworkError, RunError
from ..network.layers import (
    IF,
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    Flatten,
    Input,
    Layer,
    Linear,
    MaxPool2d,
    Readout,
    reach,
)
from ..network.network import Network, check_steps

__all__ = [
    "INPUT",
    "Circuit",
    "MaxPool",
    "Pool",
    "Population",
    "Source",
    "Synapse",
    "lower",
    "settled",
    "unfolded",
]

INPUT = -1
"""Index of the input where a population's is meant."""

MAX_PARTS = 1_024
"""Most branches of a sum, or sources of a concatenation, unfolded."""

MAX_POPULATIONS = 4_096
"""Most populations and max pools."""


@dataclass(frozen=True)
class Pool:
    """A pooling window: of a max pool, or of an average pool, whose division is in the weights."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]

    @property
    def area(self) -> int:
        return self.kernel[0] * self.kernel[1]


@dataclass(frozen=True)
class Source:
    """A population (or `INPUT`) as a synapse or a max pool sees it.

    Parameters
    ----------
    population : int
    shape : (channels, height, width)
        Of the population itself.
    pool : Pool, optional
    negative : bool
        Whether its negative spikes are meant; a population that is not signed sends none.
    """

    population: int
    shape: tuple[int, int, int]
    pool: Pool | None = None
    negative: bool = False

    @property
    def plane(self) -> tuple[int, bool]:
        """The population, and which of its spikes."""
        return self.population, self.negative


@dataclass(frozen=True, eq=False)
class Synapse:
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

    def reach(self, axis: int) -> np.ndarray:
        """How many output positions each input position reaches along an axis (0: y, 1: x)."""
        return reach(
            self.shape[1 + axis],
            self.kernel[axis],
            self.stride[axis],
            self.padding[axis],
            self.padding[2 + axis],
            self.dilation[axis],
        )


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons of one layer.

    Parameters
    ----------
    name : str
    shape : (channels, height, width)
        A vector is a map of one position.
    output_shape : tuple of int
        The shape the network gives it.
    synapses : tuple of Synapse
        From spikes, in the order of their sums.
    drives : tuple of Synapse
        From the analog input: a current that is the same at every step.
    bias : (channels,) float32 or int32
        The current of a step without input: biases and shift.
    v_threshold : (channels,), optional
        None: it integrates and never fires.
    v_init : (channels,)
    leak : float
        Share of the membrane kept from step to step.
    v_negative : (channels,), optional
        At most 0; below it, neurons whose net count is positive send a negative spike. None: none do, or
        could.
    delay : int
        Input steps that charge it before it first may fire, n_steps at most.
    """

    name: str
    shape: tuple[int, int, int]
    output_shape: tuple[int, ...]
    synapses: tuple[Synapse, ...]
    drives: tuple[Synapse, ...]
    bias: np.ndarray
    v_threshold: np.ndarray | None
    v_init: np.ndarray
    leak: float = 1.0
    v_negative: np.ndarray | None = None
    delay: int = 0

    @property
    def fires(self) -> bool:
        """Whether it sends spikes."""
        return self.v_threshold is not None

    @property
    def signed(self) -> bool:
        """Whether it may send negative spikes."""
        return self.v_negative is not None

    @cached_property
    def label(self) -> str:
        """What charges it, for people."""
        return " + ".join(s.label for s in (*self.drives, *self.synapses) if not s.negative) or "bias"

    @property
    def n_neurons(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of the analog current, borders exact."""
        return sum(fan_out(drive) * drive.shape[0] for drive in self.drives)


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
    window : Pool
    signed : bool
        Whether the source is, and then its own spikes are.
    """

    name: str
    shape: tuple[int, int, int]
    output_shape: tuple[int, ...]
    source: Source
    window: Pool
    signed: bool = False

    fires = True
    macs = 0

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


def fan_out(synapse: Synapse) -> int:
    """Targets of one input channel, summed over all positions."""
    return int(synapse.reach(0).sum() * synapse.reach(1).sum()) * (synapse.weight.shape[0] // synapse.groups)


@dataclass(frozen=True, eq=False)
class Circuit:
    """Populations, and max pools among them, each behind those that it reads; the last is read out.

    `network` is as it is at `n_steps`: the table for them is applied.
    """

    network: Network
    n_steps: int
    input_shape: tuple[int, int, int]
    populations: tuple[Population | MaxPool, ...]

    @property
    def analog(self) -> bool:
        """Whether the input is a constant current."""
        return self.network.input.encoding == "constant"

    @property
    def delayed(self) -> bool:
        """Whether a population's output step needs later steps of its input: then no step can be computed of
        all populations in turn.
        """
        return any(isinstance(p, Population) and p.delay for p in self.populations)


@dataclass(frozen=True)
class _View:
    """What a layer between IFs carries: the spikes of some populations, linearly seen, without weights."""

    sources: tuple[Source, ...]
    amplitudes: tuple[np.ndarray, ...]  # per source: one value a channel, pooling divided out
    shape: tuple[int, int, int]
    flat: bool = False  # maps flattened to features, source after source


def lower(network: Network, n_steps: int | None = None, shift_steps: int | None = None) -> Circuit:
    """The circuit of a network for a number of steps, as it is simulated in floats; see `unfolded`."""
    return settled(unfolded(network, n_steps, shift_steps))


def settled(circuit: Circuit) -> Circuit:
    """The same circuit, of floats or integers, without negative spikes that are never sent.

    Neurons that nothing but a constant current charges, from a membrane below their threshold, take no spike
    back: they fire only if the current is above 0, and then their membrane never falls below 0.
    """
    populations: list[Population | MaxPool] = []
    for p in circuit.populations:
        if isinstance(p, MaxPool):
            p = replace(p, signed=p.signed and populations[p.source.population].signed)
        else:
            if p.signed and not p.synapses and p.leak == 1 and (p.v_init < p.v_threshold).all():
                p = replace(p, v_negative=None)
            sent = tuple(
                s
                for s in p.synapses
                if not s.negative
                or any(
                    source.population != INPUT and populations[source.population].signed
                    for source in s.sources
                )
            )
            if len(sent) < len(p.synapses):
                p = replace(p, synapses=sent)
        populations.append(p)
    return replace(circuit, populations=tuple(populations))


def unfolded(network: Network, n_steps: int | None = None, shift_steps: int | None = None) -> Circuit:
    """The circuit of a network for a number of steps, in which all neurons of signed layers are signed.

    Parameters
    ----------
    network : Network
    n_steps : int, optional
        T of the run, and of the table that it takes. None: the network's own.
    shift_steps : int, optional
        T of the shift V_th/2T. None: `n_steps`.

    Raises
    ------
    RunError
        If `n_steps` or `shift_steps` is out of range, or `shift_steps` is given where the shift has no T.
    NetworkError
        If a layer cannot be folded; the message names it.
    """
    n_steps = check_steps(network.n_steps if n_steps is None else n_steps, RunError)
    if shift_steps is None:
        shift_steps = n_steps
    elif network.shift != "bias":
        raise RunError(
            "the network's shift has no number of steps",
            where="shift_steps",
            got=f"shift {network.shift!r}",
            expected="shift 'bias'",
            hint="leave shift_steps out",
        )
    shift_steps = check_steps(shift_steps, RunError, "shift_steps")
    network = network.at(n_steps)
    views: dict[str, _View] = {}  # of layers that carry spikes, or the input
    currents: dict[
        str, tuple[list[Synapse], np.ndarray]
    ] = {}  # of layers that carry a current: synapses and bias
    populations: list[Population | MaxPool] = []

    def current(name: str) -> tuple[list[Synapse], np.ndarray]:
        """What a layer's output charges a membrane with."""
        if name in currents:
            return currents[name]
        return [_identity(views[name], network.by_name[name])], np.zeros(views[name].shape[0])

    for layer in network.layers:
        if isinstance(layer, Input):
            shape = as_map(layer.shape)
            views[layer.name] = _View((Source(INPUT, shape),), (np.ones(shape[0]),), shape)
        elif isinstance(layer, (Conv2d, Linear)):
            bias = np.zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias.astype(np.float64)
            currents[layer.name] = list(_weighted(layer, views[layer.inputs[0]])), bias
        elif isinstance(layer, Add):
            branches, biases = zip(*(current(name) for name in layer.inputs))
            currents[layer.name] = _bounded([b for branch in branches for b in branch], layer), sum(biases)
        elif isinstance(layer, Flatten) and layer.inputs[0] in currents:
            if as_map(network.shapes[layer.inputs[0]])[1:] != (1, 1):
                raise NetworkError(
                    "a flattened map of currents", where=layer._where, hint="put the IF before the Flatten"
                )
            currents[layer.name] = currents[layer.inputs[0]]
        elif isinstance(layer, AvgPool2d):
            views[layer.name] = _pooled(layer, views[layer.inputs[0]])
        elif isinstance(layer, MaxPool2d):
            pools = list(_max_pools(layer, views[layer.inputs[0]], populations))
            if len(populations) + len(pools) > MAX_POPULATIONS:
                raise NetworkError(
                    "there are too many max pools, one for each layer concatenated",
                    where=layer._where,
                    expected=f"at most {MAX_POPULATIONS} with all neurons",
                )
            sources = tuple(Source(len(populations) + i, pool.shape) for i, pool in enumerate(pools))
            views[layer.name] = _View(
                sources, views[layer.inputs[0]].amplitudes, layer.output_shape([views[layer.inputs[0]].shape])
            )
            populations += pools
        elif isinstance(layer, Flatten):
            views[layer.name] = _flat(views[layer.inputs[0]])
        elif isinstance(layer, Concat):
            views[layer.name] = _joined(views[name] for name in layer.inputs)
            _bounded(views[layer.name].sources, layer)
        elif isinstance(layer, IF) or network.readout == "membrane":
            population = _population(
                layer, *current(layer.inputs[0]), network, n_steps, shift_steps, populations
            )
            if population.fires:
                source = Source(len(populations), population.shape)
                views[layer.name] = _View(
                    (source,), (population.v_threshold.astype(np.float64),), population.shape
                )
            populations.append(population)
    return Circuit(network, n_steps, as_map(network.input_shape), tuple(populations))


def _bounded(parts: Sequence, layer: Layer) -> Sequence:
    """`parts`, unless they are too many: sums of sums of themselves double with each layer."""
    if len(parts) > MAX_PARTS:
        raise NetworkError(
            f"the {layer.kind} has too many parts once those before it are unfolded",
            where=layer._where,
            got=len(parts),
            expected=f"at most {MAX_PARTS}",
        )
    return parts


def as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A vector as a map of one position."""
    return shape if len(shape) == 3 else (shape[0], 1, 1)


def _pooled(layer: AvgPool2d, view: _View) -> _View:
    kernel, stride, padding = layer.window(view.shape)
    sources = []
    for source in view.sources:
        pool = Pool(kernel, stride, padding)
        sources.append(replace(source, pool=_composed(layer, source.pool, pool) if source.pool else pool))
    amplitudes = tuple(amplitude / (kernel[0] * kernel[1]) for amplitude in view.amplitudes)
    return _View(tuple(sources), amplitudes, layer.output_shape([view.shape]))


def _composed(layer: AvgPool2d, first: Pool, second: Pool) -> Pool:
    """Two pools in a row as one; exact where windows of the first do not overlap or are not cut."""
    if first.stride != first.kernel or any(first.padding) or any(second.padding):
        raise NetworkError(
            "two average pools in a row with overlap or padding cannot be folded",
            where=layer._where,
            hint="make them one pool",
        )
    kernel = tuple(a * b for a, b in zip(first.kernel, second.kernel))
    if kernel[0] * kernel[1] > 65_535:
        raise NetworkError(
            "the joint pooling window is too large",
            where=layer._where,
            got=kernel,
            expected="an area <= 65535",
        )
    return Pool(kernel, tuple(a * b for a, b in zip(first.stride, second.stride)), (0, 0, 0, 0))


def _max_pools(layer: MaxPool2d, view: _View, before: Sequence[Population | MaxPool]) -> Iterator[MaxPool]:
    """A max pool for each source of a view; several are numbered: ``pool[0]``, ``pool[1]``."""
    size = layer.output_shape([view.shape])[1:]
    for i, source in enumerate(view.sources):
        if source.pool:
            raise NetworkError(
                "a max pool cannot read average-pooled spikes",
                where=layer._where,
                hint="put an IF between the pools",
            )
        shape = (source.shape[0], *size)
        name = layer.name if len(view.sources) == 1 else f"{layer.name}[{i}]"
        yield MaxPool(
            name,
            shape,
            shape,
            source,
            Pool(layer.kernel, layer.stride, layer.padding),
            source.population != INPUT and before[source.population].signed,
        )


def _flat(view: _View) -> _View:
    features = int(np.prod(view.shape))
    return _View(view.sources, view.amplitudes, (features, 1, 1), flat=view.flat or view.shape[1:] != (1, 1))


def _joined(inputs: Iterable[_View]) -> _View:
    views = list(inputs)
    shape = (sum(v.shape[0] for v in views), *views[0].shape[1:])
    sources = tuple(s for v in views for s in v.sources)
    return _View(
        sources, tuple(a for v in views for a in v.amplitudes), shape, flat=any(v.flat for v in views)
    )


def _identity(view: _View, layer: Layer) -> Synapse:
    """Spikes that charge a membrane directly, weight 1."""
    if view.flat:
        raise NetworkError(
            "a flattened map cannot charge a membrane without weights",
            where=layer._where,
            hint="put the IF before the Flatten",
        )
    channels = view.shape[0]
    return Synapse(
        "identity",
        view.sources,
        view.shape,
        np.ones((channels, 1, 1, 1), np.float32),
        np.concatenate(view.amplitudes),
        groups=channels,
    )


def _weighted(layer: Conv2d | Linear, view: _View) -> Iterator[Synapse]:
    """The synapses of a weighted layer that reads `view`."""
    if isinstance(layer, Conv2d):
        name = "conv2d" if layer.groups == 1 else "depthwise" if layer.groups == view.shape[0] else "grouped"
        label = f"{name} {layer.weight.shape[2]}x{layer.weight.shape[3]}"
        yield Synapse(
            label,
            view.sources,
            view.shape,
            layer.weight,
            np.concatenate(view.amplitudes),
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
    elif not view.flat:
        yield Synapse(
            "linear",
            view.sources,
            view.shape,
            layer.weight.reshape(-1, *view.shape),
            np.concatenate(view.amplitudes),
        )
    else:  # a kernel that covers the map, source by source
        start = 0
        for source, amplitude in zip(view.sources, view.amplitudes):
            shape = (source.shape[0], *_seen(source))
            size = int(np.prod(shape))
            yield Synapse(
                "linear",
                (source,),
                shape,
                layer.weight[:, start : start + size].reshape(-1, *shape),
                amplitude,
            )
            start += size


def _seen(source: Source) -> tuple[int, int]:
    """Height and width of a source behind its pool."""
    if source.pool is None:
        return source.shape[1:]
    p = source.pool
    return tuple(
        (n + p.padding[i] + p.padding[2 + i] - p.kernel[i]) // p.stride[i] + 1
        for i, n in enumerate(source.shape[1:])
    )


def _both_signs(synapse: Synapse, populations: Sequence[Population | MaxPool]) -> Iterator[Synapse]:
    """A synapse from spikes and, where a source is signed, its twin from negative ones."""
    yield synapse
    signed = [s.population != INPUT and populations[s.population].signed for s in synapse.sources]
    if any(signed):
        channels = np.repeat(signed, [s.shape[0] for s in synapse.sources])
        yield replace(
            synapse,
            sources=tuple(replace(s, negative=True) for s in synapse.sources),
            scale=np.where(channels, -synapse.scale, 0.0),
        )


def _population(
    layer: IF | Readout,
    branches: list[Synapse],
    bias: np.ndarray,
    network: Network,
    n_steps: int,
    shift_steps: int,
    before: Sequence[Population | MaxPool],
) -> Population:
    """Neurons charged by `branches` and `bias`, with the shift for `shift_steps`; `before` are the
    populations that they read.
    """
    output_shape = network.shapes[layer.name]
    shape = as_map(output_shape)
    analog = network.input.encoding == "constant"
    drives = tuple(b for b in branches if analog and b.sources[0].population == INPUT)
    spiking = [s for b in branches if b not in drives for s in _both_signs(b, before)]
    synapses = (*(b for b in spiking if not b.channelwise), *(b for b in spiking if b.channelwise))
    v_threshold, v_negative, v_init, leak, delay = None, None, np.zeros(shape[0]), 1.0, 0
    bias = np.array(bias, np.float64)
    if isinstance(layer, IF):
        v_threshold = np.broadcast_to(layer.v_threshold, shape[:1]).astype(np.float32)
        v_init = np.broadcast_to(layer.v_init, shape[:1]).astype(np.float64)
        leak, delay = layer.leak, min(layer.delay, n_steps)
        if layer.shift and network.shift == "bias":
            bias += v_threshold.astype(np.float64) / (2 * shift_steps)
        elif layer.shift and network.shift == "initial":
            v_init = v_init + v_threshold.astype(np.float64) / 2
        if layer.signed:
            v_negative = np.maximum(
                -layer.signed * v_threshold.astype(np.float64), np.finfo(np.float32).min
            ).astype(np.float32)
    return Population(
        layer.name,
        shape,
        output_shape,
        synapses,
        drives,
        bias.astype(np.float32),
        v_threshold,
        v_init.astype(np.float32),
        leak,
        v_negative,
        delay,
    )
