"""Results as CSV for spreadsheets and pandas: a line for each run (for each of its models, where it has several), each
point of a sweep and each trial of a search.

The columns are always the same; those of interference, a line for each cell, are others. Their names end with the unit:
_ns, _per_s, _joules, _watts, _ratio (0 to 1). A cell is empty where the number is unknown or not supported by the
sample.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from loadtrt.asked.objective import UNITS
from loadtrt.errors import UsageError
from loadtrt.printing import printable
from loadtrt.records.records import METRICS
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.capacity_result import CapacityResult, SweepResult
from loadtrt.results.interference_result import LATENCIES, InterferenceResult
from loadtrt.results.one_model import models_of
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import RunResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtrt.report.result_files import Loaded
    from loadtrt.results.interference_result import Cell

OBJECTIVES = 3  # columns are of the first three; the verdict is on all
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute
_TIMES = (*PERCENTILES, "mean", "min", "max")
_OF_PLACE = ("file", "kind", "number", "trial", "in_flight", "rate_per_s", "pareto", "knee")
OF_RUN: dict[str, Callable[[RunResult], Any]] = {
    "outcome": lambda run: run.outcome,
    "valid": lambda run: run.valid,
    "verdict": lambda run: run.verdict,
    "failure": lambda run: run.failure,
    "started": lambda run: run.started,
    "run": lambda run: run.run,
    "loadtrt": lambda run: run.loadtrt,
    "engine": lambda run: run.model.engine.name,
    "engine_kind": lambda run: run.model.engine.kind,
    "runtime": lambda run: run.model.engine.flavour,
    "runtime_version": lambda run: run.model.engine.version,
    "device": lambda run: run.model.engine.device,
    "batch": lambda run: run.model.engine.batch,
    "contexts": lambda run: run.config.model.contexts,
    "buffers": lambda run: run.config.model.buffers,
    "arrivals": lambda run: run.config.options()["arrivals"],
    "ok": lambda run: run.model.ok,
    "failed": lambda run: run.model.failed,
    "unserved": lambda run: run.model.unserved,
    "dropped": lambda run: run.model.dropped,
    "measure_ns": lambda run: run.phases.measure_ns,
    "requests_per_s": lambda run: run.model.throughput.requests_per_s,
    "requests_per_s_low": lambda run: run.model.throughput.confidence and run.model.throughput.confidence.low,
    "requests_per_s_high": lambda run: run.model.throughput.confidence and run.model.throughput.confidence.high,
    "inferences_per_s": lambda run: run.model.throughput.inferences_per_s,
    "offered_per_s": lambda run: run.model.throughput.offered_per_s,
    "fairness_ratio": lambda run: run.model.fairness,
    "busy_ratio": lambda run: run.model.overlap and run.model.overlap.busy_fraction,
    "lanes_computing": lambda run: run.model.overlap and run.model.overlap.lanes_computing,
    "starved_ratio": lambda run: run.model.starved_fraction,
    "host_cores": lambda run: run.host_cores,
    "power_mean_watts": lambda run: run.telemetry and run.telemetry.power_mean_watts,
    "energy_joules": lambda run: run.telemetry and run.telemetry.energy_joules,
    "joules_per_inference": lambda run: run.telemetry and run.telemetry.joules_per_inference,
    "throttled_ratio": lambda run: run.telemetry and run.telemetry.throttled_fraction,
    "transient_ns": lambda run: run.model.steadiness and run.model.steadiness.transient_ns,
    "drift_ratio": lambda run: run.model.steadiness and run.model.steadiness.drift_ratio,
    "overloaded": lambda run: run.model.steadiness and run.model.steadiness.overloaded,
    "problems": lambda run: "; ".join(problem.evidence for problem in run.model.problems),
    "findings": lambda run: "; ".join(finding.kind for finding in run.model.findings),
}
_OF_OBJECTIVE = ("text", "verdict", "value_ns", "bad_ratio", "bad_low_ratio", "bad_high_ratio", "effective")
_OF_NUMBER = ("value", "value_low", "value_high", "unit")


def _time_column(metric: str, what: str) -> str:
    return f"{metric}_{what.replace('.', '_')}_ns"


COLUMNS = (
    *_OF_PLACE,
    *OF_RUN,
    *(_time_column(metric.name, what) for metric in METRICS for what in _TIMES),
    *(f"objective_{number}_{name}" for number in range(1, OBJECTIVES + 1) for name in (*_OF_OBJECTIVE, *_OF_NUMBER)),
)

_OF_CELL = (
    *("share", "model", "neighbour", "level", "neighbour_level", "rate_per_s", "neighbour_rate_per_s"),
    *("overloaded", "neighbour_overloaded"),
)
_KEPT = {"kept": "kept", "neighbour_kept": "neighbour_kept", "speedup": "weighted_speedup", "jain": "jain"}
_ENDS = ("ratio", "low", "high")
CELL_COLUMNS = (
    *("file", "kind", "number", *_OF_CELL, "rounds"),
    *(f"{name}_{end}" for name in (*LATENCIES, *_KEPT) for end in _ENDS),
    *("valid", "failure"),
)


def csv_text(loaded: Sequence[Loaded]) -> str:
    """A header and a line for each run, point and trial, or for each cell of interference. Raises UsageError for
    results that have none, and for interference beside other results."""
    cells = [isinstance(item.result, InterferenceResult) for item in loaded]
    if any(cells) and not all(cells):
        file = loaded[cells.index(True)].file
        raise UsageError(f"{file} holds interference, which has other columns: write it to a file of its own")
    text = io.StringIO()
    writer = csv.DictWriter(text, CELL_COLUMNS if any(cells) else COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for item in loaded:
        for line in lines_of(item):
            writer.writerow({name: _cell(value) for name, value in line.items()})
    return text.getvalue()


def lines_of(item: Loaded) -> Iterator[dict[str, Any]]:
    """The cells by column of each run, point and trial. Raises UsageError for a result that has none."""
    match item.result:
        case RunResult(models=models) as run:
            for number, (name, single) in enumerate(models_of(run).items(), 1):
                file = f"{item.file}: {name}" if len(models) > 1 else item.file
                yield _measured({"file": file, "kind": "run", "number": number}, single)
        case RepeatResult(runs=runs):
            for number, run in enumerate(runs, 1):
                yield _measured({"file": item.file, "kind": "run", "number": number}, run)
        case SweepResult() as sweep:
            for place, point in enumerate(sweep.points):
                marks = {"pareto": place in sweep.pareto, "knee": place == sweep.knee}
                settings = {name: value for name, value in point.settings.items() if name in OF_RUN}
                line = {"file": item.file, "kind": "point", "number": place + 1, **marks, **settings}
                yield _measured(line, point.run, point.failure)
        case CapacityResult() as capacity:
            number = 0
            for candidate in capacity.candidates:
                lanes = {"contexts": candidate.contexts, "buffers": candidate.buffers, "batch": candidate.batch}
                for trial in candidate.trials:
                    number += 1
                    load = {"trial": trial.kind, "in_flight": trial.in_flight, "rate_per_s": trial.rate_per_s}
                    line = {"file": item.file, "kind": "trial", "number": number, **lanes, **load}
                    yield _measured(line, trial.run, trial.failure or trial.host_bound)
        case InterferenceResult(cells=cells):
            for number, cell in enumerate(cells, 1):
                yield {"file": item.file, "kind": "cell", "number": number, **_cell_line(cell)}
        case _:
            raise UsageError(f"{item.file} has no runs, points or trials, of which CSV has a line each: leave it out")


def _cell_line(cell: Cell) -> dict[str, Any]:
    line: dict[str, Any] = {name: getattr(cell, name) for name in _OF_CELL}
    ratios = {
        **{which: cell.ratio(which) for which in LATENCIES},
        **{name: getattr(cell, of) for name, of in _KEPT.items()},
    }
    for name, ratio in ratios.items():
        line |= {f"{name}_{end}": getattr(ratio, end, None) for end in _ENDS}
    failure = cell.failure or "; ".join(cell.problems) or None
    return {**line, "rounds": len(cell.rounds), "valid": cell.valid, "failure": failure}


def _measured(line: dict[str, Any], run: RunResult | None, failure: str | None = None) -> dict[str, Any]:
    """The columns of a run, point or trial and of what was measured; a trial without a run has failed."""
    cells = {"outcome": "failed"} if run is None else _run(run)
    known = {name: value for name, value in cells.items() if value is not None}
    rate = line.get("rate_per_s") or (run.model.throughput.offered_per_s if run else None)
    return {**line, **known, "rate_per_s": rate, "failure": failure or known.get("failure")}


def _run(run: RunResult) -> dict[str, Any]:
    line = {name: of_run(run) for name, of_run in OF_RUN.items()}
    for metric in METRICS:
        summary = run.model.metrics.get(metric.name)
        if summary is not None:
            values = {**summary.percentiles_ns, "mean": summary.mean_ns, "min": summary.min_ns, "max": summary.max_ns}
            line |= {_time_column(metric.name, what): values.get(what) for what in _TIMES}
    for number, item in enumerate(run.model.objectives[:OBJECTIVES], 1):
        shares = (item.bad, item.bad_low, item.bad_high)
        cells = (item.objective.text, item.verdict, item.value_ns, *shares, item.effective)
        numbers = (item.value, item.value_low, item.value_high, UNITS.get(item.objective.kind))
        every = zip((*_OF_OBJECTIVE, *_OF_NUMBER), (*cells, *numbers), strict=True)
        line |= {f"objective_{number}_{name}": cell for name, cell in every}
    return line


def _cell(value: Any) -> Any:
    """The value as a cell. Text that a spreadsheet would compute as a formula begins with an apostrophe."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return repr(round(value, 9)).removesuffix(".0")
        case str():
            text = printable(value)
            return f"'{text}" if text.startswith(_FORMULA) else text
        case _:
            return value
