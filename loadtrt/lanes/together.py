"""One task drives the loads of several models at once, each by a `Driver` of its own.

Rounds of the models take turns, so that no model waits for another's longer than a round. Where all engines spin,
`loop.device.spin_all` takes the place of most turns. Else a model whose engine spins has one round in each turn, and
one whose engine is waited for has a round when its engine may have completed something, or when its driver wants one.
Where no engine spins, the task sleeps until the first of these instants, or until an engine's thread notifies it: a
model has its rounds at the instants at which it would have them alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from loadtrt.engines.engine import Shares, Spins
from loadtrt.engines.waiting import Sleeper
from loadtrt.lanes.scheduler import drive_with
from loadtrt.loop.compiled import MOST_MODELS, spinner_of_all
from loadtrt.loop.device import spin_all
from loadtrt.units import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtrt.engines.engine import Engine
    from loadtrt.lanes.scheduler import Driven, Driver


@dataclass(slots=True, eq=False)
class Drive:
    """A load that is driven.

    on_tick: called as (submitted, completed) about once a second.
    driven: what was driven, once it is over; also where it failed.
    error: what ended it before its time.
    """

    driver: Driver
    engine: Engine
    on_tick: Callable[[int, int], None] | None = None
    driven: Driven | None = None
    error: Exception | None = None
    _until: int = 0  # when the driver wants a round at the latest ...
    _soon: bool = True  # ... and whether a completion matters before
    _turn_ns: int = 0  # when an engine that spins needs a turn
    _next_look: Callable[..., int] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing is driven any more."""
        return self.driven is not None

    def result(self) -> Driven:
        """What was driven. Raises the error that ended it."""
        if self.error is not None:
            raise self.error
        assert self.driven is not None  # noqa: S101  # it is over
        return self.driven

    def begin(self) -> None:
        """The load begins."""
        self.driver.begin(self.on_tick)
        if self.driver.spin is None and isinstance(self.engine, Shares):
            self._next_look = self.engine.next_look
        self._until = self._turn_ns = self.driver.start_ns

    def next_round(self) -> int:
        """When the next round is to be at the latest, by what is known now."""
        if self._next_look is None:
            return 0
        look, until = self._next_look(soon=self._soon), self._until
        return look if look < until else until  # noqa: FURB136  # min() takes four times as long

    async def round(self) -> bool:
        """One round. False where all is over."""
        if self.driver.spin is not None:
            return await self._spin(self.driver.spin)
        driver, engine = self.driver, self.engine
        driver.receive(await engine.wait(0))
        now = engine.now_ns()
        if now >= driver.next_show:
            driver.show(now)
            now = engine.now_ns()  # showing took its time
        return self._send(now)

    def send_first(self) -> bool:
        """What comes before the first round of an engine that is waited for. False where all is over."""
        return self.driver.spin is not None or self._send(self.driver.start_ns)

    def _send(self, now: int) -> bool:
        wake = self.driver.send(now)
        if wake is not None:
            self._until, self._soon = wake
        return wake is not None

    async def _spin(self, spin: Callable[[int, int], int]) -> bool:
        if await self.look() is None:
            return False
        now = self.engine.now_ns()
        spin(now, now)
        self.driver.make_room()
        self.show()
        return True

    async def look(self) -> tuple[int, int] | None:
        """What comes before rounds of an engine that spins. What `Driver.look` returns."""
        driver, engine = self.driver, self.engine
        now = engine.now_ns()
        if now >= self._turn_ns:
            self._turn_ns = await cast("Spins", engine).turn()  # it gave the device
            now = engine.now_ns()
        return driver.look(now, self._turn_ns)

    def show(self) -> None:
        """What comes after them."""
        now = self.engine.now_ns()
        if now >= self.driver.next_show:
            self.driver.show(now)

    def end(self, error: Exception | None = None) -> None:
        """Nothing more is driven. error: what ended it."""
        self.error = error
        self.driven = self.driver.close(self.engine.now_ns())


async def drive_all(
    drives: Sequence[Drive], began: int | None = None, spin: Callable[[int, int], int] | None = None
) -> None:
    """Drive loads at once from an instant, or from now on, each until it has ended and drained, or is stopped.

    spin: their `rounds_of_all`, which take their time, where they begin at an instant.

    Their engines have one clock. An error of a model ends its own load, and is in its `Drive`; the others go on. Lets
    cancellation through; whatever happens, every request sent or due by then is in its recorder.
    """
    spin = spin or rounds_of_all(drives)
    for drive in drives:
        drive.driver.recorder.begin(drive.engine.now_ns() if began is None else began)
    if len(drives) == 1:
        (drive,) = drives
        try:
            drive.driven = await drive_with(drive.driver, drive.engine, drive.on_tick)
        except Exception as error:
            drive.error = error
        return
    left = list(drives)
    for drive in left:
        drive.begin()
    sleeper = Sleeper([drive.engine for drive in drives])
    try:
        for drive in drives:
            try:
                if not drive.send_first():
                    drive.end()
            except Exception as error:
                drive.end(error)
        while left := [drive for drive in left if not drive.over]:
            await (_turn(left, sleeper) if spin is None else _spin_all(left, spin))
    finally:
        for drive in left:
            if not drive.over:
                drive.end()
        for drive in drives:  # not before, as others would wait: it takes 0.2 s a million rows
            drive.driver.recorder.count()


def rounds_of_all(drives: Sequence[Drive]) -> Callable[[int, int], int] | None:
    """`spin_all` of several drives, which may have to be compiled first; None where not all of their engines spin, and
    where they are too many to compile it."""
    arrays = [drive.driver.arrays for drive in drives if drive.driver.arrays is not None]
    compiled = bool(drives) and drives[0].driver.compiled
    if len(drives) < 2 or len(arrays) < len(drives) or (compiled and len(drives) > MOST_MODELS):
        return None
    states, devices = zip(*arrays, strict=True)
    return spinner_of_all(states, devices) if compiled else partial(spin_all, states, devices)


async def _spin_all(drives: Sequence[Drive], spin: Callable[[int, int], int]) -> None:
    """Rounds of all drives until one of them needs more than rounds."""
    soon = until = NEVER
    for drive in drives:
        try:
            ends = await drive.look()
            if ends is None:
                drive.end()
            else:
                soon, until = min(soon, ends[0]), min(until, ends[1])
        except Exception as error:
            drive.end(error)
    if until < NEVER:
        spin(soon, until)
    for drive in drives:
        if not drive.over:
            try:
                drive.driver.make_room()
                drive.show()
            except Exception as error:
                drive.end(error)


async def _turn(drives: Sequence[Drive], sleeper: Sleeper) -> None:
    """A round of each drive that is to have one; sleep before, where none is to have one yet."""
    clock = drives[0].engine.now_ns
    rounds = [drive.next_round() for drive in drives]
    if (first := min(rounds)) > clock():
        await sleeper.sleep_until(first)
        rounds = [drive.next_round() for drive in drives]  # a thread may have completed a request
    for drive, due in zip(drives, rounds, strict=True):
        if due <= clock():
            try:
                if not await drive.round():
                    drive.end()
            except Exception as error:
                drive.end(error)
