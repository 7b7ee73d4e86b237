"""One adapter over TensorRT 8.6, 10, 11, lean, dispatch and RTX. What drives a plan does this:

    plan = load_plan(config)  # header, preflight, flavour, engine, shapes: no lane memory yet
    context = plan.context(stream)  # one execution context, profile and shapes set
    for spec in plan.tensors:
        if not spec.shape_values:  # host tensors are bound already
            context.bind(spec.name, address)
    if not context.enqueue(stream):
        raise EngineError(context.reason())
    plan.close()  # contexts, engine, runtime, in that order

Let go of `context.enqueue` before closing: the bound method keeps its context alive.
"""

from __future__ import annotations

import math
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loadtrt.cuda.stream import Stream
from loadtrt.engines import plan_facts
from loadtrt.engines.batch_size import ONE, BatchSize, batch_size
from loadtrt.engines.context import PlanContext
from loadtrt.engines.deserialize import open_plan
from loadtrt.engines.shapes import InputShape, check_values, require_known, resolve_shapes, takes_larger
from loadtrt.errors import EngineError, UsageError
from loadtrt.load.tensors import TensorSpec, largest_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from loadtrt.asked.model import Model
    from loadtrt.engines.deserialize import OpenPlan
    from loadtrt.engines.flavour import Flavour
    from loadtrt.engines.plan import PlanHeader
    from loadtrt.engines.plan_cache import CachedPlan
    from loadtrt.engines.plan_facts import IoTensor
    from loadtrt.engines.shapes import Sizes

__all__ = ["Plan", "PlanContext", "load_plan"]


@dataclass(slots=True)
class PlanPart:
    """How a plan serves requests of one kind.

    open_shapes: shapes of the inputs that the plan leaves open.
    host_values: type and values of inputs that carry shapes.
    profiles: numbers of the profiles that these shapes fit, the wanted one first.
    larger_batch: whether --batch may be larger.
    tensors: shapes without -1, except for outputs that only the data decide; their nbytes is TensorRT's upper bound.
    """

    open_shapes: dict[str, tuple[int, ...]]
    host_values: dict[str, tuple[str, tuple[int, ...]]]
    profiles: list[int]
    tensors: tuple[TensorSpec, ...] = ()
    counted: BatchSize = ONE
    larger_batch: bool = False

    @property
    def batch(self) -> int:
        """Inferences of a request."""
        return self.counted.size

    @property
    def dynamic(self) -> bool:
        """Whether the plan leaves sizes or values open."""
        return bool(self.open_shapes or self.host_values)


