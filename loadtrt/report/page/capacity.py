"""A search for capacity as sections: the answer, what it rests on, every trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.measure.summary import PERCENTILES
from loadtrt.report.charts.bars import Bar, bars
from loadtrt.report.charts.curves import Level, Miss, Region, ladder, latencies, misses
from loadtrt.report.page.facts import closing
from loadtrt.report.page.headline import outcome_badge, state_badge
from loadtrt.report.page.run import latency, objective_levels
from loadtrt.report.page.section import Badge, Figure, Name, Notice, Section, Table, Tile, Tiles, section, words
from loadtrt.report.text import UNKNOWN, between, count_or, joules_text, percent_text, share_or, time_or
from loadtrt.units import exact_duration, format_count, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from loadtrt.asked.objective import Objective
    from loadtrt.measure.capacity_result import Candidate, CapacityResult, ObjectiveCapacity, Trial
    from loadtrt.measure.result import ObjectiveShare
    from loadtrt.report.page.section import Block, Cell, Tone

_TONES: dict[str, Tone] = {"found": "good", "infeasible": "bad"}
_PERCENTILES = ("p50", "p99")  # and those that objectives bind
# Of a run's configuration, what is set and no option of a search.
_OF_RUNS = {"time_scale", "trace_loop", "abort_on_fail", "abort_delay", "profile", "live"}
_OF_RUNS |= {"metrics", "metrics_linger", "metrics_native"}


def capacity(result: CapacityResult, file: str, key: str) -> Iterator[Section]:
    """file: what to call it. key: an id that no other result on the page has."""
    yield Section(tuple(_title(result)), tuple(_head(result, file)), level=1, badges=_badges(result))
    if len(result.candidates) > 1:
        yield section("Candidates", *_candidates(result))
    names = [
        name
        for name in PERCENTILES
        if name in _PERCENTILES or any(objective.name == f"latency.{name}" for objective in result.objectives)
    ]
    for place, candidate in _in_order(result):
        if candidate.trials:
            chosen = " (chosen)" if place == result.chosen and len(result.candidates) > 1 else ""
            yield section(f"{candidate.name}{chosen}", *_candidate(candidate, names))
        if place == result.chosen:
            yield from _confirmed(candidate)
    settings = {"configuration": _configuration(result), "environment": result.environment}
    yield section("Configuration", *closing(result, file, key, **settings))


def _configuration(result: CapacityResult) -> dict[str, Any]:
    """What was searched for, by option name."""
    run = {name: value for name, value in result.config.options().items() if name not in _OF_RUNS}
    longest = f" to {exact_duration(result.longest_trial_ns)}" if result.longest_trial_ns else ""
    trials = {"trial": f"{exact_duration(result.trial_ns)}{longest}", "max_trials": result.max_trials}
    axes = {"contexts": result.contexts, "batch": result.batches}
    return {
        **run,
        **axes,
        **result.load.model_dump(exclude_none=True),
        **trials,
        "precision": f"{100 * result.precision:g}%",
    }


def _in_order(result: CapacityResult) -> list[tuple[int, Candidate]]:
    """The chosen one first."""
    return sorted(enumerate(result.candidates), key=lambda item: item[0] != result.chosen)


def _title(result: CapacityResult) -> Iterator[Cell]:
    yield "Capacity of "
    engine = next((candidate.engine for candidate in result.candidates if candidate.engine is not None), None)
    yield Name(engine.name if engine else result.config.model.engine)
    if engine:
        yield f" on {engine.device}"


def _badges(result: CapacityResult) -> tuple[Badge, ...]:
    found = [] if result.outcome == "completed" else [outcome_badge(result.outcome)]
    best = result.best
    answers = {best.answer} if best else {candidate.answer for candidate in result.candidates}
    found += [Badge(answer, _TONES.get(answer, "open")) for answer in answers if answer and len(answers) == 1]
    return tuple(found)


def _head(result: CapacityResult, file: str) -> Iterator[Block]:
    load = [
        f"{name} {f'{value:g}' if isinstance(value, float) else value}"
        for name, value in result.load
        if value not in (None, "", False)
    ]
    yield words("to hold: ", *joined(tuple(map(str, result.objectives))), *(f" · {text}" for text in load))
    engine = next((candidate.engine for candidate in result.candidates if candidate.engine is not None), None)
    runtime = f"{engine.flavour} {engine.version} · " if engine else ""
    yield words(f"{runtime}loadtrt {result.loadtrt} · {result.started} · ", Name(file))
    if result.failure:
        yield Notice("bad", result.failure, ())
    best = result.best
    if best is None:
        ended = "" if result.outcome == "completed" else "The search ended before there was an answer."
        none = "" if any(each.conclusion for each in result.candidates) else "No candidate has a capacity."
        if told := result.reason or ended or none:
            yield words(told)
    else:
        yield Tiles(tuple(_tiles(best)))
        if result.reason:
            yield words(result.reason)


def joined(names: tuple[str, ...]) -> Iterator[Cell]:
    """Names with commas between."""
    for place, name in enumerate(names):
        yield from ((", ",) if place else ())
        yield Name(name)


def _tiles(best: Candidate) -> Iterator[Tile]:
    rate, items = best.confirmed_per_s, best.inferences_per_request
    yield Tile("confirmed, requests/s", count_or(rate))
    if items != 1:
        inferences = count_or(None if rate is None else rate * items)
        yield Tile("confirmed, inferences/s", inferences, f"{items:.3g} in a request")
    interval = f"95 %: {between(best.low_per_s, best.high_per_s, format_count)}"
    yield Tile("estimate, requests/s", count_or(best.estimate_per_s), interval)
    highest = f"lowest that missed {count_or(best.infeasible_min_per_s)}"
    yield Tile("highest that met", count_or(best.feasible_max_per_s), highest)
    if best.binding:
        boundary = f"{best.boundary} boundary" if best.boundary else ""
        yield Tile("binding", best.binding.partition("<")[0].strip(), boundary)
    if best.joules_per_inference is not None:
        yield Tile("energy an inference", joules_text(best.joules_per_inference), "at the confirming run")


def _candidates(result: CapacityResult) -> Iterator[Block]:
    drawn = []
    for candidate in result.candidates:
        best = candidate.confirmed_per_s if candidate.confirmed_per_s is not None else candidate.estimate_per_s
        value = None if best is None else best * candidate.inferences_per_request
        text = f"{count_or(value)}{'' if best is None or best == candidate.confirmed_per_s else ', not confirmed'}"
        drawn.append(Bar(candidate.name, value, text, "f1" if candidate is result.best else "f3"))
    if any(bar.value for bar in drawn):
        chart = bars("Capacity by candidate", "Inferences a second.", drawn)
        yield Figure("Capacity, inferences/s", chart, "confirmed, or else estimated")
    rows = []
    for candidate in result.candidates:
        answer: Cell = Badge(candidate.answer, _TONES.get(candidate.answer, "open")) if candidate.answer else UNKNOWN
        rows.append(
            (
                candidate.name,
                answer,
                count_or(candidate.estimate_per_s),
                between(candidate.low_per_s, candidate.high_per_s, format_count),
                count_or(candidate.confirmed_per_s),
                count_or(candidate.predicted_per_s),
                count_or(candidate.scaling.most_per_s if candidate.scaling else None),
                str(len(candidate.trials)),
                candidate.failure or candidate.dropped or "",
            )
        )
    header = ("", "", "estimate/s", "95 %", "confirmed/s", "predicted/s", "most/s", "trials", "")
    note = "requests a second; predicted: by the ladder alone; most: of a closed loop"
    yield Table(header, tuple(rows), words=2, last=True, note=note)


def _candidate(candidate: Candidate, names: Sequence[str]) -> Iterator[Block]:
    if candidate.conclusion:
        yield words(candidate.conclusion)
    yield from _by_rate(candidate, names)
    rungs = []
    for trial in candidate.ladder:
        rate = trial.run.throughput.requests_per_s if trial.run is not None else None
        if trial.in_flight is not None and rate is not None:
            rungs.append((trial.in_flight, rate))
    law = candidate.scaling
    if rungs:
        yield Figure("Throughput by requests in flight", ladder(rungs, law), "closed loops")
    if law is not None:
        yield words(
            f"X(N) = αN / (1 + σ(N − 1) + κN(N − 1)), α {format_count(law.alpha_per_s)}/s, contention σ "
            f"{law.sigma:.3g}, coherency κ {law.kappa:.3g}; off by {percent_text(law.error_ratio)} at most"
        )
    if len(candidate.objectives) > 1:
        rows = tuple(
            (
                Name(str(item.objective)),
                count_or(item.rate_per_s),
                between(item.low_per_s, item.high_per_s, format_count),
            )
            for item in candidate.objectives
        )
        yield Table(("objective", "just met at, requests/s", "95 %"), rows)
    yield _trials(candidate, names)


def _by_rate(candidate: Candidate, names: Sequence[str]) -> Iterator[Block]:
    runs = [trial.run for trial in candidate.searched if trial.run is not None]
    for text in dict.fromkeys(item.objective for run in runs for item in run.objectives):
        told = (_miss(number, trial, text) for number, trial in enumerate(candidate.searched, 1))
        found = [miss for miss in told if miss is not None]
        if found:
            mine = next((item for item in candidate.objectives if item.objective == text), None)
            chart = misses(found, round(1 - text.rank, 9), _region(candidate, mine), str(text))
            yield Figure("Bad requests by rate", chart, f"{text}; trials by number, the confirming one large")
    levels = [
        Level(trial.rate_per_s, _times(trial, names)) for trial in candidate.searched if trial.rate_per_s is not None
    ]
    if any(time is not None for level in levels for time in level.times):
        bounds = [bound for name in names for bound in objective_levels(runs[0], name)]
        chart = latencies(levels, names, bounds, candidate.estimate_per_s)
        yield Figure("Latency by rate", chart, "percentiles that each trial's sample supports")


def _region(candidate: Candidate, mine: ObjectiveCapacity | None) -> Region:
    if mine is None:
        mine_rate, low, high = candidate.estimate_per_s, candidate.low_per_s, candidate.high_per_s
    else:
        mine_rate, low, high = mine.rate_per_s, mine.low_per_s, mine.high_per_s
    return Region(mine_rate, low, high, candidate.feasible_max_per_s, candidate.infeasible_min_per_s)


def _share(trial: Trial, text: Objective | None) -> ObjectiveShare | None:
    return next((item for item in trial.run.objectives if item.objective == text), None) if trial.run else None


def _miss(number: int, trial: Trial, text: Objective) -> Miss | None:
    item = _share(trial, text)
    if item is None or trial.rate_per_s is None or item.bad is None or item.bad_low is None or item.bad_high is None:
        return None
    note = "host-bound" if trial.host_bound else ""
    verdict = None if note else item.verdict
    return Miss(number, trial.rate_per_s, item.bad, item.bad_low, item.bad_high, verdict, trial.kind == "confirm", note)


def _times(trial: Trial, names: Sequence[str]) -> tuple[float | None, ...]:
    latency = trial.run.metrics.get("latency") if trial.run else None
    return tuple(latency.percentiles_ns.get(name) if latency else None for name in names)


def _in_spite(trial: Trial) -> str:
    """Why a run is INVALID that the search took all the same, for what it took it."""
    run = trial.run
    return f"counts as {run.verdict}: {run.problems[0].evidence}" if run and run.problems and run.verdict else ""


def _trials(candidate: Candidate, names: Sequence[str]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    found = [item.objective for trial in candidate.trials if trial.run for item in trial.run.objectives]
    objectives: list[Objective | None] = [*dict.fromkeys(found)] or [None]
    for number, trial in enumerate((*candidate.ladder, *candidate.searched), 1 - len(candidate.ladder)):
        run = trial.run
        rate = f"{count_or(trial.rate_per_s)}/s"
        what = rate if trial.in_flight is None else f"{plural(trial.in_flight, 'request')} in flight"
        times = map(time_or, _times(trial, names))
        bad = [share_or(item.bad if (item := _share(trial, text)) else None) for text in objectives]
        badge = Badge("FAILED", "bad") if run is None else state_badge(run)
        rows.append(
            (
                "" if number < 1 else str(number),
                trial.kind,
                what,
                badge,
                count_or(run.throughput.requests_per_s if run else None),
                *times,
                *bad,
                count_or(run.ok if run else None),
                trial.failure or trial.host_bound or _in_spite(trial),
            )
        )
    told = [f"bad, {text.name}" for text in objectives if text] if len(objectives) > 1 else ["bad"]
    header = ("#", "kind", "load", "", "requests/s", *names, *told, "requests", "")
    return Table(header, tuple(rows), words=4, last=True)


def _confirmed(candidate: Candidate) -> Iterator[Section]:
    """The confirming run's latencies."""
    confirming = [(trial.rate_per_s, trial.run) for trial in candidate.trials if trial.kind == "confirm"]
    for rate, run in confirming[-1:]:
        if run is not None and run.ok:
            yield section(f"Latency at {count_or(rate)} requests/s", *latency(run))
