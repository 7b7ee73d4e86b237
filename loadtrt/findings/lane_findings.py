"""What a run's lanes and the queue before them show: delay, turns, interference and unequal shares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtrt.asked.load import Offline
from loadtrt.findings.remedies import either, lower_load, more_contexts
from loadtrt.findings.utilization import BUSY, FULL, buffer_sets, mean_ns
from loadtrt.results.run_result import Finding
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from loadtrt.findings.utilization import Utilization
    from loadtrt.results.breakdown import Lane
    from loadtrt.results.run_result import RunResult

WAITING = 0.6  # of the latency: a single lane at 75 % load with constant service times, at 60 % with exponential ones
FREE = 0.5  # of the lanes' time: below it a lane is mostly free when a request arrives
TURNS = 0.85  # of the time: a device that computes more, one lane at a time, is nearly full
IN_TURN = 1.1  # lanes computing at the same time
ALONE = 0.75  # of the work of as many devices: contexts that share a device do less
UNFAIR = 0.95  # Jain's index: one of two lanes serves 1.6 times as much as the other
SLOWER = 1.2  # ratio of median service times: lanes whose shares differ by chance are equally fast


def lane_findings(result: RunResult, use: Utilization) -> list[Finding]:
    """Findings, the most important first."""
    found = (_queue(result), _in_turn(result), _interference(result), _unfair(result, use))
    return [finding for finding in found if finding is not None]


def closed_loop(result: RunResult) -> bool:
    """Whether a request is due when its predecessor completes."""
    return result.config.model.load.closed


def mostly_waits(result: RunResult) -> bool:
    """Whether the loop is open and queueing delay is most of a typical latency."""
    latency, waiting = _waiting(result)
    return not closed_loop(result) and not isinstance(result.config.model.load, Offline) and waiting > WAITING * latency


def _queue(result: RunResult) -> Finding | None:
    """Queueing delay of typical requests, as a single stall raises the mean, too; without the generator's lateness."""
    steadiness = result.model.steadiness
    if result.model.unserved or not mostly_waits(result):
        return None
    if steadiness is not None and (steadiness.overloaded or steadiness.slow is not None):
        return None
    latency, waiting = _waiting(result)
    load, batching = result.config.model.load, result.config.model.batching
    uneven = not load.steady or (load.cv or 0.0) > 1
    delay_ns = batching.delay_ns if batching else 0
    overlap, shorter = result.model.overlap, "a shorter delay= in --batcher"
    evidence = f"of a typical latency of {format_duration(latency)}, {format_duration(waiting)} is queueing delay"
    if delay_ns and overlap and overlap.busy_fraction * overlap.lanes_computing < FREE * len(result.model.lanes):
        return Finding(
            kind="queue-bound",
            evidence=f"{evidence}, while lanes are mostly idle",
            cause=f"requests wait for a batch to fill, up to the batcher's delay of {format_duration(delay_ns)}",
            remedy=shorter,
        )
    full = overlap is not None and overlap.busy_fraction >= BUSY
    contexts = "" if full else more_contexts(result.config.model)
    remedies = either(shorter if delay_ns else "", lower_load(result.config.model), contexts)
    return Finding(
        kind="queue-bound",
        evidence=evidence,
        cause="requests arrive unevenly, at times faster than the lanes serve them"
        if uneven
        else "at this rate the lanes are often busy when a request arrives",
        remedy=f"{remedies}; 'loadtrt capacity' finds the highest rate that meets an objective",
    )


def _in_turn(result: RunResult) -> Finding | None:
    contexts, overlap = len(result.model.lanes), result.model.overlap
    if contexts < 2 or overlap is None or not closed_loop(result):
        return None
    if overlap.lanes_computing >= IN_TURN or overlap.busy_fraction < TURNS:
        return None
    return Finding(
        kind="contexts-in-turn",
        evidence=f"of {plural(contexts, 'context')}, {overlap.lanes_computing:.2f} compute at the same time on average",
        cause="contexts take turns on the device instead of sharing it",
        remedy="--contexts 1 has the same throughput at a lower latency",
    )


def _interference(result: RunResult) -> Finding | None:
    """Compared with the inference time of the run's own profile (--profile), where an inference has the device
    alone."""
    contexts, known = len(result.model.lanes), result.model.metrics.get("compute")
    compute = known and known.percentiles_ns["p50"]
    mode = {"yes": "graph", "no": "plain"}.get(result.model.engine.mode.get("graph", ""))
    passes = result.model.profile.passes if result.model.profile is not None else ()
    alone = next((one.inference_ns for one in passes if one.inference_ns and mode in (None, one.mode)), None)
    if contexts < 2 or not closed_loop(result) or not compute or alone is None:
        return None
    work = contexts * alone / compute
    if work >= ALONE * contexts:
        return None
    fewer = min(math.ceil(work), contexts - 1)
    return Finding(
        kind="interference",
        evidence=f"compute takes {format_duration(alone)} alone and {format_duration(compute)} in this run: "
        f"{contexts} contexts do the work of {work:.1f}",
        cause="contexts share the device and slow each other down",
        remedy=f"--contexts 1 has {100 / work:.0f} % of the throughput at a lower latency"
        if fewer == 1
        else f"--contexts {fewer} should have nearly the same throughput at a lower latency",
    )


def slow_lane(result: RunResult) -> tuple[Lane, Lane] | None:
    """The slowest lane of an unfair engine, and the fastest; None where all are served alike."""
    lanes = [lane for lane in result.model.lanes if lane.service_p50_ns]
    if len(lanes) < 2 or result.model.fairness is None or result.model.fairness >= UNFAIR:
        return None
    slow = max(lanes, key=lambda lane: lane.service_p50_ns or 0)
    fast = min(lanes, key=lambda lane: lane.service_p50_ns or 0)
    return (slow, fast) if (slow.service_p50_ns or 0) >= SLOWER * (fast.service_p50_ns or 0) else None


def _unfair(result: RunResult, use: Utilization) -> Finding | None:
    pair = slow_lane(result)
    if pair is None:
        return None
    slow, fast = pair
    cause = "lanes of one engine do the same work: something slows this one down, or the device prefers another"
    remedy = "--contexts 1 shows how fast a lane is alone; look for other work on the device"
    if use.link >= FULL and (sets := buffer_sets(result)) > 1:
        cause = "the device goes on with the copies of one lane while that lane has more of them waiting"
        remedy = f"--buffers {sets - 1}: fewer copies of a lane wait, so that lanes take turns"
    return Finding(
        kind="unfair",
        evidence=f"lane {slow.lane} served {plural(slow.requests, 'request')} at a median of "
        f"{format_duration(slow.service_p50_ns or 0)}, lane {fast.lane} {format_count(fast.requests)} at "
        f"{format_duration(fast.service_p50_ns or 0)}",
        cause=cause,
        remedy=remedy,
    )


def _waiting(result: RunResult) -> tuple[float, float]:
    """(latency, queueing delay in the queue and in the lane, without lateness), ns, of requests around the median, or
    of all where the median's cohort is not known. Without device times only the delay in the queue is known."""
    late, typical = mean_ns(result, "lateness"), result.model.cohorts.get("p50")
    timed = result.model.engine.device_times
    if typical is not None:
        return typical.latency_ns, typical.queue_ns + (typical.other_ns if timed else 0.0) - late
    latency, served = mean_ns(result, "latency"), ("h2d", "compute", "d2h") if timed else ("service",)
    return latency, latency - late - sum(mean_ns(result, name) for name in served)
