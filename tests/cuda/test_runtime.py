"""What is set before CUDA is first used."""

from __future__ import annotations

import os

import pytest

from loadtrt.cuda.runtime import hardware_queues


@pytest.mark.parametrize(
    ("told", "queues"), [(None, 32), ("8", 8), ("1", 1), ("32", 32), ("64", 32), ("0", 8), ("many", 8), ("", 8)]
)
def test_queues_are_the_most_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, told: str | None, queues: int
) -> None:
    """Law: what the user set stays; else CUDA and the processes that are started see the most there are."""
    name = "CUDA_DEVICE_MAX_CONNECTIONS"
    monkeypatch.setenv(name, "")
    if told is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, told)
    assert hardware_queues() == queues
    assert os.environ[name] == ("32" if told is None else told)
