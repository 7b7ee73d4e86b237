"""Options of `loadtrt build`, in trtexec's words, and the network and builder configuration made from them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loadtrt.errors import EngineError, UsageError
from loadtrt.files import write_file
from loadtrt.reading_files import MOST_MODEL_BYTES, read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.engines.build_model import Source
    from loadtrt.engines.toolchain import Toolchain

Shape = tuple[int, ...]
Ranges = dict[str, tuple[Shape, Shape, Shape]]  # input: (min, opt, max), one optimization profile


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """The options of a build; None and () leave TensorRT's default.

    batch, shapes: sizes written into the model, for a plan of these sizes alone.
    profiles: ranges of sizes, for a plan that takes many.
    io: type of floating-point inputs and outputs of an FP16 plan.
    workspace: maximum scratch memory of a layer, bytes.
    targets: compute capabilities that an RTX plan is for, as TensorRT-RTX names them (SM86).
    plugins: libraries with operators.
    """

    flavour: Literal["tensorrt", "rtx"] | None = None
    device: int = 0
    batch: int | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    profiles: tuple[Ranges, ...] = ()
    fp16: bool = False
    bf16: bool = False
    int8: bool = False
    fp8: bool = False
    no_tf32: bool = False
    strongly_typed: bool = False
    io: Literal["fp32", "fp16"] = "fp32"
    calibration: Path | None = None
    calibration_cache: Path | None = None
    seed: int = 1
    builder_optimization_level: int | None = None
    workspace: int | None = None
    timing_cache: Path | None = None
    tactic_sources: tuple[str, ...] = ()
    version_compatible: bool = False
    exclude_lean_runtime: bool = False
    hardware_compatible: bool = False
    strip_weights: bool = False
    refit: bool = False
    sparsity: bool = False
    max_aux_streams: int | None = None
    profiling_verbosity: str = "detailed"
    plugins: tuple[str, ...] = ()
    dla: int | None = None
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises UsageError for options that contradict each other."""
        if self.profiles and (self.batch is not None or self.shapes):
            given = "--batch" if self.batch is not None else "--shapes"
            raise UsageError(
                f"{given} fixes sizes, and --min-shapes, --opt-shapes and --max-shapes leave them open: choose one"
            )
        if self.exclude_lean_runtime and not self.version_compatible:
            raise UsageError("--exclude-lean-runtime is for version-compatible plans: add --version-compatible")
        if self.io == "fp16" and not self.fp16:
            raise UsageError("--io fp16 is for plans that compute in FP16: add --fp16")
        if self.strongly_typed:
            for name in ("bf16", "fp8"):
                if getattr(self, name):
                    raise UsageError(
                        f"--{name} lets the builder choose types, and --strongly-typed forbids it: leave one out, "
                        f"or convert the model to {name.upper()} beforehand (NVIDIA ModelOpt does)"
                    )
        for name in ("calibration", "calibration_cache"):
            if getattr(self, name) is not None and not self.int8:
                raise UsageError(f"{option_of(name)} is for INT8 plans: add --int8")

    def given(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON can hold it."""
        default = BuildOptions()
        return {
            item.name: _plain(getattr(self, item.name))
            for item in fields(self)
            if getattr(self, item.name) != getattr(default, item.name)
        }


def option_of(name: str) -> str:
    """ "--max-aux-streams" of "max_aux_streams"."""
    return "--target" if name == "targets" else f"--{name.replace('_', '-')}"


def shape_profiles(
    least: Sequence[Mapping[str, Shape]], best: Sequence[Mapping[str, Shape]], most: Sequence[Mapping[str, Shape]]
) -> tuple[Ranges, ...]:
    """Optimization profiles: the n-th --min-shapes, --opt-shapes and --max-shapes make the n-th.

    Of an input, what is not given is, as in trtexec, taken from what is: opt from max, then min; min and max from opt.
    Raises UsageError where they are not equally many, differ in rank, or are not min ≤ opt ≤ max.
    """
    count = max(map(len, (least, best, most)))
    for option, items in (("--min-shapes", least), ("--opt-shapes", best), ("--max-shapes", most)):
        if items and len(items) != count:
            raise UsageError(
                f"{option} is given {len(items)} times and another of the three {count} times: "
                "give each once for every profile, with all inputs of the profile in it, separated by commas"
            )
    return tuple(
        _profile(*(items[number] if items else {} for items in (least, best, most))) for number in range(count)
    )


def _profile(least: Mapping[str, Shape], best: Mapping[str, Shape], most: Mapping[str, Shape]) -> Ranges:
    profile: Ranges = {}
    for name in dict.fromkeys((*least, *best, *most)):
        opt = best.get(name, most.get(name, least.get(name, ())))
        low, high = least.get(name, opt), most.get(name, opt)
        if not len(low) == len(opt) == len(high) or not all(
            a <= b <= c for a, b, c in zip(low, opt, high, strict=True)
        ):
            spelt = ", ".join("x".join(map(str, shape)) or "scalar" for shape in (low, opt, high))
            raise UsageError(f"the shapes of {name} ({spelt}) are not min ≤ opt ≤ max of one length: correct them")
        profile[name] = (low, opt, high)
    return profile


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


_QUOTED = 300  # characters of the parser's message


def make_network(tool: Toolchain, builder: Any, options: BuildOptions) -> Any:
    """An empty network with explicit batch, strongly typed where --strongly-typed or the flavour requires it."""
    flags = 0
    known = getattr(tool.module, "NetworkDefinitionCreationFlag", None)
    members = getattr(known, "__members__", {})
    if "EXPLICIT_BATCH" in members:  # 8.6 needs the flag; 10 ignores it; 11 and RTX have no other
        flags |= 1 << int(members["EXPLICIT_BATCH"])
    if "STRONGLY_TYPED" in members and (options.strongly_typed or not tool.weak_typing):
        flags |= 1 << int(members["STRONGLY_TYPED"])
    return builder.create_network(flags)


def parse_onnx(tool: Toolchain, network: Any, source: Source) -> None:
    """Read the model into `network`. Raises EngineError with node, operator and remedy where TensorRT refuses it."""
    mark = tool.journal.mark()
    parser = tool.module.OnnxParser(network, tool.journal.logger)
    # TensorRT reads external data from the folder of this path.
    path = (str(source.external.folder / "model.onnx"),) if source.external else ()
    if parser.parse(source.model.SerializeToString(), *path):
        return
    if not parser.num_errors:
        raise EngineError(f"{tool.flavour} cannot read {source.name}; TensorRT says {tool.journal.reason(mark)}")
    error = parser.get_error(0)
    said = " ".join(str(error.desc()).split()).rstrip(".")
    place = int(error.node())
    nodes = source.model.graph.node
    node = nodes[place] if 0 <= place < len(nodes) else None
    name = (error.node_name() if hasattr(error, "node_name") else "") or (node.name if node is not None else "")
    operator = (error.node_operator() if hasattr(error, "node_operator") else "") or (
        node.op_type if node is not None else ""
    )
    where = f"node '{name or place}' (operator {operator or 'unknown'})"
    converted = " as loadtrt converted it to FP16" if source.conversion else ""  # the types may be at fault
    first = "leave --fp16 out; where that is refused, too, " if converted else ""
    raise EngineError(
        f"{tool.flavour} cannot build {source.name}{converted}: {where} is refused: {first}{_remedy(said, operator)} "
        f"(the parser says {said if len(said) <= _QUOTED else said[: _QUOTED - 1] + '…'})"
    )


def _remedy(said: str, operator: str) -> str:
    low = said.lower()
    if "plugin not found" in low or "no importer" in low or "unsupported op" in low:
        return f"name the library that has {operator} with --plugins, or export the model without it"
    if "int32 but must have type" in low:
        return "quantize the model without its biases (QuantizeBias=False), or bring it in FP32 and add --int8"
    if "dimension" in low or "shape" in low:
        return "its sizes do not fit: check --batch and --shapes, or simplify the model (python -m onnxsim) first"
    return "export the model with another opset, or simplify it (python -m onnxsim) first"


def make_config(tool: Toolchain, builder: Any, network: Any, options: BuildOptions) -> Any:
    """The builder's configuration. Raises UsageError and EngineError for what this flavour or GPU does not take."""
    module, config = tool.module, builder.create_builder_config()
    flag = module.BuilderFlag.__members__
    wanted = {
        "VERSION_COMPATIBLE": options.version_compatible,
        "EXCLUDE_LEAN_RUNTIME": options.exclude_lean_runtime,
        "STRIP_PLAN": options.strip_weights,
        "REFIT": options.refit,
        "SPARSE_WEIGHTS": options.sparsity,
    }
    if tool.weak_typing and not options.strongly_typed:
        wanted |= {"FP16": options.fp16, "BF16": options.bf16, "INT8": options.int8, "FP8": options.fp8}
    for name, on in wanted.items():
        if on:
            config.set_flag(flag[name])
    if options.no_tf32:
        config.clear_flag(flag["TF32"])
    config.profiling_verbosity = module.ProfilingVerbosity.__members__[options.profiling_verbosity.upper()]
    if options.builder_optimization_level is not None:
        config.builder_optimization_level = options.builder_optimization_level
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace)
    if options.tactic_sources:
        config.set_tactic_sources(_tactics(module, config, options.tactic_sources))
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.dla is not None:
        _choose_dla(tool, builder, config, options.dla)
    if options.targets:
        config.num_compute_capabilities = len(options.targets)
        for place, name in enumerate(options.targets):
            mark = tool.journal.mark()
            if not config.set_compute_capability(module.ComputeCapability.__members__[name], place):
                raise EngineError(
                    f"{tool.flavour} does not build for {name.lower()}; TensorRT says {tool.journal.reason(mark)}"
                )
    _set_io(tool, network, options)
    _add_profiles(tool, builder, network, config, options)
    return config


