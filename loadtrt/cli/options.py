"""Options of the command line, derived from their declarations (asked/model.py, asked/config.py), and their groups."""

from __future__ import annotations

import re
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, get_origin

import click
from pydantic import BeforeValidator

from loadtrt.asked.declaring import GROUPS, value_type
from loadtrt.asked.fields import option_name, read_option
from loadtrt.asked.reading import FIELDS, SHOWN, keys_for, keys_of
from loadtrt.cli.words import SEVERAL
from loadtrt.errors import UsageError
from loadtrt.printing import shortened
from loadtrt.units import exact_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from click.shell_completion import CompletionItem
    from pydantic.fields import FieldInfo

# Options whose values hold commas: where they take several, each is given by itself.
REPEATED = frozenset({"batcher", "devices"})
FORCE_HELP = "Overwrite files that hold something else."
TRT_LOG_HELP = str(FIELDS["trt_log"].description)
F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")


class GroupedOption(click.Option):
    """An option that knows its heading in --help."""

    def __init__(self, *declarations: Any, group: str, **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose --help shows its options under headings, in the order in which they are used."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        grouped: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                grouped.setdefault(getattr(parameter, "group", "Other"), []).append(record)
        grouped["Other"] = grouped.pop("Other", [])  # last
        for group, records in grouped.items():
            if records:
                with formatter.section(group):
                    formatter.write_dl(records)


def complete_files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What a shell completes where the value may be a file: the names of its files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def extra(name: str | tuple[str, ...], group: str, help_: str, **attributes: Any) -> Callable[[F], F]:
    """An option of one command alone, with its heading and help, which names a default. name: of several, the last is
    the parameter's."""
    names = (name,) if isinstance(name, str) else name
    if re.search("FILE|PLAN|MODEL", attributes.get("metavar") or "") or "--engine" in names:
        attributes.setdefault("shell_complete", complete_files)
    if attributes.get("default") is not None and "[default: " not in help_:
        help_ = f"{help_}  [default: {attributes['default']}]"
    return click.option(*names, cls=GroupedOption, group=group, help=help_, **attributes)


def flag(name: str | tuple[str, ...], group: str, help_: str) -> Callable[[F], F]:
    """An option without a value."""
    return extra(name, group, help_, is_flag=True)


def choice(
    name: str | tuple[str, ...], group: str, help_: str, *words: str, default: str | None = None
) -> Callable[[F], F]:
    """An option whose value is one of these words."""
    return extra(name, group, help_, type=click.Choice(words), default=default)


def options(
    command: str,
    axes: Mapping[str, str] | None = None,
    choices: Mapping[str, tuple[str, ...]] | None = None,
    helps: Mapping[str, str] | None = None,
    *,
    file: bool = True,
) -> Callable[[F], F]:
    """--config, --force and the declared options of a command. Each declared option is None where it is not given, so
    that a file may decide.

    command: name of the command.
    axes: options that take several values there, by key, with what stands for them in --help.
    choices: options that take fewer values there than in `run`, by key.
    helps: texts that differ there, by key, with their defaults.
    file: whether the command takes --config.
    """
    axes, choices, helps = axes or {}, choices or {}, helps or {}

    def add(function: F) -> F:
        function = flag("--force", "Results", FORCE_HELP)(function)
        taken = keys_for(command)
        for key in reversed(FIELDS):
            if key in taken:
                text = helps.get(key) or _help(key, axes.get(key))
                function = _option(key, text, axes.get(key), choices.get(key))(function)
        if "engine" in taken:
            metavar = "[ENGINE]" if command in SEVERAL else "[ENGINE]…"
            function = click.argument("engines", metavar=metavar, nargs=-1, shell_complete=complete_files)(
                _with_positional(command, function)
            )
        if not file:
            return function
        text = "YAML file of these options, or a run.json; options of the command line take precedence."
        return extra("--config", "Engine", text, type=click.Path(path_type=Path), metavar="FILE")(function)

    return add


def _with_positional(name: str, function: F) -> F:
    """The function of a command, with ENGINE, which is written without --engine, as its `engine`; of a command that
    takes several, all as its `engines`."""

    @wraps(function)
    def command(engines: tuple[str, ...], engine: str | None, **given: Any) -> Any:
        several = name not in SEVERAL
        if len(engines) > 1 and not several:
            raise UsageError(f"{engines[0]} and {engines[1]} are two engines: {SEVERAL[name]}")
        for first in engines:
            if engine is not None and not several:
                raise UsageError(f"{first} is an argument too many beside --engine {engine}: leave one out")
            if Path(first).suffix in (".yaml", ".yml", ".json"):
                raise UsageError(f"{first} is not an engine: write --config {first} for a configuration")
        if several:
            return function(engines=(*filter(None, (engine,)), *engines), **given)
        return function(engine=next(iter(engines), engine), **given)

    return cast("F", command)


def _option(key: str, text: str, axis: str | None, choices: tuple[str, ...] | None) -> Callable[[F], F]:
    field, shown = FIELDS[key], SHOWN[key]
    name, kind = option_name(key), value_type(field)
    how: dict[str, Any] = {"metavar": axis or shown.metavar}
    if axis is not None:
        how |= {"multiple": True, "callback": many} if key in REPEATED else {}
        how |= {"is_flag": False, "flag_value": "on"} if kind is bool else {}  # without a value it is on, as everywhere
    elif kind is bool:
        name, how = f"{name}/--no-{name.removeprefix('--')}", {}
    elif get_origin(kind) is Literal:
        how = {"type": click.Choice(choices or get_args(kind))}
    elif get_origin(kind) in (dict, tuple):
        how |= {"multiple": True, "callback": _named if get_origin(kind) is dict else many}
    elif kind in (int, float) and not _reads_text(field):
        how |= {"type": kind}
    return extra((name, key), shown.group, text, default=None, **how)


def _reads_text(field: FieldInfo) -> bool:
    """Whether the value is read from text such as "10s": the command line passes it on as it is."""
    metadata = [*field.metadata]
    for kind in get_args(field.annotation):
        metadata += getattr(kind, "__metadata__", ())
    return any(isinstance(item, BeforeValidator) for item in metadata)


def _help(key: str, axis: str | None = None) -> str:
    several = "" if axis is None else f" Takes several values{' (repeatable)' if key in REPEATED else ''}."
    default = _default(key)
    return f"{FIELDS[key].description}{several}" + (f"  [default: {default}]" if default else "")


def _default(key: str) -> str:
    """The default as a person writes it; "" for none."""
    if told := SHOWN[key].default:
        return told
    field, value = FIELDS[key], FIELDS[key].default
    if value is None or field.is_required() or value in ((), {}):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return exact_duration(value) if value_type(field) is int and _reads_text(field) else str(value)


def _named(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """{"data": "16x3x224x224"} of ("data:16x3x224x224",). Names may hold colons: the last one counts. Labels are
    NAME=VALUE."""
    key = str(parameter.name)
    sign = "=" if key == "label" else ":"
    named = {}
    for part in [part for value in values for part in shape_texts(value)] if key == "shapes" else values:
        name, found, rest = part.partition(sign) if key == "label" else part.rpartition(sign)
        if not found or not name:
            raise click.UsageError(f"{option_name(key)} wants NAME{sign}VALUE, not '{part}'")
        if name in named:
            raise click.UsageError(f"{option_name(key)} is given twice for {shortened(name)}: leave one out")
        named[name] = rest
    return named or None


def shape_texts(value: str) -> list[str]:
    """NAME:16x3x224x224 for each tensor of a --shapes, which may have several, with commas, as trtexec's. Names may be
    in quotes, and sizes have commas and brackets, as in other tools: x:[16, 3] is x:16x3."""
    parts: list[str] = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        if parts and re.fullmatch(r"\d+[\])]?", part):
            parts[-1] += f"x{part}"
        else:
            parts.append(part)
    unquoted = [re.sub(r"^(['\"])(.+)\1:", r"\2:", part) for part in parts]
    return [re.sub(r":[\[(]([\dx]+)[\])]$", r":\1", part) for part in unquoted]


def read_as(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    """The callback of an option whose text `parse` reads; its errors name the option."""

    def read(_: click.Context, parameter: click.Parameter, text: str | None) -> T | None:
        return None if text is None else read_option(parameter.opts[0], text, parse)

    return read


def many(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    return values or None


def table() -> str:
    """All declared options as a table in Markdown, group by group, for the documentation."""
    lines = [
        "# Options",
        "",
        "Made by `make docs` from the declarations in `loadtrt/asked/`. The YAML key of an option is its name without",
        "the leading dashes, with `_` for `-`. A YAML file has at most 1 MiB, 32 levels and 50 000 values, including",
        "those that aliases repeat. The longest TIME is ten years; rates are 1e-9/s to 1e12/s, sizes below 2^63 bytes;",
        "`loadtrt schema config` has the limits of numbers. Give an option once unless it is repeatable. Only the",
        "command line has `run --latency` and `run --repeat` ([measuring](measuring.md)), `run --model` ([several",
        "models](several-models.md)), `run --start-at` ([fleets](fleet.md)), and ENGINE without `--engine`:",
        "`loadtrt run googlenet16.trt`.",
    ]
    for group in GROUPS:
        if keys_of(group):
            lines += ["", f"## {group}", "", "| option | commands | default | |", "|---|---|---|---|"]
        for key, shown in SHOWN.items():
            if shown.group != group:
                continue
            value = f" {shown.metavar}" if shown.metavar else ""
            commands = ", ".join(("run", *sorted(shown.commands)))
            cells = (f"`{option_name(key)}{value}`", commands, _default(key), FIELDS[key].description or "")
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
