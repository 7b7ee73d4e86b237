"""Predictions of the model of one GPU against measurements of that GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.asked.load import Rate
from loadtrt.asked.objective import Objective
from loadtrt.capacity.demand import steady_demand
from loadtrt.capacity.fleet_prediction import lead_of, predict
from loadtrt.load.arrivals import Gamma
from loadtrt.records.histogram import Histogram
from loadtrt.results.breakdown import PERCENTILES
from loadtrt.results.fleet_result import Comparison
from loadtrt.stats.margin import least_samples
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtrt.capacity.demand import Demand
    from loadtrt.capacity.evidence import Evidence
    from loadtrt.results.run_result import RunResult

_PRECISION = 0.03  # of predicted quantiles
_FULL = 0.99  # utilisation above which no run reaches a steady state


def compare(
    evidence: Evidence,
    objectives: Sequence[Objective],
    seed: int,
    say: Callable[[str], None],
    spend: Callable[[int], None],
) -> Iterator[Comparison]:
    """Compare each quantile that an objective bounds in each run that measured it: closed loops, then open ones.

    For a closed loop of n requests, one per lane, the prediction is exact: latency is W · n / X(n). An open loop is
    simulated.
    """
    ranks = sorted({objective.rank for objective in objectives})
    station = evidence.station
    for n, run in sorted(evidence.closed.items()):
        for rank in ranks if n > 1 else ():  # n = 1 defines W
            measured = _measured(run, rank)
            if measured is not None:
                place = min(int(rank * len(station.works)), len(station.works) - 1)
                exact_ns = float(station.works[place]) / station.speeds[n][n] * SECOND_NS
                yield _comparison(run, rank, measured, exact_ns, None, None, in_flight=n)
    for run in sorted(evidence.open, key=lambda run: run.model.throughput.offered_per_s or 0):
        model = run.config.model
        load = model.load
        # Stages, traces and bursts have no steady state; the model has no batcher and no bounded queue.
        if not isinstance(load, Rate) or load.bursts or model.batcher or model.max_queue is not None:
            continue
        say(f"predicting the measured run at {load.rate:g}/s on one GPU")
        for rank in ranks:
            measured = _measured(run, rank)
            if measured is None:
                continue
            demand = steady_demand(load.rate, burstiness=load.cv)
            if load.rate >= _FULL * station.most_per_s or not lead_of(demand, station, "random", 1)[1]:
                yield _comparison(run, rank, measured, None, None, None)
                continue
            bound = Objective(f"latency.p{100 * rank:g}", 0, rank, round(measured))
            predicted = predict(demand, station, "random", 1, [bound], seed, spend, _PRECISION).objectives[0]
            low_ns, high_ns = predicted.value_low_ns, predicted.value_high_ns
            yield _comparison(run, rank, measured, predicted.value_ns, low_ns, high_ns)


def other_arrivals(evidence: Evidence, demand: Demand) -> Iterator[str]:
    """A note if the capacity was measured with burstier arrivals than the plan assumes."""
    if evidence.capacity is None or demand.summary.arrivals != "poisson":
        return
    loads = {load for run in evidence.open if isinstance(load := run.config.model.load, Rate)}
    for bursts in sorted({load.bursts for load in loads if load.bursts}):
        yield f"the measured capacity is for bursts of {bursts}, this plan is for Poisson arrivals: give a --trace"
    for cv in sorted({load.cv for load in loads if not load.bursts and isinstance(load.process, Gamma)}):
        yield f"the measured capacity is for burstiness {cv:g}, this plan is for Poisson arrivals: give --burstiness"


def _measured(run: RunResult, rank: float) -> float | None:
    """The quantile of latency; None if the sample is too small."""
    if "latency" not in run.model.metrics or "latency" not in run.model.histograms:
        return None
    for name, known in PERCENTILES.items():
        if known == rank:
            return run.model.metrics["latency"].percentiles_ns[name]
    histogram = Histogram.from_dict(run.model.histograms["latency"])
    return histogram.quantiles((rank,))[0] if histogram.count >= least_samples(rank) else None


def _comparison(
    run: RunResult,
    rank: float,
    measured: float,
    predicted: float | None,
    low: float | None,
    high: float | None,
    in_flight: int | None = None,
) -> Comparison:
    margin = run.model.metrics["latency"].margins.get(f"p{100 * rank:g}")
    measured_low, measured_high = (measured / (1 + margin), measured * (1 + margin)) if margin else (None, None)
    within = None
    if measured_low is not None and measured_high is not None and predicted is not None:
        within = (low or predicted) <= measured_high and measured_low <= (high or predicted)
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
