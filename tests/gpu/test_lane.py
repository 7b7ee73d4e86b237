"""The CUDA lane on a real GPU, with a device-to-device copy in TensorRT's place: streams, graphs, events, memory."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import combinations, pairwise
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio.lowlevel
import numpy as np
import pytest

from loadtrt.cuda.completion_queue import CompletionQueue
from loadtrt.cuda.driver import error_of_fault, functions
from loadtrt.cuda.lane import Lane, LanePart
from loadtrt.cuda.memory import PinnedBuffer
from loadtrt.cuda.program import Mark
from loadtrt.cuda.runtime import call, cudart, memory_info
from loadtrt.cuda.stream import Event, GpuClock, Stream, elapsed_ns
from loadtrt.errors import EngineError
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Driver, Load, Stop, drive_with
from loadtrt.load.tensors import TensorSpec
from loadtrt.loop.device import spin
from loadtrt.loop.requests import view_of
from loadtrt.records.records import OK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtrt.loop.device import Completion, Device

NBYTES = 4 << 20
SHAPE = (NBYTES // 4,)
TENSORS = (TensorSpec("x", True, "fp32", SHAPE, NBYTES), TensorSpec("y", False, "fp32", SHAPE, NBYTES))


@pytest.fixture(autouse=True)
def device() -> None:
    """GPU 0 is the calling thread's device."""
    call("cudaSetDevice", 0)


