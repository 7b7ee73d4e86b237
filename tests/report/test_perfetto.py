"""The trace of a run's sample: what Perfetto's importer asks of one, and each request where it was.

That Perfetto itself takes it was seen once, in a browser: docs/compare.md.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.cli.main import cli
from loadtrt.errors import UsageError
from loadtrt.records.records import COLUMNS, DROPPED, FAILED, OK, UNSERVED
from loadtrt.report.perfetto import trace_json
from loadtrt.results.breakdown import Sample
from loadtrt.results.gpu_telemetry import GpuFacts, GpuInterval, GpuTelemetry, SamplingCost
from loadtrt.results.run_result import RunResult
from loadtrt.units import SECOND_NS
from runs_by_hand import changed

if TYPE_CHECKING:
    from collections.abc import Sequence

    Event = dict[str, Any]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Two lanes whose copies overlap compute, and a stall that makes requests wait; in virtual time."""
    path = tmp_path_factory.mktemp("runs") / "run.json"
    engine = "simulated:service=3ms,cv=0.3,contention=0.3,h2d=300us,d2h=100us,stall=50ms@14s,clock=virtual"
    arguments = ["run", "--engine", engine, "--contexts", 2, "--rate", "450/s", "--duration", "20s"]
    arguments += ["--warmup", 0, "--quiet", "--json", path]
    CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False)
    return RunResult.model_validate_json(path.read_text())


def _events(result: RunResult) -> list[Event]:
    events: list[Event] = json.loads(trace_json(result))["traceEvents"]
    return events


def _with(result: RunResult, rows: Sequence[Sequence[int]]) -> RunResult:
    """The same run with these records as its sample."""
    columns = {name: tuple(row[place] for row in rows) for place, name in enumerate(COLUMNS)}
    return changed(result, sample=Sample(columns=columns))


def _ns(us: float) -> int:
    return round(us * 1000)


def _require_nested(events: list[Event]) -> None:
    """On each track, slices lie in one another or apart; none reaches over another's edge."""
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append((_ns(event["ts"]), -_ns(event["dur"])))
    for slices in tracks.values():
        ends: list[int] = []
        for start, minus in sorted(slices):
            while ends and ends[-1] <= start:
                ends.pop()
            assert not ends or start - minus <= ends[-1]
            ends.append(start - minus)


def test_every_request_is_where_it_was(result: RunResult) -> None:
    """From submitted to completed on its lane, to the ns; the device's phases in it, as long as they took; the longest
    wait, of the stall, is in the queue."""
    events = _events(result)
    assert result.model.sample is not None
    columns = {name: np.array(values) for name, values in result.model.sample.columns.items()}
    order = np.lexsort((columns["submitted"], columns["due"]))
    slices = {event["args"]["request"]: event for event in events if event["name"].startswith("request ")}
    assert len(slices) == len(order) == 1000
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    for number, place in enumerate(order.tolist(), 1):
        event, args = slices[number], slices[number]["args"]
        assert names[event["pid"]] == f"lane {columns['lane'][place]}"
        assert _ns(event["ts"]) == columns["submitted"][place]
        assert _ns(event["ts"]) + _ns(event["dur"]) == columns["completed"][place]
        assert args["latency_ns"] == columns["completed"][place] - columns["due"][place]
        assert args["latency_ns"] == args["queue_ns"] + args["service_ns"]
        assert (args["status"], event["name"]) == ("served", f"request {number}")
    for phase in ("h2d", "compute", "d2h"):
        found = {event["args"]["request"]: _ns(event["dur"]) for event in events if event["name"] == phase}
        assert found == {number: columns[phase][place] for number, place in enumerate(order.tolist(), 1)}
    assert max(_ns(event["dur"]) for event in slices.values()) > 50_000_000


def test_slices_are_nested_or_apart(result: RunResult) -> None:
    """Two requests in flight in a lane have a row each, and no more rows than buffer sets."""
    events = _events(result)
    _require_nested(events)
    rows = {(event["pid"], event["args"]["name"]) for event in events if event["name"] == "thread_name"}
    assert {name for _, name in rows} == {"in flight 1", "in flight 2"}
    assert len(rows) == 4
    threads = [event["tid"] for event in events if event["name"] == "thread_name"]
    assert len(set(threads)) == 4  # importers take a thread's number for one in all processes


def test_the_queue(result: RunResult) -> None:
    """A pair of asynchronous events for each request that waited, as long as it did, and none for others."""
    begins, ends = ({e["id2"]["local"]: e for e in _events(result) if e["ph"] == sign} for sign in "be")
    assert begins.keys() == ends.keys()
    assert result.model.sample is not None
    waited = [
        s - d for s, d in zip(result.model.sample.columns["submitted"], result.model.sample.columns["due"], strict=True)
    ]
    found = [_ns(ends[key]["ts"]) - _ns(begin["ts"]) for key, begin in begins.items()]
    assert sorted(found) == sorted(wait for wait in waited if wait)
    assert all(begin["args"]["queue_ns"] == wait for begin, wait in zip(begins.values(), found, strict=True))


