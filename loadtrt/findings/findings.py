"""What bound a run, and what its reader should know: every finding, with its evidence, its cause and what to do.

A pure function of the result, so that files from before there were findings have them, too. A finding makes no run
INVALID and repeats none of its problems; a healthy run has none, or the good news that the engine itself is the limit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtrt.asked.load import Offline, Stages, Trace
from loadtrt.findings.bottlenecks import BUSY, bottlenecks, closed_loop, mostly_waits
from loadtrt.findings.gpu_findings import gpu_findings
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.run_result import Finding
from loadtrt.stats.margin import least_samples
from loadtrt.units import SECOND_NS, exact_duration, format_count, format_duration, plural

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult

DRIFT = 1.05  # latencies at the end over those at the beginning, or the other way round: clocks alone move by 1 to 3 %
FILLING = 0.05  # of the measured time: a queue that fills for less hardly shows in the numbers

_MORE = 1.2  # than is needed: Poisson arrivals vary


def findings_of(result: RunResult) -> tuple[Finding, ...]:
    """The weightiest first: what makes other numbers moot, what bound the run, how far the sample reaches."""
    if not result.model.ok:
        return ()
    busy = result.model.overlap.busy_fraction if result.model.overlap else None
    found: list[Finding | None] = [_overloaded(result), _dropped(result)]
    found += gpu_findings(result.telemetry, busy) if result.telemetry else ()
    explained = any(it.kind == "throttled" for it in found if it) or (
        result.model.steadiness and result.model.steadiness.overloaded
    )
    found.append(_stall(result))
    if not explained:
        found += _changes(result) or [_unsettled(result)]
    found += [*bottlenecks(result), _few(result), _inexact(result)]
    return tuple(finding for finding in found if finding is not None)


def _overloaded(result: RunResult) -> Finding | None:
    steadiness, rates = result.model.steadiness, result.model.throughput
    if steadiness is None or not steadiness.overloaded or (result.model.unserved and not result.model.ended_early):
        return None
    served = format_count(rates.requests_per_s or 0.0) + "/s"
    offered = (
        "more was offered" if rates.offered_per_s is None else f"{format_count(rates.offered_per_s)}/s were offered"
    )
    full = result.model.overlap is not None and result.model.overlap.busy_fraction >= BUSY
    return Finding(
        kind="overloaded",
        evidence=f"{offered} and {served} served: the backlog grew to the end",
        cause="latencies say how long the run lasted rather than how fast the engine is",
        remedy=_lower(result, served) + ("" if full else ", or more --contexts"),
    )


def _dropped(result: RunResult) -> Finding | None:
    if not result.model.dropped:
        return None
    share = result.model.dropped / (result.model.dropped + result.model.submitted)
    return Finding(
        kind="dropped",
        evidence=f"{plural(result.model.dropped, 'request')}, {100 * share:.2g} % of all, came due while "
        f"{result.config.model.max_queue} waited, and were dropped",
        cause="latencies are of the others, which waited the less for it",
        remedy=f"{'' if _offline(result) else f'{_lower(result)}, '}more --contexts, or a larger --max-queue",
    )


def _stall(result: RunResult) -> Finding | None:
    stall = result.model.steadiness.stall if result.model.steadiness else None
    if stall is None or not result.model.metrics["compute"].max_ns:
        return None
    again = f"for {format_duration(stall.longest_ns)} from {format_duration(stall.start_ns)} on"
    if stall.times > 1:
        more = plural(stall.times - 1, "shorter time")
        again += f", and {more}, for {format_duration(stall.total_ns)} in all"
    if stall.host:
        cause = "loadtrt itself stood still: another process had its core, or the machine was paused"
    elif result.model.engine.kind == "onnxruntime":
        cause = "the engine's threads stood still: other processes had the cores, or one request took that long"
    else:
        cause = "the device stood still: other work, a change of its clocks, or one request that took that long"
    answered = result.model.ok + result.model.failed
    return Finding(
        kind="stall",
        evidence=f"nothing was answered {again}, while requests waited: "
        f"{plural(stall.late, 'request')} ({100 * stall.late / answered:.2g} %) were late by it",
        cause=cause,
        remedy=f"{'free a core for loadtrt; ' if stall.host else ''}'loadtrt report RUN.json -o run.trace.json' shows "
        f"the requests around the slowest, and {_longer(result, _thrice(result))} whether it comes again",
    )


def _changes(result: RunResult) -> list[Finding | None]:
    """What made a part of the run unlike the rest. A queue that rose was not filling, and drifts nowhere; in a closed
    loop a part is slow where neither the beginning nor the end is."""
    cold, slow = _cold(result), _slow(result)
    changes = [it for it in (cold, _filling(result), _drift(result)) if it is not None]
    return [slow] if slow is not None and not (cold or (changes and closed_loop(result))) else [*changes]


def _slow(result: RunResult) -> Finding | None:
    steadiness = result.model.steadiness
    slow = steadiness.slow if steadiness else None
    if steadiness is None or slow is None:
        return None
    more = (slow.expected_per_s - slow.served_per_s) * (slow.end_ns - slow.start_ns) / SECOND_NS
    if steadiness.stall is not None and slow.expected_per_s * steadiness.stall.total_ns / SECOND_NS > more / 2:
        return None  # it is the stall
    began = slow.start_ns < slow.end_ns / 100
    end = format_duration(slow.end_ns)
    when = f"in the first {end}" if began else f"from {format_duration(slow.start_ns)} to {end}"
    expected, served = (f"{format_count(rate)}/s" for rate in (slow.expected_per_s, slow.served_per_s))
    if closed_loop(result) or _offline(result):
        if slow.expected_per_s < DRIFT * slow.served_per_s:
            return None
        less = f"{100 * (1 - slow.served_per_s / slow.expected_per_s):.0f} % less than in the whole run"
        evidence = f"{when} {served} were served, {less}"
    else:
        gone = "" if slow.over_ns is None else f", the last until {format_duration(slow.over_ns)}"
        evidence = (
            f"{when} {expected} came and {served} were served: {format_count(round(more))} more waited then{gone}"
        )
    steady = result.config.model.load.steady_rate
    return Finding(
        kind="slow-part",
        evidence=evidence,
        cause="the device was slower then (clocks, heat), or other work took its time or the host's"
        if steady
        else "more came then than the lanes serve: latencies say how long that lasted",
        remedy=f"look at what else ran then; {_longer(result, _thrice(result))} shows whether it comes again"
        if steady
        else f"{_lower(result)}, or more --contexts",
    )


def _cold(result: RunResult) -> Finding | None:
    lasted, ratio = _began(result)
    if ratio <= 1:
        return None
    warmup = result.config.warmup
    return Finding(
        kind="transient",
        evidence=f"in the first {format_duration(lasted)} latencies were {_apart(ratio)} later",
        cause="the engine, its clocks or its caches were still warming up",
        remedy=f"--warmup {_seconds(warmup + 2 * lasted)} (it is {format_duration(warmup)})",
    )


def _filling(result: RunResult) -> Finding | None:
    """A queue: no warm-up helps, since it is drained before measuring."""
    lasted, ratio = _began(result)
    if closed_loop(result) or ratio >= 1 or lasted < FILLING * result.phases.measure_ns:
        return None
    return Finding(
        kind="transient",
        evidence=f"in the first {format_duration(lasted)} latencies were {_apart(ratio)} later",
        cause="the queue is empty when measuring begins, and takes its time to fill",
        remedy=_longer(result, lasted / FILLING / SECOND_NS),
    )


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
        cause="near capacity queues wander for longer than this run lasted"
        if mostly_waits(result)
        else "the device changes as it runs (clocks, heat), or other work came or went",
        remedy=f"{_longer(result, _thrice(result))} shows where it settles"
        f"{', and no --no-telemetry the clocks' if blind else ''}",
    )


def _unsettled(result: RunResult) -> Finding | None:
    if result.phases.clocks_settled is not False:
        return None
    lasted = result.phases.warmup_ns
    return Finding(
        kind="clocks-unsettled",
        evidence=f"the SM clock still changed after a warm-up of {format_duration(lasted)}",
        cause="the GPU had not found its clocks when measuring began",
        remedy=f"--warmup {_seconds(2 * lasted)}, or locked clocks (nvidia-smi -lgc)",
    )


def _few(result: RunResult) -> Finding | None:
    """p99.9 is no part of it: a dash in the table is enough for who does not ask for it."""
    latency = result.model.metrics["latency"]
    supported = [name for name in PERCENTILES if latency.percentiles_ns[name] is not None]
    if "p99" in supported or result.outcome != "completed" or result.model.ended_early:
        return None
    needed = least_samples(PERCENTILES["p99"])
    seconds = _MORE * needed / latency.count * result.phases.measure_ns / SECOND_NS if latency.count else 0.0
    tell, above = "tells" if latency.count == 1 else "tell", f" above {supported[-1]}" if supported else ""
    return Finding(
        kind="few-samples",
        evidence=f"{plural(latency.count, 'request')} {tell} no percentile{above}; p99 needs {needed}",
        cause="with fewer, even the slowest may still be faster than the true p99",
        remedy=_as_many(result, needed) if _counted(result) else _longer(result, seconds),
    )


def _as_many(result: RunResult, needed: int) -> str:
    """How to have so many requests served where their number is given. Offline all are due at once, and more than the
    queue takes are dropped however many there are."""
    if _offline(result) and result.model.dropped:
        more = "" if (result.config.model.requests or 0) >= needed else f" with --requests {needed}"
        return f"a larger --max-queue{more}"
    return f"--requests {math.ceil(needed * (result.model.ok + result.model.dropped) / result.model.ok)}"


def _inexact(result: RunResult) -> Finding | None:
    if result.model.percentiles_exact:
        return None
    return Finding(
        kind="not-exact",
        evidence=f"{plural(result.model.metrics['latency'].count, 'request')} are more than are kept one by one",
        cause="percentiles are from histograms, and within 0.4 %; lanes and phases are of the first that were kept",
        remedy="nothing is wrong with that; a shorter run is exact",
    )


def _began(result: RunResult) -> tuple[int, float]:
    """(how long its beginning was different, ns, latencies then over those later); (0, 1) where it was not."""
    steadiness = result.model.steadiness
    if steadiness is None or not steadiness.transient_ns or steadiness.transient_ratio is None:
        return 0, 1.0
    return steadiness.transient_ns, steadiness.transient_ratio


def _offline(result: RunResult) -> bool:
    return isinstance(result.config.model.load, Offline)


def _lower(result: RunResult, than: str = "") -> str:
    if isinstance(result.config.model.load, Stages):
        return "lower rates in --stages"
    if isinstance(result.config.model.load, Trace):
        return "a larger --time-scale"
    return f"a --rate below {than}" if than else "a lower --rate"


def _longer(result: RunResult, seconds: float) -> str:
    """How to measure for so long, by what says how long it is."""
    config, load = result.config, result.config.model.load
    if config.max_duration is not None and config.duration is None:
        return f"--max-duration {_seconds(seconds * SECOND_NS)}"
    if isinstance(load, Stages):
        return f"--stages that last {_seconds(seconds * SECOND_NS)}"
    if type(load) is Trace:
        return f"--trace-loop --duration {_seconds(seconds * SECOND_NS)}"
    if _counted(result):
        rate = result.model.throughput.requests_per_s or 0.0
        return f"--requests {max(round(rate * seconds), 1)}"
    return f"--duration {_seconds(seconds * SECOND_NS)}"


def _thrice(result: RunResult) -> float:
    """Three times as long as it measured, s."""
    return 3 * result.phases.measure_ns / SECOND_NS


def _counted(result: RunResult) -> bool:
    """Whether the run was as long as its number of requests."""
    config = result.config
    return config.model.requests is not None and config.duration is None and config.max_duration is None


def _seconds(ns: float) -> str:
    """Rounded up to whole seconds, as an option takes it."""
    return exact_duration(max(math.ceil(ns / SECOND_NS), 1) * SECOND_NS)


def _apart(ratio: float) -> str:
    """ "30 % longer than", "2.5 times as long as", "20 % shorter than"."""
    if ratio >= 2:
        return f"{ratio:.1f} times as long as"
    return f"{100 * (ratio - 1):.0f} % longer than" if ratio > 1 else f"{100 * (1 - ratio):.0f} % shorter than"
