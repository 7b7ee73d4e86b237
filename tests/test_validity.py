"""Which lateness makes a run INVALID."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loadtrt.asked.objective import parse_objective
from loadtrt.findings.validity import lateness_limit_ns, problems_of
from loadtrt.results.run_result import MetricSummary, Problem
from loadtrt.stats.summary import PERCENTILES


def _metrics(median_ns: float) -> dict[str, MetricSummary]:
    percentiles = {**dict.fromkeys(PERCENTILES), "p50": median_ns, "p99": 2 * median_ns}
    summary = MetricSummary(count=1000, mean_ns=median_ns, min_ns=0, max_ns=10**9, percentiles_ns=percentiles)
    return {"latency": summary}


@pytest.mark.parametrize(
    ("median_ns", "objectives", "limit_ns"),
    [
        (1e6, [], 250_000),
        (40e6, [], 4_000_000),
        (1e6, ["latency.p99 < 10ms", "latency.p50 < 8ms"], 400_000),
        (1e6, ["compute.p99 < 10s"], 250_000),  # no bound on what lateness is part of
        (40e6, ["latency.p99 < 10ms"], 4_000_000),
    ],
)
def test_the_limit_is_the_greatest_of_three(median_ns: float, objectives: list[str], limit_ns: float) -> None:
    """max(250 µs, median / 10, the tightest objective on latency / 20)."""
    assert lateness_limit_ns(_metrics(median_ns), False, None, list(map(parse_objective, objectives))) == limit_ns


def test_what_is_asked_for_holds_in_any_loop() -> None:
    """--max-lateness stands above all; without it a closed loop has no limit."""
    assert lateness_limit_ns(_metrics(1e6), True, 5, [parse_objective("latency.p99 < 10ms")]) == 5
    assert lateness_limit_ns(_metrics(1e6), True, None) == math.inf


@pytest.mark.parametrize(
    ("ok", "unserved", "evidence"),
    [
        (5, 3, ["the run was interrupted and gave up 3 requests (the age then counts as latency)"]),
        (0, 0, ["the run was interrupted before any request was served"]),
        (5, 0, []),
    ],
)
def test_who_interrupts_is_told_nothing_of_the_load(ok: int, unserved: int, evidence: list[str]) -> None:
    """What an interruption left undone is neither an overload nor too short a run."""
    found = _problems(ok, unserved, interrupted=True)
    assert [problem.evidence for problem in found] == evidence
    assert not any("--" in problem.remedy for problem in found)
    assert all("--" in problem.remedy for problem in _problems(ok, unserved, interrupted=False))


@pytest.mark.parametrize(
    ("mode", "closed", "told"),
    [
        ({"graph": "yes"}, True, True),
        ({"graph": "yes", "requests per launch": "4"}, True, False),
        ({"graph": "no"}, True, False),
        ({}, True, False),
        ({"graph": "yes"}, False, False),
    ],
)
def test_who_keeps_lanes_idle_is_told_what_he_has_not_tried(mode: dict[str, str], closed: bool, told: bool) -> None:
    """Several requests a launch: in closed loops of an engine with CUDA graphs, where they are not there yet."""
    (problem,) = _problems(5, 0, starved_fraction=0.06, mode=mode, closed=closed)
    assert "stood idle for 6 %" in problem.evidence
    assert ("--requests-per-launch" in problem.remedy) == told
    assert "more --buffers" in problem.remedy


def test_who_had_every_request_failed_is_not_told_to_send_more() -> None:
    """The error is to be mended; only where nothing came of none at all was the run too short."""
    (problem,) = _problems(0, 0, failed=5)
    assert "5 requests failed" in problem.evidence
    (problem,) = _problems(0, 0)
    assert "raise --duration" in problem.remedy


def _problems(ok: int, unserved: int, **others: Any) -> list[Problem]:
    usual: dict[str, Any] = {"starved_fraction": 0.0, "failed": 0, "closed": True, "max_lateness_ns": None, "mode": {}}
    metrics = {**_metrics(1e6), "lateness": _metrics(0)["latency"]}
    return problems_of(metrics, ok=ok, unserved=unserved, **{**usual, **others})
