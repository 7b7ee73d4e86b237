"""One engine's search as it stands: the runs that were made, the next one, and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.capacity.scaling import fit, predicted_per_s, rungs
from loadtrt.capacity.search import Search, Share, Step, Told
from loadtrt.findings.validity import STARVED_LIMIT, lateness_limit_ns, typical_ns
from loadtrt.records.records import METRICS
from loadtrt.report.formatting import between
from loadtrt.results.capacity_result import Candidate, ObjectiveCapacity, inferences_of
from loadtrt.units import SECOND_NS, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.objective import Objective
    from loadtrt.capacity.search import Answer
    from loadtrt.results.capacity_result import Scaling, Trial
    from loadtrt.results.engine_info import EngineInfo, MemoryBill
    from loadtrt.results.run_result import ObjectiveShare, RunResult

_FIRST = 0.7  # share of the highest throughput at which the search begins, without a prediction
_NEAR = 0.9  # share of the estimate from which a confirmed rate counts as near it


class Work:
    """The search for the capacity of the engine of `config`, whose arrivals are those of the trials, at any rate.

    search: makes one, of where to begin and the greatest throughput. First the ladder: `next_rung` until it is None.
    Then, once `begin` was called, `next_step`. Each run is told by `tell`, and `candidate` is what is known so far.
    failure: why the engine did not open, or broke. dropped: why there is no search."""

    def __init__(
        self, config: RunConfig, objectives: Sequence[Objective], search: Callable[[float, float], Search]
    ) -> None:
        self.config = config
        self.trials: list[Trial] = []
        self.failure: str | None = None
        self.dropped: str | None = None
        self._objectives, self._begin = objectives, search
        self._rungs = rungs(config.model.contexts, config.model.buffers)
        self._info: EngineInfo | None = None
        self._bill: MemoryBill | None = None
        self._scaling: Scaling | None = None
        self._predicted: float | None = None
        self._search: Search | None = None

    @property
    def next_rung(self) -> tuple[int, int] | None:
        """(contexts, buffers) of the next closed loop; None when the ladder is whole, or needs no more."""
        done = sum(trial.kind == "ladder" for trial in self.trials)
        return None if self.failure or self._infeasible or done == len(self._rungs) else self._rungs[done]

    @property
    def expected(self) -> float:
        """Inferences a second that the ladder lets expect, 0 where it does not."""
        return (self._first or 0.0) * self._items

    @property
    def most(self) -> float:
        """Inferences a second that no rate will pass."""
        return (self._scaling.most_per_s if self._scaling else 0.0) * self._items

    @property
    def reached(self) -> float:
        """Inferences a second at which the objectives were met, or by the estimate would be."""
        if self._search is None or not self._search.known or self.answer == "infeasible":
            return 0.0
        return (self._search.confirmed or self._search.binding[1].rate) * self._items

    @property
    def begun(self) -> bool:
        """Whether there are open loops."""
        return any(trial.kind != "ladder" for trial in self.trials)

    def summed_up(self) -> None:
        """The ladder is whole: fit it, and let it say where to begin."""
        if self._scaling is None:
            ladder = [trial for trial in self.trials if trial.kind == "ladder"]
            self._scaling = fit(ladder)
            if self._scaling is not None and not self._infeasible:
                self._predicted = predicted_per_s(ladder, self.config, self._objectives)

    def begin(self) -> None:
        """Search from now on. Does nothing where the ladder leaves nothing to search for."""
        if self._search is None and self._first is not None and self._scaling is not None and not self._infeasible:
            self._search = self._begin(self._first, self._scaling.most_per_s)

    def next_step(self) -> Step | None:
        """The next open loop; None where there is an answer, and where there will be none."""
        return None if self.failure or self._search is None else self._search.next()

    @property
    def next_seed(self) -> int:
        """Another one for each open loop: of arrivals that none of the others had."""
        told = 0 if self._search is None else len(self._search.told)
        return int(np.random.SeedSequence([self.config.model.seed, 1 + told]).generate_state(1)[0])

    def tell(self, trial: Trial) -> None:
        """A run was made. One that was interrupted or failed is kept, and says nothing."""
        self.trials.append(trial)
        run = trial.run
        if run is not None:
            self._info, self._bill = run.model.engine, run.model.memory
        if run is None or trial.failure is not None:
            self.failure = trial.failure
        elif trial.kind != "ladder" and trial.rate_per_s and self._search is not None and run.outcome == "completed":
            seconds = (run.config.duration or 0) / SECOND_NS
            step = Step(trial.kind, trial.rate_per_s, seconds)
            self._search.tell(Told(step, shares_of(run), trial.host_bound is not None))

    def replay(self, trials: Sequence[Trial]) -> None:
        """Tell the runs of an unfinished search, as far as they were completed."""
        for trial in trials:
            if trial.run is None or trial.run.outcome != "completed":
                return
            if trial.kind != "ladder":
                self.summed_up()
                self.begin()
            self.tell(trial)

    @property
    def answer(self) -> Answer | None:
        """As Candidate has it."""
        if self._infeasible:
            return "infeasible"
        return None if self._search is None else self._search.answer

    def candidate(self) -> Candidate:
        """All that is known so far."""
        found = Candidate(
            contexts=self.config.model.contexts,
            batch=self.config.model.batch,
            buffers=self.config.model.buffers,
            engine=self._info,
            memory=self._bill,
            trials=tuple(self.trials),
            scaling=self._scaling,
            predicted_per_s=self._predicted,
            answer=self.answer,
            dropped=self.dropped,
            failure=self.failure,
        )
        if self._search is not None:
            found = found.model_copy(update=self._found(self._search))
        return found.model_copy(update={"conclusion": conclusion(found)})

    def _found(self, search: Search) -> dict[str, Any]:
        """What the open loops say, as fields of a Candidate."""
        found = {
            "feasible_max_per_s": search.feasible_max,
            "infeasible_min_per_s": search.infeasible_min,
            "host_bound_per_s": search.host_bound,
        }
        if not search.known or self.answer == "infeasible":
            return found
        place, binding = search.binding
        rate = search.between(binding.rate)
        met = [
            run for it in self.trials if it.kind == "confirm" and it.rate_per_s == search.confirmed and (run := it.run)
        ]
        telemetry = met[-1].telemetry if met else None
        return found | {
            "estimate_per_s": rate,
            "low_per_s": min(binding.low, rate) if binding.bounded_below else None,
            "high_per_s": max(binding.high, rate) if binding.bounded_above else None,
            "confirmed_per_s": search.confirmed,
            "objectives": tuple(
                ObjectiveCapacity(
                    objective=objective,
                    rate_per_s=each.rate if each.bounded_above else None,
                    low_per_s=each.low if each.bounded_below else None,
                    high_per_s=each.high if each.bounded_above else None,
                )
                for objective, each in zip(self._objectives, search.estimates, strict=True)
            ),
            "binding": self._objectives[place].text,
            "boundary": search.boundary,
            "joules_per_inference": None if telemetry is None else telemetry.joules_per_inference,
        }

    @property
    def _items(self) -> float:
        return inferences_of(self.trials) or self.config.model.batch or 1

    @property
    def _first(self) -> float | None:
        if self._predicted is not None:
            return self._predicted
        return None if self._scaling is None else _FIRST * self._scaling.most_per_s

    @property
    def _infeasible(self) -> bool:
        """Whether an objective is missed with a single request in flight at a time: no rate has shorter latencies. Or
        at the lowest rate that the search looks at."""
        first = self.trials[0].run if self.trials and self.trials[0].host_bound is None else None
        alone = first is not None and any(item.verdict == "missed" for item in first.model.objectives)
        return alone or (self._search is not None and self._search.answer == "infeasible")


def shares_of(run: RunResult) -> tuple[Share, ...]:
    """A share for each objective. A run in which nothing was due tells nothing."""
    return tuple(
        Share(0.0, 0.0, "undecided")
        if item.bad is None
        else Share(item.bad, item.effective or 0.0, item.verdict or "undecided")
        for item in run.model.objectives
    )


def failure_of(run: RunResult) -> str | None:
    """Why an engine is not to be asked any further: it broke, or its outputs under load are wrong."""
    checked = run.model.verification
    if run.failure is None and checked is not None and checked.different:
        return f"{checked.different} of {checked.outputs} outputs under load differ from those of a quiet run"
    return run.failure


def host_bound(run: RunResult, max_lateness_ns: int | None) -> str | None:
    """Why the generator was the bottleneck, by the bounds of VALID (findings/validity.py) on the highest percentile of
    lateness up to p99 that the run supports, as one late request among few is no rule. None where it was not.

    A run may be INVALID for other reasons: what was not served in time, or failed, is bad, and the engine's doing. And
    bounds on latencies that an open loop met it met: they count from when requests were due, so that a late generator
    only adds to them. Not where the user bounds lateness himself; nor bounds on compute, which lanes that stand idle
    make shorter."""
    closed = run.config.model.load.closed
    of_due = all(METRICS[item.objective.metric].of_unserved for item in run.model.objectives)
    if run.verdict == "met" and not closed and of_due and max_lateness_ns is None:
        return None
    known = [
        item
        for item in run.model.metrics["lateness"].percentiles_ns.items()
        if item[0] != "p99.9" and item[1] is not None
    ]
    objectives = [item.objective for item in run.model.objectives]
    limit = lateness_limit_ns(typical_ns(run.model.metrics["latency"]), closed, max_lateness_ns, objectives)
    if known and (known[-1][1] or 0.0) > limit:
        name, late = known[-1]
        return f"the generator was {format_duration(late or 0.0)} late at {name} (limit {format_duration(limit)})"
    if run.model.metrics["compute"].max_ns == 0 and not closed and run.verdict != "met":
        return "compute takes no time: all latency is the load generator's"
    if run.model.metrics["compute"].max_ns and run.model.starved_fraction > STARVED_LIMIT:
        return f"lanes were idle for {100 * run.model.starved_fraction:.0f} % of the time because the host was late"
    return None


def conclusion(candidate: Candidate) -> str:
    """What came of the search; "" where there was none, or it is not over."""
    match candidate.answer:
        case "found":
            far = (candidate.confirmed_per_s or 0.0) < _NEAR * (candidate.estimate_per_s or 0.0)
            more = "; a longer --trial confirms a higher rate" if far else ""
            met = f"{_rate(candidate, candidate.confirmed_per_s)} meet {_objectives(candidate)}{_late(candidate)}"
            return f"{met}; {_capacity(candidate)}{more}"
        case "undecided":
            last = candidate.searched[-1]
            reasons = [item.reason for item in last.run.model.objectives if item.reason] if last.run is not None else []
            why = f": at {format_count(last.rate_per_s or 0.0)}/s {reasons[0]}" if reasons else None
            return f"{_capacity(candidate)}, and no run confirmed it{why or '; a longer --trial decides more'}"
        case "infeasible":
            return _infeasible(candidate)
        case "host-bound":
            sentences = [trial.host_bound for trial in candidate.trials if trial.kind != "ladder" and trial.host_bound]
            met = (
                f"; at {_rate(candidate, candidate.confirmed_per_s)} the objectives are met"
                if candidate.confirmed_per_s
                else ""
            )
            return f"host-bound at {format_count(candidate.host_bound_per_s or 0.0)}/s: {sentences[-1]}{met}"
    return ""


def _late(candidate: Candidate) -> str:
    """What the generator itself added to the confirming run, where that was too much for any but a run that met."""
    runs = [it.run for it in candidate.trials if it.kind == "confirm" and it.rate_per_s == candidate.confirmed_per_s]
    problems = runs[-1].model.problems if runs and runs[-1] is not None else ()
    return f" although {problems[0].evidence}" if problems else ""


def _infeasible(candidate: Candidate) -> str:
    """The run with the least load that missed an objective, and by how much."""
    alone = candidate.trials[0]
    item, which, how = _missed(alone), "no rate", "even with one request in flight at a time"
    if item is None:
        slowest = min(
            (trial for trial in candidate.searched if _missed(trial)),
            key=lambda trial: trial.rate_per_s or 0.0,
            default=alone,
        )
        rate = f"{format_count(slowest.rate_per_s or 0.0)}/s"
        item, which, how = _missed(slowest), f"no rate from {rate} up", f"at {rate}"
    if item is None:
        return "no rate meets the objectives"
    value = f", and {item.objective.quantile} is {format_duration(item.value_ns)}" if item.value_ns is not None else ""
    return f"{which} meets {item.objective}: {how} {100 * (item.bad or 0.0):.3g} % of the requests are bad{value}"


def _missed(trial: Trial) -> ObjectiveShare | None:
    items = trial.run.model.objectives if trial.run is not None else ()
    return next((item for item in items if item.verdict == "missed"), None)


def _capacity(candidate: Candidate) -> str:
    known = candidate.low_per_s is not None or candidate.high_per_s is not None
    interval = f" (95 %: {between(candidate.low_per_s, candidate.high_per_s, format_count)})" if known else ""
    return f"the capacity is about {format_count(candidate.estimate_per_s or 0.0)}/s{interval}"


def _rate(candidate: Candidate, rate: float | None) -> str:
    text = f"{format_count(rate or 0.0)} requests/s"
    items = candidate.inferences_per_request
    return text if items == 1 else f"{text} ({format_count((rate or 0.0) * items)} inferences/s)"


def _objectives(candidate: Candidate) -> str:
    return " and ".join(item.objective.text for item in candidate.objectives)
