"""The log of a power meter: a CSV file of any program, read as seconds and watts.

Meters have no common format. The name of a column says what it holds, and in which unit. If that is not
clear, the file is refused with the number of the line to change.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np

from ..errors import RunError
from ..files.regular import NotRegularError, open_regular

__all__ = ["MAX_LOG_BYTES", "MAX_W", "duration", "read_meter"]

MAX_LOG_BYTES = 64 << 20
MAX_W = 1e6  # more is a wrong unit
_EPOCH_S = (946_684_800.0, 4_102_444_800.0)  # years 2000 to 2100
_SUPPLY_V = (1.0, 60.0)
_NOISE = 0.01  # of the largest power: readings of nothing may be that much below zero
_TITLE_LINES, _LONGEST_HEADER = 20, 10_000  # lines among which the header stands, and its characters
_DELIMITERS = ("\t", ";", ",", " ")  # blanks, if none of the others is in the line
_MUCH_W = 200.0  # more than a small board takes


def read_meter(
    path: str | os.PathLike,
    starts_at: float | None = None,
    power_column: str | None = None,
    supply_v: float | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """What `evsnn.profiling.energy.PowerLog.read` does.

    Returns
    -------
    time_s : (n,) float64
        Seconds since the epoch, strictly ascending.
    power_w : (n,) float64
    warnings : tuple of str

    Raises
    ------
    RunError
    """
    where = os.fspath(path)
    if starts_at is not None and not _EPOCH_S[0] <= starts_at < _EPOCH_S[1]:
        raise RunError(
            "not a time since the epoch",
            where="the start of the power log",
            got=starts_at,
            expected="seconds, of the years 2000 to 2100",
        )
    if supply_v is not None and not _SUPPLY_V[0] <= supply_v <= _SUPPLY_V[1]:
        raise RunError(
            "not the voltage of a supply",
            where="the voltage of the power log",
            got=supply_v,
            expected="{:g} to {:g} V".format(*_SUPPLY_V),
        )
    lines = _Lines(_content(path, where), where)
    header = _header(lines, _Wanted.of(power_column), supply_v)
    return _in_watts(where, _readings(lines, header, starts_at), header, supply_v)


def duration(seconds: float) -> str:
    """A time span in words."""
    return f"{seconds:.3f} s" if seconds < 120 else f"{seconds:.0f} s ({timedelta(seconds=round(seconds))})"


# Lines


def _content(path: str | os.PathLike, where: str) -> bytes:
    """The bytes of a regular file; never of a directory, or of a device or pipe that could block for ever."""
    try:
        with open(open_regular(path), "rb") as file:
            data = file.read(MAX_LOG_BYTES + 1)
    except NotRegularError as error:
        raise RunError("is not a file", where=where, expected="the CSV log of a power meter") from error
    except OSError as error:
        raise RunError("cannot be read", where=where, got=error.strerror) from error
    if len(data) > MAX_LOG_BYTES:
        raise RunError(
            "the log is too large",
            where=where,
            got="more",
            expected=f"at most {MAX_LOG_BYTES} bytes",
            hint="cut out the time of the run and some seconds around it",
        )
    return data


class _Lines:
    """The complete lines of a log, one after another, without their line ends."""

    def __init__(self, data: bytes, where: str):
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            data = data.decode("utf-16", "replace").encode()
        self._file, self._path, self._number = io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")), where, 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            if not line.endswith(b"\n"):  # half written
                return
            self._number += 1
            try:
                yield line.decode().strip("\r\n")
            except UnicodeDecodeError:
                yield line.decode("latin-1").strip("\r\n")

    @property
    def path(self) -> str:
        return self._path

    @property
    def number(self) -> int:
        """Of the line that was given last, from 1."""
        return self._number

    @property
    def where(self) -> str:
        """File and number of the line that was given last."""
        return f"{self._path}:{self._number}"

    def go_to(self, number: int) -> None:
        """Give the line after line `number` next."""
        self._file.seek(0)
        for _ in range(number):
            self._file.readline()
        self._number = number


def _cells(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    if '"' in line:
        try:
            return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
        except csv.Error:  # a cell of more than 128 kB, a null character
            return [line]
    return [cell.strip() for cell in line.split(delimiter)]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


# The header

_MILLI, _MICRO = ("m", "milli"), ("u", "µ", "μ", "micro")


def _prefixed(short: str, *names: str) -> dict[str, float]:
    """A unit in all spellings and with all prefixes, each with its factor."""
    scales = dict.fromkeys((short, *names), 1.0)
    for scale, prefixes in ((1e-3, _MILLI), (1e-6, _MICRO)):
        scales |= {f"{prefix}{short}": scale for prefix in prefixes[:-1]} | {
            f"{prefixes[-1]}{name}": scale for name in names
        }
    return scales


_TIME_UNITS = _prefixed("s", "second", "seconds") | {
    "sec": 1.0,
    "secs": 1.0,
    "msec": 1e-3,
    "millis": 1e-3,
    "usec": 1e-6,
    "micros": 1e-6,
}
_UNITS = {
    unit: (kind, scale)
    for kind, scales in (
        ("power", _prefixed("w", "watt", "watts")),
        ("voltage", _prefixed("v", "volt", "volts")),
        ("current", _prefixed("a", "amp", "amps", "ampere", "amperes")),
    )
    for unit, scale in scales.items()
}
_NOUNS = {
    "power": "power",
    "pwr": "power",
    "voltage": "voltage",
    "vbus": "voltage",
    "current": "current",
    "ibus": "current",
}
_LETTERS = {"p": "power", "u": "voltage", "i": "current"}
_RELATIVE = {"elapsed", "relative", "since", "uptime", "runtime"}
_TIMES = {
    "time",
    "times",
    "timestamp",
    "datetime",
    "date",
    "t",
    "ts",
    "epoch",
    "unix",
    "unixtime",
    "clock",
} | _RELATIVE
_QUALIFIERS = {
    "bus",
    "load",
    "avg",
    "average",
    "mean",
    "in",
    "out",
    "input",
    "output",
    "usb",
    "dc",
    "ch",
    *_LETTERS,
}  # what may stand beside a unit of one letter
_OTHERS = {  # other quantities, and other places than the supply
    "wh",
    "mwh",
    "kwh",
    "ah",
    "mah",
    "ws",
    "as",
    "j",
    "mj",
    "kj",
    "joule",
    "joules",
    "va",
    "var",
    "ohm",
    "ohms",
    "c",
    "celsius",
    "hz",
    "energy",
    "capacity",
    "charge",
    "resistance",
    "factor",
    "temperature",
    "temp",
    "shunt",
    "d",
    "dp",
    "dm",
    "dn",
    "cc",
    "min",
    "max",
    "minimum",
    "maximum",
    "peak",
    "limit",
    "set",
    "ripple",
    "zone",
    "ns",
    "minutes",
    "h",
    "hours",  # units of time that no meter should need
}
_KNOWN = {*_TIME_UNITS, *_UNITS, *_NOUNS, *_TIMES, *_QUALIFIERS, *_OTHERS}
_WORD = re.compile(r"[a-zA-Zµμ]+")
_PART_OF_WORD = re.compile(r"[A-Z]?[a-zµμ]+|[A-Z]+(?![a-z])")  # BusV: Bus, V


@dataclass(frozen=True)
class _Column:
    """A column of the log: its place, what it holds, its unit (None: not said) and the words of its name."""

    index: int
    name: str
    kind: str
    scale: float | None
    words: frozenset[str]


@dataclass(frozen=True)
class _Header:
    """The header: its line, and the columns that count.

    `time` is one column, or two for a date and a time of day; `power` is one, or two whose product it is.
    """

    line: str
    delimiter: str
    n_cells: int
    time: tuple[_Column, ...]
    power: tuple[_Column, ...]


def _column(index: int, name: str) -> _Column | None:
    """What a column holds, by its name; None if it is nothing that counts."""
    if not name or len(name) > 100 or name[0].isdigit():
        return None
    words: set[str] = set()
    for word in _WORD.findall(name):
        parts = _PART_OF_WORD.findall(word)
        whole = word.lower() in _KNOWN or any(
            len(part) == 1 and part.islower() for part in parts
        )  # kW is no W
        words.update([word.lower()] if whole else map(str.lower, parts))
    if words & _OTHERS:
        return None
    if words & _TIMES or (words and words <= _TIME_UNITS.keys()):
        scales = {_TIME_UNITS[word] for word in words if word in _TIME_UNITS}
        return _Column(index, name, "time", scales.pop() if len(scales) == 1 else None, frozenset(words))
    units = words & _UNITS.keys()
    kinds = {_NOUNS[word] for word in words if word in _NOUNS}
    if not kinds and (words - units <= _QUALIFIERS or any(len(unit) > 1 for unit in units)):
        kinds = {_UNITS[unit][0] for unit in units} or {_LETTERS[word] for word in words if word in _LETTERS}
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    scales = {_UNITS[unit][1] for unit in units if _UNITS[unit][0] == kind}
    return _Column(index, name, kind, scales.pop() if len(scales) == 1 else None, frozenset(words))


@dataclass(frozen=True)
class _Wanted:
    """A column that the user names, and its unit: ("power" or "current", factor); None: the header has it."""

    name: str
    unit: tuple[str, float] | None

    @classmethod
    def of(cls, text: str | None) -> _Wanted | None:
        """From ``NAME`` or ``NAME=UNIT``."""
        if text is None:
            return None
        name, _, unit = text.rpartition("=") if "=" in text else (text, "", "")
        found = _UNITS.get(unit.strip().lower())
        if not name.strip() or (unit and (found is None or found[0] == "voltage")):
            raise RunError(
                "the column of the power log is not named well",
                where="the column of the power log",
                got=_shown(text),
                expected="NAME or NAME=UNIT, with W, mW, uW, or A, mA, uA",
            )
        return cls(name.strip(), found)

    def column(self, names: Sequence[str]) -> _Column | None:
        """The column among these names; None if it is not there."""
        at = next((i for i, name in enumerate(names) if name.lower() == self.name.lower()), None)
        if at is None:
            return None
        kind, scale = self.unit or (None, None)
        known = _column(at, names[at])
        if kind is None and known is not None and known.kind in ("power", "current"):
            kind, scale = known.kind, known.scale
        return _Column(at, names[at], kind or "power", scale, frozenset())


def _header(lines: _Lines, wanted: _Wanted | None, supply_v: float | None) -> _Header:
    """The header, the line among the first with most columns that count; `lines` goes on after it."""
    at, header = 0, ""
    columns: list[_Column] = []
    for line in itertools.islice(lines, _TITLE_LINES):
        found = max((_columns(line, delimiter, wanted) for delimiter in _DELIMITERS), key=len)
        if len(found) > len(columns):
            at, header, columns = lines.number, line, found
    if not columns:
        lines.go_to(0)
        got, hint = (
            _shown(next(iter(lines), "")),
            "give each column a name with its unit, as in time_s,power_W",
        )
        raise RunError(
            "there is no header that names a time and a power",
            where=f"{lines.path}:1",
            got=got,
            expected="the names of columns",
            hint=hint,
        )
    delimiter = max(
        _DELIMITERS, key=lambda d: (len(_columns(header, d, wanted)), len(_cells(header, d)) * (d != " "))
    )
    columns = _columns(header, delimiter, wanted)
    lines.go_to(at)
    return _Header(
        header,
        delimiter,
        len(_cells(header, delimiter)),
        _time_columns(columns, lines.where),
        _chosen(columns, wanted, lines.where, supply_v),
    )


def _columns(line: str, delimiter: str, wanted: _Wanted | None) -> list[_Column]:
    """The columns that count; if one is wanted as the power, it is the only one beside times.

    A line of words and blanks is a header only if a power or a current has a unit.
    """
    if delimiter == " " and any(other in line for other in _DELIMITERS[:-1]):
        return []
    names = _cells(line.lstrip("# "), delimiter) if len(line) <= _LONGEST_HEADER else []
    found = [column for column in map(_column, range(len(names)), names) if column]
    if wanted is not None:
        column = wanted.column(names)
        times = [c for c in found if c.kind == "time" and (column is None or c.index != column.index)]
        found = [] if column is None else [*times, column]
    units = [c.kind for c in found if c.scale is not None and len(c.name) > 1]  # "a" is a word
    return [] if delimiter == " " and not {"power", "current"}.intersection(units) else found


def _chosen(
    columns: list[_Column], wanted: _Wanted | None, where: str, supply_v: float | None
) -> tuple[_Column, ...]:
    """The columns whose product is the power; with a supply's voltage, it is a factor more of a current."""
    if wanted is None and supply_v is None:
        return _power_columns(columns, where)
    kinds = ("power", "current") if wanted is not None else ("current",)
    found = [column for column in columns if column.kind in kinds]
    if wanted is None and len(found) != 1:
        raise RunError(
            "no column is a current" if not found else "more than one column may be the current",
            where=where,
            got=_named(found or columns),
            expected="one",
            hint="name it: --power-column NAME=mA",
        )
    (column,) = found
    if column.scale is None:
        raise RunError(
            f"the {column.kind} has no unit",
            where=where,
            got=_shown(column.name),
            expected="W, mW or uW; or A, mA or uA with the supply's voltage",
            hint=f"say it: --power-column '{column.name}=W'",
        )
    if (column.kind == "current") != (supply_v is not None):
        raise RunError(
            "a current needs the supply's voltage" if supply_v is None else "a power needs no voltage",
            where=where,
            got=_shown(column.name),
            hint="give it with --meter-voltage" if supply_v is None else "leave --meter-voltage out",
        )
    return (column,)


