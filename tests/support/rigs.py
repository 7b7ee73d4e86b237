"""What a rig is given in tests."""

from __future__ import annotations

from loadtrt.runs.watched import Silence


class Heard(Silence):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)
