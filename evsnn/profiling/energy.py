"""The energy of a run: an estimate from what is computed, and joules from a meter's log.

These are two different numbers. The estimate is the sum of what arithmetic and memory would take in a 45 nm
chip. It leaves out all else that a CPU does, which takes most of its energy: the estimate compares networks,
and does not predict a measurement. A meter measures the whole board; the energy of an idle board is
subtracted.

References
----------
.. [1] M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, pp. 10-14,
   figure 1.1.9, doi:10.1109/ISSCC.2014.6757323: rough costs in 45 nm at 0.9 V.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ..errors import RunError
from .meterfile import MAX_W, duration, read_meter

__all__ = [
    "CACHE_READ_PJ",
    "DRAM_READ_PJ",
    "FLOAT32_ADD_PJ",
    "FLOAT32_MULT_PJ",
    "INT16_ADD_PJ",
    "INT32_ADD_PJ",
    "INT8_ADD_PJ",
    "INT8_MULT_PJ",
    "MeasuredEnergy",
    "PowerLog",
    "estimate",
    "estimate_ann",
]

# Picojoules an operation, [1]_.
FLOAT32_ADD_PJ, FLOAT32_MULT_PJ = 0.9, 3.7
INT8_ADD_PJ, INT32_ADD_PJ, INT8_MULT_PJ = 0.03, 0.1, 0.2
INT16_ADD_PJ = 0.05  # not in [1]_: interpolated between 8 and 32 bits

# Picojoules per read of 64 bits, [1]_; of caches by their size in kB.
CACHE_READ_PJ = MappingProxyType({8: 10.0, 32: 20.0, 1024: 100.0})
DRAM_READ_PJ = 1950.0  # the middle of 1300 to 2600
_READ_BYTES = 8

# By arithmetic: the energy of an addition in the spiking network, of the addition and the multiplication of a
# multiply-add, and the bytes of a weight. Spikes add int8 weights in 16 bits, products of int8 in 32.
_COSTS_PJ = {
    "float32": (FLOAT32_ADD_PJ, FLOAT32_ADD_PJ, FLOAT32_MULT_PJ, 4),
    "int8": (INT16_ADD_PJ, INT32_ADD_PJ, INT8_MULT_PJ, 1),
}


def estimate(
    arithmetic: str,
    sops: float,
    macs_analog: float,
    cache_bytes: float,
    dram_bytes: float,
    *,
    cache_kb: int = 32,
) -> dict[str, float]:
    """An estimate of the energy that a spiking network's arithmetic and memory take, in 45 nm.

    ``additions = sops e_add + macs_analog e_mac_add``, ``multiplications = macs_analog e_mult``,
    ``cache = cache_bytes / 8 e_cache``, ``memory = dram_bytes / 8 e_dram``: the constants of this module.
    Instructions, caches' idling and all else of a CPU are left out.

    Parameters
    ----------
    arithmetic : {"float32", "int8"}
    sops : float
        Synaptic operations: additions of a weight.
    macs_analog : float
        Multiply-adds of the current that the analog input brings.
    cache_bytes, dram_bytes : float
        Bytes that come from caches, and from memory.
    cache_kb : {8, 32, 1024}
        The size of the cache, in kB.

    Returns
    -------
    dict of str to float
        Joules: "additions", "multiplications", "cache" and "memory". Their sum is the estimate.

    Raises
    ------
    RunError
        If an argument is not one of these, or not an amount.
    """
    add, mac_add, mult, _ = _costs(arithmetic)
    for name, amount in (
        ("sops", sops),
        ("macs_analog", macs_analog),
        ("cache_bytes", cache_bytes),
        ("dram_bytes", dram_bytes),
    ):
        if not 0 <= amount < math.inf:
            raise RunError("not an amount", where=name, got=amount, expected="0 or more")
    if cache_kb not in CACHE_READ_PJ:
        raise RunError(
            "a cache of unknown energy",
            where="cache_kb",
            got=cache_kb,
            expected=" or ".join(map(str, CACHE_READ_PJ)),
        )
    picojoules = {
        "additions": sops * add + macs_analog * mac_add,
        "multiplications": macs_analog * mult,
        "cache": cache_bytes / _READ_BYTES * CACHE_READ_PJ[cache_kb],
        "memory": dram_bytes / _READ_BYTES * DRAM_READ_PJ,
    }
    return {part: 1e-12 * energy for part, energy in picojoules.items()}


def estimate_ann(
    arithmetic: str, macs: float, weight_bytes: float, *, cache_kb: int = 32
) -> dict[str, float]:
    """An estimate of the ANN's energy by the same model as `estimate`, for comparison.

    Every multiply-add reads its weight from the cache, as every synaptic operation does, and all weights come
    from memory once. An ANN can keep weights in registers where a spiking network cannot: it may take less
    than this.

    Parameters
    ----------
    arithmetic : {"float32", "int8"}
    macs : float
        Multiply-adds.
    weight_bytes : float
        The bytes of all weights.
    cache_kb : {8, 32, 1024}

    Returns
    -------
    dict of str to float
        Joules, as for `estimate`.

    Raises
    ------
    RunError
        As for `estimate`.
    """
    *_, size = _costs(arithmetic)
    return estimate(arithmetic, 0, macs, macs * size, weight_bytes, cache_kb=cache_kb)


def _costs(arithmetic: str) -> tuple[float, float, float, int]:
    if arithmetic not in _COSTS_PJ:
        raise RunError("unknown arithmetic", got=repr(arithmetic), expected=" or ".join(_COSTS_PJ))
    return _COSTS_PJ[arithmetic]


_IDLE_READINGS, _IDLE_S = 3, 2.0
_RUN_READINGS = 3
_GAP, _GAP_SHARE = 5.0, 0.1  # in median intervals; of the run


@dataclass(frozen=True)
class MeasuredEnergy:
    """The energy of a run, measured by a meter.

    Parameters
    ----------
    joules : float
        The energy of the run less `idle_joules`.
    idle_joules : float
        The energy that an idle board would have taken in the same time.
    mean_w : float
        Mean power in the run, idle included.
    idle_w : float
        Power at idle.
    n_readings : int
        The meter's readings in the run.
    seconds : float
        Length of the run.
    warnings : tuple of str
        What makes the measurement uncertain.
    """

    joules: float
    idle_joules: float
    mean_w: float
    idle_w: float
    n_readings: int
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def total_joules(self) -> float:
        """Idle included."""
        return self.joules + self.idle_joules


@dataclass(frozen=True, eq=False)
class PowerLog:
    """Readings of a meter.

    Parameters
    ----------
    where : str
        The file, for messages.
    time_s : (n,) float64
        Seconds since the epoch, strictly ascending.
    power_w : (n,) float64
        Power in watts.
    warnings : tuple of str
        What was ignored in the file.
    """

    where: str
    time_s: np.ndarray
    power_w: np.ndarray
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        path: str | os.PathLike,
        *,
        starts_at: float | None = None,
        power_column: str | None = None,
        supply_v: float | None = None,
    ) -> PowerLog:
        """Read the CSV file of a meter: a logger with an INA219, or a USB meter's export.

        Cells are separated by tabs, semicolons, commas or blanks; numbers have a point, or a comma if commas
        do not separate cells. The header is among the first lines and names a unit with each quantity, in any
        case and order: ``time_s,power_W``, ``Timestamp[ms];Voltage (V);Current (mA)``. Columns of other names
        are ignored, so are lines that are empty or begin with ``#``, a header that comes again, and a last
        line without an end.

        Parameters
        ----------
        path : path
            At most 64 MiB.
        starts_at : float, optional
            Seconds since the epoch at which the times are 0, for logs whose times do not count from the
            epoch. Their unit is the second if the header has none.
        power_column : str, optional
            ``NAME`` or ``NAME=UNIT``: the column to read, and its unit (W, mW, uW; of a current A, mA, uA),
            for headers that name several powers, or no unit.
        supply_v : float, optional
            The supply's voltage in V, 1 to 60, for logs of a current alone.

        Returns
        -------
        PowerLog
            Readings without a number are left out, those of one time are averaged, both with a warning.

        Notes
        -----
        Time is in s, ms or us since the epoch, by the header or else by its size, or ISO 8601; without a zone
        it is local. A date and a time of day may be two columns. Power is in W, mW or uW, or the product of a
        voltage (V, mV) and a current (A, mA, uA). Of a bus and a load voltage the bus voltage counts, which
        is what an INA219 multiplies itself; shunts, data lines, minima and maxima do not.

        Raises
        ------
        RunError
            If there is no such file, or what it says is not clear.
        """
        return cls(os.fspath(path), *read_meter(path, starts_at, power_column, supply_v))

    def energy(
        self,
        start: float,
        end: float,
        idle_w: float | None = None,
        offset_s: float = 0.0,
        *,
        busy_since: float | None = None,
    ) -> MeasuredEnergy:
        """The energy between two times: the integral of the power (trapezoids), less the energy at idle.

        Parameters
        ----------
        start, end : float
            Seconds since the epoch.
        idle_w : float, optional
            Power at idle; None: the median of the readings outside the run.
        offset_s : float
            Seconds to add to the log's times: the clock of this computer less the meter's.
        busy_since : float, optional
            Seconds since the epoch: readings from then to `start` do not count as idle, because the program
            loads.

        Returns
        -------
        MeasuredEnergy

        Raises
        ------
        RunError
            If the log does not cover the run, has fewer than 3 readings or gaps of more than a tenth in it,
            or does not say what idle is.
        """
        for name, value in (
            ("start", start),
            ("end", end),
            ("offset_s", offset_s),
            ("idle_w", 0.0 if idle_w is None else idle_w),
            ("busy_since", busy_since or 0.0),
        ):
            if not math.isfinite(value):
                raise RunError("not a number", where=name, got=value)
        if not start < end:
            raise RunError(
                "the run took no time",
                got=f"{end - start:g} s",
                expected="more than 0",
                hint="the clock was set back meanwhile, or the run is too short to measure",
            )
        if idle_w is not None and not 0 <= idle_w <= MAX_W:
            raise RunError("not a power", where="--idle-w", got=f"{idle_w:g}", expected=f"0 to {MAX_W:g} W")
        seconds, time_s = end - start, self.time_s + (offset_s - start)  # 0 is the start of the run
        self._check_overlap(time_s, seconds)
        inside = (time_s >= 0) & (time_s <= seconds)
        n_readings = int(inside.sum())
        if n_readings < _RUN_READINGS:
            hint = "run longer, with more samples, or let the meter read more often"
            raise RunError(
                "there are too few readings in the run",
                where=self.where,
                got=f"{n_readings} in {seconds:.3g} s",
                expected=f"at least {_RUN_READINGS}",
                hint=hint,
            )
        found = [*self.warnings, *self._gaps(time_s, seconds)]
        if idle_w is None:
            idle_w = self._idle(
                time_s, seconds, min(busy_since - start, 0.0) if busy_since is not None else 0.0
            )
        times = np.concatenate(([0.0], time_s[inside], [seconds]))
        power = np.interp(times, time_s, self.power_w)
        total = float(np.dot(np.diff(times), power[1:] + power[:-1]) / 2)
        if total < idle_w * seconds:
            found.append(f"the run drew less ({total / seconds:.3g} W) than idle ({idle_w:.3g} W)")
        return MeasuredEnergy(
            total - idle_w * seconds,
            idle_w * seconds,
            total / seconds,
            idle_w,
            n_readings,
            seconds,
            tuple(found),
        )

    def _check_overlap(self, time_s: np.ndarray, seconds: float) -> None:
        late, early = -float(time_s[-1]), float(time_s[0]) - seconds  # how long before or after the run
        if late < 0 and early < 0:
            return
        got = (
            f"a log that ends {duration(late)} before the run starts"
            if late >= 0
            else f"a log that starts {duration(early)} after the run ends"
        )
        least = f"at least {late:.3f} s" if late >= 0 else f"{-early:.3f} s or less"
        hint = (
            f"if the meter's clock is wrong, add seconds to its times with --power-offset, here {least};"
            " whole hours are a time zone"
        )
        raise RunError(
            "no reading is from the time of the run",
            where=self.where,
            got=got,
            expected="one that covers it",
            hint=hint,
        )

    def _gaps(self, time_s: np.ndarray, seconds: float) -> list[str]:
        """A warning about the gaps between readings in the run; an error if they are too large."""
        usual = float(np.median(np.diff(time_s)))
        edges = np.concatenate(([min(0.0, float(time_s[0]))], time_s, [max(seconds, float(time_s[-1]))]))
        parts = np.clip(edges[1:], 0, seconds) - np.clip(edges[:-1], 0, seconds)
        gaps = parts[(np.diff(edges) > _GAP * usual) & (parts > 0)]
        share = float(gaps.sum()) / seconds
        if share > _GAP_SHARE:
            got = f"{share:.0%} of it in {len(gaps)} gaps, a reading every {usual:.3g} s elsewhere"
            raise RunError(
                "the log has gaps in the run",
                where=self.where,
                got=got,
                expected=f"at most {_GAP_SHARE:.0%}",
                hint="measure again, and start the meter before the run",
            )
        if not len(gaps):
            return []
        return [f"no readings for {share:.1%} of the run ({len(gaps)} gaps, the longest {gaps.max():.3g} s)"]

    def _idle(self, time_s: np.ndarray, seconds: float, busy: float) -> float:
        before, after = time_s < busy, time_s > seconds
        n = int(before.sum() + after.sum())
        covered = sum(float(np.ptp(time_s[part])) for part in (before, after) if part.any())
        if n < _IDLE_READINGS or covered < _IDLE_S:
            got = f"{n} readings over {covered:.3g} s outside the run"
            hint = "log some seconds before and after the run, or give the power at idle with --idle-w"
            raise RunError(
                "the log does not say what idle is",
                where=self.where,
                got=got,
                expected=f"at least {_IDLE_READINGS} over {_IDLE_S:g} s",
                hint=hint,
            )
        return float(np.median(self.power_w[before | after]))
