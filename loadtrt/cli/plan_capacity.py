"""`loadtrt plan-capacity`: measurements and a demand → how many GPUs."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtrt.cli.options import many, require_targets
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_MISSED, EXIT_UNDECIDED, UsageError
from loadtrt.units import parse_rate, parse_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.capacity.demand import Demand
    from loadtrt.capacity.evidence import Source
    from loadtrt.results.fleet_result import FleetResult, Routing

_ROUTINGS = "random,round-robin,least-outstanding"
_MOST_SHARE = 1000.0
_MOST_BURSTINESS = 100  # as of a run


@click.command("plan-capacity", short_help="Compute how many GPUs a demand needs.")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--demand", metavar="5000/s", help="Demand at the peak, in requests per second.")
@click.option(
    "--demand-inferences",
    metavar="80k/s",
    help="Demand at the peak, in inferences per second: requests × the files' batch.",
)
@click.option(
    "--stages", metavar="'800/s:8h, …'", help="Arrival rates over a day, as in `loadtrt run`; the highest is the peak."
)
@click.option(
    "--trace", metavar="FILE", help="Instants of recorded requests (CSV or JSONL), whose busiest hour is replayed."
)
@click.option(
    "--trace-column", metavar="NAME", help="Column or key of the trace that has the instants, where there are several."
)
@click.option(
    "--arrivals",
    type=click.Choice(["constant", "poisson", "gamma"]),
    help="Arrival process.  [default: poisson; with --burstiness gamma]",
)
@click.option("--burstiness", type=float, metavar="CV", help="Coefficient of variation of the gaps of gamma arrivals.")
@click.option("--growth", default="0%", metavar="30%", help="Expected growth of the demand.  [default: 0%]")
@click.option("--headroom", default="0%", metavar="20%", help="Headroom above the grown demand.  [default: 0%]")
@click.option(
    "--spares",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="K",
    help="Number of GPUs that may be out of service.  [default: 0]",
)
@click.option("--max-utilisation", default="80%", metavar="80%", help="Highest utilisation of a GPU.  [default: 80%]")
@click.option(
    "--objective",
    multiple=True,
    metavar="'latency.p99 < 10ms'",
    callback=many,
    help="A bound to hold (repeatable).  [default: the files' own]",
)
@click.option(
    "--routing", default=_ROUTINGS, metavar="NAME,…", help=f"Ways to route requests among GPUs.  [default: {_ROUTINGS}]"
)
@click.option("--gpu-price", type=float, metavar="2.5", help="Price of one GPU for an hour, in any currency.")
@click.option(
    "--contexts",
    type=int,
    help="Number of contexts, where the files have several.  [default: that of the highest capacity]",
)
@click.option("--batch", type=int, help="Batch, where the files have several.  [default: that of the highest capacity]")
@click.option("--seed", type=click.IntRange(0), default=1, help="Seed of the simulation.  [default: 1]")
@click.option("--json", "json_file", metavar="FILE|-", help="Write the whole result as JSON; - is stdout.")
@click.option("--quiet", is_flag=True, help="Print no progress and no summary.")
def command(files: tuple[Path, ...], **options: Any) -> int:
    """Compute how many GPUs a demand needs, for each way to route requests among them.

    \b
    loadtrt plan-capacity capacity.json --demand 5000/s --growth 30% --headroom 20% --spares 1
    loadtrt plan-capacity sweep.json --trace requests.csv --objective 'latency.p99 < 10ms'
    loadtrt plan-capacity contexts1.json contexts2.json contexts4.json --demand 5000/s

    FILE: a result of `loadtrt capacity` or `loadtrt sweep`, or several of `loadtrt run`: closed loops with --contexts 1
    and more, and runs at an arrival rate, against which predictions are checked. Exit codes: 0 every routing has an
    answer, 98 one was not found in reasonable time, 99 no number of GPUs is enough.
    """
    price, utilisation = options["gpu_price"], _share("--max-utilisation", options["max_utilisation"])
    if not 0.01 <= utilisation <= 0.99:
        raise UsageError(
            f"--max-utilisation {options['max_utilisation']}: write a share from 1% to 99%: at 100 % a queue grows "
            "without end"
        )
    if price is not None and not 0 < price < math.inf:
        raise UsageError(f"--gpu-price {price:g}: write what one GPU costs for an hour, above zero")
    routings = _routings(options["routing"])
    require_targets({"--json": options["json_file"]})

    from loadtrt.asked.objective import parse_objective
    from loadtrt.capacity.evidence import evidence_of
    from loadtrt.capacity.fleet_plan import plan_fleet, why_unpredictable
    from loadtrt.cli.delivery import Delivery, json_of, show
    from loadtrt.cli.voice import Voice
    from loadtrt.report.plain import terminal_text
    from loadtrt.runs.signals import Signals

    objectives = [parse_objective(text) for text in options["objective"] or ()]
    evidence = evidence_of(read_sources(files), options["contexts"], options["batch"])
    demand = _demand(options, evidence.gpu.batch)
    voice, delivery = Voice(quiet=options["quiet"]), Delivery()
    for own in () if objectives else evidence.objectives:
        why_not = why_unpredictable(own)
        if why_not is None:
            objectives.append(own)
        else:
            voice.say(f"left out {why_not}")
    with Signals() as signals:
        try:
            result = plan_fleet(
                evidence,
                demand,
                objectives,
                routings=routings,
                spares=options["spares"],
                max_utilisation=utilisation,
                gpu_price=price,
                seed=options["seed"],
                sources=[str(file) for file in files],
                command=sys.argv,
                say=voice.status,
                stopped=signals.requested,
            )
        finally:
            voice.end_line()
        delivery.make(options["json_file"], lambda: json_of(result))
        if not options["quiet"]:
            show(terminal_text(result), sys.stderr if options["json_file"] == "-" else sys.stdout)
    delivery.finish()
    return _exit_code(result)


def _exit_code(result: FleetResult) -> int:
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    if any(choice.infeasible for choice in result.choices):
        return EXIT_MISSED
    return EXIT_UNDECIDED if any(choice.gpus is None for choice in result.choices) else 0


def read_sources(files: Sequence[Path]) -> Source:
    """One capacity, one sweep, or runs. Raises UsageError for anything else."""
    from loadtrt.report.result_files import Kind, read_file, read_result
    from loadtrt.results.capacity_result import CapacityResult
    from loadtrt.results.run_result import RunResult
    from loadtrt.results.sweep_result import SweepResult

    sources = [read_file(file) for file in files]
    for source in sources:
        if source.kind in (Kind.CAPACITY, Kind.SWEEP) and len(sources) > 1:
            raise UsageError(f"{source.path} is {source.kind}: give it alone, or several runs of loadtrt")
    match sources[0].kind:
        case Kind.CAPACITY:
            return read_result(CapacityResult, sources[0])
        case Kind.SWEEP:
            return read_result(SweepResult, sources[0])
        case _:
            return tuple(read_result(RunResult, source) for source in sources)


def _share(option: str, text: str) -> float:
    """Of a percentage; a bare number is the share itself, and below 1, so that none is mistaken. Raises UsageError."""
    with suppress(UsageError):
        share = parse_share(text)
        if share < 1 or ("%" in text and share <= _MOST_SHARE):
            return share
    raise UsageError(f"{option} {text}: write a percentage such as 30%")


def _routings(text: str) -> list[Routing]:
    from loadtrt.results.fleet_result import ROUTINGS

    known: dict[str, Routing] = {name: name for name in ROUTINGS}
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise UsageError(f"--routing: there is no '{name}': choose from {', '.join(known)}")
    return [known[name] for name in names]


def _demand(options: dict[str, Any], batch: int) -> Demand:
    """What was asked for, in requests. Raises UsageError where that is nothing, or more than one thing."""
    from loadtrt.capacity.demand import staged_demand, steady_demand, traced_demand
    from loadtrt.load.stages import parse_stages
    from loadtrt.load.trace import read_trace

    named = [name for name in ("demand", "demand_inferences", "stages", "trace") if options[name] is not None]
    if len(named) != 1:
        options_given = " and ".join(f"--{name.replace('_', '-')}" for name in named)
        raise UsageError(
            f"{options_given} are each a demand: give one"
            if named
            else "a plan needs a demand: add --demand 5000/s (requests), --demand-inferences, --stages or --trace"
        )
    grown = {name: _share(f"--{name}", options[name]) for name in ("growth", "headroom")}
    if named == ["trace"]:
        for name in ("arrivals", "burstiness"):
            if options[name] is not None:
                raise UsageError(f"a trace has instants of its own, and no {name}: leave --{name} out")
        trace = read_trace(options["trace"], options["trace_column"])
        return traced_demand(trace, f"trace {options['trace']}", **grown)
    if options["trace_column"] is not None:
        raise UsageError("--trace-column is of a trace: add --trace, or leave it out")
    cv = _burstiness(options["arrivals"], options["burstiness"])
    if options["stages"] is not None:
        course = parse_stages(options["stages"])
        return staged_demand(course, f"stages {options['stages']}", burstiness=cv, **grown)
    if options["demand"] is not None:
        return steady_demand(parse_rate(options["demand"]), burstiness=cv, **grown)
    return steady_demand(parse_rate(options["demand_inferences"]) / batch, burstiness=cv, **grown)


def _burstiness(arrivals: str | None, burstiness: float | None) -> float:
    """CV of the gaps: 1 for Poisson, 0 for constant ones. Raises UsageError."""
    if burstiness is None:
        if arrivals == "gamma":
            raise UsageError("gamma arrivals need a burstiness: add --burstiness, such as --burstiness 4")
        return 0.0 if arrivals == "constant" else 1.0
    if arrivals not in (None, "gamma"):
        raise UsageError(f"{arrivals} arrivals have no burstiness: leave --burstiness out, or take --arrivals gamma")
    if not 0 <= burstiness <= _MOST_BURSTINESS:
        raise UsageError(f"--burstiness {burstiness:g}: write deviation / mean of gaps, from 0 to {_MOST_BURSTINESS}")
    return burstiness
