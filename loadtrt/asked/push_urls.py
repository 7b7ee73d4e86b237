"""Where metrics are pushed: what the URLs of --push mean."""

from __future__ import annotations

import os
import re
from typing import Literal, NamedTuple, TypeAlias, get_args
from urllib.parse import SplitResult, quote, unquote, urlsplit

from loadtrt.errors import UsageError
from loadtrt.printing import shortened

Kind: TypeAlias = Literal["pushgateway", "remote-write", "otlp"]
HEADERS = "LOADTRT_PUSH_HEADERS"
_PATHS: dict[Kind, str] = {"pushgateway": "", "remote-write": "/api/v1/write", "otlp": "/v1/metrics"}
_URL = re.compile(rf"(?:({'|'.join(get_args(Kind))})\+)?(https?://\S+)", re.IGNORECASE)
_IN_URLS = "/?%:@!$&'()*+,;=~"  # other characters are written as %, as a browser does
_HEADER = re.compile(r"[A-Za-z0-9-]+")


class PushUrl(NamedTuple):
    """A place to push to. url: all of it, with the path."""

    kind: Kind
    url: str


def parse_push(text: str) -> PushUrl:
    """The place of "http://HOST:9091" (a Pushgateway), of a URL that ends in /api/v1/write (remote write) or in
    /v1/metrics (OTLP), and of one that says what is there: "remote-write+http://HOST/push". Raises UsageError."""
    match = _URL.fullmatch(text.strip())
    parts = _parts(match[2]) if match else None
    if match is None or parts is None:
        raise UsageError(
            f"'{_shown(text)}' is not a place to push metrics to: write http://HOST:9091 for a Pushgateway, or a "
            "URL that ends in /api/v1/write (remote write) or /v1/metrics (OTLP)"
        )
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"'{_shown(text)}' has a name or password, which results would keep: leave it out, and set {HEADERS}, such "
            "as 'Authorization=Basic …'"
        )
    path = parts.path.rstrip("/")
    if match[1]:
        kinds = [kind for kind in _PATHS if kind == match[1].lower()]
    else:
        kinds = [kind for kind, end in _PATHS.items() if path == end or (end and path.endswith(end))]
    kind = next(iter(kinds), None)
    if kind is None:
        raise UsageError(
            f"'{_shown(text)}' does not say what is there: write pushgateway+, remote-write+ or otlp+ before it"
        )
    if kind == "pushgateway" and (parts.query or parts.fragment):
        raise UsageError(f"'{_shown(text)}' has more than the place of a Pushgateway: leave out all from ? or # on")
    path, query = (quote(part, _IN_URLS) for part in (path, parts.query))
    return PushUrl(kind, parts._replace(path=path or _PATHS[kind], query=query).geturl())


def _shown(text: str) -> str:
    """The URL for an error, which logs keep, without the name and the password in it."""
    return shortened(re.sub(r"^([^/]*//)?.*@", r"\1…@", text, flags=re.DOTALL))


def _parts(url: str) -> SplitResult | None:
    """None where it has no host, or no port that can be."""
    try:
        parts = urlsplit(url)
        whole = parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        return None
    return parts if whole else None


def push_headers(text: str | None = None) -> dict[str, str]:
    """The headers of LOADTRT_PUSH_HEADERS, "NAME=VALUE,NAME=VALUE" with % as in URLs. Raises UsageError."""
    found = {}
    for part in filter(None, (os.environ.get(HEADERS, "") if text is None else text).split(",")):
        name, sign, value = part.partition("=")
        read = unquote(value.strip())
        if not sign or not _HEADER.fullmatch(name.strip()) or not (read.isascii() and read.isprintable()):
            raise UsageError(f"{HEADERS} holds something else than NAME=VALUE with commas between")  # it is secret
        found[name.strip()] = read
    return found


def each_once(urls: tuple[str, ...]) -> tuple[str, ...]:
    """The URLs. Raises UsageError for one that is not a place to push to, and for a place that is there twice."""
    places = [parse_push(url) for url in urls]
    twice = next((url for url, place in zip(urls, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise UsageError(f"'{shortened(twice)}' is given twice: leave one out")
    return urls
