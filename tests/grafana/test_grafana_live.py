"""Every query of every panel and rule, executed on a real Prometheus with the shipped configuration and rules, which
scrapes three real expositions a second, with classic histograms and with native ones: each returns data."""

from __future__ import annotations

import math
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from grafana.asking import Prometheus, Series, answers, load, panels, resolve, substitute
from grafana.charts import shown
from grafana.preview import page
from grafana.scraping import FOLDER, scraping
from loadtrt.live.exporter import Exporter
from moving_run import MovingRun
from prometheus import PATIENCE_S, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RUNS = ("20260101-000000-1", "20260102-000000-2", "20260103-000000-3")


@dataclass(frozen=True, slots=True)
class Scraped:
    """A Prometheus that has seen RUNS begin one after another. start, end: of what it has seen, Unix time. native: it
    keeps native histograms, and no classic ones."""

    prometheus: Prometheus
    start: float
    end: float
    native: bool


@pytest.fixture(scope="module", params=["classic", "native"])
def scraped(request: pytest.FixtureRequest) -> Iterator[Scraped]:
    """Takes about twenty seconds, in which Prometheus finds its targets and rates come to be."""
    native = request.param == "native"
    require("prometheus")
    start = time.time()
    with ExitStack() as stack:
        runs = [MovingRun(run, report=f"https://reports.example/{run}.html") for run in RUNS[:2]]
        runs.append(MovingRun(RUNS[2], worker="3", report=f"https://reports.example/{RUNS[2]}.html"))  # of a fleet
        exporters = [stack.enter_context(Exporter(":0", run.take, native=native)) for run in runs]
        addresses = [exporter.url.split("/")[2] for exporter in exporters]
        prometheus = stack.enter_context(scraping(addresses, native=native))
        for run, exporter in zip(runs, exporters, strict=True):
            run.begin()
            scrapes = exporter.scrapes
            _wait(lambda exporter=exporter, scrapes=scrapes: exporter.scrapes >= scrapes + 3)  # type: ignore[misc]
        last = f'ALERTS{{alertname="LoadtrtGpuThrottled",alertstate="firing",run="{RUNS[-1]}"}}'
        _wait(lambda: bool(prometheus.at(last, time.time())))
        yield Scraped(prometheus, start, time.time(), native)


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < deadline
        Event().wait(0.05)


def _told(series: list[Series]) -> bool:
    """Whether there is a number: a series of NaN alone draws nothing."""
    return any(not math.isnan(value) for each in series for _, value in each.points)


@pytest.mark.parametrize("name", ["run", "compare"])
def test_every_panels_queries_return_data(scraped: Scraped, name: str) -> None:
    """With the variables that Grafana would choose."""
    dashboard = load(name)
    values = resolve(dashboard, scraped.prometheus, scraped.start, scraped.end, {})
    silent = [
        f"{panel['title']}: {target['expr']}"
        for panel in panels(dashboard)
        for target, series in answers(panel, values, scraped.prometheus, scraped.start, scraped.end)
        if not _told(series)
    ]
    assert not silent, "\n".join(silent)


def test_histograms_are_kept_one_way(scraped: Scraped) -> None:
    """Or the tests of one way would pass by the other."""
    kept = [bool(scraped.prometheus.at(f"loadtrt_latency_seconds{end}", scraped.end)) for end in ("", "_bucket")]
    assert kept == [scraped.native, not scraped.native]


