"""`loadtrt example`: configurations to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from loadtrt.cli.delivery import show_line
from loadtrt.cli.options import FORCE_HELP
from loadtrt.cli.provided import provided, write_provided
from loadtrt.errors import UsageError, nearest
from loadtrt.files import write_file

_SUFFIX = ".yaml"


@click.command("example", short_help="Write a configuration to begin with.")
@click.argument("name", required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="File to write, or -.  [default: NAME.yaml]"
)
@click.option("--force", is_flag=True, help=FORCE_HELP)
def command(name: str | None, output: Path | None, force: bool) -> None:
    """Write the configuration NAME, and print the command that takes it. Without NAME, list what there is."""
    texts = {
        file.removesuffix(_SUFFIX): place.read_text(encoding="utf-8")
        for file, place in provided("configs").items()
        if file.endswith(_SUFFIX)
    }
    if name is None:
        if output is not None:
            raise UsageError(f"-o {output} needs the name of an example: {', '.join(texts)}")
        for each, text in texts.items():
            show_line(f"{each:<{max(map(len, texts))}}  {text.partition(chr(10))[0].removeprefix('# ')}")
        return
    known = name.removesuffix(_SUFFIX)
    if known not in texts:
        hint = nearest(known, texts, f"the examples are {', '.join(texts)}")
        raise UsageError(f"there is no example '{name}': {hint}")
    file = output or Path(f"{known}{_SUFFIX}")
    if str(file) == "-":
        write_file("-", texts[known])
        return
    write_provided({file: texts[known]}, force=force)
    second = texts[known].splitlines()[1]  # names another command than usual, if it is a comment
    command_line = (
        second.removeprefix("#").strip() if second.startswith("#") else f"loadtrt run --config {known}{_SUFFIX}"
    )
    show_line(command_line.replace(f"{known}{_SUFFIX}", shlex.quote(str(file))))
