"""When a run says that partitions of the SMs may serve more: where facts speak for it, and nowhere else."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.findings.findings import findings_of
from loadtrt.results.gpu_telemetry import GpuClient, GpuSharing
from loadtrt.results.steadiness import Steadiness
from loadtrt.sizing.grid import parse_axis, unusable
from runs_by_hand import engine, run_of

if TYPE_CHECKING:
    from loadtrt.results.run_result import Finding, RunResult

FULL = {"compute": 5_400.0}


def _full(options: dict[str, Any] | None = None, contexts: int = 8, **changes: Any) -> RunResult:
    """GoogLeNet at batch 16 with eight contexts, as on an H200."""
    at_once = changes.pop("at_once", float(contexts))
    return run_of(
        changes.pop("times", FULL),
        {"contexts": contexts, "copies": False, **(options or {})},
        at_once=at_once,
        **changes,
    )


def _of(result: RunResult, kind: str = "unpartitioned") -> Finding | None:
    return next((finding for finding in findings_of(result) if finding.kind == kind), None)


@pytest.mark.parametrize(
    ("result", "contexts"),
    [
        (_full(), 8),
        (_full(contexts=4, times={"compute": 2_740.0}), 8),
        (_full(contexts=16, times={"compute": 11_000.0}), 16),
        (_full({"arrivals": "offline", "requests": 10_000}), 8),
        (_full({"copies": True}, engine=engine(mode={"hardware queues": "32"})), 8),
    ],
    ids=["8 contexts", "4", "16", "offline", "copies on queues of their own"],
)
def test_a_full_gpu_may_be_partitioned(result: RunResult, contexts: int) -> None:
    """Law: the remedy is a sweep that its own options accept, with a context for each partition."""
    found = _of(result)
    assert found is not None
    command = shlex.split(found.remedy.split("'")[1])
    given = dict(zip(command[2::2], command[3::2], strict=True))
    assert parse_axis("contexts", given["--contexts"]) == (contexts,)
    partitions = parse_axis("partitions", given["--partitions"])
    assert partitions == (1, 8)
    assert all(unusable({"contexts": contexts, "partitions": count}) is None for count in partitions)


def test_a_gpu_that_others_fill_is_not_told_of() -> None:
    """Law: how full this run alone would make it is not known then."""
    assert _of(_full(sharing=GpuSharing((GpuClient(77, sm_ratio=0.5),)))) is None


def test_an_overloaded_open_loop_is_a_full_gpu_too() -> None:
    """Law: what fills the GPU does not matter, and an open loop below capacity does not."""
    over = Steadiness(transient_ns=0, overloaded=True)
    assert _of(_full({"rate": "2000/s"}, steadiness=over)) is not None
    assert _of(_full({"rate": "2000/s"})) is None


@pytest.mark.parametrize(
    "result",
    [
        _full(engine=engine(mode={"graph": "yes", "partitions": "8 of 16 SMs"})),
        _full(contexts=3),
        _full(engine=engine(batch=8)),
        _full(times={"compute": 1_650.0}),  # 0.2 ms of the GPU for each, as at batch 4
        _full(busy=0.9),
        _full(busy=None),
        _full(at_once=5.0),
        _full(engine=engine("onnxruntime")),
        _full({"copies": True}),  # measured: partitions lose where streams share a queue
        _full({"copies": True}, contexts=16, engine=engine(mode={"hardware queues": "32"})),
        _full({"copies": True}, contexts=4, times={"compute": 2_740.0}, engine=engine(mode={"hardware queues": "16"})),
        _full({"mix": "16:0.5, 32:0.5", "copies": True}),
    ],
    ids=[
        *("partitions in use", "few contexts", "small batch", "short compute", "not busy", "unknown", "in turn"),
        *("CPU", "copies", "more streams than queues", "more after the remedy", "mix"),
    ],
)
def test_nothing_is_said_where_facts_do_not_speak_for_it(result: RunResult) -> None:
    """Law: partitions in use, few contexts, small batches, short work, a GPU with room or other limits."""
    assert _of(result) is None


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ({"partitions": "1 of 32 SMs"}, "its share (partitions) applies only to a part of the plan's work"),
        ({"priority": "high, -5 of 0 to -5"}, "its share (priority) applies"),
        ({"partitions": "1 of 32 SMs", "priority": "-5 of 0 to -5"}, "its share (partitions and priority) applies"),
    ],
)
def test_work_outside_of_its_share_is_told(mode: dict[str, str], words: str) -> None:
    """Law: with what the share is, how many streams escape, and how the plan is built without them."""
    found = _of(run_of(engine=engine(mode={**mode, "auxiliary streams": "2 outside"})), "outside-share")
    assert found is not None
    assert "2 auxiliary streams that tensorrt 10 makes itself" in found.evidence
    assert found.cause.startswith(words)
    assert "--max-aux-streams 0" in found.remedy
    inside = _of(run_of(engine=engine(mode={**mode, "kernels outside": "3 of 57"})), "outside-share")
    assert inside is not None
    assert inside.evidence == "3 of 57 kernels of its CUDA graphs have another priority or other SMs"
    assert _of(run_of(engine=engine(mode=mode)), "outside-share") is None
