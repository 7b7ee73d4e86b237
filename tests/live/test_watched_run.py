"""Runs that are watched, end to end: the observer process, its metrics in a real Prometheus, and what goes wrong."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from loadtrt.cli.watch import parse_url, read_view
from loadtrt.lanes.recorder import Recorder
from loadtrt.live import observer as live_observer
from loadtrt.live.observer import Observer, RunFacts, Wishes
from loadtrt.records.board import KEEP, RING, board_bytes
from loadtrt.results.run_result import RunResult
from prometheus import PATIENCE_S, free_port, running_prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOADTRT = (sys.executable, "-m", "loadtrt")
SIMULATED = ("--engine", "simulated:service=5ms", "--contexts", "2", "--warmup", "0")


def _run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LOADTRT, "run", *arguments], capture_output=True, text=True, check=False, **options)


def _until(done: Any) -> None:
    """Ask again and again, for so long that only a fault is longer."""
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end
        select.select([], [], [], 0.02)


@pytest.mark.parametrize("engine", [("simulated:service=5ms",), ("zoo:googlenet", "--on", "onnxruntime")])
def test_counts_that_prometheus_ends_with_are_the_runs(engine: tuple[str, ...], tmp_path: Path) -> None:
    """What is scraped after the run is what run.json holds: requests, inferences, the histogram's count and sum."""
    port = free_port()
    command = [
        *LOADTRT, "run", "--engine", *engine, "--contexts", "2", "--warmup", "0", "--requests", "50",
        "--objective", "latency.p50 < 60s", "--json", "run.json", *_serving(port),
    ]  # fmt: skip
    with (
        running_prometheus(tmp_path / "prometheus", [f"127.0.0.1:{port}"], every="200ms") as prometheus,
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process,
    ):
        prometheus.wait_for('loadtrt_phase{phase="done"}', lambda active: active == 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) in (0, 97, 98)  # a busy machine makes no valid run
        result = RunResult.model_validate_json((tmp_path / "run.json").read_text())
        found = {
            name: prometheus.value(f'max_over_time({name}{{run="{result.run}"}}[10m])')
            for name in ("loadtrt_inferences_total", "loadtrt_latency_seconds_count", "loadtrt_latency_seconds_sum",
                         "loadtrt_objective_good_total", "loadtrt_objective_requests_total")
        }  # fmt: skip
        served = f'loadtrt_requests_total{{outcome="ok",run="{result.run}"}}'
        requests = prometheus.value(f"sum(max_over_time({served}[10m]))")
    assert requests == result.model.ok >= 50
    assert found["loadtrt_inferences_total"] == result.model.ok * result.model.engine.batch
    assert found["loadtrt_latency_seconds_count"] == result.model.metrics["latency"].count
    mean = result.model.metrics["latency"].mean_ns
    assert mean is not None
    assert found["loadtrt_latency_seconds_sum"] == pytest.approx(mean * result.model.metrics["latency"].count / 1e9)
    assert found["loadtrt_objective_good_total"] == found["loadtrt_objective_requests_total"] == result.model.ok
    assert [(item.good, item.requests) for item in result.model.objectives] == [(result.model.ok, result.model.ok)]


def _serving(port: int) -> tuple[str, ...]:
    """Options: metrics at this port, which stay for so long after the run that only Ctrl-C ends them."""
    return ("--metrics", f":{port}", "--metrics-linger", "10h", "--max-lateness", "60s")


