"""`loadtrt run`: its options, and the way from them to a result that is shown and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from loadtrt.cli.options import engine_options, flag, input_options, layer_exports, many, require_targets
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@click.command(short_help="Drive an engine with load.")
@engine_options()
@click.option("--contexts", type=int, help="Execution contexts, each a lane with streams of its own.  [default: 1]")
@click.option("--buffers", type=int, help="Buffer sets a lane, so that copies overlap compute.  [default: 2]")
@click.option("--requests-per-launch", type=int, help="Closed loop: this many with one CUDA graph.  [default: 1]")
@flag("graph", "no-graph", "CUDA graphs.  [default: on]")
@flag("copies", "no-copies", "Copy inputs and outputs with every request.  [default: on]")
@click.option(
    "--wait",
    type=click.Choice(["spin", "block"]),
    help="Poll for completions, or sleep until they come.  [default: spin]",
)
@click.option(
    "--scenario",
    type=click.Choice(["single-stream", "multi-stream", "server", "offline"]),
    help="The load of MLPerf's scenario, and a result by its rules; options that are given win.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["closed", "constant", "poisson", "gamma", "trace", "offline"]),
    help="closed: as many in flight as fit. constant, poisson, gamma: at --rate or in --stages. offline: --requests "
    "at once.  [default: closed, with a rate poisson]",
)
@click.option("--rate", help="Requests due a second, such as 500/s or 2k/s; latency counts from when they are due.")
@click.option(
    "--burstiness", type=float, metavar="CV", help="Gamma arrivals: deviation / mean of gaps; 0 constant, 1 Poisson."
)
@click.option("--bursts", metavar="ON/OFF", help="Such as 1s/4s: the whole --rate within 1 s of each 5 s.")
@click.option("--stages", metavar="'100/s:10s, ramp 100/s-500/s:1m'", help="Rates one after the other.")
@click.option("--trace", metavar="FILE", help="Replay its instants (CSV or JSONL, seconds), the first due at once.")
@click.option("--trace-column", metavar="NAME", help="Which column or key of the trace, where it has several.")
@click.option("--time-scale", type=float, metavar="X", help="Times of the trace × X: 0.5 is twice as fast.")
@flag("trace-loop", "no-trace-loop", "Begin the trace again until --duration and --requests are met.")
@click.option("--mix", metavar="'1:0.7, 8:0.3'", help="Batch sizes (or NAME=SHAPE) and their weights, drawn at random.")
@click.option(
    "--batcher",
    metavar="max=16,delay=2ms",
    help="Form batches of single requests, as a server does, in front of lanes.",
)
@click.option("--max-queue", type=int, metavar="N", help="Drop a request that comes due while N wait; it is a miss.")
@input_options
@click.option("--input-sets", type=int, help="Different random input sets, taken in turn.  [default: 4]")
@click.option("--warmup", metavar="TIME", help="At least this long, and until clocks are steady.  [default: 1s]")
@click.option("--duration", metavar="TIME", help="Measure this long.  [default: 10s, or as --requests takes]")
@click.option("--requests", type=int, help="Measure this many; with --duration too, whichever is later.")
@click.option("--max-duration", metavar="TIME", help="End measuring after this, whatever else is asked.")
@click.option("--drain", metavar="TIME", help="Wait this long for the last requests.  [default: 10s]")
@flag("verify", "no-verify", "First compare outputs under load with those of a quiet run.")
@click.option(
    "--objective", multiple=True, metavar="'latency.p99 < 10ms'", callback=many, help="A bound to hold (repeatable)."
)
@flag("abort-on-fail", "no-abort-on-fail", "End the run once it shows that an objective is missed.")
@click.option("--abort-delay", metavar="TIME", help="But not before, nor before 5s.  [default: 5s]")
@click.option(
    "--precision", metavar="3%", help="End once objectives' quantiles (or latency.p99) are known so well, or after 60s."
)
@click.option("--max-lateness", metavar="TIME", help="p99 of the generator's lateness that makes a run INVALID.")
@flag("profile", "no-profile", "Afterwards, time each layer in a pass of its own.")
@click.option("--json", "json_file", metavar="FILE|-", help="Write the whole result there; - is stdout.")
@click.option("--export-times", metavar="FILE", help="Write each request's times in trtexec's format.")
@layer_exports
@click.option("--export-output", metavar="FILE", help="Write the outputs of one request more in trtexec's format.")
@click.option("--junit", metavar="FILE", help="Write validity and objectives as JUnit XML, a test each.")
@flag("live", "no-live", "Draw a live view where stderr is a terminal.  [default: on]")
@flag("telemetry", "no-telemetry", "Sample the GPU's clocks, power and heat.  [default: on]")
@click.option(
    "--metrics", metavar="[HOST]:PORT", help="Serve Prometheus metrics there; without a host to this one alone."
)
@click.option("--metrics-linger", metavar="TIME", help="Serve them so long after the run: two scrapes.  [default: 3s]")
@flag("metrics-native", "no-metrics-native", "Offer native histograms to a Prometheus that asks for them.")
@flag("quiet", "no-quiet", "No progress and no summary.")
def command(config: Path | None, **options: Any) -> int:
    """Drive an engine with load and say how fast and how late it is.

    \b
    loadtrt run --engine googlenet16.trt --contexts 4 --fp16
    loadtrt run --engine googlenet16.trt --contexts 4 --rate 500/s
    loadtrt run --engine zoo:googlenet --contexts 4          (no GPU needed)
    """
    from loadtrt.asked.reading import load_config

    options["json"] = options.pop("json_file")
    checked = load_config(config, options)
    files = ("json_file", "export_times", "export_profile", "export_layer_info", "export_output", "junit")
    require_targets({f"--{name.removesuffix('_file').replace('_', '-')}": getattr(checked, name) for name in files})
    from loadtrt.cli.running import run

    try:
        return run(checked)
    except UsageError as error:
        model = checked.model
        batch, size = f"batch {model.batch}", f"size {model.batch} of dimension 0"
        told = batch in str(error) or size in str(error)
        if model.scenario is None or options["batch"] is not None or not told:
            raise
        raise UsageError(f"{error} ({batch} is what --scenario {model.scenario} asks for)") from None
