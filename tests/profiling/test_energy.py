"""Energy: estimates by hand, and logs whose energy is known."""

import itertools
import math
import os
import random
import time
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evsnn.errors import EvsnnError, RunError
from evsnn.profiling import energy, meterfile
from evsnn.profiling.energy import PowerLog, estimate, estimate_ann

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


def near(value, **options):
    return pytest.approx(value, rel=1e-6, **options)


def times(seconds=30.0, step=0.1, start=NOON - 10):
    return start + step * np.arange(round(seconds / step) + 1)


def logged(power, at=None, where="log.csv"):
    """A log of the power a function of the time since noon gives."""
    at = times() if at is None else at
    return PowerLog(where, at, np.array([float(power(t - NOON)) for t in at]))


@pytest.fixture
def read(tmp_path):
    def read(text, **options):
        path = tmp_path / "log.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return PowerLog.read(path, **options)

    return read


@pytest.fixture
def refused(read, tmp_path):
    def refused(text, **options):
        with pytest.raises(RunError) as caught:
            read(text, **options)
        message = str(caught.value)
        assert os.fspath(tmp_path / "log.csv") in message and "\n" not in message and len(message) < 700
        return message.replace(os.fspath(tmp_path) + "/", "")

    return refused


# The estimate


def test_estimate_of_a_spiking_network():
    found = estimate("float32", sops=1e9, macs_analog=1e6, cache_bytes=8e9, dram_bytes=8e6)
    assert found == {
        "additions": near(0.9e-3 + 0.9e-6),
        "multiplications": near(3.7e-6),
        "cache": near(20e-3),
        "memory": near(1950e-6),
    }
    assert estimate("int8", 1e9, 1e6, 8e9, 8e6, cache_kb=1024) == {
        "additions": near(0.05e-3 + 0.1e-6),
        "multiplications": near(0.2e-6),
        "cache": near(0.1),
        "memory": near(1950e-6),
    }


def test_estimate_of_the_ann_is_by_the_same_model():
    assert estimate_ann("float32", macs=1e9, weight_bytes=8e6) == {
        "additions": near(0.9e-3),
        "multiplications": near(3.7e-3),
        "cache": near(4e9 / 8 * 20e-12),
        "memory": near(1950e-6),
    }
    assert estimate_ann("int8", 1e9, 8e6) == estimate("int8", 0, 1e9, 1e9, 8e6)
    assert set(map(type, estimate("int8", 0, 0, 0, 0).values())) == {float}


@pytest.mark.parametrize(
    "arguments, options, match",
    [
        (("float16", 1, 1, 1, 1), {}, "unknown arithmetic: got 'float16', expected float32 or int8"),
        (("int8", -1, 1, 1, 1), {}, "sops: not an amount: got -1"),
        (("int8", 1, math.nan, 1, 1), {}, "macs_analog"),
        (("int8", 1, 1, math.inf, 1), {}, "cache_bytes"),
        (("int8", 1, 1, 1, 1), {"cache_kb": 64}, "got 64, expected 8 or 32 or 1024"),
    ],
)
def test_estimate_refuses(arguments, options, match):
    with pytest.raises(RunError, match=match):
        estimate(*arguments, **options)


def test_constants_are_as_published():
    assert (
        energy.FLOAT32_ADD_PJ,
        energy.FLOAT32_MULT_PJ,
        energy.INT8_ADD_PJ,
        energy.INT32_ADD_PJ,
        energy.INT8_MULT_PJ,
    ) == (0.9, 3.7, 0.03, 0.1, 0.2)
    assert (
        energy.INT8_ADD_PJ < energy.INT16_ADD_PJ < energy.INT32_ADD_PJ
        and dict(energy.CACHE_READ_PJ) == {8: 10, 32: 20, 1024: 100}
        and 1300 < energy.DRAM_READ_PJ < 2600
    )


# Energy of known logs


def test_constant_power():
    found = logged(lambda t: 5.0 if 0 <= t <= 8 else 2.0).energy(NOON + 1, NOON + 7)
    assert (found.joules, found.idle_joules, found.total_joules, found.mean_w, found.idle_w) == (
        near(18),
        near(12),
        near(30),
        near(5),
        2.0,
    )
    assert (found.n_readings, found.seconds, found.warnings) == (61, near(6), ())


