"""LoadtrtGeneratorLate is the verdict's law: it fires on what the exporter shows of a run if, and only if, the run's
result is INVALID because the generator was late. promtool evaluates the shipped rules."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.live.metrics import Observation, families
from observed_runs import observed_run
from prometheus import promtool

if TYPE_CHECKING:
    from loadtrt.live.observer import RunFacts
    from loadtrt.records.board import Snapshot

RULES = Path(__file__).parents[2] / "grafana" / "prometheus" / "rules" / "loadtrt.yml"
BASE = {
    "engine": "simulated:service=2ms,enqueue=400us,seed=1,clock=virtual",
    "contexts": 2,
    "duration": "9s",
    "seed": 3,
}
OPEN = {**BASE, "rate": "100/s"}


def _check_rule(folder: Path, seen: Snapshot, facts: RunFacts, fires: bool) -> None:
    """The alert fires, or does not, once what is exported has been scraped for half a minute."""
    observation = Observation(seen, facts, None, seen.started_ns + 9 * 10**9)
    series = []
    for metric in families(observation):
        for sample in metric.samples:
            labels = ",".join(f"{name}={json.dumps(text)}" for name, text in sample.labels.items())
            series.append({"series": f"{sample.name}{{{labels}}}", "values": f"{sample.value:.9f}x30"})
    firing = 'count(ALERTS{alertname="LoadtrtGeneratorLate",alertstate="firing"}) or vector(0)'
    test = {
        "interval": "1s",
        "input_series": series,
        "promql_expr_test": [
            {"expr": firing, "eval_time": "25s", "exp_samples": [{"labels": "{}", "value": int(fires)}]}
        ],
    }
    file = folder / "rules_test.json"  # JSON is YAML
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1s", "tests": [test]}))
    assert "SUCCESS" in promtool("test", "rules", file)


def _late_ns() -> float:
    """p99 lateness of the open loop, which is the same whatever its limit is: the clock is virtual."""
    result, _, _ = observed_run({**OPEN, "max_lateness": "10s"})
    late_ns = result.model.metrics["lateness"].percentiles_ns["p99"]
    assert late_ns is not None
    return late_ns


def _cases() -> dict[str, tuple[dict[str, Any], list[str]]]:
    """(options, kinds of problems), by name. Limits are 2 % beside the p99, which is known within 0.4 %."""
    late_ns = _late_ns()
    above, below = late_ns / 1.02, late_ns / 0.98  # limits that lateness is just above, and just below
    cases: dict[str, tuple[dict[str, Any], list[str]]] = {
        "closed loop, without a limit": ({**BASE, "buffers": 2}, []),
        "INVALID for another reason": ({**BASE, "buffers": 1}, ["starved"]),
    }
    for name, limit_ns, kinds in (("above", above, ["late"]), ("below", below, list[str]())):
        objective = f"latency.p99 < {20 * limit_ns:.0f}ns"  # a twentieth is the limit
        cases[f"just {name} the limit asked for"] = ({**OPEN, "max_lateness": f"{limit_ns:.0f}ns"}, kinds)
        cases[f"just {name} the limit of the objective"] = ({**OPEN, "objective": [objective]}, kinds)
    return cases


@pytest.mark.parametrize("phase", ["measure", "done"])
def test_the_alert_fires_where_the_run_is_invalid(tmp_path: Path, phase: str) -> None:
    """Just above the limit, and not just below, while the run measures as at its end."""
    for name, (options, kinds) in _cases().items():
        result, seen, facts = observed_run(options)
        assert [problem.kind for problem in result.model.problems] == kinds, name
        _check_rule(tmp_path, replace(seen, phase=phase), facts, fires="late" in kinds)
