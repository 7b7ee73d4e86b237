"""The search for one engine: the runs so far, the next one, and the answer in a sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.results.capacity_result import Candidate, ObjectiveCapacity, inferences_of, last_rungs, rung_of
from loadtrt.sizing.averaging import averaged
from loadtrt.sizing.batching import of_delay, server_of
from loadtrt.sizing.conclusion import conclusion, confirming_run
from loadtrt.sizing.early_answers import least_requests, throughput_limits, too_short
from loadtrt.sizing.outcomes import Outcome, Share, Step, interval_of, pooled
from loadtrt.sizing.scaling import Rung, contradiction, fit, half_width, of_one_worker, predicted_per_s, rungs
from loadtrt.stats.binomial import share_interval
from loadtrt.stats.verdict import surely_missed, verdict_on
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.objective import Objective
    from loadtrt.records.records import Records
    from loadtrt.results.capacity_result import CandidateAnswer, Scaling, Trial
    from loadtrt.results.engine_info import EngineInfo, MemoryBill
    from loadtrt.results.run_result import ObjectiveShare, RunResult
    from loadtrt.runs.narrowed import Part
    from loadtrt.sizing.search import Search
    from loadtrt.sizing.station import Station

_FIRST = 0.7  # share of the highest throughput at which the search begins, without a prediction
_RUNG_S, _RUNG_REQUESTS = 2.0, 200  # a closed loop lasts so long, and until it has served so many
_FIRST_RUNG_WIDTH, _RUNG_WIDTH = 0.01, 0.02  # half width of the throughput's confidence interval, at most
_FIRST_RUNG_PART, _RUNG_PART = 0.1, 0.025  # longest closed loop with one request in flight, and others, of the time
_LONG_RUNG_S, _MOST_RUNG_PART = 20.0, 0.3  # if the time is short: that with one request in flight
_MODEL_ERROR, _UNPREDICTED = 0.05, 0.3  # spread of the prediction by the model, and without one


class Work:
    """The search for the capacity of one engine: first the ladder of closed loops, then the open loops of a Search.

    `next_rung` is the next closed loop until it is None, after `begin` `next_step` the next open loop. `record` takes
    each run, and `candidate` is the result so far.

    config: the configuration, with the arrivals of the trials at any rate.
    trials: the runs so far.
    failure: why the engine did not open, or failed; None otherwise.
    dropped: the reason why nothing is searched; None where something is.
    """

    def __init__(
        self,
        config: RunConfig,
        objectives: Sequence[Objective],
        time_s: float,
        search: Callable[[float, float, float, float, Sequence[Share]], Search],
    ) -> None:
        """time_s: duration of all runs.

        search: makes a Search from the first rate and its spread, the highest throughput, the time left, s, and the
            shares of bad requests with one request in flight.
        """
        self.config = config
        self.trials: list[Trial] = []
        self.failure: str | None = None
        self.dropped: str | None = None
        self._objectives, self._begin, self._time_s = objectives, search, time_s
        self._rungs = rungs(config.model.contexts, config.model.buffers, config.model.batching)
        self._info: EngineInfo | None = None
        self._bill: MemoryBill | None = None
        self._scaling: Scaling | None = None
        self._predicted: float | None = None
        self._sampling = 0.0
        self._station: Station | None = None
        self._search: Search | None = None
        self._ended: dict[str, Any] | None = None

    @property
    def next_rung(self) -> Rung | None:
        """The next closed loop; None at the end of the ladder. One whose throughput is not known well enough is
        repeated, as long as that needs or its part of the time allows."""
        if self.failure or self.stops:
            return None
        made = [rung_of(trial) for trial in self.trials if trial.kind == "ladder"]
        place = len(set(made))
        if made and made.count(made[-1]) == 1:
            run, part = self._ladder[-1].run, self._rungs[place - 1]
            width, lasted, longest = half_width(run), _seconds(run), self._longest_s(part)
            wanted = _FIRST_RUNG_WIDTH if part.contexts * part.buffers == 1 else _RUNG_WIDTH
            if self._doubtful or width > wanted:
                seconds = longest if self._doubtful else min(lasted * 1.1 * (width / wanted) ** 2, longest)
                if seconds > lasted:
                    return Rung(part, seconds, 1, seconds)
        if place == len(self._rungs):
            return None
        longest = self._longest_s(self._rungs[place])
        return Rung(self._rungs[place], min(_RUNG_S, longest), _RUNG_REQUESTS, longest)

    def _longest_s(self, part: Part) -> float:
        """The longest closed loop on this part of the engine."""
        batching = self.config.model.batching
        longest_s = self._time_s * _RUNG_PART
        if part.contexts * part.buffers == 1:
            longest_s = max(self._time_s * _FIRST_RUNG_PART, min(_LONG_RUNG_S, self._time_s * _MOST_RUNG_PART))
        return longest_s / (len(batching.sizes) if batching else 1)

    @property
    def stops(self) -> bool:
        """Whether there is an answer already: no rate meets the objectives, or the search was ended."""
        return self._infeasible or self._ended is not None

    def ends(self, answer: CandidateAnswer, conclusion: str = "", **fields: object) -> None:
        """End the search with this answer, unless it has ended.

        conclusion: the answer in a sentence; "": as of any search with this answer.
        fields: further fields of the Candidate.
        """
        self._ended = self._ended or {"answer": answer, "conclusion": conclusion, **fields}

    @property
    def expected(self) -> float:
        """Capacity that the ladder predicts, inferences per second; 0 without a prediction."""
        return (self._first or 0.0) * self._items

    @property
    def most(self) -> float:
        """Highest throughput, inferences per second."""
        return (self._scaling.most_per_s if self._scaling else 0.0) * self._items

    @property
    def reached(self) -> float:
        """Confirmed capacity, or else the estimate, in inferences per second."""
        if self._ended is not None:
            return float(self._ended.get("estimate_per_s", 0.0)) * self._items
        if self._search is None or not self._search.known or self.answer == "infeasible":
            return 0.0
        return (self._search.confirmed or self._search.binding[1].rate) * self._items

    @property
    def begun(self) -> bool:
        """Whether any open loop was run."""
        return any(trial.kind != "ladder" for trial in self.trials)

    def fit_ladder(self) -> None:
        """Fit the scalability law to the complete ladder, and predict the capacity from it."""
        if self._scaling is None:
            self._scaling = fit(self._ladder, self.config.model.batching)
            if self._scaling is not None and not self._infeasible:
                ladder, config, workers = of_one_worker(self._ladder, self.config)
                predicted, self._sampling = predicted_per_s(ladder, config, self._objectives)
                self._predicted = predicted and predicted * workers
                server = server_of([trial.run for trial in ladder if trial.run is not None], self.config.model)
                self._station = server.stations[1] if server is not None and server.batching is None else None
                if unsteady := contradiction(self._ladder):
                    self.ends("unsteady", unsteady)
                items = self.config.model.batching.sizes[-1] if self.config.model.batching else 1
                limited = throughput_limits(
                    self._ladder, items, self._predicted, self._objectives, self._alone, self._time_s
                )
                if limited is not None:
                    self.ends("estimated", **limited)

    def begin(self) -> None:
        """Begin the search, or give the answer that the time is too short; does nothing if there is one already."""
        if self._search is not None or self._first is None or self._scaling is None or self.stops:
            return
        spent_s = sum(_seconds(trial.run) for trial in self.trials)
        search = self._begin(self._first, self._spread, self._scaling.most_per_s, self._time_s - spent_s, self._alone)
        needed = least_requests(self._objectives, confirms=search.confirms)
        if why := too_short(self.trials[0], self._time_s, spent_s, self._first, needed):
            self.ends("undecided", why)
        else:
            self._search = search

    def next_step(self) -> Step | None:
        """The next open loop; None at the end of the search."""
        return None if self.failure or self._ended or self._search is None else self._search.next()

    @property
    def next_seed(self) -> int:
        """A seed of its own for each open loop, so that no two have the same arrivals."""
        runs = 0 if self._search is None else len(self._search.outcomes)
        return int(np.random.SeedSequence([self.config.model.seed, 1 + runs]).generate_state(1)[0])

    def averaged(self, run: RunResult, records: Records) -> RunResult:
        """An open loop with the shares of bad requests averaged over arrivals (sizing/averaging.py), where that can
        be. records: all requests of the run."""
        model = run.config.model
        if self._station is None or model.batcher or model.max_queue is not None or run.outcome != "completed":
            return run
        objectives = [item.objective for item in run.model.objectives]
        shares = averaged(records, model.load, self._station, objectives, model.seed)
        items = zip(run.model.objectives, shares, strict=True)
        return run.with_model(objectives=tuple(_with(item, *share) if share else item for item, share in items))

    def record(self, trial: Trial) -> None:
        """Take a run. An interrupted or failed one is kept, and does not enter the search."""
        self.trials.append(trial)
        run = trial.run
        if run is not None:
            self._info, self._bill = run.model.engine, run.model.memory
        if run is None or trial.failure is not None:
            self.failure = trial.failure
        elif trial.kind != "ladder" and trial.rate_per_s and self._search is not None and run.outcome == "completed":
            step = Step(trial.kind, trial.rate_per_s, (run.config.duration or 0) / SECOND_NS)
            shares = tuple(map(_share, run.model.objectives))
            self._search.record(Outcome(step, shares, trial.host_bound is not None, _seconds(run)))

    def replay(self, trials: Sequence[Trial]) -> None:
        """Take the completed runs of an unfinished search."""
        for trial in trials:
            if trial.run is None or trial.run.outcome != "completed":
                return
            if trial.kind != "ladder":
                self.fit_ladder()
                self.begin()
            self.record(trial)

    @property
    def answer(self) -> CandidateAnswer | None:
        """`answer` of Candidate."""
        if self._infeasible:
            return "infeasible"
        if self._ended is not None:
            return self._ended["answer"]  # type: ignore[no-any-return]
        return None if self._search is None else self._search.answer

    def candidate(self) -> Candidate:
        """The result so far."""
        candidate = Candidate(
            contexts=self.config.model.contexts,
            batch=self.config.model.batch,
            buffers=self.config.model.buffers,
            batcher=self.config.model.batcher,
            engine=self._info,
            memory=self._bill,
            trials=tuple(self.trials),
            scaling=self._scaling,
            predicted_per_s=self._predicted,
            answer=self.answer,
            dropped=self.dropped,
            failure=self.failure,
        )
        if self._ended is not None:
            candidate = candidate.model_copy(update=self._ended)
        elif self._search is not None:
            candidate = candidate.model_copy(update=self._estimates(self._search))
        sentence = candidate.conclusion or conclusion(candidate)
        return candidate.model_copy(update={"conclusion": sentence and sentence + of_delay(candidate)})

    def _estimates(self, search: Search) -> dict[str, Any]:
        """The results of the open loops, as fields of a Candidate."""
        bounds = {
            "feasible_max_per_s": search.feasible_max,
            "infeasible_min_per_s": search.infeasible_min,
            "host_bound_per_s": search.host_bound,
        }
        if not search.known or self.answer == "infeasible":
            return bounds
        place, binding = search.binding
        rate = search.between(binding.rate)
        shares = [(run.step.rate, run.shares[place]) for run in search.outcomes if not run.host_bound]
        low, high = interval_of(binding, rate, shares, search.feasible_max, search.infeasible_min)
        confirming = confirming_run(self.trials, search.confirmed)
        telemetry = confirming.telemetry if confirming is not None else None
        return bounds | {
            "estimate_per_s": rate,
            "low_per_s": low,
            "high_per_s": high,
            "confirmed_per_s": search.confirmed,
            "objectives": tuple(
                ObjectiveCapacity(
                    objective=objective,
                    rate_per_s=law.rate if law.bounded_above else None,
                    low_per_s=low if law is binding else law.low if law.bounded_below else None,
                    high_per_s=high if law is binding else law.high if law.bounded_above else None,
                )
                for objective, law in zip(self._objectives, search.estimates, strict=True)
            ),
            "binding": self._objectives[place].text,
            "boundary": search.boundary,
            "joules_per_inference": None if telemetry is None else telemetry.joules_per_inference,
        }

    @property
    def _items(self) -> float:
        alone = self.config.model.batch or 1 if self._info is None else self._info.batch
        return 1.0 if self.config.model.batcher else inferences_of(self.trials) or alone

    @property
    def _first(self) -> float | None:
        if self._predicted is not None:
            return self._predicted
        return None if self._scaling is None else _FIRST * self._scaling.most_per_s

    @property
    def _spread(self) -> float:
        """The spread of the prediction: of the model, and of the service times that it was made of."""
        return _UNPREDICTED if self._predicted is None else math.hypot(_MODEL_ERROR, self._sampling)

    @property
    def _infeasible(self) -> bool:
        """Whether an objective is missed with one request in flight at a time, which has the shortest latencies, or at
        the lowest rate of the search."""
        pairs = zip(self._alone, self._objectives, strict=False)
        alone = any(surely_missed(share.bad, share.size, 1 - objective.rank) for share, objective in pairs)
        return alone or (self._search is not None and self._search.answer == "infeasible")

    @property
    def _doubtful(self) -> bool:
        """Whether an objective is missed with one request in flight, but not surely."""
        return len(self._ladder) == 1 and any(share.verdict == "missed" for share in self._alone)

    @property
    def _ladder(self) -> tuple[Trial, ...]:
        return last_rungs(self.trials)

    @property
    def _alone(self) -> list[Share]:
        """Shares of bad requests with one request in flight, over all such runs that the generator did not slow."""
        first = [trial for trial in self.trials if rung_of(trial) == rung_of(self.trials[0]) and not trial.host_bound]
        runs = [trial.run for trial in first if trial.run is not None]
        items_of_runs = zip(*(run.model.objectives for run in runs), strict=True)
        return [pooled(items[0].objective, list(map(_share, items))) for items in items_of_runs]


def _seconds(run: RunResult | None) -> float:
    return 0.0 if run is None else run.phases.measure_ns / SECOND_NS


def _share(item: ObjectiveShare) -> Share:
    """Undecided where no request was due."""
    if item.bad is None:
        return Share(0.0, 0.0, "undecided")
    return Share(item.bad, item.effective or 0.0, item.verdict or "undecided")


def _with(item: ObjectiveShare, bad: float, size: float) -> ObjectiveShare:
    low, high = share_interval(bad, size)
    verdict = verdict_on(item.objective, bad, size, low, high)
    changes = {"averaged": bad, "bad_low": low, "bad_high": high, "effective": size, "verdict": verdict, "reason": None}
    return item.model_copy(update=changes)
