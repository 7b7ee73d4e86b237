"""ONNX Runtime as an engine: contexts that really run at once, requests that fail alone, threads that end."""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import closing
from hashlib import sha256
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pytest
from onnx import TensorProto, helper

from loadtrt import zoo
from loadtrt.engines.onnxruntime import sentence_of
from loadtrt.errors import EngineError, UsageError
from loadtrt.load.inputs import make_inputs
from onnx_files import FAR_NS, doubling, finish, load, refused, save
from rigs import one_loop

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.anyio
async def test_requests_complete_in_order_with_their_own_outputs(tmp_path: Path) -> None:
    """Each lane serves in order of submission, its buffer sets in turn; outputs(lane, buffer) are that request's."""
    sets = [{"x": np.full((2, 3), k, np.float32)} for k in range(5)]
    with closing(load(doubling(tmp_path, "N", 3), batch=2, contexts=3, buffers=2)) as engine:
        engine.allocate(sets)
        seen: dict[int, list[tuple[int, float]]] = {lane: [] for lane in range(3)}
        for round_ in range(2):
            for lane in range(3):
                engine.submit(lane, round_ * 2)
                engine.submit(lane, round_ * 2 + 1)
            for completion in await finish(engine, 6):
                value = engine.outputs(completion.lane, completion.buffer)["y"][0, 0]
                seen[completion.lane].append((completion.buffer, float(value)))
                assert completion.error is None
        assert seen == {lane: [(0, 0.0), (1, 2.0), (0, 4.0), (1, 6.0)] for lane in range(3)}
        assert await engine.wait(0) == []


@pytest.mark.anyio
async def test_contexts_run_at_the_same_time_and_stamps_enclose_the_run(tmp_path: Path) -> None:
    """Runs of two lanes overlap in time (nothing holds a lock around them); submitted <= start <= completed <= now, and
    nothing was copied."""
    side = 256
    nodes = [helper.make_node("MatMul", ["x" if k == 0 else f"h{k}", "w"], [f"h{k + 1}"]) for k in range(50)]
    value = (TensorProto.FLOAT, (side, side))
    weight = np.eye(side, dtype=np.float32)
    file = save(tmp_path / "chain.onnx", nodes, {"x": value}, {"h50": value}, {"w": weight})
    with closing(load(file, contexts=2, threads_per_context=1)) as engine:
        engine.allocate([{"x": np.ones((side, side), np.float32)}])
        assert engine.clock_mapping() is None
        for _ in range(100):  # a busy host may hold this thread between the two submissions
            begun_ns = engine.now_ns()
            engine.submit(0, 0)
            engine.submit(1, 0)
            both = await finish(engine, 2)
            for completion in both:
                assert begun_ns <= completion.completed_ns - completion.compute_ns
                assert completion.completed_ns <= engine.now_ns()
                assert completion.h2d_ns == completion.d2h_ns == 0
            if max(c.completed_ns - c.compute_ns for c in both) < min(c.completed_ns for c in both):
                return
    pytest.fail("no two runs overlapped")


@pytest.mark.anyio
async def test_more_than_the_buffers_in_flight_is_refused(tmp_path: Path) -> None:
    """Two requests in flight never share a buffer: one too many is an EngineError, and one that is taken frees it."""
    with closing(load(doubling(tmp_path, 4), buffers=1)) as engine:
        engine.allocate([{"x": np.zeros(4, np.float32)}])
        engine.submit(0, 0)
        with pytest.raises(EngineError, match="lane 0 has 1 requests in flight"):
            engine.submit(0, 0)
        await finish(engine, 1)
        engine.submit(0, 0)
        await finish(engine, 1)


@pytest.mark.anyio
async def test_waiting_ends_at_its_instant(tmp_path: Path) -> None:
    """With nothing in flight wait() returns nothing, not before until_ns."""
    with closing(load(doubling(tmp_path, 4))) as engine:
        engine.allocate([])
        until_ns = engine.now_ns() + 3_000_000
        assert await engine.wait(until_ns) == []
        assert perf_counter_ns() >= until_ns


@pytest.mark.anyio
async def test_cancelling_a_wait_loses_no_completion_and_closing_leaks_no_thread(tmp_path: Path) -> None:
    """A completion that a cancelled wait did not return comes with the next; afterwards every thread, of Python and of
    ONNX Runtime, is gone. Closing again is harmless."""
    load(doubling(tmp_path, 4)).close()  # whatever ONNX Runtime starts once in a process
    tasks = len(os.listdir("/proc/self/task"))
    engine = load(doubling(tmp_path, 4), contexts=3, threads_per_context=3)
    engine.allocate([{"x": np.zeros(4, np.float32)}])
    assert sum(thread.name.startswith("loadtrt-lane") for thread in threading.enumerate()) == 3
    assert len(os.listdir("/proc/self/task")) == tasks + 3 * 3  # contexts x threads, the workers among them
    engine.submit(1, 0)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await engine.wait(engine.now_ns() + FAR_NS)
    assert scope.cancelled_caught
    (completion,) = await finish(engine, 1)
    assert completion.lane == 1
    for lane in (0, 0, 1, 2):
        engine.submit(lane, 0)  # in flight, or waiting, while it closes
    engine.close()
    engine.close()
    assert not any(thread.name.startswith("loadtrt-lane") for thread in threading.enumerate())
    until = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) > tasks:  # Python's threads are joined a moment before they end
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.anyio
async def test_a_failing_run_is_an_error_of_its_request(tmp_path: Path, capfd: Any) -> None:
    """A run that fails completes with one sentence and no outputs; the lane goes on; nothing is printed."""
    file = save(
        tmp_path / "gather.onnx",
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        {"ids": (TensorProto.INT64, ["N"])},
        {"y": (TensorProto.FLOAT, ["N"])},
        {"table": np.arange(10, dtype=np.float32)},
    )
    with closing(load(file, batch=2)) as engine:
        engine.allocate([{"ids": np.array([1, 99])}, {"ids": np.array([1, 9])}])
        engine.submit(0, 1)
        await finish(engine, 1)
        engine.submit(0, 1)
        engine.submit(0, 0)  # in the buffer of the first
        good, bad = await finish(engine, 2)
        assert bad.error is not None
        assert "indices element out of data bounds" in bad.error
        assert "\n" not in bad.error
        assert not bad.error.startswith("[ONNXRuntimeError]")
        assert engine.outputs(0, bad.buffer) == {}
        assert good.error is None
        assert engine.outputs(0, good.buffer)["y"].tolist() == [1, 9]
    assert capfd.readouterr() == ("", "")


