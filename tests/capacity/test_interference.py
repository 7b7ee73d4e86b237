"""`loadtrt interference` on simulated devices in virtual time: the laws of sharing, equal load, what is kept."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from command_line import loadtrt
from listening import listening
from loadtrt.report.interference_words import headline, ratio_text
from loadtrt.report.markdown import markdown
from loadtrt.report.plain import terminal_text
from loadtrt.report.result_files import read_result
from loadtrt.report.sections import sections_of
from loadtrt.results.interference_result import (
    CLOSED,
    IDLE,
    Cell,
    Fingerprint,
    InterferenceResult,
    PairedRatio,
    Predicted,
)
from loadtrt.runs import fleet
from loadtrt.signals import SIGNALS
from loadtrt.sizing.fingerprints import predicted
from loadtrt.sizing.rig import Rig
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

EXPONENTIAL = "distribution=exponential"
A = f"simulated:service=2ms,{EXPONENTIAL},device=g,clock=virtual,scales=0"
B = f"simulated:service=3ms,{EXPONENTIAL},device=g,clock=virtual,scales=0"


def run(*arguments: str | Path) -> CompletedProcess[str]:
    return loadtrt("interference", "--warmup", "0", *arguments)


def measured(file: Path, *arguments: str, code: int = 0, verify: bool = False) -> InterferenceResult:
    """verify: outputs are compared before each run, which takes longer than many a run."""
    done = run("--quiet", "--json", file, *(() if verify else ("--no-verify",)), *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return read_result(InterferenceResult, file)


def pair(a: str = "", b: str = "", of_a: str = A, of_b: str = B) -> list[str]:
    return ["--model", f"a='{of_a}'{a}", "--model", f"b='{of_b}'{b}"]


def assert_law(found: PairedRatio | None, law: float, rounds: int, widest: float = 0.28) -> None:
    """The law lies within the 99.9 % interval of the mean over ten rounds (t of 9 degrees), and that is narrow."""
    assert rounds == 10
    assert found is not None
    assert found.ratio is not None
    assert found.high is not None
    half = math.log(found.high / found.ratio) * 4.781 / 2.262
    assert half < widest
    assert abs(math.log(found.ratio / law)) < half


def of(result: InterferenceResult, model: str, level: str, share: str = "streams") -> Cell:
    (cell,) = [
        one
        for one in result.cells
        if (one.model, one.neighbour_level, one.share) == (model, level, share) and one.neighbour in ("a", "b")
    ]
    return cell


def stopping_after(monkeypatch: pytest.MonkeyPatch, runs: int) -> None:
    """Send a signal in the run after so many."""
    made, count = Rig.run, 0

    def stopping(rig: Rig, *given: object, **more: object) -> object:
        nonlocal count
        count += 1
        if count > runs:
            SIGNALS.ask()
        return made(rig, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Rig, "run", stopping)


def test_all_runs_are_pushed_by_the_names_of_their_models(tmp_path: Path) -> None:
    """Those of one model alone, and of both on engines that are placed otherwise, by one observer."""
    with listening() as (url, got):
        ways = ("--share", "streams,sms=25%+75%", "--neighbour", "50%", "--rounds", "1", "--duration", "1s")
        result = measured(tmp_path / "i.json", *pair(), *ways, "--push", url, "--label", "team=search")
    runs: dict[bytes, set[bytes]] = {}
    for _, _, body in got:
        for model, run_ in re.findall(rb'loadtrt_latency_seconds_count{.*?model="(.*?)",run="(.*?)"', body):
            runs.setdefault(run_, set()).add(model)
    cells = len(result.cells)
    alone = 1 + cells // 2  # of each
    assert Counter("".join(sorted(name.decode() for name in names)) for names in runs.values()) == {
        "a": alone, "b": alone, "ab": cells
    }  # fmt: skip
    left = [float(count) for count in re.findall(rb'loadtrt_points{.*?state="left".*?} (.*)', got[-1][2])]
    assert (cells, len(got), min(left), max(left)) == (4, 2 + 2 * cells, 0, cells)


# --- laws


def test_the_mean_of_processor_sharing_rises_by_what_the_neighbour_takes(tmp_path: Path) -> None:
    """M/M/1-PS: E[T] = s / (1 − ρ) of all classes (Kleinrock 1967): (1 − ρ_a) / (1 − ρ_a − ρ_b), at the rates in the
    result."""
    lanes = ",contexts=20,buffers=1"
    result = measured(
        tmp_path / "i.json",
        *pair(f"{lanes},rate=150/s", lanes),
        *("--neighbour", "40%", "--rounds", "10", "--precision", "0.1%", "--duration", "4s"),
    )
    beside = of(result, "a", "40%")
    rho_a, rho_b = 150 * 2e-3, (beside.neighbour_rate_per_s or 0.0) * 3e-3
    assert rho_b == pytest.approx(0.4, rel=0.1)
    assert_law(beside.ratio("mean"), (1 - rho_a) / (1 - rho_a - rho_b), len(beside.rounds))
    assert_law(beside.weighted_speedup, rho_a + rho_b, len(beside.rounds))


def test_p99_behind_one_queue_rises_by_what_the_neighbour_takes(tmp_path: Path) -> None:
    """M/M/1, first come first served, both with one service: all percentiles are those of an exponential time of
    mean 1 / (μ − λ): (1 − ρ_a) / (1 − ρ_a − ρ_b). Beside an idle neighbour a is alone, request for request."""
    queue = f"simulated:service=1ms,{EXPONENTIAL},device=g,sharing=priority,clock=virtual"
    models = pair(",rate=300/s", ",seed=5", queue, queue)
    ways = ("--neighbour", "30%", "--rounds", "10", "--precision", "0.1%", "--duration", "5s")
    result = measured(tmp_path / "i.json", *models, *ways)
    beside = of(result, "a", "30%")
    rho_b = (beside.neighbour_rate_per_s or 0.0) * 1e-3
    for which in ("p50", "p99", "mean"):
        assert_law(beside.ratio(which), 0.7 / (0.7 - rho_b), len(beside.rounds))
    idle = measured(tmp_path / "idle.json", *models, "--neighbour", "0", "--rounds", "2", "--duration", "2s")
    assert [(one.ratio, one.low, one.high) for one in of(idle, "a", IDLE).ratios] == [(1.0, 1.0, 1.0)] * 3


def test_a_partition_has_a_ratio_of_one(tmp_path: Path) -> None:
    """Whose compute time a part does not lengthen: row for row as alone, however busy the neighbour is; nor does that
    lose anything."""
    result = measured(
        tmp_path / "i.json",
        *pair(",contexts=2", ",contexts=2"),
        "--share",
        "sms=25%+75%",
        "--duration",
        "5s",
        "--neighbour",
        "50%,closed",
    )
    assert len(result.cells) == 4
    for cell in result.cells:
        assert [(one.ratio, one.low, one.high) for one in cell.ratios] == [(1.0, 1.0, 1.0)] * 3
        assert (cell.valid, cell.enough, len(cell.rounds)) == (True, True, 3)
        if cell.neighbour_level == CLOSED:
            assert cell.neighbour_kept is not None
            assert cell.neighbour_kept.ratio == 1
            assert cell.jain is not None
            assert (cell.jain.ratio, cell.jain.low, cell.jain.high) == (1, 1, 1)


def test_a_priority_waits_as_cobham_says(tmp_path: Path) -> None:
    """M/G/1 without preemption: the high class waits W0 / (1 − ρ_a), W0 = (λ_a E[S_a²] + λ_b E[S_b²]) / 2; alone, it is
    M/M/1: 1 / (μ − λ)."""
    constant = "simulated:service=2ms,device=g,clock=virtual"
    result = measured(
        tmp_path / "i.json",
        *pair(",rate=200/s", "", f"simulated:service=1ms,{EXPONENTIAL},device=g,clock=virtual", constant),
        *("--neighbour", "50%", "--share", "priority", "--rounds", "10", "--precision", "0.1%", "--duration", "5s"),
    )
    cell = of(result, "a", "50%", "priority")
    rate_b = cell.neighbour_rate_per_s or 0.0
    assert rate_b == pytest.approx(250, rel=0.01)
    waits = (200 * 2 * 1e-3**2 + rate_b * 2e-3**2) / 2 / (1 - 0.2)
    assert_law(cell.ratio("mean"), (waits + 1e-3) * (1000 - 200), len(cell.rounds))


def test_the_load_is_equal_in_every_cell_and_way(tmp_path: Path) -> None:
    """Rates are those of the closed loops alone, once; a round has the same requests alone and beside."""
    result = measured(
        tmp_path / "i.json",
        *pair(",contexts=2", ",contexts=3"),
        *("--share", "streams,priority,sms=25%+75%,both", "--load", "40%", "--rounds", "2", "--duration", "300ms"),
        *("--neighbour", "50%,closed"),
    )
    assert result.shares == ("streams", "priority", "sms=25%+75%", "both=25%+75%")
    assert len(result.cells) == 4 * 2 * 2
    for cell in result.cells:
        alone, neighbour = (result.alone[name].closed.per_s for name in (cell.model, cell.neighbour))
        assert cell.rate_per_s == pytest.approx(0.4 * alone, rel=1e-5)
        level = cell.neighbour_level
        offered = None if level in (IDLE, CLOSED) else pytest.approx(float(level[:-1]) / 100 * neighbour, rel=1e-5)
        assert cell.neighbour_rate_per_s == offered
        assert [one.alone.due for one in cell.rounds] == [one.beside.due for one in cell.rounds]
        assert len({one.alone.due for one in cell.rounds}) == 2  # each round has a seed of its own
    rounds = {(cell.model, str([one.alone for one in cell.rounds])) for cell in result.cells}
    assert len(rounds) == 2  # alone, the same requests take the same time whatever was measured in between


SLOW = [
    *("--model", "a='simulated:service=6ms,cv=0.3,scales=0.3,device=g,clock=virtual',contexts=2"),
    *("--model", "b='simulated:service=8ms,cv=0.3,scales=0.5,device=g,clock=virtual',contexts=2"),
    *("--load", "30%", "--neighbour", "30%", "--rounds", "3"),
]


def test_runs_are_as_long_as_their_interval_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model at 38/s 5 s have no p99. Cells that need no longer runs have none; the longest are of a minute. Those
    that follow have the rates, and the seeds, that they would have. What is continued has the same lengths, also after
    a signal in the longer runs of a first round."""
    file = tmp_path / "i.json"
    result = measured(file, *SLOW)
    for cell in result.cells:
        ratio = cell.ratio()
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        assert ratio.reason is None
        assert 5 < (cell.length_ns or 0) / SECOND_NS <= 60
        due = {one.alone.due for one in cell.rounds}
        expected = (cell.rate_per_s or 0) * (cell.length_ns or 0) / SECOND_NS
        assert len(cell.rounds) == len(due) == 3
        assert all(0.8 * expected < 1.11 * one < 1.2 * expected for one in due)  # without the first tenth
    file = tmp_path / "again.json"
    stopping_after(monkeypatch, 5)  # both alone, and in the first cell the pair of short runs and one longer run
    assert run(*SLOW, "--no-verify", "--quiet", "--json", file).returncode == 130
    monkeypatch.undo()
    (cut,) = read_result(InterferenceResult, file).cells
    assert (len(cut.rounds), (cut.length_ns or 0) < (result.cells[0].length_ns or 0)) == (1, True)
    assert measured(file, *SLOW, "--resume").cells == result.cells
    fast = pair("", "", "simulated:service=500us,clock=virtual", "simulated:service=500us,clock=virtual")
    quick = measured(tmp_path / "q.json", *fast, "--neighbour", "50%", "--rounds", "1")
    assert {cell.length_ns for cell in quick.cells} == {None}


