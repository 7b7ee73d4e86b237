"""Models made on the spot: nothing is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.errors import UsageError, nearest
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
        hint = nearest(name.lower(), MODELS, f"it has {', '.join(MODELS)}")
        raise UsageError(f"the zoo has no model '{name}': {hint}")
    return MODELS[name](batch, seed)
