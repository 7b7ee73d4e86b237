"""One result of the results of a fleet's workers. It is made of all of them at once, in the order of their numbers, and
keeps them: whichever are merged first, the end is the same.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

from loadtrt.asked.reading import OUTPUT_KEYS
from loadtrt.errors import UsageError
from loadtrt.load.dealing import is_even, parse_worker
from loadtrt.printing import command_line, shortened
from loadtrt.results.one_model import one_of
from loadtrt.results.run_result import Finding, LostWorker, Problem, RunResult
from loadtrt.stats.idle_workers import KIND as IDLE
from loadtrt.stats.idle_workers import got_none, idle_workers
from loadtrt.stats.run_length import few_samples
from loadtrt.stats.union import union_of
from loadtrt.units import MILLISECOND_NS, format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.results.run_result import ModelResult

    _Told = TypeVar("_Told", Problem, Finding)

SPREAD_NS = 10 * MILLISECOND_NS  # of the workers' starts: beyond it they did not share the load
_NO_RESULT = "it left no result"
# Of a run that differ from worker to worker: where it is, what it is called, what is written and shown.
_OF_A_WORKER = OUTPUT_KEYS | {"worker", "device", "engine", "plugins", "lean_library"}


def merge(results: Mapping[str, RunResult], lost: Sequence[LostWorker] = ()) -> RunResult:
    """The result of a fleet.

    results: of workers, or of some of them already merged, by what to call them in errors.
    lost: what is known of workers without a result.

    Raises UsageError where they are not of one fleet, or two are of one worker.
    """
    named = {name: run for file, result in results.items() for name, run in _workers_in(file, result)}
    runs = [run for _, run in sorted(named.items(), key=lambda item: int(item[1].worker))]
    _require_one_fleet(named)
    count = parse_worker(str(runs[0].config.worker))[1]
    told = {item.worker: item for result in results.values() for item in result.lost} | {
        item.worker: item for item in lost
    }
    measured = {int(run.worker) for run in runs}
    missing = tuple(
        told.get(number, LostWorker(worker=number, why=_NO_RESULT)) for number in range(count) if number not in measured
    )
    return _sum(runs, missing, count)


def _workers_in(file: str, result: RunResult) -> Iterator[tuple[str, RunResult]]:
    """(what to call it, result) of each worker."""
    for run in result.workers or (result,):
        if run.config.worker is None:
            raise UsageError(
                f"{file} is not of a worker, and takes all of its load: merge results of 'loadtrt run --worker', which "
                "share one load; 'loadtrt compare' and 'loadtrt report' take runs side by side"
            )
        yield f"worker {run.worker} of {file}" if result.workers else file, run


def _require_one_fleet(named: Mapping[str, RunResult]) -> None:
    """Raise UsageError unless the results are of different workers of one load."""
    (first, one), *others = named.items()
    seen = {one.worker: first}
    for name, run in others:
        for key, (a, b) in _different(_shared(one), _shared(run)).items():
            raise UsageError(
                f"{name} is of another load than {first}: its {key.replace('_', '-')} is {shortened(b, 60)}, and not "
                f"{shortened(a, 60)}; merge workers of one run"
            )
        if run.worker in seen:
            raise UsageError(f"{seen[run.worker]} and {name} are both of worker {run.worker}: give one of them")
        seen[run.worker] = name


def _shared(run: RunResult) -> dict[str, str]:
    """What all workers of a fleet have in common, as text."""
    options: dict[str, Any] = {}
    for name, model in run.config.models.items():
        whose = f"{name}: " if len(run.config.models) > 1 else ""
        asked = run.config.alone(name).options()
        options |= {f"{whose}{key}": value for key, value in asked.items() if key not in _OF_A_WORKER}
        if run.models[name].engine.kind == "simulated":  # others are known by their content, wherever they lie
            options[f"{whose}engine"] = model.engine
        if run.models[name].trace:  # so is this
            options[f"{whose}trace"] = f"one with the digest {run.models[name].trace}"
    options["number of workers"] = run.config.worker and run.config.worker.partition("/")[2]
    return {key: str(value) for key, value in options.items()}


def _different(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {key: (a.get(key, "not set"), b.get(key, "not set")) for key in {**a, **b} if a.get(key) != b.get(key)}


def versions_of(run: RunResult) -> dict[str, str]:
    """The versions of which all workers must have the same, by name; "" for one that is not known."""
    gpu, packages = run.environment.get("gpu") or {}, run.environment.get("packages") or {}
    versions = {"loadtrt": run.loadtrt, "driver": str(gpu.get("driver") or run.environment.get("driver") or "")}
    versions["CUDA"] = str(packages.get("cuda-bindings") or "")
    for name, model in run.models.items():
        whose = f" of {name}" if len(run.models) > 1 else ""
        versions[f"runtime{whose}"] = f"{model.engine.flavour} {model.engine.version}"
        versions[f"plan{whose}"] = model.engine.sha256[:12]
    return versions


def _sum(runs: Sequence[RunResult], lost: tuple[LostWorker, ...], count: int) -> RunResult:
    first = runs[0]
    missing = ""
    if lost:
        numbers = ", ".join(str(item.worker) for item in lost)
        missing = f"{len(runs)} of {plural(count, 'worker')}: nothing is known of the requests of worker {numbers}"
    spread = max((after for after in began_after(runs) if after is not None), default=None)
    problems = list(_problems(runs, spread))
    findings = list(_findings(runs))
    per_gpu = list({_gpu(run) or str(place): place for place, run in reversed(list(enumerate(runs)))}.values())
    models = {}
    for place, (name, model) in enumerate(first.config.models.items()):
        parts = [run.models[name] for run in runs]
        told = (*problems, *gathered([part.problems for part in parts], "worker", [run.worker for run in runs]))
        found = gathered([part.findings for part in parts], "worker", [run.worker for run in runs])
        failures = [part.failure for part in parts if part.failure is not None]
        union = union_of(model, parts, missing, per_gpu, even=is_even(first.config.routing))
        found = tuple(item for item in found if item.kind not in ("few-samples", IDLE))  # judged of all together
        if not (told or union.ok or union.failed or union.unserved):
            told = (Problem(kind="no-requests", evidence="no request was served", remedy="measure for longer"),)
        models[name] = union.model_copy(
            update={
                "valid": not told and all(part.valid for part in parts),
                "problems": told,
                "findings": (*(findings if place == 0 else ()), *found),
                "failure": failures[0] if failures else None,
            }
        )
    failures = [f"worker {run.worker}: {run.failure}" for run in runs if run.outcome == "failed"]
    failures = [*([f"only {missing}{_last_counts(lost)}"] if lost else []), *failures]
    interrupted = any(run.outcome == "interrupted" for run in runs)
    late = [run.late_start_ns for run in runs if run.late_start_ns is not None]
    environments = [run.environment for run in runs]
    phases = [run.phases.model_dump() for run in runs]
    settled = [run.phases.clocks_settled for run in runs]
    longest = {key: max(phase[key] for phase in phases) for key in phases[0] if key != "clocks_settled"}
    result = RunResult(
        run=f"fleet-{hashlib.sha256(' '.join(sorted(run.run for run in runs)).encode()).hexdigest()[:12]}",
        loadtrt=first.loadtrt,
        started=min(run.started for run in runs),
        began=min((run.began for run in runs if run.began), default=""),
        began_error_ns=max(run.began_error_ns for run in runs),
        late_start_ns=max(late, default=None),
        command=tuple(command_line()),
        config=first.config.model_copy(update={"worker": None}),
        environment={
            key: value
            for key, value in environments[0].items()
            if all(value == other.get(key) for other in environments)
        },
        outcome="failed" if failures else "interrupted" if interrupted else "completed",
        failure="; ".join(failures) or None,
        valid=not failures and all(model.valid for model in models.values()),
        phases=first.phases.model_copy(
            update={**longest, "clocks_settled": None if None in settled else all(settled)},
        ),
        host_cores=cores_of(runs),
        clock=max((run.clock for run in runs if run.clock is not None), key=lambda clock: clock.error_ns, default=None),
        models=models,
        workers=tuple(runs),
        lost=lost,
        start_spread_ns=spread,
    )
    return result.model_copy(update={"models": {name: _with_findings(result, name) for name in models}})


def _with_findings(result: RunResult, name: str) -> ModelResult:
    """A model of the fleet, with what is found of all its workers together: some were idle, or all had too few
    requests."""
    model, alone = result.models[name], one_of(result, name)
    if not model.ok:
        return model
    idle, few = [run.worker for run in alone.workers if got_none(run.model)], few_samples(alone)
    found = [idle_workers(alone.config, idle, len(alone.workers) + len(alone.lost))] if idle else []
    return model.model_copy(update={"findings": (*model.findings, *found, *([] if few is None else [few]))})


def _last_counts(lost: Sequence[LostWorker]) -> str:
    """What is known of workers that are lost."""
    return "".join(
        f"; worker {item.worker}: {item.why}"
        + (f", after {plural(item.completed, 'request')} at the last count" if item.completed else "")
        for item in lost
    )


def cores_of(runs: Sequence[RunResult]) -> float | None:
    """Processor time of all of their processes over measured time; None where time is virtual."""
    known = [run.host_cores for run in runs if run.host_cores is not None]
    return sum(known) if known else None


def began_after(runs: Sequence[RunResult]) -> list[int | None]:
    """How long after the first of the runs each began to measure, ns, by the clock on which it measures; None where it
    never did. Clocks of hosts count as far as they are known to be apart. Virtual clocks begin together, whenever the
    processes did."""
    begun = [run.began_ns - int(run.environment.get("clock_ahead_ns", 0)) if run.began else None for run in runs]
    first = min((began for began in begun if began is not None), default=0)
    return [
        None if began is None else 0 if _virtual_time(run) else began - first
        for run, began in zip(runs, begun, strict=True)
    ]


def _virtual_time(run: RunResult) -> bool:
    """Whether it was measured by a virtual clock: all models of a run have one, or none."""
    return any(model.engine.virtual_time for model in run.models.values())


def _gpu(run: RunResult) -> str:
    """The GPU that a run used; "" without one."""
    return str((run.environment.get("gpu") or {}).get("uuid") or "")


def _problems(runs: Sequence[RunResult], spread: int | None) -> Iterator[Problem]:
    """What is wrong with the fleet as such."""
    if spread is not None and spread > SPREAD_NS:
        last = runs[began_after(runs).index(spread)]
        same = all(run.late_start_ns is not None for run in runs)  # instant: that of --start-at, or of who started them
        hosts = {run.environment.get("host") for run in runs}
        yield Problem(
            kind="late-start",
            evidence=f"worker {last.worker} began to measure {format_duration(spread)} after the first one (limit "
            f"{format_duration(SPREAD_NS)}): for that time the fleet was smaller than its load was made for",
            remedy=("leave each worker a core, or give a later --start-at" if same else "give all the same --start-at")
            + ", as opening, verification and warm-up come before it"
            + ("; synchronize the hosts' clocks by NTP or PTP" if len(hosts) > 1 else ""),
        )
    versions = [versions_of(run) for run in runs]
    differ = [name for name in versions[0] if len({of.get(name, "") for of in versions}) > 1]
    if differ:
        texts = []
        for name in differ:
            having: dict[str, list[str]] = {}
            for run, of in zip(runs, versions, strict=True):
                having.setdefault(of.get(name) or "not known", []).append(run.worker)
            told = (f"{value} (worker {', '.join(who)})" for value, who in having.items())
            texts.append(f"{name} {', '.join(told)}")
        yield Problem(
            kind="versions-differ",
            evidence=f"workers differ in {'; '.join(texts)}",
            remedy="install the same versions everywhere, and give all workers the same plan",
        )


def _findings(runs: Sequence[RunResult]) -> Iterator[Finding]:
    """What the reader of the fleet's result should know."""
    hosts = {str(run.environment.get("host")): _clock_error_ns(run) for run in runs}
    loose = [host for host, error in hosts.items() if error is None or error > SPREAD_NS]
    if len(hosts) > 1 and loose and not any(map(_virtual_time, runs)):
        yield Finding(
            kind="clocks-apart",
            evidence=f"the clock of {', '.join(loose)} is not known to be right within {format_duration(SPREAD_NS)}",
            cause="the start spread is by the clocks of several hosts, and is as wrong as these are",
            remedy="synchronize the hosts by NTP or PTP: chronyc tracking says how far a clock is off",
        )


def _clock_error_ns(run: RunResult) -> int | None:
    """How far the clock may be off by which a worker began: as round trips told, with its drift, or as the kernel."""
    told = run.environment
    if "clock_offset_error_ns" in told:
        return int(told["clock_offset_error_ns"]) + abs(int(told.get("clock_drift_ns", 0)))
    return told.get("clock_error_ns")


def gathered(found: Sequence[Sequence[_Told]], noun: str, names: Sequence[str]) -> tuple[_Told, ...]:
    """Each kind of what was found in several runs once, with the evidence of the first run and how many have it.

    noun, names: what to call the runs, such as "start" and their numbers.
    """
    first = {item.kind: item for of_run in reversed(found) for item in reversed(of_run)}
    told = []
    for kind in dict.fromkeys(item.kind for of_run in found for item in of_run):
        having = [name for name, of_run in zip(names, found, strict=True) if kind in {item.kind for item in of_run}]
        more = f"; likewise in {len(having)} of {plural(len(found), noun)}" if len(having) > 1 else ""
        told.append(first[kind].model_copy(update={"evidence": f"{first[kind].evidence} ({noun} {having[0]}{more})"}))
    return tuple(told)
