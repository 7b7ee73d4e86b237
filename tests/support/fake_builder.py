"""A fake TensorRT with a builder: the names of 8.6, 10 and 11, strict where the real one crashes or is silent.

Names that a version lacks are not there, enums are numbered as in that version, and failures are None or False with
the reason in the log alone. It records what a builder was told; that a plan comes out of it, nothing here proves.
"""

from __future__ import annotations

import enum
import sys
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loadtrt.cuda.runtime import DeviceProperties
from tensorrt_bench import plan_bytes

if TYPE_CHECKING:
    import pytest

VERSIONS = {"8.6": "8.6.1", "10": "10.16.1.11", "11": "11.4.0.106"}


@dataclass
class Told:
    """What the builder was told, and what it is to answer. `gpus`: 0 is a machine without."""

    gpus: int = 1
    fails: str = ""  # what building logs before it fails
    warns: list[str] = field(default_factory=list)  # what building logs before it succeeds
    parser_error: tuple[str, int] | None = None  # description, node
    dla_cores: int = 0
    preflighted: bool = False
    network_flags: set[str] = field(default_factory=set)
    flags: set[str] = field(default_factory=set)
    cleared: set[str] = field(default_factory=set)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    model: bytes = b""
    batches: list[Any] = field(default_factory=list)
    config: Any = None
    timing_cache: bytes = b""
    io_dtypes: list[str] = field(default_factory=list)
    memory: dict[int, bytes] = field(default_factory=dict)


def _numbered(title: str, names: str) -> Any:
    return enum.IntEnum(title, {name: place for place, name in enumerate(names.split())})


_FLAGS = {
    "8.6": "FP16 INT8 DEBUG GPU_FALLBACK REFIT TF32 SPARSE_WEIGHTS FP8 VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME",
    "10": "FP16 BF16 INT8 DEBUG GPU_FALLBACK TF32 REFIT SPARSE_WEIGHTS FP8 VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME "
    "STRIP_PLAN",
    "11": "DEBUG GPU_FALLBACK TF32 REFIT SPARSE_WEIGHTS VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME STRIP_PLAN",
}
_NETWORK = {"8.6": "EXPLICIT_BATCH", "10": "EXPLICIT_BATCH STRONGLY_TYPED", "11": "STRONGLY_TYPED"}
_TACTICS = {
    "8.6": "CUBLAS CUBLAS_LT CUDNN EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS",
    "10": "CUBLAS CUBLAS_LT CUDNN EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS",
    "11": "EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS",
}


