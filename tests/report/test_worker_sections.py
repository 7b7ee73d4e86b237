"""What a report says of a fleet's workers: devices that several share, and charts on the same axes."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest

import loadtrt
from loadtrt.report.document import Figure, Table
from loadtrt.report.worker_sections import workers as section_of

VIRTUAL: dict[str, Any] = {
    "engine": "simulated:service=4ms,cv=0.5,distribution=gamma,clock=virtual",
    "warmup": 0,
    "objective": "latency.p99 < 20ms",
}


@cache
def fleet(devices: tuple[int | None, ...], **options: Any) -> loadtrt.RunResult:
    """A worker on each of these devices."""
    asked = {"rate": 600 * len(devices), "duration": "3s", "contexts": 4, **options}
    runs = []
    for number, device in enumerate(devices):
        run = loadtrt.run(**VIRTUAL, **asked, worker=f"{number}/{len(devices)}")
        told = {} if device is None else {"device": device}
        runs.append(run.model_copy(update={"environment": {**run.environment, **told}}))
    return loadtrt.merge(*runs)


def tables(result: loadtrt.RunResult) -> list[Table]:
    return [block for block in section_of(result).blocks if isinstance(block, Table)]


def figures(result: loadtrt.RunResult) -> list[Figure]:
    return [block for block in section_of(result).blocks if isinstance(block, Figure)]


def test_a_device_of_several_workers_has_a_row() -> None:
    """With the sums of their requests and rates, and the percentiles of both together."""
    result = fleet((3, 3, 5))
    devices, each = tables(result)
    assert devices.header[:3] == ("device", "workers", "requests")
    assert [row[1] for row in devices.rows] == ["0, 1", "2"]
    counts = [run.model.ok for run in result.workers]
    assert [row[2] for row in devices.rows] == [str(counts[0] + counts[1]), str(counts[2])]
    of_two = loadtrt.merge(*result.workers[:2]).model.metrics["latency"].percentiles_ns["p99"]
    assert of_two is not None
    assert devices.rows[0][5] == f"{of_two / 1e6:.3g} ms"
    assert devices.rows[1][2:6] == each.rows[2][each.header.index("requests") :][:4]


@pytest.mark.parametrize("devices", [(0, 1), (None, None)])
def test_devices_of_one_worker_each_have_no_table_of_their_own(devices: tuple[int | None, ...]) -> None:
    (each,) = tables(fleet(devices))
    assert each.header[0] == "worker"


def ticks(figure: Figure) -> list[str]:
    return re.findall(r'class="tick"[^>]*>([^<]*)<', figure.svg)


def test_charts_of_workers_have_the_same_axes() -> None:
    """Throughput and p99 of each, and the objective."""
    drawn = figures(fleet((0, 1)))
    assert [figure.title for figure in drawn] == [
        "worker 0: throughput", "worker 0: p99", "worker 1: throughput", "worker 1: p99",
    ]  # fmt: skip
    assert ticks(drawn[0]) == ticks(drawn[2])
    assert ticks(drawn[1]) == ticks(drawn[3])
    assert all("bad" in figure.svg for figure in drawn[1::2])


def test_a_percentile_that_seconds_can_have_is_drawn() -> None:
    """Of a hundred requests a second at least p99, of fewer a lower one."""
    titles = [figure.title for figure in figures(fleet((0, 1), rate=60))]
    assert titles[1::2] == ["worker 0: p90", "worker 1: p90"]


def test_a_short_run_has_no_course() -> None:
    titles = [figure.title for figure in figures(fleet((0, 1), duration="500ms"))]
    assert titles == ["worker 0", "worker 1"]
