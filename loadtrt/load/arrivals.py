"""When requests are due: drawn before the run, in int nanoseconds from its start. Closed loops have no schedule."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from loadtrt.errors import UsageError
from loadtrt.load.stages import Course, steady
from loadtrt.units import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

# Each stream of random numbers has a number, so that a change of one leaves the others as they are.
_ARRIVALS_STREAM = 0
_BLOCK = 1 << 14  # numbers drawn at a time: fixed, so that the draws do not depend on a schedule's length
LEAST_CV = 1e-9  # gaps that deviate less are equal: 1 / CV² is still a number
MOST_REQUESTS = 50_000_000  # 400 MB of due instants, twice that while they are drawn


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

    @property
    def cv(self) -> float:
        return 0.0

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

    @property
    def cv(self) -> float:
        return 1.0

    def instants(self, seed: int) -> Iterator[npt.NDArray[np.float64]]:
        return Gamma(1.0).instants(seed)


PROCESSES: dict[str, type[Process]] = {process.word: process for process in (Constant, Poisson, Gamma)}


def due_instants(
    process: Process, rate: float | Course, least_ns: int, least_requests: int, seed: int
) -> npt.NDArray[np.int64]:
    """Due instants in ns from the start, int64 [n], ascending: all within `least_ns`, and at least `least_requests`.

    t_k = Λ⁻¹(u_k), Λ(t) = ∫₀ᵗ λ(s) ds, where u is the process of mean rate 1 (Cinlar, Introduction to stochastic
    processes, 1975: with a Poisson u this is exactly the Poisson process of rate λ(t)). So Λ(t) requests are expected
    before t, for every process and every t. The same seed gives the same instants, and a longer schedule begins with
    the shorter one.

    process: how requests come.
    rate: λ in requests per second, steady or as a Course. A Course that ends takes least_requests = 0.
    least_ns: length of the schedule, ns.
    least_requests: the least number of requests, beyond `least_ns` where needed.
    seed: of the draws.

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
