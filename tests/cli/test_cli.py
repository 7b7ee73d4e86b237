"""The command line as its users meet it: stdout, stderr and exit codes, in a process where that makes a difference."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from command_line import ROOT, loadtrt
from loadtrt.results.run_result import RunResult

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("run", "--engine", "simulated:service=1ms,clock=virtual", "--warmup", "0", "--requests", "50")


def _process(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtrt", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("run",), 2, "no engine: add --engine"),
        (("run", "--engine", "nowhere.plan"), 2, "nowhere.plan"),
        (("run", "--engine", "."), 2, "directory"),
        (("run", "--engine", "/dev/null"), 2, "/dev/null"),
        (("run", "--engine", "README.md"), 2, "README.md"),
        (("run", "--engine", "zoo:googlnet"), 2, "did you mean 'googlenet'"),
        (("run", "--engine", "simulated:servce=5ms"), 2, "did you mean 'service'"),
        (("run", "--engine", "simulated:null", "--contexts", "zero"), 2, "--contexts"),
        (("run", "--engine", "simulated:null", "--contexts", "0"), 2, "--contexts"),
        (("run", "--engine", "simulated:null", "--rate", "-5"), 2, "--rate"),
        (("run", "--engine", "simulated:null", "--arrivals", "poisson"), 2, "add --rate"),
        (("run", "--engine", "simulated:null", "--contxts", "4"), 2, "--contexts"),
        (("run", "--engine", "simulated:null", "--shapes", "data"), 2, "NAME:VALUE"),
        (("run", "--engine", "simulated:null", "--inputs", "none.npz"), 2, "none.npz"),
        (("run", "--engine", "simulated:null", "--json", "/nowhere/run.json"), 2, "/nowhere"),
        (("run", "--engine", "simulated:null", "--json", "docs"), 2, "is a folder"),
        (("run", "--config", "none.yaml"), 2, "none.yaml"),
        (("rnu",), 2, "did you mean 'run'"),
        (("zoo", "googlnet", "-o", "x.onnx"), 2, "googlenet"),
        (("inspect", "nowhere.plan"), 2, "nowhere.plan"),
        (("inspect", "README.md"), 2, "README.md"),
        (("inspect", "zoo:googlenet"), 2, "'loadtrt zoo googlenet' writes googlenet.onnx"),
        (("capacity", "--rate", "5/s"), 2, "--rate is not an option: capacity finds the rate"),
        (("capacity", "--frobnicate"), 2, "--frobnicate is not an option: --help lists"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(arguments: tuple[str, ...], code: int, sentence: str) -> None:
    """stdout stays empty; stderr holds one line that names what is wrong; never a traceback."""
    done = loadtrt(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("loadtrt: ")
    assert sentence in done.stderr


def test_quiet_json_on_stdout_is_all_there_is() -> None:
    """`--quiet --json -`: stdout is one JSON document of the schema, stderr is empty."""
    done = _process(*QUICK, "--quiet", "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    result = RunResult.model_validate_json(done.stdout)
    assert (result.model.ok, result.outcome, result.valid) == (50, "completed", True)
    assert result.schema_version == "loadtrt.run/1"


def test_json_on_stdout_leaves_the_summary_to_stderr() -> None:
    """stdout stays machine-readable also without --quiet."""
    done = loadtrt(*QUICK, "--json", "-")
    assert RunResult.model_validate_json(done.stdout).model.ok == 50
    assert "throughput" in done.stderr


def test_the_summary_tells_the_mode_the_numbers_and_the_verdict() -> None:
    """What a reader needs: what ran, how, how fast, and whether to trust it. At most 80 columns."""
    done = loadtrt(*QUICK, "--contexts", "3")
    for piece in ("simulated:service=1ms", "3 contexts × 2 buffers", "closed loop", "throughput", "p99.9", "VALID"):
        assert piece in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "requests served" in done.stdout


def test_an_invalid_measurement_exits_97() -> None:
    """The result is shown and written all the same, with reason and remedy."""
    spec = "simulated:service=1ms,enqueue=5ms,clock=virtual"
    done = loadtrt("run", "--engine", spec, "--warmup", "0", "--requests", "600", "--max-lateness", "1ms")
    assert done.returncode == 97
    assert "INVALID" in done.stdout
    assert "the generator was" in done.stdout


def test_a_difference_found_by_verify_is_invalid() -> None:
    """Outputs that differ under load are told, with where."""
    done = loadtrt(*QUICK[:2], "simulated:service=1ms,race=0.5,clock=virtual", *QUICK[3:], "--verify")
    assert done.returncode == 97
    assert "differ from those of a quiet run" in " ".join(done.stdout.split())


def test_ctrl_c_still_reports(tmp_path: Path) -> None:
    """SIGINT while measuring: exit 130, the summary shown and the file written with what was measured."""
    file = tmp_path / "run.json"
    arguments = ["run", "--engine", "simulated:service=1ms", "--warmup", "0", "--duration", "600s", "--json", str(file)]
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtrt", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("measure"):
            break
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "INTERRUPTED" in stdout
    assert RunResult.model_validate_json(file.read_text()).outcome == "interrupted"


def test_a_configuration_file_runs() -> None:
    """`make run`'s configuration is understood, with the command line over it."""
    done = loadtrt(
        "run", "--config", "configs/googlenet.yaml", "--requests", "4", "--duration", "0", "--warmup", "0", "--quiet",
        "--json", "-",
    )  # fmt: skip
    result = RunResult.model_validate_json(done.stdout)
    assert result.model.engine.name == "zoo:googlenet"
    assert result.model.ok == 4


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.name)
def test_every_example_configuration_is_valid(file: Path) -> None:
    """configs/ holds nothing that load_config refuses."""
    from loadtrt.asked.reading import load_config

    assert all(model.engine for model in load_config(file, {}, several=True).models.values())


