"""Work that loads one resource of a GPU: what a neighbour of a model may do to it, and nothing else.

    dram   copies between two buffers of the device that are larger than its L2 cache
    l2     copies between two buffers that fit into the L2 cache together
    pcie   copies from the host and to it, at the same time
    sm     a kernel whose blocks have an SM each, all of its shared memory, and look at the clock

A launch takes a stated time, a part of which it may rest: one thread sleeps then.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from loadtrt.cuda.driver import bindings, call_driver
from loadtrt.cuda.memory import DeviceBuffer, PinnedBuffer
from loadtrt.cuda.runtime import call, close_all, closed_on_failure, cudart, versions
from loadtrt.cuda.stream import Event, Graph, Stream, elapsed_ns
from loadtrt.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.cuda.runtime import Closes, DeviceProperties

Resource = Literal["dram", "l2", "pcie", "sm"]
RESOURCES: tuple[Resource, ...] = get_args(Resource)
OUTPUT_BYTES = 64  # the input is copied to the output, so that outputs can be verified
_PCIE_BYTES = 4 << 20
_TRIES, _MOST_TRIES, _UNITS = 3, 200, 4  # of calibration
_SETTLING_NS = 50_000_000  # of work, in which an idle GPU raises its clocks
_THREADS = 128
_MOST_COPIES = 20_000  # nodes of a graph
# Blocks of `spin` have an SM each: they take all of its shared memory, of which each block of any kernel needs some
# from compute capability 8.0 on.
_KERNEL = """
.visible .entry {name}(.param .u64 nanoseconds)
{{
    .reg .pred %early;
    .reg .b64 %limit, %begin, %now;
    ld.param.u64 %limit, [nanoseconds];
    mov.u64 %begin, %globaltimer;
again:
    {sleep}
    mov.u64 %now, %globaltimer;
    sub.u64 %now, %now, %begin;
    setp.lt.u64 %early, %now, %limit;
    @%early bra again;
    ret;
}}
"""
PTX = ".version 6.3\n.target sm_70\n.address_size 64\n" + "".join(
    _KERNEL.format(name=name, sleep=sleep) for name, sleep in (("spin", ""), ("rest", "nanosleep.u32 500;"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stress:
    """What a launch does.

    time_ns: how long it takes where nothing else uses the resource.
    intensity: the part of that time in which it works.
    share: the part of the SMs that it works on, with "sm".
    nbytes: of each buffer; None for what the device suggests.
    """

    resource: Resource
    time_ns: int = 1_000_000
    intensity: float = 1.0
    share: float = 1.0
    nbytes: int | None = None


class Stressor:
    """Makes contexts that enqueue a stress; engines/cuda_engine.py says what the names mean.

    nbytes: of each buffer.
    sms: those that there are for it.
    units: copies of a launch.
    took_ns: how long a launch took when nothing else was launched here.
    bytes_per_s: copied by then, in one direction.
    """

    weights_bytes = 0

    def __init__(self, stress: Stress, device: DeviceProperties) -> None:
        self.stress, self.sms = stress, device.multiprocessors
        self.nbytes = 0 if stress.resource == "sm" else stress.nbytes or _suggested(stress.resource, device.index)
        self.context_bytes = 2 * self.nbytes
        self.units, self.took_ns, self.bytes_per_s = 1, 0, 0.0
        needs_kernels = stress.resource == "sm" or stress.intensity < 1
        self.kernels = Kernels(device.index) if needs_kernels else None

    @property
    def blocks(self) -> int:
        """SMs that a launch takes, with "sm"."""
        return max(1, round(self.stress.share * self.sms))

    def context(self, stream: int, part: int = 0) -> StressorContext:  # noqa: ARG002  # as of Source
        """Buffers of its own for one lane."""
        return StressorContext(self)

    def calibrate(self, stream: Stream, *, graph: bool) -> None:
        """Decide how many copies a launch has, by how long they take on this stream now.

        graph: whether launches are graphs, whose copies follow one another faster.
        """
        context = self.context(int(stream))
        output = DeviceBuffer(2 * OUTPUT_BYTES)
        start, end = Event(), Event()
        with closed_on_failure(context, output, start, end):
            context.bind("x", output.address)
            context.bind("y", output.address + OUTPUT_BYTES)
            work_ns = self.stress.intensity * self.stress.time_ns
            self.units = _UNITS if self.nbytes else 1
            for _ in range(2 if self.nbytes else 0):  # a launch costs, too: then by about as many as it will have
                unit_ns = _fastest(stream, start, end, context.work, graph=graph) / self.units
                self.bytes_per_s = 1e9 * self.nbytes / unit_ns
                self.units = min(max(1, round(work_ns / unit_ns)), _MOST_COPIES)
            self.took_ns = _fastest(stream, start, end, context.enqueue, graph=graph)
        close_all((context, output, start, end))

    def close(self) -> None:
        """Unload the kernels. Safe to call twice."""
        if self.kernels is not None:
            self.kernels.close()


class StressorContext:
    """The buffers of one lane, and what it enqueues."""

    auxiliary_streams, takes_streams = 0, True  # kernels run on the stream of the enqueue alone

    def __init__(self, stressor: Stressor) -> None:
        self._stressor = stressor
        self._bound: dict[str, int] = {}
        self._owned: list[Closes] = []
        resource, nbytes = stressor.stress.resource, stressor.nbytes
        with closed_on_failure(self):
            if resource == "sm":
                return
            self._device = [self._own(DeviceBuffer(nbytes)), self._own(DeviceBuffer(nbytes))]
            if resource == "pcie":
                self._host = [self._own(PinnedBuffer(nbytes)), self._own(PinnedBuffer(nbytes))]
                self._out, self._begun, self._ended = self._own(Stream()), self._own(Event()), self._own(Event())

    def _own(self, handle: Any) -> Any:
        self._owned.append(handle)
        return handle

    def bind(self, name: str, address: int) -> None:
        """The input is x, the output y."""
        self._bound[name] = address

    def reason(self) -> str:
        """Nothing is known beyond CUDA's errors, which are raised."""
        return ""

    def capturable(self, stream: int) -> bool | None:  # noqa: ARG002  # as of Context
        """Only an attempt shows it."""
        return None

    def compute_on(self, streams: list[int]) -> None:
        """There are no auxiliary streams."""

    def enqueue(self, stream: int) -> bool:
        """A launch. Raises CudaError."""
        stress, kernels = self._stressor.stress, self._stressor.kernels
        self.work(stream)
        if kernels is not None and stress.intensity < 1:
            kernels.rest(stream, round((1 - stress.intensity) * stress.time_ns))
        _copy(self._bound["y"], self._bound["x"], OUTPUT_BYTES, "DeviceToDevice", stream)
        return True

    def work(self, stream: int) -> None:
        """The part of a launch that works."""
        stressor, nbytes = self._stressor, self._stressor.nbytes
        match stressor.stress.resource:
            case "sm":
                assert stressor.kernels is not None  # noqa: S101  # it was made
                time_ns = round(stressor.stress.intensity * stressor.stress.time_ns)
                stressor.kernels.spin(stream, stressor.blocks, time_ns)
            case "pcie":
                call("cudaEventRecord", self._begun.handle, stream)
                call("cudaStreamWaitEvent", self._out.handle, self._begun.handle, 0)
                for _ in range(stressor.units):
                    _copy(self._device[0].address, self._host[0].address, nbytes, "HostToDevice", stream)
                    _copy(self._host[1].address, self._device[1].address, nbytes, "DeviceToHost", int(self._out))
                call("cudaEventRecord", self._ended.handle, self._out.handle)
                call("cudaStreamWaitEvent", stream, self._ended.handle, 0)
            case _:
                for number in range(stressor.units):
                    to, source = self._device[number % 2], self._device[1 - number % 2]
                    _copy(to.address, source.address, nbytes, "DeviceToDevice", stream)

    def close(self) -> None:
        """Free the buffers, which must be idle. Safe to call twice."""
        owned, self._owned = self._owned, []
        close_all(owned)


