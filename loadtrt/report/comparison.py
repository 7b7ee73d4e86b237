"""Two runs side by side in trtexec's terms, each a result of loadtrt or trtexec's times. Pure."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loadtrt.measure.histogram import Histogram
from loadtrt.measure.records import METRICS, Records
from loadtrt.measure.summary import summarize
from loadtrt.report.layer_columns import printable
from loadtrt.report.trtexec_read import stamp_step_ns
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from loadtrt.measure.result import MetricSummary, RunResult

_WIDTH = 80
_PERCENTILES = ("p50", "p90", "p99")
_DEVICE = ("device", "enqueue", "h2d", "compute", "d2h")  # what trtexec measures, too
_WARMUP_NS = 200 * MILLISECOND_NS  # trtexec's default
_COARSE = 0.05  # of a mean: stamps with larger steps say nothing of single values


@dataclass(frozen=True, slots=True)
class _Side:
    """What is compared of one run. settings: what two runs may differ in, None where trtexec's times do not tell;
    writer: of the file, "" where its times do not tell; notes: sentences without their subject."""

    title: str
    requests_per_s: float | None
    inferences_per_s: float | None
    metrics: Mapping[str, MetricSummary]
    settings: Mapping[str, str] | None
    writer: Literal["loadtrt", "trtexec", ""]
    notes: Sequence[str]


def compare_runs_text(a: RunResult | Records, b: RunResult | Records, name_a: str, name_b: str) -> str:
    """Throughput, latency and its phases of both, and B/A; "–" for what is not known. Records: trtexec's times.

    Throughput of times is trtexec's, n / (endD2h of the query that started last − startH2d of the first); of a run, its
    own. device is what trtexec calls latency, h2d + compute + d2h; `latency`, from the instant a request was due, is
    shown where both are runs. At most 80 columns wide unless a name is longer.
    """
    first, second = (_of_times(side) if isinstance(side, Records) else _of_run(side) for side in (a, b))
    lines = [*_wrapped(f"A  {name_a}: {first.title}", "   "), *_wrapped(f"B  {name_b}: {second.title}", "   "), ""]
    rows = list(_rows(first, second))
    lines += [*_table(rows), ""]
    for note in _notes(first, second):
        lines += _wrapped(note, "  ")
    if any("–" in row for row in rows):
        lines.append("–: not known, or too few requests for this percentile")
    return "\n".join(map(printable, lines)).rstrip() + "\n"


def _of_times(times: Records) -> _Side:
    histograms = {metric.name: Histogram() for metric in METRICS}
    for metric in METRICS:
        histograms[metric.name].add(metric.of(times))
    metrics = summarize(times, histograms, complete=True)
    span_ns = int(times.completed[-1] - times.submitted[0])
    step_ns, notes = stamp_step_ns(times), []
    enqueue = metrics["enqueue"]
    if enqueue.max_ns and step_ns > _COARSE * (enqueue.mean_ns or 0):
        unknown = dict.fromkeys(enqueue.percentiles_ns)
        metrics["enqueue"] = enqueue.model_copy(update={"percentiles_ns": unknown})
        notes.append(f"enqueues are stamped in steps of {format_duration(step_ns)}, so only their mean can be told")
    if step_ns > 1 and int((times.completed - times.d2h - times.compute).min()) < _WARMUP_NS:
        notes.append(f"starts within {format_duration(_WARMUP_NS)}: with warm-up, if trtexec up to 8.4 wrote it")
    return _Side(
        title=f"{plural(len(times), 'request')} in trtexec's format",
        requests_per_s=len(times) * SECOND_NS / span_ns if span_ns else None,
        inferences_per_s=None,
        metrics=metrics,
        settings=None,
        writer="trtexec" if step_ns > 1 else "",  # loadtrt writes its stamps to the nanosecond
        notes=notes,
    )


def _of_run(result: RunResult) -> _Side:
    engine, config, rates = result.engine, result.config, result.throughput
    notes = []
    if result.outcome != "completed":
        notes.append(f"{result.outcome}, and shown as far as it went")
    elif not result.valid:
        notes.append(f"INVALID: {'; '.join(problem.evidence for problem in result.problems)}")
    if rates.offered_per_s is not None:
        notes.append(
            f"offered {format_count(rates.offered_per_s)} requests/s: throughput is the load, not the capacity"
        )
    if "device" not in result.metrics:
        notes.append("measured by an older loadtrt, which kept no device time")
    settings = {
        "device": engine.device,
        "runtime": f"{engine.flavour} {engine.version}",
        "batch": str(engine.batch),
        **{
            name: str(config.get(name))
            for name in ("contexts", "buffers", "arrivals", "stages", "bursts", "burstiness", "trace")
        },
        **engine.mode,
    }
    return _Side(
        title=f"{engine.name}, {plural(result.ok, 'request')}, batch {engine.batch}",
        requests_per_s=rates.requests_per_s,
        inferences_per_s=rates.inferences_per_s,
        metrics=result.metrics,
        settings=settings,
        writer="loadtrt",
        notes=notes,
    )


def _rows(a: _Side, b: _Side) -> Iterator[list[str]]:
    yield ["", "A", "B", "B/A"]
    yield _row("requests/s", a.requests_per_s, b.requests_per_s, format_count)
    if any(side.inferences_per_s not in (None, side.requests_per_s) for side in (a, b)):
        yield _row("inferences/s", a.inferences_per_s, b.inferences_per_s, format_count)
    for name in _DEVICE if a.settings is None or b.settings is None else ("latency", *_DEVICE):
        first, second = (_values(side.metrics.get(name)) for side in (a, b))
        if not any((*first.values(), *second.values())):
            continue  # a phase that neither has
        yield []
        for which in (*_PERCENTILES, "mean"):
            yield _row(f"{name} {which}", first.get(which), second.get(which), format_duration)


def _values(summary: MetricSummary | None) -> dict[str, float | None]:
    return {} if summary is None else {**summary.percentiles_ns, "mean": summary.mean_ns}


def _row(label: str, a: float | None, b: float | None, shown: Callable[[float], str]) -> list[str]:
    values = ("–" if value is None else shown(value) for value in (a, b))
    return [label, *values, f"{b / a:.3f}" if a and b is not None else "–"]


def _notes(a: _Side, b: _Side) -> Iterator[str]:
    foreign = [side.settings is None for side in (a, b)]
    if a.settings is not None and b.settings is not None:
        pairs = [(key, a.settings.get(key), b.settings.get(key)) for key in dict.fromkeys([*a.settings, *b.settings])]
        different = [f"{key} {first or '–'} / {second or '–'}" for key, first, second in pairs if first != second]
        if different:
            yield f"different: {' · '.join(different)}"
    for note in dict.fromkeys([*a.notes, *b.notes]):
        yield f"{', '.join(letter for letter, side in (('A', a), ('B', b)) if note in side.notes)}: {note}"
    if any(foreign):
        yield (
            "times in trtexec's format tell neither batch nor mode (copies, CUDA graph, streams): a request/s is a "
            "batch/s; and nothing of queues: device is what trtexec calls latency"
        )
    writers = {a.writer: "A", b.writer: "B"}
    if len(writers) == 2:
        known = next(filter(None, writers))
        other = "trtexec" if known == "loadtrt" else "loadtrt"
        yield (f"if {other} wrote {writers['']}: " if "" in writers else "") + (
            "enqueue is all calls of a request to loadtrt, the engine's alone to trtexec; d2h begins when compute ends "
            "to loadtrt, when the copy does to trtexec"
        )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines; an empty row is an empty line."""
    widths = [max(len(row[column]) for row in rows if row) for column in range(4)]
    for row in rows:
        cells = zip(row, widths, strict=False)  # an empty row has no cells
        yield "  ".join(
            cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(cells)
        )


def _wrapped(text: str, indent: str) -> list[str]:
    """Broken at 80 columns between words; a path stays whole."""
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
