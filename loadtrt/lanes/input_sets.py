"""The inputs that the requests of a run carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.environment import available_bytes
from loadtrt.load.inputs import InputSets, make_input_sets

if TYPE_CHECKING:
    from loadtrt.asked.model import Model
    from loadtrt.engines.engine import Engine


def inputs_for(engine: Engine, model: Model) -> InputSets:
    """The input sets of all parts, as `Engine.allocate` takes them; without copies one each. Origins are those of the
    first part. Raises LoadtrtError."""
    made = [
        make_input_sets(
            tensors,
            model.inputs,
            model.input_sets,
            model.input_range,
            model.seed,
            available_bytes(),
            part.batch or batch,
        )
        for tensors, batch, part in zip(engine.parts, engine.batches, model.parts, strict=True)
    ]
    sets = [arrays for part in made for arrays in (part.sets if model.copies else part.sets[:1])]
    return InputSets(sets, made[0].origins, tuple(dict.fromkeys(note for part in made for note in part.notes)))
