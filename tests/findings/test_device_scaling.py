"""What several devices lose to each other: beside the throughput of one, beyond chance, and what explains it."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

import fleets
from loadtrt.asked.config import RunConfig
from loadtrt.findings.device_scaling import LEAST, devices_of, efficiency_of, fewest_devices, scaling
from loadtrt.report.plain import terminal_text
from loadtrt.results.breakdown import ConfidenceInterval
from loadtrt.results.capacity_result import SweepPoint, SweepResult, trimmed
from loadtrt.results.run_result import Finding
from loadtrt.signals import Signals

if TYPE_CHECKING:
    from loadtrt.results.run_result import RunResult


@cache
def measured(devices: str, processes: int = 1) -> RunResult:
    config = RunConfig.of(
        engine="simulated:service=1ms,cv=0.2,clock=virtual", warmup="0s", contexts=1, requests=1000,
        devices=devices, processes=processes,
    )  # fmt: skip
    return trimmed(fleets.run_fleet(config, None, Signals()))


def slower(run: RunResult, share: float, width: float = 0.002, **means: float) -> RunResult:
    """The same run with this share of its throughput, known within `width`, and parts of requests that took as many
    times as long."""
    rate = share * (run.model.throughput.requests_per_s or 0.0)
    ends = ConfidenceInterval(low=rate * (1 - width), high=rate * (1 + width), effective=1000)
    metrics = {
        name: summary.model_copy(update={"mean_ns": (summary.mean_ns or 1000.0) * means.get(name, 1.0)})
        for name, summary in run.model.metrics.items()
    }
    throughput = run.model.throughput.model_copy(update={"requests_per_s": rate, "confidence": ends})
    return run.with_model(throughput=throughput, metrics=metrics)


def test_devices_that_lose_nothing() -> None:
    """Four are as many times one, within the interval; two processes on each are no further devices."""
    one, four = measured("0"), measured("0-3")
    known = efficiency_of(one, four)
    assert known is not None
    assert (known.devices, known.fewest) == (4, 1)
    assert (known.low or 0) <= 1 <= (known.high or 0)
    assert known.ratio == pytest.approx(1, rel=0.05)
    assert scaling(one, four, None) is None
    assert [devices_of(run) for run in (one, four, measured("0,2", 2))] == [1, 4, 2]
    assert efficiency_of(four, one) is None
    assert efficiency_of(one, one) is None


@pytest.mark.parametrize(
    ("share", "width", "told"),
    [
        (0.9, 0.002, True),
        (0.9, 0.2, False),
        (LEAST * 0.99, 0.002, True),
        (LEAST * 0.99, 0.02, False),
        (LEAST * 1.01, 0.002, False),
    ],
)
def test_a_loss_counts_beyond_chance(share: float, width: float, told: bool) -> None:
    """Only where the whole interval is below the threshold."""
    one, two = slower(measured("0"), 1.0, 0.001), measured("0-1")
    exact = 2 * (one.model.throughput.requests_per_s or 0.0) / (two.model.throughput.requests_per_s or 1.0)
    found = scaling(one, slower(two, share * exact, width), None)
    assert (found is not None) is told
    if found is not None:
        assert f"{100 * share:.1f} % of 2 × one (95 %: " in found.evidence


@pytest.mark.parametrize(
    ("means", "evidence", "cause"),
    [
        ({"h2d": 2.0, "compute": 1.1}, "copying inputs took", "PCIe"),
        ({"compute": 1.5}, "computing took", "power or cooling"),
        ({"enqueue": 100.0}, "enqueuing took", "cores"),
        ({}, "no part of a request took longer", "not known"),
    ],
)
def test_what_explains_a_loss(means: dict[str, float], evidence: str, cause: str) -> None:
    """The part of a request that grew most."""
    weights = {"h2d": 5e6, "enqueue": 1e5}
    one = slower(measured("0"), 1.0)
    one = one.with_model(
        metrics={
            name: summary.model_copy(update={"mean_ns": weights.get(name, summary.mean_ns)})
            for name, summary in one.model.metrics.items()
        }
    )
    base = slower(measured("0-1"), 0.8)
    several = base.with_model(
        metrics={
            name: summary.model_copy(update={"mean_ns": (one.model.metrics[name].mean_ns or 0.0) * means.get(name, 1)})
            for name, summary in base.model.metrics.items()
        }
    )
    found = scaling(one, several, 1000)
    assert found is not None
    assert evidence in found.evidence
    assert cause in found.cause


def test_power_and_cores_explain_a_loss() -> None:
    """Before parts of requests do: clocks that one device had, and cores that are all used."""
    one, several = slower(measured("0"), 1.0), slower(measured("0-1"), 0.8, compute=1.5)
    held = Finding(kind="throttled", evidence="SM clock fell: power cap", cause="power cap", remedy="raise it")
    found = scaling(one, several.with_model(findings=(held,)), None)
    assert found is not None
    assert "SM clock fell" in found.evidence
    assert found.remedy == "raise it"
    for cores in (1.9, None):  # None: processor time over virtual time says nothing of cores
        found = scaling(one, several.model_copy(update={"host_cores": cores}), 2)
        assert found is not None
        assert ("the workers used 1.9 of 2 cores" in found.evidence) is (cores is not None)


def test_a_sweep_shows_both() -> None:
    """A row for each point with more devices than the fewest, of the other settings alike; and the finding."""
    runs: dict[str, Any] = {"0": measured("0"), "0-1": slower(measured("0-1"), 0.5, 0.001)}
    found = scaling(runs["0"], runs["0-1"], None)
    assert found is not None
    runs["0-1"] = runs["0-1"].with_model(findings=(found,))
    points = tuple(SweepPoint(settings={"devices": name, "contexts": 1}, run=run) for name, run in runs.items())
    other = SweepPoint(settings={"devices": "0-1", "contexts": 2}, run=runs["0-1"])
    assert fewest_devices(points, points[1]) is runs["0"]
    assert fewest_devices(points, points[0]) is None
    assert fewest_devices((*points, other), other) is None
    result = SweepResult(
        loadtrt="1", started="", command=(), config=measured("0").config, environment={}, outcome="completed",
        axes={"devices": ("0", "0-1"), "contexts": (1,)}, points=points,
    )  # fmt: skip
    text = " ".join(terminal_text(result).split())
    assert re.search(r"devices efficiency 95 % devices 0-1, contexts 1 2 0\.49\d 0\.48\d \.\. 0\.50\d ", text)
    assert f"scaling: devices 0-1, contexts 1: {found.evidence[:30]}" in text
