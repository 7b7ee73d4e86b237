"""What a result was made with: its load, lanes, objectives and environment, in words."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from loadtrt.asked.load import Closed, Offline, Rate, Stages
from loadtrt.asked.reading import FIELDS, keys_for, keys_of
from loadtrt.asked.trace_load import Trace
from loadtrt.findings.log_findings import log_findings, together
from loadtrt.report.document import Code, Data, Name, Table, section, words
from loadtrt.report.formatting import UNKNOWN, memory_text, percent_text
from loadtrt.results.one_model import models_of
from loadtrt.units import exact_duration, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from loadtrt.asked.model import Model
    from loadtrt.asked.objective import Objective
    from loadtrt.report.document import Block, Cell, Section, Words
    from loadtrt.results.capacity_result import CapacityResult, SweepResult
    from loadtrt.results.engine_info import EngineInfo
    from loadtrt.results.fleet_result import FleetResult
    from loadtrt.results.interference_result import InterferenceResult
    from loadtrt.results.placement_result import PlacementResult
    from loadtrt.results.profile_result import ProfileResult
    from loadtrt.results.repeat_result import RepeatResult
    from loadtrt.results.run_result import RunResult

    _Many: TypeAlias = SweepResult | CapacityResult | InterferenceResult | FleetResult | PlacementResult

_MOST_NOTES = 4  # of the engines of many runs
_MOST_JSON = 48 * 1024  # characters of a result within the page
# Left out in this order until the rest fits, which leaves what a run without them has.
_BULK: dict[str, Any] = {"sample": None, "profile": None, "intervals": [], "histograms": {}, "telemetry": None}
# What a comparison of runs lists of their options: the engine's mode has the others that change what is measured.
_COMPARED = keys_of("Load") | {"contexts", "buffers", "mix", "batcher"}


def title(engine: EngineInfo | None, before: str = "", name: str = "") -> tuple[Cell, ...]:
    """The heading of a result: the engine, its device and its runtime. name: of an engine that never opened."""
    if engine is None:
        return before, Name(name)
    return (before, Name(engine.name), f" on {engine.device} ({engine.flavour} {engine.version})")


def about(result: RunResult | RepeatResult | ProfileResult | _Many, file: str, *more: Cell) -> Words:
    """Which loadtrt made a result and when, its labels, and its file, where it has one, for a page."""
    labels = getattr(getattr(result, "config", None), "labels", {})  # a fleet has none
    made = [f"loadtrt {result.loadtrt}", result.started, *(f"{name}={value}" for name, value in labels.items())]
    return words(" · ".join(made), *((" · ", Name(file)) if file else ()), *more, only="page")


def noted(engines: Iterable[EngineInfo | None]) -> Iterator[Words]:
    """How the batch of the engines of many runs was decided, where a model was asked, and what TensorRT warned of; each
    once."""
    known = [engine for engine in engines if engine is not None]
    asked = (engine for engine in known if engine.batch_from)
    notes = dict.fromkeys(note for engine in asked for note in engine.notes if engine.batch_from in note)
    yield from map(words, list(notes)[:_MOST_NOTES])
    if known:
        yield from warned(together(known))


def warned(engine: EngineInfo) -> Iterator[Words]:
    """What TensorRT warned of, where a result has no findings."""
    for finding in log_findings(engine):
        yield words(f"{finding.evidence}: {finding.cause} → {finding.remedy}")


def load_text(result: RunResult) -> str:
    """Load, lanes, batch and the engine's mode, on one line. Of a closed loop how many requests are in flight comes
    first, of an open loop how they arrive."""
    model, engine = result.config.model, result.model.engine
    lanes = f"{plural(model.contexts, 'context')} × {plural(model.buffers, 'buffer')}"
    if model.load.closed:
        launch = f" × {model.requests_per_launch} requests a launch" if model.requests_per_launch > 1 else ""
        texts = [f"{format_count(model.in_flight)} in flight: {lanes}{launch}", model.load.text]
    elif isinstance(model.load, Offline):
        texts = [f"offline, {plural(model.requests or 0, 'request')} at once", lanes]
    else:
        texts = [model.load.text, lanes]
    kinds = _sizes(model)
    texts += [*(kinds or [batch_text(engine)]), *_room(model)]
    texts += [result.fleet] if result.fleet else []
    names = {"service": "service of the largest batch"} if kinds else {}
    texts += [f"{names.get(key, key)} {value}" for key, value in engine.mode.items()]
    return " · ".join(texts)


def batch_text(engine: EngineInfo) -> str:
    """ "batch 16", or how many inferences the user counts a request as."""
    counted = engine.batch_from == "--inferences-per-request"
    return f"{plural(engine.batch, 'inference')} a request" if counted else f"batch {engine.batch}"


def _sizes(model: Model) -> list[str]:
    """The mix or the batcher."""
    return [f"{key} {value}" for key, value in (("mix", model.mix), ("batcher", model.batcher)) if value]


def _room(model: Model) -> list[str]:
    return [f"at most {model.max_queue} waiting"] if model.max_queue is not None else []


def arrivals_text(result: SweepResult) -> str:
    """How requests arrive at the points of a sweep, apart from what its axes say; "" for closed loops."""
    model, axes = result.config.model, result.axes
    match model.load:
        case Closed():
            return ""
        case Rate() as load if "rate" in axes:
            bursts = [f"bursts {load.bursts}"] if load.bursts else []
            texts = [load.process.text, *bursts]
        case Stages() | Trace() as load if "rate" in axes:
            texts = [f"{replace(load, rate=None).text}, scaled to each rate on average"]
        case load:
            texts = [load.text]
    if "burstiness" in axes:
        texts[0] = texts[0].replace(f", CV {model.load.cv:g}", "")
    texts += _sizes(model) if "batcher" not in axes else []
    return " · ".join([*texts, *(_room(model) if "max_queue" not in axes else [])])


def precision_text(result: RunResult) -> str:
    """How far a run that was to end at a precision came; "" where the precision was reached or not asked for."""
    asked = result.config.precision
    if not asked or result.model.ended_early:
        return ""
    model = result.model
    names = [item.objective.quantile for item in model.objectives if item.objective.name.startswith("latency.p")]
    quantiles = f"latency's {', '.join(dict.fromkeys(names)) or 'p99'}"
    if model.precision_reached is None:
        reached = f"the run is too short to bound {quantiles} from above"
    else:
        reached = f"{quantiles} within ±{percent_text(model.precision_reached)}"
    return f"precision of ±{percent_text(asked)} not reached: {reached}"


def search_text(result: CapacityResult) -> str:
    """Lanes, load and trials of a search, and its objectives, on one line."""
    model, load = result.config.model, result.load
    texts = [f"{plural(model.buffers, 'buffer')} per lane", *_sizes(model), *_room(model)]
    texts.append(f"trace {load.trace}" if load.trace else str(load.arrivals))
    texts[-1] += f" in stages {load.stages}" if load.stages else ""
    texts += [f"CV {load.burstiness:g}"] if load.burstiness is not None else []
    texts += [f"bursts {load.bursts}"] if load.bursts else []
    if result.peak_ratio is not None:
        texts.append(f"rates are means, the highest is {result.peak_ratio:.3g} times that")
    texts.append(f"{'an estimate within' if result.quick else 'at most'} {format_duration(result.time_ns)} of load")
    texts += ["on a shared host"] if result.shared else []
    texts += [f"beside {name} ({model.load.text})" for name, model in result.beside.items()]
    return " · ".join([*texts, *map(str, result.objectives)])


def search_options(result: CapacityResult) -> dict[str, Any]:
    """What was searched for, by option name."""
    run = {key: value for key, value in result.config.options().items() if key in keys_for("capacity")}
    trials = {"time": exact_duration(result.time_ns), "quick": result.quick}
    axes = {"contexts": result.contexts, "batch": result.batches}
    load = result.load.model_dump(exclude_none=True)
    return {**run, **axes, **load, **trials, "precision": f"{100 * result.precision:g}%"}


def settings_of(result: RunResult) -> dict[str, str]:
    """All that runs may differ in, by name: the engine, every option, the engine's mode; "" for what is not set."""
    engine = result.model.engine
    asked = {
        name: _setting(value)
        for name, value in result.config.options().items()
        if name not in keys_of("Results", "Watching")
    }
    facts = {
        "engine": engine.name.rpartition("/")[2] if "=" not in engine.name else engine.name,
        "device": engine.device,
        "runtime": f"{engine.flavour} {engine.version}",
        "batch": str(engine.batch),
    }
    # Facts come first and replace options: a device's name says more than its number.
    return {**facts, **asked, **facts, **{name: str(value) for name, value in engine.mode.items()}}


