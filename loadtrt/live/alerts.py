"""What goes wrong while a run goes on: evidence and remedy, as soon as the numbers show it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.findings.validity import LATENESS_FLOOR_NS, LATENESS_SHARE
from loadtrt.records.board import OUTCOMES
from loadtrt.records.histogram import Histogram, bounds_of
from loadtrt.records.records import METRICS
from loadtrt.stats.margin import least_samples
from loadtrt.units import SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from loadtrt.live.run_facts import RunFacts
    from loadtrt.live.telemetry import GpuReading
    from loadtrt.records.board import Snapshot

SILENCE_NS = 3 * SECOND_NS  # the board is written ten times a second, and an engine may hold its process up
_GROWTH_NS = 5 * SECOND_NS
_DEVIATIONS = 3.0
_SLOWDOWNS = {  # of NVML, in words, with what helps
    "sw_power_cap": ("its power limit", "raise the limit (nvidia-smi -pl), or lock lower clocks (nvidia-smi -lgc)"),
    "sw_thermal_slowdown": ("heat", "cool the GPU: look at fans and air flow"),
    "hw_thermal_slowdown": ("heat", "cool the GPU: look at fans and air flow"),
    "hw_power_brake_slowdown": ("the power brake", "look at the host's power supply"),
    "hw_slowdown": ("its board", "look at cooling and power supply"),
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that goes wrong, and what helps."""

    evidence: str
    remedy: str


def alerts_of(
    snapshot: Snapshot, facts: RunFacts, gpu: GpuReading | None, now_ns: int, waited: Sequence[tuple[int, int]]
) -> tuple[Alert, ...]:
    """Everything that is wrong now, the worst first. now_ns: on the clock of the snapshot's instants. waited: (instant,
    requests that waited then), oldest first."""
    return tuple(_alerts(snapshot, facts, gpu, now_ns, waited))


def quantiles_of(counts: npt.NDArray[np.int64], ranks: Sequence[float]) -> list[float]:
    """Values at these ranks, ns, of a histogram whose exact minimum and maximum nobody told. Needs a count."""
    used = np.flatnonzero(counts)[[0, -1]]
    low, width = bounds_of(used)
    histogram = Histogram(counts)
    histogram.min, histogram.max = int(low[0]), int(low[1] + width[1] - 1)
    return histogram.quantiles(ranks)


def _alerts(
    snapshot: Snapshot, facts: RunFacts, gpu: GpuReading | None, now_ns: int, waited: Sequence[tuple[int, int]]
) -> Iterator[Alert]:
    silent_ns = now_ns - snapshot.written_ns
    works = snapshot.phase == "measure" or (snapshot.phase == "drain" and snapshot.in_flight)
    if works and silent_ns > SILENCE_NS:  # a drain that is over is followed by a report, however long that takes
        yield Alert(
            f"nothing heard from the measuring process for {format_duration(silent_ns)}",
            "see whether it still gets a core, and what its engine waits for",
        )
    if snapshot.missed:
        yield Alert(
            f"{plural(snapshot.missed, 'finished request')} not seen in time: the counts here are too low by them",
            "free a core for the observer process; run.json will have them all",
        )
    failed = int(snapshot.outcomes[:, OUTCOMES.index("failed")].sum())
    if failed:
        yield Alert(
            f"{plural(failed, 'request')} failed, and are in no latency",
            "mend the first error before trusting the numbers",
        )
    # Bursts, stages and gaps that vary more fill queues for a while, which is no overload.
    steady = facts.information.get("load", "steady") == "steady"
    if snapshot.phase == "measure" and facts.rate is not None and steady:
        yield from _overload(facts.rate, facts.lanes, waited)
    if facts.rate is not None:
        yield from _late(snapshot, facts)
    if gpu is not None:
        yield from _slowed(gpu)


def _overload(rate: float, lanes: int, waited: Sequence[tuple[int, int]]) -> Iterator[Alert]:
    """A queue that grows by more than chance.

    Law: over T seconds the length of a stable queue changes by a random number of deviation √(λT(c_a² + c_s²)) at most;
    with c_a = c_s = 1 (Poisson arrivals, exponential service) a growth above _DEVIATIONS · √(2λT) is overload.
    """
    if len(waited) < 2:
        return
    (before_ns, before), (last_ns, last) = waited[0], waited[-1]
    span_ns = last_ns - before_ns
    chance = _DEVIATIONS * math.sqrt(2 * rate * span_ns / SECOND_NS)
    if span_ns >= _GROWTH_NS and last > lanes and last - before > chance:
        yield Alert(
            f"{plural(last, 'request')} waiting, {format_count(last - before)} more than {format_duration(span_ns)} "
            "ago: the load is above capacity",
            "lower --rate, or raise --contexts or --batch",
        )


def _late(snapshot: Snapshot, facts: RunFacts) -> Iterator[Alert]:
    names = [metric.name for metric in METRICS]
    lateness, latency = snapshot.counts[names.index("lateness")], snapshot.counts[names.index("latency")]
    if lateness.sum() < least_samples(0.99) or not latency.any():
        return
    late = quantiles_of(lateness, (0.99,))[0]
    limit = max(LATENESS_FLOOR_NS, LATENESS_SHARE * quantiles_of(latency, (0.5,))[0])
    if late > limit:
        blocks = facts.information.get("wait") == "block"
        yield Alert(
            f"the generator is {format_duration(late)} late at p99 (limit {format_duration(limit)})",
            "use --wait spin" if blocks else "free a core for loadtrt, or lower rate or contexts",
        )


def _slowed(gpu: GpuReading) -> Iterator[Alert]:
    known = [_SLOWDOWNS[reason] for reason in _SLOWDOWNS if reason in gpu.slowdowns]
    if known:
        by = " and ".join(dict.fromkeys(cause for cause, _ in known))
        clock = "" if gpu.sm_clock_hertz is None else f" to {format_count(round(gpu.sm_clock_hertz / 1e6))} MHz"
        yield Alert(f"the GPU is slowed{clock} by {by}", known[0][1])
