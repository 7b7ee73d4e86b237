"""`loadtrt.run`: a run from Python, in a script or in a notebook."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from loadtrt.asked.config import RunConfig
from loadtrt.errors import UsageError
from loadtrt.runs.maker import Maker, Silence

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult


def run(config: RunConfig | None = None, /, *, start_at: int | None = None, **options: Any) -> RunResult:
    """Make one run and return its result. Nothing is printed, and no file is written.

    config: the configuration; None: the one of `options`.
    start_at: when to begin to measure, Unix time in ns; None: at once.
    options: options of `loadtrt run` by name, as YAML has them: engine="g.plan", contexts=4, rate="500/s".

    Where an event loop is running, as in a notebook, the run is made in a thread, and this call waits for it. Ctrl-C
    (the notebook's interrupt) ends the run gracefully: its result is returned, with the outcome "interrupted".

    Raises UsageError for options, EngineError for an engine that cannot be opened. A run that failed while it measured
    returns its result, with the outcome "failed".
    """
    if config is not None and options:
        raise UsageError("give a configuration or options, not both")
    config = config or RunConfig.of(**options)
    if len(config.models) > 1:
        raise UsageError(f"a run drives one model so far, and the configuration has {', '.join(config.models)}")
    maker = Maker(Silence())
    if not _has_event_loop():
        return _run(maker, config, start_at)
    results: list[RunResult] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(_run(maker, config, start_at))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="loadtrt-run")
    thread.start()
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt:
            maker.stop.requested = True
    if failures:
        raise failures[0]
    return results[0]


def _run(maker: Maker, config: RunConfig, start_at: int | None) -> RunResult:
    from loadtrt.environment import environment

    try:
        maker.open(config, config.given("export_layer_info"))
        session = maker.measure(config, start_at=start_at)
        result = maker.result(session, config)
        if session.fault is not None:
            raise session.fault
        return result.model_copy(update={"environment": {**environment(), **result.environment}})
    finally:
        maker.close()


def _has_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
