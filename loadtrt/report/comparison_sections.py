"""Runs side by side as sections, in trtexec's terms: each a result of loadtrt or trtexec's times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loadtrt.records.histogram import Histogram
from loadtrt.records.records import METRICS, Records
from loadtrt.report.comparison_verdicts import CHANCE, TONES, figures, interval_text, ratio_cells, tile_of, verdict_on
from loadtrt.report.document import Name, Notice, Section, Table, Tiles, known_columns, section, words
from loadtrt.report.formatting import UNKNOWN, differences
from loadtrt.report.run_verdict import beside_text
from loadtrt.report.settings import compared_settings
from loadtrt.report.trtexec import stamp_step_ns
from loadtrt.stats.intervals import rate_interval
from loadtrt.stats.measured import Measured
from loadtrt.stats.regression import compare
from loadtrt.stats.summary import summarize
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.report.document import Badge, Block, Cell
    from loadtrt.results.run_result import RunResult
    from loadtrt.stats.regression import Comparison, Judged, Ratio, Threshold

_SHOWN = ("p50", "p90", "p99", "mean")
_DEVICE = ("device", "enqueue", "h2d", "compute", "d2h")  # what trtexec measures, too
_TILES = ("throughput", "latency.p50", "latency.p99", "device.p50", "device.p99")
_MOST_TILES = 3
_WARMUP_NS = 200 * MILLISECOND_NS  # trtexec's default
_COARSE = 0.05  # of a mean: stamps with larger steps say nothing of single values


@dataclass(frozen=True, slots=True)
class Side:
    """One run of a side.

    settings: what runs may differ in; None for trtexec's times, which do not have them.
    writer: who wrote the file; "" where its times do not say.
    notes: sentences without their subject.
    measure_ns: how long it measured.
    offered: requests came at a rate, which throughput then is.
    """

    title: str
    measured: Measured
    settings: Mapping[str, str] | None
    writer: Literal["loadtrt", "trtexec", ""]
    notes: Sequence[str]
    measure_ns: int = 0
    offered: bool = False


def side_of(name: str, run: RunResult | Records) -> Side:
    """A run by the name of its file. Records: trtexec's times.

    Throughput of times is trtexec's, n / (endD2h of the query that started last − startH2d of the first); of a run, its
    own. device is what trtexec calls latency, h2d + compute + d2h.
    """
    return _of_times(name, run) if isinstance(run, Records) else _of_run(name, run)


def compared(a: Sequence[Side], b: Sequence[Side], thresholds: Sequence[Threshold] = ()) -> Comparison:
    """The comparison of both sides, with what there is to say of it. Raises UsageError as `compare` does."""
    found = compare([run.measured for run in a], [run.measured for run in b], thresholds)
    added = {
        "titles": {run.measured.name: run.title for run in (*a, *b)},
        "offered": any(run.offered for run in (*a, *b)),
        "notes": tuple(_notes(a, b)),
    }
    return found.model_copy(update=added)


def compared_runs(comparison: Comparison, sides: Sequence[Side] = ()) -> Iterator[Section]:
    """Throughput, latency and its phases of both, B/A with its interval, and the verdicts on thresholds.

    `latency`, from the instant a request was due, is shown where all are runs. Several runs of a side are shown by
    their geometric means. sides: the runs, to draw the latencies of both.
    """
    names: list[Block] = []
    for letter, files in (("A", comparison.a), ("B", comparison.b)):
        for name in files:
            title = comparison.titles.get(name, "")
            said = [Name(name), f": {title}" if title else ""]
            names.append(words(f"{letter}  ", *([title] if title and name == letter else said)))
    numbers = list(_numbers(comparison))
    tiles = [tile_of(label, ratio) for label, ratio in numbers if ratio.name in _TILES and ratio.ratio is not None]
    yield Section(("Comparison of runs",), (*names, Tiles(tuple(tiles[:_MOST_TILES]))), level=1)
    verdicts = [_threshold(item) for item in comparison.thresholds]
    if verdicts and not comparison.valid:
        verdicts.append(Notice("bad", "INVALID: a run cannot be trusted, and neither can any verdict"))
    yield section("Thresholds", *verdicts, bare=True, conclusion=True)
    rows = [_row(label, ratio, verdict_on(comparison, ratio)) for label, ratio in numbers]
    kept, cells = known_columns(("", "A", "B", "B/A", "95 %", "verdict"), rows, ("95 %",), (UNKNOWN,))
    few = "–: unknown, or too few requests for this number" if any(UNKNOWN in row[:-1] for row in cells) else ""
    table = Table(kept, cells, last=1, note=few, detail=(len(kept) - 1,))
    yield section("B against A", *figures(numbers, comparison, sides), table, bare=True)
    notes = [*comparison.notes, _of_intervals(comparison, several=len(comparison.a) + len(comparison.b) > 2)]
    yield section("Notes", *(words(note) for note in notes if note), words(CHANCE, only="page"), bare=True)


def _of_times(name: str, times: Records) -> Side:
    histograms = {metric.name: Histogram() for metric in METRICS}
    for metric in METRICS:
        histograms[metric.name].add(metric.of(times))
    metrics = {metric: summary for metric, summary in summarize(times, histograms, True).items() if metric in _DEVICE}
    span_ns = int(times.completed[-1] - times.submitted[0])
    rate = len(times) * SECOND_NS / span_ns if span_ns else None
    step_ns, notes = stamp_step_ns(times), []
    enqueue = metrics["enqueue"]
    if not enqueue.max_ns:  # trtexec 7.0 does not time it
        del metrics["enqueue"]
    elif step_ns > _COARSE * (enqueue.mean_ns or 0):
        unknown = dict.fromkeys(enqueue.percentiles_ns)
        metrics["enqueue"] = enqueue.model_copy(update={"percentiles_ns": unknown})
        notes.append(f"enqueues are stamped in steps of {format_duration(step_ns)}, so only their mean is known")
    if step_ns > 1 and int((times.completed - times.d2h - times.compute).min()) < _WARMUP_NS:
        notes.append(f"starts within {format_duration(_WARMUP_NS)}: with warm-up, if trtexec up to 8.4 wrote it")
    return Side(
        title=f"{plural(len(times), 'request')} in trtexec's format",
        measured=Measured(
            name=name,
            rates={"throughput": rate, "inferences": None},
            rate_interval=rate_interval(rate, times) if rate else None,
            metrics=metrics,
            histograms=histograms,
            trtexec=True,
        ),
        settings=None,
        writer="trtexec" if step_ns > 1 else "",  # loadtrt writes its stamps to the nanosecond
        notes=notes,
        measure_ns=span_ns,
    )


def _of_run(name: str, result: RunResult) -> Side:
    measured = result.model
    engine, rates = measured.engine, measured.throughput
    evidence = "; ".join(problem.evidence for problem in measured.problems)
    notes, problem = [], None
    if result.outcome != "completed":
        notes.append(f"{result.outcome}: what was measured until then is shown")
        problem = f"failed: {result.failure}" if result.outcome == "failed" else None
    if result.outcome != "failed" and not result.valid:
        problem = f"INVALID: {evidence}"
        notes.append(problem)
    if rates.offered_per_s is not None:
        notes.append(
            f"offered {format_count(rates.offered_per_s)} requests/s: throughput is the load, not the capacity"
        )
    if measured.steadiness is not None and measured.steadiness.overloaded:
        notes.append("requests came faster than they were served: the longer the run, the longer its latencies")
    requests = _requests(result)
    if measured.dropped:
        notes.append(
            f"dropped {format_count(measured.dropped)} of {plural(requests, 'request')}: times are of the served "
            "requests, and thresholds on latency and queue count the dropped ones as later than all others"
        )
    return Side(
        title=f"{engine.name}, {plural(measured.ok, 'request')}, batch {engine.batch}",
        measured=measured_of(name, result, problem),
        settings=compared_settings(result) | {"beside": beside_text(result) or UNKNOWN},
        writer="loadtrt",
        notes=notes,
        measure_ns=result.phases.measure_ns,
        offered=rates.offered_per_s is not None,
    )


def measured_of(name: str, result: RunResult, problem: str | None = None) -> Measured:
    """The numbers of a run, as `ratio_of` takes them. problem: why they cannot be trusted; None where they can."""
    measured, asked, requests = result.model, result.config.model, _requests(result)
    return Measured(
        name=name,
        rates={"throughput": measured.throughput.requests_per_s, "inferences": measured.throughput.inferences_per_s},
        rate_interval=measured.throughput.confidence,
        metrics=measured.metrics,
        histograms={metric: Histogram.from_dict(kept) for metric, kept in measured.histograms.items()},
        trtexec=False,
        problem=problem,
        lost=(measured.failed + measured.dropped) / requests if requests else 0.0,
        steady=asked.load.steady,
        steady_rate=asked.load.steady_rate,
        seed=asked.seed if asked.load.drawn or asked.mix else None,
    )


def _requests(result: RunResult) -> int:
    measured = result.model
    return measured.ok + measured.failed + measured.unserved + measured.dropped


def _numbers(comparison: Comparison) -> Iterator[tuple[str, Ratio]]:
    """What is shown of a comparison, by what to call it."""
    found = {ratio.name: ratio for ratio in comparison.ratios}
    requests, inferences = found["throughput"], found["inferences"]
    device, latency = (found.get(f"{metric}.mean") for metric in ("device", "latency"))
    both_devices = device is not None and device.a is not None and device.b is not None
    foreign = both_devices and (latency is None or latency.a is None or latency.b is None)  # trtexec's times
    yield "requests/s", requests
    both = ((inferences.a, requests.a), (inferences.b, requests.b))
    if any(rate is not None and not math.isclose(rate, other or 0.0) for rate, other in both):
        yield "inferences/s", inferences
    for metric in _DEVICE if foreign else ("latency", *_DEVICE):
        known = [found[f"{metric}.{which}"] for which in _SHOWN if f"{metric}.{which}" in found]
        if any(ratio.a or ratio.b for ratio in known):  # else a phase that neither has
            yield from ((f"{metric} {which}", ratio) for which, ratio in zip(_SHOWN, known, strict=True))


def _row(label: str, ratio: Ratio, verdict: Badge) -> tuple[Cell, ...]:
    shown = format_count if ratio.unit == "1/s" else format_duration
    values = (UNKNOWN if value is None else shown(value) for value in (ratio.a, ratio.b))
    return (label, *values, *ratio_cells(ratio), verdict)


def _of_intervals(comparison: Comparison, several: bool) -> str:
    if not any(interval_text(ratio) for ratio in comparison.ratios):
        reason = next((ratio.reason for ratio in comparison.ratios if ratio.ratio and ratio.reason), None)
        return f"no interval of B/A: {reason}" if reason else ""
    if several:
        return (
            "95 %: confidence interval of B/A, by how far runs of one side are apart; A and B are geometric means of "
            "their runs"
        )
    return (
        "95 %: confidence interval of B/A, by what varied within each run; runs vary from one to the next, too: "
        "give several of each (--a, --b, or run --repeat)"
    )


def _threshold(item: Judged) -> Notice:
    interval = interval_text(item.ratio)
    texts = [item.verdict.upper()]
    if item.ratio.ratio is not None:
        texts.append(f"B/A {item.ratio.ratio:.3f}" + (f" ({interval})" if interval else ""))
    tone = TONES.get(item.verdict, "open")
    return Notice(tone, f"{item.threshold}: {', '.join(texts)}", (("why", item.reason),) if item.reason else ())


def _notes(a: Sequence[Side], b: Sequence[Side]) -> Iterator[str]:
    sides = [
        (letter if len(runs) == 1 else f"{letter} ({run.measured.name})", run)
        for letter, runs in (("A", a), ("B", b))
        for run in runs
    ]
    settings = [merged for runs in (a, b) if (merged := _merged(runs)) is not None]
    if len(settings) == 2 and (different := differences(*settings)):
        yield f"different: {different}"
    for note in dict.fromkeys(note for _, run in sides for note in run.notes):
        yield f"{', '.join(label for label, run in sides if note in run.notes)}: {note}"
    if any(run.settings is None for _, run in sides):
        yield (
            "times in trtexec's format have neither batch nor mode (copies, CUDA graph, streams): a request/s is a "
            "batch/s; and nothing of queues: device is what trtexec calls latency"
        )
    writers: dict[str, list[str]] = {}
    for label, run in sides:
        writers.setdefault(run.writer, []).append(label)
    if len(writers) >= 2:
        unknown = writers.get("")
        other = "trtexec" if "loadtrt" in writers else "loadtrt"
        yield (f"if {other} wrote {', '.join(unknown)}: " if unknown else "") + (
            "for loadtrt enqueue is all calls of a request, for trtexec only the engine's; for loadtrt d2h begins when "
            "compute ends, for trtexec when the copy begins"
        )


def _merged(runs: Sequence[Side]) -> dict[str, tuple[str, ...]] | None:
    """The settings of a side's runs, each with all its values; None where a run has none."""
    known = [run.settings for run in runs if run.settings is not None]
    if len(known) < len(runs):
        return None
    keys = dict.fromkeys(key for settings in known for key in settings)
    return {key: tuple(dict.fromkeys(settings.get(key, UNKNOWN) for settings in known)) for key in keys}
