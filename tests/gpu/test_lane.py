"""The CUDA lane on a real GPU, with a device-to-device copy in TensorRT's place: streams, graphs, events, memory."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtrt.cuda.lane import Finished, Lane, LanePart
from loadtrt.cuda.memory import PinnedBuffer
from loadtrt.cuda.runtime import call, cudart, memory_info
from loadtrt.cuda.stream import Event, GpuClock, Stream, elapsed_ns
from loadtrt.errors import EngineError
from loadtrt.load.tensors import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@contextmanager
def _lane(
    buffers: int = 2,
    *,
    graph: bool = True,
    copies: bool = True,
    sets: int = 3,
    refuse: bool = False,
    per_launch: int = 1,
    lanes: int = 1,
) -> Iterator[tuple[Lane, GpuClock]]:
    stream, clock, copier = Stream(), GpuClock(), _Copier(refuse)
    inputs = [PinnedBuffer(NBYTES) for _ in range(sets)]
    for number, buffer in enumerate(inputs):
        buffer.array(np.dtype("float32"), SHAPE)[:] = number + np.arange(SHAPE[0]) % 7
    lane = Lane(
        [
            LanePart(
                TENSORS,
                copier.bind,
                copier.enqueue,
                lambda: "refused",
                [{"x": buffer.address} for buffer in inputs],
            )
        ],
        buffers,
        stream=stream,
        graph=graph,
        copies=copies,
        per_launch=per_launch,
        lanes=lanes,
    )
    clock.take_anchor()
    try:
        yield lane, clock
    finally:
        lane.close()
        clock.close()
        stream.close()
        for buffer in inputs:
            buffer.close()


def _finish(lane: Lane, clock: GpuClock) -> Finished:
    deadline = perf_counter_ns() + 300 * 10**9
    while (finished := lane.poll(clock)) is None:
        assert perf_counter_ns() < deadline, "the request never finished"
    return finished


@pytest.mark.parametrize("graph", [True, False])
def test_parts_share_buffer_sets_and_no_outputs(graph: bool) -> None:
    """Requests of two sizes in turn, each by its own context and graph: y = x of the same request, of its own size."""
    half = (
        TensorSpec("x", True, "fp32", (SHAPE[0] // 2,), NBYTES // 2),
        TensorSpec("y", False, "fp32", (SHAPE[0] // 2,), NBYTES // 2),
    )
    stream, clock, inputs = Stream(), GpuClock(), [PinnedBuffer(NBYTES) for _ in range(2)]
    for number, buffer in enumerate(inputs):
        buffer.array(np.dtype("float32"), SHAPE)[:] = number + np.arange(SHAPE[0]) % 7
    parts = []
    for tensors, buffer in zip((TENSORS, half), inputs, strict=True):
        copier = _Copier(nbytes=tensors[0].nbytes)
        parts.append(LanePart(tensors, copier.bind, copier.enqueue, lambda: "refused", [{"x": buffer.address}]))
    lane = Lane(parts, 2, stream=stream, graph=graph, copies=True)
    clock.take_anchor()
    assert (lane.graph_refusal == "") == graph
    sent: list[int] = []
    for number in (0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0):
        lane.submit(number)
        sent.append(number)
        if len(sent) == 2:
            y, first = lane.outputs(_finish(lane, clock).buffer)["y"], sent.pop(0)
            assert np.array_equal(y, first + np.arange(SHAPE[0] // (1 + first), dtype=np.float32) % 7)
    _finish(lane, clock)
    lane.close()
    clock.close()
    stream.close()
    for buffer in inputs:
        buffer.close()


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("buffers", [1, 2, 3])
@pytest.mark.parametrize(("together", "lanes"), [(False, 1), (True, 1), (True, 8)])
def test_every_request_returns_its_own_input(
    graph: bool, buffers: int, together: bool, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `buffers` in flight all the time and three input sets in turn, y = x of the same request: with streams for
    phases, with a stream for each slot, and with one for everything."""
    monkeypatch.setattr("loadtrt.cuda.program.COPIED_TOGETHER_BYTES", NBYTES if together else 0)
    with _lane(buffers, graph=graph, lanes=lanes) as (lane, clock):
        assert (lane.graph_refusal == "") == graph
        sent: list[int] = []
        for number in range(60):
            lane.submit(number % 3)
            sent.append(number % 3)
            if len(sent) == buffers:
                finished = _finish(lane, clock)
                y = lane.outputs(finished.buffer)["y"]
                assert np.array_equal(y, sent.pop(0) + np.arange(SHAPE[0], dtype=np.float32) % 7)


