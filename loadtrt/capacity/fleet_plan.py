"""How many GPUs a demand needs, for each way to route requests among them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

import loadtrt
from loadtrt.capacity.demand import fewest_for
from loadtrt.capacity.fleet_prediction import compare, estimated_gpus, estimated_ns, other_arrivals, predict
from loadtrt.errors import UsageError
from loadtrt.results.fleet_result import (
    ROUTINGS,
    Autoscaling,
    Choice,
    Comparison,
    Direct,
    Estimate,
    FleetResult,
    Prediction,
)
from loadtrt.stats.margin import least_samples
from loadtrt.units import SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.objective import Objective, Verdict
    from loadtrt.capacity.demand import Demand
    from loadtrt.capacity.evidence import Evidence
    from loadtrt.capacity.station import Station
    from loadtrt.results.fleet_result import Routing
    from loadtrt.results.run_result import ObjectiveShare

_FINE = 200  # GPUs above which the answer is within 0.5 %
_MOST_GPUS = 2000
_MOST_SIMULATED = 20_000_000  # requests for one routing policy: a minute or so
_LEAST_UTILISATION = 0.01  # below, more GPUs change nothing
_LEAST_PER_S = 1 / 3600
_DRAWN = 1_000_000
_SPENT = f"the simulation ended at its limit of {format_count(_MOST_SIMULATED)} requests"
_TOO_MANY = f"larger fleets than {format_count(_MOST_GPUS)} GPUs are not simulated"


def plan_fleet(
    evidence: Evidence,
    demand: Demand,
    objectives: Sequence[Objective],
    *,
    routings: Sequence[Routing] = ROUTINGS,
    spares: int = 0,
    max_utilisation: float = 0.8,
    gpu_price: float | None = None,
    seed: int = 1,
    sources: Sequence[str] = (),
    command: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> FleetResult:
    """Plan a fleet: for each routing policy the fewest GPUs G that meet all objectives at the planned rate Λ, with
    Λ / (G · most_per_s) ≤ max_utilisation, and `spares` more that may be out of service.

    evidence: of `evidence_of`, from a capacity, a sweep or runs.
    gpu_price: price of one GPU for an hour.
    sources, command: the files and the command line, as the result keeps them.
    say: called with what is being done.
    stopped: whether to end with the answers so far.

    For each policy at most 20 million requests and 2000 GPUs are simulated; the answer states if a limit was reached.
    Raises UsageError for an objective that cannot be predicted, for a demand that needs more GPUs in any case, and for
    less than one request per hour.
    """
    started = datetime.now(UTC)
    _require_predictable(objectives, demand.summary.replayed)
    planner = _Planner(evidence, demand, tuple(objectives), spares, max_utilisation, gpu_price, seed, say, stopped)
    if planner.least > _MOST_GPUS:
        raise UsageError(
            f"{format_count(demand.summary.planned_per_s)} requests/s need more than {format_count(_MOST_GPUS)} GPUs: "
            "plan for a part of the demand, such as one region"
        )
    if demand.summary.planned_per_s < _LEAST_PER_S:
        raise UsageError("the demand is below one request per hour: one GPU serves it")
    choices: list[Choice] = []
    checks: list[Comparison] = []
    notes = [*evidence.notes, *other_arrivals(evidence, demand)]
    interrupted = False
    try:
        try:
            checks.extend(compare(evidence, objectives, seed, say, planner.spend))
        except _SpentError:
            notes.append(f"some measured runs have no prediction: {_SPENT}")
        choices.extend(planner.choose(routing) for routing in routings)
    except _StoppedError:
        interrupted = True
    return FleetResult(
        loadtrt=loadtrt.__version__,
        started=started.isoformat(timespec="seconds"),
        command=tuple(command),
        sources=tuple(sources),
        engine=evidence.engine,
        gpu=evidence.gpu,
        demand=demand.summary,
        objectives=tuple(objectives),
        max_utilisation=max_utilisation,
        spares=spares,
        gpu_price=gpu_price,
        seed=seed,
        outcome="interrupted" if interrupted else "completed",
        choices=tuple(choices),
        direct=planner.direct(),
        checks=tuple(checks),
        notes=tuple(notes),
    )


class _StoppedError(Exception):
    """Stopping was requested."""


class _SpentError(Exception):
    """The limit of simulated requests is reached."""


@dataclass(slots=True, eq=False)
class _Planner:
    """Finds the number of GPUs for each policy. left: requests that may still be simulated."""

    evidence: Evidence
    demand: Demand
    objectives: tuple[Objective, ...]
    spares: int
    max_utilisation: float
    gpu_price: float | None
    seed: int
    say: Callable[[str], None]
    stopped: Callable[[], bool]
    left: int = _MOST_SIMULATED

    def spend(self, requests: int) -> None:
        """Count requests to simulate. Raises an exception at the limit, or if stopping was requested."""
        if self.stopped():
            raise _StoppedError
        self.left -= requests
        if self.left < 0:
            raise _SpentError

    @property
    def _station(self) -> Station:
        return self.evidence.station

    @property
    def least(self) -> int:
        """The fewest GPUs that utilisation allows."""
        return fewest_for(self.demand.summary.planned_per_s, self.max_utilisation * self._station.most_per_s)

    def choose(self, routing: Routing) -> Choice:
        """The fewest GPUs for one policy, by bisection between a size that does not meet the objectives and one that
        does, as more GPUs never hurt. The first guess is Allen and Cunneen's."""
        hopeless = self._hopeless()
        if hopeless is not None:
            return Choice(routing=routing, gpus=None, reason=hopeless, infeasible=True)
        guess = estimated_gpus(self.demand, self._station, routing, self.objectives, self.least, _MOST_GPUS)
        tried: dict[int, Prediction] = {}

        def verdict(gpus: int) -> Verdict:
            tried[gpus] = self._predict(routing, gpus)
            return tried[gpus].verdict

        self.left, spent = _MOST_SIMULATED, ""
        try:
            needed = self._fewest(verdict, guess)
        except _SpentError:
            needed = min((gpus for gpus, prediction in tried.items() if prediction.verdict == "met"), default=None)
            spent = _SPENT
        missed = [gpus for gpus, prediction in tried.items() if prediction.verdict == "missed"]
        at_least = max(missed, default=self.least - 1) + 1
        if needed is None:
            last = tried[max(tried)]
            share = next(share for share in last.objectives if share.verdict != "met")
            idle = last.utilisation < _LEAST_UTILISATION
            fares = "miss" if share.verdict == "missed" else "leave undecided"
            why = "more GPUs would change little" if idle else spent or _TOO_MANY
            return Choice(
                routing=routing,
                gpus=None,
                at_least=at_least,
                reason=f"{plural(last.gpus, 'GPU')}, {100 * last.utilisation:.2g} % busy, {fares} {share.objective} "
                f"({_value(share)}): {why}",
                infeasible=idle and share.verdict == "missed",
                tried=tuple(tried.values()),
                estimate=Estimate(gpus=guess, quantile_ns=None),
            )
        quantile_ns = estimated_ns(self.demand, self._station, routing, needed, self.objectives[0].rank)
        gpus, degraded, whole = needed + self.spares, tried[needed], tried[needed]
        if self.spares:
            self.left = _MOST_SIMULATED
            whole = self._predict(routing, gpus)
        binding, reason = self._why(degraded, tried, at_least)
        reason += f"; {spent}" if spent else ""
        return Choice(
            routing=routing,
            gpus=gpus,
            needed=needed,
            at_least=at_least,
            binding=binding,
            reason=reason,
            degraded=degraded,
            whole=whole,
            tried=tuple(tried.values()),
            cost_per_million=self._cost(gpus),
            joules_per_inference=self._joules(gpus),
            estimate=Estimate(gpus=guess, quantile_ns=quantile_ns),
            autoscaling=self._autoscaling(needed),
        )

    def _predict(self, routing: Routing, gpus: int) -> Prediction:
        self.say(f"simulating {plural(gpus, 'GPU')}, {routing}")
        return predict(self.demand, self._station, routing, gpus, self.objectives, self.seed, self.spend)

    def _fewest(self, verdict: Callable[[int], Verdict], guess: int | None) -> int | None:
        """The fewest GPUs that surely meet the objectives; tries undecided sizes down to the most that miss, too."""
        missed, unmet, step = self.least - 1, self.least - 1, 1
        met = self.least
        while (outcome := verdict(met)) != "met":
            idle = self.demand.summary.planned_per_s < _LEAST_UTILISATION * met * self._station.most_per_s
            if idle or met >= _MOST_GPUS:
                return None
            missed, unmet = met if outcome == "missed" else missed, met
            met = min(max(guess or 0, met + step), _MOST_GPUS)
            guess, step = None, max(2 * step, met // 8)
        while met - unmet > max(1, met // _FINE):
            middle = (unmet + met) // 2
            outcome = verdict(middle)
            missed = middle if outcome == "missed" else missed
            met, unmet = (middle, unmet) if outcome == "met" else (met, middle)
        while unmet - missed > max(1, met // _FINE):
            middle = (missed + unmet) // 2
            missed, unmet = (middle, unmet) if verdict(middle) == "missed" else (missed, middle)
        return met

    def _why(self, enough: Prediction, tried: dict[int, Prediction], at_least: int) -> tuple[str, str]:
        """(the binding objective or "utilisation", the reason in a sentence)."""
        fewer = [gpus for gpus in tried if gpus < enough.gpus]
        if not fewer:
            if enough.gpus == 1:
                return "utilisation", "one GPU is enough"
            busy = 100 * self.demand.summary.planned_per_s / self._station.most_per_s / (enough.gpus - 1)
            met = " and ".join(f"{share.objective} ({_value(share)})" for share in enough.objectives)
            return "utilisation", f"{enough.gpus} meet {met}; {enough.gpus - 1} would be {busy:.3g} % busy"
        below = tried[max(fewer)]
        unmet = next(share for share in below.objectives if share.verdict != "met")
        share = next(share for share in enough.objectives if share.objective == unmet.objective)
        fares = "miss it" if unmet.verdict == "missed" else "leave it undecided"
        reason = f"{enough.gpus} meet {share.objective} ({_value(share)}), {below.gpus} {fares} ({_value(unmet)})"
        if at_least < enough.gpus:
            reason += f"; fewer than {at_least} are too few"
        return unmet.objective.text, reason

    def _hopeless(self) -> str | None:
        """Why no number of GPUs is enough, as requests are too slow even alone on a GPU; None otherwise."""
        random = np.random.default_rng(self.seed)
        alone_ns = self._station.work(random.random(_DRAWN)) * self._station.alone_s * SECOND_NS
        for objective in self.objectives:
            bad = float(np.mean(alone_ns > objective.limit_ns))
            if bad > 1 - objective.rank:
                return (
                    f"{objective.text}: {100 * bad:.2g} % of requests take longer than "
                    f"{format_duration(objective.bound_ns)} even alone on a GPU: no number of GPUs is enough"
                )
        return None

    def direct(self) -> Direct | None:
        """The number of GPUs by the measured capacity; None without one for these objectives and Poisson arrivals."""
        capacity, demand = self.evidence.capacity, self.demand.summary
        if capacity is None or demand.arrivals != "poisson":
            return None
        loads = [run.config.model.load for run in self.evidence.open]
        if set(self.objectives) != set(self.evidence.objectives) or not all(it.cv == 1 and it.steady for it in loads):
            return None
        low = None if capacity.answer == "host-bound" else capacity.low_per_s
        for rate, basis in (
            (capacity.confirmed_per_s, "a confirming run"),
            (low, "the lower end of the capacity's interval"),
            (capacity.feasible_max_per_s, "the highest trial that met the objectives"),
        ):
            if rate:
                gpus = max(fewest_for(demand.planned_per_s, rate), self.least) + self.spares
                return Direct(per_gpu_per_s=rate, basis=basis, gpus=gpus)
        return None

    def _cost(self, gpus: float) -> float | None:
        """Cost of a million inferences at the demand's mean rate; None without a price."""
        per_hour = self.demand.summary.mean_per_s * self.evidence.gpu.batch * 3600
        return None if self.gpu_price is None else gpus * self.gpu_price / per_hour * 1e6

    def _joules(self, gpus: int) -> float | None:
        """G · P(λ/G) / (λ · batch), with P interpolated linearly between measured powers; None without any."""
        if not self.evidence.gpu.watts:
            return None
        rates, watts = zip(*self.evidence.gpu.watts, strict=True)
        mean = self.demand.summary.mean_per_s
        return float(gpus * np.interp(mean / gpus, rates, watts) / (mean * self.evidence.gpu.batch))

    def _autoscaling(self, needed: int) -> Autoscaling | None:
        if not self.demand.course:
            return None
        per_gpu = self.demand.summary.planned_per_s / needed
        mean = sum(share * min(fewest_for(rate, per_gpu), needed) for share, rate in self.demand.course) + self.spares
        return Autoscaling(
            mean_gpus=mean, saved=max(1 - mean / (needed + self.spares), 0), cost_per_million=self._cost(mean)
        )


def why_unpredictable(objective: Objective) -> str | None:
    """Why a simulation cannot predict an objective, in a sentence; None if it can."""
    if objective.metric_name != "latency":
        return f"'{objective.text}' is not on latency, which is all that a plan predicts; write latency.p99 < 10ms"
    if objective.rank == 1:
        return f"'{objective.text}': a simulation cannot bound a maximum; write p99.9 or a lower quantile"
    return None


def _require_predictable(objectives: Sequence[Objective], replayed: int | None) -> None:
    if not objectives:
        raise UsageError("a plan needs an objective: add --objective, such as --objective 'latency.p99 < 10ms'")
    for objective in objectives:
        why = why_unpredictable(objective)
        if why is not None:
            raise UsageError(why)
        if replayed is not None and replayed < least_samples(objective.rank):
            raise UsageError(
                f"'{objective.text}' needs {least_samples(objective.rank)} requests, and the trace has {replayed} in "
                "its busiest hour: give a longer trace, or a rate"
            )


def _value(share: ObjectiveShare) -> str:
    bad = f"{100 * (share.bad or 0.0):.2g} % bad"
    return bad if share.value_ns is None else f"{share.objective.quantile} {format_duration(share.value_ns)}"
