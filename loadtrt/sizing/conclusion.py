"""The answer of a search for capacity in a sentence, with its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.formatting import between
from loadtrt.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.results.capacity_result import Candidate, Trial
    from loadtrt.results.run_result import ObjectiveShare, RunResult

_NEAR = 0.9  # share of the estimate from which a confirmed rate counts as near it


def conclusion(candidate: Candidate) -> str:
    """The answer in a sentence, with its numbers; "" before the end of the search."""
    match candidate.answer:
        case "found":
            far = (candidate.confirmed_per_s or 0.0) < _NEAR * (candidate.estimate_per_s or 0.0)
            more = "; a longer --time confirms a higher rate" if far else ""
            met = f"{_rate(candidate, candidate.confirmed_per_s)} are confirmed{_late(candidate)}{_together(candidate)}"
            return f"{_capacity(candidate)}; {met}{more}"
        case "estimated":
            if not candidate.searched:
                return _throughput(candidate)
            lasted_ns = sum(trial.run.phases.measure_ns for trial in candidate.trials if trial.run is not None)
            return f"{_capacity(candidate)}, estimated in {format_duration(lasted_ns)} of load and not confirmed"
        case "undecided":
            return f"{_capacity(candidate)}, and {_not_found(candidate)}; a longer --time decides more"
        case "infeasible":
            return _infeasible(candidate)
        case "host-bound":
            lowest = min(
                (trial for trial in candidate.searched if trial.host_bound and trial.kind != "refute"),
                key=lambda trial: trial.rate_per_s or 0.0,
            )
            text = f"host-bound at {format_count(lowest.rate_per_s or 0.0)}/s: {lowest.host_bound}"
            if candidate.confirmed_per_s:
                text += f"; at {_rate(candidate, candidate.confirmed_per_s)} the objectives are met"
            return text
    return ""


def _late(candidate: Candidate) -> str:
    """A clause on a generator that was late in the confirming run, which met all the same; "" otherwise."""
    confirming = confirming_run(candidate.trials, candidate.confirmed_per_s)
    problems = confirming.model.problems if confirming is not None else ()
    return f" although {problems[0].evidence}" if problems else ""


def _together(candidate: Candidate) -> str:
    """A clause on a rate at which no run met by itself; "" otherwise."""
    rate = candidate.confirmed_per_s
    trials = [trial for trial in candidate.trials if trial.kind == "confirm" and trial.rate_per_s == rate]
    alone = any(trial.run is not None and trial.run.verdict == "met" for trial in trials)
    return ", by the confirming runs at that rate and above together" if trials and not alone else ""


def _not_found(candidate: Candidate) -> str:
    """Why the search is undecided."""
    if candidate.confirmed_per_s is None:
        return "no rate is confirmed"
    met, missed = candidate.confirmed_per_s, candidate.infeasible_min_per_s or 0.0
    return f"only {_rate(candidate, met)} are confirmed, less than a third of the {format_count(missed)}/s that missed"


def confirming_run(trials: Sequence[Trial], rate: float | None) -> RunResult | None:
    """The last confirming run at that rate; None without one."""
    runs = [trial.run for trial in trials if trial.kind == "confirm" and trial.rate_per_s == rate and trial.run]
    return runs[-1] if runs else None


def _infeasible(candidate: Candidate) -> str:
    """The run with the lowest load that missed an objective, with its share of bad requests."""
    alone = candidate.trials[0]
    items, which, how = _missed(alone), "no rate", "even with one request in flight at a time"
    if not items:
        slowest = min(
            (trial for trial in candidate.searched if _missed(trial)),
            key=lambda trial: trial.rate_per_s or 0.0,
            default=alone,
        )
        rate = f"{format_count(slowest.rate_per_s or 0.0)}/s"
        items, which, how = _missed(slowest), f"no rate from {rate} up", f"at {rate}"
    if not items:
        return "no rate meets the objectives"
    objectives = " or ".join(item.objective.text for item in items)
    return f"{which} meets {objectives}: {how} {', and '.join(map(_why_missed, items))}"


def _missed(trial: Trial) -> list[ObjectiveShare]:
    items = trial.run.model.objectives if trial.run is not None else ()
    return [item for item in items if item.verdict == "missed"]


def _why_missed(item: ObjectiveShare) -> str:
    """The share of bad requests, with the quantile where that is above its bound: else requests are bad that failed."""
    objective, value_ns = item.objective, item.value_ns
    bad, value = "late or failed" if objective.kind == "quantile" else objective.bad_word, ""
    if objective.kind == "quantile" and value_ns is not None and value_ns > objective.limit_ns:
        bad, value = "bad", f", and {objective.quantile} is {format_duration(value_ns)}"
    return f"{100 * (item.bad or 0.0):.3g} % of the requests are {bad}{value}"


def _capacity(candidate: Candidate) -> str:
    known = candidate.low_per_s is not None or candidate.high_per_s is not None
    bounds = between(candidate.low_per_s, candidate.high_per_s, format_count)
    interval = f" (95 %: {bounds})" if known else " (the runs bound it neither from below nor from above)"
    objectives = " and ".join(item.objective.text for item in candidate.objectives)
    return f"about {_rate(candidate, candidate.estimate_per_s)} meet {objectives}{interval}"


def _throughput(candidate: Candidate) -> str:
    """That the objectives do not limit the rate."""
    alone = candidate.trials[0].run
    objectives = " and ".join(item.objective.text for item in (alone.model.objectives if alone else ()))
    bounds = between(candidate.low_per_s, candidate.high_per_s, format_count)
    return (
        f"throughput limits the rate: about {_rate(candidate, candidate.estimate_per_s)} are served (95 %: {bounds}), "
        f"and above that the backlog grows; up to it the simulated queue meets {objectives}, and no trial could tell"
    )


def _rate(candidate: Candidate, rate: float | None) -> str:
    text = f"{format_count(rate or 0.0)} requests/s"
    items = candidate.inferences_per_request
    return text if items == 1 else f"{text} ({format_count((rate or 0.0) * items)} inferences/s)"
