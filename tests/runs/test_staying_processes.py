"""Processes of models that stay for further runs: what stays, that it measures as new ones do, and how they end."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.asked.config import RunConfig
from loadtrt.runs.watched import Silence
from loadtrt.sizing.rig import NoWorkersError, Rig
from onnx_files import doubling

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.run_result import RunResult

ENDED_S = 20.0
A = {"engine": "simulated:service=2ms,cv=0.5,clock=virtual", "contexts": 2, "rate": "300/s"}
B = {"engine": "simulated:service=5ms,cv=0.5,clock=virtual", "contexts": 4}


def pair(a: dict[str, Any] = A, b: dict[str, Any] = B, **options: Any) -> RunConfig:
    return RunConfig.of(models={"a": a, "b": b}, **{"warmup": "0s", "duration": "1s", **options})


def loaded(model: dict[str, Any], rate: int) -> dict[str, Any]:
    return {**model, "rate": f"{rate}/s"}


def seen(result: RunResult) -> dict[str, Any]:
    """All that does not depend on the time of day."""
    return {name: (one.submitted, one.ok, one.metrics, one.histograms) for name, one in result.models.items()}


def processes(rig: Rig) -> list[int]:
    return [process._process.pid for process in rig._stay.values()]


def ended(number: int) -> bool:
    """Whether a process has, within ENDED_S."""
    until = time.monotonic() + ENDED_S
    while time.monotonic() < until:
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_engines_stay_and_outputs_are_compared_when_that_is_asked_for(tmp_path: Path) -> None:
    """Under other loads, in the same processes; their fleet does not wait for them, and they end with the rig."""
    model = {"engine": doubling(tmp_path, 4), "on": "onnxruntime", "threads_per_context": 1}
    with Rig(Silence()) as rig:
        rig.open(pair(model, model))
        with rig.apart() as apart:
            runs, found = [], []
            for rate, verify in ((50, True), (70, True), (90, False)):
                config = pair(loaded(model, rate), loaded(model, 2 * rate), verify=verify)
                runs.append(apart.run(config, "a run"))
                found.append(processes(apart))
            assert found == [found[0]] * 3
    assert len({run.phases.load_ns for run in runs}) == 1  # it is the time that loading took, which was once
    for rate, run in zip((50, 70, 90), runs, strict=True):
        assert {name: one.throughput.offered_per_s for name, one in run.models.items()} == {
            "a": pytest.approx(rate, rel=0.5),
            "b": pytest.approx(2 * rate, rel=0.5),
        }
    compared = [[one.verification is not None for one in run.models.values()] for run in runs]
    assert compared == [[True, True], [True, True], [False, False]]
    assert all(map(ended, found[0]))


def test_a_run_of_a_process_that_stays_is_that_of_a_new_one() -> None:
    """Whatever it measured before: as where a measurement is continued."""
    second = pair(loaded({**A, "seed": 7}, 200), {**B, "seed": 8}, verify=False)
    with Rig(Silence()) as rig:
        rig.open(pair())
        with rig.apart() as new:
            expected = new.run(second, "a run")
        with rig.apart() as stayed:
            first = stayed.run(pair(verify=False), "a run")
            again = stayed.run(second, "a run")
    assert seen(again) == seen(expected) != seen(first)


def test_one_model_may_be_measured_while_the_other_waits() -> None:
    """As beside an idle neighbour."""
    alone = RunConfig.of(models={"a": A}, warmup="0s", duration="1s", verify=False)
    with Rig(Silence()) as rig:
        rig.open(pair())
        with rig.apart() as apart:
            apart.run(pair(verify=False), "both")
            both = processes(apart)
            assert list(apart.run(alone, "one").models) == ["a"]
            assert list(apart.run(pair(verify=False), "both").models) == ["a", "b"]
            assert processes(apart) == both


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_a_process_that_dies_is_started_anew(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its time between two runs nobody misses it; the run that it had fails, and the next one does not."""
    with Rig(Silence()) as rig:
        rig.open(pair())
        with rig.apart() as apart:
            apart.run(pair(verify=False), "before")
            a, b = processes(apart)
            if when == "waiting":
                os.kill(b, signal.SIGKILL)
                apart._stay[1]._listener.join(ENDED_S)
            else:
                again = apart._stay[1].again

                def killed(*what: Any) -> None:
                    os.kill(b, signal.SIGSTOP)  # or the run might be over before
                    again(*what)
                    os.kill(b, signal.SIGKILL)

                monkeypatch.setattr(apart._stay[1], "again", killed)
                with pytest.raises(NoWorkersError, match="b: it was ended by SIGKILL"):
                    apart.run(pair(verify=False), "during")
            result = apart.run(pair(verify=False), "after")
            assert (result.outcome, list(result.models)) == ("completed", ["a", "b"])
            assert processes(apart)[1] != b
    assert ended(a)
