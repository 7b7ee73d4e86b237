"""The numbers of a result that programs follow from one version to the next, each with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loadtrt.errors import UsageError
from loadtrt.records.records import METRICS
from loadtrt.report.comparison_sections import measured_of
from loadtrt.report.interference_words import level_words
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.capacity_result import CapacityResult, SweepResult
from loadtrt.results.fleet_result import FleetResult
from loadtrt.results.interference_result import InterferenceResult
from loadtrt.results.one_model import models_of
from loadtrt.results.placement_result import PlacementResult
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import RunResult
from loadtrt.stats.measured import RATES, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.report.result_files import Loaded, Result
    from loadtrt.results.engine_info import EngineInfo
    from loadtrt.results.interference_result import Alone, Cell
    from loadtrt.results.placement_result import PlannedModel

Unit = Literal["ns", "requests/s", "inferences/s", "J", "ratio", "GPUs"]
_KEPT = {"kept": "throughput kept", "neighbour_kept": "neighbour throughput kept"}  # of a cell, beside over alone
_RATES: dict[str, Unit] = {"throughput": "requests/s", "inferences": "inferences/s"}


@dataclass(frozen=True, slots=True)
class Tracked:
    """A number.

    name: "throughput", "inferences", METRIC.pNN, METRIC.mean, "capacity", "energy of an inference", "GPUs", "GPUs
        apart" (both with the spares, but of a model among several); of a cell of interference one of _KEPT.
    unit: "ratio" is of a number beside a neighbour over the number alone.
    low, high: ends of its 95 % confidence interval, as far as they are known.
    """

    name: str
    unit: Unit
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def bigger_is_better(self) -> bool:
        """Rates, and what is kept of them, are better when they rise; times, energy and GPUs when they fall."""
        return self.unit in ("requests/s", "inferences/s") or self.name in _KEPT.values()


@dataclass(frozen=True, slots=True)
class Part:
    """What has numbers of its own: a run or one of its models, starts of a run, a point of a sweep, a capacity, a model
    or a cell of interference, a plan or one of its models or routings.

    name: tells it from the other parts of its result; "" where there are no others.
    engine: what served; None where it did not open.
    doubt: why its numbers cannot be trusted; None where they can.
    """

    name: str
    engine: EngineInfo | None
    doubt: str | None
    numbers: tuple[Tracked, ...]


def parts_of(item: Loaded) -> Iterator[Part]:
    """The parts of a result, in its order. Raises UsageError for a result that has none."""
    match item.result:
        case RunResult(models=models) as run:
            for name, single in models_of(run).items():
                yield _of_run(name if len(models) > 1 else "", single)
        case RepeatResult() as starts:
            numbers = tuple(
                Tracked(spread.name, _RATES.get(spread.name, "ns"), spread.mean, spread.mean_low, spread.mean_high)
                for spread in starts.spreads
                if spread.mean is not None
            )
            yield Part("", starts.runs[0].model.engine, _doubt_of(starts), numbers)
        case SweepResult() as sweep:
            for point in sweep.points:
                if point.run is not None:
                    name = ", ".join(f"{key} {value}" for key, value in point.settings.items())
                    yield _of_run(name, point.run)
        case CapacityResult() as capacity:
            yield _of_capacity(capacity)
        case InterferenceResult() as interference:
            for name, alone in interference.alone.items():
                yield _of_alone(name, alone)
            for cell in interference.cells:
                yield _of_cell(cell, interference)
        case PlacementResult() as plan:
            together = Tracked("GPUs", "GPUs", plan.gpus + plan.spares, plan.gpus_least + plan.spares)
            yield Part("", None, None, (together, Tracked("GPUs apart", "GPUs", plan.apart + plan.spares)))
            for name, model in plan.models.items():
                yield _of_planned(name, model)
        case FleetResult(choices=choices) as fleet:
            for choice in choices:
                known = [] if choice.gpus is None else [Tracked("GPUs", "GPUs", choice.gpus)]
                doubt = fleet.doubt if choice.gpus is not None else choice.reason
                yield Part(choice.routing, fleet.engine, doubt, tuple(known))
        case _:
            raise UsageError(f"{item.file} has no numbers that are tracked: give a run, another measurement or a plan")


def _of_run(name: str, run: RunResult) -> Part:
    measured = measured_of(name, run)
    names = [*RATES, *(f"{metric.name}.{which}" for metric in METRICS for which in (*PERCENTILES, "mean"))]
    numbers = []
    for key in names:
        number = number_of(measured, key, of_all=False)
        if number.value is not None:
            low, high = (number.interval.low, number.interval.high) if number.interval else (None, None)
            numbers.append(Tracked(key, _RATES.get(key, "ns"), number.value, low, high))
    joules = run.telemetry.joules_per_inference if run.telemetry is not None else None
    numbers += [] if joules is None else [Tracked("energy of an inference", "J", joules)]
    return Part(name, run.model.engine, _doubt_of(run), tuple(numbers))


def _of_capacity(result: CapacityResult) -> Part:
    best = result.best
    if best is None or best.estimate_per_s is None:
        return Part("", None, "no capacity was found", ())
    numbers = [Tracked("capacity", "requests/s", best.estimate_per_s, best.low_per_s, best.high_per_s)]
    if best.joules_per_inference is not None:
        numbers.append(Tracked("energy of an inference", "J", best.joules_per_inference))
    doubt = best.conclusion if best.answer in ("host-bound", "unsteady") else None
    return Part("", best.engine, doubt, tuple(numbers))


def _of_alone(name: str, alone: Alone) -> Part:
    numbers = Tracked("throughput", "requests/s", alone.closed.per_s, alone.closed_low_per_s, alone.closed_high_per_s)
    doubt = f"INVALID: {'; '.join(alone.problems)}" if alone.problems else None
    return Part(f"{name} alone", alone.engine, doubt, (numbers,))


def _of_cell(cell: Cell, result: InterferenceResult) -> Part:
    """A cell. The p99 of an overloaded model is that of the length of the run."""
    ratios = {"latency.p99": None if cell.overloaded else cell.ratio()}
    ratios |= {name: getattr(cell, key) for key, name in _KEPT.items()}
    known = [(name, one, one.ratio) for name, one in ratios.items() if one is not None]
    numbers = tuple(Tracked(name, "ratio", ratio, one.low, one.high) for name, one, ratio in known if ratio is not None)
    doubt = None if cell.valid else cell.failure or f"INVALID: {'; '.join(cell.problems)}"
    name = f"{cell.model} beside {cell.neighbour} {level_words(cell.neighbour_level)}, {cell.share}"
    return Part(name, result.alone[cell.model].engine if cell.model in result.alone else None, doubt, numbers)


def _of_planned(name: str, model: PlannedModel) -> Part:
    numbers = [Tracked("GPUs", "GPUs", model.gpus, model.gpus_least)]
    if model.capacity_per_s is not None:
        numbers.append(Tracked("capacity", "requests/s", model.capacity_per_s, model.low_per_s, model.high_per_s))
    return Part(name, model.engine, None, tuple(numbers))


def _doubt_of(result: Result) -> str | None:
    """Why the numbers of a run, or of starts of one, cannot be trusted."""
    match result:
        case RunResult() | RepeatResult() if result.outcome == "failed":
            return result.failure or "it failed"
        case RunResult() as run if not run.valid:
            return "INVALID: " + "; ".join(problem.evidence for problem in run.model.problems)
        case RepeatResult() as starts:
            return next((doubt for run in starts.runs if (doubt := _doubt_of(run))), None)
        case _:
            return None
