"""The laws of a VALID run: whether the generator, the host or the load itself spoils the numbers.

The verdict of a finished run, the live alerts, `loadtrt watch` and the exported metrics apply the same functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadtrt.results.gpu_telemetry import clients_text
from loadtrt.results.run_result import Problem
from loadtrt.units import MILLISECOND_NS, format_count, format_duration, format_percent, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.asked.objective import Objective
    from loadtrt.results.breakdown import MetricSummary
    from loadtrt.results.gpu_telemetry import GpuSharing
    from loadtrt.results.run_result import RunResult

LATENESS_RANKS = ("p99", "p95", "p90")  # a median would leave half of the requests to be late
# Every kind of `problems_of`.
PROBLEM_KINDS = ("late", "starved", "unserved", "failed", "no-requests", "overloaded", "gpu-shared")
LATENESS_SHARE = 0.1  # of the median latency
LATENESS_FLOOR_NS = MILLISECOND_NS // 4
LATENESS_OF_BOUND = 0.05  # of the tightest objective on latency
STARVED_LIMIT = 0.05  # of the lanes' time
LEAST_SERVED = 0.95  # of the offered rate, where the backlog grows


@dataclass(frozen=True, slots=True)
class Terms:
    """What was asked of a run.

    max_lateness_ns: the limit set by `--max-lateness`, None for the default one.
    objectives: the run's objectives: those on latency widen the lateness limit, and a load above capacity or failed
        requests are no problem where an objective judges them.
    mode: the engine's settings, for the remedies.
    offered_per_s: the mean arrival rate; None where the load has none.
    faster_host, less_load: remedies of lanes that stood idle and of requests that were not served, which name options
        where it is known which of them the run can take (findings/remedies.py).
    busy: evidence that others use the cores (environment.busy_host), which is the remedy's matter then.
    shared_gpu: whether others may compute on the GPU.
    """

    closed: bool
    max_lateness_ns: int | None = None
    objectives: Sequence[Objective] = ()
    mode: Mapping[str, str] = field(default_factory=dict)
    offered_per_s: float | None = None
    busy: str | None = None
    faster_host: str = "use more --buffers or larger batches"
    less_load: str = "lower the load"
    shared_gpu: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """What is known of a run so far, or at its end.

    lateness_ns: lateness at the highest of LATENESS_RANKS that the requests are enough for, or the maximum, ns.
    lateness_rank: which it is: "p99", or a lower percentile, or "most".
    latency_ns: the median latency, or the mean where the requests are too few for a median, ns.
    starved_fraction: part of the lanes' time spent idle because the host was late, 0 for an engine that takes no time.
    ok, failed, unserved: requests by outcome.
    interrupted: whether the user ended the run.
    broken: whether the engine failed, or was given up.
    overloaded: whether the backlog grew until the end (stats/steady.py).
    served_per_s: throughput, requests a second; None where it is not known.
    sharing: who else used the GPU; None where there is none, or nobody asked.
    none_due: whether this is of a worker of a fleet that was sent no request, which is no fault where none was due.
    """

    lateness_ns: float
    lateness_rank: str
    latency_ns: float
    starved_fraction: float
    ok: int
    failed: int
    unserved: int
    interrupted: bool = False
    broken: bool = False
    overloaded: bool = False
    served_per_s: float | None = None
    sharing: GpuSharing | None = None
    none_due: bool = False


def lateness_limit_ns(
    latency_ns: float, closed: bool, wanted_ns: int | None, objectives: Sequence[Objective] = ()
) -> float:
    """The lateness (`lateness_of`) above which a run is INVALID: `--max-lateness`, or the greatest of a tenth of the
    median latency, a twentieth of the tightest objective on latency, and 250 µs.

    A closed loop has no limit by default: there lateness hides behind a lane's other buffer sets, and where it does not
    hide, the lane is idle, which STARVED_LIMIT bounds.
    """
    if wanted_ns is not None:
        return wanted_ns
    if closed:
        return math.inf
    bounds_ns = [objective.bound_ns for objective in objectives if objective.metric_name == "latency"]
    return max(LATENESS_FLOOR_NS, LATENESS_SHARE * latency_ns, LATENESS_OF_BOUND * min(bounds_ns, default=0))


def limit_of(counts: Counts, terms: Terms) -> float:
    """The lateness limit of this run, ns; infinite where it has none."""
    return lateness_limit_ns(counts.latency_ns, terms.closed, terms.max_lateness_ns, terms.objectives)


def remedy_for(busy: str | None, remedy: str) -> str:
    """The remedy of a host that is late: what else runs has to stop first, where `busy` shows that others use the
    cores, as no option gives these back."""
    return f"{busy}: stop what else runs there, or run on other cores (taskset)" if busy else remedy


def busy_of(result: RunResult) -> str | None:
    """Evidence that others used the cores while the run measured, which its environment keeps; None without."""
    busy = result.environment.get("busy_host")
    return busy if isinstance(busy, str) else None


def typical_ns(summary: MetricSummary) -> float:
    """The median, or the mean where the requests are too few for a median; 0 without any."""
    return summary.percentiles_ns["p50"] or summary.mean_ns or 0.0


def lateness_of(summary: MetricSummary) -> tuple[float, str]:
    """`lateness_ns` and `lateness_rank` of Counts, from the summary of lateness."""
    known = ((summary.percentiles_ns[rank], rank) for rank in LATENESS_RANKS)
    return next(((value, rank) for value, rank in known if value is not None), (summary.max_ns or 0, "most"))


def problems_of(counts: Counts, terms: Terms) -> list[Problem]:
    """Every reason why the numbers do not describe the engine alone, the worst first: requests without an answer, then
    others on the GPU, a late host and too much load. Empty for a VALID run."""
    return [
        *_of_requests(counts, terms),
        *_of_the_gpu(counts, terms),
        *_of_the_host(counts, terms),
        *_of_load(counts, terms),
    ]


def served_share(overloaded: bool | None, served_per_s: float | None, offered_per_s: float | None) -> float | None:
    """Throughput over the offered load where the load was above capacity; None where it was not."""
    share = served_per_s / offered_per_s if overloaded and served_per_s and offered_per_s else 1.0
    return share if share < LEAST_SERVED else None


def _of_load(counts: Counts, terms: Terms) -> Iterator[Problem]:
    """Requests came faster than they were served, and no objective judges that."""
    share = served_share(counts.overloaded, counts.served_per_s, terms.offered_per_s)
    judged = any(objective.judges_overload for objective in terms.objectives)
    if share is not None and not judged and not counts.unserved:
        yield Problem(
            kind="overloaded",
            evidence=f"only {100 * share:.3g} % of the offered load of {format_count(terms.offered_per_s or 0)}/s was "
            "served, and the backlog grew until the end: latencies depend on how long the run lasted",
            remedy=f"lower the load below {format_count(counts.served_per_s or 0)}/s, or add an objective that judges "
            "it, such as --objective 'latency.p99 < 10ms'",
        )


def _of_the_gpu(counts: Counts, terms: Terms) -> Iterator[Problem]:
    """Others computed on the GPU, which is not what was to be measured."""
    computing = counts.sharing.computing if counts.sharing else ()
    if computing and not terms.shared_gpu:
        yield Problem(
            kind="gpu-shared",
            evidence=f"others computed on this GPU meanwhile: {clients_text(computing)}",
            remedy="end them, or take another GPU; where a shared GPU is to be measured, --shared-gpu accepts them",
        )


def _of_the_host(counts: Counts, terms: Terms) -> Iterator[Problem]:
    """The generator was late, or the host left lanes idle."""
    limit_ns = limit_of(counts, terms)
    if counts.lateness_ns > limit_ns:
        late = format_duration(counts.lateness_ns)
        blocks = terms.mode.get("wait") == "block"
        yield Problem(
            kind="late",
            evidence=f"the generator was {late} late at {counts.lateness_rank} (limit {format_duration(limit_ns)})",
            remedy=remedy_for(
                terms.busy, "use --wait spin" if blocks else f"free a core for loadtrt, or {terms.less_load}"
            ),
        )
    if counts.starved_fraction > STARVED_LIMIT:
        share, limit = format_percent(counts.starved_fraction), format_percent(STARVED_LIMIT)
        yield Problem(
            kind="starved",
            evidence=f"lanes were idle for {share} of the time because the host was late (limit {limit})",
            remedy=remedy_for(terms.busy, f"the engine is faster than this host: {terms.faster_host}"),
        )


def _of_requests(counts: Counts, terms: Terms) -> Iterator[Problem]:
    """Requests failed, or were given up, or there were none."""
    if counts.failed and not any(objective.kind == "errors" for objective in terms.objectives):
        yield Problem(
            kind="failed",
            evidence=f"{plural(counts.failed, 'request')} failed, and have no latency",
            remedy="fix the first error before trusting the numbers, or allow some: --objective 'errors < 1%'",
        )
    unserved = plural(counts.unserved, "request")
    if counts.unserved and counts.interrupted:
        yield Problem(
            kind="unserved",
            evidence=f"the run was interrupted and gave up {unserved} (their age counts as latency)",
            remedy="interrupt only once: the run then waits for the requests in flight",
        )
    elif counts.unserved and counts.broken:
        yield Problem(
            kind="unserved",
            evidence=f"{unserved} had not been served when the engine failed (their age counts as latency)",
            remedy="fix the engine's error, which the run's failure names",
        )
    elif counts.unserved:
        yield Problem(
            kind="unserved",
            evidence=f"{unserved} had not been served when the run ended (their age counts as latency)",
            remedy=f"the load is above capacity, or the engine hangs: {terms.less_load}, or raise --drain",
        )
    if not (counts.ok or counts.failed or counts.unserved or (counts.none_due and not counts.broken)):
        evidence, remedy = "no request was served", "measure for longer"
        if counts.interrupted:
            evidence, remedy = "the run was interrupted before any request was served", "interrupt it later"
        elif counts.broken:
            remedy = "fix the engine's error, which the run's failure names"
        yield Problem(kind="no-requests", evidence=evidence, remedy=remedy)
