"""A worker: a process that measures its part of a fleet's load. `Worker` is what drives it, whatever starts it; this
module is also the process that `runs/fleet.py` starts: `python -m loadtrt.runs.worker [--stays] BOARDS [DESCRIPTOR…]`,
BOARDS "" for none; the descriptors are of the memory by which workers route the requests of each model.

Messages are lines of JSON. On stdin: the configuration, {"start": Unix time in ns}, {"ask": true}, which is answered by
{"here"}, and {"hurry": true}, which ends the run at once; the end of stdin does so, too. On stdout: {"say"},
{"loaded"} with its engines, {"tick"}, {"ready"}, {"facts"} for who observes it, then {"result"} or {"error"}. SIGTERM
ends the run as in the command. With --stays it then waits for {"run": a configuration as text}, for which it keeps its
engines open, or for the end of stdin.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING

from loadtrt.asked.config import RunConfig
from loadtrt.environment import FELLOWS, count_as_own, read_words
from loadtrt.errors import EXIT_INTERRUPTED, LoadtrtError, shortage_of
from loadtrt.live.clients import own_process
from loadtrt.loop.compiled import tell_of_compiling
from loadtrt.printing import printable_json
from loadtrt.runs.fleet_watch import Boards
from loadtrt.runs.maker import Maker
from loadtrt.runs.started_worker import LOADED, STAYS
from loadtrt.runs.watched import Silence, bus_id_of
from loadtrt.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.lanes.start_instant import StartAt
    from loadtrt.results.run_result import RunResult

    Tell = Callable[[str, object], None]

_PATIENCE_S = 15.0  # of a run whose parent has gone, to end by itself
_LOOK_S = 0.5  # for a signal, of one that waits for its next run


class Worker:
    """Prepares, says so, and measures from a common instant on.

    tell: takes the name of a message and what it holds.
    """

    def __init__(self, maker: Maker, tell: Tell) -> None:
        self._maker, self._tell = maker, tell
        self._config: RunConfig | None = None
        self._numa: int | None = None
        self._ready = False

    def prepare(self, config: RunConfig) -> None:
        """Load the engines, on the cores that are near the GPU. Those of a run before stay open, except simulated ones,
        whose draws begin anew, and their outputs are compared if `config` says so. Raises LoadtrtError."""
        if any(opened.engine.info.kind == "simulated" for opened in self._maker.models.values()):
            self._maker.close_engines()
        self._maker.open(config)
        self._maker.require_room()
        self._config = config
        loaded = {name: (opened.engine.info, opened.bill) for name, opened in self._maker.models.items()}
        self._tell("loaded", LOADED.dump_python(loaded, mode="json"))
        for name, opened in self._maker.models.items():
            opened.verified.clear()
            bus_id = bus_id_of(opened.engine.info.kind, config.models[name].device)
            self._numa = self._numa if bus_id is None else pin(bus_id)

    def run(self, start_at: StartAt) -> RunResult:
        """Allocate, verify, warm up, wait for `start_at`, measure. Raises LoadtrtError."""
        assert self._config is not None  # noqa: S101  # prepare() was called
        self._ready = False

        def told() -> int | None:
            if not self._ready:
                self._ready = True
                self._tell("ready", list(own_process().pids))
            return start_at() if callable(start_at) else start_at

        result = self._maker.run(self._config, lambda *counts: self._tell("tick", counts), start_at=told)
        numa = {} if self._numa is None else {"numa_node": self._numa}
        return result.model_copy(update={"environment": {**result.environment, **numa}})


def pin(bus_id: str, root: Path = Path("/")) -> int | None:
    """Keep this thread, and those that it starts, on the cores of the NUMA node of a GPU; returns the node, None where
    it is not known or none of its cores may be used. root: folder of /sys."""
    folder = root / "sys/bus/pci/devices" / bus_id.lower()
    node, cores = read_words(folder / "numa_node"), os.sched_getaffinity(0) & cores_of(folder)
    if not node.isdecimal() or not cores:
        return None
    os.sched_setaffinity(0, cores)
    return int(node)


def cores_of(folder: Path) -> set[int]:
    """The cores near a PCI device, by its folder in /sys; none where it does not tell."""
    ranges = [part.partition("-") for part in read_words(folder / "local_cpulist").split(",") if part]
    return {core for first, _, last in ranges for core in range(int(first), int(last or first) + 1)}


class _Telling(Silence):
    """Passes on what a run says."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        tell_of_compiling(self.say)

    def say(self, sentence: str) -> None:
        with suppress(BrokenPipeError):  # what started this has gone, and the run ends for that
            self._tell("say", sentence)


def main() -> None:
    """Be a worker, until its run is over or what started it has gone."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no message
    started: list[int] = []
    runs: SimpleQueue[str | None] = SimpleQueue()
    speaking = Lock()  # two threads do

    def write(line: str) -> None:
        with speaking:
            answers.write(line + "\n")
            answers.flush()

    def tell(name: str, content: object) -> None:
        write(json.dumps({name: content}))

    def listen() -> None:
        try:
            for line in sys.stdin:
                message = json.loads(line)
                if "start" in message:
                    started.append(message["start"])
                elif "run" in message:
                    runs.put(message["run"])
                elif "ask" in message:
                    tell("here", None)
                else:
                    _hurry()
        finally:
            runs.put(None)
            _leave()

    code = 0
    arguments = sys.argv[1:]
    stays = arguments[0] == STAYS
    family = os.environ.get(FELLOWS, str(os.getppid())).split()
    count_as_own(lambda: family)
    try:
        with SIGNALS:
            config = RunConfig.model_validate_json(sys.stdin.readline())
            boards = None
            found_by, *routing = arguments[stays:]
            if found_by:
                boards = Boards(found_by, len(config.models), own_process().pids, partial(tell, "facts"))
            with Maker(_Telling(tell), signals=SIGNALS, many=stays, followers=boards) as maker:
                worker = Worker(maker, tell)
                maker.routing = dict(zip(config.models, map(int, routing), strict=False))
                Thread(target=listen, daemon=True).start()
                wanted: RunConfig | None = config
                while wanted is not None:
                    worker.prepare(wanted)
                    result = worker.run(lambda: started[0] if started else None)
                    started.clear()
                    write(f'{{"result": {printable_json(result.model_dump_json())}}}')
                    wanted = _next(runs) if stays else None
    except LoadtrtError as error:
        code = error.exit_code
        tell("error", str(error))
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = EXIT_INTERRUPTED  # what started it has gone
    except Exception as error:
        code = 3
        tell("error", shortage_of(error) or f"a fault in loadtrt itself: {type(error).__name__}: {error}")
    sys.stderr.flush()
    os._exit(code)  # without waiting for the thread that listens, nor for a device that hangs


def _next(runs: SimpleQueue[str | None]) -> RunConfig | None:
    """The configuration of the next run; None where there is none, or a signal asks to end."""
    while not SIGNALS.requested():
        with suppress(Empty):
            text = runs.get(timeout=_LOOK_S)
            return None if text is None else RunConfig.model_validate_json(text)
    return None


def _hurry() -> None:
    """End the run at once."""
    while not SIGNALS.hurried():
        SIGNALS.ask()


def _leave() -> None:
    """What started this process has gone: nobody takes a result."""
    if not SIGNALS.holds:
        os._exit(EXIT_INTERRUPTED)
    _hurry()
    time.sleep(_PATIENCE_S)
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
