"""`--github`: annotations on stdout, the summary of the step in its file, and a sentence where there is none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from command_line import loadtrt

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = "simulated:service=1ms,cv=0.3,clock=virtual"
RUN = ("run", "--engine", ENGINE, "--warmup", "0", "--requests", "3000")


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "summary.md"
    file.write_text("what was there")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    return file


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """a.json, and b.json of an engine that is 10 % slower."""
    folder = tmp_path_factory.mktemp("runs")
    for name, service in (("a", "1ms"), ("b", "1.1ms")):
        engine = f"simulated:service={service},cv=0.3,clock=virtual"
        run = ("run", "--engine", engine, "--warmup", "0", "--requests", "9000", "--quiet")
        loadtrt(*run, "--json", folder / f"{name}.json")
    return str(folder / "a.json"), str(folder / "b.json")


def test_a_run(summary: Path) -> None:
    """What is missed is an error, what is met is not told, and the summary is after what is there."""
    objectives = ("--objective", "latency.p99 < 1ms", "--objective", "latency.p50 < 1s")
    done = loadtrt(*RUN, *objectives, "--quiet", "--github")
    assert done.returncode == 99
    (line,) = done.stdout.splitlines()
    assert line.startswith(
        "::error title=loadtrt run simulated%3Aservice=1ms%2Ccv=0.3%2Cclock=virtual%3A latency.p99 < "
    )
    assert "missed::MISSED, p99 " in line
    text = summary.read_text()
    assert text.startswith("what was there\n## `simulated:")
    assert "latency.p50" in text
    assert re.search(r"^loadtrt \S+ · \S+ · run `", text, re.MULTILINE)  # without a file, as there is none


def test_a_run_that_never_was(summary: Path) -> None:
    """Its error is an annotation, too, once."""
    done = loadtrt("run", "--engine", "none.plan", "--github")
    assert done.returncode == 2
    sentence, line = done.stderr.splitlines()
    assert sentence.startswith("loadtrt: ")
    assert line == f"::error title=loadtrt::{sentence.removeprefix('loadtrt: ')}"
    assert summary.read_text() == "what was there"
    done = loadtrt("run", "--engine", "none.plan")
    assert "::" not in done.stderr


def test_a_run_whose_result_is_on_stdout(summary: Path) -> None:
    """Its annotations are on stderr: stdout is JSON."""
    done = loadtrt(*RUN, "--objective", "latency.p99 < 1ms", "--github", "--json", "-")
    assert done.stdout.startswith("{")
    assert "::error" not in done.stdout
    assert "\n::error title=" in done.stderr
    assert summary.stat().st_size > 100


def test_starts_of_a_run_are_told_once(summary: Path) -> None:
    """Not by each start."""
    done = loadtrt(*RUN, "--objective", "latency.p99 < 1ms", "--quiet", "--github", "--repeat", "2")
    assert done.returncode == 99
    assert done.stdout.count("::error") == 1
    assert "in 2 of 2 starts" in done.stdout
    assert summary.read_text().count("\n## ") == 3  # of all, and of each


def test_a_comparison(summary: Path, runs: tuple[str, str]) -> None:
    """Each threshold by itself; the table is in the summary."""
    gates = ("--fail-if", "latency.p50 +5%", "--fail-if", "latency.mean +50%")
    done = loadtrt("compare", *runs, *gates, "--github")
    assert done.returncode == 99
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("::"))
    assert line.startswith("::error title=loadtrt compare ")
    assert "latency.p50 +5%25%3A regressed::regressed, B/A 1." in line
    assert "| latency p50 |" in summary.read_text()
    assert "regressed (+5%)" in summary.read_text()


def test_a_search_for_capacity(summary: Path) -> None:
    """One verdict."""
    search = ("capacity", "--engine", ENGINE, "--objective", "latency.p99 < 0.5ms", "--quick", "--quiet", "--github")
    done = loadtrt(*search)
    assert done.returncode == 99
    assert done.stdout.count("::error title=loadtrt capacity ") == 1
    assert "## Capacity of" in summary.read_text()


def test_a_measurement_of_interference(summary: Path) -> None:
    """Its matrix, and an error where no cell can be trusted."""
    engine = "simulated:service=2ms,error=0.3,device=g,clock=virtual"
    options = ("--neighbour", "0", "--rounds", "1", "--duration", "1s", "--no-verify", "--warmup", "0")
    done = loadtrt("interference", engine, engine, *options, "--quiet", "--github")
    assert done.returncode == 97
    (line,) = done.stdout.splitlines()
    assert line.startswith("::error title=loadtrt interference simulated%2C simulated-2%3A verdict%3A invalid::")
    assert "## Interference between simulated and simulated-2 · ❌ **2 cells INVALID**" in summary.read_text()


@pytest.mark.parametrize("command", ["run", "repeat", "compare", "capacity", "sweep", "interference"])
def test_outside_of_github(
    command: str, runs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, before anything is measured or compared."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    kept = tmp_path / "kept.json"
    given = {
        "run": (*RUN, "--json", kept),
        "repeat": (*RUN, "--repeat", "2", "--json", kept),
        "compare": ("compare", *runs, "--json", kept),
        "capacity": ("capacity", "--engine", ENGINE, "--objective", "latency.p99 < 9ms", "--json", kept),
        "sweep": ("sweep", "--engine", ENGINE, "--contexts", "1,2", "--json", kept),
        "interference": ("interference", ENGINE, ENGINE, "--json", kept),
    }[command]
    done = loadtrt(*given, "--github")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "$GITHUB_STEP_SUMMARY names no file here: leave --github out" in line
    assert not kept.exists()


def test_a_summary_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told before anything is measured, too."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "summary.md"))
    done = loadtrt(*RUN, "--github")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--github: $GITHUB_STEP_SUMMARY" in line
    assert "there is no folder" in line


def test_a_summary_that_is_full(summary: Path) -> None:
    """GitHub would drop all of it: it stays as it is, and a sentence says so."""
    summary.write_bytes(b"x" * (1 << 20))
    done = loadtrt(*RUN, "--quiet", "--github")
    assert done.returncode == 0
    assert summary.stat().st_size == 1 << 20
    assert "GitHub takes 1 MiB of summary a step" in done.stderr
