"""What happens to each request, in the part of Python that numba compiles: arrays of int64, and functions on them.

`spin` drives a device whose work is enqueued and asked about by plain C functions (cuda/driver.py): it submits requests
that are due, polls for completions and writes their rows, until something needs the rest of loadtrt. Where numba is
installed it runs compiled, without the interpreter's lock; else Python runs the same lines. Other engines are driven by
lanes/scheduler.py with the same steps: `admit`, `next_request`, `sent`, `finish` and `write_row`.

All functions that are compiled are in this file, since numba's cache of compiled code does not look at others.
"""

from __future__ import annotations

import ctypes
import warnings
from functools import cache, partial
from math import floor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from loadtrt.units import NEVER, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Instants = npt.NDArray[np.int64]

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

# Kinds of calls of a device.
LAUNCH, RECORD, WAIT, COPY_IN, COPY_OUT, QUERY, ELAPSED, CLOCK, COMPUTE = range(9)
CALL_CELLS = 5  # a kind and four arguments
NOT_READY = 600  # cudaErrorNotReady, CUDA_ERROR_NOT_READY
FAULT_KIND = 1 << 32  # times the kind of a call that failed, plus its status

# Cells of a lane in Device.place, and of a buffer set in Device.events.
SLOT, BUFFER, IN_FLIGHT, PLACE_CELLS = range(4)
H2D_START, H2D_END, START, END, COMPLETES, EVENT_CELLS = range(6)

# Cells of a completion in Device.found.
FOUND_LANE, FOUND_BUFFER, FOUND_DONE, FOUND_H2D, FOUND_COMPUTE, FOUND_D2H, FOUND_CELLS = range(7)

# Cells of Device.n.
LANES = 0
SLOTS = 1  # of a lane
BUFFER_SETS = 2  # of a lane
SETS = 3  # input sets
WAY = 4  # which of the ways of submitting is used
COPIES = 5  # 1: requests copy their inputs and outputs
FOUND = 6  # number of completions that the last poll found ...
TAKEN = 7  # ... and how many of them `spin` has received
FAULT = 8  # what failed; 0 while nothing has
MONOTONIC = 9  # number of the clock
TIME_AT = 10  # addresses of `time` ...
SINCE_AT = 11  # ... and of the four `spans`: from the anchor to completion, ...
COMPUTE_AT = 12
H2D_AT = 13
D2H_AT = 14
DEVICE_CELLS = 15

_NS_A_MS = 1e6


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


class Device(NamedTuple):
    """Lanes whose work is enqueued and asked about by C functions. Fields as of State.

    n: the cells that are named above.
    launch, record, wait, copy_in, copy_out, query, elapsed, clock: the C functions of cuda/driver.py. Each takes four
        integers, and returns a status.
    compute: takes the number of an inference that TensorRT is to enqueue itself, where Python drives.
    calls: CALL_CELLS of each call.
    programs: first call and the one behind the last, of each way, lane, slot and input set.
    events: EVENT_CELLS handles of each buffer set of each lane.
    place: PLACE_CELLS of each lane: the next slot, the buffer set of its oldest request, its requests in flight.
    anchor: handle of the event of the latest anchor, and its instant on the host's clock.
    rate: host's ns per ms of the device's clock, float64 [1].
    time: seconds and ns of the clock.
    spans: ms of the spans that were asked for last, float32 [4].
    found: FOUND_CELLS of each completion that the last poll found.
    """

    n: Any
    launch: Any
    record: Any
    wait: Any
    copy_in: Any
    copy_out: Any
    query: Any
    elapsed: Any
    clock: Any
    compute: Any
    calls: Any
    programs: Any
    events: Any
    place: Any
    anchor: Any
    rate: Any
    time: Any
    spans: Any
    found: Any


