"""From options to TensorRT's network and builder configuration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from loadtrt.errors import EngineError, UsageError
from loadtrt.files import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.engines.build_model import Source
    from loadtrt.engines.build_options import BuildOptions
    from loadtrt.engines.toolchain import Toolchain

_QUOTED = 300  # characters of what the parser says


def make_network(tool: Toolchain, builder: Any, options: BuildOptions) -> Any:
    """An empty network with explicit batch, strongly typed where that is asked or the only way."""
    flags = 0
    known = getattr(tool.module, "NetworkDefinitionCreationFlag", None)
    members = getattr(known, "__members__", {})
    if "EXPLICIT_BATCH" in members:  # 8.6 must be told; 10 ignores it; 11 and RTX have no other
        flags |= 1 << int(members["EXPLICIT_BATCH"])
    if "STRONGLY_TYPED" in members and (options.strongly_typed or not tool.weak_typing):
        flags |= 1 << int(members["STRONGLY_TYPED"])
    return builder.create_network(flags)


def parse_onnx(tool: Toolchain, network: Any, source: Source) -> None:
    """Read the model into `network`. Raises EngineError with node, operator and remedy where TensorRT refuses it."""
    mark = tool.journal.mark()
    parser = tool.module.OnnxParser(network, tool.journal.logger)
    # The path tells where external data lies.
    path = (str(source.file.resolve()),) if source.file else ()
    if parser.parse(source.model.SerializeToString(), *path):
        return
    if not parser.num_errors:
        raise EngineError(f"{tool.flavour} cannot read {source.name}; it says {tool.journal.reason(mark)}")
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
    raise EngineError(
        f"{tool.flavour} cannot build {source.name}: {where} is refused: {_remedy(said, operator)} "
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
                    f"{tool.flavour} does not build for {name.lower()}; it says {tool.journal.reason(mark)}"
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
            raise UsageError(f"{tool.flavour} refuses profile {number}; it says {tool.journal.reason(mark)}")


def use_timing_cache(config: Any, file: Path) -> None:
    """Take what `file` holds, or an empty cache where it is not there yet. Raises UsageError for what is no cache."""
    try:
        data = file.read_bytes() if file.exists() else b""
    except OSError as error:
        raise UsageError(f"cannot read timing cache {file}: {error.strerror}") from None
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):  # ignore_mismatch has no name in 8.6
        raise UsageError(
            f"--timing-cache {file} is no timing cache of this TensorRT and GPU: name another file, or delete it"
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
    found = re.fullmatch(r"(?:sm_?)?(\d+)\.?(\d)", text.strip().lower())
    if found:
        return f"SM{found[1]}{found[2]}"
    if text.strip().lower() == "current":
        return "CURRENT"
    raise UsageError(f"--target {text} is no compute capability: write them such as sm86,sm89")
