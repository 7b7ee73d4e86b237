"""Several starts of a run as sections: the means between starts, how far starts are apart, and what each one found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.document import Notice, Section, Table, Tile, Tiles, section, words
from loadtrt.report.formatting import UNKNOWN, between, percent_text
from loadtrt.report.run_verdict import badges_of, shortfalls, verdict_badge
from loadtrt.report.settings import about, load_text, title
from loadtrt.stats.merging import gathered
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtrt.report.document import Block, Cell
    from loadtrt.results.repeat_result import RepeatResult, Spread

_TILES = ("throughput", "latency.p50", "latency.p99")
_NEW = (
    "Each start is a process of its own: the engine is loaded anew, contexts, streams, inputs and warm-up are new, and "
    "the seed is the next one. The machine, its caches of files and the GPU's clocks and temperature are as the start "
    "before left them."
)


def starts(result: RepeatResult, file: str) -> Iterator[Section]:
    """All starts together. file: what to call the result's file."""
    first, count = result.runs[0], len(result.runs)
    asked = f"{count} of {result.asked}" if count < result.asked else f"{count}"
    seeds = " .. ".join(str(run.config.model.seed) for run in (first, result.runs[-1])[: min(count, 2)])
    tiles = [_tile(spread) for spread in result.spreads if spread.name in _TILES and spread.mean is not None]
    how = f"{asked} starts, each a new process with a seed of its own ({seeds})"
    lost = [f"start {number}: {text}" for number, run in enumerate(result.runs, 1) for text in shortfalls(run)]
    more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
    badges = badges_of(result, [f"{text}{more}" for text in lost[:1]])
    blocks: list[Block] = [words(load_text(first)), words(how), about(result, file)]
    yield Section(title(first.model.engine), (*blocks, Tiles(tuple(tiles))), level=1, badges=badges)
    yield section("Objectives", *_objectives(result), bare=True, conclusion=True)
    yield section("Between starts", *_between(result.spreads))
    yield section("Findings", *_findings(result), bare=True, conclusion=True)


def _tile(spread: Spread) -> Tile:
    shown = _shown(spread)
    name = f"throughput, {_name(spread)}" if spread.unit == "1/s" else _name(spread)
    return Tile(name, shown(spread.mean or 0.0), f"95 %: {between(spread.mean_low, spread.mean_high, shown)}")


def _between(spreads: Sequence[Spread]) -> Iterator[Block]:
    """Each number's mean, interval and range; then what the intervals of single runs are worth."""
    if not spreads:
        yield words("Fewer than two starts completed: nothing is known of how far starts are apart.")
        return
    header = ("", "mean", "95 %", "min .. max", "CV", "one run's 95 %")
    note = "95 %: confidence interval of the mean between starts (Student's t); CV: standard deviation ÷ mean"
    unknown = [_name(spread) for spread in spreads if spread.mean is None]
    note += f"; not known of every start: {', '.join(unknown)}" if unknown else ""
    yield Table(header, tuple(_row(spread) for spread in spreads if spread.mean is not None), note=note)
    larger = sorted((spread for spread in spreads if spread.exceeds), key=lambda item: -(item.times or 0.0))
    if larger:
        text = ", ".join(
            f"{spread.name}{' varies' if place == 0 else ''} {format_count(spread.times or 0.0)} times"
            for place, spread in enumerate(larger)
        )
        yield words(
            f"Between starts {text} as much as within a run: the interval of one run is too narrow, and a comparison "
            "takes several starts of each side."
        )
    elif any(spread.times is not None for spread in spreads):
        yield words("Starts are no further apart than one run's own interval explains.")
    yield words(_NEW, only="page")


def _row(spread: Spread) -> tuple[Cell, ...]:
    shown = _shown(spread)
    known = [value for value in spread.values if value is not None]
    return (
        _name(spread),
        shown(spread.mean or 0.0),
        between(spread.mean_low, spread.mean_high, shown),
        between(min(known), max(known), shown),
        percent_text(spread.cv or 0.0),
        UNKNOWN if spread.within is None else f"± {percent_text(spread.within)}",
    )


def _shown(spread: Spread) -> Callable[[float], str]:
    return format_count if spread.unit == "1/s" else format_duration


def _name(spread: Spread) -> str:
    return "requests/s" if spread.unit == "1/s" else spread.name.replace(".", " ", 1)


def _objectives(result: RepeatResult) -> Iterator[Block]:
    """Each objective with its worst verdict, and in how many starts it has which."""
    shares = [share for run in result.runs for share in run.model.objectives]
    for objective in dict.fromkeys(share.objective for share in shares):
        verdicts = [share.verdict for share in shares if share.objective == objective]
        counts = {verdict: verdicts.count(verdict) for verdict in ("missed", "undecided", "met") if verdict in verdicts}
        if counts:
            text = ", ".join(f"{verdict} in {count}" for verdict, count in counts.items())
            badge = verdict_badge(next(iter(counts)))
            starts = plural(len(verdicts), "start")
            yield Notice(badge.tone, f"{objective.text}: {badge.text.upper()}: {text} of {starts}")


def _findings(result: RepeatResult) -> Iterator[Block]:
    """How the starts ended early, then what was found in any of them, with the evidence of the first that has it."""
    if result.outcome == "failed":
        yield Notice("bad", result.failure or "a start failed")
    elif result.outcome == "interrupted":
        whole = sum(run.outcome == "completed" for run in result.runs)
        yield Notice("open", f"interrupted: {whole} of {plural(result.asked, 'start')} completed")
    names = [str(number) for number, _ in enumerate(result.runs, 1)]
    for problem in gathered([run.model.problems for run in result.runs], "start", names):
        yield Notice("bad", problem.evidence, (("remedy", problem.remedy),))
    for finding in gathered([run.model.findings for run in result.runs], "start", names):
        yield Notice("open", finding.evidence, (("remedy", finding.remedy),), finding.kind)
