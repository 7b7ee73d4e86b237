"""When a load has ended: when sending stops, when an engine that completes nothing is given up, and when measuring ends
before its time, as an objective is missed or quantiles are known as precisely as asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.asked.objective import quantile_name
from loadtrt.loop.requests import ARRIVED, COMPLETED, DRAINS, DROPPED, LAST, PROGRESS, SUBMITTED
from loadtrt.units import MILLISECOND_NS, NEVER, SECOND_NS, rough_percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.lanes.model_run import ModelRun, Session
    from loadtrt.lanes.queue import Queue
    from loadtrt.lanes.scheduler import Load, Stop
    from loadtrt.records.board import Board
    from loadtrt.records.records import Records

LOOK_NS = 100 * MILLISECOND_NS  # after which to look at the stop flag again ...
PATIENCE_NS = 50 * MILLISECOND_NS  # ... in a gap between requests, for which a look waits so long at most
DRAIN_NS = 10 * SECOND_NS  # how long to wait for the last requests, by default
FIRST_NS = 120 * SECOND_NS  # the longest time to the first completion: nothing is known of the engine's pace before
_SILENCE_NS = 10 * SECOND_NS  # the longest time without a completion afterwards ...
_PACES = 3  # ... or so many times the longest one that a completion has ended
_NOTED_NS = SECOND_NS  # a shorter silence changes no limit


class Ending:
    """Decides when sending stops (a count, a deadline, a stop flag) and when requests in flight are given up.

    An engine hangs that completes nothing, though requests are in flight, for the longest of _SILENCE_NS, three times
    the longest silence that it has ended itself, `patience_ns` and `drain_ns` of the load; for its first completion it
    has FIRST_NS, unless earlier phases have shown its pace.

    The cells of the queue's state say how many requests there will be in all (LAST), and when the engine last completed
    one, or had none (PROGRESS).

    sent_ns: when sending stopped; NEVER before.
    silent_ns: how long the engine has completed nothing, once it is given up for that; 0 before.
    """

    def __init__(self, load: Load, stop: Stop, queue: Queue, board: Board, start_ns: int) -> None:
        self._load, self._stop, self._queue, self._board = load, stop, queue, board
        self._closed = load.due is None
        self._least_end = start_ns + load.least_ns
        self._drain_ns = DRAIN_NS if load.drain_ns is None else load.drain_ns
        # Of sending; once that has stopped, of draining.
        self._deadline = NEVER if load.most_ns is None else start_ns + load.most_ns
        self._patience = max(self._drain_ns, load.patience_ns, _SILENCE_NS)
        self._n = queue.n
        self.sent_ns = NEVER
        self._noted_at = start_ns
        self._pace, self._silence = load.pace_ns or 0, 0
        self.silent_ns = 0
        if load.due is not None:
            self._n[LAST] = len(load.due)
            if len(load.due) and load.due[-1]:  # offline, all requests are due at 0: their last instant ends nothing
                self._deadline = min(self._deadline, start_ns + int(load.due[-1]))

    def look(self, now: int) -> int | None:
        """When to look again at the latest, ns; None when no request is left, or those that are left are given up.

        Closes the queue once sending stops.
        """
        queue, stop, n = self._queue, self._stop, self._n
        submitted, completed, dropped = n[SUBMITTED], n[COMPLETED], n[DROPPED]
        if self.sent_ns == NEVER:
            stopped = stop.requested or stop.enough or stop.cut or now >= self._deadline
            if stopped:
                n[LAST] = submitted if self._closed else n[ARRIVED]
                queue.close()
            elif self._closed and now >= self._least_end:
                n[LAST] = max(submitted, self._load.least_requests)
            if stopped or submitted + dropped == n[LAST]:
                self.sent_ns, self._deadline = now, now + self._drain_ns
                n[DRAINS] = 1
                self._board.enter("drain")
        if stop.cut and n[LAST] > submitted + dropped:
            queue.forget()
            queue.close()
            n[LAST] = submitted + dropped
        if submitted == completed:
            n[PROGRESS] = now
        if completed + dropped == n[LAST]:
            return None
        if now >= self._deadline:
            if self._load.drain_ns is not None or submitted + dropped != n[LAST]:
                return None
            self._deadline = NEVER  # all were sent: what is in flight ends by itself, or the engine hangs
        if now > n[PROGRESS] + _NOTED_NS and self._is_silent(now, completed):
            return None
        look, deadline = now + LOOK_NS, self._deadline
        return look if look < deadline else deadline  # noqa: FURB136  # min() takes four times as long

    def next_change(self, now: int) -> int:
        """When `look` may change how many requests there will be in all, or give up those that are left; NEVER where it
        will not."""
        return min(self._deadline, self._least_end) if self._closed and now < self._least_end else self._deadline

    @property
    def pace_ns(self) -> int:
        """The longest silence that a completion has ended, in this load or, as `pace_ns` of it, in earlier ones; 0
        where none was longer than _NOTED_NS."""
        return self._pace if self._n[PROGRESS] == self._noted_at else max(self._pace, self._silence)

    def _is_silent(self, now: int, completed: int) -> bool:
        """Note how long the engine has completed nothing; whether that is too long."""
        progress = self._n[PROGRESS]
        self._pace, self._noted_at, self._silence = self.pace_ns, progress, now - progress
        limit = max(self._patience, _PACES * self._pace)
        if not completed and self._load.pace_ns is None:
            limit = max(limit, FIRST_NS)
        self.silent_ns = self._silence if self._silence > limit else 0
        return bool(self.silent_ns)


def watching(
    config: RunConfig,
    stop: Stop,
    run: ModelRun,
    sessions: Sequence[Session],
    ticker: Callable[[int, int], None] | None,
    began: int,
) -> Callable[[int, int], None] | None:
    """The ticker, and a look at whether enough was measured, where the configuration wants it to end then: once one
    model has missed an objective, or once the quantiles of all are known.

    sessions: those of all models.
    """
    if not may_end_early(config):
        return ticker
    from loadtrt.stats.early import Misses, Widths, ranks_of

    session, recorder = run.session, run.session.recorder
    assert recorder is not None  # noqa: S101  # measuring has begun
    ranks = ranks_of(run.model.objectives)
    judged = [objective for objective in run.model.objectives if objective.of_requests]
    misses = Misses(judged) if config.abort_on_fail and judged else None
    widths = None if config.precision is None else Widths(ranks, config.precision)
    recorder.counts_early = widths is not None  # a block now and then, that no second's rows are counted in one go

    def count() -> Records:
        recorder.drain()
        return recorder.records

    def tick(submitted: int, completed: int) -> None:
        if ticker is not None:
            ticker(submitted, completed)
        if misses is not None and not stop.cut:
            misses.add(recorder.recent())
            late = run.engine.now_ns() - began >= config.abort_delay
            missed = misses.missed(count, list(recorder.histograms.values())) if late else None
            if missed is not None:
                session.ended_early, stop.cut = f"{missed.objective} is missed", True
        if widths is not None and not (stop.cut or session.ended_early):
            recorder.drain()
            reached = widths.narrow_enough(recorder.spans.intervals, recorder.records, recorder.histograms["latency"])
            if reached is not None:
                session.ended_early = f"latency's {_names(ranks)} known within ±{rough_percent(reached)}"
                stop.enough = all(other.ended_early for other in sessions)

    return tick


def may_end_early(config: RunConfig) -> bool:
    """Whether anything may end measuring before its time."""
    return config.abort_on_fail or config.precision is not None


def _names(ranks: Sequence[float]) -> str:
    return f"{', '.join(map(quantile_name, ranks))} {'is' if len(ranks) == 1 else 'are'}"
