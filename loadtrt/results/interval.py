"""A second of a run, which the recorder needs: apart from results/run_result.py, whose models take long to make."""

from __future__ import annotations

from pydantic import Field

from loadtrt.results.frozen import Model


class Interval(Model):
    """One second of measuring, by completion instant. throttled: whether the GPU was seen slowed down in it, None where
    nobody looked. latency_counts: served requests by the cell of their latency, empty cells left out; cell c is
    the buckets from CELL·c on, CELL of them (records/histogram.py), eight an octave; of the first two hours."""

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
