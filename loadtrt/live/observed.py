"""What is observed: a model of a run, or of each worker of a fleet, counted from boards; its views and its metrics.

The workers of a fleet are counted apart and shown together: numbers are sums, percentiles those of summed histograms.
"""

from __future__ import annotations

import time
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.live.follower import follower_of
from loadtrt.live.view import Viewer, WorkerView
from loadtrt.records.board import PHASES, WINDOW_RANKS
from loadtrt.records.histogram import Histogram
from loadtrt.results.gpu_telemetry import GpuReading
from loadtrt.units import SECOND_NS, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadtrt.live.alerts import Alert
    from loadtrt.live.metrics import Observation
    from loadtrt.live.observer import RunFacts
    from loadtrt.live.view import View
    from loadtrt.records.board import Board, Snapshot

_STANDS_NS = 2 * SECOND_NS  # a worker so far behind the others does not hold up their last second
_BY_LANE = ("outcomes", "lane_service_ns", "lane_compute_ns")
_ADDED = (
    *("submitted", "in_flight", "waiting", "busy_lanes", "inferences", "missed"),
    *("good", "ratio_sum", "ratios", "sums_ns", "counts"),
)
_OVER: dict[str, Any] = {"phase": "done", "in_flight": 0, "waiting": 0, "busy_lanes": 0}


class Run:
    """A model of the run that is observed: its rows counted, its views, its metrics. Safe to use from any thread.

    facts: what does not change.
    latest: gives the GPU's newest reading, with who else has used it between two instants of Unix time.
    lost: why its process ended without a result; "" while it has not.
    """

    def __init__(self, board: Board, facts: RunFacts, latest: Callable[[int, int], GpuReading | None]) -> None:
        self.facts = facts
        self.lost = ""
        self._follower = follower_of(board, facts)
        self._viewer = Viewer()
        self._in_order = Lock()  # the viewer must get snapshots in the order in which they are taken
        self._latest = latest

    def follow(self) -> Snapshot:
        """Count the new rows, often enough that none is overwritten, and that views have a whole history."""
        with self._in_order:
            snapshot = self._snapshot()
            self._viewer.follow(snapshot, time.time_ns())
            return snapshot

    def look(self) -> tuple[Snapshot, View]:
        """Count the new rows; all counts, and what is drawn of them."""
        with self._in_order:
            snapshot = self._snapshot()
            return snapshot, self._viewer.take(snapshot, self.facts, self._gpu(snapshot), time.time_ns())

    def view(self) -> View:
        """What is drawn, or sent to `loadtrt watch`."""
        return self.look()[1]

    def observation(self) -> Observation:
        """What metrics are made of."""
        from loadtrt.live.metrics import Observation

        now_ns, cpu_s, snapshot = time.time_ns(), time.process_time(), self._snapshot()
        return Observation(snapshot, self.facts, self._gpu(snapshot), now_ns, cpu_s, lost=bool(self.lost))

    def _snapshot(self) -> Snapshot:
        snapshot = self._follower.snapshot()
        return replace(snapshot, **_OVER) if self.lost else snapshot  # what a killed process wrote last

    def _gpu(self, snapshot: Snapshot) -> GpuReading | None:
        return self._latest(snapshot.started_ns, snapshot.written_ns)


class Workers:
    """A model of a fleet, as a Run of one process. Safe to use from any thread."""

    def __init__(self, runs: Sequence[Run]) -> None:
        """runs: of the model's workers, in the order of their numbers."""
        self._runs = runs
        self._facts = _facts_of([run.facts for run in runs])
        self._viewer = Viewer()
        self._in_order = Lock()

    def follow(self) -> None:
        """Count the new rows of all workers."""
        with self._in_order:
            snapshot = self._sum([run.follow() for run in self._runs])
            self._viewer.follow(snapshot, time.time_ns())

    def view(self) -> View:
        """What is drawn: the numbers of all, and a line for each."""
        with self._in_order:
            seen = [run.look() for run in self._runs]
            views = [view for _, view in seen]
            snapshot = self._sum([counts for counts, _ in seen])
            gpu = _gpu_of({view.facts.bus: view.gpu for view in views})
            view = self._viewer.take(snapshot, self._facts, gpu, time.time_ns())
            going = {run.facts.worker: view.alerts for run, view in zip(self._runs, views, strict=True) if not run.lost}
            alerts = (*self._losses(), *_gathered(going))
            rows = tuple(_row(view, lost=bool(run.lost)) for view, run in zip(views, self._runs, strict=True))
            return replace(view, alerts=alerts, workers=rows)

    def observation(self) -> Observation:
        """What metrics are made of: of all, with those of each."""
        from loadtrt.live.metrics import Observation

        each = tuple(run.observation() for run in self._runs)
        gpu = _gpu_of({seen.facts.bus: seen.gpu for seen in each})
        snapshot = self._sum([seen.snapshot for seen in each])
        return Observation(snapshot, self._facts, gpu, each[0].now_ns, time.process_time(), workers=each)

    def _sum(self, snapshots: Sequence[Snapshot]) -> Snapshot:
        lost = [bool(run.lost) for run in self._runs]
        return summed(snapshots, lost if not all(lost) else [False] * len(lost))

    def _losses(self) -> list[Alert]:
        from loadtrt.live.alerts import Alert

        lost = [run for run in self._runs if run.lost]
        remedy = "the others go on, and the result is theirs alone"
        return [Alert("lost", f"worker {run.facts.worker} is lost: {run.lost}", remedy) for run in lost]


