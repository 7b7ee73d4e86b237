"""A search for capacity as text: what a person reads when it ends. A pure function of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.report.text import UNKNOWN, aligned, count_or, percent_text, rate_or, share_or, time_or, wrapped
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.measure.capacity_result import Candidate, CapacityResult, Trial
    from loadtrt.measure.sweep_result import SweepResult

_EXACT = 1e-4  # few rungs are fitted exactly by any law


def capacity_text(result: CapacityResult) -> str:
    """At most 80 columns of text but for tables, ending with a newline."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: CapacityResult) -> Iterator[str]:
    yield ""
    engine = next((each.engine for each in result.candidates if each.engine), None)
    if engine is not None:
        yield f"{engine.name} on {engine.device} ({engine.flavour} {engine.version})"
    yield from wrapped(" · ".join(_asked(result)), "  ")
    for place, each in enumerate(result.candidates):
        if each.searched or len(result.candidates) == 1:
            yield ""
            yield from _candidate(each, alone=len(result.candidates) == 1, chosen=place == result.chosen)
    if len(result.candidates) > 1:
        yield ""
        yield from _choice(result)
    if result.outcome != "completed":
        yield ""
        yield from wrapped(ended_text(result))


def _asked(result: CapacityResult) -> Iterator[str]:
    model, load = result.config.model, result.load
    yield f"{plural(model.buffers, 'buffer')} a lane"
    if model.mix:
        yield f"mix {model.mix}"
    yield str(load.arrivals)
    yield from (f"CV {load.burstiness:g}",) if load.burstiness is not None else ()
    yield from (f"bursts {load.bursts}",) if load.bursts else ()
    longest = f" to {format_duration(result.longest_trial_ns)}" if result.longest_trial_ns else ""
    yield f"trials of {format_duration(result.trial_ns)}{longest}"
    yield from map(str, result.objectives)


def _candidate(each: Candidate, *, alone: bool, chosen: bool) -> Iterator[str]:
    yield f"{each.name}{'' if alone or not chosen else ' (chosen)'}"
    rows = [_rung(trial) for trial in each.ladder if trial.run is not None]
    if rows:
        yield from _table([("in flight", "requests/s", "latency p50", "p99"), *rows])
    if each.scaling is not None:
        law = each.scaling
        words = [f"contention {law.sigma:.3g}", f"coherency {law.kappa:.2g}"]
        words += [f"most at {law.peak_in_flight:.0f} in flight"] if law.peak_in_flight is not None else []
        words.append(f"knee at {law.knee_in_flight}")
        fit = f" (the law is within {100 * law.error_ratio:.2g} %)" if law.error_ratio >= _EXACT else ""
        yield from wrapped(f"scaling: {', '.join(words)}{fit}", "  ")
    if each.predicted_per_s is not None:
        yield f"  expected from that: {format_count(each.predicted_per_s)}/s"
    elif each.searched:
        first = each.searched[0]
        objectives = first.run.objectives if first.run is not None else ()
        known = any(item.objective.metric_name == "latency" for item in objectives)
        what = "no rate" if known else "nothing, as it foretells latency alone"
        yield f"  expected from that: {what}; trials begin at {rate_or(first.rate_per_s)}"
    rows = [row for trial in each.searched if trial.run is not None for row in _open_loop(trial)]
    if rows:
        yield ""
        header = ("trial", "requests/s", "time", "quantile", "bad", "95 %", "worth", "")
        yield from _table([(*header, "") if len(rows[0]) > len(header) else header, *rows])
    for word, text in (("", each.conclusion), ("failed: ", each.failure), ("not searched: ", each.dropped)):
        if text:
            yield from wrapped(f"{word}{text}")
    if each.answer in ("found", "undecided") and (boundary := _boundary(each)):
        yield from wrapped(boundary, "  ")


def _rung(trial: Trial) -> tuple[str, ...]:
    run = trial.run
    assert run is not None  # noqa: S101  # the caller looked
    latency, rate = run.metrics["latency"], run.throughput.requests_per_s
    return str(trial.in_flight), count_or(rate), *(time_or(latency.percentiles_ns[name]) for name in ("p50", "p99"))


def _open_loop(trial: Trial) -> Iterator[tuple[str, ...]]:
    """A row for each objective, whose metric is named where there are several."""
    assert trial.run is not None  # noqa: S101  # the caller looked
    remark = "host-bound" if trial.host_bound else "failed" if trial.failure else ""
    remark = remark if trial.run.outcome == "completed" else trial.run.outcome
    lasted = trial.run.phases.measure_ns - trial.run.phases.drain_ns
    for place, item in enumerate(trial.run.objectives):
        first = place == 0
        known = item.bad_low is not None and item.bad_high is not None
        low, high = percent_text(item.bad_low or 0.0), percent_text(item.bad_high or 0.0)
        yield (
            trial.kind if first else "",
            format_count(trial.rate_per_s or 0.0) if first else "",
            format_duration(lasted) if first else "",
            time_or(item.value_ns),
            share_or(item.bad),
            f"{low.removesuffix(' %')} .. {high}" if known else UNKNOWN,
            UNKNOWN if item.effective is None else format_count(round(item.effective)),
            remark or item.verdict or "",
            *((item.objective.name,) if len(trial.run.objectives) > 1 else ()),
        )


def _boundary(each: Candidate) -> str:
    words = []
    if len(each.objectives) > 1 and each.binding:
        words.append(f"bound by {each.binding}")
    sides = (("met", each.feasible_max_per_s), ("missed", each.infeasible_min_per_s))
    known = [f"{word} at {rate_or(rate)}" for word, rate in sides if rate is not None]
    words += [", ".join(known)] if known else []
    if each.boundary is not None:
        words.append({"cliff": "it is a cliff", "smooth": "the slope is smooth"}[each.boundary])
    if each.joules_per_inference is not None:
        words.append(f"{each.joules_per_inference * 1000:.3g} mJ an inference")
    return "; ".join(words)


def _choice(result: CapacityResult) -> Iterator[str]:
    rows = [("contexts", "batch", "expected", "capacity", "confirmed", "inferences/s", "")]
    for place, each in enumerate(result.candidates):
        rate = each.confirmed_per_s or each.estimate_per_s
        rows.append(
            (
                str(each.contexts),
                "mix" if result.config.model.mix else str(each.items),
                rate_or(each.predicted_per_s),
                rate_or(each.estimate_per_s),
                rate_or(each.confirmed_per_s),
                UNKNOWN if rate is None else format_count(rate * each.inferences_per_request),
                "chosen" if place == result.chosen else each.answer or ("failed" if each.failure else ""),
            )
        )
    yield from _table(rows)
    for each in result.candidates:
        if each.dropped:
            yield from wrapped(f"{each.name}: not searched, {each.dropped}")
        elif why := each.failure or (each.conclusion if each.answer == "infeasible" else ""):
            yield from wrapped(f"{each.name}: {why}")
    best = result.best
    if best is not None:
        yield from wrapped(f"chosen: {best.name}, {result.reason}")


def ended_text(result: CapacityResult | SweepResult) -> str:
    """Why it ended early, and how it goes on."""
    if result.outcome == "failed":
        return f"FAILED: {result.failure}; what was measured until then is above"
    file = result.config.json_file
    kept = f"--resume goes on with {file}" if file not in (None, "-") else "without --json FILE nothing was kept"
    return f"INTERRUPTED, shown as far as it went; {kept}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    return (f"  {line}" for line in aligned(rows))
