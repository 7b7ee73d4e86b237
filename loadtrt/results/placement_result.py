"""The plan of several models on GPUs of one kind, apart and together: the schema of `plan-capacity --json` where it has
the demand of each.

Rates are requests a second (`_per_s`). None means that a number is not known.
"""

from __future__ import annotations

from typing import Literal

from loadtrt.asked.fields import Objectives  # noqa: TC001  # pydantic reads them
from loadtrt.results import Count, Model, Positive, Result
from loadtrt.results.engine_info import EngineInfo  # noqa: TC001
from loadtrt.results.fleet_result import FleetDemand  # noqa: TC001


class Limit(Model):
    """The rate of a model on one GPU up to which it surely meets its objectives there.

    rate_per_s: that rate, and no more than the utilisation allows.
    basis: the measurement that shows it, in words.
    """

    rate_per_s: Positive
    basis: str


class Placement(Model):
    """One way to load a GPU.

    limits: of each model that is on it.
    shared: how they share the GPU, in words; "" for a model that has it for itself.
    utilisation: each model's limit over its highest throughput alone, summed.
    """

    limits: dict[str, Limit]
    shared: str = ""
    utilisation: Positive


class Placed(Placement):
    """GPUs that are loaded in one way.

    gpus: how many.
    rates_per_s: what each of them has of each model's demand.
    """

    gpus: Count
    rates_per_s: dict[str, Positive]


class PlannedModel(Model):
    """One model by itself.

    source: its measurement.
    limit: of a GPU that it has for itself.
    capacity_per_s: its capacity there, of which low_per_s and high_per_s are the 95 % confidence interval.
    most_per_s: its highest throughput there, the lower end of the interval.
    gpus: how many it needs for itself, without spares.
    gpus_least: how many are enough if its capacity is the upper end of its interval.
    """

    engine: EngineInfo
    source: str
    objectives: Objectives
    demand: FleetDemand
    limit: Limit
    capacity_per_s: Positive | None
    low_per_s: Positive | None
    high_per_s: Positive | None
    most_per_s: Positive
    gpus: Count
    gpus_least: Count


class PlacementResult(Result):
    """All of one plan of several models.

    models: by name.
    measured: ways to load a GPU with several models that measurements allow, none of which allows less than another.
    apart: GPUs where each has one model, without spares.
    together: GPUs by the way in which they are loaded, as few as measurements allow.
    gpus: how many they are, without spares.
    apart_least, gpus_least: how many are enough if every capacity is the upper end of its 95 % interval.
    proven_least: measurements allow no fewer GPUs than this; below `gpus` only where the search was given up.
    unmeasured: pairs of models that were not measured beside each other, which the plan does not place together.
    reason: what decides, in a sentence.
    max_utilisation: limit of utilisation, in (0, 1].
    spares: GPUs that may be out of service.
    gpu_price: price of one GPU for an hour, without a unit.
    notes: sentences on the files: what was left out or assumed.
    """

    schema_version: Literal["loadtrt.placement/1"] = "loadtrt.placement/1"
    loadtrt: str
    started: str
    command: tuple[str, ...]
    sources: tuple[str, ...]
    models: dict[str, PlannedModel]
    measured: tuple[Placement, ...]
    apart: Count
    apart_least: Count
    together: tuple[Placed, ...]
    gpus: Count
    gpus_least: Count
    proven_least: Count
    unmeasured: tuple[tuple[str, str], ...]
    reason: str
    max_utilisation: float
    spares: Count
    gpu_price: float | None
    outcome: Literal["completed"] = "completed"
    notes: tuple[str, ...] = ()