def test_a_port_in_use_is_told_before_the_run(tmp_path: Path) -> None:
    """Exit code 2, one sentence, nothing measured."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _run(*SIMULATED, "--duration", "10h", "--metrics", f":{port}", "--json", "run.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "the port is in use" in line
    assert not (tmp_path / "run.json").exists()


def test_an_observer_that_dies_ends_no_run(tmp_path: Path) -> None:
    """It is killed while the run goes on: the run goes on until Ctrl-C, and its result is whole."""
    port = free_port()
    command = [*LOADTRT, "run", *SIMULATED, "--duration", "10h", "--json", "run.json", *_serving(port)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        _until(lambda: _phase(port) == "measure" and _served(port) > 0)
        (observer,) = _children(process.pid)
        os.kill(observer, signal.SIGKILL)
        _until(lambda: _phase(port) is None)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "the observer process has died" in said
    result = RunResult.model_validate_json((tmp_path / "run.json").read_text())
    assert result.outcome == "interrupted"
    assert result.model.ok == result.model.metrics["latency"].count > 0


def test_an_observer_that_stood_still_has_all_in_the_end(tmp_path: Path) -> None:
    """It is stopped while the run goes on, and continued when run.json is written: the run is whole, and what is
    scraped then is what run.json holds."""
    port = free_port()
    command = [*LOADTRT, "run", *SIMULATED, "--duration", "1s", "--json", "run.json", *_serving(port)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        _until(lambda: _phase(port) in ("measure", "done"))  # a slow host may see the end alone
        (observer,) = _children(process.pid)
        os.kill(observer, signal.SIGSTOP)
        _until((tmp_path / "run.json").exists)
        os.kill(observer, signal.SIGCONT)
        _until(lambda: _phase(port) == "done")
        found = _metrics(port)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) in (0, 97)  # a busy machine makes no valid run
    result = RunResult.model_validate_json((tmp_path / "run.json").read_text())
    assert result.outcome == "completed"
    assert (
        sum(value for name, value in found.items() if name.startswith("loadtrt_requests_total"))
        == result.model.submitted
    )
    assert _value(found, "loadtrt_latency_seconds_count") == result.model.metrics["latency"].count
    assert _value(found, "loadtrt_observer_missed_requests_total") == 0


def test_the_fastest_run_is_followed_to_its_end(tmp_path: Path) -> None:
    """Drawn on a terminal, with metrics, more requests than rows are kept and some go round the ring: counted ones and
    missed ones are as many as run.json has. Boards of both processes have an eighth of the rows, in an eighth of the
    time."""
    port, leader, follower = free_port(), *pty.openpty()
    keep, ring = KEEP // 8, RING // 8
    (tmp_path / "sitecustomize.py").write_text(
        "from loadtrt.records.board import Board, board_bytes\n"
        f"board_bytes.__defaults__, Board.__init__.__defaults__ = ({keep}, {ring}), (None, {keep}, {ring})\n"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    null = ("--engine", "simulated:null", "--contexts", "4", "--warmup", "0", "--requests", str(keep + ring // 8))
    command = [*LOADTRT, "run", *null, "--json", "run.json", *_serving(port)]
    process = subprocess.Popen(command, cwd=tmp_path, env=path, stdout=subprocess.DEVNULL, stderr=follower)
    os.close(follower)
    found: dict[str, float] = {}
    drawn = b""
    for part in _output(leader):
        drawn += part
        if b"metrics stay" in drawn and not found:
            _until(lambda: _phase(port) == "done")
            found = _metrics(port)
            process.send_signal(signal.SIGINT)
    os.close(leader)
    assert process.wait(PATIENCE_S) in (0, 97)  # a busy machine makes no valid run
    result = RunResult.model_validate_json((tmp_path / "run.json").read_text())
    assert result.model.submitted == result.model.ok >= keep + ring // 8
    assert not result.model.percentiles_exact
    missed = _value(found, "loadtrt_observer_missed_requests_total")
    assert _value(found, "loadtrt_latency_seconds_count") + missed == result.model.ok
    assert _value(found, "loadtrt_latency_seconds_count") >= keep
    assert b"lane 3" in drawn


def test_a_run_that_is_killed_leaves_no_observer(tmp_path: Path) -> None:
    """The end of its stdin is the end of the observer, and its port is free again."""
    port = free_port()
    command = [*LOADTRT, "run", *SIMULATED, "--duration", "10h", "--metrics", f":{port}"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    _until(lambda: _phase(port) == "measure")
    process.kill()
    process.wait()
    _until(lambda: _phase(port) is None)


def test_ctrl_c_on_a_terminal_leaves_it_as_it_was(tmp_path: Path) -> None:
    """The view is drawn, goes with the run, and the cursor is back; the result is kept, exit code 130."""
    leader, follower = pty.openpty()
    command = [*LOADTRT, "run", *SIMULATED, "--duration", "10h", "--json", "run.json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=follower)
    os.close(follower)
    drawn = b""
    for part in _output(leader):
        if b"lane 1" in drawn + part and b"lane 1" not in drawn:
            process.send_signal(signal.SIGINT)
        drawn += part
    os.close(leader)
    assert process.wait(PATIENCE_S) == 130
    assert drawn.count(b"\x1b[?25l") > 0
    assert drawn.rindex(b"\x1b[?25h") > drawn.rindex(b"\x1b[?25l")
    assert b"stopping: waiting for requests in flight" in drawn
    assert RunResult.model_validate_json((tmp_path / "run.json").read_text()).outcome == "interrupted"


def test_nobody_watches_a_quiet_run_on_a_cpu(tmp_path: Path) -> None:
    """No terminal, no metrics, no GPU: no process is made, but for git's, which tells the revision."""
    process = subprocess.Popen([*LOADTRT, "run", *SIMULATED, "--duration", "200ms", "--quiet"], cwd=tmp_path)
    seen: set[int] = set()
    while process.poll() is None:  # an observer lives as long as its run
        seen.update(child for child in _children(process.pid) if b"loadtrt.live" in _command(child))
    assert seen == set()


