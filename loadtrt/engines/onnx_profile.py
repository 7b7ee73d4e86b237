"""ONNX Runtime's profiler: the layers of a model as it really runs, with the model's nodes that were fused into each.

The profiler writes a Chrome trace: one event a layer and run, in microseconds. What was fused is read from the
optimised model that the session writes: tensors and names that optimisers keep lead back to the model's own.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from loadtrt.engines.onnxruntime import open_session, sentence_of
from loadtrt.engines.plan_profile import turns, warm_up
from loadtrt.engines.value_types import fresh_name
from loadtrt.errors import EngineError
from loadtrt.files import temporary_folder
from loadtrt.load.tensors import dtype_named
from loadtrt.results.engine_info import Layer, LayerTensor
from loadtrt.stats.profiles import Samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.engines.onnx_model import OnnxModel
    from loadtrt.engines.plan_profile import Profiled, ProfileLength, Watch
    from loadtrt.load.tensors import Arrays

_MICROSECOND_NS = 1e3
_MOST_EVENTS = 50_000  # the profiler itself stops at a million; each is some 800 bytes of JSON
_MOST_MODEL_BYTES = 1 << 30  # protobuf ends at 2 GiB; larger optimised models are not asked for
_WHOLE = 0.25  # of a pass's length: runs without the profiler
_BEFORE = "InsertedPrecisionFreeCast_"
_AFTER = re.compile(r"(?:_nchwc|_token_\d+)+$")
_BODIES = {"Loop", "If", "Scan"}
_FLOATING = {"fp32", "fp16", "bf16", "fp64"}
# Operators that move or shape data and compute nothing.
_MOVERS = {
    "ReorderInput", "ReorderOutput", "Reshape", "Flatten", "Concat", "Slice", "Split", "Transpose", "Cast", "Gather",
    "Identity", "Squeeze", "Unsqueeze", "Shape", "Constant", "Expand", "Tile", "Pad", "MemcpyToHost", "MemcpyFromHost",
}  # fmt: skip


def profile_model(
    model: OnnxModel, threads: int, inputs: Arrays, length: ProfileLength, profiled: Profiled, watch: Watch
) -> None:
    """Fill `profiled` with a plain pass on `threads` CPU threads. Raises EngineError."""
    model = _named(model)
    quiet = open_session(model, threads, 1)
    names = [output.name for output in quiet.get_outputs()]
    feeds = dict(inputs)

    def run(session: Any) -> int:
        began = perf_counter_ns()
        try:
            session.run(names, feeds)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise EngineError(
                f"ONNX Runtime cannot run {model.name}: {sentence_of(error, model.sizes.roles)}"
            ) from None
        return perf_counter_ns() - began

    warm_up(lambda: run(quiet), length, watch)
    whole = [run(quiet) for _ in turns(length, watch, "plain: whole", _WHOLE)]
    profiled.stopped = watch.stop()
    if profiled.stopped:
        return
    with temporary_folder("loadtrt-profile-") as folder:
        optimised = folder / "optimised.onnx" if model.weights_bytes < _MOST_MODEL_BYTES else None
        session = open_session(model, threads, 1, trace=folder / "trace", optimised=optimised)
        graph = _graph(optimised) if optimised else ()
        run(session)  # the first after loading is not like the others: it shows how many events a run has
        most = max(1, _MOST_EVENTS // max(1, len(_events(session))))
        session = open_session(model, threads, 1, trace=folder / "trace")
        run(session)
        for done in turns(length, watch, "plain: layers"):
            run(session)
            if done + 1 >= most and done + 1 < length.inferences:
                profiled.notes.append(f"profiled {done + 1} runs: ONNX Runtime keeps no more events")
            if done + 1 >= most:
                break
        events = _events(session)
        del session
    nodes = fused_nodes(model.data, graph)
    layers: dict[str, Layer] = {}
    samples = Samples()
    for run_events in runs_of(events)[1:]:
        for event in run_events:
            name = _name(event)
            if name not in layers:
                layers[name] = _layer(event, nodes.get(name, ()))
        samples.add((_name(event), event["dur"] * _MICROSECOND_NS) for event in run_events)
    profiled.stopped = watch.stop()
    profiled.notes.append("ONNX Runtime's profiler counts in whole microseconds")
    profiled.passes.append(samples.to_pass("plain", tuple(layers.values()), whole))


def runs_of(events: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The layers' events of each run, in order. Those of a loop's or branch's body are left out: it has their time."""
    runs = sorted((event for event in events if event["name"] == "model_run"), key=lambda event: event["ts"])
    nodes = sorted((event for event in events if event["cat"] == "Node"), key=lambda e: e["ts"])
    layers_of_runs: list[list[Mapping[str, Any]]] = []
    place = 0
    for run in runs:
        end, taken, outer = run["ts"] + run["dur"], [], -1
        while place < len(nodes) and nodes[place]["ts"] < run["ts"]:
            place += 1
        while place < len(nodes) and nodes[place]["ts"] <= end:
            event = nodes[place]
            place += 1
            if event["ts"] < outer:
                continue
            taken.append(event)
            if event["args"].get("op_name") in _BODIES:
                outer = event["ts"] + event["dur"]
        layers_of_runs.append(taken)
    return layers_of_runs


