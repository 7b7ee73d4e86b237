"""What a rig is given in tests."""

from __future__ import annotations


class Heard:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def status(self, line: str) -> None: ...
