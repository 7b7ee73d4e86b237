"""Progress on stderr follows the reader's clock, and --quiet never hides why a command exits with a verdict's code."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper

from command_line import ROOT, loadtrt
from loadtrt.asked.config import RunConfig
from loadtrt.cli import voice
from loadtrt.units import SECOND_NS
from onnx_files import save

if TYPE_CHECKING:
    from pathlib import Path

VIRTUAL = "simulated:service=1ms,clock=virtual"


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("terminal", "lines_per_s"), [(False, 0.1), (True, 10)])
def test_progress_follows_the_clock_of_its_reader(
    terminal: bool, lines_per_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of virtual time in 30 s is shown as 30 s of any other run are."""
    stream, now = _Terminal() if terminal else StringIO(), [0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(voice, "perf_counter_ns", lambda: now[0])
    show = voice.Voice(quiet=False).progress(RunConfig.of(engine=VIRTUAL, duration="24h"))
    assert show is not None
    show("measure", 0, 0, 0)
    for second in range(1, 86_400):
        now[0] = second * 30 * SECOND_NS // 86_400
        show("measure", second * SECOND_NS, second, second)
    told = stream.getvalue().count("requests")
    assert 30 * lines_per_s - 2 <= told <= 30 * lines_per_s


def test_an_hours_trace_in_virtual_time_writes_no_flood(tmp_path: Path) -> None:
    """Without a terminal, a line at the beginning of each phase, and one each ten seconds of ours."""
    trace = tmp_path / "hour.csv"
    trace.write_text("t\n" + "".join(f"{2 * second}\n" for second in range(1800)))
    done = loadtrt("run", "--engine", VIRTUAL, "--trace", trace)
    assert done.returncode == 0
    assert 3 <= len(done.stderr.splitlines()) < 60  # 360 once
    assert "measure of 3600 s" in done.stderr


def test_the_wait_for_a_first_completion_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it goes on, and by which option."""
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    show = voice.Voice(quiet=False).progress(RunConfig.of(engine=VIRTUAL))
    assert show is not None
    monkeypatch.setattr(voice, "_LINE_NS", 0)
    show("warm-up", 0, 0, 0)
    show("warm-up", 30 * SECOND_NS, 8, 0)
    show("warm-up", 40 * SECOND_NS, 9, 1)
    first, waiting, going = stream.getvalue().splitlines()
    assert first == "warm-up"
    assert waiting == "warm-up 30.0 s · 8 in flight · no completion yet, for which there are 120 s (--drain)"
    assert "1 requests" in going


@pytest.mark.parametrize(
    ("slow", "quiet", "told"), [(True, False, "loading a.plan\n"), (False, False, ""), (True, True, "")]
)
def test_what_takes_seconds_is_told_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, slow: bool, quiet: bool, told: str
) -> None:
    """Once, however often it is told that it goes on."""
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(voice, "_SLOW_S", 0.01)
    speaker = voice.Voice(quiet=quiet)
    speaker.status("loading a.plan", slow=slow)
    if speaker._slow is not None:
        speaker._slow.join()
    speaker.status("loading a.plan", slow=slow)
    assert stream.getvalue() == told


def test_a_status_breaks_a_silence_of_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many runs without a terminal, which say a line when one of them is over."""
    stream, now = StringIO(), [0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(voice, "perf_counter_ns", lambda: now[0])
    speaker = voice.Voice(quiet=False)
    for second in range(1, 36):
        now[0] = second * SECOND_NS
        speaker.status(f"a run: measure {second} s")
        if second == 15:
            speaker.say("a run: over")
    assert stream.getvalue().splitlines() == [
        "a run: measure 10 s", "a run: over", "a run: measure 25 s", "a run: measure 35 s",
    ]  # fmt: skip


@pytest.mark.parametrize("ends", ["say", "end_line", "status", "progress"])
def test_what_is_over_is_not_told(monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    """Whatever comes next ends it."""
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    speaker = voice.Voice(quiet=False)
    speaker.status("loading a.plan", slow=True)
    waiting = speaker._slow
    assert waiting is not None
    match ends:
        case "say":
            speaker.say("loaded")
        case "end_line":
            speaker.end_line()
        case "status":
            speaker.status("measure")
        case _:
            show = speaker.progress(RunConfig.of(engine=VIRTUAL))
            assert show is not None
            show("warm-up", 0, 0, 0)
    waiting.join()  # at once, as it was cancelled
    assert "loading" not in stream.getvalue()


def test_what_ends_as_it_becomes_slow_is_not_told_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that can no longer be cancelled writes before the end, or not at all."""
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    speaker = voice.Voice(quiet=False)
    monkeypatch.setattr(voice, "_SLOW_S", 0.0)
    with speaker._deciding:
        speaker.status("loading a.plan", slow=True)
        waiting = speaker._slow
        assert waiting is not None
        waiting.finished.wait(0.05)  # it has most likely begun to tell
        speaker.end_line()
    waiting.join()
    assert stream.getvalue() == ""


def test_quiet_says_the_worst_first(tmp_path: Path) -> None:
    """Requests that failed, with the first error, before a generator that was late."""
    node = helper.make_node("Gather", ["t", "n"], ["y"])
    weights = {"t": np.zeros((2, 4), np.float32)}
    file = save(
        tmp_path / "m.onnx", [node], {"n": (TensorProto.INT64, [1])}, {"y": (TensorProto.FLOAT, [1, 4])}, weights
    )
    line = ("run", "--on", "onnxruntime", "--engine", file, "--input-range", "n:1..2", "--input-sets", "10")
    ending = ("--requests", "50", "--duration", "0s", "--warmup", "0", "--max-lateness", "1ns")
    done = loadtrt(*line, *ending, "--quiet", "--json", tmp_path / "r.json")
    (measured,) = json.loads((tmp_path / "r.json").read_text())["models"].values()
    assert [problem["kind"] for problem in measured["problems"]][:2] == ["failed", "late"]
    assert "loadtrt: INVALID: " in done.stderr
    assert " requests failed, and have no latency; fix the first error" in done.stderr
    assert "first error: Non-zero status code returned while running Gather node" in done.stderr
    assert done.stderr.count("\n") == 1


LATE = ("--requests", "600", "--max-lateness", "1ms")


@pytest.mark.parametrize(
    ("engine", "command", "options", "code", "line"),
    [
        (",enqueue=5ms", "run", LATE, 97, "INVALID: the generator was"),
        ("", "run", ("--requests", "600", "--objective", "latency.p99 < 1ms"), 99, "missed: ✗ latency.p99 < 1ms"),
        ("", "run", ("--requests", "20", "--objective", "latency.p99 < 1s"), 98, "undecided: ? latency.p99 < 1s"),
        (",enqueue=5ms", "sweep", (*LATE, "--contexts", "1,2"), 97, "INVALID, "),
        ("", "capacity", ("--time", "4s", "--objective", "latency.p99 < 1ms"), 99, "infeasible: no rate meets"),
    ],
)  # fmt: skip
def test_quiet_says_why_it_exits_with_the_code_of_a_verdict(
    engine: str, command: str, options: tuple[str, ...], code: int, line: str
) -> None:
    """In one line on stderr, and stdout stays empty."""
    done = loadtrt(command, "--engine", VIRTUAL + engine, "--warmup", "0", "--quiet", *options)
    assert (done.returncode, done.stdout) == (code, "")
    (said,) = done.stderr.splitlines()
    assert said.startswith("loadtrt: ")
    assert line in said


def test_quiet_starts_say_why_each() -> None:
    """A start of --repeat is a process, which says so itself."""
    command = [sys.executable, "-m", "loadtrt", "run", "--engine", f"{VIRTUAL},enqueue=5ms", "--warmup", "0", *LATE]
    done = subprocess.run([*command, "--repeat", "2", "--quiet"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (97, "")
    assert [line.partition(": the")[0] for line in done.stderr.splitlines()] == ["loadtrt: INVALID"] * 2


def test_quiet_says_nothing_of_what_went_well() -> None:
    """Of a run that is VALID and met its objectives."""
    done = loadtrt("run", "--engine", VIRTUAL, "--requests", "3000", "--objective", "latency.p99 < 1s", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_quiet_says_why_a_fleet_is_impossible(tmp_path: Path) -> None:
    """As plan-capacity shows a table only."""
    file = tmp_path / "capacity.json"
    found = ("--time", "4s", "--objective", "latency.p99 < 5ms", "--json", file, "--quiet")
    assert loadtrt("capacity", "--engine", VIRTUAL, *found).returncode == 0
    done = loadtrt("plan-capacity", file, "--demand", "2000/s", "--objective", "latency.p99 < 0.1ms", "--quiet")
    assert (done.returncode, done.stdout) == (99, "")
    assert done.stderr.startswith("loadtrt: ")
    assert len(done.stderr) > 40
