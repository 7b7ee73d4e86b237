"""The document of results of any kind: those that can be compared side by side first, then each by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from loadtrt.report.capacity_sections import capacity
from loadtrt.report.charts.plot import SERIES
from loadtrt.report.charts.shares import Bar, bars, shares
from loadtrt.report.comparison_sections import compared, compared_runs, side_of
from loadtrt.report.comparison_verdicts import CHANCE, ratio_text, verdict_on
from loadtrt.report.document import Figure, Name, Section, Table, section, words
from loadtrt.report.fleet_sections import fleet
from loadtrt.report.formatting import UNKNOWN, count_or
from loadtrt.report.interference_sections import interference
from loadtrt.report.layer_comparison_sections import PAGE_ROWS, compared_profiles
from loadtrt.report.placement_sections import placement
from loadtrt.report.profile_sections import profile
from loadtrt.report.repeat_sections import starts
from loadtrt.report.run_sections import histogram_of, run
from loadtrt.report.run_verdict import NUMBERS, numbers, state_badge
from loadtrt.report.settings import latency_bounds, settings_of
from loadtrt.report.sweep_sections import sweep
from loadtrt.results.capacity_result import CapacityResult, SweepResult
from loadtrt.results.fleet_result import FleetResult
from loadtrt.results.interference_result import InterferenceResult
from loadtrt.results.one_model import models_of
from loadtrt.results.placement_result import PlacementResult
from loadtrt.results.profile_result import ProfileResult
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import RunResult
from loadtrt.stats.measured import RATES
from loadtrt.stats.profiles import LayerComparison, compare_profiles
from loadtrt.stats.regression import Comparison
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.comparison_sections import Side
    from loadtrt.report.document import Block
    from loadtrt.report.result_files import Loaded, Result

_MOST_SETTINGS = 6  # columns of what differs
_COMPARED = ("throughput", "latency.p50", "latency.p99")  # where more than two results are compared


def sections(loaded: Sequence[Loaded]) -> Iterator[Section]:
    """What there are two or more of side by side, then every result."""
    names = names_of([item.file for item in loaded])
    results = [(names[item.file], item.result) for item in loaded if isinstance(item.result, RunResult)]
    if len(results) > 1:
        runs: list[tuple[str, RunResult]] = []
        for file, result in results:
            several = len(result.models) > 1
            runs += [(f"{file}: {name}" if several else file, part) for name, part in models_of(result).items()]
        yield Section((f"{plural(len(runs), 'run')} side by side",), tuple(_side_by_side(runs)), level=1)
    sides = [(names[item.file], side) for item in loaded if (side := _side(item, names[item.file]))]
    if len(sides) > 1:
        yield from _against_first(sides)
    profiles = [(names[item.file], timed) for item in loaded if (timed := _profile(item.result)) is not None]
    if len(profiles) == 2:
        (file_a, a), (file_b, b) = profiles
        yield from compared_profiles(compare_profiles(a, b), file_a, file_b, top=PAGE_ROWS)
    for number, item in enumerate(loaded, 1):
        for part in sections_of(item.result, item.file, f"result-{number}"):
            yield replace(part, file=names[item.file]) if part.level == 1 and len(loaded) > 1 else part


def sections_of(result: Result, file: str, key: str) -> Iterator[Section]:
    """One result.

    file: what to call its file.
    key: an id that no other result of the document has.
    """
    match result:
        case RunResult():
            yield from run(result, file, key)
        case RepeatResult():
            yield from _starts(result, file, key)
        case SweepResult():
            yield from sweep(result, file, key)
        case CapacityResult():
            yield from capacity(result, file, key)
        case InterferenceResult():
            yield from interference(result, file, key)
        case FleetResult():
            yield from fleet(result, file, key)
        case PlacementResult():
            yield from placement(result, file, key)
        case ProfileResult():
            yield from profile(result, file)
        case LayerComparison():
            engines = (result.a.engine, result.b.engine)
            name_a, name_b = (engine.name if engine else letter for engine, letter in zip(engines, "AB", strict=True))
            yield from compared_profiles(result, name_a, name_b, top=PAGE_ROWS)
        case Comparison():
            yield from compared_runs(result)


def _starts(result: RepeatResult, file: str, key: str) -> Iterator[Section]:
    """All starts of a run together and side by side; the first ones by themselves, on a page, or where they cannot be
    compared."""
    yield from starts(result, file)
    runs = [(f"start {number}", run) for number, run in enumerate(result.runs, 1)]
    more = (words(f"Below are the first {SERIES} starts by themselves.", only="page"),) if len(runs) > SERIES else ()
    yield section("Starts", *_side_by_side(runs), *more, bare=True)
    for number, (name, run_) in enumerate(runs[:SERIES], 1):
        for part in run(run_, file, f"{key}-{number}"):
            only = "page" if result.spreads else part.only
            title = (f"{name}: ", *part.title) if part.level == 1 else part.title
            yield replace(part, only=only, title=title)


def title_of(loaded: Sequence[Loaded]) -> str:
    """The title of a page of these results."""
    if len(loaded) > 1:
        return f"loadtrt: {plural(len(loaded), 'result')}"
    match loaded[0].result:
        case RunResult(models=models) as result if len(models) == 1:
            return f"loadtrt: {result.model.engine.name} on {result.model.engine.device}"
        case RepeatResult(runs=runs):
            return (
                f"loadtrt: {plural(len(runs), 'start')} of {runs[0].model.engine.name} on {runs[0].model.engine.device}"
            )
        case FleetResult() | ProfileResult() as result:
            return f"loadtrt: {result.engine.name} on {result.engine.device}"
        case _:
            return f"loadtrt: {loaded[0].file}"


def names_of(files: Sequence[str]) -> dict[str, str]:
    """What to call each file: its name, with as many folders before it as distinguish it from the others."""
    parts = {file: PurePath(file).parts for file in files}
    most = max(map(len, parts.values()), default=1)
    for count in range(1, most + 1):
        names = {file: str(PurePath(*path[-count:])) for file, path in parts.items()}
        if len(set(names.values())) == len(parts):
            return names
    return dict(zip(files, files, strict=True))


def _side(item: Loaded, name: str) -> list[Side]:
    """A result as a side of a comparison: a run of one model, or several starts of one; else none."""
    match item.result:
        case RunResult(models=models) as result if len(models) == 1:
            return [side_of(name, result)]
        case RepeatResult(runs=runs):
            whole = [(place, run) for place, run in enumerate(runs, 1) if run.outcome == "completed"]
            return [side_of(f"{name}:{place}", run) for place, run in whole]
        case _:
            return []


def _against_first(sides: Sequence[tuple[str, Sequence[Side]]]) -> Iterator[Section]:
    """Results against the first one: two of them in full, more in a table. sides: runs by the name of their file."""
    (name, first), *others = sides
    comparisons = [(other, compared(first, runs)) for other, runs in others]
    if len(comparisons) == 1:
        yield from compared_runs(comparisons[0][1])
        return
    rows = []
    for other, comparison in comparisons:
        known = {ratio.name: ratio_text(ratio, verdict_on(comparison, ratio)) for ratio in comparison.ratios}
        rows.append((Name(other), *(known.get(key, UNKNOWN) for key in _COMPARED)))
    header = ("", *("requests/s" if key in RATES else key.replace(".", " ") for key in _COMPARED))
    note = f"each result ÷ {name}, with the 95 % confidence interval. {CHANCE}"
    yield Section((f"Compared with {name}",), (Table(header, tuple(rows), last=3, note=note),), level=1)


def _profile(result: Result) -> ProfileResult | None:
    if isinstance(result, RunResult):
        return _profile(result.model.profile) if len(result.models) == 1 and result.model.profile else None
    return result if isinstance(result, ProfileResult) and result.passes else None


def _side_by_side(runs: Sequence[tuple[str, RunResult]]) -> Iterator[Block]:
    """What differs in how the runs were made, and in what came out. runs: (what to call it, result)."""
    settings = [settings_of(result) | {"beside": ", ".join(result.beside)} for _, result in runs]
    names = list(dict.fromkeys(name for of_run in settings for name in of_run))
    differ = [name for name in names if len({of_run.get(name, "") for of_run in settings}) > 1]
    shown = differ[:_MOST_SETTINGS]
    rows = [
        (Name(file), state_badge(result), *(Name(of_run.get(name, "")) for name in shown), *numbers(result))
        for (file, result), of_run in zip(runs, settings, strict=True)
    ]
    header = ("run", "", *shown, *NUMBERS)
    more = f"they also differ in {', '.join(differ[_MOST_SETTINGS:])}" if len(differ) > _MOST_SETTINGS else ""
    yield Table(header, tuple(rows), words=2 + len(shown), note=more)
    curves = [(file, seen) for file, result in runs if (seen := histogram_of(result, "latency")) is not None]
    bounds = {bound.text: bound for _, result in runs for bound in latency_bounds(result)}
    if curves:
        chart = shares(curves, list(bounds.values()), "latency")
        note = f"the first {SERIES} runs" if len(curves) > SERIES else "of all runs"
        yield Figure("Latency by share of requests", chart, note)
    rates = [
        Bar(file, rate := result.model.throughput.inferences_per_s, count_or(rate), f"f{1 + place % SERIES}")
        for place, (file, result) in enumerate(runs)
    ]
    yield Figure("Inferences/s", bars("Inferences a second", f"{plural(len(runs), 'run')}.", rates))
