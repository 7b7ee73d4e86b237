"""A TensorRT execution context with its profile and shapes, which a lane drives.

The hot path has no wrapper: `enqueue` is TensorRT's execute_async_v3, which takes an int and releases the GIL. Creating
a context holds the GIL in TensorRT 8.6 and releases it from 10 on; destroying one holds it in all versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from loadtrt.cuda.runtime import call, closed_on_failure
from loadtrt.engines import plan_facts
from loadtrt.errors import EngineError
from loadtrt.load.tensors import bytes_of, numpy_dtype
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.engines.tensorrt import Plan, PlanPart


class PlanContext:
    """An execution context of a plan, with profile and input shapes set. Not for two threads at once.

    enqueue: the bound execute_async_v3. Every tensor must be bound before. False where it failed; `reason()` says why.
        The first call after a change of shapes or profile is slow and cannot be captured.
    """

    enqueue: Callable[[int], bool]
    profile: int

    def __init__(self, plan: Plan, part: PlanPart, stream: int, *, probe: bool = False, profiled: bool = False) -> None:
        """Called by `Plan.context`.

        part: whose shapes the context has.
        probe: the context is only asked for shapes, so that kernels need not be specialised.
        profiled: a profiler will be attached, which needs the plan's annotations.
        """
        self._plan = plan
        self._part = part
        self._mark = plan.open.journal.mark()
        self._profiler: Any = None
        self._kept: list[Any] = []  # used by TensorRT, which keeps no reference: host values, runtime configuration
        self.profile = -1
        with plan.open.journal.calls_of(plan.open.owner):
            self._context = self._create(eager=not probe)
            with closed_on_failure(self):
                if not probe and not profiled:
                    self._quieten()
                self.profile = self._select_profile(stream)
                plan.profiles_in_use.append(self.profile)
                self._set_inputs()
        self.enqueue = self._context.execute_async_v3

    def bind(self, name: str, address: int) -> None:
        """Set the device address of tensor `name`, aligned to 256 bytes. Raises EngineError.

        Called before the first enqueue, and before each capture. Tensors with `shape_values` are bound already.
        """
        mark = self._plan.open.journal.mark()
        if not self._context.set_tensor_address(name, int(address)):
            self._fail(f"cannot bind {name} to address {int(address):#x}", mark)

    def output_shape(self, name: str) -> tuple[int, ...]:
        """The output's shape; -1 where the data decide on the size."""
        return tuple(int(size) for size in self._context.get_tensor_shape(name))

    def reason(self) -> str:
        """The last error that TensorRT logged since this context was created, as one line."""
        return self._plan.open.journal.latest(self._mark)

    def capturable(self, stream: int) -> bool | None:
        """Whether an enqueue on `stream` can be captured into a CUDA graph; None where only an attempt shows it."""
        if not self._plan.flavour.capabilities.capture_query:
            return None
        return bool(self._context.is_stream_capturable(int(stream)))

    @property
    def auxiliary_streams(self) -> int:
        """Number of streams beside that of the enqueue on which the plan computes."""
        return int(getattr(self._plan.open.engine, "num_aux_streams", 0))

    @property
    def takes_streams(self) -> bool:
        """Whether this TensorRT computes on other streams than it makes itself."""
        return hasattr(self._context, "set_aux_streams")

    def compute_on(self, streams: list[int]) -> None:
        """Use these auxiliary streams, which must outlive the context, instead of TensorRT's own."""
        self._context.set_aux_streams(streams)

    def close(self) -> None:
        """Destroy the context, which must be idle. Safe to call twice."""
        if self._context is None:
            return
        self._context = None
        self.enqueue = _closed  # the bound method was a reference to the context
        self._kept.clear()
        self._plan.forget(self)

    def attach_profiler(self) -> None:
        """Time all further inferences layer by layer. Graphs must be captured after this call."""
        self._context.enqueue_emits_profile = False  # the default makes an enqueue wait for its inference
        self._profiler = make_profiler(self._plan.flavour.module)
        self._context.profiler = self._profiler

    def layer_times(self) -> list[tuple[str, float]]:
        """Names and milliseconds of the layers of the last inference, in order; empty where TensorRT reports none. The
        stream must have been synchronized. Holds the GIL."""
        self._profiler.times = []
        self._context.report_to_profiler()
        times: list[tuple[str, float]] = self._profiler.times
        return times

    def layer_info(self) -> str | None:
        """`plan_facts.layer_info` with this context's shapes."""
        return plan_facts.layer_info(self._plan.open, self._context)

    def layers_precision(self, *, demand: bool) -> str:
        """`plan_facts.fp16_verdict` with this context's shapes. Raises EngineError."""
        return plan_facts.fp16_verdict(self._plan.open, self._context, demand=demand)

    def max_output_bytes(self, name: str) -> int:
        """TensorRT's upper bound for the output's buffer; below 1 where it has none."""
        return int(self._context.get_max_output_size(name))

    def _create(self, *, eager: bool) -> Any:
        engine, module = self._plan.open.engine, self._plan.flavour.module
        if self._plan.flavour.capabilities.rtx_config and eager:
            config = engine.create_runtime_config()
            # The default, LAZY, runs fallback kernels first and replaces them by specialised ones during the run.
            config.dynamic_shapes_kernel_specialization_strategy = (
                module.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            config.cuda_graph_strategy = module.CudaGraphStrategy.DISABLED  # the lane captures graphs
            self._kept.append(config)
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context()
        if context is None:
            number, reason = len(self._plan.contexts) + 1, self._plan.open.journal.reason(self._mark)
            raise EngineError(
                f"{self._plan.flavour} cannot create execution context number {number} (TensorRT says {reason}): "
                "if memory is short, use fewer --contexts or a smaller --batch"
            )
        return context

    def _quieten(self) -> None:
        """Switch annotations off: plans built with DETAILED verbosity annotate each enqueue, which costs time."""
        verbosity = getattr(self._plan.flavour.module, "ProfilingVerbosity", None)  # absent in lean and dispatch
        if verbosity is not None:
            self._context.nvtx_verbosity = verbosity.NONE

    def _select_profile(self, stream: int) -> int:
        """Select the profile, always explicitly and before shapes. Returns its number.

        TensorRT 8.6 needs a separate profile for each context of a plan with open shapes, unless the plan was built
        with PROFILE_SHARING_0806. So the next free profile that fits the shapes replaces one that is taken.
        """
        plan = self._plan
        mark = plan.open.journal.mark()
        others = [number for number in self._part.profiles if number not in (plan.profile, *plan.profiles_in_use)]
        for profile in [plan.profile, *(others if plan.profiles_in_use else [])]:
            with plan.open.journal.expecting_errors():  # of a plan of fixed shapes, and of a profile that is taken
                try:
                    done = self._context.set_optimization_profile_async(profile, stream) is not False
                except RuntimeError:
                    done = False
            # A plan of fixed shapes needs no selection, and neither does a profile that is selected already.
            if done or not self._part.dynamic or self._context.active_optimization_profile == profile:
                call("cudaStreamSynchronize", stream)  # other streams may enqueue only after it
                return profile
        running = len(plan.profiles_in_use)
        if not running:
            self._fail(f"cannot select optimization profile {plan.profile}", mark)
        raise EngineError(
            f"plan {plan.header.path} runs no more than {plural(running, 'context')} at once, since "
            "each takes an optimization profile that fits these shapes for itself: use fewer --contexts, or build it "
            "with PROFILE_SHARING_0806, with more profiles, or with TensorRT 10 "
            f"({plan.flavour} says {plan.open.journal.reason(mark)})"
        )

    def _set_inputs(self) -> None:
        """Set the shapes of open inputs and the addresses of host tensors, and check that nothing is missing."""
        import numpy as np

        mark = self._plan.open.journal.mark()
        dims = self._plan.flavour.module.Dims
        for name, shape in self._part.open_shapes.items():
            if not self._context.set_input_shape(name, dims(shape)):  # Dims: the tuple overload cuts sizes to int32
                self._fail(f"cannot set the shape of {name} to {'x'.join(map(str, shape))}", mark)
        for name, (dtype, values) in self._part.host_values.items():
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
        raise EngineError(
            f"{self._plan.flavour} {what} for {self._plan.header.path}; TensorRT says {journal.reason(mark)}"
        )


def make_profiler(module: Any) -> Any:
    """An IProfiler of this TensorRT module, which keeps layer times in `times`."""

    class Profiler(module.IProfiler):  # type: ignore[misc]  # a class only known at run time
        def __init__(self) -> None:
            module.IProfiler.__init__(self)  # pybind11 needs this call instead of super()
            self.times: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.append((layer_name, ms))

    return Profiler()


def _closed(_: int) -> bool:
    raise EngineError("the execution context is closed, and a lane used it: this is a bug in loadtrt")
