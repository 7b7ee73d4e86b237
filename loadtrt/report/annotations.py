"""What GitHub Actions shows of a command: annotations, which are lines of its output, and the summary of a step.

A line `::error title=TITLE::MESSAGE` is an annotation of the job. GitHub shows ten errors and ten warnings of a step,
so that a tenth stands for all further ones. A summary is Markdown of at most 1 MiB for all commands of a step; GitHub
drops one that is longer as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.printing import SENTENCE, shortened
from loadtrt.report.document import section, words
from loadtrt.report.markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtrt.report.document import Section
    from loadtrt.report.gates import Case

MOST_SUMMARY_BYTES = 1 << 20
_MOST_SHOWN = 10  # of a level
_MOST_TITLE = 200
_LEVELS = {"failure": "error", "error": "warning"}  # a case that was skipped is told by "valid"


def annotation_lines(subject: str, cases: Sequence[Case]) -> Iterator[str]:
    """A line for each case that did not pass. subject: what was judged, such as "loadtrt run googlenet"."""
    for kind, level in _LEVELS.items():
        found = [(case.name, case.wrong) for case in cases if case.wrong is not None and case.wrong[0] == kind]
        alone = found if len(found) <= _MOST_SHOWN else found[: _MOST_SHOWN - 1]
        for name, (_, type_, message) in alone:
            yield command(level, f"{subject}: {name}: {type_}", message)
        if others := found[len(alone) :]:
            names = "; ".join(f"{name}: {type_}" for name, (_, type_, _) in others)
            yield command(level, f"{subject}: {len(others)} more", names)


def command(level: str, title: str, message: str) -> str:
    """A workflow command. %, CR and LF would end or change it; so would : and , within a property."""
    prop = _data(shortened(title, _MOST_TITLE)).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={prop}::{_data(shortened(message, SENTENCE))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def summary(document: Sequence[Section], room_bytes: int) -> str:
    """The document as Markdown, without the sections for which there is no room, which a line names. "" where there is
    no room for that."""
    kept, left = "", []
    most = room_bytes - 2 * _MOST_TITLE  # a line about what is left out
    for item in document:
        text = markdown([item])
        if len((kept + text).encode("utf-8", "replace")) < most:
            kept += text if not text.strip() else f"{text}\n"
        else:
            left.append("".join(map(str, item.title[:1])))
    if left:
        names = shortened(", ".join(dict.fromkeys(left)), _MOST_TITLE // 2)
        kept += markdown([section("Left out", words(f"There was no room for more: {names}."))])
    return kept if len(kept.encode("utf-8", "replace")) <= room_bytes else ""
