"""Readings → seconds: counters add up over any cut, means are means of the looks, nothing is made up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtrt.live.nvml import THROTTLE_REASONS
from loadtrt.results.gpu_telemetry import SLOWDOWNS, GpuReading, weighted_mean
from loadtrt.stats.gpu_log import GpuLog
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from loadtrt.results.gpu_telemetry import GpuInterval

START = 5_000 * SECOND_NS
MHZ = 1_000_000


def reading(second: float, **fields: Any) -> GpuReading:
    return GpuReading(at_ns=START + round(second * SECOND_NS), **fields)


def log_of(*readings: GpuReading) -> GpuLog:
    log = GpuLog()
    for each in readings:
        log.add(each)
    return log


def some_reasons() -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(sorted(THROTTLE_REASONS.values())), unique=True).map(tuple)


@st.composite
def logs(draw: st.DrawFn, reasons: st.SearchStrategy[tuple[str, ...] | None]) -> tuple[GpuLog, int]:
    """A log from just before START on, and how long it lasts from there, ns. Counters and power are always known."""
    gaps = draw(st.lists(st.integers(1_000, 700_000_000), min_size=2, max_size=30))
    at, energy, log = START - 10, 1e6, GpuLog()
    for gap in gaps:
        log.add(
            GpuReading(
                at_ns=at,
                sm_clock_hertz=draw(st.none() | st.integers(345, 1980).map(lambda clock: clock * MHZ)),
                power_watts=draw(st.floats(50, 700)),
                energy_joules=energy,
                throttle_reasons=draw(reasons),
            )
        )
        last, at = at, at + gap
        energy += draw(st.floats(0, 700))
    return log, last - START


def added_joules(intervals: tuple[GpuInterval, ...]) -> float:
    energies = [interval.energy_joules for interval in intervals]
    assert None not in energies
    return sum(energy for energy in energies if energy is not None)


@settings(max_examples=60)
@given(logs(some_reasons()), st.data())
def test_seconds_add_up_and_merge(made: tuple[GpuLog, int], data: st.DataObject) -> None:
    """[a, c) = [a, b) + [b, c) at every cut b: looks, time and energy add up; weighted means are the same."""
    log, end = made
    cut = data.draw(st.integers(0, end))
    whole = log.intervals(START, START + end)
    parts = (*log.intervals(START, START + cut), *log.intervals(START + cut, START + end))
    assert sum(i.duration_ns for i in whole) == sum(i.duration_ns for i in parts) == end
    assert sum(i.readings for i in whole) == sum(i.readings for i in parts)
    assert added_joules(whole) == pytest.approx(added_joules(parts), abs=1e-6)
    assert weighted_mean(whole, lambda i: i.power_mean_watts) == pytest.approx(
        weighted_mean(parts, lambda i: i.power_mean_watts)
    )
    assert weighted_mean(whole, lambda i: i.throttled_fraction) == pytest.approx(
        weighted_mean(parts, lambda i: i.throttled_fraction)
    )


@settings(max_examples=60)
@given(logs(st.none() | some_reasons()))
def test_shares_are_shares(made: tuple[GpuLog, int]) -> None:
    """Shares are in (0, 1]; the time slowed down is at least each slowdown's, at most their sum; min ≤ mean ≤ max."""
    log, end = made
    for interval in log.intervals(START, START + end):
        clocks = (interval.sm_clock_min_hertz, interval.sm_clock_mean_hertz, interval.sm_clock_max_hertz)
        if clocks[0] is not None and clocks[1] is not None and clocks[2] is not None:
            assert clocks[0] <= clocks[1] * (1 + 1e-12) <= clocks[2] * (1 + 2e-12)
        if interval.throttle_shares is None:
            assert interval.throttled_fraction is None
            continue
        assert all(0 < share <= 1 for share in interval.throttle_shares.values())
        slow = [share for name, share in interval.throttle_shares.items() if name in SLOWDOWNS]
        assert interval.throttled_fraction is not None
        assert max(slow, default=0) <= interval.throttled_fraction <= min(1, sum(slow) + 1e-12)