def test_a_fault_of_our_own_is_a_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception that nobody expected ends in one line and exit code 1."""
    from loadtrt.cli import main as entry

    def broken(**_: object) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(entry.cli, "main", broken)
    with pytest.raises(SystemExit) as caught:
        entry.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("loadtrt: a fault in loadtrt itself: ZeroDivisionError: division by zero")


def test_a_reader_that_has_gone_costs_no_result(tmp_path: Path) -> None:
    """`loadtrt run --json FILE | true`: the file is written before anything is shown."""
    file = tmp_path / "run.json"
    read, write = os.pipe()
    os.close(read)
    subprocess.run(
        [sys.executable, "-m", "loadtrt", *QUICK, "--json", str(file)],
        stdout=write,
        stderr=write,
        check=False,
        cwd=ROOT,
    )
    os.close(write)
    assert RunResult.model_validate_json(file.read_text()).model.ok == 50


def test_a_terminal_without_unicode_still_shows_the_summary() -> None:
    """What cannot be written is replaced."""
    done = _process(*QUICK, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "throughput" in done.stdout


def test_a_run_that_failed_says_so_even_when_quiet() -> None:
    """--quiet leaves out progress and summary, never the reason of exit code 3."""
    done = loadtrt(*QUICK[:2], "simulated:service=1s,hang=0s,clock=virtual", "--requests", "3", "--quiet")
    assert done.returncode == 3
    assert done.stderr.startswith("loadtrt: warm-up: the engine completed nothing for 120 s")


def test_a_schedule_that_cannot_be_drawn_is_a_usage_error() -> None:
    """Also when it is found out inside the event loop: one sentence, exit code 2."""
    done = loadtrt("run", "--engine", "simulated:null", "--rate", "1M", "--duration", "1h", "--quiet")
    assert done.returncode == 2
    assert "too many to draw" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_result_can_be_run_again(tmp_path: Path) -> None:
    """--config run.json: the same configuration, not written over."""
    file, again = tmp_path / "run.json", tmp_path / "again.json"
    loadtrt(*QUICK, "--contexts", "3", "--json", file)
    before = file.read_bytes()
    done = loadtrt("run", "--config", file, "--quiet", "--json", again)
    assert done.returncode == 0
    assert file.read_bytes() == before
    first, second = (RunResult.model_validate_json(path.read_text()) for path in (file, again))
    assert first.model.histograms == second.model.histograms
    assert first.config.options()["contexts"] == second.config.options()["contexts"] == 3


def test_a_terminal_shows_what_goes_on(tmp_path: Path) -> None:
    """On a terminal a status line is rewritten, and errors start on a line of their own."""
    import pty

    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "loadtrt", "run", "--engine", "nowhere.plan"], stderr=follower, check=False, cwd=ROOT
    )
    os.close(follower)
    shown = os.read(leader, 10_000).decode()
    os.close(leader)
    assert done.returncode == 2
    assert "loading nowhere.plan" in shown
    assert shown.split("\r")[-2].lstrip().startswith("loadtrt: cannot read plan")


def test_an_interrupt_inside_an_import_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extension modules turn Ctrl-C into an ImportError "initialization failed": still no fault of ours."""
    from loadtrt.cli import main as entry

    def interrupted(**_: object) -> int:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(entry.cli, "main", interrupted)
    with pytest.raises(KeyboardInterrupt):
        entry.main()


def test_an_impatient_interrupt_waits_for_the_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SIGINT while the result is summed up and written changes nothing; afterwards it works again."""
    from loadtrt.asked.reading import load_config
    from loadtrt.cli import running
    from loadtrt.lanes import joined
    from loadtrt.lanes.outcome import result_of

    def slow(*arguments: Any, **named: Any) -> RunResult:
        signal.raise_signal(signal.SIGINT)
        return result_of(*arguments, **named)

    monkeypatch.setattr(joined, "result_of", slow)
    file = tmp_path / "run.json"
    engine = "simulated:service=1ms,clock=virtual"
    options = {"engine": engine, "warmup": 0, "requests": 50, "quiet": True, "json": str(file)}
    assert running.run(load_config(None, options)) == 0
    assert RunResult.model_validate_json(file.read_text()).model.ok == 50
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
