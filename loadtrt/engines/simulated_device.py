"""The simulated device: its time, and how lanes share it, of one engine or of the engines of several models."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from loadtrt.errors import CudaError
from loadtrt.units import NEVER, exact_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.engines.simulation import Sharing


class DeviceTime:
    """The time of a device, which starts at the first submit and stands still during a stall.

    origin_ns: the clock at the first submit; None before.
    stall: duration and begin of the stall, from the first submit.
    lost_at: when the device is lost, from the first submit.
    """

    def __init__(self, stall: tuple[int, int] | None = None, lost_at: int | None = None) -> None:
        self.origin_ns: int | None = None
        self._stall_ns, self._stall_at = stall or (0, NEVER)
        self.lost_at = NEVER if lost_at is None else lost_at

    def of_clock(self, clock_ns: int) -> int:
        """The device's time at an instant of the clock."""
        at = clock_ns - (self.origin_ns or 0)
        return at if at < self._stall_at else max(self._stall_at, at - self._stall_ns)

    def on_clock(self, at: int) -> int:
        """The clock's instant for device time `at`; the end of the stall for its begin."""
        return (self.origin_ns or 0) + at + (self._stall_ns if at >= self._stall_at else 0)

    def lasted(self, start: int, end: int) -> int:
        """The duration by the clock from device time `start` to `end`."""
        return end - start + (self._stall_ns if start < self._stall_at <= end else 0)

    def require_device(self, call: str, now_ns: Callable[[], int]) -> None:
        """Raises CudaError where the device is lost. Like CUDA's, the error is sticky: every later call meets it."""
        if self.lost_at != NEVER and self.origin_ns is not None and now_ns() >= self.origin_ns + self.lost_at:
            raise CudaError(call, "cudaErrorLaunchFailure", f"simulated fault: lost={exact_duration(self.lost_at)}")


class IndependentLanes:
    """Lanes that do not influence each other. All instants are int ns of the device's time, which starts at 0.

    end_j = max(ready_j, end_{j−1}) + S_j for the j-th request of a lane (Lindley, The theory of queues with a single
    server, 1952). So the end of a request is known when it is added.

    ends: heap of (end, lane, start) of requests; its user takes those that it has seen.
    """

    def __init__(self, lanes: int) -> None:
        self.ends: list[tuple[int, int, int]] = []
        self._free_at = [0] * lanes

    def add(self, lane: int, at: int, ready: int, work: int) -> None:  # noqa: ARG002  # as of SharedDevice
        """Add a request that comes at `at`, can begin at `ready` and takes `work` ns. Calls come in order of `at`."""
        start = max(ready, self._free_at[lane])
        self._free_at[lane] = end = start + work
        heappush(self.ends, (end, lane, start))

    def advance(self, until: int) -> None:
        """Does nothing: all ends are known."""

    def next_at(self) -> int:
        """An instant before which no request ends."""
        return self.ends[0][0] if self.ends else NEVER


class Tenant:
    """Lanes of a device that other lanes share; the interface is that of IndependentLanes.

    first: number of its first lane on the device.
    weight, priority: of each of its lanes.
    """

    def __init__(self, device: SharedDevice, lanes: int, weight: float, priority: int) -> None:
        self.ends: list[tuple[int, int, int]] = []
        self.first, self.weight, self.priority = device.join(self, lanes), weight, priority
        self.advance = device.advance
        self.add = self._add if self.first else device.add  # the numbers of the first tenant's lanes are the device's
        self._device = device

    def _add(self, lane: int, at: int, ready: int, work: int) -> None:
        self._device.add(self.first + lane, at, ready, work)

    def next_at(self) -> int:
        """An instant before which no request ends, if nobody adds one."""
        return self.ends[0][0] if self.ends else self._device.event_at