def test_a_folder_of_the_users_holds_no_modules(tmp_path: Path) -> None:
    """A file called as a module is not imported by the observer; and standard streams may be closed."""
    (tmp_path / "queue.py").write_text("raise SystemExit('imported')")
    command = f"exec {' '.join(LOADTRT)} run {' '.join(SIMULATED)} --requests 20 --metrics :0 --metrics-linger 0s <&-"
    path = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path, env=path)
    assert done.returncode in (0, 97), done.stderr
    assert "metrics at http" in done.stderr
    assert "imported" not in done.stderr


def test_objectives_beyond_the_kept_records_are_counted_exactly() -> None:
    """Good requests are counted as they come, not guessed from buckets."""
    recorder = Recorder(1, 0, keep=0, bounds=[(0, 1000, ())])
    for latency in range(990, 1011):
        recorder.record(0, 0, 0, latency, 0, latency, 0, 0, 0, 0)
    recorder.finish()
    assert not recorder.complete
    assert recorder.good.tolist() == [11]


def test_the_observer_answers_and_ends() -> None:
    """Ready with its URL, no telemetry without a GPU, and gone after close, at once and a second time."""
    observer = Observer(Wishes(metrics="127.0.0.1:0"))
    observer.ready()
    observer.describe(RunFacts("r", "m", 2, 1, None, 0, None))
    observer.boards[0].enter("measure")
    assert observer.telemetry(0, 1, 1) == {
        "telemetry": None,
        "why": "",
        "sharing": None,
    }  # an answer: it has read all before it, too
    with urllib.request.urlopen(observer.url) as page:  # noqa: S310  # http, as the exporter says
        assert b'phase="measure",run="r"} 1' in page.read()
    view = read_view(parse_url(observer.url))
    assert view is not None
    assert (view.phase, view.facts.run) == ("measure", "r")
    observer.close()
    observer.close()
    assert not observer.alive


def _scrape(port: int) -> list[str] | None:
    """The lines of the metrics; None where they are not served."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as page:
            return str(page.read(), "utf-8").splitlines()
    except OSError:
        return None


def _served(port: int) -> float:
    """Requests that the metrics count as served."""
    lines = _scrape(port) or []
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("loadtrt_requests_total{"))


def _phase(port: int) -> str | None:
    """What the metrics say; None where they are not served."""
    lines = _scrape(port)
    if lines is None:
        return None
    active = [line for line in lines if line.startswith("loadtrt_phase{") and line.endswith(" 1.0")]
    return active[0].partition('phase="')[2].partition('"')[0] if active else ""


def _metrics(port: int) -> dict[str, float]:
    """All series."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as page:
        lines = page.read().decode().splitlines()
    return {name: float(value) for name, _, value in (it.rpartition(" ") for it in lines if not it.startswith("#"))}


def _value(found: dict[str, float], name: str) -> float:
    """Of the one series of this name."""
    (value,) = (value for series, value in found.items() if series.startswith(f"{name}{{"))
    return value


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except OSError:  # it has just ended
        return []


def _command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _output(descriptor: int) -> Iterator[bytes]:
    """What is written on a terminal, until it is closed."""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:
            return
        if not part:
            return
        yield part


def test_an_observer_that_cannot_be_started_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host that is out of processes."""

    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError

    with tempfile.TemporaryFile() as file:
        file.truncate(board_bytes())
        monkeypatch.setattr(live_observer, "shared_file", lambda _: file)
        monkeypatch.setattr(subprocess, "Popen", refused)
        with pytest.raises(BlockingIOError):
            Observer(Wishes())
        assert file.closed
