"""Sweeps: the order of points, what is skipped, the curve; end to end on simulated engines, resumed, interrupted."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from command_line import ROOT, loadtrt
from loadtrt.asked.reading import varied
from loadtrt.cli.delivery import leave
from loadtrt.errors import UsageError
from loadtrt.files import locked
from loadtrt.load.inputs import InputSets
from loadtrt.report.plain import terminal_text
from loadtrt.report.result_files import read_result
from loadtrt.results.capacity_result import SweepPoint, SweepResult
from loadtrt.results.run_result import RunResult
from loadtrt.runs import maker
from loadtrt.runs.opened import Opened
from loadtrt.sizing.grid import knee_of, pareto_of, parse_axis, points_of, spent_axis
from runs_by_hand import changed

if TYPE_CHECKING:
    from collections.abc import Sequence

MS = 1_000_000
VIRTUAL = "simulated:service=2ms,contention=1,clock=virtual"


def _swept(file: Path, *arguments: str) -> SweepResult:
    common = ["--warmup", "0", "--quiet", "--json", str(file)]
    common += [] if "--duration" in arguments else ["--duration", "2s"]
    done = loadtrt("sweep", "--engine", VIRTUAL, *common, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return read_result(SweepResult, file)


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Any run at all, to make points of."""
    file = tmp_path_factory.mktemp("run") / "run.json"
    loadtrt("run", "--engine", VIRTUAL, "--warmup", "0", "--duration", "2s", "--quiet", "--json", file)
    return RunResult.model_validate_json(file.read_text())


def _point(a_run: RunResult, rate: float, p99_ns: float, *, valid: bool = True, **settings: Any) -> SweepPoint:
    latency = a_run.model.metrics["latency"]
    latency = latency.model_copy(update={"mean_ns": p99_ns / 2, "percentiles_ns": {"p50": p99_ns / 2, "p99": p99_ns}})
    changes = {
        "throughput": a_run.model.throughput.model_copy(update={"inferences_per_s": rate}),
        "metrics": {**a_run.model.metrics, "latency": latency},
        "valid": valid,
    }
    return SweepPoint(settings=settings, run=changed(a_run, **changes))


# --- pure


def test_what_needs_another_engine_changes_slowest() -> None:
    """Rates are innermost: an engine stays open for all of them. Contexts and buffers go up, others are as given."""
    axes = {"rate": (300.0, 100.0), "contexts": (4, 1), "batch": (8, 1)}
    found = [tuple(point.values()) for point in points_of(axes)]
    assert found == [(b, c, r) for b in (8, 1) for c in (1, 4) for r in (300.0, 100.0)]
    engines = [(batch, contexts) for batch, contexts, _ in found]
    assert len(list(itertools.groupby(engines))) == len(set(engines))


@pytest.mark.parametrize(
    ("rates", "spent"),
    [
        ([100], False),
        ([100, 100], False),
        ([100, 104, 104], True),
        ([100, 104, 106], False),  # 6 % over two further points
        ([100, 200, 204, 209], True),
        ([100, 200, 150, 211], False),
        ([100, 90, 80], True),
    ],
)
def test_an_axis_is_spent_after_two_points_without_a_gain(
    rates: Sequence[float], spent: bool, a_run: RunResult
) -> None:
    """Less than 5 % more than the best before, by the best of the last two."""
    axes = {"contexts": (1, 2, 3, 4, 5), "batch": (1, 8)}
    measured = [_point(a_run, rate, MS, contexts=1 + place, batch=1) for place, rate in enumerate(rates)]
    why = spent_axis({"contexts": 1 + len(rates), "batch": 1}, measured, axes)
    assert (why is not None) == spent
    assert spent_axis({"contexts": 1 + len(rates), "batch": 8}, measured, axes) is None
    if why is not None:
        assert "gained less than 5 %" in why
        assert f"{len(rates) - 1} and {len(rates)} contexts" in why


def test_points_without_a_number_spend_nothing(a_run: RunResult) -> None:
    """A failed point and an INVALID one say nothing of a gain."""
    axes = {"contexts": (1, 2, 3, 4)}
    failed = SweepPoint(settings={"contexts": 2}, run=None, failure="no memory")
    invalid = _point(a_run, 100, MS, valid=False, contexts=3)
    assert spent_axis({"contexts": 4}, [_point(a_run, 100, MS, contexts=1), failed, invalid], axes) is None


