"""The instant at which measuring begins: waiting for it, and what it was on the wall clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import anyio

from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.scheduler import Stop

    # Unix time in ns; or what is asked for it once all else is done, until it is known.
    StartAt: TypeAlias = int | Callable[[], int | None]

_READINGS = 10
_SLICE_NS = 50 * MILLISECOND_NS  # of sleep, between two looks at the clocks and at the stop flag
_ASK_NS = 2 * MILLISECOND_NS  # between two questions for the instant
_FINE_NS = 5 * MILLISECOND_NS  # what the engine waits for, which polls: a sleep may end a millisecond late


@dataclass(frozen=True, slots=True)
class WallClock:
    """The wall clock (Unix time, ns) at an instant of an engine's clock: that instant + offset_ns, ± error_ns."""

    offset_ns: int
    error_ns: int


def wall_clock(now_ns: Callable[[], int]) -> WallClock:
    """Map the clock `now_ns` to the wall clock: the narrowest of several readings between two of the wall clock."""
    readings = [(time.time_ns(), now_ns(), time.time_ns()) for _ in range(_READINGS)]
    before, instant, after = min(readings, key=lambda reading: abs(reading[2] - reading[0]))
    return WallClock((before + after) // 2 - instant, abs(after - before) // 2 + 1)


async def wait_for_start(
    engine: Engine, start_at: StartAt, stop: Stop, begin: Callable[[], None]
) -> tuple[WallClock, int | None]:
    """Wait until `start_at`, or until `stop.requested`; returns the mapping of clocks, and the instant (Unix time, ns),
    None where it was not known before. `begin` is called once, as short a time before as it may take: until then nobody
    is told that this measures.

    A virtual clock stands still while this waits, and what it shows at its next instant is `start_at`: it is there at
    once, and never late, however busy the host is.
    """
    instant = start_at() if callable(start_at) else start_at
    while callable(start_at) and instant is None and not stop.requested:
        await anyio.sleep(_ASK_NS / SECOND_NS)
        instant = start_at()
    clock = wall_clock(engine.now_ns)
    if instant is None or engine.info.virtual_time:
        begin()
    if instant is None:
        return clock, None
    if engine.info.virtual_time:
        return WallClock(instant - engine.now_ns(), 0), instant
    while not stop.requested and (left_ns := instant - clock.offset_ns - engine.now_ns()) > _FINE_NS:
        await anyio.sleep(min(left_ns - _FINE_NS, _SLICE_NS) / SECOND_NS)
        clock = wall_clock(engine.now_ns)
    begin()
    until = instant - clock.offset_ns
    while not stop.requested and engine.now_ns() < until:
        await engine.wait(until)
    return clock, instant
