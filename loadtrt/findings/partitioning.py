"""Whether a plan keeps to its share of the SMs, and whether partitions may serve more than contexts that share all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.asked.load import Offline
from loadtrt.findings.validity import typical_ns
from loadtrt.results.run_result import Finding
from loadtrt.units import format_duration, plural

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult

# On an H200 eight partitions gained 4 to 5 % with GoogLeNet at batch 16 and 32, where a request takes 0.7 ms of the GPU
# and more. At batch 4 and 1 (0.2 ms and less) they lost; two and four partitions gained 1 % at most. With copies they
# lost 18 to 44 % where streams shared hardware queues (docs/partitions.md).
LEAST_BATCH = 16
LEAST_NS = 500_000
LEAST_CONTEXTS = 4
FULL = 0.95  # of the time in which lanes compute, and of the lanes that do so at once
_PARTITIONS = 8
_STREAMS = 3  # of a context whose requests are copied


def unpartitioned(result: RunResult) -> Finding | None:
    """A GPU that is full of several contexts' long work, without partitions: they may help, as a sweep can show."""
    model, engine, overlap = result.config.model, result.model.engine, result.model.overlap
    contexts = len(result.model.lanes)
    if engine.kind != "tensorrt" or "partitions" in engine.mode or model.mix or model.batcher or overlap is None:
        return None
    steadiness = result.model.steadiness
    loaded = model.load.closed or isinstance(model.load, Offline) or (steadiness is not None and steadiness.overloaded)
    full = overlap.busy_fraction >= FULL and overlap.lanes_computing >= FULL * contexts
    compute = typical_ns(result.model.metrics["compute"])  # which is known where the overlap is
    if not (loaded and full and contexts >= LEAST_CONTEXTS and engine.batch >= LEAST_BATCH):
        return None
    lanes, copies = max(contexts, _PARTITIONS), "" if model.copies else "--copies off "
    queue_each = _STREAMS * lanes <= int(engine.settings["hardware queues"])
    if compute / contexts < LEAST_NS or (model.copies and not queue_each):
        return None
    return Finding(
        kind="unpartitioned",
        evidence=f"{contexts} contexts compute at the same time, each request of batch {engine.batch} for "
        f"{format_duration(compute)}",
        cause="the contexts' kernels share all SMs; if each context has its own SMs, a full GPU may serve a few "
        "percent more",
        remedy=f"'loadtrt sweep {copies}--contexts {lanes} --partitions 1,{_PARTITIONS}' shows whether they help",
    )


def outside_share(result: RunResult) -> Finding | None:
    """A share of the GPU that a part of the plan's work does not keep to, as TensorRT chooses the streams of it."""
    engine = result.model.engine
    streams, kernels = engine.mode.get("auxiliary streams", ""), engine.mode.get("kernels outside", "")
    evidence = []
    if streams:
        count = plural(int(streams.removesuffix(" outside")), "auxiliary stream")
        evidence.append(f"each context computes on {count} that {engine.flavour} {engine.version} makes itself")
    if kernels:
        evidence.append(f"{kernels} kernels of its CUDA graphs have another priority or other SMs")
    if not evidence:
        return None
    share = " and ".join(key for key in ("partitions", "priority") if key in engine.mode)
    return Finding(
        kind="outside-share",
        evidence="; ".join(evidence),
        cause=f"its share ({share}) applies only to a part of the plan's work; neighbours compete with the rest",
        remedy="build the plan with --max-aux-streams 0; streams inside fused layers are TensorRT's own",
    )