def test_the_front_holds_what_nothing_beats(a_run: RunResult) -> None:
    """Ascending in latency and in throughput; beaten, failed and INVALID points are not in it. The knee has the
    greatest X/R."""
    points = [
        _point(a_run, 100, 1 * MS, contexts=1),
        _point(a_run, 90, 2 * MS, contexts=2),  # beaten by the first
        _point(a_run, 300, 2 * MS, contexts=3),
        SweepPoint(settings={"contexts": 4}, run=None, failure="no memory"),
        _point(a_run, 900, 1 * MS, valid=False, contexts=5),
        _point(a_run, 310, 9 * MS, contexts=6),
    ]
    assert pareto_of(points) == (0, 2, 5)
    assert knee_of(points) == 2
    assert (pareto_of([]), knee_of([])) == ((), None)
    assert (pareto_of(points[3:5]), knee_of(points[3:5])) == ((), None)


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("contexts", "1,2,4", (1, 2, 4)),
        ("contexts", "1..4", (1, 2, 3, 4)),
        ("contexts", "8,1..3,2", (8, 1, 2, 3)),
        ("graph", "on,off", (True, False)),
        ("wait", "block", ("block",)),
        ("rate", "100/s,2k/s", (100.0, 2000.0)),
        ("rate", "100/s..1000/s:4,5/s", (100.0, 400.0, 700.0, 1000.0, 5.0)),
        ("burstiness", "0,1,4.5", (0.0, 1.0, 4.5)),
        ("max_queue", "0,16,2..4", (0, 16, 2, 3, 4)),
    ],
)
def test_values_are_read_as_people_write_them(name: str, text: str, values: tuple[object, ...]) -> None:
    """In their order, each once."""
    assert parse_axis(name, text) == values


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("contexts", "", "is not a count"),
        ("contexts", "1,,2", "is not a count"),
        ("contexts", "0..2", "begin at 1"),
        ("contexts", "3..1", "goes up"),
        ("contexts", "1..100000", "1000 at most"),
        ("contexts", "²", "is not a count"),
        ("rate", "fast", "is not a rate"),
        ("rate", "1/s..9/s", "has no number of rates"),
        ("rate", "9/s..1/s:3", "does not go up"),
        ("rate", "1/s..9/s:1", "has no number of rates"),
        ("graph", "yes", "neither on nor off"),
        ("wait", "spin,sleep", "neither spin nor block"),
        ("burstiness", "high", "is not a number"),
        ("max_queue", "-1", "is not a count"),
    ],
)
def test_values_that_are_none_are_told(name: str, text: str, sentence: str) -> None:
    """One sentence that names the option, the text and what is wrong."""
    with pytest.raises(UsageError, match=sentence) as raised:
        parse_axis(name, text)
    assert f"--{name.replace('_', '-')} {text}" in str(raised.value)


# --- end to end


def test_a_sweep_measures_every_point_by_its_law(tmp_path: Path) -> None:
    """contention 1: X = 1/S for any number of contexts, R = contexts · S; a batch of b has b times the inferences."""
    found = _swept(tmp_path / "sweep.json", "--contexts", "1,2", "--buffers", "1", "--batch", "4,1")
    assert found.outcome == "completed"
    assert [point.settings for point in found.points] == [
        {"batch": batch, "buffers": 1, "contexts": contexts} for batch in (4, 1) for contexts in (1, 2)
    ]
    for point in found.points:
        assert point.run is not None
        assert point.run.model.throughput.requests_per_s == pytest.approx(500, rel=0.01)
        assert point.run.model.throughput.inferences_per_s == pytest.approx(500 * point.settings["batch"], rel=0.01)
        assert point.run.model.metrics["latency"].percentiles_ns["p50"] == pytest.approx(
            2 * MS * point.settings["contexts"]
        )
        assert point.run.config.options()["contexts"] == point.settings["contexts"]
    assert (found.pareto, found.knee) == ((0,), 0)


def test_points_leave_their_bulk_behind(tmp_path: Path) -> None:
    """Of a point all numbers are kept, and of its distributions latency's; not every second, nor the records."""
    (point,) = _swept(tmp_path / "sweep.json", "--contexts", "2").points
    assert point.run is not None
    assert list(point.run.model.histograms) == ["latency"]
    assert (point.run.model.intervals, point.run.model.sample, point.run.environment) == ((), None, {})
    assert point.run.model.metrics["service"].percentiles_ns["p99"] is not None


