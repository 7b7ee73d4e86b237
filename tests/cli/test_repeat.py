"""`loadtrt run --repeat K` and `--latency`: starts in processes of their own, and one request in flight."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from command_line import loadtrt
from loadtrt.report.plain import TABLE_WIDTH, terminal_text
from loadtrt.report.result_files import Loaded
from loadtrt.results.repeat_result import RepeatResult
from loadtrt.results.run_result import Finding, Problem, RunResult
from reported import html_text, markdown_text
from signalled import HANGS, PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPONENTIAL = "simulated:service=1ms,distribution=exponential,clock=virtual"
RUN = ("run", "--engine", EXPONENTIAL, "--rate", "400/s", "--requests", "1500", "--warmup", "0", "--quiet")


def _read(file: Path) -> RepeatResult:
    return RepeatResult.model_validate_json(file.read_text())


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of three starts, from seed 7 on."""
    file = tmp_path_factory.mktemp("repeat") / "three.json"
    objective = ("--objective", "latency.p99 < 1s")
    done = loadtrt(*RUN, "--seed", "7", *objective, "--repeat", "3", "--json", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return file


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of three starts of an engine that is half as fast."""
    file = tmp_path_factory.mktemp("repeat") / "other.json"
    options = [option.replace("1ms", "2ms") for option in RUN]
    assert loadtrt(*options, "--seed", "70", "--repeat", "3", "--json", file).returncode == 0
    return file


def test_each_start_is_a_run_of_its_own_with_the_next_seed(three: Path, tmp_path: Path) -> None:
    """In a process of its own; and each is the run that its seed makes without --repeat."""
    result = _read(three)
    assert (result.outcome, result.asked, result.failure) == ("completed", 3, None)
    assert [run.config.model.seed for run in result.runs] == [7, 8, 9]
    processes = {run.run.split("-")[2] for run in result.runs}
    assert len(processes) == 3
    assert str(os.getpid()) not in processes
    alone = tmp_path / "alone.json"
    assert loadtrt(*RUN, "--seed", "8", "--json", alone).returncode == 0
    single = RunResult.model_validate_json(alone.read_text())
    assert result.runs[1].model.metrics == single.model.metrics
    assert result.runs[1].config.options() == {
        **single.config.options(), "json": str(three), "objective": ["latency.p99 < 1s"],
    }  # fmt: skip
    assert result.runs[0].model.metrics != result.runs[1].model.metrics


def test_what_commands_read(three: Path, other: Path, tmp_path: Path) -> None:
    """A comparison takes each start as a run of a side, a report and CSV all of them, and a run its configuration."""
    done = loadtrt("compare", three, other, "--fail-if", "latency.p50 +5%", "--json", tmp_path / "c.json")
    assert done.returncode == 99, done.stderr
    comparison = json.loads((tmp_path / "c.json").read_text())
    assert comparison["a"] == [f"{three}:{number}" for number in (1, 2, 3)]
    assert "by how far runs of one side are apart" in " ".join(done.stdout.split())
    done = loadtrt("compare", three, three)
    assert "no interval" not in done.stdout
    done = loadtrt("compare", "--a", three, "--a", three, "--b", other)
    assert done.returncode == 2
    assert "is the same run as" in done.stderr
    assert loadtrt("report", three, "--format", "csv").stdout.count(f"{three},run,") == 3
    again = tmp_path / "again.json"
    assert loadtrt("run", "--config", three, "--quiet", "--json", again).returncode == 0
    assert RunResult.model_validate_json(again.read_text()).model.metrics == _read(three).runs[0].model.metrics
    done = loadtrt("report", three, "-o", tmp_path / "x.hlog")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    done = loadtrt("plan-capacity", three, "--demand", "1000/s", "--objective", "latency.p99 < 1s")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "has no closed loop" in done.stderr


def test_the_report_says_what_differs_between_starts(three: Path) -> None:
    """The table of means and ranges first, then each start; a page has each start by itself too."""
    result = _read(three)
    text = terminal_text(result)
    lines = text.splitlines()
    assert max(map(len, lines)) <= TABLE_WIDTH
    spread = {item.name: item for item in result.spreads}["latency.p99"]
    assert all(value is not None for value in (spread.mean, spread.cv, spread.mean_low, spread.mean_high))
    for words in ("3 starts, each a new process with a seed of its own (7 .. 9)", "min .. max", "one run's 95 %",
                  "✓ latency.p99 < 1s: MET: met in 3 of 3 starts"):  # fmt: skip
        assert words in text, words
    assert [line.split()[2] for line in lines if line.startswith("start ")] == ["met"] * 3
    page = html_text([Loaded("three.json", result)])
    assert page.count("<h1") == 4
    assert 'id="result-1-3"' in page
    assert "--seed 9</code>" in page  # how to make the last start again
    many = result.model_copy(update={"runs": result.runs * 3, "asked": 9})
    assert html_text([Loaded("nine.json", many)]).count("<h1") == 1 + 8
    assert markdown_text([Loaded("three.json", result)]).count("\n## ") + 1 == 4


def test_what_one_run_does_not_explain_is_a_sentence(three: Path) -> None:
    """The number that varies most comes first; otherwise it is said that nothing does."""
    result = _read(three)
    assert "Starts are no further apart than one run's own interval explains." in terminal_text(result)
    more = {"latency.p50": 2.0, "latency.p99": 3.1}
    spreads = tuple(
        spread.model_copy(update={"times": more[spread.name], "exceeds": True}) if spread.name in more else spread
        for spread in result.spreads
    )
    shown = " ".join(terminal_text(result.model_copy(update={"spreads": spreads})).split())
    assert "Between starts latency.p99 varies 3.10 times, latency.p50 2.00 times as much as within a run: the" in shown
    assert "no further apart" not in shown


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data["config"]["models"].clear(), "config.models"),
        (lambda data: data["spreads"][0].update(values=[None, 1, 2]), "a mean of values that are not known"),
        (lambda data: data.update(runs=[]), "runs"),
    ],
)
def test_a_damaged_file_is_one_sentence(damage: Any, words: str, three: Path, tmp_path: Path) -> None:
    """And not a fault of loadtrt."""
    data = json.loads(three.read_text())
    damage(data)
    file = tmp_path / "damaged.json"
    file.write_text(json.dumps(data))
    for command in (("report", file), ("compare", file, three)):
        done = loadtrt(*command)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert words in done.stderr


def _with(result: RepeatResult, place: int, **changes: Any) -> RepeatResult:
    """The result with a start that has other values, of the run or of its model."""
    run = result.runs[place]
    of_run = {key: value for key, value in changes.items() if key in ("valid", "outcome", "failure")}
    of_model = {key: value for key, value in changes.items() if key not in of_run}
    changed = run.with_model(**of_model).model_copy(update=of_run)
    return result.model_copy(update={"runs": (*result.runs[:place], changed, *result.runs[place + 1 :])})


def test_the_worst_start_decides(three: Path) -> None:
    """Missed where one missed, INVALID where one is, with the start that says so."""
    from loadtrt.cli.running import exit_code

    result = _read(three)
    (share,) = result.runs[1].model.objectives
    missed = _with(result, 1, objectives=(share.model_copy(update={"verdict": "missed"}),))
    assert (exit_code(result), exit_code(missed)) == (0, 99)
    assert "✗ latency.p99 < 1s: MISSED: missed in 1, met in 2 of 3 starts" in terminal_text(missed)
    undecided = _with(result, 2, objectives=(share.model_copy(update={"verdict": "undecided"}),))
    assert exit_code(undecided) == 98
    problem = Problem(kind="late", evidence="the generator was late", remedy="free a core")
    invalid = _with(missed, 2, valid=False, problems=(problem,))
    assert exit_code(invalid) == 97
    assert "✗ the generator was late (start 3)\n    → free a core" in terminal_text(invalid)
    finding = Finding(kind="stall", evidence="nothing completed for 1 s", cause="a pause", remedy="look")
    twice = _with(_with(result, 1, findings=(finding,)), 2, findings=(finding,))
    shown = " ".join(terminal_text(twice).split())
    assert "stall: nothing completed for 1 s (start 2; likewise in 2 of 3 starts)" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--junit", "x.xml"), "--junit is for a single start"),
        (("--export-times", "x.json"), "--export-times is for a single start"),
        (("--profile",), "--profile is for a single start"),
        (("--seed", str((1 << 63) - 2)), "leaves no larger seeds"),
        (("--repeat", "1"), "--repeat"),
    ],
)
def test_what_does_not_go_with_several_starts_is_refused(options: tuple[str, ...], words: str) -> None:
    """In one sentence, before anything is measured."""
    done = loadtrt(*RUN, "--repeat", "2", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_other_results_are_not_written_over(three: Path, tmp_path: Path) -> None:
    """A file of starts is written over by starts alone; a run's file is kept."""
    file = tmp_path / "result.json"
    file.write_text(three.read_text())
    assert "holds starts of a run" in loadtrt(*RUN, "--json", file).stderr
    assert loadtrt(*RUN, "--repeat", "2", "--json", file).returncode == 0
    assert _read(file).asked == 2
    assert loadtrt(*RUN, "--json", file, "--force").returncode == 0
    assert "holds a run" in loadtrt(*RUN, "--repeat", "2", "--json", file).stderr


def test_json_on_stdout_is_one_document() -> None:
    """What is shown goes to stderr."""
    done = loadtrt(*[option for option in RUN if option != "--quiet"], "--repeat", "2", "--json", "-")
    assert len(RepeatResult.model_validate_json(done.stdout).runs) == 2
    assert "Between starts" in done.stderr


def test_a_start_that_fails_ends_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With its sentence, once; what was measured is written and shown."""
    done = loadtrt("run", "--engine", "missing.plan", "--repeat", "2", "--json", tmp_path / "none.json", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    said = capfd.readouterr().err  # by the start itself
    assert said.startswith("loadtrt: cannot read plan missing.plan")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "none.json").exists()
    file = tmp_path / "lost.json"
    lost = f"{EXPONENTIAL},lost=1s"
    done = loadtrt("run", "--engine", lost, "--duration", "2s", "--warmup", "0", "--repeat", "3", "--json", file)
    assert done.returncode == 3
    result = _read(file)
    assert (result.outcome, [run.outcome for run in result.runs]) == ("failed", ["failed"])
    assert result.failure == result.runs[0].failure
    assert "FAILED" in done.stdout
    assert "Fewer than two starts completed" in done.stdout
    assert "service" in done.stdout  # of the run's own table


@contextmanager
def _long(engine: str, file: Path) -> Iterator[subprocess.Popen[str]]:
    """Starts of ten hours, in a process that is killed at the end of the block."""
    options = ["--engine", engine, "--warmup", "0", "--duration", "10h", "--drain", "10h", "--repeat", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtrt", "run", *options, "--json", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()


def test_a_start_whose_process_is_killed_is_told(tmp_path: Path) -> None:
    """In one sentence, with exit code 3, as the kernel may do where memory runs out."""
    with _long("simulated:service=1ms", tmp_path / "none.json") as process:
        assert any(line.startswith("measure") for line in process.stderr or ())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        os.kill(int(children[0]), signal.SIGKILL)
        shown, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, shown) == (3, "")
    assert said == "loadtrt: the process of a start was ended by SIGKILL\n"


def test_no_start_goes_on_without_its_command(tmp_path: Path) -> None:
    """Which is killed: nobody would read what it measures."""
    with _long("simulated:service=1ms", tmp_path / "none.json") as process:
        assert any(line.startswith("measure") for line in process.stderr or ())
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        until = time.monotonic() + PATIENCE_S
        while Path(f"/proc/{child}").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        process.communicate()


@pytest.mark.parametrize("signals", [("SIGINT",), ("SIGTERM",), ("SIGHUP",), ("SIGTERM", "SIGINT")], ids="-".join)
def test_a_signal_ends_the_start_that_goes_on_and_makes_no_other(signals: tuple[str, ...], tmp_path: Path) -> None:
    """What was measured is written and shown, and the exit code is 130. A second one gives up what is in flight."""
    file = tmp_path / "long.json"
    with _long(HANGS if len(signals) > 1 else "simulated:service=1ms", file) as process:
        for name, awaited in zip(signals, ("measure", "stopping"), strict=False):
            assert any(line.startswith(awaited) for line in process.stderr or ())
            process.send_signal(getattr(signal, name))
        shown, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    result = _read(file)
    assert (result.outcome, [run.outcome for run in result.runs]) == ("interrupted", ["interrupted"])
    assert "interrupted: 0 of 2 starts completed" in shown


def test_latency_is_of_one_request_in_flight(tmp_path: Path) -> None:
    """As --contexts 1 --buffers 1 has it; a file's lanes, load and scenario give way."""
    base = ("run", "--engine", EXPONENTIAL, "--requests", "500", "--warmup", "0", "--quiet")
    runs = []
    file = tmp_path / "config.yaml"
    file.write_text("contexts: 3\nbuffers: 4\nrequests_per_launch: 2\nrate: 5\nscenario: server\nmax_queue: 3\n")
    for number, options in enumerate((("--latency",), ("--contexts", "1", "--buffers", "1"),
                                      ("--latency", "--config", file))):  # fmt: skip
        out = tmp_path / f"{number}.json"
        done = loadtrt(*base, *options, "--json", out)
        assert done.returncode == 0, done.stderr
        runs.append(RunResult.model_validate_json(out.read_text()))
    assert {run.config.model.in_flight for run in runs} == {1}
    assert runs[0].model.metrics["latency"] == runs[1].model.metrics["latency"] == runs[2].model.metrics["latency"]
    assert "1 in flight: 1 context × 1 buffer · closed loop" in terminal_text(runs[0])
    assert "latency is that of one request at a time" in terminal_text(runs[0])


@pytest.mark.parametrize(
    "options",
    [
        ("--contexts", "2"), ("--buffers", "3"), ("--requests-per-launch", "2"), ("--rate", "5/s"),
        ("--arrivals", "poisson"), ("--stages", "5/s:1s"), ("--scenario", "server"), ("--max-queue", "5"),
    ],
)  # fmt: skip
def test_latency_contradicts_more_in_flight_and_open_loops(options: tuple[str, ...]) -> None:
    """A usage error that names the option."""
    done = loadtrt("run", "--engine", "simulated:null", "--latency", *options)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert options[0] in done.stderr
    assert "--latency" in done.stderr
