"""`spin` as numba compiles it does what Python does: the same calls at the same instants, the same rows and state.

The device is simulated behind C callbacks (tests/support/callback_device.py); laws hold beside equality.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callback_device import FAULT, FUNCTIONS, CallbackDevice
from loadtrt.loop import device as loop
from loadtrt.loop.compiled import is_compiled, spinner
from loadtrt.loop.device import FAULT_KIND, FOUND, GAP_NS, QUERY, TAKEN, spin
from loadtrt.loop.requests import (
    COLUMNS,
    COMPLETED,
    DRAINS,
    DROPPED,
    LAST,
    PAUSE_AT,
    ROOM,
    ROOM_FREE,
    ROW,
    SUBMITTED,
    begin,
    lists_of,
    new_state,
    view_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
START = 1_000
BOARD = 8  # rows
DUE, SENT, ENQUEUED, DONE, H2D, COMPUTE, D2H, LATE, LANE, STATUS, INPUTS = range(COLUMNS)


class Outcome(NamedTuple):
    """What `spin` left: rows, each call, each array, and the fault that ended it."""

    rows: np.ndarray[Any, Any]
    device: CallbackDevice
    arrays: dict[str, list[int]]
    fault: int
    dropped: list[int]


def drive(
    simulated: CallbackDevice,
    count: int,
    due: Sequence[int] | None = None,
    *,
    compiled: bool,
    room: int | None = None,
    order: Sequence[int] = (0,),
    pauses: Sequence[int] = (BOARD,),
    turn_ns: int = 100_000,
    patience_ns: int = 0,
) -> Outcome:
    """Serve `count` requests. pauses: how many rows there is room for each time."""
    device = simulated.device(compiled=compiled)
    rows, cursor = np.zeros((BOARD, COLUMNS), np.int64), np.array((0, pauses[0]), np.int64)
    instants = None if due is None else np.array(due, np.int64)
    state = new_state(simulated.lanes, simulated.slots, simulated.per_launch, instants, order, rows, cursor)
    state.n[LAST] = count
    if room is not None:
        state.n[ROOM], state.n[ROOM_FREE] = room, 1
    simulated.now = START
    used = state if compiled else lists_of(state)
    begin(used, START)
    go = spinner(state, device) if compiled else partial(spin, used, view_of(device))
    kept, paused, until, n = [], 0, START, used.n
    for _ in range(100_000):
        until = max(go(until, until + patience_ns), until) + turn_ns
        while cursor[ROW] == cursor[PAUSE_AT]:
            kept.append(rows[: cursor[ROW]].copy())
            paused += 1
            cursor[:] = 0, pauses[paused % len(pauses)]
            if device.n[TAKEN] < device.n[FOUND]:
                go(until, until)
        n[DRAINS] |= n[SUBMITTED] + n[DROPPED] == count
        if device.n[loop.FAULT] or n[COMPLETED] + n[DROPPED] == count:
            break
    else:
        raise AssertionError("it never ends")
    kept.append(rows[: cursor[ROW]])
    arrays = {
        f"{type(of).__name__}.{name}": np.array(getattr(of, name)).tolist()
        for of in (used, device)
        for name in of._fields
        if name not in ("cursor", "compute", *FUNCTIONS)
    }
    arrays["Device.n"] = arrays["Device.n"][: loop.MONOTONIC]  # addresses follow
    return Outcome(
        np.concatenate(kept), simulated, arrays, int(device.n[loop.FAULT]), state.dropped[: n[DROPPED]].tolist()
    )


def require_laws(outcome: Outcome, count: int, due: Sequence[int] | None, order: Sequence[int]) -> None:
    """What holds of every run, whatever its device does."""
    rows, simulated = outcome.rows, outcome.device
    buffers, per_launch = simulated.slots, simulated.per_launch
    if not outcome.fault:
        assert len(rows) + len(outcome.dropped) == count
        if due is not None:
            assert Counter([*rows[:, DUE].tolist(), *outcome.dropped]) == Counter(START + at for at in due)
    assert simulated.most_in_flight <= buffers * per_launch
    assert (rows[:, DUE] <= rows[:, SENT]).all()
    assert (rows[:, SENT] <= rows[:, ENQUEUED]).all()
    assert (rows[:, LATE] >= 0).all()
    if outcome.fault:
        return
    sent = rows[np.lexsort((rows[:, DONE], rows[:, ENQUEUED]))]
    assert sent[:, INPUTS].tolist() == [order[number % len(order)] for number in range(len(sent))]
    free, unfinished = [START] * (simulated.lanes * buffers), Counter[int]()
    for lane, done in zip(rows[:, LANE].tolist(), rows[:, DONE].tolist(), strict=True):
        unfinished[lane] += 1
        if unfinished[lane] % per_launch == 0:
            free.append(done)
    for since, row in zip(free, sent[::per_launch], strict=False):  # the n-th launch takes the n-th free instant
        assert row[LATE] == row[SENT] - (since if due is None else max(since, row[DUE]))
        assert due is not None or row[DUE] == since


def both(simulated: CallbackDevice, count: int, due: Sequence[int] | None = None, **given: Any) -> Outcome:
    """As machine code and as Python: equal in everything."""
    python = drive(simulated, count, due, compiled=False, **given)
    if is_compiled():
        machine = drive(fresh(simulated), count, due, compiled=True, **given)
        assert machine.device.calls == python.device.calls
        assert machine.rows.tolist() == python.rows.tolist()
        assert machine.arrays == python.arrays
        assert machine.fault == python.fault
    return python


def fresh(simulated: CallbackDevice) -> CallbackDevice:
    return replace(simulated, calls=[], launches=[], now=0)


COSTS = {
    "launch": 500,
    "record": 20,
    "wait": 10,
    "copy_in": 30,
    "copy_out": 30,
    "query": 40,
    "elapsed": 15,
    "clock": 25,
}


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[CallbackDevice, int, list[int] | None, dict[str, Any]]:
    """A device, a load, and what else decides."""
    closed = draw(st.booleans())
    per_launch = draw(st.integers(1, 3)) if closed else 1
    sets = draw(st.integers(1, 3))
    count = draw(st.integers(1, 60))
    gaps = draw(st.lists(st.integers(0, 4_000), min_size=count, max_size=count))
    due = None if closed else np.cumsum(gaps).tolist()
    faulty = draw(st.booleans())
    simulated = CallbackDevice(
        lanes=draw(st.integers(1, 5)),
        slots=draw(st.integers(1, 3)),
        per_launch=per_launch,
        sets=sets,
        service_ns=draw(st.lists(st.integers(1, 20_000), min_size=1, max_size=7)),
        copies=draw(st.booleans()),
        times=draw(st.booleans()),
        due_ns=[START + at for at in due or ()],
        cost_ns=COSTS if draw(st.booleans()) else {"clock": 1},
        fault_at=(draw(st.sampled_from(FUNCTIONS[:-1])), draw(st.integers(1, 80))) if faulty else None,
        unready=draw(st.sampled_from((0, 2, 3))),
    )
    order = draw(st.lists(st.integers(0, sets - 1), min_size=1, max_size=5))
    room = None if closed else draw(st.none() | st.integers(0, 3))
    pauses = draw(st.lists(st.integers(1, BOARD), min_size=1, max_size=4))
    turn_ns = draw(st.sampled_from((1, 1_000, 100_000)))
    patience_ns = draw(st.sampled_from((0, 500, 100_000)))
    count += -count % per_launch
    given = {"room": room, "order": order, "pauses": pauses, "turn_ns": turn_ns, "patience_ns": patience_ns}
    return simulated, count, due, given


@given(scenarios())
@settings(max_examples=150)
def test_machine_code_and_python_do_the_same(
    scenario: tuple[CallbackDevice, int, list[int] | None, dict[str, Any]],
) -> None:
    """Closed and open loops, any shape, order of input sets, room, small boards, faults of each call, and completions
    that are seen late, out of order across lanes."""
    simulated, count, due, given = scenario
    outcome = both(simulated, count, due, **given)
    require_laws(outcome, count, due, given["order"])


@given(scenarios())
@settings(max_examples=50)
def test_a_request_that_is_not_timed_completes_at_the_same_instant(
    scenario: tuple[CallbackDevice, int, list[int] | None, dict[str, Any]],
) -> None:
    """Where reading events costs nothing, all is as with times but these: a completion reads one event, not two, or
    four with copies."""
    simulated, count, due, given = scenario
    simulated = replace(simulated, fault_at=None, cost_ns={**simulated.cost_ns, "elapsed": 0})
    timed, untimed = (both(replace(fresh(simulated), times=times), count, due, **given) for times in (True, False))
    assert untimed.rows[:, :H2D].tolist() == timed.rows[:, :H2D].tolist()
    assert untimed.rows[:, LATE:].tolist() == timed.rows[:, LATE:].tolist()
    assert not untimed.rows[:, [H2D, COMPUTE, D2H]].any()
    assert (timed.rows[:, COMPUTE] > 0).all()
    reads = [sum(call[0] == "elapsed" for call in each.device.calls) for each in (timed, untimed)]
    assert reads == [(4 if simulated.copies else 2) * len(timed.rows), len(untimed.rows)]


@pytest.mark.parametrize("kind", range(len(FUNCTIONS) - 1))
@pytest.mark.parametrize("number", [1, 7, 20])
def test_a_call_that_fails_ends_the_loop_and_no_completion_is_lost(kind: int, number: int) -> None:
    """What a poll had found before is in the rows; the fault is that of the next call, as all fail from then on."""
    simulated = CallbackDevice(
        lanes=3, slots=2, service_ns=(700, 900, 300), cost_ns=COSTS, fault_at=(FUNCTIONS[kind], number), sets=2
    )
    outcome = both(simulated, 200, order=(0, 1))
    assert divmod(outcome.fault, FAULT_KIND)[1] == FAULT
    last = outcome.device.calls[-1][0]
    assert FUNCTIONS[outcome.fault // FAULT_KIND] == last
    seen = sum(call[0] == "elapsed" and call[1] == 0 for call in outcome.device.calls)
    assert len(outcome.rows) in (seen, seen - 1)  # the last one's other events may not have been read


def test_a_fault_is_told_after_the_rows_of_what_was_found_before_it() -> None:
    """A poll that finds a request and then meets an error returns the request, in the order of completion; the next one
    meets the error."""
    simulated = CallbackDevice(lanes=3, service_ns=(900, 300, 600), fault_at=("query", 3))
    view = view_of(simulated.device(compiled=False))
    for lane in range(3):
        assert loop.launch(view, lane, 0) == 0
    simulated.now = 10_000
    assert loop.poll(view, several=False) == 0
    found = np.reshape(view.found, (-1, loop.FOUND_CELLS))[: view.n[FOUND]]
    assert found[:, loop.FOUND_LANE].tolist() == [1, 0]
    assert loop.poll(view, several=False) == FAULT + FAULT_KIND * QUERY


@pytest.mark.parametrize("compiled", sorted({False, is_compiled()}))
@pytest.mark.parametrize("gap", [None, 3, 12, 30])
def test_it_ends_where_no_request_is_due_for_long(compiled: bool, gap: int | None) -> None:
    """Law: at the first gap of GAP_NS from `soon` on, before the next request is due; without one at `until`."""
    due = [100_000 * number + (2 * GAP_NS if gap is not None and number > gap else 0) for number in range(60)]
    simulated = CallbackDevice(slots=2, due_ns=[START + instant for instant in due])
    simulated.now = START
    device = simulated.device(compiled=compiled)
    rows, cursor = np.zeros((100, COLUMNS), np.int64), np.array((0, 100), np.int64)
    state = new_state(1, 2, 1, np.array(due, np.int64), (0,), rows, cursor)
    state.n[LAST] = len(due)
    used = state if compiled else lists_of(state)
    begin(used, START)
    go = spinner(state, device) if compiled else partial(spin, used, view_of(device))
    soon, until = START + 1_000_000, START + 2_500_000
    ended = go(soon, until)
    left = next((START + instant for instant in due if START + instant > ended), ended)
    if gap == 12:  # the one before is over by then, the one after is too late
        assert soon <= START + due[12] <= ended <= left - GAP_NS
        assert left == START + due[13]
    else:
        assert until <= ended < until + 100_000


def test_a_lane_without_a_request_in_flight_finishes_none() -> None:
    """What an engine completes and was not asked for is an error, and never a place outside of the arrays."""
    simulated = CallbackDevice()
    for compiled in {False, is_compiled()}:
        device = simulated.device(compiled=compiled)
        state = new_state(1, 1, 1, None, (0,), np.zeros((BOARD, COLUMNS), np.int64), np.array((0, BOARD), np.int64))
        state.n[LAST] = 5
        device.n[FOUND] = 1
        go = spinner(state, device) if compiled else partial(spin, lists_of(state), view_of(device))
        with pytest.raises(IndexError, match="nothing in flight"):
            go(START, START)


@pytest.mark.skipif(not is_compiled(), reason="without numba nothing is compiled")
@pytest.mark.parametrize("wanted", [(2, 1, 1, (0,)), (1, 2, 1, (0,)), (1, 1, 2, (0,)), (1, 1, 1, (0, 1))])
def test_a_load_that_an_engine_has_no_place_for_is_refused(wanted: tuple[int, int, int, tuple[int, ...]]) -> None:
    """More lanes, buffer sets, requests of a launch, or input sets: machine code would read other memory."""
    *shape, order = wanted
    rows, cursor = np.zeros((BOARD, COLUMNS), np.int64), np.array((0, BOARD), np.int64)
    lanes, buffers, per_launch = shape
    with pytest.raises(IndexError, match="than the engine"):
        spinner(
            new_state(lanes, buffers, per_launch, None, order, rows, cursor), CallbackDevice().device(compiled=True)
        )


def test_machine_code_stays_within_its_arrays() -> None:
    """The same scenarios with numba's check of each index, in a process of their own: numba keeps code by its source,
    whatever it checks."""
    if not is_compiled() or "NUMBA_BOUNDSCHECK" in os.environ:
        pytest.skip("there is no machine code, or this is the process that checks it")
    with tempfile.TemporaryDirectory() as folder:
        given = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": folder}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", __file__]
        done = subprocess.run(command, env=given, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout
