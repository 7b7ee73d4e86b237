"""What Ctrl-C does to a run: the first lets requests in flight finish, the second cancels."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskStatus

    from loadtrt.lanes.scheduler import Stop


async def until_stopped(run: Callable[[], Awaitable[None]], stop: Stop, say: Callable[[str], None]) -> None:
    """Await `run()`, and raise what it raises.

    The first Ctrl-C or SIGTERM sets `stop.requested` and calls `say` with a message; the second cancels `run()`.
    """

    async def watch(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if stop.requested:
                    scope.cancel()
                    return
                stop.requested = True
                say("stopping: waiting for requests in flight (press Ctrl-C again to give them up)")

    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        await group.start(watch, group.cancel_scope)
        try:
            await run()
        except Exception as error:  # a task group would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
