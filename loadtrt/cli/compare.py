"""`loadtrt compare`: two results side by side, of loadtrt or of trtexec, and whether B regressed."""

from __future__ import annotations

import codecs
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, TypeAlias

import click

from loadtrt.cli.github import GITHUB_HELP, require_summary, tell
from loadtrt.cli.options import FORCE_HELP
from loadtrt.cli.outputs import Output, require_outputs
from loadtrt.errors import EXIT_INVALID, EXIT_MISSED, EXIT_UNDECIDED, UsageError
from loadtrt.printing import utf8_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtrt.records.records import Records
    from loadtrt.report.comparison_sections import Side as Run
    from loadtrt.report.document import Section
    from loadtrt.report.gates import Case
    from loadtrt.report.result_files import ResultFile
    from loadtrt.results.profile_result import ProfilePass, ProfileResult
    from loadtrt.results.run_result import RunResult
    from loadtrt.stats.regression import Comparison

    Profile: TypeAlias = ProfileResult | ProfilePass  # ProfilePass: trtexec's profile
    Side: TypeAlias = RunResult | Records | Profile  # Records: trtexec's times

_FILE = click.Path(path_type=Path)
_LAYER_INFO = "Layer information of {}'s engine, as trtexec --exportLayerInfo writes it."


@click.command("compare", short_help="Compare two results side by side.")
@click.argument("a", metavar="A", type=_FILE, required=False)
@click.argument("b", metavar="B", type=_FILE, required=False)
@click.option("--a", "more_a", metavar="FILE", type=_FILE, multiple=True, help="Another run of side A (repeatable).")
@click.option("--b", "more_b", metavar="FILE", type=_FILE, multiple=True, help="Another run of side B (repeatable).")
@click.option(
    "--fail-if",
    multiple=True,
    metavar="'latency.p99 +5%'",
    help="Exit with 99 if B is worse than A by more than this threshold, and with 98 if undecided (repeatable).",
)
@click.option(
    "-o",
    "--output",
    "pages",
    multiple=True,
    metavar="FILE|-",
    help="Write the comparison as a page (.html), Markdown (.md) or text (.txt); - is Markdown on stdout (repeatable).",
)
@click.option("--json", "json_file", metavar="FILE|-", help="Write the comparison of runs as JSON; - is stdout.")
@click.option("--junit", metavar="FILE", help="Write the verdicts on --fail-if as JUnit XML.")
@click.option("--github", is_flag=True, help=GITHUB_HELP)
@click.option("--layer-info-a", type=_FILE, metavar="FILE", help=_LAYER_INFO.format("A"))
@click.option("--layer-info-b", type=_FILE, metavar="FILE", help=_LAYER_INFO.format("B"))
@click.option("--force", is_flag=True, help=FORCE_HELP)
def command(
    a: Path | None,
    b: Path | None,
    more_a: tuple[Path, ...],
    more_b: tuple[Path, ...],
    fail_if: tuple[str, ...],
    pages: tuple[str, ...],
    json_file: str | None,
    junit: str | None,
    github: bool,
    layer_info_a: Path | None,
    layer_info_b: Path | None,
    force: bool,
) -> int:
    """Compare A and B side by side: two runs, or two profiles.

    \b
    loadtrt compare before.json after.json                      (of loadtrt run --json)
    loadtrt compare run.json trtexec.times.json                 (of trtexec --exportTimes)
    loadtrt compare before.json after.json --fail-if "latency.p99 +5%" --fail-if "throughput -3%"
    loadtrt compare before.json after.json -o compare.html -o compare.md
    loadtrt compare --a a1.json --a a2.json --a a3.json --b b1.json --b b2.json --b b3.json
    loadtrt compare a.json b.json                               (of loadtrt run --repeat: several runs a side, too)
    loadtrt compare fp32.profile.json fp16.profile.json         (of loadtrt profile --json, trtexec --exportProfile)

    Exit codes with --fail-if: 0 not regressed, 99 regressed, 98 undecided, 97 a run is INVALID. Several runs of each
    side measure the variance between runs.

    A profile of trtexec has only the names of layers; --layer-info-a and --layer-info-b match layers by their contents,
    too. Runs with a profile are also compared layer by layer.
    """
    from loadtrt.cli.delivery import Delivery, json_of, show_beside
    from loadtrt.report import FORMATS, chosen_format
    from loadtrt.report.comparison_sections import compared_runs
    from loadtrt.report.gates import comparison_cases
    from loadtrt.report.junit import comparison_junit
    from loadtrt.report.layer_comparison_sections import compared_profiles
    from loadtrt.report.plain import plain
    from loadtrt.stats.profiles import compare_profiles
    from loadtrt.stats.regression import compare, parse_threshold

    files = [[*([] if first is None else [first]), *more] for first, more in ((a, more_a), (b, more_b))]
    if not all(files):
        raise click.UsageError("two sides are needed: give A and B, or --a and --b")
    thresholds = [parse_threshold(text) for text in fail_if]
    if junit is not None and not thresholds:
        raise UsageError("--junit writes verdicts on thresholds: add --fail-if, such as --fail-if 'latency.p99 +5%'")
    renderers = [known for known in FORMATS if known.renderer]
    written = {page: chosen_format(page, among=renderers) for page in pages}
    if len(written) < len(pages) or json_file == "-" in pages:
        raise UsageError("two outputs are the same: give each its own")
    require_summary(github)
    outputs = [Output("--json", json_file, "a comparison"), Output("--junit", junit, "XML")]
    outputs += [Output("-o", page, format_.content) for page, format_ in written.items()]
    require_outputs(outputs, [*files[0], *files[1], layer_info_a, layer_info_b], force=force)
    infos = ((layer_info_a, "--layer-info-a"), (layer_info_b, "--layer-info-b"))
    sides = [_read_all(paths, *info) for paths, info in zip(files, infos, strict=True)]
    several = max(map(len, sides)) > 1
    wanted = "--fail-if" if thresholds else "--json" if json_file else "a side of several files" if several else None
    runs = [_runs(side, wanted) for side in sides]
    code, delivery = 0, Delivery(measured=False)
    cases: list[Case] = []
    document: list[Section] = []
    if all(runs):
        of_a, of_b = runs
        comparison = compare([run.measured for run in of_a], [run.measured for run in of_b], thresholds)
        delivery.make(json_file, lambda: json_of(comparison))
        measured_ns = sum(run.measure_ns for run in (*of_a, *of_b))
        delivery.make(junit, lambda: comparison_junit(comparison, measured_ns))
        cases = list(comparison_cases(comparison))
        document += compared_runs(of_a, of_b, comparison)
        code = _exit_code(comparison)
    (name_a, side_a), (name_b, side_b) = (next(iter(side.items())) for side in sides)
    profiles = _profile(side_a), _profile(side_b)
    if profiles[0] and profiles[1] and not several:
        document += compared_profiles(compare_profiles(profiles[0], profiles[1]), name_a, name_b)
    if not document:
        raise UsageError(f"{name_a} is {_word(side_a)} and {name_b} is {_word(side_b)}: give two runs, or two profiles")
    for page, format_ in written.items():
        delivery.make(page, partial(format_.document, f"loadtrt: {name_a} and {name_b}", document))
    taken = "-" if "-" in pages else json_file
    show_beside(taken, plain(document))
    if github:
        tell(f"loadtrt compare {name_a} {name_b}", cases, document, taken)
    delivery.finish()
    return code


