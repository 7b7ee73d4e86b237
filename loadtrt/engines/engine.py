"""The seam: an engine is a completion queue. The scheduler submits and waits; it knows nothing else of CUDA or of CPUs.

One lane is one execution context, where `buffers` submits may be in flight. A lane serves its requests in the order of
submission and completes them in that order, so the scheduler needs no identity for a request: it keeps one queue a
lane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.load.tensors import Arrays, TensorSpec
    from loadtrt.measure.facts import ClockMapping, EngineInfo, MemoryBill


class Completion(NamedTuple):
    """One finished request, as its engine saw it.

    Instants are nanoseconds of the engine's `now_ns` clock, phases are nanoseconds. `error` is None or one sentence.
    `buffer` says in which of the lane's buffer sets the outputs lie until that set is used again.
    """

    lane: int
    buffer: int
    completed_ns: int
    h2d_ns: int
    compute_ns: int
    d2h_ns: int
    error: str | None = None


class Engine(Protocol):
    """Serves requests on lanes. Made by its module's `load_…` function, which reads the model and makes no lane yet."""

    contexts: int
    buffers: int
    per_launch: int  # requests of one submit; `buffers` times as many are in flight on a lane at most

    @property
    def parts(self) -> Sequence[Sequence[TensorSpec]]:
        """The tensors of each part of the configuration (`Model.parts`); `info` tells those of the largest."""
        ...

    @property
    def batches(self) -> Sequence[int]:
        """Inferences in a request of each part."""
        ...

    @property
    def info(self) -> EngineInfo:
        """What this engine is; `mode` and `notes` are final after `allocate`."""
        ...

    def memory(self, inputs: Sequence[Arrays]) -> MemoryBill:
        """What `allocate` will take. Allocates nothing."""
        ...

    def allocate(self, inputs: Sequence[Arrays]) -> None:
        """Make the lanes: contexts, streams, buffers, graphs; upload what can be uploaded. Raises EngineError.

        inputs: as many sets for each part, those of the first part first."""
        ...

    def now_ns(self) -> int:
        """This engine's clock: perf_counter_ns, unless it is simulated in virtual time. Never goes back."""
        ...

    def submit(self, lane: int, inputs: int) -> None:
        """Enqueue `per_launch` requests on `lane`, with input set number `inputs` and those that follow it in turn.
        Never blocks.

        The caller keeps at most `buffers` submits in flight a lane. Raises EngineError when the enqueue itself fails,
        or when there is no free buffer set (simulated:null does not look).
        """
        ...

    async def wait(self, until_ns: int, *, soon: bool = True) -> Sequence[Completion]:
        """What has finished since the last call, in order within each lane; returns at `until_ns` at the latest.

        Returns as soon as there is anything, or a little later where it sleeps; without `soon`, nobody needs to know
        before `until_ns`, and what sleeps may go on sleeping. Gives the event loop a turn every 20 to 50 ms, so that
        cancelling works. `until_ns` in the past asks for what is there already.
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
