"""The head and the conclusion of a run: what was run, what came out, whether it counts, what stands out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.findings.validity import served_share
from loadtrt.report.document import Badge, Name, Notice, Section, Table, Tile, Tiles, known_columns, section, words
from loadtrt.report.formatting import UNKNOWN, between, count_or, percent_text, share_or, time_or
from loadtrt.report.settings import about, batch_text, load_text, precision_text, title
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.engine_info import GPU_KINDS
from loadtrt.stats.merging import SPREAD_NS
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from loadtrt.report.document import Block, Cell, Tone, Words
    from loadtrt.results.breakdown import MetricSummary, ScenarioResult
    from loadtrt.results.capacity_result import CapacityResult, SweepResult
    from loadtrt.results.interference_result import InterferenceResult
    from loadtrt.results.repeat_result import RepeatResult
    from loadtrt.results.run_result import ObjectiveShare, RunResult

_PERCENTILES = ("p50", "p99", "p99.9")
NUMBERS = ("requests/s", "inferences/s", *_PERCENTILES, "mean")
_SIGNS = {"met": "✓", "missed": "✗", "undecided": "?"}
_VERDICTS: dict[str, Badge] = {"met": Badge("met", "good"), "missed": Badge("missed", "bad")}


def headline(result: RunResult, file: str, name: str = "") -> Section:
    """The engine, its load, and the numbers that matter most.

    file: what to call the result's file.
    name: of the model, where the run has several.
    """
    heading = title(result.model.engine, f"{name}: " if name else "")
    run = (" · run ", Name(result.run)) if result.run else ()
    blocks: list[Block] = [words(load_text(result)), about(result, file, *run), Tiles(tuple(_tiles(result)))]
    if result.beside and not name:
        blocks.insert(1, words(f"beside {beside_text(result)}"))
    return Section(heading, (*blocks, *_of_closed(result)), level=1, badges=badges(result))


def beside_text(result: RunResult) -> str:
    """The models beside which one was measured that was taken out of a run of several; "" for a whole run."""
    return "; ".join(
        f"{name} ({model.engine.rpartition('/')[2]}, {model.load.text}, {plural(model.contexts, 'context')})"
        for name, model in result.beside.items()
    )


def side_by_side(result: RunResult, models: Mapping[str, RunResult], file: str) -> Section:
    """All models of a run: a row each."""
    rows: list[tuple[Cell, ...]] = [
        (Name(name), state_badge(single), load_text(single), *numbers(single)) for name, single in models.items()
    ]
    table = Table(("model", "", "load", *NUMBERS), tuple(rows), words=3, detail=(2,))
    apart = [words(" · ".join(_apart(result)))] if result.config.model_processes else []
    heading = f"Run of {len(models)} models"
    return Section((heading,), (about(result, file), *apart, table), level=1, badges=badges(result))


def _apart(result: RunResult) -> Iterator[str]:
    """How models in processes of their own were measured beside each other."""
    yield "each model in a process of its own"
    on_gpu = sum(model.engine.kind in GPU_KINDS for model in result.models.values())
    if on_gpu > 1 and result.sharing is not None:
        yield turns_text("processes", mps=result.sharing.mps)
    if result.start_spread_ns is not None:
        yield f"began within {format_duration(result.start_spread_ns)} (limit {format_duration(SPREAD_NS)})"


def turns_text(who: str, *, mps: bool) -> str:
    """How processes share a GPU."""
    return f"{who} on one GPU compute through MPS" if mps else f"{who} on one GPU take turns on it: no MPS"


def numbers(result: RunResult) -> Iterator[Cell]:
    """Throughput and latency of a row, in the order of NUMBERS."""
    yield count_or(result.model.throughput.requests_per_s)
    yield count_or(result.model.throughput.inferences_per_s)
    for name in (*_PERCENTILES, "mean"):
        yield time_or(time_of(result.model.metrics, name))


def time_of(metrics: Mapping[str, MetricSummary], name: str, metric: str = "latency") -> float | None:
    """A percentile of a metric, or its mean, ns; None where it is not known."""
    summary = metrics.get(metric)
    if summary is None:
        return None
    return summary.mean_ns if name == "mean" else summary.percentiles_ns.get(name)


def badges(result: RunResult) -> tuple[Badge, ...]:
    """The badges of a run."""
    return badges_of(result, [*([result.fleet] if result.lost else []), *shortfalls(result)])


def badges_of(result: RunResult | RepeatResult, lost: Iterable[str]) -> tuple[Badge, ...]:
    """How a run, or starts of one, ended where it did not just end, whether it counts, what it did not serve, and the
    verdict on its objectives."""
    shown = [] if result.outcome == "completed" else [outcome_badge(result.outcome)]
    if result.outcome != "failed":
        shown.append(Badge("VALID", "good") if result.valid else Badge("INVALID", "bad"))
    shown += [Badge(text, "open") for text in lost]
    if result.verdict:
        badge = verdict_badge(result.verdict)
        shown.append(Badge(f"objectives {badge.text}", badge.tone))
    return tuple(shown)


def shortfalls(result: RunResult) -> Iterator[str]:
    """Which part of the requests a VALID run did not serve, in words that VALID does not stand without."""
    for name, model in result.models.items() if result.valid else ():
        whose = f"{name}: " if len(result.models) > 1 else ""
        for count, what in ((model.dropped, "dropped"), (model.failed, "failed")):
            if count:
                yield f"{whose}{percent_text(count / (model.submitted + model.dropped))} {what}"
        overloaded, rates = model.steadiness.overloaded if model.steadiness else None, model.throughput
        share = served_share(overloaded, rates.requests_per_s, rates.offered_per_s)
        if share is not None:
            yield f"{whose}only {percent_text(share)} of the offered load served"


def why_unrated(run: RunResult) -> str | None:
    """Why a point of a sweep is neither on the front nor the knee; None where it may be. Where requests were dropped or
    failed, the others were faster: that counts only where the run met objectives, for which these are bad."""
    if not run.valid:
        return "INVALID"
    return None if run.verdict == "met" else ", ".join(shortfalls(run)) or None


def outcome_badge(outcome: str) -> Badge:
    """How a measurement ended that did not just end."""
    return Badge(outcome.upper(), "bad" if outcome == "failed" else "open")


def ended(result: SweepResult | CapacityResult | InterferenceResult) -> Iterator[Notice]:
    """Why many runs ended early, and how to continue."""
    if result.outcome == "failed":
        yield Notice("bad", result.failure or "it failed", (("shown", "what was measured until then"),))
    elif result.outcome == "interrupted":
        file = result.config.json_file
        kept = f"--resume continues with {file}" if file not in (None, "-") else "without --json FILE nothing was kept"
        yield Notice("open", "interrupted: what was measured until then is shown", (("remedy", kept),))


def state_badge(result: RunResult | None) -> Badge:
    """The one word that matters most: how the run ended, whether it counts, the verdict on its objectives. None: there
    is no run, as it failed."""
    if result is None:
        return outcome_badge("failed")
    if result.outcome == "completed" and result.valid and result.verdict is not None:
        return verdict_badge(result.verdict)
    return badges(result)[0]


def verdict_badge(verdict: str) -> Badge:
    """The verdict as a badge."""
    return _VERDICTS.get(verdict, Badge(verdict, "open"))


def _tiles(result: RunResult) -> Iterator[Tile]:
    """What was offered and what was served, then how long it took; of a closed loop with its part on the device."""
    rates, latency = result.model.throughput, result.model.metrics.get("latency")
    count = latency.count if latency else 0
    if rates.offered_per_s is not None:
        mean = "" if result.config.model.load.steady else "on average"
        yield Tile("offered, requests/s", format_count(rates.offered_per_s), mean)
    interval = rates.confidence
    note = f"95 %: {between(interval.low, interval.high, format_count)}" if interval else ""
    yield Tile("throughput, requests/s", count_or(rates.requests_per_s), note)
    if result.model.engine.batch != 1 or result.model.mix or result.model.batches:
        mean = f"batches of {result.model.batches.mean:.2f} on average" if result.model.batches else ""
        batch = "of a mix" if result.model.mix else batch_text(result.model.engine)
        yield Tile("inferences/s", count_or(rates.inferences_per_s), mean or batch)
    for name in _PERCENTILES:
        value, need = time_of(result.model.metrics, name), least_samples(PERCENTILES[name])
        few = f"not supported by {plural(count, 'request')}: it takes {format_count(need)}"
        ends = latency_interval(result, name)
        note = few if value is None and count < need else f"95 %: {between(*ends)}" if ends else ""
        yield Tile(f"latency {name}", time_or(value), note, detail=name == _PERCENTILES[-1] or value is None)
        if name == "p50" and result.config.model.load.closed:
            yield from _on_device(result)
    yield Tile("requests served", format_count(result.model.ok), " · ".join(_losses(result)))


def _on_device(result: RunResult) -> Iterator[Tile]:
    """The median times of a request on the device, as far as its engine knows them."""
    copies = time_of(result.model.metrics, "p50", "h2d") or time_of(result.model.metrics, "p50", "d2h")
    for metric, note in (("device", "copies and compute"), ("compute", "without waiting and copies")):
        time = time_of(result.model.metrics, "p50", metric)
        if time and (copies or metric == "compute"):
            yield Tile(f"{metric} p50", time_or(time), note)


def _of_closed(result: RunResult) -> Iterator[Words]:
    """What the latency of a closed loop is, and how one request's is had."""
    model = result.config.model
    if not model.load.closed or not result.model.ok:
        return
    if model.in_flight == 1:
        yield words("latency is that of one request at a time, not of an arrival rate")
    else:
        yield words(
            f"latency is that of {model.in_flight} requests in flight, which wait for each other, not of an arrival "
            "rate; --latency measures one request at a time"
        )


