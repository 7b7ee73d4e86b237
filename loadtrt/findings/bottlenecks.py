"""What bound a run: the host that enqueues, the copies, the queue before the lanes, or the engine itself.

A rule is a function of the result: a finding, or None. Each remedy names what is not in use already.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtrt.asked.load import Offline
from loadtrt.findings.validity import STARVED_LIMIT, typical_ns
from loadtrt.results.run_result import Finding
from loadtrt.units import SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult

ENQUEUE = 0.8  # of a core, or of the compute time: where trtexec says "may be bound by Enqueue Time"
SHORT = 0.25  # enqueue over compute: a batch that four lanes compute in the time that their enqueues take
EXPOSED = 0.05  # of the device time: what another buffer set would hide
STARVED = STARVED_LIMIT / 2  # of the time: above its limit it is a problem
LATE = 0.1  # of the mean latency, as p99 of lateness may be a tenth of the median
CORE = 0.9  # of one core: the one thread that enqueues and collects has nothing left
WAITING = 0.6  # of the latency: one lane's at 75 % load with constant service, at 60 % with exponential
BUSY = 0.95  # of the time: the rest is the ends of the run
IDLE = 0.85  # a device that computes less is not full, and one that computes more nearly is
FREE = 0.5  # of the time that lanes compute: below it one is mostly free when a request comes
IN_TURN = 1.1  # lanes at once
ALONE = 0.75  # of what as many devices would do: contexts that share one do less
UNFAIR = 0.95  # Jain's index: of two lanes, one serves 1.6 times what the other does
SLOWER = 1.2  # of medians of service: lanes with unequal shares by chance are equally fast
_REAL = ("tensorrt", "onnxruntime")  # a simulated device is what its parameters say


def bottlenecks(result: RunResult) -> list[Finding]:
    """The weightiest first. Nothing is said of an engine that takes no time: that is the generator's own speed."""
    if not result.model.metrics["compute"].max_ns:
        return []
    limits = [_enqueue(result), _copies(result), _exposed(result), _host(result)]
    found = [*limits, _no_graph(result), _queue(result), _in_turn(result), _interference(result), _unfair(result)]
    found += [_short(result)] if limits[0] is None else []
    if not any(limits) and not _has(result, "starved"):
        found += [_compute(result) or _idle(result)]
    return [finding for finding in found if finding is not None]


def mostly_waits(result: RunResult) -> bool:
    """Whether requests come by themselves, and typical ones wait for most of their latency."""
    latency, waiting = _waiting(result)
    return not closed_loop(result) and not isinstance(result.config.model.load, Offline) and waiting > WAITING * latency


def _enqueue(result: RunResult) -> Finding | None:
    enqueue, compute = _typical(result, "enqueue"), _typical(result, "compute")
    core = _enqueues_per_s(result) * _mean(result, "enqueue") / SECOND_NS
    several = _per_launch(result)
    if max(core, enqueue / (several * compute)) < ENQUEUE:
        return None
    remedy = f"{_larger(result)} does more with each enqueue"
    if result.model.engine.mode.get("graph") == "no":
        remedy += "; the engine's note tells why there is no CUDA graph"
        if not result.config.model.graph:
            remedy = "leave --no-graph out: a CUDA graph is enqueued in one call"
    return Finding(
        kind="enqueue-bound",
        evidence=f"{'one enqueue' if several == 1 else f'an enqueue of {several} requests'} takes "
        f"{format_duration(enqueue)} of the host and computing {format_duration(several * compute)}; "
        f"enqueues take {100 * core:.0f} % of a core",
        cause="one thread enqueues for all lanes: it sets the pace, or is close to it",
        remedy=remedy,
    )


def _copies(result: RunResult) -> Finding | None:
    """trtexec's rule, too: a copy that takes as long as computing, by medians. The outputs of a launch of several wait
    for its other computes, which is no copying."""
    compute = _typical(result, "compute")
    phases = (("h2d", "inputs"), ("d2h", "outputs"))[: 2 if _per_launch(result) == 1 else 1]
    phase, what = max(phases, key=lambda each: _typical(result, each[0]))
    copy = _typical(result, phase)
    if copy < compute:
        return None
    wide = sorted(
        {it.dtype for it in result.model.engine.tensors if it.is_input == (phase == "h2d")} & {"fp32", "fp64"}
    )
    remedies = ["--buffers 2 lets copies overlap computing"] if result.config.model.buffers == 1 else []
    if wide and result.model.engine.kind in _REAL:
        remedies.append(f"{what} of fewer bytes than {wide[0].upper()}, such as FP16 or uint8, take less")
    remedies.append("--no-copies shows what is left without copies")
    return Finding(
        kind="copy-bound",
        evidence=f"copying the {what} takes {format_duration(copy)}, computing {format_duration(compute)}",
        cause="all lanes share one link to the device, and copies hide behind computing only while they are shorter",
        remedy="; ".join(remedies),
    )


