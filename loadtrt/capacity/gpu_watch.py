"""The GPU under many runs: one observer process for all of them, and a look at its clocks around each."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from loadtrt.errors import LoadtrtError
from loadtrt.live.clocks import Clocks
from loadtrt.live.observer import Observer, Wishes
from loadtrt.live.telemetry import open_gpu
from loadtrt.results.gpu_telemetry import GpuTelemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.lanes.session import Session


class GpuWatch:
    """Watches one GPU from now on. Nothing that goes wrong with it ends a run: there is no telemetry then, and `say` is
    told why, once. samples: whether to sample clocks, power and heat while runs go on. clocks: around the last run."""

    def __init__(self, bus_id: str, say: Callable[[str], None], *, samples: bool) -> None:
        self._say = say
        self._gpu, why = open_gpu(bus_id)
        self._observer: Observer | None = None
        self.clocks = Clocks(None)
        if self._gpu is None:
            say(f"no GPU telemetry: {why}")
        elif samples:
            try:
                self._observer = Observer(Wishes(gpu=bus_id))
                self._observer.ready()
            except LoadtrtError as error:
                self._give_up(str(error))

    def begin(self) -> None:
        """A run begins."""
        self.clocks = Clocks(self._gpu)

    def telemetry(self, session: Session) -> GpuTelemetry | None:
        """What it did while that run measured; None where nobody tells."""
        recorder, driven = session.recorder, session.driven
        if self._observer is None or recorder is None or driven is None:
            return None
        if not self._observer.alive:
            self._give_up("the observer process has died")
            return None
        answer = self._observer.telemetry(recorder.start_ns, driven.end_ns, recorder.inferences)
        if answer["why"]:
            self._give_up(answer["why"])
        with suppress(ValueError):  # half a message, of a process that died
            return None if answer["telemetry"] is None else GpuTelemetry.model_validate(answer["telemetry"])
        return None

    def close(self) -> None:
        """End the observer. Safe to call twice."""
        if self._observer is not None:
            self._observer.close()
            self._observer = None
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None

    def _give_up(self, why: str) -> None:
        self._say(f"no GPU telemetry: {why}")
        if self._observer is not None:
            self._observer.close()
            self._observer = None
