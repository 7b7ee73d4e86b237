"""A part of an engine that is open, as a search measures fewer lanes, or one size, without opening it anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.engines.engine import Engine
    from loadtrt.load.tensors import Arrays


class Part(NamedTuple):
    """A part of an engine: so many lanes, so many buffer sets of each, and the requests of one size; None: of all."""

    contexts: int
    buffers: int
    batch: int | None = None


class Narrowed:
    """A part of an engine that is open. input_sets: those of its requests."""

    def __init__(self, whole: Engine, part: Part, inputs: Sequence[Arrays]) -> None:
        self._whole = whole
        self.contexts, self.buffers, self.input_sets = part.contexts, part.buffers, inputs
        if part.batch is not None:
            place, sets = whole.batches.index(part.batch), len(inputs) // len(whole.batches)
            self.parts, self.batches = whole.parts[place : place + 1], (part.batch,)
            self.info = replace(whole.info, batch=part.batch, tensors=tuple(self.parts[0]))
            self.input_sets = inputs[place * sets : (place + 1) * sets]
            self.submit = lambda lane, inputs: whole.submit(lane, place * sets + inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)
