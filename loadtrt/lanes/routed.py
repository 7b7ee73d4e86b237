"""The driver of a load of which a worker learns its requests as they come due, from the workers beside it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from loadtrt.lanes.scheduler import Driver
from loadtrt.loop.compiled import spinner
from loadtrt.loop.requests import BEGAN, NEXT_DUE, admit
from loadtrt.loop.routing import COUNT, NEXT, route, spin_routed
from loadtrt.units import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.lanes.scheduler import Driven
    from loadtrt.lanes.shared_router import SharedRouter
    from loadtrt.loop.device import Device
    from loadtrt.loop.requests import State


class RoutedDriver(Driver):
    """Drives a load of which the worker learns its requests as they come due."""

    def _spinning(self, state: State, device: Device) -> Callable[[int, int], int]:
        self.arrays = None  # beside other models it takes its turns through Python
        if self.compiled:
            return spinner(state, device, self._shared.arrays)
        return partial(spin_routed, state, self._shared.view, device)

    @property
    def _shared(self) -> SharedRouter:
        assert self._load.router is not None  # noqa: S101  # session.py looked
        return self._load.router

    def begin(self, on_tick: Callable[[int, int], None] | None = None) -> None:
        super().begin(on_tick)
        self._router = router = self._shared.view
        if router.n[COUNT]:
            router.n[NEXT] = self._queue.n[BEGAN] + router.schedule[0]

    def _look(self, now: int) -> int | None:
        router, state = self._router, self._queue.state
        if router.n[NEXT] <= now:
            route(state, router, now)
        if state.n[NEXT_DUE] <= now:
            admit(state, now)
        # Sending does not stop before it is known where the last requests go.
        until = self._ending.look(min(now, router.n[NEXT] - 1))
        if self._ending.sent_ns != NEVER:  # what others route here afterwards has not come due
            router.n[NEXT] = NEVER
        return until

    def send(self, now: int) -> tuple[int, bool] | None:
        wake = super().send(now)
        return wake and (min(wake[0], self._router.n[NEXT]), True)  # completions decide where requests go

    def close(self, end: int) -> Driven:
        if self._router.n[NEXT] <= end:
            route(self._queue.state, self._router, end)  # what was due by then is in the recorder
        return super().close(end)
