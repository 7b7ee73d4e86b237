"""How a run went over time: its phases, intervals, steadiness, and the GPU's telemetry."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from loadtrt.report.charts.timeline import (
    SHORTEST_NS,
    Phase,
    Reading,
    Timeline,
    grouped,
    heat_map,
    percentiles,
    readings,
    slow_phases,
    throughput,
)
from loadtrt.report.document import Figure, section, words
from loadtrt.report.formatting import every, joules_text
from loadtrt.report.settings import latency_bounds
from loadtrt.units import SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from loadtrt.report.document import Block, Section
    from loadtrt.results.gpu_telemetry import GpuInterval, GpuTelemetry
    from loadtrt.results.run_result import RunResult
    from loadtrt.results.steadiness import Steadiness

_WARMUP_SHARE = 0.35  # of the measured time: a longer warm-up is not drawn before it
_DRAIN_SHARE = 0.01  # a shorter drain is not seen
_MEGA, _GIGA, _GIBI = 1e6, 1e9, 1 << 30


def timeline_of(result: RunResult) -> Timeline:
    """The run's time axis: up to the last completion, with its phases."""
    phases, steadiness, each_ns = result.phases, result.model.steadiness, result.model.interval_ns
    end_ns = max(phases.measure_ns, (len(result.model.intervals) - 1) * each_ns + 1)
    drawn = []
    if 0 < phases.warmup_ns <= _WARMUP_SHARE * end_ns:
        drawn.append(Phase("warm-up", "edge", -phases.warmup_ns, 0))
    if steadiness is not None:
        if steadiness.transient_ns:
            drawn.append(Phase("transient", "transient", 0, steadiness.transient_ns))
        slow, stall = steadiness.slow, steadiness.stall
        drawn += [Phase(slow.word, "behind", slow.start_ns, slow.end_ns)] if slow else []
        drawn += [Phase("stood still", "still", stall.start_ns, stall.start_ns + stall.longest_ns)] if stall else []
    if phases.drain_ns >= _DRAIN_SHARE * end_ns:
        drawn.append(Phase("drain", "edge", max(end_ns - phases.drain_ns, 0), end_ns))
    drawn += slow_phases(result.model.intervals, each_ns)
    return Timeline(end_ns, max(end_ns - phases.drain_ns, 1), tuple(drawn), each_ns)


def over_time(result: RunResult) -> Iterator[Block]:
    """Phases, and throughput and latency second by second."""
    yield words(_phases(result))
    if not result.model.ok:
        return
    if result.model.steadiness is not None:
        yield words(_steadiness(result.model.steadiness), only="page")
    intervals = result.model.intervals
    if len(intervals) < 2:
        yield words("The run was too short for charts over time: they have a point a second.", only="page")
        return
    timeline, bounds = timeline_of(result), latency_bounds(result)
    each, each_ns = grouped(len(intervals)), timeline.each_ns
    note = f"a point {every(each * each_ns)}"
    yield Figure("Throughput", throughput(intervals, timeline, result.config.course(result.config.model)), note)
    of = "seconds'" if each_ns == SECOND_NS else f"intervals' of {each_ns // SECOND_NS} s"
    greatest = "" if each == 1 else f": the greatest of its {of}"
    yield Figure("Latency", percentiles(intervals, timeline, bounds), f"{note}{greatest}")
    if any(count > 0 for interval in intervals for count in interval.latency_counts.values()):
        chart = heat_map(intervals, timeline, bounds)
        yield Figure("Heat map", chart, "requests by time and latency, darker for more")


def _steadiness(steadiness: Steadiness) -> str:
    texts = []
    if steadiness.transient_ns:
        texts.append(f"the first {format_duration(steadiness.transient_ns)} were not yet steady")
    if steadiness.drift_ratio is not None:
        texts.append(f"latency at the end was {steadiness.drift_ratio:.2f} × that at the beginning")
    if steadiness.overloaded:
        texts.append("requests came faster than they were served")
    if steadiness.slow is not None:
        start, end = format_duration(steadiness.slow.start_ns), format_duration(steadiness.slow.end_ns)
        texts.append(f"it was {steadiness.slow.word} from {start} to {end}")
    if steadiness.stall is not None:
        texts.append(f"it stood still for {format_duration(steadiness.stall.longest_ns)}")
    if steadiness.transient_ns is None and not steadiness.overloaded:
        texts.append("too little is known to say whether the run was steady")
    return "; ".join(texts) or "no transient, drift or overload was found"


def _phases(result: RunResult) -> str:
    """How long each phase took, on one line."""
    phases = result.phases
    texts = [f"load {format_duration(phases.load_ns)}", f"allocate {format_duration(phases.allocate_ns)}"]
    texts += [f"compile {format_duration(phases.compile_ns)}"] if phases.compile_ns else []
    settled = {None: "", True: ", clocks steady", False: ", clocks NOT steady"}[phases.clocks_settled]
    texts.append(f"warm-up {format_duration(phases.warmup_ns)} ({plural(phases.warmup_requests, 'request')}{settled})")
    texts.append(f"measured {format_duration(phases.measure_ns)}")
    return " · ".join(texts)


