"""Models made on the spot: nothing is downloaded."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.zoo.googlenet import googlenet

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

MODELS: dict[str, Callable[[int | None, int], onnx.ModelProto]] = {"googlenet": googlenet}


def make(name: str, batch: int | None, seed: int) -> onnx.ModelProto:
    """The model called `name`; batch None leaves the first dimension dynamic. Same seed, same bytes.

    Raises UsageError, naming the nearest model, for a name that is not in the zoo.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name.lower(), MODELS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(MODELS)}"
        raise UsageError(f"the zoo has no model '{name}': {hint}")
    return MODELS[name](batch, seed)