def test_percentiles_and_means_are_the_same_both_ways(scraped: Scraped) -> None:
    """Within what the buckets allow: the requests of a MovingRun have known latencies, of 4.9 to 7.4 ms."""
    dashboard = load("compare")
    values = resolve(dashboard, scraped.prometheus, scraped.start, scraped.end, {})
    table = next(panel for panel in panels(dashboard) if panel["title"] == "The runs")
    shown = {}
    for target, series in answers(table, values, scraped.prometheus, scraped.start, scraped.end):
        shown[target["refId"]] = [each.points[-1][1] for each in series]
    means, medians, tails = shown["D"], shown["E"], shown["F"]
    assert len(means) == len(medians) == len(tails) == 3
    error = 0.03 if scraped.native else 0.2
    assert means == pytest.approx([0.00562] * 3, rel=0.03)
    assert medians == pytest.approx([0.0055] * 3, rel=error)
    assert tails == pytest.approx([0.0074] * 3, rel=error)


def test_an_instance_can_be_chosen(scraped: Scraped) -> None:
    """At first all are; the choice narrows the runs that are offered to those of that host."""
    dashboard = load("run")
    values = resolve(dashboard, scraped.prometheus, scraped.start, scraped.end, {})
    assert (values["model"], values["instance"]) == (".*", ".*")
    (info,) = scraped.prometheus.at(f'loadtrt_run_info{{run="{RUNS[0]}"}}', scraped.end)
    chosen = {"instance": info.labels["instance"]}
    assert resolve(dashboard, scraped.prometheus, scraped.start, scraped.end, chosen)["run"] == RUNS[0]


def test_what_is_wrong_is_counted_at_a_glance(scraped: Scraped) -> None:
    """Of a MovingRun one request of 25 fails or is given up, so that its objective on p99 is missed four times over."""
    dashboard = load("run")
    values = resolve(dashboard, scraped.prometheus, scraped.start, scraped.end, {})
    latest: dict[str, float] = {}
    for panel in panels(dashboard):
        for _, series in answers(panel, values, scraped.prometheus, scraped.start, scraped.end):
            latest.setdefault(panel["title"], series[-1].points[-1][1])
    assert latest["Problems"] >= 1
    assert 1 <= latest["Objectives missed"] <= 2  # the other is on throughput, which a stalled host makes low
    assert latest["Not served"] >= 4


def test_what_runs_has_the_reports_address(scraped: Scraped) -> None:
    """Whose cell is a link to it."""
    dashboard = load("run")
    values = resolve(dashboard, scraped.prometheus, scraped.start, scraped.end, {})
    panel = next(panel for panel in panels(dashboard) if panel["title"] == "What runs")
    ((_, (series,)),) = answers(panel, values, scraped.prometheus, scraped.start, scraped.end)
    assert series.labels["report"] == f"https://reports.example/{RUNS[2]}.html"
    assert series.labels["run"] == RUNS[2]


def test_annotations_name_the_phase_and_the_problems(scraped: Scraped) -> None:
    """As Grafana makes regions of them: the labels of the series while they are above 0."""
    dashboard = load("run")
    values = resolve(dashboard, scraped.prometheus, scraped.start, scraped.end, {})
    regions = {}
    for each in dashboard["annotations"]["list"]:
        series = scraped.prometheus.over(substitute(each["expr"], values), scraped.start, scraped.end)
        label = each["titleFormat"].strip("{}")
        regions[each["name"]] = {one.labels[label] for one in series if any(value > 0 for _, value in one.points)}
    assert regions["phases"] == {"measure"}
    assert "failed" in regions["problems"]  # others wait until there are requests enough for a p99


def test_variables_offer_runs_the_newest_first(scraped: Scraped) -> None:
    """And runs to compare with are others than the first."""
    values = resolve(load("run"), scraped.prometheus, scraped.start, scraped.end, {})
    assert values["run"] == RUNS[2]
    values = resolve(load("compare"), scraped.prometheus, scraped.start, scraped.end, {})
    assert [values[name] for name in "abc"] == [*reversed(RUNS)]


def test_one_run_alone_is_compared_with_nothing(scraped: Scraped) -> None:
    """Queries about runs that were not chosen are valid and empty."""
    dashboard = load("compare")
    values = resolve(dashboard, scraped.prometheus, scraped.start, scraped.end, {"b": "", "c": ""})
    panel = next(panel for panel in panels(dashboard) if panel["title"] == "Compute")
    found = answers(panel, values, scraped.prometheus, scraped.start, scraped.end)
    assert [len(series) for _, series in found] == [1, 0, 0]


