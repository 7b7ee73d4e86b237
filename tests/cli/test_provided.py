"""Dashboards, rules and configurations that come with loadtrt, and the completion of shells."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

import loadtrt as package
from command_line import ROOT, loadtrt
from loadtrt.cli.main import COMMANDS
from loadtrt.cli.provided import provided

if TYPE_CHECKING:
    from pathlib import Path

FILES = [str(file.relative_to(ROOT / "configs")) for file in sorted((ROOT / "configs").rglob("*.*"))]
EXAMPLES = [file.rpartition(".")[0] for file in FILES]
COMMAND_LINES = {
    "plan": "loadtrt run --config {} --engine my.plan",  # the plan that the file names is no one's
    "fleet/job": "sed \"s/START_AT/$(date -u -d '+5 minutes' +%FT%TZ)/\" {} | kubectl apply -f -",
    "fleet/rayjob": "kubectl apply -f {}",
    "fleet/slurm": "sbatch {} run.yaml",
    "kubernetes/job": "kubectl apply -f {}",
    "kubernetes/podmonitor": "kubectl apply -f {}",
}


def test_every_example_is_listed_with_what_it_is() -> None:
    done = loadtrt("example")
    assert [line.split()[0] for line in done.stdout.splitlines()] == EXAMPLES
    assert all(len(line.split()) > 3 for line in done.stdout.splitlines())


@pytest.mark.parametrize("file", FILES)
def test_an_example_is_written_as_it_is(tmp_path: Path, file: str) -> None:
    """What is written is what lies in configs/, which test_cli.py reads; its suffix may be given, too. What is printed
    is the command that takes it."""
    name = file.rpartition(".")[0]
    done = loadtrt("example", name, folder=tmp_path)
    command = COMMAND_LINES.get(name, "loadtrt run --config {}").format(file)
    assert (done.returncode, done.stdout) == (0, f"{command}\n")
    done = loadtrt("example", name, "-o", "a b.yaml", folder=tmp_path)
    assert f" {shlex.quote('a b.yaml')}" in done.stdout
    done = loadtrt("example", file, "-o", "-", folder=tmp_path)
    assert done.stdout == (tmp_path / file).read_text() == (ROOT / "configs" / file).read_text()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("googlnet", "there is no example 'googlnet': did you mean 'googlenet'?"),
        ("nothing", f"there is no example 'nothing': the examples are {', '.join(EXAMPLES)}"),
    ],
)
def test_another_name_is_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    done = loadtrt("example", name, folder=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"loadtrt: {sentence}\n")
    assert list(tmp_path.iterdir()) == []


def test_dashboards_are_those_of_the_wheel(tmp_path: Path) -> None:
    """Every file that pyproject.toml puts into the wheel, none of the programs that make them; the compose file finds
    what it mounts."""
    done = loadtrt("dashboards", "new/folder", folder=tmp_path)
    names = loadtrt("dashboards").stdout.splitlines()
    assert done.stdout.splitlines() == [f"new/folder/{name}" for name in names]
    for name in names:
        assert (tmp_path / "new/folder" / name).read_bytes() == (ROOT / "grafana" / name).read_bytes()
    assert {"compose.yaml", "dashboards/run.json", "prometheus/prometheus.yml", "prometheus/rules/loadtrt.yml"} < {
        *names
    }
    assert not any(name.endswith((".py", ".pyc")) for name in names)
    for line in (ROOT / "grafana" / "compose.yaml").read_text().splitlines():
        if line.strip().startswith("- ./"):
            assert (tmp_path / "new/folder" / line.split("./")[1].split(":")[0]).is_dir()


@pytest.mark.parametrize("arguments", [("dashboards", "."), ("example", "plan", "-o", "compose.yaml")])
def test_other_files_are_kept(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Nothing is written where anything would be written over, unless --force; the same may be written again."""
    (tmp_path / "compose.yaml").write_text("mine: true\n")
    done = loadtrt(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "loadtrt: compose.yaml holds something else, which would be overwritten: name another place, or add --force\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["compose.yaml"]
    assert loadtrt(*arguments, "--force", folder=tmp_path).returncode == 0
    assert (tmp_path / "compose.yaml").read_text() != "mine: true\n"
    assert loadtrt(*arguments, folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ("dashboards", "the folder dashboards cannot be made: File exists"),
        ("compose.yaml/", "the file compose.yaml is a folder: name a file in it"),
    ],
)
def test_what_stands_in_the_way_is_one_sentence(tmp_path: Path, made: str, sentence: str) -> None:
    if made.endswith("/"):
        (tmp_path / made).mkdir()
    else:
        (tmp_path / made).touch()
    done = loadtrt("dashboards", ".", folder=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"loadtrt: {sentence}\n")


