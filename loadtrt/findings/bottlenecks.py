"""What limited a run: the thread that enqueues, the copies, what the lanes compute, or gaps between these.

Of the parts that all requests share, the one that is busy nearly all the time sets the pace (findings/utilization.py):
it alone is named. A remedy names only what is not in use yet (findings/remedies.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.findings.lane_findings import closed_loop, lane_findings
from loadtrt.findings.partitioning import unpartitioned
from loadtrt.findings.remedies import (
    compiled_loop,
    either,
    fewer_events,
    larger_batch,
    measured_submit,
    more_per_launch,
    one_at_a_time,
    one_more_context,
)
from loadtrt.findings.utilization import BUSY, FULL, Utilization, buffer_sets, copy_ns, mean_ns, utilization_of
from loadtrt.findings.validity import STARVED_LIMIT, busy_of, remedy_for, typical_ns
from loadtrt.results.run_result import Finding
from loadtrt.units import format_duration, format_percent

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult

ENQUEUING = 0.5  # of a core: the rest of the thread's time goes to collecting, so that a late thread is late by these
EXPOSED = 0.05  # of the device time, which a second buffer set would hide
STARVED = STARVED_LIMIT / 2  # of the time; above STARVED_LIMIT it is a problem
LATE = 0.1  # of the mean latency, as the lateness limit is a tenth of the median latency
IDLE = 0.05  # of the time
_REAL = ("tensorrt", "onnxruntime")  # the limits of a simulated device are its parameters


def bottlenecks(result: RunResult) -> list[Finding]:
    """Findings, the most important first. A run of one request at a time has no limit: more are not asked for."""
    if one_at_a_time(result.command):
        refused = _no_graph(result, None)
        return [refused] if refused else []
    use = utilization_of(result)
    found = [_copies(result, use) or _host(result, use)]
    rest = None if any(found) else _busy(result, use) or _exposed(result, use) or _gaps(result, use)
    found += [_no_graph(result, found[0]), *lane_findings(result, use), rest]
    if not any(found[:1]):
        found.append(unpartitioned(result))
    return [finding for finding in found if finding is not None]


def _copies(result: RunResult, use: Utilization) -> Finding | None:
    if use.link < max(FULL, use.thread, use.computing) or use.computing >= BUSY:
        return None
    phase, tensors = ("h2d", "inputs") if use.copying_in >= use.copying_out else ("d2h", "outputs")
    sets, engine = buffer_sets(result), result.model.engine
    remedies = []
    if sets == 1:
        remedies.append("--buffers 2 lets copies overlap compute")
    elif sets == 2 and result.config.model.contexts == 1:  # of several lanes, one always has its next copy ready
        remedies.append("--buffers 3 keeps the link busy from one request to the next")
    if engine.mode.get("submit") != "apart" and (submit := measured_submit(result.config.model)):
        remedies.append(f"{submit} tries copies on their own streams")
    wide = sorted({spec.dtype for spec in engine.tensors if spec.is_input == (phase == "h2d")} & {"fp32", "fp64"})
    if wide and engine.kind in _REAL:
        remedies.append(f"{tensors} in a type smaller than {wide[0].upper()}, such as FP16 or uint8, copy faster")
    if not (result.config.model.mix or result.config.model.batcher):
        remedies.append("--no-copies measures the engine without copies")
    computing = f", and lanes computed {format_percent(use.computing)}" if use.computing else ""
    return Finding(
        kind="copy-bound",
        evidence=f"copying the {tensors} takes {format_duration(copy_ns(result, phase))} of the link, which was busy "
        f"{format_percent(use.link)} of the time{computing}",
        cause="all lanes share one link to the device, and it limits the throughput",
        remedy="; ".join(remedies) or "smaller inputs and outputs",
    )


def _host(result: RunResult, use: Utilization) -> Finding | None:
    """The thread that enqueues and collects was full, or late: then a lane was idle, or a request of an open loop
    waited. In a closed loop lateness alone hides behind a lane's other buffer sets."""
    model, engine = result.config.model, result.model.engine
    latency, late = mean_ns(result, "latency"), mean_ns(result, "lateness")
    full = engine.device_times and use.thread >= FULL and use.thread > max(use.link, use.computing)
    idle = result.model.starved_fraction >= STARVED
    if use.enqueuing >= ENQUEUING and (full or idle):
        return _enqueue(result, use)
    blocks = engine.mode.get("wait") == "block"
    if _has(result, "starved") or _has(result, "late"):
        return None
    if idle:
        evidence = f"lanes were idle for {100 * result.model.starved_fraction:.1f} % of the time because the host was "
        evidence += "late"
    elif latency and late / latency >= LATE and not model.load.closed:
        evidence = f"the load generator added {format_duration(late)} to a mean latency of {format_duration(latency)}"
    elif full:
        evidence = f"loadtrt used {result.host_cores or 0.0:.2f} of its one core"
    else:
        return None
    if blocks:
        remedy = "--wait spin notices completions sooner"
    elif engine.kind == "onnxruntime":
        threads = int(engine.mode.get("threads per context", "1")) > 1
        fewer = either("fewer --contexts" if model.contexts > 1 else "", "fewer --threads-per-context" * threads)
        remedy = "free a core for loadtrt" + (f": use {fewer}" if fewer else "")
    elif buffer_sets(result) == 1:
        remedy = "--buffers 2 hands a lane its next request before it is idle"
    else:
        remedy = f"free a core for loadtrt, or use {either(compiled_loop(model, engine), larger_batch(model, engine))}"
    return Finding(
        kind="host-bound",
        evidence=evidence,
        cause="the thread that enqueues and collects is too slow for this engine, or shares its core",
        remedy=remedy_for(busy_of(result), remedy),
    )


