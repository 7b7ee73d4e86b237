"""What runs say and show: sentences for the user, the live view, and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loadtrt.live.observer import Wishes
from loadtrt.units import SECOND_NS, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.asked.config import RunConfig
    from loadtrt.live.observer import RunFacts
    from loadtrt.live.watching import Watch
    from loadtrt.records.board import Board
    from loadtrt.runs.watched import Talks


class Followers(Protocol):
    """Who reads what a run writes: an observer, or that of the process that started this one.

    boards: where a run writes its rows, one for each model.
    """

    @property
    def boards(self) -> Sequence[Board]: ...

    def describe(self, *facts: RunFacts) -> None:
        """What the run is, model by model."""


class Shown:
    """The live view and the metrics of runs, and who writes on the terminal: `talks`, or the observer.

    watch: the owner of the observer.
    """

    def __init__(self, watch: Watch, talks: Talks, wishes: Wishes) -> None:
        """wishes: what the observer does, if there is one."""
        self.watch = watch
        self._talks, self._draws = talks, wishes.terminal
        self._has_begun = False
        self._told: set[str] = set()

    @property
    def boards(self) -> Sequence[Board]:
        """Where a run writes its rows; none where nobody reads them."""
        return self.watch.boards

    def empty(self) -> None:
        """Empty the boards for another run. Nobody writes to them."""
        if self._has_begun and self.watch.observer is not None:
            self.watch.observer.forget()
            for board in self.boards:
                board.reset()

    def describe(self, *facts: RunFacts | None) -> None:
        """A run begins, of these models, board by board: show it."""
        observer = self.watch.observer
        if observer is None:
            return
        if observer.url and not self._has_begun:
            self._talks.say(f"metrics at {observer.url}")
        self._has_begun = True
        if self._draws:
            self._talks.hand_over(observer)
        observer.describe(*facts)

    def end_drawing(self) -> None:
        """Measuring is over: remove the drawing."""
        observer = self.watch.observer
        if self._draws and observer is not None:
            observer.end_drawing()
            gone = not observer.alive
            self._talks.take_back()
            if gone:
                self._talks.say("the observer process did not answer and was ended: there are no metrics from then on")

    def finish(self, *, push: bool) -> None:
        """The run is over: its metrics say so, and are pushed. push: whether there is time for that."""
        observer = self.watch.observer
        if observer is not None and self.watch.boards:
            for board in observer.boards:
                board.enter("done")
            for sentence in observer.finish(push=push):
                if sentence not in self._told:  # of many runs, once
                    self._told.add(sentence)
                    self._talks.insist(sentence)

    def linger(self, config: RunConfig, outcome: str, sleep: Callable[[float], None]) -> None:
        """Serve metrics for `--metrics-linger` after the last run. sleep: takes seconds."""
        observer = self.watch.observer
        if config.metrics and observer is not None and observer.alive and outcome == "completed":
            if config.metrics_linger:
                self._talks.say(f"metrics stay for {format_duration(config.metrics_linger)} (--metrics-linger)")
            sleep(config.metrics_linger / SECOND_NS)

    def close(self) -> None:
        """End the observer. Safe to call twice."""
        self._talks.take_back()
        self.watch.close()


def wishes_of(config: RunConfig, talks: Talks, *, draws: bool) -> Wishes:
    """What an observer of this run does. draws: whether a live view is drawn, as `config` says."""
    draws = draws and config.live and talks.on_terminal
    return Wishes(config.metrics, config.metrics_native, draws, config.push, config.metrics_linger)
