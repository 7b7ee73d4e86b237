"""A run's result by MLPerf's rules, as LoadGen 6.0.17 computes it (loadgen/results.cc, loadgen/early_stopping.cc).

**Early stopping.** Of n requests t took longer than a bound. If a share of 1 − p or more of all requests did, t or
fewer would be seen with a probability of at most P(X ≤ t), X binomial(n, 1 − p). LoadGen accepts that p of all are
within the bound if

    P(X ≤ t) = I_p(n − t, t + 1) ≤ 1 − c        c = 99 %

I: the regularized incomplete beta function. n_min(t) is the least such n: 44, 64, 81 for p90, and 459, 662, 838 for p99
(t = 0, 1, 2). That assumes that requests are independent, which near saturation they are not: see stats/verdict.py.

**Estimate** of a quantile: the t-th largest of n latencies, t ≥ 1 the largest for which n ≥ n_min(t).

**Latency** counts from the due instant in server and offline. The streams send a request when the one before has
completed, and LoadGen counts from the sending: that is loadtrt's *service*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtrt.asked.mlperf import LEAST_NS, SCENARIOS
from loadtrt.records.records import METRICS
from loadtrt.results.breakdown import ScenarioResult
from loadtrt.stats.binomial import beta
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from loadtrt.asked.mlperf import Scenario
    from loadtrt.records.histogram import Histogram
    from loadtrt.records.records import Records
    from loadtrt.results.run_result import ObjectiveShare

    Measured = tuple[dict[str, Any], list[str]]  # fields of the result, and the rules that it does not keep

_ALPHA = 0.01  # 1 − c
_LEAST = format_duration(LEAST_NS)
_SLACK = 1.1  # LoadGen's factor on the samples that fill offline's least time


@dataclass(frozen=True, slots=True)
class Sending:
    """What a run sent.

    requests: all requests that came due.
    answered: requests that were served.
    inferences: inferences of a request.
    lasted_ns: from the start until the last request was sent (streams) or due (server), by `lasted_of`.
    """

    requests: int
    answered: int
    inferences: int
    lasted_ns: int


def lasted_of(kept: Records, complete: bool, start_ns: int, end_ns: int, slowest_ns: int, closed: bool) -> int:
    """Instant of the last query, ns since the start, as LoadGen judges the least duration (MinDurationMet in
    results.cc): a stream's when it was issued, a server's when it was scheduled. Where not all records were kept, a
    lower bound: the last completion less the longest service or latency.

    kept: the run's records, all of them or the first.
    complete: whether these are all.
    end_ns: the last completion.
    slowest_ns: the longest service of a closed loop, or latency of an open one.
    """
    instants = kept.submitted if closed else kept.due
    last = int(instants.max()) if len(kept) else start_ns
    return (last if complete else max(last, end_ns - slowest_ns)) - start_ns


def misses_allowed(requests: int, rank: float) -> int | None:
    """The largest t with n_min(t) ≤ `requests`; None where even n_min(0) is larger."""
    return _last(lambda misses: misses < requests and _probability(misses, requests, rank) <= _ALPHA)


def least_requests(misses: int, rank: float) -> int:
    """n_min(t): the fewest requests of which `misses` may take longer."""
    too_few = _last(lambda good: good == 0 or _probability(misses, misses + good, rank) > _ALPHA)
    return misses + (too_few or 0) + 1


def scenario_of(
    name: str | None,
    sending: Sending,
    kept: Records,
    histograms: Mapping[str, Histogram],
    objectives: Sequence[ObjectiveShare],
) -> ScenarioResult | None:
    """The result by MLPerf's rules, with the rules that the run does not keep; None without a scenario.

    kept: the run's records, all of them or the first.
    histograms: values of all requests, by metric.
    """
    if name is None:
        return None
    scenario = SCENARIOS[name]
    metric = "service" if scenario.alone else "latency"
    latencies = _Latencies(metric, kept, histograms[metric])
    match scenario.name:
        case "server":
            fields, missing = _server(sending, kept, objectives)
        case "offline":
            fields, missing = _offline(sending, latencies)
        case _:
            fields, missing = _stream(scenario, latencies)
    reasons = (*_of_any(scenario, sending), *missing)
    return ScenarioResult(
        scenario=name,
        requests=sending.requests,
        percentile_ns=latencies.percentile(scenario.rank),
        by_rules=not reasons,
        reasons=reasons,
        **fields,
    )


def _of_any(scenario: Scenario, sending: Sending) -> Iterator[str]:
    """Rules of every scenario that the run does not keep."""
    lost = sending.requests - sending.answered
    if lost:
        yield f"{plural(lost, 'request')} {'was' if lost == 1 else 'were'} not served"
    if scenario.inferences not in (None, sending.inferences):
        carried = plural(sending.inferences, "inference")
        yield f"a request carried {carried}: use --batch {scenario.inferences}, with an engine that takes it"
    offline = scenario.name == "offline"
    sent = sending.requests * (sending.inferences if offline else 1)
    if sent < scenario.requests:
        noun = "inference" if offline else "request"
        yield f"{plural(sent, noun)} came due; the rules ask for {format_count(scenario.requests)}"
    if not offline and sending.lasted_ns < LEAST_NS:
        how, lasted = "issued" if scenario.alone else "scheduled", sending.lasted_ns // MILLISECOND_NS / 1000
        yield f"the last request was {how} at {lasted:g} s; the rules ask for {_LEAST} or later"


def _stream(scenario: Scenario, latencies: _Latencies) -> Measured:
    """The estimate of single-stream and multi-stream."""
    rank, count = scenario.rank or 0.0, latencies.count
    fields: dict[str, Any] = {"metric": f"p{100 * rank:g} latency"}
    misses = misses_allowed(count, rank)
    if not misses:
        least = format_count(least_requests(1, rank))
        return fields, [f"early stopping estimates p{100 * rank:g} from {least} requests; {count} were served"]
    return {**fields, "latency_ns": latencies.smallest(count - misses + 1)}, []


def _server(sending: Sending, kept: Records, objectives: Sequence[ObjectiveShare]) -> Measured:
    """The arrival rate (n − 1) / (t_n − t_1) of the kept records, and whether the run meets the target."""
    share = min(
        (share for share in objectives if share.objective.metric_name == "latency" and share.objective.rank == 0.99),
        key=lambda share: share.objective.bound_ns,
    )
    target = share.objective
    over, span = share.requests - share.good, int(np.ptp(kept.due)) if len(kept) else 0
    fields = {
        "metric": "scheduled inferences a second",
        "inferences_per_s": (len(kept) - 1) * sending.inferences * SECOND_NS / span if span else None,
        "target_ns": target.bound_ns,
        "over": over,
    }
    allowed = misses_allowed(share.requests, target.rank)
    if allowed is not None and over <= allowed:
        return fields, []
    bound = format_duration(target.bound_ns)
    late = f"{format_count(over)} of {plural(share.requests, 'request')} were not served within {bound}"
    if over > (1 - target.rank) * share.requests:
        return fields, [f"{late}; 1 % is allowed"]
    more = least_requests(over, target.rank) - share.requests
    return fields, [f"{late}: early stopping asks for {format_count(more)} more requests, all in time"]


def _offline(sending: Sending, latencies: _Latencies) -> Measured:
    """Inferences over the time until the last was served."""
    took = latencies.largest_ns or 0
    rate = sending.answered * SECOND_NS / took if took else None
    fields = {
        "metric": "inferences a second",
        "inferences_per_s": None if rate is None else rate * sending.inferences,
    }
    if took >= LEAST_NS:
        return fields, []
    short = f"the last request completed after {format_duration(took)}; the rules ask for {_LEAST}"
    if rate is None:
        return fields, [short]
    return fields, [f"{short}: at this rate use --requests {round(_SLACK * rate * LEAST_NS / SECOND_NS)}"]


class _Latencies:
    """A metric's ordered values: exact while all records are kept, else from the histogram (within 0.4 %)."""

    def __init__(self, name: str, kept: Records, histogram: Histogram) -> None:
        values = np.sort(next(metric for metric in METRICS if metric.name == name).values(kept))
        self._values: npt.NDArray[np.int64] | None = values if len(values) == histogram.count else None
        self._histogram = histogram
        self.count = histogram.count
        self.largest_ns = histogram.max

    def smallest(self, k: int) -> float:
        """The k-th smallest, k from 1."""
        if self._values is not None:
            return float(self._values[k - 1])
        return self._histogram.quantiles(((k - 0.5) / self.count,))[0]

    def percentile(self, rank: float | None) -> float | None:
        """LoadGen's percentile: value number ⌊n·rank⌋ of the n, counted from 0."""
        return self.smallest(int(self.count * rank) + 1) if rank is not None and self.count else None


def _probability(misses: int, requests: int, rank: float) -> float:
    """P(X ≤ t) of the law above."""
    return beta(requests - misses, misses + 1, rank)


def _last(holds: Callable[[int], bool]) -> int | None:
    """The last k ≥ 0 for which a condition holds that holds up to some k; None where it holds for none."""
    if not holds(0):
        return None
    low, high = 0, 1
    while holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
