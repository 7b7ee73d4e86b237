"""A worker that was started, and what is known of it: what it has said, and when it was last heard.

One that says nothing is asked, then named, and counts as lost after a stated time. A worker that measures says how far
it is once a second, and any other one answers from a thread of its own: nothing is asked of one that measures, unless
it stands still.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter

from loadtrt.results.engine_info import EngineInfo, MemoryBill
from loadtrt.results.run_result import LostWorker

if TYPE_CHECKING:
    from loadtrt.lanes.model_run import OnTick, Phase
    from loadtrt.results.run_result import RunResult
    from loadtrt.runs.links import Clock, Link

LOADED = TypeAdapter(dict[str, tuple[EngineInfo, MemoryBill]])  # what a worker tells of what it has loaded, as JSON
STAYS = "--stays"  # of a worker that makes further runs
ASK_S = 2.0
STEP_S = 1.0  # this process did not run for the rest of a longer time, and heard nobody
# (named, lost): once it is ready; and before, as files travel, and libraries hold Python up while they load a plan.
READY_S, STARTING_S = (5.0, 60.0), (30.0, 600.0)


@dataclass(slots=True)
class Hearing:
    """What is heard of a worker.

    silent_s: for how long nothing was.
    asked, named: whether it was asked for an answer, and named to the user, since.
    """

    silent_s: float = 0.0
    asked: bool = False
    named: bool = False

    def heard(self) -> str:
        """It has said something; returns what the user is to know of that, "" for nothing."""
        again = f"is heard again, after {self._lasted}" if self.named else ""
        self.silent_s, self.asked, self.named = 0.0, False, False
        return again

    def wait(self, passed_s: float, *, ready: bool) -> Literal["ask", "name", "lost"] | None:
        """It has said nothing for so long, once more; returns what is to be done."""
        self.silent_s += min(passed_s, STEP_S)
        named_s, lost_s = READY_S if ready else STARTING_S
        if self.silent_s >= lost_s:
            return "lost"
        if self.silent_s >= named_s and not self.named:
            self.named = True
            return "name"
        if self.silent_s >= ASK_S and not self.asked:
            self.asked = True
            return "ask"
        return None

    def silence(self, *, ready: bool) -> str:
        """That it says nothing, and since when, in words."""
        since = datetime.fromtimestamp(time.time() - self.silent_s, UTC)
        lost_s = (READY_S if ready else STARTING_S)[1]
        return (
            f"has said nothing for {self._lasted}, since {since:%H:%M:%S} UTC: it or its host is stopped, or hangs; "
            f"after {lost_s:.0f} s it counts as lost"
        )

    @property
    def loss(self) -> str:
        """That it was given up, in words."""
        return f"it said nothing for {self._lasted}"

    @property
    def _lasted(self) -> str:
        return f"{self.silent_s:.0f} s"


@dataclass(slots=True)
class StartedWorker:
    """A worker, and what it has said.

    number: of the worker.
    model: the one that it measures; "" where workers share the load of all.
    on_tick: as for `Maker.run`.
    pids: its ids in all namespaces, once it is ready.
    loaded: engines and their memory of the models that it has loaded, by name; None before.
    phase, elapsed_ns, completed: where it is, for how long, and requests completed in that phase.
    error: what ended it, in a sentence; None for nothing, or for a signal.
    clock, clock_after: of its host, before it was given the instant to begin and after the run.
    hearing: when it was last heard.
    """

    number: int
    link: Link
    on_tick: OnTick | None
    model: str = ""
    loaded: dict[str, tuple[EngineInfo, MemoryBill]] | None = None
    pids: tuple[int, ...] | None = None
    phase: Phase | None = None
    elapsed_ns: int = 0
    completed: int = 0
    result: RunResult | None = None
    error: str | None = None
    over: bool = False
    clock: Clock | None = None
    clock_after: Clock | None = None
    hearing: Hearing = field(default_factory=Hearing)

    @property
    def name(self) -> str:
        """What to call it."""
        return self.model or f"worker {self.number}"

    @property
    def ready(self) -> bool:
        """Whether it waits for the instant to begin, or has begun."""
        return self.pids is not None

    @property
    def lost(self) -> LostWorker:
        """What is known of it without a result."""
        where = {"measure": "while it measured"}.get(self.phase or "", "before it measured")
        counted = self.completed if self.phase == "measure" else 0
        return LostWorker(worker=self.number, why=f"{self.error or self.link.end} {where}", completed=counted)

    @property
    def clocks(self) -> dict[str, int]:
        """What the environment of its result says of the clock of its host."""
        before, after = self.clock, self.clock_after
        if before is None:
            return {}
        told = {"offset_ns": before.offset_ns, "offset_error_ns": before.error_ns, "ahead_ns": before.ahead_ns}
        drift = {} if after is None else {"drift_ns": after.offset_ns - before.offset_ns}
        return {f"clock_{name}": value for name, value in {**told, **drift}.items()}
