"""Commands that signal themselves at a named point, so that the instant is certain; each in a process of its own.

`python signalled.py` forks one process for each line on its stdin, a Case as JSON, and answers with its exit code: a
fork spares the second that imports take.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVICE, VIRTUAL = "simulated:service=1ms", "simulated:service=1ms,clock=virtual"
HANGS = "simulated:service=1s,stall=20h@0s"  # requests in flight do not finish
PATIENCE_S = 300  # so long that only a fault is longer

# point: (module, name of a function in it) that sends the signals when it is called first, and then does its work.
CALLS = {
    "opening": ("loadtrt.engines.open", "open_engine"),
    "summing up": ("loadtrt.lanes.joined", "result_of"),
    "writing": ("loadtrt.files", "write_file"),
    "showing": ("loadtrt.cli.delivery", "show"),
    "reading": ("loadtrt.report.result_files", "read_file"),
    "quantizing": ("loadtrt.engines.build_model", "_silent"),
}


# Packages and modules that commands import, but nothing that starts a thread: no engine.
_PRELOADED = (
    "asked",
    "cli",
    "findings",
    "lanes",
    "load",
    "records",
    "report",
    "report.charts",
    "results",
    "runs",
    "stats",
)
_ALONE = ("anyio._backends._asyncio", "numba", "numpy.ma", "loadtrt.engines.simulated", "loadtrt.report.html")


@dataclass(frozen=True)
class Case:
    """A command that signals itself.

    arguments: of `loadtrt`.
    point: where; see `_arm`.
    signals: their names, in this order.
    folder: the working folder, in which stdout, stderr and the folder tmp are made.
    streams: files that are stdin, stdout and stderr; "" for one that is closed.
    """

    arguments: tuple[str, ...]
    point: str
    signals: tuple[str, ...]
    folder: str
    streams: tuple[str, str, str] = ("/dev/null", "stdout", "stderr")


class Server:
    """The process that forks. Use it in a `with`."""

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=PATIENCE_S)

    def exit_code(self, case: Case) -> int:
        """Run the command; returns its exit code, −N where signal N killed it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        Path(case.folder, "tmp").mkdir(exist_ok=True)
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _serve() -> None:
    for name in (*_ALONE, *(f"loadtrt.{package}" for package in _PRELOADED)):
        module = import_module(name)
        for found in pkgutil.iter_modules(module.__path__, f"{name}.") if name not in _ALONE else ():
            import_module(found.name)
    gc.freeze()  # a command that ends looks for no garbage in what it has from here
    while line := sys.stdin.readline():
        case = Case(**json.loads(line))
        process = os.fork()
        if not process:
            _be(case)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _be(case: Case) -> None:
    """Be the command, in a process that is just made."""
    signal.alarm(PATIENCE_S)  # kills it
    os.chdir(case.folder)
    for number, (name, file) in enumerate(zip(("stdin", "stdout", "stderr"), case.streams, strict=True)):
        if file:
            opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY)
            os.dup2(opened, number)
            os.close(opened)
        else:  # as CPython begins
            setattr(sys, name, None)
            setattr(sys, f"__{name}__", None)
            os.close(number)
    os.environ.update(TMPDIR=str(Path("tmp").absolute()), LOADTRT_CASE=case.folder, ORT_DISABLE_TELEMETRY="1")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the tests may be in the background of a shell
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.argv = ["loadtrt", *case.arguments]
    if case.arguments[0] == "build":
        from fake_builder import install

        install(pytest.MonkeyPatch(), "8.6" if case.point.endswith("8.6") else "10")
    _arm(case.point, [getattr(signal, name) for name in case.signals])
    from loadtrt.__main__ import main

    main()


def _send(numbers: list[signal.Signals]) -> None:
    """Send them to this thread, the later ones while the first is heeded."""
    if numbers:
        try:
            signal.raise_signal(numbers[0])
        finally:
            _send(numbers[1:])


def _arm(point: str, numbers: list[signal.Signals]) -> None:
    """Have the signals sent at `point`."""
    send = _once(partial(_send, numbers))
    match point:
        case "measuring":
            _before("loadtrt.lanes.together", "drive_with", lambda: _soon(numbers))
        case "measuring several":
            _before("loadtrt.lanes.together", "_turn", lambda: _soon(numbers))
        case "timing layers":
            from loadtrt.cli.voice import Voice
            from loadtrt.engines import onnx_profile

            onnx_profile._WHOLE = 0  # hardly any runs without the profiler

            def share(self: Voice, what: str, fraction: float) -> None:
                if what == "plain: layers":
                    send()

            Voice.share = share  # type: ignore[method-assign]
        case "building" | "building with 8.6":
            _before("loadtrt.engines.plan_builder", "_build", partial(_build, numbers))
        case "lingering":
            _before("loadtrt.signals", "Signals.sleep", send)
        case "simulating":
            _before("loadtrt.sizing.fleet_plan", "_Planner.spend", send)
        case "watching" | "waiting for an answer":
            import loadtrt.cli.watch
            from live_snapshots import FACTS, snapshot
            from loadtrt.live.view import Viewer

            views = iter([Viewer().take(snapshot(), FACTS, None, 0)] if point == "watching" else [])

            def read_view(url: str) -> Any:
                view = next(views, None)
                if view is None:
                    send()
                return view

            loadtrt.cli.watch.read_view = read_view
        case "in the middle of writing":  # all bytes are in a file of another name
            sys.addaudithook(lambda event, of: send() if event == "os.rename" and "out.json" in str(of[1]) else None)
        case "waiting for a reader":  # of a pipe, which it opens again and again
            sys.addaudithook(lambda event, of: send() if event == "open" and str(of[0]).endswith("/pipe") else None)
        case "exiting":
            import atexit

            atexit.register(send)
        case _:
            _before(*CALLS[point], send)


def _once(act: Callable[[], object]) -> Callable[[], object]:
    acts = [act]
    return lambda: acts.pop()() if acts else None


def _before(module: str, name: str, act: Callable[[], object]) -> None:
    """Have `act` called before the first call of a function or method, whoever has imported it."""
    __import__(module)
    owner = sys.modules[module]
    *classes, name = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    original, act = getattr(owner, name), _once(act)

    def called(*arguments: Any, **named: Any) -> Any:
        act()
        return original(*arguments, **named)

    setattr(owner, name, called)
    for other in list(sys.modules.values()):
        if getattr(other, name, None) is original:
            setattr(other, name, called)


def _soon(numbers: list[signal.Signals]) -> None:
    """Send each at a turn of its own of the event loop."""
    import asyncio

    for place, number in enumerate(numbers):
        asyncio.get_running_loop().call_later(0.1 * (place + 1), signal.raise_signal, number)


def _build(numbers: list[signal.Signals]) -> None:
    """In the builder's thread: each once the one before is heeded; the builder goes on when all are."""
    from loadtrt.signals import SIGNALS

    for place, number in enumerate(numbers):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
        while SIGNALS._asked <= place:
            time.sleep(0.01)
    time.sleep(0.5)  # longer than the main thread takes to ask the builder to stop


@contextmanager
def on_a_terminal(command: list[str], **options: Any) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process on a pseudo-terminal that is its own, and the terminal's other end: "\\x03" written there is Ctrl-C."""
    import fcntl
    import pty
    import termios

    leader, follower = pty.openpty()

    def own() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, preexec_fn=own, **options) as it:  # noqa: PLW1509
        os.close(follower)
        try:
            yield it, leader
        finally:
            if it.poll() is None:
                it.kill()
            os.close(leader)


if __name__ == "__main__":
    _serve()