def models_of_run(runs: Sequence[Run]) -> list[Run | Workers]:
    """The models of a run, each with all workers of a fleet together."""
    by_model: dict[str, list[Run]] = {}
    for run in runs:
        by_model.setdefault(run.facts.model, []).append(run)
    return [Workers(same) if same[0].facts.worker else same[0] for same in by_model.values()]


def summed(snapshots: Sequence[Snapshot], lost: Sequence[bool]) -> Snapshot:
    """The counts of several workers together; the phase is that of the last one that is not lost."""
    going = [snapshot for snapshot, gone in zip(snapshots, lost, strict=True) if not gone]
    started = [snapshot.started_ns for snapshot in snapshots if snapshot.started_ns]
    lanes = [len(snapshot.outcomes) for snapshot in snapshots]
    judged = [snapshot.overloaded for snapshot in snapshots]
    rates = [snapshot.served_per_s for snapshot in snapshots if snapshot.served_per_s is not None]
    window_start_ns, window = _last_second(snapshots, going)
    count = window.count
    added: dict[str, Any] = {name: sum(getattr(snapshot, name) for snapshot in snapshots) for name in _ADDED}
    by_lane: dict[str, Any] = {
        name: np.concatenate([getattr(snapshot, name) for snapshot in snapshots]) for name in _BY_LANE
    }
    return replace(
        snapshots[0],
        phase=min((snapshot.phase for snapshot in going), key=PHASES.index),
        written_ns=max(snapshot.written_ns for snapshot in going),
        started_ns=min(started, default=0),
        **added,
        **by_lane,
        window_start_ns=window_start_ns,
        window_requests=count,
        window_ns=np.array(window.quantiles(WINDOW_RANKS)) if count else np.zeros(len(WINDOW_RANKS)),
        starved_fraction=float(np.average([snapshot.starved_fraction for snapshot in snapshots], weights=lanes)),
        overloaded=True if True in judged else None if None in judged else False,
        served_per_s=sum(rates) if rates else None,
        seconds=(),
    )


def _last_second(snapshots: Sequence[Snapshot], going: Sequence[Snapshot]) -> tuple[int, Histogram]:
    """(start, latencies) of the last second that is over at all workers that keep up."""
    newest = [snapshot.seconds[-1].start_ns for snapshot in going if snapshot.seconds]
    latest = max(newest, default=0)
    start_ns = min((start for start in newest if start > latest - _STANDS_NS), default=0)
    whole = Histogram()
    for second in (second for snapshot in snapshots for second in snapshot.seconds if second.start_ns == start_ns):
        whole.merge(second.latency)
    return start_ns, whole


def _facts_of(facts: Sequence[RunFacts]) -> RunFacts:
    """What does not change of all workers together."""
    rates = [one.rate for one in facts if one.rate is not None]
    requests = [one.requests for one in facts if one.requests is not None]
    return replace(
        facts[0],
        lanes=sum(one.lanes for one in facts),
        places=sum(one.places for one in facts),
        rate=sum(rates) if rates else None,
        requests=sum(requests) if requests else None,
        bus="",
        uuid="",
        worker="",
        device="",
    )


def _gpu_of(gpus: dict[str, GpuReading | None]) -> GpuReading | None:
    """Of one GPU its reading, of several what adds up; gpus: by bus id, so that workers on one GPU count it once."""
    known = [gpu for gpu in gpus.values() if gpu is not None]
    if len(known) < 2:
        return known[0] if known else None
    sums = {}
    for name in ("power_watts", "power_limit_watts", "memory_used_bytes", "memory_total_bytes"):
        values = [getattr(gpu, name) for gpu in known]
        sums[name] = None if None in values else sum(values)
    return GpuReading(at_ns=max(gpu.at_ns for gpu in known), **sums)


def _row(view: View, *, lost: bool) -> WorkerView:
    silent = any(alert.kind == "silent" for alert in view.alerts)  # its last second is long over
    p99_ns = None if view.window is None or lost or silent else view.window[WINDOW_RANKS.index(0.99)]
    phase, facts = "lost" if lost else "silent" if silent else view.phase, view.facts
    rate = None if lost or silent else view.requests_per_s
    return WorkerView(facts.worker, facts.device, phase, rate, p99_ns, view.ok, view.in_flight, view.gpu)


def _gathered(alerts: Mapping[str, Sequence[Alert]]) -> list[Alert]:
    """Each kind once, with the evidence of the first worker and how many have it; alerts: by worker."""
    told = []
    for kind in dict.fromkeys(alert.kind for of_worker in alerts.values() for alert in of_worker):
        having = {worker: alert for worker, of_worker in alerts.items() for alert in of_worker if alert.kind == kind}
        worker, first = next(iter(having.items()))
        more = f"; likewise in {len(having)} of {plural(len(alerts), 'worker')}" if len(having) > 1 else ""
        told.append(replace(first, evidence=f"{first.evidence} (worker {worker}{more})"))
    return told
