"""Where the contexts of a plan compute, on the whole GPU or on a part of its SMs, and by which priority."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from loadtrt.asked.fields import priority_number
from loadtrt.cuda.partitions import Partitions, Share, split
from loadtrt.cuda.runtime import call, closed_on_failure, device_properties
from loadtrt.cuda.stream import captured_kernels
from loadtrt.errors import EngineError, UsageError
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtrt.asked.model import Model
    from loadtrt.cuda.runtime import DeviceProperties
    from loadtrt.cuda.stream import Stream


class TakesStreams(Protocol):
    """An execution context that may compute on streams beside that of its enqueue."""

    @property
    def auxiliary_streams(self) -> int: ...

    @property
    def takes_streams(self) -> bool: ...

    def compute_on(self, streams: list[int]) -> None: ...


class Placement:
    """The share of a GPU that a model has; without one, nothing.

    priority: of its streams; None for that of plain streams.
    mode: of EngineInfo.
    notes: sentences for the user.
    """

    def __init__(self, partitions: Partitions | None = None, priority: int | None = None) -> None:
        self.priority = priority
        self.mode: dict[str, str] = {} if partitions is None else {"partitions": partitions.text}
        self.notes: list[str] = []
        self._partitions = partitions
        self._captured = self._outside = 0  # kernels

    @property
    def sms(self) -> int | None:
        """SMs of each partition; None for all SMs of the GPU."""
        return None if self._partitions is None else self._partitions.sms

    def stream_maker(self, context: int) -> Callable[[], Stream]:
        """What makes the streams on which a context computes; those that only copy are plain ones (cuda/lane.py)."""
        partitions = self._partitions or Partitions(0)
        return partitions.stream_maker(context, self.priority)

    def place(self, context: TakesStreams, make_stream: Callable[[], Stream]) -> list[Stream]:
        """Streams for the branches of the plan that compute side by side: TensorRT makes its own, of the usual priority
        and on the whole GPU. The context must be closed before them. Raises CudaError."""
        count = context.auxiliary_streams
        if not count or (self._partitions is None and self.priority is None):
            return []
        if not context.takes_streams:
            self.mode["auxiliary streams"] = f"{count} outside"
            lost = "has the priority of plain streams" if self._partitions is None else "leaves the partition"
            made = f"this TensorRT makes {plural(count, 'auxiliary stream')} of each context itself"
            note = f"{made}: that part of its work {lost}"
            self.notes += [] if note in self.notes else [note]
            return []
        streams: list[Stream] = []
        for _ in range(count):
            with closed_on_failure(*streams):
                streams.append(make_stream())
        with closed_on_failure(*streams):
            context.compute_on([int(stream) for stream in streams])
        return streams

    def look(self, graph: Any) -> None:
        """Count the kernels of a graph that was captured for a lane which are not where and as urgent as the others: on
        streams that TensorRT makes inside (Myelin's). Where CUDA does not tell, nothing is said."""
        if self._partitions is None and self.priority is None:
            return
        try:
            kernels = captured_kernels(graph)
        except Exception:  # of whatever kind: it is for a note, and other bindings may tell it otherwise
            return
        ((usual, _),) = Counter(kernels).most_common(1) or [((0, 0), 0)]
        self._captured += len(kernels)
        self._outside += sum(kernel != usual for kernel in kernels)
        if self._outside:
            self.mode["kernels outside"] = f"{self._outside} of {self._captured}"

    def close(self) -> None:
        """Destroy the partitions, after all streams on them. Safe to call twice."""
        partitions, self._partitions = self._partitions, None
        if partitions is not None:
            partitions.close()


def placements(models: Mapping[str, Model]) -> dict[str, Placement]:
    """The share of the GPU of each model of a run, by its name: one split of the GPU's SMs for all, where one asks for
    any. Raises EngineError, and UsageError where options contradict each other."""
    shares = {name: Share(model.partitions, model.sms) for name, model in models.items()}
    parted = any(share.asks for share in shares.values())
    if not parted and all(model.priority is None for model in models.values()):
        return {name: Placement() for name in models}
    several = len(models) > 1
    for name, share in shares.items() if several else ():
        if share.count > 1 and share.sms is None:
            raise UsageError(
                f"--partitions {share.count} of {name}: in a run of several models give --sms, too, such as --sms 8"
            )
    device = device_properties(next(iter(models.values())).device)
    priorities = {
        name: None if model.priority is None else _priority(device, model.priority) for name, model in models.items()
    }
    parts = split(device, shares) if parted else {}
    made = {name: Placement(parts.get(name), priorities[name]) for name in models}
    for name, model in models.items():
        placement, sms = made[name], model.sms
        if placement.priority is not None:
            least, greatest = _range()
            word = f"{model.priority}, " if isinstance(model.priority, str) else ""
            placement.mode["priority"] = f"{word}{placement.priority} of {least} to {greatest}"
        if isinstance(sms, int) and sms != parts[name].sms:
            placement.notes.append(f"--sms {sms} is {parts[name].sms} SMs here, as {device.name} rounds partitions up")
        elif isinstance(sms, str):
            placement.notes.append(f"--sms {sms} is {parts[name].sms} of {device.multiprocessors} SMs here")
        elif several and parted and sms is None:
            placement.notes.append(f"no --sms: these are the {parts[name].sms} SMs that the partitions of others leave")
    return made


def _range() -> tuple[int, int]:
    """The numbers of the least and the greatest priority."""
    least, greatest = call("cudaDeviceGetStreamPriorityRange")
    return int(least), int(greatest)


def _priority(device: DeviceProperties, asked: int | str) -> int:
    least, greatest = _range()
    if least == greatest:
        raise EngineError(f"{device.name} has one priority for all streams: leave --priority out")
    number = priority_number(asked, least, greatest)
    if number is None:
        raise EngineError(f"--priority {asked}: {device.name} has {least}, the least, to {greatest}, the greatest")
    return number
