"""What an engine should answer: the outputs of its model in FP32 on ONNX Runtime, or outputs from a file."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.engines.named_reference import is_file, outputs_in, require_inputs, require_outputs
from loadtrt.environment import available_bytes, import_onnxruntime
from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.printing import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtrt.asked.model import Model
    from loadtrt.engines.onnx_model import OnnxModel
    from loadtrt.load.tensors import Arrays
    from loadtrt.results.engine_info import EngineInfo

REDUCED = ("fp16", "bf16", "int8", "fp8")  # options of a build
_INT8_STEP = 2.0**-8  # half a step of 127, over the range
_FP16_STEP = 2.0**-11  # half a step at 1; TF32's, in which TensorRT computes FP32, is the same
_FP32_STEP = 2.0**-20  # half a step, times sixteen for sums in another order
_MARGIN = 8.0
_UNKNOWN_NODES = 100
_FLOATS = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64}
_COPIES = 3  # of a model's weights that a session holds while it opens
_HALVES, _QUANTIZERS = (10, 16), {"QuantizeLinear", "DequantizeLinear"}  # TensorProto.FLOAT16 and BFLOAT16


@dataclass(frozen=True, slots=True)
class Reference:
    """What to compare an engine's outputs for the first input set with.

    unknown: why they are not known, one sentence.
    tolerance: the largest deviation, relative to the largest magnitude of an output, that the engine's precision
        explains, or that was asked for.
    demanded: whether a larger one makes the run INVALID; else it is a finding.
    again: the outputs of a second request with the same inputs; None of a file.
    overflows: the largest magnitude in FP32 of results that FP16 cannot hold, of the engine's own model, in its order.
    unlooked: why they are not known; "" where they are, and where nothing was converted.
    """

    name: str
    outputs: Arrays | None
    unknown: str
    tolerance: float
    demanded: bool
    again: Arrays | None = None
    overflows: Mapping[str, float] = field(default_factory=dict)
    unlooked: str = ""


def reference_of(model: Model, info: EngineInfo, inputs: Arrays) -> Reference | None:
    """The reference of an engine for its first input set; None where its precision is its model's own and nothing else
    was asked for.

    It is what --verify-against names, or else, for an engine of a lower precision that loadtrt made, or that --fp16 is
    given for, its own model in FP32. Raises LoadtrtError where what --verify-against names cannot answer.
    """
    found = _compared_with(model, info, inputs)
    if found is None or info.conversion is None or not info.conversion.converted:
        return found
    try:
        name, unknown = _own(model, info)
        if unknown and model.verify_against is not None and not is_file(model.verify_against):
            name, unknown = model.verify_against, ""
        overflows = {} if unknown else _overflows(name, model, inputs, keep_io=info.conversion.keeps_io)
    except LoadtrtError as error:
        overflows, unknown = {}, str(error)
    return replace(found, overflows=overflows, unlooked="" if found.unknown else unknown)


def _compared_with(model: Model, info: EngineInfo, inputs: Arrays) -> Reference | None:
    demanded = model.verify_against is not None or model.verify_tolerance is not None
    if model.verify_against is not None:
        file = model.verify_against
        again = None
        if is_file(file):
            name, outputs, nodes = file, outputs_in(file, model, info), None
        else:
            require_inputs(file, model, inputs)
            name = _name(file)
            outputs, again, nodes = _in_fp32(file, model, inputs)
        require_outputs(file, outputs, info)
        return Reference(name, outputs, "", _tolerance(model, info, outputs, nodes), demanded, again)
    built = info.build or {}
    reduced = model.fp16 or any(built.get("options", {}).get(option) for option in REDUCED)
    if not reduced:
        if demanded:
            raise UsageError(
                f"--verify-tolerance has nothing to compare {model.engine} with: add --verify-against "
                "MODEL.onnx or OUTPUTS.npz"
            )
        return None
    name, unknown = _own(model, info)
    if not unknown:
        try:
            outputs, again, nodes = _in_fp32(name, model, inputs)
            return Reference(_name(name), outputs, "", _tolerance(model, info, outputs, nodes), demanded, again)
        except LoadtrtError as error:
            unknown = str(error)
    if demanded:
        raise UsageError(f"--verify-tolerance has nothing to compare {model.engine} with: {unknown}")
    return Reference("", None, unknown, 0.0, demanded)


def _own(model: Model, info: EngineInfo) -> tuple[str, str]:
    """The model that the engine computes, and "" or why it cannot be asked."""
    from loadtrt.engines.plan import looks_like_plan

    is_plan = info.kind != "onnxruntime" and not model.engine.startswith("zoo:") and looks_like_plan(model.engine)
    return _origin(info.build or {}) if is_plan else (model.engine, "")


def _origin(built: Any) -> tuple[str, str]:
    """The model that a plan was built from, and "" or why it cannot be asked."""
    from loadtrt.engines.plan import sha256

    name, remedy = str(built.get("model", "")), "name its model with --verify-against MODEL.onnx"
    if not name:
        return "", f"what the plan was built from is not known: {remedy}"
    if name.startswith("zoo:"):
        return name, ""
    if not Path(name).is_file() or sha256(name) != built.get("model_sha256"):
        return "", f"{name}, which the plan was built from, is not there, or has changed: {remedy}"
    if Path(name).suffix.lower() == ".prototxt":
        return "", f"the plan was built from a Caffe network: {remedy}"
    return name, ""


def _name(model: str) -> str:
    return f"{model} in FP32 on ONNX Runtime {import_onnxruntime().__version__}"


def _tolerance(model: Model, info: EngineInfo, outputs: Arrays, nodes: int | None) -> float:
    """What was asked for, or eight times what rounding once in each of so many nodes adds up to where errors are
    independent: half a step, times the root of their number.

    outputs, nodes: of the reference; no nodes where that is a file.

    docs/field.md has how far models that PyPI packages ship deviate.
    """
    if model.verify_tolerance is not None:
        return model.verify_tolerance
    options = (info.build or {}).get("options", {})
    step, own = _FP16_STEP, None
    if options.get("int8"):
        step = _INT8_STEP
    elif info.kind == "onnxruntime" and info.conversion is None and not model.fp16:
        step, own = _of_model(model.engine)
        against = model.verify_against if nodes is not None else None
        step = max(step, _of_model(against)[0] if against is not None else _step_of(outputs))
    if info.conversion is not None and not options.get("int8"):
        own = info.conversion.converted
        name, unknown = _own(model, info)
        its_step, its_nodes = (step, own) if unknown or not own else _of_model(name)
        if its_step == _INT8_STEP:  # a value near a boundary becomes another integer, however small the error
            step, own = its_step, its_nodes
    count = own if own is not None else nodes if nodes is not None else _UNKNOWN_NODES
    return float(min(_MARGIN * step * max(count, 1) ** 0.5, 1.0))


def _step_of(outputs: Arrays) -> float:
    """The step of what is kept in a file."""
    return _FP16_STEP if any(array.dtype.itemsize == 2 for array in outputs.values()) else _FP32_STEP


def _of_model(name: str) -> tuple[float, int]:
    """The step of what a model computes in by itself on ONNX Runtime, and how many nodes it has."""
    from loadtrt.engines.onnx_model import parse_model
    from loadtrt.engines.value_types import graphs_of

    if name.startswith("zoo:"):
        return _FP32_STEP, _UNKNOWN_NODES
    graphs = list(graphs_of(parse_model(Path(name))[0].graph))
    nodes = [node for graph in graphs for node in graph.node]
    if any(node.op_type in _QUANTIZERS or "Integer" in node.op_type or "QLinear" in node.op_type for node in nodes):
        return _INT8_STEP, len(nodes)
    types = {tensor.data_type for graph in graphs for tensor in graph.initializer}
    types |= {value.type.tensor_type.elem_type for graph in graphs for value in (*graph.input, *graph.output)}
    types |= {item.i for node in nodes if node.op_type == "Cast" for item in node.attribute}
    return _FP32_STEP if types.isdisjoint(_HALVES) else _FP16_STEP, len(nodes)


def _in_type(array: Any, kind: str) -> Any:
    """An input of a plan that takes another float type than its model."""
    return array.astype(_FLOATS[kind]) if kind in _FLOATS and array.dtype != _FLOATS[kind] else array


def _in_fp32(name: str, model: Model, inputs: Arrays) -> tuple[Arrays, Arrays, int]:
    """The outputs of the model `name` for these inputs, as ONNX Runtime computes them, twice, and how many nodes it
    has. Raises LoadtrtError."""
    import onnx

    read, session, feeds = _opened(name, model, inputs, _COPIES)
    names = [output.name for output in session.get_outputs()]
    first, again = (_answers(read, session, names, feeds) for _ in range(2))
    return first, again, len(onnx.load_model_from_string(read.data).graph.node)


def _overflows(name: str, model: Model, inputs: Arrays, *, keep_io: bool) -> dict[str, float]:
    """The results of the model `name` for these inputs that FP16 cannot hold, where they would be FP16. Raises
    LoadtrtError."""
    import onnx

    from loadtrt.engines.half_overflow import magnitudes, overflowing
    from loadtrt.engines.onnxruntime import open_session

    read, _, feeds = _opened(name, model, inputs, 2 * _COPIES)

    def run(probed: Any, names: list[str]) -> Arrays:
        made = replace(read, data=probed.SerializeToString())
        return _answers(made, open_session(made, len(os.sched_getaffinity(0)), 1), names, feeds)

    try:
        parsed = onnx.load_model_from_string(read.data)
        return overflowing(magnitudes(parsed, read.external, run, keep_io=keep_io))
    except LoadtrtError:
        raise
    except Exception as error:  # onnx and protobuf raise all kinds
        said = shortened(" ".join(str(error).split()) or type(error).__name__, 200)
        raise UsageError(f"the results inside {name} cannot be looked at: {said}") from None


def _opened(name: str, model: Model, inputs: Arrays, copies: int) -> tuple[OnnxModel, Any, Arrays]:
    """The model `name` as it was read, a session of it, and what it is given. copies: of its weights, in memory."""
    from loadtrt.engines.onnx_model import read_model
    from loadtrt.engines.onnxruntime import open_model

    carried = {key: np.asarray(values, np.int64) for key, values in model.shape_values.items()}
    given = {**carried, **inputs}
    shapes = {key: array.shape for key, array in given.items()}
    alone = {"engine": name, "fp16": False, "mix": None, "batcher": None, "shapes": shapes}
    read = read_model(model.model_copy(update=alone))
    free = available_bytes()
    if free is not None and copies * read.weights_bytes > free:
        raise UsageError(f"host memory is too short for {name} in FP32 beside it")
    read, session = open_model(read, len(os.sched_getaffinity(0)), 1)
    return read, session, {item.name: _in_type(given[item.name], item.type) for item in session.get_inputs()}


def _answers(read: OnnxModel, session: Any, names: list[str], feeds: Arrays) -> Arrays:
    """The outputs of these names. Raises UsageError where ONNX Runtime fails."""
    from loadtrt.engines.onnxruntime import sentence_of

    options = import_onnxruntime().RunOptions()
    answered, failed = list[Any](), list[Exception]()

    def run() -> None:
        try:
            answered.extend(session.run(names, feeds, options))
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            failed.append(error)

    thread = threading.Thread(target=run, name="loadtrt-reference", daemon=True)  # so that Ctrl-C need not wait for it
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except BaseException:
        options.terminate = True
        raise
    if failed:
        raise UsageError(f"ONNX Runtime fails on {read.name}: {sentence_of(failed[0])}")
    return dict(zip(names, answered, strict=True))
