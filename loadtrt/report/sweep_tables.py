"""A sweep as text: what a person reads when it ends. A pure function of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.report.capacity_tables import ended_text
from loadtrt.report.text import UNKNOWN, aligned, count_or, time_or, wrapped
from loadtrt.units import format_count, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadtrt.measure.sweep_result import SweepPoint, SweepResult

_COLUMNS = ("inferences/s", "latency p50", "p99", "service p50", "")


def sweep_text(result: SweepResult) -> str:
    """At most 80 columns of text but for the table, ending with a newline."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: SweepResult) -> Iterator[str]:
    yield ""
    engine = next((point.run.engine for point in result.points if point.run is not None), None)
    if engine is not None:
        yield f"{engine.name} on {engine.device} ({engine.flavour} {engine.version})"
    axes = list(result.points[0].settings) if result.points else []
    rows = [(*(axis.replace("_", " ") for axis in axes), *_COLUMNS)]
    front = set(result.pareto)
    for place, point in enumerate(result.points):
        rows.append(
            (
                *(_word(axis, point.settings[axis]) for axis in axes),
                *_numbers(point),
                _remark(point, knee=place == result.knee, front=place in front and len(result.pareto) > 1),
            )
        )
    if axes:
        yield from (f"  {line}" for line in aligned(rows, words=(len(rows[0]) - 1,)))
    for reason, left in _left_out(result).items():
        more = f" and {plural(len(left) - 1, 'point')} more" if len(left) > 1 else ""
        yield from wrapped(f"not measured: {settings_text(left[0])}{more}: {reason}")
    for point in result.points:
        if point.failure is not None:
            yield from wrapped(f"{settings_text(point.settings)}: {point.failure}")
        elif point.run is not None:
            for problem in point.run.problems:
                yield from wrapped(f"{settings_text(point.settings)}: INVALID, {problem.evidence}; {problem.remedy}")
    if result.outcome != "completed":
        yield from wrapped(ended_text(result))


def _numbers(point: SweepPoint) -> tuple[str, ...]:
    if point.run is None:
        return (UNKNOWN,) * (len(_COLUMNS) - 1)
    rate, metrics = point.run.throughput.inferences_per_s, point.run.metrics
    times = (metrics["latency"].percentiles_ns["p50"], metrics["latency"].percentiles_ns["p99"])
    service = metrics["service"].percentiles_ns["p50"]
    return (count_or(rate), *map(time_or, (*times, service)))


def _remark(point: SweepPoint, *, knee: bool, front: bool) -> str:
    """knee: most inferences a second for their latency; front: no point is better in both."""
    if point.failure is not None:
        return "failed"
    words = ["knee"] if knee else []
    words += ["front"] if front else []
    if point.run is not None:
        words += [] if point.run.outcome == "completed" else [point.run.outcome]
        words += [] if point.run.valid else ["INVALID"]
        words += [f"{item.objective} {item.verdict}" for item in point.run.objectives if item.verdict]
    return ", ".join(words)


def _left_out(result: SweepResult) -> dict[str, list[dict[str, Any]]]:
    """The settings that were not measured, by the reason."""
    found: dict[str, list[dict[str, Any]]] = {}
    for point in result.skipped:
        found.setdefault(point.reason, []).append(point.settings)
    return found


def settings_text(settings: Mapping[str, Any]) -> str:
    """The values of the axes on one line."""
    return ", ".join(f"{name.replace('_', ' ')} {_word(name, value)}" for name, value in settings.items())


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{format_count(float(value))}/s" if name == "rate" else str(value)