class Kernels:
    """The kernels, from PTX text, which the driver compiles."""

    def __init__(self, device: int) -> None:
        """Raises EngineError."""
        try:
            self._library = call_driver("cuLibraryLoadData", PTX.encode() + b"\0", [], [], 0, [], [], 0)
        except RuntimeError:  # how the bindings say that the driver has no such function
            needs = "stressors need a driver of CUDA 12.0 or newer"
            raise EngineError(f"{needs}, and this one is of CUDA {versions()[0]}: update it") from None
        with closed_on_failure(self):
            self._spin, self._rest = (self._kernel(name) for name in (b"spin", b"rest"))
            attribute = cudart().cudaDeviceAttr.cudaDevAttrMaxSharedMemoryPerBlockOptin
            self._shared = int(call("cudaDeviceGetAttribute", attribute, device))
            most = bindings().CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            gpu, kernel = call_driver("cuDeviceGet", device), bindings().CUkernel(int(self._spin))
            call_driver("cuKernelSetAttribute", most, self._shared, kernel, gpu)

    def _kernel(self, name: bytes) -> Any:
        """As functions of a launch take it; the context is the stream's then."""
        return bindings().CUfunction(int(call_driver("cuLibraryGetKernel", self._library, name)))

    def spin(self, stream: int, blocks: int, time_ns: int) -> None:
        """Keep so many SMs busy, for `time_ns` each."""
        self._launch(self._spin, blocks, _THREADS, self._shared, stream, time_ns)

    def rest(self, stream: int, time_ns: int) -> None:
        """Let one thread sleep."""
        self._launch(self._rest, 1, 1, 0, stream, time_ns)

    def _launch(self, kernel: Any, blocks: int, threads: int, shared: int, stream: int, time_ns: int) -> None:
        parameters = ((time_ns,), (ctypes.c_uint64,))
        handle = bindings().CUstream(stream)
        call_driver("cuLaunchKernel", kernel, blocks, 1, 1, threads, 1, 1, shared, handle, parameters, 0)

    def close(self) -> None:
        """Unload them. Safe to call twice."""
        library, self._library = self._library, None
        if library is not None:
            call_driver("cuLibraryUnload", library)


