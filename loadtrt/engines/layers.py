"""What TensorRT's engine inspector says of an engine's layers, in both of its JSON forms.

Up to TensorRT 10 a tensor has one key "Format/Datatype" ("Row major linear FP32"); from 11 on, and in RTX, it has
"Format" and "Datatype" ("Half"). Engines built with the verbosity LAYER_NAMES_ONLY list bare names; with NONE, nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from loadtrt.load.tensors import DTYPE_NAMES, dtype_named
from loadtrt.measure.layers import Layer, LayerTensor, nodes_in_name

if TYPE_CHECKING:
    from collections.abc import Sequence

_TYPE = re.compile(rf"\b({'|'.join(DTYPE_NAMES)})\b", re.IGNORECASE)
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\x1e|\[ONNX Layer: |$)")
_FLOATING = {"fp32", "fp16", "bf16", "fp8", "fp4"}
# Layers that move or make data and compute nothing, by the beginnings of their types.
_MOVERS = ("reformat", "noop", "constant", "shuffle", "copy", "concat", "slice", "cast", "shapehost", "devicetoshape")


def parse_layers(text: str) -> tuple[Layer, ...]:
    """The layers in the inspector's JSON. Raises ValueError for text that is not it."""
    found = json.loads(text, strict=False)  # 8.6 separates the ONNX layers in "Metadata" by a bare U+001E
    layers = found.get("Layers") if isinstance(found, dict) else None
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
