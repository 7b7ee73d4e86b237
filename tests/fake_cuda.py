"""A CUDA runtime of names and numbers, for code that puts work on one stream: calls are noted, events tell its time."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from loadtrt.errors import CudaError

if TYPE_CHECKING:
    import pytest


class FakeCuda:
    """`calls`: names, in order. `work_ns`: how long a launch or an enqueue takes on its clock. `captures`: whether it
    lets work be captured. `alive`: handles made and not destroyed."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.alive: set[int] = set()
        self.work_ns = 0
        self.captures = True
        self.now_ns = 0
        self.capturing = False
        self._handles = itertools.count(256, 256)
        self._stamps: dict[int, int] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
        """In the place of `call` and `cudart` in these modules."""
        for module in modules:
            for name, fake in (("call", self.call), ("cudart", self.runtime), ("elapsed_ns", self.elapsed_ns)):
                monkeypatch.setattr(f"loadtrt.{module}.{name}", fake, raising=False)

    def work(self) -> None:
        """Something ran on the device."""
        if not self.capturing:
            self.now_ns += self.work_ns

    def elapsed_ns(self, start: Any, end: Any) -> int:
        return self._stamps[end.handle] - self._stamps[start.handle]

    def call(self, name: str, *arguments: Any) -> Any:
        self.calls.append(name)
        if name.startswith(("cudaStreamCreate", "cudaEventCreate", "cudaMalloc", "cudaGraphInstantiate")):
            handle = next(self._handles)
            self.alive.add(handle)
            return handle
        if name in ("cudaStreamDestroy", "cudaEventDestroy", "cudaFree", "cudaGraphExecDestroy"):
            self.alive.remove(arguments[0])
        elif name == "cudaStreamBeginCapture":
            if not self.captures:
                raise CudaError(name, "cudaErrorStreamCaptureUnsupported", "operation not permitted")
            self.capturing = True
        elif name == "cudaEventRecord":
            self._stamps[arguments[0]] = self.now_ns
        elif name == "cudaGraphLaunch":
            self.work()
        return None

    def runtime(self) -> Any:
        def end_capture(_: Any) -> tuple[int, int]:
            self.capturing = False
            return 0, 1

        return SimpleNamespace(
            cudaStreamNonBlocking=1,
            cudaEventBlockingSync=1,
            cudaMemcpyKind=SimpleNamespace(cudaMemcpyHostToDevice=1),
            cudaStreamCaptureMode=SimpleNamespace(cudaStreamCaptureModeThreadLocal=1),
            cudaStreamEndCapture=end_capture,
            cudaGetLastError=lambda: (0,),
            cudaGraphDestroy=lambda _: (0,),
        )