def _named(columns: Iterable[_Column]) -> str:
    return ", ".join(_shown(column.name) for column in columns)[:200] or "none"


def _time_columns(columns: list[_Column], where: str) -> tuple[_Column, ...]:
    found = [column for column in columns if column.kind == "time"]
    if len(found) > 1:
        found = [column for column in found if not column.words & _RELATIVE] or found
    days, times = ([column for column in found if column.words == {word}] for word in ("date", "time"))
    if len(found) == 2 and days and times:
        return (*days, *times)
    if len(found) != 1:
        problem = "no column is a time" if not found else "more than one column may be the time"
        raise RunError(
            problem,
            where=where,
            got=_named(found or columns),
            expected="one",
            hint="name it with its unit, as in time_s, and the others otherwise",
        )
    return (found[0],)


def _power_columns(columns: list[_Column], where: str) -> tuple[_Column, ...]:
    """One power with a unit, else a voltage and a current; a voltage's unit can be told from its size."""
    by_kind = {
        kind: [column for column in columns if column.kind == kind]
        for kind in ("power", "voltage", "current")
    }
    if len(by_kind["voltage"]) > 1:
        by_kind["voltage"] = [
            column for column in by_kind["voltage"] if column.words & {"bus", "vbus"}
        ] or by_kind["voltage"]
    power, voltage, current = by_kind.values()
    wanted = (
        [voltage, current]
        if not power or (len(power) == 1 and power[0].scale is None and voltage and current)
        else [power]
    )
    for kind, found in zip(("voltage", "current") if len(wanted) == 2 else ("power",), wanted):
        if len(found) > 1:
            raise RunError(
                f"more than one column may be the {kind}",
                where=where,
                got=_named(found),
                expected="one",
                hint=f"name the right one: --power-column '{found[0].name}{'' if found[0].scale else '=W'}'"
                if kind == "power"
                else "give the others other names",
            )
        if not found:
            expected, hint = (
                "power in W, mW or uW, or a voltage and a current",
                "give the supply's voltage with --meter-voltage"
                if current
                else "name the columns with their units, as in power_W",
            )
            raise RunError(
                "no column is a power, nor are a voltage and a current",
                where=where,
                got=_named(columns),
                expected=expected,
                hint=hint,
            )
        if found[0].scale is None and kind != "voltage":
            units = "W, mW or uW" if kind == "power" else "A, mA or uA"
            raise RunError(
                f"the {kind} has no unit",
                where=where,
                got=_shown(found[0].name),
                expected=units,
                hint=f"write it behind the name, as in {kind}_{units[0]}"
                + (f", or say it: --power-column '{found[0].name}=W'" if kind == "power" or power else ""),
            )
    return tuple(found[0] for found in wanted)