def test_a_ramp_is_interpolated_at_both_ends():
    found = logged(lambda t: 10 + t, times(step=0.7)).energy(NOON + 0.33, NOON + 9.91, idle_w=0)
    assert found.joules == near((9.91 - 0.33) * (10 + (9.91 + 0.33) / 2)) and found.idle_joules == 0


def test_a_square_wave():
    found = logged(lambda t: 6 if math.floor(t) % 2 else 2, times(step=0.001, seconds=20)).energy(
        NOON, NOON + 8, idle_w=1
    )
    assert found.joules == pytest.approx(8 * 4 - 8, rel=1e-3) and found.mean_w == pytest.approx(4, rel=1e-3)


def test_the_sum_of_the_trapezoids_by_hand():
    rng = np.random.default_rng(3)
    at = NOON - 5 + np.cumsum(rng.uniform(0.05, 0.2, 200))
    power = rng.uniform(2, 9, 200)
    for start, end in ((NOON, NOON + 3), (at[50], at[90]), (at[50] + 0.01, at[90] - 0.01)):
        grid = np.linspace(start - NOON, end - NOON, 400_001)
        dense = np.interp(grid, at - NOON, power)
        assert PowerLog("log", at, power).energy(start, end, 1.5).total_joules == pytest.approx(
            (dense[1:] + dense[:-1]).sum() / 2 * (grid[1] - grid[0]), rel=1e-5
        )


def test_idle_is_the_median_outside_the_run():
    log = logged(lambda t: 5.0 if 0 <= t <= 8 else 50.0 if abs(t + 5) < 0.2 else 2.0)
    assert log.energy(NOON, NOON + 8).idle_w == 2.0
    assert log.energy(NOON, NOON + 8, idle_w=3).idle_w == 3 and log.energy(
        NOON, NOON + 8, idle_w=3
    ).joules == near(16)


def test_what_a_program_draws_while_it_loads_is_not_idle():
    log = logged(lambda t: 2.0 if t < -1 else 7.0, times(15))
    assert log.energy(NOON, NOON + 5).idle_w == 2.0  # most readings are before it
    late = logged(lambda t: 2.0 if t < -7 else 7.0, times(15))
    assert late.energy(NOON, NOON + 5).idle_w == 7.0
    assert late.energy(NOON, NOON + 5, busy_since=NOON - 7.05).idle_w == 2.0
    assert log.energy(NOON, NOON + 5, busy_since=NOON + 2).idle_w == 2.0


@pytest.mark.parametrize(
    "at, hint",
    [
        (times(10, start=NOON - 1), "19 readings over 1.7 s"),
        (np.r_[times(8.1, 0.1, NOON - 0.05), NOON + 15], "2 readings over 0 s"),
        (times(8, start=NOON), "0 readings"),
    ],
)
def test_idle_needs_readings(at, hint):
    with pytest.raises(RunError, match=f"does not say what idle is: got {hint}.* --idle-w"):
        logged(lambda t: 5, at).energy(NOON, NOON + 8.1)


def test_a_run_below_idle_is_warned_about():
    found = logged(lambda t: 1.0 if 0 <= t <= 8 else 2.0).energy(NOON, NOON + 8)
    assert found.joules == near(-8) and found.warnings == ("the run drew less (1 W) than idle (2 W)",)


# Gaps


def without(at, *spans):
    return at[~np.any([(at > NOON + a) & (at < NOON + b) for a, b in spans], axis=0)]


def test_a_small_gap_is_warned_about():
    found = logged(lambda t: 5.0, without(times(), (2, 2.7))).energy(NOON, NOON + 10, 1)
    assert found.joules == near(40) and found.warnings == (
        "no readings for 7.0% of the run (1 gaps, the longest 0.7 s)",
    )


def test_gaps_outside_the_run_do_not_count():
    assert (
        logged(lambda t: 5.0, without(times(), (-9, -1), (11, 19))).energy(NOON, NOON + 10, 1).warnings == ()
    )


def test_short_pauses_are_no_gaps():
    assert (
        logged(lambda t: 5.0, without(times(), *((k, k + 0.4) for k in range(10))))
        .energy(NOON, NOON + 10, 1)
        .warnings
        == ()
    )


