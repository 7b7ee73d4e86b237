"""One anyio task drives all lanes: it submits what is due, waits for what finishes, and records it.

Closed loops, open loops and warm-up differ only in where due instants come from. In a closed loop a request is due at
the instant its predecessor completed (zero think time), so that the generator's own turnaround counts as latency too.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from loadtrt.lanes.queue import Queue
from loadtrt.records.records import FAILED, OK, UNSERVED
from loadtrt.units import MILLISECOND_NS, NEVER, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from loadtrt.engines.engine import Completion, Engine
    from loadtrt.lanes.recorder import Recorder
    from loadtrt.load.batcher import Batcher

_SILENCE_NS = 10 * SECOND_NS  # an engine that answers nothing for so long (or for `drain_ns`, if longer) is given up
_LOOK_UP_NS = 100 * MILLISECOND_NS  # how often it looks at its stop flag and deadlines at least, and tells observers


@dataclass(slots=True)
class Stop:
    """Set from anywhere in the event loop. requested: somebody wants the run to end; enough: it has measured enough.
    Either way nothing more comes due, and what waits or is in flight is waited for. cut: what waits is forgotten, as if
    it had not come due: it was neither good nor bad by then.
    """

    requested: bool = False
    enough: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What to drive. due: instants in ns from the start, int64 ascending, or None for a closed loop.

    A closed loop goes on until both `least_ns` have passed and `least_requests` were submitted; an open loop ends with
    its schedule. `most_ns` ends either. `drain_ns`: how long to wait then for what is in flight, or due and not sent.
    order: numbers of input sets, which the requests take in turn. most_waiting: a request that comes due when so many
    wait for a buffer set is dropped; None: none is. batcher: forms batches of requests (open loops alone); each takes
    an input set of the batcher's then, and none of `order`.
    """

    due: npt.NDArray[np.int64] | None
    least_ns: int = 0
    least_requests: int = 0
    most_ns: int | None = None
    drain_ns: int = 10 * SECOND_NS
    order: Sequence[int] = (0,)
    most_waiting: int | None = None
    batcher: Batcher | None = None


