"""Where the contexts of a plan compute: each on the whole GPU, or on its partition of the SMs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from loadtrt.cuda.runtime import close_all, device_properties
from loadtrt.cuda.stream import Stream
from loadtrt.errors import CudaError
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.asked.model import Model
    from loadtrt.cuda.partitions import Partitions
    from loadtrt.engines.context import PlanContext


class Placement:
    """The partitions that --partitions and --sms ask for; without these, nothing.

    mode: of EngineInfo; notes: sentences for the user.
    """

    def __init__(self, config: Model | None = None) -> None:
        """Make the partitions that a model asks for. Raises EngineError."""
        self.mode: dict[str, str] = {}
        self.notes: list[str] = []
        self._partitions: Partitions | None = None
        if config is None or (config.partitions == 1 and config.sms is None):
            return
        from loadtrt.cuda.partitions import Partitions

        device = device_properties(config.device)
        self._partitions = made = Partitions(device, config.partitions, config.sms)
        self.mode = {"partitions": made.text}
        if config.sms not in (None, made.sms):
            self.notes.append(f"--sms {config.sms} is {made.sms} SMs here, as {device.name} rounds partitions up")

    def stream_maker(self, context: int) -> Callable[[], Stream]:
        """What makes the streams on which a context computes; those that only copy are plain ones (cuda/lane.py)."""
        return Stream if self._partitions is None else self._partitions.stream_maker(context)

    def place(self, context: PlanContext, make_stream: Callable[[], Stream]) -> list[Stream]:
        """Streams for the branches of the plan that compute side by side: TensorRT makes its own on the whole GPU. The
        context must be closed before them. Raises CudaError."""
        if self._partitions is None:
            return []
        count = context.auxiliary_streams
        if count and not context.takes_streams:
            escapes = f"this TensorRT makes {plural(count, 'auxiliary stream')} of each context on the whole GPU: "
            note = f"{escapes}that part of its work leaves the partition"
            self.notes += [] if note in self.notes else [note]
            return []
        streams: list[Stream] = []
        try:
            streams.extend(make_stream() for _ in range(count))
            if streams:
                context.compute_on([int(stream) for stream in streams])
        except BaseException:
            with suppress(CudaError):  # the first failure is the one to report
                close_all(streams)
            raise
        return streams

    def close(self) -> None:
        """Destroy the partitions, after all streams on them. Safe to call twice."""
        partitions, self._partitions = self._partitions, None
        if partitions is not None:
            partitions.close()
