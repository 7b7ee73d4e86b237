"""A sweep as sections: what throughput costs in latency, and every point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.findings.device_scaling import efficiency_of, fewest_devices
from loadtrt.report.charts.curves import Point, gains, tradeoff
from loadtrt.report.charts.plot import SERIES
from loadtrt.report.comparison_sections import measured_of
from loadtrt.report.comparison_verdicts import ratio_cells
from loadtrt.report.document import Figure, Name, Notice, Section, Table, Tile, Tiles, section, words
from loadtrt.report.formatting import UNKNOWN, between, count_or, joules_text, time_or
from loadtrt.report.partition_sections import shares_of_sms, size_of
from loadtrt.report.run_verdict import ended, outcome_badge, shortfalls, state_badge, time_of, why_unrated
from loadtrt.report.settings import about, arrivals_text, axes_text, axis_value, closing, latency_bounds, noted, title
from loadtrt.report.worker_sections import fleet_text, on_one_gpu
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.stats.regression import ratio_of
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import format_count, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadtrt.report.document import Block, Cell
    from loadtrt.results.capacity_result import SweepPoint, SweepResult
    from loadtrt.results.run_result import RunResult

_COLUMNS = (
    *("", "inferences/s", "latency p50", "p99", "service p50"),
    *("requests/s", "mean", "requests", "J/inference", ""),
)
_MOST_LEFT = 8  # points of a sentence
_DETAIL = 4  # of these columns, which plain text leaves out: the last before the remarks


def sweep(result: SweepResult, file: str, key: str) -> Iterator[Section]:
    """A sweep, the points last. file, key: as in `sections_of`."""
    engine = next((point.run.model.engine for point in result.points if point.run is not None), None)
    heading = title(engine, "Sweep of ", result.config.model.engine)
    badges = () if result.outcome == "completed" else (outcome_badge(result.outcome),)
    yield Section(heading, tuple(_head(result, file)), level=1, badges=badges)
    yield section("Throughput and latency", *_curve(result), bare=True)
    yield section("Points", *_points(result), bare=True)
    yield section("FP16 beside FP32", *_fp16(result), bare=True)
    yield section("Devices beside each other", *_devices(result), bare=True)
    yield section("Partitions of the SMs", *shares_of_sms(result), bare=True)
    yield section("Findings", *ended(result), *_problems(result), bare=True, conclusion=True)
    yield closing(
        result, file, key, configuration={**result.config.options(), **result.axes}, environment=result.environment
    )


def _head(result: SweepResult, file: str) -> Iterator[Block]:
    axes = [(name, [axis_value(name, value) for value in values]) for name, values in result.axes.items()]
    yield words(" × ".join(f"{name.replace('_', ' ')} {', '.join(values)}" for name, values in axes))
    if arrivals := arrivals_text(result):
        yield words(arrivals)
    for text in (
        fleet_text(result.config, result.axes),
        on_one_gpu([point.run for point in result.points if point.run is not None]),
    ):
        if text:
            yield words(text)
    yield about(result, file)
    yield from noted(point.run.model.engine for point in result.points if point.run)
    skipped = f"{format_count(len(result.skipped))} skipped" if result.skipped else ""
    tiles = [Tile("points", format_count(len(result.points)), skipped, detail=True)]
    rates = [point.run.model.throughput.inferences_per_s if point.run else None for point in result.points]
    valid = [point.run is not None and point.run.valid for point in result.points]
    known = [(rate, place) for place, rate in enumerate(rates) if rate is not None and valid[place]]
    if known:
        most, place = max(known)
        settings = axes_text(result.points[place].settings)
        tiles.append(Tile("most inferences/s", format_count(most), settings, detail=True))
    if result.knee is not None and 0 <= result.knee < len(result.points):
        settings = axes_text(result.points[result.knee].settings)
        tiles.append(Tile("knee, inferences/s", count_or(rates[result.knee]), settings, detail=True))
    yield Tiles(tuple(tiles))


def _curve(result: SweepResult) -> Iterator[Block]:
    percentile, known = "p99", _times(result, "p99")
    if not known:
        percentile, known = "p50", _times(result, "p50")
    if not known:
        yield words("No point has enough requests for a percentile: there is nothing to draw.", only="page")
        return
    axis = max(result.axes, key=lambda name: len(result.axes[name]), default="")
    points = []
    for place, (per_s, latency_ns) in known.items():
        settings = result.points[place].settings
        told_apart = _series(result, settings, axis), str(settings.get(axis, ""))
        run = result.points[place].run
        marks = place in result.pareto, place == result.knee, run is not None and run.valid
        points.append(Point(*told_apart, per_s, latency_ns, *marks))
    run = next(point.run for point in result.points if point.run is not None)
    note = "; ".join(
        [f"numbers: {axis}"] * bool(axis)
        + ["full marks are on the Pareto front"] * any(point.front for point in points)
    )
    yield Figure("Latency against throughput", tradeoff(points, percentile, latency_bounds(run, percentile)), note)
    unit, lines = axis, dict[str, list[tuple[float, float]]]()
    for point in result.points:
        value, rate = point.settings.get(axis), point.run.model.throughput.inferences_per_s if point.run else None
        if axis == "sms" and point.run and (size := size_of(point.run)):  # which a GPU rounds, and may be a share
            value, unit = size
        if isinstance(value, int | float) and not isinstance(value, bool) and rate is not None:
            lines.setdefault(_series(result, point.settings, axis), []).append((value, rate))
    if any(len(line) > 1 for line in lines.values()):
        shown = (
            f"the first {SERIES} of {plural(len(lines), 'line')}" if len(lines) > SERIES else "what more of it brings"
        )
        yield Figure(f"Throughput by {axis}", gains(list(lines.items()), unit), shown)
    missing = sum(point.run is not None for point in result.points) - len(known)
    if missing:
        yield words(f"{plural(missing, 'point')} with too few requests for {percentile} not drawn.", only="page")


def _series(result: SweepResult, settings: Mapping[str, Any], axis: str) -> str:
    """The settings that distinguish a line of points along `axis` from the others."""
    varied = {name for name, values in result.axes.items() if len(values) > 1 and name != axis}
    return axes_text({name: value for name, value in settings.items() if name in varied})


def _times(result: SweepResult, percentile: str) -> dict[int, tuple[float, float]]:
    """(inferences a second, ns) by the point's place, of those that know both."""
    times = {}
    for place, point in enumerate(result.points):
        if point.run is not None:
            rate = point.run.model.throughput.inferences_per_s
            time = time_of(point.run.model.metrics, percentile)
            if rate is not None and time is not None:
                times[place] = (rate, time)
    return times


