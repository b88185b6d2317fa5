"""The neuron: what it is, and one step of it. All Python code that computes a neuron's step uses this.

At step u, with I(u) the current of its projections and its bias::

    v *= leak                       if there is a leak
    v += I(u)
    s = 1 if v >= v_threshold       after the first `warm_up_steps` steps; before, it only integrates
    s = -1 if v < v_negative        if it does not fire, and its net count n is above 0
    v -= v_threshold * s            soft reset
    n += s

A neuron with `levels` L sends graded spikes: it integrates all T steps at once, and then sends its count n,
how many of V, 2 V, ..., L V its membrane has reached (Deng & Gu 2021, eq. 7, clip(floor(v / V), 0, L)).

After T steps of input, `warm_up_steps` more steps follow without input. In integers the leak is ``v -= v >>
k`` for a leak of 1 - 2^-k. The same step on intervals proves how wide a membrane has to be
(`Neuron.bounds_after`). Kernels and the C runtime have steps of their own; tests compare them with this one.

A neuron names its `features`. A back end lists in `SUPPORTS` the features that it computes, and `require`
refuses the others by name. So a new option of a neuron is a field here, its part of the step, and a feature.
A back end that does not compute it refuses it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RunError
from ..network.layers import IF
from .interval import Interval

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = [
    "GRADED",
    "LEAK",
    "NEGATIVE_SPIKES",
    "NEURON_FEATURES",
    "WARM_UP",
    "Membranes",
    "Neuron",
    "leak_shift",
    "require",
    "shift_current",
]

GRADED = "graded spikes"
LEAK = "leak"
NEGATIVE_SPIKES = "negative spikes"
WARM_UP = "warm-up"

NEURON_FEATURES = frozenset({GRADED, LEAK, NEGATIVE_SPIKES, WARM_UP})
"""What a neuron may do besides integrating, firing and resetting by subtraction."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Neuron:
    """The neurons of a population: their parameters, channel by channel.

    Parameters
    ----------
    v_threshold : (channels,) float32 or integer, optional
        Above 0. None: the neuron integrates and never fires.
    v_init : (channels,) float32 or integer
        The membrane before the first step.
    leak : float in [0, 1]
        Share of the membrane that is kept from step to step.
    v_negative : (channels,) float32 or integer, optional
        At most 0: a neuron whose membrane is below it and whose net count is above 0 sends a negative spike.
        None: no neuron sends one, or none could.
    warm_up_steps : int
        Steps of input before the first that may fire.
    levels : int, optional
        The largest count of a graded spike. None: it sends a spike per step, one at most.
    """

    v_threshold: np.ndarray | None
    v_init: np.ndarray
    leak: float = 1.0
    v_negative: np.ndarray | None = None
    warm_up_steps: int = 0
    levels: int | None = None

    @classmethod
    def of_layer(cls, layer: IF, channels: int, shift: str, n_steps: int, coding: str = "steps") -> Neuron:
        """The neurons of an `IF` layer in a run of `n_steps`.

        Parameters
        ----------
        layer : IF
        channels : int
            Of the layer; pairs are twice as many neurons.
        shift : {"bias", "initial", "none"}
            The network's shift. "initial" is a part of the first membrane; "bias" is a current, see
            `shift_current`.
        n_steps : int
            A warm-up that is longer is cut to it.
        coding : {"steps", "graded"}
            Graded neurons fire after all input, so they have no negative spikes and no warm-up.
        """
        v_threshold = layer.per_neuron(layer.v_threshold, channels).astype(np.float32)
        v_init = layer.per_neuron(layer.v_init, channels).astype(np.float64)
        if layer.shift and shift == "initial":
            v_init = v_init + v_threshold.astype(np.float64) / 2
        v_negative = None
        graded = coding == "graded"
        if layer.negative_threshold and not graded:
            v_negative = (-layer.negative_threshold * v_threshold.astype(np.float64)).astype(np.float32)
        return cls(
            v_threshold=v_threshold,
            v_init=v_init.astype(np.float32),
            leak=layer.leak,
            v_negative=v_negative,
            warm_up_steps=0 if graded else min(layer.warm_up_steps, n_steps),
            levels=(layer.levels or n_steps) if graded else None,
        )

    @property
    def threshold(self) -> np.ndarray:
        """`v_threshold` of neurons that fire."""
        if self.v_threshold is None:
            raise RunError("these neurons never fire: they have no threshold")
        return self.v_threshold

    @classmethod
    def integrator(cls, channels: int) -> Neuron:
        """The neurons of a readout: they start at 0 and never fire."""
        return cls(v_threshold=None, v_init=np.zeros(channels, np.float32))

    @property
    def fires(self) -> bool:
        """Whether it sends spikes."""
        return self.v_threshold is not None

    @property
    def has_negative_spikes(self) -> bool:
        """Whether it may send negative spikes."""
        return self.v_negative is not None

    @property
    def features(self) -> frozenset[str]:
        """What it does besides integrating, firing and resetting by subtraction, of `NEURON_FEATURES`."""
        found = {
            LEAK: self.leak != 1,
            NEGATIVE_SPIKES: self.has_negative_spikes,
            WARM_UP: self.warm_up_steps > 0,
            GRADED: self.levels is not None,
        }
        return frozenset(name for name, used in found.items() if used)

    def in_integers(self, scale: np.ndarray, extra: np.ndarray | int) -> Neuron:
        """The same neurons in units of `scale` (channels,), rounded to int64.

        `extra` is added to the first membrane.
        """
        return Neuron(
            v_threshold=None
            if self.v_threshold is None
            else np.maximum(1, rounded(self.v_threshold / scale)),
            v_init=rounded(self.v_init / scale) + extra,
            leak=self.leak,
            v_negative=None if self.v_negative is None else rounded(self.v_negative / scale),
            warm_up_steps=self.warm_up_steps,
            levels=self.levels,
        )

    def bounds_after(
        self, n_steps: int, least: np.ndarray, most: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and largest integer membrane at any comparison, or at the end of any step.

        A neuron's own negative spike needs no term: after it the membrane is below the threshold, as it may
        have been after the positive spike before, with more steps to come.

        Parameters
        ----------
        n_steps : int
        least, most : (channels,) int64
            The smallest and the largest current of a step.

        Returns
        -------
        low, high : (channels,) int64
        """
        v, th, shift = (
            Interval(self.v_init),
            self.v_threshold,
            leak_shift(self.leak) if self.leak < 1 else None,
        )
        waits = n_steps if th is None else min(self.warm_up_steps, n_steps)
        if shift is not None:
            v.leak_and_fire(waits, least, most, None, shift)
            v.leak_and_fire(n_steps - waits, least, most, th, shift)
        else:
            v.integrate(waits, least, most)
            if th is not None:
                v.fire(n_steps - waits, least, most, th)
        if th is not None:  # output steps that follow without input
            v.fire(waits, np.zeros_like(least), np.zeros_like(most), th)
        return v.lowest, v.highest

    def bounds_of_run(self, least: np.ndarray, most: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `bounds_after`, of a neuron that takes in all of its input at once: graded spikes.

        Parameters
        ----------
        least, most : (channels,) int64
            The smallest and the largest sum of all input.
        """
        v = Interval(self.v_init)
        v.integrate(1, least, most)
        if self.v_threshold is not None:
            v.fire(self.levels or 0, np.zeros_like(least), np.zeros_like(most), self.v_threshold)
        return v.lowest, v.highest


class Membranes:
    """The membranes and net counts of neurons, and what a step does with them.

    Parameters
    ----------
    neuron : Neuron
    shape : tuple of int
        The shape of all membranes.
    axis : int
        The axis of the channels.
    dtype : {float32, int64}
        Of the membranes.
    count_dtype : data type, optional
        Of the net counts.

    Attributes
    ----------
    v : (shape) array
        Membranes; currents are added to them in place.
    n : (shape) array
        Net counts: spikes less negative spikes.
    """

    def __init__(
        self,
        neuron: Neuron,
        shape: tuple[int, ...],
        axis: int,
        dtype: DTypeLike,
        count_dtype: DTypeLike = np.int64,
    ):
        self.neuron = neuron
        ones = (1,) * (len(shape) - 1 - axis % len(shape))
        self._rows = {
            name: np.ascontiguousarray(values, dtype).reshape(-1, *ones)
            for name, values in (
                ("th", neuron.v_threshold),
                ("negative", neuron.v_negative),
                ("first", neuron.v_init),
            )
            if values is not None
        }
        self.v = np.empty(shape, dtype)
        self.n = np.empty(shape, count_dtype)
        self._fired, self._amount = np.empty(shape, bool), np.empty(shape, dtype)
        self.reset()

    def reset(self) -> None:
        """Set membranes and net counts as they are before the first step."""
        self.v[...] = self._rows["first"]
        self.n[...] = 0

    def leak(self) -> None:
        """Apply the leak, before a step's input. A float32 membrane is never -0.0 after it."""
        leak = self.neuron.leak
        if leak == 1:
            return
        if self.v.dtype == np.float32:
            self.v *= np.float32(leak)
            self.v += np.float32(0)
        else:
            self.v -= self.v >> leak_shift(leak)

    def fire(self, out: np.ndarray) -> np.ndarray:
        """Compare, reset and count.

        Parameters
        ----------
        out : (shape) int8 or bool
            It is filled with -1, 0 or 1 per neuron; bool only if there are no negative spikes.

        Returns
        -------
        (shape) int8 or bool
            `out`.
        """
        np.greater_equal(self.v, self._rows["th"], out=self._fired)
        out[...] = self._fired
        if self.neuron.has_negative_spikes:
            out -= (self.v < self._rows["negative"]) & (self.n > 0)
        np.multiply(out, self._rows["th"], out=self._amount, casting="unsafe")
        self.v -= self._amount
        self.n += out
        return out

    def fire_graded(self) -> np.ndarray:
        """Count the levels that the membranes have reached, and reset by as many thresholds.

        Returns
        -------
        (shape) array
            `n`, 0 to `Neuron.levels`.
        """
        levels, th = self.neuron.levels, self._rows["th"]
        if levels is None:
            raise RunError("these neurons send no graded spikes")
        for k in range(1, levels + 1):
            self.n += self.v >= _times(k, th)
        self.v -= _times(self.n, th)
        return self.n


def _times(n: np.ndarray | int, threshold: np.ndarray) -> np.ndarray:
    """n thresholds: of float32 formed in float64 and rounded once."""
    if threshold.dtype != np.float32:
        return n * threshold
    return (n * threshold.astype(np.float64)).astype(np.float32)


def leak_shift(leak: float) -> int:
    """The k of a leak of 1 - 2^-k."""
    return int(round(-np.log2(1 - leak)))


def shift_current(layer: IF, channels: int, shift: str, shift_steps: int) -> np.ndarray:
    """The current of the shift: V_th/2T per step if the network's shift is "bias" and applies here, else 0.

    Deng & Gu 2021, section 3.2.

    Parameters
    ----------
    layer : IF
    channels : int
    shift : {"bias", "initial", "none"}
        The network's.
    shift_steps : int
        T of the shift.

    Returns
    -------
    (channels,) float64
        In units of the ANN's activations; (2 channels,) of pairs.
    """
    if not layer.shift or shift != "bias":
        return np.zeros(2 * channels if layer.paired else channels)
    v_threshold = layer.per_neuron(layer.v_threshold, channels).astype(np.float32)
    return v_threshold.astype(np.float64) / (2 * shift_steps)


def rounded(values: np.ndarray) -> np.ndarray:
    """Values rounded to int64. What is far beyond 32 bits stays far beyond them, and is refused later."""
    return np.rint(np.clip(values, -(2.0**40), 2.0**40)).astype(np.int64)


def require(
    features: Iterable[str], supports: Collection[str], backend: str, where: str | None = None
) -> None:
    """Refuse what a back end does not compute.

    Parameters
    ----------
    features : iterable of str
        The features that are needed.
    supports : collection of str
        The features that the back end computes.
    backend : str
        Its name for people: "the engine".

    Raises
    ------
    RunError
        If a feature is missing; the message names the first.
    """
    missing = sorted(set(features) - set(supports))
    if missing:
        raise RunError(
            f"{backend} does not support {missing[0]}",
            where=where,
            got=", ".join(missing),
            expected=", ".join(sorted(supports)) or "plain neurons",
            hint="use another back end, or a network without it",
        )