@pytest.mark.parametrize("spans", [[(2, 3.5)], [(1, 1.6), (5, 5.6)], [(-10, 1.5)], [(8.5, 30)], [(8.8, 15)]])
def test_large_gaps_are_refused(spans):
    with pytest.raises(
        RunError,
        match=(
            r"log\.csv: the log has gaps in the run: got 1\d% of it in \d gaps, a reading every 0\.1 s"
            r" elsewhere, expected at most 10%"
        ),
    ):
        logged(lambda t: 5.0, without(times(), *spans)).energy(NOON, NOON + 10, 1)


def test_a_log_that_begins_or_ends_a_little_in_the_run():
    found = logged(lambda t: 5.0, without(times(), (-11, 0.55))).energy(NOON, NOON + 10, 1)
    assert found.joules == near(40) and "no readings for 6.0% of the run" in found.warnings[0]


# Clocks


@pytest.mark.parametrize(
    "skew, got, least",
    [
        (-3600 * 3, "ends 10780 s (2:59:40) before the run starts", "here at least 10780.000 s"),
        (-21, "ends 1.000 s before", "here at least 1.000 s"),
        (3600, "starts 3582 s (0:59:42) after the run ends", "here -3582.000 s or less"),
    ],
)
def test_skew_is_told_and_mended_by_an_offset(skew, got, least):
    log = logged(lambda t: 5.0, times() + skew)
    with pytest.raises(RunError) as caught:
        log.energy(NOON, NOON + 8)
    assert (
        got in str(caught.value)
        and f"--power-offset, {least}" in str(caught.value)
        and "log.csv: no reading is from the time of the run" in str(caught.value)
    )
    assert log.energy(NOON, NOON + 8, 2, -skew).joules == near(24)


def test_offset_is_added_to_the_logs_times():
    assert logged(lambda t: 10 + t).energy(NOON, NOON + 4, 0, offset_s=2.0).mean_w == near(10)


@pytest.mark.parametrize(
    "start, end, options, match",
    [
        (NOON, NOON, {}, "took no time: got 0 s"),
        (NOON + 1, NOON, {}, "took no time: got -1 s"),
        (math.nan, NOON, {}, "start: not a number"),
        (NOON, math.inf, {}, "end"),
        (NOON, NOON + 8, {"idle_w": -1}, "--idle-w: not a power"),
        (NOON, NOON + 8, {"idle_w": math.nan}, "idle_w"),
        (NOON, NOON + 8, {"offset_s": math.inf}, "offset_s"),
        (NOON, NOON + 8, {"busy_since": math.inf}, "busy_since"),
        (NOON + 0.01, NOON + 0.22, {}, "too few readings in the run: got 2 in 0.21 s, expected at least 3"),
    ],
)
def test_runs_that_cannot_be_measured(start, end, options, match):
    with pytest.raises(RunError, match=match):
        logged(lambda t: 5.0).energy(start, end, **options)


def test_a_log_of_one_reading_covers_nothing():
    with pytest.raises(RunError, match=r"too few|no reading"):
        logged(lambda t: 5.0, np.array([NOON])).energy(NOON - 1, NOON + 1)


# Headers

ISO = "2026-01-01T12:00:00Z"


