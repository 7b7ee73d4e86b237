"""Requests of one load that workers of one host route among them as they come due: functions that numba compiles, too.

Every worker walks the whole schedule. The first one that finds a request without an owner chooses one and writes it
down, under a lock that is held for that alone: owners are a log, written once, which every worker reads in the same
order. A worker keeps its own count of what each has been given, by that log; what each has completed it reads from the
cells of the other's State, which lie in memory that all share. So a worker writes nothing more per request than without
routing, none waits for another, and one that ends at any moment leaves nothing half done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.loop.device import FAULT, GAP_NS, clock, spin
from loadtrt.loop.requests import (
    ARRIVED,
    BEGAN,
    CELLS,
    COMING,
    COMPLETED,
    DROPPED,
    LAST,
    NEXT_DUE,
    PAUSE_AT,
    ROW,
)
from loadtrt.units import NEVER, SECOND_NS

if TYPE_CHECKING:
    from loadtrt.loop.device import Device
    from loadtrt.loop.requests import State

# Which worker a request goes to. Among those with the fewest requests outstanding: the one that has had so few for the
# longest time, the first one, or a random one; or of two random ones that with fewer.
LONGEST_IDLE, LOWEST_INDEX, RANDOM_TIES, TWO_CHOICES = range(4)

# Cells of Router.n.
WORKER = 0  # the number of this worker ...
WORKERS = 1  # ... of so many
POLICY = 2
COUNT = 3  # number of requests of all workers ...
SEEN = 4  # ... and of those whose owner this one knows
NEXT = 5  # when the next one comes due, ns on the engine's clock; NEVER after the last
SIZES = 6  # length of `sizes`; 0 where requests take the input sets in turn
ROW_CELLS = 7  # of a worker in `rows`
SETS = 8  # number of buffer sets of a worker
LOCK_AT = 9  # addresses of the lock ...
TIME_AT = 10  # ... and of `time`
CLOCK = 11  # number of the clock
ASKED = 12  # when the next request was found without an owner, by that clock; 0 where it was not
LOOKED = 13  # how many were found so
CHOSEN = 14  # how many of them this worker chose the owner of
ROUTER_CELLS = 15

OWNER_DIED = 130  # EOWNERDEAD: the lock is held, and who held it has ended
DRAW_BITS = 30  # of a random number


class Router(NamedTuple):
    """What a worker routes by. Fields as of State.

    n: the cells that are named above.
    lock, unlock, consistent: pthread_mutex_trylock, _unlock and _consistent, called as the functions of a Device.
    clock: clock_gettime.
    time: seconds and ns of the clock.
    schedule: due instants of all requests, ascending, in ns from the start.
    owners: the number of the worker of each plus 1; 0 where nobody has chosen it yet. Shared.
    gone: of each worker, whether its process has ended. Shared.
    rows: `State.n` and `State.free` of each worker. Shared.
    given: number of requests of each worker, of those that are seen.
    last: the last of them, by its place in the schedule; −1 for none.
    counts: requests outstanding of each worker, as the last choice found them.
    draws: random numbers: of each request two workers for TWO_CHOICES, or one of DRAW_BITS bits for RANDOM_TIES.
    sizes: input sets of the requests of all workers, again from the start beyond its end.
    took: ns until the owner was known of each request that was found without one.
    """

    n: Any
    lock: Any
    unlock: Any
    consistent: Any
    clock: Any
    time: Any
    schedule: Any
    owners: Any
    gone: Any
    rows: Any
    given: Any
    last: Any
    counts: Any
    draws: Any
    sizes: Any
    took: Any


def moment(r: Router) -> int:
    """The host's clock, ns."""
    r.clock(r.n[CLOCK], r.n[TIME_AT], 0, 0)
    now: int = r.time[0] * SECOND_NS + r.time[1]
    return now


def outstanding(r: Router, worker: int) -> int:
    """Requests of a worker that have not been completed, nor dropped."""
    at = worker * r.n[ROW_CELLS]
    count: int = r.given[worker] - r.rows[at + COMPLETED] - r.rows[at + DROPPED]
    return count


def of_two(r: Router, request: int) -> int:
    """Of the two workers that were drawn for a request, the one with fewer outstanding, among equals the first."""
    one: int = r.draws[2 * request]
    other: int = r.draws[2 * request + 1]
    if r.gone[one] or (not r.gone[other] and outstanding(r, other) < outstanding(r, one)):
        return other
    return one


