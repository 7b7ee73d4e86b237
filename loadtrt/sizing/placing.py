"""`loadtrt plan-capacity` for several models: the fewest GPUs with the models apart, and together on the same GPUs.

Each GPU gets Poisson arrivals of each of its models, as random routing does. No GPU is simulated: each has rates that
measurements cover (sizing/side_by_side.py), and the fewest GPUs are those of an integer program (sizing/covering.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import loadtrt
from loadtrt.asked.fields import option_name, read_option
from loadtrt.asked.reading import CODE
from loadtrt.errors import UsageError, nearest
from loadtrt.printing import bounded_repr, command_line, utf8_name
from loadtrt.results.placement_result import Limit, Placed, Placement, PlacementResult, PlannedModel
from loadtrt.sizing.covering import fewest_gpus
from loadtrt.sizing.demand import fewest_for, steady_demand
from loadtrt.sizing.planning import OPTIONS, plan_of, source_of
from loadtrt.sizing.side_by_side import SideBySide, alone_of, rates_text
from loadtrt.units import parse_rate, plural

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtrt.results import Result
    from loadtrt.sizing.covering import Cover
    from loadtrt.sizing.demand import Demand
    from loadtrt.sizing.side_by_side import Alone

# Options that choose among measurements of one model, say how its requests come and are routed, or measure its fleet.
_OF_ONE_MODEL = (
    *("batch", "contexts", "demand_inferences", "stages", "trace", "trace_column", "arrivals", "burstiness"),
    *("objective", "routing", "ties", "seed", "measure", "duration", *CODE),
)
_MOST_GPUS = 2000
_SEED = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to plan, checked.

    rates: today's demand of each model, by name.
    growth, headroom: as shares.
    """

    rates: Mapping[str, float]
    growth: float
    headroom: float
    max_utilisation: float
    spares: int
    gpu_price: float | None

    def make(
        self, alone: Mapping[str, Path | Result], together: Sequence[Path | Result], names: Sequence[str]
    ) -> PlacementResult:
        """Plan the GPUs.

        alone: the measurement of each model by itself.
        together: measurements beside each other.
        names: of all of them, as the result keeps them.

        Raises UsageError.
        """
        started = datetime.now(UTC)
        models = {name: alone_of(name, *_read(alone[name]), _SEED) for name in self.rates}
        devices = {name: model.evidence.engine.device for name, model in models.items()}
        first, *others = models
        unlike = next((name for name in others if devices[name] != devices[first]), None)
        if unlike is not None:
            raise UsageError(
                f"{first} was measured on {devices[first]}, {unlike} on {devices[unlike]}: a plan places models on "
                "GPUs of one kind"
            )
        measured = SideBySide(models)
        for source in together:
            measured.take(*_read(source))
        demands = {
            name: steady_demand(rate, growth=self.growth, headroom=self.headroom) for name, rate in self.rates.items()
        }
        planned = {name: self._planned(model, demands[name]) for name, model in models.items()}
        apart = sum(model.gpus for model in planned.values())
        if apart > _MOST_GPUS:
            raise UsageError(f"the demands need more than {_MOST_GPUS} GPUs: plan for a part of them, such as a region")
        ways = measured.placements(self.max_utilisation)
        kinds = [*(self._by_itself(name, model, planned[name].limit) for name, model in models.items()), *ways]
        cover = self._cover(kinds, demands)
        possible = measured.placements(self.max_utilisation, possible=True)
        hopeful = [*(self._hopeful(name, model) for name, model in models.items()), *possible]
        unmeasured = tuple(measured.unmeasured())
        return PlacementResult(
            loadtrt=loadtrt.__version__,
            started=started.isoformat(timespec="seconds"),
            command=command_line(),
            sources=tuple(utf8_name(name) for name in names),
            models=planned,
            measured=tuple(ways),
            apart=apart,
            apart_least=sum(model.gpus_least for model in planned.values()),
            together=_placed(kinds, cover, demands),
            gpus=sum(cover.counts),
            gpus_least=sum(self._cover(hopeful, demands).counts),
            proven_least=cover.proven,
            unmeasured=unmeasured,
            reason=_reason(kinds, cover, apart, possible),
            max_utilisation=self.max_utilisation,
            spares=self.spares,
            gpu_price=self.gpu_price,
            notes=(
                *(f"{name}: {note}" for name, model in models.items() for note in model.evidence.notes),
                *measured.notes,
            ),
        )

    def _planned(self, model: Alone, demand: Demand) -> PlannedModel:
        candidate, rate = model.candidate, demand.summary.planned_per_s
        limit = Limit(rate_per_s=model.sure, basis=f"{model.basis} ({model.source})")
        if model.sure > self.max_utilisation * model.most[0]:
            basis = f"{100 * self.max_utilisation:g} % utilisation; {limit.basis}"
            limit = Limit(rate_per_s=self.max_utilisation * model.most[0], basis=basis)
        return PlannedModel(
            engine=model.evidence.engine,
            source=model.source,
            objectives=model.evidence.objectives,
            demand=demand.summary,
            limit=limit,
            capacity_per_s=candidate.estimate_per_s,
            low_per_s=candidate.low_per_s,
            high_per_s=candidate.high_per_s,
            most_per_s=model.most[0],
            gpus=fewest_for(rate, limit.rate_per_s),
            gpus_least=fewest_for(rate, min(model.possible, self.max_utilisation * model.most[1])),
        )

    def _by_itself(self, name: str, model: Alone, limit: Limit) -> Placement:
        return Placement(limits={name: limit}, utilisation=limit.rate_per_s / model.most[0])

    def _hopeful(self, name: str, model: Alone) -> Placement:
        """A model by itself, where its capacity is the upper end of its interval."""
        rate = min(model.possible, self.max_utilisation * model.most[1])
        return Placement(limits={name: Limit(rate_per_s=rate, basis="")}, utilisation=rate / model.most[1])

    @staticmethod
    def _cover(kinds: Sequence[Placement], demands: Mapping[str, Demand]) -> Cover:
        carried = [[kind.limits[name].rate_per_s if name in kind.limits else 0.0 for name in demands] for kind in kinds]
        return fewest_gpus(carried, [demand.summary.planned_per_s for demand in demands.values()])


