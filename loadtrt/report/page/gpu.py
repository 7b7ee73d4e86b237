"""The GPU's telemetry as a section."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.charts.timeline import SHORTEST_NS, Reading, readings
from loadtrt.report.page.section import Figure, section, words
from loadtrt.report.tables import telemetry_lines
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    middles = [interval.start_ns + interval.duration_ns / 2 for interval in intervals]

    def values(of: Callable[[GpuInterval], float | None], unit: float = 1.0) -> list[float | None]:
        return [None if (value := of(interval)) is None else value / unit for interval in intervals]

    def a_second(of: Callable[[GpuInterval], float | None]) -> list[float | None]:
        return [None if (value := of(i)) is None else value * SECOND_NS / i.duration_ns / _GIGA for i in intervals]

    def limit(name: str, value: float | None, unit: float = 1.0) -> tuple[str, float] | None:
        return None if value is None else (name, value / unit)

    clock = Reading(
        "SM clock",
        values(lambda i: i.sm_clock_mean_hertz, _MEGA),
        values(lambda i: i.sm_clock_min_hertz, _MEGA),
        values(lambda i: i.sm_clock_max_hertz, _MEGA),
    )
    power = [
        Reading("mean", values(lambda i: i.power_mean_watts)),
        Reading("largest", values(lambda i: i.power_max_watts)),
    ]
    use = [
        Reading("a kernel ran", values(lambda i: i.utilization_mean_ratio, 0.01)),
        Reading("memory was read or written", values(lambda i: i.memory_utilization_mean_ratio, 0.01)),
    ]
    copies = [
        Reading("to the GPU", a_second(lambda i: i.pcie_rx_bytes)),
        Reading("from it", a_second(lambda i: i.pcie_tx_bytes)),
    ]
    heat = [Reading("largest", values(lambda i: i.temperature_max_celsius))]
    memory = [Reading("in use", values(lambda i: i.memory_used_max_bytes, _GIBI))]
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
            yield Figure(title, readings(title, unit, middles, told, timeline, bound))
