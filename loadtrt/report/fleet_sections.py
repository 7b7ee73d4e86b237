"""A plan of a fleet as sections: how many GPUs, by each way to route, and how far the model can be trusted."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from loadtrt.report.charts.curves import ladder, sizes
from loadtrt.report.charts.shares import Bar, bars
from loadtrt.report.document import Figure, Name, Section, Table, Tile, Tiles, known_columns, section, words
from loadtrt.report.formatting import UNKNOWN, between, joules_text, time_or
from loadtrt.report.measured_sections import measured_fleets
from loadtrt.report.run_verdict import outcome_badge
from loadtrt.report.settings import about, closing, title
from loadtrt.results.fleet_result import POOR, ROUTINGS
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import format_count, format_duration, plural, rough_percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.document import Block, Cell
    from loadtrt.results.fleet_result import Choice, FleetResult, Prediction
    from loadtrt.results.run_result import ObjectiveShare

_MOST_SPEEDS = 12
_ROUTERS = {
    "random": "a Kubernetes service by iptables",
    "round-robin": "the default of nginx, HAProxy and Envoy",
    "two-choices": "Envoy's LEAST_REQUEST",
    "least-outstanding": "nginx least_conn, HAProxy leastconn",
}
_OPEN = "open"
_TIES = {
    "longest-idle": "the one that has had so few for the longest time",
    "random": "a random one",
    "lowest-index": "the first of the list",
}


def fleet(result: FleetResult, file: str, key: str) -> Iterator[Section]:
    """A plan, the numbers of GPUs first. file, key: as in `sections_of`."""
    badges = (outcome_badge(result.outcome),) if result.outcome == "interrupted" else ()
    yield Section(title(result.engine, "GPUs for "), tuple(_head(result, file)), level=1, badges=badges)
    yield section("How many GPUs", *_choices(result), bare=True)
    yield section("One GPU", *_gpu(result), bare=True)
    checks = [_checks(result)] if result.checks else []
    yield section("Predicted and measured", *checks, *map(words, _trust(result)), bare=True)
    yield section("The planned fleets, measured", *measured_fleets(result), bare=True)
    yield closing(result, file, key)


def _head(result: FleetResult, file: str) -> Iterator[Block]:
    yield from map(words, _answer(result))
    yield from map(words, _demand(result))
    sources = [piece for source in result.sources for piece in (", ", Name(source))]
    yield about(result, file, " made from ", *sources[1:])
    tiles = []
    for choice in result.choices:
        binding = f"binding: {choice.binding}" if choice.binding else ""
        tiles.append(Tile(f"GPUs, {choice.routing}", _gpus(choice, result.spares), binding, detail=True))
    yield Tiles(tuple(tiles))


def _answer(result: FleetResult) -> Iterator[str]:
    """The numbers of GPUs in a sentence, with routers that route so; then why they are not to be relied on."""
    if result.doubt is not None:
        yield result.doubt
    found = [choice for choice in result.choices if choice.needed is not None]
    if not found:
        return
    parts: list[str] = []
    spare = f" + {plural(result.spares, 'spare')}" if result.spares else ""
    for needed in sorted({choice.needed for choice in found if choice.needed is not None}, reverse=True):
        alike = [choice for choice in found if choice.needed == needed]
        short = f"{needed} + {result.spares}" if spare else str(needed)
        gpus = short if parts else f"{plural(needed, 'GPU')}{spare}"
        if len(alike) == len(ROUTINGS):
            parts.append(f"{gpus} under any routing")
            continue
        names = [choice.routing + ("" if parts or place else " routing") for place, choice in enumerate(alike)]
        names = [f"{name} ({_ROUTERS[choice.routing]})" for name, choice in zip(names, alike, strict=True)]
        parts.append(f"{gpus} under {', '.join(names[:-1]) + ' and ' if len(names) > 1 else ''}{names[-1]}")
    yield f"{', '.join(parts)}{_month(result, found)}"


def _month(result: FleetResult, found: Sequence[Choice]) -> str:
    """What the most and the fewest GPUs cost."""
    costs = sorted({choice.cost_per_month for choice in found if choice.cost_per_month is not None}, reverse=True)
    if not costs:
        return ""
    text = " to ".join(format_count(cost) for cost in dict.fromkeys((costs[0], costs[-1])))
    return f": {text} a month at {result.gpu_price:g} a GPU hour"


def _demand(result: FleetResult) -> Iterator[str]:
    """What is to be served, and the objectives."""
    demand = result.demand
    factors = [
        f"{100 * part:g} % {name}" for part, name in ((demand.growth, "growth"), (demand.headroom, "headroom")) if part
    ]
    planned = _rate(demand.planned_per_s, result.gpu.batch)
    text = f"{format_count(demand.now_per_s)}/s + {' + '.join(factors)} = {planned}" if factors else planned
    match demand.arrivals:
        case "gamma":
            law = f"gamma, CV {demand.burstiness:g}"
        case "trace":
            law = f"{demand.source}, its busiest minute"
        case "poisson":
            law = "Poisson"
        case law:
            pass
    stages = f", the highest of {demand.source}" if demand.source and demand.arrivals != "trace" else ""
    yield f"demand: {text} ({law}{stages})"
    if demand.replayed is not None and demand.replayed_ns is not None:
        yield f"replayed: its busiest {format_duration(demand.replayed_ns)}, {plural(demand.replayed, 'request')}"
    away = f", with {plural(result.spares, 'GPU')} away" if result.spares else ""
    objectives = ", ".join(map(str, result.objectives))
    yield f"to hold: {objectives}; no GPU busier than {100 * result.max_utilisation:g} %{away}"


def _choices(result: FleetResult) -> Iterator[Block]:
    yield from _charts(result)
    if result.choices:
        yield _choices_table(result)
    yield from map(words, _remarks(result))
    for choice in result.choices:
        if choice.tried:
            yield _tried(result, choice)


def _charts(result: FleetResult) -> Iterator[Block]:
    drawn = [
        Bar(choice.routing, choice.gpus, _gpus(choice, result.spares), f"f{place}")
        for place, choice in enumerate(result.choices, 1)
    ]
    if any(bar.value for bar in drawn):
        spared = "with the spares" if result.spares else ""
        yield Figure("GPUs by routing", bars("GPUs by routing", "The fewest that hold all objectives.", drawn), spared)
    lines = []
    for choice in result.choices:
        simulated = sorted((*choice.tried, *choice.curve), key=lambda tried: tried.gpus)
        firsts = [(tried.gpus, item) for tried in simulated if (item := _first(tried)) is not None]
        if line := [(gpus, item) for gpus, item in firsts if item.value_ns is not None]:
            lines.append((choice.routing, line))
    if lines and result.objectives:
        chart = sizes(lines, result.objectives[0])
        away = ", without the spares" if result.spares else ""
        yield Figure("Latency by number of GPUs", chart, f"simulated, with 95 %{away}")


def _choices_table(result: FleetResult) -> Table:
    """A row for each way to route; prices and energy where they are known."""
    header = ("", "GPUs", _OPEN, "busy", "p50", _quantile(result), "95 %", "a month", "per million", "energy")
    rows: list[tuple[Cell, ...]] = [
        (
            choice.routing,
            _gpus(choice, result.spares),
            _open(choice),
            _busy(choice.degraded),
            time_or(choice.degraded.p50_ns if choice.degraded else None),
            _value(choice.degraded),
            _interval(choice.degraded),
            UNKNOWN if choice.cost_per_month is None else format_count(choice.cost_per_month),
            UNKNOWN if choice.cost_per_million is None else f"{choice.cost_per_million:.3g}",
            joules_text(choice.joules_per_inference),
        )
        for choice in result.choices
    ]
    return Table(
        *known_columns(header, rows, (_OPEN, "a month", "per million", "energy"), (UNKNOWN,)), note=_note(result)
    )


def _note(result: FleetResult) -> str:
    """What the columns are."""
    texts = [f"busy and times: with {result.spares} away"] if result.spares else []
    if any(_open(choice) != UNKNOWN for choice in result.choices):
        texts.append(
            f"{_OPEN}: fewer GPUs that may be enough: a longer search (capacity --time) or longer runs would tell"
        )
    if result.gpu_price is not None:
        texts.append(
            f"a month, per million: price of 730 hours, of a million inferences, at {result.gpu_price:g} a GPU hour"
        )
    if any(choice.routing == "least-outstanding" for choice in result.choices):
        texts.append(f"least-outstanding: of several GPUs with the fewest requests {_TIES[result.ties]}")
    if any(choice.joules_per_inference is not None for choice in result.choices):
        texts.append("energy: what all GPUs take for an inference")
    return " · ".join(texts)


def _remarks(result: FleetResult) -> Iterator[str]:
    """Why so many, what autoscaling would save, and the number by measured capacity alone."""
    for reason in dict.fromkeys(choice.reason for choice in result.choices):  # a reason that all share stands once
        alike = [choice.routing for choice in result.choices if choice.reason == reason]
        yield f"{', '.join(alike)}: {reason}"
    for choice in result.choices:
        if choice.autoscaling is not None:
            yield (
                f"{choice.routing}, scaled with the demand without delay: {format_count(choice.autoscaling.mean_gpus)} "
                f"GPUs on average, {100 * choice.autoscaling.saved:.0f} % less"
            )
    if result.direct is not None:
        needed = result.direct.gpus - result.spares
        yield (
            f"random, by the measured capacity alone ({format_count(result.direct.per_gpu_per_s)}/s a GPU: "
            f"{result.direct.basis}): {_spared(needed, result.spares)} GPUs"
        )


def _gpus(choice: Choice, spares: int) -> str:
    """How many GPUs, as far as that was found."""
    if choice.needed is not None:
        return _spared(choice.needed, spares)
    return "none" if choice.infeasible else UNKNOWN if choice.at_least is None else f"≥ {choice.at_least}"


def _open(choice: Choice) -> str:
    """Smaller numbers of GPUs that may be enough."""
    if choice.needed is None or choice.at_least is None or choice.at_least >= choice.needed:
        return UNKNOWN
    last = choice.needed - 1
    return str(last) if choice.at_least == last else f"{choice.at_least}–{last}"


def _tried(result: FleetResult, choice: Choice) -> Table:
    """Every number of GPUs that was simulated."""
    header = ("GPUs", "verdict", "busy", "p50", _quantile(result), "95 %")
    rows = tuple(
        (str(tried.gpus), tried.verdict, _busy(tried), time_or(tried.p50_ns), _value(tried), _interval(tried))
        for tried in choice.tried
    )
    folded = f"{choice.routing}: {plural(len(choice.tried), 'size')} simulated"
    return Table(header, rows, words=2, folded=folded, only="page")


def _gpu(result: FleetResult) -> Iterator[Block]:
    gpu = result.gpu
    lanes = f"{plural(gpu.contexts, 'context')} × {plural(gpu.buffers, 'buffer')}"
    lanes += f" · batcher {gpu.batcher}" if gpu.batcher else f" · batch {gpu.batch}"
    lanes += f" · at most {gpu.max_queue} waiting" if gpu.max_queue is not None else ""
    known, alone = "", "the smallest batch" if gpu.batcher else "a request"
    if gpu.most_low_per_s is not None and gpu.most_high_per_s is not None:
        known = f" (95 %: {between(gpu.most_low_per_s, gpu.most_high_per_s, format_count)})"
    yield words(
        f"one GPU: {lanes} · at most {_rate(gpu.most_per_s, gpu.batch)}{known}; {alone} alone takes "
        f"{format_duration(gpu.alone_mean_ns)} (CV {gpu.alone_cv:.2g})"
    )
    if gpu.requests:
        of = (
            f"{format_count(gpu.requests)} measured batches"
            if gpu.batcher
            else plural(gpu.requests, "measured request")
        )
        yield words(f"the law of this GPU is that of {of}")
    measured = [(speed.in_flight, speed.requests_per_s) for speed in gpu.speeds if speed.measured]
    counts = ", ".join(str(in_flight) for in_flight, _ in measured[:_MOST_SPEEDS])
    rates = ", ".join(format_count(rate) for _, rate in measured[:_MOST_SPEEDS])
    yield words(f"requests/s {'of full batches ' if gpu.batcher else ''}with {counts} in flight: {rates}")
    if gpu.scaling is not None:
        law = gpu.scaling
        yield words(
            f"universal scalability law: contention {law.sigma:.2g}, coherency {law.kappa:.2g} (off by up to "
            f"{rough_percent(law.error_ratio)})"
        )
    if measured:
        yield Figure("Throughput by requests in flight", ladder(measured, gpu.scaling), "as measured")


def _checks(result: FleetResult) -> Table:
    """One GPU, predicted beside measured."""
    same_rank = len({check.rank for check in result.checks}) == 1
    rows = []
    for check in result.checks:
        load = f"{check.in_flight} in flight" if check.in_flight else f"{check.arrivals} {check.rate_per_s:g}/s"
        rows.append(
            (
                load if same_rank else f"{load}, p{100 * check.rank:g}",
                time_or(check.measured_ns),
                between(check.measured_low_ns, check.measured_high_ns),
                "overload" if check.predicted_ns is None else time_or(check.predicted_ns),
                between(check.predicted_low_ns, check.predicted_high_ns),
                UNKNOWN if check.error is None else f"{100 * check.error:+.1f} %",
            )
        )
    quantile = f"p{100 * result.checks[0].rank:g}" if same_rank else ""
    return Table((quantile, "measured", "95 %", "predicted", "95 %", "error"), tuple(rows))


def _trust(result: FleetResult) -> Iterator[str]:
    """How far predictions are from measurements; notes on the files."""
    errors = sorted(abs(check.error) for check in result.checks if check.error is not None)
    inside = [check.within for check in result.checks if check.within is not None]
    texts = [f"within each other's interval in {sum(inside)} of {len(inside)}"] if inside else []
    known = [check for check in result.checks if check.measured_low_ns is not None]
    if endless := sum(check.measured_high_ns is None for check in known):
        texts.append(f"{endless} measured {'interval has' if endless == 1 else 'intervals have'} no upper end")
    if errors:
        texts.append(f"off by {rough_percent(median(errors))} in the median, {rough_percent(errors[-1])} at most")
    if result.checks:
        yield f"one GPU, predicted against measured: {'; '.join(texts) or 'overloaded in all of them'}"
    else:
        least = f"{least_samples(result.objectives[0].rank)} requests"
        yield (
            f"predicted against measured: nothing to compare with: measure a run at a steady rate, of {least} at "
            f"least for its {_quantile(result)}"
        )
    if errors and median(errors) > POOR:
        yield (
            "→ the plan is not better than that: the GPU differed between runs, or it is not such a queue; measure "
            "again on an idle machine"
        )
    for note in result.notes:
        yield f"note: {note}"


def _first(prediction: Prediction | None) -> ObjectiveShare | None:
    """How the first objective fared."""
    return prediction.objectives[0] if prediction is not None and prediction.objectives else None


def _quantile(result: FleetResult) -> str:
    """The quantile of the first objective, "p99"."""
    return result.objectives[0].quantile if result.objectives else "quantile"


def _spared(needed: int, spares: int) -> str:
    return f"{needed} + {spares}" if spares else str(needed)


def _busy(prediction: Prediction | None) -> str:
    return UNKNOWN if prediction is None else f"{100 * prediction.utilisation:.0f} %"


def _value(prediction: Prediction | None) -> str:
    item = _first(prediction)
    return time_or(item.value_ns if item else None)


def _interval(prediction: Prediction | None) -> str:
    item = _first(prediction)
    return between(item.value_low_ns, item.value_high_ns) if item else UNKNOWN


def _rate(requests: float, batch: int) -> str:
    text = f"{format_count(requests)} requests/s"
    return text if batch == 1 else f"{text} ({format_count(requests * batch)} inferences/s)"
