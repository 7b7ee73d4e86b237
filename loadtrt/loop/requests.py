"""The requests of one model as arrays of integers, and the steps of each request. numba compiles the steps, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from loadtrt.units import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Instants = npt.NDArray[np.int64]

_Arrays = TypeVar("_Arrays", bound=tuple[Any, ...])

# Cells of State.n. Instants are ns on the engine's clock.
CLOSED = 0  # 1: a request is due when a buffer set becomes free; 0: when `due` says
PER_LAUNCH = 1  # requests of one submit
PLACES = 2  # requests in flight on a lane at most
LAST = 3  # number of requests in all, sent and to be sent; NEVER while it is open
DRAINS = 4  # 1: it is known that sending has stopped
SUBMITTED = 5
COMPLETED = 6
DROPPED = 7
ARRIVED = 8  # number of requests that have come due
COMING = 9  # number of requests that will have come due at the end
NEXT_DUE = 10  # when the next one comes due; NEVER after the last
HEAD = 11  # place in `due` of the first that waits ...
TAIL = 12  # ... and of the first free place behind those that wait
ROOM = 13  # how many may wait ...
ROOM_FREE = 14  # ... besides so many times the number of free buffer sets
FREE = 15  # number of free buffer sets
FREE_AT = 16  # place in `free` of the one that has been free longest
PROGRESS = 17  # when the engine last completed a request, or had none
DUE = 18  # of the request that is sent next: its due instant, ...
LATE = 19  # ... its lateness, ...
INPUTS = 20  # ... and its input set
BEGAN = 21  # when the load began
LANE_COUNT = 22
SET_COUNT = 23  # number of buffer sets
ORDER_COUNT = 24  # length of `order`
OVER = 25  # 1: beside other models, this one is not driven any more
CELLS = 26

# Cells of State.cursor.
ROW = 0  # place of the next row
PAUSE_AT = 1  # the place before which the recorder must make room

# Cells of a request in flight in State.sent.
SENT_DUE, SENT_AT, SENT_ENQUEUED, SENT_LATE, SENT_INPUTS, SENT_FIRST, SENT_COUNT, SENT_CELLS = range(8)

COLUMNS = 11  # of a row (records/records.py)


class State(NamedTuple):
    """The requests of one model. Each field is a sequence of integers: int64 arrays where they are compiled.

    n: the cells that are named above.
    cursor: where the next row is written.
    due: due instants, ascending, those from ARRIVED on in ns from the start. Requests that wait are [HEAD, TAIL); those
        that were dropped leave no gap.
    dropped: due instants of the dropped ones.
    free: when each free buffer set became free, a ring of lanes × buffers, oldest first. The n-th launch takes the n-th
        of all instants in here, which is when an ideal generator would have sent it.
    after, before: a closed list for each number k of launches in flight: `lanes + k`, which is no lane, then the lanes
        with as many, in the order in which they came to have k.
    unfinished: number of requests in flight on each lane.
    oldest, newest: places in `sent` of the oldest request in flight on each lane, and of the next one.
    sent: SENT_CELLS of each request in flight, a ring of buffers × per_launch for each lane.
    order: numbers of the input sets that requests take in turn.
    rows: rows of COLUMNS cells.
    """

    n: Any
    cursor: Any
    due: Any
    dropped: Any
    free: Any
    after: Any
    before: Any
    unfinished: Any
    oldest: Any
    newest: Any
    sent: Any
    order: Any
    rows: Any


def new_state(
    lanes: int,
    buffers: int,
    per_launch: int,
    due: Instants | None,
    order: Sequence[int],
    rows: Instants,
    cursor: Instants | list[int],
) -> State:
    """Arrays of a State in which nothing has happened, to be begun by `begin`. due: ns from the start; None: a closed
    loop. cursor: a list, where Python alone uses it."""
    n = np.zeros(CELLS, np.int64)
    n[CLOSED], n[PER_LAUNCH], n[PLACES] = due is None, per_launch, buffers * per_launch
    n[LANE_COUNT], n[SET_COUNT], n[ORDER_COUNT] = lanes, lanes * buffers, len(order)
    n[LAST], n[NEXT_DUE], n[ROOM] = NEVER, NEVER, NEVER
    n[FREE], n[COMING] = lanes * buffers, 0 if due is None else len(due)
    after = np.arange(lanes + 1 + buffers)
    after[: lanes + 1] = (*range(1, lanes + 1), 0)
    before = np.argsort(after)
    size = buffers * per_launch
    return State(
        n=n,
        cursor=cursor,
        due=np.zeros(1, np.int64) if due is None else due.copy(),
        dropped=np.zeros(n[COMING], np.int64),
        free=np.zeros(lanes * buffers, np.int64),
        after=after,
        before=before,
        unfinished=np.zeros(lanes, np.int64),
        oldest=size * np.arange(lanes),
        newest=size * np.arange(lanes),
        sent=np.zeros((lanes * size, SENT_CELLS), np.int64),
        order=np.array(order, np.int64),
        rows=rows.reshape(-1),
    )


def begin(s: State, start: int) -> None:
    """Instants count from `start`, when all buffer sets are free."""
    n = s.n
    n[BEGAN], n[PROGRESS] = start, start
    for place in range(len(s.free)):
        s.free[place] = start
    if n[COMING]:
        n[NEXT_DUE] = start + s.due[0]


def view_of(arrays: Any) -> Any:
    """A State or Device over the same memory, for Python: items of a memoryview are Python's numbers."""
    return type(arrays)(*map(_view_of, arrays))


