"""Makes the runs of a sweep or a search for capacity, and says whether results of two of them belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.asked.reading import OUTPUT_KEYS
from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.environment import busy_host, core_times
from loadtrt.errors import EngineError, LoadtrtError, UsageError
from loadtrt.live.observer import Point
from loadtrt.results.capacity_result import trimmed
from loadtrt.results.one_model import models_of
from loadtrt.runs.fleet import run_fleet
from loadtrt.runs.fleet_watch import fleets_shown
from loadtrt.runs.maker import Maker
from loadtrt.units import SECOND_NS, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.environment import CoreTimes
    from loadtrt.lanes.model_run import OnTick, Phase
    from loadtrt.records.records import Records
    from loadtrt.results.engine_info import EngineInfo
    from loadtrt.results.run_result import RunResult
    from loadtrt.runs.narrowed import Part
    from loadtrt.runs.processes import WorkerProcess
    from loadtrt.runs.shown import Shown
    from loadtrt.runs.watched import Talks
    from loadtrt.signals import Signals

# Of an environment: what makes another machine of it. A container has a new host name each day.
MACHINE = ("cpu", "cores")
_LOOK_NS = 5 * SECOND_NS  # how often a closed loop looks for others; an open loop would be late meanwhile
SEEDS = 1009  # between runs: more than models have between them
_LEAST_S = 1.0  # a shorter time does not show others (environment.busy_host)


def changed(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first difference between two configurations in what is measured, in words; None where there is none."""
    for key in {**before, **now}:
        if key not in OUTPUT_KEYS and before.get(key) != now.get(key):
            return f"{key} was {_written(before.get(key))}, and is {_written(now.get(key))}"
    return None


def _written(value: object) -> object:
    """A value as a person would write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, map(_written, value))) or "none"
    return "none" if value is None else value


def require_same(before: Iterable[EngineInfo], now: EngineInfo) -> None:
    """Raises UsageError where the runs of an unfinished result were made on another engine than `now`: its plan was
    built anew, or this is another GPU. An engine made of a model is another one for each batch."""
    for then in before:
        if (other := difference(then, now)) is not None:
            raise UsageError(f"the runs in the file were of an engine whose {other}; name another file")


def difference(then: EngineInfo, now: EngineInfo) -> str | None:
    """How an engine differs from what it was, in words; None where it does not."""
    for what in ("name", "device", "flavour", "version", *(("sha256",) if then.batch == now.batch else ())):
        was, is_ = getattr(then, what), getattr(now, what)
        if was != is_:
            return f"{what} was {was}, and is {is_}"
    was, is_ = then.settings["hardware queues"], now.settings["hardware queues"]
    return None if was == is_ else f"number of hardware queues (CUDA_DEVICE_MAX_CONNECTIONS) was {was}, and is {is_}"


class NoWorkersError(UsageError):
    """No worker measured anything: none could open its engine with these settings, as a rule."""


def _of_first(result: RunResult) -> RunResult:
    """The part of a run's first model, which has failed where a model beside it has."""
    first = next(iter(models_of(result).values()))
    if result.failure is None or first.failure is not None:
        return first
    return first.model_copy(update={"outcome": "failed", "failure": result.failure, "valid": False})


