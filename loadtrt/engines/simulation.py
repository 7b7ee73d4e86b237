"""What the simulated engine simulates: its parameters, how `--engine simulated:...` spells them, its random numbers."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from loadtrt.errors import UsageError, nearest
from loadtrt.units import MILLISECOND_NS, SECOND_NS, format_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

Distribution = Literal["constant", "exponential", "lognormal", "gamma", "uniform"]
ClockName = Literal["loop", "virtual"]

# Spawn keys of this engine's streams, apart from those of arrivals and inputs: one seed serves the whole run, and two
# streams with one key would be the same numbers, so that long services would follow long gaps.
_STREAMS = 1000
_BLOCK = 4096  # numbers drawn at a time: about 50 µs of work, where one at a time would take longer than a request


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A device that serves requests, and what is wrong with it. Durations are ns; docs/simulated.md states the laws.

    service_ns + item_ns × batch: mean compute time of a request alone on the device; distribution and cv (standard
    deviation / mean): how it varies; contention: with n lanes computing, each progresses at 1 / (1 + contention·(n−1)).
    h2d_ns, d2h_ns: copy times; enqueue_ns: host time of each submit. error, race: probabilities of a request. stall:
    (duration_ns, after_ns), counted from the first submit. slow_lane: (lane, how many times slower it computes).
    Raises UsageError for values outside their ranges.
    """

    service_ns: int = 5 * MILLISECOND_NS
    item_ns: int = 0
    distribution: Distribution | None = None  # None: lognormal where cv is given, else constant
    cv: float | None = None
    contention: float = 0.0
    h2d_ns: int = 0
    d2h_ns: int = 0
    enqueue_ns: int = 0
    error: float = 0.0
    stall: tuple[int, int] | None = None
    slow_lane: tuple[int, float] | None = None
    race: float = 0.0
    seed: int = 1
    clock: ClockName = "loop"

    def __post_init__(self) -> None:
        for key, value in (("contention", self.contention), ("error", self.error), ("race", self.race)):
            if not 0 <= value <= 1:
                raise UsageError(f"simulated engine: {key} must lie between 0 and 1 (it is {value})")
        stall = self.stall or (0, 0)
        for key, duration in (
            ("service", self.service_ns),
            ("item", self.item_ns),
            ("h2d", self.h2d_ns),
            ("d2h", self.d2h_ns),
            ("enqueue", self.enqueue_ns),
            ("stall", min(stall)),
            ("stall", max(stall)),
        ):
            if not 0 <= duration <= 24 * 3600 * SECOND_NS:
                raise UsageError(
                    f"simulated engine: {key} must lie between 0 and 24 hours (it is {duration / SECOND_NS:g} s)"
                )
        if self.seed < 0:
            raise UsageError(f"simulated engine: seed must not be below zero (it is {self.seed})")
        if self.cv is not None and not 0 < self.cv <= 100:
            raise UsageError(f"simulated engine: cv must lie above 0 and up to 100 (it is {self.cv})")
        if self.cv is not None and self.distribution in ("constant", "exponential"):
            raise UsageError(f"simulated engine: the {self.distribution} distribution has no free cv: leave cv out")
        if self.cv is None and self.distribution in ("lognormal", "gamma", "uniform"):
            raise UsageError(f"simulated engine: the {self.distribution} distribution needs cv, such as cv=0.3")
        if self.cv is not None and self.distribution == "uniform" and self.cv > 1 / math.sqrt(3):
            raise UsageError(f"simulated engine: a uniform distribution has cv up to 0.577 (it is {self.cv})")
        if self.slow_lane is not None and not (self.slow_lane[0] >= 0 and 0 < self.slow_lane[1] < math.inf):
            raise UsageError("simulated engine: slow_lane needs a lane from 0 and a factor above zero, such as 2:3")

    def mean_ns(self, batch: int) -> int:
        """Mean compute time of a request alone on the device."""
        return self.service_ns + self.item_ns * batch

    def service_times(self, batch: int) -> Iterator[int]:
        """Compute time alone on the device of the first, second, ... request submitted, ns, without end."""
        mean, cv = float(self.mean_ns(batch)), self.cv or 0.0
        draw: Callable[[np.random.Generator], npt.NDArray[np.float64]]
        match self.distribution or ("lognormal" if self.cv is not None else "constant"):
            case _ if mean == 0:
                return itertools.repeat(0)
            case "constant":
                return itertools.repeat(round(mean))
            case "exponential":
                draw = lambda random: random.exponential(mean, _BLOCK)  # noqa: E731  (one law a line, as a table)
            case "lognormal":  # mean = exp(μ + σ²/2), cv² = exp(σ²) − 1
                variance = math.log1p(cv * cv)
                draw = lambda random: random.lognormal(math.log(mean) - variance / 2, math.sqrt(variance), _BLOCK)  # noqa: E731
            case "gamma":  # shape k, scale θ: mean = kθ, cv² = 1/k
                draw = lambda random: random.gamma(1 / cv**2, mean * cv**2, _BLOCK)  # noqa: E731
            case "uniform":  # on mean·(1 ± h): cv = h/√3
                half = mean * cv * math.sqrt(3)
                draw = lambda random: random.uniform(mean - half, mean + half, _BLOCK)  # noqa: E731
        return self._drawn(0, lambda random: np.rint(draw(random)).astype(np.int64))

    def errors(self) -> Iterator[bool]:
        """Whether the first, second, ... request fails, without end."""
        return self._chances(1, self.error)

    def races(self) -> Iterator[bool]:
        """Whether the first, second, ... request gets another's outputs if another is in flight, without end."""
        return self._chances(2, self.race)

    def _chances(self, number: int, probability: float) -> Iterator[bool]:
        if probability in (0, 1):
            return itertools.repeat(probability == 1)
        return self._drawn(number, lambda random: random.random(_BLOCK) < probability)

    def _drawn(self, number: int, draw: Callable[[np.random.Generator], npt.NDArray[Any]]) -> Iterator[Any]:
        random = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_STREAMS, number)))
        return itertools.chain.from_iterable(draw(random).tolist() for _ in itertools.count())

    def words(self, batch: int) -> dict[str, str]:
        """The parameters that matter, for people: {"service": "5.00 ms", "contention": "1", ...}."""
        service = format_duration(self.mean_ns(batch))
        if self.distribution or self.cv is not None:
            service += f" {self.distribution or 'lognormal'}" + (f", cv {self.cv:g}" if self.cv is not None else "")
        words = {"service": service, "contention": f"{self.contention:g}", "clock": self.clock}
        for key, duration in (("h2d", self.h2d_ns), ("d2h", self.d2h_ns), ("enqueue", self.enqueue_ns)):
            if duration:
                words[key] = format_duration(duration)
        for key, probability in (("error", self.error), ("race", self.race)):
            if probability:
                words[key] = f"{probability:g}"
        if self.stall:
            words["stall"] = f"{format_duration(self.stall[0])} at {format_duration(self.stall[1])}"
        if self.slow_lane:
            words["slow lane"] = f"{self.slow_lane[0]}, {self.slow_lane[1]:g} times"
        return words