def test_it_ends_along_contexts_that_gain_nothing(tmp_path: Path) -> None:
    """contention 1: a second and a third context add nothing, so that a fourth is not measured; --all measures it."""
    found = _swept(tmp_path / "sweep.json", "--contexts", "1..5")
    assert [point.settings["contexts"] for point in found.points] == [1, 2, 3]
    assert [point.settings["contexts"] for point in found.skipped] == [4, 5]
    assert "2 and 3 contexts gained less than 5 %" in found.skipped[0].reason
    assert "not measured: contexts 4 and 1 point more: 2 and 3 contexts" in " ".join(terminal_text(found).split())
    assert len(_swept(tmp_path / "all.json", "--contexts", "1..5", "--all").points) == 5


def test_rates_make_the_curve_of_latency_against_throughput(tmp_path: Path) -> None:
    """In an open loop nothing is skipped, latency grows with the rate, and every point belongs to the front."""
    found = _swept(tmp_path / "sweep.json", "--rate", "100/s..400/s:4", "--contexts", "1", "--duration", "20s")
    latencies = [point.run.model.metrics["latency"].mean_ns or 0 for point in found.points if point.run]
    assert len(latencies) == 4
    assert latencies == sorted(latencies)
    assert found.pareto == (0, 1, 2, 3)
    assert {point.run.config.options()["arrivals"] for point in found.points if point.run} == {"poisson"}


@pytest.mark.parametrize(
    ("options", "bad"),
    [
        (("--max-queue", "1"), r"max queue 1, rate 2 000/s \([0-9.]+ % dropped\)"),
        (("--max-queue", "1", "--objective", "drops < 99%"), None),
        ((), r"rate 2 000/s \(INVALID\)"),
        (("--max-queue", "1", "--objective", "latency.p99 < 1h"), r"max queue 1, rate 2 000/s \([0-9.]+ % dropped\)"),
    ],
)
def test_the_front_holds_no_point_that_served_less_than_was_asked(
    options: tuple[str, ...], bad: str | None, tmp_path: Path
) -> None:
    """Dropped requests leave the others fast: that counts only where objectives are met all the same. The front and
    the knee leave such points out, and the report says which and why."""
    found = _swept(tmp_path / "sweep.json", "--rate", "100/s,2000/s", *options, "--duration", "10s")
    text = " ".join(terminal_text(found).split())
    if bad is None:
        assert 1 in found.pareto
        assert "neither front nor knee" not in text
    else:
        assert (found.pareto, found.knee) == ((0,), 0)
        assert re.search(f"neither front nor knee: {bad}", text), text


def test_a_sweep_compares_batchers_and_queues(tmp_path: Path) -> None:
    """Each --batcher is a value, with the commas that are its own; batches are no larger than its own, drops are told,
    and a resumed sweep may have a further one."""
    file, axes = tmp_path / "sweep.json", ("--rate", "100/s,1500/s", "--max-queue", "8,512")
    batchers = ("max=4,delay=10ms", "max=8,delay=1ms,sizes=4/8")
    first = _swept(file, *axes, "--batcher", batchers[0])
    file.write_text(first.model_copy(update={"outcome": "interrupted"}).model_dump_json())
    found = _swept(file, *axes, "--batcher", batchers[0], "--batcher", batchers[1], "--resume")
    assert found.points[:4] == first.points
    assert [point.settings["batcher"] for point in found.points] == [batchers[0]] * 4 + [batchers[1]] * 4
    for point in found.points:
        assert point.run is not None
        assert point.run.model.batches is not None
        assert point.run.config.model.max_queue == point.settings["max_queue"]
        assert (point.run.model.dropped > 0) == (point.settings["max_queue"] == 8 and point.settings["rate"] == 1500)
    text = loadtrt("report", file).stdout
    assert "batcher max=4,delay=10ms, max=8,delay=1ms,sizes=4/8" in " ".join(text.replace("\\", "").split())
    assert "dropped" in text
    page = loadtrt("report", file, "-o", tmp_path / "sweep.html")
    assert page.returncode == 0, page.stderr


