"""`loadtrt capacity` without its command line: candidates, their ladders, the searches worth making, the choice.

Every candidate (contexts × batch) climbs its ladder: short closed loops, and a prediction from them. Those expected to
carry at least CLOSE of the best one's inferences a second, MOST_SEARCHED at most, are searched, the most promising
first; one whose greatest throughput lies below what another was found to carry cannot win, and is not.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import loadtrt
from loadtrt.capacity.candidate import Work
from loadtrt.capacity.evaluate import failure_of, host_bound
from loadtrt.capacity.rig import changed, varied
from loadtrt.environment import environment
from loadtrt.errors import UsageError
from loadtrt.measure.capacity_result import CapacityResult, Trial
from loadtrt.measure.objective import parse_objective
from loadtrt.units import exact_duration, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.capacity.rig import Rig, Talks
    from loadtrt.capacity.search import Step
    from loadtrt.config import RunConfig
    from loadtrt.measure.result import RunResult

CLOSE = 0.8
MOST_SEARCHED = 3
LADDER_PART = 5  # a rung is so many times shorter than a trial


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to find. config: all that trials have in common. load: how requests arrive, by option name, but for the
    rate. batches: None for the engine's own. precision, max_trials: of the search (capacity/search.py)."""

    config: RunConfig
    load: dict[str, Any]
    contexts: tuple[int, ...]
    batches: tuple[int | None, ...]
    precision: float
    trial_ns: int
    max_trials: int

    def configs(self) -> list[RunConfig]:
        """One for each candidate, batch by batch, at any rate. Raises UsageError."""
        return [
            varied(self.config, contexts=contexts, batch=batch, rate="1/s", **self.load)
            for batch in self.batches
            for contexts in self.contexts
        ]


