"""What is drawn of a run while it goes on: a View, made of snapshots as they come, here or on another machine.

A snapshot is the state at one instant; a Viewer remembers earlier ones, so that a View has rates and their history.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadtrt.asked.objective import Objective  # noqa: TC001
from loadtrt.live.alerts import Alert, alerts_of, quantiles_of
from loadtrt.live.observer import RunFacts  # noqa: TC001  # pydantic reads the types of a View
from loadtrt.records.board import WINDOW_RANKS
from loadtrt.records.records import METRICS, OK
from loadtrt.results.gpu_telemetry import GpuReading  # noqa: TC001
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.records.board import Snapshot

HISTORY_S = 120
_NOW_NS = SECOND_NS * 9 // 10  # what "now" spans at least
_QUIET_NS = SECOND_NS * 3 // 2  # where the board is written for so long and no request finishes, the rate is 0
_REMEMBERED_NS = 30 * SECOND_NS
_LATENCY = [metric.name for metric in METRICS].index("latency")
_P99 = WINDOW_RANKS.index(0.99)


@dataclass(frozen=True, slots=True)
class LaneView:
    """One lane now: requests served a second, and the part of the time spent computing. None: not known."""

    requests_per_s: float | None
    compute_share: float | None


@dataclass(frozen=True, slots=True)
class ObjectiveView:
    """An objective so far.

    good_share: share of the finished requests that are good, of an objective on requests; None before the first.
    value: the number that another objective bounds: the rate so far, or the GPU's last power; None where not known.
    """

    objective: Objective
    good_share: float | None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker of a fleet now.

    worker, device: its number, and that of its device; "" where --devices was not said.
    phase: of PHASES, "silent" or "lost".
    requests_per_s: served requests a second; None: not known.
    p99_ns: of the latencies in its last whole second.
    ok: served requests.
    in_flight: requests sent and not completed.
    gpu: the newest reading of its GPU.
    """

    worker: str
    device: str
    phase: str
    requests_per_s: float | None
    p99_ns: float | None
    ok: int
    in_flight: int
    gpu: GpuReading | None


