"""Every async test runs twice: on asyncio, and on trio's virtual clock, where sleeping takes no time."""

from __future__ import annotations

from typing import Any

import pytest
import trio.testing


@pytest.fixture(params=["asyncio", "trio-mock"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """asyncio as users have it, or trio with a clock that jumps to the next deadline as soon as all tasks wait."""
    if request.param == "asyncio":
        return ("asyncio", {"debug": False})
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})
