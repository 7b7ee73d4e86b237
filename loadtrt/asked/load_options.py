"""From options to a load, and which options of a file the load of a command line leaves room for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loadtrt.asked.fields import option_name
from loadtrt.asked.load import LENGTH, PROCESS, QUEUE, Closed, Drawn, Load, LoopedStages, Offline, Rate, Stages
from loadtrt.asked.trace_load import LoopedTrace, Trace
from loadtrt.errors import UsageError
from loadtrt.load.arrivals import PROCESSES, Process

if TYPE_CHECKING:
    from collections.abc import Mapping

ARRIVALS = ("closed", *PROCESSES, "trace", "offline")
_ABOUT = {  # options that need another one
    "stages_loop": ("stages", "stages", "'100/s:10s, 200/s:10s'"),
    **dict.fromkeys(("trace_column", "time_scale", "trace_loop"), ("trace", "a trace", "FILE")),
}
OPTIONS = ("arrivals", "rate", *sorted(PROCESS - {"arrivals"}), "bursts", "stages", "trace", *_ABOUT)
_AGAIN: dict[type[Load], type[Load]] = {Stages: LoopedStages, Trace: LoopedTrace}
_EXAMPLES = {"burstiness": "4", "requests": "1000", "rate": "500/s", "trace": "FILE"}


def type_of(options: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> type[Load] | None:
    """The type of load that these options ask for; None where they ask for none.

    options: by name, without those that were not given.
    other: where it is looked up whether an arrival process goes with stages or with a rate.
    """
    arrivals = options.get("arrivals")
    if arrivals == "closed":
        return Closed
    if arrivals == "offline":
        return Offline
    both = {**(other or {}), **options}
    if arrivals == "trace" or (arrivals is None and "trace" in options):
        return _looped(Trace, both)
    if "stages" in options:
        return _looped(Stages, both)
    before = type_of(other) if other else None
    if "bursts" in options:
        return Rate
    if "rate" in options:  # what has a rate keeps its kind: a process or parameter of one is of no trace
        drawn = PROCESS.intersection(options)
        return before if before and "rate" in (other or {}) and not (drawn and issubclass(before, Trace)) else Rate
    if before and issubclass(before, Trace) and "trace_loop" in options:
        return _looped(Trace, both)
    if before and issubclass(before, Stages) and ("stages_loop" in options or PROCESS.intersection(options)):
        return _looped(Stages, both)
    return Rate if PROCESS.intersection(options) else None


def _looped(kind: type[Load], options: Mapping[str, Any]) -> type[Load]:
    """Stages or a trace, once or again and again."""
    return _AGAIN[kind] if options.get(kind.loop) else kind


def merged(file: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a configuration file under those of the command line.

    Where the command line asks for a load, the file's options that this load does not take are left out.

    file, given: options by name, without those that were not given.
    """
    kind = type_of(given, file)
    if kind is None:
        return {**file, **given}
    keeps = set(kind.takes)
    if "stages" in given or "trace" in given:
        keeps.discard("rate")  # it was that of another load
    if issubclass(kind, Drawn):
        process = process_type(given if PROCESS.intersection(given) else {**file, **given})
        keeps -= PROCESS.difference(process.parameters)
        if file.get("arrivals") == process.word:
            keeps.add("arrivals")
    elif file.get("arrivals") != given.get("arrivals"):
        keeps.discard("arrivals")
    depends = {*OPTIONS, *LENGTH, *QUEUE}
    return {**{key: value for key, value in file.items() if key in keeps or key not in depends}, **given}


def load_of(options: Mapping[str, Any]) -> Load:
    """The load that these options make.

    options: OPTIONS by name as parsed, and the names of others in `requests`, `batcher` and `max_queue`, all without
        those that were not given.

    Raises UsageError where they contradict each other, or where one is missing.
    """
    kind = type_of(options) or Closed
    for key, (about, name, example) in _ABOUT.items():
        if key in options and about not in options:
            raise UsageError(f"{option_name(key)} needs {name}: add {option_name(about)} {example}, or leave it out")
    for key in options:
        sentence = kind.refuses(key)
        if sentence is not None:
            raise UsageError(sentence)
    return _made(kind, options)


def at_rate(load: Load, rate: float) -> Load:
    """The same open loop at another mean rate, in requests per second: stages and traces are scaled by one factor."""
    assert isinstance(load, Rate | Stages | Trace)  # noqa: S101  # no other has a rate
    return replace(load, rate=rate)


def _made(kind: type[Load], options: Mapping[str, Any]) -> Load:
    """The load of this type; options of other types are not looked at. Raises UsageError."""
    if kind is Closed:
        return Closed()
    if kind is Offline:
        _require("requests", "offline arrivals need", options)
        return Offline()
    if issubclass(kind, Trace):
        _require("trace", "trace arrivals need a", options)
        if "rate" in options and "time_scale" in options:
            raise UsageError("--rate and --time-scale both scale a trace: leave one out")
        names = {"trace": "file", "trace_column": "column", "time_scale": "scale", "rate": "rate"}
        return kind(**{name: options[key] for key, name in names.items() if key in options})
    process = _process_of(options)
    if issubclass(kind, Stages):
        return kind(process, options["stages"], options.get("rate"))
    _require("rate", f"{process.word} arrivals need a", options)
    return Rate(process, options["rate"], options.get("bursts"))


def _process_of(options: Mapping[str, Any]) -> Process:
    process = process_type(options)
    for other in PROCESSES.values():
        for key in set(other.parameters).difference(process.parameters).intersection(options):
            remedy = f"leave {option_name(key)} out, or take --arrivals {other.word}"
            raise UsageError(f"{process.word} arrivals have no {key}: {remedy}")
    for key in process.parameters:
        _require(key, f"{process.word} arrivals need a", options)
    return process(**{key: options[key] for key in process.parameters})


def process_type(options: Mapping[str, Any]) -> type[Process]:
    """The process that these options name, or the one that a parameter belongs to; Poisson where neither is given."""
    named = PROCESSES.get(str(options.get("arrivals")))
    return named or next(
        (process for process in PROCESSES.values() if set(process.parameters).intersection(options)),
        PROCESSES["poisson"],
    )


def _require(key: str, sentence: str, options: Mapping[str, Any]) -> None:
    if key not in options:
        such_as = f", such as {option_name(key)} {_EXAMPLES[key]}" if key in _EXAMPLES else ""
        raise UsageError(f"{sentence} {key}: add {option_name(key)}{such_as}")
