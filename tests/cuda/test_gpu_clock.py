"""GPU instants on the host's clock, with a fake CUDA runtime whose GPU has a clock of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from loadtrt.cuda import runtime as runtime_module
from loadtrt.cuda import stream as stream_module
from loadtrt.cuda.stream import Event, GpuClock
from loadtrt.errors import CudaError

SECOND = 1_000_000_000
NOT_READY = 600


class FakeGpu:
    """A GPU whose clock runs `ppm` millionths fast, and which takes `delay_ns` to record an event. Asking the host's
    clock takes 150 ns, a call 2 µs, as on the H100's host."""

    def __init__(self, ppm: float = 26.0, delay_ns: int = 3_000) -> None:
        self.host = 5 * SECOND
        self.ppm = ppm
        self.delay_ns = delay_ns
        self.status = 0
        self.recorded: dict[int, int] = {}  # event: the host's instant at which it completed
        self.events = 0
        self.cudaError_t = SimpleNamespace(cudaErrorNotReady=NOT_READY)
        self.cudaStreamNonBlocking = 1

    def perf_counter_ns(self) -> int:
        self.host += 150
        return self.host

    def gpu_time(self, host: int) -> float:
        return host * (1 + self.ppm / 1e6) + 123_456_789

    def cudaEventCreateWithFlags(self, _: int) -> tuple[int, int]:  # noqa: N802
        self.events += 1
        return 0, self.events

    def cudaDeviceGetStreamPriorityRange(self) -> tuple[int, int, int]:  # noqa: N802
        return 0, 0, -5

    def cudaStreamCreateWithPriority(self, *_: int) -> tuple[int, int]:  # noqa: N802
        return 0, 1

    def cudaEventRecord(self, event: int, _: int) -> tuple[int]:  # noqa: N802
        self.host += 2_000
        self.recorded[event] = self.host + self.delay_ns
        return (0,)

    def cudaEventQuery(self, event: int) -> tuple[int]:  # noqa: N802
        self.host += 1_000
        done = self.host >= self.recorded[event]
        self.host += 1_000
        return (self.status or (0 if done else NOT_READY),)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[int, float]:  # noqa: N802
        between = self.gpu_time(self.recorded[end]) - self.gpu_time(self.recorded[start])
        return 0, float(np.float32(between / 1e6))

    def cudaGetErrorString(self, _: int) -> tuple[int, bytes]:  # noqa: N802
        return 0, b"an illegal memory access was encountered"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    fake = FakeGpu()
    for module in (stream_module, runtime_module):
        monkeypatch.setattr(module, "cudart", lambda: fake)
    monkeypatch.setattr(stream_module, "perf_counter_ns", fake.perf_counter_ns)
    return fake


def _worst_error(gpu: FakeGpu, clock: GpuClock, seconds: int) -> int:
    """Events all over the seconds after each anchor, against their true instants."""
    worst = 0
    event: Any = Event()
    for _ in range(seconds):
        clock.take_anchor()
        for _ in range(10):
            gpu.host += SECOND // 10
            gpu.cudaEventRecord(event.handle, 0)
            worst = max(worst, abs(clock.host_ns(event) - gpu.recorded[event.handle]))
    return worst


def test_an_instant_is_within_the_stated_error_also_when_clocks_differ(gpu: FakeGpu) -> None:
    """|host(event) − truth| ≤ error + drift once two anchors a second apart are known; 26 ppm alone would be 26 µs."""
    clock = GpuClock()
    first = _worst_error(gpu, clock, 1)
    assert 20_000 < first < 40_000  # one anchor: the rate is not known yet
    later = _worst_error(gpu, clock, 100)
    assert later <= clock.error_ns + clock.drift_ns
    assert later < 6_000
    assert clock.error_ns < 4_000


def test_the_bracket_holds_the_anchor(gpu: FakeGpu) -> None:
    """The true instant lies within ± error of the anchor's, however long the GPU takes to record."""
    for delay in (0, 500, 3_000, 20_000, 90_000):
        gpu.delay_ns = delay
        clock = GpuClock()
        clock.take_anchor()
        anchor = clock._anchor
        truth = gpu.recorded[anchor.handle]
        assert abs(clock.host_ns(anchor) - truth) <= clock.error_ns


def test_a_busy_gpu_keeps_the_old_anchor_and_a_dead_one_is_an_error(gpu: FakeGpu) -> None:
    """A later anchor that takes over 0.2 ms is left alone; a bad status is raised with CUDA's explanation."""
    clock = GpuClock()
    clock.take_anchor()
    gpu.delay_ns = SECOND
    clock.take_anchor()
    assert clock.anchors == 1
    gpu.status = 700
    with pytest.raises(CudaError, match="an illegal memory access"):
        clock.take_anchor()


def test_a_gpu_that_never_records_is_an_error(gpu: FakeGpu) -> None:
    """The very first anchor has a second."""
    gpu.delay_ns = 10 * SECOND
    with pytest.raises(CudaError, match="took over a second"):
        GpuClock().take_anchor()
