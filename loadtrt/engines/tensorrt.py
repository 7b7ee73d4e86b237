"""One adapter over TensorRT 8.6, 10, 11, lean, dispatch and RTX.

    plan = load_plan(config)                 # header, preflight, flavour, engine, shapes: no lane memory yet
    context = plan.context(stream)           # one execution context, profile and shapes set
    for spec in plan.tensors:
        if not spec.shape_values:            # host tensors are bound already
            context.bind(spec.name, address)
    if not context.enqueue(stream): raise EngineError(context.reason())
    plan.close()                             # contexts, engine, runtime, in that order

The hot path has no wrapper: `enqueue` is TensorRT's own execute_async_v3, which takes an int and releases the GIL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from loadtrt.cuda.runtime import call
from loadtrt.engines import facts
from loadtrt.engines.deserialize import open_plan
from loadtrt.engines.shapes import InputShape, check_values, require_known, resolve_shapes
from loadtrt.errors import EngineError, UsageError
from loadtrt.load.tensors import TensorSpec, bytes_of, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadtrt.config import RunConfig
    from loadtrt.engines.deserialize import OpenPlan
    from loadtrt.engines.facts import IoTensor
    from loadtrt.engines.flavour import Flavour
    from loadtrt.engines.plan import PlanHeader

_NON_BLOCKING = 1  # cudaStreamNonBlocking


class PlanContext:
    """One execution context of a plan, its profile and input shapes set. Not for two threads at once.

    enqueue: the raw bound execute_async_v3; False means that it failed, and `reason()` says why. It needs every tensor
    bound, and the first call after a change of shapes or profile is slow and cannot be captured. profile: its number.
    """

    enqueue: Callable[[int], bool]
    profile: int

    def __init__(self, plan: Plan, stream: int, *, probe: bool = False) -> None:
        """Made by `Plan.context`. `probe`: only asked for shapes, so kernels need not be specialised."""
        self._plan = plan
        self._mark = plan.open.journal.mark()
        self._kept: list[Any] = []  # what TensorRT uses and does not keep alive: host values, runtime configuration
        self._context = self._create(eager=not probe)
        self.profile = -1
        try:
            self._quieten()
            self.profile = self._select_profile(stream)
            plan.profiles_in_use.append(self.profile)
            self._set_inputs()
        except BaseException:
            self.close()
            raise
        self.enqueue = self._context.execute_async_v3

    def bind(self, name: str, address: int) -> None:
        """Give tensor `name` its device buffer, aligned to 256 bytes. Raises EngineError.

        Not for tensors with `shape_values`: they are bound already. Before an enqueue, and again before each capture.
        """
        mark = self._plan.open.journal.mark()
        if not self._context.set_tensor_address(name, int(address)):
            self._fail(f"cannot bind {name} to address {int(address):#x}", mark)

    def output_shape(self, name: str) -> tuple[int, ...]:
        """The output's shape; -1 stays where only the data decide."""
        return tuple(int(size) for size in self._context.get_tensor_shape(name))

    def reason(self) -> str:
        """The last error that TensorRT logged since this context was made, as one line."""
        return self._plan.open.journal.latest(self._mark)

    def capturable(self, stream: int) -> bool | None:
        """Whether an enqueue on `stream` can be captured into a CUDA graph; None: not to be told here, so try."""
        if not self._plan.flavour.capabilities.capture_query:
            return None
        return bool(self._context.is_stream_capturable(int(stream)))

    def close(self) -> None:
        """Destroy the context; nothing of it may be running. Safe to call twice."""
        if self._context is None:
            return
        self._context = None
        self.enqueue = _closed  # the bound method was a reference to the context
        self._kept.clear()
        self._plan.forget(self)

    def layers_precision(self) -> str:
        """`facts.fp16_verdict` with this context's shapes. Raises EngineError."""
        return facts.fp16_verdict(self._plan.open, self._context)

    def max_output_bytes(self, name: str) -> int:
        """TensorRT's upper bound for the output's buffer; below 1 where it knows none."""
        return int(self._context.get_max_output_size(name))

    def _create(self, *, eager: bool) -> Any:
        engine, module = self._plan.open.engine, self._plan.flavour.module
        if self._plan.flavour.capabilities.rtx_config and eager:
            config = engine.create_runtime_config()
            # The default, LAZY, runs fallback kernels first and swaps in specialised ones later, while we measure.
            config.dynamic_shapes_kernel_specialization_strategy = (
                module.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            config.cuda_graph_strategy = module.CudaGraphStrategy.DISABLED  # lanes capture graphs themselves
            self._kept.append(config)
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context()
        if context is None:
            raise EngineError(
                f"{self._plan.flavour} cannot create execution context number {len(self._plan.contexts) + 1}; it says "
                f"{self._plan.open.journal.reason(self._mark)}: use fewer --contexts or a smaller --batch if memory is short"
            )
        return context

    def _quieten(self) -> None:
        """Plans built with DETAILED verbosity annotate each enqueue for profilers, which costs time."""
        verbosity = getattr(self._plan.flavour.module, "ProfilingVerbosity", None)  # absent in lean and dispatch
        if verbosity is not None:
            self._context.nvtx_verbosity = verbosity.NONE

    def _select_profile(self, stream: int) -> int:
        """Select the profile, always explicitly and before shapes. Returns its number.

        TensorRT 8.6 wants a profile of its own for each context of a plan with open shapes, unless the plan was built
        with PROFILE_SHARING_0806: the second context then begins with profile -1 and takes the next free one that fits.
        """
        profile = self._plan.profile
        shared = self._plan.flavour.capabilities.shared_profiles
        if not shared and self._context.active_optimization_profile == -1:
            free = [number for number in self._plan.profiles if number not in self._plan.profiles_in_use]
            if not free:
                raise EngineError(
                    f"plan {self._plan.header.path} lets {len(self._plan.profiles_in_use)} context(s) run at once: with "
                    "TensorRT 8.6 each takes an optimization profile that fits these shapes for itself; use fewer "
                    "--contexts, or build it with the preview feature PROFILE_SHARING_0806, or with more profiles"
                )
            profile = free[0]
        mark = self._plan.open.journal.mark()
        try:
            done = self._context.set_optimization_profile_async(profile, int(stream))
        except RuntimeError:
            done = False
        if done is False:
            self._fail(f"cannot select optimization profile {profile}", mark)
        call("cudaStreamSynchronize", stream)  # other streams may enqueue only after the switch
        return profile

    def _set_inputs(self) -> None:
        """Shapes of open inputs, addresses of host tensors, and the check that nothing is missing."""
        import numpy as np

        mark = self._plan.open.journal.mark()
        dims = self._plan.flavour.module.Dims
        for name, shape in self._plan.open_shapes.items():
            if not self._context.set_input_shape(name, dims(shape)):  # Dims: the tuple overload cuts sizes to int32
                self._fail(f"cannot set the shape of {name} to {'x'.join(map(str, shape))}", mark)
        for name, (dtype, values) in self._plan.host_values.items():
            array = np.array(values, dtype=numpy_dtype(dtype))
            self._kept.append(array)  # read at every enqueue
            if not self._context.set_tensor_address(name, array.ctypes.data):
                self._fail(f"cannot set the values of {name}", mark)
        try:
            missing = list(self._context.infer_shapes())
        except RuntimeError:
            missing = ["their combination"]
        if missing:
            self._fail(f"cannot infer shapes from {', '.join(map(str, missing))}", mark)
        for tensor in self._plan.host_outputs:
            room = np.zeros(max(8, bytes_of(tensor.dtype, self.output_shape(tensor.name))), np.uint8)
            self._kept.append(room)
            if not self._context.set_tensor_address(tensor.name, room.ctypes.data):
                self._fail(f"cannot bind {tensor.name} in host memory", mark)

    def _fail(self, what: str, mark: int) -> NoReturn:
        journal = self._plan.open.journal
        raise EngineError(f"{self._plan.flavour} {what} for {self._plan.header.path}; it says {journal.reason(mark)}")


class Plan:
    """A deserialized plan with its shapes decided. Nothing of it changes after `load_plan` but its list of contexts.

    tensors: shapes without -1, but for outputs that only the data decide; their nbytes is TensorRT's upper bound.
    weights_bytes, context_bytes: device memory of the engine and of one context (None: not known). batch: inferences in
    a request. precision: the verdict on --fp16 in words, "" where it was not asked. notes: what the user should read.
    """

    def __init__(self, opened: OpenPlan, config: RunConfig) -> None:
        """Made by `load_plan`."""
        self.open = opened
        self.contexts: list[PlanContext] = []
        self.profiles_in_use: list[int] = []
        self.profile = config.profile
        tensors = facts.io_tensors(opened)
        inputs = [tensor for tensor in tensors if tensor.is_input]
        count = facts.profile_count(opened)
        if config.profile >= count:
            raise UsageError(
                f"--profile {config.profile} is not in plan {self.header.path}: it has "
                + (f"profiles 0 to {count - 1}" if count > 1 else "profile 0 alone")
            )
        resolved = resolve_shapes(
            [_input_shape(tensor, config.profile) for tensor in inputs],
            batch=config.batch,
            shapes=config.shapes,
            profile=config.profile,
        )
        self.batch = resolved.batch
        self.open_shapes = {tensor.name: resolved.shapes[tensor.name] for tensor in inputs if -1 in tensor.shape}
        self.host_values = _host_values(inputs, resolved.shapes, config.shape_values, config.profile)
        self.host_outputs = [tensor for tensor in tensors if tensor.host and not tensor.is_input]
        # The profiles that these shapes fit, the wanted one first: 8.6 may have to give each context another.
        fitting = [number for number in range(count) if _fits(inputs, self.open_shapes, number)]
        self.profiles = sorted(fitting, key=lambda number: (number != config.profile, number))
        self.weights_bytes = facts.weights_bytes(opened)
        self.context_bytes = facts.context_bytes(opened)
        self.precision = ""
        self.tensors = self._probe(tensors, resolved.shapes, ask_fp16=config.fp16)
        unknown = "the scratch memory of a context is not known for this plan here, so the memory bill leaves it out"
        self.notes = (unknown,) if self.context_bytes is None else ()

    @property
    def flavour(self) -> Flavour:
        """The TensorRT module that runs it."""
        return self.open.flavour

    @property
    def header(self) -> PlanHeader:
        """What the file's first bytes say."""
        return self.open.header

    def context(self, stream: int) -> PlanContext:
        """A new execution context; `stream` is used, and waited for, to select the profile. Raises EngineError."""
        context = PlanContext(self, int(stream))
        self.contexts.append(context)
        return context

    def forget(self, context: PlanContext) -> None:
        """A context tells that it is closed."""
        if context.profile in self.profiles_in_use:
            self.profiles_in_use.remove(context.profile)
        if context in self.contexts:
            self.contexts.remove(context)

    def close(self) -> None:
        """Close the contexts, then the engine, then the runtime. Safe to call twice."""
        for context in reversed(self.contexts.copy()):
            context.close()
        self.open.close()

    def _probe(
        self, tensors: Sequence[IoTensor], shapes: Mapping[str, tuple[int, ...]], *, ask_fp16: bool
    ) -> tuple[TensorSpec, ...]:
        """Ask a context, which goes again, for what only a context knows: outputs' shapes, types with shapes decided."""
        stream = call("cudaStreamCreateWithFlags", _NON_BLOCKING)
        try:
            probe = PlanContext(self, int(stream), probe=True)
            try:
                if ask_fp16:
                    self.precision = probe.layers_precision()
                return tuple(self._spec(tensor, shapes.get(tensor.name), probe) for tensor in tensors)
            finally:
                probe.close()
        finally:
            call("cudaStreamDestroy", stream)

    def _spec(self, tensor: IoTensor, shape: tuple[int, ...] | None, probe: PlanContext) -> TensorSpec:
        shape = probe.output_shape(tensor.name) if shape is None else shape
        if -1 not in shape:
            nbytes = facts.buffer_bytes(self.open, tensor, shape, probe.profile)
        else:
            nbytes = probe.max_output_bytes(tensor.name)
            if nbytes <= 0:
                raise EngineError(
                    f"output {tensor.name} of plan {self.header.path} has a size that only its data decide, and TensorRT "
                    "knows no upper bound, so no buffer can be made for it: build the plan without this output"
                )
        return TensorSpec(tensor.name, tensor.is_input, tensor.dtype, shape, nbytes, shape_values=tensor.host)


def load_plan(config: RunConfig) -> Plan:
    """The plan `config.engine` on GPU `config.device`, its shapes decided by batch, shapes, shape_values and profile.

    Makes `config.device` the calling thread's device; other threads must do so for themselves. Leaves nothing behind on
    failure. Raises UsageError (file, options) and EngineError (CUDA, TensorRT).
    """
    opened = open_plan(
        config.engine,
        module=config.module,
        plugins=config.plugins,
        allow_host_code=config.allow_host_code,
        device=config.device,
    )
    try:
        return Plan(opened, config)
    except BaseException:
        opened.close()
        raise


def _input_shape(tensor: IoTensor, profile: int) -> InputShape:
    least, best, most = tensor.ranges[profile] if tensor.ranges else ((), (), ())
    known = len(least) == len(tensor.shape) and bool(least)
    return InputShape(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        least=least if known else None,
        best=best if known else None,
        most=most if known else None,
        batched=not tensor.host,
    )


def _host_values(
    inputs: Sequence[IoTensor],
    shapes: Mapping[str, tuple[int, ...]],
    given: Mapping[str, tuple[int, ...]],
    profile: int,
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and values of every input that carries a shape; the values in the order of --shape-values."""
    import math

    host = [tensor for tensor in inputs if tensor.host]
    require_known("--shape-values", given, [tensor.name for tensor in host])
    return {
        tensor.name: (
            tensor.dtype,
            check_values(tensor.name, given.get(tensor.name), math.prod(shapes[tensor.name]), *tensor.values[profile]),
        )
        for tensor in host
    }


def _fits(inputs: Sequence[IoTensor], shapes: Mapping[str, tuple[int, ...]], profile: int) -> bool:
    """Whether every open input's decided shape lies in this profile."""
    for tensor in inputs:
        if tensor.name in shapes and tensor.ranges:
            least, _, most = tensor.ranges[profile]
            if not all(low <= size <= high for low, size, high in zip(least, shapes[tensor.name], most, strict=False)):
                return False
    return True


def _closed(_: int) -> bool:
    raise EngineError("this execution context is closed: a lane used it after its end, which is a fault in loadtrt")