def _exposed(result: RunResult) -> Finding | None:
    copies, compute = _mean(result, "h2d") + _mean(result, "d2h"), _mean(result, "compute")
    share = copies / (copies + compute)
    sets = result.config.model.buffers * _per_launch(result)
    if sets > 1 or not closed_loop(result) or share < EXPOSED or _copies(result):
        return None
    return Finding(
        kind="copies-exposed",
        evidence=f"copies are {100 * share:.0f} % of a request's time on the device, and a lane has one buffer set",
        cause="a lane computes nothing while it copies",
        remedy="--buffers 2 lets copies overlap computing",
    )


def _host(result: RunResult) -> Finding | None:
    latency, late = _mean(result, "latency"), _mean(result, "lateness")
    idle = result.model.starved_fraction
    blocks = result.model.engine.mode.get("wait") == "block"
    if _has(result, "starved") or _has(result, "late"):
        return None
    if idle >= STARVED:
        evidence = f"lanes stood idle for {100 * idle:.1f} % of the time because the host was late"
    elif latency and late / latency >= LATE:
        evidence = f"of a mean latency of {format_duration(latency)} the generator itself added {format_duration(late)}"
    elif blocks and result.host_cores >= CORE:
        evidence = f"loadtrt took {result.host_cores:.2f} of the one core that it can use"
    else:
        return None
    if blocks:
        remedy = "--wait spin sees completions sooner"
    elif result.model.engine.kind == "onnxruntime":
        remedy = "leave loadtrt a core: fewer --contexts, or fewer --threads-per-context"
    elif result.config.model.buffers == 1:
        remedy = "--buffers 2 gives a lane its next request before it needs it"
    else:
        remedy = f"free a core for loadtrt, or take {_larger(result)}"
    return Finding(
        kind="host-bound",
        evidence=evidence,
        cause="the thread that enqueues and collects is slow beside this engine, or shares its core",
        remedy=remedy,
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
        remedy=f"little is lost while computing ({compute}) takes much longer; --no-graph says that this is meant",
    )


def _queue(result: RunResult) -> Finding | None:
    """Typical requests wait (one stall makes a mean wait, too); the generator's own lateness is not meant."""
    steadiness = result.model.steadiness
    if result.model.unserved or not mostly_waits(result):
        return None
    if steadiness is not None and (steadiness.overloaded or steadiness.slow is not None):
        return None
    latency, waiting = _waiting(result)
    load, batching = result.config.model.load, result.config.model.batching
    uneven = not load.steady or (load.cv or 0.0) > 1
    delay_ns = batching.delay_ns if batching else 0
    overlap = result.model.overlap
    if delay_ns and overlap and overlap.busy_fraction * overlap.lanes_computing < FREE * len(result.model.lanes):
        return Finding(
            kind="queue-bound",
            evidence=f"of a typical latency of {format_duration(latency)}, {format_duration(waiting)} is waiting, and "
            "lanes mostly stand idle",
            cause=f"requests wait for company, as long as the batcher's delay of {format_duration(delay_ns)} lets them",
            remedy="a shorter delay= in --batcher",
        )
    remedies = ["a shorter delay= in --batcher"] if delay_ns else []
    full = overlap is not None and overlap.busy_fraction >= BUSY
    remedies += ["a lower rate"] if full else ["a lower rate or more --contexts"]
    return Finding(
        kind="queue-bound",
        evidence=f"of a typical latency of {format_duration(latency)}, {format_duration(waiting)} is waiting",
        cause="requests come unevenly, at times faster than the lanes serve them"
        if uneven
        else "at this rate lanes are often taken when a request comes",
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
        evidence=f"{plural(contexts, 'context')}, and {overlap.lanes_computing:.2f} compute at once",
        cause="contexts take turns on the device instead of sharing it",
        remedy="--contexts 1 serves as much, each request sooner",
    )


def _interference(result: RunResult) -> Finding | None:
    """Needs the profile of the same run (--profile): how long an inference takes that has the device alone."""
    contexts, computes = len(result.model.lanes), result.model.metrics["compute"].percentiles_ns["p50"]
    mode = {"yes": "graph", "no": "plain"}.get(result.model.engine.mode.get("graph", ""))
    passes = result.model.profile.passes if result.model.profile is not None else ()
    alone = next((it.inference_ns for it in passes if it.inference_ns and mode in (None, it.mode)), None)
    if contexts < 2 or not closed_loop(result) or not computes or alone is None:
        return None
    work = contexts * alone / computes
    if work >= ALONE * contexts:
        return None
    fewer = min(math.ceil(work), contexts - 1)
    return Finding(
        kind="interference",
        evidence=f"computing takes {format_duration(alone)} alone and {format_duration(computes)} here: "
        f"{contexts} contexts do the work of {work:.1f}",
        cause="contexts share the device and slow each other down",
        remedy=f"--contexts 1 serves {100 / work:.0f} % as much with shorter latencies"
        if fewer == 1
        else f"--contexts {fewer} should serve nearly as much with shorter latencies",
    )


