"""Several runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.charts.bars import Bar, bars
from loadtrt.report.charts.latency import Curve, shares
from loadtrt.report.charts.plot import SERIES
from loadtrt.report.page.facts import told
from loadtrt.report.page.headline import state_badge
from loadtrt.report.page.run import bounds_of, histogram_of
from loadtrt.report.page.section import Figure, Name, Section, Table
from loadtrt.report.text import count_or, time_or
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.measure.result import RunResult
    from loadtrt.report.page.section import Block, Cell

_PERCENTILES = ("p50", "p99", "p99.9")
_MOST_SETTINGS = 6  # columns of what differs
# Where results go and who watches: no part of what was measured.
_OUTSIDE = ("json", "junit", "quiet", "live", "telemetry", "metrics", "export")


def side_by_side(runs: Sequence[tuple[str, RunResult]]) -> Section:
    """What differs in how they were made, and in what came out. runs: (what to call it, result)."""
    return Section((f"{plural(len(runs), 'run')} side by side",), tuple(_blocks(runs)), level=1)


def _blocks(runs: Sequence[tuple[str, RunResult]]) -> Iterator[Block]:
    settings = [settings_of(result) for _, result in runs]
    names = list(dict.fromkeys(name for each in settings for name in each))
    differ = [name for name in names if len({each.get(name, "") for each in settings}) > 1]
    shown = differ[:_MOST_SETTINGS]
    rows = [
        (Name(file), state_badge(result), *(Name(each.get(name, "")) for name in shown), *_numbers(result))
        for (file, result), each in zip(runs, settings, strict=True)
    ]
    header = ("run", "", *shown, "requests/s", "inferences/s", *_PERCENTILES, "mean")
    more = f"they also differ in {', '.join(differ[_MOST_SETTINGS:])}" if len(differ) > _MOST_SETTINGS else ""
    yield Table(header, tuple(rows), words=2 + len(shown), note=more)
    curves = [Curve(file, seen) for file, result in runs if (seen := histogram_of(result, "latency")) is not None]
    bounds = {bound.name: bound._replace(seen=None) for _, result in runs for bound in bounds_of(result, "latency")}
    if curves:
        chart = shares(curves, list(bounds.values()), "latency")
        note = f"the first {SERIES} runs" if len(curves) > SERIES else "of all runs"
        yield Figure("Latency by share of requests", chart, note)
    told = [(file, result.throughput.inferences_per_s) for file, result in runs]
    rates = [Bar(file, rate, count_or(rate), f"f{1 + place % SERIES}") for place, (file, rate) in enumerate(told)]
    yield Figure("Inferences/s", bars("Inferences a second", f"{plural(len(runs), 'run')}.", rates))


def settings_of(result: RunResult) -> dict[str, str]:
    """What runs may differ in, by name: the engine, what was asked for, how it served; "" for what is not set."""
    engine, config = result.engine, result.config
    asked = {name: told(value) for name, value in config.options().items() if name.partition("_")[0] not in _OUTSIDE}
    facts = {
        "engine": engine.name.rpartition("/")[2] if "=" not in engine.name else engine.name,
        "device": engine.device,
        "runtime": f"{engine.flavour} {engine.version}",
        "batch": str(engine.batch),
    }
    # The facts come first, and tell more than what was asked: a device's name, and not its number.
    return {**facts, **asked, **facts, **{name: str(value) for name, value in engine.mode.items()}}


def _numbers(result: RunResult) -> Iterator[Cell]:
    yield count_or(result.throughput.requests_per_s)
    yield count_or(result.throughput.inferences_per_s)
    latency = result.metrics.get("latency")
    for name in _PERCENTILES:
        yield time_or(latency.percentiles_ns.get(name) if latency else None)
    yield time_or(latency.mean_ns if latency else None)