@pytest.mark.parametrize(
    "header, row, watts",
    [
        ("time_s,power_W", f"{NOON},4.2", 4.2),
        ("TIME (S),POWER (MW)", f"{NOON},4200", 4.2),
        ("Timestamp [us],Power [uW]", f"{NOON * 1e6:.0f},4200000", 4.2),
        ("t_ms,P_avg_µW", f"{NOON * 1e3:.0f},4.2e6", 4.2),
        ("timestamp,watts", f"{NOON},4.2", 4.2),
        ("time;mW", f"{NOON * 1e3:.0f};4200", 4.2),
        ("seconds\tW", f"{NOON}\t4.2", 4.2),
        ("unix_time,usb power milliwatts", f"{NOON},4200", 4.2),
        ("time,volts,amps", f"{NOON},5,0.8", 4.0),
        ("time,voltage_V,current_mA", f"{NOON},5,800", 4.0),
        ("epoch,Voltage(mV),Current(uA)", f"{NOON},5000,800000", 4.0),
        ("ts,U [V],I [A]", f"{NOON},5,.8", 4.0),
        ("Timestamp[ms],BusV[V],ShuntV[mV],LoadV[V],Current[mA]", f"{NOON * 1e3:.0f},5.0,20,5.02,800", 4.0),
        ("date time;Bus Voltage (V);Load Voltage (V);Load Current (A)", f"{ISO};5,0;5,1;0,8", 4.0),
        ("Time,Voltage,Current (A)", f"{NOON},5.1,1", 5.1),
        ("Time,Voltage,Current (A)", f"{NOON},5100,1", 5.1),
        ("Time,Power,Voltage(V),Current(A)", f"{NOON},1,5,1", 5.0),
        ("time,power_W,voltage_V,current_A", f"{NOON},4,5,1", 4.0),
        ("t_s, V_avg, I_avg_mA, P_avg_mW, P_min_mW, P_max_mW", f"{NOON},5,800,4000,3000,5000", 4.0),
        (
            "timestamp_system_epoch_ms,nvml_power_watts,nvml_integrated_energy_joules",
            f"{NOON * 1e3},4.2,99",
            4.2,
        ),
        (
            (
                "time,power (W),Energy (Wh),Capacity [mAh],D+ (V),D- (V),Temperature (°C),R (ohm),Power"
                " factor,Group"
            ),
            f"{NOON},4.2,1,2,3,4,5,6,7,0",
            4.2,
        ),
        ("Nr;Date;Time;Power [W]", "7;2026-01-01;12:00:00+00:00;4,2", 4.2),
        ("elapsed_s,time_s,power_W", f"0,{NOON},4.2", 4.2),
        ("# time_s,power_W", f"{NOON},4.2", 4.2),
        ('"Time","Power, total (W)"', f'"{ISO}","4.2"', 4.2),
        ("\ufefftime_s,power_W", f"{NOON},4.2", 4.2),
        ("current time,power_W", f"{NOON},4.2", 4.2),
    ],
)
def test_headers(read, header, row, watts):
    log = read(f"{header}\n{row}\n")
    assert (
        log.time_s == near(NOON, abs=0)
        and abs(log.time_s[0] - NOON) < 1e-3
        and log.power_w == near(watts)
        and log.warnings == ()
    )


def test_lines_above_the_header_and_others_that_are_no_readings(read):
    text = (
        f"Measuring voltage and current with INA219 ...\r\nModel,UM25C\r\n\r\ntime_s,power_W\r\n{NOON},4\r\n#"
        f' note\r\n\r\n  \r\ntime_s,power_W\r\n{NOON + 1},5,\r\n"{NOON + 2}","6"\r\n'
    )
    log = read(text)
    assert log.time_s.tolist() == [NOON, NOON + 1, NOON + 2] and log.power_w.tolist() == [4, 5, 6]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(read, encoding):
    assert read(f"time_s;power_µW;Größe\n{NOON};4200000;ä\n".encode(encoding)).power_w == near(4.2)


@pytest.mark.parametrize(
    "header, match",
    [
        (
            "time,power_W,power_mW",
            "log.csv:1: more than one column may be the power: got 'power_W', 'power_mW', expected one. Name",
        ),
        ("time,power", "the power has no unit: got 'power', expected W, mW or uW"),
        ("time,power_kW", "the power has no unit"),
        ("time,power (kW)", "the power has no unit"),
        ("time,current_nA,voltage_V", "the current has no unit"),
        (
            "time,voltage_V,current",
            (
                "the current has no unit: got 'current', expected A, mA or uA. Write it behind the name, as"
                " in current_A"
            ),
        ),
        ("time,voltage_V", "no column is a power, nor are a voltage and a current: got 'time', 'voltage_V'"),
        ("time,note", "no column is a power"),
        ("note,power_W", "log.csv:1: no column is a time: got 'power_W'"),
        ("time (h),power_W", "no column is a time"),
        ("time_ns,power_W", "no column is a time"),
        ("time (min),power_W", "no column is a time"),
        ("time_s,timestamp,power_W", "more than one column may be the time: got 'time_s', 'timestamp'"),
        ("time,ch1_V,ch2_V,current_A", "more than one column may be the voltage"),
        ("one,two", "log.csv:1: there is no header that names a time and a power: got 'one,two'"),
        (f"{NOON},4", "there is no header"),
        (f"{ISO},5 V,1 A", "there is no header"),
        ("", "there is no header"),
        ("\0\0\0", "there is no header"),
        ("time,energy_Wh,shunt_voltage_mV,capacity_mAh", "no column is a power"),
        ("time,power_V", "the power has no unit"),
        ("time,power mW W", "the power has no unit"),
    ],
)
def test_headers_that_are_not_clear(refused, header, match):
    assert match in refused(f"{header}\n{NOON},4,4,4\n")


