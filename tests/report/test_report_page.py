"""The HTML page: read by html5lib and by Chromium, which complain of every fault; nothing in it comes from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import html5lib
import pytest

from loadtrt.asked.objective import parse_objective
from loadtrt.report.charts.curves import latencies
from loadtrt.report.html import STYLE
from loadtrt.report.result_files import Loaded
from loadtrt.report.sections import names_of
from loadtrt.results.breakdown import ScenarioResult
from loadtrt.results.capacity_result import CapacityResult, SweepResult
from loadtrt.results.interference_result import InterferenceResult
from loadtrt.results.run_result import Problem, RunResult
from loadtrt.results.steadiness import Steadiness
from loadtrt.units import format_count
from reported import (
    HOSTILE,
    OBJECTIVE,
    altered,
    every_kind,
    html_text,
    loaded,
    markdown_text,
    measured,
    profile,
    whole_run,
)
from runs_by_hand import changed

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from loadtrt.report.result_files import Result

KINDS = ("run", "repeat", "sweep", "capacity", "interference", "fleet", "placement", "profile", "comparison")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def _read(text: str) -> Element:
    """The document, by a parser that takes no fault."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    root: Element = parser.parse(text)
    return root


def _words(root: Element) -> str:
    return " ".join(" ".join(root.itertext()).split())


