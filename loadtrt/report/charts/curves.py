"""Charts of many runs: what is missed at which rate, what concurrency brings, what throughput costs in latency."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from loadtrt.report.charts.plot import SERIES, Key, Plot
from loadtrt.report.charts.svg import Axis, counts, durations, linear, log_ticks, logarithmic
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.results.capacity_result import Scaling

_CURVE = 120  # points of a drawn law
_BELOW = 30.0  # how far below the allowed share the axis goes on, as a ratio


class Miss(NamedTuple):
    """A trial's share of bad requests, with 95 %. number: in the order in which they were made, from 1. verdict: None
    for undecided, and for a trial that is not counted, which `note` says."""

    number: int
    rate_per_s: float
    share: float
    low: float
    high: float
    verdict: str | None
    confirm: bool
    note: str = ""


class Region(NamedTuple):
    """Where the capacity lies, requests a second."""

    estimate: float | None
    low: float | None
    high: float | None
    feasible_max: float | None
    infeasible_min: float | None


def misses(trials: Sequence[Miss], allowed: float, region: Region, objective: str) -> str:
    """Share of bad requests against the rate, on a logarithmic axis: full marks met the objective, crosses missed it,
    rings did not tell; none bad is drawn at the bottom. allowed: what the objective lets be bad."""
    shares = [share for trial in trials for share in (trial.share, max(trial.low, allowed / _BELOW)) if share > 0]
    low = min([allowed / 3, *(share / 1.6 for share in shares)]) if allowed else 1e-4
    y = shares_axis("bad requests", low, min(max([3 * allowed, 1e-3, *(1.6 * trial.high for trial in trials)]), 1.0))
    rates = [trial.rate_per_s for trial in trials]
    edges = [*rates, *(value for value in region if value is not None)]
    x = _room("requests/s", edges)
    verdicts = {trial.verdict for trial in trials}
    keys = [Key("met", "good", "dot")] if "met" in verdicts else []
    keys += [Key("missed", "bad", "cross")] if "missed" in verdicts else []
    other = "undecided or not counted" if any(trial.note for trial in trials) else "undecided"
    keys += [Key(other, "open hollow", "dot")] if verdicts - {"met", "missed"} else []
    keys += [Key(f"{100 * allowed:g} % allowed", "bad rule")]
    keys += [Key("capacity, 95 %", "span region", "box")] if region.estimate is not None else []
    plot = Plot(x, y, height=290, keys=keys)
    if region.estimate is not None:
        plot.span(_or(region.low, min(edges)), _or(region.high, max(edges)), "region")
        plot.upright(region.estimate, "rule mark")
    if allowed:
        plot.level(allowed, "bad")
    for trial in trials:
        plot.whisker(trial.rate_per_s, trial.low, trial.high, _tone(trial.verdict))
    for trial in trials:
        words = f"{trial.number}{', confirming' if trial.confirm else ''}: {format_count(trial.rate_per_s)}/s"
        words += f", {100 * trial.share:.3g} % bad ({100 * trial.low:.3g} to {100 * trial.high:.3g} %)"
        words += f", {trial.note}" if trial.note else ""
        if trial.verdict == "missed":
            plot.cross(trial.rate_per_s, trial.share, "bad", text=words)
        else:
            met = trial.verdict == "met"
            radius = 5.5 if trial.confirm else 3.8
            plot.dot(trial.rate_per_s, trial.share, _tone(trial.verdict), text=words, hollow=not met, radius=radius)
        plot.tag(trial.rate_per_s, max(trial.share, trial.high), str(trial.number))
    # What met is low and what missed is high, so that neither sign lies on its mark.
    if region.feasible_max is not None:
        plot.edge(region.feasible_max, "good", "✓", upper=True)
    if region.infeasible_min is not None:
        plot.edge(region.infeasible_min, "bad", "✗", upper=False)
    told = "not known" if region.estimate is None else f"about {format_count(region.estimate)} requests/s"
    return plot.svg(f"Bad requests by rate, {objective}", f"{plural(len(trials), 'trial')}; capacity {told}.")


def ladder(measured: Sequence[tuple[int, float]], scaling: Scaling | None) -> str:
    """Throughput of closed loops with N requests in flight, and the law fitted to it."""
    peak, knee = (scaling.peak_in_flight, scaling.knee_in_flight) if scaling is not None else (None, None)
    most = max(number for number, _ in measured)
    far = most * 1.12 + 0.5
    highest = max(rate for _, rate in measured)
    steps = [1 + (far - 1) * step / _CURVE for step in range(_CURVE + 1)]
    drawn = [] if scaling is None else [(number, throughput_at(scaling, number)) for number in steps]
    x = linear("requests in flight", 0, far, most=9, whole=True)
    y = counts("requests/s", max([highest, *(rate for _, rate in drawn)]))
    keys = [Key("measured", "f1", "dot"), *([Key("universal scalability law", "s2")] if drawn else [])]
    keys += [Key("greatest X/R", "s1 ring", "dot")] if any(number == knee for number, _ in measured) else []
    plot = Plot(x, y, keys=keys)
    plot.line(drawn, "s2")
    if peak is not None and peak <= far:
        plot.upright(peak, "rule mark")
        plot.note(peak, 0, f"peak at {peak:.1f}")
    for number, rate in measured:
        if number == knee:
            plot.dot(number, rate, "s1 ring", radius=7)
        plot.dot(number, rate, "f1", text=f"{plural(number, 'request')} in flight: {format_count(rate)}/s")
    return plot.svg("Throughput by requests in flight", f"At most {format_count(highest)} requests/s measured.")


def throughput_at(law: Scaling, number: float) -> float:
    """X(N) of the universal scalability law (results/capacity_result.py)."""
    return law.alpha_per_s * number / (1 + law.sigma * (number - 1) + law.kappa * number * (number - 1))


class Level(NamedTuple):
    """Latencies of a run at a rate, ns."""

    rate_per_s: float
    times: Sequence[float | None]


def latencies(
    levels: Sequence[Level], names: Sequence[str], bounds: Sequence[tuple[str, int]], estimate: float | None
) -> str:
    """Percentiles of latency against the rate. bounds: (name, ns)."""
    ordered = sorted(levels, key=lambda level: level.rate_per_s)
    values = [time for level in ordered for time in level.times if time is not None]
    x = _room("requests/s", [level.rate_per_s for level in ordered] + ([] if estimate is None else [estimate]))
    y = durations("latency", [*values, *(bound for _, bound in bounds)])
    keys = [Key(name, f"s{number}") for number, name in enumerate(names, 1)]
    keys += [Key(name, "bad rule") for name, _ in bounds]
    plot = Plot(x, y, height=290, keys=keys)
    if estimate is not None:
        plot.upright(estimate, "rule mark")
    for number, name in enumerate(names, 1):
        told = [(level.rate_per_s, time) for level in ordered if (time := level.times[number - 1]) is not None]
        plot.line(told, f"s{number}", dots=False)
        for rate, time in told:
            words = f"{format_count(rate)}/s: {name} {format_duration(time)}"
            plot.dot(rate, time, f"f{number}", text=words, radius=2.8)
    for _, bound in bounds:
        plot.level(bound, "bad")
    return plot.svg("Latency by rate", f"{plural(len(ordered), 'trial')} of an open loop.")


class Point(NamedTuple):
    """A run of a sweep. series: which line it is on; tag: its place on it; front: no other beats it in both; valid:
    whether its numbers can be trusted."""

    series: str
    tag: str
    per_s: float
    latency_ns: float
    front: bool
    knee: bool
    valid: bool = True


def tradeoff(points: Sequence[Point], percentile: str, bounds: Sequence[tuple[str, int]]) -> str:
    """Latency against throughput: full marks are on the Pareto front, along which a line goes; crosses are INVALID."""
    x = counts("inferences/s", max(point.per_s for point in points))
    y = durations(f"latency {percentile}", [*(p.latency_ns for p in points), *(bound for _, bound in bounds)])
    series = list(dict.fromkeys(point.series for point in points))
    told = series if 1 < len(series) <= SERIES else []
    keys = [Key(name, f"s{number}") for number, name in enumerate(told, 1)]
    keys += [Key("Pareto front", "front")]
    keys += [Key("knee", "s1 ring", "dot")] if any(point.knee for point in points) else []
    keys += [Key("INVALID", "bad", "cross")] if not all(point.valid for point in points) else []
    keys += [Key(name, "bad rule") for name, _ in bounds]
    plot = Plot(x, y, height=340, keys=keys)
    front = sorted((point.per_s, point.latency_ns) for point in points if point.front)
    if len(front) > 1:
        plot.line(front, "front")
    for number, name in enumerate(series, 1):
        class_ = f"s{number if told else 1}"
        mine = [point for point in points if point.series == name]
        if len(series) <= SERIES:
            plot.line([(point.per_s, point.latency_ns) for point in mine], f"{class_} thin", dots=False)
        for point in mine:
            if point.knee:
                plot.dot(point.per_s, point.latency_ns, "s1 ring", radius=8)
            words = ", ".join(part for part in (name, point.tag) if part)
            words += f": {format_count(point.per_s)} inferences/s, {percentile} {format_duration(point.latency_ns)}"
            if point.valid:
                plot.dot(point.per_s, point.latency_ns, class_.replace("s", "f"), text=words, hollow=not point.front)
            else:
                plot.cross(point.per_s, point.latency_ns, "bad", text=f"{words}, INVALID")
            if point.front or point is mine[-1]:
                plot.tag(point.per_s, point.latency_ns, point.tag)
    for _, bound in bounds:
        plot.level(bound, "bad")
    return plot.svg("Latency against throughput", f"{plural(len(points), 'point')}, {len(front)} on the Pareto front.")


def gains(lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], axis: str) -> str:
    """Inferences a second along an axis of a sweep, a line for each of its other settings."""
    every = [place for _, line in lines[:SERIES] for place in line]
    whole = all(value == round(value) for value, _ in every)
    x = linear(axis, 0, 1.04 * max(value for value, _ in every), most=9, whole=whole)
    y = counts("inferences/s", max(rate for _, rate in every))
    keys = [Key(name, f"s{number}") for number, (name, _) in enumerate(lines[:SERIES], 1)] if len(lines) > 1 else []
    plot = Plot(x, y, height=340, keys=keys)
    for number, (name, line) in enumerate(lines[:SERIES], 1):
        plot.line(sorted(line), f"s{number}", dots=False)
        for value, rate in line:
            words = ", ".join(part for part in (name, f"{axis} {value:g}") if part)
            plot.dot(value, rate, f"f{number}", text=f"{words}: {format_count(rate)} inferences/s", radius=2.8)
    return plot.svg(f"Throughput by {axis}", f"{plural(len(lines), 'line')}.")


class Fleet(NamedTuple):
    """A simulated number of GPUs: a quantile of latency, with 95 %."""

    gpus: int
    value_ns: float
    low_ns: float | None
    high_ns: float | None


def sizes(lines: Sequence[tuple[str, Sequence[Fleet]]], bound: tuple[str, int], quantile: str) -> str:
    """A quantile of latency against the number of GPUs, a line for each way to route."""
    every = [fleet for _, line in lines for fleet in line]
    gpus = [fleet.gpus for fleet in every]
    times = [time for fleet in every for time in fleet[1:] if time is not None]
    x = linear("GPUs", min(gpus) - 0.6, max(gpus) + 0.6, most=9, whole=True)
    y = durations(f"latency {quantile}", [*times, bound[1]])
    keys = [Key(name, f"s{number}") for number, (name, _) in enumerate(lines, 1)]
    plot = Plot(x, y, keys=[*keys, Key("objective", "bad rule")])
    for number, (name, line) in enumerate(lines, 1):
        ordered = sorted((fleet.gpus, fleet.value_ns) for fleet in line)
        plot.line(ordered, f"s{number}", dots=False)
        for fleet in line:
            if fleet.low_ns is not None and fleet.high_ns is not None:
                plot.whisker(fleet.gpus, fleet.low_ns, fleet.high_ns, f"s{number}")
            words = f"{name}, {plural(fleet.gpus, 'GPU')}: {format_duration(fleet.value_ns)}"
            plot.dot(fleet.gpus, fleet.value_ns, f"f{number}", text=words)
    plot.level(bound[1], "bad", bound[0])
    return plot.svg(f"{quantile} by number of GPUs", f"{plural(len(every), 'simulation')}.")


def shares_axis(title: str, low: float, high: float) -> Axis:
    """Shares on a logarithmic axis, in %."""
    return logarithmic(title, low, high, tuple((tick, f"{100 * tick:.3g} %") for tick in log_ticks(low, high, 6)))


def _room(title: str, values: Sequence[float]) -> Axis:
    """From a little below the least to a little above the greatest; from 0 where that is near."""
    low, high = min(values), max(values)
    edge = 0.06 * (high - low) or 0.1 * high or 1.0
    return linear(title, 0.0 if low - edge < 0.35 * high else low - edge, high + edge)


def _tone(verdict: str | None) -> str:
    return {"met": "good", "missed": "bad"}.get(verdict or "", "open")


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
