"""Ways in which a model and its neighbour share a device: plain streams, stream priority, a split of the SMs, or both.

The model that is judged is the one that is protected: it has the higher priority, and the first number of SMs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from loadtrt.asked.model import Model
from loadtrt.errors import UsageError
from loadtrt.units import plural

PLAIN = "streams"  # the way that needs nothing
_SIMULATED = "simulated:"
_SPLIT = re.compile(r"(sms|both)=(\d{1,4})\+(\d{1,4})")
_EXAMPLE = "such as streams,priority,sms=32+100,both"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to share.

    text: as --share has it.
    priority: whether the model goes first.
    sms: of the model and of its neighbour; None: all, shared.
    """

    text: str
    priority: bool = False
    sms: tuple[int, int] | None = None

    def models(self, model: Model, neighbour: Model) -> tuple[Model, Model]:
        """Both with their shares. Raises UsageError for an engine that cannot have them."""
        return self._placed(model, first=True), self._placed(neighbour, first=False)

    def _placed(self, model: Model, *, first: bool) -> Model:
        if model.engine.startswith(_SIMULATED):
            return model.model_copy(update={"engine": self._simulated(model.engine, first=first)})
        changes: dict[str, Any] = {}
        if self.sms is not None:
            changes["sms"] = self.sms[not first]
        if self.priority and first:
            if "priority" not in Model.model_fields:
                raise UsageError("models have no stream priority here: leave priority and both out")
            changes["priority"] = "high"
        return model.model_copy(update=changes)

    def _simulated(self, engine: str, *, first: bool) -> str:
        """A simulated device is shared as its parameters say: its SMs are parts of it."""
        words = [engine]
        if self.sms is not None:
            words.append(f"part={self.sms[not first] / sum(self.sms):.6g}")
        if self.priority:
            words.append("sharing=priority" + (",priority=-1" if first else ""))
        return ",".join(words)


def parse_shares(text: str) -> tuple[Way, ...]:
    """The ways of "streams,priority,sms=32+100,both". `both` is each split that is given, with priority. Raises
    UsageError."""
    words = [word.strip() for word in text.split(",")]
    splits = [match.groups()[1:] for word in words if (match := _SPLIT.fullmatch(word)) and match[1] == "sms"]
    ways: dict[str, Way] = {}
    for word in words:
        match = _SPLIT.fullmatch(word)
        if word == PLAIN:
            named = [Way(PLAIN)]
        elif word == "priority":
            named = [Way(word, priority=True)]
        elif word == "both" and splits:
            named = [_split("both", *split) for split in splits]
        elif word == "both":
            raise UsageError(f"'both' needs a split of the SMs: write both=32+100, or {_EXAMPLE}")
        elif match:
            named = [_split(*match.groups())]
        else:
            raise UsageError(f"'{word}' is no way to share: write {_EXAMPLE}")
        ways |= {way.text: way for way in named}
    return tuple(ways.values())


def _split(kind: str, first: str, second: str) -> Way:
    sms = int(first), int(second)
    if not all(sms):
        raise UsageError(f"'{kind}={first}+{second}' leaves nothing for one of both: write for example {kind}=32+100")
    return Way(f"{kind}={sms[0]}+{sms[1]}", priority=kind == "both", sms=sms)


def words_of(share: str) -> str:
    """A way, as part of a sentence: "on 32 of 132 SMs"."""
    match = _SPLIT.fullmatch(share)
    if match is None:
        return {PLAIN: "on plain streams", "priority": "with priority"}.get(share, f"with {share}")
    first, second = int(match[2]), int(match[3])
    return f"on {first} of {plural(first + second, 'SM')}{' with priority' if match[1] == 'both' else ''}"
