"""A plan of a fleet as text. A pure function of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.layer_columns import UNKNOWN, table, wrapped
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.measure.fleet_result import Choice, Comparison, FleetDemand, FleetResult, Prediction

_MOST_SPEEDS = 12
_POOR = 0.2  # median error of predictions


def fleet_text(result: FleetResult) -> str:
    """At most 100 columns of text, ending with a newline."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: FleetResult) -> Iterator[str]:
    gpu, engine = result.gpu, result.engine
    yield ""
    lanes = f"{plural(gpu.contexts, 'context')} × {plural(gpu.buffers, 'buffer')}"
    yield from wrapped(f"{engine.name} on {engine.device} · {lanes} · batch {gpu.batch}")
    yield from wrapped(
        f"one GPU: at most {_rate(gpu.most_per_s, gpu.batch)}; a request alone takes "
        f"{format_duration(gpu.alone_mean_ns)} (CV {gpu.alone_cv:.2g})",
        "  ",
    )
    measured = [speed for speed in gpu.speeds if speed.measured][:_MOST_SPEEDS]
    counts = ", ".join(str(speed.in_flight) for speed in measured)
    yield from wrapped(
        f"requests/s with {counts} in flight: {', '.join(format_count(speed.requests_per_s) for speed in measured)}",
        "  ",
    )
    if gpu.scaling is not None:
        law = gpu.scaling
        yield from wrapped(
            f"universal scalability law: contention {law.sigma:.2g}, coherency {law.kappa:.2g} (off by up to "
            f"{100 * law.error_ratio:.2g} %)",
            "  ",
        )
    yield from _demand(result.demand, gpu.batch)
    away = f", with {plural(result.spares, 'GPU')} away" if result.spares else ""
    yield from wrapped(
        f"to hold: {', '.join(result.objectives)}; no GPU busier than {100 * result.max_utilisation:g} %{away}"
    )
    yield ""
    if result.choices:
        yield from _table(result)
        yield ""
        told: set[str] = set()
        for choice in result.choices:
            if choice.reason in told:
                continue  # what no routing mends is the same for all
            told.add(choice.reason)
            alike = [each.routing for each in result.choices if each.reason == choice.reason]
            yield from wrapped(f"{', '.join(alike)}: {choice.reason}")
            if choice.autoscaling is not None and choice.gpus is not None:
                scaled = choice.autoscaling
                yield from wrapped(
                    f"scaled with the demand, without delay: {format_count(scaled.mean_gpus)} GPUs on average, "
                    f"{100 * scaled.saved:.0f} % less",
                    "  ",
                )
    if result.direct is not None:
        yield from wrapped(
            f"random, by the measured capacity alone ({format_count(result.direct.per_gpu_per_s)}/s a GPU: "
            f"{result.direct.basis}): {plural(result.direct.gpus, 'GPU')}"
        )
    yield from _checks(result)
    for note in result.notes:
        yield from wrapped(f"note: {note}")
    if result.outcome == "interrupted":
        yield "INTERRUPTED, shown as far as it went"


def _demand(demand: FleetDemand, batch: int) -> Iterator[str]:
    factors = [
        f"{100 * part:g} % {name}" for part, name in ((demand.growth, "growth"), (demand.headroom, "headroom")) if part
    ]
    planned = _rate(demand.planned_per_s, batch)
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
    yield from wrapped(f"demand: {text} ({law}{stages})")
    if demand.replayed is not None and demand.replayed_ns is not None:
        yield from wrapped(
            f"replayed: its busiest {format_duration(demand.replayed_ns)}, {plural(demand.replayed, 'request')}", "  "
        )


