"""A run as an observer sees it, made of requests that a test names; and pages of metrics, read."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from loadtrt.asked.objective import parse_objective
from loadtrt.lanes.recorder import Recorder
from loadtrt.live.follower import Follower
from loadtrt.live.metrics import Observation
from loadtrt.live.observer import Point, RunFacts
from loadtrt.records.board import Board
from loadtrt.records.records import OK
from loadtrt.results.gpu_telemetry import GpuClient, GpuReading, GpuSharing
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import Metric

    Page: TypeAlias = dict[tuple[str, tuple[tuple[str, str], ...]], float]

BOUND_NS = 10 * MILLISECOND_NS
FACTS = RunFacts(
    run="20261004-101112-7",
    model="resnet50.plan",
    lanes=2,
    batch=8,
    rate=500.0,
    duration_ns=10 * SECOND_NS,
    requests=None,
    objectives=(parse_objective("latency.p99 < 10ms"), parse_objective("throughput > 90/s")),
    information={"precision": "FP16", "cuda-graph": "yes"},
    labels={"team": "search"},
    uuid="GPU-12345678-9abc-def0-1234-56789abcdef0",
    host="gpu-7",
    point=Point("contexts 2, batch 8", 3, 4),
)
READING = GpuReading(
    at_ns=0,
    sm_clock_hertz=1_980_000_000,
    memory_clock_hertz=2_619_000_000,
    max_sm_clock_hertz=1_980_000_000,
    power_watts=312.5,
    power_limit_watts=700.0,
    energy_joules=12345.678,
    temperature_celsius=55,
    memory_used_bytes=2 << 30,
    memory_total_bytes=80 << 30,
    utilization_ratio=0.97,
    throttle_reasons=("sw_power_cap", "reason_0x200"),
    performance_state=0,
    memory_utilization_ratio=0.4,
    pcie_rx_bytes=7 << 30,
    pcie_tx_bytes=1 << 20,
    sharing=GpuSharing((GpuClient(77, "python3", 3 << 30, sm_ratio=0.25), GpuClient(78, sm_ratio=0.0))),
)


def recorded(requests: Iterable[tuple[int, int, int]], lanes: int = 2) -> tuple[Board, Recorder]:
    """A board, and the recorder that filled it with (lane, status, latency in ns); half of a latency is compute."""
    board = Board(keep=1 << 15)
    board.enter("measure")
    recorder = Recorder(lanes, 0, board=board, bounds=[item.counted for item in FACTS.objectives], items=[8])
    for lane, status, time_ns in requests:
        recorder.record(0, 0, 1, time_ns, 0, time_ns // 2, 0, 0, lane, status)
    recorder.finish()
    return board, recorder


def some_requests(count: int = 1000) -> list[tuple[int, int, int]]:
    """All served, around 3 ms."""
    times = np.random.default_rng(1).lognormal(15, 0.3, count).astype(int).tolist()
    return [(number % 2, OK, time) for number, time in enumerate(times)]


def view(
    board: Board, gpu: GpuReading | None = READING, facts: RunFacts = FACTS, after_ns: int = SECOND_NS
) -> Observation:
    """What an observer has this long after measuring began."""
    snapshot = Follower(board, 2, [item.counted for item in FACTS.objectives], [8]).snapshot()
    return Observation(snapshot, facts, gpu, snapshot.started_ns + after_ns, observer_cpu_s=0.25)


def page(metrics: Iterable[Metric]) -> Page:
    """Values by (name, sorted labels), without those of native histograms."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in metrics
        for sample in metric.samples
        if sample.native_histogram is None
    }


def values(found: Page, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The series of a name, by the values of these labels."""
    return {
        tuple(dict(its).get(label, "") for label in labels): value
        for (its_name, its), value in found.items()
        if its_name == name
    }


def buckets(found: Page, name: str) -> tuple[Sequence[float], Sequence[float]]:
    """(upper bounds, counts reached) of the one histogram of this name."""
    pairs = sorted((float(le), count) for (le,), count in values(found, f"{name}_bucket", "le").items())
    return [bound for bound, _ in pairs], [count for _, count in pairs]
