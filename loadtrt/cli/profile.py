"""`loadtrt profile`: how long each layer takes, in one engine or in two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtrt.asked.fields import option_name
from loadtrt.cli.options import GroupedCommand, extra, flag, options
from loadtrt.cli.outputs import Output, inputs_of, outputs_of, require_outputs
from loadtrt.errors import EXIT_INTERRUPTED, EngineError, UsageError

if TYPE_CHECKING:
    from loadtrt.asked.config import RunConfig
    from loadtrt.cli.voice import Voice
    from loadtrt.results.profile_result import ProfilePass, ProfileResult

_OF_COMPARISONS = {"json", "quiet", "profile"}  # options that apply to a comparison of two files


@click.command(cls=GroupedCommand, short_help="Time each layer of an engine.")
@options("profile", helps={"duration": "Make each pass this long.  [default: 10s, or as --requests takes]"})
@extra("--compare", "Engine", "Two engines, or files of profiles, to compare layer by layer.", nargs=2, metavar="A B")
@flag("--nodes", "Results", "Show the model's nodes that were fused into each layer.")
@extra(
    "--top",
    "Results",
    "Number of layers to show, the longest first.  [default: all]",
    type=click.IntRange(min=1),
    metavar="N",
)
def command(
    config: Path | None, compare: tuple[str, str] | None, nodes: bool, top: int | None, force: bool, **given: Any
) -> int:
    """Time each layer of an engine, alone on its device, with its type and precision from the plan.

    \b
    loadtrt profile --engine googlenet16.trt
    loadtrt profile --compare googlenet32.trt googlenet16.trt
    loadtrt profile --engine zoo:googlenet --nodes               (no GPU needed)

    A profiler waits after every inference, so its times compare layers: for throughput and latency use `loadtrt run`.
    A configuration file of `run` gives the engine and the inputs; its load, lanes and files are ignored.
    """
    if compare is not None:
        if nodes:
            raise UsageError("--nodes is for one engine, and --compare names two: leave one out")
        return _compare(config, compare, given, top, force=force)
    from loadtrt.runs.layers import profile_config

    checked = profile_config(config, given)
    values = checked.options()
    require_outputs(outputs_of(values, "a profile"), [config, *inputs_of(values)], force=force)
    return _one(checked, nodes, top)


def _one(config: RunConfig, nodes: bool, top: int | None) -> int:
    from loadtrt.cli.delivery import Delivery, deliver_exports, json_of, show_beside
    from loadtrt.cli.voice import Voice
    from loadtrt.engines.tensorrt_log import logging_to
    from loadtrt.files import locked
    from loadtrt.report.plain import plain
    from loadtrt.report.profile_sections import profile as sections_of
    from loadtrt.runs.layers import length_of, profile
    from loadtrt.signals import SIGNALS

    delivery, target = Delivery(), config.json_file
    with SIGNALS, locked("--json", target):
        voice = Voice(quiet=config.quiet)
        with logging_to(config.trt_log, voice.insist):
            result, profiled = profile(config, voice, length_of(config), SIGNALS)
        delivery.make(target, lambda: json_of(result))
        if not SIGNALS.hurried():
            deliver_exports(config, result, profiled, delivery)
        if not config.quiet:
            show_beside(target, plain(list(sections_of(result, "", nodes=nodes, top=top))))
    delivery.finish()
    if result.failure is not None:
        raise EngineError(result.failure)
    return EXIT_INTERRUPTED if result.outcome == "interrupted" else 0


def _compare(
    config: Path | None, names: tuple[str, str], given: dict[str, Any], top: int | None, *, force: bool
) -> int:
    """Both sides, each profiled now or read from a file, and the difference."""
    from loadtrt.cli.delivery import Delivery, json_of, show_beside
    from loadtrt.cli.voice import Voice
    from loadtrt.engines.tensorrt_log import logging_to
    from loadtrt.report.layer_comparison_sections import compared_profiles
    from loadtrt.report.plain import plain
    from loadtrt.report.sides import holds_results
    from loadtrt.stats.profiles import compare_profiles

    for name in ("engine", "export_profile", "export_layer_info"):
        if given[name] is not None:
            raise UsageError(f"{option_name(name)} is for one engine, and --compare names two: leave one out")
    for name in names:  # before the other one takes minutes
        if not name.startswith(("zoo:", "simulated:", "stressor:")) and not Path(name).exists():
            raise UsageError(f"--compare {name} does not exist; check the path")
    useless = sorted(key for key, value in given.items() if value is not None and key not in _OF_COMPARISONS)
    if all(holds_results(Path(name)) for name in names) and (useless or config):
        option = option_name(useless[0]) if useless else "--config"
        raise UsageError(f"{option} is for engines, and {' and '.join(names)} are files of results: leave it out")
    target = given["json"]
    outputs = [Output("--json", target, "a comparison"), Output("--trt-log", given["trt_log"], "a log of TensorRT")]
    require_outputs(outputs, [config, *names, *inputs_of(given)], force=force)
    quiet = bool(given["quiet"])
    voice = Voice(quiet=quiet)
    with logging_to(given["trt_log"], voice.insist):
        first, second = (_side(name, config, given, voice) for name in names)
    comparison = compare_profiles(first, second)
    delivery = Delivery()
    delivery.make(target, lambda: json_of(comparison))
    if not quiet:
        show_beside(target, plain(list(compared_profiles(comparison, *names, top=top))))
    delivery.finish()
    return 0


def _side(name: str, config: Path | None, given: dict[str, Any], voice: Voice) -> ProfileResult | ProfilePass:
    """An engine, profiled now, or a file of results."""
    from loadtrt.report.sides import holds_results, profile_of, read_side

    if holds_results(Path(name)):
        return profile_of(read_side(Path(name)), name)
    from loadtrt.runs.layers import length_of, profile, profile_config
    from loadtrt.signals import SIGNALS

    checked = profile_config(config, {**given, "engine": name})
    voice.say(f"profiling {name}")
    with SIGNALS:
        result, _ = profile(checked, voice, length_of(checked), SIGNALS)
    if result.outcome == "interrupted":
        raise KeyboardInterrupt
    if result.failure is not None:
        raise EngineError(result.failure)
    return result
