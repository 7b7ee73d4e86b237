"""The functions that read and compute: plan_capacity, merge, compare, read. See `loadtrt/__init__.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtrt.api.calling import Call
from loadtrt.api.given import options_of, path_of, sources_of
from loadtrt.errors import UsageError
from loadtrt.printing import bounded_repr
from loadtrt.report.comparison_sections import compared
from loadtrt.report.result_files import SCHEMAS, Kind, NoResultError, read_file, read_result
from loadtrt.report.sides import profile_in, runs_in, sides_of_files, word_of
from loadtrt.results.run_result import RunResult
from loadtrt.runs.watched import Silence
from loadtrt.sizing.planning import ARRIVALS, DEMANDS, OPTIONS, plan_of
from loadtrt.stats.merging import merge as merged
from loadtrt.stats.profiles import LayerComparison, compare_profiles
from loadtrt.stats.regression import Comparison, parse_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.report.result_files import Result
    from loadtrt.results import Result as AnyResult
    from loadtrt.results.fleet_result import FleetResult
    from loadtrt.results.placement_result import PlacementResult
    from loadtrt.signals import Signals
    from loadtrt.stats.regression import Threshold

_EXAMPLE = "a result, or a file such as 'run.json'"
_NOT_OURS = {
    Kind.TIMES: "loadtrt.compare takes such files",
    Kind.LAYER_TIMES: "loadtrt.compare takes such files",
}


def planning(given_sources: Sequence[Any], given: dict[str, Any]) -> Call[FleetResult | PlacementResult]:
    """See `loadtrt.plan_capacity`."""
    if not given_sources:
        raise UsageError("a plan needs measurements: give the result of loadtrt.capacity or loadtrt.sweep, or its file")
    options = options_of("plan-capacity", given, (*OPTIONS, *DEMANDS, *ARRIVALS, "together"))
    if len(given_sources) == 1 and isinstance(given_sources[0], Mapping):
        return _placing(dict(given_sources[0]), options)
    if isinstance(options.get("demand"), Mapping) or "together" in options:
        raise UsageError(
            "a plan of several models needs the capacity of each by name: give {'a': found, 'b': 'b.json'}"
        )
    sources = sources_of(given_sources, _EXAMPLE)
    plan, names = plan_of(options), [*map(_name_of, sources)]

    def work(signals: Signals) -> FleetResult | PlacementResult:
        return plan.make(sources, Silence(), signals, names=names, curve=False)

    return Call(work)


def _placing(measurements: dict[Any, Any], options: dict[str, Any]) -> Call[FleetResult | PlacementResult]:
    """The plan of several models."""
    from loadtrt.sizing.placing import placement_plan, require_names

    given = options.pop("together", [])
    together = sources_of(given if isinstance(given, list) else [given], _EXAMPLE)
    alone = dict(zip(map(str, measurements), sources_of([*measurements.values()], _EXAMPLE), strict=True))
    rates = require_names(options.pop("demand", None), alone)
    plan = placement_plan(options, rates)
    names = [*map(_name_of, (*alone.values(), *together))]

    def work(_: Signals) -> FleetResult | PlacementResult:
        return plan.make(alone, together, names)

    return Call(work)


def _name_of(source: Path | AnyResult) -> str:
    """What a plan calls a source."""
    return str(source) if isinstance(source, Path) else type(source).__name__


def merge(given: Sequence[Any]) -> RunResult:
    """See `loadtrt.merge`."""
    if not given:
        raise UsageError("there is nothing to merge: give the workers' results, or their files, one by one")
    named: dict[str, RunResult] = {}
    failed = None
    for number, source in enumerate(sources_of(given, f"{_EXAMPLE}, one by one"), 1):
        name = str(source) if isinstance(source, Path) else f"result {number}"
        try:
            run = read_result(RunResult, source) if isinstance(source, Path) else source
        except NoResultError as error:  # of a worker that is lost
            failed = error
            continue
        if not isinstance(run, RunResult):
            raise UsageError(f"{name} is a {type(run).__name__}: give results of loadtrt.run of workers")
        if name in named:
            raise UsageError(f"{name} is given twice: give each worker's result once")
        named[name] = run
    if failed is not None and not named:
        raise failed
    return merged(named)


def compare(
    a: Any, b: Any, fail_if: str | Sequence[str], layer_info_a: Any, layer_info_b: Any
) -> Comparison | LayerComparison:
    """See `loadtrt.compare`."""
    thresholds = _thresholds(fail_if)
    infos = [None if info is None else path_of(info) for info in (layer_info_a, layer_info_b)]
    sides = []
    for given, info, letter in ((a, infos[0], "A"), (b, infos[1], "B")):
        files = sources_of(given if isinstance(given, list | tuple) else [given], _EXAMPLE)
        if not files:
            raise UsageError(f"side {letter} is empty: give {_EXAMPLE}")
        sides.append(sides_of_files(files, info, f"layer_info_{letter.lower()}", letter))
    several = max(map(len, sides)) > 1
    wanted = "fail_if" if thresholds else "a side of several runs" if several else None
    runs_a, runs_b = (runs_in(side, wanted) for side in sides)
    if runs_a and runs_b:
        return compared(runs_a, runs_b, thresholds)
    (name_a, side_a), (name_b, side_b) = (next(iter(side.items())) for side in sides)
    profiles = profile_in(side_a), profile_in(side_b)
    if profiles[0] and profiles[1]:
        return compare_profiles(profiles[0], profiles[1])
    held = f"{name_a} is {word_of(side_a)} and {name_b} is {word_of(side_b)}"
    raise UsageError(f"{held}: give two runs, or two profiles")


def _thresholds(given: Any) -> list[Threshold]:
    """One threshold, several, or None. Raises UsageError."""
    texts = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"fail_if {bounded_repr(given)} is not a threshold: write one such as 'latency.p99 +5%'")
    return [parse_threshold(text) for text in texts]


def read(path: Any) -> Result:
    """See `loadtrt.read`."""
    file = read_file(path_of(path))
    schema = SCHEMAS.get(file.kind)
    if schema is None:
        way_out = _NOT_OURS.get(file.kind, "it is not a result of loadtrt")
        raise UsageError(f"{file.path} is {file.kind}: {way_out}")
    return read_result(schema, file)
