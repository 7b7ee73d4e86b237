"""Ends measuring before its time: once an objective is missed, or once quantiles are known as precisely as asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtrt.asked.objective import quantile_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.scheduler import Stop
    from loadtrt.lanes.session import Session
    from loadtrt.records.records import Records


def watching(
    config: RunConfig,
    stop: Stop,
    session: Session,
    ticker: Callable[[int, int], None] | None,
    engine: Engine,
    began: int,
) -> Callable[[int, int], None] | None:
    """The ticker, and a look at whether enough was measured, where the configuration wants it to end then."""
    if not may_end_early(config):
        return ticker
    from loadtrt.stats.early import Misses, Widths, ranks_of

    recorder = session.recorder
    assert recorder is not None  # noqa: S101  # measuring has begun
    ranks = ranks_of(config.model.objectives)
    judged = [objective for objective in config.model.objectives if objective.of_requests]
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
            late = engine.now_ns() - began >= config.abort_delay
            missed = misses.missed(count, list(recorder.histograms.values())) if late else None
            if missed is not None:
                session.ended_early, stop.cut = f"{missed.objective} is missed", True
        if widths is not None and not (stop.cut or stop.enough):
            recorder.drain()
            reached = widths.narrow_enough(recorder.spans.intervals, recorder.records, recorder.histograms["latency"])
            if reached is not None:
                session.ended_early = f"latency's {_names(ranks)} known within ±{100 * reached:.2g} %"
                stop.enough = True

    return tick


def may_end_early(config: RunConfig) -> bool:
    """Whether anything may end measuring before its time."""
    return config.abort_on_fail or config.precision is not None


def _names(ranks: Sequence[float]) -> str:
    return f"{', '.join(map(quantile_name, ranks))} {'is' if len(ranks) == 1 else 'are'}"
