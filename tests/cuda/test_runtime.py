"""What is set before CUDA is first used."""

from __future__ import annotations

import os

import pytest

from loadtrt.cuda import runtime
from loadtrt.cuda.runtime import hardware_queues

_NAME = "CUDA_DEVICE_MAX_CONNECTIONS"


@pytest.mark.parametrize(
    ("told", "queues"), [(None, 32), ("8", 8), ("1", 1), ("32", 32), ("64", 32), ("0", 8), ("many", 8), ("", 8)]
)
def test_queues_are_the_most_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, told: str | None, queues: int
) -> None:
    """Law: what the user set stays; else CUDA and the processes that are started see the most there are."""
    monkeypatch.setenv(_NAME, "")
    if told is None:
        monkeypatch.delenv(_NAME)
    else:
        monkeypatch.setenv(_NAME, told)
    assert hardware_queues() == queues
    assert os.environ[_NAME] == ("32" if told is None else told)


def test_cuda_that_another_library_has_begun_to_use_keeps_its_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch in a notebook: CUDA has read the variable by then, so that a result must not say otherwise."""
    monkeypatch.setattr(runtime, "is_in_use", lambda: True)
    monkeypatch.setenv(_NAME, "16")
    assert hardware_queues() == 16
    monkeypatch.delenv(_NAME)
    assert (hardware_queues(), _NAME in os.environ) == (8, False)
