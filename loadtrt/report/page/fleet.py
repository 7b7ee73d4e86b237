"""A plan of a fleet as sections: how many GPUs, by each way to route, and how far the model can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.charts.bars import Bar, bars
from loadtrt.report.charts.curves import Fleet, ladder, sizes
from loadtrt.report.fleet_tables import (
    checks_table,
    choices_note,
    choices_table,
    demand_lines,
    first_share,
    gpu_lines,
    gpus_text,
    lanes_text,
    quantile_of,
    remarks,
    tried_table,
    trust_lines,
)
from loadtrt.report.page.capacity import joined
from loadtrt.report.page.facts import closing
from loadtrt.report.page.headline import outcome_badge
from loadtrt.report.page.section import Figure, Name, Section, Table, Tile, Tiles, section, words
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.measure.fleet_result import FleetResult
    from loadtrt.report.page.section import Block


def fleet(result: FleetResult, file: str, key: str) -> Iterator[Section]:
    """file: what to call it. key: an id that no other result on the page has."""
    title = ("GPUs for ", Name(result.engine.name), f" on {result.engine.device}")
    badges = (outcome_badge(result.outcome),) if result.outcome == "interrupted" else ()
    yield Section(title, tuple(_head(result, file)), level=1, badges=badges)
    yield section("How many GPUs", *_choices(result))
    yield section("One GPU", *_gpu(result))
    checks = [Table(*checks_table(result))] if result.checks else []
    yield section("Predicted and measured", *checks, *map(words, trust_lines(result)))
    yield section("Configuration", *closing(result, file, key))


def _head(result: FleetResult, file: str) -> Iterator[Block]:
    yield from map(words, demand_lines(result))
    yield words(f"loadtrt {result.loadtrt} · {result.started} · ", Name(file), " made from ", *joined(result.sources))
    tiles = []
    for choice in result.choices:
        binding = f"binding: {choice.binding}" if choice.binding else ""
        tiles.append(Tile(f"GPUs, {choice.routing}", gpus_text(choice, result.spares), binding))
    yield Tiles(tuple(tiles))


def _choices(result: FleetResult) -> Iterator[Block]:
    yield from _charts(result)
    if result.choices:
        yield Table(*choices_table(result), note=choices_note(result))
    yield from map(words, remarks(result))
    for choice in result.choices:
        if choice.tried:
            folded = f"{choice.routing}: {plural(len(choice.tried), 'size')} simulated"
            yield Table(*tried_table(result, choice), words=2, folded=folded)


def _charts(result: FleetResult) -> Iterator[Block]:
    drawn = [
        Bar(choice.routing, choice.gpus, gpus_text(choice, result.spares), f"f{place}")
        for place, choice in enumerate(result.choices, 1)
    ]
    if any(bar.value for bar in drawn):
        spared = "with the spares" if result.spares else ""
        yield Figure("GPUs by routing", bars("GPUs by routing", "The fewest that hold all objectives.", drawn), spared)
    lines = []
    for choice in result.choices:
        line = []
        for one in choice.tried:
            item = first_share(one)
            if item is not None and item.value_ns is not None:
                line.append(Fleet(one.gpus, item.value_ns, item.value_low_ns, item.value_high_ns))
        if line:
            lines.append((choice.routing, line))
    bound = result.objectives[0] if result.objectives else None
    if lines and bound is not None:
        chart = sizes(lines, (bound.text, bound.bound_ns), quantile_of(result))
        away = ", without the spares" if result.spares else ""
        yield Figure("Latency by number of GPUs", chart, f"simulated, with 95 %{away}")


def _gpu(result: FleetResult) -> Iterator[Block]:
    yield words(lanes_text(result))
    yield from map(words, gpu_lines(result))
    measured = [(speed.in_flight, speed.requests_per_s) for speed in result.gpu.speeds if speed.measured]
    if measured:
        yield Figure("Throughput by requests in flight", ladder(measured, result.gpu.scaling), "as measured")
