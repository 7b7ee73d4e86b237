"""Which way of submitting serves more requests is measured, before warm-up: it depends on the host as on the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.units import MILLISECOND_NS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from loadtrt.engines.engine import Submits
    from loadtrt.lanes.scheduler import Driven

_TRIAL_NS = 20 * MILLISECOND_NS  # of one way, at least, ...
_TRIAL_REQUESTS = 8  # ... and so many requests for each buffer set
_ROUNDS = 3  # in which the ways take turns, after one that is not counted: clocks rise, and caches fill
_SLOW_NS = 10 * MILLISECOND_NS  # a buffer set that serves a request in more time gains nothing that could be seen
_LEAST_GAIN = 1.02  # the usual way is left for no less


async def choose_way(engine: Submits, places: int, drive_for: Callable[[int, int], Awaitable[Driven]]) -> None:
    """Have the engine submit in the way that serves most requests in a closed loop.

    places: requests in flight at most.
    drive_for: drives a closed loop for at least so many ns and requests.
    """
    rates: dict[int, list[float]] = {way: [] for way in range(len(engine.ways))}
    for number in range(_ROUNDS + 1):
        for way, of_way in rates.items():
            engine.use(way, {})
            driven = await drive_for(_TRIAL_NS, _TRIAL_REQUESTS * places)
            served, took_ns = driven.submitted - driven.unserved, driven.end_ns - driven.start_ns
            if not served or took_ns * places > _SLOW_NS * served:
                engine.use(0, {})
                return
            if number:
                of_way.append(served / took_ns)
    best = {way: sorted(of_way)[_ROUNDS // 2] * 1e9 for way, of_way in rates.items()}
    way = max(best, key=lambda way: best[way] * (1 if way else _LEAST_GAIN))
    engine.use(way, {engine.ways[way]: rate for way, rate in best.items()})
