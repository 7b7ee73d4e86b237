"""Serves a run's metrics by HTTP to Prometheus, from threads of the observer process."""

from __future__ import annotations

import errno
import gzip
import socket
import socketserver
import sys
from threading import Thread
from typing import TYPE_CHECKING, Any, Self
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client.exposition import ThreadingWSGIServer

from loadtrt.errors import UsageError
from loadtrt.live.exposition import OPENMETRICS, PROTOBUF, TEXT, to_protobuf, to_text
from loadtrt.live.metrics import families
from loadtrt.units import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client import Metric

    from loadtrt.live.metrics import View

_LOOK_S = 0.1  # between looks at whether to close
_SECONDS = 10.0  # for one request, so that a client that stalls holds no thread for ever


class Exporter:
    """A server of /metrics. Where an Exporter exists, it serves; close it, or use it in a `with`.

    take: what there is now, asked at each scrape; None while nothing is known of the run. native: answer Prometheus'
    protobuf where asked for, with native histograms beside the classic ones; a Prometheus that has them on and gets
    them keeps only these, unless it is told to keep both, so they are for those who ask.

    url: where the metrics are. scrapes: how many were answered whole. failure: what went wrong at the last one, "" for
    nothing; the scraper gets it as the status 500.
    """

    def __init__(self, address: str, take: Callable[[], View | None], native: bool = False) -> None:
        """Listen at `address` (see `parse_address`). Raises UsageError where that cannot be."""
        host, port = parse_address(address)
        self._take = take
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
        status, headers, body = "200 OK", [("Content-Type", TEXT)], b""
        match request["REQUEST_METHOD"], request["PATH_INFO"]:
            case "GET", "/metrics":
                try:
                    kind, body = self._metrics(request.get("HTTP_ACCEPT", ""))
                except Exception as error:  # told to the scraper, and to who asks for `failure`
                    self.failure = f"{type(error).__name__}: {error}"
                    status, body = "500 Internal Server Error", f"loadtrt: {self.failure}\n".encode()
                else:
                    headers = [("Content-Type", kind)]
                    if "gzip" in request.get("HTTP_ACCEPT_ENCODING", ""):
                        body = gzip.compress(body, 1)  # a tenth of the time of the default, 1.5 times its size
                        headers.append(("Content-Encoding", "gzip"))
                    self.scrapes += 1
                    self.failure = ""
            case "GET", "/":
                body = b"loadtrt: the metrics are at /metrics\n"
            case "GET", _:
                status, body = "404 Not Found", b"loadtrt: there is nothing here; the metrics are at /metrics\n"
            case _:
                status, headers, body = "405 Method Not Allowed", [*headers, ("Allow", "GET")], b"loadtrt: GET alone\n"
        start(status, headers)
        return [body]

    def _metrics(self, accept: str) -> tuple[str, bytes]:
        """(content type, body). What can be written is offered in one order: clients that name several take any."""
        view = self._take()
        protobuf = self._native and "application/vnd.google.protobuf" in accept
        found: Iterable[Metric] = () if view is None else families(view, native=protobuf)
        if protobuf:
            return PROTOBUF, to_protobuf(found)
        openmetrics = "application/openmetrics-text" in accept
        return OPENMETRICS if openmetrics else TEXT, to_text(found, openmetrics)


class _Server(ThreadingWSGIServer):
    def server_bind(self) -> None:
        """Without the look-up of the host's full name, which takes seconds where DNS does not answer."""
        socketserver.TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name it has there
        """Nothing: the observer's stderr is the terminal that is drawn on."""


def _listen(host: str, port: int, application: Callable[..., Iterable[bytes]]) -> _Server:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        server = _Server6 if family == socket.AF_INET6 else _Server
        return make_server(str(address[0]), port, application, server, _Handler)
    except (OSError, UnicodeError) as error:  # UnicodeError: of a host that cannot be one, such as a..b
        where = f"metrics cannot be served at {host}:{port}"
        match error:
            case socket.gaierror() | UnicodeError():
                raise UsageError(f"{where}: there is no host {host}; leave it out for this machine alone") from None
            case OSError(errno=errno.EADDRINUSE):
                raise UsageError(f"{where}: the port is in use; take another, or :0 for any free one") from None
            case OSError(errno=errno.EACCES):
                raise UsageError(f"{where}: this user may not use the port; take one above 1023") from None
            case OSError(errno=errno.EADDRNOTAVAIL):
                raise UsageError(f"{where}: this machine has no such address; 0.0.0.0 is all that it has") from None
        raise UsageError(f"{where}: {error}") from None
