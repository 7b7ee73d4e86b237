"""How many GPUs a demand needs, for each way to route requests among them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import loadtrt
from loadtrt.errors import UsageError
from loadtrt.results.fleet_result import HOURS, ROUTINGS, Choice, Comparison, FleetResult, Prediction
from loadtrt.sizing.batching_law import require_time_to_batch
from loadtrt.sizing.demand import fewest_for
from loadtrt.sizing.fleet_check import compare, direct_of, doubt_of, other_arrivals
from loadtrt.sizing.fleet_cost import autoscaling, cost_per_million, joules_per_inference
from loadtrt.sizing.fleet_prediction import predict
from loadtrt.sizing.measured_law import alone_above, heavy_tail
from loadtrt.sizing.predictable import require_predictable
from loadtrt.units import SECOND_NS, format_count, format_duration, plural, rough_percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtrt.asked.objective import Objective, Verdict
    from loadtrt.results.fleet_result import Direct, Routing, Ties
    from loadtrt.results.run_result import ObjectiveShare
    from loadtrt.sizing.batching import Server
    from loadtrt.sizing.demand import Demand
    from loadtrt.sizing.evidence import Evidence
    from loadtrt.sizing.station import Station

_FINE = 200  # GPUs above which the answer is within 0.5 %
_MOST_GPUS = 2000
_MOST_SIMULATED = 20_000_000  # requests for one routing policy: 1.5 to 4 minutes of Python, 10 to 18 s of machine code
_LEAST_UTILISATION = 0.01  # below, more GPUs change nothing
_LEAST_PER_S = 1 / 3600
_CURVE = 8  # sizes of a chart
_SHORT = (4,)  # streams of their simulations
_MOST_BUSY = 0.97  # utilisation of the smallest size of a chart
_PAST = 1.15  # the largest size of a chart over the largest that is needed
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
    ties: Ties = "longest-idle",
    gpu_price: float | None = None,
    curve: bool = False,
    seed: int = 1,
    sources: Sequence[str] = (),
    command: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> FleetResult:
    """Plan a fleet: for each routing policy the fewest GPUs G that meet all objectives at the planned rate Λ, with
    Λ / (G · most_per_s) ≤ max_utilisation, and `spares` more that may be out of service.

    evidence: of `evidence_of`, from a capacity, a sweep or runs.
    ties: what least-outstanding routing does where several GPUs have the fewest requests.
    gpu_price: price of one GPU for an hour.
    curve: simulate further sizes, for a chart.
    sources, command: the files and the command line, as the result keeps them.
    say: called with what is being done.
    stopped: whether to end with the answers so far.

    For each policy at most 20 million requests and 2000 GPUs are simulated; the answer states if a limit was reached.
    Raises UsageError for an objective that cannot be predicted, for a demand that needs more GPUs in any case, and for
    less than one request per hour.
    """
    started = datetime.now(UTC)
    require_predictable(objectives, demand.summary.replayed)
    require_time_to_batch(evidence.law.station, objectives)
    most = evidence.law.most_per_s(seed)
    planner = _Planner(
        evidence, demand, tuple(objectives), spares, max_utilisation, ties, gpu_price, seed, say, stopped, most
    )
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
    if heavy := heavy_tail(evidence.law):
        notes.append(heavy)
    interrupted = False
    try:
        try:
            checks.extend(compare(evidence, objectives, seed, say, planner.spend))
        except _SpentError:
            notes.append(f"some measured runs have no prediction: {_SPENT}")
        choices.extend(planner.choose(routing) for routing in routings)
        if curve:
            choices = planner.with_curves(choices)
    except _StoppedError:
        interrupted = True
    return FleetResult(
        loadtrt=loadtrt.__version__,
        started=started.isoformat(timespec="seconds"),
        command=tuple(command),
        sources=tuple(sources),
        engine=evidence.engine,
        gpu=evidence.gpu.model_copy(update={"most_low_per_s": most[0], "most_high_per_s": most[1]}),
        demand=demand.summary,
        objectives=tuple(objectives),
        max_utilisation=max_utilisation,
        spares=spares,
        ties=ties,
        gpu_price=gpu_price,
        seed=seed,
        outcome="interrupted" if interrupted else "completed",
        choices=tuple(choices),
        direct=planner.direct(),
        checks=tuple(checks),
        doubt=doubt_of([check for check in checks if check.rate_per_s], evidence.capacity),
        notes=tuple(notes),
    )


class _StoppedError(Exception):
    """Stopping was requested."""


class _SpentError(Exception):
    """The limit of simulated requests is reached."""


@dataclass(slots=True, eq=False)
class _Planner:
    """Finds the number of GPUs for each policy.

    most_per_s: 95 % interval of the throughput of one GPU.
    left: requests that may still be simulated.
    """

    evidence: Evidence
    demand: Demand
    objectives: tuple[Objective, ...]
    spares: int
    max_utilisation: float
    ties: Ties
    gpu_price: float | None
    seed: int
    say: Callable[[str], None]
    stopped: Callable[[], bool]
    most_per_s: tuple[float, float]
    left: int = _MOST_SIMULATED

    def spend(self, requests: int) -> None:
        """Count requests to simulate. Raises an exception at the limit, or if stopping was requested."""
        if self.stopped():
            raise _StoppedError
        self.left -= requests
        if self.left < 0:
            raise _SpentError

    @property
    def _station(self) -> Station | Server:
        return self.evidence.law.station

    @property
    def least(self) -> int:
        """The fewest GPUs that surely keep within the utilisation."""
        return self._least(self.most_per_s[0])

    def _least(self, most_per_s: float) -> int:
        return fewest_for(self.demand.summary.planned_per_s, self.max_utilisation * most_per_s)

    def choose(self, routing: Routing) -> Choice:
        """The fewest GPUs for one policy, by bisection between a size that does not surely meet the objectives and one
        that does, as more GPUs never hurt. The first guess is by the measured capacity."""
        reason, infeasible = self._too_slow_alone()
        if reason:
            return Choice(routing=routing, gpus=None, reason=reason, infeasible=infeasible)
        direct = self.direct() if routing == "random" else None
        guess = None if direct is None else direct.gpus - self.spares
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
        at_least = max([self._least(self.most_per_s[1]) - 1, *missed]) + 1
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
                reason=f"{plural(last.gpus, 'GPU')}, {rough_percent(last.utilisation)} busy, {fares} {share.objective} "
                f"({_value(share)}): {why}",
                infeasible=idle and share.verdict == "missed" and not self._was_met(share.objective),
                tried=tuple(tried.values()),
            )
        gpus, degraded, whole = needed + self.spares, tried[needed], tried[needed]
        if self.spares:
            self.left = _MOST_SIMULATED
            whole = self._predict(routing, gpus)
        binding, reason = self._why(degraded, tried)
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
            cost_per_month=None if self.gpu_price is None else gpus * self.gpu_price * HOURS,
            cost_per_million=cost_per_million(self.demand, self.evidence.gpu.batch, self.gpu_price, gpus),
            joules_per_inference=joules_per_inference(self.demand, self.evidence.gpu, gpus),
            autoscaling=autoscaling(self.demand, self.evidence.gpu.batch, self.gpu_price, needed, self.spares),
        )

    def with_curves(self, choices: Sequence[Choice]) -> list[Choice]:
        """Choices with predictions of further sizes, over one range for all: in short simulations, for a chart."""
        known = [choice.needed for choice in choices if choice.needed is not None]
        if not known:
            return list(choices)
        first, last = min(self._least(self.most_per_s[1]), *known), math.ceil(_PAST * max(known))
        first = max(first - 1, math.ceil(self.demand.summary.planned_per_s / self._station.most_per_s / _MOST_BUSY), 1)
        sizes = sorted({round(first + (last - first) * place / (_CURVE - 1)) for place in range(_CURVE)})
        return [choice.model_copy(update={"curve": tuple(self._curve(choice, sizes))}) for choice in choices]

    def _curve(self, choice: Choice, sizes: Sequence[int]) -> Iterator[Prediction]:
        self.left = _MOST_SIMULATED // 4
        simulated = {prediction.gpus for prediction in choice.tried}
        for gpus in sizes:
            if gpus not in simulated and choice.tried:
                try:
                    yield self._predict(choice.routing, gpus, looks=_SHORT)
                except _SpentError:
                    return

    def _predict(self, routing: Routing, gpus: int, **options: Any) -> Prediction:
        self.say(f"simulating {plural(gpus, 'GPU')}, {routing}")
        law, ties = self.evidence.law, self.ties
        return predict(self.demand, law, routing, gpus, self.objectives, self.seed, self.spend, ties=ties, **options)

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

    def _why(self, enough: Prediction, tried: dict[int, Prediction]) -> tuple[str, str]:
        """(the binding objective or "utilisation", the reason in a sentence)."""
        fewer = [gpus for gpus in tried if gpus < enough.gpus]
        if not fewer:
            if enough.gpus == 1:
                return "utilisation", "one GPU is enough"
            busy = 100 * self.demand.summary.planned_per_s / self.most_per_s[0] / (enough.gpus - 1)
            met = " and ".join(f"{share.objective} ({_value(share)})" for share in enough.objectives)
            reason = f"{enough.gpus} meet {met}; {enough.gpus - 1} would be up to {busy:.3g} % busy"
            return "utilisation", reason
        below = tried[max(fewer)]
        unmet = next(share for share in below.objectives if share.verdict != "met")
        share = next(share for share in enough.objectives if share.objective == unmet.objective)
        fares = "miss it" if unmet.verdict == "missed" else "leave it undecided"
        reason = f"{enough.gpus} meet {share.objective} ({_value(share)}), {below.gpus} {fares} ({_value(unmet)})"
        return unmet.objective.text, reason

    def _too_slow_alone(self) -> tuple[str, bool]:
        """(why no number of GPUs is surely enough, as requests are too slow even alone on a GPU, whether none surely is
        enough); ("", False) where some number may be."""
        for objective in self.objectives:
            low, high = alone_above(self.evidence.law, objective.limit_ns / SECOND_NS, self.seed)
            if high <= 1 - objective.rank:
                continue
            share = (
                f"{rough_percent(low).removesuffix(' %')} to {rough_percent(high)}"
                if low < high
                else rough_percent(low)
            )
            slow = f"{share} of requests take longer than {format_duration(objective.bound_ns)} even alone on a GPU"
            if low > 1 - objective.rank and not self._was_met(objective):
                return f"{objective.text}: {slow}: no number of GPUs is enough", True
            known = f"so far as {plural(self.evidence.gpu.requests, 'request')} tell"
            return f"{objective.text}: {slow}, {known}: measure for longer, or loosen the objective", False
        return "", False

    def _was_met(self, objective: Objective) -> bool:
        """Whether a measured run met the objective, so that one GPU can at that rate."""
        return any(
            share.verdict == "met" and share.objective.metric_name == objective.metric_name
            and share.objective.rank >= objective.rank and share.objective.limit_ns <= objective.limit_ns
            for run in (*self.evidence.open, *self.evidence.closed.values())
            for share in run.model.objectives
        )  # fmt: skip

    def direct(self) -> Direct | None:
        """The number of GPUs by the measured capacity."""
        return direct_of(self.evidence, self.demand, self.objectives, self.least, self.spares)


def _value(share: ObjectiveShare) -> str:
    bad = f"{rough_percent(share.bad or 0.0)} bad"
    return bad if share.value_ns is None else f"{share.objective.quantile} {format_duration(share.value_ns)}"