def _headings(root: Element) -> list[str]:
    return [" ".join("".join(found.itertext()).split()) for found in root.iter() if found.tag in ("h1", "h2")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_faultless_and_stands_alone(kind: str) -> None:
    """No parse error, no script, no address of anything, below 200 KiB for each result of a run; every chart has a
    title and a description."""
    text = html_text([loaded(every_kind()[kind])])
    root = _read(text)
    runs = 3 if kind == "repeat" else 1
    assert len(text.encode()) < 200 * 1024 * runs
    assert [found.get("type") for found in root.iter("script")] in ([], ["application/json"] * runs)
    outside = ("src", "href", "action", "data", "poster", "srcset", "{http://www.w3.org/1999/xlink}href")
    values = [found.get(name, "") for found in root.iter() for name in outside]
    assert [value for value in values if value and not value.startswith("#")] == []
    assert re.findall(r"url\((?!#)|@import", text) == []
    charts = [found for found in root.iter() if found.tag.endswith("svg") and found.get("role") == "img"]
    assert all([child.tag.rpartition("}")[2] for child in chart][:2] == ["title", "desc"] for chart in charts)
    assert charts


def test_what_comes_first() -> None:
    """The headline, then findings, then charts, then how it was made."""
    titles = _headings(_read(html_text([loaded(whole_run())])))
    assert titles[0].endswith(" on simulated (simulated 0.1.0) ✗ INVALID ✗ objectives missed")
    expected = [
        "Objectives",
        "Findings",
        "Latency",
        "Over time",
        "Where the time goes",
        "Lanes",
        "Layers",
        "Engine",
        "GPU",
        "Configuration",
    ]
    assert titles[1:] == expected


def test_findings_have_evidence_cause_and_remedy() -> None:
    """Problems first."""
    words = _words(_read(html_text([loaded(whole_run())])))
    assert "✗ the generator was 3 ms late remedy free a core" in words
    assert "? the clock fell throttled cause power cap remedy lock the clocks" in words


def test_percentiles_that_the_sample_does_not_support_are_not_told() -> None:
    """It says of how many requests, and how many it would take."""
    run = measured("--requests", "50")
    words = _words(_read(html_text([loaded(run)])))
    assert "latency p99 – not supported by 50 requests: it takes 459" in words
    assert "latency p50 – " not in words


def test_verdicts_have_their_intervals() -> None:
    """Of the quantile and of the share of bad requests."""
    run = measured()
    item = run.model.objectives[0]
    words = _words(_read(html_text([loaded(run)])))
    assert item.verdict is not None
    assert f"{OBJECTIVE} " in words
    assert f" {item.verdict} " in words
    assert "worth: effective sample size, in requests" in words


@pytest.mark.parametrize("kind", KINDS)
def test_names_from_files_are_text(kind: str) -> None:
    """Whatever every text in a result holds, it ends as text: no element, no attribute, no control character."""
    result = every_kind()[kind]
    spoilt = _spoilt(result)
    text = html_text([Loaded(HOSTILE, spoilt), loaded(result, "b.json")])
    root = _read(text)
    assert "<script>alert" not in text
    assert "\x1b" not in text
    assert not {"onclick", "onerror", "onload"} & {name for found in root.iter() for name in found.keys()}  # noqa: SIM118
    assert "alert(1)" in _words(root)


def _spoilt(result: Result) -> Result:
    """The result with a hostile text in place of every text that is free."""
    fixed: tuple[str, ...] = (
        "schema_version",
        "kind",
        "outcome",
        "answer",
        "boundary",
        "routing",
        "ties",
        "verdict",
        "mode",
        "matched_by",
        "unit",
    )
    fixed += ("objective", "objectives", "load")

    def spoil(value: object, name: str = "") -> object:
        match value:
            case {"models": dict() as models, **others} if (
                name == "config"
            ):  # a configuration: only the name of its engine is free
                engines = {key: {**model, "engine": HOSTILE} for key, model in models.items()}
                return {**others, "models": engines}
            case dict():
                return {key: spoil(item, str(key)) for key, item in value.items()}
            case list() | tuple():
                return [spoil(item, name) for item in value]
            case str() if name not in (*fixed, "arrivals", "started", "began"):
                return f"{value}{HOSTILE}"
            case _:
                return value

    return type(result).model_validate(spoil(result.model_dump(mode="json")))


def test_the_json_in_the_page_is_the_run() -> None:
    """As the parser of HTML leaves it; what is too large is left out, and said to be."""
    run = altered(measured("--requests", "50"), engine_name=HOSTILE)
    root = _read(html_text([loaded(run)]))
    (data,) = root.iter("script")
    assert _told(data) == run.model_dump(mode="json")
    large = altered(run, sample={"columns": {"due": list(range(20_000))}}, profile=profile())
    root = _read(html_text([loaded(large)]))
    (data,) = root.iter("script")
    assert _told(data) == changed(large, sample=None).model_dump(mode="json")
    assert "without its sample, which the file has" in _words(root)


def _told(data: Element) -> dict[str, object]:
    """What the JSON holds, which is a run."""
    return RunResult.model_validate(json.loads(data.text or "")).model_dump(mode="json")


def test_a_scenario_and_its_rules_are_told() -> None:
    """By the rules, or why not; in the page and in Markdown."""
    found = ScenarioResult(
        scenario="server",
        metric="scheduled inferences a second",
        inferences_per_s=99.0,
        requests=9,
        by_rules=True,
        reasons=(),
    )
    for by_rules, words in (
        (True, "✓ scenario server, by MLPerf's rules: 99.0 scheduled inferences a second"),
        (False, "? scenario server, NOT by MLPerf's rules: 99.0 scheduled inferences a second not kept too short"),
    ):
        result = found.model_copy(update={"by_rules": by_rules, "reasons": () if by_rules else ("too short",)})
        run = changed(measured(), scenario=result)
        assert words in _words(_read(html_text([loaded(run)])))
        text = markdown_text([loaded(run)])
        assert ("not kept: too short" in text) is not by_rules
        assert "**scenario server, " in text


def test_a_run_of_ten_hours_has_a_page_like_any() -> None:
    """Its seconds are put together in all charts, those of the GPU included: as large as that of ten minutes."""
    run = whole_run()
    assert run.telemetry is not None
    seconds = [run.model.intervals[3].model_copy(update={"start_ns": n * 10**9}) for n in range(36_000)]
    looks = [run.telemetry.intervals[n % 20].model_copy(update={"start_ns": n * 10**9}) for n in range(36_000)]
    told = run.telemetry.model_copy(update={"intervals": tuple(looks)})
    text = html_text([loaded(changed(run, intervals=tuple(seconds), telemetry=told))])
    assert len(text.encode()) < 200 * 1024
    assert text.count("a point every 144\u00a0s") >= 6


def test_batches_of_many_sizes_are_all_drawn() -> None:
    """Several sizes in one bar, where each would take too much room."""
    counts = {size: size for size in range(1, 257)}
    run = altered(measured(), batches={"counts": counts, "mean": 100.0, "padded": 0.1})
    words = _words(_read(html_text([loaded(run)])))
    assert "253 to 256" in words
    assert f"{sum(counts.values()):,}".replace(",", " ") in words.replace("\u00a0", " ")


def test_what_is_invalid_is_no_headline() -> None:
    """The most that a sweep served is of runs that can be trusted; a search that the host ended says so."""
    sweep, capacity = every_kind()["sweep"], every_kind()["capacity"]
    assert isinstance(sweep, SweepResult)
    untrusted = tuple(
        point.model_copy(update={"run": point.run and point.run.model_copy(update={"valid": place == 0})})
        for place, point in enumerate(sweep.points)
    )
    pages = (sweep, sweep.model_copy(update={"points": untrusted}))
    rates = [point.run.model.throughput.inferences_per_s or 0.0 if point.run else 0.0 for point in sweep.points]
    told = [_words(_read(html_text([loaded(page)]))) for page in pages]
    assert f"most inferences/s {format_count(max(rates))} " in told[0]
    assert f"most inferences/s {format_count(rates[0])} " in told[1]
    assert rates[0] < max(rates)
    assert isinstance(capacity, CapacityResult)
    candidate = capacity.candidates[0].model_copy(update={"answer": "host-bound", "conclusion": "host-bound at 5/s"})
    update = {"candidates": (candidate,), "chosen": None, "reason": ""}
    page = _words(_read(html_text([loaded(capacity.model_copy(update=update))])))
    assert "? host-bound" in page
    assert "No candidate has a capacity" not in page
    assert page.partition("Configuration")[0].count("host-bound at 5/s") == 1


def test_what_was_not_confirmed_is_not_called_so() -> None:
    """No tile has it, and its bar says so; an interrupted search has one badge, and what it tried is in its table."""
    capacity = every_kind()["capacity"]
    assert isinstance(capacity, CapacityResult)
    found, other = capacity.candidates
    words = _words(_read(html_text([loaded(capacity)])))
    assert "confirmed, requests/s 200 " in words
    assert "not confirmed" not in words
    candidates = (found.model_copy(update={"confirmed_per_s": None, "answer": None}), other)
    cut = capacity.model_copy(update={"candidates": candidates, "outcome": "interrupted"})
    words = _words(_read(html_text([loaded(cut)])))
    assert "confirmed, requests/s – estimate, requests/s 215 " in words
    assert "215, not confirmed" in words
    assert "? INTERRUPTED" in words


def test_latencies_of_a_capacity_are_those_of_the_confirmed_rate() -> None:
    """A run that was to confirm more, and did not, came after it; where none confirmed, the last is shown."""
    capacity = every_kind()["capacity"]
    assert isinstance(capacity, CapacityResult)
    found = capacity.candidates[0]
    *_, confirmed = found.trials
    assert confirmed.rate_per_s == found.confirmed_per_s == 200
    trials = (*found.trials, confirmed.model_copy(update={"rate_per_s": 230.0}))
    for rate, shown in ((200.0, 200), (None, 230)):
        candidate = found.model_copy(update={"trials": trials, "confirmed_per_s": rate})
        candidates = (candidate, *capacity.candidates[1:])
        page = _words(_read(html_text([loaded(capacity.model_copy(update={"candidates": candidates}))])))
        assert re.findall(r"Latency at (\d+) requests/s", page) == [str(shown)]


def test_the_configuration_of_a_search_is_what_was_searched() -> None:
    """What was varied, the load and the search's own options; none that only a run has."""
    root = _read(html_text([loaded(every_kind()["capacity"])]))
    rows = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]
    told = {row[0]: row[1] for row in rows if len(row) == 2}
    asked = {"contexts": "1, 2", "batch": "1", "arrivals": "poisson", "time": "5m"}
    assert asked.items() <= told.items()
    assert told["precision"] == "3%"
    assert not {"abort_delay", "export_times", "profile"} & told.keys()
    swept = _words(_read(html_text([loaded(every_kind()["sweep"])])))
    assert "contexts 1, 2, 4 buffers 2" in swept


