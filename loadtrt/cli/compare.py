"""`loadtrt compare`: two files of results side by side, of loadtrt or of trtexec."""

from __future__ import annotations

import codecs
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, TypeAlias

import click

from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from loadtrt.measure.layer_comparison import LayerComparison
    from loadtrt.measure.profile import ProfilePass, ProfileResult
    from loadtrt.measure.records import Records
    from loadtrt.measure.result import RunResult

    Profile: TypeAlias = ProfileResult | ProfilePass  # ProfilePass: trtexec's profile
    Side: TypeAlias = RunResult | Records | Profile  # Records: trtexec's times

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
    from loadtrt.measure.records import Records
    from loadtrt.measure.result import RunResult
    from loadtrt.report.comparison import compare_runs_text
    from loadtrt.report.layer_tables import comparison_text

    first, second = read_side(a, layer_info_a, "--layer-info-a"), read_side(b, layer_info_b, "--layer-info-b")
    texts = []
    if isinstance(first, RunResult | Records) and isinstance(second, RunResult | Records):
        texts.append(compare_runs_text(first, second, str(a), str(b)))
    profiles = _profile(first), _profile(second)
    if profiles[0] and profiles[1]:
        texts.append(comparison_text(layers_compared(profiles[0], profiles[1]), str(a), str(b)))
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
            result = read_profile_result(document)
            if not result.passes:
                raise UsageError(f"{file} is a profile without any pass: it was ended too early; profile again")
            return result
        case Kind.LAYER_TIMES:
            return read_profile(document, layer_info)
        case Kind.LAYERS:
            raise UsageError(f"{file} is {document.kind}, which has no times: give the profile that belongs to it")
        case Kind.COMPARISON:
            raise UsageError(f"{file} is {document.kind} already: give the two profiles")
        case Kind.SIDECAR:
            raise UsageError(f"{file} is {document.kind}, which has no times: give a run or a profile of the plan")


def holds_results(file: Path) -> bool:
    """Whether `read_side` is to read this, and not an engine to open it. Told by its first bytes, for plans and ONNX
    models begin otherwise than JSON; what can be read but once, such as a pipe, holds results, and is left unread."""
    try:
        mode = file.stat().st_mode
        if not S_ISREG(mode):
            return not S_ISDIR(mode)
        with file.open("rb") as opened:
            return opened.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")
    except OSError:
        return False


def profile_of(side: Side, name: str) -> Profile:
    """The profile of a side that was profiled. Raises UsageError for one that was not."""
    profile = _profile(side)
    if profile is None:
        raise UsageError(f"{name} is {_word(side)}: give a profile, or a run of `loadtrt run --profile`")
    return profile


def layers_compared(a: Profile, b: Profile) -> LayerComparison:
    """The first pass of A that B has too, in the same mode; else (trtexec does not say which) the first of each."""
    from loadtrt.measure.layer_comparison import compare_passes
    from loadtrt.measure.profile import ProfileResult

    passes = [side.passes if isinstance(side, ProfileResult) else (side,) for side in (a, b)]
    pairs = [(one, other) for one in passes[0] for other in passes[1]]
    one, other = next((pair for pair in pairs if pair[0].mode == pair[1].mode), pairs[0])
    result_a, result_b = (side if isinstance(side, ProfileResult) else None for side in (a, b))
    return compare_passes(one, other, result_a, result_b)


def _profile(side: Side) -> Profile | None:
    from loadtrt.measure.records import Records
    from loadtrt.measure.result import RunResult

    if isinstance(side, Records):
        return None
    if isinstance(side, RunResult):
        return side.profile if side.profile and side.profile.passes else None
    return side


def _word(side: Side) -> str:
    return "a profile" if _profile(side) else "a run that was not profiled"
