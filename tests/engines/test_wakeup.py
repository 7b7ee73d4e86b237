"""A thread wakes the event loop, and nothing is missed."""

from __future__ import annotations

import select
import threading
from time import perf_counter_ns
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from loadtrt.engines.waiting import Wakeup

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio
FAR_NS = 3600 * 10**9


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    one = Wakeup()
    yield one
    one.close()


async def _woken(wakeup: Wakeup) -> bool:
    """Whether a notification is left over (which this takes)."""
    found = bool(select.select([wakeup._reader], [], [], 0)[0])
    await wakeup.wait(0)
    return found


async def test_notified_before_waiting_returns_at_once(wakeup: Wakeup) -> None:
    """A notification is kept until the next wait, however far that wait's end."""
    wakeup.notify()
    await wakeup.wait(perf_counter_ns() + FAR_NS)


async def test_a_thread_wakes_a_waiter(wakeup: Wakeup) -> None:
    """notify() from another thread ends a wait that has begun."""
    begun = threading.Event()

    def notify() -> None:
        begun.wait()
        wakeup.notify()

    thread = threading.Thread(target=notify)
    thread.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wakeup.wait, perf_counter_ns() + FAR_NS)
        await anyio.lowlevel.checkpoint()
        begun.set()
    thread.join()


async def test_the_past_returns(wakeup: Wakeup) -> None:
    """An instant that is past asks for a look, not for a wait."""
    await wakeup.wait(perf_counter_ns() - 1)
    await wakeup.wait(0)


@pytest.mark.parametrize("ahead_ns", [100_000, 5_000_000])
async def test_never_before_the_instant_unless_notified(wakeup: Wakeup, ahead_ns: int) -> None:
    """Without a notification: returned at >= until, both where it only blocks and where the loop's timer goes first."""
    until_ns = perf_counter_ns() + ahead_ns
    await wakeup.wait(until_ns)
    assert perf_counter_ns() >= until_ns


async def test_one_wait_takes_all_notifications(wakeup: Wakeup) -> None:
    """n notifications wake one wait: the pipe is empty after it, also when it was full, which notify() survives."""
    for _ in range(5_000):
        wakeup.notify()
    await wakeup.wait(perf_counter_ns() + FAR_NS)
    assert not await _woken(wakeup)
    wakeup.notify()
    assert await _woken(wakeup)


@pytest.mark.parametrize("ahead_ns", [-1, FAR_NS])
async def test_cancelling_is_delivered(wakeup: Wakeup, ahead_ns: int) -> None:
    """Each wait passes a checkpoint, also one that has nothing to wait for."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await wakeup.wait(perf_counter_ns() + ahead_ns)
    assert scope.cancelled_caught


async def test_cancelling_ends_a_wait_that_has_begun(wakeup: Wakeup) -> None:
    """A waiter in the middle of its wait is cancelled by its task group."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wakeup.wait, perf_counter_ns() + FAR_NS)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert tasks.cancel_scope.cancelled_caught


async def test_cancelling_a_wait_leaves_the_notification_to_the_next(wakeup: Wakeup) -> None:
    """A cancelled wait takes nothing away."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        wakeup.notify()
        await wakeup.wait(perf_counter_ns() + FAR_NS)
    assert await _woken(wakeup)


async def test_close_is_idempotent(wakeup: Wakeup) -> None:
    """Closing twice frees once."""
    wakeup.close()
    wakeup.close()
