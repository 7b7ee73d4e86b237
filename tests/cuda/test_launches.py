"""Several requests of one launch: how the scheduler counts them, and the CUDA calls of a lane."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fake_cuda import FakeCuda
from loadtrt.cuda.completion_queue import CompletionQueue
from loadtrt.cuda.lane import Lane, LanePart
from loadtrt.cuda.program import MOST_GRAPHS, Mark
from loadtrt.cuda.stream import Graph, Stream
from loadtrt.engines.placement import Placement
from loadtrt.engines.plan_engine import TensorRTEngine
from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulation import parse_simulation
from loadtrt.errors import CudaError, EngineError
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Load, Stop, drive
from loadtrt.load.tensors import TensorSpec
from loadtrt.units import MILLISECOND_NS, SECOND_NS


class Launching(SimulatedEngine):
    """A simulated engine with `per_launch` requests of each submit, with the input sets that follow in turn."""

    def __init__(self, per_launch: int, contexts: int, buffers: int, input_sets: int) -> None:
        simulation = parse_simulation("service=1ms,clock=virtual", 1)
        super().__init__(simulation, contexts=contexts, buffers=buffers * per_launch)
        self.buffers, self.per_launch, self._input_sets = buffers, per_launch, input_sets
        self.in_flight = [0] * contexts
        self.allocate([{"x": np.full((1, 16), number, np.float32)} for number in range(input_sets)])
        self.served: list[int] = []

    def allocate(self, inputs: Any) -> None:
        given, self.buffers = self.buffers, self.buffers * self.per_launch
        super().allocate(inputs)
        self.buffers = given

    def submit(self, lane: int, inputs: int) -> None:
        assert self.in_flight[lane] <= (self.buffers - 1) * self.per_launch
        buffers, self.buffers = self.buffers, self.buffers * self.per_launch
        for number in range(self.per_launch):
            super().submit(lane, (inputs + number) % self._input_sets)
            self.served.append((inputs + number) % self._input_sets)
        self.buffers = buffers
        self.in_flight[lane] += self.per_launch

    async def wait(self, until_ns: int, *, soon: bool = True) -> Any:
        found = await super().wait(until_ns, soon=soon)
        for completion in found:
            self.in_flight[completion.lane] -= 1
        return found


@pytest.mark.parametrize(("per_launch", "contexts", "buffers"), [(4, 1, 2), (3, 2, 1), (5, 3, 2), (1, 2, 2)])
@pytest.mark.anyio
async def test_a_launch_is_sent_when_the_one_before_has_finished(per_launch: int, contexts: int, buffers: int) -> None:
    """Requests of a launch are due together, when the last of the launch before them in their slot completed; each has
    its own instants, phases and input set; as many are sent as asked for, up to whole launches."""
    engine = Launching(per_launch, contexts, buffers, input_sets=4)
    recorder = Recorder(contexts, engine.now_ns())
    driven = await drive(engine, recorder, Load(None, least_requests=101, order=range(4)), Stop())
    rows = recorder.records
    assert driven.submitted == len(rows) == -(-101 // per_launch) * per_launch
    assert driven.unserved == 0
    assert sorted(rows.inputs.tolist()) == sorted(engine.served)
    for lane in range(contexts):
        mine = rows.rows[rows.lane == lane]
        due, completed = mine[:, 0].reshape(-1, per_launch), mine[:, 3].reshape(-1, per_launch)
        assert (due == due[:, :1]).all()
        assert set(due[buffers:, 0].tolist()) <= set(rows.completed.tolist())
        assert (np.diff(completed.reshape(-1)) > 0).all()
    assert recorder.starved_ns == 0 or buffers == 1


@pytest.mark.anyio
async def test_requests_of_a_launch_in_flight_at_the_end_are_unserved() -> None:
    """Whole launches are submitted; their requests that have not finished are recorded as unserved."""
    engine = Launching(4, 1, 2, input_sets=4)
    recorder = Recorder(1, engine.now_ns())
    load = Load(None, least_ns=10 * MILLISECOND_NS, drain_ns=2 * MILLISECOND_NS, order=range(4))
    driven = await drive(engine, recorder, load, Stop())
    assert driven.submitted % 4 == 0
    assert 0 < driven.unserved <= 8
    assert driven.submitted == recorder.seen
    assert driven.end_ns - driven.start_ns < SECOND_NS


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    fake.install(monkeypatch, "cuda.lane", "cuda.stream", "cuda.memory")
    return fake


def _lane(
    cuda: FakeCuda, nbytes: int, *, refuse: bool = False, buffers: int = 2, addresses: Any = None, **options: Any
) -> Lane:
    tensors = [TensorSpec("x", True, "uint8", (nbytes,), nbytes), TensorSpec("y", False, "uint8", (8,), 8)]
    enqueued = cuda.step("enqueue")

    def enqueue(stream: int) -> bool:
        if refuse and cuda.capturing:
            return False
        enqueued(stream)
        return True

    part = LanePart(
        tensors,
        lambda *_: None,
        enqueue,
        lambda: "it does what graphs cannot",
        addresses or [{"x": 1}, {"x": 2}, {"x": 3}],
    )
    given = {"graph": True, "copies": True} | options
    lane = Lane([part], buffers, stream=Stream(), **given)
    cuda.calls.clear()
    return lane


CLOCK: Any = SimpleNamespace(anchor=1, anchor_ns=0, host_ns_per_ms=1e6, take_anchor=lambda: None)


def _queue(lane: Lane) -> CompletionQueue:
    return CompletionQueue([lane], CLOCK)


@pytest.mark.parametrize("per_launch", [1, 4])
def test_whole_requests_are_one_launch(cuda: FakeCuda, per_launch: int) -> None:
    """One CUDA call submits all requests, copies included; each then takes a query and four reads of events."""
    lane = _lane(cuda, 1024, per_launch=per_launch, submit="graph")
    assert lane.graph_refusal == ""
    queue = _queue(lane)
    queue.submit(0, 0)
    assert cuda.calls == ["cudaGraphLaunch"]
    cuda.calls.clear()
    assert [request.buffer for request in queue.poll()] == list(range(per_launch))
    assert cuda.calls == ["cudaEventQuery", *["cudaEventElapsedTime"] * 4] * per_launch
    assert queue.poll() == []


@pytest.mark.parametrize("per_launch", [1, 4])
@pytest.mark.parametrize(("way", "events"), [("graph", 1), ("apart", 3)])
def test_without_times_a_request_reads_one_event(cuda: FakeCuda, way: str, events: int, per_launch: int) -> None:
    """When it completed; it records that one, and those that streams wait for: one of each launch in a graph."""
    record = "cudaEventRecordWithFlags"
    lane = _lane(cuda, 1024, per_launch=per_launch, times=False, submit=way)
    queue = _queue(lane)
    queue.submit(0, 0)
    recorded = cuda.calls.count(record) + sum(name == record for name, _ in cuda.graphs[0])
    assert recorded == events * per_launch + (way == "graph")
    cuda.calls.clear()
    found = queue.poll()
    assert cuda.calls == ["cudaEventQuery", "cudaEventElapsedTime"] * per_launch
    assert {(one.h2d_ns, one.compute_ns, one.d2h_ns) for one in found} == {(0, 0, 0)}


@pytest.mark.parametrize("per_launch", [1, 2])
def test_each_input_set_has_a_graph_that_copies_it(cuda: FakeCuda, per_launch: int) -> None:
    """Two slots × three input sets: six graphs, each with its set and those that follow in turn; inputs of a launch
    first, then its computes, then its outputs, each request with its own events."""
    _lane(cuda, 1024, per_launch=per_launch, submit="graph")
    sources = [[step[1][1] for step in graph if step[0] == "cudaMemcpyAsync"][:per_launch] for graph in cuda.graphs]
    assert sources == [[1 + (first + k) % 3 for k in range(per_launch)] for first in range(3)] * 2
    record, copy = "cudaEventRecordWithFlags", "cudaMemcpyAsync"
    phases = [record, copy, record], [record, "enqueue", record], [copy, record]
    for graph in cuda.graphs:
        names = [name for name, _ in graph if name != "cudaStreamWaitEvent"]
        assert names == [name for phase in phases for name in phase * per_launch]
        events = [arguments[0] for name, arguments in graph if name == record]
        assert len(set(events)) == len(events)


@pytest.mark.parametrize("buffers", [2, 3])
@pytest.mark.parametrize("per_launch", [1, 2])
def test_compute_waits_for_the_compute_before(cuda: FakeCuda, buffers: int, per_launch: int) -> None:
    """A slot's graphs wait for the end of the last request's compute in the slot before, the first one's for the last
    slot's, right before their own compute starts."""
    lane = _lane(cuda, 1024, per_launch=per_launch, buffers=buffers, submit="graph")
    for number, graph in enumerate(cuda.graphs):
        slot = number // 3
        (at,) = [place for place, (name, _) in enumerate(graph) if name == "cudaStreamWaitEvent"]
        assert graph[at][1][1] == lane.sets[slot * per_launch - 1].handles[Mark.END]
        assert graph[at + 1][1][0] == lane.sets[slot * per_launch].handles[Mark.START]


