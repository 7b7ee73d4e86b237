"""The exporter: what Prometheus gets is what the board holds; wrong requests get a sentence."""

from __future__ import annotations

import errno
import gzip
import http.client
import re
import socket
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pytest

from exported import BOUND_NS, FACTS, recorded, some_requests, view
from loadtrt.errors import UsageError
from loadtrt.live.exporter import Exporter
from loadtrt.prometheus.families import FAMILIES, OF_FLEETS
from loadtrt.records.records import FAILED, METRICS, UNSERVED
from loadtrt.units import SECOND_NS, parse_address
from prometheus import free_port, running_prometheus

if TYPE_CHECKING:
    from pathlib import Path

    from loadtrt.live.metrics import Observation

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"


def _get(exporter: Exporter, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    """(status, content type, body as it was sent)."""
    host, port = re.fullmatch(r"http://(.*):(\d+)/metrics", exporter.url).groups()  # type: ignore[union-attr]
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=300)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, answer.headers["Content-Type"], answer.read()
    connection.close()
    return found


def _view() -> Observation:
    return view(recorded(some_requests())[0])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":18410", ("127.0.0.1", 18410)),
        ("18410", ("127.0.0.1", 18410)),
        ("0.0.0.0:18410", ("0.0.0.0", 18410)),  # noqa: S104  # what a user may ask for
        ("[::1]:18410", ("::1", 18410)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("gpu-7.example.org:0", ("gpu-7.example.org", 0)),
        (" :65535 ", ("127.0.0.1", 65535)),
    ],
)
def test_addresses_are_read(text: str, address: tuple[str, int]) -> None:
    """HOST:PORT, :PORT or PORT; without a host it is this machine alone."""
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":", "host", "host:", ":65536", ":-1", "::1:18410", "http://host:18410", "a b:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """With a sentence that shows how one is written."""
    with pytest.raises(UsageError, match=re.escape(f"'{text}' is not an address to serve metrics at: write :PORT")):
        parse_address(text)


def test_an_exporter_that_cannot_be_says_why() -> None:
    """A port in use, a host that there is not, an address of another machine: what, where, and what to do."""
    with Exporter(":0", _view) as exporter:
        address = exporter.url.removeprefix("http://").removesuffix("/metrics")
        with pytest.raises(UsageError, match=rf"^metrics cannot be served at {address}: the port is in use; take"):
            Exporter(address, _view)
    with pytest.raises(UsageError, match=r"there is no host a\.\.b; leave it out"):
        Exporter("a..b:0", _view)
    with pytest.raises(UsageError, match="this machine has no such address"):
        Exporter("192.0.2.1:0", _view)  # of TEST-NET-1


@pytest.mark.parametrize(
    ("port", "rest"),
    [
        (9400, "usually by dcgm-exporter; take another, such as :18410, or :0"),
        (8002, "usually by a Triton server's metrics; take another, such as :18410, or :0"),
        (18410, "usually by another run of loadtrt; take another, or :0"),
    ],
)
def test_a_taken_port_is_told_with_who_usually_has_it(port: int, rest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No port is bound: whether these are free is the host's affair."""

    def taken(*_: object) -> NoReturn:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr("loadtrt.live.exporter.make_server", taken)
    with pytest.raises(UsageError, match=re.escape(f"127.0.0.1:{port}: the port is in use, {rest} for any free one")):
        Exporter(f":{port}", _view)


@pytest.mark.parametrize("address", [":0", "0.0.0.0:0", "localhost:0", "[::1]:0"])
def test_it_serves_where_it_says(address: str) -> None:
    """Port 0 is a free one, which `url` has; only this machine reaches it unless asked for more."""
    if "::" in address and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with Exporter(address, _view) as exporter:
        assert not exporter.url.endswith(":0/metrics")
        assert _get(exporter)[0] == 200
        assert exporter.scrapes == 1
    if address == ":0":
        assert exporter.url.startswith("http://127.0.0.1:")
    exporter.close()
    with pytest.raises(OSError, match="refused"):
        _get(exporter)


def test_other_paths_point_to_the_metrics() -> None:
    """/ says where they are, what is nowhere is 404, and nothing but GET is answered."""
    with Exporter(":0", _view) as exporter:
        assert _get(exporter, "/") == (
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            b"loadtrt: the metrics are at /metrics, the live view for loadtrt watch at /view\n",
        )
        status, _, body = _get(exporter, "/metric")
        assert (status, b"at /metrics" in body) == (404, True)
        assert _get(exporter, "/metrics", "POST")[0] == 405
        assert _get(exporter, "/metrics?name[]=x")[0] == 200
        assert exporter.scrapes == 1


