"""Results as CSV for spreadsheets and pandas: a line for each run (for each of its models, where it has several), each
point of a sweep and each trial of a search.

The columns are always the same. Their names end with the unit: _ns, _per_s, _joules, _watts, _ratio (0 to 1). A cell is
empty where the number is unknown or not supported by the sample.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from loadtrt.errors import UsageError
from loadtrt.printing import printable
from loadtrt.records.records import METRICS
from loadtrt.report.settings import models_of
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.capacity_result import CapacityResult
from loadtrt.results.run_result import RunResult
from loadtrt.results.sweep_result import SweepResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.result_files import Loaded
    from loadtrt.results.run_result import ObjectiveShare

OBJECTIVES = 3  # columns are of the first three; the verdict is on all
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute
_TIMES = (*PERCENTILES, "mean", "min", "max")
_OF_PLACE = ("file", "kind", "number", "trial", "in_flight", "rate_per_s", "pareto", "knee")
_OF_RUN = (
    *("outcome", "valid", "verdict", "failure", "started", "run", "loadtrt"),
    *("engine", "engine_kind", "runtime", "runtime_version", "device"),
    *("batch", "contexts", "buffers", "arrivals", "ok", "failed", "unserved", "dropped", "measure_ns"),
    *("requests_per_s", "requests_per_s_margin_ratio", "inferences_per_s", "offered_per_s"),
    *("fairness_ratio", "busy_ratio", "lanes_computing", "starved_ratio", "host_cores"),
    *("power_mean_watts", "energy_joules", "joules_per_inference", "throttled_ratio"),
    *("transient_ns", "drift_ratio", "overloaded", "problems", "findings"),
)
_OF_OBJECTIVE = ("text", "verdict", "value_ns", "bad_ratio", "bad_low_ratio", "bad_high_ratio", "effective")


def _time_column(metric: str, what: str) -> str:
    return f"{metric}_{what.replace('.', '_')}_ns"


COLUMNS = (
    *_OF_PLACE,
    *_OF_RUN,
    *(_time_column(metric.name, what) for metric in METRICS for what in _TIMES),
    *(f"objective_{number}_{name}" for number in range(1, OBJECTIVES + 1) for name in _OF_OBJECTIVE),
)


def csv_text(loaded: Sequence[Loaded]) -> str:
    """A header and a line for each run, point and trial. Raises UsageError for results that have none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for item in loaded:
        for line in _lines(item):
            writer.writerow({name: _cell(value) for name, value in line.items()})
    return text.getvalue()


def _lines(item: Loaded) -> Iterator[dict[str, Any]]:
    match item.result:
        case RunResult(models=models) as run:
            for number, (name, single) in enumerate(models_of(run).items(), 1):
                file = f"{item.file}: {name}" if len(models) > 1 else item.file
                rate = single.model.throughput.offered_per_s
                yield {"file": file, "kind": "run", "number": number, "rate_per_s": rate, **_run(single)}
        case SweepResult() as sweep:
            for place, point in enumerate(sweep.points):
                marks = {"pareto": place in sweep.pareto, "knee": place == sweep.knee}
                settings = {name: value for name, value in point.settings.items() if name in _OF_RUN}
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
        case _:
            raise UsageError(f"{item.file} has no runs, points or trials, of which CSV has a line each: leave it out")


def _measured(line: dict[str, Any], run: RunResult | None, failure: str | None) -> dict[str, Any]:
    """The columns of a point or trial and of its run; a trial without a run has failed."""
    known = (
        {"outcome": "failed"}
        if run is None
        else {name: value for name, value in _run(run).items() if value is not None}
    )
    rate = line.get("rate_per_s") or (run.model.throughput.offered_per_s if run else None)
    return {**line, **known, "rate_per_s": rate, "failure": failure or known.get("failure")}


def _run(run: RunResult) -> dict[str, Any]:
    engine, rates, telemetry = run.model.engine, run.model.throughput, run.telemetry
    line: dict[str, Any] = {
        name: getattr(run, name) for name in ("outcome", "valid", "failure", "started", "run", "loadtrt", "host_cores")
    }
    line |= {name: getattr(run.model, name) for name in ("ok", "failed", "unserved", "dropped")}
    model = run.config.model
    line |= {"contexts": model.contexts, "buffers": model.buffers, "arrivals": run.config.options()["arrivals"]}
    line |= {
        "verdict": run.verdict,
        "engine": engine.name,
        "engine_kind": engine.kind,
        "runtime": engine.flavour,
        "runtime_version": engine.version,
        "device": engine.device,
        "batch": engine.batch,
        "measure_ns": run.phases.measure_ns,
        "requests_per_s": rates.requests_per_s,
        "requests_per_s_margin_ratio": rates.margin,
        "inferences_per_s": rates.inferences_per_s,
        "offered_per_s": rates.offered_per_s,
        "fairness_ratio": run.model.fairness,
        "starved_ratio": run.model.starved_fraction,
        "problems": "; ".join(problem.evidence for problem in run.model.problems),
        "findings": "; ".join(finding.kind for finding in run.model.findings),
    }
    if run.model.overlap is not None:
        line |= {"busy_ratio": run.model.overlap.busy_fraction, "lanes_computing": run.model.overlap.lanes_computing}
    if telemetry is not None:
        line |= {
            name: getattr(telemetry, name) for name in ("power_mean_watts", "energy_joules", "joules_per_inference")
        }
        line["throttled_ratio"] = telemetry.throttled_fraction
    if run.model.steadiness is not None:
        line |= {name: getattr(run.model.steadiness, name) for name in ("transient_ns", "drift_ratio", "overloaded")}
    for metric in METRICS:
        summary = run.model.metrics.get(metric.name)
        if summary is not None:
            values = {**summary.percentiles_ns, "mean": summary.mean_ns, "min": summary.min_ns, "max": summary.max_ns}
            line |= {_time_column(metric.name, what): values.get(what) for what in _TIMES}
    for number, item in enumerate(run.model.objectives[:OBJECTIVES], 1):
        line |= {f"objective_{number}_{name}": value for name, value in _objective(item).items()}
    return line


def _objective(item: ObjectiveShare) -> dict[str, Any]:
    values = (item.objective.text, item.verdict, item.value_ns, item.bad, item.bad_low, item.bad_high, item.effective)
    return dict(zip(_OF_OBJECTIVE, values, strict=True))


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
