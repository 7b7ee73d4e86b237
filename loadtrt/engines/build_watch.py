"""A build while it runs: in a thread of its own, so that the caller's thread can show its progress and stop it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtrt.engines.toolchain import Toolchain

T = TypeVar("T")

_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build is. `fraction`: of the outermost phase's steps, in [0, 1] (steps differ in length); None where
    the builder does not report. `phase`: the innermost one. `elapsed_ns`: since the build began."""

    phase: str
    fraction: float | None
    elapsed_ns: int

    @property
    def remaining_ns(self) -> int | None:
        """At the same pace; None before there is one."""
        if self.fraction is None or self.fraction < 0.05:
            return None
        return round(self.elapsed_ns * (1 - self.fraction) / self.fraction)


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Watch:
    """The builder's phases as it reports them, from any thread, and whether it shall stop."""

    def __init__(self) -> None:
        self.stopped = False
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, inside `parent`."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str) -> bool:
        """A step is done; False asks the builder to stop."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done += 1
        return not self.stopped

    def finish(self, name: str) -> None:
        """A phase ends."""
        with self._lock:
            self._phases.pop(name, None)

    def progress(self, elapsed_ns: int, *, reports: bool) -> Progress:
        """How far it is now."""
        with self._lock:
            phases = dict(self._phases)
            root = next((name for name, phase in phases.items() if phase.parent not in phases), None)
            fraction = _fraction(phases, root) if root else 0.0
            innermost = next(reversed(phases), "starting")
        return Progress(innermost, fraction if reports else None, elapsed_ns)


def _fraction(phases: dict[str, _Phase], name: str) -> float:
    """(steps done + the fraction of the step that is being done) / steps."""
    inner = max((_fraction(phases, child) for child, phase in phases.items() if phase.parent == name), default=0.0)
    phase = phases[name]
    return min((phase.done + inner) / phase.steps, 1.0)


def run_watched(tool: Toolchain, build: Callable[[Watch], T], show: Callable[[Progress], None] | None) -> T:
    """What `build` returns or raises, run in a thread; `show` is called a few times a second in the caller's.

    All of TensorRT belongs in `build`: Python raises KeyboardInterrupt in the main thread, and raised inside one of
    TensorRT's calls back it would go through C++. Ctrl-C: a builder that reports is asked to stop, and
    KeyboardInterrupt is raised when it has; one that does not (8.6) cannot be stopped, so the process ends at once, as
    by SIGINT's default.
    """
    watch = Watch()
    outcome: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            outcome.append(build(watch))
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=work, name="loadtrt-build")
    began = time.perf_counter_ns()
    with contextlib.nullcontext() if tool.progress else _interrupt_ends_the_process():
        thread.start()
        failure: BaseException | None = None
        while True:  # until the builder has ended: nothing may be freed under its thread
            try:
                if done.wait(_EVERY_S):
                    break
                if show is not None and not watch.stopped:
                    show(watch.progress(time.perf_counter_ns() - began, reports=tool.progress))
            except BaseException as error:  # Ctrl-C above all
                watch.stopped, failure = True, error
        thread.join()
    for reason in (failure, *errors):
        if reason is not None:
            raise reason
    return outcome[0]


def attach(tool: Toolchain, config: Any, watch: Watch) -> Any:
    """Have the builder report to `watch`; the answer must live as long as `config`."""
    if not tool.progress:
        return None
    monitor = _monitor(tool.module, watch)
    config.progress_monitor = monitor
    return monitor


@contextlib.contextmanager
def _interrupt_ends_the_process() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _monitor(module: Any, watch: Watch) -> Any:
    """An instance of a subclass of the module's IProgressMonitor."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]  # a class only known at run time
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)  # pybind11 wants its own constructor, not super()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:  # noqa: ARG002  # TensorRT's signature
            return watch.step(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()
