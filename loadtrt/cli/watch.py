"""`loadtrt watch`: the live view of a run on another machine, read from the run's exporter."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from loadtrt.asked.fields import read_option
from loadtrt.cli.voice import restore
from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.printing import shortened
from loadtrt.signals import SIGNALS
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtrt.live.terminal import Terminal
    from loadtrt.live.view import View

PATIENCE_NS = 30 * SECOND_NS  # without an answer
_LEAST_EVERY_NS = 100 * MILLISECOND_NS
_TIMEOUT_S = 5.0
_MOST_BYTES = 4 << 20  # which takes a second to read


class UnansweredError(UsageError):
    """A live view that could not be read. reason: why, in a few words."""

    def __init__(self, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@click.command("watch", short_help="Show a run on another machine.")
@click.argument("url")
@click.option("--every", metavar="TIME", default="1s", help="Time between two updates.  [default: 1s]")
def command(url: str, every: str) -> int:
    """Show the live view of a run on another machine until the run is over.

    URL is where the run serves its metrics, with `loadtrt run --metrics`.

    \b
    loadtrt watch gpu-host:18410
    loadtrt watch http://gpu-host:18410/metrics --every 5s

    Both machines need the same version of loadtrt.
    """
    every_ns = read_option("--every", every, parse_duration)
    if every_ns < _LEAST_EVERY_NS:
        raise UsageError(f"--every {every} is below 100 ms; write for example --every 1s")
    address = parse_url(url)
    from loadtrt.live.terminal import Terminal

    terminal = Terminal(sys.stdout, line_every_ns=every_ns // 2)
    if terminal.draws:
        SIGNALS.last_acts.append(partial(restore, sys.stdout))
    return watch(lambda: read_view(address), terminal, every_ns)


def parse_url(text: str) -> str:
    """The address of the live view of "host:18410", ":18410", "http://host:18410" or "http://host:18410/metrics".

    Raises UsageError.
    """
    whole = text.strip()
    if "://" not in whole:
        whole = f"http://127.0.0.1{whole}" if whole.startswith(":") else f"http://{whole}"
    try:
        parts = urlsplit(whole)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"'{text}' is not the address of a run: {error}") from None
    if (
        parts.scheme not in ("http", "https")
        or not host
        or not whole.isprintable()
        or " " in whole
        or not _is_host(host)
    ):
        raise UsageError(f"'{text}' is not the address of a run: write host:port, such as gpu-host:18410")
    if port is None and "://" not in text:
        raise UsageError(f"'{text}' has no port: write {text}:PORT, with the port of the run's --metrics")
    path = parts.path.rstrip("/").removesuffix("/metrics").removesuffix("/view")
    return parts._replace(path=f"{path}/view", fragment="").geturl()


def _is_host(name: str) -> bool:
    """Whether DNS can ask for a name."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def read_view(url: str) -> View | None:
    """The live view at an address; None while the run's engine is loaded. Raises UnansweredError."""
    from loadtrt.live.view_json import from_json

    body = _fetch(url)
    try:
        return from_json(body)
    except UsageError as error:
        raise UnansweredError(f"{url}: {error}", "something else answers") from None


