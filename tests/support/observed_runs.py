"""Runs in virtual time, with what an observer has of them at their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from loadtrt.asked.config import RunConfig
from loadtrt.engines.open import open_engine
from loadtrt.lanes.input_sets import inputs_for
from loadtrt.lanes.outcome import result_of
from loadtrt.lanes.scheduler import Stop
from loadtrt.lanes.session import Session, run_session
from loadtrt.live.follower import follower_of
from loadtrt.live.observer import RunFacts
from loadtrt.records.board import Board
from loadtrt.runs.watched import facts_of

if TYPE_CHECKING:
    from loadtrt.records.board import Snapshot
    from loadtrt.results.run_result import RunResult


def observed_run(options: dict[str, Any]) -> tuple[RunResult, Snapshot, RunFacts]:
    """A finished run in virtual time: its result, and what an observer has of it at the end."""
    config = RunConfig.of(**{"warmup": "0s", **options})
    engine, session, board = open_engine(config.model), Session(), Board(keep=1 << 15)
    inputs = inputs_for(engine, config.model).sets
    bill = engine.memory(inputs)
    facts = RunFacts.from_json(facts_of("r", config, engine, len(inputs)).to_json())
    follower = follower_of(board, facts)

    def tick(phase: Any, elapsed_ns: int, *_: int) -> None:
        if not elapsed_ns:
            board.enter(phase)
        follower.follow()

    anyio.run(run_session, engine, config, inputs, Stop(), session, tick, None, board)
    result = result_of(session, engine, config, bill, run="", load_ns=0, started="", command=(), environment={})
    engine.close()
    board.enter("done")
    return result, follower.snapshot(), facts
