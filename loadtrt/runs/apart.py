"""The one result of models that were measured beside each other by workers, each in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loadtrt.lanes.joined import Sent, joined
from loadtrt.lanes.model_run import Session
from loadtrt.lanes.outcome import result_of
from loadtrt.printing import command_line
from loadtrt.results.engine_info import GPU_KINDS
from loadtrt.results.run_result import Problem, RunResult
from loadtrt.stats.merging import SPREAD_NS, began_after, cores_of
from loadtrt.units import format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.results.engine_info import ClockMapping, EngineInfo
    from loadtrt.results.gpu_telemetry import GpuSharing
    from loadtrt.runs.started_worker import StartedWorker


@dataclass(frozen=True, slots=True)
class _Gone:
    """An engine whose process has gone."""

    info: EngineInfo
    contexts: int

    def clock_mapping(self) -> ClockMapping | None:
        return None


def result_apart(config: RunConfig, workers: Sequence[StartedWorker], own: Collection[int]) -> RunResult:
    """The result of all models, of which one or more were measured. A model whose worker was lost has its failure.

    workers: of the models, in their order; each has told its engine, or has a result.
    own: ids of the workers, and of what started them: no strangers on the GPU.
    """
    measured = [worker.result for worker in workers if worker.result is not None]
    on_gpu = next((run for run in measured if run.environment.get("gpu")), measured[0])
    sharing = on_gpu.sharing and replace(
        on_gpu.sharing, clients=tuple(client for client in on_gpu.sharing.clients if client.pid not in own)
    )
    telemetry, inferences = on_gpu.telemetry, sum(run.model.inferences for run in measured)
    if telemetry is not None and telemetry.energy_joules is not None:
        joules = telemetry.energy_joules / inferences if inferences else None
        telemetry = telemetry.model_copy(update={"joules_per_inference": joules})
    begun = [after for after in began_after(measured) if after is not None]
    spread = max(begun) if len(begun) > 1 else None
    late = list(_late(measured, spread))
    of_all = {"telemetry": telemetry, "sharing": sharing, "start_spread_ns": spread}
    singles: dict[str, RunResult] = {}
    for worker in workers:
        run = worker.result or _lost(worker, config, measured[0])
        problems, engine = (*run.model.problems, *late), run.model.engine
        engine = replace(engine, mode={**engine.mode, "processes": _way(engine, len(workers), sharing)})
        run = run.with_model(engine=engine, problems=problems, valid=not problems)
        valid = run.model.valid and run.failure is None
        singles[worker.model] = run.model_copy(update={**of_all, "valid": valid})
    result = joined(singles, config, {worker.model: _sent(worker) for worker in workers})
    settled = [run.phases.clocks_settled for run in measured]
    phases = {
        "load_ns": max(run.phases.load_ns for run in measured),
        "clocks_settled": None if None in settled else all(settled),
    }
    return result.model_copy(
        update={
            "started": min(run.started for run in measured),
            "began": min((run.began for run in measured if run.began), default=""),
            "began_error_ns": max(run.began_error_ns for run in measured),
            "late_start_ns": max(
                (run.late_start_ns for run in measured if run.late_start_ns is not None), default=None
            ),
            "command": tuple(command_line()),
            "environment": {key: value for run in (*measured, on_gpu) for key, value in run.environment.items()},
            "phases": result.phases.model_copy(update=phases),
            "host_cores": cores_of(measured),
        }
    )


def _way(engine: EngineInfo, processes: int, sharing: GpuSharing | None) -> str:
    """How the process of a model shares the GPU with the others."""
    if sharing is None or engine.kind not in GPU_KINDS or processes == 1:
        return f"1 of {processes}"
    return f"1 of {processes}, {'MPS' if sharing.mps else 'by turns'}"


def _late(runs: Sequence[RunResult], spread: int | None) -> Iterator[Problem]:
    """That models did not begin together."""
    if spread is not None and spread > SPREAD_NS:
        (last,) = runs[began_after(runs).index(spread)].models
        yield Problem(
            kind="late-start",
            evidence=f"{last} began to be measured {format_duration(spread)} after the first model (limit "
            f"{format_duration(SPREAD_NS)}): for that time the others were without it",
            remedy="leave the process of each model a core",
        )


def _lost(worker: StartedWorker, config: RunConfig, other: RunResult) -> RunResult:
    """What there is of a model whose worker left no result. other: of another model."""
    assert worker.loaded is not None  # noqa: S101  # else there is no run
    engine, bill = worker.loaded[worker.model]
    lost = worker.lost
    counted = f", after {plural(lost.completed, 'request')} at the last count" if lost.completed else ""
    return result_of(
        Session(failure=f"its process is lost: {lost.why}{counted}"),
        _Gone(engine, config.models[worker.model].contexts),
        config.alone(worker.model),
        bill,
        run=other.run,
        load_ns=0,
        started=other.started,
        command=other.command,
        environment={},
    )


def _sent(worker: StartedWorker) -> Sent | None:
    run = worker.result
    if run is None:
        return Sent(worker.elapsed_ns, failed=True) if worker.phase == "measure" else None
    if not run.began:
        return None
    failed = run.failure is not None
    return Sent(max(run.phases.measure_ns - (0 if failed else run.phases.drain_ns), 0), failed)
