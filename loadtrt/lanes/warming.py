"""Warm-up: the load before measuring, until clocks are steady and every buffer set has worked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import drive
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.scheduler import Load, Stop
    from loadtrt.lanes.session import Session

_REQUESTS = 5  # a buffer set, at least, ...
_MOST_NS = 10 * SECOND_NS  # ... unless that takes longer; clocks that have not settled by then will not


async def warm_up(
    engine: Engine,
    least_ns: int,
    load: Load,
    stop: Stop,
    session: Session,
    ticker: Callable[[int], Callable[[int, int], None] | None],
    clocks_settled: Callable[[], bool | None] | None,
) -> None:
    """Closed loops of a fifth of a second or more until the time is up, every buffer set has worked and clocks are
    steady. What is in flight then is waited for: the next phase needs all buffer sets.

    least_ns: how long to warm up at least; 0: not at all.
    load: the requests, without an end.
    ticker: what `drive` calls about once a second, after so many requests of earlier loops.
    """
    began = engine.now_ns()
    least_requests, most_ns = _REQUESTS * engine.contexts * engine.buffers, max(_MOST_NS, least_ns)
    try:
        while not stop.requested:
            elapsed = engine.now_ns() - began
            worked = session.warmup_requests >= least_requests or elapsed > most_ns or not least_ns
            if clocks_settled is not None and least_ns and elapsed:
                session.clocks_settled = clocks_settled()
            settled = session.clocks_settled is not False or elapsed > most_ns
            if elapsed >= least_ns and worked and settled:
                break
            loop = replace(
                load,
                least_ns=max(least_ns - elapsed, SECOND_NS // 5),
                least_requests=0 if worked else least_requests,
                most_ns=max(most_ns - elapsed, SECOND_NS // 5),
                pace_ns=session.pace_ns,
            )
            recorder = Recorder(engine.contexts, engine.now_ns(), keep=0)
            driven = await drive(engine, recorder, loop, stop, None, ticker(session.warmup_requests))
            session.warmup_requests += driven.submitted - driven.unserved
            driven.require_answers("warm-up")
            session.note_pace(driven)
    finally:
        session.warmup_ns = engine.now_ns() - began
