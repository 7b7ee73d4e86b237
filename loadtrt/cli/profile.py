"""`loadtrt profile`: how long each layer takes, in one engine or in two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadtrt.cli.options import engine_options, flag, input_options, layer_exports, require_writable
from loadtrt.errors import EXIT_INTERRUPTED, EngineError, UsageError

if TYPE_CHECKING:
    from loadtrt.cli.voice import Voice
    from loadtrt.config import RunConfig
    from loadtrt.measure.profile import ProfilePass


@click.command(short_help="Time each layer of an engine.")
@engine_options
@flag("graph", "no-graph", "As a CUDA graph too, not only plainly enqueued.  [default: on]")
@input_options
@click.option("--warmup", metavar="TIME", help="Before anything is timed.  [default: 1s]")
@click.option("--duration", metavar="TIME", help="Of each pass.  [default: 3s, or as --requests takes]")
@click.option("--requests", type=int, help="Inferences in each pass; with --duration too, whichever is later.")
@click.option("--compare", nargs=2, metavar="A B", help="Two engines, or files of profiles, layer by layer.")
@click.option("--nodes", is_flag=True, help="Show the model's nodes that were fused into each layer.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Show the N longest layers alone.")
@click.option("--json", "json_file", metavar="FILE|-", help="Write the whole result there; - is stdout.")
@layer_exports
@flag("quiet", "no-quiet", "No progress and no table.")
def command(config: Path | None, compare: tuple[str, str] | None, nodes: bool, top: int | None, **options: Any) -> int:
    """Time each layer of an engine, alone on its device, and join what the plan tells of it.

    \b
    loadtrt profile --engine googlenet16.trt
    loadtrt profile --compare googlenet32.trt googlenet16.trt
    loadtrt profile --engine zoo:googlenet --nodes               (no GPU needed)

    A profiler waits after every inference, so the times are for comparing layers: take throughput and latency from
    `loadtrt run`. A configuration file of `run` serves; what it says of load and contexts is not used.
    """
    from loadtrt.config import load_config

    options |= {"json": options.pop("json_file"), "profile": True}
    if compare is not None:
        return _compare(config, compare, options, top)
    checked = load_config(config, options)
    for name in ("json", "export_profile", "export_layer_info"):
        require_writable(f"--{name.replace('_', '-')}", options[name])
    return _one(checked, nodes, top)


def _one(config: RunConfig, nodes: bool, top: int | None) -> int:
    from loadtrt.cli.profiling import length_of, profile, write_exports, write_text
    from loadtrt.cli.voice import Voice
    from loadtrt.report.layer_tables import profile_text

    result, profiled, failure = profile(config, Voice(quiet=config.quiet), length_of(config))
    if config.json_file and config.json_file != "-":
        write_text(config.json_file, result.model_dump_json(indent=1) + "\n")
    if not config.quiet:
        click.echo(profile_text(result, nodes=nodes, top=top), nl=False, err=config.json_file == "-")
    if config.json_file == "-":
        write_text("-", result.model_dump_json(indent=1) + "\n")
    write_exports(config, result, profiled)
    if failure is not None:
        raise EngineError(failure)
    return EXIT_INTERRUPTED if profiled.stopped else 0


def _compare(config: Path | None, names: tuple[str, str], options: dict[str, Any], top: int | None) -> int:
    """Both sides, each profiled now or read from a file, and the difference."""
    from loadtrt.cli.compare import layers_compared
    from loadtrt.cli.profiling import write_text
    from loadtrt.cli.voice import Voice
    from loadtrt.report.layer_tables import comparison_text

    for name in ("engine", "export_profile", "export_layer_info"):
        if options[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} is of one engine, and --compare names two: leave one out")
    for name in names:  # before minutes go by with the other one
        if not name.startswith(("zoo:", "simulated:")) and not Path(name).exists():
            raise UsageError(f"--compare {name}: there is no such file: check the path")
    require_writable("--json", options["json"])
    voice = Voice(quiet=bool(options["quiet"]))
    first, second = (_passes(name, config, options, voice) for name in names)
    comparison = layers_compared(first, second)
    text = comparison.model_dump_json(indent=1) + "\n"
    if options["json"] and options["json"] != "-":
        write_text(options["json"], text)
    if not options["quiet"]:
        click.echo(comparison_text(comparison, *names, top=top), nl=False, err=options["json"] == "-")
    if options["json"] == "-":
        write_text("-", text)
    return 0


def _passes(name: str, config: Path | None, options: dict[str, Any], voice: Voice) -> tuple[ProfilePass, ...]:
    """The passes of an engine, profiled now, or of a file of results."""
    from loadtrt.cli.compare import passes_of, read_side

    if _holds_json(Path(name)):
        return passes_of(read_side(Path(name)), name)
    from loadtrt.cli.profiling import length_of, profile
    from loadtrt.config import load_config

    checked = load_config(config, {**options, "engine": name})
    voice.say(f"profiling {name}")
    result, profiled, failure = profile(checked, voice, length_of(checked))
    if profiled.stopped:
        raise KeyboardInterrupt
    if failure is not None:
        raise EngineError(failure)
    return result.passes


def _holds_json(file: Path) -> bool:
    """Told by its first byte: plans and ONNX models begin otherwise."""
    try:
        with file.open("rb") as opened:
            return opened.read(64).lstrip()[:1] in (b"{", b"[")
    except OSError:
        return False