class Rig:
    """A maker of many runs, which keeps an engine open while only the load changes. Use it in a `with`.

    workers: the most that make a run (runs/fleet.py), which are started for each, with engines of their own; 0 where
        this process makes the runs.
    before: engines of the runs that the result has already, which those that are opened must be, too.
    beside: models by name that run beside the one that is measured, each under its own load; none unless it is set.
    overloaded: models beside it whose queues grew until the end of the last run.
    progress: points, or candidates, that are done, and those that are left after this one.
    others: evidence that others used the cores or the GPU during the last run; None without, or where nobody looked.
    """

    def __init__(
        self,
        talks: Talks,
        leave: Callable[[], None] = lambda: None,
        signals: Signals | None = None,
        beside: Maker | None = None,
    ) -> None:
        """talks, leave, signals and beside: as for Maker."""
        self._talks, self._leave = talks, leave
        self._maker = Maker(talks, signals=signals, many=True, leave=leave, beside=beside)
        self._makes_sense = False
        self._wrong: LoadtrtError | None = None  # of workers, the first
        self._of_workers: dict[str, EngineInfo] = {}
        self.workers = 0
        self._apart = False
        self._stay: dict[int, WorkerProcess] = {}  # of models apart, for further runs
        self._shown: Shown | None = None
        self.before: list[EngineInfo] = []
        self.beside: Mapping[str, Model] = {}
        self.overloaded: tuple[str, ...] = ()
        self.progress = (0, 0)
        self.others: str | None = None
        self._since: CoreTimes | None = None  # when it was last known whether others used the cores

    def __enter__(self) -> Rig:
        self._maker.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for process in self._stay.values():
                process.leave()
            if self._shown is not None and not self._apart:
                self._shown.close()
        finally:
            self._maker.__exit__()

    def another(self) -> Rig:
        """A rig for other engines beside those of this one."""
        return Rig(self._talks, self._leave, self._maker.signals, self._maker)

    def apart(self) -> Rig:
        """A rig whose runs have each model in a process of its own, beside the engines of this one, which are open. The
        processes stay as long as the rig, of which all runs begin with the same models."""
        rig = self.another()
        rig._apart, rig._shown = True, self._maker.watched
        return rig

    @property
    def _by_workers(self) -> bool:
        """Whether processes make the runs, and this one does not."""
        return self._apart or self.workers > 0

    @property
    def stopped(self) -> bool:
        """Whether a signal asked to stop: no further run is to be made."""
        return self._maker.signals.requested()

    @property
    def engine(self) -> EngineInfo:
        return next(iter(self.engines.values()))

    @property
    def engines(self) -> dict[str, EngineInfo]:
        """Those that are open, or were of the last workers, by the names of their models."""
        if self._by_workers:
            return self._of_workers
        return {name: opened.engine.info for name, opened in self._maker.models.items()}

    @property
    def records(self) -> Records | None:
        """All requests of the last run; None where some were not kept."""
        recorder = next(iter(self._maker.sessions.values())).recorder
        return recorder.records if recorder is not None and recorder.complete else None

    def open(self, config: RunConfig) -> None:
        """Open the engine of this configuration, and those beside it, as `Maker.open` does."""
        self._maker.open(self._with_beside(config, 0))

    def _with_beside(self, config: RunConfig, number: int) -> RunConfig:
        """The configuration with the models beside its own. number: of a run, which has arrivals of its own."""
        if not self.beside:
            return config
        others = {
            name: model.model_copy(update={"seed": model.seed + SEEDS * number}) for name, model in self.beside.items()
        }
        return config.model_copy(update={"models": {**config.models, **others}})

    def try_open(self, config: RunConfig, others: Sequence[RunConfig]) -> str | None:
        """Open the engine of this configuration; returns why it cannot be opened, None where it is open, or workers
        will open it. Raises UsageError for what is wrong with `others` too, and so is not a matter of these settings,
        as a missing file; and for an engine that is not that of the runs before."""
        if self.workers:
            whole = self._with_beside(config, 0)
            self._shown = self._shown or fleets_shown(whole, self.workers, self._talks)
            return None
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
        self.require_before()
        return None

    def require_before(self) -> None:
        """Raise UsageError where the engine, or that of the last workers, is not that of the runs before."""
        require_same(self.before, self.engine)

    def require_sense(self) -> None:
        """Raise the first error of workers where none has measured anything, now or before."""
        if self._wrong is not None and not self._makes_sense and not self.before:
            raise self._wrong

    def run(
        self,
        config: RunConfig,
        what: str,
        part: tuple[int, int] | Part | None = None,
        *,
        number: int = 0,
        looks: bool = False,
        point: str = "",
    ) -> RunResult:
        """Make a run on the engine that is open, trimmed. Raises UsageError for a load that cannot be drawn, and
        NoWorkersError.

        what: its name, for people.
        part: as for `Maker.run`.
        number: of this run among those of the result. A simulated engine has random draws of its own for each, so that
            they are the same whatever was run before, and where a result is continued.
        looks: whether to look for others that use the cores or the GPU, which end a closed loop within ten seconds. For
            a simulated engine nobody looks: its times are its own.
        point: the settings, for metrics; "": `what`.
        """
        self.others, self._since = None, self._since or core_times()
        whole = self._with_beside(config, number)
        if self._by_workers:
            simulated = all(model.engine.startswith("simulated:") for model in whole.models.values())
        else:
            simulated = all(engine.kind == "simulated" for engine in self.engines.values())
        looks = looks and not simulated
        tick, place = self._ticking(what, whole, number, looks=looks), Point(point or what, *self.progress)
        if self._by_workers:
            result = self._run_workers(whole, tick, part, place)
        else:
            result = self._maker.run(whole, tick, part, point=place)
        if self._maker.fault is not None:
            raise self._maker.fault
        if looks:
            self._look()
            problems = (problem for model in result.models.values() for problem in model.problems)
            shared = (problem.evidence for problem in problems if problem.kind == "gpu-shared")
            self.others = self.others or next(shared, None)
        told = {name: model.steadiness for name, model in result.models.items() if name in self.beside}
        self.overloaded = tuple(name for name, steadiness in told.items() if steadiness and steadiness.overloaded)
        return trimmed(_of_first(result) if self.beside else result)

    def _run_workers(
        self, config: RunConfig, tick: OnTick, part: tuple[int, int] | Part | None, point: Point
    ) -> RunResult:
        """A run of workers, each on the part of its engine, or of a model each."""
        if self._apart:
            config = config.model_copy(update={"model_processes": True})
        if part is not None:
            (name, model), *others = config.models.items()
            first = model.model_copy(update={"contexts": part[0], "buffers": part[1]})
            config = config.model_copy(update={"models": {name: first, **dict(others)}})
        try:
            stay = self._stay if self._apart else None
            result = run_fleet(
                config, self._talks, self._maker.signals, tick, shown=self._shown, point=point, stay=stay
            )
        except LoadtrtError as error:
            self._wrong = self._wrong or error
            raise NoWorkersError(str(error)) from None
        self._makes_sense = True
        self._of_workers = {name: model.engine for name, model in result.models.items()}
        return result

    def linger(self, config: RunConfig, result: Any) -> None:
        """All runs are over, with this result: serve metrics of the last one for a while, as `Maker.linger` does."""
        if self._shown is not None:
            self._shown.linger(config, result.outcome, self._maker.signals.sleep)
        self._maker.linger(config, result)

    def _look(self) -> None:
        """Look whether others have used the cores since this was last known."""
        self.others = self.others or busy_host(self._since)
        now = core_times()
        if now is None or self._since is None or now.at - self._since.at >= _LEAST_S:
            self._since = now

    def _refuses(self, config: RunConfig, wrong: UsageError) -> bool:
        try:
            self.open(config)
        except LoadtrtError as error:
            return str(error) == str(wrong)
        return False

    def _ticking(self, what: str, config: RunConfig, number: int, *, looks: bool) -> OnTick:
        engines, looked = [self._maker.models[name].engine for name in config.models if not self._by_workers], 0
        least_ns = max(map(config.least_ns, config.models.values()))
        closed = next(iter(config.models.values())).load.closed

        def tick(phase: Phase, elapsed_ns: int, submitted: int, completed: int) -> None:  # noqa: ARG001  (OnTick)
            nonlocal looked
            for engine in engines if phase == "measure" and not elapsed_ns else ():
                if isinstance(engine, SimulatedEngine):
                    engine.restart(number)
            if looks and not self._by_workers and phase == "measure" and closed and elapsed_ns // _LOOK_NS > looked:
                looked = elapsed_ns // _LOOK_NS
                self._look()
                if self.others is not None:
                    self._maker.stop.cut = True
                    for session in self._maker.sessions.values():
                        session.interrupted = True
            words = [f"{what}: {phase}"]
            words += [format_duration(elapsed_ns)] if elapsed_ns else []
            words += [f"of {format_duration(least_ns)}"] if phase == "measure" else []
            self._talks.status(" ".join(words))

        return tick
