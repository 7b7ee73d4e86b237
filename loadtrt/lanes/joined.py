"""One result of models that were measured beside each other, of what each would be as a run of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from loadtrt.findings.findings import findings_of
from loadtrt.lanes.outcome import result_of
from loadtrt.results.run_result import Finding, RunResult
from loadtrt.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.lanes.model_run import ModelRun
    from loadtrt.results.engine_info import MemoryBill

LEAST_ALONE = 0.1  # of the measured time, in which a model of several was without one of the others


class Sent(NamedTuple):
    """How long a model sent requests from the start, ns; of one that failed, until its last completion."""

    ns: int
    failed: bool


class Together(NamedTuple):
    """How long all models sent requests, and had answers, from the start, ns, and which of them ended first."""

    ns: int
    first: str
    failed: bool


def result_of_models(
    runs: Sequence[ModelRun], config: RunConfig, bills: Mapping[str, MemoryBill], **facts: Any
) -> RunResult:
    """Everything that is known of a run of one model or of several, however it ended. facts: as for `result_of`."""
    singles = {
        run.name: result_of(run.session, run.engine, config.alone(run.name), bills[run.name], **facts) for run in runs
    }
    return joined(singles, config, {run.name: _sent(run) for run in runs})


def joined(singles: Mapping[str, RunResult], config: RunConfig, sent: Mapping[str, Sent | None]) -> RunResult:
    """The result of one model or of several.

    singles: of each by itself, with what is known of the whole GPU the same in all.
    sent: None for one that never measured.
    """
    first = next(iter(singles.values()))
    if len(singles) == 1:
        return first.model_copy(update={"config": config})
    together = _together(sent, config)
    shown: set[Finding] = set()  # what is of the whole GPU is said once
    models = {}
    for name, single in singles.items():
        measured = {"together_ns": together.ns, "measure_ns": single.phases.measure_ns, "failure": single.failure}
        beside = single.with_model(**measured)
        own = [finding for finding in findings_of(beside) if finding not in shown]
        shown.update(own)
        found = (*_neighbour_ended(beside, together), *own)
        models[name] = beside.model.model_copy(update={"findings": found})
    failures = [f"{name}: {single.failure}" for name, single in singles.items() if single.failure is not None]
    interrupted = any(single.outcome == "interrupted" for single in singles.values())
    phases = [single.phases for single in singles.values()]
    longest = ("compile_ns", "verify_ns", "warmup_ns", "measure_ns", "drain_ns")
    sums = ("allocate_ns", "warmup_requests")
    return first.model_copy(
        update={
            "config": config,
            "outcome": "failed" if failures else "interrupted" if interrupted else "completed",
            "failure": "; ".join(failures) or None,
            "valid": all(single.valid for single in singles.values()),
            "phases": first.phases.model_copy(
                update={name: max(getattr(phase, name) for phase in phases) for name in longest}
                | {name: sum(getattr(phase, name) for phase in phases) for name in sums}
            ),
            "host_cores": max(
                (cores for single in singles.values() if (cores := single.host_cores) is not None), default=None
            ),
            "clock": next((single.clock for single in singles.values() if single.clock is not None), None),
            "models": models,
        }
    )


def _sent(run: ModelRun) -> Sent | None:
    recorder, driven = run.session.recorder, run.session.driven
    if recorder is None:
        return None
    end_ns = int(recorder.last_completed_ns.max()) if run.failed or driven is None else driven.sent_ns
    return Sent(end_ns - recorder.start_ns, run.failed)


def _together(sent: Mapping[str, Sent | None], config: RunConfig) -> Together:
    """A schedule lasts as long as it was to last, though its last request may come well before."""
    least: Together | None = None
    longest = 0
    for name, one in sent.items():
        if one is None:
            return Together(0, name, failed=True)
        lasted = max(one.ns, 0 if one.failed else config.least_ns(config.models[name]))
        longest = max(longest, one.ns)
        if least is None or lasted < least.ns:
            least = Together(lasted, name, one.failed)
    assert least is not None  # noqa: S101  # there are models
    return least._replace(ns=min(least.ns, longest))


def _neighbour_ended(single: RunResult, together: Together) -> Iterator[Finding]:
    """A model that was measured without one of the others for a tenth of its time or more."""
    alone_ns = single.phases.measure_ns - single.phases.drain_ns - together.ns
    if single.model.ok and alone_ns >= LEAST_ALONE * single.phases.measure_ns:
        all_, measured = format_duration(together.ns), format_duration(single.phases.measure_ns)
        longer = "give all models the same length: --duration, and --stages-loop or --trace-loop"
        yield Finding(
            kind="neighbour-ended",
            evidence=f"all models sent requests for {all_} of {measured}: {together.first} ended first",
            cause="it failed" if together.failed else "its own schedule ends then",
            remedy=f"see why {together.first} failed" if together.failed else longer,
        )
