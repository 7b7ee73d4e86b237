"""What limited a run, and what a reader of its numbers should know: findings with evidence, cause and remedy.

Findings are a pure function of the result. A finding does not make a run INVALID and does not repeat a problem. A
healthy run has none, or only that the engine itself is the limit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtrt.findings.bottlenecks import bottlenecks
from loadtrt.findings.gpu_findings import gpu_findings
from loadtrt.findings.lane_findings import closed_loop, mostly_waits, slow_lane
from loadtrt.findings.log_findings import log_findings
from loadtrt.findings.partitioning import outside_share
from loadtrt.findings.remedies import either, lower_load, more_contexts
from loadtrt.findings.utilization import BUSY
from loadtrt.findings.validity import busy_of, remedy_for
from loadtrt.load.dealing import parse_worker
from loadtrt.results.run_result import Finding
from loadtrt.stats.idle_workers import got_none, idle_workers
from loadtrt.stats.run_length import few_samples, is_offline, longer, whole_seconds
from loadtrt.units import SECOND_NS, format_count, format_duration, plural, rough_percent

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult

DRIFT = 1.05  # ratio of latencies at the end and at the beginning, either way: clocks alone change them by 1 to 3 %
FILLING = 0.05  # of the measured time: a queue that fills faster hardly shows in the numbers
_OF_ALL = ("compute-bound", "unpartitioned")  # said of a GPU that the run has to itself


def findings_of(result: RunResult) -> tuple[Finding, ...]:
    """Findings, the most important first: what devalues other numbers, what limited the run, what the sample size
    supports."""
    if not result.model.ok:
        asked = result.config.worker
        idle = asked is not None and got_none(result.model)
        return (idle_workers(result.config, [result.worker], parse_worker(str(asked))[1]),) if idle else ()
    beside = result.model.together_ns is not None  # beside other models, which use the GPU, too
    busy = result.model.overlap.busy_fraction if result.model.overlap and not beside else None
    findings: list[Finding | None] = [_deviates(result), _overloaded(result), _dropped(result)]
    findings += gpu_findings(result.telemetry, result.sharing, busy, accepted=result.config.shared_gpu)
    throttled = any(finding.kind == "throttled" for finding in findings if finding)
    findings.append(_stall(result))
    if not throttled and not (result.model.steadiness and result.model.steadiness.overloaded):
        findings += _changes(result) or [_unsettled(result)]
    # Then the engine alone is not the limit.
    shared = beside or (result.sharing is not None and bool(result.sharing.computing))
    if result.model.takes_time:
        findings += [found for found in bottlenecks(result) if not (shared and found.kind in _OF_ALL)]
    findings.append(outside_share(result))
    findings += log_findings(result.model.engine, result.config.trt_log)
    findings += [few_samples(result), _inexact(result)]
    return tuple(finding for finding in findings if finding is not None)


def _deviates(result: RunResult) -> Finding | None:
    deviation = result.model.deviation
    if deviation is None or not deviation.beyond or deviation.fault is not None:
        return None
    if not deviation.differs:
        return Finding(
            kind="deviates",
            evidence=f"FP16 cannot hold what the model computes: {deviation.overflow}",
            cause="where nodes compute in FP16 itself, as on a GPU, these numbers are infinite",
            remedy="scale the weights, or take another precision: BF16 has FP32's range",
        )
    return Finding(
        kind="deviates",
        evidence=f"outputs deviate from those of {deviation.reference}: {deviation.text}; rounding in so many nodes "
        f"explains {deviation.tolerance:.2g}",
        cause="the model computes something else in this precision: its speed says nothing about the network",
        remedy="leave FP32 what needs its range (loadtrt profile shows the layers), or take another precision; "
        "--verify-tolerance sets how much is acceptable",
    )


def _overloaded(result: RunResult) -> Finding | None:
    steadiness, rates = result.model.steadiness, result.model.throughput
    if steadiness is None or not steadiness.overloaded or (result.model.unserved and not result.model.ended_early):
        return None
    if any(problem.kind == "overloaded" for problem in result.model.problems):
        return None
    served = format_count(rates.requests_per_s or 0.0) + "/s"
    offered = "more" if rates.offered_per_s is None else f"{format_count(rates.offered_per_s)}/s"
    full = result.model.overlap is not None and result.model.overlap.busy_fraction >= BUSY
    return Finding(
        kind="overloaded",
        evidence=f"the offered load was {offered} and the throughput {served}: the backlog grew until the end",
        cause="the load is above capacity: latencies depend on how long the run lasted, not on the engine's speed",
        remedy=either(lower_load(result.config.model, served), "" if full else more_contexts(result.config.model)),
    )


def _dropped(result: RunResult) -> Finding | None:
    if not result.model.dropped:
        return None
    share = result.model.dropped / (result.model.dropped + result.model.submitted)
    return Finding(
        kind="dropped",
        evidence=f"{plural(result.model.dropped, 'request')} ({rough_percent(share)} of all) came due while "
        f"{result.config.model.max_queue} waited, and were dropped",
        cause="the queue was full; latencies cover only the other requests, which therefore waited less",
        remedy=either(lower_load(result.config.model), more_contexts(result.config.model), "a larger --max-queue"),
    )


def _stall(result: RunResult) -> Finding | None:
    stall = result.model.steadiness.stall if result.model.steadiness else None
    if stall is None or not result.model.takes_time:
        return None
    if stall.lane is not None and slow_lane(result):  # one that is always slow has not stalled
        return None
    when = f"for {format_duration(stall.longest_ns)} from {format_duration(stall.start_ns)} on"
    if stall.times > 1:
        more = plural(stall.times - 1, "shorter time")
        when += f", and {more}, for {format_duration(stall.total_ns)} in all"
    if stall.period_ns is not None:
        when += f", every {format_duration(stall.period_ns)}"
    which = "no request completed" if stall.lane is None else f"lane {stall.lane} completed no request"
    if stall.host:
        cause = "loadtrt itself did not run: another process had its core, or the machine was paused"
    elif result.model.engine.kind == "onnxruntime":
        cause = "the engine's threads did not run: other processes had the cores"
    else:
        cause = "the device did other work, or changed its clocks"
    if not stall.host and stall.period_ns is None and (stall.lane is not None or len(result.model.lanes) == 1):
        cause += "; or single requests took that long"  # with one lane these look the same
    answered = result.model.ok + result.model.failed
    free = f"{remedy_for(busy_of(result), 'free a core for loadtrt')}; " if stall.host else ""
    return Finding(
        kind="stall",
        evidence=f"{which} {when}, while requests waited: "
        f"{plural(stall.late, 'request')} ({rough_percent(stall.late / answered)}) were delayed",
        cause=cause,
        remedy=f"{free}'loadtrt report RUN.json -o run.trace.json' shows "
        f"the requests around the slowest; {longer(result, _thrice(result))} shows whether it happens again",
    )


def _changes(result: RunResult) -> list[Finding | None]:
    """What made a part of the run differ from the rest. A slow part explains a filling queue and a drift in an open
    loop; a cold start, or any change in a closed loop, explains a slow part."""
    slow, cold = _slow(result), _began(result)[1] > 1
    changes = [finding for finding in (_transient(result), _drift(result)) if finding is not None]
    return [slow] if slow is not None and not (cold or (changes and closed_loop(result))) else [*changes]


def _slow(result: RunResult) -> Finding | None:
    steadiness = result.model.steadiness
    slow = steadiness.slow if steadiness else None
    if steadiness is None or slow is None:
        return None
    more = (slow.expected_per_s - slow.served_per_s) * (slow.end_ns - slow.start_ns) / SECOND_NS
    if steadiness.stall is not None and slow.expected_per_s * steadiness.stall.total_ns / SECOND_NS > more / 2:
        return None  # the stall explains the slow part
    at_start = slow.start_ns < slow.end_ns / 100
    end = format_duration(slow.end_ns)
    when = f"in the first {end}" if at_start else f"from {format_duration(slow.start_ns)} to {end}"
    expected, served = (f"{format_count(rate)}/s" for rate in (slow.expected_per_s, slow.served_per_s))
    if slow.service_ratio is not None:
        evidence = f"{when} service times were {_apart(slow.service_ratio)} in the rest of the run"
    elif closed_loop(result) or is_offline(result):
        if slow.expected_per_s < DRIFT * slow.served_per_s:
            return None
        less = f"{100 * (1 - slow.served_per_s / slow.expected_per_s):.0f} % less than in the whole run"
        evidence = f"{when} {served} were served, {less}"
    else:
        evidence = f"{when} {expected} arrived and {served} were served: "
        evidence += f"the backlog grew by {format_count(round(more))}"
        if slow.over_ns is not None:
            evidence += f", and was gone after {format_duration(slow.over_ns)}"
    steady = result.config.model.load.steady_rate or slow.service_ratio is not None
    rest = "in the rest " if slow.word == "fast" else ""
    return Finding(
        kind="slow-part",
        evidence=evidence,
        cause=f"the device was slower {rest}(clocks, heat), or other work used the device or the host"
        if steady
        else "requests arrived faster than the lanes serve them: latencies depend on how long that lasted",
        remedy=f"look for other work at that time; {longer(result, _thrice(result))} shows whether it happens again"
        if steady
        else either(lower_load(result.config.model), more_contexts(result.config.model)),
    )


def _transient(result: RunResult) -> Finding | None:
    """A cold start; or, where the first latencies are shorter, a queue that fills. A longer warm-up does not help a
    queue, as it is drained before measuring."""
    lasted, ratio = _began(result)
    warmup = result.config.warmup
    if ratio > 1:
        cause = "the engine, its clocks or its caches were still warming up"
        remedy = f"--warmup {whole_seconds(warmup + 2 * lasted)} (it is {format_duration(warmup)})"
    elif ratio < 1 and not closed_loop(result) and lasted >= FILLING * result.phases.measure_ns:
        cause = "the queue is empty when measuring begins, and needs that time to fill"
        remedy = longer(result, lasted / FILLING / SECOND_NS)
    else:
        return None
    evidence = f"in the first {format_duration(lasted)} latencies were {_apart(ratio)} later"
    return Finding(kind="transient", evidence=evidence, cause=cause, remedy=remedy)


def _drift(result: RunResult) -> Finding | None:
    lasted, began = _began(result)
    ratio = result.model.steadiness.drift_ratio if result.model.steadiness else None
    if ratio is not None and abs(math.log(ratio)) >= math.log(DRIFT):
        evidence = f"in the last quarter of the run latencies were {_apart(ratio)} in the first"
    elif closed_loop(result) and began < 1:
        evidence = f"in the first {format_duration(lasted)} latencies were {_apart(began)} later"
    else:
        return None
    blind = result.model.engine.kind == "tensorrt" and not result.config.telemetry
    return Finding(
        kind="drift",
        evidence=evidence,
        cause="near capacity queueing delays fluctuate more slowly than this run lasted"
        if mostly_waits(result)
        else "the device's speed changed (clocks, heat), or other work started or ended",
        remedy=f"{longer(result, _thrice(result))} shows where latency settles"
        f"{', and a run without --no-telemetry shows the clocks' if blind else ''}",
    )


def _unsettled(result: RunResult) -> Finding | None:
    if result.phases.clocks_settled is not False:
        return None
    lasted = result.phases.warmup_ns
    return Finding(
        kind="clocks-unsettled",
        evidence=f"the SM clock still changed after a warm-up of {format_duration(lasted)}",
        cause="the GPU's clocks had not settled when measuring began",
        remedy=f"--warmup {whole_seconds(2 * lasted)}, or locked clocks (nvidia-smi -lgc)",
    )


def _inexact(result: RunResult) -> Finding | None:
    if result.model.percentiles_exact:
        return None
    return Finding(
        kind="not-exact",
        evidence=f"{plural(result.model.metrics['latency'].count, 'request')} are more than the records that are kept",
        cause="percentiles come from histograms, within 0.4 %; lanes and phases describe the kept records",
        remedy="none is needed; a shorter run has exact percentiles",
    )


def _began(result: RunResult) -> tuple[int, float]:
    """(duration of the initial transient, ns, latency in it over latency after it); (0, 1) without a transient."""
    steadiness = result.model.steadiness
    if steadiness is None or not steadiness.transient_ns or steadiness.transient_ratio is None:
        return 0, 1.0
    return steadiness.transient_ns, steadiness.transient_ratio


def _thrice(result: RunResult) -> float:
    """Three times the measured time, s."""
    return 3 * result.phases.measure_ns / SECOND_NS


def _apart(ratio: float) -> str:
    """ "30 % longer than", "2.5 times as long as", "20 % shorter than"."""
    if ratio >= 2:
        return f"{ratio:.1f} times as long as"
    return f"{100 * (ratio - 1):.0f} % longer than" if ratio > 1 else f"{100 * (1 - ratio):.0f} % shorter than"
