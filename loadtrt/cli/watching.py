"""What is observed of a run: which observer it gets, what the observer gets to know, and who draws on the terminal."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from loadtrt.lanes.session import items_of
from loadtrt.live.observer import RunFacts, Watch, Wishes
from loadtrt.prometheus.families import information, model_name
from loadtrt.units import format_duration

if TYPE_CHECKING:
    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.cli.voice import Voice
    from loadtrt.engines.engine import Engine
    from loadtrt.results.run_result import RunResult

_DEVICES = Path("/dev")


class Watchers:
    """The observer of one `loadtrt run`, and who writes on the terminal: the voice, or the observer.

    watch: the owner of the observer and of the GPU's clocks.
    """

    def __init__(self, config: RunConfig, voice: Voice, run: str) -> None:
        """Start an observer if one is needed; it starts while the engine loads. Raises UsageError for metrics that
        cannot be served: loading may take minutes, and the port may be in use."""
        self._config = config
        self._voice = voice
        self._run = run
        self._draws = config.live and voice.on_terminal
        observes = config.metrics or self._draws or _may_sample(config)
        wishes = Wishes(config.metrics, config.metrics_native, self._draws)
        self.watch = Watch(wishes if observes else None, voice.say)

    def begin(self, engine: Engine, input_sets: int) -> None:
        """The engine is loaded: describe the run, and start to draw."""
        self.watch.open(_bus_id(engine, self._config.model), telemetry=self._config.telemetry)
        observer = self.watch.observer
        if observer is None:
            return
        if observer.url:
            self._voice.say(f"metrics at {observer.url}")
        if self._draws:
            self._voice.hand_over(observer)
        self.watch.describe(_facts(self._run, self._config, engine, input_sets))

    def end(self) -> None:
        """Measuring is over: remove the drawing."""
        observer = self.watch.observer
        if observer is not None and self._draws:
            observer.end_drawing()
        self._voice.take_back()

    def linger(self, result: RunResult) -> None:
        """The run is over and written: keep serving metrics so that the last numbers are scraped, until Ctrl-C."""
        observer = self.watch.observer
        if observer is None:
            return
        with suppress(KeyboardInterrupt):
            observer.board.enter("done")
            if self._config.metrics and observer.alive and result.outcome == "completed":
                if self._config.metrics_linger:
                    linger = format_duration(self._config.metrics_linger)
                    self._voice.say(f"metrics stay for {linger} (--metrics-linger)")
                time.sleep(self._config.metrics_linger / 1e9)

    def close(self) -> None:
        """End the observer. Safe to call twice."""
        self._voice.take_back()
        self.watch.close()


def _may_sample(config: RunConfig) -> bool:
    """Whether there may be a GPU to sample, as far as is known before the engine is loaded."""
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
        objectives=asked.objectives,
        items=tuple(items_of(engine, asked, input_sets)),
        information=information(info, asked.load.options()["arrivals"], asked.buffers),
        closed=asked.load.closed,
        max_lateness_ns=asked.max_lateness,
        places=asked.contexts * asked.buffers * asked.requests_per_launch,
    )
