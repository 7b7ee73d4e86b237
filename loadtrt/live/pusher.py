"""Pushes a run's metrics, from the observer process: to a Pushgateway, by remote write, and by OTLP."""

from __future__ import annotations

import gzip
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prometheus_client import push_to_gateway

from loadtrt.asked.push_urls import parse_push, push_headers
from loadtrt.errors import UsageError
from loadtrt.live.exporter import Collected
from loadtrt.live.metrics import together
from loadtrt.live.observer import PUSH_S
from loadtrt.live.protobuf import snappy, to_write_request
from loadtrt.printing import printable, shortened
from loadtrt.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.push_urls import PushUrl
    from loadtrt.live.metrics import Observation

EACH_S = 5.0  # between pushes while a run goes on, to places that keep a history
MOST_KEPT = 64  # runs of a sweep or a search that a Pushgateway gets together
_JOB = "loadtrt"
_NS_PER_MS = 1_000_000
_TIMEOUT_S = PUSH_S / 2  # for all of a push; a run that ends may have to wait for one that is under way
_REST_S = 60.0  # in which a place that did not answer at the end of a run is not waited for by the runs that follow
_MOST_SAID = 80
_LATE = "no answer"


@dataclass(slots=True)
class _Tries:
    """What became of the pushes to one place.

    why: of the last that failed.
    rests_until: time.monotonic() before which no end of a run is pushed.
    """

    made: int = 0
    failed: int = 0
    why: str = ""
    rests_until: float = 0.0


class Pusher:
    """Pushes to all places of --push. No failure ends a run."""

    def __init__(self, urls: Sequence[str]) -> None:
        """Import what is needed. Raises UsageError where that is not installed."""
        self._places = [parse_push(url) for url in urls]
        self._headers = push_headers()
        self._tries = [_Tries() for _ in urls]
        self._ended: list[Observation] = []
        if any(place.kind == "otlp" for place in self._places):
            try:
                import loadtrt.live.otlp  # noqa: F401
            except ImportError:
                raise UsageError(
                    "pushing by OTLP needs the package opentelemetry-proto: pip install 'loadtrt[otlp]'"
                ) from None

    @property
    def continues(self) -> bool:
        """Whether any place keeps a history, and so gets metrics while a run goes on."""
        return any(place.kind != "pushgateway" for place in self._places)

    def push(self, seen: Observation) -> None:
        """While the run goes on: to the places that keep a history."""
        for place, tries in zip(self._places, self._tries, strict=True):
            if place.kind != "pushgateway":
                self._try(place, tries, [seen])

    def finish(self, seen: Observation, *, push: bool) -> list[str]:
        """The run is over. A Pushgateway keeps what it got last: it gets all runs of a sweep together. push: whether
        there is time to. Returns a sentence for each place that did not get all."""
        self._ended = [*self._ended[1 - MOST_KEPT :], seen]
        sentences = []
        for place, tries in zip(self._places, self._tries, strict=True) if push else ():
            if time.monotonic() < tries.rests_until:
                tries.made, tries.failed = tries.made + 1, tries.failed + 1
            elif not self._try(place, tries, self._ended if place.kind == "pushgateway" else [seen]):
                tries.rests_until = time.monotonic() + _REST_S
            if tries.failed:
                some = "metrics were not pushed" if tries.failed == tries.made else (
                    f"{tries.failed} of {plural(tries.made, 'push')} failed"
                )  # fmt: skip
                sentences.append(f"{some} to {shortened(place.url)}: {tries.why}; the result has all")
            tries.made = tries.failed = 0
        return sentences

    def _try(self, place: PushUrl, tries: _Tries, seen: Sequence[Observation]) -> bool:
        """Push, and wait no longer than _TIMEOUT_S in all: the timeout of a socket is for each of its operations.
        Returns whether there was an answer, or a failure."""
        answers: SimpleQueue[str] = SimpleQueue()
        Thread(target=lambda: answers.put(self._push(place, seen)), daemon=True).start()
        tries.made += 1
        try:
            why = answers.get(timeout=_TIMEOUT_S)
        except Empty:
            why = _LATE
        if why:  # told at the end: scrapes and the drawing go on
            tries.failed += 1
            tries.why = f"no answer within {_TIMEOUT_S:g} s" if why == _LATE else why
        return why != _LATE

    def _push(self, place: PushUrl, seen: Sequence[Observation]) -> str:
        """Why a push failed; "" for one that did not."""
        try:
            _PUSHES[place.kind](place.url, seen, self._headers)
        except Exception as error:
            try:
                return _why(error, place.url)
            except OSError:  # the answer that says why breaks off
                return printable(str(error), _MOST_SAID)
        return ""


