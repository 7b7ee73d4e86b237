"""The board: what one process writes, another reads in one piece; counts on it are the recorder's own."""

from __future__ import annotations

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtrt.config import RunConfig
from loadtrt.engines.open import open_engine
from loadtrt.lanes.recorder import Recorder
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.load.inputs import make_inputs
from loadtrt.measure.board import OUTCOMES, PHASES, RATIOS, Board, board_bytes
from loadtrt.measure.records import FAILED, METRICS, OK, UNSERVED


def _board(lanes: int = 2) -> Board:
    return Board(bytearray(board_bytes(lanes)), lanes)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([OK, OK, OK, FAILED, UNSERVED]), st.integers(1, 10**9)),
        max_size=50,
    )
)
def test_counts_are_the_recorders_own(requests: list[tuple[int, int, int]]) -> None:
    """Outcomes by lane, histograms, sums, lane sums and good requests equal what is counted one by one."""
    bound = 10**8
    board = _board()
    recorder = Recorder(2, 0, board=board, bounds=[(0, bound)])
    for number, (lane, status, time) in enumerate(requests):
        recorder.record(0, 0, 1, time, 0, time // 2, 0, 0, lane, status)
        if number % 7 == 0:
            recorder.drain()
    recorder.finish()
    found = board.snapshot()
    for lane in (0, 1):
        for status in range(len(OUTCOMES)):
            assert found.outcomes[lane, status] == sum(item[:2] == (lane, status) for item in requests)
        served = [time for where, status, time in requests if (where, status) == (lane, OK)]
        assert found.lane_service_ns[lane] == sum(served)
        assert found.lane_compute_ns[lane] == sum(time // 2 for time in served)
    for place, metric in enumerate(METRICS):
        assert np.array_equal(found.counts[place], recorder.histograms[metric.name].counts)
        assert found.sums_ns[place] == recorder.histograms[metric.name].sum
    assert found.good[0] == sum(status == OK and time <= bound for _, status, time in requests)
    ratios = [time / (time // 2) for _, status, time in requests if status == OK and time > 1]
    assert found.ratios.sum() == len(ratios)
    assert found.ratio_sum == pytest.approx(sum(ratios))
    assert found.ratios[0] == sum(ratio <= RATIOS[0] for ratio in ratios)


def test_a_copy_is_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks while somebody writes waits, and gets all of what was written."""
    board = _board()
    writing = board.writing()
    writing.__enter__()
    board.show_counts(np.ones((2, len(OUTCOMES)), np.int64), 0, np.empty(0, np.int64), [0] * len(METRICS))

    def go_on(_: float) -> None:
        board.show_counts(np.full((2, len(OUTCOMES)), 2, np.int64), 0, np.empty(0, np.int64), [7] * len(METRICS))
        writing.__exit__(None, None, None)

    monkeypatch.setattr("loadtrt.measure.board.time.sleep", go_on)
    found = board.snapshot()
    assert (found.outcomes == 2).all()
    assert (found.sums_ns == 7).all()


def test_a_writer_that_died_in_the_middle_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest copy, after so many tries."""
    board = _board()
    writing = board.writing()
    writing.__enter__()
    waits: list[float] = []
    monkeypatch.setattr("loadtrt.measure.board.time.sleep", waits.append)
    assert board.snapshot().phase == "load"
    assert 0.05 < sum(waits) < 1


def test_phases_are_told() -> None:
    """From load to done; measuring notes its instant."""
    board = _board()
    assert board.snapshot().phase == "load"
    for phase in PHASES:
        board.enter(phase)
        assert board.snapshot().phase == phase
    assert board.snapshot().started_ns > 0


def test_a_whole_run_ends_on_the_board(anyio_backend: tuple[str, dict[str, object]]) -> None:
    """After a run the board's counts are the result's, nothing is in flight, and the last whole second is shown."""
    config = RunConfig(
        engine="simulated:service=10ms,clock=virtual",
        contexts=2,
        arrivals="poisson",
        rate=100.0,
        duration="3s",
        warmup=0,
    )
    board, session = _board(), Session()
    engine = open_engine(config)
    inputs = make_inputs(engine.info.tensors, config.inputs, config.input_sets, config.input_range, config.seed)
    name, options = anyio_backend
    anyio.run(
        lambda: run_session(engine, config, inputs, Stop(), session, board=board), backend=name, backend_options=options
    )
    engine.close()
    assert session.recorder is not None
    found = board.snapshot()
    assert found.outcomes[:, OK].tolist() == session.recorder.by_lane.tolist()
    assert found.submitted == session.recorder.submitted
    assert (found.in_flight, found.waiting, found.busy_lanes) == (0, 0, 0)
    assert found.window_start_ns == session.recorder.intervals[-1].start_ns
    assert found.window_requests == session.recorder.intervals[-1].requests
    assert found.window_ns[-1] == session.recorder.intervals[-1].latency_max_ns
