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
BUFFERS = 2  # submits in flight on a lane at most
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
IDLE = 17  # number of lanes with nothing in flight
PROGRESS = 18  # when the engine last completed a request, or had none
DUE = 19  # of the request that is sent next: its due instant, ...
LATE = 20  # ... its lateness, ...
INPUTS = 21  # ... and its input set
BEGAN = 22  # when the load began
CELLS = 23

# Cells of State.cursor.
ROW = 0  # place of the next row
PAUSE_AT = 1  # the place before which the recorder must make room

# Cells of a lane in State.lanes.
LEVEL, NEXT, PREVIOUS, OLDEST, UNFINISHED, LANE_CELLS = range(6)

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
    lanes: LANE_CELLS of each lane: how many launches are in flight on it, its neighbours in the list of lanes with as
        many, and the ring of its requests in `sent`.
    levels: first and last lane of the list of lanes with k launches in flight, in the order in which they came to have
        k; −1 where there is none.
    sent: SENT_CELLS of each request in flight, a ring of buffers × per_launch for each lane.
    order: numbers of the input sets that requests take in turn.
    rows: rows of COLUMNS cells.
    """

    n: Any
    cursor: Any
    due: Any
    dropped: Any
    free: Any
    lanes: Any
    levels: Any
    sent: Any
    order: Any
    rows: Any


def new_state(
    lanes: int, buffers: int, per_launch: int, due: Instants | None, order: Sequence[int], rows: Instants,
    cursor: Instants,
) -> State:  # fmt: skip
    """Arrays of a State in which nothing has happened, to be begun by `begin`. due: ns from the start; None: a closed
    loop."""
    n = np.zeros(CELLS, np.int64)
    n[CLOSED], n[PER_LAUNCH], n[BUFFERS] = due is None, per_launch, buffers
    n[LAST], n[NEXT_DUE], n[ROOM] = NEVER, NEVER, NEVER
    n[FREE], n[IDLE], n[COMING] = lanes * buffers, lanes, 0 if due is None else len(due)
    linked = np.zeros((lanes, LANE_CELLS), np.int64)
    linked[:, NEXT], linked[:, PREVIOUS] = np.arange(1, lanes + 1), np.arange(-1, lanes - 1)
    linked[-1, NEXT] = -1
    levels = np.full(2 * (buffers + 1), -1, np.int64)
    levels[:2] = 0, lanes - 1
    return State(
        n=n,
        cursor=cursor,
        due=np.zeros(1, np.int64) if due is None else due.copy(),
        dropped=np.zeros(n[COMING], np.int64),
        free=np.zeros(lanes * buffers, np.int64),
        lanes=linked.reshape(-1),
        levels=levels,
        sent=np.zeros(lanes * buffers * per_launch * SENT_CELLS, np.int64),
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


def new_lanes(lanes: int, buffers: int) -> State:
    """A State for `take`, `sent` and `finish` alone, for Python."""
    nothing = np.zeros(0, np.int64)
    return lists_of(new_state(lanes, buffers, 1, None, (0,), nothing, nothing))


def view_of(arrays: Any) -> Any:
    """A State or Device over the same memory, for Python: items of a memoryview are Python's numbers."""
    return type(arrays)(*(field.data if isinstance(field, np.ndarray) else field for field in arrays))


def lists_of(arrays: State) -> State:
    """A State for Python alone: lists, besides what is long or others read."""
    view = view_of(arrays)
    small = {name: getattr(arrays, name).tolist() for name in ("n", "free", "lanes", "levels", "sent", "order")}
    state: State = view._replace(**small)
    return state


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


def move(s: State, lane: int, level: int) -> None:
    """Lane has `level` launches in flight now: it is the last of those that have as many."""
    lanes, levels = s.lanes, s.levels
    at = LANE_CELLS * lane
    before, after, old = lanes[at + PREVIOUS], lanes[at + NEXT], 2 * lanes[at + LEVEL]
    if before < 0:
        levels[old] = after
    else:
        lanes[LANE_CELLS * before + NEXT] = after
    if after < 0:
        levels[old + 1] = before
    else:
        lanes[LANE_CELLS * after + PREVIOUS] = before
    if not old:
        s.n[IDLE] -= 1
    if not level:
        s.n[IDLE] += 1
    last = levels[2 * level + 1]
    lanes[at + LEVEL], lanes[at + NEXT], lanes[at + PREVIOUS] = level, -1, last
    levels[2 * level + 1] = lane
    if last < 0:
        levels[2 * level] = lane
    else:
        lanes[LANE_CELLS * last + NEXT] = lane


