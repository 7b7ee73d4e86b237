"""`loadtrt.run`: a run from Python, in a script or in a notebook."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from loadtrt.asked.config import RunConfig
from loadtrt.errors import UsageError
from loadtrt.runs.maker import Maker

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult

_FILES = ("json_file", "junit", "export_times", "export_profile", "export_layer_info", "export_output", "trt_log")
_LEAST_NS = 10**18  # the year 2001: a smaller instant is in other units


def run(config: RunConfig | None = None, /, *, start_at: int | None = None, **options: Any) -> RunResult:
    """Make one run and return its result. Nothing is printed, and no file is written.

    config: the configuration; None: the one of `options`. Files that it names are not written.
    start_at: when to begin to measure, Unix time in ns; None: at once.
    options: options of `loadtrt run` by name, as YAML has them: engine="g.plan", contexts=4, rate="500/s".

    The run is made in a thread with an event loop of its own, and this call waits for it: it works in a notebook, where
    an event loop is running. Ctrl-C, or the notebook's interrupt, lets requests in flight finish; the result is
    returned, with the outcome "interrupted". The second Ctrl-C cancels the run and is raised. A Ctrl-C while the engine
    is opened is raised once it is open; the third leaves whatever hangs behind.

    Raises UsageError for options, EngineError for an engine that cannot be opened. A run that failed while it measured
    returns its result, with the outcome "failed".
    """
    if config is not None and options:
        raise UsageError("give a configuration or options, not both")
    if config is not None and not isinstance(config, RunConfig):
        raise UsageError(f"{config!r} is not a RunConfig: write options by name, such as engine='g.plan'")
    if start_at is not None and (not isinstance(start_at, int) or start_at < _LEAST_NS):
        raise UsageError(f"start_at {start_at!r} is not Unix time in ns: write for example time.time_ns() + 2 * 10**9")
    made = config or RunConfig.of(**options)
    for name in made.given(*_FILES) if config is None else ():
        raise UsageError(
            f"loadtrt.run writes no file: leave {name.removesuffix('_file')} out, and write the result itself"
        )
    maker = Maker()
    over = threading.Event()  # not Thread.join, which takes a thread for ended once it is interrupted (CPython 3.11)
    results: list[RunResult] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with maker:
                results.append(_run(maker, made, start_at))
        except BaseException as error:  # the caller's thread raises it
            failures.append(error)
        finally:
            over.set()

    threading.Thread(target=work, name="loadtrt-run", daemon=True).start()
    interrupts = 0
    while not over.is_set():
        try:
            over.wait()
        except KeyboardInterrupt:
            maker.signals.ask()
            interrupts += 1
            if interrupts > 2:
                raise
    if failures:
        raise failures[0]
    if interrupts > 1:
        raise KeyboardInterrupt
    return results[0]


def _run(maker: Maker, config: RunConfig, start_at: int | None) -> RunResult:
    maker.open(config)
    maker.require_room()
    result = maker.run(config, start_at=start_at)
    maker.linger(config, result)
    maker.close()
    if maker.fault is not None:
        raise maker.fault
    if config.profile and result.outcome == "completed":
        from loadtrt.runs.layers import profile_after

        result = result.with_model(profile=profile_after(result, config, maker)[0])
    return result
