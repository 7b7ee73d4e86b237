"""Runs side by side in trtexec's terms, each a result of loadtrt or trtexec's times. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loadtrt.measure.histogram import Histogram
from loadtrt.measure.margin import rate_margin
from loadtrt.measure.measured import Measured
from loadtrt.measure.summary import summarize
from loadtrt.records.records import METRICS, Records
from loadtrt.report.layer_columns import printable
from loadtrt.report.text import UNKNOWN, aligned, wrapped
from loadtrt.report.trtexec_read import stamp_step_ns
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from loadtrt.measure.regression import Comparison, Judged, Ratio
    from loadtrt.measure.result import RunResult

_SHOWN = ("p50", "p90", "p99", "mean")
_DEVICE = ("device", "enqueue", "h2d", "compute", "d2h")  # what trtexec measures, too
_OPTIONS = (
    *("contexts", "buffers", "scenario", "arrivals", "rate", "stages", "bursts", "burstiness", "trace"),
    *("mix", "batcher", "max_queue"),
)
_WARMUP_NS = 200 * MILLISECOND_NS  # trtexec's default
_COARSE = 0.05  # of a mean: stamps with larger steps say nothing of single values


@dataclass(frozen=True, slots=True)
class Side:
    """One run of a side. settings: what runs may differ in, None where trtexec's times do not tell; writer: of the
    file, "" where its times do not tell; notes: sentences without their subject."""

    title: str
    measured: Measured
    settings: Mapping[str, str] | None
    writer: Literal["loadtrt", "trtexec", ""]
    notes: Sequence[str]


def side_of(name: str, run: RunResult | Records) -> Side:
    """A run by the name of its file. Records: trtexec's times.

    Throughput of times is trtexec's, n / (endD2h of the query that started last − startH2d of the first); of a run, its
    own. device is what trtexec calls latency, h2d + compute + d2h.
    """
    return _of_times(name, run) if isinstance(run, Records) else _of_run(name, run)


def compare_runs_text(a: Sequence[Side], b: Sequence[Side], comparison: Comparison) -> str:
    """Throughput, latency and its phases of both, B/A and its interval; "–" for what is not known; then thresholds.
    `latency`, from the instant a request was due, is shown where all are runs. Several runs of a side are shown by
    their geometric means. At most 80 columns wide unless a name is longer."""
    lines = [
        line
        for letter, sides in (("A", a), ("B", b))
        for place, side in enumerate(sides)
        for line in wrapped(f"{' ' if place else letter}  {side.measured.name}: {side.title}", more="   ")
    ]
    rows = list(_rows(comparison, foreign=any(side.settings is None for side in (*a, *b))))
    if not any(row[4] != UNKNOWN for row in rows[1:] if row):
        rows = [row[:4] for row in rows]
    lines += ["", *aligned(rows), ""]
    for note in _notes(a, b):
        lines += wrapped(note)
    lines += wrapped(_of_intervals(comparison, several=len(a) + len(b) > 2))
    if any(UNKNOWN in row for row in rows):
        lines.append("–: not known, or too few requests for this number")
    for item in comparison.thresholds:
        lines += [part for line in _verdict(item) for part in wrapped(line, more="    ")]
    if comparison.thresholds and not comparison.valid:
        lines.append("INVALID: a run cannot be trusted, and so can no verdict")
    return "\n".join(map(printable, lines)).rstrip() + "\n"


def _of_times(name: str, times: Records) -> Side:
    histograms = {metric.name: Histogram() for metric in METRICS}
    for metric in METRICS:
        histograms[metric.name].add(metric.of(times))
    metrics = {metric: summary for metric, summary in summarize(times, histograms, True).items() if metric in _DEVICE}
    span_ns = int(times.completed[-1] - times.submitted[0])
    step_ns, notes = stamp_step_ns(times), []
    enqueue = metrics["enqueue"]
    if enqueue.max_ns and step_ns > _COARSE * (enqueue.mean_ns or 0):
        unknown = dict.fromkeys(enqueue.percentiles_ns)
        metrics["enqueue"] = enqueue.model_copy(update={"percentiles_ns": unknown})
        notes.append(f"enqueues are stamped in steps of {format_duration(step_ns)}, so only their mean can be told")
    if step_ns > 1 and int((times.completed - times.d2h - times.compute).min()) < _WARMUP_NS:
        notes.append(f"starts within {format_duration(_WARMUP_NS)}: with warm-up, if trtexec up to 8.4 wrote it")
    return Side(
        title=f"{plural(len(times), 'request')} in trtexec's format",
        measured=Measured(
            name=name,
            rates={"throughput": len(times) * SECOND_NS / span_ns if span_ns else None, "inferences": None},
            rate_margin=rate_margin(times),
            metrics=metrics,
            histograms=histograms,
            trtexec=True,
        ),
        settings=None,
        writer="trtexec" if step_ns > 1 else "",  # loadtrt writes its stamps to the nanosecond
        notes=notes,
    )


def _of_run(name: str, result: RunResult) -> Side:
    engine, config, rates = result.engine, result.config, result.throughput
    evidence = "; ".join(problem.evidence for problem in result.problems)
    notes, problem = [], None
    if result.outcome != "completed":
        notes.append(f"{result.outcome}, and shown as far as it went")
        problem = f"failed: {result.failure}" if result.outcome == "failed" else None
    if result.outcome != "failed" and not result.valid:
        problem = f"INVALID: {evidence}"
        notes.append(problem)
    if rates.offered_per_s is not None:
        notes.append(
            f"offered {format_count(rates.offered_per_s)} requests/s: throughput is the load, not the capacity"
        )
    if "device" not in result.metrics:
        notes.append("measured by an older loadtrt, which kept no device time")
    if result.steadiness is not None and result.steadiness.overloaded:
        notes.append("requests came faster than they were served: the longer the run, the longer its latencies")
    requests = result.ok + result.failed + result.unserved + result.dropped
    if result.dropped:
        notes.append(
            f"dropped {format_count(result.dropped)} of {plural(requests, 'request')}: times are of the served, and "
            "thresholds on latency and queue count the dropped as later than all others"
        )
    load = config.model.load
    return Side(
        title=f"{engine.name}, {plural(result.ok, 'request')}, batch {engine.batch}",
        measured=Measured(
            name=name,
            rates={"throughput": rates.requests_per_s, "inferences": rates.inferences_per_s},
            rate_margin=rates.margin,
            metrics=result.metrics,
            histograms={metric: Histogram.from_dict(kept) for metric, kept in result.histograms.items()},
            trtexec=False,
            problem=problem,
            lost=(result.failed + result.dropped) / requests if requests else 0.0,
            steady=load.steady,
            steady_rate=load.steady_rate,
            seed=config.model.seed if load.drawn or config.model.mix else None,
        ),
        settings=_settings(result),
        writer="loadtrt",
        notes=notes,
    )


def _settings(result: RunResult) -> dict[str, str]:
    """What runs may differ in, "–" for what was not asked for."""
    engine, config = result.engine, result.config.options()
    keys = [*_OPTIONS, *(("time_scale",) if config.get("trace") else ())]
    given = {key: config[key] for key in keys if config.get(key) is not None}
    return {
        "device": engine.device,
        "runtime": f"{engine.flavour} {engine.version}",
        "engine sha256": engine.sha256[:12] or UNKNOWN,
        "batch": str(engine.batch),
        **{f"shape of {tensor.name}": "×".join(map(str, tensor.shape)) or "scalar" for tensor in engine.tensors},
        **dict.fromkeys(_OPTIONS, UNKNOWN),
        **{key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in given.items()},
        **engine.mode,
    }


def _rows(comparison: Comparison, foreign: bool) -> Iterator[list[str]]:
    ratios = {ratio.name: ratio for ratio in comparison.ratios}
    yield ["", "A", "B", "B/A", "95 %"]
    yield _row("requests/s", ratios["throughput"], format_count)
    requests, inferences = ratios["throughput"], ratios["inferences"]
    both = ((inferences.a, requests.a), (inferences.b, requests.b))
    if any(each is not None and not math.isclose(each, one or 0.0) for each, one in both):
        yield _row("inferences/s", inferences, format_count)
    for metric in _DEVICE if foreign else ("latency", *_DEVICE):
        found = [ratios[f"{metric}.{which}"] for which in _SHOWN if f"{metric}.{which}" in ratios]
        if any(ratio.a or ratio.b for ratio in found):  # else a phase that neither has
            yield []
            for which, ratio in zip(_SHOWN, found, strict=True):
                yield _row(f"{metric} {which}", ratio, format_duration)


def _row(label: str, ratio: Ratio, shown: Callable[[float], str]) -> list[str]:
    values = (UNKNOWN if value is None else shown(value) for value in (ratio.a, ratio.b))
    return [label, *values, UNKNOWN if ratio.ratio is None else f"{ratio.ratio:.3f}", _between(ratio) or UNKNOWN]


def _between(ratio: Ratio) -> str:
    return f"{ratio.low:.3f} .. {ratio.high:.3f}" if ratio.low is not None and ratio.high is not None else ""


def _of_intervals(comparison: Comparison, several: bool) -> str:
    if not any(ratio.low is not None for ratio in comparison.ratios):
        reason = next((ratio.reason for ratio in comparison.ratios if ratio.ratio and ratio.reason), None)
        return f"no interval of B/A: {reason}" if reason else ""
    if several:
        return "95 %: where B/A lies, by how far runs of one side are apart; A and B are geometric means of their runs"
    return (
        "95 %: where B/A lies, by what varied within each run; runs vary from one to the next besides: "
        "give several of each (--a, --b)"
    )


def _verdict(item: Judged) -> Iterator[str]:
    between = _between(item.ratio)
    words = [item.verdict.upper()]
    if item.ratio.ratio is not None:
        words.append(f"B/A {item.ratio.ratio:.3f}" + (f" ({between})" if between else ""))
    yield f"{item.threshold}: {', '.join(words)}"
    if item.reason:
        yield f"  → {item.reason}"


def _notes(a: Sequence[Side], b: Sequence[Side]) -> Iterator[str]:
    sides = [
        (letter if len(runs) == 1 else f"{letter} ({run.measured.name})", run)
        for letter, runs in (("A", a), ("B", b))
        for run in runs
    ]
    settings = [merged for runs in (a, b) if (merged := _merged(runs)) is not None]
    if len(settings) == 2:
        keys = dict.fromkeys([*settings[0], *settings[1]])
        pairs = [(key, *(values.get(key, (UNKNOWN,)) for values in settings)) for key in keys]
        different = [
            f"{key} {', '.join(first)} / {', '.join(second)}"
            for key, first, second in pairs
            if first != second or len(first) > 1
        ]
        if different:
            yield f"different: {' · '.join(different)}"
    for note in dict.fromkeys(note for _, run in sides for note in run.notes):
        yield f"{', '.join(label for label, run in sides if note in run.notes)}: {note}"
    if any(run.settings is None for _, run in sides):
        yield (
            "times in trtexec's format tell neither batch nor mode (copies, CUDA graph, streams): a request/s is a "
            "batch/s; and nothing of queues: device is what trtexec calls latency"
        )
    writers: dict[str, list[str]] = {}
    for label, run in sides:
        writers.setdefault(run.writer, []).append(label)
    if len(writers) >= 2:
        unknown = writers.get("")
        other = "trtexec" if "loadtrt" in writers else "loadtrt"
        yield (f"if {other} wrote {', '.join(unknown)}: " if unknown else "") + (
            "enqueue is all calls of a request to loadtrt, the engine's alone to trtexec; d2h begins when compute ends "
            "to loadtrt, when the copy does to trtexec"
        )


def _merged(runs: Sequence[Side]) -> dict[str, tuple[str, ...]] | None:
    """The settings of a side's runs, each with all that it was; None where one does not tell."""
    known = [run.settings for run in runs if run.settings is not None]
    if len(known) < len(runs):
        return None
    keys = dict.fromkeys(key for settings in known for key in settings)
    return {key: tuple(dict.fromkeys(settings.get(key, UNKNOWN) for settings in known)) for key in keys}
