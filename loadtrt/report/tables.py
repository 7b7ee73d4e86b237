"""The summary of a run as text: what a person reads when it ends. A pure function of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.asked.load import Offline
from loadtrt.measure.findings import findings_of
from loadtrt.measure.summary import PERCENTILES
from loadtrt.records.records import METRICS
from loadtrt.report.text import UNKNOWN, aligned, between, joules_text, percent_text, time_or, wrapped
from loadtrt.units import format_count, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtrt.measure.result import Batches, ObjectiveShare, RunResult, ScenarioResult
    from loadtrt.measure.telemetry import GpuTelemetry

_MOST_LANES = 16
_WIDTH = 80


def summary_text(result: RunResult) -> str:
    """At most 80 columns of text, ending with a newline."""
    lines = [part for line in _lines(result) for part in _broken(line)]
    return "\n".join(lines) + "\n"


def _broken(line: str) -> list[str]:
    """Long lines of words broken at 80 columns; tables are never longer than they must be, and stay whole."""
    if len(line) <= _WIDTH or "  " in line.strip():
        return [line]
    return wrapped(line.strip(), " " * (len(line) - len(line.lstrip())), width=_WIDTH)


def _lines(result: RunResult) -> Iterator[str]:
    engine, config = result.engine, result.config
    yield ""
    yield f"{engine.name} on {engine.device} ({engine.flavour} {engine.version})"
    yield f"  {mode_text(result)}"
    yield f"  {phases_text(result)}"
    gpu = result.environment.get("gpu")
    if gpu:
        yield f"  {_clocks(gpu)}"
    for text in (engine.precision and f"precision: {engine.precision}", *engine.notes):
        if text:
            yield f"  {text}"
    if result.verification is not None:
        checked = result.verification
        yield f"  verify: {checked.outputs} outputs under load compared with a quiet run, {checked.different} differ"
        if checked.input_sets == 1:
            yield "  verify: with one input set, requests that are mixed up look the same"
    yield ""
    if result.ok:
        yield f"throughput  {_throughput(result)}"
        yield ""
        yield from _metrics(result)
        yield ""
        yield from _lanes(result)
        yield from _mix(result)
    if result.batches is not None:
        yield from _batches(result.batches)
    if result.telemetry is not None:
        yield from telemetry_lines(result.telemetry)
        yield ""
    for item in result.objectives:
        yield from objective_text(item)
    if result.scenario is not None:
        told, *reasons = scenario_lines(result.scenario)
        yield told
        yield from (f"  {reason}" for reason in reasons)
    counts = [plural(result.ok, "request")]
    counts += [f"{format_count(result.failed)} failed"] if result.failed else []
    counts += [f"{format_count(result.unserved)} not served"] if result.unserved else []
    counts += [f"{format_count(result.dropped)} dropped, as the queue was full"] if result.dropped else []
    if config.model.load.closed:
        counts.append("closed loop: latency at this many in flight, no answer on capacity")
    yield " · ".join(counts)
    if result.ended_early:
        yield f"ended early: {result.ended_early}"
    elif config.precision:
        names = [item.objective.quantile for item in result.objectives if item.objective.name.startswith("latency.p")]
        which = f"latency's {', '.join(dict.fromkeys(names)) or 'p99'}"
        known = (
            f"too few requests bound {which}"
            if result.precision_reached is None
            else f"{which} within ±{percent_text(result.precision_reached)} (by the law of verdicts, more on the safe "
            "side than 95 % ±)"
        )
        yield f"precision of ±{percent_text(config.precision)} not reached: {known}"
    if result.first_error:
        yield f"first error: {result.first_error}"
    yield _verdict(result)
    for problem in result.problems:
        yield f"  {problem.evidence}"
        yield f"    → {problem.remedy}"
    for finding in findings_of(result):
        yield f"finding: {finding.evidence}"
        if finding.cause not in finding.evidence:
            yield f"    {finding.cause}"
        yield f"    → {finding.remedy}"


def mode_text(result: RunResult) -> str:
    """Lanes, load and settings in one line."""
    model, engine = result.config.model, result.engine
    lanes = f"{plural(model.contexts, 'context')} × {plural(model.buffers, 'buffer')}"
    load = model.load.text
    if isinstance(model.load, Offline):
        load = f"offline, {plural(model.requests or 0, 'request')} at once"
    kinds = [f"{key} {value}" for key, value in (("mix", model.mix), ("batcher", model.batcher)) if value]
    words = [lanes, load, *(kinds or [f"batch {engine.batch}"])]
    words += [f"at most {model.max_queue} waiting"] if model.max_queue is not None else []
    names = {"service": "service of the largest batch"} if kinds else {}
    words += [f"{names.get(key, key)} {value}" for key, value in engine.mode.items()]
    return " · ".join(words)


def phases_text(result: RunResult) -> str:
    """How long each phase took, in one line."""
    phases = result.phases
    words = [f"load {format_duration(phases.load_ns)}", f"allocate {format_duration(phases.allocate_ns)}"]
    settled = {None: "", True: ", clocks steady", False: ", clocks NOT steady"}[phases.clocks_settled]
    words.append(f"warm-up {format_duration(phases.warmup_ns)} ({plural(phases.warmup_requests, 'request')}{settled})")
    words.append(f"measured {format_duration(phases.measure_ns)}")
    return " · ".join(words)


def _clocks(gpu: dict[str, object]) -> str:
    before, after = gpu["before"], gpu["after"]
    assert isinstance(before, dict)  # noqa: S101  # written by environment.py
    assert isinstance(after, dict)  # noqa: S101
    words = []
    if before["sm_clock_hertz"] and after["sm_clock_hertz"]:
        words.append(f"SM clock {before['sm_clock_hertz'] / 1e6:.0f} → {after['sm_clock_hertz'] / 1e6:.0f} MHz")
    if after["max_sm_clock_hertz"]:
        words.append(f"max {after['max_sm_clock_hertz'] / 1e6:.0f}")
    if after["power_watts"]:
        words.append(f"{after['power_watts']:.0f} W")
    if after["temperature_celsius"]:
        words.append(f"{after['temperature_celsius']} °C")
    held = [reason for reason in after["throttle_reasons"] or () if reason != "gpu_idle"]
    if held:
        words.append(f"clocks held by {', '.join(held)}")
    return " · ".join(words)


def _throughput(result: RunResult) -> str:
    rates = result.throughput
    if rates.requests_per_s is None or rates.inferences_per_s is None:
        return f"{UNKNOWN} (too few requests)"
    text = f"{format_count(rates.requests_per_s)} requests/s · {format_count(rates.inferences_per_s)} inferences/s"
    if rates.margin is not None and result.throughput.offered_per_s is None:
        text += f" (± {_margin(rates.margin)})"
    if rates.offered_per_s is not None:
        text += f" · offered {format_count(rates.offered_per_s)}/s"
    return text


def _metrics(result: RunResult) -> Iterator[str]:
    header = ["", *PERCENTILES, "max", "mean"]
    rows = []
    for metric in METRICS:
        summary = result.metrics[metric.name]
        if not summary.max_ns or (metric.name == "device" and not result.metrics["h2d"].max_ns):
            continue  # a phase this engine does not have, or a sum of one
        values = [*summary.percentiles_ns.values(), summary.max_ns, summary.mean_ns]
        rows.append([metric.name, *map(time_or, values)])
        if metric.name == "latency" and summary.margins:
            rows.append(["  95 % ±", *(_margin(summary.margins.get(name)) for name in (*PERCENTILES, "", "mean"))])
    yield from aligned([header, *rows])
    if any(value is None for value in result.metrics["latency"].percentiles_ns.values()):
        yield f"{UNKNOWN} too few requests for this percentile"


def _margin(margin: float | None) -> str:
    return "" if margin is None else percent_text(margin)


def _lanes(result: RunResult) -> Iterator[str]:
    lanes = result.lanes
    if 1 < len(lanes) <= _MOST_LANES:
        rows = [["lane", "requests", "service p50", "compute p50"]]
        for lane in lanes:
            times = (lane.service_p50_ns, lane.compute_p50_ns)
            rows.append([str(lane.lane), str(lane.requests), *map(time_or, times)])
        yield from aligned(rows)
    yield lanes_text(result)
    yield ""


def lanes_text(result: RunResult) -> str:
    """What is to say of all lanes together, in one line."""
    words = []
    if result.fairness is not None and len(result.lanes) > 1:
        words.append(f"fairness {result.fairness:.3f}")
    if result.overlap is not None:
        busy, computing = result.overlap.busy_fraction, result.overlap.lanes_computing
        words.append(f"computing {100 * busy:.1f} % of the time, {computing:.2f} lanes at once")
    words.append(f"host {result.host_cores:.2f} cores")
    if result.clock is not None:
        words.append(f"GPU clock ± {format_duration(max(result.clock.error_ns, result.clock.drift_ns))}")
    return " · ".join(words)


def telemetry_lines(telemetry: GpuTelemetry) -> Iterator[str]:
    """What the GPU drew, and whether it was slowed down; what it did not tell."""
    words = []
    if telemetry.power_mean_watts is not None:
        words.append(f"{telemetry.power_mean_watts:.0f} W")
    if telemetry.energy_joules is not None:
        words.append(f"{format_count(telemetry.energy_joules)} J")
    each = telemetry.joules_per_inference
    if each is not None:
        words.append(f"{joules_text(each)} an inference")
    if telemetry.throttled_fraction is not None:
        words.append(f"slowed down {100 * telemetry.throttled_fraction:.0f} % of the time")
    if words:
        yield f"GPU {' · '.join(words)}"
    if telemetry.missing:
        yield f"GPU not told: {'; '.join(telemetry.missing)}"


def objective_text(item: ObjectiveShare) -> Iterator[str]:
    """The verdict, the quantile and the share of bad requests with their intervals, and why where it is undecided."""
    words = [item.verdict.upper()] if item.verdict else []
    if item.value_ns is not None:
        interval = f" ({between(item.value_low_ns, item.value_high_ns)})" if item.value_low_ns is not None else ""
        words.append(f"{item.objective.quantile} {format_duration(item.value_ns)}{interval}")
    if item.bad is not None:
        share = f"{percent_text(item.bad)} bad"
        if item.bad_low is not None and item.bad_high is not None:
            low, high = f"at least {percent_text(item.bad_low)}", f"at most {percent_text(item.bad_high)}"
            share += f" ({low if item.verdict == 'missed' else high if item.verdict == 'met' else f'{low}, {high}'})"
        words.append(share)
    yield f"objective {item.objective}: {', '.join(words) or 'no request was measured'}"
    if item.reason:
        yield f"  → {item.reason}"


def scenario_lines(found: ScenarioResult) -> Iterator[str]:
    """What the scenario's result is; then, one by one, which of its rules were not kept."""
    if found.latency_ns is not None and found.percentile_ns is not None:
        words = f"{found.metric} {format_duration(found.latency_ns)} by early stopping"
        words += f", {format_duration(found.percentile_ns)} as seen"
    elif found.inferences_per_s is not None:
        words = f"{format_count(found.inferences_per_s)} {found.metric}"
        if found.percentile_ns is not None and found.target_ns is not None:
            words += f", p99 {format_duration(found.percentile_ns)} of {format_duration(found.target_ns)}"
    else:
        words = f"no {found.metric}"
    yield f"scenario {found.scenario}, {'by' if found.by_rules else 'NOT by'} MLPerf's rules: {words}"
    yield from found.reasons


def _mix(result: RunResult) -> Iterator[str]:
    if not result.mix:
        return
    rows = [["mix", "requests", *(f"latency {name}" for name in ("p50", "p99")), "compute p50"]]
    for part in result.mix:
        found = [part.metrics["latency"].percentiles_ns[name] for name in ("p50", "p99")]
        found.append(part.metrics["compute"].percentiles_ns["p50"])
        rows.append([part.name, format_count(part.requests), *map(time_or, found)])
    yield from aligned(rows)
    yield ""


def _batches(batches: Batches) -> Iterator[str]:
    most = sorted(batches.counts.items(), key=lambda item: -item[1])[:6]
    total = sum(batches.counts.values())
    sizes = ", ".join(f"{size} ({percent_text(count / total)})" for size, count in most)
    yield f"batches  {batches.mean:.2f} requests on average · {percent_text(batches.padded)} padding"
    yield f"  most often {sizes}"
    yield ""


def _verdict(result: RunResult) -> str:
    if result.outcome == "failed":
        return f"FAILED: {result.failure}" + ("; what was measured until then is above" if result.ok else "")
    ended = "INTERRUPTED, shown as far as it went; " if result.outcome == "interrupted" else ""
    return ended + ("VALID" if result.valid else "INVALID")
