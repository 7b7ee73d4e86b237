"""`loadtrt compare --fail-if`: a gate for CI that says when it cannot tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from junitparser import JUnitXml

from loadtrt.cli.main import cli
from loadtrt.errors import UsageError
from loadtrt.stats.regression import Comparison
from runs_by_hand import model_in

if TYPE_CHECKING:
    from collections.abc import Callable

    Files = dict[str, str]

P99 = ("--fail-if", "latency.p99 +5%")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Runs in virtual time: a1, a2, a3 alike, b1, b2, b3 10 % slower, each of a seed of its own; "few" of 100 requests;
    "invalid", whose requests fail; "times": a1's, in trtexec's format; "old": a1 without intervals."""
    folder = tmp_path_factory.mktemp("runs")
    made: Files = {}

    def run(name: str, service: str, requests: int, seed: int, *more: str) -> None:
        made[name] = str(folder / f"{name}.json")
        engine = f"simulated:service={service},cv=0.1,clock=virtual{''.join(more)}"
        arguments = ["run", "--engine", engine, "--contexts", 2, "--seed", seed, "--requests", requests, "--warmup", 0]
        arguments += ["--export-times", folder / f"{name}.times.json", "--quiet", "--json", made[name]]
        CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False)

    for seed in (1, 2, 3):
        run(f"a{seed}", "1ms", 4000, seed)
        run(f"b{seed}", "1.1ms", 4000, 10 + seed)
    run("few", "1ms", 100, 20)
    run("invalid", "1ms", 4000, 21, ",error=0.1")
    made["times"] = str(folder / "a1.times.json")
    old = json.loads((folder / "a1.json").read_text())
    for summary in model_in(old)["metrics"].values():
        del summary["confidence"]
    del model_in(old)["throughput"]["confidence"]
    made["old"] = str(folder / "old.json")
    (folder / "old.json").write_text(json.dumps(old | {"run": ""}))
    return made


@pytest.fixture
def compare(files: Files) -> Callable[..., tuple[int, str]]:
    """(exit code, text) of a comparison, whose arguments name the files above."""

    def call(*arguments: str) -> tuple[int, str]:
        named = ["compare", *(files.get(argument, argument) for argument in arguments)]
        done = CliRunner().invoke(cli, named, catch_exceptions=False, standalone_mode=False)
        return done.return_value, done.stdout

    return call


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("a1", "a2", *P99), 0, "latency.p99 +5%: NOT REGRESSED, B/A "),
        (("a1", "b1", *P99), 99, "latency.p99 +5%: REGRESSED, B/A 1."),
        (("a1", "b1", "--fail-if", "latency.p99 +10%"), 98, "→ the interval of B/A contains 1.1: runs "),
        (("a1", "b1", "--fail-if", "throughput -3%"), 99, "throughput -3%: REGRESSED, B/A 0.9"),
        (("b1", "a1", "--fail-if", "throughput -3%"), 0, "throughput -3%: NOT REGRESSED, B/A 1.1"),
        (("a1", "b1", "--fail-if", "compute.p97 +5%"), 99, "compute.p97 +5%: REGRESSED"),
        (("a1", "b1", "--fail-if", "throughput -50%", *P99), 99, "throughput -50%: NOT REGRESSED"),
        (("a1", "a2", "--fail-if", "throughput -0%", *P99), 98, "throughput -0%: UNDECIDED"),
        (("a1", "b1", "--fail-if", "latency.mean +10%", *P99), 99, "latency.mean +10%: UNDECIDED"),
        (("a1", "few", *P99), 98, "has 100 requests, and p99 needs 459"),
        (("old", "b1", *P99), 98, "has no confidence interval of p99"),
        (("a1", "invalid", *P99), 97, "INVALID: a run cannot be trusted"),
        (("invalid", "b1", *P99), 97, "A: INVALID: "),
        (("times", "b1", "--fail-if", "device.p99 +5%"), 99, "device.p99 +5%: REGRESSED"),
        (("b1", "times", "--fail-if", "throughput -3%"), 0, "throughput -3%: NOT REGRESSED"),
        (("times", "times", "--fail-if", "compute.mean +0.1%"), 98, "compute.mean +0.1%: UNDECIDED, B/A 1.000"),
        (("a1", "b1"), 0, "95 %"),
        (("a1", "invalid"), 0, "B: INVALID"),
    ],
)
def test_exit_codes(arguments: tuple[str, ...], code: int, words: str, compare: Callable[..., tuple[int, str]]) -> None:
    """0 not regressed, 99 any regressed, 98 any undecided and none regressed, 97 before all where a run is INVALID;
    without thresholds always 0. At most 80 columns but for names of files."""
    found, text = compare(*arguments)
    assert found == code, text
    assert words in " ".join(text.split())
    assert all(len(line) <= 80 or ".json" in line for line in text.splitlines())


