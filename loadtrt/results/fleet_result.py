"""What planning a fleet leaves behind: how many GPUs a demand needs, and why. The schema of `plan-capacity --json`.

Times are ns (`_ns`), rates are a second (`_per_s`): requests unless the name says inferences, which are requests ×
batch. None means that a number is not known, or that the simulation was too short to tell it.
"""

from __future__ import annotations

from typing import Literal

from loadtrt.asked.fields import Objectives  # noqa: TC001
from loadtrt.asked.objective import Verdict  # noqa: TC001
from loadtrt.results.capacity_result import Scaling  # noqa: TC001  # pydantic reads them
from loadtrt.results.engine_info import EngineInfo  # noqa: TC001
from loadtrt.results.frozen import Model
from loadtrt.results.run_result import ObjectiveShare  # noqa: TC001

Routing = Literal["random", "round-robin", "least-outstanding"]
ROUTINGS: tuple[Routing, ...] = ("random", "round-robin", "least-outstanding")


class Speed(Model):
    """Requests a second of one GPU with so many in flight. measured: by a closed loop; else between two that were."""

    in_flight: int
    requests_per_s: float
    measured: bool


class Gpu(Model):
    """One GPU as the simulation takes it (capacity/station.py). most_per_s: with a queue that never ends.
    alone_mean_ns, alone_cv: latency of a request that has the GPU alone, its mean and deviation over that. watts:
    (requests a second, power) of each run that told, by rate. scaling: the law fitted to the same runs, where known."""

    contexts: int
    buffers: int
    batch: int
    speeds: tuple[Speed, ...]
    most_per_s: float
    alone_mean_ns: float
    alone_cv: float
    watts: tuple[tuple[float, float], ...] = ()
    scaling: Scaling | None = None


class FleetDemand(Model):
    """What is to be served. now_per_s: the peak today; planned_per_s = now · (1 + growth) · (1 + headroom), what the
    fleet must carry. mean_per_s: over all of the trace or the stages, with growth and without headroom: what cost and
    energy are of.

    arrivals: of the whole demand, before routing; burstiness: deviation / mean of its gaps, None for a trace. source:
    the trace or the stages, in the user's words. replayed: how many requests of a trace are simulated, the busiest of
    it, within replayed_ns of it."""

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
    """A simulated fleet of `gpus`. verdict: on all objectives. p50_ns and its 95 % interval; of an objective's quantile
    likewise in `objectives`, whose `effective` says how many independent requests the simulated ones were worth."""

    gpus: int
    utilisation: float
    verdict: Verdict
    objectives: tuple[ObjectiveShare, ...]
    p50_ns: float | None
    p50_low_ns: float | None
    p50_high_ns: float | None


class Estimate(Model):
    """Allen and Cunneen's formula: how many GPUs it asks for, and the objective's quantile at as many as the simulation
    found, None where it has no steady state there, or nothing was found."""

    gpus: int | None
    quantile_ns: float | None


class Autoscaling(Model):
    """If GPUs came and went with the demand, without delay, each always with what it carries at the peak. mean_gpus:
    over the trace or the stages, spares included; saved: 1 − mean / gpus."""

    mean_gpus: float
    saved: float
    cost_per_million: float | None


class Choice(Model):
    """One way to route requests, and how many GPUs it needs.

    gpus = needed + spares: the fewest that meet utilisation and all objectives while `spares` of them are away. None:
    not found (`reason` says why). at_least: fewer were shown to miss: below `needed`, what lies between is undecided.
    binding: the objective, or "utilisation". degraded: simulated with the spares away; whole: with all of them, the
    same without spares. tried: every size that was simulated, in order.

    cost_per_million: of inferences, in whatever `gpu_price` is, at the demand's mean. joules_per_inference: of all
    GPUs, spares included, at that mean; power is interpolated between the rates at which it was measured."""

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
    cost_per_million: float | None = None
    joules_per_inference: float | None = None
    estimate: Estimate | None = None
    autoscaling: Autoscaling | None = None


class Comparison(Model):
    """One GPU, predicted and measured: at a rate (an open loop), or with so many in flight (a closed one).

    rank: the quantile of latency. error = predicted / measured − 1. within: their intervals meet; None where the
    measured one is not known. predicted_ns None: the rate is above what the model says that the GPU can serve."""

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
    """Random routing without any model: each GPU sees what the measured one saw, Poisson arrivals at no more than
    per_gpu_per_s, at which the objectives were met (`basis` says in which sense). gpus: spares included."""

    per_gpu_per_s: float
    basis: str
    gpus: int


class FleetResult(Model):
    """All of one plan. sources: the files it was made from. gpu_price: of one GPU for an hour, without a unit.

    choices: by routing, in the order asked for. outcome: completed, or interrupted (Ctrl-C) with the choices so far.
    checks: the model against what was measured. notes: what the reader should know of what was read."""

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
    seed: int
    outcome: Literal["completed", "interrupted"]
    choices: tuple[Choice, ...]
    direct: Direct | None
    checks: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
