"""Answers of a search for capacity that need no open loop: throughput is the limit, or the time is too short."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from command_line import loadtrt
from loadtrt.asked.reading import load_config
from loadtrt.report.plain import terminal_text
from loadtrt.sizing.find import Finder
from loadtrt.sizing.rig import Rig
from loadtrt.sizing.wanted import Wanted
from loadtrt.units import SECOND_NS, parse_duration
from rigs import Heard

if TYPE_CHECKING:
    from loadtrt.results.capacity_result import CapacityResult


def searched(
    engine: str, *objectives: str, time: str = "10m", quick: bool = False, **options: object
) -> CapacityResult:
    load: dict[str, object] = {"arrivals": "poisson"}
    load |= {key: options.pop(key) for key in ("arrivals", "stages", "stages_loop") if key in options}
    asked = {"engine": engine, "warmup": 0, "objective": list(objectives), "rate": "1/s", **load, **options}
    wanted = Wanted(load_config(None, asked), load, (1,), (None,), time_ns=parse_duration(time), quick=quick)
    with Rig(Heard()) as rig:
        finder = Finder(wanted, rig, Heard(), lambda _: None)
        finder.make()
    return finder.result


SLOW = "simulated:service=2s,cv=0.3,clock=virtual"
TOO_SHORT = re.compile(
    r"--time is too short for this engine: a request takes ([0-9.]+ m?s), and ([0-9]+) are needed at least; "
    r"give --time ([0-9]+m) or more"
)


@pytest.mark.parametrize(
    ("engine", "objective", "time", "quick", "needed"),
    [
        (SLOW, "latency.p90 < 10s", "20s", False, "150"),
        (SLOW, "latency.p99 < 10s", "30s", True, "100"),
        ("simulated:service=400ms,cv=0.3,clock=virtual", "latency.p90 < 10s", "20s", False, "150"),
        ("simulated:service=50ms,cv=0.3,clock=virtual", "latency.p99 < 400ms", "12s", False, "368"),
    ],
)
def test_a_time_too_short_for_the_engine_is_said_instead_of_worthless_trials(
    engine: str, objective: str, time: str, quick: bool, needed: str
) -> None:
    """It is undecided after the ladder, with how long a request takes, and a time that is enough to search."""
    (only,) = searched(engine, objective, time=time, quick=quick).candidates
    assert (only.answer, only.searched, only.estimate_per_s) == ("undecided", (), None)
    said = TOO_SHORT.fullmatch(only.conclusion)
    assert said is not None, only.conclusion
    assert said[2] == needed
    (longer,) = searched(engine, objective, time=said[3], quick=quick).candidates
    assert longer.searched
    assert longer.estimate_per_s


@pytest.mark.parametrize("time", ["10m", "13m"])
def test_a_trial_of_a_slow_engine_has_some_requests(time: str) -> None:
    """However short a part of the time that is: a trial of less than one request says nothing."""
    (only,) = searched(SLOW, "latency.p90 < 10s", time=time).candidates
    assert only.searched
    for trial in (trial for trial in only.searched if trial.kind == "search"):
        assert trial.run is not None
        assert (trial.run.config.duration or 0) * (trial.rate_per_s or 0) > 25 * SECOND_NS


EXPONENTIAL = "simulated:service=10ms,distribution=exponential,clock=virtual"


@pytest.mark.parametrize(
    ("engine", "objectives", "options"),
    [
        (EXPONENTIAL, ["latency.p99 < 10h"], {}),
        (EXPONENTIAL, ["latency.p99 < 10s"], {}),
        (EXPONENTIAL, ["latency.p50 < 1h", "errors < 1%"], {"quick": True}),
        ("simulated:service=10ms,clock=virtual", ["latency.p99 < 3m"], {}),
        ("simulated:service=10ms,cv=0.3,clock=virtual", ["latency.p99 < 1h"],
         {"stages": "100/s:8s, 50/s:2s", "stages_loop": True}),
        ("simulated:service=2ms,item=8ms,cv=0.3,clock=virtual", ["latency.p99 < 10h"],
         {"batcher": "max=4,delay=2ms", "time": "2m"}),
    ],
)  # fmt: skip
def test_a_bound_that_no_trial_can_show_missed_leaves_throughput_as_the_limit(
    engine: str, objectives: list[str], options: dict[str, object]
) -> None:
    """At 107 % of what an engine serves the backlog of a trial is seconds: it would be met, though it grows for ever.
    So nothing is searched, and the capacity is the throughput that closed loops measured, with its interval."""
    result = searched(engine, *objectives, **options)  # type: ignore[arg-type]
    (only,) = result.candidates
    assert (only.answer, only.searched, only.confirmed_per_s, result.best) == ("estimated", (), None, only)
    true_per_s = 4 / 0.034 if "batcher" in options else 100.0
    assert only.low_per_s is not None
    assert only.high_per_s is not None
    assert only.low_per_s <= true_per_s * 1.001
    assert true_per_s * 0.999 <= only.high_per_s < 1.2 * true_per_s
    text = " ".join(terminal_text(result).split())
    assert "throughput limits the rate: about " in text
    assert "above that the backlog grows" in text


@pytest.mark.parametrize(
    ("engine", "objective", "arrivals"),
    [
        (EXPONENTIAL, "latency.p99 < 2s", "poisson"),
        ("simulated:service=10ms,clock=virtual", "latency.p99 < 15ms", "constant"),
    ],
)
def test_a_bound_that_a_queue_reaches_is_searched(engine: str, objective: str, arrivals: str) -> None:
    """Also where the rate is nearly the throughput: there a trial above it shows the miss."""
    (only,) = searched(engine, objective, arrivals=arrivals).candidates
    assert {trial.kind for trial in only.searched} >= {"search", "confirm"}
    assert "throughput limits" not in only.conclusion


def test_throughput_as_the_limit_exits_0() -> None:
    """As an estimate does."""
    done = loadtrt("capacity", "--engine", EXPONENTIAL, "--warmup", "0", "--objective", "latency.p99 < 10h")
    assert done.returncode == 0
    assert "throughput limits the rate" in done.stdout
