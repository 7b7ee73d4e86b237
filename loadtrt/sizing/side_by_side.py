"""What measurements of models on one GPU say of how they may be placed: at which rates each surely meets its
objectives, alone and beside others.

Of a search (`capacity --of`) that is the confirmed rate of its model, beside neighbours at the rates that they had; of
a cell of `interference` the rates of both, for each of them whose percentiles are surely within the bounds: geometric
means of the rounds, with the interval of stats/paired.py. A neighbour in a closed loop stands for one at any rate, as
more than all of its lanes are never busy.

**Less load hurts nobody**: a model that meets its objectives at some rates meets them at lower ones, its own and its
neighbours'. That is all that is assumed; between two measurements nothing is interpolated. So models share a GPU at
rates that are covered by one measurement of each of them, all with the same lanes and the same shares of the GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations, product
from statistics import fmean
from typing import TYPE_CHECKING, TypeAlias

from loadtrt.asked.load import Rate
from loadtrt.asked.reading import keys_of
from loadtrt.asked.ways_to_share import PROCESSES, parse_shares
from loadtrt.errors import UsageError
from loadtrt.results.capacity_result import CapacityResult
from loadtrt.results.interference_result import CLOSED, IDLE, InterferenceResult
from loadtrt.results.placement_result import Limit, Placement
from loadtrt.sizing.evidence import evidence_of
from loadtrt.sizing.fleet_check import sure_rate
from loadtrt.stats.paired import LEAST, Pair, paired_ratio
from loadtrt.units import SECOND_NS, format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.asked.load import Load
    from loadtrt.asked.model import Model
    from loadtrt.asked.objective import Objective
    from loadtrt.results.capacity_result import Candidate
    from loadtrt.results.engine_info import EngineInfo
    from loadtrt.results.interference_result import Cell, Measured
    from loadtrt.sizing.evidence import Evidence

_PERCENTILES = ("p50", "p99")  # that a measurement of interference keeps
_APART = (("", PROCESSES),)
_LANES = sorted(keys_of("Engine", "Lanes") | {"mix", "batcher", "max_queue"})

# Lanes and shares of each model on one GPU, by its name.
Setup: TypeAlias = "frozenset[tuple[str, str]]"


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """A model that has a GPU for itself.

    source: its measurement.
    sure, possible: the rate at which it surely meets its objectives, and the upper end of its capacity's interval.
    basis: the measurement that shows the first, in words.
    most: its highest throughput, 95 % interval.
    """

    source: str
    evidence: Evidence
    candidate: Candidate
    sure: float
    possible: float
    basis: str
    most: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Met:
    """A model meets its objectives at these rates. sure: certainly; else it may, as far as its interval tells."""

    model: str
    setup: Setup
    rates: Mapping[str, float]
    sure: bool
    basis: str


def alone_of(name: str, source: str, result: object, seed: int) -> Alone:
    """A model by itself, of a search for its capacity. Raises UsageError for anything else."""
    if not isinstance(result, CapacityResult):
        raise UsageError(f"{source} is not a search for capacity: give one of {name} alone, by loadtrt capacity --json")
    if result.beside:
        raise UsageError(f"{source} measures {name} beside {', '.join(result.beside)}: give it as --together")
    evidence = evidence_of(result)
    candidate = evidence.capacity
    sure = None if candidate is None else sure_rate(candidate)
    if candidate is None or sure is None:
        why = "" if candidate is None or not candidate.conclusion else f": {candidate.conclusion}"
        raise UsageError(f"{source} has no rate at which {name} surely meets its objectives{why}")
    if not _poisson(result.config.model.load):
        raise UsageError(
            f"{source} is for arrivals ({result.config.model.load.text}) that are not Poisson at a steady rate, which "
            "several models are planned for: search again without --burstiness, --bursts, --stages and --trace"
        )
    possible = candidate.high_per_s or candidate.estimate_per_s or sure[0]
    return Alone(source, evidence, candidate, sure[0], max(possible, sure[0]), sure[1], evidence.law.most_per_s(seed))


def _poisson(load: Load) -> bool:
    return isinstance(load, Rate) and load.cv == 1 and load.steady


@dataclass(slots=True)
class SideBySide:
    """Measurements of models beside each other. notes: on what was left out."""

    alone: Mapping[str, Alone]
    notes: list[str] = field(default_factory=list)
    _met: list[_Met] = field(default_factory=list)
    _judged: set[tuple[Setup, str]] = field(default_factory=set)
    _words: dict[Setup, str] = field(default_factory=dict)

    def take(self, source: str, result: object) -> None:
        """Take a result. Raises UsageError for one that is not of these models beside each other."""
        match result:
            case CapacityResult(beside=beside) if beside:
                self._take_search(source, result)
            case CapacityResult():
                raise UsageError(
                    f"{source} measures one model alone: search beside the others, by loadtrt capacity --of"
                )
            case InterferenceResult():
                self._take_interference(source, result)
            case _:
                raise UsageError(
                    f"{source} is not a measurement of models beside each other: give one of loadtrt interference or "
                    "loadtrt capacity --of"
                )

    def _take_search(self, source: str, result: CapacityResult) -> None:
        name, candidate = result.of, result.best
        if name is None:
            raise UsageError(f"{source} does not say which of the models it is of: search again with this loadtrt")
        self._require_known(source, (name, *result.beside))
        sure = None if candidate is None else sure_rate(candidate)
        if candidate is None or candidate.engine is None or sure is None:
            self.notes.append(f"{source} was left out: it has no rate at which {name} surely meets its objectives")
            return
        self._require_same(source, name, candidate.engine)
        if set(result.objectives) != set(self.alone[name].evidence.objectives):
            raise UsageError(
                f"{source} and {self.alone[name].source} are for other objectives of {name}: search with the same"
            )
        lanes = {"contexts": candidate.contexts, "batch": candidate.batch, "buffers": candidate.buffers}
        models = {name: result.config.model.model_copy(update=lanes), **result.beside}
        rates = {other: self._rate(source, other, model.load) for other, model in result.beside.items()}
        self._require_poisson(source, name, result.config.model.load)
        setup = self._setup(models)
        self._judged.add((setup, name))
        basis = f"{sure[1]} ({source})"
        self._met.append(_Met(name, setup, {**rates, name: sure[0]}, True, basis))
        possible = candidate.high_per_s or candidate.estimate_per_s or sure[0]
        self._met.append(_Met(name, setup, {**rates, name: possible}, False, basis))

    def _take_interference(self, source: str, result: InterferenceResult) -> None:
        names = [name for name in result.config.models if name in self.alone]
        if len(names) < 2:
            of, known = ", ".join(result.config.models), ", ".join(self.alone)
            raise UsageError(f"{source} measures {of}, of which fewer than two are in the plan of {known}")
        for name in names:
            if name in result.alone:  # else it was interrupted before
                self._require_same(source, name, result.alone[name].engine)
        unknown = {name: why for name in names if (why := _unknown_to_cells(self.alone[name].evidence.objectives))}
        self.notes += [f"{source} was left out for {name}: {why}" for name, why in unknown.items()]
        closed = any(result.config.models[name].load.closed for name in names)
        if closed and result.arrivals != "poisson":
            raise UsageError(f"{source} was measured with {result.arrivals} arrivals: measure with --arrivals poisson")
        for cell in result.matrix:
            if {cell.model, cell.neighbour} <= set(names) and cell.valid and cell.neighbour_level != IDLE:
                for name in (cell.model, cell.neighbour):
                    if name not in unknown:
                        self._take_cell(source, result, cell, name)
        invalid = sum(not cell.valid for cell in result.matrix)
        if invalid:
            self.notes.append(f"{source}: {plural(invalid, 'cell')} left out, INVALID or failed")

    def _take_cell(self, source: str, result: InterferenceResult, cell: Cell, name: str) -> None:
        """What a cell says of one of its two models."""
        judged = name == cell.model
        (way,) = parse_shares(cell.share)
        pair = (cell.model, cell.neighbour)
        models = dict(zip(pair, way.models(*(result.config.models[one] for one in pair)), strict=True))
        own, other = cell.rate_per_s, cell.neighbour_rate_per_s
        if own is None or (other is None and (not judged or cell.neighbour_level != CLOSED)):
            return
        for one in pair:
            if not models[one].load.closed:
                self._require_poisson(source, one, models[one].load)
        setup = self._setup(models, apart=way.processes)
        self._judged.add((setup, name))
        if cell.overloaded if judged else cell.neighbour_overloaded:
            return
        seen = [one.beside if judged else one.neighbour for one in cell.rounds]
        found = [_within(objective, seen) for objective in self.alone[name].evidence.objectives]
        rates = {cell.model: own, cell.neighbour: math.inf if other is None else other}
        basis = f"{', '.join(text for _, _, text in found)} ({source})"
        if all(sure for sure, _, _ in found):
            self._met.append(_Met(name, setup, rates, True, basis))
        elif all(possible for _, possible, _ in found):
            self._met.append(_Met(name, setup, rates, False, basis))

    def _require_known(self, source: str, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.alone:
                raise UsageError(
                    f"{source} has {name}, which has no demand: give --demand {name}=RATE with its capacity alone, or "
                    "leave the file out"
                )

    def _require_same(self, source: str, name: str, engine: EngineInfo) -> None:
        before = self.alone[name].evidence.engine
        for what, was, is_ in (
            ("engine", before.sha256 or before.name, engine.sha256 or engine.name),
            ("device", before.device, engine.device),
            ("batch", before.batch, engine.batch),
        ):
            if was != is_:
                raise UsageError(
                    f"{source} and {self.alone[name].source} measured {name} with another {what} ({is_}, {was}): "
                    "measure both with the same"
                )

    def _require_poisson(self, source: str, name: str, load: Load) -> None:
        if not _poisson(load):
            raise UsageError(
                f"{source}: the load of {name} ({load.text}) is neither Poisson at a steady rate nor a closed loop: "
                "measure with one of these"
            )

    def _rate(self, source: str, name: str, load: Load) -> float:
        """The rate of a neighbour."""
        if load.closed:
            return math.inf
        self._require_poisson(source, name, load)
        return load.mean_rate(SECOND_NS) or 0.0

    def _setup(self, models: Mapping[str, Model], *, apart: bool = False) -> Setup:
        """apart: whether each has a process of its own, which is kept beside the models, under no name."""
        setup = frozenset([*((name, _lanes(model)) for name, model in models.items()), *_APART[:apart]])
        known = {name: models[name] for name in self.alone if name in models}
        self._words.setdefault(setup, _shared_words(known, "processes of their own: " if apart else "plain streams: "))
        return setup

    def placements(self, max_utilisation: float, *, possible: bool = False) -> list[Placement]:
        """Ways to load a GPU with several models, none of which allows less than another.

        possible: as far as intervals tell that objectives may be met, and not only where they surely are.
        """
        found: list[Placement] = []
        for setup, shared in self._words.items():
            names = [name for name in self.alone if name in dict(setup)]
            of_each = [
                [met for met in self._met if met.setup == setup and met.model == name and (met.sure or possible)]
                for name in names
            ]
            for chosen in product(*of_each):
                limits = {name: _least(name, chosen) for name in names}
                used = sum(limit.rate_per_s / self.alone[name].most[possible] for name, limit in limits.items())
                if used > max_utilisation:
                    limits = {
                        name: Limit(
                            rate_per_s=limit.rate_per_s * max_utilisation / used,
                            basis=f"{100 * max_utilisation:g} % utilisation; {limit.basis}",
                        )
                        for name, limit in limits.items()
                    }
                if all(limit.rate_per_s > 0 for limit in limits.values()):
                    found.append(Placement(limits=limits, shared=shared, utilisation=min(used, max_utilisation)))
        return [
            one
            for place, one in enumerate(found)
            if not any(_allows(other, one, earlier=at < place) for at, other in enumerate(found) if at != place)
        ]

    def unmeasured(self) -> Iterator[tuple[str, str]]:
        """Pairs of models of which no measurement has both, with the same lanes and shares, judged."""
        for pair in combinations(self.alone, 2):
            if not any(all((setup, name) in self._judged for name in pair) for setup in self._words):
                yield pair


def _least(name: str, chosen: Sequence[_Met]) -> Limit:
    """The rate of a model that all of these measurements cover."""
    met = min(chosen, key=lambda one: (one.rates[name], one.model != name))
    basis = met.basis if met.model == name else f"{met.model} was measured beside no more of it"
    return Limit(rate_per_s=met.rates[name], basis=basis)


def _allows(a: Placement, b: Placement, *, earlier: bool) -> bool:
    """Whether one allows all that another does, and more; as much, if it is the earlier one."""
    pairs = [(a.limits[name].rate_per_s if name in a.limits else 0.0, b.limits[name].rate_per_s) for name in b.limits]
    same = earlier or len(a.limits) > len(b.limits) or any(of_a > of_b for of_a, of_b in pairs)
    return same and all(of_a >= of_b for of_a, of_b in pairs)


def _within(objective: Objective, seen: Sequence[Measured | None]) -> tuple[bool, bool, str]:
    """(whether a percentile is surely within its bound, whether it may be, the percentile in words)."""
    pairs = [
        Pair(1.0, one.latency_ns.get(objective.quantile), (math.inf, one.effective.get(objective.quantile, 0.0)))
        for one in seen
        if one is not None
    ]
    found = paired_ratio(objective.name, pairs)
    if found.ratio is None:
        return False, False, f"{objective.name} is not known"
    # Rounds that agree show a ratio however short they are, as where nobody disturbs; of a percentile they do not.
    large = fmean(pair.sizes[1] for pair in pairs) >= LEAST[objective.name]
    sure = large and found.high is not None and found.high <= objective.limit_ns
    possible = (found.low or 0.0) <= objective.limit_ns
    most = "" if found.high is None else f", at most {format_duration(found.high)}"
    return sure, possible, f"{objective.quantile} {format_duration(found.ratio)}{most}"


def _unknown_to_cells(objectives: Sequence[Objective]) -> str:
    """Why measurements of interference do not tell whether these objectives are met; "" where they do."""
    known = [f"latency.{rank}" for rank in _PERCENTILES]
    other = next((objective for objective in objectives if objective.name not in known), None)
    if other is None:
        return ""
    return f"it has {' and '.join(known)}, and not '{other}': search beside the others, by loadtrt capacity --of"


def _lanes(model: Model) -> str:
    """The lanes of a model and its share of the GPU, so that equal ones have equal texts."""
    values = {key: getattr(model, key) for key in _LANES if hasattr(model, key)}
    values["engine"] = str(model.engine).rsplit("/", 1)[-1]
    return repr(values)


def _shared_words(models: Mapping[str, Model], plainly: str) -> str:
    texts, plain = [], True
    for name, model in models.items():
        parts = [plural(model.contexts, "context")]
        parts += [f"priority {model.priority}"] if model.priority is not None else []
        sms = str(model.sms or "")
        parts += [f"{sms.removesuffix('%')} % of the SMs" if sms.endswith("%") else f"{sms} SMs"] if sms else []
        plain = plain and len(parts) == 1
        texts.append(f"{name} {', '.join(parts)}")
    return f"{plainly if plain else ''}{'; '.join(texts)}"


def rates_text(rates: Mapping[str, float]) -> str:
    """ "detector 1 200/s + classifier 400/s"."""
    return " + ".join(f"{name} {format_count(rate)}/s" for name, rate in rates.items())
