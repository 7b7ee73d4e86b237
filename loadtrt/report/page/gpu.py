"""The GPU's telemetry as a section."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from loadtrt.report.charts.timeline import SHORTEST_NS, Reading, grouped, readings
from loadtrt.report.page.section import Figure, section, words
from loadtrt.report.tables import telemetry_lines
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from loadtrt.measure.telemetry import GpuInterval, GpuTelemetry
    from loadtrt.report.charts.timeline import Timeline
    from loadtrt.report.page.section import Block, Section

_MEGA, _GIGA, _GIBI = 1e6, 1e9, 1 << 30


def gpu(telemetry: GpuTelemetry, timeline: Timeline) -> Section:
    """Clocks, power, heat, use, copies and memory over time, each where it was told."""
    return section("GPU", *map(words, telemetry_lines(telemetry)), *_charts(telemetry, timeline))


def _charts(telemetry: GpuTelemetry, timeline: Timeline) -> Iterator[Block]:
    facts = telemetry.gpu
    intervals = [interval for interval in telemetry.intervals if interval.duration_ns >= SHORTEST_NS]
    if len(intervals) < 2:
        return
    each = grouped(len(intervals))
    groups = [intervals[place : place + each] for place in range(0, len(intervals), each)]
    middles = [(group[0].start_ns + group[-1].start_ns + group[-1].duration_ns) / 2 for group in groups]

    def values(
        of: Callable[[GpuInterval], float | None],
        unit: float = 1.0,
        together: Callable[[Iterable[float]], float] = fmean,
    ) -> list[float | None]:
        known = ([value / unit for one in group if (value := of(one)) is not None] for group in groups)
        return [together(found) if found else None for found in known]

    def a_second(of: Callable[[GpuInterval], float | None]) -> list[float | None]:
        return values(lambda one: None if (value := of(one)) is None else value * SECOND_NS / one.duration_ns, _GIGA)

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
    note = "" if each == 1 else f"a point every {each} s"
    for title, unit, lines, bound in (
        ("SM clock", "MHz", [clock], limit("highest", facts.max_sm_clock_hertz, _MEGA)),
        ("Power", "W", power, limit("limit", facts.power_limit_watts)),
        ("Temperature", "°C", heat, limit("slows down", facts.slowdown_celsius)),
        ("Utilisation", "% of the time", use, None),
        ("PCIe", "GB/s", copies, None),
        ("Memory", "GiB", memory, limit("all there is", facts.memory_total_bytes, _GIBI)),
    ):
        told = [line for line in lines if any(value is not None for value in line.values)]
        if told:
            yield Figure(title, readings(title, unit, middles, told, timeline, bound), note)
