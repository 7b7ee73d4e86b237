"""When workers were last heard: what is done about one that says nothing."""

from __future__ import annotations

import pytest

from loadtrt.runs.started_worker import ASK_S, READY_S, STARTING_S, Hearing

LOOK_S = 0.5


def waited(hearing: Hearing, seconds: float, *, ready: bool) -> list[tuple[float, str]]:
    """What is to be done in so many seconds of silence, and after how many."""
    acts = [hearing.wait(LOOK_S, ready=ready) for _ in range(round(seconds / LOOK_S))]
    return [((look + 1) * LOOK_S, act) for look, act in enumerate(acts) if act is not None]


@pytest.mark.parametrize(("ready", "limits"), [(True, READY_S), (False, STARTING_S)])
def test_a_silent_worker_is_asked_then_named_then_lost(ready: bool, limits: tuple[float, float]) -> None:
    """Each once, after the stated times."""
    named_s, lost_s = limits
    hearing = Hearing()
    assert waited(hearing, lost_s, ready=ready) == [(ASK_S, "ask"), (named_s, "name"), (lost_s, "lost")]
    assert hearing.loss == f"it said nothing for {'60 s' if ready else '600 s'}"


def test_a_worker_that_answers_is_never_named() -> None:
    """It is asked again in each silence."""
    hearing = Hearing()
    for _ in range(50):
        assert waited(hearing, ASK_S, ready=True) == [(ASK_S, "ask")]
        assert hearing.heard() == ""


def test_one_that_was_named_is_heard_again() -> None:
    """Which is told once, with how long it was silent; another silence counts from there."""
    hearing = Hearing()
    waited(hearing, 12, ready=True)
    assert hearing.silence(ready=True).startswith("has said nothing for 12 s, since ")
    assert hearing.heard() == "is heard again, after 12 s"
    assert hearing.heard() == ""
    assert waited(hearing, 12, ready=True) == [(ASK_S, "ask"), (READY_S[0], "name")]


def test_time_in_which_this_process_stood_still_does_not_count() -> None:
    """As after Ctrl-Z and fg: what workers have said meanwhile is not read yet."""
    hearing = Hearing()
    assert hearing.wait(3600, ready=True) is None
    assert hearing.heard() == ""
