"""A run as sections: the headline, findings, how latencies are distributed, where the time goes, batches and lanes."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from loadtrt.records.histogram import Histogram
from loadtrt.records.records import METRICS
from loadtrt.report.charts.shares import Bar, Stack, bars, shares, spectrum, stacks
from loadtrt.report.document import Figure, Name, Table, section, words
from loadtrt.report.formatting import UNKNOWN, percent_text, time_or
from loadtrt.report.profile_sections import layers
from loadtrt.report.run_timeline import gpu, over_time, timeline_of
from loadtrt.report.run_verdict import badges, findings, headline, latency_interval, objectives, side_by_side, time_of
from loadtrt.report.settings import engine_facts, facts, latency_bounds
from loadtrt.report.worker_sections import workers
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.one_model import models_of
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.report.document import Block, Section
    from loadtrt.results.breakdown import Batches
    from loadtrt.results.run_result import RunResult

_MARKED = ("p50", "p90", "p99", "p99.9")
_MOST_BARS = 64  # lanes or sizes of batches
_MOST_LANES = 16  # that a terminal lists
_MOST_SIZES = 6  # of batches, in a sentence
_ALIKE = 0.01  # means closer than that have one line
_OF_PARTS = ("p50", "p90", "p99")
_AT_LEAST, _AT_MOST = "  at least", "  at most"  # rows of the table of metrics
_PARTS = ("queue", "h2d", "compute", "d2h", "other")


def run(result: RunResult, file: str, key: str) -> Iterator[Section]:
    """A run, the most important first, model by model. file, key: as in `sections_of`."""
    models = models_of(result)
    device = gpu(result, timeline_of(next(iter(models.values()))))
    if len(models) == 1:
        yield from _model(result, file, "")
        yield device
    else:
        yield side_by_side(result, models, file)
        yield device
        for name, single in models.items():
            yield from _model(single, file, name)
        verdict = " · ".join(badge.text for badge in badges(result))
        yield section("All models", words(verdict, only="terminal"), conclusion=True)
    if result.workers:
        yield workers(result)
    yield section("Configuration", *facts(result, file, key), bare=True)


def _model(result: RunResult, file: str, name: str) -> Iterator[Section]:
    """A run of one model. name: of the model, where the run has several."""
    model = result.model
    yield headline(result, file, name)
    yield objectives(result)
    yield findings(result)
    if model.ok:
        yield section("Latency", *latency(result), bare=True)
    yield section("Over time", *over_time(result), bare=True)
    if model.ok:
        yield section("Where the time goes", *_parts(result), only="page")
        if model.mix:
            yield section("Mix", _mix(result), bare=True)
        if model.batches is not None and model.batches.counts:
            yield section("Batches", *_batches(model.batches), bare=True)
        if not result.workers:
            yield section("Lanes", *_lanes(result), bare=True)
    if model.profile is not None:
        yield from layers(model.profile, told=model.engine.notes)
    yield section("Engine", *engine_facts(result), bare=True)


def histogram_of(result: RunResult, metric: str) -> Histogram | None:
    """A metric's histogram; None where no request was counted."""
    if metric not in result.model.histograms:
        return None
    histogram = Histogram.from_dict(result.model.histograms[metric])
    return histogram if histogram.count else None


def latency(result: RunResult) -> Iterator[Block]:
    """How latencies are distributed, in charts and as a table."""
    histogram, bounds = histogram_of(result, "latency"), latency_bounds(result)
    if histogram is not None:
        times = ((name, time_of(result.model.metrics, name)) for name in _MARKED)
        marks = [(name, time) for name, time in times if time is not None]
        yield Figure("Spectrum", spectrum(histogram, marks, bounds), "how many requests took how long")
        curves = [("latency", histogram)]
        for name in ("service", "compute"):
            other = histogram_of(result, name)
            if other is not None and other.max and not any(_alike(other, drawn) for _, drawn in curves):
                curves.append((name, other))
        chart = shares(curves, bounds, "latency" if len(curves) == 1 else "time", result.model.objectives)
        yield Figure("By share of requests", chart, "each 9 more to the right is ten times rarer")
    yield _metrics(result)


def _alike(one: Histogram, other: Histogram) -> bool:
    """Whether the means are so close that the curves would coincide."""
    mean = other.sum / other.count
    return abs(one.sum / one.count - mean) <= _ALIKE * mean


def _metrics(result: RunResult) -> Table:
    rows = []
    summaries = result.model.metrics
    copies = summaries["h2d"].max_ns if "h2d" in summaries else None
    for metric in METRICS:
        summary = summaries.get(metric.name)
        if summary is None or not summary.max_ns or (metric.name == "device" and not copies):
            continue  # a phase this engine does not have, or a sum of one
        values = [*(summary.percentiles_ns.get(name) for name in PERCENTILES), summary.max_ns, summary.mean_ns]
        rows.append((metric.name, *map(time_or, values), metric.help))
        if metric.name == "latency":
            rows += _confidence(result, (*PERCENTILES, "max", "mean"))
    latencies = summaries["latency"].percentiles_ns if "latency" in summaries else {}
    missing = [name for name, value in latencies.items() if value is None and name in PERCENTILES]
    needs = ", ".join(f"{name} takes {format_count(least_samples(PERCENTILES[name]))}" for name in missing)
    note = f"{UNKNOWN} not supported by {plural(summaries['latency'].count, 'request')}: {needs}" if needs else ""
    if not result.model.percentiles_exact:
        note += f"{'; ' if note else ''}percentiles from histograms, within 0.4 %"
    if any(row[0] == _AT_LEAST for row in rows):
        note += f"{'; ' if note else ''}at least, at most: 95 % confidence intervals"
        if any(cell == UNKNOWN for row in rows if row[0] == _AT_MOST for cell in row):
            note += f"; at most {UNKNOWN}: the run is too short for that end"
    header = ("", *PERCENTILES, "max", "mean", "is")
    return Table(header, tuple(rows), last=1, note=note, detail=(len(header) - 1,))


