"""How much of the time each part was busy that all requests of a run share. The busiest one sets the pace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult


FULL = 0.8  # of the time: where trtexec says "may be bound by Enqueue Time"; the rest is reaction and variation
BUSY = 0.95  # of the time: the rest is the start and the end of the run


@dataclass(frozen=True, slots=True)
class Utilization:
    """Shares of the measured time, in [0, 1].

    enqueuing: the one thread that enqueues for all lanes was enqueuing.
    thread: it did anything. One that spins never rests, so that this is known with --wait block alone; with --wait spin
        it is what enqueues take.
    copying_in, copying_out: the link was copying inputs, outputs.
    computing: at least one lane was computing; 0 where that is not known: without CUDA graphs a lane's compute includes
        waiting for launches, so that a thread that always enqueues keeps it long.
    in_flight: a buffer set was in a copy or computing, on average over the sets.

    Without device times (--device-times off) the last four are 0.
    """

    enqueuing: float
    thread: float
    copying_in: float
    copying_out: float
    computing: float
    in_flight: float

    @property
    def link(self) -> float:
        """The busier direction of the link."""
        return max(self.copying_in, self.copying_out)


def utilization_of(result: RunResult) -> Utilization:
    """Of the rate at which requests were served, and the time that each took of the part."""
    model, config = result.model, result.config.model
    per_s = model.throughput.requests_per_s or 0.0
    batches_per_s = per_s / (model.batches.mean if model.batches else 1)
    launches_per_s = batches_per_s / config.requests_per_launch
    enqueuing = _share(launches_per_s, model.metrics["enqueue"].mean_ns)
    blocks = model.engine.mode.get("wait") == "block"
    plain = model.engine.mode.get("graph") == "no"
    one_a_launch = config.requests_per_launch == 1
    sets = config.contexts * buffer_sets(result) * config.requests_per_launch
    return Utilization(
        enqueuing=enqueuing,
        thread=max(enqueuing, min(result.host_cores or 0.0, 1.0) if blocks else 0.0),
        copying_in=_share(batches_per_s, copy_ns(result, "h2d")),
        copying_out=_share(batches_per_s, copy_ns(result, "d2h")) if one_a_launch else 0.0,
        computing=model.overlap.busy_fraction if model.overlap and not (plain and enqueuing >= FULL) else 0.0,
        in_flight=_share(batches_per_s / sets, mean_ns(result, "device")),
    )


def copy_ns(result: RunResult, phase: str) -> float:
    """How long a copy takes that has the link to itself, ns. Copies of several lanes wait for each other, so that of
    requests of one size the least counts. Of a launch of several requests a copy out includes waiting for the others'
    computes: that time is no copy's."""
    copy, config = result.model.metrics.get(phase), result.config.model
    shared = config.contexts > 1 and not (config.mix or config.batcher)
    return (copy and (copy.min_ns if shared else copy.mean_ns)) or 0.0


def buffer_sets(result: RunResult) -> int:
    """Buffer sets of each lane: those asked for, or those that the engine took."""
    config = result.config.model
    return max(config.buffers, result.model.memory.buffers // config.requests_per_launch)


def mean_ns(result: RunResult, metric: str) -> float:
    """Mean of a metric, ns; 0 without requests, and where it was not measured."""
    summary = result.model.metrics.get(metric)
    return (summary and summary.mean_ns) or 0.0


def _share(per_s: float, time_ns: float | None) -> float:
    return min(per_s * (time_ns or 0.0) / SECOND_NS, 1.0)
