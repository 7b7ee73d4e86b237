"""The model of a fleet obeys queueing theory: closed forms, recursions, and the simulated engine."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.queues import Waiting, allen_cunneen, erlang_c, gamma_m_1, markov_quantile, markov_tail
from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulation import Simulation
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Load, Stop, drive
from loadtrt.load.arrivals import Poisson, due_instants
from loadtrt.records.histogram import Histogram
from loadtrt.results.fleet_result import TIES
from loadtrt.sizing.demand import steady_demand
from loadtrt.sizing.routers import complete, in_lists, new_fleet, router_of, send
from loadtrt.sizing.station import Station, completions, interpolated, station, work_of
from loadtrt.units import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.results.fleet_result import Routing, Ties
    from loadtrt.sizing.station import Floats, Work


LEAST = router_of("least-outstanding", "longest-idle", np.random.default_rng(1))


def exponential(ranks: Floats) -> Floats:
    return -np.log1p(-ranks)


def constant(ranks: Floats) -> Floats:
    return np.ones_like(ranks)


def two_kinds(ranks: Floats) -> Floats:
    """Nine of ten requests take 0.5, one takes 5.5: mean 1, CV 1.5."""
    return np.where(ranks < 0.9, 0.5, 5.5)


def servers(count: int, work: Work = exponential, buffers: int = 1) -> Station:
    """X(n) = min(n, c): as many independent servers, each of one request a second."""
    return station(count, buffers, lambda n: min(n, count), work)


def replications(
    gpu_model: Station, rate: float, *, gpus: int = 1, routing: Routing | None = None, count: int = 40_000
) -> list[Floats]:
    """Latencies in s of 20 simulations, without their first quarter.

    rate: requests a second of each GPU.
    routing: how a request's GPU is chosen; None: one queue for all GPUs.
    """
    found = []
    for seed in range(20):
        random = np.random.default_rng([seed, 1])
        demand = steady_demand(rate * gpus)
        due = demand.due_at_gpu(routing or "least-outstanding", gpus, count, random)
        work = gpu_model.work(random.random(count))
        done = completions(due, work, gpu_model, 1 if routing else gpus, None if routing else LEAST)
        found.append((done - due)[count // 4 :])
    return found


def assert_law(found: Sequence[Floats], statistic: Callable[[Floats], float], law: float) -> None:
    """The law lies within the 99.9 % interval of the mean over the replications (t of 19 degrees: 3.88), and that is
    narrow enough: 10 %."""
    values = np.array([statistic(latencies) for latencies in found])
    half = 3.88 * float(values.std(ddof=1)) / math.sqrt(len(values))
    assert half < 0.1 * law
    assert abs(float(values.mean()) - law) < half


def quantile(rank: float) -> Callable[[Floats], float]:
    return lambda latencies: float(np.quantile(latencies, rank))


def mean(latencies: Floats) -> float:
    return float(latencies.mean())


# --- closed forms


@pytest.mark.parametrize(("count", "load"), [(1, 0.5), (4, 3.2), (40, 36.0)])
def test_erlang_c_is_the_sum_that_defines_it(count: int, load: float) -> None:
    """C = T / (Σ_{k<c} a^k/k! + T), T = a^c/c! · c/(c − a)."""
    terms = [math.exp(k * math.log(load) - math.lgamma(k + 1)) for k in range(count + 1)]
    last = terms[count] * count / (count - load)
    assert erlang_c(count, load) == pytest.approx(last / (sum(terms[:count]) + last), rel=1e-12)


def test_erlang_c_at_the_edges() -> None:
    """No request waits without load, all wait at saturation; ten thousand servers work, too."""
    assert erlang_c(3, 0.0) == 0
    assert erlang_c(3, 3.0) == erlang_c(3, 5.0) == 1
    assert 0 < erlang_c(10_000, 9_900.0) < 1


@pytest.mark.parametrize("cv2", [0.0, 0.25, 4.0])
def test_allen_and_cunneen_with_one_server_is_pollaczek_and_khinchine(cv2: float) -> None:
    """E[W] = λ·E[S²] / (2(1 − ρ)) of M/G/1: share that waits × its mean."""
    waiting = allen_cunneen(1, 30.0, 0.02, 1.0, cv2)
    assert waiting is not None
    assert waiting.share == pytest.approx(0.6)
    assert waiting.share * waiting.mean_s == pytest.approx(30 * 0.02**2 * (1 + cv2) / (2 * 0.4))


def test_allen_and_cunneen_has_no_answer_at_saturation() -> None:
    """None where ρ ≥ 1: a number would be invented."""
    assert allen_cunneen(4, 4.0, 1.0, 1.0, 1.0) is None


@pytest.mark.parametrize("waiting", [Waiting(0.7, 2.0), Waiting(0.4, 1.0), Waiting(0.2, 0.3)])
def test_latency_of_exponential_services_is_the_same_both_ways(waiting: Waiting) -> None:
    """Wait + service summed over quantiles of the service equals the closed form, also where both have one mean."""
    services = exponential((np.arange(200_000) + 0.5) / 200_000)
    for t in (0.1, 1.0, 4.0):
        assert waiting.latency_tail(t, services) == pytest.approx(markov_tail(t, waiting, 1.0), rel=2e-3)
    found = waiting.latency_quantile(0.99, services)
    assert found == pytest.approx(markov_quantile(0.99, waiting, 1.0), rel=2e-3)
    assert markov_tail(found, waiting, 1.0) == pytest.approx(0.01, rel=0.02)


def test_gamma_m_1_knows_poisson_and_constant_gaps() -> None:
    """Ca² = 1: σ = ρ. Ca² → 0 is D/M/1: σ = exp(−(1 − σ)/ρ)."""
    assert gamma_m_1(0.8, 1.0, 1.0).share == pytest.approx(0.8, abs=1e-9)
    share = gamma_m_1(0.8, 1.0, 1e-9).share
    assert share == pytest.approx(math.exp(-(1 - share) / 0.8), abs=1e-6)


# --- the simulation against closed forms


@pytest.mark.parametrize(("count", "load"), [(1, 0.7), (3, 0.7), (8, 0.85)])
def test_independent_servers_with_exponential_work_are_m_m_c(count: int, load: float) -> None:
    """X(n) = min(n, c)·μ, one buffer set a lane: mean, p50 and p99 of latency are those of M/M/c."""
    waiting = allen_cunneen(count, load * count, 1.0, 1.0, 1.0)
    assert waiting is not None
    found = replications(servers(count), load * count)
    assert_law(found, mean, waiting.share * waiting.mean_s + 1)
    for rank in (0.5, 0.99):
        assert_law(found, quantile(rank), markov_quantile(rank, waiting, 1.0))


@pytest.mark.parametrize("work", [exponential, constant, two_kinds])
def test_a_shared_device_is_processor_sharing(work: Work) -> None:
    """X(n) = μ with a context for each request: mean latency 1 / (μ − λ), whatever the law of work (Sakata, 1971)."""
    shared = station(100, 1, lambda _: 1.0, work)
    assert_law(replications(shared, 0.6, count=15_000), mean, 1 / (1 - 0.6))


def test_one_server_with_constant_work_is_m_d_1() -> None:
    """E[W] = ρ / (2(1 − ρ)), and P(W ≤ t) = (1 − ρ) Σ_{k ≤ t} (λ(k − t))^k / k! · e^{−λ(k − t)} (Erlang, 1909)."""
    load = 0.7

    def waits_less(t: float) -> float:
        terms = ((load * (k - t)) ** k / math.factorial(k) * math.exp(-load * (k - t)) for k in range(int(t) + 1))
        return (1 - load) * sum(terms)

    found = replications(servers(1, constant), load)
    assert_law(found, mean, load / (2 * (1 - load)) + 1)
    p99 = next(t for t in itertools.count(0, 0.01) if waits_less(t) >= 0.99)
    assert_law(found, quantile(0.99), p99 + 1)


def test_round_robin_is_e_g_m_1() -> None:
    """Every fourth request of a Poisson process has Erlang gaps of four phases."""
    found = replications(servers(1), 0.8, gpus=4, routing="round-robin")
    waiting = gamma_m_1(0.8, 1.0, 1 / 4)
    assert_law(found, mean, waiting.mean_s)  # the latency is as long as a wait that is not zero
    assert_law(found, quantile(0.99), waiting.mean_s * math.log(100))


def test_random_routing_leaves_poisson_arrivals_poisson() -> None:
    """One GPU of ten under random routing is M/M/2 at a tenth of the rate: independent of the others."""
    waiting = allen_cunneen(2, 1.4, 1.0, 1.0, 1.0)
    assert waiting is not None
    found = replications(servers(2), 1.4, gpus=10, routing="random")
    assert_law(found, quantile(0.99), markov_quantile(0.99, waiting, 1.0))


@pytest.mark.parametrize("routing", ["random", "round-robin"])
@pytest.mark.parametrize("burstiness", [0.0, 1.0, 3.0])
def test_gaps_at_a_gpu_are_sums_of_gaps(routing: Routing, burstiness: float) -> None:
    """Mean G/Λ; Ca² as `cv2_at_gpu` says: Ca²/G, or 1 + (Ca² − 1)/G."""
    demand = steady_demand(50.0, burstiness=burstiness)
    gaps = np.diff(demand.due_at_gpu(routing, 5, 400_000, np.random.default_rng(1)))
    assert gaps.mean() == pytest.approx(0.1, rel=0.02)
    expected = demand.cv2_at_gpu(routing, 5)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(expected, rel=0.05, abs=1e-9)


def test_the_fewer_outstanding_the_better() -> None:
    """p99 of four servers: one queue for all (M/M/4) < least-outstanding < round-robin < random, at the same load."""
    waiting = allen_cunneen(4, 3.4, 1.0, 1.0, 1.0)
    assert waiting is not None
    together = markov_quantile(0.99, waiting, 1.0)
    ways: tuple[Routing | None, ...] = (None, "round-robin", "random")
    fewest, turns, dice = (replications(servers(1), 0.85, gpus=4, routing=way, count=15_000) for way in ways)
    p99 = [float(np.mean([np.quantile(latencies, 0.99) for latencies in found])) for found in (fewest, turns, dice)]
    assert together < p99[0] < p99[1] < p99[2]


# --- exact laws


def test_one_lane_is_the_lindley_recursion() -> None:
    """wait_{k+1} = max(0, wait_k + S_k − A_k), of every request, however many buffer sets the lane has."""
    random = np.random.default_rng(4)
    due, work = np.cumsum(random.exponential(1 / 0.9, 3000)), random.lognormal(-0.5, 1.0, 3000)
    wait, expected = 0.0, []
    for gap, service in zip([*np.diff(due), 0.0], work, strict=True):
        expected.append(wait + service)
        wait = max(0.0, wait + service - gap)
    for buffers in (1, 3):
        done = completions(due, work, servers(1, buffers=buffers))
        assert done - due == pytest.approx(np.array(expected), abs=1e-6)


def by_hand(due: Floats, work: Floats, gpu_model: Station, gpus: int) -> list[float]:
    """The same queue, slowly: each event updates all remaining work, without heaps."""
    done, remaining = [math.inf] * len(due), work.tolist()
    lanes: list[list[list[int]]] = [[[] for _ in range(gpu_model.contexts)] for _ in range(gpus)]
    waiting: list[list[int]] = [[] for _ in range(gpus)]
    since, turn, arrived, now = list(range(gpus)), max(gpus, gpu_model.contexts), 0, 0.0
    lane_since = [list(range(gpu_model.contexts)) for _ in range(gpus)]

    def speed(gpu: int) -> float:
        busy = sum(map(bool, lanes[gpu]))
        return gpu_model.speeds[busy][sum(map(len, lanes[gpu]))] if busy else 0.0

    while arrived < len(due) or any(lane for gpu in lanes for lane in gpu):
        ends = [
            (now + remaining[lane[0]] / speed(gpu), gpu, lane) for gpu in range(gpus) for lane in lanes[gpu] if lane
        ]
        end, finished, its_lane = min(ends, key=lambda item: item[0], default=(math.inf, 0, []))
        turn += 1
        then = min(end, due[arrived]) if arrived < len(due) else end
        speeds = [speed(gpu) for gpu in range(gpus)]
        for gpu in range(gpus):
            for lane in lanes[gpu]:
                if lane:
                    remaining[lane[0]] -= (then - now) * speeds[gpu]
        now = then
        if arrived < len(due) and due[arrived] <= end:
            held = [sum(map(len, lanes[gpu])) + len(waiting[gpu]) for gpu in range(gpus)]
            finished = min(range(gpus), key=lambda gpu: (held[gpu], since[gpu]))
            waiting[finished].append(arrived)
            arrived += 1
        else:
            done[its_lane.pop(0)] = now
            place = next(place for place, lane in enumerate(lanes[finished]) if lane is its_lane)
            lane_since[finished][place] = turn
        since[finished] = turn
        while waiting[finished] and sum(map(len, lanes[finished])) < gpu_model.in_flight:
            mine, stamps = lanes[finished], lane_since[finished]
            place = min(range(gpu_model.contexts), key=lambda lane: (len(mine[lane]), stamps[lane]))
            mine[place].append(waiting[finished].pop(0))
            stamps[place] = turn
    return done


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("gpus", "contexts", "buffers"), [(1, 3, 2), (3, 2, 2), (4, 1, 1), (2, 4, 1)])
def test_events_are_those_of_a_simulation_by_hand(seed: int, gpus: int, contexts: int, buffers: int) -> None:
    """Virtual time, heaps and levels change nothing: completions are those of a simulation that has none of them."""
    random = np.random.default_rng([seed, gpus, contexts])
    speeds = dict(
        zip(range(1, contexts * buffers + 1), np.cumsum(random.uniform(0.2, 1, contexts * buffers)), strict=True)
    )
    gpu_model = station(contexts, buffers, lambda n: float(speeds[n]), exponential)
    rate = 1.05 * gpus * gpu_model.most_per_s
    due, work = np.cumsum(random.exponential(1 / rate, 250)), random.exponential(1.0, 250)
    done = completions(due, work, gpu_model, gpus, LEAST)
    assert done == pytest.approx(by_hand(due, work, gpu_model, gpus), abs=1e-7)


@pytest.mark.anyio
@pytest.mark.parametrize("contention", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("buffers", [1, 2])
async def test_the_model_is_the_simulated_engine(contention: float, buffers: int) -> None:
    """Scheduler and simulated engine complete each request when the model says, within the nanosecond to which the
    engine rounds each event, with X(n) = n / (1 + contention·(n − 1)) / S over the lanes that compute."""
    contexts, count = 3, 1500
    simulation = Simulation(service_ns=5 * MILLISECOND_NS, cv=0.8, contention=contention, clock="virtual")
    engine = SimulatedEngine(simulation, contexts=contexts, buffers=buffers)
    engine.allocate([{"x": np.zeros((1, 16), np.float32)}])

    def throughput(n: int) -> float:
        lanes = min(n, contexts)
        return 200 * lanes / (1 + contention * (lanes - 1))

    due = due_instants(Poisson(), 0.9 * throughput(contexts), 0, count, 3)
    recorder = Recorder(contexts, engine.now_ns())
    await drive(engine, recorder, Load(due), Stop())
    records = recorder.records
    found = np.sort(records.completed) - recorder.start_ns
    times = itertools.islice(simulation.service_times(1), count)
    works = [time / simulation.service_ns for time in times]
    gpu_model = station(contexts, buffers, throughput, exponential)
    done = np.sort(completions(due / SECOND_NS, np.array(works), gpu_model)) * SECOND_NS
    assert len(found) == count
    assert np.abs(found - done).max() < count  # a nanosecond an event


# --- from measurements


def test_work_keeps_the_shape_of_what_was_measured() -> None:
    """Mean 1; mean and CV in ns, and every quantile, within the histogram's 0.8 %."""
    values = np.random.default_rng(1).gamma(4.0, 250_000.0, 50_000).astype(np.int64)
    histogram = Histogram()
    histogram.add(values)
    work, mean_ns, cv = work_of(histogram)
    assert mean_ns == pytest.approx(values.mean(), rel=0.008)
    assert cv == pytest.approx(0.5, rel=0.02)
    ranks = np.array([0.01, 0.5, 0.99, 0.999])
    assert work(ranks) * mean_ns == pytest.approx(np.quantile(values, ranks), rel=0.009)
    assert work(np.array([0.0, 1.0])) * mean_ns == pytest.approx([values.min(), values.max()])


