"""What a comparison says of each number: its ratio B/A, the interval of that, and a verdict; in words and as charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.charts.ratios import Row, ratios
from loadtrt.report.charts.shares import shares
from loadtrt.report.document import Badge, Figure, Tile
from loadtrt.report.formatting import UNKNOWN, between
from loadtrt.stats.measured import RATES
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.comparison_sections import Side
    from loadtrt.report.document import Tone
    from loadtrt.stats.regression import Comparison, Ratio

CHANCE = (
    "Without a threshold, a number is worse or better where its interval lies on one side of 1: of 20 numbers that are "
    "alike, one does so by chance."
)
TONES: dict[str, Tone] = {"regressed": "bad", "not regressed": "good", "worse": "bad", "better": "good"}


def verdict_on(comparison: Comparison, ratio: Ratio) -> Badge:
    """On the threshold of a number; where it has none, by its interval alone. Of requests that came at a rate,
    throughput says nothing of the engine."""
    if not comparison.valid:
        return Badge("not judged", "plain")
    for item in comparison.thresholds:
        metric, _, allowed = item.threshold.partition(" ")
        if metric == ratio.name:
            return Badge(f"{item.verdict} ({allowed})", TONES.get(item.verdict, "open"))
    if comparison.offered and ratio.name in RATES:
        return Badge("the load", "plain")
    if ratio.low is ratio.high is None:
        return Badge(UNKNOWN, "plain")
    above, below = (ratio.low or 0.0) > 1, ratio.high is not None and ratio.high < 1
    if not (above or below):
        return Badge("no difference shown", "plain")
    word = "worse" if above != (ratio.name in RATES) else "better"
    return Badge(word, TONES[word])


def ratio_text(ratio: Ratio, verdict: Badge) -> str:
    """A ratio with its interval and its verdict in one cell."""
    if ratio.ratio is None:
        return UNKNOWN
    interval = interval_text(ratio)
    return f"{ratio.ratio:.3f}" + (f" ({interval}), {verdict.text}" if interval else "")


def ratio_cells(ratio: Ratio) -> tuple[str, str]:
    """A ratio and its interval, each UNKNOWN where it is not known."""
    return UNKNOWN if ratio.ratio is None else f"{ratio.ratio:.3f}", interval_text(ratio) or UNKNOWN


def tile_of(label: str, ratio: Ratio) -> Tile:
    """A ratio for the headline."""
    interval = between(ratio.low, ratio.high, _percent) if interval_text(ratio) else "no interval"
    return Tile(f"{label}, B against A", _percent(ratio.ratio or 0.0), f"95 %: {interval}", detail=True)


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %".replace("-", "−")


def figures(numbers: Sequence[tuple[str, Ratio]], comparison: Comparison, sides: Sequence[Side]) -> Iterator[Figure]:
    """All ratios, and the latencies of single runs of both sides."""
    edges = {item.threshold.partition(" ")[0]: item.threshold.partition(" ")[2] for item in comparison.thresholds}
    rows = []
    for name, ratio in numbers:
        if not ratio.ratio:
            continue
        tone = verdict_on(comparison, ratio).tone
        edge = 1 + float(edges[ratio.name].rstrip("%")) / 100 if ratio.name in edges else None
        rows.append(Row(name, ratio.ratio, ratio.low, ratio.high, f"{ratio.ratio:.3f}", tone, edge))
    if rows:
        chart = ratios("B/A of each number", f"{plural(len(rows), 'ratio')} with 95 % intervals.", "B/A", rows)
        note = "with 95 % intervals" + ("; short line: what a threshold allows" if edges else "")
        yield Figure("B/A", chart, note)
    known = [side.measured for side in sides if {"latency"} <= {*side.measured.metrics} & {*side.measured.histograms}]
    latencies = [(f"{letter} {run.name}", run.histograms["latency"]) for letter, run in zip("AB", known, strict=False)]
    if len(sides) == len(known) == 2 and all(histogram.count for _, histogram in latencies):
        yield Figure("Latency by share of requests", shares(latencies, (), "latency"))


def interval_text(ratio: Ratio) -> str:
    """The interval of B/A, as far as it is known; "" where it is not."""
    return "" if ratio.low is ratio.high is None else between(ratio.low, ratio.high, "{:.3f}".format)
