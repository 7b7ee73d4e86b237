"""What the requests of a lane are, and the memory and the events of one of them in flight."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from loadtrt.cuda.memory import DeviceBuffer, PinnedBuffer
from loadtrt.cuda.runtime import close_all
from loadtrt.cuda.stream import Event
from loadtrt.errors import CudaError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadtrt.cuda.runtime import Closes
    from loadtrt.load.tensors import TensorSpec


class LanePart(NamedTuple):
    """Requests of one kind, and the context that serves them. bind(name, address), enqueue(stream) and reason() are the
    context's; addresses: the pinned input sets, by tensor name."""

    tensors: Sequence[TensorSpec]
    bind: Callable[[str, int], None]
    enqueue: Callable[[int], bool]
    reason: Callable[[], str]
    addresses: Sequence[Mapping[str, int]]


class BufferSet:
    """Device memory of every tensor, pinned memory of every output, as large as any part needs, and the events of one
    request. last: the event that completes it."""

    def __init__(self, parts: Sequence[LanePart], copies: bool) -> None:
        self.device: dict[str, DeviceBuffer] = {}
        self.outputs: dict[str, PinnedBuffer] = {}
        self.events: list[Event] = []
        try:
            for spec in parts[0].tensors:
                nbytes = max(it.nbytes for part in parts for it in part.tensors if it.name == spec.name)
                self.device[spec.name] = DeviceBuffer(nbytes)
                if not spec.is_input:
                    self.outputs[spec.name] = PinnedBuffer(nbytes)
            self.events.extend(Event() for _ in range(5))
        except EngineError:
            with suppress(CudaError):  # what went wrong first is what counts
                self.close()
            raise
        # Their handles: what calls take.
        self.h2d_start, self.h2d_end, self.start, self.end, self.d2h_end = (event.handle for event in self.events)
        self.last = self.d2h_end if copies else self.end

    def close(self) -> None:
        owned: list[Closes] = [*self.events, *self.device.values(), *self.outputs.values()]
        self.events = []
        self.device.clear()
        self.outputs.clear()
        close_all(owned)