def test_several_runs_of_a_side(compare: Callable[..., tuple[int, str]]) -> None:
    """By how far they are apart; each is named, and the numbers are geometric means."""
    code, text = compare("a1", "b1", "--a", "a2", "--a", "a3", "--b", "b2", "--b", "b3", *P99)
    assert code == 99
    assert [line.split()[0] for line in text.splitlines() if ".json:" in line] == [*"AAABBB"]
    assert "by how far runs of one side are apart" in " ".join(text.split())
    assert compare("--a", "a1", "--a", "a2", "--a", "a3", "--b", "b1", "--b", "b2", "--b", "b3", *P99)[1] == text


def test_runs_without_intervals_are_judged_by_several(compare: Callable[..., tuple[int, str]]) -> None:
    """The difference between runs of a side takes the place of the intervals."""
    assert compare("old", "b1", "--a", "a2", "--a", "a3", "--b", "b2", "--b", "b3", *P99)[0] == 99


def test_runs_of_one_side_that_are_set_differently(
    files: Files, tmp_path: Path, compare: Callable[..., tuple[int, str]]
) -> None:
    """Are named: their difference is no noise."""
    other = json.loads(Path(files["a2"]).read_text())
    next(iter(other["config"]["models"].values()))["contexts"] = 8
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert "different: contexts 2, 8 / 2" in compare("a1", "b1", "--a", str(tmp_path / "other.json"))[1]


def test_its_files(files: Files, tmp_path: Path, compare: Callable[..., tuple[int, str]]) -> None:
    """--json has all numbers, --junit a test for each threshold; "-" is stdout, and the text goes to stderr then."""
    json_file, junit = tmp_path / "comparison.json", tmp_path / "junit.xml"
    compare("a1", "b1", *P99, "--fail-if", "latency.p99 +10%", "--json", str(json_file), "--junit", str(junit))
    found = Comparison.model_validate_json(json_file.read_text())
    assert (found.a, found.b, found.valid) == ((files["a1"],), (files["b1"],), True)
    assert [item.verdict for item in found.thresholds] == ["regressed", "undecided"]
    (suite,) = JUnitXml.fromfile(str(junit))
    assert (suite.tests, suite.failures, suite.errors) == (3, 1, 1)
    done = CliRunner().invoke(cli, ["compare", files["a1"], files["b1"], "--json", "-"], standalone_mode=False)
    assert Comparison.model_validate_json(done.stdout).thresholds == ()
    assert "requests/s" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("a1", "b1", "--fail-if", "latency.p99"), "is not a threshold"),
        (("times", "b1", *P99), "is a times file of trtexec and has no latency"),
        (("a1", "b1", "--a", "a1"), "a1.json is the same run as "),
        (("a1", "b1", "--b", "a2", "--b", "copy"), "copy.json is the same run as "),
        (("a1", "b1", "--junit", "x.xml"), "--junit writes verdicts on thresholds: add --fail-if"),
        (("a1", "b1", *P99, "--junit", "-"), "--junit -: only --json goes to stdout"),
        (("a1", "b1", *P99, "--json", "no/x.json"), "there is no folder no"),
        (("a1", "b1", *P99, "--json", "x", "--junit", "x"), "name the same file"),
        (("a1", "b1", *P99, "--junit", "b1"), "is read by this command and would be overwritten: name another file"),
        (("a1", "profile", *P99), "--fail-if compares runs, and profile.json is a profile: leave it out"),
        (("profile", "profile", "--json", "x.json"), "--json compares runs, and profile.json is a profile"),
        (("a1", "profile", "--a", "a2"), "a side of several files compares runs, and profile.json is a profile"),
        (("a1", "comparison"), "comparison.json is a comparison of runs by loadtrt already: give the runs"),
        (("a1", "nowhere.json"), "cannot read nowhere.json"),
    ],
)
def test_what_cannot_be_asked(
    arguments: tuple[str, ...], sentence: str, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, one sentence, and nothing is shown or written."""
    monkeypatch.chdir(tmp_path)
    local: dict[str, Any] = {
        "profile": [
            {"count": 10},
            {"name": "x", "timeMs": 1.0, "averageMs": 0.1, "medianMs": 0.1, "percentage": 100.0},
        ],
        "comparison": {"schema_version": "loadtrt.comparison/1"},
    }
    for name, content in local.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "copy.json").write_bytes(Path(files["b1"]).read_bytes())
    known = files | {name: f"{name}.json" for name in (*local, "copy")}
    done = CliRunner().invoke(cli, ["compare", *(known.get(it, it) for it in arguments)], standalone_mode=False)
    assert isinstance(done.exception, UsageError), done.exception
    assert sentence in str(done.exception)
    assert done.stdout == ""
    assert not (tmp_path / "x").exists()


def test_one_side_is_not_enough() -> None:
    """Neither with one file, nor with all of them on one side."""
    for arguments in (["a.json"], ["--a", "a.json", "--a", "b.json"], []):
        assert CliRunner().invoke(cli, ["compare", *arguments]).exit_code == 2
