"""What sweeps and searches for capacity leave behind: the schemas of sweep.json and capacity.json. Each point and each
trial is a run (results/run_result.py), trimmed.

Times are ns (`_ns`), memory is bytes (`_bytes`), rates are a second (`_per_s`): requests, unless the name says
inferences (requests × batch). None means that a number is not known or not supported by the sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from loadtrt.asked.config import RunConfig  # noqa: TC001  # pydantic reads them
from loadtrt.asked.fields import Objectives, ObjectiveText  # noqa: TC001
from loadtrt.asked.load_declarations import LoadOptions  # noqa: TC001  # pydantic reads them
from loadtrt.asked.model import Model as Neighbour  # noqa: TC001
from loadtrt.results import Model, Result
from loadtrt.results.engine_info import EngineInfo, MemoryBill  # noqa: TC001  # pydantic reads them
from loadtrt.results.run_result import RunResult  # noqa: TC001
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterable


CandidateAnswer: TypeAlias = Literal["found", "estimated", "undecided", "infeasible", "host-bound", "unsteady"]


class SweepPoint(Model):
    """One point of the grid.

    settings: the value of each axis, by option name.
    run: the run as `trimmed` leaves it; None if none was made.
    failure: why no run was made, or why it ended early; None otherwise.
    """

    settings: dict[str, Any]
    run: RunResult | None
    failure: str | None = None


class SkippedPoint(Model):
    """A point that was not measured: throughput no longer gained along its axis, or the sweep ended before."""

    settings: dict[str, Any]
    reason: str


class SweepResult(Result):
    """All of one sweep.

    config: the configuration that all points share.
    axes: the values of each axis, by option name, in the order of the command line.
    outcome: completed (failed points included), interrupted (Ctrl-C; it can be resumed), or failed (see `failure`).
    points: the measured points, in the order of the grid.
    skipped: the points that were not measured, in the order of the grid.
    pareto: places in `points` that no other point beats in both inferences per second and p99 latency, by latency;
        without points that are INVALID, or dropped or failed requests and did not meet objectives all the same.
    knee: place in `points` with the greatest power X/R, inferences per second over mean latency (Kleinrock, Power and
        deterministic rules of thumb, 1979); None without points.
    """

    schema_version: Literal["loadtrt.sweep/1"] = "loadtrt.sweep/1"
    loadtrt: str
    started: str
    command: tuple[str, ...]
    config: RunConfig
    environment: dict[str, Any]
    axes: dict[str, tuple[Any, ...]]
    outcome: Literal["completed", "interrupted", "failed"]
    failure: str | None = None
    points: tuple[SweepPoint, ...] = ()
    skipped: tuple[SkippedPoint, ...] = ()
    pareto: tuple[int, ...] = ()
    knee: int | None = None


_OF_RUNS = ("gpu",)
_OF_WORKERS = ("gpu", "host", "device", "numa_node")


def trimmed(run: RunResult) -> RunResult:
    """A run without its seconds, its sample of records and all histograms but latency's, and so its workers. Of its
    environment the GPU is kept, whose clocks differ between runs of one machine; of a worker's where it ran, too."""
    kept = _OF_WORKERS if run.config.worker is not None else _OF_RUNS
    telemetry = run.telemetry
    models = {
        name: model.model_copy(update={"intervals": (), "sample": None, "histograms": _latency_of(model.histograms)})
        for name, model in run.models.items()
    }
    return run.model_copy(
        update={
            "models": models,
            "environment": {name: run.environment[name] for name in kept if name in run.environment},
            "telemetry": None if telemetry is None else telemetry.model_copy(update={"intervals": ()}),
            "workers": tuple(map(trimmed, run.workers)),
        }
    )


def _latency_of(histograms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: histogram for name, histogram in histograms.items() if name == "latency"}