class Plan:
    """A deserialized plan with its shapes decided. Nothing of it changes after `load_plan` but its list of contexts.

    parts: one for each kind of request.
    tensors, counted, larger_batch: those of the largest part.
    weights_bytes, context_bytes: device memory of the engine and of one context; None where it is not known.
    precision: the verdict on --fp16 in words; "" without --fp16.
    """

    def __init__(self, opened: OpenPlan, sizes: Sequence[Sizes], *, ask_fp16: bool, demand_fp16: bool) -> None:
        """Made by `load_plan`."""
        self.open = opened
        self.contexts: list[PlanContext] = []
        self.profiles_in_use: list[int] = []
        self.profile = sizes[0].optimization_profile
        tensors = plan_facts.io_tensors(opened)
        inputs = [tensor for tensor in tensors if tensor.is_input]
        count = plan_facts.profile_count(opened)
        if self.profile >= count:
            raise UsageError(
                f"--optimization-profile {self.profile} is not in plan {self.header.path}: it has "
                + (f"profiles 0 to {count - 1}" if count > 1 else "profile 0 alone")
            )
        self.host_outputs = [tensor for tensor in tensors if tensor.host and not tensor.is_input]
        self.weights_bytes = plan_facts.weights_bytes(opened)
        self.context_bytes = plan_facts.context_bytes(opened)
        self.precision = ""
        self.parts: list[PlanPart] = []
        for part in sizes:
            number = part.optimization_profile
            declared = [_input_shape(tensor, number) for tensor in inputs]
            resolved = resolve_shapes(declared, batch=part.batch, shapes=part.shapes, profile=number)
            open_shapes = {tensor.name: resolved.shapes[tensor.name] for tensor in inputs if -1 in tensor.shape}
            # 8.6 may have to give each context another profile.
            fitting = [profile for profile in range(count) if _fits(inputs, open_shapes, profile)]
            plan_part = PlanPart(
                open_shapes,
                _host_values(inputs, resolved.shapes, part.shape_values, number),
                sorted(fitting, key=lambda profile: (profile != self.profile, profile)),
                larger_batch=takes_larger(declared, resolved.shapes),
            )
            shapes = resolved.shapes
            plan_part.tensors = self._probe(plan_part, tensors, shapes, ask_fp16=ask_fp16, demand_fp16=demand_fp16)
            outputs = [item for item in plan_part.tensors if not (item.is_input or item.shape_values)]
            plan_part.counted = batch_size(
                declared,
                shapes,
                [InputShape(item.name, item.dtype, item.shape) for item in outputs],
                batch=part.batch,
                inferences=part.inferences_per_request,
            )
            self.parts.append(plan_part)
        largest = self.parts[largest_of([item.tensors for item in self.parts])]
        self.tensors, self.counted, self.larger_batch = largest.tensors, largest.counted, largest.larger_batch

    @property
    def batch(self) -> int:
        """Inferences of a request of the largest part."""
        return self.counted.size

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should read."""
        unknown = "the scratch memory of a context is not known for this plan here, so the memory bill leaves it out"
        lean = (f"the lean runtime {self.open.lean} runs the plan",) if self.open.lean is not None else ()
        return (*lean, *self.counted.notes, *((unknown,) if self.context_bytes is None else ()))

    @property
    def flavour(self) -> Flavour:
        """The TensorRT module that runs the plan."""
        return self.open.flavour

    @property
    def header(self) -> PlanHeader:
        """The header of the plan's file."""
        return self.open.header

    def context(self, stream: int, part: int = 0, *, profiled: bool = False) -> PlanContext:
        """A new execution context for requests of that part. Raises EngineError.

        stream: is used, and waited for, to select the profile.
        profiled: its layers will be timed.
        """
        context = PlanContext(self, self.parts[part], int(stream), profiled=profiled)
        self.contexts.append(context)
        return context

    def forget(self, context: PlanContext) -> None:
        """Remove a closed context from the list."""
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
        self,
        part: PlanPart,
        tensors: Sequence[IoTensor],
        shapes: Mapping[str, tuple[int, ...]],
        *,
        ask_fp16: bool,
        demand_fp16: bool,
    ) -> tuple[TensorSpec, ...]:
        """The tensors with the shapes and sizes of outputs, which a temporary context reports."""
        with closing(Stream()) as stream, closing(PlanContext(self, part, int(stream), probe=True)) as probe:
            if ask_fp16:
                self.precision = probe.layers_precision(demand=demand_fp16)
            return tuple(self._spec(tensor, shapes.get(tensor.name), probe) for tensor in tensors)

    def _spec(self, tensor: IoTensor, shape: tuple[int, ...] | None, probe: PlanContext) -> TensorSpec:
        shape = probe.output_shape(tensor.name) if shape is None else shape
        if -1 not in shape:
            nbytes = plan_facts.buffer_bytes(self.open, tensor, shape, probe.profile)
        else:
            nbytes = probe.max_output_bytes(tensor.name)
            if nbytes <= 0:
                raise EngineError(
                    f"output {tensor.name} of plan {self.header.path} has a size that only the data decide, and "
                    "TensorRT knows no upper bound to make a buffer of: build the plan without this output"
                )
        return TensorSpec(tensor.name, tensor.is_input, tensor.dtype, shape, nbytes, shape_values=tensor.host)


def load_plan(options: Model, built: CachedPlan | None = None) -> Plan:
    """The plan `options.engine`, or `built` from the model of that name, on GPU `options.device`, its shapes decided.

    For a plan built by loadtrt, layers without FP16 are not an error: --fp16 only allows it. Makes the GPU
    the calling thread's device; other threads must do so for themselves. Leaves nothing behind on failure. Raises
    UsageError (file, options) and EngineError (CUDA, TensorRT).
    """
    opening: AbstractContextManager[str | Path] = nullcontext(options.engine)
    if built is not None:
        from loadtrt.engines.plan_cache import opened_plan

        opening = opened_plan(built.path)
    with opening as path:
        opened = open_plan(
            path,
            module=options.module,
            plugins=options.plugins,
            allow_host_code=options.allow_host_code,
            device=options.device,
            lean_library=options.lean_library,
        )
    if built is not None:
        opened.header = replace(opened.header, path=built.path)
    try:
        sizes = built.sizes if built else options.parts
        plan = Plan(opened, sizes, ask_fp16=options.fp16, demand_fp16=built is None)
        if built is not None and built.batch is not None:
            plan.counted = plan.parts[0].counted = built.batch
        return plan  # noqa: TRY300  # inside, so that nothing stays behind
    except BaseException:
        opened.close()
        raise


def _input_shape(tensor: IoTensor, profile: int) -> InputShape:
    least, best, most = tensor.ranges[profile] if tensor.ranges else ((), (), ())
    if not least or len(least) != len(tensor.shape):
        return InputShape(tensor.name, tensor.dtype, tensor.shape, batched=not tensor.host)
    return InputShape(tensor.name, tensor.dtype, tensor.shape, least, best, most, batched=not tensor.host)


def _host_values(
    inputs: Sequence[IoTensor],
    shapes: Mapping[str, tuple[int, ...]],
    given: Mapping[str, tuple[int, ...]],
    profile: int,
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and values of every input that carries a shape; the values in the order of --shape-values."""
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
    """Whether the decided shape of every open input is within this profile."""
    for tensor in inputs:
        if tensor.name in shapes and tensor.ranges:
            least, _, most = tensor.ranges[profile]
            if not all(low <= size <= high for low, size, high in zip(least, shapes[tensor.name], most, strict=False)):
                return False
    return True
