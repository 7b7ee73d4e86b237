"""A plan of several models as sections: how many GPUs apart and together, and the measurements that allow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.charts.shares import Bar, bars
from loadtrt.report.document import Figure, Name, Section, Table, Tile, Tiles, known_columns, section, words
from loadtrt.report.formatting import UNKNOWN, between, count_or
from loadtrt.report.settings import about, closing
from loadtrt.results.fleet_result import HOURS
from loadtrt.units import format_count, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.report.document import Block, Cell
    from loadtrt.results.placement_result import PlacementResult


def placement(result: PlacementResult, file: str, key: str) -> Iterator[Section]:
    """A plan, the numbers of GPUs first. file, key: as in `sections_of`."""
    device = next(iter(result.models.values())).engine.device
    *before, last = result.models
    names = [piece for name in before for piece in (", ", Name(name))]
    yield Section(
        ("GPUs for ", *names[1:], " and " if before else "", Name(last), f" on {device}"),
        tuple(_head(result, file)),
        level=1,
    )
    numbers = [("apart", result.apart + result.spares), ("together", result.gpus + result.spares)]
    drawn = [Bar(name, float(gpus), str(gpus), f"f{place}") for place, (name, gpus) in enumerate(numbers, 1)]
    chart = Figure("GPUs", bars("GPUs apart and together", "The fewest that hold all objectives.", drawn))
    yield section("How many GPUs", chart, _counts(result), *_remarks(result), bare=True)
    yield section("Together", _together(result))
    yield section("Apart", _apart(result))
    yield section("Measured beside each other", *_measured(result))
    yield section("Notes", *(words("note: ", Name(note)) for note in result.notes), bare=True)
    yield closing(result, file, key)


def _head(result: PlacementResult, file: str) -> Iterator[Block]:
    spare = f" + {plural(result.spares, 'spare')}" if result.spares else ""
    together = f"{plural(result.gpus, 'GPU')}{spare}"
    yield words(
        f"{together}, each model apart"
        if not any(group.shared for group in result.together)
        else f"{together} together, {result.apart}{spare and f' + {result.spares}'} apart"
    )
    for name, model in result.models.items():
        demand = model.demand
        factors = [
            f" + {100 * part:g} % {word}"
            for part, word in ((demand.growth, "growth"), (demand.headroom, "headroom"))
            if part
        ]
        grown = f"{''.join(factors)} = {format_count(demand.planned_per_s)}/s" if factors else ""
        objectives = ", ".join(map(str, model.objectives))
        yield words(Name(name), f": {format_count(demand.now_per_s)}/s{grown} (Poisson), to hold {objectives}")
    yield words(f"no GPU busier than {100 * result.max_utilisation:g} %; each GPU gets requests by random routing")
    sources = [piece for source in result.sources for piece in (", ", Name(source))]
    yield about(result, file, " made from ", *sources[1:])
    tiles = (
        Tile("GPUs together", str(result.gpus + result.spares), _fewer(result.gpus_least, result.gpus), detail=True),
        Tile("GPUs apart", str(result.apart + result.spares), _fewer(result.apart_least, result.apart), detail=True),
    )
    yield Tiles(tiles)


def _fewer(least: int, gpus: int) -> str:
    return "" if least >= gpus else f"{_open(least, gpus)} may be enough"


def _open(least: int, gpus: int) -> str:
    """Fewer GPUs that may be enough."""
    return UNKNOWN if least >= gpus else str(least) if least == gpus - 1 else f"{least}–{gpus - 1}"


def _counts(result: PlacementResult) -> Table:
    header = ("", "GPUs", "open", "a month")
    rows: list[tuple[Cell, ...]] = []
    for name, gpus, least in (
        ("apart", result.apart, result.apart_least),
        ("together", result.gpus, result.gpus_least),
    ):
        whole = gpus + result.spares
        price = UNKNOWN if result.gpu_price is None else format_count(whole * result.gpu_price * HOURS)
        spared = f"{gpus} + {result.spares}" if result.spares else str(gpus)
        rows.append((name, spared, _open(least, gpus), price))
    note = "open: fewer GPUs that may be enough, as far as the intervals of the capacities tell: a longer search would"
    shown = any(row[2] != UNKNOWN for row in rows)
    return Table(*known_columns(header, rows, ("open", "a month"), (UNKNOWN,)), note=note if shown else "")


def _remarks(result: PlacementResult) -> Iterator[Block]:
    yield words(Name(result.reason))
    if result.proven_least < result.gpus:
        less = f"{result.proven_least} to {result.gpus - 1} GPUs"
        yield words(f"the search for fewer was given up: {less} may be enough, too")
    for a, b in result.unmeasured:
        why = " were not both measured beside each other, and are not placed together: measure with 'loadtrt "
        how = "interference', or 'loadtrt capacity --of' for each of them, and add it by --together"
        yield words(Name(a), " and ", Name(b), why + how)


def _together(result: PlacementResult) -> Table:
    """A row for each model on GPUs that are loaded alike."""
    rows: list[tuple[Cell, ...]] = []
    for group in result.together:
        for place, (name, limit) in enumerate(group.limits.items()):
            first = place == 0
            rate = group.rates_per_s[name]
            rows.append(
                (
                    str(group.gpus) if first else "",
                    Name(name),
                    f"{format_count(rate)}/s",
                    f"{format_count(limit.rate_per_s)}/s",
                    f"{100 * group.utilisation * rate / limit.rate_per_s:.0f} %" if first else "",
                    Name(limit.basis),
                )
            )
            if first and group.shared:
                rows[-1] = (*rows[-1][:-1], Name(f"{limit.basis}; {group.shared}"))
    note = (
        "each: requests of the model for each of these GPUs; at most: so many surely meet its objectives there; busy: "
        "of the highest throughputs alone, summed"
    )
    return Table(("GPUs", "", "each", "at most", "busy", ""), tuple(rows), words=2, last=1, note=note)


def _apart(result: PlacementResult) -> Table:
    rows = tuple(
        (
            Name(name),
            Name(model.engine.name),
            f"{model.gpus}",
            f"{format_count(model.limit.rate_per_s)}/s",
            count_or(model.capacity_per_s),
            between(model.low_per_s, model.high_per_s, format_count),
            f"{format_count(model.most_per_s)}/s",
            Name(model.limit.basis),
        )
        for name, model in result.models.items()
    )
    header = ("", "engine", "GPUs", "at most", "capacity", "95 %", "throughput", "")
    note = "throughput: the highest alone, lower end of its interval"
    return Table(header, rows, words=2, last=1, note=note, detail=(1,))


def _measured(result: PlacementResult) -> Iterator[Block]:
    if not result.measured:
        return
    rows = tuple(
        (
            Name(" + ".join(f"{name} {format_count(limit.rate_per_s)}/s" for name, limit in way.limits.items())),
            f"{100 * way.utilisation:.0f} %",
            Name(way.shared),
        )
        for way in result.measured
    )
    note = "rates at which all of them surely meet their objectives on one GPU"
    yield Table(("at most", "busy", ""), rows, last=1, note=note)
