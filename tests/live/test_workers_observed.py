"""A fleet as one observer sees it: its numbers are those that one process with all rows would have."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest

from exported import FACTS, READING, page, values
from loadtrt.lanes.recorder import Recorder
from loadtrt.live.alerts import SILENCE_NS, Alert
from loadtrt.live.exporter import Collected
from loadtrt.live.follower import follower_of
from loadtrt.live.frame import render, status_line
from loadtrt.live.metrics import together
from loadtrt.live.observed import Run, Workers, models_of_run, summed
from loadtrt.live.observing import Observing
from loadtrt.live.view_json import from_json, to_json
from loadtrt.records.board import WINDOW_RANKS, Board
from loadtrt.records.records import FAILED, OK, UNSERVED
from loadtrt.results.gpu_telemetry import GpuClient, GpuSharing
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from loadtrt.live.observer import RunFacts
    from loadtrt.results.gpu_telemetry import GpuReading

# (worker, lane, status, when it is due in ms, latency in ns)
Request = tuple[int, int, int, int, int]
REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 1),
        st.sampled_from([OK, OK, OK, FAILED, UNSERVED]),
        st.integers(0, 900),
        st.integers(1, SECOND_NS // 20),
    ),
    max_size=60,
)
STEADY = [(n % 3, n % 2, OK, 10 * n, (n % 3 + 1) * MILLISECOND_NS) for n in range(300)]


def boards(requests: list[Request], workers: int, *, ended: bool = True) -> list[Board]:
    """A board for each worker, whose lanes are the fleet's: lanes 2 i and 2 i + 1 where there is one for all."""
    each = [Board(keep=1 << 12) for _ in range(workers)]
    lanes = 2 * (3 // workers)
    recorders = [
        Recorder(lanes, 0, board=board, bounds=[it.counted for it in FACTS.objectives], items=[8]) for board in each
    ]
    for board in each:
        board.enter("measure")
    for worker, lane, status, due_ms, latency in sorted(requests, key=lambda it: it[3] * MILLISECOND_NS + it[4]):
        due, place = due_ms * MILLISECOND_NS, (worker, lane) if workers > 1 else (0, 2 * worker + lane)
        recorders[place[0]].record(
            due, due, due + 1, due + latency, 0, latency // 2, 0, 0, place[1] if status != UNSERVED else 0, status
        )
    for recorder in recorders if ended else ():
        recorder.finish()
    return each


def facts_of(worker: int, **changes: Any) -> RunFacts:
    facts = replace(
        FACTS, lanes=2, rate=100.0, places=2, items=(8,), point=None, worker=str(worker), device=str(worker)
    )
    return replace(facts, **{"uuid": f"GPU-{worker}", "bus": f"bus {worker}", **changes})


def fleet(requests: list[Request], gpu: GpuReading | None = READING, **changes: Any) -> Workers:
    runs = [Run(board, facts_of(worker, **changes), lambda *_: gpu) for worker, board in enumerate(boards(requests, 3))]
    (workers,) = models_of_run(runs)
    assert isinstance(workers, Workers)
    return workers


@given(REQUESTS)
def test_the_sum_is_what_one_process_would_count(requests: list[Request]) -> None:
    """Requests, histograms, sums, objectives, and the last second's percentiles."""
    (whole,) = boards(requests, 1)
    alone = follower_of(whole, replace(facts_of(0), lanes=6, places=6)).snapshot()
    each = [follower_of(board, facts_of(0)).snapshot() for board in boards(requests, 3)]
    both = summed(each, [False] * 3)
    for name in ("counts", "sums_ns", "good", "ratios", "lane_service_ns", "lane_compute_ns"):
        assert (getattr(both, name) == getattr(alone, name)).all(), name
    assert (both.outcomes.sum(axis=0) == alone.outcomes.sum(axis=0)).all()
    for name in ("submitted", "inferences", "in_flight", "waiting", "busy_lanes", "missed", "phase"):
        assert getattr(both, name) == getattr(alone, name), name
    assert both.ratio_sum == pytest.approx(alone.ratio_sum)
    if all(snapshot.seconds for snapshot in each):
        assert (both.window_requests, both.window_ns.tolist()) == (alone.window_requests, alone.window_ns.tolist())


def test_the_last_second_is_one_that_all_have_ended() -> None:
    """Not of those that are a moment ahead alone; and a worker that stands still does not hold it up."""
    ahead = [(0, 0, OK, 10 * n, MILLISECOND_NS) for n in range(500)]
    near = [(1, 0, OK, 10 * n, 2 * MILLISECOND_NS) for n in range(400)]
    still = [(2, 0, OK, 10 * n, 3 * MILLISECOND_NS) for n in range(50)]
    each = [follower_of(board, facts_of(0)).snapshot() for board in boards([*ahead, *near, *still], 3)]
    assert [snapshot.window_start_ns // SECOND_NS for snapshot in each] == [4, 3, 0]
    both = summed(each, [False] * 3)
    assert (both.window_start_ns, both.window_requests) == (3 * SECOND_NS, 200)
    assert both.window_ns[WINDOW_RANKS.index(1.0)] == 2 * MILLISECOND_NS


def test_series_of_a_fleet() -> None:
    """What adds up has the labels of each worker; objectives and the last second are the fleet's; each family once."""
    metrics = together([fleet(STEADY).observation()])
    found = page(metrics)
    assert values(found, "loadtrt_latency_seconds_count", "worker", "device") == {(n, n): 100 for n in "012"}
    assert values(found, "loadtrt_lanes", "worker", "device") == {(n, n): 2 for n in "012"}
    assert list(values(found, "loadtrt_latency_window_seconds", "worker", "quantile")) == [
        ("", repr(rank)) for rank in WINDOW_RANKS
    ]
    assert values(found, "loadtrt_latency_window_seconds", "quantile")["1.0",] == pytest.approx(3e-3)
    tails = values(found, "loadtrt_worker_latency_window_seconds", "quantile", "worker")
    p99 = {worker: time for (rank, worker), time in tails.items() if rank == "0.99"}
    assert p99 == pytest.approx({"0": 1e-3, "1": 2e-3, "2": 3e-3}, rel=1 / 256)
    text = FACTS.objectives[0].text
    assert values(found, "loadtrt_objective_requests_total", "worker", "objective") == {("", text): 300}
    assert values(found, "loadtrt_objective_attained_ratio", "objective", "worker") == {
        (FACTS.objectives[1].text, ""): pytest.approx(100 / 90, rel=0.02)
    }
    assert values(found, "loadtrt_gpu_power_watts", "device", "UUID", "worker") == {
        (n, f"GPU-{n}", ""): READING.power_watts for n in "012"
    }
    assert values(found, "loadtrt_workers_lost") == {(): 0}
    names = [metric.name for metric in metrics]
    assert len(names) == len(set(names))
    lines = [line for line in generate_latest(Collected(metrics)).decode().splitlines() if line[0] != "#"]
    assert len(lines) == len({line.rpartition(" ")[0] for line in lines})


def test_a_gpu_of_two_workers_is_exported_once() -> None:
    """Its numbers would count twice in a sum."""
    found = page(together([fleet(STEADY, bus="bus", uuid="GPU-0").observation()]))
    assert list(values(found, "loadtrt_gpu_power_watts", "UUID")) == [("GPU-0",)]
    assert len(values(found, "loadtrt_run_info", "UUID")) == 1


def test_what_of_gpus_adds_up_is_drawn() -> None:
    view = fleet(STEADY).view()
    assert view.gpu is not None
    assert (view.gpu.power_watts, view.gpu.sm_clock_hertz) == (3 * 312.5, None)
    (gpu,) = {row.gpu for row in view.workers}
    assert gpu == READING
    alone = fleet(STEADY, bus="bus").view()
    assert alone.gpu == READING


def test_a_worker_that_stands_still_has_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last second is long over; its count stays."""
    runs = [Run(board, facts_of(n), lambda *_: None) for n, board in enumerate(boards(STEADY, 3))]
    (workers,) = models_of_run(runs)
    assert [(row.phase, row.p99_ns is None, row.ok) for row in workers.view().workers] == [("measure", False, 100)] * 3
    later = time.time_ns() + SILENCE_NS + SECOND_NS
    monkeypatch.setattr(time, "time_ns", lambda: later)
    view = workers.view()
    assert {alert.kind for alert in view.alerts} == {"silent"}
    rows = [(row.phase, row.requests_per_s, row.p99_ns, row.ok) for row in view.workers]
    assert rows == [("silent", None, None, 100)] * 3


def test_a_lost_worker() -> None:
    """Its count stays, it holds nothing up, and is told; the age of what it wrote raises no alert of its own."""
    each = boards(STEADY, 3, ended=False)
    runs = [Run(board, facts_of(worker), lambda *_: None) for worker, board in enumerate(each)]
    (workers,) = models_of_run(runs)
    runs[1].lost = "it was ended by SIGKILL while it measured"
    for place in (0, 2):
        each[place].enter("drain")
    view = workers.view()
    assert (view.phase, [row.phase for row in view.workers]) == ("drain", ["drain", "lost", "drain"])
    assert [alert.kind for alert in view.alerts] == ["lost"]
    assert "worker 1 is lost: it was ended by SIGKILL" in view.alerts[0].evidence
    found = page(together([workers.observation()]))
    assert values(found, "loadtrt_workers_lost") == {(): 1}
    assert list(values(found, "loadtrt_snapshot_age_seconds", "worker")) == [("0",), ("2",)]
    for run in runs:
        run.lost = "it was ended by SIGKILL"
    assert workers.view().phase == "done"


def test_a_worker_that_has_ended_has_not_stalled() -> None:
    """The age of its numbers grows, and an alert takes the greatest of all workers'."""
    each = boards(STEADY, 3)
    (workers,) = models_of_run([Run(board, facts_of(worker), lambda *_: None) for worker, board in enumerate(each)])
    each[0].enter("done")
    found = page(together([workers.observation()]))
    assert list(values(found, "loadtrt_snapshot_age_seconds", "worker")) == [("1",), ("2",)]


def test_an_alert_of_several_workers_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "0": (),
        "1": (Alert("late", "5 ms late", "free a core"),),
        "2": (Alert("late", "9 ms late", "free a core"),),
    }
    monkeypatch.setattr("loadtrt.live.view.alerts_of", lambda _, facts, *__: told.get(facts.worker, ()))
    (alert,) = fleet(STEADY).view().alerts
    assert alert.evidence == "5 ms late (worker 1; likewise in 2 of 3 workers)"


def many(workers: int) -> Any:
    """A view with so many workers, of which number 7 is the slowest and number 9 is lost."""
    view = fleet(STEADY).view()
    rows = [replace(view.workers[0], worker=str(n), p99_ns=(50 if n == 7 else 1) * 1e6) for n in range(workers)]
    rows[9] = replace(rows[9], phase="lost", requests_per_s=None)
    return replace(view, workers=tuple(rows))


def drawn(view: Any, width: int, height: int) -> list[str]:
    lines = [line.plain.rstrip() for line in render(view, width, height).lines]
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    return lines


def test_each_worker_has_a_row() -> None:
    lines = drawn(fleet(STEADY).view(), 120, 50)
    (header,) = [number for number, line in enumerate(lines) if line.split()[:3] == ["worker", "device", "phase"]]
    assert [line.split()[0] for line in lines[header + 1 : header + 4]] == ["0", "1", "2"]
    assert "1980 MHz, slowed" in lines[header + 1]
    assert any("3 workers" in line for line in lines)
    assert not any("lane 0 " in line for line in lines)


@pytest.mark.parametrize("height", [1, 2, 3, 8, 12, 24, 50])
@pytest.mark.parametrize("width", [1, 10, 30, 60, 200])
def test_workers_fit_any_terminal(width: int, height: int) -> None:
    drawn(many(16), width, height)


def test_where_rows_run_out_the_worst_are_shown() -> None:
    lines = drawn(many(64), 120, 24)
    shown = [line.split()[0] for line in lines if line.split()[2:3] in (["measure"], ["lost"])]
    assert {"7", "9"} <= set(shown)
    (more,) = [line for line in lines if line.strip().startswith("and ")]
    assert int(more.split()[1]) + len(shown) == 64


def test_the_view_is_the_same_on_another_machine() -> None:
    view = fleet(STEADY).view()
    assert from_json(to_json(view)) == view
    assert "300 served" in status_line(view)


def test_a_fleets_own_processes_are_no_others_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each GPU is sampled for itself, and told by its bus id."""
    observing = Observing([Board(keep=1 << 12) for _ in range(2)])
    clients = (GpuClient(10, "python3", 1 << 30, sm_ratio=0.3), GpuClient(99, "other", 1 << 30, sm_ratio=0.2))

    class Sampled:
        latest = READING

        def between(self, *_: int) -> GpuSharing:
            return GpuSharing(clients)

    def watch(bus_id: str, own: dict[str, list[int]]) -> None:
        observing._gpus[bus_id] = Sampled(), Sampled(), frozenset(own["pids"])  # type: ignore[assignment]

    monkeypatch.setattr(observing, "_watch_gpu", watch)
    observing.handle({"facts": [facts_of(worker).to_json() for worker in range(2)]})
    observing.handle({"gpu": "bus 0", "own": {"pids": [10, 11], "before": []}})
    reading = observing._latest("bus 0", 1, 2)
    assert reading is not None
    assert reading.sharing is not None
    assert [client.pid for client in reading.sharing.clients] == [99]
    assert observing._latest("bus 1", 1, 2) is None
    observing.close()


def test_the_next_fleet_has_other_processes() -> None:
    """On a GPU that is sampled already; and boards of a fleet that is over are read no more."""
    observing, unused = Observing([Board(keep=1 << 12) for _ in range(2)]), Any
    observing._gpus["bus 9"] = unused, unused, frozenset([10])  # type: ignore[assignment]
    observing.handle({"gpu": "bus 9", "own": {"pids": [11], "before": []}})
    assert observing._gpus["bus 9"][2] == {10, 11}
    observing.handle({"facts": [facts_of(worker).to_json() for worker in range(2)]})
    observing.handle({"finish": False})
    assert observing.handle({"forget": True}) == {"forget": True}
    assert observing._observation() is None
    assert [seen.facts.run for seen in observing._ended_runs] == [FACTS.run]
    observing.close()


def test_gpus_of_other_hosts_are_shown_as_they_were_last_read() -> None:
    """Each with its worker, until that is lost; those of a run before are forgotten."""
    observing = Observing([Board(keep=1 << 12) for _ in range(2)])
    facts = [replace(facts_of(worker), bus=f"node-{worker} 0000:65:00.0").to_json() for worker in range(2)]
    observing.handle({"facts": facts})
    for worker, power in enumerate((300.0, 200.0)):
        told = json.loads(json.dumps(asdict(replace(READING, sharing=None, power_watts=power))))
        observing.handle({"reading": [f"node-{worker} 0000:65:00.0", told]})

    def watts() -> dict[tuple[str, ...], float]:
        seen = observing._observation()
        assert seen is not None
        return values(page(together([seen])), "loadtrt_gpu_power_watts", "device", "UUID")

    assert watts() == {("0", "GPU-0"): 300, ("1", "GPU-1"): 200}
    observing.handle({"reading": ["node-0 0000:65:00.0", None]})
    assert watts() == {("1", "GPU-1"): 200}
    observing.handle({"forget": True})
    observing.handle({"facts": facts})
    assert watts() == {}
    observing.close()


def test_a_board_without_a_writer_is_not_followed() -> None:
    """Of a worker that was lost before it had its engine."""
    observing = Observing([Board(keep=1 << 12) for _ in range(2)])
    observing.handle({"facts": ["", facts_of(1).to_json()]})
    observing.handle({"lost": [0, "it was ended by SIGKILL before it measured"]})
    seen = observing._observation()
    assert seen is not None
    found = page(together([seen]))
    assert list(values(found, "loadtrt_lanes", "worker")) == [("1",)]
    observing.close()


def test_models_of_a_fleet_are_apart() -> None:
    """Each is the sum of its own workers."""
    each = boards(STEADY, 3)
    runs = [Run(board, replace(facts_of(n), model=f"m{n % 2}"), lambda *_: None) for n, board in enumerate(each)]
    models = models_of_run(runs)
    assert [model.observation().facts.model for model in models] == ["m0", "m1"]
    assert [int(model.observation().snapshot.outcomes.sum()) for model in models] == [200, 100]
    assert np.isclose(models[0].observation().facts.rate or 0, 200)
