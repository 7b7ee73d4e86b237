"""`loadtrt interference`: who slows down whom on one device, and what protects."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from loadtrt.asked.fields import read_option
from loadtrt.cli.options import GroupedCommand, extra, flag, options
from loadtrt.cli.outputs import inputs_of, outputs_of, require_outputs
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID, EngineError, UsageError
from loadtrt.units import SECOND_NS, parse_share

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.results.interference_result import InterferenceResult
    from loadtrt.sizing.cells import Wanted

_LENGTH_NS = 5 * SECOND_NS
_ARRIVALS = ("poisson", "constant")
_RESOURCES = ("dram", "pcie", "sm", "l2")
_MOST_LEVEL = 2.0


@click.command(cls=GroupedCommand, short_help="Measure how models slow each other down, and what protects.")
@options(
    "interference",
    choices={"arrivals": _ARRIVALS},
    helps={
        "arrivals": "How requests arrive in open loops.  [default: poisson]",
        "duration": "Measure this long, each run.  [default: 5s]",
        "warmup": "Warm up each engine at least this long, and until the GPU's clocks are steady.  [default: 1s]",
        "verify": "Compare outputs under load, beside each neighbour, with those of a quiet run.  [default: on]",
    },
)
@extra(
    ("--model", "models"),
    "Engine",
    "A model with its own options, as YAML names them (repeatable); options given apart are of all models. With a rate "
    "it is judged under that load.",
    multiple=True,
    metavar="NAME=ENGINE,KEY=VALUE,…",
)
@extra(
    "--load",
    "Load",
    "Load of the model that is judged: a share of its throughput in a closed loop alone.",
    metavar="50%",
    default="50%",
)
@extra(
    "--neighbour",
    "Load",
    "Loads of the neighbour: shares of its throughput in a closed loop alone, 0 for an idle one, or closed.",
    metavar="0,50%,90%,closed",
    default="0,50%,90%,closed",
)
@extra(
    "--share",
    "Engine",
    "Ways to share the device: plain streams; priority for the model that is judged; SMs of it + its neighbour; both.",
    metavar="streams,priority,sms=32+100,both",
    default="streams",
)
@extra(
    "--rounds",
    "Ending",
    "Rounds of each cell at most; each is the model alone and beside its neighbour.",
    type=click.IntRange(1, 100),
    metavar="N",
    default=5,
)
@extra(
    "--precision",
    "Ending",
    "End the rounds of a cell once the ratio of p99 is known within this share.",
    metavar="10%",
    default="10%",
)
@flag(
    "--stressors",
    "Engine",
    "Measure each model beside stressors of memory bandwidth, copies, SM time and L2, too, and predict the matrix.  "
    "[default: off]",
)
@extra(
    ("--stressor", "own_stressors"),
    "Engine",
    "A stressor of your own, as --model has models (repeatable).",
    multiple=True,
    metavar="NAME=ENGINE,KEY=VALUE,…",
)
@flag("--resume", "Results", "Continue the unfinished measurement in the file of --json.")
def command(
    config: Path | None,
    engines: tuple[str, ...],
    models: tuple[str, ...],
    own_stressors: tuple[str, ...],
    stressors: bool,
    resume: bool,
    force: bool,
    **given: Any,
) -> int:
    """Measure how models on one device slow each other down, at equal offered load, and what protects them.

    \b
    loadtrt interference detector.plan classifier.plan
    loadtrt interference a.plan b.plan --share streams,priority,sms=32+100,both --json pair.json
    loadtrt interference --model a=a.plan,rate=300/s --model b=b.plan,contexts=4 --neighbour 50%,closed
    loadtrt interference a.plan --stressors                                      (its fingerprint: four numbers)
    loadtrt interference googlenet.onnx resnet.onnx --threads-per-context 1      (no GPU needed)

    Each model is first alone in a closed loop, which fixes the arrival rates of all cells. The p99 of each model beside
    each other is then compared with its p99 alone, in rounds, a moment apart and of the same requests.
    """
    wanted = _wanted(config, engines, models, own_stressors, given, stressors=stressors)
    checked = wanted.config
    values = [checked.alone(name).options() for name in checked.models]
    inputs = [name for options_ in values for name in inputs_of(options_)]
    require_outputs(outputs_of(values[0], "a measurement of interference"), [config, *inputs], force=force)
    from loadtrt.cli.delivery import carried_out, say_verdict
    from loadtrt.results.interference_result import InterferenceResult
    from loadtrt.sizing.neighbours import Neighbours

    make = partial(Neighbours, wanted)
    result = carried_out(checked, InterferenceResult, make, resume=resume, force=force)
    return say_verdict(result, _exit_code(result), quiet=checked.quiet)


def _wanted(
    file: Path | None,
    engines: tuple[str, ...],
    models: tuple[str, ...],
    own_stressors: tuple[str, ...],
    given: dict[str, Any],
    *,
    stressors: bool,
) -> Wanted:
    from loadtrt.asked.model_option import parse_models
    from loadtrt.asked.reading import load_config
    from loadtrt.asked.ways_to_share import parse_shares
    from loadtrt.sizing.cells import Wanted

    own = {name: given.pop(name) for name in ("load", "neighbour", "share", "rounds", "precision")}
    arrivals = given.pop("arrivals") or _ARRIVALS[0]
    given["models"] = _named(engines) | parse_models(models)
    given["verify"] = given["verify"] is not False
    config = load_config(file, given, without={"profile"}, several=True)
    if config.duration is None:
        config = config.model_copy(update={"duration": _LENGTH_NS})
    _require(config)
    texts = {resource: {"engine": f"stressor:{resource}"} for resource in _RESOURCES if stressors}
    texts |= _stressors(own_stressors)
    seed = next(iter(config.models.values())).seed
    made = {
        name: load_config(None, {"seed": seed + len(config.models) + place, **text}).model
        for place, (name, text) in enumerate(texts.items())
    }
    if taken := config.models.keys() & made.keys():
        raise UsageError(f"{min(taken)} is a model and a stressor: give one of them another name")
    if len(config.models) < 2 and not made:
        raise UsageError(
            "interference is between models, and there is one: give another engine, or --stressors for its fingerprint"
        )
    return Wanted(
        config=config,
        ways=read_option("--share", own["share"], parse_shares),
        levels=read_option("--neighbour", own["neighbour"], _levels),
        load=read_option("--load", own["load"], _load),
        arrivals=arrivals,
        rounds=own["rounds"],
        precision=read_option("--precision", own["precision"], _precision),
        stressors=made,
    )


def _stressors(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    from loadtrt.asked.model_option import parse_models

    try:
        return parse_models(texts)
    except UsageError as error:
        raise UsageError(str(error).replace("--model", "--stressor")) from None


def _named(engines: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Engines by names: those of their files, with a number where a name is taken."""
    from loadtrt.asked.config import model_name

    named: dict[str, dict[str, Any]] = {}
    for engine in engines:
        first = name = model_name(engine)
        while name in named:
            name = f"{first}-{1 + sum(other.startswith(first) for other in named)}"
        named[name] = {"engine": engine}
    return named


def _require(config: RunConfig) -> None:
    """Refuse what has no closed loop, or a length of its own. Raises UsageError."""
    for name, model in config.models.items():
        why = _unfit(model)
        if why is not None:
            raise UsageError(f"{name}: {why}")


def _unfit(model: Model) -> str | None:
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
    from loadtrt.results.interference_result import CLOSED, IDLE

    words = [word.strip() for word in text.split(",")]
    idle = ("0", "0%", "idle")
    levels = [IDLE if word in idle else word if word == CLOSED else _share(word, _MOST_LEVEL) for word in words]
    return tuple(dict.fromkeys(levels))


def _precision(text: str) -> float:
    share = parse_share(text)
    if not 0.001 <= share <= 1:
        raise UsageError(f"'{text}' is not from 0.1% to 100%: write for example 10%")
    return share


def _exit_code(result: InterferenceResult) -> int:
    """0 if any cell is valid: the table shows which failed or are INVALID."""
    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    measured = [cell for cell in result.cells if cell.failure is None]
    if not measured:
        raise EngineError(result.cells[0].failure or "no cell was measured")
    return 0 if any(cell.valid for cell in measured) else EXIT_INVALID
