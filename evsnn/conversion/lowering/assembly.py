"""The layers of a network while a graph is lowered.

ReLUs, pools and the output need layers; everything else stays an expression.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...errors import ModelError
from ...network.geometry import Window
from ...network.layers import (
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
)
from ...network.network import Network
from .convolution import Convolution, pooled_shape
from .expression import Expression, Pending, Signal, Term

__all__ = ["Assembly"]

MAX_TERMS = 8
"""Most terms of a sum; with more, it gets neurons of its own."""

NEURON_COST = 8
"""What a neuron costs in a step, in additions of a weight."""

MAX_WEIGHTS = 1 << 26
"""Most weights of two layers that become one."""


class Assembly:
    """The layers so far; each is made once.

    Parameters
    ----------
    source : Input
        The network's first layer.
    average : bool
        Whether max pools become average pools.
    """

    def __init__(self, source: Input, average: bool = False):
        self.average = average
        self.layers: list[Layer] = []
        self.clips: dict[str, np.ndarray] = {}
        self.moments: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.fixed: set[str] = set()  # neurons that fire at every step or never
        self.notes: dict[str, None] = {}  # ordered, each once
        self._taken: set[str] = set()
        self._made: dict[tuple[object, ...], Signal] = {}
        self._flattened: dict[str, str] = {}
        self._split: dict[
            int, tuple[Expression, Expression]
        ] = {}  # keyed by id; the first of the pair keeps it valid
        channels, *size = source.shape
        height, width = size or (1, 1)
        self.input = Signal(
            self._add(source), (channels, height, width), vector=not size, spiking=False, signed=True
        )

    def note(self, text: str) -> None:
        self.notes[text] = None

    # Neurons

    def relu(self, part: Expression | Pending, name: str, clip: np.ndarray | None = None) -> Expression:
        """min(max(x, 0), clip), and the max pools that waited for it."""
        if isinstance(part, Pending):
            inner = part.inner
            if part.cap is not None:
                clip = part.cap if clip is None else np.minimum(clip, part.cap)
                # A constant that was added behind an upper limit has moved the limit to 0 or below: the
                # channel is always 0.
                if (clip <= 0).any():
                    inner = inner.affine(np.where(clip > 0, 1.0, 0.0), np.zeros(len(clip)), name)
                    clip = np.where(clip > 0, clip, 1.0)
            out = self.relu(inner, name, clip)
            for window, pool in part.pools:
                out = self.expression(self.max_pool(out, window, pool), pool)
            return out
        if clip is None and part.spikes is not None:
            return part
        if clip is not None and part.spikes is not None and part.spikes.current is not None:
            before = self.clips.get(
                part.spikes.layer
            )  # the limit of a ReLU that stands on its own: one neuron does both
            return self._fire(part.spikes.current, name, clip if before is None else np.minimum(clip, before))
        return self._fire(part, name, clip)

    def _fire(self, current: Expression, name: str, clip: np.ndarray | None = None) -> Expression:
        return Expression.of(self._neurons(current, name, clip))

    def _neurons(
        self,
        current: Expression,
        name: str,
        clip: np.ndarray | None = None,
        negative_slope: np.ndarray | None = None,
    ) -> Signal:
        feed, vector = self._current(current)
        layer = self._add(IF(negative_slope=negative_slope, name=self._name(name), inputs=(feed,)))
        if clip is not None:
            self.clips[layer] = np.unique(clip)[0] if np.unique(clip).size == 1 else np.asarray(clip)
        if current.moments is not None:
            self.moments[layer] = current.moments
        signed = negative_slope is not None
        return Signal(layer, current.shape, vector, signed=signed, current=current)

    def split(self, current: Expression, slope: np.ndarray | None = None, name: str = "") -> Expression:
        """relu(x) - slope * relu(-x), from neurons for both signs of a current.

        With a slope of 1 it is the current itself.
        """
        if id(current) in self._split and slope is None:
            return self._split[id(current)][1]
        if slope is None and current.never_negative:
            out = self._fire(current, name or f"{current.name}.carried")
            self.note(f"{current.name}: no ReLU behind it; neurons carry it on, because it is never below 0")
            self._split[id(current)] = (current, out)
            return out
        slopes = np.ones(()) if slope is None else slope
        pairs = self._neurons(current, name or f"{current.name}.split", negative_slope=slopes)
        if slope is None:
            self.note(
                f"{current.name}: no ReLU behind it; neurons for both signs carry it on, x = relu(x) -"
                " relu(-x)"
            )
        out = Expression.of(pairs)
        if slope is None:
            self._split[id(current)] = (current, out)
        return out

    def shared(self, part: Expression | Pending, copies: int) -> Expression | Pending:
        """A current that several layers read: neurons carry it on if that costs less than computing it anew.

        So it is in DenseNet, where each layer reads those before it through a norm and a ReLU of its own.
        """
        if isinstance(part, Pending) or copies < 2 or part.signal is not None:
            return part
        if not all(t.signal.spiking for t in part.terms):  # of the analog input: once for all steps
            return part
        size, signs = int(np.prod(part.shape)), 1 if part.never_negative else 2
        places = int(np.prod(part.shape[1:]))
        work = sum(t.weights().weight.size for t in part.terms) * places
        apart = signs * (work + (NEURON_COST + copies) * size)
        return self.split(part) if apart < copies * work else part

    # Linear operators on expressions

    def convolved(
        self, part: Expression, kernel: Convolution, bias: np.ndarray | None = None, name: str = ""
    ) -> Expression:
        """A convolution of an expression."""
        if not self._composable(part, kernel):
            return self.convolved(self.split(part), kernel, bias, name)
        terms = [
            Term(t.signal, kernel if t.kernel is None else t.kernel.then(kernel), name) for t in part.terms
        ]
        if not all(t.kernel is None or t.kernel.diagonal_like for t in part.terms):
            self.note(f"{name}: made one with the linear layers before it")
        total = np.zeros(kernel.n_out) if bias is None else np.asarray(bias, np.float64)
        if part.bias.any():
            taps = kernel.of_constant(part.bias)
            total = total + taps.sum(axis=(1, 2))
            if (
                any(kernel.padding) and taps.any()
            ):  # the constant is missing in the padding that the kernel reads
                # With one weight per channel beside the analog input, integers keep these as wide as
                # membranes, and the input's weights keep their bits.
                channels = 1 if all(t.signal.spiking for t in part.terms) else kernel.n_out
                border = replace(
                    kernel, weight=-taps[:, None], gain=None, padding=(0, 0, 0, 0), groups=channels
                )
                terms.append(Term(self._ring(part, kernel.padding, channels), border, f"{name}.border"))
                self.note(
                    f"{name}: a constant before a padded convolution; a neuron for each position of the"
                    " border takes it off there"
                )
        return Expression(tuple(terms), total, name)

    def _composable(self, part: Expression, kernel: Convolution) -> bool:
        """Whether a convolution of an expression is one of its signals: exactly, and at no greater cost.

        The other way are neurons for both signs between them, or for one sign if that is enough.
        """
        firsts = [t.kernel for t in part.terms if t.kernel is not None and not t.kernel.diagonal_like]
        if not all(first.composable(kernel) for first in firsts):
            return False
        if not firsts:
            return True
        places, before = (int(np.prod(shape[1:])) for shape in (kernel.output_shape(part.shape), part.shape))
        weights = sum(int(np.prod(first.then_shape(kernel))) for first in firsts)
        if all(first.moves for first in firsts):  # neurons there would repeat those before them
            return weights <= MAX_WEIGHTS
        signs = 1 if part.never_negative else 2
        made = id(part) in self._split
        apart = kernel.weight.size * places  # of a pair, one neuron sends spikes and the other none
        if not made:
            apart += signs * sum(first.weight.size for first in firsts) * before
            apart += signs * NEURON_COST * int(np.prod(part.shape))
        return weights <= MAX_WEIGHTS and weights * places <= apart

    def avg_pool(self, part: Expression | Pending, window: Window, name: str) -> Expression:
        """An average pool; padded zeros count."""
        part = self.expression(part, name)
        if window == Window((1, 1), (1, 1)):
            return part
        beyond = any(p >= k for p, k in zip(window.padding, window.kernel * 2))  # no pool is so
        if all(t.kernel is None or t.kernel.everywhere for t in part.terms) and not (
            beyond or (part.bias.any() and any(window.padding))
        ):
            pooled = (self._pooled(t.signal, window, name) for t in part.terms)
            signals = [signal for signal in pooled if signal is not None]
            if len(signals) == len(part.terms):
                terms = tuple(replace(t, signal=signal) for signal, t in zip(signals, part.terms))
                return Expression(terms, part.bias, part.name if part.signal is None else name)
        return self.convolved(part, Convolution.average(part.shape[0], window), name=name)

    def _pooled(self, signal: Signal, window: Window, name: str) -> Signal | None:
        """An average pool of a signal; None if a pool that it has already does not allow another."""
        tiled = all(p.stride == p.kernel and not any(p.padding) for p in signal.pools)
        if signal.pools and (
            not tiled or any(window.padding) or any(p.area * window.area > 65_535 for p in signal.pools)
        ):
            return None
        key = ("avg", signal.layer, window)
        if key not in self._made:
            layer = AvgPool2d(
                window.kernel, window.stride, window.padding, name=self._name(name), inputs=(signal.layer,)
            )
            self._made[key] = replace(
                signal,
                layer=self._add(layer),
                shape=pooled_shape(window, signal.shape),
                pools=(*signal.pools, window),
                current=None,
            )
        return self._made[key]

    def sum(self, a: Expression, b: Expression, name: str) -> Expression:
        """a + b. A long sum (of blocks without a ReLU behind them) gets neurons of its own."""
        a, b = (self._split[id(x)][1] if id(x) in self._split else x for x in (a, b))
        if len(a.terms) + len(b.terms) > MAX_TERMS:
            a, b = (
                self.split(x) if len(x.terms) == max(len(a.terms), len(b.terms)) > 1 else x for x in (a, b)
            )
        return Expression((*a.terms, *b.terms), a.bias + b.bias, name)

    def max_pool(self, part: Expression | Pending, window: Window, name: str) -> Expression | Pending:
        """A max pool. It needs neurons before it, so the max pool of a current waits for them."""
        if isinstance(part, Pending):
            return replace(part, pools=(*part.pools, (window, name)))
        if window == Window((1, 1), (1, 1)):
            return part
        term = part.terms[0]
        kernel = term.weights()
        increasing = (
            len(part.terms) == 1
            and not term.signal.signed
            and kernel.diagonal_like
            and kernel.n_in == kernel.n_out
            and (kernel.exact() >= 0).all()
        )
        if not increasing:
            return Pending(part, ((window, name),))
        if self.average:
            return self.avg_pool(part, window, name)
        key = ("max", term.signal.layer, window)
        if key not in self._made:
            source = term.signal
            if source.pools:  # evidence accumulates per neuron, not per average of them
                source = self._neurons(Expression.of(source), f"{name}.in")
            layer = MaxPool2d(
                window.kernel, window.stride, window.padding, name=self._name(name), inputs=(source.layer,)
            )
            self._made[key] = Signal(self._add(layer), pooled_shape(window, source.shape))
        return replace(part, terms=(replace(term, signal=self._made[key]),), moments=None, name=name)

    def expression(self, part: Expression | Pending, name: str) -> Expression:
        """An expression that a linear operator can read.

        Upper limits and maxima without a ReLU behind them are made of ReLUs: min(x, c) = c - relu(c - x) and
        max(a, b) = b + relu(a - b).

        Raises
        ------
        ModelError
            If a max pool of values that may be negative has padding.
        """
        if isinstance(part, Expression):
            return part
        out = part.inner
        if part.cap is not None:
            ones = np.ones(len(part.cap))
            below = self._fire(out.affine(-ones, part.cap, name), f"{name}.limit")
            out = below.affine(-ones, part.cap, name)
        for window, pool in part.pools:
            out = self.avg_pool(out, window, pool) if self.average else self._maximum(out, window, pool)
        return out

    def _maximum(self, part: Expression, window: Window, name: str) -> Expression:
        """The largest values of windows, also if they are below 0: along the height, then the width."""
        if any(window.padding):
            raise ModelError(
                "a max pool of values that may be negative has padding",
                where=f"node {name!r}",
                got=f"pads {window.padding}",
                expected="no padding, or a ReLU before or right behind it",
                hint="counts of both signs are not converted yet",
            )
        self.note(f"{name}: a max pool of values of both signs, as max(a, b) = b + relu(a - b)")
        minus = -np.ones(part.shape[0])
        for axis, (kernel, stride) in enumerate(zip(window.kernel, window.stride)):
            seen = []
            for tap in range(kernel):
                weight = np.zeros((part.shape[0], kernel))
                weight[:, tap] = 1
                shape, steps = ((kernel, 1), (stride, 1)) if axis == 0 else ((1, kernel), (1, stride))
                chosen = Convolution(weight.reshape(-1, 1, *shape), stride=steps, groups=part.shape[0])
                seen.append(self.convolved(part, chosen, name=name))
            largest = seen[0]
            for number, other in enumerate(seen[1:], start=1):
                more = self.sum(largest, other.affine(minus, 0 * minus, name), name).merged()
                above = self._fire(more, f"{name}.{'yx'[axis]}{number}")
                largest = self.sum(other, above, name)
            part = largest
        return part

    def joined(self, parts: Sequence[Expression]) -> Expression | None:
        """Parts side by side as one expression, if they are one signal or can be joined to one; else None."""
        if len(parts) == 1:
            return parts[0]
        signals = [p.signal for p in parts if p.signal is not None]
        if len(signals) < len(parts) or len({(s.spiking, s.signed, s.shape[1:]) for s in signals}) > 1:
            return None
        vector = any(s.vector for s in signals)
        names = tuple(self._flat(s) if vector else s.layer for s in signals)
        key = ("concat", names)
        if key not in self._made:
            layer = self._add(Concat(name=self._name("concat"), inputs=names))
            shape = (sum(s.shape[0] for s in signals), *signals[0].shape[1:])
            self._made[key] = Signal(
                layer,
                shape,
                vector,
                signals[0].spiking,
                signals[0].signed,
                tuple(p for s in signals for p in s.pools),
            )
        return Expression.of(self._made[key])

    def stacked(self, parts: Sequence[Expression], name: str) -> Expression:
        """Currents side by side as one expression; weights of other parts are zeros."""
        if len({p.shape[1:] for p in parts}) > 1:
            raise ModelError(
                "maps of different sizes cannot be joined",
                where=f"node {name!r}",
                got=", ".join(str(p.shape) for p in parts),
            )
        starts = np.cumsum([0, *(p.shape[0] for p in parts)])
        terms = []
        for part, start, stop in zip(parts, starts, starts[1:]):
            for term in part.terms:
                kernel = term.weights().dense()
                weight = np.zeros((starts[-1], *kernel.weight.shape[1:]))
                weight[start:stop] = kernel.exact()
                terms.append(replace(term, kernel=replace(kernel, weight=weight, gain=None)))
        return Expression(tuple(terms), np.concatenate([p.bias for p in parts]), name)

    def _ring(self, part: Expression, padding: tuple[int, int, int, int], channels: int) -> Signal:
        """Neurons of a padded map: those of the border fire at every step, the others never."""
        size = part.shape[1:]
        key = ("ring", size, padding, channels)
        if key not in self._made:
            name, limit = f"border_{size[0]}x{size[1]}", np.ones(1)
            term = (
                Term(self.input) if self.input.shape[1:] == size and not self.input.vector else part.terms[0]
            )
            like = term.weights()  # any layer of this size will do, because its weights are 0
            zero = replace(
                like, weight=np.zeros((1, like.n_in, *like.size)), gain=None, groups=1, product=False
            )
            ones = self._neurons(
                Expression((replace(term, kernel=zero, name=f"{name}.zero"),), np.ones(1), name),
                f"{name}.ones",
                limit,
            )
            outside = Convolution(-np.ones((channels, 1, 1, 1)), padding=padding)
            ring = self._neurons(
                Expression((Term(ones, outside, f"{name}.outside"),), np.ones(channels), name),
                name,
                limit,
            )
            self.fixed |= {ones.layer, ring.layer}
            self._made[key] = ring
        return self._made[key]

    # Layers

    def _current(self, part: Expression) -> tuple[str, bool]:
        """A layer that carries an expression, and whether it is a vector."""
        bias = part.bias if part.bias.any() else None
        terms = list(part.terms)
        if bias is not None and all(t.kernel is None for t in terms):
            terms[0] = replace(terms[0], kernel=terms[0].weights())
        vector = any(t.signal.vector or (t.kernel is not None and t.kernel.product) for t in terms)
        if vector and part.shape[1:] != (1, 1):
            raise ModelError(
                "a vector becomes a map",
                where=f"node {part.name!r}",
                hint="spiking layers keep maps as maps; end with a Flatten, or leave it out",
            )
        inputs = []
        for term in terms:
            if term.kernel is None:
                inputs.append(self._flat(term.signal) if vector else term.signal.layer)
                continue
            kernel, name = term.kernel, self._name(term.name or part.name)
            layer: Layer
            if vector:
                layer = Linear(
                    kernel.matrix(term.signal.shape), bias, name=name, inputs=(self._flat(term.signal),)
                )
            else:
                layer = Conv2d(
                    kernel.rounded(),
                    bias,
                    kernel.stride,
                    kernel.padding,
                    kernel.dilation,
                    kernel.groups,
                    name=name,
                    inputs=(term.signal.layer,),
                )
            inputs.append(self._add(layer))
            bias = None
        if len(inputs) == 1:
            return inputs[0], vector
        return self._add(Add(name=self._name(part.name), inputs=tuple(inputs))), vector

    def _flat(self, signal: Signal) -> str:
        """The layer of a signal as a vector."""
        if signal.vector:
            return signal.layer
        if signal.layer not in self._flattened:
            self._flattened[signal.layer] = self._add(
                Flatten(name=self._name(f"{signal.layer}.flat"), inputs=(signal.layer,))
            )
        return self._flattened[signal.layer]

    def _add(self, layer: Layer) -> str:
        self.layers.append(layer)
        self._taken.add(layer.name)
        return layer.name

    def _name(self, name: str) -> str:
        """A valid name like `name` that no layer has yet."""
        base = re.sub(r"[^!-~]+", "_", name)[:112] or "layer"
        unique, count = base, 1
        while unique in self._taken:
            count += 1
            unique = f"{base}.{count}"
        return unique

    def finish(self, outputs: Mapping[str, Expression]) -> Network:
        """The network that reads out expressions, by name; one alone is called "readout".

        Its task is to classify if it has one output and that is a vector.
        """
        feeds = []
        for output in outputs.values():
            feed, _ = self._current(output)
            if output.signal is not None:  # spikes and nothing else: the readout integrates them as they are
                feed = self._add(Add(name=self._name("scores"), inputs=(feed,)))
            feeds.append(feed)
        readouts = []
        for name, feed in zip(outputs, feeds):
            named = self._name(name if len(feeds) > 1 else "readout")
            readouts.append(self._add(Readout(name=named, inputs=(feed,))))
        vector = all(output.shape[1:] == (1, 1) for output in outputs.values())
        return Network(self._needed(readouts), task="classify" if vector and len(feeds) == 1 else "regress")

    def _needed(self, readouts: Sequence[str]) -> list[Layer]:
        """Layers that lead to readouts, and the input."""
        wanted = {*readouts, self.layers[0].name}
        for layer in reversed(self.layers):
            if layer.name in wanted:
                wanted.update(layer.inputs)
        return [layer for layer in self.layers if layer.name in wanted]
