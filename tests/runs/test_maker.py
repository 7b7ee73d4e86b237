"""The one maker of runs: from Python, in an event loop or without one, and at a start instant."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

import loadtrt
from loadtrt.asked.config import RunConfig
from loadtrt.errors import UsageError
from loadtrt.lanes.outcome import LATE_START_NS
from loadtrt.runs import maker
from loadtrt.runs.maker import Maker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from loadtrt.results.run_result import RunResult

VIRTUAL: dict[str, Any] = {"engine": "simulated:service=5ms,clock=virtual", "warmup": "0s", "requests": 50}
REAL: dict[str, Any] = {"engine": "simulated:service=1ms", "warmup": "0s", "requests": 20}
SECOND_NS = 1_000_000_000


def _began_ns(result: RunResult) -> int:
    """`began` as Unix time in ns."""
    whole, _, fraction = result.began.partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * SECOND_NS + int(fraction[:9])


def test_a_run_from_a_script() -> None:
    """Options by name, or a configuration; nothing is printed."""
    result = loadtrt.run(**VIRTUAL)
    assert (result.outcome, result.model.ok) == ("completed", 50)
    again = loadtrt.run(RunConfig.of(**VIRTUAL))
    assert again.model.histograms == result.model.histograms
    assert loadtrt.run(RunConfig.of(**VIRTUAL), contexts=2).config.model.contexts == 2


def test_a_result_keeps_who_had_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing where nobody else did, and of a virtual clock, from which they take nothing."""
    for busy in ("the cores are used by others: load average 7.2 on 2 cores", None):
        monkeypatch.setattr(maker, "busy_host", lambda _, busy=busy: busy)
        assert loadtrt.run(**REAL).environment.get("busy_host") == busy
        assert "busy_host" not in loadtrt.run(**VIRTUAL).environment


def test_a_run_in_a_notebook() -> None:
    """An event loop is running, and stays usable."""

    async def cell() -> RunResult:
        result = loadtrt.run(**VIRTUAL)
        await asyncio.sleep(0)
        return result

    assert asyncio.run(cell()).model.ok == 50


def test_a_run_is_stopped_from_another_thread() -> None:
    """As a notebook's interrupt does: what is in flight finishes, and the result is whole."""
    config = RunConfig.of(**{**REAL, "requests": None, "duration": "10h"})
    began = threading.Event()
    with Maker() as maker:
        maker.open(config)

        def stop() -> None:
            began.wait()
            maker.signals.ask()

        stopper = threading.Thread(target=stop)
        stopper.start()
        result = maker.run(config, lambda phase, *_: began.set() if phase == "measure" else None)
        stopper.join()
    assert result.outcome == "interrupted"
    assert result.model.ok == result.model.submitted
    assert result.model.unserved == 0


