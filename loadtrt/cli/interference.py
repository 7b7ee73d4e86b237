"""`loadtrt interference`: who slows down whom on one device, and what protects."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from loadtrt.cli.github import require_summary
from loadtrt.cli.options import GroupedCommand, extra, flag, options
from loadtrt.cli.outputs import inputs_of, outputs_of, require_outputs
from loadtrt.errors import EXIT_INTERRUPTED, EXIT_INVALID

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.results.interference_result import InterferenceResult

_ARRIVALS = ("poisson", "constant")  # as sizing/interference_options.py has them, which --help does not import


@click.command(cls=GroupedCommand, short_help="Measure how models slow each other down, and what protects.")
@options(
    "interference",
    choices={"arrivals": _ARRIVALS},
    helps={
        "arrivals": "How requests arrive in open loops.  [default: poisson]",
        "duration": "Measure each run this long.  [default: 5s, or as long as p99's interval takes, up to 60s]",
        "warmup": "Warm up each engine at least this long, and until the GPU's clocks are steady.  [default: 1s]",
        "verify": "Compare outputs under load, beside each neighbour, with those of a quiet run.  [default: on]",
    },
)
@extra(
    ("--model", "models"),
    "Engine",
    "A model with its own options, as YAML names them (repeatable); other options apply to all models. With a rate it "
    "is judged under that load.",
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
    "Ways to share the device: plain streams; priority for the model that is judged; SMs of that model + those of "
    "its neighbour; both of these; a process for each.",
    metavar="streams,priority,sms=32+100,both,processes",
    default="streams",
)
@extra(
    "--rounds",
    "Ending",
    "Maximum number of rounds of each cell; a round is the model alone and beside its neighbour.",
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
    "Your own stressor, written as a model in --model (repeatable).",
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
    each neighbour is then compared with its p99 alone, in rounds: the same requests, a moment apart.
    """
    from loadtrt.asked.model_option import parse_models
    from loadtrt.sizing.interference_options import named_engines, parse_stressors, wanted_interference

    named = named_engines(engines) | parse_models(models)
    wanted = wanted_interference(config, given, named, parse_stressors(own_stressors), stressors=stressors)
    checked = wanted.config
    values = [checked.alone(name).options() for name in checked.models]
    inputs = [name for options_ in values for name in inputs_of(options_)]
    require_outputs(outputs_of(values[0], "a measurement of interference"), [config, *inputs], force=force)
    require_summary(checked.github)
    from loadtrt.cli.delivery import carry_out_and_tell
    from loadtrt.results.interference_result import InterferenceResult
    from loadtrt.sizing.neighbours import Neighbours

    make = partial(Neighbours, wanted)
    return carry_out_and_tell(checked, InterferenceResult, make, _exit_code, resume=resume, force=force)


def _exit_code(result: InterferenceResult) -> int:
    """0 if any cell is valid: the table shows which failed or are INVALID."""
    from loadtrt.sizing.interference_options import require_cells

    if result.outcome == "interrupted":
        return EXIT_INTERRUPTED
    return 0 if require_cells(result) else EXIT_INVALID