def test_each_objective_has_its_share_of_bad_requests() -> None:
    """A table of trials for each."""
    capacity = every_kind()["capacity"]
    assert isinstance(capacity, CapacityResult)
    found = capacity.candidates[0]
    run = found.trials[-1].run
    assert run is not None
    other = run.model.objectives[0].model_copy(
        update={"objective": parse_objective("latency.p50 < 8ms"), "good": 1, "requests": 4}
    )
    both = changed(run, objectives=(*run.model.objectives, other))
    trial = found.trials[-1].model_copy(update={"run": both})
    candidates = (found.model_copy(update={"trials": (trial,)}), *capacity.candidates[1:])
    root = _read(html_text([loaded(capacity.model_copy(update={"candidates": candidates}))]))
    rows = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]
    header = next(row for row in rows if "trial" in row)
    confirmed = [row[header.index("bad")] for row in rows if "confirm" in row]
    assert len(confirmed) == 2
    assert confirmed[1] == "75\u00a0%"


def test_a_finished_result_is_made_again_from_its_beginning() -> None:
    """To resume it would make nothing, but of one that was interrupted. No option's name is broken."""
    sweep = every_kind()["sweep"].model_copy(update={"command": ("x", "sweep", "--json", "a.json", "--resume")})
    assert isinstance(sweep, SweepResult)
    text = html_text([loaded(sweep)])
    assert '<pre tabindex="0">loadtrt sweep <span class="o">--json</span> a.json</pre>' in text
    assert '<span class="o">--resume</span>' in html_text([loaded(sweep.model_copy(update={"outcome": "interrupted"}))])


