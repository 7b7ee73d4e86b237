"""Little memory, few files, slow clients: one sentence, and no thread is held for ever."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pytest

from command_line import ROOT
from doctor_files import GIB, write
from loadtrt.cli.watch import UnansweredError, parse_url, read_view
from loadtrt.environment import available_bytes
from loadtrt.errors import EngineError, UsageError, shortage_of
from loadtrt.live.exporter import Exporter
from loadtrt.load.inputs import make_inputs
from loadtrt.load.tensors import TensorSpec
from loadtrt.reading_files import open_file, read_bytes
from loadtrt.sizing.demand import steady_demand

if TYPE_CHECKING:
    from pathlib import Path

_RUN = ("run", "--engine", "simulated:null", "--warmup", "0s", "--duration", "10ms", "--quiet")
_MIB = 1 << 20


@pytest.mark.parametrize(
    ("limit", "value", "sentence"),
    [
        (resource.RLIMIT_NOFILE, 8, "too few files may be open at once"),
        (resource.RLIMIT_NOFILE, 12, "too few files may be open at once"),
        (resource.RLIMIT_AS, 150_000 << 10, "there is not enough memory"),
        (resource.RLIMIT_AS, 220_000 << 10, "there is not enough memory"),
    ],
)
def test_a_low_limit_is_one_sentence(limit: int, value: int, sentence: str) -> None:
    """As ulimit -n and ulimit -v set it."""
    ended = subprocess.run(
        [sys.executable, "-m", "loadtrt", *_RUN],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(limit, (value, value)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (3, 1), ended.stderr
    assert ended.stderr.startswith(f"loadtrt: {sentence}")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (OSError(12, "Cannot allocate memory"), "not enough memory"),
        (ImportError("x.so: failed to map segment from shared object"), "not enough memory"),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (RuntimeError("can't start new thread"), "no more threads"),
        (MemoryError(), "; a run needs less with a smaller --batch"),
        (ExceptionGroup("unhandled errors in a TaskGroup", [ValueError(), OSError(24, "")]), "ulimit -n"),
    ],
)
def test_shortages_are_told(error: Exception, words: str) -> None:
    """By what the system says, also within a group."""
    assert words in (shortage_of(error) or "")


def test_other_errors_are_no_shortage() -> None:
    """They stay faults."""
    assert shortage_of(ValueError("memory")) is None
    assert shortage_of(OSError(2, "No such file")) is None
    assert shortage_of(ExceptionGroup("", [ValueError()])) is None


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 60 * GIB),
        ({"sys/fs/cgroup/pod/memory.max": str(4 * GIB), "sys/fs/cgroup/pod/memory.current": str(GIB)}, 3 * GIB),
        (
            {
                "sys/fs/cgroup/memory.max": str(4 * GIB),
                "sys/fs/cgroup/memory.current": str(3 * GIB),
                "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB}\n",
            },
            2 * GIB,
        ),
        (
            {
                "sys/fs/cgroup/memory.max": str(16 * GIB),
                "sys/fs/cgroup/memory.current": str(15 * GIB),
                "sys/fs/cgroup/memory.stat": f"inactive_file {GIB}\nactive_file {8 * GIB}\nslab_reclaimable {2 * GIB}",
            },
            12 * GIB,
        ),
        (
            {
                "sys/fs/cgroup/memory.max": str(4 * GIB),
                "sys/fs/cgroup/memory.current": str(GIB),
                "sys/fs/cgroup/memory.stat": f"active_file {2 * GIB}\ninactive_file much",
            },
            4 * GIB,
        ),
        ({"sys/fs/cgroup/memory.max": "max"}, 60 * GIB),
        ({"sys/fs/cgroup/memory.max": str(GIB), "sys/fs/cgroup/memory.current": str(2 * GIB)}, 0),
        (
            {
                "proc/self/cgroup": "5:memory:/job",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(2 * GIB),
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(GIB),
            },
            GIB,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/job",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(4 * GIB),
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(4 * GIB),
                "sys/fs/cgroup/memory/job/memory.stat": f"active_file 5\ntotal_active_file {GIB}\n",
            },
            GIB,
        ),
    ],
)
def test_free_memory_is_that_of_machine_and_cgroups(tmp_path: Path, files: dict[str, str], free: int) -> None:
    """The least of all; what the kernel gives back, as pages of files, counts as free, and never more than is used."""
    machine = {"proc/meminfo": f"MemAvailable: {60 * 2**20} kB\n", "proc/self/cgroup": "0::/pod"}
    assert available_bytes(write(tmp_path, machine | files)) == free


def test_free_memory_is_that_of_the_address_space(tmp_path: Path) -> None:
    """As ulimit -v limits it: 100 pages are taken."""
    root = write(tmp_path, {"proc/meminfo": "MemAvailable: 1000000 kB\n", "proc/self/statm": "100 5 5"})
    with patch.object(resource, "getrlimit", lambda _: (50 * _MIB, 50 * _MIB)):
        assert available_bytes(root) == 50 * _MIB - 100 * resource.getpagesize()
    assert available_bytes(tmp_path / "nowhere") is None


@pytest.mark.parametrize("source", ["random", "zeros"])
def test_inputs_that_do_not_fit_are_refused_before_they_are_made(source: str) -> None:
    """Random fp32 takes as much again while it is drawn."""
    tensor = TensorSpec("x", True, "fp32", (1024, 1024), 4 * _MIB)
    (inputs,) = make_inputs([tensor], [source], 1, {}, 1, 9 * _MIB)
    assert inputs["x"].nbytes == 4 * _MIB
    with patch.object(np, "zeros", None), pytest.raises(EngineError, match=r"the inputs need .* and .* is free"):
        make_inputs([tensor], [source], 1, {}, 1, 3 * _MIB)


def test_a_file_of_inputs_is_read_once_it_fits(tmp_path: Path) -> None:
    """A compressed file grows a thousandfold: its header is judged."""
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((4, 1024, 1024), np.float32))
    tensor = TensorSpec("x", True, "fp32", (1024, 1024), 4 * _MIB)
    assert (tmp_path / "a.npz").stat().st_size < _MIB
    with (
        patch.object(np.lib.format, "read_array", None),
        pytest.raises(EngineError, match=r"the inputs need 16\.0 MiB"),
    ):
        make_inputs([tensor], [str(tmp_path / "a.npz")], 1, {}, 1, 10 * _MIB)


def test_a_pipe_is_read_up_to_a_size(tmp_path: Path) -> None:
    """As /dev/stdin and <(…) are; a device is not, and a longer file is refused unread."""
    os.mkfifo(tmp_path / "pipe")
    for data, fits in ((b"x" * 100, True), (b"x" * 101, False)):
        writer = Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
        writer.start()
        if fits:
            assert read_bytes(tmp_path / "pipe", "thing", 100) == data
        else:
            with pytest.raises(UsageError, match=r"cannot read thing .*pipe: it has more than 100 B"):
                read_bytes(tmp_path / "pipe", "thing", 100)
        writer.join()
    with pytest.raises(UsageError, match=r"it is not a regular file$"):
        open_file(tmp_path / "pipe")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(UsageError, match="it has more than 100 B"):
        read_bytes(tmp_path / "sparse", "thing", 100)


def test_gaps_that_hardly_deviate_are_equal() -> None:
    """A burstiness whose square is 0 in a float divides by nothing."""
    random = np.random.default_rng(1)
    due = steady_demand(10.0, burstiness=1e-300).due_at_gpu("random", 1, 5, random)
    assert due == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def _connected(exporter: Exporter) -> socket.socket:
    host, _, port = exporter.url.split("/")[2].partition(":")
    return socket.create_connection((host, int(port)))


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\nX: "])
def test_a_client_that_trickles_is_hung_up_on(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it sends a byte now and then, and with a request that never ends."""
    monkeypatch.setattr("loadtrt.live.exporter.REQUEST_S", 0.3)
    with Exporter("127.0.0.1:0", lambda: None) as exporter, _connected(exporter) as client:
        client.settimeout(0.05)
        client.sendall(sent)
        ended = False
        for _ in range(2000):
            if ended:
                break
            try:
                client.sendall(b"x" if sent else b"")
                ended = client.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True
        assert ended
        with _connected(exporter) as another:
            another.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert another.recv(12) == b"HTTP/1.0 200"


