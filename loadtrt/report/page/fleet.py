"""A plan of a fleet as sections: how many GPUs, by each way to route, and how far the model can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.errors import UsageError
from loadtrt.measure.objective import parse_objective
from loadtrt.report.charts.bars import Bar, bars
from loadtrt.report.charts.curves import Fleet, ladder, sizes
from loadtrt.report.page.capacity import joined
from loadtrt.report.page.facts import closing
from loadtrt.report.page.headline import UNKNOWN, between, count_or, time_or, verdict_badge
from loadtrt.report.page.section import Badge, Figure, Name, Section, Table, Tile, Tiles, section, words
from loadtrt.report.page.sweep import joules
from loadtrt.units import format_count, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.measure.fleet_result import Choice, Comparison, FleetResult, Prediction
    from loadtrt.report.page.section import Block, Cell


def fleet(result: FleetResult, file: str, key: str) -> Iterator[Section]:
    """file: what to call it. key: an id that no other result on the page has."""
    title = ("GPUs for ", Name(result.engine.name), f" on {result.engine.device}")
    badges = (Badge("INTERRUPTED", "bad"),) if result.outcome == "interrupted" else ()
    yield Section(title, tuple(_head(result, file)), level=1, badges=badges)
    yield section("How many GPUs", *_choices(result))
    yield section("One GPU", *_gpu(result))
    if result.checks:
        yield section("Predicted and measured", _checks(result))
    yield section("Configuration", *closing(result, file, key))


def _head(result: FleetResult, file: str) -> Iterator[Block]:
    demand = result.demand
    law = f"CV {demand.burstiness:g}" if demand.burstiness is not None else ""
    yield words(
        f"demand {format_count(demand.now_per_s)} requests/s now, {format_count(demand.planned_per_s)} to plan for · "
        + " · ".join(filter(None, (demand.arrivals, law, demand.source)))
    )
    busiest = f" · no GPU busier than {100 * result.max_utilisation:g} %"
    yield words("to hold: ", *joined(result.objectives), busiest)
    yield words(f"loadtrt {result.loadtrt} · {result.started} · ", Name(file), " made from ", *joined(result.sources))
    tiles = []
    for choice in result.choices:
        notes = [f"with {plural(result.spares, 'spare')}"] if result.spares else []
        notes += [f"binding: {choice.binding}"] if choice.binding else []
        tiles.append(Tile(f"GPUs, {choice.routing}", _gpus(choice), ", ".join(notes)))
    if result.direct is not None:
        tiles.append(Tile("GPUs, by measured capacity", str(result.direct.gpus), "random routing, no model"))
    yield Tiles(tuple(tiles))


def _gpus(choice: Choice) -> str:
    if choice.gpus is not None:
        return str(choice.gpus)
    return "infeasible" if choice.infeasible else UNKNOWN if choice.at_least is None else f"≥ {choice.at_least}"


def _choices(result: FleetResult) -> Iterator[Block]:
    yield from _charts(result)
    quantile = _quantile(result)
    rows: list[tuple[Cell, ...]] = []
    for choice in result.choices:
        seen = choice.degraded
        item = seen.objectives[0] if seen is not None and seen.objectives else None
        rows.append(
            (
                choice.routing,
                verdict_badge(seen.verdict) if seen else UNKNOWN,
                _gpus(choice),
                UNKNOWN if seen is None else f"{100 * seen.utilisation:.0f} %",
                time_or(seen.p50_ns if seen else None),
                time_or(item.value_ns if item else None),
                between(item.value_low_ns, item.value_high_ns) if item else UNKNOWN,
                UNKNOWN if choice.estimate is None or choice.estimate.gpus is None else str(choice.estimate.gpus),
                count_or(choice.cost_per_million),
                joules(choice.joules_per_inference),
            )
        )
    header = ("routing", "", "GPUs", "busy", "p50", quantile, "95 %", "by formula", "per million", "J/inference")
    kept = [place for place in range(len(header)) if place < 2 or any(row[place] != UNKNOWN for row in rows)]
    note = "by formula: Allen and Cunneen's GPUs"
    if result.gpu_price is not None:
        note += (
            f"; per million: price of a million inferences, at {result.gpu_price:g} a GPU hour and the demand's mean"
        )
    if result.spares:
        note += f"; busy and times: with {plural(result.spares, 'GPU')} away"
    told = tuple(tuple(row[place] for place in kept) for row in rows)
    yield Table(tuple(header[place] for place in kept), told, words=2, note=note)
    for choice in result.choices:
        yield words(f"{choice.routing}: {choice.reason}")
    for choice in result.choices:
        if choice.tried:
            yield Table(
                ("GPUs", "verdict", "busy", "p50", quantile, "95 %"),
                tuple(_tried(one) for one in choice.tried),
                folded=f"{choice.routing}: {plural(len(choice.tried), 'size')} simulated",
            )
    for note in result.notes:
        yield words(f"note: {note}")


def _tried(one: Prediction) -> tuple[Cell, ...]:
    item = one.objectives[0] if one.objectives else None
    interval = between(item.value_low_ns, item.value_high_ns) if item else UNKNOWN
    busy, value = f"{100 * one.utilisation:.0f} %", time_or(item.value_ns if item else None)
    return (str(one.gpus), verdict_badge(one.verdict), busy, time_or(one.p50_ns), value, interval)


def _quantile(result: FleetResult) -> str:
    return result.objectives[0].partition(".")[2].partition("<")[0].strip() if result.objectives else "quantile"


def _charts(result: FleetResult) -> Iterator[Block]:
    drawn = [
        Bar(choice.routing, choice.gpus, _gpus(choice), f"f{place}") for place, choice in enumerate(result.choices, 1)
    ]
    if any(bar.value for bar in drawn):
        yield Figure("GPUs by routing", bars("GPUs by routing", "The fewest that hold all objectives.", drawn))
    lines = []
    for choice in result.choices:
        line = []
        for one in choice.tried:
            item = one.objectives[0] if one.objectives else None
            if item is not None and item.value_ns is not None:
                line.append(Fleet(one.gpus, item.value_ns, item.value_low_ns, item.value_high_ns))
        if line:
            lines.append((choice.routing, line))
    try:
        bound = parse_objective(result.objectives[0]) if result.objectives else None
    except UsageError:
        bound = None
    if lines and bound is not None:
        chart = sizes(lines, (bound.text, bound.bound_ns), _quantile(result))
        away = ", without the spares" if result.spares else ""
        yield Figure("Latency by number of GPUs", chart, f"simulated, with 95 %{away}")


def _gpu(result: FleetResult) -> Iterator[Block]:
    gpu = result.gpu
    yield words(
        f"{plural(gpu.contexts, 'context')} × {plural(gpu.buffers, 'buffer')} · batch {gpu.batch} · at most "
        f"{format_count(gpu.most_per_s)} requests/s · a request alone takes {time_or(gpu.alone_mean_ns)} "
        f"(CV {gpu.alone_cv:.2g})"
    )
    measured = [(speed.in_flight, speed.requests_per_s) for speed in gpu.speeds if speed.measured]
    if measured:
        yield Figure("Throughput by requests in flight", ladder(measured, gpu.scaling), "as measured")


def _checks(result: FleetResult) -> Table:
    return Table(
        ("load", "arrivals", "quantile", "measured", "95 %", "predicted", "95 %", "error", "intervals meet"),
        tuple(_check(one) for one in result.checks),
        words=3,
    )


def _check(one: Comparison) -> tuple[Cell, ...]:
    load = f"{format_count(one.rate_per_s)}/s" if one.rate_per_s is not None else f"{one.in_flight} in flight"
    return (
        load,
        one.arrivals,
        f"p{100 * one.rank:g}",
        time_or(one.measured_ns),
        between(one.measured_low_ns, one.measured_high_ns),
        time_or(one.predicted_ns) if one.predicted_ns is not None else "overload",
        between(one.predicted_low_ns, one.predicted_high_ns),
        UNKNOWN if one.error is None else f"{100 * one.error:+.0f} %",
        UNKNOWN if one.within is None else "yes" if one.within else "no",
    )
