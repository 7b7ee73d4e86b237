"""The functions that measure. `loadtrt/api/functions.py` has what they take and return."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from loadtrt.api.calling import Call
from loadtrt.api.given import file_of, options_of, plain, without_files
from loadtrt.asked.config import RunConfig
from loadtrt.asked.fields import read_option
from loadtrt.asked.reading import load_config
from loadtrt.errors import UsageError
from loadtrt.printing import bounded_repr
from loadtrt.runs.fellows import found_by_fellows
from loadtrt.runs.maker import Maker
from loadtrt.runs.watched import Silence
from loadtrt.units import parse_duration

if TYPE_CHECKING:
    from loadtrt.api.given import Configuration
    from loadtrt.results.capacity_result import CapacityResult, SweepResult
    from loadtrt.results.interference_result import InterferenceResult
    from loadtrt.results.profile_result import ProfileResult
    from loadtrt.results.run_result import RunResult
    from loadtrt.signals import Signals

_NS = range(10**18, 2**63)  # from the year 2001 on: instants outside it are in other units
_KEPT = ("resume", "force")
_MODELS: dict[str, Any] = {"engines": [], "models": {}, "stressor": {}}  # of interference, where none are given
_OF_SEARCH = ("time", "quick", "precision", "shared_host", *_KEPT)


def running(config: Configuration | None, start_at: int | None, given: dict[str, Any]) -> Call[RunResult]:
    """See `loadtrt.run`."""
    start_at = plain(start_at)
    if start_at is not None and (not isinstance(start_at, int) or start_at not in _NS):
        raise UsageError(
            f"start_at {bounded_repr(start_at)} is not Unix time in ns: write for example time.time_ns() + 2 * 10**9"
        )
    options, file = options_of("run", given, ("models",)), file_of(config)
    made = file if isinstance(file, RunConfig) and not options else load_config(file, options, several=True)
    return Call(partial(_run, without_files(made), start_at))


def _run(config: RunConfig, start_at: int | None, signals: Signals) -> RunResult:
    if config.several_processes:
        from loadtrt.runs.fleet import run_fleet

        return run_fleet(config, Silence(), signals, start_at=start_at)
    with found_by_fellows(config, start_at) as without_blame, Maker(signals=signals) as maker:
        maker.open(config)
        maker.require_room()
        result = without_blame(maker.run(config, start_at=start_at))
        recorder = maker.session.recorder if len(config.models) == 1 else None
        if recorder is not None and recorder.complete:
            result = result.with_records(recorder.records.since(recorder.start_ns))
        maker.linger(config, result)
        maker.close()
        if maker.fault is not None:
            raise maker.fault
        if config.profile and result.outcome == "completed":
            from loadtrt.runs.layers import profile_after

            result = result.with_model(profile=profile_after(result, config, maker)[0])
    return result


def profiling(config: Configuration | None, given: dict[str, Any]) -> Call[ProfileResult]:
    """See `loadtrt.profile`."""
    from loadtrt.runs.layers import length_of, profile, profile_config

    made = without_files(profile_config(file_of(config), options_of("profile", given)))

    def work(signals: Signals) -> ProfileResult:
        return profile(made, Silence(), length_of(made), signals)[0]

    return Call(work)


def sweeping(config: Configuration | None, given: dict[str, Any]) -> Call[SweepResult]:
    """See `loadtrt.sweep`."""
    from loadtrt.results.capacity_result import SweepResult
    from loadtrt.sizing.keeping import carry_out
    from loadtrt.sizing.sweeper import Sweeper, base_and_axes, require_measured

    options = options_of("sweep", given, ("all", *_KEPT), writes={"json"})
    all_points, resume, force = (_flag(options, name) for name in ("all", *_KEPT))
    base, axes = base_and_axes(file_of(config), options)
    base = _writing(base, options, "a sweep", force=force)
    make = partial(Sweeper, base, axes, all_points=all_points)

    def work(signals: Signals) -> SweepResult:
        result = carry_out(base, SweepResult, make, Silence(), signals, resume=resume, force=force)
        require_measured(result)
        return result

    return Call(work)


def searching(config: Configuration | None, given: dict[str, Any]) -> Call[CapacityResult]:
    """See `loadtrt.capacity`."""
    from loadtrt.results.capacity_result import CapacityResult
    from loadtrt.sizing.find import Finder, require_answer
    from loadtrt.sizing.keeping import carry_out
    from loadtrt.sizing.wanted import PRECISION, wanted_of

    options = options_of("capacity", given, ("contexts", "batch", *_OF_SEARCH), writes={"json"})
    quick, shared, resume, force = (_flag(options, name) for name in ("quick", "shared_host", *_KEPT))
    time = options.pop("time", None)
    wanted = wanted_of(
        file_of(config),
        options,
        options.pop("contexts", None),
        options.pop("batch", None),
        None if time is None else read_option("--time", time, parse_duration),
        options.pop("precision", PRECISION),
        quick=quick,
        shared=shared,
    )
    wanted.configs()  # raises an error now, before any run
    base = _writing(wanted.config, options, "a search for capacity", force=force)

    def work(signals: Signals) -> CapacityResult:
        make = partial(Finder, wanted)
        result = carry_out(base, CapacityResult, make, Silence(), signals, resume=resume, force=force)
        require_answer(result)
        return result

    return Call(work)


def interfering(config: Configuration | None, given: dict[str, Any]) -> Call[InterferenceResult]:
    """See `loadtrt.interference`."""
    from loadtrt.results.interference_result import InterferenceResult
    from loadtrt.sizing.interference_options import (
        MOST_ROUNDS,
        OPTIONS,
        named_engines,
        require_cells,
        wanted_interference,
    )
    from loadtrt.sizing.keeping import carry_out
    from loadtrt.sizing.neighbours import Neighbours

    own = (*OPTIONS, "engines", "models", "stressors", "stressor", *_KEPT)
    options = options_of("interference", given, own, writes={"json"})
    stressors, resume, force = (_flag(options, name) for name in ("stressors", *_KEPT))
    engines, models, own_stressors = (options.pop(name, empty) for name, empty in _MODELS.items())
    if "engine" in options:
        raise UsageError("interference is between engines: give engines=['a.plan', 'b.plan'], or models by name")
    if not isinstance(engines, list) or not all(isinstance(engine, str) for engine in engines):
        raise UsageError(f"engines {bounded_repr(engines)} is not a list of engines: write ['a.plan', 'b.plan']")
    for name, named in (("models", models), ("stressor", own_stressors)):
        if not isinstance(named, dict) or not all(isinstance(each, dict) for each in named.values()):
            raise UsageError(f"{name} {bounded_repr(named)} has no names: write {{'a': {{'engine': 'a.plan'}}, …}}")
    rounds = options.get("rounds", 1)
    if not isinstance(rounds, int) or isinstance(rounds, bool) or not 1 <= rounds <= MOST_ROUNDS:
        raise UsageError(f"rounds {bounded_repr(rounds)} is not a whole number from 1 to {MOST_ROUNDS}")
    for name in OPTIONS.keys() & options.keys() - {"rounds"}:
        value = options[name]
        options[name] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    wanted = wanted_interference(
        file_of(config), options, named_engines(engines) | models, own_stressors, stressors=stressors
    )
    base = _writing(wanted.config, options, "a measurement of interference", force=force)

    def work(signals: Signals) -> InterferenceResult:
        make = partial(Neighbours, wanted)
        result = carry_out(base, InterferenceResult, make, Silence(), signals, resume=resume, force=force)
        if result.outcome != "interrupted":
            require_cells(result)
        return result

    return Call(work)


def _flag(options: dict[str, Any], name: str) -> bool:
    """Take a switch of a command out of its options."""
    value = options.pop(name, False)
    if not isinstance(value, bool):
        raise UsageError(f"{name} {value!r} is neither True nor False")
    return value


def _writing(base: RunConfig, options: dict[str, Any], content: str, *, force: bool) -> RunConfig:
    """The configuration with the file of `json` alone to be written, once that may be."""
    from loadtrt.cli.outputs import Output, inputs_of, require_outputs

    target = None if options.get("json") is None else base.json_file
    if target == "-":
        raise UsageError("json='-' is stdout on the command line: name a file, or leave it out")
    read = [name for model in base.models for name in inputs_of(base.alone(model).options())]
    require_outputs([Output("json", target, content)], read, force=force)
    return without_files(base).model_copy(update={"json_file": target})
