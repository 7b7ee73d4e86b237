"""`loadtrt example`: configurations to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePath

import click

from loadtrt.cli.delivery import show_line
from loadtrt.cli.options import FORCE_HELP
from loadtrt.cli.provided import provided, write_provided
from loadtrt.errors import UsageError, nearest
from loadtrt.files import write_file


@click.command("example", short_help="Write an example configuration.")
@click.argument(
    "name", required=False, shell_complete=lambda _, __, begun: [n for n in _files() if n.startswith(begun)]
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write, or -.  [default: the example's name]",
)
@click.option("--force", is_flag=True, help=FORCE_HELP)
def command(name: str | None, output: Path | None, force: bool) -> None:
    """Write the example configuration NAME, and print the command that uses it. Without NAME, list the examples."""
    files = _files()
    texts = {known: place.read_text(encoding="utf-8") for known, (_, place) in files.items()}
    if name is None:
        if output is not None:
            raise UsageError(f"-o {output} needs the name of an example: {', '.join(texts)}")
        for each, text in texts.items():
            show_line(f"{each:<{max(map(len, texts))}}  {_comments(text)[0]}")
        return
    known = next((known for known, (file, _) in files.items() if name in (known, file)), None)
    if known is None:
        hint = nearest(name, texts, f"the examples are {', '.join(texts)}")
        raise UsageError(f"there is no example '{name}': {hint}")
    own = files[known][0]
    file = output or Path(own)
    if str(file) == "-":
        write_file("-", texts[known])
        return
    write_provided({file: texts[known]}, force=force)
    _, *commands = _comments(texts[known])
    show_line((commands or [f"loadtrt run --config {own}"])[0].replace(own, shlex.quote(str(file))))


def _files() -> dict[str, tuple[str, Path]]:
    """Each example by its name: the file that is written, and where it is."""
    return {str(PurePath(file).with_suffix("")): (file, place) for file, place in provided("configs").items()}


def _comments(text: str) -> list[str]:
    """What an example is, and the command that takes it, where that is another one than usual: its first comments."""
    lines = [line for line in text.splitlines() if not line.startswith("#!")]
    return [line.removeprefix("#").strip() for line in lines[:2] if line.startswith("# ")]
