"""The observer of a run: when there is one, what it is told, and what comes back."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.errors import LoadtrtError
from loadtrt.lanes.session import items_of
from loadtrt.live.observer import Observer, Wishes
from loadtrt.live.run_facts import RunFacts
from loadtrt.prometheus.families import information, model_name
from loadtrt.units import format_duration

if TYPE_CHECKING:
    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.cli.voice import Voice
    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.session import Session
    from loadtrt.records.board import Board
    from loadtrt.results.gpu_telemetry import GpuTelemetry
    from loadtrt.results.run_result import RunResult

_DEVICES = Path("/dev")


class Watchers:
    """Who watches a run: nobody, or an observer process. A run is never ended by them, but by metrics that cannot be
    served when they were asked for."""

    def __init__(self, config: RunConfig, voice: Voice, run: str) -> None:
        self._config = config
        self._voice = voice
        self._run = run
        self._observer: Observer | None = None
        self._samples = False
        if config.metrics or self._draws or _may_sample(config):  # the process starts while the engine loads
            self._observer = Observer(Wishes(config.metrics, config.metrics_native, self._draws))
        if config.metrics:  # before an engine is loaded, which may take minutes: the port may be in use
            self._require_ready()

    @property
    def board(self) -> Board | None:
        """Where the run shows itself; None where nobody looks."""
        looks = self._config.metrics or self._draws
        return self._observer.board if self._observer is not None and looks else None

    def begin(self, engine: Engine, input_sets: int) -> None:
        """The engine is loaded: say what will be measured, and begin to draw. Raises EngineError."""
        gpu = _bus_id(engine, self._config.model) if self._config.telemetry else None
        observer = self._observer
        if observer is None or not (gpu or self._draws or self._config.metrics):
            self.close()
            return
        if not self._config.metrics:
            try:
                self._require_ready()
            except LoadtrtError as error:
                self._voice.say(f"nobody watches: {error}")
                return
        if gpu:
            self._samples = True
            observer.tell(gpu=gpu)
        if observer.url:
            self._voice.say(f"metrics at {observer.url}")
        if self._draws:
            self._voice.hand_over(observer)
        observer.describe(_facts(self._run, self._config, engine, input_sets))

    def end(self, session: Session) -> GpuTelemetry | None:
        """Measuring is over: take the drawing away. Returns the GPU's telemetry while it went on."""
        if self._observer is None:
            return None
        if not self._observer.alive:
            self._voice.take_back()
            self._voice.say("the observer process has died: there are no metrics and no telemetry from then on")
            return None
        found, recorder = None, session.recorder
        if recorder is not None and session.driven is not None and self._samples:
            start_ns, end_ns = recorder.start_ns, session.driven.end_ns
            answer = self._observer.telemetry(start_ns, end_ns, recorder.inferences)
            found = answer["telemetry"]
            if answer["why"]:
                self._voice.say(f"no GPU telemetry: {answer['why']}")
        if self._draws:
            self._observer.end_drawing()
            self._voice.take_back()
        from pydantic import ValidationError

        from loadtrt.results.gpu_telemetry import GpuTelemetry

        try:
            return None if found is None else GpuTelemetry.model_validate(found)
        except ValidationError:  # of half a message from a process that died
            return None

    def linger(self, result: RunResult) -> None:
        """The run is over and written: metrics stay up, so that its last numbers are scraped. Ctrl-C is enough."""
        if self._observer is None:
            return
        with suppress(KeyboardInterrupt):
            self._observer.board.enter("done")
            if self._config.metrics and self._observer.alive and result.outcome == "completed":
                if self._config.metrics_linger:
                    linger = format_duration(self._config.metrics_linger)
                    self._voice.say(f"metrics stay for {linger} (--metrics-linger)")
                time.sleep(self._config.metrics_linger / 1e9)

    def close(self) -> None:
        """End the observer. Safe to call twice."""
        if self._observer is not None:
            self._voice.take_back()
            self._observer.close()
            self._observer = None

    @property
    def _draws(self) -> bool:
        return self._config.live and self._voice.on_terminal

    def _require_ready(self) -> None:
        assert self._observer is not None  # noqa: S101  # just started
        try:
            self._observer.ready()
        except BaseException:
            self.close()
            raise


def _may_sample(config: RunConfig) -> bool:
    """Whether there may be a GPU to sample, as far as can be told before the engine is loaded."""
    return config.telemetry and not config.model.engine.startswith("simulated:") and any(_DEVICES.glob("nvidia[0-9]*"))


def _bus_id(engine: Engine, model: Model) -> str | None:
    if engine.info.kind != "tensorrt":
        return None
    from loadtrt.cuda.runtime import device_properties

    return device_properties(model.device).pci_bus_id


def _facts(run: str, config: RunConfig, engine: Engine, input_sets: int) -> RunFacts:
    info, asked = engine.info, config.model
    return RunFacts(
        run=run,
        model=model_name(info),
        lanes=asked.contexts,
        batch=info.batch,
        rate=config.offered_per_s(asked),
        duration_ns=config.least_ns(asked),
        requests=asked.requests,
        objectives=tuple(
            (objective.text, objective.metric_name, objective.rank, objective.bound_ns)
            for objective in asked.objectives
        ),
        items=tuple(items_of(engine, asked, input_sets)),
        information={
            **information(info, asked.load.options()["arrivals"], asked.buffers),
            # Gaps that vary more fill queues for a while, too, which is no overload.
            "load": "steady" if asked.load.steady and (asked.load.cv or 0.0) <= 1 else "varying",
        },
    )
