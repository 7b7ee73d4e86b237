"""Numbers that may not be known, intervals, and names as text; lines that keep to a width."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

from loadtrt.printing import printable, shortened
from loadtrt.units import SECOND_NS, format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from loadtrt.results.engine_info import MemoryBill

UNKNOWN = "–"
_STEP = 6
_REFORMAT = re.compile(r"Reformatting CopyNode for (?:(In|Out)put Tensor (\d+) to (.+)|Network ((?:In|Out)put .+))")
_WITHIN = re.compile(r"(?<=\d) (?=\d{3}\b|(?:[nµm]?s|m?J|W|MHz|[KMGT]?i?B|%)(?!\w))|(?<=[<>±×]) | (?=[<>])")


def time_or(ns: float | None) -> str:
    """A time in ns as text; "–" where it is unknown."""
    return UNKNOWN if ns is None else format_duration(ns)


def count_or(count: float | None) -> str:
    """A number as text; "–" where it is unknown."""
    return UNKNOWN if count is None else format_count(count)


def rate_or(per_s: float | None) -> str:
    """A rate per second as text; "–" where it is unknown."""
    return UNKNOWN if per_s is None else f"{format_count(per_s)}/s"


def share_or(share: float | None) -> str:
    """A share in % as text; "–" where it is unknown."""
    return UNKNOWN if share is None else percent_text(share)


def between(low: float | None, high: float | None, shown: Callable[[float], str] = format_duration) -> str:
    """An interval as far as it is bounded, of times unless `shown` says otherwise: "7.69 .. 9.02 ms"."""
    if low is None:
        return UNKNOWN if high is None else f"at most {shown(high)}"
    if high is None:
        return f"at least {shown(low)}"
    first, last = shown(low), shown(high)
    unit = last.lstrip("-0123456789. ")
    if first.lstrip("-0123456789. ") == unit:
        first = first.removesuffix(unit).rstrip()
    return f"{first} .. {last}"


def every(ns: int) -> str:
    """How often something is, in whole seconds: "every second", "every 32 s"."""
    return "every second" if ns == SECOND_NS else f"every {format_count(ns // SECOND_NS)} s"


def percent_text(share: float) -> str:
    """Three digits: "1.23 %", "1 450 %"."""
    if share >= 9.995:
        return f"{format_count(100 * share)} %"
    return f"{100 * share:.3g} %" if share >= 1e-6 else "0 %"


def joules_text(energy: float | None) -> str:
    """Energy in J or mJ; "–" where it is unknown."""
    if energy is None:
        return UNKNOWN
    return f"{format_count(energy)} J" if energy >= 1 else f"{format_count(1000 * energy)} mJ"


def unbroken(text: str) -> str:
    """With no-break spaces within a number, between a number and its unit, and around the < or > of an objective."""
    return _WITHIN.sub("\u00a0", text)


def wrapped(text: str, indent: str = "", more: str = "  ", width: int = 80) -> list[str]:
    """Lines of at most `width` columns, broken between words. The first begins with `indent`, the others with `indent`
    and `more`. Names that are longer are not broken, so that they can be copied; nor are numbers with their units."""
    lines = textwrap.wrap(
        unbroken(text),
        width,
        initial_indent=indent,
        subsequent_indent=indent + more,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\u00a0", " ") for line in lines]


def short_names(names: Iterable[str], width: int) -> dict[str, str]:
    """Each layer's name in at most `width` columns, cut in the middle; in more where two would look the same.

    A reformat of TensorRT is named by what it serves, "input 0 of conv1": the type beside the name says the rest.
    """
    waiting = {name: _readable(name) for name in names}
    short: dict[str, str] = {}
    while waiting:
        cut = {name: shortened(text, width) for name, text in waiting.items()}
        alike = Counter([*cut.values(), *short.values()])
        done = {name: text for name, text in cut.items() if alike[text] == 1 or text == waiting[name]}
        short |= done
        waiting = {name: text for name, text in waiting.items() if name not in done}
        width += _STEP
    return short


def _readable(name: str) -> str:
    name = printable(name)
    match = _REFORMAT.fullmatch(name)
    if not match:
        return name or "(no name)"
    if match[4]:
        return f"network {match[4][0].lower()}{match[4][1:]}"
    return f"{match[1].lower()}put {match[2]} of {match[3]}"


def differences(a: Mapping[str, Sequence[str]], b: Mapping[str, Sequence[str]]) -> str:
    """What two sides differ in, or one of them has several values of: "batch 8 / 16 · wait spin / block"."""
    pairs = {key: (a.get(key, (UNKNOWN,)), b.get(key, (UNKNOWN,))) for key in (*a, *b)}
    return " · ".join(
        f"{key} {', '.join(first)} / {', '.join(second)}"
        for key, (first, second) in pairs.items()
        if first != second or len(first) > 1
    )


def memory_text(memory: MemoryBill) -> str:
    """The memory bill in one line."""
    contexts, buffers = memory.contexts, memory.buffers

    def known(count: int | None) -> str:
        return "?" if count is None else format_bytes(count)

    free = f", {format_bytes(memory.free_bytes)} free" if memory.free_bytes is not None else ""
    return (
        f"memory: {known(memory.weights_bytes)} weights + {contexts} × ({known(memory.context_bytes)} context + "
        f"{buffers} × {format_bytes(memory.device_io_bytes)} I/O) = {format_bytes(memory.device_bytes)}{free}; "
        f"host {format_bytes(memory.host_bytes)}"
    )
