"""What a GPU did while it was measured: the part of run.json that NVML tells.

Units are Prometheus base units (hertz, watts, joules, celsius, bytes, ratios 0 to 1); instants are ns. None: not told,
never 0. Each GpuInterval is a second of the run, the same one as the `Interval` with its `start_ns`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.results.frozen import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.results.interval import Interval


class GpuInterval(Model):
    """A second of the run, the last one shorter. start_ns: since measuring began; readings: how many looks fell in it.

    Clocks, power, temperature, memory and utilisation are of those looks; sm_clock_throttled_hertz: mean over the looks
    at which a slowdown was on. Energy and bytes are differences of counters, which are put at the second's edges by
    linear interpolation: over adjoining seconds they add up exactly. pcie_rx_bytes: received by the GPU.

    throttle_shares: for each reason, the share of the looks that named it; several may be on at once, so their sum
    may pass 1. throttled_fraction: share of the looks with any slowdown (not gpu_idle, nor what somebody chose).
    """

    start_ns: int
    duration_ns: int
    readings: int
    sm_clock_mean_hertz: float | None = None
    sm_clock_min_hertz: float | None = None
    sm_clock_max_hertz: float | None = None
    sm_clock_throttled_hertz: float | None = None
    power_mean_watts: float | None = None
    power_max_watts: float | None = None
    temperature_max_celsius: float | None = None
    memory_used_max_bytes: int | None = None
    utilization_mean_ratio: float | None = None
    memory_utilization_mean_ratio: float | None = None
    energy_joules: float | None = None
    pcie_rx_bytes: int | None = None
    pcie_tx_bytes: int | None = None
    throttle_shares: dict[str, float] | None = None
    throttled_fraction: float | None = None


class GpuFacts(Model):
    """What did not change while it was watched. power_limit_watts: enforced; most_power_watts: what it can be set to;
    slowdown_celsius: where the GPU protects itself."""

    name: str | None
    max_sm_clock_hertz: int | None = None
    power_limit_watts: float | None = None
    most_power_watts: float | None = None
    slowdown_celsius: int | None = None
    memory_total_bytes: int | None = None


class SamplingCost(Model):
    """What watching took, from the sampler's start on. lost: deadlines that passed without a look; seconds: spent in
    NVML; fraction: of the time that it watched."""

    readings: int
    lost: int
    seconds: float
    fraction: float


class GpuTelemetry(Model):
    """A GPU over the measured time. every_ns: between looks.

    energy_joules: Σ over the intervals, None unless every one is known: a part would pass for the whole.
    joules_per_inference = energy_joules / inferences served: all that the GPU took, idle time included, and whoever
    else used it. power_mean_watts = energy_joules / duration where energy is known, else the mean of the looks.
    throttled_fraction: share of all looks with a slowdown. missing: what is not told, in words.
    """

    gpu: GpuFacts
    every_ns: int
    intervals: tuple[GpuInterval, ...]
    power_mean_watts: float | None
    energy_joules: float | None
    joules_per_inference: float | None
    throttled_fraction: float | None
    missing: tuple[str, ...]
    cost: SamplingCost


def telemetry_of(
    gpu: GpuFacts,
    intervals: Sequence[GpuInterval],
    inferences: int,
    *,
    every_ns: int,
    missing: Sequence[str],
    cost: SamplingCost,
) -> GpuTelemetry:
    """Intervals → the whole. inferences: served in the time of the intervals, 0 where none was."""
    energies = [interval.energy_joules for interval in intervals if interval.energy_joules is not None]
    energy = sum(energies) if intervals and len(energies) == len(intervals) else None
    seconds = sum(interval.duration_ns for interval in intervals) / 1e9
    power = weighted_mean(intervals, lambda interval: interval.power_mean_watts)
    return GpuTelemetry(
        gpu=gpu,
        every_ns=every_ns,
        intervals=tuple(intervals),
        power_mean_watts=power if energy is None or not seconds else energy / seconds,
        energy_joules=energy,
        joules_per_inference=energy / inferences if energy is not None and inferences else None,
        throttled_fraction=weighted_mean(intervals, lambda interval: interval.throttled_fraction),
        missing=tuple(missing),
        cost=cost,
    )


def weighted_mean(intervals: Sequence[GpuInterval], of: Callable[[GpuInterval], float | None]) -> float | None:
    """Σ n·x / Σ n over the intervals that know x, n their looks: the mean over all looks. None where none knows."""
    known = [(interval.readings, value) for interval in intervals if (value := of(interval)) is not None]
    weight = sum(readings for readings, _ in known)
    return sum(readings * value for readings, value in known) / weight if weight else None


def mark_throttled(intervals: Sequence[Interval], telemetry: GpuTelemetry | None) -> tuple[Interval, ...]:
    """The run's seconds, each saying whether any look at the GPU in it showed a slowdown; None where nobody looked."""
    fractions = {second.start_ns: second.throttled_fraction for second in telemetry.intervals} if telemetry else {}
    return tuple(
        interval.model_copy(update={"throttled": None if fraction is None else fraction > 0})
        for interval in intervals
        for fraction in (fractions.get(interval.start_ns),)
    )
