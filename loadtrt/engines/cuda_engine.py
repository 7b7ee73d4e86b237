"""TensorRT lanes as a completion queue: one thread enqueues for all lanes and polls their events.

NVIDIA advises one enqueuing thread for several contexts: several threads contend for the driver's lock.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from loadtrt.cuda.completion_queue import CompletionQueue
from loadtrt.cuda.driver import error_of_fault
from loadtrt.cuda.lane import Lane, LanePart
from loadtrt.cuda.memory import PinnedBuffer
from loadtrt.cuda.program import MOST_GRAPHS
from loadtrt.cuda.runtime import close_all, device_properties, memory_info
from loadtrt.cuda.stream import GpuClock
from loadtrt.engines.placement import Placement
from loadtrt.engines.plan import build_of
from loadtrt.engines.waiting import Looks, wake_on_time
from loadtrt.errors import CudaError
from loadtrt.loop.compiled import is_compiled
from loadtrt.results.engine_info import ClockMapping, EngineInfo, MemoryBill
from loadtrt.units import NEVER, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.asked.model import Model
    from loadtrt.cuda.runtime import Closes
    from loadtrt.cuda.stream import Stream
    from loadtrt.engines.engine import Completion
    from loadtrt.engines.plan_profile import Profiled, ProfileLength, Watch
    from loadtrt.engines.tensorrt import Plan, PlanContext
    from loadtrt.load.tensors import Arrays, TensorSpec
    from loadtrt.loop.device import Device

# How often the event loop gets a turn. A turn costs system calls, so it is as seldom as Ctrl-C and a run's end allow.
_TURN_NS = 50_000_000
_SPIN_NS = 100_000_000  # of machine code: Python is cold after it, and a turn takes longer than many a request


def load_tensorrt(config: Model) -> TensorRTEngine:
    """The engine of a plan: deserialized, its shapes decided, no lanes yet. Raises UsageError and EngineError."""
    from loadtrt.engines.tensorrt import load_plan

    return TensorRTEngine(load_plan(config), config)


class TensorRTEngine:
    """The Engine protocol over a plan."""

    wakeup = clock = None

    def __init__(self, plan: Plan, config: Model) -> None:
        self.contexts, self.buffers, self.per_launch = config.contexts, config.buffers, config.requests_per_launch
        self._plan = plan
        self._config = config
        self.batches = tuple(part.batch for part in plan.parts)
        self._lanes: list[Lane] = []
        self._contexts: list[PlanContext] = []
        self._streams: list[Stream] = []
        self._placement = Placement()
        self._inputs: list[dict[str, PinnedBuffer]] = []
        self._clock: GpuClock | None = None
        self._queue: CompletionQueue | None = None
        self.ways: tuple[str, ...] = ()
        self.way: int | None = None
        self._looks = Looks(config.contexts) if config.wait == "block" else None
        self._turn_ns = 0
        self.now_ns = perf_counter_ns
        digest = plan.header.sha256
        sidecar, wrong = build_of(plan.header.path, digest)
        build, rows = (sidecar.kept, sidecar.rows) if sidecar else (None, {})
        self.parts = tuple(_indexing(part.tensors, rows) for part in plan.parts)
        self._info = EngineInfo(
            kind="tensorrt",
            name=config.engine,
            flavour=plan.flavour.name,
            version=plan.flavour.version,
            device=device_properties(config.device).name,
            sha256=digest,
            batch=plan.batch,
            batch_from=plan.counted.reason,
            larger_batch=plan.larger_batch,
            tensors=_indexing(plan.tensors, rows),
            precision=_precision(plan.precision, build),
            mode=self._mode(),
            notes=(*plan.notes, *wrong),
            build=build,
            conversion=sidecar.conversion if sidecar else None,
        )

    @property
    def info(self) -> EngineInfo:
        """See Engine. With what TensorRT has logged until now."""
        return replace(self._info, log=self._plan.open.logged())

    @info.setter
    def info(self, info: EngineInfo) -> None:
        self._info = info

    def _mode(self) -> dict[str, str]:
        graphs = [lane.graph_refusal for lane in self._lanes]
        refused = next((refusal for refusal in graphs if refusal), "")
        graph = "yes" if self._config.graph and not refused else "no"
        mode = {"graph": graph, "copies": "yes" if self._config.copies else "no", "wait": self._config.wait}
        if self._queue is not None:
            mode |= {"submit": self.ways[self.way or 0]} if graph == "yes" and self._config.copies else {}
            compiled = self.spins() is not None and self._config.batcher is None and is_compiled()
            mode["loop"] = "compiled" if compiled else "python"
        mode |= self._placement.mode
        return mode if self.per_launch == 1 else mode | {"requests per launch": str(self.per_launch)}

    def memory(self, inputs: Sequence[Arrays]) -> MemoryBill:
        """See Engine."""
        largest = [max(same, key=lambda spec: spec.nbytes) for same in zip(*self.parts, strict=True)]  # of all parts
        moved = [spec for spec in largest if not spec.shape_values]
        scratch = self._plan.context_bytes
        return MemoryBill(
            contexts=self.contexts,
            buffers=self.buffers * self.per_launch,
            weights_bytes=self._plan.weights_bytes,
            context_bytes=None if scratch is None else len(self.parts) * scratch,
            device_io_bytes=sum(spec.nbytes for spec in moved),
            host_io_bytes=sum(spec.nbytes for spec in moved if not spec.is_input),
            inputs_bytes=sum(array.nbytes for arrays in inputs for array in arrays.values()),
            free_bytes=memory_info()[0],
        )

    def allocate(self, inputs: Sequence[Arrays]) -> None:
        """See Engine. A refused capture is not an error: requests are enqueued without graph, and `info` says why."""
        sets = len(inputs) // len(self.parts)
        addresses = [self._pin(arrays, self.parts[number // sets]) for number, arrays in enumerate(inputs)]
        self._placement = Placement(self._config)
        for lane in range(self.contexts):
            make_stream = self._placement.stream_maker(lane)
            stream = make_stream()
            self._streams.append(stream)
            graph, parts = self._config.graph, []
            for number, tensors in enumerate(self.parts):
                context = self._plan.context(int(stream), number)
                self._contexts.append(context)
                self._streams += self._placement.place(context, make_stream)
                graph = graph and context.capturable(int(stream)) is not False
                of_part = addresses[number * sets : (number + 1) * sets]
                parts.append(LanePart(tensors, context.bind, context.enqueue, context.reason, of_part))
            self._lanes.append(
                Lane(
                    parts,
                    self.buffers,
                    stream=stream,
                    graph=graph,
                    copies=self._config.copies,
                    per_launch=self.per_launch,
                    lanes=self.contexts,
                    submit=self._config.submit,
                    make_stream=make_stream,
                )
            )
            if self._config.graph and not graph:
                self._lanes[-1].graph_refusal = "TensorRT says that its work cannot be captured"
        self._clock = GpuClock()
        self._queue = CompletionQueue(self._lanes, self._clock)
        self.ways = tuple(shape.way for shape in self._queue.shapes)
        if self._looks is not None:
            wake_on_time()
        self._loaded = self.info
        self.use(None, {})

    def _notes(self) -> Iterator[str]:
        refusals = {lane.graph_refusal for lane in self._lanes} - {"", "not asked for"}
        yield from (f"no CUDA graph: {refusal}" for refusal in sorted(refusals))
        yield from self._placement.notes
        assert self._queue is not None  # noqa: S101  # allocate() was called
        shape = self._queue.shapes[self.way or 0]
        if not refusals and self._config.submit not in ("auto", shape.way):
            sets = f"{plural(len(self._inputs), 'input set')} and {plural(self.buffers, 'buffer')}"
            needs = f"a context would need a CUDA graph for each of {sets}, which is more than {MOST_GRAPHS}"
            yield f"--submit {self._config.submit} is not possible: {needs}"
        if self.per_launch > 1 and shape.copies and shape.way == "graph":
            yield "outputs of a launch are copied together: d2h includes waiting for its other computes"

    def _pin(self, arrays: Arrays, tensors: Sequence[TensorSpec]) -> dict[str, int]:
        import numpy as np

        pinned: dict[str, PinnedBuffer] = {}
        self._inputs.append(pinned)
        for spec in tensors:
            if spec.is_input and not spec.shape_values:
                buffer = pinned[spec.name] = PinnedBuffer(spec.nbytes)
                raw = np.ascontiguousarray(arrays[spec.name]).reshape(-1).view(np.uint8)
                buffer.array(raw.dtype, raw.shape)[...] = raw
        return {name: buffer.address for name, buffer in pinned.items()}

    def submit(self, lane: int, inputs: int) -> None:
        """See Engine. Makes one CUDA call, or a few (cuda/program.py)."""
        assert self._queue is not None  # noqa: S101  # allocate() was called
        self._queue.submit(lane, inputs)
        if self._looks is not None:
            self._looks.sent(lane, perf_counter_ns(), self.per_launch)

    async def wait(self, until_ns: int, *, soon: bool = True) -> Sequence[Completion]:
        """See Engine. A wait that spins polls events, with nothing in flight too: a core that slept wakes late and with
        cold caches, so that a burst after a pause would be late. A wait that blocks sleeps between looks."""
        _, queue = self._anchored()
        while True:
            if perf_counter_ns() - self._turn_ns > _TURN_NS:
                await anyio.lowlevel.checkpoint()  # before the poll: cancelled after it, completions would be lost
                self._turn_ns = perf_counter_ns()
            # A lane's next request has seldom finished by the time its first is found, and a query costs a microsecond.
            completions = queue.poll(several=self.per_launch > 1 or self._looks is not None)
            now = perf_counter_ns()
            if self._looks is not None:
                self._looks.looked(now, completions)
            if completions or now >= until_ns:
                return completions
            if self._looks is not None:
                look_ns = min(until_ns, self._turn_ns + _TURN_NS, self._looks.next_ns if soon else until_ns)
                time.sleep(max(look_ns - now, 0) / 1e9)  # the event loop's timers are too coarse

    def next_look(self, *, soon: bool) -> int:
        """See Shares. A wait that spins looks all the time."""
        if self._looks is None:
            return 0
        return self._looks.next_ns if soon else NEVER

    def _anchored(self) -> tuple[GpuClock, CompletionQueue]:
        """The clock, with an anchor that is not too old, and the lanes."""
        assert self._clock is not None and self._queue is not None  # noqa: PT018, S101  # allocate() was called
        if perf_counter_ns() >= self._clock.due_ns:
            self._queue.take_anchor()
        return self._clock, self._queue

    def spins(self) -> Device | None:
        """See Spins. Work that calls TensorRT itself, and waits that sleep, are left to `submit` and `wait`."""
        if self._queue is None or self._looks is not None or self._queue.arrays is None:
            return None
        self._queue.require_idle()
        return self._queue.arrays

    async def turn(self) -> int:
        """See Spins."""
        clock, _ = self._anchored()
        if perf_counter_ns() - self._turn_ns > _TURN_NS:
            await anyio.lowlevel.checkpoint()
            self._turn_ns = perf_counter_ns()
        return min(clock.due_ns, self._turn_ns + _SPIN_NS)

    def error_of(self, fault: int) -> CudaError:
        """See Spins."""
        return error_of_fault(fault)

    def use(self, way: int | None, rates: Mapping[str, float | None]) -> None:
        """See Submits."""
        assert self._queue is not None  # noqa: S101  # allocate() was called
        self._queue.use(way or 0)
        self.way = way
        notes = (*self._loaded.notes, *self._notes())
        rates = rates or (dict.fromkeys(self.ways) if len(self.ways) > 1 else {})
        self.info = replace(self._loaded, mode=self._mode(), notes=notes, submit_rates=rates)

    def outputs(self, lane: int, buffer: int) -> Arrays:
        """See Engine. Without copies, outputs are fetched from the device now."""
        return self._lanes[lane].outputs(buffer)

    def profile(self, inputs: Arrays, length: ProfileLength, profiled: Profiled, watch: Watch) -> None:
        """See TellsLayers."""
        from loadtrt.engines.plan_profile import profile_plan

        self._placement = Placement(self._config)
        self.info = replace(self.info, mode=self._mode())
        profile_plan(self._plan, inputs, length, self._config.graph, profiled, watch, self._placement)

    def clock_mapping(self) -> ClockMapping | None:
        """The accuracy of the GPU's clock."""
        if self._clock is None:
            return None
        return ClockMapping(self._clock.error_ns, self._clock.drift_ns, self._clock.anchors)

    def close(self) -> None:
        """Free lanes, contexts, streams, then the engine and its runtime. Errors of a failed device are ignored: its
        failure was raised where it was noticed."""
        pinned = [buffer for arrays in self._inputs for buffer in arrays.values()]
        owned: list[Closes] = [*self._lanes, *self._contexts, *self._streams, self._placement, *pinned, self._plan]
        owned[:0] = filter(None, (self._clock, self._queue))
        self._clock = self._queue = None
        self._lanes, self._contexts, self._streams, self._inputs = [], [], [], []
        with suppress(CudaError):
            close_all(owned)


def _indexing(tensors: Sequence[TensorSpec], rows: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    """The tensors, with how many rows the values of inputs may index."""
    return tuple(replace(spec, rows=rows.get(spec.name)) for spec in tensors)


def _precision(verdict: str, build: dict[str, Any] | None) -> str:
    """The verdict on --fp16; where TensorRT cannot give one, with the precision that the build was asked for."""
    allowed = build["precision"] if build and verdict.startswith("not knowable") else ""
    return f"{verdict}; its build: {allowed}" if allowed else verdict