def _losses(result: RunResult) -> Iterator[str]:
    if result.model.failed:
        yield f"{format_count(result.model.failed)} failed"
    if result.model.unserved:
        yield f"{format_count(result.model.unserved)} not served"
    if result.model.dropped:
        yield f"{format_count(result.model.dropped)} dropped, as the queue was full"
    yield f"in {format_duration(result.phases.measure_ns)}"


def latency_interval(result: RunResult, name: str) -> tuple[float | None, float | None] | None:
    """The 95 % interval of a percentile of latency or its "mean", ns; None without an end. Where an objective is on it,
    the interval that its verdict shows."""
    value = time_of(result.model.metrics, name)
    for item in result.model.objectives:
        ends = (item.value_low_ns, item.value_high_ns)
        if item.objective.name == f"latency.{name}" and item.value_ns == value and any(ends):
            return ends
    latency = result.model.metrics.get("latency")
    interval = latency.confidence.get(name) if latency else None
    return (interval.low, interval.high) if interval and value is not None else None


def objectives(result: RunResult) -> Section:
    """The objectives with their verdicts, and the scenario with its rules."""
    items = result.model.objectives
    blocks: list[Block] = [_objectives(items), *map(_in_a_line, items)] if items else []
    if result.model.scenario is not None:
        text, *reasons = scenario_lines(result.model.scenario)
        tone: Tone = "good" if result.model.scenario.by_rules else "open"
        blocks.append(Notice(tone, text, tuple(("not kept", reason) for reason in reasons)))
    return section("Objectives", *blocks, bare=True, conclusion=True)


