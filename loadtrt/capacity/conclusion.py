"""A candidate's answer in a sentence, with the numbers that it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.formatting import between
from loadtrt.units import format_count, format_duration

if TYPE_CHECKING:
    from loadtrt.results.capacity_result import Candidate, Trial
    from loadtrt.results.run_result import ObjectiveShare

_NEAR = 0.9  # of the estimate: what is confirmed is not much less


def conclusion(found: Candidate) -> str:
    """What came of the search; "" where there was none, or it is not over."""
    match found.answer:
        case "found":
            far = (found.confirmed_per_s or 0.0) < _NEAR * (found.estimate_per_s or 0.0)
            more = "; a longer --trial confirms more of it" if far else ""
            met = f"{_rate(found, found.confirmed_per_s)} meet {_objectives(found)}{_late(found)}"
            return f"{met}; {_capacity(found)}{more}"
        case "undecided":
            last = found.searched[-1]
            reasons = [item.reason for item in last.run.model.objectives if item.reason] if last.run is not None else []
            why = f": at {format_count(last.rate_per_s or 0.0)}/s {reasons[0]}" if reasons else None
            return f"{_capacity(found)}, and no run confirmed it{why or '; a longer --trial tells more'}"
        case "infeasible":
            return _infeasible(found)
        case "host-bound":
            sentences = [trial.host_bound for trial in found.trials if trial.kind != "ladder" and trial.host_bound]
            met = f"; at {_rate(found, found.confirmed_per_s)} the objectives are met" if found.confirmed_per_s else ""
            return f"host-bound at {format_count(found.host_bound_per_s or 0.0)}/s: {sentences[-1]}{met}"
    return ""


def _late(found: Candidate) -> str:
    """What the generator itself added to the confirming run, where that was too much for any but a run that met."""
    runs = [it.run for it in found.trials if it.kind == "confirm" and it.rate_per_s == found.confirmed_per_s]
    problems = runs[-1].model.problems if runs and runs[-1] is not None else ()
    return f" although {problems[0].evidence}" if problems else ""


def _infeasible(found: Candidate) -> str:
    """The run with the least load that missed an objective, and by how much."""
    alone = found.trials[0]
    item, which, how = _missed(alone), "no rate", "even with one request in flight at a time"
    if item is None:
        slowest = min(
            (trial for trial in found.searched if _missed(trial)),
            key=lambda trial: trial.rate_per_s or 0.0,
            default=alone,
        )
        rate = f"{format_count(slowest.rate_per_s or 0.0)}/s"
        item, which, how = _missed(slowest), f"no rate from {rate} up", f"at {rate}"
    if item is None:
        return "no rate meets the objectives"
    value = f", and {item.objective.quantile} is {format_duration(item.value_ns)}" if item.value_ns is not None else ""
    return f"{which} meets {item.objective}: {how} {100 * (item.bad or 0.0):.3g} % of the requests are bad{value}"


def _missed(trial: Trial) -> ObjectiveShare | None:
    items = trial.run.model.objectives if trial.run is not None else ()
    return next((item for item in items if item.verdict == "missed"), None)


def _capacity(found: Candidate) -> str:
    known = found.low_per_s is not None or found.high_per_s is not None
    interval = f" (95 %: {between(found.low_per_s, found.high_per_s, format_count)})" if known else ""
    return f"the capacity is about {format_count(found.estimate_per_s or 0.0)}/s{interval}"


def _rate(found: Candidate, rate: float | None) -> str:
    text = f"{format_count(rate or 0.0)} requests/s"
    items = found.inferences_per_request
    return text if items == 1 else f"{text} ({format_count((rate or 0.0) * items)} inferences/s)"


def _objectives(found: Candidate) -> str:
    return " and ".join(item.objective.text for item in found.objectives)
