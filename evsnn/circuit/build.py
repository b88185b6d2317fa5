"""From a network to the circuit of a number of steps.

Average pools, flattening, concatenation and sums have no neurons; they are folded away here. Each `IF` (and a
`Readout` that integrates) becomes one `Population`. The linear expression before it becomes a list of
projections. A `Projection` is a convolution of spike sources with effective weights: the ANN's weight times
the source's spike amplitude, divided by the area of the pooling window, formed in float64 and rounded to
float32 once. Each `MaxPool2d` becomes one `MaxPool` for each population that it reads.

What depends on the number of steps T is decided here and in `quantize`, because T is known here: the shift
V_th/2T, the step parameters of the network, the length of a warm-up, and what integers must hold.
`Circuit.depends_on_steps` names what was decided, for runs that would pass T.

A projection that reads neurons with negative spikes is followed by a second projection, which reads the
negative spikes with the same weights and with amplitudes of the other sign. Neurons that can never send a
negative spike, most often those of the first layer, lose the option (`drop_silent_negatives`).

An `IF` with a negative slope is a population of twice its channels: neurons 2k and 2k + 1 of a position carry
the values of channel k above and below 0. Its projections have each row of weights twice, the second with the
other sign; what reads it has each column twice, and the second has an amplitude of the other sign times the
slope.

Order of the sums (part of the specification, docs/arithmetic.md): projections that gather (convolutions and
linear layers) as their branches are listed, then those with one weight per channel (depthwise convolutions
and identity shortcuts of an unpooled population), then the bias with the shift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ..errors import NetworkError, RunError
from ..network.geometry import Window
from ..network.layers import (
    IF,
    MAX_POOL_AREA,
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
)
from ..network.network import CODINGS, MAX_GRADED_STEPS, Network, check_steps
from .neuron import LEAK, WARM_UP, Neuron, shift_current
from .populations import INPUT, Circuit, MaxPool, Population, Projection, Source, as_map

__all__ = ["build_circuit", "drop_silent_negatives", "pair_bytes"]

MAX_PARTS = 1_024
"""Most branches of a sum, or sources of a concatenation, after all before them is folded."""

MAX_ALL_PARTS = 16_384
"""Most projections' sources of all populations: a few hundred bytes of a file can ask for a thousand."""

MAX_REUSE = 64
"""How often all weights of a network may be used together, if they are many: each projection has its own copy
in the engine, and a layer may stand in many sums.
"""

FREE_WEIGHTS = 1 << 24
"""Weights of projections up to which `MAX_REUSE` does not matter."""

MAX_POPULATIONS = 4_096
"""Most populations and max pools."""

_Parts = TypeVar("_Parts", bound=Sequence[object])


