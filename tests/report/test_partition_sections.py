"""What a sweep says of shares of the SMs: how many a plan needs, and whether partitions serve more."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loadtrt
from loadtrt.report.partition_sections import KEPT, sms_of
from loadtrt.report.plain import plain
from loadtrt.report.result_files import Loaded
from loadtrt.report.sweep_sections import sweep
from loadtrt.results.breakdown import Throughput
from loadtrt.results.capacity_result import SweepPoint, SweepResult
from reported import html_text, markdown_text
from runs_by_hand import run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtrt.results.run_result import RunResult


def _run(rate: float, partitions: str = "", options: dict[str, Any] | None = None, **changes: Any) -> RunResult:
    run = run_of(options={"contexts": 8, **(options or {})}, **changes)
    engine = run.model.engine
    mode = {**engine.mode, **({"partitions": partitions} if partitions else {})}
    throughput = Throughput(requests_per_s=rate / 16, inferences_per_s=rate, offered_per_s=None)
    return run.with_model(engine=replace(engine, mode=mode), throughput=throughput)


def _sweep(points: Sequence[tuple[dict[str, Any], RunResult | None]]) -> SweepResult:
    axes = {name: tuple(dict.fromkeys(settings[name] for settings, _ in points)) for name in points[0][0]}
    return SweepResult(
        loadtrt="1",
        started="",
        command=("loadtrt", "sweep"),
        config=run_of(options={"contexts": 8}).config,
        environment={},
        axes=axes,
        outcome="completed",
        points=tuple(SweepPoint(settings=settings, run=run) for settings, run in points),
    )


def _told(points: Sequence[tuple[dict[str, Any], RunResult | None]]) -> str:
    return " ".join(plain(list(sweep(_sweep(points), "", ""))).split())


def _curve(rates: dict[int, float], **changes: Any) -> str:
    return _told([({"sms": sms}, _run(rate, f"1 of {sms} SMs", **changes)) for sms, rate in rates.items()])


def test_the_knee_is_the_fewest_sms_that_keep_the_throughput() -> None:
    """Law: 95 % of the most, with the latency there and on the most SMs."""
    text = _curve({16: 500.0, 48: 960.0, 32: 951.0, 64: 1000.0, 128: 999.0})
    assert "32 SMs are enough for 95 % of the throughput: 951 of 1 000 inferences/s, latency p99 4.00 ms" in text
    assert "; 4.00 ms on 128 SMs" in text
    assert "; " not in _curve({8: 100.0, 16: 180.0})  # which are the most
    assert "8 SMs, the fewest that were measured, are enough for 95 % of the throughput" in _curve({8: 98.0, 16: 101.0})
    assert "the throughput still grows at 16 SMs, the most that were measured" in _curve({8: 100.0, 16: 180.0})
    assert "8 SMs, the fewest" in _curve({8: 110.0, 16: 100.0})  # clocks fall under load


def test_the_knee_is_on_the_page() -> None:
    """In HTML and in Markdown."""
    points = [({"sms": sms}, _run(rate, f"1 of {sms} SMs")) for sms, rate in ((16, 500.0), (32, 960.0), (64, 1000.0))]
    shown = [Loaded("sweep.json", _sweep(points))]
    for text in (html_text(shown), markdown_text(shown)):
        assert "32 SMs are enough for 95 % of the throughput" in text.replace("\u00a0", " ")


@given(st.dictionaries(st.integers(1, 16), st.integers(100, 110), min_size=2, max_size=8))
def test_fewer_sms_would_not_keep_it(rates: dict[int, float]) -> None:
    """Law: the knee serves KEPT of the most, and no point of fewer SMs does."""
    text = _curve({8 * place: float(rate) for place, rate in rates.items()})
    (knee,) = map(int, re.findall(r"(\d+) SMs(?: are|, the fewest|, the most)", text))
    most = max(rates.values())
    assert rates[knee // 8] >= KEPT * most
    assert all(rate < KEPT * most for place, rate in rates.items() if 8 * place < knee)


def test_sms_are_those_that_the_gpu_gave() -> None:
    """Law: the curve is over what contexts computed on, not over what was asked for."""
    points = [({"sms": 20}, _run(900.0, "1 of 24 SMs")), ({"sms": 60}, _run(1000.0, "1 of 64 SMs"))]
    assert "the throughput still grows at 64 SMs" in _told(points)
    assert sms_of(_run(1.0, "8 of 16 SMs")) == 16
    assert sms_of(_run(1.0)) is None


@pytest.mark.parametrize("scales", [0.2, 0.6, 1.0])
def test_the_knee_of_a_simulated_device_is_amdahls(scales: float) -> None:
    """Law: on a part P throughput is 1 / (1 − f + f / P) of that of the whole; the knee is the least P that keeps KEPT.
    The page draws throughput against P."""
    parts = [10, 20, 40, 60, 80, 90, 100]
    result = loadtrt.sweep(
        engine=f"simulated:service=2ms,scales={scales},device=g,clock=virtual",
        sms=[f"{part}%" for part in parts],
        contexts=1,
        warmup=0,
        duration="2s",
    )
    knee = next(part for part in parts if 1 / (1 - scales + scales * 100 / part) >= KEPT)
    text = " ".join(plain(list(sweep(result, "", ""))).split())
    if knee < 100:
        assert f"{knee} % of the SMs are enough for 95 % of the throughput" in text
    else:
        assert "the throughput still grows at 100 % of the SMs, the most that were measured" in text
    assert "% of the SMs 40: " in html_text([Loaded("sweep.json", result)]).replace("\u00a0", " ")


def test_each_of_the_other_settings_has_a_curve() -> None:
    """Law: points are compared where all else is equal."""
    points = [
        ({"batch": batch, "sms": sms}, _run(rate, f"1 of {sms} SMs"))
        for batch, rates in ((1, {16: 99.0, 32: 100.0}), (16, {16: 50.0, 32: 100.0}))
        for sms, rate in rates.items()
    ]
    text = _told(points)
    assert "batch 1: 16 SMs, the fewest that were measured, are enough for 95 % of the throughput" in text
    assert "batch 16: the throughput still grows at 32 SMs" in text


@pytest.mark.parametrize(
    "changes", [{"valid": False}, {"options": {"rate": "100/s"}}], ids=["INVALID points", "open loops"]
)
def test_what_no_throughput_says_anything_of_has_no_curve(changes: dict[str, Any]) -> None:
    """Law: INVALID points, and open loops, whose throughput is their load, are left out."""
    assert "% of the throughput" not in _curve({8: 100.0, 16: 101.0}, **changes)


def _partitioned(rates: dict[tuple[int, int], float], extra: dict[str, Any] | None = None) -> str:
    return _told(
        [
            ({"contexts": contexts, "partitions": count, **(extra or {})}, _run(rate))
            for (contexts, count), rate in rates.items()
        ]
    )


def test_the_best_with_partitions_stands_beside_the_best_without() -> None:
    """Law: each side may choose its contexts: partitions that win over a poor choice have not won."""
    text = _partitioned({(8, 1): 1452.0, (16, 1): 1411.0, (8, 4): 1380.0, (8, 8): 1528.0})
    assert "1 452 (contexts 8, partitions 1) 1 528 (contexts 8, partitions 8) 1.052" in text


def test_there_is_nothing_to_compare_without_both_sides() -> None:
    """Law: partitions alone, the whole GPU alone, and partitions of a given size are not compared."""
    header = "inferences/s without partitions"
    assert header in _partitioned({(8, 1): 100.0, (8, 2): 100.0})
    assert header not in _partitioned({(8, 4): 100.0, (8, 2): 100.0})
    assert header not in _partitioned({(8, 1): 100.0, (4, 1): 100.0})
    assert header not in _partitioned({(8, 1): 100.0, (8, 2): 100.0}, {"sms": 16})


@pytest.mark.parametrize("others", [{}, {"partitions": 1}])
def test_a_point_that_lacks_the_axis_is_left_out(others: dict[str, Any]) -> None:
    """A sweep that someone has edited is shown all the same."""
    points = [({"partitions": 2}, _run(1000.0, "2 of 64 SMs")), (others, _run(900.0))]
    result = _sweep(points[:1]).model_copy(
        update={"points": tuple(SweepPoint(settings=settings, run=run) for settings, run in points)}
    )
    text = " ".join(plain(list(sweep(result, "", ""))).split())
    assert ("inferences/s without partitions" in text) == bool(others)