def _tactics(module: Any, config: Any, names: tuple[str, ...]) -> int:
    """The bits of the tactic sources: those named, or the default with +NAME and -NAME, as trtexec does."""
    bits = int(config.get_tactic_sources()) if all(name[0] in "+-" for name in names) else 0
    for name in names:
        bit = 1 << int(module.TacticSource.__members__[name.lstrip("+-")])
        bits = bits & ~bit if name.startswith("-") else bits | bit
    return bits


def _choose_dla(tool: Toolchain, builder: Any, config: Any, core: int) -> None:
    if core >= builder.num_DLA_cores:
        raise UsageError(f"--dla {core}: this GPU has {builder.num_DLA_cores} DLA cores: leave --dla out")
    config.default_device_type = tool.module.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(tool.module.BuilderFlag.GPU_FALLBACK)  # else one layer that DLA lacks fails the build


def _set_io(tool: Toolchain, network: Any, options: BuildOptions) -> None:
    """--io fp16 where the builder chooses types; elsewhere the model was converted, its inputs and outputs too."""
    if options.io != "fp16" or not tool.weak_typing or options.strongly_typed:
        return
    kinds = tool.module.DataType
    for tensor in io_of(network):
        if tensor.dtype == kinds.FLOAT:
            tensor.dtype = kinds.HALF


