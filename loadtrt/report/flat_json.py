"""One result as JSON of one level, for trackers of experiments (MLflow, W&B): numbers in one file, and what they were
measured with, as text, in another.

Names of numbers end with their unit: _ms, _per_s, _joules, _watts, _ratio; what has none is a count. A slash
groups them, as both trackers show it. A number that is not known is left out.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from loadtrt.asked.reading import OUTPUT_KEYS
from loadtrt.errors import UsageError
from loadtrt.printing import printable, shortened
from loadtrt.report.csv_lines import OF_RUN
from loadtrt.report.tracked import parts_of
from loadtrt.results.capacity_result import CapacityResult, SweepResult
from loadtrt.results.fleet_result import FleetResult
from loadtrt.results.interference_result import InterferenceResult
from loadtrt.results.one_model import models_of
from loadtrt.results.placement_result import PlacementResult
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import RunResult
from loadtrt.units import MILLISECOND_NS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.report.result_files import Loaded

_ASKED = {"batch", "contexts", "buffers"}  # numbers that were asked for
_OF_PARTS = {"requests_per_s", "requests_per_s_low", "requests_per_s_high", "inferences_per_s", "joules_per_inference"}
_MOST_TEXT = 500  # characters: MLflow's older servers take no more
_UNITS = {"requests/s": "requests_per_s", "inferences/s": "inferences_per_s", "J": "joules_per_inference"}
_NAME = re.compile(r"[^\w. /-]+", re.ASCII)  # what MLflow takes in a name


def metrics_json(loaded: Sequence[Loaded]) -> str:
    """The numbers of a result. Raises UsageError for several results, and for one that is not of one experiment."""
    item = _only(loaded)
    metrics: dict[str, float] = {}
    for part in parts_of(item):
        before = f"{part.name}/" if part.name else ""
        metrics |= {f"{before}valid": int(part.doubt is None)}
        for number in part.numbers:
            size = MILLISECOND_NS if number.unit == "ns" else 1
            for end, value in (("", number.value), ("_low", number.low), ("_high", number.high)):
                if value is not None and (value or not end):  # what a phase does not have is 0 without an interval
                    metrics[before + _name(number.name, number.unit, end)] = value / size
    if isinstance(item.result, RunResult):
        for name, run in models_of(item.result).items():
            before = f"{name}/" if len(item.result.models) > 1 else ""
            metrics |= {before + key: value for key, value in _of_run(run)}
    if isinstance(item.result, RepeatResult):
        metrics["starts"] = len(item.result.runs)
    known = {_NAME.sub("_", name): value for name, value in metrics.items() if math.isfinite(value)}
    return json.dumps(known, indent=1) + "\n"


def params_json(loaded: Sequence[Loaded]) -> str:
    """What a result was measured with, as text by name. Raises UsageError as `metrics_json` does."""
    item = _only(loaded)
    result = item.result
    params: dict[str, Any] = {}
    match result:
        case RunResult(models=models):
            for name, run in models_of(result).items():
                before = f"{name}/" if len(models) > 1 else ""
                params |= {before + key: value for key, value in _asked_of(run).items()}
        case RepeatResult(runs=(first, *_)):
            params = {**_asked_of(first), "run": None, "starts": len(result.runs)}
        case CapacityResult():
            best = result.best
            lanes = {} if best is None else {"contexts": best.contexts, "batch": best.batch, "buffers": best.buffers}
            params = {
                **_options(result.config.options()),
                "rate": None,  # which is a placeholder in a search
                **lanes,
            }
        case InterferenceResult(config=config):
            params = {
                key: getattr(result, key) for key in ("shares", "levels", "load", "arrivals", "stressors", "stress")
            }
            for name in config.models:
                params |= {f"{name}/{key}": value for key, value in _options(config.alone(name).options()).items()}
        case PlacementResult() | FleetResult():
            params = {key: getattr(result, key) for key in ("sources", "max_utilisation", "spares", "gpu_price")}
            of_each = result.models if isinstance(result, PlacementResult) else {"": result}
            for name, planned in of_each.items():
                before = f"{name}/" if name else ""
                params |= {f"{before}demand/{key}": value for key, value in planned.demand.model_dump().items()}
                params |= {f"{before}engine": planned.engine.name, f"{before}device": planned.engine.device}
                texts = [objective.text for objective in planned.objectives]
                params |= {f"{before}objective_{number}": text for number, text in enumerate(texts, 1)}
        case _:
            pass
    if isinstance(result, CapacityResult | InterferenceResult | FleetResult | PlacementResult):
        params |= {"loadtrt": result.loadtrt, "started": result.started}
    labels = getattr(getattr(result, "config", None), "labels", {})
    params |= {f"label/{key}": value for key, value in labels.items()}
    known = {
        _NAME.sub("_", name): _text(value) for name, value in params.items() if value not in (None, "", (), [], {})
    }
    return json.dumps(known, indent=1, ensure_ascii=False) + "\n"


def _only(loaded: Sequence[Loaded]) -> Loaded:
    """The one result. Raises UsageError for several, for a result of many experiments, and for one without numbers."""
    item = loaded[0]
    if len(loaded) > 1:
        raise UsageError(f"a flat file holds one result, and here are {len(loaded)} files: give one")
    if isinstance(item.result, SweepResult):
        raise UsageError(f"{item.file} is of many experiments: write CSV of it, -o FILE.csv")
    next(parts_of(item), None)
    return item


def _of_run(run: RunResult) -> Iterator[tuple[str, float]]:
    """The numbers of a run beside those that are tracked: the columns of CSV, and the objectives."""
    for name, of_run in OF_RUN.items():
        value = of_run(run)
        if isinstance(value, int | float) and name not in _ASKED | _OF_PARTS and name != "valid":
            in_ms = name.endswith("_ns")
            yield f"{name.removesuffix('_ns')}_ms" if in_ms else name, value / MILLISECOND_NS if in_ms else +value
    for metric, summary in run.model.metrics.items():
        for which, value in (("min", summary.min_ns), ("max", summary.max_ns)):
            if value is not None:
                yield f"{metric}/{which}_ms", value / MILLISECOND_NS
    for number, item in enumerate(run.model.objectives, 1):
        if item.verdict in ("met", "missed"):
            yield f"objective_{number}/met", int(item.verdict == "met")
        if item.bad is not None:
            yield f"objective_{number}/bad_ratio", item.bad


def _name(name: str, unit: str, end: str) -> str:
    """ "latency/p99_9_ms", "latency/p99_low_ms", "throughput/requests_per_s_low"."""
    if unit == "ns":
        metric, _, which = name.partition(".")
        return f"{metric}/{which.replace('.', '_')}{end}_ms"
    if unit == "ratio":
        return f"{re.sub('[ .]', '/' if '.' in name else '_', name.replace(chr(39), ''))}{end}_ratio"
    if unit == "GPUs":
        return f"{name.replace(' ', '_').lower()}{end}"
    return f"capacity/{_UNITS[unit]}{end}" if name == "capacity" else f"{_UNITS[unit]}{end}"


def _asked_of(run: RunResult) -> dict[str, Any]:
    """The options of a run, and the columns of CSV that are text or were asked for."""
    columns = {name: of_run(run) for name, of_run in OF_RUN.items()}
    texts = {name: value for name, value in columns.items() if isinstance(value, str) or name in _ASKED}
    texts |= {f"objective_{number}": item.objective.text for number, item in enumerate(run.model.objectives, 1)}
    return {**_options(run.config.options()), **texts}


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in OUTPUT_KEYS and key != "objectives"}


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shortened(printable(text), _MOST_TEXT)
