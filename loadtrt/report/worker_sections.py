"""The workers of a fleet: the numbers of each beside its GPU's clocks, and the slowest and the fastest of them."""

from __future__ import annotations

from operator import itemgetter
from statistics import fmean
from typing import TYPE_CHECKING

from loadtrt.records.histogram import Histogram
from loadtrt.report.charts.shares import spectrum
from loadtrt.report.charts.timeline import side_by_side
from loadtrt.report.document import Badge, Figure, Name, Section, Table, section, words
from loadtrt.report.formatting import UNKNOWN, count_or, percent_text, time_or
from loadtrt.report.run_verdict import outcome_badge, state_badge, time_of, turns_text
from loadtrt.report.settings import latency_bounds
from loadtrt.results.one_model import models_of
from loadtrt.stats.idle_workers import got_none
from loadtrt.stats.merging import SPREAD_NS, began_after, versions_of
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.report.document import Block, Cell
    from loadtrt.results.run_result import ModelResult, RunResult

_MOST_FIGURES = 16
_APART = 1.02  # the fastest worker over the slowest one: less is noise
_MEGA = 1e6
_OF_GPU = ("SM clock", "slowed down")  # columns


def workers(result: RunResult) -> Section:
    """What each worker measured, in the order of their numbers."""
    return section("Workers", *_blocks(result), bare=True)


def fleet_text(config: RunConfig, axes: Collection[str] = ()) -> str:
    """Which workers make the runs of a sweep or a search, apart from what its axes say; "" for none."""
    devices, processes = (getattr(config, name) if name not in axes else None for name in ("devices", "processes"))
    texts = [] if devices is None else [f"devices {devices}"]
    texts += [f"{processes} processes{' on each' if texts else ''}"] if processes and processes > 1 else []
    texts += [f"Ray cluster {config.ray}"] if config.ray is not None else []
    texts += [plural(config.workers, "worker")] if config.workers is not None and "workers" not in axes else []
    several = texts or not {"devices", "processes"}.isdisjoint(axes)
    texts += [f"{config.routing} routing"] if several and not config.model.load.closed else []
    return " · ".join(texts)


def on_one_gpu(runs: Sequence[RunResult]) -> str:
    """How workers on one GPU shared it, as the driver tells; "" where none did, and where that is not known."""
    sharing = set()
    for run in runs:
        gpus = [(worker.environment.get("gpu") or {}).get("uuid") for worker in run.workers]
        together = [
            worker.sharing for worker, gpu in zip(run.workers, gpus, strict=True) if gpus.count(gpu) > 1 and gpu
        ]
        sharing |= {one.mps for one in together if one is not None}
    if len(sharing) != 1:
        return ""
    return turns_text("workers", mps=sharing.pop())


def _blocks(result: RunResult) -> Iterator[Block]:
    yield words(" · ".join(_together(result)))
    yield from map(words, _extremes(result))
    yield from _devices(result)
    yield _table(result)
    versions = [versions_of(run) for run in result.workers]
    differ = [name for name in versions[0] if len({of.get(name) for of in versions}) > 1]
    if differ:
        rows = [
            (run.worker, *(Name(of.get(name) or UNKNOWN) for name in differ))
            for run, of in zip(result.workers, versions, strict=True)
        ]
        yield Table(("worker", *differ), tuple(rows), words=1 + len(differ))
    for name in result.models:
        yield from _figures(result, name)
    if len(result.workers) > _MOST_FIGURES:
        yield words(f"Charts show the first {_MOST_FIGURES} workers.", only="page")


def _figures(result: RunResult, name: str) -> Iterator[Block]:
    """Small charts of a model at each worker, over time; of a short run its latencies."""
    whose = f"{name}, " if len(result.models) > 1 else ""
    runs = [run for run in result.workers if run.models[name].ok][:_MOST_FIGURES]
    measured = [run.models[name] for run in runs]
    bounds = latency_bounds(models_of(result)[name])
    if measured and all(len(model.intervals) > 1 for model in measured):
        end_ns = max(run.phases.measure_ns for run in runs)
        charts = side_by_side([(model.intervals, model.interval_ns) for model in measured], end_ns, bounds)
        for run, (rates, latencies, rank) in zip(runs, charts, strict=True):
            yield Figure(f"{whose}worker {run.worker}: throughput", rates)
            yield Figure(f"{whose}worker {run.worker}: {rank}", latencies)
        return
    for run, model in zip(runs, measured, strict=True):
        marks = [(rank, time) for rank in ("p50", "p99") if (time := time_of(model.metrics, rank))]
        chart = spectrum(Histogram.from_dict(model.histograms["latency"]), marks, bounds)
        yield Figure(f"{whose}worker {run.worker}", chart, "how many requests took how long")


