"""Workers of one load that nobody started together (runs/fellows.py): they find each other on a host."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.environment import core_times
from loadtrt.results.gpu_telemetry import GpuClient, GpuSharing
from loadtrt.results.run_result import Problem, RunResult
from loadtrt.runs.fellows import found_by_fellows

if TYPE_CHECKING:
    from pathlib import Path

VIRTUAL: dict[str, Any] = {"engine": "simulated:service=1ms,clock=virtual", "warmup": "0s", "requests": 10}
START = time.time_ns()
FELLOW = f"""
import sys, time
from loadtrt.asked.config import RunConfig
from loadtrt.environment import core_times
from loadtrt.runs.fellows import found_by_fellows
with found_by_fellows(RunConfig.of(**{VIRTUAL!r}, worker=sys.argv[1]), int(sys.argv[2])):
    found = core_times()
    print(found.own - time.process_time(), flush=True)
    sys.stdin.readline()
"""


def _worker(text: str) -> RunConfig:
    return RunConfig.of(**VIRTUAL, worker=text)


def _fellow(worker: str, start_at: int) -> tuple[subprocess.Popen[str], float]:
    """(another worker, the processor time that it takes for its own beside what itself took)."""
    process = subprocess.Popen(
        [sys.executable, "-c", FELLOW, worker, str(start_at)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, float(process.stdout.readline())


def _own_s() -> float:
    found = core_times()
    assert found is not None
    return found.own


@pytest.mark.parametrize(("worker", "later", "known"), [("1/2", 0, True), ("1/2", 1, False), ("1/3", 0, False)])
def test_what_a_fellow_takes_is_not_taken_by_others(worker: str, later: int, known: bool) -> None:
    """A worker of the same load counts this process' time as its own; one of another load does not."""
    with found_by_fellows(_worker("0/2"), START):
        used = sum(os.times()[:2])  # seconds, since pytest began
        process, beside = _fellow(worker, START + later)
        process.communicate("end\n")
    assert used > 0.5, "pytest has imported less than it used to"
    assert (beside > 0.9 * used) == known


def test_nobody_knows_what_a_fellow_took_that_has_ended() -> None:
    """Then nothing is left to others, of whom there is no evidence."""
    with found_by_fellows(_worker("0/2"), START):
        process, _ = _fellow("1/2", START)
        assert math.isfinite(_own_s())
        process.communicate("end\n")
        assert _own_s() == math.inf
    assert math.isfinite(_own_s())


@pytest.mark.parametrize(("config", "starts"), [(_worker("0/2"), False), (RunConfig.of(**VIRTUAL), True)])
def test_without_an_instant_or_a_worker_nobody_is_a_fellow(config: RunConfig, starts: bool) -> None:
    with found_by_fellows(config, START if starts else None):
        process, _ = _fellow("1/2", START)
        process.communicate("end\n")
        assert math.isfinite(_own_s())


def test_a_worker_runs_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in some sandboxes: nobody is found."""
    monkeypatch.setattr("loadtrt.runs.fellows._PROC", tmp_path)
    with found_by_fellows(_worker("0/2"), START):
        assert math.isfinite(_own_s())


def test_a_fellow_on_the_gpu_is_no_stranger() -> None:
    """Nor is its result INVALID for it; with anybody else there it is."""
    import loadtrt

    shared = Problem(kind="gpu-shared", evidence="others computed", remedy="end them")
    single = loadtrt.run(**VIRTUAL, worker="0/2").with_model(problems=(shared,), valid=False)

    def beside(*pids: int) -> RunResult:
        clients = tuple(GpuClient(pid, "python", sm_ratio=0.5) for pid in pids)
        return single.model_copy(update={"sharing": GpuSharing(clients=clients), "valid": False})

    with found_by_fellows(_worker("0/2"), START) as without_blame:
        process, _ = _fellow("1/2", START)
        assert math.isfinite(_own_s())  # which has looked for fellows
        assert without_blame(beside(process.pid)).valid
        assert not without_blame(beside(process.pid, 1)).valid
        process.communicate("end\n")
