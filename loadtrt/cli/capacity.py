"""`loadtrt capacity`: the highest rate that meets the objectives, with the evidence for it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from loadtrt.cli.options import engine_options, flag, input_options, many, require_targets
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_MISSED, EXIT_UNDECIDED, EngineError, UsageError
from loadtrt.units import parse_share

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.asked.config import RunConfig
    from loadtrt.capacity.find import Wanted
    from loadtrt.measure.capacity_result import CapacityResult

# What a run says of its load and of what it writes, a search says otherwise: a configuration file's is left out.
_OWN = {
    *("arrivals", "rate", "burstiness", "bursts", "stages", "trace", "trace_column", "time_scale", "trace_loop"),
    *("duration", "requests", "max_duration", "abort_on_fail", "abort_delay", "precision", "max_queue"),
    *("batcher", "scenario", "profile"),
}
_CODES = {"found": 0, "undecided": EXIT_UNDECIDED, "infeasible": EXIT_MISSED, "host-bound": EXIT_INVALID}


@click.command(short_help="Find the highest rate that meets objectives.")
@engine_options("batch")
@click.option("--batch", metavar="1,4,16", help="Batches to try, where the model leaves the first dimension open.")
@click.option("--mix", metavar="'1:0.7, 8:0.3'", help="Batch sizes (or NAME=SHAPE) and their weights, drawn at random.")
@click.option("--contexts", metavar="1..8", help="Contexts to try, such as 1,2,4 or 1..8.  [default: 1]")
@click.option("--buffers", type=int, help="Buffer sets a lane, so that copies overlap compute.  [default: 2]")
@flag("graph", "no-graph", "CUDA graphs.  [default: on]")
@flag("copies", "no-copies", "Copy inputs and outputs with every request.  [default: on]")
@click.option("--wait", type=click.Choice(["spin", "block"]), help="Poll for completions, or sleep.  [default: spin]")
@click.option(
    "--objective", multiple=True, metavar="'latency.p99 < 10ms'", callback=many, help="A bound to hold (repeatable)."
)
@click.option(
    "--arrivals",
    type=click.Choice(["constant", "poisson", "gamma"]),
    help="How requests come.  [default: poisson; with --burstiness gamma]",
)
@click.option("--burstiness", type=float, metavar="CV", help="Gamma arrivals: deviation / mean of gaps.")
@click.option("--bursts", metavar="ON/OFF", help="Such as 1s/4s: all requests within 1 s of each 5 s.")
@input_options
@click.option("--input-sets", type=int, help="Different random input sets, taken in turn.  [default: 4]")
@click.option("--warmup", metavar="TIME", help="Of each engine, and until clocks are steady.  [default: 1s]")
@click.option(
    "--trial",
    metavar="TIME",
    help="Length of a trial; confirming takes 5.  [default: 10s, and up to 60s where requests are worth little]",
)
@click.option("--precision", metavar="3%", default="3%", help="How well to know it before confirming.  [default: 3%]")
@click.option("--max-trials", type=int, default=6, metavar="N", help="Before confirming.  [default: 6]")
@click.option("--drain", metavar="TIME", help="Wait this long for a trial's last requests, at least.  [default: 10s]")
@flag("verify", "no-verify", "First compare outputs under load with those of a quiet run.")
@click.option("--max-lateness", metavar="TIME", help="p99 of the generator's lateness that makes a trial INVALID.")
@click.option("--json", "json_file", metavar="FILE|-", help="Write all of it there after each trial; - is stdout.")
@click.option("--resume", is_flag=True, help="Go on with the search in the file of --json.")
@flag("telemetry", "no-telemetry", "Sample the GPU's clocks, power and heat.  [default: on]")
@flag("quiet", "no-quiet", "No progress and no table.")
def command(
    config: Path | None, contexts: str | None, batch: str | None, trial: str | None, precision: str, max_trials: int,
    resume: bool, **options: Any,
) -> int:  # fmt: skip
    """Find the highest rate of requests at which the objectives are met, and confirm it.

    \b
    loadtrt capacity --engine googlenet16.trt --objective 'latency.p99 < 10ms' --contexts 1,2,4,8 --batch 1,4
    loadtrt capacity --engine zoo:googlenet --batch 1 --objective 'latency.p99 < 400ms'      (no GPU needed)

    Exit code 0: found and confirmed; 98: not told apart with so few requests; 99: no rate meets the objectives; 97: the
    load generator was the bottleneck.
    """
    options["json"] = options.pop("json_file")
    wanted = _wanted(config, options, contexts, batch, trial, precision, max_trials)
    wanted.configs()  # what is wrong with any is said now
    require_targets({"--json": wanted.config.json_file})
    from loadtrt.capacity.find import Finder
    from loadtrt.cli.resuming import carry_out
    from loadtrt.measure.capacity_result import CapacityResult
    from loadtrt.report.capacity_tables import capacity_text

    make = partial(Finder, wanted)
    return _exit_code(carry_out(wanted.config, CapacityResult, capacity_text, make, resume=resume))


def _wanted(
    file: Path | None,
    options: dict[str, Any],
    contexts: str | None,
    batch: str | None,
    trial: str | None,
    precision: str,
    most: int,
) -> Wanted:
    from loadtrt.asked.load_options import process_type
    from loadtrt.asked.reading import load_config
    from loadtrt.capacity.axes import parse_axis
    from loadtrt.capacity.find import LONGEST_TRIAL_NS, TRIAL_NS, Wanted
    from loadtrt.units import parse_duration

    load = {key: options.pop(key) for key in ("arrivals", "burstiness", "bursts")}
    load = {key: value for key, value in load.items() if value is not None}
    load.setdefault("arrivals", process_type(load).word)
    batches = None if batch is None else parse_axis("batch", batch)
    first = {} if batches is None else {"batch": batches[0]}  # which a configuration file's mix gives way to
    config = load_config(file, {**options, **first}, without=_OWN)
    _require_objectives(config)
    trial_ns = TRIAL_NS if trial is None else parse_duration(trial)
    if not trial_ns:
        raise UsageError("--trial 0s: a trial without time measures nothing: give such as 10s")
    if most < 2:
        raise UsageError(f"--max-trials {most}: an estimate takes two trials at least")
    return Wanted(
        config=config,
        load=load,
        contexts=(config.model.contexts,) if contexts is None else parse_axis("contexts", contexts),
        batches=(config.model.batch,) if batches is None else batches,
        precision=_precision(precision),
        trial_ns=trial_ns,
        max_trials=most,
        longest_trial_ns=LONGEST_TRIAL_NS if trial is None else None,
    )


def _require_objectives(config: RunConfig) -> None:
    if not config.model.objectives:
        raise UsageError("capacity is under an objective: add --objective, such as 'latency.p99 < 10ms'")
    for objective in config.model.objectives:
        if objective.rank == 1:
            raise UsageError(
                f"'{objective}': a maximum grows with the time that one looks: bind a quantile, such as p99.9"
            )


def _precision(text: str) -> float:
    with suppress(UsageError):
        share = parse_share(text)
        if 0.001 <= share <= 0.5:
            return share
    raise UsageError(f"--precision {text}: write a share from 0.1% to 50%, such as 3%")


def _exit_code(result: CapacityResult) -> int:
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    if result.best is not None:
        return _CODES[result.best.answer or "undecided"]
    answers = {each.answer for each in result.candidates}
    failures = [each.failure for each in result.candidates if each.failure]
    if failures and not answers & _CODES.keys():
        raise EngineError(failures[0])
    return EXIT_INVALID if "host-bound" in answers else EXIT_MISSED if "infeasible" in answers else EXIT_UNDECIDED
