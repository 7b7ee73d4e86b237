"""The plan of a fleet: how many GPUs a demand needs, and why. The schema of `plan-capacity --json`.

Times are ns (`_ns`), rates are a second (`_per_s`): requests unless the name says inferences, which are requests ×
batch. None means that a number is not known, or not supported by the simulation.
"""

from __future__ import annotations

from typing import Literal

from loadtrt.asked.fields import Objectives  # noqa: TC001
from loadtrt.asked.objective import Verdict  # noqa: TC001
from loadtrt.results import Model, Result
from loadtrt.results.capacity_result import Scaling  # noqa: TC001  # pydantic reads them
from loadtrt.results.engine_info import EngineInfo  # noqa: TC001
from loadtrt.results.run_result import ObjectiveShare, RunResult  # noqa: TC001

Routing = Literal["random", "round-robin", "two-choices", "least-outstanding"]
ROUTINGS: tuple[Routing, ...] = ("random", "round-robin", "two-choices", "least-outstanding")
Ties = Literal["longest-idle", "random", "lowest-index"]
HOURS = 730  # of a month
POOR = 0.2  # an error of predictions above which a plan is not supported by what was measured
TIES: tuple[Ties, ...] = ("longest-idle", "random", "lowest-index")


class Speed(Model):
    """Throughput of one GPU at one concurrency.

    measured: True for a closed loop that was run; False for an interpolation between two of them.
    """

    in_flight: int
    requests_per_s: float
    measured: bool


class Gpu(Model):
    """One GPU in the simulation (sizing/station.py).

    contexts, buffers, batch: its configuration.
    speeds: throughput by concurrency.
    most_per_s: throughput with an endless backlog.
    alone_mean_ns: mean latency of a request that has the GPU to itself.
    alone_cv: standard deviation of a request's work over its mean.
    requests: number of requests that the model is made of.
    most_low_per_s, most_high_per_s: 95 % confidence interval of most_per_s.
    batcher: how a server forms batches of single requests; None without one. `speeds` are those of full batches then,
        in requests per second by batches in flight, and alone_mean_ns is that of the smallest batch.
    max_queue: how many requests may wait; None for any number.
    watts: (requests per second, power in W) of each run with telemetry, by rate.
    scaling: the law fitted to the same runs; None if not known.
    """

    contexts: int
    buffers: int
    batch: int
    speeds: tuple[Speed, ...]
    most_per_s: float
    alone_mean_ns: float
    alone_cv: float
    requests: int = 0
    most_low_per_s: float | None = None
    most_high_per_s: float | None = None
    batcher: str | None = None
    max_queue: int | None = None
    watts: tuple[tuple[float, float], ...] = ()
    scaling: Scaling | None = None


class FleetDemand(Model):
    """The demand to serve.

    now_per_s: today's peak.
    growth: growth of the peak, as a share of now_per_s.
    headroom: reserve above the grown peak, as a share.
    planned_per_s: now_per_s · (1 + growth) · (1 + headroom), which the fleet must carry.
    mean_per_s: mean over the trace or the stages with growth, without headroom; cost and energy refer to it.
    arrivals: arrival process of the whole demand, before routing.
    burstiness: standard deviation over mean of the gaps; None for a trace.
    source: the trace or the stages, in the user's words.
    replayed: number of requests simulated of a trace, its busiest part.
    replayed_ns: duration of that part.
    """

    now_per_s: float
    growth: float
    headroom: float
    planned_per_s: float
    mean_per_s: float
    arrivals: Literal["constant", "poisson", "gamma", "trace"]
    burstiness: float | None
    source: str = ""
    replayed: int | None = None
    replayed_ns: int | None = None


class Prediction(Model):
    """A simulated fleet of `gpus` GPUs.

    utilisation: share of the fleet's capacity in use, in [0, 1].
    verdict: on all objectives together.
    objectives: each objective with its quantile, confidence interval and effective sample size.
    p50_low_ns, p50_high_ns: 95 % confidence interval of the median.
    """

    gpus: int
    utilisation: float
    verdict: Verdict
    objectives: tuple[ObjectiveShare, ...]
    p50_ns: float | None
    p50_low_ns: float | None
    p50_high_ns: float | None


class Autoscaling(Model):
    """If the number of GPUs followed the demand without delay, each GPU with as much load as at the peak.

    mean_gpus: mean number over the trace or the stages, spares included.
    saved: 1 − mean_gpus / gpus.
    cost_per_million: cost of a million inferences; None without a price.
    """

    mean_gpus: float
    saved: float
    cost_per_million: float | None