def test_buffer_sets_are_used_and_polled_in_turn(cuda: FakeCuda) -> None:
    """0, 1, 2, 3, 0, …: with two requests of a launch a submit takes two sets, and each is polled once."""
    queue = _queue(_lane(cuda, 1024, per_launch=2))
    found: list[int] = []
    for number in range(6):
        queue.submit(0, number % 3)
        found += [finished.buffer for finished in queue.poll()]
    assert found == [0, 1, 2, 3] * 3
    assert queue.poll() == []


def test_copies_apart_are_calls_of_their_own(cuda: FakeCuda) -> None:
    """Record, copy, record, launch, wait, copy, record; the graph waits for its copy, and its stream for the compute
    before."""
    lane = _lane(cuda, 1024, submit="apart")
    _queue(lane).submit(0, 1)
    record, copy, wait = "cudaEventRecordWithFlags", "cudaMemcpyAsync", "cudaStreamWaitEvent"
    assert cuda.calls == [record, copy, record, "cudaGraphLaunch", wait, copy, record]
    assert [[name for name, _ in graph] for graph in cuda.graphs] == [[wait, record, "enqueue", record]] * 2


def test_without_copies_one_stream_is_enough(cuda: FakeCuda) -> None:
    """A request is one launch; the order of the stream keeps requests of a context apart."""
    queue = _queue(_lane(cuda, 1 << 20, copies=False))
    queue.submit(0, 0)
    queue.submit(0, 1)
    assert cuda.calls == ["cudaGraphLaunch"] * 2
    assert [[name for name, _ in graph] for graph in cuda.graphs] == [
        ["cudaEventRecordWithFlags", "enqueue", "cudaEventRecordWithFlags"]
    ] * 2


