"""`loadtrt capacity`: the highest arrival rate that meets the objectives, with the evidence for it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from loadtrt.cli.github import require_summary
from loadtrt.cli.options import GroupedCommand, extra, flag, options, read_as
from loadtrt.cli.outputs import inputs_of, outputs_of, require_outputs
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_MISSED, EXIT_UNDECIDED, UsageError
from loadtrt.load.arrivals import PROCESSES
from loadtrt.units import parse_duration

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.capacity_result import CapacityResult

_CODES = {"found": 0, "undecided": EXIT_UNDECIDED, "infeasible": EXIT_MISSED}
_CODES |= {"estimated": 0, "host-bound": EXIT_INVALID, "unsteady": EXIT_INVALID}


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
        "objective": "Bound on a percentile of latency, lateness or another time of requests, on errors or on drops "
        "(repeatable).",
        "warmup": "Warm up each engine at least this long, and until the GPU's clocks are steady.  [default: 1s]",
        "drain": "Wait at least this long for the last requests of a trial.  [default: 10s]",
        "verify": "First compare outputs under load with those of a quiet run, for each engine.  [default: off]",
    },
)
@extra(
    "--time",
    "Ending",
    "All runs of a candidate (a number of contexts with a batch size) together take at most this long.  [default: 10m]",
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
    "Search even while others use the cores or the GPU, for the capacity of what they leave.  [default: off]",
)
@extra(
    ("--model", "models"),
    "Engine",
    "With --of: a model with its own options, as in `loadtrt run` (repeatable).",
    multiple=True,
    metavar="NAME=ENGINE,KEY=VALUE,…",
)
@extra(
    "--of",
    "Engine",
    "Find the capacity of this one of several models, while the others hold their loads.",
    metavar="NAME",
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
    models: tuple[str, ...],
    of: str | None,
    **given: Any,
) -> int:
    """Find the capacity: the highest arrival rate at which the objectives are met, and confirm it.

    \b
    loadtrt capacity --engine googlenet16.trt --objective 'latency.p99 < 10ms' --contexts 1,2,4,8 --batch 1,4
    loadtrt capacity --config two.yaml --of detector                          (while the others hold their loads)
    loadtrt capacity --engine zoo:googlenet --batch 1 --objective 'latency.p99 < 400ms'      (no GPU needed)

    Exit codes: 0 found and confirmed, estimated with --quick, or throughput limits the rate; 98 undecided in that time;
    99 no rate meets the objectives; 97 the load generator was the bottleneck, or others use the cores or the GPU.
    """
    from loadtrt.cli.delivery import carry_out_and_tell
    from loadtrt.results.capacity_result import CapacityResult
    from loadtrt.sizing.find import Finder
    from loadtrt.sizing.wanted import one_of, wanted_of

    source, beside = one_of(config, models, of) if of is not None else (config, {})
    if models and of is None:
        raise UsageError("--model is one of several: say whose capacity to find, such as --of detector")
    wanted = wanted_of(source, given, contexts, batch, time, precision, quick=quick, shared=shared_host)
    wanted = replace(wanted, of=of, beside=beside)
    wanted.configs()  # raises an error now, before any run
    values = wanted.config.options()
    require_outputs(outputs_of(values, "a search for capacity"), [config, *inputs_of(values)], force=force)
    require_summary(wanted.config.github)
    make = partial(Finder, wanted)
    return carry_out_and_tell(wanted.config, CapacityResult, make, _exit_code, resume=resume, force=force)


def _exit_code(result: CapacityResult) -> int:
    from loadtrt.sizing.find import require_answer

    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    if result.best is not None:
        return _CODES[result.best.answer or "undecided"]
    require_answer(result)
    answers = {candidate.answer for candidate in result.candidates}
    if answers & {"host-bound", "unsteady"}:
        return EXIT_INVALID
    return EXIT_MISSED if "infeasible" in answers else EXIT_UNDECIDED