def test_a_voltage_of_neither_unit(refused):
    assert "the voltage has no unit: got 'Voltage', 230 mostly, expected V or mV" in refused(
        f"Time,Voltage,Current (A)\n{NOON},230,1\n"
    )


# Readings


@pytest.mark.parametrize(
    "text, epoch",
    [
        ("2026-01-01T12:00:00Z", NOON),
        ("2026-01-01 12:00:00.25Z", NOON + 0.25),
        ("2026-01-01T12:00:00,5+00:00", NOON + 0.5),
        ("2026/1/1 13:00:00+01:00", NOON),
        ("2026-01-01T06:30:00.123456789-0530", NOON + 0.123457),
        ("2026-01-01T14:00+02", NOON),
        ("2026-01-01 12:00:00 UTC", NOON),
        (f"{NOON:.3f}", NOON),
        (f"{NOON * 1e3:.0f}", NOON),
        (f"{NOON * 1e6:.0f}", NOON),
    ],
)
def test_times(read, text, epoch):
    assert abs(read(f"time;power_W\n{text};4\n").time_s[0] - epoch) < 1e-5


def test_times_without_a_zone_are_local(read, monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert read("time,power_W\n2026-01-01T13:00:00,4\n").time_s[0] == NOON
        autumn = read(
            "time,power_W\n"
            + "".join(
                f"2026-10-25 {clock},4\n"
                for clock in ("01:59:00", "02:00:00", "02:59:00", "02:00:00", "02:59:00", "03:00:00")
            )
        )
        assert np.diff(autumn.time_s).tolist() == [60, 3540, 60, 3540, 60]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_relative_times(read, refused):
    text = "time,power_W\n0,4\n0.5,5\n"
    assert read(text, starts_at=NOON).time_s.tolist() == [NOON, NOON + 0.5]
    assert read("millis [ms],elapsed (us),mW\n100,5,4000\n", starts_at=NOON).time_s[0] == near(NOON + 0.1)
    assert "log.csv:2: the times do not count from the epoch: got 0 in the first reading" in refused(
        text
    ) and "--power-start" in refused(text)
    for absolute in (
        f"time,power_W\n{NOON},4\n",
        f"time_ms,power_W\n{NOON * 1e3},4\n",
        f"time,power_W\n{ISO},4\n",
    ):
        assert "count from the epoch already" in refused(absolute, starts_at=NOON)
    with pytest.raises(RunError, match="not a time since the epoch"):
        read(text, starts_at=5)


@pytest.mark.parametrize(
    "rows, match",
    [
        (
            [f"{NOON},4", f"{NOON - 3},4"],
            "log.csv:3: time goes backwards: got '1767268797.0', 3.000 s before the reading above",
        ),
        ([f"{NOON},-1", f"{NOON + 1},4"], "log.csv:2: the power is negative: got -1 W"),
        ([f"{NOON},2e6"], "log.csv:2: the power is larger than any board's: got 2e+06 W"),
        ([f"{NOON},4 W"], "log.csv:2: the power is not a number: got '4 W'"),
        ([f"{NOON},inf"], "not a number: got 'inf'"),
        ([f"{NOON},1e999"], "not a number"),
        ([f"{NOON},1_000"], "not a number"),
        ([f"{NOON},٣"], "not a number"),
        ([f"{NOON},0x10"], "not a number"),
        ([f"{NOON}"], "a line is no reading: got 1 cells"),
        ([f"{NOON},4,5"], "got 3 cells, '1767268800.0,4,5', expected 2. Cells are separated by commas here"),
        (["soon,4"], "log.csv:2: the time cannot be read: got 'soon', expected ISO 8601"),
        (["01/02/2026 12:00,4"], "the time cannot be read"),
        (["2026-13-01T12:00:00Z,4"], "the time cannot be read"),
        (["2026-01-01T12:00:00+99:00,4"], "the time cannot be read"),
        (["12:00:00,4"], "cannot be read"),
        ([f"{NOON},4", f"{ISO},4"], "log.csv:3: the time is not a number"),
        ([f"{ISO},4", f"{NOON},4"], "the time cannot be read: got '1767268800.0'"),
        ([f"{NOON * 1e9:.0f},4"], "the time is not of this century"),
        (["0001-01-01T00:00:00Z,4"], "not of this century"),
        (["9999-12-31T23:59:59,4"], ""),
        ([], "the log has no readings: got a header, expected whole lines of readings"),
        ([f"{NOON},", f"{NOON + 1},nan"], "no readings: got a header and 2 lines without a number"),
        (["1" * 100_000 + ",4"], "cannot be read"),
        (['"' + "1" * 200_000 + '",4'], "a line is no reading"),
    ],
)
def test_readings_that_are_refused(refused, rows, match):
    assert match in refused("\n".join(["time,power_W", *rows, ""]))


def test_units_of_the_header_hold(refused):
    assert "the time is not of this century" in refused(f"time_s,power_W\n{NOON * 1e3},4\n")
    assert "the times do not count from the epoch" in refused(f"time_ms,power_W\n{NOON},4\n")


def test_a_decimal_comma_where_semicolons_or_tabs_part_cells(read, refused):
    for delimiter in ";\t":
        assert read(f"time_s{delimiter}power_W\n{NOON:.1f}{delimiter}4,25\n").power_w == near(4.25)
    assert "'1.234,5'" in refused(f"time_s;power_mW\n{NOON:.1f};1.234,5\n")
    assert "'1,234,567'" in refused(f"time_s;power_mW\n{NOON:.1f};1,234,567\n")


def test_missing_numbers_and_readings_of_one_time(read):
    log = read(
        f"time,power_W\n{NOON},4\n{NOON},6\n{NOON + 1},NaN\n{NOON + 2},\n{NOON + 3},--\n{NOON + 4},8\n"
    )
    assert log.time_s.tolist() == [NOON, NOON + 4] and log.power_w.tolist() == [5, 8]
    assert log.warnings == (
        "3 readings of the power log without a number are left out",
        "1 readings of the power log have the time of another; their mean counts",
    )
    found = PowerLog(log.where, times(), np.full(301, 3.0), log.warnings).energy(NOON, NOON + 5)
    assert found.warnings[:2] == log.warnings


def test_noise_about_zero_is_no_negative_power(read):
    assert read(f"time,power_mW\n{NOON},4000\n{NOON + 1},-1\n").power_w.tolist() == [4, -0.001]


@pytest.mark.parametrize("cut", range(1, 15))
def test_a_half_written_last_line_is_ignored(read, cut):
    text = f"time,power_W\n{NOON:.0f},4\n{NOON + 1:.0f},55\n"
    assert read(text[:-cut]).power_w.tolist() == [4]


def test_files_that_are_no_logs(tmp_path, refused):
    for path in (tmp_path, tmp_path / "none.csv", "/dev/zero", "a\0b"):
        with pytest.raises(RunError, match=r"is not a file|cannot be read"):
            PowerLog.read(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="is not a file"):
        PowerLog.read(tmp_path / "pipe")


def test_a_log_too_large_is_not_read(tmp_path):
    with open(tmp_path / "log.csv", "wb") as file:
        file.truncate(meterfile.MAX_LOG_BYTES + 1)
    with pytest.raises(RunError, match="the log is too large: got more, expected at most 67108864 bytes"):
        PowerLog.read(tmp_path / "log.csv")


# From a file to joules


@pytest.mark.parametrize("form", ["s", "ms", "us", "iso", "iso+2", "relative"])
@pytest.mark.parametrize("quantity", ["power_W", "power [mW]", "voltage (V);current (mA)"])
@pytest.mark.parametrize("delimiter, comma", [(",", "."), (";", ","), ("\t", ".")])
def test_known_energy_from_every_form(read, form, quantity, delimiter, comma):
    """A ramp from 3 W, 0.5 W a second more, over an idle of 2 W."""
    rows = []
    for tick in range(-40, 141):
        t = tick / 10
        watts = 3 + t / 2 if 0 <= t <= 10 else 2.0
        scale = {"s": 1.0, "ms": 1e3, "us": 1e6}
        zone = timezone(timedelta(hours=2 if form == "iso+2" else 0))
        at = (
            f"{t + 4:.1f}"
            if form == "relative"
            else (
                f"{(NOON + t) * scale[form]:.1f}"
                if form in scale
                else datetime.fromtimestamp(NOON + t, zone).isoformat()
            )
        )
        values = {
            "power_W": f"{watts:.4f}",
            "power [mW]": f"{watts * 1e3:.1f}",
            "voltage (V);current (mA)": f"5.0;{watts / 5 * 1e3:.2f}",
        }[quantity]
        rows.append(delimiter.join([at, *values.split(";")]).replace(".", comma))
    name = {"ms": "time_ms", "us": "time [us]"}.get(form, "time")
    log = read(
        "\n".join([delimiter.join([name, *quantity.split(";")]), *rows, ""]),
        starts_at=NOON - 4 if form == "relative" else None,
    )
    found = log.energy(NOON + 1, NOON + 9)
    assert (
        found.total_joules == pytest.approx(8 * (3.5 + 7.5) / 2, rel=1e-4)
        and found.idle_w == pytest.approx(2)
        and found.joules == pytest.approx(28, rel=1e-4)
        and found.warnings == ()
    )


# Anything

CELLS = st.one_of(
    st.sampled_from(
        [
            f"{NOON}",
            f"{NOON + 1}",
            f"{NOON * 1e3}",
            ISO,
            "0",
            "1",
            "-1",
            "4.2",
            "4,2",
            "1e308",
            "1e-320",
            "nan",
            "inf",
            "",
            "-",
            '"',
            "'",
            "#",
            "\0",
            "\r",
            "2026-02-30 00:00",
            "0000-00-00 00:00",
            "x" * 300,
        ]
    ),
    st.floats().map(str),
    st.integers().map(str),
    st.text(max_size=8),
)
NAMES = st.one_of(
    st.sampled_from(
        [
            "time",
            "time_s",
            "Time (ms)",
            "date",
            "elapsed",
            "power_W",
            "P [mW]",
            "power",
            "Voltage",
            "bus V",
            "U",
            "I (A)",
            "current_mA",
            "Wh",
            "W",
            "µA",
        ]
    ),
    st.text(max_size=8),
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    delimiter=st.sampled_from(",;\t"),
    names=st.lists(NAMES, min_size=1, max_size=5),
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=5), max_size=6),
    raw=st.binary(max_size=40),
    end=st.sampled_from(["", "\n", "\r\n"]),
    starts_at=st.sampled_from([None, NOON]),
    offset=st.floats(-1e12, 1e12),
    span=st.tuples(st.floats(-10, 10), st.floats(0, 20)),
)
def test_only_run_errors_come_out(tmp_path, delimiter, names, rows, raw, end, starts_at, offset, span):
    path = tmp_path / "log.csv"
    text = "\n".join(delimiter.join(cells) for cells in [names, *rows]) + end
    path.write_bytes(text.encode("utf-8", "replace") + raw)
    examine(path, starts_at, offset, span)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_only_run_errors_come_out_of_bytes(tmp_path, data):
    (tmp_path / "log.csv").write_bytes(data)
    examine(tmp_path / "log.csv", None, 0.0, (0.0, 5.0))


