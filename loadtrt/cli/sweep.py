"""`loadtrt sweep`: a run at each point of a grid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from loadtrt.capacity.grid import AXES
from loadtrt.cli.github import require_summary, tell_result
from loadtrt.cli.options import GroupedCommand, flag, options
from loadtrt.cli.outputs import inputs_of, outputs_of, require_outputs
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EngineError, UsageError
from loadtrt.load.arrivals import PROCESSES

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.asked.config import RunConfig
    from loadtrt.results.capacity_result import SweepResult


@click.command(cls=GroupedCommand, short_help="Run over a grid of settings.")
@options(
    "sweep",
    axes=AXES,
    choices={"arrivals": ("closed", *PROCESSES)},
    helps={
        "arrivals": "How requests arrive: in a closed loop, or by an arrival process at --rate.  "
        "[default: closed; with a rate poisson]",
        "warmup": "Warm up each engine at least this long, and until the GPU's clocks are steady.  [default: 1s]",
        "verify": "First compare outputs under load with those of a quiet run, for each engine.  [default: off]",
    },
)
@flag(("--all", "all_points"), "Ending", "Measure every point, even where an axis no longer gains 5 % of throughput.")
@flag("--resume", "Results", "Continue the unfinished sweep in the file of --json.")
def command(config: Path | None, all_points: bool, resume: bool, force: bool, **given: Any) -> int:
    """Run at each point of a grid, and show the curve of latency against throughput, its knee and its Pareto front.

    \b
    loadtrt sweep --engine googlenet16.trt --contexts 1,2,4,8 --batch 1,4,16 --json sweep.json
    loadtrt sweep --engine googlenet16.trt --contexts 4 --rate 500/s..3000/s:6
    loadtrt sweep --engine googlenet.trt --batcher max=8,delay=1ms --batcher max=16,delay=2ms --rate 500/s,1000/s
    loadtrt sweep --engine googlenet16.trt --contexts 8 --partitions 1,2,4,8            (do partitions serve more?)
    loadtrt sweep --engine googlenet16.trt --contexts 4 --sms 8,16,32,64           (how many SMs does the plan need?)
    loadtrt sweep --engine zoo:googlenet --contexts 1,2 --batch 1                (no GPU needed)
    loadtrt sweep --engine model.onnx --batch 16 --fp16 off,on    (what FP16 gains, and what it costs in precision)

    Without --rate each point is a closed loop; along --contexts and --buffers the sweep stops where two further values
    gained less than 5 % of throughput. The file of --json is written after each point.
    """
    base, axes = _base_and_axes(config, given)
    values = base.options()
    require_outputs(outputs_of(values, "a sweep"), [config, *inputs_of(values)], force=force)
    from loadtrt.capacity.sweeper import Sweeper

    require_summary(base.github)
    from loadtrt.cli.delivery import say_verdict
    from loadtrt.cli.resuming import carry_out
    from loadtrt.report.plain import terminal_text
    from loadtrt.results.capacity_result import SweepResult

    make = partial(Sweeper, base, axes, all_points=all_points)
    result = carry_out(base, SweepResult, terminal_text, make, resume=resume, force=force)
    code = say_verdict(result, _exit_code(result), quiet=base.quiet)
    if base.github:
        tell_result(result, code, base.json_file)
    return code


def _base_and_axes(file: Path | None, given: dict[str, Any]) -> tuple[RunConfig, dict[str, tuple[Any, ...]]]:
    """The configuration that all points share, and the values of each axis. Raises UsageError."""
    from loadtrt.asked.reading import load_config
    from loadtrt.capacity.grid import parse_axis

    axes = {name: parse_axis(name, given[name]) for name in given if name in AXES and given[name] is not None}
    if not axes:
        raise UsageError("a sweep needs an axis: give several values, such as --contexts 1,2,4 or --batch 1,4,16")
    over_file = [name for name in ("rate", "burstiness", "batch", "batcher", "max_queue") if name in axes]
    common = {name: value for name, value in given.items() if name not in AXES}
    first = {name: axes[name][0] for name in over_file}
    return load_config(file, common | first, without={"profile"}, base=True), axes


def _exit_code(result: SweepResult) -> int:
    """0 if any point is valid: the table shows which failed or are INVALID."""
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    measured = [point.run for point in result.points if point.run is not None and point.failure is None]
    if not measured:
        raise EngineError(result.points[0].failure or "no point was measured")
    return 0 if any(run.valid for run in measured) else EXIT_INVALID