def test_a_duration_is_kept_and_the_one_that_does_is_told(tmp_path: Path) -> None:
    """First for p99 itself, and then for its interval."""
    seconds, told = 5, 0
    for _ in range(3):
        result = measured(tmp_path / f"{seconds}.json", *SLOW, "--duration", f"{seconds}s")
        assert {cell.length_ns for cell in result.cells} == {None}
        longer = re.findall(r"take --duration (\d+)s", " ".join(terminal_text(result).split()))
        if not longer:
            break
        assert seconds < max(map(int, longer)) <= 120
        seconds, told = max(map(int, longer)), told + 1
    assert told >= 1
    assert all((ratio := cell.ratio()) and ratio.low and ratio.high for cell in result.cells)


def test_processes_of_their_own_have_the_load_of_other_ways(tmp_path: Path) -> None:
    """And the same requests at the same instants: engines that share nothing are as fast as alone, request for request,
    in one process as in two. Outputs are compared once in each; how each is placed is kept."""
    engines = ("simulated:service=2ms,clock=virtual", "simulated:service=3ms,clock=virtual")
    result = measured(
        tmp_path / "i.json",
        *pair(",contexts=2", ",contexts=2", *engines),
        *("--share", "streams,processes", "--rounds", "1", "--duration", "500ms", "--neighbour", "0,50%,closed"),
        verify=True,
    )
    assert len(result.cells) == 2 * 2 * 3
    for model in ("a", "b"):
        for level in (IDLE, "50%", CLOSED):
            plain, apart = of(result, model, level), of(result, model, level, "processes")
            assert (apart.rate_per_s, apart.neighbour_rate_per_s) == (plain.rate_per_s, plain.neighbour_rate_per_s)
            assert apart.rounds == plain.rounds
            assert apart.failure is None
            assert apart.ratio("mean") == plain.ratio("mean")
            names = {model} if level == IDLE else {"a", "b"}
            assert {name: mode["processes"] for name, mode in apart.modes.items()} == dict.fromkeys(
                names, f"1 of {len(names)}"
            )
            assert not any("processes" in mode for mode in plain.modes.values())
            assert {name: one.different for name, one in apart.verified.items()} == dict.fromkeys(names, 0)
    assert "in processes of their own" in " ".join(terminal_text(result).split())


