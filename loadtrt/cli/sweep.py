"""`loadtrt sweep`: a run at each point of a grid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from loadtrt.cli.github import require_summary
from loadtrt.cli.options import GroupedCommand, flag, options
from loadtrt.cli.outputs import inputs_of, outputs_of, require_outputs
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID
from loadtrt.load.arrivals import PROCESSES
from loadtrt.sizing.grid import AXES

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.capacity_result import SweepResult


@click.command(cls=GroupedCommand, short_help="Run over a grid of settings.")
@options(
    "sweep",
    axes=AXES,
    choices={"arrivals": ("closed", *PROCESSES)},
    helps={
        "arrivals": "How requests arrive: in a closed loop, or by an arrival process at --rate.  "
        "[default: closed; with a rate poisson]",
        "duration": "Measure each point this long.  [default: 10s, or as --requests takes]",
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

    Without --rate each point is a closed loop. Along --contexts and --buffers the sweep stops once two further values
    have gained less than 5 % of throughput. The file of --json is written after each point.
    """
    from loadtrt.cli.delivery import carry_out_and_tell
    from loadtrt.results.capacity_result import SweepResult
    from loadtrt.sizing.sweeper import Sweeper, base_and_axes

    base, axes = base_and_axes(config, given)
    values = base.options()
    require_outputs(outputs_of(values, "a sweep"), [config, *inputs_of(values)], force=force)
    require_summary(base.github)
    make = partial(Sweeper, base, axes, all_points=all_points)
    return carry_out_and_tell(base, SweepResult, make, _exit_code, resume=resume, force=force)


def _exit_code(result: SweepResult) -> int:
    """0 if any point is valid: the table shows which failed or are INVALID."""
    from loadtrt.sizing.sweeper import require_measured

    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    return 0 if any(run.valid for run in require_measured(result)) else EXIT_INVALID
