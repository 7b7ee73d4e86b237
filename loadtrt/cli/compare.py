"""`loadtrt compare`: two results side by side, of loadtrt or of trtexec, and whether B regressed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadtrt.cli.github import GITHUB_HELP, require_summary, tell
from loadtrt.cli.options import FORCE_HELP
from loadtrt.cli.outputs import Output, require_outputs
from loadtrt.errors import EXIT_INVALID, EXIT_MISSED, EXIT_UNDECIDED, UsageError

if TYPE_CHECKING:
    from loadtrt.report.document import Section
    from loadtrt.report.gates import Case
    from loadtrt.stats.regression import Comparison

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
    from loadtrt.report.comparison_sections import compared, compared_runs
    from loadtrt.report.gates import comparison_cases
    from loadtrt.report.junit import comparison_junit
    from loadtrt.report.layer_comparison_sections import compared_profiles
    from loadtrt.report.plain import plain
    from loadtrt.report.sides import profile_in, runs_in, sides_of_files, word_of
    from loadtrt.stats.profiles import compare_profiles
    from loadtrt.stats.regression import parse_threshold

    files = [[*([] if first is None else [first]), *more] for first, more in ((a, more_a), (b, more_b))]
    if not all(files):
        raise click.UsageError("two sides are needed: give A and B, or --a and --b")
    thresholds = [parse_threshold(text) for text in fail_if]
    if junit is not None and not thresholds:
        raise UsageError("--junit writes verdicts on thresholds: add --fail-if, such as --fail-if 'latency.p99 +5%'")
    renderers = [known for known in FORMATS if known.renders]
    written = {page: chosen_format(page, among=renderers) for page in pages}
    if len(written) < len(pages) or (json_file == "-" and "-" in pages):
        raise UsageError("two outputs are the same: give each its own")
    require_summary(github)
    outputs = [Output("--json", json_file, "a comparison"), Output("--junit", junit, "XML")]
    outputs += [Output("-o", page, format_.content) for page, format_ in written.items()]
    require_outputs(outputs, [*files[0], *files[1], layer_info_a, layer_info_b], force=force)
    infos = ((layer_info_a, "--layer-info-a"), (layer_info_b, "--layer-info-b"))
    sides = [sides_of_files(paths, *info) for paths, info in zip(files, infos, strict=True)]
    several = max(map(len, sides)) > 1
    wanted = "--fail-if" if thresholds else "--json" if json_file else "a side of several files" if several else None
    runs = [runs_in(side, wanted) for side in sides]
    code, delivery = 0, Delivery(measured=False)
    cases: list[Case] = []
    document: list[Section] = []
    if all(runs):
        of_a, of_b = runs
        comparison = compared(of_a, of_b, thresholds)
        delivery.make(json_file, lambda: json_of(comparison))
        measured_ns = sum(run.measure_ns for run in (*of_a, *of_b))
        delivery.make(junit, lambda: comparison_junit(comparison, measured_ns))
        cases = list(comparison_cases(comparison))
        document += compared_runs(comparison, [*of_a, *of_b])
        code = _exit_code(comparison)
    (name_a, side_a), (name_b, side_b) = (next(iter(side.items())) for side in sides)
    profiles = profile_in(side_a), profile_in(side_b)
    if profiles[0] and profiles[1] and not several:
        document += compared_profiles(compare_profiles(profiles[0], profiles[1]), name_a, name_b)
    if not document:
        raise UsageError(
            f"{name_a} is {word_of(side_a)} and {name_b} is {word_of(side_b)}: give two runs, or two profiles"
        )
    for page, format_ in written.items():
        delivery.make(page, partial(format_.document, f"loadtrt: {name_a} and {name_b}", document))
    taken = "-" if "-" in pages else json_file
    show_beside(taken, plain(document))
    if github:
        tell(f"loadtrt compare {name_a} {name_b}", cases, document, taken)
    delivery.finish()
    return code


def _exit_code(comparison: Comparison) -> int:
    """0 without thresholds. INVALID comes first, as in a run: its numbers show neither a regression nor its absence,
    and no gate passes on them."""
    if not comparison.thresholds:
        return 0
    if not comparison.valid:
        return EXIT_INVALID
    verdicts = {item.verdict for item in comparison.thresholds}
    return EXIT_MISSED if "regressed" in verdicts else EXIT_UNDECIDED if "undecided" in verdicts else 0