class SharedDevice:
    """Lanes of one or several tenants, simulated from event to event: when a request begins and when it ends.

    A lane computes its requests one after the other. `_begin` and `_end` say how lanes share the device.

    event_at: the next event, if nobody adds a request; NEVER for none.
    """

    def __init__(self) -> None:
        self.event_at = NEVER
        self._tenants: list[Tenant] = []  # of each lane
        self._queues: list[deque[tuple[int, int]]] = []  # of each lane: (ready, work), computing first
        self._began: list[int] = []
        self._waiting: list[tuple[int, int]] = []  # heap of (ready, lane): lanes with a request that do not compute
        self._end_at = NEVER  # when the first of those that compute ends, unless another begins before

    def join(self, tenant: Tenant, lanes: int) -> int:
        """Make lanes for a tenant; returns the number of the first."""
        first = len(self._tenants)
        self._tenants += [tenant] * lanes
        self._queues += [deque() for _ in range(lanes)]
        self._began += [0] * lanes
        return first

    def add(self, lane: int, at: int, ready: int, work: int) -> None:
        """Add a request that comes at `at`, can begin at `ready` and takes `work` ns alone on the device."""
        self.advance(at)
        self._queues[lane].append((ready, work))
        if len(self._queues[lane]) == 1:
            heappush(self._waiting, (ready, lane))
            self.event_at = min(self.event_at, ready)
            self.advance(at)

    def advance(self, until: int) -> None:
        """Simulate all events up to `until`, in order of time, ends before begins."""
        while self.event_at <= until:
            if self._end_at == self.event_at:
                self._end()
            else:
                self._begin()
            self.event_at = min(self._end_at, self._waiting[0][0]) if self._waiting else self._end_at

    def _begin(self) -> None:
        """A request is ready, at `event_at`. Finds the next end."""
        raise NotImplementedError

    def _end(self) -> None:
        """A request ends, at `event_at`. Finds the next end."""
        raise NotImplementedError

    def _completed(self, lane: int, at: int) -> bool:
        """The lane's oldest request has ended. Whether another may begin there at once; a later one is waited for."""
        tenant, queue = self._tenants[lane], self._queues[lane]
        heappush(tenant.ends, (at, lane - tenant.first, self._began[lane]))
        queue.popleft()
        if queue and queue[0][0] <= at:
            return True
        if queue:
            heappush(self._waiting, (queue[0][0], lane))
        return False


class ProcessorSharing(SharedDevice):
    """All lanes that have a request compute, and slow each other down.

    With n lanes computing, each progresses at the rate 1 / (1 + contention·(n − 1)). At contention 1 the work of the
    device is conserved and shared equally (processor sharing: Kleinrock, Time-shared systems, 1967), or, where lanes
    have weights, at the rates w / Σw (discriminatory processor sharing, in the same paper); towards 0 lanes become
    independent. Each event is rounded to the nearest ns.

    One number suffices for all lanes: `progress` is the work in ns that a request of weight 1 would have done since the
    device was last idle. A request that begins at progress p ends at p + its work / its weight.
    """

    def __init__(self, contention: float) -> None:
        super().__init__()
        self._contention = contention
        self._at = 0  # the last event: the instant of `progress`
        self._progress = 0.0
        self._pace = 1.0  # ns for 1 ns of progress, until the next event
        self._weight = 0.0  # sum of those that compute
        self._computing: list[tuple[float, int]] = []  # heap of (progress at the end, lane)

    def _plan(self) -> None:
        self._pace = 1 + self._contention * (self._weight - 1)
        self._end_at = NEVER
        if self._computing:
            self._end_at = self._at + max(0, round((self._computing[0][0] - self._progress) * self._pace))

    def _begin(self) -> None:
        ready, lane = heappop(self._waiting)
        self._start(lane, ready)
        self._plan()

    def _start(self, lane: int, at: int) -> None:
        weight = self._tenants[lane].weight
        if self._computing:
            self._progress += (at - self._at) / self._pace
            self._weight += weight
        else:
            self._progress = 0.0  # small, so that a float holds sums of whole ns exactly
            self._weight = weight
        self._at = self._began[lane] = at
        heappush(self._computing, (self._progress + self._queues[lane][0][1] / weight, lane))

    def _end(self) -> None:
        self._at = self._end_at
        self._progress, lane = heappop(self._computing)
        self._weight -= self._tenants[lane].weight
        if self._completed(lane, self._at):
            self._start(lane, self._at)
        self._plan()


class Priorities(SharedDevice):
    """One request computes at a time, and none is interrupted: when it ends, that of the lowest priority number begins,
    and of these the one that has been ready for longest (Cobham, Priority assignment in waiting line problems, 1954).
    """

    def __init__(self) -> None:
        super().__init__()
        self._lane: int | None = None  # that computes
        self._ready: list[tuple[int, int, int, int]] = []  # heap of (priority, ready, order, lane)
        self._order = count()

    def _begin(self) -> None:
        self._next(self.event_at)

    def _end(self) -> None:
        lane, at = self._lane, self._end_at
        assert lane is not None  # noqa: S101  # one computes
        if self._completed(lane, at):
            heappush(self._waiting, (self._queues[lane][0][0], lane))
        self._lane, self._end_at = None, NEVER
        self._next(at)

    def _next(self, at: int) -> None:
        """Begin the first of the requests that are ready, unless one computes."""
        while self._waiting and self._waiting[0][0] <= at:
            ready, lane = heappop(self._waiting)
            heappush(self._ready, (self._tenants[lane].priority, ready, next(self._order), lane))
        if self._ready and self._lane is None:
            *_, self._lane = heappop(self._ready)
            self._began[self._lane] = at
            self._end_at = at + self._queues[self._lane][0][1]


def shared_device(sharing: Sharing, contention: float) -> SharedDevice | None:
    """A device that lanes share as a simulation's settings of these names say; None where each has one to itself."""
    if sharing == "priority":
        return Priorities()
    return ProcessorSharing(contention) if contention else None