def _objectives(items: Sequence[ObjectiveShare]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            Name(item.objective.text),
            verdict_badge(item.verdict) if item.verdict else UNKNOWN,
            value_or(item),
            value_interval(item),
            share_or(item.bad),
            between(item.bad_low, item.bad_high, percent_text),
            UNKNOWN if item.effective is None else format_count(round(item.effective)),
            item.reason or "",
        )
        for item in items
    ]
    header = ("objective", "verdict", "value", "95 %", "bad", "95 %", "worth", "why undecided")
    kept, cells = known_columns(header, rows, ("why undecided",), ("",))
    note = "worth: effective sample size, in requests"
    return Table(kept, cells, words=2, last=len(kept) - len(header) + 1, note=note, only="page")


def _in_a_line(item: ObjectiveShare) -> Notice:
    text = f"{_SIGNS.get(item.verdict or '', '–')} {item.objective.text}: {objective_text(item)}"
    return Notice("plain", text, (("why", item.reason),) if item.reason else (), only="terminal")


def scenario_lines(result: ScenarioResult) -> Iterator[str]:
    """The scenario's result; then each of its rules that was not kept."""
    if result.latency_ns is not None and result.percentile_ns is not None:
        text = f"{result.metric} {format_duration(result.latency_ns)} by early stopping"
        text += f", {format_duration(result.percentile_ns)} as seen"
    elif result.inferences_per_s is not None:
        text = f"{format_count(result.inferences_per_s)} {result.metric}"
        if result.percentile_ns is not None and result.target_ns is not None:
            text += f", p99 {format_duration(result.percentile_ns)} of {format_duration(result.target_ns)}"
    else:
        text = f"no {result.metric}"
    yield f"scenario {result.scenario}, {'by' if result.by_rules else 'NOT by'} MLPerf's rules: {text}"
    yield from result.reasons


