"""What a rig is given in tests."""

from __future__ import annotations

import pytest

from loadtrt.runs.watched import Silence

# For laws of numbers on a virtual clock, whose records are the same on both event loops: tests/lanes/test_queueing.py.
one_loop = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


class Heard(Silence):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)
