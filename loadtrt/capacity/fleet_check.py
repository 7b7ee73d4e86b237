"""The model of a GPU against measurements of that GPU: what the answer is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.asked.load import Rate
from loadtrt.asked.objective import Objective
from loadtrt.capacity.demand import steady_demand
from loadtrt.capacity.fleet_prediction import lead_of, predict
from loadtrt.load.arrivals import Gamma
from loadtrt.records.histogram import Histogram
from loadtrt.results.fleet_result import Comparison
from loadtrt.stats.margin import least_samples
from loadtrt.stats.summary import PERCENTILES
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtrt.capacity.demand import Demand
    from loadtrt.capacity.evidence import Evidence
    from loadtrt.results.run_result import RunResult

_CV = {"constant": 0.0, "poisson": 1.0}
_PRECISION = 0.03  # of predicted quantiles
_FULL = 0.99  # of what a GPU can serve: above, it has no steady state that a run could show


def compare(
    evidence: Evidence,
    objectives: Sequence[Objective],
    seed: int,
    say: Callable[[str], None],
    spend: Callable[[int], None],
) -> Iterator[Comparison]:
    """Each quantile that an objective binds, for each run that tells it: closed loops, then open ones by rate.

    A closed loop of n requests, one a lane, is a law: each takes W · n / X(n). An open one is simulated.
    """
    ranks = sorted({objective.rank for objective in objectives})
    each = evidence.station
    for n, run in sorted(evidence.closed.items()):
        for rank in ranks if n > 1 else ():  # the law of W is that of n = 1
            measured = _measured(run, rank)
            if measured is not None:
                place = min(int(rank * len(each.works)), len(each.works) - 1)
                predicted = float(each.works[place]) / each.speeds[n][n] * SECOND_NS
                yield _comparison(run, rank, measured, predicted, None, None, in_flight=n)
    for run in sorted(evidence.open, key=lambda run: run.model.throughput.offered_per_s or 0):
        model = run.config.model
        load = model.load
        # Stages, traces and bursts have no steady state; batches that form and full queues no model.
        if not isinstance(load, Rate) or load.bursts or model.batcher or model.max_queue is not None:
            continue
        say(f"predicting the measured run at {load.rate:g}/s on one GPU")
        for rank in ranks:
            measured = _measured(run, rank)
            if measured is None:
                continue
            demand = steady_demand(load.rate, burstiness=load.cv)
            if load.rate >= _FULL * each.most_per_s or not lead_of(demand, each, "random", 1)[1]:
                yield _comparison(run, rank, measured, None, None, None)
                continue
            bound = Objective(f"latency.p{100 * rank:g}", 0, rank, round(measured))
            found = predict(demand, each, "random", 1, [bound], seed, spend, _PRECISION).objectives[0]
            yield _comparison(run, rank, measured, found.value_ns, found.value_low_ns, found.value_high_ns)


def other_arrivals(evidence: Evidence, demand: Demand) -> Iterator[str]:
    """A note where the file was made under bursts and the plan is not: whoever asked for those has them."""
    if evidence.capacity is None or demand.told.arrivals != "poisson":
        return
    loads = {load for run in evidence.open if isinstance(load := run.config.model.load, Rate)}
    for bursts in sorted({load.bursts for load in loads if load.bursts}):
        yield f"the measured capacity is for bursts of {bursts}, this plan is for Poisson arrivals: give a --trace"
    for cv in sorted({load.cv for load in loads if not load.bursts and isinstance(load.process, Gamma)}):
        yield f"the measured capacity is for burstiness {cv:g}, this plan is for Poisson arrivals: give --burstiness"


def _measured(run: RunResult, rank: float) -> float | None:
    """The quantile of latency, None where the run was too short for it."""
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