class Trial(Model):
    """One run of the search.

    kind: "ladder" for a closed loop; "search", "confirm" and "refute" for an open loop.
    in_flight: concurrency of a closed loop.
    rate_per_s: arrival rate of an open loop.
    run: the result; None if the run failed before it measured anything.
    failure: why the run failed, or why it ended early.
    host_bound: evidence that the load generator was the bottleneck, so that the trial does not measure the engine.
    overloaded: models beside it whose queues grew until the end: they did not have their loads.
    """

    kind: Literal["ladder", "search", "confirm", "refute"]
    in_flight: int | None = None
    rate_per_s: float | None = None
    seed: int
    run: RunResult | None
    failure: str | None = None
    host_bound: str | None = None
    overloaded: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_a_load(self) -> Self:
        name = "in_flight" if self.kind == "ladder" else "rate_per_s"
        if not (getattr(self, name) or 0) > 0:
            raise ValueError(f"a trial of kind {self.kind} needs {name} above 0")
        return self


class Scaling(Model):
    """Throughput X of a closed loop with N requests in flight, by the universal scalability law.

    X(N) = αN / (1 + σ(N−1) + κN(N−1)) (Gunther, Guerrilla capacity planning, 2007).

    alpha_per_s: α, throughput at a concurrency of 1.
    sigma: σ, contention.
    kappa: κ, coherency.
    peak_in_flight: √((1−σ)/κ), the concurrency of the greatest throughput; None where throughput only grows.
    most_per_s: greatest throughput measured.
    knee_in_flight: measured concurrency with the greatest X/R, R the mean latency (Kleinrock's power).
    error_ratio: greatest |fitted − measured| / measured.
    """

    alpha_per_s: float
    sigma: float
    kappa: float
    peak_in_flight: float | None
    most_per_s: float
    knee_in_flight: int
    error_ratio: float


class ObjectiveCapacity(Model):
    """The rate at which one objective is just met, by regression over all trials.

    rate_per_s: the estimate; None where the trials do not determine it.
    low_per_s, high_per_s: 95 % confidence interval; None on a side that the trials do not bound.
    """

    objective: ObjectiveText
    rate_per_s: float | None
    low_per_s: float | None
    high_per_s: float | None


class Candidate(Model):
    """The capacity of one engine with a number of contexts and a batch size.

    contexts, batch, buffers: what is tried; batch is None for the engine's own.
    batcher: how batches of single requests form; None without a batcher. Rates are of single requests then.
    engine, memory: the engine and its memory; None if it did not open (`failure` says why).
    trials: runs in the order in which they were made.
    scaling: the law fitted to the ladder.
    predicted_per_s: capacity predicted from the ladder alone.
    answer: "found": a confirming run met all objectives at `confirmed_per_s`. "undecided": no confirming run met or
        missed them; only `estimate_per_s` is known. "infeasible": missed with one request in flight, or at the lowest
        rate. "estimated": as was asked with --quick, or throughput limits the rate. "host-bound": the load generator
        was the bottleneck at `host_bound_per_s`. "unsteady": the ladder contradicts itself, or others use the cores or
        the GPU. None: not searched (`dropped` says why), or ended too early.
    estimate_per_s: least estimate over the objectives.
    low_per_s, high_per_s: 95 % confidence interval of the estimate.
    confirmed_per_s: rate of the confirming run.
    binding: text of the objective with the least estimate.
    feasible_max_per_s: highest rate at which a confirming run met all objectives; without one, any run.
    infeasible_min_per_s: lowest rate at which a refuting run missed any objective; without one, any run.
    host_bound_per_s: rate at which the load generator was the bottleneck.
    boundary: "cliff" if the share of bad requests passes from far below to far above the allowed one within the
        precision; otherwise "smooth".
    joules_per_inference: energy of an inference in the confirming run, J; None without telemetry.
    conclusion: the answer in one sentence.
    dropped: why the candidate was not searched.
    failure: why the engine did not open, or the search failed.
    """

    contexts: int
    batch: int | None
    buffers: int
    batcher: str | None = None
    engine: EngineInfo | None = None
    memory: MemoryBill | None = None
    trials: tuple[Trial, ...] = ()
    scaling: Scaling | None = None
    predicted_per_s: float | None = None
    answer: CandidateAnswer | None = None
    estimate_per_s: float | None = None
    low_per_s: float | None = None
    high_per_s: float | None = None
    confirmed_per_s: float | None = None
    objectives: tuple[ObjectiveCapacity, ...] = ()
    binding: str | None = None
    feasible_max_per_s: float | None = None
    infeasible_min_per_s: float | None = None
    host_bound_per_s: float | None = None
    boundary: Literal["smooth", "cliff"] | None = None
    joules_per_inference: float | None = None
    conclusion: str = ""
    dropped: str | None = None
    failure: str | None = None

    @property
    def items(self) -> int:
        """The batch size; of a mix the largest, and 1 with a batcher."""
        return 1 if self.batcher else self.size or 1

    @property
    def size(self) -> int | None:
        """The batch size of its engine, or the one that is asked for; None where neither is known."""
        return self.batch if self.engine is None else self.engine.batch

    @property
    def inferences_per_request(self) -> float:
        """Mean number of inferences in a request."""
        return 1.0 if self.batcher else inferences_of(self.trials) or self.items

    @property
    def name(self) -> str:
        """The name by which reports distinguish candidates."""
        return name_of(self.contexts, self.batch)

    @property
    def ladder(self) -> tuple[Trial, ...]:
        """The closed loops, from one request in flight up; of those that were repeated the last."""
        return last_rungs(self.trials)

    @property
    def searched(self) -> tuple[Trial, ...]:
        """The open loops, in the order in which they were made."""
        return tuple(trial for trial in self.trials if trial.kind != "ladder")