def test_stages_and_traces_are_scaled_to_each_rate(tmp_path: Path) -> None:
    """With --rate each point has that mean rate; without, the stages are as they are written."""
    trace = tmp_path / "trace.csv"
    trace.write_text("".join(f"{at}\n" for at in range(40)))
    options = ("--engine", VIRTUAL, "--warmup", "0", "--quiet", "--json", "-")
    for load, words, lasts in (
        (("--stages", "1/s:1s, 3/s:1s"), "poisson in stages 1/s:1s, 3/s:1s, scaled to each rate on average", (2, 2)),
        (("--trace", trace), f"trace {trace}, scaled to each rate on average", (0.8, 0.4)),
    ):
        done = loadtrt("sweep", *options, *load, "--rate", "50/s,100/s")
        found = SweepResult.model_validate_json(done.stdout)
        runs = [point.run for point in found.points if point.run is not None]
        assert [run.model.throughput.offered_per_s for run in runs] == [50, 100]
        assert [run.config.model.load.own_ns for run in runs] == [round(1e9 * seconds) for seconds in lasts]
        assert words in " ".join(terminal_text(found).split())
    done = loadtrt("sweep", *options, "--stages", "100/s:1s, 300/s:1s", "--burstiness", "0.5,2")
    found = SweepResult.model_validate_json(done.stdout)
    assert [point.run.model.throughput.offered_per_s for point in found.points if point.run] == [200, 200]
    assert "gamma in stages 100/s:1s, 300/s:1s burstiness" in " ".join(terminal_text(found).split())


def test_a_point_that_fails_is_kept_with_its_sentence(tmp_path: Path) -> None:
    """One setting that this engine cannot have costs the sweep nothing else."""
    file = tmp_path / "sweep.json"
    done = loadtrt("sweep", "--engine", f"{VIRTUAL},slow_lane=1:2", "--contexts", "1,2", "--warmup", "0",
                    "--duration", "1s", "--json", file)  # fmt: skip
    found = read_result(SweepResult, file)
    assert done.returncode == 0
    assert [point.failure is None for point in found.points] == [False, True]
    assert "slow_lane 1 is not a lane" in (found.points[0].failure or "")
    assert "slow_lane 1 is not a lane" in " ".join(done.stdout.split())


def test_a_finished_point_is_not_measured_again(tmp_path: Path) -> None:
    """Resumed: what is in the file stays as it is, byte for byte, and axes may have got new values."""
    file = tmp_path / "sweep.json"
    before = _swept(file, "--contexts", "1,2")
    after = _swept(file, "--contexts", "1,2,3", "--resume")
    assert after.points[:2] == before.points
    assert [point.settings["contexts"] for point in after.points] == [1, 2, 3]
    assert after.started == before.started


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--contexts", "1,2"), "add --resume to continue"),
        (("--contexts", "1,2", "--resume", "--seed", "2"), "seed was 1, and is 2"),
        (
            ("--contexts", "1,2", "--resume", "--seed", "2"),
            "sweep.json cannot be continued: the sweep in the file differs",
        ),
        (
            ("--contexts", "1,2", "--resume", "--objective", "latency.p99<1s"),
            "objective was none, and is latency.p99 < 1s;",
        ),
        (("--contexts", "1,2", "--buffers", "1", "--resume"), "the sweep in the file is over contexts"),
        (("--contexts", "2,4", "--resume"), "the sweep in the file has contexts 1, which would be lost"),
    ],
)
def test_what_does_not_go_on_is_not_written_over(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    """An unfinished sweep is left alone unless it is resumed, and as what it was."""
    file = tmp_path / "sweep.json"
    unfinished = _swept(file, "--contexts", "1,2").model_copy(update={"outcome": "interrupted"})
    file.write_text(unfinished.model_dump_json())
    done = loadtrt("sweep", "--engine", VIRTUAL, "--warmup", "0", "--duration", "2s", "--json", file, *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr
    assert read_result(SweepResult, file) == unfinished


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("arrived,shape\n0.1,1\n", "holds text"),
        ('{"schema_version": "loadtrt.run/1"}', "holds a run"),
        (None, "holds a sweep of loadtrt"),
    ],
)
def test_no_file_is_written_over(content: str | None, sentence: str, tmp_path: Path) -> None:
    """Neither one of another kind, a trace for one, nor a finished sweep; an empty file is no loss."""
    file = tmp_path / "sweep.json"
    file.touch()
    _swept(file, "--contexts", "1")
    if content is not None:
        file.write_text(content)
    before = file.read_bytes()
    done = loadtrt("sweep", "--engine", VIRTUAL, "--warmup", "0", "--duration", "2s", "--json", file,
                    "--contexts", "1")  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file} {sentence}, which would be overwritten: name another file" in done.stderr
    assert file.read_bytes() == before


