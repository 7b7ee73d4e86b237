"""Facts that a deserialized engine reports: inputs and outputs, ranges, memory, layers.

The engine inspector's JSON has two forms. Up to TensorRT 10 a tensor has one key "Format/Datatype" ("Row major linear
FP32"); from 11 on, and in RTX, it has "Format" and "Datatype" ("Half"). Engines built with the verbosity
LAYER_NAMES_ONLY list bare names; with NONE, nothing.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtrt.errors import EngineError
from loadtrt.load.tensors import DTYPE_NAMES, DTYPES, bytes_of, dtype_named
from loadtrt.results.engine_info import Layer, LayerTensor, nodes_in_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.engines.deserialize import OpenPlan

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IoTensor:
    """One input or output as the engine has it.

    shape: -1 where a size is open.
    host: it is in host memory and carries a shape.
    format: TensorRT's description of the layout.
    ranges: minimum, optimum and maximum of its shape for each profile; empty for outputs and static inputs.
    values: the same of its values, for host inputs (TensorRT 8.6 reports only the first value).
    """

    name: str
    is_input: bool
    dtype: str
    shape: Shape
    host: bool
    format: str
    ranges: tuple[tuple[Shape, Shape, Shape], ...] = ()
    values: tuple[tuple[Shape, Shape, Shape], ...] = ()


def io_tensors(plan: OpenPlan) -> tuple[IoTensor, ...]:
    """Every input and output, in the engine's order."""
    engine = plan.engine
    return tuple(_io_tensor(plan, engine.get_tensor_name(place)) for place in range(engine.num_io_tensors))


def profile_count(plan: OpenPlan) -> int:
    """Number of optimization profiles; at least 1, the implicit one of a static engine."""
    return max(1, int(plan.engine.num_optimization_profiles))


