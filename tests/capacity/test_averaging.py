"""Shares of bad requests that are averaged over arrivals: unbiased, with less noise, and with intervals that hold."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.queues import Waiting, markov_tail
from loadtrt.asked.load import Closed, Rate
from loadtrt.asked.load_options import load_of
from loadtrt.asked.objective import parse_objective
from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulation import Simulation
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Load, Stop, drive
from loadtrt.load.arrivals import Poisson, due_instants
from loadtrt.records.records import COLUMNS, FAILED, Records
from loadtrt.sizing.averaging import averaged, works_of
from loadtrt.sizing.station import latencies, station
from loadtrt.stats.binomial import share_interval
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.sizing.station import Floats, Work

SERVICE_S = 0.001
REQUESTS, SEEDS = 20_000, range(40)


def exponential(ranks: Floats) -> Floats:
    return -np.log1p(-ranks)


def constant(ranks: Floats) -> Floats:
    return np.ones_like(ranks)


def markovian(load: float, t: float) -> float:
    """P(T > t) of M/M/1, in units of the service time."""
    return markov_tail(t, Waiting(load, 1 / (1 - load)), 1.0)


def deterministic(load: float, t: float) -> float:
    """P(T > t) of M/D/1 (Erlang, 1909): P(W ≤ w) = (1 − ρ) Σ_{k ≤ w} (ρ(k − w))^k / k! · e^{−ρ(k − w)}, w = t − 1."""
    waited = t - 1
    terms = (
        (load * (k - waited)) ** k / math.factorial(k) * math.exp(-load * (k - waited)) for k in range(int(waited) + 1)
    )
    return 1 - (1 - load) * sum(terms)


def one_server(load: float, work: Work, seed: int) -> tuple[Records, Rate]:
    """Records of a queue with one server that begins empty, by Lindley's recursion; and its load."""
    rate = Rate(Poisson(), load / SERVICE_S)
    due = rate.due(0, REQUESTS, seed)[:REQUESTS]
    service = work(np.random.default_rng([seed, 7]).random(REQUESTS)) * SERVICE_S * SECOND_NS
    rows, free = np.zeros((REQUESTS, len(COLUMNS)), np.int64), 0
    for row, at, time in zip(rows, due.tolist(), service.astype(np.int64).tolist(), strict=True):
        begun = max(at, free)
        free = begun + time
        row[:4] = at, begun, begun, free
    return Records(rows), rate


LAWS: dict[str, tuple[Work, Callable[[float, float], float], float]] = {
    "M/M/1": (exponential, markovian, 0.54),
    "M/D/1": (constant, deterministic, 0.63),
}


def bound_of(name: str) -> tuple[float, float]:
    """(a bound that about 1 % of requests exceed, in service times; the share that exceeds it)."""
    _, tail, load = LAWS[name]
    bound = next(t for t in itertools.count(1.25, 0.25) if tail(load, t) < 0.011)
    return bound, tail(load, bound)


@cache
def shares(name: str) -> tuple[Floats, Floats, Floats]:
    """(raw shares, averaged shares, effective sample sizes) of runs, a seed each."""
    work, _, load = LAWS[name]
    bound, _ = bound_of(name)
    objective = parse_objective(f"latency.p99 < {round(bound * SERVICE_S * SECOND_NS)}ns")
    model = station(1, 1, lambda _: 1 / SERVICE_S, work)
    raw, means, sizes = [], [], []
    for seed in SEEDS:
        records, rate = one_server(load, work, seed)
        raw.append(float(np.mean(objective.bad(records))))
        (found,) = averaged(records, rate, model, [objective], seed)
        assert found is not None
        means.append(found.bad)
        sizes.append(found.size)
    return np.array(raw), np.array(means), np.array(sizes)


# --- the averaged share


@pytest.mark.parametrize("name", LAWS)
def test_the_averaged_share_is_unbiased(name: str) -> None:
    """Its mean over runs is the closed form's within 4 standard errors, which are small; so is that of raw shares."""
    _, true = bound_of(name)
    raw, means, _ = shares(name)
    error = float(means.std(ddof=1)) / math.sqrt(len(means))
    assert error < 0.05 * true
    assert abs(float(means.mean()) - true) < 4 * error
    assert abs(float(raw.mean()) - true) < 4 * float(raw.std(ddof=1)) / math.sqrt(len(raw))


@pytest.mark.parametrize(("name", "times"), [("M/M/1", 1.3), ("M/D/1", 2.5)])
def test_the_averaged_share_has_less_noise(name: str, times: float) -> None:
    """Of exponential service a good part of the noise stays; of constant service hardly any is the engine's."""
    raw, means, _ = shares(name)
    assert float(raw.std(ddof=1)) > times * float(means.std(ddof=1))


@pytest.mark.parametrize("name", LAWS)
def test_the_interval_of_the_averaged_share_holds_the_truth(name: str) -> None:
    """95 % of them: of 40 at least 35."""
    _, true = bound_of(name)
    _, means, sizes = shares(name)
    held = [low <= true <= high for low, high in map(share_interval, means, sizes)]
    assert np.count_nonzero(held) >= 35


