"""An engine over a device of C callbacks, which the loop drives as machine code, as Python, or by submit and wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import anyio.lowlevel

from loadtrt.errors import EngineError
from loadtrt.loop import device as loop
from loadtrt.loop.requests import view_of
from loadtrt.units import MILLISECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

    from callback_device import CallbackDevice
    from loadtrt.engines.engine import Completion
    from loadtrt.loop.device import Device

    Way = Literal["compiled", "python", "waits"]

TURN_NS = 5 * MILLISECOND_NS


class SpinningEngine:
    """What the scheduler needs of an engine.

    way: how it is driven. on_turn: called at each turn of the event loop.
    """

    def __init__(self, simulated: CallbackDevice, way: Way, on_turn: Callable[[], None] = lambda: None) -> None:
        self.contexts, self.buffers, self.per_launch = simulated.lanes, simulated.slots, simulated.per_launch
        self._simulated, self._way, self._on_turn = simulated, way, on_turn
        self._device = simulated.device(compiled=way == "compiled")
        self._view = view_of(simulated.device(compiled=False) if way == "waits" else self._device)
        self._turned = self.now_ns()

    def now_ns(self) -> int:
        return loop.clock(self._view)

    def spins(self) -> Device | None:
        return None if self._way == "waits" else self._device

    async def turn(self) -> int:
        if self.now_ns() >= self._turned + TURN_NS:
            self._on_turn()
            await anyio.lowlevel.checkpoint()
            self._turned = self._simulated.anchor_ns = self._view.anchor[1] = self.now_ns()
        return self._turned + TURN_NS

    def error_of(self, fault: int) -> EngineError:
        return EngineError(f"call {fault // loop.FAULT_KIND} failed with {fault % loop.FAULT_KIND}")

    def submit(self, lane: int, inputs: int) -> None:
        if fault := loop.launch(self._view, lane, inputs):
            raise self.error_of(fault)

    async def wait(self, until_ns: int, *, soon: bool = True) -> Sequence[Completion]:  # it never sleeps
        view = self._view
        while True:
            await self.turn()
            if fault := loop.poll(view, self.per_launch > 1):
                raise self.error_of(fault)
            cells, count = loop.FOUND_CELLS, view.n[loop.FOUND]
            found = view.found[: cells * count].tolist()
            if found or self.now_ns() >= until_ns:
                return [loop.Completion(*found[at : at + cells]) for at in range(0, cells * count, cells)]


def use(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """Have the scheduler drive engines that spin in this way. Turns are at most 16 ms apart: spans are exact so far."""
    monkeypatch.setattr("loadtrt.lanes.scheduler.PATIENCE_NS", 2 * TURN_NS)
    if way == "python":
        monkeypatch.setattr("loadtrt.lanes.scheduler.is_compiled", lambda: False)