def test_formats_are_negotiated() -> None:
    """Prometheus' text unless OpenMetrics is accepted; protobuf only where it is accepted and was asked for."""
    with Exporter(":0", _view) as exporter:
        _, kind, body = _get(exporter)
        assert kind == "text/plain; version=0.0.4; charset=utf-8"
        assert body.count(b"# TYPE ") == len(FAMILIES) - len(OF_FLEETS)
        _, kind, body = _get(exporter, Accept=f"{PROTOBUF},application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        assert kind.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
        assert body.count(b"# TYPE ") == len(FAMILIES) - len(OF_FLEETS)
        assert body.endswith(b"# EOF\n")
        small = _get(exporter, Accept_Encoding="gzip")[2]
        assert len(small) < len(body) / 5
        assert gzip.decompress(small).startswith(b"# HELP loadtrt_latency_seconds")
    with Exporter(":0", _view, native=True) as exporter:
        assert _get(exporter, Accept=PROTOBUF)[1].startswith("application/vnd.google.protobuf; proto=io.prom")
        assert _get(exporter)[1].startswith("text/plain")


def test_before_anything_is_known_the_page_is_empty() -> None:
    """An engine may load for minutes: there is no run yet, and no error."""
    with Exporter(":0", lambda: None, native=True) as exporter:
        assert _get(exporter)[::2] == (200, b"")
        assert _get(exporter, Accept="application/openmetrics-text")[::2] == (200, b"# EOF\n")
        assert _get(exporter, Accept=PROTOBUF)[::2] == (200, b"")


def test_a_fault_is_told_and_forgotten_when_it_is_over() -> None:
    """The scraper gets 500 and the reason, `failure` has it, and the next scrape is as if nothing had been."""
    faults = [ValueError("no board")]

    def take() -> Observation:
        if faults:
            raise faults.pop()
        return _view()

    with Exporter(":0", take) as exporter:
        assert _get(exporter)[::2] == (500, b"loadtrt: ValueError: no board\n")
        assert (exporter.failure, exporter.scrapes) == ("ValueError: no board", 0)
        assert _get(exporter)[0] == 200
        assert (exporter.failure, exporter.scrapes) == ("", 1)


def test_a_client_that_leaves_is_no_fault(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is said on stderr, which is the terminal that is drawn on, and the next client is served."""
    with Exporter(":0", _view) as exporter:
        port = int(exporter.url.split(":")[-1].split("/", maxsplit=1)[0])
        for request in (b"", b"GET", b"GET /metrics HTTP/1.0\r\n\r\n", b"\x16\x03\x01 nonsense\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # end by a reset
                client.sendall(request)
        assert _get(exporter)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_prometheus_ends_with_the_runs_counts(tmp_path: Path) -> None:
    """After a scrape, sums over lanes, histograms, quantiles of the window and information are the board's."""
    requests = [*some_requests(), (0, FAILED, 1), (1, UNSERVED, 10**10), (0, UNSERVED, 10**10)]
    board, recorder = recorded(requests)
    with (
        Exporter(":0", lambda: view(board)) as exporter,
        running_prometheus(tmp_path, [exporter.url.split("/")[2]], every="100ms") as prometheus,
    ):
        prometheus.wait_for("sum(loadtrt_submitted_total)")
        found = prometheus.query("sum by (outcome) (loadtrt_requests_total)")
        outcomes = {labels["outcome"]: value for labels, value in found}
        assert outcomes == {"ok": 1000, "failed": 1, "unserved": 2, "dropped": 0}
        for metric in METRICS:
            assert prometheus.value(f"loadtrt_{metric.name}_seconds_count") == recorder.histograms[metric.name].count
        exact = float(np.quantile([time for *_, time in some_requests()], 0.99, method="inverted_cdf"))
        shown = prometheus.value('loadtrt_latency_window_seconds{quantile="0.99"}')
        assert shown * SECOND_NS == pytest.approx(exact, rel=1 / 256)
        assert prometheus.value("loadtrt_objective_bound_seconds") * SECOND_NS == BOUND_NS
        ((labels, value),) = prometheus.query("loadtrt_run_info")
        assert value == 1
        wanted = {"model": FACTS.model, "run": FACTS.run, "precision": "FP16", "cuda_graph": "yes"}
        assert labels.items() >= wanted.items()
        names = set(prometheus.ask("label/__name__/values"))
        for family in set(FAMILIES) - set(OF_FLEETS):
            own = f"{family.name}_bucket" if family.kind == "histogram" else family.name
            assert own in names
        assert exporter.scrapes


def test_native_histograms_are_nearly_exact(tmp_path: Path) -> None:
    """A real Prometheus takes them, and its quantiles of narrow latencies are within 1.1 %, where the classic buckets
    are 10 % off and more."""
    times = np.random.default_rng(2).normal(4.15e6, 0.03e6, 20_000).astype(np.int64)
    board, _ = recorded([(0, 0, int(time)) for time in times])
    port = free_port()
    with (
        Exporter(f":{port}", lambda: view(board), native=True),
        running_prometheus(tmp_path, [f"127.0.0.1:{port}"], every="100ms", native=True) as prometheus,
    ):
        assert prometheus.wait_for("histogram_count(loadtrt_latency_seconds)") == len(times)
        assert prometheus.value("histogram_sum(loadtrt_latency_seconds)") == pytest.approx(times.sum() / SECOND_NS)
        assert prometheus.value("histogram_count(loadtrt_queue_seconds)") == len(times)  # all of them 0 ns
        for rank in (0.5, 0.9, 0.99):
            exact = float(np.quantile(times, rank)) / SECOND_NS
            shown = prometheus.value(f"histogram_quantile({rank}, loadtrt_latency_seconds)")
            assert shown == pytest.approx(exact, rel=0.011)
        assert prometheus.value("sum(loadtrt_requests_total)") == len(times)
        assert prometheus.value('loadtrt_latency_window_seconds{quantile="1.0"}') > 0
        assert prometheus.value('loadtrt_load_ratio_bucket{le="+Inf"}') == len(times)
