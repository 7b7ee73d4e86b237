"""`loadtrt sweep`: a run at each point of a grid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from loadtrt.cli.options import engine_options, flag, input_options, many, require_targets
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.asked.config import RunConfig
    from loadtrt.measure.sweep_result import SweepResult


@click.command(short_help="Run over a grid of settings.")
@engine_options("batch", "threads_per_context")
@click.option("--contexts", metavar="1,2,4", help="Execution contexts; 1..8 is each from 1 to 8.")
@click.option("--batch", metavar="1,4,16", help="Batches, where the model leaves the first dimension open.")
@click.option("--buffers", metavar="1,2", help="Buffer sets a lane.")
@click.option("--graph", metavar="on,off", help="CUDA graphs.")
@click.option("--copies", metavar="on,off", help="Copy inputs and outputs with every request.")
@click.option("--wait", metavar="spin,block", help="Poll for completions, or sleep until they come.")
@click.option("--threads-per-context", metavar="1,2,4", help="CPU threads a context.")
@click.option("--rate", metavar="100/s,200/s", help="Requests due a second; 100/s..1000/s:5 is five rates.")
@click.option("--burstiness", metavar="1,4", help="Gamma arrivals: deviation / mean of gaps.")
@click.option(
    "--arrivals",
    type=click.Choice(["closed", "constant", "poisson", "gamma"]),
    help="How requests come.  [default: closed, with a rate poisson]",
)
@click.option("--bursts", metavar="ON/OFF", help="Such as 1s/4s: the whole --rate within 1 s of each 5 s.")
@input_options
@click.option("--input-sets", type=int, help="Different random input sets, taken in turn.  [default: 4]")
@click.option("--warmup", metavar="TIME", help="Of each engine, and until clocks are steady.  [default: 1s]")
@click.option("--duration", metavar="TIME", help="Of each point.  [default: 10s, or as --requests takes]")
@click.option("--requests", type=int, help="Of each point; with --duration too, whichever is later.")
@click.option("--max-duration", metavar="TIME", help="End a point after this, whatever else is asked.")
@click.option("--drain", metavar="TIME", help="Wait this long for the last requests.  [default: 10s]")
@flag("verify", "no-verify", "First compare outputs under load with those of a quiet run, for each engine.")
@click.option(
    "--objective",
    multiple=True,
    metavar="'latency.p99 < 10ms'",
    callback=many,
    help="A bound to judge by (repeatable).",
)
@click.option("--max-lateness", metavar="TIME", help="p99 of the generator's lateness that makes a point INVALID.")
@click.option("--all", "all_points", is_flag=True, help="Measure also where contexts or buffers no longer gain 5 %.")
@click.option("--json", "json_file", metavar="FILE|-", help="Write all of it there after each point; - is stdout.")
@click.option("--resume", is_flag=True, help="Go on with the sweep in the file of --json.")
@flag("telemetry", "no-telemetry", "Sample the GPU's clocks, power and heat.  [default: on]")
@flag("quiet", "no-quiet", "No progress and no table.")
def command(config: Path | None, all_points: bool, resume: bool, **options: Any) -> int:
    """Run at each point of a grid, and show the curve of latency against throughput, its knee and what pays.

    \b
    loadtrt sweep --engine googlenet16.trt --contexts 1,2,4,8 --batch 1,4,16 --json sweep.json
    loadtrt sweep --engine googlenet16.trt --contexts 4 --rate 500/s..3000/s:6
    loadtrt sweep --engine zoo:googlenet --contexts 1,2 --batch 1                (no GPU needed)

    Without a rate requests come as fast as they are served; along contexts and buffers it ends where two further values
    gained less than 5 %. Each point is kept as it ends.
    """
    options["json"] = options.pop("json_file")
    base, axes = _base_and_axes(config, options)
    require_targets({"--json": base.json_file})
    from loadtrt.capacity.sweep import Sweeper
    from loadtrt.cli.resuming import carry_out
    from loadtrt.measure.sweep_result import SweepResult
    from loadtrt.report.sweep_tables import sweep_text

    make = partial(Sweeper, base, axes, all_points=all_points)
    return _exit_code(carry_out(base, SweepResult, sweep_text, make, resume=resume))


def _base_and_axes(file: Path | None, options: dict[str, Any]) -> tuple[RunConfig, dict[str, tuple[Any, ...]]]:
    """What all points have in common, and the values of those that were given. Raises UsageError."""
    from loadtrt.asked.reading import load_config
    from loadtrt.capacity.axes import AXES, parse_axis

    axes = {name: parse_axis(name, options[name]) for name in options if name in AXES and options[name] is not None}
    if not axes:
        raise UsageError("a sweep is over something: give several values, such as --contexts 1,2,4 or --batch 1,4,16")
    overruling = [name for name in ("rate", "burstiness", "batch") if name in axes]  # what a file says of them
    common = {name: value for name, value in options.items() if name not in AXES}
    return load_config(file, common | {name: axes[name][0] for name in overruling}, without={"profile"}), axes


def _exit_code(result: SweepResult) -> int:
    """Of a sweep the points are the answer: a failed or invalid one says so in the table, unless there is no other."""
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    measured = [point.run for point in result.points if point.run is not None and point.failure is None]
    if not measured:
        raise EngineError(result.points[0].failure or "no point was measured")
    return 0 if any(run.valid for run in measured) else EXIT_INVALID
