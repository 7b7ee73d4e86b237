"""A planned fleet that is run, to hold its prediction against it: as many workers as the plan has GPUs without its
spares, which share the planned load as each routing deals it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.asked.fields import option_name
from loadtrt.asked.reading import CODE, keys_of, load_config
from loadtrt.environment import visible_gpus
from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.load.dealing import POOLED, TIES
from loadtrt.results.capacity_result import CapacityResult, SweepResult, trimmed
from loadtrt.results.engine_info import GPU_KINDS
from loadtrt.results.fleet_result import MeasuredFleet
from loadtrt.runs.fleet import run_fleet
from loadtrt.runs.processes import MOST_HERE
from loadtrt.sizing.fleet_check import comparison, measured_quantile
from loadtrt.sizing.rig import difference
from loadtrt.units import exact_duration, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadtrt.asked.config import RunConfig
    from loadtrt.lanes.model_run import Phase
    from loadtrt.results.fleet_result import Choice, Comparison, FleetResult, Prediction
    from loadtrt.results.run_result import RunResult
    from loadtrt.runs.watched import Talks
    from loadtrt.signals import Signals
    from loadtrt.sizing.evidence import Source

_KEPT = {"warmup", "drain", "shared_gpu", "telemetry", "max_queue", "batcher"}
# What the plan decides, and what its files were asked for.
_DECIDED = (keys_of("Load", "Ending", "Objectives", "Fleet", "Results", "Watching") | {"device"}) - _KEPT


def measure(
    plan: FleetResult,
    source: Source,
    code: Mapping[str, Any],
    duration_ns: int,
    talks: Talks,
    signals: Signals,
) -> FleetResult:
    """The plan with its fleets as they were measured, one for each routing that has a number of GPUs.

    source: what the plan was made of.
    code: options that make a run load code, by key, as they were given: no result makes it.
    duration_ns: of each.

    A fleet that cannot be run has the reason. A signal ends the measurements, and the plan has those until then.
    """
    measured: list[MeasuredFleet] = []
    left_out = POOLED if plan.engine.virtual_time else ()
    for choice in plan.choices:
        if choice.needed is None or choice.routing in left_out or signals.requested():
            continue
        made: dict[str, Any] = {"run": None}
        try:
            run = _run(plan, choice, _config(plan, choice, source, code, duration_ns), talks, signals)
            made = {"run": trimmed(run), "checks": tuple(_checks(run, choice.degraded))}
        except LoadtrtError as error:
            made["why_not"] = str(error)
        except KeyboardInterrupt:
            break
        measured.append(MeasuredFleet(routing=choice.routing, gpus=choice.needed, **made))
    outcome = "interrupted" if signals.requested() else plan.outcome
    names = [choice.routing for choice in plan.choices if choice.routing in left_out]
    notes = [f"not measured: {' and '.join(names)} routing, as the virtual clock of each worker passes by itself"]
    changes = {"measured": tuple(measured), "outcome": outcome, "notes": (*plan.notes, *(notes if names else ()))}
    return plan.model_copy(update=changes)


def _run(plan: FleetResult, choice: Choice, config: RunConfig, talks: Talks, signals: Signals) -> RunResult:
    """The run of a planned fleet. Raises LoadtrtError, and UsageError where the engine is another one by now."""
    what = f"measuring {plural(choice.needed or 1, 'GPU')}, {choice.routing}"

    def tick(phase: Phase, elapsed_ns: int, _submitted: int, _completed: int) -> None:
        talks.status(f"{what}: {phase} {format_duration(elapsed_ns)}")

    talks.say(f"{what}, for {exact_duration(config.duration or 0)}")
    try:
        run = run_fleet(config, talks, signals, tick)
    finally:
        talks.end_line()
    if (other := difference(plan.engine, run.model.engine)) is not None:
        raise UsageError(f"the engine is another one than in the files: its {other}")
    return run


def _config(plan: FleetResult, choice: Choice, source: Source, code: Mapping[str, Any], duration_ns: int) -> RunConfig:
    """The run of a planned fleet. Raises UsageError where it cannot be made."""
    demand, gpu, gpus = plan.demand, plan.gpu, choice.needed or 1
    if demand.arrivals == "trace":
        raise UsageError(
            "the busiest part of a trace is not a steady load: 'loadtrt run' replays it, with --trace and as many "
            "devices or processes (--devices, --processes)"
        )
    asked = _asked(plan, source).options()
    for key in CODE:
        if asked.get(key) and not code.get(key):
            raise UsageError(
                f"the runs of the files had {option_name(key)}, and no result makes a run load libraries or run host "
                "code: if you trust their origin, add it"
            )
    _require_room(plan, gpus, choice.routing)
    on_gpus = plan.engine.kind in GPU_KINDS
    by_ties = choice.routing == "least-outstanding" and plan.ties != TIES[0]
    options = {key: value for key, value in asked.items() if key not in _DECIDED and value is not None}
    given = {
        "contexts": gpu.contexts,
        "buffers": gpu.buffers,
        "rate": demand.planned_per_s,
        "arrivals": demand.arrivals,
        "burstiness": demand.burstiness if demand.arrivals == "gamma" else None,
        "duration": exact_duration(duration_ns),
        "objective": [objective.text for objective in plan.objectives],
        "seed": plan.seed,
        "routing": choice.routing + (f":{plan.ties}" if by_ties else ""),
        "devices": f"0-{gpus - 1}" if on_gpus else None,
        "processes": 1 if on_gpus else gpus,
    }
    return load_config(None, options | {key: value for key, value in {**given, **code}.items() if value is not None})


def _asked(plan: FleetResult, source: Source) -> RunConfig:
    """The configuration of a run that the plan was made of."""
    if isinstance(source, CapacityResult):
        found = (one.batch for one in source.candidates if one.engine == plan.engine)
        return source.config if plan.gpu.batcher else source.config.with_model(batch=next(found, None))
    runs = [point.run for point in source.points] if isinstance(source, SweepResult) else source
    return next(run.config for run in runs if run is not None and run.model.engine == plan.engine)


def _require_room(plan: FleetResult, gpus: int, routing: str) -> None:
    """Raise UsageError where there are not as many devices here."""
    match plan.engine.kind:
        case "simulated":
            most, there = MOST_HERE, f"{MOST_HERE} simulated ones are started at most"
        case kind if kind in GPU_KINDS:
            most = visible_gpus()
            there = f"there {'is' if most == 1 else 'are'} {most} here"
        case _:
            most, there = 1, "this engine has the processor of this host alone"
    if gpus > most:
        few = plan.demand.planned_per_s * most / gpus
        smaller = f": plan for a smaller demand, such as {format_count(few)}/s" if most else ""
        raise UsageError(f"{plural(gpus, 'GPU')} are planned under {routing} routing, and {there}{smaller}")


def _checks(run: RunResult, prediction: Prediction | None) -> Iterator[Comparison]:
    """The median and each quantile that an objective bounds, predicted beside measured."""
    if prediction is None:
        return
    ends = (prediction.p50_ns, prediction.p50_low_ns, prediction.p50_high_ns)
    predicted = {0.5: ends}
    for share in prediction.objectives:
        predicted[share.objective.rank] = (share.value_ns, share.value_low_ns, share.value_high_ns)
    for rank, (value, low, high) in sorted(predicted.items()):
        measured = measured_quantile(run, rank)
        if measured is not None:
            yield comparison(run, rank, measured, value, low, high)