def _add_profiles(tool: Toolchain, builder: Any, network: Any, config: Any, options: BuildOptions) -> None:
    for number, ranges in enumerate(options.profiles):
        profile = builder.create_optimization_profile()
        for place in range(network.num_inputs):
            tensor = network.get_input(place)
            if tensor.name not in ranges:
                continue
            mark = tool.journal.mark()
            give = profile.set_shape_input if tensor.is_shape_tensor else profile.set_shape
            try:
                give(tensor.name, *ranges[tensor.name])
            except (RuntimeError, ValueError) as error:
                said = tool.journal.reason(mark) if tool.journal.errors_since(mark) else " ".join(str(error).split())
                raise UsageError(f"profile {number} does not fit input {tensor.name}: {said}") from None
        mark = tool.journal.mark()
        if config.add_optimization_profile(profile) < 0:
            raise UsageError(f"{tool.flavour} refuses profile {number}; TensorRT says {tool.journal.reason(mark)}")


def use_timing_cache(config: Any, file: Path) -> None:
    """Use the cache in `file`, or an empty one where there is none yet. Raises UsageError for what is not a cache."""
    data = read_bytes(file, "timing cache", MOST_MODEL_BYTES, pipes=False) if file.exists() else b""
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):  # ignore_mismatch has no name in 8.6
        raise UsageError(
            f"--timing-cache {file} is not a timing cache of this TensorRT and GPU: name another file, or delete it"
        )


def keep_timing_cache(config: Any, file: Path) -> None:
    """Write what the build has learnt. Raises UsageError where it cannot be written."""
    cache = config.get_timing_cache()
    write_file(file, bytes(cache.serialize()), "timing cache")


def io_of(network: Any) -> list[Any]:
    """Inputs, then outputs."""
    inputs = [network.get_input(place) for place in range(network.num_inputs)]
    return [*inputs, *(network.get_output(place) for place in range(network.num_outputs))]


def parse_target(text: str) -> str:
    """ "SM86" of "sm86", "8.6" or "86"; "CURRENT" of "current". Whether the flavour knows it is asked later."""
    match = re.fullmatch(r"(?:sm_?)?(\d+)\.?(\d)", text.strip().lower())
    if match:
        return f"SM{match[1]}{match[2]}"
    if text.strip().lower() == "current":
        return "CURRENT"
    raise UsageError(f"--target {text} is not a compute capability: write them such as sm86,sm89")