class CapacityResult(Result):
    """All of one capacity search: the schema of capacity.json.

    config: the configuration that all trials share.
    environment: machine and versions, as in a run.
    load: how requests arrive in the trials, without the rate.
    peak_ratio: highest arrival rate over the mean one, of stages, bursts and traces; None where the rate is steady.
    precision: half the width of the estimate's interval over the estimate at which the search ends.
    time_ns: duration of all runs of a candidate together.
    quick: whether the capacity is only estimated.
    shared: whether it was searched although others may have used the cores or the GPU (--shared-host).
    of: name of the model among others; None without others.
    beside: these others, which held their own loads meanwhile, by name.
    outcome: completed, interrupted (Ctrl-C; it can be resumed), or failed (see `failure`).
    candidates: one for each pair of contexts and batch.
    chosen: index of the candidate with the greatest capacity in inferences per second; None where none has any.
    reason: why that candidate.
    """

    schema_version: Literal["loadtrt.capacity/1"] = "loadtrt.capacity/1"
    loadtrt: str
    started: str
    command: tuple[str, ...]
    config: RunConfig
    environment: dict[str, Any]
    load: LoadOptions
    peak_ratio: float | None = None
    objectives: Objectives
    contexts: tuple[int, ...]
    batches: tuple[int | None, ...]
    precision: float
    time_ns: int
    quick: bool = False
    shared: bool = False
    of: str | None = None
    beside: dict[str, Neighbour] = Field(default_factory=dict)
    outcome: Literal["completed", "interrupted", "failed"]
    failure: str | None = None
    candidates: tuple[Candidate, ...] = ()
    chosen: int | None = None
    reason: str = ""

    @property
    def best(self) -> Candidate | None:
        """The chosen candidate; None without one."""
        known = self.chosen is not None and 0 <= self.chosen < len(self.candidates)
        return self.candidates[self.chosen or 0] if known else None


def last_rungs(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The closed loops of a ladder, the last of those that were repeated, which is the longest."""
    return tuple({rung_of(trial): trial for trial in trials if trial.kind == "ladder"}.values())


def rung_of(trial: Trial) -> tuple[int | None, int | None]:
    """(requests in flight, size of a batch) of a closed loop."""
    return trial.in_flight, None if trial.run is None else trial.run.model.engine.batch


def name_of(contexts: int, batch: int | None) -> str:
    """ "4 contexts, batch 8"."""
    return plural(contexts, "context") + (f", batch {batch}" if batch is not None else "")


def inferences_of(trials: Iterable[Trial]) -> float | None:
    """Mean number of inferences in a served request; None if not known."""
    counts = [
        (run.model.inferences, run.model.ok)
        for trial in trials
        if (run := trial.run) is not None and run.model.inferences is not None
    ]
    served = sum(ok for _, ok in counts)
    return sum(inferences for inferences, _ in counts) / served if served else None
