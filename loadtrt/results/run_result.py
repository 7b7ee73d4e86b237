"""What a run leaves behind: the schema of run.json. Reports are drawn from this and from nothing else.

Times are ns (`_ns`), memory is bytes (`_bytes`). None means that a number is not known or not supported by the sample.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from loadtrt.asked.config import RunConfig  # noqa: TC001
from loadtrt.asked.fields import ObjectiveText  # noqa: TC001
from loadtrt.asked.objective import Verdict, overall
from loadtrt.records.histogram import require_histogram
from loadtrt.results.engine_info import ClockMapping, EngineInfo, MemoryBill, Verification  # noqa: TC001  # pydantic reads them
from loadtrt.results.frozen import Model
from loadtrt.results.gpu_telemetry import GpuTelemetry  # noqa: TC001
from loadtrt.results.interval import Interval  # noqa: TC001
from loadtrt.results.profile_result import ProfileResult  # noqa: TC001

_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_PERCENTILES = ("p50", "p90", "p95", "p99", "p99.9")


class MetricSummary(Model):
    """One metric over all requests. percentiles_ns: p50, p90, p95, p99, p99.9. margins: of these and of the "mean", as
    far as the sample tells: the true one lies between number / (1 + margin) and number · (1 + margin), 95 %
    (stats/margin.py)."""

    count: _Count
    mean_ns: float | None
    min_ns: int | None
    max_ns: int | None
    percentiles_ns: dict[str, float | None]
    margins: dict[str, _Positive] = Field(default_factory=dict)

    @field_validator("percentiles_ns")
    @classmethod
    def _all_of_them(cls, given: dict[str, float | None]) -> dict[str, float | None]:
        missing = [name for name in _PERCENTILES if name not in given]
        if missing:
            raise ValueError(f"there is no {missing[0]}")
        return given


class Lane(Model):
    """One lane's work."""

    lane: int
    requests: int
    service_p50_ns: float | None
    compute_p50_ns: float | None


class Overlap(Model):
    """busy_fraction: part of the time in which any lane computed; lanes_computing: how many did on average then."""

    busy_fraction: float
    lanes_computing: float


class Problem(Model):
    """Why a measurement cannot be trusted.

    kind: a word for programs, such as "late" (findings/validity.py).
    evidence, remedy: one sentence each.
    """

    kind: str
    evidence: str
    remedy: str


class Finding(Model):
    """What bound this run, or what its reader should know. kind: a word that programs can tell it by, such as
    "copy-bound". evidence, cause, remedy: one sentence each; the remedy names the flag that helps and is not in use."""

    kind: str
    evidence: str
    cause: str
    remedy: str


class SlowPart(Model):
    """A part of the run in which the engine fell behind (stats/steady.py). start_ns, end_ns: about when, from the
    start of measuring. served_per_s: in it; expected_per_s: as many came meanwhile, or where all waits (closed loop,
    offline) were served a second in the whole run. over_ns: when what had gathered was gone; None: never, or not known.
    """

    start_ns: int
    end_ns: int
    served_per_s: _Positive
    expected_per_s: _Positive
    over_ns: int | None = None


class Stall(Model):
    """Times in which requests waited and none was answered (stats/stalls.py). start_ns, longest_ns: the longest of
    them, from the start of measuring; times, total_ns: all of them. late: requests that were late by them. host:
    loadtrt itself stood still in the longest, not the engine."""

    start_ns: int
    longest_ns: _Count
    times: _Count
    total_ns: _Count
    late: _Count
    host: bool


class Steadiness(Model):
    """Whether the measured time was one steady state (stats/steady.py). transient_ns: how much of its beginning was
    not (MSER-5); 0 for none. transient_ratio: latencies in it over those after it, None without one. drift_ratio:
    latencies at the end over those at the beginning, fitted, None where noise explains it. overloaded: requests came
    faster than they were served, to the end. slow, stall: None for none. None else: too few requests to tell, or (but
    for overloaded, slow and stall) a load that is not meant to be steady."""

    transient_ns: int | None = None
    transient_ratio: float | None = None
    drift_ratio: float | None = None
    overloaded: bool | None = None
    slow: SlowPart | None = None
    stall: Stall | None = None