def parse_simulation(text: str, seed: int) -> Simulation:
    """The Simulation of "key=value,key=value", what follows "simulated:"; `seed` holds where the text gives none.

    Raises UsageError for an unknown key (naming the nearest), a missing value, a value of the wrong kind.
    """
    values: dict[str, Any] = {"seed": seed}
    seen = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = part.partition("=")
        if key == "null":
            raise UsageError("simulated engine: null has no parameters: write simulated:null, or leave null out")
        if key not in _KEYS:
            raise UsageError(f"simulated engine: unknown key '{key}': {_hint(key, ['null', *_KEYS])}")
        field, read = _KEYS[key]
        if not value:
            raise UsageError(f"simulated engine: '{key}' needs a value: write {key}=...")
        if key in seen:
            raise UsageError(f"simulated engine: '{key}' is given twice")
        seen.add(key)
        try:
            values[field] = read(value)
        except UsageError as error:
            raise UsageError(f"simulated engine: {key}: {error}") from None
        except ValueError:
            raise UsageError(f"simulated engine: {key}: '{value}' is not a number") from None
    return Simulation(**values)


def _hint(word: str, words: Sequence[str]) -> str:
    return nearest(word, words, f"choose from {', '.join(words)}")


def _one_of(kind: Any) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in get_args(kind):
            raise UsageError(f"'{text}' is unknown: {_hint(text, get_args(kind))}")
        return text

    return read


def _stall(text: str) -> tuple[int, int]:
    duration, at, after = text.partition("@")
    if not at:
        raise UsageError(f"'{text}' is not a stall: write how long @ how long after the first request, such as 1s@5s")
    return parse_duration(duration), parse_duration(after)


def _slow_lane(text: str) -> tuple[int, float]:
    lane, colon, factor = text.partition(":")
    if not (colon and lane.isdigit()):
        raise UsageError(f"'{text}' is not a slow lane: write its number : how many times slower, such as 2:3")
    return int(lane), float(factor)


_KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "service": ("service_ns", parse_duration),
    "item": ("item_ns", parse_duration),
    "distribution": ("distribution", _one_of(Distribution)),
    "cv": ("cv", float),
    "contention": ("contention", float),
    "h2d": ("h2d_ns", parse_duration),
    "d2h": ("d2h_ns", parse_duration),
    "enqueue": ("enqueue_ns", parse_duration),
    "error": ("error", float),
    "stall": ("stall", _stall),
    "slow_lane": ("slow_lane", _slow_lane),
    "race": ("race", float),
    "seed": ("seed", int),
    "clock": ("clock", _one_of(ClockName)),
}
