"""Ways in which a model and its neighbour share a device: plain streams, stream priority, a split of the SMs, both of
these, or a process for each.

The model that is judged is the one that is protected: it has the higher priority, and the first part of the SMs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtrt.errors import UsageError
from loadtrt.printing import shortened

if TYPE_CHECKING:
    from loadtrt.asked.model import Model

PLAIN = "streams"  # the way that needs nothing
PROCESSES = "processes"
_SPLIT = re.compile(r"(sms|both)=(\d{1,4})(%?)\+(\d{1,4})\3")
_EXAMPLE = "such as streams,priority,sms=32+100,both,processes"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to share.

    text: as --share has it.
    priority: whether the model goes first.
    split: SMs of the model and of its neighbour, or percentages; None: all, shared.
    percent: whether they are percentages.
    """

    text: str
    priority: bool = False
    split: tuple[int, int] | None = None
    percent: bool = False

    @property
    def processes(self) -> bool:
        """Whether each has a process of its own."""
        return self.text == PROCESSES

    def models(self, model: Model, neighbour: Model) -> tuple[Model, Model]:
        """Both with their shares, which engines may refuse."""
        return self._placed(model, first=True), self._placed(neighbour, first=False)

    def _placed(self, model: Model, *, first: bool) -> Model:
        changes: dict[str, Any] = {}
        if self.split is not None:
            sms = self.split[not first]
            changes["sms"] = f"{sms}%" if self.percent else sms
        if self.priority:
            changes["priority"] = "high" if first else "low"
        return model.model_copy(update=changes)


def parse_shares(text: str) -> tuple[Way, ...]:
    """The ways of "streams,priority,sms=32+100,both". `both` is each split that is given, with priority. Raises
    UsageError."""
    words = [word.strip() for word in text.split(",")]
    splits = [way for word in words if (way := _split(word)) is not None and not way.priority]
    ways: dict[str, Way] = {}
    for word in words:
        split = _split(word)
        if split is not None:
            named = [split]
        elif word in (PLAIN, PROCESSES):
            named = [Way(word)]
        elif word == "priority":
            named = [Way(word, priority=True)]
        elif word == "both" and splits:
            named = [Way(way.text.replace("sms", word), True, way.split, way.percent) for way in splits]
        elif word == "both":
            raise UsageError(f"'both' needs a split of the SMs: write both=32+100, or {_EXAMPLE}")
        else:
            raise UsageError(f"'{shortened(word)}' is not a way to share: write {_EXAMPLE}")
        ways |= {way.text: way for way in named}
    return tuple(ways.values())


def _split(word: str) -> Way | None:
    """A way that splits the SMs; None for another word. Raises UsageError."""
    match = _SPLIT.fullmatch(word)
    if match is None:
        return None
    kind, first, percent, second = match.groups()
    split = int(first), int(second)
    if not all(split):
        raise UsageError(f"'{word}' leaves nothing for one of both: write for example {kind}=32+100")
    if percent and sum(split) > 100:
        raise UsageError(f"'{word}' is more than there is: write for example {kind}=25%+75%")
    return Way(f"{kind}={split[0]}{percent}+{split[1]}{percent}", kind == "both", split, bool(percent))


def words_of(share: str) -> str:
    """A way, as part of a sentence: "on 32 SMs"."""
    way = _split(share)
    if way is None or way.split is None:
        named = {PLAIN: "on plain streams", "priority": "with priority", PROCESSES: "in processes of their own"}
        return named.get(share, f"with {share}")
    sms = f"{way.split[0]} % of the SMs" if way.percent else f"{way.split[0]} SMs"  # a split may leave some to nobody
    return f"on {sms}{' with priority' if way.priority else ''}"
