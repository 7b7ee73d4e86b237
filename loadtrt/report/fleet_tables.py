"""A plan of a fleet in words and tables, which the terminal and the page both show. Pure functions of the result."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from loadtrt.measure.sampling import least_samples
from loadtrt.report.layer_columns import table, wide
from loadtrt.report.text import UNKNOWN, between, joules_text, time_or
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.measure.fleet_result import Choice, Comparison, FleetResult, Prediction
    from loadtrt.measure.result import ObjectiveShare

_MOST_SPEEDS = 12
_POOR = 0.2  # median error of predictions


class Columns(NamedTuple):
    """A table: what its columns are called, and its rows, the first cell of each a word."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def fleet_text(result: FleetResult) -> str:
    """At most 100 columns of text, ending with a newline."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: FleetResult) -> Iterator[str]:
    engine = result.engine
    yield ""
    yield from wide(f"{engine.name} on {engine.device} · {lanes_text(result)}")
    for line in gpu_lines(result):
        yield from wide(line, "  ")
    for line in demand_lines(result):
        yield from wide(line)
    yield ""
    if result.choices:
        yield from table(*choices_table(result))
        yield from wide(choices_note(result))
        yield ""
        for line in remarks(result):
            yield from wide(line)
    if result.checks:
        yield ""
        yield from table(*checks_table(result))
    for line in trust_lines(result):
        yield from wide(line)
    if result.outcome == "interrupted":
        yield "INTERRUPTED, shown as far as it went"


def lanes_text(result: FleetResult) -> str:
    """What one GPU was set up with."""
    gpu = result.gpu
    return f"{plural(gpu.contexts, 'context')} × {plural(gpu.buffers, 'buffer')} · batch {gpu.batch}"


def gpu_lines(result: FleetResult) -> Iterator[str]:
    """What one GPU does."""
    gpu = result.gpu
    yield (
        f"one GPU: at most {_rate(gpu.most_per_s, gpu.batch)}; a request alone takes "
        f"{format_duration(gpu.alone_mean_ns)} (CV {gpu.alone_cv:.2g})"
    )
    measured = [speed for speed in gpu.speeds if speed.measured][:_MOST_SPEEDS]
    counts = ", ".join(str(speed.in_flight) for speed in measured)
    yield f"requests/s with {counts} in flight: {', '.join(format_count(speed.requests_per_s) for speed in measured)}"
    if gpu.scaling is not None:
        law = gpu.scaling
        yield (
            f"universal scalability law: contention {law.sigma:.2g}, coherency {law.kappa:.2g} (off by up to "
            f"{100 * law.error_ratio:.2g} %)"
        )


def demand_lines(result: FleetResult) -> Iterator[str]:
    """What is to be served, and what must hold meanwhile."""
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


def choices_table(result: FleetResult) -> Columns:
    """A row for each way to route; prices and energy where they are known."""
    columns: dict[str, list[str]] = {
        "": [choice.routing for choice in result.choices],
        "GPUs": [gpus_text(choice, result.spares) for choice in result.choices],
        "busy": [_busy(choice.degraded) for choice in result.choices],
        "p50": [time_or(choice.degraded.p50_ns if choice.degraded else None) for choice in result.choices],
        quantile_of(result): [_value(choice.degraded) for choice in result.choices],
        "95 %": [_interval(choice.degraded) for choice in result.choices],
        "by formula": [_estimated(choice) for choice in result.choices],
        "per million": [_price(choice.cost_per_million) for choice in result.choices],
        "energy": [joules_text(choice.joules_per_inference) for choice in result.choices],
    }
    kept = {
        title: cells
        for title, cells in columns.items()
        if title not in ("per million", "energy") or any(cell != UNKNOWN for cell in cells)
    }
    return Columns(tuple(kept), tuple(zip(*kept.values(), strict=True)))


def choices_note(result: FleetResult) -> str:
    """What its columns are."""
    words = ["by formula: Allen and Cunneen's GPUs, and their quantile at as many as were simulated"]
    if result.spares:
        words.insert(0, f"busy and times: with {result.spares} away")
    if result.gpu_price is not None:
        words.append(f"per million: price of a million inferences at {result.gpu_price:g} a GPU hour")
    if any(choice.joules_per_inference is not None for choice in result.choices):
        words.append("energy: what all GPUs take for an inference")
    return " · ".join(words)


def remarks(result: FleetResult) -> Iterator[str]:
    """Why so many, what scaling would save, and what needs no model."""
    for reason in dict.fromkeys(choice.reason for choice in result.choices):  # what no routing mends is told once
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


def gpus_text(choice: Choice, spares: int) -> str:
    """How many GPUs, as far as that was found."""
    if choice.needed is not None:
        return _spared(choice.needed, spares)
    return "none" if choice.infeasible else UNKNOWN if choice.at_least is None else f"≥ {choice.at_least}"


def checks_table(result: FleetResult) -> Columns:
    """One GPU, predicted beside measured."""
    header = ("", "measured", "95 %", "predicted", "95 %", "error")
    return Columns(header, tuple(map(_check, result.checks)))


def trust_lines(result: FleetResult) -> Iterator[str]:
    """What predicted beside measured says of the plan; and what its reader should know of the files."""
    errors = sorted(abs(check.error) for check in result.checks if check.error is not None)
    told = [check.within for check in result.checks if check.within is not None]
    words = [f"within each other's interval in {sum(told)} of {len(told)}"] if told else []
    if errors:
        words.append(f"off by {100 * median(errors):.2g} % in the median, {100 * errors[-1]:.2g} % at most")
    if result.checks:
        yield f"one GPU, predicted against measured: {'; '.join(words) or 'overloaded in all of them'}"
    else:
        least = f"{least_samples(result.objectives[0].rank)} requests"
        yield (
            f"predicted against measured: nothing to compare with; a run at a steady rate would tell, of {least} at "
            f"least for its {quantile_of(result)}"
        )
    if errors and median(errors) > _POOR:
        yield (
            "→ the plan is no better than that: the GPU was not the same in all runs, or it is no such queue; measure "
            "again with nothing else at work"
        )
    for note in result.notes:
        yield f"note: {note}"


def first_share(found: Prediction | None) -> ObjectiveShare | None:
    """How the first objective fared."""
    return found.objectives[0] if found is not None and found.objectives else None


def quantile_of(result: FleetResult) -> str:
    """The one that the first objective binds: "p99"."""
    return result.objectives[0].quantile if result.objectives else "quantile"


def tried_table(result: FleetResult, choice: Choice) -> Columns:
    """Every size that was simulated."""
    header = ("GPUs", "verdict", "busy", "p50", quantile_of(result), "95 %")
    rows = ((str(e.gpus), e.verdict, _busy(e), time_or(e.p50_ns), _value(e), _interval(e)) for e in choice.tried)
    return Columns(header, tuple(rows))


def _spared(needed: int, spares: int) -> str:
    return f"{needed} + {spares}" if spares else str(needed)


def _busy(found: Prediction | None) -> str:
    return UNKNOWN if found is None else f"{100 * found.utilisation:.0f} %"


def _value(found: Prediction | None) -> str:
    item = first_share(found)
    return time_or(item.value_ns if item else None)


def _interval(found: Prediction | None) -> str:
    item = first_share(found)
    return between(item.value_low_ns, item.value_high_ns) if item else UNKNOWN


def _estimated(choice: Choice) -> str:
    if choice.estimate is None:
        return UNKNOWN
    gpus = "none" if choice.estimate.gpus is None else str(choice.estimate.gpus)
    return gpus if choice.estimate.quantile_ns is None else f"{gpus}, {time_or(choice.estimate.quantile_ns)}"


def _price(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}"


def _check(check: Comparison) -> tuple[str, ...]:
    load = f"{check.in_flight} in flight" if check.in_flight else f"{check.arrivals} {check.rate_per_s:g}/s"
    return (
        f"{load}, p{100 * check.rank:g}",
        time_or(check.measured_ns),
        between(check.measured_low_ns, check.measured_high_ns),
        "overload" if check.predicted_ns is None else time_or(check.predicted_ns),
        between(check.predicted_low_ns, check.predicted_high_ns),
        UNKNOWN if check.error is None else f"{100 * check.error:+.1f} %",
    )


def _rate(requests: float, batch: int) -> str:
    text = f"{format_count(requests)} requests/s"
    return text if batch == 1 else f"{text} ({format_count(requests * batch)} inferences/s)"
