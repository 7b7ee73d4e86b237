"""What is in a plan or an ONNX model, as plain dicts and lists: `loadtrt inspect` prints them, as JSON or as tables."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from loadtrt.engines.installing import pip_line
from loadtrt.engines.onnx_model import dtype_of, parse_model
from loadtrt.engines.plan import looks_like_onnx, looks_like_plan, read_header
from loadtrt.engines.value_types import given_inputs
from loadtrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def inspect_file(
    path: Path,
    *,
    module: str | None = None,
    plugins: tuple[str, ...] = (),
    lean_library: str | None = None,
    allow_host_code: bool = False,
    device: int = 0,
) -> dict[str, Any]:
    """All facts of the plan or ONNX model at `path`. The bytes of the file, not its name, decide which of them it is.

    A plan's header is read without TensorRT. "loaded" needs TensorRT and a GPU; "not_loaded" is why that failed.
    Raises UsageError for a file that is neither and for options that a model does not take, EngineError where `module`
    is named and cannot load the plan.
    """
    if looks_like_onnx(path) or (path.suffix.lower() == ".onnx" and not looks_like_plan(path)):
        for_plans = {
            "--module": module,
            "--plugins": plugins,
            "--lean-library": lean_library,
            "--allow-host-code": allow_host_code,
        }
        given = [option for option, value in for_plans.items() if value]
        if given:
            raise UsageError(f"{given[0]} is for TensorRT plans, not for ONNX models such as {path}: leave it out")
        return _onnx(path)
    header = read_header(path)
    facts: dict[str, Any] = {
        "kind": "plan",
        "file": str(path),
        "built_by": header.built_by,
        "family": header.family,
        "version": header.version_text,
        "size_bytes": header.size_bytes,
        "sha256": header.sha256,
        "host_code_bytes": header.host_code_bytes,
        "compute_capabilities": list(header.compute_capabilities),
        "install": pip_line(header).line,
        "install_note": pip_line(header).note,
        **_built(path, header.sha256),
        "loaded": None,
        "not_loaded": "",
    }
    try:
        facts["loaded"] = _load(
            path,
            module=module,
            plugins=plugins,
            lean_library=lean_library,
            allow_host_code=allow_host_code,
            device=device,
        )
    except EngineError as error:
        if module is not None:
            raise
        facts["not_loaded"] = str(error)
    return facts


def _built(path: Path, digest: str) -> dict[str, Any]:
    """The facts of the build in the sidecar, or why there are none."""
    from loadtrt.engines.plan import read_sidecar, sidecar_of

    try:
        sidecar = read_sidecar(path, digest)
    except UsageError as error:
        return {"build": None, "no_build": str(error)}
    if sidecar is None:
        return {"build": None, "no_build": f"there is no {sidecar_of(path)}"}
    return {"build": sidecar.model_dump(mode="json"), "no_build": ""}


def _load(path: Path, **how: Any) -> dict[str, Any]:
    """The facts that TensorRT reports of the engine. how: as for `open_plan`."""
    from loadtrt.engines import plan_facts
    from loadtrt.engines.deserialize import open_plan

    plan = open_plan(path, **how)
    try:
        engine = plan.engine
        layers, missing = None, ""
        try:
            layers = plan_facts.layers(plan)
        except EngineError as error:
            missing = str(error)
        if missing:
            pass
        elif layers is None:
            missing = f"{plan.flavour.name} has no engine inspector: full TensorRT and RTX have"
        elif not plan_facts.is_detailed(layers):
            missing = (
                "the plan was built without ProfilingVerbosity.DETAILED, so it has no more than the names of its layers"
            )
        return {
            "flavour": plan.flavour.name,
            "flavour_version": plan.flavour.version,
            "device": plan.device,
            "name": str(engine.name),
            "profiles": plan_facts.profile_count(plan),
            "weights_bytes": plan_facts.weights_bytes(plan),
            "context_bytes": plan_facts.context_bytes(plan),
            "aux_streams": int(engine.num_aux_streams),
            "layer_count": int(engine.num_layers),
            "refittable": bool(engine.refittable),
            "hardware_compatibility": _named(engine, "hardware_compatibility_level"),
            "profiling_verbosity": _named(engine, "profiling_verbosity"),
            "tensors": [_tensor(tensor) for tensor in plan_facts.io_tensors(plan)],
            "layers": [_layer(layer) for layer in layers or ()],
            "layers_missing": missing,
            "lean_library": "" if plan.lean is None else str(plan.lean),
            "log": [asdict(message) for message in plan.logged()],
        }
    finally:
        plan.close()


def _named(engine: Any, attribute: str) -> str:
    """The name of an enum's value; "" where this flavour has not registered the type (lean, dispatch)."""
    try:
        return str(getattr(engine, attribute).name)
    except (AttributeError, TypeError):
        return ""


def _tensor(tensor: Any) -> dict[str, Any]:
    def three(ranges: Any) -> list[dict[str, list[int]]]:
        return [dict(zip(("min", "opt", "max"), map(list, item), strict=True)) for item in ranges]

    return {
        "name": tensor.name,
        "input": tensor.is_input,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "location": "host" if tensor.host else "device",
        "format": tensor.format,
        "ranges": three(tensor.ranges),
        "values": three(tensor.values),
    }


def _layer(layer: Any) -> dict[str, Any]:
    def tensors(items: Any) -> list[dict[str, Any]]:
        return [
            {"name": item.name, "dtype": item.dtype, "format": item.format, "shape": list(item.shape)} for item in items
        ]

    return {
        "name": layer.name,
        "type": layer.type,
        "precision": layer.precision,
        "tactic": layer.tactic,
        "inputs": tensors(layer.inputs),
        "outputs": tensors(layer.outputs),
    }


def _onnx(path: Path) -> dict[str, Any]:
    """The facts of an ONNX file. Weights in other files are counted, not read."""
    model, _ = parse_model(path)
    graph = model.graph
    return {
        "kind": "onnx",
        "file": str(path),
        "size_bytes": path.stat().st_size,
        "ir_version": int(model.ir_version),
        "opsets": {opset.domain or "ai.onnx": int(opset.version) for opset in model.opset_import},
        "producer": " ".join(part for part in (model.producer_name, model.producer_version) if part),
        "parameters": sum(math.prod(tensor.dims) for tensor in graph.initializer),
        "tensors": [
            *(_onnx_tensor(value, is_input=True) for value in given_inputs(graph)),
            *(_onnx_tensor(value, is_input=False) for value in graph.output),
        ],
        "nodes": dict(Counter(node.op_type for node in graph.node).most_common()),
    }


def _onnx_tensor(value: Any, *, is_input: bool) -> dict[str, Any]:
    tensor = value.type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    return {
        "name": value.name,
        "input": is_input,
        "dtype": dtype_of(value),
        "shape": sizes if tensor.HasField("shape") else None,
    }
