"""Makes many runs in one process: an engine stays open, and its lanes allocated, while the load alone changes."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Self, cast

from loadtrt.asked.reading import OUTPUT_KEYS
from loadtrt.errors import EngineError, LoadtrtError, UsageError
from loadtrt.lanes.scheduler import Stop
from loadtrt.results.sweep_result import trimmed
from loadtrt.runs.maker import Maker
from loadtrt.units import MILLISECOND_NS, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import FrameType

    from loadtrt.asked.config import RunConfig
    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.session import OnTick, Phase
    from loadtrt.results.engine_info import EngineInfo
    from loadtrt.results.run_result import RunResult
    from loadtrt.runs.maker import Talks

# Of an environment: what makes another machine of it. A container has a new host name each day.
MACHINE = ("cpu", "cores")
_WARM_NS = 200 * MILLISECOND_NS  # an engine that ran a moment ago, whose GPU has not lowered its clocks
_MOST_ASKED = 3  # Ctrl-C's between runs, before one ends the process after all


def changed(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first difference between two configurations in what is measured, in words; None where there is none."""
    for key in {**before, **now}:
        if key not in OUTPUT_KEYS and before.get(key) != now.get(key):
            return f"{key} was {_said(before.get(key))}, and is {_said(now.get(key))}"
    return None


def _said(value: object) -> object:
    """As a person would write it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, map(_said, value))) or "none"
    return "none" if value is None else value


def require_same(before: Iterable[EngineInfo], now: EngineInfo) -> None:
    """Raises UsageError where the runs that an unfinished result holds were of another engine than is open now: its
    plan was built anew, or this is another GPU. An engine made of a model is another one for each batch."""
    for then in before:
        for what in ("name", "device", "flavour", "version", *(("sha256",) if then.batch == now.batch else ())):
            was, is_ = getattr(then, what), getattr(now, what)
            if was != is_:
                raise UsageError(
                    f"the runs in the file were of an engine whose {what} was {was}, and is {is_}; name another file"
                )


class Rig:
    """Makes many runs, on engines that are opened one at a time. Use it in a `with`.

    stopped: by Ctrl-C or SIGTERM. A signal ends the run that goes on gracefully, the second one at once. While an
        engine is opened, which may take minutes, it is a KeyboardInterrupt; at any other time what is summed up or
        written comes to its end first.
    """

    def __init__(self, talks: Talks, before_exit: Callable[[], None] = lambda: None) -> None:
        """before_exit: called before the process ends because a device hangs."""
        self.stopped = False
        self._talks = talks
        self._maker = Maker(talks, None, before_exit, many=True)
        self._stop = Stop()  # of the run that goes on
        self._asked = 0
        self._opening = False
        self._handlers: dict[signal.Signals, Any] = {}
        self._verified = self._makes_sense = self._watched = False

    def __enter__(self) -> Self:
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
            if self._maker.watch is not None:
                self._maker.watch.close()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def open(self, config: RunConfig) -> None:
        """Have the engine of this configuration open: the one that is, where it differs in its load alone. Raises
        UsageError, EngineError and KeyboardInterrupt; no engine is open then."""
        self._opening = True
        try:
            if self.stopped and not self._maker.keeps(config):
                raise KeyboardInterrupt
            if self._maker.open(config):
                self._verified = False
                self._watch_gpu(config)
        finally:
            self._opening = False

    def try_open(self, config: RunConfig, others: Sequence[RunConfig]) -> str | None:
        """The same; returns the sentence of why it is not to be had, None where it is. Raises UsageError for what is
        wrong with `others` all the same, and so is no matter of these settings: a file that is missing, say."""
        try:
            self.open(config)
        except EngineError as error:
            return str(error)
        except UsageError as error:
            if not self._makes_sense and all(self._refuses(other, error) for other in others):
                raise
            self._makes_sense = True
            return str(error)
        self._makes_sense = True
        return None

    def run(self, config: RunConfig, what: str, part: tuple[int, int] | None = None) -> RunResult:
        """One run on the engine that is open, trimmed. what: in words. part: on so many lanes and buffer sets alone.

        After an engine's first run warm-up is short, and there is no verification. An engine that failed, or did not
        answer, is not used again: `open` makes another."""
        engine = self._maker.engine
        changes: dict[str, Any] = {"verify": config.model.verify and not self._verified and part is None}
        if part is not None:
            engine = cast("Engine", _Narrowed(engine, *part))
            changes |= {"contexts": part[0], "buffers": part[1]}
        if self._maker.runs:
            config = config.model_copy(update={"warmup": min(config.warmup, _WARM_NS)})
        config = config.with_model(**changes)
        self._stop = stop = Stop()
        stop.requested = self.stopped  # by a signal before; `_ask` sets it from now on
        try:
            session = self._maker.measure(config, self._ticking(what, config), engine, stop)
        finally:
            self.stopped |= stop.requested
            self._listen()  # the run put back the handlers from before all runs
        self._verified |= config.model.verify
        if session.fault is not None:
            raise session.fault
        return trimmed(self._maker.result(session, config, engine))

    @property
    def engine(self) -> EngineInfo:
        """What is open."""
        return self._maker.info

    def close(self) -> None:
        """Close the engine that is open, if there is one."""
        self._maker.close()

    def _listen(self) -> None:
        for number in self._handlers:
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.stopped = self._stop.requested = True
        self._asked += 1
        if self._opening or self._asked > _MOST_ASKED:
            raise KeyboardInterrupt

    def _refuses(self, config: RunConfig, wrong: UsageError) -> bool:
        try:
            self.open(config)
        except LoadtrtError as error:
            return str(error) == str(wrong)
        return False

    def _ticking(self, what: str, config: RunConfig) -> OnTick:
        def tick(phase: Phase, elapsed_ns: int, submitted: int, completed: int) -> None:  # noqa: ARG001  (OnTick)
            words = [f"{what}: {phase}"]
            words += [format_duration(elapsed_ns)] if elapsed_ns else []
            words += [f"of {format_duration(config.least_ns(config.model))}"] if phase == "measure" else []
            self._talks.status(" ".join(words))

        return tick

    def _watch_gpu(self, config: RunConfig) -> None:
        """Once, for the first engine on a GPU: all others have the same one."""
        if self._watched or self.engine.kind != "tensorrt":
            return
        from loadtrt.cuda.runtime import device_properties
        from loadtrt.live.observer import Watch, Wishes

        self._watched = True
        bus_id = device_properties(config.model.device).pci_bus_id
        self._maker.watch = Watch(Wishes() if config.telemetry else None, self._talks.say)
        self._maker.watch.open(bus_id, telemetry=config.telemetry)


class _Narrowed:
    """The first `contexts` lanes of an engine that is open, for at most `buffers` requests in flight on each: a closed
    loop with few in flight. All else is the whole engine's."""

    def __init__(self, whole: Engine, contexts: int, buffers: int) -> None:
        self._whole = whole
        self.contexts, self.buffers = contexts, buffers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)
