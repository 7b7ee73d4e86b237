"""The owner of what watches runs: the observer process, the GPU's clocks around them, and who else uses the GPU."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from loadtrt.errors import LoadtrtError
from loadtrt.live.clients import Clients, Own
from loadtrt.live.nvml import clocks_settled, open_gpu
from loadtrt.live.observer import Observer
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.live.nvml import Gpu
    from loadtrt.live.observer import RunFacts, Wishes
    from loadtrt.records.board import Board
    from loadtrt.results.gpu_telemetry import GpuSharing, GpuTelemetry


class Watch:
    """The owner of an observer process and of the GPU's clocks, for one run or for many. No fault of theirs ends a run.

    observer: None where nothing is observed, or the process failed.
    clocks: the GPU's clocks around the last run.
    sharing: who else used the GPU during the last run; None where there is none.
    """

    def __init__(
        self, wishes: Wishes | None, say: Callable[[str], None], own: Own | None = None, models: int = 1
    ) -> None:
        """Start the process, before the engine is loaded. Raises UsageError for metrics that cannot be served.

        wishes: None: only the clocks are read, and who uses the GPU is asked before and after.
        say: takes a sentence for the user.
        own: how to recognize this process among those that use the GPU; None: by its id.
        models: of a run.
        """
        self._say = say
        self._gpu: Gpu | None = None
        self._samples = False
        self._shows = wishes is not None and wishes.follows
        self._own = own or Own((os.getpid(),))
        self._clients: Clients | None = None
        self.clocks = Clocks(None)
        self.sharing: GpuSharing | None = None
        self.observer = None if wishes is None else Observer(wishes, models)
        if self.observer is not None and wishes is not None and (wishes.metrics or wishes.push):
            try:
                self.observer.ready()
            except BaseException:
                self.close()
                raise

    @property
    def uuid(self) -> str:
        """Of the GPU; "" where there is none, or NVML does not tell."""
        return (self._gpu.uuid if self._gpu is not None else None) or ""

    @property
    def boards(self) -> list[Board]:
        """Where a run writes its rows, one for each model; none where no observer reads them."""
        return self.observer.boards if self.observer is not None and self._shows else []

    def open(self, bus_id: str | None, *, telemetry: bool = True) -> None:
        """The engine is loaded. bus_id: its GPU's; None without one. telemetry: sample that GPU during runs."""
        why = ""
        if bus_id is not None:
            self._gpu, why = open_gpu(bus_id)
        if why:
            self._say(f"{'no GPU telemetry, and ' if telemetry else ''}who else uses the GPU is not known: {why}")
        samples = telemetry and self._gpu is not None
        if self.observer is None:
            return
        if not (samples or self._shows):
            self._drop("")
            return
        try:
            self.observer.ready()
        except LoadtrtError as error:
            self._drop(f"nothing is observed: {error}")
            return
        if samples:
            self._samples = True
            self.observer.send(gpu=bus_id, own=self._own.to_json())

    def describe(self, *facts: RunFacts) -> None:
        """What the next run is, model by model; the terminal starts to draw."""
        if self.observer is not None:
            self.observer.describe(*facts)

    def begin(self) -> None:
        """A run begins: its engine has opened the GPU."""
        self.clocks, self.sharing = Clocks(self._gpu), None
        self._clients = None if self._gpu is None else Clients(self._gpu, self._own)

    def end(self, start_ns: int, end_ns: int, inferences: int, each_ns: int = SECOND_NS) -> GpuTelemetry | None:
        """A run has ended: the GPU between two instants of perf_counter_ns, in intervals of each_ns; None where it is
        not known. `sharing` is of that time then, too."""
        if self._clients is not None:  # an observer knows more
            self._clients.look()
            unix_ns = time.time_ns() - time.perf_counter_ns()
            self.sharing = self._clients.between(start_ns + unix_ns, end_ns + unix_ns)
        self.require_alive()
        if self.observer is None or not self._samples:
            return None
        from pydantic import TypeAdapter, ValidationError

        from loadtrt.results.gpu_telemetry import GpuSharing, GpuTelemetry

        answer = self.observer.telemetry(start_ns, end_ns, inferences, each_ns)
        if answer["why"]:
            self._samples = False
            self._say(f"no GPU telemetry: {answer['why']}")
        try:
            if answer.get("sharing") is not None:
                self.sharing = TypeAdapter(GpuSharing).validate_python(answer["sharing"])
            return None if answer["telemetry"] is None else GpuTelemetry.model_validate(answer["telemetry"])
        except ValidationError:  # half a message, of a process that died
            return None

    def require_alive(self) -> None:
        """Do without the observer, and say so, where its process has died."""
        if self.observer is not None and not self.observer.alive:
            telemetry = " and no GPU telemetry" if self._samples else ""
            self._drop(f"the observer process has died: there are no metrics{telemetry} from then on")

    def close(self) -> None:
        """End the observer and give NVML back. Safe to call twice."""
        self._drop("")
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None

    def _drop(self, why: str) -> None:
        """End the observer, and say why unless it is ""."""
        if why:
            self._say(why)
        if self.observer is not None:
            self.observer.close()
            self.observer = None


class Clocks:
    """A GPU's clocks around a run: right before it, during warm-up, right after it. The run starts now."""

    def __init__(self, gpu: Gpu | None) -> None:
        """gpu: None where there is none, or NVML does not work."""
        self._gpu = gpu
        self._readings = [] if gpu is None else [gpu.read()]

    def settled(self) -> bool | None:
        """Whether the SM clock has settled; None where it is not known."""
        if self._gpu is None:
            return None
        self._readings.append(self._gpu.read())
        return None if self._readings[-1].sm_clock_hertz is None else clocks_settled(self._readings[1:])

    def environment(self) -> dict[str, Any]:
        """After the run: the GPU before and after it, for the run's environment."""
        if self._gpu is None:
            return {}
        names = {"name": self._gpu.name, "uuid": self._gpu.uuid, "driver": self._gpu.driver}
        around = {"before": asdict(self._readings[-1]), "after": asdict(self._gpu.read())}
        told: dict[str, Any] = json.loads(json.dumps({**names, **around}))  # as it is read back: lists are no tuples
        return {"gpu": told}
