"""`loadtrt build`: its options, and the way from a model to a plan."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.engines.build_config import BuildOptions
    from loadtrt.engines.build_model import Source
    from loadtrt.engines.plan_builder import BuiltPlan
    from loadtrt.engines.toolchain import Progress

_SHAPES = "NAME:16x3x224x224,…"
_DEPLOY_SEED = 0  # of random weights where no caffemodel is given


def _shapes(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[dict[str, tuple[int, ...]]]:
    """One dict of shapes for each time that the option is given. Names may hold colons: the last one counts."""
    found = []
    for value in values:
        shapes = {}
        for part in value.split(","):
            name, _colon, sizes = part.rpartition(":")
            digits = sizes.split("x")
            if not name or not all(size.isdigit() for size in digits):
                option = f"--{parameter.human_readable_name.replace('_', '-')}"
                raise click.UsageError(f"{option} wants NAME:16x3x224x224, several with commas between, not '{part}'")
            shapes[name] = tuple(map(int, digits))
        found.append(shapes)
    return found


def _csv(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


def _flag(name: str, help_: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(f"--{name}", is_flag=True, help=help_)


def _file(name: str, help_: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(f"--{name}", type=click.Path(path_type=Path), metavar="FILE", help=help_)


@click.command("build", short_help="Build a plan from a model.")
@click.argument("model_name", metavar="[MODEL]", required=False)
@click.option("-o", "--save-engine", "plan", type=click.Path(path_type=Path), help="Plan to write.  [required]")
@click.option("--flavour", type=click.Choice(["tensorrt", "rtx"]), help="Builder.  [default: tensorrt, else rtx]")
@click.option("--target", callback=_csv, metavar="sm86,sm89", help="Compute capabilities that an RTX plan is for.")
@click.option("--device", type=click.IntRange(min=0), default=0, help="GPU number.  [default: 0]")
@click.option("--batch", type=click.IntRange(min=1), help="Fix the first dimension that the model leaves open.")
@click.option("--shapes", multiple=True, callback=_shapes, metavar=_SHAPES, help="Shapes of inputs, fixed in the plan.")
@click.option("--min-shapes", multiple=True, callback=_shapes, metavar=_SHAPES, help="Least shapes of a profile.")
@click.option("--opt-shapes", multiple=True, callback=_shapes, metavar=_SHAPES, help="Shapes to optimise for.")
@click.option(
    "--max-shapes",
    multiple=True,
    callback=_shapes,
    metavar=_SHAPES,
    help="Greatest shapes of a profile; repeat all three for more.",
)
@_flag("fp16", "Compute in FP16: the builder may choose it, or else the model is converted.")
@_flag("bf16", "Let the builder use BF16.")
@_flag("int8", "Compute in INT8: by calibration, or Q/DQ nodes where types are the model's.")
@_flag("fp8", "Let the builder use FP8.")
@_flag("no-tf32", "No TF32 for FP32 layers.")
@_flag("strongly-typed", "Take all types from the model.")
@click.option(
    "--io", type=click.Choice(["fp32", "fp16"]), default="fp32", help="Type of inputs and outputs with --fp16."
)
@_file("calibration", "INT8: an .npz with one array for each input, or a folder of them; else random data.")
@_file("calibration-cache", "INT8 ranges to use if there, else to write (TensorRT 8.6, 10).")
@click.option("--seed", type=click.IntRange(min=0), default=1, help="Seed for random calibration data.  [default: 1]")
@click.option(
    "--builder-optimization-level", type=click.IntRange(0, 5), help="Effort of the builder; more takes longer."
)
@click.option("--workspace", metavar="SIZE", help="Maximum scratch memory of a layer, such as 1GiB.")
@_file("timing-cache", "Timing cache to read, and to write after the build.")
@click.option("--tactic-sources", callback=_csv, metavar="NAME,+NAME,-NAME", help="Libraries that tactics come from.")
@_flag("version-compatible", "Let newer TensorRT run the plan; a lean runtime goes in.")
@_flag("exclude-lean-runtime", "Leave the lean runtime out of a version-compatible plan.")
@_flag("hardware-compatible", "Let every GPU since Ampere run the plan.")
@_flag("strip-weights", "Leave out weights that a refit supplies.")
@_flag("refit", "Let weights be replaced later.")
@_flag("sparsity", "Use 2:4 sparse weights.")
@click.option(
    "--max-aux-streams", type=click.IntRange(min=0), help="Maximum number of auxiliary streams of an inference."
)
@click.option(
    "--profiling-verbosity", type=click.Choice(["layer_names_only", "detailed", "none"]), default="detailed",
    help="Detail of the layer information in the plan.  [default: detailed]",
)  # fmt: skip
@click.option("--plugins", multiple=True, metavar="FILE", help="Library with operators (repeatable).")
@click.option(
    "--dla", type=click.IntRange(min=0), metavar="CORE", help="DLA core; layers that it lacks run on the GPU."
)
@_file("deploy", "Caffe: the network (deploy.prototxt).")
@click.option(
    "--model",
    "weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Caffe: the weights (.caffemodel); random without it.",
)
@click.option("--output", "outputs", multiple=True, metavar="NAME", help="Caffe: blob to mark as output (repeatable).")
@_file("uff", "UFF, which TensorRT dropped; explains how to convert.")
@_flag("quiet", "No progress and no summary.")
def command(model_name: str | None, plan: Path | None, quiet: bool, uff: Path | None, **given: Any) -> None:
    """Build a TensorRT plan from MODEL: an .onnx file, or zoo:googlenet.

    \b
    loadtrt build googlenet.onnx -o googlenet16.plan --batch 16 --fp16
    loadtrt build zoo:googlenet -o googlenet.plan --flavour rtx --target sm86,sm89   (no GPU needed)
    loadtrt build --deploy googlenet.prototxt --model googlenet.caffemodel -o googlenet.plan --fp16

    The plan's log and a description of the build are kept beside it, as PLAN.log and PLAN.json.
    """
    from loadtrt.engines.build_model import uff_is_gone
    from loadtrt.engines.plan_builder import build_plan

    if uff is not None:
        raise UsageError(uff_is_gone(f"--uff {uff}"))
    caffe = {name: given.pop(name) for name in ("deploy", "weights", "outputs")}
    options = _options(given)
    source = _source(model_name, options, **caffe)
    if plan is None:
        raise UsageError("no plan to write: add -o FILE, such as -o model.plan")
    with _Status(quiet=quiet) as status:
        built = build_plan(source, plan, options, status.show)
    for note in built.notes:
        click.echo(f"loadtrt: {note}", err=True)
    if not quiet:
        _show(built)


def _options(given: dict[str, Any]) -> BuildOptions:
    from loadtrt.engines.build_config import BuildOptions, parse_target, shape_profiles
    from loadtrt.units import parse_bytes

    profiles = shape_profiles(given.pop("min_shapes"), given.pop("opt_shapes"), given.pop("max_shapes"))
    shapes = {name: shape for item in given.pop("shapes") for name, shape in item.items()}
    workspace = given.pop("workspace")
    return BuildOptions(
        profiles=profiles,
        shapes=shapes,
        workspace=parse_bytes(workspace) if workspace else None,
        tactic_sources=tuple(name.upper() for name in given.pop("tactic_sources")),
        targets=tuple(dict.fromkeys(parse_target(name) for name in given.pop("target"))),
        **given,
    )


def _source(
    name: str | None, options: BuildOptions, *, deploy: Path | None, weights: Path | None, outputs: tuple[str, ...]
) -> Source:
    from loadtrt.engines.build_model import made_source, open_batch, read_source

    if deploy is None:
        for option, value in (("--model", weights), ("--output", outputs)):
            if value:
                more = "; the plan is named by -o" if outputs else ""
                raise UsageError(f"{option} is for Caffe networks: add --deploy FILE.prototxt, or leave it out{more}")
        if name is None:
            raise UsageError("no model: name an .onnx file or zoo:googlenet, or add --deploy FILE.prototxt")
        return read_source(name, options)
    if name is not None:
        raise UsageError(f"two models, {name} and --deploy {deploy}: leave one out")
    from loadtrt.caffe import convert

    notes = () if weights else (f"WARNING: the weights of {deploy} are RANDOM, since no --model was given",)
    model = convert(deploy, weights, outputs, _DEPLOY_SEED)
    if options.batch is not None or options.shapes or options.profiles:
        open_batch(model)  # as with trtexec, --batch wins over the batch that the prototxt names
    return made_source(str(deploy), model, notes)


class _Status:
    """One line on a terminal that is drawn over; nothing elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self.stream = sys.stderr
        self.on = not quiet and self.stream.isatty()

    def __enter__(self) -> _Status:
        return self

    def __exit__(self, *_: object) -> None:
        if self.on:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def show(self, progress: Progress) -> None:
        if not self.on:
            return
        from loadtrt.engines.plan_builder import progress_text

        line = progress_text(progress)
        width = click.get_current_context().terminal_width or 79
        self.stream.write(f"\r\x1b[K{line[:width]}")
        self.stream.flush()


def _show(built: BuiltPlan) -> None:
    from loadtrt.units import format_bytes, format_duration

    made = built.sidecar
    place = f"for {', '.join(made.targets).lower()}" if made.targets else f"on {made.gpu}"
    click.echo(
        f"{built.path}: {format_bytes(made.plan_bytes)}, built by {made.flavour} {made.flavour_version} {place} "
        f"in {format_duration(made.build_ns)}"
    )
    if made.precision:
        click.echo(f"  precision: {made.precision}")
    for tensor in made.tensors:
        sizes = ",".join("?" if size < 0 else str(size) for size in tensor.shape)
        click.echo(f"  {'input' if tensor.input else 'output'} {tensor.name} {tensor.dtype}[{sizes}]")
    click.echo(f"  log {built.log}, description {built.path}.json")