def test_counters_are_of_the_seconds_around(result: RunResult) -> None:
    """Those of the run and of the GPU, five seconds to either side of the sample; unknown ones are left out."""
    looks = tuple(
        GpuInterval(start_ns=s.start_ns, duration_ns=SECOND_NS, readings=5, power_mean_watts=100.0 + number)
        for number, s in enumerate(result.model.intervals)
    )
    cost = SamplingCost(readings=100, lost=0, seconds=0.1, fraction=0.005)
    gpu = GpuTelemetry(
        gpu=GpuFacts(name="GPU"),
        every_ns=SECOND_NS,
        intervals=looks,
        power_mean_watts=None,
        energy_joules=None,
        joules_per_inference=None,
        throttled_fraction=None,
        missing=(),
        cost=cost,
    )
    counters: dict[str, dict[float, float]] = defaultdict(dict)
    for event in _events(result.model_copy(update={"telemetry": gpu})):
        if event["ph"] == "C":
            (counters[event["name"]][event["ts"] / 1e6],) = event["args"].values()
    assert set(counters) == {"requests/s", "latency p50, ms", "latency p99, ms", "power, W"}
    assert result.model.sample is not None
    seconds = [int(second) for second in counters["requests/s"]]
    first, last = min(result.model.sample.columns["due"]) / 1e9, max(result.model.sample.columns["completed"]) / 1e9
    assert seconds == list(range(int(first - 5), min(int(last + 5), len(result.model.intervals) - 1) + 1))
    assert seconds[0] > 0
    for second in seconds:
        interval = result.model.intervals[second]
        assert counters["requests/s"][second] == interval.requests
        assert counters["latency p99, ms"][second] == pytest.approx((interval.latency_p99_ns or 0) / 1e6)
        assert counters["power, W"][second] == 100 + second


def test_counters_of_longer_intervals_are_rates(result: RunResult) -> None:
    """Requests a second, and not requests of 32 s; the process that has them says how often there is one."""
    events = _events(changed(result, interval_ns=32 * SECOND_NS))
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert "every 32 s" in names
    rates = {event["ts"] / 1e6: event["args"][""] for event in events if event["name"] == "requests/s"}
    assert rates
    for second, rate in rates.items():
        assert rate == pytest.approx(result.model.intervals[int(second)].requests / 32)


def test_requests_that_were_not_served(result: RunResult) -> None:
    """A failed one is named so and has no phases; one that was never sent or was dropped is in the queue alone."""
    rows = [
        (0, 10, 20, 500, 100, 200, 50, 0, 0, OK, 0),
        (0, 10, 20, 400, 100, 100, 50, 0, 1, FAILED, 0),
        (5, 900, 900, 900, 0, 0, 0, 0, 0, UNSERVED, 0),
        (7, 7, 7, 7, 0, 0, 0, 0, 0, DROPPED, 0),
    ]
    events = _events(_with(result, rows))
    assert [event["name"] for event in events if event["ph"] == "X"] == [
        *("request 1", "h2d", "compute", "d2h"),
        "request 2, failed",
    ]
    assert [event["args"]["status"] for event in events if event["ph"] == "b"] == ["served", "failed", "unserved"]


def test_a_gpu_clock_that_is_a_little_off(result: RunResult) -> None:
    """Phases that would begin before their request was submitted begin with it."""
    rows = [(0, 1000, 1010, 1300, 100, 200, 50, 0, 0, OK, 0)]
    events = _events(_with(result, rows))
    _require_nested(events)
    phases = {e["name"]: (_ns(e["ts"]), _ns(e["ts"]) + _ns(e["dur"])) for e in events if e["ph"] == "X"}
    assert phases == {"request 1": (1000, 1300), "h2d": (1000, 1050), "compute": (1050, 1250), "d2h": (1250, 1300)}


@given(
    st.lists(
        st.tuples(*(st.integers(0, 10_000) for _ in range(8)), st.integers(0, 2), st.integers(OK, DROPPED)),
        min_size=1,
        max_size=40,
    )
)
def test_no_record_breaks_the_trace(result: RunResult, drawn: list[tuple[int, ...]]) -> None:
    """Whatever the instants and phases, also those that clocks make up, slices stay nested or apart."""
    rows = []
    for due, waited, enqueued, served, h2d, compute, d2h, late, lane, status in drawn:
        submitted = due + waited
        rows.append(
            (due, submitted, submitted + enqueued, submitted + served, h2d, compute, d2h, late, lane, status, 0)
        )
    _require_nested(_events(_with(result, rows)))


def test_a_run_without_a_sample(result: RunResult) -> None:
    """As older files are: one sentence."""
    without = changed(result, sample=None)
    with pytest.raises(UsageError, match="the run has no sample of single requests"):
        trace_json(without)
    columns = {name: (0,) for name in COLUMNS if name != "lane"}
    with pytest.raises(UsageError, match="the run's sample has no lane"):
        trace_json(changed(result, sample=Sample(columns=columns)))
