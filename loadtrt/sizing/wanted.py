"""What a search for capacity is to find: the options of `loadtrt capacity`, checked."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loadtrt.asked.launched import require_workers
from loadtrt.asked.load_options import process_type
from loadtrt.asked.model_option import parse_models
from loadtrt.asked.reading import keys_of, load_config, varied
from loadtrt.errors import UsageError, nearest
from loadtrt.runs.processes import require_one_clock
from loadtrt.sizing.grid import parse_axis
from loadtrt.units import SECOND_NS, exact_duration, parse_share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.sizing.grid import Axis

TIME_NS = 600 * SECOND_NS
QUICK_NS = 30 * SECOND_NS  # with --quick
PRECISION = 0.03
_LEAST_TIME_NS = 2 * SECOND_NS
# Options that the search decides: those of a configuration file are left out.
_OWN = (keys_of("Load", "Ending") - {"warmup", "drain", "max_queue"}) | {
    "abort_on_fail",
    "abort_delay",
    "profile",
    "worker",
}
_ARRIVALS = ("arrivals", "burstiness", "bursts", "stages", "trace", "trace_column")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to find.

    config: the configuration that all trials share.
    load: the options of the arrivals by key, without the rate.
    contexts, batches: the candidates; a batch of None is the engine's own.
    precision: of the search (sizing/search.py).
    time_ns: duration of all runs of a candidate together.
    quick: whether the capacity is only estimated.
    shared: whether to search although others use the cores or the GPU.
    of: name of the model among others; None without others.
    beside: these others by name, which hold their own loads meanwhile.
    """

    config: RunConfig
    load: dict[str, Any]
    contexts: tuple[int, ...]
    batches: tuple[int | None, ...]
    precision: float = PRECISION
    time_ns: int = TIME_NS
    quick: bool = False
    shared: bool = False
    of: str | None = None
    beside: Mapping[str, Model] = field(default_factory=dict)

    def configs(self) -> list[RunConfig]:
        """The configuration of each candidate, batch by batch, at any rate. Raises UsageError."""
        return [
            varied(self.config, contexts=contexts, batch=batch, rate="1/s", **self.load)
            for batch in self.batches
            for contexts in self.contexts
        ]


def wanted_of(
    file: Path | RunConfig | None,
    given: dict[str, Any],
    contexts: Axis | None,
    batch: Axis | None,
    time: int | None,
    precision: str,
    *,
    quick: bool,
    shared: bool,
) -> Wanted:
    """What the options of `loadtrt capacity` ask for.

    file: as for `load_config`.
    given: options by key; None for one that is not given.
    contexts, batch: the candidates; None for those of the configuration.
    time: of all runs of a candidate together, in ns; None for the usual one.

    Raises UsageError.
    """
    load = {key: given[key] for key in _ARRIVALS if given.get(key) is not None}
    given = {key: value for key, value in given.items() if key not in _ARRIVALS}
    if "stages" in load:
        load["stages_loop"] = True
    if "trace" in load:
        load |= {"arrivals": load.get("arrivals", "trace"), "trace_loop": True}
    load.setdefault("arrivals", process_type(load).word)
    batches = None if batch is None else parse_axis("batch", batch)
    first = {} if batches is None else {"batch": batches[0]}  # replaces the mix of a configuration file
    if shared and given.get("shared_gpu") is False:
        raise UsageError("--shared-host accepts others on the GPU, too: leave --no-shared-gpu out")
    accepted = {"shared_gpu": True} if shared else {}
    config = load_config(file, {**given, **load, **first, **accepted, "rate": "1/s"}, without=_OWN, base=True)
    _require_objectives(config)
    require_workers(given.get("routing"), several=config.several_processes)
    if config.several_processes:
        require_one_clock(config)
    time_ns = time if time is not None else QUICK_NS if quick else TIME_NS
    if time_ns < _LEAST_TIME_NS:
        raise UsageError(f"--time {exact_duration(time_ns)} is too short for a search; write for example --time 10m")
    return Wanted(
        config=config,
        load=load,
        contexts=(config.model.contexts,) if contexts is None else parse_axis("contexts", contexts),
        batches=(config.model.batch,) if batches is None else batches,
        precision=_precision(precision),
        time_ns=time_ns,
        quick=quick,
        shared=shared,
    )


def one_of(file: Path | RunConfig | None, texts: Sequence[str], of: str) -> tuple[RunConfig, dict[str, Model]]:
    """The configuration of one of several models, and the others, which hold their loads beside it.

    file: as for `load_config`; texts: of --model.

    Raises UsageError where no models are given, for a name that no model has, and for loads that end by
    themselves.
    """
    if file is None and not texts:
        raise UsageError(f"--of {of} chooses one of several models: name them all by --model or in --config, too")
    config = load_config(file, {"models": parse_models(texts)} if texts else {}, several=True)
    if of not in config.models:
        known = f"the models are {', '.join(config.models)}"
        raise UsageError(f"--of {of} is not a model: {nearest(of, config.models, known)}")
    beside = {name: model for name, model in config.models.items() if name != of}
    for name, model in beside.items():
        if model.load.own_ns is not None or model.requests is not None:
            raise UsageError(f"{name} holds its load as long as each trial: leave --requests out, or loop its schedule")
    changes = {"objectives": (), "verify": False}
    return config.alone(of), {name: model.model_copy(update=changes) for name, model in beside.items()}


def _require_objectives(config: RunConfig) -> None:
    if not config.model.objectives:
        raise UsageError("a capacity needs an objective: add --objective, such as 'latency.p99 < 10ms'")
    for objective in config.model.objectives:
        if not objective.of_requests:
            raise UsageError(
                f"'{objective}' is not about single requests, and a capacity is the highest rate at which these meet "
                "their objectives: leave it out, and judge it with 'loadtrt run' at the rate that is found"
            )
        if objective.rank == 1:
            raise UsageError(
                f"'{objective}': the greatest of all requests grows with the length of the run: bound a quantile, such "
                "as p99.9, or a share, such as 0.1%"
            )
    if not any(item.kind in ("quantile", "drops") for item in config.model.objectives):
        raise UsageError(
            f"'{config.model.objectives[0]}' sets no limit to the rate, as requests wait instead: add an objective on "
            "a quantile, such as 'latency.p99 < 10ms'"
        )


def _precision(text: str) -> float:
    with suppress(UsageError):
        share = parse_share(text)
        if 0.001 <= share <= 0.5:
            return share
    raise UsageError(f"--precision {text} is not from 0.1% to 50%; write for example 3%")
