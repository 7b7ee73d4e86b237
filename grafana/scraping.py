"""Prometheus with the configuration and the rules of this folder, scraping given targets."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from grafana.asking import Prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDER = Path(__file__).parent / "prometheus"
_READY_S = 300.0


@contextmanager
def scraping(targets: Sequence[str], *, native: bool = False) -> Iterator[Prometheus]:
    """Debian's Prometheus on a free port of this machine, with data that is deleted afterwards; it has begun to scrape.

    targets: "host:port" each, in place of the shipped ones. native: it scrapes native histograms. Raises
    FileNotFoundError where it is not installed, TimeoutError where it does not start.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise FileNotFoundError("there is no prometheus here: apt-get install -y --no-install-recommends prometheus")
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["rule_files"] = [str(FOLDER / pattern) for pattern in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = list(targets)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="loadtrt-prometheus-") as name:
        folder = Path(name)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        command += ["--enable-feature=native-histograms"] if native else []
        command += [f"--web.listen-address={address}", "--log.level=warn"]  # it would listen on all interfaces
        with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                prometheus = Prometheus(f"http://{address}")
                _await_scrape(prometheus, process, folder / "log")
                yield prometheus
            finally:
                process.terminate()


def _await_scrape(prometheus: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until Prometheus has scraped its targets for the first time, up or down: about 5 s after it is ready."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError, ValueError):  # it is not listening yet, or reads its memory
            if prometheus.at("up", time.time()):
                return
        time.sleep(0.05)
    raise TimeoutError(f"prometheus did not start: {log.read_text()[-2000:]}")
