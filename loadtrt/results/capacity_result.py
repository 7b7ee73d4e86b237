"""What a search for capacity leaves behind: the schema of capacity.json. Each trial is a run (results/run_result.py),
trimmed (results/sweep_result.py).

Times are ns (`_ns`), rates are a second (`_per_s`): requests, unless the name says inferences (requests × batch).
None means that a number is not known or not supported by the sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from loadtrt.asked.config import RunConfig  # noqa: TC001  # pydantic reads them
from loadtrt.asked.fields import Objectives, ObjectiveText  # noqa: TC001
from loadtrt.asked.model import LoadOptions  # noqa: TC001  # pydantic reads them
from loadtrt.results.engine_info import EngineInfo, MemoryBill  # noqa: TC001  # pydantic reads them
from loadtrt.results.frozen import Model
from loadtrt.results.run_result import RunResult  # noqa: TC001
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterable


class Trial(Model):
    """One run of the search. ladder: a closed loop with `in_flight` requests. search, confirm, refute: an open loop at
    `rate_per_s`. run: None where it failed before it measured anything; failure: why, or why it ended early.

    host_bound: the generator was the bottleneck, in a sentence: the trial says nothing about the engine."""

    kind: Literal["ladder", "search", "confirm", "refute"]
    in_flight: int | None = None
    rate_per_s: float | None = None
    seed: int
    run: RunResult | None
    failure: str | None = None
    host_bound: str | None = None


class Scaling(Model):
    """Throughput of a closed loop with N requests in flight, by the universal scalability law (Gunther, Guerrilla
    capacity planning, 2007): X(N) = αN / (1 + σ(N−1) + κN(N−1)). alpha: X of one; sigma: contention; kappa: coherency.

    peak_in_flight = √((1−σ)/κ), where X is greatest, None where it only grows. most_per_s: the greatest X(N) measured.
    knee_in_flight: the N measured with the greatest X/R, R mean latency (Kleinrock's power). error_ratio: the greatest
    |fitted − measured| / measured."""

    alpha_per_s: float
    sigma: float
    kappa: float
    peak_in_flight: float | None
    most_per_s: float
    knee_in_flight: int
    error_ratio: float


class ObjectiveCapacity(Model):
    """The rate at which one objective is just met, by the regression over all trials; low, high: 95 %. None where the
    trials do not bound it from that side, or do not tell."""

    objective: ObjectiveText
    rate_per_s: float | None
    low_per_s: float | None
    high_per_s: float | None


class Candidate(Model):
    """One engine that was asked for its capacity: so many contexts, that batch.

    engine, memory: None where it did not open (`failure` says why). trials: in the order in which they were made.
    scaling: of the ladder. predicted_per_s: the capacity that the ladder alone lets expect.

    answer: found: a confirming run met all objectives at `confirmed_per_s`. undecided: it neither met nor missed
    them, or there was none; `estimate` is then all that is known. infeasible: missed with one request in flight, or at
    the lowest rate. host-bound: the generator was the bottleneck before the engine was, at `host_bound_per_s`.
    None: not searched (`dropped` says why), or ended too early.
    estimate_per_s (low, high: 95 %): the least over the objectives, whose text is `binding`; `objectives` has each.
    feasible_max_per_s, infeasible_min_per_s: the highest rate at which a confirming run met all objectives, the lowest
    at which a refuting one missed any; where there is none, any run. boundary: cliff: from far below the allowed share
    to far above it within the precision. joules_per_inference: at the confirming run, where telemetry tells.
    conclusion: all that in a sentence."""

    contexts: int
    batch: int | None
    buffers: int
    engine: EngineInfo | None = None
    memory: MemoryBill | None = None
    trials: tuple[Trial, ...] = ()
    scaling: Scaling | None = None
    predicted_per_s: float | None = None
    answer: Literal["found", "undecided", "infeasible", "host-bound"] | None = None
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
        """The batch; of a mix the largest."""
        return self.engine.batch if self.engine is not None else self.batch or 1

    @property
    def inferences_per_request(self) -> float:
        """On average, of a mix."""
        return inferences_of(self.trials) or self.items

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return name_of(self.contexts, self.batch)

    @property
    def ladder(self) -> tuple[Trial, ...]:
        """The closed loops, from one request in flight up."""
        return tuple(trial for trial in self.trials if trial.kind == "ladder")

    @property
    def searched(self) -> tuple[Trial, ...]:
        """The open loops, in the order in which they were made."""
        return tuple(trial for trial in self.trials if trial.kind != "ladder")


class CapacityResult(Model):
    """All of one search. config: what all trials have in common, a configuration of `loadtrt run`; load: how requests
    arrive in the trials, without the rate; environment: as in a run. contexts,
    batches: what was asked to be tried. precision: half the width of the estimate's interval over the estimate at which
    the search ends. trial_ns: how long a trial lasts; longest_trial_ns: how long where its requests are worth little,
    None where all last as long.

    outcome: completed, interrupted (Ctrl-C; it can be resumed), or failed (see `failure`). chosen: the place in
    `candidates` with the greatest capacity in inferences a second, and `reason` why; None where none has any."""

    schema_version: Literal["loadtrt.capacity/1"] = "loadtrt.capacity/1"
    loadtrt: str
    started: str
    command: tuple[str, ...]
    config: RunConfig
    environment: dict[str, Any]
    load: LoadOptions
    objectives: Objectives
    contexts: tuple[int, ...]
    batches: tuple[int | None, ...]
    precision: float
    trial_ns: int
    longest_trial_ns: int | None = None
    max_trials: int
    outcome: Literal["completed", "interrupted", "failed"]
    failure: str | None = None
    candidates: tuple[Candidate, ...] = ()
    chosen: int | None = None
    reason: str = ""

    @property
    def best(self) -> Candidate | None:
        """The candidate that was chosen, if there is such a place."""
        known = self.chosen is not None and 0 <= self.chosen < len(self.candidates)
        return self.candidates[self.chosen or 0] if known else None


def name_of(contexts: int, batch: int | None) -> str:
    """ "4 contexts, batch 8"."""
    return plural(contexts, "context") + (f", batch {batch}" if batch is not None else "")


def inferences_of(trials: Iterable[Trial]) -> float | None:
    """In one request, on average over all that were served; None where none was, or nobody counted."""
    counts = [
        (run.model.inferences, run.model.ok)
        for it in trials
        if (run := it.run) is not None and run.model.inferences is not None
    ]
    served = sum(ok for _, ok in counts)
    return sum(inferences for inferences, _ in counts) / served if served else None