def _enqueue(result: RunResult, use: Utilization) -> Finding:
    model, engine = result.config.model, result.model.engine
    requests = model.requests_per_launch
    if engine.mode.get("graph") == "no" and not model.graph:
        remedy = "remove --no-graph: a CUDA graph is enqueued in one call"
    else:
        remedy = f"more work in each enqueue: {either(more_per_launch(model, engine), larger_batch(model, engine))}"
        if cheaper := either(compiled_loop(model, engine), fewer_events(model, engine, result.model.metrics)):
            remedy = f"{cheaper}, or {remedy}"
        if engine.mode.get("graph") == "no":
            remedy += "; the engine's note says why there is no CUDA graph"
    compute = requests * _typical(result, "compute")
    return Finding(
        kind="enqueue-bound",
        evidence=f"{'one enqueue' if requests == 1 else f'an enqueue of {requests} requests'} takes "
        f"{format_duration(_typical(result, 'enqueue'))} of host time"
        f"{f' and compute takes {format_duration(compute)}' if compute else ''}; enqueues use "
        f"{format_percent(use.enqueuing)} of a core",
        cause="one thread enqueues for all lanes, collects what they complete, and limits the throughput",
        remedy=remedy,
    )


def _exposed(result: RunResult, use: Utilization) -> Finding | None:
    copies, compute = mean_ns(result, "h2d") + mean_ns(result, "d2h"), mean_ns(result, "compute")
    share = copies / (copies + compute) if compute else 0.0
    sets = buffer_sets(result) * result.config.model.requests_per_launch
    if sets > 1 or not closed_loop(result) or share < EXPOSED or use.computing >= BUSY:
        return None
    return Finding(
        kind="copies-exposed",
        evidence=f"copies are {format_percent(share)} of a request's time on the device, and a lane has one buffer set",
        cause="a lane does not compute while it copies",
        remedy="--buffers 2 lets copies overlap compute",
    )


