"""Tables of results as pandas DataFrames, which name the unit of a number at the end of its column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from loadtrt.errors import UsageError, nearest
from loadtrt.printing import bounded_repr
from loadtrt.records.records import COLUMNS as RECORD
from loadtrt.records.records import ON_DEVICE, Records
from loadtrt.report.csv_lines import CELL_COLUMNS, COLUMNS, lines_of
from loadtrt.report.result_files import Loaded
from loadtrt.results.capacity_result import CapacityResult, SweepResult
from loadtrt.results.fleet_result import FleetResult
from loadtrt.results.interference_result import InterferenceResult
from loadtrt.results.placement_result import PlacementResult
from loadtrt.results.profile_result import ProfileResult
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import RunResult
from loadtrt.results.steadiness import Interval
from loadtrt.stats.profiles import LayerComparison
from loadtrt.stats.regression import Comparison

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pandas as pd

    from loadtrt import results
    from loadtrt.report.result_files import Result

    Table = Mapping[str, Sequence[Any]]

_FLOATS = ("_ns", "_per_s", "_low", "_high", "_ratio", "_joules", "_watts", "_cores", "_per_inference", "_value")
# Columns that may be unknown in every row, and then tell no type.
_DTYPES = {
    "start_ns": "int64",
    "in_flight": "Int64",
    **dict.fromkeys(("throttled", "overloaded", "pareto", "knee", "valid"), "boolean"),
    **dict.fromkeys(("a", "b", "ratio", "low", "high"), "float64"),
}
_STATUS = ("ok", "failed", "unserved", "dropped")  # in the order of the codes in records.py
_NS = ("due", "submitted", "enqueued", "completed", "h2d", "compute", "d2h", "lateness")  # columns of a record in ns


def frame_of(result: results.Result, table: str | None) -> pd.DataFrame:
    """See `results.Result.to_pandas`."""
    try:
        import pandas as pd
    except ImportError:
        raise UsageError("to_pandas needs pandas, which is not installed: pip install 'loadtrt[pandas]'") from None
    known = _TABLES[type(result)]
    name = next(iter(known)) if table is None else table
    if name not in known:
        tables = f"it has {', '.join(known)}"
        near = nearest(name, known, tables) if isinstance(name, str) else tables
        raise UsageError(f"a {type(result).__name__} has no table {bounded_repr(name)}: {near}")
    return pd.DataFrame({column: _column(column, values) for column, values in known[name](result).items()})


def _column(name: str, values: Any) -> Any:
    """The values with a type that depends on what is known of them as little as possible."""
    import pandas as pd

    if not isinstance(values, list):
        return values
    kinds = {type(value) for value in values if value is not None}
    if kinds == {str}:
        return pd.Series(values)
    if name in _DTYPES:
        return pd.Series(values, dtype=_DTYPES[name])
    if name.endswith(_FLOATS) or (float in kinds and kinds <= {int, float}):
        return pd.Series(values, dtype="float64")
    for kind, dtype, nullable in ((bool, "bool", "boolean"), (int, "int64", "Int64")):
        if kinds == {kind}:
            return pd.Series(values, dtype=nullable if None in values else dtype)
    return pd.Series([value if value is None else str(value) for value in values], dtype="object")


def _rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> Table:
    """Columns of rows; those of `columns` first, whether a row has them or not."""
    kept = list(rows)
    names = dict.fromkeys(columns) | dict.fromkeys(name for row in kept for name in row)
    return {name: [row.get(name) for row in kept] for name in names}


def _lines(result: results.Result, settings: Sequence[Mapping[str, Any]] = ()) -> Table:
    """A row for each run, point and trial. settings: of each, what else to say of it."""
    lines = list(lines_of(Loaded("", cast("Result", result))))
    more = [{key: value for key, value in other.items() if key not in COLUMNS} for other in settings]
    if more:
        lines = [{**line, **other} for line, other in zip(lines, more, strict=True)]
    table = _rows(lines, COLUMNS)
    return {name: values for name, values in table.items() if name != "file"}


def _workers(run: RunResult) -> Table:
    """A row for each worker of a fleet, of each of its models."""
    rows = [{"worker": int(one.worker)} | dict(line) for one in run.workers for line in lines_of(Loaded("", one))]
    return {name: values for name, values in _rows(rows, ("worker", *COLUMNS)).items() if name != "file"}


def _seconds(run: RunResult) -> Table:
    columns = [name for name in Interval.model_fields if name != "latency_counts"]
    first = ["model"] if len(run.models) > 1 else []
    rows = (
        {"model": name} | {column: getattr(interval, column) for column in columns}
        for name, model in run.models.items()
        for interval in model.intervals
    )
    table = _rows(rows, first + columns)
    return {name: table[name] for name in first + columns}


def _records(run: RunResult) -> Table:
    records = run.records
    if records is None:
        why = (
            "it was made by several processes"
            if run.workers
            else "it was read from a file, or there were more than are kept"
        )
        raise UsageError(f"this result has no records: {why}; its table 'slowest' has those around the slowest request")
    return _of_records(records, timed=run.model.engine.device_times)


def _slowest(run: RunResult) -> Table:
    import numpy as np

    samples = [model.sample.columns for model in run.models.values() if model.sample is not None]
    timed = all(model.engine.device_times for model in run.models.values())
    rows = [
        np.array([sample.get(name) or (0,) * len(sample["due"]) for name in RECORD], dtype=np.int64).T
        for sample in samples
    ]
    records = Records(np.concatenate(rows) if rows else np.empty((0, len(RECORD)), dtype=np.int64))
    return _of_records(records, timed=timed)


def _of_records(records: Records, *, timed: bool) -> Table:
    """timed: whether all requests were timed on the device; else those columns are left out."""
    import numpy as np
    import pandas as pd

    table: dict[str, Any] = {f"{name}_ns": getattr(records, name) for name in _NS if timed or name not in ON_DEVICE}
    for metric, of_unserved, values in (
        ("latency", True, records.completed - records.due),
        ("queue", True, records.submitted - records.due),
        ("service", False, records.completed - records.submitted),
    ):
        has = (records.status == 0) | ((records.status == 2) & of_unserved)
        table[f"{metric}_ns"] = np.where(has, values, np.nan)
    table["lane"] = records.lane
    table["inputs"] = records.inputs
    table["status"] = pd.Categorical.from_codes(records.status, categories=list(_STATUS))
    return table


def _predictions(plan: FleetResult) -> Table:
    rows = []
    for choice in plan.choices:
        for tried in choice.tried:
            row: dict[str, Any] = {
                "routing": choice.routing,
                "gpus": tried.gpus,
                "chosen": tried.gpus == choice.needed,
                "utilisation_ratio": tried.utilisation,
                "verdict": tried.verdict,
                "p50_ns": tried.p50_ns,
                "p50_low_ns": tried.p50_low_ns,
                "p50_high_ns": tried.p50_high_ns,
            }
            for number, share in enumerate(tried.objectives, 1):
                cells = {"text": share.objective.text, "value_ns": share.value_ns, "bad_ratio": share.bad}
                row |= {f"objective_{number}_{name}": cell for name, cell in cells.items()}
            rows.append(row)
    return _rows(rows)


def _placements(plan: PlacementResult) -> Table:
    return _rows(
        {
            "gpus": group.gpus,
            "model": name,
            "rate_per_s": group.rates_per_s[name],
            "limit_per_s": limit.rate_per_s,
            "models": " + ".join(group.limits),
            "shared": group.shared,
            "basis": limit.basis,
        }
        for group in plan.together
        for name, limit in group.limits.items()
    )


def _cells(result: InterferenceResult) -> Table:
    table = _rows(lines_of(Loaded("", result)), CELL_COLUMNS)
    return {name: values for name, values in table.items() if name not in ("file", "kind", "number")}


def _layers(profile: ProfileResult) -> Table:
    return _rows(
        {
            "pass": number,
            "mode": timed.mode,
            "place": place,
            "layer": times.layer.name,
            "type": times.layer.type,
            "precision": times.layer.precision,
            "count": times.count,
            "total_ns": times.total_ns,
            "average_ns": times.average_ns,
            "median_ns": times.median_ns,
            "p99_ns": times.p99_ns,
            "share_ratio": times.share,
        }
        for number, timed in enumerate(profile.passes, 1)
        for place, times in enumerate(timed.layers, 1)
    )


def _ratios(comparison: Comparison) -> Table:
    return _rows(ratio.model_dump() for ratio in comparison.ratios)


def _layer_rows(comparison: LayerComparison) -> Table:
    return _rows(
        {
            "a": ", ".join(layer.name for layer in row.a.layers),
            "b": ", ".join(layer.name for layer in row.b.layers),
            "a_ns": row.a.time_ns,
            "b_ns": row.b.time_ns,
            "speedup_ratio": row.speedup,
            "saved_ns": row.saved_ns,
            "matched_by": row.matched_by,
        }
        for row in comparison.rows
    )


# The tables of each kind of result by name, the usual one first.
_TABLES: dict[type, dict[str, Callable[[Any], Table]]] = {
    RunResult: {"seconds": _seconds, "records": _records, "slowest": _slowest, "summary": _lines, "workers": _workers},
    RepeatResult: {"summary": _lines},
    SweepResult: {"points": lambda sweep: _lines(sweep, [point.settings for point in sweep.points])},
    CapacityResult: {"trials": _lines},
    InterferenceResult: {"cells": _cells},
    FleetResult: {"predictions": _predictions},
    PlacementResult: {"placements": _placements},
    ProfileResult: {"layers": _layers},
    Comparison: {"ratios": _ratios},
    LayerComparison: {"layers": _layer_rows},
}