def test_compared_runs_begin_together(scraped: Scraped) -> None:
    """The hidden variables are the milliseconds between starts, so that every run's first rate comes at the same
    instant, but for the second between scrapes."""
    dashboard = load("compare")
    values = resolve(dashboard, scraped.prometheus, scraped.start, scraped.end, {})
    started = [scraped.prometheus.at(f'loadtrt_start_time_seconds{{run="{run}"}}', scraped.end)[0] for run in RUNS]
    at = [series.points[0][1] for series in started]
    behind = [int(values["b_behind"]) / 1000, int(values["c_behind"]) / 1000]
    assert behind == pytest.approx([at[2] - at[1], at[2] - at[0]], abs=0.001)
    panel = next(panel for panel in panels(dashboard) if panel["title"] == "Compute")
    first = [
        series.points[0][0] for _, (series,) in answers(panel, values, scraped.prometheus, scraped.start, scraped.end)
    ]
    assert max(at) - min(at) > 4
    assert max(first) - min(first) <= (max(at) - min(at)) / 2


def _rules(kind: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules" / "loadtrt.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


@pytest.mark.parametrize("rule", _rules("record"), ids=lambda rule: rule["record"])
def test_recording_rules_record(scraped: Scraped, rule: dict[str, Any]) -> None:
    """For each of the runs."""
    found = scraped.prometheus.at(rule["record"], scraped.end)
    assert {series.labels["run"] for series in found} == set(RUNS)
    assert _told(found)


@pytest.mark.parametrize("rule", _rules("alert"), ids=lambda rule: rule["alert"])
def test_alerts_read_series_that_there_are(scraped: Scraped, rule: dict[str, Any]) -> None:
    """An alert on nothing never fires: its expression is accepted, and each series in it has data."""
    scraped.prometheus.at(rule["expr"], scraped.end)
    selectors = re.findall(r"\b(?:loadtrt_\w+|(?:run|objective):[\w:]+)(?:\{[^}]*\})?", rule["expr"])
    assert selectors
    for selector in selectors:
        assert _told(scraped.prometheus.at(selector, scraped.end)), selector


def test_alerts_fire_on_what_is_scraped(scraped: Scraped) -> None:
    """Of these runs requests fail, and the power cap holds the clocks; nothing stands still."""
    firing = scraped.prometheus.at('ALERTS{alertstate="firing"}', scraped.end)
    names = {series.labels["alertname"] for series in firing}
    assert {"LoadtrtGpuThrottled", "LoadtrtRequestsFailing"} <= names
    assert not names & {"LoadtrtRunStalled", "LoadtrtGeneratorLate"}


@pytest.mark.parametrize("name", ["run", "compare"])
def test_the_preview_draws_every_panel(scraped: Scraped, name: str) -> None:
    """And says that it is not Grafana."""
    dashboard = load(name)
    text, height = page(dashboard, scraped.prometheus, {}, scraped.end)
    assert "Not Grafana" in text
    assert "no data" not in text
    assert not re.search(r"\b(nan|inf)\b", text)
    assert text.count("<section") == len(list(panels(dashboard)))
    assert height > 500


def test_values_are_shown_in_their_units() -> None:
    """As people read them."""
    assert [shown(value, unit) for value, unit in ((0.0123, "s"), (2e-5, "s"), (90.0, "s"), (1.41e9, "hertz"))] == [
        "12.3 ms",
        "20 µs",
        "90 s",
        "1.41 GHz",
    ]
    assert (shown(0.995, "percentunit"), shown(1234.5, "reqps"), shown(math.inf, "short")) == ("99.5 %", "1,234", "∞")
