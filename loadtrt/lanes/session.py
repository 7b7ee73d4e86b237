"""One run, phase by phase: allocate, verify, warm up, measure, drain. Whatever ends it, what was measured is kept."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import anyio

from loadtrt.engines.engine import Submits
from loadtrt.errors import EngineError
from loadtrt.lanes.ending import FIRST_NS, may_end_early, watching
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Driven, Driver, Load, Stop, drive_with
from loadtrt.lanes.start_instant import wait_for_start, wall_clock
from loadtrt.lanes.submitting import choose_way
from loadtrt.lanes.verify import Verifier, deviation_from, quiet_outputs
from loadtrt.load.request_sizes import Batcher, draw
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.engines.engine import Completion, Engine
    from loadtrt.engines.reference import Reference
    from loadtrt.load.inputs import InputOrigin
    from loadtrt.load.tensors import Arrays
    from loadtrt.records.board import Board
    from loadtrt.results.engine_info import Verification
    from loadtrt.results.precisions import Deviation

    OnTick: TypeAlias = Callable[["Phase", int, int, int], None]  # phase, elapsed ns, submitted, completed

_VERIFY_REQUESTS = 20  # a buffer set, at least, ...
_VERIFY_MOST_NS = 60 * SECOND_NS  # ... unless that takes longer: then as many as begin by then, one at least

_WARM_REQUESTS = 5  # a buffer set, at least, ...
_WARM_MOST_NS = 10 * SECOND_NS  # ... unless that takes longer; clocks that have not settled by then will not

Phase = Literal["verify", "warm-up", "measure"]


@dataclass(slots=True)
class Session:
    """What a run has measured so far: complete after `run_session`, and truthful at any moment before.

    recorder, driven: of the measuring phase; None until it began.
    deviation: of a quiet request's outputs from a reference, where there is one.
    verification: outputs under load compared with those of a quiet run, where asked for.
    failure: the sentence of what ended the run.
    fault: the exception, where nobody expected it.
    clocks_settled: whether the GPU's clocks were steady after warm-up; None where that is not known.
    ended_early: why measuring ended before its time, though nothing went wrong.
    began_at: when measuring began, Unix time in ns.
    began_error_ns: the greatest error of `began_at`.
    late_start_ns: how long after the instant that was asked for measuring began.
    origins, notes: where the values of each input come from, and what the user should read about them.
    pace_ns: the longest time without a completion that a completion has ended, where that was over a second, else 0;
        None while nothing was completed.
    outputs: of one quiet request with the first input set, after measuring, where the configuration asks for them; or
        the sentence of why there are none.
    """

    allocate_ns: int = 0
    verify_ns: int = 0
    warmup_ns: int = 0
    warmup_requests: int = 0
    recorder: Recorder | None = None
    driven: Driven | None = None
    deviation: Deviation | None = None
    verification: Verification | None = None
    interrupted: bool = False
    failure: str | None = None
    fault: Exception | None = None
    clocks_settled: bool | None = None
    ended_early: str | None = None
    began_at: int | None = None
    began_error_ns: int = 0
    late_start_ns: int = 0
    input_sets: int = 1
    origins: Mapping[str, InputOrigin] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pace_ns: int | None = None
    outputs: Arrays | str | None = None


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
    start_at: int | None = None,
    reference: Reference | None = None,
) -> None:
    """Run all phases on an engine that is loaded, filling `session`.

    inputs: the input sets, as lanes/input_sets.py makes them.
    stop: ends the run early, with what is in flight finished. Cancelling the caller's scope ends the run at once; what
        was recorded is in `session` all the same.
    on_tick: called as (phase, elapsed ns, submitted, completed) at each phase's beginning, with zeros, and about once a
        second.
    clocks_settled: asked during warm-up, which goes on while it returns False (10 s at most); None where not known.
    board: the memory that observers read: the phases, and the rows of the measuring phase.
    allocated: the lanes are allocated with these inputs, by an earlier run.
    start_at: when measuring begins, Unix time in ns, with everything else done before; None: at once.
    reference: what the outputs for the first input set are compared with, before anything is counted.

    An EngineError becomes `session.failure`. Raises UsageError for arrivals that cannot be drawn.
    """
    model = config.model
    least_ns, least_requests = config.least_ns(model), model.requests or 0
    session.input_sets = len(inputs) // len(model.parts)
    weights = [part.weight for part in model.mix_parts]
    load = Load(
        due=model.load.due(least_ns, least_requests, model.seed),
        least_ns=least_ns,
        least_requests=least_requests,
        most_ns=config.max_duration,
        drain_ns=config.drain,
        order=draw(weights, session.input_sets, model.seed) if weights else range(len(inputs)),
        most_waiting=model.max_queue,
        batcher=None if model.batching is None else Batcher(model.batching, session.input_sets),
    )

    def begins(phase: Phase) -> None:
        if board is not None:
            board.enter(phase)
        if on_tick is not None:
            on_tick(phase, 0, 0, 0)

    try:
        began = engine.now_ns()
        if not allocated:
            engine.allocate(inputs)
        session.allocate_ns = engine.now_ns() - began
        # Its loop is compiled now, where none was kept: in warm-up, clocks would be given up before they settle.
        Driver(engine, Recorder(engine.contexts, 0, keep=0), Load(None), stop)
        if config.warmup and isinstance(engine, Submits) and len(engine.ways) > 1 and engine.way is None:
            begins("warm-up")  # before outputs are compared: those of requests that are submitted as the measured ones
            await _choose_way(engine, config, len(inputs), stop, session)
        if reference is not None:
            session.deviation = await deviation_from(engine, reference, max(FIRST_NS, config.drain or 0))
        if model.verify and not stop.requested:
            begins("verify")
            await _verify(engine, config, len(inputs), stop, session, on_tick)
        if not stop.requested:
            if config.warmup:
                begins("warm-up")
            await _warm_up(engine, config, len(inputs), stop, session, on_tick, clocks_settled)
        if not stop.requested:
            bounds = [objective.counted for objective in model.objectives]
            recorder = Recorder(
                engine.contexts, 0, board=board, bounds=bounds, items=items_of(engine, model, len(inputs))
            )
            recorder.board.touch(_expected(load, session))
            if may_end_early(config):
                import loadtrt.stats.early  # noqa: F401  # before anything is measured
            begins("measure")
            load = replace(load, pace_ns=session.pace_ns)
            await _measure(engine, recorder, load, stop, session, config, on_tick, start_at)
        if config.export_output and session.driven is not None and not session.driven.unserved:
            try:
                session.outputs = await quiet_outputs(engine, 0, max(FIRST_NS, config.drain or 0))
            except EngineError as error:  # the run is good all the same
                session.outputs = str(error)
    except EngineError as error:
        session.failure = str(error)
    except anyio.get_cancelled_exc_class():
        session.interrupted = True
        raise
    finally:
        session.interrupted |= stop.requested


def items_of(engine: Engine, model: Model, sets: int) -> list[int]:
    """Inferences in a request with each input set, one number where all have the same. A batcher's requests are single,
    whatever batch they go with."""
    if model.batcher is not None:
        return [1]
    if model.mix is None:
        return [engine.info.batch]
    return [batch for batch in engine.batches for _ in range(sets // len(engine.parts))]


async def _verify(
    engine: Engine, config: RunConfig, sets: int, stop: Stop, session: Session, on_tick: OnTick | None
) -> None:
    """Reference outputs from single quiet requests, then every output of a short closed loop compared with them."""
    verifier = Verifier(engine, sets, max(FIRST_NS, config.drain or 0))
    began = engine.now_ns()
    try:
        tell = _ticker(engine, "verify", began, on_tick)
        await verifier.take_references(tell)
        if verifier.unrepeatable is None:
            least = _VERIFY_REQUESTS * engine.contexts * engine.buffers
            load = replace(_preparing(config, session, sets), least_requests=least, most_ns=_VERIFY_MOST_NS)
            (await _drive_unmeasured(engine, load, stop, session, tell, verifier.compare)).require_answers("verify")
    finally:
        session.verification = verifier.result()
        session.verify_ns = engine.now_ns() - began


async def _warm_up(
    engine: Engine,
    config: RunConfig,
    sets: int,
    stop: Stop,
    session: Session,
    on_tick: OnTick | None,
    clocks_settled: Callable[[], bool | None] | None,
) -> None:
    """Closed loops of a fifth of a second or more until the time is up, every buffer set has worked and clocks are
    steady."""
    began, least_ns = engine.now_ns(), config.warmup
    least_requests, most_ns = _WARM_REQUESTS * engine.contexts * engine.buffers, max(_WARM_MOST_NS, least_ns)
    try:
        while not stop.requested:
            elapsed = engine.now_ns() - began
            worked = session.warmup_requests >= least_requests or elapsed > most_ns or not least_ns
            if clocks_settled is not None and least_ns and elapsed:
                session.clocks_settled = clocks_settled()
            settled = session.clocks_settled is not False or elapsed > most_ns
            if elapsed >= least_ns and worked and settled:
                break
            load = replace(
                _preparing(config, session, sets),
                least_ns=max(least_ns - elapsed, SECOND_NS // 5),
                least_requests=0 if worked else least_requests,
                most_ns=max(most_ns - elapsed, SECOND_NS // 5),
            )
            tell = _ticker(engine, "warm-up", began, on_tick, session.warmup_requests)
            driven = await _drive_unmeasured(engine, load, stop, session, tell)
            session.warmup_requests += driven.submitted - driven.unserved
            driven.require_answers("warm-up")
    finally:
        session.warmup_ns = engine.now_ns() - began


async def _choose_way(engine: Engine, config: RunConfig, sets: int, stop: Stop, session: Session) -> None:
    """Try an engine's ways of submitting in closed loops, and keep the best."""

    async def drive_for(least_ns: int, least_requests: int, most_ns: int) -> Driven:
        load = _preparing(config, session, sets)
        load = replace(load, least_ns=least_ns, least_requests=least_requests, most_ns=most_ns)
        driven = await _drive_unmeasured(engine, load, stop, session, None)
        driven.require_answers("warm-up")
        return driven

    assert isinstance(engine, Submits)  # noqa: S101  # the caller has looked
    await choose_way(engine, config.model.in_flight, drive_for, stop)


