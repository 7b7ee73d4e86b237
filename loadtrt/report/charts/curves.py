"""Charts of many runs: what is missed at which rate, what concurrency brings, what throughput costs in latency."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from loadtrt.report.charts.plot import SERIES, Key, Plot
from loadtrt.report.charts.svg import Axis, counts, durations, linear, log_ticks, logarithmic
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.objective import Objective
    from loadtrt.results.capacity_result import ObjectiveCapacity, Scaling
    from loadtrt.results.run_result import ObjectiveShare

_CURVE = 120  # points of a drawn law
_BELOW = 30.0  # how far below the allowed share the axis goes on, as a ratio


class Miss(NamedTuple):
    """A trial's share of bad requests, with 95 %.

    number: in the order in which they were made, from 1.
    verdict: None for undecided, and for a trial that is not counted, which `note` says.
    """

    number: int
    rate_per_s: float
    share: float
    low: float
    high: float
    verdict: str | None
    confirm: bool
    note: str = ""


def misses(
    trials: Sequence[Miss], capacity: ObjectiveCapacity, feasible_max: float | None, infeasible_min: float | None
) -> str:
    """Share of bad requests against the rate, on a logarithmic axis: full marks met the objective, crosses missed it,
    rings did not tell; none bad is drawn at the bottom. The last three: where the capacity lies, requests a second."""
    estimate, objective = capacity.rate_per_s, capacity.objective
    allowed = round(1 - objective.rank, 9)
    shares = [share for trial in trials for share in (trial.share, max(trial.low, allowed / _BELOW)) if share > 0]
    low = min([allowed / 3, *(share / 1.6 for share in shares)]) if allowed else 1e-4
    high = min(max([3 * allowed, 1e-3, *(1.6 * trial.high for trial in trials)]), 1.0)
    y = logarithmic("bad requests", low, high, tuple((tick, f"{100 * tick:.3g} %") for tick in log_ticks(low, high, 6)))
    known = (estimate, capacity.low_per_s, capacity.high_per_s, feasible_max, infeasible_min)
    edges = [*(trial.rate_per_s for trial in trials), *(rate for rate in known if rate is not None)]
    x = _room("requests/s", edges)
    verdicts = {trial.verdict for trial in trials}
    keys = [Key("met", "good", "dot")] if "met" in verdicts else []
    keys += [Key("missed", "bad", "cross")] if "missed" in verdicts else []
    other = "undecided or not counted" if any(trial.note for trial in trials) else "undecided"
    keys += [Key(other, "open hollow", "dot")] if verdicts - {"met", "missed"} else []
    keys += [Key(f"{100 * allowed:g} % allowed", "bad rule")]
    keys += [Key("capacity, 95 %", "span region", "box")] if estimate is not None else []
    plot = Plot(x, y, height=290, keys=keys)
    if estimate is not None:
        left = min(edges) if capacity.low_per_s is None else capacity.low_per_s
        right = max(edges) if capacity.high_per_s is None else capacity.high_per_s
        plot.span(left, right, "region")
        plot.upright(estimate, "rule mark")
    if allowed:
        plot.level(allowed, "bad")
    for trial in trials:
        plot.whisker(trial.rate_per_s, trial.low, trial.high, _tone(trial.verdict))
    for trial in trials:
        words = f"{trial.number}{', confirming' if trial.confirm else ''}: {format_count(trial.rate_per_s)}/s"
        words += f", {100 * trial.share:.3g} % bad ({100 * trial.low:.3g} to {100 * trial.high:.3g} %)"
        words += f", {trial.note}" if trial.note else ""
        if trial.verdict == "missed":
            plot.cross(trial.rate_per_s, trial.share, words)
        else:
            met = trial.verdict == "met"
            radius = 5.5 if trial.confirm else 3.8
            plot.dot(trial.rate_per_s, trial.share, _tone(trial.verdict), text=words, hollow=not met, radius=radius)
        plot.tag(trial.rate_per_s, max(trial.share, trial.high), str(trial.number))
    # What met is low and what missed is high, so that neither sign lies on its mark.
    if feasible_max is not None:
        plot.edge(feasible_max, "good", "✓", upper=True)
    if infeasible_min is not None:
        plot.edge(infeasible_min, "bad", "✗", upper=False)
    told = "not known" if estimate is None else f"about {format_count(estimate)} requests/s"
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


def latencies(
    trials: Sequence[tuple[float, Sequence[float | None]]],
    names: Sequence[str],
    bounds: Sequence[Objective],
    estimate: float | None,
) -> str:
    """Percentiles of latency against the rate. trials: the rate of each, and the percentiles of these names, ns."""
    ordered = sorted(trials, key=lambda trial: trial[0])
    values = [time for _, times in ordered for time in times if time is not None]
    x = _room("requests/s", [rate for rate, _ in ordered] + ([] if estimate is None else [estimate]))
    y = durations("latency", [*values, *(bound.bound_ns for bound in bounds)])
    drawn = [any(times[place] is not None for _, times in ordered) for place in range(len(names))]
    keys = [Key(name, f"s{number}") for number, name in enumerate(names, 1) if drawn[number - 1]]
    keys += [Key(bound.text, "bad rule") for bound in bounds]
    plot = Plot(x, y, height=290, keys=keys)
    if estimate is not None:
        plot.upright(estimate, "rule mark")
    for number, name in enumerate(names, 1):
        told = [(rate, time) for rate, times in ordered if (time := times[number - 1]) is not None]
        plot.line(told, f"s{number}", dots=False)
        for rate, time in told:
            words = f"{format_count(rate)}/s: {name} {format_duration(time)}"
            plot.dot(rate, time, f"f{number}", text=words, radius=2.8)
    for bound in bounds:
        plot.level(bound.bound_ns, "bad")
    return plot.svg("Latency by rate", f"{plural(len(ordered), 'trial')} of an open loop.")


class Point(NamedTuple):
    """A run of a sweep.

    series: which line it is on.
    tag: its place on the line.
    front: whether no other beats it in both.
    valid: whether its numbers can be trusted.
    """

    series: str
    tag: str
    per_s: float
    latency_ns: float
    front: bool
    knee: bool
    valid: bool = True


def tradeoff(points: Sequence[Point], percentile: str, bounds: Sequence[Objective]) -> str:
    """Latency against throughput: full marks are on the Pareto front, along which a line goes; crosses are INVALID."""
    x = counts("inferences/s", max(point.per_s for point in points))
    y = durations(f"latency {percentile}", [*(p.latency_ns for p in points), *(bound.bound_ns for bound in bounds)])
    series = list(dict.fromkeys(point.series for point in points))
    told = series if 1 < len(series) <= SERIES else []
    keys = [Key(name, f"s{number}") for number, name in enumerate(told, 1)]
    keys += [Key("Pareto front", "front")] if sum(point.front for point in points) > 1 else []
    keys += [Key("knee", "s1 ring", "dot")] if any(point.knee for point in points) else []
    keys += [Key("INVALID", "bad", "cross")] if not all(point.valid for point in points) else []
    keys += [Key(bound.text, "bad rule") for bound in bounds]
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
                plot.cross(point.per_s, point.latency_ns, f"{words}, INVALID")
            if point.front or point is mine[-1]:
                plot.tag(point.per_s, point.latency_ns, point.tag)
    for bound in bounds:
        plot.level(bound.bound_ns, "bad")
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


def sizes(lines: Sequence[tuple[str, Sequence[tuple[int, ObjectiveShare]]]], bound: Objective) -> str:
    """The quantile that an objective bounds against the number of GPUs, a line for each way to route: at each number,
    how the objective fared in simulation."""
    every = [size for _, line in lines for size in line]
    gpus = [count for count, _ in every]
    known = [time for _, item in every for time in (item.value_ns, item.value_low_ns, item.value_high_ns)]
    x = linear("GPUs", min(gpus) - 0.6, max(gpus) + 0.6, most=9, whole=True)
    y = durations(f"latency {bound.quantile}", [*(time for time in known if time is not None), bound.bound_ns])
    keys = [Key(name, f"s{number}") for number, (name, _) in enumerate(lines, 1)]
    plot = Plot(x, y, keys=[*keys, Key("objective", "bad rule")])
    for number, (name, line) in enumerate(lines, 1):
        told = [(count, item.value_ns, item) for count, item in line if item.value_ns is not None]
        plot.line(sorted((count, value_ns) for count, value_ns, _ in told), f"s{number}", dots=False)
        for count, value_ns, item in told:
            if item.value_low_ns is not None and item.value_high_ns is not None:
                plot.whisker(count, item.value_low_ns, item.value_high_ns, f"s{number}")
            words = f"{name}, {plural(count, 'GPU')}: {format_duration(value_ns)}"
            plot.dot(count, value_ns, f"f{number}", text=words)
    plot.level(bound.bound_ns, "bad", bound.text)
    return plot.svg(f"{bound.quantile} by number of GPUs", f"{plural(len(every), 'simulation')}.")


def _room(title: str, values: Sequence[float]) -> Axis:
    """From a little below the least to a little above the greatest; from 0 where that is near."""
    low, high = min(values), max(values)
    edge = 0.06 * (high - low) or 0.1 * high or 1.0
    return linear(title, 0.0 if low - edge < 0.35 * high else low - edge, high + edge)


def _tone(verdict: str | None) -> str:
    return {"met": "good", "missed": "bad"}.get(verdict or "", "open")
