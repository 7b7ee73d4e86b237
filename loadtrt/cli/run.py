"""`loadtrt run`: its options, and the way from them to a result that is shown and written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from loadtrt.asked.fields import option_name, read_option
from loadtrt.asked.launched import parse_start, require_workers, worker_of
from loadtrt.asked.load_options import OPTIONS as LOAD_OPTIONS
from loadtrt.cli.options import GroupedCommand, extra, flag, options
from loadtrt.cli.outputs import inputs_of, outputs_of, require_outputs
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_ALONE = {"contexts": 1, "buffers": 1, "requests_per_launch": 1, "arrivals": "closed"}


@click.command(cls=GroupedCommand, short_help="Drive an engine with load.")
@options("run")
@flag(
    "--latency", "Lanes", "Measure the latency of one request at a time: a closed loop with --contexts 1 --buffers 1."
)
@extra(
    ("--model", "models"),
    "Engine",
    "Add a model to a run of several, with its own options, named as in YAML (repeatable). Other options are for all "
    "models. A value with commas needs quotes.",
    multiple=True,
    metavar="NAME=ENGINE,KEY=VALUE,…",
)
@extra(
    "--repeat",
    "Ending",
    "Start the run K times, each in a new process with the next seed, and show what differs between starts.",
    type=click.IntRange(2, 100),
    metavar="K",
)
@extra(
    "--start-at",
    "Fleet",
    "Begin to measure at this instant, after all preparation: the same one for all workers of a fleet.",
    metavar="2026-11-29T16:00:00Z",
)
def command(
    config: Path | None,
    latency: bool,
    models: tuple[str, ...],
    repeat: int | None,
    start_at: str | None,
    force: bool,
    **given: Any,
) -> int:
    """Send requests to an engine at a rate, or one after the other, and measure its throughput and latency.

    \b
    loadtrt run --engine googlenet16.trt --contexts 4 --fp16
    loadtrt run --engine googlenet16.trt --contexts 4 --rate 500/s
    loadtrt run --engine zoo:googlenet --contexts 4          (no GPU needed)
    loadtrt run --engine zoo:googlenet --latency             (one request at a time)
    loadtrt run --model a=a.plan,rate=300/s --model b=b.plan (two models at once)
    """
    from loadtrt.asked.reading import load_config, require_one_model

    if latency:
        given = _one_in_flight(given)
    remark = ""
    if given["worker"] is not None:
        given["worker"], remark = worker_of(given["worker"], os.environ)
    if models:
        from loadtrt.asked.model_option import parse_models

        given["models"] = parse_models(models)
    checked = load_config(config, given, without={"scenario"} if latency else (), several=True)
    if latency or repeat is not None:
        require_one_model(checked, "--latency" if latency else "--repeat")
    closed = all(model.load.closed for model in checked.models.values())
    require_workers(given["routing"], several=checked.worker is not None or checked.shares_load, closed=closed)
    if start_at is not None and repeat is not None:
        raise UsageError("--start-at is for a single start: leave it or --repeat out")
    start_ns = None if start_at is None else read_option("--start-at", start_at, parse_start)
    values = [checked.alone(name).options() for name in checked.models]
    result = "a run" if repeat is None else "starts of a run"
    inputs = [name for options_ in values for name in inputs_of(options_)]
    require_outputs(outputs_of(values[0], result), [config, *inputs], force=force)
    if repeat is not None:
        from loadtrt.cli.repeating import repeated, require_repeatable

        require_repeatable(checked, repeat)
        return repeated(checked, repeat)
    from loadtrt.cli.running import run

    try:
        return run(checked, start_ns, remark)
    except UsageError as error:
        model = next(iter(checked.models.values()))
        batch, size = f"batch {model.batch}", f"size {model.batch} of dimension 0"
        told = batch in str(error) or size in str(error)
        if model.scenario is None or given["batch"] is not None or not told:
            raise
        raise UsageError(f"{error} ({batch} is what --scenario {model.scenario} asks for)") from None


def _one_in_flight(given: dict[str, Any]) -> dict[str, Any]:
    """The options of the command line with those that --latency stands for. Raises UsageError where others contradict
    them."""
    for key, value in _ALONE.items():
        if given[key] not in (None, value):
            raise UsageError(
                f"--latency has one request in flight, in a closed loop: leave {option_name(key)} {given[key]} out, or "
                "--latency"
            )
    for key in ("scenario", *LOAD_OPTIONS, "batcher", "max_queue"):
        if key not in _ALONE and given[key] is not None:
            remedy = f"leave {option_name(key)} out, or --latency"
            raise UsageError(f"--latency is a closed loop with one request in flight: {remedy}")
    return given | _ALONE
