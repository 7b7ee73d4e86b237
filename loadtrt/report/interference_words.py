"""Cells of the matrix of interference in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.asked.ways_to_share import words_of
from loadtrt.report.formatting import UNKNOWN, between, percent_text
from loadtrt.results.interference_result import CLOSED, IDLE
from loadtrt.units import format_count

if TYPE_CHECKING:
    from loadtrt.results.interference_result import Cell, PairedRatio


def level_words(level: str) -> str:
    """How a neighbour is loaded, as part of a sentence."""
    words = {IDLE: "idle", CLOSED: "in a closed loop", "own": "under its own load"}
    return words.get(level) or f"at {level.removesuffix('%')} %"


def times_text(ratio: float) -> str:
    """A ratio: "4.10×", "1 220×"."""
    return f"{format_count(ratio)}×" if ratio >= 10 else f"{ratio:.2f}×"


def ratio_text(ratio: PairedRatio | None) -> str:
    """A ratio with its interval: "4.10× (3.80 .. 4.50)"."""
    if ratio is None or ratio.ratio is None:
        return UNKNOWN
    return times_text(ratio.ratio) + (f" ({ends})" if (ends := interval_text(ratio)) != UNKNOWN else "")


def interval_text(ratio: PairedRatio | None) -> str:
    """Its interval."""
    return UNKNOWN if ratio is None else between(ratio.low, ratio.high, lambda end: times_text(end)[:-1])


def lost_text(kept: PairedRatio | None) -> str:
    """The share of throughput that was lost, with its interval: "18 % (16 .. 20 %)"."""
    share, interval = lost_texts(kept)
    return share if interval == UNKNOWN else f"{share} ({interval})"


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
