"""The seam: an engine is a completion queue. The scheduler submits and waits; it knows nothing else of CUDA or of CPUs.

One lane is one execution context with `buffers` buffer sets. A lane serves its requests in the order of submission and
completes them in that order, so the scheduler needs no identity for a request: it keeps one queue a lane.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.load.tensors import Arrays, TensorSpec


class Completion(NamedTuple):
    """One finished request, as its engine saw it.

    Instants are nanoseconds of the engine's `now_ns` clock, phases are nanoseconds. `error` is None or one sentence.
    `buffer` says in which of the lane's buffer sets the outputs lie until the lane's next-but-one submit.
    """

    lane: int
    buffer: int
    completed_ns: int
    h2d_ns: int
    compute_ns: int
    d2h_ns: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryBill:
    """What an engine will take, in bytes, known before anything is allocated. None: this engine cannot tell.

    weights: the engine itself; context: scratch memory of one execution context; device_io and host_io: the buffers of
    one buffer set (host_io is pinned); inputs: all input sets in pinned host memory; free: what the device has free.
    """

    contexts: int
    buffers: int
    weights_bytes: int | None
    context_bytes: int | None
    device_io_bytes: int
    host_io_bytes: int
    inputs_bytes: int
    free_bytes: int | None

    @property
    def device_bytes(self) -> int:
        """Total on the device: weights + contexts × (scratch + buffers × device I/O); what is unknown counts as 0."""
        lane = (self.context_bytes or 0) + self.buffers * self.device_io_bytes
        return (self.weights_bytes or 0) + self.contexts * lane

    @property
    def host_bytes(self) -> int:
        """Total in host memory: contexts × buffers × host I/O + inputs."""
        return self.contexts * self.buffers * self.host_io_bytes + self.inputs_bytes


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, for people and for run.json.

    kind: "tensorrt" | "onnxruntime" | "simulated"; name: what `--engine` said; flavour and version: of the runtime
    ("tensorrt_dispatch", "10.16.1.11"); device: GPU or CPU name; sha256: of the plan's or model's bytes, "" where there
    is no file; batch: inferences in one request; precision: "confirmed FP16", ..., in words, "" when nothing was asked.
    mode: effective settings worth a word each, such as {"graph": "yes", "copies": "yes", "wait": "spin"}.
    notes: sentences the user should read (why a graph could not be captured, what was not knowable).
    """

    kind: str
    name: str
    flavour: str
    version: str
    device: str
    sha256: str
    batch: int
    tensors: tuple[TensorSpec, ...]
    precision: str = ""
    mode: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClockMapping:
    """How GPU instants were put on the host's clock: worst error of an anchor in ns, worst drift between two anchors in
    ns, and how many anchors were taken."""

    error_ns: int
    drift_ns: int
    anchors: int


class Engine(Protocol):
    """Serves requests on lanes. Made by its module's `load_…` function, which reads the model and makes no lane yet."""

    contexts: int
    buffers: int

    @property
    def info(self) -> EngineInfo:
        """What this engine is; `mode` and `notes` are final after `allocate`."""
        ...

    def memory(self, inputs: Sequence[Arrays]) -> MemoryBill:
        """What `allocate` will take. Allocates nothing."""
        ...

    def allocate(self, inputs: Sequence[Arrays]) -> None:
        """Make the lanes: contexts, streams, buffers, graphs; upload what can be uploaded. Raises EngineError."""
        ...

    def now_ns(self) -> int:
        """This engine's clock: perf_counter_ns on a real engine, virtual on a simulated one. Never goes back."""
        ...

    def submit(self, lane: int, inputs: int) -> None:
        """Enqueue one request on `lane` with input set number `inputs`. Never blocks.

        The caller keeps at most `buffers` requests in flight a lane. Raises EngineError when the enqueue itself fails.
        """
        ...

    async def wait(self, until_ns: int) -> Sequence[Completion]:
        """What has finished since the last call, in order within each lane; returns at `until_ns` at the latest.

        Returns as soon as there is anything. Gives the event loop a turn at least every millisecond, so that cancelling
        works. `until_ns` in the past asks for what is there already.
        """
        ...

    def outputs(self, lane: int, buffer: int) -> Arrays:
        """Output arrays of the request that last completed in this buffer set; valid until it is used again."""
        ...

    def clock_mapping(self) -> ClockMapping | None:
        """None where completions are stamped on the host's clock to begin with."""
        ...

    def close(self) -> None:
        """Free everything, in order. Safe to call twice, and after a failed `allocate`."""
        ...
