"""What an engine should answer: the outputs of its model in FP32 on ONNX Runtime, or outputs from a file."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.environment import available_bytes, import_onnxruntime
from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.files import reason
from loadtrt.printing import shortened

if TYPE_CHECKING:
    from loadtrt.asked.model import Model
    from loadtrt.load.tensors import Arrays
    from loadtrt.results.engine_info import EngineInfo

REDUCED = ("fp16", "bf16", "int8", "fp8")  # options of a build
_INT8_STEP = 2.0**-8  # half a step of 127, over the range
_FP16_STEP = 2.0**-11  # half a step at 1; TF32's, in which TensorRT computes FP32, is the same
_MARGIN = 8.0
_UNKNOWN_NODES = 100
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
_FLOATS = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64}
_COPIES = 3  # of a model's weights that a session holds while it opens


@dataclass(frozen=True, slots=True)
class Reference:
    """What to compare an engine's outputs for the first input set with.

    unknown: why they are not known, one sentence.
    tolerance: the largest deviation, relative to the largest magnitude of an output, that the engine's precision
        explains, or that was asked for.
    demanded: whether a larger one makes the run INVALID; else it is a finding.
    """

    name: str
    outputs: Arrays | None
    unknown: str
    tolerance: float
    demanded: bool


def reference_of(model: Model, info: EngineInfo, inputs: Arrays) -> Reference | None:
    """The reference of an engine for its first input set; None where its precision is its model's own and nothing else
    was asked for.

    It is what --verify-against names, or else, for an engine of a lower precision that loadtrt made, or that --fp16 is
    given for, its own model in FP32. Raises LoadtrtError where what --verify-against names cannot answer.
    """
    demanded = model.verify_against is not None or model.verify_tolerance is not None
    if model.verify_against is not None:
        file = str(model.verify_against)
        if file.endswith(".npz"):
            outputs = _from_file(file, model, [spec.name for spec in info.tensors if not spec.is_input])
            return Reference(f"{file}", outputs, "", _tolerance(model, info, _UNKNOWN_NODES), demanded)
        outputs, nodes = _in_fp32(file, model, inputs)
        return Reference(_name(file), outputs, "", _tolerance(model, info, nodes), demanded)
    built = info.build or {}
    reduced = model.fp16 or any(built.get("options", {}).get(option) for option in REDUCED)
    if not reduced:
        if demanded:
            raise UsageError(
                f"--verify-tolerance has nothing to compare {model.engine} with: add --verify-against "
                "MODEL.onnx or OUTPUTS.npz"
            )
        return None
    from loadtrt.engines.plan import looks_like_plan

    is_plan = info.kind != "onnxruntime" and not model.engine.startswith("zoo:") and looks_like_plan(model.engine)
    name, unknown = _origin(built) if is_plan else (model.engine, "")
    if not unknown:
        try:
            outputs, nodes = _in_fp32(name, model, inputs)
            return Reference(_name(name), outputs, "", _tolerance(model, info, nodes), demanded)
        except LoadtrtError as error:
            unknown = str(error)
    if demanded:
        raise UsageError(f"--verify-tolerance has nothing to compare {model.engine} with: {unknown}")
    return Reference("", None, unknown, 0.0, demanded)


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


def _tolerance(model: Model, info: EngineInfo, nodes: int) -> float:
    """What was asked for, or eight times what rounding once in each of so many nodes adds up to where errors are
    independent: half a step, times the root of their number.

    docs/field.md has how far models that PyPI packages ship deviate.
    """
    if model.verify_tolerance is not None:
        return model.verify_tolerance
    int8 = bool((info.build or {}).get("options", {}).get("int8"))
    count = info.conversion.converted if info.conversion is not None and not int8 else nodes
    return float(min(_MARGIN * (_INT8_STEP if int8 else _FP16_STEP) * max(count, 1) ** 0.5, 1.0))


def _from_file(file: str, model: Model, names: list[str]) -> Arrays:
    """The outputs in an .npz. Raises UsageError where they can be of other inputs, and where there are none."""
    if set(model.inputs) <= {"random"}:
        raise UsageError(
            f"the outputs in {file} belong to certain inputs, and these are random: add --inputs with the file of those"
        )
    try:
        with np.load(file, allow_pickle=False) as arrays:
            held = list(arrays)
            found = {name: arrays[name] for name in names if name in held}
    except OSError as error:
        raise UsageError(f"cannot read outputs {file}: {reason(error)}") from None
    except Exception as error:  # numpy and zipfile raise all kinds
        said = shortened(" ".join(str(error).split()), 200)
        raise UsageError(f"{file} is damaged or not an .npz ({said}): write one with numpy.savez") from None
    if not found:
        raise UsageError(
            f"{file} has none of the outputs {', '.join(names)}: it has {', '.join(held) or 'no arrays'}; name the "
            "arrays as the outputs"
        )
    return found


def _in_type(array: Any, kind: str) -> Any:
    """An input of a plan that takes another float type than its model."""
    return array.astype(_FLOATS[kind]) if kind in _FLOATS and array.dtype != _FLOATS[kind] else array


def _in_fp32(name: str, model: Model, inputs: Arrays) -> tuple[Arrays, int]:
    """The outputs of the model `name` for these inputs, as ONNX Runtime computes them, and how many nodes it has.
    Raises LoadtrtError."""
    import onnx

    from loadtrt.engines.onnx_model import read_model
    from loadtrt.engines.onnxruntime import open_model, sentence_of

    carried = {key: np.asarray(values, np.int64) for key, values in model.shape_values.items()}
    given = {**carried, **inputs}
    shapes = {key: array.shape for key, array in given.items()}
    alone = {"engine": name, "fp16": False, "mix": None, "batcher": None, "shapes": shapes}
    read = read_model(model.model_copy(update=alone))
    free = available_bytes()
    if free is not None and _COPIES * read.weights_bytes > free:
        raise UsageError(f"host memory is too short for {name} in FP32 beside it")
    parsed = onnx.load_model_from_string(read.data)
    drawn = sorted({node.op_type for node in parsed.graph.node} & _RANDOM)
    if drawn:
        raise UsageError(f"{name} draws random numbers ({', '.join(drawn)}): no two answers are the same")
    _, session = open_model(read, len(os.sched_getaffinity(0)), 1)
    options = import_onnxruntime().RunOptions()
    feeds = {item.name: _in_type(given[item.name], item.type) for item in session.get_inputs()}
    names, answered, failed = [output.name for output in session.get_outputs()], list[Any](), list[Exception]()

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
        raise UsageError(f"ONNX Runtime fails on {name}: {sentence_of(failed[0])}")
    return dict(zip(names, answered, strict=True)), len(parsed.graph.node)