def lists_of(arrays: State) -> State:
    """A State for Python alone: lists, which it reads in a third of the time, besides what is long or others read."""
    small = ("n", "free", "after", "before", "unfinished", "oldest", "newest", "sent", "order")
    state: State = view_of(arrays)._replace(**{name: getattr(arrays, name).tolist() for name in small})
    return state


def _view_of(field: Any) -> Any:
    return field.data if isinstance(field, np.ndarray) and field.ndim == 1 else field


def admit(s: State, until: int) -> None:
    """Requests due by `until` wait, or are dropped where the queue is full. Free buffer sets may be room, too: they
    take the head of the queue before anything else happens."""
    n, due = s.n, s.due
    arrived, coming, head, tail, dropped = n[ARRIVED], n[COMING], n[HEAD], n[TAIL], n[DROPPED]
    room, start, comes = n[ROOM] + n[ROOM_FREE] * n[FREE], n[BEGAN], n[NEXT_DUE]
    while comes <= until:
        if tail - head < room:
            due[tail] = comes
            tail += 1
        else:
            s.dropped[dropped] = comes
            dropped += 1
        arrived += 1
        comes = start + due[arrived] if arrived < coming else NEVER
    n[ARRIVED], n[TAIL], n[DROPPED], n[NEXT_DUE] = arrived, tail, dropped, comes


def move(after: Any, before: Any, lane: int, end: int) -> None:
    """Lane is the last one of the list that closes at `end` now: lanes + its number of launches in flight."""
    one, other = before[lane], after[lane]
    after[one] = other
    before[other] = one
    last = before[end]
    after[last] = before[end] = lane
    before[lane] = last
    after[lane] = end


def take(s: State) -> int:
    """The lane of the next launch, on which it counts as in flight: the one with the fewest launches in flight, of
    several the one that has been idle longest. A buffer set must be free."""
    n, after = s.n, s.after
    n[FREE] -= 1
    at = n[FREE_AT] + 1
    n[FREE_AT] = at if at < n[SET_COUNT] else 0
    none = n[LANE_COUNT]
    lane: int = after[none]
    while lane == none:
        none += 1
        lane = after[none]
    move(after, s.before, lane, none + 1)
    return lane


def next_request(s: State, now: int) -> int:
    """The lane that takes the next request now, as `take`; −1 where no request is due or no buffer set is free. DUE,
    LATE and INPUTS say of the request what they name."""
    n = s.n
    if not n[FREE]:
        return -1
    due = since = s.free[n[FREE_AT]]
    number = n[SUBMITTED]
    if n[CLOSED]:
        if number >= n[LAST]:
            return -1
    else:
        head = n[HEAD]
        if head == n[TAIL]:
            return -1
        due = s.due[head]
        if due > since:
            since = due
    n[DUE] = due
    n[LATE] = now - since
    n[INPUTS] = s.order[number % n[ORDER_COUNT]]
    return take(s)


def sent(s: State, lane: int, now: int, enqueued: int, count: int) -> None:
    """The launch that DUE, LATE and INPUTS are of was submitted at `now`. count: requests of its batch, which are those
    that have waited longest."""
    n, newest = s.n, s.newest
    place, left = newest[lane], n[PER_LAUNCH]
    s.unfinished[lane] += left
    while left:
        request = s.sent[place]  # cell by cell: of a tuple, numba would compile the errors of shapes, too
        request[SENT_DUE], request[SENT_AT], request[SENT_ENQUEUED] = n[DUE], now, enqueued
        request[SENT_LATE], request[SENT_INPUTS] = n[LATE], n[INPUTS]
        request[SENT_FIRST], request[SENT_COUNT] = n[HEAD], count
        n[SUBMITTED] += count
        place += 1
        if not place % n[PLACES]:
            place -= n[PLACES]
        left -= 1
        if left:
            n[INPUTS] = s.order[n[SUBMITTED] % n[ORDER_COUNT]]
    newest[lane] = place
    if not n[CLOSED]:
        n[HEAD] += count


def finish(s: State, lane: int, done: int) -> int:
    """The place in `sent` of the oldest request in flight on `lane`, which has finished. The last one of a launch frees
    its buffer set."""
    n, oldest, unfinished = s.n, s.oldest, s.unfinished[lane] - 1
    if unfinished < 0:
        raise IndexError("the lane has nothing in flight")  # machine code would go on outside of the arrays
    if n[NEXT_DUE] <= done:
        admit(s, done)  # before this buffer set became free
    s.unfinished[lane] = unfinished
    place: int = oldest[lane]
    following = place + 1
    oldest[lane] = following if following % n[PLACES] else following - n[PLACES]
    per_launch = n[PER_LAUNCH]
    if not unfinished % per_launch:
        move(s.after, s.before, lane, n[LANE_COUNT] + unfinished // per_launch)
        free = n[FREE]
        s.free[(n[FREE_AT] + free) % n[SET_COUNT]] = done
        n[FREE] = free + 1
    n[COMPLETED] += s.sent[place][SENT_COUNT]
    return place


def write_row(
    s: State, place: int, due: int, done: int, h2d: int, compute: int, d2h: int, lane: int, status: int
) -> None:
    """Append the row of a request that was at `place` in `sent`; times in ns."""
    rows, request, at = s.rows, s.sent[place], COLUMNS * s.cursor[ROW]
    rows[at] = due
    rows[at + 1] = request[SENT_AT]
    rows[at + 2] = request[SENT_ENQUEUED]
    rows[at + 3] = done
    rows[at + 4] = h2d
    rows[at + 5] = compute
    rows[at + 6] = d2h
    rows[at + 7] = request[SENT_LATE]
    rows[at + 8] = lane
    rows[at + 9] = status
    rows[at + 10] = request[SENT_INPUTS]
    s.cursor[ROW] += 1
