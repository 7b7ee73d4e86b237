"""The law of one GPU, pooled over runs, and how wrong it may be: draws vary as other samples of the same size would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks import fleet
from loadtrt.asked.objective import parse_objective
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import COLUMNS, Records
from loadtrt.sizing import fleet_prediction
from loadtrt.sizing.demand import steady_demand
from loadtrt.sizing.fleet_prediction import _EARLY, _STUDENT, Spread, predict
from loadtrt.sizing.measured_law import Known, MeasuredLaw, alone_above, closed_flow, pooled
from loadtrt.sizing.routers import router_of
from loadtrt.sizing.station import completions, station
from loadtrt.stats.binomial import student_chance
from loadtrt.stats.flow_law import flow_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from loadtrt.results.flow import Flow
    from loadtrt.results.run_result import ObjectiveShare
    from loadtrt.sizing.station import Station

SERVICE_S = 0.01


def sampled(seed: int, requests: int = 2000, mean_s: float = SERVICE_S) -> Flow:
    """The flow of a closed loop of one request at a time, with exponential service times."""
    took = np.rint(np.random.default_rng(seed).exponential(mean_s * 1e9, requests)).astype(np.int64)
    rows = np.zeros((requests, len(COLUMNS)), np.int64)
    rows[:, 3] = np.cumsum(took)
    rows[1:, :3] = rows[:-1, 3][:, None]
    flow = flow_of(Records(rows), 1)
    assert flow is not None
    return flow


def law_of(*flows: Flow) -> MeasuredLaw:
    return pooled(1, 1, flows, flows)


def test_runs_are_pooled() -> None:
    """Equations add up, and so do histograms: two runs are one of twice as many requests."""
    first, second = sampled(1), sampled(2)
    law = law_of(first, second)
    assert law.requests == 4000
    assert law.work.count == 4000
    assert law.throughput(1) == pytest.approx(4000 / (first.seconds[0][0] + second.seconds[0][0]))
    assert law.cv == pytest.approx(1, rel=0.05)


def test_draws_vary_as_other_samples_do() -> None:
    """The deviation of throughput, and of p99 of the service time, over draws from one sample, and over samples."""
    samples = [law_of(sampled(seed)) for seed in range(150)]
    drawn = [each for number in range(75) for each in samples[0].pair(1, number)]
    for of in (throughput, p99_alone, variance):
        others = float(np.std([of(law.station) for law in samples]))
        assert np.std([of(each) for each in drawn]) == pytest.approx(others, rel=0.35)
        assert np.mean([of(each) for each in drawn]) == pytest.approx(of(samples[0].station), abs=others / 2)


def throughput(queue: Station) -> float:
    return float(np.log(queue.most_per_s))


def p99_alone(queue: Station) -> float:
    return float(np.log(queue.alone_s * queue.work(np.array([0.99]))[0]))


def variance(queue: Station) -> float:
    return float(np.log(queue.cv2))


def test_a_pair_has_errors_of_opposite_sign() -> None:
    """So that their mean is nearly the point estimate."""
    law = law_of(sampled(3))
    most = law.station.most_per_s
    for number in range(10):
        up, down = (each.most_per_s for each in law.pair(1, number))
        assert (up - most) * (down - most) < 0
        assert (up + down) / 2 == pytest.approx(most, rel=0.01)
    assert law.pair(1, 4) is law.pair(1, 4)
    assert law.pair(2, 4)[0].most_per_s != law.pair(1, 4)[0].most_per_s


def test_intervals_hold_the_truth() -> None:
    """Of throughput, and of the share above a bound, in 95 % of samples or nearly so."""
    held = np.zeros(2)
    bad = np.exp(-3.0)
    for seed in range(200):
        law = law_of(sampled(1000 + seed, 1000))
        low, high = law.most_per_s(1)
        held[0] += low <= 1 / SERVICE_S <= high
        low, high = alone_above(law, 3 * SERVICE_S, 1)
        held[1] += low <= bad <= high
    assert held[0] >= 182
    assert held[1] >= 176  # of shares that change by whole requests


def test_runs_that_differ_by_more_than_chance_widen_the_interval() -> None:
    """A GPU that is 10 % slower in every other run: its throughput is not known within CV/√N."""
    alike = law_of(*(sampled(seed) for seed in range(8)))
    drifting = law_of(*(sampled(seed, mean_s=SERVICE_S * (1.1 if seed % 2 else 1.0)) for seed in range(8)))
    widths = [float(np.ptp(np.log(law.most_per_s(1)))) for law in (alike, drifting)]
    assert alike.dispersion < 1.5
    assert widths[1] > 1.5 * widths[0]


def test_a_closed_loop_without_a_flow_is_its_throughput() -> None:
    """Its latencies are the work, in any unit."""
    latency = Histogram()
    latency.add(np.array([5_000_000, 15_000_000] * 100))
    law = pooled(1, 1, [closed_flow(1, 200, 100.0, latency)], [closed_flow(1, 200, 100.0, latency)])
    assert law.throughput(1) == pytest.approx(100)
    assert law.cv == pytest.approx(0.5, rel=0.01)


def test_a_prediction_holds_the_truth_whatever_the_sample() -> None:
    """p99 of M/M/1 at half load is ln 100 / (μ − λ): the interval of a prediction from 4000 requests holds it, and is
    wider than from a law that is known."""
    truth_ns = np.log(100) / (1 / SERVICE_S - 50) * 1e9
    bound = [parse_objective(f"latency.p99 < {truth_ns:.0f}ns")]
    demand, held = steady_demand(50.0), 0
    for seed in range(20):
        (share,) = predict(demand, law_of(sampled(seed, 4000)), "random", 1, bound, 1 + seed, looks=(4,)).objectives
        assert share.value_low_ns is not None
        assert share.value_high_ns is not None
        held += share.value_low_ns <= truth_ns <= share.value_high_ns
        assert share.value_high_ns / share.value_low_ns > 1.05
    assert held >= 17
    exact = Known(station(1, 1, lambda _: 1 / SERVICE_S, lambda ranks: -np.log1p(-ranks)))
    (share,) = predict(demand, exact, "random", 1, bound, 1, precision=0.02).objectives
    assert share.value_ns == pytest.approx(truth_ns, rel=0.03)
    assert exact.most_per_s(1) == (100.0, 100.0)
    assert alone_above(exact, 3 * SERVICE_S, 1)[0] == pytest.approx(np.exp(-3.0), rel=0.02)


def test_the_first_looks_end_a_simulation_only_at_an_interval_of_more_than_95_percent() -> None:
    """After 4 streams the bound is beyond the interval of 95 %, and within that of 99.5 %; then beyond both."""

    def simulated(bound: float, looks: tuple[int, ...] = ()) -> ObjectiveShare:
        objective = [parse_objective(f"latency.p99 < {round(bound)}ns")]
        law = Known(station(1, 1, lambda _: 100.0, lambda ranks: -np.log1p(-ranks)))
        return predict(steady_demand(50.0), law, "random", 1, objective, 1, looks=looks).objectives[0]

    first = simulated(1e9, looks=(4,))
    assert first.value_ns is not None
    assert first.value_high_ns is not None
    end = first.value_high_ns / first.value_ns
    near, far = (simulated(first.value_ns * end**times) for times in (1.2, 2.5))
    assert simulated(first.value_ns * end**1.2, looks=(4,)).verdict == "met"
    assert near.requests > first.requests
    assert (far.requests, far.verdict) == (first.requests, "met")


def test_all_looks_together_are_wrong_in_5_percent() -> None:
    """By Bonferroni's inequality; what one look shows is an interval of 95 % or more."""
    *first, last = _EARLY
    chances = {streams: student_chance(times, streams - 1) for streams, times in _EARLY.items()}
    assert sum(chances.values()) == pytest.approx(0.05, rel=0.01)
    assert [student_chance(_STUDENT[streams], streams - 1) for streams in first] == pytest.approx([0.05] * 3, rel=0.01)
    assert _STUDENT[last] == _EARLY[last]


