"""What makes a run INVALID."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.asked.objective import parse_objective
from loadtrt.findings.validity import PROBLEM_KINDS, Counts, Terms, lateness_limit_ns, lateness_of, problems_of
from loadtrt.results.breakdown import MetricSummary
from loadtrt.results.gpu_telemetry import SHARED_LIMIT, GpuClient, GpuSharing

if TYPE_CHECKING:
    from loadtrt.results.run_result import Problem


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
    assert lateness_limit_ns(median_ns, False, None, [parse_objective(text) for text in objectives]) == limit_ns


def test_what_is_asked_for_holds_in_any_loop() -> None:
    """--max-lateness comes first; without it a closed loop has no limit."""
    assert lateness_limit_ns(1e6, True, 5, [parse_objective("latency.p99 < 10ms")]) == 5
    assert lateness_limit_ns(1e6, True, None) == math.inf


@pytest.mark.parametrize(
    ("ok", "unserved", "evidence"),
    [
        (5, 3, ["the run was interrupted and gave up 3 requests (their age counts as latency)"]),
        (0, 0, ["the run was interrupted before any request was served"]),
        (5, 0, []),
    ],
)
def test_an_interrupted_run_has_no_advice_about_the_load(ok: int, unserved: int, evidence: list[str]) -> None:
    """Requests that an interruption left unserved are neither an overload nor too short a run."""
    found = _problems(ok, unserved, interrupted=True)
    assert [problem.evidence for problem in found] == evidence
    assert not any("--" in problem.remedy for problem in found)
    advice = {problem.remedy for problem in _problems(ok, unserved, interrupted=False)}
    assert advice.isdisjoint(problem.remedy for problem in found)


def test_starved_lanes_advise_what_the_run_can_take() -> None:
    """As findings/remedies.py has it; an observer does not know."""
    (problem,) = _problems(5, 0, starved_fraction=0.06)
    assert "were idle for 6 %" in problem.evidence
    assert "more --buffers" in problem.remedy
    (problem,) = _problems(5, 0, starved_fraction=0.06, faster_host="use wings")
    assert problem.remedy == "the engine is faster than this host: use wings"


@pytest.mark.parametrize("counts", [{"starved_fraction": 0.06}, {"late": True}])
def test_on_cores_that_others_use_the_remedy_is_no_option(counts: dict[str, Any]) -> None:
    """It begins with the evidence of them."""
    busy = "the cores are used by others: load average 7.2 on 2 cores"
    (problem,) = _problems(5, 0, **counts)
    assert "others" not in problem.remedy
    (problem,) = _problems(5, 0, busy=busy, **counts)
    assert problem.remedy == f"{busy}: stop what else runs there, or run on other cores (taskset)"


def test_failed_requests_do_not_advise_a_longer_run() -> None:
    """The error is to be fixed; only a run without any request was too short."""
    (problem,) = _problems(0, 0, failed=5)
    assert "5 requests failed" in problem.evidence
    (problem,) = _problems(0, 0)
    assert "measure for longer" in problem.remedy


QUIET = Counts(lateness_ns=0, lateness_rank="p99", latency_ns=1e6, starved_fraction=0, ok=1000, failed=0, unserved=0)


def test_kinds() -> None:
    """Each problem has a kind of its own; a program need not read sentences."""
    counts = Counts(
        lateness_ns=1e9, lateness_rank="p99", latency_ns=1e6, starved_fraction=0.5, ok=1, failed=1, unserved=1
    )
    kinds = [problem.kind for problem in problems_of(counts, Terms(closed=False))]
    assert kinds == ["failed", "unserved", "late", "starved"]  # the worst first
    kinds += [problem.kind for problem in problems_of(_served(100), Terms(False, offered_per_s=200))]
    computes = GpuSharing((GpuClient(7, sm_ratio=0.5),))
    kinds += [problem.kind for problem in problems_of(replace(QUIET, sharing=computes), Terms(closed=True))]
    nothing = Counts(lateness_ns=0, lateness_rank="most", latency_ns=0, starved_fraction=0, ok=0, failed=0, unserved=0)
    assert [problem.kind for problem in problems_of(nothing, Terms(closed=True))] == ["no-requests"]
    assert set(PROBLEM_KINDS) == {*kinds, "no-requests"}


@pytest.mark.parametrize(
    ("served", "offered", "objectives", "told"),
    [
        (100, 200, [], True),
        (190.5, 200, [], False),  # as much as varies
        (189.5, 200, [], True),
        (100, None, [], False),  # offline
        (100, 200, ["compute.p99 < 1s", "errors < 1%", "drops < 1%", "power < 300W"], True),
        (100, 200, ["latency.p50 < 1s"], False),
        (100, 200, ["queue.p50 < 1s"], False),
        (100, 200, ["throughput > 90/s"], False),
        (100, 200, ["inferences > 90/s"], False),
        (100, 200, ["goodput(latency < 1s) > 90/s"], False),
        (100, 200, ["goodput(latency < 1s) > 90%"], False),
    ],
)
def test_a_load_above_capacity_is_judged_or_a_problem(
    served: float, offered: float | None, objectives: list[str], told: bool
) -> None:
    """Where the backlog grows and less than 95 % is served, an objective must be about that."""
    terms = Terms(False, None, [parse_objective(text) for text in objectives], offered_per_s=offered)
    found = problems_of(_served(served), terms)
    assert [problem.kind for problem in found] == ["overloaded"] * told
    assert all(f"only {100 * served / 200:.3g} % of the offered load of 200/s" in item.evidence for item in found)
    assert problems_of(replace(_served(served), overloaded=False), terms) == []
    unserved = replace(_served(served), unserved=3)
    assert [problem.kind for problem in problems_of(unserved, terms)] == ["unserved"]


@pytest.mark.parametrize(
    ("client", "computed"),
    [
        (GpuClient(7, sm_ratio=SHARED_LIMIT), True),
        (GpuClient(7, grew=True, sm_ratio=0.9 * SHARED_LIMIT), False),
        (GpuClient(7, memory_bytes=2**30, sm_ratio=0.0), False),
        (GpuClient(7, memory_bytes=2**30), False),
        (GpuClient(7, grew=True), True),
    ],
)
def test_who_computes_on_the_gpu_spoils_a_run(client: GpuClient, computed: bool) -> None:
    """From 0.5 % of the time on, or where that is not told by coming or growing; unless a shared GPU is measured."""
    counts = replace(QUIET, sharing=GpuSharing((client, GpuClient(8, sm_ratio=0.0))))
    found = problems_of(counts, Terms(closed=True))
    assert [problem.kind for problem in found] == ["gpu-shared"] * computed
    assert all("process 7" in problem.evidence and "process 8" not in problem.evidence for problem in found)
    assert problems_of(counts, Terms(closed=True, shared_gpu=True)) == []


def test_failed_requests_are_no_problem_where_an_objective_judges_them() -> None:
    """And none but one on errors does."""
    counts = Counts(0.0, "p99", 1e6, 0.0, 100, 3, 0)
    for text, kinds in (("errors < 5%", []), ("latency.p50 < 1s", ["failed"]), ("drops < 5%", ["failed"])):
        terms = Terms(False, None, [parse_objective(text)])
        assert [problem.kind for problem in problems_of(counts, terms)] == kinds


def _served(served_per_s: float) -> Counts:
    """A backlog that grew."""
    return Counts(0.0, "p99", 1e6, 0.0, 100, 0, 0, overloaded=True, served_per_s=served_per_s)


def _problems(
    ok: int,
    unserved: int,
    failed: int = 0,
    starved_fraction: float = 0.0,
    closed: bool = True,
    interrupted: bool = False,
    busy: str | None = None,
    late: bool = False,
    faster_host: str = "use more --buffers or larger batches",
) -> list[Problem]:
    counts = Counts(1e9 if late else 0.0, "p99", 1e6, starved_fraction, ok, failed, unserved, interrupted)
    return problems_of(counts, Terms(closed and not late, busy=busy, faster_host=faster_host))


@pytest.mark.parametrize(
    ("known", "found"),
    [
        ({"p50": 1.0, "p90": 2.0, "p95": 3.0, "p99": 4.0, "p99.9": 5.0}, (4.0, "p99")),
        ({"p50": 1.0, "p90": 2.0, "p95": 3.0, "p99": None, "p99.9": None}, (3.0, "p95")),
        ({"p50": 1.0, "p90": None, "p95": None, "p99": None, "p99.9": None}, (9, "most")),
        ({"p50": None, "p90": None, "p95": None, "p99": None, "p99.9": None}, (9, "most")),
    ],
)
def test_lateness_is_judged_at_the_highest_percentile_that_is_known(
    known: dict[str, float | None], found: tuple[float, str]
) -> None:
    """One late request of a few hundred does not make a run INVALID: up to p99, and the maximum of very few."""
    summary = MetricSummary(count=5, min_ns=1, mean_ns=3.0, max_ns=9, percentiles_ns=known)
    assert lateness_of(summary) == found
    late = replace(QUIET, lateness_ns=1e9, lateness_rank=found[1])
    (problem,) = problems_of(late, Terms(closed=False))
    assert f"late at {found[1]} (limit " in problem.evidence
