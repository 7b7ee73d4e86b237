"""`loadtrt plan-capacity`: measurements of one GPU and a demand → the number of GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtrt.cli.github import require_summary, tell_result
from loadtrt.cli.options import GroupedCommand, choice, extra, flag, options
from loadtrt.cli.outputs import Output, require_outputs
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_MISSED, EXIT_UNDECIDED, EngineError, UsageError
from loadtrt.load.arrivals import PROCESSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.results.fleet_result import FleetResult
    from loadtrt.results.placement_result import PlacementResult

# As sizing/planning.py has them, which --help does not import.
_ROUTINGS = "random,round-robin,two-choices,least-outstanding"
_TIES = ("longest-idle", "random", "lowest-index")
_SEVERAL = "{} to plan for, where FILEs have several.  [default: that of the highest capacity]"


@click.command("plan-capacity", cls=GroupedCommand, short_help="Compute how many GPUs a demand needs.")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@extra("--batch", "Engine", _SEVERAL.format("Batch size"), type=int)
@extra("--contexts", "Lanes", _SEVERAL.format("Number of contexts"), type=int)
@extra(
    "--demand",
    "Load",
    "Arrival rate at the peak, in requests per second; for several models NAME=RATE (repeatable).",
    multiple=True,
    metavar="[NAME=]5000/s",
)
@extra(
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
@extra("--growth", "Load", "Growth of the demand to plan for.", default="0%", metavar="30%")
@extra("--headroom", "Load", "Headroom above the grown demand.", default="0%", metavar="20%")
@extra(
    "--spares",
    "Fleet",
    "Number of GPUs that may be out of service while the objectives are met.",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="K",
)
@extra("--max-utilisation", "Fleet", "Highest utilisation of a GPU.", default="80%", metavar="80%")
@extra("--routing", "Fleet", "Routing policies to compare.", default=_ROUTINGS, metavar="NAME,…")
@choice(
    "--ties",
    "Fleet",
    "Which of several GPUs with the fewest requests gets the next one, in least-outstanding routing.",
    *_TIES,
    default=_TIES[0],
)
@extra(
    "--together",
    "Fleet",
    "With several models: a measurement of them beside each other, by `interference` or `capacity --of` (repeatable).",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
)
@extra("--gpu-price", "Fleet", "Price of one GPU for an hour, in any currency.", type=float, metavar="2.5")
@flag(
    "--measure",
    "Fleet",
    "Run the planned fleets, a worker for each GPU without spares, and show what was measured beside the prediction.",
)
@options(
    "plan-capacity",
    file=False,
    helps={
        "duration": "Measure each planned fleet this long, with --measure.  [default: 30s]",
        "objective": "Bound on a percentile of latency (repeatable).  [default: those of the FILEs]",
        "stages": "Arrival rates one after the other, of which the highest is the peak.",
        "trace": "Instants of a file (CSV, JSONL, JSON or a log, also .gz); its busiest hour is replayed.",
    },
)
def command(
    files: tuple[Path, ...], force: bool, demand: tuple[str, ...], together: tuple[Path, ...], **given: Any
) -> int:
    """Compute how many GPUs a demand needs, for each policy that routes requests among them.

    \b
    loadtrt plan-capacity capacity.json --demand 5000/s --growth 30% --headroom 20% --spares 1
    loadtrt plan-capacity sweep.json --trace requests.csv --objective 'latency.p99 < 10ms'
    loadtrt plan-capacity contexts1.json contexts2.json contexts4.json --demand 5000/s
    loadtrt plan-capacity capacity.json --demand 900/s --measure               (on the GPUs of this host)
    loadtrt plan-capacity a.json b.json --demand a=3000/s --demand b=800/s --together pair.json

    FILE: a result of `loadtrt capacity` or `loadtrt sweep`, or several of `loadtrt run`: closed loops with --contexts 1
    and more, and runs at an arrival rate, against which predictions are checked. Each start of `run --repeat` counts.

    The demand is --demand, --demand-inferences, --stages (the highest rate is the peak) or --trace (the busiest hour is
    replayed). Without --objective, the objectives of FILEs count.

    With several models, each FILE is the capacity of one alone. The model has the name of its file, or the name in
    NAME=FILE. --together is a measurement of them beside each other. The answer is the fewest GPUs, with the models
    apart and with models on the same GPUs. Random routing and Poisson arrivals are assumed.

    Exit codes: 0 every routing policy, or the plan of several models, has an answer; 98 a policy has none within the
    limits of the simulation, or predictions for one GPU differ from its measurements or are not supported by them, or a
    measured fleet missed an objective or was INVALID; 99 no number of GPUs is enough; 2 a planned fleet could not be
    run; 3 it failed.
    """
    json_file, quiet = given["json"], bool(given["quiet"])
    work: Callable[[], FleetResult | PlacementResult]
    if together or any("=" in text for text in demand):
        work, sources = _of_several(files, demand, together, given)
        content = "a plan of several models"
    else:
        if len(demand) > 1:
            raise UsageError(f"--demand is given twice ({demand[0]}, {demand[1]}): of several models write NAME=RATE")
        work, sources = _of_one(files, {**given, "demand": next(iter(demand), None)})
        content = "a plan of a fleet"
    require_outputs([Output("--json", json_file, content)], [*sources, given["trace"]], force=force)
    require_summary(given["github"])

    from loadtrt.cli.delivery import Delivery, say_verdict, show_beside
    from loadtrt.report.plain import terminal_text
    from loadtrt.signals import SIGNALS

    delivery = Delivery()
    with SIGNALS:
        result = work()
        delivery.make(json_file, result.to_json)
        if not quiet:
            show_beside(json_file, terminal_text(result))
    delivery.finish()
    code = say_verdict(result, _exit_code(result), quiet=quiet)
    if given["github"]:
        tell_result(result, code, json_file)
    return code


def _of_one(files: tuple[Path, ...], given: dict[str, Any]) -> tuple[Callable[[], FleetResult], list[Path]]:
    """What makes the plan of one model, and the files that it reads."""
    from loadtrt.cli.voice import Voice
    from loadtrt.signals import SIGNALS
    from loadtrt.sizing.planning import plan_of

    plan, voice = plan_of(given), Voice(quiet=bool(given["quiet"]))
    curve = given["json"] is not None
    return lambda: plan.make(files, voice, SIGNALS, names=list(map(str, files)), curve=curve), list(files)


def _of_several(
    files: tuple[Path, ...], demand: tuple[str, ...], together: tuple[Path, ...], given: dict[str, Any]
) -> tuple[Callable[[], PlacementResult], list[Path]]:
    """What makes the plan of several models, and the files that it reads."""
    from loadtrt.sizing.placing import named_demands, named_files, placement_plan

    rates = named_demands(demand)
    plan, alone = placement_plan(given, rates), named_files(files, list(rates))
    sources = [*alone.values(), *together]
    return lambda: plan.make(alone, together, list(map(str, sources))), sources


def _exit_code(result: FleetResult | PlacementResult) -> int:
    """Raises the error of a planned fleet that was not measured."""
    from loadtrt.results.fleet_result import FleetResult

    if not isinstance(result, FleetResult):
        return 0  # each model is served, at least by GPUs of its own
    for fleet in result.measured:
        if fleet.why_not:
            raise UsageError(fleet.why_not)
        if fleet.run is not None and fleet.run.failure:
            raise EngineError(fleet.run.failure)
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    if any(choice.infeasible for choice in result.choices):
        return EXIT_MISSED
    found = all(choice.gpus is not None for choice in result.choices)
    runs = [fleet.run for fleet in result.measured if fleet.run is not None]
    failed = any(not run.valid or run.verdict == "missed" for run in runs)
    return 0 if found and result.doubt is None and not failed else EXIT_UNDECIDED