def compared_settings(result: RunResult) -> dict[str, str]:
    """What a comparison of runs lists where it differs, "–" for what is not set."""
    engine = result.model.engine
    given = {key: value for key, value in result.config.options().items() if key in _COMPARED and value is not None}
    return {
        "device": engine.device,
        "runtime": f"{engine.flavour} {engine.version}",
        "engine sha256": engine.sha256[:12] or UNKNOWN,
        "batch": str(engine.batch),
        "workers": _workers(result),
        "routing": result.config.routing if result.fleet and not result.config.model.load.closed else UNKNOWN,
        **{f"shape of {tensor.name}": "×".join(map(str, tensor.shape)) or "scalar" for tensor in engine.tensors},
        **{key: UNKNOWN for key in FIELDS if key in _COMPARED},
        **{key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in given.items()},
        "device times": engine.settings["device times"],
        **(engine.settings if engine.kind == "tensorrt" else engine.mode),
        **{f"label {key}": value for key, value in result.config.labels.items()},
    }


def _workers(result: RunResult) -> str:
    """How many had the load; of one that had a part of it, which."""
    if result.config.worker is not None:
        return f"{result.config.worker} alone"
    count = len(result.workers) or 1
    return f"{count} of {count + len(result.lost)}" if result.lost else str(count)


