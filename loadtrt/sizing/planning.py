"""The options of `loadtrt plan-capacity`, checked; and the plan that they ask for."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from loadtrt.asked.fields import option_name, read_option
from loadtrt.asked.load import Rate, Stages
from loadtrt.asked.objective import parse_objective
from loadtrt.asked.reading import CODE, FIELDS, read_load
from loadtrt.asked.trace_load import Trace
from loadtrt.errors import UsageError, nearest
from loadtrt.printing import bounded_repr, command_line, utf8_name
from loadtrt.report.result_files import SCHEMAS, Kind, ResultFile, one_model, read_file, read_result
from loadtrt.results.capacity_result import CapacityResult, SweepResult
from loadtrt.results.fleet_result import ROUTINGS, TIES, FleetResult
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import RunResult
from loadtrt.sizing.demand import staged_demand, steady_demand, traced_demand
from loadtrt.sizing.evidence import evidence_of
from loadtrt.sizing.fleet_plan import plan_fleet
from loadtrt.sizing.predictable import why_unpredictable
from loadtrt.units import SECOND_NS, parse_duration, parse_rate, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from loadtrt.asked.objective import Objective
    from loadtrt.results import Result
    from loadtrt.results.fleet_result import Routing, Ties
    from loadtrt.runs.watched import Talks
    from loadtrt.signals import Signals
    from loadtrt.sizing.demand import Demand
    from loadtrt.sizing.evidence import Source

# The options of a fleet, with their defaults; the command has those of a demand, too.
OPTIONS: dict[str, Any] = {
    "batch": None,
    "contexts": None,
    "growth": "0%",
    "headroom": "0%",
    "spares": 0,
    "max_utilisation": "80%",
    "routing": ",".join(ROUTINGS),
    "ties": TIES[0],
    "gpu_price": None,
    "seed": FIELDS["seed"].default,
    "measure": False,
}
DEMANDS = ("demand", "demand_inferences", "stages", "trace")
ARRIVALS = ("arrivals", "burstiness", "trace_column")
_MOST_SPARES = 1000
DURATION_NS = 30 * SECOND_NS  # of a planned fleet that is measured
_MOST_SHARE = 1000.0
_MOST_PRICE = 1e9


@dataclass(frozen=True, slots=True)
class Plan:
    """What to plan, checked, before anything is read.

    given: the options of the demand, by key.
    growth, headroom: as shares.
    measure_ns: how long to measure each planned fleet; None: they are not run.
    """

    given: Mapping[str, Any]
    objectives: Sequence[Objective]
    batch: int | None
    contexts: int | None
    growth: float
    headroom: float
    spares: int
    max_utilisation: float
    routings: Sequence[Routing]
    ties: Ties
    gpu_price: float | None
    seed: int
    measure_ns: int | None

    def make(
        self, sources: Sequence[Path | Result], talks: Talks, signals: Signals, *, names: Sequence[str], curve: bool
    ) -> FleetResult:
        """Plan the fleet.

        sources: files and results: one capacity, one sweep, or runs.
        names: of the sources, as the result keeps them.
        curve: simulate further sizes, for a chart.

        A signal ends the simulation, and what was found until then is returned. Raises UsageError.
        """
        source = read_sources(sources)
        evidence = evidence_of(source, self.contexts, self.batch)
        demand = self._demand(evidence.gpu.batch, talks.say)
        objectives = list(self.objectives)
        for objective in () if objectives else evidence.objectives:
            why_not = why_unpredictable(objective)
            if why_not is None:
                objectives.append(objective)
            else:
                talks.say(f"objective left out: {why_not}")
        signals.hold()
        try:
            plan = plan_fleet(
                evidence,
                demand,
                objectives,
                routings=self.routings,
                spares=self.spares,
                max_utilisation=self.max_utilisation,
                ties=self.ties,
                gpu_price=self.gpu_price,
                curve=curve,
                seed=self.seed,
                sources=[utf8_name(name) for name in names],
                command=command_line(),
                say=partial(talks.status, slow=True),
                stopped=signals.requested,
            )
        finally:
            talks.end_line()
        if self.measure_ns is None:
            return plan
        from loadtrt.sizing.measured_fleet import measure

        return measure(plan, source, {key: self.given.get(key) for key in CODE}, self.measure_ns, talks, signals)

    def _demand(self, batch: int, say: Callable[[str], None]) -> Demand:
        """The demand in requests."""
        given, growth, headroom = self.given, self.growth, self.headroom
        load_options = {key: given.get(key) for key in (*ARRIVALS, "stages", "trace")}
        if given.get("demand") is not None:
            load_options["rate"] = given["demand"]
        elif given.get("demand_inferences") is not None:
            load_options["rate"] = given["demand_inferences"] / batch
        match read_load(load_options):
            case Rate() as load:
                return steady_demand(load.rate, burstiness=load.cv, growth=growth, headroom=headroom)
            case Stages() as load:
                source = f"stages {given['stages']}"
                return staged_demand(load.course(), source, burstiness=load.cv, growth=growth, headroom=headroom)
            case Trace() as load:
                for remark in load.remarks:
                    say(remark)
                return traced_demand(load.instants, load.text, growth=growth, headroom=headroom)
        raise AssertionError("one of the options above names a load of these types")


def plan_of(given: Mapping[str, Any]) -> Plan:
    """What these options ask for, by key, as the command line has them; None for one that is not given. Raises
    UsageError unless exactly one of DEMANDS is given, and for values that are wrong."""
    values = OPTIONS | {key: value for key, value in given.items() if key in OPTIONS and value is not None}
    rates = {
        key: read_option(option_name(key), given[key], parse_rate)
        for key in ("demand", "demand_inferences")
        if given.get(key) is not None
    }
    for key in ("batch", "contexts", "spares", "seed"):
        if values[key] is not None and (not isinstance(values[key], int) or isinstance(values[key], bool)):
            raise UsageError(f"{option_name(key)}: {bounded_repr(values[key])} is not a whole number")
    if not 0 <= values["spares"] <= _MOST_SPARES:
        raise UsageError(f"--spares {values['spares']} is not from 0 to {_MOST_SPARES}")
    if not 0 <= values["seed"] < 1 << 63:
        raise UsageError("--seed is not from 0 to 2^63 - 1: write a smaller number")
    plan = Plan(
        given={**given, **rates},
        objectives=[read_option("--objective", text, parse_objective) for text in _texts(given.get("objective"))],
        batch=values["batch"],
        contexts=values["contexts"],
        growth=_share("growth", values["growth"]),
        headroom=_share("headroom", values["headroom"]),
        spares=values["spares"],
        max_utilisation=_utilisation(values["max_utilisation"]),
        routings=_routings(values["routing"]),
        ties=_ties(values["ties"]),
        gpu_price=_price(values["gpu_price"]),
        seed=values["seed"],
        measure_ns=_measure_ns(given, measure=values["measure"]),
    )
    named = [name for name in DEMANDS if given.get(name) is not None]
    if len(named) != 1:
        options_given = " and ".join(map(option_name, named))
        raise UsageError(
            f"{options_given} are each a demand: give one"
            if named
            else "a plan needs a demand: add --demand 5000/s (requests), --demand-inferences, --stages or --trace"
        )
    if given.get("trace") is not None and given.get("arrivals") is not None:
        raise UsageError(Trace.refusal.format(key="arrivals", option="--arrivals"))
    return plan


def read_sources(sources: Sequence[Path | Result]) -> Source:
    """One capacity, one sweep, or runs. Raises UsageError for anything else."""
    runs: list[RunResult] = []
    for given in sources:
        name, kind, result = source_of(given)
        match result:
            case CapacityResult() | SweepResult() if len(sources) > 1:
                raise UsageError(
                    f"{name} is {kind}: give this file alone, or several runs of loadtrt; of several models give the "
                    "demand of each, as --demand NAME=RATE"
                )
            case CapacityResult() | SweepResult():
                return result
            case RepeatResult():
                runs += [run for run in result.runs if run.outcome == "completed"]
            case FleetResult():
                made_of = "give the measurements that it was made of, such as the file of loadtrt capacity"
                raise UsageError(f"{name} is a plan, the result of this command: {made_of}")
            case RunResult():
                runs.append(one_model(result, name, "a plan needs runs of one model"))
            case _:
                raise UsageError(f"{name} is {kind}: give {Kind.RUN}")
    return tuple(runs)


def _of_workers(result: Result | None) -> bool:
    match result:
        case RunResult():
            return bool(result.workers or result.worker)
        case CapacityResult():
            return result.config.several_processes
        case SweepResult():
            return any(point.run is not None and _of_workers(point.run) for point in result.points)
    return False


def source_of(given: Path | Result) -> tuple[str, Kind, Result | None]:
    """The name of a source, its kind, and the result that it holds; None for a file of something else. Raises
    UsageError for what workers have measured together."""
    from loadtrt.results import Result

    result: Result | None
    if isinstance(given, Result):
        kind = next(kind for kind, schema in SCHEMAS.items() if isinstance(given, schema))
        name, result = f"the {type(given).__name__}", given
    else:
        file: ResultFile = read_file(given)
        kind, schema = file.kind, SCHEMAS.get(file.kind)
        name, result = str(given), None if schema is None else read_result(schema, file)
    if _of_workers(result):
        raise UsageError(
            f"{name} was measured by workers that share a load, and a plan needs runs of one process: "
            "measure one GPU, without --devices, --processes and --ray"
        )
    return name, kind, result


def _texts(given: object) -> Sequence[Any]:
    """One text or several, as a list."""
    return [] if given is None else cast("Sequence[Any]", given) if isinstance(given, list | tuple) else [given]


def _share(key: str, text: object) -> float:
    """A percentage, or a bare number below 1; a bare "30" could mean 30 % or 3000 %. Raises UsageError."""
    with suppress(UsageError):
        share = parse_share(str(text))
        if share < 1 or ("%" in str(text) and share <= _MOST_SHARE):
            return share
    raise UsageError(f"{option_name(key)} {text} is not a percentage; write for example 30%")


def _utilisation(text: object) -> float:
    share = _share("max_utilisation", text)
    if not 0.01 <= share <= 0.99:
        raise UsageError(f"--max-utilisation {text} is not from 1% to 99%: at 100 % the queue grows without bound")
    return share


def _price(price: object) -> float | None:
    if price is None:
        return None
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 < price <= _MOST_PRICE:
        shown = f"{price:g}" if isinstance(price, int | float) else bounded_repr(price)
        raise UsageError(
            f"--gpu-price {shown} is not a price above zero, up to {_MOST_PRICE:g}; write what one GPU costs an hour"
        )
    return float(price)


def _routings(given: object) -> list[Routing]:
    known: dict[object, Routing] = {name: name for name in ROUTINGS}
    names = given.split(",") if isinstance(given, str) else _texts(given)
    names = list(dict.fromkeys(name.strip() if isinstance(name, str) else bounded_repr(name) for name in names))
    for name in names:
        if name not in known:
            raise UsageError(f"--routing: '{name}' is not a routing policy: choose from {', '.join(ROUTINGS)}")
    return [known[name] for name in names]


def _measure_ns(given: Mapping[str, Any], *, measure: object) -> int | None:
    """How long to measure each planned fleet; None where none is to be run. Raises UsageError."""
    if not isinstance(measure, bool):
        raise UsageError(f"measure {bounded_repr(measure)} is neither True nor False")
    for key in ("duration", *CODE) if not measure else ():
        if given.get(key):
            raise UsageError(f"{option_name(key)} is for fleets that are run: add --measure, or leave it out")
    if not measure:
        return None
    if given.get("duration") is None:
        return DURATION_NS
    duration_ns = read_option("--duration", str(given["duration"]), parse_duration)
    if not duration_ns:
        raise UsageError("a run of 0s measures nothing: give --duration a time above 0")
    return duration_ns


def _ties(given: object) -> Ties:
    known: dict[object, Ties] = {name: name for name in TIES}
    if not isinstance(given, str) or given not in known:
        raise UsageError(f"--ties: {bounded_repr(given)} is not known: {nearest(str(given), TIES, ', '.join(TIES))}")
    return known[given]
