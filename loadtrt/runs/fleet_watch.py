"""The one observer of a fleet, on the host of the command. It reads the boards of all workers: processes of that host
write to its memory, and what those on other hosts write is copied there."""

from __future__ import annotations

import mmap
import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from loadtrt.live.observer import Point, RunFacts
from loadtrt.live.watching import Watch
from loadtrt.records.board import boards_in
from loadtrt.runs.maker import run_name
from loadtrt.runs.shown import Shown, wishes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.records.board import Board
    from loadtrt.runs.watched import Talks


def fleets_shown(config: RunConfig, workers: int, talks: Talks, *, draws: bool = False) -> Shown:
    """What shows fleets, with an observer where one is asked for. Raises UsageError for metrics that cannot be served.

    workers: the most that a fleet has.
    draws: whether a live view is drawn, as `config` says.
    """
    wishes = wishes_of(config, talks, draws=draws)
    boards = len(config.models) if config.model_processes else workers * len(config.models)
    return Shown(Watch(wishes if wishes.follows else None, talks.say, None, boards), talks, wishes)


class FleetWatch:
    """A fleet's run as it is shown: not before all workers have loaded their engines.

    run: what the fleet's run is called, in metrics and in the result.
    """

    def __init__(self, config: RunConfig, workers: int, shown: Shown, point: Point | None = None) -> None:
        """point: as for `Maker.run`."""
        shown.empty()
        self.run = run_name(datetime.now(UTC))
        self._shown, self._point = shown, point
        self._named = tuple(config.models) if config.model_processes else ()  # of a worker each
        self._models, self._telemetry = 1 if self._named else len(config.models), config.telemetry
        self._facts: list[RunFacts | None] = [None] * (workers * self._models)
        self._pids: set[int] = set()
        self._awaited = set(range(workers)) if shown.boards else set()
        self._told = False
        self._lost: dict[int, str] = {}
        self._unheard: dict[int, str] = {}  # devices of workers that were lost before they told anything
        self._alone, self._here = workers == 1 or bool(self._named), config.ray is None

    def boards_for(self, number: int) -> str:
        """What the process of a worker finds its boards by: the descriptor that it inherits, and the place of the first
        one. "" where nobody reads them."""
        observer = self._shown.watch.observer if self._shown.boards else None
        return f"{observer.descriptor}:{number * self._models}" if observer is not None else ""

    def hear(self, number: int, device: int | None, told: dict[str, Any]) -> None:
        """A worker has loaded its engines. told: see `Boards`."""
        self._pids.update(told["pids"])
        worker, where = ("", "") if self._alone else (str(number), "" if device is None else str(device))
        for place, text in enumerate(told["facts"]):
            facts = replace(RunFacts.from_json(text), run=self.run, worker=worker, device=where, point=self._point)
            if self._named:
                facts = replace(facts, model=self._named[number])
            if facts.bus and not self._here:  # the GPU at that place is another one here
                facts = replace(facts, bus=f"{facts.host} {facts.bus}")
            self._facts[number * self._models + place] = facts
        self._await(number)

    def read(self, number: int, reading: dict[str, Any] | None) -> None:
        """What the GPU of a worker on another host says now; None: nothing any more."""
        observer, facts = self._shown.watch.observer, self._facts[number * self._models]
        if observer is not None and self._told and facts is not None and facts.bus:
            observer.send(reading=[facts.bus, reading])

    def over(self, number: int, device: int | None, why: str | None) -> None:
        """The process of a worker has ended. why: None where it left a result."""
        if not self._shown.boards:
            return
        if number in self._awaited and not self._named:  # before it had its engines, which others have, too
            self._unheard[number] = "" if device is None else str(device)
        for place in range(number * self._models, (number + 1) * self._models):
            if why is None:
                self._shown.boards[place].enter("done")
            else:
                self._lost[place] = why
                self._tell_lost(place)
        if why is not None and not self._here:
            self.read(number, None)
        self._await(number)

    def _await(self, number: int) -> None:
        if number not in self._awaited:
            return
        self._awaited.remove(number)
        told = [facts for facts in self._facts if facts is not None]
        if self._awaited or not told:
            return
        for unheard, device in self._unheard.items():  # it would have measured what the others do
            for place, facts in enumerate(told[: self._models], unheard * self._models):
                self._facts[place] = replace(facts, worker=str(unheard), device=device, bus="", uuid="")
        self._shown.watch.open(None, telemetry=False)
        self._shown.describe(*self._facts)
        self._told = True
        for place in self._lost:
            self._tell_lost(place)
        observer = self._shown.watch.observer
        if observer is not None and self._telemetry and self._here:
            for bus_id in dict.fromkeys(facts.bus for facts in self._facts if facts is not None and facts.bus):
                observer.send(gpu=bus_id, own={"pids": sorted(self._pids), "before": []})

    def _tell_lost(self, place: int) -> None:
        observer = self._shown.watch.observer
        if observer is not None and self._told:
            observer.send(lost=[place, self._lost[place]])

    def end(self) -> None:
        """All workers have ended."""
        self._shown.watch.require_alive()
        self._shown.end_drawing()


def boards_at(found_by: str, models: int) -> Sequence[Board]:
    """The boards of a worker. found_by: what `FleetWatch.boards_for` gives."""
    descriptor, first = map(int, found_by.split(":"))
    memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    return boards_in(memory, first + models)[first:]


class Boards:
    """The boards of a worker, in the memory of another process' observer.

    found_by: what `FleetWatch.boards_for` gives.
    tell: takes what that process is to know: "facts" of each model as JSON, and the "pids" of this one.
    """

    def __init__(self, found_by: str, models: int, pids: Sequence[int], tell: Callable[[dict[str, Any]], None]) -> None:
        self.boards = boards_at(found_by, models)
        os.close(int(found_by.partition(":")[0]))
        self._pids, self._tell = pids, tell

    def describe(self, *facts: RunFacts) -> None:
        """What is measured, model by model."""
        self._tell({"facts": [of_model.to_json() for of_model in facts], "pids": list(self._pids)})