def test_a_file_to_resume_that_is_missing_is_told(tmp_path: Path) -> None:
    """Its name may be misspelt: what was measured would be measured again."""
    done = loadtrt("sweep", "--engine", VIRTUAL, "--warmup", "0", "--duration", "1s", "--contexts", "1",
                    "--json", tmp_path / "typo.json", "--resume")  # fmt: skip
    assert done.returncode == 0
    assert f"{tmp_path / 'typo.json'} has nothing to resume" in done.stderr


def test_rates_may_come_in_another_order_and_be_more(tmp_path: Path) -> None:
    """The first rate is in what all points have in common, and is no difference."""
    file = tmp_path / "sweep.json"
    before = _swept(file, "--rate", "100/s,200/s")
    after = _swept(file, "--rate", "50/s,200/s,100/s", "--resume")
    assert [point.settings["rate"] for point in after.points] == [50.0, 200.0, 100.0]
    assert [after.points[2], after.points[1]] == list(before.points)


@pytest.mark.parametrize("what", ["the machine", "the engine", "the queues"])
def test_runs_of_another_machine_or_engine_are_not_mixed_with_those_of_this(what: str, tmp_path: Path) -> None:
    """Neither is a plan that was built anew: told, and the file left alone."""
    file = tmp_path / "sweep.json"
    found = _swept(file, "--contexts", "1")
    if what == "the machine":
        other, sentence = found.model_copy(update={"environment": {**found.environment, "cpu": "Z80"}}), "cpu was Z80"
    else:
        run = found.points[0].run
        assert run is not None
        mode = {**run.model.engine.mode, "hardware queues": "32"}  # without them it has CUDA's default
        engine, sentence = {
            "the engine": (replace(run.model.engine, sha256="ab12"), "whose sha256 was ab12"),
            "the queues": (
                replace(run.model.engine, mode=mode),
                "whose number of hardware queues (CUDA_DEVICE_MAX_CONNECTIONS) was 32, and is 8;",
            ),
        }[what]
        run = changed(run, engine=engine)
        other = found.model_copy(update={"points": (found.points[0].model_copy(update={"run": run}),)})
    file.write_text(other.model_dump_json())
    done = loadtrt("sweep", "--engine", VIRTUAL, "--warmup", "0", "--duration", "2s", "--json", file,
                    "--contexts", "1,2", "--resume")  # fmt: skip
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[-1]
    assert read_result(SweepResult, file).points == other.points


