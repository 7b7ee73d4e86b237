"""A fake TensorRT: pure Python, strict where the real one crashes or stays silent, odd where the real one is odd.

Names that a version lacks are not there, calls out of order fail, handles must be ints, and failures are None or False
with the reason in the log alone. The names were taken from the real bindings; that an engine runs, nothing here proves.
"""

from __future__ import annotations

import enum
import json
import types
from dataclasses import dataclass, field
from typing import Any, Literal

Shape = tuple[int, ...]


@dataclass
class Tensor:
    """An input or output of a fake engine. vector: (dimension, components, bytes of a component), None for linear."""

    name: str
    shape: Shape
    is_input: bool = True
    dtype: str = "FLOAT"
    host: bool = False
    ranges: list[tuple[Shape, Shape, Shape]] = field(default_factory=list)
    values: list[tuple[Shape, Shape, Shape]] = field(default_factory=list)
    vector: tuple[int, int, int] | None = None
    data_decides: bool = False
    bound: int = -1


# Those of TensorRT-RTX 1.7.
RtxTargets = enum.Enum("RtxTargets", "NONE CURRENT SM75 SM80 SM86 SM89 SM120 SM121")


def batch_in_out(least: int = 1, best: int = 16, most: int = 32, profiles: int = 1) -> list[Tensor]:
    """GoogLeNet's: data [N,3,224,224] -> prob [N,1000]."""
    image: Shape = (3, 224, 224)
    ranges: list[tuple[Shape, Shape, Shape]] = [((least, *image), (best, *image), (most, *image))] * profiles
    return [Tensor("data", (-1, *image), ranges=ranges), Tensor("prob", (-1, 1000), is_input=False)]


@dataclass
class World:
    """What the fake engine is, and what happened to it. `events`: contexts, engine and runtime, as they were freed."""

    tensors: list[Tensor] = field(default_factory=batch_in_out)
    profiles: int = 1
    sharing: bool = False  # 8.6: built with PROFILE_SHARING_0806
    refuses: str = ""  # what deserializing logs before it fails
    warns: list[str] = field(default_factory=list)  # what deserializing logs before it succeeds
    warns_at_context: str = ""  # what making a context logs
    layers: object = None  # the inspector's JSON
    gpus: int = 1
    times: list[tuple[str, float]] = field(default_factory=list)  # what the profiler reports, ms
    inner_86: bool = False  # an 8.6 plan in a newer runtime: new questions are answered with 0 and an error
    lean_loads: bool = True  # lean runtimes of --lean-library
    contexts_possible: int = 99
    implicit_batch: bool = False
    infer_missing: list[str] = field(default_factory=list)
    aux_streams: int = 0
    takes_streams: bool = True
    alive: set[int] | None = None  # the streams that exist: those of a context must outlive it; None: not looked at
    preflighted: bool = False
    events: list[str] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    computed_on: list[list[int]] = field(default_factory=list)  # the streams of each enqueue: its own, then auxiliary


