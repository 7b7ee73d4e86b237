"""`loadtrt watch`: the live view of a run on another machine, from its metrics."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from loadtrt.live.run_facts import RunFacts
    from loadtrt.live.telemetry import GpuReading
    from loadtrt.live.terminal import Terminal
    from loadtrt.records.board import Snapshot

    # What a page said, and its host's Unix clock when it was made, ns; None where it said nothing yet.
    Found: TypeAlias = tuple[Snapshot, RunFacts, GpuReading | None, int] | None

PATIENCE_NS = 30 * SECOND_NS  # without an answer
_LEAST_EVERY_NS = 100 * MILLISECOND_NS
_TIMEOUT_S = 5.0
_MOST_BYTES = 64 << 20
_CLOCKS_APART_NS = 2 * SECOND_NS  # the Date of an answer has no fractions of a second


class UnansweredError(UsageError):
    """Metrics that could not be had, for a reason in a few words."""

    def __init__(self, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@click.command("watch", short_help="Show a run on another machine.")
@click.argument("url")
@click.option("--every", metavar="TIME", default="1s", help="Between two looks.  [default: 1s]")
def command(url: str, every: str) -> int:
    """Show the run that serves its metrics at URL, as `loadtrt run --metrics` does, until it is over.

    \b
    loadtrt watch gpu-host:9400
    loadtrt watch http://gpu-host:9400/metrics --every 5s

    Percentiles of the last second are exact. Those of the run so far come from wide buckets, and are marked ≈.
    """
    every_ns = parse_duration(every)
    if every_ns < _LEAST_EVERY_NS:
        raise UsageError(f"--every {every} is too often: look ten times a second at most, such as --every 1s")
    source = Source(parse_url(url))
    from loadtrt.live.terminal import Terminal

    return watch(source.look, Terminal(sys.stdout, line_every_ns=every_ns // 2), every_ns)


def parse_url(text: str) -> str:
    """The address of the metrics at "host:9400", ":9400", "http://host:9400" or "http://host:9400/metrics".

    Raises UsageError.
    """
    whole = text.strip()
    if "://" not in whole:
        whole = f"http://127.0.0.1{whole}" if whole.startswith(":") else f"http://{whole}"
    try:
        parts = urlsplit(whole)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"'{text}' is no address of metrics: {error}") from None
    if parts.scheme not in ("http", "https") or not host or not whole.isprintable() or " " in whole:
        raise UsageError(f"'{text}' is no address of metrics: write host:port, such as gpu-host:9400")
    if port is None and "://" not in text:
        raise UsageError(f"'{text}' has no port: write {text}:9400, or what the run's --metrics says")
    path = parts.path if parts.path.strip("/") else "/metrics"
    return parts._replace(path=path, fragment="").geturl()


class Source:
    """Metrics at an address. The clocks of the two machines may differ: instants are on that of the run's."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ahead_ns: int | None = None  # the other clock, as far as is known

    def look(self) -> Found:
        """What the run says now. Raises UnansweredError when nothing answers, or something that is no run."""
        from prometheus_client.parser import text_string_to_metric_families

        from loadtrt.live.scrape import snapshot_of

        text, date_ns = _fetch(self._url)
        now_ns = time.time_ns()
        if self._ahead_ns is None:
            ahead_ns = 0 if date_ns is None else date_ns + SECOND_NS // 2 - now_ns
            self._ahead_ns = ahead_ns if abs(ahead_ns) > _CLOCKS_APART_NS else 0
        now_ns += self._ahead_ns
        try:
            families = list(text_string_to_metric_families(text))
        except (ValueError, LookupError):
            sentence = f"{self._url} answers, but not with metrics: is that the address of a run?"
            raise UnansweredError(sentence, "it answers something else") from None
        try:
            found = snapshot_of(families, now_ns)
        except UsageError as error:
            raise UnansweredError(f"{self._url}: {error}", "it answers something else") from None
        return None if found is None else (*found, now_ns)