@pytest.mark.parametrize(("together", "lanes"), [(False, 1), (True, 1), (True, 8)])
@pytest.mark.parametrize(("buffers", "per_launch"), [(2, 1), (3, 1), (2, 3)])
def test_compute_of_a_lane_never_overlaps(
    buffers: int, per_launch: int, together: bool, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of a lane share its context's scratch memory: each one's compute starts after the one before ended."""
    monkeypatch.setattr("loadtrt.cuda.program.COPIED_TOGETHER_BYTES", NBYTES if together else 0)
    with _lane(buffers, per_launch=per_launch, lanes=lanes) as (lane, clock):
        for _ in range(30):
            for number in range(buffers):
                lane.submit(number)
            for _ in range(buffers * per_launch):
                _finish(lane, clock)
            for before, after in pairwise(lane._sets):
                assert elapsed_ns(before.events[3], after.events[2]) >= 0


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("graph", [True, False])
def test_a_launch_carries_several_requests(graph: bool, together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the input set that follows in turn, its own output, events and instant, in order."""
    monkeypatch.setattr("loadtrt.cuda.program.COPIED_TOGETHER_BYTES", NBYTES if together else 0)
    with _lane(2, graph=graph, per_launch=4) as (lane, clock):
        assert (lane.graph_refusal == "") == graph
        lane.submit(0)
        for number in range(1, 20):
            lane.submit(number % 3)
            last = 0
            for place in range(4):
                finished = _finish(lane, clock)
                assert finished.completed_ns >= last
                last = finished.completed_ns
                assert lane.outputs(finished.buffer)["y"][0] == (number - 1 + place) % 3


@pytest.mark.parametrize("graph", [True, False])
def test_instants_and_phases_fit_into_the_time_that_passed(graph: bool) -> None:
    """submitted ≤ completed ≤ seen (to the clock's error), and h2d + compute + d2h ≤ completed − submitted."""
    with _lane(1, graph=graph) as (lane, clock):
        for number in range(50):
            if number % 10 == 9:
                clock.take_anchor()
            before = perf_counter_ns()
            lane.submit(0)
            finished = _finish(lane, clock)
            after = perf_counter_ns()
            slack = clock.error_ns + clock.drift_ns
            assert before - slack <= finished.completed_ns <= after + slack
            phases = finished.h2d_ns + finished.compute_ns + finished.d2h_ns
            assert 0 < phases <= finished.completed_ns - before + slack
            assert min(finished.h2d_ns, finished.compute_ns, finished.d2h_ns) > 0


def test_without_copies_the_device_keeps_input_set_0() -> None:
    """There are no copy phases, and the output is that of the input uploaded at first."""
    with _lane(2, copies=False) as (lane, clock):
        for _ in range(10):
            lane.submit(0)
            finished = _finish(lane, clock)
            assert (finished.h2d_ns, finished.d2h_ns) == (0, 0)
            assert np.array_equal(lane.outputs(finished.buffer)["y"], np.arange(SHAPE[0], dtype=np.float32) % 7)


def test_a_capture_that_is_refused_leaves_a_lane_that_works() -> None:
    """The reason is kept, and requests are enqueued call by call."""
    with _lane(2, refuse=True) as (lane, clock):
        assert "refused" in lane.graph_refusal
        for number in range(20):
            lane.submit(number % 3)
            finished = _finish(lane, clock)
            assert lane.outputs(finished.buffer)["y"][0] == number % 3


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
        with _lane(3) as (lane, _):
            lane.submit(0)
            lane.submit(1)
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
