"""The two sides of a comparison: runs, starts of runs, profiles, and what trtexec wrote, read from files."""

from __future__ import annotations

import codecs
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, TypeAlias

from loadtrt.errors import UsageError
from loadtrt.printing import utf8_name
from loadtrt.records.records import Records
from loadtrt.report.comparison_sections import side_of
from loadtrt.report.result_files import Kind, ResultFile, one_model, read_file, read_result, read_run
from loadtrt.report.trtexec import read_profile, read_times
from loadtrt.results.profile_result import ProfilePass, ProfileResult
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import RunResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.report.comparison_sections import Side as Run
    from loadtrt.results import Result

Profile: TypeAlias = ProfileResult | ProfilePass  # ProfilePass: trtexec's profile
Side: TypeAlias = RunResult | Records | Profile  # Records: trtexec's times


def sides_of_files(
    files: Sequence[Path | Result], layer_info: Path | None = None, option: str = "", letter: str = ""
) -> dict[str, Side]:
    """What a side's files hold, by name.

    files: results stand for files; they are called by the `letter` of their side.
    layer_info, option: as for `read_side`.

    Raises UsageError, also for a run that is given twice, as if two agreed.
    """
    sides: dict[str, Side] = {}
    for place, file in enumerate(files, 1):
        name = str(file) if isinstance(file, Path) else f"{letter}{place}" if len(files) > 1 else letter
        for part, side in _in_file(name, file, layer_info, option):
            for known, other in sides.items():
                if Path(known).resolve() == Path(part).resolve() or _is_same(side, other):
                    raise UsageError(f"{part} is the same run as {known}: give each run of a side once")
            sides[utf8_name(part)] = side
    return sides


def _in_file(name: str, file: Path | Result, layer_info: Path | None, option: str) -> list[tuple[str, Side]]:
    """What a file holds, by name: each start of a run that was started several times, without those that were stopped.
    Raises UsageError."""
    source = read_file(file) if isinstance(file, Path) else file
    if isinstance(source, ResultFile):
        if source.kind is not Kind.REPEAT or layer_info is not None:
            return [(name, read_side(source, layer_info, option))]
        source = read_result(RepeatResult, source)
    elif layer_info is not None:
        raise UsageError(f"{option} is for {Kind.LAYER_TIMES}, and {name} is a {type(source).__name__}: leave it out")
    match source:
        case RunResult():
            return [(name, one_model(source, name, "give a run of one model"))]
        case ProfileResult():
            return [(name, source)]
        case RepeatResult(runs=runs):
            starts: list[tuple[str, Side]] = [
                (f"{name}:{place}", run) for place, run in enumerate(runs, 1) if run.outcome == "completed"
            ]
            if not starts:
                raise UsageError(f"{name} holds no start that completed: run it again")
            return starts
    raise UsageError(f"{name} is a {type(source).__name__}: give a RunResult, a RepeatResult or a ProfileResult")


def _is_same(one: Side, other: Side) -> bool:
    if isinstance(one, Records) and isinstance(other, Records):
        return one.rows.shape == other.rows.shape and bool((one.rows == other.rows).all())
    return one == other


def runs_in(sides: Mapping[str, Side], wanted: str | None) -> list[Run]:
    """The runs of a side; none for a profile. Raises UsageError if the option `wanted` needs runs."""
    runs = [side_of(name, side) for name, side in sides.items() if isinstance(side, RunResult | Records)]
    other = next((name for name, side in sides.items() if not isinstance(side, RunResult | Records)), None)
    if wanted is not None and other is not None:
        raise UsageError(f"{wanted} compares runs, and {other} is {word_of(sides[other])}: leave it out")
    return runs


def read_side(given: Path | ResultFile, layer_info: Path | None = None, option: str = "") -> Side:
    """The content of a file. layer_info, named by `option`, is for profiles of trtexec alone. Raises UsageError."""
    source = read_file(given) if isinstance(given, Path) else given
    file = source.path
    if layer_info is not None and source.kind is not Kind.LAYER_TIMES:
        raise UsageError(f"{option} is for {Kind.LAYER_TIMES}, and {file} is {source.kind}: leave it out")
    match source.kind:
        case Kind.RUN:
            return read_run(source)
        case Kind.TIMES:
            return read_times(source)
        case Kind.PROFILE:
            result = read_result(ProfileResult, source)
            if not result.passes:
                raise UsageError(f"{file} is a profile without any pass, as it was interrupted: profile again")
            return result
        case Kind.LAYER_TIMES:
            return read_profile(source, layer_info)
    why = {
        Kind.LAYERS: ", which has no times: give the profile of the same engine",
        Kind.SWEEP: ", which holds many runs: give two single runs",
        Kind.CAPACITY: ", which holds many runs: give two single runs",
        Kind.INTERFERENCE: ", which holds many runs: give two single runs",
        Kind.REPEAT: ": give a single run",
        Kind.FLEET: ", which is not a measurement: give two runs",
        Kind.PLACEMENT: ", which is not a measurement: give two runs",
        Kind.COMPARISON: " already: give the two profiles",
        Kind.RUN_COMPARISON: " already: give the runs",
        Kind.SIDECAR: ", which has no times: give a run or a profile of the plan",
    }
    raise UsageError(f"{file} is {source.kind}{why[source.kind]}")


def holds_results(file: Path) -> bool:
    """Whether a file holds results, for `read_side`, and not an engine: by its first bytes, as plans and ONNX models do
    not begin like JSON. A pipe, which can be read only once, counts as results and is left unread."""
    try:
        mode = file.stat().st_mode
        if not S_ISREG(mode):
            return not S_ISDIR(mode)
        with file.open("rb") as opened:
            return opened.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")
    except OSError:
        return False


def profile_of(side: Side, name: str) -> Profile:
    """The profile of a side. Raises UsageError for a side without one."""
    profile = profile_in(side)
    if profile is None:
        raise UsageError(f"{name} is {word_of(side)}: give a profile, or a run of `loadtrt run --profile`")
    return profile


def profile_in(side: Side) -> Profile | None:
    if isinstance(side, Records):
        return None
    if isinstance(side, RunResult):
        return side.model.profile if side.model.profile and side.model.profile.passes else None
    return side


def word_of(side: Side) -> str:
    return "a profile" if profile_in(side) else "a run that was not profiled"
