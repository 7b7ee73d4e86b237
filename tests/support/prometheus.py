"""The real Prometheus and Pushgateway (Debian's packages `prometheus`, which brings promtool, and
`prometheus-pushgateway`), for a test, on ports of their own."""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_Answer = TypeVar("_Answer")

PATIENCE_S = 300.0  # for whatever ends by itself: only a fault takes longer
_INSTALL = "apt-get install -y --no-install-recommends prometheus prometheus-pushgateway"


def require(binary: str) -> str:
    """The path of prometheus, promtool or prometheus-pushgateway; skips the test where it is missing, saying so."""
    path = shutil.which(binary)
    if path is None:
        pytest.skip(f"{binary} is not installed: {_INSTALL}")
    return path


def promtool(*arguments: str | Path, stdin: bytes = b"") -> str:
    """The output of promtool. Fails the test where promtool finds a fault, even a lint's."""
    command = [require("promtool"), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=PATIENCE_S)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


class Prometheus:
    """A running server. url: of its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """(labels, value) of each series at an instant (Unix time, s), now if none is given."""
        parameters = {"query": expr} if at is None else {"query": expr, "time": at}
        return [(item["metric"], float(item["value"][1])) for item in self.ask("query", **parameters)["result"]]

    def query_range(
        self, expr: str, start: float, end: float, step: float = 1.0
    ) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """(labels, [(Unix time, value), ...]) of each series."""
        found = self.ask("query_range", query=expr, start=start, end=end, step=step)["result"]
        return [
            (item["metric"], [(float(instant), float(value)) for instant, value in item["values"]]) for item in found
        ]

    def value(self, expr: str, at: float | None = None) -> float:
        """The one value of a query; NaN where it has none."""
        found = self.query(expr, at)
        assert len(found) <= 1, found
        return found[0][1] if found else math.nan

    def wait_for(self, expr: str, wanted: Callable[[float], bool] = lambda value: not math.isnan(value)) -> float:
        """Ask until the one value is what is wanted."""
        return _poll(lambda: self.value(expr), wanted, f"{expr} at {self.url}")

    def ask(self, path: str, **parameters: str | float) -> Any:
        """`data` of an answer of /api/v1. Fails the test where Prometheus refuses, with its reason."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310  # our own
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{parameters}: {error.read().decode()}")


@contextmanager
def running_prometheus(
    folder: Path,
    targets: Sequence[str] = (),
    *,
    every: str = "1s",
    data: Path | None = None,
    rules: Sequence[Path] = (),
    native: bool = False,
    writable: bool = False,
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes `targets` ("127.0.0.1:18410") of the job loadtrt. folder: for its files. every: between
    scrapes. data: its database, which may have blocks already. native: ask for native histograms. writable: take remote
    write."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "scrape_configs": [
            {"job_name": "loadtrt", "honor_labels": True, "static_configs": [{"targets": list(targets)}]}
        ],
        "rule_files": [str(path.resolve()) for path in rules],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    log = folder / "prometheus.log"
    command = [
        require("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data or folder / 'data'}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
        *(["--enable-feature=native-histograms"] if native else []),
        *(["--web.enable-remote-write-receiver"] if writable else []),
    ]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=folder) as process:
        try:
            server = Prometheus(f"http://127.0.0.1:{port}")
            _poll(lambda: _is_ready(server.url, process, log), bool, f"a Prometheus that is ready ({log})")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def running_pushgateway(folder: Path) -> Iterator[str]:
    """A Pushgateway; gives its "127.0.0.1:PORT"."""
    place = f"127.0.0.1:{free_port()}"
    binary, memory = require("prometheus-pushgateway"), "--persistence.file="  # Debian's keeps a file in /var/lib
    command = [binary, f"--web.listen-address={place}", "--log.level=warn", memory]
    log = folder / "pushgateway.log"
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=folder) as process:
        try:
            _poll(lambda: _is_ready(f"http://{place}", process, log), bool, f"a Pushgateway that is ready ({log})")
            yield place
        finally:
            process.kill()


def _is_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=PATIENCE_S) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:  # not yet: refused, or 503
        return False


def free_port() -> int:
    """A free TCP port of 127.0.0.1."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _poll(ask: Callable[[], _Answer], wanted: Callable[[_Answer], bool], what: str) -> _Answer:
    pause = Event()
    deadline = time.monotonic() + PATIENCE_S
    while not wanted(answer := ask()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE_S:g} s for {what}: {answer}")
        pause.wait(0.02)
    return answer
