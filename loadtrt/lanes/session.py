"""One run, phase by phase: allocate, verify, warm up, measure, drain. Whatever ends it, what was measured is kept."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from loadtrt.engines.engine import Submits
from loadtrt.errors import EngineError
from loadtrt.lanes.before_measuring import failing, try_ways, verify, warm_up
from loadtrt.lanes.ending import FIRST_NS, may_end_early, watching
from loadtrt.lanes.model_run import ModelRun, unfailed
from loadtrt.lanes.model_run import Session as Session  # noqa: PLC0414
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Driver, Load, Stop
from loadtrt.lanes.start_instant import wait_for_start, wall_clock
from loadtrt.lanes.together import Drive, drive_all, rounds_of_all
from loadtrt.lanes.verify import deviation_from, quiet_outputs
from loadtrt.loop.compiled import compiled_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.model_run import OnTick
    from loadtrt.lanes.start_instant import StartAt
    from loadtrt.load.tensors import Arrays
    from loadtrt.records.board import Board


async def run_session(
    engine: Engine,
    config: RunConfig,
    inputs: Sequence[Arrays],
    stop: Stop,
    session: Session,
    on_tick: OnTick | None = None,
    clocks_settled: Callable[[], bool | None] | None = None,
    board: Board | None = None,
    *,
    allocated: bool = False,
) -> None:
    """`run_models` of one model, with what `ModelRun` has of it."""
    run = ModelRun(engine, config.model, inputs, session, "", on_tick, board, allocated)
    await run_models([run], config, stop, clocks_settled)


async def run_models(
    runs: Sequence[ModelRun],
    config: RunConfig,
    stop: Stop,
    clocks_settled: Callable[[], bool | None] | None = None,
    *,
    start_at: StartAt | None = None,
) -> None:
    """Run all phases on engines that are loaded, each phase of all models together, filling their sessions.

    stop: ends the run early, with what is in flight finished. Cancelling the caller's scope ends the run at once; what
        was recorded is in the sessions all the same.
    clocks_settled: asked during warm-up, which goes on while it returns False (10 s at most); None where not known.
    start_at: when measuring begins, with everything else done before: Unix time in ns, or what is asked for it then;
        None: at once.

    An EngineError becomes the `failure` of its model's session, and the other models go on without it; of several
    models any other error, too. Raises UsageError for arrivals that cannot be drawn.
    """
    loads = [(run, run.load(config)) for run in runs]
    several = len(runs) > 1
    try:
        # Loops are compiled now, where none was kept: in warm-up, clocks would be given up before they settle.
        loops, compiled_before_ns = dict[str, Drive](), compiled_ns()
        for run, load in loads:
            with failing(run, several):
                _allocate(run)
                for each in (load, Load(None)) if load.router is not None else (Load(None),):
                    driver = _driver(run.engine, Recorder(run.engine.contexts, 0, keep=0), each, stop)
                    loops[run.name] = Drive(driver, run.engine)
        rounds_of_all(list(loops.values()))
        for run in runs:
            run.session.compile_ns = compiled_ns() - compiled_before_ns
        # Before outputs are compared: those of requests that are submitted as the measured ones.
        for run in unfailed(runs) if config.warmup else ():
            if isinstance(run.engine, Submits) and len(run.engine.ways) > 1 and run.engine.way is None:
                run.begin("warm-up")
                with failing(run, several):
                    await try_ways(run, config, stop)
        for run in unfailed(runs):
            if run.reference is not None:
                with failing(run, several):
                    limit_ns = max(FIRST_NS, config.drain or 0)
                    run.session.deviation = await deviation_from(run.engine, run.reference, limit_ns)
        await verify(unfailed(runs), config, stop, several=several)
        if not stop.requested:
            await warm_up(unfailed(runs), config, stop, clocks_settled, several=several)
        if not stop.requested:
            measured = [(run, load) for run, load in loads if not run.failed]
            await _measure(measured, config, stop, start_at, several)
        for run in unfailed(runs):
            if config.export_output and run.session.driven is not None and not run.session.driven.unserved:
                try:
                    run.session.outputs = await quiet_outputs(run.engine, 0, max(FIRST_NS, config.drain or 0))
                except EngineError as error:  # the run is good all the same
                    run.session.outputs = str(error)
    except anyio.get_cancelled_exc_class():
        for run in runs:
            run.session.interrupted = True
        raise
    finally:
        for run in runs:
            run.session.interrupted |= stop.requested


def _allocate(run: ModelRun) -> None:
    engine = run.engine
    began = engine.now_ns()
    if not run.allocated:
        engine.allocate(run.inputs)
    run.session.allocate_ns = engine.now_ns() - began


def _driver(engine: Engine, recorder: Recorder, load: Load, stop: Stop) -> Driver:
    if load.router is None:
        return Driver(engine, recorder, load, stop)
    from loadtrt.lanes.routed import RoutedDriver

    return RoutedDriver(engine, recorder, load, stop)


def _expected(load: Load, session: Session) -> int:
    """How many requests will be measured: in a closed loop, if it goes on as it did in warm-up."""
    if load.due is not None:
        return len(load.due) if load.router is None else 2 * len(load.due) // load.router.workers
    pace = session.warmup_requests / session.warmup_ns if session.warmup_ns else 0
    return max(round(pace * load.least_ns), load.least_requests)


async def _measure(
    measured: Sequence[tuple[ModelRun, Load]], config: RunConfig, stop: Stop, start_at: StartAt | None, several: bool
) -> None:
    """Measure all models from one instant."""
    if not measured:
        return
    runs = [run for run, _ in measured]
    drives = [_measuring(run, load, config, stop) for run, load in measured]
    rounds = rounds_of_all(drives)
    engine, sessions = runs[0].engine, [run.session for run in runs]
    gc.collect()
    gc.freeze()  # a full collection over what libraries left behind takes longer than many a request
    gc.disable()
    try:
        for run, drive in zip(runs, drives, strict=True):
            run.session.recorder = drive.driver.recorder

        def begin() -> None:
            for run in runs:
                run.begin("measure")

        if start_at is None:
            begin()
            clock, instant = wall_clock(engine.now_ns), None
        else:
            clock, instant = await wait_for_start(engine, start_at, stop, begin)
        began = engine.now_ns()
        for run, drive in zip(runs, drives, strict=True):
            session = run.session
            session.began_at, session.began_error_ns = began + clock.offset_ns, clock.error_ns
            session.late_start_ns = None if instant is None else max(session.began_at - instant, 0)
            drive.on_tick = watching(config, stop, run, sessions, run.ticker("measure", began), began)
        await drive_all(drives, began, rounds)
        for run, drive in zip(runs, drives, strict=True):
            with failing(run, several):
                run.session.driven = drive.result()
                run.session.driven.require_answers()
        if several and stop.cut:
            missed = next((f"{run.name}: {run.session.ended_early}" for run in runs if run.session.ended_early), None)
            for session in sessions:
                session.ended_early = session.ended_early or missed
    finally:
        gc.enable()
        gc.unfreeze()


def _measuring(run: ModelRun, load: Load, config: RunConfig, stop: Stop) -> Drive:
    """The load that is measured. All that takes long is done here, before it begins."""
    engine, bounds = run.engine, [objective.counted for objective in run.model.objectives]
    recorder = Recorder(engine.contexts, 0, board=run.board, bounds=bounds, items=run.items)
    recorder.board.touch(_expected(load, run.session))
    if may_end_early(config):
        import loadtrt.stats.early  # noqa: F401  # before anything is measured
    return Drive(_driver(engine, recorder, replace(load, pace_ns=run.session.pace_ns), stop), engine)