def _to_pushgateway(url: str, seen: Sequence[Observation], own: dict[str, str]) -> None:
    """As the group of job="loadtrt" and the user's labels, in place of what that group had."""

    def handler(
        url: str, method: str, timeout: float | None, headers: Sequence[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        return lambda: _send(url, data, {**dict(headers), **own}, method, timeout or _TIMEOUT_S)

    push_to_gateway(url, _JOB, Collected(together(seen)), dict(seen[-1].facts.labels), _TIMEOUT_S, handler)


def _by_remote_write(url: str, seen: Sequence[Observation], headers: dict[str, str]) -> None:
    for one in seen:
        labels = {"job": _JOB, "instance": one.facts.host or socket.gethostname(), **one.facts.labels}
        body = snappy(to_write_request(together([one]), labels, one.now_ns // _NS_PER_MS))
        kind = {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        _send(url, body, {**kind, **headers})


def _by_otlp(url: str, seen: Sequence[Observation], headers: dict[str, str]) -> None:
    from loadtrt.live.otlp import to_export_request

    kind = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
    for one in seen:
        _send(url, gzip.compress(to_export_request(one), 1), {**kind, **headers})


_PUSHES = {"pushgateway": _to_pushgateway, "remote-write": _by_remote_write, "otlp": _by_otlp}


class _Direct(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would send the headers, which may be secret, to another host, and no metrics."""

    def redirect_request(self, *_: object) -> None:
        """Leave the answer to be raised as HTTPError."""


_OPENER = urllib.request.build_opener(_Direct)


def _send(url: str, body: bytes, headers: dict[str, str], method: str = "POST", timeout_s: float = _TIMEOUT_S) -> None:
    request = urllib.request.Request(url, body, {"User-Agent": _JOB, **headers}, method=method)  # noqa: S310  # http(s) alone
    _OPENER.open(request, timeout=timeout_s).close()


def _why(error: Exception, url: str) -> str:
    """What went wrong, in words."""
    match error:
        case urllib.error.HTTPError(code=code, headers=headers) if 300 <= code < 400:
            error.close()
            return f"it answered {code} and points to {printable(headers.get('Location', 'nowhere'), _MOST_SAID)}"
        case urllib.error.HTTPError():
            with error:
                said = error.read(400).decode(errors="replace").strip().partition("\n")[0]
            return f"it answered {error.code} {printable(said or str(error.reason), _MOST_SAID)}"
        case urllib.error.URLError(reason=ConnectionRefusedError()):
            return f"nothing listens at {urlsplit(url).netloc}"
        case urllib.error.URLError(reason=ssl.SSLCertVerificationError(verify_message=words)):
            return f"its certificate is not trusted: {printable(words, _MOST_SAID)} ($SSL_CERT_FILE names others)"
        case UnicodeError() | urllib.error.URLError(reason=socket.gaierror()):
            return f"there is no host {urlsplit(url).hostname}"
        case TimeoutError() | urllib.error.URLError(reason=TimeoutError()):
            return _LATE
        case urllib.error.URLError(reason=OSError(strerror=str(words))):
            return printable(words.lower(), _MOST_SAID)
    return printable(str(error), _MOST_SAID) or type(error).__name__
