"""Standard streams that are closed, full, ASCII or gone: results are kept, and exit codes are README's.

What holds of every command is tried in forks of one process (`signalled`), the rest as a shell starts it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loadtrt.cli.main import COMMANDS
from loadtrt.report.result_files import read_run
from onnx_files import doubling
from reported import capacity
from signalled import Case, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
RUN = "run --engine simulated:service=1ms,clock=virtual --warmup 0s --duration 100ms"
PRINTING = (  # a line for each command, whose exit code is 0 where its answer is read
    "--help",
    "--version",
    "doctor",
    "inspect double.onnx",
    "schema config",
    "report run.json",
    "compare run.json run2.json",
    "plan-capacity run.json --demand 10/s --objective 'latency.p99 < 9s'",
    "zoo googlenet -o new.onnx",
    "example simulated --force",
    "dashboards",
    "completion bash",
    "build --help",
    "watch --help",
    "export openmetrics run.json",
    f"{RUN} --json new.json",
    "sweep --engine simulated:service=1ms,clock=virtual --contexts 1 --duration 1s --json sweep.json --force",
    "trtexec --loadEngine=simulated:service=1ms,clock=virtual --duration=1",
    "profile --help",
    "capacity --help",
    "interference --help",
    "merge --help",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs of PRINTING."""
    made = tmp_path_factory.mktemp("streams")
    for name in ("run.json", "run2.json"):
        _shell(f"loadtrt {RUN} --quiet --json {name}", made)
    (made / "capacity.json").write_text(capacity().model_dump_json())
    doubling(made, 1, 3)
    return made


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as one:
        yield one


