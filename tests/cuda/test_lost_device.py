"""A device that is lost in the middle of a run: after CUDA's sticky errors every call fails, to free memory too."""

from __future__ import annotations

import json
from time import perf_counter_ns
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fake_cuda import FREES, FakeCuda
from loadtrt.asked.config import RunConfig
from loadtrt.cli.running import run
from loadtrt.cuda.completion_queue import CompletionQueue
from loadtrt.cuda.lane import Lane, LanePart
from loadtrt.cuda.memory import PinnedBuffer
from loadtrt.cuda.stream import Stream
from loadtrt.engines.placement import Placement
from loadtrt.engines.plan_engine import TensorRTEngine
from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.errors import CudaError
from loadtrt.load.tensors import TensorSpec
from loadtrt.results.engine_info import MemoryBill
from loadtrt.units import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVED = 50


class LostCuda(FakeCuda):
    """A device that is lost at the launch after SERVED ones.

    first: the call that meets the loss first: it is not told to those before.
    freed: calls that free something, after the loss.
    """

    def __init__(self, first: str) -> None:
        super().__init__()
        self.first, self.freed, self.launches, self.lost = first, 0, 0, False

    def step(self, name: str) -> Callable[..., int]:
        whole = super().step(name)

        def function(*arguments: Any) -> int:
            if name == "cudaGraphLaunch" and not self.capturing:
                self.launches += 1
            if self.launches > SERVED and self.first == name:
                self.lost = True
            return 700 if self.lost else whole(*arguments)

        return function

    def call(self, name: str, *arguments: Any) -> Any:
        if self.lost:
            self.freed += name in FREES
            raise CudaError(name, "cudaErrorIllegalAddress", "an illegal memory access was encountered")
        return super().call(name, *arguments)


class Engine(TensorRTEngine):
    """The engine over lanes that have no plan."""

    def __init__(self, cuda: LostCuda, clock: Any) -> None:
        self.contexts, self.buffers, self.per_launch = 2, 2, 1
        self.parts = ((TensorSpec("x", True, "fp32", (1, 16), 64), TensorSpec("y", False, "fp32", (1, 16), 64)),)
        self.batches = (1,)
        self.info = SimulatedEngine().info
        self.now_ns = perf_counter_ns
        self._cuda, self._cuda_clock, self._clock, self._looks, self._turn_ns = cuda, clock, clock, None, 0
        self._queue, self.ways, self.way = None, (), None
        self._lanes, self._contexts, self._streams, self._inputs = [], [], [], []
        self._placement = Placement()
        self._plan: Any = SimpleNamespace(close=lambda: None, open=SimpleNamespace(logged=tuple))
        self._source = self._plan

    def memory(self, inputs: Any) -> MemoryBill:  # see Engine
        return MemoryBill(2, 2, 0, 0, 0, 0, inputs_bytes=0, free_bytes=None)

    def allocate(self, inputs: Any) -> None:  # see Engine
        self._inputs = [{"x": PinnedBuffer(64)}]
        addresses = [{"x": self._inputs[0]["x"].address}]
        for _ in range(self.contexts):
            self._streams.append(Stream())
            part = LanePart(self.parts[0], lambda *_: None, lambda _: True, lambda: "", addresses)
            self._lanes.append(Lane([part], 2, stream=self._streams[-1], graph=True, copies=True))
        self._queue = CompletionQueue(self._lanes, self._cuda_clock)


class Clock:
    """A GPU's clock. An anchor is due at each wait where the loss is met by taking one."""

    anchor, anchor_ns, host_ns_per_ms = 1, NEVER, 1e6
    error_ns = drift_ns = anchors = 0

    def __init__(self, cuda: LostCuda) -> None:
        self._cuda = cuda
        self.due_ns = 0 if cuda.first == "cudaEventRecord" else NEVER

    def take_anchor(self) -> None:
        if self._cuda.launches > SERVED:
            self._cuda.lost = True
            self._cuda.call("cudaEventRecord")

    def close(self) -> None:
        self._cuda.call("cudaEventDestroy", next(iter(self._cuda.alive)))


@pytest.mark.parametrize("first", ["cudaGraphLaunch", "cudaEventQuery", "cudaEventElapsedTime", "cudaEventRecord"])
def test_what_was_measured_is_kept_and_one_sentence_is_said(
    first: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wherever the loss is met first: the run has failed (exit 3), its result is written and shown, everything is freed
    as far as that goes, and no second error is told of that."""
    cuda = LostCuda(first)
    cuda.install(monkeypatch, "cuda.lane", "cuda.stream", "cuda.memory", "cuda.runtime")
    engine = Engine(cuda, Clock(cuda))
    monkeypatch.setattr("loadtrt.runs.opened.open_engine", lambda *_: engine)
    file = tmp_path / "run.json"
    config = RunConfig.of(engine="simulated:null", contexts=2, requests=1000, warmup=0, input_sets=1, json=str(file))
    assert run(config) == 3
    written = json.loads(file.read_text())
    (model,) = written["models"].values()
    assert written["outcome"] == "failed"
    assert written["failure"].startswith(f"{first} failed with cudaErrorIllegalAddress")
    assert SERVED - 4 <= model["ok"] <= SERVED
    assert sum(interval["requests"] for interval in model["intervals"]) == model["ok"]
    out, err = capfd.readouterr()
    assert [line for line in err.splitlines() if "failed" in line] == [f"loadtrt: {written['failure']}"]
    assert "Traceback" not in err
    assert written["failure"].split(":")[0] in out
    assert cuda.freed >= len(cuda.alive) > 20