class Cohort(Model):
    """Where the time of some requests went: means, ns. other_ns: service − h2d − compute − d2h, waiting in the lane.

    requests: how many they are; latency_low_ns, latency_high_ns: what they have in common."""

    requests: int
    latency_low_ns: int
    latency_high_ns: int
    latency_ns: float
    queue_ns: float
    h2d_ns: float
    compute_ns: float
    d2h_ns: float
    other_ns: float


class Sample(Model):
    """Records one by one of a stretch of the run: those around the slowest. columns: by name (records.COLUMNS),
    instants in ns from the start of measuring."""

    columns: dict[str, tuple[int, ...]]

    @field_validator("columns")
    @classmethod
    def _whole(cls, given: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        if len(set(map(len, given.values()))) > 1:
            raise ValueError("its columns are of different lengths")
        return given


class Phases(Model):
    """How long each phase took. measure_ns: from the start to the last completion. clocks_settled: None: not known."""

    load_ns: int = 0
    allocate_ns: int = 0
    verify_ns: int = 0
    warmup_ns: int = 0
    warmup_requests: int = 0
    clocks_settled: bool | None = None
    measure_ns: int = 0
    drain_ns: int = 0


class MixPart(Model):
    """The requests of one part of a mix. requests: served. offered_share: its weight, as asked for. metrics: over the
    records that were kept, one by one."""

    name: str
    offered_share: float
    requests: int
    metrics: dict[str, MetricSummary]


class Batches(Model):
    """Batches that the batcher formed and the engine served, of the records that were kept. counts: by how many
    requests were in one. padded: inferences computed for nobody, over all that were computed."""

    counts: dict[int, int]
    mean: float
    padded: float


class Throughput(Model):
    """Served within the measured time. offered_per_s: None in a closed loop. margin: of requests_per_s, as in
    metrics."""

    requests_per_s: float | None
    inferences_per_s: float | None
    offered_per_s: float | None
    margin: _Positive | None = None


class ObjectiveShare(Model):
    """How an objective fared: `good` of `requests` (all: a failed one is not good) were within the bound; value_ns is
    the quantile that it binds, over those served, None where the sample does not support it.

    verdict: see stats/verdict.py; None in files from before there were any. bad_low, bad_high: the interval of the
    share of bad requests, in [0, 1]; value_low_ns, value_high_ns: of the quantile, None where the sample bounds it from
    one side only; all 95 %. effective: how many independent requests these were worth. reason: why undecided."""

    objective: ObjectiveText
    good: int
    requests: int
    value_ns: float | None
    verdict: Verdict | None = None
    bad_low: float | None = None
    bad_high: float | None = None
    value_low_ns: float | None = None
    value_high_ns: float | None = None
    effective: float | None = None
    reason: str | None = None

    @property
    def bad(self) -> float | None:
        """The share of bad requests; None where none was due."""
        return 1 - self.good / self.requests if self.requests else None


class ScenarioResult(Model):
    """A run by the rules of MLPerf (stats/scenario.py). metric: what the scenario's result is; it stands in
    latency_ns (single-stream and multi-stream: the estimate that early stopping allows) or in inferences_per_s, None
    where there is none. percentile_ns: that percentile of the latencies, as it was seen. target_ns, over: the server's
    bound, and the requests above it. by_rules: False where `reasons` say which rules are not kept."""

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


class ModelResult(Model):
    """What was measured of one model of a run.

    engine, memory: what served, and the memory that it took.
    valid: the generator was not the bottleneck and nothing went wrong; otherwise `problems` says what and what to do.
    submitted: requests sent: ok + failed + those in flight when the run gave up.
    unserved: requests in flight when the run gave up, or due and never sent.
    dropped: requests that came due while the queue was full.
    inferences: in the requests that were served.
    ended_early: why measuring ended before its time, though nothing went wrong.
    percentiles_exact: False where histograms (within 0.4 %) stand in for records.
    metrics: by name, over all requests.
    histograms: of latencies and the other metrics, by name.
    starved_fraction: share of the time in which lanes stood idle because the host was late.
    cohorts: "p50" (latencies from p45 to p55) and "p99" (from p99 up), as far as the sample supports them.
    precision_reached: half the width of the 95 % interval over the value, of the widest quantile, where asked for.
    """

    engine: EngineInfo
    memory: MemoryBill
    valid: bool
    problems: tuple[Problem, ...]
    submitted: _Count
    ok: _Count
    failed: _Count
    unserved: _Count
    dropped: _Count = 0
    inferences: int = 0
    first_error: str | None
    throughput: Throughput
    percentiles_exact: bool
    metrics: dict[str, MetricSummary]
    lanes: tuple[Lane, ...]
    fairness: float | None
    overlap: Overlap | None
    starved_fraction: float
    verification: Verification | None
    intervals: tuple[Interval, ...]
    histograms: dict[str, dict[str, Any]]
    objectives: tuple[ObjectiveShare, ...] = ()
    profile: ProfileResult | None = None
    findings: tuple[Finding, ...] = ()
    steadiness: Steadiness | None = None
    cohorts: dict[str, Cohort] = Field(default_factory=dict)
    sample: Sample | None = None
    mix: tuple[MixPart, ...] = ()
    batches: Batches | None = None
    ended_early: str | None = None
    precision_reached: float | None = None
    scenario: ScenarioResult | None = None

    @property
    def verdict(self) -> Verdict | None:
        """On all objectives of the model together."""
        return overall(share.verdict for share in self.objectives)

    @field_validator("histograms")
    @classmethod
    def _histograms(cls, given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, histogram in given.items():
            require_histogram(name, histogram)
        return given


class RunResult(Model):
    """All of one run: the schema of run.json.

    run: an id that no other run has, as its metrics bear it.
    started: when the command began, ISO 8601, UTC.
    began: when measuring began, ISO 8601 with ns, UTC; "" where it never did.
    began_error_ns: the greatest error of `began`, ns.
    config: the configuration, which can be run again.
    environment: machine, versions and the GPU's state around the run.
    outcome: completed, interrupted (Ctrl-C), or failed (see `failure`).
    valid: the numbers of all models can be trusted.
    models: what was measured of each model, by its name in the configuration.
    host_cores: processor time of loadtrt's process over measured time.
    clock: how the GPU's clock was mapped onto the host's.
    telemetry: the GPU's, while measuring.
    """

    schema_version: Literal["loadtrt.run/1"] = "loadtrt.run/1"
    run: str = ""
    loadtrt: str
    started: str
    began: str = ""
    began_error_ns: _Count = 0
    command: tuple[str, ...]
    config: RunConfig
    environment: dict[str, Any]
    outcome: Literal["completed", "interrupted", "failed"]
    failure: str | None
    valid: bool
    phases: Phases
    host_cores: float
    clock: ClockMapping | None
    telemetry: GpuTelemetry | None = None
    models: dict[str, ModelResult] = Field(min_length=1)

    @property
    def model(self) -> ModelResult:
        """What was measured in a run of one model."""
        (model,) = self.models.values()
        return model

    @property
    def verdict(self) -> Verdict | None:
        """On all objectives of all models together."""
        return overall(model.verdict for model in self.models.values())

    def with_model(self, **changes: Any) -> RunResult:
        """The result of a run of one model with attributes of the model changed, which are not checked again."""
        ((name, model),) = self.models.items()
        return self.model_copy(update={"models": {name: model.model_copy(update=changes)}})

    @model_validator(mode="after")
    def _models_of_the_configuration(self) -> Self:
        if set(self.models) != set(self.config.models):
            raise ValueError("its models are not those of its configuration")
        return self

    @field_validator("started")
    @classmethod
    def _an_instant(cls, given: str) -> str:
        if given and not 1970 <= datetime.fromisoformat(given).year < 3000:
            raise ValueError("it is not an instant of a run")
        return given