def _busy(result: RunResult, use: Utilization) -> Finding | None:
    """Lanes that compute nearly all the time."""
    model, engine = result.config.model, result.model.engine
    if engine.kind not in _REAL or not closed_loop(result) or use.computing < BUSY:
        return None
    precision, larger = _lower_precision(result), larger_batch(model, engine)
    busy, on_host = busy_of(result), engine.kind == "onnxruntime"
    if on_host:
        remedy = remedy_for(busy, "a smaller or quantized model, or more cores")
    elif model.contexts == 1:
        remedy = f"{either('--contexts 2', larger)} may fill the GPU better{precision and f'; then {precision}'}"
    else:
        buffers = "--buffers 2" if buffer_sets(result) == 1 else ""
        remedy = (
            f"{either(buffers, precision, larger, 'a faster GPU')}; more --contexts add more latency than throughput"
        )
    cause, part, share = "the engine itself is the limit, neither the host nor the copies", "copies", use.link
    if use.thread > share:
        part, share = "the thread that enqueues", use.thread
    if share >= FULL or use.enqueuing >= max(ENQUEUING, use.link):  # that thread collects, too
        cause = f"the engine itself is the limit, and next to it {part}, busy {format_percent(share)} of the time"
    if on_host:
        cause = "the limit is the model's computation on the CPU, not loadtrt"
        if busy:
            cause = "the model had only a part of the cores: on a quiet host it is faster"
    return Finding(
        kind="compute-bound",
        evidence=f"lanes computed {format_percent(use.computing)} of the time",
        cause=cause,
        remedy=remedy,
    )


def _gaps(result: RunResult, use: Utilization) -> Finding | None:
    """A device that idles though requests are in flight: where lanes are starved, none is."""
    model, engine = result.config.model, result.model.engine
    idle = 1 - use.computing - result.model.starved_fraction
    if result.model.overlap is None or engine.kind not in _REAL or not closed_loop(result) or idle <= IDLE:
        return None
    if _has(result, "starved"):
        return None  # how much of the rest is the host's, too, is not known
    if engine.kind == "onnxruntime":
        cause = "handing requests over to the engine's threads leaves gaps between their computations"
    elif use.in_flight >= FULL:
        cause = "too few requests are in flight, as each is copied, computed and copied back in turn"
    else:
        cause = "launching and copying leave gaps between the requests' computations"
    sets, useful = buffer_sets(result), 3 if engine.kind == "tensorrt" else 2
    buffers = f"--buffers {sets + 1}" if sets < useful else ""
    more = either(buffers, one_more_context(model), measured_submit(model), more_per_launch(model, engine))
    remedy = f"{more} may fill the gaps" if more else larger_batch(model, engine)
    return Finding(
        kind="idle",
        evidence=f"lanes computed {format_percent(use.computing)} of the time and waited for the host "
        f"{format_percent(result.model.starved_fraction)}: for {format_percent(idle)} none computed though requests "
        "were in flight",
        cause=cause,
        remedy=remedy_for(busy_of(result), remedy) if engine.kind == "onnxruntime" else remedy,
    )


def _no_graph(result: RunResult, limit: Finding | None) -> Finding | None:
    note = next((note for note in result.model.engine.notes if note.startswith("no CUDA graph")), None)
    if note is None or (limit is not None and limit.kind == "enqueue-bound"):
        return None
    enqueue, compute = format_duration(_typical(result, "enqueue")), _typical(result, "compute")
    known = f" ({format_duration(compute)})" if compute else ""
    return Finding(
        kind="no-graph",
        evidence=f"no CUDA graph could be captured, and one enqueue takes {enqueue}",
        cause=note.partition(": ")[2] or note,
        remedy=f"little is lost while compute{known} takes much longer; --no-graph turns graphs off on purpose",
    )


def _lower_precision(result: RunResult) -> str:
    """A precision below that of the plan and of its build options; empty where those are low already."""
    precisions = f"{result.model.engine.precision} {(result.model.engine.build or {}).get('precision', '')}"
    if any(name in precisions for name in ("INT8", "FP8", "INT4", "FP4")):
        return ""
    return "INT8" if "FP16" in precisions else "FP16" if result.model.engine.build else "a lower precision"


def _typical(result: RunResult, metric: str) -> float:
    """Median, or mean where the requests are too few for a median, ns; 0 where it was not measured."""
    summary = result.model.metrics.get(metric)
    return typical_ns(summary) if summary else 0.0


def _has(result: RunResult, kind: str) -> bool:
    """Whether the verdict has a problem of this kind."""
    return any(problem.kind == kind for problem in result.model.problems)