def test_processes_are_watched_by_the_observer_of_other_ways(tmp_path: Path) -> None:
    """All runs are pushed, by the names of their models and of no worker."""
    engines = ("simulated:service=2ms,clock=virtual", "simulated:service=3ms,clock=virtual")
    with listening() as (url, got):
        ways = ("--share", "processes", "--neighbour", "0,50%", "--rounds", "2", "--duration", "1s", "--push", url)
        result = measured(tmp_path / "i.json", *pair("", "", *engines), *ways)
    runs: dict[bytes, set[bytes]] = {}
    for _, _, body in got:
        assert b"worker=" not in body
        for model, run_ in re.findall(rb'loadtrt_latency_seconds_count{.*?model="(.*?)",run="(.*?)"', body):
            runs.setdefault(run_, set()).add(model)
    assert len(result.cells) == 4
    told = sorted(b"".join(sorted(names)) for names in runs.values())
    # Its closed loop; in both rounds twice alone, and beside one that is idle.
    assert told == [*[b"a"] * 7, *[b"ab"] * 4, *[b"b"] * 7]


def test_a_process_that_is_killed_fails_its_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no other one."""
    start_one, started = fleet._Fleet._start, list[Any]()

    def start(this: Any, *arguments: Any) -> Any:
        started.append(start_one(this, *arguments))
        if len(started) == 2:
            started[-1].link.kill()
        return started[-1]

    monkeypatch.setattr(fleet._Fleet, "_start", start)
    engines = ("simulated:service=2ms,clock=virtual", "simulated:service=3ms,clock=virtual")
    ways = ("--share", "processes", "--neighbour", "50%", "--rounds", "1", "--duration", "500ms")
    result = measured(tmp_path / "i.json", *pair("", "", *engines), *ways)
    assert ["b: it was ended by SIGKILL" in (cell.failure or "") for cell in result.cells] == [True, False]
    assert result.cells[1].rounds


def test_a_neighbour_in_a_closed_loop_is_compared_with_itself_alone(tmp_path: Path) -> None:
    """Of a device that both share, a takes 40 % at its rate: b keeps the rest."""
    a = "simulated:service=4ms,device=g,clock=virtual"
    b = "simulated:service=1ms,device=g,clock=virtual"
    result = measured(tmp_path / "i.json", *pair(",rate=100/s,arrivals=constant", "", a, b), "--neighbour", "closed")
    kept = of(result, "a", CLOSED).neighbour_kept
    assert kept is not None
    assert kept.ratio == pytest.approx(0.6, abs=0.002)


def test_what_is_in_flight_at_the_end_is_not_lost(tmp_path: Path) -> None:
    """Of requests that take a second each, on a device of their own: a tenth of ten seconds' requests."""
    slow = "simulated:service=1s,device=other,clock=virtual"
    result = measured(
        tmp_path / "i.json",
        *pair("", ",contexts=10,buffers=1,rate=5/s", "simulated:service=100ms,device=g,clock=virtual", slow),
        *("--neighbour", "50%", "--arrivals", "constant", "--duration", "10s", "--rounds", "2"),
    )
    kept = of(result, "a", "50%").neighbour_kept
    assert kept is not None
    assert kept.ratio == pytest.approx(1, abs=0.03)