def test_batches_that_were_formed_are_told_by_their_mean() -> None:
    """The largest says nothing of them; and a service time of the engine's is called that of the largest."""
    run = measured("--rate", "100/s", "--duration", "5s", "--batcher", "max=16,delay=2ms")
    assert run.model.batches is not None
    words = _words(_read(html_text([loaded(run)])))
    assert f"batches of {run.model.batches.mean:.2f} on average" in words
    assert "batch 16" not in words.partition("Findings")[0]
    assert "service of the largest batch 5.00 ms" in words


def test_a_load_that_changes_is_not_called_steady() -> None:
    """Neither a transient nor a drift is looked for in it; where both are, and none is found, that is said."""
    changing = altered(measured(), steadiness=Steadiness(overloaded=False))
    assert "too little is known to say whether the run was steady" in _words(_read(html_text([loaded(changing)])))
    steady = altered(measured(), steadiness=Steadiness(transient_ns=0, overloaded=False))
    assert "no transient, drift or overload was found" in _words(_read(html_text([loaded(steady)])))


def test_several_runs_stand_side_by_side_first() -> None:
    """A line for each with what differs, all curves in one chart, then each run by itself; ids are unique."""
    runs = [measured(), measured("--rate", "260/s", "--duration", "20s", "--objective", OBJECTIVE)]
    text = html_text([Loaded("x/a.json", runs[0]), Loaded("x/b.json", runs[1])])
    root = _read(text)
    titles = _headings(root)
    assert titles[0] == "2 runs side by side"
    assert sum("on simulated" in title for title in titles) == 2
    header, *rows = ([" ".join(cell.itertext()).strip() for cell in row] for row in next(root.iter("table")).iter("tr"))
    assert header == ["run", "", "rate", "requests/s", "inferences/s", "p50", "p99", "p99.9", "mean"]
    assert [row[0] for row in rows] == ["a.json", "b.json"]
    assert [row[2] for row in rows] == ["200.0", "260.0"]
    ids = [found.get("id") for found in root.iter() if found.get("id")]
    assert len(ids) == len(set(ids))
    links = [found.get("href", "")[1:] for found in root.iter("a")]
    assert set(links) <= set(ids)
    (contents,) = root.iter("nav")
    _, compared, first, second = (" ".join(item.itertext()).split() for item in contents.iter("li"))
    assert compared == ["Comparison", "of", "runs"]
    assert (first[-1], second[-1]) == ("a.json", "b.json")  # runs of one engine are told from each other