def take(s: State) -> int:
    """The lane of the next launch, on which it counts as in flight: the one with the fewest launches in flight, of
    several the one that has been idle longest. A buffer set must be free."""
    n, levels = s.n, s.levels
    n[FREE_AT] = n[FREE_AT] + 1 if n[FREE_AT] + 1 < len(s.free) else 0
    n[FREE] -= 1
    level = 0
    while levels[2 * level] < 0:
        level += 1
    lane: int = levels[2 * level]
    move(s, lane, level + 1)
    return lane


def next_request(s: State, now: int) -> int:
    """The lane that takes the next request now, as `take`; −1 where no request is due or no buffer set is free. DUE,
    LATE and INPUTS say of the request what they name."""
    n = s.n
    if not n[FREE]:
        return -1
    due = since = s.free[n[FREE_AT]]
    if n[CLOSED]:
        if n[SUBMITTED] >= n[LAST]:
            return -1
    else:
        if n[HEAD] == n[TAIL]:
            return -1
        due = s.due[n[HEAD]]
        if due > since:
            since = due
    n[DUE], n[LATE], n[INPUTS] = due, now - since, s.order[n[SUBMITTED] % len(s.order)]
    return take(s)


def sent(s: State, lane: int, now: int, enqueued: int, count: int) -> None:
    """The launch that DUE, LATE and INPUTS are of was submitted at `now`. count: requests of its batch, which are those
    that have waited longest."""
    n, cells, order = s.n, s.sent, s.order
    at, size = LANE_CELLS * lane, n[BUFFERS] * n[PER_LAUNCH]
    inputs = n[INPUTS]
    for _ in range(n[PER_LAUNCH]):
        place = SENT_CELLS * (lane * size + (s.lanes[at + OLDEST] + s.lanes[at + UNFINISHED]) % size)
        cells[place + SENT_DUE], cells[place + SENT_AT], cells[place + SENT_ENQUEUED] = n[DUE], now, enqueued
        cells[place + SENT_LATE], cells[place + SENT_INPUTS] = n[LATE], inputs
        cells[place + SENT_FIRST], cells[place + SENT_COUNT] = n[HEAD], count
        s.lanes[at + UNFINISHED] += 1
        n[SUBMITTED] += count
        inputs = order[n[SUBMITTED] % len(order)]
    if not n[CLOSED]:
        n[HEAD] += count


def finish(s: State, lane: int, done: int) -> int:
    """The place in `sent` of the oldest request in flight on `lane`, which has finished. The last one of a launch frees
    its buffer set."""
    n, at = s.n, LANE_CELLS * lane
    size = n[BUFFERS] * n[PER_LAUNCH]
    if n[NEXT_DUE] <= done:
        admit(s, done)  # before this buffer set became free
    oldest, unfinished = s.lanes[at + OLDEST], s.lanes[at + UNFINISHED] - 1
    if unfinished < 0:
        raise IndexError("the lane has nothing in flight")  # machine code would go on outside of the arrays
    s.lanes[at + OLDEST], s.lanes[at + UNFINISHED] = oldest + 1 if oldest + 1 < size else 0, unfinished
    if not unfinished % n[PER_LAUNCH]:
        move(s, lane, unfinished // n[PER_LAUNCH])
        s.free[(n[FREE_AT] + n[FREE]) % len(s.free)] = done
        n[FREE] += 1
    place: int = SENT_CELLS * (lane * size + oldest)
    n[COMPLETED] += s.sent[place + SENT_COUNT]
    return place


def write_row(
    s: State, place: int, due: int, done: int, h2d: int, compute: int, d2h: int, lane: int, status: int
) -> None:
    """Append the row of a request that was at `place` in `sent`; times in ns."""
    rows, cells, at = s.rows, s.sent, COLUMNS * s.cursor[ROW]
    rows[at] = due
    rows[at + 1] = cells[place + SENT_AT]
    rows[at + 2] = cells[place + SENT_ENQUEUED]
    rows[at + 3] = done
    rows[at + 4] = h2d
    rows[at + 5] = compute
    rows[at + 6] = d2h
    rows[at + 7] = cells[place + SENT_LATE]
    rows[at + 8] = lane
    rows[at + 9] = status
    rows[at + 10] = cells[place + SENT_INPUTS]
    s.cursor[ROW] += 1