def _confidence(result: RunResult, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The ends of latency's 95 % confidence intervals: a row each."""
    known = [latency_interval(result, name) for name in names]
    if any(known):
        lows = ("" if interval is None else time_or(interval[0]) for interval in known)
        highs = ("" if interval is None else time_or(interval[1]) for interval in known)
        yield _AT_LEAST, *lows, "lower end of the 95 % confidence interval of latency"
        yield _AT_MOST, *highs, f"its upper end; {UNKNOWN} where the run is too short to give one"


def _parts(result: RunResult) -> Iterator[Block]:
    rows = list(_part_rows(result))
    if not rows:
        yield words("Not known: there are too few requests for cohorts, and some were never served.")
        return
    kept = [place for place, _ in enumerate(_PARTS) if any(row[2][place] > 0 for row in rows)]
    timed = result.model.engine.device_times
    names = [_PARTS[place] if timed or _PARTS[place] != "other" else "service" for place in kept]
    drawn = [Stack(name, [parts[place] for place in kept], format_duration(sum(parts))) for name, _, parts in rows]
    means = "mean of all requests, and of those near p50 and from p99 on" if len(rows) > 1 else "mean of all requests"
    chart = stacks("Where the time goes", f"{means}: {', '.join(names)}.", names, drawn, format_duration)
    yield Figure("Latency, part by part", chart, means)
    table = tuple(
        (name, requests, format_duration(sum(parts)), *(format_duration(parts[place]) for place in kept))
        for name, requests, parts in rows
    )
    note = "other: waiting in the lane for its turn" if timed else "service: device times were not measured"
    yield Table(("", "requests", "latency", *names), table, note=note)


def _part_rows(result: RunResult) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """(name, requests, mean ns of each part) of all requests and of each cohort."""
    metrics = ("queue", "service", "h2d", "compute", "d2h")
    queue, service, *phases = (time_of(result.model.metrics, "mean", metric) for metric in metrics)
    if queue is not None and service is not None and not result.model.unserved:  # queue counts those never served, too
        device = [phase or 0.0 for phase in phases]
        yield "all", format_count(result.model.ok), (queue, *device, max(service - sum(device), 0.0))
    for name, cohort in result.model.cohorts.items():
        device = [phase or 0.0 for phase in (cohort.h2d_ns, cohort.compute_ns, cohort.d2h_ns)]
        parts = (cohort.queue_ns, *device, max(cohort.other_ns, 0.0))
        yield f"{'near' if name == 'p50' else 'from'} {name}", format_count(cohort.requests), parts


def _mix(result: RunResult) -> Table:
    rows = []
    for part in result.model.mix:
        times = [*(time_of(part.metrics, name) for name in _OF_PARTS), time_of(part.metrics, "mean", "compute")]
        share = f"{100 * part.offered_share:.3g} %"
        rows.append((Name(part.name), share, format_count(part.requests), *map(time_or, times)))
    header = ("part", "offered", "requests", *(f"latency {name}" for name in _OF_PARTS), "compute, mean")
    return Table(header, tuple(rows))


def _batches(batches: Batches) -> Iterator[Block]:
    total = sum(batches.counts.values())
    sizes_per_bar = math.ceil(max(batches.counts) / _MOST_BARS)
    counts_by_bar: Counter[int] = Counter()
    for size, count in batches.counts.items():
        counts_by_bar[(size - 1) // sizes_per_bar] += count
    most = sorted(batches.counts.items(), key=lambda item: -item[1])[:_MOST_SIZES]
    yield words(
        f"batches of {batches.mean:.2f} requests on average, {percent_text(batches.padded)} padding; "
        f"most often {', '.join(f'{size} ({percent_text(count / total)})' for size, count in most)}"
    )
    drawn = [
        Bar(
            str(place + 1) if sizes_per_bar == 1 else f"{place * sizes_per_bar + 1} to {(place + 1) * sizes_per_bar}",
            count,
            f"{format_count(count)} · {100 * count / total:.1f} %",
        )
        for place, count in sorted(counts_by_bar.items())
    ]
    chart = bars("Batches by size", f"{plural(total, 'batch')}.", drawn)
    yield Figure("Batches by size", chart, "requests in one")


def _lanes(result: RunResult) -> Iterator[Block]:
    lanes = result.model.lanes
    if text := _lanes_text(result):
        yield words(text)
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
        only="" if 1 < len(lanes) <= _MOST_LANES else "page",
    )


def _lanes_text(result: RunResult) -> str:
    """All lanes together, the host and the clock, on one line."""
    texts = []
    if result.model.fairness is not None and len(result.model.lanes) > 1:
        texts.append(f"fairness {result.model.fairness:.3f}")
    if result.model.overlap is not None:
        busy, computing = result.model.overlap.busy_fraction, result.model.overlap.lanes_computing
        texts.append(f"computing {100 * busy:.1f} % of the time, {computing:.2f} lanes at once")
    if result.host_cores is not None:
        texts.append(f"host {result.host_cores:.2f} cores")
    if result.clock is not None:
        texts.append(f"GPU clock ± {format_duration(max(result.clock.error_ns, result.clock.drift_ns))}")
    return " · ".join(texts)