def _table(result: FleetResult) -> Iterator[str]:
    quantile = result.objectives[0].partition(".")[2].partition(" ")[0]
    columns: dict[str, list[str]] = {
        "": [choice.routing for choice in result.choices],
        "GPUs": [_gpus(choice, result.spares) for choice in result.choices],
        "busy": [_busy(choice.degraded) for choice in result.choices],
        "p50": [UNKNOWN if choice.degraded is None else _time(choice.degraded.p50_ns) for choice in result.choices],
        quantile: [_quantile(choice.degraded) for choice in result.choices],
        "95 %": [_interval(choice.degraded) for choice in result.choices],
        "by formula": [_estimated(choice) for choice in result.choices],
        "per million": [_number(choice.cost_per_million) for choice in result.choices],
        "J/inference": [_number(choice.joules_per_inference) for choice in result.choices],
    }
    kept = {
        title: cells
        for title, cells in columns.items()
        if title not in ("per million", "J/inference") or any(cell != UNKNOWN for cell in cells)
    }
    yield from table(list(kept), list(zip(*kept.values(), strict=True)))
    words = ["by formula: Allen and Cunneen's GPUs, and their quantile at as many as were simulated"]
    if result.spares:
        words.insert(0, f"busy and times: with {result.spares} away")
    if result.gpu_price is not None:
        words.append(f"per million: price of a million inferences at {result.gpu_price:g} a GPU hour")
    yield from wrapped(" · ".join(words))


def _gpus(choice: Choice, spares: int) -> str:
    if choice.gpus is None:
        return "none" if choice.infeasible else "?"
    return f"{choice.needed} + {spares}" if spares else str(choice.gpus)


def _busy(found: Prediction | None) -> str:
    return UNKNOWN if found is None else f"{100 * found.utilisation:.0f} %"


def _time(ns: float | None) -> str:
    return UNKNOWN if ns is None else format_duration(ns)


def _quantile(found: Prediction | None) -> str:
    return UNKNOWN if found is None else _time(found.objectives[0].value_ns)


def _interval(found: Prediction | None) -> str:
    if found is None:
        return UNKNOWN
    return _between(found.objectives[0].value_low_ns, found.objectives[0].value_high_ns)


def _between(low_ns: float | None, high_ns: float | None) -> str:
    return UNKNOWN if low_ns is None or high_ns is None else f"{format_duration(low_ns)} .. {format_duration(high_ns)}"


def _estimated(choice: Choice) -> str:
    if choice.estimate is None:
        return UNKNOWN
    gpus = "none" if choice.estimate.gpus is None else str(choice.estimate.gpus)
    return gpus if choice.estimate.quantile_ns is None else f"{gpus}, {_time(choice.estimate.quantile_ns)}"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}"


def _checks(result: FleetResult) -> Iterator[str]:
    if not result.checks:
        yield "predicted against measured: nothing to compare with; a run at a rate would tell"
        return
    yield ""
    rows = [_check(check, result.gpu.most_per_s) for check in result.checks]
    yield from table(["", "measured", "95 %", "predicted", "95 %", "error"], rows)
    errors = sorted(abs(check.error) for check in result.checks if check.error is not None)
    told = [check.within for check in result.checks if check.within is not None]
    words = [f"within each other's interval in {sum(told)} of {len(told)}"] if told else []
    if errors:
        words.append(f"off by {100 * errors[len(errors) // 2]:.2g} % in the median, {100 * errors[-1]:.2g} % at most")
    yield from wrapped(f"one GPU, predicted against measured: {'; '.join(words) or 'overloaded in all of them'}")
    if errors and errors[len(errors) // 2] > _POOR:
        yield from wrapped(
            "→ the plan is no better than that: the GPU was not the same in all runs, or it is no such queue; measure "
            "again with nothing else at work",
            "  ",
        )


def _check(check: Comparison, most_per_s: float) -> list[str]:
    load = f"{check.in_flight} in flight" if check.in_flight else f"{check.arrivals} {check.rate_per_s:g}/s"
    endless = check.predicted_ns is None and (check.rate_per_s or 0) > 0.98 * most_per_s
    return [
        f"{load}, p{100 * check.rank:g}",
        _time(check.measured_ns),
        _between(check.measured_low_ns, check.measured_high_ns),
        "overload" if endless else _time(check.predicted_ns),
        _between(check.predicted_low_ns, check.predicted_high_ns),
        UNKNOWN if check.error is None else f"{100 * check.error:+.1f} %",
    ]


def _rate(requests: float, batch: int) -> str:
    text = f"{format_count(requests)} requests/s"
    return text if batch == 1 else f"{text} ({format_count(requests * batch)} inferences/s)"
