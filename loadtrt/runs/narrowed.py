"""A part of an engine that is open, as a search measures fewer lanes, or one size, without opening it anew."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.engines.engine import Shares, Spins, Submits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.engines.clock import Clock
    from loadtrt.engines.engine import Engine
    from loadtrt.engines.waiting import Wakeup
    from loadtrt.errors import EngineError
    from loadtrt.load.tensors import Arrays
    from loadtrt.loop.device import Device
    from loadtrt.results.engine_info import EngineInfo


class Part(NamedTuple):
    """A part of an engine: so many lanes, so many buffer sets of each, and the requests of one size; None: of all."""

    contexts: int
    buffers: int
    batch: int | None = None


class Narrowed:
    """A part of an engine that is open: of all that it can do, as `Spins`, `Shares` and `Submits` have it, too.

    input_sets: those of its requests.
    """

    def __init__(self, whole: Engine, part: Part, inputs: Sequence[Arrays]) -> None:
        self._whole: Any = whole
        self.contexts, self.buffers, self.input_sets = part.contexts, part.buffers, inputs
        self.parts, self.batches = whole.parts, whole.batches
        self._batch = part.batch
        self._first = 0  # number of its first input set
        if part.batch is not None:
            place, sets = whole.batches.index(part.batch), len(inputs) // len(whole.batches)
            self.parts, self.batches = whole.parts[place : place + 1], (part.batch,)
            self._first = place * sets
            self.input_sets = inputs[self._first : self._first + sets]
            self.submit = lambda lane, inputs: whole.submit(lane, self._first + inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    @property
    def info(self) -> EngineInfo:
        """That of the whole, with the size of the part's requests."""
        info: EngineInfo = self._whole.info
        return info if self._batch is None else replace(info, batch=self._batch, tensors=tuple(self.parts[0]))

    # What Spins, Shares and Submits ask for: they look at the class, and not at __getattr__, from Python 3.12 on.

    def spins(self) -> Device | None:
        """See Spins: input sets count from the part's first one."""
        device: Device | None = self._whole.spins() if isinstance(self._whole, Spins) else None
        return device and device._replace(programs=device.programs[2 * self._first :])

    async def turn(self) -> int:
        """See Spins."""
        until: int = await self._whole.turn()
        return until

    def error_of(self, fault: int) -> EngineError:
        """See Spins."""
        error: EngineError = self._whole.error_of(fault)
        return error

    @property
    def wakeup(self) -> Wakeup | None:
        """See Shares."""
        return self._shares.wakeup if self._shares else None

    @property
    def clock(self) -> Clock | None:
        """See Shares."""
        return self._shares.clock if self._shares else None

    def next_look(self, *, soon: bool) -> int:
        """See Shares."""
        return self._shares.next_look(soon=soon) if self._shares else 0

    @cached_property
    def _shares(self) -> Shares | None:
        """The whole, where it says when to look at it. Each round asks, and CPython 3.11 takes 20 µs to look at a
        protocol."""
        return self._whole if isinstance(self._whole, Shares) else None

    @property
    def ways(self) -> Sequence[str]:
        """See Submits."""
        return self._whole.ways if isinstance(self._whole, Submits) else ()

    @property
    def way(self) -> int | None:
        """See Submits."""
        return self._whole.way if isinstance(self._whole, Submits) else None

    def use(self, way: int | None, rates: Mapping[str, float | None]) -> None:
        """See Submits."""
        self._whole.use(way, rates)
