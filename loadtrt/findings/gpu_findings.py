"""Findings about a run from the GPU's telemetry, and about others on the GPU.

They do not make a run INVALID: the throughput of a GPU at its power cap may be what a run is to measure. The seconds
in which the GPU was slowed down are marked. Others that computed do (findings/validity.py), unless they are accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.results.gpu_telemetry import SHARED_LIMIT, SLOWDOWNS, clients_text, slowdowns_of, weighted_mean
from loadtrt.results.run_result import Finding
from loadtrt.units import SECOND_NS, format_percent, rough_percent, rounded_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.results.gpu_telemetry import GpuFacts, GpuInterval, GpuSharing, GpuTelemetry

_HEAT = ("sw_thermal_slowdown", "hw_thermal_slowdown")
_HARDWARE = frozenset({"hw_thermal_slowdown", "hw_power_brake_slowdown", "hw_slowdown"})

LEAST_SHARE = 0.02
LEAST_READINGS = 2
LEAST_DROP = 0.02
UNNAMED_DROP = 0.05
REACHED = 0.85
BUSY = 0.5
NEAR_CELSIUS = 3
OWN_BUSY_MOST = 0.1
OTHERS_BUSY_LEAST = 0.8
SAMPLES_PER_S = 5  # NVML's, each of the one process whose kernels run at that instant (H200, driver 580)


def gpu_findings(
    telemetry: GpuTelemetry | None,
    sharing: GpuSharing | None = None,
    busy_fraction: float | None = None,
    *,
    accepted: bool = False,
) -> tuple[Finding, ...]:
    """Findings, the most important first. Where the evidence names the cause, the cause repeats its words.

    busy_fraction: part of the time in which this run computed; None where it is not known.
    accepted: whether others may compute on the GPU, which is a problem of the verdict otherwise.
    """
    findings = [_others(sharing, telemetry, busy_fraction, accepted=accepted)] if sharing else []
    if telemetry is not None:
        findings.append(_held(telemetry) or _unnamed(telemetry) or _below_top(telemetry))
        findings.append(_near_slowdown(telemetry))
    if telemetry is not None and sharing is not None and findings[0] is None and not sharing.computing:
        findings.append(_seen_busy(telemetry, sharing, busy_fraction))
    return tuple(finding for finding in findings if finding is not None)


def _held(telemetry: GpuTelemetry) -> Finding | None:
    """A slow-down that NVML names and that lowered the clocks.

    LEAST_READINGS readings and LEAST_SHARE of all must name it (sw_power_cap appears in single readings of a board near
    its limit), and clocks must fall by LEAST_DROP (two steps of 15 MHz, 1.5 % of 1980 MHz, are ordinary). Hardware
    protection is reported at any clock, as it is never normal. The reference is the highest clock of the run, or the
    GPU's highest where the clocks were held for at least half the time.
    """
    intervals = telemetry.intervals
    named = {reason: share for reason in SLOWDOWNS if _counts((share := _share(intervals, reason)), intervals)}
    shares = {reason: named[reason] for reason in slowdowns_of(named)}
    if not shares:
        return None
    fraction = telemetry.throttled_fraction or 0.0
    hardware = not _HARDWARE.isdisjoint(shares)
    slowed = _slowed_hertz(intervals)
    best, top = _highest_hertz(intervals), telemetry.gpu.max_sm_clock_hertz
    if slowed is None or best is None:
        clock = "the GPU was slowed down (its clock is not known)"
    elif slowed <= (1 - LEAST_DROP) * best:
        clock = f"SM clock fell from {_mhz(best)} to {_mhz(slowed)} MHz"
    elif top is not None and slowed <= (1 - LEAST_DROP) * top and fraction >= BUSY:
        clock = f"SM clock stayed at {_mhz(slowed)} of {_mhz(top)} MHz"
    elif hardware:
        clock = "the GPU slowed down"
    else:
        return None
    reasons = sorted(shares, key=lambda reason: -shares[reason])
    cause = ", ".join(dict.fromkeys(SLOWDOWNS[reason].cause for reason in reasons))
    return Finding(
        kind="throttled",
        evidence=f"{clock}: {cause}; {format_percent(fraction)} of the run",
        cause=cause,
        remedy=_remedy(reasons[0], telemetry.gpu, slowed),
    )


def _unnamed(telemetry: GpuTelemetry) -> Finding | None:
    """Clocks that fell while the driver gives no reasons. Only busy seconds count, as an idle GPU lowers its clocks,
    and only a fall of UNNAMED_DROP, as ordinary temperature steps lower clocks by 1 to 3 %."""
    clocked = [i for i in telemetry.intervals if i.sm_clock_mean_hertz is not None]
    intervals = [i for i in clocked if (i.utilization_mean_ratio or 0) >= BUSY]
    if not intervals or any(i.throttle_shares is not None for i in telemetry.intervals):
        return None
    best = max(i.sm_clock_max_hertz or 0 for i in intervals)
    slow = [i for i in intervals if (i.sm_clock_mean_hertz or 0) <= (1 - UNNAMED_DROP) * best]
    lowest = weighted_mean(slow, lambda interval: interval.sm_clock_mean_hertz)
    share = sum(i.readings for i in slow) / sum(i.readings for i in intervals)
    if lowest is None or not _counts(share, intervals):
        return None
    return Finding(
        kind="throttled",
        evidence=f"SM clock fell from {_mhz(best)} to {_mhz(lowest)} MHz in {format_percent(share)} of the busy time; "
        "the driver gives no reason",
        cause="the driver gives no reason",
        remedy="power and heat are likely: look at 'nvidia-smi -q -d PERFORMANCE' as a privileged user",
    )


def _below_top(telemetry: GpuTelemetry) -> Finding | None:
    """Clocks far below the GPU's highest on a busy GPU, for no reason that the driver names.

    Data-centre boards reach their highest clock; others stay 5 to 10 % below it, so that the alarm starts below
    REACHED. A chosen clock (applications_clocks_setting) and a mostly idle GPU raise no alarm.
    """
    intervals, top = telemetry.intervals, telemetry.gpu.max_sm_clock_hertz
    best = _highest_hertz(intervals)
    use = weighted_mean(intervals, lambda interval: interval.utilization_mean_ratio)
    if top is None or best is None or best >= REACHED * top or use is None or use < BUSY:
        return None
    explained = (*SLOWDOWNS, "applications_clocks_setting")
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
    """A temperature within NEAR_CELSIUS of the one at which the GPU slows down: sensors give whole degrees, and a
    longer run or a warmer day adds some. None where heat slows the GPU down already, or the temperature is unknown."""
    if any(_counts(_share(telemetry.intervals, reason), telemetry.intervals) for reason in _HEAT):
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


def _too_busy(use: float, busy_fraction: float | None) -> bool:
    """Whether kernels ran for OTHERS_BUSY_LEAST of the time or more while this run computed for OWN_BUSY_MOST or less.
    The gap is wide because NVML counts a sample with one short kernel as busy."""
    return busy_fraction is not None and busy_fraction <= OWN_BUSY_MOST and use >= OTHERS_BUSY_LEAST


def _others(
    sharing: GpuSharing, telemetry: GpuTelemetry | None, busy_fraction: float | None, *, accepted: bool
) -> Finding | None:
    """Other processes on the GPU, as far as they are no problem of the verdict."""
    told = [client for client in sharing.clients if accepted or not client.computed]
    if not told:
        return None
    if any(client.computed for client in told):
        cause = "this run had what they left of the GPU, as --shared-gpu accepts"
        remedy = "end them to measure the GPU alone"
    elif _too_busy(sharing.own_sm_ratio or 0.0, busy_fraction):  # which of the ids is this run's was guessed
        own = format_percent(sharing.own_sm_ratio or 0.0)
        cause = f"NVML counts kernels for {own} of the time as this run's, which "
        cause += f"computed for {format_percent(busy_fraction or 0.0)}: one of them seems to have computed"
        remedy = "end them, and see whether the numbers stay"
    elif any(client.sm_ratio for client in told):
        cause = f"they computed for less than {rough_percent(SHARED_LIMIT)} of the time, in samples by NVML"
        remedy = "end them, and see whether the numbers stay"
    elif all(client.sm_ratio is not None for client in told):
        cause = f"they hold memory, and {_none_seen(telemetry)}"
        remedy = "end them if they might compute, or if memory is short; a longer run sees more"
    else:
        cause = f"whether they computed is not known: NVML does not tell {' nor '.join(sharing.unknown)}"
        remedy = "end them, and see whether the numbers stay"
    return Finding(
        kind="gpu-shared",
        evidence=f"other processes were on this GPU: {clients_text(told)}",
        cause=cause,
        remedy=remedy,
    )


def _none_seen(telemetry: GpuTelemetry | None) -> str:
    """How long a process may have computed although none of n samples shows a kernel of it: 1 − 0.05^(1/n) of the
    time, with 95 % confidence."""
    samples = round(sum(i.duration_ns for i in telemetry.intervals) * SAMPLES_PER_S / SECOND_NS) if telemetry else 0
    if not samples:
        return "NVML shows no kernel of theirs, and it takes samples: they may have computed between these"
    most = rough_percent(rounded_up(1 - 0.05 ** (1 / samples)))
    return (
        f"NVML shows no kernel of theirs; at {SAMPLES_PER_S} samples a second, as on an H200, they may still have "
        f"computed for up to {most} of the time"
    )


def _seen_busy(telemetry: GpuTelemetry, sharing: GpuSharing, busy_fraction: float | None) -> Finding | None:
    """Kernels of processes that NVML does not show, where it does not tell whose kernels ran."""
    use = weighted_mean(telemetry.intervals, lambda interval: interval.utilization_mean_ratio)
    if sharing.told or busy_fraction is None or use is None or not _too_busy(use, busy_fraction):
        return None
    if sum(interval.duration_ns for interval in telemetry.intervals) < 3 * SECOND_NS:
        return None  # NVML's sample period is up to a second: the sample may be of the time before the run
    return Finding(
        kind="gpu-shared",
        evidence=f"kernels ran on the GPU {format_percent(use)} of the time, "
        f"this run's {format_percent(busy_fraction)}",
        cause=f"another process seems to compute on the GPU; NVML does not tell {' nor '.join(sharing.unknown)}",
        remedy="look at nvidia-smi on the host, and run nothing else on the GPU",
    )


def _remedy(reason: str, gpu: GpuFacts, slowed: float | None) -> str:
    lock = "nvidia-smi -lgc" + ("" if slowed is None else f" {_mhz(slowed)}")
    if reason == "sw_power_cap":
        limit, most = gpu.power_limit_watts, gpu.most_power_watts
        if limit is not None and most is not None and limit < most:
            return f"raise the power limit of {limit:.0f} W, to {most:.0f} W at most: nvidia-smi -pl {most:.0f}"
        return f"the power limit is the highest possible: compare engines at locked clocks ({lock})"
    return SLOWDOWNS[reason].remedy.replace("nvidia-smi -lgc", lock)


def _counts(share: float, intervals: Sequence[GpuInterval]) -> bool:
    readings = sum(interval.readings for interval in intervals)
    return share >= LEAST_SHARE and round(share * readings) >= LEAST_READINGS


def _share(intervals: Sequence[GpuInterval], reason: str) -> float:
    """Share of the readings that named the reason; 0 where the driver gives no reasons."""
    shares = weighted_mean(intervals, lambda i: None if i.throttle_shares is None else i.throttle_shares.get(reason, 0))
    return shares or 0.0


def _slowed_hertz(intervals: Sequence[GpuInterval]) -> float | None:
    """Mean SM clock over the readings with a slow-down."""
    total = weight = 0.0
    for interval in intervals:
        if interval.sm_clock_throttled_hertz is not None:
            readings = interval.readings * (interval.throttled_fraction or 0.0)
            total += readings * interval.sm_clock_throttled_hertz
            weight += readings
    return total / weight if weight else None


def _highest_hertz(intervals: Sequence[GpuInterval]) -> float | None:
    return max((one.sm_clock_max_hertz for one in intervals if one.sm_clock_max_hertz is not None), default=None)


def _mhz(hertz: float) -> str:
    return f"{hertz / 1e6:.0f}"
