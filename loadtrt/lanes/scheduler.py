"""One anyio task drives the lanes: it submits requests that are due, waits for completions, and records them.

Closed loops, open loops and warm-up differ only in where due instants come from. In a closed loop a request is due at
the instant its predecessor completed (zero think time), so that the generator's own turnaround counts as latency too.

The work is divided into who is served next (`Queue` and `Lanes` in lanes/queue.py), when the run is over (`Ending` in
lanes/ending.py), what happens to one model's requests (`Driver`), and the loop (`drive`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.errors import EngineError
from loadtrt.lanes.ending import LOOK_NS, Ending
from loadtrt.lanes.queue import Lanes, Queue
from loadtrt.records.records import FAILED, OK, UNSERVED
from loadtrt.units import NEVER, SECOND_NS, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from loadtrt.engines.engine import Completion, Engine
    from loadtrt.lanes.recorder import Recorder
    from loadtrt.load.request_sizes import Batcher


@dataclass(slots=True)
class Stop:
    """Ends a run early; set from anywhere in the event loop. Nothing more comes due then.

    requested: the user wants the run to end. Requests that wait or are in flight are waited for.
    enough: the run has measured enough. Requests that wait or are in flight are waited for.
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

    submitted: number of requests submitted.
    completed: number of requests the engine has completed.
    next_show: when `show` is to be called again, ns.
    """

    def __init__(
        self,
        engine: Engine,
        recorder: Recorder,
        load: Load,
        stop: Stop,
        on_completion: Callable[[Completion, int], None] | None,
        on_tick: Callable[[int, int], None] | None,
    ) -> None:
        start = recorder.start_ns
        self._engine, self._recorder, self._load = engine, recorder, load
        self._order = tuple(load.order)
        self._on_completion, self._on_tick = on_completion, on_tick
        self._queue = Queue(np.empty(0, np.int64) if load.due is None else load.due, start, load.most_waiting)
        self._lanes = Lanes(engine.contexts, engine.buffers, engine.per_launch, start)
        self._ending = Ending(load, stop, self._queue, recorder.board, start)
        self._admits = 0 if load.batcher else 1  # requests that a free buffer set takes before any batch is formed
        self._now = start
        self.submitted = self.completed = 0
        self.next_show, self._tick = start + LOOK_NS, start + SECOND_NS

    def send(self, now: int) -> tuple[int, bool] | None:
        """Submit the requests that are due while there are free buffer sets.

        Returns what `Engine.wait` takes: until when to wait at most, and whether a completion matters before. None when
        all is over.
        """
        queue, ending = self._queue, self._ending
        if queue.next_due <= now:
            queue.admit(now, self._admits * len(self._lanes.free_since))
        until = ending.look(now, self.submitted, self.completed)
        if until is None:
            return None
        if self._load.due is not None:
            return self._send_due(now, until)
        self._send_next(now)
        return until, True

    def _send_next(self, now: int) -> None:
        """Closed loop: each free buffer set takes a launch, due since the buffer set is free."""
        engine, lanes, order, last = self._engine, self._lanes, self._order, self._ending.last
        submit, now_ns, take, in_flight = engine.submit, engine.now_ns, lanes.take, lanes.in_flight
        free_since, sets, others, submitted = lanes.free_since, len(order), range(1, engine.per_launch), self.submitted
        try:
            while free_since and submitted < last:
                due, inputs = free_since[0], order[submitted % sets]
                lane = take()
                submit(lane, inputs)
                enqueued = now_ns()
                sent = in_flight[lane]
                sent.append((due, now, enqueued, now - due, inputs, ()))
                submitted += 1
                for _ in others:
                    sent.append((due, now, enqueued, now - due, order[submitted % sets], ()))
                    submitted += 1
                now = enqueued
        finally:
            self._now, self.submitted = now, submitted

    def _send_due(self, now: int, until: int) -> tuple[int, bool]:
        """Open loop: each free buffer set takes the request, or the batch, that has waited longest."""
        queue, lanes, order, batcher = self._queue, self._lanes, self._order, self._load.batcher
        submit, now_ns, take, in_flight = self._engine.submit, self._engine.now_ns, lanes.take, lanes.in_flight
        waiting, free_since, sets, submitted = queue.waiting, lanes.free_since, len(order), self.submitted
        others: Sequence[int] = ()
        soon = True
        try:
            while free_since and waiting:
                free, due = free_since[0], waiting[0]
                ready = due
                if batcher is None:
                    inputs = order[submitted % sets]
                else:
                    count, ready = batcher.next_batch(waiting, all_came=queue.next_due == NEVER)
                    if ready > now:
                        if ready < until:
                            until, soon = ready, False
                        break
                    inputs, others = batcher.inputs(count), tuple(islice(waiting, 1, count))
                lane = take()
                submit(lane, inputs)
                enqueued = now_ns()
                late = now - ready if ready > free else now - free
                in_flight[lane].append((due, now, enqueued, late, inputs, others))
                waiting.popleft()
                submitted += 1
                if others:
                    submitted += len(others)
                    for _ in others:
                        waiting.popleft()
                now = enqueued
                if queue.next_due <= now:
                    queue.admit(now, self._admits * len(free_since))
        finally:
            self._now, self.submitted = now, submitted
        if queue.next_due < until and free_since:
            return queue.next_due, False  # a free buffer set waits for this request: it needs no other before
        return until, soon

    def receive(self, completions: Sequence[Completion]) -> None:
        """Record requests that have finished, and free their buffer sets."""
        if not completions:
            return
        queue, recorder, on_completion = self._queue, self._recorder, self._on_completion
        finish, free_since, record = self._lanes.finish, self._lanes.free_since, recorder.record
        self._ending.progress_ns = self._now
        self.completed += len(completions)
        for completion in completions:
            lane, _, done, h2d, compute, d2h, error = completion
            if queue.next_due <= done:
                queue.admit(done, self._admits * len(free_since))  # before this buffer set became free
            due, began, enqueued, late, inputs, others = finish(lane, done)
            if error is None:
                status = OK
            else:
                status, recorder.first_error = FAILED, recorder.first_error or error
            record(due, began, enqueued, done, h2d, compute, d2h, late, lane, status, inputs)
            if others:
                self.completed += len(others)
                for other in others:
                    record(other, began, enqueued, done, h2d, compute, d2h, late, lane, status, inputs)
            if on_completion is not None:
                on_completion(completion, inputs)

    def show(self, now: int) -> None:
        """Tell observers the state of the run, and call `on_tick` about once a second."""
        self.next_show = now + LOOK_NS
        self._recorder.record_dropped(self._queue.take_dropped())
        self._recorder.show(self.submitted, self.completed, len(self._queue.waiting), self._lanes.busy)
        if now >= self._tick and self._on_tick is not None:
            self._tick = now + SECOND_NS
            self._on_tick(self.submitted, self.completed)

    def close(self, end: int) -> Driven:
        """Record the requests that were sent or due and never served, and finish the recorder."""
        recorder = self._recorder
        recorder.submitted = self.submitted
        for lane, requests in enumerate(self._lanes.in_flight):
            for first_due, began, enqueued, late, inputs, others in requests:
                for due in (first_due, *others):
                    recorder.record(due, began, enqueued, max(end, enqueued), 0, 0, 0, late, lane, UNSERVED, inputs)
        recorder.record_dropped(self._queue.take_dropped())
        unsent = self._queue.unsent(end)
        recorder.record_unsent(unsent, end)
        recorder.finish(end)
        unserved = self.submitted - self.completed + len(unsent)
        ending = self._ending
        sent_ns = min(ending.sent_ns, end)
        return Driven(recorder.start_ns, sent_ns, end, self.submitted, unserved, ending.silent_ns, ending.pace_ns)


async def drive(
    engine: Engine,
    recorder: Recorder,
    load: Load,
    stop: Stop,
    on_completion: Callable[[Completion, int], None] | None = None,
    on_tick: Callable[[int, int], None] | None = None,
) -> Driven:
    """Drive `load` through the engine's lanes from `recorder.start_ns` until it has ended and drained, or is stopped.

    Requests are served in the order they are due. Each takes the lane with the fewest requests in flight, of several
    the one that has been idle longest. on_completion(completion, input set) runs before the buffer set is used again;
    on_tick(submitted, completed) about once a second. Raises EngineError from the engine and lets cancellation through;
    whatever happens, every request sent or due by then is in the recorder.
    """
    driver = Driver(engine, recorder, load, stop, on_completion, on_tick)
    now_ns, wait = engine.now_ns, engine.wait
    now = recorder.start_ns
    try:
        while (wake := driver.send(now)) is not None:
            driver.receive(await wait(wake[0], soon=wake[1]))
            now = now_ns()
            if now >= driver.next_show:
                driver.show(now)
                now = now_ns()  # showing took its time
    finally:
        driven = driver.close(now_ns())
    return driven
