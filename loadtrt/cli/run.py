"""`loadtrt run`: its options, and the way from them to a result that is shown and written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def _named(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """{"data": "16x3x224x224"} of ("data:16x3x224x224",). Names may hold colons: the last one counts."""
    found = {}
    for value in values:
        name, colon, rest = value.rpartition(":")
        if not colon or not name:
            raise click.UsageError(
                f"--{parameter.human_readable_name.replace('_', '-')} wants NAME:VALUE, not '{value}'"
            )
        found[name] = rest
    return found or None


def _shapes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """Several tensors in one option, with commas, as trtexec takes them."""
    return _named(context, parameter, tuple(part for value in values for part in value.split(",")))


def _many(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    return values or None


def _flag(name: str, off: str, help_: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    return click.option(f"--{name}/--{off}", name.replace("-", "_"), default=None, help=help_)


@click.command(short_help="Drive an engine with load.")
@click.option("--config", type=click.Path(path_type=Path), help="YAML file of these options; what is given here wins.")
@click.option("--engine", help="A plan, an .onnx file, zoo:googlenet, or simulated:KEY=VALUE,… (simulated:null).")
@click.option("--on", type=click.Choice(["auto", "tensorrt", "onnxruntime"]), help="What runs it.  [default: auto]")
@click.option("--module", metavar="NAME", help="TensorRT module, such as tensorrt_lean; else chosen by the plan.")
@click.option("--plugins", multiple=True, callback=_many, metavar="FILE", help="Plugin library to load (repeatable).")
@click.option(
    "--allow-host-code/--no-allow-host-code", default=None, help="Let TensorRT run host code that the plan carries."
)
@click.option("--device", type=int, help="GPU number.  [default: 0]")
@_flag("fp16", "no-fp16", "Plan: check that it computes in FP16. Model: convert it to FP16.")
@click.option("--batch", type=int, help="Size of the inputs' first dimension where the model leaves it open.")
@click.option("--shapes", multiple=True, callback=_shapes, metavar="NAME:16x3x224x224", help="Input shapes.")
@click.option("--shape-values", multiple=True, callback=_named, metavar="NAME:1,2", help="Values of a shape tensor.")
@click.option(
    "--optimization-profile",
    "--use-profile",
    "optimization_profile",
    type=int,
    help="Optimization profile of the plan.  [default: 0]",
)
@click.option("--contexts", type=int, help="Execution contexts, each a lane with streams of its own.  [default: 1]")
@click.option("--buffers", type=int, help="Buffer sets a lane, so that copies overlap compute.  [default: 2]")
@_flag("graph", "no-graph", "CUDA graphs.  [default: on]")
@_flag("copies", "no-copies", "Copy inputs and outputs with every request.  [default: on]")
@click.option(
    "--wait",
    type=click.Choice(["spin", "block"]),
    help="Poll for completions, or sleep until they come.  [default: spin]",
)
@click.option("--threads-per-context", type=int, help="CPU threads a context.  [default: cores / contexts]")
@click.option(
    "--arrivals",
    type=click.Choice(["closed", "constant", "poisson"]),
    help="closed: as many in flight as fit. constant, poisson: at --rate.  [default: closed, with a rate poisson]",
)
@click.option("--rate", help="Requests due a second, such as 500/s or 2k/s; latency counts from when they are due.")
@click.option("--seed", type=int, help="Of arrivals and random inputs.  [default: 1]")
@click.option(
    "--inputs", multiple=True, callback=_many, metavar="random|zeros|FILE.npz|NAME:FILE", help="What requests carry."
)
@click.option("--input-sets", type=int, help="Different random input sets, taken in turn.  [default: 4]")
@click.option(
    "--input-range",
    multiple=True,
    callback=_named,
    metavar="NAME:LOW..HIGH",
    help="Range of random values of an input.",
)
@click.option("--warmup", metavar="TIME", help="At least this long, and until clocks are steady.  [default: 1s]")
@click.option("--duration", metavar="TIME", help="Measure this long.  [default: 10s, or as --requests takes]")
@click.option("--requests", type=int, help="Measure this many; with --duration too, whichever is later.")
@click.option("--max-duration", metavar="TIME", help="End measuring after this, whatever else is asked.")
@click.option("--drain", metavar="TIME", help="Wait this long for the last requests.  [default: 10s]")
@_flag("verify", "no-verify", "First compare outputs under load with those of a quiet run.")
@click.option("--max-lateness", metavar="TIME", help="p99 of the generator's lateness that makes a run INVALID.")
@click.option("--json", "json_file", metavar="FILE|-", help="Write the whole result there; - is stdout.")
@_flag("quiet", "no-quiet", "No progress and no summary.")
def command(config: Path | None, **options: Any) -> int:
    """Drive an engine with load and say how fast and how late it is.

    \b
    loadtrt run --engine googlenet16.trt --contexts 4 --fp16
    loadtrt run --engine googlenet16.trt --contexts 4 --rate 500/s
    loadtrt run --engine zoo:googlenet --contexts 4          (no GPU needed)
    """
    from loadtrt.config import load_config

    options["json"] = options.pop("json_file")
    checked = load_config(config, options)
    if checked.json_file and checked.json_file != "-":
        _writable(Path(checked.json_file))
    from loadtrt.cli.running import run

    return run(checked)


def _writable(file: Path) -> None:
    """Say now, not after the measurement, that its result cannot be written. Makes no file: there may be no result."""
    if not file.parent.is_dir():
        raise UsageError(f"--json {file}: there is no folder {file.parent}")
    if file.is_dir():
        raise UsageError(f"--json {file} is a folder: name a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"--json {file} cannot be written: permission denied")