def test_no_two_runs_have_an_id_in_common(tmp_path: Path) -> None:
    """Also where engines are opened within a second."""
    found = _swept(tmp_path / "sweep.json", "--contexts", "1,2,3", "--all", "--duration", "100ms")
    assert len({point.run.run for point in found.points if point.run}) == 3


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep goes on and is shown; exit 2, as of any file."""
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("loadtrt.files._replace", lambda *_: (_ for _ in ()).throw(full))
    done = loadtrt("sweep", "--engine", VIRTUAL, "--contexts", "1,2", "--warmup", "0", "--duration", "1s",
                    "--json", "sweep.json", folder=tmp_path)  # fmt: skip
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line for line in lines if "No space left" in line] == [lines[1], lines[-1]]
    assert "tried again after the next run" in lines[1]
    assert "inferences/s" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--engine", VIRTUAL), 2, "a sweep needs an axis"),
        (("--contexts", "1,2"), 2, "no engine"),
        (("--engine", "nowhere.plan", "--contexts", "1,2"), 2, "cannot read plan nowhere.plan"),
        (("--engine", "simulated:servce=1ms", "--contexts", "1,2"), 2, "did you mean 'service'"),
        (("--engine", VIRTUAL, "--contexts", "1,40000"), 2, "--contexts"),
        (("--engine", VIRTUAL, "--contexts", "one"), 2, "is not a count"),
        (("--engine", VIRTUAL, "--contexts", "1..900", "--batch", "1..900"), 2, "810 000 points: 10 000 at most"),
        (("--engine", VIRTUAL, "--burstiness", "4"), 2, "need a rate: add --rate, such as --rate 500/s\n"),
        (("--engine", VIRTUAL, "--contexts", "1", "--resume"), 2, "name one"),
        (("--engine", VIRTUAL, "--contexts", "1", "--json", "/nowhere/sweep.json"), 2, "there is no folder"),
        (("--engine", VIRTUAL, "--contexts", "1", "--json", "README.md", "--resume"), 2, "README.md"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], code: int, sentence: str) -> None:
    """stdout stays empty, stderr holds one line."""
    done = loadtrt("sweep", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sentence in done.stderr


def test_json_on_stdout_is_all_there_is() -> None:
    """`--json -`: one document on stdout, at the end; the table goes to stderr."""
    done = loadtrt(
        "sweep", "--engine", VIRTUAL, "--contexts", "1,2", "--warmup", "0", "--duration", "1s", "--json", "-"
    )
    assert done.returncode == 0
    assert len(SweepResult.model_validate_json(done.stdout).points) == 2
    assert "inferences/s" in done.stderr


def test_ctrl_c_keeps_what_was_measured_and_resume_goes_on(tmp_path: Path) -> None:
    """The running point ends early and is kept, exit 130; --resume measures it anew, and the rest."""
    file = tmp_path / "sweep.json"
    options = ("--engine", VIRTUAL, "--contexts", "1,2,3", "--warmup", "0", "--json", str(file))
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtrt", "sweep", *options, "--duration", "24h"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    await_measuring(process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    found = read_result(SweepResult, file)
    assert process.returncode == 130, stderr
    assert found.outcome == "interrupted"
    assert [point.run.outcome for point in found.points if point.run] == ["interrupted"]
    assert "1 of 3, contexts 1: " in stderr
    assert ", interrupted" in stderr
    assert f"interrupted: what was measured until then is shown → --resume continues with {file}" in " ".join(
        stdout.split()
    )
    assert "without --json FILE nothing was kept" in " ".join(
        terminal_text(found.model_copy(update={"config": found.config.model_copy(update={"json_file": None})})).split()
    )
    config = varied(found.config, duration="100ms").model_dump(mode="json")  # a day is too long for a test
    file.write_text(json.dumps({**found.model_dump(mode="json"), "config": config}))
    done = loadtrt("sweep", *options, "--duration", "100ms", "--resume")
    resumed = read_result(SweepResult, file)
    assert done.returncode == 0, done.stderr
    assert [point.run.outcome for point in resumed.points if point.run] == ["completed"] * 3


def await_measuring(process: subprocess.Popen[str]) -> None:
    """Until the process has an event loop, which it does while it makes a run: the kernel tells by its files."""
    while process.poll() is None:
        for file in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                if "eventpoll" in str(file.readlink()):
                    return


def test_what_was_measured_is_delivered_before_a_device_that_hangs_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two points too: the process ends there, with exit code 3."""
    happened: list[object] = []
    freed = threading.Event()
    monkeypatch.setattr(maker, "_CLOSE_PATIENCE_S", 0.01)
    monkeypatch.setattr(os, "_exit", happened.append)
    leaving = maker.Maker(leave=lambda: leave(lambda: happened.append("delivered")))
    engine: Any = SimpleNamespace(close=freed.wait)
    leaving.models["m"] = Opened(engine, {}, InputSets(()), engine, 0, hangs=True)
    leaving.close()
    freed.set()
    assert happened == ["delivered", 3]


def test_the_worker_of_a_file_takes_no_part_of_the_load(tmp_path: Path) -> None:
    """A file of one worker of a fleet is swept as a run by itself, at the rates that are asked for."""
    (tmp_path / "w.yaml").write_text(json.dumps({"engine": VIRTUAL, "worker": "0/2"}))
    options = ("--config", str(tmp_path / "w.yaml"), "--rate", "100,200", "--all")
    points = _swept(tmp_path / "s.json", *options).points
    assert [point.run and point.run.model.throughput.offered_per_s for point in points] == [100, 200]


def test_two_sweeps_share_no_file(tmp_path: Path) -> None:
    """While one keeps its results in a file, another is refused before it measures."""
    file = tmp_path / "sweep.json"
    line = ("sweep", "--engine", VIRTUAL, "--warmup", "0", "--duration", "1s", "--contexts", "1", "--json", file)
    with locked("--json", str(file)):
        done = loadtrt(*line)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"--json {file}: another process keeps its results in this file: name another" in done.stderr
        assert not file.exists()
    assert loadtrt(*line).returncode == 0