class Choice(Model):
    """One routing policy and the number of GPUs that it needs.

    gpus: needed + spares; None if not found (`reason` says why).
    needed: fewest GPUs that meet the utilisation limit and all objectives while the spares are away.
    at_least: fewer GPUs were shown to miss; sizes from here to `needed` are undecided.
    binding: text of the objective that decides, or "utilisation".
    reason: why that many, or why none.
    infeasible: no number of GPUs meets the objectives.
    degraded: the prediction with the spares away.
    whole: the prediction with all GPUs; equal to `degraded` without spares.
    tried: each simulated size, in order.
    curve: further sizes, simulated for a chart alone.
    cost_per_month: cost of all GPUs for 730 hours, in the unit of `gpu_price`.
    cost_per_million: cost of a million inferences, at the demand's mean rate.
    joules_per_inference: energy of all GPUs for an inference at that rate, J; power is interpolated between rates.
    autoscaling: if GPUs followed the demand.
    """

    routing: Routing
    gpus: int | None
    needed: int | None = None
    at_least: int | None = None
    binding: str | None = None
    reason: str
    infeasible: bool = False
    degraded: Prediction | None = None
    whole: Prediction | None = None
    tried: tuple[Prediction, ...] = ()
    curve: tuple[Prediction, ...] = ()
    cost_per_month: float | None = None
    cost_per_million: float | None = None
    joules_per_inference: float | None = None
    autoscaling: Autoscaling | None = None


class Comparison(Model):
    """A prediction and a measurement of one GPU.

    rate_per_s: arrival rate of an open loop.
    in_flight: concurrency of a closed loop.
    rank: quantile of latency, in (0, 1).
    measured_ns: measured quantile.
    measured_low_ns, measured_high_ns: its 95 % confidence interval; None if not known.
    predicted_ns: predicted quantile; None if the rate exceeds the predicted capacity.
    predicted_low_ns, predicted_high_ns: its 95 % confidence interval.
    error: predicted / measured − 1.
    within: the two intervals overlap; None if the measured one is not known.
    """

    rate_per_s: float | None
    in_flight: int | None
    arrivals: str
    rank: float
    measured_ns: float
    measured_low_ns: float | None
    measured_high_ns: float | None
    predicted_ns: float | None
    predicted_low_ns: float | None
    predicted_high_ns: float | None
    error: float | None
    within: bool | None


class Direct(Model):
    """Random routing without a model: each GPU gets Poisson arrivals at a rate at which the measured one met the
    objectives.

    per_gpu_per_s: that rate.
    basis: the measurement that shows it, in words.
    gpus: number of GPUs, spares included.
    """

    per_gpu_per_s: float
    basis: str
    gpus: int


class MeasuredFleet(Model):
    """A planned fleet that was run, without its spares.

    gpus: how many workers.
    run: as `trimmed` leaves it (capacity_result.py); None where it could not be made (`why_not`).
    checks: the median, and each quantile that an objective bounds, predicted beside measured.
    """

    routing: Routing
    gpus: int
    run: RunResult | None
    checks: tuple[Comparison, ...] = ()
    why_not: str = ""


class FleetResult(Result):
    """All of one fleet plan: the schema of `plan-capacity --json`.

    max_utilisation: limit of utilisation, in (0, 1].
    spares: GPUs that may be out of service.
    ties: what least-outstanding routing does where several GPUs have the fewest requests.
    gpu_price: price of one GPU for an hour, without a unit.
    outcome: completed, or interrupted (Ctrl-C) with the choices so far.
    choices: one for each routing policy, in the order asked for.
    direct: random routing without any model; None where no run supports it.
    checks: predictions against measurements.
    measured: the planned fleets that were run, by routing (--measure).
    doubt: why the answers are undecided although each was found: predictions differ from measurements, or are not
        supported by them; None otherwise.
    notes: sentences on the files: what was left out or assumed.
    """

    schema_version: Literal["loadtrt.fleet/1"] = "loadtrt.fleet/1"
    loadtrt: str
    started: str
    command: tuple[str, ...]
    sources: tuple[str, ...]
    engine: EngineInfo
    gpu: Gpu
    demand: FleetDemand
    objectives: Objectives
    max_utilisation: float
    spares: int
    gpu_price: float | None
    ties: Ties = "longest-idle"
    seed: int
    outcome: Literal["completed", "interrupted"]
    choices: tuple[Choice, ...]
    direct: Direct | None
    checks: tuple[Comparison, ...]
    measured: tuple[MeasuredFleet, ...] = ()
    doubt: str | None = None
    notes: tuple[str, ...] = ()
