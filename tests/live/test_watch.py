"""`loadtrt watch`: addresses, answers and their absence, and how watching ends."""

from __future__ import annotations

import io
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import loadtrt
from live_snapshots import FACTS, GPU, snapshot
from loadtrt.cli.watch import PATIENCE_NS, UnansweredError, command, parse_url, read_view, watch
from loadtrt.errors import LoadtrtError, UsageError
from loadtrt.live.exporter import Exporter
from loadtrt.live.terminal import Terminal
from loadtrt.live.view import Viewer
from loadtrt.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtrt.live.view import View

URL = "http://gpu:18410/view"
MISSED = UnansweredError("no run answers at there", "connection refused")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("gpu:18410", URL),
        ("http://gpu:18410", URL),
        ("http://gpu:18410/", URL),
        ("http://gpu:18410/metrics", URL),
        (" gpu:18410 ", URL),
        ("gpu:18410/view", URL),
        (":18410", "http://127.0.0.1:18410/view"),
        ("[::1]:18410", "http://[::1]:18410/view"),
        ("https://gpu/loadtrt?run=1#top", "https://gpu/loadtrt/view?run=1"),
        ("https://gpu/loadtrt/metrics", "https://gpu/loadtrt/view"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    """host:port is enough, and the address that a run prints for its metrics is right, too."""
    assert parse_url(text) == url


@pytest.mark.parametrize(
    "text", ["", ":", "gpu", "http://", "ftp://gpu:1", "gpu:port", ":99999", "[::1", "g pu:1", "g\n:1"]
)
def test_what_is_no_address_is_one_sentence(text: str) -> None:
    """UsageError that quotes it and says how to write one."""
    with pytest.raises(UsageError) as caught:
        parse_url(text)
    assert f"'{text}'" in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    """Nothing else is raised, and what is returned is http or https."""
    with suppress(UsageError):
        assert parse_url(text).startswith(("http://", "https://"))


# ---- the loop, on a clock of its own


class Watched:
    """Given answers, a clock that sleeping moves, and what was written meanwhile."""

    def __init__(self, *looks: View | Exception | type[BaseException] | None) -> None:
        self._looks = iter(looks)
        self.now_ns = 0
        self.slept: list[float] = []
        self.stream = io.StringIO()

    def look(self) -> View | None:
        self.now_ns += SECOND_NS // 10  # an answer takes its time
        found = next(self._looks)
        if isinstance(found, (Exception, type)):
            raise found
        return found

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * SECOND_NS)

    def run(self) -> int:
        terminal = Terminal(self.stream, line_every_ns=SECOND_NS // 2)
        return watch(self.look, terminal, SECOND_NS, lambda: self.now_ns, self.sleep)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def _found(at_s: float, phase: str = "measure", run: str = FACTS.run) -> View:
    """The view at this time of a run that serves 1000 requests a second."""
    viewer, facts = Viewer(), replace(FACTS, run=run)
    for second in (0.0, at_s):
        served = int(500 * second)
        found = snapshot(second, (served, served), phase=phase)
        view = viewer.take(found, facts, GPU, found.written_ns)
    return view


def test_it_looks_once_a_second_until_the_run_is_over() -> None:
    """A line a look, however long a look takes; the end is shown when the run is done and no longer answers."""
    watched = Watched(*(_found(at_s) for at_s in (1, 2, 3)), _found(4, "drain"), _found(4, "done"), MISSED)
    assert watched.run() == 0
    assert [line.split()[0] for line in watched.lines] == ["measure"] * 3 + ["drain", FACTS.run]
    assert "1 000 requests/s" in watched.lines[1]
    assert watched.lines[-1] == f"{FACTS.run} is over: 4 000 served"
    assert watched.slept == pytest.approx([0.9] * 5)


def test_a_missed_look_is_shown_and_passes() -> None:
    """No answer for a while: a note with what is known, and on it goes as soon as there is one."""
    watched = Watched(_found(1), _found(2), MISSED, MISSED, _found(5), _found(5, "done"), MISSED)
    assert watched.run() == 0
    assert [("no answer" in line, "1 000 requests/s" in line) for line in watched.lines[1:5]] == [
        (False, True),
        (True, True),
        (True, True),
        (False, True),
    ]
    assert "no answer for 2.00 s (connection refused): Ctrl-C ends watching" in watched.lines[3]


def test_a_run_that_is_lost() -> None:
    """A run that was not done and answers no more was killed, or its network was: after 30 s that is the end."""
    watched = Watched(_found(1), *[MISSED] * 100)
    with pytest.raises(LoadtrtError, match=r"the run is lost: no answer for 3\d.\d s \(connection refused\)"):
        watched.run()
    assert watched.now_ns >= PATIENCE_NS


def test_nothing_there_at_first_is_an_error() -> None:
    """The first look shows whether the address is right."""
    with pytest.raises(UsageError, match="no run answers"):
        Watched(MISSED).run()


def test_waiting_for_the_engine() -> None:
    """An endpoint that has nothing yet is waited for, and said once."""
    watched = Watched(None, None, MISSED, _found(1), _found(1, "done"), MISSED)
    assert watched.run() == 0
    assert watched.lines[0] == "waiting: the engine is being loaded"
    assert watched.lines[1].startswith("measure")


def test_a_new_run_behind_the_same_address() -> None:
    """It is said."""
    watched = Watched(
        _found(8), _found(9), _found(0.5, run="next"), _found(1.5, "drain", "next"), _found(1.5, "done", "next"), MISSED
    )
    assert watched.run() == 0
    assert "a new run: next" in watched.lines
    assert watched.lines[-1] == "next is over: 1 500 served"


@pytest.mark.parametrize("shown", [False, True])
def test_control_c(shown: bool) -> None:
    """Ends watching: with 0 where something was seen, else it is an interrupt like any other."""
    watched = Watched(_found(1), KeyboardInterrupt) if shown else Watched(KeyboardInterrupt)
    if shown:
        assert watched.run() == 0
    else:
        with pytest.raises(KeyboardInterrupt):
            watched.run()


def test_a_reader_that_has_gone_ends_it() -> None:
    """`loadtrt watch … | head -1`: the pipe is closed."""

    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    watched = Watched(_found(1), _found(2))
    watched.stream = Closed()
    with pytest.raises(BrokenPipeError):
        watched.run()


# ---- real answers


@contextmanager
def _served(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _answering(body: bytes, code: int = 200) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response_only(code)
        request.end_headers()
        request.wfile.write(body)

    return answer


def test_a_real_exporter_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The view that the exporter serves comes back unchanged, without the proxy that is set for others."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    views = [None, _found(8)]
    with Exporter("127.0.0.1:0", lambda: None, view=lambda: views[0]) as exporter:
        assert read_view(parse_url(exporter.url)) is None
        del views[0]
        assert read_view(parse_url(exporter.url)) == _found(8)


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        (b"", 404, "answers 404 Not Found: it is not a run of this version"),
        (b"", 500, "answers 500 Internal Server Error"),
        (b"<!doctype html><title>Prometheus</title>", 200, "not the live view of a run"),
        (b"\xff\xfe\x00{", 200, "not the live view of a run"),
        (b'{"status": "success"}', 200, "not the live view of a run"),
        (b'{"loadtrt": "9", "schema_version": 0, "view": null}', 200, "use the same version on both machines"),
        (b'{"loadtrt": "9", "schema_version": 5, "view": {"phase": 1}}', 200, "the live view is broken"),
    ],
)
def test_an_answer_that_is_no_run_is_one_sentence(body: bytes, code: int, sentence: str) -> None:
    """Each names the address, and what is wrong with what is there."""
    with _served(_answering(body, code)) as address, pytest.raises(UnansweredError, match=sentence) as caught:
        read_view(parse_url(address))
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(caught.value.reason) < 60
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("garbage", [b"no http at all\r\n\r\n", b""])
def test_what_speaks_no_http_is_one_sentence(garbage: bytes) -> None:
    """An SSH server, or one that hangs up."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(garbage)

    with _served(answer) as address, pytest.raises(UnansweredError, match="no run answers"):
        read_view(parse_url(address))


def test_nobody_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """By the command itself: a port where nothing listens, and looks that come too often."""
    with _served(_answering(b"")) as address:
        pass
    with pytest.raises(UsageError, match="connection refused"):
        command.main([address], standalone_mode=False)
    with pytest.raises(UsageError, match="below 100 ms"):
        command.main([address, "--every", "1ms"], standalone_mode=False)
    with pytest.raises(UsageError, match=r"--every: .*not a duration"):
        command.main([address, "--every", "often"], standalone_mode=False)
    assert capsys.readouterr().out == ""


def test_a_body_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than any run's metrics is not read to its end."""
    monkeypatch.setattr("loadtrt.cli.watch._MOST_BYTES", 1 << 20)

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response_only(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(b"# nothing\n" * 10_000)
        except OSError:
            pass

    with _served(answer) as address, pytest.raises(UnansweredError, match="sends more than"):
        read_view(parse_url(address))


@pytest.mark.parametrize(
    "address",
    [
        "a..b:18410",
        "http://.:1",
        f"{'a' * 64}.de:80",
        f"{'é' * 100}:18410",
        "⒈com:80",
        "a。b..c:1",
        "127.0.0.1:1/é",
        "http://[::1",
    ],
)
def test_an_address_that_no_host_has_is_one_sentence(address: str) -> None:
    """What DNS cannot be asked for, and paths that HTTP does not have: no traceback of a thread."""
    done = loadtrt("watch", address)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "timed out" not in done.stderr


@pytest.mark.parametrize(
    "location", ["http://[::1", "//[/", "http://a..b:1/", "ftp://127.0.0.1:1/x", f"http://{'a' * 300}/", "/elsewhere"]
)
def test_a_redirection_is_not_followed(location: str) -> None:
    """A run answers itself."""

    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.end_headers()

    with _served(redirect) as url, pytest.raises(UsageError, match="answers 302"):
        read_view(parse_url(url))