def _preparing(config: RunConfig, session: Session, sets: int) -> Load:
    """The closed loop of a phase before measuring, of a second. What it leaves in flight would be taken for requests of
    the next phase: it is waited for."""
    drain_ns = config.drain or 0
    return Load(None, SECOND_NS, drain_ns=None, patience_ns=drain_ns, pace_ns=session.pace_ns, order=range(sets))


async def _drive_unmeasured(
    engine: Engine,
    load: Load,
    stop: Stop,
    session: Session,
    tell: Callable[[int, int], None] | None,
    on_completion: Callable[[Completion, int], None] | None = None,
) -> Driven:
    """Drive a load that is not measured, and keep how fast the engine completed its requests."""
    recorder = Recorder(engine.contexts, 0, keep=0)
    driver = Driver(engine, recorder, load, stop, on_completion)
    recorder.begin(engine.now_ns())
    driven = await drive_with(driver, engine, tell)
    session.pace_ns = max(session.pace_ns or 0, driven.pace_ns) if driven.submitted else session.pace_ns
    return driven


def _expected(load: Load, session: Session) -> int:
    """How many requests will be measured: in a closed loop, if it goes on as it did in warm-up."""
    if load.due is not None:
        return len(load.due)
    pace = session.warmup_requests / session.warmup_ns if session.warmup_ns else 0
    return max(round(pace * load.least_ns), load.least_requests)


