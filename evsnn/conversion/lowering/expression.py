"""What a tensor of the graph is in terms of spikes: sums of convolutions of signals, plus a constant.

Everything linear between two ReLUs is an `Expression`. It stays one, exact in float64, until a ReLU or the
output needs layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...network.geometry import Window
from .convolution import Convolution, pooled_shape

__all__ = ["Expression", "Pending", "Signal", "Term"]

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Signal:
    """A layer of the new network that sends spikes, or the analog input.

    Parameters
    ----------
    layer : str
    shape : (channels, height, width)
        A vector is a map of one position.
    vector : bool
        Whether the layer itself is a vector.
    spiking : bool
        Whether its values are spikes; False for the input.
    signed : bool
        Whether its values may be below 0: pairs of neurons, or the input.
    pools : tuple of Window
        Average pools behind the neurons.
    current : Expression, optional
        The input current of its neurons, if it is their output.
    """

    layer: str
    shape: Shape
    vector: bool = False
    spiking: bool = True
    signed: bool = False
    pools: tuple[Window, ...] = ()
    current: Expression | None = None


@dataclass(frozen=True, eq=False)
class Term:
    """A convolution of a signal; without a kernel, the signal itself.

    The name is that of its node, for people.
    """

    signal: Signal
    kernel: Convolution | None = None
    name: str = ""

    @property
    def shape(self) -> Shape:
        return self.signal.shape if self.kernel is None else self.kernel.output_shape(self.signal.shape)

    def weights(self) -> Convolution:
        return Convolution.diagonal(np.ones(self.signal.shape[0])) if self.kernel is None else self.kernel


@dataclass(frozen=True, eq=False)
class Expression:
    """A map of currents.

    Parameters
    ----------
    terms : tuple of Term
        All of one shape.
    bias : (channels,) float64
    name : str
        The name of the node that made it, for people.
    moments : (mean, deviation), optional
        Each (channels,): those of its values, if a batch norm made it.
    """

    terms: tuple[Term, ...]
    bias: np.ndarray
    name: str = ""
    moments: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, signal: Signal) -> Expression:
        return cls((Term(signal),), np.zeros(signal.shape[0]), signal.layer)

    @property
    def shape(self) -> Shape:
        return self.terms[0].shape

    @property
    def signal(self) -> Signal | None:
        """The signal, if the expression is a signal and nothing else."""
        plain = len(self.terms) == 1 and self.terms[0].kernel is None and not self.bias.any()
        return self.terms[0].signal if plain else None

    @property
    def spikes(self) -> Signal | None:
        """The signal, if the expression is a signal of spikes, never below 0, and nothing else."""
        signal = self.signal
        return signal if signal is not None and signal.spiking and not signal.signed else None

    @property
    def never_negative(self) -> bool:
        """Whether it is a sum of spikes with weights that are not negative, and so equals its ReLU."""
        return bool((self.bias >= 0).all()) and all(
            not t.signal.signed and (t.kernel is None or t.kernel.never_negative) for t in self.terms
        )

    def affine(self, scale: np.ndarray, shift: np.ndarray, name: str) -> Expression:
        """scale * x + shift, both (channels,)."""
        terms = tuple(replace(t, name=t.name or name) for t in self.terms)
        if not (scale == 1).all():
            terms = tuple(replace(t, kernel=t.weights().scaled(scale)) for t in terms)
        return Expression(terms, self.bias * scale + shift, name)

    def merged(self) -> Expression:
        """The same, where terms of one signal whose kernels lie in the same places are one term."""
        found: dict[tuple[object, ...], Term] = {}
        for number, t in enumerate(self.terms):
            k = t.kernel
            if k is None or k.groups > 1 or k.product:
                found[(number,)] = t
                continue
            key = (t.signal.layer, k.size, k.stride, k.padding, k.dilation)
            if key in found:
                weight = found[key].weights().exact() + k.exact()
                t = replace(t, kernel=replace(k, weight=weight, gain=None))
            found[key] = t
        return replace(self, terms=tuple(found.values()))

    @property
    def rows_are_free(self) -> bool:
        """Whether some of its channels cost no more than their share."""
        return all(t.kernel is not None and t.kernel.groups == 1 for t in self.terms)

    def rows(self, chosen: np.ndarray) -> Expression:
        """Some of its channels."""
        terms = tuple(replace(t, kernel=t.weights().rows(chosen)) for t in self.terms)
        moments = self.moments and (self.moments[0][chosen], self.moments[1][chosen])
        return Expression(terms, self.bias[chosen], self.name, moments)


@dataclass(frozen=True, eq=False)
class Pending:
    """The maximum of windows of min(x, cap), which waits for the ReLU behind it.

    The ReLU may also be applied before the maximum.

    Parameters
    ----------
    inner : Expression
        x.
    pools : tuple of (Window, str)
        One after another, each with the name of its node.
    cap : (channels,), optional
    """

    inner: Expression
    pools: tuple[tuple[Window, str], ...] = ()
    cap: np.ndarray | None = None

    def rows(self, chosen: np.ndarray) -> Pending:
        """Some of its channels."""
        return replace(
            self, inner=self.inner.rows(chosen), cap=None if self.cap is None else self.cap[chosen]
        )

    @property
    def shape(self) -> Shape:
        shape = self.inner.shape
        for window, _ in self.pools:
            shape = pooled_shape(window, shape)
        return shape