def test_a_second() -> None:
    """Each number of a second, by hand: two looks, one of them slowed down; counters between the looks around it."""
    capped = ("sw_power_cap", "sync_boost")
    log = log_of(
        reading(-0.5, energy_joules=100.0, pcie_rx_bytes=0),
        reading(0.5, energy_joules=300.0, pcie_rx_bytes=1000, sm_clock_hertz=1980 * MHZ, throttle_reasons=()),
        reading(
            0.9,
            sm_clock_hertz=1410 * MHZ,
            throttle_reasons=capped,
            power_watts=690.5,
            temperature_celsius=70,
            memory_used_bytes=2**40 + 1,
            utilization_ratio=0.5,
            memory_utilization_ratio=0.25,
        ),
        reading(1.5, energy_joules=500.0, pcie_rx_bytes=3000, sm_clock_hertz=345 * MHZ),
    )
    (second,) = log.intervals(START, START + SECOND_NS)
    assert (second.start_ns, second.duration_ns, second.readings) == (0, SECOND_NS, 2)
    assert second.energy_joules == pytest.approx(200.0)  # from 200 J at 0 s to 400 J at 1 s
    assert (second.pcie_rx_bytes, second.pcie_tx_bytes) == (1500, None)
    assert (second.sm_clock_min_hertz, second.sm_clock_max_hertz) == (1410 * MHZ, 1980 * MHZ)
    assert (second.sm_clock_mean_hertz, second.sm_clock_throttled_hertz) == (1695 * MHZ, 1410 * MHZ)
    assert second.throttle_shares == {"sw_power_cap": 0.5, "sync_boost": 0.5}
    assert second.throttled_fraction == 0.5
    assert (second.power_mean_watts, second.power_max_watts, second.temperature_max_celsius) == (690.5, 690.5, 70)
    assert second.memory_used_max_bytes == 2**40 + 1
    assert (second.utilization_mean_ratio, second.memory_utilization_mean_ratio) == (0.5, 0.25)


def test_seconds_are_the_runs_seconds() -> None:
    """They begin at the run's start, whenever that was, and the last one ends with the run."""
    log = log_of(*(reading(0.2 * place) for place in range(20)))
    found = log.intervals(START + 123, START + 123 + 2 * SECOND_NS + 7)
    assert [(i.start_ns, i.duration_ns) for i in found] == [(0, SECOND_NS), (SECOND_NS, SECOND_NS), (2 * SECOND_NS, 7)]
    assert log.intervals(START, START) == ()


def test_a_long_run_has_few_intervals() -> None:
    """Of the length that the run's own have: what they hold is what its seconds hold together."""
    log = log_of(*(reading(0.2 * place, energy_joules=100.0 * place) for place in range(500)))
    seconds = log.intervals(START, START + 90 * SECOND_NS)
    longer = log.intervals(START, START + 90 * SECOND_NS, 32 * SECOND_NS)
    assert [i.start_ns // SECOND_NS for i in longer] == [0, 32, 64]
    assert [i.duration_ns // SECOND_NS for i in longer] == [32, 32, 26]
    for number, interval in enumerate(longer):
        here = seconds[32 * number : 32 * number + 32]
        assert interval.readings == sum(i.readings for i in here)
        assert interval.energy_joules == pytest.approx(added_joules(here))


def test_nothing_is_made_up() -> None:
    """No reading: None. A counter is not extrapolated; one that went backwards (driver reloaded) is not used."""
    assert GpuLog().intervals(START, START + 1)[0].energy_joules is None
    readings = (reading(0.5, energy_joules=100.0), reading(1.5, energy_joules=200.0), reading(3.5, energy_joules=220.0))
    first, second, third, fourth = log_of(*readings).intervals(START, START + 4 * SECOND_NS)
    assert first.energy_joules is None
    assert second.energy_joules == pytest.approx(50 + 5)
    assert (third.readings, third.power_mean_watts, third.throttle_shares) == (0, None, None)
    assert third.energy_joules == pytest.approx(10)
    assert (fourth.readings, fourth.energy_joules) == (1, None)
    reset = log_of(*readings, reading(4.5, energy_joules=1.0)).intervals(START, START + 4 * SECOND_NS)
    assert [interval.energy_joules for interval in reset] == [None] * 4


def test_missing() -> None:
    """What no reading had is named; what one had is not."""
    log = log_of(reading(0, power_watts=3.0), reading(1, throttle_reasons=()))
    assert "power_watts" not in log.missing()
    assert "throttle_reasons" not in log.missing()
    assert {"sm_clock_hertz", "energy_joules", "pcie_tx_bytes"} <= set(log.missing())
    assert "throttle_reasons" in log_of(reading(0)).missing()


def test_memory_is_bounded() -> None:
    """A full log lets every other reading go: never more than its size, counters exact, the newest always there."""
    log = GpuLog(most=16)
    for place in range(1000):
        log.add(reading(place / 10, energy_joules=place * 7.0, throttle_reasons=("sw_power_cap",)))
        assert len(log) <= 16
    intervals = log.intervals(START, START + 99 * SECOND_NS)
    assert added_joules(intervals) == pytest.approx(990 * 7)
    assert {i.throttled_fraction for i in intervals} <= {1.0, None}
