"""A run as sections, most telling first: how latencies are distributed, how the run went, where the time goes."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from loadtrt.measure.histogram import Histogram
from loadtrt.measure.sampling import least_samples
from loadtrt.measure.summary import PERCENTILES
from loadtrt.records.records import METRICS
from loadtrt.report.charts.bars import Bar, Stack, bars, stacks
from loadtrt.report.charts.latency import Bound, Curve, shares, spectrum
from loadtrt.report.charts.timeline import (
    Phase,
    Timeline,
    grouped,
    heat_map,
    percentiles,
    slow_phases,
    throughput,
)
from loadtrt.report.page.facts import facts
from loadtrt.report.page.gpu import gpu
from loadtrt.report.page.headline import findings, headline
from loadtrt.report.page.layers import layers
from loadtrt.report.page.section import Figure, Name, Table, section, words
from loadtrt.report.tables import lanes_text, phases_text
from loadtrt.report.text import UNKNOWN, time_or
from loadtrt.units import SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.measure.result import Batches, RunResult, Steadiness
    from loadtrt.report.page.section import Block, Section

_MARKED = ("p50", "p90", "p99", "p99.9")
_MOST_REQUESTS = 1 << 53  # that a file may claim
_MOST_BARS = 64  # lanes or sizes of batches
_ALIKE = 0.01  # means closer than that have one line
_WARMUP_SHARE = 0.35  # of the measured time: a longer warm-up is not drawn before it
_DRAIN_SHARE = 0.01  # a shorter drain is not seen
_OF_PARTS = ("p50", "p90", "p99")
_PARTS = ("queue", "h2d", "compute", "d2h", "other")


def run(result: RunResult, file: str, key: str) -> Iterator[Section]:
    """file: what to call it. key: an id that no other result on the page has."""
    yield headline(result, file)
    yield findings(result)
    if result.ok:
        yield section("Latency", *latency(result))
        yield section("Over time", *_over_time(result))
        yield section("Where the time goes", *_parts(result))
        if result.mix:
            yield section("Mix", _mix(result))
        if result.batches is not None and result.batches.counts:
            yield section("Batches", *_batches(result.batches))
        yield section("Lanes", *_lanes(result))
    if result.profile is not None:
        yield from layers(result.profile)
    if result.telemetry is not None:
        yield gpu(result.telemetry, timeline_of(result))
    yield facts(result, file, key)


def histogram_of(result: RunResult, metric: str) -> Histogram | None:
    """None where the file holds none, an empty one, or what cannot be one."""
    try:
        histogram = Histogram.from_dict(result.histograms[metric])
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return None
    known = [value for value in (histogram.sum, histogram.min, histogram.max) if isinstance(value, int) and value >= 0]
    right = len(known) == 3 and known[1] <= known[2] and 0 < histogram.count <= _MOST_REQUESTS
    return histogram if right and int(histogram.counts.min()) >= 0 else None


def bounds_of(result: RunResult, metric: str) -> list[Bound]:
    """The objectives that bind a metric."""
    found = []
    for item in result.objectives:
        objective = item.objective
        if objective.metric_name == metric:
            found.append(Bound(objective.text, objective.rank, objective.bound_ns, item))
    return found


def objective_levels(result: RunResult, percentile: str) -> list[tuple[str, int]]:
    """(name, ns) of the objectives that bind that percentile of latency."""
    found = [bound for bound in bounds_of(result, "latency") if bound.name.startswith(f"latency.{percentile} ")]
    return [(bound.name, bound.bound_ns) for bound in found]


def timeline_of(result: RunResult) -> Timeline:
    """The run's time axis: up to the last completion, with its phases."""
    phases, end_ns = result.phases, max(result.phases.measure_ns, len(result.intervals) * SECOND_NS - SECOND_NS + 1)
    drawn = []
    if 0 < phases.warmup_ns <= _WARMUP_SHARE * end_ns:
        drawn.append(Phase("warm-up", "edge", -phases.warmup_ns, 0))
    if result.steadiness is not None:
        if result.steadiness.transient_ns:
            drawn.append(Phase("transient", "transient", 0, result.steadiness.transient_ns))
        slow, stall = result.steadiness.slow, result.steadiness.stall
        drawn += [Phase("slow", "behind", slow.start_ns, slow.end_ns)] if slow else []
        drawn += [Phase("stood still", "still", stall.start_ns, stall.start_ns + stall.longest_ns)] if stall else []
    if phases.drain_ns >= _DRAIN_SHARE * end_ns:
        drawn.append(Phase("drain", "edge", max(end_ns - phases.drain_ns, 0), end_ns))
    drawn += slow_phases(result.intervals)
    return Timeline(end_ns, max(end_ns - phases.drain_ns, 1), tuple(drawn))


