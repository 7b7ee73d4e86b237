"""Files of measurements → the queueing model of one GPU, and the measurements to check it against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.records.histogram import Histogram
from loadtrt.results.capacity_result import CapacityResult, SweepResult
from loadtrt.results.fleet_result import Gpu, Speed
from loadtrt.sizing.batching_law import server_law
from loadtrt.sizing.measured_law import closed_flow, pooled
from loadtrt.units import SECOND_NS, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.asked.objective import Objective
    from loadtrt.results.capacity_result import Candidate, Trial
    from loadtrt.results.engine_info import EngineInfo
    from loadtrt.results.flow import Flow
    from loadtrt.results.run_result import RunResult
    from loadtrt.sizing.measured_law import Law, MeasuredLaw

_CROWDED = 0.97  # share of the highest throughput below which a drop is not noise

Source: TypeAlias = CapacityResult | SweepResult | tuple["RunResult", ...]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The measurements of one engine on one GPU, and its model.

    law: the model to simulate, and how well it is known.
    gpu: the model as results keep it.
    closed: closed loops with one request per lane, by requests in flight.
    open: runs at an arrival rate.
    capacity: the measured capacity; None for files of other kinds.
    notes: a sentence on each thing that was left out or assumed.
    """

    engine: EngineInfo
    law: Law
    gpu: Gpu
    closed: Mapping[int, RunResult]
    open: tuple[RunResult, ...]
    capacity: Candidate | None
    objectives: tuple[Objective, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Runs:
    """Runs of one engine with one setting. loops: closed loops with their requests in flight, or contexts."""

    loops: list[tuple[int, RunResult]] = field(default_factory=list)
    open: list[RunResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def closed(self) -> dict[int, RunResult]:
        """A closed loop with each number; of several, such as starts of a run, the last."""
        return dict(self.loops)

    def take(self, run: RunResult | None, place: int | None, name: str, why_not: str | None = None) -> None:
        """Take a run, or leave it out with a note. place: its key in `closed`; None for an open loop."""
        if run is None or run.model.throughput.requests_per_s is None:
            why_not = why_not or "no request was served"
        elif not run.valid:
            problem = run.model.problems[0].evidence if run.model.problems else run.failure
            why_not = why_not or problem or "the run is INVALID"
        if why_not:
            self.notes.append(f"{name} was left out: {why_not}")
        elif run is not None and place is not None:
            self.loops.append((place, run))
        elif run is not None:
            self.open.append(run)

    def take_trial(self, trial: Trial) -> None:
        rate, why_not = trial.rate_per_s, trial.host_bound
        if rate and trial.overloaded:  # a plan is of GPUs that serve the neighbours' loads, too
            why_not = why_not or f"{' and '.join(trial.overloaded)} beside it had more load than was served"
        name = f"the trial at {rate:g}/s" if rate else f"ladder with {trial.in_flight} in flight"
        self.take(trial.run, trial.in_flight, name, why_not)


def evidence_of(source: Source, contexts: int | None = None, batch: int | None = None) -> Evidence:
    """The evidence on one engine. Raises UsageError if the measurements are not enough.

    contexts, batch: the setting to take; None for the chosen candidate, or else the one with the highest throughput.
    """
    match source:
        case CapacityResult():
            return _of_capacity(source, contexts, batch)
        case SweepResult():
            runs = tuple(point.run for point in source.points if point.run is not None)
            if not runs:
                raise UsageError(f"the sweep measured nothing: {source.failure or 'it ended early'}")
            return _of_runs(runs, "sweep", contexts, batch)
        case _:
            return _of_runs(source, "set of runs", contexts, batch)


def _of_capacity(result: CapacityResult, contexts: int | None, batch: int | None) -> Evidence:
    fitting = [
        candidate
        for candidate in result.candidates
        if contexts in (None, candidate.contexts) and batch in (None, candidate.items)
        if candidate.ladder and candidate.engine
    ]
    if not fitting:
        known = ", ".join(
            f"{plural(each.contexts, 'context')} {'with a batcher' if each.batcher else f'at batch {each.items}'}"
            for each in result.candidates
            if each.ladder
        )
        choose = f"{known}: choose with --contexts and --batch"
        why = choose if known else f"no closed loop: {result.failure or 'it ended early'}"
        raise UsageError(f"the search for capacity measured {why}")
    chosen = result.best if result.best in fitting else max(fitting, key=_most_inferences)
    if chosen.batcher or result.config.model.max_queue is not None:
        return _of_server(result, chosen)
    runs = _Runs()
    for trial in (*chosen.ladder, *chosen.searched):
        runs.take_trial(trial)
    assert chosen.engine is not None  # noqa: S101  # of `fitting`
    if 1 not in runs.closed:
        raise UsageError(f"a plan needs the closed loop with one request in flight: {runs.notes[0]}")
    if max(runs.closed) < chosen.contexts:
        most = plural(max(runs.closed), "request")
        runs.notes.append(f"the closed loops go up to {most} in flight: throughput is assumed constant beyond")
    runs.notes.extend(_crowded(runs))
    return _evidence(chosen.engine, chosen.contexts, chosen.buffers, chosen.items, runs, result.objectives, chosen)


def _of_server(result: CapacityResult, chosen: Candidate) -> Evidence:
    """The evidence on a server that forms batches or bounds its queue."""
    runs = _Runs()
    for trial in chosen.trials:
        runs.take_trial(trial)
    closed = [run for _, run in runs.loops]
    base = result.config.model.model_copy(update={"contexts": chosen.contexts, "buffers": chosen.buffers})
    law = server_law(closed, base)
    if law is None:
        why = f": {runs.notes[0]}" if runs.notes else ", which the search did not reach: continue it with --resume"
        raise UsageError(f"a plan needs closed loops of batches of each size with one in flight{why}")
    full, least = law.laws[max(law.laws)], law.laws[min(law.laws)]
    measured = {run.config.model.contexts * run.config.model.buffers for run in closed}
    assert chosen.engine is not None  # noqa: S101  # of `fitting`
    return Evidence(
        engine=chosen.engine,
        law=law,
        gpu=Gpu(
            contexts=chosen.contexts,
            buffers=chosen.buffers,
            batch=chosen.items,
            speeds=tuple(
                Speed(in_flight=n, requests_per_s=max(law.laws) * full.throughput(n), measured=n in measured)
                for n in range(1, chosen.contexts * chosen.buffers + 1)
            ),
            most_per_s=law.station.most_per_s,
            alone_mean_ns=law.station.alone_s * SECOND_NS,
            alone_cv=least.cv,
            requests=law.requests,
            batcher=chosen.batcher,
            max_queue=base.max_queue,
            watts=_watts(runs.open),
            scaling=chosen.scaling,
        ),
        closed={},
        open=tuple(runs.open),
        capacity=chosen,
        objectives=result.objectives,
        notes=tuple(runs.notes),
    )


def _of_runs(runs: Sequence[RunResult], word: str, contexts: int | None, batch: int | None) -> Evidence:
    fitting = [run for run in runs if batch in (None, run.model.engine.batch)]
    if any(run.config.model.batcher for run in fitting):
        raise UsageError(
            f"the {word} has a batcher, which a plan knows from closed loops of batches of each size: give the file of "
            "a search with that batcher (loadtrt capacity --batcher)"
        )
    closed = [run for run in fitting if run.config.model.load.closed and contexts in (None, run.config.model.contexts)]
    if not closed:
        options = (("contexts", contexts), ("batch", batch))
        which = " ".join(["", *(f"--{name} {value}" for name, value in options if value is not None)])
        raise UsageError(
            f"the {word} has no closed loop{which and ' of'}{which}: a plan needs runs without a rate, at --contexts 1 "
            "and more"
        )
    best = max(closed, key=lambda run: (run.valid, run.model.throughput.inferences_per_s or 0))
    width, buffers = best.config.model.contexts, best.config.model.buffers
    notes: list[str] = []
    if len({_setting(run) for run in fitting}) > 1:
        choose = "; --batch chooses another" if len({run.model.engine.batch for run in fitting}) > 1 else ""
        notes.append(f"of several settings, the plan uses the one with the highest throughput: {_words(best)}{choose}")
    usable = _Runs(notes=notes)
    for run in fitting:
        if _setting(run) != _setting(best) or run.config.model.contexts > width:
            continue
        contexts = run.config.model.contexts
        if run.config.model.load.closed:
            usable.take(run, contexts, f"the closed loop of {plural(contexts, 'context')}")
        elif contexts == width:
            usable.take(run, None, f"the run at {run.model.throughput.offered_per_s or 0:g}/s")
    if 1 not in usable.closed:
        raise UsageError(_not_alone(best, fitting))
    if width not in usable.closed:
        raise UsageError(f"the closed loop of {plural(width, 'context')} cannot be used: {usable.notes[-1]}")
    if buffers > 1:
        usable.notes.append(
            f"with {buffers} buffer sets per context no request had the GPU to itself: its device time stands for its "
            "latency; measure with --buffers 1 for the latency itself"
        )
    every = (*(run for _, run in usable.loops), *usable.open)
    objectives = tuple(dict.fromkeys(bound for run in every for bound in run.config.model.objectives))
    return _evidence(best.model.engine, width, buffers, best.model.engine.batch, usable, objectives)


def _evidence(
    engine: EngineInfo,
    contexts: int,
    buffers: int,
    batch: int,
    runs: _Runs,
    objectives: tuple[Objective, ...],
    capacity: Candidate | None = None,
) -> Evidence:
    """The model of the GPU from its runs. A capacity's closed loops fill one buffer set of each context and then the
    others; those of other runs, by contexts, fill all buffer sets: the device time stands for the latency then."""
    full = capacity is None and buffers > 1
    law = _law(contexts, buffers, runs, full=full)
    queue = law.station
    alone_ns = (law.alone_s or queue.alone_s) * SECOND_NS
    return Evidence(
        engine=engine,
        law=law,
        gpu=Gpu(
            contexts=contexts,
            buffers=buffers,
            batch=batch,
            speeds=tuple(
                Speed(in_flight=n, requests_per_s=law.throughput(n), measured=n in runs.closed)
                for n in range(1, (queue.in_flight if capacity else contexts) + 1)
            ),
            most_per_s=queue.most_per_s,
            alone_mean_ns=alone_ns,
            alone_cv=law.cv,
            requests=law.requests,
            watts=_watts([*(runs.closed.values() if capacity else [runs.closed[contexts]]), *runs.open]),
            scaling=capacity.scaling if capacity else None,
        ),
        closed={} if full else {n: run for n, run in runs.closed.items() if n <= contexts},
        open=tuple(runs.open),
        capacity=capacity,
        objectives=objectives,
        notes=tuple(runs.notes),
    )


def _law(contexts: int, buffers: int, runs: _Runs, *, full: bool) -> MeasuredLaw:
    """The law of all requests of all runs; of the closed loops alone where no run has kept it, or where these fill all
    buffer sets of fewer contexts, so that requests in flight are not what they are in the whole. full: they do."""
    alone = runs.closed[1]
    every = [*(run for _, run in runs.loops), *runs.open]
    kept = [] if full else [run.model.flow for run in every if run.model.flow is not None]
    if kept:
        others = [(n, run) for n, run in runs.loops if run.model.flow is None]
        return pooled(contexts, buffers, [*kept, *(_closed_flow(n, run, "latency") for n, run in others)], kept)
    metric = "device" if full else "latency"
    flows = [(n, _closed_flow(n, run, metric if n == 1 else "latency")) for n, run in runs.loops]
    histogram = _histogram(alone, metric)
    alone_s = (alone.model.metrics[metric].mean_ns or histogram.sum / histogram.count) / SECOND_NS if full else None
    return pooled(contexts, buffers, [flow for _, flow in flows], [flow for n, flow in flows if n == 1], alone_s)


def _closed_flow(in_flight: int, run: RunResult, metric: str) -> Flow:
    return closed_flow(in_flight, max(run.model.ok, 1), _rate(run), _histogram(run, metric))


def _crowded(runs: _Runs) -> Iterator[str]:
    """A note if fewer requests in flight have a higher throughput."""
    measured = {n: _rate(run) for n, run in runs.closed.items()}
    best, most = max(measured, key=lambda n: measured[n]), max(measured)
    if measured[most] < _CROWDED * measured[best]:
        yield (
            f"throughput with {best} in flight is {100 * (measured[best] / measured[most] - 1):.0f} % above that with "
            f"{most}, to which a queue leads: measure with fewer contexts or buffers"
        )


def _setting(run: RunResult) -> tuple[object, ...]:
    """The setting that all runs of a plan share; contexts and the load may differ."""
    engine, model = run.model.engine, run.config.model
    # The way of submitting is chosen by what serves most: it may depend on the number of contexts.
    mode = tuple(sorted((key, value) for key, value in engine.settings.items() if key != "submit"))
    return engine.name, engine.sha256, engine.device, engine.batch, model.buffers, model.submit, model.mix, mode


def _words(run: RunResult) -> str:
    engine = run.model.engine
    mode = [f"{key} {value}" for key, value in engine.mode.items()]
    return ", ".join([engine.name, f"batch {engine.batch}", plural(run.config.model.buffers, "buffer"), *mode])


def _not_alone(best: RunResult, runs: Sequence[RunResult]) -> str:
    """Why no closed loop of one context can be used."""
    needs = "a plan needs a closed loop with --contexts 1 and all else as in the others"
    for run in runs:
        if run.config.model.load.closed and run.config.model.contexts == 1:
            if _setting(run) == _setting(best):
                return f"the closed loop of one context is INVALID: {needs}"
            others, mode = best.model.engine.settings, run.model.engine.settings
            unlike = [key for key in mode if mode[key] != others.get(key) and key != "submit"]  # which may differ
            differ = "; ".join(f"{key} {mode[key]}, not {others.get(key)}" for key in unlike)
            return f"the closed loop of one context has other settings ({differ or _words(run)}): {needs}"
    return f"the latency of a single request in flight was not measured: {needs}"


def _rate(run: RunResult) -> float:
    rate = run.model.throughput.requests_per_s
    assert rate is not None  # noqa: S101  # _Runs takes no other
    return rate


def _histogram(run: RunResult, metric: str) -> Histogram:
    histogram = Histogram.from_dict(run.model.histograms[metric]) if metric in run.model.histograms else Histogram()
    if not histogram.count:
        how = "with --buffers 1, or without --device-times off" if metric == "device" else "again"
        raise UsageError(f"the run of {run.started} has no histogram of its {metric}: measure it {how}")
    return histogram


def _watts(runs: Sequence[RunResult]) -> tuple[tuple[float, float], ...]:
    """(requests per second, W) by rate; the mean over runs at the same rate."""
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        if run.telemetry is not None and run.telemetry.power_mean_watts is not None:
            by_rate.setdefault(_rate(run), []).append(run.telemetry.power_mean_watts)
    return tuple((rate, float(np.mean(sorted(watts)))) for rate, watts in sorted(by_rate.items()))


def _most_inferences(candidate: Candidate) -> float:
    rates = [trial.run.model.throughput.inferences_per_s for trial in candidate.ladder if trial.run is not None]
    return max((rate for rate in rates if rate), default=0.0)
