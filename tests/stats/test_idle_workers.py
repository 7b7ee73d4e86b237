"""Workers that get none of a fleet's requests, or few: the fleet counts as one process would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import loadtrt
from loadtrt.report.plain import terminal_text
from loadtrt.results.run_result import RunResult
from loadtrt.stats.adding import Adding
from loadtrt.stats.merging import merge

if TYPE_CHECKING:
    from pathlib import Path

SECOND_NS = 1_000_000_000
VIRTUAL: dict[str, Any] = {"engine": "simulated:service=2ms,clock=virtual", "warmup": "0s", "contexts": 1}


def workers_of(workers: int, **options: Any) -> list[RunResult]:
    return [loadtrt.run(**{**VIRTUAL, **options}, worker=f"{place}/{workers}") for place in range(workers)]


def merged(runs: list[RunResult]) -> RunResult:
    return merge({f"{place}.json": run for place, run in enumerate(runs)})


def found(result: RunResult, kind: str = "idle-worker") -> list[str]:
    return [item.evidence for item in result.model.findings if item.kind == kind]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Two users, and one who comes twice, 20 ms apart."""
    rows = [(0.01 * place, f"u{place % 2}") for place in range(1000)] + [(5.001, "u2"), (5.021, "u2")]
    file = tmp_path / "users.csv"
    file.write_text("time,user\n" + "".join(f"{at:.3f},{user}\n" for at, user in sorted(rows)))
    return file


def test_sticky_routing_leaves_workers_idle(trace: Path) -> None:
    """Which measured what they should: the fleet is VALID, and says which got nothing; so does each of them."""
    runs = workers_of(8, trace=trace, routing="sticky:user", objective=("latency.p90 < 1s", "throughput > 1/s"))
    result = merged(runs)
    idle = [run.worker for run in runs if not run.model.submitted]
    assert len(idle) >= 5
    assert all(run.valid for run in runs)
    assert [found(run) for run in runs if run.worker in idle] == [
        [f"worker {number} of 8 got no request"] for number in idle
    ]
    assert result.valid
    assert found(result) == [f"{len(idle)} of 8 workers got no request: {', '.join(idle)}"]
    assert result.model.objectives[0].verdict == "met"
    assert terminal_text(result).count("IDLE") == len(idle)
    reread = RunResult.model_validate_json(merged(runs[:3]).to_json())
    again = merged([reread, *runs[3:]])
    assert again.model.model_dump() == result.model.model_dump()


def test_a_rate_is_that_of_the_whole_run(trace: Path) -> None:
    """As one process counts it, though a worker served its two requests within milliseconds, at a rate of its own."""
    one = loadtrt.run(
        **{**VIRTUAL, "contexts": 8}, trace=trace, objective=("throughput > 1/s", "goodput(latency < 1s) > 1/s")
    )
    apart = workers_of(
        64, trace=trace, routing="sticky:user", objective=("throughput > 1/s", "goodput(latency < 1s) > 1/s")
    )
    assert sorted(run.model.ok for run in apart if run.model.ok) == [2, 500, 500]
    rate = one.model.throughput.requests_per_s
    assert sum(run.model.throughput.requests_per_s or 0.0 for run in apart) > 1.4 * (rate or 0.0)
    result = merged(apart).model
    assert result.throughput.requests_per_s == pytest.approx(rate, rel=1e-9)
    assert [share.value for share in result.objectives] == pytest.approx([rate, rate], rel=1e-9)
    assert {share.reason for share in result.objectives} == {one.model.objectives[0].reason}


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"requests": 3}, "there are fewer requests than workers"),
        ({"requests": 3, "rate": 100, "routing": "round-robin"}, "round-robin routing gave all of them to others"),
        ({"requests": 2, "rate": 100}, "random routing gave all of them to others"),
    ],
)
def test_fewer_requests_than_workers(options: dict[str, Any], cause: str) -> None:
    runs = workers_of(4, **options)
    result = merged(runs)
    idle = [run for run in runs if not run.model.submitted]
    assert idle
    assert result.valid
    assert result.model.ok == options["requests"]
    (finding,) = (item for item in result.model.findings if item.kind == "idle-worker")
    assert finding.cause == cause


def test_a_fleet_that_served_nothing_is_invalid() -> None:
    """As a run of one process is, which is nobody's worker."""
    nothing: dict[str, Any] = {"rate": 1, "duration": "1ms"}
    result = merged(workers_of(2, **nothing))
    assert not result.valid
    assert [item.kind for item in result.model.problems] == ["no-requests"]
    assert [item.kind for item in loadtrt.run(**VIRTUAL, **nothing).model.problems] == ["no-requests"]


def test_a_worker_that_served_nothing_of_what_was_due_is_invalid() -> None:
    """An engine that hangs is not an idle one."""
    hangs = {"engine": "simulated:service=2ms,hang=1us,clock=virtual", "drain": "100ms"}
    lost = loadtrt.run(**{**VIRTUAL, **hangs}, worker="1/2", rate=100, duration="1s")
    assert not lost.valid
    assert not found(lost)


def test_an_idle_worker_takes_nothing_from_what_is_known_of_rates() -> None:
    """Rates of a load that is steady add up, and a worker that was due nothing adds none: the fleet's is known as well
    as those of the others."""
    runs = workers_of(2, rate=200, duration="30s", objective="throughput > 150/s")
    idle = loadtrt.run(**{**VIRTUAL, "rate": 1, "duration": "1ms"}, worker="2/3").model
    config = [run.config.model_copy(update={"worker": f"{place}/3"}) for place, run in enumerate((*runs, runs[0]))]
    three = [run.model_copy(update={"config": of}) for run, of in zip((*runs, runs[0]), config, strict=True)]
    share = runs[0].model.objectives[0].model_copy(update={"value": None, "value_low": None, "value_high": None})
    three[2] = three[2].model_copy(update={"models": {"simulated": idle.model_copy(update={"objectives": (share,)})}})
    result, known = merged(three).model, merged(runs).model
    assert result.throughput.requests_per_s == known.throughput.requests_per_s
    assert result.throughput.confidence == known.throughput.confidence
    assert result.objectives[0].verdict == "met"
    assert result.objectives[0].value_low == known.objectives[0].value_low


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_errors_that_go_together_are_worth_one_worker(workers: int) -> None:
    """However many there are, of equal parts; a sample of requests is worth one or more of them."""
    adding = Adding(together=True)
    assert adding.size([(1000, 50.0)] * workers) == pytest.approx(50)
    assert adding.size([(1000, 0.01)] * workers) == pytest.approx(1)
    assert adding.size([(1000, None)] * workers) == 0


def test_a_worker_of_few_requests_takes_little_from_the_others() -> None:
    """By as much as its part of the requests can change the share of all."""
    adding = Adding(together=True)
    assert adding.size([(10_000, 1000.0), (3, None)]) == pytest.approx(1000, rel=0.03)
    assert adding.size([(10_000, 1000.0), (0, None)]) == pytest.approx(1000)


def test_no_deviation_is_beyond_the_sum_of_all() -> None:
    """Of shares whose errors are one error, in parts of any size: the worst that there is (Cauchy-Schwarz)."""
    random = np.random.default_rng(5)
    for _ in range(20):
        requests, sizes = random.integers(1, 10_000, 5), random.uniform(2, 500, 5)
        errors = random.standard_normal(20_000)[:, None] / np.sqrt(sizes)
        whole = (errors * requests).sum(1) / requests.sum()
        size = Adding(together=True).size(zip(requests.tolist(), sizes.tolist(), strict=True))
        assert float(np.var(whole)) == pytest.approx(1 / size, rel=0.05)