def _suggested(resource: Resource, device: int) -> int:
    """Buffers that are far larger than the L2 cache, or of which two fill a quarter of it."""
    if resource == "pcie":
        return _PCIE_BYTES
    cache = int(call("cudaDeviceGetAttribute", cudart().cudaDeviceAttr.cudaDevAttrL2CacheSize, device))
    return 4 * cache if resource == "dram" else cache // 8


def _copy(to: int, source: int, nbytes: int, way: str, stream: int) -> None:
    kind = getattr(cudart().cudaMemcpyKind, f"cudaMemcpy{way}")
    call("cudaMemcpyAsync", to, source, nbytes, kind, stream)


def _fastest(stream: Stream, start: Event, end: Event, work: Callable[[int], object], *, graph: bool) -> int:
    """How many ns the fastest of several launches takes; the first ones raise clocks."""
    work(int(stream))  # loads kernels, without which no graph can be captured
    captured = Graph.capture(stream, lambda: work(int(stream))) if graph else None
    took: list[int] = []
    while len(took) < _TRIES or (sum(took) < _SETTLING_NS and len(took) < _MOST_TRIES):
        call("cudaEventRecord", start.handle, stream.handle)
        if captured is None:
            work(int(stream))
        else:
            call("cudaGraphLaunch", captured.handle, stream.handle)
        call("cudaEventRecord", end.handle, stream.handle)
        stream.synchronize()
        took.append(elapsed_ns(start, end))
    if captured is not None:
        captured.close()
    return max(1, min(took))
