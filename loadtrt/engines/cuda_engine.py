"""TensorRT lanes as a completion queue: one thread enqueues for all of them, and events say when requests finished.

NVIDIA's advice for several contexts is one enqueuing thread: more of them contend for the driver's lock.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from operator import itemgetter
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from loadtrt.cuda.buffer_set import LanePart
from loadtrt.cuda.lane import Lane
from loadtrt.cuda.memory import PinnedBuffer
from loadtrt.cuda.runtime import close_all, device_properties, memory_info
from loadtrt.cuda.stream import GpuClock, Stream
from loadtrt.engines.engine import Completion
from loadtrt.engines.looks import Looks, wake_on_time
from loadtrt.engines.plan import build_facts
from loadtrt.errors import CudaError
from loadtrt.measure.facts import ClockMapping, EngineInfo, MemoryBill

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.cuda.runtime import Closes
    from loadtrt.engines.plan_profile import Profiled, ProfileLength, Watch
    from loadtrt.engines.shapes import EngineOptions
    from loadtrt.engines.tensorrt import Plan, PlanContext
    from loadtrt.load.tensors import Arrays, TensorSpec

# How often the event loop gets a turn, which asks the kernel: as seldom as Ctrl-C and a run's end allow.
_TURN_NS = 50_000_000
_COMPLETED = itemgetter(Completion._fields.index("completed_ns"))
_completion = tuple.__new__  # a NamedTuple's own constructor takes several times as long


def load_tensorrt(config: EngineOptions) -> TensorRTEngine:
    """The engine of a plan: deserialized, its shapes decided, no lanes yet. Raises UsageError and EngineError."""
    from loadtrt.engines.tensorrt import load_plan

    return TensorRTEngine(load_plan(config), config)


class TensorRTEngine:
    """The Engine protocol over a plan."""

    def __init__(self, plan: Plan, config: EngineOptions) -> None:
        self.contexts, self.buffers, self.per_launch = config.contexts, config.buffers, config.requests_per_launch
        self._plan = plan
        self._config = config
        self.parts = tuple(part.tensors for part in plan.parts)
        self.batches = tuple(part.batch for part in plan.parts)
        self._lanes: list[Lane] = []
        self._contexts: list[PlanContext] = []
        self._streams: list[Stream] = []
        self._inputs: list[dict[str, PinnedBuffer]] = []
        self._clock: GpuClock | None = None
        self._looks = Looks(config.contexts) if config.wait == "block" else None
        self._turn_ns = 0
        self.now_ns = perf_counter_ns
        digest = plan.header.sha256
        build, wrong = build_facts(plan.header.path, digest)
        self.info = EngineInfo(
            kind="tensorrt",
            name=config.engine,
            flavour=plan.flavour.name,
            version=plan.flavour.version,
            device=device_properties(config.device).name,
            sha256=digest,
            batch=plan.batch,
            tensors=plan.tensors,
            precision=_precision(plan.precision, build),
            mode=self._mode(),
            notes=(*plan.notes, *wrong),
            build=build,
        )

    def _mode(self) -> dict[str, str]:
        graphs = [lane.graph_refusal for lane in self._lanes]
        refused = next((refusal for refusal in graphs if refusal), "")
        graph = "yes" if self._config.graph and not refused else "no"
        mode = {"graph": graph, "copies": "yes" if self._config.copies else "no", "wait": self._config.wait}
        return mode if self.per_launch == 1 else mode | {"requests per launch": str(self.per_launch)}

    def memory(self, inputs: Sequence[Arrays]) -> MemoryBill:
        """As the protocol says; device memory that is free now."""
        moved = [spec for spec in _largest_each(self.parts) if not spec.shape_values]
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
        """As the protocol says. Graph capture that fails is no error: `info` then says graph no, and why."""
        sets = len(inputs) // len(self.parts)
        addresses = [self._pin(arrays, self.parts[number // sets]) for number, arrays in enumerate(inputs)]
        for _ in range(self.contexts):
            stream = Stream()
            self._streams.append(stream)
            graph, parts = self._config.graph, []
            for number, tensors in enumerate(self.parts):
                context = self._plan.context(int(stream), number)
                self._contexts.append(context)
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
                )
            )
        self._clock = GpuClock()
        self._clock.take_anchor()
        if self._looks is not None:
            wake_on_time()
        self.info = replace(self.info, mode=self._mode(), notes=(*self.info.notes, *self._notes()))

    def _notes(self) -> Iterator[str]:
        refusals = {lane.graph_refusal for lane in self._lanes} - {"", "not asked for"}
        yield from (f"no CUDA graph: {refusal}" for refusal in sorted(refusals))
        if self.per_launch > 1 and any(lane.together for lane in self._lanes):
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
        """As the protocol says: one CUDA call on the calling thread, or a few (cuda/lane.py)."""
        self._lanes[lane].submit(inputs)
        if self._looks is not None:
            self._looks.sent(lane, perf_counter_ns(), self.per_launch)

    async def wait(self, until_ns: int, *, soon: bool = True) -> Sequence[Completion]:
        """As the protocol says. Spinning polls events, with nothing in flight too: a core that slept wakes late and
        with cold caches, which bursts after a pause show. Blocking sleeps between looks (engines/looks.py)."""
        assert self._clock is not None  # noqa: S101  # allocate() was called
        if perf_counter_ns() >= self._clock.due_ns:
            self._clock.take_anchor()
        while True:
            if perf_counter_ns() - self._turn_ns > _TURN_NS:
                await anyio.lowlevel.checkpoint()  # before anything is found: a cancelled caller would lose it
                self._turn_ns = perf_counter_ns()
            found = self._poll()
            now = perf_counter_ns()
            if self._looks is not None:
                self._looks.looked(now, found)
            if found or now >= until_ns:
                return found
            if self._looks is not None:
                look_ns = min(until_ns, self._turn_ns + _TURN_NS, self._looks.next_ns if soon else until_ns)
                time.sleep(max(look_ns - now, 0) / 1e9)  # short; an event loop's timers are too late

    def _poll(self) -> list[Completion]:
        """What has finished, in the order of time. An error on the way is raised once nothing found is lost by it."""
        found: list[Completion] = []
        clock = self._clock
        assert clock is not None  # noqa: S101  # allocate() was called
        try:
            for number, lane in enumerate(self._lanes):
                while (finished := lane.poll(clock)) is not None:
                    buffer, completed, h2d, compute, d2h = finished
                    found.append(_completion(Completion, (number, buffer, completed, h2d, compute, d2h, None)))
                    if self.per_launch == 1 and self._looks is None:
                        break  # its next one is seldom done by now, and to ask costs a microsecond
        except CudaError:
            if not found:  # the device has failed for good: the next poll meets the same error
                raise
        if len(found) > 1:
            found.sort(key=_COMPLETED)
        return found

    def outputs(self, lane: int, buffer: int) -> Arrays:
        """As the protocol says. With copies off they are fetched from the device now."""
        return self._lanes[lane].outputs(buffer)

    def profile(self, inputs: Arrays, length: ProfileLength, profiled: Profiled, watch: Watch) -> None:
        """As TellsLayers says."""
        from loadtrt.engines.plan_profile import profile_plan

        profile_plan(self._plan, inputs, length, self._config.graph, profiled, watch)

    def clock_mapping(self) -> ClockMapping | None:
        """How well GPU instants lie on the host's clock."""
        if self._clock is None:
            return None
        return ClockMapping(self._clock.error_ns, self._clock.drift_ns, self._clock.anchors)

    def close(self) -> None:
        """Lanes, contexts, streams, then the engine and its runtime. A device that has failed is let go without a word:
        its failure was raised where it was found."""
        pinned = [buffer for arrays in self._inputs for buffer in arrays.values()]
        owned: list[Closes] = [*self._lanes, *self._contexts, *self._streams, *pinned, self._plan]
        if self._clock is not None:
            owned.insert(0, self._clock)
        self._clock = None
        self._lanes, self._contexts, self._streams, self._inputs = [], [], [], []
        with suppress(CudaError):
            close_all(owned)


def _largest_each(parts: Sequence[Sequence[TensorSpec]]) -> list[TensorSpec]:
    """Each tensor as large as any part has it: what a buffer set holds."""
    return [max(same, key=lambda spec: spec.nbytes) for same in zip(*parts, strict=True)]


def _precision(verdict: str, build: dict[str, Any] | None) -> str:
    """The verdict on --fp16; where TensorRT cannot give one, with what the build was asked for."""
    asked = build["precision"] if build and verdict.startswith("not knowable") else ""
    return f"{verdict}; its build says: {asked}" if asked else verdict
