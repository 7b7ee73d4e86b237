"""Lanes of a GPU as a completion queue: one thread enqueues for all lanes and polls their events.

NVIDIA advises one enqueuing thread for several contexts: several threads contend for the driver's lock.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Protocol

import anyio.lowlevel

from loadtrt.cuda.completion_queue import CompletionQueue
from loadtrt.cuda.driver import error_of_fault
from loadtrt.cuda.lane import Lane, LanePart
from loadtrt.cuda.memory import PinnedBuffer
from loadtrt.cuda.program import MOST_GRAPHS
from loadtrt.cuda.runtime import close_all, hardware_queues, memory_info
from loadtrt.cuda.stream import GpuClock
from loadtrt.engines.placement import Placement, TakesStreams, placements
from loadtrt.engines.waiting import PollTimes, wake_on_time
from loadtrt.errors import CudaError
from loadtrt.loop.compiled import is_compiled
from loadtrt.results.engine_info import ClockMapping, MemoryBill
from loadtrt.units import NEVER, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from loadtrt.asked.model import Model
    from loadtrt.cuda.runtime import Closes
    from loadtrt.cuda.stream import Stream
    from loadtrt.engines.engine import Completion
    from loadtrt.load.tensors import Arrays, TensorSpec
    from loadtrt.loop.device import Device
    from loadtrt.results.engine_info import EngineInfo

# How often the event loop gets a turn. A turn costs system calls, so it is as seldom as Ctrl-C and a run's end allow.
_TURN_NS = 50_000_000
_SPIN_NS = 100_000_000  # of machine code: Python is cold after it, and a turn takes longer than many a request


class Context(TakesStreams, Protocol):
    """What computes requests of one part of an engine, on one lane: see engines/context.py."""

    @property
    def enqueue(self) -> Callable[[int], bool]: ...

    def bind(self, name: str, address: int) -> None: ...

    def reason(self) -> str: ...

    def capturable(self, stream: int) -> bool | None: ...

    def close(self) -> None: ...


class Source(Protocol):
    """What makes the contexts of an engine: see engines/tensorrt.py.

    weights_bytes, context_bytes: device memory of the engine and of one context; None where it is not known.
    """

    @property
    def weights_bytes(self) -> int | None: ...

    @property
    def context_bytes(self) -> int | None: ...

    def context(self, stream: int, part: int = 0) -> Context: ...

    def close(self) -> None: ...


class CudaEngine:
    """The Engine protocol over contexts that enqueue their work on streams of a GPU."""

    wakeup = clock = None

    def __init__(
        self, source: Source, config: Model, parts: Sequence[tuple[TensorSpec, ...]], batches: Sequence[int]
    ) -> None:
        """parts: the tensors of a request of each part.

        batches: inferences of a request of each part.
        """
        self.contexts, self.buffers, self.per_launch = config.contexts, config.buffers, config.requests_per_launch
        self.asked = config
        self._source = source
        self.parts, self.batches = tuple(parts), tuple(batches)
        self._lanes: list[Lane] = []
        self._contexts: list[Context] = []
        self._streams: list[Stream] = []
        self._placement: Placement | None = None
        self._inputs: list[dict[str, PinnedBuffer]] = []
        self._clock: GpuClock | None = None
        self._queue: CompletionQueue | None = None
        self.ways: tuple[str, ...] = ()
        self.way: int | None = None
        self._looks = PollTimes(config.contexts) if config.wait == "block" else None
        self._turn_ns = 0
        self.now_ns = perf_counter_ns
        self.info: EngineInfo

    def place(self, placement: Placement) -> None:
        """Compute there, and close the placement at last. Before lanes are allocated; else a placement is made then."""
        self._placement = placement

    def _placed(self) -> Placement:
        if self._placement is None:
            self._placement = placements({self.asked.engine: self.asked})[self.asked.engine]
        return self._placement

    def _mode(self) -> dict[str, str]:
        graphs = [lane.graph_refusal for lane in self._lanes]
        refused = next((refusal for refusal in graphs if refusal), "")
        graph = "yes" if self.asked.graph and not refused else "no"
        mode = {"graph": graph, "copies": "yes" if self.asked.copies else "no", "wait": self.asked.wait}
        if self._queue is not None:
            mode |= {"submit": self.ways[self.way or 0]} if graph == "yes" and self.asked.copies else {}
            compiled = self.spins() is not None and self.asked.batcher is None and is_compiled()
            mode["loop"] = "compiled" if compiled else "python"
        mode |= {"hardware queues": str(hardware_queues())}
        mode |= {"device times": "off"} if self.asked.device_times == "off" else {}
        mode |= self._placement.mode if self._placement is not None else {}
        return mode if self.per_launch == 1 else mode | {"requests per launch": str(self.per_launch)}

    def memory(self, inputs: Sequence[Arrays]) -> MemoryBill:
        """See Engine."""
        largest = [max(same, key=lambda spec: spec.nbytes) for same in zip(*self.parts, strict=True)]  # of all parts
        moved = [spec for spec in largest if not spec.shape_values]
        scratch = self._source.context_bytes
        return MemoryBill(
            contexts=self.contexts,
            buffers=self.buffers * self.per_launch,
            weights_bytes=self._source.weights_bytes,
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
        placement = self._placed()
        for lane in range(self.contexts):
            make_stream = placement.stream_maker(lane)
            stream = make_stream()
            self._streams.append(stream)
            graph, parts = self.asked.graph, []
            for number, tensors in enumerate(self.parts):
                context = self._source.context(int(stream), number)
                self._contexts.append(context)
                self._streams += placement.place(context, make_stream)
                graph = graph and context.capturable(int(stream)) is not False
                of_part = addresses[number * sets : (number + 1) * sets]
                parts.append(LanePart(tensors, context.bind, context.enqueue, context.reason, of_part))
            self._lanes.append(
                Lane(
                    parts,
                    self.buffers,
                    stream=stream,
                    graph=graph,
                    copies=self.asked.copies,
                    per_launch=self.per_launch,
                    lanes=self.contexts,
                    submit=self.asked.submit,
                    times=self.asked.device_times == "on",
                    make_stream=make_stream,
                    look=placement.look,
                )
            )
            if self.asked.graph and not graph:
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
        yield from self._placed().notes
        assert self._queue is not None  # noqa: S101  # allocate() was called
        shape = self._queue.shapes[self.way or 0]
        if not refusals and self.asked.submit not in ("auto", shape.way):
            sets = f"{plural(len(self._inputs), 'input set')} and {plural(self.buffers, 'buffer')}"
            needs = f"a context would need a CUDA graph for each of {sets}, which is more than {MOST_GRAPHS}"
            yield f"--submit {self.asked.submit} is not possible: {needs}"
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

    def clock_mapping(self) -> ClockMapping | None:
        """The accuracy of the GPU's clock."""
        if self._clock is None:
            return None
        return ClockMapping(self._clock.error_ns, self._clock.drift_ns, self._clock.anchors)

    def close(self) -> None:
        """Free lanes, contexts, streams, the engine with its runtime, then partitions. Errors of a failed device are
        ignored: its failure was raised where it was noticed."""
        pinned = [buffer for arrays in self._inputs for buffer in arrays.values()]
        owned: list[Closes] = [*self._lanes, *self._contexts, *self._streams, self._source, *pinned]
        owned[:0] = filter(None, (self._clock, self._queue))
        owned += filter(None, (self._placement,))  # what the engine has loaded into its partitions is unloaded before
        self._clock = self._queue = self._placement = None
        self._lanes, self._contexts, self._streams, self._inputs = [], [], [], []
        with suppress(CudaError):
            close_all(owned)
