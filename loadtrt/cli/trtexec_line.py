"""`loadtrt trtexec`: a command line of trtexec, taken over: the lines of loadtrt that it means, and their result."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadtrt.cli.delivery import show_line
from loadtrt.cli.trtexec_meaning import Given, translate
from loadtrt.cli.trtexec_options import TRTEXEC, VERSIONS
from loadtrt.cli.trtexec_values import require_agreement, require_kind
from loadtrt.errors import UsageError, nearest
from loadtrt.files import temporary_folder
from loadtrt.printing import say, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadtrt.cli.trtexec_meaning import Meant

_USUAL = 10  # the version that most published lines are for

_OF_TENSORRT = {
    "graph": ["--no-graph"],
    "wait": ["--wait", "block"],
    "copies": ["--no-copies"],
    "trt_log": ["--trt-log", "-"],
}


@click.command(
    "trtexec",
    short_help="Take a command line of trtexec.",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--like",
    type=click.Choice([str(version) for version in VERSIONS]),
    help="Version of trtexec whose options and defaults apply.  [default: 10, or the one that has these options]",
)
@click.option("--print", "only_print", is_flag=True, help="Print the commands of loadtrt without running them.")
@click.argument("line", metavar="OPTIONS OF TRTEXEC…", nargs=-1, type=click.UNPROCESSED)
def command(like: str | None, only_print: bool, line: tuple[str, ...]) -> int:
    """Translate a command line of trtexec 8, 10 or 11 into commands of loadtrt, print these, and run them.

    \b
    loadtrt trtexec --loadEngine=googlenet.plan --infStreams=4 --useCudaGraph --useSpinWait
    loadtrt trtexec --onnx=googlenet.onnx --saveEngine=googlenet.plan --fp16 --shapes=data:16x3x224x224
    loadtrt trtexec --like 8 --deploy=googlenet.prototxt --output=prob --batch=16 --print

    Lists options without a counterpart, and says where the measurement differs without them. docs/from-trtexec.md has
    a table.
    """
    given = parse(line, None if like is None else int(like))
    if only_print:
        return _show(given, translate(given, None))
    with temporary_folder("loadtrt-trtexec-") as folder:
        meant = translate(given, folder)
        _fit(meant)
        _show(given, meant)
        return _run(meant.commands)


def _fit(meant: Meant) -> None:
    """Leave out of a run what is of TensorRT alone, where a simulated engine or ONNX Runtime will serve."""
    from loadtrt.engines.open import OPTIONS, kind_of

    first = meant.commands[0]
    if first[0] != "run":
        return
    kind = kind_of(first[2])
    for key, words in _OF_TENSORRT.items():
        if words[0] in first and kind not in OPTIONS[key]:
            place = first.index(words[0])
            del first[place : place + len(words)]
            meant.notes.append(f"{' '.join(words)} is left out: it is not for {kind}")


def _show(given: Given, meant: Meant) -> int:
    others = f" (--like {' or '.join(map(str, given.others))} for others)" if given.others else ""
    say(f"read as a line of trtexec {given.like}{others}")
    for note in meant.notes:
        say(note)
    for words in meant.commands:
        show_line(shlex.join(("loadtrt", *words)))
    return 0


def _run(commands: Sequence[Sequence[str]]) -> int:
    """Run the lines one after the other; returns the exit code of the last, or of the first that is not 0."""
    from loadtrt.cli.main import cli

    for words in commands:
        code = cli.main(list(words), prog_name="loadtrt", standalone_mode=False) or 0
        if code:
            return int(code)
    return 0


def parse(line: Sequence[str], like: int | None) -> Given:
    """The options of a command line of trtexec. Raises UsageError for what that version refuses: an option that it does
    not have, one given twice, one without its value; for values that are not of their kind, and for two that contradict
    each other."""
    options: list[tuple[str, str]] = []
    for word in line[1:] if line and Path(line[0]).name == "trtexec" else line:
        written, _, value = word.partition("=")
        name = written.removeprefix("--")
        option = TRTEXEC.get(name) if written.startswith("--") else None
        if option is None:
            known = [f"--{each}" for each in TRTEXEC]
            near = nearest(f"--{name.lstrip('-')}", known, "write its options as --name or --name=value", cutoff=0.75)
            raise UsageError(f"{shortened(word)} is not an option of trtexec: {near}")
        if option.value and not value:
            raise UsageError(f"--{name} has no value: write --{name}={option.value.removesuffix('+')}")
        require_kind(option, value)
        paired = name in ("loadInputs", "loadRefOutputs") and "refPair" in dict(options)
        if not option.repeats and not paired and name in dict(options):
            raise UsageError(f"--{name} is given twice, which trtexec refuses: leave one out")
        options.append((name, value if option.value else ""))
    require_agreement(options)
    return Given(tuple(options), *_versions(dict(options), like))


def _versions(names: Iterable[str], like: int | None) -> tuple[int, tuple[int, ...]]:
    """The version that is meant, of those that have all these options, and the others. Raises UsageError for none."""
    having = [version for version in VERSIONS if all(version in TRTEXEC[name].versions for name in names)]
    if like is None and having:
        first = _USUAL if _USUAL in having else having[-1]
        return first, tuple(version for version in having if version != first)
    if like in having:
        return like, ()
    if like is None:
        told = ", ".join(f"--{name} (of {', '.join(map(str, TRTEXEC[name].versions))})" for name in names)
        raise UsageError(f"no version of trtexec has all of these options: {told}")
    wrong = next(name for name in names if like not in TRTEXEC[name].versions)
    remedy = f"leave it out, or take --like {' or '.join(map(str, TRTEXEC[wrong].versions))}"
    raise UsageError(f"--{wrong} is not an option of trtexec {like}: {remedy}")