def new_state(
    lanes: int, buffers: int, per_launch: int, due: Instants | None, order: Sequence[int], rows: Instants, cursor: Instants
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


def admit(s: State, until: int) -> None:
    """Requests due by `until` wait, or are dropped where the queue is full. Free buffer sets may be room, too: they take
    the head of the queue before anything else happens."""
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
    """The lane that takes the next request now, as `take`; −1 where no request is due or no buffer set is free. DUE, LATE
    and INPUTS say of the request what they name."""
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


def clock(d: Device) -> int:
    """The host's clock, ns."""
    d.clock(d.n[MONOTONIC], d.n[TIME_AT], 0, 0)
    now: int = d.time[0] * SECOND_NS + d.time[1]
    return now


def launch(d: Device, lane: int, inputs: int) -> int:
    """Enqueue a launch on a lane whose next slot is free. Returns 0, or what `fault_of` understands."""
    n, calls, at = d.n, d.calls, PLACE_CELLS * lane
    slot = d.place[at + SLOT]
    program = 2 * (((n[WAY] * n[LANES] + lane) * n[SLOTS] + slot) * n[SETS] + inputs)
    for call in range(CALL_CELLS * d.programs[program], CALL_CELLS * d.programs[program + 1], CALL_CELLS):
        kind, a, b, c, e = calls[call], calls[call + 1], calls[call + 2], calls[call + 3], calls[call + 4]
        if kind == LAUNCH:
            status = d.launch(a, b, c, e)
        elif kind == RECORD:
            status = d.record(a, b, c, e)
        elif kind == WAIT:
            status = d.wait(a, b, c, e)
        elif kind == COPY_IN:
            status = d.copy_in(a, b, c, e)
        elif kind == COPY_OUT:
            status = d.copy_out(a, b, c, e)
        else:
            status = d.compute(a, b, c, e)
        if status:
            return status + FAULT_KIND * kind
    d.place[at + SLOT] = slot + 1 if slot + 1 < n[SLOTS] else 0
    d.place[at + IN_FLIGHT] += n[BUFFER_SETS] // n[SLOTS]
    return 0


def complete(d: Device, lane: int) -> int:
    """Whether the oldest request in flight on a lane has finished. Returns 0 where it has, with its completion behind
    the others in `found`; NOT_READY; or what `fault_of` understands."""
    n, events, elapsed, spans, at = d.n, d.events, d.elapsed, d.spans, PLACE_CELLS * lane
    buffer = d.place[at + BUFFER]
    event = EVENT_CELLS * (lane * n[BUFFER_SETS] + buffer)
    status: int = d.query(events[event + COMPLETES], 0, 0, 0)
    if status:
        return status if status == NOT_READY else status + FAULT_KIND * QUERY
    status = elapsed(n[SINCE_AT], d.anchor[0], events[event + COMPLETES], 0)
    status = status or elapsed(n[COMPUTE_AT], events[event + START], events[event + END], 0)
    if n[COPIES]:
        status = status or elapsed(n[H2D_AT], events[event + H2D_START], events[event + H2D_END], 0)
        status = status or elapsed(n[D2H_AT], events[event + END], events[event + COMPLETES], 0)
    if status:
        return status + FAULT_KIND * ELAPSED
    d.place[at + IN_FLIGHT] -= 1
    d.place[at + BUFFER] = buffer + 1 if buffer + 1 < n[BUFFER_SETS] else 0
    found, place = d.found, FOUND_CELLS * n[FOUND]
    n[FOUND] += 1
    # A request that was seen finished has completed, whatever the clocks' last few microseconds say.
    completed, seen = d.anchor[1] + floor(d.rate[0] * spans[0] + 0.5), clock(d)
    found[place + FOUND_LANE], found[place + FOUND_BUFFER] = lane, buffer
    found[place + FOUND_DONE] = min(seen, completed)
    found[place + FOUND_H2D] = floor(_NS_A_MS * spans[2] + 0.5) if n[COPIES] else 0
    found[place + FOUND_COMPUTE] = floor(_NS_A_MS * spans[1] + 0.5)
    found[place + FOUND_D2H] = floor(_NS_A_MS * spans[3] + 0.5) if n[COPIES] else 0
    return 0


def poll(d: Device, several: bool) -> int:
    """Find the requests that have finished, in the order of completion. several: more than one of a lane. Returns 0, or
    what `fault_of` understands where a call failed and none was found: the next poll meets the error again."""
    n, place, found = d.n, d.place, d.found
    n[FOUND] = n[TAKEN] = 0
    for lane in range(n[LANES]):
        while place[PLACE_CELLS * lane + IN_FLIGHT]:
            status = complete(d, lane)
            if status:
                if status != NOT_READY:
                    return 0 if n[FOUND] else status
                break
            if not several:
                break  # the lane's next request has seldom finished by now, and a query costs a microsecond
    for last in range(1, n[FOUND]):
        other = last
        while other and found[FOUND_CELLS * other + FOUND_DONE] < found[FOUND_CELLS * (other - 1) + FOUND_DONE]:
            for cell in range(FOUND_CELLS * other, FOUND_CELLS * (other + 1)):
                kept = found[cell]
                found[cell] = found[cell - FOUND_CELLS]
                found[cell - FOUND_CELLS] = kept
            other -= 1
    return 0


def receive(s: State, d: Device) -> bool:
    """Free the buffer sets of the requests that `poll` found, and write their rows. False where the recorder must make
    room for rows first: the rest is received by the next call."""
    n, cursor, found = d.n, s.cursor, d.found
    while n[TAKEN] < n[FOUND]:
        if cursor[ROW] == cursor[PAUSE_AT]:
            return False
        at = FOUND_CELLS * n[TAKEN]
        lane, done = found[at + FOUND_LANE], found[at + FOUND_DONE]
        h2d, compute, d2h = found[at + FOUND_H2D], found[at + FOUND_COMPUTE], found[at + FOUND_D2H]
        place = finish(s, lane, done)
        write_row(s, place, s.sent[place + SENT_DUE], done, h2d, compute, d2h, lane, 0)
        n[TAKEN] += 1
    return True


def spin(s: State, d: Device, until: int) -> int:
    """Submit, poll and record, once at least and until `until`, or until the rest of loadtrt is needed: all requests are
    sent or have completed, the recorder must make room for rows, or a call failed. Returns the present instant."""
    n, now = s.n, clock(d)
    while receive(s, d):
        if n[NEXT_DUE] <= now:
            admit(s, now)
        all_sent = n[SUBMITTED] + n[DROPPED] == n[LAST] and not n[DRAINS]
        if all_sent or n[COMPLETED] + n[DROPPED] == n[LAST]:
            break
        lane = next_request(s, now)
        while lane >= 0:
            d.n[FAULT] = launch(d, lane, n[INPUTS])
            if d.n[FAULT]:
                return now
            enqueued = clock(d)
            sent(s, lane, now, enqueued, 1)
            now = enqueued
            if n[NEXT_DUE] <= now:
                admit(s, now)
            lane = next_request(s, now)
        if n[SUBMITTED] == n[COMPLETED]:
            n[PROGRESS] = now
        d.n[FAULT] = poll(d, n[PER_LAUNCH] > 1)
        if d.n[FOUND]:
            n[PROGRESS] = now
        now = clock(d)
        if d.n[FAULT] or now >= until:
            receive(s, d)
            break
    return now


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


def spinner(state: State, device: Device) -> Callable[[int], int]:
    """`spin` of these arrays until an instant: compiled where numba is installed."""
    compiled = _compiled()
    if compiled is None:
        return partial(spin, view_of(state), view_of(device))
    spin_compiled, c_function, type_of = compiled
    device = Device(*(c_function(field) if callable(field) else field for field in device))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # functions as arguments are experimental
        spin_compiled.compile((type_of(state), type_of(device), type_of(0)))  # now, and not at its first call
    return partial(spin_compiled, state, device)


def is_compiled() -> bool:
    """Whether `spinner` runs machine code."""
    return _compiled() is not None


@cache
def _compiled() -> tuple[Any, type, Callable[[Any], Any]] | None:
    """`spin` as numba compiles it at its first call (it is kept beside this file, or in the user's cache), the type of
    a C function that it takes, and numba's types of values. None where numba is not installed, or told not to compile (NUMBA_DISABLE_JIT)."""
    try:
        import numba
        import numba.experimental.function_type  # without it no function is an argument
    except ImportError:
        return None
    if numba.config.DISABLE_JIT:
        return None
    integer = numba.types.int64

    class CFunction(numba.types.WrapperAddressProtocol):  # type: ignore[misc]
        def __init__(self, function: Any) -> None:
            self._function = function  # kept alive
            self._address = ctypes.cast(function, ctypes.c_void_p).value

        def __wrapper_address__(self) -> int | None:  # numba's name
            return self._address

        def signature(self) -> Any:
            return numba.types.int32(integer, integer, integer, integer)

    for step in (admit, move, take, next_request, sent, finish, write_row, clock, launch, complete, poll, receive):
        numba.extending.register_jitable(step)
    try:
        return numba.njit(cache=True, nogil=True)(spin), CFunction, numba.typeof
    except RuntimeError:  # no folder to keep it in
        return numba.njit(nogil=True)(spin), CFunction, numba.typeof
