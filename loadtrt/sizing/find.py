"""`loadtrt capacity` without its command line: candidates, their ladders, the searches worth making, the choice.

Every candidate (contexts × batch) begins with its ladder: short closed loops, and a prediction from them. Candidates
with at least CLOSE of the best prediction, MOST_SEARCHED at most, are searched, the best prediction first; one whose
highest throughput is below the capacity of another cannot win, and is left out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import loadtrt
from loadtrt.asked.load import Rate
from loadtrt.asked.load_declarations import LoadOptions
from loadtrt.asked.load_options import at_rate
from loadtrt.asked.reading import varied
from loadtrt.environment import environment
from loadtrt.errors import EngineError, UsageError
from loadtrt.lanes.ending import DRAIN_NS
from loadtrt.printing import command_line
from loadtrt.results.capacity_result import CapacityResult, Trial, name_of
from loadtrt.runs.processes import workers_of
from loadtrt.sizing.candidate import Work
from loadtrt.sizing.keeping import to_the_end
from loadtrt.sizing.outcomes import failure_of, host_bound
from loadtrt.sizing.rig import MACHINE, NoWorkersError, changed
from loadtrt.sizing.search import Search
from loadtrt.units import SECOND_NS, exact_duration, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.load import Load
    from loadtrt.results.capacity_result import Candidate
    from loadtrt.results.run_result import RunResult
    from loadtrt.runs.narrowed import Part
    from loadtrt.runs.watched import Talks
    from loadtrt.sizing.outcomes import Share, Step
    from loadtrt.sizing.rig import Rig
    from loadtrt.sizing.wanted import Wanted

CLOSE = 0.8
MOST_SEARCHED = 3
_SHORTEST_PART = 1 / 120  # of the time: the shortest trial
_FEW = 10  # trials
_FEWEST = 30  # requests of a trial
_ABORT_PART = 5  # length of a confirming run over the time after which it may end as missed


class Finder:
    """Finds a capacity on a rig. `result` is complete at any moment; `keep` gets it after each run."""

    def __init__(self, wanted: Wanted, rig: Rig, talks: Talks, keep: Callable[[CapacityResult], None]) -> None:
        self._wanted, self._rig, self._talks, self._keep = wanted, rig, talks, keep
        self._objectives = list(wanted.config.model.objectives)
        time_s = wanted.time_ns / SECOND_NS
        self._works = [Work(config, self._objectives, time_s, self._searching) for config in wanted.configs()]
        rig.beside = wanted.beside
        rig.workers = workers_of(wanted.config)
        self.result = CapacityResult(
            loadtrt=loadtrt.__version__,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command_line(),
            config=wanted.config,
            load=LoadOptions.model_validate(wanted.load),
            peak_ratio=None if (peak := self._works[0].config.model.load.peak_ratio) == 1 else peak,
            environment=environment(),
            objectives=wanted.config.model.objectives,
            contexts=wanted.contexts,
            batches=wanted.batches,
            precision=wanted.precision,
            time_ns=wanted.time_ns,
            quick=wanted.quick,
            shared=wanted.shared,
            of=wanted.of,
            beside=dict(wanted.beside),
            outcome="interrupted",
        )

    def resume(self, before: CapacityResult) -> int:
        """Take the runs of an unfinished search, and return their number. Raises UsageError if it was a search for
        something else."""
        difference = changed(before.config.options(), self.result.config.options()) or changed(
            _asked(before), _asked(self.result)
        )
        if difference is not None:
            raise UsageError(f"the search in the file differs: {difference}; name another file")
        for work, candidate in zip(self._works, before.candidates, strict=False):
            work.replay(candidate.trials)
        self._rig.before = [
            trial.run.model.engine for work in self._works for trial in work.trials if trial.run is not None
        ]
        kept = {"started": before.started, "environment": before.environment, "candidates": self._candidates()}
        self.result = self.result.model_copy(update=kept)
        return sum(len(work.trials) for work in self._works)

    @property
    def measured(self) -> bool:
        """Whether the result has anything to keep."""
        return any(work.trials or work.failure for work in self._works)

    def make(self) -> None:
        """Make all runs. An interruption ends the search quietly; an engine that fails ends its candidate."""
        with to_the_end(self._rig, self._update):
            for work in self._works:
                self._climb(work)
                if self._rig.stopped:
                    return
            self._rig.require_sense()
            for work in self._promising():
                self._search(work)
                if self._rig.stopped:
                    return
            self._choose()

    def _climb(self, work: Work) -> None:
        """Run the ladder of a candidate."""
        while not self._rig.stopped and (rung := work.next_rung) is not None and self._open(work):
            config = varied(
                work.config,
                arrivals="closed",
                duration=exact_duration(round(rung.seconds * SECOND_NS)),
                requests=rung.requests,
                max_duration=exact_duration(round(rung.longest * SECOND_NS)),
                **({} if rung.part.batch is None else {"batch": rung.part.batch}),
            )
            in_flight = rung.part.contexts * rung.part.buffers
            what = f"ladder, {in_flight} in flight" + (f", batches of {rung.part.batch}" if rung.part.batch else "")
            self._make(work, config, what, rung.part, kind="ladder", in_flight=in_flight)
        if self._rig.stopped:
            return
        work.fit_ladder()
        if work.stops:
            self._talks.say(f"{_name(work)}: {work.candidate().conclusion}")
        self._update()

    def _promising(self) -> list[Work]:
        """The candidates to search, the best prediction first; sets `dropped` of the others."""
        works = [work for work in self._works if work.expected and not work.failure and (work.begun or not work.answer)]
        works.sort(key=lambda work: -work.expected)
        chosen = [work for work in works[:MOST_SEARCHED] if work.expected >= CLOSE * works[0].expected]
        for work in works[len(chosen) :]:
            work.dropped = (
                f"its closed loops predict {format_count(work.expected)} inferences/s, against "
                f"{format_count(works[0].expected)} for {_name(works[0])}"
            )
        return chosen

    def _search(self, work: Work) -> None:
        best = max(self._works, key=lambda other: other.reached)
        if best is not work and not work.begun and 0 < work.most < best.reached:
            work.dropped = (
                f"its highest throughput, {format_count(work.most)} inferences/s, is below the capacity of "
                f"{_name(best)}, {format_count(best.reached)}"
            )
            self._update()
            return
        work.begin()
        while not self._rig.stopped and (step := work.next_step()) is not None and self._open(work):
            self._try(work, step)
        if work.answer is not None:
            self._talks.say(f"{_name(work)}: {work.candidate().conclusion}")
        self._update()

    def _try(self, work: Work, step: Step) -> None:
        load = at_rate(work.config.model.load, step.rate)
        duration = whole_periods(round(step.seconds * SECOND_NS), load)
        changes: dict[str, Any] = {}
        # The estimate needs whole trials, a part of a day is none, and no worker ends by numbers of its own.
        if step.kind != "search" and isinstance(load, Rate) and not self._rig.workers:
            changes = {"abort_on_fail": True, "abort_delay": exact_duration(duration // _ABORT_PART)}
        config = varied(
            work.config,
            rate=step.rate,
            seed=work.next_seed,
            duration=exact_duration(duration),
            # Above the capacity a backlog is left.
            drain=exact_duration(max(work.config.drain or DRAIN_NS, duration // 2)),
            **changes,
        )
        what = f"{step.kind} at {format_count(step.rate)}/s"
        self._make(work, config, what, kind=step.kind, rate_per_s=step.rate)

    def _make(self, work: Work, config: RunConfig, what: str, part: Part | None = None, **fields: Any) -> None:
        """Make a run, record it in the search, print it and keep the result."""
        what = f"{_name(work)}: {what}"
        others = [other for other in self._works if other is not work]
        done = sum(bool(other.answer or other.dropped or other.failure) for other in others)
        self._rig.progress = done, len(others) - done
        try:
            run = self._rig.run(config, what, part, number=len(work.trials), looks=not self._wanted.shared)
        except NoWorkersError as error:  # other candidates may work
            work.failure = str(error)
            self._talks.say(f"{what}: {error}")
            return
        self._rig.require_before()
        if self._rig.others is not None:
            remedy = "end them, or add --shared-host to find the capacity of what they leave"
            work.ends("unsteady", f"unsteady: {self._rig.others}; {remedy}")
            if part is None:
                return  # it measured the others, too
        # Averaging takes services for independent of arrivals, and those of neighbours come in between.
        if part is None and not self._rig.beside and (records := self._rig.records) is not None:
            run = work.averaged(run, records)
        late = host_bound(run, config.model.max_lateness)
        judged = {"failure": failure_of(run), "host_bound": late, "overloaded": self._rig.overloaded}
        trial = Trial(seed=config.model.seed, run=run, **judged, **fields)
        work.record(trial)
        given_up = self._rig.others is not None and run.outcome == "interrupted"
        self._talks.say(f"{what}: {'given up' if given_up else _in_words(trial, run)}")
        self._update()

    def _open(self, work: Work) -> bool:
        """Open the candidate's engine; False if that fails, which is the candidate's failure."""
        work.failure = self._rig.try_open(work.config, (self._works[0].config, self._works[-1].config))
        if work.failure is None:
            return True
        self._talks.say(f"{_name(work)}: {work.failure}")
        self._update()
        return False

    def _searching(
        self, start: float, spread: float, throughput: float, time_s: float, alone: Sequence[Share]
    ) -> Search:
        wanted = self._wanted
        load = at_rate(self._works[0].config.model.load, start)
        shortest_ns = max(round(_SHORTEST_PART * wanted.time_ns), round(_FEWEST / start * SECOND_NS))
        shortest_s = whole_periods(shortest_ns, load) / SECOND_NS
        if shortest_s > time_s / _FEW and not isinstance(load, Rate):
            lasts, room = format_duration(shortest_s * SECOND_NS), format_duration(time_s * SECOND_NS)
            self._talks.say(f"the schedule lasts {lasts}, and so does each trial: {room} have room for few (--time)")
        return Search(
            self._objectives,
            start,
            spread,
            throughput,
            wanted.precision,
            time_s,
            shortest_s,
            alone,
            confirms=not wanted.quick,
        )

    def _choose(self) -> None:
        """Choose the candidate with the highest capacity, confirmed ones before estimated ones."""
        candidates = self.result.candidates
        rated = [
            (candidate.confirmed_per_s is not None, rate * candidate.inferences_per_request, place)
            for place, candidate in enumerate(candidates)
            if (rate := candidate.confirmed_per_s or candidate.estimate_per_s)
        ]
        if not rated:
            return
        *others, (confirmed, most, chosen) = sorted(rated)
        equals = sum(rank == confirmed for rank, _, _ in rated)
        how = "confirmed" if confirmed else "estimated, as none was confirmed"
        which = f"the candidates {how} ({equals} of {len(candidates)})"
        reason = f"highest capacity of {which}: {format_count(most)} inferences/s"
        if others and others[-1][0] == confirmed:
            _, rate, place = others[-1]
            reason += f", {100 * (most / rate - 1):.0f} % more than {_name(self._works[place])}"
        late = [each.name for at, each in enumerate(candidates) if each.answer == "host-bound" and at != chosen]
        if late:
            reason += f"; the load generator, not the engine, limited {' and '.join(late)}, which may reach more"
        self._update(chosen=chosen, reason=reason if len(candidates) > 1 else "")

    def _candidates(self) -> tuple[Candidate, ...]:
        return tuple(work.candidate() for work in self._works)

    def _update(self, **changes: Any) -> None:
        self.result = self.result.model_copy(update={"candidates": self._candidates(), **changes})
        self._keep(self.result)


def require_answer(result: CapacityResult) -> None:
    """Raise EngineError where a search that was not interrupted has no answer, as engines failed."""
    failures = [candidate.failure for candidate in result.candidates if candidate.failure]
    if failures and result.outcome != "interrupted" and not any(candidate.answer for candidate in result.candidates):
        raise EngineError(failures[0])


def whole_periods(duration_ns: int, load: Load) -> int:
    """`duration_ns`, lengthened to whole periods of stages and traces: a part of a day is not the day."""
    period_ns = load.period_ns
    if period_ns is None or isinstance(load, Rate):
        return duration_ns
    return max(-(-duration_ns // period_ns), 1) * period_ns


def _asked(result: CapacityResult) -> dict[str, Any]:
    """The search and the machine, apart from the configuration."""
    names = ("loadtrt", "contexts", "batches", "quick")
    return {
        **{name: getattr(result, name) for name in names},
        **result.load.model_dump(mode="json"),
        "precision": f"{100 * result.precision:g}%",
        "time": exact_duration(result.time_ns),
        "beside": {name: model.model_dump(mode="json", by_alias=True) for name, model in result.beside.items()},
        **{name: result.environment.get(name) for name in MACHINE},
    }


def _name(work: Work) -> str:
    return name_of(work.config.model.contexts, work.config.model.batch)


def _in_words(trial: Trial, run: RunResult) -> str:
    """A run in a line."""
    if trial.failure:
        return f"failed: {trial.failure}"
    if run.outcome != "completed":
        return run.outcome
    words = []
    if trial.kind == "ladder" and run.model.throughput.requests_per_s is not None:
        words.append(f"{format_count(run.model.throughput.requests_per_s)}/s")
        mean = run.model.metrics["latency"].mean_ns
        words += [] if mean is None else [f"mean latency {format_duration(mean)}"]
    else:
        for item in run.model.objectives:
            name = item.objective.name
            own = item.averaged is None  # the quantile is of the run's own arrivals, and may contradict another share
            value = f"{name} {format_duration(item.value_ns)}, " if own and item.value_ns is not None else ""
            share = "nothing was due, " if item.bad is None else f"{100 * item.bad:.3g} % bad, "
            words.append(f"{value}{share}{item.verdict}")
    if trial.host_bound:
        words.append(f"host-bound: {trial.host_bound}")
    return "; ".join(words)
