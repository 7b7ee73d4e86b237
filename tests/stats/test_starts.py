"""The spread between starts: Student's interval of the mean, and whether runs' own intervals explain it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadtrt.results.breakdown import PERCENTILES, MetricSummary
from loadtrt.stats.intervals import mean_interval, quantile_interval
from loadtrt.stats.measured import Measured
from loadtrt.stats.starts import spreads

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.results.repeat_result import Spread


def _measured(name: str, values: npt.NDArray[np.int64]) -> Measured:
    ordered = np.sort(values)
    percentiles = {name: float(ordered[math.ceil(rank * len(values)) - 1]) for name, rank in PERCENTILES.items()}
    known = {name: quantile_interval(PERCENTILES[name], value, values, ordered) for name, value in percentiles.items()}
    known["mean"] = mean_interval(float(values.mean()), values)
    summary = MetricSummary(
        count=len(values),
        mean_ns=float(values.mean()),
        min_ns=int(ordered[0]),
        max_ns=int(ordered[-1]),
        percentiles_ns=dict(percentiles),
        confidence={name: interval for name, interval in known.items() if interval is not None},
    )
    rates = {"throughput": 1e9 / float(values.mean()), "inferences": None}
    return Measured(name, rates, None, {"latency": summary}, {}, trtexec=False)


def _starts(rng: np.random.Generator, count: int, between: float, requests: int = 4000) -> dict[str, Spread]:
    """Starts of lognormal latencies, each a factor of its own longer, whose logarithm has the deviation `between`."""
    factors = np.exp(between * rng.standard_normal(count))
    runs = [rng.lognormal(13, 0.3, requests) * factor for factor in factors]
    found = spreads([_measured(str(place), run.astype(np.int64)) for place, run in enumerate(runs)])
    return {spread.name: spread for spread in found}


@pytest.mark.parametrize(("count", "quantile"), [(2, 12.7062), (3, 4.3027), (5, 2.7764), (20, 2.0930)])
def test_the_interval_is_students(count: int, quantile: float) -> None:
    """Mean, coefficient of variation and interval of each number, with t from tables; the rate has no margin."""
    found = _starts(np.random.default_rng(count), count, 0.05)
    assert set(found) == {"throughput", "latency.mean", *(f"latency.{name}" for name in PERCENTILES)}
    for spread in found.values():
        values = np.array(spread.values, float)
        assert len(values) == count
        half = quantile * values.std(ddof=1) / math.sqrt(count)
        assert spread.mean == pytest.approx(values.mean())
        assert spread.cv == pytest.approx(values.std(ddof=1) / values.mean())
        bounds = (max(values.mean() - half, 0.0), values.mean() + half)
        assert (spread.mean_low, spread.mean_high) == pytest.approx(bounds, rel=1e-4)
    assert (found["throughput"].within, found["throughput"].times) == (None, None)
    assert found["latency.p50"].within is not None


def test_starts_that_do_not_differ_are_told_apart_from_those_that_do() -> None:
    """Independent runs exceed their intervals in at most 1 % of the numbers; a factor of each start, with a deviation
    several times a run's own error, is found nearly always, and `times` is about as much."""
    rng = np.random.default_rng(16)
    same = [spread for _ in range(60) for spread in _starts(rng, 5, 0.0).values() if spread.times is not None]
    assert len(same) > 200
    assert sum(spread.exceeds for spread in same) <= 0.02 * len(same)
    differ = [_starts(rng, 5, 0.05)["latency.p50"] for _ in range(40)]
    assert sum(spread.exceeds for spread in differ) >= 36
    own = 0.3 * math.sqrt(math.pi / 2) / math.sqrt(4000)  # standard error of the median's logarithm
    times = np.median([spread.times for spread in differ if spread.times is not None])
    assert 0.5 < times / (0.05 / own) < 1.3  # intervals of few sections say more than that error


def test_one_start_has_no_spread_and_an_unknown_number_has_a_reason() -> None:
    """Nor has a percentile that a start does not support an interval."""
    rng = np.random.default_rng(1)
    runs = [_measured(name, rng.integers(1_000_000, 2_000_000, 4000)) for name in "ab"]
    assert spreads(runs[:1]) == ()
    latency = runs[1].metrics["latency"]
    few = latency.model_copy(update={"count": 40, "percentiles_ns": {**latency.percentiles_ns, "p99": None}})
    found = spreads([runs[0], Measured("b", runs[1].rates, None, {"latency": few}, {}, trtexec=False)])
    spread = {item.name: item for item in found}["latency.p99"]
    assert (spread.mean, spread.mean_low, spread.exceeds) == (None, None, False)
    assert spread.reason == "b has 40 requests, and p99 needs 459"