def watch(
    look: Callable[[], Found],
    terminal: Terminal,
    every_ns: int,
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Look and show until the run is over, and its metrics gone. Returns the exit code.

    look: as Source's. clock, ns, and sleep, s: of this machine. Raises the first look's error; later ones are shown, as
    long as PATIENCE_NS, and LoadtrtError after that.
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
        terminal.close()


class _Shown:
    """What was seen of the run until now, and shown."""

    def __init__(self, terminal: Terminal, clock: Callable[[], int]) -> None:
        from loadtrt.live.view import View, Viewer

        self._terminal = terminal
        self._clock = clock
        self._viewer = Viewer(coarse=True)
        self._view: View | None = None
        self._waits = False
        self._heard_ns = clock()

    @property
    def anything(self) -> bool:
        """Whether there was something to see yet."""
        return self._view is not None

    def take(self, found: Found) -> None:
        """Show what was found."""
        from loadtrt.live.view import Viewer

        self._heard_ns = self._clock()
        if found is None:
            if not self._waits:
                self._waits = True
                self._terminal.say("nothing to see yet: the engine is being loaded")
            return
        snapshot, facts, gpu, now_ns = found
        if self._view is not None and self._view.facts.run != facts.run:
            self._terminal.say(f"a new run: {facts.run}")
            self._viewer = Viewer(coarse=True)
        self._view = self._viewer.take(snapshot, facts, gpu, now_ns)
        self._terminal.show(self._view)

    def is_over(self, error: UnansweredError) -> bool:
        """Nothing was found. Whether that is as it should be; where it may pass, it is shown."""
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
        # Its end may lie between two looks: metrics linger for some seconds only.
        if view is not None and (view.phase == "drain" or (view.left_ns is not None and view.left_ns <= silent_ns)):
            self._terminal.close()
            self._terminal.say(f"{view.facts.run} is over, and was last seen so: {status_line(view)}")
            return True
        if silent_ns > PATIENCE_NS:
            raise LoadtrtError(f"the run is lost: no answer for {format_duration(silent_ns)} ({error.reason})")
        if view is not None:
            lost = Alert(f"no answer for {format_duration(silent_ns)} ({error.reason})", "Ctrl-C ends watching")
            now_ns = view.now_ns + silent_ns
            self._terminal.show(replace(view, now_ns=now_ns, alerts=(lost, *view.alerts)))
        return False


def _fetch(url: str) -> tuple[str, int | None]:
    """(the page, the instant when its server sent it, ns of Unix time, if it tells). Raises UnansweredError."""
    from email.utils import parsedate_to_datetime
    from http.client import HTTPException, HTTPResponse
    from urllib.error import HTTPError, URLError
    from urllib.request import ProxyHandler, Request, build_opener

    # Asked for without a proxy: an HTTP_PROXY that is set for the internet knows no hosts of a laboratory.
    request = Request(url, headers={"Accept": "text/plain;version=0.0.4"})  # noqa: S310  # http(s), by parse_url
    deadline = time.monotonic() + _TIMEOUT_S
    body = bytearray()
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=_TIMEOUT_S) as response:
            assert isinstance(response, HTTPResponse)  # noqa: S101  # of http(s)
            date = response.headers.get("Date", "")
            while part := response.read1(1 << 16):
                body += part
                if len(body) > _MOST_BYTES or time.monotonic() > deadline:
                    raise UnansweredError(f"{url} sends more than a run's metrics, or too slowly", "it sends too much")
    except HTTPError as error:
        error.close()
        reason = f"{error.code} {error.reason}".strip()
        raise UnansweredError(
            f"{url} answers {reason}: a run's metrics are at /metrics", f"it answers {reason}"
        ) from None
    except (OSError, HTTPException) as error:
        reason = _why(error.reason if isinstance(error, URLError) else error)
        raise UnansweredError(
            f"no run answers at {url} ({reason}): start it with --metrics, as 0.0.0.0:PORT for other machines",
            reason,
        ) from None
    try:
        sent_ns = round(parsedate_to_datetime(date).timestamp()) * SECOND_NS if date else None
    except (ValueError, OverflowError):
        sent_ns = None
    return body.decode("utf-8", "replace"), sent_ns


def _why(reason: object) -> str:
    match reason:
        case TimeoutError():
            return "it takes too long"
        case ConnectionRefusedError():
            return "nothing listens there"
        case OSError() if reason.strerror:
            return reason.strerror
    return str(reason) or type(reason).__name__