def test_the_share_beyond_a_bound_is_as_unsure_as_the_law() -> None:
    """1 % of the requests of M/M/1 are beyond its p99: the interval of that share, from 1000 measured services, holds
    it, however long the simulation."""
    bound = [parse_objective(f"latency.p99 < {np.log(100) / (1 / SERVICE_S - 50) * 1e9:.0f}ns")]
    held = 0
    for seed in range(20):
        law = law_of(sampled(300 + seed, 1000))
        (share,) = predict(steady_demand(50.0), law, "random", 1, bound, 1 + seed, looks=(8,)).objectives
        assert share.bad_low is not None
        assert share.bad_high is not None
        held += share.bad_low <= 0.01 <= share.bad_high
    assert held >= 17


def test_what_is_too_rare_to_be_measured_counts_where_few_services_make_up_the_second_moment() -> None:
    """Of log-normal services of CV 2 a few dozen of 5000 do; of exponential ones a sixth. Of services that hardly vary
    none are rare, however few were measured."""

    def deviation(services: npt.NDArray[np.float64]) -> float:
        work = Histogram()
        work.add(np.rint(services * 1e6).astype(np.int64))
        flow = closed_flow(1, len(services), 1 / SERVICE_S, work)
        return float(np.sqrt(pooled(1, 1, [flow], [flow]).unseen))

    random, sigma = np.random.default_rng(1), np.sqrt(np.log(5))
    assert deviation(np.ones(5000)) == 0
    assert deviation(random.normal(1, 0.1, 300)) < 0.01
    assert deviation(random.exponential(1, 5000)) == pytest.approx(20 * 5 / 5000, rel=0.3)
    assert deviation(random.lognormal(-(sigma**2) / 2, sigma, 5000)) > 0.05
    wide, narrow = Spread(0.01, 0.0, 0.04).ends(1.0, 2.0), Spread(0.01, 0.0).ends(1.0, 2.0)
    assert wide[0] == narrow[0] < narrow[1] < wide[1], "rarer services can only make latencies longer"