def objective_text(item: ObjectiveShare) -> str:
    """The verdict, then the quantile or number, and the share of bad requests, with their intervals."""
    texts, objective = [item.verdict.upper()] if item.verdict else [], item.objective
    if (value := value_or(item)) != UNKNOWN:
        name = f"{objective.quantile} " if objective.kind == "quantile" else ""
        texts.append(f"{name}{value}{_in_brackets(value_interval(item))}")
    if item.bad is not None:
        interval = _in_brackets(between(item.bad_low, item.bad_high, percent_text))
        texts.append(f"{percent_text(item.bad)} {objective.bad_word}{interval}")
    if item.effective is not None:
        texts.append(f"effective sample size {format_count(round(item.effective))}")
    return ", ".join(texts) or "no request was measured"


def value_or(item: ObjectiveShare) -> str:
    """The quantile or the number that an objective bounds."""
    return time_or(item.value_ns) if item.value is None else item.objective.written(item.value)


def value_interval(item: ObjectiveShare) -> str:
    """Its interval."""
    if item.objective.of_requests:
        return between(item.value_low_ns, item.value_high_ns)
    return between(item.value_low, item.value_high, item.objective.written)


def _in_brackets(interval: str) -> str:
    return "" if interval == UNKNOWN else f" (95 %: {interval})"


def findings(result: RunResult) -> Section:
    """What makes the run INVALID or ended it, and what else stands out."""
    notices: list[Block] = []
    if result.outcome == "failed":
        shown = (("shown", "what was measured until then"),) if result.model.ok else ()
        notices.append(Notice("bad", result.failure or "the run failed", shown))
    if result.model.first_error:
        notices.append(Notice("bad", f"first error: {result.model.first_error}"))
    notices += [Notice("bad", item.evidence, (("remedy", item.remedy),)) for item in result.model.problems]
    for item in result.model.findings:
        cause = (("cause", item.cause),) if item.cause not in item.evidence else ()
        notices.append(Notice("open", item.evidence, (*cause, ("remedy", item.remedy)), item.kind))
    notices = notices or [words("None: nothing that loadtrt looks for stands out.", only="page")]
    if result.model.ended_early:
        notices.append(words(f"ended early: {result.model.ended_early}"))
    if text := precision_text(result):
        notices.append(words(text))
    return section("Findings", *notices, bare=True, conclusion=True)