def fused_nodes(model: bytes, graph: Sequence[Any]) -> dict[str, tuple[str, ...]]:
    """By name of each node of the optimised `graph`, the names of the model's own nodes in it.

    A node of the model belongs to the optimised node for whose output it is needed and that no other one makes. After
    an optimised node of unknown origin the extent is unknown: there, only the node that makes the output is named.
    """
    import onnx

    own = onnx.load_model_from_string(model).graph.node
    maker = {output: node for node in own for output in node.output if output}
    by_name = {node.name: node for node in own}
    order = {id(node): place for place, node in enumerate(own)}

    def origin(node: Any) -> list[str]:
        """The tensors of the model that an optimised node makes."""
        kept = [_original(output) for output in node.output if _original(output) in maker]
        name = _original(node.name)
        if kept or name in maker:
            return kept or [name]
        return list(by_name[name].output) if name in by_name else []

    # A reorder moves a tensor to another layout, under the name of what the node before it makes: it makes nothing.
    origins = {id(node): [] if _moves(node) else origin(node) for node in graph}
    made = {tensor for tensors in origins.values() for tensor in tensors}
    untold: set[str] = set()
    fused: dict[str, tuple[str, ...]] = {}
    for node in graph:  # in the order of running
        tensors = origins[id(node)]
        blind = not untold.isdisjoint(node.input)
        if not tensors and (blind or not _moves(node)):
            untold.update(node.output)
        inside: dict[int, Any] = {}
        waiting = [maker[tensor] for tensor in tensors]
        while waiting:
            part = waiting.pop()
            if id(part) not in inside:
                inside[id(part)] = part
                if not blind:
                    waiting += [maker[tensor] for tensor in part.input if tensor in maker and tensor not in made]
        fused[node.name] = tuple(part.name for part in sorted(inside.values(), key=lambda part: order[id(part)]))
    return fused


def _original(name: str) -> str:
    """What optimisers made a name of: a new tensor's or node's name is an old one with these around it."""
    return _AFTER.sub("", name).removeprefix(_BEFORE)


def _moves(node: Any) -> bool:
    return str(node.op_type).startswith("Reorder")


def _named(model: OnnxModel) -> OnnxModel:
    """The model with a name for every node, its first output's: an unnamed node could not be found again."""
    import onnx

    parsed = onnx.load_model_from_string(model.data)
    taken = {node.name for node in parsed.graph.node}
    unnamed = [node for node in parsed.graph.node if not node.name]
    for node in unnamed:
        node.name = fresh_name(next(filter(None, node.output), node.op_type), taken, "{} ({})")
    return replace(model, data=parsed.SerializeToString()) if unnamed else model


def _events(session: Any) -> list[dict[str, Any]]:
    """End a session's profile, and read and delete its trace."""
    trace = Path(session.end_profiling())
    events: list[dict[str, Any]] = json.loads(trace.read_bytes())
    trace.unlink()
    return events


def _graph(optimised: Path) -> tuple[Any, ...]:
    import onnx

    return tuple(onnx.load_model(str(optimised), load_external_data=False).graph.node) if optimised.exists() else ()


def _name(event: Mapping[str, Any]) -> str:
    return str(event["name"]).removesuffix("_kernel_time")


def _layer(event: Mapping[str, Any], nodes: tuple[str, ...]) -> Layer:
    args = event["args"]
    operator = str(args.get("op_name", ""))
    inputs, outputs = _tensors(args.get("input_type_shape")), _tensors(args.get("output_type_shape"))
    precision = ""
    if operator not in _MOVERS:
        types = [tensor.dtype for tensor in (*outputs, *inputs)]
        quantized = operator.startswith("QLinear") or operator.endswith("Integer")
        precision = "int8" if quantized else next((dtype for dtype in types if dtype in _FLOATING), "")
    return Layer(_name(event), operator, "", inputs, outputs, precision, nodes)


def _tensors(items: Any) -> tuple[LayerTensor, ...]:
    """[{"float": [1, 64, 56, 56]}, ...], weights among them; the profiler does not name them."""
    return tuple(
        LayerTensor("", dtype_named(dtype), "", tuple(int(size) for size in shape))
        for item in items or ()
        for dtype, shape in item.items()
    )