def test_the_upper_end_of_a_simulated_quantile_is_farther_away() -> None:
    """As its logarithm is skewed. The law's error is of both signs, and together they are at least each of them."""
    deviation = 0.1
    low, high = (np.log(end) for end in Spread(0.0, deviation**2).ends(1.0, 2.0))
    assert -2 * deviation < low < 0 < 2 * deviation < high
    assert high * -low == pytest.approx((2 * deviation) ** 2)
    of_law = [np.log(end) for end in Spread(deviation**2, 0.0).ends(1.0, 2.0)]
    assert of_law == pytest.approx([-2 * deviation, 2 * deviation])
    both = [np.log(end) for end in Spread(deviation**2, deviation**2).ends(1.0, 2.0)]
    assert both == pytest.approx([-np.hypot(low, 2 * deviation), np.hypot(high, 2 * deviation)])


def test_arrivals_and_work_vary_as_independent_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is scaled to its exact mean: that takes away the long busy spells, of which a high quantile is made."""
    seen: list[tuple[float, float]] = []

    def completed(due: npt.NDArray[np.float64], work: npt.NDArray[np.float64], *_: object) -> npt.NDArray[np.float64]:
        seen.append((due[-1] * 50.0 / len(due), float(work.mean())))
        return due + work

    monkeypatch.setattr(fleet_prediction, "completions", completed)
    exact = Known(station(1, 1, lambda _: 1 / SERVICE_S, lambda ranks: -np.log1p(-ranks)))
    bound = [parse_objective("latency.p50 < 1s")]
    for seed in range(10):
        predict(steady_demand(50.0), exact, "random", 1, bound, seed, looks=(24,))
    requests = fleet_prediction._COUNTED
    assert np.mean(seen, axis=0) == pytest.approx([1, 1], abs=4 / np.sqrt(requests * len(seen)))
    assert np.std(seen, axis=0) == pytest.approx([1 / np.sqrt(requests)] * 2, rel=0.2)


@pytest.mark.parametrize("device", [each for each in fleet.devices() if each.contexts <= 2], ids=lambda each: each.name)
def test_two_simulations_of_least_outstanding_routing_agree(device: fleet.Device) -> None:
    """That of benchmarks/fleet.py, the truth of its table, is written apart: request by request, ties and all."""
    gpus, count, random = 5, 2000, np.random.default_rng(3)
    due = np.cumsum(random.exponential(1 / (0.8 * gpus * device.most_per_s), count))
    work = device.works(count, random)
    slower = [1 + device.contention * (busy - 1) for busy in range(device.contexts + 1)]
    model = station(
        device.contexts,
        fleet.BUFFERS,
        lambda n: min(n, device.contexts) / slower[min(n, device.contexts)] / fleet.SERVICE_S,
        lambda ranks: ranks,
    )
    route = router_of("least-outstanding", "longest-idle", random)
    done = completions(due, work, model, gpus, route)
    found = fleet.latencies(device, due, work, gpus, "least-outstanding", 1)
    assert found == pytest.approx(done - due, abs=1e-9)
