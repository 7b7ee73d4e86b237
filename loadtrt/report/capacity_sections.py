"""A search for capacity as sections: the answer, the evidence for it, every trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.charts.curves import Miss, ladder, latencies, misses
from loadtrt.report.charts.shares import Bar, bars
from loadtrt.report.document import Badge, Figure, Name, Notice, Section, Table, Tile, Tiles, section, words
from loadtrt.report.formatting import UNKNOWN, between, count_or, joules_text, percent_text, rate_or, share_or, time_or
from loadtrt.report.run_sections import latency
from loadtrt.report.run_verdict import ended, outcome_badge, state_badge, time_of, verdict_badge
from loadtrt.report.settings import about, closing, latency_bounds, noted, search_options, search_text, title
from loadtrt.report.worker_sections import fleet_text
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.capacity_result import ObjectiveCapacity
from loadtrt.units import format_count, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.asked.objective import Objective
    from loadtrt.report.document import Block, Cell, Tone
    from loadtrt.results.capacity_result import Candidate, CapacityResult, Trial
    from loadtrt.results.run_result import ObjectiveShare

_TONES: dict[str, Tone] = {"found": "good", "infeasible": "bad"}
_PERCENTILES = ("p50", "p99")  # and those of the objectives
_TRIAL = ("#", "trial", "load", "", "time", "quantile", "bad", "95 %", "worth")
_LAW = "X(N) = αN / (1 + σ(N − 1) + κN(N − 1)), at N requests in flight"
_AVERAGED = "bad, 95 %, worth: averaged over other draws of the arrivals; quantile: of the run's own arrivals"
_SIDES = {"cliff": "a cliff", "smooth": "a smooth slope"}


def capacity(result: CapacityResult, file: str, key: str) -> Iterator[Section]:
    """A search, the chosen candidate first. file, key: as in `sections_of`."""
    engine = next((candidate.engine for candidate in result.candidates if candidate.engine is not None), None)
    heading = title(engine, "Capacity of ", result.config.model.engine)
    yield Section(heading, tuple(_head(result, file)), level=1, badges=_badges(result))
    yield section("Answer", *_answer(result), bare=True, conclusion=True)
    names = [
        name
        for name in PERCENTILES
        if name in _PERCENTILES or any(objective.name == f"latency.{name}" for objective in result.objectives)
    ]
    alone = len(result.candidates) == 1
    for place, candidate in sorted(enumerate(result.candidates), key=lambda item: item[0] != result.chosen):
        if candidate.trials or alone:
            chosen = " (chosen)" if place == result.chosen and not alone else ""
            blocks = [] if candidate is _answering(result) else _conclusion(candidate)
            blocks += _candidate(candidate, names)
            yield section(f"{candidate.name}{chosen}", *blocks, only="" if candidate.searched or alone else "page")
        if place == result.chosen:
            yield from _confirmed(candidate)
    yield section("Findings", *ended(result), *_overloaded(result), bare=True, conclusion=True)
    yield closing(result, file, key, configuration=search_options(result), environment=result.environment)


def _badges(result: CapacityResult) -> tuple[Badge, ...]:
    badges = [] if result.outcome == "completed" else [outcome_badge(result.outcome)]
    best = result.best
    answers = {best.answer} if best else {candidate.answer for candidate in result.candidates}
    badges += [Badge(answer, _TONES.get(answer, "open")) for answer in answers if answer and len(answers) == 1]
    return tuple(badges)


def _head(result: CapacityResult, file: str) -> Iterator[Block]:
    yield words(search_text(result))
    if workers := fleet_text(result.config):
        yield words(f"{workers}; requests in flight are per worker")
    yield about(result, file)
    yield from noted(candidate.engine for candidate in result.candidates)
    best = result.best
    if best is not None:
        yield Tiles(tuple(_tiles(best)))


def _answering(result: CapacityResult) -> Candidate | None:
    """The candidate whose conclusion is the answer."""
    return result.best or (result.candidates[0] if len(result.candidates) == 1 else None)


def _overloaded(result: CapacityResult) -> Iterator[Notice]:
    """Models beside it that did not have their loads, so that the capacity is one beside less."""
    trials = [trial for trial in (result.best.trials if result.best else ()) if trial.kind != "ladder"]
    for name, model in result.beside.items():
        found = sum(name in trial.overloaded for trial in trials)
        if found:
            times, load = f"{found} of {plural(len(trials), 'trial')}", model.load.text
            yield Notice("bad", f"{name} was overloaded in {times}: beside its load ({load}) there is less capacity")


def _answer(result: CapacityResult) -> Iterator[Block]:
    """What the search came to, and all candidates where there are several."""
    if len(result.candidates) > 1:
        yield from _candidates(result)
    candidate = _answering(result)
    if candidate is not None:
        yield from _conclusion(candidate)
    if result.best is None:
        early = "" if result.outcome == "completed" else "The search ended before there was an answer."
        none = "" if any(candidate.conclusion for candidate in result.candidates) else "No candidate has a capacity."
        if text := result.reason or early or none:
            yield words(text)
    elif result.reason:
        yield words(f"chosen: {result.best.name}, {result.reason}")


def _conclusion(candidate: Candidate) -> list[Block]:
    """The answer of a candidate, or why there is none."""
    texts = [candidate.conclusion]
    texts += [f"failed: {candidate.failure}"] if candidate.failure else []
    texts += [f"not searched: {candidate.dropped}"] if candidate.dropped else []
    texts += [_boundary(candidate)] if candidate.answer in ("found", "undecided") else []
    return [words(text) for text in texts if text]


def _tiles(best: Candidate) -> Iterator[Tile]:
    rate, items = best.confirmed_per_s, best.inferences_per_request
    yield Tile("confirmed, requests/s", count_or(rate), detail=True)
    if items != 1:
        inferences = count_or(None if rate is None else rate * items)
        yield Tile("confirmed, inferences/s", inferences, f"{items:.3g} in a request", detail=True)
    interval = f"95 %: {between(best.low_per_s, best.high_per_s, format_count)}"
    yield Tile("estimate, requests/s", count_or(best.estimate_per_s), interval, detail=True)
    highest = f"lowest that missed {count_or(best.infeasible_min_per_s)}"
    yield Tile("highest that met", count_or(best.feasible_max_per_s), highest, detail=True)
    if best.binding:
        boundary = f"{best.boundary} boundary" if best.boundary else ""
        names = {item.objective.text: item.objective.name for item in best.objectives}
        yield Tile("binding", names.get(best.binding, best.binding), boundary, detail=True)
    if best.joules_per_inference is not None:
        yield Tile("energy per inference", joules_text(best.joules_per_inference), "at the confirming run", detail=True)


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
    for place, candidate in enumerate(result.candidates):
        answer: Cell = Badge(candidate.answer, _TONES.get(candidate.answer, "open")) if candidate.answer else UNKNOWN
        rate = candidate.confirmed_per_s or candidate.estimate_per_s
        chosen = ("chosen",) if place == result.chosen else ()
        rows.append(
            (
                candidate.name,
                "mix" if result.config.model.mix else "batcher" if candidate.batcher else count_or(candidate.size),
                answer,
                count_or(candidate.predicted_per_s),
                count_or(candidate.estimate_per_s),
                between(candidate.low_per_s, candidate.high_per_s, format_count),
                count_or(candidate.confirmed_per_s),
                count_or(candidate.scaling.most_per_s if candidate.scaling else None),
                count_or(None if rate is None else rate * candidate.inferences_per_request),
                str(len(candidate.trials)),
                "; ".join((*chosen, *_why(candidate))),
            )
        )
    rates = ("expected", "estimate", "95 %", "confirmed", "most in a closed loop")
    header = ("", "batch", "", *rates, "inferences/s", "trials", "")
    note = "expected, estimate, confirmed: requests a second; expected: by the ladder alone"
    yield Table(header, tuple(rows), words=3, last=1, note=note, detail=(5, 7, 9))


def _why(candidate: Candidate) -> Iterator[str]:
    if candidate.dropped:
        yield f"not searched, {candidate.dropped}"
    elif candidate.failure:
        yield f"failed: {candidate.failure}"
    elif candidate.answer == "infeasible":
        yield candidate.conclusion


def _candidate(candidate: Candidate, names: Sequence[str]) -> Iterator[Block]:
    yield from _by_rate(candidate, names)
    yield from _ladder(candidate)
    if len(candidate.objectives) > 1:
        rows = tuple(
            (
                Name(item.objective.text),
                count_or(item.rate_per_s),
                between(item.low_per_s, item.high_per_s, format_count),
            )
            for item in candidate.objectives
        )
        yield Table(("objective", "just met at, requests/s", "95 %"), rows)
    runs = [trial.run for trial in candidate.searched if trial.run is not None]
    objectives = dict.fromkeys(item.objective for run in runs for item in run.model.objectives)
    for text in objectives:
        if len(objectives) > 1:
            yield words(Name(text.text), ":")
        yield _trials(candidate, text, names)
    if candidate.searched and not objectives:
        yield _trials(candidate, None, names)


def _boundary(candidate: Candidate) -> str:
    """Between which rates the capacity is, and how steep the boundary is."""
    texts = [f"bound by {candidate.binding}"] if len(candidate.objectives) > 1 and candidate.binding else []
    sides = (("met", candidate.feasible_max_per_s), ("missed", candidate.infeasible_min_per_s))
    known = [f"{verdict} at {rate_or(rate)}" for verdict, rate in sides if rate is not None]
    if known:
        texts.append(", ".join(known) + (f": {_SIDES[candidate.boundary]}" if candidate.boundary else ""))
    if candidate.joules_per_inference is not None:
        texts.append(f"{joules_text(candidate.joules_per_inference)} per inference")
    return "; ".join(texts)


def _ladder(candidate: Candidate) -> Iterator[Block]:
    """Closed loops, with the law fitted to them and the rate expected from it. With a batcher each is of batches of one
    size, and rates are of single requests; the law is that of full batches."""
    rungs: list[tuple[int, float]] = []
    rows: list[tuple[Cell, ...]] = []
    full = max((trial.run.model.engine.batch for trial in candidate.ladder if trial.run), default=1)
    for rung in candidate.ladder:
        run = rung.run
        size = run.model.engine.batch if run is not None and candidate.batcher else 1
        rate = run.model.throughput.requests_per_s if run is not None else None
        per_s = None if rate is None else size * rate
        if rung.in_flight is not None and per_s is not None and size == (full if candidate.batcher else 1):
            rungs.append((rung.in_flight, per_s))
        times = map(time_or, _times(rung, _PERCENTILES))
        count = count_or(run.model.ok if run else None)
        remark = rung.failure or rung.host_bound or ""
        batch = (str(size),) if candidate.batcher else ()
        rows.append((*batch, str(rung.in_flight), state_badge(run), count_or(per_s), *times, count, remark))
    law = candidate.scaling
    if rungs:
        note = "closed loops, and the law fitted to them" if law else "closed loops"
        yield Figure("Throughput by requests in flight", ladder(rungs, law), note)
    if rows:
        sizes = 1 if candidate.batcher else 0  # a column more
        header = ("batch", "in flight", "", "requests/s", "latency p50", "p99", ("requests", "batches")[sizes], "")
        yield Table(header[1 - sizes :], tuple(rows), words=sizes + 2, last=1, detail=(sizes + 1, sizes + 5))
    if law is not None:
        peak = f"most at {law.peak_in_flight:.0f} in flight, " if law.peak_in_flight is not None else ""
        yield words(
            f"scaling: α {format_count(law.alpha_per_s)}/s, contention σ {law.sigma:.3g}, coherency κ {law.kappa:.3g}; "
            f"{peak}knee at {law.knee_in_flight}; off by {percent_text(law.error_ratio)} at most"
        )
        yield words(f"scaling: {_LAW}", only="page")
    if candidate.predicted_per_s is not None:
        yield words(f"expected from the ladder: {format_count(candidate.predicted_per_s)}/s")
    elif candidate.searched:
        first = candidate.searched[0]
        objectives = first.run.model.objectives if first.run is not None else ()
        known = any(item.objective.metric_name == "latency" for item in objectives)
        expected = "no rate" if known else "nothing, as it predicts only latency"
        yield words(f"expected from the ladder: {expected}; trials begin at {rate_or(first.rate_per_s)}")


def _by_rate(candidate: Candidate, names: Sequence[str]) -> Iterator[Block]:
    runs = [trial.run for trial in candidate.searched if trial.run is not None]
    for text in dict.fromkeys(item.objective for run in runs for item in run.model.objectives):
        shares = (_miss(number, trial, text) for number, trial in enumerate(candidate.searched, 1))
        drawn = [miss for miss in shares if miss is not None]
        if drawn:
            whole = ObjectiveCapacity(
                objective=text,
                rate_per_s=candidate.estimate_per_s,
                low_per_s=candidate.low_per_s,
                high_per_s=candidate.high_per_s,
            )
            mine = next((item for item in candidate.objectives if item.objective == text), whole)
            chart = misses(drawn, mine, candidate.feasible_max_per_s, candidate.infeasible_min_per_s)
            yield Figure("Bad requests by rate", chart, f"{text}; trials by number, the confirming one large")
    trials = [(trial.rate_per_s, _times(trial, names)) for trial in candidate.searched if trial.rate_per_s is not None]
    if any(time is not None for _, times in trials for time in times):
        bounds = [bound for name in names for bound in latency_bounds(runs[0], name)]
        chart = latencies(trials, names, bounds, candidate.estimate_per_s)
        yield Figure("Latency by rate", chart, "percentiles that each trial's sample supports")


def _share(trial: Trial, objective: Objective | None) -> ObjectiveShare | None:
    items = trial.run.model.objectives if trial.run else ()
    return next((item for item in items if item.objective == objective), None)


def _miss(number: int, trial: Trial, objective: Objective) -> Miss | None:
    item = _share(trial, objective)
    if item is None or trial.rate_per_s is None or item.bad is None or item.bad_low is None or item.bad_high is None:
        return None
    note = "host-bound" if trial.host_bound else ""
    verdict = None if note else item.verdict
    return Miss(number, trial.rate_per_s, item.bad, item.bad_low, item.bad_high, verdict, trial.kind == "confirm", note)


def _times(trial: Trial, names: Sequence[str]) -> tuple[float | None, ...]:
    return tuple(time_of(trial.run.model.metrics, name) if trial.run else None for name in names)


def _in_spite(trial: Trial) -> str:
    """Why a run is INVALID whose verdict the search used nevertheless."""
    run = trial.run
    if run is None or not run.model.problems or not run.verdict:
        return ""
    return f"counts as {run.verdict}: {run.model.problems[0].evidence}"


def _trials(candidate: Candidate, objective: Objective | None, names: Sequence[str]) -> Table:
    """Every open loop, and how one objective fared in it."""
    rows: list[tuple[Cell, ...]] = []
    for number, trial in enumerate(candidate.searched, 1):
        run, item = trial.run, _share(trial, objective)
        lasted = None if run is None else run.phases.measure_ns - run.phases.drain_ns
        rows.append(
            (
                str(number),
                trial.kind,
                rate_or(trial.rate_per_s),
                _state(trial, item),
                time_or(lasted),
                time_or(item.value_ns if item else None),
                share_or(item.bad if item else None),
                between(item.bad_low, item.bad_high, percent_text) if item else UNKNOWN,
                count_or(round(item.effective) if item and item.effective is not None else None),
                count_or(run.model.throughput.requests_per_s if run else None),
                *map(time_or, _times(trial, names)),
                count_or(run.model.ok if run else None),
                trial.failure or trial.host_bound or _in_spite(trial),
            )
        )
    header = (*_TRIAL, "requests/s", *names, "requests", "")
    detail = (0, *range(len(_TRIAL), len(header) - 1))
    averaged = any((item := _share(trial, objective)) and item.averaged is not None for trial in candidate.searched)
    return Table(header, tuple(rows), words=4, last=1, note=_AVERAGED if averaged else "", detail=detail)


def _state(trial: Trial, item: ObjectiveShare | None) -> Badge:
    """How a trial ended, or the verdict on its objective."""
    if trial.run is None or trial.run.outcome != "completed":
        return outcome_badge(trial.run.outcome if trial.run else "failed")
    if trial.host_bound:
        return Badge("host-bound", "open")
    return verdict_badge(item.verdict) if item and item.verdict else state_badge(trial.run)


def _confirmed(candidate: Candidate) -> Iterator[Section]:
    """Latencies of the run that confirmed the rate; where none did, of the last that was to."""
    confirms = (trial for trial in candidate.trials if trial.kind == "confirm")
    for trial in sorted(confirms, key=lambda trial: trial.rate_per_s == candidate.confirmed_per_s)[-1:]:
        if trial.run is not None and trial.run.model.ok:
            yield section(f"Latency at {count_or(trial.rate_per_s)} requests/s", *latency(trial.run), only="page")