def axes_text(settings: Mapping[str, Any]) -> str:
    """The values of a sweep's axes on one line."""
    return ", ".join(f"{name.replace('_', ' ')} {axis_value(name, value)}" for name, value in settings.items())


def axis_value(name: str, value: Any) -> str:
    """One value of an axis."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{format_count(float(value))}/s" if name == "rate" else str(value)


def latency_bounds(result: RunResult, percentile: str = "") -> list[Objective]:
    """A run's objectives on latency: on all its percentiles, or on one."""
    objectives = [item.objective for item in result.model.objectives if item.objective.metric_name == "latency"]
    return [objective for objective in objectives if percentile in ("", objective.quantile)]


def engine_facts(result: RunResult) -> Iterator[Block]:
    """Memory, precision, notes, verification and properties of the engine."""
    engine = result.model.engine
    yield words(memory_text(result.model.memory), only="page")  # a terminal had it when the engine was loaded
    if engine.precision:
        yield words(f"precision: {engine.precision}")
    if engine.conversion is not None:
        yield from map(words, engine.conversion.sentences())
    yield from map(words, engine.notes)
    if len(engine.submit_rates) > 1 and engine.mode.get("submit") in engine.submit_rates:
        yield words(_submit_text(engine))
    if result.model.deviation is not None:
        deviation = result.model.deviation
        allowed = "" if deviation.unknown else f"; the tolerance is {deviation.tolerance:.2g}"
        yield words(f"deviation from {deviation.reference or 'FP32'}: {deviation.text}{allowed}")
    if result.model.verification is not None:
        checked = result.model.verification
        compared = f"{checked.outputs} outputs under load compared with a quiet run, {checked.different} differ"
        yield words(f"verify: {compared if checked.unrepeatable is None else 'two quiet requests differ'}")
        if checked.input_sets == 1:
            yield words("verify: with one input set, requests that are mixed up look the same")
    tensors = [str(spec) for spec in engine.tensors]
    yield _mapping({"sha256": engine.sha256, "tensors": tensors}, "engine")


