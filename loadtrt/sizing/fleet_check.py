"""The simulation's predictions for one GPU against measurements of that GPU: how far a plan can be trusted; and a plan
without any simulation."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from loadtrt.asked.load import Rate
from loadtrt.asked.objective import Objective, quantile_name
from loadtrt.load.arrivals import Gamma
from loadtrt.records.histogram import Histogram
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.fleet_result import POOR, Comparison, Direct
from loadtrt.sizing.demand import fewest_for, steady_demand
from loadtrt.sizing.fleet_prediction import lead_of, predict
from loadtrt.sizing.station import Station
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import SECOND_NS, plural, rough_percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtrt.results.capacity_result import Candidate
    from loadtrt.results.run_result import RunResult
    from loadtrt.sizing.demand import Demand
    from loadtrt.sizing.evidence import Evidence

_CHECKED = 0.03  # precision of quantiles that are compared with measured ones
_LOOKS = (4, 8)  # streams of such a simulation
_FULL = 0.99  # utilisation above which no run reaches a steady state
_LONGEST = 100_000  # requests until a steady state, above which a run is too close to saturation
_DOUBTFUL = 1.1  # a ratio of predicted and measured beyond which an answer is not one
_NORMAL = 1.96
_LEAST_DEVIATION = 0.02  # of a measured quantile: so that no run outweighs all others


def compare(
    evidence: Evidence,
    objectives: Sequence[Objective],
    seed: int,
    say: Callable[[str], None],
    spend: Callable[[int], None],
) -> Iterator[Comparison]:
    """Compare each quantile that an objective bounds in each run that measured it: closed loops, then open ones. Where
    the interval of such a quantile has no upper end, the run's median is compared, too.

    For a closed loop of n requests, one per lane, the prediction is exact: latency is W · n / X(n). An open loop is
    simulated.
    """
    ranks = sorted({objective.rank for objective in objectives})
    station = evidence.law.station
    for n, run in sorted(evidence.closed.items()):
        for rank in ranks if n > 1 else ():  # n = 1 defines W
            measured = measured_quantile(run, rank)
            if measured is not None and isinstance(station, Station):
                place = min(int(rank * len(station.works)), len(station.works) - 1)
                exact_ns = float(station.works[place]) / station.speeds[n][n] * SECOND_NS
                yield comparison(run, rank, measured, exact_ns, None, None, in_flight=n)
    for run in sorted(evidence.open, key=lambda run: run.model.throughput.offered_per_s or 0):
        model = run.config.model
        load = model.load
        # Stages, traces and bursts have no steady state; not all models have batchers and bounded queues.
        serves = model.batcher is not None or model.max_queue is not None
        if not isinstance(load, Rate) or load.bursts or serves == isinstance(station, Station):
            continue
        say(f"predicting the measured run at {load.rate:g}/s on one GPU")
        middle = None if 0.5 in ranks else measured_quantile(run, 0.5)
        for rank in ranks:
            measured = measured_quantile(run, rank)
            if measured is None:
                continue
            demand = steady_demand(load.rate, burstiness=load.cv)
            if load.rate >= _FULL * station.most_per_s or lead_of(demand, station, "random", 1)[0] > _LONGEST:
                yield comparison(run, rank, measured, None, None, None)
                continue
            bound = Objective(f"latency.p{100 * rank:g}", 0, rank, round(measured))
            simulated = predict(
                demand, evidence.law, "random", 1, [bound], seed, spend, precision=_CHECKED, looks=_LOOKS
            )
            predicted = simulated.objectives[0]
            low_ns, high_ns = predicted.value_low_ns, predicted.value_high_ns
            check = comparison(run, rank, measured, predicted.value_ns, low_ns, high_ns)
            yield check
            if check.measured_high_ns is None and middle is not None:
                ends = simulated.p50_low_ns, simulated.p50_high_ns
                of_median = comparison(run, 0.5, middle, simulated.p50_ns, *ends)
                if of_median.measured_high_ns is not None:
                    yield of_median
                middle = None


def doubt_of(checks: Sequence[Comparison], capacity: Candidate | None) -> str | None:
    """Why a plan is undecided; None where it is not. Predictions for runs at a rate differ from what was measured: all
    in all by more than 10 % beyond chance, or by more than POOR in the median where no run tells whether by chance. Of
    a GPU whose law was measured beside overloaded neighbours they must surely differ by less than POOR.

    capacity: the measured one, where the files are a search for it.

    The mean of ln(predicted / measured), weighted by the variances of the measured quantiles. The error of the law is
    common to all predictions, so that it does not fall with their number.
    """
    total = mean = common = 0.0
    for check in checks:
        low, high = check.measured_low_ns, check.measured_high_ns
        if check.predicted_ns and check.measured_ns and low and high:
            weight = 1 / max(math.log(high / low) / (2 * _NORMAL), _LEAST_DEVIATION) ** 2
            spread = math.log((check.predicted_high_ns or 1.0) / (check.predicted_low_ns or 1.0)) / (2 * _NORMAL)
            total += weight
            mean += weight * math.log(check.predicted_ns / check.measured_ns)
            common += weight * spread
    mean, common, chance = (mean / total, common / total, 1 / total) if total else (0.0, 0.0, math.inf)
    half = _NORMAL * math.sqrt(chance + common**2)
    names = sorted({name for trial in (capacity.ladder if capacity else ()) for name in trial.overloaded})
    longer = "a longer --time of loadtrt capacity" if capacity else "longer runs"
    if names and abs(mean) + half > math.log1p(POOR):
        were, loads = ("was", "its load") if len(names) == 1 else ("were", "their loads")
        return (
            f"undecided: {' and '.join(names)} {were} overloaded beside the closed loops that tell how fast a GPU is, "
            f"and no runs beside {loads} show that latencies are predicted within {100 * POOR:g} %: the plan is not "
            f"supported by the measurement. Give {longer}, or neighbours less load"
        )
    of = f"undecided: latencies at {plural(len({check.rate_per_s for check in checks}), 'measured rate')} are predicted"
    errors = [abs(check.error) for check in checks if check.error is not None]
    if not total and errors and median(errors) > POOR:
        return (
            f"{of} {rough_percent(median(errors))} off in the median, and the runs are too short to tell whether by "
            f"chance: the plan is not supported by the measurement, until {longer} tell{'s' if capacity else ''}"
        )
    if abs(mean) - half <= math.log(_DOUBTFUL):
        return None
    off = f"{100 * math.expm1(abs(mean)):.0f} % too {'long' if mean > 0 else 'short'}"
    return (
        f"{of} {off} on average, which is more than chance: the GPU differed between runs, or is not such a queue. "
        f"Repeat {'loadtrt capacity' if capacity else 'the runs'} with nothing else on GPU and host, and with locked "
        "clocks"
    )


def direct_of(
    evidence: Evidence, demand: Demand, objectives: Sequence[Objective], least: int, spares: int
) -> Direct | None:
    """The number of GPUs by the measured capacity; None without one for these objectives and Poisson arrivals.

    least: the fewest GPUs that the utilisation allows.
    """
    capacity = evidence.capacity
    if capacity is None or demand.summary.arrivals != "poisson":
        return None
    loads = [run.config.model.load for run in evidence.open]
    if set(objectives) != set(evidence.objectives) or not all(it.cv == 1 and it.steady for it in loads):
        return None
    sure = sure_rate(capacity)
    if sure is None:
        return None
    gpus = max(fewest_for(demand.summary.planned_per_s, sure[0]), least) + spares
    return Direct(per_gpu_per_s=sure[0], basis=sure[1], gpus=gpus)


def sure_rate(capacity: Candidate) -> tuple[float, str] | None:
    """The rate at which one GPU surely meets the objectives, and the measurement that shows it; None without one."""
    low = None if capacity.answer == "host-bound" else capacity.low_per_s
    rates = (
        (capacity.confirmed_per_s, "a confirming run"),
        (low, "the lower end of the capacity's interval"),
        (capacity.feasible_max_per_s, "the highest trial that met the objectives"),
    )
    return next(((rate, basis) for rate, basis in rates if rate), None)


def other_arrivals(evidence: Evidence, demand: Demand) -> Iterator[str]:
    """A note if the capacity was measured with burstier arrivals than the plan assumes."""
    if evidence.capacity is None or demand.summary.arrivals != "poisson":
        return
    loads = {load for run in evidence.open if isinstance(load := run.config.model.load, Rate)}
    for bursts in sorted({load.bursts for load in loads if load.bursts}):
        yield f"the measured capacity is for bursts of {bursts}, this plan is for Poisson arrivals: give a --trace"
    for cv in sorted({load.cv for load in loads if not load.bursts and isinstance(load.process, Gamma)}):
        yield f"the measured capacity is for burstiness {cv:g}, this plan is for Poisson arrivals: give --burstiness"


def measured_quantile(run: RunResult, rank: float) -> float | None:
    """The quantile of latency; None if the sample is too small."""
    if "latency" not in run.model.metrics or "latency" not in run.model.histograms:
        return None
    if run.model.dropped:  # metrics are of those that were served
        shares = [share for share in run.model.objectives if share.objective.metric_name == "latency"]
        return next((share.value_ns for share in shares if share.objective.rank == rank), None)
    for name, known in PERCENTILES.items():
        if known == rank:
            return run.model.metrics["latency"].percentiles_ns[name]
    histogram = Histogram.from_dict(run.model.histograms["latency"])
    return histogram.quantiles((rank,))[0] if histogram.count >= least_samples(rank) else None


def comparison(
    run: RunResult,
    rank: float,
    measured: float,
    predicted: float | None,
    low: float | None,
    high: float | None,
    in_flight: int | None = None,
) -> Comparison:
    interval = run.model.metrics["latency"].confidence.get(quantile_name(rank))
    measured_low = measured_high = None
    if interval is not None and run.model.ended_early is None:  # a run that ended as it missed has too high quantiles
        measured_low, measured_high = interval.low, interval.high
    within = None
    if measured_low is not None and predicted is not None:
        within = (low or predicted) <= (measured_high or math.inf) and measured_low <= (high or predicted)
    return Comparison(
        rate_per_s=run.model.throughput.offered_per_s if in_flight is None else None,
        in_flight=in_flight,
        arrivals=run.config.model.load.options()["arrivals"],
        rank=rank,
        measured_ns=measured,
        measured_low_ns=measured_low,
        measured_high_ns=measured_high,
        predicted_ns=predicted,
        predicted_low_ns=low,
        predicted_high_ns=high,
        error=None if predicted is None else predicted / measured - 1,
        within=within,
    )
