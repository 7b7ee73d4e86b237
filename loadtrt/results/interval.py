"""An interval of a run. The recorder imports it without results/run_result.py, whose models take long to import."""

from __future__ import annotations

from pydantic import Field

from loadtrt.results.frozen import Model


class Interval(Model):
    """A part of measuring, ModelResult.interval_ns long; requests belong to the interval in which they complete.

    start_ns: start of the interval, since measuring began.
    requests: number of served requests.
    failed: number of failed requests.
    latency_mean_ns, latency_p50_ns, latency_p90_ns, latency_p99_ns, latency_max_ns: of the latencies.
    queue_mean_ns: mean queueing delay.
    compute_mean_ns: mean compute time.
    throttled: a reading in this interval shows the GPU slowed down; None without readings.
    latency_counts: served requests by the cell of their latency, without empty cells. Cell c holds the CELL buckets
        from CELL·c on (records/histogram.py), eight cells an octave.
    """

    start_ns: int
    requests: int
    failed: int
    latency_mean_ns: float | None
    latency_p50_ns: float | None
    latency_p90_ns: float | None
    latency_p99_ns: float | None
    latency_max_ns: int | None
    queue_mean_ns: float | None
    compute_mean_ns: float | None
    throttled: bool | None = None
    latency_counts: dict[int, int] = Field(default_factory=dict)
