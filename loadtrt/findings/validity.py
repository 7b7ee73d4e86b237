"""Whether a measurement can be trusted: did the generator, the host or the load itself spoil it?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtrt.results.run_result import MetricSummary, Problem
from loadtrt.units import MILLISECOND_NS, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.asked.objective import Objective

LATENESS_SHARE = 0.1  # of the median latency
LATENESS_FLOOR_NS = MILLISECOND_NS // 4
LATENESS_OF_BOUND = 0.05  # of the tightest bound on latency: what so little added hardly decides about
STARVED_LIMIT = 0.05


def lateness_limit_ns(
    metrics: Mapping[str, MetricSummary], closed: bool, wanted: int | None, objectives: Sequence[Objective] = ()
) -> float:
    """The bound on p99 lateness: `--max-lateness`, or the greatest of a tenth of the median latency, a twentieth of the
    tightest objective on latency, and 250 µs.

    A closed loop has none unless asked for: there lateness hides behind the lane's other buffer sets, and where it does
    not, the lane stands idle, which is bounded by STARVED_LIMIT.
    """
    if wanted is not None:
        return wanted
    if closed:
        return math.inf
    bounds_ns = [objective.bound_ns for objective in objectives if objective.metric_name == "latency"]
    median = metrics["latency"].percentiles_ns["p50"] or metrics["latency"].mean_ns or 0.0
    return max(LATENESS_FLOOR_NS, LATENESS_SHARE * median, LATENESS_OF_BOUND * min(bounds_ns, default=0))


def problems_of(
    metrics: Mapping[str, MetricSummary],
    *,
    starved_fraction: float,
    ok: int,
    unserved: int,
    failed: int,
    closed: bool,
    max_lateness_ns: int | None,
    mode: Mapping[str, str],
    objectives: Sequence[Objective] = (),
    interrupted: bool = False,
) -> list[Problem]:
    """Every reason why the numbers do not show the engine alone; empty when they do. mode: the engine's settings."""
    found = []
    late, rank = metrics["lateness"].percentiles_ns["p99"], "at p99"
    if late is None:
        late, rank = metrics["lateness"].max_ns or 0, "at most"
    limit = lateness_limit_ns(metrics, closed, max_lateness_ns, objectives)
    if late > limit:
        found.append(
            Problem(
                evidence=f"the generator was {format_duration(late)} late {rank} (limit {format_duration(limit)})",
                remedy="use --wait spin"
                if mode.get("wait") == "block"
                else "free a core for loadtrt, or lower rate or contexts",
            )
        )
    if starved_fraction > STARVED_LIMIT:
        share, limited = f"{100 * starved_fraction:.0f} %", f"{100 * STARVED_LIMIT:.0f} %"
        several = closed and mode.get("graph") == "yes" and "requests per launch" not in mode
        found.append(
            Problem(
                evidence=f"lanes stood idle for {share} of the time because the host was late (limit {limited})",
                remedy="the engine outruns this host: use more --buffers or larger batches"
                f"{', or for requests of one size --requests-per-launch 4' if several else ''}",
            )
        )
    if unserved and interrupted:
        found.append(
            Problem(
                evidence=f"the run was interrupted and gave up {plural(unserved, 'request')} "
                "(the age then counts as latency)",
                remedy="interrupt it only once: requests in flight are then waited for",
            )
        )
    elif unserved:
        found.append(
            Problem(
                evidence=f"{plural(unserved, 'request')} had not been served when the run ended "
                "(the age then counts as latency)",
                remedy="the load is above capacity, or the engine hangs: lower --rate, or raise --drain",
            )
        )
    if failed:
        found.append(
            Problem(
                evidence=f"{plural(failed, 'request')} failed, and are in no latency",
                remedy="mend the first error before trusting the numbers",
            )
        )
    if not ok and not (failed or unserved):
        early = "the run was interrupted before any request was served"
        found.append(
            Problem(evidence=early, remedy="let it go on for longer")
            if interrupted
            else Problem(evidence="no request was served", remedy="raise --duration or --requests")
        )
    return found
