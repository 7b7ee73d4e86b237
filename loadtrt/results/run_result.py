"""What a run leaves behind: the schema of run.json. Reports are drawn from this and from nothing else.

Times are ns (`_ns`), memory is bytes (`_bytes`). None means that a number is not known or not supported by the sample.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from loadtrt.asked.config import RunConfig  # noqa: TC001
from loadtrt.asked.fields import ObjectiveText  # noqa: TC001
from loadtrt.asked.model import Model as AskedModel  # noqa: TC001
from loadtrt.asked.objective import Verdict, overall
from loadtrt.load.inputs import InputOrigin  # noqa: TC001
from loadtrt.records.histogram import require_histogram
from loadtrt.records.records import Records  # noqa: TC001
from loadtrt.results import Count, Model, Positive, Result
from loadtrt.results.breakdown import (  # noqa: TC001
    Batches,
    Cohort,
    Lane,
    MetricSummary,
    MixPart,
    Overlap,
    Phases,
    RoutingCost,
    Sample,
    ScenarioResult,
    Throughput,
    Window,
)
from loadtrt.results.engine_info import ClockMapping, EngineInfo, MemoryBill, Verification  # noqa: TC001  # pydantic reads them
from loadtrt.results.flow import Flow  # noqa: TC001
from loadtrt.results.gpu_telemetry import GpuSharing, GpuTelemetry  # noqa: TC001
from loadtrt.results.precisions import Deviation  # noqa: TC001
from loadtrt.results.profile_result import ProfileResult  # noqa: TC001
from loadtrt.results.steadiness import Interval, Steadiness  # noqa: TC001
from loadtrt.units import SECOND_NS, plural


class Problem(Model):
    """Why a measurement cannot be trusted.

    kind: a word for programs, such as "late" (findings/validity.py).
    evidence, remedy: one sentence each.
    """

    kind: str
    evidence: str
    remedy: str


class Finding(Model):
    """What limited this run, or what its reader should know.

    kind: a word for programs, such as "copy-bound" (docs/findings.md lists all).
    evidence: the numbers, one sentence.
    cause: the explanation, one sentence.
    remedy: the option that helps and is not in use, one sentence.
    """

    kind: str
    evidence: str
    cause: str
    remedy: str


class LostWorker(Model):
    """A worker of a fleet without a result.

    worker: its number.
    why: how it was lost, in words.
    completed: requests that it had completed when it was last heard of; None where nothing is known.
    """

    worker: Count
    why: str
    completed: Count | None = None


class ObjectiveShare(Model):
    """How well a run meets an objective (SLO). Intervals are 95 % confidence intervals (stats/verdict.py).

    objective: the objective, such as "latency.p99 < 10ms".
    good: requests within the bound; a failed request is not good.
    requests: all finished requests.
    value_ns: the quantile that the objective bounds, over served requests; None where the sample does not support it,
        and where no quantile is bounded.
    verdict: met, missed or undecided.
    bad_low, bad_high: interval of the share of bad requests, in [0, 1].
    value_low_ns, value_high_ns: interval of the quantile; None on a side that the sample does not bound.
    effective: effective sample size: the number of independent requests that these are worth; None of a number.
    averaged: share of bad requests, averaged over arrivals (sizing/averaging.py), of which the interval, the
        effective sample size and the verdict are then, too; None: they are of the share in the run.
    reason: why the verdict is undecided; None otherwise.
    value, value_low, value_high: the number of the whole run that the objective bounds (stats/whole_run.py), with its
        interval: per second, in watts, or in joules for each inference.
    """

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
    averaged: float | None = None
    reason: str | None = None
    value: float | None = None
    value_low: float | None = None
    value_high: float | None = None

    @property
    def bad(self) -> float | None:
        """The share of bad requests; None where none was due, and for a number of the whole run."""
        if self.averaged is not None:
            return self.averaged
        return 1 - self.good / self.requests if self.requests and self.objective.of_requests else None


class ModelResult(Model):
    """What was measured of one model of a run.

    engine, memory: what served, and the memory that it took.
    inputs: where the values of each input come from; requests take the sets in turn, or as a mix draws them.
    valid: the generator was not the bottleneck and nothing went wrong; otherwise `problems` says what and what to do.
    submitted: requests sent: ok + failed + those in flight when the run gave up.
    unserved: requests in flight when the run gave up, or due and never sent.
    dropped: requests that came due while the queue was full.
    inferences: in the requests that were served.
    ended_early: why measuring ended before its time, though nothing went wrong.
    percentiles_exact: False where histograms (within 0.4 %) stand in for records.
    metrics: by name, over all requests, as far as they were measured (--device-times).
    histograms: of latencies and the other metrics, by name.
    deviation: of the outputs from those in FP32, or from those of another reference; None where none was asked for.
    fairness: Jain's index of the lanes' requests, or of the throughput of the workers of a fleet: 1 is equal shares.
    starved_fraction: share of the time in which lanes stood idle because the host was late.
    interval_ns: length of an interval: a second, or in runs of over 4096 intervals 2, 4, 8, … seconds.
    cohorts: "p50" (latencies from p45 to p55) and "p99" (from p99 up), as far as the sample supports them.
    precision_reached: half the width of the 95 % interval over the value, of the widest quantile, where asked for.
    flow: speed and work by requests in flight; None for few requests, and where they are launched several at a time.
    trace: digest of the instants of the trace, and of the keys by which workers share it; "" without one.
    failure: what ended the run of this model of several.
    together_ns, measure_ns: how long all models of the run sent requests, from the start, and from there to the last
        completion of this one; None with one model.
    routing: what it took to route requests to workers as they came due; None where none were.
    window: what came due and was served as long as requests were sent; None where not all records are kept, where the
        number of requests decided how long that was, and of a fleet.
    """

    engine: EngineInfo
    memory: MemoryBill
    valid: bool
    problems: tuple[Problem, ...]
    submitted: Count
    ok: Count
    failed: Count
    unserved: Count
    dropped: Count = 0
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
    deviation: Deviation | None = None
    interval_ns: Annotated[int, Field(gt=0)] = SECOND_NS
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
    flow: Flow | None = None
    inputs: dict[str, InputOrigin] = Field(default_factory=dict)
    trace: str = ""
    failure: str | None = None
    together_ns: int | None = None
    measure_ns: int | None = None
    routing: RoutingCost | None = None
    window: Window | None = None

    @property
    def takes_time(self) -> bool:
        """Whether the engine does, as far as is known: of one that takes none, all time is the load generator's."""
        return not self.engine.device_times or bool(self.metrics["compute"].max_ns)

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