def make(version: str, name: str, world: World) -> types.ModuleType:
    """The module. Which names it has follows the tables of facts: 8.6, 10, 11, lean, dispatch, RTX."""
    major = int(version.split(".", maxsplit=1)[0])
    rtx, bare = name == "tensorrt_rtx", name.startswith(("tensorrt_lean", "tensorrt_dispatch"))
    old = major == 8
    module: Any = types.ModuleType(name)
    module.__version__ = version

    def enumeration(title: str, *names: str) -> Any:
        return enum.Enum(title, list(names))

    types_old = ("FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "FP8")
    data_type = enumeration("DataType", *types_old, *(() if old else ("BF16", "INT64", "INT4", "FP4", "NEWTYPE")))
    mode, location = enumeration("TensorIOMode", "INPUT", "OUTPUT"), enumeration("TensorLocation", "DEVICE", "HOST")
    verbosity = enumeration("ProfilingVerbosity", "LAYER_NAMES_ONLY", "NONE", "DETAILED")
    severity = enumeration("Severity", "INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")

    class Dims(tuple):  # type: ignore[type-arg]
        __slots__ = ()

    class IProfiler:
        pass

    class ILogger:
        Severity = severity

        def log(self, level: Any, message: str) -> None:
            raise NotImplementedError

    def by_name(tensor_name: str) -> Tensor:
        return next(tensor for tensor in world.tensors if tensor.name == tensor_name)

    def vector_of(tensor_name: str) -> tuple[int, int, int]:
        """Seen: 8.6.1 dies here on tensors of a version-compatible plan, so nobody may ask about a linear one."""
        vector = by_name(tensor_name).vector
        assert vector, f"{tensor_name} is linear: real TensorRT 8.6 would crash"
        return vector

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            assert world.preflighted, "Runtime() without a driver ends the process: ask cudaGetDeviceCount first"
            assert isinstance(logger, ILogger)
            self.logger = logger
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, buffer: Any) -> Any:
            assert bytes(memoryview(buffer)[:4]) in (b"ftrt", b"vtrt")
            if world.refuses:
                self.logger.log(severity.ERROR, world.refuses)
                self.logger.log(severity.ERROR, "Error Code 2: Internal Error (Engine deserialization failed.)")
                return None
            if bytes(memoryview(buffer)[32:36]) == b"NAEL" and not self.engine_host_code_allowed:
                self.logger.log(severity.ERROR, "engineHostCodeAllowed is false")
                return None
            for warning in world.warns:
                self.logger.log(severity.WARNING, warning)
            return ICudaEngine(self)

        def load_runtime(self, path: str) -> Runtime | None:
            world.calls.append(f"load_runtime {path}")
            if not world.lean_loads:
                self.logger.log(severity.ERROR, "Runtime load failed: could not create lean runtime")
                return None
            return Runtime(self.logger)

        def __del__(self) -> None:
            world.events.append("runtime")

    if rtx:
        Runtime.get_engine_validity = lambda _, __: ("INVALID", 2)  # type: ignore[attr-defined]

    class ICudaEngine:
        num_aux_streams = world.aux_streams
        num_layers = 3
        name = "fake"
        refittable = False
        hardware_compatibility_level = enumeration("Level", "NONE").NONE
        profiling_verbosity = verbosity.DETAILED

        def __init__(self, runtime: Runtime) -> None:
            self._runtime = runtime  # the real binding keeps it alive too
            self._taken: list[int] = []
            self._live = 0

        num_io_tensors = property(lambda _: len(world.tensors))
        num_optimization_profiles = property(lambda _: world.profiles)

        def get_tensor_name(self, place: int) -> str:
            return world.tensors[place].name

        def get_tensor_mode(self, tensor: str) -> Any:
            return mode.INPUT if by_name(tensor).is_input else mode.OUTPUT

        def get_tensor_dtype(self, tensor: str) -> Any:
            return data_type[by_name(tensor).dtype]

        def get_tensor_shape(self, tensor: str) -> Dims:
            return Dims(by_name(tensor).shape)

        def get_tensor_location(self, tensor: str) -> Any:
            return location.HOST if by_name(tensor).host else location.DEVICE

        def get_tensor_format_desc(self, tensor: str) -> str:
            dtype, vector = by_name(tensor).dtype, by_name(tensor).vector
            return f"Vectorized {dtype} (k{vector[1]})" if vector else f"Row major linear {dtype} format (kLINEAR)"

        def get_tensor_vectorized_dim(self, tensor: str, profile: int) -> int:
            return vector_of(tensor)[0]

        def get_tensor_components_per_element(self, tensor: str, profile: int) -> int:
            return vector_of(tensor)[1]

        def get_tensor_bytes_per_component(self, tensor: str, profile: int) -> int:
            return vector_of(tensor)[2]

        def get_tensor_profile_shape(self, tensor: str, profile: int) -> list[Dims]:
            return [Dims(shape) for shape in by_name(tensor).ranges[profile]]

        def create_execution_context(self, config: Any = None) -> Any:
            return self._create(config)

        def _create(self, config: Any = None) -> Any:
            assert config is None or rtx, "only RTX takes a runtime configuration worth having"
            if self._live >= world.contexts_possible:
                self._runtime.logger.log(severity.ERROR, "Error Code 2: OutOfMemory (requested 80 GiB)")
                return None
            if world.warns_at_context:
                self._runtime.logger.log(severity.WARNING, world.warns_at_context)
            return IExecutionContext(self, config)

        def create_engine_inspector(self) -> Any:
            if bare:
                raise TypeError("Unregistered type : nvinfer1::IEngineInspector")
            return module.EngineInspector()

        def __del__(self) -> None:
            assert self._live == 0, "an engine was freed before its contexts"
            world.events.append("engine")

    def new_question(answer: int) -> Any:
        def ask(engine: ICudaEngine, *_: Any) -> int:
            if world.inner_86:
                engine._runtime.logger.log(severity.ERROR, "API not supported by the runtime inside the plan")
                return 0
            return answer

        return ask

    engine_class: Any = ICudaEngine
    if old:
        engine_class.create_execution_context = lambda engine: engine._create()
        engine_class.num_bindings = property(lambda _: len(world.tensors))
        engine_class.has_implicit_batch_dimension = property(lambda _: world.implicit_batch)
        # Its bug: only the first value of each.
        engine_class.get_profile_shape_input = lambda _, profile, tensor: [
            list(part[:1]) for part in by_name(tensor).values[profile]
        ]
    else:
        engine_class.device_memory_size_v2 = property(new_question(4096))
        engine_class.get_engine_stat = new_question(12345)
        module.EngineStat = enumeration("EngineStat", "TOTAL_WEIGHTS_SIZE")

        def profile_values(_: Any, profile: int, tensor: str) -> list[list[int]]:
            assert isinstance(profile, int)
            return [list(part) for part in by_name(tensor).values[profile]]

        engine_class.get_tensor_profile_values = profile_values
        module.ExecutionContextAllocationStrategy = enumeration("Strategy", "STATIC")
    if major in (8, 10):
        engine_class.device_memory_size = property(lambda _: 2048)

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine, config: Any) -> None:
            self.engine, self._config = engine, config
            self._shapes: dict[str, Shape] = {
                t.name: t.shape for t in world.tensors if t.is_input and -1 not in t.shape
            }
            self._addresses: dict[str, int] = {}
            self._streams: list[int] = []
            first = (old and engine._live == 0) or world.sharing
            self.active_optimization_profile = 0 if first else -1
            self._selected = False
            engine._live += 1

        def _error(self, text: str) -> Literal[False]:
            self.engine._runtime.logger.log(severity.ERROR, text)
            return False

        def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
            assert type(profile) is int
            assert type(stream) is int
            if old and not world.sharing and profile in self.engine._taken:
                self._error(f"Profile {profile} has been chosen by another IExecutionContext.")
                raise RuntimeError("setOptimizationProfileAsync failed")
            self.engine._taken.append(profile)
            self.active_optimization_profile, self._selected = profile, True
            return True

        def set_input_shape(self, tensor: str, shape: Dims) -> bool:
            assert self._selected, "shapes before the profile"
            assert type(shape) is Dims
            least, _, most = by_name(tensor).ranges[self.active_optimization_profile]
            if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
                return self._error("the shape does not satisfy the profile")
            self._shapes[tensor] = tuple(shape)
            return True

        def infer_shapes(self) -> list[str]:
            host = [t.name for t in world.tensors if t.is_input and t.host and t.name not in self._addresses]
            undecided = [t.name for t in world.tensors if t.is_input and t.name not in self._shapes]
            return [*undecided, *host, *world.infer_missing]

        def get_tensor_shape(self, tensor: str) -> Dims:
            found = by_name(tensor)
            if found.is_input:
                return Dims(self._shapes.get(tensor, found.shape))
            if found.data_decides or -1 not in found.shape:
                return Dims(found.shape)
            batch = next(iter(self._shapes.values()))[0]
            return Dims(batch if size == -1 else size for size in found.shape)

        def get_max_output_size(self, tensor: str) -> int:
            return by_name(tensor).bound

        def set_tensor_address(self, tensor: str, address: int) -> bool:
            assert type(address) is int
            if address == 0 or (address % 256 and not by_name(tensor).host):
                return self._error(f"the address of {tensor} is not aligned")
            self._addresses[tensor] = address
            return True

        def set_aux_streams(self, streams: list[int]) -> None:
            assert {type(stream) for stream in streams} == {int}
            self._streams = streams

        profiler: Any = None
        enqueue_emits_profile = True

        def report_to_profiler(self) -> bool:
            assert not self.enqueue_emits_profile
            for layer, milliseconds in world.times:
                self.profiler.report_layer_time(layer, milliseconds)
            return bool(world.times)

        def execute_async_v3(self, stream: int) -> bool:
            world.calls.append("enqueue")
            world.computed_on.append([stream, *self._streams])
            if type(stream) is not int:
                raise TypeError("incompatible function arguments")
            missing = [tensor.name for tensor in world.tensors if tensor.name not in self._addresses]
            if missing or self.infer_shapes():
                return self._error(f"Address is not set for {', '.join(missing)}.")
            return True

        def __del__(self) -> None:
            gone = set() if world.alive is None else set(self._streams) - world.alive
            assert not gone, "auxiliary streams were destroyed before their context"
            self.engine._live -= 1
            if self.active_optimization_profile in self.engine._taken:
                self.engine._taken.remove(self.active_optimization_profile)
            world.events.append("context")

    if not world.takes_streams:
        del IExecutionContext.set_aux_streams
    if rtx:
        module.DynamicShapesKernelSpecializationStrategy = enumeration("Specialization", "LAZY", "EAGER", "NONE")
        module.CudaGraphStrategy = enumeration("CudaGraphStrategy", "DISABLED", "WHOLE_GRAPH_CAPTURE")
        module.ComputeCapability = RtxTargets
        engine_class.create_runtime_config = lambda _: types.SimpleNamespace()
        IExecutionContext.is_stream_capturable = lambda _, stream: type(stream) is int  # type: ignore[attr-defined]
    if not bare:
        module.ProfilingVerbosity = verbosity
        module.LayerInformationFormat = enumeration("LayerInformationFormat", "ONELINE", "JSON")
        module.EngineInspector = type(
            "EngineInspector",
            (),
            {"get_engine_information": lambda _, __: json.dumps(world.layers or {"Layers": []})},
        )
        module.init_libnvinfer_plugins = lambda _, __: True
        module.Builder = type("Builder", (), {})
    module.get_plugin_registry = lambda: types.SimpleNamespace(load_library=lambda _: None)
    module.Dims, module.ILogger, module.IProfiler, module.Runtime = Dims, ILogger, IProfiler, Runtime
    module.ICudaEngine, module.IExecutionContext, module.DataType = ICudaEngine, IExecutionContext, data_type
    return module  # type: ignore[no-any-return]