def _unfair(result: RunResult) -> Finding | None:
    lanes = [lane for lane in result.model.lanes if lane.service_p50_ns]
    if len(lanes) < 2 or result.model.fairness is None or result.model.fairness >= UNFAIR:
        return None
    slow = max(lanes, key=lambda lane: lane.service_p50_ns or 0)
    fast = min(lanes, key=lambda lane: lane.service_p50_ns or 0)
    if (slow.service_p50_ns or 0) < SLOWER * (fast.service_p50_ns or 0):
        return None
    return Finding(
        kind="unfair",
        evidence=f"lane {slow.lane} served {plural(slow.requests, 'request')} at a median of "
        f"{format_duration(slow.service_p50_ns or 0)}, lane {fast.lane} {format_count(fast.requests)} at "
        f"{format_duration(fast.service_p50_ns or 0)}",
        cause="lanes of one engine do the same work: something slows this one down, or the device prefers another",
        remedy="--contexts 1 shows what a lane does alone; look for other work on the device",
    )


def _short(result: RunResult) -> Finding | None:
    enqueue, compute = _typical(result, "enqueue") / _per_launch(result), _typical(result, "compute")
    if result.model.engine.kind != "tensorrt" or enqueue / compute < SHORT or _has(result, "starved"):
        return None
    several = result.config.model.mix or result.config.model.batcher
    what = "a typical one" if several else f"batch {result.model.engine.batch}"
    return Finding(
        kind="small-batch",
        evidence=f"{what} computes in {format_duration(compute)}, and one enqueue takes {format_duration(enqueue)}",
        cause=f"the one thread that enqueues keeps no more than {compute / enqueue:.1f} lanes computing",
        remedy=f"{_larger(result)}, where the plan leaves it open, does more with each enqueue",
    )


def _compute(result: RunResult) -> Finding | None:
    overlap, kind = result.model.overlap, result.model.engine.kind
    if overlap is None or kind not in _REAL or not closed_loop(result) or overlap.busy_fraction < BUSY:
        return None
    precision = _lower_precision(result)
    if kind == "onnxruntime":
        remedy = "a smaller or quantized model, or more cores"
    elif len(result.model.lanes) == 1:
        remedy = f"--contexts 2 or {_larger(result)} may fill the GPU better{precision and f'; then {precision}'}"
    else:
        remedy = f"{precision and f'{precision}, '}{_larger(result)} or a faster GPU; "
        remedy += "more --contexts add more latency than throughput"
    return Finding(
        kind="compute-bound",
        evidence=f"lanes computed {100 * overlap.busy_fraction:.0f} % of the time",
        cause="the engine itself is the limit, neither the host nor the copies",
        remedy=remedy,
    )


def _lower_precision(result: RunResult) -> str:
    """What is not in use yet, as far as the plan or what it was built with tells."""
    told = f"{result.model.engine.precision} {(result.model.engine.build or {}).get('precision', '')}"
    if any(name in told for name in ("INT8", "FP8", "INT4", "FP4")):
        return ""
    return "INT8" if "FP16" in told else "FP16" if result.model.engine.build else "a lower precision"


def _idle(result: RunResult) -> Finding | None:
    overlap = result.model.overlap
    if (
        overlap is None
        or result.model.engine.kind not in _REAL
        or not closed_loop(result)
        or overlap.busy_fraction >= IDLE
    ):
        return None
    contexts, buffers = len(result.model.lanes), result.config.model.buffers
    return Finding(
        kind="idle",
        evidence=f"lanes computed {100 * overlap.busy_fraction:.0f} % of the time",
        cause="too few requests are in flight to keep the device busy",
        remedy="--buffers 2" if buffers == 1 else f"--contexts {contexts + 1}",
    )


def _larger(result: RunResult) -> str:
    """What makes an enqueue carry more: --batch is refused beside a mix and a batcher."""
    if result.config.model.batcher:
        return "a larger max= in --batcher"
    return "larger parts in --mix" if result.config.model.mix else "a larger --batch"


def _typical(result: RunResult, metric: str) -> float:
    """The median, or the mean where there are too few for one; ns."""
    return typical_ns(result.model.metrics[metric])


def _waiting(result: RunResult) -> tuple[float, float]:
    """(latency, all of it that is neither on the device nor lateness) of requests about the median; of all where they
    are not known. ns."""
    late, typical = _mean(result, "lateness"), result.model.cohorts.get("p50")
    if typical is not None:
        return typical.latency_ns, typical.queue_ns + typical.other_ns - late
    latency = _mean(result, "latency")
    return latency, latency - late - sum(_mean(result, name) for name in ("h2d", "compute", "d2h"))


def _mean(result: RunResult, metric: str) -> float:
    return result.model.metrics[metric].mean_ns or 0.0


def _enqueues_per_s(result: RunResult) -> float:
    each = result.model.batches.mean if result.model.batches else _per_launch(result)
    return (result.model.throughput.requests_per_s or 0.0) / each


def _per_launch(result: RunResult) -> int:
    """Requests of one enqueue."""
    return result.config.model.requests_per_launch


def closed_loop(result: RunResult) -> bool:
    """Whether requests come when their predecessors were answered."""
    return result.config.model.load.closed


def _has(result: RunResult, kind: str) -> bool:
    """Whether the verdict has a problem of this kind."""
    return any(problem.kind == kind for problem in result.model.problems)
