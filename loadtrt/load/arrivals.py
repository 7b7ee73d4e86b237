"""When requests are due: drawn before the run, in int nanoseconds from its start. Closed loops have no schedule.

A Process says how requests come at a rate, and a Course how the rate changes: steady, in bursts or in stages.
"""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.units import NEVER, SECOND_NS, format_count, parse_duration, parse_rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

# Each stream of random numbers has a number, so that a change of one leaves the others as they are.
_ARRIVALS_STREAM = 0
_BLOCK = 1 << 14  # numbers drawn at a time: fixed, so that the draws do not depend on a schedule's length
LEAST_CV = 1e-9  # gaps that deviate less are equal: 1 / CV² is still a number
MOST_REQUESTS = 50_000_000  # 400 MB of due instants, twice that while they are drawn
# Relative slack on Λ: a request that rounding puts just before a boundary belongs after it, not before a pause.
_SLACK = 1e-12
_ZERO = re.compile(r"0+(?:\.0*)?(?:/[smh])?")


class Process(ABC):
    """A stationary point process of mean rate 1: how requests come at a given arrival rate.

    word: what `--arrivals` calls the process.
    parameters: the options that belong to this process alone.
    cv: coefficient of variation of the gaps between requests, 0 for equal gaps.
    """

    word: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def cv(self) -> float: ...

    @abstractmethod
    def instants(self, seed: int) -> Iterator[npt.NDArray[np.float64]]:
        """u_0, u_1, ..., float64, ascending, in endless blocks of a fixed size. The seed determines all of them."""

    @property
    def text(self) -> str:
        """The process as a reader of a report knows it."""
        return self.word


@dataclass(frozen=True, slots=True)
class Constant(Process):
    """Equal gaps: u_k = k."""

    word = "constant"
    cv = 0.0

    def instants(self, seed: int) -> Iterator[npt.NDArray[np.float64]]:  # noqa: ARG002  # nothing is drawn
        for start in itertools.count(0, _BLOCK):
            yield np.arange(start, start + _BLOCK, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Gamma(Process):
    """Independent gamma gaps of mean 1 and standard deviation `burstiness` (shape 1/CV²).

    The process is stationary: the first gap is the rest of a gap, U·X with U uniform and X drawn by length (gamma of
    shape 1/CV² + 1). With a whole gap there would be (CV² − 1)/2 requests too many.

    burstiness: coefficient of variation of the gaps; 0 is constant, 1 is Poisson.
    """

    burstiness: float
    word = "gamma"
    parameters = ("burstiness",)

    @property
    def cv(self) -> float:
        return self.burstiness

    @property
    def text(self) -> str:
        return f"gamma, CV {self.burstiness:g}"

    def instants(self, seed: int) -> Iterator[npt.NDArray[np.float64]]:
        if self.cv < LEAST_CV:
            yield from Constant().instants(seed)
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ARRIVALS_STREAM,)))
        shape = self.cv**-2
        reached = 0.0 if self.cv == 1 else random.random() * random.standard_gamma(shape + 1) / shape
        head = [] if self.cv == 1 else [reached]  # the rest of an exponential gap is exponential
        while True:
            gaps = random.standard_gamma(shape, _BLOCK) / shape
            block = reached + np.cumsum(gaps)
            reached = float(block[-1])
            yield np.concatenate([head, block])
            head = []


@dataclass(frozen=True, slots=True)
class Poisson(Process):
    """Independent exponential gaps, as requests of many independent users have."""

    word = "poisson"
    cv = 1.0

    def instants(self, seed: int) -> Iterator[npt.NDArray[np.float64]]:
        return Gamma(1.0).instants(seed)


PROCESSES: dict[str, type[Process]] = {process.word: process for process in (Constant, Poisson, Gamma)}


@dataclass(frozen=True, slots=True)
class Stage:
    """A rate that changes linearly from `first` to `last` requests a second within `duration_ns`."""

    first: float
    last: float
    duration_ns: int

    def requests(self, until_ns: int) -> float:
        """Requests expected in the stage's first `until_ns`, of T: n(τ) = first·τ + (last − first)·τ² / 2T."""
        seconds, share = until_ns / SECOND_NS, until_ns / self.duration_ns
        return seconds * (self.first + (self.last - self.first) * share / 2)


