"""Labels of results and metrics: what is one, what is refused and how, and where they go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from command_line import loadtrt
from loadtrt.asked.config import RunConfig
from loadtrt.asked.labels import MOST_LABELS, RESERVED
from loadtrt.asked.reading import load_config
from loadtrt.errors import UsageError
from loadtrt.prometheus.families import FAMILIES, GPU_LABELS, RUN_LABELS, WORKER_LABELS
from loadtrt.results.capacity_result import SweepResult
from loadtrt.results.run_result import RunResult

if TYPE_CHECKING:
    from pathlib import Path

NULL = ("--engine", "simulated:null", "--requests", "10", "--warmup", "0", "--quiet")


def _labels(**labels: object) -> dict[str, str]:
    return RunConfig.of(engine="simulated:null", label=labels).labels


def test_labels_are_text() -> None:
    """Whole numbers, as YAML has them, become text."""
    given = {"team": "search", "build": 17, "Path_2": "a=b, c:ü"}
    assert _labels(**given) == {"team": "search", "build": "17", "Path_2": "a=b, c:ü"}


@pytest.mark.parametrize("name", ["", "2x", "_x", "__x", "a-b", "a.b", "ü", "a b", "a\n", "x" * 129])
def test_a_name_that_metrics_cannot_have_is_refused(name: str) -> None:
    """With a sentence that shows one."""
    with pytest.raises(UsageError, match="is not the name of a label: write letters, digits and _") as told:
        _labels(**{name: "x"})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_names_of_loadtrts_own_are_refused(name: str) -> None:
    """They would hide what a metric says."""
    with pytest.raises(UsageError, match=f"label: '{name}' is a name that loadtrt's own metrics use"):
        _labels(**{name: "x"})


@pytest.mark.parametrize("name", ["~", "true", "1", "2026-11-30", "1.5"])
def test_a_name_that_is_no_text_is_refused(name: str, tmp_path: Path) -> None:
    """YAML's null would be a label "None"."""
    (tmp_path / "c.yaml").write_text(f"engine: simulated:null\nlabel: {{{name}: x}}\n")
    with pytest.raises(UsageError, match="is not the name of a label"):
        load_config(tmp_path / "c.yaml", {})


def test_a_commit_of_digits_stays_as_it_is_written(tmp_path: Path) -> None:
    """0123456 is 42798 in YAML 1.1, and 123456 in 1.2."""
    (tmp_path / "c.yaml").write_text("engine: simulated:null\nlabel: {commit: 0123456, build: 17}\n")
    assert load_config(tmp_path / "c.yaml", {}).labels == {"commit": "0123456", "build": "17"}


@pytest.mark.parametrize("value", ["", "a\nb", "\x1b[31m", "\ud800", "x" * 257])
def test_a_value_is_one_line(value: str) -> None:
    with pytest.raises(UsageError, match=r"the value of 'team' is .*: write one line of 1 to 256 characters"):
        _labels(team=value)


@pytest.mark.parametrize("value", [1.5, True, None, ["a"], {"a": "b"}])
def test_a_value_that_is_no_text_is_refused(value: object) -> None:
    """1.10 would become 1.1."""
    with pytest.raises(UsageError, match=r"the value of 'team' is .*, not text: write it in quotes"):
        _labels(team=value)


def test_labels_are_few() -> None:
    with pytest.raises(UsageError, match=f"33 labels are more than {MOST_LABELS}, the most"):
        _labels(**{f"x{number}": "y" for number in range(33)})


@pytest.mark.parametrize("labels", ["team", ["team"], 3])
def test_labels_in_a_file_are_a_mapping(labels: object, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(json.dumps({"engine": "simulated:null", "label": labels}))
    with pytest.raises(UsageError, match=r"label: .* is not a mapping"):
        load_config(tmp_path / "c.yaml", {})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["team"], "--label wants NAME=VALUE, not 'team'"),
        (["=x"], "--label wants NAME=VALUE, not '=x'"),
        (["team=a", "team=b"], "--label is given twice for team: leave one out"),
        (["run=1"], "--label: 'run' is a name that loadtrt's own metrics use: take another, such as my_run"),
    ],
)
def test_options_that_are_no_labels_are_told(given: list[str], sentence: str) -> None:
    done = loadtrt("run", *NULL, *(word for text in given for word in ("--label", text)))
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr


def test_a_run_has_those_of_file_and_command_line(tmp_path: Path) -> None:
    """The command line adds to the file's, and wins; in run.json, in JUnit's properties and on the page."""
    (tmp_path / "c.yaml").write_text("label: {team: search, build: 1}\n")
    options = ("--label", "build=2", "--label", "note=a=b", "--json", "run.json", "--junit", "j.xml")
    assert loadtrt("run", *NULL, "--config", "c.yaml", *options, folder=tmp_path).returncode in (0, 97)
    wanted = {"team": "search", "build": "2", "note": "a=b"}
    result = RunResult.model_validate_json((tmp_path / "run.json").read_text())
    assert result.config.labels == wanted
    properties = {
        item.get("name"): item.get("value")
        for item in ElementTree.parse(tmp_path / "j.xml").iter("property")  # noqa: S314  # our own
    }
    assert wanted.items() <= properties.items()
    assert loadtrt("report", "run.json", "-o", "r.html", folder=tmp_path).returncode == 0
    assert "team=search · build=2 · note=a=b" in (tmp_path / "r.html").read_text()


def test_the_same_run_again_has_no_label_of_the_first(tmp_path: Path) -> None:
    """The commit or the build of a result is not that of the next run."""
    assert loadtrt("run", *NULL, "--label", "build=1", "--json", "a.json", folder=tmp_path).returncode in (0, 97)
    assert loadtrt("run", "--config", "a.json", "--quiet", "--json", "b.json", folder=tmp_path).returncode in (0, 97)
    assert RunResult.model_validate_json((tmp_path / "b.json").read_text()).config.labels == {}


def test_a_sweep_has_labels(tmp_path: Path) -> None:
    options = ("--contexts", "1,2", "--label", "team=search", "--json", "sweep.json")
    assert loadtrt("sweep", *NULL, *options, folder=tmp_path).returncode in (0, 97)
    assert SweepResult.model_validate_json((tmp_path / "sweep.json").read_text()).config.labels == {"team": "search"}


def test_names_of_all_metrics_are_reserved(tmp_path: Path) -> None:
    """Of each family, and what engines say of their mode."""
    own = {*RUN_LABELS, *GPU_LABELS, *WORKER_LABELS, *(label for family in FAMILIES for label in family.labels)}
    assert own <= RESERVED
