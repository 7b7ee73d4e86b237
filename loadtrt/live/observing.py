"""The observer process: `python -m loadtrt.live.observing FD`, started by `loadtrt.live.observer`.

It reads one message a line from stdin and ends with it. Messages: wishes (once, first), facts, forget, gpu, reading,
lost, say, telemetry, finish, end_drawing. The first, forget, telemetry, finish and end_drawing are answered with one
line on stdout each.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from loadtrt.errors import LoadtrtError
from loadtrt.live.observed import Run, models_of_run
from loadtrt.live.observer import RunFacts
from loadtrt.records.board import Board, board_bytes, boards_in
from loadtrt.results.gpu_telemetry import GpuReading
from loadtrt.signals import is_stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.live.clients import Clients
    from loadtrt.live.metrics import Observation
    from loadtrt.live.observed import Workers
    from loadtrt.live.pusher import Pusher
    from loadtrt.live.sampler import Sampler
    from loadtrt.live.view import View

_Seen = TypeVar("_Seen", "View", "Observation")
_FRAME_S = 0.25
_FOLLOW_S = 0.1
_CLOSE_S = 1.0


class Drawing:
    """Draws the run in a thread of its own: a terminal that hangs (Ctrl-S) must not hold anything else up."""

    def __init__(self, view: Callable[[], View]) -> None:
        from loadtrt.live.terminal import Terminal

        self._view = view
        self._terminal = Terminal()
        self._sentences: SimpleQueue[str] = SimpleQueue()
        self._ended = Event()
        self._run = os.getppid()
        self._thread = Thread(target=self._draw, daemon=True)
        self._thread.start()

    def say(self, sentence: str) -> None:
        """Write a line above the drawing."""
        self._sentences.put(sentence)

    def close(self) -> None:
        """Remove the drawing, unless the terminal hangs."""
        self._ended.set()
        self._thread.join(_CLOSE_S)

    def _draw(self) -> None:
        while not self._ended.wait(_FRAME_S):
            self._speak()
            if not is_stopped(self._run):  # by Ctrl-Z: then the terminal is the shell's
                self._terminal.show(self._view())
        self._speak()
        self._terminal.close()

    def _speak(self) -> None:
        with suppress(Empty):
            while True:
                self._terminal.say(self._sentences.get_nowait())


class Observing:
    """The state of the process. `handle` takes a message and returns the answer, None for none."""

    def __init__(self, boards: Sequence[Board]) -> None:
        self._boards = boards
        self._runs: list[Run | Workers] = []
        self._workers: dict[int, Run] = {}  # by the place of the board
        self._ended = Event()
        self._owned = ExitStack()
        self._gpus: dict[str, tuple[Sampler, Clients, frozenset[int]]] = {}  # by bus id, with own processes
        self._readings: dict[str, GpuReading] = {}  # the newest ones of other hosts' GPUs, by host and bus id
        self._no_gpu = ""
        self._drawing: Drawing | None = None
        self._draws = False
        self._pusher: Pusher | None = None
        self._pushing = Lock()
        self._linger_ns = 0
        self._final: Observation | None = None  # of the run that has ended last
        self._ended_runs: list[Observation] = []  # before the one that is observed, and still on the page

    def handle(self, message: dict[str, Any]) -> dict[str, Any] | None:
        match message:
            case {"wishes": {"metrics": address, "native": native, "terminal": draws, "push": urls, "linger_ns": ns}}:
                self._draws, self._linger_ns = bool(draws), int(ns)
                try:
                    self._push_to(urls)
                    return {"url": self._serve(address, native) if address else "", "error": ""}
                except LoadtrtError as error:
                    return {"url": "", "error": str(error)}
            case {"facts": list(texts)}:
                self._forget()
                told = {place: RunFacts.from_json(text) for place, text in enumerate(texts) if text}
                self._workers = {
                    place: Run(self._boards[place], facts, partial(self._latest, facts.bus))
                    for place, facts in told.items()
                }
                self._runs = runs = models_of_run(list(self._workers.values()))
                Thread(target=self._follow, args=(runs,), daemon=True).start()
                if self._draws:
                    self._drawing = Drawing(lambda: _of_all([run.view() for run in runs]))
            case {"forget": _}:
                self._forget()
                return {"forget": True}
            case {"gpu": str(bus_id), "own": dict(own)}:
                self._watch_gpu(bus_id, own)
            case {"reading": [str(bus_id), dict(fields)]}:
                self._readings[bus_id] = GpuReading(
                    **{**fields, "throttle_reasons": _tuple(fields["throttle_reasons"])}
                )
            case {"reading": [str(bus_id), None]}:
                self._readings.pop(bus_id, None)
            case {"lost": [place, why]} if place in self._workers:
                self._workers[place].lost = str(why)
            case {"finish": bool(push)}:
                return {"finish": self._finish(push)}
            case {"say": str(sentence)}:
                if self._drawing is not None:
                    self._drawing.say(sentence)
            case {"telemetry": [start_ns, end_ns, inferences, each_ns]}:
                if not self._gpus:
                    return {"telemetry": None, "why": self._no_gpu, "sharing": None}
                ((sampler, clients, _),) = self._gpus.values()
                telemetry = sampler.telemetry(start_ns, end_ns, inferences, each_ns)
                unix_ns = time.time_ns() - time.perf_counter_ns()
                sharing = asdict(clients.between(start_ns + unix_ns, end_ns + unix_ns))
                return {"telemetry": telemetry.model_dump(mode="json"), "why": "", "sharing": sharing}
            case {"end_drawing": _}:
                self._end_drawing()
                return {"end_drawing": True}
        return None

    def close(self) -> None:
        """End all threads, and release the port and the GPU."""
        self._ended.set()
        self._end_drawing()
        self._owned.close()

    def _follow(self, runs: Sequence[Run | Workers]) -> None:
        while not self._ended.wait(_FOLLOW_S) and runs is self._runs:
            for run in runs:
                run.follow()

    def _forget(self) -> None:
        """Boards are read no more, until others are described; the last numbers of a run that is over are kept."""
        with self._pushing:
            if self._final is not None:  # the GPU's numbers are those of the next run now
                others = tuple(replace(other, gpu=None) for other in self._final.others)
                self._ended_runs.append(replace(self._final, gpu=None, others=others))
            self._final, self._runs, self._workers, self._readings = None, [], {}, {}

    def _observation(self) -> Observation | None:
        """Of the run that is observed; None where there is none."""
        runs = self._runs
        return _of_all([run.observation() for run in runs]) if runs else None

    def _finish(self, push: bool) -> list[str]:
        with self._pushing:
            self._final = seen = self._observation()
            return [] if self._pusher is None or seen is None else self._pusher.finish(seen, push=push)

    def _before(self) -> list[Observation]:
        """Runs that have ended a moment ago: scrapes must see their last numbers, though others have begun."""
        now_ns = time.time_ns()
        self._ended_runs = [seen for seen in self._ended_runs if now_ns < seen.now_ns + self._linger_ns]
        return self._ended_runs

    def _push_to(self, urls: list[str]) -> None:
        if urls:
            from loadtrt.live.pusher import EACH_S, Pusher

            self._pusher = pusher = Pusher(urls)
            if pusher.continues:
                Thread(target=self._push_each, args=(pusher, EACH_S), daemon=True).start()

    def _push_each(self, pusher: Pusher, every_s: float) -> None:
        while not self._ended.wait(every_s):
            with self._pushing:  # what is pushed later must be seen later: histories take nothing older
                if self._final is None and (seen := self._observation()) is not None:
                    pusher.push(seen)

    def _latest(self, bus_id: str, start_ns: int, end_ns: int) -> GpuReading | None:
        if bus_id not in self._gpus:
            return self._readings.get(bus_id)
        sampler, clients, own = self._gpus[bus_id]
        reading = sampler.latest
        if reading is None or not start_ns:
            return reading
        sharing = clients.between(start_ns, end_ns)
        others = tuple(client for client in sharing.clients if client.pid not in own)  # than the workers of a fleet
        return replace(reading, sharing=replace(sharing, clients=others))

    def _end_drawing(self) -> None:
        if self._drawing is not None:
            self._drawing.close()
            self._drawing = None

    def _serve(self, address: str, native: bool) -> str:
        from loadtrt.live.exporter import Exporter

        exporter = Exporter(
            address,
            self._observation,
            native=native,
            view=lambda: _of_all([run.view() for run in runs]) if (runs := self._runs) else None,
            before=self._before,
        )
        return self._owned.enter_context(exporter).url

    def _watch_gpu(self, bus_id: str, own: dict[str, list[int]]) -> None:
        from loadtrt.live.clients import Clients, Own
        from loadtrt.live.nvml import open_gpu
        from loadtrt.live.sampler import Sampler

        if bus_id in self._gpus:  # of a fleet before: the next one has other processes
            sampler, clients, before = self._gpus[bus_id]
            self._gpus[bus_id] = sampler, clients, before | frozenset(own["pids"])
            return
        gpu, self._no_gpu = open_gpu(bus_id)
        if gpu is not None:
            self._owned.enter_context(gpu)
            clients = Clients(gpu, Own.from_json(own))
            sampler = self._owned.enter_context(Sampler(gpu, clients=clients))
            self._gpus[bus_id] = sampler, clients, frozenset(own["pids"])


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    """As JSON has it, which knows no tuples."""
    return None if values is None else tuple(values)


def _of_all(models: Sequence[_Seen]) -> _Seen:
    """What is known of the first model of a run, with that of the others."""
    return replace(models[0], others=tuple(models[1:]))


def main() -> None:
    """Observe the run until it ends or is gone."""
    descriptor = int(sys.argv[1])
    size = os.fstat(descriptor).st_size
    memory = mmap.mmap(descriptor, size)
    os.close(descriptor)
    observing = Observing(boards_in(memory, size // board_bytes()))
    messages: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    Thread(target=_listen, args=(messages,), daemon=True).start()
    try:
        while (message := messages.get()) is not None:
            answer = observing.handle(message)
            if answer is not None:
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
    except BrokenPipeError:
        pass  # the run has gone
    finally:
        observing.close()


def _listen(messages: SimpleQueue[dict[str, Any] | None]) -> None:
    try:
        for line in sys.stdin:
            messages.put(json.loads(line))
    finally:  # also after half a line, of a run that was killed in the middle of it
        messages.put(None)


if __name__ == "__main__":
    main()
    gc.freeze()  # CPython would look for garbage in all that is left
