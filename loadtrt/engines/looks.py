"""When a wait that sleeps looks whether requests have finished.

To be woken by each completion takes a thread that waits for it, and two changes of threads for every request.
Completion instants are the GPU's, so that to look a little later makes no latency wrong: it is enough to look when
requests usually are finished, and where they are not, a little later again. While there is room for more requests
nobody waits for the answer, and the next one that is sent is the time to look.
"""

from __future__ import annotations

import ctypes
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.engines.engine import Completion

NEVER = 1 << 62
# Between two looks: a sleep and a look cost some 15 µs of processor time, and what waits for a lane waits for the look.
LEAST_NS, MOST_NS = 50_000, 200_000
IDLE_NS = 5_000_000


class Looks:
    """Of requests that were sent and not seen finished, lane by lane in their order.

    next_ns: when to look, NEVER while nothing is in flight. usual_ns: how long requests take, an exponential mean,
    u ← u + (t − u) / 8 from the first on. places: how many can be in flight. With all of them taken the first look at a
    request is u + u/16 after it was sent (50 µs more than u at most), later ones u/8 apart, within [LEAST_NS, MOST_NS];
    with room left it is IDLE_NS later, in case that nothing else comes.
    """

    def __init__(self, lanes: int, places: int) -> None:
        self._sent: list[deque[int]] = [deque() for _ in range(lanes)]
        self._room = places
        self.usual_ns = 0
        self.next_ns = NEVER

    def sent(self, lane: int, now_ns: int, requests: int) -> None:
        """So many requests were sent on that lane."""
        self._sent[lane].extend([now_ns] * requests)
        self._room -= requests
        self._plan(now_ns)

    def looked(self, now_ns: int, found: Sequence[Completion]) -> None:
        """Somebody has looked, and found these finished."""
        for completion in found:
            took = completion.completed_ns - self._sent[completion.lane].popleft()
            self.usual_ns += (took - self.usual_ns) // 8 if self.usual_ns else took
            self._room += 1
        self._plan(now_ns + min(max(self.usual_ns // 8, LEAST_NS), MOST_NS))

    def _plan(self, least_ns: int) -> None:
        oldest = [lane[0] for lane in self._sent if lane]
        if oldest:
            first_ns = self.usual_ns + (IDLE_NS if self._room else min(self.usual_ns // 16, LEAST_NS))
            self.next_ns = max(min(oldest) + first_ns, least_ns)
        else:
            self.next_ns = NEVER


def wake_on_time() -> None:
    """Have Linux end this thread's sleeps within a microsecond of their time; it takes 50 µs otherwise, to wake for
    several sleepers at once."""
    with suppress(OSError, AttributeError):  # no Linux
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1_000, 0, 0, 0)


_PR_SET_TIMERSLACK = 29