def test_every_setting_of_the_load_that_differs_has_a_column() -> None:
    """Not only those that one thinks of; where results went is none."""
    usual = ("--rate", "200/s", "--duration", "5s")  # and each has a file of its own
    runs = [measured(*usual), measured(*usual, "--max-queue", "2", "--seed", "7")]
    root = _read(html_text([Loaded(f"{name}.json", run) for name, run in zip("ab", runs, strict=True)]))
    header, *rows = ([" ".join(cell.itertext()).strip() for cell in row] for row in next(root.iter("table")).iter("tr"))
    assert header[2:4] == ["max_queue", "seed"]
    assert header[4] == "requests/s"
    assert [row[2:4] for row in rows] == [["", "1"], ["2", "7"]]


def test_two_profiles_are_compared() -> None:
    """Also those within runs."""
    runs = [altered(measured(), profile=profile(time_ns)) for time_ns in (1000.0, 500.0)]
    words = _words(_read(html_text([Loaded("a.json", runs[0]), Loaded("b.json", runs[1])])))
    assert "Two profiles, layer by layer A a.json" in words
    assert "2.00× as fast" in words


def test_files_are_told_apart_by_as_much_of_their_paths_as_it_takes() -> None:
    """The name alone where it is enough; the same file twice is the same."""
    assert names_of(["x/a.json", "y/b.json"]) == {"x/a.json": "a.json", "y/b.json": "b.json"}
    assert names_of(["x/a.json", "y/a.json"]) == {"x/a.json": "x/a.json", "y/a.json": "y/a.json"}
    assert names_of(["a.json", "x/a.json"]) == {"a.json": "a.json", "x/a.json": "x/a.json"}
    assert names_of(["a.json", "a.json"]) == {"a.json": "a.json"}


@pytest.mark.parametrize(
    "changes",
    [
        {"ok": 0, "intervals": (), "lanes": (), "histograms": {}, "metrics": {}, "outcome": "failed", "failure": "no"},
        {"environment": {}, "command": ()},
        {"unserved": 3, "dropped": 2, "failed": 1, "first_error": "it broke", "outcome": "interrupted"},
    ],
)
def test_odd_runs_have_a_page(changes: dict[str, object]) -> None:
    """What a file does not tell is left out; the rest is there."""
    assert "simulated" in _headings(_read(html_text([loaded(altered(measured(), **changes))])))[0]


def test_colours_can_be_seen() -> None:
    """In both themes series have a contrast of 3 : 1 with the ground at least, words and verdicts 4.5 : 1 (WCAG 2)."""
    for theme in re.findall(r":root\{[^}]*?(--ground[^}]*)", STYLE):
        colours = dict(re.findall(r"--(\w+):(#[0-9a-f]{3}(?:[0-9a-f]{3})?)\b", theme))
        for name, colour in colours.items():
            contrast = _contrast(colour, colours["ground"])
            if re.fullmatch(r"c\d|good|bad|open|heat", name):
                assert contrast >= 3, name
            if name in ("ink", "soft", "good", "bad", "open"):
                assert contrast >= 4.5, name


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_has_nothing_to_complain_of(tmp_path: Path) -> None:
    """Chromium without a network draws all charts of all kinds and writes nothing to its console, where a refused
    request or a fault would be; that it would, a page with both proves."""
    page = tmp_path / "page.html"
    page.write_text(html_text([loaded(result, f"{kind}.json") for kind, result in every_kind().items()]))
    document, console = _browsed(page)
    assert console == []
    assert document.count('role="img"') == page.read_text().count('role="img"') > 20
    page.write_text(
        page.read_text().replace("</main>", '<img src="http://127.0.0.1:9/x.png"><svg><path d="Mx"/></svg>')
    )
    assert len(_browsed(page)[1]) == 2


