"""Answers that need no open loop: throughput is the limit, or the time is too short for the engine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from loadtrt.sizing.scaling import half_width
from loadtrt.stats.binomial import TAIL
from loadtrt.stats.verdict import LEAST_MET
from loadtrt.units import SECOND_NS, exact_duration, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.objective import Objective
    from loadtrt.results.capacity_result import Trial
    from loadtrt.sizing.outcomes import Share

_SATURATED = 0.99  # predicted rate over the highest throughput, from which the queue is not what limits the rate
# Of the time: a trial lasts 6 % of it, and 5 % above the throughput the last request waits for 5 % of that.
_SHOWN = 0.003
_FEWEST, _ROOM = 30, 5  # requests of an estimate at least; the time to give, over what the fewest requests take


def throughput_limits(
    ladder: Sequence[Trial],
    items: int,
    predicted_per_s: float | None,
    objectives: Sequence[Objective],
    alone: Sequence[Share],
    time_s: float,
) -> dict[str, Any] | None:
    """The highest throughput as the capacity, as fields of a Candidate, where latency is bounded so loosely that the
    queue does not limit the rate: the objectives are met nearly up to that throughput, and no trial above it would show
    them missed, as its backlog grows too slowly. None otherwise.

    items: single requests in each of the last closed loop, which fills the engine.
    alone: the result of each objective with one request in flight.
    """
    bounds_ns = [one.limit_ns for one in objectives if one.metric_name == "latency"]
    others = [share for share, one in zip(alone, objectives, strict=False) if one.metric_name != "latency"]
    last = ladder[-1].run
    most_per_s = items * (last.model.throughput.requests_per_s or 0.0) if last is not None else 0.0
    if predicted_per_s is None or predicted_per_s < _SATURATED * most_per_s:
        return None
    if min(bounds_ns) < _SHOWN * time_s * SECOND_NS or any(share.verdict != "met" for share in others):
        return None
    if any(trial.host_bound for trial in ladder):
        return None
    off = most_per_s * min(half_width(last), 1.0)
    return {"estimate_per_s": most_per_s, "low_per_s": most_per_s - off, "high_per_s": most_per_s + off}


def least_requests(objectives: Sequence[Objective], *, confirms: bool) -> int:
    """The fewest requests that decide the objectives if nothing is bad; for an estimate, as many as show one bad."""
    allowed = min(1 - one.rank for one in objectives)
    if confirms:
        return max(LEAST_MET, math.ceil(math.log(TAIL) / math.log(1 - allowed)))
    return max(_FEWEST, math.ceil(1 / allowed))


def too_short(first: Trial, time_s: float, spent_s: float, rate_per_s: float, needed: int) -> str | None:
    """Why the time is too short for an engine, and which one is not; None where it is enough.

    first: the closed loop with one request in flight.
    spent_s: duration of the closed loops.
    rate_per_s: the first rate to try.
    needed: the fewest requests.
    """
    if (time_s - spent_s) * rate_per_s >= needed:
        return None
    enough_s = spent_s + _ROOM * needed / rate_per_s
    unit_s = 60 if enough_s > 120 else 1
    enough = exact_duration(math.ceil(enough_s / unit_s) * unit_s * SECOND_NS)
    latency_ns = first.run.model.metrics["latency"].mean_ns if first.run is not None else None
    return (
        f"--time is too short for this engine: a request takes {format_duration(latency_ns or 0)}, and "
        f"{format_count(needed)} are needed at least; give --time {enough} or more"
    )
