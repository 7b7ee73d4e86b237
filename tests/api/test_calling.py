"""Calls from threads and event loops: what interrupts them, and what they give back."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
import trio

import loadtrt
from interrupting import BEGIN_S, interrupting, measuring
from loadtrt.api.calling import Call
from loadtrt.signals import Signals

VIRTUAL: dict[str, Any] = {"engine": "simulated:service=5ms,clock=virtual", "warmup": 0}
LONG: dict[str, Any] = {"engine": "simulated:service=1ms", "warmup": 0, "duration": "10h"}


class Worked:
    """Work that ends once it was asked to stop so many times. began: it goes on."""

    def __init__(self, asks: int = 1) -> None:
        self.began, self.asks = threading.Event(), asks

    def __call__(self, signals: Signals) -> str:
        signals.hold()
        self.began.set()
        while not (signals.hurried() if self.asks > 1 else signals.requested()):
            time.sleep(0.01)
        return "what was measured"


def test_ctrl_c_gives_back_what_was_measured() -> None:
    """The first one asks the work to stop, and it returns."""
    work = Worked()
    call = Call(work)
    thread = interrupting(work.began, 1, lambda: call._interrupts)
    assert call.result() == "what was measured"
    thread.join()


def test_the_second_ctrl_c_is_raised() -> None:
    """Once the work has given up what was in flight."""
    work = Worked(asks=2)
    call = Call(work)
    thread = interrupting(work.began, 2, lambda: call._interrupts)
    with pytest.raises(KeyboardInterrupt):
        call.result()
    thread.join()


def test_the_third_ctrl_c_leaves_what_hangs_behind() -> None:
    """The work goes on in its thread, which ends with the process."""
    work, ended = Worked(), threading.Event()

    def hangs(signals: Signals) -> None:
        work(signals)
        ended.wait()

    call = Call(hangs)
    thread = interrupting(work.began, 3, lambda: call._interrupts)
    with pytest.raises(KeyboardInterrupt):
        call.result()
    assert not ended.is_set()
    ended.set()
    thread.join()


def test_no_interrupt_is_lost_however_early_it_comes() -> None:
    """While the thread starts, and just before the wait for it: a wait without a limit would miss one in twenty."""
    for _ in range(16):
        work, started = Worked(), threading.Event()

        def begins(signals: Signals, started: threading.Event = started, work: Worked = work) -> str:
            started.set()
            return work(signals)

        call = Call(begins)
        thread = interrupting(started)
        assert call.result() == "what was measured"
        thread.join()


def test_an_interrupt_before_signals_are_entered_waits_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """They forget what was asked before."""
    work, asked = Worked(), threading.Event()
    call = Call(work)
    enter, wait = Signals.__enter__, call._entered.wait

    def late(self: Signals) -> Signals:
        asked.wait()
        return enter(self)

    def waited(timeout: float) -> bool:
        asked.set()
        return wait(timeout)

    monkeypatch.setattr(Signals, "__enter__", late)
    monkeypatch.setattr(call._entered, "wait", waited)

    async def cell() -> str:
        task = asyncio.create_task(call.awaited())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(cell()) == "what was measured"


def test_what_the_work_raises_is_raised() -> None:
    """From a thread, and from a task."""

    def fails(_: Signals) -> None:
        raise loadtrt.EngineError("the device is gone")

    with pytest.raises(loadtrt.EngineError, match="is gone"):
        Call(fails).result()
    with pytest.raises(loadtrt.EngineError, match="is gone"):
        asyncio.run(Call(fails).awaited())


# --- on an event loop


def test_the_event_loop_goes_on_meanwhile() -> None:
    """And two calls at a time, each with a loop of its own."""

    async def cell() -> list[int]:
        seen: list[int] = []

        async def count() -> None:
            while True:
                seen.append(len(seen))
                await asyncio.sleep(0.001)

        counting = asyncio.create_task(count())
        made = await asyncio.gather(
            loadtrt.run_async(**VIRTUAL, requests=50),
            loadtrt.sweep_async(**VIRTUAL, requests=20, contexts=[1, 2]),
        )
        counting.cancel()
        assert len(seen) > 1
        return [made[0].model.ok, len(made[1].points)]

    assert asyncio.run(cell()) == [50, 2]


def test_a_cancelled_task_gives_back_what_was_measured() -> None:
    """As a notebook's interrupt cancels a cell that awaits; and the task ends as if it were not cancelled."""

    async def cell(work: Worked) -> str:
        task = asyncio.create_task(Call(work).awaited())
        await asyncio.to_thread(work.began.wait, BEGIN_S)
        task.cancel()
        return await task

    assert asyncio.run(cell(Worked())) == "what was measured"


def test_a_task_that_is_cancelled_twice_is_cancelled() -> None:
    """Once the work has given up what was in flight."""

    async def cell(work: Worked) -> None:
        call = Call(work)
        task = asyncio.create_task(call.awaited())
        await asyncio.to_thread(work.began.wait, BEGIN_S)
        for number in range(2):
            while call._interrupts < number:
                await asyncio.sleep(0.01)
            task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cell(Worked(asks=2)))


def test_a_timeout_ends_a_run() -> None:
    """asyncio.timeout cancels, and so the result is there."""

    async def cell(work: Worked) -> str:
        async with asyncio.timeout(0.05):
            return await Call(work).awaited()

    assert asyncio.run(cell(Worked())) == "what was measured"


def test_a_keyboard_interrupt_of_the_work_does_not_end_the_loop() -> None:
    """As where an engine is being opened: the task is cancelled."""

    def interrupted(_: Signals) -> None:
        raise KeyboardInterrupt

    async def cell() -> str:
        with pytest.raises(asyncio.CancelledError):
            await Call(interrupted).awaited()
        return "the loop goes on"

    assert asyncio.run(cell()) == "the loop goes on"


# --- the functions themselves


def test_ctrl_c_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the run is whole: all that was sent was served."""
    thread = interrupting(measuring(monkeypatch))
    result = loadtrt.run(**LONG)
    thread.join()
    assert result.outcome == "interrupted"
    assert result.model.ok == result.model.submitted > 0
    assert len(result.to_pandas("records")) == result.model.ok


def test_ctrl_c_ends_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the points that were measured, and the others named."""
    thread = interrupting(measuring(monkeypatch))
    result = loadtrt.sweep(**LONG, contexts=[1, 2])
    thread.join()
    assert result.outcome == "interrupted"
    assert len(result.points) == 1
    assert len(result.skipped) == 1


def test_a_cancelled_search_has_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an event loop, as in a notebook."""

    began = measuring(monkeypatch)

    async def cell() -> loadtrt.CapacityResult:
        task = asyncio.create_task(
            loadtrt.capacity_async(engine=LONG["engine"], warmup=0, objective="latency.p99 < 50ms", time="1h")
        )
        await asyncio.to_thread(began.wait, BEGIN_S)
        task.cancel()
        return await task

    result = asyncio.run(cell())
    assert result.outcome == "interrupted"
    assert result.to_pandas("trials")["trial"].tolist() == ["ladder"]


def test_only_asyncio_awaits() -> None:
    """trio runs the other function in a thread, as the error says."""

    async def awaits() -> None:
        with pytest.raises(
            loadtrt.UsageError, match=r"only asyncio can await this: under trio write await trio\.to_thread"
        ):
            await loadtrt.run_async(**VIRTUAL, requests=5)
        result = await trio.to_thread.run_sync(lambda: loadtrt.run(**VIRTUAL, requests=5))
        assert result.model.ok == 5

    trio.run(awaits)
