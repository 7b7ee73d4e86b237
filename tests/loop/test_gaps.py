"""Where several models, or workers that route, leave the loop: in a gap between the requests of all.

One model: test_spin.py."""

from __future__ import annotations

import numpy as np
import pytest

from callback_device import CallbackDevice
from loadtrt.lanes.shared_router import RoutingMemory, SharedRouter
from loadtrt.load.dealing import Deal
from loadtrt.loop import device as loop
from loadtrt.loop.device import GAP_NS, spin_all
from loadtrt.loop.requests import COMING, LAST, NEXT_DUE, State, begin, lists_of, new_state, view_of
from loadtrt.loop.routing import NEXT, spin_routed
from loadtrt.units import NEVER

US = 1000
STEP = 100 * US
SOON, UNTIL = 10 * STEP, 50 * STEP


def _due(*gaps: tuple[int, int]) -> list[int]:
    """An instant each STEP, but between the ends of the gaps, ns."""
    return [at for at in range(0, 2 * UNTIL, STEP) if not any(low < at < high for low, high in gaps)]


A, B = _due((12 * STEP, 20 * STEP), (21 * STEP, 27 * STEP)), _due((20 * STEP, 28 * STEP))


@pytest.mark.parametrize(
    ("models", "leaves"),
    [
        ((A,), (12, 20)),
        ((A, B), (21, 27)),
        ((_due((20 * STEP, 28 * STEP)), _due((12 * STEP, 20 * STEP))), None),
        ((_due((3 * STEP, 9 * STEP)),), None),  # before `soon`
        ((A, _due((24 * STEP, 30 * STEP))), None),  # both have none for 300 µs
    ],
)
def test_several_models_leave_in_a_gap_of_all(
    monkeypatch: pytest.MonkeyPatch, models: tuple[list[int], ...], leaves: tuple[int, int] | None
) -> None:
    """Law: GAP_NS at least before the next request of any model; without such a gap at `until`."""
    now = 0

    def serve(state: State, due: list[int], _: int) -> int:
        nonlocal now
        now += 10 * US
        state.n[NEXT_DUE] = next((at for at in due if at > now), NEVER)
        return now

    monkeypatch.setattr(loop, "clock", lambda _: now)
    monkeypatch.setattr(loop, "serve", serve)
    monkeypatch.setattr(loop, "receive", lambda *_: True)
    states = [new_state(1, 1, 1, None, (0,), np.zeros((1, 11), np.int64), [0, 1]) for _ in models]
    ended = spin_all(states, models, SOON, UNTIL)
    if leaves is None:
        assert UNTIL <= ended < UNTIL + STEP
    else:
        assert leaves[0] * STEP <= ended <= leaves[1] * STEP - GAP_NS + 20 * US


@pytest.mark.parametrize("gap", [None, 3, 12])
def test_a_worker_leaves_in_a_gap_between_the_requests_of_all_workers(gap: int | None) -> None:
    """Law: not in one of its own, as others wait for what it knows; from `soon` on, and at `until` without one."""
    due = _due((gap * STEP, (gap + 8) * STEP)) if gap else _due()
    memory = RoutingMemory(2)
    router = SharedRouter.join(
        memory.descriptor, Deal(0, 2, "least-outstanding", "lowest-index"), np.array(due, np.int64), 2, 1
    )
    router.arrays.owners[1 : len(due)] = 2  # all but the first go to the other one
    simulated = CallbackDevice(due_ns=due)
    device = view_of(simulated.device(compiled=False))
    state = lists_of(new_state(1, 2, 1, np.zeros(len(due), np.int64), (0,), np.zeros((200, 11), np.int64), [0, 200]))
    state.n[LAST], state.n[COMING] = NEVER, 0  # it learns of them
    begin(state, 0)
    memory.close()
    router.view.n[NEXT] = 0
    ended = spin_routed(state, router.view, device, SOON, UNTIL)
    if gap == 12:
        assert 12 * STEP <= ended <= 20 * STEP - GAP_NS
    else:
        assert UNTIL <= ended < UNTIL + STEP