class _Copier:
    """In place of an execution context: `enqueue` copies x to y on the device. refuse: it fails while capturing."""

    def __init__(self, refuse: bool = False, nbytes: int = NBYTES) -> None:
        self.nbytes = nbytes
        self.addresses: dict[str, int] = {}
        self.refuse = refuse

    def bind(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def enqueue(self, stream: int) -> bool:
        runtime = cudart()
        if self.refuse and call("cudaStreamIsCapturing", stream) != 0:
            return False
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        call("cudaMemcpyAsync", self.addresses["y"], self.addresses["x"], self.nbytes, kind, stream)
        return True


class Served(NamedTuple):
    """One lane as a completion queue, with its clock."""

    lane: Lane
    queue: CompletionQueue
    clock: GpuClock

    def finish(self) -> Completion:
        """The oldest request in flight, once it has finished."""
        deadline = perf_counter_ns() + 300 * 10**9
        while not (found := self.queue.poll(several=False)):
            assert perf_counter_ns() < deadline, "the request never finished"
        (finished,) = found
        return finished

    def use(self, way: str) -> bool:
        """Whether the lane has this way of submitting, which is used from now on."""
        ways = [shape.way for shape in self.queue.shapes]
        if way in ways:
            self.queue.use(ways.index(way))
        return way in ways


@contextmanager
def _served(parts: Callable[[list[PinnedBuffer]], list[LanePart]], sets: int, **options: Any) -> Iterator[Served]:
    """A lane of these parts, with input sets of `number + i % 7`."""
    stream, clock = Stream(), GpuClock()
    inputs = [PinnedBuffer(NBYTES) for _ in range(sets)]
    for number, buffer in enumerate(inputs):
        buffer.array(np.dtype("float32"), SHAPE)[:] = number + np.arange(SHAPE[0]) % 7
    lane = Lane(parts(inputs), stream=stream, **{"graph": True, "copies": True, **options})
    try:
        yield Served(lane, CompletionQueue([lane], clock), clock)
    finally:
        lane.close()
        clock.close()
        stream.close()
        for buffer in inputs:
            buffer.close()


def _lane(buffers: int = 2, *, sets: int = 3, refuse: bool = False, **options: Any) -> AbstractContextManager[Served]:
    """A lane of one part."""
    copier = _Copier(refuse)

    def parts(inputs: list[PinnedBuffer]) -> list[LanePart]:
        addresses = [{"x": buffer.address} for buffer in inputs]
        return [LanePart(TENSORS, copier.bind, copier.enqueue, lambda: "refused", addresses)]

    return _served(parts, sets, buffers=buffers, **options)


@pytest.mark.parametrize("way", ["graph", "apart", "calls"])
def test_parts_share_buffer_sets_and_no_outputs(way: str) -> None:
    """Requests of two sizes in turn, each by its own context and graph: y = x of the same request, of its own size."""
    half = tuple(TensorSpec(name, name == "x", "fp32", (SHAPE[0] // 2,), NBYTES // 2) for name in ("x", "y"))

    def parts(inputs: list[PinnedBuffer]) -> list[LanePart]:
        made = []
        for tensors, buffer in zip((TENSORS, half), inputs, strict=True):
            copier = _Copier(nbytes=tensors[0].nbytes)
            made.append(LanePart(tensors, copier.bind, copier.enqueue, lambda: "refused", [{"x": buffer.address}]))
        return made

    with _served(parts, 2, buffers=2, graph=way != "calls") as served:
        assert (served.lane.graph_refusal == "") == (way != "calls")
        assert served.use("apart" if way == "calls" else way)
        sent: list[int] = []
        for number in (0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0):
            served.queue.submit(0, number)
            sent.append(number)
            if len(sent) == 2:
                y, first = served.lane.outputs(served.finish().buffer)["y"], sent.pop(0)
                assert np.array_equal(y, first + np.arange(SHAPE[0] // (1 + first), dtype=np.float32) % 7)
        served.finish()


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("buffers", [1, 2, 3])
@pytest.mark.parametrize("lanes", [1, 8])
def test_every_request_returns_its_own_input(graph: bool, buffers: int, lanes: int) -> None:
    """With `buffers` in flight all the time and three input sets in turn, y = x of the same request, by every way: with
    streams for phases, with a stream for each slot, and with one for everything."""
    with _lane(buffers, graph=graph, lanes=lanes) as served:
        assert (served.lane.graph_refusal == "") == graph
        assert len(served.queue.shapes) == (2 if graph else 1)
        for way in [shape.way for shape in served.queue.shapes] * 2:
            assert served.use(way)
            sent: list[int] = []
            for number in range(60):
                served.queue.submit(0, number % 3)
                sent.append(number % 3)
                if len(sent) == buffers:
                    y = served.lane.outputs(served.finish().buffer)["y"]
                    assert np.array_equal(y, sent.pop(0) + np.arange(SHAPE[0], dtype=np.float32) % 7)
            for _ in sent:
                served.finish()


@pytest.mark.parametrize("way", ["graph", "apart"])
@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize(("buffers", "per_launch"), [(2, 1), (3, 1), (2, 3)])
def test_compute_of_a_lane_never_overlaps(buffers: int, per_launch: int, lanes: int, way: str) -> None:
    """Requests of a lane share its context's scratch memory: each one's compute starts after the one before ended."""
    with _lane(buffers, per_launch=per_launch, lanes=lanes) as served:
        assert served.use(way)
        for _ in range(30):
            for number in range(buffers):
                served.queue.submit(0, number)
            for _ in range(buffers * per_launch):
                served.finish()
            for before, after in pairwise(served.lane.sets):
                assert elapsed_ns(before.events[Mark.END], after.events[Mark.START]) >= 0


@pytest.mark.parametrize("way", ["graph", "apart", "calls"])
def test_a_launch_carries_several_requests(way: str) -> None:
    """Each with the input set that follows in turn, its own output, events and instant, in order."""
    with _lane(2, graph=way != "calls", per_launch=4) as served:
        assert served.use("apart" if way == "calls" else way)
        served.queue.submit(0, 0)
        for number in range(1, 20):
            served.queue.submit(0, number % 3)
            last = 0
            for place in range(4):
                finished = served.finish()
                assert finished.completed_ns >= last
                last = finished.completed_ns
                assert served.lane.outputs(finished.buffer)["y"][0] == (number - 1 + place) % 3
        for _ in range(4):
            served.finish()


@pytest.mark.parametrize("way", ["graph", "apart", "calls"])
def test_instants_and_phases_fit_into_the_time_that_passed(way: str) -> None:
    """submitted ≤ completed ≤ seen (to the clock's error), and h2d + compute + d2h ≤ completed − submitted."""
    with _lane(1, graph=way != "calls") as served:
        assert served.use("apart" if way == "calls" else way)
        clock = served.clock
        for number in range(50):
            if number % 10 == 9:
                served.queue.take_anchor()
            before = perf_counter_ns()
            served.queue.submit(0, 0)
            finished = served.finish()
            after = perf_counter_ns()
            slack = clock.error_ns + clock.drift_ns
            assert before - slack <= finished.completed_ns <= after + slack
            phases = finished.h2d_ns + finished.compute_ns + finished.d2h_ns
            assert 0 < phases <= finished.completed_ns - before + slack
            assert min(finished.h2d_ns, finished.compute_ns, finished.d2h_ns) > 0


@pytest.mark.parametrize("way", ["graph", "apart"])
def test_the_driver_and_the_runtime_measure_the_same_spans(way: str) -> None:
    """Between the events of a request, by the driver's function of this name or its second version: to 1 µs."""
    spent = ctypes.c_float()
    with _lane(2) as served:
        assert served.use(way)
        for _ in range(20):
            served.queue.submit(0, 0)
            events = served.lane.sets[served.finish().buffer].events
            for start, end in combinations(events, 2):
                status = functions().elapsed(ctypes.addressof(spent), int(start.handle), int(end.handle), 0)
                assert status == 0
                assert abs(spent.value * 1e6 - elapsed_ns(start, end)) <= 1_000


class _Spins:
    """What a driver asks of an engine that spins, of one real lane."""

    contexts = per_launch = 1
    buffers = 2
    now_ns = staticmethod(perf_counter_ns)

    def __init__(self, served: Served) -> None:
        self._served = served

    def spins(self) -> Device | None:
        return self._served.queue.arrays

    async def turn(self) -> int:
        await anyio.lowlevel.checkpoint()
        return perf_counter_ns() + 20_000_000

    def error_of(self, fault: int) -> EngineError:
        return error_of_fault(fault)


@pytest.mark.parametrize("way", ["graph", "apart"])
@pytest.mark.parametrize("compiled", [True, False])
def test_compiled_and_interpreted_rows_obey_the_same_laws(
    compiled: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """due ≤ sent ≤ enqueued, phases above 0 that fit between sent and completed, completions in order and within the
    time of the loop, input sets in turn, and as many rows as requests."""
    if compiled:
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr("loadtrt.lanes.scheduler.spinner", lambda s, d: partial(spin, view_of(s), view_of(d)))
    with _lane(2) as served:
        assert served.use(way)
        assert served.queue.arrays is not None
        recorder = Recorder(1, 0)
        engine: Any = _Spins(served)
        load = Load(None, least_requests=500, order=range(3))
        driver = Driver(engine, recorder, load, Stop())
        served.queue.take_anchor()
        recorder.begin(perf_counter_ns())
        driven = anyio.run(drive_with, driver, engine)
        slack = served.clock.error_ns + served.clock.drift_ns + 1_000
    rows = recorder.records
    due, sent, enqueued, completed, h2d, compute, d2h, late, lane, status, inputs = rows.rows.T
    assert len(due) == driven.submitted == 500
    assert driven.unserved == 0
    assert ((status == OK) & (lane == 0) & (late >= 0)).all()
    assert inputs.tolist() == [number % 3 for number in range(500)]
    assert ((driven.start_ns <= due) & (due <= sent) & (sent < enqueued)).all()
    assert (np.minimum(np.minimum(h2d, compute), d2h) > 0).all()
    assert (h2d + compute + d2h <= completed - sent + slack).all()
    assert (np.diff(completed, append=driven.end_ns) > 0).all()
    assert (due[2:] == completed[:-2]).all()  # a closed loop of two buffer sets


def test_without_copies_the_device_keeps_input_set_0() -> None:
    """There are no copy phases, and the output is that of the input uploaded at first."""
    with _lane(2, copies=False) as served:
        for _ in range(10):
            served.queue.submit(0, 0)
            finished = served.finish()
            assert (finished.h2d_ns, finished.d2h_ns) == (0, 0)
            assert np.array_equal(served.lane.outputs(finished.buffer)["y"], np.arange(SHAPE[0], dtype=np.float32) % 7)


def test_a_capture_that_is_refused_leaves_a_lane_that_works() -> None:
    """The reason is kept, and requests are enqueued call by call."""
    with _lane(2, refuse=True) as served:
        assert "refused" in served.lane.graph_refusal
        assert served.queue.arrays is None  # Python calls TensorRT
        for number in range(20):
            served.queue.submit(0, number % 3)
            assert served.lane.outputs(served.finish().buffer)["y"][0] == number % 3


def test_an_event_before_the_anchor_has_a_negative_distance() -> None:
    """elapsed(anchor, earlier event) < 0: an instant just before a new anchor is still put where it was."""
    stream, first, second = Stream(), Event(), Event()
    call("cudaEventRecord", first.handle, stream.handle)
    stream.synchronize()
    call("cudaEventRecord", second.handle, stream.handle)
    stream.synchronize()
    assert elapsed_ns(second, first) == -elapsed_ns(first, second) < 0
    for handle in (first, second):
        handle.close()
    stream.close()


def test_closing_gives_all_memory_back() -> None:
    """Twenty lanes made and closed, also with requests in flight, leave as much free memory as one did."""

    def once() -> int:
        with _lane(3) as served:
            served.queue.submit(0, 0)
            served.queue.submit(0, 1)
        return memory_info()[0]

    first = once()
    assert [once() for _ in range(20)] == [first] * 20


def test_an_enqueue_that_fails_is_an_engine_error() -> None:
    """TensorRT's False becomes an EngineError with the reason."""
    stream = Stream()
    buffer = PinnedBuffer(NBYTES)
    with pytest.raises(EngineError, match="TensorRT refused an enqueue: no such shape"):
        Lane(
            [LanePart(TENSORS, lambda *_: None, lambda _: False, lambda: "no such shape", [{"x": buffer.address}])],
            2,
            stream=stream,
            graph=True,
            copies=True,
        )
    buffer.close()
    stream.close()
