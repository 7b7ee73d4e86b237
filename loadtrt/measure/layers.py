"""What a layer is: the unit that an engine runs and times, with the model's nodes that were fused into it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ADDED = ("Reformatting CopyNode",)  # layers that TensorRT puts in by itself


@dataclass(frozen=True, slots=True)
class LayerTensor:
    """One input or output of a layer. dtype "" and shape () where the engine does not say."""

    name: str
    dtype: str
    format: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an engine. Where only its name is known, everything but `name` and `nodes` is empty.

    precision: the type it computes in, as far as can be told ("" for layers that only move data): the type of its
    weights, or else of its floating-point outputs or inputs, or INT8 where all of them are. nodes: the model's nodes in
    it, by name; none for layers that the engine added, such as reformats.
    """

    name: str
    type: str = ""
    tactic: str = ""
    inputs: tuple[LayerTensor, ...] = ()
    outputs: tuple[LayerTensor, ...] = ()
    precision: str = ""
    nodes: tuple[str, ...] = ()


def nodes_in_name(name: str) -> tuple[str, ...]:
    """The model's nodes that TensorRT names a layer by: " + " joins those in a row, " || " those side by side."""
    if name.startswith(_ADDED):
        return ()
    return tuple(part for part in re.split(r" \+ | \|\| ", name) if part)
