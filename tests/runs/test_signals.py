"""Signals: SIGINT, SIGTERM and SIGHUP do the same at every instant of every command, and nothing is lost or left."""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import json
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from loadtrt.lanes.scheduler import Stop
from loadtrt.live.observer import Observer, Wishes
from loadtrt.results.run_result import RunResult
from loadtrt.signals import Signals
from onnx_files import save
from signalled import HANGS, PATIENCE_S, SERVICE, VIRTUAL, Case, Server, on_a_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
TWICE = ("SIGTERM", "SIGINT")

RUN = ("run", "--engine", VIRTUAL, "--requests", "50", "--warmup", "0", "--json", "out.json")
LONG = ("--warmup", "0", "--duration", "10h", "--drain", "10h", "--json", "out.json")
SWEEP = ("sweep", "--engine", VIRTUAL, "--contexts", "1,2", "--requests", "50", "--warmup", "0", "--json", "out.json")
CAPACITY = ("capacity", "--engine", VIRTUAL, "--objective", "latency.p99 < 5ms", "--warmup", "0", "--json", "out.json")
PROFILE = ("profile", "--engine", "conv.onnx", "--batch", "1", "--on", "onnxruntime", "--warmup", "0",
           "--json", "out.json")  # fmt: skip
BUILD = ("build", "conv.onnx", "--batch", "2", "-o", "out.json")  # a plan, called as the other results are
REPORT = ("report", "one.json", "-o", "out.json", "--format", "html")
COMPARE = ("compare", "one.json", "two.json", "--json", "out.json")
PLAN = ("plan-capacity", "one.json", "two.json", "--demand", "3000", "--objective", "latency.p99 < 9s",
        "--json", "out.json")  # fmt: skip
WATCH = ("watch", "127.0.0.1:18410")

INTERRUPTED = "130, nothing written"
KEPT = "130, the result says interrupted"
DONE = "0, the whole result"
WRITTEN = "130, the whole result"


@dataclass(frozen=True)
class Row:
    """What one signal and two do at an instant.

    one, two: exit code and file. twice: the arguments for two signals, where they are others.
    """

    arguments: tuple[str, ...]
    point: str
    one: str
    two: str
    twice: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.arguments[0]} {self.point}"


