"""The thresholds that docs/findings.md states are those of the code."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from loadtrt.findings import bottlenecks, device_scaling, findings, lane_findings, partitioning, utilization
from loadtrt.findings.validity import LEAST_SERVED, STARVED_LIMIT
from loadtrt.lanes import joined
from loadtrt.records.histogram import QUANTILE_ERROR
from loadtrt.stats import merging, slow_parts, stalls, steady

PAGE = (Path(__file__).parents[2] / "docs" / "findings.md").read_text()
ROWS = dict(re.findall(r"^\| ([a-z, -]+) \| (.*) \|$", PAGE, re.MULTILINE))
STEADY = PAGE.partition("## Steady state")[2].partition("```")[0]
BULLETS = dict(re.findall(r"^- `(\w+)`(.*(?:\n  .*)*)", STEADY, re.MULTILINE))


def percent(share: float) -> str:
    return f"{round(100 * share, 6):g} %"


def numbers(text: str) -> list[str]:
    """The numbers of a text in order, such as "5 %" or "1 000", without those of `code`, p99 and MSER-5."""
    prose = re.sub(r"`[^`]*`|\bp\d+|[A-Z]+-\d+", "", text)
    return re.findall(r"(?<!\w)\d+(?:[ .]\d+)*(?: %)?", prose)


IN_ROWS = {
    "clocks-apart": [str(merging.SPREAD_NS // 1_000_000)],
    "neighbour-ended": [percent(joined.LEAST_ALONE)],
    "overloaded": [percent(LEAST_SERVED)],
    "scaling": [
        percent(device_scaling.LEAST),
        "95 %",
        *(percent(it) for it in (device_scaling.FULL_CORES, device_scaling.GREW - 1)),
    ],
    "transient": [percent(findings.FILLING)],
    "drift": [percent(findings.DRIFT - 1)],
    "slow-part": [percent(findings.DRIFT - 1)],
    "enqueue-bound": [percent(utilization.FULL), percent(bottlenecks.ENQUEUING)],
    "copy-bound": [percent(it) for it in (utilization.FULL, utilization.BUSY)],
    "copies-exposed": [percent(bottlenecks.EXPOSED), percent(utilization.BUSY)],
    "host-bound": [percent(it) for it in (bottlenecks.STARVED, bottlenecks.LATE, utilization.FULL, STARVED_LIMIT)],
    "queue-bound": [percent(lane_findings.WAITING), percent(lane_findings.FREE)],
    "contexts-in-turn": [f"{lane_findings.IN_TURN:g}"],
    "interference": [f"{lane_findings.ALONE:g}"],
    "unfair": [f"{lane_findings.UNFAIR:g}", f"{lane_findings.SLOWER:g}"],
    "compute-bound": [percent(utilization.BUSY)],
    "unpartitioned": [
        str(partitioning.LEAST_CONTEXTS),
        percent(partitioning.FULL),
        str(partitioning.LEAST_BATCH),
        str(partitioning.LEAST_NS // 1000),
    ],
    "idle": [percent(bottlenecks.IDLE)],
    "not-exact": [percent(round(QUANTILE_ERROR, 3))],
}
IN_BULLETS = {
    "transient_ns": [
        percent(steady.LEAST_PART),
        str(steady.LEAST_FIRST),
        percent(steady.LEAST_STEP - 1),
        percent(1 - steady._TRANSIENT),
    ],
    "drift_ratio": [
        percent(1 - steady._OPEN_DRIFT),
        f"{steady.LEAST_LOOP:,}".replace(",", " "),
        percent(1 - steady._LOOP_DRIFT),
    ],
    "overloaded": [str(steady.BLOCKS), percent(1 - steady._OVERLOAD / 2), str(slow_parts.MOST_WAITING)],
    "slow": [
        *(str(it) for it in (slow_parts.SPANS, slow_parts.LEAST_RISE, slow_parts.SPANS, slow_parts.MOST_WAITING)),
        "1 %",
        str(math.floor(slow_parts.LEAST_RISE * math.sqrt(slow_parts.SPANS))),
        *(str(it) for it in (slow_parts.LEAST_SERVED, slow_parts.PARTS)),
        percent(slow_parts.LEAST_SEGMENT / slow_parts.PARTS),
        percent(slow_parts.LEAST_STEP - 1),
        percent(1 - slow_parts.SEGMENT),
    ],
    "stall": [
        str(stalls.LEAST_SPANS),
        "100",
        "0.1 %",
        percent(stalls.ALARM),
        percent(stalls.LEAST_LATE),
        percent(stalls.LEAST_TIME),
    ],
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_states_the_thresholds_of_its_finding(kind: str) -> None:
    """These and no other numbers: a threshold that comes into the table comes into IN_ROWS, too."""
    assert numbers(ROWS[kind]) == IN_ROWS.get(kind, [])


@pytest.mark.parametrize("field", BULLETS)
def test_a_law_of_steadiness_states_its_thresholds(field: str) -> None:
    """These first; what follows is how often the law errs."""
    expected = IN_BULLETS[field]
    assert numbers(BULLETS[field])[: len(expected)] == expected


def test_no_threshold_is_left_out() -> None:
    """Every finding and every law that has thresholds is described; both least numbers of requests are given."""
    assert IN_ROWS.keys() <= ROWS.keys()
    assert IN_BULLETS.keys() == BULLETS.keys()
    assert numbers(STEADY.partition("\n- ")[0]) == [str(steady.LEAST_REQUESTS)]
