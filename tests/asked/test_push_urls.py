"""What the URLs of --push mean, and what is refused before a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from command_line import loadtrt
from loadtrt.asked.config import RunConfig
from loadtrt.asked.push_urls import parse_push, push_headers
from loadtrt.asked.reading import load_config
from loadtrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "kind", "url"),
    [
        ("http://h:9091", "pushgateway", "http://h:9091"),
        ("https://h/", "pushgateway", "https://h"),
        ("pushgateway+http://h/prefix/", "pushgateway", "http://h/prefix"),
        ("http://h:9090/api/v1/write", "remote-write", "http://h:9090/api/v1/write"),
        ("remote-write+https://h/api/v1/push", "remote-write", "https://h/api/v1/push"),
        ("remote-write+http://h", "remote-write", "http://h/api/v1/write"),
        ("http://h:9090/api/v1/otlp/v1/metrics", "otlp", "http://h:9090/api/v1/otlp/v1/metrics"),
        ("otlp+http://h:4318", "otlp", "http://h:4318/v1/metrics"),
        ("OTLP+http://[::1]:4318", "otlp", "http://[::1]:4318/v1/metrics"),
        ("http://h/api/v1/write?db=x", "remote-write", "http://h/api/v1/write?db=x"),
        ("otlp+http://h/é?a=ü%20b", "otlp", "http://h/%C3%A9?a=%C3%BC%20b"),
    ],
)
def test_a_place_is_what_its_url_says(text: str, kind: str, url: str) -> None:
    """By its path, or by what is written before it."""
    assert parse_push(text) == (kind, url)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h:9091",
        "ftp://h",
        "http://",
        "http://:9091",
        "http://h:0",
        "http://h:x",
        "http://h:65536",
        "kafka+http://h",
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a place to push metrics to: write http://HOST:9091 for a Pushgateway"):
        parse_push(text)


def test_a_path_that_says_nothing_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"'http://h/x' does not say what is there: write pushgateway\+, remote-write\+"
    ):
        parse_push("http://h/x")


@pytest.mark.parametrize("end", ["/?a=b", "?a", "/x#y"])
def test_what_a_pushgateway_cannot_have_is_refused(end: str) -> None:
    """Job and labels are put at the end of its URL."""
    with pytest.raises(UsageError, match="has more than the place of a Pushgateway"):
        parse_push(f"pushgateway+http://h{end}")


@pytest.mark.parametrize("text", ["http://u:secret@h", "http://secret@h/api/v1/write", "otlp+http://u:a@secret@h"])
def test_a_password_is_refused(text: str) -> None:
    """Results keep their configuration."""
    with pytest.raises(UsageError, match=r"//…@h\S*' has a name or password, .* set LOADTRT_PUSH_HEADERS"):
        parse_push(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://u:secret@h",
        "http://u:secr/et@h",
        "ftp://u:secret@h",
        "u:secret@h:9091",
        "http://u:secret@h:x",
        "secret@",
    ],
)
def test_a_password_is_not_repeated(text: str, tmp_path: Path) -> None:
    """An error is kept in the log of a pipeline: of the command line, of Python and of a file."""
    (tmp_path / "c.yaml").write_text(json.dumps({"engine": "simulated:null", "push": ["http://h", text]}))
    ways: list[tuple[Path | None, dict[str, Any]]] = [
        (None, {"engine": "simulated:null", "push": text}),
        (None, {"engine": "simulated:null", "push": ("http://h", text)}),
        (tmp_path / "c.yaml", {}),
    ]
    for config, options in ways:
        with pytest.raises(UsageError, match=r"push: '.*…@") as told:
            load_config(config, options)
        assert "secr" not in str(told.value)
    done = loadtrt("run", "--engine", "simulated:null", "--push", text)
    assert (done.returncode, "secr" in done.stdout + done.stderr) == (2, False)


@pytest.mark.parametrize("wrong", [{"a": "http://u:secr/et@h"}, [["http://u:secret@h"], 3], [{"url": "//secret@h"}]])
def test_nor_where_it_is_of_another_kind(wrong: Any, tmp_path: Path) -> None:
    """A mapping, or a list in a list: the sentence quotes what it was."""
    (tmp_path / "c.yaml").write_text(json.dumps({"engine": "simulated:null", "push": wrong}))
    with pytest.raises(UsageError, match=r"push: .*…@h") as told:
        load_config(tmp_path / "c.yaml", {})
    assert "secr" not in str(told.value)


def test_a_place_is_given_once() -> None:
    with pytest.raises(UsageError, match="'http://h/' is given twice"):
        RunConfig.of(engine="simulated:null", push=["http://h/", "pushgateway+http://h"])


def test_a_wrong_place_ends_the_command() -> None:
    done = loadtrt("run", "--engine", "simulated:null", "--push", "http://h/x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("loadtrt: --push: 'http://h/x' does not say what is there")


@pytest.mark.parametrize("text", ["secret", "a b=c", "=c", "A=%0ax", "A=ü"])
def test_headers_that_are_none_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="LOADTRT_PUSH_HEADERS holds something else than NAME=VALUE") as told:
        push_headers(text)
    assert text not in str(told.value)


def test_headers_are_read() -> None:
    assert push_headers(" A=b=c== , X-Y=d%2Ce,") == {"A": "b=c==", "X-Y": "d,e"}
    assert push_headers("") == {}