@pytest.mark.parametrize(("interrupts", "printed"), [(1, "interrupted 0\n"), (2, "KeyboardInterrupt\n")])
def test_ctrl_c_in_a_script(interrupts: int, printed: str) -> None:
    """The first one returns the result of what was measured; the second one cancels requests in flight."""
    hangs = "service=1s,stall=20h@0s" if interrupts > 1 else "service=1ms"
    code = (
        "import os, signal, threading, time, loadtrt\n"
        "def interrupt():\n"
        "    while not any('loadtrt-run' == thread.name for thread in threading.enumerate()): time.sleep(0.01)\n"
        "    from loadtrt.lanes import together\n"
        "    measuring.wait()\n"
        f"    for _ in range({interrupts}):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(0.3)\n"
        "measuring = threading.Event()\n"
        "from loadtrt.lanes import together\n"
        "drive_with = together.drive_with\n"
        "def driven(*given):\n"
        "    measuring.set()\n"
        "    return drive_with(*given)\n"
        "together.drive_with = driven\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "try:\n"
        f"    result = loadtrt.run(engine='simulated:{hangs}', warmup=0, duration='10h', drain='1h')\n"
        "    print(result.outcome, result.model.unserved)\n"
        "except KeyboardInterrupt:\n"
        "    print('KeyboardInterrupt')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (printed, "")


def test_a_profile_is_part_of_the_result_and_no_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever files the configuration names."""
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"engine": "zoo:googlenet", "on": "onnxruntime", "requests": 2, "warmup": 0}
    result = loadtrt.run(RunConfig.of(**options, profile=True, json="run.json"))
    assert result.model.profile is not None
    assert result.model.profile.passes
    assert list(tmp_path.iterdir()) == []


def test_importing_loadtrt_imports_nothing_heavy() -> None:
    """`loadtrt.run` imports what it needs when it is called."""
    code = "import sys, loadtrt; print([name for name in ('numpy', 'pydantic', 'anyio') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- the start instant


def test_a_result_says_when_measuring_began() -> None:
    """UTC with ns, between two readings of the wall clock, give or take the error that it states."""
    before = time.time_ns()
    result = loadtrt.run(**REAL)
    after = time.time_ns()
    assert before - result.began_error_ns <= _began_ns(result) <= after + result.began_error_ns
    assert 0 < result.began_error_ns < SECOND_NS


@pytest.mark.parametrize("options", [REAL, VIRTUAL], ids=["real clock", "virtual clock"])
def test_measuring_does_not_begin_before_its_instant(options: dict[str, Any]) -> None:
    """Everything else is done before. How soon after it begins is the host's affair (benchmarks/start_at.py)."""
    start_at = time.time_ns() + SECOND_NS // 5
    result = loadtrt.run(start_at=start_at, **options)
    assert _began_ns(result) >= start_at - result.began_error_ns
    assert result.model.ok == options["requests"]


@pytest.mark.parametrize("options", [REAL, VIRTUAL], ids=["real clock", "virtual clock"])
def test_who_waits_for_the_instant_is_not_said_to_measure(options: dict[str, Any]) -> None:
    """A worker that waits for another one has measured nothing, and is not lost "while it measured"."""
    told: list[str] = []

    def start_at() -> int | None:
        told.append("asked")
        return time.time_ns() if told.count("asked") == 3 else None

    config = RunConfig.of(**options)
    with Maker() as maker:
        maker.open(config)
        maker.run(config, lambda phase, *_: told.append(phase), start_at=start_at)
    assert told.index("measure") > max(place for place, what in enumerate(told) if what == "asked")


@pytest.mark.parametrize("hours", [-1, 1], ids=["it has passed", "it is far away"])
def test_a_virtual_clock_is_at_its_instant(hours: int) -> None:
    """However late the host is, and without a leap: what a device does at some time of its clock, it does then."""
    options = {**VIRTUAL, "engine": f"{VIRTUAL['engine']},stall=50ms@100ms", "warmup": "5ms"}
    start_at = time.time_ns() + hours * 3600 * SECOND_NS
    at_once, result = loadtrt.run(**options), loadtrt.run(start_at=start_at, **options)
    assert _began_ns(result) == start_at
    assert (result.late_start_ns, result.began_error_ns) == (0, 0)
    assert result.valid
    assert result.model.histograms == at_once.model.histograms


def test_a_start_instant_that_has_passed_is_a_problem() -> None:
    """Of a kind of its own: other workers have begun."""
    result = loadtrt.run(start_at=time.time_ns() - 3600 * SECOND_NS, **REAL)
    assert "late-start" in {problem.kind for problem in result.model.problems}
    assert not result.valid
    assert LATE_START_NS < SECOND_NS


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: loadtrt.run({"engine": "simulated:null"}), "is neither a RunConfig nor"),  # type: ignore[arg-type]
        (lambda: loadtrt.run(start_at=int(time.time()) + 2, **REAL), "is not Unix time in ns"),
        (lambda: loadtrt.run(start_at="soon", **REAL), "is not Unix time in ns"),  # type: ignore[arg-type]
        (lambda: loadtrt.run(json="r.json", **REAL), "does not write this file: leave json out"),
        (lambda: loadtrt.run(contxts=2, **REAL), "unknown option 'contxts': did you mean 'contexts'?"),
    ],
)
def test_a_wrong_call_is_one_sentence(call: Callable[[], object], sentence: str) -> None:
    """Before an engine is opened."""
    with pytest.raises(UsageError) as caught:
        call()
    assert sentence in str(caught.value)


@pytest.mark.parametrize("models", [1, 2])
def test_what_compiling_takes_is_told_among_the_preparations(monkeypatch: pytest.MonkeyPatch, models: int) -> None:
    """Once for all models, as it is of all together; and a run that had to compile nothing says nothing of it."""
    engine = "simulated:service=1ms,clock=virtual"
    asked: dict[str, Any] = {
        "models": {f"m{number}": {"engine": engine} for number in range(models)},
        "warmup": "0s",
        "requests": 10,
    }
    assert loadtrt.run(**asked).phases.compile_ns == 0
    spent = iter((3 * SECOND_NS, *[10 * SECOND_NS] * models))
    monkeypatch.setattr("loadtrt.lanes.session.compiled_ns", lambda: next(spent))
    result = loadtrt.run(**asked)
    assert result.phases.compile_ns == 7 * SECOND_NS
    assert result.phases.before_ns >= 7 * SECOND_NS
    assert "compile 7.00 s" in str(result)