# The readings

_NUMBER = re.compile(r"[+-]?([0-9]{1,25}(\.[0-9]{0,25})?|\.[0-9]{1,25})([eE][+-]?[0-9]{1,3})?")
_MISSING = {"", "nan", "na", "n/a", "-", "--", "null", "none"}
_ISO = re.compile(
    r"(\d{4})[-/](\d\d?)[-/](\d\d?)(?:[T"
    r" ]\s*|,\s+)(\d\d?):(\d\d)(?::(\d\d)([.,]\d{1,12})?)?\s*(?:(Z|UTC|GMT)|([+-])(\d\d):?(\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True)
class _Readings:
    """The numbers in the lines: those of the columns whose product is the power."""

    time_s: array
    factors: tuple[array, ...]
    lines: array
    n_missing: int


def _readings(lines: _Lines, header: _Header, starts_at: float | None) -> _Readings:
    clock = _Clock(header, starts_at)
    time_s, factors, numbers, n_missing = array("d"), tuple(array("d") for _ in header.power), array("q"), 0
    needed = max(column.index for column in (*header.time, *header.power))
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#") or line == header.line:
            continue
        cells = _cells(line, header.delimiter)
        if len(cells) <= needed or any(cells[header.n_cells :]):
            commas = header.delimiter == "," and len(cells) > header.n_cells
            hint = (
                "cells are separated by commas here: numbers need a decimal point"
                if commas
                else "cut out lines that are no readings"
            )
            raise RunError(
                "a line is no reading",
                where=lines.where,
                got=f"{len(cells)} cells, {_shown(line)}",
                expected=f"{header.n_cells}",
                hint=hint,
            )
        at = clock.read([cells[column.index] for column in header.time], lines.where)
        read = (_value(cells[column.index], column, header.delimiter, lines.where) for column in header.power)
        values = [value for value in read if value is not None]
        if len(values) < len(factors):
            n_missing += 1
            continue
        time_s.append(at)
        numbers.append(lines.number)
        for factor, value in zip(factors, values):
            factor.append(value)
    if not time_s:
        got = "a header" + (f" and {n_missing} lines without a number" if n_missing else "")
        raise RunError(
            "the log has no readings", where=lines.path, got=got, expected="whole lines of readings"
        )
    return _Readings(time_s, factors, numbers, n_missing)


def _number(text: str, delimiter: str) -> float | None:
    """A finite number; a comma is a decimal point if commas do not separate cells."""
    if delimiter != "," and "." not in text:
        text = text.replace(",", ".")
    if len(text) > 60 or not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def _value(text: str, column: _Column, delimiter: str, where: str) -> float | None:
    """The number in a cell; None if the meter had none."""
    value = _number(text, delimiter)
    if value is None and text.lower() not in _MISSING:
        raise RunError(
            f"the {column.kind} is not a number",
            where=where,
            got=_shown(text),
            expected="a number without its unit",
            hint="cut out lines that are no readings",
        )
    return value


class _Clock:
    """It turns the cells of a time into seconds since the epoch, which must not go backwards.

    The first cell decides whether they are numbers, and in which unit.
    """

    def __init__(self, header: _Header, starts_at: float | None):
        self._delimiter, self._starts_at = header.delimiter, starts_at
        self._unit = header.time[0].scale
        self._scale: float | None = None  # of numbers
        self._zero = 0.0
        self._last: float | None = None

    def read(self, cells: list[str], where: str) -> float:
        text = " ".join(cells)
        number = _number(text, self._delimiter)
        if self._last is None:
            self._settle(number, where)
        if self._scale is None:
            now = self._calendar(text, where)
        elif number is None:
            raise RunError(
                "the time is not a number",
                where=where,
                got=_shown(text),
                expected="a number, as in the first reading",
                hint="cut out lines that are no readings",
            )
        else:
            now = self._zero + self._scale * number
        if not _EPOCH_S[0] <= now < _EPOCH_S[1]:
            got = f"{_shown(text)}, {now:.6g} s since 1970"
            raise RunError(
                "the time is not of this century",
                where=where,
                got=got,
                expected="a time of the years 2000 to 2100",
                hint="name its unit in the header, as in time_ms",
            )
        if self._last is not None and now < self._last:
            hint = "the meter's clock was set meanwhile: cut out what is not of the run"
            got = f"{_shown(text)}, {duration(self._last - now)} before the reading above"
            raise RunError(
                "time goes backwards", where=where, got=got, expected="later readings below", hint=hint
            )
        self._last = now
        return now

    def _settle(self, number: float | None, where: str) -> None:
        absolute = True
        if number is not None:
            scale = self._unit or (1e-6 if number >= 1e14 else 1e-3 if number >= 1e11 else 1.0)
            self._scale, absolute = scale, scale * number >= _EPOCH_S[0]
        if self._starts_at is None and not absolute:
            hint = "say when its time 0 was with --power-start, in seconds since the epoch"
            raise RunError(
                "the times do not count from the epoch",
                where=where,
                got=f"{number:g} in the first reading",
                expected="seconds since 1970, or ISO 8601",
                hint=hint,
            )
        if self._starts_at is not None:
            if absolute:
                raise RunError(
                    "the times count from the epoch already",
                    where=where,
                    got="a start of the log beside them",
                    expected="one of both",
                    hint="leave --power-start out",
                )
            self._zero = self._starts_at

    def _calendar(self, text: str, where: str) -> float:
        found = _ISO.fullmatch(text)
        try:
            if not found:
                raise ValueError("another form")
            year, month, day, hour, minute, second = (int(field or 0) for field in found.groups()[:6])
            offset = timedelta(hours=int(found[10] or 0), minutes=int(found[11] or 0)) * (
                -1 if found[9] == "-" else 1
            )
            zone = timezone(offset) if found[8] or found[9] else None
            moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
            fraction = float(found[7].replace(",", ".")) if found[7] else 0.0
            now = moment.timestamp() + fraction
            if (
                moment.tzinfo is None and self._last is not None and now < self._last
            ):  # the hour that comes twice in autumn
                now = moment.replace(fold=1).timestamp() + fraction
        except (ValueError, OverflowError, OSError) as error:
            expected = "ISO 8601, as 2026-01-31T12:00:00.5, or a number"
            raise RunError(
                "the time cannot be read",
                where=where,
                got=_shown(text),
                expected=expected,
                hint="cut out lines that are no readings",
            ) from error
        return now


def _in_watts(
    where: str, readings: _Readings, header: _Header, supply_v: float | None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Times, powers and warnings, after the powers are checked."""
    power_w = np.full(len(readings.time_s), 1.0 if supply_v is None else supply_v)
    for column, factor in zip(header.power, readings.factors):
        values = np.asarray(factor)
        with np.errstate(over="ignore"):
            power_w *= values * (column.scale or _scale_of_voltage(values, column, where))
    largest, least = int(power_w.argmax()), int(power_w.argmin())
    if not power_w[largest] <= MAX_W:
        at, got = f"{where}:{readings.lines[largest]}", f"{power_w[largest]:.3g} W"
        raise RunError(
            "the power is larger than any board's",
            where=at,
            got=got,
            expected=f"at most {MAX_W:g} W",
            hint="check the units in the header, or say them: --power-column NAME=mW",
        )
    if power_w[least] < -_NOISE * max(float(power_w[largest]), 0.0):
        hint = "the meter may be connected the wrong way round"
        raise RunError(
            "the power is negative",
            where=f"{where}:{readings.lines[least]}",
            got=f"{power_w[least]:.3g} W",
            expected="0 or more",
            hint=hint,
        )
    times, first, counts = np.unique(np.asarray(readings.time_s), return_index=True, return_counts=True)
    found = []
    usual = float(np.median(power_w))
    if usual > _MUCH_W:
        found.append(
            f"the power log has {usual:,.0f} W mostly, more than a small board takes; if its unit is another,"
            " say it: --power-column NAME=mW"
        )
    if readings.n_missing:
        found.append(f"{readings.n_missing} readings of the power log without a number are left out")
    if len(times) < len(power_w):
        found.append(
            f"{len(power_w) - len(times)} readings of the power log have the time of another; their mean"
            " counts"
        )
    return times, np.add.reduceat(power_w, first) / counts, tuple(found)


def _scale_of_voltage(values: np.ndarray, column: _Column, where: str) -> float:
    """Volts or millivolts, whichever a power supply can have."""
    usual = float(np.median(values))
    for scale in (1.0, 1e-3):
        if _SUPPLY_V[0] <= scale * usual <= _SUPPLY_V[1]:
            return scale
    raise RunError(
        "the voltage has no unit",
        where=where,
        got=f"{_shown(column.name)}, {usual:.3g} mostly",
        expected="V or mV",
        hint="write it behind the name, as in voltage_V",
    )
