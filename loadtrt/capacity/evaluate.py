"""What a run of a search tells: the shares of its objectives, and whether the generator spoiled it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.capacity.search import Share
from loadtrt.measure.validity import STARVED_LIMIT, lateness_limit_ns
from loadtrt.units import format_duration

if TYPE_CHECKING:
    from loadtrt.measure.result import RunResult


def shares_of(run: RunResult) -> tuple[Share, ...]:
    """A share for each objective. A run in which nothing was due tells nothing."""
    return tuple(
        Share(1 - item.good / item.requests, item.effective or 0.0, item.verdict or "undecided")
        if item.requests
        else Share(0.0, 0.0, "undecided")
        for item in run.objectives
    )


def failure_of(run: RunResult) -> str | None:
    """Why an engine is not to be asked any further: it broke, or its outputs under load are wrong."""
    checked = run.verification
    if run.failure is None and checked is not None and checked.different:
        return f"{checked.different} of {checked.outputs} outputs under load differ from those of a quiet run"
    return run.failure


def host_bound(run: RunResult, max_lateness_ns: int | None) -> str | None:
    """Why the generator was the bottleneck, by the bounds of VALID (measure/validity.py) on the highest percentile of
    lateness up to p99 that the run supports, as one late request among few is no rule. None where it was not.

    A run may be INVALID for other reasons: what was not served in time, or failed, is bad, and the engine's doing."""
    known = [
        item for item in run.metrics["lateness"].percentiles_ns.items() if item[0] != "p99.9" and item[1] is not None
    ]
    objectives = [item.objective for item in run.objectives]
    limit = lateness_limit_ns(run.metrics, run.config["arrivals"] == "closed", max_lateness_ns, objectives)
    if known and (known[-1][1] or 0.0) > limit:
        name, late = known[-1]
        return f"the generator was {format_duration(late or 0.0)} late at {name} (limit {format_duration(limit)})"
    if run.metrics["compute"].max_ns and run.starved_fraction > STARVED_LIMIT:
        return f"lanes stood idle for {100 * run.starved_fraction:.0f} % of the time because the host was late"
    return None
