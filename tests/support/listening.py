"""Servers that metrics are pushed to: one that keeps what it gets, and some that do not answer, or never end it."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextmanager
def listening(
    status: int = 200, said: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A server that answers so; gives its "http://127.0.0.1:PORT", and (method and path, headers, body) of requests."""
    got: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            got.append((f"{self.command} {self.path}", dict(self.headers), body))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(said)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        do_PUT = do_GET = do_POST  # noqa: N815  # the name it has there

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing on stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def trickling() -> Iterator[str]:
    """A server that begins an answer and sends a header now and then."""
    over = Event()

    def answer(server: socket.socket) -> None:
        while not over.is_set():
            with suppress(OSError):
                taken, _ = server.accept()
                Thread(target=trickle, args=(taken,), daemon=True).start()

    def trickle(taken: socket.socket) -> None:
        with taken, suppress(OSError):
            taken.sendall(b"HTTP/1.1 200 OK\r\n")
            while not over.wait(0.05):
                taken.sendall(b"X-More: yes\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=answer, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        over.set()
