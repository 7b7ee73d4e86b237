"""Objectives as they are written: kinds, bounds and units, and one sentence for what is not one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from loadtrt.asked.config import RunConfig
from loadtrt.asked.objective import parse_objective, quantile_name, with_bounds
from loadtrt.cli.main import cli
from loadtrt.errors import UsageError
from loadtrt.records.records import COLUMNS, DROPPED, FAILED, OK, UNSERVED, Records
from loadtrt.results.run_result import RunResult
from loadtrt.units import MILLISECOND_NS

if TYPE_CHECKING:
    from pathlib import Path

MS = MILLISECOND_NS


@pytest.mark.parametrize(
    ("text", "kind", "limit", "written"),
    [
        ("throughput > 90/s", "throughput", 90.0, "90.0/s"),
        (" throughput>=2k/s ", "throughput", 2000.0, "2 000/s"),
        ("inferences > 60000/m", "inferences", 1000.0, "1 000/s"),
        ("power < 300W", "power", 300.0, "300 W"),
        ("power <= 0.3 kW", "power", 300.0, "300 W"),
        ("energy < 30mJ/inference", "energy", 0.03, "30.0 mJ/inference"),
        ("energy < 2.5 J / inference", "energy", 2.5, "2.50 J/inference"),
        ("energy < 40uJ/inference", "energy", 40e-6, "40.0 µJ/inference"),
        ("goodput(latency <= 20ms) > 80/s", "goodput", 80.0, "80.0/s"),
    ],
)
def test_a_number_has_its_unit(text: str, kind: str, limit: float, written: str) -> None:
    """The bound is in the unit's base, and shown with a unit that fits; its text reads back as the same objective."""
    objective = parse_objective(text)
    assert (objective.kind, objective.written(objective.limit)) == (kind, written)
    assert objective.limit == pytest.approx(limit)
    assert not objective.of_requests
    assert parse_objective(str(objective)) == objective


@pytest.mark.parametrize(
    ("text", "kind", "rank"),
    [
        ("errors < 1%", "errors", 0.99),
        ("errors <= 0%", "errors", 1.0),
        ("drops < 0.1%", "drops", 0.999),
        ("goodput(latency < 20ms) > 95%", "quantile", 0.95),
        ("goodput(latency < 20ms) >= 100%", "quantile", 1.0),
        ("latency.p99.95 < 20ms", "quantile", 0.9995),
        ("latency.p12.5 < 20ms", "quantile", 0.125),
        ("latency.p99.999999 < 20ms", "quantile", 0.99999999),
    ],
)
def test_a_share_of_the_requests(text: str, kind: str, rank: float) -> None:
    """The share that must be good, exactly as it is written."""
    objective = parse_objective(text)
    assert (objective.kind, objective.rank, objective.of_requests) == (kind, rank, True)
    assert parse_objective(str(objective)) == objective