def _without_network() -> list[str]:
    """What runs a command without any network, where that is permitted: a browser looks for IPv6 as it begins."""
    command = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    permitted = (
        shutil.which("unshare") and not subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    )
    return command if permitted else []


def _browsed(page: Path) -> tuple[str, list[str]]:
    """(the document as the browser understood it, what it said of it)."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr", "--v=0"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent}/chromium", "--dump-dom"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    own = os.environ | {name: str(page.parent) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    command = [*_without_network(), str(CHROMIUM), *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=own)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, [line for line in said if "Slow network" not in line]  # a busy host is not the page's fault


def test_options_in_sentences_are_not_broken_either() -> None:
    """A browser breaks a line at hyphens."""
    problem = Problem(kind="x", evidence="--rate is high", remedy="take a lower --rate (--duration longer)")
    run = measured().with_model(valid=False, problems=(problem,)).model_copy(update={"valid": False})
    text = html_text([loaded(run)])
    for option in ("--rate", "--duration"):
        assert f'<span class="o">{option}</span>' in text
        assert not re.search(rf"(?<!>){option}\b", re.sub(r"<(script|title).*?</\1>", "", text, flags=re.DOTALL))


def test_a_legend_names_what_is_drawn() -> None:
    """A sweep of few requests has neither a p99 nor a Pareto front, and says why."""
    sweep = every_kind()["sweep"]
    assert isinstance(sweep, SweepResult)
    short = measured("--requests", "50")
    points = tuple(point.model_copy(update={"run": short}) for point in sweep.points)
    few = html_text([loaded(sweep.model_copy(update={"points": points, "pareto": (), "knee": None}))])
    assert "p99 –: the point has too few requests, as p99 takes 459" in few
    assert "Pareto front" not in re.sub(r"<script.*?</script>|<desc>.*?</desc>", "", few, flags=re.DOTALL)
    assert "has too few requests" not in html_text([loaded(sweep)])
    chart = latencies([(10.0, [1e6, None]), (20.0, [2e6, None])], ("p50", "p99"), (), None)
    assert ">p50<" in chart
    assert ">p99<" not in chart


def test_a_note_of_the_engine_stands_once() -> None:
    """Where the profile of a run has it, too."""
    run = whole_run()
    assert run.model.profile is not None
    note = "x was made with batch 1"
    profile = run.model.profile.model_copy(update={"engine": replace(run.model.profile.engine, notes=(note,))})
    run = run.with_model(engine=replace(run.model.engine, notes=(note,)), profile=profile)
    assert re.sub(r"<script.*?</script>", "", html_text([loaded(run)]), flags=re.DOTALL).count(note) == 1


def test_the_worst_of_interference_is_beside_a_neighbour_at_a_rate() -> None:
    """It says so where a cell of a closed loop stands beside it, which may be worse."""
    result = every_kind()["interference"]
    assert isinstance(result, InterferenceResult)
    told = "the worst p99 is that beside neighbours at a rate"
    assert told not in html_text([loaded(result)])
    closed = tuple(cell.model_copy(update={"neighbour_level": "closed"}) for cell in result.matrix)
    both = result.model_copy(update={"cells": (*result.cells, *closed), "levels": ("50%", "closed")})
    assert told in html_text([loaded(both)])
    assert told not in html_text([loaded(result.model_copy(update={"cells": closed, "levels": ("closed",)}))])
