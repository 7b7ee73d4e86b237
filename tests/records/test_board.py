"""The board: what one process writes, another reads whole; what it counts is what the recorder counts."""

from __future__ import annotations

import mmap
import pickle
from typing import TYPE_CHECKING
from unittest import mock

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.asked.config import RunConfig
from loadtrt.engines.open import open_engine
from loadtrt.engines.simulated import SimulatedEngine
from loadtrt.engines.simulation import parse_simulation
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Load, Stop, drive
from loadtrt.lanes.session import Session, run_session
from loadtrt.live.follower import Follower
from loadtrt.load.inputs import make_inputs
from loadtrt.records.board import OUTCOMES, PHASES, RATIOS, STRIDE, Board, Piece, RunState, board_bytes
from loadtrt.records.records import COLUMNS, FAILED, METRICS, OK, UNSERVED

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from loadtrt.engines.engine import Completion


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([OK, OK, OK, FAILED, UNSERVED]), st.integers(1, 10**10)),
        max_size=50,
    ),
    st.sampled_from([0, 9, 1024]),
)
def test_counts_are_the_recorders_own(requests: list[tuple[int, int, int]], keep: int) -> None:
    """Outcomes by lane, histograms, sums, lane sums and good requests equal what is counted one by one, however often
    they were looked at."""
    bound = 10**8
    board = Board(bytearray(board_bytes(keep, 256)), keep, 256)
    recorder, follower = Recorder(2, 0, board=board, bounds=[(0, bound, ())]), Follower(board, 2, [(0, bound, ())])
    for number, (lane, status, time) in enumerate(requests):
        recorder.record(0, 0, 1, time, 0, time // 2, 0, 0, lane, status)
        if number % 7 == 0:
            recorder.show(number + 1, number + 1, 0, 0)
        if number % 5 == 0:
            follower.follow()
    recorder.finish()
    found = follower.snapshot()
    for lane in (0, 1):
        for status in range(len(OUTCOMES)):
            assert found.outcomes[lane, status] == sum(item[:2] == (lane, status) for item in requests)
        served = [time for where, status, time in requests if (where, status) == (lane, OK)]
        assert found.lane_service_ns[lane] == sum(served)
        assert found.lane_compute_ns[lane] == sum(time // 2 for time in served)
    for place, metric in enumerate(METRICS):
        assert np.array_equal(found.counts[place], recorder.histograms[metric.name].counts)
        assert found.sums_ns[place] == recorder.histograms[metric.name].sum
    assert found.good[0] == sum(status == OK and time <= bound for _, status, time in requests) == recorder.good[0]
    ratios = [time / (time // 2) for _, status, time in requests if status == OK and time > 1]
    assert found.ratios.sum() == len(ratios)
    assert found.ratio_sum == pytest.approx(sum(ratios))
    assert found.ratios[0] == sum(ratio <= RATIOS[0] for ratio in ratios)
    assert found.missed == 0


class Watching(Follower):
    """A follower that remembers the numbers of the rows that it counted."""

    def __init__(self, board: Board) -> None:
        super().__init__(board, 1)
        self.numbers: list[int] = []

    def absorb(self, rows: npt.NDArray[np.int64]) -> None:
        super().absorb(rows)
        assert (rows[:, :8] == rows[:, :1]).all()  # no row is of two
        self.numbers += rows[:, 0].tolist()


class Interrupted(Board):
    """A board that is written while it is copied: `meanwhile` runs between the halves of a copy."""

    meanwhile: Callable[[], None]

    def copy(self, first: int, end: int) -> npt.NDArray[np.int64]:
        half = len(super().copy(first, end)) // 2
        before = super().copy(first, end)[:half]
        self.meanwhile()
        return np.concatenate((before, super().copy(first, end)[half:]))


def _record(recorder: Recorder, count: int) -> None:
    """So many rows more, of which each is its own number in all columns that are times."""
    for number in range(recorder.submitted, recorder.submitted + count):
        recorder.record(number, number, number, number, number, number, number, number, 0, OK)
    recorder.submitted += count


@given(st.lists(st.integers(0, 700), max_size=12), st.sampled_from([0, 128, 300]), st.sampled_from([256, 512]))
def test_who_stood_still_knows_what_he_missed(steps: list[int], keep: int, ring: int) -> None:
    """Rows counted + rows missed = rows written; each is counted once at most, in order and whole; nothing is missed
    but what was overwritten, or could have been: the kept rows never are, nor the last ring − STRIDE."""
    board = Board(keep=keep, ring=ring)
    recorder, follower = Recorder(1, 0, board=board), Watching(board)
    for step in steps:
        _record(recorder, step)
        recorder.show(recorder.submitted, recorder.submitted, 0, 0)
        follower.follow()
        assert follower.seen + follower.missed == recorder.submitted
        safe = min(step, ring - STRIDE)
        assert follower.numbers[len(follower.numbers) - safe :] == list(
            range(recorder.submitted - safe, recorder.submitted)
        )
    assert follower.numbers == sorted(set(follower.numbers))
    assert follower.numbers[:keep] == list(range(min(keep, recorder.submitted)))
    if all(step <= ring - STRIDE for step in steps):
        assert follower.missed == 0
    recorder.finish()
    assert recorder.seen == recorder.submitted
    assert recorder.histograms["lateness"].sum == sum(range(recorder.submitted))


@given(st.integers(0, 600), st.sampled_from([0, 100]))
def test_rows_that_are_overwritten_while_they_are_copied_are_not_counted(meanwhile: int, keep: int) -> None:
    """The rows counted are whole, and no other is lost than those of the ring."""
    board = Interrupted(keep=keep, ring=256)
    recorder, follower = Recorder(1, 0, board=board), Watching(board)
    left = [meanwhile]
    board.meanwhile = lambda: _record(recorder, left.pop()) if left else None
    _record(recorder, 230)
    recorder.show(230, 230, 0, 0)
    for _ in range(2):  # at the second look at all that came meanwhile
        follower.follow()
        recorder.show(recorder.submitted, recorder.submitted, 0, 0)
    assert follower.numbers == sorted(set(follower.numbers))
    assert follower.numbers[:keep] == list(range(keep))
    assert follower.seen + follower.missed == recorder.submitted
    if recorder.submitted <= keep + 256 - STRIDE:
        assert follower.missed == 0


def test_a_copy_is_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader waits while the writer writes, and gets all of what was written."""
    memory = bytearray(board_bytes(0, STRIDE))
    board = Board(memory, 0, STRIDE)
    words = np.frombuffer(memory, np.int64)
    board.show(1, 1, 1, 1, 1)
    words[0] += 1  # a writer begins to write

    def go_on(_: float) -> None:
        words[0] += 1
        board.show(5, 5, 2, 5, 5)

    monkeypatch.setattr("loadtrt.records.board.time.sleep", go_on)
    found = board.state()
    assert (found.rows, found.submitted, found.in_flight, found.waiting, found.busy_lanes) == (5, 5, 3, 5, 5)


def test_a_writer_that_died_in_the_middle_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest copy, after so many tries."""
    memory = bytearray(board_bytes(0, STRIDE))
    memory[0] = 1
    waits: list[float] = []
    monkeypatch.setattr("loadtrt.records.board.time.sleep", waits.append)
    assert Follower(Board(memory, 0, STRIDE), 1).snapshot().phase == "load"
    assert 0.05 < sum(waits) < 1


def test_phases_are_told() -> None:
    """From load to done; measuring notes its instant."""
    board = Board(keep=0)
    follower = Follower(board, 1)
    assert follower.snapshot().phase == "load"
    for phase in PHASES:
        board.enter(phase)
        assert follower.snapshot().phase == phase
    assert follower.snapshot().started_ns > 0


@pytest.mark.parametrize("keep", [0, 100, 1000])
def test_a_whole_run_ends_on_the_board(keep: int, anyio_backend: tuple[str, dict[str, object]]) -> None:
    """After a run the board's counts are the result's, nothing is in flight, and the last second is shown."""
    config = RunConfig.of(
        engine="simulated:service=10ms,clock=virtual",
        contexts=2,
        arrivals="poisson",
        rate=100.0,
        duration="3s",
        warmup=0,
        max_queue=1,
    )
    board, session = Board(keep=keep, ring=512), Session()
    follower, looks = Follower(board, 2), []
    engine = open_engine(config.model)
    inputs = make_inputs(
        engine.info.tensors, config.model.inputs, config.model.input_sets, config.model.input_range, config.model.seed
    )
    name, options = anyio_backend

    def tick(*_: object) -> None:
        looks.append(follower.snapshot())

    anyio.run(
        lambda: run_session(engine, config, inputs, Stop(), session, tick, board=board),
        backend=name,
        backend_options=options,
    )
    engine.close()
    recorder = session.recorder
    assert recorder is not None
    found = follower.snapshot()
    assert found.outcomes.tolist() == recorder.outcomes.tolist()
    assert found.outcomes.sum() == recorder.seen
    assert found.submitted == recorder.submitted
    assert (found.in_flight, found.waiting, found.busy_lanes, found.missed) == (0, 0, 0, 0)
    assert found.window_start_ns == recorder.intervals[-1].start_ns
    assert found.window_requests == recorder.intervals[-1].requests
    assert found.window_ns[-1] == recorder.intervals[-1].latency_max_ns
    for place, metric in enumerate(METRICS):
        assert np.array_equal(found.counts[place], recorder.histograms[metric.name].counts)
    counts = [int(look.outcomes.sum()) for look in looks]
    assert counts == sorted(counts)
    assert counts[-1] > 0  # seen while the run went on


def test_observers_are_at_most_a_tenth_of_a_second_behind(anyio_backend: tuple[str, dict[str, object]]) -> None:
    """Whatever completed 0.1 s before an instant at which the scheduler looks round is on the board, also where nothing
    is due for long."""
    engine = SimulatedEngine(parse_simulation("service=3ms,clock=virtual", seed=1), contexts=2)
    engine.allocate([{"x": np.zeros((1, 16), np.float32)}])
    recorder = Recorder(2, engine.now_ns())
    follower, completed = Follower(recorder.board, 2), [recorder.start_ns]
    due = np.random.default_rng(1).exponential(20e6, 300).cumsum().astype(np.int64)
    behind: list[int] = []

    def look(completion: Completion, _: int) -> None:
        follower.follow()
        old = sum(at < completion.completed_ns - 100_000_000 for at in completed[1:])
        behind.append(max(old - follower.seen, 0))
        completed.append(completion.completed_ns)

    name, options = anyio_backend
    load = Load(due=due)
    anyio.run(lambda: drive(engine, recorder, load, Stop(), look), backend=name, backend_options=options)
    follower.follow()
    assert behind == [0] * 300
    assert follower.seen == 300 == recorder.seen


def test_a_board_takes_no_memory_before_it_is_written() -> None:
    """A run of a thousand requests needs no room for a million; what is to come can be taken at once."""
    memory = mmap.mmap(-1, board_bytes())
    board = Board(memory)
    recorder = Recorder(1, 0, board=board)
    _record(recorder, 1000)
    assert recorder.seen == 0  # nothing is counted while it measures
    assert _resident_bytes(board) < 8 * len(COLUMNS) * 1000 + 16384
    board.touch(100_000)
    assert 8 * len(COLUMNS) * 99_000 < _resident_bytes(board) < 8 * len(COLUMNS) * 101_000


def _resident_bytes(board: Board) -> int:
    with open("/proc/self/smaps", encoding="ascii") as file:
        text = file.read()
    address = f"{board.rows.ctypes.data & ~4095:x}-"
    (part,) = [part for part in text.split("VmFlags") if f"\n{address}" in part or part.startswith(address)]
    return next(int(line.split()[1]) << 10 for line in part.splitlines() if line.startswith("Rss:"))


@given(st.integers(0, 900), st.sampled_from([0, 9, 1024]), st.integers(1, 60), st.integers(1, 300))
def test_a_copy_on_another_host_counts_the_same(requests: int, keep: int, most: int, each: int) -> None:
    """Each row once, in pieces of any size; what was overwritten before it was copied is missed, and nothing is
    counted that is not the run's."""
    boards = [Board(bytearray(board_bytes(keep, 256)), keep, 256) for _ in range(2)]
    there, here = boards
    recorder, follower = Recorder(1, 0, board=there), Follower(here, 1)
    sent = RunState()

    def copy() -> None:
        nonlocal sent
        while (piece := there.take(sent)) is not None:
            assert len(piece.rows) <= most
            sent = piece.state
            here.put(pickle.loads(pickle.dumps(piece)))  # noqa: S301  # as Ray sends it
            follower.follow()

    there.enter("measure")
    with mock.patch("loadtrt.records.board.PIECE", most):
        for number in range(requests):
            recorder.record(0, 0, 1, number + 1, 0, 1, 0, 0, 0, OK)
            if number % each == 0:
                recorder.show(number + 1, number + 1, 0, 0)
                copy()
        recorder.finish()
        copy()
    found = follower.snapshot()
    assert int(found.outcomes.sum()) + found.missed == requests
    assert here.state()._replace(written_ns=0, started_ns=0) == there.state()._replace(written_ns=0, started_ns=0)
    if each <= 64 or keep > requests:
        assert found.missed == 0
        assert found.sums_ns[0] == requests * (requests + 1) // 2
    assert there.take(sent) is None


def test_the_clock_of_another_host_does_not_matter() -> None:
    """When a run began, and when it was last heard of, are as long ago here as there; and a writer that stands still
    is seen to."""
    there, here = Board(keep=1), Board(keep=1)
    there.enter("measure")
    state = there.state()
    far = state._replace(started_ns=state.started_ns - 10**15, written_ns=state.written_ns - 10**15 + 2 * 10**9)
    here.put(Piece(far, 0, 0, np.empty((0, len(COLUMNS)), np.int64)))
    told = here.state()
    assert told.written_ns - told.started_ns == pytest.approx(2 * 10**9, abs=10**9)
    assert abs(told.written_ns - state.written_ns) < 60 * 10**9
    here.put(Piece(far._replace(submitted=3), 0, 0, np.empty((0, len(COLUMNS)), np.int64)))
    assert here.state().started_ns == told.started_ns
    assert there.take(state) is None
