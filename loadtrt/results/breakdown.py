"""The phases of a run, and metrics of requests, of all and of some: fields of run.json."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from loadtrt.records.histogram import require_histogram
from loadtrt.results import Count, Finite, Model, Positive

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


class Phases(Model):
    """How long each phase of the run took, ns.

    load_ns: opening the engine.
    allocate_ns: allocating lanes and inputs.
    compile_ns: compiling the loop, where none was kept.
    verify_ns: computing reference outputs.
    warmup_ns, warmup_requests: warm-up, which is not measured.
    clocks_settled: the GPU's clocks were constant at the end of the warm-up; None if not known.
    measure_ns: from the start of measuring to the last completion.
    drain_ns: waiting for requests in flight after the last arrival.
    """

    load_ns: int = 0
    allocate_ns: int = 0
    compile_ns: int = 0
    verify_ns: int = 0
    warmup_ns: int = 0
    warmup_requests: int = 0
    clocks_settled: bool | None = None
    measure_ns: int = 0
    drain_ns: int = 0

    @property
    def before_ns(self) -> int:
        """What came between loading and measuring."""
        return self.allocate_ns + self.compile_ns + self.verify_ns + self.warmup_ns


class ConfidenceInterval(Model):
    """A 95 % confidence interval (stats/intervals.py).

    low, high: its ends, in the number's unit; None for an end that the sample does not give: a number with no high end
        is "at least low". Times may be below 0 by the error of a device's clock.
    effective: effective sample size at the number: how many independent requests the sample is worth.
    """

    low: Finite | None
    high: Finite | None
    effective: Positive


class Throughput(Model):
    """Requests served within the measured time.

    offered_per_s: offered load; None in a closed loop.
    confidence: 95 % confidence interval of requests_per_s.
    span_ns: the first completion of a served request and the last completion, ns from the start of measuring; None
        where nothing was served.
    """

    requests_per_s: float | None
    inferences_per_s: float | None
    offered_per_s: float | None
    confidence: ConfidenceInterval | None = None
    span_ns: tuple[Count, Count] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_margin(cls, given: Any) -> Any:
        """As in MetricSummary."""
        return {key: value for key, value in given.items() if key != "margin"} if isinstance(given, dict) else given


class MetricSummary(Model):
    """One metric over all requests.

    count: number of requests that have the metric.
    mean_ns, min_ns, max_ns: mean and extremes; None without requests.
    percentiles_ns: p50, p90, p95, p99 and p99.9; None where the sample is too small for 99 % confidence.
    confidence: 95 % confidence intervals of the percentiles and of the "mean", ns, where the sample gives an end.
    """

    count: Count
    mean_ns: float | None
    min_ns: int | None
    max_ns: int | None
    percentiles_ns: dict[str, float | None]
    confidence: dict[str, ConfidenceInterval] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _without_margins(cls, given: Any) -> Any:
        """Files of earlier versions have margins of another law, which held too seldom: they are left out."""
        return {key: value for key, value in given.items() if key != "margins"} if isinstance(given, dict) else given

    @field_validator("percentiles_ns")
    @classmethod
    def _all_of_them(cls, given: dict[str, float | None]) -> dict[str, float | None]:
        missing = [name for name in PERCENTILES if name not in given]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        return given


class Cohort(Model):
    """Where the latency of some requests went: means over the requests, ns; None for what was not measured.

    latency_low_ns, latency_high_ns: bounds of their latencies.
    queue_ns: queueing delay, from due to submitted.
    h2d_ns: copying the inputs to the device.
    compute_ns: computing.
    d2h_ns: copying the outputs to the host.
    other_ns: waiting in the lane: service − h2d − compute − d2h; all of service where these were not measured.
    """

    requests: int
    latency_low_ns: int
    latency_high_ns: int
    latency_ns: float
    queue_ns: float
    h2d_ns: float | None
    compute_ns: float | None
    d2h_ns: float | None
    other_ns: float


class Sample(Model):
    """The records around the slowest request, one by one.

    columns: values by the name of the column (records.COLUMNS, without those that were not measured), all of one
        length; instants are ns from the start of measuring.
    """

    columns: dict[str, tuple[int, ...]]

    @field_validator("columns")
    @classmethod
    def _whole(cls, given: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        if len(set(map(len, given.values()))) > 1:
            raise ValueError("its columns are of different lengths")
        return given


class Lane(Model):
    """What one lane served."""

    lane: int
    requests: int
    service_p50_ns: float | None
    compute_p50_ns: float | None


class Overlap(Model):
    """How much lanes compute at the same time.

    busy_fraction: share of the time in which at least one lane computes, in [0, 1].
    lanes_computing: number of lanes computing in that time, on average.
    """

    busy_fraction: float
    lanes_computing: float


class MixPart(Model):
    """The requests of one part of a mix.

    offered_share: its weight in the mix, as configured, in [0, 1].
    metrics: by name, over the records that were kept.
    """

    name: str
    offered_share: float
    requests: int
    metrics: dict[str, MetricSummary]


class Batches(Model):
    """Batches that the batcher formed and the engine served, of the records that were kept.

    counts: number of batches by the number of requests in one.
    mean: requests in a batch, on average.
    padded: inferences computed for padding over all inferences computed, in [0, 1].
    """

    counts: dict[int, int]
    mean: float
    padded: float


class RoutingCost(Model):
    """What it took workers of one host to route requests as they came due (loop/routing.py).

    chosen: number of requests whose worker was chosen.
    histogram: of the time from when a worker found a request due that had no worker until it knew which, ns: reading
        what all have outstanding, choosing, and waiting for another that chose.
    """

    chosen: Count
    histogram: dict[str, Any]

    @field_validator("histogram")
    @classmethod
    def _a_histogram(cls, given: dict[str, Any]) -> dict[str, Any]:
        require_histogram("routing", given)
        return given


class ScenarioResult(Model):
    """A run by the rules of MLPerf (stats/scenario.py).

    scenario: single-stream, multi-stream, server or offline.
    metric: name of the scenario's result.
    latency_ns: the result of single-stream and multi-stream: the estimate that early stopping allows; None for none.
    inferences_per_s: the result of server and offline; None for none.
    percentile_ns: the scenario's percentile of latency, as observed.
    target_ns: the server's latency bound.
    over: requests above target_ns.
    by_rules: all rules are kept.
    reasons: the rules that are not kept.
    """

    scenario: str
    metric: str
    latency_ns: float | None = None
    inferences_per_s: float | None = None
    percentile_ns: float | None = None
    target_ns: int | None = None
    over: int | None = None
    requests: int
    by_rules: bool
    reasons: tuple[str, ...]


class Window(Model):
    """The time in which requests were sent, without its first tenth, in which queues fill: what is served later, others
    may have left.

    due: requests that came due in that time.
    served: requests that were served in it. Where queues do not grow that is `due`, but for chance.
    span_ns: how long it is.
    """

    due: Count
    served: Count
    span_ns: Count
