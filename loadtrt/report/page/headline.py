"""The head of a run: what was run, whether it counts, what came out, and what stands out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.measure.gpu_findings import gpu_findings
from loadtrt.measure.sampling import least_samples
from loadtrt.measure.summary import PERCENTILES
from loadtrt.report.page.section import Badge, Name, Notice, Section, Table, Tile, Tiles, section, words
from loadtrt.report.tables import mode_text, scenario_lines
from loadtrt.report.text import UNKNOWN, between, count_or, percent_text, share_or, time_or
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.measure.result import ObjectiveShare, RunResult
    from loadtrt.report.page.section import Block, Tone


def headline(result: RunResult, file: str) -> Section:
    """file: what to call it, where it was read from."""
    engine = result.engine
    title = (Name(engine.name), f" on {engine.device}")
    return Section(title, tuple(_blocks(result, file)), level=1, badges=badges(result))


def badges(result: RunResult) -> tuple[Badge, ...]:
    """How it ended where it did not just end, whether it counts, and the verdict on its objectives."""
    found = []
    if result.outcome != "completed":
        found.append(outcome_badge(result.outcome))
    if result.outcome != "failed":
        found.append(Badge("VALID", "good") if result.valid else Badge("INVALID", "bad"))
    return (*found, *([verdict_badge(result.verdict, "objectives ")] if result.verdict else []))


def outcome_badge(outcome: str) -> Badge:
    """How it ended where it did not just end."""
    return Badge(outcome.upper(), "bad" if outcome == "failed" else "open")


def state_badge(result: RunResult) -> Badge:
    """The one word that matters most: how it ended, whether it counts, the verdict on its objectives."""
    if result.outcome == "completed" and result.valid and result.verdict is not None:
        return verdict_badge(result.verdict)
    return badges(result)[0]


def verdict_badge(verdict: str, before: str = "") -> Badge:
    """The verdict as a badge."""
    match verdict:
        case "met":
            return Badge(f"{before}met", "good")
        case "missed":
            return Badge(f"{before}missed", "bad")
        case _:
            return Badge(f"{before}{verdict}", "open")


def _blocks(result: RunResult, file: str) -> Iterator[Block]:
    yield words(load_text(result))
    engine = result.engine
    run = (" · run ", Name(result.run)) if result.run else ()
    yield words(f"{engine.flavour} {engine.version} · loadtrt {result.loadtrt} · {result.started} · ", Name(file), *run)
    if result.failure:
        yield Notice("bad", result.failure, (("shown", "what was measured until then"),) if result.ok else ())
    if result.ended_early:
        yield words(f"ended early: {result.ended_early}")
    yield Tiles(tuple(_tiles(result)))
    if result.objectives:
        yield objectives_table(result.objectives)
    if result.scenario is not None:
        told, *reasons = scenario_lines(result.scenario)
        tone: Tone = "good" if result.scenario.by_rules else "open"
        yield Notice(tone, told, tuple(("not kept", reason) for reason in reasons))


def load_text(result: RunResult) -> str:
    """Lanes, load and settings, as far as the configuration tells them."""
    try:
        return mode_text(result)
    except (KeyError, TypeError, ValueError):  # a configuration of another time
        return f"batch {result.engine.batch}"


def _tiles(result: RunResult) -> Iterator[Tile]:
    rates, latency = result.throughput, result.metrics.get("latency")
    offered = f"offered {format_count(rates.offered_per_s)}/s" if rates.offered_per_s is not None else "closed loop"
    if rates.offered_per_s is None and not result.config.model.load.closed:
        offered = ""
    rate, margin = rates.requests_per_s, rates.margin
    if rate is not None and margin is not None:
        exact = f"95 %: {format_count(rate / (1 + margin))} .. {format_count(rate * (1 + margin))}"
        offered = f"{exact}, {offered}" if offered else exact
    yield Tile("requests/s", count_or(rate), offered)
    if result.engine.batch != 1:
        mean = f"batches of {result.batches.mean:.2f} on average" if result.batches else ""
        yield Tile("inferences/s", count_or(rates.inferences_per_s), mean or f"batch {result.engine.batch}")
    for name in ("p50", "p99", "p99.9"):
        value = latency.percentiles_ns.get(name) if latency else None
        need = least_samples(PERCENTILES[name])
        count = latency.count if latency else 0
        told = time_or(value)
        note = f"not supported by {plural(count, 'request')}: it takes {format_count(need)}"
        yield Tile(f"latency {name}", told, note if value is None and count < need else _interval(result, name))
    yield Tile("requests served", format_count(result.ok), " · ".join(_losses(result)))


def _losses(result: RunResult) -> Iterator[str]:
    if result.failed:
        yield f"{format_count(result.failed)} failed"
    if result.unserved:
        yield f"{format_count(result.unserved)} not served"
    if result.dropped:
        yield f"{format_count(result.dropped)} dropped"
    yield f"in {format_duration(result.phases.measure_ns)}"


def _interval(result: RunResult, percentile: str) -> str:
    """The 95 % interval of a percentile, where an objective binds it or the sample tells."""
    for item in result.objectives:
        if item.objective.name == f"latency.{percentile}" and (
            item.value_low_ns is not None or item.value_high_ns is not None
        ):
            return f"95 %: {between(item.value_low_ns, item.value_high_ns)}"
    latency = result.metrics["latency"]
    value, margin = latency.percentiles_ns.get(percentile), latency.margins.get(percentile)
    if value is None or margin is None:
        return ""
    return f"95 %: {between(value / (1 + margin), value * (1 + margin))}"


def objectives_table(objectives: Sequence[ObjectiveShare]) -> Table:
    """Verdicts with what they rest on."""
    rows = [
        (
            Name(item.objective),
            verdict_badge(item.verdict) if item.verdict else UNKNOWN,
            time_or(item.value_ns),
            between(item.value_low_ns, item.value_high_ns),
            share_or(item.bad),
            shares_between(item.bad_low, item.bad_high),
            UNKNOWN if item.effective is None else format_count(round(item.effective)),
            item.reason or "",
        )
        for item in objectives
    ]
    reasons = any(row[-1] for row in rows)
    header = ("objective", "verdict", "quantile", "95 %", "bad", "95 %", "worth", "why undecided")
    return Table(
        header if reasons else header[:-1],
        tuple(row if reasons else row[:-1] for row in rows),
        words=2,
        last=reasons,
        note="worth: how many independent requests these were, as late ones come in clumps",
    )


def findings(result: RunResult) -> Section:
    """What makes it INVALID, and what else stands out."""
    notices = [Notice("bad", item.evidence, (("remedy", item.remedy),)) for item in result.problems]
    notices += [
        Notice("open", item.evidence, (("cause", item.cause), ("remedy", item.remedy)), item.kind)
        for item in result.findings
    ]
    if not result.findings and result.telemetry is not None:  # a run from before findings were kept
        busy = result.overlap.busy_fraction if result.overlap else None
        told = gpu_findings(result.telemetry, busy)
        notices += [Notice("open", item.evidence, (("remedy", item.remedy),)) for item in told]
    if result.first_error:
        notices.append(Notice("bad", f"first error: {result.first_error}", ()))
    none = words("None: nothing that loadtrt looks for stands out.")
    return section("Findings", *(notices or (none,)))


def shares_between(low: float | None, high: float | None) -> str:
    """An interval of shares."""
    return UNKNOWN if low is None or high is None else f"{percent_text(low)} .. {percent_text(high)}"
