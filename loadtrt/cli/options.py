"""Options that several commands share, and what they check before any work begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def _named(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """{"data": "16x3x224x224"} of ("data:16x3x224x224",). Names may hold colons: the last one counts."""
    found = {}
    for value in values:
        name, colon, rest = value.rpartition(":")
        if not colon or not name:
            raise click.UsageError(
                f"--{parameter.human_readable_name.replace('_', '-')} wants NAME:VALUE, not '{value}'"
            )
        found[name] = rest
    return found or None


def _shapes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """Several tensors in one option, with commas, as trtexec takes them."""
    return _named(context, parameter, tuple(part for value in values for part in value.split(",")))


def many(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    return values or None


def flag(name: str, off: str, help_: str) -> Callable[[F], F]:
    """A switch with its opposite; None where neither is given, so that a configuration file may decide."""
    return click.option(f"--{name}/--{off}", name.replace("-", "_"), default=None, help=help_)


def stacked(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order in which --help shows them."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def engine_options(*without: str) -> Callable[[F], F]:
    """Which engine, and what of it; without those that a command has its own kind of."""
    options: dict[str, Callable[[F], F]] = {
        "config": click.option(
            "--config", type=click.Path(path_type=Path), help="YAML file of these options; those here win."
        ),
        "engine": click.option(
            "--engine", help="A plan, an .onnx file, zoo:googlenet, or simulated:KEY=VALUE,… (simulated:null)."
        ),
        "on": click.option(
            "--on", type=click.Choice(["auto", "tensorrt", "onnxruntime"]), help="What runs it.  [default: auto]"
        ),
        "module": click.option(
            "--module", metavar="NAME", help="TensorRT module, such as tensorrt_lean; else by the plan."
        ),
        "plugins": click.option(
            "--plugins", multiple=True, callback=many, metavar="FILE", help="Plugin library (repeatable)."
        ),
        "allow_host_code": flag(
            "allow-host-code", "no-allow-host-code", "Let TensorRT run host code that the plan carries."
        ),
        "device": click.option("--device", type=int, help="GPU number.  [default: 0]"),
        "fp16": flag("fp16", "no-fp16", "Plan: check that it computes in FP16. Model: build or convert it so."),
        "batch": click.option(
            "--batch", type=int, help="Size of the inputs' first dimension where the model leaves it open."
        ),
        "shapes": click.option(
            "--shapes", multiple=True, callback=_shapes, metavar="NAME:16x3x224x224", help="Input shapes."
        ),
        "shape_values": click.option(
            "--shape-values", multiple=True, callback=_named, metavar="NAME:1,2", help="Of a shape tensor."
        ),
        "optimization_profile": click.option(
            "--optimization-profile", type=int, help="Optimization profile of the plan.  [default: 0]"
        ),
        "threads_per_context": click.option(
            "--threads-per-context", type=int, help="CPU threads a context.  [default: cores / contexts]"
        ),
    }
    return stacked(*(option for name, option in options.items() if name not in without))


def input_options(command: F) -> F:
    """What requests carry."""
    return stacked(
        click.option("--seed", type=int, help="Of everything random.  [default: 1]"),
        click.option(
            "--inputs", multiple=True, callback=many, metavar="random|zeros|FILE.npz|NAME:FILE", help="Of requests."
        ),
        click.option(
            "--input-range", multiple=True, callback=_named, metavar="NAME:LOW..HIGH", help="Of random values."
        ),
    )(command)


def layer_exports(command: F) -> F:
    """trtexec's files of a profile."""
    return stacked(
        click.option("--export-profile", metavar="FILE", help="Write the layers' times in trtexec's format."),
        click.option("--export-layer-info", metavar="FILE", help="Write the engine inspector's JSON, as trtexec does."),
    )(command)


def require_targets(targets: dict[str, str | None]) -> None:
    """Say now, not after the measurement, that its results cannot be written where the options say. Makes no file:
    there may be no result. --json alone may be "-", stdout. Raises UsageError."""
    taken: dict[str, str] = {}
    for option, name in targets.items():
        if name is None or (name == "-" and option == "--json"):
            continue
        if name == "-":
            raise UsageError(f"{option} -: only --json goes to stdout: name a file")
        _require_writable(option, Path(name))
        other = taken.setdefault(str(Path(name).absolute()), option)
        if other != option and not Path(name).is_char_device():
            raise UsageError(f"{option} and {other} name the same file {name}: give each its own")


def _require_writable(option: str, file: Path) -> None:
    if not file.parent.is_dir():
        raise UsageError(f"{option} {file}: there is no folder {file.parent}")
    if file.is_dir():
        raise UsageError(f"{option} {file} is a folder: name a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"{option} {file} cannot be written: permission denied")