async def _measure(
    engine: Engine,
    recorder: Recorder,
    load: Load,
    stop: Stop,
    session: Session,
    config: RunConfig,
    on_tick: OnTick | None,
    start_at: int | None,
) -> None:
    driver = Driver(engine, recorder, load, stop)
    gc.collect()
    gc.freeze()  # a full collection over what libraries left behind takes longer than many a request
    gc.disable()
    try:
        session.recorder = recorder
        clock = wall_clock(engine.now_ns) if start_at is None else await wait_for_start(engine, start_at, stop)
        began = engine.now_ns()
        session.began_at, session.began_error_ns = began + clock.offset_ns, clock.error_ns
        session.late_start_ns = 0 if start_at is None else max(session.began_at - start_at, 0)
        session.recorder.begin(began)
        ticker = watching(config, stop, session, _ticker(engine, "measure", began, on_tick), engine, began)
        session.driven = await drive_with(driver, engine, ticker)
        session.driven.require_answers()
    finally:
        gc.enable()
        gc.unfreeze()


def _ticker(
    engine: Engine, phase: Phase, began: int, on_tick: OnTick | None, before: int = 0
) -> Callable[[int, int], None] | None:
    """What tells `on_tick` how far a phase is. before: number of requests of its earlier loads."""
    if on_tick is None:
        return None
    return lambda submitted, completed: on_tick(phase, engine.now_ns() - began, before + submitted, before + completed)
