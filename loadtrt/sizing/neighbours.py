"""`loadtrt interference` without its command line: every model beside every other, in rounds, kept after each.

First each model is alone in a closed loop: that fixes all arrival rates, once, so that every cell and every way to
share has the same offered load. Then the cells: each round of a cell is two runs with the same requests at the same
instants, the model alone on the whole device and the model beside its neighbour, in either order. Cells of one pair
take turns.
"""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import loadtrt
from loadtrt.asked.load import Closed, Rate
from loadtrt.asked.load_options import at_rate
from loadtrt.asked.ways_to_share import PLAIN
from loadtrt.environment import environment
from loadtrt.errors import EngineError, UsageError
from loadtrt.load.arrivals import PROCESSES
from loadtrt.printing import command_line
from loadtrt.report.interference_words import cell_words, few_words, least_length, whole_seconds
from loadtrt.results.interference_result import CLOSED, IDLE, OWN, Alone, Cell, InterferenceResult, Measured, Round
from loadtrt.sizing.cells import STRESS, finished, measured_of, place_of, summed_up, takes_ns
from loadtrt.sizing.fingerprints import error_of, fingerprints_of, predictions_of
from loadtrt.sizing.keeping import to_the_end
from loadtrt.sizing.rig import MACHINE, SEEDS, Rig, changed, require_same
from loadtrt.units import format_count, format_duration, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtrt.asked.load import Load
    from loadtrt.asked.model import Model
    from loadtrt.results.engine_info import Verification
    from loadtrt.results.run_result import RunResult
    from loadtrt.runs.watched import Talks
    from loadtrt.sizing.cells import Wanted


