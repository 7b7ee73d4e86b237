"""Which way of submitting serves more requests is tried as warm-up begins: it depends on the host as on the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from loadtrt.engines.engine import Submits
    from loadtrt.lanes.scheduler import Driven, Stop

_TRIAL_NS = 20 * MILLISECOND_NS  # of one way, at least, ...
_TRIAL_REQUESTS = 8  # ... and so many requests for each buffer set
_ROUNDS = 3  # in which the ways take turns, after one that is not counted: clocks rise, and caches fill
_SLOW_NS = 10 * MILLISECOND_NS  # where a request takes longer, what a way saves of each could not be seen
_LEAST_GAIN = 1.02  # the usual way is left for no less


async def choose_way(
    engine: Submits, places: int, drive_for: Callable[[int, int, int], Awaitable[Driven]], stop: Stop
) -> None:
    """Have the engine submit in the way that serves most requests in a closed loop; in its usual way where it is slow,
    or the run is stopped meanwhile.

    places: requests in flight at most.
    drive_for: drives a closed loop that sends for at least so many ns and requests, and at most so many ns.
    """
    ways = range(len(engine.ways))
    rates: dict[int, list[float]] = {way: [] for way in ways}
    for number in range(_ROUNDS + 1):
        # The first of one round is the last of the next, as the device may be getting faster or slower all the time.
        for way in reversed(ways) if number % 2 else ways:
            engine.use(way, {})
            driven = await drive_for(_TRIAL_NS, _TRIAL_REQUESTS * places, _TRIAL_REQUESTS * _SLOW_NS)
            served, took_ns = driven.submitted - driven.unserved, driven.end_ns - driven.start_ns
            if stop.requested or took_ns * places > _SLOW_NS * served:
                engine.use(0, {})
                return
            if number:
                rates[way].append(served * SECOND_NS / took_ns)
    middle = {way: sorted(of_way)[_ROUNDS // 2] for way, of_way in rates.items()}
    best = max(ways, key=lambda way: middle[way] * (1 if way else _LEAST_GAIN))
    engine.use(best, {engine.ways[way]: rate for way, rate in middle.items()})
