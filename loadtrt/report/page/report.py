"""Results of all kinds on one page: those that can be compared side by side first, then each by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import loadtrt
from loadtrt.measure.capacity_result import CapacityResult
from loadtrt.measure.fleet_result import FleetResult
from loadtrt.measure.layer_comparison import LayerComparison, compare_profiles
from loadtrt.measure.profile import ProfileResult
from loadtrt.measure.result import RunResult
from loadtrt.measure.sweep_result import SweepResult
from loadtrt.report.page.capacity import capacity
from loadtrt.report.page.fleet import fleet
from loadtrt.report.page.layers import compared, profile
from loadtrt.report.page.markdown import markdown
from loadtrt.report.page.markup import page
from loadtrt.report.page.run import run
from loadtrt.report.page.several import side_by_side
from loadtrt.report.page.sweep import sweep
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.documents import Result
    from loadtrt.report.page.section import Section


@dataclass(frozen=True, slots=True)
class Loaded:
    """A result with what to call it: where it was read from."""

    file: str
    result: Result


def html_text(loaded: Sequence[Loaded]) -> str:
    """All results as one HTML page."""
    return page(title_of(loaded), list(sections(loaded)), f"Made by loadtrt {loadtrt.__version__}.")


def markdown_text(loaded: Sequence[Loaded]) -> str:
    """All results as Markdown."""
    return markdown(list(sections(loaded)))


def title_of(loaded: Sequence[Loaded]) -> str:
    """What the page is called."""
    if len(loaded) > 1:
        return f"loadtrt: {plural(len(loaded), 'result')}"
    match loaded[0].result:
        case RunResult() | FleetResult() | ProfileResult() as result:
            return f"loadtrt: {result.engine.name} on {result.engine.device}"
        case _:
            return f"loadtrt: {loaded[0].file}"


def sections(loaded: Sequence[Loaded]) -> Iterator[Section]:
    """Side by side what there are two or more of, then every result."""
    names = names_of([item.file for item in loaded])
    runs = [(names[item.file], item.result) for item in loaded if isinstance(item.result, RunResult)]
    if len(runs) > 1:
        yield side_by_side(runs)
    profiles = [(names[item.file], found) for item in loaded if (found := _profile(item.result)) is not None]
    if len(profiles) == 2:
        (file_a, a), (file_b, b) = profiles
        yield from compared(compare_profiles(a, b), file_a, file_b)
    for number, item in enumerate(loaded, 1):
        for part in _sections(item, f"result-{number}"):
            yield replace(part, file=names[item.file]) if part.level == 1 and len(loaded) > 1 else part


def names_of(files: Sequence[str]) -> dict[str, str]:
    """What to call each file: its name, with as many folders before it as tell it from the others."""
    parts = {file: PurePath(file).parts for file in files}
    most = max(map(len, parts.values()), default=1)
    for count in range(1, most + 1):
        found = {file: str(PurePath(*each[-count:])) for file, each in parts.items()}
        if len(set(found.values())) == len(parts):
            return found
    return dict(zip(files, files, strict=True))


def _profile(result: Result) -> ProfileResult | None:
    found = result.profile if isinstance(result, RunResult) else result
    return found if isinstance(found, ProfileResult) and found.passes else None


def _sections(item: Loaded, key: str) -> Iterator[Section]:
    match item.result:
        case RunResult() as result:
            yield from run(result, item.file, key)
        case SweepResult() as result:
            yield from sweep(result, item.file, key)
        case CapacityResult() as result:
            yield from capacity(result, item.file, key)
        case FleetResult() as result:
            yield from fleet(result, item.file, key)
        case ProfileResult() as result:
            yield from profile(result, item.file)
        case LayerComparison() as result:
            engines = (result.a.engine, result.b.engine)
            name_a, name_b = (engine.name if engine else letter for engine, letter in zip(engines, "AB", strict=True))
            yield from compared(result, name_a, name_b)
