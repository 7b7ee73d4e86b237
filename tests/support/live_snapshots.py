"""Snapshots of runs that never were, for tests of what draws and reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from loadtrt.asked.objective import parse_objective
from loadtrt.live.observer import RunFacts
from loadtrt.records.board import OUTCOMES, RATIOS, WINDOW_RANKS, Snapshot
from loadtrt.records.histogram import BUCKETS, bucket_of
from loadtrt.records.records import METRICS
from loadtrt.results.gpu_telemetry import GpuReading
from loadtrt.units import SECOND_NS

START_NS = 1_800_000_000 * SECOND_NS
NAMES = [metric.name for metric in METRICS]
FACTS = RunFacts(
    run="20261122-1326-77",
    model="googlenet16.trt",
    lanes=2,
    batch=16,
    rate=1250.0,
    duration_ns=60 * SECOND_NS,
    requests=None,
    objectives=(parse_objective("latency.p99 < 8ms"),),
    information={"flavour": "tensorrt", "version": "10.16", "precision": "FP16", "arrivals": "poisson", "wait": "spin"},
)
GPU = GpuReading(
    at_ns=0,
    sm_clock_hertz=1_980_000_000,
    max_sm_clock_hertz=1_980_000_000,
    power_watts=400.0,
    power_limit_watts=700.0,
    temperature_celsius=61,
    memory_used_bytes=12 << 30,
    utilization_ratio=0.98,
    throttle_reasons=(),
)


def snapshot(at_s: float = 10.0, served: tuple[int, ...] = (5000, 5000), **changes: Any) -> Snapshot:
    """Measuring, at_s seconds after the start, with so many requests served by each lane, of latencies about 4 ms."""
    lanes, total = len(served), sum(served)
    outcomes = np.zeros((lanes, len(OUTCOMES)), np.int64)
    outcomes[:, 0] = served
    counts = np.zeros((len(METRICS), BUCKETS), np.int64)
    latencies = np.linspace(3_000_000, 5_000_000, total).astype(np.int64)
    np.add.at(counts[NAMES.index("latency")], bucket_of(latencies), 1)
    counts[NAMES.index("lateness"), 1000] = total
    made = Snapshot(
        phase="measure",
        written_ns=START_NS + round(at_s * SECOND_NS),
        started_ns=START_NS,
        submitted=total + 3,
        in_flight=3,
        waiting=1,
        busy_lanes=min(lanes, 2),
        outcomes=outcomes,
        inferences=total * 16,
        lane_service_ns=np.array(served, np.int64) * 2_500_000,
        lane_compute_ns=np.array(served, np.int64) * 1_500_000,
        good=np.array([total], np.int64),
        window_start_ns=max(int(at_s) - 1, 0) * SECOND_NS,
        window_requests=min(total, 1000),
        window_ns=np.array([4e6, 4.8e6, 4.9e6, 4.95e6, 5e6, 5e6][: len(WINDOW_RANKS)]),
        ratio_sum=float(2 * total),
        ratios=np.array([0, 0, 0, 0, total, *[0] * (len(RATIOS) - 4)], np.int64),
        sums_ns=np.array([int(latencies.sum())] * len(METRICS), np.int64),
        counts=counts,
    )
    return replace(made, **changes)