def _points(result: SweepResult) -> Iterator[Block]:
    order = result.points[0].settings if result.points else {}  # the axis that changes slowest first
    axes = list(dict.fromkeys((*(name for name in order if name in result.axes), *result.axes)))
    rows = [_row(result, place, point, axes) for place, point in enumerate(result.points)]
    header = (*(axis.replace("_", " ") for axis in axes), *_COLUMNS)
    remarks = len(header) - 1
    detail = (len(axes), *range(remarks - _DETAIL, remarks))
    yield Table(header, tuple(rows), words=len(axes) + 1, last=1, detail=detail)
    metrics = [point.run.model.metrics for point in result.points if point.run and point.run.model.ok]
    if any(time_of(found, "p99") is None for found in metrics):
        needs = format_count(least_samples(PERCENTILES["p99"]))
        yield words(f"p99 {UNKNOWN}: the point has too few requests, as p99 takes {needs}")
    yield from _unrated(result)
    if len(result.pareto) > 1:
        yield words("front: the Pareto front of latency and throughput", only="page")
    if result.skipped:
        skipped = [(*(Name(_value(item.settings, name)) for name in axes), item.reason) for item in result.skipped]
        folded = f"{plural(len(skipped), 'point')} not measured"
        yield Table((*axes, "why"), tuple(skipped), words=len(axes), last=1, folded=folded, only="page")
    reasons: dict[str, list[dict[str, Any]]] = {}
    for item in result.skipped:
        reasons.setdefault(item.reason, []).append(item.settings)
    for reason, left in reasons.items():
        more = f" and {plural(len(left) - 1, 'point')} more" if len(left) > 1 else ""
        yield words(f"not measured: {axes_text(left[0])}{more}: {reason}", only="terminal")