def make(version: str, told: Told) -> types.ModuleType:
    """The module `tensorrt` of VERSIONS[version]."""
    module: Any = types.ModuleType("tensorrt")
    module.__version__ = VERSIONS[version]
    weak = version in ("8.6", "10")
    flags, network_flags = _numbered("BuilderFlag", _FLAGS[version]), _numbered("Network", _NETWORK[version])
    severity = _numbered("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
    dtypes = _numbered("DataType", "FLOAT HALF INT8 INT32 BOOL")

    class Tensor:
        is_shape_tensor = False

        def __init__(self, value: Any) -> None:
            self.name = value.name
            self._dtype = dtypes.FLOAT
            self.shape = tuple(
                dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim
            )

        @property
        def dtype(self) -> Any:
            return self._dtype

        @dtype.setter
        def dtype(self, wanted: Any) -> None:
            assert weak, "read-only since 11"
            self._dtype = wanted
            told.io_dtypes.append(wanted.name)

    class Network:
        inputs: list[Tensor]
        outputs: list[Tensor]

        num_inputs = property(lambda self: len(self.inputs))
        num_outputs = property(lambda self: len(self.outputs))

        def get_input(self, place: int) -> Tensor:
            return self.inputs[place]

        def get_output(self, place: int) -> Tensor:
            return self.outputs[place]

    class ParserError:
        def desc(self) -> str:
            return told.parser_error[0] if told.parser_error else ""

        def node(self) -> int:
            return told.parser_error[1] if told.parser_error else -1

    class OnnxParser:
        def __init__(self, network: Network, logger: Any) -> None:
            self.network = network

        num_errors = 1

        def get_error(self, _: int) -> ParserError:
            return ParserError()

        def parse(self, data: bytes, path: str | None = None) -> bool:
            import onnx

            told.model = data
            graph = onnx.load_model_from_string(data).graph
            weights = {tensor.name for tensor in graph.initializer}
            self.network.inputs = [Tensor(value) for value in graph.input if value.name not in weights]
            self.network.outputs = [Tensor(value) for value in graph.output]
            return told.parser_error is None

    class Profile(dict):  # type: ignore[type-arg]
        def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
            self[name] = (low, best, high)

    class IBuilderConfig:
        builder_optimization_level = 3
        max_aux_streams = -1
        profiling_verbosity: Any = None
        hardware_compatibility_level: Any = None
        default_device_type: Any = None
        DLA_core = -1

        def set_flag(self, flag: Any) -> None:
            assert isinstance(flag, flags)
            told.flags.add(flag.name)

        def clear_flag(self, flag: Any) -> None:
            told.cleared.add(flag.name)

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            self.pool = (pool.name, size)

        def get_tactic_sources(self) -> int:
            return 0b11

        def set_tactic_sources(self, bits: int) -> bool:
            self.tactics = bits
            return True

        def add_optimization_profile(self, profile: Profile) -> int:
            told.profiles.append(profile)
            return len(told.profiles) - 1

        def create_timing_cache(self, data: bytes) -> Any:
            if data and not data.startswith(b"timings"):
                return None
            return types.SimpleNamespace(serialize=lambda: b"timings" + b"+" * 3)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            assert ignore_mismatch is False
            self._cache = cache
            return True

        def get_timing_cache(self) -> Any:
            return self._cache

    config_class: Any = IBuilderConfig
    if weak:
        config_class.int8_calibrator = None
        module.IInt8EntropyCalibrator2 = type("IInt8EntropyCalibrator2", (), {})
    if version != "8.6":
        config_class.progress_monitor = None
        module.IProgressMonitor = type("IProgressMonitor", (), {})

    def calibrate(calibrator: Any) -> None:
        if calibrator.read_calibration_cache() is not None:
            return
        while (addresses := calibrator.get_batch(["x"])) is not None:
            told.batches.append([told.memory[address] for address in addresses])
        calibrator.write_calibration_cache(memoryview(b"ranges"))

    class Builder:
        def __init__(self, logger: Any) -> None:
            assert told.preflighted, "Builder() without a driver: ask cudaGetDeviceCount first"
            self.logger = logger
            self.num_DLA_cores = told.dla_cores

        def create_network(self, bits: int) -> Network:
            told.network_flags = {flag.name for flag in network_flags if bits >> flag & 1}
            assert version != "8.6" or "EXPLICIT_BATCH" in told.network_flags
            return Network()

        def create_builder_config(self) -> IBuilderConfig:
            told.config = config = IBuilderConfig()
            return config

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: Any) -> Any:
            if told.fails:
                self.logger.log(severity.ERROR, told.fails)
                return None
            for warning in told.warns:
                self.logger.log(severity.WARNING, warning)
            if "INT8" in told.flags and config.int8_calibrator is not None:
                calibrate(config.int8_calibrator)
            if version != "8.6":
                config.progress_monitor.phase_start("Building engine", None, 2)
                for step in range(2):
                    if not config.progress_monitor.step_complete("Building engine", step):
                        return None
                config.progress_monitor.phase_finish("Building engine")
            numbers = [*map(int, VERSIONS[version].split(".")), 0]
            return memoryview(plan_bytes((numbers[0], numbers[1], numbers[2], numbers[3])))

    class ILogger:
        Severity = severity

        def log(self, level: Any, message: str) -> None:
            raise NotImplementedError

    module.BuilderFlag, module.NetworkDefinitionCreationFlag, module.DataType = flags, network_flags, dtypes
    module.TacticSource = _numbered("TacticSource", _TACTICS[version])
    module.ProfilingVerbosity = _numbered("ProfilingVerbosity", "LAYER_NAMES_ONLY NONE DETAILED")
    module.MemoryPoolType = _numbered("MemoryPoolType", "WORKSPACE")
    module.HardwareCompatibilityLevel = _numbered("HardwareCompatibilityLevel", "NONE AMPERE_PLUS")
    module.DeviceType = _numbered("DeviceType", "GPU DLA")
    module.Builder, module.IBuilderConfig, module.OnnxParser, module.ILogger = (
        Builder,
        IBuilderConfig,
        OnnxParser,
        ILogger,
    )
    module.Runtime = module.ICudaEngine = module.IExecutionContext = type("Nothing", (), {})
    module.init_libnvinfer_plugins = lambda _, __: True
    module.get_plugin_registry = lambda: types.SimpleNamespace(load_library=lambda _: None)
    return module  # type: ignore[no-any-return]


def install(monkeypatch: pytest.MonkeyPatch, version: str, told: Told | None = None) -> Told:
    """The fake `tensorrt` of `version` with a fake CUDA, all other flavours absent."""
    told = told or Told()
    for flavour in ("tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx"):
        for name in (flavour, f"{flavour}_bindings"):
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "tensorrt", make(version, told))
    monkeypatch.setattr("loadtrt.engines.tensorrt_log._journals", {})

    def device_count() -> int:
        from loadtrt.errors import CudaError

        if not told.gpus:
            raise CudaError("cudaGetDeviceCount", "cudaErrorInsufficientDriver", "there is no driver")
        told.preflighted = True
        return told.gpus

    def call(function: str, *args: Any) -> Any:
        import ctypes

        match function:
            case "cudaMalloc":
                told.memory[len(told.memory) + 1] = b""
                return len(told.memory)
            case "cudaMemcpy":
                told.memory[args[0]] = ctypes.string_at(args[1], args[2])
        return None

    monkeypatch.setattr("loadtrt.engines.toolchain.device_count", device_count)
    for name in ("engines.plan_builder", "cuda.memory"):
        monkeypatch.setattr(f"loadtrt.{name}.call", call)
    monkeypatch.setattr(
        "loadtrt.engines.plan_builder.device_properties",
        lambda index: DeviceProperties(index, "Fake H100", (9, 0), 132, 80 << 30, "0"),
    )
    return told
