"""Workers that were started, and where: what a fleet knows of them, whatever starts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.asked.config import RunConfig


class Clock(NamedTuple):
    """The wall clock of a worker's host, by round trips: it is `offset_ns` ahead of this host's, ± `error_ns`."""

    offset_ns: int
    error_ns: int

    @property
    def ahead_ns(self) -> int:
        """What is corrected: an offset within the error may be none, as of hosts that NTP or PTP synchronizes."""
        return self.offset_ns if abs(self.offset_ns) > self.error_ns else 0


class Link(Protocol):
    """A worker that was started (runs/worker.py), and the way to it: see `WorkerProcess`."""

    @property
    def where(self) -> dict[str, Any]: ...

    @property
    def host(self) -> str: ...

    @property
    def code(self) -> int | None: ...

    @property
    def end(self) -> str: ...

    def send(self, line: str) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def clock(self) -> Clock | None: ...

    def close(self) -> None: ...


class Places(Protocol):
    """Where the workers of a fleet run: see `Processes`."""

    @property
    def count(self) -> int: ...

    @property
    def lead_ns(self) -> int: ...

    def start(self, number: int, config: RunConfig, hear: Callable[[str | None], object], boards: str) -> Link: ...

    def close(self) -> None: ...