def _devices(result: RunResult) -> Iterator[Block]:
    """The GPUs of a fleet, where several workers share some."""
    by_device: dict[str, list[RunResult]] = {}
    for run in result.workers:
        gpu, host = run.environment.get("gpu") or {}, str(run.environment.get("host", ""))
        number = run.environment.get("device")
        if number is not None or gpu.get("uuid"):
            by_device.setdefault(str(gpu.get("uuid") or (host, number)), []).append(run)
    if all(len(runs) == 1 for runs in by_device.values()):
        return
    several, rows = len(result.models) > 1, list[tuple["Cell", ...]]()
    for runs in by_device.values():
        power = next((run.telemetry.power_mean_watts for run in runs if run.telemetry is not None), None)
        for name in result.models:
            models = [run.models[name] for run in runs]
            whole = Histogram()
            for model in models:
                whole.merge(Histogram.from_dict(model.histograms["latency"]))
            p50, p99 = ("p50", 0.5), ("p99", 0.99)
            enough = {rank: whole.count >= least_samples(share) for rank, share in (p50, p99)}
            times = [time_or(whole.quantiles([share])[0] if enough[rank] else None) for rank, share in (p50, p99)]
            numbers = (str(sum(model.ok for model in models)), count_or(_rate(models)), *times)
            gpu = (*_gpu_cells(runs[0]), UNKNOWN if power is None else f"{power:.0f} W")
            who = ", ".join(run.worker for run in runs)
            rows.append((Name(_device(runs[0], models[0])), who, *((Name(name),) if several else ()), *numbers, *gpu))
    measured = ("requests", "requests/s", "latency p50", "latency p99", *_OF_GPU, "power")
    header = ("device", "workers", *(("model",) if several else ()), *measured)
    if not any(run.telemetry is not None for run in result.workers):
        header, rows = header[:-3], [row[:-3] for row in rows]
    yield Table(header, tuple(rows), words=3 if several else 2)


def _rate(models: Sequence[ModelResult]) -> float | None:
    """Requests a second of several workers together."""
    rates = [rate for model in models if (rate := model.throughput.requests_per_s) is not None]
    return sum(rates) if len(rates) == len(models) else None


def _gpu_cells(run: RunResult) -> tuple[str, str]:
    """Mean SM clock, and how much of the time the GPU was slowed down."""
    clock, slowed = _clock(run), run.telemetry.throttled_fraction if run.telemetry is not None else None
    return f"{clock:.0f} MHz" if clock else UNKNOWN, UNKNOWN if slowed is None else percent_text(slowed)


def _together(result: RunResult) -> Iterator[str]:
    yield result.fleet
    if not all(model.load.closed for model in result.config.models.values()):
        yield f"{result.config.routing} routing"
    if how := on_one_gpu([result]):
        yield how
    if result.start_spread_ns is not None:
        yield f"began within {format_duration(result.start_spread_ns)} (limit {format_duration(SPREAD_NS)})"
    clocks = [run.environment for run in result.workers if "clock_offset_ns" in run.environment]
    if clocks:
        offsets = [clock["clock_offset_ns"] for clock in clocks]
        error = max(clock["clock_offset_error_ns"] for clock in clocks)
        drift = max(abs(clock.get("clock_drift_ns", 0)) for clock in clocks)
        yield (
            f"clocks {format_duration(min(offsets))} .. {format_duration(max(offsets))} ahead, ± "
            f"{format_duration(error)}, drift up to {format_duration(drift)}"
        )
    for name, model in result.models.items():
        if model.routing is not None and any(count for _, count in model.routing.histogram["buckets"]):
            p50, p99 = map(format_duration, Histogram.from_dict(model.routing.histogram).quantiles((0.5, 0.99)))
            yield f"{f'{name}: ' if len(result.models) > 1 else ''}routing a request took {p50}, p99 {p99}"
        if model.fairness is not None:
            yield f"{f'{name}: ' if len(result.models) > 1 else ''}fairness {model.fairness:.3f}"


