"""What is drawn of a run while it goes on: one View, made of snapshots as they come.

A snapshot says how it stands; a Viewer remembers those before it, so that a View can say how fast, and since when.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.live.alerts import Alert, alerts_of, quantiles_of
from loadtrt.records.board import WINDOW_RANKS
from loadtrt.records.records import METRICS, OK
from loadtrt.stats.margin import least_samples
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.live.run_facts import RunFacts
    from loadtrt.live.telemetry import GpuReading
    from loadtrt.records.board import Snapshot

HISTORY_S = 120
_NOW_NS = SECOND_NS * 9 // 10  # what "now" spans at least
_QUIET_NS = SECOND_NS * 3 // 2  # a board that is written for so long with no request finished: the rate is 0
_REMEMBERED_NS = 30 * SECOND_NS
_LATENCY = [metric.name for metric in METRICS].index("latency")
_P99 = WINDOW_RANKS.index(0.99)


@dataclass(frozen=True, slots=True)
class LaneView:
    """One lane now: requests served a second, and the share of the time in which it computed. None: not known yet."""

    requests_per_s: float | None
    compute_share: float | None


@dataclass(frozen=True, slots=True)
class ObjectiveView:
    """An objective: text as given, metric, the share of requests it asks for, its bound in ns, and the share of the
    finished requests that were within it; None before the first."""

    text: str
    metric: str
    rank: float
    bound_ns: int
    good_share: float | None


@dataclass(frozen=True, slots=True)
class View:
    """All that is drawn. Instants and durations in ns, rates in 1/s; None: not known, or not yet.

    elapsed_ns: since the phase began; of the phases after measuring, what was measured. done_share, left_ns: of
    measuring, where its length is known. in_flight, waiting, busy_lanes: as the measuring process last told. window:
    latencies at WINDOW_RANKS of the last whole second; whole: of the whole run, None where requests are too few.
    coarse: `whole` and `histogram` come from wide buckets. histogram: (bucket, count) of the latencies, in order.
    rate_history, p99_history: a value a second, the same seconds, the newest last; a p99 becomes known a second or two
    later. items: mean inferences a request. joules: what an inference costs of the GPU's power.
    """

    now_ns: int
    facts: RunFacts
    phase: str
    elapsed_ns: int
    done_share: float | None
    left_ns: int | None
    requests_per_s: float | None
    in_flight: int
    waiting: int
    busy_lanes: int
    ok: int
    failed: int
    unserved: int
    dropped: int
    items: float
    window: tuple[float, ...] | None
    whole: tuple[float | None, ...]
    coarse: bool
    histogram: tuple[tuple[int, int], ...]
    rate_history: tuple[float | None, ...]
    p99_history: tuple[float | None, ...]
    lanes: tuple[LaneView, ...]
    gpu: GpuReading | None
    joules: float | None
    objectives: tuple[ObjectiveView, ...]
    alerts: tuple[Alert, ...]

    @property
    def inferences_per_s(self) -> float | None:
        """Served inferences a second."""
        return None if self.requests_per_s is None else self.requests_per_s * self.items


class _Point(NamedTuple):
    """What was known at an instant. served, compute_ns: int64 [lanes]."""

    written_ns: int
    finished: int
    served: npt.NDArray[np.int64]
    compute_ns: npt.NDArray[np.int64]
    waiting: int


class Viewer:
    """Makes Views of the snapshots of a run, taken in order, however often.

    Law: a second's rate is the number of requests served in it, where those that a snapshot brings are spread evenly
    over the time since the snapshot before. So Σ rates · 1 s = requests served. A snapshot that brings nothing tells
    nothing, for a while: scrapes may come more often than requests.
    """

    def __init__(self, *, coarse: bool = False) -> None:
        """coarse: snapshots come from a scrape, whose buckets are wide."""
        self._coarse = coarse
        self._phase = ""
        self._phase_ns = 0
        self._measured_ns = 0
        self._started_ns = 0
        self._points: deque[_Point] = deque()
        self._served: dict[int, float] = {}  # by second since the start
        self._p99: dict[int, float] = {}
        self._first = 0  # the first second that is known from its beginning
        self._windows = 0  # seconds whose window was seen, or can come no more

    def take(self, snapshot: Snapshot, facts: RunFacts, gpu: GpuReading | None, now_ns: int) -> View:
        """The View of this instant, on the clock of the snapshot's instants (time.time_ns where it was written)."""
        self._follow(snapshot, now_ns)
        rate, lanes = self._rates(facts.lanes)
        ok, failed, unserved, dropped = (int(count) for count in snapshot.outcomes.sum(axis=0))
        finished = ok + failed + unserved + dropped
        items = snapshot.inferences / ok if ok else float(facts.batch)
        counts = snapshot.counts[_LATENCY]
        elapsed_ns = max(self._measured_ns if self._started_ns else now_ns - self._phase_ns, 0)
        done_share, left_ns = _progress(snapshot, facts, elapsed_ns, finished, rate)
        watts = None if gpu is None else gpu.power_watts
        used = np.flatnonzero(counts)
        return View(
            now_ns=now_ns,
            facts=facts,
            phase=snapshot.phase,
            elapsed_ns=elapsed_ns,
            done_share=done_share,
            left_ns=left_ns,
            requests_per_s=rate,
            in_flight=snapshot.in_flight,
            waiting=snapshot.waiting,
            busy_lanes=snapshot.busy_lanes,
            ok=ok,
            failed=failed,
            unserved=unserved,
            dropped=dropped,
            items=items,
            window=tuple(snapshot.window_ns.tolist()) if snapshot.window_requests else None,
            whole=_whole(counts),
            coarse=self._coarse,
            histogram=tuple(zip(used.tolist(), counts[used].tolist(), strict=True)),
            rate_history=self._history(self._served),
            p99_history=self._history(self._p99),
            lanes=lanes,
            gpu=gpu,
            joules=watts / (rate * items) if watts is not None and rate else None,
            objectives=tuple(
                ObjectiveView(text, metric, rank, bound_ns, int(good) / finished if finished else None)
                for (text, metric, rank, bound_ns), good in zip(facts.objectives, snapshot.good, strict=False)
            ),
            alerts=alerts_of(
                snapshot, facts, gpu, now_ns, [(point.written_ns, point.waiting) for point in self._points]
            ),
        )

    def _follow(self, snapshot: Snapshot, now_ns: int) -> None:
        """Remember what is new."""
        finished = int(snapshot.outcomes.sum())
        again = self._points and finished < self._points[-1].finished
        if snapshot.started_ns != self._started_ns or again:
            self._begin(snapshot)
        if snapshot.phase != self._phase:
            self._phase, self._phase_ns = snapshot.phase, now_ns
            if snapshot.phase == "drain" and self._started_ns:  # the board is written when it begins
                self._measured_ns = snapshot.written_ns - self._started_ns
        if not self._started_ns:
            return
        if snapshot.phase == "measure":
            self._measured_ns = now_ns - self._started_ns
        elif not self._measured_ns:  # looked at only after it, or not at its end
            self._measured_ns = snapshot.written_ns - self._started_ns
        self._note_window(snapshot)
        last = self._points[-1]
        if snapshot.written_ns > last.written_ns + (_QUIET_NS if finished == last.finished else 0):
            point = _point(snapshot, finished)
            self._spread(last, point)
            self._points.append(point)
        while self._points[0].written_ns < snapshot.written_ns - _REMEMBERED_NS and len(self._points) > 2:
            self._points.popleft()

    def _begin(self, snapshot: Snapshot) -> None:
        """Measuring began: at its start nothing had been served. Who looks long after knows only what comes now."""
        self._started_ns = snapshot.started_ns
        self._measured_ns = 0
        self._points.clear()
        self._served.clear()
        self._p99.clear()
        self._windows = snapshot.window_start_ns // SECOND_NS
        first = _point(snapshot, int(snapshot.outcomes.sum()))
        if snapshot.written_ns < snapshot.started_ns + 2 * SECOND_NS:
            zeros = np.zeros_like(first.served)
            first = _Point(snapshot.started_ns, 0, zeros, zeros, 0)
        self._points.append(first)
        self._first = -((self._started_ns - first.written_ns) // SECOND_NS)

    def _note_window(self, snapshot: Snapshot) -> None:
        """The last whole second's p99. Scrapes come when they come: what one shows holds for the seconds since the one
        before."""
        second = snapshot.window_start_ns // SECOND_NS
        if snapshot.window_requests:
            first = max(self._windows, second - HISTORY_S) if self._coarse else second
            for known in range(min(first, second), second + 1):
                self._p99[known] = float(snapshot.window_ns[_P99])
        self._windows = second + 1

    def _spread(self, before: _Point, after: _Point) -> None:
        """Share what was served between two instants out to the seconds that they touch."""
        start, end = before.written_ns - self._started_ns, after.written_ns - self._started_ns
        served = int(after.served.sum() - before.served.sum())
        for second in range(start // SECOND_NS, end // SECOND_NS + 1):
            common = min(end, (second + 1) * SECOND_NS) - max(start, second * SECOND_NS)
            self._served[second] = self._served.get(second, 0.0) + served * common / (end - start)

    def _history(self, values: dict[int, float]) -> tuple[float | None, ...]:
        """The last HISTORY_S seconds that are over, as far back as was looked; what is older is forgotten."""
        end = (self._points[-1].written_ns - self._started_ns) // SECOND_NS if self._points else 0
        first = max(self._first, end - HISTORY_S)
        for second in [second for second in values if second < first]:
            del values[second]
        return tuple(values.get(second) for second in range(first, end))

    def _rates(self, lanes: int) -> tuple[float | None, tuple[LaneView, ...]]:
        """Over the last second or a little more: of all lanes, and of each."""
        if len(self._points) < 2:
            return None, (LaneView(None, None),) * lanes
        last = self._points[-1]
        before = next(
            (point for point in reversed(self._points) if point.written_ns <= last.written_ns - _NOW_NS),
            self._points[0],
        )
        span_ns = last.written_ns - before.written_ns
        served = (last.served - before.served) * SECOND_NS / span_ns
        computing = np.clip((last.compute_ns - before.compute_ns) / span_ns, 0.0, 1.0)
        each = zip(served.tolist(), computing.tolist(), strict=True)
        return float(served.sum()), tuple(LaneView(rate, share) for rate, share in each)


def _point(snapshot: Snapshot, finished: int) -> _Point:
    served = snapshot.outcomes[:, OK]
    return _Point(snapshot.written_ns, finished, served, snapshot.lane_compute_ns, snapshot.waiting)


def _whole(counts: npt.NDArray[np.int64]) -> tuple[float | None, ...]:
    """Latencies of the whole run at WINDOW_RANKS; None where so few requests do not tell."""
    count = int(counts.sum())
    if not count:
        return (None,) * len(WINDOW_RANKS)
    values = quantiles_of(counts, WINDOW_RANKS)
    enough = [rank == 1 or count >= least_samples(rank) for rank in WINDOW_RANKS]
    return tuple(value if told else None for value, told in zip(values, enough, strict=True))


def _progress(
    snapshot: Snapshot, facts: RunFacts, elapsed_ns: int, finished: int, rate: float | None
) -> tuple[float | None, int | None]:
    """(share of measuring that is done, ns left). Where a duration and a number are asked, the later ends it."""
    if snapshot.phase in ("drain", "done"):
        return 1.0, 0
    if snapshot.phase != "measure":
        return None, None
    shares, left = [], [max(facts.duration_ns - elapsed_ns, 0)]
    if facts.duration_ns:
        shares.append(elapsed_ns / facts.duration_ns)
    if facts.requests:
        shares.append(finished / facts.requests)
        left.append(round(max(facts.requests - finished, 0) / rate * SECOND_NS) if rate else -1)
    if not shares:
        return None, None
    return min(1.0, *shares), None if -1 in left else max(left)