def of_all(r: Router, request: int) -> int:
    """The worker with the fewest outstanding."""
    # A call takes as long as several workers here: machine code counts references to each array of `r`.
    n, rows, given, last, gone, counts = r.n, r.rows, r.given, r.last, r.gone, r.counts
    longest_idle, cells, sets = n[POLICY] == LONGEST_IDLE, n[ROW_CELLS], n[SETS]
    best, fewest, ties, idle = -1, 0, 0, 0
    for worker in range(n[WORKERS]):
        at = worker * cells
        count = counts[worker] = given[worker] - rows[at + COMPLETED] - rows[at + DROPPED]
        if gone[worker] or (best >= 0 and count > fewest):
            continue
        since = 0  # when it came to have so few, ns from the start
        if longest_idle:
            for place in range(at + CELLS, at + CELLS + sets):
                if rows[place] > since:
                    since = rows[place]
            since -= rows[at + BEGAN]
            if last[worker] >= 0 and r.schedule[last[worker]] > since:
                since = r.schedule[last[worker]]
        if best < 0 or count < fewest:
            best, fewest, ties, idle = worker, count, 1, since
        else:
            ties += 1
            if longest_idle and (since < idle or (since == idle and last[worker] < last[best])):
                best, idle = worker, since
    if n[POLICY] == RANDOM_TIES and ties > 1:
        left = (r.draws[request] * ties) >> DRAW_BITS
        for worker in range(best, n[WORKERS]):
            if counts[worker] == fewest and not gone[worker]:
                best = worker
                if not left:
                    break
                left -= 1
    return n[WORKER] if best < 0 else best


def chosen(r: Router, request: int) -> int:
    """The worker that a request goes to, by what is known now."""
    if r.n[POLICY] == TWO_CHOICES:
        worker = of_two(r, request)
        if not r.gone[worker]:
            return worker
    return of_all(r, request)


def choose(r: Router, request: int) -> int:
    """The owner of a request, chosen and written down where nobody has; 0 while another worker is at it."""
    lock_at = r.n[LOCK_AT]
    status = r.lock(lock_at, 0, 0, 0)
    if status == OWNER_DIED:
        r.consistent(lock_at, 0, 0, 0)
    elif status:
        return 0
    owner: int = r.owners[request]
    if not owner:
        owner = chosen(r, request) + 1
        r.owners[request] = owner
        r.n[CHOSEN] += 1
    r.unlock(lock_at, 0, 0, 0)
    return owner


def route(s: State, r: Router, now: int) -> None:
    """Learn where the requests go that are due by `now`, and choose where nobody has: those of this worker come due.
    Ends early where another worker chooses at this moment."""
    n, of, schedule = s.n, r.n, r.schedule
    request, count, began, coming = of[SEEN], of[COUNT], n[BEGAN], n[COMING]
    while request < count and began + schedule[request] <= now:
        owner: int = r.owners[request]
        if not owner:
            if not of[ASKED]:
                of[ASKED] = moment(r)
            owner = choose(r, request)
            if not owner:
                break
        if of[ASKED]:
            r.took[of[LOOKED]] = moment(r) - of[ASKED]
            of[LOOKED] += 1
            of[ASKED] = 0
        worker = owner - 1
        r.given[worker] += 1
        r.last[worker] = request
        if worker == of[WORKER]:
            s.due[coming] = schedule[request]
            if of[SIZES]:
                s.order[coming] = r.sizes[request % of[SIZES]]
            if n[ARRIVED] == coming:
                n[NEXT_DUE] = began + schedule[request]
            coming += 1
        request += 1
    of[SEEN], n[COMING] = request, coming
    if request < count:
        of[NEXT] = began + schedule[request]
    else:
        of[NEXT] = NEVER
        n[LAST] = coming


def spin_routed(s: State, r: Router, d: Device, soon: int, until: int) -> int:
    """`spin`, which learns of each request as it comes due. Returns the present instant."""
    now = clock(d)
    while True:
        if r.n[NEXT] <= now:
            route(s, r, now)
        leaves = soon if r.n[NEXT] - max(now, soon) >= GAP_NS else until
        wake = min(leaves, r.n[NEXT])
        now = spin(s, d, wake, wake)
        if now >= leaves or now < wake or d.n[FAULT] or s.cursor[ROW] == s.cursor[PAUSE_AT]:
            return now