# --- what cannot be trusted, and what fails


def test_outputs_that_differ_make_a_cell_invalid(tmp_path: Path) -> None:
    """Of the neighbour, too; and in every cell of the pair. With an idle one, a's are right."""
    result = measured(
        tmp_path / "i.json",
        *pair("", ",contexts=2", of_b=f"{B},race=0.5"),
        "--rounds",
        "2",
        "--duration",
        "2s",
        verify=True,
    )
    wrong = [cell for cell in result.cells if not cell.valid]
    assert {(cell.model, cell.neighbour_level) for cell in result.cells if cell.valid} == {("a", IDLE)}
    assert all("outputs differ" in " ".join(cell.problems) for cell in wrong)
    assert all(len(cell.rounds) == 1 for cell in wrong)
    right = of(result, "a", IDLE)
    assert [(one.different, one.outputs > 0) for one in right.verified.values()] == [(0, True)]
    assert "INVALID" in terminal_text(result)


def test_an_engine_that_hangs_alone_is_told_and_opened_anew(tmp_path: Path) -> None:
    """The cell has not failed because of what the last run has left in flight; another engine is measured."""
    hangs = "simulated:service=2ms,clock=virtual,hang=3s"
    ways = ("--neighbour", "0", "--rounds", "1", "--duration", "2s", "--no-verify")
    result = measured(tmp_path / "i.json", *pair("", "", hangs), *ways)
    assert {cell.model: cell.failure for cell in result.cells} == {
        "a": "alone: no request was served: measure for longer",
        "b": None,
    }


def test_a_way_that_an_engine_cannot_have_fails_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other ways are measured. Nothing is measured alone for a way that is refused: six runs are both closed loops, and
    a pair for each cell of the other way."""
    nobody = "simulated:service=1ms,clock=virtual"
    runs, made = [], Rig.run

    def counted(rig: Rig, *given: Any, **more: Any) -> Any:
        runs.append(given[1])
        return made(rig, *given, **more)

    monkeypatch.setattr(Rig, "run", counted)
    result = measured(
        tmp_path / "i.json",
        *pair("", "", nobody, nobody),
        *("--share", "streams,priority", "--neighbour", "0", "--rounds", "1", "--duration", "300ms"),
    )
    assert len(runs) == 6
    failures = {cell.share: cell.failure for cell in result.cells}
    assert failures["streams"] is None
    assert "add device=gpu0" in str(failures["priority"])
    done = run(A, B, "--share", "sms=32+100", "--neighbour", "0", "--rounds", "1", "--duration", "100ms", "--no-verify")
    assert "simulated engine: its device has no SMs to count: write --share sms as a share" in done.stderr
    assert "add device=gpu0" in terminal_text(result)


def test_a_model_that_fails_ends_its_cell(tmp_path: Path) -> None:
    """The device is lost 3 s after an engine's first request, and opened anew for the next cell."""
    options = ("--duration", "2s", "--rounds", "2", "--quiet", "--json", tmp_path / "i.json")
    done = run(*pair("", "", A, f"{B},lost=7s"), *options)
    result = read_result(InterferenceResult, tmp_path / "i.json")
    assert done.returncode == 0
    assert result.outcome == "completed"
    assert any("lost=7s" in str(cell.failure) for cell in result.cells)
    assert any(cell.valid for cell in result.cells)


def test_an_overloaded_model_is_said_to_be(tmp_path: Path) -> None:
    result = measured(
        tmp_path / "i.json", *pair(), "--load", "80%", "--neighbour", "50%", "--duration", "5s", "--rounds", "2"
    )
    assert all(cell.overloaded and cell.valid for cell in result.cells)
    assert "grows without end" in terminal_text(result)


# --- kept, and continued


OPTIONS = (*pair(",contexts=2", ""), "--neighbour", "50%,closed", "--duration", "1s", "--rounds", "2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> InterferenceResult:
    return measured(
        tmp_path_factory.mktemp("whole") / "i.json", *OPTIONS, "--share", "streams,sms=25%+75%", verify=True
    )


@pytest.mark.parametrize("runs", [1, 14])
def test_what_is_continued_is_as_if_never_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: InterferenceResult, runs: int
) -> None:
    """A signal at any run: what is in the file is valid, and --resume makes the same cells of it, to the last digit."""
    file = tmp_path / "i.json"
    asked: tuple[str | Path, ...] = (*OPTIONS, "--share", "streams,sms=25%+75%", "--json", file, "--quiet")
    stopping_after(monkeypatch, runs)
    assert run(*asked).returncode == 130
    monkeypatch.undo()
    assert read_result(InterferenceResult, file).outcome == "interrupted"
    done = run(*asked)
    assert (done.returncode, "--resume" in done.stderr) == (2, True)
    assert run(*asked, "--resume").returncode == 0
    cells = read_result(InterferenceResult, file).cells
    numbers = [[cell.model_copy(update={"verified": {}}) for cell in of_one] for of_one in (cells, whole.cells)]
    assert numbers[0] == numbers[1]  # engines that are opened again are verified again
    assert all(one.different == 0 for cell in cells for one in cell.verified.values())


