"""Serves a run by HTTP, from threads of the observer process: /metrics to Prometheus, /view to `loadtrt watch`.

prometheus_client writes the text formats, live/protobuf.py Prometheus' protobuf.
"""

from __future__ import annotations

import errno
import gzip
import socket
import socketserver
import sys
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Self
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client.exposition import ThreadingWSGIServer, choose_encoder

from loadtrt.errors import UsageError, shortage_of
from loadtrt.live.metrics import together
from loadtrt.live.protobuf import to_protobuf
from loadtrt.live.view_json import to_json
from loadtrt.units import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client import Metric

    from loadtrt.live.metrics import Observation
    from loadtrt.live.view import View

TEXT = "text/plain; version=0.0.4; charset=utf-8"
JSON = "application/json"
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
_PLACES = "the metrics are at /metrics, the live view for loadtrt watch at /view\n"
# Who usually has a port, for where it is taken. 18410 is that of our examples: exporters have 9100 to 9999, and it is
# neither in Prometheus' wiki (Default port allocations, a copy of June 2020, read on 2026-11-30), nor in nmap's list of
# services, nor among the ports that Linux and Kubernetes give out.
_USUAL = {
    3000: "Grafana",
    4317: "an OpenTelemetry collector",
    4318: "an OpenTelemetry collector",
    8000: "a Triton server's HTTP",
    8001: "a Triton server's gRPC",
    8002: "a Triton server's metrics",
    8080: "cAdvisor",
    8888: "Jupyter",
    9090: "Prometheus",
    9091: "Pushgateway",
    9093: "Alertmanager",
    9100: "node_exporter",
    9400: "dcgm-exporter",
    9835: "nvidia_gpu_exporter",
    18410: "another run of loadtrt",
}

_LOOK_S = 0.1  # between looks at whether to close
REQUEST_S = 10.0  # for a whole request: a client that trickles must not hold a thread for ever
MOST_CLIENTS = 32  # at once


class Exporter:
    """A server of /metrics and /view, which serves from its construction on. Close it, or use it in a `with`.

    url: the address of the metrics.
    scrapes: how many scrapes were answered whole.
    failure: what went wrong at the last one, "" for nothing; the scraper gets it with the status 500.
    """

    def __init__(
        self,
        address: str,
        observe: Callable[[], Observation | None],
        *,
        native: bool = False,
        view: Callable[[], View | None] = lambda: None,
        before: Callable[[], Iterable[Observation]] = tuple,
    ) -> None:
        """Listen at an address. Raises UsageError where that is not possible.

        address: as for `parse_address`.
        observe: called at each scrape; None while nothing is known of the run.
        native: answer in Prometheus' protobuf where it is asked for, with native histograms besides the classic ones. A
            Prometheus that has them enabled keeps only these, unless told otherwise, so that they are not the default.
        view: called for each /view; None while nothing is known of the run.
        before: runs that have ended and are still shown, called at each scrape.
        """
        host, port = parse_address(address)
        self._observe = observe
        self._view = view
        self._before = before
        self._native = native
        self.scrapes = 0
        self.failure = ""
        self._server = _listen(host, port, self._answer)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}/metrics"
        Thread(target=self._server.serve_forever, args=(_LOOK_S,), name="loadtrt-exporter", daemon=True).start()

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, request: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """The WSGI application."""
        path, gzips = request["PATH_INFO"], "gzip" in request.get("HTTP_ACCEPT_ENCODING", "")
        status, headers, body = "200 OK", [("Content-Type", TEXT)], f"loadtrt: {_PLACES}".encode()
        if request["REQUEST_METHOD"] != "GET":
            status, headers, body = (
                "405 Method Not Allowed",
                [*headers, ("Allow", "GET")],
                b"loadtrt: only GET\n",
            )
        elif path in ("/metrics", "/view"):
            try:
                if path == "/metrics":
                    kind, body = self._metrics(request.get("HTTP_ACCEPT", ""))
                else:
                    kind, body = JSON, to_json(self._view())
            except Exception as error:  # reported to the scraper, and as `failure`
                self.failure = f"{type(error).__name__}: {error}"
                status, body = "500 Internal Server Error", f"loadtrt: {self.failure}\n".encode()
            else:
                self.failure = ""
                self.scrapes += path == "/metrics"
                headers = [("Content-Type", kind)]
                if gzips:
                    body = gzip.compress(body, 1)  # a tenth of the default's time, 1.5 times its size
                    headers.append(("Content-Encoding", "gzip"))
        elif path != "/":
            status, body = "404 Not Found", f"loadtrt: there is no {path!a} here; {_PLACES}".encode()
        start(status, headers)
        return [body]

    def _metrics(self, accept: str) -> tuple[str, bytes]:
        """(content type, body)."""
        seen = self._observe()
        protobuf = self._native and "application/vnd.google.protobuf" in accept
        metrics = together([*self._before(), *([] if seen is None else [seen])], native=protobuf)
        if protobuf:
            return PROTOBUF, to_protobuf(metrics)
        encode, kind = choose_encoder(accept)
        return kind, encode(Collected(metrics))


class Collected:
    """Metrics as a collector of prometheus_client, which its writers take."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class _Server(ThreadingWSGIServer):
    """Gives each client a thread, no more than MOST_CLIENTS at once, and hangs up on those that take too long."""

    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._deadlines: dict[Any, float] = {}  # by the connections that are open
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._deadlines) >= MOST_CLIENTS:
            self.shutdown_request(request)
            return
        self._deadlines[request] = monotonic() + REQUEST_S
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called between requests and every _LOOK_S. A socket's own timeout begins anew with every byte."""
        now = monotonic()
        for request, deadline in list(self._deadlines.items()):
            if now > deadline:
                with suppress(OSError):  # it has ended just now
                    request.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        """Bind without looking the host's full name up, which takes seconds where DNS does not answer."""
        socketserver.TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that go away, and those that there is neither a file nor a thread for."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError) and shortage_of(error) is None:
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name it has there
        """Log nothing: the observer's stderr is the terminal that is drawn on."""


def _listen(host: str, port: int, application: Callable[..., Iterable[bytes]]) -> _Server:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = _Server6 if family == socket.AF_INET6 else _Server
        return make_server(str(address[0]), port, application, server, _Handler)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot exist, such as a..b
        where = f"metrics cannot be served at {host}:{port}"
        match error:
            case socket.gaierror() | UnicodeError():
                raise UsageError(f"{where}: there is no host {host}; leave it out to serve only this machine") from None
            case OSError(errno=errno.EADDRINUSE):
                usual = f", usually by {_USUAL[port]}" if port in _USUAL else ""
                other = "" if port == 18410 else ", such as :18410"
                raise UsageError(
                    f"{where}: the port is in use{usual}; take another{other}, or :0 for any free one"
                ) from None
            case OSError(errno=errno.EACCES):
                raise UsageError(f"{where}: this user may not use the port; take one above 1023") from None
            case OSError(errno=errno.EADDRNOTAVAIL):
                raise UsageError(
                    f"{where}: this machine has no such address; 0.0.0.0 means all of its addresses"
                ) from None
        raise UsageError(f"{where}: {error}") from None
