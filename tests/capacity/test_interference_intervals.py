"""Intervals of what decides in `loadtrt interference`, and in plans of it, hold the truth as often as they say: against
queues and draws whose truth is known, many times."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.interference_coverage import latencies, pair, value
from loadtrt.asked.objective import parse_objective
from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulation import Simulation
from loadtrt.results.interference_result import Alone, Cell, Measured, Round
from loadtrt.sizing.cells import _jain, _neighbour_kept, _speedup
from loadtrt.sizing.side_by_side import _within

if TYPE_CHECKING:
    from loadtrt.results.interference_result import PairedRatio

CELL = Cell(share="streams", model="a", neighbour="b", level="50%", neighbour_level="50%")
LEAST, MOST = 0.9, 0.995  # of 400 intervals of 95 %: four standard deviations below, and not all of them
CELLS = 400


def measured(per_s: float, due: float = 1e6, served: float = 1e6) -> Measured:
    return Measured(due=round(due), served=round(served), per_s=per_s, latency_ns={})


def holds(found: PairedRatio | None, truth: float) -> bool:
    assert found is not None
    return found.low is not None and found.high is not None and found.low <= truth <= found.high


def share(held: list[bool]) -> float:
    return sum(held) / len(held)


@pytest.mark.parametrize("load", [0.6, 0.9, 1.3])
def test_what_an_open_loop_loses(load: float) -> None:
    """Behind one queue: nothing, where it does not grow, although some requests are in flight at the end; else all that
    is above the service's rate."""
    random = np.random.default_rng(round(10 * load))
    length, held, means = 1500.0, [], []

    def counts() -> Measured:
        due = np.cumsum(random.exponential(1 / load, round(length * load * 1.3)))
        done = due + latencies(due, random.exponential(1.0, len(due)))
        first = length / 10
        in_time = (int(((at >= first) & (at < length)).sum()) for at in (due, done))
        came, served = in_time
        return measured(served / (length - first), came, served)

    truth = min(1 / load, 1.0)
    for _ in range(CELLS):
        beside = [Round(alone=measured(1.0), beside=measured(1.0), neighbour=counts()) for _ in range(4)]
        found = _neighbour_kept(beside)
        held.append(holds(found, truth))
        means.append((found and found.ratio) or 0.0)
    assert LEAST <= share(held) <= MOST
    assert np.mean(means) == pytest.approx(truth, abs=0.004 if load < 0.9 else 0.012)


def test_speed_up() -> None:
    """Of open loops at half of what the closed loops were measured to serve, 3 % off; a round's own draws are 2 %."""
    random, held = np.random.default_rng(1), []
    engine = SimulatedEngine(Simulation(service_ns=1), contexts=1, buffers=1).info
    served = {"a": 1000.0, "b": 100.0}
    for _ in range(CELLS):
        seen = {name: most * math.exp(random.normal(0, 0.015)) for name, most in served.items()}
        alone = {
            name: Alone(
                engine=engine,
                closed=measured(most),
                closed_low_per_s=most * math.exp(-1.96 * 0.015),
                closed_high_per_s=most * math.exp(1.96 * 0.015),
            )
            for name, most in seen.items()
        }
        rounds = []
        for _ in range(4):
            a, b = (measured(seen[name] / 2 * math.exp(random.normal(0, 0.01))) for name in served)
            rounds.append(Round(alone=a, beside=a, neighbour=b))
        held.append(holds(_speedup(CELL, rounds, alone), sum(seen[name] / 2 / most for name, most in served.items())))
    assert LEAST <= share(held) <= 1.0


@pytest.mark.parametrize("kept", [(0.9, 0.5), (0.8, 0.8), (1.0, 0.95)])
def test_jain(kept: tuple[float, float]) -> None:
    """Equal shares have the index 1, which no draw exceeds."""
    random, held = np.random.default_rng(2), []
    truth = sum(kept) ** 2 / (2 * sum(one * one for one in kept))
    for _ in range(CELLS):
        rounds = []
        for _ in range(4):
            a, b = (one * math.exp(random.normal(0, 0.02)) for one in kept)
            one, other = measured(1.0), measured(1.0)
            rounds.append(Round(alone=one, beside=measured(a), neighbour=measured(b), neighbour_alone=other))
        held.append(holds(_jain(rounds), truth))
    assert LEAST <= share(held) <= MOST


def test_a_load_that_misses_its_objective_is_seldom_taken_for_one_that_meets_it() -> None:
    """p99 beside a neighbour is exactly the bound: three rounds that show it to be lower are one in forty at most."""
    random, sure, possible = np.random.default_rng(3), 0, 0
    bound = parse_objective(f"latency.p99 < {round(1e6 * math.log(100) / (1 - 0.5))}ns")
    cells = 200
    for _ in range(cells):
        rounds = []
        for _ in range(3):
            times, effective = value(pair(random, 0.2, 0.3, 2000)[1], 0.99)
            rounds.append(Measured(due=1, served=1, per_s=1, latency_ns={"p99": times}, effective={"p99": effective}))
        met, may, _ = _within(bound, rounds)
        sure, possible = sure + met, possible + may
    assert sure <= 0.05 * cells
    assert possible >= 0.9 * cells


@pytest.mark.parametrize(("worth", "sure"), [(20.0, False), (400.0, True)])
def test_rounds_that_agree_by_chance_are_not_sure(worth: float, *, sure: bool) -> None:
    """Three with the same p99, of requests that are worth few independent ones."""
    bound = parse_objective("latency.p99 < 10ms")
    one = Measured(due=1, served=1, per_s=1, latency_ns={"p99": 9e6}, effective={"p99": worth})
    assert _within(bound, [one] * 3)[:2] == (sure, True)
