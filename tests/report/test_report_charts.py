"""Charts: well-formed SVG, which shows what it was given."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest

from loadtrt.asked.objective import parse_objective
from loadtrt.load.arrivals import bursts
from loadtrt.records.histogram import Histogram
from loadtrt.report.charts.curves import Miss, Point, gains, ladder, latencies, misses, sizes, throughput_at, tradeoff
from loadtrt.report.charts.plot import Plot
from loadtrt.report.charts.shares import Bar, Stack, bars, shares, spectrum, stacks
from loadtrt.report.charts.svg import cut, escaped, linear, ranks, width_of
from loadtrt.report.charts.timeline import SHADES, heat_map, percentiles, shade, throughput
from loadtrt.report.document import Figure
from loadtrt.report.run_timeline import over_time, timeline_of
from loadtrt.results.capacity_result import ObjectiveCapacity
from loadtrt.results.run_result import ObjectiveShare
from loadtrt.results.steadiness import Interval, Stall, Steadiness
from loadtrt.stats.sample_size import least_samples
from loadtrt.units import format_count
from reported import HOSTILE, SCALING, measured, whole_run
from runs_by_hand import changed

if TYPE_CHECKING:
    from collections.abc import Callable


BOUND = parse_objective("latency.p99 < 20ms")
CAPACITY = ObjectiveCapacity(objective=BOUND, rate_per_s=210.0, low_per_s=200.0, high_per_s=220.0)


def _parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314  # our own


def _of_class(root: ElementTree.Element, class_: str) -> list[ElementTree.Element]:
    return [found for found in root.iter() if class_ in found.get("class", "").split()]


def _histogram(*values_ns: int) -> Histogram:
    histogram = Histogram()
    histogram.add(np.array(values_ns, np.int64))
    return histogram


def test_a_spectrum_shows_every_request() -> None:
    """A bar's area is its share, however wide it is: height × width ÷ count is the same of all (on an axis on which
    widths are ln(right / left)); and each bar tells its count."""
    rng = np.random.default_rng(1)
    histogram = _histogram(*(rng.lognormal(16, 0.6, 5000)).astype(np.int64).tolist())
    root = _parsed(spectrum(histogram, [("p50", 1e7)], []))
    told, areas = 0, []
    for found in _of_class(root, "f1"):
        match = re.search(r": ([\d ]+) of 5 000", found.findtext("title") or "")
        assert match
        count, height = int(match[1].replace(" ", "")), float(found.get("height", "0"))
        told += count
        if height > 30:
            areas.append(height * float(found.get("width", "0")) / count)
    assert 0.999 * 5000 <= told <= 5000  # the shortest 1 in 1000 may be left out
    assert len(areas) > 20
    assert max(areas) < 1.1 * min(areas)  # places are rounded to a tenth of a pixel
    assert len(_of_class(root, "mark")) == 1


def test_a_spectrum_of_one_value_has_one_bar() -> None:
    """And room on either side."""
    bar, *rest = _of_class(_parsed(spectrum(_histogram(5_000_000), [], [])), "f1")
    assert rest == []
    assert 60 < float(bar.get("x", "0")) < 460


def test_a_curve_is_dotted_where_its_sample_is_too_small() -> None:
    """The whole part ends at the highest rank that so many requests support, and the dotted one goes on from there."""
    root = _parsed(shares([("latency", _histogram(*range(10_000, 20_000)))], [], "latency"))
    whole, dotted = (found.get("d", "") for found in _of_class(root, "s1"))
    left, end = float(re.findall(r"M([\d.]+)", whole)[0]), float(re.findall(r"H([\d.]+)", whole)[-1])
    start, right = float(re.findall(r"M([\d.]+)", dotted)[0]), float(re.findall(r"H([\d.]+)", dotted)[-1])
    assert end == start
    rank = 0.01 ** (1 / 10_000)
    assert least_samples(rank) in (10_000, 10_001)
    assert (end - left) / (right - left) == pytest.approx(ranks(10_000).at(rank), abs=1e-3)


def test_an_objective_is_a_corner_of_the_chart_of_shares() -> None:
    """Right of its rank and above its bound."""
    bound = parse_objective("latency.p99 < 5us")
    root = _parsed(shares([("latency", _histogram(*range(1000, 9000)))], [bound], "latency"))
    assert len(_of_class(root, "corner")) == 1


def test_a_heat_map_has_a_cell_for_each_second_and_latency() -> None:
    """Single requests are seen; more are darker."""
    run = measured()
    cells = sum(len(interval.latency_counts) for interval in run.model.intervals)
    root = _parsed(heat_map(run.model.intervals, timeline_of(run), []))
    strokes = [path.get("d", "") for path in next(iter(_of_class(root, "cells")))]
    assert sum(stroke.count("M") for stroke in strokes) == cells
    assert [shade(count, 1000) for count in (1, 30, 1000)] == [0, SHADES // 2 - 1, SHADES - 1]
    assert shade(1, 1) == 0


def test_many_seconds_are_put_together() -> None:
    """A run of three hours takes no more room than one of minutes."""
    second = measured().model.intervals[3]
    intervals = [second.model_copy(update={"start_ns": n * 10**9}) for n in range(10_800)]
    run = changed(measured(), intervals=tuple(intervals))
    timeline = timeline_of(run)
    for svg in (
        heat_map(intervals, timeline, []),
        throughput(intervals, timeline, None),
        percentiles(intervals, timeline, []),
    ):
        _parsed(svg)
        assert len(svg) < 60_000


def test_charts_of_a_long_run_are_in_time_by_the_length_of_its_intervals() -> None:
    """The same intervals, of 32 s each: rates are a 32nd, everything lies 32 times as late, and notes say so."""
    run = measured()
    far = tuple(
        each.model_copy(update={"start_ns": 32 * each.start_ns, "throttled": 5 <= place < 9})
        for place, each in enumerate(run.model.intervals)
    )
    phases = run.phases.model_copy(update={"measure_ns": 32 * run.phases.measure_ns, "warmup_ns": 0, "drain_ns": 0})
    long = changed(run, intervals=far, interval_ns=32 * 10**9, steadiness=None).model_copy(update={"phases": phases})
    timeline = timeline_of(long)
    assert timeline.end_ns == phases.measure_ns
    bands = [(band.start_ns, band.end_ns) for band in timeline.phases if band.kind == "slow"]
    assert bands == [(5 * 32e9, 9 * 32e9)]
    third = far[3]
    assert f"96 s, {format_count(third.requests / 32)} requests/s" in throughput(far, timeline, None)
    assert "32 seconds × an eighth of an octave" in heat_map(far, timeline, [])
    notes = [block.note for block in over_time(long) if isinstance(block, Figure)]
    assert notes[:2] == ["a point every 32 s"] * 2
    many = tuple(third.model_copy(update={"start_ns": 32 * n * 10**9}) for n in range(500))
    notes = [block.note for block in over_time(changed(long, intervals=many)) if isinstance(block, Figure)]
    assert notes[:2] == ["a point every 64 s", "a point every 64 s: the greatest of its intervals' of 32 s"]


def test_one_slow_second_of_a_long_run_is_seen() -> None:
    """However little of the axis it is; and there are no more bands than points."""
    second = measured().model.intervals[3]

    def bands(slow: Callable[[int], bool]) -> list[float]:
        seconds = range(36_000)
        intervals = [second.model_copy(update={"start_ns": n * 10**9, "throttled": slow(n)}) for n in seconds]
        run = changed(measured(), intervals=tuple(intervals))
        root = _parsed(throughput(intervals, timeline_of(run), None))
        rects = [found for found in root.iter("rect") if found.get("class") == "span slow"]
        return [float(found.get("width", "0")) for found in rects][:-1]  # but for its key

    (width,) = bands(lambda n: n == 20_000)
    assert width >= 1.5
    assert len(bands(lambda n: n % 300 == 0)) <= 125


def test_what_is_due_is_drawn_to_the_end() -> None:
    """However many bursts there are: its means are those of the same seconds as those of what was served."""
    run = measured("--rate", "200/s", "--bursts", "100ms/150ms", "--duration", "60s")
    course = bursts(200.0, 100_000_000, 150_000_000)
    root = _parsed(throughput(run.model.intervals, timeline_of(run), course))
    (line,) = (
        found.get("d", "") for found in root.iter("path") if found.get("class") == "s2" and "L" in found.get("d", "")
    )
    places = [tuple(map(float, pair.split())) for pair in line[1:].split("L")]
    assert places[-1][0] > 450
    assert {y for _, y in places} == {places[0][1]}  # four bursts a second


def test_time_charts_mark_phases_and_slow_seconds() -> None:
    """The transient and the seconds in which the GPU was slowed down, as one band each."""
    run = whole_run()
    root = _parsed(throughput(run.model.intervals, timeline_of(run), None))
    bands = [found.get("class") for found in root.iter("rect") if "span" in found.get("class", "")]
    assert bands.count("span slow") == 2  # the band and its key
    assert bands.count("span transient") == 2
    assert len(_of_class(root, "hover")) == len(run.model.intervals)


def test_a_phase_does_not_move_the_beginning() -> None:
    """Where the only phase is late, as a drain is, the axis begins at 0; before it with a warm-up."""
    run = measured()
    late = tuple(interval.model_copy(update={"throttled": n == 15}) for n, interval in enumerate(run.model.intervals))
    assert timeline_of(changed(run, intervals=late)).start_ns == 0
    drained = run.phases.model_copy(update={"drain_ns": 10**9})
    assert timeline_of(run.model_copy(update={"phases": drained})).start_ns == 0
    warmed = run.phases.model_copy(update={"warmup_ns": 2 * 10**9})
    assert timeline_of(run.model_copy(update={"phases": warmed})).start_ns == -2 * 10**9
    seen = Steadiness(stall=Stall(start_ns=12 * 10**9, longest_ns=10**9, times=1, total_ns=10**9, late=300, host=False))
    still = timeline_of(changed(run, steadiness=seen))
    assert (still.start_ns, [phase.name for phase in still.phases]) == (0, ["stood still"])


def test_a_second_without_requests_is_a_gap() -> None:
    """No line is drawn through what nobody knows."""
    quiet = Interval(
        start_ns=10**9,
        requests=0,
        failed=0,
        latency_mean_ns=None,
        latency_p50_ns=None,
        latency_p90_ns=None,
        latency_p99_ns=None,
        latency_max_ns=None,
        queue_mean_ns=None,
        compute_mean_ns=None,
    )
    run = measured()
    intervals = (run.model.intervals[0], quiet, *run.model.intervals[2:5])
    root = _parsed(percentiles(intervals, timeline_of(changed(run, intervals=intervals)), []))
    lines = [found for found in root.iter("path") if found.get("class") == "s1" and "h20" not in found.get("d", "")]
    dots = [found for found in root.iter("circle") if (found.get("class") or "").startswith("f1")]
    assert (len(lines), len(dots)) == (1, 1)


def test_a_percentile_that_is_the_largest_is_not_drawn() -> None:
    """n·(1 − q) ≥ 1: p99 of a second takes 100 requests, p90 takes 10."""
    run = measured()  # 200 a second

    def lines(requests: int) -> list[str]:
        seconds = tuple(interval.model_copy(update={"requests": requests}) for interval in run.model.intervals)
        root = _parsed(percentiles(seconds, timeline_of(run), []))
        return [text.text or "" for text in _of_class(root, "key") if (text.text or "").startswith("p")]

    assert [lines(requests) for requests in (2, 10, 99, 100)] == [
        ["p50"],
        ["p50", "p90"],
        ["p50", "p90"],
        ["p50", "p90", "p99"],
    ]


def test_curves_of_many_runs() -> None:
    """Every trial, point and size is a mark that tells its numbers."""
    trials = [
        Miss(1, 250.0, 0.05, 0.03, 0.08, "missed", False),
        Miss(2, 190.0, 0.0, 0.0, 0.004, "met", False),
        Miss(3, 205.0, 0.009, 0.005, 0.02, "undecided", True),
    ]
    root = _parsed(misses(trials, CAPACITY, 190.0, 250.0))
    told = [found.findtext("title") for found in root.iter() if "/s," in (found.findtext("title") or "")]
    assert told == [
        "1: 250/s, 5 % bad (3 to 8 %)",
        "2: 190/s, 0 % bad (0 to 0.4 %)",
        "3, confirming: 205/s, 0.9 % bad (0.5 to 2 %)",
    ]
    assert _of_class(root, "region")
    points = [Point("batch 1", "1", 100.0, 5e6, True, False), Point("batch 4", "1", 300.0, 9e6, True, True)]
    assert len(_of_class(_parsed(tradeoff(points, "p99", [BOUND])), "dot")) == 2 + 2  # a ring, its key
    crossed = _parsed(tradeoff([points[0], points[1]._replace(valid=False)], "p99", []))
    assert len(_of_class(crossed, "cross")) == 1 + 1  # and its key
    share = ObjectiveShare(objective=BOUND, good=99, requests=100, value_ns=1e7)
    fleets = [(2, share.model_copy(update={"value_low_ns": 2e7, "value_high_ns": 4e7})), (3, share)]
    assert len(_of_class(_parsed(sizes([("random", fleets)], BOUND)), "dot")) == 2
    assert len(_of_class(_parsed(sizes([("random", fleets)], BOUND)), "whisker")) == 1
    searched = [(200.0, (6e6, None)), (100.0, (5e6, 9e6)), (200.0, (6e6, 9e6))]
    assert len(_of_class(_parsed(latencies(searched, ("p50", "p99"), [], 150.0)), "dot")) == 5
    assert len(_of_class(_parsed(gains([("", [(1, 100.0), (2, 180.0)])], "contexts")), "dot")) == 2


def test_a_trial_is_at_the_bottom_only_where_none_was_bad() -> None:
    """However few were; and its number lies on no whisker, its own included."""
    rates = (190.0, 196.0, 198.0, 250.0)
    shares_ = (0.0, 0.0000748, 0.004, 0.05)
    trials = [
        Miss(number, rate, share, share / 2, 0.003 + 2 * share, None, False)
        for number, (rate, share) in enumerate(zip(rates, shares_, strict=True), 1)
    ]
    root = _parsed(misses(trials, CAPACITY, 190.0, 250.0))
    places = [float(found.get("cy", "0")) for found in _of_class(root, "dot") if found.find("title") is not None]
    assert places == sorted(places, reverse=True)
    assert len(set(places)) == 4
    whiskers = [
        [float(number) for number in re.findall(r"-?[\d.]+", found.get("d", ""))[:3]]
        for found in _of_class(root, "whisker")
    ]
    tags = [found for found in _of_class(root, "soft") if (found.text or "").isdigit()]
    assert [found.text for found in tags] == ["1", "2", "3", "4"]
    for tag in tags:
        left, base = float(tag.get("x", "0")), float(tag.get("y", "0"))
        for x, bottom, top in whiskers:
            assert not (left < x < left + width_of(tag.text or "") and top < base - 4 < bottom)


def test_nothing_is_between_whole_numbers_of_contexts() -> None:
    """Ticks of an axis are whole where its values are, and no name of an objective lies over the points."""
    root = _parsed(gains([("", [(1, 100.0), (4, 180.0)])], "contexts"))
    ticks = [text.text for text in _of_class(root, "tick") if text.get("text-anchor") == "middle"]
    assert ticks == ["0", "1", "2", "3", "4"]
    for svg in (
        latencies([(100.0, (5e6,))], ("p99",), [BOUND], None),
        tradeoff([Point("", "1", 100.0, 5e6, True, False)], "p99", [BOUND]),
    ):
        assert [text.get("class") for text in _parsed(svg).iter("text") if text.text == BOUND.text] == ["key"]


def test_the_law_of_a_ladder() -> None:
    """X(1) = α; drawn beyond the last rung, with its peak where it has one."""
    assert throughput_at(SCALING, 1) == SCALING.alpha_per_s
    root = _parsed(ladder([(1, 200.0), (4, 420.0), (12, 400.0)], SCALING))
    assert any((text.text or "").startswith("peak at 9.5") for text in root.iter("text"))
    assert len(_of_class(_parsed(ladder([(1, 200.0)], None)), "dot")) == 2  # the rung and its key
    knee = SCALING.knee_in_flight
    for rungs, rings in (
        ([(1, 200.0), (knee, 420.0)], 2),
        ([(1, 200.0), (knee + 1, 420.0)], 0),
    ):  # with its key, or none
        assert len(_of_class(_parsed(ladder(rungs, SCALING)), "ring")) == rings


def test_bars_without_values() -> None:
    """What is not known, and what is nothing, has a row and no bar; what is little has one that is seen."""
    root = _parsed(bars("t", "d", [Bar("a", None, "–"), Bar("b", 0.0, "0"), Bar("c", 2.0, "2"), Bar("d", 1e-9, "0")]))
    widths = [float(found.get("width", "0")) for found in root.iter("rect")]
    assert len(widths) == 2
    assert widths[0] > 300
    assert widths[1] == 1
    assert [text.text for text in _of_class(root, "tick")] == ["a", "b", "c", "d"]
    parts = _parsed(stacks("t", "d", ["x", "y"], [Stack("all", [0.0, 3.0], "3")], lambda value: f"{value:g}"))
    assert len(_of_class(parts, "part")) == 1


@pytest.mark.parametrize("width", [30.0, 70.0, 2000.0])
def test_long_names_are_cut_in_their_middle(width: float) -> None:
    """Beginning and end stay, and the whole fits."""
    name = "inception_3b/3x3_reduce + inception_3b/relu_3x3_reduce"
    short = cut(name, width)
    assert width_of(short) <= width
    assert short == name or (short[0] == name[0] and "…" in short)


def test_whatever_a_name_holds_a_chart_is_well_formed() -> None:
    """Names come from files."""
    curve = (HOSTILE, measured_histogram())
    for svg in (
        bars(HOSTILE, HOSTILE, [Bar(HOSTILE, 1.0, HOSTILE, hint=HOSTILE)]),
        shares([curve, curve], [replace(BOUND, text=HOSTILE)], HOSTILE),
    ):
        assert "script" not in {found.tag for found in _parsed(svg).iter()}
    assert "<" not in escaped(HOSTILE)
    assert "\x1b" not in escaped(HOSTILE)
    assert "\n" not in escaped(HOSTILE)


def measured_histogram() -> Histogram:
    return Histogram.from_dict(measured().model.histograms["latency"])


def test_names_above_a_plot_do_not_lie_on_each_other() -> None:
    """However near their values are, each has a place of its own in a row."""
    named = [(5.0, "p50 5.00 ms"), (5.1, "p90 5.10 ms"), (5.2, "p99 5.20 ms"), (9.9, "p99.9 9.90 ms")]
    root = _parsed(Plot(linear("x", 0, 10), linear("y", 0, 1), named=named).svg("t", "d"))
    boxes = [(float(f.get("x", "0")), float(f.get("y", "0")), f.text or "") for f in _of_class(root, "name")]
    assert len(boxes) == 4
    for place, (x, y, text) in enumerate(boxes):
        for other_x, other_y, other in boxes[place + 1 :]:
            assert y != other_y or x + width_of(text) <= other_x or other_x + width_of(other) <= x