def latency(result: RunResult) -> Iterator[Block]:
    """How latencies are distributed, in charts and as a table."""
    histogram, bounds = histogram_of(result, "latency"), bounds_of(result, "latency")
    if histogram is not None:
        known = result.metrics["latency"].percentiles_ns if "latency" in result.metrics else {}
        marks = [(name, value) for name in _MARKED if (value := known.get(name)) is not None]
        yield Figure("Spectrum", spectrum(histogram, marks, bounds, "latency"), "how many requests took how long")
        curves = [Curve("latency", histogram)]
        for name in ("service", "compute"):
            other = histogram_of(result, name)
            if other is not None and other.max and not any(_alike(other, curve.histogram) for curve in curves):
                curves.append(Curve(name, other))
        chart = shares(curves, bounds, "latency" if len(curves) == 1 else "time")
        yield Figure("By share of requests", chart, "each 9 more to the right is ten times rarer")
    yield _metrics(result)


def _alike(one: Histogram, other: Histogram) -> bool:
    """Whether their lines would lie on each other."""
    mean = other.sum / other.count
    return abs(one.sum / one.count - mean) <= _ALIKE * mean


def _metrics(result: RunResult) -> Table:
    rows = []
    found = result.metrics
    copies = found["h2d"].max_ns if "h2d" in found else None
    for metric in METRICS:
        summary = found.get(metric.name)
        if summary is None or not summary.max_ns or (metric.name == "device" and not copies):
            continue  # a phase this engine does not have, or a sum of one
        values = [*(summary.percentiles_ns.get(name) for name in PERCENTILES), summary.max_ns, summary.mean_ns]
        rows.append((metric.name, *map(time_or, values), metric.help))
    latencies = found["latency"].percentiles_ns if "latency" in found else {}
    missing = [name for name, value in latencies.items() if value is None and name in PERCENTILES]
    needs = ", ".join(f"{name} takes {format_count(least_samples(PERCENTILES[name]))}" for name in missing)
    note = f"{UNKNOWN} not supported by {plural(found['latency'].count, 'request')}: {needs}" if needs else ""
    if not result.percentiles_exact:
        note += f"{'; ' if note else ''}percentiles from histograms, within 0.4 %"
    return Table(("", *PERCENTILES, "max", "mean", "is"), tuple(rows), last=True, note=note)


def _over_time(result: RunResult) -> Iterator[Block]:
    yield words(phases_text(result))
    if result.steadiness is not None:
        yield words(_steadiness(result.steadiness))
    if len(result.intervals) < 2:
        yield words("The run was too short for charts over time: they have a point a second.")
        return
    timeline, bounds = timeline_of(result), bounds_of(result, "latency")
    each = grouped(len(result.intervals))
    note = "a point a second" if each == 1 else f"a point every {each} s"
    yield Figure("Throughput", throughput(result.intervals, timeline, result.config.model.load.course()), note)
    greatest = "" if each == 1 else ": the greatest of its seconds'"
    yield Figure("Latency", percentiles(result.intervals, timeline, bounds), f"{note}{greatest}")
    if any(count > 0 for interval in result.intervals for count in interval.latency_counts.values()):
        yield Figure(
            "Heat map", heat_map(result.intervals, timeline, bounds), "requests by second and latency, darker for more"
        )
    else:
        yield words("No heat map: this file is from a loadtrt that did not keep latencies second by second.")


def _steadiness(seen: Steadiness) -> str:
    found = [f"the first {format_duration(seen.transient_ns)} were not yet steady"] if seen.transient_ns else []
    if seen.drift_ratio is not None:
        found.append(f"latency at the end was {seen.drift_ratio:.2f} × that at the beginning")
    if seen.overloaded:
        found.append("requests came faster than they were served")
    if seen.slow is not None:
        found.append(f"it was slow from {format_duration(seen.slow.start_ns)} to {format_duration(seen.slow.end_ns)}")
    if seen.stall is not None:
        found.append(f"it stood still for {format_duration(seen.stall.longest_ns)}")
    if seen.transient_ns is None and not seen.overloaded:
        found.append("whether it was steady cannot be told")
    return "; ".join(found) or "no transient, drift or overload was found"


