"""How far an integer membrane can go: intervals that take the neuron's steps, many of them at once.

An interval is the smallest and the largest membrane that some inputs can lead to. A step without a leak moves
its ends by the same amounts until an end passes a threshold or 0, which happens a few times in a run; so the
steps between are taken at once, channel by channel, and a proof takes no longer for 65,536 steps than for 64.
"""

from __future__ import annotations

import numpy as np

__all__ = ["Interval"]

_EVER = np.int64(1 << 40)  # steps: more than any run has


class Interval:
    """The interval of each channel's membrane, and the ends that it ever had.

    Parameters
    ----------
    v : (channels,) int64
        The first membranes.

    Attributes
    ----------
    low, high : (channels,) int64
        The interval now.
    lowest, highest : (channels,) int64
        Its ends so far, at comparisons and behind them.
    """

    def __init__(self, v: np.ndarray):
        self.low = self.high = self.lowest = self.highest = v.astype(np.int64)

    def _reach(self, low: np.ndarray, high: np.ndarray) -> None:
        self.lowest, self.highest = np.minimum(self.lowest, low), np.maximum(self.highest, high)

    def integrate(self, n_steps: int, least: np.ndarray, most: np.ndarray) -> None:
        """Steps with currents from `least` to `most` (channels,), in which nothing fires."""
        if n_steps:
            self._reach(self.low + least, self.high + most)
            self.low, self.high = self.low + n_steps * least, self.high + n_steps * most
            self._reach(self.low, self.high)

    def fire(self, n_steps: int, least: np.ndarray, most: np.ndarray, threshold: np.ndarray) -> None:
        """Steps with currents from `least` to `most`, each with a comparison and a soft reset.

        All arrays are (channels,) int64.
        """
        left = np.full(self.low.shape, n_steps, np.int64)
        while left.any():
            low, high = self.low + least, self.high + most  # when they are compared
            fires, may_fire, twice = low >= threshold, high >= threshold, high >= 2 * threshold
            held = ~fires & may_fire & (low > 0)  # a neuron with a membrane above may have fired
            next_low, next_high = self._reset(low, high, threshold)
            moves_low = np.where(fires, least - threshold, np.where(held, 0, least))
            moves_high = np.where(twice, most - threshold, np.where(may_fire, 0, most))
            low_2 = next_low + least  # and the same of the step behind it
            high_2 = next_high + most
            more = np.minimum.reduce(
                [
                    left - 1,
                    _lasts(low_2 - threshold, moves_low, fires),
                    _lasts(high_2 - threshold, moves_high, may_fire),
                    _lasts(high_2 - 2 * threshold, moves_high, twice),
                    np.where(fires | ~may_fire, _EVER, _lasts(low_2 - 1, moves_low, held)),
                ]
            )
            more = np.where(left > 0, np.maximum(more, 0), 0)
            active = left > 0
            last = np.maximum(more - 1, 0)
            for ends in (
                (low, high),
                (next_low, next_high),
                (low_2 + last * moves_low, high_2 + last * moves_high),
                (next_low + more * moves_low, next_high + more * moves_high),
            ):
                reached = active if ends[0] is low or ends[0] is next_low else active & (more > 0)
                self._reach(np.where(reached, ends[0], self.lowest), np.where(reached, ends[1], self.highest))
            self.low = np.where(active, next_low + more * moves_low, self.low)
            self.high = np.where(active, next_high + more * moves_high, self.high)
            left -= np.where(active, 1 + more, 0)

    def leak_and_fire(
        self, n_steps: int, least: np.ndarray, most: np.ndarray, threshold: np.ndarray | None, shift: int
    ) -> None:
        """Steps that begin with the leak ``v -= v >> shift``, one by one, until they change nothing more."""
        for _ in range(n_steps):
            before = self.low, self.high
            low, high = self.low - (self.low >> shift) + least, self.high - (self.high >> shift) + most
            self._reach(low, high)
            if threshold is not None:
                low, high = self._reset(low, high, threshold)
                self._reach(low, high)
            self.low, self.high = low, high
            if np.array_equal(low, before[0]) and np.array_equal(high, before[1]):
                return

    @staticmethod
    def _reset(low: np.ndarray, high: np.ndarray, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The interval behind the comparison of one from `low` to `high`."""
        return (
            np.where(low >= threshold, low - threshold, np.where(high >= threshold, np.minimum(low, 0), low)),
            np.maximum(high - threshold, np.minimum(high, threshold - 1)),
        )


def _lasts(value: np.ndarray, slope: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """For how many steps values that grow by `slope` stay at least 0 where `reached` is true, and below 0
    where it is false.
    """
    above = np.where(reached, value, -1 - value)  # at least 0 as long as nothing changes
    falls = np.where(reached, -slope, slope)
    steps = np.where(falls > 0, above // np.maximum(falls, 1) + 1, _EVER)
    return np.where(above < 0, 0, steps)
