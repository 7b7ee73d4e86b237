"""How a run went over time: its seconds, and whether it was a steady state. Fields of run.json, which the recorder
imports without results/run_result.py, whose models take long to import.
"""

from __future__ import annotations

from pydantic import Field

from loadtrt.results import Count, Model, Positive


class Interval(Model):
    """A part of measuring, ModelResult.interval_ns long; requests belong to the interval in which they complete.

    start_ns: start of the interval, since measuring began.
    requests: number of served requests.
    latency_mean_ns, latency_p50_ns, latency_p90_ns, latency_p99_ns, latency_max_ns: of the latencies.
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


class SlowPart(Model):
    """A part of the run in which the engine fell behind the load, or in which services took longer than in the rest
    (stats/slow_parts.py).

    start_ns, end_ns: its approximate bounds, ns from the start of measuring.
    served_per_s: requests served per second within it.
    expected_per_s: requests that arrived per second within it; in a closed loop and offline, the rate of the whole run.
    over_ns: when the backlog was gone, ns from the start of measuring; None if never, or not known.
    service_ratio: typical service time in it over that in the rest, where that tells the part; None where it is told by
        the load that it fell behind.
    """

    start_ns: int
    end_ns: int
    served_per_s: Positive
    expected_per_s: Positive
    over_ns: int | None = None
    service_ratio: Positive | None = None

    @property
    def word(self) -> str:
        """What it was: slow, or fast where the rest was slower."""
        return "fast" if self.service_ratio is not None and self.service_ratio < 1 else "slow"


class Stall(Model):
    """Times in which requests were in flight and no lane, or one of them not, did anything (stats/stalls.py).

    start_ns: start of the longest stall, ns from the start of measuring.
    longest_ns: duration of the longest stall.
    total_ns: duration of all stalls together.
    late: requests that the stalls delayed.
    host: loadtrt itself stood still in the longest stall, not the engine.
    lane: the only lane that stood still; None: no lane completed anything, or not the same one stood still each time.
    period_ns: distance from one stall to the next where they come at equal distances; None otherwise.
    """

    start_ns: int
    longest_ns: Count
    times: Count
    total_ns: Count
    late: Count
    host: bool
    lane: int | None = None
    period_ns: int | None = None


class Steadiness(Model):
    """Whether the measured time was a steady state (stats/steady.py).

    None in a field: too few requests to decide, or, except for overloaded, slow and stall, a load that is not steady
    by design.

    transient_ns: initial transient, ns from the start of measuring (MSER-5); 0 for none.
    transient_ratio: latency in the transient over latency after it; None without a transient.
    drift_ratio: fitted latency at the end over that at the beginning; None where noise explains the difference.
    overloaded: until the end, requests arrived faster than they were served.
    slow: the part in which the engine fell behind, or was slower; None for none.
    stall: times in which lanes did nothing; None for none.
    """

    transient_ns: int | None = None
    transient_ratio: float | None = None
    drift_ratio: float | None = None
    overloaded: bool | None = None
    slow: SlowPart | None = None
    stall: Stall | None = None
