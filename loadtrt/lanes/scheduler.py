"""One anyio task drives the lanes: it submits requests that are due, waits for completions, and records them.

Closed loops, open loops and warm-up differ only in where due instants come from. In a closed loop a request is due at
the instant its predecessor completed (zero think time), so that the generator's own turnaround counts as latency too.

The work is divided into who is served next (loop/requests.py, lanes/queue.py), when the run is over (`Ending` in
lanes/ending.py), what happens to one model's requests (`Driver`), and the loop (`drive`). Where an engine lets it,
`loop.device.spin` takes the place of most rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from loadtrt.engines.engine import Spins
from loadtrt.errors import EngineError
from loadtrt.lanes.ending import LOOK_NS, PATIENCE_NS, Ending
from loadtrt.lanes.queue import Queue
from loadtrt.loop.compiled import is_compiled, spinner
from loadtrt.loop.device import FAULT, receive, spin
from loadtrt.loop.requests import (
    COMPLETED,
    DUE,
    FREE,
    FREE_AT,
    INPUTS,
    LATE,
    NEXT_DUE,
    OVER,
    PAUSE_AT,
    PROGRESS,
    ROW,
    SUBMITTED,
    admit,
    begin,
    finish,
    next_request,
    sent,
    take,
    view_of,
)
from loadtrt.records.records import FAILED, OK, UNSERVED
from loadtrt.units import NEVER, SECOND_NS, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from loadtrt.engines.engine import Completion, Engine
    from loadtrt.lanes.recorder import Recorder
    from loadtrt.lanes.shared_router import SharedRouter
    from loadtrt.load.request_sizes import Batcher
    from loadtrt.loop.device import Device
    from loadtrt.loop.requests import State


@dataclass(slots=True)
class Stop:
    """Ends a run early; set from anywhere in the event loop. Nothing more comes due then.

    requested, enough: the user wants it to end, or it has measured enough. Requests due or in flight are waited for.
    cut: the run ends now. Requests that wait are forgotten, as if they had not come due.
    """

    requested: bool = False
    enough: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """The requests of one model.

    due: instants in ns from the start, int64, ascending; None: a closed loop.
    least_ns: a closed loop sends at least for so long.
    least_requests: a closed loop sends at least so many.
    most_ns: nothing is sent after so long; None: no limit. An open loop ends with its schedule in any case.
    drain_ns: how long to wait, after sending has stopped, for requests in flight, or due and not sent; None: ten
        seconds, and for requests in flight, once no other waits, as long as the engine completes them.
    patience_ns, pace_ns: as `Ending` has them.
    order: numbers of the input sets that requests take in turn.
    most_waiting: a request that comes due while so many wait is dropped; None: no limit.
    batcher: forms batches of requests and chooses their input sets (open loops only).
    router: what `due` is routed by among workers, which have it all; None: it is of this process.
    """

    due: npt.NDArray[np.int64] | None
    least_ns: int = 0
    least_requests: int = 0
    most_ns: int | None = None
    drain_ns: int | None = 10 * SECOND_NS
    patience_ns: int = 0
    pace_ns: int | None = None
    order: Sequence[int] = (0,)
    most_waiting: int | None = None
    batcher: Batcher | None = None
    router: SharedRouter | None = None


@dataclass(frozen=True, slots=True)
class Driven:
    """What was driven. Instants are ns on the engine's clock.

    sent_ns: when sending stopped: no request came due after it.
    end_ns: when all requests had completed or were given up.
    submitted: number of requests submitted.
    unserved: number of requests in flight at the end, or due and never sent.
    silent_ns: how long the engine, which was given up then, had completed none of its requests; 0 where it was not.
    pace_ns: the longest time without a completion that a completion ended, where that is over a second; else 0.
    """

    start_ns: int
    sent_ns: int
    end_ns: int
    submitted: int
    unserved: int
    silent_ns: int = 0
    pace_ns: int = 0

    def require_answers(self, phase: str = "") -> None:
        """Raises EngineError where the engine was given up. phase: the phase, for one before measuring."""
        if self.silent_ns:
            silent, left = format_duration(self.silent_ns), plural(self.unserved, "request")
            raise EngineError(
                f"{phase and f'{phase}: '}the engine completed nothing for {silent}, and {left} had not been served: "
                "it hangs; if a request may take so long, raise --drain"
            )


class Driver:
    """Drives one model: its load through the lanes of its engine into its recorder.

    A round is `send`, a wait for the engine, `receive`, and from `next_show` on `show`; `close` comes last, whatever
    happened. Nothing in here waits, so that one loop can drive several models, each with its own queue, lanes, ending
    and recorder: a round then waits until the earliest instant that a driver asks for.

    recorder: where its rows go.
    spin: `loop.device.spin` of its arrays; None where the engine does not spin.
    arrays: what `spin_all` drives beside other models, as machine code where `compiled`; None where it cannot.
    start_ns: when the load began.
    next_show: when `show` is to be called again, ns.
    """

    def __init__(
        self,
        engine: Engine,
        recorder: Recorder,
        load: Load,
        stop: Stop,
        on_completion: Callable[[Completion, int], None] | None = None,
    ) -> None:
        self._engine, self.recorder, self._load, self._stop = engine, recorder, load, stop
        self._on_completion = on_completion
        # Requests that batches are formed of, and completions that others look at, pass through Python.
        driven_here = load.batcher is not None or on_completion is not None
        self._spins = engine if isinstance(engine, Spins) and not driven_here else None
        self._device = None if self._spins is None else self._spins.spins()
        self.compiled = compiled = self._device is not None and is_compiled()
        self._queue = queue = Queue(engine, recorder, load, compiled=compiled)
        self.arrays = None if self._device is None else queue.with_device(self._device)
        self.spin = None if self.arrays is None else self._spinning(*self.arrays)

    def _spinning(self, state: State, device: Device) -> Callable[[int, int], int]:
        return spinner(state, device) if self.compiled else partial(spin, state, device)

    def begin(self, on_tick: Callable[[int, int], None] | None = None) -> None:
        """The load begins at `recorder.start_ns`. All that takes long was done before."""
        self._now = self.start_ns = start = self.recorder.start_ns
        self._on_tick = on_tick
        begin(self._queue.state, start)
        self._ending = Ending(self._load, self._stop, self._queue, self.recorder.board, start)
        self.next_show, self._tick = start + LOOK_NS, start + SECOND_NS

    def look(self, now: int, turn_ns: int) -> tuple[int, int] | None:
        """What `spin` takes as its ends; None when all is over. turn_ns: when the engine needs a turn."""
        look = self._look(now)
        soon = min(look or 0, self.next_show, turn_ns)
        return None if look is None else (soon, min(soon + PATIENCE_NS, self._ending.next_change(now)))

    def _look(self, now: int) -> int | None:
        state = self._queue.state
        if state.n[NEXT_DUE] <= now:
            admit(state, now)  # also where sending stops now: they were due before
        return self._ending.look(now)

    def make_room(self) -> None:
        """After `spin`: where it ended for want of room for rows, make it, and write those of the requests that were
        found: the load may end before it spins again. Raises EngineError where a call failed."""
        assert self._device and self._spins  # noqa: PT018, S101
        n, cursor = self._device.n, self.recorder.cursor
        if cursor[ROW] == cursor[PAUSE_AT]:
            self.recorder.go_on()
            receive(self._queue.state, view_of(self._device))
        if fault := int(n[FAULT]):
            n[FAULT] = 0
            raise self._spins.error_of(fault)

    def send(self, now: int) -> tuple[int, bool] | None:
        """Submit the requests that are due while there are free buffer sets.

        Returns what `Engine.wait` takes: until when to wait at most, and whether a completion matters before. None when
        all is over.
        """
        n, until = self._queue.n, self._look(now)
        if until is None:
            return None
        if self._load.batcher is not None:
            until, soon = self._send_batches(self._load.batcher, now, until)
        else:
            soon = True
            self._send_single(now)
        if n[NEXT_DUE] < until and n[FREE]:
            return n[NEXT_DUE], False  # a free buffer set waits for this request: it needs no other before
        return until, soon

    def _send_single(self, now: int) -> None:
        """Each free buffer set takes the request that has waited longest; in a closed loop one due since it is free."""
        state, n, submit, now_ns = self._queue.state, self._queue.n, self._engine.submit, self._engine.now_ns
        while (lane := next_request(state, now)) >= 0:
            submit(lane, n[INPUTS])
            enqueued = now_ns()
            sent(state, lane, now, enqueued, 1)
            now = enqueued
            if n[NEXT_DUE] <= now:
                admit(state, now)
        self._now = now

    def _send_batches(self, batcher: Batcher, now: int, until: int) -> tuple[int, bool]:
        """Each free buffer set takes a batch of the requests that have waited longest, once it may go."""
        queue, state, n, soon = self._queue, self._queue.state, self._queue.n, True
        while n[FREE] and (waiting := queue.due_waiting):
            count, ready = batcher.next_batch(waiting, all_came=n[NEXT_DUE] == NEVER)
            if ready > now:
                if ready < until:
                    until, soon = ready, False
                break
            n[DUE], n[LATE], n[INPUTS] = waiting[0], now - max(ready, state.free[n[FREE_AT]]), batcher.inputs(count)
            lane = take(state)
            self._engine.submit(lane, n[INPUTS])
            enqueued = self._engine.now_ns()
            sent(state, lane, now, enqueued, count)
            now = enqueued
            if n[NEXT_DUE] <= now:
                admit(state, now)
        self._now = now
        return until, soon

    def receive(self, completions: Sequence[Completion]) -> None:
        """Record requests that have finished, and free their buffer sets."""
        if not completions:
            return
        recorder, on_completion, state = self.recorder, self._on_completion, self._queue.state
        requests, record = state.sent, recorder.record
        state.n[PROGRESS] = self._now
        for completion in completions:
            lane, _, done, h2d, compute, d2h, error = completion
            due, began, enqueued, late, inputs, first, count = requests[finish(state, lane, done)]
            if error is None:
                status = OK
            else:
                status, recorder.first_error = FAILED, recorder.first_error or error
            record(due, began, enqueued, done, h2d, compute, d2h, late, lane, status, inputs)
            if count > 1:
                for other in state.due[first + 1 : first + count]:
                    record(other, began, enqueued, done, h2d, compute, d2h, late, lane, status, inputs)
            if on_completion is not None:
                on_completion(completion, inputs)

    def show(self, now: int) -> None:
        """Tell observers the state of the run, and call `on_tick` about once a second."""
        n = self._queue.n
        self.next_show = now + LOOK_NS
        self.recorder.record_dropped(self._queue.take_dropped())
        busy = sum(map(bool, self._queue.state.unfinished))  # lanes
        self.recorder.show(n[SUBMITTED], n[COMPLETED], self._queue.waiting, busy)
        if now >= self._tick and self._on_tick is not None:
            self._tick = now + SECOND_NS
            self._on_tick(n[SUBMITTED], n[COMPLETED])

    def close(self, end: int) -> Driven:
        """Record the requests sent or due and never served, and end the recorder, which counts no rows yet."""
        recorder, queue, n, ending = self.recorder, self._queue, self._queue.n, self._ending
        recorder.submitted = submitted = int(n[SUBMITTED])
        for lane, (oldest, began, enqueued, late, inputs, first, count) in queue.left_in_flight():
            for due in (oldest, *queue.state.due[first + 1 : first + count]):
                recorder.record(due, began, enqueued, max(end, enqueued), 0, 0, 0, late, lane, UNSERVED, inputs)
        recorder.record_dropped(queue.take_dropped())
        unsent = queue.unsent(end)
        recorder.record_unsent(unsent, end)
        recorder.end(end)
        n[OVER] = 1
        unserved, sent_ns = submitted - int(n[COMPLETED]) + len(unsent), min(ending.sent_ns, end)
        return Driven(recorder.start_ns, sent_ns, end, submitted, unserved, ending.silent_ns, ending.pace_ns)


async def drive(
    engine: Engine,
    recorder: Recorder,
    load: Load,
    stop: Stop,
    on_completion: Callable[[Completion, int], None] | None = None,
    on_tick: Callable[[int, int], None] | None = None,
) -> Driven:
    """Drive `load` through the engine's lanes from `recorder.start_ns` until it has ended and drained, or is stopped.

    Requests are served in the order they are due, on the lane that `take` chooses. on_completion(completion, input set)
    runs before the buffer set is used again; on_tick(submitted, completed) about once a second. Raises EngineError from
    the engine and lets cancellation through; whatever happens, every request sent or due by then is in the recorder.
    """
    return await drive_with(Driver(engine, recorder, load, stop, on_completion), engine, on_tick)


async def drive_with(driver: Driver, engine: Engine, on_tick: Callable[[int, int], None] | None = None) -> Driven:
    """As `drive`, with a driver that was made before the recorder began: that may take longer than many a request."""
    driver.begin(on_tick)
    try:
        if driver.spin is None:
            await _wait(engine, driver)
        else:
            await _spin(engine, driver, driver.spin)
    finally:
        driven = driver.close(engine.now_ns())
        driver.recorder.count()
    return driven


async def _wait(engine: Engine, driver: Driver) -> None:
    """Rounds of a driver on an engine that is waited for."""
    now_ns, wait, now = engine.now_ns, engine.wait, driver.start_ns
    while (wake := driver.send(now)) is not None:
        driver.receive(await wait(wake[0], soon=wake[1]))
        if (now := now_ns()) >= driver.next_show:
            driver.show(now)
            now = now_ns()  # showing took its time


async def _spin(engine: Engine, driver: Driver, spin: Callable[[int, int], int]) -> None:
    """Rounds of a driver on an engine that spins."""
    assert isinstance(engine, Spins)  # noqa: S101  # it gave the device
    turn_ns = await engine.turn()
    while (ends := driver.look(engine.now_ns(), turn_ns)) is not None:  # a turn takes its time
        now = spin(*ends)
        driver.make_room()
        if now >= driver.next_show:
            driver.show(now)
        turn_ns = await engine.turn()
