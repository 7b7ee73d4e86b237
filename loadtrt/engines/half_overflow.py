"""Numbers that FP16 cannot hold, found by the magnitudes that a model computes in FP32: ONNX Runtime's CPU computes
FP16 nodes in FP32, so that its answers do not show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.engines.external_data import load_external_data
from loadtrt.engines.half_precision import convert
from loadtrt.engines.value_types import FLOAT, all_names, bodies_of, fresh_name, opsets_of, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from loadtrt.engines.external_data import ExternalData
    from loadtrt.load.tensors import Arrays

_LEAST_OPSET = 9  # the first with all operators that are added


def magnitudes(
    model: Any, external: ExternalData | None, run: Callable[[Any, list[str]], Arrays], *, keep_io: bool
) -> dict[str, float]:
    """The largest finite magnitude of each tensor that a conversion to FP16 has in FP16, in the order of the nodes.

    A tensor inside a branch or loop goes by "NODE, inside". `model` is changed.

    external: its external data.
    run: the outputs of these names of a model, in FP32.
    keep_io: as for `convert`.
    """
    import onnx
    import onnx.inliner

    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    load_external_data(copy, external)
    _, conversion = convert(copy, keep_io=keep_io)
    if not conversion.halves or opsets_of(model).get("", 0) < _LEAST_OPSET:
        return {}
    probes = _Probes(conversion.halves, all_names(model.graph)).add_to(model.graph)
    for probe in probes.values():
        model.graph.output.append(_number(probe))
    model.ir_version = max(model.ir_version, 4)
    found = run(model, list(probes.values()))
    return {name: float(found[probe]) for name, probe in probes.items()}


def overflowing(found: dict[str, float]) -> dict[str, float]:
    """Those of `magnitudes` that are infinite in FP16."""
    with np.errstate(over="ignore"):
        return {name: largest for name, largest in found.items() if np.isinf(np.float16(largest))}


def _number(name: str) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, FLOAT, [])


class _Probes:
    """Adds nodes to a graph and the graphs inside it that find the largest magnitudes."""

    def __init__(self, halves: set[str], names: set[str]) -> None:
        self._halves, self._names, self._nodes = halves, names, list[Any]()

    def add_to(self, graph: Any) -> dict[str, str]:
        """The name of each tensor's largest magnitude, by the tensor's.

        Each is computed right behind the tensor: all of them would be kept in memory until the end otherwise.
        """
        outer, self._nodes = self._nodes, []
        given = [value.name for value in graph.input if value.name in self._halves]
        found = {name: self._largest([name], name) for name in given}
        for node in graph.node:
            inside = self._inside(node)
            self._nodes.append(node)
            found |= {name: self._largest([name], name) for name in node.output if name in self._halves}
            if inside:
                found[f"{node.name or node.output[0]}, inside"] = self._largest([inside], inside)
        replace(graph.node, self._nodes)
        self._nodes = outer
        return found

    def _inside(self, node: Any) -> str:
        """The output, added to a node, of the largest magnitude in its bodies; "" where there is none."""
        bodies = bodies_of(node)
        if not bodies or node.op_type not in ("If", "Loop", "Scan"):
            return ""
        found = [self.add_to(body) for body in bodies]
        counts = [len(node.output) + (node.op_type == "Loop") == len(body.output) for body in bodies]
        if not any(found) or not all(counts):
            return ""
        for body, probes in zip(bodies, found, strict=True):
            outer, self._nodes = self._nodes, list(body.node)
            body.output.append(_number(self._largest(probes.values(), "inside")))
            replace(body.node, self._nodes)
            self._nodes = outer
        for item in node.attribute:  # of a Scan: one for each of its outputs
            if item.name in ("scan_output_axes", "scan_output_directions") and item.ints:
                item.ints.append(0)
        node.output.append(self._name("inside"))
        return str(node.output[-1])

    def _largest(self, names: Iterable[str], like: str) -> str:
        """The name of the largest finite magnitude in the tensors of these names; 0 for none."""
        zero = self._add("Constant", like, value=np.zeros(1, np.float32))
        flat = self._add("Constant", like, value=np.array([-1]))
        parts = [self._add("Reshape", like, name, flat) for name in names]
        sizes = self._add("Abs", like, self._add("Concat", like, zero, *parts, axis=0))
        bound = self._add("Constant", like, value=np.float32(np.inf))
        finite = self._add("Where", like, self._add("Less", like, sizes, bound), sizes, zero)
        return self._add("ReduceMax", like, finite, keepdims=0)

    def _add(self, operator: str, like: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper, numpy_helper

        if "value" in attributes:
            attributes["value"] = numpy_helper.from_array(np.asarray(attributes["value"]))
        name = self._name(f"{like}/{operator}")
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def _name(self, like: str) -> str:
        return fresh_name(like, self._names)