@dataclass(frozen=True, slots=True)
class View:
    """All that is drawn. Instants and durations in ns, rates in 1/s; None: not known, or not yet.

    now_ns: when the view was made, Unix time of the run's machine.
    phase: of PHASES.
    elapsed_ns: since the phase began; in the phases after measuring, how long measuring took.
    done_share, left_ns: of measuring, where its length is known.
    requests_per_s: served requests a second, over the last second.
    in_flight, waiting, busy_lanes: as the measuring process last wrote them.
    ok, failed, unserved, dropped: requests by outcome.
    items: mean inferences of a request.
    window: latencies at WINDOW_RANKS over the last whole second.
    whole: latencies at WINDOW_RANKS over the run; None where the requests are too few.
    histogram: (bucket, count) of all latencies, in order.
    rate_history, p99_history: a value a second, for the same seconds, the newest last.
    lanes: the lanes, in order.
    gpu: the newest reading.
    joules: energy of an inference, from the GPU's power.
    objectives: the objectives so far.
    alerts: what spoils the run, the worst first.
    others: those of the other models of the run.
    workers: those of a fleet, whose sums the view has.
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
    histogram: tuple[tuple[int, int], ...]
    rate_history: tuple[float | None, ...]
    p99_history: tuple[float | None, ...]
    lanes: tuple[LaneView, ...]
    gpu: GpuReading | None
    joules: float | None
    objectives: tuple[ObjectiveView, ...]
    alerts: tuple[Alert, ...]
    others: tuple[View, ...] = ()
    workers: tuple[WorkerView, ...] = ()

    @property
    def inferences_per_s(self) -> float | None:
        """Served inferences a second."""
        return None if self.requests_per_s is None else self.requests_per_s * self.items


class _Point(NamedTuple):
    """What was known at one instant. served, compute_ns: int64 [lanes]."""

    written_ns: int
    finished: int
    served: npt.NDArray[np.int64]
    compute_ns: npt.NDArray[np.int64]


class Viewer:
    """Makes Views of the snapshots of a run, given in order, however often, from before measuring on.

    Law: a second's rate is the number of requests served in it, where the requests between two snapshots are spread
    evenly over the time between them. So Σ rates · 1 s = requests served.
    """

    def __init__(self) -> None:
        self._phase = ""
        self._phase_ns = 0
        self._measured_ns = 0
        self._started_ns = 0
        self._points: deque[_Point] = deque()
        self._served: dict[int, float] = {}  # by second since the start
        self._p99: dict[int, float] = {}

    def follow(self, snapshot: Snapshot, now_ns: int) -> None:
        """Remember a snapshot. now_ns: on the clock of the snapshot's instants, time.time_ns()."""
        finished = int(snapshot.outcomes.sum())
        if snapshot.started_ns != self._started_ns:
            self._begin(snapshot)
        if snapshot.phase != self._phase:
            self._phase, self._phase_ns = snapshot.phase, now_ns
            if snapshot.phase == "drain" and self._started_ns:  # the board is written when it begins
                self._measured_ns = snapshot.written_ns - self._started_ns
        if not self._started_ns:
            return
        if snapshot.phase == "measure":
            self._measured_ns = now_ns - self._started_ns
        elif not self._measured_ns:  # no snapshot was taken at the end of measuring
            self._measured_ns = snapshot.written_ns - self._started_ns
        if snapshot.window_requests:
            self._p99[snapshot.window_start_ns // SECOND_NS] = float(snapshot.window_ns[_P99])
        last = self._points[-1]
        if snapshot.written_ns > last.written_ns + (_QUIET_NS if finished == last.finished else 0):
            point = _Point(snapshot.written_ns, finished, snapshot.outcomes[:, OK], snapshot.lane_compute_ns)
            self._spread(last, point)
            self._points.append(point)
            oldest = (point.written_ns - self._started_ns) // SECOND_NS - HISTORY_S
            for values in (self._served, self._p99):  # here, as nobody may ever look
                for second in [second for second in values if second < oldest]:
                    del values[second]
        while self._points[0].written_ns < snapshot.written_ns - _REMEMBERED_NS and len(self._points) > 2:
            self._points.popleft()

    def take(self, snapshot: Snapshot, facts: RunFacts, gpu: GpuReading | None, now_ns: int) -> View:
        """Remember a snapshot; the View of this instant."""
        self.follow(snapshot, now_ns)
        rate, lanes = self._rates(facts.lanes)
        if not facts.device_times:
            lanes = tuple(replace(lane, compute_share=None) for lane in lanes)
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
            histogram=tuple(zip(used.tolist(), counts[used].tolist(), strict=True)),
            rate_history=self._history(self._served),
            p99_history=self._history(self._p99),
            lanes=lanes,
            gpu=gpu,
            joules=watts / (rate * items) if watts is not None and rate else None,
            objectives=tuple(
                ObjectiveView(
                    objective,
                    int(good) / finished if finished and objective.of_requests else None,
                    number_now(objective, snapshot, int(good), gpu),
                )
                for objective, good in zip(facts.objectives, snapshot.good, strict=False)
            ),
            alerts=alerts_of(snapshot, facts, gpu, now_ns),
        )

    def _begin(self, snapshot: Snapshot) -> None:
        """Measuring begins: nothing has been served."""
        self._started_ns = snapshot.started_ns
        self._measured_ns = 0
        self._served.clear()
        self._p99.clear()
        zeros = np.zeros_like(snapshot.lane_compute_ns)
        self._points = deque([_Point(snapshot.started_ns, 0, zeros, zeros)])

    def _spread(self, before: _Point, after: _Point) -> None:
        """Spread the requests served between two instants over the seconds between them."""
        start, end = before.written_ns - self._started_ns, after.written_ns - self._started_ns
        served = int(after.served.sum() - before.served.sum())
        for second in range(start // SECOND_NS, end // SECOND_NS + 1):
            common = min(end, (second + 1) * SECOND_NS) - max(start, second * SECOND_NS)
            self._served[second] = self._served.get(second, 0.0) + served * common / (end - start)

    def _history(self, values: dict[int, float]) -> tuple[float | None, ...]:
        """The last HISTORY_S seconds that are over, as far as they are known."""
        end = (self._points[-1].written_ns - self._started_ns) // SECOND_NS if self._points else 0
        first = max(0, end - HISTORY_S)
        return tuple(values.get(second) for second in range(first, end))

    def _rates(self, lanes: int) -> tuple[float | None, tuple[LaneView, ...]]:
        """Rates over the last second or a little more: of all lanes, and of each."""
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
        lane_views = map(LaneView, served.tolist(), computing.tolist())
        return float(served.sum()), tuple(lane_views)


def number_now(objective: Objective, snapshot: Snapshot, good: int, gpu: GpuReading | None) -> float | None:
    """The number that an objective bounds: the rate so far, or by the GPU's last power; None where it is not known.

    good: served requests, within the bound where there is one.
    """
    if objective.of_requests:
        return None
    rate, served = snapshot.served_per_s, int(snapshot.outcomes[:, OK].sum())
    watts = None if gpu is None else gpu.power_watts
    if objective.kind == "power":
        return watts
    if not rate or not served:
        return None
    per_inference = served / snapshot.inferences
    if objective.kind == "energy":
        return None if watts is None else watts / rate * per_inference
    return {"goodput": rate * good / served, "inferences": rate / per_inference}.get(objective.kind, rate)


def _whole(counts: npt.NDArray[np.int64]) -> tuple[float | None, ...]:
    """Latencies of the whole run at WINDOW_RANKS; None where the requests are too few."""
    count = int(counts.sum())
    if not count:
        return (None,) * len(WINDOW_RANKS)
    values = quantiles_of(counts, WINDOW_RANKS)
    enough = [rank == 1 or count >= least_samples(rank) for rank in WINDOW_RANKS]
    return tuple(value if known else None for value, known in zip(values, enough, strict=True))


def _progress(
    snapshot: Snapshot, facts: RunFacts, elapsed_ns: int, finished: int, rate: float | None
) -> tuple[float | None, int | None]:
    """(share of measuring that is done, ns left). Of a duration and a number of requests, the later ends a run."""
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
