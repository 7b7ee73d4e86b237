"""When a wait that sleeps looks whether requests have finished.

To be woken by each completion takes a thread that waits for it, and two changes of threads for every request.
Completion instants are the GPU's, so that to look later makes no latency wrong. While there is a free buffer set nobody
needs to know before the next request is due, and the wait looks then. Otherwise it is enough to look when requests
usually are finished, and where they are not, a little later again: that is what this module plans.
"""

from __future__ import annotations

import ctypes
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from loadtrt.units import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.engines.engine import Completion

# Between two looks: each costs processor time, and what waits for a lane waits for the look.
LEAST_NS, MOST_NS = 50_000, 200_000
_PR_SET_TIMERSLACK = 29


class Looks:
    """Of requests that were sent and not seen finished, lane by lane in their order.

    next_ns: when to look, NEVER while nothing is in flight. usual_ns: how long a lane is busy with a request, by an
    exponential mean that falls at once: u ← min(t, u + (t − u) / 8), where t is from when it was sent, or the lane's
    one before it completed, to its completion. The first look at a request is when that is over, later ones u/8 apart,
    within [LEAST_NS, MOST_NS].
    """

    def __init__(self, lanes: int) -> None:
        self._sent: list[deque[int]] = [deque() for _ in range(lanes)]
        self._free_ns = [0] * lanes  # when the lane's last request completed
        self.usual_ns = 0
        self.next_ns = NEVER

    def sent(self, lane: int, now_ns: int, requests: int) -> None:
        """So many requests were sent on that lane."""
        self._sent[lane].extend([now_ns] * requests)
        self._plan(now_ns)

    def looked(self, now_ns: int, found: Sequence[Completion]) -> None:
        """Somebody has looked, and found these finished, those of a lane in their order."""
        for completion in found:
            lane, done_ns = completion.lane, completion.completed_ns
            took = done_ns - max(self._sent[lane].popleft(), self._free_ns[lane])
            self._free_ns[lane] = done_ns
            self.usual_ns = min(took, self.usual_ns + (took - self.usual_ns) // 8) if self.usual_ns else took
        self._plan(now_ns + min(max(self.usual_ns // 8, LEAST_NS), MOST_NS))

    def _plan(self, least_ns: int) -> None:
        begun = [max(sent[0], free) for sent, free in zip(self._sent, self._free_ns, strict=True) if sent]
        self.next_ns = max(min(begun) + self.usual_ns, least_ns) if begun else NEVER


def wake_on_time() -> None:
    """Have Linux end this thread's sleeps within a microsecond of their time; it takes 50 µs otherwise, to wake for
    several sleepers at once."""
    with suppress(OSError, AttributeError):  # no Linux
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1_000, 0, 0, 0)