def buffer_bytes(plan: OpenPlan, tensor: IoTensor, shape: Shape, profile: int) -> int:
    """Bytes of the buffer for `tensor` with the decided `shape`.

    Vectorised layouts (CHW4, HWC8, ...) pad their vectorised dimension to whole vectors. Raises EngineError for a type
    that loadtrt does not know.
    """
    if tensor.dtype not in DTYPES:
        raise EngineError(
            f"tensor {tensor.name} has the type {tensor.dtype}, which this loadtrt does not know: update loadtrt"
        )
    if "linear" in tensor.format.lower():  # TensorRT 8.6 crashes when asked more of a version-compatible plan's tensor
        return bytes_of(tensor.dtype, shape)
    axis = int(plan.engine.get_tensor_vectorized_dim(tensor.name, profile))
    if axis < 0 or axis >= len(shape):
        return bytes_of(tensor.dtype, shape)
    each = int(plan.engine.get_tensor_components_per_element(tensor.name, profile))
    padded = [-(-size // each) * each if place == axis and each > 0 else size for place, size in enumerate(shape)]
    return math.prod(padded) * int(plan.engine.get_tensor_bytes_per_component(tensor.name, profile))


def context_bytes(plan: OpenPlan) -> int | None:
    """Scratch memory of one execution context, which TensorRT sizes for its largest profile; None: not known.

    For a plan of TensorRT 8.6 in a 10.16 runtime the new name answers 0 and logs an error (the runtime inside the plan
    predates it): the old name is asked then, where it is still there.
    """
    for name in ("device_memory_size_v2", "device_memory_size"):
        mark = plan.journal.mark()
        with plan.journal.expecting_errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the old name, from TensorRT 10.1 on
            size = int(getattr(plan.engine, name, -1))
        if size > 0 or (size == 0 and plan.journal.mark() == mark):
            return size
    return None


def weights_bytes(plan: OpenPlan) -> int:
    """What the weights take on the GPU: TensorRT's count where it has one, else the plan without its lean runtime."""
    if plan.flavour.capabilities.engine_stat:
        with plan.journal.expecting_errors(), contextlib.suppress(RuntimeError, TypeError):
            size = int(plan.engine.get_engine_stat(plan.flavour.module.EngineStat.TOTAL_WEIGHTS_SIZE))
            if size > 0:
                return size
    return plan.header.engine_bytes


def layers(plan: OpenPlan, context: Any = None) -> tuple[Layer, ...] | None:
    """The layers that the inspector reports; `context` decides open shapes. None where there is no inspector."""
    text = layer_info(plan, context)
    return None if text is None else layers_of(plan, text)


def layer_info(plan: OpenPlan, context: Any = None) -> str | None:
    """The inspector's own JSON; `context` decides open shapes. None where there is no inspector."""
    if not plan.flavour.capabilities.inspector:
        return None
    inspector = plan.engine.create_engine_inspector()
    if inspector is None:
        return None
    if context is not None:
        inspector.execution_context = context
    return str(inspector.get_engine_information(plan.flavour.module.LayerInformationFormat.JSON))


def layers_of(plan: OpenPlan, text: str) -> tuple[Layer, ...]:
    """The layers in the inspector's JSON. Raises EngineError where it is none."""
    try:
        return parse_layers(text)
    except ValueError as error:
        raise EngineError(
            f"the engine inspector of {plan.flavour} did not answer with a JSON of layers: {error}"
        ) from None


def fp16_verdict(plan: OpenPlan, context: Any, *, demand: bool) -> str:
    """Whether the layers compute in FP16, in words. demand: raise EngineError where it is known that none does."""
    inspected = layers(plan, context)
    if inspected is None:
        return f"not knowable here: {plan.flavour.name} has no engine inspector"
    if not is_detailed(inspected):
        return "not knowable here: the plan was built without ProfilingVerbosity.DETAILED"
    counts = precisions(inspected)
    total = counts.total()
    if not total:
        return "not knowable here: the engine inspector does not give the types of layers"
    if not counts["fp16"]:
        others = ", ".join(f"{count} in {name.upper()}" for name, count in counts.most_common())
        if not demand:
            return f"allowed FP16 and took none: its {total} layers compute as TensorRT found them fastest ({others})"
        raise EngineError(
            f"plan {plan.header.path} contradicts --fp16: of its {total} computing layers none is FP16 ({others}); "
            "build it with FP16, or leave --fp16 out"
        )
    return f"confirmed: {counts['fp16']} of {total} layers compute in FP16"


def _io_tensor(plan: OpenPlan, name: str) -> IoTensor:
    engine = plan.engine
    is_input = engine.get_tensor_mode(name).name == "INPUT"
    shape = tuple(int(size) for size in engine.get_tensor_shape(name))
    host = engine.get_tensor_location(name).name == "HOST"
    dtype = engine.get_tensor_dtype(name).name
    profiles = range(profile_count(plan)) if is_input else range(0)
    return IoTensor(
        name=name,
        is_input=is_input,
        dtype=dtype_named(dtype),
        shape=shape,
        host=host,
        format=str(engine.get_tensor_format_desc(name)),
        ranges=tuple(_three(engine.get_tensor_profile_shape(name, p)) for p in profiles) if -1 in shape else (),
        values=tuple(_values(plan, name, p) for p in profiles) if host else (),
    )


def _values(plan: OpenPlan, name: str, profile: int) -> tuple[Shape, Shape, Shape]:
    if plan.flavour.capabilities.profile_values:
        # By position: the binding has swapped the keywords of these two parameters.
        return _three(plan.engine.get_tensor_profile_values(profile, name))
    return _three(plan.engine.get_profile_shape_input(profile, name))


def _three(found: Any) -> tuple[Shape, Shape, Shape]:
    """Least, best, most as tuples; empty where TensorRT has no answer."""
    parts = [tuple(int(size) for size in part) for part in found] if found else []
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else ((), (), ())


_TYPE = re.compile(rf"\b({'|'.join(DTYPE_NAMES)})\b", re.IGNORECASE)
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\x1e|\[ONNX Layer: |$)")
_FLOATING = {"fp32", "fp16", "bf16", "fp8", "fp4"}
# Layers that move or make data and compute nothing, by the beginnings of their types.
_MOVERS = ("reformat", "noop", "constant", "shuffle", "copy", "concat", "slice", "cast", "shapehost", "devicetoshape")


def parse_layers(text: str) -> tuple[Layer, ...]:
    """The layers in the inspector's JSON. Raises ValueError for text that is not it."""
    answer = json.loads(text, strict=False)  # 8.6 separates the ONNX layers in "Metadata" by a bare U+001E
    layers = answer.get("Layers") if isinstance(answer, dict) else None
    if not isinstance(layers, list):
        raise ValueError("the inspector's JSON has no list 'Layers'")  # noqa: TRY004  # bad text, not a bad call
    return tuple(_layer(item) for item in layers)


def is_detailed(layers: Sequence[Layer]) -> bool:
    """Whether the engine was built with the verbosity DETAILED, so that there is more than names."""
    return any(layer.type for layer in layers)


def precisions(layers: Sequence[Layer]) -> Counter[str]:
    """How many layers compute in each type; layers that only move data are not counted."""
    return Counter(layer.precision for layer in layers if layer.precision)


def _layer(item: Any) -> Layer:
    if not isinstance(item, dict):
        return Layer(str(item), nodes=_nodes(str(item), None))
    inputs, outputs = _tensors(item.get("Inputs")), _tensors(item.get("Outputs"))
    kind = str(item.get("LayerType", ""))
    tactic = str(item.get("TacticName") or "")
    name = str(item.get("Name", ""))
    precision = _precision(item, kind, inputs, outputs)
    return Layer(name, kind, tactic, inputs, outputs, precision, _nodes(name, item.get("Metadata")))


def _nodes(name: str, metadata: Any) -> tuple[str, ...]:
    """The model's nodes in a layer: from its metadata, which TensorRT writes since 8.6, or else from its name."""
    if isinstance(metadata, str):
        return tuple(_NODE.findall(metadata))
    return nodes_in_name(name)


def _precision(
    item: dict[str, Any], kind: str, inputs: tuple[LayerTensor, ...], outputs: tuple[LayerTensor, ...]
) -> str:
    if kind.lower().startswith(_MOVERS):
        return ""
    for key, weights in item.items():
        if key.endswith("Weights") and isinstance(weights, dict):  # "ConvWeights" where a pooling is fused behind
            name = _type(str(weights.get("Type", "")))
            if name:
                return name
    types = [tensor.dtype for tensor in (*outputs, *inputs)]
    floating = next((dtype for dtype in types if dtype in _FLOATING), "")
    return floating or ("int8" if set(types) == {"int8"} else "")


def _tensors(items: Any) -> tuple[LayerTensor, ...]:
    return tuple(_tensor(item) for item in items if isinstance(item, dict)) if isinstance(items, list) else ()


def _tensor(item: dict[str, Any]) -> LayerTensor:
    both = str(item.get("Format/Datatype", ""))
    dtype = str(item.get("Datatype", item.get("DataType", both)))
    dimensions = item.get("Dimensions")
    return LayerTensor(
        name=str(item.get("Name", "")),
        dtype=_type(dtype),
        format=str(item.get("Format", both)),
        shape=tuple(int(size) for size in dimensions) if isinstance(dimensions, list) else (),
    )


def _type(text: str) -> str:
    found = _TYPE.search(text)
    return dtype_named(found[1]) if found else ""