def test_throughput_between_measurements_is_exact_where_contention_alone_slows() -> None:
    """X(n) = n / (1 + σ(n − 1)) from X(1), X(4) and X(8); beyond them X(8)."""

    def law(n: int) -> float:
        return 100 * n / (1 + 0.3 * (n - 1))

    found = interpolated({1: law(1), 4: law(4), 8: law(8)})
    assert [found(n) for n in range(1, 9)] == pytest.approx([law(n) for n in range(1, 9)])
    assert found(20) == pytest.approx(law(8))


def test_no_request_is_faster_than_one_alone() -> None:
    """X measured in full lanes, whose copies overlap computing: a lone request still takes `alone_s`, and a lane with
    two is as fast as was measured."""
    gpu_model = station(2, 2, lambda lanes: 150.0 * min(lanes, 2), exponential, alone_s=0.01)
    assert gpu_model.alone_s == 0.01
    assert (gpu_model.speeds[1][2], gpu_model.speeds[2][2], gpu_model.speeds[2][4]) == (150.0, 100.0, 150.0)
    assert gpu_model.most_per_s == 300.0


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("seed", range(3))
def test_least_outstanding_goes_where_a_list_of_counts_says(ties: Ties, seed: int) -> None:
    """To one of the GPUs with the fewest; of those to the first, to the one that has had so few for the longest time,
    or to each as often as to the others."""
    random = np.random.default_rng(seed)
    router = router_of("least-outstanding", ties, np.random.default_rng(9))
    assert router is not None
    fleet = in_lists(new_fleet(router, 6, 4000))
    counts, since, chosen = [0] * 6, list(range(6)), [0] * 6
    sent: list[int] = []
    for step in range(6, 4006):
        if sent and random.random() < 0.48:
            gpu = sent.pop(int(random.integers(len(sent))))
            complete(fleet, gpu)
            counts[gpu] -= 1
        else:
            gpu = send(fleet)
            fewest = [place for place in range(6) if counts[place] == min(counts)]
            assert gpu in fewest
            if ties == "lowest-index":
                assert gpu == fewest[0]
            elif ties == "longest-idle":
                assert gpu == min(fewest, key=lambda place: since[place])
            counts[gpu] += 1
            chosen[gpu] += 1
            sent.append(gpu)
        since[gpu] = step
        assert fleet.outstanding == counts
    if ties == "random":
        assert min(chosen) > 0.8 * max(chosen)


