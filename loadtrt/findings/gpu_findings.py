"""What the GPU's telemetry says about a run, with what to do about it.

These are findings and no verdict: a GPU that its power cap holds back serves exactly what it then serves, and that may
be the question. So none of them makes a run INVALID; the seconds in which it was slowed down are marked instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.results.gpu_telemetry import weighted_mean
from loadtrt.results.run_result import Finding
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.results.gpu_telemetry import GpuFacts, GpuInterval, GpuTelemetry

# The reasons that take speed from a loaded GPU, in words; the others (gpu_idle, applications_clocks_setting, ...) are
# its normal life or somebody's choice. The umbrella hw_slowdown comes last: it says nothing where another explains it.
CAUSES = {
    "sw_power_cap": "power cap",
    "sw_thermal_slowdown": "heat",
    "hw_thermal_slowdown": "heat (hardware protection)",
    "hw_power_brake_slowdown": "the power supply's brake",
    "hw_slowdown": "hardware protection",
}
_HEAT = ("sw_thermal_slowdown", "hw_thermal_slowdown")
_HARDWARE = frozenset({"hw_thermal_slowdown", "hw_power_brake_slowdown", "hw_slowdown"})

LEAST_SHARE = 0.02
LEAST_LOOKS = 2
LEAST_DROP = 0.02
UNNAMED_DROP = 0.05
REACHED = 0.85
BUSY = 0.5
NEAR_CELSIUS = 3
OWN_BUSY_MOST = 0.1
OTHERS_BUSY_LEAST = 0.8


def gpu_findings(telemetry: GpuTelemetry, busy_fraction: float | None = None) -> tuple[Finding, ...]:
    """Findings, the weightiest first. busy_fraction: part of the time in which this run computed, None: not known.

    Where the evidence names the cause already, the cause is those very words."""
    found = (
        _held(telemetry) or _unnamed(telemetry) or _below_top(telemetry),
        _near_slowdown(telemetry),
        _others(telemetry, busy_fraction),
    )
    return tuple(finding for finding in found if finding is not None)


def _held(telemetry: GpuTelemetry) -> Finding | None:
    """A named slowdown that took speed.

    Asked for: at least LEAST_LOOKS looks and LEAST_SHARE of all (sw_power_cap flickers for one look where a board works
    near its limit), and clocks lower by LEAST_DROP (the clock moves in steps of 15 MHz, two of them 1.5 % of 1980 MHz,
    without meaning). What the hardware does to protect itself is told whatever the clocks: it is never normal.
    Compared with the highest clock of the run; one that was held at least half the time never had a fair chance, and is
    compared with the GPU's own.
    """
    intervals = telemetry.intervals
    shares = {reason: share for reason in CAUSES if _tells((share := _share(intervals, reason)), intervals)}
    if len(shares) > 1:
        shares.pop("hw_slowdown", None)
    if not shares:
        return None
    fraction = telemetry.throttled_fraction or 0.0
    hardware = not _HARDWARE.isdisjoint(shares)
    slowed = _slowed_hertz(intervals)
    best = max((i.sm_clock_max_hertz for i in intervals if i.sm_clock_max_hertz is not None), default=None)
    top = telemetry.gpu.max_sm_clock_hertz
    if slowed is None or best is None:
        clock = "the GPU was slowed down (its clock is not told)"
    elif slowed <= (1 - LEAST_DROP) * best:
        clock = f"SM clock fell from {_mhz(best)} to {_mhz(slowed)} MHz"
    elif top is not None and slowed <= (1 - LEAST_DROP) * top and fraction >= BUSY:
        clock = f"SM clock stayed at {_mhz(slowed)} of {_mhz(top)} MHz"
    elif hardware:
        clock = "the GPU was told to slow down"
    else:
        return None
    main = max(shares, key=lambda reason: shares[reason])
    words = dict.fromkeys(CAUSES[reason] for reason in sorted(shares, key=lambda reason: -shares[reason]))
    return Finding(
        kind="throttled",
        evidence=f"{clock}: {', '.join(words)}; {_percent(fraction)} of the run",
        cause=", ".join(words),
        remedy=_remedy(main, telemetry.gpu, slowed),
    )


def _unnamed(telemetry: GpuTelemetry) -> Finding | None:
    """Clocks that fell where the driver does not tell why. Only seconds that were busy count, for an idle GPU lowers
    its clocks, and by UNNAMED_DROP at least: with no reason at hand, temperature steps (1-3 %) must not raise an alarm.
    """
    intervals = [i for i in telemetry.intervals if i.sm_clock_mean_hertz is not None and _busy(i)]
    if not intervals or any(i.throttle_shares is not None for i in telemetry.intervals):
        return None
    best = max(i.sm_clock_max_hertz or 0 for i in intervals)
    slow = [i for i in intervals if (i.sm_clock_mean_hertz or 0) <= (1 - UNNAMED_DROP) * best]
    lowest = weighted_mean(slow, lambda interval: interval.sm_clock_mean_hertz)
    share = sum(i.readings for i in slow) / sum(i.readings for i in intervals)
    if lowest is None or not _tells(share, intervals):
        return None
    return Finding(
        kind="throttled",
        evidence=f"SM clock fell from {_mhz(best)} to {_mhz(lowest)} MHz in {_percent(share)} of the busy time; "
        "the driver does not tell why",
        cause="the driver does not tell why",
        remedy="power and heat are likely: look at 'nvidia-smi -q -d PERFORMANCE' as a user who may",
    )


def _below_top(telemetry: GpuTelemetry) -> Finding | None:
    """Clocks far below the GPU's highest, though it was busy and nothing that the driver names explains it.

    Data-centre boards reach their top; others end 5 to 10 % below the top of their table, so the alarm is below
    REACHED. Somebody's choice (applications_clocks_setting) is no alarm, nor is a GPU that was mostly idle.
    """
    intervals, top = telemetry.intervals, telemetry.gpu.max_sm_clock_hertz
    best = max((i.sm_clock_max_hertz for i in intervals if i.sm_clock_max_hertz is not None), default=None)
    use = weighted_mean(intervals, lambda interval: interval.utilization_mean_ratio)
    if top is None or best is None or best >= REACHED * top or use is None or use < BUSY:
        return None
    explained = (*CAUSES, "applications_clocks_setting")
    if any(_share(intervals, reason) for reason in explained) or _share(intervals, "gpu_idle") >= BUSY:
        return None
    return Finding(
        kind="clocks-low",
        evidence=f"SM clock never passed {_mhz(best)} of {_mhz(top)} MHz, and the driver names no reason",
        cause="the driver names no reason",
        remedy="the clocks may be locked: look at 'nvidia-smi -q -d CLOCK', lift a lock with 'nvidia-smi -rgc'; "
        "or warm up for longer",
    )


def _near_slowdown(telemetry: GpuTelemetry) -> Finding | None:
    """A temperature within NEAR_CELSIUS of where the GPU slows down: sensors tell whole degrees, and a longer run or a
    warmer day brings the rest. None where heat slows it down already, and where the GPU tells no such temperature."""
    if any(_tells(_share(telemetry.intervals, reason), telemetry.intervals) for reason in _HEAT):
        return None
    limit = telemetry.gpu.slowdown_celsius
    heats = [i.temperature_max_celsius for i in telemetry.intervals if i.temperature_max_celsius is not None]
    if limit is None or not heats or max(heats) < limit - NEAR_CELSIUS:
        return None
    return Finding(
        kind="hot",
        evidence=f"the GPU reached {max(heats):.0f} °C; at {limit} °C it slows down",
        cause=f"at {limit} °C it slows down",
        remedy="a longer run will be slower: cool the GPU (airflow, fans, its neighbours)",
    )


def _others(telemetry: GpuTelemetry, busy_fraction: float | None) -> Finding | None:
    """Somebody else's kernels: NVML saw the GPU busy for OTHERS_BUSY_LEAST of the time and more while this run computed
    for OWN_BUSY_MOST and less. So wide a gap, because NVML counts a sample with a short kernel in it as busy."""
    use = weighted_mean(telemetry.intervals, lambda interval: interval.utilization_mean_ratio)
    if busy_fraction is None or use is None or busy_fraction > OWN_BUSY_MOST or use < OTHERS_BUSY_LEAST:
        return None
    if sum(interval.duration_ns for interval in telemetry.intervals) < 3 * SECOND_NS:
        return None  # NVML's sample period is up to a second: it would still show what was before
    return Finding(
        kind="gpu-shared",
        evidence=f"kernels ran on the GPU {_percent(use)} of the time, this run's {_percent(busy_fraction)}",
        cause="another process seems to compute there",
        remedy="look at nvidia-smi, and give loadtrt the GPU alone",
    )


def _remedy(reason: str, gpu: GpuFacts, slowed: float | None) -> str:
    lock = "nvidia-smi -lgc" + ("" if slowed is None else f" {_mhz(slowed)}")
    if reason == "sw_power_cap":
        limit, most = gpu.power_limit_watts, gpu.most_power_watts
        if limit is not None and most is not None and limit < most:
            return f"the limit is {limit:.0f} W and may be {most:.0f} W: nvidia-smi -pl {most:.0f}"
        return f"this is what the board may draw: compare engines at locked clocks ({lock})"
    if reason == "hw_power_brake_slowdown":
        return "the server holds its GPUs back: look at its power supplies and its management controller"
    if reason == "hw_slowdown":
        return "look at 'nvidia-smi -q -d PERFORMANCE,TEMPERATURE' for what the hardware protects itself from"
    return f"cool the GPU (airflow, fans, its neighbours), or compare engines at locked clocks ({lock})"


def _tells(share: float, intervals: Sequence[GpuInterval]) -> bool:
    looks = sum(interval.readings for interval in intervals)
    return share >= LEAST_SHARE and round(share * looks) >= LEAST_LOOKS


def _share(intervals: Sequence[GpuInterval], reason: str) -> float:
    """Share of the looks that named the reason; 0 where none could."""
    shares = weighted_mean(intervals, lambda i: None if i.throttle_shares is None else i.throttle_shares.get(reason, 0))
    return shares or 0.0


def _slowed_hertz(intervals: Sequence[GpuInterval]) -> float | None:
    """Mean SM clock over the looks at which a slowdown was on."""
    known = [
        (interval.readings * (interval.throttled_fraction or 0.0), interval.sm_clock_throttled_hertz)
        for interval in intervals
        if interval.sm_clock_throttled_hertz is not None
    ]
    weight = sum(looks for looks, _ in known)
    return sum(looks * clock for looks, clock in known) / weight if weight else None


def _busy(interval: GpuInterval) -> bool:
    return interval.utilization_mean_ratio is not None and interval.utilization_mean_ratio >= BUSY


def _mhz(hertz: float) -> str:
    return f"{hertz / 1e6:.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