def _extremes(result: RunResult) -> Iterator[str]:
    """The slowest and the fastest worker, with what may explain it: of an open loop by service, else by throughput."""
    for name, model in result.config.models.items():
        known = []
        for run in result.workers:
            measured = run.models[name]
            rate, median = measured.throughput.requests_per_s, time_of(measured.metrics, "p50", "service")
            if rate and median:
                known.append((1 / rate if model.load.closed else median, rate, median, run))
        known.sort(key=itemgetter(0))
        if not known or known[-1][0] < _APART * known[0][0]:
            continue
        texts = []
        for word, (_, rate, median, run) in (("slowest", known[-1]), ("fastest", known[0])):
            facts = [f"{count_or(rate)}/s", f"service p50 {format_duration(median)}"]  # what they are compared by first
            facts = [*(facts if model.load.closed else reversed(facts)), *_gpu_facts(run)]
            texts.append(f"{word}: worker {run.worker} ({', '.join(facts)})")
        yield f"{f'{name}: ' if len(result.models) > 1 else ''}{'; '.join(texts)}"


def _gpu_facts(run: RunResult) -> Iterator[str]:
    clock, slowed = _clock(run), run.telemetry and run.telemetry.throttled_fraction
    if clock is not None:
        yield f"SM clock {clock:.0f} MHz"
    if slowed:
        yield f"slowed down {percent_text(slowed)} of the time"


def _clock(run: RunResult) -> float | None:
    """Mean SM clock while it measured, MHz."""
    seconds = run.telemetry.intervals if run.telemetry is not None else ()
    known = [second.sm_clock_mean_hertz for second in seconds if second.sm_clock_mean_hertz is not None]
    return fmean(known) / _MEGA if known else None


def _table(result: RunResult) -> Table:
    several = len(result.models) > 1
    rows: list[tuple[Cell, ...]] = []
    for run, after in zip(result.workers, began_after(result.workers), strict=True):
        for name, single in models_of(run).items():
            shown = (UNKNOWN if after is None else format_duration(after), *_numbers(single.model))
            where = Name(str(run.environment.get("host", ""))), Name(_device(run, single.model))
            rows.append(
                (run.worker, *((Name(name),) if several else ()), *where, _badge(single), *shown, *_gpu_cells(run))
            )
    for item in result.lost:
        last = f"{item.completed} by then" if item.completed else UNKNOWN
        filled: tuple[Cell, ...] = ("", "", outcome_badge("lost"), UNKNOWN, last, *[UNKNOWN] * 5)
        rows.append((str(item.worker), *(("",) if several else ()), *filled))
    rows.sort(key=lambda row: int(str(row[0])))
    numbers = ("began after", "requests", "requests/s", "latency p50", "latency p99", *_OF_GPU)
    header = ("worker", *(("model",) if several else ()), "host", "device", "", *numbers)
    if not any(run.telemetry is not None for run in result.workers):
        header, rows = header[:-2], [row[:-2] for row in rows]
    one_host = len({run.environment.get("host") for run in result.workers}) == 1
    left_out = (*((header.index("host"),) if one_host else ()), header.index("began after"))
    return Table(header, tuple(rows), words=5 if several else 4, detail=left_out)


def _badge(single: RunResult) -> Badge:
    """How a worker's run of a model ended, or that there was nothing for it to do."""
    return outcome_badge("idle") if single.valid and got_none(single.model) else state_badge(single)


def _device(run: RunResult, model: ModelResult) -> str:
    """The device, with its number where that was said."""
    number = run.environment.get("device")
    return model.engine.device if number is None else f"{number}: {model.engine.device}"


def _numbers(model: ModelResult) -> tuple[str, ...]:
    times = (time_or(time_of(model.metrics, name)) for name in ("p50", "p99"))
    return (str(model.ok), count_or(model.throughput.requests_per_s), *times)