def test_clients_have_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than there may be at once is hung up on; as soon as one has gone there is room."""
    monkeypatch.setattr("loadtrt.live.exporter.MOST_CLIENTS", 2)
    monkeypatch.setattr("loadtrt.live.exporter.REQUEST_S", 3600)
    with Exporter("127.0.0.1:0", lambda: None) as exporter:
        with _connected(exporter), _connected(exporter), _connected(exporter) as third:
            third.settimeout(60)
            assert third.recv(1) == b""
        while True:
            with _connected(exporter) as another:
                another.sendall(b"GET / HTTP/1.0\r\n\r\n")
                try:
                    if another.recv(12) == b"HTTP/1.0 200":
                        break
                except ConnectionError:
                    continue


@pytest.mark.parametrize("first", [b"", b"HTTP/1.0 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n{"])
def test_a_host_that_trickles_is_given_up(first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its answer, in its headers and in its body: each byte would begin the socket's own timeout anew."""
    monkeypatch.setattr("loadtrt.cli.watch._TIMEOUT_S", 0.5)
    gone: list[bool] = []

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(0.02)
            try:
                self.request.sendall(first)
                while not gone:
                    self.request.sendall(b"x" if first else b"")
                    with suppress(TimeoutError):
                        self.request.recv(1)
            except OSError:
                pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with pytest.raises(UnansweredError, match="timed out"):
                read_view(parse_url(f"127.0.0.1:{server.server_address[1]}"))
        finally:
            gone.append(True)
            server.shutdown()
            thread.join()
