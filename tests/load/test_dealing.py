"""One load for a fleet: what its workers take is the whole schedule, each request once, whatever their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.asked.config import RunConfig
from loadtrt.errors import UsageError
from loadtrt.load.dealing import MOST_WORKERS, Deal, parse_routing, parse_worker

if TYPE_CHECKING:
    from pathlib import Path

TRACE = "time,user\n" + "".join(f"{0.01 * (7 * k % 500)},u{k % 13}\n" for k in range(500))
LOADS: dict[str, dict[str, Any]] = {
    "poisson": {"rate": 400, "duration": "3s"},
    "gamma": {"rate": 400, "burstiness": 4, "requests": 1234},
    "constant": {"rate": 400, "arrivals": "constant", "duration": "1s"},
    "bursts": {"rate": 400, "bursts": "100ms/400ms", "duration": "2s"},
    "stages": {"stages": "100/s:1s, ramp 100/s-900/s:2s"},
    "looped stages": {"stages": "100/s:1s, 0/s:1s", "stages_loop": True, "duration": "5s"},
    "offline": {"arrivals": "offline", "requests": 321},
    "trace": {"trace": "trace.csv", "trace_column": "time"},
    "looped trace": {"trace": "trace.csv", "trace_column": "time", "trace_loop": True, "requests": 1700},
}


def _fleet(workers: int, **options: Any) -> list[RunConfig]:
    return [RunConfig.of(engine="simulated:null", worker=f"{place}/{workers}", **options) for place in range(workers)]


@given(
    count=st.integers(0, 400),
    workers=st.integers(1, 40),
    routing=st.sampled_from(["random", "round-robin"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_each_request_goes_to_one_worker(count: int, workers: int, routing: str, seed: int) -> None:
    """Whatever their number, and in the order of the schedule."""
    dealt = [Deal(worker, workers, routing).places(count, seed) for worker in range(workers)]
    assert sorted(np.concatenate(dealt).tolist()) == list(range(count))
    assert all((np.diff(places) > 0).all() for places in dealt)
    assert sum(Deal(worker, workers, routing).requests(count) for worker in range(workers)) == count


@pytest.mark.parametrize("routing", ["random", "round-robin", "sticky:user"])
@pytest.mark.parametrize("load", LOADS)
def test_the_workers_take_the_whole_schedule(
    load: str, routing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: due instants to the ns, whatever the load and the number of workers."""
    (tmp_path / "trace.csv").write_text(TRACE)
    monkeypatch.chdir(tmp_path)
    if routing.startswith("sticky") and "trace" not in load:
        with pytest.raises(UsageError, match="which only a trace has"):
            _fleet(2, routing=routing, **LOADS[load])
        return
    whole, _ = (config := RunConfig.of(engine="simulated:null", **LOADS[load])).due(config.model)
    assert whole is not None
    for workers in (1, 2, 3, 8):
        merged = np.full(len(whole), -1)
        offered = 0.0
        for worker in _fleet(workers, routing=routing, **LOADS[load]):
            due, places = worker.due(worker.model)
            assert due is not None
            assert places is not None
            assert (merged[places] == -1).all()
            merged[places] = due
            offered += worker.offered_per_s(worker.model) or 0.0
        assert np.array_equal(merged, whole)
        assert offered == pytest.approx(config.offered_per_s(config.model) or 0.0)


def test_requests_of_one_key_go_to_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of the rows, in every round, and in CSV as in JSONL."""
    monkeypatch.chdir(tmp_path)
    rows = [line.split(",") for line in TRACE.splitlines()[1:]]
    users = np.array([user for _, user in sorted(rows, key=lambda row: float(row[0]))])
    (tmp_path / "trace.csv").write_text(TRACE)
    lines = "".join(f'{{"time": {time}, "user": "{user}"}}\n' for time, user in rows)
    (tmp_path / "trace.jsonl").write_text(lines)
    dealt = {}
    for file in ("trace.csv", "trace.jsonl"):
        options = {"trace": file, "trace_column": "time", "trace_loop": True, "requests": 1000}
        for worker, config in enumerate(_fleet(4, routing="sticky:user", **options)):
            _, places = config.due(config.model)
            assert places is not None
            dealt[file, worker] = set(users[places % 500])
            assert len(places) == 2 * len(places[places < 500])
    for worker in range(4):
        assert dealt["trace.csv", worker] == dealt["trace.jsonl", worker]
        assert all(dealt["trace.csv", worker].isdisjoint(dealt["trace.csv", other]) for other in range(worker))


@pytest.mark.parametrize("burstiness", [0.5, 1, 3])
def test_how_arrivals_at_one_worker_vary(burstiness: float) -> None:
    """CV² of the gaps: 1 + (c² − 1)/N of a thinned process, c²/N of every N-th request."""
    options = {"rate": 1000, "burstiness": burstiness, "requests": 400_000}
    laws = {"random": 1 + (burstiness**2 - 1) / 4, "round-robin": burstiness**2 / 4}
    for routing, law in laws.items():
        config = _fleet(4, routing=routing, **options)[2]
        due, _ = config.due(config.model)
        assert due is not None
        gaps = np.diff(due)
        assert gaps.var() / gaps.mean() ** 2 == pytest.approx(law, rel=0.05)


def test_a_mix_is_dealt_out_with_its_requests() -> None:
    """A request has the size that it has in the whole load, and a fleet's closed loops draw different ones."""
    from loadtrt.engines.open import open_engine
    from loadtrt.lanes.input_sets import inputs_for
    from loadtrt.lanes.model_run import ModelRun, Session
    from loadtrt.runs.watched import Silence

    def order(config: RunConfig) -> list[int]:
        engine = open_engine(config.model, Silence().say, Silence().status)
        run = ModelRun(engine, config.model, inputs_for(engine, config.model).sets, Session())
        return list(run.load(config).order)

    options: dict[str, Any] = {"engine": "simulated:service=1ms", "mix": "1:0.5, 8:0.5"}
    open_loop = {**options, "rate": 100, "requests": 70_000}
    whole = order(RunConfig.of(**open_loop))
    for worker in range(3):
        config = RunConfig.of(**open_loop, worker=f"{worker}/3")
        _, places = config.due(config.model)
        assert places is not None
        assert order(config) == [whole[place % len(whole)] for place in places]
    closed = [order(RunConfig.of(**options, worker=f"{worker}/2")) for worker in range(2)]
    assert closed[0] != closed[1]