def test_a_percentile_is_called_what_it_is() -> None:
    """No rounding of a high one, and no digits that were not asked for."""
    ranks = {
        0.5: "p50",
        0.1: "p10",
        1e-8: "p0.000001",
        0.125: "p12.5",
        0.9995: "p99.95",
        0.99999999: "p99.999999",
        0.999: "p99.9",
        1.0: "max",
    }
    assert {rank: quantile_name(rank) for rank in ranks} == ranks
    assert parse_objective("latency.p99.90 < 1s").name == "latency.p99.9"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("throughput < 90/s", "more is better: bound it from below, with >"),
        ("energy > 30mJ/inference", "less is better: bound it from above, with <"),
        ("latency.p99 > 10ms", "less is better: bound it from above, with <"),
        ("errors > 1%", "less is better"),
        ("throughput > 90", "has no unit: write one such as 'throughput > 90/s'"),
        ("errors < 0.01", "has no unit: write one such as 'errors < 1%'"),
        ("power < 300", "has no unit: write one such as 'power < 300W'"),
        ("power < 300mJ/inference", "write one such as 'power < 300W'"),
        ("power < 0W", "is not a bound above 0"),
        ("energy < 30mJ", "write one such as 'energy < 30mJ/inference'"),
        ("energy < 30mJ/request", "write one such as 'energy < 30mJ/inference'"),
        ("throughput > 90%", "'90%' is not a rate"),
        ("throughput > 0/s", "is not a rate"),
        ("errors < 0%", "or 'errors <= 0%'"),
        ("errors < 100%", "take a share between 0% and 100%"),
        ("drops < 250%", "take a share between 0% and 100%"),
        ("goodput(latency < 1s) > 100%", "or 'goodput >= 100%'"),
        ("goodput(latency < 1s) > 0%", "take a share between 0% and 100%"),
        ("goodput(latency < 10) > 80/s", "the bound 10 has no unit: write 10ms or 10s"),
        ("goodput(latency < 0ms) > 80/s", "give a bound above 0"),
        ("goodput(queue < 1ms) > 80/s", "is not an objective"),
        ("throughput(latency < 10ms) > 80/s", "only goodput has a bound on latency: write 'throughput > 80/s'"),
        ("throughput", "is not an objective"),
        ("latency < 10ms", "is not an objective"),
        ("", "is not an objective"),
    ],
)
def test_one_sentence_says_what_is_wrong(text: str, words: str) -> None:
    """What is wrong, and what to write."""
    with pytest.raises(UsageError) as caught:
        parse_objective(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_goodput_takes_the_tightest_bound_on_latency() -> None:
    """Within the bounds of all objectives on latency is within the tightest; other metrics do not count."""
    texts = ["goodput > 80/s", "latency.p99 < 20ms", "latency.p50 <= 9ms", "queue.p99 < 1ms", "goodput > 95%"]
    rate, *_, share = with_bounds([parse_objective(text) for text in texts])
    assert (rate.text, rate.limit_ns) == ("goodput(latency <= 9ms) > 80/s", 9 * MS)
    assert (share.text, share.kind, share.quantile) == ("goodput(latency <= 9ms) > 95%", "quantile", "p95")
    own = parse_objective("goodput(latency < 15ms) > 80/s")
    assert with_bounds([own, parse_objective("latency.p99 < 10ms")])[0] == own
    with pytest.raises(UsageError, match=r"write 'goodput\(latency < 10ms\) > 80/s'"):
        with_bounds([parse_objective("goodput > 80/s")])
    with pytest.raises(UsageError, match="counts requests within a bound, and there is none"):
        RunConfig.of(engine="simulated:null", objective=["goodput > 80/s"])


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("errors < 1%", [False, True, True, False, False]),
        ("drops < 1%", [False, False, False, True, False]),
        ("latency.p99 < 10ms", [False, True, True, True, True]),
        ("goodput(latency < 10ms) > 80/s", [False, True, True, True, True]),
        ("throughput > 80/s", [False, True, True, True, False]),
    ],
)
def test_who_is_bad(text: str, bad: list[bool]) -> None:
    """Errors are failed and unserved requests, drops dropped ones; any other bound is broken by all of them."""
    rows = np.zeros((5, len(COLUMNS)), np.int64)
    rows[:, COLUMNS.index("completed")] = [MS, MS, MS, 0, 10 * MS]
    rows[:, COLUMNS.index("status")] = [OK, FAILED, UNSERVED, DROPPED, OK]
    assert parse_objective(text).bad(Records(rows)).tolist() == bad


OBJECTIVES = (
    "latency.p99.5 < 1s",
    "goodput > 95%",
    "goodput > 80/s",
    "throughput > 90/s",
    "inferences > 1000/s",
    "errors < 1%",
    "drops < 0.1%",
    "energy < 30mJ/inference",
)


def test_a_run_can_be_run_again(tmp_path: Path) -> None:
    """run.json has every kind, and is a configuration with the same objectives."""
    file, again = tmp_path / "run.json", tmp_path / "again.json"
    wanted = [part for text in OBJECTIVES for part in ("--objective", text)]
    load = ("--rate", "200/s", "--requests", "3000", "--max-queue", "9", "--warmup", "0", "--quiet")
    engine = ("--engine", "simulated:service=1ms,clock=virtual")
    done = CliRunner().invoke(cli, ["run", *engine, *load, *wanted, "--json", str(file)], standalone_mode=False)
    assert done.exception is None, done.exception
    run = RunResult.model_validate_json(file.read_text())
    CliRunner().invoke(cli, ["run", "--config", str(file), "--json", str(again), "--quiet"])
    repeated = RunResult.model_validate_json(again.read_text())
    assert repeated.config.model.objectives == run.config.model.objectives
    assert [item.verdict for item in repeated.model.objectives] == [item.verdict for item in run.model.objectives]
    written = json.loads(file.read_text())["models"]
    (model,) = written.values()
    assert model["objectives"][2]["objective"] == "goodput(latency < 1s) > 80/s"


def test_drops_need_a_bounded_queue() -> None:
    """In an open loop: nothing is dropped without one, and a long queue would leave the objective undecided."""
    with pytest.raises(UsageError, match="an objective on drops needs --max-queue, such as --max-queue 8"):
        RunConfig.of(engine="simulated:null", rate="9/s", objective=["errors < 1%", "drops < 1%"])
    RunConfig.of(engine="simulated:null", rate="9/s", max_queue=8, objective=["drops < 1%"])
    RunConfig.of(engine="simulated:null", objective=["drops < 1%"])  # as in the ladder of a search


def test_abort_on_fail_needs_an_objective_on_requests() -> None:
    """A rate is judged at the end."""
    RunConfig.of(engine="simulated:null", abort_on_fail=True, objective=["throughput > 9/s", "errors < 1%"])
    with pytest.raises(UsageError, match="as others are judged at the end"):
        RunConfig.of(engine="simulated:null", abort_on_fail=True, objective=["throughput > 9/s"])