class Finder:
    """Finds what is wanted on a rig. `result` is whole at any moment; `keep` gets it after each run."""

    def __init__(self, wanted: Wanted, rig: Rig, talks: Talks, keep: Callable[[CapacityResult], None]) -> None:
        self._wanted, self._rig, self._talks, self._keep = wanted, rig, talks, keep
        self._objectives = [parse_objective(text) for text in wanted.config.objective]
        self._works = [
            Work(config, self._objectives, wanted.precision, wanted.max_trials) for config in wanted.configs()
        ]
        self._recorded: list[list[Trial]] = [[] for _ in self._works]
        self._result = CapacityResult(
            loadtrt=loadtrt.__version__,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            command=tuple(sys.argv),
            config=wanted.config.model_dump(mode="json", by_alias=True),
            load=wanted.load,
            environment=environment(),
            objectives=wanted.config.objective,
            contexts=wanted.contexts,
            batches=wanted.batches,
            precision=wanted.precision,
            trial_ns=wanted.trial_ns,
            max_trials=wanted.max_trials,
            outcome="interrupted",
        )

    def resume(self, before: CapacityResult) -> int:
        """Take the runs of an unfinished search for the same as made. Returns how many there are. Raises UsageError
        where it was for something else."""
        fields = ("load", "objectives", "contexts", "batches", "precision", "trial_ns", "max_trials")
        now, then = ({field: getattr(each, field) for field in fields} for each in (self._result, before))
        difference = changed(before.config, self._result.config) or changed(then, now)
        if difference is not None:
            raise UsageError(f"its search was another one: {difference}; name another file")
        self._result = self._result.model_copy(update={"started": before.started, "environment": before.environment})
        for recorded, candidate in zip(self._recorded, before.candidates, strict=False):
            for trial in candidate.trials:
                if trial.run is None or trial.run.outcome != "completed":
                    break
                recorded.append(trial)
        return sum(map(len, self._recorded))

    @property
    def result(self) -> CapacityResult:
        """All that is known so far."""
        return self._result

    @property
    def measured(self) -> bool:
        """Whether there is anything to keep."""
        return any(work.trials or work.failure for work in self._works)

    def find(self) -> None:
        """Make all runs. An interruption ends it quietly; an engine that fails ends its candidate."""
        try:
            for place in range(len(self._works)):
                self._climb(place)
                if self._rig.stopped:
                    return
            for place in self._promising():
                self._search(place)
                if self._rig.stopped:
                    return
        except KeyboardInterrupt:
            return
        except Exception as error:
            self._update(outcome="failed", failure=str(error) or type(error).__name__)
            raise
        self._choose()
        self._update(outcome="completed")

    def _climb(self, place: int) -> None:
        """The ladder of a candidate."""
        work = self._works[place]
        while not self._rig.stopped and (rung := work.next_rung) is not None:
            recorded = self._next_recorded(place, "ladder")
            if recorded is not None:
                work.tell(recorded)
                continue
            if not self._open(work):
                break
            lanes, depth = rung
            changes = dict.fromkeys(self._wanted.load) | {
                "rate": None,
                "arrivals": "closed",
                "duration": exact_duration(max(self._wanted.trial_ns // LADDER_PART, 1)),
            }
            config = varied(work.config, **changes)
            what = f"{_name(work.config)}: ladder, {lanes * depth} in flight"
            run = self._rig.run(config, what, rung)
            trial = Trial(
                kind="ladder",
                in_flight=lanes * depth,
                seed=config.seed,
                run=run,
                failure=failure_of(run),
                host_bound=host_bound(run, config.max_lateness),
            )
            work.tell(trial)
            self._say(what, trial)
            self._update()
        if self._rig.stopped:
            return
        work.summed_up()
        if work.answer == "infeasible":
            self._talks.say(f"{_name(work.config)}: {work.candidate().conclusion}")
        self._update()

    def _promising(self) -> list[int]:
        """The candidates to search, the most promising first; the others are told why not."""
        open_ = [place for place, work in enumerate(self._works) if work.expected and not (work.answer or work.failure)]
        order = sorted(open_, key=lambda place: -self._works[place].expected)
        best = self._works[order[0]] if order else None
        chosen = []
        for rank, place in enumerate(order):
            work = self._works[place]
            assert best is not None  # noqa: S101  # order has an item
            if work.expected < CLOSE * best.expected or rank >= MOST_SEARCHED:
                work.dropped = (
                    f"its ladder lets expect {format_count(work.expected)} inferences/s, that of {_name(best.config)} "
                    f"{format_count(best.expected)}"
                )
            else:
                chosen.append(place)
        return chosen

    def _search(self, place: int) -> None:
        work = self._works[place]
        best = max(self._works, key=lambda each: each.reached)
        if best is not work and 0 < work.most < best.reached:
            work.dropped = (
                f"its greatest throughput, {format_count(work.most)} inferences/s, is less than what "
                f"{_name(best.config)} was found to carry, {format_count(best.reached)}"
            )
            self._update()
            return
        work.begin()
        while not self._rig.stopped and (step := work.next_step()) is not None:
            recorded = self._next_recorded(place, step.kind)
            if recorded is not None and recorded.rate_per_s == step.rate:
                work.tell(recorded, step)
                continue
            self._recorded[place].clear()  # of another loadtrt: from here on everything is new
            if not self._open(work):
                break
            trial = self._try(work, step)
            work.tell(trial, step)
            self._update()
        if work.answer is not None:
            self._talks.say(f"{_name(work.config)}: {work.candidate().conclusion}")
        self._update()

    def _try(self, work: Work, step: Step) -> Trial:
        duration = self._wanted.trial_ns * step.times
        changes: dict[str, Any] = {}
        if step.kind == "confirm":  # a trial's length says enough where it is missed by far
            changes = {"abort_on_fail": True, "abort_delay": exact_duration(self._wanted.trial_ns)}
        config = varied(
            work.config,
            rate=f"{step.rate:.9f}/s",
            seed=work.seed_of(step),
            duration=exact_duration(duration),
            drain=exact_duration(max(work.config.drain, duration // 2)),  # above capacity a queue is left over
            **changes,
        )
        what = f"{_name(work.config)}: {step.kind} at {format_count(step.rate)}/s"
        run = self._rig.run(config, what)
        trial = Trial(
            kind=step.kind,
            rate_per_s=step.rate,
            seed=config.seed,
            run=run,
            failure=failure_of(run),
            host_bound=host_bound(run, config.max_lateness),
        )
        self._say(what, trial)
        return trial

    def _open(self, work: Work) -> bool:
        """Have the candidate's engine open; False where that fails, which is the candidate's failure."""
        work.failure = self._rig.try_open(work.config, (self._works[0].config, self._works[-1].config))
        if work.failure is not None:
            self._talks.say(f"{_name(work.config)}: {work.failure}")
            self._update()
        return work.failure is None

    def _next_recorded(self, place: int, kind: str) -> Trial | None:
        """The next run of the search that is resumed, if it is of this kind."""
        recorded = self._recorded[place]
        return recorded.pop(0) if recorded and recorded[0].kind == kind else None

    def _choose(self) -> None:
        """The candidate with the greatest capacity: of the confirmed ones, else by its estimate."""
        candidates = self._result.candidates
        rated = [
            (each.answer == "found", rate * each.items, place)
            for place, each in enumerate(candidates)
            if (rate := each.confirmed_per_s or each.estimate_per_s)
        ]
        if not rated:
            return
        *others, (_, most, chosen) = sorted(rated)
        reason = f"the most inferences a second of {len(candidates)} candidates: {format_count(most)}"
        if others:
            _, rate, place = others[-1]
            reason += f", {100 * (most / rate - 1):.0f} % more than {_name(self._works[place].config)}"
        self._update(chosen=chosen, reason=reason if len(candidates) > 1 else "")

    def _say(self, what: str, trial: Trial) -> None:
        if trial.run is not None:
            self._talks.say(f"{what}: {_in_words(trial, trial.run)}")

    def _update(self, **changes: Any) -> None:
        self._result = self._result.model_copy(
            update={"candidates": tuple(work.candidate() for work in self._works), **changes}
        )
        self._keep(self._result)


def _name(config: RunConfig) -> str:
    batch = f", batch {config.batch}" if config.batch is not None else ""
    return f"{config.contexts} context{'s' if config.contexts > 1 else ''}{batch}"


def _in_words(trial: Trial, run: RunResult) -> str:
    """A run on one line."""
    if trial.failure:
        return f"failed: {trial.failure}"
    words = []
    if trial.kind == "ladder" and run.throughput.requests_per_s is not None:
        words.append(f"{format_count(run.throughput.requests_per_s)}/s")
        mean = run.metrics["latency"].mean_ns
        words += [] if mean is None else [f"mean latency {format_duration(mean)}"]
    else:
        for item in run.objectives:
            name = item.objective.partition("<")[0].strip()
            value = f"{name} {format_duration(item.value_ns)}, " if item.value_ns is not None else ""
            share = f"{100 * (1 - item.good / item.requests):.3g} % bad, " if item.requests else "nothing was due, "
            words.append(f"{value}{share}{item.verdict}")
    if trial.host_bound:
        words.append(f"host-bound: {trial.host_bound}")
    return "; ".join(words)
