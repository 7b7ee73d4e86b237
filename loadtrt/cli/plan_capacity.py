"""`loadtrt plan-capacity`: measurements of one GPU and a demand → the number of GPUs."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtrt.asked.fields import option_name
from loadtrt.asked.load import Rate, Stages
from loadtrt.asked.reading import FIELDS, read_load
from loadtrt.asked.trace_load import Trace
from loadtrt.cli.github import require_summary, tell_result
from loadtrt.cli.options import GroupedCommand, choice, extra, options, read_as, read_option
from loadtrt.cli.outputs import Output, require_outputs
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_MISSED, EXIT_UNDECIDED, UsageError
from loadtrt.load.arrivals import PROCESSES
from loadtrt.printing import command_line, utf8_name
from loadtrt.units import parse_rate, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.capacity.demand import Demand
    from loadtrt.capacity.evidence import Source
    from loadtrt.results.fleet_result import FleetResult, Routing, Ties
    from loadtrt.results.run_result import RunResult

_ROUTINGS = "random,round-robin,two-choices,least-outstanding"
_TIES = ("longest-idle", "random", "lowest-index")
_MOST_SHARE = 1000.0
_MOST_PRICE = 1e9
_SEVERAL = "{} to plan for, where FILEs have several.  [default: that of the highest capacity]"
_rate = partial(extra, callback=read_as(parse_rate))


def _share(_: click.Context, parameter: click.Parameter, text: str) -> float:
    """A percentage, or a bare number below 1; a bare "30" could mean 30 % or 3000 %. Raises UsageError."""
    with suppress(UsageError):
        share = parse_share(text)
        if share < 1 or ("%" in text and share <= _MOST_SHARE):
            return share
    raise UsageError(f"{parameter.opts[0]} {text} is not a percentage; write for example 30%")


def _utilisation(context: click.Context, parameter: click.Parameter, text: str) -> float:
    share = _share(context, parameter, text)
    if not 0.01 <= share <= 0.99:
        raise UsageError(f"{parameter.opts[0]} {text} is not from 1% to 99%: at 100 % the queue grows without bound")
    return share


def _price(_: click.Context, parameter: click.Parameter, price: float | None) -> float | None:
    if price is not None and not 0 < price <= _MOST_PRICE:
        raise UsageError(
            f"{parameter.opts[0]} {price:g} is not a price above zero, up to {_MOST_PRICE:g}; write what one GPU costs "
            "an hour"
        )
    return price


def _routings(_: click.Context, parameter: click.Parameter, text: str) -> list[Routing]:
    from loadtrt.results.fleet_result import ROUTINGS

    known: dict[str, Routing] = {name: name for name in ROUTINGS}
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise UsageError(f"{parameter.opts[0]}: '{name}' is not a routing policy: choose from {', '.join(known)}")
    return [known[name] for name in names]


@click.command("plan-capacity", cls=GroupedCommand, short_help="Compute how many GPUs a demand needs.")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@extra("--batch", "Engine", _SEVERAL.format("Batch size"), type=int)
@extra("--contexts", "Lanes", _SEVERAL.format("Number of contexts"), type=int)
@_rate("--demand", "Load", "Arrival rate at the peak, in requests per second.", metavar="5000/s")
@_rate(
    "--demand-inferences",
    "Load",
    "Arrival rate at the peak, in inferences per second: requests × batch size.",
    metavar="80k/s",
)
@choice(
    "--arrivals",
    "Load",
    "Arrival process of the whole demand.  [default: poisson; with --burstiness gamma]",
    *PROCESSES,
)
@extra("--growth", "Load", "Growth of the demand to plan for.", default="0%", metavar="30%", callback=_share)
@extra("--headroom", "Load", "Headroom above the grown demand.", default="0%", metavar="20%", callback=_share)
@extra(
    "--spares",
    "Fleet",
    "Number of GPUs that may be out of service while the objectives are met.",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="K",
)
@extra(
    "--max-utilisation", "Fleet", "Highest utilisation of a GPU.", default="80%", metavar="80%", callback=_utilisation
)
@extra("--routing", "Fleet", "Routing policies to compare.", default=_ROUTINGS, metavar="NAME,…", callback=_routings)
@choice(
    "--ties",
    "Fleet",
    "Which of several GPUs with the fewest requests gets the next one, in least-outstanding routing.",
    *_TIES,
    default=_TIES[0],
)
@extra(
    "--gpu-price", "Fleet", "Price of one GPU for an hour, in any currency.", type=float, metavar="2.5", callback=_price
)
@options("plan-capacity", file=False)
def command(
    files: tuple[Path, ...],
    batch: int | None,
    contexts: int | None,
    growth: float,
    headroom: float,
    spares: int,
    max_utilisation: float,
    routing: list[Routing],
    ties: Ties,
    gpu_price: float | None,
    force: bool,
    **given: Any,
) -> int:
    """Compute how many GPUs a demand needs, for each policy that routes requests among them.

    \b
    loadtrt plan-capacity capacity.json --demand 5000/s --growth 30% --headroom 20% --spares 1
    loadtrt plan-capacity sweep.json --trace requests.csv --objective 'latency.p99 < 10ms'
    loadtrt plan-capacity contexts1.json contexts2.json contexts4.json --demand 5000/s

    FILE: a result of `loadtrt capacity` or `loadtrt sweep`, or several of `loadtrt run`: closed loops with --contexts 1
    and more, and runs at an arrival rate, against which predictions are checked. Of `run --repeat` each start counts.

    The demand is --demand, --demand-inferences, --stages (the highest rate is the peak) or --trace (the busiest hour is
    replayed). Without --objective, the objectives of FILEs count.

    Exit codes: 0 every routing policy has an answer, 98 one has none within the limits of the simulation, or
    predictions for one GPU differ from its measurements, 99 no number of GPUs is enough.
    """
    json_file = given["json"]
    seed = FIELDS["seed"].default if given["seed"] is None else given["seed"]
    if not 0 <= seed < 1 << 63:
        raise UsageError("--seed is not from 0 to 2^63 - 1: write a smaller number")
    require_outputs([Output("--json", json_file, "a plan of a fleet")], [*files, given["trace"]], force=force)
    require_summary(given["github"])

    from loadtrt.asked.objective import parse_objective
    from loadtrt.capacity.evidence import evidence_of
    from loadtrt.capacity.fleet_plan import plan_fleet
    from loadtrt.capacity.predictable import why_unpredictable
    from loadtrt.cli.delivery import Delivery, json_of, say_verdict, show_beside
    from loadtrt.cli.voice import Voice
    from loadtrt.report.plain import terminal_text
    from loadtrt.signals import SIGNALS

    objectives = [read_option("--objective", text, parse_objective) for text in given["objective"] or ()]
    evidence = evidence_of(read_sources(files), contexts, batch)
    voice, delivery = Voice(quiet=bool(given["quiet"])), Delivery()
    demand = _demand(given, evidence.gpu.batch, growth, headroom, voice.say)
    for objective in () if objectives else evidence.objectives:
        why_not = why_unpredictable(objective)
        if why_not is None:
            objectives.append(objective)
        else:
            voice.say(f"objective left out: {why_not}")
    with SIGNALS:
        SIGNALS.hold()
        try:
            result = plan_fleet(
                evidence,
                demand,
                objectives,
                routings=routing,
                spares=spares,
                max_utilisation=max_utilisation,
                ties=ties,
                gpu_price=gpu_price,
                curve=json_file is not None,
                seed=seed,
                sources=[utf8_name(file) for file in files],
                command=command_line(),
                say=voice.status,
                stopped=SIGNALS.requested,
            )
        finally:
            voice.end_line()
        delivery.make(json_file, lambda: json_of(result))
        if not given["quiet"]:
            show_beside(json_file, terminal_text(result))
    delivery.finish()
    code = say_verdict(result, _exit_code(result), quiet=bool(given["quiet"]))
    if given["github"]:
        tell_result(result, code, json_file)
    return code


def _exit_code(result: FleetResult) -> int:
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    if any(choice.infeasible for choice in result.choices):
        return EXIT_MISSED
    found = all(choice.gpus is not None for choice in result.choices)
    return 0 if found and result.doubt is None else EXIT_UNDECIDED


def read_sources(files: Sequence[Path]) -> Source:
    """One capacity, one sweep, or runs. Raises UsageError for anything else."""
    from loadtrt.report.result_files import Kind, ResultFile, read_file, read_result, read_run
    from loadtrt.results.capacity_result import CapacityResult, SweepResult
    from loadtrt.results.repeat_result import RepeatResult

    runs: list[RunResult] = []
    for file in files:
        match source := read_file(file):
            case ResultFile(kind=Kind.CAPACITY | Kind.SWEEP) if len(files) > 1:
                raise UsageError(f"{file} is {source.kind}: give this file alone, or several runs of loadtrt")
            case ResultFile(kind=Kind.CAPACITY):
                return read_result(CapacityResult, source)
            case ResultFile(kind=Kind.SWEEP):
                return read_result(SweepResult, source)
            case ResultFile(kind=Kind.REPEAT):
                runs += [run for run in read_result(RepeatResult, source).runs if run.outcome == "completed"]
            case ResultFile(kind=Kind.FLEET):
                made_of = "give the measurements that it was made of, such as the file of loadtrt capacity"
                raise UsageError(f"{file} is a plan, the result of this command: {made_of}")
            case _:
                runs.append(read_run(source, "a plan needs runs of one model"))
    return tuple(runs)


def _demand(given: dict[str, Any], batch: int, growth: float, headroom: float, say: Callable[[str], None]) -> Demand:
    """The demand that the options ask for, in requests. Raises UsageError unless exactly one option names it."""
    from loadtrt.capacity.demand import staged_demand, steady_demand, traced_demand

    named = [name for name in ("demand", "demand_inferences", "stages", "trace") if given[name] is not None]
    if len(named) != 1:
        options_given = " and ".join(map(option_name, named))
        raise UsageError(
            f"{options_given} are each a demand: give one"
            if named
            else "a plan needs a demand: add --demand 5000/s (requests), --demand-inferences, --stages or --trace"
        )
    load_options = {key: given[key] for key in ("arrivals", "burstiness", "stages", "trace", "trace_column")}
    if given["demand"] is not None:
        load_options["rate"] = given["demand"]
    elif given["demand_inferences"] is not None:
        load_options["rate"] = given["demand_inferences"] / batch
    if given["trace"] is not None and given["arrivals"] is not None:
        raise UsageError(Trace.refusal.format(key="arrivals", option="--arrivals"))
    match read_load(load_options):
        case Rate() as load:
            return steady_demand(load.rate, burstiness=load.cv, growth=growth, headroom=headroom)
        case Stages() as load:
            source = f"stages {given['stages']}"
            return staged_demand(load.course(), source, burstiness=load.cv, growth=growth, headroom=headroom)
        case Trace() as load:
            for remark in load.remarks:
                say(remark)
            return traced_demand(load.instants, load.text, growth=growth, headroom=headroom)
    raise AssertionError("one of the options above names a load of these types")