class Neighbours:
    """Measures interference on a rig. `result` is complete at any moment; `keep` gets it after each round."""

    def __init__(self, wanted: Wanted, rig: Rig, talks: Talks, keep: Callable[[InterferenceResult], None]) -> None:
        self._wanted, self._rig, self._talks, self._keep = wanted, rig, talks, keep
        models = {**wanted.config.models, **wanted.stressors}
        self._config = wanted.config.model_copy(update={"models": models})
        self._groups = wanted.groups()
        self._ways = {way.text: way for way in wanted.ways}
        # Outputs under load that were compared, by what engines are placed for and by who runs beside whom.
        self._verified: dict[tuple[str, frozenset[str]], dict[str, Verification]] = {}
        self._own_rigs = ExitStack()
        self._shared: Rig | None = None  # for engines that are placed otherwise than alone
        self._apart: Rig | None = None  # for the processes of the pair that is measured
        self.result = InterferenceResult(
            loadtrt=loadtrt.__version__,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command_line(),
            config=wanted.config,
            environment=environment(),
            shares=tuple(way.text for way in wanted.ways),
            levels=wanted.levels,
            load=wanted.load,
            arrivals=wanted.arrivals,
            most_rounds=wanted.rounds,
            precision=wanted.precision,
            stressors={name: model.engine for name, model in wanted.stressors.items()},
            stress=STRESS if wanted.stressors else 0.0,
            outcome="interrupted",
        )

    def resume(self, before: InterferenceResult) -> int:
        """Take the rounds of an unfinished result, without cells that failed or are INVALID, and without the round of a
        cell that was to be made again, with longer runs. Return their number. Closed loops that are INVALID stay where
        rounds have their rates. Raises UsageError if it was of something else.
        """
        difference = changed(_asked(before), _asked(self.result))
        if difference is not None:
            raise UsageError(f"the measurement in the file differs: {difference}; name another file")
        known = {place_of(cell): cell for cell in before.cells if cell.valid}
        for group in self._groups:
            for place, cell in enumerate(group):
                former = known.pop(place_of(cell), cell)
                if len(former.rounds) != 1 or self._longer_ns(former) is None:
                    group[place] = former
        if known:
            lost = next(iter(known.values()))
            raise UsageError(
                f"the measurement in the file has {cell_words(lost)}, which would be lost: ask for it, too"
            )
        rounds = sum(len(cell.rounds) for group in self._groups for cell in group)
        alone = {name: one for name, one in before.alone.items() if rounds or not one.problems}
        kept = {"started": before.started, "environment": before.environment, "alone": alone}
        self.result = self.result.model_copy(update=kept)
        self._update()
        return rounds

    @property
    def measured(self) -> bool:
        """Whether the result has anything to keep."""
        return bool(self.result.alone)

    def make(self) -> None:
        """Measure all cells. An interruption ends quietly; a cell that fails is kept with the reason."""
        with to_the_end(self._rig, self._update), self._own_rigs:
            self._rig.open(self._config)
            for name, alone in self.result.alone.items():
                require_same([alone.engine], self._rig.engines[name])
            for name in self._config.models:
                if name not in self.result.alone:
                    self._measure_alone(name)
                if self._rig.stopped:
                    return
            for group in self._groups:
                self._measure(group)
                if self._rig.stopped:
                    return

    def _measure_alone(self, name: str) -> None:
        """A closed loop, which fixes the rates of the model in all cells. Raises EngineError where it fails."""
        run = self._run(self._rig, {name: CLOSED}, 0, f"{name} alone, closed loop")
        if run is None:
            return
        closed, single, model = measured_of(run, name), run.models[name], self._config.models[name]
        if run.failure is not None or not closed.per_s:
            raise EngineError(f"{name} alone: {run.failure or 'no request was served: measure for longer'}")
        known = single.throughput.confidence
        alone = Alone(
            engine=single.engine,
            closed=closed,
            closed_low_per_s=known and known.low,
            closed_high_per_s=known and known.high,
            stressor=name in self._wanted.stressors,
            problems=tuple(problem.evidence for problem in single.problems),
        )
        if not alone.stressor:
            closes = model.load.closed
            rate = _rate(closed.per_s, self._wanted.load) if closes else self._config.offered_per_s(model)
            load = self._load(model, rate) if closes and rate is not None else model.load
            alone = alone.model_copy(update={"rate_per_s": rate, "load": load.text})
        few = few_words(alone.rate_per_s, max(self.result.length_ns(), self._wanted.longest_ns))
        self._talks.say(
            f"{name} alone: {format_count(closed.per_s)} requests/s in a closed loop{few and f'; as judged, {few}'}"
        )
        self._update(alone={**self.result.alone, name: alone})

    def _measure(self, group: list[Cell]) -> None:
        """The rounds of the cells of one pair and way, which take turns, one round each."""
        for number in range(self._wanted.rounds):
            for place, cell in enumerate(group):
                if finished(cell, number, self._wanted.precision):
                    continue
                group[place] = self._with_round(cell, number, number + place)
                self._update()
                if self._rig.stopped:
                    return
        if self._apart is not None:
            self._own_rigs.close()
            self._apart = None
        for place, cell in enumerate(group):
            group[place] = cell.model_copy(update={"enough": 0 < len(cell.rounds) < self._wanted.rounds and cell.valid})
            self._talks.say(cell_words(group[place], outcome=True))

    def _with_round(self, cell: Cell, number: int, turn: int) -> Cell:
        """The cell with one round more, or with why there is none; the cell itself where a signal came. A first round
        that shows that its runs are too short for p99 is made again, with longer ones."""
        rate = self._rate_of(cell.model, cell.level)
        if cell.rounds or rate is None:
            return self._tried(cell, number, turn)
        cell = self._lengthened(cell, self._longer_ns(cell, least_length(rate)))
        made = self._tried(cell, number, turn)
        while (longer_ns := self._longer_ns(made)) is not None:
            longer = self._lengthened(cell, longer_ns)
            again = self._tried(longer, number, turn)
            if again is longer:
                break
            cell, made = longer, again
        return made

    def _longer_ns(self, cell: Cell, wanted_ns: float | None = None) -> int | None:
        """The length that the runs of a cell get, ns; None to keep theirs. wanted_ns: None for what its round needs."""
        length_ns, longest_ns = self.result.length_ns(cell), self._wanted.longest_ns
        whole_ns = whole_seconds(takes_ns(cell, length_ns, longest_ns) if wanted_ns is None else wanted_ns)
        return whole_ns if length_ns < whole_ns <= longest_ns else None

    def _lengthened(self, cell: Cell, longer_ns: int | None) -> Cell:
        if longer_ns is None:
            return cell
        self._talks.say(f"{cell_words(cell)}: runs of {format_duration(longer_ns)}, as the interval of p99 takes them")
        return cell.model_copy(update={"length_ns": longer_ns})

    def _tried(self, cell: Cell, number: int, turn: int) -> Cell:
        """The cell with one round more, or with why there is none; the cell itself where a signal came."""
        try:
            made = self._round(cell, number, turn)
        except (EngineError, UsageError) as error:  # other ways and pairs may work
            failure = str(error).replace("--priority", "--share priority").replace("--sms", "--share sms")
            return cell.model_copy(update={"failure": failure})
        if made is None:
            return cell
        round_, runs = made
        rates = (self._rate_of(cell.model, cell.level), self._rate_of(cell.neighbour, cell.neighbour_level))
        changes = {"rate_per_s": rates[0], "neighbour_rate_per_s": rates[1]}
        verified = self._verified[self._placed(cell), frozenset(runs["beside"].models)]
        return summed_up(cell.model_copy(update=changes), round_, runs, verified, self.result.alone)

    @staticmethod
    def _placed(cell: Cell | None) -> str:
        """What the engines of a cell, or of a model alone, are placed for: on plain streams all are the same ones."""
        return PLAIN if cell is None or cell.share == PLAIN else f"{cell.share}: {cell.model} beside {cell.neighbour}"

    def _rig_for(self, cell: Cell | None) -> Rig:
        """The rig with the engines of a cell open, or of a model alone. An engine that hung in the last run is opened
        anew."""
        self._rig.open(self._config)
        if cell is None or cell.share == PLAIN:
            return self._rig
        if self._ways[cell.share].processes:
            if self._apart is None:
                self._own_rigs.close()  # whose engines take memory
                self._shared, self._apart = None, self._own_rigs.enter_context(self._rig.apart())
            return self._apart
        if self._shared is None:
            self._shared = self._own_rigs.enter_context(self._rig.another())
        names = (cell.model, cell.neighbour)
        placed = self._ways[cell.share].models(*(self._config.models[name] for name in names))
        self._shared.open(self._config.model_copy(update={"models": dict(zip(names, placed, strict=True))}))
        return self._shared

    def _round(self, cell: Cell, number: int, turn: int) -> tuple[Round, dict[str, RunResult]] | None:
        """A round with its runs, by name; None where a signal came. turn: an even one begins with the model alone."""
        beside = {cell.model: cell.level}
        if cell.neighbour_level != IDLE:
            beside[cell.neighbour] = cell.neighbour_level
        wanted = {"alone": {cell.model: cell.level}, "beside": beside}
        if cell.neighbour_level == CLOSED:
            wanted["neighbour_alone"] = {cell.neighbour: CLOSED}
        self._rig_for(cell)  # a way that the engines cannot have is refused before the model is measured alone
        runs: dict[str, RunResult] = {}
        measured: dict[str, Measured] = {}
        for kind in wanted if turn % 2 == 0 else reversed(wanted):
            placed, levels, words = cell if kind == "beside" else None, wanted[kind], kind.replace("_", " ")
            on = self._rig_for(placed)
            what, length_ns = f"{cell_words(cell)}, round {number + 1}: {words}", self.result.length_ns(cell)
            run = self._run(on, levels, number, what, placed, length_ns)
            if run is None:
                return None
            if run.failure is not None or not any(model.ok for model in run.models.values()):
                raise EngineError(f"{words}: {run.failure or 'no request was served: measure for longer'}")
            runs[kind] = run
            measured[kind] = measured_of(run, cell.neighbour if kind == "neighbour_alone" else cell.model)
            if kind == "beside" and cell.neighbour in levels:
                measured["neighbour"] = measured_of(run, cell.neighbour)
        return Round(**measured), runs

    def _run(
        self,
        rig: Rig,
        levels: Mapping[str, str],
        number: int,
        what: str,
        cell: Cell | None = None,
        length_ns: int | None = None,
    ) -> RunResult | None:
        """A run of these models at these levels; None where a signal has ended it before its time.

        cell: None for the models alone.
        length_ns: None: as long as --duration says.
        """
        models = {name: self._loaded(name, level, number) for name, level in levels.items()}
        compared = self._verified.setdefault((self._placed(cell), frozenset(levels)), {})
        if cell is not None and self._ways[cell.share].processes:  # which start anew, and would compare again
            models = {
                name: model.model_copy(update={"verify": model.verify and name not in compared})
                for name, model in models.items()
            }
        cells = [one for group in self._groups for one in group]
        done = sum(finished(one, self._wanted.rounds - 1, self._wanted.precision) for one in cells)
        rig.progress = done, len(cells) - done - (cell is not None)
        changes = {"models": models, "duration": length_ns or self._config.duration}
        run = rig.run(self._config.model_copy(update=changes), what, number=number)
        compared |= {one: found for one, model in run.models.items() if (found := model.verification) is not None}
        return None if run.outcome == "interrupted" else run

    def _loaded(self, name: str, level: str, number: int) -> Model:
        """A model under a load, with the seed of the round."""
        model = self._config.models[name]
        changes: dict[str, Any] = {"seed": model.seed + SEEDS * number, "requests": None}
        rate = self._rate_of(name, level)
        if level == CLOSED:
            changes |= {"load": Closed(), "max_queue": None}
        elif level != OWN and rate is not None:
            changes["load"] = self._load(model, rate)
        return model.model_copy(update=changes)

    def _load(self, model: Model, rate: float) -> Load:
        """At a rate; of a model with a load of its own in its form."""
        return at_rate(Rate(PROCESSES[self._wanted.arrivals](), rate) if model.load.closed else model.load, rate)

    def _rate_of(self, name: str, level: str) -> float | None:
        """The arrival rate of a model at a level; None in a closed loop, and of what is idle."""
        if level == OWN:
            return self.result.alone[name].rate_per_s
        return None if level in (CLOSED, IDLE) else _rate(self.result.alone[name].closed.per_s, level)

    def _update(self, **changes: Any) -> None:
        cells = tuple(cell for group in self._groups for cell in group if cell.rounds or cell.failure)
        result = self.result.model_copy(update={"cells": cells, **changes})
        if result.stressors:
            prints = fingerprints_of(cells, result.stressors)
            predictions = predictions_of(prints, [cell for cell in result.matrix if cell.share == PLAIN], STRESS)
            result = result.model_copy(
                update={
                    "fingerprints": prints,
                    "predictions": predictions,
                    "prediction_error": error_of(predictions),
                }
            )
        self.result = result
        self._keep(self.result)


def _rate(closed_per_s: float, level: str) -> float:
    """The level of a closed loop's throughput, in digits that a person copies."""
    return float(f"{parse_share(level) * closed_per_s:.6g}")


def _asked(result: InterferenceResult) -> dict[str, Any]:
    """What all cells share."""
    config = result.config.model_dump(mode="json", by_alias=True)
    models = config.pop("models")
    return {
        **config,
        **{f"{key} of {name}": value for name, model in models.items() for key, value in model.items()},
        "models": list(models),
        "load": result.load,
        "arrivals": result.arrivals,
        "stressors": [f"{name}={engine}" for name, engine in result.stressors.items()],
        **{name: result.environment.get(name) for name in MACHINE},
        "loadtrt": result.loadtrt,
    }
