"""`loadtrt compare`: two files of results side by side, of loadtrt or of trtexec."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from loadtrt.measure.layer_comparison import LayerComparison
    from loadtrt.measure.profile import ProfilePass
    from loadtrt.measure.records import Records
    from loadtrt.measure.result import RunResult

    Side: TypeAlias = RunResult | Records | tuple[ProfilePass, ...]  # Records: trtexec's times

_FILE = click.Path(path_type=Path)


@click.command("compare", short_help="Lay two results side by side.")
@click.argument("a", metavar="A", type=_FILE)
@click.argument("b", metavar="B", type=_FILE)
@click.option("--layer-info-a", type=_FILE, metavar="FILE", help="trtexec's layer information of A's engine.")
@click.option("--layer-info-b", type=_FILE, metavar="FILE", help="trtexec's layer information of B's engine.")
def command(a: Path, b: Path, layer_info_a: Path | None, layer_info_b: Path | None) -> None:
    """Lay A and B side by side: two runs, or two profiles.

    \b
    loadtrt compare before.json after.json                      (of loadtrt run --json)
    loadtrt compare run.json trtexec.times.json                 (of trtexec --exportTimes)
    loadtrt compare fp32.profile.json fp16.profile.json         (of loadtrt profile --json, trtexec --exportProfile)

    A profile of trtexec has only names of layers: with layer information (trtexec --exportLayerInfo) layers are matched
    by what is in them, too. Runs that were profiled are compared layer by layer, too.
    """
    from loadtrt.report.comparison import compare_runs_text
    from loadtrt.report.layer_tables import comparison_text

    first, second = read_side(a, layer_info_a, "--layer-info-a"), read_side(b, layer_info_b, "--layer-info-b")
    texts = []
    if not isinstance(first, tuple) and not isinstance(second, tuple):
        texts.append(compare_runs_text(first, second, str(a), str(b)))
    layers = _passes(first), _passes(second)
    if all(layers):
        texts.append(comparison_text(layers_compared(*layers), str(a), str(b)))
    if not texts:
        raise UsageError(f"{a} is {_word(first)} and {b} is {_word(second)}: give two runs, or two profiles")
    click.echo("\n".join(texts), nl=False)


def read_side(file: Path, layer_info: Path | None = None, option: str = "") -> Side:
    """What a file holds. layer_info, which `option` names, is for profiles of trtexec alone. Raises UsageError."""
    from loadtrt.report.documents import Kind, read_document, read_profile_result, read_run
    from loadtrt.report.trtexec_read import read_profile, read_times

    document = read_document(file)
    if layer_info is not None and document.kind is not Kind.LAYER_TIMES:
        raise UsageError(f"{option} is for {Kind.LAYER_TIMES}, and {file} is {document.kind}: leave it out")
    match document.kind:
        case Kind.RUN:
            return read_run(document)
        case Kind.TIMES:
            return read_times(document)
        case Kind.PROFILE:
            passes = read_profile_result(document).passes
            if not passes:
                raise UsageError(f"{file} is a profile without any pass: it was ended too early; profile again")
            return passes
        case Kind.LAYER_TIMES:
            return (read_profile(document, layer_info),)
        case Kind.LAYERS:
            raise UsageError(f"{file} is {document.kind}, which has no times: give the profile that belongs to it")


def passes_of(side: Side, name: str) -> tuple[ProfilePass, ...]:
    """The passes of a side that was profiled. Raises UsageError for one that was not."""
    passes = _passes(side)
    if not passes:
        raise UsageError(f"{name} is {_word(side)}: give a profile, or a run of `loadtrt run --profile`")
    return passes


def layers_compared(a: tuple[ProfilePass, ...], b: tuple[ProfilePass, ...]) -> LayerComparison:
    """The first pass of A that B has too, in the same mode; else (trtexec does not say which) the first of each."""
    from loadtrt.measure.layer_comparison import compare_passes

    pairs = [(one, other) for one in a for other in b if one.mode == other.mode]
    return compare_passes(*(pairs or [(a[0], b[0])])[0])


def _passes(side: Side) -> tuple[ProfilePass, ...]:
    from loadtrt.measure.records import Records

    if isinstance(side, Records):
        return ()
    if isinstance(side, tuple):
        return side
    return side.profile.passes if side.profile else ()


def _word(side: Side) -> str:
    return "a profile" if isinstance(side, tuple) else "a run that was not profiled"