@pytest.mark.parametrize("routing", ["least-outstanding", "least-outstanding:random", "two-choices"])
def test_what_workers_route_themselves(routing: str) -> None:
    """Every worker knows the whole schedule, and what is drawn for it; the part that comes to it is a mean."""
    load: dict[str, Any] = {"engine": "simulated:null", "rate": 400, "requests": 500}
    whole, _ = (config := RunConfig.of(**load)).due(config.model)
    assert whole is not None
    draws = []
    for number in range(4):
        config = RunConfig.of(**load, processes=4, routing=routing).model_copy(
            update={"processes": 1, "worker": f"{number}/4"}
        )
        due, places = config.due(config.model)
        assert (np.array_equal(due if due is not None else (), whole), places) == (True, None)
        assert config.offered_per_s(config.model) == 100
        assert config.deal is not None
        draws.append(config.deal.draws(500, 7).tolist())
    assert draws[0] == draws[1] == draws[2] == draws[3]
    assert len(draws[0]) == {"least-outstanding": 0, "two-choices": 1000}.get(routing, 500)


@pytest.mark.parametrize("where", [{"worker": "0/2"}, {"ray": "auto", "workers": 2}])
@pytest.mark.parametrize("routing", ["least-outstanding", "least-outstanding:random", "two-choices"])
def test_only_workers_of_one_host_know_what_is_outstanding(where: dict[str, Any], routing: str) -> None:
    with pytest.raises(UsageError, match="in memory that workers of one host share: start them by --devices or --proc"):
        RunConfig.of(engine="simulated:null", rate=100, routing=routing, **where)


def test_a_closed_loop_shares_the_requests_alone() -> None:
    """Each worker has all its lanes."""
    fleet = _fleet(3, requests=1000, contexts=4)
    assert [worker.own_requests(worker.model) for worker in fleet] == [334, 333, 333]
    assert {worker.model.in_flight for worker in fleet} == {8}


@pytest.mark.parametrize(
    ("read", "text", "sentence"),
    [
        (parse_worker, "8/8", "no worker 8 of 8: they are numbered from 0 to 7"),
        (parse_worker, "2", "is not a worker: write NUMBER/WORKERS"),
        (parse_worker, "-1/4", "is not a worker"),
        (parse_worker, "0/0", "too few"),
        (parse_worker, f"0/{MOST_WORKERS + 1}", "too many"),
        (parse_routing, "sticky", "name it, such as sticky:user"),
        (parse_routing, "sticky:", "name it, such as sticky:user"),
        (parse_routing, "least-outstanding:", "does not say what to do with ties: write one of longest-idle, random"),
        (parse_routing, "least-outstanding:first", "does not say what to do with ties"),
        (parse_routing, "two-choices:random", "is not a routing"),
        (parse_routing, "fastest", "is not a routing"),
        (parse_routing, "random:user", "is not a routing"),
    ],
)
def test_what_is_no_worker_or_routing(read: Any, text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read(text)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precision": "3%"}, "--precision would end each worker by its own numbers"),
        ({"scenario": "server", "rate": 100, "objective": "latency.p99 < 10ms"}, "scenarios are for one process"),
        ({"trace": "trace.csv", "trace_column": "time", "routing": "sticky:session"}, "no column 'session'"),
        ({"trace": "trace.log", "routing": "sticky:user"}, "it has no user, which sticky routing needs"),
    ],
)
def test_what_workers_refuse(
    options: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace.csv").write_text(TRACE)
    (tmp_path / "trace.log").write_text("2026-11-29 10:00:00 a\n2026-11-29 10:00:01 b\n")
    with pytest.raises(UsageError, match=sentence):
        RunConfig.of(engine="simulated:null", worker="0/2", **options)
