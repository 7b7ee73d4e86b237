"""A CUDA runtime of names and numbers: it notes calls and captures, and events tell the time of its clock."""

from __future__ import annotations

import ctypes
import enum
import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from loadtrt.cuda import driver
from loadtrt.errors import CudaError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

_MAKES = ("cudaStreamCreate", "cudaEventCreate", "cudaMalloc", "cudaHostAlloc", "cudaGraphInstantiate")
FREES = ("cudaStreamDestroy", "cudaEventDestroy", "cudaFree", "cudaFreeHost", "cudaGraphExecDestroy")


_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 4)


class _Status(enum.IntEnum):
    """Statuses of the CUDA runtime."""

    cudaSuccess = 0  # noqa: N815  # CUDA's names
    cudaErrorNotReady = 600  # noqa: N815
    cudaErrorIllegalAddress = 700  # noqa: N815


class FakeCuda:
    """Work is done at once.

    calls: names of the calls outside captures, in order.
    graphs: of each capture, its calls and their arguments.
    alive: handles made and not destroyed.
    captures: whether captures may begin.
    most_graphs: captures beyond this number are refused at their end.
    work_ns: how long a launch or `work` takes on the clock `now_ns`.
    elapsed_ms: what the driver tells of any two events.
    priority_range: the least and the greatest priority.
    nodes: type (0 for kernels), priority and context of each node of any captured graph.
    attributes: of the device.
    copies: the arguments of each that a runtime's call made; each takes so many `ns_per_byte` of the clock.
    enqueue_ns: what each takes beside that outside of graphs.
    priorities: that of each stream; clamped: what is told of all of them instead.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.graphs: list[list[tuple[str, tuple[Any, ...]]]] = []
        self.alive: set[int] = set()
        self.captures, self.most_graphs = True, 1 << 20
        self.now_ns = self.work_ns = 0
        self.elapsed_ms = 0.001
        self.priority_range = 0, -5
        self.priorities: dict[int, int] = {}
        self.clamped: int | None = None
        self.attributes = {"shared": 232_448, "l2": 50 << 20}
        self.copies: list[tuple[Any, ...]] = []
        self.ns_per_byte, self.enqueue_ns = 0.0, 0
        self.nodes: list[tuple[int, int, int]] = []
        self.capturing = False
        self._handles = itertools.count(256, 256)
        self._stamps: dict[int, int] = {}
        self._graph_ns: dict[int, int] = {}
        self._captured_ns = 0

    def install(self, monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
        """In the place of `call` and `cudart` in these modules."""
        monkeypatch.setattr("loadtrt.cuda.driver.functions", self.functions)
        monkeypatch.setattr("loadtrt.cuda.driver.cudart", self.runtime)
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
        """A checked call: its value."""
        self.calls.append(name)
        if name.startswith(_MAKES):
            handle = next(self._handles)
            self.alive.add(handle)
            if name == "cudaGraphInstantiate":
                self._graph_ns[handle], self._captured_ns = self._captured_ns, 0
            if name.startswith("cudaStreamCreate"):
                self.priorities[handle] = arguments[1] if name.endswith("Priority") else 0
            return handle
        if name == "cudaDeviceGetStreamPriorityRange":
            return self.priority_range
        if name == "cudaGraphGetNodes":
            return list(range(arguments[1])), len(self.nodes)
        if name == "cudaGraphNodeGetType":
            return self.nodes[arguments[0]][0]
        if name == "cudaGraphKernelNodeGetAttribute":
            return SimpleNamespace(priority=self.nodes[arguments[0]][1])
        if name == "cudaDeviceGetAttribute":
            return self.attributes[arguments[0]]
        if name == "cudaStreamGetPriority":
            return self.priorities[arguments[0]] if self.clamped is None else self.clamped
        if name in FREES:
            self.alive.remove(arguments[0])
        elif name == "cudaStreamBeginCapture":
            if not self.captures:
                raise CudaError(name, "cudaErrorStreamCaptureUnsupported", "operation not permitted")
            self.graphs.append([])
            self.capturing, self._captured_ns = True, 0
        elif name == "cudaEventRecord":
            self._stamps[arguments[0]] = self.now_ns
        elif name == "cudaGraphLaunch":
            self.work()
            self.now_ns += self._graph_ns[arguments[0]]
        elif name == "cudaMemcpyAsync":
            self.copies.append(arguments)
            took_ns = round(arguments[2] * self.ns_per_byte)
            if self.capturing:
                self._captured_ns += took_ns
            else:
                self.now_ns += took_ns + self.enqueue_ns
        return None

    def step(self, name: str) -> Callable[..., int]:
        """A function of the driver, by the runtime's name for it. Within a capture it is of the graph."""

        def function(*arguments: Any) -> int:
            if self.capturing:
                self.graphs[-1].append((name, arguments))
            else:
                self.calls.append(name)
            if name == "cudaEventElapsedTime":
                ctypes.c_float.from_address(arguments[0]).value = self.elapsed_ms
            return 0

        return function

    def functions(self) -> driver.Functions:
        """In the place of `driver.functions`, for compiled code as well; the clock is the host's."""
        clock = ctypes.CDLL(None).clock_gettime
        clock.argtypes = [ctypes.c_int64] * 4
        named = {name: _FUNCTION(self.step(names[-1])) for name, names in driver._NAMES.items()}
        return driver.Functions(**named, clock=clock)

    def runtime(self) -> Any:
        def end_capture(_: Any) -> tuple[int, int]:
            self.capturing = False
            return (0, 1) if len(self.graphs) <= self.most_graphs else (900, 0)

        return SimpleNamespace(
            cudaStreamNonBlocking=1,
            cudaStream_t=int,
            cudaEventBlockingSync=1,
            cudaError_t=_Status,
            cudaGetErrorString=lambda _: (0, b"as planned"),
            cudaMemcpyKind=SimpleNamespace(
                cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
            ),
            cudaGraphNodeType=SimpleNamespace(cudaGraphNodeTypeKernel=0),
            cudaLaunchAttributeID=SimpleNamespace(cudaLaunchAttributePriority=8),
            cudaDeviceAttr=SimpleNamespace(
                cudaDevAttrMaxSharedMemoryPerBlockOptin="shared", cudaDevAttrL2CacheSize="l2"
            ),
            cudaStreamCaptureMode=SimpleNamespace(cudaStreamCaptureModeThreadLocal=1),
            cudaStreamEndCapture=end_capture,
            cudaGetLastError=lambda: (0,),
            cudaGraphDestroy=lambda _: (0,),
        )
