"""Cells of the matrix of interference in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtrt.asked.ways_to_share import PLAIN, words_of
from loadtrt.report.formatting import UNKNOWN, between, percent_text
from loadtrt.results.interference_result import CLOSED, IDLE, OWN
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import SECOND_NS, exact_duration, format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.results.interference_result import Cell, InterferenceResult, PairedRatio

_NOTHING = 0.005  # of the throughput


def level_words(level: str) -> str:
    """How a neighbour is loaded, as part of a sentence."""
    words = {IDLE: "idle", CLOSED: "in a closed loop", OWN: "under its own load"}
    return words.get(level) or f"at {level.removesuffix('%')} %"


def times_text(ratio: float) -> str:
    """A ratio: "4.10×", "1 220×"."""
    return f"{format_count(ratio)}×" if ratio >= 10 else f"{ratio:.2f}×"


def with_interval(number: str, interval: str) -> str:
    """A number with its interval, or with the word that it has none."""
    return f"{number} ({'no interval' if interval == UNKNOWN else interval})"


def ratio_text(ratio: PairedRatio | None) -> str:
    """A ratio with its interval: "4.10× (3.80 .. 4.50)"."""
    if ratio is None or ratio.ratio is None:
        return UNKNOWN
    return with_interval(times_text(ratio.ratio), interval_text(ratio))


def interval_text(ratio: PairedRatio | None) -> str:
    """Its interval."""
    return UNKNOWN if ratio is None else between(ratio.low, ratio.high, lambda end: times_text(end)[:-1])


def lost_text(kept: PairedRatio | None) -> str:
    """The share of throughput that was lost, with its interval: "18 % (16 .. 20 %)"."""
    share, interval = lost_texts(kept)
    return share if share == UNKNOWN else with_interval(share, interval)


def lost_texts(kept: PairedRatio | None) -> tuple[str, str]:
    """The share of throughput that was lost, and its interval."""
    if kept is None or kept.ratio is None:
        return UNKNOWN, UNKNOWN
    low, high = (None if end is None else _lost(end) for end in (kept.high, kept.low))
    return percent_text(_lost(kept.ratio)), between(low, high, percent_text)


def _lost(kept: float) -> float:
    """To a tenth of a per cent, below which it is chance."""
    return round(max(1 - kept, 0.0), 3)


def number_texts(found: PairedRatio | None) -> tuple[str, str]:
    """A number of both models with its interval: ("0.79", "0.77 .. 0.81")."""
    if found is None or found.ratio is None:
        return UNKNOWN, UNKNOWN
    return f"{found.ratio:.2f}", between(found.low, found.high, "{:.2f}".format)


def pair_words(cell: Cell) -> str:
    """ "a beside b at 90 %"."""
    return f"{cell.model} beside {cell.neighbour} {level_words(cell.neighbour_level)}"


def cell_words(cell: Cell, *, outcome: bool = False) -> str:
    """A cell in a line. outcome: with what came of it."""
    text = f"{pair_words(cell)}, {words_of(cell.share)}"
    if not outcome:
        return text
    if cell.failure is not None:
        return f"{text}: {cell.failure}"
    words = [f"p99 {ratio_text(cell.ratio())}"] if cell.rate_per_s is not None else []
    words += [f"{cell.model} loses {lost_text(cell.kept)}"] if cell.rate_per_s is None else []
    words += [] if cell.neighbour_kept is None else [f"{cell.neighbour} loses {lost_text(cell.neighbour_kept)}"]
    words += [f"{cell.model} is overloaded"] if cell.overloaded else []
    words += [f"INVALID: {cell.problems[0]}"] if cell.problems else []
    return f"{text}: {', '.join(words)}"


def whole_seconds(length_ns: float) -> int:
    """A length in ns, rounded up to whole seconds."""
    return math.ceil(length_ns / SECOND_NS) * SECOND_NS


def longer_words(length_ns: float) -> str:
    """What to do where runs are too short."""
    return f"take --duration {exact_duration(whole_seconds(length_ns))}"


def least_length(rate_per_s: float) -> float:
    """How long a run is that has a p99 at this rate, ns."""
    return 1.2 * least_samples(0.99) / rate_per_s * SECOND_NS  # by chance there are fewer


def few_words(rate_per_s: float | None, length_ns: int) -> str:
    """Why a run of this length has no p99 at this rate, and how long one is that has; "" where it has one."""
    least, expected = least_samples(0.99), (rate_per_s or math.inf) * length_ns / SECOND_NS
    if rate_per_s is None or expected >= least:
        return ""
    remedy = longer_words(least_length(rate_per_s))
    return f"p99 takes {least} requests, and a run has about {expected:.0f}: {remedy}"


def open_cells(result: InterferenceResult) -> list[Cell]:
    """The cells that were measured whole, beside a neighbour at a rate: those that a service has."""
    good = [cell for cell in result.matrix if cell.valid and cell.ratio() is not None and cell.neighbour_level != IDLE]
    return [cell for cell in good if cell.neighbour_level != CLOSED] or good


def worst_of(cells: Sequence[Cell]) -> Cell | None:
    """The one whose p99 rises most; of those that are overloaded without end any."""
    return max(cells, key=lambda cell: (cell.overloaded, _ratio(cell)), default=None)


def _ratio(cell: Cell) -> float:
    ratio = cell.ratio()
    return 0.0 if ratio is None else ratio.ratio or 0.0


def headline(result: InterferenceResult) -> str | None:
    """The worst pair in a sentence: its p99 on plain streams, and with the way that protects best."""
    cells = open_cells(result)
    first = PLAIN if any(cell.share == PLAIN for cell in cells) else next((cell.share for cell in cells), PLAIN)
    plain = [cell for cell in cells if cell.share == first]
    worst = worst_of([cell for cell in plain if _risen(cell)])
    if worst is None:
        most, sure = worst_of(plain), all((ratio := cell.ratio()) and ratio.high is not None for cell in plain)
        rises = "no p99 rises" if sure else "no p99 is known to rise"
        return None if most is None else f"{rises}: the highest {_is(most)}, {cell_words(most)}"
    beside = f"beside {worst.neighbour} {level_words(worst.neighbour_level)} {words_of(first)}"
    text = f"{beside}, {worst.model}'s p99 {_is(worst)}"
    same = (worst.model, worst.neighbour, worst.neighbour_level)
    others = [
        cell for cell in cells if cell.share != first and (cell.model, cell.neighbour, cell.neighbour_level) == same
    ]
    best = min(others, key=lambda cell: (cell.overloaded, _ratio(cell)), default=None)
    return text if best is None else f"{text}; {words_of(best.share)} it {_is(best)}, {_costs(best, worst)}"


def _risen(cell: Cell) -> bool:
    """Whether p99 rises, as far as its interval tells."""
    ratio = cell.ratio()
    return cell.overloaded or (ratio is not None and (ratio.low or 0.0) > 1)


def p99_text(cell: Cell) -> str:
    """p99 beside over alone. What is overloaded has the p99 of the length of the run."""
    return "grows without end" if cell.overloaded else ratio_text(cell.ratio())


def _is(cell: Cell) -> str:
    """The same as the end of a sentence about p99."""
    return p99_text(cell) if cell.overloaded else f"is {p99_text(cell)} that alone"


def _costs(cell: Cell, plain: Cell) -> str:
    """What the neighbour loses. plain: the cell of the same pair and load without protection."""
    what = f"{lost_text(cell.neighbour_kept)} of its" if _loses(cell) else "no"
    beside = f" (it loses {lost_text(plain.neighbour_kept)} {words_of(plain.share)})" if _loses(plain) else ""
    return f"which costs {cell.neighbour} {what} throughput{beside}"


def _loses(cell: Cell) -> bool:
    """Whether the neighbour loses throughput, as far as the interval tells."""
    kept = cell.neighbour_kept
    return kept is not None and kept.ratio is not None and 1 - kept.ratio >= _NOTHING and (kept.high or 0.0) < 1
