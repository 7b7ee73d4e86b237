"""The phases before measuring: ways of submitting are tried, outputs are verified, and lanes warm up."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from loadtrt.engines.engine import Submits
from loadtrt.errors import EngineError, LoadtrtError
from loadtrt.lanes.ending import FIRST_NS
from loadtrt.lanes.model_run import unfailed
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Driver, Load
from loadtrt.lanes.submitting import choose_way
from loadtrt.lanes.together import Drive, drive_all
from loadtrt.lanes.verify import Verifier
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.engines.engine import Completion
    from loadtrt.lanes.model_run import ModelRun
    from loadtrt.lanes.scheduler import Driven, Stop

_VERIFY_REQUESTS = 20  # a buffer set, at least, ...
_VERIFY_MOST_NS = 60 * SECOND_NS  # ... unless that takes longer: then as many as begin by then, one at least
_BESIDE_NS = 10 * SECOND_NS  # how long a model goes on for the others: with priority it may leave them nothing

_WARM_REQUESTS = 5  # a buffer set, at least, ...
_WARM_MOST_NS = 10 * SECOND_NS  # ... unless that takes longer; clocks that have not settled by then will not


@contextmanager
def failing(run: ModelRun, several: bool) -> Iterator[None]:
    """A block whose EngineError is the failure of this model alone; of several models any other error, too."""
    try:
        yield
    except EngineError as error:
        run.session.fail(error)
    except Exception as error:
        if not several or isinstance(error, LoadtrtError):
            raise
        run.session.fail(error)


async def verify(runs: Sequence[ModelRun], config: RunConfig, stop: Stop, *, several: bool) -> None:
    """Reference outputs from single quiet requests, then every output of a short closed loop compared with them, while
    models that are not verified have a closed loop, too."""
    verifiers = {
        run.name: Verifier(run.engine, len(run.inputs), max(FIRST_NS, config.drain or 0))
        for run in runs
        if run.model.verify
    }
    if not verifiers or stop.requested:
        return
    began = {run.name: run.engine.now_ns() for run in runs}
    for run in runs:
        run.begin("verify")
    try:
        for run in runs:
            if run.name in verifiers:
                with failing(run, several):
                    await verifiers[run.name].take_references(run.ticker("verify", began[run.name]))
        steady = {name: verifier for name, verifier in verifiers.items() if verifier.unrepeatable is None}
        await _compare(unfailed(runs), steady, began, config, stop, several=several)
    finally:
        for run in runs:
            if run.name in verifiers:
                run.session.verification = verifiers[run.name].result()
                run.session.verify_ns = run.engine.now_ns() - began[run.name]


async def _compare(
    runs: Sequence[ModelRun],
    verifiers: dict[str, Verifier],
    began: dict[str, int],
    config: RunConfig,
    stop: Stop,
    *,
    several: bool,
) -> None:
    """Compare outputs under load: 20 of each buffer set or more. A model that has so many goes on for the others, ten
    seconds at most."""
    missing = {run.name: _VERIFY_REQUESTS * run.places for run in runs if run.name in verifiers}
    if not missing:
        return
    drives: list[Drive] = []

    def comparing(run: ModelRun) -> Callable[[Completion, int], None]:
        compare, name = verifiers[run.name].compare, run.name

        def completed(completion: Completion, inputs: int) -> None:
            compare(completion, inputs)
            missing[name] -= 1
            compared = zip(runs, drives, strict=True)
            stop.enough |= all(missing.get(other.name, 0) <= 0 or drive.over for other, drive in compared)

        return completed if several else compare

    for run in runs:
        load = replace(
            _preparing(run, config),
            least_ns=_BESIDE_NS if several else SECOND_NS,
            least_requests=missing.get(run.name, 0),
            most_ns=_VERIFY_MOST_NS,
        )
        on_completion = comparing(run) if run.name in verifiers else None
        drives.append(_unmeasured(run, load, stop, run.ticker("verify", began[run.name]), on_completion))
    await drive_all(drives)
    stop.enough &= not several
    for run, drive in zip(runs, drives, strict=True):
        with failing(run, several):
            _finish(run, drive).require_answers("verify")


async def warm_up(
    runs: Sequence[ModelRun],
    config: RunConfig,
    stop: Stop,
    clocks_settled: Callable[[], bool | None] | None,
    *,
    several: bool,
) -> None:
    """Closed loops of a fifth of a second or more until the time is up, every buffer set has worked and clocks are
    steady. A model that is ready waits for the others."""
    least_ns = config.warmup
    if least_ns:
        for run in runs:
            run.begin("warm-up")
    began = {run.name: run.engine.now_ns() for run in runs}
    left = list(runs)
    try:
        while left and not stop.requested:
            drives: list[tuple[ModelRun, Drive]] = []
            if clocks_settled is not None and least_ns and left[0].engine.now_ns() > began[left[0].name]:
                settled = clocks_settled()
                for run in left:
                    run.session.clocks_settled = settled
            for run in left:
                since = began[run.name]
                load = _rest_of_warm_up(run, config, run.engine.now_ns() - since)
                if load is not None:
                    tell = run.ticker("warm-up", since, run.session.warmup_requests)
                    drives.append((run, _unmeasured(run, load, stop, tell)))
                else:
                    run.session.warmup_ns = run.engine.now_ns() - since
            left = [run for run, _ in drives]
            await drive_all([drive for _, drive in drives])
            for run, drive in drives:
                with failing(run, several):
                    driven = _finish(run, drive)
                    run.session.warmup_requests += driven.submitted - driven.unserved
                    driven.require_answers("warm-up")
            left = unfailed(left)
    finally:
        for run in runs:
            if not run.session.warmup_ns:
                run.session.warmup_ns = run.engine.now_ns() - began[run.name]


def _rest_of_warm_up(run: ModelRun, config: RunConfig, elapsed: int) -> Load | None:
    """The next closed loop of warm-up, after `elapsed` ns of it; None where it is over."""
    least_ns, session = config.warmup, run.session
    least_requests, most_ns = _WARM_REQUESTS * run.places, max(_WARM_MOST_NS, least_ns)
    worked = session.warmup_requests >= least_requests or elapsed > most_ns or not least_ns
    settled = session.clocks_settled is not False or elapsed > most_ns
    if elapsed >= least_ns and worked and settled:
        return None
    return replace(
        _preparing(run, config),
        least_ns=max(least_ns - elapsed, SECOND_NS // 5),
        least_requests=0 if worked else least_requests,
        most_ns=max(most_ns - elapsed, SECOND_NS // 5),
    )


async def try_ways(run: ModelRun, config: RunConfig, stop: Stop) -> None:
    """Try an engine's ways of submitting in closed loops, and keep the best."""

    async def drive_for(least_ns: int, least_requests: int, most_ns: int) -> Driven:
        load = _preparing(run, config)
        load = replace(load, least_ns=least_ns, least_requests=least_requests, most_ns=most_ns)
        drive = _unmeasured(run, load, stop, None)
        await drive_all([drive])
        driven = _finish(run, drive)
        driven.require_answers("warm-up")
        return driven

    assert isinstance(run.engine, Submits)  # noqa: S101  # the caller has looked
    await choose_way(run.engine, run.model.in_flight, drive_for, stop)


def _preparing(run: ModelRun, config: RunConfig) -> Load:
    """The closed loop of a phase before measuring, of a second. What it leaves in flight would be taken for requests of
    the next phase: it is waited for."""
    drain_ns, order = config.drain or 0, range(len(run.inputs))
    return Load(None, SECOND_NS, drain_ns=None, patience_ns=drain_ns, pace_ns=run.session.pace_ns, order=order)


def _unmeasured(
    run: ModelRun,
    load: Load,
    stop: Stop,
    tell: Callable[[int, int], None] | None,
    on_completion: Callable[[Completion, int], None] | None = None,
) -> Drive:
    """A load that is not measured."""
    recorder = Recorder(run.engine.contexts, 0, keep=0)
    return Drive(Driver(run.engine, recorder, load, stop, on_completion), run.engine, tell)


def _finish(run: ModelRun, drive: Drive) -> Driven:
    """What was driven; keeps how fast the engine completed its requests. Raises the error that ended it."""
    driven, session = drive.result(), run.session
    session.pace_ns = max(session.pace_ns or 0, driven.pace_ns) if driven.submitted else session.pace_ns
    return driven
