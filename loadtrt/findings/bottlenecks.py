"""What limited a run: the host that enqueues, the copies, the queue before the lanes, or the engine itself.

Each rule maps a result to a finding or None. A remedy names only what is not in use yet.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtrt.asked.load import Offline
from loadtrt.findings.partitioning import unpartitioned
from loadtrt.findings.validity import STARVED_LIMIT, busy_of, remedy_for, typical_ns
from loadtrt.results.run_result import Finding
from loadtrt.units import SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult

ENQUEUE = 0.8  # of a core, or of the compute time: where trtexec says "may be bound by Enqueue Time"
SHORT = 0.25  # enqueue over compute: one thread then keeps four lanes computing at most
EXPOSED = 0.05  # of the device time, which a second buffer set would hide
STARVED = STARVED_LIMIT / 2  # of the time; above STARVED_LIMIT it is a problem
LATE = 0.1  # of the mean latency, as the lateness limit is a tenth of the median latency
CORE = 0.9  # of the one core that the enqueuing thread can use
WAITING = 0.6  # of the latency: a single lane at 75 % load with constant service times, at 60 % with exponential ones
BUSY = 0.95  # of the time: the rest is the start and the end of the run
IDLE = 0.85  # of the time: a device that computes more is nearly full
FREE = 0.5  # of the lanes' time: below it a lane is mostly free when a request arrives
IN_TURN = 1.1  # lanes computing at the same time
ALONE = 0.75  # of the work of as many devices: contexts that share a device do less
UNFAIR = 0.95  # Jain's index: one of two lanes serves 1.6 times as much as the other
SLOWER = 1.2  # ratio of median service times: lanes whose shares differ by chance are equally fast
_REAL = ("tensorrt", "onnxruntime")  # the limits of a simulated device are its parameters


def bottlenecks(result: RunResult) -> list[Finding]:
    """Findings, the most important first. An engine that takes no time has none: it measures the load generator."""
    if not result.model.metrics["compute"].max_ns:
        return []
    limits = [_enqueue(result), _copies(result), _exposed(result), _host(result)]
    rules = [*limits, _no_graph(result), _queue(result), _in_turn(result), _interference(result), _unfair(result)]
    rules += [_short(result)] if limits[0] is None else []
    if not any(limits) and not _has(result, "starved"):
        rules += [_busy(result), unpartitioned(result)]
    return [finding for finding in rules if finding is not None]


def mostly_waits(result: RunResult) -> bool:
    """Whether the loop is open and queueing delay is most of a typical latency."""
    latency, waiting = _waiting(result)
    return not closed_loop(result) and not isinstance(result.config.model.load, Offline) and waiting > WAITING * latency


def _enqueue(result: RunResult) -> Finding | None:
    enqueue, compute = _typical(result, "enqueue"), _typical(result, "compute")
    requests = result.config.model.requests_per_launch
    enqueues_per_s = (result.model.throughput.requests_per_s or 0.0) / (
        result.model.batches.mean if result.model.batches else requests
    )
    core = enqueues_per_s * _mean(result, "enqueue") / SECOND_NS
    if max(core, enqueue / (requests * compute)) < ENQUEUE:
        return None
    remedy = f"{_larger(result)} does more work in each enqueue"
    if result.model.engine.mode.get("graph") == "no":
        remedy += "; the engine's note says why there is no CUDA graph"
        if not result.config.model.graph:
            remedy = "remove --no-graph: a CUDA graph is enqueued in one call"
    return Finding(
        kind="enqueue-bound",
        evidence=f"{'one enqueue' if requests == 1 else f'an enqueue of {requests} requests'} takes "
        f"{format_duration(enqueue)} of host time and compute takes {format_duration(requests * compute)}; "
        f"enqueues use {100 * core:.0f} % of a core",
        cause="one thread enqueues for all lanes, and limits the throughput or nearly does",
        remedy=remedy,
    )


def _copies(result: RunResult) -> Finding | None:
    """A copy takes as long as compute, by medians (trtexec's rule). The d2h of a launch of several requests is left
    out, as it includes waiting for the launch's other computes."""
    compute = _typical(result, "compute")
    phases = (("h2d", "inputs"), ("d2h", "outputs"))[: 2 if result.config.model.requests_per_launch == 1 else 1]
    phase, tensors = max(phases, key=lambda phase: _typical(result, phase[0]))
    copy = _typical(result, phase)
    if copy < compute:
        return None
    wide = sorted(
        {spec.dtype for spec in result.model.engine.tensors if spec.is_input == (phase == "h2d")} & {"fp32", "fp64"}
    )
    remedies = ["--buffers 2 lets copies overlap compute"] if result.config.model.buffers == 1 else []
    if wide and result.model.engine.kind in _REAL:
        remedies.append(f"{tensors} in a type smaller than {wide[0].upper()}, such as FP16 or uint8, copy faster")
    remedies.append("--no-copies measures the engine without copies")
    return Finding(
        kind="copy-bound",
        evidence=f"copying the {tensors} takes {format_duration(copy)}, computing {format_duration(compute)}",
        cause="all lanes share one link to the device, and compute hides copies only while they are shorter",
        remedy="; ".join(remedies),
    )


def _exposed(result: RunResult) -> Finding | None:
    copies, compute = _mean(result, "h2d") + _mean(result, "d2h"), _mean(result, "compute")
    share = copies / (copies + compute)
    sets = result.config.model.buffers * result.config.model.requests_per_launch
    if sets > 1 or not closed_loop(result) or share < EXPOSED or _copies(result):
        return None
    return Finding(
        kind="copies-exposed",
        evidence=f"copies are {100 * share:.0f} % of a request's time on the device, and a lane has one buffer set",
        cause="a lane does not compute while it copies",
        remedy="--buffers 2 lets copies overlap compute",
    )


def _host(result: RunResult) -> Finding | None:
    latency, late = _mean(result, "latency"), _mean(result, "lateness")
    idle = result.model.starved_fraction
    blocks = result.model.engine.mode.get("wait") == "block"
    if _has(result, "starved") or _has(result, "late"):
        return None
    if idle >= STARVED:
        evidence = f"lanes were idle for {100 * idle:.1f} % of the time because the host was late"
    elif latency and late / latency >= LATE:
        evidence = f"the load generator added {format_duration(late)} to a mean latency of {format_duration(latency)}"
    elif blocks and result.host_cores >= CORE:
        evidence = f"loadtrt used {result.host_cores:.2f} of its one core"
    else:
        return None
    if blocks:
        remedy = "--wait spin notices completions sooner"
    elif result.model.engine.kind == "onnxruntime":
        remedy = "free a core for loadtrt: use fewer --contexts, or fewer --threads-per-context"
    elif result.config.model.buffers == 1:
        remedy = "--buffers 2 hands a lane its next request before it is idle"
    else:
        remedy = f"free a core for loadtrt, or use {_larger(result)}"
    return Finding(
        kind="host-bound",
        evidence=evidence,
        cause="the thread that enqueues and collects is too slow for this engine, or shares its core",
        remedy=remedy_for(busy_of(result), remedy),
    )


def _no_graph(result: RunResult) -> Finding | None:
    note = next((note for note in result.model.engine.notes if note.startswith("no CUDA graph")), None)
    if note is None or result.model.engine.mode.get("graph") != "no" or _enqueue(result):
        return None
    enqueue, compute = (format_duration(_typical(result, name)) for name in ("enqueue", "compute"))
    return Finding(
        kind="no-graph",
        evidence=f"no CUDA graph could be captured, and one enqueue takes {enqueue}",
        cause=note.partition(": ")[2] or note,
        remedy=f"little is lost while compute ({compute}) takes much longer; --no-graph turns graphs off on purpose",
    )


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
    remedies = [shorter] if delay_ns else []
    remedies += ["a lower rate" if full else "a lower rate or more --contexts"]
    return Finding(
        kind="queue-bound",
        evidence=evidence,
        cause="requests arrive unevenly, at times faster than the lanes serve them"
        if uneven
        else "at this rate the lanes are often busy when a request arrives",
        remedy=f"{', '.join(remedies)}; 'loadtrt capacity' finds the highest rate that meets an objective",
    )


def _in_turn(result: RunResult) -> Finding | None:
    contexts, overlap = len(result.model.lanes), result.model.overlap
    if contexts < 2 or overlap is None or not closed_loop(result):
        return None
    if overlap.lanes_computing >= IN_TURN or overlap.busy_fraction < IDLE:
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
    contexts, compute = len(result.model.lanes), result.model.metrics["compute"].percentiles_ns["p50"]
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


def _unfair(result: RunResult) -> Finding | None:
    lanes = [lane for lane in result.model.lanes if lane.service_p50_ns]
    if len(lanes) < 2 or result.model.fairness is None or result.model.fairness >= UNFAIR:
        return None
    slow = max(lanes, key=lambda lane: lane.service_p50_ns or 0)
    fast = min(lanes, key=lambda lane: lane.service_p50_ns or 0)
    fast_ns, slow_ns = fast.service_p50_ns or 0, slow.service_p50_ns or 0
    if slow_ns < SLOWER * fast_ns:
        return None
    return Finding(
        kind="unfair",
        evidence=f"lane {slow.lane} served {plural(slow.requests, 'request')} at a median of "
        f"{format_duration(slow_ns)}, lane {fast.lane} {format_count(fast.requests)} at {format_duration(fast_ns)}",
        cause="lanes of one engine do the same work: something slows this one down, or the device prefers another",
        remedy="--contexts 1 shows how fast a lane is alone; look for other work on the device",
    )


def _short(result: RunResult) -> Finding | None:
    enqueue = _typical(result, "enqueue") / result.config.model.requests_per_launch
    compute = _typical(result, "compute")
    if result.model.engine.kind != "tensorrt" or enqueue / compute < SHORT or _has(result, "starved"):
        return None
    mixed = result.config.model.mix or result.config.model.batcher
    batch = "a typical batch" if mixed else f"batch {result.model.engine.batch}"
    return Finding(
        kind="small-batch",
        evidence=f"{batch} computes in {format_duration(compute)}, and one enqueue takes {format_duration(enqueue)}",
        cause=f"the one thread that enqueues keeps at most {compute / enqueue:.1f} lanes computing",
        remedy=f"{_larger(result)}, where the plan leaves it open, does more work in each enqueue",
    )


def _busy(result: RunResult) -> Finding | None:
    """Lanes that compute nearly all the time, or too little of it."""
    overlap, kind = result.model.overlap, result.model.engine.kind
    if overlap is None or kind not in _REAL or not closed_loop(result) or IDLE <= overlap.busy_fraction < BUSY:
        return None
    contexts, precision = len(result.model.lanes), _lower_precision(result)
    evidence = f"lanes computed {100 * overlap.busy_fraction:.0f} % of the time"
    if overlap.busy_fraction < IDLE:
        return Finding(
            kind="idle",
            evidence=evidence,
            cause="too few requests are in flight to keep the device busy",
            remedy="--buffers 2" if result.config.model.buffers == 1 else f"--contexts {contexts + 1}",
        )
    if kind == "onnxruntime":
        remedy = "a smaller or quantized model, or more cores"
    elif contexts == 1:
        remedy = f"--contexts 2 or {_larger(result)} may fill the GPU better{precision and f'; then {precision}'}"
    else:
        remedy = f"{precision and f'{precision}, '}{_larger(result)} or a faster GPU; "
        remedy += "more --contexts add more latency than throughput"
    return Finding(
        kind="compute-bound",
        evidence=evidence,
        cause="the engine itself is the limit, neither the host nor the copies",
        remedy=remedy,
    )


def _lower_precision(result: RunResult) -> str:
    """A precision below that of the plan and of its build options; empty where those are low already."""
    precisions = f"{result.model.engine.precision} {(result.model.engine.build or {}).get('precision', '')}"
    if any(name in precisions for name in ("INT8", "FP8", "INT4", "FP4")):
        return ""
    return "INT8" if "FP16" in precisions else "FP16" if result.model.engine.build else "a lower precision"


def _larger(result: RunResult) -> str:
    """The option that puts more work into an enqueue: a mix and a batcher exclude --batch."""
    if result.config.model.batcher:
        return "a larger max= in --batcher"
    return "larger parts in --mix" if result.config.model.mix else "a larger --batch"


def _typical(result: RunResult, metric: str) -> float:
    """Median, or mean where the requests are too few for a median, ns."""
    return typical_ns(result.model.metrics[metric])


def _waiting(result: RunResult) -> tuple[float, float]:
    """(latency, queueing delay in the queue and in the lane, without lateness), ns, of requests around the median, or
    of all where the median's cohort is not known."""
    late, typical = _mean(result, "lateness"), result.model.cohorts.get("p50")
    if typical is not None:
        return typical.latency_ns, typical.queue_ns + typical.other_ns - late
    latency = _mean(result, "latency")
    return latency, latency - late - sum(_mean(result, name) for name in ("h2d", "compute", "d2h"))


def _mean(result: RunResult, metric: str) -> float:
    return result.model.metrics[metric].mean_ns or 0.0


def closed_loop(result: RunResult) -> bool:
    """Whether a request is due when its predecessor completes."""
    return result.config.model.load.closed


def _has(result: RunResult, kind: str) -> bool:
    """Whether the verdict has a problem of this kind."""
    return any(problem.kind == kind for problem in result.model.problems)
