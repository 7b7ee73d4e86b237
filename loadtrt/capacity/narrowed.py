"""An engine of which only some lanes and buffer sets are used: closed loops with few in flight, on an engine that is
open already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.engines.engine import Engine
    from loadtrt.load.tensors import Arrays


def narrowed(whole: Engine, contexts: int, buffers: int) -> Engine:
    """The first `contexts` lanes of an engine, for at most `buffers` requests in flight on each. Allocating and closing
    are left to whoever has the whole."""
    return cast("Engine", _Narrowed(whole, contexts, buffers))


class _Narrowed:
    """All else is the whole engine's."""

    def __init__(self, whole: Engine, contexts: int, buffers: int) -> None:
        self._whole = whole
        self.contexts, self.buffers = contexts, buffers

    def allocate(self, inputs: Sequence[Arrays]) -> None:
        """Nothing: the whole was allocated before."""

    def close(self) -> None:
        """Nothing: the whole may still be needed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)