@dataclass(frozen=True, slots=True)
class Driven:
    """How it went, in instants of the engine's clock: no request came due after `sent_ns`, all was over at `end_ns`.
    unserved: in flight at the end, or due and never sent."""

    start_ns: int
    sent_ns: int
    end_ns: int
    submitted: int
    unserved: int


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
    the one that has waited longest. on_completion(completion, input set) runs before the buffer set is used again;
    on_tick(submitted, completed) about once a second. Raises EngineError from the engine, lets cancellation through;
    whatever happens, all that was sent or owed by then is in the recorder.
    """
    now_ns, submit, wait, record = engine.now_ns, engine.submit, engine.wait, recorder.record
    several = engine.per_launch
    order, sets, batcher = tuple(load.order), len(load.order), load.batcher
    start = now = recorder.start_ns
    closed = load.due is None
    queue = Queue(np.empty(0, np.int64) if load.due is None else load.due, start, load.most_waiting)
    waiting = queue.waiting
    crowded = 0 if batcher else 1  # a free buffer set takes one of those who wait, unless batches form first
    last = len(load.due) if load.due is not None else NEVER  # how many requests there will be
    least_end = start + load.least_ns
    latest_end = start + (load.most_ns if load.most_ns is not None else NEVER)
    if load.due is not None and last and load.due[-1]:  # offline, all are due at once: nothing ends the sending
        latest_end = min(latest_end, start + int(load.due[-1]))
    patience = max(load.drain_ns, _SILENCE_NS)
    give_up = sent = NEVER  # the drain deadline and the end of sending, once known

    # in_flight[lane]: (due, submitted, enqueued, lateness, input set, due instants of the rest of its batch) in order.
    # levels[k]: lanes with k in flight, the one that has waited longest first. free_since: instants at which buffer
    # sets became free; the n-th to be sent takes the n-th of them, which is when an ideal generator would have sent it.
    in_flight: list[deque[tuple[int, int, int, int, int, Sequence[int]]]] = [deque() for _ in range(engine.contexts)]
    levels: list[dict[int, None]] = [dict.fromkeys(range(engine.contexts)), *({} for _ in range(engine.buffers))]
    free_since = deque([start] * (engine.contexts * engine.buffers))
    submitted = completed = 0
    rest: Sequence[int] = ()
    next_look, next_tick = start + _LOOK_UP_NS, start + SECOND_NS
    progress = start  # when the engine last had nothing to do, or did something
    try:
        while True:
            if queue.next_due <= now:
                queue.admit(now, crowded * len(free_since))
            if give_up == NEVER:
                over = stop.requested or stop.enough or stop.cut or now >= latest_end
                if over:
                    last = submitted if closed else queue.arrived
                    queue.close()
                elif closed and now >= least_end:
                    last = max(submitted, -(-load.least_requests // several) * several)
                if over or submitted + queue.dropped == last:
                    sent, give_up = now, now + load.drain_ns
                    recorder.board.enter("drain")
            if stop.cut and last > submitted + queue.dropped:
                waiting.clear()
                queue.close()
                last = submitted + queue.dropped
            if submitted == completed:
                progress = now
            if completed + queue.dropped == last or now >= give_up or now > progress + patience:
                break

            until, soon = min(now + _LOOK_UP_NS, latest_end if give_up == NEVER else give_up), True
            while free_since and (submitted < last if closed else waiting):
                free = free_since[0]
                due = ready = free if closed else waiting[0]
                if batcher is None:
                    inputs = order[submitted % sets]
                else:
                    count, ready = batcher.next_batch(waiting, all_came=queue.next_due == NEVER)
                    if ready > now:
                        if ready < until:
                            until, soon = ready, False
                        break
                    inputs = batcher.inputs(count)
                    rest = tuple(islice(waiting, 1, count))
                depth = 0
                while not levels[depth]:
                    depth += 1
                lane = next(iter(levels[depth]))
                submit(lane, inputs)
                enqueued = now_ns()
                free_since.popleft()
                del levels[depth][lane]
                levels[depth + 1][lane] = None
                late = now - ready if ready > free else now - free
                began = now
                in_flight[lane].append((due, began, enqueued, late, inputs, rest))
                submitted += 1
                now = enqueued
                if closed:
                    for _ in range(1, several):
                        in_flight[lane].append((due, began, enqueued, late, order[submitted % sets], rest))
                        submitted += 1
                    continue
                waiting.popleft()
                for _ in rest:
                    waiting.popleft()
                    submitted += 1
                if queue.next_due <= now:
                    queue.admit(now, crowded * len(free_since))

            if queue.next_due < until and free_since:
                until, soon = queue.next_due, False  # a free buffer set awaits it: no other is needed before
            for completion in await wait(until, soon=soon):
                lane, _, done, h2d, compute, d2h, error = completion
                if queue.next_due <= done:
                    queue.admit(done, crowded * len(free_since))  # before this buffer set was free
                due, began, enqueued, late, inputs, others = in_flight[lane].popleft()
                depth, unfinished = divmod(len(in_flight[lane]), several)
                if not unfinished:  # the last of its launch
                    del levels[depth + 1][lane]
                    levels[depth][lane] = None
                    free_since.append(done)
                completed += 1
                progress = now
                status = OK if error is None else FAILED
                record(due, began, enqueued, done, h2d, compute, d2h, late, lane, status, inputs)
                for other in others:
                    record(other, began, enqueued, done, h2d, compute, d2h, late, lane, status, inputs)
                    completed += 1
                if error is not None and recorder.first_error is None:
                    recorder.first_error = error
                if on_completion is not None:
                    on_completion(completion, inputs)
            now = now_ns()
            if now >= next_look:
                next_look = now + _LOOK_UP_NS
                recorder.record_dropped(queue.take_dropped())
                recorder.show(submitted, completed, len(waiting), engine.contexts - len(levels[0]))
                if now >= next_tick and on_tick is not None:
                    next_tick = now + SECOND_NS
                    on_tick(submitted, completed)
                now = now_ns()  # all that took its time
    finally:
        end = now_ns()
        recorder.submitted = submitted
        unserved = submitted - completed
        for lane, items in enumerate(in_flight):
            for due, began, enqueued, late, inputs, others in items:
                for one in (due, *others):
                    record(one, began, enqueued, max(end, enqueued), 0, 0, 0, late, lane, UNSERVED, inputs)
        recorder.record_dropped(queue.take_dropped())
        unsent = queue.unsent(end)
        recorder.record_unsent(unsent, end)
        unserved += len(unsent)
        recorder.finish()
    return Driven(start, min(sent, end), end, submitted, unserved)
