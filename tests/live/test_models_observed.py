"""A run of several models as it is observed: each has its series, its part of the view, and its board."""

from __future__ import annotations

import mmap
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.exposition import generate_latest

from exported import FACTS, page, recorded, some_requests, values, view
from live_snapshots import FACTS as VIEWED
from live_snapshots import snapshot
from loadtrt.live.exporter import Collected
from loadtrt.live.frame import render, status_line
from loadtrt.live.metrics import families, together
from loadtrt.live.view import Viewer
from loadtrt.live.view_json import from_json, to_json
from loadtrt.records.board import board_bytes, boards_in

SEEN = replace(
    view(recorded(some_requests(1000))[0], facts=replace(FACTS, model="detector")),
    others=(view(recorded(some_requests(300))[0], facts=replace(FACTS, model="classifier", rate=None)),),
)


def views_of(*names: str) -> list[str]:
    """The names of models at the beginnings of lines of a frame."""
    first, *others = (Viewer().take(snapshot(), replace(VIEWED, model=name), None, 0) for name in names)
    frame = render(replace(first, others=tuple(others)), 100, 40)
    lines = [line.plain.strip() for line in frame.lines]
    assert len(lines) <= 40
    return [line.split(" ·")[0] for line in lines if line.split(" ·")[0] in names]


@pytest.mark.parametrize("native", [False, True])
def test_each_family_is_declared_once_and_has_series_of_each_model(native: bool) -> None:
    """As the text formats demand."""
    metrics = together([SEEN], native)
    names = [metric.name for metric in metrics]
    assert len(names) == len(set(names))
    found = page(metrics)
    assert {key[0]: count for key, count in values(found, "loadtrt_latency_seconds_count", "model").items()} == {
        "detector": 1000,
        "classifier": 300,
    }
    assert list(values(found, "loadtrt_offered_requests_per_second", "model")) == [("detector",)]
    text = generate_latest(Collected(metrics)).decode()
    assert text.count("# TYPE loadtrt_requests_total counter") == 1


def test_one_model_has_the_families_that_it_has_alone() -> None:
    alone = replace(SEEN, others=())
    (other,) = SEEN.others
    both = page(together([SEEN]))
    assert both == page(families(alone)) | page(families(other))


@pytest.mark.parametrize("names", [("one",), ("detector", "classifier"), ("a", "b", "c", "d")])
def test_each_model_has_a_part_of_the_frame(names: tuple[str, ...]) -> None:
    assert views_of(*names) == list(names)


@pytest.mark.parametrize("height", [1, 2, 3, 5, 9])
def test_a_frame_of_several_models_fits(height: int) -> None:
    first, second = (Viewer().take(snapshot(), replace(VIEWED, model=name), None, 0) for name in ("one", "two"))
    assert len(render(replace(first, others=(second,)), 60, height).lines) <= height


def test_the_view_of_several_models_is_the_same_on_another_machine() -> None:
    first, second = (Viewer().take(snapshot(), replace(VIEWED, model=name), None, 0) for name in ("one", "two"))
    both = replace(first, others=(second,))
    assert from_json(to_json(both)) == both
    assert status_line(both).startswith("one: ")
    assert " | two: " in status_line(both)


def test_boards_share_no_memory() -> None:
    """What is written to one is in no other."""
    memory = mmap.mmap(-1, 3 * board_bytes())
    boards = boards_in(memory, 3)
    boards[1].enter("measure")
    boards[1].rows[:2] = 7
    boards[1].rows[-1] = 7
    assert [board.state().phase for board in boards] == [0, 3, 0]
    assert [int(np.count_nonzero(board.rows[:2])) for board in boards] == [0, 2 * boards[1].rows.shape[1], 0]
    assert [int(np.count_nonzero(board.rows[-1])) > 0 for board in boards] == [False, True, False]