def test_info_says_what_it_is(tmp_path: Path) -> None:
    """Name, digest of the file, device, tensors with their bytes, batch, effective threads."""
    file = doubling(tmp_path, "N", 3)
    with closing(load(file, batch=16, threads_per_context=1)) as engine:
        info = engine.info
    with open(file, "rb") as opened:
        assert info.sha256 == sha256(opened.read()).hexdigest()
    assert (info.kind, info.name, info.batch, info.precision, info.notes) == ("onnxruntime", file, 16, "", ())
    assert [str(tensor) for tensor in info.tensors] == ["x fp32[16,3]", "y fp32[16,3]"]
    assert [(tensor.is_input, tensor.nbytes) for tensor in info.tensors] == [(True, 192), (False, 192)]
    assert re.fullmatch(r"\S.*, \d+ cores?", info.device)
    assert info.mode == {"threads per context": "1", "sessions": "1", "spinning": "off"}


@pytest.mark.parametrize(
    ("contexts", "threads", "sessions", "spinning"),
    [(1, 1, 1, "off"), (1, 2, 1, "on"), (3, 1, 1, "off"), (3, 2, 3, "off")],
)
def test_threads_per_context_are_a_context_s_own(
    tmp_path: Path, contexts: int, threads: int, sessions: int, spinning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One session serves all contexts of one thread; with more threads each has its own, and the bill says so. What is
    free is what the inputs are measured by."""
    monkeypatch.setattr("loadtrt.engines.onnxruntime.available_bytes", lambda: 7 << 30)
    with closing(load(doubling(tmp_path, 8), contexts=contexts, threads_per_context=threads)) as engine:
        assert engine.info.mode == {
            "threads per context": str(threads),
            "sessions": str(sessions),
            "spinning": spinning,
        }
        assert any("session and weights of its own" in note for note in engine.info.notes) == (sessions > 1)
        inputs = make_inputs(engine.info.tensors, ["random"], 4, {}, 1)
        bill = engine.memory(inputs)
    size = os.path.getsize(tmp_path / "double.onnx")
    assert bill.weights_bytes == sessions * size
    assert (bill.contexts, bill.device_io_bytes, bill.inputs_bytes, bill.context_bytes) == (contexts, 32, 4 * 32, None)
    assert bill.free_bytes == 7 << 30


def test_what_onnx_runtime_says_is_cut_in_its_middle() -> None:
    """The end of a long sentence often names the cause."""
    said = sentence_of(RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : Node\n{'x' * 500} failed"))
    assert len(said) == 400
    assert said.startswith("Node x")
    assert said.endswith("x failed")


def test_cores_are_divided_among_contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --threads-per-context: max(1, cores // contexts), of the cores that this process may use."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    for contexts, threads in ((1, "6"), (4, "1"), (3, "2"), (7, "1")):
        with closing(load(doubling(tmp_path, 8), contexts=contexts)) as engine:
            assert engine.info.mode["threads per context"] == threads
            assert engine.info.device.endswith(", 6 cores")


@one_loop
@pytest.mark.anyio
async def test_the_zoo_serves(tmp_path: Path) -> None:
    """zoo:googlenet runs; without --batch it says that the batch is 1; --shapes decide like --batch; a file of the same
    model has the same outputs."""
    results = []
    (tmp_path / "g.onnx").write_bytes(zoo.make("googlenet", None, 0).SerializeToString())
    x = np.random.default_rng(1).standard_normal((1, 3, 224, 224), np.float32)
    for name in ("zoo:googlenet", str(tmp_path / "g.onnx")):
        with closing(load(name, contexts=2, shapes={} if name[0] == "z" else {"data": "1x3x224x224"})) as engine:
            assert any("batch 1, since no --batch" in note for note in engine.info.notes) == (name[0] == "z")
            engine.allocate([{"data": x}])
            engine.submit(1, 0)
            (completion,) = await finish(engine, 1)
            results.append(engine.outputs(completion.lane, completion.buffer)["prob"])
    assert results[0].sum() == pytest.approx(1, abs=1e-5)
    assert (results[0] == results[1]).all()
    with closing(load("zoo:googlenet", batch=16)) as engine:
        assert (engine.info.batch, engine.info.notes) == (16, ())
    with closing(load("zoo:googlenet", shapes={"data": "8x3x224x224"})) as engine:
        assert (engine.info.batch, engine.info.notes) == (8, ())
    refused(UsageError, "the zoo has no model 'googlnet': did you mean 'googlenet'?", "zoo:googlnet")
