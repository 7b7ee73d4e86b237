"""The options of `loadtrt interference`, checked: what is to be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtrt.asked.config import model_name
from loadtrt.asked.fields import read_option
from loadtrt.asked.model_option import parse_models
from loadtrt.asked.reading import ending_otherwise, load_config
from loadtrt.asked.ways_to_share import parse_shares
from loadtrt.engines.placed_together import require_apart
from loadtrt.errors import EngineError, UsageError, naming
from loadtrt.results.interference_result import CLOSED, IDLE
from loadtrt.sizing.cells import Wanted
from loadtrt.units import SECOND_NS, parse_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.results.interference_result import InterferenceResult

# The options of this command alone, with their defaults as the command line writes them.
OPTIONS = {"load": "50%", "neighbour": "0,50%,90%,closed", "share": "streams", "rounds": 5, "precision": "10%"}
ARRIVALS = ("poisson", "constant")
MOST_ROUNDS = 100
LENGTH_NS, LONGEST_NS = 5 * SECOND_NS, 60 * SECOND_NS  # where no duration is given
_RESOURCES = ("dram", "pcie", "sm", "l2")
_MOST_LEVEL = 2.0


def wanted_interference(
    file: Path | RunConfig | None,
    given: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    own_stressors: Mapping[str, Mapping[str, Any]],
    *,
    stressors: bool,
) -> Wanted:
    """What to measure.

    file: as for `load_config`.
    given: options by key, those of OPTIONS as texts; None for one that is not given.
    models: options of each model by name, beside those of the file.
    own_stressors: the same of stressors.
    stressors: whether to measure beside one of each resource, too.

    Raises UsageError.
    """
    if file is None and not models:
        raise UsageError("interference needs two models, and there is none: give two engines, such as a.plan b.plan")
    own = {name: given.get(name, default) for name, default in OPTIONS.items()}
    arrivals = given.get("arrivals") or ARRIVALS[0]
    if arrivals not in ARRIVALS:
        raise UsageError(f"--arrivals {arrivals}: requests of a measurement of interference are poisson or constant")
    rest = {key: value for key, value in given.items() if key not in (*OPTIONS, "arrivals")}
    rest |= {"models": dict(models), "verify": rest.get("verify") is not False}
    config = load_config(file, rest, without=ending_otherwise("interference"), several=True)
    longest_ns = 0
    if config.duration is None:
        longest_ns = LONGEST_NS
        config = config.model_copy(update={"duration": LENGTH_NS})
    for name, model in config.models.items():
        why = _unfit(model)
        if why is None and stressors and model.engine.startswith("simulated:"):
            why = "--stressors load a GPU, and it has none: give stressors of its device, by --stressor NAME=ENGINE"
        if why is not None:
            raise UsageError(f"{name}: {why}")
    ways = read_option("--share", own["share"], parse_shares)
    if any(way.processes for way in ways):
        read_option("--share processes", config.models, require_apart)
    texts: dict[str, Mapping[str, Any]] = {
        resource: {"engine": f"stressor:{resource}"} for resource in _RESOURCES if stressors
    }
    texts |= own_stressors
    seed = next(iter(config.models.values())).seed
    made = {}
    for place, (name, text) in enumerate(texts.items()):
        with naming(f"--stressor {name}"):
            made[name] = load_config(None, {"seed": seed + len(config.models) + place, **text}).model
    if taken := config.models.keys() & made.keys():
        raise UsageError(f"{min(taken)} is a model and a stressor: give one of them another name")
    if len(config.models) < 2 and not made:
        raise UsageError(
            "interference needs two models, and there is one: give another engine, or --stressors for its fingerprint"
        )
    return Wanted(
        config=config,
        ways=ways,
        levels=read_option("--neighbour", own["neighbour"], _levels),
        load=read_option("--load", own["load"], _load),
        arrivals=arrivals,
        rounds=own["rounds"],
        precision=read_option("--precision", own["precision"], _precision),
        stressors=made,
        longest_ns=longest_ns,
    )


def parse_stressors(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Stressors as --model has models. Raises UsageError."""
    try:
        return parse_models(texts)
    except UsageError as error:
        raise UsageError(str(error).replace("--model", "--stressor")) from None


def named_engines(engines: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Engines by names: those of their files, with a number where a name is taken."""
    named: dict[str, dict[str, Any]] = {}
    for engine in engines:
        first = name = model_name(engine)
        while name in named:
            name = f"{first}-{1 + sum(other.startswith(first) for other in named)}"
        named[name] = {"engine": engine}
    return named


def _unfit(model: Model) -> str | None:
    if model.sms is not None or model.priority is not None:
        key = "priority" if model.sms is None else "sms"
        return f"--share gives the models their shares of the device: leave {key} out"
    if model.requests is not None:
        return "all runs have one duration: leave requests out"
    if model.batcher is not None:
        return "a closed loop fixes the rates, and has no batches to form: leave batcher out"
    if model.requests_per_launch > 1:
        return "each request of an open loop is launched by itself: leave requests_per_launch out"
    if model.load.own_ns is not None:
        return f"its load ({model.load.text}) ends by itself: loop it, or give a rate"
    if not model.load.closed and model.load.mean_rate(SECOND_NS) is None:
        return f"its load ({model.load.text}) has no arrival rate: give a rate, or leave the load out"
    return None


def _share(text: str, most: float) -> str:
    """A share in its normal form, "50%"."""
    share = parse_share(text)
    if not 0 < share <= most:
        raise UsageError(f"'{text}' is not above 0 and up to {100 * most:g}%: write for example 50%")
    return f"{100 * share:.6g}%"


def _load(text: str) -> str:
    return _share(text, 1.0)


def _levels(text: str) -> tuple[str, ...]:
    words = [word.strip() for word in text.split(",")]
    idle = ("0", "0%", "idle")
    try:
        levels = [IDLE if word in idle else word if word == CLOSED else _share(word, _MOST_LEVEL) for word in words]
    except UsageError as error:
        raise UsageError(f"{error}, or several, such as {OPTIONS['neighbour']}") from None
    return tuple(dict.fromkeys(levels))


def _precision(text: str) -> float:
    share = parse_share(text)
    if not 0.001 <= share <= 1:
        raise UsageError(f"'{text}' is not from 0.1% to 100%: write for example 10%")
    return share


def require_cells(result: InterferenceResult) -> bool:
    """Whether any cell can be trusted. Raises EngineError where none was measured."""
    measured = [cell for cell in result.cells if cell.failure is None]
    if not measured:
        raise EngineError(result.cells[0].failure or "no cell was measured")
    return any(cell.valid for cell in measured)