@dataclass(frozen=True)
class Course:
    """Stages one after the other, once or repeatedly."""

    stages: tuple[Stage, ...]
    repeats: bool = False

    @cached_property
    def duration_ns(self) -> int:
        """Duration of all stages together, once."""
        return sum(stage.duration_ns for stage in self.stages)

    def requests(self, until_ns: int) -> float:
        """Λ(t) = ∫₀ᵗ λ(s) ds: requests expected before `until_ns`."""
        rounds, left = divmod(until_ns, self.duration_ns) if self.repeats else (0, until_ns)
        expected = rounds * self._round if rounds else 0.0
        for stage in self.stages:
            expected += stage.requests(min(left, stage.duration_ns))
            left = max(left - stage.duration_ns, 0)
        return expected

    @cached_property
    def _round(self) -> float:
        return sum(stage.requests(stage.duration_ns) for stage in self.stages)

    @property
    def mean_per_s(self) -> float:
        """Mean rate over all stages, requests a second."""
        return self._round * SECOND_NS / self.duration_ns

    def scaled(self, factor: float) -> Course:
        """The same course with all rates × factor."""
        return replace(
            self,
            stages=tuple(Stage(factor * stage.first, factor * stage.last, stage.duration_ns) for stage in self.stages),
        )

    def instants(self, expected: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """t = Λ⁻¹(u), the last instant before which u requests are expected; ns, int64 [n], of u ≥ 0, float64 [n].

        In a stage that begins at T₀ with rate a and changes by b a second, n = u − Λ(T₀) gives n = a·τ + b·τ²/2, so
        τ = 2n / (a + √(a² + 2bn)): exact, also where b = 0 or a = 0, and without cancellation. Where u lies beyond a
        course that does not repeat, the end of its last busy stage.
        """
        only = self.stages[0]
        if (
            len(self.stages) == 1 and only.first == only.last > 0 and not self.repeats
        ):  # the same in a third of the time
            return np.minimum(np.rint(SECOND_NS * expected / only.first), only.duration_ns).astype(np.int64)
        begins = np.cumsum([0, *(stage.duration_ns for stage in self.stages)])[:-1]
        requests = np.array([stage.requests(stage.duration_ns) for stage in self.stages])
        busy = requests > 0  # Λ is flat in the others: no u falls into them
        before = (np.cumsum(requests) - requests)[busy]
        rounds = np.zeros(len(expected))
        if self.repeats:
            rounds = np.floor(expected / self._round * (1 + _SLACK))
            expected = np.maximum(expected - rounds * self._round, 0)
        index = np.searchsorted(before[1:] * (1 - _SLACK), expected, side="right")
        number = np.maximum(expected - before[index], 0)
        stages = [stage for stage, works in zip(self.stages, busy, strict=True) if works]
        first = np.array([stage.first for stage in stages])[index]
        length = np.array([stage.duration_ns for stage in stages])[index]
        slope = np.array([(stage.last - stage.first) * SECOND_NS / stage.duration_ns for stage in stages])[index]
        speed = first + np.sqrt(np.maximum(first**2 + 2 * slope * number, 0))
        inside = np.divide(2 * SECOND_NS * number, speed, out=np.zeros_like(number), where=speed > 0)
        inside = np.minimum(np.rint(inside), length)
        due: npt.NDArray[np.int64] = begins[busy][index] + inside.astype(np.int64)
        due += rounds.astype(np.int64) * self.duration_ns
        return due


def steady(rate: float) -> Course:
    """A course of `rate` requests a second without an end."""
    return Course((Stage(rate, rate, NEVER),))


def due_instants(
    process: Process, rate: float | Course, least_ns: int, least_requests: int, seed: int
) -> npt.NDArray[np.int64]:
    """Due instants in ns from the start, int64 [n], ascending: all within `least_ns`, and at least `least_requests`.

    t_k = Λ⁻¹(u_k), Λ(t) = ∫₀ᵗ λ(s) ds, where u is the process of mean rate 1 (Cinlar, Introduction to stochastic
    processes, 1975: with a Poisson u this is exactly the Poisson process of rate λ(t)). So Λ(t) requests are expected
    before t, for every process and every t. The same seed gives the same instants, and a longer schedule begins with
    the shorter one.

    rate: λ in requests per second, steady or as a Course. A Course that ends takes least_requests = 0.
    least_ns: length of the schedule, ns.
    least_requests: the least number of requests, beyond `least_ns` where needed.

    Raises UsageError where the schedule does not fit in memory.
    """
    course = rate if isinstance(rate, Course) else steady(rate)
    limit = course.requests(least_ns)
    require_room(max(limit, least_requests))
    blocks, count = [], 0
    for block in process.instants(seed):
        # 0.3 · 10 s must not become 3.0000000000000004 and let a fourth request in.
        part = block[: max(int(np.searchsorted(block, limit * (1 - 1e-12))), least_requests - count)]
        blocks.append(course.instants(part))
        count += len(part)
        if len(part) < len(block):
            break
    due = np.concatenate(blocks)
    return np.maximum.accumulate(due, out=due)  # rounding may swap instants that are nearer than a float's precision


def require_room(requests: float) -> None:
    """Raises UsageError for more than MOST_REQUESTS."""
    if not requests <= MOST_REQUESTS:  # refuses nan too, which a rate beyond a float gives
        wanted = format_count(requests) if requests < 1e12 else f"{requests:.2g}"
        raise UsageError(
            f"{wanted} requests are too many to draw (at most {format_count(MOST_REQUESTS)}): "
            "use a lower rate, a shorter time or fewer requests"
        )


def parse_stages(text: str) -> Course:
    """The course of "100/s:10s, ramp 500/s-2000/s:60s": RATE:TIME or ramp RATE-RATE:TIME, with commas between.

    A rate may be 0; "ramp 500-2000/m" has one unit for both. Raises UsageError for text that is not a stage, for a
    stage that takes no time, and where all rates are 0.
    """
    stages = tuple(_stage(part.strip()) for part in text.split(","))
    if not any(stage.first or stage.last for stage in stages):
        raise UsageError(f"'{text}' has no requests: write a stage with a rate above zero")
    return _within_a_century(Course(stages), text)


def _within_a_century(course: Course, text: str) -> Course:
    if course.duration_ns > NEVER:  # beyond int64
        raise UsageError(f"'{text}' takes longer than a century: write shorter times")
    return course


def _stage(text: str) -> Stage:
    match = re.fullmatch(r"(?:([^:-]+)|ramp\s+([^:-]+)-([^:-]+)):([^:]+)", text)
    if not match:
        raise UsageError(
            f"'{text}' is not a stage: write RATE:TIME or ramp RATE-RATE:TIME, such as 100/s:10s or "
            "ramp 500/s-2000/s:60s"
        )
    level, low, high, time = match.groups()
    duration_ns = parse_duration(time)
    if not duration_ns:
        raise UsageError(f"'{text}' takes no time: write a duration above zero")
    if level is not None:
        return Stage(_rate(level), _rate(level), duration_ns)
    unit = high[high.index("/") :] if "/" in high and "/" not in low else ""
    return Stage(_rate(low.strip() + unit), _rate(high), duration_ns)


def _rate(text: str) -> float:
    return 0.0 if _ZERO.fullmatch(text.strip()) else parse_rate(text)


def parse_bursts(text: str) -> tuple[int, int]:
    """(on, off) in ns of "1s/4s". Raises UsageError for other text, and where either takes no time."""
    on, slash, off = text.partition("/")
    if not slash:
        raise UsageError(f"'{text}' is not a burst and a pause: write ON/OFF, such as 1s/4s")
    times = parse_duration(on), parse_duration(off)
    if not all(times):
        raise UsageError(f"'{text}' needs a burst and a pause above zero: remove bursts for a steady rate")
    _within_a_century(bursts(1.0, *times), text)
    return times


def bursts(rate: float, on_ns: int, off_ns: int) -> Course:
    """A course with all requests within the first `on_ns` of each on + off, at `rate` requests a second on average."""
    busy = rate * (on_ns + off_ns) / on_ns
    return Course((Stage(busy, busy, on_ns), Stage(0.0, 0.0, off_ns)), repeats=True)