def test_only_run_errors_come_out_of_a_damaged_log(tmp_path):
    rng = random.Random(11)
    good = "time_s;voltage (V);current (mA)\n" + "".join(
        f"{NOON + i / 2:.2f};5,1;{400 + i}\n" for i in range(12)
    )
    for _ in range(1500):
        data = bytearray(good.encode())
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data))
            data[at : at + rng.choice([0, 1, 1, 9])] = rng.choice(
                [b"", b";", b"\n", b"-", b"e9", b"\xff", b"\0", b'"', b",", b"9", b"nan"]
            )
        (tmp_path / "log.csv").write_bytes(data)
        examine(tmp_path / "log.csv", None, 0.0, (0.5, 4.0))


def examine(path, starts_at, offset, span):
    try:
        log = PowerLog.read(path, starts_at=starts_at)
    except RunError as error:
        assert "\n" not in str(error).replace(os.fspath(path), "") and len(str(error)) < 1000
        return
    assert (
        len(log.time_s) == len(log.power_w) > 0
        and np.isfinite(log.power_w).all()
        and (np.diff(log.time_s) > 0).all()
    )
    for off, idle in itertools.product((0.0, offset), (None, 1.0)):
        try:
            found = log.energy(NOON + span[0], NOON + span[0] + span[1], idle, off)
        except EvsnnError as error:
            assert isinstance(error, RunError)
        else:
            assert math.isfinite(found.joules) and found.n_readings >= 3