def _read_all(files: Sequence[Path], layer_info: Path | None, option: str) -> dict[str, Side]:
    """The content of a side's files by name. Raises UsageError for a run that is given twice, as if two agreed."""
    sides: dict[str, Side] = {}
    for file in files:
        for name, side in _sides_of(file, layer_info, option):
            for known, other in sides.items():
                if Path(known).resolve() == Path(name).resolve() or _same(side, other):
                    raise UsageError(f"{name} is the same run as {known}: give each run of a side once")
            sides[utf8_name(name)] = side
    return sides


def _sides_of(file: Path, layer_info: Path | None, option: str) -> list[tuple[str, Side]]:
    """What a file holds, by name: each start of a run that was started several times, without those that were stopped.
    Raises UsageError."""
    from loadtrt.report.result_files import Kind, read_file, read_result
    from loadtrt.results.repeat_result import RepeatResult

    source = read_file(file)
    if source.kind is not Kind.REPEAT or layer_info is not None:
        return [(str(file), read_side(source, layer_info, option))]
    runs = enumerate(read_result(RepeatResult, source).runs, 1)
    starts: list[tuple[str, Side]] = [(f"{file}:{place}", run) for place, run in runs if run.outcome == "completed"]
    if not starts:
        raise UsageError(f"{file} holds no start that completed: run it again")
    return starts


def _same(one: Side, other: Side) -> bool:
    from loadtrt.records.records import Records

    if isinstance(one, Records) and isinstance(other, Records):
        return one.rows.shape == other.rows.shape and bool((one.rows == other.rows).all())
    return one == other


def _runs(sides: Mapping[str, Side], wanted: str | None) -> list[Run]:
    """The runs of a side; none for a profile. Raises UsageError if the option `wanted` needs runs."""
    from loadtrt.records.records import Records
    from loadtrt.report.comparison_sections import side_of
    from loadtrt.results.run_result import RunResult

    runs = [side_of(name, side) for name, side in sides.items() if isinstance(side, RunResult | Records)]
    other = next((name for name, side in sides.items() if not isinstance(side, RunResult | Records)), None)
    if wanted is not None and other is not None:
        raise UsageError(f"{wanted} compares runs, and {other} is {_word(sides[other])}: leave it out")
    return runs


def _exit_code(comparison: Comparison) -> int:
    """0 without thresholds. INVALID comes first, as in a run: its numbers show neither a regression nor its absence,
    and no gate passes on them."""
    if not comparison.thresholds:
        return 0
    if not comparison.valid:
        return EXIT_INVALID
    verdicts = {item.verdict for item in comparison.thresholds}
    return EXIT_MISSED if "regressed" in verdicts else EXIT_UNDECIDED if "undecided" in verdicts else 0


def read_side(given: Path | ResultFile, layer_info: Path | None = None, option: str = "") -> Side:
    """The content of a file. layer_info, named by `option`, is for profiles of trtexec alone. Raises UsageError."""
    from loadtrt.report.result_files import Kind, read_file, read_result, read_run
    from loadtrt.report.trtexec import read_profile, read_times
    from loadtrt.results.profile_result import ProfileResult

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
        Kind.REPEAT: ": give a single run",
        Kind.FLEET: ", which is not a measurement: give two runs",
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
    profile = _profile(side)
    if profile is None:
        raise UsageError(f"{name} is {_word(side)}: give a profile, or a run of `loadtrt run --profile`")
    return profile


def _profile(side: Side) -> Profile | None:
    from loadtrt.records.records import Records
    from loadtrt.results.run_result import RunResult

    if isinstance(side, Records):
        return None
    if isinstance(side, RunResult):
        return side.model.profile if side.model.profile and side.model.profile.passes else None
    return side


def _word(side: Side) -> str:
    return "a profile" if _profile(side) else "a run that was not profiled"