def test_two_choices_take_the_better_of_two_random_gpus() -> None:
    """With n − 1 idle GPUs and one busy one, that one is chosen if both choices are it: 1 / n²."""
    router = router_of("two-choices", "longest-idle", np.random.default_rng(5))
    assert router is not None
    fleet = in_lists(new_fleet(router, 4, 32_000))
    fleet.outstanding[2] = 3
    chosen = [0] * 4
    for _ in range(32_000):
        gpu = send(fleet)
        chosen[gpu] += 1
        complete(fleet, gpu)
    assert chosen[2] / 32_000 == pytest.approx(1 / 16, rel=0.1)
    assert min(chosen[0], chosen[1], chosen[3]) / 32_000 == pytest.approx(5 / 16, rel=0.05)


def test_routing_that_knows_more_is_faster() -> None:
    """p99 with eight M/M/1 at 80 %: least-outstanding < two choices < random, whose law is known."""
    p99 = {}
    for routing in ("two-choices", "least-outstanding"):
        router = router_of(routing, "longest-idle", np.random.default_rng(6))
        random = np.random.default_rng(3)
        due = np.cumsum(random.exponential(1 / 6.4, 60_000))
        done = completions(due, random.exponential(1, 60_000), servers(1), 8, router)
        p99[routing] = float(np.quantile((done - due)[6000:], 0.99))
    assert 4.6 < p99["least-outstanding"] < 0.85 * p99["two-choices"]
    assert p99["two-choices"] < 0.6 * math.log(100) / 0.2
