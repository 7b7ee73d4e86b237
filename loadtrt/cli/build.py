"""`loadtrt build`: build a plan from a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtrt.asked.fields import option_name
from loadtrt.cli.delivery import show_line
from loadtrt.cli.options import FORCE_HELP, TRT_LOG_HELP, GroupedCommand, choice, extra, flag, shape_texts
from loadtrt.cli.outputs import Output, require_outputs
from loadtrt.errors import UsageError
from loadtrt.printing import NAME, printable, say, shortened
from loadtrt.reading_files import open_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from loadtrt.engines.build_config import BuildOptions
    from loadtrt.engines.build_model import Source
    from loadtrt.engines.plan_builder import BuiltPlan

    _Decorator: TypeAlias = Callable[[Callable[..., None]], Callable[..., None]]

_SHAPES = "NAME:16x3x224x224,…"
_MOST_INT = (1 << 31) - 1  # TensorRT's ints are of 32 bits
_MOST_DIGITS = 18  # of a size
_DEPLOY_SEED = 0  # of random weights where no caffemodel is given


def _shapes(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[dict[str, tuple[int, ...]]]:
    """One dict of shapes for each time that the option is given. Names may hold colons: the last one counts."""
    profiles = []
    for value in values:
        shapes = {}
        for part in shape_texts(value):
            name, _colon, sizes = part.rpartition(":")
            digits = sizes.split("x")
            option = option_name(parameter.human_readable_name)
            if not name or not all(size.isdecimal() and len(size) <= _MOST_DIGITS for size in digits):
                raise click.UsageError(
                    f"{option} {shortened(part)} is not NAME:SIZES; write for example {option} data:16x3x224x224"
                )
            if name in shapes:
                raise click.UsageError(f"{option} has {shortened(name)} twice: leave one out")
            shapes[name] = tuple(map(int, digits))
        profiles.append(shapes)
    return profiles


def _csv(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


def _file(name: str | tuple[str, ...], group: str, help_: str) -> _Decorator:
    return extra(name, group, help_, type=click.Path(path_type=Path), metavar="FILE")


def _ranges(name: str, help_: str) -> _Decorator:
    return extra(f"--{name}", "Shapes", help_, multiple=True, callback=_shapes, metavar=_SHAPES)


def _number(name: str, group: str, help_: str, least: int = 0, most: int = _MOST_INT, **attributes: Any) -> _Decorator:
    return extra(f"--{name}", group, help_, type=click.IntRange(least, most), **attributes)


@click.command("build", cls=GroupedCommand, short_help="Build a plan from a model.")
@click.argument("model_name", metavar="[MODEL]", required=False)
@extra("--onnx", "Plan", "MODEL, as trtexec names it.", metavar="FILE")
@_file(("-o", "--save-engine", "plan"), "Plan", "Plan to write.  [required]")
@choice("--flavour", "Plan", "Library that builds the plan.  [default: tensorrt, else rtx]", "tensorrt", "rtx")
@extra(
    "--target",
    "Plan",
    "Compute capabilities of the GPUs that an RTX plan is built for.",
    callback=_csv,
    metavar="sm86,sm89",
)
@_number("device", "Plan", "Number of the GPU to build on.", default=0)
@flag(
    "--version-compatible", "Plan", "Let later versions of TensorRT run the plan, which then contains a lean runtime."
)
@flag("--exclude-lean-runtime", "Plan", "Build a version-compatible plan without its lean runtime.")
@flag("--hardware-compatible", "Plan", "Let all GPUs of compute capability 8.0 (Ampere) and later run the plan.")
@flag("--strip-weights", "Plan", "Build a plan without the weights that a refit supplies.")
@flag("--refit", "Plan", "Let the weights of the plan be replaced later.")
@_number("batch", "Shapes", "Size of the first dimension where the model leaves it open.", 1)
@_ranges("shapes", "Shapes of inputs, fixed in the plan.")
@_ranges("min-shapes", "Smallest shapes of an optimization profile (once for each profile).")
@_ranges("opt-shapes", "Shapes that an optimization profile is tuned for (once for each profile).")
@_ranges("max-shapes", "Largest shapes of an optimization profile (once for each profile).")
@flag("--fp16", "Precision", "Compute in FP16; where the builder cannot choose types, the model is converted.")
@flag("--bf16", "Precision", "Let the builder use BF16.")
@flag("--int8", "Precision", "Compute in INT8; strongly typed networks get quantize and dequantize nodes.")
@flag("--fp8", "Precision", "Let the builder use FP8.")
@flag("--no-tf32", "Precision", "Compute FP32 layers without TF32.")
@flag("--strongly-typed", "Precision", "Use the types that the model declares, and no others.")
@choice(
    "--io", "Precision", "Type of floating-point inputs and outputs of an FP16 plan.", "fp32", "fp16", default="fp32"
)
@_file(
    "--calibration",
    "Precision",
    "Data for INT8 calibration: an .npz with one array for each input, or a folder of .npz files.  "
    "[default: random data]",
)
@_file("--calibration-cache", "Precision", "File of INT8 ranges to read, or to write if missing (TensorRT 8.6 and 10).")
@_number("seed", "Precision", "Seed for random calibration data.", default=1)
@flag("--sparsity", "Precision", "Let the builder use 2:4 structured sparsity of the weights.")
@_number("builder-optimization-level", "Builder", "Optimization level; higher levels build longer.", 0, 5)
@extra("--workspace", "Builder", "Maximum scratch memory of a layer, such as 1GiB.", metavar="SIZE")
@_file("--timing-cache", "Builder", "Timing cache to read before the build and to write after it.")
@extra(
    "--tactic-sources",
    "Builder",
    "Libraries to take tactics from; +NAME adds to the default and -NAME removes.",
    callback=_csv,
    metavar="NAME,+NAME,-NAME",
)
@_number("max-aux-streams", "Builder", "Maximum number of auxiliary streams of an inference.")
@choice(
    "--profiling-verbosity",
    "Builder",
    "Detail of the layer information in the plan.",
    "layer_names_only",
    "detailed",
    "none",
    default="detailed",
)
@extra("--plugins", "Builder", "Plugin library to load (repeatable).", multiple=True, metavar="FILE")
@_number("dla", "Builder", "DLA core to run on; layers that DLA does not support run on the GPU.", metavar="CORE")
@_file("--deploy", "Caffe", "Caffe network to build from (deploy.prototxt).")
@_file(("--model", "weights"), "Caffe", "Weights of the Caffe network (.caffemodel).  [default: random weights]")
@extra(
    ("--output", "outputs"),
    "Caffe",
    "Blob of the Caffe network to mark as output (repeatable).",
    multiple=True,
    metavar="NAME",
)
@_file("--uff", "Caffe", "UFF model, which TensorRT no longer supports; prints how to convert it.")
@extra("--trt-log", "Output", f"{TRT_LOG_HELP} PLAN.log has it in any case.", metavar="FILE|-")
@flag("--force", "Output", FORCE_HELP)
@flag("--quiet", "Output", "Print neither progress nor summary.")
def command(
    model_name: str | None,
    onnx: str | None,
    plan: Path | None,
    trt_log: str | None,
    quiet: bool,
    force: bool,
    uff: Path | None,
    **given: Any,
) -> None:
    """Build a TensorRT plan from MODEL: an .onnx file, or zoo:googlenet.

    \b
    loadtrt build googlenet.onnx -o googlenet16.plan --batch 16 --fp16
    loadtrt build zoo:googlenet -o googlenet.plan --flavour rtx --target sm86,sm89   (no GPU needed)
    loadtrt build --deploy googlenet.prototxt --model googlenet.caffemodel -o googlenet.plan --fp16

    Writes the builder's log to PLAN.log and a description of the build to PLAN.json, in the folder of the plan.
    """
    from time import perf_counter_ns

    from loadtrt.cli.voice import Voice
    from loadtrt.engines.build_model import uff_is_gone
    from loadtrt.engines.plan_builder import build_plan, progress_text
    from loadtrt.engines.tensorrt_log import logging_to

    began = perf_counter_ns()
    if model_name is not None and onnx is not None:
        raise UsageError(f"{model_name} and --onnx {onnx} are two models; leave one out")
    model_name = model_name or onnx
    if uff is not None:
        raise UsageError(uff_is_gone(f"--uff {uff}"))
    read = [given[name] for name in ("calibration", "deploy", "weights")]
    caffe = {name: given.pop(name) for name in ("deploy", "weights", "outputs")}
    options = _options(given)
    source = _source(model_name, options, **caffe)
    if plan is None:
        raise UsageError("the plan has no file to be written to; add for example -o model.plan")
    _require_outputs(plan, trt_log, given, [model_name, *read, *given["plugins"]], force=force)
    voice = Voice(quiet=quiet)
    try:
        with logging_to(trt_log, voice.insist, "--trt-log"):
            built = build_plan(source, plan, options, lambda progress: voice.status(progress_text(progress)))
    finally:
        voice.end_line()
    for note in built.notes:
        say(note)
    if not quiet:
        _show(built, perf_counter_ns() - began)


def _require_outputs(
    plan: Path, trt_log: str | None, given: dict[str, Any], inputs: list[str | Path | None], *, force: bool
) -> None:
    """Raise UsageError, before minutes of building, where a file of the build cannot be written or is another file."""
    outputs = [
        Output("-o", plan, "a plan"),
        Output("-o: the description", f"{plan}.json", "facts of a build"),
        Output("-o: the log", f"{plan}.log", "a log of TensorRT"),
        Output("--trt-log", trt_log, "a log of TensorRT"),
        Output("--timing-cache", given["timing_cache"], None),  # TensorRT itself refuses what is not a cache
        Output("--calibration-cache", given["calibration_cache"], None),
    ]
    require_outputs(outputs, inputs, force=force)
    for name in ("timing_cache", "calibration_cache"):  # which are read where they are there
        if given[name] is not None and given[name].is_file():
            with open_file(given[name], name.replace("_", " ")) as opened:
                head = opened.read(4)
            if name == "calibration_cache" and head not in (b"", b"TRT-"):
                raise UsageError(
                    f"cannot read calibration cache {given[name]}: TensorRT did not write it; name another"
                )


def _options(given: dict[str, Any]) -> BuildOptions:
    from loadtrt.engines.build_config import BuildOptions, parse_target, shape_profiles
    from loadtrt.units import parse_bytes

    profiles = shape_profiles(given.pop("min_shapes"), given.pop("opt_shapes"), given.pop("max_shapes"))
    shapes: dict[str, tuple[int, ...]] = {}
    for item in given.pop("shapes"):
        if twice := min(shapes.keys() & item.keys(), default=None):
            raise UsageError(f"--shapes is given twice for {shortened(twice)}: leave one out")
        shapes |= item
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
                more = "; -o names the plan" if outputs else ""
                raise UsageError(f"{option} is for Caffe networks: add --deploy FILE.prototxt, or leave it out{more}")
        if name is None:
            raise UsageError(
                "the model is missing; write for example loadtrt build model.onnx, or add --deploy FILE.prototxt"
            )
        return read_source(name, options)
    if name is not None:
        raise UsageError(f"{name} and --deploy {deploy} are two models; leave one out")
    from loadtrt.caffe import convert, placeholder_notes
    from loadtrt.caffe.ranges import open_ranges

    notes = () if weights else (f"WARNING: the weights of {deploy} are RANDOM, since no --model was given",)
    shapes = options.shapes
    if options.profiles:
        shapes = {name: optimum for name, (_, optimum, _) in options.profiles[0].items()}
    model = convert(deploy, weights, outputs, _DEPLOY_SEED, shapes)
    notes = (*notes, *placeholder_notes(deploy, model, shapes, options.batch))
    if options.profiles:
        notes = (*notes, *open_ranges(model, deploy, outputs, options.profiles))
    if options.batch is not None or options.profiles:
        open_batch(model)  # as with trtexec, --batch wins over the batch that the prototxt names
    return made_source(str(deploy), model, notes)


def _show(built: BuiltPlan, took_ns: int) -> None:
    from loadtrt.engines.reference import REDUCED
    from loadtrt.findings.log_findings import log_summary
    from loadtrt.units import format_bytes, format_duration

    sidecar = built.sidecar
    place = f"for {', '.join(sidecar.targets).lower()}" if sidecar.targets else f"on {sidecar.gpu}"
    show_line(
        f"{built.path}: {format_bytes(sidecar.plan_bytes)}, built by {sidecar.flavour} {sidecar.flavour_version} "
        f"{place} in {format_duration(sidecar.build_ns)}"
    )
    show_line(
        f"  {format_duration(took_ns)} in all, of which loading the builder took {format_duration(sidecar.load_ns)}"
    )
    if sidecar.precision:
        show_line(f"  precision: {sidecar.precision}")
    if sidecar.conversion is not None:
        for sentence in sidecar.conversion.sentences():
            show_line(f"  {sentence}")
    if any(sidecar.options.get(option) for option in REDUCED):
        show_line("  deviation from FP32: not known before it runs; 'loadtrt run' with this plan reports it")
    for tensor in sidecar.tensors:
        sizes = ",".join("?" if size < 0 else str(size) for size in tensor.shape)
        name = printable(tensor.name, NAME)
        show_line(f"  {'input' if tensor.input else 'output'} {name} {tensor.dtype}[{sizes}]")
    if built.messages:
        show_line(f"  TensorRT logged {log_summary(built.messages)}")
    show_line(f"  log {built.log}, description {built.path}.json")
