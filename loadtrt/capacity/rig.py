"""Makes the runs of a sweep or a search for capacity, and says whether results of two of them belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.asked.reading import OUTPUT_KEYS
from loadtrt.environment import busy_host
from loadtrt.errors import EngineError, LoadtrtError, UsageError
from loadtrt.live.nvml import other_gpu_processes
from loadtrt.results.capacity_result import trimmed
from loadtrt.runs.maker import Maker
from loadtrt.runs.watched import bus_id_of
from loadtrt.units import format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.lanes.session import OnTick, Phase
    from loadtrt.records.records import Records
    from loadtrt.results.engine_info import EngineInfo
    from loadtrt.results.run_result import RunResult
    from loadtrt.runs.narrowed import Part
    from loadtrt.runs.watched import Talks
    from loadtrt.signals import Signals

# Of an environment: what makes another machine of it. A container has a new host name each day.
MACHINE = ("cpu", "cores")


def changed(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first difference between two configurations in what is measured, in words; None where there is none."""
    for key in {**before, **now}:
        if key not in OUTPUT_KEYS and before.get(key) != now.get(key):
            return f"{key} was {_written(before.get(key))}, and is {_written(now.get(key))}"
    return None


def _written(value: object) -> object:
    """A value as a person would write it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, map(_written, value))) or "none"
    return "none" if value is None else value


def require_same(before: Iterable[EngineInfo], now: EngineInfo) -> None:
    """Raises UsageError where the runs of an unfinished result were made on another engine than `now`: its plan was
    built anew, or this is another GPU. An engine made of a model is another one for each batch."""
    for then in before:
        for what in ("name", "device", "flavour", "version", *(("sha256",) if then.batch == now.batch else ())):
            was, is_ = getattr(then, what), getattr(now, what)
            if was != is_:
                raise UsageError(
                    f"the runs in the file were of an engine whose {what} was {was}, and is {is_}; name another file"
                )


class Rig:
    """A maker of many runs, which keeps an engine open while only the load changes. Use it in a `with`."""

    def __init__(self, talks: Talks, leave: Callable[[], None] = lambda: None, signals: Signals | None = None) -> None:
        """talks, leave and signals: as for Maker."""
        self._talks = talks
        self._maker = Maker(talks, signals=signals, many=True, leave=leave)
        self._makes_sense = False

    def __enter__(self) -> Rig:
        self._maker.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._maker.__exit__()

    @property
    def stopped(self) -> bool:
        """Whether a signal asked to stop: no further run is to be made."""
        return self._maker.signals.requested()

    @property
    def engine(self) -> EngineInfo:
        """The engine that is open."""
        return self._maker.opened.engine.info

    @property
    def records(self) -> Records | None:
        """All requests of the last run; None where some were not kept."""
        recorder = self._maker.session.recorder
        return recorder.records if recorder is not None and recorder.complete else None

    def others(self, device: int) -> str | None:
        """Evidence that others use the cores or the GPU; None without, and for a simulated engine."""
        if self.engine.kind == "simulated":
            return None
        bus_id = bus_id_of(self.engine.kind, device)
        count = 0 if bus_id is None else other_gpu_processes(bus_id)
        on_gpu = f"the GPU is used by others: {plural(count, 'process', 'processes')}" if count else None
        return busy_host() or on_gpu

    def open(self, config: RunConfig) -> None:
        """Open the engine of this configuration, as `Maker.open` does."""
        self._maker.open(config)

    def try_open(self, config: RunConfig, others: Sequence[RunConfig]) -> str | None:
        """Open the engine of this configuration; returns why it cannot be opened, None where it is open. Raises
        UsageError for what is wrong with `others` too, and so is not a matter of these settings, as a missing file."""
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

    def run(self, config: RunConfig, what: str, part: tuple[int, int] | Part | None = None) -> RunResult:
        """Make a run on the engine that is open, trimmed. what: its name, for people. part: as for `Maker.run`."""
        result = self._maker.run(config, self._ticking(what, config), part)
        if self._maker.session.fault is not None:
            raise self._maker.session.fault
        return trimmed(result)

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