# Meters whose headers leave something open


def log_of(tmp_path, text, **options):
    (tmp_path / "log.csv").write_text(text)
    return PowerLog.read(tmp_path / "log.csv", **options)


def rows(*values, start=NOON, step=1.0):
    return "".join(f"{start + step * i:.3f}" + "".join(f",{v}" for v in values) + "\n" for i in range(4))


def test_blanks_separate_cells(tmp_path):
    header = "timestamp sample_in_packet voltage_V current_A dp_V dn_V temp_C_ema energy_Ws capacity_As\n"
    lines = "".join(f"{NOON + i} 0 5.0 0.5 0.6 0.6  24 1 1\n" for i in range(3))
    log = log_of(tmp_path, "FNB58 log of a time and of its current\n\n" + header + lines)
    np.testing.assert_allclose(log.power_w, 2.5)


def test_a_column_and_its_unit_can_be_named(tmp_path):
    header = "Date,CPU Utilization,Total Power,CPU Power,GPU Power\n"
    text = header + rows(0.3, 4.5, 3, 1)
    with pytest.raises(
        RunError, match=r"more than one column may be the power.*--power-column 'Total Power=W'"
    ):
        log_of(tmp_path, text)
    np.testing.assert_allclose(log_of(tmp_path, text, power_column="total power=W").power_w, 4.5)
    np.testing.assert_allclose(log_of(tmp_path, text, power_column="CPU Power=mW").power_w, 3e-3)
    with pytest.raises(RunError, match=r"the power has no unit.*--power-column 'CPU Power=W'"):
        log_of(tmp_path, text, power_column="CPU Power")
    with pytest.raises(RunError, match="there is no header"):
        log_of(tmp_path, text, power_column="Power of all=W")
    for bad in ("Total Power=V", "Total Power=kg", "=W", ""):
        with pytest.raises(RunError, match="not named well"):
            log_of(tmp_path, text, power_column=bad)
    joulescope = "#time,current,voltage,power,charge,energy\n" + rows(0.61, 5.1, 3.1, 0, 0)
    with pytest.raises(RunError, match="has no unit"):
        log_of(tmp_path, joulescope)
    np.testing.assert_allclose(log_of(tmp_path, joulescope, power_column="power=W").power_w, 3.1)


