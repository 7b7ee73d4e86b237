"""The seam between scheduler and engines: an engine is a completion queue, with `submit` and `wait`.

One lane is one execution context, where at most `buffers` submits are in flight. A lane completes its requests in the
order of submission, so that the scheduler needs no identity for a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from loadtrt.loop.device import Completion as Completion  # noqa: PLC0414, TC001  # engines make them

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.engines.clock import Clock
    from loadtrt.engines.waiting import Wakeup
    from loadtrt.errors import EngineError
    from loadtrt.load.tensors import Arrays, TensorSpec
    from loadtrt.loop.device import Device
    from loadtrt.results.engine_info import ClockMapping, EngineInfo, MemoryBill


class Engine(Protocol):
    """Serves requests on lanes. The `load_…` function of its module reads the model; `allocate` makes the lanes.

    contexts: number of lanes.
    buffers: submits in flight on a lane at most.
    per_launch: requests of one submit.
    """

    contexts: int
    buffers: int
    per_launch: int

    @property
    def parts(self) -> Sequence[Sequence[TensorSpec]]:
        """The tensors of each part of the configuration (`RunConfig.parts`)."""

    @property
    def batches(self) -> Sequence[int]:
        """Inferences of a request of each part."""

    @property
    def info(self) -> EngineInfo:
        """Facts about the engine; its `tensors` are those of the largest part. Final after `allocate`."""

    def memory(self, inputs: Sequence[Arrays]) -> MemoryBill:
        """The memory that `allocate` will take."""

    def allocate(self, inputs: Sequence[Arrays]) -> None:
        """Make the lanes: contexts, streams, buffers, graphs. Raises EngineError.

        inputs: the input sets, equally many for each part, those of the first part first.
        """

    def now_ns(self) -> int:
        """The engine's clock: perf_counter_ns, or virtual time where the engine is simulated in it. Never goes back."""

    def submit(self, lane: int, inputs: int) -> None:
        """Enqueue `per_launch` requests on `lane`, with input set `inputs` and those that follow it in turn.

        Never blocks. Raises EngineError where the enqueue fails, or where `buffers` submits are in flight on the lane
        already (simulated:null does not check).
        """

    async def wait(self, until_ns: int, *, soon: bool = True) -> Sequence[Completion]:
        """The requests that have finished since the last call, in order within each lane.

        Returns as soon as there is one, or a little later where it sleeps, and at `until_ns` at the latest; with
        `until_ns` in the past at once. Without `soon`, completions do not matter before `until_ns`, and an engine that
        sleeps may sleep until then. Gives the event loop a turn every 20 to 50 ms, so that it can be cancelled.
        """

    def outputs(self, lane: int, buffer: int) -> Arrays:
        """The outputs of the request that last completed in this buffer set; valid until the set is used again."""

    def clock_mapping(self) -> ClockMapping | None:
        """How the device's clock maps to the host's; None where completions are stamped with the host's clock."""

    def close(self) -> None:
        """Free everything. Safe to call twice, and after a failed `allocate`."""


@runtime_checkable
class Spins(Protocol):
    """An engine whose requests `loop.device.spin` may submit and poll, instead of `submit` and `wait`."""

    def spins(self) -> Device | None:
        """What to drive; None where this run has to be driven by `submit` and `wait`."""

    async def turn(self) -> int:
        """Do what the engine does from time to time, and give the event loop a turn. Returns until when `spin` may go
        on without that."""

    def error_of(self, fault: int) -> EngineError:
        """The error that `spin` left in FAULT."""


@runtime_checkable
class Shares(Protocol):
    """An engine that says when to look at it, so that one loop can sleep for several. Another one is asked all the
    time.

    wakeup: what its threads notify; None where it has none.
    clock: of a simulated engine; None for others, whose clock is time.perf_counter_ns.
    """

    @property
    def wakeup(self) -> Wakeup | None: ...

    @property
    def clock(self) -> Clock | None: ...

    def next_look(self, *, soon: bool) -> int:
        """The instant at which a request may have finished, that `wait` returns then: in the past where one has, NEVER
        where a thread will notify. soon: as for `wait`."""


@runtime_checkable
class Submits(Protocol):
    """An engine that may have several ways of submitting a request.

    ways: their names, the usual one first, once lanes are allocated.
    way: number of the way that was chosen; None where none was.
    """

    ways: Sequence[str]
    way: int | None

    def use(self, way: int | None, rates: Mapping[str, float | None]) -> None:
        """Submit in this way from now on, in the usual one where none is chosen. Nothing may be in flight. rates: those
        of all ways by their names, for `EngineInfo.submit_rates`; empty where they are not known."""