def watch(
    look: Callable[[], View | None],
    terminal: Terminal,
    every_ns: int,
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Show the views of a run until it is over and its exporter gone. Returns the exit code.

    look: reads the view.
    terminal: where views are shown.
    every_ns: time between two looks.
    clock, sleep: of this machine, in ns and s.

    Raises the error of the first look. Later errors are shown, and after PATIENCE_NS of them LoadtrtError is raised.
    """
    shown = _Shown(terminal, clock)
    try:
        while True:
            began = clock()
            try:
                shown.take(look())
            except UnansweredError as error:
                if shown.is_over(error):
                    return 0
            if terminal.gone:
                raise BrokenPipeError
            sleep(max(began + every_ns - clock(), 0) / SECOND_NS)
    except KeyboardInterrupt:
        if not shown.anything:
            raise
        return 0
    finally:
        with SIGNALS.deferred():
            terminal.close()


class _Shown:
    """The views of a run that were shown."""

    def __init__(self, terminal: Terminal, clock: Callable[[], int]) -> None:
        self._terminal = terminal
        self._clock = clock
        self._view: View | None = None
        self._waits = False
        self._heard_ns = clock()

    @property
    def anything(self) -> bool:
        return self._view is not None

    def take(self, view: View | None) -> None:
        """Show a view; None: the engine is loaded."""
        self._heard_ns = self._clock()
        if view is None:
            if not self._waits:
                self._waits = True
                self._terminal.say("waiting: the engine is being loaded")
            return
        if self._view is not None and self._view.facts.run != view.facts.run:
            self._terminal.say(f"a new run: {view.facts.run}")
        self._view = view
        self._terminal.show(view)

    def is_over(self, error: UnansweredError) -> bool:
        """After an error: whether the run is over. An error that may be temporary is shown."""
        from dataclasses import replace

        from loadtrt.live.alerts import Alert
        from loadtrt.live.frame import status_line

        view, silent_ns = self._view, self._clock() - self._heard_ns
        if view is None and not self._waits:
            raise error
        if view is not None and view.phase == "done":
            self._terminal.close()
            self._terminal.say(f"{view.facts.run} is over: {status_line(view).removeprefix('done ')}")
            return True
        # The end may come between two looks: the exporter lingers for some seconds only.
        if view is not None and (view.phase == "drain" or (view.left_ns is not None and view.left_ns <= silent_ns)):
            self._terminal.close()
            self._terminal.say(f"{view.facts.run} is over, and was last seen so: {status_line(view)}")
            return True
        if silent_ns > PATIENCE_NS:
            raise LoadtrtError(f"the run is lost: no answer for {format_duration(silent_ns)} ({error.reason})")
        if view is not None:
            lost = Alert(
                "unanswered", f"no answer for {format_duration(silent_ns)} ({error.reason})", "Ctrl-C ends watching"
            )
            now_ns = view.now_ns + silent_ns
            self._terminal.show(replace(view, now_ns=now_ns, alerts=(lost, *view.alerts)))
        return False


def _fetch(url: str) -> bytes:
    """The body of an answer. Raises UnansweredError, after _TIMEOUT_S at the latest: a socket's own timeout begins anew
    with every byte, so that a thread waits for a host that trickles."""
    answers: SimpleQueue[bytes | Exception] = SimpleQueue()

    def fetch() -> None:
        try:
            answers.put(_body(url))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=fetch, name="loadtrt-watch", daemon=True).start()
    try:
        answer = answers.get(timeout=_TIMEOUT_S)
    except Empty:
        raise _no_run(url, "timed out") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _no_run(url: str, reason: str) -> UnansweredError:
    return UnansweredError(
        f"no run answers at {url} ({reason}): start the run with --metrics, 0.0.0.0:PORT for other machines", reason
    )


def _body(url: str) -> bytes:
    from http.client import HTTPException, HTTPResponse
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

    class Nowhere(HTTPRedirectHandler):
        """A run answers itself: another address is that of something else."""

        def http_error_302(self, *_: Any, **__: Any) -> None:
            return None

        http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    # Without a proxy: an HTTP_PROXY for the internet does not know hosts of the local network.
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310  # http(s), by parse_url
    body = bytearray()
    try:
        with build_opener(ProxyHandler({}), Nowhere).open(request, timeout=_TIMEOUT_S) as response:
            assert isinstance(response, HTTPResponse)  # noqa: S101  # of http(s)
            while part := response.read1(1 << 16):
                body += part
                if len(body) > _MOST_BYTES:
                    raise UnansweredError(f"{url} sends more than a live view", "the answer is too long")
    except HTTPError as error:
        error.close()
        reason = shortened(f"{error.code} {error.reason}".strip(), 60)
        sentence = f"{url} answers {reason}: it is not a run of this version of loadtrt"
        raise UnansweredError(sentence, f"it answers {reason}") from None
    except (OSError, HTTPException, ValueError) as error:  # ValueError: UnicodeError of a path or a host
        raise _no_run(url, _why(error.reason if isinstance(error, URLError) else error)) from None
    return bytes(body)


def _why(reason: object) -> str:
    match reason:
        case TimeoutError():
            return "timed out"
        case ConnectionRefusedError():
            return "connection refused"
        case OSError() if reason.strerror:
            return reason.strerror
    return shortened(str(reason), 60) or type(reason).__name__
