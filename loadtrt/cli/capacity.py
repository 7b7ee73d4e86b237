"""`loadtrt capacity`: the highest arrival rate that meets the objectives, with the evidence for it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from loadtrt.asked.reading import keys_of
from loadtrt.cli.github import require_summary, tell_result
from loadtrt.cli.options import GroupedCommand, extra, flag, options, read_as
from loadtrt.cli.outputs import inputs_of, outputs_of, require_outputs
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_MISSED, EXIT_UNDECIDED, EngineError, UsageError
from loadtrt.load.arrivals import PROCESSES
from loadtrt.units import exact_duration, parse_duration, parse_share

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.asked.config import RunConfig
    from loadtrt.capacity.find import Wanted
    from loadtrt.results.capacity_result import CapacityResult

# Options that the search decides: those of a configuration file are left out.
_OWN = (keys_of("Load", "Ending") - {"warmup", "drain", "max_queue"}) | {"abort_on_fail", "abort_delay", "profile"}
_ARRIVALS = ("arrivals", "burstiness", "bursts", "stages", "trace", "trace_column")
_CODES = {"found": 0, "undecided": EXIT_UNDECIDED, "infeasible": EXIT_MISSED}
_CODES |= {"estimated": 0, "host-bound": EXIT_INVALID, "unsteady": EXIT_INVALID}
_LEAST_TIME_NS = 2_000_000_000


@click.command(cls=GroupedCommand, short_help="Find the highest rate that meets objectives.")
@options(
    "capacity",
    axes={"contexts": "1,2,4|1..8", "batch": "1,4,16"},
    choices={"arrivals": tuple(PROCESSES)},
    helps={
        "arrivals": "Arrival process of the trials.  [default: poisson; with --burstiness gamma]",
        "bursts": "Bursts and pauses: 1s/4s makes all requests due within 1 s of each 5 s.",
        "stages": "Arrival rates one after the other, all scaled to each trial's mean rate.",
        "trace": "Instants of a file (CSV, JSONL, JSON or a log, also .gz), all gaps scaled to each trial's mean rate.",
        "warmup": "Warm up each engine at least this long, and until the GPU's clocks are steady.  [default: 1s]",
        "drain": "Wait at least this long for the last requests of a trial.  [default: 10s]",
        "verify": "First compare outputs under load with those of a quiet run, for each engine.  [default: off]",
    },
)
@extra(
    "--time",
    "Ending",
    "Duration of all runs of a candidate together, at most.  [default: 10m]",
    metavar="TIME",
    callback=read_as(parse_duration),
)
@flag("--quick", "Ending", "Estimate the capacity within 30 s of load, without confirming it.  [default: off]")
@extra(
    "--precision",
    "Ending",
    "Half width of the 95 % confidence interval at which searching ends and confirming begins.",
    metavar="3%",
    default="3%",
)
@flag(
    "--shared-host",
    "Ending",
    "Search although others use the cores or the GPU: for the capacity of what they leave.  [default: off]",
)
@flag("--resume", "Results", "Continue the unfinished search in the file of --json.")
def command(
    config: Path | None,
    contexts: str | None,
    batch: str | None,
    time: int | None,
    quick: bool,
    precision: str,
    shared_host: bool,
    resume: bool,
    force: bool,
    **given: Any,
) -> int:
    """Find the capacity: the highest arrival rate at which the objectives are met, and confirm it.

    \b
    loadtrt capacity --engine googlenet16.trt --objective 'latency.p99 < 10ms' --contexts 1,2,4,8 --batch 1,4
    loadtrt capacity --engine zoo:googlenet --batch 1 --objective 'latency.p99 < 400ms'      (no GPU needed)

    Exit codes: 0 found and confirmed, estimated with --quick, or throughput limits the rate; 98 undecided in that time;
    99 no rate meets the objectives; 97 the load generator was the bottleneck, or others use the cores or the GPU.
    """
    wanted = _wanted(config, given, contexts, batch, time, precision, quick=quick, shared=shared_host)
    wanted.configs()  # raises an error now, before any run
    values = wanted.config.options()
    require_outputs(outputs_of(values, "a search for capacity"), [config, *inputs_of(values)], force=force)
    from loadtrt.capacity.find import Finder

    require_summary(wanted.config.github)
    from loadtrt.cli.delivery import say_verdict
    from loadtrt.cli.resuming import carry_out
    from loadtrt.report.plain import terminal_text
    from loadtrt.results.capacity_result import CapacityResult

    make = partial(Finder, wanted)
    result = carry_out(wanted.config, CapacityResult, terminal_text, make, resume=resume, force=force)
    code = say_verdict(result, _exit_code(result), quiet=wanted.config.quiet)
    if wanted.config.github:
        tell_result(result, code, wanted.config.json_file)
    return code


def _wanted(
    file: Path | None,
    given: dict[str, Any],
    contexts: str | None,
    batch: str | None,
    time: int | None,
    precision: str,
    *,
    quick: bool,
    shared: bool,
) -> Wanted:
    from loadtrt.asked.load_options import process_type
    from loadtrt.asked.reading import load_config
    from loadtrt.capacity.find import QUICK_NS, TIME_NS, Wanted
    from loadtrt.capacity.grid import parse_axis

    load = {key: value for key in _ARRIVALS if (value := given.pop(key)) is not None}
    if "stages" in load:
        load["stages_loop"] = True
    if "trace" in load:
        load |= {"arrivals": load.get("arrivals", "trace"), "trace_loop": True}
    load.setdefault("arrivals", process_type(load).word)
    batches = None if batch is None else parse_axis("batch", batch)
    first = {} if batches is None else {"batch": batches[0]}  # replaces the mix of a configuration file
    if shared and given.get("shared_gpu") is False:
        raise UsageError("--shared-host accepts others on the GPU, too: leave --no-shared-gpu out")
    accepted = {"shared_gpu": True} if shared else {}
    config = load_config(file, {**given, **load, **first, **accepted, "rate": "1/s"}, without=_OWN, base=True)
    _require_objectives(config)
    time_ns = time if time is not None else QUICK_NS if quick else TIME_NS
    if time_ns < _LEAST_TIME_NS:
        raise UsageError(f"--time {exact_duration(time_ns)} is too short for a search; write for example --time 10m")
    return Wanted(
        config=config,
        load=load,
        contexts=(config.model.contexts,) if contexts is None else parse_axis("contexts", contexts),
        batches=(config.model.batch,) if batches is None else batches,
        precision=_precision(precision),
        time_ns=time_ns,
        quick=quick,
        shared=shared,
    )


def _require_objectives(config: RunConfig) -> None:
    if not config.model.objectives:
        raise UsageError("a capacity needs an objective: add --objective, such as 'latency.p99 < 10ms'")
    for objective in config.model.objectives:
        if not objective.of_requests:
            raise UsageError(
                f"'{objective}' is not about single requests, and a capacity is the highest rate at which these meet "
                "their objectives: leave it out, and judge it with 'loadtrt run' at the rate that is found"
            )
        if objective.rank == 1:
            raise UsageError(
                f"'{objective}': the greatest of all requests grows with the length of the run: bound a quantile, such "
                "as p99.9, or a share, such as 0.1%"
            )
    if not any(item.kind in ("quantile", "drops") for item in config.model.objectives):
        raise UsageError(
            f"'{config.model.objectives[0]}' sets no limit to the rate, as requests wait instead: add an objective on "
            "a quantile, such as 'latency.p99 < 10ms'"
        )


def _precision(text: str) -> float:
    with suppress(UsageError):
        share = parse_share(text)
        if 0.001 <= share <= 0.5:
            return share
    raise UsageError(f"--precision {text} is not from 0.1% to 50%; write for example 3%")


def _exit_code(result: CapacityResult) -> int:
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    if result.best is not None:
        return _CODES[result.best.answer or "undecided"]
    answers = {candidate.answer for candidate in result.candidates}
    failures = [candidate.failure for candidate in result.candidates if candidate.failure]
    if failures and not answers & _CODES.keys():
        raise EngineError(failures[0])
    if answers & {"host-bound", "unsteady"}:
        return EXIT_INVALID
    return EXIT_MISSED if "infeasible" in answers else EXIT_UNDECIDED
