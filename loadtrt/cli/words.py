"""Command lines as people write them: options given twice, options in camel case, and options of other tools."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import click

from loadtrt.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FILE = ("--engine", "--loadEngine", "--onnx", "--plan", "--input")  # in place of which some commands take it by itself
# What to do instead of giving several engines to a command.
SEVERAL = {
    "run": "run both at once with --model a=A --model b=B, or each by itself with --json, for 'loadtrt compare'",
    "sweep": "a sweep drives one engine: make a sweep of each",
    "capacity": "a search drives one engine: search for each by itself",
    "profile": "--compare A B profiles two engines side by side",
}


def as_declared(command: click.Command, words: Sequence[str]) -> list[str]:
    """The words of a command line with options as they are declared where they are written in camel case, as trtexec
    has them: --saveEngine=x is --save-engine=x, if the command has no --saveEngine."""
    known = {name for option in _options(command) for name in _names(option)}
    declared: list[str] = []
    for place, word in enumerate(words):
        if word == "--":
            return [*declared, *words[place:]]
        name, equals, value = word.partition("=")
        dashed = _CAMEL.sub("-", name).lower() if name.startswith("--") else name
        declared.append(dashed + equals + value if name not in known and dashed in known else word)
    return declared


def require_once(name: str, command: click.Command, words: Sequence[str], context: click.Context) -> None:
    """Raise UsageError where an option that takes one value is given twice, or a flag and its opposite. The same flag
    twice says the same thing twice, which is harmless."""
    if isinstance(command, click.Group):
        nested = command.get_command(context, words[0]) if words else None
        if nested is not None:
            require_once(words[0], nested, words[1:], context)
        return
    try:
        own = command.context_class(command, parent=context, **command.context_settings)
        *_, given = command.make_parser(own).parse_args(args=list(words))
    except click.ClickException:
        return  # which is raised again where the command line is read
    for option, times in Counter(given).items():
        if times < 2 or not isinstance(option, click.Option) or option.multiple or option.count:
            continue
        if not option.is_flag:
            raise click.UsageError(f"{_name(option)} is given twice: {_instead(name, option)}")
        spelled = [
            next((word for word in words if word in names), "") for names in (option.opts, option.secondary_opts)
        ]
        if all(spelled):
            raise click.UsageError(f"{' and '.join(spelled)} exclude each other: leave one out")


def explained(error: click.NoSuchOption) -> str:
    """The sentence for an option that does not exist: what it is called here, where another tool has it, or else the
    option that was probably meant, if one is near."""
    from loadtrt.cli.other_tools import counterpart

    command = error.ctx.command if error.ctx else None
    options = list(_options(command)) if command else []
    known = [name for option in options for name in option.opts]
    own = [name for option in options for name in _names(option)]
    takes_file = command and any(isinstance(each, click.Argument) for each in command.params) and "--engine" not in own
    if command and takes_file and error.option_name in _FILE:
        by_itself = f"name the file by itself, as 'loadtrt {command.name} FILE'"
        return f"{error.option_name} is not an option of {command.name}: {by_itself}"
    told = counterpart(error.option_name, str(command.name) if command else "", own)
    if told is not None:
        return told
    otherwise = "--help lists the options"
    if error.option_name == "--rate" and "--shared-host" in known:
        otherwise = "capacity finds the rate, from --objective"
    return f"{error.option_name} is not an option: {nearest(error.option_name, known, otherwise, cutoff=0.8)}"


def _instead(command: str, option: click.Option) -> str:
    """What to do instead of giving an option twice."""
    told = SEVERAL.get(command) if option.name == "engine" else None
    if told is None and option.metavar and "," in option.metavar:
        return f"write all its values in one, as {_name(option)} {option.metavar}"
    if told is None and command == "run":
        from loadtrt.sizing.grid import AXES

        if option.name in AXES:
            return f"a run has one; 'loadtrt sweep {_name(option)} …' measures several"
    return told or "it takes one value; leave one out"


def _options(command: click.Command) -> Iterator[click.Option]:
    return (parameter for parameter in command.params if isinstance(parameter, click.Option))


def _names(option: click.Option) -> Iterator[str]:
    yield from (*option.opts, *option.secondary_opts)


def _name(option: click.Option) -> str:
    return max(option.opts, key=len)