def _placed(kinds: Sequence[Placement], cover: Cover, demands: Mapping[str, Demand]) -> tuple[Placed, ...]:
    """The GPUs, each with the same share of what it may have of a model."""
    used = [(kind, count) for kind, count in zip(kinds, cover.counts, strict=True) if count]
    whole = {
        name: sum(count * kind.limits[name].rate_per_s for kind, count in used if name in kind.limits)
        for name in demands
    }
    return tuple(
        Placed(
            **dict(kind),
            gpus=count,
            rates_per_s={
                name: limit.rate_per_s * demands[name].summary.planned_per_s / whole[name]
                for name, limit in kind.limits.items()
            },
        )
        for kind, count in used
    )


def _reason(kinds: Sequence[Placement], cover: Cover, apart: int, possible: Sequence[Placement]) -> str:
    """What decides. possible: ways to load a GPU with several models at which objectives may be met."""
    gpus = sum(cover.counts)
    if not any(kind.shared for kind in kinds):
        none = "apart: no measurement beside each other shows rates at which all of them surely meet their objectives"
        if not possible:
            return none
        rates = {name: limit.rate_per_s for name, limit in possible[0].limits.items()}
        return f"{none}; they may at {rates_text(rates)}: measure for longer"
    saved = f"together saves {apart - gpus or 'none'} of {plural(apart, 'GPU')}"
    if gpus == 1:
        return saved
    most = (gpus - 1) / cover.linear
    if most < 1:
        return f"{saved}; {gpus - 1} would carry at most {100 * most:.3g} % of the demands"
    return f"{saved}; no choice of {gpus - 1} carries all demands"


def placement_plan(given: Mapping[str, Any], rates: Mapping[str, Any]) -> Plan:
    """What these options ask for, by key, as for `plan_of`. rates: the demand of each model. Raises UsageError."""
    for key in _OF_ONE_MODEL:
        if given.get(key) not in (None, False, (), [], OPTIONS.get(key)):
            raise UsageError(f"{option_name(key)} is for one model: leave it out, or plan for each model by itself")
    read = {name: read_option(f"--demand {name}", text, parse_rate) for name, text in rates.items()}
    if len(read) < 2:
        raise UsageError(
            "a plan of several models needs the demand of each: add --demand NAME=RATE for the others; for one model "
            "write --demand RATE"
        )
    plan = plan_of({**given, "demand": next(iter(read.values()))})
    return Plan(read, plan.growth, plan.headroom, plan.max_utilisation, plan.spares, plan.gpu_price)


def named_demands(texts: Sequence[str]) -> dict[str, str]:
    """{"detector": "3000/s"} of ("detector=3000/s",). Raises UsageError."""
    named: dict[str, str] = {}
    for text in texts:
        name, sign, rate = text.partition("=")
        if not sign or not name.strip():
            raise UsageError(f"--demand {text} names no model: write NAME=RATE for each, such as detector=3000/s")
        if name.strip() in named:
            raise UsageError(f"--demand is given twice for {name.strip()}: leave one out")
        named[name.strip()] = rate
    return named


def named_files(files: Sequence[Path], names: Sequence[str]) -> dict[str, Path]:
    """The file of each model: NAME=FILE, or one that is called like the model. Raises UsageError."""
    found: dict[str, Path] = {}
    for file in files:
        word, sign, rest = str(file).partition("=")
        named = bool(sign) and word in names and not file.exists()
        name, path = (word, type(file)(rest)) if named else (file.stem, file)
        if name not in names:
            known = f"name it, as {next(iter(names))}={file}; the demands are for {', '.join(names)}"
            raise UsageError(f"{file} measures no model that has a demand: {nearest(name, names, known)}")
        if name in found:
            raise UsageError(f"{found[name]} and {path} are both of {name}: give one, and others as --together")
        found[name] = path
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise UsageError(
            f"{missing} has a demand and no file: add its capacity alone, {missing}.json or {missing}=FILE"
        )
    return found


def _read(given: Path | Result) -> tuple[str, Any]:
    """(what to call a source, what it holds)."""
    name, kind, result = source_of(given)
    if result is None:
        raise UsageError(f"{name} is {kind}: give results of loadtrt capacity and loadtrt interference")
    return name, result


def require_names(demand: object, alone: Mapping[str, object]) -> dict[str, Any]:
    """The demand of each model, as Python gives it. Raises UsageError unless each has one."""
    if not isinstance(demand, Mapping):
        raise UsageError(f"demand {bounded_repr(demand)} has no names: write demand={{'a': '3000/s', 'b': 800}}")
    rates = {str(name): rate for name, rate in demand.items()}
    if rates.keys() != alone.keys():
        of, have = (", ".join(sorted(names)) or "nothing" for names in (rates, alone))
        raise UsageError(f"the demands are for {of}, and the measurements of {have}: give both for each model")
    return rates