def gpu(result: RunResult, timeline: Timeline) -> Section:
    """The GPU's clocks before and after the run, its energy, and its telemetry over time."""
    blocks: list[Block] = []
    if facts := result.environment.get("gpu"):
        blocks.append(words(_clocks(facts["before"], facts["after"])))
    if result.telemetry is not None:
        blocks += map(words, _telemetry(result.telemetry))
        blocks += _charts(result.telemetry, timeline)
    if result.sharing is not None and result.sharing.unknown:
        blocks.append(words(f"NVML does not tell {'; '.join(result.sharing.unknown)}"))
    return section("GPU", *blocks, bare=True)


def _clocks(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Clock, power and temperature of the GPU around the run. before, after: as environment.py keeps them."""
    texts = []
    if before["sm_clock_hertz"] and after["sm_clock_hertz"]:
        texts.append(f"SM clock {before['sm_clock_hertz'] / _MEGA:.0f} → {after['sm_clock_hertz'] / _MEGA:.0f} MHz")
    if after["max_sm_clock_hertz"]:
        texts.append(f"max {after['max_sm_clock_hertz'] / _MEGA:.0f}")
    if after["power_watts"]:
        texts.append(f"{after['power_watts']:.0f} W")
    if after["temperature_celsius"]:
        texts.append(f"{after['temperature_celsius']} °C")
    held = [reason for reason in after["throttle_reasons"] or () if reason != "gpu_idle"]
    if held:
        texts.append(f"clocks held by {', '.join(held)}")
    return " · ".join(texts)


def _telemetry(telemetry: GpuTelemetry) -> Iterator[str]:
    """Power, energy and slow-downs; then what the GPU does not report."""
    texts = []
    if telemetry.power_mean_watts is not None:
        texts.append(f"{telemetry.power_mean_watts:.0f} W")
    if telemetry.energy_joules is not None:
        texts.append(f"{format_count(telemetry.energy_joules)} J")
    if telemetry.joules_per_inference is not None:
        texts.append(f"{joules_text(telemetry.joules_per_inference)} per inference")
    if telemetry.throttled_fraction is not None:
        texts.append(f"slowed down {100 * telemetry.throttled_fraction:.0f} % of the time")
    if texts:
        yield f"GPU {' · '.join(texts)}"
    if telemetry.missing:
        yield f"GPU does not report: {'; '.join(telemetry.missing)}"


def _charts(telemetry: GpuTelemetry, timeline: Timeline) -> Iterator[Block]:
    facts = telemetry.gpu
    intervals = [interval for interval in telemetry.intervals if interval.duration_ns >= SHORTEST_NS]
    if len(intervals) < 2:
        return
    step = grouped(len(intervals))
    groups = [intervals[place : place + step] for place in range(0, len(intervals), step)]
    middles = [(group[0].start_ns + group[-1].start_ns + group[-1].duration_ns) / 2 for group in groups]

    def values(
        of: Callable[[GpuInterval], float | None],
        unit: float = 1.0,
        together: Callable[[Iterable[float]], float] = fmean,
    ) -> list[float | None]:
        known = ([value / unit for interval in group if (value := of(interval)) is not None] for group in groups)
        return [together(values) if values else None for values in known]

    def a_second(of: Callable[[GpuInterval], float | None]) -> list[float | None]:
        return values(
            lambda interval: None if (value := of(interval)) is None else value * SECOND_NS / interval.duration_ns,
            _GIGA,
        )

    def limit(name: str, value: float | None, unit: float = 1.0) -> tuple[str, float] | None:
        return None if value is None else (name, value / unit)

    clock = Reading(
        "SM clock",
        values(lambda i: i.sm_clock_mean_hertz, _MEGA),
        values(lambda i: i.sm_clock_min_hertz, _MEGA, min),
        values(lambda i: i.sm_clock_max_hertz, _MEGA, max),
    )
    power = [
        Reading("mean", values(lambda i: i.power_mean_watts)),
        Reading("largest", values(lambda i: i.power_max_watts, together=max)),
    ]
    use = [
        Reading("a kernel ran", values(lambda i: i.utilization_mean_ratio, 0.01)),
        Reading("memory was read or written", values(lambda i: i.memory_utilization_mean_ratio, 0.01)),
    ]
    copies = [
        Reading("to the GPU", a_second(lambda i: i.pcie_rx_bytes)),
        Reading("from it", a_second(lambda i: i.pcie_tx_bytes)),
    ]
    heat = [Reading("largest", values(lambda i: i.temperature_max_celsius, together=max))]
    memory = [Reading("in use", values(lambda i: i.memory_used_max_bytes, _GIBI, max))]
    note = "" if step * timeline.each_ns == SECOND_NS else f"a point {every(step * timeline.each_ns)}"
    for title, unit, lines, bound in (
        ("SM clock", "MHz", [clock], limit("highest", facts.max_sm_clock_hertz, _MEGA)),
        ("Power", "W", power, limit("limit", facts.power_limit_watts)),
        ("Temperature", "°C", heat, limit("slows down", facts.slowdown_celsius)),
        ("Utilisation", "% of the time", use, None),
        ("PCIe", "GB/s", copies, None),
        ("Memory", "GiB", memory, limit("all there is", facts.memory_total_bytes, _GIBI)),
    ):
        known = [line for line in lines if any(value is not None for value in line.values)]
        if known:
            yield Figure(title, readings(title, unit, middles, known, timeline, bound), note)