def _shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `loadtrt` is the command; the exit code is that of the first in a pipe."""
    script = f'loadtrt() {{ "{sys.executable}" -m loadtrt "$@"; }}; {line}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
    )


def test_every_command_is_tried() -> None:
    """A new command has its line above."""
    assert set(COMMANDS) == {line.split()[0] for line in PRINTING if not line.startswith("-")}


@pytest.mark.parametrize("line", PRINTING)
def test_a_full_stdout_is_one_sentence(line: str, folder: Path, server: Server) -> None:
    """Exit code 2, as of any file that cannot be written."""
    assert server.exit_code(_case(line, folder, ("/dev/null", "/dev/full", "said"))) == 2
    said = (folder / "said").read_text()
    assert said.splitlines()[-1].startswith("loadtrt: cannot write ")
    assert "to stdout: No space left on device" in said


@pytest.mark.parametrize("line", PRINTING)
def test_closed_streams_change_nothing(line: str, folder: Path, server: Server) -> None:
    """Daemons close all three: nobody reads, and the exit code is that of the answer."""
    written = line.startswith(("report", "export"))  # to stdout, as to a file
    assert server.exit_code(_case(line, folder, ("", "", ""))) == (2 if written else 0)


def test_closed_streams_of_a_process_change_nothing(folder: Path) -> None:
    """As a shell closes them, before Python begins."""
    assert _shell("loadtrt compare run.json run2.json <&- >&- 2>&-", folder).returncode == 0
    assert _shell("loadtrt report run.json <&- >&- 2>&-", folder).returncode == 2


def _case(line: str, folder: Path, streams: tuple[str, str, str]) -> Case:
    return Case(tuple(shlex.split(line)), "exiting", (), str(folder), streams)


@pytest.mark.parametrize("line", ["--help", "compare run.json run2.json", f"{RUN} --json new.json"])
def test_a_reader_that_leaves_changes_nothing(line: str, folder: Path) -> None:
    """| true and | head -1: no sentence, and the exit code is that of the answer."""
    done = _shell(f"loadtrt {line} | true", folder)
    assert done.returncode == 0
    assert "cannot" not in done.stderr
    assert "fault" not in done.stderr


def test_a_usage_error_without_a_reader_keeps_its_code(folder: Path) -> None:
    """2>&1 | true, a full and a closed stderr."""
    for ending in ("2>&1 | true", "2>/dev/full", "2>&-"):
        assert _shell(f"loadtrt run --engin x {ending}", folder).returncode == 2


@pytest.mark.parametrize("line", ["doctor", "compare run.json run2.json", "inspect double.onnx"])
@pytest.mark.parametrize("how", ["PYTHONIOENCODING", "LC_ALL"])
def test_an_ascii_stdout_loses_signs_alone(line: str, how: str, folder: Path) -> None:
    """Signs that the encoding lacks become question marks."""
    environment = {"PYTHONIOENCODING": "ascii"}
    if how == "LC_ALL":
        environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = _shell(f"loadtrt {line}", folder, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [("/dev/full", "said"), ("", "said"), ("said", ""), ("", ""), ("said", "/dev/full")],
)
def test_the_result_of_a_run_is_kept(stdout: str, stderr: str, folder: Path, server: Server) -> None:
    """In its file, whatever the streams are."""
    (folder / "kept.json").unlink(missing_ok=True)
    server.exit_code(_case(f"{RUN} --json kept.json", folder, ("/dev/null", stdout, stderr)))
    assert read_run(folder / "kept.json").model.ok > 90


@pytest.mark.parametrize("stdout", ["/dev/full", ""])
def test_a_result_for_stdout_is_saved_where_stdout_takes_none(stdout: str, tmp_path: Path, server: Server) -> None:
    """The sentence on stderr names the file, exit code 2."""
    code = server.exit_code(_case(f"{RUN} --quiet --json -", tmp_path, ("/dev/null", stdout, "said")))
    (saved,) = tmp_path.glob("loadtrt-saved-*")
    assert code == 2
    assert f"it is saved as {saved}" in (tmp_path / "said").read_text()
    assert read_run(saved).model.ok > 90


def test_a_reader_that_leaves_loses_no_result(tmp_path: Path) -> None:
    """| true: it is in its file, or saved."""
    _shell(f"loadtrt {RUN} --json kept.json | true", tmp_path)
    assert read_run(tmp_path / "kept.json").model.ok > 90
    done = _shell(f"loadtrt {RUN} --quiet --json - | true", tmp_path)
    (saved,) = tmp_path.glob("loadtrt-saved-*")
    assert done.returncode == 2
    assert f"it is saved as {saved}" in done.stderr
    assert read_run(saved).model.ok > 90


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-", "/dev/stderr", "/dev/fd/3"])
def test_a_result_goes_where_the_shell_points(name: str, tmp_path: Path) -> None:
    """Into a file that the shell has opened, with the summary of the run where both have one stream."""
    descriptor = {"/dev/stderr": "2", "/dev/fd/3": "3"}.get(name, "1")
    done = _shell(f"loadtrt {RUN} --quiet --json {name} {descriptor}> run.json", tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_run(tmp_path / "run.json").model.ok > 90
    assert Path("/dev/stdout").is_symlink()
    assert Path("/dev/stderr").is_symlink()


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    """A relative output is refused before measuring; what needs no folder goes on."""
    gone = 'mkdir gone; cd gone; rmdir "$PWD"'
    refused = _shell(f"{gone}; loadtrt {RUN} --json run.json", tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("loadtrt: --json run.json cannot be written: ")
    assert _shell(f"{gone}; loadtrt {RUN} --json {tmp_path}/run.json", tmp_path).returncode == 0


@pytest.mark.parametrize("line", [f"{RUN} --quiet --json result", "report run.json --format txt -o result"])
def test_a_file_that_is_mounted_by_itself_is_written_in_place(line: str, folder: Path) -> None:
    """docker -v run.json:/out/run.json: the entry cannot be replaced."""
    private = "unshare -m" if os.geteuid() == 0 else "unshare -rm"
    if _shell(f"{private} true", folder).returncode:
        pytest.skip("this machine lets nobody mount files")
    for name in ("result", "outside"):
        (folder / name).write_bytes(b"")
    done = _shell(
        f"{private} bash -c 'mount --bind outside result && \"{sys.executable}\" -m loadtrt {line}'; exit $?", folder
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "outside").stat().st_size > 100
    assert (folder / "result").stat().st_size == 0


VIRTUAL = "--engine simulated:service=1ms,clock=virtual"
MANY = {
    "sweep": f"sweep {VIRTUAL} --contexts 1,2,4 --all --warmup 0s --duration 100ms --quiet",
    "capacity": f"capacity {VIRTUAL} --objective 'latency.p99 < 1s' --time 10s --quick --quiet",
    "run": "run --engine double.onnx --duration 100ms --warmup 0s --profile --quiet",
}


@pytest.mark.parametrize(
    ("command", "ending"),
    [("sweep", "/dev/stdout > out"), ("sweep", "/dev/fd/7 7> out")]
    + [(name, "/dev/stdout | cat > out") for name in MANY],
)
def test_what_takes_bytes_once_gets_one_result(command: str, ending: str, folder: Path) -> None:
    """A result that is written again and again to a file goes to a pipe or a descriptor at the end."""
    done = _shell(f"rm -f out; loadtrt {MANY[command]} --json {ending}", folder)
    assert "fault" not in done.stderr
    assert json.loads((folder / "out").read_text())["schema_version"] == f"loadtrt.{command}/1"


@pytest.mark.parametrize("name", ["/dev/fd/3", "/dev/fd/9", "/proc/self/fd/5", "/dev/fd/7 7< run.json"])
def test_a_descriptor_that_nobody_opened_is_refused(name: str, folder: Path) -> None:
    """loadtrt's own files get such numbers; and one that is open for reading takes no result."""
    done = _shell(f"loadtrt {RUN} --json {name}", folder)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "cannot be written: " in done.stderr


def test_a_pipe_that_nobody_reads_saves_the_result_at_a_signal(server: Server, tmp_path: Path) -> None:
    """It waits for a reader, and SIGTERM ends that: the result lies in the working folder."""
    os.mkfifo(tmp_path / "pipe")
    arguments = (*shlex.split(RUN), "--json", "pipe")
    server.exit_code(Case(arguments, "waiting for a reader", ("SIGTERM",), str(tmp_path)))
    (saved,) = tmp_path.glob("loadtrt-saved-*")
    assert read_run(saved).model.ok > 0
    assert "nobody reads this pipe" in (tmp_path / "stderr").read_text()


def test_names_that_are_not_utf8(folder: Path) -> None:
    """Results hold them with a replacement character."""
    odd = "$(printf 'r\\xff.json')"
    done = _shell(f"cp run.json {odd}; loadtrt compare {odd} run2.json --json c.json", folder)
    assert done.returncode == 0, done.stderr
    done = _shell(
        "loadtrt plan-capacity run.json --demand 10/s --objective 'latency.p99 < 9s' --quiet --json $(printf 'p\\xff')",
        folder,
    )
    assert done.returncode == 0, done.stderr
