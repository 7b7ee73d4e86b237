"""What is said and observed of runs: the user's terminal, the observer process and the GPU's telemetry."""

from __future__ import annotations

import platform
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from loadtrt.engines.engine import Submits
from loadtrt.lanes.model_run import items_of
from loadtrt.live.clients import own_process
from loadtrt.live.observer import RunFacts
from loadtrt.live.watching import Watch
from loadtrt.printing import say
from loadtrt.prometheus.families import information, model_name
from loadtrt.results.engine_info import GPU_KINDS
from loadtrt.runs.marked import Marked, Marks
from loadtrt.runs.shown import Shown, wishes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.model_run import ModelRun, OnTick, Session
    from loadtrt.live.observer import Observer, Point
    from loadtrt.load.tensors import Arrays
    from loadtrt.results.gpu_telemetry import GpuTelemetry
    from loadtrt.runs.shown import Followers

_DEVICES = Path("/dev")


class Talks(Protocol):
    """Where a maker says what happens.

    on_terminal: whether a live view can be drawn.
    """

    @property
    def on_terminal(self) -> bool: ...

    def say(self, sentence: str) -> None:
        """A line of its own."""

    def status(self, line: str, *, slow: bool = False) -> None:
        """A line that the next one replaces. slow: of what may take seconds: without a terminal it is a line of its own
        then."""

    def share(self, what: str, fraction: float) -> None:
        """How much of something is done, 0 to 1."""

    def end_line(self) -> None:
        """Remove the line of `status`."""

    def hand_over(self, observer: Observer) -> None:
        """The observer draws from now on."""

    def take_back(self) -> None:
        """The observer does not draw any more."""

    def insist(self, sentence: str) -> None:
        """A line of its own on what was asked for and not done, with --quiet too."""


class Silence:
    """Says nothing, apart from warnings on what was not done."""

    on_terminal = False

    def say(self, sentence: str) -> None: ...

    def status(self, line: str, *, slow: bool = False) -> None: ...

    def share(self, what: str, fraction: float) -> None: ...

    def end_line(self) -> None: ...

    def hand_over(self, observer: Observer) -> None: ...

    def take_back(self) -> None: ...

    def insist(self, sentence: str) -> None:
        try:
            warnings.warn_explicit(sentence, RuntimeWarning, "loadtrt", 1)  # each time, and without a line of ours
        except RuntimeWarning:  # as with python -W error: it must not end what measures, nor lose a result
            say(sentence)


class Watched(Shown):
    """The observer of the runs of one maker, and who writes on the terminal: `talks`, or the observer.

    watch: the owner of the observer and of the GPU's clocks.
    """

    def __init__(self, config: RunConfig, talks: Talks, *, draws: bool, followers: Followers | None = None) -> None:
        """Say what was decided about the load, and start an observer if one may be needed; it starts while the engine
        loads. Raises UsageError for metrics that cannot be served or pushed, before minutes of loading.

        draws: whether a live view is drawn, as `config` says.
        followers: who reads what is written, too.
        """
        self._followers, self._several = followers, len(config.models) > 1
        self._marks = Marks() if config.nvtx else None
        for remark in dict.fromkeys(remark for model in config.models.values() for remark in model.load.remarks):
            talks.say(remark)
        self._is_open = False
        self._bus_id: str | None = None
        wishes = wishes_of(config, talks, draws=draws)
        simulated = all(model.engine.startswith("simulated:") for model in config.models.values())
        may_use_gpu = not simulated and any(_DEVICES.glob("nvidia[0-9]*"))
        observes = wishes.follows or (config.telemetry and may_use_gpu)
        own = own_process() if may_use_gpu else None
        super().__init__(Watch(wishes if observes else None, talks.say, own, len(config.models)), talks, wishes)

    def loading(self) -> None:
        """An engine is loaded from now on."""
        if self._marks is not None:
            self._marks.begin("load")

    def marked(self, engine: Engine, inputs: Sequence[Arrays]) -> Engine:
        """The engine with the ranges of NVTX that are asked for."""
        return engine if self._marks is None else Marked(engine, inputs, self._marks)

    def ticking(self, on_tick: OnTick | None) -> OnTick | None:
        """The function with the ranges of NVTX that are asked for."""
        return on_tick if self._marks is None else self._marks.ticking(on_tick)

    def begin(self, run: str, config: RunConfig, runs: Mapping[str, ModelRun], point: Point | None = None) -> None:
        """A run of some of the models begins: describe it to observers, and start to draw. All runs use one GPU."""
        if not self._is_open:
            self._is_open = True
            buses = (bus_id_of(one.engine.info.kind, one.model.device) for one in runs.values())
            self._bus_id = next(filter(None, buses), None)
            self.watch.open(self._bus_id, telemetry=config.telemetry)
        self.empty()
        followers = self._followers or (self if self.boards else None)
        if followers is not None:
            for one, board in zip(runs.values(), followers.boards, strict=False):  # other models need no board now
                one.board = board
            followers.describe(*self._facts(run, config, runs, point))
        self.watch.begin()

    def _facts(
        self, run: str, config: RunConfig, runs: Mapping[str, ModelRun], point: Point | None
    ) -> Iterator[RunFacts]:
        """What observers know of each model."""
        for one in runs.values():
            facts = facts_of(run, config.alone(one.name), one.engine, len(one.inputs))
            name = one.name if self._several else facts.model
            bus = self._bus_id or ""
            yield replace(facts, model=name, uuid=self.watch.uuid, host=platform.node(), point=point, bus=bus)

    def end(self, sessions: Mapping[str, Session]) -> GpuTelemetry | None:
        """Measuring is over: remove the drawing. Returns the GPU's telemetry while the run measured."""
        if self._marks is not None:
            self._marks.close()
        if self.watch.observer is not None and not self.watch.observer.alive:
            self._talks.take_back()
        telemetry, recorders = None, [session.recorder for session in sessions.values()]
        measured = [recorder for recorder in recorders if recorder is not None and recorder.end_ns is not None]
        if measured:
            telemetry = self.watch.end(
                measured[0].start_ns,
                max(recorder.end_ns or 0 for recorder in measured),
                sum(recorder.inferences for recorder in measured),
                max(recorder.spans.interval_ns for recorder in measured),
            )
        self.end_drawing()
        return telemetry


def bus_id_of(kind: str, device: int) -> str | None:
    """The PCI bus id of the GPU that this kind of engine uses; None where it uses none."""
    if kind not in GPU_KINDS:
        return None
    from loadtrt.cuda.runtime import device_properties

    return device_properties(device).pci_bus_id


def facts_of(run: str, config: RunConfig, engine: Engine, input_sets: int) -> RunFacts:
    """What observers know of the run with this name."""
    info, model = engine.info, config.model
    if isinstance(engine, Submits) and engine.way is None and len(engine.ways) > 1:  # to be chosen, and labels stay
        info = replace(info, mode={key: value for key, value in info.mode.items() if key != "submit"})
    return RunFacts(
        run=run,
        model=model_name(info),
        lanes=model.contexts,
        batch=info.batch,
        rate=config.offered_per_s(model),
        duration_ns=config.least_ns(model),
        requests=config.own_requests(model),
        objectives=model.objectives,
        items=tuple(items_of(engine, model, input_sets)),
        information=information(info, model.load.options()["arrivals"], model.buffers),
        closed=model.load.closed,
        max_lateness_ns=model.max_lateness,
        shared_gpu=config.shared_gpu,
        places=model.in_flight,
        labels=config.labels,
    )
