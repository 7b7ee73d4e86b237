"""Live alerts: the verdict's laws (findings/validity.py, stats/steady.py) applied to the counts so far, and what only
an observer sees. When a run is over, its alerts are the problems of its result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.findings.validity import LATENESS_RANKS, PROBLEM_KINDS, Counts, Terms, problems_of
from loadtrt.records.histogram import Histogram, bounds_of
from loadtrt.records.records import METRICS
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.gpu_telemetry import SLOWDOWNS
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from loadtrt.live.observer import RunFacts
    from loadtrt.records.board import Snapshot
    from loadtrt.results.gpu_telemetry import GpuReading

LAW_KINDS = PROBLEM_KINDS  # the alerts that are laws of the verdict
SILENCE_NS = 3 * SECOND_NS  # the board is written ten times a second, but an engine may hold its process up
_MEASURED = ("measure", "drain", "done")
_PLACE = {metric.name: place for place, metric in enumerate(METRICS)}


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that spoils the run.

    kind: a word for programs: one of LAW_KINDS, "silent", "missed", "throttled" or "lost".
    evidence, remedy: one sentence each.
    """

    kind: str
    evidence: str
    remedy: str


def alerts_of(snapshot: Snapshot, facts: RunFacts, gpu: GpuReading | None, now_ns: int) -> tuple[Alert, ...]:
    """All alerts now, the worst first. now_ns: on the clock of the snapshot's instants."""
    return (*_of_observing(snapshot, now_ns), *law_alerts(snapshot, facts, gpu), *(_slowed(gpu) if gpu else ()))


def law_alerts(snapshot: Snapshot, facts: RunFacts, gpu: GpuReading | None = None) -> tuple[Alert, ...]:
    """The problems that the run would have if it ended now, and whether it is overloaded.

    While it measures, a run with too few requests for a p99 shows failures and others on the GPU only; "no-requests" is
    for the end.
    """
    if snapshot.phase not in _MEASURED:
        return ()
    counts = replace(counts_now(snapshot, facts), sharing=gpu.sharing if gpu else None)
    early = snapshot.phase == "measure" and counts.lateness_rank != "p99"
    alerts = [Alert(problem.kind, problem.evidence, problem.remedy) for problem in problems_of(counts, terms_of(facts))]
    told = counts.unserved or any(alert.kind == "overloaded" for alert in alerts)
    if snapshot.overloaded and not told:  # as in the verdict, where unserved requests show the same
        alerts.append(
            Alert(
                "overloaded",
                f"requests come faster than they are served, and {format_count(snapshot.waiting)} wait",
                "lower the load, or serve more of it: more contexts, or larger batches",
            )
        )
    hidden = set() if snapshot.phase == "done" else {"no-requests"}
    if early:
        hidden = set(LAW_KINDS) - {"failed", "gpu-shared"}
    return tuple(alert for alert in alerts if alert.kind not in hidden)


def terms_of(facts: RunFacts) -> Terms:
    """What was asked of the run, for the laws of validity."""
    return Terms(
        facts.closed,
        facts.max_lateness_ns,
        facts.objectives,
        facts.information,
        facts.rate,
        shared_gpu=facts.shared_gpu,
    )


def counts_now(snapshot: Snapshot, facts: RunFacts) -> Counts:
    """What the laws of validity need, from histograms: within 0.4 % of what the verdict takes from records."""
    lateness, latency = snapshot.counts[_PLACE["lateness"]], snapshot.counts[_PLACE["latency"]]
    late, count = int(lateness.sum()), int(latency.sum())
    rank = next((name for name in LATENESS_RANKS if late >= least_samples(PERCENTILES[name])), "most")
    if count >= least_samples(0.5):
        typical_ns = quantiles_of(latency, (0.5,))[0]
    else:
        typical_ns = int(snapshot.sums_ns[_PLACE["latency"]]) / max(count, 1)
    computes = not facts.device_times or bool(snapshot.counts[_PLACE["compute"], 1:].any())
    ok, failed, unserved, _ = snapshot.outcomes.sum(axis=0).tolist()
    return Counts(
        lateness_ns=quantiles_of(lateness, (PERCENTILES.get(rank, 1.0),))[0] if late else 0.0,
        lateness_rank=rank,
        latency_ns=typical_ns,
        starved_fraction=snapshot.starved_fraction if computes else 0.0,
        ok=ok,
        failed=failed,
        unserved=unserved,
        overloaded=bool(snapshot.overloaded),
        served_per_s=snapshot.served_per_s,
    )


def quantiles_of(counts: npt.NDArray[np.int64], ranks: Sequence[float]) -> list[float]:
    """Values at these ranks, ns, of a histogram's counts, at least one of which is not 0."""
    used = np.flatnonzero(counts)[[0, -1]]
    low, width = bounds_of(used)
    histogram = Histogram(counts)
    histogram.min, histogram.max = int(low[0]), int(low[1] + width[1] - 1)
    return histogram.quantiles(ranks)


def _of_observing(snapshot: Snapshot, now_ns: int) -> Iterator[Alert]:
    silent_ns = now_ns - snapshot.written_ns
    writes = snapshot.phase == "measure" or (snapshot.phase == "drain" and snapshot.in_flight)
    if writes and silent_ns > SILENCE_NS:  # after the drain the report is made, however long that takes
        yield Alert(
            "silent",
            f"the measuring process has not written for {format_duration(silent_ns)}",
            "see whether it still gets a core, and what its engine waits for",
        )
    if snapshot.missed:
        yield Alert(
            "missed",
            f"{plural(snapshot.missed, 'finished request')} not seen in time: the counts here are too low by them",
            "free a core for the observer process; run.json has all requests",
        )


def _slowed(gpu: GpuReading) -> Iterator[Alert]:
    slowdowns = [SLOWDOWNS[reason] for reason in gpu.slowdowns]
    if slowdowns:
        clock = "" if gpu.sm_clock_hertz is None else f" to {format_count(round(gpu.sm_clock_hertz / 1e6))} MHz"
        causes = ", ".join(dict.fromkeys(slowdown.cause for slowdown in slowdowns))
        yield Alert("throttled", f"the GPU is slowed down{clock}: {causes}", slowdowns[0].remedy)
