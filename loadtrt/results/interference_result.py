"""What `loadtrt interference` leaves behind: the schema of interference.json. Each cell of its matrix is a model beside
a neighbour, in rounds, each of which has the same load alone a moment before or after.

Times are ns (`_ns`), rates are requests a second (`_per_s`). None means that a number is not known.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from loadtrt.asked.config import RunConfig  # noqa: TC001  # pydantic reads them
from loadtrt.results import Count, Finite, Model, Positive, Result
from loadtrt.results.engine_info import EngineInfo, Verification  # noqa: TC001

CLOSED = "closed"
IDLE = "0"
OWN = "own"  # a model under a load of its own
LATENCIES = ("p50", "p99", "mean")


class Measured(Model):
    """One model in one run, as long as requests were sent, without the first tenth, in which queues fill.

    due: requests that came due in that time; of a closed loop those that were served.
    served: requests that were served in that time. Where queues do not grow that is `due`, but for chance.
    per_s: `served`, a second.
    latency_ns: "p50", "p99" and "mean" of latency, of all requests that were served, whenever.
    effective: how many independent requests they are worth for each of these, as far as that is known.
    """

    due: Count
    served: Count
    per_s: Positive
    latency_ns: dict[str, Positive | None]
    effective: dict[str, Positive] = Field(default_factory=dict)


class Round(Model):
    """One round of a cell: the same requests, due at the same instants, alone and beside the neighbour.

    neighbour: what the neighbour served; None where it is idle.
    neighbour_alone: the neighbour by itself, of a closed loop. An open loop by itself serves what is due.
    """

    alone: Measured
    beside: Measured
    neighbour: Measured | None = None
    neighbour_alone: Measured | None = None


class PairedRatio(Model):
    """A number beside the neighbour over the number alone (stats/paired.py).

    name: "latency.p50", "latency.p99", "latency.mean"; "kept" is throughput. "speedup" and "jain" are no ratios of two
        numbers, but their means and intervals are made like them.
    ratio: geometric mean over the rounds; None where the number is not known in each.
    low, high: 95 % confidence interval of the ratio.
    reason: why the ratio or its interval is not known.
    longer: how many times as long runs are whose interval is bounded on both sides, as far as these tell; None where
        that is not known.
    """

    name: str
    ratio: Positive | None
    low: Positive | None = None
    high: Positive | None = None
    reason: str | None = None
    longer: Positive | None = None


class Alone(Model):
    """A model by itself, before all cells.

    engine: what served.
    closed: of a closed loop.
    closed_low_per_s, closed_high_per_s: 95 % confidence interval of its throughput, of the whole loop.
    rate_per_s: its mean arrival rate in every cell where it is the one that is judged; None for a stressor.
    load: that load in words; "" for a stressor.
    stressor: whether it is a stressor.
    problems: why the numbers of the closed loop cannot be trusted.
    """

    engine: EngineInfo
    closed: Measured
    closed_low_per_s: Finite | None = None
    closed_high_per_s: Finite | None = None
    rate_per_s: Positive | None = None
    load: str = ""
    stressor: bool = False
    problems: tuple[str, ...] = ()


class Cell(Model):
    """A model under its load beside a neighbour under another, with one way to share the device.

    share: the way, as --share has it.
    model, neighbour: names of models.
    level, neighbour_level: "50%" of the throughput of a closed loop, "closed", "0" for an idle neighbour; "own" for a
        load of the model's own.
    rate_per_s, neighbour_rate_per_s: arrival rates; None for closed loops and what is idle.
    length_ns: how long each run sends requests; None: as long as --duration says.
    rounds: in the order in which they were made.
    ratios: of the model's latencies.
    kept: the model's throughput beside the neighbour over that of its load alone.
    neighbour_kept: the same of the neighbour; None where it is idle.
    weighted_speedup: throughput of both, each over that of its closed loop alone, summed: the work of so many devices.
    jain: Jain's index of what both kept: 1 is equal, 1/2 is nothing for one of them.
    modes: how each of both was placed, as its engine tells.
    verified: outputs under load beside the neighbour compared with those of quiet requests, by model.
    overloaded, neighbour_overloaded: the queue grew until the end: latency is that of the length of the run.
    problems: why the numbers cannot be trusted: the cell is INVALID.
    failure: why the cell was not measured, or not to its end.
    enough: the interval of p99 was narrow before the last round.
    """

    share: str
    model: str
    neighbour: str
    level: str
    neighbour_level: str
    rate_per_s: Positive | None = None
    neighbour_rate_per_s: Positive | None = None
    length_ns: Count | None = None
    rounds: tuple[Round, ...] = ()
    ratios: tuple[PairedRatio, ...] = ()
    kept: PairedRatio | None = None
    neighbour_kept: PairedRatio | None = None
    weighted_speedup: PairedRatio | None = None
    jain: PairedRatio | None = None
    modes: dict[str, dict[str, str]] = Field(default_factory=dict)
    verified: dict[str, Verification] = Field(default_factory=dict)
    overloaded: bool = False
    neighbour_overloaded: bool = False
    problems: tuple[str, ...] = ()
    failure: str | None = None
    enough: bool = False

    @property
    def valid(self) -> bool:
        """Whether the numbers of the cell can be trusted."""
        return bool(self.rounds) and not self.problems and self.failure is None

    def ratio(self, which: str = "p99") -> PairedRatio | None:
        """The ratio of a latency; None where it is not known."""
        return next((item for item in self.ratios if item.name == f"latency.{which}" and item.ratio is not None), None)


class Predicted(Model):
    """The p99 of a cell as fingerprints predict it (sizing/fingerprints.py), beside what was measured.

    ratio: predicted p99 beside the neighbour over alone; None where the neighbour leaves the model nothing.
    low, high: 95 % confidence interval, of what was measured for the fingerprints; None on a side that is not bounded.
    measured: p99 beside over alone; None where it is not known.
    measured_low, measured_high: 95 % confidence interval.
    """

    model: str
    neighbour: str
    neighbour_level: str
    ratio: Positive | None
    low: Positive | None = None
    high: Positive | None = None
    measured: Positive | None = None
    measured_low: Positive | None = None
    measured_high: Positive | None = None


class Fingerprint(Model):
    """What a model suffers from each stressor and does to it.

    slowdowns: p99 beside each stressor at its calibrated load over alone, by stressor.
    pressures: by the model's level and by stressor, the share of a closed loop's throughput that the stressor loses
        beside the model.
    """

    slowdowns: dict[str, PairedRatio]
    pressures: dict[str, dict[str, PairedRatio]]


class InterferenceResult(Result):
    """All of one measurement of interference.

    config: the configuration that all runs share, with all models and no stressor.
    shares: the ways to share, as --share has them.
    levels: of neighbours.
    load: of the model that is judged: the share of its closed loop's throughput.
    arrivals: the process by which requests arrive.
    most_rounds: rounds of a cell at most.
    precision: half the width of the interval of p99's ratio over the ratio, at which a cell has enough rounds.
    outcome: completed (failed and INVALID cells included), interrupted (Ctrl-C; it can be resumed), or failed.
    stressors: their engines, by name.
    stress: the calibrated load of stressors: the share of their closed loop's throughput.
    alone: by model, stressors last.
    cells: in the order of the matrix.
    fingerprints: by model; empty without stressors.
    predictions: of the cells of plain streams.
    prediction_error: median of |predicted ÷ measured − 1|; None without predictions.
    """

    schema_version: Literal["loadtrt.interference/1"] = "loadtrt.interference/1"
    loadtrt: str
    started: str
    command: tuple[str, ...]
    config: RunConfig
    environment: dict[str, Any]
    shares: tuple[str, ...]
    levels: tuple[str, ...]
    load: str
    arrivals: Literal["poisson", "constant"]
    most_rounds: int
    precision: float
    outcome: Literal["completed", "interrupted", "failed"]
    failure: str | None = None
    stressors: dict[str, str] = Field(default_factory=dict)
    stress: float = 0.0
    alone: dict[str, Alone] = Field(default_factory=dict)
    cells: tuple[Cell, ...] = ()
    fingerprints: dict[str, Fingerprint] = Field(default_factory=dict)
    predictions: tuple[Predicted, ...] = ()
    prediction_error: float | None = None

    def length_ns(self, cell: Cell | None = None) -> int:
        """How long each run of a cell sends requests, ns; None: as --duration says."""
        own = None if cell is None else cell.length_ns
        return own or max(map(self.config.least_ns, self.config.models.values()))

    @property
    def matrix(self) -> tuple[Cell, ...]:
        """The cells of models beside models."""
        return tuple(cell for cell in self.cells if not {cell.model, cell.neighbour} & self.stressors.keys())

    @property
    def valid(self) -> bool:
        """Whether all cells that were measured can be trusted."""
        return all(cell.valid for cell in self.cells)