def test_a_current_alone_needs_the_supplys_voltage(tmp_path):
    text = "Timestamp(ms),Current(uA),D0-D7\n" + rows(1200, "00000000", start=0)
    with pytest.raises(RunError, match=r"nor are a voltage and a current.*--meter-voltage"):
        log_of(tmp_path, text, starts_at=NOON)
    log = log_of(tmp_path, text, starts_at=NOON, supply_v=3.3)
    np.testing.assert_allclose(log.power_w, 3.3 * 1.2e-3)
    named = log_of(tmp_path, text, starts_at=NOON, supply_v=3.3, power_column="Current(uA)=mA")
    np.testing.assert_allclose(named.power_w, 3.3 * 1.2)
    with pytest.raises(RunError, match="a current needs the supply's voltage"):
        log_of(tmp_path, text, starts_at=NOON, power_column="Current(uA)")
    with pytest.raises(RunError, match="a power needs no voltage"):
        log_of(tmp_path, "time,power_W\n" + rows(4), power_column="power_W", supply_v=5.0)
    with pytest.raises(RunError, match="no column is a current"):
        log_of(tmp_path, "time,power_W\n" + rows(4), supply_v=5.0)
    for bad in (0.0, 230.0, float("nan")):
        with pytest.raises(RunError, match="not the voltage of a supply"):
            log_of(tmp_path, text, supply_v=bad)


def test_more_than_a_board_takes_is_said(tmp_path):
    log = log_of(tmp_path, "time,power_W\n" + rows(3100))
    assert any("3,100 W mostly, more than a small board takes" in warning for warning in log.warnings)
    assert not log_of(tmp_path, "time,power_W\n" + rows(4)).warnings