def test_a_signal_before_any_rate_is_known_ends_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the very first run there is nothing to keep."""
    made = Rig.run

    def stopping(rig: Rig, *given: object, **more: object) -> object:
        SIGNALS.ask()
        return made(rig, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Rig, "run", stopping)
    done = run(*OPTIONS, "--json", tmp_path / "i.json")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "loadtrt: interrupted")
    assert not (tmp_path / "i.json").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--load", "30%", "load was 50%, and is 30%"),
        ("--neighbour", "50%", "a beside b in a closed loop, on plain streams, which would be lost"),
        ("--share", "priority", "which would be lost"),
        ("--seed", "7", "seed of a was 1, and is 7"),
    ],
)
def test_only_the_same_is_continued(
    tmp_path: Path, whole: InterferenceResult, option: str, value: str, message: str
) -> None:
    file = tmp_path / "i.json"
    file.write_text(whole.model_copy(update={"outcome": "interrupted"}).model_dump_json())
    default = {"--share": "streams,sms=25%+75%", option: value}
    rest = [word for word in zip(OPTIONS[::2], OPTIONS[1::2], strict=True) if word[0] not in default]
    words = [word for given in (*rest, *default.items()) for word in given]
    done = run(*words, "--json", file, "--resume")
    assert done.returncode == 2
    assert message in done.stderr


def test_more_rounds_and_levels_continue_a_result(tmp_path: Path, whole: InterferenceResult) -> None:
    file = tmp_path / "i.json"
    file.write_text(whole.model_copy(update={"outcome": "interrupted"}).model_dump_json())
    asked = [*OPTIONS[:4], "--neighbour", "0,50%,closed", "--duration", "1s", "--rounds", "3", "--precision", "0.1%"]
    assert run(*asked, "--share", "streams,sms=25%+75%", "--json", file, "--resume", "--quiet").returncode == 0
    result = read_result(InterferenceResult, file)
    assert len(result.cells) == 12
    assert of(result, "a", "50%").rounds[:2] == of(whole, "a", "50%").rounds
    assert len(of(result, "a", "50%").rounds) == 3


def test_the_headline_is_the_worst_pair_with_what_protects_it(whole: InterferenceResult) -> None:
    """As the numbers of its cells are."""
    numbered = [_with_p99(cell, 4.1 if cell.share == "streams" else 1.2, 0.82) for cell in whole.cells]
    numbered = [cell.model_copy(update={"overloaded": False}) for cell in numbered]
    numbered[0] = _with_p99(numbered[0], 4.5, 1.0)
    assert headline(whole.model_copy(update={"cells": tuple(numbered)})) == (
        "beside b at 50 % on plain streams, a's p99 is 4.50× (4.05 .. 4.95) that alone; on 25 % of the SMs it is "
        "1.20× (1.08 .. 1.32) that alone, which costs b 18 % (no interval) of its throughput"
    )


@pytest.mark.parametrize("protected", [0.94, 1.2])
def test_a_ratio_is_not_a_rise(protected: float, whole: InterferenceResult) -> None:
    """Below 1, too: p99 "rises 0.94×" would tell the opposite of what was measured."""
    numbered = [_with_p99(cell, 4.1 if cell.share == "streams" else protected, 1.0) for cell in whole.cells]
    result = whole.model_copy(
        update={"cells": tuple(cell.model_copy(update={"overloaded": False}) for cell in numbered)}
    )
    told = headline(result) or ""
    assert "it is " + ratio_text(numbered[-1].ratio()) + " that alone" in told
    overloaded = [cell.model_copy(update={"overloaded": cell.share == "streams"}) for cell in numbered]
    told = headline(whole.model_copy(update={"cells": tuple(overloaded)})) or ""
    assert "p99 grows without end; " in told
    for text in (told, terminal_text(result)):
        assert not re.search(r"(rises|falls|grows)( by)?\s+\d", text)


def test_only_columns_that_are_shown_are_explained(whole: InterferenceResult) -> None:
    """The terminal leaves some out, which the page has."""
    text, page = terminal_text(whole), markdown(list(sections_of(whole, "", "result")))
    for title in ("ratio", "verified", "costs", "speed-up", "loses", "Jain"):
        assert f"{title}: " in page
        header = re.search(rf"^model .*\b{title}\b", text, re.MULTILINE)
        assert (f"{title}: " in " ".join(text.split())) == bool(header)
    assert "Jain" not in text


def test_the_headline_says_where_nothing_rises(whole: InterferenceResult) -> None:
    """An interval that holds 1 is no rise, also where the ratio of another cell, which does rise, is smaller."""
    still = tuple(_with_p99(cell, 1.05, 1.0).model_copy(update={"overloaded": False}) for cell in whole.cells)
    words = "no p99 rises: the highest is 1.05× (0.95 .. 1.16) that alone, a beside b at 50 %, on plain streams"
    assert headline(whole.model_copy(update={"cells": still})) == words
    p99 = PairedRatio(name="latency.p99", ratio=1.03, low=1.02, high=1.04)
    place = still.index(of(whole.model_copy(update={"cells": still}), "b", "50%"))
    cells = (*still[:place], still[place].model_copy(update={"ratios": (p99,)}), *still[place + 1 :])
    told = headline(whole.model_copy(update={"cells": cells}))
    assert told is not None
    assert told.startswith("beside a at 50 % on plain streams, b's p99 is 1.03× (1.02 .. 1.04) that alone")


def _with_p99(cell: Cell, ratio: float, kept: float) -> Cell:
    p99 = PairedRatio(name="latency.p99", ratio=ratio, low=0.9 * ratio, high=1.1 * ratio)
    return cell.model_copy(update={"ratios": (p99,), "neighbour_kept": PairedRatio(name="kept", ratio=kept)})


def test_what_it_costs_has_an_interval(whole: InterferenceResult) -> None:
    cell = of(whole, "a", CLOSED)
    assert cell.neighbour_kept is not None
    assert cell.weighted_speedup is not None
    for number in (cell.neighbour_kept, cell.weighted_speedup):
        assert number.low is not None
        assert number.high is not None
        assert number.low <= (number.ratio or 0.0) <= number.high
    kept = PairedRatio(name="kept", ratio=0.82, low=0.8, high=0.84)
    numbered = _with_p99(of(whole, "a", "50%", "sms=25%+75%"), 1.2, 0.82)
    cells = [_with_p99(of(whole, "a", "50%"), 4.1, 1.0), numbered.model_copy(update={"neighbour_kept": kept})]
    told = headline(whole.model_copy(update={"cells": tuple(cells)})) or ""
    assert told.endswith("which costs b 18 % (16 .. 20 %) of its throughput")
    even = kept.model_copy(update={"high": 1.01})
    cells[1] = numbered.model_copy(update={"neighbour_kept": even})
    assert (headline(whole.model_copy(update={"cells": tuple(cells)})) or "").endswith("costs b no throughput")


def test_cells_are_lines_of_csv(whole: InterferenceResult, tmp_path: Path) -> None:
    """Those of the table for pandas; beside a run they cannot stand."""
    (tmp_path / "i.json").write_text(whole.to_json())
    done = loadtrt("report", tmp_path / "i.json", "-o", tmp_path / "i.csv")
    assert done.returncode == 0, done.stderr
    lines = list(csv.DictReader((tmp_path / "i.csv").read_text().splitlines()))
    assert len(lines) == len(whole.cells)
    assert set(whole.to_pandas().columns) | {"file", "kind", "number"} == set(lines[0])
    assert float(lines[0]["mean_ratio"]) == pytest.approx(whole.cells[0].ratio("mean").ratio)  # type: ignore[union-attr]
    loadtrt("run", A, "--requests", "20", "--warmup", "0", "--quiet", "--json", tmp_path / "r.json")
    done = loadtrt("report", tmp_path / "r.json", tmp_path / "i.json", "-o", tmp_path / "b.csv")
    assert done.returncode == 2
    assert "i.json holds interference, which has other columns" in done.stderr


def test_cells_are_a_table_for_pandas(whole: InterferenceResult) -> None:
    table = whole.to_pandas()
    assert len(table) == len(whole.cells)
    assert {"share", "model", "neighbour", "p99_ratio", "p99_low", "neighbour_kept_ratio", "valid"} <= set(
        table.columns
    )
    assert table["rounds"].tolist() == [len(cell.rounds) for cell in whole.cells]


# --- fingerprints


@pytest.mark.parametrize(("rho_a", "rho_b"), [(0.3, 0.2), (0.5, 0.4), (0.1, 0.6), (0.5, 0.5)])
def test_processor_sharing_is_predicted_exactly(rho_a: float, rho_b: float) -> None:
    """(1 − ρ_a) / (1 − ρ_a − ρ_b), of what stressors show by the same law; none where that is overload."""

    law = (1 - rho_a) / (1 - rho_a - rho_b) if rho_a + rho_b < 1 else None
    found = predicted(_print_of(rho_a), _print_of(rho_b), "50%", 0.3)
    assert (found.ratio, found.low, found.high) == (law and pytest.approx(law), None, None)


def _print_of(rho: float, half: float | None = None) -> Fingerprint:
    """A fingerprint by that law. half: of the intervals of ln S and of P."""

    def number(name: str, ratio: float, low: float, high: float) -> PairedRatio:
        return PairedRatio(name=name, ratio=ratio) if half is None else PairedRatio(
            name=name, ratio=ratio, low=low, high=high
        )  # fmt: skip

    def slowed(ratio: float) -> PairedRatio:
        return number("latency.p99", ratio, ratio * math.exp(-(half or 0)), ratio * math.exp(half or 0))

    def lost(share: float) -> PairedRatio:
        return number("lost", share, share - (half or 0), share + (half or 0))

    slowdowns = {"sm": slowed((1 - rho) / (1 - rho - 0.3)), "dram": slowed(0.98)}  # the latter is noise
    return Fingerprint(slowdowns=slowdowns, pressures={"50%": {"sm": lost(rho), "dram": lost(0.1)}})


@pytest.mark.parametrize(("rho_a", "rho_b"), [(0.3, 0.2), (0.5, 0.3), (0.1, 0.6)])
def test_the_interval_of_a_prediction_holds_the_law(rho_a: float, rho_b: float) -> None:
    """In 93 to 99 % of draws of all that was measured, with their own 95 % intervals. Of what has none, it has none."""
    half, draws, random = 0.02, 2000, np.random.default_rng(4)
    a, b, law, held = _print_of(rho_a, half), _print_of(rho_b, half), (1 - rho_a) / (1 - rho_a - rho_b), 0

    def drawn(one: PairedRatio) -> PairedRatio:
        error = float(random.normal(0, half / 1.96))
        if one.name == "lost":
            ends = {end: max((getattr(one, end) or 0) + error, 0.0) for end in ("low", "ratio", "high")}
        else:
            ends = {end: (getattr(one, end) or 0) * math.exp(error) for end in ("low", "ratio", "high")}
        return one.model_copy(update=ends)

    for _ in range(draws):
        of_a = a.model_copy(update={"slowdowns": {"sm": drawn(a.slowdowns["sm"])}})
        of_b = b.model_copy(update={"pressures": {"50%": {"sm": drawn(b.pressures["50%"]["sm"])}}})
        found = predicted(of_a, of_b, "50%", 0.3)
        held += (found.low or 0) <= law <= (found.high or math.inf)
    assert 0.93 <= held / draws <= 0.99


def test_a_stressor_of_a_resource_that_nobody_uses_costs_nothing(tmp_path: Path) -> None:
    """A device of its own: slow-down 1, pressure 0, exactly. One on the same device slows both down, and predicts."""
    result = measured(
        tmp_path / "i.json",
        *pair(",contexts=4", ",contexts=4"),
        *("--stressor", "dram='simulated:service=1ms,device=other,clock=virtual'"),
        *("--stressor", "sm='simulated:service=1ms,device=g,clock=virtual'"),
        *("--neighbour", "30%", "--duration", "4s", "--rounds", "2"),
    )
    assert list(result.fingerprints) == ["a", "b"]
    for fingerprint in result.fingerprints.values():
        assert fingerprint.slowdowns["dram"].ratio == 1
        assert fingerprint.pressures["30%"]["dram"].ratio == pytest.approx(0, abs=1e-9)
        assert (fingerprint.slowdowns["sm"].ratio or 0) > 1.2
        assert fingerprint.pressures["30%"]["sm"].ratio == pytest.approx(0.3, abs=0.05)
    assert [(item.model, item.neighbour) for item in result.predictions] == [("a", "b"), ("b", "a")]
    errors = [abs((item.ratio or 0) / (item.measured or 1) - 1) for item in result.predictions]
    assert result.prediction_error == pytest.approx(sum(errors) / 2)
    assert len(result.matrix) == 2
    assert "median error" in terminal_text(result)


def test_a_model_without_a_fingerprint_says_why(tmp_path: Path) -> None:
    """And an overload that was measured is told beside the one that was predicted."""
    file = tmp_path / "i.json"
    result = measured(
        file,
        *pair("", ",rate=50/s"),
        *("--stressor", "sm='simulated:service=1ms,device=g,clock=virtual'"),
        *("--neighbour", "90%", "--load", "60%", "--duration", "4s", "--rounds", "2", "--no-verify"),
    )
    told = " ".join(terminal_text(result).split())
    few = "p99 takes 459 requests, and a run has about 200: take --duration 12s"
    assert f"b has no fingerprint: b beside sm at 30 %, {few}" in told
    cell = of(result, "a", "90%")
    prediction = Predicted(model="a", neighbour="b", neighbour_level="90%", ratio=None)
    told = terminal_text(result.model_copy(update={"predictions": (prediction,)}))
    assert cell.overloaded
    assert re.search("a +b +at 90 % +overloaded +– +overloaded +–", told)


@pytest.mark.parametrize(
    ("launch", "why"), [("30ms", "; p99 of a alone, .* ms, is shorter than a launch of s, for which"), ("1ms", "$")]
)
def test_an_overload_that_was_none_is_explained_by_long_launches(tmp_path: Path, launch: str, why: str) -> None:
    """For one of which a request waits, whatever the load; no other is named."""
    result = measured(
        tmp_path / "i.json",
        *pair(",rate=100/s", "", *[f"simulated:service=1ms,device=g,clock=virtual,{EXPONENTIAL}"] * 2),
        *("--stressor", f"s='simulated:service={launch},device=g,clock=virtual'"),
        *("--duration", "8s", "--neighbour", "50%", "--rounds", "1"),
    )
    wrong = tuple(one.model_copy(update={"ratio": None, "low": None, "high": None}) for one in result.predictions[:1])
    assert [(one.model, one.measured is not None) for one in wrong] == [("a", True)]
    text = " ".join(terminal_text(result.model_copy(update={"predictions": wrong})).split())
    assert re.search("in 1 cell they predict an overload, and there was none" + why, text)


def test_one_model_has_a_fingerprint(tmp_path: Path) -> None:
    result = measured(
        tmp_path / "i.json",
        *("--model", f"a='{A}'", "--stressor", "sm='simulated:service=1ms,device=g,clock=virtual'"),
        *("--neighbour", "50%", "--duration", "2s", "--rounds", "2"),
    )
    assert list(result.fingerprints["a"].slowdowns) == ["sm"]
    assert result.matrix == ()


# --- the command line


def test_what_has_too_few_requests_is_told_with_what_it_takes(tmp_path: Path) -> None:
    """Of 200 requests p99 is not known: told once rates are, and beside the matrix, with the time in which all are."""
    asked = ("--neighbour", "20%", "--rounds", "2", "--no-verify")
    done = run(*pair(",rate=200/s", ",rate=100/s"), *asked, "--duration", "2s")
    for requests, seconds in (400, 3), (200, 6):
        few = f"p99 takes 459 requests, and a run has about {requests}: take --duration {seconds}s"
        assert done.stderr.count(f"requests/s in a closed loop; as judged, {few}") == 1
    assert f"the ratio of 2 cells is not known: {few}" in " ".join(done.stdout.split())
    result = measured(tmp_path / "i.json", *pair(",rate=200/s", ",rate=100/s"), *asked, "--duration", "6s")
    assert all(cell.ratio() is not None for cell in result.cells)
    assert "not known" not in terminal_text(result)


def test_a_ratio_without_an_interval_says_so(whole: InterferenceResult) -> None:
    """It is not said to rise, nor not to."""
    p99 = PairedRatio(name="latency.p99", ratio=14.6, reason="an interval takes two rounds or more")
    cells = tuple(cell.model_copy(update={"ratios": (p99,), "overloaded": False}) for cell in whole.cells)
    shown = whole.model_copy(update={"cells": cells})
    assert headline(shown) == (
        "no p99 is known to rise: the highest is 14.6× (no interval) that alone, a beside b at 50 %, on plain streams"
    )
    assert "not bounded on both sides: an interval takes two rounds or more" in " ".join(terminal_text(shown).split())


def test_what_ends_single_runs_of_a_file_is_left_out(tmp_path: Path) -> None:
    """Else closed loops would end early, and their throughput, over the whole time, be that of a slower engine."""
    models = {"a": {"engine": A}, "b": {"engine": B}}
    ends = {"precision": "20%", "abort_on_fail": True, "objective": "latency.p99 < 1us", "worker": "0/2", "requests": 9}
    found = []
    for place, more in enumerate(({}, ends)):
        (tmp_path / f"{place}.yaml").write_text(json.dumps({"models": models, **more}))
        options = ("--config", str(tmp_path / f"{place}.yaml"), "--neighbour", "0", "--rounds", "1", "--no-verify")
        found.append(measured(tmp_path / f"{place}.json", *options, "--duration", "10s"))
    plain, ended = found
    assert ended.cells == plain.cells
    assert {name: one.closed for name, one in ended.alone.items()} == {
        name: one.closed for name, one in plain.alone.items()
    }
    assert plain.alone["a"].closed.per_s == pytest.approx(500, rel=0.05)


def test_closed_loops_that_are_invalid_are_measured_again(tmp_path: Path, whole: InterferenceResult) -> None:
    """They fix the rates; where rounds have these rates, they stay."""
    problems = {"a": whole.alone["a"].model_copy(update={"problems": ("the host was late",)})}
    wrong = whole.model_copy(update={"alone": {**whole.alone, **problems}, "outcome": "interrupted"})
    for cells, expected in (((), ()), (whole.cells, ("the host was late",))):
        (tmp_path / "i.json").write_text(wrong.model_copy(update={"cells": cells}).to_json())
        done = run(*OPTIONS, "--share", "streams,sms=25%+75%", "--json", tmp_path / "i.json", "--resume", "--quiet")
        assert done.returncode == 0, done.stderr
        assert read_result(InterferenceResult, tmp_path / "i.json").alone["a"].problems == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "and there is none: give two engines, such as a.plan b.plan"),
        ([A], "there is one: give another engine, or --stressors"),
        ([A, B, "--sms", "25%"], "--sms is not an option"),
        (pair(",requests=50"), "a: all runs have one duration: leave requests out"),
        (pair(",sms=25%"), "a: --share gives the models their shares of the device: leave sms out"),
        (pair("", ",priority=high"), "b: --share gives the models their shares of the device: leave priority out"),
        ([A, B, "--share", "both"], "--share: 'both' needs a split of the SMs: write both=32+100"),
        ([A, B, "--share", "mps"], "--share: 'mps' is not a way to share: write such as streams,priority"),
        ([A, B, "--share", "processes"], "is on the simulated device g, which one process has"),
        ([A, B, "--share", "sms=0+8"], "leaves nothing for one of both"),
        ([A, B, "--share", "sms=60%+50%"], "is more than there is"),
        ([A, B, "--neighbour", "fast"], "write one such as 3% or 0.03, or several, such as 0,50%,90%,closed"),
        ([A, B, "--stressors"], "--stressors load a GPU, and it has none"),
        ([A, B, "--neighbour", "300%"], "--neighbour: '300%' is not above 0 and up to 200%"),
        ([A, B, "--load", "0"], "--load: '0' is not above 0 and up to 100%"),
        ([A, B, "--precision", "0"], "--precision: '0' is not from 0.1% to 100%"),
        (
            [*pair(",batcher='max=4,delay=1ms',rate=10/s")],
            "a: a closed loop fixes the rates, and has no batches",
        ),
        ([*pair(",stages='10/s:1s, 20/s:1s'")], "a: its load (poisson in stages"),
        ([*pair(), "--stressor", "a=simulated:null"], "a is a model and a stressor"),
        ([*pair(), "--stressor", "x"], "--stressor x has no name"),
        ([*pair(), "--stressor", "s=simulated:null,rate=nan"], "--stressor s: --rate: 'nan' is not a rate"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_engines_are_named_by_their_files(tmp_path: Path) -> None:
    """With a number where two are the same."""
    result = measured(tmp_path / "i.json", A, A, A, "--neighbour", "0", "--duration", "500ms", "--rounds", "1")
    assert list(result.config.models) == ["simulated", "simulated-2", "simulated-3"]
    assert len(result.cells) == 6


def test_the_file_is_the_schema(tmp_path: Path) -> None:
    measured(tmp_path / "i.json", *pair(), "--neighbour", "50%", "--duration", "1s", "--rounds", "1")
    schema = json.loads(loadtrt("schema", "interference").stdout)
    assert set(json.loads((tmp_path / "i.json").read_text())) <= set(schema["properties"])