def _fp16(result: SweepResult) -> Iterator[Block]:
    """What FP16 gains at each of the other settings, and how far its answers are from FP32's."""
    full = [point for point in result.points if point.settings.get("fp16") is False and point.run is not None]
    rows = []
    for before in full:
        settings = {**before.settings, "fp16": True}
        after = next((point.run for point in result.points if point.settings == settings), None)
        if after is None or before.run is None:
            continue
        number = "throughput" if after.config.model.load.closed else "latency.p50"
        ratio = ratio_of(number, [measured_of("", before.run)], [measured_of("", after)])
        deviation = after.model.deviation
        others = axes_text({name: value for name, value in before.settings.items() if name != "fp16"})
        told = UNKNOWN if deviation is None else deviation.text + (", beyond its precision" if deviation.beyond else "")
        rows.append((others, number.replace(".", " "), *ratio_cells(ratio), told))
    if rows:
        header = ("", "of", "FP16 / FP32", "95 %", "deviation of the answers")
        note = "one run each: the interval does not cover what differs from run to run"
        yield Table(header, tuple(rows), words=2, last=1, note=note)


def _devices(result: SweepResult) -> Iterator[Block]:
    """What several devices serve over as many times the work of the fewest."""
    rows = []
    for point in result.points:
        fewest = fewest_devices(result.points, point)
        known = efficiency_of(fewest, point.run) if fewest is not None and point.run is not None else None
        if known is not None:
            interval = between(known.low, known.high, "{:.3f}".format) or UNKNOWN
            rows.append((axes_text(point.settings), str(known.devices), f"{known.ratio:.3f}", interval))
    if rows:
        note = (
            "throughput over as many times that of the fewest devices; one run each: the interval does not cover what "
        )
        yield Table(("", "devices", "efficiency", "95 %"), tuple(rows), note=f"{note}differs from run to run")


def _unrated(result: SweepResult) -> Iterator[Block]:
    """The points that are on neither the front nor the knee, whatever they measured."""
    runs = [(axes_text(point.settings), point.run) for point in result.points if point.run is not None]
    left = [f"{name} ({why})" for name, run in runs if (why := why_unrated(run)) is not None]
    if left:
        more = f" and {plural(len(left) - _MOST_LEFT, 'point')} more" if len(left) > _MOST_LEFT else ""
        yield words(f"neither front nor knee: {'; '.join(left[:_MOST_LEFT])}{more}")


def _row(result: SweepResult, place: int, point: SweepPoint, axes: list[str]) -> tuple[Cell, ...]:
    values: list[Cell] = [Name(_value(point.settings, name)) for name in axes]
    run = point.run
    remarks = ["knee"] if place == result.knee else []
    remarks += ["front"] if place in result.pareto and len(result.pareto) > 1 else []
    remarks += ["failed"] if point.failure else []
    if run is not None:
        remarks += [] if run.outcome == "completed" or point.failure else [run.outcome]
        remarks += [] if run.valid else ["INVALID"]
        remarks += shortfalls(run)
        remarks += [f"{item.objective} {item.verdict}" for item in run.model.objectives if item.verdict]
    numbers = [UNKNOWN] * (len(_COLUMNS) - 2) if run is None else _numbers(run)
    return (*values, state_badge(run), *numbers, ", ".join(remarks))


def _value(settings: Mapping[str, Any], name: str) -> str:
    return axis_value(name, settings[name]) if name in settings else ""


def _numbers(run: RunResult) -> list[str]:
    """The numbers of a point, in the order of _COLUMNS."""
    metrics, rates = run.model.metrics, run.model.throughput
    return [
        count_or(rates.inferences_per_s),
        time_or(time_of(metrics, "p50")),
        time_or(time_of(metrics, "p99")),
        time_or(time_of(metrics, "p50", "service")),
        count_or(rates.requests_per_s),
        time_or(time_of(metrics, "mean")),
        format_count(run.model.ok),
        joules_text(run.telemetry.joules_per_inference if run.telemetry else None),
    ]


def _problems(result: SweepResult) -> Iterator[Notice]:
    for point in result.points:
        name = axes_text(point.settings)
        if point.failure is not None:
            yield Notice("bad", f"{name}: {point.failure}")
        elif point.run is not None:
            for problem in point.run.model.problems:
                yield Notice("bad", f"{name}: INVALID, {problem.evidence}", (("remedy", problem.remedy),))
            for item in point.run.model.findings:
                if item.kind == "scaling":
                    rest = (("cause", item.cause), ("remedy", item.remedy))
                    yield Notice("open", f"{name}: {item.evidence}", rest, item.kind)
