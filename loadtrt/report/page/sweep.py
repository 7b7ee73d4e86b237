"""A sweep as sections: what throughput costs in latency, and every point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.report.charts.curves import Point, gains, tradeoff
from loadtrt.report.charts.plot import SERIES
from loadtrt.report.page.facts import closing
from loadtrt.report.page.headline import outcome_badge, state_badge
from loadtrt.report.page.run import objective_levels
from loadtrt.report.page.section import Badge, Figure, Name, Notice, Section, Table, Tile, Tiles, section, words
from loadtrt.report.text import UNKNOWN, count_or, joules_text, time_or
from loadtrt.units import format_count, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadtrt.measure.result import RunResult
    from loadtrt.measure.sweep_result import SweepPoint, SweepResult
    from loadtrt.report.page.section import Block, Cell


def sweep(result: SweepResult, file: str, key: str) -> Iterator[Section]:
    """file: what to call it. key: an id that no other result on the page has."""
    yield Section(tuple(_title(result)), tuple(_head(result, file)), level=1, badges=_badges(result))
    yield section("Throughput and latency", *_curve(result))
    yield section("Points", *_points(result))
    settings = {"configuration": {**result.config.options(), **result.axes}, "environment": result.environment}
    yield section("Configuration", *closing(result, file, key, **settings))


def _title(result: SweepResult) -> Iterator[Cell]:
    yield "Sweep of "
    run = next((point.run for point in result.points if point.run is not None), None)
    yield Name(run.engine.name if run else result.config.model.engine)
    if run:
        yield f" on {run.engine.device}"


def _badges(result: SweepResult) -> tuple[Badge, ...]:
    return () if result.outcome == "completed" else (outcome_badge(result.outcome),)


def _head(result: SweepResult, file: str) -> Iterator[Block]:
    axes = " × ".join(f"{name} {', '.join(map(str, values))}" for name, values in result.axes.items())
    yield words(axes)
    yield words(f"loadtrt {result.loadtrt} · {result.started} · ", Name(file))
    if result.failure:
        yield Notice("bad", result.failure, ())
    skipped = f"{format_count(len(result.skipped))} skipped" if result.skipped else ""
    tiles = [Tile("points", format_count(len(result.points)), skipped)]
    rates = [point.run.throughput.inferences_per_s if point.run else None for point in result.points]
    valid = [point.run is not None and point.run.valid for point in result.points]
    known = [(rate, place) for place, rate in enumerate(rates) if rate is not None and valid[place]]
    if known:
        most, place = max(known)
        tiles.append(Tile("most inferences/s", format_count(most), settings_text(result.points[place].settings)))
    if result.knee is not None and 0 <= result.knee < len(result.points):
        settings = settings_text(result.points[result.knee].settings)
        tiles.append(Tile("knee, inferences/s", count_or(rates[result.knee]), settings))
    yield Tiles(tuple(tiles))


def settings_text(settings: Mapping[str, Any]) -> str:
    """The values of the axes in one line."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _curve(result: SweepResult) -> Iterator[Block]:
    percentile, told = "p99", _times(result, "p99")
    if not told:
        percentile, told = "p50", _times(result, "p50")
    if not told:
        yield words("No point has enough requests for a percentile: there is nothing to draw.")
        return
    axis = max(result.axes, key=lambda name: len(result.axes[name]), default="")
    points = []
    for place, (per_s, latency_ns) in told.items():
        settings = result.points[place].settings
        told_apart = _series(result, settings, axis), str(settings.get(axis, ""))
        run = result.points[place].run
        marks = place in result.pareto, place == result.knee, run is not None and run.valid
        points.append(Point(*told_apart, per_s, latency_ns, *marks))
    run = next(point.run for point in result.points if point.run is not None)
    levels = objective_levels(run, percentile)
    note = f"numbers: {axis}; full marks are on the Pareto front" if axis else "full marks are on the Pareto front"
    yield Figure("Latency against throughput", tradeoff(points, percentile, levels), note)
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in result.points:
        value, rate = point.settings.get(axis), point.run.throughput.inferences_per_s if point.run else None
        if isinstance(value, int | float) and not isinstance(value, bool) and rate is not None:
            lines.setdefault(_series(result, point.settings, axis), []).append((value, rate))
    if any(len(line) > 1 for line in lines.values()):
        yield Figure(f"Throughput by {axis}", gains(list(lines.items()), axis), _of_many(len(lines)))
    untold = sum(point.run is not None for point in result.points) - len(told)
    if untold:
        yield words(f"{plural(untold, 'point')} with too few requests for {percentile} not drawn.")


def _series(result: SweepResult, settings: Mapping[str, Any], axis: str) -> str:
    """What tells a line of points along `axis` from the others."""
    varied = {name for name, values in result.axes.items() if len(values) > 1 and name != axis}
    return settings_text({name: value for name, value in settings.items() if name in varied})


def _times(result: SweepResult, percentile: str) -> dict[int, tuple[float, float]]:
    """(inferences a second, ns) by the point's place, of those that know both."""
    found = {}
    for place, point in enumerate(result.points):
        if point.run is None or "latency" not in point.run.metrics:
            continue
        rate, time = point.run.throughput.inferences_per_s, point.run.metrics["latency"].percentiles_ns.get(percentile)
        if rate is not None and time is not None:
            found[place] = (rate, time)
    return found


def _of_many(lines: int) -> str:
    return f"the first {SERIES} of {plural(lines, 'line')}" if lines > SERIES else "what more of it brings"


def _points(result: SweepResult) -> Iterator[Block]:
    axes = list(result.axes)
    rows = [_row(result, place, point, axes) for place, point in enumerate(result.points)]
    header = (*axes, "", "requests/s", "inferences/s", "p50", "p99", "mean", "requests", "J/inference", "")
    yield Table(header, tuple(rows), words=len(axes) + 1, last=True)
    if result.skipped:
        skipped = [(*(Name(str(item.settings.get(name, ""))) for name in axes), item.reason) for item in result.skipped]
        title = f"{plural(len(skipped), 'point')} not measured"
        yield Table((*axes, "why"), tuple(skipped), words=len(axes), last=True, folded=title)


def _row(result: SweepResult, place: int, point: SweepPoint, axes: list[str]) -> tuple[Cell, ...]:
    values: list[Cell] = [Name(str(point.settings.get(name, ""))) for name in axes]
    marks = ["Pareto front"] if place in result.pareto else []
    marks += ["knee"] if place == result.knee else []
    marks += [point.failure] if point.failure else []
    run = point.run
    badge = Badge("FAILED", "bad") if run is None else state_badge(run)
    return (*values, badge, *(run_cells(run) if run is not None else [UNKNOWN] * 7), ", ".join(marks))


def run_cells(run: RunResult) -> list[str]:
    """requests/s, inferences/s, p50, p99, mean, requests, J/inference."""
    latency = run.metrics.get("latency")
    known = {**latency.percentiles_ns, "mean": latency.mean_ns} if latency else {}
    times = [known.get(name) for name in ("p50", "p99", "mean")]
    energy = run.telemetry.joules_per_inference if run.telemetry else None
    rates = (run.throughput.requests_per_s, run.throughput.inferences_per_s)
    return [*map(count_or, rates), *map(time_or, times), format_count(run.ok), joules_text(energy)]
