"""A session's records → the result that is kept: the one way from measuring to run.json."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import loadtrt
from loadtrt.findings.findings import findings_of
from loadtrt.findings.remedies import faster_host, less_load
from loadtrt.findings.validity import Counts, Terms, lateness_of, problems_of, typical_ns
from loadtrt.lanes.recorder import Recorder
from loadtrt.records.board import KEEP
from loadtrt.records.histogram import Histogram
from loadtrt.records.records import DROPPED, FAILED, METRICS, OK, UNSERVED
from loadtrt.results.breakdown import Phases, RoutingCost, Throughput
from loadtrt.results.gpu_telemetry import mark_throttled
from loadtrt.results.run_result import ModelResult, ObjectiveShare, Problem, RunResult
from loadtrt.stats.early import Widths, ranks_of
from loadtrt.stats.flow_law import flow_of
from loadtrt.stats.intervals import rate_interval
from loadtrt.stats.scenario import Sending, lasted_of, scenario_of
from loadtrt.stats.steady import steadiness_of
from loadtrt.stats.summary import (
    batches_of,
    cohorts_of,
    fairness,
    lanes_of,
    mix_of,
    overlap_of,
    sample_of,
    summarize,
    window_of,
)
from loadtrt.stats.untimed import untimed
from loadtrt.stats.verdict import judge
from loadtrt.stats.whole_run import judge_number
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_duration

LATE_START_NS = 10 * MILLISECOND_NS  # after the instant that was asked for: less is the host's noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.asked.model import Model
    from loadtrt.asked.objective import Objective
    from loadtrt.lanes.model_run import Session
    from loadtrt.lanes.shared_router import SharedRouter
    from loadtrt.results.engine_info import ClockMapping, EngineInfo, MemoryBill
    from loadtrt.results.gpu_telemetry import GpuSharing, GpuTelemetry
    from loadtrt.results.steadiness import Interval, Steadiness


class Served(Protocol):
    """What is asked of an engine once a run is over."""

    @property
    def info(self) -> EngineInfo: ...
    @property
    def contexts(self) -> int: ...
    def clock_mapping(self) -> ClockMapping | None: ...


def result_of(
    session: Session,
    engine: Served,
    config: RunConfig,
    bill: MemoryBill,
    *,
    run: str,
    load_ns: int,
    started: str,
    command: Sequence[str],
    environment: dict[str, Any],
    telemetry: GpuTelemetry | None = None,
    sharing: GpuSharing | None = None,
) -> RunResult:
    """Everything that is known of a run of one model, however it ended.

    started: ISO 8601, UTC.
    """
    recorder = session.recorder or Recorder(engine.contexts, 0, keep=0)
    driven, info, model = session.driven, engine.info, config.model
    metrics = summarize(recorder.records, recorder.histograms, recorder.complete, model.load.steady)
    served = [int(count) for count in recorder.by_lane]
    ok, failed, unserved = (int(recorder.by_status[status]) for status in (OK, FAILED, UNSERVED))
    measured_ns, starved, intervals = recorder.measured_ns, recorder.starved_fraction, recorder.intervals
    throughput, steadiness = _throughput(recorder, config), _steadiness(recorder, model, intervals, session.input_sets)
    counts = Counts(
        *lateness_of(metrics["lateness"]),
        typical_ns(metrics["latency"]),
        starved_fraction=starved if metrics["compute"].max_ns or not info.device_times else 0.0,
        ok=ok,
        failed=failed,
        unserved=unserved,
        none_due=config.worker is not None and session.began_at is not None and not recorder.submitted,
        interrupted=session.interrupted,
        broken=session.failure is not None,
        overloaded=bool(steadiness.overloaded),
        served_per_s=throughput.requests_per_s,
        sharing=sharing,
    )
    terms = Terms(
        model.load.closed,
        model.max_lateness,
        model.objectives,
        info.mode,
        throughput.offered_per_s,
        environment.get("busy_host"),
        faster_host=faster_host(model, info, command, metrics),
        less_load=less_load(model),
        shared_gpu=config.shared_gpu,
    )
    faults = [
        session.verification and session.verification.fault_of(model.in_flight),
        session.deviation and session.deviation.fault,
    ]
    problems = [
        *(Problem(kind="outputs-differ", evidence=fault[0], remedy=fault[1]) for fault in faults if fault),
        *problems_of(counts, terms),
    ]
    if (session.late_start_ns or 0) > LATE_START_NS:
        problems.append(
            Problem(
                kind="late-start",
                evidence=f"measuring began {format_duration(session.late_start_ns or 0)} after the instant asked for",
                remedy="free cores, or a later --start-at: opening, verification and warm-up come before it",
            )
        )
    parts = [(part.name, part.weight) for part in model.mix_parts]
    sizes = [size for size in (model.batching.sizes if model.batching else ()) for _ in range(session.input_sets)]
    widths = Widths(ranks_of(model.objectives), config.precision) if config.precision is not None else None
    length_ns = config.least_ns(model)
    whole = driven is not None and length_ns and not (session.interrupted or session.failure or session.ended_early)
    several = model.batching is not None or model.requests_per_launch > 1  # at a time
    measured = ModelResult(
        engine=replace(info, notes=(*info.notes, *session.notes)),
        inputs=dict(session.origins),
        memory=bill,
        valid=not problems,
        problems=tuple(problems),
        submitted=recorder.submitted,
        ok=ok,
        failed=failed,
        unserved=unserved,
        dropped=int(recorder.by_status[DROPPED]),
        inferences=recorder.inferences,
        first_error=recorder.first_error,
        throughput=throughput,
        percentiles_exact=recorder.complete,
        metrics=metrics,
        lanes=tuple(lanes_of(recorder.records, served)),
        fairness=fairness(served),
        overlap=overlap_of(recorder.records),
        starved_fraction=starved,
        verification=session.verification,
        trace=session.trace,
        deviation=session.deviation,
        interval_ns=recorder.spans.interval_ns,
        intervals=mark_throttled(intervals, telemetry),
        histograms={name: histogram.to_dict() for name, histogram in recorder.histograms.items()},
        objectives=tuple(
            _of_fleet(share) if config.worker is not None else share
            for place, objective in enumerate(model.objectives)
            for share in [_judged(place, objective, recorder, model, throughput, telemetry)]
        ),
        mix=tuple(mix_of(recorder.records, parts, session.input_sets, model.load.steady)) if parts else (),
        batches=batches_of(recorder.records, sizes) if sizes else None,
        ended_early=session.ended_early,
        precision_reached=widths and widths.reached(recorder.records, recorder.histograms["latency"]),
        steadiness=steadiness,
        cohorts=cohorts_of(recorder.records),
        sample=sample_of(recorder.records, recorder.start_ns),
        flow=None if several else flow_of(recorder.records, engine.contexts),
        window=window_of(recorder.records, recorder.start_ns, length_ns) if whole and recorder.complete else None,
        routing=None if session.router is None else _routing(session.router),
    )
    if not info.device_times:
        measured = untimed(measured)
    (name,) = config.models
    result = RunResult(
        run=run,
        loadtrt=loadtrt.__version__,
        started=started,
        began=_with_ns(session.began_at),
        began_error_ns=session.began_error_ns,
        late_start_ns=session.late_start_ns,
        command=tuple(command),
        config=config,
        environment=environment,
        outcome="failed" if session.failure else "interrupted" if session.interrupted else "completed",
        failure=session.failure,
        valid=measured.valid and session.failure is None,
        phases=Phases(
            load_ns=load_ns,
            allocate_ns=session.allocate_ns,
            compile_ns=session.compile_ns,
            verify_ns=session.verify_ns,
            warmup_ns=session.warmup_ns,
            warmup_requests=session.warmup_requests,
            clocks_settled=session.clocks_settled,
            measure_ns=measured_ns,
            drain_ns=driven.end_ns - driven.sent_ns if driven else 0,
        ),
        host_cores=None if info.virtual_time else recorder.cpu_ns / measured_ns if measured_ns else 0.0,
        clock=engine.clock_mapping(),
        telemetry=telemetry,
        sharing=sharing,
        models={name: measured},
    )
    sending = Sending(
        requests=int(recorder.by_status.sum()),
        answered=ok,
        inferences=1 if model.batcher else info.batch,
        lasted_ns=lasted_of(
            recorder.records,
            recorder.complete,
            recorder.start_ns,
            int(recorder.last_completed_ns.max()),
            recorder.histograms["service" if model.load.closed else "latency"].max or 0,
            model.load.closed,
        ),
    )
    scenario = scenario_of(model.scenario, sending, recorder.records, recorder.histograms, measured.objectives)
    return result.with_model(findings=findings_of(result), scenario=scenario)


def _routing(router: SharedRouter) -> RoutingCost:
    histogram = Histogram()
    histogram.add(router.took_ns)
    return RoutingCost(chosen=router.chosen, histogram=histogram.to_dict())


def _with_ns(instant: int | None) -> str:
    """ISO 8601 of Unix time in ns, UTC."""
    if instant is None:
        return ""
    seconds, ns = divmod(instant, SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09d}+00:00"


def _steadiness(recorder: Recorder, model: Model, intervals: Sequence[Interval], sets: int) -> Steadiness:
    return steadiness_of(
        recorder.records,
        recorder.start_ns,
        closed=model.load.closed,
        steady=model.load.steady,
        places=model.in_flight,
        intervals=() if recorder.complete else intervals,
        interval_ns=recorder.spans.interval_ns,
        sets=sets if model.mix_parts or model.batching else 0,
    )


def _judged(
    place: int,
    objective: Objective,
    recorder: Recorder,
    model: Model,
    throughput: Throughput,
    telemetry: GpuTelemetry | None,
) -> ObjectiveShare:
    """The verdict on the objective at that place of the recorder's bounds."""
    good = int(recorder.good[place]) if recorder.seen else 0
    if not objective.of_requests:
        return judge_number(
            objective,
            throughput,
            recorder.records,
            good,
            recorder.by_status.tolist(),
            steady=model.load.steady_rate,
            sizes=recorder.items.tolist(),
            intervals=recorder.intervals,
            telemetry=telemetry,
        )
    histogram = recorder.histograms[METRICS[objective.metric].name]
    return judge(objective, recorder.records, histogram, good, int(recorder.by_status.sum()), KEEP)


def _of_fleet(share: ObjectiveShare) -> ObjectiveShare:
    """What one worker can say of an objective of the fleet: of a rate or of power no verdict, as all add up."""
    if share.objective.of_requests or share.objective.kind == "energy":
        return share
    return share.model_copy(update={"verdict": None, "reason": "it is of all workers together"})


def _throughput(recorder: Recorder, config: RunConfig) -> Throughput:
    load = config.model.load
    rate = recorder.throughput_per_s(load.closed)
    return Throughput(
        requests_per_s=rate,
        inferences_per_s=None if rate is None else rate * recorder.inferences / int(recorder.by_lane.sum()),
        offered_per_s=config.offered_per_s(config.model),
        confidence=rate_interval(rate, recorder.records) if rate is not None and load.steady_rate else None,
        span_ns=recorder.span_ns,
    )