def test_a_wheel_has_them_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As hatch lays them there; without them, and without a checkout, a sentence says so."""
    installed = tmp_path / "site-packages" / "loadtrt"
    installed.mkdir(parents=True)
    monkeypatch.setattr(package, "__file__", str(installed / "__init__.py"))
    done = loadtrt("example")
    assert (done.returncode, done.stderr[:52]) == (2, "loadtrt: this installation of loadtrt has no configs")
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for outside, inside in wheel["force-include"].items():
        place = installed.parent / inside
        place.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / outside).is_dir() else shutil.copy)(ROOT / outside, place)
    found = {kind: [*provided(kind)] for kind in ("configs", "grafana")}
    monkeypatch.undo()
    assert found == {kind: [*provided(kind)] for kind in found}


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program `loadtrt`."""
    file = tmp_path_factory.mktemp("bin") / "loadtrt"
    file.write_text(f"#!{sys.executable}\nfrom loadtrt.__main__ import main\nmain()\n")
    file.chmod(0o755)
    return file.parent


def _completed(command: Path, folder: Path, *words: str) -> set[str]:
    """What bash completes the last of these words to. An empty set where it is to complete names of files."""
    quoted = " ".join(f"'{word}'" for word in words)
    script = (
        f"source <(loadtrt completion bash); COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1};"
        ' compopt() { echo $*; }; _loadtrt_completion loadtrt; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{command}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return {*done.stdout.split("\n")} - {""}


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (("",), {*COMMANDS}),
        (("plan-",), {"plan-capacity"}),
        (("run", "--partit"), {"--partitions"}),
        (("sweep", "--engine", "simulated:null", "--res"), {"--resume"}),
        (("run", "--on", ""), {"tensorrt", "onnxruntime"}),
        (("completion", "z"), {"zsh"}),
        (("export", ""), {"openmetrics"}),
        (("example", ""), {*EXAMPLES}),
        (("example", "kubernetes/p"), {"kubernetes/podmonitor"}),
        (("run", "--engine", "m"), {"-o default"}),
        (("profile", "m"), {"-o default"}),
        (("run", "--config", ""), {"-o default"}),
        (("run", "--json", ""), {"-o default"}),
        (("report", "run"), {"-o default"}),
    ],
)
def test_bash_completes(command: Path, tmp_path: Path, words: tuple[str, ...], some: set[str]) -> None:
    """Commands, their options, the words of options, and names of files where a value may be one."""
    assert some <= _completed(command, tmp_path, "loadtrt", *words)


def test_completing_a_command_imports_none(command: Path, tmp_path: Path) -> None:
    """The names of commands are there at once."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print([name for name in sys.modules if name.startswith('pydantic')]))\n"
        "from loadtrt.__main__ import main\n"
        "main()\n"
    )
    (tmp_path / "loadtrt").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COMP_WORDS": "loadtrt ru", "COMP_CWORD": "1"}
    environment["_LOADTRT_COMPLETE"] = "bash_complete"
    line = [sys.executable, str(tmp_path / "loadtrt")]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["plain,run", "[]"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    """It asks `loadtrt` itself, by the variable that click reads."""
    done = loadtrt("completion", shell)
    assert done.returncode == 0
    assert f"_LOADTRT_COMPLETE={shell}_complete" in done.stdout
    if found := shutil.which(shell):
        checked = subprocess.run([found, "-n"], input=done.stdout, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")