def _parts(result: RunResult) -> Iterator[Block]:
    rows = list(_part_rows(result))
    if not rows:
        yield words("Not known: there are too few requests for cohorts, and some were never served.")
        return
    kept = [place for place, _ in enumerate(_PARTS) if any(row[2][place] > 0 for row in rows)]
    names = [_PARTS[place] for place in kept]
    drawn = [Stack(name, [parts[place] for place in kept], format_duration(sum(parts))) for name, _, parts in rows]
    means = "mean of all requests, and of those near p50 and from p99 on" if len(rows) > 1 else "mean of all requests"
    chart = stacks("Where the time goes", f"{means}: {', '.join(names)}.", names, drawn, format_duration)
    yield Figure("Latency, part by part", chart, means)
    table = tuple(
        (name, requests, format_duration(sum(parts)), *(format_duration(parts[place]) for place in kept))
        for name, requests, parts in rows
    )
    yield Table(("", "requests", "latency", *names), table, note="other: waiting in the lane for its turn")


def _part_rows(result: RunResult) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """(name, requests, mean ns of each part) of all requests and of each cohort."""
    means = {name: summary.mean_ns for name, summary in result.metrics.items()}
    queue, service, *phases = (means.get(name) for name in ("queue", "service", "h2d", "compute", "d2h"))
    if queue is not None and service is not None and not result.unserved:  # queue counts those never served, too
        device = [phase or 0.0 for phase in phases]
        yield "all", format_count(result.ok), (queue, *device, max(service - sum(device), 0.0))
    for name, cohort in result.cohorts.items():
        parts = (cohort.queue_ns, cohort.h2d_ns, cohort.compute_ns, cohort.d2h_ns, max(cohort.other_ns, 0.0))
        yield f"{'near' if name == 'p50' else 'from'} {name}", format_count(cohort.requests), parts


def _mix(result: RunResult) -> Table:
    rows = []
    for part in result.mix:
        known = part.metrics["latency"].percentiles_ns if "latency" in part.metrics else {}
        compute = part.metrics["compute"].mean_ns if "compute" in part.metrics else None
        times = [time_or(known.get(name)) for name in _OF_PARTS]
        share = f"{100 * part.offered_share:.3g} %"
        rows.append((Name(part.name), share, format_count(part.requests), *times, time_or(compute)))
    header = ("part", "offered", "requests", *(f"latency {name}" for name in _OF_PARTS), "compute, mean")
    return Table(header, tuple(rows))


def _batches(batches: Batches) -> Iterator[Block]:
    total = sum(batches.counts.values())
    each = math.ceil(max(batches.counts) / _MOST_BARS)
    found: Counter[int] = Counter()
    for size, count in batches.counts.items():
        found[(size - 1) // each] += count
    yield words(f"{batches.mean:.2f} requests in a batch on average, {100 * batches.padded:.1f} % computed for nobody")
    drawn = [
        Bar(
            str(place + 1) if each == 1 else f"{place * each + 1} to {(place + 1) * each}",
            count,
            f"{format_count(count)} · {100 * count / total:.1f} %",
        )
        for place, count in sorted(found.items())
    ]
    chart = bars("Batches by size", f"{format_count(total)} batches.", drawn)
    yield Figure("Batches by size", chart, "requests in one")


def _lanes(result: RunResult) -> Iterator[Block]:
    lanes = result.lanes
    yield words(lanes_text(result))
    if 1 < len(lanes) <= _MOST_BARS:
        counts = [Bar(f"lane {lane.lane}", lane.requests, format_count(lane.requests)) for lane in lanes]
        yield Figure("Requests", bars("Requests by lane", f"{plural(len(lanes), 'lane')}.", counts))
        times = [Bar(f"lane {lane.lane}", lane.service_p50_ns, time_or(lane.service_p50_ns), "f2") for lane in lanes]
        yield Figure("Service, p50", bars("Median service by lane", f"{plural(len(lanes), 'lane')}.", times))
    yield Table(
        ("lane", "requests", "service p50", "compute p50"),
        tuple(
            (str(lane.lane), format_count(lane.requests), time_or(lane.service_p50_ns), time_or(lane.compute_p50_ns))
            for lane in lanes
        ),
        folded=f"{plural(len(lanes), 'lane')} as a table",
    )