def test_a_model_that_is_wrong_costs_precision_and_no_truth() -> None:
    """Half as fast again as the engine is: the mean over runs is still the engine's, within 4 standard errors."""
    name = "M/D/1"
    work, _, load = LAWS[name]
    bound, true = bound_of(name)
    objective = parse_objective(f"latency.p99 < {round(bound * SERVICE_S * SECOND_NS)}ns")
    model = station(1, 1, lambda _: 1.5 / SERVICE_S, work)
    found = []
    for seed in SEEDS:
        records, rate = one_server(load, work, seed)
        (one,) = averaged(records, rate, model, [objective], seed)
        assert one is not None
        found.append(one.bad)
    assert abs(np.mean(found) - true) < 4 * np.std(found, ddof=1) / math.sqrt(len(found))


def test_the_same_run_gives_the_same_share() -> None:
    """The draws are those of the seed: a search that goes on from its file is told what it was told before."""
    name = "M/M/1"
    work, _, load = LAWS[name]
    records, rate = one_server(load, work, 0)
    model = station(1, 1, lambda _: 1 / SERVICE_S, work)
    objective = parse_objective("latency.p99 < 8ms")
    first, second, other = (averaged(records, rate, model, [objective], seed) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_only_random_arrivals_that_were_all_served_are_averaged() -> None:
    """Not closed loops, constant arrivals, stages and traces; not failed requests, nor few; nor other metrics."""
    work, _, load = LAWS["M/M/1"]
    records, rate = one_server(load, work, 0)
    model = station(1, 1, lambda _: 1 / SERVICE_S, work)
    latency, service = parse_objective("latency.p99 < 8ms"), parse_objective("service.p99 < 8ms")
    one, other = averaged(records, rate, model, [latency, service], 1)
    assert one is not None
    assert other is None
    loads = (
        Closed(),
        load_of({"arrivals": "constant", "rate": "500/s"}),
        load_of({"stages": "100/s:5s, 900/s:5s"}),
    )
    assert all(averaged(records, each, model, [latency], 1) == [None] for each in loads)
    assert averaged(Records(records.rows[:50]), rate, model, [latency], 1) == [None]
    failed = Records(records.rows.copy())
    failed.rows[5, COLUMNS.index("status")] = FAILED
    assert averaged(failed, rate, model, [latency], 1) == [None]


# --- works


async def served(simulation: Simulation, contexts: int, load: float, count: int) -> Records:
    """Records of a simulated engine with a buffer set for each context, in order of due instants."""
    engine = SimulatedEngine(simulation, contexts=contexts, buffers=1)
    engine.allocate([{"x": np.zeros((1, 16), np.float32)}])
    most = contexts / (1 + simulation.contention * (contexts - 1)) * SECOND_NS / simulation.service_ns
    recorder = Recorder(contexts, engine.now_ns())
    await drive(engine, recorder, Load(due_instants(Poisson(), load * most, 0, count, 3)), Stop())
    records = recorder.records
    return Records(records.rows[np.argsort(records.due, kind="stable")])


def of_engine(simulation: Simulation, contexts: int) -> Callable[[int], float]:
    alone = SECOND_NS / simulation.service_ns
    return lambda n: alone * n / (1 + simulation.contention * (n - 1))


@pytest.mark.anyio
async def test_the_works_of_one_context_are_its_compute_times() -> None:
    """Over their mean, to the nanosecond."""
    simulation = Simulation(service_ns=5 * MILLISECOND_NS, cv=0.8, clock="virtual")
    records = await served(simulation, 1, 0.7, 1500)
    times = np.array(list(itertools.islice(simulation.service_times(1), len(records))), np.float64)
    work = works_of(records, station(1, 1, of_engine(simulation, 1), exponential))
    assert work * times.mean() == pytest.approx(times, abs=2.0)
    assert work * times.mean() == pytest.approx(records.compute, abs=2.0)


@pytest.mark.anyio
@pytest.mark.parametrize("cv", [None, 0.5])
async def test_a_run_served_again_in_simulation_is_the_run(cv: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four contexts that slow each other down: with its own arrivals and works each latency comes back. Where works
    are over the mean of their number in flight, which is a sample's, it is within a twentieth of most."""
    simulation = Simulation(service_ns=5 * MILLISECOND_NS, cv=cv, contention=0.5, clock="virtual")
    records = await served(simulation, 4, 0.85, 3000)
    model = station(4, 1, of_engine(simulation, 4), exponential)
    due, latency = records.due / SECOND_NS, (records.completed - records.due) / SECOND_NS
    again = latencies(due, works_of(records, model), model)
    assert np.median(np.abs(again / latency - 1)) < 0.05
    monkeypatch.setattr("loadtrt.sizing.averaging._LEAST_OF_LEVEL", len(records) + 1)
    times = np.array(list(itertools.islice(simulation.service_times(1), len(records))), np.float64)
    work = works_of(records, model) * times.mean() / simulation.service_ns
    assert np.abs(latencies(due, work, model) - latency).max() < 1e-9 * len(records)  # a nanosecond an event