ROWS = (
    Row(RUN, "opening", INTERRUPTED, INTERRUPTED),
    Row(("run", "--engine", SERVICE, *LONG), "measuring", KEPT, KEPT, ("run", "--engine", HANGS, *LONG)),
    Row(RUN, "summing up", DONE, DONE),
    Row(RUN, "writing", DONE, DONE),
    Row(RUN, "in the middle of writing", DONE, DONE),
    Row(RUN, "showing", DONE, DONE),
    Row((*RUN, "--metrics", "127.0.0.1:0", "--metrics-linger", "10h"), "lingering", DONE, DONE),
    Row(RUN, "exiting", DONE, DONE),
    Row((*RUN, "--export-times", "times.json"), "summing up", DONE, WRITTEN),
    Row(SWEEP, "opening", INTERRUPTED, INTERRUPTED),
    Row(("sweep", "--engine", SERVICE, "--contexts", "1,2", *LONG), "measuring", KEPT, KEPT,
        ("sweep", "--engine", HANGS, "--contexts", "1,2", *LONG)),
    Row(SWEEP, "summing up", KEPT, KEPT),
    Row(SWEEP, "in the middle of writing", KEPT, KEPT),
    Row(SWEEP, "showing", DONE, DONE),
    Row(CAPACITY, "opening", INTERRUPTED, INTERRUPTED),
    Row(("capacity", SERVICE, *CAPACITY[3:], "--time", "1000h"), "measuring", KEPT, KEPT,
        ("capacity", HANGS, *CAPACITY[3:], "--time", "1000h")),
    Row(CAPACITY, "summing up", KEPT, KEPT),
    Row(CAPACITY, "in the middle of writing", KEPT, KEPT),
    Row(PROFILE, "opening", INTERRUPTED, INTERRUPTED),
    Row((*PROFILE, "--duration", "10h"), "timing layers", KEPT, KEPT),
    Row((*PROFILE, "--requests", "5"), "in the middle of writing", DONE, DONE),
    Row((*RUN[:2], *PROFILE[2:7], *RUN[3:], "--profile"), "timing layers", WRITTEN, WRITTEN),
    Row((*BUILD, "--int8", "--strongly-typed"), "quantizing", INTERRUPTED, INTERRUPTED),
    Row(BUILD, "building", INTERRUPTED, INTERRUPTED),
    Row(BUILD, "building with 8.6", INTERRUPTED, INTERRUPTED),
    Row(BUILD, "in the middle of writing", WRITTEN, WRITTEN),
    Row(REPORT, "reading", INTERRUPTED, INTERRUPTED),
    Row(REPORT, "writing", INTERRUPTED, INTERRUPTED),
    Row(REPORT, "in the middle of writing", WRITTEN, WRITTEN),
    Row(COMPARE, "reading", INTERRUPTED, INTERRUPTED),
    Row(COMPARE, "in the middle of writing", WRITTEN, WRITTEN),
    Row(COMPARE, "showing", WRITTEN, WRITTEN),
    Row(PLAN, "reading", INTERRUPTED, INTERRUPTED),
    Row(PLAN, "simulating", KEPT, KEPT),
    Row(PLAN, "in the middle of writing", DONE, DONE),
    Row(WATCH, "waiting for an answer", INTERRUPTED, INTERRUPTED),
    Row(WATCH, "watching", "0, nothing written", INTERRUPTED),
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as one:
        yield one


@pytest.fixture(scope="module")
def inputs(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(server, folder)
    return folder


def make_inputs(server: Server, folder: Path) -> None:
    """What commands read: a model, and closed loops of one context and of two."""
    weights = np.ones((4, 3, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv1", pads=[1, 1, 1, 1])
    sides = {"x": (TensorProto.FLOAT, ("N", 3, 8, 8))}, {"y": (TensorProto.FLOAT, ("N", 4, 8, 8))}
    save(folder / "conv.onnx", [node], *sides, {"w": weights})
    for contexts, name in enumerate(("one.json", "two.json"), 1):
        arguments = ("run", "--engine", VIRTUAL, "--requests", "2000", "--warmup", "0", "--quiet")
        case = Case((*arguments, "--contexts", str(contexts), "--json", name), "exiting", (), str(folder))
        assert server.exit_code(case) == 0


def observed(server: Server, inputs: Path, arguments: tuple[str, ...], point: str, signals: tuple[str, ...],
             folder: Path) -> str:  # fmt: skip
    """Exit code and file of a command that signals itself. Raises AssertionError for what it leaves."""
    for file in inputs.glob("*.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    code = server.exit_code(Case(arguments, point, signals, str(folder)))
    said = (folder / "stderr").read_text()
    assert "Traceback" not in said, said
    assert os.listdir(folder / "tmp") == []
    made = {file.name for file in folder.iterdir()} - {file.name for file in inputs.iterdir()}
    assert made <= {"tmp", "stdout", "stderr", "out.json", "out.json.json", "out.json.log", "times.json"}
    end = time.monotonic() + PATIENCE_S
    while left := _processes_of(folder):
        assert time.monotonic() < end, f"{left} still run"
        time.sleep(0.05)
    if "out.json" not in made:
        assert "out.json.json" not in made
        if code == 130:
            assert said.splitlines()[-1] == "loadtrt: interrupted"
        return f"{code}, nothing written"
    text = (folder / "out.json").read_bytes()
    if arguments[0] == "build":
        assert "out.json.json" in made  # plan and sidecar
        return f"{code}, the whole result"
    if arguments[0] == "report":
        assert text.rstrip().endswith(b"</html>")
        return f"{code}, the whole result"
    result = json.loads(text)
    what = "the result says interrupted" if result.get("outcome") == "interrupted" else "the whole result"
    return f"{code}, {what}"


def _processes_of(folder: Path) -> list[str]:
    """The processes that a command has left, by what its environment held."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"LOADTRT_CASE={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended, or is another user's
            continue
    return found


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_signal_at_every_instant(row: Row, server: Server, inputs: Path, tmp_path: Path) -> None:
    """Each of the three alone does the same, in turn from instant to instant, as one handler has them all; and two end
    at once."""
    name = NAMES[ROWS.index(row) % len(NAMES)]
    for number, signals in enumerate(((name,), TWICE)):
        folder = tmp_path / str(number)
        folder.mkdir()
        two = len(signals) > 1
        arguments = row.twice or row.arguments if two else row.arguments
        assert observed(server, inputs, arguments, row.point, signals, folder) == (row.two if two else row.one), signals


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_while_the_command_line_is_imported(name: str, tmp_path: Path) -> None:
    """Handlers are there before anything heavy is: a sentence and 130. Also inside exec(), by which libraries make
    classes of text, and after which CPython would end by SIGINT."""
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, sys\n"
        "class Hook:\n"
        "    def find_spec(self, module, *_):\n"
        f"        if module == 'loadtrt.cli.main': exec('signal.raise_signal(signal.{name})')\n"
        "sys.meta_path.insert(0, Hook())\n"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "loadtrt", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "loadtrt: interrupted\n")


def test_what_is_not_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGHUP that was ignored, as by nohup, stays so; and no handler is set in another thread."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert not signals.requested()
    finally:
        signal.signal(signal.SIGHUP, before)
    handlers = [signal.getsignal(getattr(signal, name)) for name in NAMES]
    found: list[object] = []

    def enter() -> None:
        with Signals():
            found.extend(signal.getsignal(getattr(signal, name)) for name in NAMES)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == handlers == [signal.getsignal(getattr(signal, name)) for name in NAMES]


def test_only_what_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of signals while a result is summed up, or within 10 s; after that one more ends the process."""
    now = [0.0]
    monkeypatch.setattr("loadtrt.signals.time.monotonic", lambda: now[0])
    ended: list[float] = []
    monkeypatch.setattr(Signals, "die", lambda _: ended.append(now[0]))
    with Signals() as signals:
        signals.hold()
        with signals.computing():
            for now[0] in range(100):
                signal.raise_signal(signal.SIGTERM)
        for now[0] in (101, 105, 108):
            signal.raise_signal(signal.SIGINT)
        assert ended == []
        now[0] = 110.0
        signal.raise_signal(signal.SIGINT)
        assert ended == [110.0]


def test_the_observer_heeds_no_signal() -> None:
    """Whoever sends them to all processes of a service, before it has started or later: its run ends it."""
    observer = Observer(Wishes(metrics="127.0.0.1:0"))
    process = observer._process
    for _ in range(2):
        for name in NAMES:
            process.send_signal(getattr(signal, name))
        observer.ready()
    assert observer.telemetry(0, 1, 1) == {"telemetry": None, "why": "", "sharing": None}
    observer.close()
    assert process.returncode == 0


# --- the terminal

_TERMINALS_BUFFER = 3900  # Linux has 4095 bytes

DRAWN = (sys.executable, "-m", "loadtrt", "run", "--engine", "simulated:service=5ms", "--contexts", "2", *LONG)


@pytest.mark.parametrize("keys", [1, 2, 3, 5])
def test_the_cursor_is_back_after_any_number_of_ctrl_c(keys: int, tmp_path: Path) -> None:
    """With each a terminal throws away what it has not shown yet. The drawing is removed while nobody reads what is
    shown; then, while the result is written to a pipe that is full, the others come. The result is whole."""
    os.mkfifo(tmp_path / "out.json")
    pipe = os.open(tmp_path / "out.json", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    with on_a_terminal([*DRAWN], cwd=tmp_path) as (process, terminal):
        _read_until(terminal, b"lane 1")
        while _unread(terminal) < _TERMINALS_BUFFER:
            time.sleep(0.05)
        for number in range(keys):
            os.write(terminal, b"\x03")
            if number == 0:
                select.select([pipe], [], [], PATIENCE_S)
        os.set_blocking(pipe, True)
        with open(pipe, encoding="utf-8") as file:
            assert RunResult.model_validate_json(file.read()).outcome == "interrupted"
        _assert_restored(_read_until(terminal))
        assert process.wait(PATIENCE_S) == 130


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_cursor_is_back_after_a_signal(name: str, tmp_path: Path) -> None:
    """As after Ctrl-C."""
    with on_a_terminal([*DRAWN], cwd=tmp_path) as (process, terminal):
        _read_until(terminal, b"lane 1")
        process.send_signal(getattr(signal, name))
        _assert_restored(_read_until(terminal))
        assert process.wait(PATIENCE_S) == 130


def test_a_closed_terminal_keeps_the_result(tmp_path: Path) -> None:
    """Its window is closed, or ssh drops: SIGHUP, and nothing can be written to it any more."""
    with on_a_terminal([*DRAWN], cwd=tmp_path) as (process, terminal):
        _read_until(terminal, b"lane 1")
        os.dup2(os.open(os.devnull, os.O_RDWR), terminal)
        assert process.wait(PATIENCE_S) == 130
    assert RunResult.model_validate_json((tmp_path / "out.json").read_text()).outcome == "interrupted"


def test_an_observer_that_stands_still_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it when the run leaves: both would take ten hours."""
    monkeypatch.setattr("loadtrt.live.observer._ANSWER_S", 36_000.0)
    for leave in (Observer.end_drawing, Observer.close):
        observer = Observer(Wishes(metrics="127.0.0.1:0"))
        observer.ready()
        observer._process.send_signal(signal.SIGSTOP)
        leave(observer)
        assert not observer.alive
        observer.close()


def test_an_observer_that_stands_still_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has drawn, and is stopped: its run ends it, restores the terminal itself, and says so."""
    monkeypatch.setenv("LOADTRT_CASE", str(tmp_path))
    with on_a_terminal([*DRAWN], cwd=tmp_path) as (process, terminal):
        _read_until(terminal, b"lane 1")
        (observer,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(observer), signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        rest = _read_until(terminal)
        _assert_restored(rest)
        assert b"the observer process did not answer and was ended" in rest
        assert process.wait(PATIENCE_S) == 130
    assert _processes_of(tmp_path) == []


@pytest.mark.parametrize("keys", [1, 3])
def test_watching_leaves_the_terminal_as_it_was(keys: int) -> None:
    """The view is drawn; any number of Ctrl-C."""
    code = (
        "import loadtrt.cli.watch as watch\n"
        "from live_snapshots import FACTS, snapshot\n"
        "from loadtrt.live.view import Viewer\n"
        "watch.read_view = lambda _: Viewer().take(snapshot(), FACTS, None, 0)\n"
        "from loadtrt.__main__ import main\n"
        "main()\n"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with on_a_terminal([sys.executable, "-c", code, *WATCH], env=path) as (process, terminal):
        _read_until(terminal, b"lane 1")
        os.write(terminal, b"\x03" * keys)
        _assert_restored(_read_until(terminal))
        assert process.wait(PATIENCE_S) in ((0,) if keys == 1 else (0, 130))


def _read_until(terminal: int, words: bytes | None = None) -> bytes:
    """What is written on a terminal, until it holds these words or its last writer has gone."""
    shown = b""
    while words is None or words not in shown:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux's word for the end of a terminal
            part = b""
        if not part:
            assert words is None, shown
            break
        shown += part
    return shown


def _unread(terminal: int) -> int:
    """Bytes that can be read; further ones wait in a queue that is thrown away."""
    return int.from_bytes(fcntl.ioctl(terminal, termios.FIONREAD, bytes(4)), sys.byteorder)


def _assert_restored(shown: bytes) -> None:
    """Shown while a view is drawn: in the end there is no colour, lines wrap and the cursor is seen."""
    shown = b"\x1b[?25l\x1b[?7l\x1b[31m" + shown
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l"), shown[-300:]
    assert shown.rfind(b"\x1b[?7h") > shown.rfind(b"\x1b[?7l"), shown[-300:]
    assert b"\x1b[0m" in shown[shown.rfind(b"\x1b[?7l") :]


def _print_table() -> None:
    """What all rows do, as Markdown: PYTHONPATH=.:tests/support python tests/runs/test_signals.py"""
    print("| command | when a signal comes | SIGINT, SIGTERM or SIGHUP | two signals |\n|---|---|---|---|")
    with Server() as server, TemporaryDirectory() as name:
        inputs = Path(name, "inputs")
        inputs.mkdir()
        make_inputs(server, inputs)
        for number, row in enumerate(ROWS):
            cells = []
            for place, signals in enumerate((*((name,) for name in NAMES), TWICE)):
                folder = Path(name, f"{number}-{place}")
                folder.mkdir()
                arguments = (row.twice or row.arguments) if len(signals) > 1 else row.arguments
                cells.append(observed(server, inputs, arguments, row.point, signals, folder))
            *ones, two = cells
            command = " ".join(word for word in row.arguments if word in (row.arguments[0], *_TOLD))
            print(f"| `{command}` | {row.point} | {'; '.join(dict.fromkeys(ones))} | {two} |", flush=True)


_TOLD = ("--export-times", "--metrics-linger", "--profile", "--int8")

if __name__ == "__main__":
    _print_table()


def test_signals_of_one_command_are_not_those_of_the_next() -> None:
    """A process that runs several, as a notebook or a test does."""
    from loadtrt.signals import SIGNALS

    with SIGNALS:
        SIGNALS.ask()
        SIGNALS.ask()
        assert SIGNALS.hurried()
    assert not SIGNALS.requested()


class Everywhere:
    """Asks to stop at one instruction of a function that is called inside the block."""

    def __init__(self, signals: Signals, function: Callable[..., Any], instruction: int):
        self._code = inspect.unwrap(function).__code__
        self._signals, self._left = signals, instruction

    @property
    def asked(self) -> bool:
        return self._left < 0

    def __enter__(self) -> Everywhere:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Callable[..., Any] | None:
        if frame.f_code is not self._code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= 1
            if self._left == -1:
                os.kill(os.getpid(), signal.SIGINT)
        return self._trace


def test_a_signal_at_any_instruction_of_the_start_of_a_run_stops_it() -> None:
    """Nothing is between a signal that comes before a run and one that comes in it."""
    asked = 0
    while True:
        stop = Stop()
        with Signals() as signals, Everywhere(signals, Signals.run, asked) as where:
            signals.hold()

            async def work(signals: Signals = signals, stop: Stop = stop) -> None:
                assert stop.requested == signals.requested()

            asyncio.run(signals.run(work, stop, lambda _: None))
        if not where.asked:
            break
        asked += 1
    assert asked > 50


def test_a_signal_at_any_instruction_of_an_interruptible_block_interrupts_it() -> None:
    """The block is not begun after a signal, and a signal at its end is still known."""
    asked = 0
    while True:
        with Signals() as signals, Everywhere(signals, Signals.interruptible, asked) as where:
            signals.hold()
            with suppress(KeyboardInterrupt), signals.interruptible():
                assert not signals.requested()
            assert signals.requested() == where.asked
        if not where.asked:
            break
        asked += 1
    assert asked > 10