def _submit_text(engine: EngineInfo) -> str:
    """Which way of submitting was chosen, and how fast each was."""
    chosen = engine.mode["submit"]
    rate, others = engine.submit_rates[chosen], [way for way in engine.submit_rates if way != chosen]
    if rate is None:
        return f"submit: {chosen}; {' and '.join(others)} was not tried"
    against = " and ".join(f"{format_count(float(engine.submit_rates[way] or 0))}/s {way}" for way in others)
    return f"submit: {chosen}, {format_count(float(rate))}/s against {against}, in warm-up"


def facts(result: RunResult, file: str, key: str) -> Iterator[Block]:
    """Configuration, environment, the command, and the result itself."""
    for name, single in models_of(result).items():
        of_model = f" of {name}" if len(result.models) > 1 else ""
        yield _mapping(single.config.options(), f"configuration{of_model}")
    yield _mapping(result.environment, "environment")
    whole = file.removesuffix(f":{next(iter(result.models))}") if result.beside else file
    again = f"loadtrt run --config {shlex.quote(whole)}"
    if any(word.startswith("--repeat") for word in result.command):  # the file has the seed of the first start
        again += f" --seed {result.config.model.seed}"
    yield words("To run it again, or ", Name(again), ":", only="page")
    yield Code(shlex.join(("loadtrt", *result.command[1:])))
    text, left = _json(result)
    less = f", without its {', '.join(left)}, which the file has" if left else ""
    yield Data(key, text, f"The result is in this page as JSON (id {key}){less}.")


def closing(
    result: _Many,
    file: str,
    key: str,
    **settings: Mapping[str, Any],
) -> Section:
    """What a result of many runs was made with. settings: by their titles."""
    blocks: list[Block] = [_mapping(values, name) for name, values in settings.items()]
    begun = result.outcome != "completed"  # --resume of a finished result does nothing
    command = [word for word in result.command[1:] if begun or word != "--resume"]
    blocks += [words("To make it again:", only="page"), Code(shlex.join(["loadtrt", *command]))]
    text = _compact(result.model_dump(mode="json"))
    if len(text) <= _MOST_JSON:
        blocks.append(Data(key, text, f"The whole result is in this page as JSON (id {key})."))
    else:
        blocks.append(words("The whole result, too large for this page, is in ", Name(file), ".", only="page"))
    return section("Configuration", *blocks, bare=True)


def _mapping(values: Mapping[str, Any], title: str) -> Table:
    """A table of what is set, by name."""
    rows = tuple((Name(name), Name(text)) for name, value in values.items() if (text := _setting(value)))
    return Table(("", ""), rows, words=2, folded=title, only="page")


def _setting(value: Any) -> str:
    """A setting in words; "" for one that is not set, and for a mapping."""
    match value:
        case None | dict():
            return ""
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(_setting, value))
        case _:
            return str(value)


def _json(result: RunResult) -> tuple[str, list[str]]:
    """(JSON of a RunResult, what was left out of it)."""
    data = result.model_dump(mode="json")
    left: list[str] = []
    text = _compact(data)
    for name, empty in _BULK.items():
        if len(text) <= _MOST_JSON:
            break
        holders = [part for part in (data, *data["models"].values()) if part.get(name)]
        for part in holders:
            part[name] = empty
        if holders:
            left.append(name)
            text = _compact(data)
    return text, left


def _compact(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