class RunResult(Result):
    """All of one run: the schema of run.json.

    run: an id that no other run has, as its metrics bear it.
    started: when the run began, after its engines were opened, ISO 8601, UTC.
    began: when measuring began, ISO 8601 with ns, UTC; "" where it never did.
    began_error_ns: the greatest error of `began` as a reading of the host's clock, ns; how far that clock may be off is
        `clock_error_ns` of the environment.
    late_start_ns: how long after the instant of --start-at measuring began; None where none was asked for.
    workers: the results of the workers of a fleet, whose sum this is (stats/merging.py); empty for one process.
    lost: the workers of which there is no result: of their requests nothing is known.
    start_spread_ns: from the first worker's beginning to measure to the last one's, by the clocks of their hosts.
    config: the configuration, which can be run again.
    environment: machine, versions and the GPU's state around the run.
    outcome: completed, interrupted (Ctrl-C), or failed (see `failure`).
    valid: the numbers of all models can be trusted.
    models: what was measured of each model, by its name in the configuration.
    beside: of one model that was taken out of a run of several: the others, by name.
    host_cores: processor time of loadtrt's process over measured time; None in virtual time, which passes at another
        speed than the processor's.
    clock: how the GPU's clock was mapped onto the host's.
    telemetry: the GPU's, while measuring.
    sharing: who else used the GPU while measuring; None without a GPU.
    """

    schema_version: Literal["loadtrt.run/1"] = "loadtrt.run/1"
    run: str = ""
    loadtrt: str
    started: str
    began: str = ""
    began_error_ns: Count = 0
    late_start_ns: Count | None = None
    command: tuple[str, ...]
    config: RunConfig
    environment: dict[str, Any]
    outcome: Literal["completed", "interrupted", "failed"]
    failure: str | None
    valid: bool
    phases: Phases
    host_cores: Positive | None = None
    clock: ClockMapping | None
    telemetry: GpuTelemetry | None = None
    sharing: GpuSharing | None = None
    models: dict[str, ModelResult] = Field(min_length=1)
    beside: dict[str, AskedModel] = Field(default_factory=dict)
    workers: tuple[RunResult, ...] = ()
    lost: tuple[LostWorker, ...] = ()
    start_spread_ns: Count | None = None
    _records: Records | None = PrivateAttr(None)

    @property
    def records(self) -> Records | None:
        """All requests of a run of one model, in the process that made it; None where it was read from a file, and
        where there were more than are kept. Instants are ns from the start of measuring."""
        return self._records

    def with_records(self, records: Records | None) -> Self:
        """The same result with these requests."""
        made = self.model_copy()
        made._records = records
        return made

    @property
    def fleet(self) -> str:
        """How many workers measured this, such as "4 workers" or "3 of 4 workers", or which one did; "" for a run of
        one process."""
        if self.config.worker is not None:
            closed = all(model.load.closed for model in self.config.models.values())
            return f"worker {self.config.worker} of this load{'' if closed else f', {self.config.routing}'}"
        count = len(self.workers) + len(self.lost)
        return f"{len(self.workers)} of {count} workers" if self.lost else plural(count, "worker") if count else ""

    @property
    def worker(self) -> str:
        """The number of the worker of a fleet that made this run; "" for a run of one process."""
        return "" if self.config.worker is None else self.config.worker.partition("/")[0]

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

    @property
    def began_ns(self) -> int:
        """When measuring began, Unix time in ns; where it never did, or an older result does not say, about when."""
        second = datetime.fromisoformat(self.began or self.started).replace(microsecond=0)
        digits = re.sub(r"\D.*", "", self.began.partition(".")[2])
        ns = int(f"{digits:0<9.9}") if self.began else self.phases.before_ns
        return round(second.timestamp()) * SECOND_NS + ns

    @field_validator("started", "began")
    @classmethod
    def _an_instant(cls, given: str) -> str:
        if given and not 1970 <= datetime.fromisoformat(given).year < 3000:
            raise ValueError("it is not an instant of a run")
        return given