def test_a_refused_capture_runs_plainly(cuda: FakeCuda) -> None:
    """The same steps are called one by one, for all requests of the launch."""
    lane = _lane(cuda, 1024, refuse=True, per_launch=2)
    assert "capture refused" in lane.graph_refusal
    _queue(lane).submit(0, 0)
    assert cuda.calls.count("enqueue") == 2
    assert cuda.calls.count("cudaEventRecordWithFlags") == 10
    assert "cudaGraphLaunch" not in cuda.calls


def test_a_capture_that_is_refused_half_way_leaves_no_graph(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """All slots run plainly then, and graphs that were captured are destroyed."""
    cuda.most_graphs = 4
    destroyed: list[int] = []
    monkeypatch.setattr(Graph, "close", lambda graph: destroyed.append(graph.handle))
    lane = _lane(cuda, 1024, submit="graph")
    assert "capture refused" in lane.graph_refusal
    assert len(set(destroyed)) == 4
    queue = _queue(lane)
    for _ in range(2):
        queue.submit(0, 0)
    assert "cudaGraphLaunch" not in cuda.calls


@pytest.mark.parametrize("captured", [2, 7])
def test_another_way_that_cannot_be_captured_costs_the_usual_one_nothing(cuda: FakeCuda, captured: int) -> None:
    """The graphs of the usual way stay, and it is the only one: none is left to be tried."""
    cuda.most_graphs = captured
    lane = _lane(cuda, 1024)
    assert (lane.graph_refusal, [shape.way for shape in lane.shapes], len(lane.programs)) == ("", ["apart"], 1)
    queue = _queue(lane)
    for inputs in range(2):
        queue.submit(0, inputs)
    assert cuda.calls.count("cudaGraphLaunch") == 2


@pytest.mark.parametrize(("per_launch", "way", "notes"), [(1, "graph", 0), (4, "graph", 1), (4, "apart", 0)])
def test_a_note_says_what_d2h_includes(cuda: FakeCuda, per_launch: int, way: str, notes: int) -> None:
    """Outputs wait for the launch's other computes; apart they have a stream of their own, and do not."""
    engine = TensorRTEngine.__new__(TensorRTEngine)  # without a plan
    engine.per_launch, engine._lanes = per_launch, [_lane(cuda, 1024, per_launch=per_launch, submit=way)]
    engine.asked = SimpleNamespace(submit="auto")  # type: ignore[assignment]  # of a Model
    engine._queue, engine.way = _queue(engine._lanes[0]), None
    engine._placement = Placement()
    assert len([note for note in engine._notes() if "d2h includes waiting" in note]) == notes


@pytest.mark.parametrize(("input_sets", "submit", "notes"), [(33, "graph", 1), (32, "graph", 0), (33, "auto", 0)])
def test_a_note_says_why_a_forced_way_was_not_taken(cuda: FakeCuda, input_sets: int, submit: str, notes: int) -> None:
    """What the options alone do not tell: there are too many input sets for a graph of each."""
    addresses = [{"x": number} for number in range(input_sets)]
    engine = TensorRTEngine.__new__(TensorRTEngine)  # without a plan
    engine.asked = SimpleNamespace(submit=submit)  # type: ignore[assignment]  # of a Model
    engine._lanes = [_lane(cuda, 1024, submit=submit, addresses=addresses)]
    engine._queue, engine.way, engine.per_launch = _queue(engine._lanes[0]), None, 1
    engine._placement = Placement()
    engine._inputs, engine.buffers = addresses, 2  # type: ignore[assignment]  # buffers of pinned memory
    noted = list(engine._notes())
    assert len(noted) == notes
    assert all("--submit graph is not possible" in note and "33 input sets and 2 buffers" in note for note in noted)


def test_many_input_sets_are_copied_by_calls(cuda: FakeCuda) -> None:
    """A graph for each slot and input set only where these are few."""
    addresses = [{"x": number} for number in range(MOST_GRAPHS // 2 + 1)]
    lane = _lane(cuda, 1024, addresses=addresses)
    assert len(cuda.graphs) == 2 * len(lane.shapes)


@pytest.mark.parametrize("buffers", [1, 2])
@pytest.mark.parametrize(("elapsed_ms", "ways"), [(4.9, ["apart", "graph"]), (5.1, ["apart"])])
def test_a_slow_lane_captures_its_usual_way_alone(
    cuda: FakeCuda, elapsed_ms: float, ways: list[str], buffers: int
) -> None:
    """No way could serve 2 % more; the graphs of another would take time and memory."""
    cuda.elapsed_ms = elapsed_ms
    lane = _lane(cuda, 1024, buffers=buffers)
    assert [shape.way for shape in lane.shapes] == ways
    assert len(cuda.graphs) == buffers * (1 + 3 * (len(ways) > 1))


@pytest.mark.parametrize(("submit", "nbytes", "calls"), [("apart", 1024, 7), ("graph", 1 << 20, 1)])
def test_a_forced_way_is_the_only_one(cuda: FakeCuda, submit: str, nbytes: int, calls: int) -> None:
    """Whatever the size of inputs; no graph of another way is captured."""
    lane = _lane(cuda, nbytes, submit=submit)
    assert [shape.way for shape in lane.shapes] == [submit]
    assert len(cuda.graphs) == (2 if submit == "apart" else 6)
    _queue(lane).submit(0, 0)
    assert len(cuda.calls) == calls


def test_graphs_of_compute_are_captured_first(cuda: FakeCuda) -> None:
    """One of each slot, and then those that hold copies, of each slot and input set."""
    _lane(cuda, 1024)
    assert [any(name == "cudaMemcpyAsync" for name, _ in graph) for graph in cuda.graphs] == [False] * 2 + [True] * 6


def test_lanes_of_two_ways_submit_in_either(cuda: FakeCuda) -> None:
    """`use` changes how the next request is enqueued; buffer sets go on in turn."""
    queue = _queue(_lane(cuda, 1024))
    found = []
    for number, (way, calls) in enumerate([(0, 7), (1, 1), (0, 7), (1, 1), (1, 1)]):
        queue.use(way)
        cuda.calls.clear()
        queue.submit(0, number % 3)
        assert len(cuda.calls) == calls
        found += [finished.buffer for finished in queue.poll()]
    assert found == [0, 1, 0, 1, 0]


def test_a_full_lane_takes_no_more(cuda: FakeCuda) -> None:
    """Two submits fill both slots; a third is refused before anything is called."""
    queue = _queue(_lane(cuda, 1024, per_launch=3))
    queue.submit(0, 0)
    queue.submit(0, 1)
    cuda.calls.clear()
    with pytest.raises(EngineError, match="6 requests in flight in 6 buffer sets"):
        queue.submit(0, 0)
    assert cuda.calls == []


def test_what_is_in_flight_is_no_new_load(cuda: FakeCuda) -> None:
    """The loop that submits without asking begins on lanes that have nothing in flight."""
    engine = TensorRTEngine.__new__(TensorRTEngine)  # without a plan
    engine._looks, engine._queue = None, _queue(_lane(cuda, 1024, per_launch=3))
    assert engine.spins() is engine._queue.arrays
    engine._queue.submit(0, 0)
    with pytest.raises(EngineError, match="of an earlier load are in flight: 3"):
        engine.spins()
    assert len(engine._queue.poll()) == 3
    assert engine.spins() is engine._queue.arrays


def test_poll_raises_the_error_of_a_failed_device(cuda: FakeCuda) -> None:
    """A bad status of the query, or of an event's reading, is a CudaError of its name."""
    queue = _queue(_lane(cuda, 1024))
    queue.submit(0, 0)
    for failing, name in (("elapsed", "cudaEventElapsedTime"), ("query", "cudaEventQuery")):
        queue.view = queue.view._replace(**{failing: lambda *_: 700})
        with pytest.raises(CudaError, match=f"{name} failed with cudaErrorIllegalAddress"):
            queue.poll()
