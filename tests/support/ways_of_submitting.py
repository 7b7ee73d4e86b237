"""A simulated engine whose ways of submitting differ in speed, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulation import parse_simulation
from loadtrt.lanes.scheduler import Stop

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.asked.model import Model


class Ways(SimulatedEngine):
    """Serves a request in as many µs as its way takes.

    alone: µs of the first lane, where they are others.
    used: the ways in turn, with the instants from which they were used.
    stop_at: the instant at which the user stops the run.
    """

    def __init__(self, model: Model, micros: dict[str, int], law: str = "", **alone: int) -> None:
        given = parse_simulation(f"service={max(micros.values())}us,clock=virtual{law}", 1)
        super().__init__(given, contexts=model.contexts, buffers=model.buffers)
        self._micros, self._alone = micros, micros | alone
        self.ways: Sequence[str] = ()
        self.way: int | None = None
        self.used: list[tuple[int | None, int]] = []
        self.stop, self.stop_at = Stop(), 1 << 62

    def allocate(self, inputs: Any) -> None:
        super().allocate(inputs)
        self.ways = tuple(self._micros)
        self.use(None, {})
        self.used.clear()

    def use(self, way: int | None, rates: Mapping[str, float | None]) -> None:
        assert not any(self._in_flight), "a request is in flight"
        self.way = way
        name, longest = self.ways[way or 0], max(self._micros.values())
        self._slowness = [(self._micros if lane else self._alone)[name] / longest for lane in range(self.contexts)]
        self.used.append((way, self.now_ns()))
        self.info = replace(self.info, mode={"submit": name}, submit_rates=rates or dict.fromkeys(self.ways))

    def submit(self, lane: int, inputs: int) -> None:
        self.stop.requested |= self.now_ns() >= self.stop_at
        super().submit(lane, inputs)