@dataclass(frozen=True)
class _View:
    """What a layer between IFs sends without weights: the spikes of some populations, pooled or flattened.

    Parameters
    ----------
    sources : tuple of Source
    amplitudes : tuple of array
        Per source: one value per channel, divided by the pool's area; below 0 for the second of a pair.
    shape : (channels, height, width)
        As the network counts them: a pair is one channel.
    paired : tuple of bool
        Per source: whether two of its channels are one of the network's.
    flat : bool
        Whether maps are flattened to features, source after source.
    """

    sources: tuple[Source, ...]
    amplitudes: tuple[np.ndarray, ...]
    shape: tuple[int, int, int]
    paired: tuple[bool, ...]
    flat: bool = False

    @property
    def seen(self) -> tuple[int, int, int]:
        """The shape of a view that is not flat, in neurons: a pair is two channels."""
        return sum(s.shape[0] for s in self.sources), *self.shape[1:]

    def columns(self, weight: np.ndarray) -> np.ndarray:
        """Weights (n_out, n_in / groups, ...) with a column for each neuron."""
        if not any(self.paired):
            return weight
        if all(self.paired):
            return np.repeat(weight, 2, axis=1)
        times = [
            np.full(s.shape[0] // (2 if p else 1), 2 if p else 1) for s, p in zip(self.sources, self.paired)
        ]
        return np.repeat(weight, np.concatenate(times), axis=1)


def build_circuit(
    network: Network,
    n_steps: int | None = None,
    shift_steps: int | None = None,
    *,
    coding: str | None = None,
    keep_silent_negatives: bool = False,
) -> Circuit:
    """The circuit of a network for a number of steps, in float32.

    Parameters
    ----------
    network : Network
    n_steps : int, optional
        T of the run, which also chooses the step parameters. None: the network's own.
    shift_steps : int, optional
        T of the shift V_th/2T. None: `n_steps`.
    coding : {"steps", "graded"}, optional
        None: the network's own. "steps": spikes per step. "graded": one count per neuron, 0 to T, which it
        sends after all its input; negative spikes and warm-ups, which bring steps nearer to that, are left
        out.
    keep_silent_negatives : bool
        Whether neurons that could never send a negative spike keep the option. Integers need this, because
        they decide it by their own numbers.

    Returns
    -------
    Circuit

    Raises
    ------
    RunError
        If `n_steps` or `shift_steps` is out of range, `shift_steps` is given for a shift without T, or the
        network cannot run with this coding.
    NetworkError
        If a layer cannot be folded; the message names it.
    """
    n_steps = check_steps(network.n_steps if n_steps is None else n_steps, RunError)
    coding = network.coding if coding is None else coding
    _check_coding(network, n_steps, coding)
    decided = ["graded spikes"] if coding == "graded" else []
    if shift_steps is None:
        shift_steps = n_steps
        if network.shift == "bias" and any(isinstance(layer, IF) and layer.shift for layer in network.layers):
            decided.append("shift")
    elif network.shift != "bias":
        raise RunError(
            "the network's shift has no number of steps",
            where="shift_steps",
            got=f"shift {network.shift!r}",
            expected="shift 'bias'",
            hint="leave shift_steps out",
        )
    shift_steps = check_steps(shift_steps, RunError, "shift_steps")
    if network.step_parameters and coding == "steps":
        decided.append("step parameters")
    network = network.at(n_steps, coding)
    views: dict[str, _View] = {}  # of layers that carry spikes, or the input
    currents: dict[
        str, tuple[list[Projection], np.ndarray]
    ] = {}  # of layers that carry a current: projections and bias
    populations: list[Population | MaxPool] = []
    stored = sum(layer.weight.size for layer in network.layers if isinstance(layer, (Conv2d, Linear)))
    room = _Room(MAX_ALL_PARTS, FREE_WEIGHTS + MAX_REUSE * stored)

    def current(name: str) -> tuple[list[Projection], np.ndarray]:
        """The input current that a layer's output brings: projections and a bias."""
        if name in currents:
            return currents[name]
        return [_identity(views[name], network.by_name[name])], np.zeros(views[name].shape[0])

    def add_view(layer: IF, population: Population) -> None:
        """What neurons send, as the layers behind them read it."""
        amplitude = population.neuron.threshold.astype(np.float64)
        if layer.negative_slope is not None:
            amplitude[1::2] *= -layer.negative_slope.astype(np.float64)
        source = Source(len(populations), population.shape, levels=population.neuron.levels or 1)
        shape = as_map(network.shapes[layer.name])
        views[layer.name] = _View((source,), (amplitude,), shape, (layer.paired,))

    for layer in network.layers:
        if isinstance(layer, Input):
            shape = as_map(layer.shape)
            counts = coding == "graded" and layer.encoding != "constant"
            source = Source(INPUT, shape, levels=n_steps if counts else 1)
            views[layer.name] = _View((source,), (np.ones(shape[0]),), shape, (False,))
        elif isinstance(layer, (Conv2d, Linear)):
            bias = np.zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias.astype(np.float64)
            currents[layer.name] = list(_weighted(layer, views[layer.inputs[0]])), bias
        elif isinstance(layer, Add):
            terms = [current(name) for name in layer.inputs]
            branches = _bounded([branch for projections, _ in terms for branch in projections], layer)
            currents[layer.name] = branches, sum((bias for _, bias in terms), np.zeros(()))
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
            view = views[layer.inputs[0]]
            views[layer.name] = _View(
                tuple(
                    Source(len(populations) + i, pool.shape, levels=pool.source.levels)
                    for i, pool in enumerate(pools)
                ),
                view.amplitudes,
                layer.output_shape([view.shape]),
                view.paired,
            )
            populations += pools
        elif isinstance(layer, Flatten):
            views[layer.name] = _flat(views[layer.inputs[0]])
        elif isinstance(layer, Concat):
            views[layer.name] = _joined(views[name] for name in layer.inputs)
            _bounded(views[layer.name].sources, layer)
        elif isinstance(layer, IF) or (isinstance(layer, Readout) and network.readout == "membrane"):
            branches, bias = current(layer.inputs[0])
            room.take(branches, layer)
            population = _population(
                layer, branches, bias, network, n_steps, shift_steps, populations, coding
            )
            if isinstance(layer, IF):
                add_view(layer, population)
            populations.append(population)
    if any(WARM_UP in p.features for p in populations):
        decided.append("warm-up")
    circuit = Circuit(
        network=network,
        n_steps=n_steps,
        input_shape=as_map(network.input_shape),
        populations=tuple(populations),
        depends_on_steps=tuple(decided),
        coding=coding,
    )
    return circuit if keep_silent_negatives else drop_silent_negatives(circuit)


def _check_coding(network: Network, n_steps: int, coding: str) -> None:
    """Refuse a coding that there is not, or that a network has no meaning in."""
    if coding not in CODINGS:
        raise RunError("unknown coding", got=repr(coding), expected=" or ".join(CODINGS))
    if coding == "steps":
        return
    if n_steps > MAX_GRADED_STEPS:
        raise RunError(
            "there are too many levels for graded spikes",
            where="n_steps",
            got=n_steps,
            expected=f"T from 1 to {MAX_GRADED_STEPS}",
            hint="use fewer, or coding 'steps'",
        )
    for layer in network.layers:
        if isinstance(layer, IF) and layer.leak != 1:
            raise RunError(
                "graded spikes have no times, so a leak has no meaning",
                where=layer._where,
                got=f"leak {layer.leak:g}",
                expected="leak 1",
                hint="use coding 'steps'",
            )


def pair_bytes(network: Network) -> int:
    """Bytes of weights that `build_circuit` makes for pairs: rows before and columns behind them, twice."""
    behind: dict[str, list[Layer]] = {}
    for layer in network.layers:
        for name in layer.inputs:
            behind.setdefault(name, []).append(layer)
    pairs: dict[str, bool] = {}  # whether what a layer carries is of pairs
    for layer in network.layers:
        before = any(pairs[name] for name in layer.inputs)
        pairs[layer.name] = layer.paired if isinstance(layer, IF) else before
        if isinstance(layer, (Conv2d, Linear, Add)):
            pairs[layer.name] = False
    n_bytes = 0
    for layer in network.layers:
        if not isinstance(layer, (Conv2d, Linear)):
            continue
        times = 2 if any(pairs[name] for name in layer.inputs) else 1
        n_bytes += layer.weight.nbytes * times if times > 1 else 0
        for reader in _integrators(layer, behind):
            n_bytes += 2 * layer.weight.nbytes * times if isinstance(reader, IF) and reader.paired else 0
    return n_bytes


def _integrators(layer: Layer, behind: Mapping[str, Sequence[Layer]]) -> Iterator[Layer]:
    """The layers of neurons that integrate a layer's current, through sums, each once."""
    waiting, seen = [layer.name], {layer.name}
    while waiting:
        for reader in behind.get(waiting.pop(), ()):
            if reader.name in seen:
                continue
            seen.add(reader.name)
            if isinstance(reader, (IF, Readout)):
                yield reader
            elif isinstance(reader, (Add, Flatten)):
                waiting.append(reader.name)


def drop_silent_negatives(circuit: Circuit) -> Circuit:
    """The same circuit, of floats or integers, without the negative spikes that can never be sent.

    A neuron whose only input is a constant current, and which starts below its threshold, sends no negative
    spikes: it fires only if the current is above 0, and then its membrane never falls below 0.
    """
    populations: list[Population | MaxPool] = []
    for p in circuit.populations:
        if isinstance(p, MaxPool):
            signs = p.has_negative_spikes and populations[p.source.population].has_negative_spikes
            populations.append(replace(p, has_negative_spikes=signs))
            continue
        neuron = p.neuron
        constant = not p.projections and LEAK not in neuron.features
        if p.has_negative_spikes and constant and (neuron.v_init < neuron.v_threshold).all():
            p = replace(p, neuron=replace(neuron, v_negative=None))
        sent = tuple(
            projection
            for projection in p.projections
            if not projection.negative
            or any(
                s.population != INPUT and populations[s.population].has_negative_spikes
                for s in projection.sources
            )
        )
        populations.append(replace(p, projections=sent) if len(sent) < len(p.projections) else p)
    return replace(circuit, populations=tuple(populations))


@dataclass
class _Room:
    """How many sources and weights of projections are left to the populations to come."""

    sources: int
    weights: int

    def take(self, branches: Sequence[Projection], layer: Layer) -> None:
        """Take what a population's branches need, or refuse the layer."""
        self.sources -= sum(len(branch.sources) for branch in branches)
        self.weights -= sum(branch.weight.size for branch in branches)
        if self.sources < 0 or self.weights < 0:
            raise NetworkError(
                "sums and concatenations have too many parts, with those of the layers before it",
                where=layer._where,
                expected=f"at most {MAX_ALL_PARTS} parts, and each weight {MAX_REUSE} times",
                hint="use fewer sums of sums, or put an IF between them",
            )


def _bounded(parts: _Parts, layer: Layer) -> _Parts:
    """`parts`, or an error if there are too many: a sum of a layer with itself doubles them."""
    if len(parts) > MAX_PARTS:
        raise NetworkError(
            f"the {layer.kind} has too many parts once those before it are folded into it",
            where=layer._where,
            got=len(parts),
            expected=f"at most {MAX_PARTS}",
        )
    return parts


def _pooled(layer: AvgPool2d, view: _View) -> _View:
    pool = layer.window(view.shape)
    sources = []
    for source in view.sources:
        sources.append(replace(source, pool=_composed(layer, source.pool, pool) if source.pool else pool))
    amplitudes = tuple(amplitude / pool.area for amplitude in view.amplitudes)
    return _View(tuple(sources), amplitudes, layer.output_shape([view.shape]), view.paired)


def _composed(layer: AvgPool2d, first: Window, second: Window) -> Window:
    """Two pools in a row as one pool, which is exact only without overlap or padding."""
    if first.stride != first.kernel or any(first.padding) or any(second.padding):
        raise NetworkError(
            "two average pools in a row with overlap or padding cannot be folded",
            where=layer._where,
            hint="make them one pool",
        )
    kernel = first.kernel[0] * second.kernel[0], first.kernel[1] * second.kernel[1]
    if kernel[0] * kernel[1] > MAX_POOL_AREA:
        raise NetworkError(
            "the joint pooling window is too large",
            where=layer._where,
            got=kernel,
            expected=f"an area <= {MAX_POOL_AREA}",
        )
    return Window(kernel, (first.stride[0] * second.stride[0], first.stride[1] * second.stride[1]))


def _max_pools(layer: MaxPool2d, view: _View, before: Sequence[Population | MaxPool]) -> Iterator[MaxPool]:
    """A max pool for each source of a view; if there are several, they are ``pool[0]``, ``pool[1]``."""
    _, height, width = layer.output_shape([view.shape])
    for i, source in enumerate(view.sources):
        if source.pool:
            raise NetworkError(
                "a max pool cannot read average-pooled spikes",
                where=layer._where,
                hint="put an IF between the pools",
            )
        shape = (source.shape[0], height, width)
        name = layer.name if len(view.sources) == 1 else f"{layer.name}[{i}]"
        yield MaxPool(
            name,
            shape,
            shape,
            source,
            layer.window,
            source.population != INPUT and before[source.population].has_negative_spikes,
        )


def _flat(view: _View) -> _View:
    features = int(np.prod(view.shape))
    flat = view.flat or view.shape[1:] != (1, 1)
    return _View(view.sources, view.amplitudes, (features, 1, 1), view.paired, flat)


def _joined(inputs: Iterable[_View]) -> _View:
    views = list(inputs)
    shape = (sum(v.shape[0] for v in views), *views[0].shape[1:])
    return _View(
        tuple(s for v in views for s in v.sources),
        tuple(a for v in views for a in v.amplitudes),
        shape,
        tuple(p for v in views for p in v.paired),
        flat=any(v.flat for v in views),
    )


def _identity(view: _View, layer: Layer) -> Projection:
    """The projection of an identity shortcut: weight 1."""
    if view.flat:
        raise NetworkError(
            "a flattened map cannot be summed without weights",
            where=layer._where,
            hint="put the IF before the Flatten",
        )
    channels, amplitude = view.shape[0], np.concatenate(view.amplitudes)
    weight = np.ones((channels, 1, 1, 1), np.float32)
    if len(set(view.paired)) > 1:  # groups of two neurons beside groups of one
        weight = np.eye(channels, dtype=np.float32)[:, :, None, None]
        return Projection("identity", view.sources, view.seen, view.columns(weight), amplitude)
    return Projection("identity", view.sources, view.seen, view.columns(weight), amplitude, groups=channels)


def _weighted(layer: Conv2d | Linear, view: _View) -> Iterator[Projection]:
    """The projections of a weighted layer that reads `view`."""
    if isinstance(layer, Conv2d):
        name = "conv2d" if layer.groups == 1 else "depthwise" if layer.groups == view.shape[0] else "grouped"
        label = f"{name} {layer.weight.shape[2]}x{layer.weight.shape[3]}"
        yield Projection(
            label,
            view.sources,
            view.seen,
            view.columns(layer.weight),
            np.concatenate(view.amplitudes),
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
    elif not view.flat:
        yield Projection(
            "linear",
            view.sources,
            view.seen,
            view.columns(layer.weight.reshape(-1, *view.shape)),
            np.concatenate(view.amplitudes),
        )
    else:  # a kernel that covers the map, source by source
        start = 0
        for source, amplitude, paired in zip(view.sources, view.amplitudes, view.paired):
            shape = (source.shape[0] // (2 if paired else 1), *source.seen_size)
            size = int(np.prod(shape))
            weight = layer.weight[:, start : start + size].reshape(-1, *shape)
            one = _View((source,), (amplitude,), shape, (paired,))
            yield Projection("linear", (source,), one.seen, one.columns(weight), amplitude)
            start += size


def _both_signs(projection: Projection, populations: Sequence[Population | MaxPool]) -> Iterator[Projection]:
    """A projection from spikes and, if a source has negative spikes, a second projection from those."""
    yield projection
    negative = [
        s.population != INPUT and populations[s.population].has_negative_spikes for s in projection.sources
    ]
    if any(negative):
        channels = np.repeat(negative, [s.shape[0] for s in projection.sources])
        scale = np.ones(projection.shape[0]) if projection.scale is None else projection.scale
        yield replace(
            projection,
            sources=tuple(replace(s, negative=True) for s in projection.sources),
            scale=np.where(channels, -scale, 0.0),
        )


def _population(
    layer: IF | Readout,
    branches: list[Projection],
    bias: np.ndarray,
    network: Network,
    n_steps: int,
    shift_steps: int,
    before: Sequence[Population | MaxPool],
    coding: str,
) -> Population:
    """Neurons that integrate `branches` and `bias`, with the shift for `shift_steps`.

    `before` are the populations that they may read.
    """
    output_shape = network.shapes[layer.name]
    channels = output_shape[0]
    if isinstance(layer, IF) and layer.paired:
        output_shape = (2 * channels, *output_shape[1:])
        branches, bias = [_with_opposites(branch) for branch in branches], _opposites(bias)
    shape = as_map(output_shape)
    constant = network.input.encoding == "constant"
    analog = tuple(b for b in branches if constant and b.sources[0].population == INPUT)
    spiking = [s for b in branches if b not in analog for s in _both_signs(b, before)]
    neuron, bias = Neuron.integrator(shape[0]), np.array(bias, np.float64)
    if isinstance(layer, IF):
        neuron = Neuron.of_layer(layer, channels, network.shift, n_steps, coding)
        bias += shift_current(layer, channels, network.shift, shift_steps)
    return Population(
        name=layer.name,
        shape=shape,
        output_shape=output_shape,
        projections=(*(b for b in spiking if not b.channelwise), *(b for b in spiking if b.channelwise)),
        analog_projections=analog,
        bias=bias.astype(np.float32),
        neuron=neuron,
    )


def _with_opposites(branch: Projection) -> Projection:
    """The currents x and -x of every channel, side by side, in place of x."""
    n_out, *shape = branch.weight.shape
    pairs = np.stack([branch.weight, 0 - branch.weight], axis=1)  # 0 - 0 is 0, and -0 would be -0
    return replace(branch, weight=pairs.reshape(2 * n_out, *shape))


def _opposites(values: np.ndarray) -> np.ndarray:
    """x and -x, side by side, (2 channels,)."""
    return np.stack([values, 0 - values], axis=1).reshape(-1)
