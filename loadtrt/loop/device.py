"""Lanes whose work is enqueued and asked about by C functions, and the loop that drives them: functions that numba
compiles, too."""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.loop.requests import (
    COMPLETED,
    DRAINS,
    DROPPED,
    INPUTS,
    LAST,
    NEXT_DUE,
    OVER,
    PAUSE_AT,
    PER_LAUNCH,
    PROGRESS,
    ROW,
    SENT_DUE,
    SUBMITTED,
    admit,
    finish,
    next_request,
    sent,
    write_row,
)
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from loadtrt.loop.requests import State

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
TIMES = 5  # spans of a request on the device that are measured: 0: none, 1: compute, 2: copies, too
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

# The rest of loadtrt took up to 0.35 ms, ten times a second, on the host of an H200: what came due meanwhile was late.
GAP_NS = 400_000
_NS_A_MS = 1e6


class Completion(NamedTuple):
    """One finished request.

    buffer: the lane's buffer set that holds the outputs, until the set is used again.
    completed_ns: when it completed, on the engine's `now_ns` clock.
    error: why the request failed; None where it did not.
    """

    lane: int
    buffer: int
    completed_ns: int
    h2d_ns: int
    compute_ns: int
    d2h_ns: int
    error: str | None = None


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

    launch: Any
    record: Any
    wait: Any
    copy_in: Any
    copy_out: Any
    query: Any
    elapsed: Any
    clock: Any
    compute: Any
    n: Any
    calls: Any
    programs: Any
    events: Any
    place: Any
    anchor: Any
    rate: Any
    time: Any
    spans: Any
    found: Any


def clock(d: Device) -> int:
    """The host's clock, ns."""
    d.clock(d.n[MONOTONIC], d.n[TIME_AT], 0, 0)
    now: int = d.time[0] * SECOND_NS + d.time[1]
    return now


def launch(d: Device, lane: int, inputs: int) -> int:
    """Enqueue a launch on a lane whose next slot is free. Returns 0, or a fault: FAULT_KIND times the kind
    of the call that failed, plus its status."""
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
            fault: int = status + FAULT_KIND * kind
            return fault
    d.place[at + SLOT] = slot + 1 if slot + 1 < n[SLOTS] else 0
    d.place[at + IN_FLIGHT] += n[BUFFER_SETS] // n[SLOTS]
    return 0


def complete(d: Device, lane: int) -> int:
    """Whether the oldest request in flight on a lane has finished. Returns 0 where it has, with its completion behind
    the others in `found`; NOT_READY; or a fault, as `launch`."""
    n, events, elapsed, spans, at = d.n, d.events, d.elapsed, d.spans, PLACE_CELLS * lane
    times = n[TIMES]
    buffer = d.place[at + BUFFER]
    event = EVENT_CELLS * (lane * n[BUFFER_SETS] + buffer)
    status: int = d.query(events[event + COMPLETES], 0, 0, 0)
    if status:
        return status if status == NOT_READY else status + FAULT_KIND * QUERY
    status = elapsed(n[SINCE_AT], d.anchor[0], events[event + COMPLETES], 0)
    if times:
        status = status or elapsed(n[COMPUTE_AT], events[event + START], events[event + END], 0)
    if times > 1:
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
    found[place + FOUND_H2D] = floor(_NS_A_MS * spans[2] + 0.5) if times > 1 else 0
    found[place + FOUND_COMPUTE] = floor(_NS_A_MS * spans[1] + 0.5) if times else 0
    found[place + FOUND_D2H] = floor(_NS_A_MS * spans[3] + 0.5) if times > 1 else 0
    return 0


def poll(d: Device, several: bool) -> int:
    """Find the requests that have finished, in the order of completion. several: more than one of a lane. Returns 0, or
    a fault, as `launch`, where none was found: the next poll meets the error again."""
    n, place, found = d.n, d.place, d.found
    n[FOUND] = n[TAKEN] = fault = 0
    for lane in range(n[LANES]):
        while not fault and place[PLACE_CELLS * lane + IN_FLIGHT]:
            status = complete(d, lane)
            if status and status != NOT_READY:
                fault = status
            if status or not several:
                break  # the lane's next request has seldom finished by now, and a query costs a microsecond
    for last in range(1, n[FOUND]):
        other = last
        while other and found[FOUND_CELLS * other + FOUND_DONE] < found[FOUND_CELLS * (other - 1) + FOUND_DONE]:
            for cell in range(FOUND_CELLS * other, FOUND_CELLS * (other + 1)):
                kept = found[cell]
                found[cell] = found[cell - FOUND_CELLS]
                found[cell - FOUND_CELLS] = kept
            other -= 1
    return 0 if n[FOUND] else fault


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
        write_row(s, place, s.sent[place][SENT_DUE], done, h2d, compute, d2h, lane, 0)
        n[TAKEN] += 1
    return True


def serve(s: State, d: Device, now: int) -> int:
    """One round: record what has been found, submit what is due, and poll. Returns the present instant; −1 where the
    rest of loadtrt is needed: all requests are sent or have completed, the recorder must make room for rows, or a call
    failed."""
    n = s.n
    if not receive(s, d):
        return -1
    if n[NEXT_DUE] <= now:
        admit(s, now)
    all_sent = n[SUBMITTED] + n[DROPPED] >= n[LAST] and not n[DRAINS]
    if all_sent or n[COMPLETED] + n[DROPPED] >= n[LAST]:
        return -1
    lane = next_request(s, now)
    while lane >= 0:
        d.n[FAULT] = launch(d, lane, n[INPUTS])
        if d.n[FAULT]:
            return -1
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
    return -1 if d.n[FAULT] else clock(d)


def spin(s: State, d: Device, soon: int, until: int) -> int:
    """Rounds, one at least, until the rest of loadtrt is needed: when a call failed or there is no room for rows; at
    `until`; and from `soon` on once no request comes due for GAP_NS, as it would be late. Returns the present
    instant."""
    now, goes_on = clock(d), True
    while goes_on:
        after = serve(s, d, now)
        now = max(now, after)
        goes_on = 0 <= after < until and (after < soon or s.n[NEXT_DUE] - after < GAP_NS)
    receive(s, d)
    return now


def spin_all(states: Any, devices: Any, soon: int, until: int) -> int:
    """`spin` of several models, whose rounds take turns, until one of them needs the rest of loadtrt. states, devices:
    tuples, of a model each; those that are OVER have no rounds. Returns the present instant."""
    now, goes_on = clock(devices[0]), True
    while goes_on:
        pauses = True
        for model in range(len(states)):
            s, d = states[model], devices[model]
            if not s.n[OVER]:
                after = serve(s, d, clock(d))
                now, goes_on = max(now, after), goes_on and 0 <= after < until
                pauses = pauses and after >= soon and s.n[NEXT_DUE] - after >= GAP_NS
        goes_on = goes_on and not pauses
    for model in range(len(states)):
        s, d = states[model], devices[model]
        if not s.n[OVER]:
            receive(s, d)
    return now
